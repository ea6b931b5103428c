//! The language of IMAP: framing, commands, sets, names and responses. Pure: bytes in, values and bytes out.

pub mod append;
pub mod frame;
pub mod parse;
pub mod reply;
mod scan;
mod search;
pub mod sequence;
pub mod types;
pub mod write;

pub use frame::{Event, Framer};
pub use parse::{ParseError, parse};
pub use reply::{Reply, Status};
pub use sequence::{Ranges, SequenceSet};
pub use types::*;
