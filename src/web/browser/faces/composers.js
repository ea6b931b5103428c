// What is being written, above whatever face one looks at: it stays while one goes elsewhere.
import { html, useState } from '../lib/html.js';

/** The open drafts: `{ drafts, open, close, Compose }`. `told` hears why none can be opened. */
export function useDrafts(told) {
  const [drafts, setDrafts] = useState([]);
  const [Compose, setCompose] = useState(null);
  // A stored draft is open once: `id` is the newest of it.
  const open = (draft = {}) => {
    setDrafts((known) => (draft.draftId && known.some((one) => one.id === draft.draftId) ? known : [...known, { key: `${Date.now()}${known.length}`, id: draft.draftId, draft }]));
    if (!Compose) import('./compose.js').then((found) => setCompose(() => found.Compose), (failed) => { setDrafts([]); told(failed.message); });
  };
  return { drafts, open, Compose, close: (draft) => setDrafts((known) => known.filter((one) => one !== draft)) };
}

/** `mail` holds what the mail face knows and does: `{ mailboxes, known, changed, focus }`. */
export const Composers = ({ desk: { drafts, open, Compose, close }, session, mail, say }) => html`<div class="composers">${Compose && drafts.map((one) => html`<${Compose} key=${one.key} draft=${one.draft} session=${session} mail=${mail}
  kept=${(id) => { one.id = id; }} close=${(text, undo, span) => { close(one); if (text) say(text, undo && (() => undo({ open, say, changed: () => mail.current.changed() })), null, span); mail.current.changed(); mail.current.focus(); }} />`)}</div>`;
