//! A disk that fills up or damages what it keeps, seen through the protocols.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::harness::{Node, PASSWORD, base64, http, letter, ortler, skip};

/// A small file system, mounted where that is allowed.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=200m", "tmpfs"]).arg(&at).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(at))
    }

    fn free(&self) -> u64 {
        let told = Command::new("df").args(["--output=avail", "-B1"]).arg(&self.0).output().unwrap();
        String::from_utf8(told.stdout).unwrap().lines().nth(1).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_message_that_finds_no_room_on_its_way_in_is_told_to_the_operator_too() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Small::mount(folder.path().join("small")) else {
        return skip("a small file system can be mounted by root only");
    };
    let node = Node::start_at(Some(disk.0.clone()), &[]);
    let send =
        |size: usize| node.send("a@x.example", &["user1@example.test"], &letter("room", &"words ".repeat(size / 6)));
    // Above the mark, and less than the message takes.
    let size = usize::try_from(disk.free() - 14_000_000).unwrap();
    std::fs::File::create(disk.0.join("ballast")).unwrap().write_all_at(&vec![1; size], 0).unwrap();
    assert!(send(1000).starts_with("250"));
    assert_eq!(send(30_000_000), "452 4.3.1 Insufficient storage, try again later");
    let log = node.log();
    assert!(log.contains("disk.full") && log.contains("/spool"), "{log}");
    assert!(send(1000).starts_with("250"));
}

/// A twentieth of the file system is the mark here: the configured gigabyte would be more than it has.
#[test]
fn below_the_mark_nothing_new_comes_in_and_everything_else_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Small::mount(folder.path().join("small")) else {
        return skip("a small file system can be mounted by root only");
    };
    let node = Node::start_at(Some(disk.0.clone()), &[]);
    let send = || node.send("a@x.example", &["user1@example.test"], &letter("room", "Some words."));
    let health = |path: &str| http(node.port(90), &format!("GET {path}"), "", "");
    let ready = |wanted: bool| health("/readyz").2.contains(&format!("\"room\":{wanted}"));
    assert!(send().starts_with("250") && send().starts_with("250") && ready(true));
    let ballast = disk.0.join("ballast");
    let size = disk.free() - 8_000_000;
    std::fs::File::create(&ballast).unwrap().write_all_at(&vec![1; usize::try_from(size).unwrap()], 0).unwrap();
    let turned = |wanted: bool| {
        (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(100));
            ready(wanted)
        })
    };
    assert!(turned(false), "{}", node.log());
    assert_eq!(send(), "452 4.3.1 Insufficient storage, try again later");
    let mut imap = node.sign_in("user1");
    imap.tagged("SELECT INBOX");
    assert!(imap.outcome("APPEND INBOX {100}").starts_with("o NO [UNAVAILABLE]"));
    assert!(imap.outcome("UID COPY 1 Archive").starts_with("o NO [UNAVAILABLE]"));
    assert!(imap.outcome("UID MOVE 2 Archive").starts_with("o OK"));
    assert_eq!(imap.fetch_bodies().len(), 1);
    imap.tagged("STORE 1 +FLAGS (\\Deleted)");
    assert!(imap.tagged("EXPUNGE").iter().any(|line| line == "* 1 EXPUNGE"));
    assert_eq!(health("/readyz").0, 200);
    assert!(health("/metrics").2.contains("ortler_store_has_room 0"));

    std::fs::remove_file(&ballast).unwrap();
    assert!(turned(true), "{}", node.log());
    assert!(send().starts_with("250"));
    assert!(imap.outcome("APPEND INBOX {100}").starts_with('+'));
    assert!(health("/metrics").2.contains("ortler_store_has_room 1"));
    assert_eq!(node.log().matches("disk.full").count(), 1, "{}", node.log());
}

#[test]
fn a_damaged_message_is_a_readable_notice_wherever_it_is_read() {
    let node = Node::start();
    let html = format!(
        "From: Anna Gruber <anna@sender.example>\r\nSubject: Bilder\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{0}--b\r\n\
         Content-Type: text/html; charset=utf-8\r\n\r\n<p>{0}</p>\r\n--b--\r\n",
        "words of a mail that somebody wants to read\r\n".repeat(40)
    );
    for message in [letter("hurt", &"Some words. ".repeat(100)), html.into_bytes(), letter("well", "Other words.")] {
        assert!(node.send("a@x.example", &["user1@example.test"], &message).starts_with("250"));
    }
    // A byte in each of the first two records: after the segment's head (64), their own (80) and their table (12).
    let segment = std::fs::File::options().read(true).write(true).open(node.dir().join("blobs/000001.seg")).unwrap();
    let mut head = [0u8; 80];
    segment.read_exact_at(&mut head, 64).unwrap();
    let second = 64 + u64::from(u32::from_le_bytes(head[8..12].try_into().unwrap()));
    let (sizes, whole) = (sizes(&node), node.messages("user1", "INBOX"));
    for record in [64, second] {
        let mut byte = [0u8];
        segment.read_exact_at(&mut byte, record + 80 + 12 + 20).unwrap();
        segment.write_all_at(&[byte[0] ^ 1], record + 80 + 12 + 20).unwrap();
    }
    let shown = node.messages("user1", "INBOX");
    assert_eq!(sizes, shown.iter().map(Vec::len).collect::<Vec<_>>());
    assert_eq!(shown[2], whole[2], "only the records that were hit");
    for (message, subject) in shown[..2].iter().zip(["Subject: hurt\r\n", "Subject: Bilder\r\n"]) {
        let text = String::from_utf8(message.clone()).unwrap();
        assert!(text.contains(subject) && text.contains("From: Anna Gruber <anna@sender.example>"), "{text}");
        assert!(text.contains("is lost or damaged") && text.contains("verloren oder beschaedigt"), "{text}");
        assert!(text.contains("andato perso o danneggiato"), "{text}");
    }
    // Part by part, as programs read that know the structure.
    let mut imap = node.sign_in("user1");
    imap.tagged("SELECT INBOX");
    let part = imap.tagged("UID FETCH 2 (BODYSTRUCTURE BODY.PEEK[1]<0.60> BODY.PEEK[2]<0.60>)").join("\n");
    assert!(
        part.contains("BODY[1]<0> {60}\nContent lost /") && part.contains("BODY[2]<0> {60}\n<pre>Content lost /"),
        "{part}"
    );

    let mut pop3 = node.connect(110);
    pop3.expect("+OK");
    pop3.say("USER user1@example.test").expect("+OK");
    pop3.say(&format!("PASS {PASSWORD}")).expect("+OK");
    pop3.say("RETR 1").expect("+OK");
    assert_eq!(pop3.multiline(), shown[0]);
    pop3.say("RETR 3").expect("+OK");
    assert_eq!(pop3.multiline(), whole[2]);

    let auth = format!("Authorization: Basic {}\r\n", base64(format!("user1@example.test:{PASSWORD}").as_bytes()));
    let (_, _, session) = http(node.port(80), "GET /jmap/session", &auth, "");
    let session: serde_json::Value = serde_json::from_str(&session).unwrap();
    let account = &session["primaryAccounts"]["urn:ietf:params:jmap:mail"];
    let call = serde_json::json!({
        "using": ["urn:ietf:params:jmap:core", "urn:ietf:params:jmap:mail"],
        "methodCalls": [
            ["Email/query", { "accountId": account, "sort": [{ "property": "receivedAt" }] }, "q"],
            ["Email/get", {
                "accountId": account, "#ids": { "resultOf": "q", "name": "Email/query", "path": "/ids" },
                "properties": ["id", "subject", "bodyValues", "textBody"], "fetchTextBodyValues": true,
            }, "g"],
        ],
    });
    let headers = format!("{auth}Content-Type: application/json\r\n");
    let (status, _, answer) = http(node.port(80), "POST /jmap/", &headers, &call.to_string());
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let list = answer["methodResponses"][1][1]["list"].as_array().unwrap();
    assert_eq!((status, list.len()), (200, 3));
    let lost = list.iter().filter(|email| email["bodyValues"].to_string().contains("is lost or damaged"));
    let lost: Vec<_> = lost.map(|email| email["id"].as_str().unwrap()).collect();
    assert_eq!(lost.len(), 2, "{answer}");
    for email in lost {
        let (status, _, page) = http(node.port(80), &format!("GET /api/v1/message/{email}/body"), &auth, "");
        assert!(status == 200 && page.contains("is lost or damaged"), "{page}");
    }

    let audit = ortler(&["audit", "--deep", "--dir", node.dir().to_str().unwrap()]);
    let told = String::from_utf8(audit.stdout).unwrap();
    assert_eq!(audit.status.code(), Some(1));
    for place in [64, second] {
        assert!(
            told.contains(&format!("000001.seg at offset {place}: its content does not match its checksum")),
            "{told}"
        );
    }
    assert!(told.contains("(INBOX), uid 1") && told.contains("(INBOX), uid 2") && !told.contains("uid 3"), "{told}");
    let metrics = http(node.port(90), "GET /metrics", "", "").2;
    assert!(metrics.contains("ortler_store_damaged_reads_total "), "{metrics}");
    assert_eq!(node.log().matches("store.damaged").count(), 2, "once for each: {}", node.log());
}

/// RFC822.SIZE of each message.
fn sizes(node: &Node) -> Vec<usize> {
    let mut imap = node.sign_in("user1");
    imap.tagged("SELECT INBOX");
    let lines = imap.tagged("FETCH 1:* RFC822.SIZE");
    let size = |line: &String| line.strip_suffix(')')?.rsplit(' ').next()?.parse().ok();
    lines.iter().filter(|line| line.contains("RFC822.SIZE")).filter_map(size).collect()
}

#[test]
fn a_row_of_the_directory_that_the_disk_changed_is_told() {
    let mut node = Node::start();
    node.stop();
    let file = node.dir().join("directory.sqlite");
    let image = std::fs::read(&file).unwrap();
    let audit = |arguments: &[&str]| {
        let output = ortler(&[&["audit", "--dir", node.dir().to_str().unwrap()], arguments].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(audit(&[]).0, Some(0));
    // Where the row of the account is, not one of its indexes: the name follows the address there.
    let text = b"user2@example.testuser2@example.test";
    let at = image.windows(text.len()).position(|some| some == text).unwrap();
    let hurt = std::fs::File::options().write(true).open(&file).unwrap();
    hurt.write_all_at(&[image[at + 25] ^ 1], at as u64 + 25).unwrap();
    let (code, told) = audit(&[]);
    assert_eq!(code, Some(1));
    assert!(told.contains("its check does not fit") && told.contains("directory.sqlite: account id "), "{told}");
    assert_eq!(audit(&["--repair"]).0, Some(0));
    assert_eq!(audit(&[]).0, Some(0));
}
