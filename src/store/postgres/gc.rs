//! Garbage collection in the database. Nodes that run it at once do no harm, only some work twice. Its cost follows the garbage, but for two walks of which
//! each round goes a step: over the accounts for dead thread keys, and over the bucket for strays.

use std::sync::Arc;

use base::{BlobId, Clock, UtcMillis};
use engine::postgres::Session;

use super::{PgStore, rows};
use crate::bucket::{self, Bucket};
use crate::error::StoreError;
use crate::gc::{GcReport, GcSettings};

/// Rows taken or changed in one transaction.
const BATCH: usize = 500;
/// Accounts whose thread keys a round looks at.
const ACCOUNTS: usize = 50;
/// Objects that a round looks at.
const PAGE: usize = 1000;

pub(crate) struct PgGc {
    store: Arc<PgStore>,
    clock: Arc<dyn Clock>,
    settings: GcSettings,
    bucket: Option<Arc<Bucket>>,
    /// One round at a time.
    at: tokio::sync::Mutex<Position>,
}

/// How far walks over everything have come.
#[derive(Default)]
struct Position {
    /// The account looked at last for thread keys.
    account: i64,
    /// The object looked at last.
    object: String,
}

impl PgGc {
    pub(crate) fn new(
        store: Arc<PgStore>,
        clock: Arc<dyn Clock>,
        settings: GcSettings,
        bucket: Option<Arc<Bucket>>,
    ) -> Self {
        Self { store, clock, settings, bucket, at: tokio::sync::Mutex::default() }
    }

    pub(crate) async fn round(&self) -> Result<GcReport, StoreError> {
        let mut at = self.at.lock().await;
        self.settings.waypoints.pass("gc.begun");
        let done = self.work(&mut at).await;
        self.settings.waypoints.pass("gc.done");
        done
    }

    async fn work(&self, at: &mut Position) -> Result<GcReport, StoreError> {
        let now = self.clock.utc();
        let mut report = GcReport::default();
        let due = [
            (Due::Removed, self.settings.undelete),
            (Due::Released, self.settings.grace),
            (Due::Deliveries, self.settings.deliveries_kept),
        ];
        for (due, kept) in due {
            self.work_off(due, now.minus(kept), now, &mut report).await?;
        }
        self.settings.waypoints.pass("gc.forgotten");
        let sql = self.store.pool.begin(true).await?;
        let done = with_dead_threads(&sql, at.account).await;
        let (last, accounts) = sql.end(done).await?;
        at.account = last.unwrap_or(0);
        for one in accounts {
            let sql = self.store.pool.begin(false).await?;
            let done = forget_threads(&sql, one).await;
            sql.end(done).await?;
        }
        self.settings.waypoints.pass("gc.tidied");
        if let Some(bucket) = &self.bucket {
            self.delete_objects(bucket, &mut report).await?;
            self.sweep(bucket, at, now, &mut report).await?;
        }
        Ok(report)
    }

    /// Deletes the objects that were listed when their rows went. Whatever is interrupted is done again.
    async fn delete_objects(&self, bucket: &Bucket, report: &mut GcReport) -> Result<(), StoreError> {
        for _ in 0..self.settings.blobs_max.div_ceil(BATCH) {
            let sql = self.store.pool.session().await?;
            let text = "SELECT blob_id FROM object_release ORDER BY blob_id LIMIT $1";
            let due = sql.rows(text, &[&rows::limit(BATCH)]).await?;
            sql.give_back();
            let ids = due.iter().map(|row| rows::blob_id(row, 0)).collect::<Result<Vec<_>, _>>()?;
            bucket.delete(ids.iter().copied().map(bucket::key).collect()).await?;
            if !ids.is_empty() {
                self.settings.waypoints.pass("gc.dropped");
            }
            let raw: Vec<Vec<u8>> = ids.iter().map(|id| id.to_bytes().to_vec()).collect();
            let sql = self.store.pool.session().await?;
            sql.execute("DELETE FROM object_release WHERE blob_id = ANY ($1::bytea[])", &[&raw]).await?;
            sql.give_back();
            report.objects_removed += ids.len() as u64;
            if ids.len() < BATCH {
                return Ok(());
            }
        }
        report.has_more = true;
        Ok(())
    }

    /// Looks at a page of the bucket for objects that no row names: nothing should leave any.
    async fn sweep(
        &self,
        bucket: &Bucket,
        at: &mut Position,
        now: UtcMillis,
        report: &mut GcReport,
    ) -> Result<(), StoreError> {
        let page = bucket.list(&at.object, PAGE).await?;
        at.object = page.last().map(|object| object.key.clone()).filter(|_| page.len() == PAGE).unwrap_or_default();
        // Twice the grace: what is still coming is long over.
        let before = now.minus(self.settings.grace * 2);
        let old: Vec<BlobId> =
            page.iter().filter(|object| object.modified_at <= before).filter_map(|object| object.blob).collect();
        let raw: Vec<Vec<u8>> = old.iter().map(|id| id.to_bytes().to_vec()).collect();
        let sql = self.store.pool.session().await?;
        let text = "SELECT o.id FROM unnest($1::bytea[]) AS o (id)
             WHERE NOT EXISTS (SELECT 1 FROM blob b WHERE b.blob_id = o.id)";
        let strays = sql.rows(text, &[&raw]).await?;
        sql.give_back();
        let strays = strays.iter().map(|row| rows::blob_id(row, 0)).collect::<Result<Vec<_>, _>>()?;
        report.objects_removed += strays.len() as u64;
        bucket.delete(strays.into_iter().map(bucket::key).collect()).await
    }

    /// Steps until one finds less than a batch, or the bound of a round is reached.
    async fn work_off(
        &self,
        due: Due,
        before: UtcMillis,
        now: UtcMillis,
        report: &mut GcReport,
    ) -> Result<(), StoreError> {
        for _ in 0..self.settings.blobs_max.div_ceil(BATCH) {
            let sql = self.store.pool.begin(false).await?;
            let done = match due {
                Due::Removed => forget_removed(&sql, before, now, report).await,
                Due::Released => take_released(&sql, before, self.bucket.is_some(), report).await,
                Due::Deliveries => forget_deliveries(&sql, before).await,
            };
            if sql.end(done).await? < BATCH as u64 {
                return Ok(());
            }
        }
        report.has_more = true;
        Ok(())
    }
}

/// What a round looks for; a step of each says how many it found.
#[derive(Clone, Copy)]
enum Due {
    Removed,
    Released,
    Deliveries,
}

/// Ends the undelete window of expunged emails. Two nodes or a restore that meet on one skip it.
async fn forget_removed(
    sql: &Session,
    before: UtcMillis,
    now: UtcMillis,
    report: &mut GcReport,
) -> Result<u64, StoreError> {
    sql.execute("DELETE FROM removed_mailbox WHERE removed_at < $1", &[&before.0]).await?;
    let text = "WITH due AS (
             SELECT account_id, email_id, content_id FROM removed WHERE removed_at < $1 ORDER BY removed_at LIMIT $2
             FOR UPDATE SKIP LOCKED
         ), gone AS (
             DELETE FROM removed r USING due WHERE r.account_id = due.account_id AND r.email_id = due.email_id
             RETURNING r.account_id, r.content_id
         ), content_gone AS (
             DELETE FROM content c USING gone WHERE c.account_id = gone.account_id AND c.content_id = gone.content_id
             RETURNING c.blob_id
         ), released AS (
             INSERT INTO blob_release (released_at, blob_id) SELECT DISTINCT $3::bigint, blob_id FROM content_gone
             ON CONFLICT DO NOTHING
         )
         SELECT count(*) FROM gone";
    let found = rows::int(&sql.row(text, &[&before.0, &rows::limit(BATCH), &now.0]).await?, 0)?;
    report.forgotten += found;
    Ok(found)
}

/// Looks at released blobs, which go unless something refers to them. A delivery that refers to
/// one holds its row (`FOR KEY SHARE`): the look at references comes after the lock on the row, in a statement of its own,
/// so that it sees what that delivery committed. Objects are listed for deletion in the same transaction. Chunks without a blob are of content that never came to its end.
async fn take_released(
    sql: &Session,
    before: UtcMillis,
    has_bucket: bool,
    report: &mut GcReport,
) -> Result<u64, StoreError> {
    let text = "DELETE FROM blob_release WHERE (released_at, blob_id) IN (
             SELECT released_at, blob_id FROM blob_release WHERE released_at <= $1 ORDER BY released_at LIMIT $2)
         RETURNING blob_id";
    let taken = sql.rows(text, &[&before.0, &rows::limit(BATCH)]).await?;
    let ids: Vec<&[u8]> = taken.iter().map(|row| rows::value(row, 0)).collect::<Result<_, _>>()?;
    let text = "SELECT 1 FROM blob WHERE blob_id = ANY ($1::bytea[]) ORDER BY blob_id FOR UPDATE";
    sql.rows(text, &[&ids]).await?;
    let text = "WITH gone AS (
             DELETE FROM blob b WHERE b.blob_id = ANY ($1::bytea[])
             AND NOT EXISTS (SELECT 1 FROM content c WHERE c.blob_id = b.blob_id)
             AND NOT EXISTS (SELECT 1 FROM queue_item q WHERE q.blob_id = b.blob_id)
             RETURNING b.blob_id, b.frames IS NOT NULL AS is_object
         ), objects AS (
             INSERT INTO object_release (blob_id) SELECT blob_id FROM gone WHERE is_object UNION
             SELECT id FROM unnest($1::bytea[]) AS r (id)
             WHERE $2 AND NOT EXISTS (SELECT 1 FROM blob b WHERE b.blob_id = id) ON CONFLICT DO NOTHING
         ), chunks AS (
             DELETE FROM blob_chunk c WHERE c.blob_id = ANY ($1::bytea[]) AND (c.blob_id IN (SELECT blob_id FROM gone)
                 OR NOT EXISTS (SELECT 1 FROM blob b WHERE b.blob_id = c.blob_id)) RETURNING octet_length(c.data) AS size
         )
         SELECT (SELECT count(*) FROM gone), (SELECT coalesce(sum(size), 0)::bigint FROM chunks)";
    let row = sql.row(text, &[&ids, &has_bucket]).await?;
    report.released += rows::int(&row, 0)?;
    report.freed_bytes += rows::int(&row, 1)?;
    Ok(taken.len() as u64)
}

/// Message ids sort by the time they were made.
async fn forget_deliveries(sql: &Session, before: UtcMillis) -> Result<u64, StoreError> {
    let oldest = base::MessageId::first_at(before).to_bytes();
    let text = "WITH due AS (
             SELECT account_id, message_id FROM delivered WHERE message_id < $1 ORDER BY message_id LIMIT $2
             FOR UPDATE SKIP LOCKED
         )
         DELETE FROM delivered d USING due WHERE d.account_id = due.account_id AND d.message_id = due.message_id";
    Ok(sql.execute(text, &[&oldest.as_slice(), &rows::limit(BATCH)]).await?)
}

/// A thread key `r` without emails, on rows of one account.
const IS_DEAD: &str = "
    NOT EXISTS (SELECT 1 FROM entry e WHERE e.account_id = r.account_id AND e.email_id = r.thread_id)
    AND NOT EXISTS (SELECT 1 FROM entry e WHERE e.account_id = r.account_id AND e.thread_id = r.thread_id
                    AND e.thread_id <> e.email_id)";

/// Looks at the next accounts; gives the last of them, unless they are the last of all, and those with dead keys.
async fn with_dead_threads(sql: &Session, after: i64) -> Result<(Option<i64>, Vec<i64>), StoreError> {
    let text = "SELECT account_id FROM account WHERE account_id > $1 ORDER BY account_id LIMIT $2";
    let next = sql.rows(text, &[&after, &rows::limit(ACCOUNTS)]).await?;
    let next: Vec<i64> = next.iter().map(|row| rows::signed(row, 0)).collect::<Result<_, _>>()?;
    let last = next.last().copied().filter(|_| next.len() == ACCOUNTS);
    let text =
        format!("SELECT DISTINCT account_id FROM thread_ref r WHERE account_id = ANY ($1::bigint[]) AND {IS_DEAD}");
    let found = sql.rows(&text, &[&next]).await?;
    Ok((last, found.iter().map(|row| rows::signed(row, 0)).collect::<Result<_, _>>()?))
}

/// Drops thread keys without emails.
async fn forget_threads(sql: &Session, account: i64) -> Result<(), StoreError> {
    // As every change of the account does: a delivery may be joining the thread.
    sql.rows("SELECT 1 FROM account WHERE account_id = $1 FOR UPDATE", &[&account]).await?;
    sql.execute(&format!("DELETE FROM thread_ref r WHERE account_id = $1 AND {IS_DEAD}"), &[&account]).await?;
    Ok(())
}
