// Senders that are let through, and those that are kept out.
import { html, useRef, useState } from '../lib/html.js';
import { call, get } from '../lib/api.js';
import { date } from '../lib/format.js';
import { t } from '../lib/i18n.js';
import { queryOf, useRows } from '../lib/load.js';
import { Icon, Tool } from '../ui/icons.js';
import { Waiting } from '../ui/waiting.js';

const PAGE = 100;
const WORDS = ['', 'allow', 'block'];
const SKIPS = ['spam', 'newsletter', 'auth', 'attachments'];
const USUAL = ['spam', 'newsletter'];

/** `of` names whose lists they are; nothing: the reader's own. */
export function Senders({ of, mayChange, note }) {
  const [word, setWord] = useState('');
  const [typed, setTyped] = useState('');
  const [search, setSearch] = useState('');
  const [error, setError] = useState('');
  const query = queryOf(of), title = useRef(null);
  const list = useRows(async (after) => {
    const { senders } = await get(`/api/v1/senders${queryOf({ ...of, word, search, after, limit: PAGE })}`);
    return { rows: senders, next: senders.length === PAGE ? senders[PAGE - 1].id : null };
  }, [query, word, search]);
  const put = (entry) => call('POST', `/api/v1/senders${query}`, entry).then((made) => { setError(''); list.load(); return made; });
  const remove = async (one) => {
    try {
      await call('DELETE', `/api/v1/senders/${one.id}${query}`);
      setError('');
      list.change((rows) => rows.filter((other) => other.id !== one.id));
      if (title.current) title.current.focus();
      const back = { word: one.word, who: one.who, note: one.note, ...(one.until ? { until: one.until } : {}), ...(one.word === 'allow' ? { unproven: one.unproven, skips: one.skips } : {}) };
      note.say(t(`unlisted-${one.word}`, { who: one.who }), () => put(back).catch((failed) => setError(failed.message)));
    } catch (failed) { setError(failed.message); }
  };
  const rows = list.rows || [];
  const row = (one) => html`<li key=${one.id}><span class="stand ${one.word}"><${Icon} name=${one.word === 'allow' ? 'check' : 'close'} />${t(`word-${one.word}`)}</span><div><b>${one.who}</b>${one.note && html` <span>${one.note}</span>`}
      <p class="soft">${[one.unproven && t('takesunproven'), one.word === 'allow' && t('skips', { list: one.skips.map((skip) => t(`skip-${skip}`)).join(', ') || t('none') }), one.until && t('until', { date: date(one.until) }), t('addedby', { who: one.by, date: date(one.added) }), one.hit ? t('lasthit', { date: date(one.hit) }) : t('neverhit')].filter(Boolean).join(' · ')}</p></div>
    ${mayChange && html`<${Tool} icon="trash" label=${t('deleteone', { name: one.who })} onClick=${() => remove(one)} />`}</li>`;
  return html`<h2 ref=${title} tabindex="-1">${t('senders')}</h2><p class="soft">${t('sendershint')}</p>
    ${mayChange && html`<${Add} put=${put} say=${note.say} />`}
    ${error && html`<p class="error" role="alert">${error}</p>`}
    <section class="card"><form class="bar" role="search" onSubmit=${(event) => { event.preventDefault(); setSearch(typed.trim()); }}>
      <label class="searchbox"><${Icon} name="search" /><input type="search" placeholder=${t('searchsenders')} aria-label=${t('searchsenders')} value=${typed} onInput=${(event) => { setTyped(event.target.value); if (!event.target.value) setSearch(''); }} /></label>
      <span class="segments" role="group" aria-label=${t('views')}>${WORDS.map((name) => html`<button type="button" aria-pressed=${word === name} onClick=${() => setWord(name)}>${t(name ? `word-${name}` : 'view-all')}</button>`)}</span></form>
      <${Waiting} of=${list} />${list.rows && !rows.length && html`<p class="empty">${t(word || search ? 'nomatch' : 'nosenders')}</p>`}
      <ul class="entries">${rows.map(row)}</ul>${list.next && html`<p class="empty"><button type="button" onClick=${list.further}>${t('more')}</button></p>`}</section>`;
}

function Add({ put, say }) {
  const blank = { word: 'allow', who: '', note: '', until: '', unproven: false, skips: USUAL };
  const [entry, setEntry] = useState(blank);
  const [error, setError] = useState('');
  const set = (fields) => setEntry({ ...entry, ...fields });
  const allows = entry.word === 'allow';
  const submit = (event) => {
    event.preventDefault();
    const { word, who, note, until, unproven, skips } = entry;
    put({ word, who: who.trim(), note: note.trim(), ...(until ? { until } : {}), ...(allows ? { unproven, skips } : {}) })
      .then(() => { setError(''); setEntry({ ...blank, word }); say(t(`listed-${word}`, { who: who.trim() })); }, (failed) => setError(/ is no address/.test(failed.message) ? t('badsender', { who: who.trim() }) : failed.message));
  };
  const tick = (label, checked, change) => html`<label class="tick"><input type="checkbox" checked=${checked} onChange=${(event) => change(event.target.checked)} /><span>${label}</span></label>`;
  return html`<form class="card adding" aria-label=${t('addsender')} onSubmit=${submit}><h3>${t('addsender')}</h3>
    <div class="segments" role="radiogroup" aria-label=${t('addsender')}>${['allow', 'block'].map((word) => html`<label class=${entry.word === word ? 'chosen' : ''}><input type="radio" name="word" value=${word} checked=${entry.word === word} onChange=${() => set({ word })} /><span>${t(`word-${word}`)}</span></label>`)}</div>
    <div class="bar"><label class="grow"><span>${t('sender')}</span><input name="who" required placeholder="anna@example.org, example.org, 192.0.2.0/24" autocapitalize="off" autocomplete="off" spellcheck="false" aria-describedby="who-hint" value=${entry.who} onInput=${(event) => set({ who: event.target.value })} /></label>
      <label><span>${t('untilfield')}</span><input type="date" name="until" value=${entry.until} onInput=${(event) => set({ until: event.target.value })} /></label>
      <label class="grow"><span>${t('notefield')}</span><input name="note" maxlength="200" value=${entry.note} onInput=${(event) => set({ note: event.target.value })} /></label></div>
    <p class="soft" id="who-hint">${t('whohint')} ${t(allows ? 'allowhint' : 'blockhint')}</p>
    ${allows && html`<details><summary>${t('moreoptions')}</summary>${tick(t('takesunproven'), entry.unproven, (unproven) => set({ unproven }))}${entry.unproven && html`<p class="banner"><${Icon} name="junk" /><span>${t('unprovenwarning')}</span></p>`}
      <fieldset><legend>${t('skipsfield')}</legend>${SKIPS.map((skip) => tick(t(`skip-${skip}`), entry.skips.includes(skip), (on) => set({ skips: SKIPS.filter((one) => (one === skip ? on : entry.skips.includes(one))) })))}</fieldset></details>`}
    ${error && html`<p class="error" role="alert">${error}</p>`}<div class="bar end"><button class="main">${t('add')}</button></div></form>`;
}
