// Numbers and dates as the reader's language writes them.
import { language } from './i18n.js';

const forms = new Map();
const form = (name, options) => { if (!forms.has(name)) forms.set(name, new Intl.DateTimeFormat(language(), { hour12: false, ...options })); return forms.get(name); };
const numbers = new Map();
const number = (least, most) => {
  const name = `${least}-${most}`;
  if (!numbers.has(name)) numbers.set(name, new Intl.NumberFormat(language(), { minimumFractionDigits: least, maximumFractionDigits: most }));
  return numbers.get(name);
};

export function date(text) {
  const at = new Date(text), now = new Date();
  if (at.toDateString() === now.toDateString()) return form('clock', { hour: '2-digit', minute: '2-digit' }).format(at);
  return at.getFullYear() === now.getFullYear() ? form('day', { day: 'numeric', month: 'short' }).format(at)
    : form('year', { day: 'numeric', month: 'short', year: 'numeric' }).format(at);
}
export const exact = (text) => form('exact', { dateStyle: 'medium', timeStyle: 'medium' }).format(new Date(text));
export const long = (text) => form('long', { weekday: 'short', day: 'numeric', month: 'long', year: 'numeric', hour: '2-digit', minute: '2-digit' }).format(new Date(text));
export const time = (text) => form('time', { hour: '2-digit', minute: '2-digit', second: '2-digit' }).format(new Date(text));
export const clock = (text) => form('clock', { hour: '2-digit', minute: '2-digit' }).format(new Date(text));
export function size(octets) {
  const units = ['B', 'kB', 'MB', 'GB'];
  let at = 0, value = octets || 0;
  while (value >= 1000 && at < 3) { value /= 1000; at += 1; }
  return `${number(0, value < 10 && at ? 1 : 0).format(value)} ${units[at]}`;
}
export const count = (value) => number(0, 0).format(value);
export const points = (value) => number(1, 1).format(value);
export const person = (one) => (one ? one.name || one.email : '');
export const people = (list) => (list || []).map((one) => (one.name ? `${one.name} <${one.email}>` : one.email)).join(', ');
