// Webmail: an ordinary JMAP client. The address holds what is shown: /mail/MAILBOX/EMAIL.
import { html, useCallback, useEffect, useRef, useState } from '../lib/html.js';
import { date, exact, people, person, size } from '../lib/format.js';
import { download, reference, request, start, watch } from '../lib/jmap.js';
import { t } from '../lib/i18n.js';
import { Compose } from './compose.js';

const ROLES = ['inbox', 'drafts', 'sent', 'archive', 'junk', 'quarantine', 'trash'];
const PAGE = 50;
const LISTED = ['id', 'threadId', 'mailboxIds', 'keywords', 'from', 'to', 'subject', 'receivedAt', 'preview', 'hasAttachment', 'size'];
export const label = (mailbox) => (ROLES.includes(mailbox.role) ? t(mailbox.role) : mailbox.name);
const roleOf = (mailbox) => mailbox.role || (mailbox.name === 'Quarantine' && !mailbox.parentId ? 'quarantine' : null);
const order = (mailbox) => { const at = ROLES.indexOf(mailbox.role); return at < 0 ? ROLES.length : at; };

export function Mail({ path, go }) {
  const [, , mailboxId, emailId] = path.split('/');
  const [ready, setReady] = useState(false);
  const [mailboxes, setMailboxes] = useState([]);
  const [emails, setEmails] = useState(null);
  const [total, setTotal] = useState(0);
  const [words, setWords] = useState('');
  const [error, setError] = useState('');
  const [note, setNote] = useState(null);
  const [draft, setDraft] = useState(null);
  const [chosen, setChosen] = useState(new Set());
  const [heard, setHeard] = useState('');
  const shown = useRef({});
  const current = mailboxes.find((mailbox) => mailbox.id === mailboxId);
  const byRole = (role) => mailboxes.find((mailbox) => mailbox.role === role);

  const load = useCallback(async (limit = PAGE, tells = false) => {
    try {
      const calls = [['Mailbox/get', {}]];
      if (mailboxId) {
        const filter = words ? { inMailbox: mailboxId, text: words } : { inMailbox: mailboxId };
        calls.push(['Email/query', { filter, sort: [{ property: 'receivedAt', isAscending: false }], limit, calculateTotal: true }]);
        calls.push(['Email/get', { '#ids': reference(1, 'Email/query', '/ids'), properties: LISTED }]);
      }
      const [boxes, query, found] = await request(calls);
      const list = boxes.list.map((mailbox) => ({ ...mailbox, role: roleOf(mailbox) }));
      setMailboxes(list.sort((a, b) => order(a) - order(b) || a.name.localeCompare(b.name)));
      if (!mailboxId) return go(`/mail/${list.find((mailbox) => mailbox.role === 'inbox').id}`);
      const place = new Map(query.ids.map((id, at) => [id, at]));
      const sorted = found.list.sort((a, b) => place.get(a.id) - place.get(b.id));
      const first = sorted[0];
      if (tells && first && shown.current.first && shown.current.first !== first.id && !first.keywords.$seen) setHeard(t('newmail', { subject: first.subject || '' }));
      shown.current = { first: first && first.id, limit };
      setEmails(sorted); setTotal(query.total); setError('');
    } catch (failed) { setError(failed.message); }
  }, [mailboxId, words]);

  useEffect(() => { start().then(() => setReady(true), (failed) => setError(failed.message)); }, []);
  useEffect(() => { if (ready) { setChosen(new Set()); setEmails(null); load(); } }, [ready, load]);
  useEffect(() => (ready ? watch(() => load(shown.current.limit || PAGE, true)) : undefined), [ready, load]);

  const update = async (ids, patch) => {
    try {
      const [answer] = await request([['Email/set', { update: Object.fromEntries(ids.map((id) => [id, patch])) }]]);
      const refused = Object.values(answer.notUpdated || {})[0];
      if (refused) throw new Error(refused.description || refused.type);
      await load(shown.current.limit);
      return true;
    } catch (failed) { setError(failed.message); return false; }
  };
  const move = async (ids, role) => {
    const target = byRole(role), source = mailboxId;
    if (!target || !ids.length) return;
    if (target.id === source && role === 'trash') {
      await request([['Email/set', { destroy: ids }]]).catch((failed) => setError(failed.message));
      await load(shown.current.limit);
    } else if (await update(ids, { mailboxIds: { [target.id]: true } })) {
      setNote({ text: t('moved', { name: label(target) }), undo: () => update(ids, { mailboxIds: { [source]: true } }) });
      setTimeout(() => setNote(null), 8000);
    }
    setChosen(new Set());
    if (ids.includes(emailId)) go(`/mail/${mailboxId}`);
  };
  const open = (id) => go(`/mail/${mailboxId}/${id}`);

  useEffect(() => {
    const pressed = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || /INPUT|TEXTAREA|SELECT/.test(event.target.tagName) || !emails) return;
      const at = emails.findIndex((email) => email.id === emailId);
      const actions = {
        j: () => emails[at + 1] && open(emails[at + 1].id), k: () => at > 0 && open(emails[at - 1].id), u: () => go(`/mail/${mailboxId}`),
        c: () => setDraft({}), '#': () => emailId && move([emailId], 'trash'), '!': () => emailId && move([emailId], 'junk'), e: () => emailId && move([emailId], 'archive'),
      };
      if (actions[event.key]) { event.preventDefault(); actions[event.key](); }
    };
    addEventListener('keydown', pressed);
    return () => removeEventListener('keydown', pressed);
  });

  const toggle = (id) => { const next = new Set(chosen); if (!next.delete(id)) next.add(id); setChosen(next); };
  const outgoing = current && ['sent', 'drafts'].includes(current.role);
  const row = (email) => html`<li key=${email.id} class="row ${email.keywords.$seen ? '' : 'unread'}" aria-current=${email.id === emailId ? 'true' : undefined} onClick=${() => open(email.id)}>
    <input type="checkbox" aria-label=${t('select')} checked=${chosen.has(email.id)} onClick=${(event) => { event.stopPropagation(); toggle(email.id); }} />
    <span class="who">${email.keywords.$flagged ? '★ ' : ''}${outgoing ? people(email.to) : person((email.from || [])[0])}</span>
    <time class="when" dateTime=${email.receivedAt}>${email.hasAttachment && html`<${Clip} />`}${date(email.receivedAt)}</time>
    <a class="what" href="/mail/${mailboxId}/${email.id}" onClick=${(event) => event.preventDefault()}><b>${email.subject || t('nosubject')}</b> ${email.preview}</a></li>`;
  const ids = [...chosen];
  return html`<main id="content" class="mail ${emailId ? 'reading' : ''}">
    <nav class="folders" aria-label=${t('folders')}>
      <button class="main" onClick=${() => setDraft({})}>${t('compose')}</button>
      <ul>${mailboxes.map((mailbox) => html`<li key=${mailbox.id}><a href="/mail/${mailbox.id}" aria-current=${mailbox.id === mailboxId ? 'page' : undefined}
        onClick=${(event) => { event.preventDefault(); go(`/mail/${mailbox.id}`); }}><span>${label(mailbox)}</span>${mailbox.unreadEmails > 0 && html`<b>${mailbox.unreadEmails}</b>`}</a></li>`)}</ul>
    </nav>
    <section class="list" aria-label=${t('messages')}>
      <div class="bar">${ids.length ? html`<b>${ids.length}</b>
        <button onClick=${() => move(ids, 'archive')}>${t('toarchive')}</button><button onClick=${() => move(ids, current.role === 'junk' || current.role === 'quarantine' ? 'inbox' : 'junk')}>${current.role === 'junk' || current.role === 'quarantine' ? t('notjunk') : t('tojunk')}</button>
        <button onClick=${() => move(ids, 'trash')}>${t('delete')}</button><button onClick=${() => update(ids, { 'keywords/$seen': null })}>${t('unread')}</button>`
      : html`<input type="search" placeholder=${t('search')} aria-label=${t('search')} value=${words} onChange=${(event) => setWords(event.target.value)} />`}</div>
      ${error && html`<p class="error" role="alert">${error}</p>`}
      <ul class="rows" tabindex="0">${emails === null ? html`<li class="empty">${t('loading')}</li>` : emails.length === 0 ? html`<li class="empty">${t('empty')}</li>` : emails.map(row)}
        ${emails && emails.length < total && html`<li class="empty"><button onClick=${() => load(emails.length + PAGE)}>${t('more')}</button></li>`}</ul>
    </section>
    <section class="read">${emailId && ready ? html`<${Reader} key=${emailId} id=${emailId} current=${current} move=${move} update=${update} reply=${setDraft} back=${() => go(`/mail/${mailboxId}`)} />` : html`<p class="empty">${t('choose')}</p>`}</section>
    ${draft && html`<${Compose} draft=${draft} mailboxes=${mailboxes} close=${(text) => { setDraft(null); if (text) { setNote({ text }); setTimeout(() => setNote(null), 6000); } load(shown.current.limit); }} />`}
    <div role="status">${note && html`<p class="note">${note.text}${note.undo && html`<button onClick=${() => { note.undo(); setNote(null); }}>${t('undo')}</button>`}</p>`}<span class="hidden">${heard}</span></div>
  </main>`;
}

// A drawing, not a character: not every machine has a font for it.
const Clip = () => html`<svg class="clip" viewBox="0 0 16 16" role="img" aria-label=${t('attachment')}><path d="M11 5 6 10a1.5 1.5 0 0 0 2 2l5-5a3 3 0 0 0-4-4L4 8a4.5 4.5 0 0 0 6 6l3-3" fill="none" stroke="currentColor" /></svg>`;

function Reader({ id, current, move, update, reply, back }) {
  const [email, setEmail] = useState(null);
  const [error, setError] = useState('');
  const frame = useRef(null);
  useEffect(() => {
    request([['Email/get', { ids: [id], properties: [...LISTED, 'cc', 'replyTo', 'sentAt', 'messageId', 'references', 'attachments', 'textBody', 'bodyValues'], fetchTextBodyValues: true, maxBodyValueBytes: 200000 }]]).then(([found]) => {
      if (!found.list.length) return setError(t('empty'));
      setEmail(found.list[0]);
      if (!found.list[0].keywords.$seen) update([id], { 'keywords/$seen': true });
    }, (failed) => setError(failed.message));
  }, [id]);
  if (error) return html`<p class="error" role="alert">${error}</p>`;
  if (!email) return html`<p class="empty">${t('loading')}</p>`;
  // The frame has no scripts; same origin only lets us measure it.
  const fit = () => { const inner = frame.current && frame.current.contentDocument; if (inner && inner.documentElement) frame.current.style.height = `${Math.min(inner.documentElement.scrollHeight + 24, 20000)}px`; };
  const text = () => (email.textBody || []).map((part) => (email.bodyValues[part.partId] || {}).value || '').join('\n');
  const quote = () => `\n\n${t('wrote', { who: person((email.from || [])[0]), when: exact(email.sentAt || email.receivedAt) })}\n${text().split('\n').map((line) => `> ${line}`).join('\n')}`;
  const subject = (mark) => ((email.subject || '').toLowerCase().startsWith(mark.toLowerCase()) ? email.subject : `${mark} ${email.subject || ''}`);
  const answer = (all) => reply({ to: people(email.replyTo || email.from), cc: all ? people([...(email.to || []), ...(email.cc || [])]) : '', subject: subject('Re:'), text: quote(), inReplyTo: email.messageId, references: [...(email.references || []), ...(email.messageId || [])] });
  const caught = current && ['junk', 'quarantine'].includes(current.role);
  const field = (name, value) => value && html`<dt>${t(name)}</dt><dd>${value}</dd>`;
  return html`<article><div class="bar"><button onClick=${back}>${t('back')}</button><button onClick=${() => answer(false)}>${t('reply')}</button><button onClick=${() => answer(true)}>${t('replyall')}</button>
    <button onClick=${() => reply({ subject: subject('Fwd:'), text: quote() })}>${t('forward')}</button><button onClick=${() => move([id], 'archive')}>${t('toarchive')}</button>
    <button onClick=${() => move([id], caught ? 'inbox' : 'junk')}>${caught ? t('notjunk') : t('tojunk')}</button><button onClick=${() => move([id], 'trash')}>${t('delete')}</button>
    <button onClick=${async () => { await update([id], { 'keywords/$flagged': email.keywords.$flagged ? null : true }); setEmail({ ...email, keywords: { ...email.keywords, $flagged: !email.keywords.$flagged } }); }}>${email.keywords.$flagged ? t('unflag') : t('flag')}</button>
    <button onClick=${() => update([id], { 'keywords/$seen': null }).then(back)}>${t('unread')}</button></div>
    <div class="head"><h2>${email.subject || t('nosubject')}</h2><dl>${field('from', people(email.from))}${field('to', people(email.to))}${field('cc', people(email.cc))}${field('date', exact(email.sentAt || email.receivedAt))}</dl>
    ${email.attachments.length > 0 && html`<ul class="files" aria-label=${t('attachment')}>${email.attachments.map((part) => html`<li><a href=${download(part.blobId, part.name, part.type)} download=${part.name || 'attachment'}>${part.name || part.type} (${size(part.size)})</a></li>`)}</ul>`}</div>
    <iframe ref=${frame} title=${t('body')} sandbox="allow-same-origin allow-popups allow-popups-to-escape-sandbox" src="/api/v1/message/${id}/body" onLoad=${fit}></iframe></article>`;
}
