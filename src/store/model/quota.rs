//! What accounts may hold, and how they share what their domain and tenant may.
//!
//! A domain's or tenant's quota is a pool. An account of it stores against an allowance of its own, drawn from each of
//! its pools in steps; what a pool has allotted is the sum of those allowances and never above its limit. So a delivery
//! looks at its own account's row alone, and no row is written by all deliveries of a domain.

use std::fmt;

use base::{ByteSize, Quota};

/// What an account uses of its quota.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    pub messages: u64,
    /// Sum of sizes as clients see them.
    pub size: ByteSize,
    pub quota: Quota,
    /// The allowance is used up, and a pool had nothing left a moment ago.
    pub is_pool_dry: bool,
}

impl Usage {
    /// False if one more message, of at least this size, is known not to fit.
    pub fn has_room(&self, size: ByteSize) -> bool {
        let size_fits = self.quota.size.is_none_or(|limit| self.size.0.saturating_add(size.0.max(1)) <= limit.0);
        size_fits && self.quota.messages.is_none_or(|limit| self.messages < limit) && !self.is_pool_dry
    }

    /// The account's own limit into which that much more does not fit.
    pub(crate) fn over(&self, messages: u64, size: ByteSize) -> Option<OverQuota> {
        match self.quota {
            Quota { size: Some(limit), .. } if self.size.0 + size.0 > limit.0 => {
                Some(OverQuota::Size { used: self.size, limit })
            }
            Quota { messages: Some(limit), .. } if self.messages + messages > limit => {
                Some(OverQuota::Messages { used: self.messages, limit })
            }
            Quota { .. } => None,
        }
    }
}

/// What all accounts of a pool use together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PoolUsage {
    pub limit: Quota,
    pub accounts: u64,
    pub messages: u64,
    pub size: ByteSize,
    /// Promised to accounts, used or not.
    pub allotted_messages: u64,
    pub allotted_size: ByteSize,
}

/// Which limit a message did not fit into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OverQuota {
    Size {
        used: ByteSize,
        limit: ByteSize,
    },
    Messages {
        used: u64,
        limit: u64,
    },
    /// The domain's or tenant's, though the account's own has room for this much.
    Pool {
        size: ByteSize,
        messages: u64,
    },
}

impl fmt::Display for OverQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { used, limit } => write!(f, "{used} of {limit}"),
            Self::Messages { used, limit } => write!(f, "{used} of {limit} messages"),
            Self::Pool { .. } => f.write_str("that of the domain or customer is used up"),
        }
    }
}

/// At most this much is drawn beyond what is needed at the moment.
pub(crate) const DRAWN_BYTES: u64 = 64 << 20;
pub(crate) const DRAWN_MESSAGES: u64 = 1000;
/// One draw takes at most this part of what a pool has left, so that many accounts can draw from a small one.
pub(crate) const DRAWN_PART: u64 = 8;
/// Accounts that are asked to give back at a time, those with most to give first, and how often for one delivery.
pub(crate) const ASKED: usize = 32;
pub(crate) const RECLAIMS: usize = 8;
/// A pool whose accounts had nothing to give back is not asked again for so long.
pub(crate) const DRY_FOR: std::time::Duration = std::time::Duration::from_secs(5);

/// How much of one resource to draw when `need` is missing; `None` if a pool has not even that.
/// `left` is what each pool has left (`None`: no limit).
pub(crate) fn to_draw(need: u64, most: u64, left: impl IntoIterator<Item = Option<u64>>) -> Option<u64> {
    if need == 0 {
        return Some(0);
    }
    let mut out = need.max(most);
    for left in left.into_iter().flatten() {
        if left < need {
            return None;
        }
        out = out.min(need.max(left / DRAWN_PART));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_what_is_needed_and_a_part_of_the_rest() {
        for (need, left, drawn) in [
            (0, vec![Some(0)], Some(0)),
            (5, vec![], Some(100)),
            (5, vec![None], Some(100)),
            (500, vec![None], Some(500)),
            (5, vec![Some(4)], None),
            (5, vec![Some(5)], Some(5)),
            (5, vec![Some(80)], Some(10)),
            (5, vec![Some(80), Some(16), None], Some(5)),
            (5, vec![Some(8000), Some(4)], None),
        ] {
            assert_eq!(to_draw(need, 100, left.clone()), drawn, "{need} of {left:?}");
        }
    }

    #[test]
    fn full_is_full() {
        let quota = Quota { size: Some(ByteSize(100)), messages: Some(3) };
        let usage = |size, messages| Usage { messages, size: ByteSize(size), quota, is_pool_dry: false };
        assert!(usage(0, 0).has_room(ByteSize(100)) && !usage(0, 0).has_room(ByteSize(101)));
        assert!(usage(99, 2).has_room(ByteSize(0)) && !usage(100, 2).has_room(ByteSize(0)));
        assert!(!usage(0, 3).has_room(ByteSize(1)));
        assert!(!Usage { is_pool_dry: true, ..usage(0, 0) }.has_room(ByteSize(1)));
    }
}
