//! The seam: what an engine of the trail does. Both pass the same contract tests.

use std::sync::Arc;

use async_trait::async_trait;
use base::{MessageId, UtcMillis};
use engine::EngineError;
use engine::table::Place;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::count::{Bucket, Span};
use crate::event::Event;
use crate::query::Query;
use crate::row::{StoredMessage, ToldEvent};
use crate::scope::Scope;

/// Events that are stored together, or not at all where the engine can promise that.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Who wrote it: a number of this run of this node.
    pub(crate) writer: u64,
    /// Rises from batch to batch of a writer; they are appended in this order.
    pub(crate) number: u64,
    pub(crate) events: Vec<Event>,
}

/// Changes in the order in which they became visible.
#[derive(Debug)]
pub(crate) struct Changes {
    /// Oldest change first, one for each message; `row.seq` is where in the order it lies.
    pub(crate) messages: Vec<StoredMessage>,
    /// Every change up to here is in `messages`, or nobody's in the scope.
    pub(crate) upto: u64,
    pub(crate) has_more: bool,
}

/// Events that one reading of [`TrailStore::changes`] looks at.
pub(crate) const CHANGES_MAX: usize = 2000;
/// Events of one story.
pub(crate) const STORY_MAX: usize = 5000;
/// Recipients told of one message.
pub(crate) const PARTIES_MAX: usize = 1000;

#[async_trait]
pub(crate) trait TrailStore: Send + Sync {
    /// Stores a batch, and the rows and counters it changes. Sequence numbers rise in the order in which batches become
    /// visible, over all nodes: who has seen one has missed none below.
    ///
    /// # Errors
    /// Whether the batch is stored may be open. An engine of several nodes takes it again, and knows it; what it stored
    /// before may be gone too, see [`TrailStore::settles`].
    async fn append(&self, batch: &Arc<Batch>) -> Result<(), EngineError>;

    /// Messages in scope that match, newest first.
    async fn messages(&self, scope: &Scope, query: &Query, limit: usize) -> Result<Vec<StoredMessage>, EngineError>;

    async fn message(&self, scope: &Scope, id: MessageId) -> Result<Option<StoredMessage>, EngineError>;

    /// Everything that happened to a message, in order.
    async fn story(&self, id: MessageId) -> Result<Vec<ToldEvent>, EngineError>;

    /// What events after `after` changed, today and yesterday.
    async fn changes(&self, scope: &Scope, after: u64) -> Result<Changes, EngineError>;

    async fn buckets(&self, scope: &Scope, span: Span) -> Result<Vec<Bucket>, EngineError>;

    /// The newest sequence number.
    async fn last_seq(&self) -> Result<u64, EngineError>;

    /// Drops whole days before `oldest` and makes ready for those to come.
    async fn keep_days(&self, oldest: Date, today: Date) -> Result<(), EngineError>;

    /// Days that have a file or partitions, oldest first.
    async fn days(&self) -> Result<Vec<Date>, EngineError>;

    /// Where the rows of a day lie, for a copy of them all; made if need be.
    async fn place_of(&self, day: Date) -> Result<Place, EngineError>;

    /// Numbers given from now on are above this one.
    async fn go_on_after(&self, last: u64) -> Result<(), EngineError>;

    /// Resolves when another node has written, or may have. Cancel safe.
    async fn changed(&self);

    /// For how long after [`TrailStore::append`] an engine that crashed may have forgotten a batch. A worker keeps it as long.
    fn settles(&self) -> std::time::Duration;
}

/// The day in whose file or partition it lies.
pub(crate) fn day_of(at: UtcMillis) -> Date {
    let timestamp = jiff::Timestamp::from_millisecond(at.0).unwrap_or_default();
    timestamp.to_zoned_datetime(TimeZone::UTC).date()
}

/// A message's events lie in the day its id was made.
pub(crate) fn day_of_event(event: &Event) -> Date {
    day_of(event.message.map_or(event.at, MessageId::made_at))
}
