// The node that answers, and those beside it.
import { html } from '../lib/html.js';
import { get } from '../lib/api.js';
import { count, size } from '../lib/format.js';
import { t } from '../lib/i18n.js';
import { useFound } from '../lib/load.js';
import { Waiting } from '../ui/waiting.js';

export function Node() {
  const of = useFound(async () => {
    const [node, { nodes }] = await Promise.all([get('/api/v1/node'), get('/api/v1/nodes')]);
    return { node, nodes };
  }, []);
  const { node, nodes = [] } = of.found || {}, store = (node && node.store) || {};
  return html`<h2>${t('node')}</h2><${Waiting} of=${of} />${node && html`<section class="card"><dl class="facts"><div><dt>${t('name')}</dt><dd>${node.name}</dd></div><div><dt>${t('version')}</dt><dd>${node.version}</dd></div>
      ${store.freeBytes !== undefined && store.freeBytes !== null && html`<div><dt>${t('free')}</dt><dd>${size(store.freeBytes)}</dd></div>`}<div><dt>${t('storage')}</dt><dd class=${store.writable === false ? 'bad' : 'good'}>${store.writable === false ? t('readonly') : t('works')}</dd></div></dl></section>
    ${nodes.length > 1 && html`<section class="card" aria-label=${t('nodes')}><h3>${t('nodes')}</h3><table class="stacked"><thead><tr><th scope="col">${t('name')}</th><th scope="col">${t('state')}</th><th scope="col">${t('version')}</th><th scope="col">${t('sessions')}</th></tr></thead><tbody>${nodes.map((one) => html`<tr key=${one.name}><td>${one.name}</td><td>${one.state}</td><td>${one.version}</td><td>${count(one.sessions)}</td></tr>`)}</tbody></table></section>`}`}`;
}
