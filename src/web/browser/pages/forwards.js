// Where the reader's mail goes, too: each target has to agree first.
import { html, useRef, useState } from '../lib/html.js';
import { call, get } from '../lib/api.js';
import { exact } from '../lib/format.js';
import { t } from '../lib/i18n.js';
import { useFound } from '../lib/load.js';
import { called, term } from '../lib/options.js';
import { Icon, Tool } from '../ui/icons.js';
import { Waiting } from '../ui/waiting.js';

export function Forwards({ note }) {
  const of = useFound(async () => {
    const [forwards, policy] = await Promise.all([get('/api/v1/forwards'), get('/api/v1/policy')]);
    return { ...forwards, allowed: (policy.options.find((one) => one.option === 'forwarding') || {}).value };
  }, []);
  const [typed, setTyped] = useState('');
  const [error, setError] = useState('');
  const title = useRef(null);
  const { targets = [], keeps = true, allowed } = of.found || {};
  const set = (next, keep, text) => call('PUT', '/api/v1/forwards', { targets: next, keeps: keep }).then(() => { setError(''); note.say(text); return of.load(); }, (failed) => { setError(failed.message); throw failed; });
  const names = targets.map((one) => one.target);
  const add = (event) => { event.preventDefault(); set([...names, typed.trim()], keeps, t('forwardasked', { address: typed.trim() })).then(() => setTyped(''), () => {}); };
  const remove = (target) => set(names.filter((one) => one !== target), keeps || names.length === 1, t('forwardremoved', { address: target })).then(() => title.current && title.current.focus(), () => {});
  return html`<h2 ref=${title} tabindex="-1">${t('forwards')}</h2><p class="soft">${t('forwardshint')}</p>${error && html`<p class="error" role="alert">${error}</p>`}
    <section class="card"><${Waiting} of=${of} />${of.found && html`
      ${allowed && allowed !== 'anywhere' && html`<p class="banner"><${Icon} name="lock" /><span>${called('forwarding')}: ${term(`forwarding=${allowed}`)}</span></p>`}
      ${!targets.length && html`<p class="empty">${t('noforwards')}</p>`}
      <ul class="entries">${targets.map((one) => html`<li key=${one.target}><span class="stand ${one.confirmed ? 'allow' : 'wait'}"><${Icon} name=${one.confirmed ? 'check' : 'pause'} />${t(one.confirmed ? 'isconfirmed' : 'iswaiting')}</span><div><b>${one.target}</b><p class="soft">${one.confirmed ? t('confirmedat', { time: exact(one.confirmed) }) : t('askedforward', { time: exact(one.asked) })}</p></div>
        <${Tool} icon="trash" label=${t('deleteone', { name: one.target })} onClick=${() => remove(one.target)} /></li>`)}</ul>
      ${targets.length > 0 && html`<label class="tick"><input type="checkbox" checked=${keeps} onChange=${(event) => set(names, event.target.checked, t(event.target.checked ? 'keepson' : 'keepsoff')).catch(() => {})} /><span>${t('keepcopy')}</span></label>${!keeps && html`<p class="soft">${t('keepsoff')}</p>`}`}
      ${allowed !== 'nowhere' && html`<form class="bar adding" onSubmit=${add}><label class="grow"><span>${t('forwardto')}</span><input type="email" name="target" required autocomplete="off" value=${typed} onInput=${(event) => setTyped(event.target.value)} /></label><button class="main">${t('add')}</button></form>`}`}</section>`;
}
