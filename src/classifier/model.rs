//! Naive Bayes over all features of a message: how often each was seen in either class.
//!
//! A message is a set of features. Each says how much more often it came with spam than with ham; what all say together is
//! dampened by their number, for they are not independent. Lessons only count, so that their order does not matter. Chosen
//! by measurement: see DECISIONS.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};

use engine::EngineError;
use parking_lot::RwLock;

use crate::lesson::{Class, Step};
use crate::numbers::{pack_weights, unpack_weights};

/// A full lesson counts so much.
pub(crate) const FULL: u16 = 1000;
/// Every feature is taken to have been seen so often in either class before anything was learned, in full lessons.
const SEEN_BEFORE: f64 = 0.2;
/// What features say together is divided by their number to this power: 0 would take them for independent, 1 for one.
const DAMPING: f64 = 0.7;
/// Counts of all are kept in so many places; features that share one are told apart by the others of their message.
const PLACES: usize = 1 << 21;
/// An account's own lesson counts like so many of others, for that account.
const OWN_COUNTS: i64 = 20;
/// What the own lessons of an account can add at most, in log-odds.
const PERSONAL_MAX: f64 = 4.0;
/// With fewer lessons of either class nothing is said.
pub(crate) const LESSONS_MIN: u64 = 20;
/// From so many lessons of either class on, all is said.
const LESSONS_ENOUGH: u64 = 200;

/// What the classifier says of a message.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Opinion {
    /// Dampened log-odds of spam: 0 is no opinion.
    pub log_odds: f64,
}

impl Opinion {
    /// From 0 (ham) to 1 (spam).
    pub fn probability(self) -> f64 {
        1.0 / (1.0 + (-self.log_odds.clamp(-30.0, 30.0)).exp())
    }
}

/// Lessons of each class that weights are made of.
#[derive(Debug, Default)]
pub(crate) struct Lessons {
    pub ham: AtomicI64,
    pub spam: AtomicI64,
}

impl Lessons {
    fn of(&self, class: Class) -> &AtomicI64 {
        match class {
            Class::Ham => &self.ham,
            Class::Spam => &self.spam,
        }
    }

    pub(crate) fn count(&self, class: Class) -> u64 {
        u64::try_from(self.of(class).load(Ordering::Relaxed)).unwrap_or(0)
    }

    fn apply(&self, step: &Step) {
        self.of(step.class).fetch_add(if step.is_new { 1 } else { -1 }, Ordering::Relaxed);
    }

    fn load(&self, from: &Sparse) {
        self.ham.store(i64::try_from(from.ham).unwrap_or(0), Ordering::Relaxed);
        self.spam.store(i64::try_from(from.spam).unwrap_or(0), Ordering::Relaxed);
    }

    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn trust(&self) -> f64 {
        let fewer = self.count(Class::Ham).min(self.count(Class::Spam));
        if fewer < LESSONS_MIN { 0.0 } else { (fewer as f64 / LESSONS_ENOUGH as f64).min(1.0) }
    }
}

/// How often a feature, or any, was seen in each class, in thousandths of a full lesson.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counted {
    pub ham: i64,
    pub spam: i64,
}

impl Counted {
    fn of(step: &Step) -> Self {
        let amount = i64::from(step.amount);
        match step.class {
            Class::Ham => Self { ham: amount, spam: 0 },
            Class::Spam => Self { ham: 0, spam: amount },
        }
    }

    fn plus(self, other: Self) -> Self {
        Self { ham: self.ham.saturating_add(other.ham), spam: self.spam.saturating_add(other.spam) }
    }

    fn times(self, factor: i64) -> Self {
        Self { ham: self.ham.saturating_mul(factor), spam: self.spam.saturating_mul(factor) }
    }

    /// What a feature with these counts says, of `all` lessons.
    fn log_ratio(self, all: Self) -> f64 {
        let rate = |seen: i64, lessons: i64| (lots(seen) + SEEN_BEFORE) / (lots(lessons) + 2.0 * SEEN_BEFORE);
        (rate(self.spam, all.spam) / rate(self.ham, all.ham)).ln()
    }
}

/// Full lessons.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn lots(thousandths: i64) -> f64 {
    thousandths.max(0) as f64 / f64::from(FULL)
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand")]
fn dampened(sum: f64, features: usize) -> f64 {
    sum / (features.max(1) as f64).powf(DAMPING)
}

struct Place {
    ham: AtomicI32,
    spam: AtomicI32,
}

/// The counts of all: readers never wait.
pub struct Weights {
    places: Box<[Place]>,
    all: (AtomicI64, AtomicI64),
    pub(crate) lessons: Lessons,
}

impl Weights {
    pub(crate) fn new() -> Self {
        let places = (0..PLACES).map(|_| Place { ham: AtomicI32::new(0), spam: AtomicI32::new(0) }).collect();
        Self { places, all: Default::default(), lessons: Lessons::default() }
    }

    fn place(&self, number: u32) -> Option<&Place> {
        self.places.get(number as usize & (PLACES - 1))
    }

    fn counted(&self, number: u32) -> Counted {
        self.place(number).map_or(Counted::default(), |place| Counted {
            ham: place.ham.load(Ordering::Relaxed).into(),
            spam: place.spam.load(Ordering::Relaxed).into(),
        })
    }

    fn all(&self) -> Counted {
        Counted { ham: self.all.0.load(Ordering::Relaxed), spam: self.all.1.load(Ordering::Relaxed) }
    }

    /// What one feature says by itself: its log-odds of spam.
    pub fn weight(&self, number: u32) -> f64 {
        self.counted(number).log_ratio(self.all())
    }

    /// How much of an opinion is to be trusted, from 0 (too few lessons) to 1.
    pub fn trust(&self) -> f64 {
        self.lessons.trust()
    }

    /// What all lessons say; nothing while there are too few.
    pub fn opinion(&self, numbers: &[u32]) -> Opinion {
        let trust = self.lessons.trust();
        if trust == 0.0 {
            return Opinion { log_odds: 0.0 };
        }
        let sum: f64 = self.weights(numbers).iter().sum();
        Opinion { log_odds: dampened(sum, numbers.len()) * trust }
    }

    /// [`Self::weight`] of each.
    pub fn weights(&self, numbers: &[u32]) -> Vec<f64> {
        let all = self.all();
        // Places lie far apart in memory: asked for one right after the other, they come together.
        let counts: Vec<Counted> = numbers.iter().map(|number| self.counted(*number)).collect();
        counts.into_iter().map(|counted| counted.log_ratio(all)).collect()
    }

    pub(crate) fn apply(&self, step: &Step) {
        for number in &step.numbers {
            if let Some(place) = self.place(*number) {
                let seen = match step.class {
                    Class::Ham => &place.ham,
                    Class::Spam => &place.spam,
                };
                seen.fetch_add(step.amount, Ordering::Relaxed);
            }
        }
        let change = Counted::of(step);
        self.all.0.fetch_add(change.ham, Ordering::Relaxed);
        self.all.1.fetch_add(change.spam, Ordering::Relaxed);
        self.lessons.apply(step);
    }

    /// Every count that is not zero.
    pub(crate) fn sparse(&self) -> Sparse {
        let counts = (0u32..).take(PLACES).map(|number| (number, self.counted(number)));
        Sparse {
            counts: counts.filter(|(_, counted)| *counted != Counted::default()).collect(),
            all: self.all(),
            ham: self.lessons.count(Class::Ham),
            spam: self.lessons.count(Class::Spam),
        }
    }

    pub(crate) fn load(&self, from: &Sparse) {
        let small = |count: i64| i32::try_from(count).unwrap_or(i32::MAX);
        for (number, counted) in &from.counts {
            if let Some(place) = self.place(*number) {
                place.ham.store(small(counted.ham), Ordering::Relaxed);
                place.spam.store(small(counted.spam), Ordering::Relaxed);
            }
        }
        self.all.0.store(from.all.ham, Ordering::Relaxed);
        self.all.1.store(from.all.spam, Ordering::Relaxed);
        self.lessons.load(from);
    }
}

/// The weights of all as they are now; they may be replaced as a whole at any time.
#[derive(Clone)]
pub struct Current(pub(crate) Arc<RwLock<Arc<Weights>>>);

impl Current {
    pub(crate) fn new() -> Self {
        Self(Arc::new(RwLock::new(Arc::new(Weights::new()))))
    }

    /// Weights that [`Current::export`] wrote: they stay as they are.
    ///
    /// # Errors
    /// The octets are not such.
    pub fn frozen(exported: &[u8]) -> Result<Self, EngineError> {
        let weights = Weights::new();
        weights.load(&unpack_weights(exported)?);
        Ok(Self(Arc::new(RwLock::new(Arc::new(weights)))))
    }

    pub fn export(&self) -> Result<Vec<u8>, EngineError> {
        pack_weights(&self.weights().sparse())
    }

    /// One state, for all questions about one message.
    pub fn weights(&self) -> Arc<Weights> {
        Arc::clone(&self.0.read())
    }
}

/// Counts written out, by rising number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sparse {
    pub counts: Vec<(u32, Counted)>,
    pub all: Counted,
    pub ham: u64,
    pub spam: u64,
}

/// What one account's lessons add.
#[derive(Debug, Default)]
pub(crate) struct Personal {
    inner: RwLock<PersonalCounts>,
    lessons: Lessons,
}

#[derive(Debug, Default)]
struct PersonalCounts {
    counts: HashMap<u32, Counted>,
    all: Counted,
}

impl Personal {
    /// What they change of what `weights` say: nothing while those were taught too little to know what is common. Features
    /// that the account's lessons did not have say what they said.
    pub fn log_odds(&self, weights: &Weights, numbers: &[u32]) -> f64 {
        let inner = self.inner.read();
        let before = weights.all();
        // As if it had taught as much of the other class: who only knows spam does not make all else ham.
        let own = inner.all.ham.max(inner.all.spam);
        let after = before.plus(Counted { ham: own, spam: own }.times(OWN_COUNTS));
        let own = numbers.iter().filter_map(|number| Some((*number, *inner.counts.get(number)?)));
        let changes = own.map(|(number, own)| {
            let counted = weights.counted(number);
            counted.plus(own.times(OWN_COUNTS)).log_ratio(after) - counted.log_ratio(before)
        });
        (dampened(changes.sum(), numbers.len()) * weights.trust()).clamp(-PERSONAL_MAX, PERSONAL_MAX)
    }

    pub fn apply(&self, step: &Step) {
        let (mut inner, change) = (self.inner.write(), Counted::of(step));
        for number in &step.numbers {
            let counted = inner.counts.entry(*number).or_default();
            *counted = counted.plus(change);
        }
        inner.all = inner.all.plus(change);
        self.lessons.apply(step);
    }

    pub fn sparse(&self) -> Sparse {
        let inner = self.inner.read();
        let mut counts: Vec<_> = inner.counts.iter().map(|(number, counted)| (*number, *counted)).collect();
        counts.retain(|(_, counted)| *counted != Counted::default());
        counts.sort_unstable_by_key(|(number, _)| *number);
        Sparse { counts, all: inner.all, ham: self.lessons.count(Class::Ham), spam: self.lessons.count(Class::Spam) }
    }

    pub fn load(from: &Sparse) -> Self {
        let out = Self::default();
        out.lessons.load(from);
        *out.inner.write() = PersonalCounts { counts: from.counts.iter().copied().collect(), all: from.all };
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lesson::{Key, Owner};

    fn step(class: Class, numbers: &[u32]) -> Step {
        let numbers = numbers.to_vec();
        Step { owner: Owner::All, key: Key([0; 16]), class, version: 1, amount: FULL.into(), is_new: true, numbers }
    }

    /// Messages of each class: two features of the class, one of both, one of each message.
    fn school(weights: &Weights, messages: u32) {
        // One class after the other: their order must not matter.
        for at in 0..messages {
            weights.apply(&step(Class::Spam, &[1, 2, 9, 1000 + at]));
        }
        for at in 0..messages {
            weights.apply(&step(Class::Ham, &[3, 4, 9, 2000 + at]));
        }
    }

    #[test]
    fn it_learns_what_tells_the_classes_apart() {
        let weights = Weights::new();
        school(&weights, 300);
        assert!(weights.opinion(&[1, 2, 9]).log_odds > 3.0);
        assert!(weights.opinion(&[3, 4, 9]).log_odds < -3.0);
        assert!(weights.opinion(&[9, 77]).log_odds.abs() < 0.01);
        assert!(weights.opinion(&[1]).probability() > 0.5);
    }

    #[test]
    fn a_lesson_taken_back_leaves_no_trace() {
        let weights = Weights::new();
        weights.apply(&step(Class::Spam, &[1, 2, 3]));
        let before = weights.sparse();
        let (first, second) = (step(Class::Ham, &[2, 3, 4]), step(Class::Spam, &[4, 5]));
        weights.apply(&first);
        weights.apply(&second);
        // In another order than they came.
        for taught in [first, second] {
            weights.apply(&Step { amount: -taught.amount, is_new: false, ..taught });
        }
        assert_eq!(weights.sparse(), before);
    }

    #[test]
    fn little_teaching_says_nothing_and_one_class_alone_never_does() {
        let weights = Weights::new();
        for at in 0..500u32 {
            weights.apply(&step(Class::Spam, &[1, at + 10]));
        }
        assert_eq!(weights.opinion(&[1]).log_odds, 0.0);
        for at in 0..19u32 {
            weights.apply(&step(Class::Ham, &[2, at + 1000]));
        }
        assert_eq!(weights.opinion(&[1]).log_odds, 0.0);
        weights.apply(&step(Class::Ham, &[2, 3000]));
        let little = weights.opinion(&[1]).log_odds;
        for at in 0..200u32 {
            weights.apply(&step(Class::Ham, &[2, at + 4000]));
        }
        assert!(little > 0.0 && weights.opinion(&[1]).log_odds > little);
    }

    #[test]
    fn an_account_has_its_own_word_on_what_it_knows() {
        let (weights, personal) = (Weights::new(), Personal::default());
        let mail: Vec<u32> = (1..60).collect();
        let other: Vec<u32> = (100..160).collect();
        personal.apply(&step(Class::Spam, &mail));
        assert_eq!(personal.log_odds(&weights, &mail), 0.0, "nobody knows yet what is common");
        school(&weights, 300);
        assert!(personal.log_odds(&weights, &mail) > 0.5);
        assert_eq!(personal.log_odds(&weights, &other), 0.0, "nothing was said of it");
        let common = personal.log_odds(&weights, &[9, 100, 101, 102]);
        assert!(common < 0.1, "what is in all mail says little: {common}");
        personal.apply(&Step { amount: -1000, is_new: false, ..step(Class::Spam, &mail) });
        assert_eq!(personal.log_odds(&weights, &mail), 0.0);
        for _ in 0..1000 {
            personal.apply(&step(Class::Ham, &mail));
        }
        let says = personal.log_odds(&weights, &mail);
        assert!((-PERSONAL_MAX..-1.0).contains(&says), "{says}");
    }

    #[test]
    fn written_out_and_read_again() {
        let (weights, again) = (Weights::new(), Weights::new());
        weights.apply(&step(Class::Spam, &[1, u32::MAX, 77]));
        weights.apply(&step(Class::Ham, &[2, 77]));
        again.load(&weights.sparse());
        assert_eq!(again.sparse(), weights.sparse());
        assert_eq!(Personal::load(&weights.sparse()).sparse(), weights.sparse());
    }
}
