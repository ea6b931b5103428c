//! The layers of all owners, and the policies that they make.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use access::Position;
use arc_swap::ArcSwap;
use base::{Clock, UtcMillis};
use engine::postgres::{Migration, Pool};
use engine::table::{Columns as _, Done, Place, Row, Statement, Undone, Value};
use engine::{Database, EngineError, Settings};
use moka::sync::Cache;
use parking_lot::Mutex;
use policy::{EffectivePolicy, Layer, Level, Presets};

use crate::entry;
use crate::owner::Owner;

pub(crate) const SQLITE: &[&str] = &[include_str!("sqlite-1.sql")];
pub(crate) const POSTGRES: &[Migration] = &[Migration { text: include_str!("postgres-1.sql"), oldest: 1 }];
pub(crate) const COMPONENT: &str = "policy";

/// Why a policy was not changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LayerError {
    /// `option`: what it is about, by its name.
    #[error("{why}")]
    Refused { option: Option<&'static str>, why: String },
    #[error("{what} does not exist")]
    Missing { what: String },
    /// Somebody else changed it since it was read.
    #[error("the policy was changed meanwhile: read it again")]
    Changed,
    #[error(transparent)]
    Unavailable(#[from] EngineError),
}

/// Policies of all levels, on the file of one node or on the server that all share. Every change made here counts here at
/// once; one of another node does when [`Layers::refresh`] sees it.
pub struct Layers {
    pub(crate) place: Place,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) presets: Presets,
    /// What the node's policy file says, below what is kept for the system.
    file: ArcSwap<Layer>,
    own: Cache<Owner, Option<Arc<Layer>>>,
    /// By those owners above a recipient that say anything.
    made: Cache<Vec<Owner>, Arc<EffectivePolicy>>,
    /// Rises when the caches are emptied: what was asked for before is not kept after.
    epoch: AtomicU64,
    version: AtomicU64,
    /// Lines of lists that fitted a sender, and when.
    pub(crate) hits: Mutex<std::collections::HashMap<i64, UtcMillis>>,
}

/// Most owners say nothing, which takes little.
const OWN_MAX: u64 = 500_000;
const MADE_MAX: u64 = 20_000;
const CACHED_FOR: Duration = Duration::from_secs(300);

impl Layers {
    /// Opens or makes `file`. `system`: what the node's policy file says. Blocks.
    ///
    /// # Errors
    /// Names the file: no database, of a newer format, in use.
    pub fn open(file: &Path, clock: Arc<dyn Clock>, system: Layer) -> Result<Self, EngineError> {
        let settings = Settings { migrations: SQLITE, readers: 4, cache_kib: 4 * 1024 };
        Ok(Self::on(Place::Sqlite(Arc::new(Database::open(file, &settings)?)), clock, system))
    }

    pub async fn open_postgres(pool: Arc<Pool>, clock: Arc<dyn Clock>, system: Layer) -> Result<Self, EngineError> {
        engine::postgres::migrate(&pool, COMPONENT, POSTGRES).await?;
        Ok(Self::on(Place::Postgres(pool), clock, system))
    }

    fn on(place: Place, clock: Arc<dyn Clock>, system: Layer) -> Self {
        Self {
            place,
            clock,
            presets: Presets::shipped(),
            file: ArcSwap::from_pointee(system),
            own: Cache::builder().max_capacity(OWN_MAX).time_to_live(CACHED_FOR).build(),
            made: Cache::builder().max_capacity(MADE_MAX).time_to_live(CACHED_FOR).build(),
            epoch: AtomicU64::new(0),
            version: AtomicU64::new(0),
            hits: Mutex::default(),
        }
    }

    /// Another policy file of the node's counts from now on.
    pub fn set_file(&self, system: Layer) {
        self.file.store(Arc::new(system));
        self.forget();
    }

    pub(crate) fn file(&self) -> Arc<Layer> {
        self.file.load_full()
    }

    /// Forgets what the caches hold if another node changed something, and writes down which lines of lists fitted. A node
    /// calls it every second.
    pub async fn refresh(&self) -> Result<(), EngineError> {
        self.note_hits().await?;
        let rows = self.place.query("SELECT changes FROM policy_version", Vec::new()).await?;
        let version = rows.first().map_or(Ok(0), |row| row.number(0))?;
        if self.version.swap(version, Ordering::AcqRel) != version {
            self.forget();
        }
        Ok(())
    }

    pub(crate) fn forget(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.own.invalidate_all();
        self.made.invalidate_all();
    }

    /// A change that every node hears of.
    pub(crate) async fn change(&self, mut steps: Vec<Statement>) -> Result<Result<Vec<Done>, Undone>, EngineError> {
        steps.push(Statement::new("UPDATE policy_version SET changes = changes + 1", Vec::new()));
        let done = self.place.change(steps).await;
        self.forget();
        done
    }

    /// The policy of what is at `position`.
    ///
    /// # Errors
    /// The engine does not say, and nothing is known from before: mail is deferred.
    pub async fn effective(&self, position: Position) -> Result<Arc<EffectivePolicy>, EngineError> {
        let owners = Owner::above(position);
        let epoch = self.epoch.load(Ordering::Acquire);
        let layers = self.of(&owners).await?;
        let key: Vec<Owner> =
            owners.iter().zip(&layers).filter(|(_, layer)| layer.is_some()).map(|(o, _)| *o).collect();
        if let Some(made) = self.made.get(&key) {
            return Ok(made);
        }
        let mut all: Vec<Layer> = Vec::with_capacity(layers.len());
        let file = self.file();
        for (owner, layer) in owners.iter().zip(&layers) {
            match (owner.level, layer) {
                (Level::System, Some(layer)) => all.push(Layer::clone(layer).over(&file)),
                (Level::System, None) => all.push(Layer::clone(&file)),
                (_, Some(layer)) => all.push(Layer::clone(layer)),
                (_, None) => {}
            }
        }
        let made = Arc::new(EffectivePolicy::resolve(&self.presets, &all));
        self.made.insert(key.clone(), Arc::clone(&made));
        if self.epoch.load(Ordering::Acquire) != epoch {
            self.made.invalidate(&key);
        }
        Ok(made)
    }

    /// What each owner says, in order; one question for those that are not known.
    pub(crate) async fn of(&self, owners: &[Owner]) -> Result<Vec<Option<Arc<Layer>>>, EngineError> {
        let mut found: Vec<Option<Option<Arc<Layer>>>> = owners.iter().map(|owner| self.own.get(owner)).collect();
        let unknown: Vec<Owner> =
            owners.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(owner, _)| *owner).collect();
        if !unknown.is_empty() {
            let epoch = self.epoch.load(Ordering::Acquire);
            let read = self.read(&unknown).await?;
            for (owner, layer) in unknown.iter().zip(read) {
                self.own.insert(*owner, layer.clone());
                if self.epoch.load(Ordering::Acquire) != epoch {
                    self.own.invalidate(owner);
                }
                if let Some(at) = owners.iter().position(|one| one == owner)
                    && let Some(slot) = found.get_mut(at)
                {
                    *slot = Some(layer);
                }
            }
        }
        Ok(found.into_iter().map(Option::flatten).collect())
    }

    async fn read(&self, owners: &[Owner]) -> Result<Vec<Option<Arc<Layer>>>, EngineError> {
        let (mut parts, mut values) = (Vec::new(), Vec::new());
        for owner in owners {
            let first = values.len() + 1;
            parts.push(format!("(level = ${first} AND owner = ${})", first + 1));
            values.extend([Value::from(owner.level.as_str()), Value::from(owner.id)]);
        }
        let condition = parts.join(" OR ");
        let text = format!("SELECT level, owner, text FROM policy_layer WHERE {condition}");
        let rows = self.place.query(&text, values.clone()).await?;
        let lists = entry::read_lists(&self.place, &condition, values).await?;
        let mut out = Vec::with_capacity(owners.len());
        for owner in owners {
            let is_its = |row: &&Row| {
                row.text(0).is_ok_and(|level| level == owner.level.as_str())
                    && row.number(1).is_ok_and(|id| id == owner.id)
            };
            let layer = rows.iter().find(is_its).map(|row| read_layer(*owner, row)).transpose()?;
            let listed = lists.get(owner).cloned();
            out.push(match (layer, listed) {
                (None, None) => None,
                (layer, listed) => {
                    let layer = layer.unwrap_or_else(|| empty(*owner));
                    Some(Arc::new(layer.with_lists(listed.unwrap_or_default())))
                }
            });
        }
        Ok(out)
    }

    /// Forgets all that an owner says; it is gone. What is planned for it is, too.
    pub async fn forget_owner(&self, owner: Owner) -> Result<(), EngineError> {
        let values = || vec![Value::from(owner.level.as_str()), Value::from(owner.id)];
        let tables = ["policy_layer", "policy_change", "policy_plan", "sender_entry"];
        let step =
            |table: &str| Statement::new(format!("DELETE FROM {table} WHERE level = $1 AND owner = $2"), values());
        let _ = self.change(tables.into_iter().map(step).collect()).await?;
        Ok(())
    }

    pub(crate) fn now(&self) -> UtcMillis {
        self.clock.utc()
    }
}

pub(crate) fn empty(owner: Owner) -> Layer {
    Layer::empty(owner.level, NAME)
}

/// Names what is kept in origins, after its level: everybody above a recipient has one name there.
pub(crate) const NAME: &str = "settings";

/// What was kept was checked; an option that a later version added, and this one does not know, is left out.
fn read_layer(owner: Owner, row: &Row) -> Result<Layer, EngineError> {
    let text = row.text(2)?;
    if let Ok(layer) = Layer::parse(owner.level, NAME, text) {
        return Ok(layer);
    }
    let mut layer = empty(owner);
    for line in text.lines() {
        match Layer::parse(owner.level, NAME, line) {
            Ok(one) => layer = one.over(&layer),
            Err(error) => tracing::warn!(event = "policy.unknown", owner = ?owner, %error),
        }
    }
    Ok(layer)
}
