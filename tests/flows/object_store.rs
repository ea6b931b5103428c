//! Large content in an object store, seen from outside: as if it lay in the database, and what happens without it.

use std::time::Duration;

use base::{Clock as _, SystemClock};
use engine::postgres::Server;
use serde_json::{Value, json};
use store::ObjectServer;

use super::postgres::add_accounts;
use crate::harness::{Conversation, Node, PASSWORD, base64, http, letter, ortler};

const USER: &str = "user1@example.test";

/// A PostgreSQL, an object store, and a node on both. It goes first.
struct Setup {
    node: Node,
    objects: ObjectServer,
    server: Server,
    _secret: tempfile::NamedTempFile,
}

impl Setup {
    fn start() -> Option<Self> {
        let (objects, server) = (ObjectServer::start()?, Server::start()?);
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), ObjectServer::SECRET).unwrap();
        let storage = format!(
            "object_store = [\"http://127.0.0.1:{}\"]\nobject_store_bucket = \"{}\"\nobject_store_access_key = \"{}\"\n\
             object_store_secret_file = \"{}\"\nobject_store_path_style = true\nobject_store_from = \"100 KB\"\n",
            objects.port(),
            ObjectServer::BUCKET,
            ObjectServer::ACCESS_KEY,
            secret.path().display()
        );
        let node = Node::on_postgres(&server.url(), &storage);
        add_accounts(&node, &["user1"]);
        Some(Self { node, objects, server, _secret: secret })
    }

    /// Past the server's door.
    fn sql(&self, text: &str) {
        let folder = self.server.socket_dir().display().to_string();
        let arguments = ["-q", "-v", "ON_ERROR_STOP=1", "-h", &folder, "-U", "ortler", "-d", "postgres", "-c", text];
        assert!(self.server.command("psql").args(arguments).status().unwrap().success(), "{text}");
    }

    fn send(&self, message: &[u8]) -> String {
        self.node.send("a@x.example", &[USER], message)
    }

    fn inbox(&self) -> Conversation {
        let mut imap = self.node.sign_in("user1");
        imap.tagged("SELECT INBOX");
        imap
    }

    fn pop3(&self) -> Conversation {
        let mut pop3 = self.node.connect(110);
        pop3.expect("+OK");
        pop3.say(&format!("USER {USER}")).expect("+OK");
        pop3.say(&format!("PASS {PASSWORD}")).expect("+OK");
        pop3
    }

    /// Asks for the message's whole content as JMAP clients do.
    fn download(&self, subject: &str) -> (u16, String) {
        let auth = format!("Authorization: Basic {}\r\n", base64(format!("{USER}:{PASSWORD}").as_bytes()));
        let call = json!({
            "using": ["urn:ietf:params:jmap:core", "urn:ietf:params:jmap:mail"],
            "methodCalls": [
                ["Email/query", { "accountId": "a1", "filter": { "subject": subject } }, "q"],
                ["Email/get", {
                    "accountId": "a1", "#ids": { "resultOf": "q", "name": "Email/query", "path": "/ids" },
                    "properties": ["blobId", "subject", "preview"],
                }, "g"],
            ],
        });
        let headers = format!("{auth}Content-Type: application/json\r\n");
        let (status, _, answer) = http(self.node.port(80), "POST /jmap/", &headers, &call.to_string());
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let email = &answer["methodResponses"][1][1]["list"][0];
        assert!(status == 200 && email["subject"] == subject, "{answer}");
        let blob = email["blobId"].as_str().unwrap();
        let (status, _, content) = http(self.node.port(80), &format!("GET /jmap/download/a1/{blob}/mail"), &auth, "");
        (status, content)
    }

    fn ready(&self) -> (u16, Value) {
        let (status, _, told) = http(self.node.port(90), "GET /readyz", "", "");
        (status, serde_json::from_str(&told).unwrap())
    }
}

/// A letter of about that many octets that hardly compress.
pub fn long_letter(subject: &str, size: usize) -> Vec<u8> {
    let mut state = subject.bytes().fold(7u64, |state, byte| state.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut text = String::with_capacity(size);
    while text.len() < size {
        for _ in 0..4 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(&format!("{:016x}", state ^ (state >> 29)));
        }
        text.push_str("\r\n");
    }
    letter(subject, &text)
}

fn append(imap: &mut Conversation, message: &[u8]) -> String {
    let asked = imap.outcome(&format!("APPEND INBOX {{{}}}", message.len()));
    if !asked.starts_with('+') {
        return asked;
    }
    imap.send(message).send(b"\r\n");
    loop {
        let line = imap.line();
        if line.starts_with("o ") {
            return line;
        }
        assert!(!line.is_empty(), "the connection ended");
    }
}

#[track_caller]
fn soon(mut holds: impl FnMut() -> bool) {
    let deadline = SystemClock.now() + Duration::from_secs(20);
    while !holds() {
        assert!(SystemClock.now() < deadline, "not within 20 s");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn large_messages_are_read_back_octet_for_octet_and_their_objects_go_with_them() {
    let Some(setup) = Setup::start() else { return };
    // Several frames; several parts of an upload; below the threshold.
    let sent = [long_letter("frames", 700_000), long_letter("parts", 9_000_000), letter("small", "A few words.")];
    for message in &sent {
        assert!(setup.send(message).starts_with("250"));
    }
    let mut imap = setup.inbox();
    let appended = [long_letter("appended", 400_000), letter("little", "Other words.")];
    for message in &appended {
        assert!(append(&mut imap, message).starts_with("o OK"));
    }
    assert_eq!(setup.objects.objects().len(), 3);

    imap.tagged("SELECT INBOX");
    let bodies = imap.fetch_bodies();
    assert_eq!(bodies.len(), 5);
    for (body, sent) in bodies.iter().zip(&sent) {
        assert!(body.ends_with(sent), "what was sent stands after our own header lines");
    }
    assert!(bodies[3] == appended[0] && bodies[4] == appended[1]);
    // Across the border of two frames, at the end and past it.
    for (uid, from, size) in [(1, 262_000, 1000), (2, 8_999_000, 3000), (4, 399_990, 5_000_000), (4, 0, 1)] {
        let part = imap.literal(&format!("UID FETCH {uid} (BODY.PEEK[]<{from}.{size}>)"));
        let whole = &bodies[uid - 1];
        assert!(part == whole[from..whole.len().min(from + size)], "{uid} {from} {size}");
    }
    let mut pop3 = setup.pop3();
    for (nth, body) in (1..).zip(&bodies) {
        pop3.say(&format!("RETR {nth}")).expect("+OK");
        assert!(pop3.multiline() == *body, "{nth}");
    }
    for (subject, nth) in [("frames", 0), ("parts", 1), ("small", 2), ("appended", 3)] {
        let (status, content) = setup.download(subject);
        assert!(status == 200 && content.as_bytes() == bodies[nth], "{subject}");
    }
    setup.node.command(&["audit", "--deep"]);

    // A copy refers to the same object.
    imap.tagged("UID COPY 1 Archive");
    imap.tagged("UID STORE 1,2,4 +FLAGS (\\Deleted)");
    imap.tagged("EXPUNGE");
    assert_eq!(setup.node.json(&["mailbox", "purge", USER, "--all"])["purged"], 3);
    setup.node.command(&["gc"]);
    assert_eq!(setup.objects.objects().len(), 3, "they stay for a day");
    setup.sql("UPDATE blob_release SET released_at = released_at - 2 * 86400000");
    assert_eq!(setup.node.json(&["gc"])["removed_objects"], 2);
    assert_eq!(setup.objects.objects().len(), 1);
    imap.tagged("SELECT Archive");
    assert!(imap.fetch_bodies() == [bodies[0].clone()]);
    setup.node.command(&["audit", "--deep"]);
}

#[test]
fn without_the_object_store_everything_but_large_content_goes_on() {
    let Some(mut setup) = Setup::start() else { return };
    let large = long_letter("large", 700_000);
    assert!(setup.send(&large).starts_with("250"));
    assert!(setup.send(&letter("small", "A few words.")).starts_with("250"));
    let mut imap = setup.inbox();
    let before = imap.fetch_bodies();
    let (status, told) = setup.ready();
    assert!(status == 200 && told["object_store"] == true, "{told}");

    setup.objects.stop();
    // What cannot be stored is for the sender to bring again; what can be is stored.
    let late = long_letter("late", 500_000);
    assert_eq!(setup.send(&late), "451 4.3.0 Temporary failure, try again later");
    assert!(setup.send(&letter("meanwhile", "Short.")).starts_with("250"));
    assert!(append(&mut imap, &late).starts_with("o NO [UNAVAILABLE]"));
    assert!(append(&mut imap, &letter("own", "Short.")).starts_with("o OK"));
    // Other nodes have no more of it: this one stays in service and says what it lacks.
    let (status, told) = setup.ready();
    assert!(status == 200 && told["ready"] == true && told["object_store"] == false, "{told}");
    let metrics = http(setup.node.port(90), "GET /metrics", "", "").2;
    assert!(metrics.contains("ortler_object_store_reachable 0"), "{metrics}");

    // Lists show the large message too.
    imap.tagged("SELECT INBOX");
    let listed = imap.tagged("FETCH 1:* (FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)").join("\n");
    for subject in ["large", "small", "meanwhile", "own"] {
        assert!(listed.contains(&format!("\"{subject}\"")), "{listed}");
    }
    assert!(!listed.contains("\"late\""), "{listed}");
    let fields = imap.literal("FETCH 1 (BODY.PEEK[HEADER.FIELDS (FROM SUBJECT DATE)])");
    assert!(String::from_utf8(fields).unwrap().contains("Subject: large\r\n"));
    imap.tagged("STORE 1 +FLAGS (\\Flagged)");
    // Its content is away, not lost: no notice in its place, which clients would keep for good.
    for items in ["BODY.PEEK[]", "BODY.PEEK[]<300000.100>", "BODY.PEEK[1]", "RFC822"] {
        let refused = imap.outcome(&format!("FETCH 1 ({items})"));
        assert!(refused.starts_with("o NO [UNAVAILABLE]"), "{items}: {refused}");
    }
    assert!(imap.literal("FETCH 2 (BODY.PEEK[])") == before[1], "the session goes on");
    let mut pop3 = setup.pop3();
    pop3.say("RETR 1").expect("-ERR [SYS/TEMP]");
    pop3.say("RETR 2").expect("+OK");
    assert!(pop3.multiline() == before[1]);
    assert_eq!(setup.download("large").0, 503);
    assert!(setup.download("small").1.as_bytes() == before[1]);
    let gc = ortler(&["gc", "--config", setup.node.config().to_str().unwrap()]);
    let audit = ortler(&["audit", "--deep", "--config", setup.node.config().to_str().unwrap()]);
    assert_eq!((gc.status.code(), audit.status.code()), (Some(1), Some(1)), "neither claims to be done");
    let told = String::from_utf8(audit.stdout).unwrap();
    assert!(told.contains("was not looked at") && !told.contains("it is not there"), "{told}");
    let metrics = http(setup.node.port(90), "GET /metrics", "", "").2;
    assert!(!metrics.contains("ortler_store_damaged_reads_total"), "{metrics}");
    assert!(!setup.node.log().contains("store.damaged"), "{}", setup.node.log());

    // It comes back: the same sessions, without a word of an operator.
    setup.objects.resume();
    soon(|| imap.outcome("FETCH 1 (BODY.PEEK[]<0.10>)").starts_with("o OK"));
    assert!(imap.literal("FETCH 1 (BODY.PEEK[])") == before[0]);
    pop3.say("RETR 1").expect("+OK");
    assert!(pop3.multiline() == before[0]);
    assert!(setup.download("large").1.as_bytes() == before[0]);
    assert!(setup.send(&late).starts_with("250"));
    assert!(append(&mut imap, &late).starts_with("o OK"));
    assert_eq!(setup.ready().1["object_store"], true);
    imap.tagged("SELECT INBOX");
    assert_eq!(imap.fetch_bodies().iter().filter(|body| body.ends_with(&late)).count(), 2, "none lost, none twice");
    setup.node.command(&["audit", "--deep"]);
    // Of what was turned away nothing is left.
    setup.sql("UPDATE blob_release SET released_at = released_at - 2 * 86400000");
    setup.node.command(&["gc"]);
    assert_eq!(setup.objects.objects().len(), 3);
    setup.node.command(&["audit", "--deep"]);
}

#[test]
fn an_object_that_somebody_deleted_is_a_notice_for_readers_and_named_by_the_audit() {
    let Some(setup) = Setup::start() else { return };
    let (kept, hurt) = (long_letter("kept", 400_000), long_letter("hurt", 400_000));
    assert!(setup.send(&kept).starts_with("250"));
    let known = setup.objects.objects();
    assert!(setup.send(&hurt).starts_with("250"));
    let mut imap = setup.inbox();
    let before = imap.fetch_bodies();
    let object = setup.objects.objects().into_iter().find(|file| !known.contains(file)).unwrap();
    std::fs::remove_file(&object).unwrap();

    let shown = imap.fetch_bodies();
    assert!(shown[0] == before[0]);
    assert_eq!(shown[1].len(), before[1].len(), "sizes that clients were told stay true");
    let text = String::from_utf8_lossy(&shown[1]);
    assert!(text.contains("Subject: hurt\r\n") && text.contains("is lost or damaged"), "{}", &text[..600]);
    let mut pop3 = setup.pop3();
    pop3.say("RETR 2").expect("+OK");
    assert!(pop3.multiline() == shown[1]);
    assert!(setup.download("hurt").1.contains("is lost or damaged"));
    let audit = ortler(&["audit", "--deep", "--config", setup.node.config().to_str().unwrap()]);
    let told = String::from_utf8(audit.stdout).unwrap();
    assert_eq!(audit.status.code(), Some(1));
    let name = object.strip_prefix(setup.objects.bucket()).unwrap().display().to_string();
    assert!(told.contains(&format!("object {name}: it is not there")), "{told}");
    assert!(
        told.contains(&format!("{USER}: account 1, mailbox 1 (INBOX), uid 2")) && !told.contains("uid 1"),
        "{told}"
    );
    assert_eq!(setup.node.log().matches("store.damaged").count(), 1, "{}", setup.node.log());
}
