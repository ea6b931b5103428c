// Changes of a policy that are to come.
import { html, useState } from '../lib/html.js';
import { call, get } from '../lib/api.js';
import { exact } from '../lib/format.js';
import { t } from '../lib/i18n.js';
import { useFound } from '../lib/load.js';
import { called, settingText } from '../lib/options.js';
import { ask } from '../ui/dialog.js';
import { Tool } from '../ui/icons.js';
import { Waiting } from '../ui/waiting.js';

export function Plans({ query, options, mayChange }) {
  const of = useFound(() => get(`/api/v1/policy/plans${query}`), [query]);
  const [error, setError] = useState('');
  const plans = of.found ? of.found.plans : [];
  const drop = async (plan) => {
    if (await ask({ title: t('dropplan'), text: exact(plan.at), ok: t('dropplan'), danger: true })) await call('DELETE', `/api/v1/policy/plans/${plan.id}${query}`).then(() => { setError(''); return of.load(); }, (failed) => setError(failed.message));
  };
  return html`<section class="card" aria-label=${t('plans')}><h3>${t('plans')}</h3>${error && html`<p class="error" role="alert">${error}</p>`}<${Waiting} of=${of} />
    ${of.found && !plans.length && html`<p class="soft">${t('noplans')}</p>`}
    <ul class="changes">${plans.map((plan) => html`<li key=${plan.id}><div><b>${exact(plan.at)}</b> <span class="soft">${plan.by}${plan.note ? ` · ${plan.note}` : ''}</span><ul>${plan.edits.map((edit) => html`<li>${called(edit.option)}: ${settingText(edit, options.get(edit.option))}</li>`)}</ul></div>
      ${mayChange && html`<${Tool} icon="trash" label=${t('dropplan')} onClick=${() => drop(plan)} />`}</li>`)}</ul></section>`;
}
