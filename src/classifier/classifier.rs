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
    /// The step up to which all are in memory. Held while something is learned: one lesson starts from what the other left.
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
        self.change(lessons, true).await
    }

    /// Takes back what was learned of the messages, whatever class they were learned as.
    pub async fn unlearn(&self, lessons: &[Lesson]) -> Result<Vec<Learned>, EngineError> {
        self.change(lessons, false).await
    }

    async fn change(&self, lessons: &[Lesson], is_new: bool) -> Result<Vec<Learned>, EngineError> {
        let mut applied = self.applied.lock().await;
        for _ in 0..TRIES {
            self.catch_up(&mut applied).await?;
            let mut batch = Batch::default();
            let planned = self.plan(lessons, is_new, &mut batch).await;
            let added = match planned {
                Ok(()) if batch.steps.is_empty() => return Ok(batch.outcome),
                Ok(()) => self.tables.add(batch.steps.clone(), batch.changes.clone(), self.clock.utc()).await,
                Err(error) => Err(error),
            };
            match added {
                Ok(Some(first)) => {
                    // What others added before it is not here yet; what is ours is.
                    let ours = first..first + i64::try_from(batch.steps.len()).unwrap_or(i64::MAX);
                    self.apply_since(&mut applied, Some(&ours)).await?;
                    return Ok(batch.outcome);
                }
                Ok(None) => self.take_out(&batch.steps),
                Err(error) => {
                    self.take_out(&batch.steps);
                    return Err(error);
                }
            }
        }
        Err(EngineError::damaged("other nodes learn the same messages all the time"))
    }

    /// Works out the steps, and applies each in memory, for the next starts from there.
    async fn plan(&self, lessons: &[Lesson], is_new: bool, batch: &mut Batch) -> Result<(), EngineError> {
        for lesson in lessons {
            let earlier = batch.changes.iter().rposition(|c| c.owner == lesson.owner && c.key == lesson.key);
            let was = match earlier.and_then(|at| batch.changes.get(at)) {
                Some(change) => change.is,
                None => self.tables.known(lesson.owner, lesson.key).await?,
            };
            let (back, forth, learned) = match (was, is_new) {
                (Some(known), true) if known.class == lesson.class => (None, false, Learned::Known),
                (Some(known), true) => (Some(known), true, Learned::Corrected),
                (Some(known), false) => (Some(known), false, Learned::Unlearned),
                (None, true) => (None, true, Learned::New),
                (None, false) => (None, false, Learned::NotKnown),
            };
            batch.outcome.push(learned);
            if back.is_none() && !forth {
                continue;
            }
            let personal = match lesson.owner {
                Owner::All => None,
                Owner::Account(account) => Some(self.personal(account).await?),
            };
            let mut is = None;
            if let Some(known) = back.filter(|known| known.version == lesson.version) {
                batch.steps.push(self.take_step(lesson, known.class, -known.amount, false, personal.as_deref()));
            }
            if forth {
                let amount = i32::from(lesson.strength.min(FULL));
                batch.steps.push(self.take_step(lesson, lesson.class, amount, true, personal.as_deref()));
                is = Some(Known { class: lesson.class, amount, version: lesson.version });
            }
            match earlier.and_then(|at| batch.changes.get_mut(at)) {
                Some(change) => change.is = is,
                None => batch.changes.push(Change { owner: lesson.owner, key: lesson.key, was, is }),
            }
        }
        Ok(())
    }

    fn take_step(&self, lesson: &Lesson, class: Class, amount: i32, is_new: bool, personal: Option<&Personal>) -> Step {
        let (owner, key, version) = (lesson.owner, lesson.key, lesson.version);
        let step = Step { owner, key, class, version, amount, is_new, numbers: lesson.numbers.clone() };
        match personal {
            Some(personal) => personal.apply(&step),
            None => self.weights().apply(&step),
        }
        if let Owner::Account(account) = owner {
            self.teachers.write().insert(account);
        }
        step
    }

    /// Undoes in memory what was not written.
    fn take_out(&self, steps: &[Step]) {
        for step in steps {
            match step.owner {
                Owner::All => {
                    self.weights().apply(&Step { amount: -step.amount, is_new: !step.is_new, ..step.clone() });
                }
                Owner::Account(account) => self.personal.invalidate(&account),
            }
        }
    }

    /// Brings in what other nodes learned.
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
            self.apply_since(applied, None).await?;
        }
        Ok(())
    }

    /// Applies steps above `applied`, but for those in `ours`, which are in memory already.
    async fn apply_since(&self, applied: &mut i64, ours: Option<&std::ops::Range<i64>>) -> Result<(), EngineError> {
        if let Some(ours) = ours
            && ours.start == *applied + 1
        {
            *applied = ours.end - 1;
            return Ok(());
        }
        loop {
            let steps = self.tables.since(None, *applied, BATCH).await?;
            let mut foreign: HashSet<AccountId> = HashSet::new();
            for Numbered { seq, step } in &steps {
                *applied = *seq;
                if ours.is_some_and(|ours| ours.contains(seq)) {
                    continue;
                }
                match step.owner {
                    Owner::All => self.weights().apply(step),
                    Owner::Account(account) => {
                        self.teachers.write().insert(account);
                        foreign.insert(account);
                    }
                }
            }
            for account in foreign {
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

#[derive(Default)]
struct Batch {
    steps: Vec<Step>,
    changes: Vec<Change>,
    outcome: Vec<Learned>,
}
