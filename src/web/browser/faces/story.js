// The life story of one message: an answer in a sentence, then every step in words.
import { html, useEffect, useRef, useState } from '../lib/html.js';
import { get } from '../lib/api.js';
import { cause, finding, learn, reasons, reply, why } from '../lib/explain.js';
import { exact, points, size, time } from '../lib/format.js';
import { request, start } from '../lib/jmap.js';
import { t } from '../lib/i18n.js';
import { repeat } from '../lib/repeat.js';
import { Copy } from '../ui/copy.js';
import { Icon, Tool } from '../ui/icons.js';
import { word } from './graph.js';

const MARKS = { delivered: 'check', junk: 'junk', quarantined: 'quarantine', deferred: 'pause', refused: 'close' };
export const Outcome = ({ of }) => html`<span class="outcome ${of || 'pending'}"><${Icon} name=${MARKS[of] || 'more'} />${word(of)}</span>`;

const folder = (name) => { const key = name && { INBOX: 'inbox', Junk: 'junk', quarantine: 'quarantine' }[name]; return key ? t(key) : name || '–'; };

const EVERY = 15000;

/** What became of it for one recipient, in a sentence. */
function sentence(party, found) {
  const values = { address: party.address, folder: folder(party.mailbox), time: exact(found.at), took: found.tookMs > 50 ? t('seconds', { n: points(found.tookMs / 1000) }) : '' };
  return t(`out-${party.outcome || 'pending'}`, values);
}

/** `seq` is the newest change that the log was told of; without it the log is asked now and then. */
export function Story({ id, seq, session, go, close }) {
  const [found, setFound] = useState(null);
  const [error, setError] = useState('');
  const title = useRef(null);
  // What one answers for by a role does not hold one's own mail, which is asked for by itself.
  const read = () => get(`/api/v1/log/messages/${id}`).catch((failed) => { if (failed.kind !== 'not-found' || !session.roles.length) throw failed; return get(`/api/v1/log/messages/${id}?of=own`); });
  const load = () => { setError(''); Promise.all([read(), learn().catch(() => {})]).then(([one]) => setFound(one), (failed) => setError(failed.message)); };
  useEffect(() => { load(); return seq ? undefined : repeat(load, EVERY); }, [id, seq]);
  useEffect(() => { if (found && title.current && !title.current.dataset.told) { title.current.dataset.told = '1'; title.current.focus({ preventScroll: true }); } }, [found]);
  const key = (event) => { if (event.key === 'Escape') close(); };
  const isOwn = (address) => (address || '').toLowerCase() === session.address.toLowerCase();
  const own = found && (found.recipients || []).some((party) => isOwn(party.address) && party.mailbox && party.outcome !== 'quarantined');
  /** Where a message that is held for somebody can be seen. */
  const held = (party) => {
    if (!isOwn(party.address)) return session.sees.includes('quarantine') ? `/admin/quarantine?of=${encodeURIComponent(party.address)}` : '';
    const event = found.events.find((one) => one.party === party.address && one.fields && one.fields.held);
    return event ? `/filter/quarantine/${session.accountId.slice(1)}-${event.fields.held}` : '/filter/quarantine';
  };
  const toHeld = (party) => { const to = party.outcome === 'quarantined' && held(party); return to && html`<p><a href=${to} onClick=${(event) => { event.preventDefault(); go(to); }}>${t('inquarantine')}</a></p>`; };
  const open = async () => {
    try {
      await start();
      const [query, got] = await request([['Email/query', { filter: { header: ['Received', found.id] }, limit: 1 }], ['Email/get', { '#ids': { resultOf: '0', name: 'Email/query', path: '/ids' }, properties: ['mailboxIds'] }]]);
      if (!query.ids.length) throw new Error(t('gone'));
      go(`/mail/${Object.keys(got.list[0].mailboxIds)[0]}/${got.list[0].id}`);
    } catch (failed) { setError(failed.message); }
  };
  return html`<aside class="story" aria-label=${t('story')} onKeyDown=${key}><header><h2 ref=${title} tabindex="-1">${t('story')}</h2><${Tool} icon="close" label=${t('close')} onClick=${close} /></header>
    ${error && html`<p class="error" role="alert">${error} <button type="button" onClick=${load}>${t('retry')}</button></p>`}
    ${!found && !error && html`<p class="empty">${t('loading')}</p>`}
    ${found && html`<p class="about"><b>${found.subject || t('nosubject')}</b><br /><span class="soft">${found.from === '' ? t('nullsender') : found.from}${found.size ? ` · ${size(found.size)}` : ''} · ${exact(found.at)}</span></p>
      <ul class="verdicts">${(found.recipients || []).map((party) => html`<li><${Outcome} of=${party.outcome} /><p>${sentence(party, found)}</p>${party.outcome && party.outcome !== 'delivered' && (party.reason || found.reason) && html`<p class="soft">${why(party.reason || found.reason)}</p><p class="soft">${t(`next-${party.outcome}`)}</p>`}${toHeld(party)}</li>`)}</ul>
      <div class="bar">${own && html`<button type="button" class="main" onClick=${open}>${t('openit')}</button>`}<${Copy} label=${t('copylink')} text=${`${location.origin}/log/${found.id}`} /><${Copy} label=${t('copyanswer')} text=${(found.recipients || []).map((party) => sentence(party, found)).join('\n')} /></div>
      <ol class="steps">${found.events.map((event, at) => html`<${Step} key=${event.seq} event=${event} before=${found.events[at - 1]} />`)}</ol>
      <p class="soft">${t('number')} <code>${found.id}</code></p>`}</aside>`;
}

/** One step: when, what, and what it rests on. */
function Step({ event, before }) {
  const fields = event.fields || {};
  const values = { ...fields, party: event.party, points: points((fields.score || 0) / 1000), status: reply(fields.status), decided_by: cause(fields.decided_by), disposition: t(`d-${fields.disposition}`), verdict: t(`v-${fields.verdict}`), mailbox: folder(fields.mailbox), from: fields.from || t('nullsender'), client: fields.client || t('web') };
  const found = event.kind === 'judged' ? reasons(fields.findings) : [], good = (fields.findings || []).filter((one) => one.score < 0), all = (fields.findings || []).filter((one) => one.score !== 0);
  const most = Math.max(1, ...found.map((one) => one.score));
  const at = time(event.at);
  return html`<li class="k-${event.kind}"><time dateTime=${event.at}>${before && time(before.at) === at ? '' : at}</time><div><p>${t(fields.legacy && event.kind === 'delivered' ? 'k-handed-over' : fields.held && event.kind === 'delivered' ? 'k-held' : `k-${event.kind}`, values)}</p>
    ${(found.length > 0 || good.length > 0) && html`<ul class="reasons">${found.map((one) => html`<li><span>${one.text}</span><span class="barof" aria-hidden="true"><i style=${{ width: `${Math.round((one.score / most) * 100)}%` }}></i></span><span class="points">+${points(one.score / 1000)}</span></li>`)}
      ${good.length > 0 && html`<li><span>${t('infavour')}</span><span class="barof"></span><span class="points">${points(good.reduce((sum, one) => sum + one.score, 0) / 1000)}</span></li>`}</ul>
      <details><summary>${t('eachcheck')}</summary><ul class="checks">${all.map((one) => html`<li><span class="points">${points(one.score / 1000)}</span><span>${finding(one)} <code>${one.name}</code>${one.evidence && html`<br /><small class="soft">${one.evidence}</small>`}</span></li>`)}</ul></details>`}</div></li>`;
}
