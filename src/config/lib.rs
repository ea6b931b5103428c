//! The node's configuration file: read once, checked whole, every complaint with file and line.
//!
//! Floor: 1. It must never know what the options do; the roles hand the values to those who do.
//! Main types: [`Config`], what the file says; [`option::OPTIONS`], the one definition of every option, from which
//! defaults, checks and the reference page come.
//! Surprise: only what a node needs to start is here; domains, accounts and policy live in the engine and change
//! without a restart.

mod listener;
mod load;
mod model;
pub mod option;
mod reference;
#[cfg(test)]
mod tests;
mod value;

pub use listener::{Listener, Service};
pub use load::ConfigError;
pub use model::{
    Config, LogFormat, Network, ObjectStore, Postgres, PostgresTls, Queue, Reports, Role, SendingLimits, TlsFiles, Way,
    WhenDown,
};
pub use reference::reference;
