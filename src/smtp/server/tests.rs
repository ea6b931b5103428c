use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::{AccountId, ByteSize, IdSource, MessageId, SystemClock};
use mail::{Enhanced, ForwardPath, ReversePath, Status};
use net::{MemoryBudget, Spool, SpoolSettings, Spooled, Stream, Tls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::proto::MailParameters;
use crate::server::{
    Config, Credentials, Handler, Identity, Limits, Protocol, SessionFacts, SignIn, Transaction, serve,
};

/// Knows `known@a.test`, takes `secret` for a password, keeps what it got.
struct Fake {
    folder: tempfile::TempDir,
    messages: Mutex<Vec<(String, Vec<u8>)>>,
    abandoned: Mutex<usize>,
}

const NO: Status = Status::fixed(550, Enhanced(5, 1, 1), "No such user");

#[async_trait]
impl Handler for Arc<Fake> {
    async fn greeted(&mut self, facts: &SessionFacts) -> Result<(), Status> {
        if facts.helo == "liar" { Err(Status::fixed(550, Enhanced(5, 7, 1), "Not you")) } else { Ok(()) }
    }
    async fn connected(&mut self, facts: &SessionFacts) -> Result<(), Status> {
        if facts.client.ip().to_string() == "192.0.2.66" {
            Err(Status::fixed(554, Enhanced(5, 7, 1), "No"))
        } else {
            Ok(())
        }
    }
    async fn authenticate(&mut self, _: &SessionFacts, credentials: Credentials) -> Result<SignIn, Status> {
        if credentials.login == "known@a.test" && credentials.password.reveal() == "secret" {
            let address = "known@a.test".parse().unwrap();
            Ok(SignIn::Here(Identity { account: AccountId(1), address, mechanism: credentials.mechanism }))
        } else {
            Err(Status::fixed(535, Enhanced(5, 7, 8), "Authentication failed"))
        }
    }
    async fn sender(
        &mut self,
        _: &SessionFacts,
        _: MessageId,
        _: &ReversePath,
        _: &MailParameters,
    ) -> Result<(), Status> {
        Ok(())
    }
    async fn recipient(&mut self, _: &SessionFacts, _: &Transaction, path: &ForwardPath) -> Result<(), Status> {
        if path.to_string().starts_with("known") { Ok(()) } else { Err(NO) }
    }
    fn spool(&self) -> Spool {
        let folder = self.folder.path().to_path_buf();
        Spool::new(Arc::new(SpoolSettings {
            folder,
            memory_max: ByteSize(100),
            size_max: ByteSize::kib(64),
            waiting: MemoryBudget::new(ByteSize::mib(1)),
        }))
    }
    async fn message(&mut self, facts: &SessionFacts, transaction: Transaction, content: Spooled) -> Vec<Status> {
        let (bytes, _permit) = content.into_bytes(&MemoryBudget::new(ByteSize::mib(1)), 1).await.unwrap();
        self.messages.lock().await.push((facts.client.ip().to_string(), bytes.to_vec()));
        let one = Status::fixed(250, Enhanced(2, 0, 0), "Queued");
        if !transaction.answers_each {
            return vec![one];
        }
        let refused = Status::fixed(550, Enhanced(5, 7, 1), "Not for me");
        let answer =
            |path: &ForwardPath| if path.to_string().contains("picky") { refused.clone() } else { one.clone() };
        transaction.envelope.forward_paths.iter().map(answer).collect()
    }
    async fn abandoned(&mut self, _: &SessionFacts, _: &Transaction, _: &Status) {
        *self.abandoned.lock().await += 1;
    }
    async fn closed(&mut self, _: &SessionFacts) {}
}

/// Sends `wire` in pieces of `step` octets to a fresh server; gives all it said and the handler.
async fn converse(protocol: Protocol, trusted: bool, wire: &[u8], step: usize) -> (String, Arc<Fake>) {
    let fake = Arc::new(Fake {
        folder: tempfile::tempdir().unwrap(),
        messages: Mutex::default(),
        abandoned: Mutex::default(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut said = vec![0; 4096];
        // Waits for the greeting, as a patient client does.
        let length = stream.read(&mut said).await.unwrap();
        said.truncate(length);
        for piece in wire.chunks(step) {
            if stream.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut said).await;
        String::from_utf8(said).unwrap()
    };
    let server = async {
        let (stream, peer) = listener.accept().await.unwrap();
        let config = Config {
            host_name: "mx.test".to_owned(),
            protocol,
            limits: Limits {
                message_size_max: ByteSize::kib(64),
                recipients_max: 3,
                errors_max: 10,
                ..Limits::default()
            },
            tls: None,
            plain_login_on_loopback: true,
        };
        let (ids, clock) = (Arc::new(IdSource::system()), Arc::new(SystemClock));
        serve(
            Stream::Plain(stream),
            peer,
            trusted,
            Arc::new(config),
            Box::new(fake.clone()),
            ids,
            clock,
            CancellationToken::new(),
        )
        .await;
    };
    let (said, ()) =
        tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(client, server) }).await.unwrap();
    (said, fake)
}

/// `C:` lines are sent, `S:` lines must begin what is answered, in order; the same however the input is split.
async fn check_as(protocol: Protocol, trusted: bool, dialogue: &str) -> Arc<Fake> {
    let wire: String =
        dialogue.lines().filter_map(|line| line.strip_prefix("C: ")).map(|line| format!("{line}\r\n")).collect();
    let expected: Vec<&str> = dialogue.lines().filter_map(|line| line.strip_prefix("S: ")).collect();
    let mut last = None;
    for step in [usize::MAX, 1, 7] {
        let (said, fake) = converse(protocol, trusted, wire.as_bytes(), step).await;
        let said: Vec<&str> = said.lines().collect();
        let fits =
            said.len() == expected.len() && said.iter().zip(&expected).all(|(said, wanted)| said.starts_with(wanted));
        assert!(fits, "pieces of {step}:\n{}\nexpected:\n{}", said.join("\n"), expected.join("\n"));
        last = Some(fake);
    }
    last.unwrap()
}

async fn check(dialogue: &str) -> Arc<Fake> {
    check_as(Protocol::Smtp, false, dialogue).await
}

const HELLO: &str = "S: 220 mx.test ESMTP\nC: HELO x\nS: 250 mx.test\n";

#[tokio::test]
async fn a_message_comes_in() {
    let fake = check(&format!(
        "{HELLO}C: MAIL FROM:<a@x.test>\nS: 250 2.1.0\nC: RCPT TO:<who@a.test>\nS: 550 5.1.1\nC: RCPT TO:<known@a.test>\nS: 250 2.1.5\n\
         C: DATA\nS: 354\nC: Subject: x\nC: \nC: ..dot\nC: .\nS: 250 2.0.0\nC: QUIT\nS: 221 2.0.0"
    ))
    .await;
    assert_eq!(fake.messages.lock().await[0].1, b"Subject: x\r\n\r\n.dot\r\n");
}

#[tokio::test]
async fn extensions_are_offered() {
    check(
        "S: 220\nC: EHLO x\nS: 250-mx.test\nS: 250-PIPELINING\nS: 250-8BITMIME\nS: 250-SMTPUTF8\nS: 250-CHUNKING\n\
         S: 250-ENHANCEDSTATUSCODES\nS: 250-DSN\nS: 250-SIZE 65536\nS: 250 PRDR\nC: AUTH PLAIN\nS: 502 5.5.1\nC: STARTTLS\nS: 502",
    )
    .await;
}

#[tokio::test]
async fn commands_out_of_order_are_refused() {
    check(
        "S: 220\nC: MAIL FROM:<a@x.test>\nS: 503 5.5.1\nC: HELO x\nS: 250\nC: DATA\nS: 503 5.5.1\nC: RCPT TO:<known@a.test>\nS: 503\n\
         C: MAIL FROM:<a@x.test>\nS: 250\nC: MAIL FROM:<a@x.test>\nS: 503\nC: DATA\nS: 503 5.5.1 No valid\nC: LHLO x\nS: 500\n\
         C: BOGUS\nS: 500 5.5.2\nC: MAIL\nS: 501 5.5.4\nC: RSET\nS: 250\nC: NOOP\nS: 250\nC: VRFY a\nS: 252\nC: EXPN a\nS: 502\nC: QUIT\nS: 221"
    )
    .await;
}

#[tokio::test]
async fn a_greeting_can_be_refused_and_ends_what_was_begun() {
    let fake = check(&format!(
        "S: 220\nC: HELO liar\nS: 550 5.7.1 Not you\nC: MAIL FROM:<a@x.test>\nS: 503\n{}C: MAIL FROM:<a@x.test>\nS: 250\n\
         C: EHLO liar\nS: 550 5.7.1\nC: RCPT TO:<known@a.test>\nS: 503\nC: MAIL FROM:<a@x.test>\nS: 503",
        HELLO.split_once('\n').unwrap().1
    ))
    .await;
    assert_eq!(*fake.abandoned.lock().await, 1);
}

#[tokio::test]
async fn limits_hold() {
    let fake = check(&format!(
        "{HELLO}C: MAIL FROM:<a@x.test> SIZE=99999\nS: 552 5.3.4\nC: MAIL FROM:<p\u{e4}@x.test>\nS: 553 5.6.7\nC: MAIL FROM:<a@x.test>\nS: 250\n\
         C: RCPT TO:<known1@a.test>\nS: 250\nC: RCPT TO:<known2@a.test>\nS: 250\nC: RCPT TO:<known3@a.test>\nS: 250\nC: RCPT TO:<known4@a.test>\nS: 452 4.5.3\n\
         C: DATA\nS: 354\nC: {}\nC: .\nS: 552 5.3.4\nC: NOOP\nS: 250",
        "x".repeat(70_000)
    ))
    .await;
    assert_eq!((fake.messages.lock().await.len(), *fake.abandoned.lock().await), (0, 1));
    let errors = "C: BOGUS\nS: 500\n".repeat(10);
    check(&format!("{HELLO}{errors}C: BOGUS\nS: 421 4.7.0")).await;
}

#[tokio::test]
async fn bare_line_ends_are_refused_after_the_message() {
    for body in ["a\nb\r\n.\r\n", "a\n.\nMAIL FROM:<evil@x.test>\r\n.\r\n", "a\r\n.\rQUIT\r\n.\r\n", "a\r\n\r\r\n.\r\n"]
    {
        let wire = format!("HELO x\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<known@a.test>\r\nDATA\r\n{body}NOOP\r\n");
        for step in [usize::MAX, 1] {
            let (said, fake) = converse(Protocol::Smtp, false, wire.as_bytes(), step).await;
            let codes: Vec<&str> = said.lines().map(|line| &line[..3]).collect();
            assert_eq!(codes, ["220", "250", "250", "250", "354", "550", "250"], "{body:?}\n{said}");
            assert!(fake.messages.lock().await.is_empty());
        }
    }
    let (said, _) = converse(Protocol::Smtp, false, b"NOOP\nNOOP\r\n", usize::MAX).await;
    assert_eq!(said.lines().map(|line| &line[..9]).collect::<Vec<_>>(), ["220 mx.te", "500 5.5.2", "250 2.0.0"]);
}

#[tokio::test]
async fn chunks_make_a_message_and_never_desynchronise() {
    let wire = b"EHLO x\r\nBDAT 6\r\nQUIT\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<known@a.test>\r\nBDAT 7\r\nA: b\r\n\rBDAT 4 LAST\r\n\nc\r\nNOOP\r\n";
    for step in [usize::MAX, 1, 5] {
        let (said, fake) = converse(Protocol::Smtp, false, wire, step).await;
        let codes: Vec<&str> = said.lines().filter(|line| !line.starts_with("250-")).map(|line| &line[..3]).collect();
        assert_eq!(codes, ["220", "250", "503", "250", "250", "250", "250", "250"], "{said}");
        assert_eq!(fake.messages.lock().await[0].1, b"A: b\r\n\r\nc\r\n");
    }
    let wire = b"EHLO x\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<known@a.test>\r\nBDAT 3 LAST\r\na\nbNOOP\r\n";
    let (said, fake) = converse(Protocol::Smtp, false, wire, 1).await;
    assert!(said.contains("550 5.6.11") && said.ends_with("250 2.0.0 OK\r\n") && fake.messages.lock().await.is_empty());
}

#[tokio::test]
async fn submission_wants_a_password() {
    // known@a.test NUL-separated with secret and with wrong.
    let (good, bad) = ("AGtub3duQGEudGVzdABzZWNyZXQ=", "AGtub3duQGEudGVzdAB3cm9uZw==");
    let hello = "S: 220\nC: EHLO x\nS: 250-\nS: 250-\nS: 250-\nS: 250-\nS: 250-\nS: 250-\nS: 250-DSN\nS: 250-SIZE\nS: 250-FUTURERELEASE 2592000 20\nS: 250 AUTH PLAIN LOGIN\n";
    check_as(Protocol::Submission, false, &format!(
        "{hello}C: MAIL FROM:<known@a.test>\nS: 530 5.7.0\nC: AUTH PLAIN {bad}\nS: 535 5.7.8\nC: AUTH PLAIN\nS: 334\nC: *\nS: 501 5.7.0\n\
         C: AUTH CRAM-MD5\nS: 504\nC: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: a25vd25AYS50ZXN0\nS: 334 UGFzc3dvcmQ6\nC: c2VjcmV0\nS: 235 2.7.0\n\
         C: AUTH PLAIN {good}\nS: 503\nC: MAIL FROM:<known@a.test>\nS: 250\nC: QUIT\nS: 221"
    )
    .replace("S: 250-\nS: 250-\nS: 250-\nS: 250-\nS: 250-\nS: 250-\n", "S: 250-\nS: 250-P\nS: 250-8\nS: 250-S\nS: 250-C\nS: 250-E\n"))
    .await;
    check_as(
        Protocol::Submission,
        false,
        &format!(
            "S: 220\nC: EHLO x\nS: 250-\nS: 250-P\nS: 250-8\nS: 250-S\nS: 250-C\nS: 250-E\nS: 250-D\nS: 250-SIZE\nS: 250-F\nS: 250 AUTH\n\
         C: AUTH PLAIN {bad}\nS: 535\nC: AUTH PLAIN {bad}\nS: 535\nC: AUTH PLAIN {bad}\nS: 421 4.7.0"
        ),
    )
    .await;
}

#[tokio::test]
async fn lmtp_answers_for_each_recipient() {
    check_as(
        Protocol::Lmtp,
        false,
        "S: 220 mx.test LMTP\nC: EHLO x\nS: 500\nC: LHLO x\nS: 250-mx.test\nS: 250-P\nS: 250-8\nS: 250-S\nS: 250-C\nS: 250-E\nS: 250-D\nS: 250 SIZE\n\
         C: MAIL FROM:<>\nS: 250\nC: RCPT TO:<known1@a.test>\nS: 250\nC: RCPT TO:<who@a.test>\nS: 550\nC: RCPT TO:<known2@a.test>\nS: 250\n\
         C: DATA\nS: 354\nC: x\nC: .\nS: 250 2.0.0\nS: 250 2.0.0\nC: QUIT\nS: 221",
    )
    .await;
}

#[tokio::test]
async fn recipients_are_answered_for_one_by_one_on_wish() {
    let with = |wish: &str, to: &[&str], said: &str| {
        let rcpt: String = to.iter().map(|to| format!("C: RCPT TO:<known-{to}@a.test>\nS: 250\n")).collect();
        format!(
            "{HELLO}C: MAIL FROM:<a@x.test>{wish}\nS: 250\n{rcpt}C: DATA\nS: 354\nC: x\nC: .\n{said}C: QUIT\nS: 221"
        )
    };
    check(&with(" PRDR", &["1", "picky", "2"], "S: 353\nS: 250\nS: 550 5.7.1\nS: 250\nS: 250\n")).await;
    check(&with(" PRDR", &["picky", "picky2"], "S: 353\nS: 550\nS: 550\nS: 550 5.7.1\n")).await;
    // One recipient's answer is the message's, and nobody is answered so unasked.
    check(&with(" PRDR", &["picky"], "S: 550 5.7.1\n")).await;
    check(&with("", &["1", "picky"], "S: 250\n")).await;
    check(&format!("{HELLO}C: MAIL FROM:<a@x.test> PRDR=1\nS: 555\n")).await;
}

#[tokio::test]
async fn only_trusted_clients_speak_for_others() {
    check("S: 220\nC: XCLIENT ADDR=192.0.2.7\nS: 550 5.7.0").await;
    let fake = check_as(
        Protocol::Smtp,
        true,
        "S: 220\nC: XCLIENT NAME=mail.x.test ADDR=192.0.2.7\nS: 220 mx.test\nC: HELO x\nS: 250\nC: MAIL FROM:<>\nS: 250\n\
         C: RCPT TO:<known@a.test>\nS: 250\nC: DATA\nS: 354\nC: x\nC: .\nS: 250",
    )
    .await;
    assert_eq!(fake.messages.lock().await[0].0, "192.0.2.7");
    // Who they speak for is turned away like anybody else.
    check_as(Protocol::Smtp, true, "S: 220\nC: XCLIENT ADDR=192.0.2.66\nS: 554 5.7.1 No").await;
}

#[tokio::test]
async fn nothing_said_before_tls_counts_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let tls = Tls::self_signed_in(folder.path(), vec!["mx.test".to_owned()]).unwrap();
    let fake = Arc::new(Fake {
        folder: tempfile::tempdir().unwrap(),
        messages: Mutex::default(),
        abandoned: Mutex::default(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = Arc::new(Config {
        host_name: "mx.test".to_owned(),
        protocol: Protocol::Smtp,
        limits: Limits::default(),
        tls: Some(tls.acceptor(&[]).unwrap()),
        plain_login_on_loopback: false,
    });
    let server = async {
        let (stream, peer) = listener.accept().await.unwrap();
        let (ids, clock) = (Arc::new(IdSource::system()), Arc::new(SystemClock));
        serve(Stream::Plain(stream), peer, false, config, Box::new(fake), ids, clock, CancellationToken::new()).await;
    };
    let client = tokio::task::spawn_blocking(move || {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut said = [0; 512];
        let _greeting = stream.read(&mut said).unwrap();
        // A command smuggled behind STARTTLS, in one piece with it.
        stream.write_all(b"EHLO evil\r\nSTARTTLS\r\nMAIL FROM:<evil@x.test>\r\n").unwrap();
        let mut plain = String::new();
        while !plain.contains("220 2.0.0") {
            let length = stream.read(&mut said).unwrap();
            plain.push_str(std::str::from_utf8(&said[..length]).unwrap());
        }
        let after: &str = plain.split_once("220 2.0.0").unwrap().1;
        assert_eq!(after.lines().count(), 1, "{plain}");
        // The server now waits for a handshake and takes nothing else.
        stream.write_all(b"NOOP\r\n").unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"250"), "{rest:?}");
    });
    let (done, ()) = tokio::join!(client, server);
    done.unwrap();
}
