// What is known of something, in short.
import { html } from '../lib/html.js';
import { t } from '../lib/i18n.js';

/** `of`: keys of texts, each with a value. */
export const Facts = ({ of }) => html`<dl class="facts">${Object.entries(of).map(([name, value]) => html`<div><dt>${t(name)}</dt><dd>${value || '–'}</dd></div>`)}</dl>`;
