// How the reader's account is opened: password, second factor, passwords of programs, tokens, browsers that are signed in.
import { html, useState } from '../lib/html.js';
import { call, get } from '../lib/api.js';
import { date, exact } from '../lib/format.js';
import { t } from '../lib/i18n.js';
import { useFound } from '../lib/load.js';
import { PASSWORD_MIN, ask } from '../ui/dialog.js';
import { Copy } from '../ui/copy.js';
import { Icon, Tool } from '../ui/icons.js';
import { Waiting } from '../ui/waiting.js';

const PROTOCOLS = ['imap', 'pop3', 'submission', 'managesieve'];

export const Security = ({ session, renewed, note }) => html`<h2>${t('security')}</h2>
  <${Factor} session=${session} renewed=${renewed} say=${note.say} /><${Password} session=${session} /><${Apps} say=${note.say} /><${Tokens} session=${session} say=${note.say} /><${Browsers} say=${note.say} />`;

const Failed = ({ text }) => text && html`<p class="error" role="alert">${text}</p>`;
const Secret = ({ name, label, hint, code }) => html`<label><span>${label}</span><input name=${name} type=${code ? 'text' : 'password'} inputmode=${code ? 'numeric' : undefined} autocomplete=${code ? 'one-time-code' : hint || 'current-password'} minlength=${hint === 'new-password' ? PASSWORD_MIN : undefined} required /></label>`;

/** What a form says: `{ name: value }`, without what is empty. */
const fields = (form) => Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value.trim ? value.trim() : value]).filter(([, value]) => value));
/** The password as it was typed: blanks are part of it. */
const proof = (form) => ({ password: form.elements.password.value, ...(form.elements.code && form.elements.code.value.trim() ? { code: form.elements.code.value.trim() } : {}) });

function Password({ session }) {
  const [error, setError] = useState('');
  const submit = (event) => {
    event.preventDefault();
    const form = event.target, wanted = form.elements.new.value;
    if (wanted !== form.elements.repeat.value) { setError(t('notsame')); form.elements.repeat.focus(); return; }
    call('POST', '/api/v1/me/password', { ...proof(form), new: wanted }, { proves: true }).then(async () => {
      setError('');
      form.reset();
      // Every sign-in with the old one has ended, this one, too.
      await ask({ title: t('passwordchanged'), text: t('signinanew'), ok: t('signin') });
      location.href = '/login';
    }, (failed) => setError(failed.message));
  };
  return html`<section class="card" aria-label=${t('password')}><h3>${t('password')}</h3><p class="soft">${t('passwordhint')}</p><form class="bar adding" onSubmit=${submit}><input type="hidden" autocomplete="username" value=${session.address} />
    <${Secret} name="password" label=${t('currentpassword')} /><${Secret} name="new" label=${t('newpassword')} hint="new-password" /><${Secret} name="repeat" label=${t('repeatpassword')} hint="new-password" />${session.secondFactor && html`<${Secret} name="code" label=${t('code')} code />`}<button class="main">${t('changepassword')}</button></form><${Failed} text=${error} /></section>`;
}

function Factor({ session, renewed, say }) {
  const [begun, setBegun] = useState(null);
  const [recovery, setRecovery] = useState(null);
  const [error, setError] = useState('');
  const send = (method, body, then) => call(method, '/api/v1/me/second-factor', body, { proves: method !== 'PUT' }).then((answer) => { setError(''); then(answer); }, (failed) => setError(method === 'PUT' && failed.kind === 'invalid' ? t('codewrong') : failed.message));
  const begin = (event) => { event.preventDefault(); send('POST', proof(event.target), setBegun); };
  const confirm = (event) => { event.preventDefault(); send('PUT', { code: event.target.elements.code.value.replace(/\s/g, '') }, (answer) => { setBegun(null); setRecovery(answer.recovery); renewed(); }); };
  const remove = (event) => {
    event.preventDefault();
    const body = proof(event.target);
    ask({ title: t('endfactor'), text: t('endfactortext'), ok: t('endfactor'), danger: true }).then((yes) => yes && send('DELETE', body, () => { renewed(); say(t('factorended')); }));
  };
  const state = session.secondFactor ? html`<p class="good"><${Icon} name="check" /> ${t('factoron')}</p>` : html`<p>${t(session.lacksSecondFactor ? 'factorneeded' : 'factoroff')}</p>`;
  const prove = (act, button) => html`<form class="bar adding" onSubmit=${act}><input type="hidden" autocomplete="username" value=${session.address} /><${Secret} name="password" label=${t('currentpassword')} />${session.secondFactor && html`<${Secret} name="code" label=${t('code')} code />`}${button}</form>`;
  return html`<section class="card" aria-label=${t('secondfactor')}><h3>${t('secondfactor')}</h3>${state}<p class="soft">${t('factorhint')}</p>
    ${recovery && html`<div class="secret" role="status"><p><b>${t('recoveryhint')}</b></p><ul class="codes">${recovery.map((code) => html`<li><code>${code}</code></li>`)}</ul><div class="bar"><${Copy} text=${recovery.join('\n')} label=${t('copyall')} /><button type="button" onClick=${() => setRecovery(null)}>${t('havethem')}</button></div></div>`}
    ${begun && html`<div class="secret"><ol class="numbered"><li>${t('factorstep1')}<p><code>${begun.secret.replace(/(.{4})/g, '$1 ').trim()}</code> <${Copy} text=${begun.secret} label=${t('copysecret')} /></p><p><a href=${begun.uri}>${t('openapp')}</a> <${Copy} text=${begun.uri} label=${t('copyuri')} /></p><p><code>${begun.uri}</code></p></li>
      <li>${t('factorstep2')}<form class="bar adding" onSubmit=${confirm}><${Secret} name="code" label=${t('code')} code /><button class="main">${t('confirmcode')}</button><button type="button" onClick=${() => setBegun(null)}>${t('cancel')}</button></form></li></ol></div>`}
    ${!begun && !recovery && (session.secondFactor ? html`<details><summary>${t('endfactor')}</summary>${prove(remove, html`<button class="danger">${t('endfactor')}</button>`)}</details>` : prove(begin, html`<button class="main">${t('beginfactor')}</button>`))}<${Failed} text=${error} /></section>`;
}

/** What is shown once: a new password or token. */
const Once = ({ text, label, done }) => html`<div class="secret" role="status"><p><b>${label}</b></p><p><code>${text}</code></p><div class="bar"><${Copy} text=${text} label=${t('copy')} /><button type="button" onClick=${done}>${t('havethem')}</button></div></div>`;
const used = (one) => [t('madeat', { date: date(one.created) }), one.until && t('until', { date: date(one.until) }), one.used ? t('lastused', { time: exact(one.used) }) : t('neverused')].filter(Boolean).join(' · ');

/** A list of keys of one kind, each shown once when it is made. */
function Keys({ title, hint, empty, path, name, secret, made, remove, describe, form, body, say }) {
  const of = useFound(() => get(path), []);
  const [fresh, setFresh] = useState('');
  const [error, setError] = useState('');
  const rows = of.found ? of.found[name] : [];
  const submit = (event) => {
    event.preventDefault();
    const target = event.target;
    call('POST', path, body(target)).then((answer) => { setError(''); setFresh(answer[secret]); target.reset(); of.load(); }, (failed) => setError(failed.message));
  };
  const drop = async (one) => { if (await ask({ title: remove, text: one.name, ok: t('delete'), danger: true })) await call('DELETE', `${path}/${one.id}`).then(() => { setError(''); say(t('isdeleted', { name: one.name })); return of.load(); }, (failed) => setError(failed.message)); };
  return html`<section class="card" aria-label=${title}><h3>${title}</h3><p class="soft">${hint}</p><${Waiting} of=${of} />${of.found && !rows.length && html`<p class="soft">${empty}</p>`}
    <ul class="entries">${rows.map((one) => html`<li key=${one.id}><div><b>${one.name}</b><p class="soft">${describe(one)} · ${used(one)}</p></div><${Tool} icon="trash" label=${t('deleteone', { name: one.name })} onClick=${() => drop(one)} /></li>`)}</ul>
    ${fresh && html`<${Once} text=${fresh} label=${made} done=${() => setFresh('')} />`}
    ${form && html`<form class="adding" onSubmit=${submit}>${form(of.found)}</form>`}<${Failed} text=${error} /></section>`;
}

const Named = ({ button }) => html`<div class="bar"><label class="grow"><span>${t('name')}</span><input name="name" required maxlength="60" autocomplete="off" /></label><label><span>${t('untilfield')}</span><input type="date" name="until" /></label><button class="main">${button}</button></div>`;

function Apps({ say }) {
  const body = (form) => { const { name, until } = fields(form); return { name, until, protocols: PROTOCOLS.filter((one) => form.elements[one].checked) }; };
  const form = () => html`<fieldset><legend>${t('usablefor')}</legend><div class="ticks">${PROTOCOLS.map((one) => html`<label class="tick"><input type="checkbox" name=${one} defaultChecked=${one === 'imap' || one === 'submission'} /><span>${t(`pr-${one}`)}</span></label>`)}</div></fieldset><${Named} button=${t('makepassword')} />`;
  return html`<${Keys} title=${t('apppasswords')} hint=${t('appshint')} empty=${t('noapps')} path="/api/v1/app-passwords" name="appPasswords" secret="password" made=${t('newappshown')} remove=${t('deleteapp')} form=${form} body=${body} say=${say}
    describe=${(one) => one.protocols.map((protocol) => t(`pr-${protocol}`)).join(', ')} />`;
}

function Tokens({ session, say }) {
  const [kind, setKind] = useState('read');
  const scopes = (form, areas) => (kind === 'read' ? ['*:read'] : kind === 'write' ? ['*:write'] : areas.flatMap((area) => (form.elements[area].value ? [`${area}:${form.elements[area].value}`] : [])));
  const body = (form) => { const { name, until } = fields(form); return { name, until, scopes: scopes(form, [...form.querySelectorAll('[data-area]')].map((one) => one.name)) }; };
  const form = (found) => html`<fieldset><legend>${t('tokenmay')}</legend><div class="ticks">${['read', 'write', 'some'].map((one) => html`<label class="tick"><input type="radio" name="kind" value=${one} checked=${kind === one} onChange=${() => setKind(one)} /><span>${t(`scope-${one}`)}</span></label>`)}</div>
    ${kind === 'some' && found && html`<div class="scopes">${found.areas.filter((area) => area !== 'tokens').map((area) => html`<label><code>${area}</code><select name=${area} data-area><option value="">–</option><option value="read">${t('scopeword-read')}</option>${area !== 'me' && html`<option value="write">${t('scopeword-write')}</option>`}</select></label>`)}</div>`}</fieldset><${Named} button=${t('maketoken')} />`;
  return html`<${Keys} title=${t('tokens')} hint=${t('tokenshint')} empty=${t('notokens')} path="/api/v1/tokens" name="tokens" secret="token" made=${t('newtokenshown')} remove=${t('deletetoken')} form=${session.lacksSecondFactor ? null : form} body=${body} say=${say}
    describe=${(one) => one.scopes.join(', ')} />`;
}

function Browsers({ say }) {
  const of = useFound(() => get('/api/v1/me/sessions'), []);
  const [error, setError] = useState('');
  const rows = of.found ? of.found.sessions : [];
  const close = (id) => call('DELETE', `/api/v1/me/sessions/${id}`).then(({ closed }) => { setError(''); say(t('signedoutcount', { count: closed })); return of.load(); }, (failed) => setError(failed.message));
  return html`<section class="card" aria-label=${t('browsers')}><h3>${t('browsers')}</h3><p class="soft">${t('browsershint')}</p><${Waiting} of=${of} /><${Failed} text=${error} />
    <ul class="entries">${rows.map((one) => html`<li key=${one.id}><div><b>${t('signedinat', { time: exact(one.opened) })}</b>${one.this && html` <span class="tag">${t('thisbrowser')}</span>`}<p class="soft">${t('lastused', { time: exact(one.used) })}</p></div>
      ${!one.this && html`<button type="button" onClick=${() => close(one.id)}>${t('signout')}<span class="hidden"> (${exact(one.opened)})</span></button>`}</li>`)}</ul>
    ${rows.length > 1 && html`<div class="bar end"><button type="button" onClick=${() => close('others')}>${t('signoutothers')}</button></div>`}</section>`;
}
