// Options of policies: how they are grouped, what they and their values are called.
import words from '../i18n/options.js';
import { points } from './format.js';
import { language, t } from './i18n.js';

const at = ['de', 'it', 'en'].indexOf(language());

export const term = (key) => (words[key] ? words[key][at] : '');
export const called = (name) => term(name) || name;
export const unit = (name) => term(`#${name}`) || name;

/** What most people look for first. */
export const FIRST = [
  ['level', ['preset']],
  ['spam', ['tag-score', 'quarantine-score', 'reject-score', 'when-tagged', 'subject-tag', 'when-quarantined', 'newsletter', 'known-contacts', 'when-sender-blocked']],
  ['files', ['blocked-attachments']],
  ['places', ['blocked-countries', 'when-country']],
  ['digest', ['digest', 'digest-hour', 'mail-language']],
  ['addresses', ['plus-addressing']],
];
export const FURTHER = [
  ['harm', ['virus', 'when-suspicious', 'when-blocked', 'blocked-extensions', 'scanner-unavailable']],
  ['proof', ['spf-fail', 'dmarc', 'own-domain', 'greylist', 'greylist-score']],
  ['limits', ['message-size', 'quarantine-days', 'admin-preview', 'forwarding']],
  ['sending', ['sending-hour', 'sending-day', 'outbound-slow-score', 'outbound-hold-score', 'outbound-lock-score']],
];

export const SCORES = ['tag-score', 'quarantine-score', 'reject-score'];
export const SCORE_GAP = 0.5;

export const wordsOf = (value) => (value || '').split(/[\s,]+/).filter((word) => word && word !== 'none');
const country = new Intl.DisplayNames([language()], { type: 'region', fallback: 'code' });
export const countries = (value) => wordsOf(value).map((code) => (/^[a-z]{2}$/i.test(code) ? country.of(code.toUpperCase()) : code)).join(', ');

/** An hour of the day, which is kept in UTC, and when that is here. */
export function hour(value) {
  const here = new Date();
  here.setUTCHours(Number(value), 0, 0, 0);
  const two = (number) => String(number).padStart(2, '0');
  return t('hourof', { utc: `${two(value)}:00`, here: `${two(here.getHours())}:${two(here.getMinutes())}` });
}

/** A value in words. */
export function valueText({ name, kind }, value) {
  if (kind.choice) return term(`${name}=${value}`) || value;
  if (kind.words) return wordsOf(value).map((word) => term(`${name}=${word}`) || word).join(', ') || t('none');
  if (kind.score) return `${points(Number(value))} ${unit('points')}`;
  if (name === 'digest-hour') return hour(value);
  if (kind.number) return `${value} ${unit(kind.unit || '')}`.trim();
  return (name === 'blocked-countries' ? countries(value) : value) || t('none');
}

/** What one level says of an option, in words. `option` is what the server says of it. */
export function settingText(setting, option) {
  const { value, locked, floor, ceiling } = setting || {}, text = (one) => (option ? valueText(option, one) : one);
  const parts = [value === null || value === undefined ? t('asinherited') : text(value), locked && t('islocked'), floor && t('atleast', { value: text(floor) }), ceiling && t('atmost', { value: text(ceiling) })];
  return parts.filter(Boolean).join('; ');
}
