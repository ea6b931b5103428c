//! A pool of clamd servers.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::{Clock, event};
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::breaker::{Breaker, Permit};
use super::cache::Cache;
use super::version::ScannerVersion;
use super::{ClamdSettings, Scanned, Scanner, ScannerState, protocol};
use crate::address::ServiceAddress;

/// Several clamd servers, used in turn.
pub struct Clamd {
    settings: ClamdSettings,
    servers: Vec<Server>,
    slots: Semaphore,
    next: AtomicUsize,
    cache: Cache,
    clock: Arc<dyn Clock>,
}

struct Server {
    address: ServiceAddress,
    /// For metrics and the log.
    name: String,
    state: Mutex<State>,
}

struct State {
    breaker: Breaker,
    version: Option<ScannerVersion>,
}

/// Signatures that are older than this are told in the log.
const OLD_SIGNATURES: Duration = Duration::from_secs(7 * 24 * 3600);

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever tries a server that failed gives its turn back if he is stopped.
struct Turn<'a> {
    server: &'a Server,
    clock: &'a dyn Clock,
    is_over: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.server.state().breaker.released(self.clock.now());
        }
    }
}

impl Clamd {
    pub fn new(settings: ClamdSettings, clock: Arc<dyn Clock>) -> Self {
        let server = |address: &ServiceAddress| Server {
            address: address.clone(),
            name: address.to_string(),
            state: Mutex::new(State {
                breaker: Breaker::new(settings.retry_after, settings.retry_after_max),
                version: None,
            }),
        };
        Self {
            servers: settings.servers.iter().map(server).collect(),
            slots: Semaphore::new(settings.concurrent_max.max(1)),
            next: AtomicUsize::new(0),
            cache: Cache::new(settings.cache_entries, settings.cache_ttl),
            settings,
            clock,
        }
    }

    /// True if at least one server answers. For start-up messages and tests.
    pub async fn is_healthy(&self) -> bool {
        for server in &self.servers {
            if self.probe(server).await.is_ok() {
                return true;
            }
        }
        false
    }

    /// The version line of the newest signatures that a server has which is up.
    fn signatures(&self) -> Option<String> {
        let versions = self.servers.iter().filter_map(|server| {
            let state = server.state();
            state.version.clone().filter(|_| state.breaker.is_up())
        });
        versions.max_by_key(|version| (version.signatures, version.made_at)).map(|version| version.line)
    }

    async fn scan_somewhere(&self, message: &Bytes) -> Scanned {
        if message.len() > self.settings.size_bytes_max {
            return Scanned::TooLarge;
        }
        let digest = *blake3::hash(message).as_bytes();
        if let Some(signatures) = self.signatures()
            && let Some(verdict) = self.cache.get(&digest, &signatures, self.clock.now())
        {
            count("remembered");
            return verdict;
        }
        let Ok(Ok(_slot)) = timeout(self.settings.scan_timeout, self.slots.acquire()).await else {
            count("unavailable");
            return Scanned::Unavailable("all scanners are busy".into());
        };
        let verdict = self.ask_in_turn(message, &digest).await;
        count(match &verdict {
            Scanned::Clean => "clean",
            Scanned::Found(_) => "found",
            Scanned::Suspected(_) => "suspected",
            Scanned::TooLarge => "too-large",
            Scanned::Unavailable(_) => "unavailable",
        });
        verdict
    }

    async fn ask_in_turn(&self, message: &Bytes, digest: &[u8; 32]) -> Scanned {
        let mut reason = "no scanner is configured".to_owned();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let in_turn: Vec<&Server> = (0..self.servers.len())
            .filter_map(|step| self.servers.get(first.wrapping_add(step) % self.servers.len()))
            .collect();
        // A server that failed is tried before its time where nobody else is left: it may be back.
        let mut asked = vec![false; in_turn.len()];
        for is_last_resort in [false, true] {
            for (server, asked) in in_turn.iter().zip(&mut asked) {
                if *asked {
                    continue;
                }
                let now = self.clock.now();
                let permit = {
                    let breaker = &mut server.state().breaker;
                    match is_last_resort {
                        false => breaker.permit(now, self.settings.idle_max),
                        true => breaker.try_anyway(now),
                    }
                };
                *asked = permit != Permit::Refused;
                match self.scan_with(server, permit, message, digest).await {
                    Some(Ok(verdict)) => return verdict,
                    Some(Err(why)) => reason = format!("{}: {why}", server.name),
                    None if is_last_resort => reason = format!("{}: failed a moment ago", server.name),
                    None => {}
                }
            }
        }
        Scanned::Unavailable(reason)
    }

    /// `None` if the server must not be asked now.
    async fn scan_with(
        &self,
        server: &Server,
        permit: Permit,
        message: &Bytes,
        digest: &[u8; 32],
    ) -> Option<Result<Scanned, String>> {
        let mut turn = Turn { server, clock: &*self.clock, is_over: permit != Permit::Probe };
        match permit {
            Permit::Refused => return None,
            Permit::Scan => {}
            Permit::Probe => {
                let probed = self.probe(server).await;
                turn.is_over = true;
                if let Err(why) = probed {
                    return Some(Err(why));
                }
            }
        }
        let before = server.state().version.clone();
        match protocol::scan(&server.address, message, self.settings.scan_timeout).await {
            Ok(verdict) => {
                self.answered(server);
                let now = self.clock.now();
                let after = server.state().version.clone();
                // Signatures that changed meanwhile: nobody knows which of them it was scanned with.
                if let (Some(before), Some(after)) = (before, after)
                    && before == after
                {
                    self.cache.put(*digest, &after.line, &verdict, now);
                }
                Some(Ok(verdict))
            }
            Err(why) => {
                self.failed(server, &why);
                Some(Err(why))
            }
        }
    }

    /// Asks a server for its version. What comes of it is kept.
    async fn probe(&self, server: &Server) -> Result<(), String> {
        let reply = protocol::version(&server.address, self.settings.probe_timeout).await;
        let version = reply.and_then(|reply| ScannerVersion::parse(&reply).ok_or_else(|| "not clamd".to_owned()));
        match version {
            Ok(version) => {
                self.learned(server, version);
                self.answered(server);
                Ok(())
            }
            Err(why) => {
                self.failed(server, &why);
                Err(why)
            }
        }
    }

    fn learned(&self, server: &Server, version: ScannerVersion) {
        let age = version.age(self.clock.utc());
        if let Some(age) = age {
            metrics::gauge!("ortler_scanner_signatures_age_seconds", "server" => server.name.clone())
                .set(age.as_secs_f64());
        }
        if let Some(number) = version.signatures {
            metrics::gauge!("ortler_scanner_signatures", "server" => server.name.clone()).set(f64::from(number));
        }
        let known = server.state().version.replace(version.clone());
        if known.as_ref() != Some(&version) {
            tracing::info!(event = event::SCANNER_VERSION, server = %server.name, version = %version.line);
            if age.is_some_and(|age| age > OLD_SIGNATURES) {
                let next_step = "look at freshclam on that machine";
                tracing::warn!(event = event::SCANNER_OUTDATED, server = %server.name, version = %version.line, next_step);
            }
        }
    }

    fn answered(&self, server: &Server) {
        metrics::gauge!("ortler_scanner_up", "server" => server.name.clone()).set(1.0);
        if server.state().breaker.answered(self.clock.now()) {
            tracing::info!(event = event::SCANNER_UP, server = %server.name);
        }
    }

    fn failed(&self, server: &Server, why: &str) {
        metrics::gauge!("ortler_scanner_up", "server" => server.name.clone()).set(0.0);
        metrics::counter!("ortler_scanner_failures_total", "server" => server.name.clone()).increment(1);
        if server.state().breaker.failed(self.clock.now()) {
            tracing::warn!(event = event::SCANNER_DOWN, server = %server.name, %why);
        }
    }
}

impl Scanner for Clamd {
    fn scan<'a>(&'a self, message: &'a Bytes) -> Pin<Box<dyn Future<Output = Scanned> + Send + 'a>> {
        Box::pin(self.scan_somewhere(message))
    }

    fn watch(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            loop {
                for server in &self.servers {
                    let now = self.clock.now();
                    let permit = server.state().breaker.permit(now, Duration::ZERO);
                    if permit == Permit::Refused {
                        continue;
                    }
                    let mut turn = Turn { server, clock: &*self.clock, is_over: false };
                    // What came of it is in the server's state.
                    let _ = self.probe(server).await;
                    turn.is_over = true;
                }
                tokio::time::sleep(self.settings.watch_every).await;
            }
        })
    }

    fn states(&self) -> Vec<ScannerState> {
        let now = self.clock.utc();
        let state = |server: &Server| {
            let state = server.state();
            let signatures_age = state.version.as_ref().and_then(|version| version.age(now));
            ScannerState {
                server: server.name.clone(),
                is_up: state.breaker.is_up() && state.version.is_some(),
                version: state.version.clone(),
                signatures_age,
            }
        };
        self.servers.iter().map(state).collect()
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("ortler_filter_scans_total", "outcome" => outcome).increment(1);
}
