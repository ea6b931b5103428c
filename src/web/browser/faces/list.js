// The messages of a folder: pages of a query, fetched as they come into sight.
import { html, useCallback, useEffect, useRef, useState } from '../lib/html.js';
import { date, exact, people, person } from '../lib/format.js';
import { reference, request } from '../lib/jmap.js';
import { t } from '../lib/i18n.js';
import { Icon } from '../ui/icons.js';

const PAGE = 50;
export const LISTED = ['id', 'blobId', 'threadId', 'mailboxIds', 'keywords', 'from', 'to', 'subject', 'receivedAt', 'preview', 'hasAttachment', 'size'];
export const ROW = 62;

/** JMAP's filter for a folder, words and one of the views `unread`, `flagged`, `files`. Words may be `from:anna`. */
export function filterOf(mailboxId, words, view) {
  const conditions = [{ inMailbox: mailboxId }];
  const rest = [];
  for (const word of (words || '').match(/(?:[^\s"]+:)?"[^"]*"|\S+/g) || []) {
    const field = /^(from|to|cc|subject|body|before|after|has):(.+)$/i.exec(word);
    const value = field && field[2].replace(/"/g, '');
    const name = field && field[1].toLowerCase();
    if (!field) rest.push(word);
    else if (name === 'has') conditions.push({ hasAttachment: true });
    else if (name === 'before' || name === 'after') { const at = new Date(value); if (!Number.isNaN(at.getTime())) conditions.push({ [name]: at.toISOString() }); } else conditions.push({ [name]: value });
  }
  if (rest.length) conditions.push({ text: rest.join(' ') });
  if (view === 'unread') conditions.push({ notKeyword: '$seen' });
  if (view === 'flagged') conditions.push({ hasKeyword: '$flagged' });
  if (view === 'files') conditions.push({ hasAttachment: true });
  return conditions.length === 1 ? conditions[0] : { operator: 'AND', conditions };
}

/** The emails of a query by place. What was shown stays until its successor has come, so that nothing flickers. */
export function useEmails(ready, filter) {
  const key = JSON.stringify(filter);
  const [held, setHeld] = useState({ key: '', emails: new Map(), total: null });
  const [error, setError] = useState('');
  const now = useRef({ key: '', pages: new Map(), seen: [0, PAGE], round: 0 });

  const fetchPage = useCallback(async (page, round) => {
    const state = now.current;
    state.pages.set(page, 'asked');
    try {
      const [query, found] = await request([
        ['Email/query', { filter: JSON.parse(state.key), sort: [{ property: 'receivedAt', isAscending: false }], position: page * PAGE, limit: PAGE, calculateTotal: true }],
        ['Email/get', { '#ids': reference(0, 'Email/query', '/ids'), properties: LISTED }]]);
      if (round !== state.round) return;
      const byId = new Map(found.list.map((email) => [email.id, email]));
      state.pages.set(page, query.ids.map((id) => byId.get(id)).filter(Boolean));
      const emails = new Map();
      for (const [number, list] of state.pages) if (Array.isArray(list)) list.forEach((email, at) => emails.set(number * PAGE + at, email));
      setHeld({ key: state.key, emails, total: query.total });
      setError('');
    } catch (failed) {
      if (round === state.round) { state.pages.delete(page); setError(failed.message); }
    }
  }, []);

  const seen = useCallback((first, last) => {
    const state = now.current;
    state.seen = [first, last];
    for (let page = Math.floor(first / PAGE); page <= Math.floor(Math.max(first, last - 1) / PAGE); page += 1) {
      if (!state.pages.has(page)) fetchPage(page, state.round);
    }
  }, [fetchPage]);

  /** Reads anew what is in sight. */
  const refresh = useCallback(() => {
    const state = now.current;
    if (!state.key) return;
    state.round += 1;
    state.pages = new Map();
    seen(...state.seen);
  }, [seen]);

  useEffect(() => {
    if (!ready) return;
    Object.assign(now.current, { key, seen: [0, PAGE] });
    refresh();
  }, [ready, key]);

  /** Shows a change before the server has confirmed it. */
  const patch = (ids, change) => setHeld((known) => ({ ...known, emails: new Map([...known.emails].map(([at, email]) => [at, ids.includes(email.id) ? change(email) : email])) }));
  const fresh = held.key === key;
  return { emails: fresh ? held.emails : new Map(), total: fresh ? held.total : null, error, seen, refresh, patch };
}

const SKELETON = html`<span class="bone"></span>`;

/** One row. `cursor` has the keyboard, `open` is being read, `chosen` is ticked. */
export function Row({ email, index, total, isOpen, isCursor, isChosen, outgoing, href, open, toggle, flag, drag, dense }) {
  const place = { style: { height: `${ROW}px` }, 'aria-setsize': total, 'aria-posinset': index + 1 };
  if (!email) return html`<li class="row waiting" ...${place} aria-busy="true">${SKELETON}</li>`;
  const { $seen, $flagged, $answered, $forwarded, $draft } = email.keywords;
  const who = outgoing ? `${t('to')}: ${people(email.to) || '–'}` : person((email.from || [])[0]) || t('nosender');
  return html`<li class="row ${$seen ? '' : 'unread'} ${isChosen ? 'chosen' : ''} ${isCursor ? 'cursor' : ''}" ...${place} aria-current=${isOpen ? 'true' : undefined}
    draggable="true" onDragStart=${(event) => drag(event, email)} onClick=${(event) => open(email, event)}>
    <label class="tickbox" onClick=${(event) => event.stopPropagation()}><input type="checkbox" aria-label=${t('selectone', { subject: email.subject || t('nosubject') })} checked=${isChosen}
      onClick=${(event) => toggle(email, index, event.shiftKey)} /></label>
    <span class="who">${!$seen && html`<i class="dot" role="img" aria-label=${t('isunread')}></i>`}${who}</span>
    <span class="marks">${$answered && html`<${Icon} name="reply" label=${t('answered')} />`}${$forwarded && html`<${Icon} name="forward" label=${t('forwarded')} />`}${$draft && html`<span class="tag">${t('draft')}</span>`}
      ${email.hasAttachment && html`<${Icon} name="attach" label=${t('attachment')} />`}<time dateTime=${email.receivedAt} title=${exact(email.receivedAt)}>${date(email.receivedAt)}</time></span>
    <a class="what" href=${href} data-id=${email.id} tabindex=${isCursor ? '0' : '-1'} onClick=${(event) => event.preventDefault()}><b>${email.subject || t('nosubject')}</b><span class="preview"> ${email.preview}</span></a>
    <button type="button" class="star ${$flagged ? 'on' : ''}" tabindex="-1" aria-pressed=${Boolean($flagged)} aria-label=${$flagged ? t('unflag') : t('flag')} title=${$flagged ? t('unflag') : t('flag')}
      onClick=${(event) => { event.stopPropagation(); flag(email); }}><${Icon} name="flag" filled=${Boolean($flagged)} /></button></li>`;
}
