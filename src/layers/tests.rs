use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use access::Position;
use base::{AccountId, DomainId, FakeClock, TenantId, UtcMillis};
use engine::fixture::Fixture;
use engine::postgres::{PgSettings, Pool, Server};
use policy::{EffectivePolicy, Key, Layer, Level, Score, SenderFacts, Skips, Word};

use crate::change::What;
use crate::layers::{COMPONENT, POSTGRES, SQLITE};
use crate::{Edit, LayerError, Layers, NewEntry, Owner};

const NOW: UtcMillis = UtcMillis(1_795_500_000_000);
const BY: (&str, &str) = ("anna@example.test", "as told");

fn position(account: u64) -> Position {
    Position {
        reseller: Some(TenantId(1)),
        customer: Some(TenantId(2)),
        domain: Some(DomainId(1)),
        account: Some(AccountId(account)),
    }
}

fn at(level: Level) -> Vec<Owner> {
    Owner::above(position(4)).into_iter().filter(|owner| owner.level <= level).collect()
}

fn file() -> Layer {
    Layer::parse(Level::System, "policy.toml", "reject-score = { ceiling = 20 }\nquarantine-days = 20").unwrap()
}

fn embedded(folder: &Path, clock: &Arc<FakeClock>) -> Layers {
    Layers::open(&folder.join("policy.sqlite"), clock.clone(), file()).unwrap()
}

async fn on_server(server: &Server, database: &str, clock: &Arc<FakeClock>) -> Layers {
    let pool = Arc::new(Pool::new(PgSettings::parse(&server.database(database), 4).unwrap()));
    Layers::open_postgres(pool, clock.clone(), file()).await.unwrap()
}

fn said(policy: &EffectivePolicy, key: Key) -> String {
    let resolved = policy.get(key);
    format!("{} ({})", resolved.value, resolved.origin)
}

fn edit(option: &str, value: &str) -> Edit {
    Edit::value(option, value)
}

fn refused(outcome: Result<u64, LayerError>) -> String {
    match outcome {
        Err(LayerError::Refused { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

macro_rules! contract {
    ($($case:ident),* $(,)?) => {
        #[tokio::test]
        async fn embedded_keeps_the_contract() {
            $(
                let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(FakeClock::at(NOW)));
                $case(&embedded(folder.path(), &clock), &clock).await;
            )*
        }

        #[tokio::test]
        async fn postgresql_keeps_the_contract() {
            let Some(server) = Server::start() else { return };
            $(
                let clock = Arc::new(FakeClock::at(NOW));
                $case(&on_server(&server, stringify!($case), &clock).await, &clock).await;
            )*
        }
    };
}

contract!(
    levels_add_up,
    limits_and_locks_of_above_are_kept,
    changes_are_on_record_and_taken_back,
    plans_are_made_at_their_time,
    lists_are_kept_and_count,
    an_owner_that_is_gone_leaves_nothing,
);

async fn levels_add_up(layers: &Layers, _: &Arc<FakeClock>) {
    let policy = layers.effective(position(4)).await.unwrap();
    assert_eq!(said(&policy, Key::QuarantineDays), "20 (system policy.toml)");
    layers.set(&at(Level::Domain), &[edit("preset", "strict"), edit("quarantine-days", "14")], None, BY).await.unwrap();
    layers.set(&at(Level::Mailbox), &[edit("tag-score", "2.5")], None, BY).await.unwrap();
    let policy = layers.effective(position(4)).await.unwrap();
    assert_eq!(said(&policy, Key::QuarantineDays), "14 (domain settings)");
    assert_eq!(said(&policy, Key::TagScore), "2.5 (mailbox settings)");
    assert_eq!(said(&policy, Key::RejectScore), "12.0 (preset strict of domain settings)");
    // A neighbour has the domain's, and all neighbours the same one.
    let [one, other] = [layers.effective(position(5)).await.unwrap(), layers.effective(position(6)).await.unwrap()];
    assert_eq!(said(&one, Key::TagScore), "3.0 (preset strict of domain settings)");
    assert!(Arc::ptr_eq(&one, &other));
    // The system's own settings go over the file's.
    layers.set(&[Owner::SYSTEM], &[edit("quarantine-days", "60")], None, BY).await.unwrap();
    let outside = layers.effective(Position::SYSTEM).await.unwrap();
    assert_eq!(said(&outside, Key::QuarantineDays), "60 (system settings)");
    assert_eq!(outside.get(Key::RejectScore).ceiling.as_ref().unwrap().to_string(), "20.0");
    let (states, version) = layers.show(&at(Level::Domain)).await.unwrap();
    let state = states.iter().find(|state| state.key == Key::QuarantineDays).unwrap();
    assert_eq!(
        (version, state.value.to_string(), state.own.is_some(), state.is_settable),
        (1, "14".into(), true, true)
    );
    let scanner = states.iter().find(|state| state.key == Key::ScannerUnavailable).unwrap();
    assert!(!scanner.is_settable && scanner.own.is_none());
}

async fn limits_and_locks_of_above_are_kept(layers: &Layers, _: &Arc<FakeClock>) {
    let (domain, mailbox) = (at(Level::Domain), at(Level::Mailbox));
    let why = refused(layers.set(&domain, &[edit("reject-score", "25")], None, BY).await);
    assert_eq!(why, "`reject-score` is at most 20.0 by a level above");
    let lock = Edit { locked: true, ..edit("virus", "quarantine") };
    layers.set(&at(Level::Customer), &[lock], None, BY).await.unwrap();
    let why = refused(layers.set(&domain, &[edit("virus", "reject")], None, BY).await);
    assert_eq!(why, "`virus` is locked by the customer level");
    let floor = Edit { floor: Some("junk".to_owned()), value: None, ..edit("when-quarantined", "") };
    layers.set(&domain, &[floor], None, BY).await.unwrap();
    let why = refused(layers.set(&mailbox, &[edit("when-quarantined", "deliver")], None, BY).await);
    assert_eq!(why, "`when-quarantined` is at least junk by a level above");
    for (edit, expected) in [
        (edit("tag-scare", "1"), "unknown option `tag-scare`"),
        (edit("tag-score", "high"), "`tag-score` takes a number from 0.5 to 1000.0"),
        (edit("digest-hour", "30"), "`digest-hour` takes a whole number of hours from 0 to 23"),
        (edit("dmarc", "score"), "`dmarc` cannot be set at the mailbox level"),
        (Edit { floor: Some("x".into()), ..edit("subject-tag", "x") }, "`subject-tag` has no floor or ceiling"),
    ] {
        assert_eq!(refused(layers.set(&mailbox, &[edit], None, BY).await), expected);
    }
    let close = [edit("tag-score", "5"), edit("quarantine-score", "5.2")];
    assert!(refused(layers.set(&mailbox, &close, None, BY).await).starts_with("`quarantine-score` must be at least"));
    assert_eq!(layers.show(&mailbox).await.unwrap().1, 0, "nothing was changed");
}

async fn changes_are_on_record_and_taken_back(layers: &Layers, clock: &Arc<FakeClock>) {
    let domain = at(Level::Domain);
    assert_eq!(layers.set(&domain, &[edit("tag-score", "3")], Some(0), BY).await.unwrap(), 1);
    clock.advance(Duration::from_secs(5));
    let second = [edit("tag-score", "2"), edit("newsletter", "junk")];
    assert_eq!(layers.set(&domain, &second, Some(1), BY).await.unwrap(), 2);
    // Somebody who read before that is told.
    assert!(matches!(layers.set(&domain, &second, Some(1), BY).await, Err(LayerError::Changed)));
    let changes = layers.changes(domain[3], None, 10).await.unwrap();
    assert_eq!((changes.len(), changes[0].by.as_str(), changes[0].note.as_str()), (2, "anna@example.test", "as told"));
    assert_eq!(changes[0].at, UtcMillis(NOW.0 + 5000));
    let What::Options { done, undone } = &changes[0].what else { panic!("options") };
    assert_eq!((done[0].value.as_deref(), undone[0].value.as_deref()), (Some("2.0"), Some("3.0")));
    assert_eq!((done[1].value.as_deref(), undone[1].value.as_deref()), (Some("junk"), None));
    layers.undo(&domain, changes[0].id, "bert@example.test").await.unwrap();
    let policy = layers.effective(position(4)).await.unwrap();
    assert_eq!(
        (said(&policy, Key::TagScore), said(&policy, Key::Newsletter)),
        ("3.0 (domain settings)".into(), "deliver (default)".into())
    );
    let below = layers.changes(domain[3], Some(changes[0].id), 10).await.unwrap();
    assert_eq!(below.len(), 1);
    assert!(matches!(layers.undo(&domain, 9999, "x").await, Err(LayerError::Missing { .. })));
    // As inherited again.
    layers.set(&domain, &[Edit::inherit("tag-score")], None, BY).await.unwrap();
    assert_eq!(said(&layers.effective(position(4)).await.unwrap(), Key::TagScore), "4.0 (default)");
}

async fn plans_are_made_at_their_time(layers: &Layers, clock: &Arc<FakeClock>) {
    let (domain, later) = (at(Level::Domain), UtcMillis(NOW.0 + 60_000));
    let id = layers.plan(&domain, &[edit("tag-score", "2")], later, BY).await.unwrap();
    let other = layers.plan(&domain, &[edit("tag-score", "1")], UtcMillis(NOW.0 + 90_000), BY).await.unwrap();
    assert!(layers.plan(&domain, &[edit("tag-score", "2")], NOW, BY).await.is_err(), "it is now");
    assert!(layers.plan(&domain, &[edit("tag-score", "x")], later, BY).await.is_err());
    assert_eq!(layers.plans(domain[3]).await.unwrap().iter().map(|plan| plan.id).collect::<Vec<_>>(), [id, other]);
    layers.delete_plan(domain[3], other).await.unwrap();
    assert!(layers.take_due().await.unwrap().is_empty());
    clock.advance(Duration::from_secs(61));
    let due = layers.take_due().await.unwrap();
    assert_eq!((due.len(), due[0].owner, due[0].edits.clone()), (1, domain[3], vec![edit("tag-score", "2")]));
    assert!(layers.take_due().await.unwrap().is_empty() && layers.plans(domain[3]).await.unwrap().is_empty());
}

fn sender(address: &str) -> SenderFacts {
    SenderFacts { author: Some(address.into()), is_author_proven: true, ..SenderFacts::default() }
}

async fn lists_are_kept_and_count(layers: &Layers, clock: &Arc<FakeClock>) {
    let (domain, mailbox) = (at(Level::Domain)[3], at(Level::Mailbox)[4]);
    let blocked = layers.add_entry(domain, &NewEntry::new(Word::Block, "Shop.example"), "anna").await.unwrap();
    let entry = NewEntry { note: "a 100% friend".into(), ..NewEntry::new(Word::Allow, "news@shop.example") };
    let allowed = layers.add_entry(mailbox, &entry, "bert").await.unwrap();
    let of = async |account| {
        let policy = layers.effective(position(account)).await.unwrap();
        let found = policy.lists().find(&sender("news@shop.example"), clock_now(clock));
        found.map(|(word, line, origin)| (word, line.id.unwrap(), origin.to_string()))
    };
    assert_eq!(of(4).await, Some((Word::Allow, allowed, "mailbox settings".to_owned())));
    assert_eq!(of(5).await, Some((Word::Block, blocked, "domain settings".to_owned())));
    // Once more is the same line, as it was said last.
    let again = NewEntry { until: Some(UtcMillis(NOW.0 + 1000)), ..entry.clone() };
    assert_eq!(layers.add_entry(mailbox, &again, "bert").await.unwrap(), allowed);
    clock.advance(Duration::from_secs(2));
    assert_eq!(of(4).await.unwrap().1, blocked, "its time is over");
    assert!(layers.add_entry(mailbox, &NewEntry::new(Word::Allow, "a b"), "bert").await.is_err());
    let own = NewEntry { skips: Skips { attachments: true, ..entry.skips }, ..entry };
    layers
        .add_entry(mailbox, &NewEntry { who: "192.0.2.0/24".into(), takes_unproven: true, ..own }, "bert")
        .await
        .unwrap();
    let list = async |word, search: &str| -> Vec<String> {
        let found = layers.entries(mailbox, word, search, 0, 100).await.unwrap();
        found
            .into_iter()
            .map(|entry| format!("{} {} {:?}", entry.who, entry.takes_unproven, entry.skips.words()))
            .collect()
    };
    let expected = [
        "news@shop.example false [\"spam\", \"newsletter\"]",
        "192.0.2.0/24 true [\"spam\", \"newsletter\", \"attachments\"]",
    ];
    assert_eq!(list(None, "").await, expected);
    assert_eq!(list(Some(Word::Allow), "shop").await.len() + list(Some(Word::Block), "").await.len(), 1);
    assert_eq!((list(None, "100%").await.len(), list(None, "_").await.len()), (2, 0));
    // A hit is written down, within a second of the next look.
    layers.hit(allowed);
    layers.refresh().await.unwrap();
    let hit = layers.entry(mailbox, allowed).await.unwrap().unwrap();
    assert_eq!((hit.hit_at, hit.added_by.as_str()), (Some(clock_now(clock)), "bert"));
    layers.delete_entry(mailbox, allowed, "bert").await.unwrap();
    assert!(matches!(layers.delete_entry(mailbox, allowed, "bert").await, Err(LayerError::Missing { .. })));
    let what: Vec<What> = layers.changes(mailbox, None, 10).await.unwrap().into_iter().map(|one| one.what).collect();
    assert!(matches!(&what[0], What::Unlisted { who, .. } if who == "news@shop.example"));
    assert!(matches!(&what[1], What::Listed { word, .. } if word == "allow"));
}

fn clock_now(clock: &Arc<FakeClock>) -> UtcMillis {
    base::Clock::utc(&**clock)
}

async fn an_owner_that_is_gone_leaves_nothing(layers: &Layers, _: &Arc<FakeClock>) {
    let owners = at(Level::Mailbox);
    layers.set(&owners, &[edit("tag-score", "2")], None, BY).await.unwrap();
    layers.plan(&owners, &[edit("tag-score", "1")], UtcMillis(NOW.0 + 9000), BY).await.unwrap();
    layers.add_entry(owners[4], &NewEntry::new(Word::Block, "x.test"), "bert").await.unwrap();
    layers.forget_owner(owners[4]).await.unwrap();
    assert_eq!(said(&layers.effective(position(4)).await.unwrap(), Key::TagScore), "4.0 (default)");
    assert!(layers.plans(owners[4]).await.unwrap().is_empty());
    assert!(layers.changes(owners[4], None, 9).await.unwrap().is_empty());
    assert!(layers.entries(owners[4], None, "", 0, 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_change_on_one_node_counts_on_the_other() {
    let Some(server) = Server::start() else { return };
    let clock = Arc::new(FakeClock::at(NOW));
    let (one, other) = (on_server(&server, "postgres", &clock).await, on_server(&server, "postgres", &clock).await);
    other.refresh().await.unwrap();
    assert_eq!(other.effective(position(4)).await.unwrap().score(Key::TagScore), Score::points(4));
    one.set(&at(Level::Domain), &[edit("tag-score", "2")], None, BY).await.unwrap();
    other.refresh().await.unwrap();
    assert_eq!(other.effective(position(4)).await.unwrap().score(Key::TagScore), Score::points(2));
}

/// All that the fixtures hold.
async fn holds_everything(layers: &Layers) {
    let policy = layers.effective(position(4)).await.unwrap();
    assert_eq!(said(&policy, Key::TagScore), "3.5 (domain settings)");
    assert_eq!(policy.get(Key::Virus).locked_by, Some(Level::Domain));
    let (domain, mailbox) = (at(Level::Domain)[3], at(Level::Mailbox)[4]);
    let changes = layers.changes(domain, None, 10).await.unwrap();
    assert_eq!(changes.iter().map(|one| (one.id, one.note.as_str())).collect::<Vec<_>>(), [(7, "as told")]);
    assert_eq!(layers.plans(mailbox).await.unwrap()[0].edits, [edit("preset", "strict")]);
    let entries = layers.entries(mailbox, None, "partner", 0, 10).await.unwrap();
    assert_eq!(entries.iter().map(|one| (one.id, one.note.as_str())).collect::<Vec<_>>(), [(5, "a partner")]);
    // A number that was given is not given again.
    let new = layers.add_entry(mailbox, &NewEntry::new(Word::Allow, "x.test"), "bert").await.unwrap();
    assert_eq!(new, 6);
    assert_eq!(layers.set(&at(Level::Domain), &[edit("tag-score", "3")], Some(2), BY).await.unwrap(), 3);
}

#[tokio::test]
async fn every_version_opens_with_all_it_holds_and_goes_to_the_other_engine() {
    let clock = Arc::new(FakeClock::at(NOW));
    let fixture = Fixture::new(include_str!("fixtures/sqlite.sql"), SQLITE.iter().copied());
    let folder = tempfile::tempdir().unwrap();
    fixture.make_sqlite(&folder.path().join("policy.sqlite"), 1).unwrap();
    let here = embedded(folder.path(), &clock);
    if let Some(server) = Server::start() {
        let there = on_server(&server, "copied", &clock).await;
        assert!(here.copy_to(&there).await.unwrap() && !here.copy_to(&there).await.unwrap());
        holds_everything(&there).await;
        let differences = here.compare_with(&there).await.unwrap();
        assert!(!differences.is_empty());
        let fixture = Fixture::new(include_str!("fixtures/postgres.sql"), POSTGRES.iter().map(|step| step.text));
        let settings = PgSettings::parse(&server.database("version1"), 4).unwrap();
        fixture.make_postgres(&Pool::new(settings.clone()), COMPONENT, 1).await;
        let pool = Arc::new(Pool::new(settings));
        holds_everything(&Layers::open_postgres(pool, clock.clone(), file()).await.unwrap()).await;
    }
    holds_everything(&here).await;
}
