//! Several nodes on one server, and what becomes of events when it is away.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::{FakeClock, IdSource, MessageId};
use engine::postgres::{Pool, Server, value};

use super::{Engine, NOON, Node, domain, make_database, settings_of};
use crate::{Outcome, Scope, Settings, Span};

const TO_ANNA: [(&str, u64, Outcome); 1] = [("anna@a.test", 1, Outcome::Delivered)];
/// Of one such message.
const EVENTS: i64 = 5;

fn engine() -> Option<(Arc<Server>, Engine)> {
    let server = Arc::new(Server::start()?);
    make_database(&server, "trail");
    Some((Arc::clone(&server), Engine::Postgres(server, "trail")))
}

async fn number(server: &Server, text: &str) -> i64 {
    let rows = Pool::new(settings_of(server, "trail")).query(text, &[]).await.unwrap();
    value(&rows[0], 0).unwrap()
}

fn control(server: &Server, arguments: &[&str]) {
    tokio::task::block_in_place(|| server.control(arguments));
}

fn start(server: &Server) {
    let folder = server.socket_dir().display();
    let options = format!("-c listen_addresses='' -c unix_socket_directories='{folder}'");
    control(server, &["-l", &format!("{folder}/again.log"), "-o", &options, "start"]);
}

fn spilled(node: &Node) -> u64 {
    let folder = node.folder.path().join("trail/spill");
    let size = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().metadata().unwrap().len();
    std::fs::read_dir(Path::new(&folder)).unwrap().map(size).sum()
}

async fn open(engine: &Engine, adjust: impl FnOnce(&mut Settings)) -> Node {
    let (clock, ids) = (Arc::new(FakeClock::at(NOON)), Arc::new(IdSource::system()));
    engine.open(clock, ids, Arc::new(tempfile::tempdir().unwrap()), adjust).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_viewer_sees_what_other_nodes_write_once_and_all_of_it() {
    let Some((server, engine)) = engine() else { return };
    let (a, b) = tokio::join!(engine.node(), engine.node());
    let mut live = b.trail.live(domain("a.test"), None);
    // Nothing yet; from now on everything counts.
    assert!(tokio::time::timeout(Duration::from_millis(500), live.next()).await.is_err());
    let mut expected = Vec::new();
    for nth in 0..300 {
        for node in [&a, &b] {
            expected.push(node.message("x@y.example", &format!("n{nth}"), &TO_ANNA));
        }
        node_pause(nth).await;
    }
    // The last state of each; every change is later than the one before.
    let (mut done, mut last) = (BTreeMap::new(), 0);
    while done.len() < expected.len() {
        let rows = tokio::time::timeout(Duration::from_secs(30), live.next()).await;
        for row in rows.unwrap_or_else(|_| panic!("{} of {}", done.len(), expected.len())).unwrap().unwrap() {
            assert!(row.seq > last, "{} after {last}", row.seq);
            last = row.seq;
            if row.outcome.is_some() {
                assert!(done.insert(row.id, row.seq).is_none(), "{} comes twice", row.id);
            }
        }
    }
    assert!(expected.iter().all(|id| done.contains_key(id)));
    let story = b.trail.story(&Scope::System, expected[0]).await.unwrap();
    assert_eq!(story.len() as i64, EVENTS);
    let span = Span { from: NOON, to: NOON.plus(Duration::from_secs(60)), step_minutes: 1 };
    for scope in [Scope::System, domain("a.test")] {
        assert_eq!(a.trail.histogram(&scope, span).await.unwrap()[0].counts, [600, 0, 0, 0, 0]);
    }
    assert_eq!(number(&server, "SELECT count(*) FROM trail_event").await, 600 * EVENTS);
}

/// Lets batches differ in size.
async fn node_pause(nth: u64) {
    if nth.is_multiple_of(20) {
        tokio::time::sleep(Duration::from_millis(nth % 7)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_stopped_server_misses_comes_later_and_once() {
    let Some((server, engine)) = engine() else { return };
    let mut node = engine.node().await;
    node.message("x@y.example", "kept", &TO_ANNA);
    node.until_found("kept", 1).await;
    control(&server, &["-m", "fast", "stop"]);
    let mut away = Vec::new();
    for _ in 0..20 {
        away.push(node.message("x@y.example", "kept", &TO_ANNA));
        node.pass().await;
    }
    // The node stops and starts meanwhile: it comes up without the server and forgets nothing.
    node.stop().await;
    assert!(spilled(&node) > 1000);
    let Node { clock, ids, folder, .. } = node;
    let node = engine.open(clock, ids, folder, |_| {}).await;
    away.push(node.message("x@y.example", "kept", &TO_ANNA));
    node.pass().await;
    start(&server);
    node.until_found("kept", 22).await;
    for id in away {
        assert_eq!(node.trail.story(&Scope::System, id).await.unwrap().len() as i64, EVENTS);
    }
    assert_eq!(number(&server, "SELECT count(*) FROM trail_event").await, 22 * EVENTS);
    // What has settled leaves the disk.
    for _ in 0..200 {
        if spilled(&node) == 0 {
            return;
        }
        node.pass().await;
    }
    panic!("{} octets are left", spilled(&node));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_crashes_loses_and_doubles_no_event() {
    let Some((server, engine)) = engine() else { return };
    let (a, b) = tokio::join!(engine.node(), engine.node());
    let mut written: Vec<MessageId> = Vec::new();
    for round in 0..4 {
        for _ in 0..40 {
            for node in [&a, &b] {
                written.push(node.message("x@y.example", "once", &TO_ANNA));
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
            a.clock.advance(Duration::from_millis(3));
            b.clock.advance(Duration::from_millis(3));
        }
        if round < 3 {
            // What was committed in the last moments is gone with the server's memory.
            control(&server, &["-m", "immediate", "restart"]);
        }
    }
    for _ in 0..400 {
        a.pass().await;
        b.clock.advance(Duration::from_millis(50));
        let text = "SELECT count(*) FROM trail_event";
        if a.trail.last_seq().await.is_ok() && number(&server, text).await >= written.len() as i64 * EVENTS {
            break;
        }
    }
    let events = number(&server, "SELECT count(*) FROM trail_event").await;
    assert_eq!(events, written.len() as i64 * EVENTS);
    let counted = number(&server, "SELECT sum(count)::bigint FROM trail_minute WHERE domain = ''").await;
    assert_eq!(counted, written.len() as i64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_finds_no_place_is_counted_in_the_log() {
    let Some((server, engine)) = engine() else { return };
    let node = open(&engine, |settings| settings.spill_bytes_max = 4000).await;
    control(&server, &["-m", "fast", "stop"]);
    for _ in 0..30 {
        node.message("x@y.example", "lost", &TO_ANNA);
        node.pass().await;
    }
    start(&server);
    for _ in 0..200 {
        node.pass().await;
        if node.trail.last_seq().await.is_ok_and(|seq| seq > 0) && spilled(&node) == 0 {
            break;
        }
    }
    node.message("x@y.example", "after", &TO_ANNA);
    node.until_found("after", 1).await;
    let stored = number(&server, "SELECT count(*) FROM trail_event WHERE kind <> 'gap'").await;
    let gaps =
        "SELECT coalesce(sum((fields::json ->> 'count')::bigint), 0)::bigint FROM trail_event WHERE kind = 'gap'";
    let lost = number(&server, gaps).await;
    assert!(lost > 0 && stored > EVENTS, "{lost} lost, {stored} stored");
    assert_eq!(stored + lost, 31 * EVENTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_damaged_file_among_what_waits_is_counted_in_the_log() {
    let Some((server, engine)) = engine() else { return };
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let spill = folder.path().join("trail/spill");
    std::fs::create_dir_all(&spill).unwrap();
    std::fs::write(spill.join("0000000001.spill"), r#"rubbish [{"at":1},{"at":2},{"at":3}]"#).unwrap();
    let (clock, ids) = (Arc::new(FakeClock::at(NOON)), Arc::new(IdSource::system()));
    let node = engine.open(clock, ids, folder, |_| {}).await;
    node.message("x@y.example", "after", &TO_ANNA);
    node.until_found("after", 1).await;
    let gaps = "SELECT sum((fields::json ->> 'count')::bigint)::bigint FROM trail_event WHERE kind = 'gap'";
    assert_eq!(number(&server, gaps).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn days_are_made_ahead_and_dropped_as_a_whole() {
    let Some((server, engine)) = engine() else { return };
    let node = engine.node().await;
    let old = node.message("x@y.example", "old", &TO_ANNA);
    let node = node.reopen().await;
    let days = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'trail_event'::regclass";
    assert_eq!(number(&server, days).await, 8);
    // A detaching that was cut short is finished.
    node.clock.advance(Duration::from_secs(23 * 86_400));
    let pool = Pool::new(settings_of(&server, "trail"));
    let sql = pool.session().await.unwrap();
    sql.batch("ALTER TABLE trail_party DETACH PARTITION trail_party_20261031 CONCURRENTLY").await.unwrap();
    sql.give_back();
    let node = node.reopen().await;
    node.until_forgotten(old).await;
    let node = node.reopen().await;
    // The retention of 21 days and one more are left, with the week ahead.
    let found = number(&server, "SELECT count(*) FROM pg_class WHERE relname ~ '^trail_[a-z]+_20261031$'").await;
    assert_eq!((found, number(&server, days).await), (0, 7 + 8));
    node.message("x@y.example", "new", &TO_ANNA);
    node.until_found("new", 1).await;
}
