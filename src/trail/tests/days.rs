//! The embedded engine's own: numbers over several files.

use std::sync::Arc;
use std::time::Duration;

use base::{MessageId, UtcMillis};
use rusqlite::Connection;

use super::NOON;
use crate::day;
use crate::days::Days;
use crate::store::{Batch, TrailStore as _, day_of};
use crate::{Event, Kind, Scope};

const DAY: Duration = Duration::from_secs(86_400);

/// About a message that was made at that time.
fn event(made: UtcMillis) -> Event {
    Event::new(NOON, Kind::Seen).message(MessageId::first_at(made))
}

fn batch(events: Vec<Event>) -> Arc<Batch> {
    Arc::new(Batch { writer: 0, number: 1, events })
}

#[tokio::test]
async fn a_batch_over_several_days_is_told_whole_or_not_yet() {
    let folder = tempfile::tempdir().unwrap();
    let days = Days::open(folder.path().to_owned(), day_of(NOON)).unwrap();
    days.append(&batch(vec![event(NOON.minus(DAY)), event(NOON)])).await.unwrap();
    // Of the next one, today's part is there and yesterday's is not.
    let today = Connection::open(folder.path().join("20261031.sqlite")).unwrap();
    day::write(&today, &[(4, &event(NOON))]).unwrap();
    let changes = days.changes(&Scope::System, 0).await.unwrap();
    assert_eq!((changes.messages.len(), changes.upto), (2, 2));
    let changes = days.changes(&Scope::System, 2).await.unwrap();
    assert_eq!((changes.messages.len(), changes.upto), (0, 2));
}

#[tokio::test]
async fn what_midnight_brings_is_told_before_the_day_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let days = Days::open(folder.path().to_owned(), day_of(NOON)).unwrap();
    days.append(&batch(vec![event(NOON.plus(DAY)), event(NOON)])).await.unwrap();
    let changes = days.changes(&Scope::System, 0).await.unwrap();
    assert_eq!((changes.messages.len(), changes.upto), (2, 2));
}

#[tokio::test]
async fn a_number_that_is_taken_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let days = Days::open(folder.path().to_owned(), day_of(NOON)).unwrap();
    let today = Connection::open(folder.path().join("20261031.sqlite")).unwrap();
    day::write(&today, &[(1, &event(NOON))]).unwrap();
    assert!(days.append(&batch(vec![event(NOON)])).await.is_err());
}

#[tokio::test]
async fn an_old_day_that_cannot_be_read_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let days = Days::open(folder.path().to_owned(), day_of(NOON)).unwrap();
    days.append(&batch(vec![event(NOON.minus(DAY)), event(NOON)])).await.unwrap();
    drop(days);
    std::fs::write(folder.path().join("20261029.sqlite"), "rubbish").unwrap();
    let days = Days::open(folder.path().to_owned(), day_of(NOON.plus(DAY))).unwrap();
    assert_eq!(days.last_seq().await.unwrap(), 2);
}
