//! Counters for graphs, kept beside the rows so that graphs never scan them.

use base::UtcMillis;

/// A stretch of time for a graph: from `from` (inclusive) to `to` (exclusive) in steps of whole minutes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    pub from: UtcMillis,
    pub to: UtcMillis,
    pub step_minutes: u32,
}

impl Span {
    /// More buckets than a screen has pixels help nobody.
    pub const BUCKETS_MAX: i64 = 3000;

    pub(crate) const MINUTE_MILLIS: i64 = 60_000;

    pub(crate) fn step_millis(self) -> i64 {
        i64::from(self.step_minutes.max(1)) * Self::MINUTE_MILLIS
    }

    pub(crate) fn bucket_of(self, at: i64) -> i64 {
        at.div_euclid(self.step_millis()) * self.step_millis()
    }
}

/// Counts of recipients by outcome, in the order of [`crate::Outcome::ALL`]. Empty buckets are left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bucket {
    pub at: UtcMillis,
    pub counts: [u64; 5],
}
