// A table of things with names, found by words and page by page, with a form that adds one.
import { html, useState } from '../lib/html.js';
import { t } from '../lib/i18n.js';
import { PASSWORD_MIN } from './dialog.js';
import { Icon } from './icons.js';
import { Waiting } from './waiting.js';

/** `heads` are keys of texts, `show` gives the cells of a row, `extra` what can be done with it. `list` comes from `useRows`. */
export const Listing = ({ heads, list, id, show, extra, children }) => html`<section class="card"><${Waiting} of=${list} />
  ${list.rows && !list.rows.length && html`<p class="empty">${t('nothinghere')}</p>`}
  ${list.rows && list.rows.length > 0 && html`<table class="stacked"><thead><tr>${heads.map((name) => html`<th scope="col">${t(name)}</th>`)}<td></td></tr></thead><tbody>${list.rows.map((one) => html`<tr key=${id(one)}>${show(one).map((cell, at) => html`<td data-label=${t(heads[at])}>${cell}</td>`)}<td class="acts">${extra && extra(one)}</td></tr>`)}</tbody></table>`}
  ${list.next && html`<p class="empty"><button type="button" onClick=${list.further}>${t('more')}</button></p>`}${children}</section>`;

/** Words that narrow a list down. */
export function Find({ label, words, find, children }) {
  const [typed, setTyped] = useState(words);
  return html`<form class="bar" role="search" onSubmit=${(event) => { event.preventDefault(); find(typed.trim()); }}><label class="searchbox"><${Icon} name="search" /><input type="search" placeholder=${label} aria-label=${label} value=${typed} onInput=${(event) => { setTyped(event.target.value); if (!event.target.value && words) find(''); }} /></label>${children}</form>`;
}

/** A form of single lines: `fields` are keys of texts and names; `add` hears `{ name: text }` and promises. What `types` and `free`
    name is no plain text, or may be left out. */
export function Adding({ fields, add, types = {}, free = [], known = {}, children }) {
  const submit = (event) => {
    event.preventDefault();
    const form = event.target;
    add(Object.fromEntries(fields.map((name) => [name, form.elements[name].value.trim()])), form).then(() => form.reset(), () => {});
  };
  return html`<form class="bar adding" onSubmit=${submit}>${fields.map((name) => html`<label><span>${t(name)}</span><input name=${name} type=${types[name] || 'text'} autocomplete=${types[name] === 'password' ? 'new-password' : 'off'} autocapitalize="off" minlength=${types[name] === 'password' ? PASSWORD_MIN : undefined} required=${!free.includes(name)} list=${known[name] ? `known-${name}` : undefined} />${known[name] && html`<datalist id=${`known-${name}`}>${known[name].map((one) => html`<option value=${one} />`)}</datalist>`}</label>`)}${children}<button class="main">${t('add')}</button></form>`;
}
