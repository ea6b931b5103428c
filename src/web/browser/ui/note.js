// A line about what was just done, with the way back.
import { html, useRef, useState } from '../lib/html.js';
import { t } from '../lib/i18n.js';

const SHOWN = 9000;

/** `{ shown, say, clear, undo }`. `say(text, undo, { to, text }, span)` shows a line for a while, or so many milliseconds; all but the text may be missing. */
export function useNote() {
  const [shown, setShown] = useState(null);
  const timer = useRef(0);
  const clear = () => { clearTimeout(timer.current); setShown(null); };
  const say = (text, undo, link, span = SHOWN) => { clear(); setShown({ text, undo, link }); timer.current = setTimeout(() => setShown(null), span); };
  const undo = () => { if (shown && shown.undo) { shown.undo(); clear(); } };
  return { shown, say, clear, undo };
}

export const Note = ({ of: { shown, clear, undo }, go }) => html`<div class="notes" role="status">${shown && html`<p class="note"><span>${shown.text}</span>${shown.link && html`<a href=${shown.link.to} onClick=${(event) => { event.preventDefault(); clear(); go(shown.link.to); }}>${shown.link.text}</a>`}${shown.undo && html`<button onClick=${undo}>${t('undo')}</button>`}</p>`}</div>`;
