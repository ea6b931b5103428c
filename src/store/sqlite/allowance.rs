//! Allowances that accounts draw from the pools of their domain and tenants. Whatever changes an account's allowance
//! changes what each of its pools has allotted by the same amount, in the same transaction.

use base::{AccountId, ByteSize, PoolId, Quota, UtcMillis};
use rusqlite::{Connection, OptionalExtension, Result};

use crate::model::PoolUsage;
use crate::model::quota::{ASKED, DRAWN_BYTES, DRAWN_MESSAGES, DRY_FOR, RECLAIMS, to_draw};

/// What an account has and may have.
struct Held {
    bytes: u64,
    messages: u64,
    allowed: Option<(u64, u64)>,
}

fn held(sql: &Connection, account: AccountId) -> Result<Option<Held>> {
    sql.prepare_cached(
        "SELECT size_bytes, messages, allowed_bytes, allowed_messages FROM account WHERE account_id = ?1",
    )?
    .query_row([account.0], |row| {
        let allowed = row.get::<_, Option<u64>>(2)?.zip(row.get::<_, Option<u64>>(3)?);
        Ok(Held { bytes: row.get(0)?, messages: row.get(1)?, allowed })
    })
    .optional()
}

/// Makes the allowance cover that many more messages and octets; false if the pools cannot, or not without more of
/// others' than one delivery may take back.
pub(super) fn draw(sql: &Connection, account: AccountId, messages: u64, bytes: u64, now: UtcMillis) -> Result<bool> {
    let Some(Held { bytes: used_bytes, messages: used_messages, allowed: Some(allowed) }) = held(sql, account)? else {
        return Ok(true);
    };
    let need_bytes = (used_bytes + bytes).saturating_sub(allowed.0);
    let need_messages = (used_messages + messages).saturating_sub(allowed.1);
    for _ in 0..RECLAIMS {
        let pools = pools_of(sql, account)?;
        let bytes = to_draw(need_bytes, DRAWN_BYTES, pools.iter().map(|pool| pool.left_bytes));
        let messages = to_draw(need_messages, DRAWN_MESSAGES, pools.iter().map(|pool| pool.left_messages));
        if let Some((bytes, messages)) = bytes.zip(messages) {
            allot(sql, account, signed(bytes), signed(messages))?;
            return Ok(true);
        }
        let is_short = |pool: &&Pool| {
            pool.left_bytes.is_some_and(|left| left < need_bytes)
                || pool.left_messages.is_some_and(|left| left < need_messages)
        };
        for pool in pools.iter().filter(is_short) {
            // Only a look that found nothing says so anew: else a refusal every second would keep it dry for ever.
            if pool.dry_until > now.0 {
                return Ok(false);
            }
            if !reclaim(sql, pool.id, account)? {
                sql.prepare_cached("UPDATE pool SET dry_until = ?2 WHERE pool_id = ?1")?
                    .execute((pool.id, now.plus(DRY_FOR).0))?;
                return Ok(false);
            }
        }
    }
    Ok(false)
}

struct Pool {
    id: u64,
    left_bytes: Option<u64>,
    left_messages: Option<u64>,
    dry_until: i64,
}

fn pools_of(sql: &Connection, account: AccountId) -> Result<Vec<Pool>> {
    sql.prepare_cached(
        "SELECT p.pool_id, max(p.limit_bytes - p.allotted_bytes, 0), max(p.limit_messages - p.allotted_messages, 0),
         p.dry_until FROM pool_member m JOIN pool p ON p.pool_id = m.pool_id WHERE m.account_id = ?1",
    )?
    .query_map([account.0], |row| {
        Ok(Pool { id: row.get(0)?, left_bytes: row.get(1)?, left_messages: row.get(2)?, dry_until: row.get(3)? })
    })?
    .collect()
}

/// Changes the allowance and books the change in the account's pools.
fn allot(sql: &Connection, account: AccountId, bytes: i64, messages: i64) -> Result<()> {
    sql.prepare_cached(
        "UPDATE account SET allowed_bytes = allowed_bytes + ?2, allowed_messages = allowed_messages + ?3
         WHERE account_id = ?1",
    )?
    .execute((account.0, bytes, messages))?;
    sql.prepare_cached(
        "UPDATE pool SET allotted_bytes = allotted_bytes + ?2, allotted_messages = allotted_messages + ?3
         WHERE pool_id IN (SELECT pool_id FROM pool_member WHERE account_id = ?1)",
    )?
    .execute((account.0, bytes, messages))
    .map(drop)
}

/// Takes back what some of the pool's other accounts were allotted and do not use; false if there was nothing.
fn reclaim(sql: &Connection, pool: u64, but: AccountId) -> Result<bool> {
    let mut idle = sql.prepare_cached(
        "SELECT a.account_id, a.allowed_bytes - a.size_bytes, a.allowed_messages - a.messages
         FROM pool_member m JOIN account a ON a.account_id = m.account_id
         WHERE m.pool_id = ?1 AND m.account_id <> ?2
         AND (a.allowed_bytes > a.size_bytes OR a.allowed_messages > a.messages)
         ORDER BY a.allowed_bytes - a.size_bytes DESC LIMIT ?3",
    )?;
    let idle: Vec<(u64, i64, i64)> = idle
        .query_map((pool, but.0, ASKED), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_>>()?;
    for (account, bytes, messages) in &idle {
        allot(sql, AccountId(*account), -bytes, -messages)?;
    }
    Ok(!idle.is_empty())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn set_pools(sql: &Connection, account: AccountId, pools: &[PoolId]) -> Result<()> {
    let Some(held) = held(sql, account)? else { return Ok(()) };
    let mut wanted: Vec<u64> = pools.iter().map(|pool| pool.as_raw()).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let has: Vec<u64> = sql
        .prepare_cached("SELECT pool_id FROM pool_member WHERE account_id = ?1 ORDER BY pool_id")?
        .query_map([account.0], |row| row.get(0))?
        .collect::<Result<_>>()?;
    if wanted == has {
        return Ok(());
    }
    if let Some((bytes, messages)) = held.allowed {
        allot(sql, account, -signed(bytes), -signed(messages))?;
    }
    sql.execute("DELETE FROM pool_member WHERE account_id = ?1", [account.0])?;
    if pools.is_empty() {
        let none = "UPDATE account SET allowed_bytes = NULL, allowed_messages = NULL WHERE account_id = ?1";
        return sql.execute(none, [account.0]).map(drop);
    }
    for pool in wanted {
        make(sql, pool)?;
        sql.prepare_cached("INSERT INTO pool_member (account_id, pool_id) VALUES (?1, ?2)")?
            .execute((account.0, pool))?;
    }
    sql.execute("UPDATE account SET allowed_bytes = 0, allowed_messages = 0 WHERE account_id = ?1", [account.0])?;
    allot(sql, account, signed(held.bytes), signed(held.messages))
}

fn make(sql: &Connection, pool: u64) -> Result<()> {
    sql.prepare_cached(
        "INSERT OR IGNORE INTO pool (pool_id, allotted_bytes, allotted_messages, dry_until) VALUES (?1, 0, 0, 0)",
    )?
    .execute([pool])
    .map(drop)
}

pub(super) fn set_pool(sql: &Connection, pool: PoolId, limit: Quota) -> Result<()> {
    make(sql, pool.as_raw())?;
    sql.execute(
        "UPDATE pool SET limit_bytes = ?2, limit_messages = ?3, dry_until = 0
         WHERE pool_id = ?1 AND (limit_bytes IS NOT ?2 OR limit_messages IS NOT ?3)",
        (pool.as_raw(), limit.size.map(|size| size.0), limit.messages),
    )
    .map(drop)
}

pub(super) fn pool(sql: &Connection, pool: PoolId) -> Result<PoolUsage> {
    let sql = &sql.unchecked_transaction()?;
    let found = sql
        .query_row(
            "SELECT limit_bytes, limit_messages, allotted_bytes, allotted_messages FROM pool WHERE pool_id = ?1",
            [pool.as_raw()],
            |row| {
                Ok(PoolUsage {
                    limit: Quota { size: row.get::<_, Option<u64>>(0)?.map(ByteSize), messages: row.get(1)? },
                    allotted_size: ByteSize(row.get(2)?),
                    allotted_messages: row.get(3)?,
                    ..PoolUsage::default()
                })
            },
        )
        .optional()?;
    sql.query_row(
        "SELECT count(*), coalesce(sum(a.messages), 0), coalesce(sum(a.size_bytes), 0)
         FROM pool_member m JOIN account a ON a.account_id = m.account_id WHERE m.pool_id = ?1",
        [pool.as_raw()],
        |row| {
            Ok(PoolUsage {
                accounts: row.get(0)?,
                messages: row.get(1)?,
                size: ByteSize(row.get(2)?),
                ..found.unwrap_or_default()
            })
        },
    )
}
