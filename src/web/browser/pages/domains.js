// Domains: which there are, how much they hold, which further names they have. The address holds one: BASE/NAME.
import { html, useState } from '../lib/html.js';
import { call, get } from '../lib/api.js';
import { count, date } from '../lib/format.js';
import { t } from '../lib/i18n.js';
import { queryOf, useFound, useRows } from '../lib/load.js';
import { may } from '../lib/rights.js';
import { ask } from '../ui/dialog.js';
import { Facts } from '../ui/facts.js';
import { Tool } from '../ui/icons.js';
import { Link } from '../ui/link.js';
import { Adding, Find, Listing } from '../ui/listing.js';
import { Quota, limits } from '../ui/quota.js';
import { Waiting } from '../ui/waiting.js';

const PAGE = 100;
const BASE = '/admin/domains';

export function Domains(face) {
  const name = face.place.path.split('/')[3];
  return name ? html`<${Domain} ...${face} key=${name} name=${decodeURIComponent(name)} />` : html`<${List} ...${face} />`;
}


function List({ session, place, go }) {
  const search = place.query.get('q') || '';
  const [error, setError] = useState('');
  const list = useRows(async (after) => {
    const { domains } = await get(`/api/v1/domains${queryOf({ search, after, limit: PAGE })}`);
    return { rows: domains, next: domains.length === PAGE ? domains[PAGE - 1].name : null };
  }, [search]);
  const tenants = useFound(() => (session.sees.includes('tenants') ? get('/api/v1/tenants') : Promise.resolve({ tenants: [] })), []);
  const add = ({ name, tenant }) => call('POST', '/api/v1/domains', { name, ...(tenant ? { tenant } : {}) }).then(() => { setError(''); return list.load(); }, (failed) => { setError(failed.message); throw failed; });
  const known = { tenant: (tenants.found ? tenants.found.tenants : []).map((one) => one.name) };
  return html`<h2>${t('domains')}</h2><${Find} label=${t('searchdomains')} words=${search} find=${(q) => go(`${BASE}${queryOf({ q })}`)} />${error && html`<p class="error" role="alert">${error}</p>`}
    <${Listing} heads=${['name', 'tenant', 'accounts', 'limit']} list=${list} id=${(one) => one.name} show=${(one) => [html`<${Link} to=${`${BASE}/${one.name}`} go=${go}>${one.shown || one.name}</${Link}>`, one.tenant, count(one.accounts), limits(one)]}>
      ${may(session, 'domains') && html`<${Adding} fields=${['name', 'tenant']} free=${may(session, 'makeadmins') || !session.roles.includes('reseller') ? ['tenant'] : []} known=${known} add=${add} />`}</${Listing}>`;
}

// Where its mail goes on to, if its mailboxes are not here.
function Onward({ of, set, end }) {
  const relay = of.relay || { hosts: [], verify: 'ask', lmtp: false, certificates: 'system' };
  const submit = (event) => {
    event.preventDefault();
    const { hosts, verify, lmtp, certificates } = event.target.elements;
    const named = certificates.value.trim();
    set({ hosts: hosts.value.trim().split(/[\s,]+/), verify: verify.value, lmtp: lmtp.checked, ...(named && named !== relay.certificates ? { certificates: named } : {}) });
  };
  const stop = async () => { if (await ask({ title: t('onwardend'), text: t('onwardsure', { name: of.name }), ok: t('onwardend'), danger: true })) end(); };
  return html`<section class="card" aria-label=${t('onward')}><h3>${t('onward')}</h3><p class="soft">${t('onwardhint', { name: of.name })}</p>${!of.relay && html`<p class="soft">${t('onwardnone')}</p>`}
    <form class="bar adding" onSubmit=${submit} aria-label=${t('onward')}><label><span>${t('onwardhosts')}</span><input name="hosts" required autocapitalize="off" autocomplete="off" defaultValue=${relay.hosts.join(' ')} /></label>
      <label><span>${t('onwardverify')}</span><select name="verify" defaultValue=${relay.verify}>${['ask', 'list', 'all'].map((word) => html`<option key=${word} value=${word} selected=${word === relay.verify}>${t(`onward-${word}`)}</option>`)}</select></label>
      <label><span>${t('onwardcertificates')}</span><input name="certificates" autocapitalize="off" autocomplete="off" defaultValue=${relay.certificates} /></label>
      <label class="tick"><input name="lmtp" type="checkbox" defaultChecked=${relay.lmtp} /><span>${t('onwardlmtp')}</span></label><button class="main">${t('save')}</button>
      ${of.relay && html`<button type="button" onClick=${stop}>${t('onwardend')}</button>`}</form></section>`;
}

function Domain({ session, name, go, note }) {
  const of = useFound(async () => {
    const [{ domains }, { aliases }] = await Promise.all([get(`/api/v1/domains${queryOf({ search: name, limit: 500 })}`), get(`/api/v1/domains/${name}/aliases`)]);
    const one = domains.find((domain) => domain.name === name);
    if (!one) throw new Error(t('e-not-found'));
    return { ...one, aliases };
  }, [name]);
  const [error, setError] = useState('');
  const send = (method, path, body, text) => call(method, `/api/v1/domains/${name}${path}`, body).then(() => { setError(''); note.say(text); return of.load(); }, (failed) => { setError(failed.message); throw failed; });
  const remove = async () => {
    if (await ask({ title: t('delete'), text: t('confirm', { name }), field: t('name'), must: name, ok: t('delete'), danger: true })) call('DELETE', `/api/v1/domains/${name}`).then(() => go(BASE), (failed) => setError(failed.message));
  };
  const drop = async (alias) => { if (await ask({ title: t('delete'), text: alias, ok: t('delete'), danger: true })) send('DELETE', `/aliases/${alias}`, undefined, t('isdeleted', { name: alias })).catch(() => {}); };
  const one = of.found, sells = may(session, 'domains');
  return html`<p><${Link} to=${BASE} go=${go}>${`← ${t('domains')}`}</${Link}></p><h2>${name}</h2>${error && html`<p class="error" role="alert">${error}</p>`}<${Waiting} of=${of} />${one && html`
    <section class="card" aria-label=${t('details')}><${Facts} of=${{ tenant: one.tenant, onward: one.relay && one.relay.hosts.join(', '), accounts: count(one.accounts), limit: limits(one), created: date(one.created) }} />
      <ul class="links">${session.sees.includes('accounts') && html`<li><${Link} to=${`/admin/accounts?domain=${name}`} go=${go}>${t('accounts')}</${Link}></li>`}${session.sees.includes('policy') && html`<li><${Link} to=${`/admin/policy?domain=${name}`} go=${go}>${t('policy')}</${Link}></li><li><${Link} to=${`/admin/senders?domain=${name}`} go=${go}>${t('senders')}</${Link}></li>`}${session.sees.includes('quarantine') && html`<li><${Link} to=${`/admin/quarantine?of=${name}`} go=${go}>${t('quarantine')}</${Link}></li>`}</ul></section>
    <section class="card" aria-label=${t('furthernames')}><h3>${t('furthernames')}</h3><p class="soft">${t('furtherhint', { name })}</p>${!one.aliases.length && html`<p class="soft">${t('nonames')}</p>`}
      <ul class="entries">${one.aliases.map((alias) => html`<li key=${alias}><div><b>${alias}</b></div>${sells && html`<${Tool} icon="trash" label=${t('deleteone', { name: alias })} onClick=${() => drop(alias)} />`}</li>`)}</ul>
      ${sells && html`<${Adding} fields=${['name']} add=${(values) => send('PUT', `/aliases/${encodeURIComponent(values.name)}`, undefined, t('isadded', { name: values.name }))} />`}</section>
    ${sells && html`<${Onward} of=${one} set=${(relay) => send('PUT', '/relay', relay, t('savedstate')).catch(() => {})} end=${() => send('DELETE', '/relay', undefined, t('savedstate')).catch(() => {})} />`}
    ${sells && html`<section class="card" aria-label=${t('limit')}><h3>${t('limit')}</h3><${Quota} of=${one} set=${(quota) => send('PATCH', '', quota, t('savedstate')).catch(() => {})} /></section>
      <section class="card" aria-label=${t('delete')}><h3>${t('delete')}</h3><p class="soft">${t('emptyfirst')}</p><button type="button" class="danger" onClick=${remove}>${t('delete')}</button></section>`}`}`;
}
