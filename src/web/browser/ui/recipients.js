// Addresses as chips: each stands for itself, with its own error.
import { html, useEffect, useRef, useState } from '../lib/html.js';
import { people } from '../lib/format.js';
import { t } from '../lib/i18n.js';

/** `Anna B <a@b>, c@d` to JMAP addresses. */
export function addresses(text) {
  return (text || '').split(/[,;\n](?=(?:[^"]*"[^"]*")*[^"]*$)/).map((one) => one.trim()).filter(Boolean).map((one) => {
    const found = one.match(/^(.*)<([^<>]*)>$/);
    return found ? { name: found[1].trim().replace(/^"|"$/g, '') || null, email: found[2].trim() } : { name: null, email: one };
  });
}

/** What is wrong with an address as it is written; nothing if it may exist. */
export function fault(email) {
  const at = email.lastIndexOf('@');
  if (at < 1 || at === email.length - 1) return 'a-form';
  const local = email.slice(0, at), domain = email.slice(at + 1);
  if (/[\s,;:<>()[\]\\"]/.test(local) && !/^".*"$/.test(local)) return 'a-form';
  if (local.length > 64 || /^\.|\.$|\.\./.test(local)) return 'a-form';
  const labels = domain.split('.');
  if (labels.length < 2 || labels.some((one) => !one || one.length > 63 || /^-|-$/.test(one) || /[\s_@!#$%&'*+/=?^`{|}~,;:<>()[\]\\"]/.test(one))) return 'a-domain';
  return null;
}

/** `list` holds JMAP addresses; `faults` maps an address to a key of its error. */
export function Recipients({ name, list, change, faults, known, focus, children }) {
  const [typed, setTyped] = useState('');
  const input = useRef(null);
  useEffect(() => { if (focus) input.current.focus(); }, []);
  const wrong = (one) => fault(one.email) || faults.get(one.email.toLowerCase());
  const take = (text) => {
    const fresh = addresses(text).filter((one) => !list.some((other) => other.email.toLowerCase() === one.email.toLowerCase()));
    if (fresh.length) change([...list, ...fresh]);
    setTyped('');
  };
  const write = (event) => {
    const text = event.target.value;
    // Taken at a comma, unless it is inside a quoted name.
    if (/[,;]\s*$/.test(text) && addresses(text).length && (text.match(/"/g) || []).length % 2 === 0) take(text); else setTyped(text);
  };
  const key = (event) => {
    if (event.key === 'Enter' && typed.trim()) { event.preventDefault(); take(typed); } else if (event.key === 'Enter') event.preventDefault();
    else if (event.key === 'Backspace' && !typed && list.length) { event.preventDefault(); change(list.slice(0, -1)); setTyped(list[list.length - 1].email); }
  };
  const paste = (event) => {
    const text = event.clipboardData.getData('text');
    if (/[,;\n]/.test(text.trim())) { event.preventDefault(); take(`${typed}${text}`); }
  };
  const remove = (one) => { change(list.filter((other) => other !== one)); if (input.current) input.current.focus(); };
  const bad = list.filter(wrong);
  return html`<div class="field recipients"><label for=${name}>${t(name.replace(/-.*/, ''))}</label><div class="chips">
    ${list.map((one) => html`<span class="chip ${wrong(one) ? 'bad' : ''}" key=${one.email} title=${people([one])}>${wrong(one) && html`<b aria-hidden="true">!</b>`}<span>${one.name || one.email}</span><button type="button" aria-label=${t('removeone', { name: one.email })} onClick=${() => remove(one)}>×</button></span>`)}
    <input ref=${input} id=${name} name=${name.replace(/-.*/, '')} type="text" inputmode="email" autocomplete="off" list=${`${name}-known`} value=${typed} aria-invalid=${bad.length > 0} aria-describedby=${bad.length ? `${name}-faults` : undefined}
      onInput=${write} onKeyDown=${key} onPaste=${paste} onBlur=${() => typed.trim() && take(typed)} />${children}</div>
    <datalist id=${`${name}-known`}>${typed.length > 1 && known().map((text) => html`<option value=${text} />`)}</datalist>
    ${bad.length > 0 && html`<ul class="faults" id=${`${name}-faults`} role="alert">${bad.map((one) => html`<li>${t(wrong(one), { address: one.email, domain: one.email.split('@').pop() })}</li>`)}</ul>`}</div>`;
}
