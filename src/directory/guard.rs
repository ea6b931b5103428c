//! Slows down password guessing. Counts failures per network, in memory; a cluster sums them in the engine.

use std::net::IpAddr;
use std::time::Duration;

use moka::sync::Cache;

/// Failed sign-ins of each client network (IPv4 address, IPv6 /64) within a window.
pub struct LoginGuard {
    failures: Cache<IpAddr, u32>,
    /// Loopback is neither delayed nor refused: the demonstration mode.
    exempt_loopback: bool,
}

const WINDOW: Duration = Duration::from_secs(15 * 60);
const NETWORKS_MAX: u64 = 100_000;
const FAILURES_MAX: u32 = 50;
const DELAY_STEP: Duration = Duration::from_millis(500);
const DELAY_MAX: Duration = Duration::from_secs(5);

impl LoginGuard {
    pub fn new(exempt_loopback: bool) -> Self {
        Self { failures: Cache::builder().max_capacity(NETWORKS_MAX).time_to_live(WINDOW).build(), exempt_loopback }
    }

    /// False if this network failed too often of late.
    pub fn admits(&self, peer: IpAddr) -> bool {
        self.is_exempt(peer) || self.failures.get(&network(peer)).is_none_or(|count| count < FAILURES_MAX)
    }

    /// Counts a failure and says how long its answer is held back.
    pub fn failed(&self, peer: IpAddr) -> Duration {
        if self.is_exempt(peer) {
            return Duration::ZERO;
        }
        let count = self
            .failures
            .entry(network(peer))
            .and_upsert_with(|entry| entry.map_or(1, |entry| entry.into_value().saturating_add(1)))
            .into_value();
        (DELAY_STEP * count).min(DELAY_MAX)
    }

    fn is_exempt(&self, peer: IpAddr) -> bool {
        self.exempt_loopback && peer.is_loopback()
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
