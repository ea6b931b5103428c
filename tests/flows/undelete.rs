//! What was removed comes back: messages, folders, and an account as a snapshot has it.

use serde_json::{Value, json};

use super::object_store::long_letter;
use crate::harness::{Node, PASSWORD, base64, http, letter, ortler_fails};

const USER: &str = "user1@example.test";

/// The status and the JSON of a call of the API.
fn api(node: &Node, user: &str, request: &str, body: &Value) -> (u16, Value) {
    let credentials = base64(format!("{user}@example.test:{PASSWORD}").as_bytes());
    let headers = format!("Authorization: Basic {credentials}\r\nContent-Type: application/json\r\n");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (status, _, text) = http(node.port(80), request, &headers, &body);
    (status, serde_json::from_str(&text).unwrap_or_default())
}

fn fill(node: &Node, subjects: &[&str]) {
    for subject in subjects {
        assert!(node.send("a@x.example", &[USER], &letter(subject, "Please keep this.")).starts_with("250"));
    }
}

#[test]
fn the_owner_restores_messages_and_folders_and_nobody_else_but_administrators() {
    let node = Node::start();
    fill(&node, &["first", "second"]);
    let mut imap = node.sign_in("user1");
    for command in [
        "CREATE Work/2026",
        "SELECT INBOX",
        "STORE 1 +FLAGS (\\Flagged)",
        "COPY 1 Work",
        "COPY 1:2 Work/2026",
        "STORE 2 +FLAGS (\\Deleted)",
        "EXPUNGE",
        "DELETE Work/2026",
        "DELETE Work",
    ] {
        imap.tagged(command);
    }
    let (status, found) = api(&node, "user1", "GET /api/v1/removed", &Value::Null);
    assert_eq!(
        (status, found["messages"].as_array().unwrap().len(), found["folders"].as_array().unwrap().len()),
        (200, 4, 2)
    );
    let expunged = found["messages"].as_array().unwrap().iter().find(|one| one["mailbox"] == "INBOX").unwrap();
    assert_eq!((&expunged["subject"], &expunged["from"]), (&json!("second"), &json!("anna@sender.example")));

    let (status, _) = api(&node, "user2", "GET /api/v1/removed?account=user1@example.test", &Value::Null);
    assert_eq!(status, 404);
    let theirs = json!({ "account": USER, "ids": [expunged["id"]] });
    assert_eq!(api(&node, "user2", "POST /api/v1/removed/restore", &theirs).0, 404);
    assert_eq!(api(&node, "user2", "POST /api/v1/removed/purge", &json!({ "account": USER, "all": true })).0, 404);
    // Ids are an account's own: those of another bring nothing back.
    let (status, back) = api(&node, "user2", "POST /api/v1/removed/restore", &json!({ "ids": [expunged["id"]] }));
    assert_eq!((status, &back["restored"]), (200, &json!(0)));
    let (status, back) = api(&node, "admin", "POST /api/v1/removed/restore", &theirs);
    assert_eq!((status, &back["restored"], &back["mailboxes"]), (200, &json!(1), &json!(["INBOX"])));

    let (status, back) = api(&node, "user1", "POST /api/v1/removed/restore", &json!({ "folder": "Work" }));
    assert_eq!((status, &back["restored"], &back["mailboxes"]), (200, &json!(3), &json!(["Work", "Work/2026"])));
    imap.tagged("SELECT Work/2026");
    let flags = imap.tagged("FETCH 1:* (FLAGS)").join("\n");
    assert!(flags.contains("* 2 FETCH") && flags.matches("\\Flagged").count() == 1, "{flags}");
    for wrong in [json!({}), json!({ "ids": [1], "folder": "Work" }), json!({ "folder": "a//b" })] {
        assert_eq!(api(&node, "user1", "POST /api/v1/removed/restore", &wrong).0, 400, "{wrong}");
    }
    assert_eq!(api(&node, "user1", "POST /api/v1/removed/restore", &json!({ "folder": "Never" })).0, 404);

    // By command; then gone for good.
    imap.tagged("SELECT INBOX");
    imap.tagged("DELETE Work/2026");
    assert_eq!(node.json(&["mailbox", "removed", USER, "--folders"])[0]["messages"], 2);
    let back = node.json(&["mailbox", "restore", USER, "--folder", "Work/2026", "--into", "Old"]);
    assert_eq!((&back["restored"], &back["mailboxes"]), (&json!(2), &json!(["Old"])));
    imap.tagged("STORE 1 +FLAGS (\\Deleted)");
    imap.tagged("EXPUNGE");
    assert_eq!(api(&node, "user1", "POST /api/v1/removed/purge", &json!({ "all": true })).1["purged"], 1);
    let (_, found) = api(&node, "user1", "GET /api/v1/removed", &Value::Null);
    assert_eq!((&found["messages"], &found["folders"]), (&json!([]), &json!([])));
    assert_eq!(node.json(&["audit"])["clean"], true);
    on_record(&node, &[&format!("owner-changed{USER}"), "administeredadmin@example.test"]);
}

/// Waits until the log's files hold these words: no message, so no command, tells of what was done to many.
#[track_caller]
fn on_record(node: &Node, words: &[&str]) {
    let files = || std::fs::read_dir(node.dir().join("trail")).unwrap().map(|entry| entry.unwrap().path());
    let holds = |word: &str| {
        files().filter(|path| path.is_file()).any(|path| {
            std::fs::read(path).unwrap_or_default().windows(word.len()).any(|piece| piece == word.as_bytes())
        })
    };
    let missing = || words.iter().find(|word| !holds(word));
    let is_there = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        missing().is_none()
    });
    assert!(is_there, "{:?} is not on record", missing());
}

#[test]
fn an_account_gets_back_what_a_snapshot_has_and_no_more() {
    let node = Node::start();
    fill(&node, &["lost", "moved", "stays", "removed before"]);
    let mut imap = node.sign_in("user1");
    for command in [
        "CREATE Work",
        "SELECT INBOX",
        "COPY 1 Work",
        "STORE 1 +FLAGS (\\Flagged Mine)",
        "STORE 4 +FLAGS (\\Deleted)",
        "EXPUNGE",
    ] {
        imap.tagged(command);
    }
    let place = tempfile::tempdir().unwrap();
    let snapshot = place.path().join("then");
    let dir = snapshot.to_str().unwrap();
    node.json(&["storage", "snapshot", "--to", dir]);
    for command in ["STORE 1 +FLAGS (\\Deleted)", "EXPUNGE", "MOVE 1 Archive", "DELETE Work"] {
        imap.tagged(command);
    }
    node.json(&["mailbox", "purge", USER, "--all"]);
    fill(&node, &["since"]);
    let restore = |more: &[&str]| {
        let told = node.json(&[&["mailbox", "restore", USER, "--from-snapshot", dir], more].concat());
        (told["added"].as_u64().unwrap(), told["present"].as_u64().unwrap())
    };
    // What was moved is there; what came since stays.
    assert_eq!(restore(&[]), (2, 2));
    assert_eq!(restore(&[]), (0, 4));
    imap.tagged("SELECT INBOX");
    let told = imap.tagged("FETCH 1:* (FLAGS ENVELOPE)").join("\n");
    for (subject, times) in [("lost", 1), ("moved", 0), ("stays", 1), ("since", 1), ("removed before", 0)] {
        assert_eq!(told.matches(&format!("\"{subject}\"")).count(), times, "{subject}: {told}");
    }
    assert!(told.contains("\\Flagged Mine"), "{told}");

    assert_eq!(restore(&["--folder", "INBOX", "--into", "Then"]), (3, 0));
    assert_eq!(restore(&["--folder", "INBOX", "--into", "Then"]), (0, 3));
    assert_eq!(node.messages("user1", "Then").len(), 3);
    // As of a time before the expunge that the snapshot has already.
    assert_eq!(restore(&["--at", "1 h"]), (0, 0));
    assert!(
        std::fs::read_dir(node.dir())
            .unwrap()
            .flatten()
            .all(|file| !file.file_name().to_string_lossy().contains(".part"))
    );
    let running = node.dir().to_str().unwrap();
    ortler_fails(
        &["mailbox", "restore", USER, "--from-snapshot", running, "--dir", running],
        1,
        "take a snapshot of it first",
    );
    ortler_fails(&["mailbox", "restore", USER, "--from-snapshot", "/nowhere", "--dir", running], 1, "/nowhere");
    assert_eq!(node.json(&["audit", "--deep"])["clean"], true);
}

/// The content itself goes a day later, when no delivery can be about to refer to it.
#[test]
fn what_a_command_purges_is_out_of_tables_and_search_with_the_next_collection() {
    let node = Node::start();
    for message in [long_letter("marked-by-its-subject", 150_000), letter("kept", "Please keep this.")] {
        assert!(node.send("a@x.example", &[USER], &message).starts_with("250"));
    }
    let mut imap = node.sign_in("user1");
    imap.tagged("SELECT INBOX");
    assert!(imap.tagged("SEARCH BODY \"kind regards\"").contains(&"* SEARCH 1 2".to_owned()));
    let octets = |name: &str| {
        let read = |end: &str| std::fs::read(node.dir().join(format!("{name}.sqlite{end}"))).unwrap_or_default();
        [read(""), read("-wal")].concat()
    };
    let marker = b"marked-by-its-subject";
    let is_marked = || octets("mail").windows(marker.len()).any(|some| some == marker);
    assert!(is_marked() && octets("search").len() > 60_000);
    imap.tagged("STORE 1 +FLAGS (\\Deleted)");
    imap.tagged("EXPUNGE");
    assert_eq!(node.json(&["mailbox", "purge", USER, "--all"])["purged"], 1);
    node.json(&["gc", "--wipe"]);
    assert!(!is_marked());
    assert!(octets("search").len() < 40_000, "the texts are gone and so is their room");
    assert!(imap.tagged("SEARCH BODY \"kind regards\"").contains(&"* SEARCH 1".to_owned()));
    assert_eq!(node.messages("user1", "INBOX").len(), 1);
    assert_eq!(node.json(&["audit"])["clean"], true);
}
