//! The one place where time is read. Cores take `now`; shells ask a [`Clock`].

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01 UTC: time as it stands on disk and in events.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct UtcMillis(pub i64);

impl UtcMillis {
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }
    /// Time from `earlier` to `self`; zero if the wall clock went backwards.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// Time for shells. Deadlines in memory are monotonic ([`Clock::now`]), times on disk are wall time ([`Clock::utc`]).
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Instant;
    fn utc(&self) -> UtcMillis;
}

/// The machine's clock.
#[derive(Clone, Copy, Default, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everyone else asks")]
    fn now(&self) -> Instant {
        Instant::now()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock that everyone else asks")]
    fn utc(&self) -> UtcMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UtcMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// A clock that a test moves by hand.
#[derive(Debug)]
pub struct FakeClock {
    start: Instant,
    start_utc: UtcMillis,
    passed_millis: AtomicI64,
}

impl FakeClock {
    pub fn at(start_utc: UtcMillis) -> Self {
        Self { start: SystemClock.now(), start_utc, passed_millis: AtomicI64::new(0) }
    }

    pub fn advance(&self, span: Duration) {
        let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        self.passed_millis.fetch_add(millis, Ordering::SeqCst);
    }

    fn passed(&self) -> Duration {
        Duration::from_millis(self.passed_millis.load(Ordering::SeqCst).unsigned_abs())
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Instant {
        self.start + self.passed()
    }
    fn utc(&self) -> UtcMillis {
        self.start_utc.plus(self.passed())
    }
}
