//! The trail itself: a bounded buffer in front, an engine behind, viewers beside.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::{Clock, IdSource, MessageId};
use engine::EngineError;
use engine::postgres::PgSettings;
use tokio::sync::{broadcast, mpsc};

use crate::count::{Bucket, Span};
use crate::days::Days;
use crate::event::Event;
use crate::live::{CHUNKS_KEPT, Chunk, Live};
use crate::postgres::Partitions;
use crate::query::Query;
use crate::row::{MessageRow, StoredEvent};
use crate::scope::Scope;
use crate::spill::Spill;
use crate::store::{TrailStore, day_of};
use crate::worker::Worker;

/// How the trail is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder of the day files, or of what waits for the server.
    pub folder: PathBuf,
    /// Days older than this are dropped whole.
    pub retention: Duration,
    /// Events that may wait to be written; beyond, they are counted and dropped.
    pub buffer_events: usize,
    /// Longest an event waits before its batch is written.
    pub batch_wait: Duration,
    /// What may wait on the node's disk while the server is away; beyond, events are counted and dropped.
    pub spill_bytes_max: u64,
}

impl Settings {
    pub fn in_folder(folder: PathBuf) -> Self {
        Self {
            folder,
            retention: Duration::from_secs(21 * 86_400),
            buffer_events: 100_000,
            batch_wait: Duration::from_millis(100),
            spill_bytes_max: 1 << 30,
        }
    }
}

/// A failed query.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the trail is unavailable")]
pub struct TrailError(#[from] pub EngineError);

/// Records, tails and queries. Cheap to share by `Arc`.
pub struct Trail {
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<dyn Clock>,
    inbox: mpsc::Sender<Event>,
    pub(crate) dropped: AtomicU64,
    pub(crate) chunks: broadcast::Sender<Arc<Chunk>>,
    pub(crate) store: Arc<dyn TrailStore>,
}

impl Trail {
    /// Keeps the trail in one file a day. The [`Worker`] must be run for anything to be stored.
    ///
    /// # Errors
    /// Names the file or folder.
    pub fn open(settings: Settings, clock: Arc<dyn Clock>) -> Result<(Arc<Self>, Worker), EngineError> {
        let store = Days::open(settings.folder.clone(), day_of(clock.utc()))?;
        Ok(Self::with(settings, clock, Arc::new(store), None, 0))
    }

    /// Keeps the trail on a server that several nodes share; what it does not take waits in the folder. A server that is
    /// away is no error: the node starts and its events wait.
    ///
    /// # Errors
    /// The folder cannot be used, or the tables are of a newer version.
    pub async fn open_postgres(
        settings: Settings,
        server: PgSettings,
        clock: Arc<dyn Clock>,
        ids: &IdSource,
    ) -> Result<(Arc<Self>, Worker), EngineError> {
        // A number of this run, that no other run of any node has.
        let [.., a, b, c, d, e, f, g, h] = ids.session(clock.utc()).to_bytes();
        let writer = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
        let store = Partitions::open(server, settings.retention, Arc::clone(&clock)).await?;
        let (folder, bytes_max) = (settings.folder.join("spill"), settings.spill_bytes_max);
        let spill = tokio::task::spawn_blocking(move || Spill::open(folder, bytes_max)).await;
        let spill = spill.map_err(|_| EngineError::Closing)??;
        let lost = spill.lost;
        let (trail, worker) = Self::with(settings, clock, Arc::new(store), Some(spill), writer);
        trail.drop_events(lost);
        Ok((trail, worker))
    }

    fn with(
        settings: Settings,
        clock: Arc<dyn Clock>,
        store: Arc<dyn TrailStore>,
        spill: Option<Spill>,
        writer: u64,
    ) -> (Arc<Self>, Worker) {
        let (inbox, outbox) = mpsc::channel(settings.buffer_events);
        let (chunks, dropped) = (broadcast::channel(CHUNKS_KEPT).0, AtomicU64::new(0));
        let trail = Arc::new(Self { settings, clock, inbox, dropped, chunks, store });
        let worker = Worker::new(Arc::clone(&trail), outbox, spill, writer);
        (trail, worker)
    }

    /// Records an event. Never waits: a full buffer drops the event and counts it.
    pub fn record(&self, event: Event) {
        if self.inbox.try_send(event).is_err() {
            self.drop_events(1);
        }
    }

    pub(crate) fn drop_events(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
        metrics::counter!("ortler_trail_dropped_total").increment(count);
    }

    /// New and changed messages as they come, from all nodes. Begins after `after`, which an earlier viewer had reached,
    /// or now.
    pub fn live(self: &Arc<Self>, scope: Scope, after: Option<u64>) -> Live {
        Live::new(Arc::clone(self), scope, after)
    }

    /// Messages in scope that match, newest first.
    pub async fn messages(&self, scope: &Scope, query: &Query, limit: usize) -> Result<Vec<MessageRow>, TrailError> {
        let found = self.store.messages(scope, query, limit).await?;
        Ok(found.into_iter().filter_map(|message| scope.view(message)).collect())
    }

    /// One message, if the scope admits it.
    pub async fn message(&self, scope: &Scope, id: MessageId) -> Result<Option<MessageRow>, TrailError> {
        Ok(self.store.message(scope, id).await?.and_then(|message| scope.view(message)))
    }

    /// A message's life story, in order; empty if the scope does not admit it.
    pub async fn story(&self, scope: &Scope, id: MessageId) -> Result<Vec<StoredEvent>, TrailError> {
        let Some(message) = self.message(scope, id).await? else { return Ok(Vec::new()) };
        let told = self.store.story(id).await?.into_iter();
        Ok(told.filter(|told| scope.tells(&message, told)).map(|told| told.event).collect())
    }

    /// Counts for a graph.
    pub async fn histogram(&self, scope: &Scope, span: Span) -> Result<Vec<Bucket>, TrailError> {
        Ok(self.store.buckets(scope, span).await?)
    }

    /// The newest sequence number: [`Trail::live`] goes on after it.
    pub async fn last_seq(&self) -> Result<u64, TrailError> {
        Ok(self.store.last_seq().await?)
    }
}
