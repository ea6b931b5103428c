//! The crash matrix: a process plays scripts on an engine and aborts at a named place; what it was told is there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base::{AccountId, FakeClock, IdSource, UtcMillis};
use engine::Waypoints;
use engine::postgres::{PgSettings, Pool, Server};
use parking_lot::Mutex;

use super::play::{self, Player, Script};
use super::{Model, Op};
use crate::audit::AuditOptions;
use crate::blob::SegmentSettings;
use crate::bucket::S3Settings;
use crate::contract::Subject;
use crate::error::StoreError;
use crate::gc::GcSettings;
use crate::object_server::ObjectServer;
use crate::sqlite::SqliteSettings;
use crate::storage::{Storage, StorageSettings};

/// Later than any file's own time, so that garbage collection takes every closed segment for settled. Only for scripts
/// of one actor: nothing is being delivered while it runs.
const LATER: UtcMillis = UtcMillis(4_000_000_000_000);

/// Where the child process keeps what it stores.
#[derive(Clone, Debug, Default)]
pub(super) enum Home {
    /// In the task's folder.
    #[default]
    Folder,
    /// In a database, by its connection string; large content in an object store, by its port and a bucket, if any.
    Server { url: String, objects: Option<(u16, String)> },
}

/// What the child process does; travels in its environment.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) home: Home,
    pub(super) dir: PathBuf,
    pub(super) seed: u64,
    pub(super) actors: u64,
    pub(super) operations: u32,
    /// Where to abort, and at which time of passing: at once, or with `+` behind the name a moment later.
    pub(super) place: String,
    pub(super) hit: u32,
}

impl Task {
    /// To its end, in a folder.
    pub(super) fn new(dir: &Path, seed: u64, actors: u64, operations: u32) -> Self {
        Self { home: Home::Folder, dir: dir.to_path_buf(), seed, actors, operations, place: "-".to_owned(), hit: 0 }
    }

    fn encode(&self) -> String {
        let Self { home, dir, seed, actors, operations, place, hit } = self;
        let (port, bucket, url) = match home {
            Home::Folder => (0, "-", ""),
            Home::Server { url, objects: None } => (0, "-", url.as_str()),
            Home::Server { url, objects: Some((port, bucket)) } => (*port, bucket.as_str(), url.as_str()),
        };
        format!("{seed} {actors} {operations} {place} {hit} {} {port} {bucket} {url}", dir.display())
    }

    fn decode(text: &str) -> Option<Self> {
        let mut parts = text.splitn(9, ' ');
        let mut next = || parts.next();
        let mut task = Self {
            home: Home::Folder,
            seed: next()?.parse().ok()?,
            actors: next()?.parse().ok()?,
            operations: next()?.parse().ok()?,
            place: next()?.to_owned(),
            hit: next()?.parse().ok()?,
            dir: next()?.into(),
        };
        let (port, bucket, url) = (next()?.parse().ok()?, next()?.to_owned(), next()?.to_owned());
        if !url.is_empty() {
            task.home = Home::Server { url, objects: (port > 0).then_some((port, bucket)) };
        }
        Some(task)
    }

    /// How long after the place it is passed.
    fn delay(&self) -> Option<Duration> {
        self.place.ends_with('+').then(|| Duration::from_micros(u64::from(self.hit % 16) * 100))
    }

    fn born(&self) -> UtcMillis {
        if self.actors == 1 { LATER } else { crate::contract::NOW }
    }

    fn script(&self, actor: u64) -> Script {
        Script::new(self.seed * 100 + actor, self.actors == 1)
    }
}

async fn open(task: &Task, now: UtcMillis, waypoints: Waypoints) -> Result<Player, StoreError> {
    // Where others collect garbage the clock goes hours ahead in no time. A server takes content that is on its way for
    // given up then.
    let is_shared = task.actors > 1 && matches!(task.home, Home::Server { .. });
    let grace = Duration::from_secs(if is_shared { 48 * 3600 } else { 60 });
    let settings = StorageSettings {
        sqlite: SqliteSettings { waypoints, readers: 2, ..SqliteSettings::default() },
        segments: SegmentSettings { segment_size: 64 * 1024, waypoints, ..SegmentSettings::default() },
        gc: GcSettings { grace, waypoints, ..GcSettings::default() },
        ..StorageSettings::default()
    };
    let clock = Arc::new(FakeClock::at(now));
    let ids = Arc::new(IdSource::system());
    let (to, at, by) = (&task.dir, Arc::clone(&clock), Arc::clone(&ids));
    let storage = match &task.home {
        Home::Folder => Storage::open(to, settings, at, by)?,
        Home::Server { url, objects } => {
            let pool = Pool::new(PgSettings::parse(url, 4)?.with_waypoints(waypoints));
            let objects = objects
                .as_ref()
                .map(|(port, bucket)| S3Settings { bucket: bucket.clone(), ..ObjectServer::reached_at(&[*port]) });
            Storage::open_postgres_with(to, Arc::new(pool), objects, settings, at, by).await?
        }
    };
    let storage = Arc::new(storage);
    let subject = Subject::of(&storage, clock.clone(), ids);
    Ok(Player { subject, storage: Some(storage), clock, born: task.born(), folder: task.dir.clone() })
}

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// One line on standard output, whole or not at all: what the parent may rely on.
fn say(line: &str) {
    std::io::stdout().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

/// Not a test by itself: the process that is interrupted.
#[test]
#[ignore = "run by the tests of this file"]
fn child() {
    let Some(task) = std::env::var_os("STORE_PROOF").and_then(|text| Task::decode(text.to_str()?)) else { return };
    let (place, hit, passed) = (task.place.trim_end_matches('+').to_owned(), task.hit, AtomicU32::new(0));
    let delay = task.delay();
    let watcher = move |at: &'static str| {
        if place == "-" {
            say(&format!("pass {at}"));
        } else if place == at && passed.fetch_add(1, Ordering::SeqCst) + 1 == hit {
            let Some(delay) = delay else { std::process::abort() };
            std::thread::spawn(move || {
                std::thread::sleep(delay);
                std::process::abort();
            });
        }
    };
    let waypoints = Waypoints::watched_by(Box::leak(Box::new(watcher)));
    runtime().block_on(async {
        let player = match open(&task, task.born(), waypoints).await {
            Ok(player) => player,
            Err(error) => return say(&format!("failed {error}")),
        };
        let mut actors = tokio::task::JoinSet::new();
        for actor in 1..=task.actors {
            let (player, mut script, count) = (player.clone(), task.script(actor), task.operations);
            actors.spawn(async move {
                let mut model = Model::new(AccountId(actor));
                for nth in 1..=count {
                    let op = script.next(&model);
                    say(&format!("begin {actor} {nth} {}", op.kind()));
                    model = match player.perform(&model, &op).await {
                        Ok(model) => model,
                        Err(error) => return say(&format!("failed {error}")),
                    };
                    say(&format!("done {actor} {nth}"));
                }
            });
        }
        actors.join_all().await;
    });
    say("end");
}

/// Runs the child to its end; gives its lines. A line that the end cut short said nothing.
pub(super) fn run(task: &Task) -> Vec<String> {
    let lines = run_with(task, &[]);
    let failed: Vec<&String> = lines.iter().filter(|line| line.starts_with("failed")).collect();
    assert!(failed.is_empty(), "{task:?}: {failed:?}");
    lines
}

/// True if something was refused for the disk's sake.
pub(super) fn has_failed(lines: &[String]) -> bool {
    lines.iter().any(|line| line.starts_with("failed"))
}

pub(super) fn run_with(task: &Task, environment: &[(&str, PathBuf)]) -> Vec<String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "proof::crash::child", "--ignored", "--nocapture", "--test-threads=1"]);
    let output = command
        .env("STORE_PROOF", task.encode())
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("panicked"), "{task:?}: {errors}");
    whole.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// True if it was not interrupted.
pub(super) fn has_ended(lines: &[String]) -> bool {
    lines.iter().any(|line| line == "end")
}

/// How far an actor came.
struct Progress {
    /// As of the last operation that it was told is done.
    model: Model,
    script: Script,
    /// Begun and not known to be done.
    open: Option<Op>,
    elapsed: Duration,
}

fn progress(task: &Task, lines: &[String]) -> Vec<Progress> {
    let each = (1..=task.actors).map(|actor| {
        let count = |word: &str| lines.iter().filter(|line| line.starts_with(&format!("{word} {actor} "))).count();
        let (begun, done) = (count("begin"), count("done"));
        let (mut model, mut script, mut elapsed) = (Model::new(AccountId(actor)), task.script(actor), Duration::ZERO);
        for _ in 0..done {
            let op = script.next(&model);
            elapsed += play::span(&op);
            model = model.after(&op).pop().unwrap();
        }
        let open = (begun > done).then(|| script.next(&model));
        elapsed += open.as_ref().map_or(Duration::ZERO, play::span);
        Progress { model, script, open, elapsed }
    });
    each.collect()
}

async fn audit(player: &Player, about: &str) {
    let storage = player.storage.as_ref().unwrap();
    let report = storage.audit(AuditOptions { deep: true, ..AuditOptions::default() }).await.unwrap();
    assert_eq!(report.problems, [], "{about}");
}

/// Waits until the server has seen that whoever used the database is gone: what it was asked for may still be done.
async fn alone(url: &str) {
    let pool = Pool::new(PgSettings::parse(url, 1).unwrap());
    let text = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    for _ in 0..1000 {
        if pool.query(text, &[]).await.unwrap().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the server still works for a process that is gone");
}

/// Opens what the child left, finds every promise kept and nothing half done, and goes on from there.
pub(super) async fn verify(task: &Task, lines: &[String]) {
    let about = format!("{task:?}, after {:?}", lines.iter().rev().take(3).collect::<Vec<_>>());
    let progress = progress(task, lines);
    let elapsed: Duration = progress.iter().map(|actor| actor.elapsed).sum();
    if let Home::Server { url, .. } = &task.home {
        alone(url).await;
    }
    let player = open(task, task.born().plus(elapsed), Waypoints::default()).await.unwrap();
    audit(&player, &about).await;
    for Progress { model, mut script, open, .. } in progress {
        let seen = player.look(model.account).await.unwrap();
        let mut allowed = vec![model.clone()];
        allowed.extend(open.iter().flat_map(|op| model.after(op)));
        let found = allowed.iter().find(|state| state.seen() == seen).cloned();
        let mut now = found.unwrap_or_else(|| panic!("{about}\nfound {seen:?}\nexpected {:?}", model.seen()));
        // What the sender was not told of, it sends again: then it is there, and there once.
        if let Some(op @ (Op::Deliver { .. } | Op::Collect { .. })) = open {
            player.perform(&model, &op).await.unwrap();
            now = model.after(&op).pop().unwrap();
        }
        assert_eq!(player.look(now.account).await.unwrap(), now.seen(), "{about}");
        for _ in 0..6 {
            let op = script.next(&now);
            now = player.perform(&now, &op).await.unwrap();
        }
        assert_eq!(player.look(now.account).await.unwrap(), now.seen(), "{about}, gone on");
    }
    audit(&player, &about).await;
}

/// A folder in memory where there is such: a killed process needs no disk to show what it left.
pub(super) fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(super) fn wants_all() -> bool {
    std::env::var_os("ORTLER_TESTS").is_some_and(|wish| wish == "all")
}

/// Spread over `1..=count`, the first and the last among them.
fn spread(count: u32, most: u32) -> BTreeSet<u32> {
    let most = most.min(count).max(1);
    (0..most).map(|nth| 1 + nth * (count - 1) / (most - 1).max(1)).collect()
}

/// Every place, at several times of passing it, and each place under each kind of operation.
pub(super) fn matrix(task: &Task, lines: &[String], most: u32) -> Vec<(String, u32)> {
    let (mut passed, mut kinds, mut kind) = (BTreeMap::<&str, u32>::new(), BTreeMap::new(), "open");
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["begin", "1", _, now] => kind = now,
            ["pass", place] => {
                let count = passed.entry(place).or_default();
                *count += 1;
                kinds.entry((place, kind)).or_insert(*count);
            }
            _ => {}
        }
    }
    let mut out: BTreeSet<(String, u32)> = BTreeSet::new();
    for (place, count) in &passed {
        out.extend(spread(*count, most).into_iter().map(|hit| ((*place).to_owned(), hit)));
    }
    if task.actors == 1 && most > 1 {
        out.extend(kinds.iter().map(|((place, _), hit)| ((*place).to_owned(), *hit)));
    }
    out.into_iter().collect()
}

/// Where tasks find a place of their own.
enum Ground {
    /// The embedded engine's, in folders.
    Folders,
    Server {
        server: Server,
        objects: Option<ObjectServer>,
    },
}

/// The database that others are copied from.
const TEMPLATE: &str = "like_this";

impl Ground {
    /// A server whose database [`TEMPLATE`] has its tables already.
    fn server(objects: Option<ObjectServer>) -> Option<Self> {
        let server = Server::start_unsynced()?;
        let (url, dir) = (server.database(TEMPLATE), folder());
        let home = Home::Server { url: url.clone(), objects: None };
        run(&Task { home, ..Task::new(dir.path(), 0, 1, 0) });
        runtime().block_on(alone(&url));
        Some(Self::Server { server, objects })
    }

    /// A home of `name`; without tables if they are to be made under way.
    fn home(&self, name: &str, is_bare: bool) -> Home {
        let Self::Server { server, objects } = self else { return Home::Folder };
        let url = if is_bare { server.database(name) } else { server.database_like(TEMPLATE, name) };
        let objects = objects.as_ref().map(|store| (store.port(), store.make_bucket(name)));
        Home::Server { url, objects }
    }

    fn clear(&self, name: &str) {
        if let Self::Server { server, .. } = self {
            server.drop_database(name);
        }
    }

    /// Steps of a start that come again after an interruption, to set right what it left.
    const fn recovery(&self) -> &'static [&'static str] {
        match self {
            Self::Folders => &["migrate.step", "open.tidied", "open.cleared"],
            Self::Server { .. } => &["migrate.step"],
        }
    }
}

/// Runs each interruption on a store of its own; gives how many hit. After the first at each place the starts that follow
/// are interrupted, one at each step of [`Ground::recovery`]: `again` collects those that were.
fn interrupt(ground: &Ground, task: &Task, matrix: &[(String, u32)], again: &Mutex<BTreeSet<&str>>) -> usize {
    let (next, hits) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let runtime = runtime();
                loop {
                    let nth = next.fetch_add(1, Ordering::SeqCst);
                    let Some((place, hit)) = matrix.get(nth as usize) else { return };
                    let (dir, name) = (folder(), format!("mail-{}-{nth}", task.seed));
                    let home = ground.home(&name, place.starts_with("migrate"));
                    let (dir, place, hit) = (dir.path().to_path_buf(), place.clone(), *hit);
                    let task = Task { home, dir, place, hit, ..task.clone() };
                    let lines = run(&task);
                    hits.fetch_add(u32::from(!has_ended(&lines)), Ordering::SeqCst);
                    for step in ground.recovery().iter().copied().filter(|_| hit == 1) {
                        let start = Task { place: step.to_owned(), operations: 0, ..task.clone() };
                        if !has_ended(&run(&start)) {
                            again.lock().insert(step);
                        }
                    }
                    runtime.block_on(verify(&task, &lines));
                    ground.clear(&name);
                }
            });
        }
    });
    hits.into_inner() as usize
}

/// Interrupts a script of one actor, and one of several at once, where commits go in groups and others have work under
/// way. `places` must all be passed; `later` are those that are interrupted a moment later as well.
fn prove(ground: &Ground, most: u32, operations: u32, places: &[&str], later: &[&str]) -> usize {
    let dir = folder();
    let task = Task { home: ground.home("alone", true), ..Task::new(dir.path(), 3, 1, operations) };
    let lines = run(&task);
    assert!(has_ended(&lines), "{lines:?}");
    let matrix = |task: &Task, lines: &[String]| {
        let mut all = matrix(task, lines, most);
        let and = all.iter().filter(|(place, _)| later.contains(&place.as_str()));
        let and: Vec<_> = and.map(|(place, hit)| (format!("{place}+"), *hit)).collect();
        all.extend(and);
        all
    };
    let found = matrix(&task, &lines);
    let named: BTreeSet<&str> = found.iter().map(|(place, _)| place.as_str()).collect();
    let missing: Vec<_> = places.iter().filter(|place| !named.contains(*place)).collect();
    assert!(missing.is_empty(), "never passed: {missing:?}");
    runtime().block_on(verify(&task, &lines));
    let again = Mutex::default();
    let mut hits = interrupt(ground, &task, &found, &again);
    assert_eq!(*again.lock(), ground.recovery().iter().copied().collect(), "starts interrupted again");

    let dir = folder();
    let home = ground.home("crowd", false);
    let crowd = Task { home, ..Task::new(dir.path(), 5, 3, operations.min(40)) };
    let lines = run(&crowd);
    hits += interrupt(ground, &crowd, &matrix(&crowd, &lines), &again);
    println!("{hits} interruptions");
    hits
}

/// Places that a process must be interrupted at; a new step in a commit path gets its name here.
const PLACES: [&str; 33] = [
    "blob.answered",
    "blob.synced",
    "blob.write",
    "blob.written",
    "change.committed",
    "change.published",
    "commit.answered",
    "commit.begun",
    "commit.job",
    "commit.ready",
    "commit.told",
    "gc.begun",
    "gc.copied",
    "gc.done",
    "gc.dropped",
    "gc.forgotten",
    "gc.relocated",
    "gc.tidied",
    "large.filled",
    "large.named",
    "migrate.changed",
    "migrate.committed",
    "migrate.step",
    "open.cleared",
    "open.tidied",
    "segment.filled",
    "segment.made",
    "segment.make",
    "segment.named",
    "segment.remove",
    "segment.removed",
    "segment.rotate",
    "snapshot.begun",
];

/// The same of a process that works on a server.
const SERVER_PLACES: [&str; 15] = [
    "change.committed",
    "gc.begun",
    "gc.done",
    "gc.dropped",
    "gc.forgotten",
    "gc.tidied",
    "migrate.changed",
    "migrate.step",
    "object.filled",
    "object.listed",
    "object.stored",
    "server.answered",
    "server.ask",
    "server.commit",
    "server.committed",
];

#[test]
fn a_process_that_dies_at_any_step_keeps_every_promise() {
    let most = if wants_all() { 5 } else { 1 };
    let hits = prove(&Ground::Folders, most, 150, &PLACES, &[]);
    assert!(hits >= if wants_all() { 200 } else { 40 }, "{hits} interruptions");
}

#[test]
fn a_node_that_dies_at_any_step_keeps_every_promise_on_postgresql() {
    let Some(objects) = ObjectServer::start() else { return };
    let Some(ground) = Ground::server(Some(objects)) else { return };
    let (most, operations) = if wants_all() { (6, 150) } else { (1, 60) };
    let places = if wants_all() { &SERVER_PLACES[..] } else { &[] };
    let hits = prove(&ground, most, operations, places, &["server.ask", "server.commit"]);
    assert!(hits >= if wants_all() { 200 } else { 10 }, "{hits} interruptions");
}
