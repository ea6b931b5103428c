//! Milters: external ones that we ask, and our own filter for other mail servers.

pub mod proto;

mod answer;
mod client;
mod serve;
mod session;

pub use client::{External, MilterSettings, WhenAway, ask};
pub use serve::serve;
