//! External milters are asked during the session.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use filter::milter::proto::{Command, Negotiation, PacketReader, Response};

use crate::harness::{Node, base64, letter, ortler};

type Answer = fn(&Command) -> Vec<Response>;

/// Answers as `answer` says until the test ends; gives its address and what it hears.
fn milter(answer: Answer) -> (String, Arc<Mutex<Vec<Command>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = heard.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, log) = (stream.unwrap(), log.clone());
            std::thread::spawn(move || {
                let (mut reader, mut buffer) = (PacketReader::default(), vec![0; 4096]);
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    reader.feed(&buffer[..length]);
                    while let Some(packet) = reader.next_packet().unwrap() {
                        let command = Command::parse(&packet).unwrap();
                        let mut wire = Vec::new();
                        answer(&command).iter().for_each(|response| response.to_packet().write(&mut wire));
                        log.lock().unwrap().push(command);
                        if stream.write_all(&wire).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    (address, heard)
}

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// Says "go on" where an answer is waited for.
fn go_on(command: &Command) -> Vec<Response> {
    match command {
        Command::Negotiate(offer) => {
            vec![Response::Negotiate(Negotiation { version: 6, actions: offer.actions, steps: 0 })]
        }
        Command::Macros { .. } | Command::Abort | Command::Quit => Vec::new(),
        _ => vec![Response::Continue],
    }
}

fn changes(command: &Command) -> Vec<Response> {
    match command {
        Command::Helo(name) if name == b"liar" => vec![Response::ReplyCode(bytes("550 5.7.1 We have met"))],
        Command::Mail(words) if words[0] == b"<bad@x.example>" => vec![Response::TempFail],
        Command::Rcpt(words) if words[0] == b"<user2@example.test>" => {
            vec![Response::ReplyCode(bytes("550 5.2.1 not this one"))]
        }
        Command::EndOfMessage => vec![
            Response::InsertHeader { index: 0, name: bytes("X-Milter"), value: bytes("seen") },
            Response::ReplaceBody(bytes("What the milter wrote.\r\n")),
            Response::AddRecipient(bytes("<user3@example.test>")),
            Response::DeleteRecipient(bytes("<user1@example.test>")),
            Response::Continue,
        ],
        other => go_on(other),
    }
}

#[test]
fn a_milter_speaks_at_its_stages_and_changes_what_is_delivered() {
    let (address, heard) = milter(changes);
    let node = Node::with(&["--milter", &address]);
    let mut smtp = node.connect(25);
    smtp.expect("220");
    smtp.say("EHLO liar").expect("550 5.7.1 We have met");
    smtp.say("MAIL FROM:<a@x.example>").expect("503");
    smtp.say("EHLO x.example").expect("250");
    smtp.say("MAIL FROM:<bad@x.example>").expect("451 4.7.1");
    smtp.say("MAIL FROM:<a@x.example>").expect("250");
    smtp.say("RCPT TO:<user2@example.test>").expect("550 5.2.1 not this one");
    smtp.say("RCPT TO:<nobody@example.test>").expect("550 5.1.1");
    smtp.say("RCPT TO:<user1@example.test>").expect("250");
    assert!(smtp.send_content(&letter("to be changed", "What the sender wrote.")).starts_with("250"));
    let stored = String::from_utf8(node.messages("user3", "INBOX").remove(0)).unwrap();
    assert!(
        stored.contains("X-Milter: seen\r\n") && stored.ends_with("\r\n\r\nWhat the milter wrote.\r\n"),
        "{stored}"
    );
    assert!(node.messages("user1", "INBOX").is_empty());
    // Whom we refuse ourselves, it never hears of.
    let nobody = Command::Rcpt(vec![b"<nobody@example.test>".to_vec()]);
    assert!(!heard.lock().unwrap().contains(&nobody));
}

/// LMTP from user to recipients that are all accepted; their answers.
fn hand_over(node: &Node, to: &[&str], message: &[u8]) -> Vec<String> {
    let mut lmtp = node.connect(24);
    lmtp.expect("220");
    lmtp.say("LHLO x").expect("250");
    lmtp.say("MAIL FROM:<a@x.example>").expect("250");
    for to in to {
        lmtp.say(&format!("RCPT TO:<{to}@example.test>")).expect("250");
    }
    lmtp.say("DATA").expect("354");
    lmtp.send(message).say(".");
    to.iter().map(|_| lmtp.line()).collect()
}

#[test]
fn what_fails_for_an_added_recipient_is_not_the_senders_business() {
    fn adds(command: &Command) -> Vec<Response> {
        match command {
            Command::EndOfMessage => {
                vec![Response::AddRecipient(bytes("<user3@example.test>")), Response::Continue]
            }
            other => go_on(other),
        }
    }
    let mut node = Node::with(&["--milter", &milter(adds).0]);
    let set = ["account", "set", "user3@example.test", "--messages", "1", "--dir", node.dir().to_str().unwrap()];
    assert!(ortler(&set).status.success());
    let reply = |node: &Node, to: &[&str]| node.send("a@x.example", to, &letter("to two", "Both get it."));
    assert!(reply(&node, &["user1@example.test"]).starts_with("250"));
    // Now the added recipient's mailbox is full.
    let last = reply(&node, &["user1@example.test", "user2@example.test"]);
    assert!(last.starts_with("250"), "{last}");
    let each = hand_over(&node, &["user1", "user2"], &letter("to two", "Both get it."));
    assert!(each.iter().all(|answer| answer.starts_with("250")), "{each:?}");
    let copies = ["user1", "user2", "user3"].map(|user| node.messages(user, "INBOX").len());
    assert_eq!(copies, [3, 2, 1]);
    node.stop();
    let id = last.rsplit(' ').next().unwrap();
    let story = ortler(&["trace", id, "--json", "--dir", node.dir().to_str().unwrap()]);
    let story = String::from_utf8_lossy(&story.stdout).into_owned();
    assert!(story.contains("452 4.2.2") && story.contains("user3@example.test"), "{story}");
    assert!(node.log().contains("milter"), "{}", node.log());
}

#[test]
fn whoever_is_put_in_anothers_place_gets_the_message_or_it_comes_again() {
    let mut node = Node::with(&["--milter", &milter(changes).0]);
    let set = ["account", "set", "user3@example.test", "--messages", "1", "--dir", node.dir().to_str().unwrap()];
    assert!(ortler(&set).status.success());
    let reply = |node: &Node| node.send("a@x.example", &["user1@example.test"], &letter("moved", "For another."));
    assert!(reply(&node).starts_with("250"));
    let full = reply(&node);
    assert!(full.starts_with("451") || full.starts_with("452"), "{full}");
    assert_eq!(["user1", "user3"].map(|user| node.messages(user, "INBOX").len()), [0, 1]);
    node.stop();
}

#[test]
fn a_refusal_stands_whomever_a_milter_removes() {
    fn removes(command: &Command) -> Vec<Response> {
        match command {
            Command::EndOfMessage => {
                vec![Response::DeleteRecipient(bytes("<user1@example.test>")), Response::Continue]
            }
            other => go_on(other),
        }
    }
    let (address, _heard) = milter(removes);
    let strict = Node::start_configured(
        |dir| std::fs::write(dir.join("no.cf"), "header NOT_WANTED Subject =~ /./\nscore NOT_WANTED 30\n").unwrap(),
        &[("milters = []", &format!("milters = [\"{address}\"]")), ("[filter]", "[filter]\nrules = [\"no.cf\"]")],
    );
    let each = hand_over(&strict, &["user1"], &letter("for nobody", "Not wanted."));
    assert!(each[0].starts_with("554 5.7.1"), "{each:?}");
    assert!(strict.held_ids("user1").is_empty());
    // What nobody refuses and nobody would have is kept.
    let node = Node::with(&["--milter", &address]);
    let each = hand_over(&node, &["user1"], &letter("for nobody", "But kept."));
    assert!(each[0].starts_with("250"), "{each:?}");
    assert_eq!(node.held_ids("user1").len(), 1);
}

#[test]
fn fields_that_a_milter_adds_or_removes_are_seen_when_missing_ones_are_added() {
    fn edits(command: &Command) -> Vec<Response> {
        let remove = |name: &str| Response::ChangeHeader { index: 1, name: bytes(name), value: Vec::new() };
        match command {
            Command::EndOfMessage => vec![
                Response::AddHeader { name: bytes("Message-ID"), value: bytes("<of-the-milter@x.example>") },
                remove("Date"),
                Response::Continue,
            ],
            other => go_on(other),
        }
    }
    let (address, heard) = milter(edits);
    let node = Node::with(&["--milter", &address]);
    let mut smtp = node.connect(587);
    smtp.expect("220");
    smtp.say("EHLO laptop").expect("250");
    smtp.say("AUTH LOGIN").expect("334");
    smtp.say(&base64(b"user1@example.test")).expect("334");
    smtp.say(&base64(b"demo")).expect("235");
    smtp.say("MAIL FROM:<user1@example.test>").expect("250");
    smtp.say("RCPT TO:<user2@example.test>").expect("250");
    let message =
        b"From: <user1@example.test>\r\nDate: Thu, 1 Jan 1970 00:00:00 +0000\r\nSubject: Lunch\r\n\r\nToday?\r\n";
    assert!(smtp.send_content(message).starts_with("250"));
    let stored = String::from_utf8(node.messages("user2", "INBOX").remove(0)).unwrap();
    assert_eq!(stored.matches("\r\nMessage-ID: ").count(), 1, "{stored}");
    assert!(stored.matches("\r\nDate: ").count() == 1 && !stored.contains("1970"), "{stored}");
    // How the sender signed in is told as it was.
    let told = |command: &Command| match command {
        Command::Macros { command: b'M', values } => values.contains(&(bytes("{auth_type}"), bytes("LOGIN"))),
        _ => false,
    };
    assert!(heard.lock().unwrap().iter().any(told));
}
