//! The directory's rows in PostgreSQL, shared by all nodes.
//!
//! A change counts up `directory_version` first: changes follow each other, so that what one checked still holds when it
//! is committed, and other nodes see by the number that there was one.

use std::sync::Arc;

use async_trait::async_trait;
use base::{AccountId, ByteSize, DomainId, PoolId, Quota, TenantId, UtcMillis};
use engine::EngineError;
use engine::postgres::{Migration, Params, Pool, Row, Session, value};
use engine::table::Place;
use mail::{Address, Domain};

use crate::account::{Access, Account, Alias, DomainEntry, NewAccount, SendingLock, Tenant, TenantKind};
use crate::domain_key::DomainKey;
use crate::error::RegistryError;
use crate::hold::Rights;
use crate::legacy::LegacyServer;
use crate::password::PasswordHash;
use crate::postgres_keys as keys;
use crate::postgres_legacy as legacy;
use crate::quota::{Limits, QuotaChange};
use crate::relayed::{DomainRelay, RELAY};
use crate::tables::{
    AccountChange, Hit, Hits, KeyListing, Listing, NewAlias, Owner, Tables, domain_in_use, exists, foreign_target,
    forwards_of, grants_of, missing, parent_is_customer, position_of, tenant_in_use, tenant_position, within,
};
use crate::web_session::WebSession;

pub(crate) struct PgTables {
    pool: Arc<Pool>,
}

pub(crate) const COMPONENT: &str = "directory";
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { text: include_str!("postgres-1.sql"), oldest: 1 },
    Migration { text: include_str!("postgres-2.sql"), oldest: 1 },
    LEGACY,
    Migration { text: include_str!("lock-postgres.sql"), oldest: 1 },
    Migration { text: include_str!("key-postgres.sql"), oldest: 1 },
    Migration { text: include_str!("person-postgres.sql"), oldest: 1 },
    Migration { text: include_str!("relayed-postgres.sql"), oldest: 1 },
];

/// Legacy servers.
const LEGACY: Migration = Migration { text: include_str!("legacy-postgres.sql"), oldest: 1 };

/// A transaction that is committed if the work succeeds.
macro_rules! change {
    ($tables:expr, $sql:ident => $work:expr) => {{
        let session = $tables.begin().await?;
        let $sql = &session;
        let done: Result<_, RegistryError> = async { $work }.await;
        session.end(done).await
    }};
}

impl PgTables {
    pub(crate) async fn open(pool: Arc<Pool>) -> Result<Self, EngineError> {
        engine::postgres::migrate(&pool, COMPONENT, MIGRATIONS).await?;
        Ok(Self { pool })
    }

    async fn begin(&self) -> Result<Session, EngineError> {
        let sql = self.pool.begin(false).await?;
        sql.execute("UPDATE directory_version SET changes = changes + 1", &[]).await?;
        Ok(sql)
    }

    async fn rows(&self, text: &str, params: Params<'_>) -> Result<Vec<Row>, EngineError> {
        self.pool.query(text, params).await
    }

    /// A change that is no administrator's.
    async fn execute(&self, text: &str, params: Params<'_>) -> Result<(), EngineError> {
        let sql = self.pool.session().await?;
        sql.execute(text, params).await?;
        sql.give_back();
        Ok(())
    }
}

#[async_trait]
impl Tables for PgTables {
    fn place(&self) -> Place {
        Place::Postgres(Arc::clone(&self.pool))
    }

    async fn version(&self) -> Result<u64, EngineError> {
        let found = self.rows("SELECT changes FROM directory_version", &[]).await?;
        found.first().map_or_else(|| Err(EngineError::damaged("directory_version is empty")), |row| number(row, 0))
    }

    async fn revoked_since(&self, version: u64) -> Result<Vec<AccountId>, EngineError> {
        let text = "SELECT DISTINCT account FROM directory_revocation WHERE version > $1";
        self.rows(text, &[&count(version)]).await?.iter().map(|row| number(row, 0).map(AccountId)).collect()
    }

    async fn add_tenant(
        &self,
        name: &str,
        kind: TenantKind,
        parent: Option<String>,
        now: UtcMillis,
    ) -> Result<(), RegistryError> {
        change!(self, sql => {
            let parent = match &parent {
                None => None,
                Some(parent) => match tenant_id(sql, parent).await? {
                    Some((id, TenantKind::Reseller)) => Some(id),
                    Some((_, TenantKind::Customer)) => return Err(parent_is_customer(parent)),
                    None => return Err(missing("the tenant", parent)),
                },
            };
            if tenant_id(sql, name).await?.is_some() {
                return Err(exists("the tenant", name));
            }
            let text = "INSERT INTO directory_tenant (name, kind, parent, created_at) VALUES ($1, $2, $3, $4)";
            sql.execute(text, &[&name, &kind.as_str(), &parent, &now.0]).await?;
            Ok(())
        })
    }

    async fn tenants(&self) -> Result<Vec<Tenant>, EngineError> {
        let text = "SELECT t.id, t.name, t.kind, p.name, (SELECT count(*) FROM directory_domain d WHERE d.tenant = t.id), t.created_at,
                 t.quota_bytes, t.quota_messages, coalesce(t.parent, 0)
             FROM directory_tenant t LEFT JOIN directory_tenant p ON p.id = t.parent ORDER BY lower(t.name), t.id";
        let read = |row: &Row| {
            let (id, parent) = (TenantId(number(row, 0)?), TenantId(number(row, 8)?));
            let kind = TenantKind::from_name(value(row, 2)?).unwrap_or(TenantKind::Customer);
            Ok(Tenant {
                id,
                name: value(row, 1)?,
                kind,
                position: tenant_position(id, kind, parent),
                parent: value(row, 3)?,
                domains: number(row, 4)?,
                quota: read_quota(row, 6)?,
                created_at: UtcMillis(value(row, 5)?),
            })
        };
        self.rows(text, &[]).await?.iter().map(read).collect()
    }

    async fn rename_tenant(&self, name: &str, to: &str) -> Result<(), RegistryError> {
        change!(self, sql => {
            if !name.eq_ignore_ascii_case(to) && tenant_id(sql, to).await?.is_some() {
                return Err(exists("the tenant", to));
            }
            let text = "UPDATE directory_tenant SET name = $2 WHERE lower(name) = lower($1)";
            must(sql.execute(text, &[&name, &to]).await?, || missing("the tenant", name))
        })
    }

    async fn delete_tenant(&self, name: &str) -> Result<(), RegistryError> {
        change!(self, sql => {
            let Some((id, _)) = tenant_id(sql, name).await? else { return Err(missing("the tenant", name)) };
            let text = "SELECT EXISTS (SELECT 1 FROM directory_domain WHERE tenant = $1)
                        OR EXISTS (SELECT 1 FROM directory_tenant WHERE parent = $1)";
            if value(&sql.row(text, &[&id]).await?, 0)? {
                return Err(tenant_in_use(name));
            }
            sql.execute("DELETE FROM directory_tenant WHERE id = $1", &[&id]).await?;
            Ok(())
        })
    }

    async fn add_domain(&self, name: Domain, tenant: Option<String>, now: UtcMillis) -> Result<(), RegistryError> {
        change!(self, sql => {
            let tenant = tenant_of(sql, tenant.as_deref()).await?;
            if domain_id(sql, &name).await?.is_some() {
                return Err(exists("the domain", &name));
            }
            let text = "INSERT INTO directory_domain (name, tenant, created_at) VALUES ($1, $2, $3)";
            sql.execute(text, &[&name.as_str(), &tenant, &now.0]).await?;
            Ok(())
        })
    }

    async fn set_domain_tenant(&self, name: Domain, tenant: Option<String>) -> Result<(), RegistryError> {
        change!(self, sql => {
            let tenant = tenant_of(sql, tenant.as_deref()).await?;
            let text = "UPDATE directory_domain SET tenant = $2 WHERE name = $1";
            must(sql.execute(text, &[&name.as_str(), &tenant]).await?, || missing("the domain", &name))
        })
    }

    async fn delete_domain(&self, name: Domain) -> Result<(), RegistryError> {
        change!(self, sql => {
            let Some(id) = domain_id(sql, &name).await? else { return Err(missing("the domain", &name)) };
            let accounts = sql.row("SELECT count(*) FROM directory_account WHERE domain = $1", &[&id]).await?;
            let accounts = number(&accounts, 0)?;
            if accounts > 0 {
                return Err(domain_in_use(&name, accounts));
            }
            sql.execute("DELETE FROM directory_alias WHERE domain = $1", &[&id]).await?;
            sql.execute("DELETE FROM directory_domain WHERE id = $1", &[&id]).await?;
            Ok(())
        })
    }

    async fn domains(&self, listing: Listing) -> Result<Vec<DomainEntry>, EngineError> {
        let within = within(&listing, "d.id", ("directory_domain", "directory_tenant"));
        let text = format!("SELECT d.id, d.name, t.name, (SELECT count(*) FROM directory_account a WHERE a.domain = d.id),
                 (SELECT count(*) FROM directory_alias a WHERE a.domain = d.id), d.created_at,
                 d.quota_bytes, d.quota_messages,
                 (SELECT s.name FROM directory_domain_legacy l JOIN directory_legacy_server s ON s.id = l.server WHERE l.domain = d.id),
                 t.id || ' ' || t.kind || ' ' || coalesce(t.parent, 0),
                 (SELECT {RELAY} FROM domain_relay r WHERE r.domain = d.id)
             FROM directory_domain d LEFT JOIN directory_tenant t ON t.id = d.tenant
             WHERE d.name > $1 AND strpos(d.name, $2) > 0 AND ($3::text IS NULL OR d.name = $3) AND {within}
             ORDER BY d.name LIMIT $4");
        let read = |row: &Row| {
            let id = number(row, 0)?;
            Ok(DomainEntry {
                id: DomainId(id),
                position: position_of(None, id, value::<Option<&str>>(row, 9)?),
                name: parsed(row, 1)?,
                tenant: value(row, 2)?,
                legacy: value(row, 8)?,
                relay: DomainRelay::read(value::<Option<&str>>(row, 10)?),
                accounts: number(row, 3)?,
                aliases: number(row, 4)?,
                quota: read_quota(row, 6)?,
                created_at: UtcMillis(value(row, 5)?),
            })
        };
        let (domain, limit) = (listing.domain.as_ref().map(Domain::as_str), i64::from(listing.limit));
        let params: Params<'_> = &[&listing.after, &listing.search, &domain, &limit];
        self.pool.query_once(&text, params).await?.iter().map(read).collect()
    }

    async fn canonical(&self, name: &Domain) -> Result<Option<Domain>, EngineError> {
        let text = "SELECT name FROM directory_domain WHERE name = $1
             UNION ALL SELECT d.name FROM domain_alias a JOIN directory_domain d ON d.id = a.domain WHERE a.name = $1";
        self.rows(text, &[&name.as_str()]).await?.first().map(|row| parsed(row, 0)).transpose()
    }

    async fn add_account(&self, account: NewAccount, now: UtcMillis) -> Result<AccountId, RegistryError> {
        change!(self, sql => {
            let (folded, address) = (account.address.to_folded(), account.address.to_string());
            let Some(domain) = domain_id(sql, &account.address.domain).await? else {
                return Err(missing("the domain", &account.address.domain));
            };
            not_taken(sql, &folded).await?;
            let text = "INSERT INTO directory_account (domain, folded, address, name, access, enabled, quota_bytes,
                     quota_messages, password, created_at)
                 VALUES ($1, $2, $3, $4, $5, true, $6, $7, $8, $9) RETURNING id";
            let (size, messages) = (account.quota.size.map(octets), account.quota.messages.map(count));
            let (access, password) = (account.access.as_str(), account.password.to_stored());
            let name = &account.name;
            let params: Params<'_> =
                &[&domain, &folded, &address, name, &access, &size, &messages, &password, &now.0];
            let made = sql.row(text, params).await?;
            legacy::place_new(sql, value(&made, 0)?, domain, &account.placement).await?;
            Ok(AccountId(number(&made, 0)?))
        })
    }

    async fn set_account(&self, address: &Address, change: AccountChange) -> Result<AccountId, RegistryError> {
        change!(self, sql => {
            let folded = address.to_folded();
            let text = "UPDATE directory_account SET name = coalesce($2, name), access = coalesce($3, access),
                     enabled = coalesce($4, enabled), quota_bytes = CASE WHEN $5 THEN $6 ELSE quota_bytes END,
                     quota_messages = CASE WHEN $7 THEN $8 ELSE quota_messages END, password = coalesce($9, password)
                 WHERE folded = $1 RETURNING id";
            let access = change.access.map(Access::as_str);
            let (has_size, size, has_messages, messages) = quota_params(&change.quota);
            let password = change.password.as_ref().map(PasswordHash::to_stored);
            let (name, enabled) = (&change.name, &change.enabled);
            let params: Params<'_> =
                &[&folded, name, &access, enabled, &has_size, &size, &has_messages, &messages, &password];
            let changed = sql.row_opt(text, params).await?.ok_or_else(|| missing("the account", &folded))?;
            if let Some(server) = &change.legacy {
                legacy::place_account(sql, value(&changed, 0)?, server.as_deref()).await?;
            }
            let id: i64 = value(&changed, 0)?;
            match &change.sending {
                None => {}
                Some(None) => {
                    sql.execute("DELETE FROM directory_sending_lock WHERE account = $1", &[&id]).await?;
                }
                Some(Some(lock)) => {
                    let text = "INSERT INTO directory_sending_lock (account, locked_at, reason) VALUES ($1, $2, $3)
                        ON CONFLICT (account) DO NOTHING";
                    sql.execute(text, &[&id, &lock.at.0, &lock.reason]).await?;
                }
            }
            Ok(AccountId(number(&changed, 0)?))
        })
    }

    async fn delete_account(&self, address: &Address) -> Result<AccountId, RegistryError> {
        change!(self, sql => {
            let folded = address.to_folded();
            let gone = sql.row_opt("DELETE FROM directory_account WHERE folded = $1 RETURNING id", &[&folded]).await?;
            let gone = gone.ok_or_else(|| missing("the account", &folded))?;
            let text = "DELETE FROM directory_alias_target WHERE folded = $1 RETURNING alias";
            let aliases: Vec<i64> =
                sql.rows(text, &[&folded]).await?.iter().map(|row| value(row, 0)).collect::<Result<_, _>>()?;
            let text = "DELETE FROM directory_alias a WHERE id = ANY ($1)
                        AND NOT EXISTS (SELECT 1 FROM directory_alias_target t WHERE t.alias = a.id)";
            sql.execute(text, &[&aliases]).await?;
            Ok(AccountId(number(&gone, 0)?))
        })
    }

    async fn account(&self, id: AccountId) -> Result<Option<Account>, EngineError> {
        let id = count(id.0);
        let found = self.rows(&format!("{SELECT_ACCOUNT} WHERE id = $1"), &[&id]).await?;
        found.first().map(read_account).transpose()
    }

    async fn login(&self, folded: &str) -> Result<Option<(Account, PasswordHash)>, EngineError> {
        let found = self.rows(&format!("{SELECT_ACCOUNT} WHERE folded = $1"), &[&folded]).await?;
        found.first().map(|row| Ok((read_account(row)?, parsed(row, 7)?))).transpose()
    }

    async fn accounts(&self, listing: Listing) -> Result<Vec<Account>, EngineError> {
        let text = format!(
            "{SELECT_ACCOUNT} WHERE folded > $1 AND (strpos(folded, $2) > 0 OR strpos(lower(name), $2) > 0)
             AND ($3::text IS NULL OR domain = (SELECT id FROM directory_domain WHERE name = $3)) AND {} ORDER BY folded LIMIT $4",
            within(&listing, "domain", ("directory_domain", "directory_tenant"))
        );
        let domain = listing.domain.as_ref().map(Domain::as_str);
        let (search, limit) = (listing.search.to_lowercase(), i64::from(listing.limit));
        let params: Params<'_> = &[&listing.after, &search, &domain, &limit];
        self.pool.query_once(&text, params).await?.iter().map(read_account).collect()
    }

    async fn account_ids(&self) -> Result<Vec<AccountId>, EngineError> {
        let found = self.rows("SELECT id FROM directory_account ORDER BY id", &[]).await?;
        found.iter().map(|row| number(row, 0).map(AccountId)).collect()
    }

    async fn put_alias(&self, alias: NewAlias, now: UtcMillis) -> Result<(), RegistryError> {
        change!(self, sql => {
            let NewAlias { folded, domain, targets, replace } = alias;
            let Some(domain) = domain_id(sql, &domain).await? else { return Err(missing("the domain", &domain)) };
            for target in &targets {
                if domain_id(sql, &target.domain).await?.is_none() {
                    return Err(foreign_target(target));
                }
            }
            let found = sql.row_opt("SELECT id FROM directory_alias WHERE folded = $1", &[&folded]).await?;
            let id: i64 = match (found, replace) {
                (Some(_), false) => return Err(exists("the alias", &folded)),
                (None, true) => return Err(missing("the alias", &folded)),
                (Some(row), true) => {
                    let id = value(&row, 0)?;
                    sql.execute("DELETE FROM directory_alias_target WHERE alias = $1", &[&id]).await?;
                    id
                }
                (None, false) => {
                    not_taken(sql, &folded).await?;
                    let text = "INSERT INTO directory_alias (domain, folded, created_at) VALUES ($1, $2, $3) RETURNING id";
                    value(&sql.row(text, &[&domain, &folded, &now.0]).await?, 0)?
                }
            };
            let targets: Vec<String> = targets.iter().map(Address::to_folded).collect();
            let text = "INSERT INTO directory_alias_target (alias, folded) SELECT $1, t FROM unnest($2::text[]) AS t
                        ON CONFLICT DO NOTHING";
            sql.execute(text, &[&id, &targets]).await?;
            Ok(())
        })
    }

    async fn delete_alias(&self, folded: &str) -> Result<(), RegistryError> {
        change!(self, sql => {
            let gone = sql.execute("DELETE FROM directory_alias WHERE folded = $1", &[&folded]).await?;
            must(gone, || missing("the alias", folded))
        })
    }

    async fn aliases(&self, listing: Listing) -> Result<Vec<Alias>, EngineError> {
        let within = within(&listing, "l.domain", ("directory_domain", "directory_tenant"));
        let text = format!("SELECT a.folded, t.folded, a.created_at FROM directory_alias a JOIN directory_alias_target t ON t.alias = a.id
             WHERE a.id IN (
                 SELECT l.id FROM directory_alias l
                 WHERE l.folded > $1 AND ($3::text IS NULL OR l.domain = (SELECT id FROM directory_domain WHERE name = $3))
                 AND (strpos(l.folded, $2) > 0
                      OR EXISTS (SELECT 1 FROM directory_alias_target h WHERE h.alias = l.id AND strpos(h.folded, $2) > 0))
                 AND {within} ORDER BY l.folded LIMIT $4)
             ORDER BY a.folded, t.folded");
        let (domain, limit) = (listing.domain.as_ref().map(Domain::as_str), i64::from(listing.limit));
        let mut found: Vec<Alias> = Vec::new();
        let params: Params<'_> = &[&listing.after, &listing.search, &domain, &limit];
        for row in self.pool.query_once(&text, params).await? {
            let (address, target): (String, Address) = (value(&row, 0)?, parsed(&row, 1)?);
            match found.last_mut().filter(|last| last.address == address) {
                Some(last) => last.targets.push(target),
                None => {
                    let created_at = UtcMillis(value(&row, 2)?);
                    found.push(Alias { address, targets: vec![target], created_at });
                }
            }
        }
        Ok(found)
    }

    async fn sender_addresses(&self, id: AccountId) -> Result<Vec<Address>, EngineError> {
        let text = "SELECT address FROM directory_account WHERE id = $1
             UNION ALL SELECT a.folded FROM directory_alias a JOIN directory_alias_target t ON t.alias = a.id
             WHERE t.folded = (SELECT folded FROM directory_account WHERE id = $1) AND a.folded NOT LIKE '@%'";
        let id = count(id.0);
        self.rows(text, &[&id]).await?.iter().map(|row| parsed(row, 0)).collect()
    }

    async fn set_quota(&self, of: Owner, name: &str, change: QuotaChange) -> Result<(PoolId, Quota), RegistryError> {
        change!(self, sql => {
            let text = format!(
                "UPDATE directory_{} SET quota_bytes = CASE WHEN $2 THEN $3 ELSE quota_bytes END,
                 quota_messages = CASE WHEN $4 THEN $5 ELSE quota_messages END WHERE lower(name) = lower($1)
                 RETURNING id, quota_bytes, quota_messages",
                of.as_str()
            );
            let (has_size, size, has_messages, messages) = quota_params(&change);
            let found = sql.row_opt(&text, &[&name, &has_size, &size, &has_messages, &messages]).await?;
            let found = found.ok_or_else(|| missing(&format!("the {}", of.as_str()), name))?;
            Ok((of.pool(number(&found, 0)?), read_quota(&found, 1)?))
        })
    }

    async fn limits(&self, account: AccountId) -> Result<Option<Limits>, EngineError> {
        let found = self.rows(LIMITS, &[&count(account.0)]).await?;
        let mut limits: Option<Limits> = None;
        for row in &found {
            let of = match value::<&str>(row, 0)? {
                "account" => {
                    limits = Some(Limits { quota: read_quota(row, 2)?, pools: Vec::new() });
                    continue;
                }
                "domain" => Owner::Domain,
                _ => Owner::Tenant,
            };
            let limit = read_quota(row, 2)?;
            if let Some(limits) = limits.as_mut().filter(|_| limit != Quota::UNLIMITED) {
                limits.pools.push((of.pool(number(row, 1)?), limit));
            }
        }
        Ok(limits)
    }

    async fn pool_accounts(&self, pool: PoolId) -> Result<Vec<AccountId>, EngineError> {
        let (text, id) = match pool {
            PoolId::Domain(id) => ("SELECT id FROM directory_account WHERE domain = $1 ORDER BY id", id.0),
            PoolId::Tenant(id) => (ACCOUNTS_BELOW, id.0),
        };
        self.rows(text, &[&count(id)]).await?.iter().map(|row| number(row, 0).map(AccountId)).collect()
    }

    async fn put_legacy(&self, server: LegacyServer, replace: bool) -> Result<(), RegistryError> {
        change!(self, sql => legacy::put(sql, &server, replace).await)
    }

    async fn delete_legacy(&self, name: &str) -> Result<(), RegistryError> {
        change!(self, sql => legacy::delete(sql, name).await)
    }

    async fn legacies(&self) -> Result<Vec<LegacyServer>, EngineError> {
        self.rows(&legacy::select_all(), &[]).await?.iter().map(legacy::read).collect()
    }

    async fn set_domain_legacy(&self, name: Domain, server: Option<String>) -> Result<(), RegistryError> {
        change!(self, sql => legacy::place_domain(sql, &name, server.as_deref()).await)
    }

    async fn capture(&self, id: AccountId, was: &PasswordHash, is: &PasswordHash) -> Result<bool, RegistryError> {
        change!(self, sql => {
            let text = "UPDATE directory_account SET password = $3 WHERE id = $1 AND password = $2
                        AND EXISTS (SELECT 1 FROM directory_account_legacy WHERE account = $1)";
            Ok(sql.execute(text, &[&count(id.0), &was.to_stored(), &is.to_stored()]).await? > 0)
        })
    }

    async fn renew(&self, id: AccountId, was: &PasswordHash, is: &PasswordHash) -> Result<bool, RegistryError> {
        change!(self, sql => {
            let text = "UPDATE directory_account SET password = $3 WHERE id = $1 AND password = $2
                        AND NOT EXISTS (SELECT 1 FROM directory_sending_lock WHERE account = $1)";
            Ok(sql.execute(text, &[&count(id.0), &was.to_stored(), &is.to_stored()]).await? > 0)
        })
    }

    async fn put_key(&self, key: DomainKey, replace: bool) -> Result<(), RegistryError> {
        change!(self, sql => keys::put(sql, &key, replace).await)
    }

    async fn delete_key(&self, domain: &str, selector: &str) -> Result<(), RegistryError> {
        change!(self, sql => keys::delete(sql, domain, selector).await)
    }

    async fn keys(&self, which: KeyListing) -> Result<Vec<DomainKey>, EngineError> {
        let state = which.state.map(|state| state.as_str());
        let (domain, selector) = &which.after;
        let params: Params<'_> = &[&which.domain, &state, domain, selector, &i64::from(which.limit)];
        self.rows(&keys::select(), params).await?.iter().map(keys::read).collect()
    }

    async fn find(&self, keys: Vec<String>) -> Result<Hits, EngineError> {
        let text = "SELECT folded, id, address,
                 (SELECT s.name FROM directory_account_legacy l JOIN directory_legacy_server s ON s.id = l.server WHERE l.account = c.id),
                 c.domain, (SELECT t.id || ' ' || t.kind || ' ' || coalesce(t.parent, 0) FROM directory_domain d
                     JOIN directory_tenant t ON t.id = d.tenant WHERE d.id = c.domain),
                 (SELECT string_agg(f.keeps || ' ' || f.target, '\n' ORDER BY f.target) FROM forward f
                  WHERE f.account = c.id AND f.confirmed_at IS NOT NULL)
             FROM directory_account c WHERE folded = ANY ($1)
             UNION ALL SELECT a.folded, NULL, t.folded, NULL, NULL, NULL, NULL FROM directory_alias a JOIN directory_alias_target t ON t.alias = a.id
             WHERE a.folded = ANY ($1) ORDER BY 1, 3";
        let mut hits = Hits::default();
        for row in self.rows(text, &[&keys]).await? {
            let (key, address): (String, Address) = (value(&row, 0)?, parsed(&row, 2)?);
            match value::<Option<i64>>(&row, 1)? {
                Some(_) => {
                    let id = AccountId(number(&row, 1)?);
                    let position = position_of(Some(id), number(&row, 4)?, value::<Option<&str>>(&row, 5)?);
                    let (forwards, keeps) = forwards_of(value::<Option<&str>>(&row, 6)?);
                    let legacy = value(&row, 3)?;
                    hits.accounts.insert(key, Hit { account: id, address, legacy, position, forwards, keeps });
                }
                None => hits.aliases.entry(key).or_default().push(address),
            }
        }
        Ok(hits)
    }

    async fn open_web_session(&self, session: WebSession) -> Result<(), EngineError> {
        let text = "WITH superfluous AS (
                 DELETE FROM directory_web_session WHERE digest IN (
                     SELECT digest FROM directory_web_session WHERE account = $2 ORDER BY used_at DESC OFFSET $6 FOR UPDATE)
             )
             INSERT INTO directory_web_session (digest, account, csrf, opened_at, used_at) VALUES ($1, $2, $3, $4, $5)";
        let (account, others) = (count(session.account.0), i64::from(WebSession::OF_ACCOUNT_MAX) - 1);
        let (digest, csrf) = (&session.digest[..], &session.csrf);
        self.execute(text, &[&digest, &account, csrf, &session.opened_at.0, &session.used_at.0, &others]).await
    }

    async fn web_session(&self, digest: &[u8; 32]) -> Result<Option<WebSession>, EngineError> {
        let text = "SELECT account, csrf, opened_at, used_at FROM directory_web_session WHERE digest = $1";
        let read = |row: &Row| {
            Ok(WebSession {
                digest: *digest,
                account: AccountId(number(row, 0)?),
                csrf: value(row, 1)?,
                opened_at: UtcMillis(value(row, 2)?),
                used_at: UtcMillis(value(row, 3)?),
            })
        };
        self.rows(text, &[&&digest[..]]).await?.first().map(read).transpose()
    }

    async fn touch_web_session(&self, digest: &[u8; 32], now: UtcMillis) -> Result<(), EngineError> {
        self.execute("UPDATE directory_web_session SET used_at = $2 WHERE digest = $1", &[&&digest[..], &now.0]).await
    }

    async fn close_web_session(&self, digest: &[u8; 32]) -> Result<(), EngineError> {
        self.execute("DELETE FROM directory_web_session WHERE digest = $1", &[&&digest[..]]).await
    }

    async fn tidy(&self, idle: UtcMillis) -> Result<(), EngineError> {
        self.execute("DELETE FROM directory_web_session WHERE used_at < $1", &[&idle.0]).await?;
        let text = "DELETE FROM directory_revocation WHERE at < clock_timestamp() - interval '2 days'";
        self.execute(text, &[]).await
    }
}

/// The account `$1`, its domain, the domain's tenant and those above it, in this order.
const LIMITS: &str = "
    WITH RECURSIVE own AS (SELECT * FROM directory_account WHERE id = $1),
    of_domain AS (SELECT d.* FROM directory_domain d JOIN own ON own.domain = d.id),
    above (id) AS (
        SELECT tenant FROM of_domain WHERE tenant IS NOT NULL
        UNION SELECT t.parent FROM directory_tenant t JOIN above ON above.id = t.id WHERE t.parent IS NOT NULL
    )
    SELECT 'account', id, quota_bytes, quota_messages, 1 FROM own
    UNION ALL SELECT 'domain', id, quota_bytes, quota_messages, 2 FROM of_domain
    UNION ALL SELECT 'tenant', t.id, t.quota_bytes, t.quota_messages, 3
        FROM directory_tenant t JOIN above ON above.id = t.id
    ORDER BY 5, 2";

/// Accounts of all domains of the tenant `$1` and of those below it.
const ACCOUNTS_BELOW: &str = "
    WITH RECURSIVE below (id) AS (
        SELECT $1::bigint UNION SELECT t.id FROM directory_tenant t JOIN below ON below.id = t.parent
    )
    SELECT a.id FROM directory_account a JOIN directory_domain d ON d.id = a.domain
    WHERE d.tenant IN (SELECT id FROM below) ORDER BY a.id";

const SELECT_ACCOUNT: &str = "SELECT id, address, name, access, enabled, quota_bytes, quota_messages, password,
     created_at, (SELECT s.name FROM directory_account_legacy l JOIN directory_legacy_server s ON s.id = l.server
                  WHERE l.account = directory_account.id), lock.locked_at, lock.reason,
     domain, (SELECT t.id || ' ' || t.kind || ' ' || coalesce(t.parent, 0) FROM directory_domain d
              JOIN directory_tenant t ON t.id = d.tenant WHERE d.id = directory_account.domain),
     (SELECT string_agg(g.role || '/' || g.reach, ',' ORDER BY g.role, g.reach) FROM role_grant g
      WHERE g.account = directory_account.id),
     EXISTS (SELECT 1 FROM second_factor f WHERE f.account = directory_account.id AND f.confirmed_at IS NOT NULL),
     EXISTS (SELECT 1 FROM domain_relay r WHERE r.domain = directory_account.domain)
     FROM directory_account LEFT JOIN directory_sending_lock lock ON lock.account = directory_account.id";

fn read_account(row: &Row) -> Result<Account, EngineError> {
    let (access, enabled) = (Access::from_name(value(row, 3)?).unwrap_or(Access::User), value(row, 4)?);
    let id = AccountId(number(row, 0)?);
    let (grants, has_second_factor) = (grants_of(access, value::<Option<&str>>(row, 14)?), value(row, 15)?);
    Ok(Account {
        id,
        position: position_of(Some(id), number(row, 12)?, value::<Option<&str>>(row, 13)?),
        has_second_factor,
        address: parsed(row, 1)?,
        name: value(row, 2)?,
        access,
        enabled,
        rights: Rights::new(value(row, 7)?, access, enabled).with(&grants, has_second_factor),
        grants,
        legacy: value(row, 9)?,
        is_relayed: value(row, 16)?,
        sending_lock: value::<Option<i64>>(row, 10)?
            .map(|at| Ok(SendingLock { at: UtcMillis(at), reason: value(row, 11)? }))
            .transpose()?,
        quota: read_quota(row, 5)?,
        created_at: UtcMillis(value(row, 8)?),
    })
}

fn number(row: &Row, column: usize) -> Result<u64, EngineError> {
    u64::try_from(value::<i64>(row, column)?).map_err(|_| EngineError::damaged("a number below zero"))
}

/// From two columns: octets and messages.
fn read_quota(row: &Row, column: usize) -> Result<Quota, EngineError> {
    let limit = |column| value::<Option<i64>>(row, column)?.map(|_| number(row, column)).transpose();
    Ok(Quota { size: limit(column)?.map(ByteSize), messages: limit(column + 1)? })
}

fn quota_params(change: &QuotaChange) -> (bool, Option<i64>, bool, Option<i64>) {
    let (size, messages) = (change.size.flatten().map(octets), change.messages.flatten().map(count));
    (change.size.is_some(), size, change.messages.is_some(), messages)
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn octets(size: ByteSize) -> i64 {
    count(size.0)
}

/// A column whose text was checked before it was stored.
fn parsed<T>(row: &Row, column: usize) -> Result<T, EngineError>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    value::<&str>(row, column)?.parse().map_err(|error: T::Err| EngineError::damaged(error.to_string()))
}

fn must(changed: u64, missing: impl FnOnce() -> RegistryError) -> Result<(), RegistryError> {
    if changed == 0 { Err(missing()) } else { Ok(()) }
}

async fn domain_id(sql: &Session, name: &Domain) -> Result<Option<i64>, EngineError> {
    let found = sql.row_opt("SELECT id FROM directory_domain WHERE name = $1", &[&name.as_str()]).await?;
    found.map(|row| value(&row, 0)).transpose()
}

async fn tenant_id(sql: &Session, name: &str) -> Result<Option<(i64, TenantKind)>, EngineError> {
    let found = sql.row_opt("SELECT id, kind FROM directory_tenant WHERE lower(name) = lower($1)", &[&name]).await?;
    let read = |row: Row| Ok((value(&row, 0)?, TenantKind::from_name(value(&row, 1)?).unwrap_or(TenantKind::Customer)));
    found.map(read).transpose()
}

/// The tenant a domain may belong to; `None` for no tenant.
async fn tenant_of(sql: &Session, name: Option<&str>) -> Result<Option<i64>, RegistryError> {
    let Some(name) = name else { return Ok(None) };
    let found = tenant_id(sql, name).await?;
    found.map(|(id, _)| Some(id)).ok_or_else(|| missing("the tenant", name))
}

/// # Errors
/// If an account or alias has this address.
async fn not_taken(sql: &Session, folded: &str) -> Result<(), RegistryError> {
    for (table, what) in [("directory_account", "the account"), ("directory_alias", "the alias")] {
        let text = format!("SELECT 1 FROM {table} WHERE folded = $1");
        if sql.row_opt(&text, &[&folded]).await?.is_some() {
            return Err(exists(what, folded));
        }
    }
    Ok(())
}
