//! Where each blob lies and how many entries refer to it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::{BlobId, MessageId, UtcMillis};
use engine::EngineError;
use rusqlite::{Connection, OptionalExtension, Result};

use super::rows::{self, BLOB_COLUMNS};
use super::{Outcome, Refusal, SqliteStore, removed};
use crate::error::{AppendError, StoreError};
use crate::model::StoredBlob;
use crate::traits::{BlobIndex, Relocation};

/// Content put longer ago than this must have an entry already, else garbage collection may be about to take it. Well
/// below the grace period of [`crate::GcSettings`].
const PUT_TO_ENTRY_MAX: Duration = Duration::from_secs(12 * 3600);

/// Refuses content that was put so long ago that it may be gone; the caller puts it again.
pub(super) fn refuse_stale(sql: &Connection, blob: &StoredBlob, now: UtcMillis) -> Outcome<(), AppendError> {
    if now.since(blob.id.made_at()) <= PUT_TO_ENTRY_MAX {
        return Ok(());
    }
    let is_known =
        sql.prepare_cached("SELECT 1 FROM blob WHERE blob_id = ?1 AND refs > 0")?.exists([blob.id.to_bytes()])?;
    if is_known {
        return Ok(());
    }
    let source = std::io::Error::other(format!("blob {} was put too long ago, put it again", blob.id));
    let error = EngineError::Io { file: "blobs".into(), source: Arc::new(source) };
    Err(Refusal::Because(AppendError::Store(StoreError::Unavailable(error))))
}

/// One more entry refers to the blob.
pub(super) fn refer(sql: &Connection, blob: &StoredBlob) -> Result<()> {
    sql.prepare_cached(
        "INSERT INTO blob (blob_id, locator, size_bytes, digest, refs) VALUES (?1, ?2, ?3, ?4, 1)
         ON CONFLICT (blob_id) DO UPDATE SET refs = refs + 1",
    )?
    .execute((blob.id.to_bytes(), &blob.locator, blob.size_bytes, blob.digest))
    .map(drop)
}

/// One entry less refers to the blob; the last one leaves it to garbage collection.
pub(super) fn release(sql: &Connection, blob: BlobId, now: UtcMillis) -> Result<()> {
    let left: Option<u64> = sql
        .prepare_cached("UPDATE blob SET refs = refs - 1 WHERE blob_id = ?1 AND refs > 0 RETURNING refs")?
        .query_row([blob.to_bytes()], |row| row.get(0))
        .optional()?;
    if left == Some(0) {
        sql.prepare_cached("INSERT OR IGNORE INTO blob_release (released_at, blob_id) VALUES (?1, ?2)")?
            .execute((now.0, blob.to_bytes()))?;
    }
    Ok(())
}

impl SqliteStore {
    /// Names blobs that nothing refers to yet; garbage collection looks at them when their grace is over.
    pub(crate) async fn list_stored(&self, blobs: Vec<StoredBlob>) -> std::result::Result<(), StoreError> {
        let now = self.clock.utc();
        self.write_sql(move |sql| {
            let mut add = sql.prepare_cached(
                "INSERT INTO blob (blob_id, locator, size_bytes, digest, refs) VALUES (?1, ?2, ?3, ?4, 0)",
            )?;
            let mut list =
                sql.prepare_cached("INSERT OR IGNORE INTO blob_release (released_at, blob_id) VALUES (?1, ?2)")?;
            for blob in &blobs {
                add.execute((blob.id.to_bytes(), &blob.locator, blob.size_bytes, blob.digest))?;
                list.execute((now.0, blob.id.to_bytes()))?;
            }
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl BlobIndex for SqliteStore {
    async fn locate(&self, blob: BlobId) -> Result<Option<StoredBlob>, StoreError> {
        self.read(move |sql| {
            sql.prepare_cached(&format!("SELECT {BLOB_COLUMNS} FROM blob WHERE blob_id = ?1"))?
                .query_row([blob.to_bytes()], rows::stored_blob)
                .optional()
        })
        .await
    }

    async fn located(&self, from: Vec<u8>, below: Vec<u8>, limit: usize) -> Result<Vec<StoredBlob>, StoreError> {
        self.read(move |sql| {
            sql.prepare_cached(&format!(
                "SELECT {BLOB_COLUMNS} FROM blob WHERE locator >= ?1 AND locator < ?2 ORDER BY locator LIMIT ?3"
            ))?
            .query_map((from, below, limit), rows::stored_blob)?
            .collect()
        })
        .await
    }

    fn last_located(&self, below: Vec<u8>) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.db.read_now(|sql| {
            sql.prepare("SELECT locator FROM blob WHERE locator < ?1 ORDER BY locator DESC LIMIT 1")?
                .query_row([&below], |row| row.get(0))
                .optional()
        })?;
        Ok(found)
    }

    async fn relocate(&self, moved: Vec<Relocation>) -> Result<usize, StoreError> {
        self.write_sql(move |sql| {
            let mut update = sql.prepare_cached("UPDATE blob SET locator = ?3 WHERE blob_id = ?1 AND locator = ?2")?;
            let mut count = 0;
            for step in &moved {
                count += update.execute((step.blob.to_bytes(), &step.from, &step.to))?;
            }
            Ok(count)
        })
        .await
    }

    async fn take_released(&self, before: UtcMillis, limit: usize) -> Result<(usize, Vec<StoredBlob>), StoreError> {
        self.write_sql(move |sql| {
            let mut due = sql.prepare_cached(
                "DELETE FROM blob_release WHERE (released_at, blob_id) IN
                 (SELECT released_at, blob_id FROM blob_release WHERE released_at <= ?1 LIMIT ?2) RETURNING blob_id",
            )?;
            let due = due.query_map((before.0, limit), |row| rows::blob_id(row, 0))?.collect::<Result<Vec<_>>>()?;
            // A delivery may have referred to it again since.
            let mut remove = sql.prepare_cached(&format!(
                "DELETE FROM blob WHERE blob_id = ?1 AND refs = 0 RETURNING {BLOB_COLUMNS}"
            ))?;
            let mut erase = sql.prepare_cached("INSERT OR REPLACE INTO erasure (locator, blob_id) VALUES (?1, ?2)")?;
            let mut gone = Vec::new();
            for blob in &due {
                if let Some(one) = remove.query_row([blob.to_bytes()], rows::stored_blob).optional()? {
                    erase.execute((&one.locator, blob.to_bytes()))?;
                    gone.push(one);
                }
            }
            Ok((due.len(), gone))
        })
        .await
    }

    async fn erasable(&self, from: Vec<u8>, limit: usize) -> Result<Vec<(BlobId, Vec<u8>)>, StoreError> {
        self.read(move |sql| {
            sql.prepare_cached("SELECT blob_id, locator FROM erasure WHERE locator >= ?1 ORDER BY locator LIMIT ?2")?
                .query_map((from, limit), |row| Ok((rows::blob_id(row, 0)?, row.get(1)?)))?
                .collect()
        })
        .await
    }

    async fn erased(&self, locators: Vec<Vec<u8>>) -> Result<(), StoreError> {
        self.write_sql(move |sql| {
            let mut done = sql.prepare_cached("DELETE FROM erasure WHERE locator = ?1")?;
            locators.iter().try_for_each(|locator| done.execute([locator]).map(drop))
        })
        .await
    }

    async fn forget_removed(&self, before: UtcMillis, limit: usize) -> Result<usize, StoreError> {
        let now = self.clock.utc();
        self.write_sql(move |sql| removed::forget(sql, before, limit, now)).await
    }

    async fn forget_deliveries(&self, before: UtcMillis, limit: usize) -> Result<usize, StoreError> {
        let oldest_kept = MessageId::first_at(before);
        self.write_sql(move |sql| {
            sql.prepare_cached(
                "DELETE FROM delivered WHERE (message_id, account_id) IN
                 (SELECT message_id, account_id FROM delivered WHERE message_id < ?1 LIMIT ?2)",
            )?
            .execute((oldest_kept.to_bytes(), limit))
        })
        .await
    }

    async fn forget_threads(&self, after: u64, accounts: usize) -> Result<Option<u64>, StoreError> {
        // Most have none: the one writer is bothered with the others alone.
        let (last, found) = self
            .read(move |sql| {
                let next: Vec<u64> = sql
                    .prepare_cached(
                        "SELECT account_id FROM account WHERE account_id > ?1 ORDER BY account_id LIMIT ?2",
                    )?
                    .query_map((after, accounts), |row| row.get(0))?
                    .collect::<Result<_>>()?;
                let mut has_dead =
                    sql.prepare_cached(&format!("SELECT 1 FROM thread_ref r WHERE account_id = ?1 AND {IS_DEAD}"))?;
                let mut found = Vec::new();
                for account in &next {
                    if has_dead.exists([account])? {
                        found.push(*account);
                    }
                }
                Ok((next.last().copied(), found))
            })
            .await?;
        if !found.is_empty() {
            self.write_sql(move |sql| {
                let text = format!("DELETE FROM thread_ref AS r WHERE account_id = ?1 AND {IS_DEAD}");
                let mut remove = sql.prepare_cached(&text)?;
                found.iter().try_for_each(|account| remove.execute([account]).map(drop))
            })
            .await?;
        }
        Ok(last)
    }
}

/// A thread key `r` without emails.
const IS_DEAD: &str = "
    NOT EXISTS (SELECT 1 FROM entry e WHERE e.account_id = r.account_id AND e.email_id = r.thread_id)
    AND NOT EXISTS (SELECT 1 FROM entry e WHERE e.account_id = r.account_id AND e.thread_id = r.thread_id
                    AND e.thread_id <> e.email_id)";
