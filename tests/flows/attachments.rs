//! Files of a dangerous kind, by SMTP: what becomes of them, and what the log says.

use crate::harness::{Clamd, Node, base64, letter, skip, wants_all};

/// A letter with one file.
fn with_file(name: &str, content: &[u8]) -> Vec<u8> {
    let letter = String::from_utf8(letter("the file", "Here is what you asked for.")).unwrap();
    let (head, text) = letter.split_once("\r\n\r\n").unwrap();
    let head = head.replace("Content-Type: text/plain; charset=utf-8", "Content-Type: multipart/mixed; boundary=b0");
    let mut lines = String::new();
    for line in base64(content).as_bytes().chunks(76) {
        lines.push_str(std::str::from_utf8(line).unwrap());
        lines.push_str("\r\n");
    }
    format!(
        "{head}\r\n\r\n--b0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n--b0\r\n\
         Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=\"{name}\"\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{lines}--b0--\r\n"
    )
    .into_bytes()
}

/// A ZIP archive of files that are not packed.
fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in files {
        let offset = u32::try_from(out.len()).unwrap().to_le_bytes();
        let size = u32::try_from(content.len()).unwrap().to_le_bytes();
        let length = u16::try_from(name.len()).unwrap().to_le_bytes();
        let common = [&[20, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &crc(content), &size, &size, &length, &[0, 0]].concat();
        directory.extend([b"PK\x01\x02\x14\x00", &common[..], &[0; 10], &offset, name.as_bytes()].concat());
        out.extend([b"PK\x03\x04", &common[..], name.as_bytes(), content].concat());
    }
    let (count, size) = (u16::try_from(files.len()).unwrap().to_le_bytes(), u32::try_from(directory.len()).unwrap());
    let at = u32::try_from(out.len()).unwrap();
    out.extend(directory);
    out.extend([b"PK\x05\x06\0\0\0\0", &count[..], &count, &size.to_le_bytes(), &at.to_le_bytes(), &[0, 0]].concat());
    out
}

/// CRC-32 of ISO 3309.
fn crc(bytes: &[u8]) -> [u8; 4] {
    let step = |sum: u32, byte: &u8| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 })
    };
    (!bytes.iter().fold(u32::MAX, step)).to_le_bytes()
}

fn program() -> Vec<u8> {
    let mut program = b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff".to_vec();
    program.resize(400, 0);
    program
}

/// A new Word document with a VBA project.
fn macro_document() -> Vec<u8> {
    let types = b"<Types><Override ContentType=\"application/vnd.ms-office.vbaProject\"/></Types>";
    zip(&[("[Content_Types].xml", types), ("word/document.xml", b"<w/>"), ("word/vbaProject.bin", b"no project")])
}

/// The events of the message from this sender, as text, once it is where it goes.
fn story(node: &Node, from: &str) -> String {
    let mut seen = String::new();
    for _ in 0..50 {
        let found = node.json(&["trace", "--from", from]).to_string();
        if let Some(id) = found.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next()) {
            seen = node.json(&["trace", id]).to_string();
            if ["\"delivered\"", "\"refused\""].iter().any(|end| seen.contains(end)) {
                return seen;
            }
        }
        // The log is written a moment later.
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("no story of {from}: {seen}");
}

/// Sends to the first user; `name` makes the sender one of its own.
fn send(node: &Node, name: &str, message: &[u8]) -> String {
    node.send(&sender(name), &["user1@example.test"], message)
}

fn sender(name: &str) -> String {
    format!("{}@sender.example", name.replace('.', "-"))
}

#[test]
fn blocked_files_are_held_and_the_log_says_which() {
    let node = Node::start();
    let held = |count: usize| assert_eq!(node.held_ids("user1").len(), count, "{}", node.log());
    for (at, (name, content, says)) in [
        (
            "invoice.zip",
            zip(&[("scan.pdf.exe", &program())]),
            "blocked attachment, executables: invoice.zip/scan.pdf.exe",
        ),
        ("photo.jpg", program(), "blocked attachment, executables: photo.jpg"),
        ("run.js", b"x=1".to_vec(), "blocked attachment, scripts: run.js"),
        ("disk.img", vec![0; 100], "blocked attachment, disk-images: disk.img"),
        ("offer.docx", macro_document(), "suspicious attachment, macros: offer.docx"),
    ]
    .into_iter()
    .enumerate()
    {
        let reply = send(&node, name, &with_file(name, &content));
        assert!(reply.starts_with("250"), "{name}: {reply}");
        held(at + 1);
        let story = story(&node, &sender(name));
        assert!(story.contains(says) && story.contains("\"ATTACH_"), "{name}: {story}");
        assert!(story.contains("\"class\":\"attachment\""), "{story}");
    }
    for (name, content) in [("report.pdf", b"%PDF-1.4\n".to_vec()), ("data.zip", zip(&[("a.csv", b"1;2\r\n")]))] {
        assert!(send(&node, name, &with_file(name, &content)).starts_with("250"));
    }
    held(5);
    assert_eq!(node.messages("user1", "INBOX").len(), 2);
}

#[test]
fn policy_refuses_tags_or_lets_through() {
    let strict = Node::start_with_policy(
        "when-blocked = \"reject\"\nblocked-attachments = [\"executables\", \"macros\"]\nblocked-extensions = \"xyz\"\n",
    );
    for (name, content) in [
        ("invoice.zip", zip(&[("scan.exe", &program())])),
        ("offer.docm", macro_document()),
        ("a.zip", zip(&[("b.xyz", b"x")])),
    ] {
        let reply = send(&strict, name, &with_file(name, &content));
        assert!(reply.starts_with("554 5.7.1") && reply.contains("not accepted"), "{name}: {reply}");
        let story = story(&strict, &sender(name));
        assert!(story.contains("ATTACH_") || name == "a.zip", "{story}");
    }
    assert!(send(&strict, "run.js", &with_file("run.js", b"x")).starts_with("250"));
    assert_eq!(strict.messages("user1", "INBOX").len(), 1);

    let mild = Node::start_with_policy(
        // Rules have their own opinion of such files.
        "tag-score = 900\nquarantine-score = 950\nreject-score = 999\nwhen-blocked = \"tag\"\nwhen-tagged = \"subject\"\nsubject-tag = \"[FILE]\"\nwhen-suspicious = \"deliver\"\n",
    );
    assert!(send(&mild, "photo.jpg", &with_file("photo.jpg", &program())).starts_with("250"));
    assert!(send(&mild, "offer.docx", &with_file("offer.docx", &macro_document())).starts_with("250"));
    let arrived = mild.messages("user1", "INBOX");
    let text = |at: usize| String::from_utf8_lossy(&arrived[at]).into_owned();
    assert_eq!(arrived.len(), 2);
    assert!(text(0).contains("Subject: [FILE] the file"), "{}", text(0));
    assert!(text(1).contains("Subject: the file") && text(1).contains("ATTACH_MACRO"), "{}", text(1));
}

#[test]
fn an_archive_built_to_explode_is_held() {
    let node = Node::start();
    // A thousand entries, one content: the directory names the same octets again and again.
    let one = zip(&[("k", &[7; 1000])]);
    let at = one.windows(4).position(|octets| octets == b"PK\x01\x02").unwrap();
    let (content, entry) = (&one[..at], &one[at..one.len() - 22]);
    let directory = entry.repeat(1000);
    let counts = 1000u16.to_le_bytes();
    let size = u32::try_from(directory.len()).unwrap().to_le_bytes();
    let offset = u32::try_from(content.len()).unwrap().to_le_bytes();
    let bomb = [content, &directory, b"PK\x05\x06\0\0\0\0", &counts, &counts, &size, &offset, &[0, 0]].concat();
    assert!(send(&node, "bomb", &with_file("a.zip", &bomb)).starts_with("250"));
    assert_eq!(node.held_ids("user1").len(), 1);
    let story = story(&node, &sender("bomb"));
    assert!(story.contains("suspicious attachment, unreadable: a.zip") && story.contains("ATTACH_BOMB"), "{story}");
}

#[test]
fn a_virus_in_an_archive_is_refused_and_a_silent_scanner_defers() {
    if !wants_all() {
        return skip("clamd is asked with ORTLER_TESTS=all");
    }
    // The standard test file, in two halves so that no scanner finds it here.
    let eicar = ["X5O!P%@AP[4\\PZX54(P^)7CC)7}$", "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"].concat();
    let clamd = Clamd::start(&[("Test.Eicar", eicar.as_bytes())]);
    let node = Node::with(&["--clamd", clamd.socket().to_str().unwrap()]);
    for (name, content) in
        [("note.txt", eicar.as_bytes().to_vec()), ("a.zip", zip(&[("in/note.txt", eicar.as_bytes())]))]
    {
        let reply = send(&node, name, &with_file(name, &content));
        assert!(reply.starts_with("554 5.7.1") && reply.contains("virus"), "{reply}");
        assert!(story(&node, &sender(name)).contains("Test.Eicar"));
    }
    assert!(send(&node, "x", &letter("x", "Nothing bad in here.")).starts_with("250"));
    let (_, _, ready) = crate::harness::http(node.port(90), "GET /readyz", "", "");
    assert!(ready.contains("\"up\":true") && ready.contains("ClamAV"), "{ready}");
    let (_, _, metrics) = crate::harness::http(node.port(90), "GET /metrics", "", "");
    assert!(metrics.contains("ortler_scanner_up") && metrics.contains("ortler_filter_scans_total"), "{metrics}");
    let scanner = || node.json(&["cluster", "status"])[0]["scanners"][0].clone();
    let is_told = |is_up: bool| {
        (0..50).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            scanner()["up"] == is_up
        })
    };
    assert!(is_told(true), "{}", scanner());
    assert!(scanner()["version"].as_str().unwrap().starts_with("ClamAV"), "{}", scanner());
    let shown = node.command(&["cluster", "status"]);
    assert!(shown.contains("clamd.sock up"), "{shown}");
    // It stands still: whoever asks is told to come again, and soon.
    clamd.signal("-STOP");
    std::thread::sleep(std::time::Duration::from_secs(6));
    let reply = send(&node, "y", &letter("y", "Nothing bad in here either."));
    assert!(reply.starts_with("451 4.7.0"), "{reply}");
    assert!(is_told(false), "{}", scanner());
    clamd.signal("-CONT");
    let back = (0..20).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(500));
        send(&node, "y", &letter("y", "Nothing bad in here either.")).starts_with("250")
    });
    assert!(back, "{}", node.log());
}
