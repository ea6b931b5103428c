//! External milters are asked during the session.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use filter::milter::proto::{Command, Negotiation, PacketReader, Response};

use crate::harness::{Node, letter};

/// Answers as [`answer`] says until the test ends; gives its address and what it hears.
fn milter() -> (String, Arc<Mutex<Vec<Command>>>) {
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

fn answer(command: &Command) -> Vec<Response> {
    let bytes = |text: &str| text.as_bytes().to_vec();
    match command {
        Command::Negotiate(offer) => {
            vec![Response::Negotiate(Negotiation { version: 6, actions: offer.actions, steps: 0 })]
        }
        Command::Macros { .. } | Command::Abort | Command::Quit => Vec::new(),
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
        _ => vec![Response::Continue],
    }
}

#[test]
fn a_milter_speaks_at_its_stages_and_changes_what_is_delivered() {
    let (address, heard) = milter();
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
