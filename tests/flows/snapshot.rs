//! A snapshot of a node at work is a node.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{Node, letter, ortler, ortler_fails};

#[track_caller]
fn run(node: &Node, words: &[&str]) -> String {
    let output = ortler(&[words, &["--dir", node.dir().to_str().unwrap()]].concat());
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn deliver(node: &Node, user: &str, n: usize) {
    let text = format!("{} number {n}.\r\n", "Some words that take room. ".repeat(20_000));
    let reply = node.send("a@x.example", &[user], &letter(&format!("n{n}"), &text));
    assert!(reply.starts_with("250"), "{reply}");
}

/// Content that does not pack: twenty of them fill more than one segment.
fn append(node: &Node, n: u64) {
    let mut seed = n;
    let mut word = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:016x}", seed ^ (seed >> 29))
    };
    let lines: String = (0..40_000).map(|_| format!("{} {}\r\n", word(), word())).collect();
    let message = letter(&format!("large {n}"), &lines);
    let mut imap = node.sign_in("user1");
    imap.say(&format!("a APPEND INBOX {{{}+}}", message.len())).send(&message).say("").expect("a OK");
}

#[test]
fn a_snapshot_under_load_starts_and_holds_all_that_was_taken() {
    let mut node = Node::start();
    let folder = tempfile::tempdir().unwrap();
    deliver(&node, "user1@example.test", 0);
    (1..20).for_each(|n| append(&node, n));
    let before = node.messages("user1", "INBOX");
    let stop = AtomicBool::new(false);
    let snapshots: Vec<String> =
        (0..3).map(|n| folder.path().join(format!("s{n}")).to_str().unwrap().to_owned()).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 100;
            while !stop.load(Ordering::Relaxed) {
                deliver(&node, "user2@example.test", n);
                n += 1;
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let mut imap = node.sign_in("user2");
                imap.tagged("SELECT INBOX");
                imap.tagged("STORE 1:* +FLAGS.SILENT (\\Deleted)");
                imap.tagged("EXPUNGE");
                run(&node, &["mailbox", "purge", "user2@example.test", "--all"]);
                run(&node, &["gc"]);
            }
        });
        for to in &snapshots {
            let told = run(&node, &["storage", "snapshot", "--to", to]);
            assert!(told.contains(to), "{told}");
            let segments = told.lines().find_map(|line| line.strip_prefix("segments")).unwrap();
            assert!(segments.trim().parse::<u32>().unwrap() > 1, "{told}");
        }
        stop.store(true, Ordering::Relaxed);
    });
    let dir = node.dir().to_str().unwrap().to_owned();
    ortler_fails(&["storage", "snapshot", "--to", &snapshots[0], "--dir", &dir], 1, "exists already");
    for to in &snapshots {
        let mut copy = Node::start_at(Some(to.into()), &[]);
        assert!(copy.messages("user1", "INBOX") == before, "{to}");
        // Both go on writing; neither harms the other.
        deliver(&copy, "user1@example.test", 200);
        deliver(&node, "user1@example.test", 300);
        assert_eq!(copy.messages("user1", "INBOX").len(), 21);
        assert!(run(&copy, &["trace", "--to", "user1"]).contains("n0"));
        copy.stop();
        assert!(run(&copy, &["audit", "--deep"]).contains("clean      true"));
    }
    assert!(run(&node, &["audit", "--deep"]).contains("clean      true"));
    // Of a stopped node, too.
    node.stop();
    let last = folder.path().join("last");
    run(&node, &["storage", "snapshot", "--to", last.to_str().unwrap()]);
    assert_eq!(Node::start_at(Some(last), &[]).messages("user1", "INBOX").len(), 23);
}
