//! Nodes in a world of their own: time, network and server are simulated, what the nodes do is the real thing. Everything
//! follows from a seed. `ORTLER_SEEDS` says how many are tried beyond the few of an ordinary run, or names one: `=17`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use base::{AccountId, Clock, ModSeq, UtcMillis};
use config::Role;
use engine::EngineError;
use engine::postgres::Notice;
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::counters::{CellKey, Exchanged, Sums};
use crate::hints::{Changes, Channel, Dial, LookFailed, RECHECK, Sessions, share_over};
use crate::identity::Identity;
use crate::leases::LeaseTable;
use crate::member::{DOWN_AFTER, Member, State, Wish};
use crate::nodes::{ClusterError, Roll};
use crate::{Beat, Counted, Counters, Lease, Leases, Membership, Settings};

/// SplitMix64.
pub(crate) struct Dice(AtomicU64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    fn roll(&self) -> u64 {
        let mut x = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    fn below(&self, bound: u64) -> u64 {
        self.roll() % bound.max(1)
    }

    fn is(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn millis(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from + 1))
    }
}

#[expect(clippy::disallowed_methods, reason = "the simulation's own clock, which stands still but for its timers")]
fn instant() -> Instant {
    Instant::now()
}

/// A machine's clock, wrong by some time.
struct SimClock {
    begun: Instant,
    ahead: i64,
}

impl Clock for SimClock {
    fn now(&self) -> std::time::Instant {
        instant().into_std()
    }

    fn utc(&self) -> UtcMillis {
        let passed = i64::try_from((instant() - self.begun).as_millis()).unwrap();
        UtcMillis(1_800_000_000_000 + passed + self.ahead)
    }
}

struct Row {
    settings: Settings,
    identity: Identity,
    started_at: UtcMillis,
    heard_at: Option<Instant>,
    wish: Wish,
    sessions: u64,
}

#[derive(Default)]
struct Tables {
    nodes: BTreeMap<String, Row>,
    counters: BTreeMap<CellKey, (u64, Instant)>,
    /// Holder, fence, end.
    leases: BTreeMap<String, (String, i64, Instant)>,
    listeners: Vec<(String, mpsc::Sender<Notice>)>,
    /// Mod-sequences of accounts.
    modseqs: HashMap<u64, u64>,
    /// Who committed what under which fence.
    commits: BTreeMap<String, Vec<i64>>,
}

/// The server and the ways to it.
pub(crate) struct World {
    dice: Dice,
    begun: Instant,
    tables: Mutex<Tables>,
    /// Nodes that do not reach the server.
    cut: Mutex<BTreeSet<String>>,
    is_down: AtomicBool,
    /// Percent of notices that are lost.
    lost_notices: AtomicU64,
    slowest: AtomicU64,
}

const STATEMENT_WAIT: Duration = Duration::from_secs(3);

impl World {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            dice: Dice::new(seed),
            begun: instant(),
            tables: Mutex::default(),
            cut: Mutex::default(),
            is_down: AtomicBool::new(false),
            lost_notices: AtomicU64::new(0),
            slowest: AtomicU64::new(3),
        })
    }

    pub(crate) fn clock(&self, ahead: i64) -> Arc<dyn Clock> {
        Arc::new(SimClock { begun: self.begun, ahead })
    }

    fn utc(&self) -> UtcMillis {
        self.clock(0).utc()
    }

    fn reaches(&self, node: &str) -> bool {
        !self.is_down.load(Ordering::Relaxed) && !self.cut.lock().contains(node)
    }

    /// A statement on its way there and its answer on its way back. Either may be lost: then the outcome is unknown.
    async fn ask<T>(&self, node: &str, work: impl FnOnce(&mut Tables) -> T) -> Result<T, EngineError> {
        let lost = || EngineError::Postgres { reason: "simulated".to_owned() };
        let slowest = self.slowest.load(Ordering::Relaxed);
        sleep(self.dice.millis(0, slowest)).await;
        if !self.reaches(node) {
            sleep(STATEMENT_WAIT).await;
            return Err(lost());
        }
        let done = work(&mut self.tables.lock());
        sleep(self.dice.millis(0, slowest)).await;
        if !self.reaches(node) {
            sleep(STATEMENT_WAIT).await;
            return Err(lost());
        }
        Ok(done)
    }
}

/// A node's way to the server.
#[derive(Clone)]
pub(crate) struct Way {
    pub world: Arc<World>,
    pub node: String,
}

fn members(tables: &Tables) -> Vec<Member> {
    let member = |row: &Row| Member {
        name: row.settings.name.clone(),
        address: row.settings.address.clone(),
        roles: row.settings.roles.clone(),
        version: row.settings.version.clone(),
        started_at: row.started_at,
        silent: row.heard_at.map(|at| instant() - at),
        wish: row.wish,
        sessions: row.sessions,
        health: None,
    };
    tables.nodes.values().map(member).collect()
}

#[async_trait]
impl Roll for Way {
    async fn list(&self) -> Result<Vec<Member>, EngineError> {
        self.world.ask(&self.node, |tables| members(tables)).await
    }

    async fn enter(&self, own: &Settings, id: &Identity, now: UtcMillis) -> Result<(), ClusterError> {
        let entered = self.world.ask(&self.node, |tables| {
            let wish = match tables.nodes.get(&own.name) {
                Some(row) => {
                    let silent = row.heard_at.map(|at| instant() - at);
                    if let Some(silent) = silent.filter(|silent| row.identity != *id && *silent < DOWN_AFTER) {
                        return Err(ClusterError::NameTaken { name: own.name.clone(), silent });
                    }
                    row.wish
                }
                None => Wish::Serve,
            };
            let (heard_at, settings) = (Some(instant()), own.clone());
            let row = Row { settings, identity: *id, started_at: now, heard_at, wish, sessions: 0 };
            tables.nodes.insert(own.name.clone(), row);
            Ok(())
        });
        entered.await?
    }

    async fn beat(&self, own: &Settings, id: &Identity, beat: &Beat) -> Result<Option<Vec<Member>>, EngineError> {
        let sessions = beat.sessions;
        let beat = self.world.ask(&self.node, move |tables| {
            let row = tables.nodes.get_mut(&own.name).filter(|row| row.identity == *id)?;
            (row.heard_at, row.sessions) = (Some(instant()), sessions);
            Some(members(tables))
        });
        beat.await
    }

    async fn leave(&self, own: &Settings, id: &Identity) -> Result<(), EngineError> {
        let left = self.world.ask(&self.node, |tables| {
            if let Some(row) = tables.nodes.get_mut(&own.name).filter(|row| row.identity == *id) {
                (row.heard_at, row.sessions) = (None, 0);
            }
        });
        left.await
    }

    async fn set_wish(&self, name: &str, wish: Wish) -> Result<(), ClusterError> {
        let set = self.world.ask(&self.node, |tables| tables.nodes.get_mut(name).map(|row| row.wish = wish));
        set.await?.ok_or_else(|| ClusterError::NoNode(name.to_owned()))
    }

    async fn remove(&self, name: &str) -> Result<(), ClusterError> {
        let removed =
            self.world.ask(&self.node, |tables| match members(tables).into_iter().find(|member| member.name == name) {
                None => Err(ClusterError::NoNode(name.to_owned())),
                Some(member) if member.state() != State::Down => Err(ClusterError::IsUp(name.to_owned())),
                Some(_) => {
                    tables.nodes.remove(name);
                    Ok(())
                }
            });
        removed.await?
    }
}

#[async_trait]
impl Sums for Way {
    async fn exchange(&self, adds: &[(CellKey, u64)], since: UtcMillis) -> Result<Exchanged, EngineError> {
        let now = self.world.utc();
        let age = now.since(since);
        let exchanged = self.world.ask(&self.node, |tables| {
            for (key, count) in adds {
                let cell = tables.counters.entry(key.clone()).or_insert((0, instant()));
                *cell = (cell.0 + count, instant());
            }
            let is_new = |at: &Instant| instant() - *at < age;
            let changed = tables.counters.iter().filter(|(_, (_, at))| is_new(at));
            changed.map(|(key, (count, _))| (key.clone(), *count)).collect()
        });
        Ok(Exchanged { now, sums: exchanged.await? })
    }

    async fn tidy(&self) -> Result<(), EngineError> {
        Ok(())
    }
}

#[async_trait]
impl LeaseTable for Way {
    async fn take(&self, name: &str, holder: &str, length: Duration) -> Result<Option<i64>, EngineError> {
        let take = self.world.ask(&self.node, |tables| {
            let now = instant();
            let fence = match tables.leases.get(name) {
                Some((other, _, until)) if other != holder && *until >= now => return None,
                Some((_, fence, _)) => fence + 1,
                None => 1,
            };
            tables.leases.insert(name.to_owned(), (holder.to_owned(), fence, now + length));
            Some(fence)
        });
        take.await
    }

    async fn renew(&self, name: &str, fence: i64, length: Duration) -> Result<bool, EngineError> {
        let renew = self.world.ask(&self.node, |tables| match tables.leases.get_mut(name) {
            Some((_, now, until)) if *now == fence => {
                *until = instant() + length;
                true
            }
            _ => false,
        });
        renew.await
    }

    async fn give_up(&self, name: &str, fence: i64) -> Result<(), EngineError> {
        let give_up = self.world.ask(&self.node, |tables| {
            if let Some((_, _, until)) = tables.leases.get_mut(name).filter(|(_, now, _)| *now == fence) {
                // Over, as of a moment ago.
                *until = instant() - Duration::from_millis(1);
            }
        });
        give_up.await
    }
}

/// A connection that hears notices. One whose way was cut says nothing of it: it only hears no more.
struct Ear {
    way: Way,
    incoming: tokio::sync::Mutex<mpsc::Receiver<Notice>>,
}

#[async_trait]
impl Dial for Way {
    async fn open(&self) -> Result<Box<dyn Channel>, EngineError> {
        let (said, incoming) = mpsc::channel(4096);
        self.world.ask(&self.node, |tables| tables.listeners.push((self.node.clone(), said))).await?;
        Ok(Box::new(Ear { way: self.clone(), incoming: tokio::sync::Mutex::new(incoming) }))
    }
}

#[async_trait]
impl Channel for Ear {
    async fn say(&self, text: &str) -> Result<(), EngineError> {
        let world = &self.way.world;
        let said = world.ask(&self.way.node, |tables| {
            tables.listeners.retain(|(node, listener)| {
                // What is on its way to a node that is cut off is lost, as some is at any time.
                let arrives = world.reaches(node) && !world.dice.is(world.lost_notices.load(Ordering::Relaxed));
                !arrives || *node == self.way.node || listener.try_send(Notice::Said(text.to_owned())).is_ok()
            });
        });
        said.await
    }

    async fn next(&self) -> Result<Notice, EngineError> {
        match self.incoming.lock().await.recv().await {
            Some(notice) => Ok(notice),
            None => std::future::pending().await,
        }
    }
}

/// Accounts that have sessions on a node, as far as these have seen.
struct Watched {
    way: Way,
    seen: Arc<Mutex<BTreeMap<u64, u64>>>,
}

#[async_trait]
impl Sessions for Watched {
    fn hear(&self, account: AccountId, modseq: ModSeq) {
        if let Some(seen) = self.seen.lock().get_mut(&account.0) {
            *seen = (*seen).max(modseq.as_raw());
        }
    }

    async fn recheck(&self) -> Result<(), LookFailed> {
        let accounts: Vec<u64> = self.seen.lock().keys().copied().collect();
        let found = self.way.world.ask(&self.way.node, |tables| {
            accounts
                .iter()
                .map(|account| (*account, tables.modseqs.get(account).copied().unwrap_or(0)))
                .collect::<Vec<_>>()
        });
        for (account, modseq) in found.await? {
            if let Some(seen) = self.seen.lock().get_mut(&account) {
                *seen = (*seen).max(modseq);
            }
        }
        Ok(())
    }
}

/// Stands still while the gate is closed, as a stopped process does.
struct Stoppable<F> {
    gate: Arc<Mutex<Instant>>,
    work: Pin<Box<F>>,
    wake: Pin<Box<tokio::time::Sleep>>,
}

impl<F: Future<Output = ()>> Future for Stoppable<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let until = *self.gate.lock();
        if until > instant() {
            self.wake.as_mut().reset(until);
            if self.wake.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        self.work.as_mut().poll(context)
    }
}

/// Jobs that one node at a time does.
const JOBS: [&str; 3] = ["gc", "audit", "reports"];
const LENGTH: Duration = Duration::from_secs(10);

struct Process {
    stop: CancellationToken,
    tasks: tokio::task::JoinSet<()>,
    gate: Arc<Mutex<Instant>>,
    membership: Arc<Membership>,
    counters: Arc<Counters>,
    changes: broadcast::Sender<(AccountId, ModSeq)>,
    seen: Arc<Mutex<BTreeMap<u64, u64>>>,
    /// What it believes to hold.
    held: Arc<Mutex<BTreeMap<String, Lease>>>,
}

/// A machine and what runs on it.
struct Machine {
    name: String,
    identity: Identity,
    ahead: i64,
    way: Way,
    process: Option<Process>,
    /// Since when nothing is wrong with it.
    well_since: Instant,
}

impl Machine {
    async fn start(&mut self) {
        let (way, clock) = (self.way.clone(), self.way.world.clock(self.ahead));
        let settings = Settings {
            name: self.name.clone(),
            address: Some(format!("{}.test:8899", self.name)),
            roles: vec![Role::Store],
            version: "1".to_owned(),
        };
        let membership = Arc::new(Membership::new(settings, &*clock, Some((Box::new(way.clone()), self.identity))));
        if membership.enter().await.is_err() {
            return;
        }
        let gate = Arc::new(Mutex::new(instant()));
        let mut process = Process {
            stop: CancellationToken::new(),
            tasks: tokio::task::JoinSet::new(),
            gate: Arc::clone(&gate),
            membership: Arc::clone(&membership),
            counters: Arc::new(Counters::with(Box::new(way.clone()), Arc::clone(&clock))),
            changes: broadcast::channel(1024).0,
            seen: Arc::new(Mutex::new((0..20).map(|account| (account, 0)).collect())),
            held: Arc::default(),
        };
        let stop = process.stop.clone();
        process.spawn(async move { membership.run(|| Beat { sessions: 1, ..Beat::default() }, stop).await });
        let (counters, stop) = (Arc::clone(&process.counters), process.stop.clone());
        process.spawn(async move { counters.run(stop).await });
        let sessions = Watched { way: way.clone(), seen: Arc::clone(&process.seen) };
        let (own, stop, dial): (Changes, _, _) = (process.changes.subscribe(), process.stop.clone(), way.clone());
        process.spawn(async move { share_over(&dial, own, &sessions, stop).await });
        for job in JOBS {
            let leases = Leases::with(Arc::new(way.clone()), &self.name, Arc::clone(&clock));
            let (way, held) = (way.clone(), Arc::clone(&process.held));
            process.spawn(async move { work_at(job, &leases, &way, &held).await });
        }
        self.process = Some(process);
        self.well_since = instant();
    }

    /// It knows nothing of it.
    fn kill(&mut self) {
        self.process = None;
    }
}

impl Process {
    fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        let (gate, wake) = (Arc::clone(&self.gate), Box::pin(sleep(Duration::ZERO)));
        self.tasks.spawn(Stoppable { gate, work: Box::pin(work), wake });
    }
}

/// Takes a job whenever it can be had, does some of it, and lets go.
async fn work_at(job: &str, leases: &Leases, way: &Way, held: &Mutex<BTreeMap<String, Lease>>) {
    let dice = &way.world.dice;
    loop {
        sleep(dice.millis(200, 2000)).await;
        let Ok(Some(lease)) = leases.take(job, LENGTH).await else { continue };
        held.lock().insert(job.to_owned(), lease);
        for _ in 0..dice.below(20) {
            sleep(dice.millis(100, 1500)).await;
            // Out and in again: the table of what is held is looked at from outside.
            let Some(mut lease) = held.lock().remove(job) else { return };
            let is_held = lease.keep().await;
            let fence = lease.fence();
            held.lock().insert(job.to_owned(), lease);
            if !is_held {
                break;
            }
            // As `Lease::check` in a transaction: only the fence that counts now commits.
            let commit = way.world.ask(&way.node, |tables| {
                if tables.leases.get(job).is_some_and(|(_, now, _)| *now == fence) {
                    tables.commits.entry(job.to_owned()).or_default().push(fence);
                }
            });
            let _ = commit.await;
        }
        let lease = held.lock().remove(job);
        if let Some(lease) = lease {
            lease.give_up().await;
        }
    }
}

/// What is done to the world.
struct Story {
    machines: usize,
    faults: bool,
    seconds: u64,
}

fn fail(seed: u64, what: &str) -> ! {
    panic!("seed {seed}: {what}; ORTLER_SEEDS={seed}= plays it again")
}

async fn play(seed: u64, story: &Story) {
    let world = World::new(seed);
    let dice = Dice::new(seed ^ 0x5EED);
    if story.faults {
        world.lost_notices.store(dice.below(30), Ordering::Relaxed);
        world.slowest.store(3 + dice.below(300), Ordering::Relaxed);
    }
    let mut machines = Vec::new();
    for number in 0..story.machines {
        let (name, now) = (format!("mx{number}"), instant());
        let way = Way { world: Arc::clone(&world), node: name.clone() };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let ahead = if story.faults { i64::try_from(dice.below(240_000)).unwrap() - 120_000 } else { 0 };
        let identity = Identity::from_bytes(bytes);
        let mut machine = Machine { name, identity, ahead, way, process: None, well_since: now };
        machine.start().await;
        machines.push(machine);
    }
    let mut told = 0u64;
    let mut changed_at: BTreeMap<u64, Instant> = BTreeMap::new();
    let mut server_well_since = instant();
    let mut mended: Vec<(Instant, usize)> = Vec::new();
    let step = Duration::from_millis(100);
    let quiet = 60;
    for tick in 0..(story.seconds + quiet) * 10 {
        sleep(step).await;
        let is_quiet = tick >= story.seconds * 10;
        if story.faults && !is_quiet && dice.is(4) {
            let which = usize::try_from(dice.below(story.machines as u64)).unwrap();
            let machine = &mut machines[which];
            match dice.below(5) {
                0 => machine.kill(),
                1 if machine.process.is_none() => machine.start().await,
                2 => {
                    world.cut.lock().insert(machine.name.clone());
                    mended.push((instant() + dice.millis(100, 40_000), which));
                }
                3 => {
                    if let Some(process) = &machine.process {
                        *process.gate.lock() = instant() + dice.millis(100, 40_000);
                    }
                }
                4 if dice.is(10) => {
                    world.is_down.store(true, Ordering::Relaxed);
                    sleep(dice.millis(500, 20_000)).await;
                    world.is_down.store(false, Ordering::Relaxed);
                    server_well_since = instant();
                }
                _ => {}
            }
        }
        if tick == story.seconds * 10 {
            world.cut.lock().clear();
            server_well_since = instant();
            for machine in &mut machines {
                if let Some(process) = &machine.process {
                    *process.gate.lock() = instant();
                }
                if machine.process.is_none() && dice.is(70) {
                    machine.start().await;
                }
            }
        }
        mended.retain(|(at, which)| {
            let is_due = *at <= instant();
            if is_due {
                world.cut.lock().remove(&machines[*which].name);
            }
            !is_due
        });
        for machine in &mut machines {
            let is_stopped = machine.process.as_ref().is_some_and(|process| *process.gate.lock() > instant());
            if machine.process.is_none() || is_stopped || world.cut.lock().contains(&machine.name) {
                machine.well_since = instant();
            }
        }
        // A change of an account's mail, and a number that is counted, on a node that works.
        let which = usize::try_from(dice.below(story.machines as u64)).unwrap();
        if let (Some(process), true) = (&machines[which].process, world.reaches(&machines[which].name))
            && *process.gate.lock() <= instant()
        {
            let account = dice.below(20);
            let modseq = {
                let mut tables = world.tables.lock();
                let modseq = tables.modseqs.entry(account).or_insert(1);
                *modseq += 1;
                *modseq
            };
            let _ = process.changes.send((AccountId(account), ModSeq::new(modseq).unwrap()));
            process.seen.lock().insert(account, modseq);
            changed_at.insert(account, instant());
            if !is_quiet {
                process.counters.add(Counted::LOGIN_FAILURES, "net");
                told += 1;
            }
        }
        look(seed, story, &world, &machines, &changed_at, server_well_since);
    }
    settle(seed, story, &world, &machines, told);
}

/// What holds at any moment.
fn look(
    seed: u64,
    story: &Story,
    world: &World,
    machines: &[Machine],
    changed_at: &BTreeMap<u64, Instant>,
    server_well_since: Instant,
) {
    for job in JOBS {
        let holders: Vec<&str> = machines
            .iter()
            .filter(|machine| {
                let process = machine.process.as_ref();
                process.is_some_and(|process| process.held.lock().get(job).is_some_and(Lease::is_held))
            })
            .map(|machine| machine.name.as_str())
            .collect();
        if holders.len() > 1 {
            fail(seed, &format!("{holders:?} hold {job} at once"));
        }
    }
    // Sessions are woken: at once as a rule, and by the look at everything if hints are lost.
    let bound = if story.faults { RECHECK + Duration::from_secs(15) } else { Duration::from_millis(100) };
    let tables = world.tables.lock();
    for machine in machines {
        let Some(process) = &machine.process else { continue };
        let well_since = machine.well_since.max(server_well_since);
        for (account, at) in changed_at {
            let since = (*at).max(well_since);
            let modseq = tables.modseqs[account];
            let seen = process.seen.lock()[account];
            if seen < modseq && instant() - since > bound {
                fail(seed, &format!("{} has not seen {modseq} of account {account}, but {seen}", machine.name));
            }
        }
    }
}

/// What holds once nothing has been wrong for a while.
fn settle(seed: u64, story: &Story, world: &World, machines: &[Machine], told: u64) {
    let live: BTreeSet<&str> =
        machines.iter().filter(|machine| machine.process.is_some()).map(|machine| machine.name.as_str()).collect();
    let mut homes: Option<Vec<String>> = None;
    for machine in machines {
        let Some(process) = &machine.process else { continue };
        let view = process.membership.view();
        let up: BTreeSet<&str> = view
            .members
            .iter()
            .filter(|member| member.state() == State::Up)
            .map(|member| member.name.as_str())
            .collect();
        if up != live {
            fail(seed, &format!("{} sees {up:?}, up are {live:?}", machine.name));
        }
        let home =
            |account| view.elsewhere(AccountId(account)).map_or_else(|| machine.name.clone(), |one| one.name.clone());
        let own: Vec<String> = (0..200).map(home).collect();
        if homes.get_or_insert_with(|| own.clone()) != &own {
            fail(seed, &format!("{} leads accounts elsewhere than others do", machine.name));
        }
        let counted = process.counters.count(Counted::LOGIN_FAILURES, "net");
        // What a node saw and did not tell before it died is not known; what it told twice is not asked back.
        let is_right = if story.faults { counted > 0 || told == 0 } else { counted == told };
        if !is_right {
            fail(seed, &format!("{} counts {counted} of {told}", machine.name));
        }
    }
    let tables = world.tables.lock();
    for job in JOBS {
        let commits = tables.commits.get(job).map(Vec::as_slice).unwrap_or_default();
        if !commits.is_sorted() {
            fail(seed, &format!("{job}: a commit of a lease that was lost: {commits:?}"));
        }
        if commits.is_empty() && !live.is_empty() {
            fail(seed, &format!("{job} was never done"));
        }
    }
}

fn run(seed: u64, story: &Story) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(play(seed, story));
}

/// `few`, or what `ORTLER_SEEDS` says: a number of them, or one, with a `=` at its end.
#[expect(clippy::disallowed_methods, reason = "how much a test tries is no setting")]
fn seeds(few: u64) -> std::ops::Range<u64> {
    match std::env::var("ORTLER_SEEDS").ok() {
        Some(text) => match text.strip_suffix('=') {
            Some(one) => one.parse().map(|one: u64| one..one + 1).unwrap(),
            None => 0..text.parse().unwrap(),
        },
        None => 0..few,
    }
}

#[test]
fn nodes_without_faults_know_all_at_once() {
    seeds(5).for_each(|seed| run(seed, &Story { machines: 10, faults: false, seconds: 60 }));
}

#[test]
fn nodes_that_die_stand_still_and_are_cut_off_do_nothing_twice_and_find_together_again() {
    seeds(40).for_each(|seed| run(seed, &Story { machines: 8, faults: true, seconds: 120 }));
}

#[test]
fn a_hundred_nodes_are_one_system() {
    seeds(1).take(20).for_each(|seed| run(seed, &Story { machines: 100, faults: true, seconds: 60 }));
}
