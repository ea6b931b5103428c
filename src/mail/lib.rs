//! Mail as a thing of bytes: addresses, envelopes, status codes, header fields, dates and MIME structure.
//!
//! Floor: ground (no async, no I/O). It must never know about protocols, storage or policy.
//! Main types: [`Address`], [`ReversePath`], [`Envelope`], [`Status`], [`HeaderFields`].
//! Surprise: parsing a message never fails; it gives the best tree plus a list of defects, because
//! defects are evidence for the filter.

pub mod address;
pub mod date;
pub mod envelope;
pub mod header;
pub mod mime;
pub mod reply;
pub mod search;
pub mod status;
pub mod utf7;

pub use address::{Address, Domain, ForwardPath, InvalidAddress, LocalPart, ReversePath};
pub use envelope::{BodyKind, Envelope, HoldWish, NotifyWish, RecipientWish, Returns, Wishes};
pub use header::{HeaderField, HeaderFields};
pub use status::{Enhanced, Status};
