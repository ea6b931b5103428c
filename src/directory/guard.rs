//! Slows down password guessing: counts failures of each network.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

/// Failed sign-ins of each client network (IPv4 address, IPv6 /64) within a quarter of an hour.
pub trait Failures: Send + Sync {
    fn add(&self, network: IpAddr);
    fn count(&self, network: IpAddr) -> u32;
}

pub struct LoginGuard {
    failures: Arc<dyn Failures>,
    /// Loopback is neither delayed nor refused: the demonstration mode.
    exempt_loopback: bool,
}

const WINDOW: Duration = Duration::from_secs(15 * 60);
const NETWORKS_MAX: u64 = 100_000;
const FAILURES_MAX: u32 = 50;
const DELAY_STEP: Duration = Duration::from_millis(500);
const DELAY_MAX: Duration = Duration::from_secs(5);

impl LoginGuard {
    /// Of a node that is alone.
    pub fn new(exempt_loopback: bool) -> Self {
        let seen = Cache::builder().max_capacity(NETWORKS_MAX).time_to_live(WINDOW).build();
        Self::shared(exempt_loopback, Arc::new(Seen(seen)))
    }

    /// Counts together with others.
    pub const fn shared(exempt_loopback: bool, failures: Arc<dyn Failures>) -> Self {
        Self { failures, exempt_loopback }
    }

    /// False if this network failed too often of late.
    pub fn admits(&self, peer: IpAddr) -> bool {
        self.is_exempt(peer) || self.failures.count(network(peer)) < FAILURES_MAX
    }

    /// Counts a failure and says how long its answer is held back.
    pub fn failed(&self, peer: IpAddr) -> Duration {
        if self.is_exempt(peer) {
            return Duration::ZERO;
        }
        let network = network(peer);
        self.failures.add(network);
        DELAY_STEP.saturating_mul(self.failures.count(network)).min(DELAY_MAX)
    }

    fn is_exempt(&self, peer: IpAddr) -> bool {
        self.exempt_loopback && peer.is_loopback()
    }
}

/// What this node saw.
struct Seen(Cache<IpAddr, u32>);

impl Failures for Seen {
    fn add(&self, network: IpAddr) {
        let one_more = self.0.entry(network);
        one_more.and_upsert_with(|entry| entry.map_or(1, |entry| entry.into_value().saturating_add(1)));
    }

    fn count(&self, network: IpAddr) -> u32 {
        self.0.get(&network).unwrap_or(0)
    }
}

/// One household or server: an IPv4 address, or an IPv6 /64.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessing_is_slowed_then_refused_for_the_whole_network() {
        let guard = LoginGuard::new(true);
        let (here, neighbour): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        assert_eq!(guard.failed(here), DELAY_STEP);
        for _ in 1..FAILURES_MAX {
            assert!(guard.admits(neighbour));
            assert!(guard.failed(here) <= DELAY_MAX);
        }
        assert!(!guard.admits(neighbour) && guard.admits("2001:db8:0:1::1".parse().unwrap()));
        let loopback = "127.0.0.1".parse().unwrap();
        (0..100).for_each(|_| assert_eq!(guard.failed(loopback), Duration::ZERO));
        assert!(guard.admits(loopback));
    }
}
