// What the filter does with the reader's own mail: what is held, and how that is decided. The address holds the page:
// /filter/PAGE.
import { html } from '../lib/html.js';
import { t } from '../lib/i18n.js';
import { Changes } from '../pages/changes.js';
import { Forwards } from '../pages/forwards.js';
import { Held } from '../pages/held.js';
import { Options } from '../pages/options.js';
import { Record } from '../pages/record.js';
import { Security } from '../pages/security.js';
import { Senders } from '../pages/senders.js';
import { Pages } from '../ui/pages.js';

const PAGES = {
  quarantine: (face) => html`<${Held} ...${face} base="/filter/quarantine" />`,
  strictness: (face) => html`<${Options} query="" mayChange note=${face.note} go=${face.go} />`,
  senders: (face) => html`<${Senders} of=${{}} mayChange note=${face.note} />`,
  history: (face) => html`<${Changes} of=${{}} mayChange note=${face.note} />`,
  forwards: (face) => html`<${Forwards} note=${face.note} />`,
  security: (face) => html`<${Security} ...${face} />`,
  record: () => html`<${Record} />`,
};

export function Filter(face) {
  const [, , asked] = face.place.path.split('/'), current = PAGES[asked] ? asked : 'quarantine';
  return html`<${Pages} face="filter" label=${t('filter')} pages=${Object.keys(PAGES).map((name) => [name, t(name)])} current=${current} go=${face.go}>${PAGES[current](face)}</${Pages}>`;
}
