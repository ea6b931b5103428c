mod contract;
mod copy;
mod days;
mod disk;
mod postgres;

use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, Clock, FakeClock, IdSource, MessageId, UtcMillis};
use engine::postgres::{PgSettings, Server};
use tempfile::TempDir;

use crate::{Event, Kind, MessageRow, Outcome, Party, Query, Scope, Settings, Trail};

const NOON: UtcMillis = UtcMillis(1_793_448_000_000); // 2026-10-31 12:00 UTC

/// Where a trail is kept.
#[derive(Clone)]
enum Engine {
    Embedded,
    /// A database of its own for each test.
    Postgres(Arc<Server>, &'static str),
}

/// One node's trail with its worker.
struct Node {
    trail: Arc<Trail>,
    clock: Arc<FakeClock>,
    ids: Arc<IdSource>,
    worker: Option<tokio::task::JoinHandle<()>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    engine: Engine,
    folder: Arc<TempDir>,
}

fn settings_of(server: &Server, database: &str) -> PgSettings {
    let url = format!("host={} user=ortler dbname={database}", server.socket_dir().display());
    PgSettings::parse(&url, 4).unwrap()
}

fn make_database(server: &Server, name: &str) {
    let socket = server.socket_dir().display().to_string();
    // Its own folding of letters goes beyond ASCII, as on most servers.
    let letters = ["-T", "template0", "--locale=C.UTF-8"];
    let made = server.command("createdb").args(["-h", &socket, "-U", "ortler"]).args(letters).arg(name).status();
    assert!(made.unwrap().success());
}

impl Engine {
    async fn node(&self) -> Node {
        let clock = Arc::new(FakeClock::at(NOON));
        self.open(clock, Arc::new(IdSource::system()), Arc::new(tempfile::tempdir().unwrap()), |_| {}).await
    }

    async fn open(
        &self,
        clock: Arc<FakeClock>,
        ids: Arc<IdSource>,
        folder: Arc<TempDir>,
        adjust: impl FnOnce(&mut Settings),
    ) -> Node {
        let mut settings = Settings::in_folder(folder.path().join("trail"));
        settings.batch_wait = Duration::from_millis(1);
        adjust(&mut settings);
        let (trail, worker) = match self {
            Self::Embedded => Trail::open(settings, clock.clone()).unwrap(),
            Self::Postgres(server, database) => {
                let server = settings_of(server, database);
                Trail::open_postgres(settings, server, clock.clone(), &ids).await.unwrap()
            }
        };
        let (stop, stopped) = tokio::sync::oneshot::channel();
        #[expect(clippy::disallowed_methods, reason = "a test's only task, joined in `stop`")]
        let worker = tokio::spawn(worker.run(async { drop(stopped.await) }));
        let (worker, stop) = (Some(worker), Some(stop));
        Node { trail, clock, ids, worker, stop, engine: self.clone(), folder }
    }
}

impl Node {
    async fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.worker.take().unwrap().await.unwrap();
    }

    /// Writes everything out and opens again.
    async fn reopen(mut self) -> Self {
        self.stop().await;
        let Self { trail, clock, ids, engine, folder, .. } = self;
        drop(trail);
        engine.open(clock, ids, folder, |_| {}).await
    }

    /// A message from `from` to recipients with outcomes.
    fn message(&self, from: &str, subject: &str, recipients: &[(&str, u64, Outcome)]) -> MessageId {
        let now = self.clock.utc();
        let id = self.ids.message(now);
        let session = self.ids.session(now);
        self.trail.record(Event::new(now, Kind::Connected).session(session).field("client", "192.0.2.7"));
        let event = |kind| Event::new(now, kind).session(session).message(id);
        self.trail.record(event(Kind::Started).field("from", from).field("client", "192.0.2.7"));
        for (address, ..) in recipients {
            self.trail.record(event(Kind::RecipientAccepted).field("recipient", *address));
        }
        self.trail.record(event(Kind::Judged).field("subject", subject).field("score", 1500).field("size", 2000));
        for (address, account, outcome) in recipients {
            let event = event(Kind::Delivered).party(recipient(address, *account, *outcome));
            self.trail.record(event.field("mailbox", "INBOX"));
        }
        id
    }

    /// Days are dropped beside everything else.
    async fn until_forgotten(&self, id: MessageId) {
        for _ in 0..600 {
            if self.trail.message(&Scope::System, id).await.unwrap().is_none() {
                return;
            }
            self.pass().await;
        }
        panic!("{id} is still there");
    }

    /// A moment, for the machine and for the node's clock.
    async fn pass(&self) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.clock.advance(Duration::from_millis(50));
    }

    /// Waits until `count` messages with the subject can be found.
    async fn until_found(&self, subject: &str, count: usize) {
        let query = format!("subject:{subject}");
        for _ in 0..600 {
            let query: Query = query.parse().unwrap();
            if self.trail.messages(&Scope::System, &query, 100_000).await.is_ok_and(|found| found.len() >= count) {
                return;
            }
            self.pass().await;
        }
        panic!("{count} messages {subject} are not found");
    }
}

fn recipient(address: &str, account: u64, outcome: Outcome) -> Party {
    let (address, account) = (address.to_owned(), Some(AccountId(account)));
    Party { address, account, is_recipient: true, outcome: Some(outcome) }
}

fn domain(name: &str) -> Scope {
    Scope::Domains(vec![name.parse().unwrap()])
}

/// What a list finds; a row at hand matches as the list does.
async fn subjects(trail: &Trail, scope: &Scope, query: &str) -> Vec<String> {
    let parsed: Query = query.parse().unwrap();
    let of = |rows: Vec<MessageRow>| rows.into_iter().map(|row| row.subject.unwrap_or_default()).collect();
    let found: Vec<String> = of(trail.messages(scope, &parsed, 100).await.unwrap());
    let mut all = trail.messages(scope, &Query::default(), 100).await.unwrap();
    all.retain(|row| parsed.admits(row));
    let matching: Vec<String> = of(all);
    assert_eq!(found, matching, "{query} {scope:?}");
    found
}
