// The frame around the faces: who is signed in, which face, which language.
import { html, render, useEffect, useState } from './lib/html.js';
import { get, setToken } from './lib/api.js';
import { language, setLanguage, t } from './lib/i18n.js';
import { Mail } from './faces/mail.js';

const faces = { mail: async () => Mail, log: async () => (await import('./faces/log.js')).Log, admin: async () => (await import('./faces/admin.js')).Admin };

export function go(path) {
  history.pushState(null, '', path);
  dispatchEvent(new PopStateEvent('popstate'));
}

function App() {
  const [session, setSession] = useState(null);
  const [error, setError] = useState('');
  const [path, setPath] = useState(location.pathname);
  const [loaded, setLoaded] = useState({});
  const name = path.split('/')[1] || 'mail';
  useEffect(() => {
    get('/api/v1/session').then((found) => { setToken(found.csrf); setSession(found); }, (failed) => setError(failed.message));
    const moved = () => setPath(location.pathname);
    addEventListener('popstate', moved);
    return () => removeEventListener('popstate', moved);
  }, []);
  useEffect(() => {
    let wanted = true;
    (faces[name] || faces.mail)().then((face) => wanted && setLoaded({ name, face }));
    return () => { wanted = false; };
  }, [name]);
  if (error) return html`<p class="error" role="alert">${error}</p>`;
  // A face must never see another one's address.
  const Face = loaded.name === name ? loaded.face : null;
  if (!session || !Face) return html`<p class="empty">${t('loading')}</p>`;
  const link = (face) => html`<a href="/${face}" aria-current=${name === face ? 'page' : undefined}
    onClick=${(event) => { event.preventDefault(); go(`/${face}`); }}>${t(face)}</a>`;
  return html`<div class="app">
    <a class="skip" href="#content">${t('skip')}</a>
    <header class="top"><h1>Ortler</h1><nav>${session.faces.map(link)}</nav><span class="space"></span>
      <span>${session.address}</span>
      <label><span class="hidden">${t('language')}</span><select value=${language()} onChange=${(event) => setLanguage(event.target.value)}>
        ${['de', 'it', 'en'].map((tag) => html`<option value=${tag} selected=${tag === language()}>${tag.toUpperCase()}</option>`)}</select></label>
      <form method="post" action="/logout"><button>${t('signout')}</button></form></header>
    <${Face} session=${session} path=${path} go=${go} />
  </div>`;
}

render(html`<${App} />`, document.getElementById('app'));
