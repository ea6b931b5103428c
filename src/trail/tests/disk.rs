//! Formats on disk: what was ever shipped is read; what a crash left does no harm.

use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, Clock as _, FakeClock, IdSource, MessageId, SessionId, SystemClock};
use engine::EngineError;

use super::{Engine, NOON, recipient, subjects};
use crate::disk::{self, MAGIC};
use crate::spill::{Spill, SpillError};
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
        spill.advance(SystemClock.now()).unwrap();
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

#[test]
fn damage_while_open_is_told_and_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut spill = Spill::open(folder.path().to_owned(), 64 << 20).unwrap();
    // Two segments, the first with two records.
    for (number, bytes) in [(1, 5 << 20), (2, 1 << 20), (3, 5 << 20)] {
        spill.push(&batch(number, bytes)).unwrap();
    }
    let mut files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 2);
    let mut first = std::fs::read(&files[0]).unwrap();
    first[100] ^= 1;
    std::fs::write(&files[0], first).unwrap();
    assert!(matches!(spill.next(SystemClock.now()), Err(EngineError::Damaged { .. })));
    assert_eq!(numbers(&mut spill), [3]);
    spill.settle(SystemClock.now(), Duration::ZERO);
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none() && spill.bytes() == 0);
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
