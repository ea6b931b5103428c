//! What a node knows of all that was learned, and how it learns.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, Clock, UtcMillis};
use engine::EngineError;
use engine::postgres::Pool;
use moka::sync::Cache;
use parking_lot::RwLock;
use tokio::sync::Mutex;

use crate::lesson::{Class, Known, Learned, Lesson, Owner, Step};
use crate::model::{Current, FULL, LESSONS_MIN, Personal, Weights};
use crate::numbers::{pack_weights, unpack_weights};
use crate::postgres::PgTables;
use crate::sqlite::SqliteTables;
use crate::tables::{Change, Numbered, Tables};

/// Learns and judges. What it holds in memory is made anew from its tables at any time.
pub struct Classifier {
    pub(crate) tables: Box<dyn Tables>,
    clock: Arc<dyn Clock>,
    current: Current,
    personal: Cache<AccountId, Arc<Personal>>,
    /// Accounts that taught something for themselves: nobody asks the tables for others.
    teachers: RwLock<HashSet<AccountId>>,
    /// The step up to which all are in memory.
    applied: Mutex<i64>,
}

/// What was learned, and not taken back since.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    pub ham: u64,
    pub spam: u64,
}

impl Counts {
    /// With fewer lessons of either class the classifier says nothing.
    pub const NEEDED: u64 = LESSONS_MIN;
}

/// Accounts whose weights stay in memory.
const ACCOUNTS_MAX: u64 = 2000;
const IDLE: Duration = Duration::from_secs(1800);
/// Steps read at a time.
const BATCH: usize = 500;
/// An owner with more steps gets a snapshot in their place.
const STEPS_MAX: usize = 2000;
/// A lesson can be taken back so long.
const KNOWN_DAYS: i64 = 400;
/// Tries for a batch of which another node learns a part at the same time.
const TRIES: usize = 5;

impl Classifier {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// Names the file: no database, of a newer format, in use.
    pub async fn open(file: &Path, clock: Arc<dyn Clock>) -> Result<Self, EngineError> {
        Self::on(Box::new(SqliteTables::open(file)?), clock).await
    }

    pub async fn open_postgres(pool: Arc<Pool>, clock: Arc<dyn Clock>) -> Result<Self, EngineError> {
        Self::on(Box::new(PgTables::open(pool).await?), clock).await
    }

    async fn on(tables: Box<dyn Tables>, clock: Arc<dyn Clock>) -> Result<Self, EngineError> {
        let personal = Cache::builder().max_capacity(ACCOUNTS_MAX).time_to_idle(IDLE).build();
        let out = Self {
            tables,
            clock,
            current: Current::new(),
            teachers: RwLock::default(),
            personal,
            applied: Mutex::new(-1),
        };
        out.refresh().await?;
        Ok(out)
    }

    /// The weights of all, for judging: no I/O.
    pub fn current(&self) -> Current {
        self.current.clone()
    }

    /// What the account's own lessons add to the opinion of all, in log-odds; 0 for accounts that taught nothing.
    pub async fn of_account(&self, account: AccountId, numbers: &[u32]) -> Result<f64, EngineError> {
        if !self.teachers.read().contains(&account) {
            return Ok(0.0);
        }
        let personal = match self.personal.get(&account) {
            Some(found) => found,
            None => {
                let _applied = self.applied.lock().await;
                self.personal(account).await?
            }
        };
        Ok(personal.log_odds(&self.weights(), numbers))
    }

    pub fn counts(&self) -> Counts {
        let weights = self.weights();
        Counts { ham: weights.lessons.count(Class::Ham), spam: weights.lessons.count(Class::Spam) }
    }

    /// Learns messages, all or none, in order. On return it is durable; other nodes know within about a second.
    pub async fn learn(&self, lessons: &[Lesson]) -> Result<Vec<Learned>, EngineError> {
        self.change(lessons, Wish::Learn).await
    }

    /// Learns messages that nobody said anything of: what is known of one stays as it is.
    pub async fn learn_unasked(&self, lessons: &[Lesson]) -> Result<Vec<Learned>, EngineError> {
        self.change(lessons, Wish::LearnUnasked).await
    }

    /// Takes back what was learned of the messages, whatever class they were learned as.
    pub async fn unlearn(&self, lessons: &[Lesson]) -> Result<Vec<Learned>, EngineError> {
        self.change(lessons, Wish::Unlearn).await
    }

    async fn change(&self, lessons: &[Lesson], wish: Wish) -> Result<Vec<Learned>, EngineError> {
        for _ in 0..TRIES {
            let Batch { steps, changes, outcome } = self.plan(lessons, wish).await?;
            if steps.is_empty() || self.tables.add(steps, changes, self.clock.utc()).await? {
                self.refresh().await?;
                return Ok(outcome);
            }
        }
        Err(EngineError::damaged("other nodes learn the same messages all the time"))
    }

    /// Works out the steps from what is known of the messages now.
    async fn plan(&self, lessons: &[Lesson], wish: Wish) -> Result<Batch, EngineError> {
        let mut batch = Batch::default();
        for lesson in lessons {
            let &Lesson { owner, key, class, version, strength, .. } = lesson;
            let step = |class, amount, is_new| {
                let numbers = lesson.numbers.clone();
                Step { owner, key, class, version, amount, is_new, numbers }
            };
            let earlier = batch.changes.iter().rposition(|c| c.owner == owner && c.key == key);
            let was = match earlier.and_then(|at| batch.changes.get(at)) {
                Some(change) => change.is,
                None => self.tables.known(owner, key).await?,
            };
            let is_as_strong = |known: Known| known.class == class && known.amount >= strength.min(FULL).into();
            let (back, forth, learned) = match (was, wish) {
                (Some(_), Wish::LearnUnasked) => (None, false, Learned::Known),
                (Some(known), Wish::Learn) if is_as_strong(known) => (None, false, Learned::Known),
                (Some(known), Wish::Learn) => (Some(known), true, Learned::Corrected),
                // Its features had other numbers.
                (Some(known), Wish::Unlearn) if known.version != version => (None, false, Learned::NotKnown),
                (Some(known), Wish::Unlearn) => (Some(known), false, Learned::Unlearned),
                (None, Wish::Learn | Wish::LearnUnasked) => (None, true, Learned::New),
                (None, Wish::Unlearn) => (None, false, Learned::NotKnown),
            };
            batch.outcome.push(learned);
            if back.is_none() && !forth {
                continue;
            }
            if let Some(known) = back.filter(|known| known.version == version) {
                batch.steps.push(step(known.class, -known.amount, false));
            }
            let is = forth.then(|| Known { class, amount: strength.min(FULL).into(), version });
            batch.steps.extend(is.map(|known| step(class, known.amount, true)));
            match earlier.and_then(|at| batch.changes.get_mut(at)) {
                Some(change) => change.is = is,
                None => batch.changes.push(Change { owner, key, was, is }),
            }
        }
        Ok(batch)
    }

    /// Brings in what was learned, here and by other nodes.
    pub async fn refresh(&self) -> Result<(), EngineError> {
        let mut applied = self.applied.lock().await;
        self.catch_up(&mut applied).await
    }

    /// Makes everything in memory anew.
    pub(crate) async fn reload(&self) -> Result<(), EngineError> {
        let mut applied = self.applied.lock().await;
        *applied = -1;
        self.catch_up(&mut applied).await
    }

    async fn catch_up(&self, applied: &mut i64) -> Result<(), EngineError> {
        let stand = self.tables.stand().await?;
        if *applied < 0 || stand.snapshot > *applied || stand.last < *applied {
            // The steps that are missing here are gone; or this is another history, as after a restore.
            let weights = Weights::new();
            *applied = 0;
            if let Some((seq, packed)) = self.tables.snapshot(Owner::All).await? {
                weights.load(&unpack_weights(&packed)?);
                *applied = seq;
            }
            self.personal.invalidate_all();
            *self.teachers.write() = self.tables.teachers().await?.into_iter().collect();
            *self.current.0.write() = Arc::new(weights);
        }
        if stand.last > *applied {
            self.apply_since(applied).await?;
        }
        Ok(())
    }

    async fn apply_since(&self, applied: &mut i64) -> Result<(), EngineError> {
        loop {
            let steps = self.tables.since(None, *applied, BATCH).await?;
            let mut taught: HashSet<AccountId> = HashSet::new();
            for Numbered { seq, step } in &steps {
                *applied = *seq;
                match step.owner {
                    Owner::All => self.weights().apply(step),
                    Owner::Account(account) => {
                        self.teachers.write().insert(account);
                        taught.insert(account);
                    }
                }
            }
            for account in taught {
                self.personal.invalidate(&account);
            }
            if steps.len() < BATCH {
                return Ok(());
            }
        }
    }

    /// Only while `applied` is held: what is learned meanwhile would be missing.
    async fn personal(&self, account: AccountId) -> Result<Arc<Personal>, EngineError> {
        if let Some(found) = self.personal.get(&account) {
            return Ok(found);
        }
        let (personal, _) = self.rebuild(account).await?;
        let personal = Arc::new(personal);
        self.personal.insert(account, Arc::clone(&personal));
        Ok(personal)
    }

    /// An account's weights from its tables, and the last step in them.
    async fn rebuild(&self, account: AccountId) -> Result<(Personal, i64), EngineError> {
        let owner = Owner::Account(account);
        let (mut last, personal) = match self.tables.snapshot(owner).await? {
            Some((seq, packed)) => (seq, Personal::load(&unpack_weights(&packed)?)),
            None => (0, Personal::default()),
        };
        loop {
            let steps = self.tables.since(Some(owner), last, BATCH).await?;
            for Numbered { seq, step } in &steps {
                personal.apply(step);
                last = *seq;
            }
            if steps.len() < BATCH {
                return Ok((personal, last));
            }
        }
    }

    /// Writes snapshots in place of many steps and forgets what is too old to be taken back. One node at a time is enough.
    pub async fn tidy(&self) -> Result<(), EngineError> {
        for owner in self.tables.owners_above(STEPS_MAX).await? {
            let (sparse, last) = match owner {
                Owner::All => {
                    let mut applied = self.applied.lock().await;
                    self.catch_up(&mut applied).await?;
                    (self.weights().sparse(), *applied)
                }
                Owner::Account(account) => {
                    let (personal, last) = self.rebuild(account).await?;
                    (personal.sparse(), last)
                }
            };
            self.tables.put_snapshot(owner, last, pack_weights(&sparse)?).await?;
        }
        let before = UtcMillis(self.clock.utc().0 - KNOWN_DAYS * 86_400_000);
        while self.tables.forget_known(before, BATCH).await? == BATCH {}
        Ok(())
    }

    /// Forgets everything that an account taught for itself.
    pub async fn forget(&self, account: AccountId) -> Result<(), EngineError> {
        self.tables.forget(account).await?;
        self.teachers.write().remove(&account);
        self.personal.invalidate(&account);
        Ok(())
    }

    fn weights(&self) -> Arc<Weights> {
        self.current.weights()
    }
}

/// What is to be done with lessons.
#[derive(Clone, Copy)]
enum Wish {
    Learn,
    LearnUnasked,
    Unlearn,
}

#[derive(Default)]
struct Batch {
    steps: Vec<Step>,
    changes: Vec<Change>,
    outcome: Vec<Learned>,
}
