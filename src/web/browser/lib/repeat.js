// Asking again and again, while somebody looks.

/** Calls `act` every `ms` milliseconds, but not while the page is hidden: then once when it is seen again. Gives a function
    that ends it. */
export function repeat(act, ms) {
  let missed = false;
  const timer = setInterval(() => { if (document.hidden) missed = true; else act(); }, ms);
  const seen = () => { if (!document.hidden && missed) { missed = false; act(); } };
  document.addEventListener('visibilitychange', seen);
  return () => { clearInterval(timer); document.removeEventListener('visibilitychange', seen); };
}
