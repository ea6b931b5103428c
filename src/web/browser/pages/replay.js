// What a change would have made of the mail of the last days.
import { html } from '../lib/html.js';
import { cause } from '../lib/explain.js';
import { count, date, exact, points } from '../lib/format.js';
import { t } from '../lib/i18n.js';
import { Dialog } from '../ui/dialog.js';

/** Points of one bar. */
const WIDTH = 0.5;

export function Replay({ found, go, close }) {
  const differs = found.counts.filter((one) => one.was !== one.would).sort((a, b) => b.count - a.count);
  const sum = (list) => list.reduce((all, one) => all + one.count, 0);
  const open = (event, id) => { event.preventDefault(); close(); go(`/log/${id}`); };
  return html`<${Dialog} title=${t('replay')} wide close=${close}><p>${t('replayed', { count: count(found.messages), days: found.days })} <b>${differs.length ? t('woulddiffer', { count: sum(differs) }) : t('wouldnotdiffer')}</b></p>
    ${found.unknown > 0 && html`<p class="soft">${t('replayunknown', { count: found.unknown })}</p>`}${!found.complete && html`<p class="soft">${t('replaypart')}</p>`}
    ${found.scores.length > 0 && html`<${Scores} scores=${found.scores} />`}
    ${differs.length > 0 && html`<div class="scroll" tabindex="0" role="region" aria-label=${t('replay')}><table><thead><tr><th scope="col">${t('was')}</th><th scope="col">${t('would')}</th><th scope="col" class="number">${t('messages')}</th></tr></thead>
      <tbody>${differs.map((one) => html`<tr><td>${t(`d-${one.was}`)}</td><td><b>${t(`d-${one.would}`)}</b></td><td class="number">${count(one.count)}</td></tr>`)}</tbody></table></div>
    <h3>${t('examples')}</h3><ul class="examples">${found.changes.map((one) => html`<li key=${`${one.id}${one.to}`}><a href=${`/log/${one.id}`} onClick=${(event) => open(event, one.id)}>${one.subject || t('nosubject')}</a>
      <span class="soft">${one.from || t('nullsender')} · <time dateTime=${one.at} title=${exact(one.at)}>${date(one.at)}</time></span>
      <span>${t(`d-${one.was}`)} → <b>${t(`d-${one.would}`)}</b> <span class="soft">${cause(one.because)}</span>${one.released && html` <span class="tag">${t('wasreleased')}</span>`}</span></li>`)}</ul>`}
    <div class="bar end"><button type="button" onClick=${close}>${t('close')}</button></div></${Dialog}>`;
}

/** How many messages had how many points, in bars: those that would be delivered below those that would not. */
function Scores({ scores }) {
  const known = new Map(scores.map((one) => [one.from, one])), first = scores[0].from, last = scores[scores.length - 1].from;
  const bars = Array.from({ length: (last - first) / WIDTH + 1 }, (_, at) => known.get(first + at * WIDTH) || { from: first + at * WIDTH, delivered: 0, held: 0 });
  const most = Math.max(...scores.map((one) => one.delivered + one.held)), named = bars.length > 24 ? 5 : 1;
  const height = (number) => ({ height: `${(number / most) * 100}%` });
  return html`<figure class="scores"><div aria-hidden="true">${bars.map((one) => html`<span title=${`${points(one.from)}: ${count(one.delivered)} + ${count(one.held)}`}><i class="held" style=${height(one.held)}></i><i style=${height(one.delivered)}></i><small>${one.from % named === 0 ? count(one.from) : ''}</small></span>`)}</div>
    <figcaption class="soft"><i class="key"></i>${t('wouldarrive')} <i class="key held"></i>${t('wouldnotarrive')}</figcaption></figure>`;
}
