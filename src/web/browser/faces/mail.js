// Webmail: an ordinary JMAP client. The address holds what is shown: /mail/MAILBOX/EMAIL?q=WORDS&show=VIEW.
import { html, useCallback, useEffect, useLayoutEffect, useRef, useState } from '../lib/html.js';
import { get } from '../lib/api.js';
import { count, people } from '../lib/format.js';
import { request, set, start, watch } from '../lib/jmap.js';
import { t } from '../lib/i18n.js';
import { repeat } from '../lib/repeat.js';
import { shortcuts } from '../lib/settings.js';
import { ask } from '../ui/dialog.js';
import { Icon, Tool } from '../ui/icons.js';
import { Rows } from '../ui/rows.js';
import { Folders, MoveTo, arrange, isJunk, label } from './folders.js';
import { Help } from './help.js';
import { ROW, Row, filterOf, useEmails } from './list.js';
import { Reader } from './reader.js';

const VIEWS = ['', 'unread', 'flagged', 'files'];
const FOLDER_PROPERTIES = ['id', 'name', 'parentId', 'role', 'sortOrder', 'totalEmails', 'unreadEmails'];
const SPOKEN_EVERY = 10000;
const SOON = 100;
const HELD_EVERY = 60000;
const LEARNT = ['$junk', '$notjunk'];

export function Mail({ session, place, go, note, desk, mail }) {
  const [, , mailboxId, emailId] = place.path.split('/');
  const words = place.query.get('q') || '', view = place.query.get('show') || '';
  const [ready, setReady] = useState(false);
  const [mailboxes, setMailboxes] = useState([]);
  const [error, setError] = useState('');
  const [online, setOnline] = useState(true);
  const [chosen, setChosen] = useState(new Map());
  const [cursor, setCursor] = useState(-1);
  const [typed, setTyped] = useState(words);
  const [drawer, setDrawer] = useState(false);
  const [help, setHelp] = useState(false);
  const [heard, setHeard] = useState('');
  const [held, setHeld] = useState(0);
  const [, draw] = useState(0);
  const anchor = useRef(0), gone = useRef(false), waiting = useRef(0), arrivals = useRef({ unread: null, at: 0 }), reader = useRef({}), search = useRef(null), leading = useRef(false);
  const current = mailboxes.find((mailbox) => mailbox.id === mailboxId);
  const byRole = (role) => mailboxes.find((mailbox) => mailbox.role === role);
  const list = useEmails(ready && Boolean(mailboxId), filterOf(mailboxId, words, view));
  const suffix = place.query.size ? `?${place.query}` : '';
  const href = (id) => `/mail/${mailboxId}${id ? `/${id}` : ''}${suffix}`;
  const fail = (failed) => setError(failed.message || String(failed));
  const { say } = note, compose = desk.open;

  const loadFolders = useCallback(async () => {
    try {
      const [found] = await request([['Mailbox/get', { ids: null, properties: FOLDER_PROPERTIES }]]);
      // One may be elsewhere by now.
      if (gone.current) return;
      const arranged = arrange(found.list), inbox = arranged.find((one) => one.role === 'inbox');
      // Told now and then, never as a stream: a screen reader must be able to finish.
      const last = arrivals.current;
      if (inbox && last.unread !== null && inbox.unreadEmails > last.unread && Date.now() - last.at > SPOKEN_EVERY) {
        setHeard(t('newmail', { count: inbox.unreadEmails - last.unread }));
        last.at = Date.now();
      }
      if (inbox) { last.unread = inbox.unreadEmails; document.title = inbox.unreadEmails ? `(${count(inbox.unreadEmails)}) Ortler` : 'Ortler'; }
      setMailboxes(arranged);
      setError('');
      if (inbox && !arranged.some((one) => one.id === location.pathname.split('/')[2])) go(`/mail/${inbox.id}`, true);
    } catch (failed) { fail(failed); }
  }, []);
  /** Reads anew, soon: what one does oneself is told by the server, too. */
  const changed = useCallback(() => { if (!gone.current) waiting.current = waiting.current || setTimeout(() => { waiting.current = 0; loadFolders(); list.refresh(); }, SOON); }, []);
  const begin = () => { setError(''); start().then(() => { setReady(true); return loadFolders(); }, fail); };
  useEffect(() => {
    gone.current = false;
    begin();
    return () => { gone.current = true; clearTimeout(waiting.current); Object.assign(mail.current, { changed: () => {}, focus: () => {} }); };
  }, []);
  useEffect(() => (ready ? watch(changed, setOnline) : undefined), [ready]);
  useEffect(() => {
    const look = () => get('/api/v1/quarantine/counts').then(({ total }) => !gone.current && setHeld(total), () => {});
    look();
    return repeat(look, HELD_EVERY);
  }, []);
  useEffect(() => { if (ready && !mailboxId && mailboxes.length) go(`/mail/${byRole('inbox').id}`, true); }, [ready, mailboxId, mailboxes.length]);
  useEffect(() => { setChosen(new Map()); setCursor(-1); }, [mailboxId, words, view]);
  useEffect(() => setTyped(words), [words]);

  const navigate = (changes) => {
    const query = new URLSearchParams(place.query);
    for (const [name, value] of Object.entries(changes)) if (value) query.set(name, value); else query.delete(name);
    go(`/mail/${mailboxId}${query.size ? `?${query}` : ''}`);
  };
  const at = (id) => { for (const [index, email] of list.emails) if (email.id === id) return index; return -1; };
  const open = (email) => {
    if (email.keywords.$draft) return compose({ draftId: email.id });
    setCursor(at(email.id));
    return go(href(email.id));
  };

  /** Changes emails as JMAP says it; true if all went well. */
  const update = async (args) => {
    try {
      await set('Email', args);
      changed();
      return true;
    } catch (failed) {
      // An undo may come from another face.
      if (gone.current) say(failed.message); else { fail(failed); list.refresh(); }
      return false;
    }
  };
  const each = (ids, patch) => ({ update: Object.fromEntries(ids.map((id) => [id, patch])) });
  const keyword = (ids, name, on) => {
    list.patch(ids, (email) => {
      const keywords = { ...email.keywords };
      if (on) keywords[name] = true; else delete keywords[name];
      return { ...email, keywords };
    });
    return update(each(ids, { [`keywords/${name}`]: on ? true : null }));
  };
  const leave = (ids) => {
    setChosen(new Map());
    if (!ids.includes(emailId)) return;
    go(href());
    lead();
  };
  const move = async (ids, target) => {
    if (!target || !ids.length || target.id === mailboxId) return;
    const source = current, patch = { mailboxIds: { [target.id]: true } };
    // Both words are standard keywords: other clients and the filter learn from them, too.
    const before = (email) => ({ mailboxIds: email.mailboxIds, ...Object.fromEntries(LEARNT.map((name) => [`keywords/${name}`, email.keywords[name] || null])) });
    if (target.role === 'junk') Object.assign(patch, { 'keywords/$junk': true, 'keywords/$notjunk': null });
    if (isJunk(source) && target.role === 'inbox') Object.assign(patch, { 'keywords/$junk': null, 'keywords/$notjunk': true });
    leave(ids);
    let known;
    try { [known] = await request([['Email/get', { ids, properties: ['mailboxIds', 'keywords'] }]]); } catch (failed) { fail(failed); return; }
    const back = Object.fromEntries(known.list.map((email) => [email.id, before(email)]));
    if (await update(each(ids, patch))) {
      say(t('moved', { count: ids.length, name: label(target) }), () => update({ update: back }), isJunk(source) && target.role === 'inbox' && ids.length === 1 && { to: `/mail/${target.id}/${ids[0]}`, text: t('openit') });
    }
  };
  const remove = async (ids) => {
    if (!ids.length) return;
    if (current.role !== 'trash' && !(current.role === 'drafts')) { await move(ids, byRole('trash')); return; }
    if (!await ask({ title: t('deleteforever'), text: t('deleteforevertext', { count: ids.length }), ok: t('delete'), danger: true })) return;
    leave(ids);
    await update({ destroy: ids });
  };
  const junk = (ids) => move(ids, byRole(isJunk(current) ? 'inbox' : 'junk'));
  const actions = { archive: (ids) => move(ids, byRole('archive')), junk, remove, move, keyword };

  const toggle = (email, index, ranged) => {
    const next = new Map(chosen);
    if (ranged) for (let place = Math.min(anchor.current, index); place <= Math.max(anchor.current, index); place += 1) { const one = list.emails.get(place); if (one) next.set(one.id, one); }
    else if (!next.delete(email.id)) next.set(email.id, email);
    anchor.current = index;
    setChosen(next);
  };
  const drag = (event, email) => {
    event.dataTransfer.setData('text/x-emails', (chosen.has(email.id) ? [...chosen.keys()] : [email.id]).join(' '));
    event.dataTransfer.effectAllowed = 'move';
  };
  /** Leads the keyboard to what is read, or to the cursor's row, with the rendering that shows it: the next key may come
      at once. */
  const lead = () => { leading.current = true; draw((round) => round + 1); };
  useLayoutEffect(() => {
    const target = leading.current && document.querySelector(emailId ? '.read h2' : list.total ? '.row.cursor .what' : '.rows');
    if (!target) return;
    target.focus({ preventScroll: Boolean(emailId) });
    // What is yet to come, or to be shown, has it later.
    leading.current = document.activeElement !== target;
  });
  const step = (by) => {
    const from = emailId && at(emailId) >= 0 ? at(emailId) : cursor;
    const next = Math.max(0, Math.min((list.total || 1) - 1, from + by));
    setCursor(next);
    const email = list.emails.get(next);
    if (emailId && email && !email.keywords.$draft) go(href(email.id), true); else lead();
  };
  const targets = () => (emailId ? [emailId] : chosen.size ? [...chosen.keys()] : list.emails.get(cursor) ? [list.emails.get(cursor).id] : []);

  const back = () => { go(href()); lead(); };
  const isFlagged = (id) => { const email = list.emails.get(at(id)); return Boolean(email && email.keywords.$flagged); };
  // With the rendering and not after the painting: the next key may come before that.
  useLayoutEffect(() => {
    const pressed = (event) => {
      leading.current = false;
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || document.querySelector('dialog[open]')) return;
      const inList = event.target.closest && event.target.closest('.list .rows');
      if (inList && ['ArrowDown', 'ArrowUp'].includes(event.key)) { event.preventDefault(); step(event.key === 'ArrowDown' ? 1 : -1); return; }
      if (inList && event.key === 'Enter' && list.emails.get(cursor) && !event.target.matches('input, button')) { event.preventDefault(); open(list.emails.get(cursor)); return; }
      if (event.target.closest && event.target.closest('input:not([type=checkbox]), textarea, select, [contenteditable], .compose')) return;
      if (event.key === 'Escape' && drawer) { setDrawer(false); return; }
      if (event.key === 'Escape' && emailId) { back(); return; }
      if (!shortcuts()) return;
      const ids = targets();
      const keys = {
        j: () => step(1), k: () => step(-1), o: () => list.emails.get(cursor) && open(list.emails.get(cursor)), u: back, c: () => compose(),
        x: () => { const index = emailId ? at(emailId) : cursor; const email = list.emails.get(index); if (email) toggle(email, index, false); },
        '#': () => remove(ids), '!': () => junk(ids), e: () => actions.archive(ids), s: () => ids.length && keyword(ids, '$flagged', !isFlagged(ids[0])),
        m: () => { if (ids.length) { keyword(ids, '$seen', false); if (emailId) back(); } }, '/': () => search.current && search.current.focus(),
        z: note.undo, '?': () => setHelp(true), v: () => { const menu = document.querySelector('.moveto select'); if (menu) menu.focus(); },
        r: () => reader.current.reply && reader.current.reply(false), a: () => reader.current.reply && reader.current.reply(true), f: () => reader.current.forward && reader.current.forward(),
      };
      if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
    };
    addEventListener('keydown', pressed);
    return () => removeEventListener('keydown', pressed);
  });

  const ids = [...chosen.keys()], caught = isJunk(current), allSeen = [...chosen.values()].every((email) => email.keywords.$seen);
  const known = () => [...new Set([...list.emails.values()].flatMap((email) => [...(email.from || []), ...(email.to || [])]).map((one) => people([one])))].slice(0, 200);
  Object.assign(mail.current, { mailboxes, known, changed, focus: lead });
  const outgoing = Boolean(current) && ['sent', 'drafts'].includes(current.role);
  const row = (index) => {
    const email = list.emails.get(index);
    return html`<${Row} key=${email ? email.id : `w${index}`} email=${email} index=${index} total=${list.total} isOpen=${email && email.id === emailId} isCursor=${index === Math.max(cursor, 0)}
      isChosen=${email && chosen.has(email.id)} outgoing=${outgoing} href=${email && href(email.id)} open=${open} toggle=${toggle} flag=${(one) => keyword([one.id], '$flagged', !one.keywords.$flagged)} drag=${drag} />`;
  };
  const tools = html`<div class="bar tools" role="toolbar" aria-label=${t('chosen')}><${Tool} icon="close" label=${t('clear')} onClick=${() => setChosen(new Map())} /><b>${count(ids.length)}</b><span class="space"></span>
    <${Tool} icon="archive" label=${t('toarchive')} onClick=${() => actions.archive(ids)} /><${Tool} icon=${caught ? 'notjunk' : 'junk'} label=${caught ? t('notjunk') : t('tojunk')} onClick=${() => junk(ids)} />
    <${Tool} icon="trash" label=${t('delete')} onClick=${() => remove(ids)} /><${Tool} icon=${allSeen ? 'unread' : 'read'} label=${allSeen ? t('unread') : t('markread')} onClick=${() => { keyword(ids, '$seen', !allSeen); setChosen(new Map()); }} />
    <${Tool} icon="flag" label=${t('flag')} onClick=${() => keyword(ids, '$flagged', ![...chosen.values()].every((email) => email.keywords.$flagged))} /><${MoveTo} mailboxes=${mailboxes} current=${current} move=${(target) => move(ids, target)} /></div>`;
  const finder = html`<form class="bar finder" role="search" onSubmit=${(event) => { event.preventDefault(); navigate({ q: typed.trim() }); }}>
    <span class="folderbutton"><${Tool} icon="menu" label=${t('folders')} pressed=${drawer} onClick=${() => setDrawer(!drawer)} /></span>
    <label class="searchbox"><${Icon} name="search" /><input ref=${search} type="search" placeholder=${t('search')} aria-label=${t('search')} title=${t('searchhint')} value=${typed} onInput=${(event) => { setTyped(event.target.value); if (!event.target.value && words) navigate({ q: '' }); }} /></label></form>
    <div class="bar views" role="group" aria-label=${t('views')}>${VIEWS.map((name) => html`<button type="button" aria-pressed=${view === name} onClick=${() => navigate({ show: name })}>${t(`view-${name || 'all'}`)}</button>`)}
      <span class="space"></span>${list.total !== null && html`<small class="soft" title=${t('countof', { count: list.total })}>${count(list.total)}</small>`}</div>`;
  const empty = words || view ? html`<p>${t('nomatch')}</p><button onClick=${() => navigate({ q: '', show: '' })}>${t('clearfilter')}</button>`
    : html`<p>${t(current && current.role === 'inbox' ? 'emptyinbox' : 'emptyfolder')}</p>${current && current.role === 'inbox' && html`<a href="/log" onClick=${(event) => { event.preventDefault(); go('/log'); }}>${t('expecting')}</a>`}`;
  return html`<main id="content" class="mail ${emailId ? 'reading' : ''} ${drawer ? 'drawer' : ''}" onClick=${(event) => drawer && !event.target.closest('.folders, .folderbutton') && setDrawer(false)}>
    <${Folders} mailboxes=${mailboxes} current=${current} held=${held} go=${go} compose=${() => compose()} drop=${move} changed=${changed} failed=${setError} close=${() => setDrawer(false)} />
    <section class="list" aria-label=${current ? label(current) : t('messages')}>
      ${!online && html`<p class="strip" role="status">${t('offline')}</p>`}
      ${ids.length ? tools : finder}
      ${caught && html`<p class="strip hint">${t('junkhint')}</p>`}
      ${(error || list.error) && html`<p class="error" role="alert">${error || list.error} <button onClick=${() => { if (ready) { loadFolders(); list.refresh(); } else begin(); setError(''); }}>${t('retry')}</button></p>`}
      <${Rows} total=${list.total || 0} height=${ROW} row=${row} seen=${list.seen} label=${t('messages')} current=${cursor} top=${`${mailboxId}${words}${view}`}>
        ${list.total === null && !list.error && html`<p class="empty">${words ? t('searching') : t('loading')}</p>`}${list.total === 0 && html`<div class="empty">${empty}</div>`}</${Rows}>
    </section>
    <section class="read" aria-label=${t('message')}>${emailId && ready ? html`<${Reader} key=${emailId} id=${emailId} session=${session} mailboxes=${mailboxes} current=${current} actions=${actions} compose=${compose} back=${back} go=${go} handle=${reader} say=${say} />`
      : html`<div class="empty big"><${Icon} name="mail" /><p>${t('choose')}</p></div>`}</section>
    ${help && html`<${Help} close=${() => setHelp(false)} />`}
    <div class="hidden" aria-live="polite">${heard}</div>
  </main>`;
}
