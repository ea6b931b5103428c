//! What accounts, and all accounts of a domain or tenant together, may hold. The store keeps to it.

use base::{AccountId, ByteSize, DomainId, PoolId, Quota, TenantId};
use engine::EngineError;
use mail::Domain;
use rusqlite::{OptionalExtension as _, Row, params};

use crate::embedded::{EmbeddedDirectory, missing};
use crate::error::RegistryError;

/// What of a quota changes: `None` stays, `Some(None)` lifts the limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QuotaChange {
    pub size: Option<Option<ByteSize>>,
    pub messages: Option<Option<u64>>,
}

impl QuotaChange {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What limits an account's mail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    pub quota: Quota,
    /// Those of its domain, customer and reseller that have a limit.
    pub pools: Vec<(PoolId, Quota)>,
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
pub(crate) fn read_quota(row: &Row<'_>, column: usize) -> rusqlite::Result<Quota> {
    Ok(Quota { size: row.get::<_, Option<u64>>(column)?.map(ByteSize), messages: row.get(column + 1)? })
}

impl EmbeddedDirectory {
    /// Gives the pool with its new limit.
    pub async fn set_domain_quota(&self, name: Domain, change: QuotaChange) -> Result<(PoolId, Quota), RegistryError> {
        self.set_quota("domain", name.as_str().to_owned(), change, |id| PoolId::Domain(DomainId(id))).await
    }

    /// Gives the pool with its new limit.
    pub async fn set_tenant_quota(&self, name: &str, change: QuotaChange) -> Result<(PoolId, Quota), RegistryError> {
        self.set_quota("tenant", name.to_owned(), change, |id| PoolId::Tenant(TenantId(id))).await
    }

    async fn set_quota(
        &self,
        table: &'static str,
        name: String,
        change: QuotaChange,
        pool: fn(u64) -> PoolId,
    ) -> Result<(PoolId, Quota), RegistryError> {
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
                    |row| Ok((pool(row.get(0)?), read_quota(row, 1)?)),
                )
                .optional()?;
            Ok(found.ok_or_else(|| missing(&format!("the {table}"), &name)))
        })
        .await
    }

    /// What limits an account; `None` if it does not exist.
    pub async fn limits(&self, account: AccountId) -> Result<Option<Limits>, EngineError> {
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
                let mut pools = vec![(PoolId::Domain(DomainId(domain)), of_domain)];
                let mut above = sql.prepare_cached(TENANTS_ABOVE)?;
                for tenant in
                    above.query_map([domain], |row| Ok((PoolId::Tenant(TenantId(row.get(0)?)), read_quota(row, 1)?)))?
                {
                    pools.push(tenant?);
                }
                pools.retain(|(_, limit)| *limit != Quota::UNLIMITED);
                Ok(Some(Limits { quota, pools }))
            })
            .await
    }

    /// The accounts that share a pool.
    pub async fn pool_accounts(&self, pool: PoolId) -> Result<Vec<AccountId>, EngineError> {
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
}
