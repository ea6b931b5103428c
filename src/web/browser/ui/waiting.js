// What stands where a page's content is still to come, or did not.
import { html } from '../lib/html.js';
import { t } from '../lib/i18n.js';

/** `of` is what `useFound` or `useRows` gave. */
export const Waiting = ({ of }) => (of.error ? html`<p class="error" role="alert">${of.error} <button type="button" onClick=${of.load}>${t('retry')}</button></p>` : !of.found && !of.rows && html`<p class="empty">${t('loading')}</p>`);
