//! PostgreSQL as the trail's engine: tables in day partitions that several nodes write at once.
//!
//! A batch is one call of one function, so one round trip and one transaction. Batches of all nodes take turns (a row is
//! held from the first number taken to the commit): what a reader sees has no holes, and nodes that count in the same
//! minute never lock each other out.

mod append;
mod partition;
mod read;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base::{Clock, MessageId};
use engine::EngineError;
use engine::postgres::{Migration, Notices, PgSettings, Pool, Session, migrate};
use engine::table::Place;
use jiff::civil::Date;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::count::{Bucket, Span};
use crate::query::Query;
use crate::row::{StoredMessage, ToldEvent};
use crate::scope::Scope;
use crate::store::{Batch, Changes, TrailStore, day_of};

pub(crate) const COMPONENT: &str = "trail";
pub(crate) const MIGRATIONS: &[Migration] = &[Migration { text: include_str!("schema-1.sql"), oldest: 1 }];

pub(crate) struct Partitions {
    readers: Arc<Pool>,
    writers: Pool,
    /// The writing connection. When it breaks, the server may have forgotten what it acknowledged.
    writing: tokio::sync::Mutex<Option<Session>>,
    retention: Duration,
    clock: Arc<dyn Clock>,
    /// Days that have partitions.
    days: Mutex<BTreeSet<Date>>,
    has_schema: AtomicBool,
    changed: Arc<Notify>,
    wrote: Arc<Notify>,
    _listener: JoinSet<()>,
}

const CHANNEL: &str = "ortler_trail";
/// Between two tries to listen.
const LISTEN_PAUSE: Duration = Duration::from_secs(1);
/// A commit that does not wait for the disk is there within three delays of the server's writer, 0.6 s by default.
const SETTLES: Duration = Duration::from_secs(5);

impl Partitions {
    /// # Errors
    /// The tables are of a newer version. A server that is away is none.
    pub(crate) async fn open(
        settings: PgSettings,
        retention: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, EngineError> {
        let (changed, wrote) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let mut listener = JoinSet::new();
        listener.spawn(listen(settings.clone(), Arc::clone(&changed), Arc::clone(&wrote)));
        let partitions = Self {
            readers: Arc::new(Pool::new(settings.clone())),
            writers: Pool::new(settings),
            writing: tokio::sync::Mutex::default(),
            retention,
            clock,
            days: Mutex::default(),
            has_schema: AtomicBool::new(false),
            changed,
            wrote,
            _listener: listener,
        };
        match partitions.make_schema().await {
            Err(error @ EngineError::TooNew { .. }) => return Err(error),
            Err(error) => tracing::error!(event = base::event::TRAIL_AWAY, %error),
            Ok(()) => {}
        }
        Ok(partitions)
    }

    async fn make_schema(&self) -> Result<(), EngineError> {
        if !self.has_schema.load(Ordering::Relaxed) {
            migrate(&self.readers, COMPONENT, MIGRATIONS).await?;
            self.has_schema.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn oldest_day(&self) -> Date {
        day_of(self.clock.utc().minus(self.retention))
    }
}

/// Tells other nodes that we wrote, and hears when they did. What is lost costs a second: every node looks by itself.
async fn listen(settings: PgSettings, changed: Arc<Notify>, wrote: Arc<Notify>) {
    loop {
        if let Ok(notices) = Notices::open(&settings, CHANNEL).await {
            changed.notify_one();
            loop {
                tokio::select! {
                    notice = notices.next() => match notice {
                        Ok(_) => changed.notify_one(),
                        Err(_) => break,
                    },
                    () = wrote.notified() => if notices.say("").await.is_err() { break },
                }
            }
        }
        tokio::time::sleep(LISTEN_PAUSE).await;
    }
}

#[async_trait]
impl TrailStore for Partitions {
    async fn append(&self, batch: &Arc<Batch>) -> Result<(), EngineError> {
        self.make_schema().await?;
        let appended = self.append_batch(batch).await;
        match &appended {
            Ok(()) => self.wrote.notify_one(),
            // Another node may have dropped a day that we think is there.
            Err(_) => self.days.lock().clear(),
        }
        appended
    }

    async fn messages(&self, scope: &Scope, query: &Query, limit: usize) -> Result<Vec<StoredMessage>, EngineError> {
        read::messages(&self.readers, scope, query, limit).await
    }

    async fn message(&self, scope: &Scope, id: MessageId) -> Result<Option<StoredMessage>, EngineError> {
        Ok(read::by_ids(&self.readers, scope, &[(id, None)]).await?.pop())
    }

    async fn story(&self, id: MessageId) -> Result<Vec<ToldEvent>, EngineError> {
        read::story(&self.readers, id).await
    }

    async fn changes(&self, scope: &Scope, after: u64) -> Result<Changes, EngineError> {
        let today = day_of(self.clock.utc());
        read::changes(&self.readers, scope, after, today.yesterday().unwrap_or(today)).await
    }

    async fn buckets(&self, scope: &Scope, span: Span) -> Result<Vec<Bucket>, EngineError> {
        read::buckets(&self.readers, scope, span).await
    }

    async fn last_seq(&self) -> Result<u64, EngineError> {
        read::last_seq(&self.readers).await
    }

    async fn keep_days(&self, oldest: Date, today: Date) -> Result<(), EngineError> {
        self.make_schema().await?;
        self.make_days(partition::days_ahead(today)).await?;
        partition::drop_before(&self.readers, oldest).await
    }

    async fn days(&self) -> Result<Vec<Date>, EngineError> {
        self.make_schema().await?;
        partition::stored(&self.readers).await
    }

    async fn place_of(&self, day: Date) -> Result<Place, EngineError> {
        self.make_schema().await?;
        self.make_days(vec![day]).await?;
        Ok(Place::Postgres(Arc::clone(&self.readers)))
    }

    async fn go_on_after(&self, last: u64) -> Result<(), EngineError> {
        let sql = self.readers.session().await?;
        let last = i64::try_from(last).unwrap_or(i64::MAX);
        sql.execute("UPDATE trail_state SET seq = greatest(seq, $1)", &[&last]).await?;
        sql.give_back();
        Ok(())
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }

    fn settles(&self) -> Duration {
        SETTLES
    }
}
