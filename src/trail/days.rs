//! The embedded engine: one file a day in a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base::{MessageId, UtcMillis, event};
use engine::table::Place;
use engine::{Database, EngineError};
use jiff::civil::Date;
use parking_lot::Mutex;
use rusqlite::Connection;

use crate::count::{Bucket, Span};
use crate::day;
use crate::event::Event;
use crate::query::Query;
use crate::row::{StoredMessage, ToldEvent};
use crate::schema::MIGRATIONS;
use crate::scope::Scope;
use crate::store::{Batch, CHANGES_MAX, Changes, TrailStore, day_of, day_of_event};

/// Day files kept open; queries reach further back by opening and closing others.
const DAYS_OPEN_MAX: usize = 8;

pub(crate) struct Days {
    folder: PathBuf,
    open: Mutex<BTreeMap<Date, Arc<Database>>>,
    /// The last number handed out.
    given: AtomicU64,
    /// The last number that readers see; up to it nothing comes any more.
    last_seq: AtomicU64,
    /// The newest day: stays open.
    today: Mutex<Date>,
}

impl Days {
    pub(crate) fn open(folder: PathBuf, today: Date) -> Result<Self, EngineError> {
        std::fs::create_dir_all(&folder).map_err(|error| EngineError::from_io(&folder, error))?;
        let (open, given, last_seq) = (Mutex::default(), AtomicU64::new(0), AtomicU64::new(0));
        let days = Self { folder, open, given, last_seq, today: Mutex::new(today) };
        days.day(today)?;
        let mut last = 0;
        // The newest number need not lie in the newest file.
        for file in days.stored().into_iter().map(|date| days.file_of(date)) {
            match Connection::open(&file).and_then(|sql| day::last_seq(&sql)) {
                Ok(seq) => last = last.max(seq),
                // An old day must not keep the node from starting.
                Err(error) => tracing::error!(event = event::TRAIL_AWAY, file = %file.display(), %error),
            }
        }
        days.given.store(last, Ordering::SeqCst);
        days.last_seq.store(last, Ordering::SeqCst);
        Ok(days)
    }

    /// Days that have a file, between the bounds, newest first.
    fn back_from(&self, before: Option<UtcMillis>, since: Option<UtcMillis>) -> Vec<Date> {
        let newest = before.map_or(Date::MAX, day_of);
        let oldest = since.map_or(Date::MIN, day_of);
        let mut days = self.stored();
        days.retain(|date| (oldest..=newest).contains(date));
        days.reverse();
        days
    }

    /// Days that have a file, oldest first.
    fn stored(&self) -> Vec<Date> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        let mut days: Vec<Date> = entries.filter_map(|entry| date_of_file(&entry.ok()?.path())).collect();
        days.sort_unstable();
        days
    }

    fn file_of(&self, date: Date) -> PathBuf {
        self.folder.join(format!("{}.sqlite", date.strftime("%Y%m%d")))
    }

    fn existing_day(&self, date: Date) -> Result<Option<Arc<Database>>, EngineError> {
        if self.open.lock().contains_key(&date) || self.file_of(date).exists() {
            self.day(date).map(Some)
        } else {
            Ok(None)
        }
    }

    fn day(&self, date: Date) -> Result<Arc<Database>, EngineError> {
        let mut days = self.open.lock();
        if let Some(database) = days.get(&date) {
            return Ok(Arc::clone(database));
        }
        let settings = engine::Settings { migrations: MIGRATIONS, readers: 2, cache_kib: 8 * 1024 };
        let database = Arc::new(Database::open(&self.file_of(date), &settings)?);
        days.insert(date, Arc::clone(&database));
        if days.len() > DAYS_OPEN_MAX {
            let today = *self.today.lock();
            if let Some(oldest) = days.keys().find(|open| **open != today && **open != date).copied() {
                days.remove(&oldest);
            }
        }
        Ok(database)
    }
}

#[async_trait]
impl TrailStore for Days {
    async fn append(&self, batch: &Arc<Batch>) -> Result<(), EngineError> {
        let count = u64::try_from(batch.events.len()).unwrap_or(0);
        let first = self.given.fetch_add(count, Ordering::SeqCst) + 1;
        let mut by_day: BTreeMap<Date, Vec<(u64, usize)>> = BTreeMap::new();
        for (at, (seq, event)) in (first..).zip(&batch.events).enumerate() {
            by_day.entry(day_of_event(event)).or_default().push((seq, at));
        }
        let mut failed = Ok(());
        for (date, places) in by_day {
            let database = match self.day(date) {
                Ok(database) => database,
                Err(error) => {
                    failed = Err(error);
                    continue;
                }
            };
            let batch = Arc::clone(batch);
            let written = database.write_sql(move |sql| {
                let event = |(seq, at): &(u64, usize)| Some((*seq, batch.events.get(*at)?));
                let events: Vec<(u64, &Event)> = places.iter().filter_map(event).collect();
                day::write(sql, &events)
            });
            failed = written.await.and(failed);
        }
        // One worker writes: what was handed out before is seen already.
        self.last_seq.store(first + count - 1, Ordering::SeqCst);
        failed
    }

    async fn messages(&self, scope: &Scope, query: &Query, limit: usize) -> Result<Vec<StoredMessage>, EngineError> {
        let mut found = Vec::new();
        for date in self.back_from(query.before.or(query.below.map(MessageId::made_at)), query.since) {
            let Some(database) = self.existing_day(date)? else { continue };
            let (scope, query, rest) = (scope.clone(), query.clone(), limit.saturating_sub(found.len()));
            found.extend(database.read(move |sql| day::messages(sql, &scope, &query, rest)).await?);
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }

    async fn message(&self, scope: &Scope, id: MessageId) -> Result<Option<StoredMessage>, EngineError> {
        let Some(database) = self.existing_day(day_of(id.made_at()))? else { return Ok(None) };
        let scope = scope.clone();
        database.read(move |sql| day::message(sql, &scope, id)).await
    }

    async fn story(&self, id: MessageId) -> Result<Vec<ToldEvent>, EngineError> {
        let Some(database) = self.existing_day(day_of(id.made_at()))? else { return Ok(Vec::new()) };
        database.read(move |sql| day::story(sql, id)).await
    }

    async fn changes(&self, scope: &Scope, after: u64) -> Result<Changes, EngineError> {
        // Of a batch that is being written one file may have its part and another not yet.
        let newest = self.last_seq.load(Ordering::SeqCst);
        let today = *self.today.lock();
        let yesterday = today.yesterday().unwrap_or(today);
        let mut events = Vec::new();
        // Past midnight a day may be there of which we were not told.
        for date in self.stored().into_iter().filter(|date| *date >= yesterday) {
            if let Some(database) = self.existing_day(date)? {
                events.extend(database.read(move |sql| day::changes(sql, after, newest)).await?);
            }
        }
        // Each file gave its oldest: together they are complete up to the same number of events.
        events.sort_unstable();
        let has_more = events.len() >= CHANGES_MAX;
        events.truncate(CHANGES_MAX);
        let upto = events.last().map_or(after, |(seq, _)| *seq);
        let last: BTreeMap<MessageId, u64> = events.into_iter().map(|(seq, id)| (id, seq)).collect();
        let mut by_day: BTreeMap<Date, Vec<(MessageId, u64)>> = BTreeMap::new();
        for (id, seq) in last {
            by_day.entry(day_of(id.made_at())).or_default().push((id, seq));
        }
        let mut messages = Vec::new();
        for (date, ids) in by_day {
            let Some(database) = self.existing_day(date)? else { continue };
            let scope = scope.clone();
            let read = database.read(move |sql| {
                let mut found = Vec::new();
                for (id, seq) in ids {
                    if let Some(mut message) = day::message(sql, &scope, id)? {
                        message.row.seq = seq;
                        found.push(message);
                    }
                }
                Ok(found)
            });
            messages.extend(read.await?);
        }
        messages.sort_unstable_by_key(|message| message.row.seq);
        Ok(Changes { messages, upto, has_more })
    }

    async fn buckets(&self, scope: &Scope, span: Span) -> Result<Vec<Bucket>, EngineError> {
        let mut merged: BTreeMap<UtcMillis, Bucket> = BTreeMap::new();
        // What came of yesterday's messages today lies in yesterday's file.
        for date in self.back_from(Some(span.to), Some(span.from.minus(Duration::from_secs(86_400)))) {
            let Some(database) = self.existing_day(date)? else { continue };
            let scope = scope.clone();
            for bucket in database.read(move |sql| day::buckets(sql, &scope, span)).await? {
                let slot = merged.entry(bucket.at).or_insert(Bucket { at: bucket.at, counts: [0; 5] });
                slot.counts.iter_mut().zip(bucket.counts).for_each(|(sum, count)| *sum += count);
            }
        }
        Ok(merged.into_values().collect())
    }

    async fn last_seq(&self) -> Result<u64, EngineError> {
        Ok(self.last_seq.load(Ordering::SeqCst))
    }

    async fn keep_days(&self, oldest: Date, today: Date) -> Result<(), EngineError> {
        *self.today.lock() = today;
        for date in self.stored().into_iter().filter(|date| *date < oldest) {
            self.open.lock().remove(&date);
            let file = self.file_of(date);
            for suffix in ["", "-wal", "-shm"] {
                let mut path = file.clone().into_os_string();
                path.push(suffix);
                // Already gone is what we want.
                let _ = std::fs::remove_file(path);
            }
        }
        Ok(())
    }

    async fn days(&self) -> Result<Vec<Date>, EngineError> {
        Ok(self.stored())
    }

    async fn place_of(&self, day: Date) -> Result<Place, EngineError> {
        self.day(day).map(Place::Sqlite)
    }

    async fn go_on_after(&self, last: u64) -> Result<(), EngineError> {
        self.given.fetch_max(last, Ordering::SeqCst);
        self.last_seq.fetch_max(last, Ordering::SeqCst);
        Ok(())
    }

    async fn changed(&self) {
        // Nobody else writes these files.
        std::future::pending().await
    }

    fn settles(&self) -> Duration {
        Duration::ZERO
    }
}

fn date_of_file(path: &Path) -> Option<Date> {
    let is_database = path.extension().is_some_and(|extension| extension == "sqlite");
    Date::strptime("%Y%m%d", path.file_stem()?.to_str()?).ok().filter(|_| is_database)
}
