//! The directory in a database file of our own.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::{AccountId, Clock, DomainId, Secret, TenantId, UtcMillis};
use engine::{Database, EngineError, Settings};
use mail::{Address, Domain, ForwardPath};
use moka::sync::Cache;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use tokio::sync::Semaphore;

use crate::account::{Access, Account, Alias, DomainEntry, NewAccount, Recipient, Resolution, Tenant, TenantKind};
use crate::directory::{Directory, Login};
use crate::error::{DirectoryError, LoginError, RegistryError};
use crate::guard::LoginGuard;
use crate::password::PasswordHash;
use crate::quota::{QuotaChange, read_quota};
use crate::schema::MIGRATIONS;

/// Our own tables, with caches in front. Every change here empties the caches of this node.
pub struct EmbeddedDirectory {
    pub(crate) database: Database,
    clock: Arc<dyn Clock>,
    postmaster: Option<Address>,
    guard: LoginGuard,
    resolutions: Cache<String, Resolution>,
    accounts: Cache<AccountId, Account>,
    logins: Cache<String, (Account, PasswordHash)>,
    /// Keyed digests of passwords that were found right, so that a client that signs in every minute costs no argon2.
    verified: Cache<[u8; 32], ()>,
    verified_key: [u8; 32],
    hashing: Semaphore,
    /// Checked when a login does not exist, so that the answer takes as long as for one that does.
    decoy: PasswordHash,
}

/// What of an account changes; `None` stays.
#[derive(Clone, Debug, Default)]
pub struct AccountChange {
    pub name: Option<String>,
    pub access: Option<Access>,
    pub enabled: Option<bool>,
    pub quota: QuotaChange,
    pub password: Option<PasswordHash>,
}

/// A page of a listing: names that sort after `after`, containing `search`, at most `limit`.
#[derive(Clone, Debug)]
pub struct Listing {
    pub search: String,
    pub domain: Option<Domain>,
    pub after: String,
    pub limit: u32,
}

impl Default for Listing {
    fn default() -> Self {
        Self { search: String::new(), domain: None, after: String::new(), limit: 10_000 }
    }
}

const CACHED_MAX: u64 = 200_000;
const CACHED_FOR: Duration = Duration::from_secs(60);
const VERIFIED_FOR: Duration = Duration::from_secs(300);
/// Aliases that lead to aliases: enough for any sane list, an end for any loop.
const ALIAS_DEPTH_MAX: usize = 10;
const RECIPIENTS_MAX: usize = 1000;

impl EmbeddedDirectory {
    /// Opens `file`. `postmaster` takes mail for `<Postmaster>` and for `postmaster@` of domains that have none.
    pub fn open(
        file: &Path,
        clock: Arc<dyn Clock>,
        postmaster: Option<Address>,
        guard: LoginGuard,
    ) -> Result<Self, EngineError> {
        let mut verified_key = [0u8; 32];
        getrandom::fill(&mut verified_key).expect("the operating system gives random bytes");
        Ok(Self {
            database: Database::open(file, &Settings { migrations: MIGRATIONS, readers: 4, cache_kib: 16 * 1024 })?,
            clock,
            postmaster,
            guard,
            resolutions: cache(CACHED_FOR),
            accounts: cache(CACHED_FOR),
            logins: cache(CACHED_FOR),
            verified: cache(VERIFIED_FOR),
            verified_key,
            hashing: Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from)),
            decoy: PasswordHash::make(&Secret::new("no account has this".to_owned())),
        })
    }

    // -- tenants --

    pub async fn add_tenant(&self, name: &str, kind: TenantKind, parent: Option<String>) -> Result<(), RegistryError> {
        let (name, now) = (name.trim().to_owned(), self.clock.utc());
        if name.is_empty() || name.len() > 200 || name.chars().any(char::is_control) {
            return Err(refused("a tenant's name has 1 to 200 characters and no control characters"));
        }
        self.change(move |sql| {
            let parent = match &parent {
                None => None,
                Some(parent) => match tenant_id(sql, parent)? {
                    Some((id, TenantKind::Reseller)) => Some(id),
                    Some((_, TenantKind::Customer)) => {
                        return Ok(Err(refused(&format!("{parent} is a customer; only a reseller has tenants below"))));
                    }
                    None => return Ok(Err(missing("the tenant", parent))),
                },
            };
            if tenant_id(sql, &name)?.is_some() {
                return Ok(Err(exists("the tenant", &name)));
            }
            sql.execute(
                "INSERT INTO tenant (name, kind, parent, created_at) VALUES (?1, ?2, ?3, ?4)",
                params![name, kind.as_str(), parent, now.0],
            )?;
            Ok(Ok(()))
        })
        .await
    }

    pub async fn tenants(&self) -> Result<Vec<Tenant>, EngineError> {
        self.database
            .read(|sql| {
                let mut query = sql.prepare_cached(
                    "SELECT t.id, t.name, t.kind, p.name, (SELECT count(*) FROM domain d WHERE d.tenant = t.id), t.created_at,
                            t.quota_bytes, t.quota_messages
                     FROM tenant t LEFT JOIN tenant p ON p.id = t.parent ORDER BY t.name",
                )?;
                let rows = query.query_map([], |row| {
                    Ok(Tenant {
                        id: TenantId(row.get(0)?),
                        name: row.get(1)?,
                        kind: TenantKind::from_name(row.get_ref(2)?.as_str()?).unwrap_or(TenantKind::Customer),
                        parent: row.get(3)?,
                        domains: row.get(4)?,
                        quota: read_quota(row, 6)?,
                        created_at: UtcMillis(row.get(5)?),
                    })
                })?;
                rows.collect()
            })
            .await
    }

    pub async fn rename_tenant(&self, name: &str, to: &str) -> Result<(), RegistryError> {
        let (name, to) = (name.to_owned(), to.trim().to_owned());
        self.change(move |sql| {
            if !name.eq_ignore_ascii_case(&to) && tenant_id(sql, &to)?.is_some() {
                return Ok(Err(exists("the tenant", &to)));
            }
            let changed = sql.execute("UPDATE tenant SET name = ?2 WHERE name = ?1", params![name, to])?;
            Ok(if changed == 0 { Err(missing("the tenant", &name)) } else { Ok(()) })
        })
        .await
    }

    pub async fn delete_tenant(&self, name: &str) -> Result<(), RegistryError> {
        let name = name.to_owned();
        self.change(move |sql| {
            let Some((id, _)) = tenant_id(sql, &name)? else { return Ok(Err(missing("the tenant", &name))) };
            let in_use: i64 = sql.query_row(
                "SELECT (SELECT count(*) FROM domain WHERE tenant = ?1) + (SELECT count(*) FROM tenant WHERE parent = ?1)",
                [id],
                |row| row.get(0),
            )?;
            if in_use > 0 {
                return Ok(Err(refused(&format!("the tenant {name} still has domains or tenants below it; delete those first"))));
            }
            sql.execute("DELETE FROM tenant WHERE id = ?1", [id])?;
            Ok(Ok(()))
        })
        .await
    }

    // -- domains --

    pub async fn add_domain(&self, name: Domain, tenant: Option<String>) -> Result<(), RegistryError> {
        let now = self.clock.utc();
        if name.is_literal() {
            return Err(refused("an address literal is not a mail domain"));
        }
        self.change(move |sql| {
            let tenant = match tenant_of(sql, tenant.as_deref())? {
                Ok(tenant) => tenant,
                Err(error) => return Ok(Err(error)),
            };
            if domain_id(sql, &name)?.is_some() {
                return Ok(Err(exists("the domain", &name)));
            }
            sql.execute(
                "INSERT INTO domain (name, tenant, created_at) VALUES (?1, ?2, ?3)",
                params![name.as_str(), tenant, now.0],
            )?;
            Ok(Ok(()))
        })
        .await
    }

    /// Gives the domain to another tenant, or to none.
    pub async fn set_domain_tenant(&self, name: Domain, tenant: Option<String>) -> Result<(), RegistryError> {
        self.change(move |sql| {
            let tenant = match tenant_of(sql, tenant.as_deref())? {
                Ok(tenant) => tenant,
                Err(error) => return Ok(Err(error)),
            };
            let changed =
                sql.execute("UPDATE domain SET tenant = ?2 WHERE name = ?1", params![name.as_str(), tenant])?;
            Ok(if changed == 0 { Err(missing("the domain", &name)) } else { Ok(()) })
        })
        .await
    }

    pub async fn delete_domain(&self, name: Domain) -> Result<(), RegistryError> {
        self.change(move |sql| {
            let Some(id) = domain_id(sql, &name)? else { return Ok(Err(missing("the domain", &name))) };
            let accounts: i64 =
                sql.query_row("SELECT count(*) FROM account WHERE domain = ?1", [id], |row| row.get(0))?;
            if accounts > 0 {
                return Ok(Err(refused(&format!(
                    "the domain {name} still has {accounts} accounts; delete those first"
                ))));
            }
            sql.execute("DELETE FROM alias WHERE domain = ?1", [id])?;
            sql.execute("DELETE FROM domain WHERE id = ?1", [id])?;
            Ok(Ok(()))
        })
        .await
    }

    pub async fn domains(&self, listing: Listing) -> Result<Vec<DomainEntry>, EngineError> {
        self.database
            .read(move |sql| {
                let mut query = sql.prepare_cached(
                    "SELECT d.id, d.name, t.name, (SELECT count(*) FROM account a WHERE a.domain = d.id),
                            (SELECT count(*) FROM alias a WHERE a.domain = d.id), d.created_at,
                            d.quota_bytes, d.quota_messages
                     FROM domain d LEFT JOIN tenant t ON t.id = d.tenant
                     WHERE d.name > ?1 AND instr(d.name, ?2) > 0 ORDER BY d.name LIMIT ?3",
                )?;
                let rows = query.query_map(params![listing.after, listing.search, listing.limit], |row| {
                    Ok(DomainEntry {
                        id: DomainId(row.get(0)?),
                        name: parsed(row, 1)?,
                        tenant: row.get(2)?,
                        accounts: row.get(3)?,
                        aliases: row.get(4)?,
                        quota: read_quota(row, 6)?,
                        created_at: UtcMillis(row.get(5)?),
                    })
                })?;
                rows.collect()
            })
            .await
    }

    // -- accounts --

    pub async fn add_account(&self, account: NewAccount) -> Result<AccountId, RegistryError> {
        let now = self.clock.utc();
        self.change(move |sql| {
            let folded = account.address.to_folded();
            if account.address.local.as_str().contains('+') {
                return Ok(Err(refused(
                    "the local part of an account holds no `+`: what follows it is the recipient's detail",
                )));
            }
            let Some(domain) = domain_id(sql, &account.address.domain)? else {
                return Ok(Err(missing("the domain", &account.address.domain)));
            };
            if let Some(error) = taken(sql, &folded)? {
                return Ok(Err(error));
            }
            sql.execute(
                "INSERT INTO account (domain, folded, address, name, access, enabled, quota_bytes, quota_messages,
                     password, created_at) VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6, ?7, ?8, ?9)",
                params![
                    domain,
                    folded,
                    account.address.to_string(),
                    account.name,
                    account.access.as_str(),
                    account.quota.size.map(|size| size.0),
                    account.quota.messages,
                    account.password.to_stored(),
                    now.0
                ],
            )?;
            Ok(Ok(AccountId(u64::try_from(sql.last_insert_rowid()).unwrap_or_default())))
        })
        .await
    }

    pub async fn set_account(&self, address: &Address, change: AccountChange) -> Result<(), RegistryError> {
        let folded = address.to_folded();
        self.change(move |sql| {
            let changed = sql.execute(
                "UPDATE account SET name = coalesce(?2, name), access = coalesce(?3, access), enabled = coalesce(?4, enabled),
                     quota_bytes = CASE WHEN ?5 THEN ?6 ELSE quota_bytes END,
                     quota_messages = CASE WHEN ?7 THEN ?8 ELSE quota_messages END, password = coalesce(?9, password)
                 WHERE folded = ?1",
                params![
                    folded,
                    change.name,
                    change.access.map(Access::as_str),
                    change.enabled,
                    change.quota.size.is_some(),
                    change.quota.size.flatten().map(|size| size.0),
                    change.quota.messages.is_some(),
                    change.quota.messages.flatten(),
                    change.password.map(|password| password.to_stored()),
                ],
            )?;
            Ok(if changed == 0 { Err(missing("the account", &folded)) } else { Ok(()) })
        })
        .await
    }

    /// Removes the account and every alias target that leads to it. Its mailboxes are the store's matter.
    pub async fn delete_account(&self, address: &Address) -> Result<AccountId, RegistryError> {
        let folded = address.to_folded();
        self.change(move |sql| {
            let id: Option<u64> = sql
                .query_row("DELETE FROM account WHERE folded = ?1 RETURNING id", [&folded], |row| row.get(0))
                .optional()?;
            let Some(id) = id else { return Ok(Err(missing("the account", &folded))) };
            sql.execute("DELETE FROM alias_target WHERE folded = ?1", [&folded])?;
            sql.execute("DELETE FROM alias WHERE id NOT IN (SELECT alias FROM alias_target)", [])?;
            Ok(Ok(AccountId(id)))
        })
        .await
    }

    pub async fn account_by_address(&self, address: &Address) -> Result<Option<Account>, EngineError> {
        let folded = address.to_folded();
        self.database
            .read(move |sql| {
                sql.prepare_cached(&format!("{SELECT_ACCOUNT} WHERE folded = ?1"))?
                    .query_row([&folded], read_account)
                    .optional()
            })
            .await
    }

    pub async fn accounts(&self, listing: Listing) -> Result<Vec<Account>, EngineError> {
        self.database
            .read(move |sql| {
                let mut query = sql.prepare_cached(&format!(
                    "{SELECT_ACCOUNT} WHERE folded > ?1 AND (instr(folded, ?2) > 0 OR instr(lower(name), ?2) > 0)
                     AND (?3 IS NULL OR domain = (SELECT id FROM domain WHERE name = ?3)) ORDER BY folded LIMIT ?4"
                ))?;
                let domain = listing.domain.as_ref().map(Domain::as_str);
                let search = listing.search.to_lowercase();
                query.query_map(params![listing.after, search, domain, listing.limit], read_account)?.collect()
            })
            .await
    }

    /// Ids of all accounts, for the auditor.
    pub async fn account_ids(&self) -> Result<Vec<AccountId>, EngineError> {
        self.database
            .read(|sql| {
                let mut query = sql.prepare_cached("SELECT id FROM account ORDER BY id")?;
                query.query_map([], |row| row.get(0).map(AccountId))?.collect()
            })
            .await
    }

    // -- aliases --

    /// Makes or replaces an alias. `address` is `local@domain` or `@domain` (catch-all). Targets must be addresses of
    /// domains of this system.
    pub async fn put_alias(&self, address: &str, targets: Vec<Address>, replace: bool) -> Result<(), RegistryError> {
        let (folded, domain) = alias_key(address)?;
        let now = self.clock.utc();
        if targets.is_empty() || targets.len() > RECIPIENTS_MAX {
            return Err(refused(&format!("an alias has 1 to {RECIPIENTS_MAX} targets")));
        }
        self.change(move |sql| {
            let Some(domain) = domain_id(sql, &domain)? else { return Ok(Err(missing("the domain", &domain))) };
            for target in &targets {
                if domain_id(sql, &target.domain)?.is_none() {
                    return Ok(Err(refused(&format!(
                        "the target {target} is not in a domain of this system; add the domain {} first",
                        target.domain
                    ))));
                }
            }
            let found: Option<i64> =
                sql.query_row("SELECT id FROM alias WHERE folded = ?1", [&folded], |row| row.get(0)).optional()?;
            match (found, replace) {
                (Some(_), false) => return Ok(Err(exists("the alias", &folded))),
                (None, true) => return Ok(Err(missing("the alias", &folded))),
                (Some(id), true) => {
                    sql.execute("DELETE FROM alias_target WHERE alias = ?1", [id])?;
                }
                (None, false) => {
                    if let Some(error) = taken(sql, &folded)? {
                        return Ok(Err(error));
                    }
                    sql.execute(
                        "INSERT INTO alias (domain, folded, created_at) VALUES (?1, ?2, ?3)",
                        params![domain, folded, now.0],
                    )?;
                }
            }
            let alias: i64 = sql.query_row("SELECT id FROM alias WHERE folded = ?1", [&folded], |row| row.get(0))?;
            let mut insert =
                sql.prepare_cached("INSERT OR IGNORE INTO alias_target (alias, folded) VALUES (?1, ?2)")?;
            for target in &targets {
                insert.execute(params![alias, target.to_folded()])?;
            }
            Ok(Ok(()))
        })
        .await
    }

    pub async fn delete_alias(&self, address: &str) -> Result<(), RegistryError> {
        let (folded, _) = alias_key(address)?;
        self.change(move |sql| {
            let gone = sql.execute("DELETE FROM alias WHERE folded = ?1", [&folded])?;
            Ok(if gone == 0 { Err(missing("the alias", &folded)) } else { Ok(()) })
        })
        .await
    }

    pub async fn aliases(&self, listing: Listing) -> Result<Vec<Alias>, EngineError> {
        self.database
            .read(move |sql| {
                let mut query = sql.prepare_cached(
                    "SELECT a.folded, t.folded, a.created_at FROM alias_target t JOIN alias a ON a.id = t.alias
                     WHERE a.folded > ?1 AND (instr(a.folded, ?2) > 0 OR instr(t.folded, ?2) > 0)
                     AND (?3 IS NULL OR a.domain = (SELECT id FROM domain WHERE name = ?3))
                     ORDER BY a.folded, t.folded LIMIT ?4",
                )?;
                let domain = listing.domain.as_ref().map(Domain::as_str);
                let mut found: BTreeMap<String, Alias> = BTreeMap::new();
                let mut rows = query.query(params![listing.after, listing.search, domain, listing.limit])?;
                while let Some(row) = rows.next()? {
                    let address: String = row.get(0)?;
                    let created_at = UtcMillis(row.get(2)?);
                    let alias = Alias { address: address.clone(), targets: Vec::new(), created_at };
                    found.entry(address).or_insert(alias).targets.push(parsed(row, 1)?);
                }
                Ok(found.into_values().collect())
            })
            .await
    }

    /// Runs a change and forgets what the caches knew.
    pub(crate) async fn change<T, F>(&self, work: F) -> Result<T, RegistryError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<Result<T, RegistryError>> + Send + 'static,
    {
        enum Failed {
            Sql(rusqlite::Error),
            Refused(RegistryError),
        }
        let outcome = self
            .database
            .write(move |sql| match work(sql) {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(refused)) => Err(Failed::Refused(refused)),
                Err(error) => Err(Failed::Sql(error)),
            })
            .await?;
        self.resolutions.invalidate_all();
        self.accounts.invalidate_all();
        self.logins.invalidate_all();
        outcome.map_err(|failed| match failed {
            Failed::Sql(error) => self.database.error(error).into(),
            Failed::Refused(error) => error,
        })
    }

    async fn login_entry(&self, name: &str) -> Result<Option<(Account, PasswordHash)>, DirectoryError> {
        let Ok(address) = name.trim().parse::<Address>() else { return Ok(None) };
        let folded = address.to_folded();
        if let Some(found) = self.logins.get(&folded) {
            return Ok(Some(found));
        }
        let key = folded.clone();
        let found = self
            .database
            .read(move |sql| {
                sql.prepare_cached(&format!("{SELECT_ACCOUNT} WHERE folded = ?1"))?
                    .query_row([&key], |row| Ok((read_account(row)?, parsed::<PasswordHash>(row, 7)?)))
                    .optional()
            })
            .await?;
        if let Some(found) = &found {
            self.logins.insert(folded, found.clone());
        }
        Ok(found)
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
}

#[async_trait]
impl Directory for EmbeddedDirectory {
    async fn resolve(&self, path: &ForwardPath) -> Result<Resolution, DirectoryError> {
        let (address, is_postmaster) = match (path, &self.postmaster) {
            (ForwardPath::Postmaster, None) => return Ok(Resolution::UnknownAddress),
            (ForwardPath::Postmaster, Some(postmaster)) => (postmaster, false),
            (ForwardPath::Address(address), _) => (address, address.local.as_str().eq_ignore_ascii_case("postmaster")),
        };
        let folded = address.to_folded();
        if let Some(found) = self.resolutions.get(&folded) {
            return Ok(found);
        }
        let fallback = self.postmaster.clone().filter(|_| is_postmaster);
        let wanted = address.clone();
        let found = self
            .database
            .read(move |sql| {
                let found = expand(sql, &wanted)?;
                match (found, fallback) {
                    (Resolution::UnknownAddress, Some(postmaster)) => expand(sql, &postmaster),
                    (found, _) => Ok(found),
                }
            })
            .await?;
        self.resolutions.insert(folded, found.clone());
        Ok(found)
    }

    async fn account(&self, id: AccountId) -> Result<Option<Account>, DirectoryError> {
        if let Some(found) = self.accounts.get(&id) {
            return Ok(Some(found));
        }
        let found = self
            .database
            .read(move |sql| {
                sql.prepare_cached(&format!("{SELECT_ACCOUNT} WHERE id = ?1"))?
                    .query_row([id.0], read_account)
                    .optional()
            })
            .await?;
        if let Some(account) = &found {
            self.accounts.insert(id, account.clone());
        }
        Ok(found)
    }

    async fn sender_addresses(&self, id: AccountId) -> Result<Vec<Address>, DirectoryError> {
        let found = self
            .database
            .read(move |sql| {
                let mut query = sql.prepare_cached(
                    "SELECT address FROM account WHERE id = ?1
                     UNION ALL SELECT a.folded FROM alias a JOIN alias_target t ON t.alias = a.id
                     WHERE t.folded = (SELECT folded FROM account WHERE id = ?1) AND a.folded NOT LIKE '@%'",
                )?;
                query.query_map([id.0], |row| parsed(row, 0))?.collect()
            })
            .await?;
        Ok(found)
    }

    async fn authenticate(&self, login: Login<'_>) -> Result<Account, LoginError> {
        if !self.guard.admits(login.peer) {
            return Err(LoginError::TooMany);
        }
        let found = self.login_entry(login.name).await?;
        let stored = found.as_ref().map_or_else(|| self.decoy.clone(), |(_, stored)| stored.clone());
        let matches = self.password_matches(stored, login.password).await;
        match found {
            Some((account, _)) if matches && account.enabled => Ok(account),
            _ => Err(LoginError::Refused { delay: self.guard.failed(login.peer) }),
        }
    }
}

const SELECT_ACCOUNT: &str =
    "SELECT id, address, name, access, enabled, quota_bytes, quota_messages, password, created_at FROM account";

fn read_account(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        id: AccountId(row.get(0)?),
        address: parsed(row, 1)?,
        name: row.get(2)?,
        access: Access::from_name(row.get_ref(3)?.as_str()?).unwrap_or(Access::User),
        enabled: row.get(4)?,
        quota: read_quota(row, 5)?,
        created_at: UtcMillis(row.get(8)?),
    })
}

/// A column whose text was checked before it was stored.
fn parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    row.get_ref(column)?.as_str()?.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

/// Follows aliases breadth first, each address once.
fn expand(sql: &Connection, address: &Address) -> rusqlite::Result<Resolution> {
    if domain_id(sql, &address.domain)?.is_none() {
        return Ok(Resolution::ForeignDomain);
    }
    let mut found: Vec<Recipient> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let mut open = VecDeque::from([(address.clone(), 0usize)]);
    while let Some((address, depth)) = open.pop_front() {
        if depth > ALIAS_DEPTH_MAX || found.len() >= RECIPIENTS_MAX || !seen.insert(address.to_folded()) {
            continue;
        }
        if let Some(recipient) = find_account(sql, &address)? {
            if found.iter().all(|known| known.account != recipient.account) {
                found.push(recipient);
            }
            continue;
        }
        for target in find_targets(sql, &address)? {
            open.push_back((target, depth + 1));
        }
    }
    Ok(if found.is_empty() { Resolution::UnknownAddress } else { Resolution::Local(found) })
}

/// The account of this very address, else of the address without `+detail`.
fn find_account(sql: &Connection, address: &Address) -> rusqlite::Result<Option<Recipient>> {
    let mut query = sql.prepare_cached("SELECT id, address FROM account WHERE folded = ?1")?;
    let mut find = |folded: String, detail: Option<String>| {
        query
            .query_row([folded], |row| {
                Ok(Recipient { account: AccountId(row.get(0)?), address: parsed(row, 1)?, detail: detail.clone() })
            })
            .optional()
    };
    if let Some(found) = find(address.to_folded(), None)? {
        return Ok(Some(found));
    }
    match address.local.as_str().split_once('+') {
        Some((local, detail)) if !local.is_empty() => {
            find(format!("{}@{}", local.to_lowercase(), address.domain), Some(detail.to_owned()))
        }
        _ => Ok(None),
    }
}

/// Targets of the alias, of the alias without `+detail`, else of the domain's catch-all.
fn find_targets(sql: &Connection, address: &Address) -> rusqlite::Result<Vec<Address>> {
    let mut query =
        sql.prepare_cached("SELECT t.folded FROM alias_target t JOIN alias a ON a.id = t.alias WHERE a.folded = ?1")?;
    let without_detail = address.local.as_str().split_once('+').map(|(local, _)| local.to_lowercase());
    let keys = [Some(address.local.to_folded()), without_detail, Some(String::new())];
    for local in keys.into_iter().flatten() {
        let targets: Vec<Address> = query
            .query_map([format!("{local}@{}", address.domain)], |row| parsed(row, 0))?
            .collect::<Result<_, _>>()?;
        if !targets.is_empty() {
            return Ok(targets);
        }
    }
    Ok(Vec::new())
}

fn domain_id(sql: &Connection, name: &Domain) -> rusqlite::Result<Option<i64>> {
    sql.prepare_cached("SELECT id FROM domain WHERE name = ?1")?.query_row([name.as_str()], |row| row.get(0)).optional()
}

fn tenant_id(sql: &Connection, name: &str) -> rusqlite::Result<Option<(i64, TenantKind)>> {
    sql.query_row("SELECT id, kind FROM tenant WHERE name = ?1", [name], |row| {
        Ok((row.get(0)?, TenantKind::from_name(row.get_ref(1)?.as_str()?).unwrap_or(TenantKind::Customer)))
    })
    .optional()
}

/// The tenant a domain may belong to; `None` for no tenant.
fn tenant_of(sql: &Connection, name: Option<&str>) -> rusqlite::Result<Result<Option<i64>, RegistryError>> {
    let Some(name) = name else { return Ok(Ok(None)) };
    Ok(tenant_id(sql, name)?.map_or_else(|| Err(missing("the tenant", name)), |(id, _)| Ok(Some(id))))
}

/// The error if an account or alias has this address.
fn taken(sql: &Connection, folded: &str) -> rusqlite::Result<Option<RegistryError>> {
    for (table, what) in [("account", "the account"), ("alias", "the alias")] {
        let query = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE folded = ?1)");
        if sql.query_row(&query, [folded], |row| row.get(0))? {
            return Ok(Some(exists(what, folded)));
        }
    }
    Ok(None)
}

/// Key and domain of `local@domain` or `@domain`.
fn alias_key(address: &str) -> Result<(String, Domain), RegistryError> {
    let invalid = |error: mail::InvalidAddress| refused(&format!("{address}: {error}"));
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

fn exists(what: &str, name: &(impl std::fmt::Display + ?Sized)) -> RegistryError {
    RegistryError::Exists { what: format!("{what} {name}") }
}

pub(crate) fn missing(what: &str, name: &(impl std::fmt::Display + ?Sized)) -> RegistryError {
    RegistryError::Missing { what: format!("{what} {name}") }
}

fn refused(why: &str) -> RegistryError {
    RegistryError::Refused { why: why.to_owned() }
}

fn cache<K, V>(keep: Duration) -> Cache<K, V>
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    Cache::builder().max_capacity(CACHED_MAX).time_to_live(keep).build()
}
