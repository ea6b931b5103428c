//! Running a node: health, metrics, stopping, coming back, a full disk.

use std::process::Command;

use crate::harness::{Clamd, Node, http, letter, skip, wants_all};

#[test]
fn a_second_start_finds_everything_again() {
    let mut node = Node::start();
    node.send("a@x.example", &["user1@example.test"], &letter("kept", "Please keep this."));
    let validity = |node: &Node| {
        let lines = node.sign_in("user1").tagged("STATUS INBOX (UIDVALIDITY UIDNEXT MESSAGES)");
        lines[0].clone()
    };
    let before = validity(&node);
    node.stop();
    node.resume();
    assert_eq!(validity(&node), before);
    assert_eq!(node.messages("user1", "INBOX").len(), 1);
}

#[test]
fn health_and_metrics_are_told() {
    let node = Node::start();
    node.send("a@x.example", &["user1@example.test"], &letter("x", "See you at the meeting."));
    for path in ["/healthz", "/readyz"] {
        assert_eq!(http(node.port(90), &format!("GET {path}"), "", "").0, 200);
    }
    let (_, _, metrics) = http(node.port(90), "GET /metrics", "", "");
    assert!(metrics.contains("ortler_messages_delivered_total{outcome=\"delivered\"} 1"), "{metrics}");
}

#[test]
fn a_stop_lets_the_transaction_under_way_finish() {
    let mut node = Node::start();
    let mut smtp = node.connect(25);
    smtp.expect("220");
    smtp.say("HELO x").expect("250");
    smtp.say("MAIL FROM:<a@x.example>").expect("250");
    smtp.say("RCPT TO:<user1@example.test>").expect("250");
    smtp.say("DATA").expect("354");
    let mut idle = node.connect(143);
    idle.expect("* OK");
    let stopper = std::thread::spawn(move || {
        node.stop();
        node
    });
    assert!(idle.line().starts_with("* BYE"));
    smtp.send(&letter("last", "The last one.")).say(".").expect("250");
    smtp.expect("421");
    let mut node = stopper.join().unwrap();
    node.resume();
    assert_eq!(node.messages("user1", "INBOX").len(), 1);
}

#[test]
fn a_full_disk_defers_and_heals() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("small");
    std::fs::create_dir(&at).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=400m", "tmpfs"]).arg(&at).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return skip("a small file system can be mounted by root only");
    }
    struct Unmount(std::path::PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let _unmount = Unmount(at.clone());
    let node = Node::start_at(Some(at.clone()), &[]);
    let message = letter("full", "Some words.");
    assert!(node.send("a@x.example", &["user1@example.test"], &message).starts_with("250"));
    let ballast = at.join("ballast");
    // Ends when the file system is full.
    let _ = Command::new("dd").args(["if=/dev/zero", "bs=1M"]).arg(format!("of={}", ballast.display())).output();
    let mut taken = 1;
    let reply = loop {
        match node.send(
            "a@x.example",
            &["user1@example.test"],
            &letter("more", &"Some more words for you. ".repeat(30)),
        ) {
            reply if reply.starts_with("250") && taken < 5000 => taken += 1,
            reply => break reply,
        }
    };
    assert!(reply.starts_with("452 4.3.1"), "{reply} after {taken}");
    std::fs::remove_file(&ballast).unwrap();
    let healed = (0..50).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(200));
        node.send("a@x.example", &["user1@example.test"], &message).starts_with("250")
    });
    assert!(healed, "{}", node.log());
    assert_eq!(node.messages("user1", "INBOX").len(), taken + 1);
}

#[test]
fn viruses_are_refused_by_clamd() {
    if !wants_all() {
        return skip("clamd is asked with ORTLER_TESTS=all");
    }
    let clamd = Clamd::start(&[("Test.Virus", b"harmless-test-virus-pattern")]);
    let socket = clamd.socket();
    let node = Node::with(&["--clamd", socket.to_str().unwrap()]);
    assert!(node.send("a@x.example", &["user1@example.test"], &letter("x", "Nothing bad in here.")).starts_with("250"));
    let reply = node.send("a@x.example", &["user1@example.test"], &letter("x", "harmless-test-virus-pattern"));
    assert!(reply.starts_with("554 5.7.1"), "{reply}");
    drop(clamd);
    // Of the same content as before the verdict would be known.
    let reply = node.send("a@x.example", &["user1@example.test"], &letter("x", "Nothing bad in here either."));
    assert!(reply.starts_with("451"), "{reply}");
}
