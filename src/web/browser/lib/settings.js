// What this browser remembers for its reader.
const read = (name, otherwise) => { try { return localStorage.getItem(name) || otherwise; } catch { return otherwise; } };

export const theme = () => read('theme', 'system');
export function setTheme(name) {
  localStorage.setItem('theme', name);
  applyTheme();
}
export function applyTheme() { document.documentElement.dataset.theme = theme(); }

/** Single letters act only while this is true (WCAG 2.1.4). */
export const shortcuts = () => read('shortcuts', 'on') === 'on';
export const setShortcuts = (on) => localStorage.setItem('shortcuts', on ? 'on' : 'off');

/** Seconds in which sent mail can be taken back; 0: none. */
export const UNDO_CHOICES = [0, 5, 10, 20];
export const undoSend = () => { const chosen = Number(read('undosend', '10')); return UNDO_CHOICES.includes(chosen) ? chosen : 10; };
export const setUndoSend = (seconds) => localStorage.setItem('undosend', String(seconds));
