// What is on record: who did what, and who of the provider's looked.
import words from '../i18n/actions.js';
import { html } from '../lib/html.js';
import { get } from '../lib/api.js';
import { exact } from '../lib/format.js';
import { language, t } from '../lib/i18n.js';
import { queryOf, useRows } from '../lib/load.js';
import { Icon } from '../ui/icons.js';
import { Waiting } from '../ui/waiting.js';

const PAGE = 100;
const action = (name) => (words[name] ? words[name][['de', 'it', 'en'].indexOf(language())] : name);

export function Record() {
  const list = useRows(async (below) => {
    const { entries } = await get(`/api/v1/audit${queryOf({ below, limit: PAGE })}`);
    return { rows: entries, next: entries.length === PAGE ? entries[PAGE - 1].id : null };
  }, []);
  const rows = list.rows || [];
  return html`<h2>${t('record')}</h2><p class="soft">${t('recordhint')}</p>
    <section class="card"><${Waiting} of=${list} />${list.rows && !rows.length && html`<p class="empty">${t('norecord')}</p>`}
      ${rows.length > 0 && html`<table class="stacked"><thead><tr><th scope="col">${t('time')}</th><th scope="col">${t('who')}</th><th scope="col">${t('what')}</th><th scope="col">${t('about')}</th></tr></thead><tbody>${rows.map((one) => html`<tr key=${one.id}>
        <td><time dateTime=${one.at}>${exact(one.at)}</time></td><td>${one.by}</td><td>${one.action.startsWith('view-') && html`<${Icon} name="eye" /> `}${action(one.action)}</td><td>${one.object}</td></tr>`)}</tbody></table>`}
      ${list.next && html`<p class="empty"><button type="button" onClick=${list.further}>${t('more')}</button></p>`}</section>`;
}
