//! The model on PostgreSQL while connections are cut and the server crashes: what was told stays true, and nobody waits
//! for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base::{AccountId, Clock as _, FakeClock, IdSource, SystemClock};
use engine::postgres::{Pool, Server};

use super::Model;
use super::play::{Player, Script};
use crate::contract::{NOW, Random, Subject};
use crate::model::EmailId;
use crate::{AuditOptions, Storage, StorageSettings};

const ACTORS: u64 = 4;
const CONNECTIONS: usize = 4;
/// Longer than any statement may take, and than the wait for a connection.
const FOR_EVER: Duration = Duration::from_secs(90);

/// Ends some connections of others, now and then, but not while somebody looks at what is there. Now and then it kills a
/// process of the server, which then ends all others and recovers from its log.
struct Cutter {
    is_over: AtomicBool,
    cuts: AtomicUsize,
    crashes: AtomicUsize,
    looking: tokio::sync::RwLock<()>,
}

impl Cutter {
    async fn run(&self, server: &Server) {
        let pool = Pool::new(server.settings(1));
        let (mut random, mut round) = (Random(11), 0);
        while !self.is_over.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(random.below(60) as u64)).await;
            let _nobody_looks = self.looking.write().await;
            round += 1;
            let is_crash = round % 20 == 0;
            let what = if is_crash { "pid" } else { "pid, pg_terminate_backend(pid)" };
            let text = format!(
                "SELECT {what} FROM pg_stat_activity
                 WHERE application_name = 'ortler' AND pid <> pg_backend_pid() ORDER BY random() LIMIT $1"
            );
            let most = if is_crash { 1 } else { 1 + i64::try_from(random.below(2)).unwrap() };
            // Not while it recovers.
            let Ok(found) = pool.query(&text, &[&most]).await else { continue };
            for row in found {
                if is_crash {
                    let pid = nix::unistd::Pid::from_raw(row.get::<_, i32>(0));
                    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
                    self.crashes.fetch_add(1, Ordering::SeqCst);
                }
                self.cuts.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

/// Plays until it is over; gives the state as last known and how often the outcome was not told.
async fn act(player: &Player, cutter: &Cutter, account: AccountId) -> (Model, usize) {
    let (mut model, mut unknown) = (Model::new(account), 0);
    let mut script = Script::new(account.0 + 900, false);
    while !cutter.is_over.load(Ordering::SeqCst) {
        let op = script.next(&model);
        let done = tokio::time::timeout(FOR_EVER, player.perform(&model, &op)).await;
        match done.unwrap_or_else(|_| panic!("{op:?} waits for ever")) {
            Ok(after) => model = after,
            Err(_) => {
                unknown += 1;
                let _guard = cutter.looking.read().await;
                let seen = look(player, account).await;
                let mut allowed = vec![model.clone()];
                allowed.extend(model.after(&op));
                let found = allowed.iter().find(|state| state.seen() == seen).cloned();
                model = found.unwrap_or_else(|| panic!("{op:?}\nfound {seen:?}\nexpected {:?}", model.seen()));
            }
        }
    }
    (model, unknown)
}

/// Connections that were cut a moment ago are found so, one by one, and a server may be recovering.
async fn look(player: &Player, account: AccountId) -> super::model::Seen {
    for _ in 0..200 {
        let looked = tokio::time::timeout(FOR_EVER, player.look(account)).await;
        if let Ok(seen) = looked.expect("it waits for ever") {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("account {} cannot be looked at", account.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn connections_that_are_cut_lose_and_double_nothing() {
    let Some(server) = Server::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (clock, ids) = (Arc::new(FakeClock::at(NOW)), Arc::new(IdSource::system()));
    let pool = Arc::new(Pool::new(server.settings(CONNECTIONS)));
    let settings = StorageSettings::default();
    let storage = Storage::open_postgres(folder.path(), pool, settings, clock.clone(), Arc::clone(&ids)).await.unwrap();
    let subject = Subject::of(&storage, clock.clone(), ids);
    let player = Player { subject, storage: None, clock, born: NOW, folder: folder.path().to_path_buf() };
    let looking = tokio::sync::RwLock::default();
    let cutter = Arc::new(Cutter {
        is_over: AtomicBool::new(false),
        cuts: AtomicUsize::new(0),
        crashes: AtomicUsize::new(0),
        looking,
    });

    let mut actors = tokio::task::JoinSet::new();
    for account in 1..=ACTORS {
        player.subject.mail.mailboxes(AccountId(account)).await.unwrap();
        let (player, cutter) = (player.clone(), Arc::clone(&cutter));
        actors.spawn(async move { act(&player, &cutter, AccountId(account)).await });
    }
    let begun = SystemClock.now();
    let over = async {
        let is_enough = || cutter.cuts.load(Ordering::SeqCst) >= 50 && cutter.crashes.load(Ordering::SeqCst) >= 3;
        for second in 0..40 {
            if second >= 10 && is_enough() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        cutter.is_over.store(true, Ordering::SeqCst);
    };
    tokio::join!(cutter.run(&server), over);
    let mut unknown = 0;
    for (model, times) in actors.join_all().await {
        unknown += times;
        assert_eq!(look(&player, model.account).await, model.seen());
    }
    let cuts = cutter.cuts.load(Ordering::SeqCst);
    let crashes = cutter.crashes.load(Ordering::SeqCst);
    let told = format!("{cuts} cuts, {crashes} of them crashes of the server, {unknown} unknown outcomes");
    println!("{told}");
    assert!(cuts >= 50 && crashes >= 3 && unknown >= 5, "{told}");
    let took = SystemClock.now().saturating_duration_since(begun);
    assert!(took < Duration::from_secs(90), "{took:?}");
    let report = storage.audit(AuditOptions { deep: true, ..AuditOptions::default() }).await.unwrap();
    assert_eq!(report.problems, []);
    // As it was told to sessions, too.
    for account in 1..=ACTORS {
        let states = player.subject.mail.email_states(AccountId(account), None).await.unwrap();
        let ids: Vec<EmailId> = states.iter().map(|one| one.state.email).collect();
        assert_eq!(player.subject.mail.emails(AccountId(account), ids.clone()).await.unwrap().len(), ids.len());
    }
}
