// Who holds which role, and where.
import { html, useState } from '../lib/html.js';
import { call, get } from '../lib/api.js';
import { date } from '../lib/format.js';
import { t } from '../lib/i18n.js';
import { queryOf, useFound } from '../lib/load.js';
import { gives, heldFor } from '../lib/rights.js';
import { ask } from '../ui/dialog.js';
import { Tool } from '../ui/icons.js';
import { Adding, Listing } from '../ui/listing.js';

const placeOf = (one) => one.for.tenant || one.for.domain || t('wholesystem');

export function Roles({ session, note }) {
  const of = useFound(() => get('/api/v1/roles'), []);
  const places = useFound(async () => {
    const named = (name) => (session.sees.includes(name) ? get(`/api/v1/${name}?limit=500`).then((found) => found[name].map((one) => one.name)) : []);
    const [tenant, domain] = await Promise.all([named('tenants'), named('domains')]);
    return { tenant, domain };
  }, []);
  const given = gives(session);
  const [role, setRole] = useState(given[given.length - 1]);
  const [error, setError] = useState('');
  const kind = role && heldFor(session, role);
  const act = (promise, text) => promise.then(() => { setError(''); note.say(text); return of.load(); }, (failed) => { setError(failed.message); throw failed; });
  const add = ({ account, tenant, domain }) => act(call('POST', '/api/v1/roles', { account, role, ...(tenant ? { tenant } : {}), ...(domain ? { domain } : {}) }), t('rolegiven', { name: account, role: t(`role-${role}`) }));
  const revoke = async (one) => {
    if (await ask({ title: t('revoke'), text: t('revoketext', { name: one.account, role: t(`role-${one.role}`), place: placeOf(one) }), ok: t('revoke'), danger: true })) act(call('DELETE', `/api/v1/roles${queryOf({ account: one.account, role: one.role, ...one.for })}`), t('rolerevoked', { name: one.account })).catch(() => {});
  };
  const choose = html`<label><span>${t('role')}</span><select value=${role} onChange=${(event) => setRole(event.target.value)}>${given.map((name) => html`<option value=${name} selected=${name === role}>${t(`role-${name}`)}</option>`)}</select></label>`;
  const form = { key: kind, types: { account: 'email' }, known: places.found || {}, add };
  return html`<h2>${t('roles')}</h2><p class="soft">${t('roleshint')}</p>${error && html`<p class="error" role="alert">${error}</p>`}
    <${Listing} heads=${['account', 'role', 'heldfor', 'since', 'givenby']} list=${{ ...of, rows: of.found && of.found.roles }} id=${(one) => `${one.account} ${one.role} ${placeOf(one)}`} show=${(one) => [one.account, t(`role-${one.role}`), placeOf(one), date(one.since), one.by]}
      extra=${(one) => given.includes(one.role) && html`<${Tool} icon="trash" label=${t('revokeone', { name: one.account, role: t(`role-${one.role}`) })} onClick=${() => revoke(one)} />`}>
      ${role && (kind === 'system' ? html`<${Adding} ...${form} fields=${['account']}>${choose}</${Adding}>` : kind === 'tenant' ? html`<${Adding} ...${form} fields=${['account', 'tenant']}>${choose}</${Adding}>` : html`<${Adding} ...${form} fields=${['account', 'domain']}>${choose}</${Adding}>`)}</${Listing}>`;
}
