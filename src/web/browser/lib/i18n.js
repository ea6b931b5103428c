// Texts in the reader's language; English where one is missing.
import en from '../i18n/en.js';
import de from '../i18n/de.js';
import it from '../i18n/it.js';

const all = { en, de, it };
const wished = () => localStorage.getItem('language') || (navigator.languages || ['en']).map((tag) => tag.slice(0, 2)).find((tag) => all[tag]) || 'en';
let current = wished();
document.documentElement.lang = current;

export const language = () => current;
export function setLanguage(tag) { localStorage.setItem('language', tag); location.reload(); }
export function t(key, values) {
  const text = all[current][key] || en[key] || key;
  return values ? text.replace(/\{(\w+)\}/g, (_, name) => (values[name] === undefined ? '' : values[name])) : text;
}
