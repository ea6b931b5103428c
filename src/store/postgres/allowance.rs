//! Allowances that accounts draw from the pools of their domain and tenants.

use base::{AccountId, ByteSize, PoolId, Quota, UtcMillis};
use engine::postgres::Session;

use super::{account, rows};
use crate::error::StoreError;
use crate::model::PoolUsage;
use crate::model::quota::{ASKED, DRAWN_BYTES, DRAWN_MESSAGES, DRAWN_PART, DRY_FOR};

type Result<T> = std::result::Result<T, StoreError>;

fn id(pool: PoolId) -> i64 {
    rows::param(pool.as_raw())
}

/// Makes the allowance cover that much more: a transaction of its own. Gives the pools that have not enough.
pub(super) async fn draw(sql: &Session, account: AccountId, size: ByteSize, messages: u64) -> Result<Vec<i64>> {
    let [size, messages, most_bytes, most_messages, part] =
        [size.0, messages, DRAWN_BYTES, DRAWN_MESSAGES, DRAWN_PART].map(rows::param);
    let text = "SELECT ortler_draw($1, $2, $3, $4, $5, $6)";
    let short = sql.rows(text, &[&account::id(account), &size, &messages, &most_bytes, &most_messages, &part]).await?;
    short.iter().map(|row| rows::signed(row, 0)).collect()
}

/// Takes back what some of the pool's other accounts do not use, each in a transaction of its own. False, and the pool
/// is left alone for a while, if there was nothing to take; while it is left alone nobody looks, and that time does not
/// grow.
pub(super) async fn reclaim(sql: &Session, pool: i64, but: AccountId, now: UtcMillis) -> Result<bool> {
    let text = "SELECT a.account_id FROM pool_member m JOIN account a ON a.account_id = m.account_id
         JOIN pool p ON p.pool_id = m.pool_id
         WHERE m.pool_id = $1 AND m.account_id <> $2 AND p.dry_until <= $4
         AND (a.allowed_bytes > a.size_bytes OR a.allowed_messages > a.messages)
         ORDER BY a.allowed_bytes - a.size_bytes DESC LIMIT $3";
    let idle = sql.rows(text, &[&pool, &account::id(but), &rows::limit(ASKED), &now.0]).await?;
    for row in &idle {
        sql.rows("SELECT ortler_reclaim($1)", &[&rows::signed(row, 0)?]).await?;
    }
    if idle.is_empty() {
        let text = "UPDATE pool SET dry_until = $2 WHERE pool_id = $1 AND dry_until <= $3";
        sql.execute(text, &[&pool, &now.plus(DRY_FOR).0, &now.0]).await?;
    }
    Ok(!idle.is_empty())
}

/// Makes the pools, if the account is not of just these already; true if it is not. In a transaction of its own, so that
/// [`set_pools`] waits for no pool that somebody makes.
pub(super) async fn make_pools(sql: &Session, account: AccountId, pools: &[i64]) -> Result<bool> {
    let text = "SELECT pool_id FROM pool_member WHERE account_id = $1 ORDER BY pool_id";
    let has = sql.rows(text, &[&account::id(account)]).await?;
    let has = has.iter().map(|row| rows::signed(row, 0)).collect::<Result<Vec<i64>>>()?;
    if has == pools {
        return Ok(false);
    }
    sql.execute(MAKE, &[&pools]).await?;
    Ok(true)
}

/// Numbers of the pools, each once, rising.
pub(super) fn numbers(pools: &[PoolId]) -> Vec<i64> {
    let mut numbers: Vec<i64> = pools.iter().map(|pool| id(*pool)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// The account is held by the transaction. The pools that it leaves and those that it comes to, which exist, are locked
/// together by rising number, as everywhere.
pub(super) async fn set_pools(sql: &Session, account: AccountId, pools: &[i64]) -> Result<()> {
    let this = account::id(account);
    let text = "SELECT 1 FROM pool WHERE pool_id = ANY ($2::bigint[])
         OR pool_id IN (SELECT m.pool_id FROM pool_member m WHERE m.account_id = $1) ORDER BY pool_id FOR UPDATE";
    sql.rows(text, &[&this, &pools]).await?;
    sql.rows(
        "SELECT ortler_allot(account_id, -allowed_bytes, -allowed_messages) FROM account
         WHERE account_id = $1 AND allowed_bytes IS NOT NULL AND allowed_messages IS NOT NULL",
        &[&this],
    )
    .await?;
    sql.execute("DELETE FROM pool_member WHERE account_id = $1", &[&this]).await?;
    if pools.is_empty() {
        let none = "UPDATE account SET allowed_bytes = NULL, allowed_messages = NULL WHERE account_id = $1";
        sql.execute(none, &[&this]).await?;
        return Ok(());
    }
    let text = "INSERT INTO pool_member (account_id, pool_id) SELECT $1::bigint, unnest($2::bigint[])";
    sql.execute(text, &[&this, &pools]).await?;
    let text = "UPDATE account SET allowed_bytes = 0, allowed_messages = 0 WHERE account_id = $1";
    sql.execute(text, &[&this]).await?;
    let text = "SELECT ortler_allot(account_id, size_bytes, messages) FROM account WHERE account_id = $1";
    sql.rows(text, &[&this]).await?;
    Ok(())
}

const MAKE: &str = "INSERT INTO pool (pool_id, allotted_bytes, allotted_messages, dry_until)
    SELECT n, 0, 0, 0 FROM unnest($1::bigint[]) AS n ON CONFLICT DO NOTHING";

pub(super) async fn set_pool(sql: &Session, pool: PoolId, limit: Quota) -> Result<()> {
    sql.execute(MAKE, &[&vec![id(pool)]]).await?;
    let (size, messages) = (limit.size.map(|size| rows::param(size.0)), limit.messages.map(rows::param));
    let text = "UPDATE pool SET limit_bytes = $2, limit_messages = $3, dry_until = 0
         WHERE pool_id = $1 AND (limit_bytes, limit_messages) IS DISTINCT FROM ($2, $3)";
    sql.execute(text, &[&id(pool), &size, &messages]).await?;
    Ok(())
}

pub(super) async fn pool(sql: &Session, pool: PoolId) -> Result<PoolUsage> {
    let text = "SELECT count(*), coalesce(sum(a.messages), 0)::bigint, coalesce(sum(a.size_bytes), 0)::bigint
         FROM pool_member m JOIN account a ON a.account_id = m.account_id WHERE m.pool_id = $1";
    let sums = sql.row(text, &[&id(pool)]).await?;
    let mut usage = PoolUsage {
        accounts: rows::int(&sums, 0)?,
        messages: rows::int(&sums, 1)?,
        size: ByteSize(rows::int(&sums, 2)?),
        ..PoolUsage::default()
    };
    let text = "SELECT limit_bytes, limit_messages, allotted_bytes, allotted_messages FROM pool WHERE pool_id = $1";
    if let Some(row) = sql.row_opt(text, &[&id(pool)]).await? {
        usage.limit = rows::quota(&row, 0)?;
        usage.allotted_size = ByteSize(rows::int(&row, 2)?);
        usage.allotted_messages = rows::int(&row, 3)?;
    }
    Ok(usage)
}
