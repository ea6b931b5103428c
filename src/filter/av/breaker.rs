//! Whether a server is asked: after a failure it is left alone, then tried with one question. Pure.

use std::time::{Duration, Instant};

/// What is known of one server.
#[derive(Clone, Debug)]
pub(super) struct Breaker {
    state: State,
    first_wait: Duration,
    wait_max: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// It is asked. `answered`: when it last gave a sign of life.
    Closed { answered: Option<Instant> },
    /// It failed and is left alone.
    Open { until: Instant, waited: Duration },
    /// Somebody tries whether it is back.
    Trying { since: Instant, waited: Duration },
}

/// What may be done with a server now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Permit {
    /// It has answered lately.
    Scan,
    /// Ask for a sign of life first.
    Probe,
    /// It failed, and its time is not over or somebody else tries it.
    Refused,
}

/// Whoever tries a server and never says what came of it is forgotten after this.
const TRIAL_MAX: Duration = Duration::from_secs(120);

impl Breaker {
    pub(super) const fn new(first_wait: Duration, wait_max: Duration) -> Self {
        Self { state: State::Closed { answered: None }, first_wait, wait_max }
    }

    pub(super) const fn is_up(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// Asks to use the server. A [`Permit::Probe`] of one that failed is given to one at a time; whoever has it reports
    /// [`Self::answered`], [`Self::failed`] or [`Self::released`].
    pub(super) fn permit(&mut self, now: Instant, idle_max: Duration) -> Permit {
        match self.state {
            State::Closed { answered: Some(at) } if now.saturating_duration_since(at) < idle_max => Permit::Scan,
            State::Closed { .. } => Permit::Probe,
            State::Open { until, .. } if now < until => Permit::Refused,
            State::Open { .. } => self.try_anyway(now),
            State::Trying { since, .. } if now.saturating_duration_since(since) < TRIAL_MAX => Permit::Refused,
            State::Trying { .. } => self.try_anyway(now),
        }
    }

    /// Tries a failed server before its time, when there is nobody else to ask.
    pub(super) fn try_anyway(&mut self, now: Instant) -> Permit {
        match self.state {
            State::Closed { .. } => Permit::Probe,
            State::Trying { since, .. } if now.saturating_duration_since(since) < TRIAL_MAX => Permit::Refused,
            State::Open { waited, .. } | State::Trying { waited, .. } => {
                self.state = State::Trying { since: now, waited };
                Permit::Probe
            }
        }
    }

    /// True if it was not up before.
    pub(super) fn answered(&mut self, now: Instant) -> bool {
        let was_down = !self.is_up();
        self.state = State::Closed { answered: Some(now) };
        was_down
    }

    /// True if it was up before.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        let waited = match self.state {
            State::Closed { .. } => self.first_wait,
            State::Open { waited, .. } => waited,
            State::Trying { waited, .. } => waited.saturating_mul(2).min(self.wait_max),
        };
        let was_up = self.is_up();
        self.state = State::Open { until: now + waited, waited };
        was_up
    }

    /// Whoever tried gave up before anything was known: the next may try.
    pub(super) fn released(&mut self, now: Instant) {
        if let State::Trying { waited, .. } = self.state {
            self.state = State::Open { until: now, waited };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_server_is_left_alone_then_tried_by_one() {
        let second = Duration::from_secs(1);
        #[expect(clippy::disallowed_methods, reason = "any moment will do, it is only counted from")]
        let start = Instant::now();
        let mut breaker = Breaker::new(second * 5, second * 15);
        assert_eq!(breaker.permit(start, second * 5), Permit::Probe);
        assert!(!breaker.answered(start));
        assert_eq!(breaker.permit(start + second, second * 5), Permit::Scan);
        assert_eq!(breaker.permit(start + second * 6, second * 5), Permit::Probe);
        assert!(breaker.failed(start));
        assert_eq!(breaker.permit(start + second * 4, second * 5), Permit::Refused);
        assert_eq!(breaker.permit(start + second * 5, second * 5), Permit::Probe);
        assert_eq!(breaker.permit(start + second * 5, second * 5), Permit::Refused);
        assert!(!breaker.failed(start + second * 5));
        // Twice as long, and no longer than the most.
        assert_eq!(breaker.permit(start + second * 14, second * 5), Permit::Refused);
        assert_eq!(breaker.try_anyway(start + second * 14), Permit::Probe);
        assert_eq!(breaker.try_anyway(start + second * 14), Permit::Refused);
        breaker.released(start + second * 14);
        assert_eq!(breaker.permit(start + second * 14, second * 5), Permit::Probe);
        breaker.failed(start);
        assert_eq!(breaker.permit(start + second * 14, second * 5), Permit::Refused);
        assert_eq!(breaker.permit(start + second * 15, second * 5), Permit::Probe);
        // Somebody who never came back is forgotten.
        assert_eq!(breaker.permit(start + second * 200, second * 5), Permit::Probe);
        assert!(breaker.answered(start) && breaker.is_up());
    }
}
