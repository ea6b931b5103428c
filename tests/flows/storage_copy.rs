//! An installation moves to PostgreSQL and back; nobody who uses it notices.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use engine::postgres::Server;

use crate::harness::{Node, letter, ortler, ortler_fails};

/// What an IMAP client knows of a folder.
fn folder(node: &Node, user: &str, name: &str) -> Vec<String> {
    let mut imap = node.sign_in(user);
    let mut known = imap.tagged(&format!("STATUS {name} (MESSAGES UIDNEXT UIDVALIDITY UNSEEN HIGHESTMODSEQ)"));
    imap.tagged(&format!("SELECT {name} (CONDSTORE)"));
    known.extend(imap.tagged("FETCH 1:* (UID FLAGS MODSEQ INTERNALDATE RFC822.SIZE EMAILID THREADID)"));
    known.retain(|line| line.starts_with('*'));
    known
}

fn files(node: &Node, of_target: &Path) -> [String; 4] {
    let from = node.config().display().to_string();
    ["--config".to_owned(), from, "--to".to_owned(), of_target.display().to_string()]
}

#[track_caller]
fn copy(files: &[String], more: &[&str]) -> serde_json::Value {
    let words: Vec<&str> = ["storage", "copy", "--json"].into_iter().chain(files.iter().map(String::as_str)).collect();
    let output = ortler(&[&words, more].concat());
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?} {more:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Kills copies at work, each a little later than the one before.
fn killed_copies(files: &[String]) {
    for tenths in [1, 2, 3, 5, 8] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ortler"));
        command.args(["storage", "copy"]).args(files).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(tenths * 100));
        let _ = child.kill();
        child.wait().unwrap();
    }
}

#[test]
fn an_installation_moves_to_postgresql_and_back() {
    let Some(server) = Server::start() else { return };
    let mut node = Node::start();
    for n in 0..60 {
        let to = format!("user{}@example.test", 1 + n % 3);
        let large = if n == 7 { "Many words. ".repeat(500_000) } else { String::new() };
        let text = letter(&format!("number {n}"), &format!("Text {n}. {large}"));
        assert!(node.send("a@x.example", &[&to], &text).starts_with("250"));
    }
    let mut imap = node.sign_in("user1");
    imap.tagged("CREATE Projects");
    imap.tagged("SELECT INBOX");
    imap.tagged("STORE 1:3 +FLAGS (\\Seen $Kept)");
    imap.tagged("MOVE 2,4 Projects");
    imap.tagged("COPY 5 Projects");
    imap.tagged("STORE 7 +FLAGS (\\Deleted)");
    imap.tagged("EXPUNGE");
    drop(imap);

    // To the server: an earlier snapshot while the node serves, then what has changed.
    let snapshot = tempfile::tempdir().unwrap();
    let early = snapshot.path().join("early");
    let dir = node.dir().to_str().unwrap().to_owned();
    assert!(ortler(&["storage", "snapshot", "--to", early.to_str().unwrap(), "--dir", &dir]).status.success());
    let mut there = Node::on_postgres(&server.url(), "");
    let target = there.config();
    ortler_fails(
        &["storage", "copy", "--dir", early.to_str().unwrap(), "--to", target.to_str().unwrap()],
        1,
        "stop all nodes first",
    );
    there.stop();
    let from_snapshot = ["--dir".into(), early.display().to_string(), "--to".into(), target.display().to_string()];
    killed_copies(&from_snapshot);
    copy(&from_snapshot, &[]);
    assert!(node.send("a@x.example", &["user2@example.test"], &letter("the last", "One more.")).starts_with("250"));
    let known: Vec<Vec<String>> = [("user1", "INBOX"), ("user1", "Projects"), ("user2", "INBOX")]
        .map(|(user, name)| folder(&node, user, name))
        .into();
    assert!(known[0].concat().contains("$Kept") && known[1].len() == 4, "{known:?}");
    ortler_fails(
        &["storage", "copy", "--config", node.config().to_str().unwrap(), "--to", target.to_str().unwrap()],
        1,
        "in use by a running node",
    );
    node.stop();
    let files = files(&node, &target);
    let report = copy(&files, &["--progress"]);
    assert_eq!((&report["blobs"], &report["accounts"]), (&1.into(), &1.into()), "{report}");
    let report = copy(&files, &["--verify"]);
    assert!(report["messages"].as_u64().unwrap() > 60 && report["events"].as_u64().unwrap() > 200, "{report}");
    assert!(there.command(&["audit", "--deep"]).contains("clean      true"));

    there.resume();
    let moved = |node: &Node| -> Vec<Vec<String>> {
        [("user1", "INBOX"), ("user1", "Projects"), ("user2", "INBOX")]
            .map(|(user, name)| folder(node, user, name))
            .into()
    };
    assert_eq!(moved(&there), known);
    assert!(there.command(&["trace", "--to", "user2"]).contains("the last"));
    assert!(there.command(&["mailbox", "removed", "user1@example.test"]).contains("number"));
    assert!(there.send("a@x.example", &["user1@example.test"], &letter("on the server", "New.")).starts_with("250"));
    let known = moved(&there);
    there.stop();
    // What was used since is not written over; a stranger's account is left alone.
    let words: Vec<&str> = ["storage", "copy"].into_iter().chain(files.iter().map(String::as_str)).collect();
    ortler_fails(&words, 1, "@example.test: account 1, changed in the target");

    // And back, over what is left there.
    let back = [files[0].clone(), files[3].clone(), files[2].clone(), files[1].clone()];
    killed_copies(&back);
    copy(&back, &[]);
    copy(&back, &["--verify"]);
    node.resume();
    assert_eq!(moved(&node), known);
    assert!(node.send("a@x.example", &["user1@example.test"], &letter("at home", "New.")).starts_with("250"));
    assert!(node.command(&["trace", "--to", "user1"]).contains("on the server"));
    node.stop();
    assert!(node.command(&["audit", "--deep"]).contains("clean      true"));
    let nowhere: PathBuf = node.config();
    let words = ["storage", "copy", "--config", nowhere.to_str().unwrap(), "--to", nowhere.to_str().unwrap()];
    ortler_fails(&words, 1, "are the same");
}
