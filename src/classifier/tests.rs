//! What both engines must do.

use std::sync::Arc;

use base::{AccountId, SystemClock};
use engine::fixture::Fixture;
use engine::postgres::{PgSettings, Pool, Server};

use crate::lesson::{Class, Key, Learned, Lesson, Owner};
use crate::{Classifier, Current, postgres, sqlite};

fn lesson(owner: Owner, key: u8, class: Class, numbers: &[u32]) -> Lesson {
    Lesson { owner, key: Key([key; 16]), class, numbers: numbers.to_vec(), version: 1, strength: 1000 }
}

/// So many messages of each class, told apart by 1 and 2.
async fn school(classifier: &Classifier, owner: Owner, first: u8, count: u8) {
    let mut lessons = Vec::new();
    for at in first..first + count {
        let own = u32::from(at) * 10 + 1000;
        let (mut spam, mut ham) =
            (lesson(owner, at, Class::Spam, &[1, 9, own]), lesson(owner, at, Class::Ham, &[2, 9, own + 1]));
        (spam.key.0[0], ham.key.0[0]) = (0, 1);
        lessons.extend([spam, ham]);
    }
    let learned = classifier.learn(&lessons).await.unwrap();
    assert!(learned.iter().all(|learned| *learned == Learned::New));
}

async fn open_pool(server: &Server) -> Arc<Pool> {
    Arc::new(Pool::new(PgSettings::parse(&server.url(), 4).unwrap()))
}

/// Both engines, each twice open where that is possible: two nodes.
async fn each(work: impl AsyncFn(&Classifier, Option<&Classifier>)) {
    let clock = Arc::new(SystemClock);
    let dir = tempfile::tempdir().unwrap();
    let classifier = Classifier::open(&dir.path().join("classifier.sqlite"), clock.clone()).await.unwrap();
    work(&classifier, None).await;
    let Some(server) = Server::start() else { return };
    let one = Classifier::open_postgres(open_pool(&server).await, clock.clone()).await.unwrap();
    let other = Classifier::open_postgres(open_pool(&server).await, clock).await.unwrap();
    work(&one, Some(&other)).await;
}

#[tokio::test]
async fn it_learns_corrects_and_takes_back() {
    each(async |one, other| {
        assert_eq!(one.current().weights().opinion(&[1]).log_odds, 0.0);
        school(one, Owner::All, 0, 100).await;
        let taught = one.current().weights().opinion(&[1, 9]).log_odds;
        assert!(taught > 0.5 && one.current().weights().opinion(&[2, 9]).log_odds < -0.5, "{taught}");
        if let Some(other) = other {
            assert_eq!(other.current().weights().opinion(&[1, 9]).log_odds, 0.0);
            other.refresh().await.unwrap();
            assert_eq!(other.current().weights().opinion(&[1, 9]).log_odds, taught);
        }
        let (wrong, right) =
            (lesson(Owner::All, 200, Class::Ham, &[1, 9]), lesson(Owner::All, 200, Class::Spam, &[1, 9]));
        let teacher = other.unwrap_or(one);
        assert_eq!(teacher.learn(std::slice::from_ref(&wrong)).await.unwrap(), [Learned::New]);
        assert_eq!(one.learn(std::slice::from_ref(&wrong)).await.unwrap(), [Learned::Known]);
        assert!(one.current().weights().opinion(&[1, 9]).log_odds < taught);
        assert_eq!(one.learn(std::slice::from_ref(&right)).await.unwrap(), [Learned::Corrected]);
        assert!(one.current().weights().opinion(&[1, 9]).log_odds > taught);
        assert_eq!(teacher.unlearn(std::slice::from_ref(&right)).await.unwrap(), [Learned::Unlearned]);
        assert_eq!(one.unlearn(&[right]).await.unwrap(), [Learned::NotKnown]);
        for node in [Some(one), other].into_iter().flatten() {
            node.refresh().await.unwrap();
            assert_eq!(
                node.current().weights().opinion(&[1, 9]).log_odds,
                taught,
                "exactly as if it had never been learned"
            );
            assert_eq!((node.counts().ham, node.counts().spam), (100, 100));
        }
    })
    .await;
}

#[tokio::test]
async fn a_batch_may_hold_a_message_twice() {
    each(async |one, _| {
        let (ham, spam) = (lesson(Owner::All, 1, Class::Ham, &[1]), lesson(Owner::All, 1, Class::Spam, &[1]));
        let learned = one.learn(&[ham.clone(), spam.clone(), spam, ham]).await.unwrap();
        assert_eq!(learned, [Learned::New, Learned::Corrected, Learned::Known, Learned::Corrected]);
        assert_eq!((one.counts().ham, one.counts().spam), (1, 0));
    })
    .await;
}

#[tokio::test]
async fn what_nobody_said_gives_way_to_what_somebody_says() {
    each(async |one, _| {
        let weak = |class| Lesson { strength: 150, ..lesson(Owner::All, 1, class, &[1]) };
        assert_eq!(one.learn_unasked(&[weak(Class::Ham)]).await.unwrap(), [Learned::New]);
        assert_eq!(one.learn_unasked(&[weak(Class::Spam)]).await.unwrap(), [Learned::Known]);
        let said = |class| lesson(Owner::All, 1, class, &[1]);
        assert_eq!(one.learn(&[said(Class::Ham)]).await.unwrap(), [Learned::Corrected], "it counts for more now");
        assert_eq!(one.learn(&[weak(Class::Ham)]).await.unwrap(), [Learned::Known]);
        assert_eq!(one.learn(&[said(Class::Spam)]).await.unwrap(), [Learned::Corrected]);
        assert_eq!(one.learn_unasked(&[weak(Class::Ham)]).await.unwrap(), [Learned::Known]);
        assert_eq!((one.counts().ham, one.counts().spam), (0, 1));
    })
    .await;
}

#[tokio::test]
async fn accounts_have_lessons_of_their_own() {
    each(async |one, other| {
        let (anna, bert) = (AccountId(7), AccountId(8));
        school(one, Owner::All, 0, 120).await;
        let all = one.current().weights().opinion(&[1, 9]).log_odds;
        for key in 0..50 {
            one.learn(&[lesson(Owner::Account(anna), key, Class::Ham, &[1, 9])]).await.unwrap();
        }
        for node in [Some(one), other].into_iter().flatten() {
            node.refresh().await.unwrap();
            assert!(node.of_account(anna, &[1, 9]).await.unwrap() < -0.5);
            assert_eq!(node.of_account(bert, &[1, 9]).await.unwrap(), 0.0);
            assert_eq!(node.current().weights().opinion(&[1, 9]).log_odds, all);
        }
        let before = one.of_account(anna, &[1, 9]).await.unwrap();
        if let Some(other) = other {
            other.learn(&[lesson(Owner::Account(anna), 99, Class::Ham, &[1, 9])]).await.unwrap();
            one.refresh().await.unwrap();
            assert!(one.of_account(anna, &[1, 9]).await.unwrap() < before);
        }
        one.forget(anna).await.unwrap();
        assert_eq!(one.of_account(anna, &[1, 9]).await.unwrap(), 0.0);
    })
    .await;
}

#[tokio::test]
async fn snapshots_take_the_place_of_steps() {
    each(async |one, other| {
        let anna = Owner::Account(AccountId(7));
        for owner in [Owner::All, anna] {
            let many: Vec<Lesson> = (0..2100u32)
                .map(|at| {
                    let mut next =
                        lesson(owner, 0, if at % 3 == 0 { Class::Ham } else { Class::Spam }, &[at % 3, 50 + at]);
                    next.key.0[..4].copy_from_slice(&at.to_be_bytes());
                    next
                })
                .collect();
            one.learn(&many).await.unwrap();
        }
        one.tidy().await.unwrap();
        assert_eq!(one.tables.since(None, 0, 10).await.unwrap().len(), 0);
        one.learn(&[lesson(Owner::All, 250, Class::Ham, &[77_777])]).await.unwrap();
        let before =
            (one.current().weights().opinion(&[1]).log_odds, one.of_account(AccountId(7), &[1, 5]).await.unwrap());
        // One that slept through it, and one that comes new.
        for node in [Some(one), other].into_iter().flatten() {
            node.refresh().await.unwrap();
            assert_eq!(node.current().weights().opinion(&[1]).log_odds, before.0);
            assert_eq!(node.of_account(AccountId(7), &[1, 5]).await.unwrap(), before.1);
            node.reload().await.unwrap();
            assert_eq!(node.current().weights().opinion(&[1]).log_odds, before.0);
            assert_eq!((node.counts().ham, node.counts().spam), (701, 1400));
        }
        let again = lesson(Owner::All, 250, Class::Ham, &[77_777]);
        assert_eq!(one.unlearn(&[again]).await.unwrap(), [Learned::Unlearned]);
    })
    .await;
}

#[tokio::test]
async fn two_nodes_teach_at_once() {
    let Some(server) = Server::start() else { return };
    let clock = Arc::new(SystemClock);
    let one = Classifier::open_postgres(open_pool(&server).await, clock.clone()).await.unwrap();
    let other = Classifier::open_postgres(open_pool(&server).await, clock).await.unwrap();
    let teach = async |node: &Classifier, first: u8| {
        for at in 0..60 {
            // Half of the messages come to both.
            let key = if at % 2 == 0 { at } else { at + first };
            let class = if key % 2 == 0 { Class::Ham } else { Class::Spam };
            node.learn(&[lesson(Owner::All, key, class, &[u32::from(key % 5), u32::from(key) + 100])]).await.unwrap();
        }
    };
    tokio::join!(teach(&one, 64), teach(&other, 128));
    for node in [&one, &other] {
        node.refresh().await.unwrap();
        assert_eq!(node.counts().ham + node.counts().spam, 90);
    }
    let seen = one.current().weights().opinion(&[1, 2, 3]).log_odds;
    assert_eq!(other.current().weights().opinion(&[1, 2, 3]).log_odds, seen);
    one.reload().await.unwrap();
    assert_eq!(one.current().weights().opinion(&[1, 2, 3]).log_odds, seen);
}

#[tokio::test]
async fn everything_moves_between_engines() {
    let Some(server) = Server::start() else { return };
    let clock = Arc::new(SystemClock);
    let dir = tempfile::tempdir().unwrap();
    let file = Classifier::open(&dir.path().join("classifier.sqlite"), clock.clone()).await.unwrap();
    let shared = Classifier::open_postgres(open_pool(&server).await, clock.clone()).await.unwrap();
    school(&file, Owner::All, 0, 40).await;
    school(&file, Owner::Account(AccountId(3)), 0, 5).await;
    assert!(file.copy_to(&shared).await.unwrap());
    assert!(!file.copy_to(&shared).await.unwrap() && file.compare_with(&shared).await.unwrap().is_empty());
    assert_eq!(shared.current().weights().opinion(&[1, 9]), file.current().weights().opinion(&[1, 9]));
    school(&shared, Owner::All, 100, 3).await;
    assert!(!file.compare_with(&shared).await.unwrap().is_empty());
    let back = Classifier::open(&dir.path().join("back.sqlite"), clock).await.unwrap();
    assert!(shared.copy_to(&back).await.unwrap());
    school(&back, Owner::All, 110, 1).await;
    assert_eq!(back.counts().ham, 44);
    let frozen = Current::frozen(&back.current().export().unwrap()).unwrap();
    assert_eq!(frozen.weights().opinion(&[1, 9]), back.current().weights().opinion(&[1, 9]));
}

/// What the fixtures hold.
async fn holds_everything(classifier: &Classifier) {
    assert_eq!((classifier.counts().ham, classifier.counts().spam), (31, 40));
    let weights = classifier.current().weights();
    assert!(weights.weight(1) > 1.0 && weights.weight(2) < -1.0);
    assert!(classifier.of_account(AccountId(5), &[9]).await.unwrap() > 0.0);
    let known = lesson(Owner::All, 0xab, Class::Spam, &[1, 7]);
    assert_eq!(classifier.learn(&[known]).await.unwrap(), [Learned::Known]);
}

#[tokio::test]
async fn every_version_that_was_shipped_is_read() {
    let clock = Arc::new(SystemClock);
    let fixture = Fixture::new(include_str!("fixtures/sqlite.sql"), sqlite::MIGRATIONS.iter().copied());
    for version in fixture.versions() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("classifier.sqlite");
        fixture.make_sqlite(&file, version).unwrap();
        holds_everything(&Classifier::open(&file, clock.clone()).await.unwrap()).await;
    }
    let steps = postgres::MIGRATIONS.iter().map(|step| step.text);
    let fixture = Fixture::new(include_str!("fixtures/postgres.sql"), steps);
    for version in fixture.versions() {
        let Some(server) = Server::start() else { return };
        let pool = open_pool(&server).await;
        fixture.make_postgres(&pool, postgres::COMPONENT, version).await;
        holds_everything(&Classifier::open_postgres(pool, clock.clone()).await.unwrap()).await;
    }
}
