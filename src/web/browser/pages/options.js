// A policy: each option with its value, where that comes from and who locked it. Changes are made together, and can be tried
// before. The same for a mailbox, a domain, a tenant and the system.
import { html, useEffect, useRef, useState } from '../lib/html.js';
import { call, get } from '../lib/api.js';
import { has, t } from '../lib/i18n.js';
import { useFound } from '../lib/load.js';
import { FIRST, FURTHER, SCORES, SCORE_GAP, called, countries, hour, term, unit, valueText, wordsOf } from '../lib/options.js';
import { ask } from '../ui/dialog.js';
import { Icon } from '../ui/icons.js';
import { Waiting } from '../ui/waiting.js';
import { Plans } from './plans.js';
import { Replay } from './replay.js';

const LEVELS = ['system', 'reseller', 'customer', 'domain', 'mailbox'];
const DAYS = 7;
/** What is not saved yet, by whose it is: it stays while one looks at another page. */
const drafts = new Map();
addEventListener('beforeunload', (event) => { if (drafts.size) event.preventDefault(); });

const settingOf = (state) => ({ value: null, locked: false, floor: null, ceiling: null, ...state.own });
const same = (one, other) => Object.keys(one).every((name) => one[name] === other[name]);

/** `query` names whose policy it is; nothing: the reader's own. */
export function Options({ query, mayChange, note, go }) {
  const own = !query;
  const of = useFound(async () => {
    const [policy, { options }] = await Promise.all([get(`/api/v1/policy${query}`), get('/api/v1/policy/options')]);
    return { policy, states: new Map(policy.options.map((one) => [one.option, one])), options: new Map(options.map((one) => [one.name, one])) };
  }, [query]);
  const [edits, setEdits] = useState(drafts.get(query) || {});
  const [why, setWhy] = useState('');
  const [fault, setFault] = useState(null);
  const [busy, setBusy] = useState(false);
  const [tried, setTried] = useState(null);
  const [planned, setPlanned] = useState(0);
  const title = useRef(null);
  useEffect(() => { if (fault && fault.field) { const place = document.getElementById(`o-${fault.field}`); if (place) place.focus(); } }, [fault]);
  const heading = t(own ? 'strictness' : 'policy');
  if (!of.found) return html`<h2>${heading}</h2><${Waiting} of=${of} />`;

  const { policy, states, options } = of.found;
  const keep = (next) => {
    if (Object.keys(next).length) drafts.set(query, next); else drafts.delete(query);
    setEdits(next);
    setFault(null);
  };
  const edited = (state) => edits[state.option] || settingOf(state);
  const change = (state, fields) => {
    const next = { ...edits, [state.option]: { ...edited(state), ...fields } };
    if (same(next[state.option], settingOf(state))) delete next[state.option];
    keep(next);
  };
  const list = Object.entries(edits).map(([option, edit]) => ({ option, ...edit }));
  /** What an option comes to with the edits, as far as that can be told here. */
  const shown = (name) => { const state = states.get(name); return edited(state).value === null ? state.value : edited(state).value; };

  const send = async (act) => {
    setBusy(true);
    setFault(null);
    try { await act(); } catch (failed) {
      if (failed.kind === 'changed') { await of.load(); setFault({ text: t('changedmeanwhile') }); } else setFault({ text: failed.field && options.has(failed.field) ? t('notaccepted', { name: called(failed.field), why: failed.message }) : failed.message, field: failed.field });
    }
    setBusy(false);
  };
  const done = (text) => { keep({}); setWhy(''); note.say(text); if (title.current) title.current.focus({ preventScroll: true }); };
  /** The browser says what is wrong with a number, in its own words. */
  const isValid = () => { const bad = document.querySelector('.option.edited input:invalid'); return !bad || bad.reportValidity(); };
  const save = () => isValid() && send(async () => {
    await call('PATCH', `/api/v1/policy${query}`, { edits: list, note: why }, { match: policy.version });
    done(t('optionssaved'));
    await of.load();
  });
  const replay = () => isValid() && send(async () => setTried(await call('POST', `/api/v1/policy/replay${query}`, { edits: list, days: DAYS })));
  const plan = async () => {
    if (!isValid()) return;
    const at = await ask({ title: t('planlater'), text: t('planhint'), field: t('time'), kind: 'datetime-local', ok: t('plan') });
    if (at) await send(async () => {
      await call('POST', `/api/v1/policy/plans${query}`, { edits: list, at: new Date(at).toISOString(), note: why });
      done(t('planmade'));
      setPlanned(planned + 1);
    });
  };

  const isShown = (name) => {
    if (!states.has(name) || !options.has(name)) return false;
    if (!own) return true;
    return (name !== 'subject-tag' || shown('when-tagged') === 'subject') && (name !== 'when-country' || wordsOf(shown('blocked-countries')).length > 0) && (name !== 'digest-hour' || shown('digest') !== 'off');
  };
  const row = (name) => {
    const state = states.get(name);
    return html`<${Option} key=${name} own=${own} level=${policy.level} state=${state} option=${options.get(name)} edit=${edited(state)} isEdited=${Boolean(edits[name])} wrong=${fault && fault.field === name}
      change=${mayChange && state.settable ? (fields) => change(state, fields) : null} />`;
  };
  const group = ([name, names]) => { const seen = names.filter(isShown); return seen.length > 0 && html`<section class="card options" aria-label=${t(`og-${name}`)} key=${name}><h3>${t(`og-${name}`)}</h3>${seen.map(row)}
    ${name === 'level' && edits.preset && html`<p class="banner"><${Icon} name="help" /><span>${t('presetfollows')}</span></p>`}
    ${name === 'spam' && !rises(SCORES.map(shown)) && html`<p class="banner"><${Icon} name="junk" /><span>${t('mustrise')}</span></p>`}</section>`; };
  const further = FURTHER.map(group);
  return html`<h2 ref=${title} tabindex="-1">${heading}</h2><p class="soft">${t(own ? 'strictnesshint' : 'policyhint', { name: policy.level === 'system' ? t('wholesystem') : policy.name })}</p>
    ${of.error && html`<${Waiting} of=${of} />`}
    ${FIRST.map(group)}
    ${own ? html`<details class="further"><summary>${t('moreoptions')}</summary>${further}</details>` : further}
    ${!own && html`<${Plans} key=${planned} query=${query} options=${options} mayChange=${mayChange} />`}
    ${list.length > 0 && html`<section class="savebar" aria-label=${t('unsavedchanges')}><p role="status"><b>${t('unsavedcount', { count: list.length })}</b></p>
      ${fault && html`<p class="error" role="alert">${fault.text}</p>`}
      ${!own && html`<label class="field"><span>${t('notefield')}</span><input type="text" maxlength="500" value=${why} onInput=${(event) => setWhy(event.target.value)} /></label>`}
      <div class="bar"><button type="button" class="main" disabled=${busy} onClick=${save}>${t('save')}</button><button type="button" disabled=${busy} onClick=${replay}>${t('tryit', { days: DAYS })}</button>
        ${!own && html`<button type="button" disabled=${busy} onClick=${plan}>${t('planlater')}</button>`}<span class="space"></span><button type="button" disabled=${busy} onClick=${() => keep({})}>${t('discard')}</button></div></section>`}
    ${tried && html`<${Replay} found=${tried} go=${go} close=${() => setTried(null)} />`}`;
}

const rises = (scores) => scores.every((score, at) => at === 0 || Number(score) >= Number(scores[at - 1]) + SCORE_GAP);

/** Where a value comes from, in words. */
function origin({ origin: { level, name, preset, own: here } }, own) {
  const words = preset ? term(`preset=${preset}`) : '';
  if (!level) return t('fo-default');
  if (here) return preset ? t('fo-preset', { name: words }) : t(own ? 'fo-yours' : 'fo-here');
  const place = t(own && has(`fo-own-${level}`) ? `fo-own-${level}` : `fo-${level}`, { name });
  return preset ? `${place} (${words})` : place;
}

/** One option. Without `change` it is only shown. */
function Option({ own, level, state, option, edit, isEdited, wrong, change }) {
  const id = `o-${option.name}`, was = settingOf(state);
  const isPreset = option.name === 'preset', isLong = isPreset || option.kind.words;
  // Levels below may be limited where they can set it themselves.
  const hasLower = change && LEVELS.indexOf(option.lowestLevel) > LEVELS.indexOf(level);
  // A mailbox can only add to what others do not want: theirs stay ticked.
  const adds = level === 'mailbox' && option.name === 'blocked-attachments';
  const given = adds ? wordsOf(state.value).filter((word) => !wordsOf(was.value).includes(word)) : [];
  // What a level above demands; one's own demands may be changed with the value.
  const [floor, ceiling] = [was.floor ? null : state.floor, was.ceiling ? null : state.ceiling];
  const isInherited = edit.value === null && was.value !== null;
  const value = edit.value === null && !adds ? state.value : edit.value;
  const hint = adds ? t('onlyadds') : term(`${option.name}?`), limits = [state.floor && t('atleast', { value: valueText(option, state.floor) }), state.ceiling && t('atmost', { value: valueText(option, state.ceiling) })].filter(Boolean).join(', ');
  const control = () => {
    if (!change) return html`<output id=${id} tabindex="-1">${valueText(option, state.value)}</output>`;
    if (isInherited) return html`<span class="soft">${t('willinherit')}</span>`;
    return isPreset ? html`<${Presets} id=${id} option=${option} value=${value} change=${(chosen) => change({ value: chosen })} />`
      : html`<${Control} id=${id} option=${option} value=${value} given=${given} floor=${floor} ceiling=${ceiling} wrong=${wrong} hint=${hint ? `${id}-hint` : undefined} change=${(chosen) => change({ value: chosen === null && !adds ? 'none' : chosen })} />`;
  };
  const heading = isLong || !change || isInherited ? html`<b class=${isPreset ? 'hidden' : ''} id=${`${id}-name`}>${called(option.name)}</b>` : html`<label id=${`${id}-name`} for=${id}>${called(option.name)}</label>`;
  return html`<div class="option ${isLong ? 'long' : ''} ${isEdited ? 'edited' : ''}"><div class="about">${heading}${hint && html`<p class="soft" id=${`${id}-hint`}>${hint}</p>`}</div>
    <div class="control">${control()}</div>
    <p class="meta">${isEdited && html`<span class="tag">${t('unsaved')}</span>`}<span class="from">${origin(state, own)}</span>
      ${state.lockedBy && html`<span class="locked"><${Icon} name="lock" />${t('lockedby', { who: t(`by-${state.lockedBy}`) })}</span>`}
      ${limits && html`<span>${limits}</span>`}${state.limited && html`<span>${t('waslimited')}</span>`}
      ${change && edit.value !== null && was.value !== null && html`<button type="button" class="link" onClick=${() => change({ value: null })}>${t('asinherited')}<span class="hidden"> (${called(option.name)})</span></button>`}
      ${change && isInherited && html`<button type="button" class="link" onClick=${() => change({ value: was.value })}>${t('undo')}<span class="hidden"> (${called(option.name)})</span></button>`}</p>
    ${hasLower && html`<${Lower} id=${id} option=${option} edit=${edit} change=${change} />`}</div>`;
}

/** What levels below may make of an option. */
function Lower({ id, option, edit, change }) {
  const set = edit.locked || edit.floor || edit.ceiling;
  const bound = (name, label) => html`<div class="bound"><span id=${`${id}-${name}-name`} class="soft">${label}</span><${Control} id=${`${id}-${name}`} option=${option} value=${edit[name]} optional change=${(chosen) => change({ [name]: chosen === '' ? null : chosen })} /></div>`;
  return html`<details class="lower" open=${Boolean(set)}><summary>${t('forlower')}<span class="hidden"> (${called(option.name)})</span></summary>
    <label class="tick"><input type="checkbox" checked=${edit.locked} onChange=${(event) => change({ locked: event.target.checked })} /><span>${t('lockit')}</span></label>
    ${option.limits && html`<div class="bounds">${bound('floor', t('floor'))}${bound('ceiling', t('ceiling'))}</div>`}</details>`;
}

const Presets = ({ id, option, value, change }) => html`<div class="presets" role="radiogroup" aria-labelledby=${`${id}-name`}>${option.kind.choice.map((word) => html`<label class=${word === value ? 'chosen' : ''}><input type="radio" name=${id} id=${word === value ? id : undefined} value=${word} checked=${word === value} onChange=${() => change(word)} />
  <span><b>${term(`preset=${word}`)}</b><small class="soft">${term(`preset=${word}?`)}</small></span></label>`)}</div>`;

/** What a value is chosen by. `change` hears the value as text; null stands for no word of several. `optional`: it may be empty. */
function Control({ id, option: { name, kind }, value, given = [], floor, ceiling, optional, wrong, hint, change }) {
  const common = { id, 'aria-describedby': hint, 'aria-invalid': wrong ? 'true' : undefined, 'aria-labelledby': `${id}-name` };
  if (kind.words) {
    const chosen = wordsOf(value);
    const toggle = (word, on) => { const next = kind.words.filter((one) => (one === word ? on : chosen.includes(one))); change(next.length ? next.join(', ') : null); };
    return html`<div class="words" role="group" tabindex="-1" ...${common}>${kind.words.map((word) => html`<label class="tick"><input type="checkbox" checked=${chosen.includes(word) || given.includes(word)} disabled=${given.includes(word)} onChange=${(event) => toggle(word, event.target.checked)} /><span>${term(`${name}=${word}`)}</span></label>`)}</div>`;
  }
  const choices = kind.choice ? kind.choice.map((word) => [word, term(`${name}=${word}`) || word]) : name === 'digest-hour' ? Array.from({ length: 24 }, (_, at) => [String(at), hour(at)]) : null;
  const rank = (word, otherwise) => { const place = (choices || []).findIndex(([one]) => one === word); return place < 0 ? otherwise : place; };
  const least = rank(floor, 0), most = rank(ceiling, Infinity);
  if (choices) return html`<select ...${common} value=${value || ''} onChange=${(event) => change(event.target.value)}>${optional && html`<option value="" selected=${!value}>–</option>`}${choices.map(([word, text], place) => html`<option value=${word} selected=${word === value} disabled=${place < least || place > most}>${text}</option>`)}</select>`;
  if (kind.text) return html`<input type="text" ...${common} maxlength=${kind.text} autocomplete="off" spellcheck="false" value=${value || ''} onInput=${(event) => change(event.target.value)} />${name === 'blocked-countries' && value && html`<small class="soft">${countries(value)}</small>`}`;
  const [lowest, highest] = kind.score || kind.number, min = floor ? Number(floor) : lowest, max = ceiling ? Number(ceiling) : highest;
  return html`<span class="amount"><input type="number" ...${common} min=${min} max=${max} step=${kind.score ? SCORE_GAP : 1} value=${value === null ? '' : Number(value)} onInput=${(event) => (event.target.value || optional) && change(event.target.value)}
    onBlur=${(event) => { if (!event.target.value && !optional) event.target.value = Number(value); }} /><span>${kind.score ? unit('points') : unit(kind.unit)}</span></span>`;
}
