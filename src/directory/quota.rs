//! What accounts, and all accounts of a domain or tenant together, may hold. The store keeps to it.

use base::{ByteSize, PoolId, Quota};

/// What of a quota changes: `None` stays, `Some(None)` lifts the limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QuotaChange {
    pub size: Option<Option<ByteSize>>,
    pub messages: Option<Option<u64>>,
}

impl QuotaChange {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What limits an account's mail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    pub quota: Quota,
    /// Those of its domain, customer and reseller that have a limit.
    pub pools: Vec<(PoolId, Quota)>,
}
