//! Verdicts of contents that were scanned before. Bounded; one counts only while the signatures are the same.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Scanned;

/// The BLAKE3 of a message.
pub(super) type Digest = [u8; 32];

/// Remembers what was said of which content; the oldest goes first.
pub(super) struct Cache {
    known: Mutex<Known>,
    entries_max: usize,
    ttl: Duration,
}

#[derive(Default)]
struct Known {
    verdicts: HashMap<Digest, Entry>,
    order: VecDeque<Digest>,
    /// The version line of the signatures that all of them were made with.
    signatures: String,
}

struct Entry {
    verdict: Scanned,
    at: Instant,
}

impl Cache {
    pub(super) fn new(entries_max: usize, ttl: Duration) -> Self {
        Self { known: Mutex::default(), entries_max, ttl }
    }

    /// What was said of the content with the signatures of `signatures`, lately.
    pub(super) fn get(&self, digest: &Digest, signatures: &str, now: Instant) -> Option<Scanned> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = known.verdicts.get(digest).filter(|_| known.signatures == signatures)?;
        (now.saturating_duration_since(entry.at) < self.ttl).then(|| entry.verdict.clone())
    }

    /// Verdicts of other signatures are forgotten.
    pub(super) fn put(&self, digest: Digest, signatures: &str, verdict: &Scanned, now: Instant) {
        match verdict {
            Scanned::Clean | Scanned::Found(_) | Scanned::Suspected(_) => {}
            Scanned::TooLarge | Scanned::Unavailable(_) => return,
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.signatures != signatures {
            *known = Known { signatures: signatures.to_owned(), ..Known::default() };
        }
        if known.verdicts.insert(digest, Entry { verdict: verdict.clone(), at: now }).is_none() {
            known.order.push_back(digest);
        }
        while known.order.len() > self.entries_max {
            if let Some(oldest) = known.order.pop_front() {
                known.verdicts.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_bound_to_signatures_time_and_room() {
        let second = Duration::from_secs(1);
        #[expect(clippy::disallowed_methods, reason = "any moment will do, it is only counted from")]
        let start = Instant::now();
        let cache = Cache::new(2, second * 10);
        let found = Scanned::Found("X".into());
        cache.put([1; 32], "v1", &found, start);
        assert_eq!(cache.get(&[1; 32], "v1", start + second * 9), Some(found.clone()));
        assert_eq!(cache.get(&[1; 32], "v1", start + second * 10), None);
        assert_eq!(cache.get(&[1; 32], "v2", start), None);
        cache.put([2; 32], "v1", &Scanned::Unavailable("x".into()), start);
        assert_eq!(cache.get(&[2; 32], "v1", start), None);
        cache.put([2; 32], "v1", &Scanned::Clean, start);
        cache.put([3; 32], "v1", &Scanned::Clean, start);
        assert_eq!((cache.get(&[1; 32], "v1", start), cache.get(&[3; 32], "v1", start)), (None, Some(Scanned::Clean)));
        cache.put([4; 32], "v2", &found, start);
        assert_eq!(cache.get(&[3; 32], "v1", start), None);
        assert_eq!(cache.known.lock().unwrap().order.len(), 1);
    }
}
