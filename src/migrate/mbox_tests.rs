use std::io::Cursor;

use super::*;

const FALLBACK: UtcMillis = UtcMillis(1_000_000_000_000);

fn read(file: &[u8], limit: u64) -> Vec<Result<Message, String>> {
    let reader = Reader::new(Cursor::new(file), Path::new("box"), ByteSize(limit), FALLBACK);
    reader.take(1000).map(|read| read.map_err(|trouble| trouble.to_string())).collect()
}

#[track_caller]
fn check(file: &str, expected: &[&str]) {
    let found: Vec<String> = read(file.as_bytes(), 1 << 20)
        .into_iter()
        .map(|read| read.map_or_else(|trouble| trouble, |message| String::from_utf8(message.content).unwrap()))
        .collect();
    assert_eq!(found, expected);
}

const FROM: &str = "From a@b Sat Oct 31 10:42:07 2026\n";

#[test]
fn messages_are_told_apart() {
    check(
        &format!("{FROM}Subject: 1\n\none\n\n{FROM}Subject: 2\n\n>From here\n>>From there\nFrom now on\n\nFrom x\n\n"),
        &["Subject: 1\r\n\r\none\r\n", "Subject: 2\r\n\r\nFrom here\r\n>From there\r\nFrom now on\r\n\r\nFrom x\r\n"],
    );
    check(&format!("\n\n{FROM}A: 1\n\n{FROM}B: 2\n\nlast line torn"), &["A: 1\r\n\r\n", "B: 2\r\n\r\nlast line torn"]);
    check(
        &format!("noise\n\n{FROM}A: 1\n\nx\n\n"),
        &["box, line 1: text that belongs to no message", "A: 1\r\n\r\nx\r\n"],
    );
    check(
        "From somebody, some time\nA: 1\n\nx\n\nFrom somebody else\nB: 1\n\ny\n\n",
        &["A: 1\r\n\r\nx\r\n", "B: 1\r\n\r\ny\r\n"],
    );
    check(&format!("{FROM}\r\nSubject: 1\r\n").replace("2026\n\r\n", "2026\r\n"), &["Subject: 1\r\n"]);
    check(FROM, &["box, line 1: an empty message"]);
    check("", &[]);
    check(
        &format!("{FROM}Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\n\nx\n\n{FROM}A: 1\n\n"),
        &["A: 1\r\n\r\n"],
    );
}

#[test]
fn content_length_is_believed_if_it_fits() {
    // mboxcl2: nothing is quoted.
    let body = format!("one\n\n{FROM}two\n>From three\n");
    check(
        &format!("{FROM}Content-Length: {}\nA: 1\n\n{body}\n{FROM}B: 2\n\nx\n\n", body.len()),
        &[&format!("A: 1\r\n\r\n{}", body.replace('\n', "\r\n")), "B: 2\r\n\r\nx\r\n"],
    );
    // mboxcl: quoted all the same.
    check(&format!("{FROM}Content-Length: 8\n\n>From x\n\n"), &["\r\nFrom x\r\n"]);
    // A lie.
    check(
        &format!("{FROM}A: 1\nContent-Length: 3\n\nlonger\n\n{FROM}B: 2\n\n"),
        &["A: 1\r\n\r\nlonger\r\n", "B: 2\r\n\r\n"],
    );
    check(&format!("{FROM}A: 1\nContent-Length: 18446744073709551615\n\nx\n"), &["A: 1\r\n\r\nx\r\n"]);
}

#[test]
fn marks_are_read_and_taken_away() {
    let file =
        format!("{FROM}A: 1\nStatus: RO\nX-Status: AFDT\nX-Keywords: Work $Forwarded\nX-UID: 7\nB: 2\n\nStatus: x\n\n");
    let message = read(file.as_bytes(), 1 << 20).remove(0).unwrap();
    assert_eq!(message.content, b"A: 1\r\nB: 2\r\n\r\nStatus: x\r\n");
    assert_eq!(message.flags.system.bits(), 31);
    assert_eq!(format!("{:?}", message.flags.keywords), "{$Forwarded, Work}");
    assert_eq!(message.internal_date, UtcMillis(1_793_443_327_000));
}

#[test]
fn too_large_messages_are_left_out_and_named() {
    let file = format!("{FROM}A: 1\n\n{}\n\n{FROM}B: 2\n\nx\n\n", "long ".repeat(50_000));
    let found = read(file.as_bytes(), 1024);
    assert!(found[0].as_ref().unwrap_err().contains("box, line 1: larger than 1 KB"), "{found:?}");
    assert_eq!(found[1].as_ref().unwrap().content, b"B: 2\r\n\r\nx\r\n");
    assert_eq!(found.len(), 2);
}

/// A sequence that repeats run after run.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

const WORDS: [&str; 16] = [
    "From ",
    ">From ",
    ">>From a",
    "\n",
    "\r\n",
    "\n\n",
    "\r",
    "Status: RO\n",
    "Content-Length: 9\n",
    "Subject: x\n",
    ":",
    "é",
    "From a@b Sat Oct 31 10:42:07 2026\n",
    "X-Keywords: a b\n",
    " ",
    "text",
];

#[test]
fn anything_is_read_without_a_panic() {
    let mut random = Seeded(7);
    for _ in 0..3000 {
        let length = random.below(40);
        let mut file: Vec<u8> = (0..length).flat_map(|_| WORDS[random.below(WORDS.len())].bytes()).collect();
        if !file.is_empty() && random.below(2) == 0 {
            let at = random.below(file.len());
            file[at] = random.below(256) as u8;
        }
        for message in read(&file, 60).into_iter().flatten() {
            assert!(message.content.len() <= 120, "{:?}", String::from_utf8_lossy(&file));
        }
    }
}

#[test]
fn what_is_written_is_read_back() {
    let mut random = Seeded(11);
    for round in 0..2000 {
        let mut messages = Vec::new();
        let mut writer = Writer::new(Vec::new());
        for _ in 0..=random.below(3) {
            let body: String = (0..random.below(12)).map(|_| WORDS[random.below(WORDS.len())]).collect();
            let content = format!("Status: own\r\nA: {round}\r\n\r\n{body}").into_bytes();
            let keywords =
                ["a", "$b", "C"].into_iter().take(random.below(4)).map(|word| word.parse().unwrap()).collect();
            let flags = Flags { system: SystemFlags::from_bits(random.below(32) as u8), keywords };
            let message = Message { content, flags, internal_date: UtcMillis(random.below(1 << 30) as i64 * 1000) };
            writer.add(&message).unwrap();
            messages.push(Message { content: as_read(&message.content), ..message });
        }
        let file = writer.into_inner();
        let found: Vec<Message> = read(&file, 1 << 20).into_iter().map(Result::unwrap).collect();
        assert_eq!(found, messages, "{}", String::from_utf8_lossy(&file));
    }
}
