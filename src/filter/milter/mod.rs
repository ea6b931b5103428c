//! Milters: external ones that we ask, and our own filter for other mail servers.

pub mod proto;

mod answer;
mod chain;
mod client;
mod edit;
mod link;
mod serve;
mod session;
mod settings;
mod wish;

pub use chain::{External, Milters};
pub use client::{Greeting, Login, Peer, Start};
pub use serve::serve;
pub use settings::{InvalidMilter, MilterSettings, WhenAway};
