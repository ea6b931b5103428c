//! Real mail, good, bad and broken: sent in over SMTP, read back octet for octet, opened in every way.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Node, http, skip, wants_all};

/// The archives beside the repository; they are never part of it.
fn archives() -> Option<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora");
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder).ok()?.filter_map(|file| Some(file.ok()?.path())).collect();
    found.retain(|path| path.to_str().is_some_and(|path| path.ends_with(".tar.zst")));
    found.sort();
    (!found.is_empty()).then_some(found)
}

fn messages_below(folder: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() { messages_below(&path, out) } else { out.push(path) }
    }
}

/// As it goes over the wire: every line end a CR LF.
fn on_the_wire(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + raw.len() / 40);
    let mut bytes = raw.iter().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\r' if bytes.peek() == Some(&&b'\n') => {}
            b'\n' | b'\r' => out.extend_from_slice(b"\r\n"),
            byte => out.push(*byte),
        }
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[test]
fn every_message_of_the_corpora_survives() {
    if !wants_all() {
        return skip("the corpora are sent with ORTLER_TESTS=all");
    }
    let Some(archives) = archives() else { return skip("the corpora are not beside the repository") };
    let folder = tempfile::tempdir().unwrap();
    for archive in &archives {
        let unpacked = Command::new("tar").args(["--zstd", "-xf"]).arg(archive).arg("-C").arg(folder.path()).status();
        assert!(unpacked.unwrap().success(), "{}", archive.display());
    }
    let mut files = Vec::new();
    messages_below(folder.path(), &mut files);
    let node = Node::start();
    let mut sent: HashMap<String, (PathBuf, Vec<u8>)> = HashMap::new();
    // By LMTP, from a server that is trusted: policy then refuses only what the rules alone are sure of.
    let (mut lmtp, mut refused) = (node.connect(24), 0);
    lmtp.expect("220");
    lmtp.say("LHLO x").expect("250");
    for (number, file) in files.iter().enumerate() {
        let content = on_the_wire(&std::fs::read(file).unwrap());
        lmtp.say("MAIL FROM:<a@x.example>").expect("250");
        lmtp.say(&format!("RCPT TO:<user{}@example.test>", 1 + number % 5)).expect("250");
        let reply = lmtp.send_content(&content);
        match reply.strip_prefix("250 2.0.0 Queued as ") {
            Some(id) => drop(sent.insert(id.to_owned(), (file.clone(), content))),
            None => {
                assert!(
                    reply.starts_with("554 5.7.1") || reply.starts_with("554 5.4.6"),
                    "{}: {reply}",
                    file.display()
                );
                refused += 1;
            }
        }
    }
    eprintln!("{} messages sent, {refused} refused by policy", files.len());
    assert!(refused * 4 < files.len(), "{refused} of {} were refused", files.len());
    let mut read_back = 0;
    for user in 1..=5 {
        for mailbox in ["INBOX", "Junk", "Quarantine"] {
            let user = format!("user{user}");
            let messages = node.messages(&user, mailbox);
            let count = messages.len();
            for stored in messages {
                let head = String::from_utf8_lossy(&stored[..stored.len().min(30_000)]).into_owned();
                let id = head.split(" id ").nth(1).unwrap().split(['\r', ';', ' ']).next().unwrap();
                let (file, content) = sent.get(id).unwrap_or_else(|| panic!("{id} was never sent"));
                // Forged fields of ours are the one thing that is taken out.
                let forged = ["x-spam-status:", "x-spam-score:", "x-spam-flag:", "authentication-results:"];
                let has_forged = mail_header(content)
                    .lines()
                    .any(|line| forged.iter().any(|name| line.to_lowercase().starts_with(name)));
                assert!(stored.ends_with(content) || has_forged, "{} came back changed", file.display());
                read_back += 1;
            }
            let mut imap = node.sign_in(&user);
            imap.tagged(&format!("SELECT {mailbox}"));
            let lines = imap.tagged("FETCH 1:* (UID FLAGS ENVELOPE BODYSTRUCTURE INTERNALDATE RFC822.SIZE)");
            let described = lines.iter().filter(|line| line.starts_with("* ") && line.contains(" FETCH (UID "));
            assert_eq!(described.count(), count, "{user} {mailbox}");
        }
    }
    assert_eq!(read_back, sent.len());
    // Webmail opens each of them: the newest of one account.
    let auth = format!("Authorization: Basic {}\r\n", crate::harness::base64(b"user1@example.test:demo"));
    let body = r#"{"using":["urn:ietf:params:jmap:core","urn:ietf:params:jmap:mail"],"methodCalls":[["Email/query",{"accountId":"a1","limit":500},"0"]]}"#;
    let (status, _, answer) =
        http(node.port(80), "POST /jmap/", &format!("{auth}Content-Type: application/json\r\n"), body);
    assert_eq!(status, 200, "{answer}");
    let ids: Vec<&str> =
        answer.split('"').filter(|word| word.starts_with('M') && word[1..].parse::<u64>().is_ok()).collect();
    assert!(ids.len() >= 400, "{}", ids.len());
    for id in ids {
        let (status, head, _) = http(node.port(80), &format!("GET /api/v1/message/{id}/body"), &auth, "");
        assert!(status == 200 && head.contains("content-security-policy"), "{id}: {status} {head}");
    }
}

fn mail_header(content: &[u8]) -> String {
    let end = content.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(content.len());
    String::from_utf8_lossy(&content[..end]).into_owned()
}
