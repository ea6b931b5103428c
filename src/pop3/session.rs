//! The conversation: a command goes in, what to do comes out.

use base::Secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::command::Command;
use crate::maildrop::Maildrop;

pub struct Session {
    pub phase: Phase,
    pub transport: Transport,
    failures: u32,
    failures_max: u32,
}

pub enum Phase {
    /// Not signed in; `user` once USER came.
    Greeted {
        user: Option<String>,
    },
    /// The next line answers a challenge of SASL PLAIN.
    AnsweringSasl,
    Open(Maildrop),
}

/// How the bytes travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    Tls,
    /// In the clear; `stls` if it can become TLS, `login` if passwords may cross it all the same.
    Plain {
        stls: bool,
        login: bool,
    },
}

/// What the shell does next.
#[derive(Debug)]
pub enum Output {
    /// Send this; lines end with CRLF.
    Say(String),
    /// Send this, then close.
    Bye(String),
    /// Send this, then change to TLS.
    StartTls(String),
    /// Check, then call [`Session::on_login`] or [`Session::on_refused`].
    CheckPassword { name: String, password: Secret<String> },
    /// Send the message, or its top, then call [`Session::on_sent`].
    Send { number: usize, lines: Option<u64> },
    /// Expunge what is marked deleted, then close.
    Commit,
    /// Another server goes on.
    Lead,
}

const OK: &str = "+OK\r\n";

impl Session {
    pub const fn new(transport: Transport, failures_max: u32) -> Self {
        Self { phase: Phase::Greeted { user: None }, transport, failures: 0, failures_max }
    }

    /// True if the next line is no command but an answer to a challenge.
    pub const fn expects_answer(&self) -> bool {
        matches!(self.phase, Phase::AnsweringSasl)
    }

    pub fn on_command(&mut self, command: Command) -> Output {
        let can_login = matches!(self.transport, Transport::Tls | Transport::Plain { login: true, .. });
        match (&mut self.phase, command) {
            (_, Command::Capa) => Output::Say(self.capabilities(can_login)),
            (Phase::Greeted { .. } | Phase::AnsweringSasl, command) => self.before_login(command, can_login),
            (Phase::Open(maildrop), command) => in_transaction(maildrop, command),
        }
    }

    fn before_login(&mut self, command: Command, can_login: bool) -> Output {
        let user = match &mut self.phase {
            Phase::Greeted { user } => user.take(),
            Phase::AnsweringSasl | Phase::Open(_) => None,
        };
        match command {
            Command::Quit => Output::Bye("+OK Goodbye\r\n".to_owned()),
            Command::Utf8 => say(OK),
            Command::Stls => match self.transport {
                Transport::Plain { stls: true, .. } => Output::StartTls("+OK Begin TLS\r\n".to_owned()),
                _ => say("-ERR TLS is active or not available\r\n"),
            },
            Command::Auth { mechanism: None, .. } => say("+OK\r\nPLAIN\r\n.\r\n"),
            Command::User(_) | Command::Pass(_) | Command::Auth { .. } if !can_login => {
                say("-ERR Use TLS to sign in\r\n")
            }
            Command::User(name) => {
                self.phase = Phase::Greeted { user: Some(name) };
                say(OK)
            }
            Command::Pass(password) => match user {
                Some(name) => Output::CheckPassword { name, password },
                None => say("-ERR Send USER first\r\n"),
            },
            Command::Auth { mechanism: Some(mechanism), initial } => {
                if mechanism != "PLAIN" {
                    return say("-ERR Mechanism is not known here\r\n");
                }
                match initial {
                    Some(text) => plain(text.reveal().as_bytes()),
                    None => {
                        self.phase = Phase::AnsweringSasl;
                        say("+ \r\n")
                    }
                }
            }
            _ => say("-ERR Sign in first\r\n"),
        }
    }

    /// The line after a challenge.
    pub fn on_answer(&mut self, line: &[u8]) -> Output {
        self.phase = Phase::Greeted { user: None };
        if line == b"*" { say("-ERR Cancelled\r\n") } else { plain(line) }
    }

    pub fn on_login(&mut self, maildrop: Maildrop) -> Output {
        let count = maildrop.messages.len();
        self.phase = Phase::Open(maildrop);
        Output::Say(format!("+OK Signed in, {count} messages\r\n"))
    }

    /// Wrong name or password. The last failure allowed closes.
    pub fn on_refused(&mut self) -> Output {
        self.failures += 1;
        let text = "-ERR [AUTH] Wrong name or password\r\n".to_owned();
        if self.failures >= self.failures_max { Output::Bye(text) } else { Output::Say(text) }
    }

    /// The message went out whole.
    pub fn on_sent(&mut self, number: usize) {
        if let Phase::Open(maildrop) = &mut self.phase
            && let Some(message) = maildrop.message_mut(number)
        {
            message.retrieved = true;
        }
    }

    fn capabilities(&self, can_login: bool) -> String {
        let mut text =
            "+OK\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\nEXPIRE NEVER\r\nUTF8\r\n".to_owned();
        if can_login {
            text.push_str("USER\r\nSASL PLAIN\r\n");
        }
        if matches!(self.transport, Transport::Plain { stls: true, .. }) {
            text.push_str("STLS\r\n");
        }
        text.push_str("IMPLEMENTATION Ortler\r\n.\r\n");
        text
    }
}

fn in_transaction(maildrop: &mut Maildrop, command: Command) -> Output {
    let missing = || say("-ERR No such message\r\n");
    match command {
        Command::Noop => say(OK),
        Command::Stat => {
            let (count, size) = maildrop.kept().fold((0u64, 0u64), |(n, sum), (_, m)| (n + 1, sum + m.size_bytes));
            Output::Say(format!("+OK {count} {size}\r\n"))
        }
        Command::List(None) => listing(maildrop, |maildrop, message| {
            let _ = maildrop;
            message.size_bytes.to_string()
        }),
        Command::Uidl(None) => listing(maildrop, Maildrop::unique_id),
        Command::List(Some(number)) => match maildrop.message(number) {
            Some(message) => Output::Say(format!("+OK {number} {}\r\n", message.size_bytes)),
            None => missing(),
        },
        Command::Uidl(Some(number)) => match maildrop.message(number) {
            Some(message) => Output::Say(format!("+OK {number} {}\r\n", maildrop.unique_id(message))),
            None => missing(),
        },
        Command::Retr(number) if maildrop.message(number).is_some() => Output::Send { number, lines: None },
        Command::Top(number, lines) if maildrop.message(number).is_some() => {
            Output::Send { number, lines: Some(lines) }
        }
        Command::Retr(_) | Command::Top(..) => missing(),
        Command::Dele(number) => match maildrop.message_mut(number) {
            Some(message) => {
                message.deleted = true;
                say(OK)
            }
            None => missing(),
        },
        Command::Rset => {
            maildrop.messages.iter_mut().for_each(|message| message.deleted = false);
            say(OK)
        }
        Command::Quit => Output::Commit,
        Command::Capa | Command::Stls | Command::Utf8 | Command::User(_) | Command::Pass(_) | Command::Auth { .. } => {
            say("-ERR Already signed in\r\n")
        }
    }
}

fn listing(maildrop: &Maildrop, value: impl Fn(&Maildrop, &crate::maildrop::Message) -> String) -> Output {
    let mut text = OK.to_owned();
    for (number, message) in maildrop.kept() {
        text.push_str(&format!("{number} {}\r\n", value(maildrop, message)));
    }
    text.push_str(".\r\n");
    Output::Say(text)
}

/// RFC 4616: authorization identity, authentication identity, password.
fn plain(text: &[u8]) -> Output {
    let decoded = Secret::new(STANDARD.decode(text.trim_ascii()).unwrap_or_default());
    let fields: Vec<&[u8]> = decoded.reveal().split(|b| *b == 0).collect();
    let [authorize, name, password] = fields[..] else { return say("-ERR Broken response\r\n") };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    match (text(name), text(password).map(Secret::new)) {
        (Some(name), Some(password)) if authorize.is_empty() || authorize == name.as_bytes() => {
            Output::CheckPassword { name, password }
        }
        _ => say("-ERR Broken response\r\n"),
    }
}

fn say(text: &str) -> Output {
    Output::Say(text.to_owned())
}
