// Calls to our own server. The session cookie goes along by itself; what changes state carries the token.
let csrf = '';
export const setToken = (token) => { csrf = token || ''; };

export async function call(method, path, body) {
  const headers = { Accept: 'application/json' };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  if (method !== 'GET') headers['X-CSRF-Token'] = csrf;
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  if (answer.status === 401) { location.href = '/login'; throw new Error('signed out'); }
  const text = await answer.text();
  let value = null;
  try { value = text ? JSON.parse(text) : null; } catch { value = null; }
  if (!answer.ok) throw new Error((value && (value.detail || value.error || value.title)) || `${answer.status} ${answer.statusText}`);
  return value;
}

export const get = (path) => call('GET', path);
