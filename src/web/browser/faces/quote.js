// What answers and forwards begin with.
import { long, people, person } from '../lib/format.js';
import { t } from '../lib/i18n.js';

const MARKS = /^\s*((re|aw|r|sv|antw|fwd?|wg|i|rif)(\[\d+\])?\s*:\s*)+/i;

/** `Re: Re: Aw: x` becomes `Re: x`. */
export const subjectWith = (mark, subject) => `${mark} ${(subject || '').replace(MARKS, '')}`.trim();

/** The text of `email` below an empty line: marked with `>`, or below its header where it is forwarded. */
export function quoteOf(email, text, forwards) {
  const clean = (text || '').replace(/\r\n/g, '\n').replace(/\n{3,}/g, '\n\n').trim();
  if (!forwards) return `\n\n${t('wrote', { who: person((email.from || [])[0]), when: long(email.sentAt || email.receivedAt) })}\n${clean.split('\n').map((line) => (line.startsWith('>') ? `>${line}` : `> ${line}`)).join('\n')}`;
  const lines = [[t('from'), people(email.from)], [t('date'), long(email.sentAt || email.receivedAt)], [t('subject'), email.subject || ''], [t('to'), people(email.to)], ...(email.cc && email.cc.length ? [[t('cc'), people(email.cc)]] : [])];
  return `\n\n---------- ${t('forwardedmessage')} ----------\n${lines.map(([name, value]) => `${name}: ${value}`).join('\n')}\n\n${clean}`;
}

/** The lines one wrote oneself. */
export const ownText = (text) => {
  const lines = [];
  for (const line of text.split('\n')) {
    if (/^-{5,} .* -{5,}$/.test(line)) break;
    if (!line.startsWith('>')) lines.push(line);
  }
  return lines.join('\n');
};

const MENTIONS = [/\banhang\b/i, /\banh[äa]nge?n?\b/i, /\bangeh[äa]ngt/i, /\bbeigef[üu]gt/i, /\banbei\b/i, /\b(in|als) (der )?anlage\b/i, /\ballegat[oaie]\b/i, /\bin allegato\b/i, /\ballego\b/i, /\battach(ed|ment|ments)\b/i, /\benclosed\b/i];
/** True if a reader would look for a file (German, Italian, English). */
export const mentionsFile = (text) => MENTIONS.some((pattern) => pattern.test(ownText(text)));
