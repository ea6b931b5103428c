//! The queue's tables on the server, which all nodes share.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::{AccountId, MessageId, UtcMillis};
use engine::postgres::{Params, Row, Session};

use tokio_postgres::types::ToSql;

use super::PgStore;
use super::rows::{self, value};
use crate::error::StoreError;
use crate::model::{
    Enqueued, Lane, LaneClaim, LaneLeft, LaneState, Needs, Notify, QueueAction, QueueCounts, QueueFilter, QueueItem,
    QueueJob, QueueRecipient, QueueState, Settled,
};
use crate::queue::{ACTION_STEP, COLD_AFTER, Dialect, NEW_LIFE, Param, WARM_FOR, check, clause, status};
use crate::traits::QueueStore;

type Result<T> = std::result::Result<T, StoreError>;

const ITEM: &str = "i.message_id, i.variant, i.blob_id, i.size_bytes, i.prefix, i.sender, i.account_id, i.needs,
    i.envelope_id, i.subject, i.created_at";
const RECIPIENT: &str = "r.nth, r.address, r.original, r.notify, r.lane, r.priority, r.state, r.next_at, r.alarm_at,
    r.expires_at, r.attempts, r.last_at, r.last_status, r.last_host";
const FROM: &str = "FROM queue_recipient r JOIN queue_item i ON i.message_id = r.message_id AND i.variant = r.variant";

const DIALECT: Dialect = Dialect {
    mark: '$',
    ends: |text, end| format!("right({text}, length({end}))"),
    has: |text, part| format!("strpos({text}, {part}) > 0"),
};

fn message_id(row: &Row, column: usize) -> Result<MessageId> {
    let raw = value::<&[u8]>(row, column)?.try_into().map_err(|_| rows::unreadable("message id"))?;
    Ok(MessageId::from_bytes(raw))
}

fn time(row: &Row, column: usize) -> Result<UtcMillis> {
    rows::signed(row, column).map(UtcMillis)
}

fn item(row: &Row) -> Result<QueueItem> {
    Ok(QueueItem {
        message: message_id(row, 0)?,
        variant: rows::small(row, 1)?,
        blob: rows::blob_id(row, 2)?,
        size_bytes: rows::int(row, 3)?,
        prefix: rows::bytes(row, 4)?,
        sender: value(row, 5)?,
        account: value::<Option<i64>>(row, 6)?.map(|_| rows::int(row, 6).map(AccountId)).transpose()?,
        needs: Needs::from_bits(rows::signed(row, 7)?),
        envelope_id: value(row, 8)?,
        subject: value(row, 9)?,
        created_at: time(row, 10)?,
    })
}

fn recipient(row: &Row, from: usize) -> Result<QueueRecipient> {
    let state =
        QueueState::from_raw(rows::signed(row, from + 6)?).ok_or_else(|| rows::unreadable("a queue's state"))?;
    let priority = u8::try_from(rows::signed(row, from + 5)?).map_err(|_| rows::unreadable("a priority"))?;
    Ok(QueueRecipient {
        nth: rows::small(row, from)?,
        address: value(row, from + 1)?,
        original: value(row, from + 2)?,
        notify: Notify::from_bits(rows::signed(row, from + 3)?),
        lane: value::<&str>(row, from + 4)?.into(),
        priority,
        state,
        next_at: time(row, from + 7)?,
        alarm_at: time(row, from + 8)?,
        expires_at: time(row, from + 9)?,
        attempts: rows::small(row, from + 10)?,
        last_at: value::<Option<i64>>(row, from + 11)?.map(UtcMillis),
        last_status: value(row, from + 12)?,
        last_host: value(row, from + 13)?,
    })
}

fn jobs(found: &[Row]) -> Result<Vec<QueueJob>> {
    let mut out: Vec<QueueJob> = Vec::with_capacity(found.len());
    for row in found {
        let key = (message_id(row, 0)?, rows::small(row, 1)?);
        let known = out.last().filter(|last| (last.item.message, last.item.variant) == key);
        let item = match known {
            Some(known) => Arc::clone(&known.item),
            None => Arc::new(item(row)?),
        };
        out.push(QueueJob { item, recipient: recipient(row, 11)? });
    }
    Ok(out)
}

/// Adds one item with its recipients, if it is not there yet: one statement. Lanes that exist are left alone by it, so that
/// many nodes put mail into one at the same time.
async fn enqueue_one(sql: &Session, entry: &Enqueued) -> Result<()> {
    let text = "WITH fresh AS (
            INSERT INTO queue_item (message_id, variant, blob_id, size_bytes, prefix, sender, account_id, needs, envelope_id,
                subject, created_at, recipients)
            SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 ON CONFLICT DO NOTHING RETURNING message_id
        ), lanes AS (
            INSERT INTO queue_lane (lane, due_at, holder, fence, leased_until, failures, retry_at, is_suspended, reason,
                warm_at)
            SELECT DISTINCT n.lane, 0, '', 0, '-infinity'::timestamptz, 0, 0, false, '', 0 FROM unnest($17::text[]) AS n (lane)
            WHERE NOT EXISTS (SELECT 1 FROM queue_lane l WHERE l.lane = n.lane) ON CONFLICT DO NOTHING
        )
        INSERT INTO queue_recipient (message_id, nth, variant, address, original, notify, lane, priority, state, next_at,
            alarm_at, expires_at, attempts, last_at, last_status, last_host)
        SELECT fresh.message_id, n.nth, $2, n.address, n.original, n.notify, n.lane, n.priority, n.state, n.next_at,
            n.alarm_at, n.expires_at, n.attempts, n.last_at, n.last_status, n.last_host
        FROM fresh, unnest($13::bigint[], $14::text[], $15::text[], $16::bigint[], $17::text[], $18::bigint[], $19::bigint[],
            $20::bigint[], $21::bigint[], $22::bigint[], $23::bigint[], $24::bigint[], $25::text[], $26::text[])
            AS n (nth, address, original, notify, lane, priority, state, next_at, alarm_at, expires_at, attempts, last_at,
                last_status, last_host)";
    let Enqueued { item, recipients, .. } = entry;
    let each = |of: fn(&QueueRecipient) -> i64| -> Vec<i64> { recipients.iter().map(of).collect() };
    let texts = |of: fn(&QueueRecipient) -> &str| -> Vec<&str> { recipients.iter().map(of).collect() };
    let original: Vec<Option<&str>> = recipients.iter().map(|one| one.original.as_deref()).collect();
    let last_at: Vec<Option<i64>> = recipients.iter().map(|one| one.last_at.map(|at| at.0)).collect();
    let (message, blob) = (item.message.to_bytes(), item.blob.to_bytes());
    let count = i64::try_from(recipients.len()).unwrap_or(i64::MAX);
    let params: Params<'_> = &[
        &message.as_slice(),
        &i64::from(item.variant),
        &blob.as_slice(),
        &rows::param(item.size_bytes),
        &item.prefix.as_ref(),
        &item.sender,
        &item.account.map(|account| rows::param(account.0)),
        &item.needs.bits(),
        &item.envelope_id,
        &item.subject,
        &item.created_at.0,
        &count,
        &each(|one| i64::from(one.nth)),
        &texts(|one| &one.address),
        &original,
        &each(|one| one.notify.bits()),
        &texts(|one| &one.lane),
        &each(|one| i64::from(one.priority)),
        &each(|one| one.state.raw()),
        &each(|one| one.next_at.0),
        &each(|one| one.alarm_at.0),
        &each(|one| one.expires_at.0),
        &each(|one| i64::from(one.attempts)),
        &last_at,
        &texts(|one| &one.last_status),
        &texts(|one| &one.last_host),
    ];
    sql.execute(text, params).await.map(drop).map_err(|error| match error.to_string() {
        text if text.contains("(23503)") => super::unavailable("the content was put too long ago, put it again"),
        _ => error.into(),
    })
}

/// Has lanes looked at from `at` on. Only those that sleep are changed: a lane that is due, held, or waits for its server
/// is left alone.
async fn wake(sql: &Session, lanes: &[(Lane, UtcMillis)], now: UtcMillis) -> Result<()> {
    if lanes.is_empty() {
        return Ok(());
    }
    // In one order, so that no two wait for each other.
    let mut sorted: Vec<&(Lane, UtcMillis)> = lanes.iter().collect();
    sorted.sort();
    let names: Vec<&str> = sorted.iter().map(|(lane, _)| &**lane).collect();
    let times: Vec<i64> = sorted.iter().map(|(_, at)| at.0).collect();
    let text = "UPDATE queue_lane l SET due_at = n.at
         FROM (SELECT lane, min(at) AS at FROM unnest($1::text[], $2::bigint[]) AS u (lane, at) GROUP BY lane) n
         WHERE l.lane = n.lane AND l.due_at > n.at AND l.holder = '' AND l.retry_at <= $3";
    sql.execute(text, &[&names, &times, &now.0]).await?;
    Ok(())
}

async fn enqueue(sql: &Session, entries: &[Enqueued], now: UtcMillis) -> Result<()> {
    let mut lanes = Vec::new();
    for entry in entries.iter().filter(|entry| !entry.recipients.is_empty()) {
        enqueue_one(sql, entry).await?;
        lanes.extend(entry.recipients.iter().map(|one| (one.lane.clone(), one.next_at.max(now))));
    }
    wake(sql, &lanes, now).await
}

async fn make_lane(sql: &Session, lane: &str) -> Result<()> {
    let text =
        "INSERT INTO queue_lane (lane, due_at, holder, fence, leased_until, failures, retry_at, is_suspended, reason,
             warm_at)
         SELECT $1, 0, '', 0, '-infinity'::timestamptz, 0, 0, false, '', 0 ON CONFLICT DO NOTHING";
    sql.execute(text, &[&lane]).await?;
    Ok(())
}

/// True while the lane is held as claimed: until the transaction ends it stays so.
async fn is_held(sql: &Session, claim: &LaneClaim) -> Result<bool> {
    let text = "SELECT 1 FROM queue_lane WHERE lane = $1 AND fence = $2 AND holder <> '' FOR SHARE";
    Ok(sql.row_opt(text, &[&&*claim.lane, &claim.fence]).await?.is_some())
}

async fn settle(sql: &Session, settled: &[Settled], now: UtcMillis) -> Result<()> {
    let mut done: Vec<(MessageId, u32)> = Vec::new();
    let mut kept: Vec<(MessageId, &QueueRecipient)> = Vec::new();
    for one in settled {
        match one {
            Settled::Done { message, nth } => done.push((*message, *nth)),
            Settled::Kept { message, recipient } => kept.push((*message, recipient)),
        }
    }
    remove(sql, &done, now).await?;
    if kept.is_empty() {
        return Ok(());
    }
    let ids: Vec<[u8; 16]> = kept.iter().map(|(message, _)| message.to_bytes()).collect();
    let ids: Vec<&[u8]> = ids.iter().map(<[u8; 16]>::as_slice).collect();
    let each = |of: fn(&QueueRecipient) -> i64| -> Vec<i64> { kept.iter().map(|(_, one)| of(one)).collect() };
    let last_at: Vec<Option<i64>> = kept.iter().map(|(_, one)| one.last_at.map(|at| at.0)).collect();
    let statuses: Vec<String> = kept.iter().map(|(_, one)| status(&one.last_status)).collect();
    let hosts: Vec<String> = kept.iter().map(|(_, one)| status(&one.last_host)).collect();
    let text = "UPDATE queue_recipient r SET next_at = n.next_at, alarm_at = n.alarm_at, attempts = n.attempts,
             last_at = n.last_at, last_status = n.last_status, last_host = n.last_host
         FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[],
             $8::text[]) AS n (message_id, nth, next_at, alarm_at, attempts, last_at, last_status, last_host)
         WHERE r.message_id = n.message_id AND r.nth = n.nth AND r.state = 0";
    let params: Params<'_> = &[
        &ids,
        &each(|one| i64::from(one.nth)),
        &each(|one| one.next_at.0),
        &each(|one| one.alarm_at.0),
        &each(|one| i64::from(one.attempts)),
        &last_at,
        &statuses,
        &hosts,
    ];
    sql.execute(text, params).await?;
    Ok(())
}

/// The last recipient takes the item along. Items are counted under their row's lock: two nodes that each remove one of the
/// last two see each other.
async fn remove(sql: &Session, keys: &[(MessageId, u32)], now: UtcMillis) -> Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    let ids: Vec<[u8; 16]> = keys.iter().map(|(message, _)| message.to_bytes()).collect();
    let ids: Vec<&[u8]> = ids.iter().map(<[u8; 16]>::as_slice).collect();
    let numbers: Vec<i64> = keys.iter().map(|(_, nth)| i64::from(*nth)).collect();
    let text = "WITH gone AS (
             DELETE FROM queue_recipient r USING unnest($1::bytea[], $2::bigint[]) AS n (message_id, nth)
             WHERE r.message_id = n.message_id AND r.nth = n.nth RETURNING r.message_id, r.variant
         ), counted AS (
             SELECT message_id, variant, count(*) AS n FROM gone GROUP BY message_id, variant ORDER BY message_id, variant
         )
         UPDATE queue_item i SET recipients = i.recipients - c.n FROM counted c
         WHERE i.message_id = c.message_id AND i.variant = c.variant RETURNING i.message_id, i.variant, i.recipients";
    let changed = sql.rows(text, &[&ids, &numbers]).await?;
    let mut ended: (Vec<&[u8]>, Vec<i64>) = Default::default();
    for row in &changed {
        if rows::signed(row, 2)? <= 0 {
            ended.0.push(value(row, 0)?);
            ended.1.push(rows::signed(row, 1)?);
        }
    }
    if ended.0.is_empty() {
        return Ok(());
    }
    let text = "WITH gone AS (
             DELETE FROM queue_item i USING unnest($1::bytea[], $2::bigint[]) AS n (message_id, variant)
             WHERE i.message_id = n.message_id AND i.variant = n.variant RETURNING i.blob_id
         )
         INSERT INTO blob_release (released_at, blob_id) SELECT DISTINCT $3::bigint, blob_id FROM gone ON CONFLICT DO NOTHING";
    sql.execute(text, &[&ended.0, &ended.1, &now.0]).await?;
    Ok(())
}

async fn leave(sql: &Session, claim: &LaneClaim, left: &LaneLeft, now: UtcMillis) -> Result<()> {
    let text = "UPDATE queue_lane SET holder = '', leased_until = '-infinity', failures = $3, retry_at = $4, reason = $5,
             warm_at = greatest(warm_at, $6::bigint),
             due_at = greatest($7::bigint, CASE WHEN greatest(warm_at, $6) > $8 THEN least(n.at, $9::bigint) ELSE n.at END)
         FROM (SELECT coalesce(min(at), 9223372036854775807) AS at FROM (
                 SELECT min(alarm_at) AS at FROM queue_recipient WHERE lane = $1 AND state = 0 UNION ALL
                 SELECT min(next_at) FROM queue_recipient WHERE lane = $1 AND state = 2 UNION ALL
                 SELECT greatest($4, min(of.at)) FROM generate_series(0, 9) AS p (priority), LATERAL (
                     SELECT min(next_at) AS at FROM queue_recipient r
                     WHERE r.lane = $1 AND r.state = 0 AND r.priority = p.priority) of HAVING min(of.at) IS NOT NULL
             ) t) n
         WHERE lane = $1 AND fence = $2 AND holder <> ''";
    let warm_at = if left.is_warm { now.0 } else { 0 };
    let soon = if left.retry_at > now { i64::MAX } else { now.plus(COLD_AFTER).0 };
    let params: Params<'_> = &[
        &&*claim.lane,
        &claim.fence,
        &i64::from(left.failures),
        &left.retry_at.0,
        &status(&left.reason),
        &warm_at,
        &(now.0 + 1),
        &now.minus(WARM_FOR).0,
        &soon,
    ];
    sql.execute(text, params).await?;
    Ok(())
}

/// A condition with its values, boxed for a statement.
fn values(filter: &QueueFilter) -> (String, Vec<Box<dyn ToSql + Sync + Send>>) {
    let (clause, values) = clause(filter, &DIALECT);
    let values = values.into_iter().map(|value| -> Box<dyn ToSql + Sync + Send> {
        match value {
            Param::Int(number) => Box::new(number),
            Param::Text(text) => Box::new(text),
            Param::Bytes(bytes) => Box::new(bytes),
        }
    });
    (clause, values.collect())
}

fn borrowed(values: &[Box<dyn ToSql + Sync + Send>]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect()
}

/// Rows of a query that goes on after a key.
async fn page(
    sql: &Session,
    columns: &str,
    filter: &QueueFilter,
    after: Option<(MessageId, u32)>,
    limit: usize,
) -> Result<Vec<Row>> {
    let (clause, mut values) = values(filter);
    let (message, nth) = after.map_or(([0; 16], -1), |(message, nth)| (message.to_bytes(), i64::from(nth)));
    let at = values.len();
    values.push(Box::new(message.to_vec()));
    values.push(Box::new(nth));
    values.push(Box::new(rows::limit(limit)));
    let text = format!(
        "SELECT {columns} {FROM} WHERE {clause} AND (r.message_id, r.nth) > (${}, ${}) ORDER BY r.message_id, r.nth LIMIT ${}",
        at + 1,
        at + 2,
        at + 3
    );
    Ok(sql.rows(&text, &borrowed(&values)).await?)
}

/// Of somebody's word: tried from now on.
const ANEW: &str = "state = 0, next_at = $3, alarm_at = greatest(alarm_at, $4), expires_at = greatest(expires_at, $4)";

async fn act(sql: &Session, keys: &[(MessageId, u32, String)], action: &QueueAction, now: UtcMillis) -> Result<()> {
    let ids: Vec<[u8; 16]> = keys.iter().map(|(message, ..)| message.to_bytes()).collect();
    let ids: Vec<&[u8]> = ids.iter().map(<[u8; 16]>::as_slice).collect();
    let numbers: Vec<i64> = keys.iter().map(|(_, nth, _)| i64::from(*nth)).collect();
    let lanes: BTreeSet<&str> = keys.iter().map(|(.., lane)| lane.as_str()).collect();
    let set = |what: &str| {
        format!(
            "UPDATE queue_recipient r SET {what} FROM unnest($1::bytea[], $2::bigint[]) AS n (message_id, nth)
             WHERE r.message_id = n.message_id AND r.nth = n.nth"
        )
    };
    let later = now.plus(NEW_LIFE).0;
    let sleeping: Vec<(Lane, UtcMillis)> = lanes.iter().map(|lane| (Lane::from(*lane), now)).collect();
    match action {
        QueueAction::Retry => {
            sql.execute(&set(ANEW), &[&ids, &numbers, &now.0, &later]).await?;
            hurry(sql, &lanes, now).await
        }
        QueueAction::Hold(reason) => {
            sql.execute(&set("state = 1, last_status = $3"), &[&ids, &numbers, &status(reason)]).await?;
            Ok(())
        }
        QueueAction::Release => {
            sql.execute(&set(ANEW), &[&ids, &numbers, &now.0, &later]).await?;
            wake(sql, &sleeping, now).await
        }
        QueueAction::Reroute(to) => {
            sql.execute(&set("lane = $3, next_at = $4"), &[&ids, &numbers, &&**to, &now.0]).await?;
            make_lane(sql, to).await?;
            wake(sql, &[(to.clone(), now)], now).await
        }
        QueueAction::Return(reason) => {
            let text = set("state = 2, next_at = $4, last_status = $3");
            sql.execute(&text, &[&ids, &numbers, &status(reason), &now.0]).await?;
            hurry(sql, &lanes, now).await
        }
        QueueAction::Delete => {
            let keys: Vec<(MessageId, u32)> = keys.iter().map(|(message, nth, _)| (*message, *nth)).collect();
            remove(sql, &keys, now).await
        }
    }
}

/// Has lanes looked at now, whatever is known of their servers.
async fn hurry(sql: &Session, lanes: &BTreeSet<&str>, now: UtcMillis) -> Result<()> {
    let names: Vec<&str> = lanes.iter().copied().collect();
    let text = "UPDATE queue_lane SET retry_at = 0, failures = 0,
             due_at = CASE WHEN holder = '' THEN least(due_at, $2) ELSE due_at END
         WHERE lane = ANY ($1::text[])";
    sql.execute(text, &[&names, &now.0]).await?;
    Ok(())
}

#[async_trait]
impl QueueStore for PgStore {
    async fn enqueue(&self, entries: Vec<Enqueued>) -> Result<()> {
        let now = self.clock.utc();
        let sql = self.pool.begin(false).await?;
        let done = enqueue(&sql, &entries, now).await;
        sql.end(done).await
    }

    async fn claim_lanes(&self, holder: &str, lease: Duration, limit: usize) -> Result<Vec<LaneClaim>> {
        let now = self.clock.utc();
        let text = "WITH due AS (
                 SELECT lane FROM queue_lane WHERE NOT is_suspended AND due_at <= $2 AND leased_until < clock_timestamp()
                 ORDER BY due_at LIMIT $4 FOR UPDATE SKIP LOCKED
             )
             UPDATE queue_lane l SET holder = $1, fence = l.fence + 1, due_at = $3,
                 leased_until = clock_timestamp() + $5 * interval '1 second'
             FROM due WHERE l.lane = due.lane RETURNING l.lane, l.fence, l.failures, l.retry_at";
        let until = now.plus(lease);
        let params: Params<'_> = &[&holder, &now.0, &until.0, &rows::limit(limit), &lease.as_secs_f64()];
        let found = self.pool.query_once(text, params).await?;
        let read = |row: &Row| {
            Ok(LaneClaim {
                lane: value::<&str>(row, 0)?.into(),
                fence: rows::signed(row, 1)?,
                failures: rows::small(row, 2)?,
                retry_at: time(row, 3)?,
            })
        };
        found.iter().map(read).collect()
    }

    async fn keep_lanes(&self, claims: Vec<LaneClaim>, lease: Duration) -> Result<Vec<bool>> {
        let until = self.clock.utc().plus(lease);
        let lanes: Vec<&str> = claims.iter().map(|claim| &*claim.lane).collect();
        let fences: Vec<i64> = claims.iter().map(|claim| claim.fence).collect();
        let text = "UPDATE queue_lane l SET due_at = $3, leased_until = clock_timestamp() + $4 * interval '1 second'
             FROM unnest($1::text[], $2::bigint[]) AS n (lane, fence)
             WHERE l.lane = n.lane AND l.fence = n.fence AND l.holder <> '' AND NOT l.is_suspended RETURNING l.lane, l.fence";
        let found = self.pool.query_once(text, &[&lanes, &fences, &until.0, &lease.as_secs_f64()]).await?;
        let read = |row| Ok((value::<&str>(row, 0)?, rows::signed(row, 1)?));
        let kept: BTreeSet<(&str, i64)> = found.iter().map(read).collect::<Result<_>>()?;
        Ok(lanes.iter().zip(&fences).map(|(lane, fence)| kept.contains(&(*lane, *fence))).collect())
    }

    async fn give_up_lanes(&self, holder: &str) -> Result<()> {
        let text = "UPDATE queue_lane SET holder = '', leased_until = '-infinity', due_at = least(due_at, $2)
             WHERE holder = $1";
        self.pool.query_once(text, &[&holder, &self.clock.utc().0]).await?;
        Ok(())
    }

    async fn due(&self, lane: Lane, limit: usize) -> Result<Vec<QueueJob>> {
        let text = format!(
            "SELECT {ITEM}, {RECIPIENT} {FROM} WHERE r.lane = $1 AND r.state = 0 AND r.next_at <= $2
             ORDER BY r.priority, r.next_at, r.message_id, r.nth LIMIT $3"
        );
        jobs(&self.pool.query(&text, &[&&*lane, &self.clock.utc().0, &rows::limit(limit)]).await?)
    }

    async fn alarms(&self, lane: Lane, limit: usize) -> Result<Vec<QueueJob>> {
        let (now, limit) = (self.clock.utc().0, rows::limit(limit));
        let text = format!(
            "(SELECT {ITEM}, {RECIPIENT} {FROM} WHERE r.lane = $1 AND r.state = 2 AND r.next_at <= $2
              ORDER BY r.next_at LIMIT $3)
             UNION ALL
             (SELECT {ITEM}, {RECIPIENT} {FROM} WHERE r.lane = $1 AND r.state = 0 AND r.alarm_at <= $2
              ORDER BY r.alarm_at LIMIT $3)
             LIMIT $3"
        );
        jobs(&self.pool.query(&text, &[&&*lane, &now, &limit]).await?)
    }

    async fn settle(&self, claim: &LaneClaim, settled: Vec<Settled>, fresh: Vec<Enqueued>) -> Result<bool> {
        let now = self.clock.utc();
        let sql = self.pool.begin(false).await?;
        let done = async {
            if !is_held(&sql, claim).await? {
                return Ok(false);
            }
            settle(&sql, &settled, now).await?;
            enqueue(&sql, &fresh, now).await?;
            Ok(true)
        };
        let done = done.await;
        sql.end(done).await
    }

    async fn leave_lane(&self, claim: &LaneClaim, left: LaneLeft) -> Result<()> {
        let sql = self.pool.session().await?;
        leave(&sql, claim, &left, self.clock.utc()).await?;
        sql.give_back();
        Ok(())
    }

    async fn queued(
        &self,
        filter: &QueueFilter,
        after: Option<(MessageId, u32)>,
        limit: usize,
    ) -> Result<Vec<QueueJob>> {
        let sql = self.pool.session().await?;
        let found = page(&sql, &format!("{ITEM}, {RECIPIENT}"), filter, after, limit).await?;
        sql.give_back();
        jobs(&found)
    }

    async fn queue_counts(&self, filter: &QueueFilter) -> Result<QueueCounts> {
        let (clause, mut values) = values(filter);
        values.push(Box::new(self.clock.utc().0));
        let at = values.len();
        let from = if *filter == QueueFilter::default() { "FROM queue_recipient r" } else { FROM };
        let text = format!(
            "SELECT count(*) FILTER (WHERE r.state = 0), count(*) FILTER (WHERE r.state = 0 AND r.next_at <= ${at}),
                 count(*) FILTER (WHERE r.state = 1), count(*) FILTER (WHERE r.state = 2),
                 (SELECT r.message_id {from} WHERE {clause} ORDER BY r.message_id LIMIT 1)
             {from} WHERE {clause}"
        );
        let found = self.pool.query(&text, &borrowed(&values)).await?;
        let row = found.first().ok_or_else(|| rows::unreadable("no counts"))?;
        let oldest = value::<Option<&[u8]>>(row, 4)?.map(|_| message_id(row, 4)).transpose()?;
        Ok(QueueCounts {
            waiting: rows::int(row, 0)?,
            due: rows::int(row, 1)?,
            held: rows::int(row, 2)?,
            returning: rows::int(row, 3)?,
            oldest: oldest.map(MessageId::made_at),
        })
    }

    async fn queue_act(
        &self,
        filter: &QueueFilter,
        action: QueueAction,
        after: Option<(MessageId, u32)>,
    ) -> Result<(u64, Option<(MessageId, u32)>)> {
        check(&action)?;
        let now = self.clock.utc();
        let sql = self.pool.begin(false).await?;
        let done = async {
            let found = page(&sql, "r.message_id, r.nth, r.lane", filter, after, ACTION_STEP).await?;
            let keys = found
                .iter()
                .map(|row| Ok((message_id(row, 0)?, rows::small(row, 1)?, value::<String>(row, 2)?)))
                .collect::<Result<Vec<_>>>()?;
            if !keys.is_empty() {
                act(&sql, &keys, &action, now).await?;
            }
            let last = keys.last().filter(|_| keys.len() == ACTION_STEP).map(|(message, nth, _)| (*message, *nth));
            Ok((keys.len() as u64, last))
        };
        let done = done.await;
        sql.end(done).await
    }

    async fn lanes(&self, after: Option<Lane>, limit: usize) -> Result<Vec<LaneState>> {
        let text = "SELECT lane, holder, failures, retry_at, is_suspended, reason,
                 (SELECT count(*) FROM queue_recipient r WHERE r.lane = l.lane)
             FROM queue_lane l WHERE lane > $1 ORDER BY lane LIMIT $2";
        let found = self.pool.query(text, &[&after.as_deref().unwrap_or(""), &rows::limit(limit)]).await?;
        let read = |row: &Row| {
            Ok(LaneState {
                lane: value::<&str>(row, 0)?.into(),
                holder: value(row, 1)?,
                failures: rows::small(row, 2)?,
                retry_at: time(row, 3)?,
                is_suspended: value(row, 4)?,
                reason: value(row, 5)?,
                recipients: rows::int(row, 6)?,
            })
        };
        found.iter().map(read).collect()
    }

    async fn suspend_lane(&self, lane: &Lane, reason: Option<String>) -> Result<()> {
        let sql = self.pool.begin(false).await?;
        let done = async {
            make_lane(&sql, lane).await?;
            let text = "UPDATE queue_lane SET is_suspended = $2, reason = $3, retry_at = 0, failures = 0,
                     due_at = CASE WHEN holder = '' THEN $4 ELSE due_at END
                 WHERE lane = $1";
            let (is_suspended, reason) = (reason.is_some(), status(&reason.unwrap_or_default()));
            sql.execute(text, &[&&**lane, &is_suspended, &reason, &self.clock.utc().0]).await?;
            Ok(())
        };
        let done = done.await;
        sql.end(done).await
    }

    async fn tidy_lanes(&self, before: UtcMillis) -> Result<usize> {
        let sql = self.pool.begin(false).await?;
        let done = async {
            let text = "DELETE FROM queue_lane l WHERE holder = '' AND NOT is_suspended AND warm_at < $1
                 AND NOT EXISTS (SELECT 1 FROM queue_recipient r WHERE r.lane = l.lane)";
            let gone = sql.execute(text, &[&before.0]).await?;
            // What was put into one in the very moment it went.
            let text =
                "INSERT INTO queue_lane (lane, due_at, holder, fence, leased_until, failures, retry_at, is_suspended,
                     reason, warm_at)
                 SELECT DISTINCT r.lane, 0, '', 0, '-infinity'::timestamptz, 0, 0, false, '', 0 FROM queue_recipient r
                 WHERE NOT EXISTS (SELECT 1 FROM queue_lane l WHERE l.lane = r.lane) ON CONFLICT DO NOTHING";
            sql.execute(text, &[]).await?;
            Ok(usize::try_from(gone).unwrap_or(usize::MAX))
        };
        let done = done.await;
        sql.end(done).await
    }
}
