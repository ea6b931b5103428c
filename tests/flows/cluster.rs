//! Several nodes as one system: who is there, and how one is taken out.

use engine::postgres::Server;

use super::postgres::{add_accounts, soon};
use crate::harness::{Node, http, letter, ortler_fails};

fn states(node: &Node) -> Vec<String> {
    let all = node.json(&["cluster", "status"]);
    all.as_array().unwrap().iter().map(|one| one["state"].as_str().unwrap().to_owned()).collect()
}

fn is_ready(node: &Node) -> bool {
    http(node.port(90), "GET /readyz", "", "").0 == 200
}

#[test]
fn nodes_are_listed_drained_resumed_and_removed() {
    let Some(server) = Server::start() else { return };
    let (one, mut other) = (Node::on_postgres(&server.url(), ""), Node::on_postgres(&server.url(), ""));
    soon(|| states(&one) == ["up", "up"]);
    let name = format!("mx{}.example.test", other.port(0));

    // Drained from the other one: not ready, and sessions go on.
    add_accounts(&one, &["user1"]);
    soon(|| other.json(&["account", "list"]).to_string().contains("user1"));
    let mut session = other.sign_in("user1");
    one.command(&["cluster", "drain", &name]);
    soon(|| !is_ready(&other));
    assert!(is_ready(&one));
    assert!(states(&one).contains(&"draining".to_owned()));
    assert!(other.send("a@x.example", &["user1@example.test"], &letter("x", "Still here.")).starts_with("250"));
    session.tagged("SELECT INBOX");
    ortler_fails(&["cluster", "remove", &name, "--config", one.config().to_str().unwrap()], 1, "is up");
    other.command(&["cluster", "resume"]);
    soon(|| is_ready(&other));

    // Stopped, it is down at once; another one cannot take its name while it is up.
    drop(session);
    other.stop();
    assert_eq!(states(&one).iter().filter(|state| *state == "down").count(), 1);
    // Without a running node, too.
    assert!(other.json(&["cluster", "status"]).to_string().contains(&name));
    one.command(&["cluster", "remove", &name]);
    assert_eq!(states(&one), ["up"]);
    ortler_fails(&["cluster", "drain", "mx.nowhere.test", "--config", one.config().to_str().unwrap()], 1, "no node");
    other.resume();
    soon(|| states(&one) == ["up", "up"]);
}

#[test]
fn a_node_alone_can_be_drained() {
    let node = Node::start();
    assert_eq!(states(&node), ["up"]);
    node.command(&["cluster", "drain"]);
    soon(|| !is_ready(&node));
    assert_eq!(states(&node), ["draining"]);
    node.command(&["cluster", "resume"]);
    soon(|| is_ready(&node));
}
