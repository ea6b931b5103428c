use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, FakeClock, IdSource, MessageId, UtcMillis};

use crate::{Event, Kind, MessageRow, Outcome, Party, Query, Scope, Settings, Span, Trail};

const NOON: UtcMillis = UtcMillis(1_793_448_000_000); // 2026-10-31 12:00 UTC

struct Fixture {
    trail: Arc<Trail>,
    clock: Arc<FakeClock>,
    ids: IdSource,
    worker: Option<tokio::task::JoinHandle<()>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let clock = Arc::new(FakeClock::at(NOON));
        let folder = tempfile::tempdir().unwrap();
        let mut fixture = Self::open(clock, folder);
        fixture.ids = IdSource::system();
        fixture
    }

    fn open(clock: Arc<FakeClock>, folder: tempfile::TempDir) -> Self {
        let mut settings = Settings::in_folder(folder.path().join("trail"));
        settings.batch_wait = Duration::from_millis(1);
        let (trail, worker) = Trail::open(settings, clock.clone()).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        #[expect(clippy::disallowed_methods, reason = "a test's only task, joined in `stop`")]
        let worker = tokio::spawn(worker.run(async { drop(stopped.await) }));
        Self { trail, clock, ids: IdSource::system(), worker: Some(worker), stop: Some(stop), folder }
    }

    /// Writes everything out and opens again.
    async fn reopen(mut self) -> Self {
        self.stop.take().unwrap().send(()).unwrap();
        self.worker.take().unwrap().await.unwrap();
        let ids = self.ids;
        drop(self.trail);
        let mut fixture = Self::open(self.clock, self.folder);
        fixture.ids = ids;
        fixture
    }

    /// A message from `from` to recipients with outcomes.
    fn message(&self, from: &str, subject: &str, recipients: &[(&str, u64, Outcome)]) -> MessageId {
        use base::Clock as _;
        let now = self.clock.utc();
        let id = self.ids.message(now);
        let session = self.ids.session(now);
        self.trail.record(Event::new(now, Kind::Connected).session(session).field("client", "192.0.2.7"));
        let event = |kind| Event::new(now, kind).session(session).message(id);
        self.trail.record(event(Kind::Started).field("from", from).field("client", "192.0.2.7"));
        self.trail.record(event(Kind::Judged).field("subject", subject).field("score", 1500).field("size", 2000));
        for (address, account, outcome) in recipients {
            let party = Party {
                address: (*address).to_owned(),
                account: Some(AccountId(*account)),
                is_recipient: true,
                outcome: Some(*outcome),
            };
            self.trail.record(event(Kind::Delivered).party(party).field("mailbox", "INBOX"));
        }
        id
    }
}

async fn subjects(trail: &Trail, scope: &Scope, query: &str) -> Vec<String> {
    let rows = trail.messages(scope, &query.parse::<Query>().unwrap(), 100).await.unwrap();
    rows.into_iter().map(|row| row.subject.unwrap_or_default()).collect()
}

#[tokio::test]
async fn a_message_is_found_by_what_people_remember_of_it() {
    let fixture = Fixture::new();
    let id = fixture.message("shop@bank.example", "Your Invoice", &[("anna@a.test", 1, Outcome::Delivered)]);
    fixture.message("", "Bounce", &[("bert@b.test", 2, Outcome::Refused)]);
    let fixture = fixture.reopen().await;
    let trail = &fixture.trail;
    for (query, expected) in [
        ("", vec!["Bounce", "Your Invoice"]),
        ("from:BANK", vec!["Your Invoice"]),
        ("to:bert outcome:refused", vec!["Bounce"]),
        ("-outcome:refused", vec!["Your Invoice"]),
        ("subject:\"your inv\" client:192.0", vec!["Your Invoice"]),
        ("invoice anna", vec!["Your Invoice"]),
        ("nothing", vec![]),
        (&format!("id:{id}"), vec!["Your Invoice"]),
    ] {
        assert_eq!(subjects(trail, &Scope::System, query).await, expected, "{query}");
        // A stream asks the same of one row.
        let (all, query) = (Query::default(), query.parse::<Query>().unwrap());
        let rows = trail.messages(&Scope::System, &all, 100).await.unwrap();
        let admitted = rows.into_iter().filter(|row| query.admits(row)).filter_map(|row| row.subject);
        assert_eq!(admitted.collect::<Vec<_>>(), expected, "{query:?}");
    }
    for query in ["colour:red", "outcome:maybe", "id:7"] {
        assert!(query.parse::<Query>().is_err(), "{query}");
    }
    let story = trail.story(&Scope::System, id).await.unwrap();
    let kinds: Vec<&str> = story.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["connected", "started", "judged", "delivered"]);
}

#[tokio::test]
async fn nobody_sees_beyond_their_scope() {
    let fixture = Fixture::new();
    let both = [("anna@a.test", 1, Outcome::Delivered), ("bert@b.test", 2, Outcome::Quarantined)];
    let id = fixture.message("x@y.example", "shared", &both);
    fixture.message("x@y.example", "berts", &[("bert@b.test", 2, Outcome::Delivered)]);
    let fixture = fixture.reopen().await;
    let trail = &fixture.trail;
    let (anna, bert, nobody) =
        (Scope::Account(AccountId(1)), Scope::Account(AccountId(2)), Scope::Account(AccountId(3)));
    assert_eq!(subjects(trail, &anna, "").await, ["shared"]);
    assert_eq!(subjects(trail, &Scope::Domains(vec!["b.test".parse().unwrap()]), "").await, ["berts", "shared"]);
    assert!(subjects(trail, &nobody, "").await.is_empty());
    let seen = |row: &MessageRow| row.recipients.iter().map(|party| party.address.clone()).collect::<Vec<_>>();
    let row = trail.message(&bert, id).await.unwrap().unwrap();
    assert_eq!((seen(&row), row.outcome), (vec!["bert@b.test".to_owned()], Some(Outcome::Quarantined)));
    let row = trail.message(&Scope::System, id).await.unwrap().unwrap();
    assert_eq!((row.recipients.len(), row.outcome), (2, Some(Outcome::Delivered)));
    assert!(trail.message(&nobody, id).await.unwrap().is_none() && trail.story(&nobody, id).await.unwrap().is_empty());
    let told: Vec<_> = trail.story(&anna, id).await.unwrap().into_iter().filter_map(|event| event.party).collect();
    assert_eq!(told, ["anna@a.test"]);
}

#[tokio::test]
async fn counters_agree_with_rows_and_a_changed_outcome_counts_once() {
    let fixture = Fixture::new();
    let id = fixture.message("x@y.example", "a", &[("anna@a.test", 1, Outcome::Deferred)]);
    fixture.message("x@y.example", "b", &[("anna@a.test", 1, Outcome::Junk)]);
    let party = Party {
        address: "anna@a.test".to_owned(),
        account: Some(AccountId(1)),
        is_recipient: true,
        outcome: Some(Outcome::Delivered),
    };
    fixture.trail.record(Event::new(NOON, Kind::Delivered).message(id).party(party));
    let fixture = fixture.reopen().await;
    let span = Span { from: UtcMillis(NOON.0 - 3_600_000), to: UtcMillis(NOON.0 + 60_000), step_minutes: 10 };
    for scope in [Scope::System, Scope::Domains(vec!["a.test".parse().unwrap()]), Scope::Account(AccountId(1))] {
        let buckets = fixture.trail.histogram(&scope, span).await.unwrap();
        assert_eq!((buckets.len(), buckets[0].at, buckets[0].counts), (1, NOON, [1, 1, 0, 0, 0]), "{scope:?}");
    }
}

#[tokio::test]
async fn a_viewer_resumes_without_a_gap_and_old_days_go_whole() {
    let fixture = Fixture::new();
    let first = fixture.message("x@y.example", "first", &[("anna@a.test", 1, Outcome::Delivered)]);
    let fixture = fixture.reopen().await;
    let seen = fixture.trail.last_seq();
    let mut live = fixture.trail.subscribe();
    let second = fixture.message("x@y.example", "second", &[("anna@a.test", 1, Outcome::Delivered)]);
    let update = live.recv().await.unwrap();
    assert_eq!(update.iter().map(|update| update.message).collect::<Vec<_>>(), [second]);
    let missed = fixture.trail.changed_after(&Scope::Account(AccountId(1)), seen, 10).await.unwrap();
    assert_eq!(missed.iter().map(|row| row.id).collect::<Vec<_>>(), [second]);
    fixture.clock.advance(Duration::from_secs(30 * 86_400));
    fixture.message("x@y.example", "third", &[("anna@a.test", 1, Outcome::Delivered)]);
    let fixture = fixture.reopen().await;
    assert!(fixture.trail.message(&Scope::System, first).await.unwrap().is_none());
    assert_eq!(subjects(&fixture.trail, &Scope::System, "").await, ["third"]);
}
