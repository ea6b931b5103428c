//! What is done with what an account sends, when its way of sending looks like that of a stolen password.

use std::fmt;

use mail::{Enhanced, Status};

use crate::finding::Score;
use crate::option::Key;
use crate::resolve::{EffectivePolicy, Origin};

/// What is done with what an account sends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Sending {
    Passes,
    /// Asked to try again later.
    Slow,
    /// Taken, and held in quarantine.
    Hold,
    /// Refused, and the account sends no more.
    Lock,
}

impl Sending {
    /// Stable name for the log and counters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passes => "passes",
            Self::Slow => "slow",
            Self::Hold => "hold",
            Self::Lock => "lock",
        }
    }
}

impl fmt::Display for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The answer while an account is asked to go slowly.
pub const SLOW: Status =
    Status::fixed(450, Enhanced(4, 7, 1), "You are sending much more than usual, try again in some minutes");
/// The answer to an account that has sent as much as it may.
pub const LIMITED: Status = Status::fixed(
    450,
    Enhanced(4, 7, 1),
    "You have written to as many recipients as are allowed for now, try again later",
);
/// The answer to an account that may not send.
pub const LOCKED: Status = Status::fixed(
    550,
    Enhanced(5, 7, 1),
    "Sending is locked for this account, its password may be stolen: change it or ask your provider",
);

/// What the system's policy makes of a score for an account's sending, and where the decisive value comes from.
pub fn decide_outbound(policy: &EffectivePolicy, score: Score) -> (Sending, Origin) {
    let steps = [
        (Sending::Lock, Key::OutboundLockScore),
        (Sending::Hold, Key::OutboundHoldScore),
        (Sending::Slow, Key::OutboundSlowScore),
    ];
    let reached = steps.into_iter().find(|(_, key)| score >= policy.score(*key));
    reached.map_or((Sending::Passes, Origin::Default), |(done, key)| (done, policy.get(key).origin.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Layer;
    use crate::option::Level;
    use crate::preset::Presets;

    #[test]
    fn the_highest_step_that_is_reached_counts() {
        let layer = Layer::parse(Level::System, "p", "outbound-hold-score = 1000\noutbound-slow-score = 2").unwrap();
        let own = EffectivePolicy::resolve(&Presets::shipped(), &[layer]);
        let of = |policy: &EffectivePolicy, points| decide_outbound(policy, Score::points(points)).0;
        let default = EffectivePolicy::defaults();
        let steps = [4, 5, 8, 12].map(|points| of(&default, points));
        assert_eq!(steps, [Sending::Passes, Sending::Slow, Sending::Hold, Sending::Lock]);
        assert_eq!(
            [1, 2, 11, 12].map(|points| of(&own, points)),
            [Sending::Passes, Sending::Slow, Sending::Slow, Sending::Lock]
        );
    }
}
