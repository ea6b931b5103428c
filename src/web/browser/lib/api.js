// Calls to our own server. The session cookie goes along by itself; what changes state carries the token.
import { has, t } from './i18n.js';

let csrf = '', account = '';
/** Whom this page acts for: what `/api/v1/session` said. */
export const setPerson = (session) => { csrf = session.csrf || ''; account = session.accountId; };
export const csrfToken = () => csrf;

/** What the server answered, in the reader's words where we have some; with its `kind` and, where one is to blame, the
    `field` of what was sent. */
export function failure(status, value) {
  const { error: kind, field } = value || {};
  const text = kind && has(`e-${kind}`) ? t(`e-${kind}`) : (value && (value.detail || value.message || value.title)) || t('e-status', { status });
  return Object.assign(new Error(text), { kind, field });
}

/** True while something would be lost with the page: then one signs in elsewhere and goes on here. */
const isWriting = () => Boolean(document.querySelector('.compose'));
export const signedOut = () => new Error(t(isWriting() ? 'e-sign-in-again' : 'e-sign-in'));

/** Signed in anew in another window: this one's token is an old one. True if there is a newer one; whoever is somebody
    else by now must not act here for the one whose page this is. */
export async function renew() {
  const fresh = await get('/api/v1/session');
  if (fresh.accountId !== account) throw signedOut();
  const isNew = Boolean(fresh.csrf) && fresh.csrf !== csrf;
  if (isNew) csrf = fresh.csrf;
  return isNew;
}

/** `match`: the version that a change is made on. `proves`: the body has the password, so that 401 may mean that this is wrong. */
export async function call(method, path, body, { match, proves, again } = {}) {
  const headers = { Accept: 'application/json' };
  if (match !== undefined) headers['If-Match'] = `"${match}"`;
  const isFile = body instanceof Blob;
  if (body !== undefined) headers['Content-Type'] = isFile ? 'text/csv' : 'application/json';
  if (method !== 'GET') headers['X-CSRF-Token'] = csrf;
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined || isFile ? body : JSON.stringify(body) });
  } catch { throw new Error(t('e-network')); }
  if (answer.status === 401 && !proves) { if (!isWriting()) location.href = '/login'; throw signedOut(); }
  if (answer.status === 403 && method !== 'GET' && !again && await renew()) return call(method, path, body, { match, proves, again: true });
  const text = await answer.text();
  let value = null;
  try { value = text ? JSON.parse(text) : null; } catch { value = null; }
  if (answer.status === 401) {
    // Whoever is no longer signed in is led to the sign-in by this.
    await get('/api/v1/session');
    if (value && value.error === 'sign-in') throw new Error(t('e-proof'));
  }
  if (!answer.ok) throw failure(answer.status, value);
  return value;
}

export const get = (path) => call('GET', path);

const AGAIN_AFTER = 5000;

/** A stream of events; `url` says where it begins or goes on, `events` are functions by name, `online` hears whether it is there. A browser gives up when the
    server answers with an error: then it is asked again, first whether one is still signed in. Gives a function that
    ends it. */
export function listen(url, events, online) {
  let source = null, timer = 0, ended = false;
  const later = () => { clearTimeout(timer); if (!ended) timer = setTimeout(() => get('/api/v1/session').then(open, later), AGAIN_AFTER); };
  const open = () => {
    if (ended) return;
    source = new EventSource(url());
    for (const [name, act] of Object.entries(events)) source.addEventListener(name, act);
    source.onopen = () => online(true);
    source.onerror = () => {
      online(false);
      if (source.readyState === EventSource.CLOSED) later();
    };
  };
  open();
  return () => { ended = true; clearTimeout(timer); source.close(); };
}
