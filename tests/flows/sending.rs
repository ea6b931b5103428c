//! An account whose password was stolen is slowed down, held and locked, and its owner is told.

use crate::harness::{Conversation, Node, base64, letter, ortler};

fn signed_in(node: &Node) -> Conversation {
    let mut smtp = node.connect(587);
    smtp.expect("220");
    smtp.say("EHLO laptop").expect("250");
    smtp.say(&format!("AUTH PLAIN {}", base64(b"\0user1@example.test\0demo"))).expect("235");
    smtp
}

/// Names addresses that do not exist, as thieves with old lists do.
fn name_nobody(node: &Node, count: u32) {
    let mut smtp = signed_in(node);
    smtp.say("MAIL FROM:<user1@example.test>").expect("250");
    for nth in 0..count {
        smtp.say(&format!("RCPT TO:<nobody{nth}@example.test>")).expect("550 5.1.1");
    }
}

/// Sends a harmless letter; the last reply, or that to MAIL if it is refused there.
fn send(node: &Node) -> String {
    let mut smtp = signed_in(node);
    let reply = smtp.say("MAIL FROM:<user1@example.test>").line();
    if !reply.starts_with("250") {
        return reply;
    }
    smtp.say("RCPT TO:<user2@example.test>").expect("250");
    let text = letter("Lunch on Friday", "Shall we have lunch on Friday?");
    smtp.send_content(String::from_utf8(text).unwrap().replace("anna@sender.example", "user1@example.test").as_bytes())
}

#[test]
fn an_account_that_sends_as_a_thief_is_slowed_and_held() {
    let node = Node::start_with_policy("outbound-slow-score = 2.5\noutbound-hold-score = 5.5");
    name_nobody(&node, 4);
    assert!(send(&node).starts_with("250"));
    // Twenty in all: three points.
    name_nobody(&node, 16);
    let reply = send(&node);
    assert!(reply.starts_with("450 4.7.1"), "it is to go slowly: {reply}");
    assert_eq!(node.messages("user2", "INBOX").len(), 1);
    name_nobody(&node, 49);
    assert!(send(&node).starts_with("250"));
    assert_eq!((node.messages("user2", "INBOX").len(), node.held_ids("user2").len()), (1, 1));
    let story = (0..50).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let found = node.json(&["trace", "--to", "user2@example.test"]);
        let id = found[0]["id"].as_str()?.to_owned();
        Some(node.json(&["trace", &id]).to_string()).filter(|story| story.contains("\"decided\""))
    });
    let story = story.unwrap();
    assert!(story.contains("sent as with a stolen password") && story.contains("SENDING_UNKNOWN"), "{story}");
}

#[test]
fn what_the_api_says_of_sending_counts() {
    let node = Node::start();
    let edits = r#"{"edits":[{"option":"outbound-slow-score","value":"2.5"}]}"#;
    assert_eq!(node.api("admin", "PATCH /api/v1/policy?system=true", edits).0, 200);
    name_nobody(&node, 20);
    let reply = send(&node);
    assert!(reply.starts_with("450 4.7.1"), "it is to go slowly: {reply}");
    let edits = r#"{"edits":[{"option":"outbound-slow-score","value":null},{"option":"sending-hour","value":"1"}]}"#;
    assert_eq!(node.api("admin", "PATCH /api/v1/policy?system=true", edits).0, 200);
    assert!(send(&node).starts_with("250"));
    let reply = send(&node);
    assert!(reply.starts_with("45") || reply.starts_with("55"), "it has sent what it may: {reply}");
}

#[test]
fn an_account_is_locked_until_its_password_is_changed() {
    let node = Node::start_with_policy("outbound-slow-score = 3\noutbound-hold-score = 4\noutbound-lock-score = 4.5");
    let shown = || node.json(&["account", "show", "user1@example.test"]);
    assert_eq!(shown()["sending"], "allowed");
    name_nobody(&node, 49);
    name_nobody(&node, 20);
    let reply = send(&node);
    assert!(reply.starts_with("550 5.7.1") && reply.contains("locked"), "{reply}");
    let reply = send(&node);
    assert!(reply.starts_with("550 5.7.1"), "at MAIL: {reply}");
    let is_told = (0..50).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let found = node.json(&["trace", "--from", "user1@example.test"]);
        let ids: Vec<&str> = found.as_array().unwrap().iter().filter_map(|row| row["id"].as_str()).collect();
        ids.iter().any(|id| node.json(&["trace", id]).to_string().contains("\"sending-locked\""))
    });
    assert!(is_told, "the message's story says that it locked the account");
    assert_eq!(shown()["sending"], "locked");
    assert!(shown()["sending_locked_by"].as_str().unwrap().contains("stolen password"), "{}", shown());

    // Its owner still reads, and is told; so is who looks after the system.
    for user in ["user1", "admin"] {
        let inbox = node.messages(user, "INBOX");
        let notice = String::from_utf8_lossy(inbox.last().expect("a notice")).into_owned();
        assert!(notice.contains("Sending locked: user1@example.test") && notice.contains("Passwort"), "{notice}");
        assert_eq!(inbox.len(), 1, "told once");
    }
    let dir = node.dir().to_str().unwrap();
    let set = ortler(&["account", "set", "user1@example.test", "--sending", "allowed", "--dir", dir]);
    assert!(set.status.success());
    assert!(send(&node).starts_with("250"), "an administrator lets it, and what was before is forgotten");
    node.command(&["account", "set", "user1@example.test", "--sending", "locked"]);
    assert!(send(&node).starts_with("550 5.7.1"));
    assert_eq!(shown()["sending_locked_by"], "an administrator");
    // The same password, hashed anew: a new one all the same.
    node.command(&["account", "set", "user1@example.test", "--password-hash", "{PLAIN}demo"]);
    assert!(send(&node).starts_with("250"));
}

#[test]
fn mail_that_is_not_judged_is_not_held_for_how_it_is_sent() {
    let node = Node::with(&["--unfiltered"]);
    name_nobody(&node, 49);
    name_nobody(&node, 49);
    assert!(send(&node).starts_with("250"));
    assert_eq!(node.messages("user2", "INBOX").len(), 1);
}
