// One message: who it is from and whether that is proven, its text in a frame of its own, its files, its conversation.
import { html, useEffect, useRef, useState } from '../lib/html.js';
import { get } from '../lib/api.js';
import { cause, finding, learn, reasons } from '../lib/explain.js';
import { date, exact, long, people, person, points, size } from '../lib/format.js';
import { download, reference, request } from '../lib/jmap.js';
import { t } from '../lib/i18n.js';
import { Dialog } from '../ui/dialog.js';
import { Icon, Tool } from '../ui/icons.js';
import { MoveTo, isJunk, label } from './folders.js';
import { LISTED } from './list.js';
import { quoteOf, subjectWith } from './quote.js';

const READ = [...LISTED, 'cc', 'bcc', 'replyTo', 'sentAt', 'messageId', 'inReplyTo', 'references', 'attachments', 'textBody'];
const IMAGES = ['image/png', 'image/jpeg', 'image/gif', 'image/webp', 'image/bmp'];
const PREVIEW_MAX = 2_000_000;
const HEIGHT_MAX = 20000;
const QUOTED_MAX = 200_000;

export function Reader({ id, session, mailboxes, current, actions, compose, back, go, handle, say }) {
  const [email, setEmail] = useState(null);
  const [about, setAbout] = useState(null);
  const [error, setError] = useState('');
  const [remote, setRemote] = useState(false);
  const [blocked, setBlocked] = useState(0);
  const [source, setSource] = useState(null);
  const [shown, setShown] = useState(null);
  const [details, setDetails] = useState(false);
  const frame = useRef(null), title = useRef(null);
  const load = () => {
    setError('');
    request([['Email/get', { ids: [id], properties: READ }]]).then(([found]) => {
      if (!found.list.length) { setError(t('gone')); return; }
      setEmail(found.list[0]);
      if (!found.list[0].keywords.$seen) actions.keyword([id], '$seen', true);
    }, (failed) => setError(failed.message));
    Promise.all([get(`/api/v1/message/${id}/about`), learn().catch(() => {})]).then(([found]) => setAbout(found), () => setAbout({ proof: { state: 'unknown' } }));
  };
  useEffect(() => { load(); }, [id]);
  useEffect(() => { if (email && title.current) title.current.focus({ preventScroll: true }); }, [email && email.id]);

  const own = (one) => one.email.toLowerCase() === session.address.toLowerCase();
  /** What an answer quotes: asked for by those who answer alone. */
  const text = async () => {
    const part = email.textBody[0];
    if (part && part.type === 'text/plain') {
      const [found] = await request([['Email/get', { ids: [id], properties: ['textBody', 'bodyValues'], fetchTextBodyValues: true, maxBodyValueBytes: QUOTED_MAX }]]);
      if (!found.list.length) throw new Error(t('gone'));
      return found.list[0].textBody.map((one) => (found.list[0].bodyValues[one.partId] || {}).value || '').join('\n');
    }
    // HTML alone: what the cleaned page shows as text.
    const inner = frame.current && frame.current.contentDocument;
    return inner && inner.body ? inner.body.innerText : email.preview || '';
  };
  const writing = (make) => text().then((words) => compose(make(words)), (failed) => say(failed.message));
  const reply = (all) => {
    const mine = email.from && email.from.some(own), sender = mine ? email.to || [] : email.replyTo || email.from || [];
    const rest = all ? [...(mine ? [] : email.to || []), ...(email.cc || [])].filter((one) => !own(one) && !sender.some((other) => other.email.toLowerCase() === one.email.toLowerCase())) : [];
    writing((words) => ({ to: sender, cc: rest, subject: subjectWith('Re:', email.subject), text: quoteOf(email, words), inReplyTo: email.messageId, references: [...(email.references || email.inReplyTo || []), ...(email.messageId || [])], answers: { id, keyword: '$answered' } }));
  };
  // Pictures among the text belong to it for the reader, but are files all the same.
  const parts = email ? [...email.attachments, ...email.textBody.filter((part) => !part.type.startsWith('text/'))] : [];
  const forward = (whole) => {
    const draft = { subject: subjectWith('Fwd:', email.subject), answers: { id, keyword: '$forwarded' } };
    if (whole) compose({ ...draft, text: '', attachments: [{ blobId: email.blobId, name: `${(email.subject || t('message')).replace(/[\\/:*?"<>|]/g, '_').slice(0, 80)}.eml`, type: 'message/rfc822', size: email.size }] });
    else writing((words) => ({ ...draft, text: quoteOf(email, words, true), attachments: parts.map(({ blobId, name, type, size: octets }) => ({ blobId, name, type, size: octets })) }));
  };
  useEffect(() => { handle.current = email ? { reply, forward: () => forward(false) } : {}; return () => { handle.current = {}; }; });

  if (error) return html`<div class="empty"><p class="error" role="alert">${error}</p><button onClick=${load}>${t('retry')}</button> <button onClick=${back}>${t('back')}</button></div>`;
  if (!email) return html`<div class="bar tools phone"><${Tool} icon="back" label=${t('back')} onClick=${back} /></div><p class="empty">${t('loading')}</p>`;

  // The frame has no scripts; same origin only lets us measure it.
  const fit = () => {
    const inner = frame.current && frame.current.contentDocument;
    if (!inner || !inner.body) return;
    setBlocked(Number(inner.body.dataset.blocked) || 0);
    const measure = () => { if (frame.current && inner.documentElement) frame.current.style.height = `${Math.min(inner.documentElement.scrollHeight + 2, HEIGHT_MAX)}px`; };
    // Plain text follows the colours that the reader chose; what others designed stays on white.
    inner.documentElement.style.colorScheme = inner.body.dataset.kind === 'text' ? getComputedStyle(document.documentElement).colorScheme : 'light';
    frame.current.style.height = '0';
    measure();
    for (const image of inner.images) image.addEventListener('load', measure, { once: true });
  };
  const showSource = () => { setSource(''); fetch(download(email.blobId, 'message.eml', 'text/plain')).then((found) => found.text()).then((all) => setSource(all.slice(0, PREVIEW_MAX)), (failed) => setSource(failed.message)); };
  const preview = (part) => {
    if (IMAGES.includes(part.type)) setShown({ part, image: `/api/v1/message/${id}/inline/${part.blobId}` });
    else fetch(download(part.blobId, part.name, 'text/plain')).then((found) => found.text()).then((all) => setShown({ part, text: all.slice(0, PREVIEW_MAX) }), (failed) => setError(failed.message));
  };
  const canPreview = (part) => part.size <= 20 * PREVIEW_MAX && (IMAGES.includes(part.type) || (part.size <= PREVIEW_MAX && (part.type.startsWith('text/') || ['application/json', 'application/xml', 'message/rfc822'].includes(part.type))));
  const flagged = email.keywords.$flagged, caught = isJunk(current);
  const flag = () => { actions.keyword([id], '$flagged', !flagged); const keywords = { ...email.keywords }; if (flagged) delete keywords.$flagged; else keywords.$flagged = true; setEmail({ ...email, keywords }); };
  const story = about && about.log ? `/log/${about.log}` : current && current.role === 'sent' ? `/log?q=${encodeURIComponent(`from:${session.address} subject:"${(email.subject || '').replace(/"/g, '')}"`)}` : null;
  const line = (name, list) => list && list.length > 0 && html`<dt>${t(name)}</dt><dd>${people(list)}</dd>`;
  const sender = (email.from || [])[0];
  const files = parts.filter((part) => !(part.cid && part.disposition !== 'attachment' && part.type.startsWith('image/')) || !part.cid);
  return html`<article>
    <div class="bar tools" role="toolbar" aria-label=${t('actions')}><span class="phone"><${Tool} icon="back" label=${t('back')} keys="u" onClick=${back} /></span>
      <${Tool} icon="reply" label=${t('reply')} keys="r" words onClick=${() => reply(false)} /><span class="desk"><${Tool} icon="replyall" label=${t('replyall')} keys="a" onClick=${() => reply(true)} /><${Tool} icon="forward" label=${t('forward')} keys="f" onClick=${() => forward(false)} /></span>
      <span class="space"></span>
      <${Tool} icon="archive" label=${t('toarchive')} keys="e" onClick=${() => actions.archive([id])} /><${Tool} icon=${caught ? 'notjunk' : 'junk'} label=${caught ? t('notjunk') : t('tojunk')} keys="!" onClick=${() => actions.junk([id])} />
      <${Tool} icon="trash" label=${t('delete')} keys="#" onClick=${() => actions.remove([id])} /><${Tool} icon="flag" label=${flagged ? t('unflag') : t('flag')} filled=${Boolean(flagged)} keys="s" onClick=${flag} />
      <${Tool} icon="unread" label=${t('unread')} keys="m" onClick=${() => { actions.keyword([id], '$seen', false); back(); }} /><${MoveTo} mailboxes=${mailboxes} current=${current} move=${(target) => actions.move([id], target)} />
      <${More} items=${[['forward', t('forwardfile'), () => forward(true)], ['source', t('original'), showSource], ['download', t('downloadmessage'), () => { location.href = download(email.blobId, `${id}.eml`, 'message/rfc822'); }], ['print', t('print'), () => print()], ...(story ? [['log', t('story'), () => go(story)]] : [])]} /></div>
    <header class="head"><h2 ref=${title} tabindex="-1">${email.subject || t('nosubject')}</h2>
      <div class="sender"><span class="avatar" aria-hidden="true">${(person(sender) || '?').trim().slice(0, 1).toUpperCase()}</span>
        <div class="names"><b>${person(sender) || t('nosender')}</b>${sender && sender.name && html` <span class="soft">${sender.email}</span>`} <${Proof} about=${about} />
          <div class="soft short">${t('to')} ${(email.to || []).map((one) => (own(one) ? t('me') : person(one))).join(', ') || '–'}${(email.cc || []).length > 0 && html`, ${t('cc')} ${email.cc.map(person).join(', ')}`}
            <button type="button" class="link" aria-expanded=${details} onClick=${() => setDetails(!details)}>${t('details')}</button></div></div>
        <time class="soft" dateTime=${email.receivedAt} title=${exact(email.receivedAt)}>${long(email.sentAt || email.receivedAt)}</time></div>
      ${details && html`<dl class="lines">${line('from', email.from)}${line('to', email.to)}${line('cc', email.cc)}${line('bcc', email.bcc)}${line('replyto', email.replyTo)}<dt>${t('date')}</dt><dd>${exact(email.sentAt || email.receivedAt)}</dd><dt>${t('arrived')}</dt><dd>${exact(email.receivedAt)}</dd><dt>${t('size')}</dt><dd>${size(email.size)}</dd>${email.messageId && html`<dt>Message-ID</dt><dd>${email.messageId.join(' ')}</dd>`}</dl>`}
    </header>
    ${caught && html`<${Caught} about=${about} release=${() => actions.junk([id])} remove=${() => actions.remove([id])} story=${story && (() => go(story))} />`}
    ${about && about.proof.state === 'forged' && html`<p class="banner bad" role="note"><${Icon} name="junk" /><span>${t('p-forged-text', { domain: about.proof.domain || '?' })}</span></p>`}
    ${files.length > 0 && html`<${Files} files=${files} canPreview=${canPreview} preview=${preview} />`}
    ${(blocked > 0 || remote) && html`<p class="banner"><${Icon} name="eye" /><span>${remote ? t('imagesshown') : t('imagesblocked', { count: blocked })}</span>${!remote && html`<button type="button" onClick=${() => setRemote(true)}>${t('showimages')}</button>`}</p>`}
    <iframe ref=${frame} title=${t('body')} sandbox="allow-same-origin allow-popups allow-popups-to-escape-sandbox" src="/api/v1/message/${id}/body${remote ? '?images=remote' : ''}" onLoad=${fit}></iframe>
    <div class="bar foot"><${Tool} icon="reply" label=${t('reply')} words onClick=${() => reply(false)} /><${Tool} icon="replyall" label=${t('replyall')} words onClick=${() => reply(true)} /><${Tool} icon="forward" label=${t('forward')} words onClick=${() => forward(false)} /></div>
    <${Conversation} email=${email} mailboxes=${mailboxes} go=${go} />
    ${source !== null && html`<${Dialog} title=${t('original')} wide close=${() => setSource(null)}><pre class="source" tabindex="0">${source || t('loading')}</pre><div class="bar end"><a class="button" href=${download(email.blobId, `${id}.eml`, 'message/rfc822')} download>${t('downloadmessage')}</a></div></${Dialog}>`}
    ${shown && html`<${Dialog} title=${shown.part.name || shown.part.type} wide close=${() => setShown(null)}>${shown.image ? html`<img class="shown" src=${shown.image} alt=${shown.part.name || ''} />` : html`<pre class="source" tabindex="0">${shown.text}</pre>`}<div class="bar end"><a class="button" href=${download(shown.part.blobId, shown.part.name, shown.part.type)} download>${t('download')}</a></div></${Dialog}>`}
  </article>`;
}

/** Actions that are not needed each day. */
function More({ items }) {
  const place = useRef(null);
  const close = () => { place.current.open = false; };
  useEffect(() => {
    const leave = (event) => { if (place.current && !place.current.contains(event.target)) close(); };
    addEventListener('pointerdown', leave);
    return () => removeEventListener('pointerdown', leave);
  }, []);
  return html`<details class="menu" ref=${place} onKeyDown=${(event) => { if (event.key === 'Escape' && place.current.open) { event.stopPropagation(); close(); place.current.querySelector('summary').focus(); } }}><summary title=${t('moreactions')} aria-label=${t('moreactions')}><${Icon} name="more" /></summary>
    <div class="panel">${items.map(([icon, text, act]) => html`<button type="button" onClick=${() => { close(); act(); }}><${Icon} name=${icon} /><span>${text}</span></button>`)}</div></details>`;
}

const MARKS = { verified: ['good', 'notjunk'], own: ['good', 'check'], unverified: ['warn', 'shield'], forged: ['bad', 'junk'] };

/** Whether the sender is proven, in a word; why, on request. */
function Proof({ about }) {
  const [open, setOpen] = useState(false);
  const mark = about && MARKS[about.proof.state];
  if (!mark) return null;
  const { state, domain, spf, dkim, dmarc } = about.proof;
  const results = [['SPF', spf], ['DKIM', dkim], ['DMARC', dmarc]].filter(([, result]) => result);
  return html`<button type="button" class="proof ${mark[0]}" aria-haspopup="dialog" onClick=${() => setOpen(true)}><${Icon} name=${mark[1]} />${t(`p-${state}`)}</button>
    ${open && html`<${Dialog} title=${t(`p-${state}`)} close=${() => setOpen(false)}><p>${t(`p-${state}-text`, { domain: domain || '?' })}</p><p class="soft">${t('p-meaning')}</p>
      ${results.length > 0 && html`<p class="soft">${results.map(([name, result]) => html`<code>${name} ${result}</code> `)}</p>`}</${Dialog}>`}`;
}

/** Why a message was kept from the inbox, and the way out. */
function Caught({ about, release, remove, story }) {
  const judged = about && about.judged, decided = about && about.decided;
  const found = reasons(judged && judged.findings);
  return html`<section class="banner caught" aria-label=${t('junkwhy')}><h3><${Icon} name="junk" />${t('junkwhy')}</h3>
    ${decided && decided.decided_by && html`<p>${cause(decided.decided_by)}</p>`}
    ${found.length > 0 ? html`<ul>${found.map((one) => html`<li><b>${one.text}</b> <span class="soft">${one.details.slice(0, 4).map(finding).join('; ')}${one.details.length > 4 ? '…' : ''}</span> <span class="points">+${points(one.score / 1000)}</span></li>`)}</ul>` : html`<p>${t(decided ? 'nofindings' : 'unknownwhy')}</p>`}
    <div class="bar"><button type="button" class="main" onClick=${release}>${t('release')}</button><button type="button" onClick=${remove}>${t('delete')}</button>${story && html`<button type="button" class="link" onClick=${story}>${t('story')}</button>`}</div></section>`;
}

const Files = ({ files, canPreview, preview }) => html`<section aria-label=${t('attachments')}><ul class="files">${files.map((part) => html`<li><${Icon} name=${part.type.startsWith('image/') ? 'eye' : 'file'} /><span class="file"><b>${part.name || t('unnamed')}</b><small class="soft">${part.type} · ${size(part.size)}</small></span>
  ${canPreview(part) && html`<${Tool} icon="eye" label=${t('preview', { name: part.name || part.type })} onClick=${() => preview(part)} />`}
  <a class="tool" href=${download(part.blobId, part.name, part.type)} download=${part.name || 'attachment'} title=${t('downloadfile', { name: part.name || part.type })} aria-label=${t('downloadfile', { name: part.name || part.type })}><${Icon} name="download" /></a></li>`)}</ul></section>`;

/** The other messages of the conversation, wherever they lie. */
function Conversation({ email, mailboxes, go }) {
  const [others, setOthers] = useState([]);
  useEffect(() => {
    let wanted = true;
    request([['Thread/get', { ids: [email.threadId] }], ['Email/get', { '#ids': reference(0, 'Thread/get', '/list/*/emailIds'), properties: LISTED }]])
      .then(([, found]) => wanted && setOthers(found.list.filter((one) => one.id !== email.id && !one.keywords.$draft).sort((a, b) => (a.receivedAt < b.receivedAt ? 1 : -1)).slice(0, 50)), () => {});
    return () => { wanted = false; };
  }, [email.id]);
  if (!others.length) return null;
  const place = (one) => mailboxes.find((mailbox) => one.mailboxIds[mailbox.id]);
  return html`<section class="conversation" aria-label=${t('conversation')}><h3>${t('conversation')}</h3><ul>${others.map((one) => { const folder = place(one); const to = `/mail/${Object.keys(one.mailboxIds)[0]}/${one.id}`; return html`<li><a href=${to} onClick=${(event) => { event.preventDefault(); go(to); }}>
    <b>${person((one.from || [])[0])}</b><span class="preview">${one.preview}</span><span class="soft">${folder ? `${label(folder)} · ` : ''}${date(one.receivedAt)}</span></a></li>`; })}</ul></section>`;
}
