// What a page fetches, with its error. A late answer to an earlier question is dropped.
import { useEffect, useRef, useState } from './html.js';

/** `{ found, error, load }` of what `read` promises, asked anew when one of `keys` changes. */
export function useFound(read, keys) {
  const [held, setHeld] = useState({ found: null, error: '' });
  const round = useRef(0);
  const load = () => {
    round.current += 1;
    const mine = round.current, is = () => mine === round.current;
    return read().then((found) => is() && setHeld({ found, error: '' }), (failed) => is() && setHeld((known) => ({ ...known, error: failed.message })));
  };
  useEffect(() => { setHeld({ found: null, error: '' }); load(); return () => { round.current += 1; }; }, keys);
  return { ...held, load };
}

/** A list in pages: `{ rows, next, error, load, further, change }`. `read(next)` promises `{ rows, next }`, where `next` is what
    the page after it is asked by, if there is one. */
export function useRows(read, keys) {
  const [held, setHeld] = useState({ rows: null, next: null, error: '' });
  const round = useRef(0);
  const ask = (after) => {
    round.current += 1;
    const mine = round.current, is = () => mine === round.current;
    return read(after).then(({ rows, next }) => is() && setHeld((known) => ({ rows: after ? [...known.rows, ...rows] : rows, next, error: '' })), (failed) => is() && setHeld((known) => ({ ...known, error: failed.message })));
  };
  useEffect(() => { setHeld({ rows: null, next: null, error: '' }); ask(); return () => { round.current += 1; }; }, keys);
  const change = (act) => setHeld((known) => ({ ...known, rows: act(known.rows || []) }));
  return { ...held, load: () => ask(), further: () => ask(held.next), change };
}

/** `values` as the end of an address; what is empty is left out. */
export function queryOf(values) {
  const query = new URLSearchParams(Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== '' && value !== false));
  return query.size ? `?${query}` : '';
}
