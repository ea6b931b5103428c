//! What a mail server has told us so far. Pure: commands in, outputs out.

use std::net::{IpAddr, Ipv4Addr};

use base::UtcMillis;
use bytes::Bytes;
use mail::{Address, BodyKind, Envelope, ForwardPath, ReversePath};

use super::proto::{Command, Negotiation, ProtocolError, Response, VERSION, action, step};
use crate::facts::{MessageFacts, Source};

/// One connection from a mail server; many messages may follow each other.
#[derive(Debug)]
pub struct Session {
    message_bytes_max: usize,
    negotiated: Option<Negotiation>,
    client: Option<IpAddr>,
    helo: String,
    tls: bool,
    message: Message,
}

/// What belongs to one message.
#[derive(Debug, Default)]
struct Message {
    account: Option<String>,
    reverse_path: Option<ReversePath>,
    forward_paths: Vec<ForwardPath>,
    content: Vec<u8>,
    too_long: bool,
}

/// What the shell has to do.
#[derive(Debug)]
pub enum Output {
    Nothing,
    Reply(Response),
    /// Judge it, send all answers, and go on.
    Judge(Box<MessageFacts>),
    Close,
}

const ACTIONS: u32 = action::ADD_HEADERS | action::CHANGE_HEADERS | action::QUARANTINE;

/// Steps that we do without, if the mail server can leave them out.
const UNWANTED: u32 = step::NO_UNKNOWN
    | step::NO_DATA
    | step::NO_REPLY_CONNECT
    | step::NO_REPLY_HELO
    | step::NO_REPLY_MAIL
    | step::NO_REPLY_RCPT
    | step::NO_REPLY_HEADER
    | step::NO_REPLY_END_OF_HEADERS
    | step::NO_REPLY_BODY
    | step::HEADER_LEADING_SPACE;

/// More recipients than any server takes in one message.
const RECIPIENTS_MAX: usize = 10_000;

impl Session {
    pub fn new(message_bytes_max: usize) -> Self {
        Self {
            message_bytes_max,
            negotiated: None,
            client: None,
            helo: String::new(),
            tls: false,
            message: Message::default(),
        }
    }

    /// `now` becomes the time of reception.
    pub fn on_command(&mut self, now: UtcMillis, command: Command) -> Result<Output, ProtocolError> {
        let Some(agreed) = self.negotiated else {
            return match command {
                Command::Negotiate(offer) => Ok(self.negotiate(offer)),
                Command::Quit => Ok(Output::Close),
                _ => Err(ProtocolError::OutOfOrder),
            };
        };
        let answer = |unanswered: u32| {
            if agreed.steps & unanswered == 0 { Output::Reply(Response::Continue) } else { Output::Nothing }
        };
        Ok(match command {
            Command::Negotiate(offer) => self.negotiate(offer),
            Command::Macros { values, .. } => {
                values.iter().for_each(|(name, value)| self.note_macro(name, value));
                Output::Nothing
            }
            Command::Connect { address, .. } => {
                self.forget_connection();
                self.client = address.ip();
                answer(step::NO_REPLY_CONNECT)
            }
            Command::Helo(name) => {
                self.helo = String::from_utf8_lossy(&name).into_owned();
                answer(step::NO_REPLY_HELO)
            }
            Command::Mail(words) => {
                let account = self.message.account.take();
                // The mail server took an address that we cannot read: it stands for no sender that proves itself.
                let path = words.first().and_then(|word| address_of(word));
                let reverse_path = Some(path.map_or(ReversePath::Null, ReversePath::Address));
                self.message = Message { account, reverse_path, ..Message::default() };
                answer(step::NO_REPLY_MAIL)
            }
            Command::Rcpt(words) => {
                if self.message.forward_paths.len() < RECIPIENTS_MAX
                    && let Some(address) = words.first().and_then(|word| address_of(word))
                {
                    self.message.forward_paths.push(ForwardPath::Address(address));
                }
                answer(step::NO_REPLY_RCPT)
            }
            Command::Data => answer(step::NO_REPLY_DATA),
            Command::Unknown(_) => answer(step::NO_REPLY_UNKNOWN),
            Command::Header { name, value } => {
                let gap: &[u8] = if agreed.steps & step::HEADER_LEADING_SPACE == 0 { b": " } else { b":" };
                self.add(&name);
                self.add(gap);
                for (at, line) in value.split(|byte| *byte == b'\n').enumerate() {
                    self.add(if at == 0 { b"" } else { b"\r\n" });
                    self.add(line.strip_suffix(b"\r").unwrap_or(line));
                }
                self.add(b"\r\n");
                answer(step::NO_REPLY_HEADER)
            }
            Command::EndOfHeaders => {
                self.add(b"\r\n");
                answer(step::NO_REPLY_END_OF_HEADERS)
            }
            Command::Body(chunk) => {
                self.add(&chunk);
                answer(step::NO_REPLY_BODY)
            }
            Command::EndOfMessage => {
                let message = std::mem::take(&mut self.message);
                if message.too_long {
                    let line = b"552 5.3.4 Message is too long for the content check";
                    return Ok(Output::Reply(Response::ReplyCode(line.to_vec())));
                }
                Output::Judge(Box::new(self.facts(now, message)))
            }
            Command::Abort => {
                self.message = Message::default();
                Output::Nothing
            }
            Command::QuitForNext => {
                self.forget_connection();
                Output::Nothing
            }
            Command::Quit => Output::Close,
        })
    }

    /// True if header values bring the space after the colon themselves, in both directions.
    pub fn has_leading_space(&self) -> bool {
        self.negotiated.is_some_and(|agreed| agreed.steps & step::HEADER_LEADING_SPACE != 0)
    }

    fn negotiate(&mut self, offer: Negotiation) -> Output {
        if offer.version < 2 || offer.actions & ACTIONS != ACTIONS {
            // Without header changes there is nothing we could say: better no answer than a silent filter.
            return Output::Close;
        }
        let version = offer.version.min(VERSION);
        let agreed = Negotiation { version, actions: ACTIONS, steps: offer.steps & UNWANTED };
        self.negotiated = Some(agreed);
        Output::Reply(Response::Negotiate(agreed))
    }

    fn note_macro(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"{auth_authen}" if !value.is_empty() => {
                self.message.account = Some(String::from_utf8_lossy(value).into_owned());
            }
            b"{tls_version}" => self.tls = !value.is_empty(),
            _ => {}
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        if self.message.content.len().saturating_add(bytes.len()) > self.message_bytes_max {
            self.message.too_long = true;
            self.message.content = Vec::new();
        }
        if !self.message.too_long {
            self.message.content.extend_from_slice(bytes);
        }
    }

    fn forget_connection(&mut self) {
        (self.client, self.tls) = (None, false);
        self.helo.clear();
        self.message = Message::default();
    }

    fn facts(&self, received_at: UtcMillis, message: Message) -> MessageFacts {
        let source = match (message.account, self.client) {
            (Some(account), ip) => Source::Submitter { account, ip },
            (None, Some(ip)) if ip != IpAddr::V4(Ipv4Addr::UNSPECIFIED) => {
                Source::Client { ip, helo: self.helo.clone(), tls: self.tls }
            }
            (None, _) => Source::Relay,
        };
        let envelope = Envelope {
            reverse_path: message.reverse_path.unwrap_or(ReversePath::Null),
            forward_paths: message.forward_paths,
            body: BodyKind::EightBitMime,
            smtputf8: false,
            wishes: mail::Wishes::default(),
        };
        MessageFacts { source, envelope, message: Bytes::from(message.content), received_at }
    }
}

fn address_of(word: &[u8]) -> Option<Address> {
    let text = std::str::from_utf8(word).ok()?;
    let text = text.strip_prefix('<').unwrap_or(text);
    text.strip_suffix('>').unwrap_or(text).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UtcMillis = UtcMillis(0);

    fn negotiated(steps: u32) -> Session {
        let mut session = Session::new(1000);
        let offer = Negotiation { version: 6, actions: 0x1ff, steps };
        assert!(matches!(session.on_command(NOW, Command::Negotiate(offer)), Ok(Output::Reply(_))));
        session
    }

    fn feed(session: &mut Session, commands: Vec<Command>) -> Option<MessageFacts> {
        let mut judged = None;
        for command in commands {
            match session.on_command(NOW, command).unwrap() {
                Output::Judge(facts) => judged = Some(*facts),
                Output::Nothing => {}
                other => panic!("{other:?}"),
            }
        }
        judged
    }

    fn message() -> Vec<Command> {
        vec![
            Command::Mail(vec![b"<a@x.test>".to_vec(), b"SIZE=1".to_vec()]),
            Command::Rcpt(vec![b"<b@y.test>".to_vec()]),
            Command::Header { name: b"Subject".to_vec(), value: b" one\n\ttwo".to_vec() },
            Command::Header { name: b"X".to_vec(), value: b"tight".to_vec() },
            Command::EndOfHeaders,
            Command::Body(b"Hello\r\n".to_vec()),
            Command::EndOfMessage,
        ]
    }

    #[test]
    fn a_message_is_put_together_byte_by_byte() {
        let mut session = negotiated(u32::MAX);
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        let mut commands = vec![
            Command::Connect { host: b"m".to_vec(), address: super::super::proto::Address::of(ip, 1) },
            Command::Helo(b"mail.x.test".to_vec()),
        ];
        commands.extend(message());
        let facts = feed(&mut session, commands).unwrap();
        assert_eq!(&*facts.message, b"Subject: one\r\n\ttwo\r\nX:tight\r\n\r\nHello\r\n");
        assert_eq!(facts.source, Source::Client { ip, helo: "mail.x.test".into(), tls: false });
        assert_eq!(facts.envelope.reverse_path.to_string(), "a@x.test");
        assert_eq!(facts.envelope.forward_paths.len(), 1);
        // The next message of the connection starts empty, with the same client.
        let next = feed(&mut session, message()).unwrap();
        assert_eq!((next.message, next.source), (facts.message, facts.source));
    }

    #[test]
    fn a_submitter_is_outbound_for_one_message() {
        let mut session = negotiated(u32::MAX);
        let login = Command::Macros { command: b'M', values: vec![(b"{auth_authen}".to_vec(), b"anna".to_vec())] };
        let mut commands = vec![login];
        commands.extend(message());
        assert!(feed(&mut session, commands).unwrap().source.is_outbound());
        assert_eq!(feed(&mut session, message()).unwrap().source, Source::Relay);
    }

    #[test]
    fn steps_that_must_be_answered_are_answered() {
        let mut session = negotiated(0);
        let (last, before) = message().split_last().map(|(last, before)| (last.clone(), before.to_vec())).unwrap();
        for command in before {
            let output = session.on_command(NOW, command).unwrap();
            assert!(matches!(output, Output::Reply(Response::Continue)), "{output:?}");
        }
        let Ok(Output::Judge(facts)) = session.on_command(NOW, last) else { panic!("not judged") };
        // Without the leading space agreed on, one is put in.
        assert!(facts.message.starts_with(b"Subject:  one\r\n"));
    }

    #[test]
    fn the_leading_space_is_agreed_on() {
        assert!(negotiated(u32::MAX).has_leading_space() && !negotiated(0).has_leading_space());
    }

    #[test]
    fn order_length_and_versions_are_watched() {
        let mut early = Session::new(1000);
        assert!(early.on_command(NOW, Command::EndOfMessage).is_err());
        let old = Negotiation { version: 1, actions: 0x1ff, steps: 0 };
        assert!(matches!(early.on_command(NOW, Command::Negotiate(old)), Ok(Output::Close)));
        let mut session = negotiated(u32::MAX);
        assert!(feed(&mut session, vec![Command::Body(vec![b'x'; 600]), Command::Body(vec![b'x'; 600])]).is_none());
        let end = session.on_command(NOW, Command::EndOfMessage).unwrap();
        assert!(matches!(end, Output::Reply(Response::ReplyCode(line)) if line.starts_with(b"552 ")));
        assert!(feed(&mut session, message()).is_some());
    }
}
