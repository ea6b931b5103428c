//! Dialogues against a whole service: embedded stores in a temporary folder, a connection in memory.

use std::sync::Arc;
use std::time::Duration;

use base::{IdSource, SystemClock};
use directory::{Access, LoginGuard, NewAccount, Registry};
use mail::HeaderFields;
use mail::mime::summary::EnvelopeFields;
use mail::mime::{Parameter, Part, PartBody, Summary};
use store::{Storage, StorageSettings};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{Config, Mime, Services, serve};

/// Reads messages of one plain part: the summary is the message itself.
struct PlainMime;

impl Mime for PlainMime {
    fn summarise(&self, message: &[u8]) -> Arc<[u8]> {
        message.into()
    }

    fn read_summary(&self, message: &[u8]) -> Option<Summary> {
        let header_end = u32::try_from(mail::header::body_offset(message)).ok()?;
        let find = |name: &str| HeaderFields::of(message).find(|field| field.is(name)).map(|field| field.unfolded());
        let root = Part {
            media_type: "TEXT".to_owned(),
            media_subtype: "PLAIN".to_owned(),
            parameters: vec![Parameter { name: "charset".to_owned(), value: "utf-8".to_owned() }],
            content_id: None,
            description: None,
            encoding: "7BIT".to_owned(),
            md5: None,
            disposition: None,
            language: Vec::new(),
            location: None,
            header: 0..header_end,
            content: header_end..u32::try_from(message.len()).ok()?,
            body: PartBody::Leaf { lines: 1 },
        };
        Some(Summary {
            envelope: EnvelopeFields { subject: find("subject"), date: find("date"), ..EnvelopeFields::default() },
            root,
            sent_at: find("date").and_then(|date| mail::date::parse_rfc5322(std::str::from_utf8(&date).ok()?)),
            preview: "Hello".to_owned(),
            has_attachment: false,
            common_fields: message[..header_end as usize].to_vec(),
        })
    }

    fn text(&self, message: &[u8]) -> String {
        String::from_utf8_lossy(&message[mail::header::body_offset(message)..]).into_owned()
    }

    fn header_text(&self, value: &[u8]) -> String {
        String::from_utf8_lossy(value).replace("\r\n", "")
    }
}

struct Node {
    services: Arc<Services>,
    _folder: tempfile::TempDir,
}

async fn node() -> Node {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock);
    let ids = Arc::new(IdSource::system());
    let storage = Storage::open(folder.path(), StorageSettings::default(), clock.clone(), ids).unwrap();
    let guard = LoginGuard::new(true);
    let directory = Registry::open(&folder.path().join("directory.sqlite"), clock, None, guard).unwrap();
    directory.add_domain("example.test".parse().unwrap(), None).await.unwrap();
    let account = NewAccount {
        address: "anna@example.test".parse().unwrap(),
        name: "Anna".to_owned(),
        access: Access::User,
        password: "{PLAIN}pw".parse().unwrap(),
        quota: base::Quota::UNLIMITED,
        placement: directory::Placement::OfDomain,
    };
    directory.add_account(account).await.unwrap();
    let services = Services {
        mail: storage.mail.clone(),
        blobs: storage.blobs.clone(),
        views: storage.views.clone(),
        search: storage.search.clone(),
        directory: Arc::new(directory),
        mime: Arc::new(PlainMime),
        spool: Arc::new(net::SpoolSettings::in_folder(folder.path())),
        budget: net::MemoryBudget::new(base::ByteSize::mib(64)),
        tls: None,
        affinity: None,
        legacy: Arc::new(legacy::Gateway::new("test")),
    };
    Node { services: Arc::new(services), _folder: folder }
}

/// One client and the task that serves it.
struct Client {
    lines: BufReader<ReadHalf<DuplexStream>>,
    out: WriteHalf<DuplexStream>,
    served: tokio_util::task::AbortOnDropHandle<()>,
    cancel: CancellationToken,
    one_by_one: bool,
}

impl Node {
    fn connect(&self, config: Config) -> Client {
        let (near, far) = tokio::io::duplex(1 << 20);
        let cancel = CancellationToken::new();
        let peer = "127.0.0.1:9".parse().unwrap();
        let ids = Arc::new(IdSource::system());
        let work = serve(
            far,
            false,
            peer,
            Arc::new(config),
            Arc::clone(&self.services),
            ids,
            Arc::new(SystemClock),
            cancel.clone(),
        );
        #[expect(clippy::disallowed_methods, reason = "the handle ends it with the test")]
        let served = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(work));
        let (lines, out) = tokio::io::split(near);
        Client { lines: BufReader::new(lines), out, served, cancel, one_by_one: false }
    }

    async fn signed_in(&self) -> Client {
        let mut client = self.connect(open_config());
        client.talk("S: * OK …\nC: x LOGIN anna@example.test pw\nS: x OK …").await;
        client
    }
}

fn open_config() -> Config {
    Config { plain_login_on_loopback: true, ..Config::default() }
}

impl Client {
    async fn line(&mut self) -> String {
        let mut line = Vec::new();
        timeout(Duration::from_secs(10), self.lines.read_until(b'\n', &mut line)).await.expect("an answer").unwrap();
        String::from_utf8_lossy(&line).trim_end_matches("\r\n").to_owned()
    }

    async fn send(&mut self, text: &str) {
        if self.one_by_one {
            for byte in text.as_bytes() {
                self.out.write_all(&[*byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
        } else {
            self.out.write_all(text.as_bytes()).await.unwrap();
        }
    }

    /// `C:` lines are sent, `S:` lines expected; `…` in them stands for anything. `C~` is sent without a line end.
    async fn talk(&mut self, dialogue: &str) {
        for step in dialogue.lines() {
            let step = step.trim_start();
            if let Some(line) = step.strip_prefix("C: ") {
                self.send(&format!("{line}\r\n")).await;
            } else if let Some(text) = step.strip_prefix("C~ ") {
                self.send(text).await;
            } else if let Some(expected) = step.strip_prefix("S: ") {
                let line = self.line().await;
                assert!(fits(&line, expected), "expected {expected:?}, got {line:?}\nin: {dialogue}");
            } else if step == "S:" {
                assert_eq!(self.line().await, "");
            }
        }
    }

    async fn ends(mut self) {
        assert_eq!(self.line().await, "");
        timeout(Duration::from_secs(5), &mut self.served).await.expect("served").unwrap();
    }
}

fn fits(line: &str, expected: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let mut last = None;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = Some(part);
    }
    rest.is_empty() || last == Some("")
}

/// A dialogue after sign-in, whole lines and byte by byte, each on a fresh node.
async fn check(dialogue: &str) {
    for one_by_one in [false, true] {
        let node = node().await;
        let mut client = node.signed_in().await;
        client.one_by_one = one_by_one;
        client.talk(dialogue).await;
    }
}

#[tokio::test]
async fn sign_in() {
    let node = node().await;
    let mut client = node.connect(Config::default());
    client
        .talk(
            "S: * OK [CAPABILITY IMAP4rev1 …LOGINDISABLED] …
             C: a LOGIN anna@example.test pw
             S: a NO [PRIVACYREQUIRED] …
             C: b SELECT INBOX
             S: b BAD …
             C: c STARTTLS
             S: c BAD …
             C: d LOGOUT
             S: * BYE …
             S: d OK …",
        )
        .await;
    client.ends().await;

    let mut client = node.connect(open_config());
    client
        .talk(
            "S: * OK [CAPABILITY …AUTH=PLAIN AUTH=LOGIN] …
             C: a AUTHENTICATE PLAIN
             S: + 
             C: *
             S: a BAD …
             C: b AUTHENTICATE PLAIN AGFubmFAZXhhbXBsZS50ZXN0AHB3
             S: b OK [CAPABILITY …IDLE…
             C: c LOGIN x y
             S: c BAD …
             C: d NOOP
             S: d OK …",
        )
        .await;

    let mut client = node.connect(open_config());
    client
        .talk(
            "S: * OK …
             C: a AUTHENTICATE LOGIN
             S: + VXNlcm5hbWU6
             C: YW5uYUBleGFtcGxlLnRlc3Q=
             S: + UGFzc3dvcmQ6
             C: cHc=
             S: a OK …",
        )
        .await;

    let mut client = node.connect(open_config());
    client
        .talk(
            "S: * OK …
             C: a LOGIN anna@example.test wrong
             S: a NO [AUTHENTICATIONFAILED] …
             C: b LOGIN nobody@example.test pw
             S: b NO [AUTHENTICATIONFAILED] …
             C: c LOGIN anna@example.test wrong
             S: * BYE …",
        )
        .await;
    client.ends().await;
}

#[tokio::test]
async fn mailboxes() {
    check(
        "C: a LIST \"\" %
         S: * LIST (\\HasNoChildren) \"/\" \"INBOX\"
         S: * LIST (\\HasNoChildren \\Archive) \"/\" \"Archive\"
         S: * LIST (\\HasNoChildren \\Drafts) \"/\" \"Drafts\"
         S: * LIST (\\HasNoChildren \\Junk) \"/\" \"Junk\"
         S: * LIST (\\HasNoChildren \\Sent) \"/\" \"Sent\"
         S: * LIST (\\HasNoChildren \\Trash) \"/\" \"Trash\"
         S: a OK …
         C: b CREATE W&APw-/x
         S: b OK [MAILBOXID (F…)] …
         C: c CREATE W&APw-/x
         S: c NO [ALREADYEXISTS] …
         C: d SUBSCRIBE W&APw-/x
         S: d OK …
         C: e LIST (SUBSCRIBED RECURSIVEMATCH) \"\" W% RETURN (STATUS (MESSAGES UIDNEXT))
         S: * LIST (\\HasChildren…) \"/\" \"W&APw-\" (\"CHILDINFO\" (\"SUBSCRIBED\"))
         S: * STATUS \"W&APw-\" (MESSAGES 0 UIDNEXT 1)
         S: e OK …
         C: f RENAME W&APw- V
         S: f OK …
         C: g LIST \"\" V/*
         S: * LIST (\\HasNoChildren) \"/\" \"V/x\"
         S: g OK …
         C: h DELETE V/x
         S: h OK …
         C: i DELETE V/x
         S: i NO [NONEXISTENT] …
         C: j DELETE INBOX
         S: j NO [CANNOT] …
         C: k CREATE a//b
         S: k NO [CANNOT] …
         C: l STATUS INBOX (MESSAGES RECENT UIDNEXT UIDVALIDITY UNSEEN SIZE HIGHESTMODSEQ)
         S: * STATUS \"INBOX\" (MESSAGES 0 RECENT 0 UIDNEXT 1 UIDVALIDITY …)
         S: l OK …
         C: m LIST \"\" \"\"
         S: * LIST (\\Noselect) \"/\" \"\"
         S: m OK …
         C: n NAMESPACE
         S: * NAMESPACE ((\"\" \"/\")) NIL NIL
         S: n OK …
         C: o CREATE New (USE (\\Flagged))
         S: o NO [USEATTR] …
         C: p CREATE New (USE (\\Sent))
         S: p NO [USEATTR] …",
    )
    .await;
}

fn message(subject: &str) -> String {
    format!(
        "From: a@example.test\r\nSubject: {subject}\r\nDate: Sat, 1 Feb 2020 10:00:00 +0000\r\nX-Own: y\r\n\r\nHello world {subject}\r\n"
    )
}

impl Client {
    async fn append(&mut self, mailbox: &str, flags: &str, subject: &str) {
        let message = message(subject);
        self.send(&format!("app APPEND {mailbox} {flags}{{{}+}}\r\n{message}\r\n", message.len())).await;
    }

    async fn filled(&mut self, subjects: &[&str]) {
        for subject in subjects {
            self.append("INBOX", "(\\Flagged) \" 1-Feb-2020 10:00:00 +0000\" ", subject).await;
            self.talk("S: app OK [APPENDUID …] …").await;
        }
    }
}

#[tokio::test]
async fn fetch_and_seen() {
    for one_by_one in [false, true] {
        let node = node().await;
        let mut client = node.signed_in().await;
        client.one_by_one = one_by_one;
        client.filled(&["one", "two"]).await;
        client
            .talk(
                "C: a SELECT INBOX
                 S: * FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)
                 S: * OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] …
                 S: * 2 EXISTS
                 S: * 0 RECENT
                 S: * OK [UNSEEN 1] …
                 S: * OK [UIDVALIDITY …] …
                 S: * OK [UIDNEXT 3] …
                 S: * OK [HIGHESTMODSEQ …] …
                 S: * OK [MAILBOXID (F…)] …
                 S: a OK [READ-WRITE] …
                 C: b FETCH 1:* (UID FLAGS)
                 S: * 1 FETCH (UID 1 FLAGS (\\Flagged))
                 S: * 2 FETCH (UID 2 FLAGS (\\Flagged))
                 S: b OK …
                 C: c UID FETCH 2:* (RFC822.SIZE INTERNALDATE BODY.PEEK[HEADER.FIELDS (subject x-none)])
                 S: * 2 FETCH (UID 2 RFC822.SIZE 103 INTERNALDATE \" 1-Feb-2020 10:00:00 +0000\" BODY[HEADER.FIELDS (SUBJECT X-NONE)] {16}
                 S: Subject: two
                 S:
                 S: )
                 S: c OK …
                 C: d FETCH 1 BODY[TEXT]<6.5>
                 S: * 1 FETCH (BODY[TEXT]<6> {5}
                 S: world)
                 S: * 1 FETCH (UID 1 FLAGS (\\Flagged \\Seen))
                 S: d OK …
                 C: e FETCH 1 (BODY.PEEK[1] BODY.PEEK[2] BODY.PEEK[TEXT]<900.5>)
                 S: * 1 FETCH (BODY[1] {17}
                 S: Hello world one
                 S:  BODY[2] NIL BODY[TEXT]<900> {0}
                 S: )
                 S: e OK …
                 C: ee FETCH 2 (ENVELOPE BODYSTRUCTURE BODY PREVIEW EMAILID THREADID)
                 S: * 2 FETCH (ENVELOPE (\"Sat, 1 Feb 2020 10:00:00 +0000\" \"two\" NIL NIL NIL NIL NIL NIL NIL NIL) BODYSTRUCTURE (\"TEXT\" \"PLAIN\" (\"charset\" \"utf-8\") NIL NIL \"7BIT\" 17 1 NIL NIL NIL NIL) BODY (\"TEXT\" \"PLAIN\" (\"charset\" \"utf-8\") NIL NIL \"7BIT\" 17 1) PREVIEW \"Hello\" EMAILID (M…) THREADID (T…))
                 S: ee OK …
                 C: f FETCH 3 FLAGS
                 S: f BAD …
                 C: g UID FETCH 3:900 FLAGS
                 S: g OK …
                 C: h EXAMINE INBOX
                 S: * FLAGS …
                 S: * OK [PERMANENTFLAGS ()] …
                 S: * 2 EXISTS
                 S: * 0 RECENT
                 S: * OK [UNSEEN 2] …
                 S: * OK [UIDVALIDITY …
                 S: * OK [UIDNEXT 3] …
                 S: * OK [HIGHESTMODSEQ …
                 S: * OK [MAILBOXID …
                 S: h OK [READ-ONLY] …
                 C: i STORE 1 FLAGS ()
                 S: i NO [CANNOT] …
                 C: j FETCH 2 BODY[TEXT]
                 S: * 2 FETCH (BODY[TEXT] {17}
                 S: Hello world two
                 S: )
                 S: j OK …",
            )
            .await;
    }
}

#[tokio::test]
async fn store_copy_move_expunge() {
    for one_by_one in [false, true] {
        let node = node().await;
        let mut client = node.signed_in().await;
        client.one_by_one = one_by_one;
        client.filled(&["one", "two", "three", "four"]).await;
        client.send("a SELECT INBOX\r\n").await;
        while !client.line().await.starts_with("a OK") {}
        client
            .talk(
                "C: b STORE 2:3 +FLAGS (\\Deleted Work)
                 S: * 2 FETCH (UID 2 FLAGS (\\Flagged \\Deleted Work))
                 S: * 3 FETCH (UID 3 FLAGS (\\Flagged \\Deleted Work))
                 S: b OK …
                 C: c STORE 1 FLAGS.SILENT (\\Seen)
                 S: c OK …
                 C: d UID COPY 1,3 Archive
                 S: d OK [COPYUID … 1,3 1:2] …
                 C: e UID COPY 1 Nowhere
                 S: e NO [TRYCREATE] …
                 C: f UID EXPUNGE 3:*
                 S: * 3 EXPUNGE
                 S: f OK …
                 C: g MOVE 1 Trash
                 S: * OK [COPYUID … 1 1] …
                 S: * 1 EXPUNGE
                 S: g OK …
                 C: h EXPUNGE
                 S: * 1 EXPUNGE
                 S: h OK …
                 C: i UID STORE 4 (UNCHANGEDSINCE 1) +FLAGS (\\Seen)
                 S: i OK [MODIFIED 4] …
                 C: j UID FETCH 4 (FLAGS MODSEQ)
                 S: * 1 FETCH (UID 4 FLAGS (\\Flagged) MODSEQ (…))
                 S: j OK …
                 C: k UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1)
                 S: * 1 FETCH (UID 4 FLAGS (\\Flagged) MODSEQ (…))
                 S: k OK …
                 C: l STORE 1 +FLAGS.SILENT (\\Deleted)
                 S: * 1 FETCH (UID 4 FLAGS (\\Flagged \\Deleted) MODSEQ (…))
                 S: l OK …
                 C: m CLOSE
                 S: m OK …
                 C: n STATUS INBOX (MESSAGES)
                 S: * STATUS \"INBOX\" (MESSAGES 0)
                 S: n OK …
                 C: o STATUS Archive (MESSAGES UNSEEN DELETED)
                 S: * STATUS \"Archive\" (MESSAGES 2 UNSEEN 1 DELETED 1)
                 S: o OK …",
            )
            .await;
    }
}

#[tokio::test]
async fn search() {
    let node = node().await;
    let mut client = node.signed_in().await;
    client.filled(&["one", "two", "ÜBER"]).await;
    client.send("a SELECT INBOX\r\n").await;
    while !client.line().await.starts_with("a OK") {}
    for (keys, found) in [
        ("ALL", " 1 2 3"),
        ("UNSEEN 2:*", " 2 3"),
        ("SUBJECT TWO", " 2"),
        ("BODY \"world one\"", " 1"),
        ("TEXT x-own", " 1 2 3"),
        ("HEADER X-Own \"\"", " 1 2 3"),
        ("HEADER X-None \"\"", ""),
        ("NOT SUBJECT one", " 2 3"),
        ("OR SUBJECT one BODY two", " 1 2"),
        ("CHARSET UTF-8 SUBJECT {5+}\r\nüber", " 3"),
        ("SINCE 1-Feb-2020 BEFORE 2-Feb-2020", " 1 2 3"),
        ("SENTON 1-Feb-2020", " 1 2 3"),
        ("SENTSINCE 2-Feb-2020", ""),
        ("LARGER 103", " 3"),
        ("KEYWORD none", ""),
        ("YOUNGER 100", ""),
        ("UID 2", " 2"),
        ("NEW", ""),
    ] {
        client.send(&format!("b SEARCH {keys}\r\n")).await;
        client.talk(&format!("S: * SEARCH{found}\nS: b OK …")).await;
    }
    client
        .talk(
            "C: c UID SEARCH RETURN (MIN MAX COUNT ALL) NOT SUBJECT two
             S: * ESEARCH (TAG \"c\") UID MIN 1 MAX 3 ALL 1,3 COUNT 2
             S: c OK …
             C: d SEARCH CHARSET KOI8-R ALL
             S: d NO [BADCHARSET …
             C: e SEARCH MODSEQ 1
             S: * SEARCH 1 2 3 (MODSEQ …)
             S: e OK …",
        )
        .await;
}

#[tokio::test]
async fn news_reach_other_sessions() {
    let node = node().await;
    let (mut near, mut far) = (node.signed_in().await, node.signed_in().await);
    near.filled(&["one", "two"]).await;
    for client in [&mut near, &mut far] {
        client.send("a SELECT INBOX\r\n").await;
        while !client.line().await.starts_with("a OK") {}
    }
    far.talk("C: b IDLE\nS: + idling").await;
    near.append("INBOX", "", "three").await;
    near.talk("S: * 3 EXISTS\nS: app OK …").await;
    far.talk("S: * 3 EXISTS").await;
    near.talk("C: c UID STORE 1 +FLAGS.SILENT (\\Deleted)\nS: c OK …").await;
    far.talk("S: * 1 FETCH (UID 1 FLAGS (\\Flagged \\Deleted))").await;
    near.talk("C: d EXPUNGE\nS: * 1 EXPUNGE\nS: d OK …").await;
    far.talk("S: * 1 EXPUNGE\nC: DONE\nS: b OK …").await;
    // Sequence numbers stay while a command by number runs; its successor tells.
    near.talk("C: e STORE 1 +FLAGS.SILENT (\\Deleted)\nS: e OK …\nC: f EXPUNGE\nS: * 1 EXPUNGE\nS: f OK …").await;
    far.talk("C: g FETCH 1 UID\nS: * 1 FETCH (UID 2)\nS: g OK …\nC: h NOOP\nS: * 1 EXPUNGE\nS: h OK …").await;
}

#[tokio::test]
async fn a_message_gone_meanwhile() {
    let node = node().await;
    let (mut near, mut far) = (node.signed_in().await, node.signed_in().await);
    near.filled(&["one", "two"]).await;
    for client in [&mut near, &mut far] {
        client.send("a SELECT INBOX\r\n").await;
        while !client.line().await.starts_with("a OK") {}
    }
    near.talk("C: b STORE 1 +FLAGS.SILENT (\\Deleted)\nS: b OK …\nC: c EXPUNGE\nS: * 1 EXPUNGE\nS: c OK …").await;
    far.talk("C: d FETCH 1:2 (RFC822.SIZE)\nS: * 2 FETCH (RFC822.SIZE 103)\nS: d NO [EXPUNGEISSUED] …").await;
    far.talk("C: e UID FETCH 1 (RFC822.SIZE)\nS: * 1 EXPUNGE\nS: e OK …").await;
    // A mailbox deleted under a session ends it.
    near.talk("C: f CREATE Gone\nS: f OK …").await;
    far.send("g SELECT Gone\r\n").await;
    while !far.line().await.starts_with("g OK") {}
    near.talk("C: h DELETE Gone\nS: h OK …").await;
    far.talk("C: i NOOP\nS: * BYE …").await;
    far.ends().await;
}

#[tokio::test]
async fn append_refusals_keep_the_stream_in_step() {
    for one_by_one in [false, true] {
        let node = node().await;
        let small = Config { message_size_max: base::ByteSize(20), ..open_config() };
        let mut client = node.connect(small);
        client.talk("S: * OK …\nC: x LOGIN anna@example.test pw\nS: x OK …").await;
        client.one_by_one = one_by_one;
        client
            .talk(
                "C: a APPEND INBOX {21+}
                 C: 123456789012345678901
                 S: a NO [TOOBIG] …
                 C: b APPEND INBOX {21}
                 S: b NO [TOOBIG] …
                 C: c APPEND None {5+}
                 C: hello
                 S: c NO [TRYCREATE] …
                 C: d APPEND None {5}
                 S: d NO [TRYCREATE] …
                 C: e APPEND INBOX {6}
                 S: + OK
                 C: A: b
                 C: 
                 S: e OK [APPENDUID … 1] …
                 C: f NOOP
                 S: f OK …",
            )
            .await;
    }
}

#[tokio::test]
async fn several_messages_in_one_append() {
    let node = node().await;
    let mut client = node.signed_in().await;
    client.send("a APPEND INBOX {6+}\r\nA: 1\r\n (\\Seen) {6}\r\n").await;
    client.talk("S: + OK").await;
    client.send("A: 2\r\n\r\n").await;
    client.talk("S: a OK [APPENDUID … 1:2] …\nC: b STATUS INBOX (MESSAGES UNSEEN)\nS: * STATUS \"INBOX\" (MESSAGES 2 UNSEEN 1)\nS: b OK …").await;
}

#[tokio::test]
async fn goodbyes() {
    let node = node().await;
    let mut client = node.signed_in().await;
    client.cancel.cancel();
    client.talk("S: * BYE …").await;
    client.ends().await;

    let quick = Config { login_timeout: Duration::from_millis(50), ..open_config() };
    let mut client = node.connect(quick);
    client.talk("S: * OK …\nS: * BYE …").await;
    client.ends().await;

    let mut client = node.connect(open_config());
    client.talk("S: * OK …").await;
    for _ in 0..10 {
        client.talk("C: GET / HTTP/1.1\nS: GET BAD …").await;
    }
    client.talk("C: Host: x\nS: Host: BAD …\nS: * BYE …").await;
    client.ends().await;
}

#[tokio::test]
async fn large_bodies_stream() {
    let node = node().await;
    let mut client = node.signed_in().await;
    let line = format!("{}\r\n", "0123456789".repeat(7));
    let message = format!("Subject: large\r\n\r\n{}", line.repeat(20_000));
    client.send(&format!("a APPEND INBOX {{{}+}}\r\n", message.len())).await;
    client.send(&message).await;
    client.talk("C: \nS: a OK …\nC: b EXAMINE INBOX").await;
    while !client.line().await.starts_with("b OK") {}
    client.talk(&format!("C: c UID FETCH 1 BODY[]\nS: * 1 FETCH (UID 1 BODY[] {{{}}}", message.len())).await;
    let mut got = vec![0; message.len()];
    tokio::io::AsyncReadExt::read_exact(&mut client.lines, &mut got).await.unwrap();
    assert!(got == message.as_bytes());
    client.talk("S: )\nS: c OK …").await;
    let at = message.len() - 5;
    client
        .talk(&format!("C: d FETCH 1 BODY.PEEK[]<{at}.99>\nS: * 1 FETCH (BODY[]<{at}> {{5}}\nS: 789\nS: )\nS: d OK …"))
        .await;
}

/// Ten thousand idle sessions cost ten thousand of these.
#[tokio::test]
async fn an_idle_session_is_small() {
    let node = node().await;
    let (_near, far) = tokio::io::duplex(64);
    let work = serve(
        far,
        false,
        "127.0.0.1:9".parse().unwrap(),
        Arc::new(Config::default()),
        Arc::clone(&node.services),
        Arc::new(IdSource::system()),
        Arc::new(SystemClock),
        CancellationToken::new(),
    );
    assert!(size_of_val(&work) < 4096, "{} octets", size_of_val(&work));
}

#[tokio::test]
async fn start_tls() {
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, pki_types::PrivateKeyDer};
    let made = rcgen::generate_simple_self_signed(["example.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let chain = vec![made.cert.der().clone()];
    let server = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();

    let mut node = node().await;
    Arc::get_mut(&mut node.services).unwrap().tls = Some(Arc::new(server).into());
    let mut plain = node.connect(Config::default());
    plain.talk("S: * OK [CAPABILITY …STARTTLS LOGINDISABLED] …\nC: a STARTTLS\nS: a OK …").await;
    let Client { lines, out, served: _served, cancel: _cancel, .. } = plain;
    let stream = lines.into_inner().unsplit(out);
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let mut stream = BufReader::new(connector.connect("example.test".try_into().unwrap(), stream).await.unwrap());
    stream.write_all(b"b LOGIN anna@example.test pw\r\nc STARTTLS\r\n").await.unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert!(line.starts_with("b OK [CAPABILITY "), "{line}");
    line.clear();
    stream.read_line(&mut line).await.unwrap();
    assert!(line.starts_with("c BAD "), "{line}");

    // What is sent ahead of TLS is never taken for what came inside it.
    let mut injecting = node.connect(Config::default());
    injecting.talk("S: * OK …").await;
    injecting.send("a STARTTLS\r\nb NOOP\r\n").await;
    injecting.talk("S: a OK …").await;
    injecting.ends().await;
}

#[tokio::test]
async fn quota() {
    let node = node().await;
    let account = base::AccountId(1);
    let mut client = node.signed_in().await;
    client
        .talk(
            "C: a GETQUOTAROOT None/yet
             S: * QUOTAROOT \"None/yet\" \"account\"
             S: * QUOTA \"account\" ()
             S: a OK …",
        )
        .await;
    let quota = base::Quota { size: Some(base::ByteSize(64 * 1024)), messages: Some(2) };
    node.services.mail.set_quota(account, quota).await.unwrap();
    client.send("a APPEND INBOX (\\Deleted) {8+}\r\nA: 1\r\n\r\n {9+}\r\nA: 22\r\n\r\n\r\n").await;
    client
        .talk(
            "S: a OK [APPENDUID … 1:2] …
             C: b GETQUOTA \"account\"
             S: * QUOTA \"account\" (STORAGE 1 64 MESSAGE 2 2)
             S: b OK …
             C: c GETQUOTA other
             S: c NO [NONEXISTENT] …
             C: d STATUS INBOX (DELETED DELETED-STORAGE)
             S: * STATUS \"INBOX\" (DELETED 1 DELETED-STORAGE 8)
             S: d OK …
             C: e LIST \"\" INBOX RETURN (STATUS (DELETED-STORAGE))
             S: * LIST (…) \"/\" \"INBOX\"
             S: * STATUS \"INBOX\" (DELETED-STORAGE 8)
             S: e OK …
             C: f GETQUOTA
             S: f BAD …",
        )
        .await;
    client.send("g APPEND INBOX {6+}\r\nA: 1\r\n\r\n").await;
    client.talk("S: g NO [OVERQUOTA] …\nC: h SELECT INBOX").await;
    while !client.line().await.starts_with("h OK") {}
    client.talk("C: i COPY 1 INBOX\nS: i NO [OVERQUOTA] …").await;
}
