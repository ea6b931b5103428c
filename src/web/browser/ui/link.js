// A link to elsewhere in these pages, which are not loaded again for it.
import { html } from '../lib/html.js';

export const Link = ({ to, go, children }) => html`<a href=${to} onClick=${(event) => { event.preventDefault(); go(to); }}>${children}</a>`;
