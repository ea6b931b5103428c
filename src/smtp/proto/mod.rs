//! The language: command lines, replies, and where content ends.

mod command;
mod data;
mod line;
mod reply;

pub use command::{Command, Fault, MailParameters, parse, parse_xclient};
pub use data::{ChunkChecker, DotDecoder};
pub use line::{Line, next_line};
pub use reply::Reply;
