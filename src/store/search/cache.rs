//! The file of packs, `search.sqlite`. Everything in it can be made again from the messages.

use base::{AccountId, UtcMillis};
use engine::{Database, EngineError};
use rusqlite::{Connection, OptionalExtension as _, Result};

use super::pack::{Builder, Pack, decode_ids, encode_ids};
use crate::model::EmailId;

const MIGRATIONS: &[&str] = &["
CREATE TABLE pack (
    pack_id     INTEGER PRIMARY KEY,
    account_id  INTEGER NOT NULL,
    raw_bytes   INTEGER NOT NULL,
    emails      BLOB NOT NULL,
    data        BLOB NOT NULL
) STRICT;
CREATE INDEX pack_account ON pack (account_id, pack_id);
CREATE TABLE searched (
    account_id   INTEGER PRIMARY KEY,
    searched_at  INTEGER NOT NULL,
    bytes        INTEGER NOT NULL
) STRICT;
"];

/// A pack with what it holds, not yet opened.
pub(super) struct Listed {
    pub id: i64,
    pub raw_bytes: usize,
    pub emails: Vec<EmailId>,
}

pub(super) fn open(file: &std::path::Path) -> std::result::Result<Database, EngineError> {
    Database::open(file, &engine::Settings { migrations: MIGRATIONS, readers: 4, cache_kib: 2048 })
}

pub(super) fn list(sql: &Connection, account: AccountId) -> Result<Vec<Listed>> {
    sql.prepare_cached("SELECT pack_id, raw_bytes, emails FROM pack WHERE account_id = ?1 ORDER BY pack_id")?
        .query_map([account.0], |row| {
            let emails = decode_ids(row.get_ref(2)?.as_blob()?).collect();
            Ok(Listed { id: row.get(0)?, raw_bytes: row.get(1)?, emails })
        })?
        .collect()
}

/// `None` if it is gone or damaged.
pub(super) fn read(sql: &Connection, id: i64) -> Result<Option<Pack>> {
    let mut query = sql.prepare_cached("SELECT data FROM pack WHERE pack_id = ?1")?;
    let pack = query.query_row([id], |row| Ok(Pack::unpack(row.get_ref(0)?.as_blob()?))).optional()?;
    Ok(pack.and_then(std::result::Result::ok))
}

/// Puts new packs in the place of old ones.
pub(super) fn replace(
    sql: &Connection,
    account: AccountId,
    old: &[i64],
    new: Vec<Builder>,
    now: UtcMillis,
) -> Result<()> {
    for id in old {
        sql.prepare_cached("DELETE FROM pack WHERE pack_id = ?1")?.execute([id])?;
    }
    for builder in new {
        if builder.is_empty() {
            continue;
        }
        let raw_bytes = builder.raw_len();
        let Ok((data, emails)) = builder.pack() else { continue };
        sql.prepare_cached("INSERT INTO pack (account_id, raw_bytes, emails, data) VALUES (?1, ?2, ?3, ?4)")?
            .execute((account.0, raw_bytes, encode_ids(&emails), data))?;
    }
    sql.prepare_cached(
        "INSERT OR REPLACE INTO searched (account_id, searched_at, bytes)
         SELECT ?1, ?2, coalesce(sum(length(data)), 0) FROM pack WHERE account_id = ?1",
    )?
    .execute((account.0, now.0))
    .map(drop)
}

pub(super) fn forget(sql: &Connection, account: AccountId) -> Result<()> {
    sql.prepare_cached("DELETE FROM pack WHERE account_id = ?1")?.execute([account.0])?;
    sql.prepare_cached("DELETE FROM searched WHERE account_id = ?1")?.execute([account.0]).map(drop)
}

/// Accounts to let go until the rest fits into `bytes_max`: those searched longest ago.
pub(super) fn excess(sql: &Connection, bytes_max: u64) -> Result<Vec<AccountId>> {
    let mut total: u64 = sql.query_row("SELECT coalesce(sum(bytes), 0) FROM searched", [], |row| row.get(0))?;
    let mut out = Vec::new();
    if total <= bytes_max {
        return Ok(out);
    }
    let mut oldest = sql.prepare_cached("SELECT account_id, bytes FROM searched ORDER BY searched_at")?;
    let mut rows = oldest.query([])?;
    while let Some(row) = rows.next()?
        && total > bytes_max
    {
        out.push(AccountId(row.get(0)?));
        total = total.saturating_sub(row.get(1)?);
    }
    Ok(out)
}

/// The accounts after number `after` that have packs.
pub(super) fn accounts(sql: &Connection, after: u64, limit: usize) -> Result<Vec<AccountId>> {
    sql.prepare_cached("SELECT account_id FROM searched WHERE account_id > ?1 ORDER BY account_id LIMIT ?2")?
        .query_map((after, limit), |row| row.get(0).map(AccountId))?
        .collect()
}
