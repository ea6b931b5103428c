//! The writing half: batches to the engine, to the node's disk while the engine is away, and from there later, in order.
//!
//! What is not stored for sure is always somewhere: in the buffer, in flight, among the recent batches that a crashed
//! server may have forgotten, or on disk. Order is kept by one rule: before anything goes to disk, what is older goes.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use base::event;
use engine::EngineError;
use jiff::civil::Date;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::event::{Event, Kind, Party, cut};
use crate::live::Tail;
use crate::spill::{NextError, Spill, SpillError};
use crate::store::{Batch, day_of};
use crate::trail::Trail;

/// One task runs it until the trail closes.
pub struct Worker {
    trail: Arc<Trail>,
    outbox: mpsc::Receiver<Event>,
    spill: Option<Arc<Mutex<Spill>>>,
    writer: u64,
    /// Number of the last batch made.
    number: u64,
    /// Appended, but a server that crashes may forget them.
    recent: VecDeque<(Instant, Arc<Batch>)>,
    /// The engine failed: until then everything goes to disk.
    away_until: Option<Instant>,
    failures: u32,
    tail: Tail,
    taken_at: Instant,
    is_stopping: bool,
    /// Dropping old days and making new ones: that may wait for others, and batches do not.
    days: JoinSet<bool>,
    /// The day for which that is done or begun.
    day: Option<Date>,
    days_after: Option<Instant>,
}

const BATCH_MAX: usize = 10_000;
/// How often viewers are served and the days looked at, whatever happens. A hint that got lost delays as long.
const TICK: Duration = Duration::from_secs(1);
/// Pauses after a failure, doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// How often the buffer is looked at while a batch is on its way.
const WATCH: Duration = Duration::from_millis(50);
/// For the last batch when the node stops; then it goes to disk.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// For one look at what is new.
const SHOW_WAIT: Duration = Duration::from_secs(2);
const DAYS_PAUSE: Duration = Duration::from_secs(60);
/// Octets of an address; an index takes no more than some thousand.
const ADDRESS_MAX: usize = 1000;

/// What the worker woke up for.
enum Wake {
    Event(Event),
    /// Something waits on disk and the engine may take it.
    Backlog,
    Changed,
    Tick,
    Stop,
}

impl Worker {
    pub(crate) fn new(trail: Arc<Trail>, outbox: mpsc::Receiver<Event>, spill: Option<Spill>, writer: u64) -> Self {
        let taken_at = trail.clock.now();
        Self {
            trail,
            outbox,
            spill: spill.map(|spill| Arc::new(Mutex::new(spill))),
            writer,
            number: 0,
            recent: VecDeque::new(),
            away_until: None,
            failures: 0,
            tail: Tail::default(),
            taken_at,
            is_stopping: false,
            days: JoinSet::new(),
            day: None,
            days_after: None,
        }
    }

    /// Writes batches until every [`Trail`] is gone or `stop` resolves; then writes what is left, on disk if need be.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let store = Arc::clone(&self.trail.store);
        loop {
            self.keep_days();
            let is_due = self.has_backlog() && !self.is_away();
            let wake = tokio::select! {
                () = &mut stop => Wake::Stop,
                event = self.outbox.recv(), if !is_due => event.map_or(Wake::Stop, Wake::Event),
                () = std::future::ready(()), if is_due => Wake::Backlog,
                () = store.changed() => Wake::Changed,
                _ = tick.tick() => Wake::Tick,
            };
            match wake {
                Wake::Event(first) => {
                    tokio::time::sleep(self.trail.settings.batch_wait).await;
                    self.take(vec![first]).await;
                }
                Wake::Backlog => {
                    self.write_backlog().await;
                    let waited = self.trail.clock.now().saturating_duration_since(self.taken_at);
                    if self.outbox.len() > BATCH_MAX / 2 || waited > self.trail.settings.batch_wait {
                        self.take(Vec::new()).await;
                    }
                }
                Wake::Changed => {}
                Wake::Tick => self.settle().await,
                Wake::Stop => return self.finish().await,
            }
            self.show().await;
        }
    }

    async fn finish(mut self) {
        self.is_stopping = true;
        self.keep_days();
        while !self.outbox.is_empty() {
            self.take(Vec::new()).await;
        }
        // A gap that the last batch left.
        self.take(Vec::new()).await;
        self.show().await;
        let _ = tokio::time::timeout(STOP_WAIT, self.days.join_next()).await;
    }

    /// Makes a batch of `events` and what else waits, and writes it or puts it on disk.
    async fn take(&mut self, mut events: Vec<Event>) {
        self.taken_at = self.trail.clock.now();
        while events.len() < BATCH_MAX
            && let Ok(event) = self.outbox.try_recv()
        {
            events.push(event);
        }
        let Some(batch) = self.batch(events) else { return };
        if self.is_away() || self.has_backlog() {
            self.put_aside(vec![batch]).await;
        } else {
            self.write(batch).await;
        }
    }

    fn batch(&mut self, mut events: Vec<Event>) -> Option<Arc<Batch>> {
        let dropped = self.trail.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            events.push(Event::new(self.trail.clock.utc(), Kind::Gap).field("count", dropped));
        }
        if events.is_empty() {
            return None;
        }
        events.iter_mut().filter_map(|event| event.party.as_mut()).for_each(tidy);
        self.number += 1;
        Some(Arc::new(Batch { writer: self.writer, number: self.number, events }))
    }

    /// A batch that nothing older waits before.
    async fn write(&mut self, batch: Arc<Batch>) {
        let mut is_aside = false;
        match self.append(&batch, &mut is_aside).await {
            // The server knows what it has when it comes again from disk.
            Ok(()) if is_aside => {}
            Ok(()) => {
                if self.spill.is_some() {
                    self.recent.push_back((self.trail.clock.now(), batch));
                }
            }
            Err(error) => {
                self.failed(&error);
                self.with_spill(Spill::rewind).await;
                if !is_aside {
                    self.put_aside_with_recent(batch).await;
                }
            }
        }
    }

    /// The oldest batch on disk. None is recent then: those went to disk before it.
    async fn write_backlog(&mut self) {
        let now = self.trail.clock.now();
        let batch = match self.with_spill(move |spill| spill.next(now)).await {
            Some(Ok(Some(batch))) => Arc::new(batch),
            Some(Ok(None)) | None => return,
            Some(Err(NextError::Disk(error))) => return self.failed(&error),
            Some(Err(error @ NextError::Damaged { events, .. })) => {
                tracing::error!(event = event::TRAIL_DROPPED, %error);
                return self.trail.drop_events(events);
            }
        };
        match self.append(&batch, &mut true).await {
            Ok(()) => {
                let now = self.trail.clock.now();
                self.with_spill(move |spill| spill.advance(now)).await;
            }
            Err(error) => {
                self.failed(&error);
                self.with_spill(Spill::rewind).await;
            }
        }
        self.settle().await;
    }

    /// Appends, and meanwhile lets nothing be lost: when the buffer is half full, what is in it goes to disk, after
    /// the batch itself and those before it (`is_aside`).
    async fn append(&mut self, batch: &Arc<Batch>, is_aside: &mut bool) -> Result<(), EngineError> {
        let (store, sent) = (Arc::clone(&self.trail.store), Arc::clone(batch));
        let mut append = pin!(async move { store.append(&sent).await });
        let mut waited = Duration::ZERO;
        loop {
            tokio::select! {
                done = &mut append => {
                    if done.is_ok() {
                        (self.failures, self.away_until) = (0, None);
                    }
                    return done;
                }
                () = tokio::time::sleep(WATCH) => waited += WATCH,
            }
            if self.is_stopping && self.spill.is_some() && waited >= STOP_WAIT {
                return Err(EngineError::Closing);
            }
            if self.spill.is_some() && self.outbox.len() > self.trail.settings.buffer_events / 2 {
                if !*is_aside {
                    self.put_aside_with_recent(Arc::clone(batch)).await;
                    *is_aside = true;
                }
                let mut events = Vec::new();
                while events.len() < BATCH_MAX
                    && let Ok(event) = self.outbox.try_recv()
                {
                    events.push(event);
                }
                if let Some(batch) = self.batch(events) {
                    self.put_aside(vec![batch]).await;
                }
            }
        }
    }

    async fn put_aside_with_recent(&mut self, batch: Arc<Batch>) {
        let mut aside: Vec<Arc<Batch>> = self.recent.drain(..).map(|(_, batch)| batch).collect();
        aside.push(batch);
        self.put_aside(aside).await;
    }

    /// Puts batches on disk, or counts what finds no place there.
    async fn put_aside(&mut self, batches: Vec<Arc<Batch>>) {
        for batch in batches {
            let kept = Arc::clone(&batch);
            let error = match self.with_spill(move |spill| spill.push(&kept)).await {
                Some(Ok(())) => continue,
                Some(Err(SpillError::Full)) => SpillError::Full.to_string(),
                Some(Err(SpillError::Disk(error))) => error.to_string(),
                // The embedded engine has nothing else to put it on.
                None => "not stored".to_owned(),
            };
            let count = batch.events.iter().map(worth).sum();
            self.trail.drop_events(count);
            tracing::error!(event = event::TRAIL_DROPPED, count, %error);
        }
    }

    fn failed(&mut self, error: &EngineError) {
        if self.failures == 0 {
            tracing::error!(event = event::TRAIL_AWAY, %error);
        }
        let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        self.away_until = self.spill.is_some().then(|| self.trail.clock.now() + pause);
    }

    fn is_away(&self) -> bool {
        self.away_until.is_some_and(|until| self.trail.clock.now() < until)
    }

    fn has_backlog(&self) -> bool {
        self.spill.as_ref().is_some_and(|spill| !spill.lock().is_empty())
    }

    /// Lets go of what the engine will not forget any more.
    async fn settle(&mut self) {
        let (now, settles) = (self.trail.clock.now(), self.trail.store.settles());
        while self.recent.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= settles) {
            self.recent.pop_front();
        }
        // More are not held in memory; a crash of the server can then cost some.
        while self.recent.iter().map(|(_, batch)| batch.events.len()).sum::<usize>() > self.trail.settings.buffer_events
        {
            self.recent.pop_front();
        }
        let bytes = self.with_spill(move |spill| {
            spill.settle(now, settles);
            spill.bytes()
        });
        if let Some(bytes) = bytes.await {
            metrics::gauge!("ortler_trail_spill_bytes")
                .set(f64::from(u32::try_from(bytes >> 10).unwrap_or(u32::MAX)) * 1024.0);
        }
    }

    /// Shows viewers what is new.
    async fn show(&mut self) {
        if self.is_away() {
            return;
        }
        // The next tick tries again.
        let _ = tokio::time::timeout(SHOW_WAIT, self.tail.show(&self.trail)).await;
    }

    /// Starts to drop old days and to make new ones, once a day and after a failure.
    fn keep_days(&mut self) {
        let (now, today) = (self.trail.clock.now(), day_of(self.trail.clock.utc()));
        while let Some(done) = self.days.try_join_next() {
            match done {
                Ok(true) => {}
                Ok(false) | Err(_) => (self.day, self.days_after) = (None, Some(now + DAYS_PAUSE)),
            }
        }
        if self.day == Some(today) || !self.days.is_empty() || self.days_after.is_some_and(|after| now < after) {
            return;
        }
        self.day = Some(today);
        let oldest = day_of(self.trail.clock.utc().minus(self.trail.settings.retention));
        let store = Arc::clone(&self.trail.store);
        self.days.spawn(async move {
            let kept = store.keep_days(oldest, today).await;
            kept.inspect_err(|error| tracing::warn!(event = event::TRAIL_AWAY, %error)).is_ok()
        });
    }

    /// Works with the disk on a thread where it may block.
    async fn with_spill<T: Send + 'static>(&self, work: impl FnOnce(&mut Spill) -> T + Send + 'static) -> Option<T> {
        let spill = Arc::clone(self.spill.as_ref()?);
        tokio::task::spawn_blocking(move || work(&mut spill.lock())).await.ok()
    }
}

/// An address that every engine takes; real ones are.
fn tidy(party: &mut Party) {
    if party.address.len() > ADDRESS_MAX || party.address.contains('\0') {
        party.address = cut(&party.address, ADDRESS_MAX).replace('\0', "");
    }
}

/// How many events are lost with one: a gap stands for those that it counted.
fn worth(event: &Event) -> u64 {
    match event.kind {
        Kind::Gap => event.fields.get("count").and_then(serde_json::Value::as_u64).unwrap_or(1),
        _ => 1,
    }
}
