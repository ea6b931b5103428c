//! Where commands, literals and messages end. What they mean is read elsewhere, so that a bad command never
//! desynchronises the stream.

use bytes::{Bytes, BytesMut};

use super::append::{self, Before};
use super::types::{AppendHead, AppendOptions};

/// Cuts a connection's bytes into [`Event`]s. Holds at most one command without its messages.
pub struct Framer {
    /// The command so far, with its literals as on the wire.
    command: Vec<u8>,
    state: State,
    /// A command with its literals, messages of APPEND not counted.
    pub command_size_max: usize,
    /// One message of APPEND.
    pub message_size_max: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A complete command without its line end.
    Command(Vec<u8>),
    /// A line asked for by [`Framer::expect_line`], without its line end.
    Line(Vec<u8>),
    /// The client waits for `+` before it sends a literal.
    Continue,
    /// The first message of an APPEND follows; `wait` if the client waits for `+`. Its bytes come as [`Event::Chunk`].
    Append { head: AppendHead, size: u64, wait: bool },
    /// Another message of the same APPEND follows.
    AppendMore { options: AppendOptions, size: u64, wait: bool },
    /// Bytes of a message, never empty.
    Chunk(Bytes),
    /// All messages of the APPEND are there.
    AppendEnd,
    /// Something was left out up to its end: answer with `tag`, or untagged where it was not to be seen.
    Refused { tag: Option<String>, why: Refusal },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The command is longer than allowed.
    CommandTooLong,
    /// A message is larger than allowed.
    MessageTooLarge,
    /// A line ends without CR.
    BareLineFeed,
    Syntax(&'static str),
    /// A literal without waiting so large that reading on is no use: close.
    Hopeless,
}

enum State {
    Line,
    /// In a literal that belongs to the command.
    Literal {
        left: u64,
    },
    /// In a message.
    Message {
        left: u64,
    },
    /// After a message: end of the command, or the options of the next message.
    AfterMessage,
    /// The next line is for [`Event::Line`].
    Raw,
    /// Dropping the rest of a command: `literal` octets, then the line.
    Dropping {
        literal: u64,
        tag: Option<String>,
        why: Refusal,
    },
}

/// A literal that announces itself at the end of a line.
struct Announced {
    size: u64,
    wait: bool,
    /// Length of `{…}` and its line end.
    marker: usize,
}

/// A client that insists on sending more than this unasked is cut off (RFC 7888 §4).
const UNASKED_LITERAL_MAX: u64 = 1 << 30;
/// Octets kept of a command being dropped: enough to see a literal announced.
const TAIL_KEPT: usize = 32;

impl Framer {
    pub const fn new(command_size_max: usize, message_size_max: u64) -> Self {
        Self { command: Vec::new(), state: State::Line, command_size_max, message_size_max }
    }

    /// The next line is an answer (SASL, DONE), not a command.
    pub fn expect_line(&mut self) {
        self.state = State::Raw;
    }

    /// After [`Event::Append`] or [`Event::AppendMore`]: the caller does not want the message and has answered or will
    /// answer itself; the rest of the command passes unseen. True if something is still to come, ended by
    /// [`Event::Refused`]; false if the client waits and the refusal ends the command.
    pub fn refuse_message(&mut self, wait: bool, tag: String, why: Refusal) -> bool {
        let State::Message { left } = self.state else { return false };
        self.command.clear();
        self.state = if wait { State::Line } else { State::Dropping { literal: left, tag: Some(tag), why } };
        !wait
    }

    /// True between commands, when nothing of the next has come.
    pub fn is_idle(&self) -> bool {
        self.command.is_empty() && matches!(self.state, State::Line | State::Raw)
    }

    /// Takes bytes from `input` and gives the next event; `None` if more bytes are needed, and then `input` is empty.
    pub fn next(&mut self, input: &mut BytesMut) -> Option<Event> {
        loop {
            match &mut self.state {
                State::Literal { left } => {
                    let piece = take(input, left);
                    self.command.extend_from_slice(&piece);
                    if *left > 0 {
                        return None;
                    }
                    self.state = State::Line;
                }
                State::Message { left } => {
                    let piece = take(input, left);
                    let done = *left == 0;
                    if done {
                        self.state = State::AfterMessage;
                    }
                    if !piece.is_empty() {
                        return Some(Event::Chunk(piece.freeze()));
                    }
                    if !done {
                        return None;
                    }
                }
                State::Dropping { literal, .. } => {
                    take(input, literal);
                    if *literal > 0 || !self.drop_line(input) {
                        return None;
                    }
                    if let Some(event) = self.end_of_dropped_line() {
                        return Some(event);
                    }
                }
                State::Line | State::AfterMessage | State::Raw => {
                    if !self.take_line(input) {
                        return None;
                    }
                    let dropping = matches!(self.state, State::Dropping { .. });
                    if let Some(event) = if dropping { self.end_of_dropped_line() } else { self.end_of_line() } {
                        return Some(event);
                    }
                }
            }
        }
    }

    /// Adds input to the command up to a line end; false if there was none. A command grown too long is dropped.
    fn take_line(&mut self, input: &mut BytesMut) -> bool {
        let end = memchr::memchr(b'\n', input).map(|at| at + 1);
        let piece = input.split_to(end.unwrap_or(input.len()));
        if self.command.len() + piece.len() > self.command_size_max {
            let tag = self.tag_with(&piece);
            self.command.extend_from_slice(&piece);
            self.start_dropping(0, tag, Refusal::CommandTooLong);
        } else {
            self.command.extend_from_slice(&piece);
        }
        end.is_some()
    }

    fn tag_with(&self, piece: &[u8]) -> Option<String> {
        if matches!(self.state, State::AfterMessage | State::Raw) {
            return None;
        }
        // The tag may be cut anywhere between the two.
        let head: Vec<u8> = self.command.iter().chain(piece).take(256).copied().collect();
        tag_of(&head)
    }

    fn start_dropping(&mut self, literal: u64, tag: Option<String>, why: Refusal) {
        let cut = self.command.len().saturating_sub(TAIL_KEPT);
        self.command.drain(..cut);
        self.command.shrink_to(1024);
        self.state = State::Dropping { literal, tag, why };
    }

    /// Passes over input up to a line end, keeping a tail; false if there was none.
    fn drop_line(&mut self, input: &mut BytesMut) -> bool {
        let end = memchr::memchr(b'\n', input).map(|at| at + 1);
        let piece = input.split_to(end.unwrap_or(input.len()));
        let from = piece.len().saturating_sub(TAIL_KEPT);
        self.command.extend_from_slice(&piece[from..]);
        let cut = self.command.len().saturating_sub(TAIL_KEPT);
        self.command.drain(..cut);
        end.is_some()
    }

    fn end_of_dropped_line(&mut self) -> Option<Event> {
        let announced = announced(&self.command);
        self.command.clear();
        let State::Dropping { literal, tag, why } = &mut self.state else { return None };
        match announced {
            // More of the command comes unasked.
            Some(a) if !a.wait && a.size <= UNASKED_LITERAL_MAX => {
                *literal = a.size;
                None
            }
            Some(a) if !a.wait => Some(Event::Refused { tag: tag.take(), why: Refusal::Hopeless }),
            _ => {
                let event = Event::Refused { tag: tag.take(), why: *why };
                self.state = State::Line;
                Some(event)
            }
        }
    }

    fn end_of_line(&mut self) -> Option<Event> {
        let strict = self.command.ends_with(b"\r\n");
        if matches!(self.state, State::Raw) {
            self.state = State::Line;
            let mut line = std::mem::take(&mut self.command);
            line.truncate(line.len() - if strict { 2 } else { 1 });
            return Some(Event::Line(line));
        }
        if !strict {
            return self.refuse(None, Refusal::BareLineFeed);
        }
        let announced = announced(&self.command);
        if matches!(self.state, State::AfterMessage) {
            return self.after_message(announced);
        }
        let Some(announced) = announced else {
            let mut command = std::mem::take(&mut self.command);
            command.truncate(command.len() - 2);
            return Some(Event::Command(command));
        };
        let head = &self.command[..self.command.len() - announced.marker];
        match append::before_literal(head) {
            Before::Message(head) if announced.size <= self.message_size_max => {
                self.command.clear();
                self.state = State::Message { left: announced.size };
                Some(Event::Append { head, size: announced.size, wait: announced.wait })
            }
            Before::Message(head) => self.refuse_with(head.tag, announced, Refusal::MessageTooLarge),
            Before::Broken { tag, fault } => self.refuse_with(tag, announced, Refusal::Syntax(fault)),
            Before::Argument => {
                let room = self.command_size_max.saturating_sub(self.command.len());
                if usize::try_from(announced.size).is_ok_and(|size| size <= room) {
                    self.state = State::Literal { left: announced.size };
                    return announced.wait.then_some(Event::Continue);
                }
                let tag = tag_of(&self.command);
                self.refuse(tag.map(|tag| (tag, announced)), Refusal::CommandTooLong)
            }
        }
    }

    fn after_message(&mut self, announced: Option<Announced>) -> Option<Event> {
        let Some(announced) = announced else {
            let ended = self.command == b"\r\n";
            self.command.clear();
            self.state = State::Line;
            return Some(match ended {
                true => Event::AppendEnd,
                false => Event::Refused { tag: None, why: Refusal::Syntax("unexpected text after the message") },
            });
        };
        let text = &self.command[..self.command.len() - announced.marker];
        match append::between_messages(text) {
            Ok(options) if announced.size <= self.message_size_max => {
                self.command.clear();
                self.state = State::Message { left: announced.size };
                Some(Event::AppendMore { options, size: announced.size, wait: announced.wait })
            }
            Ok(_) => self.refuse_announced(None, announced, Refusal::MessageTooLarge),
            Err(fault) => self.refuse_announced(None, announced, Refusal::Syntax(fault)),
        }
    }

    fn refuse_with(&mut self, tag: String, announced: Announced, why: Refusal) -> Option<Event> {
        self.refuse_announced(Some(tag), announced, why)
    }

    fn refuse(&mut self, announced: Option<(String, Announced)>, why: Refusal) -> Option<Event> {
        match announced {
            Some((tag, announced)) => self.refuse_announced(Some(tag), announced, why),
            None => {
                let tag = tag_of(&self.command);
                self.command.clear();
                self.state = State::Line;
                Some(Event::Refused { tag, why })
            }
        }
    }

    /// A refused literal that the client waits with ends the command; one that comes anyway is passed over first.
    fn refuse_announced(&mut self, tag: Option<String>, announced: Announced, why: Refusal) -> Option<Event> {
        self.command.clear();
        if announced.wait {
            self.state = State::Line;
            return Some(Event::Refused { tag, why });
        }
        if announced.size > UNASKED_LITERAL_MAX {
            return Some(Event::Refused { tag, why: Refusal::Hopeless });
        }
        self.start_dropping(announced.size, tag, why);
        None
    }
}

/// Takes up to `left` bytes off `input` and lowers `left`.
fn take(input: &mut BytesMut, left: &mut u64) -> BytesMut {
    let piece = input.split_to(input.len().min(usize::try_from(*left).unwrap_or(usize::MAX)));
    *left -= piece.len() as u64;
    piece
}

/// The literal that a line with its CRLF announces at its end.
fn announced(line: &[u8]) -> Option<Announced> {
    let inner = line.strip_suffix(b"}\r\n")?;
    let open = memchr::memrchr(b'{', inner)?;
    let (digits, wait) = match inner[open + 1..].strip_suffix(b"+") {
        Some(digits) => (digits, false),
        None => (&inner[open + 1..], true),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // A number too large to count is certainly too large to take.
    let size = std::str::from_utf8(digits).ok()?.parse().unwrap_or(u64::MAX);
    Some(Announced { size, wait, marker: line.len() - open })
}

fn tag_of(command: &[u8]) -> Option<String> {
    super::parse::tag(&mut super::scan::Scanner::new(command.get(..command.len().min(256))?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events of `text`, read at once and one byte at a time: both must agree.
    fn events(text: &str) -> Vec<Event> {
        let run = |step: usize| {
            let mut framer = Framer::new(64, 20);
            let mut out: Vec<Event> = Vec::new();
            let mut input = BytesMut::new();
            for piece in text.as_bytes().chunks(step) {
                input.extend_from_slice(piece);
                while let Some(event) = framer.next(&mut input) {
                    match (out.last_mut(), &event) {
                        (Some(Event::Chunk(before)), Event::Chunk(more)) => {
                            *before = [&before[..], more].concat().into();
                        }
                        _ => out.push(event),
                    }
                }
                assert!(input.is_empty());
            }
            out
        };
        let whole = run(text.len().max(1));
        for step in 1..text.len() {
            assert_eq!(run(step), whole, "split every {step} bytes: {text:?}");
        }
        whole
    }

    fn command(text: &str) -> Event {
        Event::Command(text.into())
    }

    fn refused(tag: &str, why: Refusal) -> Event {
        Event::Refused { tag: (!tag.is_empty()).then(|| tag.into()), why }
    }

    #[test]
    fn a_long_line_without_a_tag_has_none_however_it_comes() {
        let text = format!(" {}\r\nb NOOP\r\n", "x ".repeat(60));
        assert_eq!(events(&text), [refused("", Refusal::CommandTooLong), command("b NOOP")]);
        let text = format!("tag {}\r\n", "x ".repeat(60));
        assert_eq!(events(&text), [refused("tag", Refusal::CommandTooLong)]);
    }

    #[test]
    fn commands_and_literals() {
        assert_eq!(events("a NOOP\r\nb NOOP\r\n"), [command("a NOOP"), command("b NOOP")]);
        assert_eq!(
            events("a LOGIN {3}\r\nm\r\n {2+}\r\npw\r\nb NOOP\r\n"),
            [Event::Continue, command("a LOGIN {3}\r\nm\r\n {2+}\r\npw"), command("b NOOP")]
        );
        assert_eq!(events("a LOGIN \"{3}\"\r\n"), [command("a LOGIN \"{3}\"")]);
        assert_eq!(events("\r\n"), [command("")]);
    }

    #[test]
    fn bad_lines_do_not_desynchronise() {
        let long = "x".repeat(100);
        assert_eq!(
            events(&format!("a X {long}\r\nb NOOP\r\n")),
            [refused("a", Refusal::CommandTooLong), command("b NOOP")]
        );
        assert_eq!(
            events(&format!("a X {long} {{4+}}\r\nb X\n {long}\r\nb NOOP\r\n")),
            [refused("a", Refusal::CommandTooLong), command("b NOOP")]
        );
        assert_eq!(events("a X {99+}\r\n"), []);
        assert_eq!(
            events(&format!("a X {{99+}}\r\n{}\r\nb NOOP\r\n", "y".repeat(99))),
            [refused("a", Refusal::CommandTooLong), command("b NOOP")]
        );
        assert_eq!(events("a X {99}\r\nb NOOP\r\n"), [refused("a", Refusal::CommandTooLong), command("b NOOP")]);
        assert_eq!(events("a NOOP\nb NOOP\r\n"), [refused("a", Refusal::BareLineFeed), command("b NOOP")]);
        assert_eq!(events("a X {99999999999999999999+}\r\n"), [refused("a", Refusal::Hopeless)]);
    }

    #[test]
    fn messages_stream() {
        let head = |mailbox: &str| AppendHead {
            tag: "a".into(),
            mailbox: super::super::types::RawName(mailbox.into()),
            options: AppendOptions::default(),
        };
        let chunk = |text: &str| Event::Chunk(Bytes::copy_from_slice(text.as_bytes()));
        assert_eq!(
            events("a APPEND x {5}\r\nhel\r\n\r\nb NOOP\r\n"),
            [
                Event::Append { head: head("x"), size: 5, wait: true },
                chunk("hel\r\n"),
                Event::AppendEnd,
                command("b NOOP")
            ]
        );
        assert_eq!(
            events("a APPEND {1+}\r\nx {2+}\r\nhi {1+}\r\n!\r\n"),
            [
                Event::Append { head: head("x"), size: 2, wait: false },
                chunk("hi"),
                Event::AppendMore { options: AppendOptions::default(), size: 1, wait: false },
                chunk("!"),
                Event::AppendEnd
            ]
        );
        assert_eq!(
            events("a APPEND x {21+}\r\n123456789012345678901\r\nb NOOP\r\n"),
            [refused("a", Refusal::MessageTooLarge), command("b NOOP")]
        );
        assert_eq!(
            events("a APPEND x {21}\r\nb NOOP\r\n"),
            [refused("a", Refusal::MessageTooLarge), command("b NOOP")]
        );
        assert_eq!(
            events("a APPEND x (\\Seen {2}\r\nb NOOP\r\n"),
            [refused("a", Refusal::Syntax("an atom is missing")), command("b NOOP")]
        );
    }

    #[test]
    fn a_refused_message_passes_unseen() {
        let mut framer = Framer::new(64, 20);
        let mut input = BytesMut::from(&b"a APPEND x {5+}\r\nhello\r\nb NOOP\r\n"[..]);
        assert!(matches!(framer.next(&mut input), Some(Event::Append { .. })));
        assert!(framer.refuse_message(false, "a".into(), Refusal::MessageTooLarge));
        assert_eq!(framer.next(&mut input), Some(refused("a", Refusal::MessageTooLarge)));
        assert_eq!(framer.next(&mut input), Some(command("b NOOP")));
    }
}
