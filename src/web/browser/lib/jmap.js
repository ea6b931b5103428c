// A small JMAP client (RFC 8620): calls in batches, back-references as plain arguments, push by event source.
import { call, csrfToken, failure, get, listen, renew, signedOut } from './api.js';
import { t } from './i18n.js';

const USING = ['urn:ietf:params:jmap:core', 'urn:ietf:params:jmap:mail', 'urn:ietf:params:jmap:submission'];
let session = null;

/** Learns where the server is asked, once. */
export async function start() {
  if (!session) session = await get('/jmap/session');
  return session;
}

export const account = () => session.primaryAccounts['urn:ietf:params:jmap:mail'];
export const uploadMax = () => session.capabilities['urn:ietf:params:jmap:core'].maxSizeUpload;

/** `calls` are [method, arguments]; gives the answers' arguments in order. The first error is thrown. */
export async function request(calls) {
  const methodCalls = calls.map(([name, args], at) => [name, { accountId: account(), ...args }, String(at)]);
  const answer = await call('POST', session.apiUrl, { using: USING, methodCalls });
  return calls.map((_, at) => {
    const found = answer.methodResponses.filter((response) => response[2] === String(at));
    const failed = found.find((response) => response[0] === 'error');
    if (failed) throw new Error(failed[1].description || failed[1].type);
    return found[0][1];
  });
}

/** Changes objects of a type; what the server refuses is thrown. */
export async function set(type, args) {
  const [answer] = await request([[`${type}/set`, args]]);
  // What is to go and is not there is gone.
  const refused = ['notCreated', 'notUpdated', 'notDestroyed'].flatMap((name) => Object.values(answer[name] || {}).filter((one) => name !== 'notDestroyed' || one.type !== 'notFound'))[0];
  if (refused) throw new Error(refused.description || refused.type);
  return answer;
}

export const reference = (at, name, path) => ({ resultOf: String(at), name, path });

export const download = (blobId, name, type) => session.downloadUrl
  .replace('{accountId}', encodeURIComponent(account())).replace('{blobId}', encodeURIComponent(blobId))
  .replace('{name}', encodeURIComponent(name || 'attachment')).replace('{type}', encodeURIComponent(type || 'application/octet-stream'));

/** Sends a file. `told` hears the share that is done; gives `{ done, stop }`. */
export function upload(file, told) {
  let sending = null, stopped = false;
  const attempt = () => new Promise((resolve, reject) => {
    if (stopped) { reject(new Error('stopped')); return; }
    sending = new XMLHttpRequest();
    sending.open('POST', session.uploadUrl.replace('{accountId}', encodeURIComponent(account())));
    sending.setRequestHeader('Content-Type', file.type || 'application/octet-stream');
    sending.setRequestHeader('X-CSRF-Token', csrfToken());
    sending.upload.onprogress = (event) => event.lengthComputable && told(event.loaded / event.total);
    sending.onload = () => {
      let value = null;
      try { value = JSON.parse(sending.responseText); } catch { value = null; }
      if (sending.status === 201 && value) resolve(value); else reject(Object.assign(sending.status === 401 ? signedOut() : failure(sending.status, value), { status: sending.status }));
    };
    sending.onerror = () => reject(new Error(t('e-network')));
    sending.onabort = () => reject(new Error('stopped'));
    sending.send(file);
  });
  const done = attempt().catch(async (failed) => { if (failed.status === 403 && await renew()) return attempt(); throw failed; });
  return { done, stop: () => { stopped = true; sending.abort(); } };
}

/** Calls `changed` after every change of the account and `online` with the state of the connection; gives a function
    that stops it. After a gap everything is looked at anew. */
export function watch(changed, online) {
  const url = session.eventSourceUrl.replace('{types}', '*').replace('{closeafter}', 'no').replace('{ping}', '30');
  let lost = false;
  return listen(() => url, { state: changed }, (is) => { online(is); if (is && lost) changed(); lost = !is; });
}
