// Accounts: who signs in here and has a mailbox. The address holds one: BASE/ADDRESS.
import { html, useState } from '../lib/html.js';
import { call, get } from '../lib/api.js';
import { date, exact, size } from '../lib/format.js';
import { t } from '../lib/i18n.js';
import { queryOf, useFound, useRows } from '../lib/load.js';
import { may } from '../lib/rights.js';
import { ask } from '../ui/dialog.js';
import { Facts } from '../ui/facts.js';
import { Link } from '../ui/link.js';
import { Adding, Find, Listing } from '../ui/listing.js';
import { Quota, limits } from '../ui/quota.js';
import { Waiting } from '../ui/waiting.js';

const PAGE = 100;
const BASE = '/admin/accounts';
const at = (address) => `${BASE}/${encodeURIComponent(address)}`;

export function Accounts(face) {
  const address = face.place.path.split('/')[3];
  return address ? html`<${Account} ...${face} key=${address} address=${decodeURIComponent(address)} />` : html`<${List} ...${face} />`;
}

const state = (one) => [!one.enabled && t('isdisabled'), one.sending === 'locked' && t('issendinglocked'), one.secondFactor && t('hasfactor')].filter(Boolean).join(', ');

/** Asks for a new password of somebody; gives null when none is set. */
const renew = (address) => ask({ title: t('setpassword'), text: address, field: t('password'), kind: 'password', ok: t('setpassword') });

function List({ session, place, go, note }) {
  const [search, domain] = ['q', 'domain'].map((name) => place.query.get(name) || '');
  const [error, setError] = useState('');
  const list = useRows(async (after) => {
    const { accounts } = await get(`/api/v1/accounts${queryOf({ search, domain, after, limit: PAGE })}`);
    return { rows: accounts, next: accounts.length === PAGE ? accounts[PAGE - 1].address : null };
  }, [search, domain]);
  const told = (promise, text) => promise.then(() => { setError(''); if (text) note.say(text); return list.load(); }, (failed) => { setError(failed.message); throw failed; });
  const add = (values, form) => told(call('POST', '/api/v1/accounts', { ...values, ...(form.elements.admin && form.elements.admin.checked ? { admin: true } : {}) }), t('isadded', { name: values.address }));
  const password = async (one) => { const fresh = await renew(one.address); if (fresh) told(call('PATCH', `/api/v1/accounts/${encodeURIComponent(one.address)}`, { password: fresh }), t('passwordset', { name: one.address })).catch(() => {}); };
  return html`<h2>${t('accounts')}</h2><${Find} label=${t('searchaccounts')} words=${search} find=${(q) => go(`${BASE}${queryOf({ q, domain })}`)}>${domain && html`<button type="button" class="chip on" aria-label=${t('alldomains')} onClick=${() => go(`${BASE}${queryOf({ q: search })}`)}>${domain} ×</button>`}</${Find}>${error && html`<p class="error" role="alert">${error}</p>`}
    <${Listing} heads=${['address', 'name', 'access', 'state', 'limit']} list=${list} id=${(one) => one.address} show=${(one) => [html`<${Link} to=${at(one.address)} go=${go}>${one.address}</${Link}>`, one.name, t(`access-${one.access}`), state(one), limits(one)]}
      extra=${(one) => may(session, 'passwords') && html`<button type="button" onClick=${() => password(one)}>${t('setpassword')}<span class="hidden"> (${one.address})</span></button>`}>
      ${may(session, 'accounts') && html`<${Adding} fields=${['address', 'name', 'password']} free=${['name']} types=${{ password: 'password', address: 'email' }} add=${add}>${may(session, 'makeadmins') && html`<label class="tick"><input type="checkbox" name="admin" /><span>${t('access-admin')}</span></label>`}</${Adding}>`}</${Listing}>
    ${may(session, 'accounts') && html`<${Import} done=${list.load} />`}`;
}

// Many at once, from a table.
function Import({ done }) {
  const [told, setTold] = useState(null);
  const [error, setError] = useState('');
  const [busy, setBusy] = useState(false);
  const send = async (event, dry) => {
    const form = event.target.closest('form');
    if (!form.reportValidity()) return;
    setBusy(true);
    try {
      const found = await call('POST', `/api/v1/accounts/import${dry ? '?dry=true' : ''}`, form.elements.table.files[0]);
      setError('');
      setTold(found);
      if (!dry) done();
    } catch (failed) { setTold(null); setError(failed.message); }
    setBusy(false);
  };
  return html`<details class="card"><summary>${t('import')}</summary><p class="soft">${t('importhint')}</p>
    <form class="bar adding" aria-label=${t('import')} onSubmit=${(event) => { event.preventDefault(); send(event, false); }}><label><span>${t('importfile')}</span><input name="table" type="file" accept=".csv,text/csv" required /></label>
      <button type="button" disabled=${busy} onClick=${(event) => send(event, true)}>${t('importcheck')}</button><button class="main" disabled=${busy}>${t('importdo')}</button></form>
    ${error && html`<p class="error" role="alert">${error}</p>`}${told && html`<p role="status">${t(told.dry ? 'importcan' : 'importdone', { added: told.added, lines: told.lines, failed: told.failed })}</p>`}
    ${told && told.errors.length > 0 && html`<table class="stacked"><thead><tr>${['line', 'address', 'why'].map((name) => html`<th scope="col">${t(name)}</th>`)}</tr></thead><tbody>${told.errors.slice(0, 200).map((one) => html`<tr key=${one.line}><td data-label=${t('line')}>${one.line}</td><td data-label=${t('address')}>${one.address}</td><td data-label=${t('why')}>${one.error}</td></tr>`)}</tbody></table>`}</details>`;
}

function Account({ session, address, go, note }) {
  const path = `/api/v1/accounts/${encodeURIComponent(address)}`;
  const of = useFound(() => get(path), [address]);
  const [error, setError] = useState('');
  const send = (method, end, body, text) => call(method, `${path}${end}`, body).then(() => { setError(''); note.say(text); return of.load(); }, (failed) => setError(failed.message));
  const patch = (body, text = t('savedstate')) => send('PATCH', '', body, text);
  const password = async () => { const fresh = await renew(address); if (fresh) patch({ password: fresh }, t('passwordset', { name: address })); };
  const factor = async () => { if (await ask({ title: t('endfactor'), text: t('endfactorof', { name: address }), ok: t('endfactor'), danger: true })) send('DELETE', '/second-factor', undefined, t('factorended')); };
  const remove = async () => {
    if (await ask({ title: t('delete'), text: t('confirm', { name: address }), field: t('address'), must: address, ok: t('delete'), danger: true })) call('DELETE', path).then(() => go(BASE), (failed) => setError(failed.message));
  };
  const one = of.found, changes = may(session, 'accounts'), own = address === session.address;
  return html`<p><${Link} to=${BASE} go=${go}>${`← ${t('accounts')}`}</${Link}></p><h2>${address}</h2>${error && html`<p class="error" role="alert">${error}</p>`}<${Waiting} of=${of} />${one && html`
    <section class="card" aria-label=${t('details')}><${Facts} of=${{ name: one.name, access: t(`access-${one.access}`), state: state(one) || t('isactive'), used: `${size(one.used)}, ${t('countof', { count: one.messages })}`, limit: limits(one), created: date(one.created) }} />
      ${one.sending === 'locked' && html`<p class="banner"><span>${t('sendinglockedby', { who: one.sendingLockedBy || '', time: exact(one.sendingLocked) })}</span></p>`}
      <ul class="links">${session.sees.includes('policy') && html`<li><${Link} to=${`/admin/policy?account=${encodeURIComponent(address)}`} go=${go}>${t('policy')}</${Link}></li><li><${Link} to=${`/admin/senders?account=${encodeURIComponent(address)}`} go=${go}>${t('senders')}</${Link}></li>`}${session.sees.includes('quarantine') && html`<li><${Link} to=${`/admin/quarantine?of=${encodeURIComponent(address)}`} go=${go}>${t('quarantine')}</${Link}></li>`}<li><${Link} to=${`/log?q=${encodeURIComponent(`to:${address}`)}`} go=${go}>${t('log')}</${Link}></li></ul></section>
    ${may(session, 'passwords') && !own && html`<section class="card" aria-label=${t('security')}><h3>${t('security')}</h3><div class="bar"><button type="button" onClick=${password}>${t('setpassword')}</button>${one.secondFactor && html`<button type="button" onClick=${factor}>${t('endfactor')}</button>`}
      ${changes && html`<button type="button" onClick=${() => patch({ sending: one.sending === 'locked' ? 'allowed' : 'locked' })}>${t(one.sending === 'locked' ? 'allowsending' : 'locksending')}</button><button type="button" onClick=${() => patch({ enabled: !one.enabled })}>${t(one.enabled ? 'disable' : 'enable')}</button>`}</div></section>`}
    ${changes && html`<section class="card" aria-label=${t('name')}><h3>${t('name')}</h3><form class="bar adding" onSubmit=${(event) => { event.preventDefault(); patch({ name: event.target.elements.name.value.trim() }); }}><label><span>${t('name')}</span><input name="name" defaultValue=${one.name} /></label><button>${t('save')}</button></form></section>
      <section class="card" aria-label=${t('limit')}><h3>${t('limit')}</h3><${Quota} of=${one} set=${(quota) => patch(quota)} /></section>
      ${!own && html`<section class="card" aria-label=${t('delete')}><h3>${t('delete')}</h3><p class="soft">${t('deleteaccounthint', { count: one.messages })}</p><button type="button" class="danger" onClick=${remove}>${t('delete')}</button></section>`}`}`}`;
}
