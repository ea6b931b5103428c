//! Days come and go as whole partitions.

use std::collections::BTreeSet;

use base::{MessageId, UtcMillis};
use engine::EngineError;
use engine::postgres::{Pool, Session, value};
use jiff::ToSpan as _;
use jiff::civil::{Date, date};

use super::Partitions;

/// Tables in day partitions; a partition is named after its table and day.
const TABLES: [&str; 4] = ["trail_event", "trail_message", "trail_party", "trail_minute"];
/// Partitions are there so many days before they are needed.
const AHEAD: i64 = 7;
/// "trail": one node at a time makes or drops days.
const MAKING: i64 = 0x0074_7261_696c;
const DROPPING: i64 = MAKING + 1;

const DAY_MILLIS: i64 = 86_400_000;

/// Days since 1970 in UTC.
pub(super) fn number_of(day: Date) -> i64 {
    day.duration_since(date(1970, 1, 1)).as_hours().div_euclid(24)
}

/// Today and the days for which partitions are made ahead.
pub(super) fn days_ahead(today: Date) -> Vec<Date> {
    (0..=AHEAD).filter_map(|days| today.checked_add(days.days()).ok()).collect()
}

impl Partitions {
    /// Makes what is missing of the days' partitions.
    pub(super) async fn make_days(&self, mut days: Vec<Date>) -> Result<(), EngineError> {
        {
            let known = self.days.lock();
            days.retain(|day| !known.contains(day));
        }
        if days.is_empty() {
            return Ok(());
        }
        let sql = self.readers.begin(false).await?;
        let made = make(&sql, &days).await;
        sql.end(made).await?;
        self.days.lock().extend(days);
        Ok(())
    }
}

async fn make(sql: &Session, days: &[Date]) -> Result<(), EngineError> {
    sql.rows("SELECT pg_advisory_xact_lock($1)", &[&MAKING]).await?;
    for day in days {
        for table in TABLES {
            let partition = name_of(table, *day);
            let found = sql.row("SELECT to_regclass($1) IS NOT NULL", &[&partition]).await?;
            if value::<bool>(&found, 0)? {
                continue;
            }
            // Attached rather than made as a partition: that does not keep readers and writers of other days waiting.
            let (from, to) = bounds(table, number_of(*day));
            let text = format!(
                "CREATE TABLE {partition} (LIKE {table} INCLUDING DEFAULTS) WITH (fillfactor = {});
                 ALTER TABLE {table} ATTACH PARTITION {partition} FOR VALUES FROM ({from}) TO ({to})",
                fill(table)
            );
            sql.batch(&text).await?;
        }
    }
    Ok(())
}

/// A message's story comes in pieces: room for its rows to change in their place. Events never change.
fn fill(table: &str) -> u8 {
    if table == "trail_event" { 100 } else { 80 }
}

fn name_of(table: &str, day: Date) -> String {
    format!("{table}_{}", day.strftime("%Y%m%d"))
}

fn bounds(table: &str, day: i64) -> (String, String) {
    let bound = |day: i64| match table {
        "trail_event" => day.to_string(),
        "trail_minute" => (day * 1440).to_string(),
        _ => format!("'\\x{}'", hex(MessageId::first_at(UtcMillis(day * DAY_MILLIS)))),
    };
    (bound(day), bound(day + 1))
}

fn hex(id: MessageId) -> String {
    id.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

const STORED: &str = "SELECT c.relname::text, i.inhrelid IS NOT NULL, coalesce(i.inhdetachpending, false)
    FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
    WHERE c.relkind = 'r' AND c.relname ~ '^trail_(event|message|party|minute)_[0-9]{8}$'
      AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'trail_event'::regclass)
    ORDER BY c.relname";

/// Days that have partitions, oldest first.
pub(super) async fn stored(pool: &Pool) -> Result<Vec<Date>, EngineError> {
    let mut days = BTreeSet::new();
    for row in pool.query(STORED, &[]).await? {
        let (name, attached): (String, bool) = (value(&row, 0)?, value(&row, 1)?);
        let day = name.strip_prefix("trail_event_").filter(|_| attached);
        days.extend(day.and_then(|day| Date::strptime("%Y%m%d", day).ok()));
    }
    Ok(days.into_iter().collect())
}

/// Drops days before `oldest`, but for the last of them: a clock that goes before ours may still write it. Nodes take turns.
pub(super) async fn drop_before(pool: &Pool, oldest: Date) -> Result<(), EngineError> {
    let Ok(oldest) = oldest.yesterday() else { return Ok(()) };
    // The lock goes with the connection if anything fails.
    let sql = pool.session().await?;
    sql.rows("SELECT pg_advisory_lock($1)", &[&DROPPING]).await?;
    for row in sql.rows(STORED, &[]).await? {
        let (name, attached, pending): (String, bool, bool) = (value(&row, 0)?, value(&row, 1)?, value(&row, 2)?);
        let Some((table, day)) = name.rsplit_once('_') else { continue };
        if !Date::strptime("%Y%m%d", day).is_ok_and(|day| day < oldest) {
            continue;
        }
        if attached {
            // Readers of other days go on; a detaching that was cut short is finished.
            let how = if pending { "FINALIZE" } else { "CONCURRENTLY" };
            sql.batch(&format!("ALTER TABLE {table} DETACH PARTITION {name} {how}")).await?;
        }
        sql.batch(&format!("DROP TABLE IF EXISTS {name}")).await?;
    }
    let before = number_of(oldest) * DAY_MILLIS;
    sql.execute("DELETE FROM trail_writer WHERE at < $1", &[&before]).await?;
    sql.rows("SELECT pg_advisory_unlock($1)", &[&DROPPING]).await?;
    sql.give_back();
    Ok(())
}
