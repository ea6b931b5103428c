// Whose policy or lists are shown. The address holds it: ?system=true, ?tenant=NAME, ?domain=NAME or ?account=ADDRESS.
import { html, useEffect, useRef, useState } from '../lib/html.js';
import { get } from '../lib/api.js';
import { t } from '../lib/i18n.js';
import { queryOf } from '../lib/load.js';
import { may } from '../lib/rights.js';

const KINDS = ['system', 'tenant', 'domain', 'account'];
const SOON = 250;
const FEW = 50;

/** `{ domain: 'example.org' }`, as the address says; null if it says nothing. */
export function ofPlace(query) {
  const kind = KINDS.find((name) => query.get(name));
  return kind ? { [kind]: query.get(kind) } : null;
}

/** Whether the viewer may change what is shown. */
export const mayChange = (session, of) => may(session, of.system ? 'systempolicy' : 'policy');

export function Whose({ session, place, go, of }) {
  const kinds = KINDS.filter((name) => (name === 'system' ? may(session, 'seesystempolicy') : session.sees.includes(`${name}s`)));
  const [kind, setKind] = useState(of ? Object.keys(of)[0] : kinds[0]);
  const [typed, setTyped] = useState(of && !of.system ? Object.values(of)[0] : '');
  const [known, setKnown] = useState([]);
  const input = useRef(null);
  const show = (next) => go(`${place.path}${queryOf(next)}`, !of);
  const names = (search) => get(`/api/v1/${kind}s${queryOf({ search, limit: FEW })}`).then((found) => found[`${kind}s`].map((one) => one.name && kind !== 'account' ? one.name : one.address));
  // Who has one domain means that one.
  useEffect(() => { if (!of) { if (kind === 'system') show({ system: true }); else names('').then((found) => found[0] && show({ [kind]: found[0] }), () => {}); } }, []);
  useEffect(() => {
    if (kind === 'system') return undefined;
    let wanted = true;
    const timer = setTimeout(() => names(typed).then((found) => wanted && setKnown(found), () => {}), SOON);
    return () => { wanted = false; clearTimeout(timer); };
  }, [kind, typed]);
  const choose = (next) => { setKind(next); setTyped(''); if (next === 'system') show({ system: true }); else setTimeout(() => input.current && input.current.focus(), 0); };
  return html`<form class="bar whose" aria-label=${t('whose')} onSubmit=${(event) => { event.preventDefault(); if (kind !== 'system' && typed.trim()) show({ [kind]: typed.trim() }); }}>
    <label><span>${t('whose')}</span><select value=${kind} onChange=${(event) => choose(event.target.value)}>${kinds.map((name) => html`<option value=${name} selected=${name === kind}>${t(`whose-${name}`)}</option>`)}</select></label>
    ${kind !== 'system' && html`<label class="grow"><span>${t(kind === 'account' ? 'address' : 'name')}</span><input ref=${input} type="text" list="whose-known" autocomplete="off" autocapitalize="off" spellcheck="false" required value=${typed} onInput=${(event) => setTyped(event.target.value)} /></label><datalist id="whose-known">${known.map((name) => html`<option value=${name} />`)}</datalist><button>${t('show')}</button>`}</form>`;
}
