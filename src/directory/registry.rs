//! Our own directory: what its rows mean, caches in front of them, passwords. Where the rows lie is [`Tables`]' matter.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base::{AccountId, Clock, PoolId, Quota, Secret};
use engine::EngineError;
use engine::postgres::Pool;
use engine::table::Place;
use mail::{Address, Domain, ForwardPath};
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::account::{
    Access, Account, Alias, DomainEntry, NewAccount, Recipient, Resolution, SendingLock, Tenant, TenantKind,
};
use crate::directory::{Directory, Login, Protocol, SignIn};
use crate::domain_key::{DomainKey, KeyState};
use crate::error::{DirectoryError, LoginError, RegistryError};
use crate::guard::LoginGuard;
use crate::hold::{Hold, Holds, Rights};
use crate::legacy::{Elsewhere, LegacyChange, LegacyServer};
use crate::password::PasswordHash;
use crate::postgres::PgTables;
use crate::quota::{Limits, QuotaChange};
use crate::sqlite::SqliteTables;
use crate::tables::{AccountChange, Hit, Hits, KeyListing, Listing, NewAlias, Owner, Tables, exists, missing, refused};

/// Tenants, domains, accounts and aliases of this system: [`Directory`] for mail flow, and what administrators do. Every
/// change made here empties the caches of this node at once; one of another node does when [`Registry::refresh`] sees it.
pub struct Registry {
    pub(crate) tables: Box<dyn Tables>,
    pub(crate) clock: Arc<dyn Clock>,
    postmaster: Option<Address>,
    guard: LoginGuard,
    resolutions: Cache<String, Resolution>,
    accounts: Cache<AccountId, Account>,
    logins: Cache<String, (Account, PasswordHash)>,
    legacies: Cache<String, Option<Arc<LegacyServer>>>,
    /// Active keys by the domain that was asked for.
    signing_keys: Cache<String, Arc<[DomainKey]>>,
    /// Rises when something may have changed.
    news: watch::Sender<u64>,
    /// Rises when the caches are emptied: an answer asked for before is not kept after.
    epoch: AtomicU64,
    /// [`Tables::version`] that the caches are no older than.
    version: AtomicU64,
    /// When that was last looked at.
    refreshed_at: Mutex<Instant>,
    holds: Arc<Holds>,
    /// Keyed digests of passwords that were found right, so that a client that signs in every minute costs no argon2.
    verified: Cache<[u8; 32], ()>,
    verified_key: [u8; 32],
    hashing: Semaphore,
    /// Checked when a login does not exist, so that the answer takes as long as for one that does.
    decoy: PasswordHash,
    /// Who is told of sign-ins.
    sign_ins: OnceLock<mpsc::Sender<SignIn>>,
}

const CACHED_MAX: u64 = 200_000;
const CACHED_FOR: Duration = Duration::from_secs(60);
/// Whoever has not looked for so long looks at everything.
const REVOKED_FOR: Duration = Duration::from_secs(86_400);
const VERIFIED_FOR: Duration = Duration::from_secs(300);
/// Aliases that lead to aliases: enough for any sane list, an end for any loop.
const ALIAS_DEPTH_MAX: usize = 10;
const RECIPIENTS_MAX: usize = 1000;

impl Registry {
    /// Opens or makes `file`. `postmaster` takes mail for `<Postmaster>` and for `postmaster@` of domains that have none.
    /// Blocks.
    pub fn open(
        file: &Path,
        clock: Arc<dyn Clock>,
        postmaster: Option<Address>,
        guard: LoginGuard,
    ) -> Result<Self, EngineError> {
        Ok(Self::new(Box::new(SqliteTables::open(file)?), clock, postmaster, guard))
    }

    /// The directory on a PostgreSQL server, shared by all nodes.
    pub async fn open_postgres(
        pool: Arc<Pool>,
        clock: Arc<dyn Clock>,
        postmaster: Option<Address>,
        guard: LoginGuard,
    ) -> Result<Self, EngineError> {
        Ok(Self::new(Box::new(PgTables::open(pool).await?), clock, postmaster, guard))
    }

    fn new(tables: Box<dyn Tables>, clock: Arc<dyn Clock>, postmaster: Option<Address>, guard: LoginGuard) -> Self {
        let mut verified_key = [0u8; 32];
        getrandom::fill(&mut verified_key).expect("the operating system gives random bytes");
        Self {
            tables,
            refreshed_at: Mutex::new(clock.now()),
            clock,
            postmaster,
            guard,
            resolutions: cache(CACHED_FOR),
            accounts: cache(CACHED_FOR),
            logins: cache(CACHED_FOR),
            legacies: cache(CACHED_FOR),
            signing_keys: cache(CACHED_FOR),
            news: watch::Sender::new(0),
            epoch: AtomicU64::new(0),
            version: AtomicU64::new(0),
            holds: Arc::default(),
            verified: cache(VERIFIED_FOR),
            verified_key,
            hashing: Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from)),
            sign_ins: OnceLock::new(),
            decoy: PasswordHash::make(&Secret::new("no account has this".to_owned())),
        }
    }

    /// Sign-ins that go well are told to `listener` from now on, but for those that it has no room for. Only the first counts.
    pub fn tell_sign_ins(&self, listener: mpsc::Sender<SignIn>) {
        let _ = self.sign_ins.set(listener);
    }

    /// Forgets what the caches hold if another node changed something, and ends what it revoked. A node that shares its
    /// directory calls it every second.
    pub async fn refresh(&self) -> Result<(), EngineError> {
        let (before, looking_at) = (self.version.load(Ordering::Acquire), self.clock.now());
        let version = self.tables.version().await?;
        if before != version {
            self.forget();
            let is_told = looking_at.duration_since(*self.refreshed_at.lock()) < REVOKED_FOR;
            let revoked = match is_told {
                true => self.holds.among(&self.tables.revoked_since(before).await?),
                false => self.holds.accounts(),
            };
            for account in revoked {
                self.check_holds(account).await?;
            }
            // Last: what failed is done again.
            self.version.store(version, Ordering::Release);
        }
        *self.refreshed_at.lock() = looking_at;
        Ok(())
    }

    /// Wakes when something may have changed: here, or on another node and seen by [`Registry::refresh`].
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    async fn check_holds(&self, account: AccountId) -> Result<(), EngineError> {
        let mut rights = Vec::new();
        if let Some(now) = self.tables.account(account).await? {
            rights = self.app_rights(account, (now.access, now.enabled)).await?;
            rights.push(now.rights);
        }
        self.holds.check(account, &rights);
        Ok(())
    }

    /// What this node revoked need not wait for the next look. If the server goes away between, that look finds it.
    pub(crate) async fn revoked(&self, account: AccountId) {
        if !self.holds.among(&[account]).is_empty() {
            let _ = self.check_holds(account).await;
        }
    }

    pub(crate) fn place(&self) -> Place {
        self.tables.place()
    }

    pub(crate) fn forget(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.news.send_modify(|count| *count = count.wrapping_add(1));
        self.resolutions.invalidate_all();
        self.accounts.invalidate_all();
        self.logins.invalidate_all();
        self.legacies.invalidate_all();
        self.signing_keys.invalidate_all();
    }

    /// Keeps an answer that was asked for in `epoch`, unless something changed since.
    fn keep<K, V>(&self, cache: &Cache<K, V>, epoch: u64, key: K, value: V)
    where
        K: std::hash::Hash + Eq + Clone + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
    {
        cache.insert(key.clone(), value);
        if self.epoch.load(Ordering::Acquire) != epoch {
            cache.invalidate(&key);
        }
    }

    fn changed<T>(&self, outcome: Result<T, RegistryError>) -> Result<T, RegistryError> {
        self.forget();
        outcome
    }

    pub async fn add_tenant(&self, name: &str, kind: TenantKind, parent: Option<String>) -> Result<(), RegistryError> {
        let name = name.trim();
        check_tenant_name(name)?;
        if kind == TenantKind::Reseller && parent.is_some() {
            return Err(refused("a reseller has nobody above: only customers have a reseller"));
        }
        self.changed(self.tables.add_tenant(name, kind, parent, self.clock.utc()).await)
    }

    pub async fn tenants(&self) -> Result<Vec<Tenant>, EngineError> {
        self.tables.tenants().await
    }

    pub async fn rename_tenant(&self, name: &str, to: &str) -> Result<(), RegistryError> {
        let to = to.trim();
        check_tenant_name(to)?;
        self.changed(self.tables.rename_tenant(name, to).await)
    }

    pub async fn delete_tenant(&self, name: &str) -> Result<(), RegistryError> {
        self.changed(self.tables.delete_tenant(name).await)
    }

    pub async fn add_domain(&self, name: Domain, tenant: Option<String>) -> Result<(), RegistryError> {
        if name.is_literal() {
            return Err(refused("an address literal is not a mail domain"));
        }
        if self.tables.canonical(&name).await?.is_some_and(|known| known != name) {
            return Err(exists("the alias domain", &name));
        }
        self.changed(self.tables.add_domain(name, tenant, self.clock.utc()).await)
    }

    /// Gives the domain to another tenant, or to none.
    pub async fn set_domain_tenant(&self, name: Domain, tenant: Option<String>) -> Result<(), RegistryError> {
        self.changed(self.tables.set_domain_tenant(name, tenant).await)
    }

    pub async fn delete_domain(&self, name: Domain) -> Result<(), RegistryError> {
        self.changed(self.tables.delete_domain(name).await)
    }

    pub async fn domains(&self, listing: Listing) -> Result<Vec<DomainEntry>, EngineError> {
        self.tables.domains(listing).await
    }

    pub async fn add_account(&self, account: NewAccount) -> Result<AccountId, RegistryError> {
        if account.address.local.as_str().contains('+') {
            return Err(refused(
                "the local part of an account holds no `+`: what follows it is the recipient's detail",
            ));
        }
        self.changed(self.tables.add_account(account, self.clock.utc()).await)
    }

    pub async fn set_account(&self, address: &Address, change: AccountChange) -> Result<(), RegistryError> {
        let account = self.changed(self.tables.set_account(address, change).await)?;
        self.revoked(account).await;
        Ok(())
    }

    /// Removes the account and every alias target that leads to it. Its mailboxes are the store's matter.
    pub async fn delete_account(&self, address: &Address) -> Result<AccountId, RegistryError> {
        let account = self.changed(self.tables.delete_account(address).await)?;
        self.revoked(account).await;
        Ok(account)
    }

    /// As it is now, not from a cache.
    pub async fn account_by_id(&self, id: AccountId) -> Result<Option<Account>, EngineError> {
        self.tables.account(id).await
    }

    pub async fn account_by_address(&self, address: &Address) -> Result<Option<Account>, EngineError> {
        Ok(self.tables.login(&address.to_folded()).await?.map(|(account, _)| account))
    }

    pub async fn accounts(&self, listing: Listing) -> Result<Vec<Account>, EngineError> {
        self.tables.accounts(listing).await
    }

    /// Ids of all accounts, for the auditor.
    pub async fn account_ids(&self) -> Result<Vec<AccountId>, EngineError> {
        self.tables.account_ids().await
    }

    /// Makes or replaces an alias. `address` is `local@domain` or `@domain` (catch-all). Targets must be addresses of
    /// domains of this system.
    pub async fn put_alias(&self, address: &str, targets: Vec<Address>, replace: bool) -> Result<(), RegistryError> {
        let (folded, domain) = alias_key(address)?;
        if targets.is_empty() || targets.len() > RECIPIENTS_MAX {
            return Err(refused(format!("an alias has 1 to {RECIPIENTS_MAX} targets")));
        }
        let alias = NewAlias { folded, domain, targets, replace };
        self.changed(self.tables.put_alias(alias, self.clock.utc()).await)
    }

    pub async fn delete_alias(&self, address: &str) -> Result<(), RegistryError> {
        let (folded, _) = alias_key(address)?;
        self.changed(self.tables.delete_alias(&folded).await)
    }

    pub async fn aliases(&self, listing: Listing) -> Result<Vec<Alias>, EngineError> {
        self.tables.aliases(listing).await
    }

    /// Gives the pool with its new limit.
    pub async fn set_domain_quota(&self, name: Domain, change: QuotaChange) -> Result<(PoolId, Quota), RegistryError> {
        self.changed(self.tables.set_quota(Owner::Domain, name.as_str(), change).await)
    }

    /// Gives the pool with its new limit.
    pub async fn set_tenant_quota(&self, name: &str, change: QuotaChange) -> Result<(PoolId, Quota), RegistryError> {
        self.changed(self.tables.set_quota(Owner::Tenant, name, change).await)
    }

    /// What limits an account; `None` if it does not exist.
    pub async fn limits(&self, account: AccountId) -> Result<Option<Limits>, EngineError> {
        self.tables.limits(account).await
    }

    /// The accounts that share a pool.
    pub async fn pool_accounts(&self, pool: PoolId) -> Result<Vec<AccountId>, EngineError> {
        self.tables.pool_accounts(pool).await
    }

    pub async fn add_legacy(&self, name: &str, change: LegacyChange) -> Result<(), RegistryError> {
        let mut server = LegacyServer::new(name, self.clock.utc());
        change.apply(&mut server);
        server.check()?;
        self.changed(self.tables.put_legacy(server, false).await)
    }

    pub async fn set_legacy(&self, name: &str, change: LegacyChange) -> Result<(), RegistryError> {
        let found = self.legacies().await?.into_iter().find(|server| server.name == name);
        let mut server = found.ok_or_else(|| missing("the legacy server", name))?;
        change.apply(&mut server);
        server.check()?;
        self.changed(self.tables.put_legacy(server, true).await)
    }

    /// # Errors
    /// [`RegistryError::Refused`] while accounts or domains are on it.
    pub async fn delete_legacy(&self, name: &str) -> Result<(), RegistryError> {
        self.changed(self.tables.delete_legacy(name).await)
    }

    pub async fn legacies(&self) -> Result<Vec<LegacyServer>, EngineError> {
        self.tables.legacies().await
    }

    /// Where new accounts of the domain begin; `None` for here.
    pub async fn set_domain_legacy(&self, name: Domain, server: Option<String>) -> Result<(), RegistryError> {
        self.changed(self.tables.set_domain_legacy(name, server).await)
    }

    /// # Errors
    /// [`RegistryError::Refused`] for a selector that is no name, [`RegistryError::Exists`].
    pub async fn add_key(&self, key: DomainKey) -> Result<(), RegistryError> {
        key.check()?;
        self.changed(self.tables.put_key(key, false).await)
    }

    /// One that is retired forgets its private half.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] for a retired one: it has none.
    pub async fn set_key_state(&self, domain: &str, selector: &str, state: KeyState) -> Result<(), RegistryError> {
        let which = KeyListing { domain: Some(domain.to_owned()), ..KeyListing::default() };
        let found = self.tables.keys(which).await?.into_iter().find(|key| key.selector == selector);
        let mut key = found.ok_or_else(|| missing("the key", &format!("{selector}._domainkey.{domain}")))?;
        if key.state == KeyState::Retired && state != KeyState::Retired {
            return Err(refused(format!("the key {} is retired; make a new one", key.name())));
        }
        if state == KeyState::Retired {
            key.private = Secret::new(Vec::new());
        }
        (key.state, key.changed_at) = (state, self.clock.utc());
        self.changed(self.tables.put_key(key, true).await)
    }

    pub async fn delete_key(&self, domain: &str, selector: &str) -> Result<(), RegistryError> {
        self.changed(self.tables.delete_key(domain, selector).await)
    }

    pub async fn keys(&self, which: KeyListing) -> Result<Vec<DomainKey>, EngineError> {
        self.tables.keys(which).await
    }

    /// The active keys of a domain, else of the nearest one that it lies in.
    async fn nearest_keys(&self, domain: &str) -> Result<Arc<[DomainKey]>, EngineError> {
        let mut rest = domain;
        // A top-level domain has none.
        while rest.contains('.') {
            let which =
                KeyListing { domain: Some(rest.to_owned()), state: Some(KeyState::Active), ..KeyListing::default() };
            let found = self.tables.keys(which).await?;
            if !found.is_empty() {
                return Ok(found.into());
            }
            rest = rest.split_once('.').map_or("", |(_, parent)| parent);
        }
        Ok(Arc::new([]))
    }

    async fn login_entry(&self, name: &str) -> Result<Option<(Account, PasswordHash)>, DirectoryError> {
        let Ok(address) = name.trim().parse::<Address>() else { return Ok(None) };
        let folded = address.to_folded();
        if let Some(found) = self.logins.get(&folded) {
            return Ok(Some(found));
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        let found = self.tables.login(&folded).await?;
        if let Some(found) = &found {
            self.keep(&self.logins, epoch, folded, found.clone());
        }
        Ok(found)
    }

    fn tell_sign_in(&self, account: AccountId, login: &Login<'_>) {
        if let Some(told) = self.sign_ins.get() {
            // Whoever listens misses some rather than that anybody waits.
            let _ = told.try_send(SignIn { account, peer: login.peer });
        }
    }

    /// Puts a hash of ours in the place of one that another system made, now that the password is known. If that fails, it
    /// is done the next time.
    async fn renew_password(&self, account: Account, was: &PasswordHash, password: &Secret<String>) -> Account {
        let Ok(_permit) = self.hashing.acquire().await else { return account };
        let password = password.clone();
        let Ok(made) = tokio::task::spawn_blocking(move || PasswordHash::make(&password)).await else { return account };
        let renewed = self.changed(self.tables.renew(account.id, was, &made).await);
        if renewed.is_ok_and(|is_renewed| is_renewed)
            && let Ok(Some(now)) = self.tables.account(account.id).await
        {
            return now;
        }
        account
    }

    /// Checks off the async threads, a few at a time.
    async fn password_matches(&self, stored: PasswordHash, password: &Secret<String>) -> bool {
        if stored.is_cheap() {
            return stored.matches(password);
        }
        let stored_text = stored.to_stored();
        let mut digest = blake3::Hasher::new_keyed(&self.verified_key);
        digest.update(stored_text.as_bytes()).update(&[0]).update(password.reveal().as_bytes());
        let digest = *digest.finalize().as_bytes();
        if self.verified.contains_key(&digest) {
            return true;
        }
        let Ok(_permit) = self.hashing.acquire().await else { return false };
        let password = password.clone();
        let matches = tokio::task::spawn_blocking(move || stored.matches(&password)).await.unwrap_or(false);
        if matches {
            self.verified.insert(digest, ());
        }
        matches
    }

    /// Follows aliases breadth first, each address once; one question for each depth.
    async fn expand(&self, address: &Address) -> Result<Resolution, EngineError> {
        let Some(domain) = self.tables.canonical(&address.domain).await? else {
            return Ok(Resolution::ForeignDomain);
        };
        let address = &Address { domain, ..address.clone() };
        let mut found: Vec<Recipient> = Vec::new();
        let mut seen = HashSet::new();
        let mut level = vec![address.clone()];
        for _ in 0..=ALIAS_DEPTH_MAX {
            level.retain(|address| seen.insert(address.to_folded()));
            if level.is_empty() {
                break;
            }
            let keys: HashSet<String> = level.iter().flat_map(keys).collect();
            let hits = self.tables.find(keys.into_iter().collect()).await?;
            let mut next = Vec::new();
            for address in level {
                if found.len() >= RECIPIENTS_MAX {
                    break;
                }
                match recipient(&hits, &address) {
                    Some(known) if found.iter().any(|one| one.account == known.account) => {}
                    Some(recipient) => found.push(recipient),
                    None => next.extend(targets(&hits, &address)),
                }
            }
            level = next;
        }
        Ok(if found.is_empty() { Resolution::UnknownAddress } else { Resolution::Local(found) })
    }
}

#[async_trait]
impl Directory for Registry {
    async fn resolve(&self, path: &ForwardPath) -> Result<Resolution, DirectoryError> {
        let (address, is_postmaster) = match (path, &self.postmaster) {
            (ForwardPath::Postmaster, None) => return Ok(Resolution::UnknownAddress),
            (ForwardPath::Postmaster, Some(postmaster)) => (postmaster, false),
            (ForwardPath::Address(address), _) => (address, address.local.as_str().eq_ignore_ascii_case("postmaster")),
        };
        // The detail is answered as it was written.
        let key = address.to_string();
        if let Some(found) = self.resolutions.get(&key) {
            return Ok(found);
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        let found = match (self.expand(address).await?, &self.postmaster) {
            (Resolution::UnknownAddress, Some(postmaster))
                if is_postmaster && !self.has_unlisted(&address.domain).await? =>
            {
                self.expand(postmaster).await?
            }
            (found, _) => found,
        };
        self.keep(&self.resolutions, epoch, key, found.clone());
        Ok(found)
    }

    async fn take_in(&self, address: &Address) -> Result<Resolution, DirectoryError> {
        self.put_in(address).await
    }

    async fn account(&self, id: AccountId) -> Result<Option<Account>, DirectoryError> {
        if let Some(found) = self.accounts.get(&id) {
            return Ok(Some(found));
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        let found = self.tables.account(id).await?;
        if let Some(account) = &found {
            self.keep(&self.accounts, epoch, id, account.clone());
        }
        Ok(found)
    }

    async fn sender_addresses(&self, id: AccountId) -> Result<Vec<Address>, DirectoryError> {
        let mut own = self.tables.sender_addresses(id).await?;
        let domains: BTreeSet<Domain> = own.iter().map(|one| one.domain.clone()).collect();
        for domain in domains {
            for name in self.further_names(&domain).await? {
                let there: Vec<Address> = own.iter().filter(|one| one.domain == domain).cloned().collect();
                own.extend(there.into_iter().map(|one| Address { domain: name.clone(), ..one }));
            }
        }
        Ok(own)
    }

    async fn authenticate(&self, login: Login<'_>) -> Result<Account, LoginError> {
        if !self.guard.admits(login.peer) {
            return Err(LoginError::TooMany);
        }
        let found = self.login_entry(login.name).await?;
        if let Some((account, _)) = found.as_ref().filter(|(account, _)| account.enabled)
            && let Some(name) = &account.legacy
            && let Some(server) = self.legacy(name).await?
        {
            return Err(LoginError::Elsewhere(Box::new(Elsewhere { account: account.clone(), server })));
        }
        let refused = || Err(LoginError::Refused { delay: self.guard.failed(login.peer) });
        let reads_mail = matches!(login.protocol, Protocol::Imap | Protocol::Pop3 | Protocol::ManageSieve);
        // Its mail is on its owner's server.
        let found = found.filter(|(account, _)| !(account.is_relayed && reads_mail));
        if let Some((account, _)) = found.as_ref().filter(|(account, _)| account.enabled) {
            let of = (account.access, account.enabled);
            let opened = self.try_app_password(account.id, of, login.password, login.protocol).await;
            if let Some(opened) = opened.map_err(DirectoryError::from)? {
                self.tell_sign_in(account.id, &login);
                return Ok(Account {
                    rights: opened.rights,
                    grants: Vec::new(),
                    access: Access::User,
                    ..account.clone()
                });
            }
        }
        let stored = found.as_ref().map_or_else(|| self.decoy.clone(), |(_, stored)| stored.clone());
        let matches = self.password_matches(stored.clone(), login.password).await;
        let Some((account, _)) = found.filter(|(account, _)| matches && account.enabled) else { return refused() };
        if account.has_second_factor {
            match (login.protocol, login.code) {
                (Protocol::Web, None) => return Err(LoginError::SecondFactor),
                (Protocol::Web, Some(code)) => {
                    if !self.takes_code(account.id, code).await.map_err(DirectoryError::from)? {
                        return refused();
                    }
                }
                (Protocol::Submission | Protocol::Imap | Protocol::Pop3 | Protocol::ManageSieve, _) => {
                    return refused();
                }
            }
        }
        self.tell_sign_in(account.id, &login);
        // A new hash would lift the lock, and the password is the same.
        match stored.is_foreign() && account.sending_lock.is_none() {
            true => Ok(self.renew_password(account, &stored, login.password).await),
            false => Ok(account),
        }
    }

    async fn hold(&self, account: AccountId, rights: Option<Rights>) -> Hold {
        let cached = self.account(account).await.ok().flatten().map(|account| account.rights);
        let hold = self.holds.hold(account, rights.or(cached).unwrap_or_default());
        // What was revoked between the sign-in and here. The cache may also be older than the sign-in.
        if self.account(account).await.ok().flatten().is_none_or(|account| account.rights != hold.rights()) {
            let _ = self.check_holds(account).await;
        }
        hold
    }

    async fn accepted_elsewhere(&self, elsewhere: &Elsewhere, password: &Secret<String>) -> Result<(), DirectoryError> {
        if !elsewhere.server.capture_passwords {
            return Ok(());
        }
        let Some((account, stored)) = self.login_entry(&elsewhere.account.address.to_string()).await? else {
            return Ok(());
        };
        if account.id != elsewhere.account.id || self.password_matches(stored.clone(), password).await {
            return Ok(());
        }
        let Ok(_permit) = self.hashing.acquire().await else { return Ok(()) };
        let password = password.clone();
        let Ok(made) = tokio::task::spawn_blocking(move || PasswordHash::make(&password)).await else { return Ok(()) };
        match self.changed(self.tables.capture(account.id, &stored, &made).await) {
            Err(RegistryError::Unavailable(error)) => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn refused_elsewhere(&self, peer: IpAddr) -> Duration {
        self.guard.failed(peer)
    }

    async fn lock_sending(&self, account: &Account, reason: &str) -> Result<bool, DirectoryError> {
        // What is cached may be older than the last lock, or the last release.
        let before = self.tables.account(account.id).await?;
        if before.is_none_or(|account| account.sending_lock.is_some()) {
            return Ok(false);
        }
        let lock = SendingLock { at: self.clock.utc(), reason: reason.to_owned() };
        let change = AccountChange { sending: Some(Some(lock)), ..AccountChange::default() };
        match self.set_account(&account.address, change).await {
            Ok(()) => Ok(true),
            Err(RegistryError::Unavailable(error)) => Err(error.into()),
            Err(_gone) => Ok(false),
        }
    }

    async fn signing_keys(&self, domain: &str) -> Result<Arc<[DomainKey]>, DirectoryError> {
        let domain = domain.to_ascii_lowercase();
        if let Some(found) = self.signing_keys.get(&domain) {
            return Ok(found);
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        let found = self.nearest_keys(&domain).await?;
        self.keep(&self.signing_keys, epoch, domain, Arc::clone(&found));
        Ok(found)
    }

    async fn legacy(&self, name: &str) -> Result<Option<Arc<LegacyServer>>, DirectoryError> {
        if let Some(found) = self.legacies.get(name) {
            return Ok(found);
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        let found = self.tables.legacies().await?.into_iter().find(|server| server.name == name).map(Arc::new);
        self.keep(&self.legacies, epoch, name.to_owned(), found.clone());
        Ok(found)
    }
}

/// Local part and detail, if there are both.
fn split_detail(address: &Address) -> Option<(&str, &str)> {
    address.local.as_str().split_once('+').filter(|(local, _)| !local.is_empty())
}

fn without_detail(address: &Address) -> Option<String> {
    split_detail(address).map(|(local, _)| format!("{}@{}", local.to_lowercase(), address.domain))
}

/// Where an address may be found, the nearest first: as it is, without `+detail`, its domain's catch-all.
fn keys(address: &Address) -> impl Iterator<Item = String> {
    [Some(address.to_folded()), without_detail(address), Some(format!("@{}", address.domain))].into_iter().flatten()
}

/// The account of this very address, else of the address without `+detail`.
fn recipient(hits: &Hits, address: &Address) -> Option<Recipient> {
    let made = |hit: &Hit, detail: Option<&str>| Recipient {
        account: hit.account,
        address: hit.address.clone(),
        detail: detail.map(str::to_owned),
        legacy: hit.legacy.clone(),
        position: hit.position,
        forwards: hit.forwards.clone(),
        keeps: hit.keeps,
    };
    if let Some(hit) = hits.accounts.get(&address.to_folded()) {
        return Some(made(hit, None));
    }
    let detail = split_detail(address).map(|(_, detail)| detail);
    hits.accounts.get(&without_detail(address)?).map(|hit| made(hit, detail))
}

/// Targets of the alias, of the alias without `+detail`, else of the domain's catch-all.
fn targets(hits: &Hits, address: &Address) -> Vec<Address> {
    keys(address).find_map(|key| hits.aliases.get(&key).cloned()).unwrap_or_default()
}

fn check_tenant_name(name: &str) -> Result<(), RegistryError> {
    if name.is_empty() || name.len() > 200 || name.chars().any(char::is_control) {
        return Err(refused("a tenant's name has 1 to 200 characters and no control characters"));
    }
    Ok(())
}

/// Key and domain of `local@domain` or `@domain`.
fn alias_key(address: &str) -> Result<(String, Domain), RegistryError> {
    let invalid = |error: mail::InvalidAddress| refused(format!("{address}: {error}"));
    match address.strip_prefix('@') {
        Some(domain) => {
            let domain: Domain = domain.parse().map_err(invalid)?;
            Ok((format!("@{domain}"), domain))
        }
        None => {
            let address: Address = address.parse().map_err(invalid)?;
            Ok((address.to_folded(), address.domain))
        }
    }
}

fn cache<K, V>(keep: Duration) -> Cache<K, V>
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    Cache::builder().max_capacity(CACHED_MAX).time_to_live(keep).build()
}
