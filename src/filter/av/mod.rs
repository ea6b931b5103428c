//! Virus scanners: the seam, and clamd behind it.

mod breaker;
mod cache;
mod clamd;
mod protocol;
mod version;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use clamd::Clamd;
pub use version::ScannerVersion;

use crate::address::ServiceAddress;

/// Looks for known viruses.
pub trait Scanner: Send + Sync {
    /// Ends in bounded time. Cancel safe.
    fn scan<'a>(&'a self, message: &'a Bytes) -> Pin<Box<dyn Future<Output = Scanned> + Send + 'a>>;

    /// Looks after the scanners: which answer, and what they know. Never ends. Cancel safe.
    fn watch(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }

    /// How each scanner stands, as last seen. For people and monitoring.
    fn states(&self) -> Vec<ScannerState> {
        Vec::new()
    }
}

/// What a scanner said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scanned {
    Clean,
    /// The virus's name: one line.
    Found(Arc<str>),
    /// A guess by form, or something that cannot be looked into: its name, one line.
    Suspected(Arc<str>),
    /// Longer than the scanner takes.
    TooLarge,
    /// No scanner gave an answer, and why.
    Unavailable(String),
}

/// How one scanner stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScannerState {
    /// As configured.
    pub server: String,
    pub is_up: bool,
    /// `None` until it was asked.
    pub version: Option<ScannerVersion>,
    /// How old its signatures are; `None` where it does not say.
    pub signatures_age: Option<Duration>,
}

/// How clamd is used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClamdSettings {
    /// Asked in turn; one that fails is passed over for a while.
    pub servers: Vec<ServiceAddress>,
    /// For one message at one server.
    pub scan_timeout: Duration,
    /// For a sign of life.
    pub probe_timeout: Duration,
    /// Scans at a time, over all servers; more wait.
    pub concurrent_max: usize,
    /// clamd's own `StreamMaxLength`.
    pub size_bytes_max: usize,
    /// How long a failed server is left alone at first; twice as long each time it fails again.
    pub retry_after: Duration,
    pub retry_after_max: Duration,
    /// A server that has been silent so long is asked for a sign of life before a message is given to it.
    pub idle_max: Duration,
    /// How often each server is asked for its version when there is nothing to scan.
    pub watch_every: Duration,
    /// Verdicts that are remembered, and how long: a sender that comes again brings the same octets.
    pub cache_entries: usize,
    pub cache_ttl: Duration,
}

impl ClamdSettings {
    pub fn new(servers: Vec<ServiceAddress>) -> Self {
        Self {
            servers,
            scan_timeout: Duration::from_secs(60),
            probe_timeout: Duration::from_secs(2),
            concurrent_max: 16,
            size_bytes_max: 100 * 1024 * 1024,
            retry_after: Duration::from_secs(5),
            retry_after_max: Duration::from_secs(60),
            idle_max: Duration::from_secs(5),
            watch_every: Duration::from_secs(30),
            cache_entries: 20_000,
            cache_ttl: Duration::from_secs(600),
        }
    }
}

#[cfg(test)]
mod tests;
