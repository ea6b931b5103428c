// Calls to our own server. The session cookie goes along by itself; what changes state carries the token.
import { has, t } from './i18n.js';

let csrf = '';
export const setToken = (token) => { csrf = token || ''; };
export const csrfToken = () => csrf;

/** What the server answered, in the reader's words where we have some. */
export function failure(status, value) {
  const kind = value && value.error;
  if (kind && has(`e-${kind}`)) return new Error(t(`e-${kind}`));
  return new Error((value && (value.detail || value.message || value.title)) || t('e-status', { status }));
}

export async function call(method, path, body) {
  const headers = { Accept: 'application/json' };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  if (method !== 'GET') headers['X-CSRF-Token'] = csrf;
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch { throw new Error(t('e-network')); }
  if (answer.status === 401) { location.href = '/login'; throw new Error(t('e-sign-in')); }
  const text = await answer.text();
  let value = null;
  try { value = text ? JSON.parse(text) : null; } catch { value = null; }
  if (!answer.ok) throw failure(answer.status, value);
  return value;
}

export const get = (path) => call('GET', path);
