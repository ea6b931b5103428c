// What roles let one change, so that pages offer nothing in vain. The server is who decides.
const CHANGERS = ['isp-admin', 'reseller', 'customer-admin', 'domain-admin', 'service-centre-senior'];
const SELLERS = ['isp-admin', 'isp-operator', 'reseller', 'service-centre-senior'];
const KEEPERS = [...CHANGERS, 'isp-operator'];
const MAY = {
  tenants: ['isp-admin', 'reseller'],
  // Which there are, how much they hold, which further names they have.
  domains: SELLERS,
  accounts: KEEPERS,
  passwords: [...KEEPERS, 'service-centre'],
  policy: CHANGERS,
  systempolicy: ['isp-admin'],
  seesystempolicy: ['isp-admin', 'isp-operator', 'service-centre', 'service-centre-senior', 'auditor'],
  release: [...KEEPERS, 'service-centre'],
  harm: ['isp-admin'],
  makeadmins: ['isp-admin'],
};
const BELOW = ['customer-admin', 'domain-admin'];
const GIVES = {
  'isp-admin': ['isp-admin', 'isp-operator', 'service-centre', 'service-centre-senior', 'auditor', 'reseller', ...BELOW],
  'isp-operator': BELOW, reseller: BELOW, 'customer-admin': BELOW,
};

export const may = (session, what) => session.roles.some((role) => MAY[what].includes(role));

/** The roles that one may give others. */
export const gives = (session) => [...new Set(session.roles.flatMap((role) => GIVES[role] || []))];

/** What a role is held for: `system`, `tenant` or `domain`. */
export const heldFor = (role) => (role === 'domain-admin' ? 'domain' : ['reseller', 'customer-admin'].includes(role) ? 'tenant' : 'system');
