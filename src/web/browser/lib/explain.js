// What checks, decisions and answers mean, in plain words.
import { points } from './format.js';
import { has, language, t } from './i18n.js';

/** The heaviest reasons first, one line for each class: `{ text, score, details }`. Those in favour are left out. */
export function reasons(findings) {
  const classes = new Map();
  for (const one of findings || []) {
    if (one.score <= 0) continue;
    const found = classes.get(one.class) || { text: t(`r-${one.class}`), score: 0, details: [] };
    found.score += one.score;
    found.details.push(one);
    classes.set(one.class, found);
  }
  return [...classes.values()].sort((a, b) => b.score - a.score);
}

let words = null;
/** Fetches what findings are called in the reader's language; English is what the server says. */
export async function learn() {
  if (words === null && language() !== 'en') words = (await import('../i18n/findings.js')).default;
}
export const finding = (one) => {
  const known = words && words[one.name];
  return known ? known[language() === 'de' ? 0 : 1] : one.description || one.name;
};

/** What policy decided by. */
export function cause(text) {
  const score = /^score (-?[\d.]+) reaches ([\w-]+) (-?[\d.]+)/.exec(text || '');
  if (score) return t('c-score', { score: points(Number(score[1])), limit: points(Number(score[3])), what: t(`c-${score[2]}`) });
  const virus = /^virus (\S+)/.exec(text || '');
  if (virus) return t('c-virus', { name: virus[1] });
  const suspected = /^suspected virus (\S+)/.exec(text || '');
  if (suspected) return t('c-suspected', { name: suspected[1] });
  const file = /^(blocked|suspicious) attachment, ([a-z-]+): (.*) \([^()]*\)$/.exec(text || '');
  if (file) return t(`c-${file[1]}`, { name: file[3], kind: t(`a-${file[2]}`) });
  const sender = /^(allowed|blocked) sender (\S+)/.exec(text || '');
  if (sender) return t(sender[1] === 'allowed' ? 'c-allowed' : 'c-blocked-sender', { name: sender[2] });
  const country = /^comes from ([A-Z]{2})\b/i.exec(text || '');
  if (country) return t('c-country', { name: new Intl.DisplayNames([language()], { type: 'region' }).of(country[1].toUpperCase()) });
  const known = [['newsletter', 'c-newsletter'], ['claims to come from here', 'c-own-domain'], ['too large', 'c-size'], ['no virus scanner', 'c-noscanner'], ['DMARC fails, p=reject', 'c-dmarc-reject'], ['DMARC fails', 'c-dmarc'], ['SPF fails', 'c-spf'], ['external milter', 'c-milter'], ['suspicious (score', 'c-greylisted'], ['sent as with a stolen password', 'c-sending'], ['nothing against', 'c-nothing']];
  const found = known.find(([start]) => (text || '').startsWith(start));
  return found ? t(found[1]) : text || '';
}

/** A reply of a mail server, by its enhanced code (RFC 3463); the reply itself where no class of it is known. */
export function reply(text) {
  // One code stands for several of our own answers.
  if (/ Greylisted:/.test(text || '')) return t('c-greylisted');
  if (/sending much more than usual|Sending is locked/.test(text || '')) return t('c-sending');
  const code = /\b([245])\.(\d+)\.(\d+)\b/.exec(text || '');
  if (!code) return text || '';
  const [, kind, subject, detail] = code;
  const key = [`s-${subject}.${detail}`, `s-${subject}`].find(has);
  return key ? `${t(key)}${kind === '4' ? ` ${t('s-again')}` : ''}` : text;
}

/** Why a message is where it is: a decision or a reply. */
export const why = (text) => (/^\d\d\d[ -]/.test(text || '') ? reply(text) : cause(text));
