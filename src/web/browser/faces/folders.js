// The folders at the side: counts, what may be done with them, where messages may be dropped.
import { html } from '../lib/html.js';
import { count } from '../lib/format.js';
import { set } from '../lib/jmap.js';
import { t } from '../lib/i18n.js';
import { ask } from '../ui/dialog.js';
import { Icon, Tool } from '../ui/icons.js';

export const ROLES = ['inbox', 'drafts', 'sent', 'archive', 'junk', 'trash'];
const ICONS = { inbox: 'inbox', drafts: 'draft', sent: 'sent', archive: 'archive', junk: 'junk', trash: 'trash' };

export const label = (mailbox) => (ROLES.includes(mailbox.role) ? t(mailbox.role) : mailbox.name);
export const isJunk = (mailbox) => Boolean(mailbox) && mailbox.role === 'junk';

/** Mailboxes as a reader sees them: those with a role first, then by name, each below its parent with its depth. */
export function arrange(list) {
  const rank = (one) => { const at = ROLES.indexOf(one.role); return at < 0 ? ROLES.length : at; };
  const below = (parent, depth) => list.filter((one) => (one.parentId || null) === parent)
    .sort((a, b) => rank(a) - rank(b) || label(a).localeCompare(label(b)))
    .flatMap((one) => [{ ...one, depth }, ...below(one.id, depth + 1)]);
  return below(null, 0);
}

/** `held` is how many messages are in quarantine, which is no folder: mail in it has not been delivered. */
export function Folders({ mailboxes, current, held, go, compose, drop, changed, failed, close }) {
  const change = (args, then) => set('Mailbox', args).then((answer) => { changed(); if (then) then(answer); }, (error) => failed(error.message));
  const create = async (parent) => {
    const name = await ask({ title: t('newfolder'), text: parent ? t('within', { name: label(parent) }) : '', field: t('name'), ok: t('create') });
    if (name) change({ create: { made: { name, parentId: parent ? parent.id : null, isSubscribed: true } } }, (answer) => go(`/mail/${answer.created.made.id}`));
  };
  const rename = async (one) => {
    const name = await ask({ title: t('renamefolder'), field: t('name'), value: one.name, ok: t('rename') });
    if (name && name !== one.name) change({ update: { [one.id]: { name } } });
  };
  const remove = async (one) => {
    const yes = await ask({ title: t('deletefolder'), text: t('deletefoldertext', { name: label(one), count: one.totalEmails }), ok: t('delete'), danger: true });
    if (yes) change({ destroy: [one.id], onDestroyRemoveEmails: true }, () => go('/mail', true));
  };
  const over = (event) => { if ([...event.dataTransfer.types].includes('text/x-emails')) { event.preventDefault(); event.currentTarget.classList.add('over'); } };
  const out = (event) => event.currentTarget.classList.remove('over');
  const dropped = (event, one) => { event.preventDefault(); out(event); drop(event.dataTransfer.getData('text/x-emails').split(' ').filter(Boolean), one); };
  const shown = (one) => (one.role === 'drafts' ? one.totalEmails : one.unreadEmails);
  const item = (one) => html`<li key=${one.id}><a href="/mail/${one.id}" aria-current=${current && one.id === current.id ? 'page' : undefined} style=${{ paddingLeft: `${0.6 + one.depth * 0.9}rem` }}
    title=${t('foldercount', { name: label(one), total: count(one.totalEmails), unread: count(one.unreadEmails) })}
    onClick=${(event) => { event.preventDefault(); close(); go(`/mail/${one.id}`); }} onDragOver=${over} onDragLeave=${out} onDrop=${(event) => dropped(event, one)}>
    <${Icon} name=${ICONS[one.role] || 'folder'} /><span class="name">${label(one)}</span>${shown(one) > 0 && html`<b class=${one.role === 'drafts' ? 'quiet' : ''}>${count(shown(one))}</b>`}</a></li>`;
  const holding = html`<li key="held"><a href="/filter" title=${t('heldcount', { count: held })} onClick=${(event) => { event.preventDefault(); go('/filter'); }}><${Icon} name="quarantine" /><span class="name">${t('quarantine')}</span>${held > 0 && html`<b>${count(held)}</b>`}</a></li>`;
  const after = mailboxes.findIndex((one) => one.role === 'junk') + 1 || mailboxes.length;
  const own = current && !ROLES.includes(current.role);
  return html`<nav class="folders" aria-label=${t('folders')}>
    <button type="button" class="main compose-new" onClick=${() => { close(); compose(); }}><${Icon} name="edit" /><span>${t('compose')}</span></button>
    <ul>${mailboxes.slice(0, after).map(item)}${mailboxes.length > 0 && holding}${mailboxes.slice(after).map(item)}</ul>
    <div class="bar foot"><${Tool} icon="plus" label=${t('newfolder')} words onClick=${() => create(null)} />
      ${own && html`<${Tool} icon="edit" label=${t('renamefolder')} onClick=${() => rename(current)} /><${Tool} icon="trash" label=${t('deletefolder')} onClick=${() => remove(current)} />`}</div>
  </nav>`;
}

/** A menu of folders that every keyboard and screen reader knows; the twin of dragging. */
export const MoveTo = ({ mailboxes, current, move }) => html`<label class="moveto" title=${t('moveto')}><${Icon} name="move" /><select aria-label=${t('moveto')} value="" onChange=${(event) => { const target = mailboxes.find((one) => one.id === event.target.value); event.target.value = ''; if (target) move(target); }}>
  <option value="">${t('moveto')}</option>${mailboxes.filter((one) => !current || one.id !== current.id).map((one) => html`<option value=${one.id}>${'\u00a0'.repeat(one.depth * 2)}${label(one)}</option>`)}</select></label>`;
