// Which keys do what, and the switch that turns single letters off.
import { html, useState } from '../lib/html.js';
import { t } from '../lib/i18n.js';
import { UNDO_CHOICES, setShortcuts, setUndoSend, shortcuts, undoSend } from '../lib/settings.js';
import { Dialog } from '../ui/dialog.js';

const KEYS = [['j', 'k'], ['o'], ['u', 'Esc'], ['c'], ['r'], ['a'], ['f'], ['e'], ['#'], ['!'], ['s'], ['m'], ['v'], ['x'], ['z'], ['/'], ['?']];
const NAMES = { j: 'next', o: 'open', u: 'back', c: 'compose', r: 'reply', a: 'replyall', f: 'forward', e: 'archive', '#': 'delete', '!': 'junk', s: 'flag', m: 'unread', v: 'move', x: 'select', z: 'undo', '/': 'search', '?': 'help' };

export function Help({ close }) {
  const [on, setOn] = useState(shortcuts());
  const [wait, setWait] = useState(undoSend());
  return html`<${Dialog} title=${t('keys')} close=${close}><label class="tick"><input type="checkbox" checked=${on} onChange=${(event) => { setShortcuts(event.target.checked); setOn(event.target.checked); }} /><span>${t('shortcuts')}</span></label>
    <p><label>${t('undosend')} <select value=${wait} onChange=${(event) => { setUndoSend(Number(event.target.value)); setWait(Number(event.target.value)); }}>${UNDO_CHOICES.map((seconds) => html`<option value=${seconds} selected=${seconds === wait}>${seconds ? t('undoseconds', { seconds }) : t('undonever')}</option>`)}</select></label></p>
    <dl class="keys ${on ? '' : 'off'}">${KEYS.map((keys) => html`<div><dt>${keys.map((key) => html`<kbd>${key}</kbd>`)}</dt><dd>${t(`key-${NAMES[keys[0]]}`)}</dd></div>`)}</dl><p class="soft">${t('keysalways')}</p></${Dialog}>`;
}
