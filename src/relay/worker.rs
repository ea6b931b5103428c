//! A node's work on the queue: claims lanes that are due, and gives each to a task of its own.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use base::{ByteSize, Clock, IdSource, event};
use mailauth::Resolver;
use net::{Connectors, MemoryBudget, Tasks, Trust};
use parking_lot::Mutex;
use peers::Peers;
use store::{Lane, LaneClaim, Storage};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use trail::Trail;

use crate::client::Waits;
use crate::home::Home;
use crate::lane::LaneTask;
use crate::outgoing::Outgoing;
use crate::site::AtWork;
use crate::sts::Policies;

/// What the worker is built from.
pub struct RelayParts {
    pub storage: Arc<Storage>,
    pub home: Arc<dyn Home>,
    /// Without one, mail goes by routes alone.
    pub resolver: Option<Resolver>,
    pub outgoing: Arc<Outgoing>,
    /// What domains say of their servers; `None`: nobody asks.
    pub policies: Option<Arc<Policies>>,
    /// Is told how TLS went.
    pub peers: Arc<Peers>,
    pub trail: Arc<Trail>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<IdSource>,
}

/// Bounds and names.
#[derive(Clone, Debug)]
pub struct RelaySettings {
    /// Under which lanes are held: the node's.
    pub node_name: String,
    /// As we greet.
    pub host_name: String,
    pub waits: Waits,
    /// Where servers of the world take mail: 25.
    pub port: u16,
    /// Messages on their way at a time.
    pub attempts_max: usize,
    /// Lanes worked on at a time.
    pub lanes_max: usize,
    /// Content in memory.
    pub memory: ByteSize,
    /// Hears of notices that cannot be delivered.
    pub postmaster: Option<String>,
    /// Who signs certificates of servers that a policy names.
    pub authorities: Trust,
    /// Domains that want to know hear how TLS with their servers went.
    pub reports_tls: bool,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            node_name: "localhost".to_owned(),
            host_name: "localhost".to_owned(),
            waits: Waits::default(),
            port: 25,
            attempts_max: 500,
            lanes_max: 1000,
            memory: ByteSize::mib(256),
            postmaster: None,
            authorities: Trust::System,
            reports_tls: true,
        }
    }
}

/// The queue's worker on this node.
pub struct Relay {
    pub(crate) parts: RelayParts,
    pub(crate) settings: RelaySettings,
    pub(crate) connectors: Connectors,
    pub(crate) sites: AtWork,
    pub(crate) attempts: Arc<Semaphore>,
    pub(crate) memory: MemoryBudget,
    working: Mutex<HashSet<Lane>>,
}

/// A lane is held for so long without a word.
pub(crate) const LEASE: Duration = Duration::from_secs(30);
/// Lanes that other nodes put mail into, and those whose time has come, are looked for so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The engine is away: it is asked again.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
const CLAIMS_MAX: usize = 50;

impl Relay {
    pub fn new(parts: RelayParts, settings: RelaySettings) -> Arc<Self> {
        Arc::new(Self {
            attempts: Arc::new(Semaphore::new(settings.attempts_max)),
            memory: MemoryBudget::new(settings.memory),
            parts,
            settings,
            connectors: Connectors::default(),
            sites: AtWork::default(),
            working: Mutex::default(),
        })
    }

    /// Works until `stop`; what is under way is brought to its end by `tasks`.
    pub async fn run(self: Arc<Self>, tasks: Tasks, stop: CancellationToken) {
        let mut news = self.parts.outgoing.news.subscribe();
        let mut is_begun = false;
        let mut was_lost = false;
        while !stop.is_cancelled() {
            if !is_begun {
                is_begun = self.begin().await;
            }
            let mut has_more = false;
            let room = self.settings.lanes_max.saturating_sub(self.working.lock().len()).min(CLAIMS_MAX);
            if is_begun && room > 0 {
                match self.parts.storage.queue.claim_lanes(&self.settings.node_name, LEASE, room).await {
                    Ok(claims) => {
                        was_lost = false;
                        has_more = claims.len() == room;
                        claims.into_iter().for_each(|claim| self.work_on(claim, &tasks));
                    }
                    Err(error) => {
                        if !was_lost {
                            tracing::warn!(event = event::STORE_FAILED, what = "queue", %error);
                        }
                        was_lost = true;
                    }
                }
            }
            for mut stale in self.sites.take_stale(self.parts.clock.now()) {
                tasks.spawn("farewell", async move { stale.quit().await });
            }
            if has_more {
                continue;
            }
            let wait = if was_lost || !is_begun { AGAIN_AFTER } else { LOOK_EVERY };
            tokio::select! {
                () = stop.cancelled() => {}
                _ = tokio::time::timeout(wait, news.changed()) => {}
            }
        }
    }

    /// So many nodes send now: each takes its share of what a site is given.
    pub fn set_nodes(&self, nodes: u32) {
        self.sites.set_nodes(nodes);
    }

    /// What this node held in an earlier life is free.
    async fn begin(&self) -> bool {
        self.parts.storage.queue.give_up_lanes(&self.settings.node_name).await.is_ok()
    }

    fn work_on(self: &Arc<Self>, claim: LaneClaim, tasks: &Tasks) {
        self.working.lock().insert(claim.lane.clone());
        let (relay, stop, working) = (Arc::clone(self), tasks.stopping(), Arc::clone(self));
        let lane = claim.lane.clone();
        tasks.spawn("lane", async move {
            let _working = Working { of: working, lane };
            LaneTask::new(relay, claim).run(stop).await;
        });
    }
}

struct Working {
    of: Arc<Relay>,
    lane: Lane,
}

impl Drop for Working {
    fn drop(&mut self) {
        self.of.working.lock().remove(&self.lane);
    }
}
