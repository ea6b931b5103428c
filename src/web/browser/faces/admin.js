// Administration: who there is, what is held, how the filter decides, as far as the viewer's roles reach. The address holds the
// page: /admin/PAGE.
import { html } from '../lib/html.js';
import { t } from '../lib/i18n.js';
import { queryOf } from '../lib/load.js';
import { Accounts } from '../pages/accounts.js';
import { Aliases } from '../pages/aliases.js';
import { Changes } from '../pages/changes.js';
import { Domains } from '../pages/domains.js';
import { Held } from '../pages/held.js';
import { Node } from '../pages/node.js';
import { Options } from '../pages/options.js';
import { Record } from '../pages/record.js';
import { Roles } from '../pages/roles.js';
import { Senders } from '../pages/senders.js';
import { Tenants } from '../pages/tenants.js';
import { Whose, mayChange, ofPlace } from '../pages/whose.js';
import { Pages } from '../ui/pages.js';

/** A page about somebody's policy, once it is said whose. */
function About({ face, show }) {
  const of = ofPlace(face.place.query), query = of ? queryOf(of) : '';
  return html`<${Whose} key=${query} ...${face} of=${of} />${of && html`<div class="stack" key=${query}>${show(of, query, mayChange(face.session, of))}</div>`}`;
}

/** Pages that are about the same somebody. */
const ABOUT = ['policy', 'senders', 'history'];

/** By name: what one has to see, and the page. */
const PAGES = {
  domains: ['domains', (face) => html`<${Domains} ...${face} />`],
  accounts: ['accounts', (face) => html`<${Accounts} ...${face} />`],
  aliases: ['accounts', (face) => html`<${Aliases} ...${face} />`],
  tenants: ['tenants', (face) => html`<${Tenants} ...${face} />`],
  roles: ['accounts', (face) => html`<${Roles} ...${face} />`],
  quarantine: ['quarantine', (face) => html`<${Held} ...${face} base="/admin/quarantine" all />`],
  policy: ['policy', (face) => html`<${About} face=${face} show=${(_, query, may) => html`<${Options} query=${query} mayChange=${may} note=${face.note} go=${face.go} />`} />`],
  senders: ['policy', (face) => html`<${About} face=${face} show=${(of, _, may) => html`<${Senders} of=${of} mayChange=${may} note=${face.note} />`} />`],
  history: ['policy', (face) => html`<${About} face=${face} show=${(of, _, may) => html`<${Changes} of=${of} mayChange=${may} note=${face.note} />`} />`],
  record: ['audit', () => html`<${Record} />`],
  node: ['nodes', () => html`<${Node} />`],
};

export function Admin(face) {
  const { session, place, go } = face, names = Object.keys(PAGES).filter((name) => session.sees.includes(PAGES[name][0]));
  const asked = place.path.split('/')[2], current = names.includes(asked) ? asked : names[0];
  const of = ABOUT.includes(current) && ofPlace(place.query), query = of ? queryOf(of) : '';
  return html`<${Pages} face="admin" label=${t('admin')} pages=${names.map((name) => [name, t(name), ABOUT.includes(name) ? query : ''])} current=${current} go=${go}>${current ? PAGES[current][1](face) : html`<p class="empty">${t('e-forbidden')}</p>`}</${Pages}>`;
}
