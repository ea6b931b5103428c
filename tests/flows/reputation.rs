//! What earlier mail changes, and lists of senders, over SMTP.

use std::process::Command;
use std::time::Duration;

use mailauth::stub::StubServer;

use crate::harness::{Node, base64, dns, http, letter};

/// Sends as a client with this address; the last reply.
fn send_as(node: &Node, client: &str, from: &str, to: &str, message: &[u8]) -> String {
    let mut smtp = node.connect(25);
    smtp.say(&format!("PROXY TCP4 {client} 198.51.100.1 4444 25")).expect("220");
    smtp.say("EHLO mail.sender.example").expect("250");
    smtp.say(&format!("MAIL FROM:<{from}>")).expect("250");
    smtp.say(&format!("RCPT TO:<{to}>")).expect("250");
    smtp.send_content(message)
}

const RULES: &str = "body PENDULUM_OFFER /pendulum offer/i\nscore PENDULUM_OFFER 4.6\n\
                     header PENDULUM_SALE Subject =~ /pendulum sale/i\nscore PENDULUM_SALE 4.5\n\
                     body PENDULUM_CLICK /click the pendulum/i\nscore PENDULUM_CLICK 4.5\n";

/// A node with these rules and this policy, behind a proxy on loopback.
fn node_with(policy: &str, changes: &[(&str, &str)]) -> Node {
    let prepare = |dir: &std::path::Path| {
        std::fs::write(dir.join("own.cf"), RULES).unwrap();
        std::fs::write(dir.join("policy.toml"), policy).unwrap();
    };
    let filter = "[filter]\nrules = [\"own.cf\"]\npolicy = \"policy.toml\"";
    let proxies = "trusted_proxies = [\"127.0.0.0/8\"]";
    Node::start_configured(prepare, &[&[("[filter]", filter), ("trusted_proxies = []", proxies)], changes].concat())
}

/// Makes what was written down of put-off messages ten minutes older.
fn let_ten_minutes_pass(node: &mut Node) {
    std::thread::sleep(Duration::from_millis(1500));
    node.stop();
    let file = node.dir().join("reputation.sqlite");
    let text = "import sqlite3, sys; sql = sqlite3.connect(sys.argv[1]); \
                sql.execute('UPDATE subject SET first_at = first_at - 600000 WHERE kind = 4'); sql.commit()";
    let done = Command::new("python3").args(["-c", text]).arg(file).status().expect("python3 is installed");
    assert!(done.success());
    node.serve();
}

#[test]
fn suspicious_mail_of_strangers_is_put_off_once() {
    let mut node = node_with("", &[]);
    let offer = letter("a note", "Here is our pendulum offer for you.");
    let send =
        |node: &Node, message: &[u8]| send_as(node, "203.0.113.5", "a@sender.example", "user1@example.test", message);
    assert!(send(&node, &letter("a note", "See you on Thursday.")).starts_with("250"));
    for _ in 0..2 {
        assert!(send(&node, &offer).starts_with("451 4.7.1 Greylisted"));
    }
    let_ten_minutes_pass(&mut node);
    assert!(send(&node, &offer).starts_with("250"));
    assert!(send(&node, &letter("a second note", "One more pendulum offer.")).starts_with("250"), "it is known now");
    let other =
        send_as(&node, "198.51.100.5", "b@other.example", "user1@example.test", &letter("x", "A pendulum offer."));
    assert!(other.starts_with("451 4.7.1"), "{other}");
    assert_eq!(node.messages("user1", "INBOX").len(), 1);
    let held = node.messages("user1", "Junk").len() + node.held_ids("user1").len();
    assert_eq!(held, 2);
}

#[test]
fn lists_let_through_and_keep_out() {
    let policy = "greylist = \"off\"\nallow = [{ sender = \"@friend.example\", proof = \"none\" }, \"proven.example\"]\n\
                  block = [\"unwanted.example\", \"198.51.100.0/24\"]\n";
    let node = node_with(policy, &[]);
    let offer = letter("pendulum sale", "Here is our pendulum offer for you.");
    let send = |client: &str, from: &str, message: &[u8]| send_as(&node, client, from, "user1@example.test", message);
    assert!(send("203.0.113.5", "a@friend.example", &offer).starts_with("250"));
    assert_eq!(node.messages("user1", "INBOX").len(), 1, "let through, whatever its score");
    assert!(send("203.0.113.5", "a@proven.example", &offer).starts_with("250"));
    assert_eq!(node.messages("user1", "INBOX").len(), 1, "nothing proves it");
    for (client, from) in [("203.0.113.5", "a@mail.unwanted.example"), ("198.51.100.77", "a@other.example")] {
        let reply = send(client, from, &letter("a note", "See you on Thursday."));
        assert!(reply.starts_with("550 5.7.1") && reply.contains("wants no mail from this sender"), "{reply}");
    }
    let story = (0..50).find_map(|_| {
        std::thread::sleep(Duration::from_millis(100));
        let found = node.json(&["trace", "--from", "a@friend.example"]);
        let id = found[0]["id"].as_str()?.to_owned();
        Some(node.json(&["trace", &id]).to_string()).filter(|story| story.contains("\"decided\""))
    });
    assert!(story.unwrap().contains("allowed sender @friend.example (system"));
}

#[test]
fn whom_one_wrote_to_is_no_stranger() {
    let zone = StubServer::start("partner.example TXT v=spf1 ip4:203.0.113.5 -all\n");
    let (usual, own) = (dns::address().to_string(), zone.address().to_string());
    let node = node_with("greylist = \"off\"", &[(&usual, &own)]);
    let offer = letter("Re: your question", "Here is the pendulum offer that you wanted.");
    let offer = String::from_utf8(offer)
        .unwrap()
        .replace("From: ", "From: Anna Partner <anna@partner.example>\r\nX-Old-From: ");
    let send = || send_as(&node, "203.0.113.5", "anna@partner.example", "user1@example.test", offer.as_bytes());
    assert!(send().starts_with("250"));
    assert_eq!(node.messages("user1", "INBOX").len(), 0);

    // A partner that is one of ours to the directory, so that the letter goes out of the account and nowhere else.
    node.command(&["domain", "add", "partner.example"]);
    node.command(&["alias", "add", "anna@partner.example", "user2@example.test"]);
    let mut smtp = node.connect(587);
    smtp.expect("220");
    smtp.say("EHLO laptop").expect("250");
    smtp.say(&format!("AUTH PLAIN {}", base64(b"\0user1@example.test\0demo"))).expect("235");
    smtp.say("MAIL FROM:<user1@example.test>").expect("250");
    smtp.say("RCPT TO:<Anna@Partner.example>").expect("250");
    let question =
        b"From: user1@example.test\r\nTo: anna@partner.example\r\nSubject: A question\r\n\r\nDo you have one?\r\n";
    assert!(smtp.send_content(question).starts_with("250"));
    assert!(send().starts_with("250"));
    let inbox = node.messages("user1", "INBOX");
    let text = String::from_utf8_lossy(inbox.last().expect("the answer is let through")).into_owned();
    assert!(text.contains("CONTACT_KNOWN=-3.0"), "{text}");
}

#[test]
fn what_is_surely_spam_is_learned_without_a_word() {
    let node = node_with("greylist = \"off\"", &[]);
    let taught = || {
        let (_, _, metrics) = http(node.port(90), "GET /metrics", "", "");
        metrics
            .lines()
            .filter(|line| line.starts_with("ortler_learned_unasked_total"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let send = |nth: u32| {
        let text = format!("Here is our pendulum offer number {nth}. Click the pendulum to buy.");
        send_as(
            &node,
            "203.0.113.5",
            "a@sender.example",
            "user1@example.test",
            &letter(&format!("pendulum sale {nth}"), &text),
        )
    };
    assert!(
        send_as(&node, "203.0.113.5", "a@sender.example", "user1@example.test", &letter("hi", "A pendulum offer."))
            .starts_with("250")
    );
    for nth in 0..12 {
        let reply = send(nth);
        assert!(reply.starts_with("250") || reply.starts_with("554"), "{reply}");
    }
    let expected = vec!["ortler_learned_unasked_total{class=\"spam\"} 10".to_owned()];
    let told = (0..60).map(|_| {
        std::thread::sleep(Duration::from_millis(100));
        taught()
    });
    assert!(told.into_iter().any(|told| told == expected), "ten of one network a day: {:?}", taught());
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(taught(), expected);
}
