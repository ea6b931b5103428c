// Windows in front of the page: the browser keeps the focus inside, and it goes back to where it was.
import { html, useEffect, useRef, useState } from '../lib/html.js';
import { t } from '../lib/i18n.js';
import { Tool } from './icons.js';

export function Dialog({ title, close, children, wide }) {
  const place = useRef(null);
  useEffect(() => {
    const dialog = place.current, from = document.activeElement;
    dialog.showModal();
    return () => {
      if (dialog.open) dialog.close();
      // The browser gives it back only while the window is still part of the page.
      if (document.activeElement === document.body && from.isConnected) from.focus();
    };
  }, []);
  return html`<dialog ref=${place} class=${wide ? 'wide' : ''} aria-label=${title} onCancel=${(event) => { event.preventDefault(); close(); }}
    onClick=${(event) => event.target === place.current && close()}>
    <div class="inside"><header><h2>${title}</h2><${Tool} icon="close" label=${t('close')} onClick=${close} /></header>${children}</div></dialog>`;
}

/** Characters, of which each is at least an octet. */
export const PASSWORD_MIN = 8;

let show = null;

/** Asks for a yes or, with `field`, for a text, or for one of `choices`, which are `[value, text]`; gives null when the reader
    thinks better of it. `must` is what has to be typed for what cannot be undone. */
export const ask = (question) => new Promise((answer) => show({ ...question, answer }));

export function Asking() {
  const [question, setQuestion] = useState(null);
  const [text, setText] = useState('');
  const input = useRef(null);
  // After the window has opened and taken the focus.
  useEffect(() => { if (question && input.current) setTimeout(() => input.current && input.current.select(), 0); }, [question]);
  useEffect(() => { show = (asked) => { setText(asked.value || (asked.choices ? asked.choices[0][0] : '')); setQuestion(asked); }; return () => { show = null; }; }, []);
  if (!question) return null;
  const done = (value) => { setQuestion(null); question.answer(value); };
  const has = question.field !== undefined;
  const ready = (!has || text.trim()) && (!question.must || text === question.must);
  return html`<${Dialog} title=${question.title} close=${() => done(null)}><form onSubmit=${(event) => { event.preventDefault(); if (ready) done(has ? text.trim() : true); }}>
    ${question.text && html`<p>${question.text}</p>`}
    ${question.choices && html`<label class="field"><span>${question.field}</span><select value=${text} onChange=${(event) => setText(event.target.value)}>${question.choices.map(([value, words]) => html`<option value=${value} selected=${value === text}>${words}</option>`)}</select></label>`}
    ${has && !question.choices && html`<label class="field"><span>${question.field}</span><input type=${question.kind || 'text'} autocomplete=${question.kind === 'password' ? 'new-password' : 'off'} minlength=${question.kind === 'password' ? PASSWORD_MIN : undefined} value=${text} onInput=${(event) => setText(event.target.value)} ref=${input} /></label>`}
    <div class="bar end"><button type="button" onClick=${() => done(null)}>${t('cancel')}</button><button class=${question.danger ? 'danger' : 'main'} disabled=${!ready}>${question.ok}</button></div></form></${Dialog}>`;
}
