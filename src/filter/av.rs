//! Virus scanners: the seam, and clamd behind it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use base::Clock;
use bytes::Bytes;
use clamav_client::tokio::{Socket, Tcp, ping, scan_buffer};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::address::ServiceAddress;

/// Looks for known viruses.
pub trait Scanner: Send + Sync {
    /// Ends in bounded time. Cancel safe.
    fn scan<'a>(&'a self, message: &'a Bytes) -> Pin<Box<dyn Future<Output = Scanned> + Send + 'a>>;
}

/// What a scanner said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scanned {
    Clean,
    /// The virus's name: one line.
    Found(Arc<str>),
    /// Longer than the scanner takes.
    TooLarge,
    /// No scanner gave an answer, and why.
    Unavailable(String),
}

/// How clamd is used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClamdSettings {
    /// Asked in turn; one that fails is passed over for a while.
    pub servers: Vec<ServiceAddress>,
    /// For one message at one server.
    pub scan_timeout: Duration,
    /// Scans at a time, over all servers; more wait.
    pub concurrent_max: usize,
    /// clamd's own `StreamMaxLength`.
    pub size_bytes_max: usize,
    /// How long a failed server is left alone.
    pub retry_after: Duration,
}

impl ClamdSettings {
    pub fn new(servers: Vec<ServiceAddress>) -> Self {
        Self {
            servers,
            scan_timeout: Duration::from_secs(60),
            concurrent_max: 16,
            size_bytes_max: 100 * 1024 * 1024,
            retry_after: Duration::from_secs(5),
        }
    }
}

/// A pool of clamd servers.
pub struct Clamd {
    settings: ClamdSettings,
    slots: Semaphore,
    next: AtomicUsize,
    /// Per server: until when it is left alone.
    down_until: Vec<RwLock<Option<Instant>>>,
    clock: Arc<dyn Clock>,
}

const PING_TIMEOUT: Duration = Duration::from_secs(2);
const CHUNK: usize = 64 * 1024;

impl Clamd {
    pub fn new(settings: ClamdSettings, clock: Arc<dyn Clock>) -> Self {
        Self {
            slots: Semaphore::new(settings.concurrent_max.max(1)),
            next: AtomicUsize::new(0),
            down_until: settings.servers.iter().map(|_| RwLock::new(None)).collect(),
            settings,
            clock,
        }
    }

    /// True if at least one server answers a ping. For `/readyz` and start-up messages.
    pub async fn is_healthy(&self) -> bool {
        for server in &self.settings.servers {
            let answer = timeout(PING_TIMEOUT, async {
                match server {
                    ServiceAddress::Tcp(address) => ping(Tcp { host_address: address.as_str() }).await,
                    ServiceAddress::Socket(path) => ping(Socket { socket_path: path }).await,
                }
            });
            if matches!(answer.await, Ok(Ok(reply)) if reply.starts_with(b"PONG")) {
                return true;
            }
        }
        false
    }

    async fn scan_somewhere(&self, message: &Bytes) -> Scanned {
        if message.len() > self.settings.size_bytes_max {
            return Scanned::TooLarge;
        }
        let all = async { self.slots.acquire().await };
        let Ok(Ok(_slot)) = timeout(self.settings.scan_timeout, all).await else {
            return Scanned::Unavailable("all scanners are busy".into());
        };
        let count = self.settings.servers.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.now();
        let mut reason = "no scanner is configured".to_owned();
        let is_up = |at: &usize| self.down_until.get(*at).is_some_and(|until| *read(until) < Some(now));
        // Those believed down come last: they may be back, and there is nobody else to ask.
        let order: Vec<usize> = (0..count).map(|step| first.wrapping_add(step) % count).collect();
        let (up, down): (Vec<usize>, Vec<usize>) = order.into_iter().partition(is_up);
        for at in up.into_iter().chain(down) {
            let (Some(server), Some(state)) = (self.settings.servers.get(at), self.down_until.get(at)) else {
                continue;
            };
            match scan_at(server, message, self.settings.scan_timeout).await {
                Ok(answer) => {
                    *state.write().unwrap_or_else(PoisonError::into_inner) = None;
                    return answer;
                }
                Err(why) => {
                    reason = format!("{server}: {why}");
                    let until = self.clock.now() + self.settings.retry_after;
                    *state.write().unwrap_or_else(PoisonError::into_inner) = Some(until);
                }
            }
        }
        Scanned::Unavailable(reason)
    }
}

impl Scanner for Clamd {
    fn scan<'a>(&'a self, message: &'a Bytes) -> Pin<Box<dyn Future<Output = Scanned> + Send + 'a>> {
        Box::pin(self.scan_somewhere(message))
    }
}

fn read(lock: &RwLock<Option<Instant>>) -> std::sync::RwLockReadGuard<'_, Option<Instant>> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

async fn scan_at(server: &ServiceAddress, message: &Bytes, limit: Duration) -> Result<Scanned, String> {
    let scan = async {
        match server {
            ServiceAddress::Tcp(address) => {
                scan_buffer(message, Tcp { host_address: address.as_str() }, Some(CHUNK)).await
            }
            ServiceAddress::Socket(path) => scan_buffer(message, Socket { socket_path: path }, Some(CHUNK)).await,
        }
    };
    match timeout(limit, scan).await {
        Ok(Ok(reply)) => parse_reply(&reply),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_late) => Err("no answer in time".into()),
    }
}

/// `stream: OK`, `stream: NAME FOUND`, `... ERROR`, each ended by NUL.
fn parse_reply(reply: &[u8]) -> Result<Scanned, String> {
    let text = String::from_utf8_lossy(reply);
    let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    if let Some(found) = text.strip_suffix(" FOUND") {
        let name = found.split_once(": ").map_or(found, |(_, name)| name);
        return Ok(Scanned::Found(crate::proof::one_line(name).into()));
    }
    if text.contains("size limit exceeded") {
        return Ok(Scanned::TooLarge);
    }
    match text.split_once(": ") {
        Some((_, "OK")) => Ok(Scanned::Clean),
        _ if text.is_empty() => Err("connection closed without an answer".into()),
        _ => Err(crate::proof::one_line(text)),
    }
}

#[cfg(test)]
#[path = "av_tests.rs"]
mod tests;
