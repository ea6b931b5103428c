//! What both engines keep.

use std::collections::BTreeSet;
use std::time::Duration;

use base::{AccountId, Clock as _, MessageId, UtcMillis};
use engine::postgres::Server;
use std::sync::Arc;

use super::{Engine, NOON, domain, make_database, recipient, subjects};
use crate::{Event, Kind, MessageRow, Outcome, Party, Query, Scope, Span};

#[tokio::test]
async fn the_embedded_engine_keeps_the_contract() {
    all(|_| Engine::Embedded).await;
}

#[tokio::test]
async fn postgres_keeps_the_contract() {
    let Some(server) = Server::start() else { return };
    let server = Arc::new(server);
    let database = |name| {
        make_database(&server, name);
        Engine::Postgres(Arc::clone(&server), name)
    };
    all(database).await;
}

async fn all(engine: impl Fn(&'static str) -> Engine) {
    a_message_is_found_by_what_people_remember_of_it(engine("found")).await;
    nobody_sees_beyond_their_scope(engine("scope")).await;
    nobody_learns_of_others_by_asking(engine("asking")).await;
    a_story_names_nobody_else(engine("story")).await;
    numbers_go_on_on_another_day(engine("numbers")).await;
    counters_agree_with_rows_and_a_changed_outcome_counts_once(engine("counters")).await;
    pages_leave_nothing_out(engine("pages")).await;
    a_viewer_misses_nothing_among_others_mail(engine("live")).await;
    old_days_go_whole(engine("days")).await;
    strange_texts_do_no_harm(engine("texts")).await;
}

async fn a_message_is_found_by_what_people_remember_of_it(engine: Engine) {
    let node = engine.node().await;
    let id = node.message("shop@bank.example", "Your Invoice", &[("anna@a.test", 1, Outcome::Delivered)]);
    let to_bert = [("bert@b.test", 2, Outcome::Refused), ("ÖZge@b.test", 3, Outcome::Refused)];
    node.message("", "Bounce ÄRGER", &to_bert);
    let node = node.reopen().await;
    let trail = &node.trail;
    for (query, expected) in [
        ("", vec!["Bounce ÄRGER", "Your Invoice"]),
        ("from:BANK", vec!["Your Invoice"]),
        ("from:<Shop@bank.example>", vec!["Your Invoice"]),
        ("from:<>", vec!["Bounce ÄRGER"]),
        ("-from:<>", vec!["Your Invoice"]),
        ("from:<shop@bank>", vec![]),
        ("to:bert outcome:refused", vec!["Bounce ÄRGER"]),
        ("to:<Bert@b.test>", vec!["Bounce ÄRGER"]),
        ("to:<bert@b.test> subject:invoice", vec![]),
        ("-to:<bert@b.test>", vec!["Your Invoice"]),
        ("to:<bert@b>", vec![]),
        ("-outcome:refused", vec!["Your Invoice"]),
        ("subject:\"your inv\" client:192.0", vec!["Your Invoice"]),
        // Letters beyond ASCII match as they are written.
        ("subject:ÄRGER", vec!["Bounce ÄRGER"]),
        ("subject:bounce subject:ärger", vec![]),
        ("to:ÖZ", vec!["Bounce ÄRGER"]),
        ("to:<ÖZGE@B.test>", vec!["Bounce ÄRGER"]),
        ("to:<özge@b.test>", vec![]),
        ("invoice anna", vec!["Your Invoice"]),
        ("nothing", vec![]),
        (&format!("id:{id}"), vec!["Your Invoice"]),
    ] {
        assert_eq!(subjects(trail, &Scope::System, query).await, expected, "{query}");
    }
    let story = trail.story(&Scope::System, id).await.unwrap();
    let kinds: Vec<&str> = story.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["connected", "started", "recipient-accepted", "judged", "delivered"]);
    assert_eq!(story[4].fields.get("mailbox").unwrap(), "INBOX");
}

async fn nobody_sees_beyond_their_scope(engine: Engine) {
    let node = engine.node().await;
    let both = [("anna@a.test", 1, Outcome::Delivered), ("bert@b.test", 2, Outcome::Quarantined)];
    let id = node.message("x@y.example", "shared", &both);
    node.message("x@y.example", "berts", &[("bert@b.test", 2, Outcome::Delivered)]);
    let node = node.reopen().await;
    let trail = &node.trail;
    let (anna, bert, nobody) =
        (Scope::Account(AccountId(1)), Scope::Account(AccountId(2)), Scope::Account(AccountId(3)));
    assert_eq!(subjects(trail, &anna, "").await, ["shared"]);
    assert_eq!(subjects(trail, &domain("b.test"), "").await, ["berts", "shared"]);
    let two = Scope::Domains(vec!["b.test".parse().unwrap(), "a.test".parse().unwrap()]);
    assert_eq!(subjects(trail, &two, "").await, ["berts", "shared"]);
    let none = Scope::Domains(Vec::new());
    assert!(subjects(trail, &none, "").await.is_empty() && subjects(trail, &nobody, "").await.is_empty());
    // What one asks for tells nothing of the others either.
    for query in ["to:bert", "to:<bert@b.test>", "bert", "outcome:quarantined"] {
        assert!(subjects(trail, &anna, query).await.is_empty(), "{query}");
    }
    assert_eq!(subjects(trail, &bert, "outcome:quarantined").await, ["shared"]);
    let seen = |row: &MessageRow| row.recipients.iter().map(|party| party.address.clone()).collect::<Vec<_>>();
    let row = trail.message(&bert, id).await.unwrap().unwrap();
    assert_eq!((seen(&row), row.outcome), (vec!["bert@b.test".to_owned()], Some(Outcome::Quarantined)));
    let row = trail.message(&Scope::System, id).await.unwrap().unwrap();
    assert_eq!((row.recipients.len(), row.outcome), (2, Some(Outcome::Delivered)));
    assert!(trail.message(&nobody, id).await.unwrap().is_none() && trail.story(&nobody, id).await.unwrap().is_empty());
    let story = trail.story(&anna, id).await.unwrap();
    assert!(story.len() == 5 && !format!("{story:?}").contains("bert@b.test"), "{story:?}");
}

async fn nobody_learns_of_others_by_asking(engine: Engine) {
    let node = engine.node().await;
    let id = node.ids.message(node.clock.utc());
    let event = |kind| Event::new(node.clock.utc(), kind).message(id);
    let party = |address: &str, account, is_recipient, outcome| {
        let (address, account) = (address.to_owned(), Some(AccountId(account)));
        Party { address, account, is_recipient, outcome }
    };
    let started = event(Kind::Started).field("from", "sam@c.test").field("subject", "one");
    node.trail.record(started.party(party("sam@c.test", 9, false, None)));
    // Nothing has come of Anna's yet; Bert's was refused.
    let decided = event(Kind::Decided).party(party("anna@a.test", 1, true, None));
    node.trail.record(decided.field("decided_by", "own rule"));
    let refused = event(Kind::Refused).party(party("bert@b.test", 2, true, Some(Outcome::Refused)));
    node.trail.record(refused.field("status", "554 5.7.1 virus"));
    let node = node.reopen().await;
    let trail = &node.trail;
    let account = |number| Scope::Account(AccountId(number));
    let (anna, bert, sam) = (account(1), account(2), account(9));
    let first = Scope::Domains(vec!["a.test".parse().unwrap(), "c.test".parse().unwrap()]);
    let every = Scope::Domains(["a.test", "b.test"].map(|name| name.parse().unwrap()).to_vec());
    for (query, finders) in [
        ("reason:virus", vec![&bert, &sam, &Scope::System]),
        ("-reason:virus", vec![&anna, &first, &every]),
        ("virus", vec![&bert, &sam, &Scope::System]),
        ("reason:\"OWN rule\"", vec![&anna, &first, &every]),
        ("outcome:refused", vec![&bert, &sam, &every, &Scope::System]),
        ("-outcome:refused", vec![&anna, &first]),
        ("-outcome:delivered", vec![&anna, &bert, &sam, &first, &every, &Scope::System]),
    ] {
        for scope in [&anna, &bert, &sam, &first, &every, &Scope::System] {
            let expected = if finders.contains(&scope) { vec!["one"] } else { Vec::new() };
            assert_eq!(subjects(trail, scope, query).await, expected, "{query} {scope:?}");
        }
    }
}

async fn a_story_names_nobody_else(engine: Engine) {
    let node = engine.node().await;
    let (now, id) = (node.clock.utc(), node.ids.message(node.clock.utc()));
    let session = node.ids.session(now);
    let sender =
        || Party { address: "sam@c.test".to_owned(), account: Some(AccountId(9)), is_recipient: false, outcome: None };
    let said = |kind| Event::new(now, kind).session(session);
    let told = |kind| said(kind).message(id);
    let login = |kind| said(kind).field("login", "sam").field("protocol", "submission");
    for event in [
        said(Kind::Connected).field("client", "192.0.2.7"),
        login(Kind::LoginRefused),
        login(Kind::LoginAccepted),
        login(Kind::LoginAccepted).party(sender()),
        told(Kind::Started).field("from", "sam@c.test").party(sender()),
        told(Kind::RecipientAccepted).field("recipient", "<Anna@a.test>"),
        told(Kind::RecipientAccepted).field("recipient", "<bert@b.test>"),
        told(Kind::RecipientAccepted),
        told(Kind::Judged).field("subject", "one"),
        told(Kind::Delivered).party(recipient("anna@a.test", 1, Outcome::Delivered)),
        told(Kind::Delivered).party(recipient("bert@b.test", 2, Outcome::Delivered)),
        told(Kind::Gap).field("count", 1),
    ] {
        node.trail.record(event);
    }
    let node = node.reopen().await;
    for (scope, expected) in [
        (Scope::Account(AccountId(1)), vec!["connected", "recipient-accepted", "judged", "delivered"]),
        (domain("b.test"), vec!["connected", "recipient-accepted", "judged", "delivered"]),
        (Scope::Account(AccountId(9)), vec!["connected", "login-accepted", "started", "judged"]),
    ] {
        let story = node.trail.story(&scope, id).await.unwrap();
        assert_eq!(story.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), expected, "{scope:?}");
    }
    assert_eq!(node.trail.story(&Scope::System, id).await.unwrap().len(), 12);
}

async fn numbers_go_on_on_another_day(engine: Engine) {
    let node = engine.node().await;
    let to_anna = [("anna@a.test", 1, Outcome::Delivered)];
    node.message("x@y.example", "first", &to_anna);
    let node = node.reopen().await;
    let before = node.trail.last_seq().await.unwrap();
    assert!(before > 0);
    node.clock.advance(Duration::from_secs(86_400));
    let node = node.reopen().await;
    assert_eq!(node.trail.last_seq().await.unwrap(), before);
    let mut live = node.trail.live(Scope::System, Some(before));
    let second = node.message("x@y.example", "second", &to_anna);
    let told = tokio::time::timeout(Duration::from_secs(10), live.next()).await;
    let rows = told.unwrap_or_else(|_| panic!("nothing after {before}")).unwrap().unwrap();
    assert!(rows.iter().all(|row| row.id == second && row.seq > before), "{rows:?}");
}

async fn counters_agree_with_rows_and_a_changed_outcome_counts_once(engine: Engine) {
    let node = engine.node().await;
    let id = node.message("x@y.example", "a", &[("anna@a.test", 1, Outcome::Deferred)]);
    node.message("x@y.example", "b", &[("anna@a.test", 1, Outcome::Junk)]);
    let node = node.reopen().await;
    let event = |after: i64| Event::new(UtcMillis(NOON.0 + after), Kind::Delivered).message(id);
    // Again deferred and then delivered in one batch, twelve minutes later.
    for outcome in [Outcome::Deferred, Outcome::Delivered] {
        node.trail.record(event(720_000).party(recipient("anna@a.test", 1, outcome)));
    }
    let node = node.reopen().await;
    let span = Span { from: UtcMillis(NOON.0 - 3_600_000), to: UtcMillis(NOON.0 + 1_200_000), step_minutes: 10 };
    for scope in [Scope::System, domain("a.test")] {
        let buckets = node.trail.histogram(&scope, span).await.unwrap();
        let found: Vec<_> =
            buckets.iter().filter(|b| b.counts != [0; 5]).map(|b| (b.at.0 - NOON.0, b.counts)).collect();
        assert_eq!(found, [(0, [0, 1, 0, 0, 0]), (600_000, [1, 0, 0, 0, 0])], "{scope:?}");
    }
    // An account's are counted from its messages, at the time those were made.
    let buckets = node.trail.histogram(&Scope::Account(AccountId(1)), span).await.unwrap();
    assert_eq!((buckets.len(), buckets[0].at, buckets[0].counts), (1, NOON, [1, 1, 0, 0, 0]));
    assert!(node.trail.histogram(&domain("b.test"), span).await.unwrap().is_empty());
}

async fn pages_leave_nothing_out(engine: Engine) {
    let node = engine.node().await;
    // Many in one millisecond, over two days, and messages with many recipients in scope.
    for day in 0..2 {
        for nth in 0..20u64 {
            let name = format!("p{nth}@a.test");
            let to = [(name.as_str(), nth, Outcome::Delivered), ("anna@a.test", 100, Outcome::Delivered)];
            node.message("x@y.example", &format!("{day} {nth}"), &to);
        }
        node.clock.advance(Duration::from_secs(86_400));
    }
    let node = node.reopen().await;
    let two = Scope::Domains(vec!["a.test".parse().unwrap(), "b.test".parse().unwrap()]);
    for scope in [Scope::System, domain("a.test"), two, Scope::Account(AccountId(100))] {
        let (mut query, mut found) = (Query::default(), Vec::new());
        loop {
            let page = node.trail.messages(&scope, &query, 7).await.unwrap();
            let Some(last) = page.last() else { break };
            query.below = Some(last.id);
            found.extend(page.iter().map(|row| row.id));
        }
        assert!(found.is_sorted_by(|a, b| a > b) && found.len() == 40, "{scope:?}: {}", found.len());
    }
    let (mut first_day, mut second_day) = (Query::default(), Query::default());
    first_day.before = Some(UtcMillis(NOON.0 + 3_600_000));
    second_day.since = first_day.before;
    for query in [first_day, second_day] {
        assert_eq!(node.trail.messages(&domain("a.test"), &query, 100).await.unwrap().len(), 20);
    }
}

async fn a_viewer_misses_nothing_among_others_mail(engine: Engine) {
    let node = engine.node().await;
    let to_anna = [("anna@a.test", 1, Outcome::Delivered)];
    let first = node.message("x@y.example", "first", &to_anna);
    let node = node.reopen().await;
    let anna = Scope::Account(AccountId(1));
    let mut early = node.trail.live(anna.clone(), Some(0));
    assert_eq!(early.next().await.unwrap().unwrap()[0].id, first);
    let mut live = node.trail.live(anna.clone(), Some(node.trail.last_seq().await.unwrap()));
    // More of others than one look takes in.
    for nth in 0..600 {
        node.message("x@y.example", &format!("other {nth}"), &[("bert@b.test", 2, Outcome::Delivered)]);
    }
    let second = node.message("x@y.example", "second", &to_anna);
    let mut seqs = BTreeSet::new();
    // A change may be told in pieces, as it is stored; each is told once and the last one has everything.
    for viewer in [&mut early, &mut live] {
        let mut rows: Vec<MessageRow> = Vec::new();
        while rows.last().is_none_or(|row| row.outcome.is_none()) {
            rows.extend(viewer.next().await.unwrap().unwrap());
        }
        assert!(rows.iter().all(|row| row.id == second) && rows.is_sorted_by(|a, b| a.seq < b.seq), "{rows:?}");
        seqs.insert(rows.last().unwrap().seq);
    }
    // Whoever comes back later gets the rest, and that once.
    let third = node.message("x@y.example", "third", &to_anna);
    let node = node.reopen().await;
    let mut back = node.trail.live(anna, seqs.last().copied());
    let rows = back.next().await.unwrap().unwrap();
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [third]);
    let more = tokio::time::timeout(Duration::from_millis(300), back.next()).await;
    assert!(more.is_err(), "{more:?}");
}

async fn old_days_go_whole(engine: Engine) {
    let node = engine.node().await;
    let to_anna = [("anna@a.test", 1, Outcome::Delivered)];
    let first = node.message("x@y.example", "first", &to_anna);
    let node = node.reopen().await;
    assert!(node.trail.message(&Scope::System, first).await.unwrap().is_some());
    node.clock.advance(Duration::from_secs(30 * 86_400));
    node.message("x@y.example", "third", &to_anna);
    let node = node.reopen().await;
    node.until_forgotten(first).await;
    assert_eq!(subjects(&node.trail, &Scope::System, "").await, ["third"]);
    // One that comes after its day went harms nothing.
    node.trail.record(Event::new(NOON, Kind::Seen).message(MessageId::from_u128(first.as_u128() + 1)));
    node.message("x@y.example", "fourth", &to_anna);
    let node = node.reopen().await;
    assert_eq!(subjects(&node.trail, &Scope::System, "subject:fourth").await, ["fourth"]);
}

async fn strange_texts_do_no_harm(engine: Engine) {
    let node = engine.node().await;
    let long = format!("{}@a.test", "x".repeat(20_000));
    node.message("a\0b@y.example", "zero \0 octet", &[("nu\0ll@a.test", 1, Outcome::Delivered)]);
    node.message(&long, &long, &[(&long, 1, Outcome::Delivered)]);
    node.message("x@y.example", "after", &[("anna@a.test", 1, Outcome::Delivered)]);
    let node = node.reopen().await;
    assert_eq!(node.trail.messages(&Scope::Account(AccountId(1)), &Query::default(), 10).await.unwrap().len(), 3);
    assert_eq!(subjects(&node.trail, &Scope::System, "subject:after").await, ["after"]);
    let odd: Query = "to:<a\0b> subject:\"%_\\\0\"".parse().unwrap();
    assert!(node.trail.messages(&Scope::System, &odd, 10).await.unwrap().is_empty());
    for query in ["colour:red", "outcome:maybe", "id:7"] {
        assert!(query.parse::<Query>().is_err(), "{query}");
    }
}
