// A small JMAP client (RFC 8620): calls in batches, back-references as plain arguments, push by event source.
import { call, get } from './api.js';

const USING = ['urn:ietf:params:jmap:core', 'urn:ietf:params:jmap:mail', 'urn:ietf:params:jmap:submission'];
let session = null;

export async function start() {
  session = await get('/jmap/session');
  return session;
}

export const account = () => session.primaryAccounts['urn:ietf:params:jmap:mail'];

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

export const reference = (at, name, path) => ({ resultOf: String(at), name, path });

export const download = (blobId, name, type) => session.downloadUrl
  .replace('{accountId}', encodeURIComponent(account())).replace('{blobId}', encodeURIComponent(blobId))
  .replace('{name}', encodeURIComponent(name || 'attachment')).replace('{type}', encodeURIComponent(type || 'application/octet-stream'));

/** Calls `changed` after every change of the account; gives a function that stops it. The browser reconnects by itself. */
export function watch(changed) {
  const url = session.eventSourceUrl.replace('{types}', '*').replace('{closeafter}', 'no').replace('{ping}', '30');
  const source = new EventSource(url);
  source.addEventListener('state', changed);
  return () => source.close();
}
