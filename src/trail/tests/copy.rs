//! A log that moves.

use std::sync::Arc;
use std::time::Duration;

use base::{Clock as _, UtcMillis};
use engine::postgres::Server;
use engine::table;

use super::{Engine, NOON, Node, domain, make_database, recipient};
use crate::{Event, Kind, Outcome, Query, Scope, Span};

const DAY: Duration = Duration::from_secs(86_400);

/// Messages of three days, one around midnight, and an event of no message.
async fn fill(node: &Node) {
    let to = [("anna@a.test", 1, Outcome::Delivered), ("bert@b.test", 2, Outcome::Deferred)];
    for round in 0..3 {
        for nth in 0..400 {
            node.message("x@y.example", &format!("day {round} number {nth} \0 ünd"), &to);
        }
        node.until_found(&format!("\"day {round}\""), 400).await;
        if round < 2 {
            node.clock.advance(DAY);
        }
    }
    node.trail.record(Event::new(UtcMillis(NOON.0 + 2 * 86_400_000), Kind::Connected));
    let late = node.message("late@y.example", "around midnight", &[("anna@a.test", 1, Outcome::Delivered)]);
    node.clock.advance(DAY / 2);
    let refused = Event::new(node.clock.utc(), Kind::Delivered).message(late);
    node.trail.record(refused.party(recipient("anna@a.test", 1, Outcome::Refused)));
    let last = node.trail.last_seq().await.unwrap();
    while node.trail.last_seq().await.unwrap() == last {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What people see.
async fn seen(node: &Node) -> String {
    let mut out = String::new();
    let span = Span { from: NOON.minus(DAY), to: NOON.plus(DAY * 4), step_minutes: 1 };
    for scope in [Scope::System, domain("a.test"), domain("b.test")] {
        let rows = node.trail.messages(&scope, &Query::default(), 10_000).await.unwrap();
        out += &format!("{} messages\n{rows:?}\n", rows.len());
        let counts = node.trail.histogram(&scope, span).await.unwrap();
        out += &format!("{:?}\n", counts.iter().filter(|one| one.counts != [0; 5]).collect::<Vec<_>>());
        for row in rows.iter().step_by(97) {
            out += &format!("{:?}\n", node.trail.story(&scope, row.id).await.unwrap());
        }
    }
    out.replace("\\0", "")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_log_goes_to_postgresql_and_back() {
    let Some(server) = Server::start().map(Arc::new) else { return };
    make_database(&server, "copied");
    let (mut first, mut there, mut back) = (
        Engine::Embedded.node().await,
        Engine::Postgres(Arc::clone(&server), "copied").node().await,
        Engine::Embedded.node().await,
    );
    fill(&first).await;
    for (from, to, days) in [(&first, &there, 3), (&there, &back, 4)] {
        to.clock.advance(DAY * 2 + DAY / 2);
        let (as_it_was, last) = (seen(from).await, from.trail.last_seq().await.unwrap());
        assert!(!from.trail.compare_with(&to.trail).await.unwrap().differences.is_empty());
        let report = from.trail.copy_to(&to.trail).await.unwrap();
        assert_eq!((report.days, report.days_skipped, report.differences.len()), (days, 0, 0), "{report:?}");
        assert_eq!(report.events, last);
        assert!(seen(to).await == as_it_was);
        assert_eq!(to.trail.last_seq().await.unwrap(), last);
        // Only what came since.
        let subject = format!("since {days}");
        from.message("x@y.example", &subject, &[("anna@a.test", 1, Outcome::Delivered)]);
        from.until_found(&format!("\"{subject}\""), 1).await;
        while from.trail.last_seq().await.unwrap() < last + 4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let report = from.trail.copy_to(&to.trail).await.unwrap();
        assert_eq!((report.days, report.differences.len()), (1, 0), "{report:?}");
        assert!(seen(to).await == seen(from).await);
        assert!(from.trail.compare_with(&to.trail).await.unwrap().differences.is_empty());
        break_one(from, to).await;
    }
    // It is written on as if nothing had happened.
    there.message("x@y.example", "after the move", &[("anna@a.test", 1, Outcome::Delivered)]);
    there.until_found("\"after the move\"", 1).await;
    for node in [&mut first, &mut there, &mut back] {
        node.stop().await;
    }
}

/// A difference is named.
async fn break_one(from: &Node, to: &Node) {
    let day = crate::store::day_of(NOON);
    let [event, ..] = crate::copy::tables(day);
    let place = to.trail.store.place_of(day).await.unwrap();
    for (set, wrong) in [("kind = kind || 'x'", 1), ("kind = substr(kind, 1, length(kind) - 1)", 0)] {
        let text = |name: &str| format!("UPDATE {name} SET {set} WHERE seq = 7");
        let mut change = place.begin().await.unwrap();
        change.run(&text(&event.sqlite.from), &text(&event.postgres.from)).await.unwrap();
        change.commit().await.unwrap();
        let found = from.trail.compare_with(&to.trail).await.unwrap().differences;
        assert_eq!(found.len(), wrong, "{found:?}");
        assert!(found.iter().all(|one| one.contains("event 7: differs in kind")), "{found:?}");
    }
}

/// A column that a later version adds must go along too.
#[tokio::test]
async fn every_column_is_copied() {
    let node = Engine::Embedded.node().await;
    let day = node.trail.store.days().await.unwrap()[0];
    let place = node.trail.store.place_of(day).await.unwrap();
    let text = "SELECT m.name || '.' || c.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c
                WHERE m.type = 'table' AND m.name <> 'minute' ORDER BY 1";
    let found = place.ask(text, &[table::Kind::Text]).await.unwrap();
    let found: Vec<String> = found.iter().map(|row| row[0].to_string()).collect();
    let mut copied = vec!["message.at".to_owned()];
    for table in crate::copy::tables(day) {
        copied.extend(table.columns.iter().map(|(column, _)| format!("{}.{column}", table.name)));
    }
    copied.sort();
    assert_eq!(found, copied);
}
