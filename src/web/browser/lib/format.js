// Numbers and dates as the reader's language writes them.
import { language } from './i18n.js';

export function date(text) {
  const at = new Date(text), now = new Date();
  const sameDay = at.toDateString() === now.toDateString();
  const form = sameDay ? { hour: '2-digit', minute: '2-digit', hour12: false } : { day: 'numeric', month: 'short', year: at.getFullYear() === now.getFullYear() ? undefined : 'numeric' };
  return new Intl.DateTimeFormat(language(), form).format(at);
}
export const exact = (text) => new Intl.DateTimeFormat(language(), { dateStyle: 'medium', timeStyle: 'medium', hour12: false }).format(new Date(text));
export const time = (text) => new Intl.DateTimeFormat(language(), { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false }).format(new Date(text));
export function size(octets) {
  const units = ['B', 'kB', 'MB', 'GB'];
  let at = 0, value = octets || 0;
  while (value >= 1000 && at < 3) { value /= 1000; at += 1; }
  return `${new Intl.NumberFormat(language(), { maximumFractionDigits: value < 10 && at ? 1 : 0 }).format(value)} ${units[at]}`;
}
export const person = (one) => (one ? one.name || one.email : '');
export const people = (list) => (list || []).map((one) => (one.name ? `${one.name} <${one.email}>` : one.email)).join(', ');
export const points = (value) => new Intl.NumberFormat(language(), { minimumFractionDigits: 1, maximumFractionDigits: 1 }).format(value);
export const clock = (text) => new Intl.DateTimeFormat(language(), { hour: '2-digit', minute: '2-digit', hour12: false }).format(new Date(text));
