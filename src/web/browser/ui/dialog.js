// Windows in front of the page: the browser keeps the focus inside and gives it back.
import { html, useEffect, useRef, useState } from '../lib/html.js';
import { t } from '../lib/i18n.js';
import { Tool } from './icons.js';

export function Dialog({ title, close, children, wide }) {
  const place = useRef(null);
  useEffect(() => { const dialog = place.current; dialog.showModal(); return () => dialog.open && dialog.close(); }, []);
  return html`<dialog ref=${place} class=${wide ? 'wide' : ''} aria-label=${title} onCancel=${(event) => { event.preventDefault(); close(); }}
    onClick=${(event) => event.target === place.current && close()}>
    <div class="inside"><header><h2>${title}</h2><${Tool} icon="close" label=${t('close')} onClick=${close} /></header>${children}</div></dialog>`;
}

let show = null;

/** Asks for a yes or, with `field`, for a text; gives null when the reader thinks better of it. `must` is what has to be
    typed for what cannot be undone. */
export const ask = (question) => new Promise((answer) => show({ ...question, answer }));

export function Asking() {
  const [question, setQuestion] = useState(null);
  const [text, setText] = useState('');
  const input = useRef(null);
  // After the window has opened and taken the focus.
  useEffect(() => { if (question && input.current) setTimeout(() => input.current && input.current.select(), 0); }, [question]);
  useEffect(() => { show = (asked) => { setText(asked.value || ''); setQuestion(asked); }; return () => { show = null; }; }, []);
  if (!question) return null;
  const done = (value) => { setQuestion(null); question.answer(value); };
  const has = question.field !== undefined;
  const ready = (!has || text.trim()) && (!question.must || text === question.must);
  return html`<${Dialog} title=${question.title} close=${() => done(null)}><form onSubmit=${(event) => { event.preventDefault(); if (ready) done(has ? text.trim() : true); }}>
    ${question.text && html`<p>${question.text}</p>`}
    ${has && html`<label class="field"><span>${question.field}</span><input type=${question.kind || 'text'} autocomplete=${question.kind === 'password' ? 'new-password' : 'off'} value=${text} onInput=${(event) => setText(event.target.value)} ref=${input} /></label>`}
    <div class="bar end"><button type="button" onClick=${() => done(null)}>${t('cancel')}</button><button class=${question.danger ? 'danger' : 'main'} disabled=${!ready}>${question.ok}</button></div></form></${Dialog}>`;
}
