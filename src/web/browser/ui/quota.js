// How much may be stored.
import { html } from '../lib/html.js';
import { size } from '../lib/format.js';
import { t } from '../lib/i18n.js';

const GB = 1_000_000_000;

export const limits = (one) => [one.quota && size(one.quota), one.quotaMessages && t('countof', { count: one.quotaMessages })].filter(Boolean).join(', ');

/** `set` hears `{ quota, quotaMessages }` in octets and messages; zero is no limit. */
export function Quota({ of, set }) {
  const submit = (event) => {
    event.preventDefault();
    const { gb, messages } = event.target.elements;
    set({ quota: Math.round(Number(gb.value) * GB), quotaMessages: Number(messages.value) });
  };
  return html`<form class="bar adding" onSubmit=${submit} aria-label=${t('limit')}><label><span>${t('quotasize')}</span><input name="gb" type="number" min="0" step="any" defaultValue=${(of.quota || 0) / GB} /></label><label><span>${t('quotamessages')}</span><input name="messages" type="number" min="0" step="1" defaultValue=${of.quotaMessages || 0} /></label><button>${t('save')}</button><small class="soft">${t('quotahint')}</small></form>`;
}
