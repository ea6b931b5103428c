//! One log of several nodes, on a server of its own.

use std::time::Duration;

use base::{Clock as _, SystemClock};
use engine::postgres::Server;

use super::postgres::add_accounts;
use crate::harness::{Node, base64, letter};

const TO: [&str; 1] = ["user1@example.test"];

/// Subjects of the messages that a node finds by a query.
fn found(node: &Node, query: &str) -> Vec<String> {
    let listed: serde_json::Value =
        serde_json::from_str(&node.command(&["trace", "--query", query, "--json", "--limit", "1000"])).unwrap();
    let subject = |row: &serde_json::Value| row["subject"].as_str().unwrap_or_default().to_owned();
    listed.as_array().unwrap().iter().map(subject).collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = SystemClock.now() + Duration::from_secs(60);
    while !holds() {
        assert!(SystemClock.now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn nodes_share_a_log_and_mail_does_not_wait_for_its_server() {
    let (Some(server), Some(log)) = (Server::start(), Server::start()) else { return };
    let options = format!("[trail]\npostgresql = \"{}\"\n", log.url());
    let (one, other) = (Node::on_postgres(&server.url(), &options), Node::on_postgres(&server.url(), &options));
    add_accounts(&one, &["user1"]);
    one.command(&["account", "add", "admin@example.test", "--admin", "--password-hash", "{PLAIN}demo"]);

    // Who watches on one node sees what comes in on the other.
    let basic = base64(b"admin@example.test:demo");
    let mut live = other.connect(80);
    until("the account is known everywhere", || {
        live = other.connect(80);
        let request = format!("GET /api/v1/log/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {basic}\r\n\r\n");
        live.send(request.as_bytes());
        live.line().contains(" 200 ")
    });
    one.send("a@x.example", &TO, &letter("seen elsewhere", "Something new."));
    assert!((0..1000).any(|_| live.line().contains("seen elsewhere")), "not told");
    until("the whole story", || {
        let listed = other.command(&["trace", "--to", TO[0], "--json"]);
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let id = listed[0]["id"].as_str().unwrap_or_default().to_owned();
        let story = other.command(&["trace", &id, "--json"]);
        ["connected", "started", "judged", "delivered"].iter().all(|kind| story.contains(kind))
    });

    // The log's server is killed: mail is taken as before, and what happened meanwhile is told later.
    log.control(&["-m", "immediate", "stop"]);
    for nth in 0..10 {
        let node = if nth % 2 == 0 { &one } else { &other };
        assert!(node.send("a@x.example", &TO, &letter(&format!("meanwhile {nth}"), "Hello.")).starts_with("250"));
    }
    let folder = log.socket_dir().display();
    let options = format!("-c listen_addresses='' -c unix_socket_directories='{folder}'");
    log.control(&["-l", &format!("{folder}/again.log"), "-o", &options, "start"]);
    let all = |node: &Node| {
        let mut subjects = found(node, "subject:meanwhile outcome:delivered");
        subjects.sort();
        subjects == (0..10).map(|nth| format!("meanwhile {nth}")).collect::<Vec<_>>()
    };
    until("what was meanwhile", || all(&one) && all(&other));
    assert_eq!(found(&other, "subject:elsewhere"), ["seen elsewhere"]);
    assert_eq!(one.messages("user1", "INBOX").len(), 11);
}
