//! Quota of accounts, domains and customers, from the command line to each protocol's answer.

use crate::harness::{Node, PASSWORD, letter};

const USER: &str = "user1@example.test";

fn send(node: &Node, to: &str) -> String {
    let mut smtp = node.connect(25);
    smtp.expect("220");
    smtp.say("EHLO x.example").expect("250");
    smtp.say("MAIL FROM:<a@x.example>").expect("250");
    let answer = smtp.say(&format!("RCPT TO:<{to}>")).line();
    if answer.starts_with("250") { smtp.send_content(&letter("a letter", "This is the text.")) } else { answer }
}

#[test]
fn a_full_mailbox_is_told_at_rcpt_and_to_clients() {
    let node = Node::start();
    let account = node.json(&["account", "set", USER, "--quota", "2GB", "--messages", "2"]);
    assert_eq!(
        (&account["quota"], &account["quota_messages"], &account["used"]),
        (&"2 GB".into(), &2.into(), &0.into())
    );
    assert!(send(&node, USER).starts_with("250") && send(&node, USER).starts_with("250"));
    assert_eq!(node.json(&["account", "show", USER])["used_messages"], 2);

    let mut smtp = node.connect(25);
    smtp.expect("220");
    smtp.say("EHLO x.example").expect("250");
    smtp.say("MAIL FROM:<a@x.example>").expect("250");
    smtp.say(&format!("RCPT TO:<{USER}>")).expect("452 4.2.2");
    smtp.say("RCPT TO:<user2@example.test>").expect("250");
    let mut imap = node.sign_in("user1");
    let told = imap.tagged("GETQUOTAROOT INBOX").join("\n");
    assert!(told.contains("* QUOTA \"account\" (STORAGE ") && told.contains(" MESSAGE 2 2)"), "{told}");
    imap.say("x APPEND INBOX {6+}\r\nA: 1\r\n").expect("x NO [OVERQUOTA]");
    imap.tagged("SELECT INBOX");
    imap.tagged("STORE 1 +FLAGS (\\Deleted)");
    imap.tagged("EXPUNGE");
    smtp.say(&format!("RCPT TO:<{USER}>")).expect("250");
    node.json(&["account", "set", USER, "--messages", "none"]);
    assert!(send(&node, USER).starts_with("250") && send(&node, USER).starts_with("250"));
    assert_eq!(imap.tagged("GETQUOTA \"account\"").iter().filter(|line| line.contains("MESSAGE")).count(), 0);
}

#[test]
fn a_domain_and_a_customer_share_one_limit() {
    let node = Node::start();
    for words in [
        &["tenant", "add", "seller", "--reseller"][..],
        &["tenant", "add", "buyer", "--parent", "seller"],
        &["domain", "set", "example.test", "--tenant", "buyer"],
        &["domain", "add", "other.test", "--tenant", "buyer"],
    ] {
        node.json(words);
    }
    assert!(send(&node, USER).starts_with("250"));
    let domain = node.json(&["domain", "set", "example.test", "--messages", "4"]);
    assert_eq!((&domain["quota_messages"], &domain["used_messages"]), (&4.into(), &1.into()));
    let sent: Vec<String> = (0..8).map(|nth| send(&node, &format!("user{}@example.test", nth % 4 + 1))).collect();
    assert_eq!(sent.iter().filter(|answer| answer.starts_with("250")).count(), 3, "{sent:?}");
    assert!(sent.iter().all(|answer| answer.starts_with("250") || answer.starts_with("452 4.2.2")), "{sent:?}");

    // An account made now is within the limits, and a reseller's holds for its customers.
    node.json(&["domain", "set", "example.test", "--messages", "none"]);
    assert_eq!(node.json(&["tenant", "set", "seller", "--quota", "1GB", "--messages", "6"])["used_messages"], 4);
    let words = ["account", "add", "new@other.test", "--password-hash", &format!("{{PLAIN}}{PASSWORD}")];
    node.json(&words);
    let sent: Vec<String> = (0..6).map(|_| send(&node, "new@other.test")).collect();
    assert_eq!(sent.iter().filter(|answer| answer.starts_with("250")).count(), 2, "{sent:?}");
    let tenant = node.json(&["tenant", "show", "seller"]);
    assert_eq!((&tenant["used_messages"], &tenant["quota"]), (&6.into(), &"1 GB".into()));
    assert_eq!(node.json(&["audit"])["clean"], true);

    // What a domain takes with it to nobody is no longer the customer's.
    node.json(&["domain", "set", "example.test", "--no-tenant"]);
    assert_eq!(node.json(&["tenant", "show", "seller"])["used_messages"], 2);
    assert!(send(&node, USER).starts_with("250"));
    assert_eq!(node.json(&["audit"])["clean"], true);
}
