// Who changed a policy or its lists, when and how; and the way back.
import { html, useState } from '../lib/html.js';
import { call, get } from '../lib/api.js';
import { exact } from '../lib/format.js';
import { t } from '../lib/i18n.js';
import { queryOf, useFound, useRows } from '../lib/load.js';
import { called, settingText } from '../lib/options.js';
import { Waiting } from '../ui/waiting.js';

const PAGE = 50;

/** What the server itself notes, in the reader's words. */
const noted = (note) => note.replace(/^takes back change \d+$/, () => t('tookback')).replace(/^planned: /, () => `${t('wasplanned')}: `);

/** `of` names whose policy it is; nothing: the reader's own. */
export function Changes({ of, mayChange, note }) {
  const query = queryOf(of);
  const list = useRows(async (below) => {
    const { changes } = await get(`/api/v1/policy/history${queryOf({ ...of, below, limit: PAGE })}`);
    return { rows: changes, next: changes.length === PAGE ? changes[PAGE - 1].id : null };
  }, [query]);
  const known = useFound(() => get('/api/v1/policy/options').then(({ options }) => new Map(options.map((one) => [one.name, one]))), []);
  const [error, setError] = useState('');
  const undo = (change) => call('POST', `/api/v1/policy/history/${change.id}/undo${query}`).then(() => { setError(''); note.say(t('takenback')); return list.load(); }, (failed) => setError(failed.message));
  const defined = (name) => known.found && known.found.get(name);
  const what = (change) => {
    if (change.listed) return html`<p>${t(`listed-${change.listed.word}`, { who: change.listed.who })}</p>`;
    if (change.unlisted) return html`<p>${t(`unlisted-${change.unlisted.word}`, { who: change.unlisted.who })}</p>`;
    return html`<ul>${(change.done || []).map((edit) => html`<li>${called(edit.option)}: ${settingText(edit, defined(edit.option))} <span class="soft">(${t('before', { value: settingText(change.before.find((one) => one.option === edit.option), defined(edit.option)) })})</span></li>`)}</ul>`;
  };
  const rows = list.rows || [];
  return html`<h2>${t('history')}</h2><p class="soft">${t('historyhint')}</p>${error && html`<p class="error" role="alert">${error}</p>`}
    <section class="card"><${Waiting} of=${list} />${list.rows && !rows.length && html`<p class="empty">${t('nochanges')}</p>`}
      <ul class="changes">${rows.map((change) => html`<li key=${change.id}><div><b><time dateTime=${change.at}>${exact(change.at)}</time></b> <span class="soft">${change.by}${change.note ? ` · ${noted(change.note)}` : ''}</span>${what(change)}</div>
        ${mayChange && change.done && html`<button type="button" onClick=${() => undo(change)}>${t('takeback')}<span class="hidden"> (${exact(change.at)})</span></button>`}</li>`)}</ul>
      ${list.next && html`<p class="empty"><button type="button" onClick=${list.further}>${t('more')}</button></p>`}</section>`;
}
