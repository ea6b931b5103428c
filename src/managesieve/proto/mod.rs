//! The language: where a command ends, and what it says.

mod command;
mod frame;

pub use command::{Command, parse, parse_string};
pub use frame::{COMMAND_MAX, Frame, next};
