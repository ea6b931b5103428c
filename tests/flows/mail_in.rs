//! Mail in over SMTP and LMTP, out over IMAP and POP3.

use crate::harness::{Node, PASSWORD, letter};

const MESSAGE: &[u8] = b"From: Anna <anna@sender.example>\r\nTo: user1@example.test\r\nSubject: Hello\r\n\
    Message-ID: <1@sender.example>\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\n\r\n.a dot at the start\r\n\r\n..two\r\n8 bit: \xc3\xbc\r\n";

#[test]
fn a_message_comes_out_octet_for_octet_below_our_header() {
    let node = Node::start();
    let reply = node.send("anna@sender.example", &["user1@example.test", "user2+news@example.test"], MESSAGE);
    let id = reply.strip_prefix("250 2.0.0 Queued as ").expect(&reply).to_owned();
    for user in ["user1", "user2"] {
        let stored = node.messages(user, "INBOX").remove(0);
        assert!(stored.ends_with(MESSAGE), "{}", String::from_utf8_lossy(&stored));
        let ours = String::from_utf8_lossy(&stored[..stored.len() - MESSAGE.len()]).into_owned();
        assert!(
            ours.starts_with(&format!(
                "Return-Path: <anna@sender.example>\r\nDelivered-To: {user}@example.test\r\nX-Spam-Status: No"
            )),
            "{ours}"
        );
        assert!(
            ours.contains(&format!(" id {id}")) && ours.contains("Authentication-Results: mx.example.test;"),
            "{ours}"
        );
        assert!(!ours.contains("user1@example.test>;"), "one recipient is not told of another: {ours}");
    }
    let mut pop = node.connect(110);
    pop.expect("+OK");
    pop.say("USER user1@example.test").expect("+OK");
    pop.say(&format!("PASS {PASSWORD}")).expect("+OK");
    pop.say("RETR 1").expect("+OK");
    assert!(pop.multiline().ends_with(MESSAGE));
}

#[test]
fn recipients_are_refused_at_rcpt_and_relaying_is_too() {
    let node = Node::start();
    let mut smtp = node.connect(25);
    smtp.expect("220 mx.example.test");
    smtp.say("EHLO x.example").expect("250");
    smtp.say("MAIL FROM:<a@x.example>").expect("250");
    smtp.say("RCPT TO:<nobody@example.test>").expect("550 5.1.1");
    smtp.say("RCPT TO:<a@elsewhere.example>").expect("554 5.7.1");
    smtp.say("RCPT TO:<Postmaster>").expect("250");
    assert!(smtp.send_content(&letter("for the postmaster", "Your server works well.")).starts_with("250"));
    assert_eq!(node.messages("admin", "INBOX").len(), 1);
}

#[test]
fn smuggled_messages_never_arrive() {
    let node = Node::start();
    let evil = "Subject: a\r\n\r\nx\n.\r\nMAIL FROM:<evil@x.example>\r\nRCPT TO:<user2@example.test>\r\nDATA\r\nSubject: smuggled\r\n\r\n";
    for end in ["\n.\n", "\n.\r\n", "\r.\r", "\r\n.\n", "\r\n.\r"] {
        let mut smtp = node.connect(25);
        smtp.expect("220");
        smtp.say("EHLO x").expect("250");
        smtp.say("MAIL FROM:<a@x.example>").expect("250");
        smtp.say("RCPT TO:<user1@example.test>").expect("250");
        smtp.say("DATA").expect("354");
        smtp.send(evil.replace("\n.\r\n", end).as_bytes()).send(b"\r\n.\r\n").expect("550 5.6.11");
        smtp.say("NOOP").expect("250");
    }
    assert!(node.messages("user1", "INBOX").is_empty() && node.messages("user2", "INBOX").is_empty());
}

#[test]
fn lmtp_answers_for_each_recipient() {
    let node = Node::start();
    let mut lmtp = node.connect(24);
    lmtp.expect("220");
    lmtp.say("LHLO x").expect("250");
    lmtp.say("MAIL FROM:<>").expect("250");
    lmtp.say("RCPT TO:<user1@example.test>").expect("250");
    lmtp.say("RCPT TO:<nobody@example.test>").expect("550");
    lmtp.say("RCPT TO:<user2@example.test>").expect("250");
    lmtp.say("DATA").expect("354");
    lmtp.send(&letter("for two", "The same for both.")).say(".").expect("250 2.0.0");
    lmtp.expect("250 2.0.0");
    assert_eq!((node.messages("user1", "INBOX").len(), node.messages("user2", "INBOX").len()), (1, 1));
}

#[test]
fn mail_that_is_not_judged_keeps_the_verdict_of_the_front_end() {
    let node = Node::with(&["--unfiltered"]);
    let judged = [b"X-Spam-Score: 12.3\r\n", MESSAGE].concat();
    let mut lmtp = node.connect(24);
    lmtp.expect("220");
    lmtp.say("LHLO front.example").expect("250");
    lmtp.say("MAIL FROM:<anna@sender.example>").expect("250");
    lmtp.say("RCPT TO:<user1@example.test>").expect("250");
    assert!(lmtp.send_content(&judged).starts_with("250"));
    // Over SMTP anybody could say so.
    assert!(node.send("anna@sender.example", &["user2@example.test"], &judged).starts_with("250"));
    for (user, scores) in [("user1", 1), ("user2", 0)] {
        let stored = node.messages(user, "INBOX").remove(0);
        let stored = String::from_utf8_lossy(&stored);
        assert_eq!(stored.matches("X-Spam-").count(), scores, "{stored}");
        assert!(!stored.contains("Authentication-Results"), "{stored}");
    }
}

#[test]
fn a_big_message_streams_and_one_too_big_is_refused() {
    let node = Node::start();
    let big = [
        letter("big", "A lot of text follows."),
        "words of a long report, line after line, until it is big enough\r\n".repeat(300_000).into_bytes(),
    ]
    .concat();
    assert!(node.send("a@x.example", &["user1@example.test"], &big).starts_with("250"));
    assert!(node.messages("user1", "INBOX")[0].ends_with(&big));
    let mut smtp = node.connect(25);
    smtp.expect("220");
    smtp.say("EHLO x").expect("250");
    smtp.say("MAIL FROM:<a@x.example> SIZE=99999999").expect("552 5.3.4");
}

#[test]
fn trusted_proxies_speak_for_clients() {
    let node = Node::with(&["--trusted-proxy", "127.0.0.0/8"]);
    let mut smtp = node.connect(25);
    smtp.send(b"PROXY TCP4 192.0.2.9 198.51.100.1 4444 25\r\n").expect("220");
    smtp.say("XCLIENT NAME=mail.sender.example ADDR=192.0.2.10").expect("220");
    smtp.say("EHLO mail.sender.example").expect("250");
    smtp.say("MAIL FROM:<a@sender.example>").expect("250");
    smtp.say("RCPT TO:<user1@example.test>").expect("250");
    assert!(smtp.send_content(MESSAGE).starts_with("250"));
    let stored = String::from_utf8_lossy(&node.messages("user1", "INBOX")[0]).into_owned();
    assert!(stored.contains("from mail.sender.example (mail.sender.example [192.0.2.10])"), "{stored}");
    let untrusted = Node::start();
    let mut smtp = untrusted.connect(25);
    smtp.expect("220");
    smtp.say("PROXY TCP4 192.0.2.9 198.51.100.1 4444 25").expect("500");
}

#[test]
fn spam_goes_to_junk_or_quarantine_and_the_worst_is_refused() {
    let node = Node::start();
    let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/spam")).unwrap();
    let mut files: Vec<_> = folder.map(|file| file.unwrap().path()).collect();
    files.sort();
    let files: Vec<_> = files.iter().step_by(5).collect();
    let (mut taken, mut refused) = (0, 0);
    for file in &files {
        let lines = std::fs::read(file).unwrap();
        let text = lines.split(|byte| *byte == b'\n').collect::<Vec<_>>().join(&b"\r\n"[..]);
        match node.send("spammer@spam.example", &["user3@example.test"], &text) {
            reply if reply.starts_with("250") => taken += 1,
            reply if reply.starts_with("554 5.7.1") => refused += 1,
            reply => panic!("{}: {reply}", file.display()),
        }
    }
    let held = [node.messages("user3", "Junk"), node.held("user3")].concat();
    assert_eq!(held.len() + node.messages("user3", "INBOX").len(), taken);
    assert!(refused > 0 && !held.is_empty(), "{refused} refused, {} held", held.len());
    assert!((held.len() + refused) * 10 >= files.len() * 8, "{} of {} spam samples", held.len() + refused, files.len());
    assert!(held.iter().all(|message| String::from_utf8_lossy(message).contains("X-Spam-Flag: YES")));
}
