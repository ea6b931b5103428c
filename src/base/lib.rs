//! Identities, time, units and secrets: the words every other crate shares.
//!
//! Floor: ground (no async, no I/O; the two places that touch the machine are [`SystemClock`] and
//! [`IdSource`], both injected). It must never know about protocols, storage or configuration.
//! Main types: the ids in [`ids`], [`Clock`], [`ByteSize`], [`Secret`].
//! Surprise: zero is not a [`Uid`], [`UidValidity`] or [`ModSeq`]; IMAP forbids it and the types do too.
//! The list of files here is closed: a new one needs an entry in DECISIONS.md.

pub mod clock;
pub mod event;
pub mod ids;
pub mod secret;
pub mod units;

pub use clock::{Clock, FakeClock, SystemClock, UtcMillis};
pub use ids::{
    AccountId, BlobId, DomainId, IdSource, MailboxId, MessageId, ModSeq, PoolId, SessionId, TenantId, Uid, UidValidity,
};
pub use secret::Secret;
pub use units::{ByteSize, Quota};
