// A text for somewhere else.
import { html, useState } from '../lib/html.js';
import { t } from '../lib/i18n.js';
import { Icon } from './icons.js';

/** Puts a text on the clipboard and says so. */
export function Copy({ text, label }) {
  const [done, setDone] = useState(false);
  return html`<button type="button" class="tool words" onClick=${() => navigator.clipboard && navigator.clipboard.writeText(text).then(() => { setDone(true); setTimeout(() => setDone(false), 3000); }, () => {})}><${Icon} name=${done ? 'check' : 'copy'} /><span>${done ? t('copied') : label}</span></button>`;
}
