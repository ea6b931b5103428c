//! The queue's tables.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::{AccountId, MessageId, UtcMillis};
use bytes::Bytes;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Result, Row, ToSql, params_from_iter};

use super::{Outcome, Refusal, SqliteStore, blobs, rows};
use crate::error::{AppendError, StoreError};
use crate::model::{
    Enqueued, Lane, LaneClaim, LaneLeft, LaneState, Needs, Notify, QueueAction, QueueCounts, QueueFilter, QueueItem,
    QueueJob, QueueRecipient, QueueState, Settled,
};
use crate::queue::{ACTION_STEP, COLD_AFTER, Dialect, NEW_LIFE, Param, WARM_FOR, check, clause, status};
use crate::traits::QueueStore;

const ITEM: &str = "i.message_id, i.variant, i.blob_id, i.size_bytes, i.prefix, i.sender, i.account_id, i.needs,
    i.envelope_id, i.subject, i.created_at";
const RECIPIENT: &str = "r.nth, r.address, r.original, r.notify, r.lane, r.priority, r.state, r.next_at, r.alarm_at,
    r.expires_at, r.attempts, r.last_at, r.last_status, r.last_host";
const FROM: &str = "FROM queue_recipient r JOIN queue_item i ON i.message_id = r.message_id AND i.variant = r.variant";

fn message_id(row: &Row<'_>, column: usize) -> Result<MessageId> {
    row.get(column).map(MessageId::from_bytes)
}

fn item(row: &Row<'_>) -> Result<QueueItem> {
    Ok(QueueItem {
        message: message_id(row, 0)?,
        variant: row.get(1)?,
        blob: rows::blob_id(row, 2)?,
        size_bytes: row.get(3)?,
        prefix: Bytes::from(row.get::<_, Vec<u8>>(4)?),
        sender: row.get(5)?,
        account: row.get::<_, Option<u64>>(6)?.map(AccountId),
        needs: Needs::from_bits(row.get(7)?),
        envelope_id: row.get(8)?,
        subject: row.get(9)?,
        created_at: UtcMillis(row.get(10)?),
    })
}

fn recipient(row: &Row<'_>, from: usize) -> Result<QueueRecipient> {
    let state = QueueState::from_raw(row.get(from + 6)?).ok_or_else(|| rows::unreadable(from + 6, "state"))?;
    Ok(QueueRecipient {
        nth: row.get(from)?,
        address: row.get(from + 1)?,
        original: row.get(from + 2)?,
        notify: Notify::from_bits(row.get(from + 3)?),
        lane: row.get::<_, String>(from + 4)?.into(),
        priority: row.get(from + 5)?,
        state,
        next_at: UtcMillis(row.get(from + 7)?),
        alarm_at: UtcMillis(row.get(from + 8)?),
        expires_at: UtcMillis(row.get(from + 9)?),
        attempts: row.get(from + 10)?,
        last_at: row.get::<_, Option<i64>>(from + 11)?.map(UtcMillis),
        last_status: row.get(from + 12)?,
        last_host: row.get(from + 13)?,
    })
}

/// Values for what is asked of one lane: its name, the time, the most rows.
fn of_lane(lane: &str, now: UtcMillis, limit: usize) -> [Value; 3] {
    [Value::Text(lane.to_owned()), Value::Integer(now.0), Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX))]
}

fn jobs(sql: &Connection, rest: &str, values: &[Value]) -> Result<Vec<QueueJob>> {
    let mut query = sql.prepare_cached(&format!("SELECT {ITEM}, {RECIPIENT} {FROM} {rest}"))?;
    let mut rows = query.query(params_from_iter(values))?;
    let mut out: Vec<QueueJob> = Vec::new();
    while let Some(row) = rows.next()? {
        let key = (message_id(row, 0)?, row.get::<_, u32>(1)?);
        let known = out.last().filter(|last| (last.item.message, last.item.variant) == key);
        let item = match known {
            Some(known) => Arc::clone(&known.item),
            None => Arc::new(item(row)?),
        };
        out.push(QueueJob { item, recipient: recipient(row, 11)? });
    }
    Ok(out)
}

/// Adds what is not there yet, and wakes its lanes.
fn enqueue(sql: &Connection, entries: &[Enqueued], now: UtcMillis) -> Outcome<()> {
    for entry in entries {
        let is_known = sql
            .prepare_cached("SELECT 1 FROM queue_item WHERE message_id = ?1 AND variant = ?2")?
            .exists((entry.item.message.to_bytes(), entry.item.variant))?;
        if is_known || entry.recipients.is_empty() {
            continue;
        }
        blobs::refuse_stale(sql, &entry.blob, now).map_err(|refusal| match refusal {
            Refusal::Because(AppendError::Store(error)) => Refusal::Because(error),
            Refusal::Because(_) => Refusal::Because(StoreError::Damaged { what: "a queued blob".to_owned() }),
            Refusal::Sql(error) => Refusal::Sql(error),
        })?;
        blobs::refer(sql, &entry.blob)?;
        insert_item(sql, &entry.item, entry.recipients.len())?;
        for recipient in &entry.recipients {
            insert_recipient(sql, entry.item.message, entry.item.variant, recipient)?;
            wake(sql, &recipient.lane, recipient.next_at.max(now), now)?;
        }
    }
    Ok(())
}

fn insert_item(sql: &Connection, item: &QueueItem, recipients: usize) -> Result<()> {
    sql.prepare_cached(
        "INSERT INTO queue_item (message_id, variant, blob_id, size_bytes, prefix, sender, account_id, needs,
             envelope_id, subject, created_at, recipients) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(rusqlite::params![
        item.message.to_bytes(),
        item.variant,
        item.blob.to_bytes(),
        item.size_bytes,
        item.prefix.as_ref(),
        item.sender,
        item.account.map(|account| account.0),
        item.needs.bits(),
        item.envelope_id,
        item.subject,
        item.created_at.0,
        recipients,
    ])
    .map(drop)
}

fn insert_recipient(sql: &Connection, message: MessageId, variant: u32, recipient: &QueueRecipient) -> Result<()> {
    sql.prepare_cached(
        "INSERT INTO queue_recipient (message_id, nth, variant, address, original, notify, lane, priority, state, next_at,
             alarm_at, expires_at, attempts, last_at, last_status, last_host)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
    )?
    .execute(rusqlite::params![
        message.to_bytes(),
        recipient.nth,
        variant,
        recipient.address,
        recipient.original,
        recipient.notify.bits(),
        &*recipient.lane,
        recipient.priority,
        recipient.state.raw(),
        recipient.next_at.0,
        recipient.alarm_at.0,
        recipient.expires_at.0,
        recipient.attempts,
        recipient.last_at.map(|at| at.0),
        recipient.last_status,
        recipient.last_host,
    ])
    .map(drop)
}

/// Has a lane looked at from `at` on. One that is held is looked at by its holder, one that waits for its server later.
fn wake(sql: &Connection, lane: &str, at: UtcMillis, now: UtcMillis) -> Result<()> {
    sql.prepare_cached(
        "INSERT INTO queue_lane (lane, due_at, holder, fence, failures, retry_at, is_suspended, reason, warm_at)
         VALUES (?1, ?2, '', 0, 0, 0, 0, '', 0)
         ON CONFLICT (lane) DO UPDATE SET due_at = excluded.due_at
             WHERE due_at > excluded.due_at AND holder = '' AND retry_at <= ?3",
    )?
    .execute((lane, at.0, now.0))
    .map(drop)
}

fn claim(sql: &Connection, holder: &str, lease: Duration, limit: usize, now: UtcMillis) -> Result<Vec<LaneClaim>> {
    let until = now.plus(lease);
    sql.prepare_cached(
        "UPDATE queue_lane SET holder = ?1, fence = fence + 1, due_at = ?2 WHERE lane IN
             (SELECT lane FROM queue_lane WHERE is_suspended = 0 AND due_at <= ?3 ORDER BY due_at LIMIT ?4)
         RETURNING lane, fence, failures, retry_at",
    )?
    .query_map((holder, until.0, now.0, limit), |row| {
        Ok(LaneClaim {
            lane: row.get::<_, String>(0)?.into(),
            fence: row.get(1)?,
            failures: row.get(2)?,
            retry_at: UtcMillis(row.get(3)?),
        })
    })?
    .collect()
}

fn keep(sql: &Connection, claims: &[LaneClaim], until: UtcMillis) -> Result<Vec<bool>> {
    let mut update = sql.prepare_cached(
        "UPDATE queue_lane SET due_at = ?3 WHERE lane = ?1 AND fence = ?2 AND holder <> '' AND is_suspended = 0",
    )?;
    claims.iter().map(|claim| update.execute((&*claim.lane, claim.fence, until.0)).map(|count| count > 0)).collect()
}

fn is_held(sql: &Connection, claim: &LaneClaim) -> Result<bool> {
    sql.prepare_cached("SELECT 1 FROM queue_lane WHERE lane = ?1 AND fence = ?2 AND holder <> ''")?
        .exists((&*claim.lane, claim.fence))
}

fn settle(sql: &Connection, settled: &[Settled], now: UtcMillis) -> Result<()> {
    for one in settled {
        match one {
            Settled::Done { message, nth } => remove(sql, *message, *nth, now)?,
            Settled::Kept { message, recipient } => {
                // Whoever set another state meanwhile had the last word.
                sql.prepare_cached(
                    "UPDATE queue_recipient SET next_at = ?3, alarm_at = ?4, attempts = ?5, last_at = ?6,
                         last_status = ?7, last_host = ?8
                     WHERE message_id = ?1 AND nth = ?2 AND state = 0",
                )?
                .execute(rusqlite::params![
                    message.to_bytes(),
                    recipient.nth,
                    recipient.next_at.0,
                    recipient.alarm_at.0,
                    recipient.attempts,
                    recipient.last_at.map(|at| at.0),
                    recipient.last_status,
                    recipient.last_host,
                ])?;
            }
        }
    }
    Ok(())
}

/// The last recipient takes the item along.
fn remove(sql: &Connection, message: MessageId, nth: u32, now: UtcMillis) -> Result<()> {
    let gone: Option<u32> = sql
        .prepare_cached("DELETE FROM queue_recipient WHERE message_id = ?1 AND nth = ?2 RETURNING variant")?
        .query_row((message.to_bytes(), nth), |row| row.get(0))
        .optional()?;
    let Some(variant) = gone else { return Ok(()) };
    let key = (message.to_bytes(), variant);
    let left = sql
        .prepare_cached(
            "UPDATE queue_item SET recipients = recipients - 1
             WHERE message_id = ?1 AND variant = ?2 AND recipients > 1",
        )?
        .execute(key)?;
    if left == 0 {
        let blob = sql
            .prepare_cached("DELETE FROM queue_item WHERE message_id = ?1 AND variant = ?2 RETURNING blob_id")?
            .query_row(key, |row| rows::blob_id(row, 0))
            .optional()?;
        if let Some(blob) = blob {
            blobs::release(sql, blob, now)?;
        }
    }
    Ok(())
}

fn leave(sql: &Connection, claim: &LaneClaim, left: &LaneLeft, now: UtcMillis) -> Result<()> {
    if !is_held(sql, claim)? {
        return Ok(());
    }
    let next: Option<i64> = sql
        .prepare_cached(
            "SELECT min(at) FROM (
                 SELECT min(alarm_at) AS at FROM queue_recipient WHERE lane = ?1 AND state = 0 UNION ALL
                 SELECT min(next_at) FROM queue_recipient WHERE lane = ?1 AND state = 2 UNION ALL
                 SELECT max(?2, min(at)) FROM (
                     SELECT (SELECT min(next_at) FROM queue_recipient r
                             WHERE r.lane = ?1 AND r.state = 0 AND r.priority = p.priority) AS at
                     FROM (SELECT DISTINCT priority FROM queue_recipient WHERE lane = ?1 AND state = 0) p
                 )
             )",
        )?
        .query_row((&*claim.lane, left.retry_at.0), |row| row.get(0))?;
    let warm_at = if left.is_warm { now.0 } else { 0 };
    let reason = status(&left.reason);
    sql.prepare_cached(
        "UPDATE queue_lane SET holder = '', failures = ?3, retry_at = ?4, reason = ?5, warm_at = max(warm_at, ?6),
             due_at = max(?7, CASE WHEN max(warm_at, ?6) > ?8 THEN min(?9, ?10) ELSE ?9 END)
         WHERE lane = ?1 AND fence = ?2",
    )?
    .execute(rusqlite::params![
        &*claim.lane,
        claim.fence,
        left.failures,
        left.retry_at.0,
        reason,
        warm_at,
        now.0 + 1,
        now.minus(WARM_FOR).0,
        next.unwrap_or(i64::MAX),
        if left.retry_at > now { i64::MAX } else { now.plus(COLD_AFTER).0 },
    ])
    .map(drop)
}

const DIALECT: Dialect = Dialect {
    mark: '?',
    ends: |text, end| format!("substr({text}, -length({end}))"),
    has: |text, part| format!("instr({text}, {part}) > 0"),
};

fn values(filter: &QueueFilter) -> (String, Vec<Value>) {
    let (clause, values) = clause(filter, &DIALECT);
    let values = values.into_iter().map(|value| match value {
        Param::Int(number) => Value::Integer(number),
        Param::Text(text) => Value::Text(text),
        Param::Bytes(bytes) => Value::Blob(bytes),
    });
    (clause, values.collect())
}

/// The end of a query that goes on after a key.
fn page(filter: &QueueFilter, after: Option<(MessageId, u32)>, limit: usize) -> (String, Vec<Value>) {
    let (clause, mut values) = values(filter);
    let (message, nth) = after.map_or(([0; 16], -1), |(message, nth)| (message.to_bytes(), i64::from(nth)));
    let at = values.len();
    values.push(Value::Blob(message.to_vec()));
    values.push(Value::Integer(nth));
    values.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
    let text = format!(
        "WHERE {clause} AND (r.message_id, r.nth) > (?{}, ?{}) ORDER BY r.message_id, r.nth LIMIT ?{}",
        at + 1,
        at + 2,
        at + 3
    );
    (text, values)
}

/// The next ones after this key that the filter means.
fn keys(
    sql: &Connection,
    filter: &QueueFilter,
    after: Option<(MessageId, u32)>,
    limit: usize,
) -> Result<Vec<(MessageId, u32, String)>> {
    let (rest, values) = page(filter, after, limit);
    sql.prepare_cached(&format!("SELECT r.message_id, r.nth, r.lane {FROM} {rest}"))?
        .query_map(params_from_iter(values), |row| Ok((message_id(row, 0)?, row.get(1)?, row.get(2)?)))?
        .collect()
}

/// Of somebody's word: tried from now on.
const ANEW: &str = "state = 0, next_at = ?3, alarm_at = max(alarm_at, ?4), expires_at = max(expires_at, ?4)";

fn act(sql: &Connection, key: &(MessageId, u32, String), action: &QueueAction, now: UtcMillis) -> Result<()> {
    let (message, nth, lane) = key;
    let id = message.to_bytes();
    let set = |what: &str, values: &[&dyn ToSql]| -> Result<usize> {
        let text = format!("UPDATE queue_recipient SET {what} WHERE message_id = ?1 AND nth = ?2");
        let all: Vec<&dyn ToSql> = [&id as &dyn ToSql, nth].into_iter().chain(values.iter().copied()).collect();
        sql.prepare_cached(&text)?.execute(&*all)
    };
    match action {
        QueueAction::Retry => {
            set(ANEW, &[&now.0, &now.plus(NEW_LIFE).0])?;
            hurry(sql, lane, now)
        }
        QueueAction::Hold(reason) => set("state = 1, last_status = ?3", &[&status(reason)]).map(drop),
        QueueAction::Release => {
            set(ANEW, &[&now.0, &now.plus(NEW_LIFE).0])?;
            wake(sql, lane, now, now)
        }
        QueueAction::Reroute(to) => {
            set("lane = ?3, next_at = ?4", &[&&**to, &now.0])?;
            wake(sql, to, now, now)
        }
        QueueAction::Return(reason) => {
            set("state = 2, next_at = ?4, last_status = ?3", &[&status(reason), &now.0])?;
            hurry(sql, lane, now)
        }
        QueueAction::Delete => remove(sql, *message, *nth, now),
    }
}

/// Has a lane looked at now, whatever is known of its server.
fn hurry(sql: &Connection, lane: &str, now: UtcMillis) -> Result<()> {
    wake(sql, lane, now, now)?;
    sql.prepare_cached("UPDATE queue_lane SET retry_at = 0, failures = 0 WHERE lane = ?1 AND retry_at > 0")?
        .execute([lane])?;
    sql.prepare_cached("UPDATE queue_lane SET due_at = ?2 WHERE lane = ?1 AND holder = '' AND due_at > ?2")?
        .execute((lane, now.0))
        .map(drop)
}

#[async_trait]
impl QueueStore for SqliteStore {
    async fn enqueue(&self, entries: Vec<Enqueued>) -> std::result::Result<(), StoreError> {
        let now = self.clock.utc();
        self.write(move |sql| enqueue(sql, &entries, now)).await
    }

    async fn claim_lanes(
        &self,
        holder: &str,
        lease: Duration,
        limit: usize,
    ) -> std::result::Result<Vec<LaneClaim>, StoreError> {
        let (holder, now) = (holder.to_owned(), self.clock.utc());
        let is_due = self
            .read(move |sql| {
                sql.prepare_cached("SELECT 1 FROM queue_lane WHERE is_suspended = 0 AND due_at <= ?1 LIMIT 1")?
                    .exists([now.0])
            })
            .await?;
        if !is_due {
            return Ok(Vec::new());
        }
        self.write_sql(move |sql| claim(sql, &holder, lease, limit, now)).await
    }

    async fn keep_lanes(&self, claims: Vec<LaneClaim>, lease: Duration) -> std::result::Result<Vec<bool>, StoreError> {
        let until = self.clock.utc().plus(lease);
        self.write_sql(move |sql| keep(sql, &claims, until)).await
    }

    async fn give_up_lanes(&self, holder: &str) -> std::result::Result<(), StoreError> {
        let (holder, now) = (holder.to_owned(), self.clock.utc());
        self.write_sql(move |sql| {
            sql.execute("UPDATE queue_lane SET holder = '', due_at = ?2 WHERE holder = ?1", (holder, now.0)).map(drop)
        })
        .await
    }

    async fn due(&self, lane: Lane, limit: usize) -> std::result::Result<Vec<QueueJob>, StoreError> {
        let now = self.clock.utc();
        self.read(move |sql| {
            let values = of_lane(&lane, now, limit);
            let rest = "WHERE r.lane = ?1 AND r.state = 0 AND r.next_at <= ?2
                ORDER BY r.priority, r.next_at, r.message_id, r.nth LIMIT ?3";
            jobs(sql, rest, &values)
        })
        .await
    }

    async fn alarms(&self, lane: Lane, limit: usize) -> std::result::Result<Vec<QueueJob>, StoreError> {
        let now = self.clock.utc();
        self.read(move |sql| {
            let values = of_lane(&lane, now, limit);
            let returning = "WHERE r.lane = ?1 AND r.state = 2 AND r.next_at <= ?2 ORDER BY r.next_at LIMIT ?3";
            let mut found = jobs(sql, returning, &values)?;
            let late = "WHERE r.lane = ?1 AND r.state = 0 AND r.alarm_at <= ?2 ORDER BY r.alarm_at LIMIT ?3";
            found.extend(jobs(sql, late, &values)?);
            found.truncate(limit);
            Ok(found)
        })
        .await
    }

    async fn settle(
        &self,
        claim: &LaneClaim,
        settled: Vec<Settled>,
        fresh: Vec<Enqueued>,
    ) -> std::result::Result<bool, StoreError> {
        let (claim, now) = (claim.clone(), self.clock.utc());
        self.write(move |sql| {
            if !is_held(sql, &claim)? {
                return Ok(false);
            }
            settle(sql, &settled, now)?;
            enqueue(sql, &fresh, now)?;
            Ok(true)
        })
        .await
    }

    async fn leave_lane(&self, claim: &LaneClaim, left: LaneLeft) -> std::result::Result<(), StoreError> {
        let (claim, now) = (claim.clone(), self.clock.utc());
        self.write_sql(move |sql| leave(sql, &claim, &left, now)).await
    }

    async fn queued(
        &self,
        filter: &QueueFilter,
        after: Option<(MessageId, u32)>,
        limit: usize,
    ) -> std::result::Result<Vec<QueueJob>, StoreError> {
        let filter = filter.clone();
        self.read(move |sql| {
            let (rest, values) = page(&filter, after, limit);
            jobs(sql, &rest, &values)
        })
        .await
    }

    async fn queue_counts(&self, filter: &QueueFilter) -> std::result::Result<QueueCounts, StoreError> {
        let (filter, now) = (filter.clone(), self.clock.utc());
        self.read(move |sql| {
            let (clause, mut values) = values(&filter);
            values.push(Value::Integer(now.0));
            let at = values.len();
            let from = if filter == QueueFilter::default() { "FROM queue_recipient r" } else { FROM };
            sql.prepare_cached(&format!(
                "SELECT count(*) FILTER (WHERE r.state = 0), count(*) FILTER (WHERE r.state = 0 AND r.next_at <= ?{at}),
                     count(*) FILTER (WHERE r.state = 1), count(*) FILTER (WHERE r.state = 2), min(r.message_id)
                 {from} WHERE {clause}"
            ))?
            .query_row(params_from_iter(values), |row| {
                let oldest: Option<[u8; 16]> = row.get(4)?;
                Ok(QueueCounts {
                    waiting: row.get(0)?,
                    due: row.get(1)?,
                    held: row.get(2)?,
                    returning: row.get(3)?,
                    oldest: oldest.map(|id| MessageId::from_bytes(id).made_at()),
                })
            })
        })
        .await
    }

    async fn queue_act(
        &self,
        filter: &QueueFilter,
        action: QueueAction,
        after: Option<(MessageId, u32)>,
    ) -> std::result::Result<(u64, Option<(MessageId, u32)>), StoreError> {
        check(&action)?;
        let (filter, now) = (filter.clone(), self.clock.utc());
        self.write_sql(move |sql| {
            let found = keys(sql, &filter, after, ACTION_STEP)?;
            for key in &found {
                act(sql, key, &action, now)?;
            }
            let last = found.last().filter(|_| found.len() == ACTION_STEP).map(|(message, nth, _)| (*message, *nth));
            Ok((found.len() as u64, last))
        })
        .await
    }

    async fn lanes(&self, after: Option<Lane>, limit: usize) -> std::result::Result<Vec<LaneState>, StoreError> {
        self.read(move |sql| {
            sql.prepare_cached(
                "SELECT lane, holder, failures, retry_at, is_suspended, reason,
                     (SELECT count(*) FROM queue_recipient r WHERE r.lane = l.lane)
                 FROM queue_lane l WHERE lane > ?1 ORDER BY lane LIMIT ?2",
            )?
            .query_map((after.as_deref().unwrap_or(""), limit), |row| {
                Ok(LaneState {
                    lane: row.get::<_, String>(0)?.into(),
                    holder: row.get(1)?,
                    failures: row.get(2)?,
                    retry_at: UtcMillis(row.get(3)?),
                    is_suspended: row.get(4)?,
                    reason: row.get(5)?,
                    recipients: row.get(6)?,
                })
            })?
            .collect()
        })
        .await
    }

    async fn suspend_lane(&self, lane: &Lane, reason: Option<String>) -> std::result::Result<(), StoreError> {
        let (lane, now) = (lane.clone(), self.clock.utc());
        self.write_sql(move |sql| {
            wake(sql, &lane, now, now)?;
            sql.execute(
                "UPDATE queue_lane SET is_suspended = ?2, reason = ?3, retry_at = 0, failures = 0,
                     due_at = CASE WHEN holder = '' THEN ?4 ELSE due_at END
                 WHERE lane = ?1",
                (&*lane, reason.is_some(), status(&reason.unwrap_or_default()), now.0),
            )
            .map(drop)
        })
        .await
    }

    async fn tidy_lanes(&self, before: UtcMillis) -> std::result::Result<usize, StoreError> {
        self.write_sql(move |sql| {
            sql.execute(
                "DELETE FROM queue_lane WHERE holder = '' AND is_suspended = 0 AND warm_at < ?1
                     AND NOT EXISTS (SELECT 1 FROM queue_recipient r WHERE r.lane = queue_lane.lane)",
                [before.0],
            )
        })
        .await
    }
}
