//! Large messages, many at a time: memory stays within its budget, and every octet comes back.

use std::time::Duration;

use crate::harness::{Node, skip, wants_all};

/// Peak of resident memory so far, in octets.
fn peak(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// A message of `size` octets that hardly compresses, told apart by `seed`.
fn message(seed: u64, size: usize) -> Vec<u8> {
    static LINES: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let lines = LINES.get_or_init(|| {
        let mut state = 1u64;
        let mut line = || {
            let letters = (0..76).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[(state >> 58) as usize]
            });
            letters.chain(*b"\r\n").collect::<Vec<u8>>()
        };
        (0..20_000).flat_map(|_| line()).collect()
    });
    let mut out = format!("From: a@x.example\r\nSubject: large {seed}\r\nMIME-Version: 1.0\r\n\r\n").into_bytes();
    let (late, early) = lines.split_at(usize::try_from(seed).unwrap() * 78);
    while out.len() < size {
        out.extend_from_slice(early);
        out.extend_from_slice(late);
    }
    out.truncate(size - 2);
    out.extend_from_slice(b"\r\n");
    out
}

/// They wait for each other.
const PATIENCE: Duration = Duration::from_secs(500);
/// Sessions of each kind that bring a large message at the same time.
const SESSIONS: u64 = 8;
const APPENDED: usize = 50 * 1000 * 1000;
const SENT: usize = 45 * 1000 * 1000;
/// The memory given to messages, a quarter more for those that still come, and as much again for all the rest: code,
/// drafts, caches. Half of what the messages take together.
const GROWTH_MAX: u64 = 384 << 20;

#[test]
fn many_large_messages_at_once_stay_within_the_memory_for_messages() {
    if !wants_all() {
        return skip("messages of 50 MB are sent with ORTLER_TESTS=all");
    }
    let node = Node::start_configured(|_| (), &[("[smtp]", "[smtp]\nmemory_for_messages = \"128 MB\"")]);
    node.send("a@x.example", &["user1@example.test"], b"Subject: first\r\n\r\nwarm\r\n");
    let before = peak(&node);
    std::thread::scope(|threads| {
        for n in 0..SESSIONS {
            let node = &node;
            threads.spawn(move || {
                let mut imap = node.sign_in("user1").patient(PATIENCE);
                imap.say(&format!("a APPEND Archive {{{APPENDED}}}")).expect("+");
                imap.send(&message(n, APPENDED)).say("").expect("a OK");
            });
            threads.spawn(move || {
                let sent = message(100 + n, SENT);
                let mut smtp = node.connect(25).patient(PATIENCE);
                smtp.expect("220");
                smtp.say("EHLO client.example.org").expect("250");
                smtp.say("MAIL FROM:<a@x.example>").expect("250");
                smtp.say("RCPT TO:<user2@example.test>").expect("250");
                let reply = smtp.send_content(&sent);
                assert!(reply.starts_with("250"), "{reply}");
            });
        }
    });
    let grown = peak(&node) - before;
    println!("peak memory grew by {} MiB", grown >> 20);
    assert!(grown < GROWTH_MAX, "peak memory grew by {} MiB", grown >> 20);

    let appended = node.messages("user1", "Archive");
    // Such noise may well look like junk.
    let sent = ["INBOX", "Junk"].map(|mailbox| node.messages("user2", mailbox)).concat();
    assert_eq!((appended.len() as u64, sent.len() as u64), (SESSIONS, SESSIONS));
    for n in 0..SESSIONS {
        assert!(appended.contains(&message(n, APPENDED)), "{n}");
        let body = message(100 + n, SENT);
        assert!(sent.iter().any(|message| message.ends_with(&body)), "{n}");
    }
    let report = crate::harness::ortler(&["audit", "--dir", node.dir().to_str().unwrap()]);
    assert!(report.status.success(), "{}", String::from_utf8_lossy(&report.stdout));
}
