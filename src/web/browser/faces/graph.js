// Recipients by outcome over time: bars that the server counted, never rows counted in the browser.
import { html, useEffect, useRef, useState } from '../lib/html.js';
import { get } from '../lib/api.js';
import { clock, date, exact } from '../lib/format.js';
import { t } from '../lib/i18n.js';
import { repeat } from '../lib/repeat.js';
import uPlot from '../vendor/uplot.js';

export const OUTCOMES = ['delivered', 'junk', 'quarantined', 'deferred', 'refused'];
export const word = (outcome) => (outcome === 'junk' ? t('o-junk') : t(outcome || 'pending'));
const EVERY = 10000;
const STEPS = [1, 2, 5, 10, 30, 60, 180, 360, 720, 1440];
const BARS = 80;

/** `counted` hears the sums of the range, `zoom` the part that the reader marked. */
export function Graph({ hours, from, to, counted, zoom }) {
  const [buckets, setBuckets] = useState([]);
  const [width, setWidth] = useState(0);
  const place = useRef(null);
  const start = () => (from ? Date.parse(from) : Date.now() - hours * 3600000), end = () => (to ? Date.parse(to) : Date.now() + 60000);
  const step = STEPS.find((minutes) => (end() - start()) / (minutes * 60000) <= BARS) || 1440;
  useEffect(() => {
    let stopped = false, shown = '';
    const load = () => {
      const first = start(), last = end();
      get(`/api/v1/log/histogram?from=${new Date(first).toISOString()}&to=${new Date(last).toISOString()}&step=${step}`).then((found) => {
        if (stopped) return;
        const size = step * 60000, all = new Map(found.buckets.map((one) => [Date.parse(one.at), one.counts])), filled = [], sums = {};
        for (let at = Math.floor(first / size) * size; at < last; at += size) {
          const counts = all.get(at) || {};
          for (const name of OUTCOMES) sums[name] = (sums[name] || 0) + (counts[name] || 0);
          filled.push({ at, counts });
        }
        // A graph is drawn anew only for other bars.
        const bars = JSON.stringify(filled);
        if (bars === shown) return;
        shown = bars;
        setBuckets(filled);
        counted(sums);
      }, () => {});
    };
    load();
    const stop = to ? () => {} : repeat(load, EVERY);
    return () => { stopped = true; stop(); };
  }, [hours, from, to]);
  useEffect(() => {
    const watcher = new ResizeObserver(() => place.current && setWidth(place.current.clientWidth));
    watcher.observe(place.current);
    return () => watcher.disconnect();
  }, []);
  useEffect(() => {
    if (!place.current || !buckets.length || !width) return undefined;
    // A canvas takes no variables: an element says what they come to.
    const style = getComputedStyle(place.current), probe = place.current.appendChild(document.createElement('i'));
    const colour = (name) => { probe.style.color = `var(--o-${name})`; return getComputedStyle(probe).color; };
    // Stacked: each series is drawn with those below it, the tallest first.
    let sums = buckets.map(() => 0);
    const layers = OUTCOMES.map((name) => { sums = sums.map((sum, at) => sum + (buckets[at].counts[name] || 0)); return { name, values: sums }; }).reverse();
    const bars = uPlot.paths.bars({ size: [0.8] });
    const axis = { stroke: style.getPropertyValue('color'), grid: { show: false }, ticks: { show: false }, font: '11px system-ui' };
    const wide = end() - start() > 25 * 3600000;
    const options = {
      width, height: 110, legend: { show: false }, cursor: { y: false, points: { show: false }, drag: { x: true, y: false, setScale: false } },
      scales: { y: { range: (_, low, high) => [0, Math.max(high, 1)] } },
      axes: [{ ...axis, size: 24, space: 90, values: (_, ticks) => ticks.map((at) => (wide ? date : clock)(at * 1000)) }, { ...axis, size: 34, space: 30, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 100000] }],
      series: [{}, ...layers.map((layer) => ({ label: layer.name, fill: colour(layer.name), stroke: colour(layer.name), width: 0, paths: bars, points: { show: false } }))],
      hooks: { setSelect: [(plot) => { if (plot.select.width > 8) zoom(new Date(plot.posToVal(plot.select.left, 'x') * 1000), new Date(plot.posToVal(plot.select.left + plot.select.width, 'x') * 1000)); }] },
    };
    const plot = new uPlot(options, [buckets.map((one) => one.at / 1000), ...layers.map((layer) => layer.values)], place.current);
    probe.remove();
    return () => plot.destroy();
  }, [buckets, width]);
  const used = buckets.filter((one) => OUTCOMES.some((name) => one.counts[name])).reverse();
  return html`<div class="graph" ref=${place} aria-hidden="true" title=${t('graphhint')}></div>
    <details class="figures"><summary>${t('table')}</summary>${used.length ? html`<div class="scroll" tabindex="0" role="region" aria-label=${t('table')}><table><thead><tr><th scope="col">${t('time')}</th>${OUTCOMES.map((name) => html`<th scope="col">${word(name)}</th>`)}<td></td></tr></thead>
    <tbody>${used.map((one) => html`<tr><td>${exact(one.at)}</td>${OUTCOMES.map((name) => html`<td>${one.counts[name] || 0}</td>`)}<td><button type="button" class="link" onClick=${() => zoom(new Date(one.at), new Date(one.at + step * 60000))}>${t('zoom')}</button></td></tr>`)}</tbody></table></div>` : html`<p class="soft">${t('emptylog')}</p>`}</details>`;
}
