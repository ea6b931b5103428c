//! The classifier is taught by commands and by what owners do with their mail.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::{Node, letter, ortler, ortler_fails};

const TRIES: usize = 100;

/// Messages of ours, every second to learn from; the others are never learned.
fn corpus(kind: &str) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(kind);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let (learned, other): (Vec<_>, Vec<_>) = files.into_iter().enumerate().partition(|(at, _)| at % 2 == 0);
    let paths = |part: Vec<(usize, PathBuf)>| part.into_iter().map(|(_, path)| path).take(60).collect();
    (paths(learned), paths(other))
}

/// A folder with copies of the files.
fn folder(files: &[PathBuf]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        std::fs::copy(file, folder.path().join(file.file_name().unwrap())).unwrap();
    }
    folder
}

fn scores(dir: &str, files: &[PathBuf]) -> Vec<f64> {
    let list = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(list.path(), files.iter().map(|file| format!("{}\n", file.display())).collect::<String>()).unwrap();
    let output = ortler(&["scan", "--tsv", list.path().to_str().unwrap(), "--dir", dir]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout).unwrap();
    told.lines().map(|line| line.split('\t').nth(1).unwrap().parse().unwrap()).collect()
}

/// How many the classifier takes for ham, and for spam.
fn opinions(dir: &str, files: &[PathBuf]) -> (usize, usize) {
    let files: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
    let output = ortler(&[&["scan", "--json", "--dir", dir], files.as_slice()].concat());
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let count = |name: &str| {
        let has = |one: &&serde_json::Value| one["findings"].as_array().unwrap().iter().any(|f| f["name"] == name);
        told.as_array().unwrap().iter().filter(has).count()
    };
    (count("CLASSIFIER_HAM"), count("CLASSIFIER_SPAM"))
}

#[test]
fn commands_teach_a_node_whether_it_runs_or_not() {
    let mut node = Node::start();
    let dir = node.dir().to_str().unwrap().to_owned();
    let ((ham, other_ham), (spam, other_spam)) = (corpus("ham"), corpus("spam"));
    let (ham_folder, spam_folder) = (folder(&ham), folder(&spam));
    let (ham_path, spam_path) = (ham_folder.path().to_str().unwrap(), spam_folder.path().to_str().unwrap());
    let before = scores(&dir, &other_spam);

    let told = node.json(&["learn", "ham", ham_path]);
    assert_eq!((told["new"].as_u64(), told["skipped"].as_u64()), (Some(ham.len() as u64), Some(0)));
    node.stop();
    let told = node.json(&["learn", "spam", spam_path]);
    assert_eq!(told["new"].as_u64(), Some(spam.len() as u64));
    let after = scores(&dir, &other_spam);
    let (ham_as_ham, ham_as_spam) = opinions(&dir, &other_ham);
    let (spam_as_ham, spam_as_spam) = opinions(&dir, &other_spam);
    assert!(spam_as_spam > 4 * spam_as_ham, "spam that it never saw: {spam_as_spam} against {spam_as_ham}");
    assert!(ham_as_ham > 4 * ham_as_spam, "ham that it never saw: {ham_as_ham} against {ham_as_spam}");
    node.resume();
    assert_eq!(scores(&dir, &other_spam), after, "running or not, it knows the same");

    let told = node.json(&["learn", "spam", spam_path]);
    assert_eq!((told["new"].as_u64(), told["known"].as_u64()), (Some(0), Some(spam.len() as u64)));
    for (class, path) in [("ham", ham_path), ("spam", spam_path)] {
        node.command(&["learn", class, path, "--forget"]);
    }
    assert_eq!(scores(&dir, &other_spam), before, "forgotten without a trace");

    ortler_fails(&["learn", "ham", "/no/such/folder", "--dir", &dir], 1, "/no/such/folder");
    ortler_fails(
        &["learn", "ham", ham_path, "--account", "nobody@example.test", "--dir", &dir],
        1,
        "nobody@example.test",
    );
}

/// The header of the newest message in a mailbox.
fn newest(node: &Node, user: &str, mailbox: &str) -> String {
    let messages = node.messages(user, mailbox);
    let text = String::from_utf8_lossy(messages.last().unwrap()).into_owned();
    text.split("\r\n\r\n").next().unwrap().to_owned()
}

#[test]
fn what_owners_move_into_junk_counts_for_them() {
    let node = Node::start();
    // What is common in all mail has to be known first.
    for (class, (files, _)) in [("ham", corpus("ham")), ("spam", corpus("spam"))] {
        node.command(&["learn", class, folder(&files).path().to_str().unwrap()]);
    }
    let text = "Our quartz pendulum lectures resume on Thursday with a lantern slide evening.";
    let send = |subject: &str| {
        let both = ["user1@example.test", "user2@example.test"];
        assert!(node.send("club@sender.example", &both, &letter(subject, text)).starts_with("250"));
    };
    send("Pendulum evening one");
    let mut imap = node.sign_in("user1");
    imap.tagged("SELECT INBOX");
    imap.tagged("MOVE 1 Junk");
    until_named(&node, "CLASSIFIER_OWN_SPAM", || send("Pendulum evening again"));
    assert!(!newest(&node, "user2", "INBOX").contains("CLASSIFIER_OWN"), "another's word is not theirs");

    // Moved back, it was never said.
    let mut imap = node.sign_in("user1");
    imap.tagged("SELECT Junk");
    imap.tagged("MOVE 1 INBOX");
    until_named(&node, "CLASSIFIER_OWN_HAM", || send("Pendulum evening once more"));
}

/// Sends until the newest message has the finding.
fn until_named(node: &Node, finding: &str, send: impl Fn()) {
    for _ in 0..TRIES {
        send();
        if newest(node, "user1", "INBOX").contains(finding) {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("no {finding}: {}", newest(node, "user1", "INBOX"));
}

#[test]
fn a_message_that_cannot_be_learned_keeps_no_other_back() {
    let node = Node::start();
    for (class, (files, _)) in [("ham", corpus("ham")), ("spam", corpus("spam"))] {
        node.command(&["learn", class, folder(&files).path().to_str().unwrap()]);
    }
    let text = "Our quartz pendulum lectures resume on Thursday with a lantern slide evening.";
    let send = |subject: &str| {
        assert!(node.send("club@sender.example", &["user1@example.test"], &letter(subject, text)).starts_with("250"));
    };
    // In a file of its own, which then cannot be read: there is a folder in its place.
    let pages: String =
        (0..120_000).map(|number| format!("{number}: a page that nobody reads, of {}\r\n", number * 7)).collect();
    let sent = node.send("club@sender.example", &["user1@example.test"], &letter("A long report", &pages));
    assert!(sent.starts_with("250"), "{sent}");
    let blobs = std::fs::read_dir(node.dir().join("blobs")).unwrap().map(|file| file.unwrap().path());
    let is_large = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with('L');
    let large: Vec<PathBuf> = blobs.filter(is_large).collect();
    assert_eq!(large.len(), 1, "{large:?}");
    std::fs::remove_file(&large[0]).unwrap();
    std::fs::create_dir(&large[0]).unwrap();
    let mut imap = node.sign_in("user1");
    imap.tagged("SELECT INBOX");
    imap.tagged("MOVE 1 Junk");
    let is_told = (0..TRIES).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        node.log().contains("lesson.failed")
    });
    assert!(is_told, "{}", node.log());
    send("Pendulum evening one");
    let mut imap = node.sign_in("user1");
    imap.tagged("SELECT INBOX");
    imap.tagged("MOVE 1 Junk");
    until_named(&node, "CLASSIFIER_OWN_SPAM", || send("Pendulum evening again"));
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(node.log().matches("lesson.failed").count(), 1, "told once: {}", node.log());
}
