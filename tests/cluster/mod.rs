//! The cluster on hosts of its own, under load, while one thing after the other is broken and mended.
//!
//! A few faults belong to the full run; `tests/cluster/run` does many and writes what it measured into `RESULTS.md`.

mod balancers;
mod faults;
mod lane;
mod modes;
mod net;
mod results;

use std::path::Path;
use std::time::{Duration, Instant};

use base::{Clock as _, SystemClock};

use crate::harness::{Load, Stop, report, skip, wants_all};
use faults::Fault;
use lane::{Lane, NODES};
use results::{Row, Sum};

/// SMTP clients of each place.
const SENDERS: usize = 2;
/// So many messages each place takes after a fault.
const MORE: u32 = 10;
/// Service is there again within.
const LONGEST: Duration = Duration::from_secs(90);
/// Names of the watched users, by node.
const WATCHED: [&str; 3] = ["user of mx1", "user of mx2", "user of mx3"];
/// With objects, one message in so many is that long.
const LONG: (u32, usize) = (7, 250_000);

/// What a user of a killed node waits at most until he works again.
const RECONNECTED: Duration = Duration::from_secs(3);
/// From the promotion to service of every protocol.
const SERVED_AGAIN: Duration = Duration::from_secs(5);

#[test]
fn nodes_and_primaries_die_under_load_and_nothing_acknowledged_is_lost() {
    if !wants_all() {
        return skip("a cluster in network namespaces runs with ORTLER_TESTS=all");
    }
    let faults = [Fault::NodeKilled(1), Fault::PrimaryHostKilled, Fault::NodePaused(2), Fault::NodeWithoutOthers(0)];
    on_a_thread(move || {
        let Some((rows, _)) = suffer(&faults, false) else { return };
        let killed = &rows[0];
        assert!(killed.longest(WATCHED[1]) < RECONNECTED, "{killed:?}");
        for other in [WATCHED[0], WATCHED[2]] {
            assert!(killed.longest(other) < Duration::from_secs(1), "{other}: {killed:?}");
        }
        // Where it is not a node that dies, sessions stay: their clients wait or give up.
        let closed: Vec<&String> = rows[1].left.iter().filter(|left| left.contains("Closed")).collect();
        assert!(closed.is_empty(), "{closed:?}");
        assert!(rows[1].after_promotion().expect("a promotion") < SERVED_AGAIN, "{:?}", rows[1]);
    });
}

/// `ORTLER_CLUSTER` says which: `SEED FROM TO`, then `objects` if large content lies in an object store. Or `only`, the names
/// of some, and `objects`: these are not written down.
#[test]
fn random_faults_lose_nothing_that_was_acknowledged() {
    let Some(wish) = std::env::var_os("ORTLER_CLUSTER") else {
        return skip("many faults happen with tests/cluster/run");
    };
    let wish = wish.into_string().unwrap();
    if wish.starts_with("modes ") {
        return skip("another test is wanted");
    }
    let with_objects = wish.ends_with(" objects");
    let words: Vec<&str> = wish.trim_end_matches(" objects").split(' ').collect();
    let all: Vec<Fault> = (0..NODES.len()).flat_map(Fault::all).collect();
    let named = |name: &&str| *all.iter().find(|fault| format!("{fault:?}") == **name).expect(name);
    let (seed, faults) = match words[..] {
        ["only", ..] => (None, words[1..].iter().map(named).collect::<Vec<Fault>>()),
        [seed, from, to] => {
            let (seed, numbers) = (seed.parse().unwrap(), from.parse::<u64>().unwrap()..to.parse().unwrap());
            (Some(seed), numbers.map(|nth| Fault::random(seed, nth, with_objects)).collect())
        }
        _ => panic!("SEED FROM TO, or `only` and names, not {wish}"),
    };
    report(&format!("cluster: {wish}"));
    on_a_thread(move || {
        let Some((rows, sum)) = suffer(&faults, with_objects) else { panic!("this needs network namespaces") };
        if let Some(seed) = seed {
            results::write(seed, &rows, &sum);
        }
    });
}

/// `ORTLER_PREVIOUS` names the program of an earlier release, with which the cluster begins.
#[test]
fn nodes_are_replaced_by_newer_ones_one_after_the_other_under_load() {
    let Some(previous) = std::env::var_os("ORTLER_PREVIOUS") else {
        return skip("a rolling upgrade needs ORTLER_PREVIOUS, the program of an earlier release");
    };
    on_a_thread(move || {
        let previous = Path::new(&previous);
        let Some(mut lane) = Lane::start_with(false, previous) else { return };
        let (load, users) = prepare(&lane, false);
        let began = SystemClock.now();
        under_load(&load, &users, || {
            for node in 0..NODES.len() {
                // As the documentation says: drained first, so that balancers bring nothing new.
                lane.nodes[node].command(&["cluster", "drain"]);
                std::thread::sleep(Duration::from_secs(3));
                lane.nodes[node].stop();
                lane.nodes[node].replace(Path::new(env!("CARGO_BIN_EXE_ortler")));
                lane.nodes[node].start();
                lane.soon("the new node runs", || {
                    lane.nodes[node].asks("/healthz").is_some_and(|(code, _)| code == 200)
                });
                lane.nodes[node].command(&["cluster", "resume"]);
                lane.nodes[node].wait_until_ready();
                // Both releases side by side.
                load.go_on(MORE * 4, LONGEST);
            }
        });
        let gaps = load.gaps_since(began);
        let longest = gaps.into_iter().max_by_key(|(_, gap)| gap.length()).unwrap();
        let sum = look(&lane, &load, NODES.len());
        report(&format!("cluster, upgrade: {sum}; longest gap {:.1?} of {:?}", longest.1.length(), longest.0));
        assert!(longest.1.length() < RECONNECTED, "{:?} {:?}", longest.0, longest.1.length());
        // What a release before this one leaves out cannot be held against this one.
        report(&format!("cluster, upgrade: ended without a word: {:?}", load.book().left));
    });
}

/// A thread may enter a namespace and never comes back.
fn on_a_thread(what: impl FnOnce() + Send + 'static) {
    if let Err(panic) = std::thread::spawn(what).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Has each fault happen under load, and looks after each whether all is there.
fn suffer(faults: &[Fault], with_objects: bool) -> Option<(Vec<Row>, Sum)> {
    let mut lane = Lane::start(with_objects)?;
    let (load, users) = prepare(&lane, with_objects);
    let mut rows = Vec::new();
    under_load(&load, &users, || {
        for fault in faults {
            rows.push(undergo(*fault, &mut lane, &load));
        }
    });
    let sum = look(&lane, &load, faults.len());
    report(&format!("cluster: {sum}"));
    Some((rows, sum))
}

/// The load, and each node's watched user.
fn prepare(lane: &Lane, with_objects: bool) -> (Load, Vec<String>) {
    let users = lane.add_accounts();
    let mut places = lane.places();
    places.extend((0..NODES.len()).map(|node| lane.near(node)));
    (Load::new(places, SENDERS, with_objects.then_some(LONG)), users)
}

fn under_load(load: &Load, users: &[String], what: impl FnOnce()) {
    std::thread::scope(|scope| {
        let _stop = Stop(load);
        load.start(scope);
        for (node, user) in users.iter().enumerate() {
            scope.spawn(move || load.watch(WATCHED[node], 2 + node, user));
        }
        load.go_on(MORE, LONGEST);
        what();
    });
}

/// All that was acknowledged is there, the store is whole, and no client heard what it should not.
fn look(lane: &Lane, load: &Load, faults: usize) -> Sum {
    let near = &load.places()[2];
    let (mail, appended) = (load.check_letters(near, true), load.check_letters(near, false));
    let flags = load.check_flags(near);
    lane.audit(&["--deep", "--json"]);
    let heard = &load.book().faults;
    assert!(heard.is_empty(), "not what a client should hear: {heard:#?}");
    Sum::of(faults, mail, appended, flags)
}

fn undergo(fault: Fault, lane: &mut Lane, load: &Load) -> Row {
    let began = SystemClock.now();
    let (heard, left) = {
        let book = load.book();
        (book.faults.len(), book.left.len())
    };
    report(&format!("cluster: {fault:?}"));
    let promoted = fault.happen(lane);
    lane.wait_until_whole();
    load.go_on(MORE, LONGEST);
    let mut row = Row::new(fault, began, promoted, load);
    report(&format!("cluster: {row}"));
    {
        let book = load.book();
        book.faults[heard..].iter().for_each(|fault| report(&format!("cluster: heard {fault}")));
        row.left = book.left[left..].to_vec();
    }
    report(&format!("cluster: ended without a word: {:?}", row.left));
    load.check_so_far(&load.places()[2]);
    lane.audit(&["--json"]);
    row
}

/// How long after `from` the last of those gaps ended.
fn since(from: Instant, end: Instant) -> Duration {
    end.checked_duration_since(from).unwrap_or_default()
}
