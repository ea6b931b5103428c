//! The crash matrix of the embedded engine: a process plays scripts and aborts at a named place; what it was told is there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base::{AccountId, FakeClock, IdSource, UtcMillis};
use engine::Waypoints;
use parking_lot::Mutex;

use super::play::{self, Player, Script};
use super::{Model, Op};
use crate::audit::AuditOptions;
use crate::blob::SegmentSettings;
use crate::contract::Subject;
use crate::error::StoreError;
use crate::gc::GcSettings;
use crate::sqlite::SqliteSettings;
use crate::storage::{Storage, StorageSettings};

/// Later than any file's own time, so that garbage collection takes every closed segment for settled. Only for scripts
/// of one actor: nothing is being delivered while it runs.
const LATER: UtcMillis = UtcMillis(4_000_000_000_000);

/// What the child process does; travels in its environment.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) dir: PathBuf,
    pub(super) seed: u64,
    pub(super) actors: u64,
    pub(super) operations: u32,
    /// Where to abort, and at which time of passing.
    pub(super) place: String,
    pub(super) hit: u32,
}

impl Task {
    fn encode(&self) -> String {
        let Self { dir, seed, actors, operations, place, hit } = self;
        format!("{seed} {actors} {operations} {place} {hit} {}", dir.display())
    }

    fn decode(text: &str) -> Option<Self> {
        let mut parts = text.splitn(6, ' ');
        let mut next = || parts.next();
        Some(Self {
            seed: next()?.parse().ok()?,
            actors: next()?.parse().ok()?,
            operations: next()?.parse().ok()?,
            place: next()?.to_owned(),
            hit: next()?.parse().ok()?,
            dir: next()?.into(),
        })
    }

    fn born(&self) -> UtcMillis {
        if self.actors == 1 { LATER } else { crate::contract::NOW }
    }

    fn script(&self, actor: u64) -> Script {
        Script::new(self.seed * 100 + actor, self.actors == 1)
    }
}

fn open(dir: &Path, now: UtcMillis, born: UtcMillis, waypoints: Waypoints) -> Player {
    try_open(dir, now, born, waypoints).unwrap()
}

fn try_open(dir: &Path, now: UtcMillis, born: UtcMillis, waypoints: Waypoints) -> Result<Player, StoreError> {
    let settings = StorageSettings {
        sqlite: SqliteSettings { waypoints, readers: 2, ..SqliteSettings::default() },
        segments: SegmentSettings { segment_size: 64 * 1024, waypoints, ..SegmentSettings::default() },
        gc: GcSettings { grace: Duration::from_secs(60), waypoints, ..GcSettings::default() },
        ..StorageSettings::default()
    };
    let clock = Arc::new(FakeClock::at(now));
    let ids = Arc::new(IdSource::system());
    let storage = Arc::new(Storage::open(dir, settings, clock.clone(), Arc::clone(&ids))?);
    let (mail, blobs) = (Arc::clone(&storage.mail), Arc::clone(&storage.blobs));
    let subject = Subject { mail, blobs, ids, clock: clock.clone() };
    Ok(Player { subject, storage: Some(storage), clock, born, folder: dir.to_path_buf() })
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
    let (place, hit, passed) = (task.place.clone(), task.hit, AtomicU32::new(0));
    let watcher = move |at: &'static str| {
        if place == "-" {
            say(&format!("pass {at}"));
        } else if place == at && passed.fetch_add(1, Ordering::SeqCst) + 1 == hit {
            std::process::abort();
        }
    };
    let waypoints = Waypoints::watched_by(Box::leak(Box::new(watcher)));
    runtime().block_on(async {
        let player = match try_open(&task.dir, task.born(), task.born(), waypoints) {
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
    assert!(!has_failed(&lines), "{task:?}: {lines:?}");
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

/// Opens what the child left, finds every promise kept and nothing half done, and goes on from there.
pub(super) async fn verify(task: &Task, lines: &[String]) {
    let about = format!("{task:?}, after {:?}", lines.iter().rev().take(3).collect::<Vec<_>>());
    let progress = progress(task, lines);
    let elapsed: Duration = progress.iter().map(|actor| actor.elapsed).sum();
    let player = open(&task.dir, task.born().plus(elapsed), task.born(), Waypoints::default());
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

/// Steps of a start, which sets right what the interruption left: those that come again are interrupted as well.
const RECOVERY: [&str; 3] = ["migrate.step", "open.tidied", "open.cleared"];

/// Runs each interruption on a store of its own; gives how many hit. After the first at each place the starts that follow
/// are interrupted, one at each step of [`RECOVERY`]: `again` collects those that were.
fn interrupt(task: &Task, matrix: &[(String, u32)], again: &Mutex<BTreeSet<&str>>) -> usize {
    let (next, hits) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let runtime = runtime();
                while let Some((place, hit)) = matrix.get(next.fetch_add(1, Ordering::SeqCst) as usize) {
                    let dir = folder();
                    let task = Task { dir: dir.path().to_path_buf(), place: place.clone(), hit: *hit, ..task.clone() };
                    let lines = run(&task);
                    hits.fetch_add(u32::from(!has_ended(&lines)), Ordering::SeqCst);
                    for step in RECOVERY.into_iter().filter(|_| *hit == 1) {
                        let start = Task { place: step.to_owned(), operations: 0, ..task.clone() };
                        if !has_ended(&run(&start)) {
                            again.lock().insert(step);
                        }
                    }
                    runtime.block_on(verify(&task, &lines));
                }
            });
        }
    });
    hits.into_inner() as usize
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

#[test]
fn a_process_that_dies_at_any_step_keeps_every_promise() {
    let most = if wants_all() { 5 } else { 1 };
    let dir = folder();
    let alone =
        Task { dir: dir.path().to_path_buf(), seed: 3, actors: 1, operations: 150, place: "-".to_owned(), hit: 0 };
    let lines = run(&alone);
    assert!(has_ended(&lines), "{lines:?}");
    let places = matrix(&alone, &lines, most);
    let named: BTreeSet<&str> = places.iter().map(|(place, _)| place.as_str()).collect();
    let missing: Vec<_> = PLACES.iter().filter(|place| !named.contains(*place)).collect();
    assert!(missing.is_empty(), "never passed: {missing:?}");
    runtime().block_on(verify(&alone, &lines));
    let again = Mutex::default();
    let mut hits = interrupt(&alone, &places, &again);
    assert_eq!(*again.lock(), RECOVERY.into_iter().collect(), "starts interrupted again");

    // Several actors at once: groups of commits, and work that others have under way.
    let dir = folder();
    let crowd = Task { dir: dir.path().to_path_buf(), seed: 5, actors: 3, operations: 40, ..alone };
    let lines = run(&crowd);
    let places = matrix(&crowd, &lines, most);
    hits += interrupt(&crowd, &places, &again);
    println!("{hits} interruptions");
    assert!(hits >= if wants_all() { 200 } else { 40 }, "{hits} interruptions");
}
