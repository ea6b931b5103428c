//! What is kept, and the counts that are on their way there.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, UtcMillis, event};
use engine::postgres::Pool;
use engine::table::{Place, Row, Value};
use engine::{Database, EngineError, Settings};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::seen::{DmarcSeen, Kind, TlsSeen};
use crate::tables::{self, COMPONENT, POSTGRES, SQLITE};

/// A policy of MTA-STS as it was fetched (RFC 8461).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredPolicy {
    pub domain: String,
    /// `id=` of the record that announced it.
    pub id: String,
    pub text: String,
    pub fetched_at: UtcMillis,
    pub expires_at: UtcMillis,
}

/// A report that came in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Received {
    /// Whom it is about.
    pub domain: String,
    pub kind: Kind,
    /// What it covers.
    pub begin_at: UtcMillis,
    pub end_at: UtcMillis,
    pub received_at: UtcMillis,
    /// Who sent it.
    pub submitter: String,
    /// JSON, as [`crate::Report`] writes it.
    pub report: String,
}

/// Which counts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Key {
    day: i64,
    kind: Kind,
    domain: String,
    facts: String,
}

/// Counts, and what is known of others.
pub struct Peers {
    place: Place,
    clock: Arc<dyn Clock>,
    fresh: Mutex<HashMap<Key, i64>>,
    /// One at a time.
    flushing: tokio::sync::Mutex<()>,
}

/// Nodes write down what they saw so often.
const FLUSH_EVERY: Duration = Duration::from_secs(10);
/// At stop.
const PATIENCE: Duration = Duration::from_secs(2);
/// Different things that wait to be written; further ones are not counted.
const FRESH_MAX: usize = 50_000;
/// Facts about one domain and day that are written.
const FACTS_MAX: usize = 10_000;
const BATCH: usize = 500;
/// What was seen is kept until its report is out, and somewhat longer.
const SEEN_DAYS: i64 = 4;
/// Reports that came are kept so long.
const RECEIVED_FOR: Duration = Duration::from_secs(400 * 86_400);
const DAY: i64 = 86_400_000;

/// The day (of UTC, since 1970) of a time.
pub fn day_of(at: UtcMillis) -> i64 {
    at.0.div_euclid(DAY)
}

/// The first moment of a day.
pub fn begin_of(day: i64) -> UtcMillis {
    UtcMillis(day.saturating_mul(DAY))
}

impl Peers {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// Names the file: no database, of a newer format, in use.
    pub fn open(file: &Path, clock: Arc<dyn Clock>) -> Result<Self, EngineError> {
        let settings = Settings { migrations: SQLITE, readers: 1, cache_kib: 1024 };
        Ok(Self::on(Place::Sqlite(Arc::new(Database::open(file, &settings)?)), clock))
    }

    pub async fn open_postgres(pool: Arc<Pool>, clock: Arc<dyn Clock>) -> Result<Self, EngineError> {
        engine::postgres::migrate(&pool, COMPONENT, POSTGRES).await?;
        Ok(Self::on(Place::Postgres(pool), clock))
    }

    fn on(place: Place, clock: Arc<dyn Clock>) -> Self {
        Self { place, clock, fresh: Mutex::default(), flushing: tokio::sync::Mutex::default() }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The policy that was fetched last, over or not.
    pub async fn policy(&self, domain: &str) -> Result<Option<StoredPolicy>, EngineError> {
        let found = self.place.row(&tables::sts_policy(), &[text(domain)]).await?;
        Ok(found.and_then(|row| {
            let [Value::Text(domain), Value::Text(id), Value::Text(text), Value::Int(fetched), Value::Int(expires)] =
                <[Value; 5]>::try_from(row).ok()?
            else {
                return None;
            };
            Some(StoredPolicy { domain, id, text, fetched_at: UtcMillis(fetched), expires_at: UtcMillis(expires) })
        }))
    }

    pub async fn keep_policy(&self, policy: &StoredPolicy) -> Result<(), EngineError> {
        let StoredPolicy { domain, id, text: lines, fetched_at, expires_at } = policy;
        let row = vec![text(domain), text(id), text(lines), Value::Int(fetched_at.0), Value::Int(expires_at.0)];
        self.write(&tables::sts_policy(), vec![row]).await
    }

    /// One session with a server of `domain`, now.
    pub fn saw_tls(&self, domain: &str, seen: &TlsSeen) {
        self.saw(Kind::Tls, domain, seen, 1);
    }

    /// One message whose author is of `domain`, now.
    pub fn saw_dmarc(&self, domain: &str, seen: &DmarcSeen) {
        self.saw(Kind::Dmarc, domain, seen, 1);
    }

    fn saw(&self, kind: Kind, domain: &str, facts: &impl Serialize, count: i64) {
        let Ok(facts) = serde_json::to_string(facts) else { return };
        let key = Key { day: day_of(self.clock.utc()), kind, domain: domain.to_lowercase(), facts };
        self.add(key, count);
    }

    fn add(&self, key: Key, count: i64) {
        let mut fresh = self.fresh.lock();
        let has_room = fresh.len() < FRESH_MAX;
        match fresh.get_mut(&key) {
            Some(known) => *known += count,
            None if has_room => drop(fresh.insert(key, count)),
            None => metrics::counter!("ortler_peers_dropped_total").increment(1),
        }
    }

    /// Writes down what was counted.
    pub async fn flush(&self) -> Result<(), EngineError> {
        let _one = self.flushing.lock().await;
        let mut counts: Vec<(Key, i64)> = self.fresh.lock().drain().collect();
        // In one order on all nodes: none waits for one that waits for it.
        counts.sort_unstable();
        let row = |(key, count): &(Key, i64)| {
            let digest = blake3::hash(key.facts.as_bytes()).as_bytes()[..16].to_vec();
            vec![
                Value::Int(key.day),
                text(key.kind.as_str()),
                text(&key.domain),
                Value::Bytes(digest),
                text(&key.facts),
                Value::Int(*count),
            ]
        };
        while !counts.is_empty() {
            let batch = counts.split_off(counts.len().saturating_sub(BATCH));
            let mut rows: Vec<Row> = batch.iter().map(row).collect();
            rows.sort_unstable();
            if let Err(error) = self.write(&tables::seen(), rows).await {
                counts.into_iter().chain(batch).for_each(|(key, count)| self.add(key, count));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes down what is counted until `stop`, and then what is left.
    pub async fn run(&self, stop: CancellationToken) {
        while tokio::time::timeout(FLUSH_EVERY, stop.cancelled()).await.is_err() {
            if let Err(error) = self.flush().await {
                tracing::warn!(event = event::STORE_FAILED, what = "peers", %error);
            }
        }
        let _ = tokio::time::timeout(PATIENCE, self.flush()).await;
    }

    /// What was counted of a day, domain by domain; of each at most ten thousand different facts.
    pub async fn seen_tls(&self, day: i64) -> Result<Vec<(String, Vec<(TlsSeen, u64)>)>, EngineError> {
        self.seen(day, Kind::Tls).await
    }

    /// The same of messages.
    pub async fn seen_dmarc(&self, day: i64) -> Result<Vec<(String, Vec<(DmarcSeen, u64)>)>, EngineError> {
        self.seen(day, Kind::Dmarc).await
    }

    async fn seen<T: DeserializeOwned>(
        &self,
        day: i64,
        kind: Kind,
    ) -> Result<Vec<(String, Vec<(T, u64)>)>, EngineError> {
        let table = tables::seen();
        let mut out: Vec<(String, Vec<(T, u64)>)> = Vec::new();
        let mut after = vec![Value::Int(day), text(kind.as_str()), text(""), Value::Bytes(Vec::new())];
        loop {
            let rows = self.place.rows(&table, Some(day), Some(&after), BATCH).await?;
            let is_last = rows.len() < BATCH;
            for row in rows {
                after = row.get(..table.key).unwrap_or_default().to_vec();
                let [_, Value::Text(of), Value::Text(domain), _, Value::Text(facts), Value::Int(count)] =
                    row.as_slice()
                else {
                    continue;
                };
                if of != kind.as_str() {
                    return Ok(out);
                }
                // Facts of a later version that this one does not understand are its matter.
                let Ok(facts) = serde_json::from_str(facts) else { continue };
                let fact = (facts, u64::try_from(*count).unwrap_or(0));
                match out.last_mut() {
                    Some((known, facts)) if known == domain => {
                        if facts.len() < FACTS_MAX {
                            facts.push(fact);
                        }
                    }
                    _ => out.push((domain.clone(), vec![fact])),
                }
            }
            if is_last {
                return Ok(out);
            }
        }
    }

    /// True if the report was marked already.
    pub async fn is_sent(&self, day: i64, kind: Kind, domain: &str) -> Result<bool, EngineError> {
        let key = [Value::Int(day), text(kind.as_str()), text(domain)];
        Ok(self.place.row(&tables::sent(), &key).await?.is_some())
    }

    pub async fn mark_sent(&self, day: i64, kind: Kind, domain: &str) -> Result<(), EngineError> {
        let now = Value::Int(self.clock.utc().0);
        let row = vec![Value::Int(day), text(kind.as_str()), text(domain), now];
        self.write(&tables::sent(), vec![row]).await
    }

    /// Keeps a report; one that is here already changes nothing.
    pub async fn keep(&self, reports: &[Received]) -> Result<(), EngineError> {
        let row = |one: &Received| {
            let digest = blake3::hash(format!("{}\0{}", one.submitter, one.report).as_bytes());
            vec![
                text(&one.domain),
                text(one.kind.as_str()),
                Value::Int(one.begin_at.0),
                Value::Bytes(digest.as_bytes()[..16].to_vec()),
                text(&one.submitter),
                Value::Int(one.end_at.0),
                Value::Int(one.received_at.0),
                text(&one.report),
            ]
        };
        let mut rows: Vec<Row> = reports.iter().map(row).collect();
        rows.sort_unstable();
        rows.dedup_by(|a, b| a.get(..4) == b.get(..4));
        self.write(&tables::received(), rows).await
    }

    /// Reports about a domain, or about all, of a kind, that cover a time after `since`; at most `limit`.
    pub async fn received(
        &self,
        domain: Option<&str>,
        kind: Kind,
        since: UtcMillis,
        limit: usize,
    ) -> Result<Vec<Received>, EngineError> {
        let table = tables::received();
        let mut out = Vec::new();
        let first =
            |domain: &str| vec![text(domain), text(kind.as_str()), Value::Int(i64::MIN), Value::Bytes(Vec::new())];
        let mut after = first(domain.unwrap_or_default());
        loop {
            let rows = self.place.rows(&table, None, Some(&after), BATCH).await?;
            let is_last = rows.len() < BATCH;
            for row in rows {
                after = row.get(..table.key).unwrap_or_default().to_vec();
                let Some(report) = read_received(row) else { continue };
                if domain.is_some_and(|domain| domain != report.domain) || out.len() >= limit {
                    return Ok(out);
                }
                if report.kind == kind && report.end_at > since {
                    out.push(report);
                }
            }
            if is_last {
                return Ok(out);
            }
        }
    }

    /// Forgets what is old. One node at a time is enough.
    pub async fn tidy(&self) -> Result<(), EngineError> {
        let now = self.clock.utc();
        let (day, old) = (day_of(now) - SEEN_DAYS, now.minus(RECEIVED_FOR).0);
        let mut change = self.place.begin().await?;
        for (table, bound) in [
            ("seen", format!("day < {day}")),
            ("sent", format!("day < {day}")),
            ("received", format!("end_at < {old}")),
            ("sts_policy", format!("expires_at < {}", now.0)),
        ] {
            let (sqlite, postgres) =
                (format!("DELETE FROM {table} WHERE {bound}"), format!("DELETE FROM peers_{table} WHERE {bound}"));
            change.run(&sqlite, &postgres).await?;
        }
        change.commit().await
    }

    async fn write(&self, table: &engine::table::Table, rows: Vec<Row>) -> Result<(), EngineError> {
        let mut change = self.place.begin().await?;
        change.insert(table, rows).await?;
        change.commit().await
    }
}

fn read_received(row: Row) -> Option<Received> {
    let [
        Value::Text(domain),
        Value::Text(kind),
        Value::Int(begin_at),
        _,
        Value::Text(submitter),
        Value::Int(end_at),
        Value::Int(received_at),
        Value::Text(report),
    ] = <[Value; 8]>::try_from(row).ok()?
    else {
        return None;
    };
    Some(Received {
        domain,
        kind: Kind::from_name(&kind)?,
        begin_at: UtcMillis(begin_at),
        end_at: UtcMillis(end_at),
        received_at: UtcMillis(received_at),
        submitter,
        report,
    })
}

/// Neither engine's text has an octet zero.
fn text(text: &str) -> Value {
    Value::Text(if text.contains('\0') { text.replace('\0', "") } else { text.to_owned() })
}
