//! What a node adds, and what it is told.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, UtcMillis, event};
use engine::EngineError;
use engine::postgres::Pool;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::postgres::PgTables;
use crate::sqlite::SqliteTables;
use crate::subject::{Amount, Kind, Record, Slot, Subject};
use crate::tables::{Row, Tables};

/// Adds up and tells. What was added here is told here at once, and on other nodes within about a second. A node that is
/// killed loses what it added in that second; an answer that never came may make something count twice.
pub struct Reputation {
    pub(crate) tables: Box<dyn Tables>,
    clock: Arc<dyn Clock>,
    pending: Mutex<Pending>,
    /// One at a time: what is on its way is still told here until it is there.
    flushing: tokio::sync::Mutex<()>,
}

/// What others do not know yet.
#[derive(Default)]
struct Pending {
    fresh: HashMap<(Subject, i64), Row>,
    on_its_way: Vec<Row>,
}

/// Nodes write down what they saw so often.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Subjects that wait to be written; of further ones nothing is kept.
const PENDING_MAX: usize = 100_000;
/// Rows forgotten at a time.
const BATCH: usize = 5000;
/// The server is asked to answer so soon, or does without.
const PATIENCE: Duration = Duration::from_secs(2);

impl Reputation {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// Names the file: no database, of a newer format, in use.
    pub fn open(file: &Path, clock: Arc<dyn Clock>) -> Result<Self, EngineError> {
        Ok(Self::on(Box::new(SqliteTables::open(file)?), clock))
    }

    pub async fn open_postgres(pool: Arc<Pool>, clock: Arc<dyn Clock>) -> Result<Self, EngineError> {
        Ok(Self::on(Box::new(PgTables::open(pool).await?), clock))
    }

    fn on(tables: Box<dyn Tables>, clock: Arc<dyn Clock>) -> Self {
        Self { tables, clock, pending: Mutex::default(), flushing: tokio::sync::Mutex::default() }
    }

    /// What is known of each, in order. `None` if the engine does not say within two seconds: callers do without.
    pub async fn of(&self, subjects: &[Subject]) -> Option<Vec<Record>> {
        if subjects.is_empty() {
            return Some(Vec::new());
        }
        // Between the reading and the adding of what is pending, something may come to be in both, and counts twice for once.
        let distinct: BTreeSet<Subject> = subjects.iter().copied().collect();
        let distinct: Vec<Subject> = distinct.into_iter().collect();
        match tokio::time::timeout(PATIENCE, self.tables.read(&distinct)).await {
            Ok(Ok(rows)) => Some(self.told(subjects, &distinct, &rows)),
            Ok(Err(error)) => {
                tracing::warn!(event = event::STORE_FAILED, what = "reputation", %error);
                None
            }
            Err(_late) => {
                tracing::warn!(event = event::STORE_FAILED, what = "reputation", error = "no answer in time");
                None
            }
        }
    }

    fn told(&self, subjects: &[Subject], distinct: &[Subject], rows: &[Row]) -> Vec<Record> {
        let now = self.clock.utc();
        let mut out: Vec<Record> = vec![Record::default(); subjects.len()];
        let mut add = |row: &Row| {
            let kind = row.subject.kind;
            let (Ok(age), true) = (u32::try_from(kind.slot(now) - row.slot), row.slot >= kind.oldest(now)) else {
                return;
            };
            let number = |value: i64| u64::try_from(value).unwrap_or(0);
            let (good, bad) = (number(row.good), number(row.bad));
            let slot = Slot { age, good, bad, first_at: row.first_at, last_at: row.last_at };
            let wanted = subjects.iter().zip(&mut out).filter(|(subject, _)| **subject == row.subject);
            wanted.for_each(|(_, record)| record.add(slot));
        };
        rows.iter().for_each(&mut add);
        let pending = self.pending.lock();
        pending.on_its_way.iter().filter(|row| distinct.binary_search(&row.subject).is_ok()).for_each(&mut add);
        for subject in
            subjects.iter().enumerate().filter(|(at, one)| !subjects[..*at].contains(one)).map(|(_, one)| one)
        {
            // Of this and the slot before: no second is longer.
            for age in 0..2 {
                let slot = subject.kind.slot(now) - age;
                pending.fresh.get(&(*subject, slot)).into_iter().for_each(&mut add);
            }
        }
        out
    }

    /// Adds to a subject, now.
    pub fn add(&self, subject: Subject, amount: Amount) {
        let now = self.clock.utc();
        let slot = subject.kind.slot(now);
        let (good, bad) = (i64::from(amount.good), i64::from(amount.bad));
        self.pending.lock().add(Row { subject, slot, good, bad, first_at: now, last_at: now });
    }

    /// Forgets all that is known of these. What another node has not written down yet comes back within about a second.
    pub async fn forget(&self, subjects: &[Subject]) -> Result<(), EngineError> {
        let _one = self.flushing.lock().await;
        self.pending.lock().fresh.retain(|(subject, _), _| !subjects.contains(subject));
        self.tables.remove(subjects).await
    }

    /// Writes down what was added; on return others know it.
    pub async fn flush(&self) -> Result<(), EngineError> {
        let _one = self.flushing.lock().await;
        let rows: Vec<Row> = {
            let mut pending = self.pending.lock();
            let rows: Vec<Row> = pending.fresh.drain().map(|(_, row)| row).collect();
            pending.on_its_way.clone_from(&rows);
            rows
        };
        let done = if rows.is_empty() { Ok(()) } else { self.tables.add(&rows).await };
        let mut pending = self.pending.lock();
        pending.on_its_way.clear();
        if done.is_err() {
            rows.into_iter().for_each(|row| pending.add(row));
        }
        done
    }

    /// Writes down what is added until `stop`, and then what is left.
    pub async fn run(&self, stop: CancellationToken) {
        let mut was_lost = false;
        while tokio::time::timeout(FLUSH_EVERY, stop.cancelled()).await.is_err() {
            match self.flush().await {
                Ok(()) => was_lost = false,
                Err(error) if !was_lost => {
                    was_lost = true;
                    tracing::warn!(event = event::STORE_FAILED, what = "reputation", %error);
                }
                Err(_) => {}
            }
        }
        let _ = tokio::time::timeout(PATIENCE, self.flush()).await;
    }

    /// Forgets what is too old to be told. One node at a time is enough.
    pub async fn tidy(&self) -> Result<(), EngineError> {
        let now: UtcMillis = self.clock.utc();
        for kind in Kind::ALL {
            while self.tables.forget(kind.number(), kind.oldest(now), BATCH).await? == BATCH {}
        }
        Ok(())
    }
}

impl Pending {
    fn add(&mut self, row: Row) {
        let has_room = self.fresh.len() < PENDING_MAX;
        match self.fresh.get_mut(&(row.subject, row.slot)) {
            Some(known) => {
                (known.good, known.bad) = (known.good + row.good, known.bad + row.bad);
                known.first_at = known.first_at.min(row.first_at);
                known.last_at = known.last_at.max(row.last_at);
            }
            None if has_room => drop(self.fresh.insert((row.subject, row.slot), row)),
            None => metrics::counter!("ortler_reputation_dropped_total").increment(1),
        }
    }
}
