// The live log: what happened to every message that the viewer may see. The address holds the question:
// /log/MESSAGE?q=WORDS&outcome=ONE&hours=24 or &from=DATE&to=DATE.
import { html, useEffect, useRef, useState } from '../lib/html.js';
import { get, listen } from '../lib/api.js';
import { why } from '../lib/explain.js';
import { clock, count, date, exact, points, size } from '../lib/format.js';
import { t } from '../lib/i18n.js';
import { Copy } from '../ui/copy.js';
import { ask } from '../ui/dialog.js';
import { Icon, Tool } from '../ui/icons.js';
import { Graph, OUTCOMES } from './graph.js';
import { Outcome, Story } from './story.js';

const KEPT = 1000, PAGE = 100;
const RANGES = [1, 6, 24, 168, 504];
const COLUMNS = ['time', 'outcome', 'from', 'to', 'subject', 'reason', 'score', 'size'];

/** Newest first, each message as it was changed last. `fresh` is by id. */
function merge(known, fresh) {
  const all = new Map(known.map((row) => [row.id, row]));
  for (const [id, row] of fresh) if (!all.has(id) || all.get(id).seq <= row.seq) all.set(id, row);
  return [...all.values()].sort((a, b) => (a.id < b.id ? 1 : -1)).slice(0, KEPT);
}

/** Whose mail the viewer sees, in words. */
function scope({ roles, address }) {
  if (!roles.length) return t('scopeown', { address });
  if (roles.includes('service-centre')) return t('scopeexact');
  return t(roles.some((role) => ['reseller', 'customer-admin', 'domain-admin'].includes(role)) ? 'scoperoles' : 'scopeall');
}

export function Log({ session, place, go }) {
  const open = place.path.split('/')[2];
  const query = place.query.get('q') || '', outcome = place.query.get('outcome') || '', hours = Number(place.query.get('hours')) || 24;
  const from = place.query.get('from'), to = place.query.get('to');
  const [rows, setRows] = useState(null);
  const [waiting, setWaiting] = useState([]);
  const [more, setMore] = useState(false);
  const [error, setError] = useState('');
  const [online, setOnline] = useState(true);
  const [paused, setPaused] = useState(false);
  const [typed, setTyped] = useState(query);
  const [counts, setCounts] = useState(null);
  const [again, setAgain] = useState(0);
  const still = useRef(false), page = useRef(null), question = useRef(0), drawn = useRef({ key: '' });
  const text = [query, outcome && `outcome:${outcome}`].filter(Boolean).join(' ');
  const since = () => from || new Date(Date.now() - hours * 3600000).toISOString();
  const suffix = place.query.size ? `?${place.query}` : '';
  // Rows stand still while somebody reads: a story is open, the list is scrolled, or the reader asked for it.
  still.current = Boolean(open) || paused || Boolean(to) || (page.current && page.current.scrollTop > 200);

  const navigate = (changes) => {
    const next = new URLSearchParams(place.query);
    for (const [name, value] of Object.entries(changes)) if (value) next.set(name, value); else next.delete(name);
    go(`/log${open ? `/${open}` : ''}${next.size ? `?${next}` : ''}`);
  };
  const find = (below) => get(`/api/v1/log/messages?limit=${PAGE}&q=${encodeURIComponent(text)}&since=${encodeURIComponent(since())}${to ? `&before=${encodeURIComponent(to)}` : ''}${below ? `&below=${below}` : ''}`);
  const further = () => {
    const mine = question.current;
    find(rows[rows.length - 1].id).then((found) => { if (mine === question.current) { setRows((known) => [...known, ...found.messages]); setMore(found.hasMore); } }, (failed) => mine === question.current && setError(failed.message));
  };
  useEffect(() => setTyped(query), [query]);
  useEffect(() => {
    let fresh = new Map(), timer = 0, seq = 0, ended = false, stop = () => {};
    question.current += 1;
    const told = (event) => {
      const row = JSON.parse(event.data);
      fresh.set(row.id, row);
      seq = Math.max(seq, row.seq);
      // Painted a few times a second, however many arrive.
      timer = timer || setTimeout(() => {
        const batch = fresh; fresh = new Map(); timer = 0;
        if (!still.current) { setRows((known) => merge(known, batch)); return; }
        // What is shown already may change where it stands; what is new waits.
        setRows((known) => known.map((one) => batch.get(one.id) || one));
        setWaiting((known) => merge(known, batch));
      }, 250);
    };
    setWaiting([]);
    setRows(null);
    setError('');
    find().then((found) => {
      // An answer to an earlier question comes too late.
      if (ended) return;
      setRows(found.messages);
      setMore(found.hasMore);
      seq = found.seq;
      stop = listen(() => `/api/v1/log/stream?q=${encodeURIComponent(text)}&after=${seq}`, { message: told }, setOnline);
    }, (failed) => { if (!ended) { setRows([]); setMore(false); setError(failed.message); } });
    return () => { ended = true; stop(); clearTimeout(timer); };
  }, [text, hours, from, to, again]);
  const shown = new Set((rows || []).map((one) => one.id)), fresh = waiting.filter((one) => !shown.has(one.id));
  const show = () => { setRows((known) => merge(known || [], new Map(waiting.map((one) => [one.id, one])))); setWaiting([]); setPaused(false); if (to) navigate({ from: '', to: '' }); if (page.current) page.current.scrollTop = 0; };
  const story = (id) => go(`/log/${id}${suffix}`);
  const parties = (one) => (one.recipients || []).map((party) => party.address).join(', ');
  const reason = (one) => (one.outcome && one.outcome !== 'delivered' ? why((one.recipients || []).map((party) => party.reason).find(Boolean) || one.reason) : '');
  const draw = (one) => html`<tr key=${one.id} class=${one.id === open ? 'open' : ''} onClick=${() => story(one.id)}>
    <td class="t-time"><time dateTime=${one.at} title=${exact(one.at)}>${date(one.at)}</time></td><td class="t-outcome"><${Outcome} of=${one.outcome} /></td><td class="t-from" title=${one.from}>${one.from === '' ? t('nullsender') : one.from}</td>
    <td class="t-to" title=${parties(one)}>${parties(one)}</td><td class="t-subject"><a href="/log/${one.id}${suffix}" onClick=${(event) => { event.preventDefault(); event.stopPropagation(); story(one.id); }}>${one.subject || (one.subject === '' ? t('nosubject') : t('nostorysubject'))}</a></td>
    <td class="t-reason" title=${reason(one)}>${reason(one)}</td><td class="t-score">${one.score === null || one.score === undefined ? '' : points(one.score)}</td><td class="t-size">${one.size ? size(one.size) : ''}</td></tr>`;
  // A row is drawn again only when it, or what all rows depend on, has changed.
  const key = `${suffix} ${open} ${new Date().toDateString()}`;
  if (drawn.current.key !== key) drawn.current = { key, rows: new WeakMap() };
  const row = (one) => { const { rows: known } = drawn.current; if (!known.has(one)) known.set(one, draw(one)); return known.get(one); };
  const opened = open && [...waiting, ...(rows || [])].find((one) => one.id === open);
  const missing = async () => {
    const sender = await ask({ title: t('missing'), text: t('missingtext'), field: t('missingfield'), ok: t('look') });
    if (sender) go(`/log?q=${encodeURIComponent(`from:${/\s/.test(sender) ? `"${sender}"` : sender}`)}&hours=504`);
  };
  const sought = /(?:^|\s)from:("[^"]*"|\S+)/.exec(query);
  const state = !online ? 'offline' : to ? 'frozen' : paused || open ? 'still' : 'live';
  const nothing = rows && rows.length === 0 && !error;
  return html`<main id="content" class="log ${open ? 'withstory' : ''}"><div class="stream" ref=${page} tabindex="0" role="region" aria-label=${t('log')}>
    <div class="headline"><h2>${t('log')}</h2><span class="state ${state}" role="status"><i aria-hidden="true"></i>${t(state)}</span>${!to && html`<${Tool} icon=${paused ? 'play' : 'pause'} label=${paused ? t('goon') : t('standstill')} pressed=${paused} onClick=${() => (paused ? show() : setPaused(true))} />`}
      <span class="soft scope">${scope(session)}</span><span class="space"></span><${Tool} icon="search" label=${t('missing')} words onClick=${missing} /></div>
    <section class="card question" aria-label=${t('filters')}><form class="bar" role="search" onSubmit=${(event) => { event.preventDefault(); navigate({ q: typed.trim() }); }}>
        <label class="searchbox"><${Icon} name="search" /><input type="search" placeholder=${t('query')} title=${t('queryhint')} aria-label=${t('query')} value=${typed} onInput=${(event) => { setTyped(event.target.value); if (!event.target.value && query) navigate({ q: '' }); }} /></label>
        <span class="segments" role="group" aria-label=${t('range')}>${RANGES.map((n) => html`<button type="button" aria-pressed=${!from && hours === n} onClick=${() => navigate({ hours: String(n), from: '', to: '' })}>${n < 100 ? t('hours', { n }) : t('days', { n: n / 24 })}</button>`)}</span>
        ${from && html`<button type="button" class="chip on" onClick=${() => navigate({ from: '', to: '' })} aria-label=${t('wholerange')}>${date(from)} ${clock(from)} – ${clock(to || Date.now())} ×</button>`}</form>
      <div class="bar facets" role="group" aria-label=${t('outcome')}>${OUTCOMES.map((name) => html`<button type="button" aria-pressed=${outcome === name} onClick=${() => navigate({ outcome: outcome === name ? '' : name })}><${Outcome} of=${name} />${counts && html`<b>${count(counts[name] || 0)}</b>`}</button>`)}</div>
      <${Graph} hours=${hours} from=${from} to=${to} counted=${setCounts} zoom=${(start, end) => navigate({ from: start.toISOString(), to: end.toISOString() })} /></section>
    ${error && html`<p class="error" role="alert">${error} <button type="button" onClick=${() => setAgain(again + 1)}>${t('retry')}</button></p>`}
    ${fresh.length > 0 && html`<button type="button" class="pill main" onClick=${show}>${t('newrows', { count: count(fresh.length) })}</button>`}
    <section class="card rowsof" aria-label=${t('messages')}><table><thead><tr>${COLUMNS.map((name) => html`<th scope="col" class="t-${name}">${t(name)}</th>`)}</tr></thead><tbody>${(rows || []).map(row)}</tbody></table>
      ${rows === null && html`<p class="empty">${t('loading')}</p>`}
      ${nothing && html`<div class="empty">${sought ? html`<p><b>${t('notreached', { sender: sought[1].replace(/"/g, ''), since: exact(since()) })}</b></p><p>${t('notreachedtext')}</p><p><${Copy} text=${t('sendertext', { sender: sought[1].replace(/"/g, ''), since: exact(since()), address: session.address })} label=${t('copysender')} /></p>` : html`<p>${text ? t('nomatch') : t('emptylog')}</p>`}
        ${text && html`<button type="button" onClick=${() => go('/log')}>${t('clearfilter')}</button>`}</div>`}
      ${more && html`<p class="empty"><button type="button" onClick=${further}>${t('more')}</button></p>`}</section></div>
    ${open && html`<${Story} key=${open} id=${open} seq=${opened && opened.seq} session=${session} go=${go} close=${() => go(`/log${suffix}`)} />`}
  </main>`;
}
