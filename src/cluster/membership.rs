//! This node among the others: its heartbeat, and what it hears of theirs.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use base::{AccountId, Clock, UtcMillis, event};
use config::Role;
use engine::postgres::Pool;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::identity::Identity;
use crate::member::{Member, State, Wish};
use crate::nodes::{ClusterError, Nodes, Roll};
use crate::rendezvous;

/// So often a node says that it is there.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// After so many heartbeats in turn all nodes that can reach the server had time for one of their own.
const STEADY_AFTER: u32 = 6;

/// What a node says of itself.
#[derive(Clone, Debug)]
pub struct Settings {
    pub name: String,
    /// `host:port` where other nodes reach it.
    pub address: Option<String>,
    pub roles: Vec<Role>,
    pub version: String,
}

/// What a node says of itself with each heartbeat.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Beat {
    /// Open ones.
    pub sessions: u64,
    /// How its parts are, as JSON: passed on as it is, for people.
    pub health: String,
}

/// All nodes, as this one last heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    /// By name; this node is one of them.
    pub members: Vec<Member>,
    /// The server has been there for so long that whoever is not heard of is silent for a reason of its own.
    pub is_steady: bool,
    own: String,
}

impl View {
    /// The node where an account's sessions belong. `None` if that is this one, or if there is no better one.
    pub fn elsewhere(&self, account: AccountId) -> Option<&Member> {
        let fit = self.members.iter().filter(|one| one.takes_accounts());
        let can_be_reached = fit.filter(|one| one.address.is_some() || one.name == self.own);
        let name = rendezvous::choose(account, can_be_reached.map(|one| one.name.as_str()))?;
        self.members.iter().find(|one| one.name == name && one.name != self.own)
    }

    pub fn own(&self) -> Option<&Member> {
        self.members.iter().find(|one| one.name == self.own)
    }
}

/// This node's place. A node on the embedded engine is alone.
pub struct Membership {
    settings: Settings,
    started_at: UtcMillis,
    shared: Option<(Box<dyn Roll>, Identity)>,
    view: watch::Sender<Arc<View>>,
    /// Heartbeats that went well, since the last one that did not.
    beats: AtomicU32,
    /// Of a node that is alone.
    drains: AtomicBool,
    /// Wakes the heartbeat before its time.
    soon: Notify,
}

impl Membership {
    /// A node without others.
    pub fn alone(settings: Settings, clock: &dyn Clock) -> Self {
        Self::new(settings, clock, None)
    }

    /// A place among the nodes that share a server ([`crate::open`]); not yet taken. `folder` is the node's own.
    ///
    /// # Errors
    /// An identity that cannot be read.
    pub async fn on(
        pool: Arc<Pool>,
        folder: &Path,
        settings: Settings,
        clock: &dyn Clock,
    ) -> Result<Self, ClusterError> {
        let folder = folder.to_path_buf();
        let identity = tokio::task::spawn_blocking(move || Identity::of(&folder)).await;
        let identity = identity.map_err(|_| engine::EngineError::Closing)??;
        Ok(Self::new(settings, clock, Some((Box::new(Nodes { pool }), identity))))
    }

    pub(crate) fn new(settings: Settings, clock: &dyn Clock, shared: Option<(Box<dyn Roll>, Identity)>) -> Self {
        let view = View { members: Vec::new(), is_steady: false, own: settings.name.clone() };
        let (view, started_at) = (watch::Sender::new(Arc::new(view)), clock.utc());
        Self {
            settings,
            started_at,
            shared,
            view,
            beats: AtomicU32::new(0),
            drains: AtomicBool::new(false),
            soon: Notify::new(),
        }
    }

    /// Takes the place. To be done before anything is served.
    ///
    /// # Errors
    /// Another node of this name is up.
    pub async fn enter(&self) -> Result<(), ClusterError> {
        match &self.shared {
            Some((nodes, id)) => {
                nodes.enter(&self.settings, id, self.started_at).await?;
                self.see(nodes.list().await?);
            }
            None => self.see(vec![self.lone(None)]),
        }
        Ok(())
    }

    /// Says every second that the node is there, and how it is, until `stop`; then that it stops.
    pub async fn run(&self, own: impl Fn() -> Beat + Send, stop: CancellationToken) {
        let mut beat = tokio::time::interval(BEAT_EVERY);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut was_lost = false;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = beat.tick() => {}
                () = self.soon.notified() => {}
            }
            let beat = self.beat(own()).await;
            let beats = if beat.is_ok() { self.beats.load(Ordering::Relaxed).saturating_add(1) } else { 0 };
            self.beats.store(beats, Ordering::Relaxed);
            match beat {
                Ok(()) => was_lost = false,
                // What was last heard holds until there is news.
                Err(error) if !was_lost => {
                    was_lost = true;
                    tracing::warn!(event = event::CLUSTER_LOST, %error);
                }
                Err(_) => {}
            }
        }
        if let Some((nodes, id)) = &self.shared {
            // Not heard of any more it counts as down soon.
            let _ = nodes.leave(&self.settings, id).await;
        }
    }

    async fn beat(&self, beat: Beat) -> Result<(), ClusterError> {
        let Some((nodes, id)) = &self.shared else {
            self.see(vec![self.lone(Some(beat))]);
            return Ok(());
        };
        let members = match nodes.beat(&self.settings, id, &beat).await? {
            Some(members) => members,
            // Removed while it was not heard of: it is there all the same.
            None => {
                nodes.enter(&self.settings, id, self.started_at).await?;
                nodes.list().await?
            }
        };
        self.see(members);
        Ok(())
    }

    fn lone(&self, beat: Option<Beat>) -> Member {
        let (sessions, health) = beat.map_or((0, None), |beat| (beat.sessions, Some(beat.health)));
        let Settings { name, address, roles, version } = self.settings.clone();
        let wish = if self.drains.load(Ordering::Relaxed) { Wish::Drain } else { Wish::Serve };
        let (started_at, silent) = (self.started_at, Some(Duration::ZERO));
        Member { name, address, roles, version, started_at, silent, wish, sessions, health }
    }

    fn see(&self, members: Vec<Member>) {
        let before = self.view();
        for one in &members {
            let was = before.members.iter().find(|other| other.name == one.name).map(Member::state);
            if was != Some(one.state()) {
                tracing::info!(event = event::NODE_STATE, node = %one.name, state = one.state().as_str());
            }
        }
        for state in [State::Up, State::Draining, State::Down] {
            let count = members.iter().filter(|one| one.state() == state).count();
            let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
            metrics::gauge!("ortler_cluster_nodes", "state" => state.as_str()).set(count);
        }
        let is_steady = self.beats.load(Ordering::Relaxed) >= STEADY_AFTER;
        self.view.send_replace(Arc::new(View { members, is_steady, own: self.settings.name.clone() }));
    }

    /// Of this node.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// All nodes, as last heard: while the server is away, as they were before.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// Told of each change.
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    /// True while new sessions are not wanted here.
    pub fn is_draining(&self) -> bool {
        self.view().own().is_some_and(|own| own.wish == Wish::Drain)
    }

    /// All nodes, as the server has them now.
    pub async fn list(&self) -> Result<Vec<Member>, ClusterError> {
        match &self.shared {
            Some((nodes, _)) => Ok(nodes.list().await?),
            None if self.view().members.is_empty() => Ok(vec![Member { silent: None, ..self.lone(None) }]),
            None => Ok(self.view().members.clone()),
        }
    }

    /// Says what is wanted of a node.
    ///
    /// # Errors
    /// There is none of this name, or the server is away.
    pub async fn set_wish(&self, name: &str, wish: Wish) -> Result<(), ClusterError> {
        match &self.shared {
            Some((nodes, _)) => nodes.set_wish(name, wish).await?,
            None if name != self.settings.name => return Err(ClusterError::NoNode(name.to_owned())),
            None if self.view().members.is_empty() => return Err(ClusterError::NotRunning(name.to_owned())),
            None => self.drains.store(wish == Wish::Drain, Ordering::Relaxed),
        }
        self.soon.notify_one();
        Ok(())
    }

    /// Forgets a node that is down.
    ///
    /// # Errors
    /// It is up, or there is none of this name.
    pub async fn remove(&self, name: &str) -> Result<(), ClusterError> {
        match &self.shared {
            Some((nodes, _)) => nodes.remove(name).await?,
            None => return Err(ClusterError::Alone),
        }
        self.soon.notify_one();
        Ok(())
    }
}
