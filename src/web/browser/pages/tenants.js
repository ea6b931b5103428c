// Resellers and their customers. The address holds one: BASE/NAME.
import { html, useState } from '../lib/html.js';
import { call, get } from '../lib/api.js';
import { count, date } from '../lib/format.js';
import { t } from '../lib/i18n.js';
import { queryOf, useFound } from '../lib/load.js';
import { may } from '../lib/rights.js';
import { ask } from '../ui/dialog.js';
import { Facts } from '../ui/facts.js';
import { Link } from '../ui/link.js';
import { Adding, Find, Listing } from '../ui/listing.js';
import { Quota, limits } from '../ui/quota.js';
import { Waiting } from '../ui/waiting.js';

const BASE = '/admin/tenants';
const PAGE = 100;

export function Tenants(face) {
  const of = useFound(() => get('/api/v1/tenants'), []);
  const name = face.place.path.split('/')[3];
  return name ? html`<${Tenant} ...${face} key=${name} of=${of} name=${decodeURIComponent(name)} />` : html`<${List} ...${face} of=${of} />`;
}

function List({ session, place, go, note, of }) {
  const search = place.query.get('q') || '';
  const [shown, setShown] = useState(PAGE);
  const [kind, setKind] = useState('customer');
  const [error, setError] = useState('');
  const all = of.found ? of.found.tenants : [], resellers = all.filter((one) => one.kind === 'reseller').map((one) => one.name);
  const isAdmin = may(session, 'makeadmins'), wanted = isAdmin ? kind : 'customer';
  const add = ({ name, parent }) => call('POST', '/api/v1/tenants', { name, kind: wanted, ...(parent ? { parent } : {}) }).then(() => { setError(''); note.say(t('isadded', { name })); return of.load(); }, (failed) => { setError(failed.message); throw failed; });
  const choose = isAdmin && html`<label><span>${t('kind')}</span><select value=${kind} onChange=${(event) => setKind(event.target.value)}>${['customer', 'reseller'].map((name) => html`<option value=${name} selected=${name === kind}>${t(`kind-${name}`)}</option>`)}</select></label>`;
  const fits = all.filter((one) => [one.name, one.parent].some((name) => (name || '').toLowerCase().includes(search.toLowerCase())));
  const rows = { ...of, rows: of.found && fits.slice(0, shown), next: fits.length > shown, further: () => setShown(shown + PAGE) };
  return html`<h2>${t('tenants')}</h2><${Find} label=${t('searchtenants')} words=${search} find=${(q) => go(`${BASE}${queryOf({ q })}`)} />${error && html`<p class="error" role="alert">${error}</p>`}
    <${Listing} heads=${['name', 'kind', 'parent', 'domains', 'limit']} list=${rows} id=${(one) => one.name} show=${(one) => [html`<${Link} to=${`${BASE}/${encodeURIComponent(one.name)}`} go=${go}>${one.name}</${Link}>`, t(`kind-${one.kind}`), one.parent, count(one.domains), limits(one)]}>
      ${may(session, 'tenants') && (wanted === 'customer' ? html`<${Adding} key="customer" fields=${['name', 'parent']} free=${isAdmin ? ['parent'] : []} known=${{ parent: resellers }} add=${add}>${choose}</${Adding}>` : html`<${Adding} key="reseller" fields=${['name']} add=${add}>${choose}</${Adding}>`)}</${Listing}>`;
}

function Tenant({ session, name, go, note, of }) {
  const [error, setError] = useState('');
  const path = `/api/v1/tenants/${encodeURIComponent(name)}`;
  const one = of.found && of.found.tenants.find((tenant) => tenant.name === name);
  // Whoever is the tenant decides about those below alone.
  const changes = one && (may(session, 'makeadmins') || (may(session, 'tenants') && one.kind === 'customer'));
  const patch = (body) => call('PATCH', path, body).then(() => { setError(''); note.say(t('savedstate')); return of.load(); }, (failed) => { setError(failed.message); throw failed; });
  const rename = async () => { const fresh = await ask({ title: t('rename'), field: t('name'), value: name, ok: t('rename') }); if (fresh && fresh !== name) patch({ name: fresh }).then(() => go(`${BASE}/${encodeURIComponent(fresh)}`, true), () => {}); };
  const remove = async () => {
    if (await ask({ title: t('delete'), text: t('confirm', { name }), field: t('name'), must: name, ok: t('delete'), danger: true })) call('DELETE', path).then(() => { go(BASE); return of.load(); }, (failed) => setError(failed.message));
  };
  return html`<p><${Link} to=${BASE} go=${go}>${`← ${t('tenants')}`}</${Link}></p><h2>${name}</h2>${error && html`<p class="error" role="alert">${error}</p>`}<${Waiting} of=${of} />${of.found && !one && html`<p class="empty">${t('e-not-found')}</p>`}${one && html`
    <section class="card" aria-label=${t('details')}><${Facts} of=${{ kind: t(`kind-${one.kind}`), parent: one.parent, domains: count(one.domains), limit: limits(one), created: date(one.created) }} />
      <ul class="links">${session.sees.includes('policy') && html`<li><${Link} to=${`/admin/policy?tenant=${encodeURIComponent(name)}`} go=${go}>${t('policy')}</${Link}></li><li><${Link} to=${`/admin/senders?tenant=${encodeURIComponent(name)}`} go=${go}>${t('senders')}</${Link}></li>`}</ul>${changes && html`<div class="bar"><button type="button" onClick=${rename}>${t('rename')}</button></div>`}</section>
    ${changes && html`<section class="card" aria-label=${t('limit')}><h3>${t('limit')}</h3><${Quota} of=${one} set=${(quota) => patch(quota).catch(() => {})} /></section>
      <section class="card" aria-label=${t('delete')}><h3>${t('delete')}</h3><p class="soft">${t('tenantemptyfirst')}</p><button type="button" class="danger" onClick=${remove}>${t('delete')}</button></section>`}`}`;
}
