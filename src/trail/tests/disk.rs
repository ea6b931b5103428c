//! Formats on disk: what was ever shipped is read; what a crash left does no harm.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, Clock as _, FakeClock, IdSource, MessageId, SessionId, SystemClock};
use engine::EngineError;
use engine::fixture::Fixture;
use engine::postgres::{Pool, Server};

use super::{Engine, NOON, Node, make_database, recipient, settings_of, subjects};
use crate::disk::{self, MAGIC};
use crate::postgres;
use crate::spill::{NextError, Spill, SpillError};
use crate::store::Batch;
use crate::{Event, Kind, Outcome, Scope, Span};

const SPILL_1: &[u8] = include_bytes!("../fixtures/spill-1.spill");
const DAY_1: &[u8] = include_bytes!("../fixtures/day-1.sqlite");

/// What the fixture holds.
fn sample() -> Batch {
    let (session, message) = (SessionId::from_u128(5 << 80 | 7), MessageId::from_u128(5 << 80 | 8));
    let full = Event::new(NOON, Kind::Delivered).session(session).message(message);
    let full = full.party(recipient("anna@a.test", 7, Outcome::Junk)).field("mailbox", "Junk").field("uid", 3);
    Batch { writer: 77, number: 2, events: vec![full, Event::new(NOON, Kind::Connected)] }
}

fn batch(number: u64, bytes: usize) -> Batch {
    let event = Event::new(NOON, Kind::Judged).field("subject", "x".repeat(bytes));
    Batch { writer: 1, number, events: vec![event] }
}

fn numbers(spill: &mut Spill) -> Vec<u64> {
    let mut found = Vec::new();
    while let Some(batch) = spill.next(SystemClock.now()).unwrap() {
        found.push(batch.number);
        spill.advance(SystemClock.now());
    }
    found
}

#[test]
fn version_1_of_what_waits_is_read_and_written() {
    let written = disk::write(&sample()).unwrap();
    assert_eq!([&MAGIC[..], &written].concat(), SPILL_1);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("0000000004.spill"), SPILL_1).unwrap();
    let mut spill = Spill::open(folder.path().to_owned(), 1 << 20).unwrap();
    let read = spill.next(SystemClock.now()).unwrap().unwrap();
    assert_eq!((read.writer, read.number, read.events), (77, 2, sample().events));
    // A later version is not for us.
    let mut newer = SPILL_1.to_vec();
    newer[7] = 2;
    std::fs::write(folder.path().join("0000000005.spill"), newer).unwrap();
    let refused = Spill::open(folder.path().to_owned(), 1 << 20);
    assert!(matches!(refused, Err(EngineError::TooNew { found: 2, known: 1, .. })));
}

#[test]
fn what_waits_survives_a_crash_at_any_octet() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Spill::open(folder.path().to_owned(), 1 << 20).unwrap();
    let mut spill = open();
    for number in 1..=3 {
        spill.push(&batch(number, 10)).unwrap();
    }
    let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&file).unwrap();
    let record = (whole.len() - MAGIC.len()) / 3;
    for end in 0..=whole.len() {
        std::fs::write(&file, &whole[..end]).unwrap();
        let mut spill = open();
        let kept = end.saturating_sub(MAGIC.len()) / record;
        assert_eq!(numbers(&mut spill), (1..=kept as u64).collect::<Vec<_>>(), "{end}");
        // And more can be added.
        spill.push(&batch(9, 10)).unwrap();
        assert_eq!(numbers(&mut spill), [9], "{end}");
        assert_eq!(numbers(&mut open()).len(), kept + 1, "{end}");
        for left in std::fs::read_dir(folder.path()).unwrap() {
            std::fs::remove_file(left.unwrap().path()).unwrap();
        }
    }
}

/// Three segments, the first two full: one with three records, of two events each, and two with one.
fn full_segments(folder: &Path) -> Vec<PathBuf> {
    let mut spill = Spill::open(folder.to_owned(), 64 << 20).unwrap();
    for (number, bytes) in [(1, 1000), (2, 4 << 20), (3, 3 << 20), (4, 5 << 20), (5, 4 << 20)] {
        let Batch { writer, number, mut events } = batch(number, bytes);
        events.push(Event::new(NOON, Kind::Connected));
        spill.push(&Batch { writer, number, events }).unwrap();
    }
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 3);
    files
}

/// Turns one bit.
fn harm(file: &Path, at: usize) {
    let mut content = std::fs::read(file).unwrap();
    content[at] ^= 1;
    std::fs::write(file, content).unwrap();
}

/// Numbers of all batches that wait, and how many events are lost among them.
fn numbers_and_lost(spill: &mut Spill) -> (Vec<u64>, u64) {
    let (mut found, mut lost) = (Vec::new(), 0);
    loop {
        match spill.next(SystemClock.now()) {
            Ok(Some(batch)) => {
                found.push(batch.number);
                spill.advance(SystemClock.now());
            }
            Ok(None) => return (found, lost),
            Err(NextError::Damaged { events, .. }) => lost += events,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_damaged_record_costs_itself_and_is_counted_once() {
    // In the body of the first record, in the length of its body, in its digest.
    for at in [100, MAGIC.len(), MAGIC.len() + 2, MAGIC.len() + 5] {
        for is_open in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let open = || Spill::open(folder.path().to_owned(), 64 << 20).unwrap();
            let files = full_segments(folder.path());
            let mut spill = open();
            harm(&files[0], at);
            let bytes = std::fs::metadata(&files[0]).unwrap().len();
            if !is_open {
                spill = open();
                assert_eq!((spill.lost, std::fs::metadata(&files[0]).unwrap().len()), (0, bytes), "{at}");
            }
            assert_eq!(numbers_and_lost(&mut spill), (vec![2, 3, 4, 5], 2), "{at}");
            // What comes again is not counted again.
            spill.rewind();
            assert_eq!(numbers_and_lost(&mut spill), (vec![2, 3, 4, 5], 0), "{at}");
            spill.settle(SystemClock.now(), Duration::ZERO);
            assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none() && spill.bytes() == 0);
        }
    }
}

#[test]
fn only_the_last_segment_has_a_torn_end() {
    let folder = tempfile::tempdir().unwrap();
    let files = full_segments(folder.path());
    for file in &files {
        let content = std::fs::read(file).unwrap();
        std::fs::write(file, &content[..content.len() - 9]).unwrap();
    }
    let mut spill = Spill::open(folder.path().to_owned(), 64 << 20).unwrap();
    // The last one's end was never promised, and is gone; the others' were, and are counted.
    assert_eq!(std::fs::metadata(&files[2]).unwrap().len(), MAGIC.len() as u64);
    assert_eq!((spill.lost, numbers_and_lost(&mut spill)), (0, (vec![1, 2], 4)));
    spill.push(&batch(6, 100)).unwrap();
    assert_eq!(numbers(&mut spill), [6]);
}

#[test]
fn damage_before_whole_records_is_no_torn_end() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Spill::open(folder.path().to_owned(), 1 << 20).unwrap();
    let mut spill = open();
    (1..=3).for_each(|number| spill.push(&batch(number, 10)).unwrap());
    let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    harm(&file, 40);
    let mut spill = open();
    spill.push(&batch(4, 10)).unwrap();
    assert_eq!(numbers_and_lost(&mut spill), (vec![2, 3, 4], 1));
}

#[test]
fn a_segment_that_is_none_is_set_aside() {
    for at in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        let files = full_segments(folder.path());
        harm(&files[at], 3);
        let content = std::fs::read(&files[at]).unwrap();
        let mut spill = Spill::open(folder.path().to_owned(), 64 << 20).unwrap();
        let (left, lost) = [(vec![4, 5], 6), (vec![1, 2, 3, 5], 2), (vec![1, 2, 3, 4], 2)][at].clone();
        assert_eq!((spill.lost, numbers_and_lost(&mut spill)), (lost, (left, 0)));
        assert_eq!(std::fs::read(files[at].with_extension("damaged")).unwrap(), content);
        assert!(!files[at].exists());
        spill.push(&batch(6, 100)).unwrap();
        assert_eq!(numbers(&mut spill), [6]);
        assert_eq!(Spill::open(folder.path().to_owned(), 64 << 20).unwrap().lost, 0);
    }
}

#[test]
fn what_was_read_is_passed_whatever_becomes_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let files = full_segments(folder.path());
    let mut spill = Spill::open(folder.path().to_owned(), 64 << 20).unwrap();
    assert_eq!(spill.next(SystemClock.now()).unwrap().unwrap().number, 1);
    harm(&files[0], 100);
    spill.advance(SystemClock.now());
    assert_eq!(numbers_and_lost(&mut spill), (vec![2, 3, 4, 5], 0));
}

#[test]
fn what_waits_is_bounded_and_goes_when_it_is_settled() {
    let folder = tempfile::tempdir().unwrap();
    let mut spill = Spill::open(folder.path().to_owned(), 12 << 20).unwrap();
    for number in 1..=3 {
        spill.push(&batch(number, 3 << 20)).unwrap();
    }
    assert!(matches!(spill.push(&batch(4, 3 << 20)), Err(SpillError::Full)));
    spill.push(&batch(5, 100)).unwrap();
    assert_eq!(numbers(&mut spill), [1, 2, 3, 5]);
    assert!(spill.is_empty());
    // The server crashed and has forgotten what was not settled.
    spill.rewind();
    assert_eq!(numbers(&mut spill), [1, 2, 3, 5]);
    spill.settle(SystemClock.now(), Duration::from_secs(3600));
    assert!(spill.bytes() > 9 << 20);
    spill.settle(SystemClock.now(), Duration::ZERO);
    assert_eq!((spill.bytes(), std::fs::read_dir(folder.path()).unwrap().count()), (0, 0));
    spill.push(&batch(6, 100)).unwrap();
    assert_eq!(numbers(&mut spill), [6]);
}

#[tokio::test]
async fn version_1_of_a_day_file_is_read_and_goes_on() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    std::fs::create_dir(folder.path().join("trail")).unwrap();
    std::fs::write(folder.path().join("trail/20261031.sqlite"), DAY_1).unwrap();
    let (clock, ids) = (Arc::new(FakeClock::at(NOON)), Arc::new(IdSource::system()));
    let node = Engine::Embedded.open(clock, ids, folder, |_| {}).await;
    assert_eq!(subjects(&node.trail, &Scope::System, "to:<anna@a.test>").await, ["from version 1"]);
    let old = node.trail.messages(&Scope::Account(AccountId(1)), &"".parse().unwrap(), 9).await.unwrap().remove(0);
    assert_eq!((old.seq, old.outcome, old.score), (3, Some(Outcome::Deferred), Some(1500)));
    assert_eq!(node.trail.story(&Scope::System, old.id).await.unwrap().len(), 3);
    let delivered = Event::new(NOON, Kind::Delivered).message(old.id);
    node.trail.record(delivered.party(recipient("anna@a.test", 1, Outcome::Delivered)));
    let node = node.reopen().await;
    let new = node.trail.message(&Scope::System, old.id).await.unwrap().unwrap();
    assert_eq!((new.seq, new.outcome), (4, Some(Outcome::Delivered)));
    let span = Span { from: NOON, to: NOON.plus(Duration::from_secs(60)), step_minutes: 1 };
    let buckets = node.trail.histogram(&Scope::System, span).await.unwrap();
    assert_eq!(buckets[0].counts, [1, 0, 0, 0, 0]);
}

/// All that the fixtures hold; then the message that was deferred is delivered, and counts as that.
async fn holds_everything_and_goes_on(node: Node) {
    assert_eq!(subjects(&node.trail, &Scope::System, "").await, ["to both", "deferred once"]);
    assert_eq!(subjects(&node.trail, &Scope::Account(AccountId(2)), "").await, ["to both"]);
    assert_eq!(subjects(&node.trail, &Scope::System, "from:<x@y.example>").await, ["deferred once"]);
    let found = node.trail.messages(&Scope::System, &"".parse().unwrap(), 9).await.unwrap();
    let told = found.iter().map(|row| (row.seq, row.outcome, row.score, row.size_bytes, row.client.as_deref()));
    let expected = [
        (7, Some(Outcome::Delivered), Some(0), Some(3000), Some("192.0.2.8")),
        (3, Some(Outcome::Deferred), Some(1500), Some(2000), Some("192.0.2.7")),
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    let story = node.trail.story(&Scope::System, found[0].id).await.unwrap();
    let kinds: Vec<&str> = story.iter().map(|told| told.kind.as_str()).collect();
    assert_eq!(kinds, ["connected", "judged", "delivered", "delivered"]);
    let span = Span { from: NOON, to: NOON.plus(Duration::from_secs(60)), step_minutes: 1 };
    assert_eq!(node.trail.histogram(&Scope::System, span).await.unwrap()[0].counts, [1, 1, 0, 1, 0]);

    let delivered = Event::new(NOON, Kind::Delivered).message(found[1].id);
    node.trail.record(delivered.party(recipient("anna@a.test", 1, Outcome::Delivered)));
    let node = node.reopen().await;
    let new = node.trail.message(&Scope::System, found[1].id).await.unwrap().unwrap();
    assert_eq!((new.seq, new.outcome), (8, Some(Outcome::Delivered)));
    let counts = node.trail.histogram(&Scope::System, span).await.unwrap()[0].counts;
    assert_eq!(counts, [2, 1, 0, 0, 0]);
}

#[tokio::test]
async fn every_version_of_a_day_file_opens_with_all_it_holds() {
    let fixture = Fixture::new(include_str!("../fixtures/day.sql"), crate::schema::MIGRATIONS.iter().copied());
    for version in fixture.versions() {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        std::fs::create_dir(folder.path().join("trail")).unwrap();
        fixture.make_sqlite(&folder.path().join("trail/20261031.sqlite"), version).unwrap();
        let (clock, ids) = (Arc::new(FakeClock::at(NOON)), Arc::new(IdSource::system()));
        holds_everything_and_goes_on(Engine::Embedded.open(clock, ids, folder, |_| {}).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_in_postgresql_opens_with_all_it_holds() {
    let Some(server) = Server::start() else { return };
    let server = Arc::new(server);
    let fixture =
        Fixture::new(include_str!("../postgres/fixtures/rows.sql"), postgres::MIGRATIONS.iter().map(|step| step.text));
    for version in fixture.versions() {
        // The name lives as long as the test.
        let database: &'static str = format!("version{version}").leak();
        make_database(&server, database);
        fixture.make_postgres(&Pool::new(settings_of(&server, database)), postgres::COMPONENT, version).await;
        let node = Engine::Postgres(Arc::clone(&server), database).node().await;
        holds_everything_and_goes_on(node).await;
    }
}
