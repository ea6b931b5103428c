//! What is counted, and what is known of it.

use std::time::Duration;

use base::UtcMillis;

/// What a subject is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// The network that a client is in: good and bad messages.
    Network,
    /// An author's proven domain: good and bad messages.
    Domain,
    /// An author's proven address: good and bad messages.
    Author,
    /// A message that was put off: how often.
    PutOff,
    /// A network whose clients come again when they are put off: how often.
    Returns,
    /// Somebody to whom an account wrote: how many messages.
    Contact,
    /// A network from which an account sent: how many messages.
    Place,
    /// An account's sending within an hour: recipients, and of them strangers and unknown ones.
    SentHour,
    /// The same within a day.
    SentDay,
    /// Recipients named by an account that do not exist.
    Unknown,
    /// Networks from which an account had never sent before.
    NewPlace,
    /// A country from which an account sent: how many messages.
    Country,
    /// A country from which an account was used lately.
    CountryLately,
    /// Countries from which an account was used lately, each counted once.
    Countries,
    /// A message that was learned without anybody's word, by the network that it came from.
    Taught,
}

impl Kind {
    pub(crate) const ALL: [Self; 15] = [
        Self::Network,
        Self::Domain,
        Self::Author,
        Self::PutOff,
        Self::Returns,
        Self::Contact,
        Self::Place,
        Self::SentHour,
        Self::SentDay,
        Self::Taught,
        Self::Unknown,
        Self::NewPlace,
        Self::Country,
        Self::CountryLately,
        Self::Countries,
    ];

    /// As rows have it.
    pub(crate) const fn number(self) -> i64 {
        match self {
            Self::Network => 1,
            Self::Domain => 2,
            Self::Author => 3,
            Self::PutOff => 4,
            Self::Returns => 5,
            Self::Contact => 6,
            Self::Place => 7,
            Self::SentHour => 8,
            Self::SentDay => 9,
            Self::Taught => 10,
            Self::Unknown => 11,
            Self::NewPlace => 12,
            Self::Country => 13,
            Self::CountryLately => 14,
            Self::Countries => 15,
        }
    }

    /// The length of a slot, and how many of them are kept.
    const fn slots(self) -> (Duration, i64) {
        match self {
            Self::Network | Self::Domain | Self::Author => (DAY.saturating_mul(30), 6),
            Self::PutOff | Self::Taught | Self::NewPlace => (DAY, 2),
            Self::Returns => (DAY.saturating_mul(30), 2),
            Self::Contact => (DAY.saturating_mul(90), 8),
            Self::Place | Self::Country => (DAY.saturating_mul(30), 3),
            // Six to twelve hours: nobody is in three countries of the world within them.
            Self::CountryLately | Self::Countries => (Duration::from_secs(6 * 3600), 2),
            Self::SentHour | Self::Unknown => (Duration::from_secs(3600), 2),
            Self::SentDay => (DAY, 30),
        }
    }

    pub(crate) fn slot(self, at: UtcMillis) -> i64 {
        let length = i64::try_from(self.slots().0.as_millis()).unwrap_or(i64::MAX);
        at.0.div_euclid(length.max(1))
    }

    /// Slots from this one on are kept.
    pub(crate) fn oldest(self, now: UtcMillis) -> i64 {
        self.slot(now) - self.slots().1 + 1
    }
}

const DAY: Duration = Duration::from_secs(86_400);

/// Who or what numbers are of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Subject {
    pub kind: Kind,
    pub(crate) key: [u8; 16],
}

impl Subject {
    /// `names`: what tells it from others of its kind, in order. Case counts.
    pub fn of(kind: Kind, names: &[&str]) -> Self {
        let mut hash = blake3::Hasher::new();
        for name in names {
            hash.update(&(name.len() as u64).to_le_bytes());
            hash.update(name.as_bytes());
        }
        let mut key = [0; 16];
        hash.finalize_xof().fill(&mut key);
        Self { kind, key }
    }
}

/// What is added to a subject.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Amount {
    pub good: u32,
    pub bad: u32,
}

impl Amount {
    pub const GOOD: Self = Self { good: 1, bad: 0 };
    pub const BAD: Self = Self { good: 0, bad: 1 };
}

/// Numbers of one slot of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    /// 0 for the slot that is now, 1 for the one before.
    pub age: u32,
    pub good: u64,
    pub bad: u64,
    pub first_at: UtcMillis,
    pub last_at: UtcMillis,
}

/// What is known of a subject.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Record {
    /// The newest first.
    pub slots: Vec<Slot>,
}

impl Record {
    pub fn is_known(&self) -> bool {
        !self.slots.is_empty()
    }

    /// Good and bad ones; those of a slot count half as much as those of the slot after it.
    pub fn weighed(&self) -> (f64, f64) {
        #[expect(clippy::cast_precision_loss, reason = "numbers of messages")]
        self.slots.iter().fold((0.0, 0.0), |(good, bad), slot| {
            let weight = 0.5_f64.powi(i32::try_from(slot.age).unwrap_or(i32::MAX));
            (good + slot.good as f64 * weight, bad + slot.bad as f64 * weight)
        })
    }

    /// All that are known.
    pub fn sum(&self) -> (u64, u64) {
        self.slots.iter().fold((0, 0), |(good, bad), slot| (good + slot.good, bad + slot.bad))
    }

    /// Those of the slot that is now, and a share of the one before: a window that slides.
    pub fn within_slot(&self, kind: Kind, now: UtcMillis) -> (f64, f64) {
        let length = i64::try_from(kind.slots().0.as_millis()).unwrap_or(i64::MAX).max(1);
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a slot, numbers of messages")]
        self.slots.iter().filter(|slot| slot.age <= 1).fold((0.0, 0.0), |(good, bad), slot| {
            let left = (length - now.0.rem_euclid(length)) as f64 / length as f64;
            let share = if slot.age == 0 { 1.0 } else { left };
            (good + slot.good as f64 * share, bad + slot.bad as f64 * share)
        })
    }

    pub fn first_at(&self) -> Option<UtcMillis> {
        self.slots.iter().map(|slot| slot.first_at).min()
    }

    pub fn last_at(&self) -> Option<UtcMillis> {
        self.slots.iter().map(|slot| slot.last_at).max()
    }

    pub(crate) fn add(&mut self, other: Slot) {
        match self.slots.iter_mut().find(|slot| slot.age == other.age) {
            Some(slot) => {
                (slot.good, slot.bad) = (slot.good + other.good, slot.bad + other.bad);
                slot.first_at = slot.first_at.min(other.first_at);
                slot.last_at = slot.last_at.max(other.last_at);
            }
            None => {
                let at = self.slots.partition_point(|slot| slot.age < other.age);
                self.slots.insert(at, other);
            }
        }
    }
}
