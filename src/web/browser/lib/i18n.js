// Texts in the reader's language, which alone is fetched; a test checks that every language has the same keys.
const TAGS = ['de', 'it', 'en'];
const kept = (name) => { try { return localStorage.getItem(name); } catch { return null; } };
const wished = [kept('language'), ...(navigator.languages || []).map((tag) => tag.slice(0, 2))];
const current = wished.find((tag) => TAGS.includes(tag)) || 'en';
const texts = (await import(`../i18n/${current}.js`)).default;
document.documentElement.lang = current;

export const language = () => current;
export const languages = TAGS;
export function setLanguage(tag) { localStorage.setItem('language', tag); location.reload(); }
export const has = (key) => texts[key] !== undefined;

const numbers = new Intl.NumberFormat(current);

/** `{name}` is replaced by a value, numbers as the language writes them; `{count|one thing|{count} things}` chooses by number. */
export function t(key, values) {
  const text = texts[key] || key;
  if (!values) return text;
  const chosen = text.replace(/\{(\w+)\|([^|]*)\|([^|]*)\|\}/g, (_, name, one, many) => (Number(values[name]) === 1 ? one : many));
  return chosen.replace(/\{(\w+)\}/g, (_, name) => (values[name] === undefined || values[name] === null ? '' : typeof values[name] === 'number' ? numbers.format(values[name]) : values[name]));
}
