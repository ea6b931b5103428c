//! IMAP4rev1 (RFC 3501): mailboxes over the wire, with LITERAL+, SASL-IR, ID, ENABLE, IDLE, NAMESPACE, UNSELECT,
//! UIDPLUS, MOVE, MULTIAPPEND, CHILDREN, LIST-EXTENDED, LIST-STATUS, SPECIAL-USE, CREATE-SPECIAL-USE, STATUS=SIZE,
//! CONDSTORE, ESEARCH, WITHIN, OBJECTID, PREVIEW and QUOTA.
//!
//! Floor: 3. It must never know about engines, SMTP or configuration files.
//! Main types: [`serve`], which runs one connection on [`Services`] under a [`Config`]; [`proto`], the language.
//! Surprise: a session holds no messages. It holds the picture of the mailbox that its client was last told; news are
//! the differences to a later picture, told at the moments when RFC 3501 lets sequence numbers change.

mod append;
mod batch;
mod change;
pub mod config;
mod connection;
mod content;
mod fetch;
mod idle;
mod login;
mod mailboxes;
mod mime;
pub mod proto;
mod quota;
mod search;
mod select;
mod serve;
mod session;
mod structure;
mod sync;
#[cfg(test)]
mod tests;
mod wire;

pub use config::Config;
pub use connection::Services;
pub use mime::Mime;
pub use serve::{serve, serve_led};
pub use wire::Duplex;
