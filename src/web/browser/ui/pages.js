// The pages of a face: named at the side, or above where the screen is narrow.
import { html, useEffect, useRef } from '../lib/html.js';

/** `pages` are `[name, title, query]`; each lies at /FACE/NAME. */
export function Pages({ face, label, pages, current, go, children }) {
  const page = useRef(null), title = (pages.find(([name]) => name === current) || ['', label])[1];
  // The one or the other scrolls.
  useEffect(() => { for (const place of [page.current, page.current.parentNode]) place.scrollTop = 0; }, [current]);
  return html`<main id="content" class="paged ${face}"><nav class="side" aria-label=${label}><ul>${pages.map(([name, text, query = '']) => html`<li key=${name}><a href="/${face}/${name}${query}" aria-current=${name === current ? 'page' : undefined}
      onClick=${(event) => { event.preventDefault(); go(`/${face}/${name}${query}`); }}>${text}</a></li>`)}</ul></nav>
    <div class="page" ref=${page} tabindex="0" role="region" aria-label=${title}>${children}</div></main>`;
}
