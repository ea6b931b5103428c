//! Dialogues against a whole service: embedded stores in a temporary folder, a connection in memory.

use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, IdSource, SystemClock, UtcMillis};
use bytes::Bytes;
use directory::{Access, LoginGuard, NewAccount, Registry};
use store::{Delivery, Flags, Role, SegmentSettings, SegmentStore, Signals, SqliteSettings, SqliteStore, Target};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{Config, Services, serve};

struct Node {
    services: Arc<Services>,
    account: AccountId,
    ids: Arc<IdSource>,
    _folder: tempfile::TempDir,
}

async fn node() -> Node {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock);
    let ids = Arc::new(IdSource::system());
    let signals = Arc::new(Signals::new());
    let mail = SqliteStore::open(folder.path(), SqliteSettings::default(), signals, clock.clone()).unwrap();
    let small = SegmentSettings { segment_size: 1 << 20, ..SegmentSettings::default() };
    let blobs = SegmentStore::open(folder.path(), small, mail.clone(), clock.clone(), Arc::clone(&ids)).unwrap();
    let guard = LoginGuard::new(true);
    let directory = Registry::open(&folder.path().join("directory.sqlite"), clock, None, guard).unwrap();
    directory.add_domain("example.test".parse().unwrap(), None).await.unwrap();
    let account = NewAccount {
        address: "anna@example.test".parse().unwrap(),
        name: "Anna".to_owned(),
        access: Access::User,
        password: "{PLAIN}p w".parse().unwrap(),
        quota: base::Quota::UNLIMITED,
        placement: directory::Placement::OfDomain,
    };
    let account = directory.add_account(account).await.unwrap();
    let (directory, maildrops) = (Arc::new(directory), Arc::default());
    let legacy = Arc::new(legacy::Gateway::new("test"));
    let services = Services { mail, blobs, directory, maildrops, tls: None, affinity: None, legacy };
    Node { services: Arc::new(services), account, ids, _folder: folder }
}

impl Node {
    async fn deliver(&self, prefix: &str, message: &str) {
        let blob = self.services.blobs.put(vec![Bytes::copy_from_slice(message.as_bytes())]).await.unwrap();
        let delivery = Delivery {
            account: self.account,
            message: self.ids.message(UtcMillis(1_000)),
            target: Target::Role(Role::Inbox),
            blob,
            prefix: Bytes::copy_from_slice(prefix.as_bytes()),
            summary: Arc::from(&b""[..]),
            flags: Flags::default(),
            received_at: UtcMillis(1_000),
        };
        for outcome in self.services.mail.deliver(vec![delivery]).await {
            outcome.unwrap();
        }
    }

    async fn unseen(&self) -> (u32, u32) {
        let inbox = self.services.mail.mailbox(self.account, &store::MailboxName::inbox()).await.unwrap().unwrap();
        (inbox.messages, inbox.unseen)
    }

    fn connect(&self, config: Config) -> Client {
        let (near, far) = tokio::io::duplex(1 << 20);
        let cancel = CancellationToken::new();
        let peer = "127.0.0.1:9".parse().unwrap();
        let (services, ids) = (Arc::clone(&self.services), Arc::clone(&self.ids));
        let work = serve(far, false, peer, Arc::new(config), services, ids, Arc::new(SystemClock), cancel.clone());
        #[expect(clippy::disallowed_methods, reason = "the handle ends it with the test")]
        let served = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(work));
        let (lines, out) = tokio::io::split(near);
        Client { lines: BufReader::new(lines), out, served, cancel, one_by_one: false }
    }

    async fn signed_in(&self) -> Client {
        let mut client = self.connect(open_config());
        client.talk("S: +OK …\nC: USER anna@example.test\nS: +OK\nC: PASS p w\nS: +OK …").await;
        client
    }
}

fn open_config() -> Config {
    Config { plain_login_on_loopback: true, ..Config::default() }
}

struct Client {
    lines: BufReader<ReadHalf<DuplexStream>>,
    out: WriteHalf<DuplexStream>,
    served: tokio_util::task::AbortOnDropHandle<()>,
    cancel: CancellationToken,
    one_by_one: bool,
}

impl Client {
    async fn line(&mut self) -> String {
        let mut line = Vec::new();
        timeout(Duration::from_secs(10), self.lines.read_until(b'\n', &mut line)).await.expect("an answer").unwrap();
        String::from_utf8_lossy(&line).trim_end_matches("\r\n").to_owned()
    }

    async fn send(&mut self, text: &str) {
        let step = if self.one_by_one { 1 } else { text.len().max(1) };
        for piece in text.as_bytes().chunks(step) {
            self.out.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
    }

    /// `C:` lines are sent, `S:` lines expected; a `…` at the end stands for anything.
    async fn talk(&mut self, dialogue: &str) {
        for step in dialogue.lines().map(str::trim_start) {
            if let Some(line) = step.strip_prefix("C: ") {
                self.send(&format!("{line}\r\n")).await;
            } else if let Some(expected) = step.strip_prefix("S: ") {
                let line = self.line().await;
                let fits = match expected.strip_suffix('…') {
                    Some(start) => line.starts_with(start),
                    None => line == expected,
                };
                assert!(fits, "expected {expected:?}, got {line:?}");
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

#[tokio::test]
async fn reading_and_deleting() {
    for one_by_one in [false, true] {
        let node = node().await;
        node.deliver("Return-Path: <>\r\n", "A: 1\r\n\r\n.dot\r\nlast\r\n").await;
        node.deliver("", "B: 2\r\n\r\nno end").await;
        let mut client = node.signed_in().await;
        client.one_by_one = one_by_one;
        client
            .talk(
                "C: STAT
                 S: +OK 2 51
                 C: LIST
                 S: +OK
                 S: 1 37
                 S: 2 14
                 S: .
                 C: LIST 2
                 S: +OK 2 14
                 C: LIST 3
                 S: -ERR …
                 C: RETR 1
                 S: +OK 37 octets
                 S: Return-Path: <>
                 S: A: 1
                 S:
                 S: ..dot
                 S: last
                 S: .
                 C: TOP 2 0
                 S: +OK …
                 S: B: 2
                 S:
                 S: .
                 C: RETR 2
                 S: +OK …
                 S: B: 2
                 S:
                 S: no end
                 S: .
                 C: DELE 1
                 S: +OK
                 C: DELE 1
                 S: -ERR …
                 C: RETR 1
                 S: -ERR …
                 C: STAT
                 S: +OK 1 14
                 C: RSET
                 S: +OK
                 C: DELE 2
                 S: +OK
                 C: NOOP
                 S: +OK
                 C: QUIT
                 S: +OK …",
            )
            .await;
        client.ends().await;
        assert_eq!(node.unseen().await, (1, 0));
    }
}

#[tokio::test]
async fn unique_ids_stay() {
    let node = node().await;
    node.deliver("", "A: 1\r\n\r\nx\r\n").await;
    node.deliver("", "A: 2\r\n\r\nx\r\n").await;
    let mut client = node.signed_in().await;
    client.talk("C: UIDL\nS: +OK").await;
    let (first, second) = (client.line().await, client.line().await);
    client.talk("S: .\nC: DELE 1\nS: +OK\nC: QUIT\nS: +OK …").await;
    client.ends().await;
    assert!(first.starts_with("1 ") && first[2..] != second[2..]);
    let mut client = node.signed_in().await;
    client.talk(&format!("C: UIDL 1\nS: +OK 1 {}", &second[2..])).await;
}

#[tokio::test]
async fn without_quit_nothing_is_deleted_and_the_lock_goes() {
    let node = node().await;
    node.deliver("", "A: 1\r\n\r\nx\r\n").await;
    let mut client = node.signed_in().await;
    let mut second = node.connect(open_config());
    second.talk("S: +OK …\nC: USER anna@example.test\nS: +OK\nC: PASS p w\nS: -ERR [IN-USE] …").await;
    client.talk("C: DELE 1\nS: +OK").await;
    client.cancel.cancel();
    client.talk("S: -ERR [SYS/TEMP] …").await;
    client.ends().await;
    assert_eq!(node.unseen().await, (1, 1));
    second.talk("C: USER anna@example.test\nS: +OK\nC: PASS p w\nS: +OK …\nC: STAT\nS: +OK 1 11").await;
}

#[tokio::test]
async fn sign_in() {
    let node = node().await;
    let mut client = node.connect(Config::default());
    client.talk("S: +OK …\nC: USER a\nS: -ERR …\nC: STLS\nS: -ERR …\nC: STAT\nS: -ERR …\nC: QUIT\nS: +OK …").await;
    client.ends().await;

    let mut client = node.connect(open_config());
    client
        .talk(
            "S: +OK …
             C: CAPA
             S: +OK
             S: TOP
             S: UIDL
             S: RESP-CODES
             S: AUTH-RESP-CODE
             S: PIPELINING
             S: EXPIRE NEVER
             S: UTF8
             S: USER
             S: SASL PLAIN
             S: IMPLEMENTATION Ortler
             S: .
             C: PASS x
             S: -ERR …
             C: AUTH
             S: +OK
             S: PLAIN
             S: .
             C: AUTH PLAIN
             S: + 
             C: *
             S: -ERR …
             C: AUTH PLAIN AGFubmFAZXhhbXBsZS50ZXN0AHAgdw==
             S: +OK …
             C: USER x
             S: -ERR …",
        )
        .await;

    let mut client = node.connect(open_config());
    client.talk("S: +OK …").await;
    for _ in 0..3 {
        client.talk("C: USER anna@example.test\nS: +OK\nC: PASS no\nS: -ERR [AUTH] …").await;
    }
    client.ends().await;
}

#[tokio::test]
async fn long_lines_and_pipelining() {
    let node = node().await;
    for size in [5_000, 50_000] {
        let mut client = node.connect(open_config());
        client.send(&format!("{}\r\nNOOP\r\nCAPB\r\nQUIT\r\n", "x".repeat(size))).await;
        client.talk("S: +OK …\nS: -ERR Line …\nS: -ERR Sign …\nS: -ERR unknown …\nS: +OK …").await;
        client.ends().await;
    }
}
