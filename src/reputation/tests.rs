//! What both engines must do.

use std::sync::Arc;
use std::time::Duration;

use base::{Clock as _, FakeClock, UtcMillis};
use engine::fixture::Fixture;
use engine::postgres::{PgSettings, Pool, Server};

use crate::{Amount, Kind, Record, Reputation, Subject, postgres, sqlite};

const DAY: Duration = Duration::from_secs(86_400);

async fn open_pool(server: &Server) -> Arc<Pool> {
    Arc::new(Pool::new(PgSettings::parse(&server.url(), 4).unwrap()))
}

/// Both engines, each twice open where that is possible: two nodes.
async fn each(work: impl AsyncFn(&FakeClock, &Reputation, Option<&Reputation>)) {
    let clock = Arc::new(FakeClock::at(UtcMillis(1_800_000_000_000)));
    let dir = tempfile::tempdir().unwrap();
    let one = Reputation::open(&dir.path().join("reputation.sqlite"), clock.clone()).unwrap();
    work(&clock, &one, None).await;
    let Some(server) = Server::start() else { return };
    let one = Reputation::open_postgres(open_pool(&server).await, clock.clone()).await.unwrap();
    let other = Reputation::open_postgres(open_pool(&server).await, clock.clone()).await.unwrap();
    work(&clock, &one, Some(&other)).await;
}

async fn of(node: &Reputation, subject: Subject) -> Record {
    node.of(&[subject]).await.unwrap().remove(0)
}

#[tokio::test]
async fn what_is_added_is_told_at_once_here_and_soon_elsewhere() {
    each(async |_, one, other| {
        let (a, b) = (Subject::of(Kind::Network, &["192.0.2.0/24"]), Subject::of(Kind::Domain, &["192.0.2.0/24"]));
        for _ in 0..3 {
            one.add(a, Amount::GOOD);
        }
        one.add(a, Amount { good: 0, bad: 4 });
        assert_eq!((of(one, a).await.sum(), of(one, b).await.is_known()), ((3, 4), false));
        one.flush().await.unwrap();
        one.add(a, Amount::BAD);
        assert_eq!(of(one, a).await.sum(), (3, 5));
        let Some(other) = other else { return };
        assert_eq!(of(other, a).await.sum(), (3, 4));
        other.add(a, Amount::GOOD);
        tokio::try_join!(one.flush(), other.flush()).unwrap();
        assert_eq!((of(one, a).await.sum(), of(other, a).await.sum()), ((4, 5), (4, 5)));
        // Asked for twice, told twice; not asked for, not told.
        let told = other.of(&[a, b, a]).await.unwrap();
        assert_eq!(told.iter().map(Record::sum).collect::<Vec<_>>(), [(4, 5), (0, 0), (4, 5)]);
    })
    .await;
}

#[tokio::test]
async fn old_numbers_count_less_and_go_away() {
    each(async |clock, one, _| {
        let a = Subject::of(Kind::Author, &["anna@example.test"]);
        one.add(a, Amount { good: 8, bad: 2 });
        one.flush().await.unwrap();
        let first = clock.utc();
        clock.advance(DAY * 30);
        one.add(a, Amount { good: 1, bad: 1 });
        let record = of(one, a).await;
        assert_eq!((record.weighed(), record.sum()), ((5.0, 2.0), (9, 3)));
        assert_eq!((record.first_at(), record.last_at()), (Some(first), Some(clock.utc())));
        one.flush().await.unwrap();
        clock.advance(DAY * 150);
        assert_eq!(of(one, a).await.sum(), (1, 1));
        one.tidy().await.unwrap();
        assert_eq!(one.tables.read(&[a]).await.unwrap().len(), 1);
        clock.advance(DAY * 30);
        assert!(!of(one, a).await.is_known());
        one.tidy().await.unwrap();
        assert_eq!(one.tables.read(&[a]).await.unwrap().len(), 0);
    })
    .await;
}

#[tokio::test]
async fn what_is_forgotten_begins_anew() {
    each(async |_, one, _| {
        let (a, b) = (Subject::of(Kind::SentHour, &["1"]), Subject::of(Kind::SentHour, &["2"]));
        for subject in [a, b] {
            one.add(subject, Amount::GOOD);
            one.flush().await.unwrap();
            one.add(subject, Amount::BAD);
        }
        one.forget(&[a]).await.unwrap();
        assert_eq!((of(one, a).await.is_known(), of(one, b).await.sum()), (false, (1, 1)));
        one.add(a, Amount::GOOD);
        assert_eq!(of(one, a).await.sum(), (1, 0));
    })
    .await;
}

#[test]
fn a_window_slides_over_two_slots() {
    let hour = 3_600_000;
    let slot = |age, good| crate::Slot { age, good, bad: 0, first_at: UtcMillis(0), last_at: UtcMillis(0) };
    let record = Record { slots: vec![slot(0, 10), slot(1, 40), slot(2, 1000)] };
    assert_eq!(record.within_slot(Kind::SentHour, UtcMillis(5 * hour)).0, 50.0);
    assert_eq!(record.within_slot(Kind::SentHour, UtcMillis(5 * hour + hour / 2)).0, 30.0);
}

#[test]
fn names_are_told_apart() {
    let of = |names: &[&str]| Subject::of(Kind::Contact, names);
    assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
    assert_ne!(of(&["a"]), Subject::of(Kind::Place, &["a"]));
    assert_eq!(of(&["a", "b"]), of(&["a", "b"]));
}

#[tokio::test]
async fn a_server_that_is_away_keeps_nobody_waiting_and_loses_little() {
    let Some(server) = Server::start() else { return };
    let clock = Arc::new(FakeClock::at(UtcMillis(1_800_000_000_000)));
    let node = Reputation::open_postgres(open_pool(&server).await, clock.clone()).await.unwrap();
    let a = Subject::of(Kind::Network, &["a"]);
    server.control(&["stop", "-m", "immediate"]);
    node.add(a, Amount::GOOD);
    assert!(node.flush().await.is_err());
    assert_eq!(node.of(&[a]).await, None);
    server.control(&["start", "-w"]);
    node.flush().await.unwrap();
    assert_eq!(of(&node, a).await.sum(), (1, 0));
}

#[tokio::test]
async fn everything_moves_between_engines() {
    let Some(server) = Server::start() else { return };
    let clock = Arc::new(FakeClock::at(UtcMillis(1_800_000_000_000)));
    let dir = tempfile::tempdir().unwrap();
    let file = Reputation::open(&dir.path().join("reputation.sqlite"), clock.clone()).unwrap();
    let shared = Reputation::open_postgres(open_pool(&server).await, clock.clone()).await.unwrap();
    for number in 0..700_u32 {
        file.add(Subject::of(Kind::Network, &[&number.to_string()]), Amount { good: number, bad: 1 });
    }
    shared.add(Subject::of(Kind::Place, &["gone"]), Amount::GOOD);
    tokio::try_join!(file.flush(), shared.flush()).unwrap();
    assert!(file.copy_to(&shared).await.unwrap());
    assert!(!file.copy_to(&shared).await.unwrap() && file.compare_with(&shared).await.unwrap().is_empty());
    assert_eq!(of(&shared, Subject::of(Kind::Network, &["600"])).await.sum(), (600, 1));
    assert!(!of(&shared, Subject::of(Kind::Place, &["gone"])).await.is_known());
    let back = Reputation::open(&dir.path().join("back.sqlite"), clock).unwrap();
    assert!(shared.copy_to(&back).await.unwrap() && file.compare_with(&back).await.unwrap().is_empty());
}

/// What the fixtures hold.
async fn holds_everything(reputation: &Reputation) {
    let record = of(reputation, Subject::of(Kind::Domain, &["example.test"])).await;
    assert_eq!((record.sum(), record.weighed()), ((7, 3), (5.0, 2.0)));
    assert_eq!(record.first_at(), Some(UtcMillis(1_797_000_000_000)));
}

#[tokio::test]
async fn every_version_that_was_shipped_is_read() {
    let clock = Arc::new(FakeClock::at(UtcMillis(1_800_000_000_000)));
    let fixture = Fixture::new(include_str!("fixtures/sqlite.sql"), sqlite::MIGRATIONS.iter().copied());
    for version in fixture.versions() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("reputation.sqlite");
        fixture.make_sqlite(&file, version).unwrap();
        holds_everything(&Reputation::open(&file, clock.clone()).unwrap()).await;
    }
    let steps = postgres::MIGRATIONS.iter().map(|step| step.text);
    let fixture = Fixture::new(include_str!("fixtures/postgres.sql"), steps);
    for version in fixture.versions() {
        let Some(server) = Server::start() else { return };
        let pool = open_pool(&server).await;
        fixture.make_postgres(&pool, postgres::COMPONENT, version).await;
        holds_everything(&Reputation::open_postgres(pool, clock.clone()).await.unwrap()).await;
    }
}
