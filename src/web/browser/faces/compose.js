// Writing: plain text with files, kept among the drafts while one writes, sent by EmailSubmission.
import { html, useEffect, useRef, useState } from '../lib/html.js';
import { call } from '../lib/api.js';
import { reply } from '../lib/explain.js';
import { clock, size } from '../lib/format.js';
import { request, set as change, upload, uploadMax } from '../lib/jmap.js';
import { t } from '../lib/i18n.js';
import { undoSend } from '../lib/settings.js';
import { ask } from '../ui/dialog.js';
import { Icon, Tool } from '../ui/icons.js';
import { Recipients, fault } from '../ui/recipients.js';
import { mentionsFile } from './quote.js';

const SAVE_AFTER = 3000;
const REOPENED = ['from', 'to', 'cc', 'bcc', 'subject', 'inReplyTo', 'references', 'attachments', 'textBody', 'bodyValues'];
const EMPTY = { to: [], cc: [], bcc: [], subject: '', text: '', attachments: [] };
const partsOf = (email) => email.attachments.map(({ blobId, name, type, size: octets }) => ({ key: blobId, blobId, name, type, size: octets }));
// Files travel in base64: four octets for three, and line ends.
const filesMax = () => Math.floor(uploadMax() * 0.72);
let opened = 0;

/** Takes sent mail back, if it has not left yet, and opens it again. */
async function takeBack(submission, email, drafts, { open, say, changed }) {
  try {
    const [answer] = await request([['EmailSubmission/set', { update: { [submission]: { undoStatus: 'canceled' } } }]]);
    if ((answer.notUpdated || {})[submission]) { say(t('toolate')); return; }
    await change('Email', { update: { [email]: { mailboxIds: { [drafts]: true }, 'keywords/$draft': true } } });
    changed();
    open({ draftId: email });
  } catch (failed) { say(failed.message); }
}

/** `mail` holds what the mail face knows and does, `kept` hears the id of each stored draft. */
export function Compose({ draft, session, mail, kept, close }) {
  const [fields, setFields] = useState({ ...EMPTY, ...draft, attachments: (draft.attachments || []).map((one) => ({ key: one.blobId, ...one })) });
  const [identities, setIdentities] = useState([]);
  const [from, setFrom] = useState(null);
  const [more, setMore] = useState({ cc: (draft.cc || []).length > 0, bcc: (draft.bcc || []).length > 0 });
  const [faults, setFaults] = useState(new Map());
  const [error, setError] = useState('');
  const [saved, setSaved] = useState({ state: draft.draftId ? 'opening' : 'new' });
  // A stored draft that is not read yet, or cannot be, is neither changed nor taken for an empty one.
  const [ready, setReady] = useState(!draft.draftId);
  const [busy, setBusy] = useState(false);
  const [reminded, setReminded] = useState(false);
  const [over, setOver] = useState(false);
  const number = useRef(0), text = useRef(null), picker = useRef(null), stops = useRef(new Map());
  if (!number.current) { opened += 1; number.current = opened; }
  // What the asynchronous parts work on: always the newest.
  const live = useRef({ id: draft.draftId || null, replaced: [], dirty: false, saving: null, timer: 0, gone: false });
  live.current.fields = fields;
  live.current.from = from;
  const role = (name) => {
    const found = mail.current.mailboxes.find((mailbox) => mailbox.role === name);
    if (!found) throw new Error(t('nofolder', { name: t(name) }));
    return found.id;
  };
  const learnIdentities = async () => {
    const [found] = await request([['Identity/get', { ids: null }]]);
    const one = live.current.from || found.list.find((own) => own.email === session.address) || found.list[0];
    if (!one) throw new Error(t('noidentity'));
    setIdentities(found.list);
    setFrom(one);
    return one;
  };
  const identity = async () => live.current.from || learnIdentities();

  const set = (part) => {
    const state = live.current;
    setFields((known_) => ({ ...known_, ...(typeof part === 'function' ? part(known_) : part) }));
    state.dirty = true;
    setSaved((now) => ({ ...now, state: 'dirty' }));
    clearTimeout(state.timer);
    state.timer = setTimeout(() => save().catch(() => {}), SAVE_AFTER);
  };
  const object = (sender) => {
    const now = live.current.fields;
    const list = (name) => (now[name].length ? { [name]: now[name] } : {});
    const files = now.attachments.filter((one) => one.blobId).map(({ blobId, name, type }) => ({ blobId, name, type, disposition: 'attachment' }));
    return {
      mailboxIds: { [role('drafts')]: true }, keywords: { $draft: true, $seen: true }, from: [{ name: sender.name || null, email: sender.email }],
      ...list('to'), ...list('cc'), ...list('bcc'), subject: now.subject, textBody: [{ partId: 'text', type: 'text/plain' }], bodyValues: { text: { value: now.text } },
      ...(now.inReplyTo && now.inReplyTo.length ? { inReplyTo: now.inReplyTo, references: now.references } : {}), ...(files.length ? { attachments: files } : {}),
    };
  };
  /** The stored draft takes over: later versions are made of its files, for uploads are forgotten after a while. */
  const adopt = async (id) => {
    const state = live.current;
    if (state.id) state.replaced.push(state.id);
    state.id = id;
    kept(id);
    const [found] = await request([['Email/get', { ids: [id], properties: ['attachments'] }]]);
    const parts = found.list.length ? partsOf(found.list[0]) : [];
    setFields((now) => {
      const stored = now.attachments.filter((one) => state.stored.includes(one.key));
      if (stored.length !== parts.length) return now;
      return { ...now, attachments: now.attachments.map((one) => { const at = stored.indexOf(one); return at < 0 ? one : { ...one, blobId: parts[at].blobId }; }) };
    });
    await destroy([]);
  };
  /** Removes drafts and those that newer ones took the place of. */
  const destroy = async (ids) => {
    const state = live.current, all = [...state.replaced, ...ids];
    if (!all.length) return;
    await change('Email', { destroy: all });
    state.replaced = [];
  };
  const save = async () => {
    const state = live.current;
    clearTimeout(state.timer);
    if (state.saving) await state.saving.catch(() => {});
    if (!state.dirty || state.gone) return;
    state.dirty = false;
    setSaved((now) => ({ ...now, state: 'saving' }));
    state.saving = (async () => {
      const sender = await identity();
      state.stored = live.current.fields.attachments.filter((one) => one.blobId).map((one) => one.key);
      const answer = await change('Email', { create: { draft: object(sender) } });
      await adopt(answer.created.draft.id);
    })();
    try {
      await state.saving;
      setSaved({ state: state.dirty ? 'dirty' : 'saved', at: new Date() });
      mail.current.changed();
    } catch (failed) {
      state.dirty = true;
      setSaved({ state: 'failed', why: failed.message });
      throw failed;
    } finally { state.saving = null; }
  };

  const reopen = () => {
    setError('');
    setSaved({ state: 'opening' });
    request([['Email/get', { ids: [draft.draftId], properties: REOPENED, fetchTextBodyValues: true }]]).then(([found]) => {
      const email = found.list[0];
      if (!email) throw new Error(t('gone'));
      const stored = email.textBody.map((part) => (email.bodyValues[part.partId] || {}).value || '').join('\n').replace(/\n$/, '');
      setFields({ ...EMPTY, to: email.to || [], cc: email.cc || [], bcc: email.bcc || [], subject: email.subject || '', text: stored, inReplyTo: email.inReplyTo, references: email.references, attachments: partsOf(email) });
      setMore({ cc: Boolean(email.cc && email.cc.length), bcc: Boolean(email.bcc && email.bcc.length) });
      setSaved({ state: 'saved' });
      setReady(true);
    }).catch((failed) => { setError(failed.message); setSaved({ state: 'new' }); });
  };
  useEffect(() => {
    learnIdentities().catch((failed) => setError(failed.message));
    if (draft.draftId) reopen(); else if (text.current && (draft.to || []).length) { text.current.focus(); text.current.setSelectionRange(0, 0); }
    const leaving = (event) => { if (live.current.dirty) event.preventDefault(); };
    addEventListener('beforeunload', leaving);
    return () => { removeEventListener('beforeunload', leaving); clearTimeout(live.current.timer); live.current.gone = true; };
  }, []);

  const attach = (files) => {
    if (!ready) return;
    for (const file of files) {
      const key = `${Date.now()}-${Math.random()}`, total = live.current.fields.attachments.reduce((sum, one) => sum + one.size, 0);
      if (total + file.size > filesMax()) { setError(t('toobig', { name: file.name, size: size(file.size), limit: size(filesMax()) })); continue; }
      const one = { key, name: file.name || t('unnamed'), type: file.type || 'application/octet-stream', size: file.size, done: 0 };
      live.current.fields = { ...live.current.fields, attachments: [...live.current.fields.attachments, one] };
      const put = (part) => set((now) => ({ attachments: now.attachments.map((other) => (other.key === key ? { ...other, ...part } : other)) }));
      set((now) => ({ attachments: [...now.attachments, one] }));
      const sending = upload(file, (done) => setFields((now) => ({ ...now, attachments: now.attachments.map((other) => (other.key === key ? { ...other, done } : other)) })));
      stops.current.set(key, sending.stop);
      sending.done.then((answer) => put({ blobId: answer.blobId, done: 1 }), (failed) => failed.message !== 'stopped' && put({ failed: failed.message }));
    }
  };
  const detach = (one) => { const stop = stops.current.get(one.key); if (stop && !one.blobId) stop(); set((now) => ({ attachments: now.attachments.filter((other) => other.key !== one.key) })); };

  const everybody = () => ['to', 'cc', 'bcc'].flatMap((name) => live.current.fields[name]);
  const leave = async () => { if (!ready) { close(''); return; } if (!isEmpty() || live.current.id) { try { await save(); } catch { return; } } close(live.current.id && !isEmpty() ? t('keptdraft') : ''); };
  const isEmpty = () => !everybody().length && !fields.subject.trim() && !fields.text.trim() && !fields.attachments.length;
  const discard = async () => {
    if (!isEmpty() && !await ask({ title: t('discarddraft'), text: t('discardtext'), ok: t('discard'), danger: true })) return;
    const state = live.current;
    state.dirty = false; state.gone = true;
    clearTimeout(state.timer);
    if (state.saving) await state.saving.catch(() => {});
    let text = '';
    try { await destroy(state.id ? [state.id] : []); } catch (failed) { text = failed.message; }
    close(text);
  };
  const send = async () => {
    const state = live.current;
    setError('');
    // A blur may just have made a chip of what was typed.
    await new Promise((resolve) => setTimeout(resolve, 0));
    if (!ready) return;
    if (!everybody().length) { setError(t('norecipients')); return; }
    if (everybody().some((one) => fault(one.email))) { setError(t('badrecipients')); return; }
    if (state.fields.attachments.some((one) => !one.blobId)) { setError(t('stilluploading')); return; }
    if (!reminded && !state.fields.attachments.length && mentionsFile(`${state.fields.subject}\n${state.fields.text}`)) { setReminded(true); return; }
    setBusy(true);
    clearTimeout(state.timer);
    try {
      const asked = await call('POST', '/api/v1/recipients/check', { addresses: everybody().map((one) => one.email) });
      const bad = asked.recipients.filter((one) => !['ok', 'foreign'].includes(one.state));
      setFaults(new Map(bad.map((one) => [one.address.toLowerCase(), `a-${one.state}`])));
      if (bad.length) throw new Error(t('badrecipients'));
      if (state.saving) await state.saving.catch(() => {});
      const sender = await identity();
      state.stored = state.fields.attachments.map((one) => one.key);
      // What waits a moment can be taken back.
      const wait = undoSend();
      const envelope = { mailFrom: { email: sender.email, parameters: { HOLDFOR: String(wait) } }, rcptTo: everybody().map((one) => ({ email: one.email })) };
      const [made, sent] = await request([['Email/set', { create: { draft: object(sender) } }],
        ['EmailSubmission/set', { create: { send: { emailId: '#draft', identityId: sender.id, ...(wait > 0 && { envelope }) } }, onSuccessUpdateEmail: { '#send': { mailboxIds: { [role('sent')]: true }, 'keywords/$draft': null } } }]]);
      const refused = (made.notCreated || {}).draft || (sent.notCreated || {}).send;
      if (refused) {
        // What could not be sent stays as the draft.
        if (made.created && made.created.draft) await adopt(made.created.draft.id);
        throw new Error(t('sendfailed', { why: reply(refused.description || '') || refused.type }));
      }
      state.dirty = false; state.gone = true;
      const after = { destroy: [...state.replaced, ...(state.id ? [state.id] : [])], update: draft.answers ? { [draft.answers.id]: { [`keywords/${draft.answers.keyword}`]: true } } : {} };
      // Sent it is all the same: the answered message may be gone by now.
      await change('Email', after).catch(() => {});
      const missed = Object.entries((sent.created.send || {}).deliveryStatus || {}).filter(([, status]) => status.delivered === 'no');
      const told = missed.length ? t('sentbutnot', { list: missed.map(([address, status]) => `${address}: ${reply(status.smtpReply)}`).join('; ') }) : t('sentnote');
      const { id: submission, undoStatus } = sent.created.send || {};
      if (undoStatus === 'pending') close(told, (desk) => takeBack(submission, made.created.draft.id, role('drafts'), desk), wait * 1000);
      else close(told);
    } catch (failed) { setError(failed.message); setBusy(false); }
  };

  const key = (event) => {
    if (event.key === 'Escape' && !event.defaultPrevented) { event.stopPropagation(); leave(); }
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) { event.preventDefault(); send(); }
  };
  const total = fields.attachments.reduce((sum, one) => sum + one.size, 0), id = (name) => `${name}-${number.current}`;
  const line = (name, focus, extra) => html`<${Recipients} name=${id(name)} list=${fields[name]} faults=${faults} known=${mail.current.known} focus=${focus} change=${(list) => set({ [name]: list })}>${extra}</${Recipients}>`;
  const states = { saving: t('saving'), dirty: t('unsaved'), saved: saved.at ? t('savedat', { time: clock(saved.at) }) : t('savedstate'), failed: t('savefailed', { why: saved.why }), opening: t('loading'), new: '' };
  return html`<section class="compose ${over ? 'over' : ''}" role="dialog" aria-label=${fields.subject || t('newmessage')} onKeyDown=${key}
    onDragOver=${(event) => { if ([...event.dataTransfer.types].includes('Files')) { event.preventDefault(); setOver(true); } }} onDragLeave=${() => setOver(false)}
    onDrop=${(event) => { if (event.dataTransfer.files.length) { event.preventDefault(); setOver(false); attach(event.dataTransfer.files); } }} onPaste=${(event) => { if (event.clipboardData.files.length) { event.preventDefault(); attach(event.clipboardData.files); } }}>
    <div class="titlebar"><h2>${fields.subject || t('newmessage')}</h2><span class="soft state" role="status">${states[saved.state]}</span><${Tool} icon="close" label=${t('closedraft')} onClick=${leave} /></div>
    ${ready ? html`<div class="fields">
      ${identities.length > 1 && html`<div class="field"><label for=${id('from')}>${t('from')}</label><select id=${id('from')} value=${from && from.id} onChange=${(event) => { setFrom(identities.find((one) => one.id === event.target.value)); set({}); }}>${identities.map((one) => html`<option value=${one.id} selected=${from && one.id === from.id}>${one.name ? `${one.name} <${one.email}>` : one.email}</option>`)}</select></div>`}
      ${line('to', !(draft.to || []).length && !draft.draftId, html`<span class="extra">${['cc', 'bcc'].filter((name) => !more[name]).map((name) => html`<button type="button" class="link" onClick=${() => setMore({ ...more, [name]: true })}>${t(name)}</button>`)}</span>`)}
      ${more.cc && line('cc')}${more.bcc && line('bcc')}
      <div class="field"><label for=${id('subject')}>${t('subject')}</label><input id=${id('subject')} name="subject" autocomplete="off" value=${fields.subject} onInput=${(event) => set({ subject: event.target.value })} /></div>
    </div>
    <textarea ref=${text} name="text" aria-label=${t('text')} value=${fields.text} onInput=${(event) => { set({ text: event.target.value }); setReminded(false); }}></textarea>
    ${fields.attachments.length > 0 && html`<ul class="files" aria-label=${t('attachments')}>${fields.attachments.map((one) => html`<li key=${one.key} class=${one.failed ? 'bad' : ''}><${Icon} name="file" /><span class="file"><b>${one.name || t('unnamed')}</b><small class="soft">${one.failed || size(one.size)}</small>${!one.blobId && !one.failed && html`<progress max="1" value=${one.done || 0} aria-label=${t('uploading', { name: one.name })}></progress>`}</span>
      <button type="button" class="tool" aria-label=${t('removeone', { name: one.name || t('unnamed') })} title=${t('removeone', { name: one.name || t('unnamed') })} onClick=${() => detach(one)}><${Icon} name="close" /></button></li>`)}</ul>
      <p class="soft sum">${t('filesum', { size: size(total), limit: size(filesMax()) })}</p>`}
    ${reminded && html`<p class="banner" role="alert"><${Icon} name="attach" /><span>${t('reminder')}</span></p>`}
    ${error && html`<p class="error" role="alert">${error}</p>`}
    <div class="bar"><button type="button" class="main" disabled=${busy} title="Ctrl+Enter" onClick=${send}>${busy ? t('sending') : reminded ? t('sendanyway') : t('send')}</button>
      <${Tool} icon="attach" label=${t('attach')} words onClick=${() => picker.current.click()} /><input ref=${picker} class="hidden" type="file" multiple tabindex="-1" aria-label=${t('attach')} onChange=${(event) => { attach(event.target.files); event.target.value = ''; }} />
      <span class="soft limit">${t('dropfiles', { limit: size(filesMax()) })}</span><span class="space"></span><${Tool} icon="trash" label=${t('discarddraft')} onClick=${discard} /></div>` : error ? html`<p class="error" role="alert">${error} <button type="button" onClick=${reopen}>${t('retry')}</button></p>` : html`<p class="empty">${t('loading')}</p>`}
    ${over && html`<div class="dropzone" aria-hidden="true">${t('drophere')}</div>`}
  </section>`;
}
