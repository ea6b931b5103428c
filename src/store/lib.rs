//! Mailboxes: who has which message where, with which flags, and the content behind it.
//!
//! Floor: 2. It must never know about protocols, the directory's addresses or the filter.
//! Main types: [`MailStore`] and [`BlobStore`], the seams that both engines implement; [`Storage`], an engine
//! with all that belongs to it; [`Views`], the shared picture of each open mailbox; [`Signals`], which wakes
//! whoever waits for a change; [`EntryContent`], a message as its reader sees it.
//! Surprise: a message's content is stored once for all its recipients; what differs per recipient
//! (Return-Path, Delivered-To, the spam verdict) is the entry's [`Entry::prefix`], put in front on reading.

pub mod audit;
#[cfg(test)]
mod audit_tests;
mod blob;
mod bucket;
pub mod content;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod contract_held;
#[cfg(test)]
mod contract_queue;
#[cfg(test)]
mod contract_quota;
mod copy;
mod damage;
pub mod error;
#[cfg(test)]
mod fixture_tests;
mod gc;
mod held;
#[cfg(test)]
mod large_tests;
pub mod model;
mod notice;
#[cfg(any(test, feature = "server"))]
mod object_server;
pub mod picture;
mod postgres;
#[cfg(test)]
mod privacy_tests;
#[cfg(test)]
mod proof;
mod queue;
mod room;
#[cfg(test)]
mod s3_tests;
mod search;
pub mod signal;
mod sqlite;
pub mod storage;
#[cfg(test)]
mod storage_tests;
pub mod traits;
mod undelete;
pub mod view;

pub use audit::{AuditOptions, AuditPlace, AuditReport, Problem};
pub use blob::{SegmentSettings, SegmentStore};
pub use bucket::S3Settings;
pub use content::{EntryContent, Steps};
pub use copy::{CopyError, CopyReport};
pub use error::{AppendError, MailboxError, StoreError};
pub use gc::{GcReport, GcSettings};
pub use model::{
    AppendedEntry, Change, Changes, Committed, Copied, Delivery, EmailChanges, EmailId, Enqueued, Entry, EntryState,
    FlagChange, FlagOutcome, Flags, Held, HeldBy, HeldFacts, HeldFilter, HeldId, HeldMessage, HeldNote, InvalidHeldId,
    Keyword, Lane, LaneClaim, LaneLeft, LaneState, Mailbox, MailboxName, Needs, NewEntry, NewHeld, Notify, OverQuota,
    OwnerVerdict, PoolUsage, QueueAction, QueueCounts, QueueFilter, QueueItem, QueueJob, QueueRecipient, QueueState,
    Removed, RemovedMailbox, Restored, Role, Settled, StoredBlob, SystemFlags, Target, ThreadId, Usage,
};
#[cfg(any(test, feature = "server"))]
pub use object_server::ObjectServer;
pub use picture::{Differences, EntryView, Picture};
pub use postgres::{PgBlobs, PgStore};
pub use search::{Judge, SearchSettings, Searcher};
pub use signal::Signals;
pub use sqlite::{SqliteSettings, SqliteStore};
pub use storage::{Health, Storage, StorageSettings};
pub use traits::{BlobIndex, BlobStore, EmailState, HeldStore, MailStore, QueueStore};
pub use undelete::RestoredFolder;
pub use view::{View, ViewSettings, Views};
