// Addresses that lead to others.
import { html, useState } from '../lib/html.js';
import { call, get } from '../lib/api.js';
import { t } from '../lib/i18n.js';
import { queryOf, useRows } from '../lib/load.js';
import { may } from '../lib/rights.js';
import { ask } from '../ui/dialog.js';
import { Tool } from '../ui/icons.js';
import { Adding, Find, Listing } from '../ui/listing.js';

const PAGE = 100;

export function Aliases({ session, place, go, note }) {
  const search = place.query.get('q') || '';
  const [error, setError] = useState('');
  const list = useRows(async (after) => {
    const { aliases } = await get(`/api/v1/aliases${queryOf({ search, after, limit: PAGE })}`);
    return { rows: aliases, next: aliases.length === PAGE ? aliases[PAGE - 1].address : null };
  }, [search]);
  const act = (method, address, body, text) => call(method, `/api/v1/aliases/${encodeURIComponent(address)}`, body).then(() => { setError(''); note.say(text); return list.load(); }, (failed) => { setError(failed.message); throw failed; });
  const put = (address, targets) => act('PUT', address, { targets: targets.split(/[\s,]+/).filter(Boolean) }, t('isadded', { name: address }));
  const change = async (one) => { const targets = await ask({ title: one.address, field: t('targets'), value: one.targets.join(' '), ok: t('save') }); if (targets) put(one.address, targets).catch(() => {}); };
  const remove = async (one) => { if (await ask({ title: t('delete'), text: `${one.address} → ${one.targets.join(', ')}`, ok: t('delete'), danger: true })) act('DELETE', one.address, undefined, t('isdeleted', { name: one.address })).catch(() => {}); };
  const changes = may(session, 'accounts');
  return html`<h2>${t('aliases')}</h2><${Find} label=${t('searchaliases')} words=${search} find=${(q) => go(`/admin/aliases${queryOf({ q })}`)} />${error && html`<p class="error" role="alert">${error}</p>`}
    <${Listing} heads=${['address', 'targets']} list=${list} id=${(one) => one.address} show=${(one) => [one.address, one.targets.join(', ')]}
      extra=${(one) => changes && html`<${Tool} icon="edit" label=${t('changeone', { name: one.address })} onClick=${() => change(one)} /><${Tool} icon="trash" label=${t('deleteone', { name: one.address })} onClick=${() => remove(one)} />`}>
      ${changes && html`<${Adding} fields=${['address', 'targets']} add=${({ address, targets }) => put(address, targets)} />`}</${Listing}>`;
}
