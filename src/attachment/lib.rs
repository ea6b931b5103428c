//! Tells what the attachments of a message are, by name and by content, and looks into archives and documents.
//!
//! Floor: 1, pure (no async, no I/O, no clock). It must never know what is done with what it sees.
//! Main types: [`Report`], [`Mark`], [`Limits`], [`archive::Listing`].
//! Surprise: nothing here fails. A container that is broken, encrypted or built to explode gives what can be seen of it
//! and a [`Mark`] that says so; content is unpacked within one budget for the whole message and never to disk.

pub mod archive;
pub mod bytes;
pub mod document;
pub mod inspect;
pub mod kind;
pub mod name;
pub mod report;
pub mod unpack;
pub mod uu;

pub use inspect::{Limits, inspect, inspect_part};
pub use kind::Kind;
pub use name::Name;
pub use report::{Mark, Report, Seen};
