//! What mail systems tell each other: who sent in a domain's name, how TLS went, who complains.

use base::{Clock as _, SystemClock};
use mailauth::stub::StubServer;
use serde_json::Value;

use super::queue::{node_with, wait_until};
use crate::harness::{Node, Receiver, base64, http, letter};

const ZONE: &str = "
    d.test MX 10 mx.d.test
    mx.d.test A 127.0.0.1
    d.test TXT v=spf1 ip4:127.0.0.1 -all
    _dmarc.d.test TXT v=DMARC1; p=reject; sp=none; adkim=s; rua=mailto:agg@d.test,mailto:agg@other.test
    elsewhere.test TXT v=spf1 -all
    _dmarc.elsewhere.test TXT v=DMARC1; p=none; rua=mailto:agg@other.test
";

fn today() -> String {
    mail::date::format_utc(SystemClock.utc())[..10].to_owned()
}

fn rows(node: &Node, arguments: &[&str]) -> Vec<Value> {
    node.json(&[&["reports"], arguments].concat()).as_array().unwrap().clone()
}

fn from(author: &str, subject: &str) -> Vec<u8> {
    let text = String::from_utf8(letter(subject, "x")).unwrap();
    let rest: String = text.split_inclusive("\r\n").filter(|line| !line.starts_with("From: ")).collect();
    format!("From: <{author}>\r\n{rest}").into_bytes()
}

#[test]
fn domains_hear_who_sent_in_their_name() {
    let (zone, receiver) = (StubServer::start(ZONE), Receiver::kind());
    let reading = "[reports]\nread = [\"user2@example.test\"]\norganization = \"Example & Co\"";
    let node = node_with(&zone, receiver.port(), reading);
    for _ in 0..2 {
        let reply = node.send("ann@d.test", &["user1@example.test"], &from("ann@d.test", "Real"));
        assert!(reply.starts_with("250"), "{reply}");
    }
    // Of a domain below: what it asks for is none.
    let reply = node.send("x@elsewhere.test", &["user1@example.test"], &from("ann@sub.d.test", "Forged"));
    assert!(reply.starts_with("250"), "{reply}");
    node.send("x@elsewhere.test", &["user1@example.test"], &from("x@elsewhere.test", "Not asked for"));
    let told = node.json(&["reports", "send", &today()]);
    // Whoever else a domain names must say that it wants them.
    assert_eq!(told["reports"], 1, "{told}: {}", node.log());
    let taken = receiver.wait_for(1).pop().unwrap();
    assert_eq!(taken.rcpt, ["RCPT TO:<agg@d.test>"]);
    assert!(taken.mail.starts_with("MAIL FROM:<admin@example.test>"), "{}", taken.mail);
    assert!(
        taken.content.contains("Subject: Report Domain: d.test Submitter: example.test Report-ID: <"),
        "{}",
        taken.content
    );
    assert_eq!(node.json(&["reports", "send", &today()])["reports"], 0, "once a day");

    // The same as somebody who gets it would read it: by an address that is watched, and from a file.
    let reply = node.send("admin@example.test", &["user2@example.test"], taken.content.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    wait_until("the report in the list", || !rows(&node, &["list"]).is_empty());
    let file = node.dir().join("report.eml");
    std::fs::write(&file, &taken.content).unwrap();
    node.command(&["reports", "read", file.to_str().unwrap()]);
    let listed = rows(&node, &["list", "dmarc", "--domain", "d.test"]);
    assert_eq!(listed.len(), 1, "one that is there already is kept once: {listed:?}");
    assert_eq!(
        (&listed[0]["submitter"], &listed[0]["passed"], &listed[0]["failed"]),
        (&"Example & Co".into(), &2.into(), &1.into())
    );
    let sums = rows(&node, &["show", "dmarc", "d.test"]);
    let told: Vec<String> = sums
        .iter()
        .map(|row| {
            format!(
                "{} {} {} {} {}",
                row["author"].as_str().unwrap(),
                row["ip"].as_str().unwrap(),
                row["messages"],
                row["spf"],
                row["failed"]
            )
        })
        .collect();
    assert_eq!(told, ["d.test 127.0.0.1 2 2 0", "sub.d.test 127.0.0.1 1 0 1"]);

    // What cannot be read is told, and the API shows the same.
    std::fs::write(&file, taken.content.replace("H4sI", "AAAA")).unwrap();
    let config = node.config();
    let failed =
        crate::harness::ortler(&["reports", "read", file.to_str().unwrap(), "--config", config.to_str().unwrap()]);
    assert_eq!(failed.status.code(), Some(0), "no report at all is an ordinary message");
    let headers = format!("Authorization: Basic {}\r\n", base64(b"admin@example.test:demo"));
    let (status, _, body) = http(node.port(80), "GET /api/v1/reports/dmarc/d.test", &headers, "");
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["rows"], Value::from(sums));
}

#[test]
fn complaints_are_shown() {
    let (zone, receiver) = (StubServer::start(ZONE), Receiver::kind());
    let node = node_with(&zone, receiver.port(), "[reports]\nread = [\"User2@example.test\"]");
    let complaint = "From: <abuse@d.test>\r\nTo: user2@example.test\r\nMIME-Version: 1.0\r\nSubject: Abuse\r\n\
        Content-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n--b\r\n\r\nSee below.\r\n--b\r\n\
        Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nVersion: 1\r\nUser-Agent: X\r\n\
        Original-Mail-From: <user1@example.test>\r\nArrival-Date: ";
    let now = mail::date::format_rfc5322(SystemClock.utc());
    let rest = "\r\n\r\n--b\r\nContent-Type: text/rfc822-headers\r\n\r\nSubject: Offer\r\nMessage-ID: <7@example.test>\r\n\r\n--b--\r\n";
    let reply = node.send("abuse@d.test", &["user2@example.test"], format!("{complaint}{now}{rest}").as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    wait_until("the complaint", || !rows(&node, &["list", "abuse"]).is_empty());
    let shown = rows(&node, &["show", "abuse", "example.test"]);
    assert_eq!((&shown[0]["message"], &shown[0]["from"]), (&"<7@example.test>".into(), &"user1@example.test".into()));
    node.command_fails(&["reports", "list", "gossip"], "is no kind");
}
