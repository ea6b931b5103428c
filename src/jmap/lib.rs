//! JMAP core and mail (RFC 8620, RFC 8621) over the store's seams.
//!
//! Floor: 3. It must never know about HTTP: requests and answers are JSON values, and `web` serves them.
//! Main types: [`Jmap`], which answers requests; [`Submitter`], through which mail leaves.
//! Surprise: every state string is the account's mod-sequence, so that all types of an account change state together and
//! a client that compares states may ask `…/changes` once too often, never too seldom.

mod arguments;
mod blob;
mod core;
mod email;
mod error;
mod id;
mod identity;
mod mailbox;
mod mime;
#[cfg(test)]
mod plain_mime;
mod push;
mod quota;
mod reference;
mod snippet;
mod submission;
#[cfg(test)]
mod tests;
mod thread;

pub use blob::{BlobError, Download};
pub use core::{Jmap, JmapServices};
pub use error::RequestError;
pub use id::{account_id, email_id, parse_email_id, part_blob_id};
pub use mime::{Mime, PartText, Readable, inline_part};
pub use push::Watch;
pub use submission::{Submitted, Submitter};
