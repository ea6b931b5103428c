//! The directory's rows in a database file of our own.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use base::{AccountId, ByteSize, DomainId, PoolId, Quota, TenantId, UtcMillis};
use engine::table::Place;
use engine::{Database, EngineError, Settings};
use mail::{Address, Domain};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::account::{Access, Account, Alias, DomainEntry, NewAccount, SendingLock, Tenant, TenantKind};
use crate::domain_key::DomainKey;
use crate::error::RegistryError;
use crate::hold::Rights;
use crate::legacy::LegacyServer;
use crate::password::PasswordHash;
use crate::quota::{Limits, QuotaChange};
use crate::relayed::{DomainRelay, RELAY};
use crate::schema::MIGRATIONS;
use crate::sqlite_keys as keys;
use crate::sqlite_legacy as legacy;
use crate::tables::{
    AccountChange, Hit, Hits, KeyListing, Listing, NewAlias, Owner, Tables, domain_in_use, exists, foreign_target,
    forwards_of, grants_of, missing, parent_is_customer, position_of, tenant_in_use, tenant_position, within,
};
use crate::web_session::WebSession;

pub(crate) struct SqliteTables {
    database: Arc<Database>,
}

impl SqliteTables {
    pub(crate) fn open(file: &Path) -> Result<Self, EngineError> {
        let settings = Settings { migrations: MIGRATIONS, readers: 4, cache_kib: 16 * 1024 };
        Ok(Self { database: Arc::new(Database::open(file, &settings)?) })
    }

    async fn change<T, F>(&self, work: F) -> Result<T, RegistryError>
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
        outcome.map_err(|failed| match failed {
            Failed::Sql(error) => self.database.error(error).into(),
            Failed::Refused(error) => error,
        })
    }
}

#[async_trait]
impl Tables for SqliteTables {
    fn place(&self) -> Place {
        Place::Sqlite(Arc::clone(&self.database))
    }

    /// No other process changes the file.
    async fn version(&self) -> Result<u64, EngineError> {
        Ok(0)
    }

    async fn revoked_since(&self, _version: u64) -> Result<Vec<AccountId>, EngineError> {
        Ok(Vec::new())
    }

    async fn add_tenant(
        &self,
        name: &str,
        kind: TenantKind,
        parent: Option<String>,
        now: UtcMillis,
    ) -> Result<(), RegistryError> {
        let name = name.to_owned();
        self.change(move |sql| {
            let parent = match &parent {
                None => None,
                Some(parent) => match tenant_id(sql, parent)? {
                    Some((id, TenantKind::Reseller)) => Some(id),
                    Some((_, TenantKind::Customer)) => return Ok(Err(parent_is_customer(parent))),
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

    async fn tenants(&self) -> Result<Vec<Tenant>, EngineError> {
        self.database
            .read(|sql| {
                let mut query = sql.prepare_cached(
                    "SELECT t.id, t.name, t.kind, p.name, (SELECT count(*) FROM domain d WHERE d.tenant = t.id), t.created_at,
                            t.quota_bytes, t.quota_messages, coalesce(t.parent, 0)
                     FROM tenant t LEFT JOIN tenant p ON p.id = t.parent ORDER BY t.name",
                )?;
                let rows = query.query_map([], |row| {
                    let (id, parent) = (TenantId(row.get(0)?), TenantId(row.get(8)?));
                    let kind = TenantKind::from_name(row.get_ref(2)?.as_str()?).unwrap_or(TenantKind::Customer);
                    Ok(Tenant {
                        id,
                        name: row.get(1)?,
                        kind,
                        position: tenant_position(id, kind, parent),
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

    async fn rename_tenant(&self, name: &str, to: &str) -> Result<(), RegistryError> {
        let (name, to) = (name.to_owned(), to.to_owned());
        self.change(move |sql| {
            if !name.eq_ignore_ascii_case(&to) && tenant_id(sql, &to)?.is_some() {
                return Ok(Err(exists("the tenant", &to)));
            }
            let changed = sql.execute("UPDATE tenant SET name = ?2 WHERE name = ?1", params![name, to])?;
            Ok(if changed == 0 { Err(missing("the tenant", &name)) } else { Ok(()) })
        })
        .await
    }

    async fn delete_tenant(&self, name: &str) -> Result<(), RegistryError> {
        let name = name.to_owned();
        self.change(move |sql| {
            let Some((id, _)) = tenant_id(sql, &name)? else { return Ok(Err(missing("the tenant", &name))) };
            let in_use: i64 = sql.query_row(
                "SELECT (SELECT count(*) FROM domain WHERE tenant = ?1) + (SELECT count(*) FROM tenant WHERE parent = ?1)",
                [id],
                |row| row.get(0),
            )?;
            if in_use > 0 {
                return Ok(Err(tenant_in_use(&name)));
            }
            sql.execute("DELETE FROM tenant WHERE id = ?1", [id])?;
            Ok(Ok(()))
        })
        .await
    }

    async fn add_domain(&self, name: Domain, tenant: Option<String>, now: UtcMillis) -> Result<(), RegistryError> {
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

    async fn set_domain_tenant(&self, name: Domain, tenant: Option<String>) -> Result<(), RegistryError> {
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

    async fn delete_domain(&self, name: Domain) -> Result<(), RegistryError> {
        self.change(move |sql| {
            let Some(id) = domain_id(sql, &name)? else { return Ok(Err(missing("the domain", &name))) };
            let accounts: i64 =
                sql.query_row("SELECT count(*) FROM account WHERE domain = ?1", [id], |row| row.get(0))?;
            if accounts > 0 {
                return Ok(Err(domain_in_use(&name, accounts)));
            }
            sql.execute("DELETE FROM alias WHERE domain = ?1", [id])?;
            sql.execute("DELETE FROM domain WHERE id = ?1", [id])?;
            Ok(Ok(()))
        })
        .await
    }

    async fn domains(&self, listing: Listing) -> Result<Vec<DomainEntry>, EngineError> {
        let within = within(&listing, "d.id", ("domain", "tenant"));
        self.database
            .read(move |sql| {
                let mut query = sql.prepare_cached(&format!(
                    "SELECT d.id, d.name, t.name, (SELECT count(*) FROM account a WHERE a.domain = d.id),
                            (SELECT count(*) FROM alias a WHERE a.domain = d.id), d.created_at,
                            d.quota_bytes, d.quota_messages,
                            (SELECT s.name FROM domain_legacy l JOIN legacy_server s ON s.id = l.server WHERE l.domain = d.id),
                            t.id || ' ' || t.kind || ' ' || coalesce(t.parent, 0),
                            (SELECT {RELAY} FROM domain_relay r WHERE r.domain = d.id)
                     FROM domain d LEFT JOIN tenant t ON t.id = d.tenant
                     WHERE d.name > ?1 AND instr(d.name, ?2) > 0 AND (?3 IS NULL OR d.name = ?3) AND {within}
                     ORDER BY d.name LIMIT ?4"
                ))?;
                let domain = listing.domain.as_ref().map(Domain::as_str);
                let rows = query.query_map(params![listing.after, listing.search, domain, listing.limit], |row| {
                    let id = row.get(0)?;
                    Ok(DomainEntry {
                        id: DomainId(id),
                        position: position_of(None, id, row.get_ref(9)?.as_str_or_null()?),
                        name: parsed(row, 1)?,
                        tenant: row.get(2)?,
                        legacy: row.get(8)?,
                        relay: DomainRelay::read(row.get_ref(10)?.as_str_or_null()?),
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

    async fn canonical(&self, name: &Domain) -> Result<Option<Domain>, EngineError> {
        let name = name.clone();
        let text = "SELECT name FROM domain WHERE name = ?1
             UNION ALL SELECT d.name FROM domain_alias a JOIN domain d ON d.id = a.domain WHERE a.name = ?1";
        self.database
            .read(move |sql| sql.prepare_cached(text)?.query_row([name.as_str()], |row| parsed(row, 0)).optional())
            .await
    }

    async fn add_account(&self, account: NewAccount, now: UtcMillis) -> Result<AccountId, RegistryError> {
        self.change(move |sql| {
            let folded = account.address.to_folded();
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
            let id = sql.last_insert_rowid();
            let placed = legacy::place_new(sql, id, domain, &account.placement)?;
            Ok(placed.map(|()| AccountId(u64::try_from(id).unwrap_or_default())))
        })
        .await
    }

    async fn set_account(&self, address: &Address, change: AccountChange) -> Result<AccountId, RegistryError> {
        let folded = address.to_folded();
        self.change(move |sql| {
            let mut update = sql.prepare_cached(
                "UPDATE account SET name = coalesce(?2, name), access = coalesce(?3, access), enabled = coalesce(?4, enabled),
                     quota_bytes = CASE WHEN ?5 THEN ?6 ELSE quota_bytes END,
                     quota_messages = CASE WHEN ?7 THEN ?8 ELSE quota_messages END, password = coalesce(?9, password)
                 WHERE folded = ?1 RETURNING id",
            )?;
            let changed = update.query_row(
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
                |row| row.get(0),
            );
            let Some(id) = changed.optional()? else { return Ok(Err(missing("the account", &folded))) };
            if let Some(server) = &change.legacy
                && let Err(error) = legacy::place_account(sql, id, server.as_deref())?
            {
                return Ok(Err(error));
            }
            match &change.sending {
                None => {}
                Some(None) => drop(sql.execute("DELETE FROM sending_lock WHERE account = ?1", [id])?),
                Some(Some(lock)) => {
                    let text = "INSERT INTO sending_lock (account, locked_at, reason) VALUES (?1, ?2, ?3)
                        ON CONFLICT (account) DO NOTHING";
                    sql.execute(text, params![id, lock.at.0, lock.reason])?;
                }
            }
            Ok(Ok(AccountId(u64::try_from(id).unwrap_or_default())))
        })
        .await
    }

    async fn delete_account(&self, address: &Address) -> Result<AccountId, RegistryError> {
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

    async fn account(&self, id: AccountId) -> Result<Option<Account>, EngineError> {
        self.database
            .read(move |sql| {
                sql.prepare_cached(&format!("{SELECT_ACCOUNT} WHERE id = ?1"))?
                    .query_row([id.0], read_account)
                    .optional()
            })
            .await
    }

    async fn login(&self, folded: &str) -> Result<Option<(Account, PasswordHash)>, EngineError> {
        let folded = folded.to_owned();
        self.database
            .read(move |sql| {
                sql.prepare_cached(&format!("{SELECT_ACCOUNT} WHERE folded = ?1"))?
                    .query_row([&folded], |row| Ok((read_account(row)?, parsed::<PasswordHash>(row, 7)?)))
                    .optional()
            })
            .await
    }

    async fn accounts(&self, listing: Listing) -> Result<Vec<Account>, EngineError> {
        let within = within(&listing, "domain", ("domain", "tenant"));
        self.database
            .read(move |sql| {
                let mut query = sql.prepare_cached(&format!(
                    "{SELECT_ACCOUNT} WHERE folded > ?1 AND (instr(folded, ?2) > 0 OR instr(lower(name), ?2) > 0)
                     AND (?3 IS NULL OR domain = (SELECT id FROM domain WHERE name = ?3)) AND {within} ORDER BY folded LIMIT ?4"
                ))?;
                let domain = listing.domain.as_ref().map(Domain::as_str);
                let search = listing.search.to_lowercase();
                query.query_map(params![listing.after, search, domain, listing.limit], read_account)?.collect()
            })
            .await
    }

    async fn account_ids(&self) -> Result<Vec<AccountId>, EngineError> {
        self.database
            .read(|sql| {
                let mut query = sql.prepare_cached("SELECT id FROM account ORDER BY id")?;
                query.query_map([], |row| row.get(0).map(AccountId))?.collect()
            })
            .await
    }

    async fn put_alias(&self, alias: NewAlias, now: UtcMillis) -> Result<(), RegistryError> {
        self.change(move |sql| {
            let NewAlias { folded, domain, targets, replace } = alias;
            let Some(domain) = domain_id(sql, &domain)? else { return Ok(Err(missing("the domain", &domain))) };
            for target in &targets {
                if domain_id(sql, &target.domain)?.is_none() {
                    return Ok(Err(foreign_target(target)));
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

    async fn delete_alias(&self, folded: &str) -> Result<(), RegistryError> {
        let folded = folded.to_owned();
        self.change(move |sql| {
            let gone = sql.execute("DELETE FROM alias WHERE folded = ?1", [&folded])?;
            Ok(if gone == 0 { Err(missing("the alias", &folded)) } else { Ok(()) })
        })
        .await
    }

    async fn aliases(&self, listing: Listing) -> Result<Vec<Alias>, EngineError> {
        let within = within(&listing, "l.domain", ("domain", "tenant"));
        self.database
            .read(move |sql| {
                let mut query = sql.prepare_cached(&format!(
                    "SELECT a.folded, t.folded, a.created_at FROM alias a JOIN alias_target t ON t.alias = a.id
                     WHERE a.id IN (
                         SELECT l.id FROM alias l
                         WHERE l.folded > ?1 AND (?3 IS NULL OR l.domain = (SELECT id FROM domain WHERE name = ?3))
                         AND (instr(l.folded, ?2) > 0
                              OR EXISTS (SELECT 1 FROM alias_target h WHERE h.alias = l.id AND instr(h.folded, ?2) > 0))
                         AND {within} ORDER BY l.folded LIMIT ?4)
                     ORDER BY a.folded, t.folded"
                ))?;
                let domain = listing.domain.as_ref().map(Domain::as_str);
                let mut found: Vec<Alias> = Vec::new();
                let mut rows = query.query(params![listing.after, listing.search, domain, listing.limit])?;
                while let Some(row) = rows.next()? {
                    let (address, target, created_at) = (row.get(0)?, parsed(row, 1)?, UtcMillis(row.get(2)?));
                    match found.last_mut().filter(|last| last.address == address) {
                        Some(last) => last.targets.push(target),
                        None => found.push(Alias { address, targets: vec![target], created_at }),
                    }
                }
                Ok(found)
            })
            .await
    }

    async fn sender_addresses(&self, id: AccountId) -> Result<Vec<Address>, EngineError> {
        self.database
            .read(move |sql| {
                let mut query = sql.prepare_cached(
                    "SELECT address FROM account WHERE id = ?1
                     UNION ALL SELECT a.folded FROM alias a JOIN alias_target t ON t.alias = a.id
                     WHERE t.folded = (SELECT folded FROM account WHERE id = ?1) AND a.folded NOT LIKE '@%'",
                )?;
                query.query_map([id.0], |row| parsed(row, 0))?.collect()
            })
            .await
    }

    async fn set_quota(&self, of: Owner, name: &str, change: QuotaChange) -> Result<(PoolId, Quota), RegistryError> {
        let (table, name) = (of.as_str(), name.to_owned());
        self.change(move |sql| {
            let size = change.size.flatten().map(|size| size.0);
            let found = sql
                .query_row(
                    &format!(
                        "UPDATE {table} SET quota_bytes = CASE WHEN ?2 THEN ?3 ELSE quota_bytes END,
                         quota_messages = CASE WHEN ?4 THEN ?5 ELSE quota_messages END WHERE name = ?1
                         RETURNING id, quota_bytes, quota_messages"
                    ),
                    params![name, change.size.is_some(), size, change.messages.is_some(), change.messages.flatten()],
                    |row| Ok((of.pool(row.get(0)?), read_quota(row, 1)?)),
                )
                .optional()?;
            Ok(found.ok_or_else(|| missing(&format!("the {table}"), &name)))
        })
        .await
    }

    async fn limits(&self, account: AccountId) -> Result<Option<Limits>, EngineError> {
        self.database
            .read(move |sql| {
                let found = sql
                    .prepare_cached(
                        "SELECT a.quota_bytes, a.quota_messages, d.id, d.quota_bytes, d.quota_messages
                         FROM account a JOIN domain d ON d.id = a.domain WHERE a.id = ?1",
                    )?
                    .query_row([account.0], |row| {
                        let domain: u64 = row.get(2)?;
                        Ok((read_quota(row, 0)?, domain, read_quota(row, 3)?))
                    })
                    .optional()?;
                let Some((quota, domain, of_domain)) = found else { return Ok(None) };
                let mut pools = vec![(Owner::Domain.pool(domain), of_domain)];
                let mut above = sql.prepare_cached(TENANTS_ABOVE)?;
                for tenant in
                    above.query_map([domain], |row| Ok((Owner::Tenant.pool(row.get(0)?), read_quota(row, 1)?)))?
                {
                    pools.push(tenant?);
                }
                pools.retain(|(_, limit)| *limit != Quota::UNLIMITED);
                Ok(Some(Limits { quota, pools }))
            })
            .await
    }

    async fn pool_accounts(&self, pool: PoolId) -> Result<Vec<AccountId>, EngineError> {
        self.database
            .read(move |sql| {
                let (text, id) = match pool {
                    PoolId::Domain(id) => ("SELECT id FROM account WHERE domain = ?1 ORDER BY id", id.0),
                    PoolId::Tenant(id) => (ACCOUNTS_BELOW, id.0),
                };
                sql.prepare_cached(text)?.query_map([id], |row| row.get(0).map(AccountId))?.collect()
            })
            .await
    }

    async fn put_legacy(&self, server: LegacyServer, replace: bool) -> Result<(), RegistryError> {
        self.change(move |sql| legacy::put(sql, &server, replace)).await
    }

    async fn delete_legacy(&self, name: &str) -> Result<(), RegistryError> {
        let name = name.to_owned();
        self.change(move |sql| legacy::delete(sql, &name)).await
    }

    async fn legacies(&self) -> Result<Vec<LegacyServer>, EngineError> {
        self.database.read(legacy::all).await
    }

    async fn set_domain_legacy(&self, name: Domain, server: Option<String>) -> Result<(), RegistryError> {
        self.change(move |sql| legacy::place_domain(sql, &name, server.as_deref())).await
    }

    async fn capture(&self, id: AccountId, was: &PasswordHash, is: &PasswordHash) -> Result<bool, RegistryError> {
        let (was, is) = (was.to_stored(), is.to_stored());
        self.change(move |sql| {
            let text = "UPDATE account SET password = ?3 WHERE id = ?1 AND password = ?2
                        AND EXISTS (SELECT 1 FROM account_legacy WHERE account = ?1)";
            Ok(Ok(sql.execute(text, params![id.0, was, is])? > 0))
        })
        .await
    }

    async fn renew(&self, id: AccountId, was: &PasswordHash, is: &PasswordHash) -> Result<bool, RegistryError> {
        let (was, is) = (was.to_stored(), is.to_stored());
        let text = "UPDATE account SET password = ?3 WHERE id = ?1 AND password = ?2
                    AND NOT EXISTS (SELECT 1 FROM sending_lock WHERE account = ?1)";
        self.change(move |sql| Ok(Ok(sql.execute(text, params![id.0, was, is])? > 0))).await
    }

    async fn put_key(&self, key: DomainKey, replace: bool) -> Result<(), RegistryError> {
        self.change(move |sql| keys::put(sql, &key, replace)).await
    }

    async fn delete_key(&self, domain: &str, selector: &str) -> Result<(), RegistryError> {
        let (domain, selector) = (domain.to_owned(), selector.to_owned());
        self.change(move |sql| keys::delete(sql, &domain, &selector)).await
    }

    async fn keys(&self, which: KeyListing) -> Result<Vec<DomainKey>, EngineError> {
        self.database.read(move |sql| keys::list(sql, &which)).await
    }

    async fn find(&self, keys: Vec<String>) -> Result<Hits, EngineError> {
        self.database
            .read(move |sql| {
                let mut hits = Hits::default();
                let mut account = sql.prepare_cached(
                    "SELECT a.id, a.address, s.name, a.domain,
                         (SELECT t.id || ' ' || t.kind || ' ' || coalesce(t.parent, 0) FROM domain d
                          JOIN tenant t ON t.id = d.tenant WHERE d.id = a.domain),
                         (SELECT string_agg(f.keeps || ' ' || f.target, '\n' ORDER BY f.target) FROM forward f
                          WHERE f.account = a.id AND f.confirmed_at IS NOT NULL)
                     FROM account a LEFT JOIN account_legacy l ON l.account = a.id
                     LEFT JOIN legacy_server s ON s.id = l.server WHERE a.folded = ?1",
                )?;
                let mut targets = sql.prepare_cached(
                    "SELECT t.folded FROM alias_target t JOIN alias a ON a.id = t.alias WHERE a.folded = ?1
                     ORDER BY t.folded",
                )?;
                for key in keys {
                    let found = account.query_row([&key], |row| {
                        let id = AccountId(row.get(0)?);
                        let (forwards, keeps) = forwards_of(row.get_ref(5)?.as_str_or_null()?);
                        Ok(Hit {
                            account: id,
                            address: parsed(row, 1)?,
                            legacy: row.get(2)?,
                            position: position_of(Some(id), row.get(3)?, row.get_ref(4)?.as_str_or_null()?),
                            forwards,
                            keeps,
                        })
                    });
                    if let Some(found) = found.optional()? {
                        hits.accounts.insert(key.clone(), found);
                    }
                    let found: Vec<Address> =
                        targets.query_map([&key], |row| parsed(row, 0))?.collect::<Result<_, _>>()?;
                    if !found.is_empty() {
                        hits.aliases.insert(key, found);
                    }
                }
                Ok(hits)
            })
            .await
    }

    async fn open_web_session(&self, session: WebSession) -> Result<(), EngineError> {
        let work = move |sql: &Connection| {
            sql.execute(
                "DELETE FROM web_session WHERE digest IN (
                     SELECT digest FROM web_session WHERE account = ?1 ORDER BY used_at DESC LIMIT -1 OFFSET ?2)",
                params![session.account.0, WebSession::OF_ACCOUNT_MAX - 1],
            )?;
            sql.execute(
                "INSERT INTO web_session (digest, account, csrf, opened_at, used_at) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![session.digest, session.account.0, session.csrf, session.opened_at.0, session.used_at.0],
            )
        };
        self.database.write_sql(work).await.map(drop)
    }

    async fn web_session(&self, digest: &[u8; 32]) -> Result<Option<WebSession>, EngineError> {
        let digest = *digest;
        let read = move |row: &Row<'_>| {
            Ok(WebSession {
                digest,
                account: AccountId(row.get(0)?),
                csrf: row.get(1)?,
                opened_at: UtcMillis(row.get(2)?),
                used_at: UtcMillis(row.get(3)?),
            })
        };
        let text = "SELECT account, csrf, opened_at, used_at FROM web_session WHERE digest = ?1";
        self.database.read(move |sql| sql.prepare_cached(text)?.query_row([digest], read).optional()).await
    }

    async fn touch_web_session(&self, digest: &[u8; 32], now: UtcMillis) -> Result<(), EngineError> {
        let (digest, text) = (*digest, "UPDATE web_session SET used_at = ?2 WHERE digest = ?1");
        self.database.write_sql(move |sql| sql.execute(text, params![digest, now.0])).await.map(drop)
    }

    async fn close_web_session(&self, digest: &[u8; 32]) -> Result<(), EngineError> {
        let digest = *digest;
        self.database
            .write_sql(move |sql| sql.execute("DELETE FROM web_session WHERE digest = ?1", [digest]))
            .await
            .map(drop)
    }

    async fn tidy(&self, idle: UtcMillis) -> Result<(), EngineError> {
        let text = "DELETE FROM web_session WHERE used_at < ?1";
        self.database.write_sql(move |sql| sql.execute(text, [idle.0])).await.map(drop)
    }
}

/// The tenant of the domain `?1` and those above it.
const TENANTS_ABOVE: &str = "
    WITH RECURSIVE above (id) AS (
        SELECT tenant FROM domain WHERE id = ?1 AND tenant IS NOT NULL
        UNION SELECT t.parent FROM tenant t JOIN above ON above.id = t.id WHERE t.parent IS NOT NULL
    )
    SELECT t.id, t.quota_bytes, t.quota_messages FROM tenant t JOIN above ON above.id = t.id ORDER BY t.id";

/// Accounts of all domains of the tenant `?1` and of those below it.
const ACCOUNTS_BELOW: &str = "
    WITH RECURSIVE below (id) AS (
        SELECT ?1 UNION SELECT t.id FROM tenant t JOIN below ON below.id = t.parent
    )
    SELECT a.id FROM account a JOIN domain d ON d.id = a.domain WHERE d.tenant IN (SELECT id FROM below) ORDER BY a.id";

/// From two columns: octets and messages.
fn read_quota(row: &Row<'_>, column: usize) -> rusqlite::Result<Quota> {
    Ok(Quota { size: row.get::<_, Option<u64>>(column)?.map(ByteSize), messages: row.get(column + 1)? })
}

const SELECT_ACCOUNT: &str =
    "SELECT id, address, name, access, enabled, quota_bytes, quota_messages, password, created_at,
         (SELECT s.name FROM account_legacy l JOIN legacy_server s ON s.id = l.server WHERE l.account = account.id),
         sending_lock.locked_at, sending_lock.reason,
         domain, (SELECT t.id || ' ' || t.kind || ' ' || coalesce(t.parent, 0) FROM domain d
                  JOIN tenant t ON t.id = d.tenant WHERE d.id = account.domain),
         (SELECT string_agg(g.role || '/' || g.reach, ',' ORDER BY g.role, g.reach) FROM role_grant g
          WHERE g.account = account.id),
         EXISTS (SELECT 1 FROM second_factor f WHERE f.account = account.id AND f.confirmed_at IS NOT NULL),
         EXISTS (SELECT 1 FROM domain_relay r WHERE r.domain = account.domain)
     FROM account LEFT JOIN sending_lock ON sending_lock.account = account.id";

fn read_account(row: &Row<'_>) -> rusqlite::Result<Account> {
    let access = Access::from_name(row.get_ref(3)?.as_str()?).unwrap_or(Access::User);
    let enabled = row.get(4)?;
    let id = AccountId(row.get(0)?);
    let (grants, has_second_factor) = (grants_of(access, row.get_ref(14)?.as_str_or_null()?), row.get(15)?);
    Ok(Account {
        id,
        position: position_of(Some(id), row.get(12)?, row.get_ref(13)?.as_str_or_null()?),
        has_second_factor,
        address: parsed(row, 1)?,
        name: row.get(2)?,
        access,
        enabled,
        rights: Rights::new(row.get_ref(7)?.as_str()?, access, enabled).with(&grants, has_second_factor),
        grants,
        legacy: row.get(9)?,
        is_relayed: row.get(16)?,
        sending_lock: row
            .get::<_, Option<i64>>(10)?
            .map(|at| Ok::<_, rusqlite::Error>(SendingLock { at: UtcMillis(at), reason: row.get(11)? }))
            .transpose()?,
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
