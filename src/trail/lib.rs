//! The trail: what happened to every message, from connect to mailbox, for those who may see it.
//!
//! Floor: 2. It must never know about protocols or mailboxes, and mail flow never waits for it: when the buffer is full,
//! events are counted and dropped, and the gap is recorded.
//! Main types: [`Event`], [`Trail`] (record, tail, query), [`Scope`].
//! Two engines: one file a day on the node, or day partitions on a PostgreSQL server that nodes share; what that server does
//! not take waits on the node's disk.
//! Surprise: a message's rows lie in the file or partition of the day its id was made, so that one place tells its story.

mod copy;
mod count;
mod day;
mod days;
mod disk;
mod event;
mod fold;
mod live;
mod postgres;
mod query;
mod row;
mod schema;
mod scope;
mod spill;
mod sql;
mod store;
#[cfg(test)]
mod tests;
#[allow(clippy::module_inception, reason = "the crate's main type has the crate's name")]
mod trail;
mod worker;

pub use copy::TrailCopy;
pub use count::{Bucket, Span};
pub use event::{Event, Kind, Outcome, Party};
pub use live::Live;
pub use query::{InvalidQuery, Query};
pub use row::{MessageRow, PartyRow, StoredEvent};
pub use scope::Scope;
pub use trail::{Settings, Trail, TrailError};
pub use worker::Worker;
