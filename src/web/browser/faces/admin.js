// Administration: domains, accounts, aliases, the node.
import { html, useEffect, useState } from '../lib/html.js';
import { call, get } from '../lib/api.js';
import { size } from '../lib/format.js';
import { t } from '../lib/i18n.js';

export function Admin() {
  const [found, setFound] = useState({ domains: [], accounts: [], aliases: [], node: {} });
  const [error, setError] = useState('');
  const load = () => Promise.all(['domains', 'accounts', 'aliases', 'node'].map((name) => get(`/api/v1/${name}`)))
    .then(([domains, accounts, aliases, node]) => setFound({ ...domains, ...accounts, ...aliases, node }), (failed) => setError(failed.message));
  useEffect(() => { load(); }, []);
  const act = (method, path, body) => call(method, path, body).then(() => { setError(''); return load(); }, (failed) => setError(failed.message));
  const remove = (kind, name) => { if (prompt(t('confirm', { name })) === name) act('DELETE', `/api/v1/${kind}/${encodeURIComponent(name)}`); };
  const renew = (address) => { const password = prompt(t('password')); if (password) act('PATCH', `/api/v1/accounts/${encodeURIComponent(address)}`, { password }); };
  const node = found.node.store || {};
  return html`<main id="content" class="admin">${error && html`<p class="error" role="alert">${error}</p>`}
    <section class="card"><h2>${t('node')}</h2><p>${found.node.name} ${found.node.version} ${node.freeBytes !== undefined && size(node.freeBytes)} ${node.writable === false && html`<b class="refused">!</b>`}</p></section>
    <${List} title=${t('domains')} rows=${found.domains} id="name" show=${(one) => [one.name, one.tenant, one.accounts]} fields=${['name']} add=${(values) => act('POST', '/api/v1/domains', values)} remove=${(one) => remove('domains', one.name)} />
    <${List} title=${t('accounts')} rows=${found.accounts} id="address" show=${(one) => [one.address, one.name, one.access]} fields=${['address', 'name', 'password']} add=${(values) => act('POST', '/api/v1/accounts', values)} remove=${(one) => remove('accounts', one.address)}
      extra=${(one) => html`<button onClick=${() => renew(one.address)}>${t('setpassword')}</button>`} />
    <${List} title=${t('aliases')} rows=${found.aliases} id="address" show=${(one) => [one.address, one.targets.join(', ')]} fields=${['address', 'targets']}
      add=${(values) => act('PUT', `/api/v1/aliases/${encodeURIComponent(values.address)}`, { targets: values.targets.split(/[\s,]+/).filter(Boolean) })} remove=${(one) => remove('aliases', one.address)} />
  </main>`;
}

function List({ title, rows, id, show, fields, add, remove, extra }) {
  const submit = (event) => {
    event.preventDefault();
    const form = event.target;
    add(Object.fromEntries(fields.map((name) => [name, form.elements[name].value]))).then(() => form.reset());
  };
  return html`<section class="card"><h2>${title}</h2>
    <table><tbody>${rows.map((one) => html`<tr key=${one[id]}>${show(one).map((text) => html`<td>${text}</td>`)}<td>${extra && extra(one)} <button onClick=${() => remove(one)}>${t('delete')}</button></td></tr>`)}</tbody></table>
    <form class="bar" onSubmit=${submit}>${fields.map((name) => html`<label>${t(name)} <input name=${name} type=${name === 'password' ? 'password' : 'text'} autocomplete="off" required=${name !== 'name' || fields.length === 1} /></label>`)}<button class="main">${t('add')}</button></form></section>`;
}
