// The few things every component needs.
import { h, render } from '../vendor/preact.js';
import htm from '../vendor/htm.js';
export { useEffect, useLayoutEffect, useRef, useState, useCallback } from '../vendor/hooks.js';
export { render };
export const html = htm.bind(h);
