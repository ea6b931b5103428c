//! Mailboxes by the command line: what was expunged comes back, whole accounts go out and in.

use std::process::Command;
use std::time::Duration;

use crate::harness::{Node, letter, ortler, ortler_fails, run_program, skip, wants_all};

/// Standard output of a command that must succeed.
#[track_caller]
fn run(node: &Node, words: &[&str]) -> String {
    let output = ortler(&[words, &["--dir", node.dir().to_str().unwrap()]].concat());
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn fails(node: &Node, words: &[&str], code: i32, says: &str) {
    ortler_fails(&[words, &["--dir", node.dir().to_str().unwrap()]].concat(), code, says);
}

#[test]
fn expunged_messages_come_back_to_an_open_session() {
    let mut node = Node::start();
    let user = "user1@example.test";
    for subject in ["first", "second", "third"] {
        assert!(node.send("a@x.example", &[user], &letter(subject, "Please keep this.")).starts_with("250"));
    }
    let list = run(&node, &["mailbox", "list", user]);
    let inbox = list.lines().find(|line| line.contains("INBOX")).unwrap();
    assert!(inbox.contains("inbox") && inbox.starts_with("3 ") && inbox.ends_with(" 3"), "{list}");
    let before = node.messages("user1", "INBOX");

    let mut imap = node.sign_in("user1");
    imap.tagged("SELECT INBOX");
    imap.tagged("STORE 1:2 +FLAGS (\\Deleted \\Flagged Work)");
    imap.tagged("EXPUNGE");
    let removed = run(&node, &["mailbox", "removed", user]);
    assert!(removed.contains("first") && removed.contains("second") && !removed.contains("third"), "{removed}");
    assert!(removed.contains("anna@sender.example") && removed.contains("INBOX"), "{removed}");
    let id_of = |subject: &str| {
        let row = removed.lines().find(|line| line.contains(subject)).unwrap();
        let header = removed.lines().next().unwrap();
        row[header.find("id").unwrap()..].split(' ').next().unwrap().to_owned()
    };

    // RFC 2177: the open session hears of it.
    imap.say("i IDLE").expect("+");
    let told = run(&node, &["mailbox", "restore", user, "--id", &id_of("first")]);
    assert!(told.contains("INBOX: 1"), "{told}");
    imap.expect("* 2 EXISTS");
    imap.say("DONE");
    while !imap.line().starts_with("i OK") {}
    let fetched = imap.tagged("FETCH 2 (FLAGS)").join(" ");
    assert!(fetched.contains("\\Flagged") && fetched.contains("Work"), "{fetched}");

    fails(&node, &["mailbox", "restore", user, "--id", "999"], 1, "user1@example.test: no removed message with id 999");
    fails(&node, &["mailbox", "restore", user, "--mailbox", "Nowhere"], 1, "Nowhere");
    for wrong in [&["restore", user][..], &["restore", user, "--since", "yesterday"], &["purge", user]] {
        assert_eq!(ortler(&[&["mailbox"], wrong].concat()).status.code(), Some(2), "{wrong:?}");
    }
    fails(&node, &["mailbox", "list", "nobody@example.test"], 1, "nobody@example.test does not exist");
    // On a stopped node, by time, into another mailbox that does not exist yet.
    node.stop();
    let told = run(&node, &["mailbox", "restore", user, "--since", "1 h", "--mailbox", "INBOX", "--into", "Back/Here"]);
    assert!(told.contains("Back/Here: 1"), "{told}");
    assert!(run(&node, &["audit", "--deep"]).contains("clean      true"));
    node.resume();
    assert_eq!(node.messages("user1", "INBOX"), [before[2].clone(), before[0].clone()]);
    assert_eq!(node.messages("user1", "Back/Here"), [before[1].clone()]);
    // What is purged is gone.
    let mut imap = node.sign_in("user1");
    imap.tagged("SELECT INBOX");
    imap.tagged("STORE 1:* +FLAGS (\\Deleted)");
    imap.tagged("EXPUNGE");
    fails(&node, &["mailbox", "purge", user, "--id", "999"], 1, "no removed message with id 999");
    assert!(run(&node, &["mailbox", "purge", user, "--all"]).contains('2'));
    assert_eq!(run(&node, &["mailbox", "removed", user]), "");
}

/// Everything of a mailbox that a client can see, without the order.
fn picture(node: &Node, user: &str, mailbox: &str) -> Vec<(String, Vec<u8>)> {
    let mut imap = node.sign_in(user);
    imap.tagged(&format!("EXAMINE \"{mailbox}\""));
    let rows = imap.tagged("UID FETCH 1:* (FLAGS INTERNALDATE)").into_iter().filter_map(|line| {
        let (_, row) = line.split_once("(UID ")?;
        Some(row.split_once(' ')?.1.to_owned())
    });
    let rows: Vec<String> = rows.collect();
    let bodies = imap.fetch_bodies();
    assert_eq!(rows.len(), bodies.len());
    let mut both: Vec<_> = rows.into_iter().zip(bodies).collect();
    both.sort();
    both
}

fn append(node: &Node, user: &str, mailbox: &str, marks: &str, message: &[u8]) {
    let mut imap = node.sign_in(user);
    imap.say(&format!("a APPEND \"{mailbox}\" {marks} {{{}+}}", message.len())).send(message).say("").expect("a OK");
}

/// Modified UTF-7 of `Wörk.1/Süb`.
const FOLDER: &str = "W&APY-rk.1/S&APw-b";
const MAILBOXES: [&str; 5] = ["INBOX", "Sent", "Trash", FOLDER, "Empty"];

fn fill(node: &Node, user: &str) {
    let address = format!("{user}@example.test");
    for n in 0..3 {
        let text = format!("Number {n}.\r\n\r\nFrom here on\r\n>From there\r\n.");
        assert!(node.send("a@x.example", &[&address], &letter(&format!("n{n}"), &text)).starts_with("250"));
    }
    let mut imap = node.sign_in(user);
    imap.tagged(&format!("CREATE \"{FOLDER}\""));
    imap.tagged("CREATE Empty");
    append(node, user, "Sent", "(\\Seen \\Answered) \" 3-Nov-2009 10:42:07 +0100\"", &letter("sent", "Sent."));
    append(node, user, "Trash", "(\\Deleted \\Draft) \"30-Nov-1979 10:42:07 +0000\"", &letter("old", "Old."));
    let large = letter("large", &"0123456789 \u{e9}\r\n".repeat(600_000));
    append(node, user, FOLDER, "(\\Flagged Work $Forwarded $Label1) \" 3-Nov-2020 10:42:07 -0500\"", &large);
    // Twice the same is two messages.
    for _ in 0..2 {
        append(node, user, FOLDER, "() \" 4-Nov-2020 10:42:07 +0000\"", b"From: a@b\r\n\r\ntwice\r\n");
    }
}

fn count(told: &str, what: &str) -> u64 {
    let value = told.split(&format!("\"{what}\": ")).nth(1).unwrap();
    value.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

#[test]
fn an_account_moves_to_another_node_whole() {
    let (mut here, there) = (Node::start(), Node::start());
    fill(&here, "user1");
    append(&here, "user1", "INBOX", "() \" 5-Nov-2020 10:42:07 +0000\"", b"A: 1\r\n\r\nbare\nline and no end");
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().to_str().unwrap();
    let export = ["mailbox", "export", "user1@example.test", "--to", to, "--json"];
    let told = run(&here, &[&export[..], &["--verify"]].concat());
    assert_eq!((count(&told, "added"), count(&told, "present"), count(&told, "skipped")), (9, 0, 0), "{told}");
    // A second run, on the stopped node, with a file lost meanwhile.
    let expected: Vec<_> = MAILBOXES.iter().map(|name| picture(&here, "user1", name)).collect();
    here.stop();
    let lost = std::fs::read_dir(folder.path().join(".Sent/cur")).unwrap().next().unwrap().unwrap();
    std::fs::remove_file(lost.path()).unwrap();
    let told = run(&here, &[&export[..], &["--verify"]].concat());
    assert_eq!((count(&told, "added"), count(&told, "present")), (1, 8), "{told}");

    let import = ["mailbox", "import", "user2@example.test", "--from", to, "--json"];
    let told = run(&there, &import);
    assert_eq!((count(&told, "added"), count(&told, "present"), count(&told, "skipped")), (9, 0, 0), "{told}");
    for (name, expected) in MAILBOXES.iter().zip(&expected) {
        assert!(picture(&there, "user2", name) == *expected, "{name}");
    }
    let told = run(&there, &import);
    assert_eq!((count(&told, "added"), count(&told, "present")), (0, 9), "{told}");
    let told = run(&there, &[&import[..], &["--into", "Old", "--mailbox", "Sent"]].concat());
    assert_eq!(count(&told, "added"), 1, "{told}");
    assert_eq!(picture(&there, "user2", "Old"), expected[1]);

    fails(&there, &["mailbox", "import", "nobody@example.test", "--from", to], 1, "nobody@example.test does not exist");
    fails(&there, &["mailbox", "import", "user2@example.test", "--from", "/no/such"], 1, "/no/such");
    fails(&there, &[&export[..], &["--mailbox", "Nowhere"]].concat(), 1, "mailbox Nowhere of user1@example.test");
    assert!(run(&there, &["audit", "--deep"]).contains("clean      true"));
}

#[test]
fn mbox_files_go_out_and_in() {
    let node = Node::start();
    fill(&node, "user1");
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().to_str().unwrap();
    let export = ["mailbox", "export", "user1@example.test", "--to", to, "--format", "mbox", "--verify", "--json"];
    let told = run(&node, &export);
    assert_eq!((count(&told, "added"), count(&told, "skipped")), (8, 0), "{told}");
    append(&node, "user1", "Sent", "() \" 5-Nov-2020 10:42:07 +0000\"", &letter("new", "New."));
    let told = run(&node, &export);
    assert_eq!((count(&told, "added"), count(&told, "present"), count(&told, "skipped")), (1, 8, 0), "{told}");
    let import = ["mailbox", "import", "user3@example.test", "--from", to, "--json"];
    assert_eq!(count(&run(&node, &import), "added"), 9);
    assert_eq!(count(&run(&node, &import), "present"), 9);
    for name in MAILBOXES {
        assert!(picture(&node, "user3", name) == picture(&node, "user1", name), "{name}");
    }
    // A foreign file, damaged, into a special folder by its name.
    let file = folder.path().join("Gesendete Objekte");
    std::fs::write(&file, "junk\n\nFrom x Sat Oct 31 10:42:07 2026\nSubject: here\nStatus: RO\n\nhere\n\n").unwrap();
    let dir = node.dir().to_str().unwrap();
    let output = ortler(&["mailbox", "import", "user4@example.test", "--from", file.to_str().unwrap(), "--dir", dir]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("Gesendete Objekte, line 1: text that belongs"), "{said}");
    let sent = picture(&node, "user4", "Sent");
    assert!(sent.len() == 1 && sent[0].0.contains("\\Seen") && sent[0].0.contains("31-Oct-2026 10:42:07"), "{sent:?}");
}

#[test]
fn a_maildir_by_mbsync_is_read_back() {
    if !wants_all() {
        return skip("mbsync runs with ORTLER_TESTS=all");
    }
    let node = Node::start();
    fill(&node, "user1");
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("mbsyncrc");
    let text = format!(
        "CopyArrivalDate yes\nIMAPAccount a\nHost 127.0.0.1\nPort {}\nUser user1@example.test\nPass demo\nSSLType None\n\
         AuthMechs LOGIN\n\nIMAPStore far\nAccount a\n\nMaildirStore near\nPath {dir}/mail/\nInbox {dir}/mail/INBOX\n\
         SubFolders Verbatim\n\nChannel c\nFar :far:\nNear :near:\nPatterns *\nCreate Near\nSyncState {dir}/state/\n",
        node.port(143),
        dir = folder.path().display(),
    );
    std::fs::write(&config, text).unwrap();
    std::fs::create_dir_all(folder.path().join("mail")).unwrap();
    std::fs::create_dir_all(folder.path().join("state")).unwrap();
    let (done, said) = run_program(Command::new("mbsync").arg("-c").arg(&config).arg("c"), Duration::from_secs(60));
    assert!(done, "{said}");
    let from = folder.path().join("mail");
    let told = run(&node, &["mailbox", "import", "user2@example.test", "--from", from.to_str().unwrap(), "--json"]);
    assert_eq!((count(&told, "added"), count(&told, "skipped")), (8, 0), "{told}");
    // Maildir has no letter for keywords, and mbsync marks what it copies by a line in the header.
    let plain = |rows: Vec<(String, Vec<u8>)>| -> Vec<(String, Vec<u8>)> {
        let strip = |row: String| row.replace(" $Label1", "").replace(" Work", "").replace("(Work ", "(");
        let unmark = |body: Vec<u8>| -> Vec<u8> {
            let lines = body.split_inclusive(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"X-TUID: "));
            lines.flatten().copied().collect()
        };
        rows.into_iter().map(|(row, body)| (strip(row), unmark(body))).collect()
    };
    for name in MAILBOXES {
        let (here, there) = (plain(picture(&node, "user1", name)), plain(picture(&node, "user2", name)));
        let rows =
            |of: &[(String, Vec<u8>)]| of.iter().map(|(row, body)| format!("{row} {}", body.len())).collect::<Vec<_>>();
        assert!(here == there, "{name}: {:?} {:?}", rows(&here), rows(&there));
    }
}
