// Writing: plain text, kept as a draft, sent by EmailSubmission.
import { html, useState } from '../lib/html.js';
import { request } from '../lib/jmap.js';
import { t } from '../lib/i18n.js';

/** `Anna B <a@b>, c@d` to JMAP addresses. */
export function addresses(text) {
  return (text || '').split(/[,;](?=(?:[^"]*"[^"]*")*[^"]*$)/).map((one) => one.trim()).filter(Boolean).map((one) => {
    const found = one.match(/^(.*)<([^>]+)>$/);
    return found ? { name: found[1].trim().replace(/^"|"$/g, '') || null, email: found[2].trim() } : { name: null, email: one };
  });
}

export function Compose({ draft, mailboxes, close }) {
  const [fields, setFields] = useState({ to: '', cc: '', bcc: '', subject: '', text: '', ...draft });
  const [error, setError] = useState('');
  const [busy, setBusy] = useState(false);
  const set = (name) => (event) => setFields({ ...fields, [name]: event.target.value });
  const role = (name) => mailboxes.find((mailbox) => mailbox.role === name).id;
  const isEmpty = () => !['to', 'cc', 'bcc', 'subject', 'text'].some((name) => fields[name].trim() && fields[name] !== (draft[name] || ''));

  const create = (identity) => ({
    mailboxIds: { [role('drafts')]: true }, keywords: { $draft: true, $seen: true },
    from: [{ name: identity.name || null, email: identity.email }], to: addresses(fields.to), cc: addresses(fields.cc), bcc: addresses(fields.bcc), subject: fields.subject,
    ...(fields.inReplyTo ? { inReplyTo: fields.inReplyTo, references: fields.references } : {}),
    textBody: [{ partId: 'text', type: 'text/plain' }], bodyValues: { text: { value: fields.text } },
  });
  const save = async (andSend) => {
    setBusy(true); setError('');
    try {
      const [identities] = await request([['Identity/get', {}]]);
      const identity = identities.list[0];
      const calls = [['Email/set', { create: { draft: create(identity) } }]];
      if (andSend) calls.push(['EmailSubmission/set', { create: { send: { emailId: '#draft', identityId: identity.id } }, onSuccessUpdateEmail: { '#send': { mailboxIds: { [role('sent')]: true }, 'keywords/$draft': null } } }]);
      const [made, sent] = await request(calls);
      const refused = (made.notCreated || {}).draft || (sent && (sent.notCreated || {}).send);
      if (refused) {
        // What could not be sent must not pile up as drafts: the text is still in the window.
        if (made.created && made.created.draft) await request([['Email/set', { destroy: [made.created.draft.id] }]]);
        throw new Error([refused.description || refused.type, ...(refused.invalidRecipients || [])].join(' '));
      }
      close(andSend ? t('sentnote') : '');
    } catch (failed) { setError(failed.message); setBusy(false); }
  };
  const line = (name, type) => html`<label><span>${t(name)}</span><input type=${type || 'text'} name=${name} value=${fields[name]} onInput=${set(name)} /></label>`;
  return html`<section class="compose" role="dialog" aria-label=${t('compose')} onKeyDown=${(event) => event.key === 'Escape' && isEmpty() && close('')}>
    ${line('to')}${line('cc')}${line('bcc')}${line('subject')}
    <textarea name="text" aria-label=${t('text')} value=${fields.text} onInput=${set('text')}></textarea>
    ${error && html`<p class="error" role="alert">${error}</p>`}
    <div class="bar"><button class="main" disabled=${busy || !(fields.to + fields.cc + fields.bcc).trim()} onClick=${() => save(true)}>${t('send')}</button>
      <button disabled=${busy} onClick=${() => (isEmpty() ? close('') : save(false))}>${t('discard')}</button></div>
  </section>`;
}
