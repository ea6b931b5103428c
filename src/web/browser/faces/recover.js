// Removed messages and deleted folders, as long as they can be brought back.
import { html, useEffect, useState } from '../lib/html.js';
import { call, get } from '../lib/api.js';
import { count, date, exact } from '../lib/format.js';
import { t } from '../lib/i18n.js';
import { ask } from '../ui/dialog.js';

const PAGE = 200, MOST = 1000;

export function Recover({ go }) {
  const [found, setFound] = useState(null);
  const [limit, setLimit] = useState(PAGE);
  const [chosen, setChosen] = useState(new Set());
  const [told, setTold] = useState('');
  const [error, setError] = useState('');
  const load = () => get(`/api/v1/removed?limit=${limit}`).then((answer) => { setFound(answer); setError(''); }, (failed) => setError(failed.message));
  useEffect(() => { load(); }, [limit]);
  const act = (path, body, tell) => call('POST', `/api/v1/removed/${path}`, body)
    .then((answer) => { setChosen(new Set()); setTold(tell(answer)); return load(); }, (failed) => { setTold(''); setError(failed.message); });
  const restored = (answer) => t('restored', { count: count(answer.restored), where: answer.mailboxes.join(', ') });
  const restore = () => act('restore', { ids: [...chosen] }, restored);
  const purge = async () => {
    if (await ask({ title: t('purge'), text: t('purgesure', { count: count(chosen.size) }), ok: t('purge'), danger: true })) act('purge', { ids: [...chosen] }, (answer) => t('purged', { count: count(answer.purged) }));
  };
  const choose = (id, is) => { const next = new Set(chosen); if (is) next.add(id); else next.delete(id); setChosen(next); };
  const rows = found ? found.messages : [];
  const all = rows.length > 0 && rows.every((one) => chosen.has(one.id));
  return html`<main id="content" class="page recover" tabindex="0">
    <section class="card"><h2>${t('recover')}</h2><p class="soft">${t('recoverhint')}</p>
      <p role="status" aria-live="polite">${told}</p>${error && html`<p class="error" role="alert">${error} <button type="button" onClick=${load}>${t('retry')}</button></p>`}
      <div class="bar"><button type="button" onClick=${() => go('/mail')}>${t('back')}</button>
        <button type="button" class="main" disabled=${!chosen.size} onClick=${restore}>${t('restore')}</button>
        <button type="button" disabled=${!chosen.size} onClick=${purge}>${t('purge')}</button></div></section>
    ${found && found.folders.length > 0 && html`<section class="card" aria-label=${t('deletedfolders')}><h2>${t('deletedfolders')}</h2>
      <table><thead><tr><th>${t('folder')}</th><th>${t('messages')}</th><th>${t('removedat')}</th><th></th></tr></thead><tbody>
      ${found.folders.map((one) => html`<tr key=${one.name + one.removedAt}><td>${one.name}</td><td>${count(one.messages)}</td><td title=${exact(one.removedAt)}>${date(one.removedAt)}</td>
        <td><button type="button" onClick=${() => act('restore', { folder: one.name }, restored)}>${t('restore')}</button></td></tr>`)}</tbody></table></section>`}
    <section class="card" aria-label=${t('messages')}>${!found ? !error && html`<p class="empty">${t('loading')}</p>` : !rows.length ? html`<p class="empty">${t('nothingremoved')}</p>` : html`
      <table><thead><tr><th><input type="checkbox" aria-label=${t('selectall')} checked=${all} onChange=${() => setChosen(all ? new Set() : new Set(rows.map((one) => one.id)))} /></th>
        <th>${t('date')}</th><th>${t('from')}</th><th>${t('subject')}</th><th>${t('folder')}</th><th>${t('removedat')}</th></tr></thead><tbody>
      ${rows.map((one) => html`<tr key=${one.id}><td><input type="checkbox" aria-label=${t('selectone', { subject: one.subject || t('nosubject') })} checked=${chosen.has(one.id)} onChange=${(event) => choose(one.id, event.target.checked)} /></td>
        <td title=${exact(one.receivedAt)}>${date(one.receivedAt)}</td><td>${one.from}</td><td>${one.subject || t('nosubject')}</td><td>${one.mailbox}</td><td title=${exact(one.removedAt)}>${date(one.removedAt)}</td></tr>`)}</tbody></table>
      ${found.hasMore && limit < MOST && html`<button type="button" onClick=${() => setLimit(MOST)}>${t('more')}</button>`}`}</section>
  </main>`;
}
