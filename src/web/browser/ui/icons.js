// Drawings on a grid of 16: not every machine has a font for such characters.
import { html } from '../lib/html.js';

const PATHS = {
  archive: 'M2 3h12v3H2zM3 6v7.5h10V6M6.5 8.5h3',
  attach: 'M11 5 6.2 9.8a1.4 1.4 0 0 0 2 2L13 7a2.8 2.8 0 0 0-4-4L4 8a4.3 4.3 0 0 0 6 6l3.5-3.5',
  back: 'M9.5 3 4.5 8l5 5M4.5 8h9',
  check: 'm3 8.5 3.2 3.2L13 5',
  close: 'm4 4 8 8M12 4l-8 8',
  copy: 'M5.5 5.5h8v8h-8zM3 10.5h-.5v-8h8V3',
  down: 'm4 6 4 4 4-4',
  download: 'M8 2.5v8m-3-3 3 3 3-3M3 13.5h10',
  draft: 'm3 13 1-3.5L10.5 3l2.5 2.5L6.5 12zM9 4.5 11.5 7',
  edit: 'm3 13 1-3.5L10.5 3l2.5 2.5L6.5 12zM9 4.5 11.5 7',
  eye: 'M1.5 8S4 3.5 8 3.5 14.5 8 14.5 8 12 12.5 8 12.5 1.5 8 1.5 8zM8 6a2 2 0 1 1 0 4 2 2 0 0 1 0-4',
  file: 'M4 2h5l3 3v9H4zM9 2v3h3',
  filter: 'M1.8 2.8h12.4L9.6 8.4v5l-3.2-1.7V8.4z',
  flag: 'm8 1.8 1.9 4 4.3.5-3.2 3 .9 4.3L8 11.5l-3.9 2.1.9-4.3-3.2-3 4.3-.5z',
  folder: 'M1.8 4h4.4l1.5 1.8h6.5v7.4H1.8z',
  forward: 'M9.5 4 13.5 8l-4 4M13 8H6.5A4 4 0 0 0 2.5 12v.5',
  help: 'M5.8 6a2.2 2.2 0 1 1 3 2.1c-.6.3-.8.7-.8 1.4M8 12v.1M8 1.5a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13',
  inbox: 'M2 9.5 4 3h8l2 6.5v4H2zM2 9.5h3.5c0 1.5 1 2.3 2.5 2.3s2.5-.8 2.5-2.3H14',
  junk: 'M8 1.8 14.5 13.5h-13zM8 6v3.8M8 11.7v.1',
  lock: 'M3.5 7.2h9v6.3h-9zM5.5 7.2V5a2.5 2.5 0 0 1 5 0v2.2',
  log: 'M2 4h2M6.5 4H14M2 8h2m2.5 0H14M2 12h2m2.5 0H14',
  mail: 'M1.8 3.5h12.4v9H1.8zM1.8 4 8 9l6.2-5',
  menu: 'M2 4h12M2 8h12M2 12h12',
  more: 'M3 7.4a.6.6 0 1 0 .01 0zM8 7.4a.6.6 0 1 0 .01 0zM13 7.4a.6.6 0 1 0 .01 0z',
  move: 'M1.8 4h4.4l1.5 1.8h6.5v7.4H1.8zM5.5 9.5h5M8.5 7.5l2 2-2 2',
  notjunk: 'M8 1.5 13.5 4v4c0 3.2-2.3 5.3-5.5 6.5C4.8 13.3 2.5 11.2 2.5 8V4zM5.5 8l1.8 1.8L10.7 6.3',
  pause: 'M5 3v10M11 3v10',
  play: 'm4.5 2.5 8 5.5-8 5.5z',
  plus: 'M8 3v10M3 8h10',
  print: 'M4.5 6V2.2h7V6M4.5 11.5H2.2V6h11.6v5.5h-2.3M4.5 9.5h7v4.3h-7z',
  quarantine: 'M8 1.5 13.5 4v4c0 3.2-2.3 5.3-5.5 6.5C4.8 13.3 2.5 11.2 2.5 8V4zM8 5v3.5M8 10.8v.1',
  read: 'M1.8 6.5 8 2.2l6.2 4.3v7H1.8zM1.8 7 8 11l6.2-4',
  reply: 'M6.5 4 2.5 8l4 4M3 8h6.5a4 4 0 0 1 4 4v.500',
  replyall: 'M8.5 4 4.5 8l4 4M5 8h5a3.8 3.8 0 0 1 3.8 3.8v.700M4.5 4.5 1.5 8l3 3.5',
  search: 'M7 2.5a4.5 4.5 0 1 1 0 9 4.5 4.5 0 0 1 0-9M10.3 10.3 14 14',
  sent: 'M14 2 1.8 7.2l4.7 2 2 4.7zM14 2 6.5 9.2',
  shield: 'M8 1.5 13.5 4v4c0 3.2-2.3 5.3-5.5 6.5C4.8 13.3 2.5 11.2 2.5 8V4z',
  source: 'm5 4.5-3.5 3.5L5 11.5M11 4.5l3.5 3.5-3.5 3.5M9.3 3 6.7 13',
  trash: 'M2.5 4h11M6 4V2.3h4V4M4 4l.700 9.7h6.6L12 4M6.7 6.5v4.7M9.3 6.5v4.7',
  undo: 'M5.5 3 2.5 6l3 3M3 6h6a4 4 0 0 1 0 8H6',
  unread: 'M1.8 3.5h8M1.8 3.5v9h12.4V7.5M1.8 4 8 9l3.5-2.8M13 2.5a1.8 1.8 0 1 1 0 3.6 1.8 1.8 0 0 1 0-3.6',
};

/** Without `label` it only decorates. */
export const Icon = ({ name, label, filled }) => html`<svg class="icon" viewBox="0 0 16 16" role=${label ? 'img' : undefined} aria-label=${label} aria-hidden=${label ? undefined : 'true'}>
  <path d=${PATHS[name] || PATHS.folder} fill=${filled ? 'currentColor' : 'none'} stroke="currentColor" stroke-width="1.4" stroke-linecap="round" stroke-linejoin="round" /></svg>`;

/** A button with a drawing; its words show where there is room, and are always read out. */
export const Tool = ({ icon, label, onClick, words, main, filled, pressed, keys, disabled }) => html`<button type="button" class="tool ${words ? 'words' : ''} ${main ? 'main' : ''}" title=${keys ? `${label} (${keys})` : label}
  aria-label=${words ? undefined : label} aria-pressed=${pressed} disabled=${disabled} onClick=${onClick}><${Icon} name=${icon} filled=${filled} />${words && html`<span>${label}</span>`}</button>`;
