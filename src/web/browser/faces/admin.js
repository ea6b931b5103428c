// Administration: domains, accounts, aliases, the node.
import { html, useEffect, useState } from '../lib/html.js';
import { call, get } from '../lib/api.js';
import { count, size } from '../lib/format.js';
import { t } from '../lib/i18n.js';
import { ask } from '../ui/dialog.js';
import { Tool } from '../ui/icons.js';

export function Admin() {
  const [found, setFound] = useState(null);
  const [error, setError] = useState('');
  const load = () => Promise.all(['domains', 'accounts', 'aliases', 'node'].map((name) => get(`/api/v1/${name}`)))
    .then(([domains, accounts, aliases, node]) => { setFound({ ...domains, ...accounts, ...aliases, node }); setError(''); }, (failed) => setError(failed.message));
  useEffect(() => { load(); }, []);
  const act = (method, path, body) => call(method, path, body).then(() => { setError(''); return load(); }, (failed) => { setError(failed.message); throw failed; });
  const remove = async (kind, name) => { if (await ask({ title: t('delete'), text: t('confirm', { name }), field: t('name'), must: name, ok: t('delete'), danger: true })) act('DELETE', `/api/v1/${kind}/${encodeURIComponent(name)}`).catch(() => {}); };
  const renew = async (address) => { const password = await ask({ title: t('setpassword'), text: address, field: t('password'), kind: 'password', ok: t('setpassword') }); if (password) act('PATCH', `/api/v1/accounts/${encodeURIComponent(address)}`, { password }).catch(() => {}); };
  if (!found) return html`<main id="content" class="admin">${error ? html`<p class="error" role="alert">${error} <button onClick=${load}>${t('retry')}</button></p>` : html`<p class="empty">${t('loading')}</p>`}</main>`;
  const node = found.node.store || {};
  return html`<main id="content" class="admin" tabindex="0">${error && html`<p class="error" role="alert">${error}</p>`}
    <section class="card" aria-label=${t('node')}><h2>${t('node')}</h2><dl class="facts"><div><dt>${t('name')}</dt><dd>${found.node.name}</dd></div><div><dt>${t('version')}</dt><dd>${found.node.version}</dd></div>
      ${node.freeBytes !== undefined && node.freeBytes !== null && html`<div><dt>${t('free')}</dt><dd>${size(node.freeBytes)}</dd></div>`}<div><dt>${t('storage')}</dt><dd class=${node.writable === false ? 'bad' : 'good'}>${node.writable === false ? t('readonly') : t('works')}</dd></div></dl></section>
    <${List} title=${t('domains')} heads=${['name', 'tenant', 'accounts', 'limit']} rows=${found.domains} id="name" show=${(one) => [one.name, one.tenant, typeof one.accounts === 'number' ? count(one.accounts) : one.accounts, limits(one)]} fields=${['name']} add=${(values) => act('POST', '/api/v1/domains', values)} remove=${(one) => remove('domains', one.name)} />
    <${List} title=${t('accounts')} heads=${['address', 'name', 'access', 'limit']} rows=${found.accounts} id="address" show=${(one) => [one.address, one.name, t(`access-${one.access}`), limits(one)]} fields=${['address', 'name', 'password']} add=${(values) => act('POST', '/api/v1/accounts', values)} remove=${(one) => remove('accounts', one.address)}
      extra=${(one) => html`<button type="button" onClick=${() => renew(one.address)}>${t('setpassword')}</button>`} />
    <${List} title=${t('aliases')} heads=${['address', 'targets']} rows=${found.aliases} id="address" show=${(one) => [one.address, one.targets.join(', ')]} fields=${['address', 'targets']}
      add=${(values) => act('PUT', `/api/v1/aliases/${encodeURIComponent(values.address)}`, { targets: values.targets.split(/[\s,]+/).filter(Boolean) })} remove=${(one) => remove('aliases', one.address)} />
  </main>`;
}

function limits(one) {
  return [one.quota && size(one.quota), one.quotaMessages && `${count(one.quotaMessages)} ${t('messages')}`].filter(Boolean).join(', ');
}

function List({ title, heads, rows, id, show, fields, add, remove, extra }) {
  const submit = (event) => {
    event.preventDefault();
    const form = event.target;
    add(Object.fromEntries(fields.map((name) => [name, form.elements[name].value]))).then(() => form.reset(), () => {});
  };
  return html`<section class="card" aria-label=${title}><h2>${title} <small class="soft">${count(rows.length)}</small></h2>
    ${rows.length > 0 && html`<div class="scroll"><table><thead><tr>${heads.map((name) => html`<th scope="col">${t(name)}</th>`)}<td></td></tr></thead><tbody>${rows.map((one) => html`<tr key=${one[id]}>${show(one).map((text) => html`<td>${text}</td>`)}<td class="acts">${extra && extra(one)}<${Tool} icon="trash" label=${t('deleteone', { name: one[id] })} onClick=${() => remove(one)} /></td></tr>`)}</tbody></table></div>`}
    <form class="bar adding" onSubmit=${submit}>${fields.map((name) => html`<label><span>${t(name)}</span><input name=${name} type=${name === 'password' ? 'password' : 'text'} autocomplete=${name === 'password' ? 'new-password' : 'off'} required=${name !== 'name' || fields.length === 1} /></label>`)}<button class="main">${t('add')}</button></form></section>`;
}
