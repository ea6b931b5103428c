//! The trail itself: a bounded buffer in front, one file a day behind, a broadcast beside.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::{Clock, MessageId, UtcMillis, event};
use engine::{Database, EngineError};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{broadcast, mpsc};

use crate::count::{Bucket, Span};
use crate::day;
use crate::event::{Event, Kind};
use crate::query::Query;
use crate::row::{MessageRow, StoredEvent};
use crate::schema::MIGRATIONS;
use crate::scope::Scope;

/// How the trail is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder of the day files.
    pub folder: PathBuf,
    /// Files older than this are deleted whole.
    pub retention: Duration,
    /// Events that may wait to be written; beyond, they are counted and dropped.
    pub buffer_events: usize,
    /// Longest an event waits before its batch is written.
    pub batch_wait: Duration,
}

impl Settings {
    pub fn in_folder(folder: PathBuf) -> Self {
        Self {
            folder,
            retention: Duration::from_secs(21 * 86_400),
            buffer_events: 100_000,
            batch_wait: Duration::from_millis(100),
        }
    }
}

/// A failed query.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the trail is unavailable")]
pub struct TrailError(#[from] pub EngineError);

/// A message changed: told to live viewers after it is stored. `parties` decides who may hear of it.
#[derive(Clone, Debug)]
pub struct Update {
    /// Resume point: [`Trail::changed_after`] gives what follows.
    pub seq: u64,
    pub message: MessageId,
}

/// Records, tails and queries. Cheap to share by `Arc`.
pub struct Trail {
    settings: Settings,
    clock: Arc<dyn Clock>,
    inbox: mpsc::Sender<Event>,
    dropped: AtomicU64,
    updates: broadcast::Sender<Arc<Vec<Update>>>,
    days: Mutex<BTreeMap<Date, Arc<Database>>>,
    last_seq: AtomicU64,
}

/// The writing half: one task runs it until the trail closes.
pub struct Worker {
    trail: Arc<Trail>,
    outbox: mpsc::Receiver<Event>,
}

const BATCH_MAX: usize = 10_000;
/// Batches a live viewer may fall behind before it must resume by query.
const UPDATES_KEPT: usize = 256;
/// Day files kept open; queries reach further back by opening and closing others.
const DAYS_OPEN_MAX: usize = 8;

impl Trail {
    /// Opens the folder and today's file. The [`Worker`] must be run for anything to be stored.
    pub fn open(settings: Settings, clock: Arc<dyn Clock>) -> Result<(Arc<Self>, Worker), EngineError> {
        std::fs::create_dir_all(&settings.folder).map_err(|error| EngineError::Failed {
            file: settings.folder.clone(),
            source: Arc::new(rusqlite_io(error)),
        })?;
        let (inbox, outbox) = mpsc::channel(settings.buffer_events);
        let trail = Arc::new(Self {
            clock,
            inbox,
            dropped: AtomicU64::new(0),
            updates: broadcast::channel(UPDATES_KEPT).0,
            days: Mutex::new(BTreeMap::new()),
            last_seq: AtomicU64::new(0),
            settings,
        });
        trail.open_day(day_of(trail.clock.utc()))?;
        let newest = trail.stored_days().into_iter().next_back();
        if let Some(file) = newest.map(|date| trail.file_of(date)) {
            let read = Connection::open(&file).and_then(|sql| day::last_seq(&sql));
            let last = read.map_err(|error| EngineError::Failed { file, source: Arc::new(error) })?;
            trail.last_seq.store(last, Ordering::SeqCst);
        }
        let worker = Worker { trail: Arc::clone(&trail), outbox };
        Ok((trail, worker))
    }

    /// Records an event. Never waits: a full buffer drops the event and counts it.
    pub fn record(&self, event: Event) {
        if self.inbox.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("ortler_trail_dropped_total").increment(1);
        }
    }

    /// Batches of changed messages, after they are stored. A viewer that lags is told and resumes by
    /// [`Trail::changed_after`].
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Vec<Update>>> {
        self.updates.subscribe()
    }

    /// Messages in scope that match, newest first.
    pub async fn messages(&self, scope: &Scope, query: &Query, limit: usize) -> Result<Vec<MessageRow>, TrailError> {
        let mut found = Vec::new();
        for date in self.days_back_from(query.before, query.since) {
            let Some(database) = self.existing_day(date)? else { continue };
            let (scope, query, rest) = (scope.clone(), query.clone(), limit.saturating_sub(found.len()));
            found.extend(database.read(move |sql| day::messages(sql, &scope, &query, rest)).await?);
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }

    /// One message, if the scope admits it.
    pub async fn message(&self, scope: &Scope, id: MessageId) -> Result<Option<MessageRow>, TrailError> {
        let Some(database) = self.existing_day(day_of(id.made_at()))? else { return Ok(None) };
        let scope = scope.clone();
        Ok(database.read(move |sql| day::message(sql, &scope, id)).await?)
    }

    /// A message's life story, in order; empty if the scope does not admit it.
    pub async fn story(&self, scope: &Scope, id: MessageId) -> Result<Vec<StoredEvent>, TrailError> {
        let Some(database) = self.existing_day(day_of(id.made_at()))? else { return Ok(Vec::new()) };
        let scope = scope.clone();
        Ok(database.read(move |sql| day::story(sql, &scope, id)).await?)
    }

    /// Messages changed after `seq`, oldest change first: today and yesterday only.
    pub async fn changed_after(&self, scope: &Scope, seq: u64, limit: usize) -> Result<Vec<MessageRow>, TrailError> {
        let today = day_of(self.clock.utc());
        let mut found = Vec::new();
        for date in [today.yesterday().unwrap_or(today), today] {
            let Some(database) = self.existing_day(date)? else { continue };
            let (scope, rest) = (scope.clone(), limit.saturating_sub(found.len()));
            found.extend(database.read(move |sql| day::changed_after(sql, &scope, seq, rest)).await?);
        }
        Ok(found)
    }

    /// Counts for a graph.
    pub async fn histogram(&self, scope: &Scope, span: Span) -> Result<Vec<Bucket>, TrailError> {
        let mut merged: BTreeMap<UtcMillis, Bucket> = BTreeMap::new();
        for date in self.days_back_from(Some(span.to), Some(span.from)) {
            let Some(database) = self.existing_day(date)? else { continue };
            let scope = scope.clone();
            for bucket in database.read(move |sql| day::buckets(sql, &scope, span)).await? {
                let slot = merged.entry(bucket.at).or_insert(Bucket { at: bucket.at, counts: [0; 5] });
                slot.counts.iter_mut().zip(bucket.counts).for_each(|(sum, count)| *sum += count);
            }
        }
        Ok(merged.into_values().collect())
    }

    /// Newest sequence number handed out.
    pub fn last_seq(&self) -> u64 {
        self.last_seq.load(Ordering::SeqCst)
    }

    /// Days that have a file, between the bounds, newest first.
    fn days_back_from(&self, before: Option<UtcMillis>, since: Option<UtcMillis>) -> Vec<Date> {
        let newest = before.map_or(Date::MAX, day_of);
        let oldest = since.map_or(Date::MIN, day_of);
        let mut days = self.stored_days();
        days.retain(|date| (oldest..=newest).contains(date));
        days.reverse();
        days
    }

    /// Days that have a file, oldest first.
    fn stored_days(&self) -> Vec<Date> {
        let Ok(entries) = std::fs::read_dir(&self.settings.folder) else { return Vec::new() };
        let mut days: Vec<Date> = entries.filter_map(|entry| date_of_file(&entry.ok()?.path())).collect();
        days.sort_unstable();
        days
    }

    fn file_of(&self, date: Date) -> PathBuf {
        self.settings.folder.join(format!("{}.sqlite", date.strftime("%Y%m%d")))
    }

    fn existing_day(&self, date: Date) -> Result<Option<Arc<Database>>, EngineError> {
        if self.days.lock().contains_key(&date) || self.file_of(date).exists() {
            self.open_day(date).map(Some)
        } else {
            Ok(None)
        }
    }

    fn open_day(&self, date: Date) -> Result<Arc<Database>, EngineError> {
        let mut days = self.days.lock();
        if let Some(database) = days.get(&date) {
            return Ok(Arc::clone(database));
        }
        let settings = engine::Settings { migrations: MIGRATIONS, readers: 2, cache_kib: 8 * 1024 };
        let database = Arc::new(Database::open(&self.file_of(date), &settings)?);
        days.insert(date, Arc::clone(&database));
        if days.len() > DAYS_OPEN_MAX {
            let today = day_of(self.clock.utc());
            if let Some(oldest) = days.keys().find(|open| **open != today && **open != date).copied() {
                days.remove(&oldest);
            }
        }
        Ok(database)
    }

    /// Deletes the files of days past their retention.
    fn forget_old_days(&self) {
        let oldest = day_of(self.clock.utc().minus(self.settings.retention));
        for date in self.stored_days().into_iter().filter(|date| *date < oldest) {
            self.days.lock().remove(&date);
            let file = self.file_of(date);
            for suffix in ["", "-wal", "-shm"] {
                let mut path = file.clone().into_os_string();
                path.push(suffix);
                // Already gone is what we want.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

impl Worker {
    /// Writes batches until every [`Trail`] is gone or `stop` resolves; then writes what is left.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut batch = Vec::new();
        let mut today = day_of(self.trail.clock.utc());
        self.trail.forget_old_days();
        loop {
            let stopped = tokio::select! {
                first = self.outbox.recv() => {
                    let Some(first) = first else { return };
                    batch.push(first);
                    false
                }
                () = &mut stop => true,
            };
            if !stopped {
                tokio::time::sleep(self.trail.settings.batch_wait).await;
            }
            while batch.len() < BATCH_MAX
                && let Ok(event) = self.outbox.try_recv()
            {
                batch.push(event);
            }
            self.write(std::mem::take(&mut batch)).await;
            let now = day_of(self.trail.clock.utc());
            if now != today {
                today = now;
                self.trail.forget_old_days();
            }
            if stopped && self.outbox.is_empty() {
                return;
            }
        }
    }

    async fn write(&self, mut batch: Vec<Event>) {
        let dropped = self.trail.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            batch.push(Event::new(self.trail.clock.utc(), Kind::Gap).field("count", dropped));
        }
        let count = u64::try_from(batch.len()).unwrap_or(0);
        let first = self.trail.last_seq.fetch_add(count, Ordering::SeqCst) + 1;
        let mut by_day: BTreeMap<Date, Vec<(u64, Event)>> = BTreeMap::new();
        let mut updates: BTreeMap<MessageId, Update> = BTreeMap::new();
        for (seq, event) in (first..).zip(batch) {
            if let Some(message) = event.message {
                updates.insert(message, Update { seq, message });
            }
            let date = day_of(event.message.map_or(event.at, MessageId::made_at));
            by_day.entry(date).or_default().push((seq, event));
        }
        for (date, events) in by_day {
            let lost = u64::try_from(events.len()).unwrap_or(0);
            let written = match self.trail.open_day(date) {
                Ok(database) => database.write_sql(move |sql| day::write(sql, &events)).await,
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                self.trail.dropped.fetch_add(lost, Ordering::Relaxed);
                tracing::error!(event = event::TRAIL_DROPPED, count = lost, %error);
            }
        }
        if !updates.is_empty() {
            let mut updates: Vec<Update> = updates.into_values().collect();
            updates.sort_unstable_by_key(|update| update.seq);
            // Nobody watching is fine.
            let _ = self.trail.updates.send(Arc::new(updates));
        }
    }
}

fn day_of(at: UtcMillis) -> Date {
    let timestamp = jiff::Timestamp::from_millisecond(at.0).unwrap_or_default();
    timestamp.to_zoned_datetime(TimeZone::UTC).date()
}

fn date_of_file(path: &Path) -> Option<Date> {
    let is_database = path.extension().is_some_and(|extension| extension == "sqlite");
    Date::strptime("%Y%m%d", path.file_stem()?.to_str()?).ok().filter(|_| is_database)
}

fn rusqlite_io(error: std::io::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}
