// The live log: what happened to every message that the viewer may see.
import { html, useEffect, useRef, useState } from '../lib/html.js';
import { get } from '../lib/api.js';
import { clock, date, exact, points, size, time } from '../lib/format.js';
import { t } from '../lib/i18n.js';
import uPlot from '../vendor/uplot.js';

const OUTCOMES = ['delivered', 'junk', 'quarantined', 'deferred', 'refused'];
const MARKS = { delivered: '✓', junk: '▽', quarantined: '◇', deferred: '…', refused: '✕' };
const COLOURS = { delivered: '#2e8b57', junk: '#c98a1b', quarantined: '#8a6fc9', deferred: '#6b8299', refused: '#c0392b' };
const KEPT = 500;
const word = (outcome) => (outcome === 'junk' ? t('o-junk') : t(outcome || 'pending'));
const Outcome = ({ of }) => html`<span class="outcome ${of || ''}">${MARKS[of] || '·'} ${word(of)}</span>`;

export function Log({ path, go }) {
  const [rows, setRows] = useState(null);
  const [waiting, setWaiting] = useState([]);
  const [query, setQuery] = useState('');
  const [outcome, setOutcome] = useState('');
  const [more, setMore] = useState(false);
  const [error, setError] = useState('');
  const [online, setOnline] = useState(true);
  const open = path.split('/')[2];
  const still = useRef(false);
  still.current = Boolean(open) || Boolean(query) || Boolean(outcome);
  const text = [query, outcome && `outcome:${outcome}`].filter(Boolean).join(' ');
  const merge = (known, fresh) => [...fresh, ...known.filter((row) => !fresh.some((one) => one.id === row.id))].sort((a, b) => (a.at < b.at ? 1 : -1)).slice(0, KEPT);

  const load = (before) => get(`/api/v1/log/messages?limit=100&q=${encodeURIComponent(text)}${before ? `&before=${encodeURIComponent(before)}` : ''}`)
    .then((found) => { setRows((known) => (before ? [...known, ...found.messages] : found.messages)); setMore(found.hasMore); setError(''); }, (failed) => setError(failed.message));
  useEffect(() => { setWaiting([]); load(); }, [text]);
  useEffect(() => {
    const source = new EventSource('/api/v1/log/stream');
    let fresh = [], timer = 0;
    source.addEventListener('message', (event) => {
      fresh.unshift(JSON.parse(event.data));
      // Painted a few times a second, however many arrive; rows stand still while somebody reads.
      timer = timer || setTimeout(() => {
        const batch = fresh; fresh = []; timer = 0;
        if (still.current) setWaiting((known) => merge(known, batch)); else setRows((known) => merge(known || [], batch));
      }, 250);
    });
    source.onopen = () => setOnline(true);
    source.onerror = () => setOnline(false);
    return () => { source.close(); clearTimeout(timer); };
  }, []);
  const show = () => { setQuery(''); setOutcome(''); setRows((known) => merge(known || [], waiting)); setWaiting([]); };
  const row = (one) => html`<tr key=${one.id} tabindex="0" onClick=${() => go(`/log/${one.id}`)} onKeyDown=${(event) => event.key === 'Enter' && go(`/log/${one.id}`)}>
    <td><time dateTime=${one.at} title=${exact(one.at)}>${date(one.at)}</time></td><td><${Outcome} of=${one.outcome} /></td><td>${one.from === '' ? '<>' : one.from}</td>
    <td>${(one.recipients || one.to || []).map((party) => party.address).join(', ')}</td><td>${one.subject}</td><td>${one.score === null || one.score === undefined ? '' : points(one.score)}</td><td>${one.size ? size(one.size) : ''}</td></tr>`;
  return html`<main id="content" class="log">
    <h2>${t('log')} <small role="status">${online ? t('live') : t('offline')}</small></h2>
    <${Graph} />
    <div class="bar card"><input type="search" placeholder=${t('query')} aria-label=${t('query')} value=${query} onChange=${(event) => setQuery(event.target.value)} />
      <button aria-pressed=${!outcome} onClick=${() => setOutcome('')}>${t('all')}</button>
      ${OUTCOMES.map((name) => html`<button aria-pressed=${outcome === name} onClick=${() => setOutcome(outcome === name ? '' : name)}><${Outcome} of=${name} /></button>`)}</div>
    ${error && html`<p class="error" role="alert">${error}</p>`}
    ${open && html`<${Story} id=${open} close=${() => go('/log')} />`}
    <div class="card">${waiting.length > 0 && html`<button class="pill main" onClick=${show}>${t('newrows', { count: waiting.length })}</button>`}
      <table><thead><tr>${['time', 'outcome', 'from', 'to', 'subject', 'score', 'size'].map((name) => html`<th scope="col">${t(name)}</th>`)}</tr></thead><tbody>${(rows || []).map(row)}</tbody></table>
      ${rows === null ? html`<p class="empty">${t('loading')}</p>` : rows.length === 0 && html`<p class="empty">${t('empty')}</p>`}
      ${more && html`<button onClick=${() => load(rows[rows.length - 1].at)}>${t('more')}</button>`}</div>
  </main>`;
}

function Graph() {
  const [hours, setHours] = useState(6);
  const [buckets, setBuckets] = useState([]);
  const place = useRef(null);
  useEffect(() => {
    let stopped = false;
    const step = hours <= 1 ? 1 : hours <= 24 ? 10 : 60;
    const load = () => {
      const to = new Date(Date.now() + 60000), from = new Date(Date.now() - hours * 3600000);
      get(`/api/v1/log/histogram?from=${from.toISOString()}&to=${to.toISOString()}&step=${step}`).then((found) => {
        if (stopped) return;
        const width = step * 60000, all = new Map(found.buckets.map((one) => [Date.parse(one.at), one.counts])), filled = [];
        for (let at = Math.floor(from / width) * width; at < to; at += width) filled.push({ at, counts: all.get(at) || {} });
        setBuckets(filled);
      }, () => {});
    };
    load();
    const timer = setInterval(load, 10000);
    return () => { stopped = true; clearInterval(timer); };
  }, [hours]);
  useEffect(() => {
    if (!place.current || !buckets.length) return undefined;
    // Stacked: each series is drawn with those below it, the tallest first.
    let sums = buckets.map(() => 0);
    const layers = OUTCOMES.map((name) => { sums = sums.map((sum, at) => sum + (buckets[at].counts[name] || 0)); return { name, values: sums }; }).reverse();
    const bars = uPlot.paths.bars({ size: [0.9] });
    const soft = getComputedStyle(document.documentElement).getPropertyValue('--soft');
    const axis = { stroke: soft, grid: { show: false } };
    const options = {
      width: place.current.clientWidth || 600, height: 150, legend: { show: false }, cursor: { show: false }, scales: { y: { range: (_, low, high) => [0, Math.max(high, 1)] } }, axes: [{ ...axis, space: 90, values: (_, ticks) => ticks.map((at) => (hours > 24 ? date : clock)(at * 1000)) }, { ...axis, size: 40 }],
      series: [{}, ...layers.map((layer) => ({ label: layer.name, fill: COLOURS[layer.name], stroke: COLOURS[layer.name], width: 0, paths: bars, points: { show: false } }))],
    };
    const plot = new uPlot(options, [buckets.map((one) => one.at / 1000), ...layers.map((layer) => layer.values)], place.current);
    return () => plot.destroy();
  }, [buckets]);
  const used = buckets.filter((one) => OUTCOMES.some((name) => one.counts[name]));
  return html`<div class="card"><div class="bar">${[1, 6, 24, 168].map((n) => html`<button aria-pressed=${hours === n} onClick=${() => setHours(n)}>${n < 100 ? `${n} h` : `${n / 24} d`}</button>`)}</div>
    <div ref=${place} aria-hidden="true"></div><details><summary>${t('table')}</summary><table><thead><tr><th scope="col">${t('time')}</th>${OUTCOMES.map((name) => html`<th scope="col">${word(name)}</th>`)}</tr></thead>
    <tbody>${used.map((one) => html`<tr><td>${exact(one.at)}</td>${OUTCOMES.map((name) => html`<td>${one.counts[name] || 0}</td>`)}</tr>`)}</tbody></table></details></div>`;
}

function Story({ id, close }) {
  const [found, setFound] = useState(null);
  const [error, setError] = useState('');
  useEffect(() => { setFound(null); get(`/api/v1/log/messages/${id}`).then(setFound, (failed) => setError(failed.message)); }, [id]);
  const line = (event) => {
    const fields = { ...event.fields, party: event.party, points: points((event.fields.score || 0) / 1000) };
    const findings = (event.fields.findings || []).filter((one) => one.score !== 0);
    return html`<li><time>${time(event.at)}</time>${t(`k-${event.kind}`, fields)}
      ${findings.length > 0 && html`<ul>${findings.map((one) => html`<li>${points(one.score / 1000)} ${one.description || one.name}</li>`)}</ul>`}</li>`;
  };
  return html`<section class="card story" aria-label=${t('story')}><div class="bar"><h2>${t('story')}</h2><button onClick=${close}>${t('close')}</button></div>
    ${error && html`<p class="error" role="alert">${error}</p>`}
    ${found && html`<p><b>${found.subject || t('nosubject')}</b> <${Outcome} of=${found.outcome} /> ${found.reason || ''}</p><ol>${found.events.map(line)}</ol><p><code>${found.id}</code></p>`}</section>`;
}
