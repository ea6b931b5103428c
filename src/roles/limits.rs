//! Limits of accounts, domains and tenants: the directory says them, the store keeps to them.

use anyhow::Context as _;
use base::{AccountId, ByteSize, PoolId, Quota};
use directory::QuotaChange;
use serde::{Deserialize, Serialize};

use super::Engines;
use super::engines::explain;

/// A change of a quota, as written; absent stays.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
pub struct QuotaPatch {
    /// A size, or `none`.
    pub quota: Option<String>,
    /// A number, or `none`.
    pub messages: Option<String>,
}

impl QuotaPatch {
    pub fn change(&self) -> anyhow::Result<QuotaChange> {
        let size = self.quota.as_deref().map(|text| parse::<ByteSize>("quota", text)).transpose()?;
        let messages = self.messages.as_deref().map(|text| parse::<u64>("messages", text)).transpose()?;
        Ok(QuotaChange { size, messages })
    }
}

fn parse<T>(what: &str, text: &str) -> anyhow::Result<Option<T>>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    if text.eq_ignore_ascii_case("none") {
        return Ok(None);
    }
    Ok(Some(text.parse().with_context(|| format!("{what} `{text}`"))?))
}

/// Tells the store what limits an account.
pub async fn apply(engines: &Engines, account: AccountId) -> anyhow::Result<()> {
    let Some(limits) = engines.directory.limits(account).await? else { return Ok(()) };
    let set = engines.storage.set_limits(account, limits.quota, &limits.pools).await;
    set.map_err(|error| explain(&error))
}

/// Tells the store a domain's or tenant's limit, then whom it holds for, if that changed. An account made meanwhile
/// finds the limit in the directory.
pub async fn apply_pool(engines: &Engines, (pool, limit): (PoolId, Quota)) -> anyhow::Result<()> {
    let accounts = engines.directory.pool_accounts(pool).await?;
    let set = engines.storage.set_pool(pool, limit, accounts.len()).await;
    if set.map_err(|error| explain(&error))? {
        apply_each(engines, accounts).await?;
    }
    Ok(())
}

/// Tells the store anew what limits each account of the pool.
pub async fn apply_members(engines: &Engines, pool: PoolId) -> anyhow::Result<()> {
    apply_each(engines, engines.directory.pool_accounts(pool).await?).await
}

async fn apply_each(engines: &Engines, accounts: Vec<AccountId>) -> anyhow::Result<()> {
    for account in accounts {
        apply(engines, account).await?;
    }
    Ok(())
}

/// What messages take.
#[derive(Clone, Copy)]
pub struct Used {
    pub size: ByteSize,
    pub messages: u64,
}

pub async fn account_usage(engines: &Engines, account: AccountId) -> anyhow::Result<Used> {
    let usage = engines.storage.mail.usage(account).await.map_err(|error| explain(&error))?;
    Ok(Used { size: usage.size, messages: usage.messages })
}

/// What the accounts of a domain or tenant use; `None` where there is no limit and nothing is summed.
pub async fn pool_usage(engines: &Engines, pool: PoolId) -> anyhow::Result<Option<Used>> {
    let usage = engines.storage.mail.pool(pool).await.map_err(|error| explain(&error))?;
    Ok((usage.accounts != 0).then_some(Used { size: usage.size, messages: usage.messages }))
}
