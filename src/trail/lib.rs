//! The trail: what happened to every message, from connect to mailbox, for those who may see it.
//!
//! Floor: 2. It must never know about protocols or mailboxes, and mail flow never waits for it: when the buffer is full,
//! events are counted and dropped, and the gap is recorded.
//! Main types: [`Event`], [`Trail`] (record, tail, query), [`Scope`].
//! Surprise: a message's rows lie in the file of the day its id was made, so that one file tells its whole story.

mod count;
mod day;
mod event;
mod query;
mod row;
mod schema;
mod scope;
#[cfg(test)]
mod tests;
#[allow(clippy::module_inception, reason = "the crate's main type has the crate's name")]
mod trail;

pub use count::{Bucket, Span};
pub use event::{Event, Kind, Outcome, Party};
pub use query::{InvalidQuery, Query};
pub use row::{MessageRow, PartyRow, StoredEvent};
pub use scope::Scope;
pub use trail::{Settings, Trail, TrailError, Update, Worker};
