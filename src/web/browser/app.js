// The frame around the faces: who is signed in, which face, which language and theme.
import { html, render, useEffect, useRef, useState } from './lib/html.js';
import { get, setPerson } from './lib/api.js';
import { language, languages, setLanguage, t } from './lib/i18n.js';
import { applyTheme, setTheme, theme } from './lib/settings.js';
import { Asking } from './ui/dialog.js';
import { Icon } from './ui/icons.js';
import { Note, useNote } from './ui/note.js';
import { Composers, useDrafts } from './faces/composers.js';
import { Help } from './faces/help.js';
import { Mail } from './faces/mail.js';

const FACES = { mail: async () => Mail, filter: async () => (await import('./faces/filter.js')).Filter, log: async () => (await import('./faces/log.js')).Log, admin: async () => (await import('./faces/admin.js')).Admin,
  recover: async () => (await import('./faces/recover.js')).Recover };
const ICONS = { mail: 'mail', filter: 'filter', log: 'log', admin: 'shield' };

applyTheme();

/** The address is the state of the page: what it shows can be loaded again, shared and gone back to. */
export function go(path, replaces) {
  history[replaces ? 'replaceState' : 'pushState'](null, '', path);
  dispatchEvent(new PopStateEvent('popstate'));
}
const here = () => ({ path: location.pathname, query: new URLSearchParams(location.search) });

function App() {
  const [session, setSession] = useState(null);
  const [error, setError] = useState('');
  const [attempt, setAttempt] = useState(0);
  const [place, setPlace] = useState(here());
  const [loaded, setLoaded] = useState({});
  const note = useNote();
  const desk = useDrafts(note.say);
  const mail = useRef({ mailboxes: [], known: () => [], changed: () => {}, focus: () => {} });
  const name = FACES[place.path.split('/')[1]] ? place.path.split('/')[1] : 'mail';
  const renewed = () => get('/api/v1/session').then((found) => { setPerson(found); setSession(found); }, (failed) => setError(failed.message));
  const begin = () => { setError(''); if (session) setAttempt(attempt + 1); else renewed(); };
  useEffect(() => {
    begin();
    const moved = () => setPlace(here());
    addEventListener('popstate', moved);
    return () => removeEventListener('popstate', moved);
  }, []);
  useEffect(() => {
    let wanted = true;
    if (session) setError('');
    FACES[name]().then((face) => wanted && setLoaded({ name, face }), (failed) => wanted && setError(failed.message));
    document.title = name === 'mail' ? 'Ortler' : `${t(name)} · Ortler`;
    return () => { wanted = false; };
  }, [name, attempt]);
  const blank = error ? html`<main class="blank"><p class="error" role="alert">${error}</p><button onClick=${begin}>${t('retry')}</button></main>` : html`<p class="blank">${t('loading')}</p>`;
  // A face must never see another one's address.
  const has = (face) => face === 'recover' || session.faces.includes(face);
  const Face = loaded.name === name && session && has(name) ? loaded.face : null;
  useEffect(() => { if (session && !has(name)) go(`/${session.faces[0]}`, true); }, [session, name]);
  if (!session) return blank;
  const shared = { session, renewed, place, go, note, desk, mail };
  const link = (face) => html`<a href="/${face}" aria-current=${name === face ? 'page' : undefined}
    onClick=${(event) => { event.preventDefault(); go(`/${face}`); }}><${Icon} name=${ICONS[face]} /><span>${t(face)}</span></a>`;
  return html`<div class="app">
    <a class="skip" href="#content">${t('skip')}</a>
    <header class="top"><h1><${Mark} /><span>Ortler</span></h1><nav aria-label=${t('faces')}>${session.faces.map(link)}</nav><span class="space"></span><${Settings} session=${session} go=${go} /></header>
    ${session.lacksSecondFactor && html`<aside class="banner notice" aria-label=${t('secondfactor')}><${Icon} name="shield" /><span>${t('lacksfactor')}</span><a href="/filter/security" onClick=${(event) => { event.preventDefault(); go('/filter/security'); }}>${t('tosecurity')}</a></aside>`}
    ${Face && !error ? html`<${Face} ...${shared} />` : blank}
    <${Composers} desk=${desk} session=${session} mail=${mail} say=${note.say} />
    <${Note} of=${note} go=${go} />
    <${Asking} />
  </div>`;
}

const Mark = () => html`<svg class="mark" viewBox="0 0 24 24" aria-hidden="true"><path d="M2 20 9 6l4 7 2.5-4L22 20z" fill="currentColor" /></svg>`;

/** What one sets for oneself; closes when one goes elsewhere. */
function Settings({ session, go }) {
  const place = useRef(null);
  const [help, setHelp] = useState(false);
  useEffect(() => {
    const leave = (event) => { if (place.current && !place.current.contains(event.target)) place.current.open = false; };
    const key = (event) => { if (event.key === 'Escape' && place.current && place.current.open) { place.current.open = false; place.current.querySelector('summary').focus(); } };
    addEventListener('pointerdown', leave);
    addEventListener('keydown', key);
    return () => { removeEventListener('pointerdown', leave); removeEventListener('keydown', key); };
  }, []);
  const choice = (label, value, change, options) => html`<label><span>${t(label)}</span><select value=${value} onChange=${(event) => change(event.target.value)}>
    ${options.map(([name, text]) => html`<option value=${name} selected=${name === value}>${text}</option>`)}</select></label>`;
  return html`<details class="menu settings" ref=${place}><summary title=${t('settings')}><span class="who">${session.address}</span><${Icon} name="down" /></summary>
    <div class="panel"><p class="soft">${session.name ? `${session.name} · ` : ''}${session.address}</p>
      ${choice('language', language(), setLanguage, languages.map((tag) => [tag, t(`l-${tag}`)]))}
      ${choice('theme', theme(), setTheme, ['system', 'light', 'dark'].map((name) => [name, t(`theme-${name}`)]))}
      <button type="button" onClick=${() => { place.current.open = false; setHelp(true); }}>${t('keys')}</button>
      <button type="button" onClick=${() => { place.current.open = false; go('/filter/security'); }}>${t('security')}</button>
      <button type="button" onClick=${() => { place.current.open = false; go('/recover'); }}>${t('recover')}</button>
      <form method="post" action="/logout"><button>${t('signout')}</button></form></div></details>${help && html`<${Help} close=${() => setHelp(false)} />`}`;
}

render(html`<${App} />`, document.getElementById('app'));
