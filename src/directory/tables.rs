//! The seam between what a directory means and where its rows lie.

use std::collections::HashMap;

use access::{Grant, Position, Reach, Role};
use async_trait::async_trait;
use base::{AccountId, DomainId, PoolId, Quota, TenantId, UtcMillis};
use engine::EngineError;
use engine::table::Place;
use mail::{Address, Domain};

use crate::account::{Access, Account, Alias, DomainEntry, NewAccount, SendingLock, Tenant, TenantKind};
use crate::domain_key::{DomainKey, KeyState};
use crate::error::RegistryError;
use crate::legacy::LegacyServer;
use crate::password::PasswordHash;
use crate::quota::{Limits, QuotaChange};
use crate::web_session::WebSession;

/// What of an account changes; `None` stays.
#[derive(Clone, Debug, Default)]
pub struct AccountChange {
    pub name: Option<String>,
    pub access: Option<Access>,
    pub enabled: Option<bool>,
    pub quota: QuotaChange,
    pub password: Option<PasswordHash>,
    /// `Some(None)`: its mailbox is here.
    pub legacy: Option<Option<String>>,
    /// `Some(None)`: it may send. One that is locked already stays as it was.
    pub sending: Option<Option<SendingLock>>,
}

/// A page of a listing: names that sort after `after`, containing `search`, at most `limit`.
#[derive(Clone, Debug)]
pub struct Listing {
    pub search: String,
    pub domain: Option<Domain>,
    pub after: String,
    pub limit: u32,
    /// Only what these reach; `None` for all.
    pub within: Option<Vec<Reach>>,
}

impl Default for Listing {
    fn default() -> Self {
        Self { search: String::new(), domain: None, after: String::new(), limit: 10_000, within: None }
    }
}

/// Keys that are asked for: those after `after` (a domain and a selector), at most `limit`.
#[derive(Clone, Debug)]
pub struct KeyListing {
    pub domain: Option<String>,
    pub state: Option<KeyState>,
    pub after: (String, String),
    pub limit: u32,
}

impl Default for KeyListing {
    fn default() -> Self {
        Self { domain: None, state: None, after: (String::new(), String::new()), limit: 10_000 }
    }
}

/// An alias to make or replace; its parts were checked.
#[derive(Clone, Debug)]
pub(crate) struct NewAlias {
    /// `local@domain` or `@domain`.
    pub folded: String,
    pub domain: Domain,
    pub targets: Vec<Address>,
    /// It must exist, else it must not.
    pub replace: bool,
}

/// Whose accounts share a quota.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    Domain,
    Tenant,
}

impl Owner {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Domain => "domain",
            Self::Tenant => "tenant",
        }
    }

    pub(crate) const fn pool(self, id: u64) -> PoolId {
        match self {
            Self::Domain => PoolId::Domain(DomainId(id)),
            Self::Tenant => PoolId::Tenant(TenantId(id)),
        }
    }
}

/// An account that was found by its address.
#[derive(Clone, Debug)]
pub(crate) struct Hit {
    pub account: AccountId,
    /// Primary address, as written.
    pub address: Address,
    /// The legacy server where it is.
    pub legacy: Option<String>,
    pub position: Position,
    /// Where its mail goes, too.
    pub forwards: Vec<Address>,
    /// It keeps a copy of what is forwarded.
    pub keeps: bool,
}

/// What the asked keys (folded addresses, `@domain` for a catch-all) lead to.
#[derive(Default, Debug)]
pub(crate) struct Hits {
    pub accounts: HashMap<String, Hit>,
    pub aliases: HashMap<String, Vec<Address>>,
}

/// Rows of tenants, domains, accounts and aliases. Names and addresses are folded by the caller and valid; each change
/// checks within its transaction what must exist and what must not.
#[async_trait]
pub(crate) trait Tables: Send + Sync {
    /// Where the rows lie, for a copy of them all.
    fn place(&self) -> Place;

    /// Changes when any node changed anything.
    async fn version(&self) -> Result<u64, EngineError>;
    /// Accounts whose rights changed in a version after this one; told for at least a day.
    async fn revoked_since(&self, version: u64) -> Result<Vec<AccountId>, EngineError>;

    async fn add_tenant(
        &self,
        name: &str,
        kind: TenantKind,
        parent: Option<String>,
        now: UtcMillis,
    ) -> Result<(), RegistryError>;
    async fn tenants(&self) -> Result<Vec<Tenant>, EngineError>;
    async fn rename_tenant(&self, name: &str, to: &str) -> Result<(), RegistryError>;
    async fn delete_tenant(&self, name: &str) -> Result<(), RegistryError>;

    async fn add_domain(&self, name: Domain, tenant: Option<String>, now: UtcMillis) -> Result<(), RegistryError>;
    async fn set_domain_tenant(&self, name: Domain, tenant: Option<String>) -> Result<(), RegistryError>;
    async fn delete_domain(&self, name: Domain) -> Result<(), RegistryError>;
    async fn domains(&self, listing: Listing) -> Result<Vec<DomainEntry>, EngineError>;
    /// The domain of this name, or that it is another name of.
    async fn canonical(&self, name: &Domain) -> Result<Option<Domain>, EngineError>;

    async fn add_account(&self, account: NewAccount, now: UtcMillis) -> Result<AccountId, RegistryError>;
    async fn set_account(&self, address: &Address, change: AccountChange) -> Result<AccountId, RegistryError>;
    /// With every alias target that leads to it.
    async fn delete_account(&self, address: &Address) -> Result<AccountId, RegistryError>;
    async fn account(&self, id: AccountId) -> Result<Option<Account>, EngineError>;
    async fn login(&self, folded: &str) -> Result<Option<(Account, PasswordHash)>, EngineError>;
    async fn accounts(&self, listing: Listing) -> Result<Vec<Account>, EngineError>;
    async fn account_ids(&self) -> Result<Vec<AccountId>, EngineError>;

    async fn put_alias(&self, alias: NewAlias, now: UtcMillis) -> Result<(), RegistryError>;
    async fn delete_alias(&self, folded: &str) -> Result<(), RegistryError>;
    /// Each with all its targets.
    async fn aliases(&self, listing: Listing) -> Result<Vec<Alias>, EngineError>;
    /// The account's own address, then aliases that lead to it, catch-alls left out.
    async fn sender_addresses(&self, id: AccountId) -> Result<Vec<Address>, EngineError>;

    /// Gives the pool with its new limit.
    async fn set_quota(&self, of: Owner, name: &str, change: QuotaChange) -> Result<(PoolId, Quota), RegistryError>;
    async fn limits(&self, account: AccountId) -> Result<Option<Limits>, EngineError>;
    async fn pool_accounts(&self, pool: PoolId) -> Result<Vec<AccountId>, EngineError>;

    /// Makes a legacy server, or with `replace` changes it.
    async fn put_legacy(&self, server: LegacyServer, replace: bool) -> Result<(), RegistryError>;
    async fn delete_legacy(&self, name: &str) -> Result<(), RegistryError>;
    async fn legacies(&self) -> Result<Vec<LegacyServer>, EngineError>;
    async fn set_domain_legacy(&self, name: Domain, server: Option<String>) -> Result<(), RegistryError>;
    /// Changes the password of an account that is on a legacy server, unless somebody changed it meanwhile.
    async fn capture(&self, id: AccountId, was: &PasswordHash, is: &PasswordHash) -> Result<bool, RegistryError>;

    /// Puts another hash of the same password, unless somebody changed it meanwhile, or the account may not send: a change
    /// would lift that.
    async fn renew(&self, id: AccountId, was: &PasswordHash, is: &PasswordHash) -> Result<bool, RegistryError>;

    /// Makes a key, or with `replace` changes it.
    async fn put_key(&self, key: DomainKey, replace: bool) -> Result<(), RegistryError>;
    async fn delete_key(&self, domain: &str, selector: &str) -> Result<(), RegistryError>;
    /// Of one domain, or in one state, or all; at most `limit`, by domain and selector, after this one.
    async fn keys(&self, which: KeyListing) -> Result<Vec<DomainKey>, EngineError>;

    async fn find(&self, keys: Vec<String>) -> Result<Hits, EngineError>;

    /// Whatever ends an account's rights closes its sessions in the same change. An account that has too many loses the
    /// one unused for longest.
    async fn open_web_session(&self, session: WebSession) -> Result<(), EngineError>;
    async fn web_session(&self, digest: &[u8; 32]) -> Result<Option<WebSession>, EngineError>;
    async fn touch_web_session(&self, digest: &[u8; 32], now: UtcMillis) -> Result<(), EngineError>;
    async fn close_web_session(&self, digest: &[u8; 32]) -> Result<(), EngineError>;
    /// Removes web sessions last used before `idle`, and what else is only kept for a time.
    async fn tidy(&self, idle: UtcMillis) -> Result<(), EngineError>;
}

/// Where something of a domain is; `tenant`: number, kind and parent's number (0: none) of the domain's tenant.
pub(crate) fn position_of(account: Option<AccountId>, domain: u64, tenant: Option<&str>) -> Position {
    let mut position = Position { domain: Some(DomainId(domain)), account, ..Position::default() };
    let mut parts = tenant.unwrap_or_default().split(' ');
    let (Some(id), Some(kind)) = (parts.next().and_then(|id| id.parse().ok()), parts.next()) else { return position };
    let parent = parts.next().and_then(|id| id.parse().ok()).filter(|id| *id != 0).map(TenantId);
    match TenantKind::from_name(kind) {
        Some(TenantKind::Reseller) => position.reseller = Some(TenantId(id)),
        Some(TenantKind::Customer) | None => (position.customer, position.reseller) = (Some(TenantId(id)), parent),
    }
    position
}

pub(crate) fn tenant_position(id: TenantId, kind: TenantKind, parent: TenantId) -> Position {
    match kind {
        TenantKind::Reseller => Position { reseller: Some(id), ..Position::SYSTEM },
        TenantKind::Customer => {
            Position { customer: Some(id), reseller: Some(parent).filter(|parent| parent.0 != 0), ..Position::SYSTEM }
        }
    }
}

/// Grants as both engines put them together. One of a later version is none.
pub(crate) fn grants_of(access: Access, text: Option<&str>) -> Vec<Grant> {
    let read = |one: &str| {
        let (role, reach) = one.split_once('/')?;
        Some(Grant { role: Role::from_name(role)?, reach: reach.parse().ok()? })
    };
    let mut grants: Vec<Grant> = text.unwrap_or_default().split(',').filter_map(read).collect();
    let all = Grant { role: Role::IspAdmin, reach: Reach::System };
    if access == Access::Admin && !grants.contains(&all) {
        grants.push(all);
    }
    grants
}

/// Forwards as both engines put them together, and whether a copy stays.
pub(crate) fn forwards_of(text: Option<&str>) -> (Vec<Address>, bool) {
    let (mut targets, mut keeps) = (Vec::new(), true);
    for one in text.unwrap_or_default().split('\n') {
        let Some((kept, target)) = one.split_once(' ') else { continue };
        if let Ok(target) = target.parse() {
            targets.push(target);
            keeps &= kept != "0";
        }
    }
    (targets, keeps)
}

/// A condition on a column of domain numbers: what a listing is within. It holds numbers alone.
pub(crate) fn within(listing: &Listing, column: &str, (domain, tenant): (&str, &str)) -> String {
    let Some(reaches) = &listing.within else { return "1 = 1".to_owned() };
    if reaches.contains(&Reach::System) {
        return "1 = 1".to_owned();
    }
    let list = |of: fn(&Reach) -> Option<u64>| {
        let numbers: Vec<String> = reaches.iter().filter_map(of).map(|id| id.to_string()).collect();
        // No number of ours.
        if numbers.is_empty() { "-1".to_owned() } else { numbers.join(", ") }
    };
    let tenants = list(|reach| if let Reach::Tenant(id) = reach { Some(id.0) } else { None });
    let domains = list(|reach| if let Reach::Domain(id) = reach { Some(id.0) } else { None });
    format!(
        "{column} IN (SELECT w.id FROM {domain} w WHERE w.id IN ({domains}) OR w.tenant IN ({tenants})
             OR w.tenant IN (SELECT v.id FROM {tenant} v WHERE v.parent IN ({tenants})))"
    )
}

pub(crate) fn exists(what: &str, name: &(impl std::fmt::Display + ?Sized)) -> RegistryError {
    RegistryError::Exists { what: format!("{what} {name}") }
}

pub(crate) fn missing(what: &str, name: &(impl std::fmt::Display + ?Sized)) -> RegistryError {
    RegistryError::Missing { what: format!("{what} {name}") }
}

pub(crate) fn refused(why: impl Into<String>) -> RegistryError {
    RegistryError::Refused { why: why.into() }
}

pub(crate) fn parent_is_customer(parent: &str) -> RegistryError {
    refused(format!("{parent} is a customer; only a reseller has tenants below"))
}

pub(crate) fn tenant_in_use(name: &str) -> RegistryError {
    refused(format!("the tenant {name} still has domains or tenants below it; delete those first"))
}

pub(crate) fn domain_in_use(name: &Domain, accounts: impl std::fmt::Display) -> RegistryError {
    refused(format!("the domain {name} still has {accounts} accounts; delete those first"))
}

pub(crate) fn foreign_target(target: &Address) -> RegistryError {
    let domain = &target.domain;
    refused(format!("the target {target} is not in a domain of this system; add the domain {domain} first"))
}
