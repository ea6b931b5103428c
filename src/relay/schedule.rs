//! When a recipient is tried again, told of, and given up. Pure.

use std::time::Duration;

use base::{MessageId, UtcMillis};
use store::{QueueItem, QueueRecipient};

/// Times of the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    /// Between the first attempt and the second; each further wait is twice as long.
    pub first_wait: Duration,
    /// No wait is longer.
    pub longest_wait: Duration,
    /// A sender is told that a message is late; zero: never.
    pub warn_after: Duration,
    /// A message is given up.
    pub expire_after: Duration,
    /// A notice to a sender is given up.
    pub expire_notices_after: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            first_wait: Duration::from_secs(120),
            longest_wait: Duration::from_secs(2 * 3600),
            warn_after: Duration::from_secs(4 * 3600),
            expire_after: Duration::from_secs(5 * 86_400),
            expire_notices_after: Duration::from_secs(2 * 86_400),
        }
    }
}

/// Doubling goes on for so long.
const DOUBLINGS_MAX: u32 = 20;

impl Schedule {
    pub fn expires_at(&self, created_at: UtcMillis, sender: &str) -> UtcMillis {
        created_at.plus(if sender.is_empty() { self.expire_notices_after } else { self.expire_after })
    }

    /// When something is to be done about a new recipient even if it is not tried.
    pub fn first_alarm(&self, created_at: UtcMillis, sender: &str, wants_delays: bool) -> UtcMillis {
        let expires_at = self.expires_at(created_at, sender);
        if sender.is_empty() || !wants_delays || self.warn_after.is_zero() {
            return expires_at;
        }
        created_at.plus(self.warn_after).min(expires_at)
    }

    /// True if the alarm that rang is the warning, not the end.
    pub fn is_warning(recipient: &QueueRecipient, now: UtcMillis) -> bool {
        recipient.alarm_at < recipient.expires_at && now < recipient.expires_at
    }

    /// How long to wait after so many attempts (1: after the first): a sixth more or less, by the message, so that what
    /// failed together does not come back together.
    pub fn wait(&self, message: MessageId, nth: u32, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(DOUBLINGS_MAX);
        let wait = self.first_wait.saturating_mul(1 << doublings).min(self.longest_wait);
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let spread = (millis / 3).max(1);
        Duration::from_millis(millis - spread / 2 + scatter(message, nth, attempts) % spread)
    }

    /// The recipient after an attempt at `now` that came to nothing.
    #[must_use]
    pub fn deferred(&self, item: &QueueItem, recipient: &QueueRecipient, now: UtcMillis) -> QueueRecipient {
        let attempts = recipient.attempts.saturating_add(1);
        let next_at = now.plus(self.wait(item.message, recipient.nth, attempts));
        let last = recipient.expires_at.minus(LAST);
        let next_at = if now < last { next_at.min(last) } else { next_at };
        QueueRecipient { attempts, next_at, last_at: Some(now), ..recipient.clone() }
    }
}

/// So long before its end a message is tried for the last time.
const LAST: Duration = Duration::from_secs(60);

/// A number that looks random (SplitMix64's mixer).
fn scatter(message: MessageId, nth: u32, attempts: u32) -> u64 {
    let id = message.as_u128();
    #[expect(clippy::cast_possible_truncation, reason = "the low half is the random one")]
    let mut z = (id as u64) ^ (u64::from(nth) << 32) ^ u64::from(attempts);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use base::IdSource;
    use bytes::Bytes;
    use store::{Needs, Notify, QueueState};

    use super::*;

    const DAY: i64 = 86_400_000;

    fn waiting(ids: &IdSource, schedule: &Schedule, sender: &str) -> (QueueItem, QueueRecipient) {
        let now = UtcMillis(1_700_000_000_000);
        let item = QueueItem {
            message: ids.message(now),
            variant: 0,
            blob: ids.blob(now),
            size_bytes: 1,
            prefix: Bytes::new(),
            sender: sender.to_owned(),
            account: None,
            needs: Needs::default(),
            envelope_id: None,
            subject: String::new(),
            created_at: now,
        };
        let recipient = QueueRecipient {
            nth: 0,
            address: "bob@example.net".to_owned(),
            original: None,
            notify: Notify::default(),
            lane: "example.net".into(),
            priority: 5,
            state: QueueState::Waiting,
            next_at: now,
            alarm_at: schedule.first_alarm(now, sender, true),
            expires_at: schedule.expires_at(now, sender),
            attempts: 0,
            last_at: None,
            last_status: String::new(),
            last_host: String::new(),
        };
        (item, recipient)
    }

    /// Five days of a server that never answers: how often it is tried, when the sender hears of it, when it ends.
    #[test]
    fn five_days_of_a_dead_server() {
        let (schedule, ids) = (Schedule::default(), IdSource::system());
        for _ in 0..200 {
            let (item, mut recipient) = waiting(&ids, &schedule, "ann@example.test");
            let begun = item.created_at;
            let (mut now, mut warned, mut waits) = (begun, Vec::new(), Vec::new());
            let ended = loop {
                if recipient.alarm_at <= now {
                    if !Schedule::is_warning(&recipient, now) {
                        break now;
                    }
                    warned.push(now.0 - begun.0);
                    recipient.alarm_at = recipient.expires_at;
                }
                if recipient.next_at <= now {
                    recipient = schedule.deferred(&item, &recipient, now);
                    waits.push(recipient.next_at.0 - now.0);
                }
                now = recipient.next_at.min(recipient.alarm_at).max(UtcMillis(now.0 + 1));
            };
            assert_eq!(warned, [4 * 3_600_000]);
            assert_eq!(ended.0 - begun.0, 5 * DAY);
            assert!((60..90).contains(&recipient.attempts), "{} attempts", recipient.attempts);
            // A mail that is greylisted for five minutes is there in ten.
            assert!(waits[0] + waits[1] > 300_000 && waits[0] + waits[1] < 600_000, "{:?}", &waits[..3]);
            // The longest is bounded, and the last attempt is near the end.
            assert!(waits.iter().all(|wait| *wait <= 2 * 3_600_000 * 7 / 6 + 1));
            let last = recipient.last_at.map_or(0, |at| at.0);
            assert!((ended.0 - last) <= 61_000, "{}", ended.0 - last);
        }
    }

    #[test]
    fn what_failed_together_comes_back_apart() {
        let (schedule, ids) = (Schedule::default(), IdSource::system());
        let waits: Vec<u128> = (0..1000)
            .map(|_| schedule.wait(ids.message(UtcMillis(1_700_000_000_000)), 0, 7).as_secs().into())
            .collect();
        let (low, high) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*low >= 6000 && *low < 6050 && *high > 8350 && *high <= 8400, "{low} {high}");
        let early = waits.iter().filter(|wait| **wait < 7200).count();
        assert!((400..600).contains(&early), "{early}");
    }

    #[test]
    fn nobody_is_told_of_a_notice() {
        let (schedule, ids) = (Schedule::default(), IdSource::system());
        let (item, recipient) = waiting(&ids, &schedule, "");
        assert_eq!(recipient.alarm_at, recipient.expires_at);
        assert_eq!(recipient.expires_at.0 - item.created_at.0, 2 * DAY);
    }
}
