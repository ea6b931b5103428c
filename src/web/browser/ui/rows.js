// A list of any length of which only the visible part exists.
import { html, useEffect, useLayoutEffect, useRef, useState } from '../lib/html.js';

const BEYOND = 6;

/** `row(index)` draws one item of `height` pixels; `seen(first, last)` hears what is visible. `current` is an index that
    is kept in sight. */
export function Rows({ total, height, row, seen, label, current, top, children }) {
  const place = useRef(null);
  const [view, setView] = useState({ from: 0, size: 800 });
  const look = () => { const box = place.current; if (box) setView((known) => (known.from === box.scrollTop && known.size === box.clientHeight ? known : { from: box.scrollTop, size: box.clientHeight })); };
  useEffect(() => {
    let frame = 0;
    const later = () => { frame = frame || requestAnimationFrame(() => { frame = 0; look(); }); };
    const watcher = new ResizeObserver(later);
    watcher.observe(place.current);
    place.current.addEventListener('scroll', later, { passive: true });
    return () => { watcher.disconnect(); cancelAnimationFrame(frame); };
  }, []);
  useLayoutEffect(() => { if (place.current) { place.current.scrollTop = 0; look(); } }, [top]);
  useLayoutEffect(() => {
    const box = place.current;
    if (!box || current < 0 || current === undefined) return;
    if (current * height < box.scrollTop) box.scrollTop = current * height;
    else if ((current + 1) * height > box.scrollTop + box.clientHeight) box.scrollTop = (current + 1) * height - box.clientHeight;
    look();
  }, [current]);
  const first = Math.max(0, Math.floor(view.from / height) - BEYOND);
  const last = Math.min(total, Math.ceil((view.from + view.size) / height) + BEYOND);
  useEffect(() => { if (total) seen(first, last); }, [first, last, total]);
  const shown = [];
  for (let index = first; index < last; index += 1) shown.push(row(index));
  return html`<div class="rows" ref=${place} tabindex="0" role="group" aria-label=${label}>${total > 0 && html`<ul style=${{ paddingTop: `${first * height}px`, height: `${total * height}px` }}>${shown}</ul>`}${children}</div>`;
}
