//! Submission: who may send, and as whom.

use crate::harness::{Node, base64, ortler};

fn signed_in(node: &Node) -> crate::harness::Conversation {
    let mut smtp = node.connect(587);
    smtp.expect("220");
    smtp.say("EHLO laptop").expect("250");
    smtp.say(&format!("AUTH PLAIN {}", base64(b"\0user1@example.test\0demo"))).expect("235 2.7.0");
    smtp
}

#[test]
fn only_signed_in_users_send_and_only_as_themselves() {
    let node = Node::start();
    let mut smtp = node.connect(587);
    smtp.expect("220");
    smtp.say("EHLO laptop").expect("250");
    smtp.say("MAIL FROM:<user1@example.test>").expect("530 5.7.0");
    smtp.say(&format!("AUTH PLAIN {}", base64(b"\0user1@example.test\0wrong"))).expect("535 5.7.8");
    let mut smtp = signed_in(&node);
    smtp.say("MAIL FROM:<user2@example.test>").expect("553 5.7.1");
    smtp.say("MAIL FROM:<user1@example.test>").expect("250");
    smtp.say("RCPT TO:<user2@example.test>").expect("250");
    assert!(smtp.send_content(b"From: User <user1@example.test>\r\nTo: user2@example.test\r\nSubject: Lunch on Friday\r\n\r\nShall we have lunch on Friday?\r\n").starts_with("250"));
    let stored = String::from_utf8_lossy(&node.messages("user2", "INBOX")[0]).into_owned();
    assert!(
        stored.contains("\r\nMessage-ID: <") && stored.contains("\r\nDate: "),
        "missing fields are added: {stored}"
    );
    assert!(
        stored.contains("with ESMTPA") && !stored.contains("127.0.0.1"),
        "the sender's address stays private: {stored}"
    );
}

#[test]
fn a_sign_in_is_traced_to_its_account() {
    let mut node = Node::start();
    let mut smtp = signed_in(&node);
    smtp.say("MAIL FROM:<user1@example.test>").expect("250");
    smtp.say("RCPT TO:<user2@example.test>").expect("250");
    let reply = smtp.send_content(b"From: user1@example.test\r\nSubject: Lunch\r\n\r\nShall we?\r\n");
    let id = reply.trim_end().rsplit(' ').next().unwrap().to_owned();
    node.stop();
    let told = ortler(&["trace", &id, "--json", "--dir", node.dir().to_str().unwrap()]).stdout;
    let story: serde_json::Value = serde_json::from_slice(&told).unwrap();
    let login = story.as_array().unwrap().iter().find(|event| event["kind"] == "login-accepted").unwrap();
    assert_eq!(login["party"], "user1@example.test");
}
