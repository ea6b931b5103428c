//! Mailboxes as other programs keep them: Maildir folders and mbox files, read and written.
//!
//! Floor: 4. It must never know about sockets, the directory or where our own mail comes from.
//! Main types: [`Folder`], [`maildir::Reader`], [`maildir::Writer`], [`mbox::Reader`], [`mbox::Writer`], [`Message`], [`Trouble`].
//! Surprise: damage is never an error that ends a run. It is a [`Trouble`] that names the place, and reading goes on
//! behind it. One message is in memory at a time, at most as large as the caller allows.

pub mod folder;
pub mod maildir;
pub mod mapping;
pub mod mbox;
mod message;

pub use folder::Folder;
pub use message::{Message, Trouble, with_crlf};
