//! Real mail, good, bad and broken: sent in over SMTP, read back octet for octet, opened in every way.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base::{Clock as _, SystemClock};
use mail::{HeaderField, HeaderFields};
use serde_json::{Value, json};

use crate::harness::{Node, base64, http, run_program, skip, wants_all};
use crate::targets::harmless;

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

/// As a mail server sends it: every line end, bare CR or LF too, is a CR LF, and the last line has one. Nothing else
/// changes.
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

/// What must come back below the fields that we put in front: all but fields that only we may write.
fn expected(content: &[u8]) -> Vec<u8> {
    let is_ours = |field: &HeaderField<'_>| {
        let value = String::from_utf8_lossy(&field.unfolded()).into_owned();
        let claimed = value.split([';', ' ', '\t']).next().unwrap_or_default();
        ["X-Spam-Status", "X-Spam-Score", "X-Spam-Flag"].iter().any(|name| field.is(name))
            || field.is("Authentication-Results") && (claimed.is_empty() || claimed == "mx.example.test")
    };
    let end = HeaderFields::of(content).map(|field| field.raw.len()).sum::<usize>();
    let mut out = Vec::with_capacity(content.len());
    HeaderFields::of(content).filter(|field| !is_ours(field)).for_each(|field| out.extend_from_slice(field.raw));
    let rest = &content[end..];
    // A header that nothing follows gets the empty line that ends it.
    if rest.is_empty() && mail::header::body_offset(content) == end && !content.is_empty() {
        return out;
    }
    out.extend_from_slice(rest);
    out
}

/// What was sent, by queue id.
type Sent = HashMap<String, (PathBuf, Vec<u8>)>;

/// Finds what a stored message was and compares it; line ends are those of `content` after `as_stored`.
fn compare(stored: &[u8], sent: &Sent, as_stored: impl Fn(Vec<u8>) -> Vec<u8>) -> String {
    let head = String::from_utf8_lossy(&stored[..stored.len().min(30_000)]).into_owned();
    let id = head.split(" id ").nth(1).unwrap().split(['\r', '\n', ';', ' ']).next().unwrap().to_owned();
    let (file, content) = sent.get(&id).unwrap_or_else(|| panic!("{id} was never sent"));
    let expected = as_stored(expected(content));
    assert!(stored.ends_with(&expected), "{} came back changed", file.display());
    let front = &stored[..stored.len() - expected.len()];
    let ours = ["Return-Path", "Delivered-To", "Received", "Authentication-Results"];
    for field in HeaderFields::of(front) {
        let is_ours = ours.iter().any(|name| field.is(name)) || field.name.starts_with(b"X-Spam-");
        assert!(is_ours, "{}: {}", file.display(), String::from_utf8_lossy(field.raw));
    }
    id
}

/// Torture goes to an account of its own; the rest is shared by four.
const TORTURE: &str = "user5";

fn recipient(file: &Path, number: usize) -> String {
    let is_torture = file.components().any(|part| part.as_os_str().to_string_lossy().contains("torture"));
    if is_torture { TORTURE.to_owned() } else { format!("user{}", 1 + number % 4) }
}

/// Sends the files with these numbers over one connection. Gives what was taken and how many ran in a circle.
fn send(node: &Node, files: &[PathBuf], numbers: impl Iterator<Item = usize>) -> (Sent, usize) {
    let (mut sent, mut circles) = (Sent::new(), 0);
    let mut smtp = node.connect(25);
    smtp.expect("220");
    smtp.say("EHLO sender.example");
    while smtp.line().starts_with("250-") {}
    for number in numbers {
        let file = &files[number];
        let content = on_the_wire(&std::fs::read(file).unwrap());
        smtp.say("MAIL FROM:<a@sender.example>").expect("250");
        smtp.say(&format!("RCPT TO:<{}@example.test>", recipient(file, number))).expect("250");
        let reply = smtp.send_content(&content);
        match reply.strip_prefix("250 2.0.0 Queued as ") {
            Some(id) => drop(sent.insert(id.to_owned(), (file.clone(), content))),
            // More Received fields than any honest route has: no judgement of policy, and no mail for anyone.
            None if reply.starts_with("554 5.4.6") => {
                let hops = HeaderFields::of(&content).filter(|field| field.is("Received")).count();
                assert!(hops > 100, "{}: {reply}", file.display());
                circles += 1;
            }
            None => panic!("{}: {reply}", file.display()),
        }
    }
    (sent, circles)
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
    // A policy that holds nothing back: all mail goes to the inbox.
    let node =
        Node::start_with_policy("tag-score = 900\nquarantine-score = 950\nreject-score = 999\nspf-fail = \"score\"\n");
    let (sent, circles) = std::thread::scope(|scope| {
        let (node, files) = (&node, &files);
        let senders: Vec<_> =
            (0..4).map(|first| scope.spawn(move || send(node, files, (first..files.len()).step_by(4)))).collect();
        senders.into_iter().map(|sender| sender.join().unwrap()).fold((Sent::new(), 0), |mut sum, (sent, circles)| {
            sum.0.extend(sent);
            (sum.0, sum.1 + circles)
        })
    });
    eprintln!("{} messages sent, {circles} refused because they run in a circle", files.len());
    assert_eq!(sent.len() + circles, files.len());
    std::thread::scope(|scope| {
        for user in 1..=5 {
            let (node, sent) = (&node, &sent);
            scope.spawn(move || reads_back(node, &format!("user{user}"), sent));
        }
    });
    std::thread::scope(|scope| {
        let node = &node;
        scope.spawn(move || opens_in_webmail(node, TORTURE, None));
        // The others for as long as it takes to see a good share of them.
        for user in 1..=2 {
            scope.spawn(move || opens_in_webmail(node, &format!("user{user}"), Some(Duration::from_secs(60))));
        }
    });
}

/// Over POP3, by mbsync and over IMAP: all of the account, octet for octet.
fn reads_back(node: &Node, user: &str, sent: &Sent) {
    let mine: HashSet<&String> =
        sent.iter().filter(|(_, (_, content))| !content.is_empty()).map(|(id, _)| id).collect();
    let mut pop3 = node.connect(110);
    pop3.expect("+OK");
    pop3.say(&format!("USER {user}@example.test")).expect("+OK");
    pop3.say("PASS demo").expect("+OK");
    let stat = pop3.say("STAT").expect("+OK");
    let count: usize = stat.split(' ').nth(1).unwrap().parse().unwrap();
    let mut seen = HashSet::new();
    for number in 1..=count {
        pop3.say(&format!("RETR {number}")).expect("+OK");
        assert!(seen.insert(compare(&pop3.multiline(), sent, |content| content)), "twice");
    }
    pop3.say("QUIT").expect("+OK");
    assert!(count > 1000 && seen.iter().all(|id| mine.contains(id)));

    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("mbsyncrc");
    let text = format!(
        "IMAPAccount a\nHost 127.0.0.1\nPort {}\nUser {user}@example.test\nPass demo\nSSLType None\nAuthMechs LOGIN\n\n\
         IMAPStore far\nAccount a\n\nMaildirStore near\nInbox {dir}/INBOX\n\n\
         Channel c\nFar :far:\nNear :near:\nSync Pull\nCreate Near\nSyncState {dir}/state\n",
        node.port(143),
        dir = folder.path().display(),
    );
    std::fs::write(&config, text).unwrap();
    let mut mbsync = Command::new("mbsync");
    let (done, said) = run_program(mbsync.arg("-c").arg(&config).arg("c"), Duration::from_secs(240));
    assert!(done, "{said}");
    let mut synced = HashSet::new();
    let mut maildir = Vec::new();
    for part in ["INBOX/new", "INBOX/cur"] {
        messages_below(&folder.path().join(part), &mut maildir);
    }
    // A Maildir has the line ends of its system.
    let without_cr = |content: Vec<u8>| content.into_iter().filter(|byte| *byte != b'\r').collect();
    for file in maildir {
        let stored = without_own_mark(std::fs::read(&file).unwrap());
        assert!(synced.insert(compare(&stored, sent, without_cr)), "twice");
    }
    // It leaves out what has no empty line after its header: so does the message as it was sent.
    let has_end = |content: &[u8]| content.windows(4).any(|four| four == b"\r\n\r\n");
    let name = |id: &String| sent.get(id).filter(|(_, content)| has_end(content)).map(|(file, _)| file);
    let missing: Vec<_> = seen.difference(&synced).filter_map(name).collect();
    assert!(missing.is_empty(), "mbsync did not fetch {missing:?}: {said}");

    let mut imap = node.sign_in(user);
    imap.tagged("SELECT INBOX");
    let lines = imap.tagged("FETCH 1:* (UID FLAGS ENVELOPE BODYSTRUCTURE INTERNALDATE RFC822.SIZE)");
    assert_eq!(lines.iter().filter(|line| line.starts_with("* ") && line.contains(" FETCH (UID ")).count(), count);
}

/// mbsync marks each message that it fetches with a field of its own, as the last of the header.
fn without_own_mark(mut stored: Vec<u8>) -> Vec<u8> {
    const MARK: &[u8] = b"\nX-TUID: ";
    if let Some(at) = stored.windows(MARK.len()).position(|window| window == MARK) {
        let length = stored[at + 1..].iter().position(|byte| *byte == b'\n').unwrap();
        stored.drain(at + 1..at + 2 + length);
    }
    stored
}

/// Opens the account's messages, newest first, by the very calls that the webmail makes: list, reader, proof of the
/// sender, conversation, page, files. Ends early after `patience`.
fn opens_in_webmail(node: &Node, user: &str, patience: Option<Duration>) {
    const AT_ONCE: usize = 50;
    let auth = format!("Authorization: Basic {}\r\n", base64(format!("{user}@example.test:demo").as_bytes()));
    let get = |path: &str| http(node.port(80), &format!("GET {path}"), &auth, "");
    let (_, _, session) = get("/jmap/session");
    let session: Value = serde_json::from_str(&session).unwrap();
    let account = session["primaryAccounts"]["urn:ietf:params:jmap:mail"].as_str().unwrap().to_owned();
    let call = |calls: Value| {
        let body = json!({ "using": ["urn:ietf:params:jmap:core", "urn:ietf:params:jmap:mail"], "methodCalls": calls });
        let headers = format!("{auth}Content-Type: application/json\r\n");
        let (status, _, answer) = http(node.port(80), "POST /jmap/", &headers, &body.to_string());
        assert_eq!(status, 200, "{answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let answers = answer["methodResponses"].as_array().unwrap().clone();
        assert!(answers.iter().all(|answer| answer[0] != "error"), "{answer}");
        answers
    };
    let began = SystemClock.now();
    let (mut opened, mut html, mut files, mut total) = (0, 0, 0, 1);
    while opened < total && patience.is_none_or(|patience| SystemClock.now() < began + patience) {
        let answers = call(json!([
            ["Email/query", { "accountId": account, "position": opened, "limit": AT_ONCE, "calculateTotal": true }, "0"],
            ["Email/get", { "accountId": account, "#ids": { "resultOf": "0", "name": "Email/query", "path": "/ids" },
                "properties": ["id", "blobId", "threadId", "mailboxIds", "keywords", "from", "to", "subject", "receivedAt", "preview",
                    "hasAttachment", "size", "cc", "bcc", "replyTo", "sentAt", "messageId", "inReplyTo", "references", "attachments",
                    "textBody", "bodyValues"],
                "fetchTextBodyValues": true, "maxBodyValueBytes": 200_000 }, "1"],
            ["Thread/get", { "accountId": account,
                "#ids": { "resultOf": "1", "name": "Email/get", "path": "/list/*/threadId" } }, "2"],
        ]));
        total = usize::try_from(answers[0][1]["total"].as_u64().unwrap()).unwrap();
        let emails = answers[1][1]["list"].as_array().unwrap();
        assert_eq!(emails.len(), AT_ONCE.min(total - opened));
        for email in emails {
            let id = email["id"].as_str().unwrap();
            let (status, head, page) = get(&format!("/api/v1/message/{id}/body"));
            assert!(
                status == 200 && head.contains("default-src 'none'") && head.contains("sandbox"),
                "{id}: {status} {head}"
            );
            harmless(&page, false).unwrap_or_else(|why| panic!("{user} {id}: {why}"));
            html += usize::from(page.contains("data-kind=\"html\""));
            let (status, _, about) = get(&format!("/api/v1/message/{id}/about"));
            assert!(status == 200 && !about.contains("\"state\":\"unknown\""), "{id}: {status} {about}");
            for part in email["attachments"].as_array().unwrap().iter().take(3) {
                let path =
                    format!("/jmap/download/{account}/{}/file?accept=text/html", part["blobId"].as_str().unwrap());
                let (status, head, _) = get(&path);
                let is_safe = head.contains("content-disposition: attachment")
                    && head.contains("nosniff")
                    && head.contains("sandbox");
                assert!(status == 200 && is_safe, "{id}: {status} {head}");
                files += 1;
            }
        }
        opened += emails.len();
    }
    eprintln!("{user}: {opened} of {total} messages opened, {html} in HTML, {files} files fetched");
    assert!(opened == total || (patience.is_some() && opened >= 200), "{user}: {opened} of {total} opened");
}
