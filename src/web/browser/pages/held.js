// Messages that are held: the reader's own, or of all that he answers for. The address holds the question:
// BASE/MESSAGE?q=WORDS&reason=ONE&of=DOMAIN-OR-ADDRESS&asked=1.
import { html, useEffect, useRef, useState } from '../lib/html.js';
import { call, get } from '../lib/api.js';
import { cause, finding, learn, reasons } from '../lib/explain.js';
import { count, date, exact, points, size } from '../lib/format.js';
import { t } from '../lib/i18n.js';
import { queryOf, useFound, useRows } from '../lib/load.js';
import { may } from '../lib/rights.js';
import { ask } from '../ui/dialog.js';
import { Icon, Tool } from '../ui/icons.js';
import { Waiting } from '../ui/waiting.js';

const PAGE = 50;
/** Messages in one request. */
const MOST = 500;
const HEIGHT_MAX = 20000;
const REASONS = ['spam', 'newsletter', 'blocked', 'country', 'attachment', 'suspicious', 'virus', 'forged', 'milter', 'sending', 'size', 'other'];
/** Less than this, in thousandths of a point, is no reason. */
const LEAST = 100;
const ACTIONS = '/api/v1/quarantine/actions';

/** Lists and messages; `all`: not only the reader's own. */
export function Held({ session, place, go, note, base, all }) {
  const open = place.path.split('/')[3];
  const [words, reason, of, asked] = ['q', 'reason', 'of', 'asked'].map((name) => place.query.get(name) || '');
  const [typed, setTyped] = useState(words);
  const [whose, setWhose] = useState(of);
  const [chosen, setChosen] = useState(new Set());
  const [error, setError] = useState('');
  const title = useRef(null), first = useRef([]);
  const scope = !all ? {} : of ? { [of.includes('@') ? 'account' : 'domain']: of } : { all: true };
  const question = { ...scope, search: words, asked: Boolean(asked) };
  const suffix = place.query.size ? `?${place.query}` : '';
  const href = (id) => `${base}${id ? `/${id}` : ''}${suffix}`;
  const list = useRows(async (after) => {
    const page = (more) => get(`/api/v1/quarantine${queryOf({ ...question, reason, after, limit: PAGE, ...more })}`);
    // What people ask for comes before all else.
    if (!after) first.current = all && !asked ? (await page({ asked: true })).messages : [];
    const { messages, next } = await page();
    return { rows: [...(after ? [] : first.current), ...messages.filter((one) => !first.current.some((other) => other.id === one.id))], next };
  }, [words, reason, of, asked]);
  const counts = useFound(() => get(`/api/v1/quarantine/counts${queryOf(question)}`), [words, of, asked]);
  useEffect(() => { setTyped(words); setWhose(of); setChosen(new Set()); }, [words, reason, of, asked]);

  const navigate = (changes) => {
    const query = new URLSearchParams(place.query);
    for (const [name, value] of Object.entries(changes)) if (value) query.set(name, value); else query.delete(name);
    go(`${base}${query.size ? `?${query}` : ''}`);
  };
  const rows = list.rows || [];
  /** Leads the keyboard to the message, or to the list's title where there is none. */
  const lead = (id) => setTimeout(() => { const target = document.querySelector(`[data-held="${id}"]`) || title.current; if (target) target.focus(); }, 0);
  const close = () => { const id = open; go(href()); lead(id); };
  /** Messages that are no longer held. */
  const left = (ids) => {
    const gone = new Set(ids), at = rows.findIndex((one) => gone.has(one.id)), rest = rows.filter((one) => !gone.has(one.id));
    list.change(() => rest);
    counts.load();
    setChosen(new Set([...chosen].filter((id) => !gone.has(id))));
    if (gone.has(open)) go(href());
    const next = rest[Math.min(Math.max(at, 0), rest.length - 1)];
    lead(next ? next.id : '');
    if (!rest.length && list.next) list.load();
  };
  const act = async (action, ids, more) => {
    setError('');
    try { return await call('POST', ACTIONS, { action, ids, ...more }); } catch (failed) { setError(failed.message); return null; }
  };
  /** On whose list a sender comes: one's own, or as one chooses; null when the reader thinks better of it. */
  const levelOf = (heading, text, ok, one) => (all ? ask({ title: heading, text, field: t('onlistof'), choices: [['mailbox', t('onlyfor', { name: one.to })], ['domain', t('forwholedomain', { name: one.to.split('@').pop() })]], ok }) : ask({ title: heading, text, ok }).then((yes) => yes && 'mailbox'));
  const release = async (ids, more) => {
    const answer = await act('release', ids, more);
    if (!answer) return;
    const freed = answer.done.filter((one) => one.released), kept = answer.done.filter((one) => !one.released), listed = freed.map((one) => one.allowed).filter(Boolean);
    left([...freed.map((one) => one.id), ...kept.filter((one) => one.code === 'gone').map((one) => one.id)]);
    if (freed.length) note.say([t(all || !session.faces.includes('mail') ? 'releasedothers' : 'releasednote', { count: freed.length }), listed.length && t('allowednote', { who: listed.join(', ') })].filter(Boolean).join(' '), undefined, all || !session.faces.includes('mail') ? undefined : { to: '/mail', text: t('inbox') });
    if (!kept.length) return;
    setError([...new Set(kept.map((one) => t(`nr-${one.code}`)))].join(' '));
    const infected = kept.filter((one) => one.code === 'virus').map((one) => one.id);
    if (infected.length && may(session, 'harm') && await ask({ title: t('releasevirus'), text: t('releasevirustext'), ok: t('deliver'), danger: true })) await release(infected, { ...more, despiteVirus: true });
  };
  const allow = async (one) => { const level = await levelOf(t('releaseallow'), t('allowtext', { who: one.author || one.from }), t('releaseallow'), one); if (level) await release([one.id], { allow: level }); };
  const remove = async (ids) => {
    if (!await ask({ title: t('delete'), text: t('deleteheld', { count: ids.length }), ok: t('delete'), danger: true })) return;
    const answer = await act('delete', ids);
    if (answer) { left(ids); note.say(t('deletednote', { count: answer.deleted })); }
  };
  const block = async (one) => {
    const level = await levelOf(t('deleteblock'), t('blocktext', { who: one.author || one.from }), t('deleteblock'), one);
    const answer = level && await act('delete', [one.id], { block: level });
    if (answer) { left([one.id]); note.say(t('blockednote', { who: answer.blocked.join(', ') || one.from })); }
  };
  const request = async (ids) => {
    const answer = await act('ask', ids);
    if (!answer) return;
    const now = new Date().toISOString();
    list.change((known) => known.map((one) => (ids.includes(one.id) ? { ...one, asked: one.asked || now } : one)));
    note.say(t('askednote'));
  };
  const acts = { release, allow, remove, block, request };

  const mine = rows.filter((one) => chosen.has(one.id)), free = mine.filter((one) => one.mayRelease).map((one) => one.id), bound = mine.filter((one) => !one.mayRelease && !one.asked).map((one) => one.id);
  const total = counts.found ? counts.found.total : null;
  const choose = (id, on) => { const next = new Set(chosen); if (on) next.add(id); else next.delete(id); setChosen(next); };
  const most = rows.slice(0, MOST), everything = most.length > 0 && most.every((one) => chosen.has(one.id));
  const releases = !all || may(session, 'release');
  const found = counts.found ? counts.found.reasons : {};
  const row = (one) => html`<li key=${one.id} class="hold ${one.id === open ? 'open' : ''}" onClick=${(event) => !event.target.closest('label, a') && go(href(one.id))}>
    <label class="tickbox"><input type="checkbox" aria-label=${t('selectone', { subject: one.subject || t('nosubject') })} checked=${chosen.has(one.id)} onChange=${(event) => choose(one.id, event.target.checked)} /></label>
    <a class="what" href=${href(one.id)} data-held=${one.id} aria-current=${one.id === open ? 'true' : undefined} onClick=${(event) => { event.preventDefault(); go(href(one.id)); }}><b>${one.subject || (one.subject === undefined ? t('hiddensubject') : t('nosubject'))}</b></a>
    <span class="who">${one.author || one.from || t('nullsender')}${all && html` <span class="soft">→ ${one.to}</span>`}</span>
    <time class="soft" dateTime=${one.held} title=${exact(one.held)}>${date(one.held)}</time>
    <span class="marks"><span class="tag ${one.reason}">${t(`q-${one.reason}`)}</span>${one.asked && html`<span class="tag asked">${t('isasked')}</span>`}<small class="soft">${t('heldtill', { date: date(one.expires) })}</small></span></li>`;
  const filtered = words || reason || asked || of;
  return html`<div class="holding ${open ? 'withstory' : ''}"><div class="holds"><h2 ref=${title} tabindex="-1">${t('quarantine')}${total !== null && html` <small class="soft">${count(total)}</small>`}</h2><p class="soft">${t(all ? 'heldallhint' : 'heldhint')}</p>
    <form class="bar" role="search" onSubmit=${(event) => { event.preventDefault(); navigate({ q: typed.trim(), of: whose.trim() }); }}>
      <label class="searchbox"><${Icon} name="search" /><input type="search" placeholder=${t('searchheld')} aria-label=${t('searchheld')} value=${typed} onInput=${(event) => { setTyped(event.target.value); if (!event.target.value && words) navigate({ q: '' }); }} /></label>
      ${all && html`<label class="searchbox"><${Icon} name="mail" /><input type="search" placeholder=${t('whoseheld')} aria-label=${t('whoseheld')} autocapitalize="off" autocomplete="off" value=${whose} onInput=${(event) => { setWhose(event.target.value); if (!event.target.value && of) navigate({ of: '' }); }} /></label>`}
      <select aria-label=${t('reason')} value=${reason} onChange=${(event) => navigate({ reason: event.target.value })}><option value="" selected=${!reason}>${t('allreasons')}</option>${REASONS.filter((name) => found[name] || name === reason).map((name) => html`<option value=${name} selected=${name === reason}>${t(`q-${name}`)} (${count(found[name] || 0)})</option>`)}</select>
      ${all && html`<button type="button" aria-pressed=${Boolean(asked)} onClick=${() => navigate({ asked: asked ? '' : '1' })}>${t('askedonly')}</button>`}<button>${t('find')}</button></form>
    ${error && html`<p class="error" role="alert">${error}</p>`}
    ${rows.length > 0 && html`<div class="bar tools" role="toolbar" aria-label=${t('chosen')}><label class="tick"><input type="checkbox" checked=${everything} onChange=${() => setChosen(everything ? new Set() : new Set(most.map((one) => one.id)))} /><span>${t('selectall')}</span></label>
      ${mine.length > 0 && html`<b role="status">${t('chosencount', { count: mine.length })}</b>${free.length > 0 && html`<button type="button" class="main" onClick=${() => release(free)}>${t('deliver')}${free.length < mine.length ? ` (${count(free.length)})` : ''}</button>`}
      ${!all && bound.length > 0 && html`<button type="button" onClick=${() => request(bound)}>${t('askadmin')}${bound.length < mine.length ? ` (${count(bound.length)})` : ''}</button>`}
      ${releases && html`<button type="button" onClick=${() => remove(mine.map((one) => one.id))}>${t('delete')}</button>`}`}</div>`}
    <section class="card list" aria-label=${t('messages')}><${Waiting} of=${list} />${list.rows && !rows.length && html`<div class="empty"><${Icon} name="notjunk" /><p>${t(filtered ? 'nomatch' : 'nothingheld')}</p>${filtered && html`<button type="button" onClick=${() => go(base)}>${t('clearfilter')}</button>`}</div>`}
      <ul>${rows.map(row)}</ul>${list.next && html`<p class="empty"><button type="button" onClick=${list.further}>${t('more')}</button></p>`}</section></div>
    ${open && html`<${Message} key=${open} id=${open} known=${rows.find((one) => one.id === open)} all=${all} session=${session} acts=${acts} close=${close} go=${go} />`}</div>`;
}

/** One held message: why it is held, its text, what can be done. */
function Message({ id, known, all, session, acts, close, go }) {
  const of = useFound(() => get(`/api/v1/quarantine/messages/${id}`), [id]);
  const [found, setFound] = useState([]);
  const [isShown, setIsShown] = useState(!all);
  const title = useRef(null), frame = useRef(null);
  const one = of.found && { ...of.found, asked: (known && known.asked) || of.found.asked };
  useEffect(() => { if (one && title.current) title.current.focus({ preventScroll: true }); }, [Boolean(one)]);
  // What the filter found is in the log, as long as that is kept.
  useEffect(() => {
    if (of.found) Promise.all([get(`/api/v1/log/messages/${of.found.message}${all ? '' : '?of=own'}`), learn()]).then(([story]) => setFound(reasons(((story.events.find((event) => event.kind === 'judged') || {}).fields || {}).findings).filter((one) => one.score >= LEAST)), () => {});
  }, [of.found && of.found.message]);
  // The frame has no scripts; same origin only lets us measure it.
  const fit = () => {
    const inner = frame.current && frame.current.contentDocument;
    if (!inner || !inner.body) return;
    inner.documentElement.style.colorScheme = inner.body.dataset.kind === 'text' ? getComputedStyle(document.documentElement).colorScheme : 'light';
    frame.current.style.height = '0';
    frame.current.style.height = `${Math.min(inner.documentElement.scrollHeight + 2, HEIGHT_MAX)}px`;
  };
  const lists = !all || may(session, 'policy'), releases = !all || may(session, 'release');
  const line = (name, text) => text && html`<dt>${t(name)}</dt><dd>${text}</dd>`;
  return html`<aside class="story" aria-label=${t('message')} onKeyDown=${(event) => { if (event.key === 'Escape') { event.stopPropagation(); close(); } }}>
    <header><h2 ref=${title} tabindex="-1">${one ? one.subject || (one.subject === undefined ? t('hiddensubject') : t('nosubject')) : t('message')}</h2><${Tool} icon="close" label=${t('close')} onClick=${close} /></header><${Waiting} of=${of} />
    ${one && html`<dl class="lines">${line('from', one.author || one.from || t('nullsender'))}${one.author && one.from && !one.author.includes(one.from) && line('envelope', one.from)}${line('to', one.to)}${line('heldsince', exact(one.held))}${line('heldtillday', exact(one.expires))}${line('size', size(one.size))}</dl>
      <section class="banner caught" aria-label=${t('quarantinewhy')}><h3><${Icon} name="quarantine" />${t(`q-${one.reason}`)}</h3><p>${cause(one.detail)}</p><p>${t('scoreof', { score: points(one.score) })}</p>
        ${found.length > 0 && html`<ul>${found.map((reason) => html`<li><b>${reason.text}</b> <span class="soft">${reason.details.slice(0, 4).map(finding).join('; ')}${reason.details.length > 4 ? '…' : ''}</span> <span class="points">+${points(reason.score / 1000)}</span></li>`)}</ul>`}
        ${!one.mayRelease && html`<p>${t(`rb-${one.releasedBy}`)}</p>`}${one.asked && html`<p role="status"><b>${t('askedat', { time: exact(one.asked) })}</b></p>`}</section>
      <div class="bar">${one.mayRelease && html`<button type="button" class="main" onClick=${() => acts.release([id])}>${t('deliver')}</button>${lists && html`<button type="button" onClick=${() => acts.allow(one)}>${t('releaseallow')}</button>`}`}
        ${!all && !one.mayRelease && !one.asked && html`<button type="button" class="main" onClick=${() => acts.request([id]).then(of.load).then(() => title.current && title.current.focus())}>${t('askadmin')}</button>`}
        ${releases && html`<button type="button" onClick=${() => acts.remove([id])}>${t('delete')}</button>${lists && html`<button type="button" onClick=${() => acts.block(one)}>${t('deleteblock')}</button>`}`}
        ${!all && one.mayRelease && html`<a class="button" href=${`/api/v1/quarantine/messages/${id}/source`} download>${t('downloadmessage')}</a>`}
        <button type="button" class="link" onClick=${() => go(`/log/${one.message}`)}>${t('story')}</button></div>
      ${!one.mayView ? html`<p class="soft">${t('maynotview')}</p>` : isShown ? html`<iframe ref=${frame} title=${t('body')} sandbox="allow-same-origin" src=${`/api/v1/quarantine/messages/${id}/body`} onLoad=${fit}></iframe>` : html`<p class="soft">${t('viewrecorded')}</p><button type="button" onClick=${() => setIsShown(true)}>${t('showtext')}</button>`}`}</aside>`;
}
