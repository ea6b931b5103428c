//! The conversation: a command goes in, what to do comes out.

use base::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::proto::{Command, parse, parse_string};

/// How the bytes travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    Tls,
    /// In the clear; `starttls` if it can become TLS, `login` if passwords may cross it all the same.
    Plain {
        starttls: bool,
        login: bool,
    },
}

/// What the shell does next.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Send this; lines end with CRLF.
    Say(String),
    /// Send this, then close.
    Bye(String),
    /// Send this, then change to TLS and greet anew.
    StartTls(String),
    /// Check, then call [`Session::on_refused`], or go on elsewhere.
    CheckPassword { name: String, password: Secret<String> },
}

/// One session until its client has signed in.
#[derive(Debug)]
pub struct Session {
    transport: Transport,
    /// The next frame answers a challenge.
    is_challenged: bool,
    failures: u32,
    bad_commands: u32,
}

const FAILURES_MAX: u32 = 3;
const BAD_COMMANDS_MAX: u32 = 10;

/// RFC 5804 §1.7 wants the list before it is known whose server is asked. This is what servers in use know; a client that
/// asks again once it has signed in hears its server's own.
const EXTENSIONS: &str = "fileinto reject envelope vacation imap4flags subaddress relational comparator-i;ascii-numeric \
                          variables body copy date";

impl Session {
    pub const fn new(transport: Transport) -> Self {
        Self { transport, is_challenged: false, failures: 0, bad_commands: 0 }
    }

    pub fn greeting(&self) -> String {
        format!("{}OK \"Ortler ready\"\r\n", self.capabilities())
    }

    pub fn on_frame(&mut self, frame: &[u8]) -> Output {
        if std::mem::take(&mut self.is_challenged) {
            return match parse_string(frame) {
                Ok(response) if response.reveal() == "*" => no("Cancelled"),
                Ok(response) => plain(&response),
                Err(fault) => self.bad(fault),
            };
        }
        match parse(frame) {
            Ok(command) => self.on_command(command),
            Err(fault) => self.bad(fault),
        }
    }

    fn on_command(&mut self, command: Command) -> Output {
        match command {
            Command::Capability => Output::Say(format!("{}OK\r\n", self.capabilities())),
            Command::Logout => Output::Bye("OK \"Goodbye\"\r\n".to_owned()),
            Command::Noop(None) => Output::Say("OK \"Done\"\r\n".to_owned()),
            // As a literal: whatever it is, it does no harm there.
            Command::Noop(Some(tag)) => Output::Say(format!("OK (TAG {{{}}}\r\n{tag}) \"Done\"\r\n", tag.len())),
            Command::StartTls => match self.transport {
                Transport::Plain { starttls: true, .. } => Output::StartTls("OK \"Begin TLS\"\r\n".to_owned()),
                Transport::Plain { .. } | Transport::Tls => no("TLS is active or not available"),
            },
            Command::Authenticate { .. } if !self.may_send_passwords() => {
                Output::Say("NO (ENCRYPT-NEEDED) \"Use TLS to sign in\"\r\n".to_owned())
            }
            Command::Authenticate { mechanism, .. } if mechanism != "PLAIN" => no("Mechanism is not known here"),
            Command::Authenticate { initial: Some(response), .. } => plain(&response),
            Command::Authenticate { initial: None, .. } => {
                self.is_challenged = true;
                Output::Say("\"\"\r\n".to_owned())
            }
            Command::Other => self.bad("Sign in first"),
        }
    }

    /// Wrong name or password. The last failure allowed closes.
    pub fn on_refused(&mut self) -> Output {
        self.failures += 1;
        if self.failures >= FAILURES_MAX {
            return Output::Bye("BYE \"Too many failures\"\r\n".to_owned());
        }
        no("Wrong name or password")
    }

    /// A peer that speaks another language is soon let go.
    fn bad(&mut self, fault: &str) -> Output {
        self.bad_commands += 1;
        if self.bad_commands > BAD_COMMANDS_MAX {
            return Output::Bye("BYE \"Too many bad commands\"\r\n".to_owned());
        }
        no(fault)
    }

    const fn may_send_passwords(&self) -> bool {
        matches!(self.transport, Transport::Tls | Transport::Plain { login: true, .. })
    }

    fn capabilities(&self) -> String {
        let sasl = if self.may_send_passwords() { "PLAIN" } else { "" };
        let starttls =
            if matches!(self.transport, Transport::Plain { starttls: true, .. }) { "\"STARTTLS\"\r\n" } else { "" };
        format!(
            "\"IMPLEMENTATION\" \"Ortler\"\r\n\"SIEVE\" \"{EXTENSIONS}\"\r\n\"SASL\" \"{sasl}\"\r\n{starttls}\"VERSION\" \"1.0\"\r\n"
        )
    }
}

/// `text` has no quotes.
pub(crate) fn no(text: &str) -> Output {
    Output::Say(format!("NO \"{text}\"\r\n"))
}

/// RFC 4616: authorization identity, authentication identity, password.
fn plain(response: &Secret<String>) -> Output {
    let decoded = Secret::new(STANDARD.decode(response.reveal()).unwrap_or_default());
    let fields: Vec<&[u8]> = decoded.reveal().split(|octet| *octet == 0).collect();
    let [authorize, name, password] = fields[..] else { return no("Broken response") };
    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).ok();
    match (text(name), text(password).map(Secret::new)) {
        (Some(name), Some(password)) if authorize.is_empty() || authorize == name.as_bytes() => {
            Output::CheckPassword { name, password }
        }
        _ => no("Broken response"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `C:` lines go in, `S:` lines must come out.
    fn check(transport: Transport, dialogue: &str) {
        let mut session = Session::new(transport);
        let mut heard = String::new();
        for line in dialogue.lines().map(str::trim_start) {
            match line.split_once(": ") {
                Some(("C", frame)) => {
                    assert!(heard.is_empty(), "not expected: {heard}");
                    heard = match session.on_frame(frame.as_bytes()) {
                        Output::Say(text) => text,
                        Output::Bye(text) => format!("{text}closed\r\n"),
                        Output::StartTls(text) => format!("{text}TLS\r\n"),
                        Output::CheckPassword { name, password } => format!("check {name} {}\r\n", password.reveal()),
                    };
                }
                Some(("S", text)) => {
                    let (first, rest) = heard.split_once("\r\n").unwrap_or((&heard, ""));
                    assert_eq!(first, text);
                    heard = rest.to_owned();
                }
                _ => panic!("{line}"),
            }
        }
        assert!(heard.is_empty(), "not expected: {heard}");
    }

    #[test]
    fn signing_in() {
        check(
            Transport::Tls,
            "C: NOOP\nS: OK \"Done\"\nC: NOOP \"x)\"\nS: OK (TAG {2}\nS: x)) \"Done\"\nC: STARTTLS\nS: NO \"TLS is active or not available\"\n\
             C: LISTSCRIPTS\nS: NO \"Sign in first\"\nC: AUTHENTICATE \"CRAM-MD5\"\nS: NO \"Mechanism is not known here\"\n\
             C: AUTHENTICATE \"PLAIN\"\nS: \"\"\nC: \"*\"\nS: NO \"Cancelled\"\nC: AUTHENTICATE \"PLAIN\"\nS: \"\"\nC: \"AGEAcCB3\"\nS: check a p w\n\
             C: AUTHENTICATE \"PLAIN\" \"YQBiAGM=\"\nS: NO \"Broken response\"\nC: AUTHENTICATE \"PLAIN\" \"?\"\nS: NO \"Broken response\"\n\
             C: LOGOUT\nS: OK \"Goodbye\"\nS: closed",
        );
        check(
            Transport::Plain { starttls: true, login: false },
            "C: AUTHENTICATE \"PLAIN\" \"AGEAcCB3\"\nS: NO (ENCRYPT-NEEDED) \"Use TLS to sign in\"\nC: STARTTLS\nS: OK \"Begin TLS\"\nS: TLS",
        );
        let greeting = Session::new(Transport::Plain { starttls: true, login: false }).greeting();
        assert!(greeting.contains("\"STARTTLS\"\r\n") && greeting.contains("\"SASL\" \"\"\r\n"), "{greeting}");
        let mut session = Session::new(Transport::Tls);
        assert_eq!(
            (0..11).map(|_| session.on_frame(b"GET / HTTP/1.0")).filter(|out| matches!(out, Output::Bye(_))).count(),
            1
        );
        let mut session = Session::new(Transport::Tls);
        assert_eq!((0..3).map(|_| session.on_refused()).filter(|out| matches!(out, Output::Bye(_))).count(), 1);
    }
}
