//! Old servers of many kinds, as dialogues.

use base::Secret;
use mail::ReversePath;
use net::{Endpoint, Security, Trust};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::{Client, Failure, Gateway, Opened, Outgoing, Place, Protocol, Transport};

/// Plays the server's part: says lines that begin with `S: `, and hears those that begin with `C: `, which must be so.
async fn play(stream: TcpStream, script: &str) {
    let mut stream = BufReader::new(stream);
    for line in script.lines().map(str::trim_start).filter(|line| !line.is_empty()) {
        let (who, text) = line.split_once(": ").unwrap_or((line, ""));
        match who {
            "S" => stream.write_all(format!("{text}\r\n").as_bytes()).await.unwrap(),
            "C" => {
                let mut heard = String::new();
                stream.read_line(&mut heard).await.unwrap();
                assert_eq!(heard.strip_suffix("\r\n"), Some(text), "after {script}");
            }
            _ => panic!("{line}"),
        }
    }
}

/// The server plays `script` while `visit` goes there.
async fn visit<T>(script: &str, security: Security, visit: impl AsyncFnOnce(&Gateway, &Endpoint) -> T) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let endpoint = Endpoint { host: "127.0.0.1".to_owned(), port, security };
    let gateway = Gateway::new("mx.example.test");
    let serving = async { play(listener.accept().await.unwrap().0, script).await };
    tokio::join!(serving, visit(&gateway, &endpoint)).1
}

async fn sign_in(
    protocol: Protocol,
    security: Security,
    (name, password): (&str, &str),
    script: &str,
) -> Result<Opened, Failure> {
    let password = Secret::new(password.to_owned());
    let address = "192.0.2.9:4711".parse().unwrap();
    visit(script, security, async |gateway, endpoint| {
        let place = Place { endpoint, trust: &Trust::System, proxy_protocol: false };
        gateway.sign_in(protocol, place, Client { address, helo: "laptop", name, password: &password }).await
    })
    .await
}

const ANNA: (&str, &str) = ("anna@x.test", "p w");
/// NUL anna@x.test NUL p w, in base 64.
const PLAIN: &str = "AGFubmFAeC50ZXN0AHAgdw==";

#[tokio::test]
async fn imap_signs_in_as_the_server_wants_it() {
    let go = async |login, script: &str| sign_in(Protocol::Imap, Security::Plain, login, script).await;
    let opened = go(
        ANNA,
        &format!(
            "S: * OK [CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN] ready\n\
             C: i ID (\"name\" \"Ortler\" \"x-originating-ip\" \"192.0.2.9\" \"x-originating-port\" \"4711\")\n\
             S: * ID (\"name\" {{3}}\nS: Old)\nS: i OK done\n\
             C: a AUTHENTICATE PLAIN {PLAIN}\nS: a OK [CAPABILITY IMAP4rev1 IDLE] in\nS: * 1 EXISTS"
        ),
    )
    .await;
    let mut opened = opened.unwrap();
    assert_eq!(opened.capability, "IMAP4rev1 IDLE");
    let mut rest = opened.said.to_vec();
    opened.stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"* 1 EXISTS\r\n", "nothing that comes after the answer is lost");
    let script = format!(
        "S: * OK hello\nC: c CAPABILITY\nS: * CAPABILITY IMAP4rev1 AUTH=PLAIN\nS: c OK\n\
             C: a AUTHENTICATE PLAIN\nS: + \nC: {PLAIN}\nS: a OK in\n\
             C: c CAPABILITY\nS: * CAPABILITY IMAP4rev1 QUOTA\nS: c OK"
    );
    assert_eq!(go(ANNA, &script).await.unwrap().capability, "IMAP4rev1 QUOTA");
    let login = go(
        ("a\"b\\c", "pä"),
        "S: * OK [CAPABILITY IMAP4rev1] hello\nC: a LOGIN \"a\\\"b\\\\c\" {3}\nS: + go\nC: pä\nS: a OK [CAPABILITY IMAP4rev1] in",
    );
    assert!(login.await.is_ok());
}

/// Sign-in and what comes of it, in a word.
async fn outcome(protocol: Protocol, script: &str) -> String {
    match sign_in(protocol, Security::Plain, ANNA, script).await {
        Ok(_) => "in".to_owned(),
        Err(failure) => failure.to_string(),
    }
}

#[tokio::test]
async fn imap_tells_a_wrong_password_from_a_server_that_cannot() {
    let greeting = format!("S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] x\nC: a AUTHENTICATE PLAIN {PLAIN}\nS: ");
    for (answer, expected) in [
        ("a NO [AUTHENTICATIONFAILED] no", "refused"),
        ("a NO no", "refused"),
        ("a NO [UNAVAILABLE] later", "does not sign in now: a NO [UNAVAILABLE] later"),
        ("a BAD what", "does not understand: a BAD what"),
        ("* BYE off", "ends the session: * BYE off"),
        ("+ more", "wants more than there is: + more"),
    ] {
        assert_eq!(outcome(Protocol::Imap, &format!("{greeting}{answer}")).await, expected);
    }
    for (script, expected) in [
        ("S: * PREAUTH in", "greets strangely: * PREAUTH in"),
        ("S: * OK [CAPABILITY IMAP4rev1 LOGINDISABLED] x", "takes no password on this connection"),
        ("", "the connection was closed"),
    ] {
        assert_eq!(outcome(Protocol::Imap, script).await, expected);
    }
    // A server that asks for more without end is left.
    let flood = format!("{greeting}{}", "* OK still\nS: ".repeat(200));
    assert_eq!(outcome(Protocol::Imap, flood.trim_end_matches("S: ").trim_end()).await, "says too much");
}

#[tokio::test]
async fn pop3_signs_in_as_the_server_wants_it() {
    for (script, expected) in [
        (
            "S: +OK [XCLIENT] hello\nC: XCLIENT ADDR=192.0.2.9 PORT=4711\nS: +OK\nC: CAPA\nS: +OK\nS: SASL LOGIN PLAIN\nS: .\n\
             C: AUTH PLAIN AGFubmFAeC50ZXN0AHAgdw==\nS: +OK in",
            "in",
        ),
        ("S: +OK hello\nC: CAPA\nS: -ERR what\nC: USER anna@x.test\nS: +OK\nC: PASS p w\nS: +OK in", "in"),
        ("S: +OK hello\nC: CAPA\nS: -ERR\nC: USER anna@x.test\nS: +OK\nC: PASS p w\nS: -ERR [AUTH] no", "refused"),
        ("S: +OK hello\nC: CAPA\nS: -ERR\nC: USER anna@x.test\nS: -ERR who", "refused"),
        (
            "S: +OK hello\nC: CAPA\nS: -ERR\nC: USER anna@x.test\nS: +OK\nC: PASS p w\nS: -ERR [IN-USE] x",
            "another session has the mailbox",
        ),
        (
            "S: +OK hello\nC: CAPA\nS: -ERR\nC: USER anna@x.test\nS: +OK\nC: PASS p w\nS: -ERR [SYS/TEMP] x",
            "does not sign in now: -ERR [SYS/TEMP] x",
        ),
    ] {
        assert_eq!(outcome(Protocol::Pop3, script).await, expected, "{script}");
    }
    // RFC 2449 §4: a command that would be too long goes in two.
    let long = "x".repeat(300);
    let response = crate::wire::plain("anna@x.test", &Secret::new(long.clone()));
    let script =
        format!("S: +OK\nC: CAPA\nS: +OK\nS: SASL PLAIN\nS: .\nC: AUTH PLAIN\nS: + \nC: {}\nS: +OK", response.reveal());
    assert!(sign_in(Protocol::Pop3, Security::Plain, ("anna@x.test", &long), &script).await.is_ok());
}

#[tokio::test]
async fn submission_and_managesieve_sign_in_as_the_server_wants_it() {
    for (script, expected) in [
        (
            "S: 220 old\nC: EHLO mx.example.test\nS: 250-old\nS: 250-XCLIENT ADDR PORT HELO\nS: 250 AUTH PLAIN\n\
             C: XCLIENT ADDR=192.0.2.9 PORT=4711 HELO=laptop\nS: 220 old\nC: EHLO mx.example.test\nS: 250-old\nS: 250 AUTH PLAIN\n\
             C: AUTH PLAIN AGFubmFAeC50ZXN0AHAgdw==\nS: 235 2.7.0 in",
            "in",
        ),
        (
            "S: 220 old\nC: EHLO mx.example.test\nS: 250-old\nS: 250 AUTH LOGIN\nC: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\n\
             C: YW5uYUB4LnRlc3Q=\nS: 334 UGFzc3dvcmQ6\nC: cCB3\nS: 535 5.7.8 no",
            "refused",
        ),
        (
            "S: 220 old\nC: EHLO mx.example.test\nS: 250-old\nS: 250 AUTH PLAIN\nC: AUTH PLAIN AGFubmFAeC50ZXN0AHAgdw==\nS: 454 4.7.0 later",
            "454 4.7.0 later",
        ),
        ("S: 220 old\nC: EHLO mx.example.test\nS: 250 old", "offers neither PLAIN nor LOGIN"),
        ("S: 554 go away", "greets with 554 go away"),
        ("S: hello", "answers strangely: hello"),
    ] {
        assert_eq!(outcome(Protocol::Submission, script).await, expected, "{script}");
    }
    let ready = "S: \"IMPLEMENTATION\" \"Old\"\nS: \"SIEVE\" {8}\nS: fileinto\nS: OK\nC: AUTHENTICATE \"PLAIN\" \"AGFubmFAeC50ZXN0AHAgdw==\"\nS: ";
    for (answer, expected) in [
        ("OK \"in\"", "in"),
        ("NO \"wrong\"", "refused"),
        ("NO (TRYLATER) \"later\"", "does not sign in now: NO (TRYLATER) \"later\""),
    ] {
        assert_eq!(outcome(Protocol::ManageSieve, &format!("{ready}{answer}")).await, expected);
    }
}

/// A server that has no STARTTLS, or says more before it, never hears a password.
#[tokio::test]
async fn without_tls_that_was_asked_for_nobody_signs_in() {
    for (protocol, script) in [
        (Protocol::Imap, "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] x\nC: s STARTTLS\nS: s BAD no"),
        (Protocol::Imap, "S: * PREAUTH in"),
        (Protocol::Pop3, "S: +OK\nC: STLS\nS: -ERR"),
        (
            Protocol::Submission,
            "S: 220 x\nC: EHLO mx.example.test\nS: 250-x\nS: 250 AUTH PLAIN\nC: STARTTLS\nS: 502 no",
        ),
        (Protocol::ManageSieve, "S: \"SASL\" \"PLAIN\"\nS: OK\nC: STARTTLS\nS: NO"),
    ] {
        let outcome = sign_in(protocol, Security::StartTls, ANNA, script).await;
        assert!(matches!(outcome, Err(Failure::Unavailable(_))), "{script}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_line_end_in_a_name_is_no_way_to_a_second_command() {
    let gateway = Gateway::new("mx.example.test");
    // Nobody listens there: it is not even tried.
    let endpoint: Endpoint = "none://127.0.0.1:1".parse().unwrap();
    let place = Place { endpoint: &endpoint, trust: &Trust::System, proxy_protocol: false };
    for (name, password) in [("a\r\nb", "x"), ("a", "x\ny"), ("a\0b", "x")] {
        let password = Secret::new(password.to_owned());
        let client = Client { address: "192.0.2.9:1".parse().unwrap(), helo: "", name, password: &password };
        assert_eq!(gateway.sign_in(Protocol::Imap, place, client).await.unwrap_err(), Failure::Refused);
    }
}

async fn hand_over(transport: Transport, script: &str) -> Vec<String> {
    let reverse_path = ReversePath::Address("a@sender.example".parse().unwrap());
    let recipients = ["anna@x.test", "bert@x.test"].map(|address| address.parse().unwrap()).to_vec();
    let content = bytes::Bytes::from_static(b"Subject: x\r\n\r\n.dot\r\nend\r\n");
    let statuses = visit(script, Security::Plain, async |gateway, endpoint| {
        let place = Place { endpoint, trust: &Trust::System, proxy_protocol: false };
        let message = Outgoing { reverse_path: &reverse_path, recipients, smtputf8: false, content, client: None };
        gateway.deliver(transport, place, message).await
    });
    statuses.await.iter().map(ToString::to_string).collect()
}

/// Whatever a server says, signing in ends, and soon.
#[tokio::test]
async fn a_server_that_talks_nonsense_is_left() {
    const SEEDS: [(Protocol, &str); 4] = [
        (
            Protocol::Imap,
            "* OK [CAPABILITY IMAP4rev1 ID SASL-IR AUTH=PLAIN] x\r\n* ID (\"a\" {3}\r\nxyz)\r\ni OK\r\na OK in\r\n* CAPABILITY X\r\nc OK\r\n",
        ),
        (Protocol::Pop3, "+OK [XCLIENT] x\r\n+OK\r\n+OK\r\nSASL PLAIN\r\n.\r\n+OK in\r\n"),
        (
            Protocol::Submission,
            "220 x\r\n250-x\r\n250-XCLIENT ADDR\r\n250 AUTH PLAIN\r\n220 x\r\n250-x\r\n250 AUTH PLAIN\r\n235 2.7.0 in\r\n",
        ),
        (Protocol::ManageSieve, "\"SIEVE\" {3}\r\nabc\r\nOK\r\nOK \"in\"\r\n"),
    ];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint: Endpoint = format!("none://{}", listener.local_addr().unwrap()).parse().unwrap();
    let place = Place { endpoint: &endpoint, trust: &Trust::System, proxy_protocol: false };
    let (gateway, password) = (Gateway::new("mx.example.test"), Secret::new("p w".to_owned()));
    let client = Client { address: "192.0.2.9:1".parse().unwrap(), helo: "", name: "anna@x.test", password: &password };
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below
    };
    let mut signed_in = 0;
    for round in 0..600 {
        let (protocol, seed) = SEEDS[round % SEEDS.len()];
        let mut said = seed.as_bytes().to_vec();
        // The first round of each is as it should be.
        for _ in 0..next(4).min(round / SEEDS.len()) {
            let at = next(said.len());
            match next(3) {
                0 => said[at] = u8::try_from(next(256)).unwrap(),
                1 => drop(said.drain(at..said.len().min(at + 7))),
                _ => said.splice(at..at, b"{99999}\r\n".iter().copied()).for_each(drop),
            }
            said.push(b'\n');
        }
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            // It may have left already.
            let _ = stream.write_all(&said).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        };
        // The connection ends with the outcome: the server waits for that.
        let visit = async { gateway.sign_in(protocol, place, client).await.is_ok() };
        let (is_signed_in, ()) = tokio::join!(visit, server);
        signed_in += usize::from(is_signed_in);
    }
    assert!((4..600).contains(&signed_in), "{signed_in}");
}

#[tokio::test]
async fn each_recipient_has_its_answer() {
    const CONTENT: &str = "C: Subject: x\nC: \nC: ..dot\nC: end\nC: .\n";
    let begin = "S: 220 old\nC: LHLO mx.example.test\nS: 250-old\nS: 250 SIZE\nC: MAIL FROM:<a@sender.example> SIZE=25\nS: 250 ok\n";
    let both = "C: RCPT TO:<anna@x.test>\nS: 250 ok\nC: RCPT TO:<bert@x.test>\nS: 250 ok\nC: DATA\nS: 354 go\n";
    let told =
        hand_over(Transport::Lmtp, &format!("{begin}{both}{CONTENT}S: 250 2.0.0 saved\nS: 552 5.2.2 full\nC: QUIT"))
            .await;
    assert_eq!(told, ["250 2.0.0 saved", "552 5.2.2 full"]);
    let one = "C: RCPT TO:<anna@x.test>\nS: 452 4.2.2 full\nC: RCPT TO:<bert@x.test>\nS: 250 ok\nC: DATA\nS: 354 go\n";
    let told =
        hand_over(Transport::Lmtp, &format!("{begin}{one}{CONTENT}S: 250-2.0.0 sa\nS: 250 2.0.0 ved\nC: QUIT")).await;
    assert_eq!(told, ["452 4.2.2 full", "250 2.0.0 sa ved"]);
    let (begin, both) = (begin.replace("LHLO", "EHLO"), both);
    let told = hand_over(Transport::Smtp, &format!("{begin}{both}{CONTENT}S: 250 queued\nC: QUIT")).await;
    assert_eq!(told, ["250 2.0.0 queued", "250 2.0.0 queued"]);
    const AWAY: &str = "451 4.4.1 The server of this mailbox does not answer, try again later";
    // Broken before the answer, refused as a whole, gone from the start.
    let told = hand_over(Transport::Smtp, &format!("{begin}{both}{CONTENT}")).await;
    assert_eq!(told, [AWAY, AWAY]);
    let told = hand_over(Transport::Smtp, &format!("{begin}{both}{CONTENT}S: 421 4.3.2 closing")).await;
    assert_eq!(told, ["451 4.3.2 closing", "451 4.3.2 closing"]);
    let none = "C: RCPT TO:<anna@x.test>\nS: 550 5.1.1 who\nC: RCPT TO:<bert@x.test>\nS: 550 who\nC: QUIT";
    let told = hand_over(Transport::Smtp, &format!("{begin}{none}")).await;
    assert_eq!(told, ["550 5.1.1 who", "550 5.0.0 who"]);
    assert_eq!(hand_over(Transport::Smtp, "").await, [AWAY, AWAY]);
    // A success code out of place is none.
    let told =
        hand_over(Transport::Smtp, &format!("{begin}{}S: 250 yes\nC: QUIT", both.replace("S: 354 go\n", ""))).await;
    assert_eq!(told, [AWAY, AWAY]);
}
