//! The session as a pure state machine: what a command means now, and what is answered.

use std::borrow::Cow;
use std::time::Duration;

use base::{ByteSize, MessageId, Secret, UtcMillis};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail::{Enhanced, Envelope, ForwardPath, HoldWish, RecipientWish, ReversePath, Status};

use crate::proto::{Command, Fault, MailParameters, Reply, parse};
use crate::server::handler::{Credentials, Mechanism, Protocol, Transaction};

/// Bounds of a session.
#[derive(Clone, Debug)]
pub struct Limits {
    pub message_size_max: ByteSize,
    pub recipients_max: usize,
    /// Errors, refused recipients among them, before the connection is closed.
    pub errors_max: u32,
    /// Commands that move no mail (NOOP, RSET, VRFY, ...) before the connection is closed.
    pub idle_commands_max: u32,
    pub logins_failed_max: u32,
    /// RFC 5321 §4.5.3.2.7.
    pub command_timeout: Duration,
    /// Between two pieces of content (RFC 5321 §4.5.3.2.5).
    pub content_timeout: Duration,
    /// For the whole of one message.
    pub message_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_size_max: ByteSize::mib(50),
            recipients_max: 1000,
            errors_max: 50,
            idle_commands_max: 200,
            logins_failed_max: 3,
            command_timeout: Duration::from_secs(300),
            content_timeout: Duration::from_secs(180),
            message_timeout: Duration::from_secs(3600),
        }
    }
}

/// What the shell does next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    Reply(Reply),
    /// Reply, then close.
    Close(Reply),
    /// Reply, then negotiate TLS and call [`Session::on_tls`].
    StartTls(Reply),
    /// Ask the handler, then call [`Session::on_authenticated`].
    Authenticate(Credentials),
    /// End an open transaction, ask the handler, then call [`Session::on_greeting`].
    CheckGreeting {
        helo: String,
        extended: bool,
    },
    /// Ask the handler, then call [`Session::on_sender`].
    CheckSender(ReversePath, MailParameters),
    /// Ask the handler, then call [`Session::on_recipient`].
    CheckRecipient(ForwardPath, RecipientWish),
    /// Reply 354, then read to the dot.
    ReceiveData(Reply),
    /// Read so many octets of content, silently; then the answer comes from [`Session::on_chunk`].
    ReceiveChunk {
        size: u64,
        last: bool,
    },
    /// Drop so many octets of content that cannot be taken, then reply.
    DropChunk {
        size: u64,
        reply: Reply,
    },
    /// Take the attributes over and greet anew.
    Xclient(Vec<(String, String)>),
    /// The transaction is over without a message; then as the reply says.
    Abandon(Reply),
}

/// Mail waits by its sender's wish for so long at most.
pub const HOLD_MAX: Duration = Duration::from_secs(30 * 86_400);

/// Which offers are made now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offers {
    /// TLS can be started.
    pub starttls: bool,
    /// TLS is on, or passwords are taken without.
    pub auth: bool,
    pub xclient: bool,
    /// TLS is on.
    pub requiretls: bool,
    /// Mail may wait by its sender's wish, until then at most (RFC 4865).
    pub hold_until: Option<UtcMillis>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    /// Before EHLO.
    Fresh,
    Ready,
    /// AUTH PLAIN: the response is awaited.
    AuthPlain,
    /// AUTH LOGIN: the name is awaited.
    AuthLoginName,
    AuthLoginPassword {
        login: String,
    },
    /// MAIL was taken.
    Mail(Transaction),
    /// The first BDAT was taken: only BDAT and RSET go on.
    Chunks(Transaction),
}

/// One session. Pure: no socket, no clock.
#[derive(Clone, Debug)]
pub struct Session {
    protocol: Protocol,
    host_name: String,
    limits: Limits,
    state: State,
    offers: Offers,
    signed_in: bool,
    extended: bool,
    errors: u32,
    idle_commands: u32,
    logins_failed: u32,
}

const BAD_SEQUENCE: (u16, Enhanced, &str) = (503, Enhanced(5, 5, 1), "Bad sequence of commands");

impl Session {
    pub fn new(protocol: Protocol, host_name: &str, limits: Limits, offers: Offers) -> Self {
        Self {
            protocol,
            host_name: host_name.to_owned(),
            limits,
            state: State::Fresh,
            offers,
            signed_in: false,
            extended: false,
            errors: 0,
            idle_commands: 0,
            logins_failed: 0,
        }
    }

    pub fn greeting(&self) -> Reply {
        let kind = if self.protocol == Protocol::Lmtp { "LMTP" } else { "ESMTP" };
        Reply::plain(220, vec![Cow::Owned(format!("{} {kind} Ortler", self.host_name))])
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The open transaction.
    pub fn transaction(&self) -> Option<&Transaction> {
        match &self.state {
            State::Mail(transaction) | State::Chunks(transaction) => Some(transaction),
            State::Fresh | State::Ready | State::AuthPlain | State::AuthLoginName | State::AuthLoginPassword { .. } => {
                None
            }
        }
    }

    /// A whole line without its CRLF.
    pub fn on_line(&mut self, line: &[u8]) -> Output {
        if matches!(self.state, State::AuthPlain | State::AuthLoginName | State::AuthLoginPassword { .. }) {
            return self.on_auth_response(line);
        }
        match parse(line) {
            Ok(command) => self.on_command(command),
            Err(fault) => self.error(match fault {
                Fault::UnknownCommand => Reply::fixed(500, Enhanced(5, 5, 2), "Command not recognised"),
                Fault::NotUtf8 => Reply::fixed(500, Enhanced(5, 5, 2), "Command lines are UTF-8"),
                Fault::Syntax(what) => Reply::fixed(501, Enhanced(5, 5, 4), what),
                Fault::Address(why) => status(553, Enhanced(5, 1, 3), &why.to_string()),
                Fault::Parameter(name) => status(555, Enhanced(5, 5, 4), &format!("Parameter {name} is not offered")),
            }),
        }
    }

    /// A line that no CRLF ended, or that was too long. Nothing of it was carried out.
    pub fn on_bad_line(&mut self, too_long: bool) -> Output {
        if matches!(self.state, State::AuthPlain | State::AuthLoginName | State::AuthLoginPassword { .. }) {
            self.state = State::Ready;
        }
        self.error(if too_long {
            Reply::fixed(500, Enhanced(5, 5, 2), "Line too long")
        } else {
            Reply::fixed(500, Enhanced(5, 5, 2), "Lines end with CR LF, and neither stands alone")
        })
    }

    fn on_command(&mut self, command: Command) -> Output {
        match command {
            Command::Ehlo(name) | Command::Helo(name) if self.protocol == Protocol::Lmtp => {
                let _ = name;
                self.error(Reply::fixed(500, Enhanced(5, 5, 1), "This is LMTP: greet with LHLO"))
            }
            Command::Lhlo(_) if self.protocol != Protocol::Lmtp => {
                self.error(Reply::fixed(500, Enhanced(5, 5, 1), "This is SMTP: greet with EHLO"))
            }
            Command::Helo(helo) => Output::CheckGreeting { helo, extended: false },
            Command::Ehlo(helo) | Command::Lhlo(helo) => Output::CheckGreeting { helo, extended: true },
            Command::StartTls => self.start_tls(),
            Command::Auth(mechanism, initial) => self.auth(&mechanism, initial),
            Command::Mail(path, parameters) => self.mail(path, parameters),
            Command::Rcpt(path, wish) => self.rcpt(path, wish),
            Command::Data => self.data(),
            Command::Bdat(size, last) => self.bdat(size, last),
            Command::Xclient(attributes) => self.xclient(attributes),
            Command::Rset => self.idle(Reply::fixed(250, Enhanced(2, 0, 0), "Reset"), true),
            Command::Noop => self.idle(Reply::fixed(250, Enhanced(2, 0, 0), "OK"), false),
            Command::Vrfy => {
                self.idle(Reply::fixed(252, Enhanced(2, 5, 0), "Cannot verify, but will take mail and try"), false)
            }
            Command::Help => self.idle(Reply::fixed(214, Enhanced(2, 0, 0), "See RFC 5321"), false),
            Command::Expn => self.error(Reply::fixed(502, Enhanced(5, 5, 1), "EXPN is not offered")),
            Command::Quit => Output::Close(Reply::fixed(221, Enhanced(2, 0, 0), "Goodbye")),
        }
    }

    /// The handler's word on HELO, EHLO or LHLO.
    pub fn on_greeting(&mut self, extended: bool, outcome: Result<(), Status>) -> Output {
        self.extended = extended;
        if let Err(status) = outcome {
            self.state = State::Fresh;
            return self.error(status.into());
        }
        self.state = State::Ready;
        let mut lines: Vec<Cow<'static, str>> = vec![Cow::Owned(self.host_name.clone())];
        if extended {
            lines.extend(
                ["PIPELINING", "8BITMIME", "SMTPUTF8", "CHUNKING", "ENHANCEDSTATUSCODES", "DSN"].map(Cow::Borrowed),
            );
            lines.push(Cow::Owned(format!("SIZE {}", self.limits.message_size_max.0)));
            if self.offers_prdr() {
                lines.push(Cow::Borrowed("PRDR"));
            }
            if self.offers.starttls {
                lines.push(Cow::Borrowed("STARTTLS"));
            }
            if self.offers.requiretls {
                lines.push(Cow::Borrowed("REQUIRETLS"));
            }
            if let Some(until) = self.offers.hold_until {
                let until = mail::date::format_utc(until);
                lines.push(Cow::Owned(format!("FUTURERELEASE {} {until}", HOLD_MAX.as_secs())));
            }
            if self.offers_auth() && self.offers.auth {
                lines.push(Cow::Borrowed("AUTH PLAIN LOGIN"));
            }
            if self.offers.xclient {
                lines.push(Cow::Borrowed("XCLIENT NAME ADDR PORT PROTO HELO LOGIN"));
            }
        }
        Output::Reply(Reply::plain(250, lines))
    }

    fn start_tls(&mut self) -> Output {
        match (self.offers.starttls, &self.state) {
            (true, State::Fresh | State::Ready) => {
                Output::StartTls(Reply::fixed(220, Enhanced(2, 0, 0), "Ready to start TLS"))
            }
            (true, _) => self.bad_sequence(),
            (false, _) => self.error(Reply::fixed(502, Enhanced(5, 5, 1), "STARTTLS is not offered")),
        }
    }

    /// TLS is on: everything said before is forgotten (RFC 3207 §4.2).
    pub fn on_tls(&mut self) {
        self.state = State::Fresh;
        self.extended = false;
        self.offers.starttls = false;
        self.offers.requiretls = true;
        self.offers.auth = true;
    }

    /// Our own users send from programs that show one answer.
    fn offers_prdr(&self) -> bool {
        self.protocol == Protocol::Smtp
    }

    fn offers_auth(&self) -> bool {
        self.protocol == Protocol::Submission && !self.signed_in
    }

    fn auth(&mut self, mechanism: &str, initial: Option<String>) -> Output {
        if self.protocol != Protocol::Submission {
            return self.error(Reply::fixed(502, Enhanced(5, 5, 1), "AUTH is offered on the submission ports only"));
        }
        if !self.offers.auth {
            return self.error(Reply::fixed(538, Enhanced(5, 7, 11), "Passwords are taken under TLS only"));
        }
        if self.state != State::Ready || self.signed_in || !self.extended {
            return self.bad_sequence();
        }
        let initial = initial.map(|text| if text == "=" { String::new() } else { text });
        match (mechanism, initial) {
            ("PLAIN", None) => {
                self.state = State::AuthPlain;
                Output::Reply(Reply::plain(334, vec![Cow::Borrowed("")]))
            }
            ("PLAIN", Some(response)) => {
                self.state = State::AuthPlain;
                self.on_auth_response(response.as_bytes())
            }
            ("LOGIN", None) => {
                self.state = State::AuthLoginName;
                Output::Reply(Reply::plain(334, vec![Cow::Borrowed("VXNlcm5hbWU6")]))
            }
            ("LOGIN", Some(response)) => {
                self.state = State::AuthLoginName;
                self.on_auth_response(response.as_bytes())
            }
            _ => self.error(Reply::fixed(504, Enhanced(5, 5, 4), "Mechanism not offered")),
        }
    }

    fn on_auth_response(&mut self, line: &[u8]) -> Output {
        let state = std::mem::replace(&mut self.state, State::Ready);
        if line == b"*" {
            return self.error(Reply::fixed(501, Enhanced(5, 7, 0), "Authentication cancelled"));
        }
        let decoded = STANDARD.decode(line).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let Some(decoded) = decoded else {
            return self.error(Reply::fixed(501, Enhanced(5, 5, 2), "Not base64 of UTF-8"));
        };
        match state {
            State::AuthLoginName => {
                self.state = State::AuthLoginPassword { login: decoded };
                Output::Reply(Reply::plain(334, vec![Cow::Borrowed("UGFzc3dvcmQ6")]))
            }
            State::AuthLoginPassword { login } => {
                let password = Secret::new(decoded);
                Output::Authenticate(Credentials { mechanism: Mechanism::Login, login, password })
            }
            // RFC 4616: [authzid] NUL authcid NUL password. Acting for others is not offered.
            State::AuthPlain => match decoded.split('\0').collect::<Vec<_>>().as_slice() {
                [authorise, login, password] if authorise.is_empty() || authorise == login => {
                    let (login, password) = ((*login).to_owned(), Secret::new((*password).to_owned()));
                    Output::Authenticate(Credentials { mechanism: Mechanism::Plain, login, password })
                }
                [_, _, _] => self.error(Reply::fixed(535, Enhanced(5, 7, 8), "Cannot act for another user")),
                _ => self.error(Reply::fixed(501, Enhanced(5, 5, 2), "Malformed response")),
            },
            State::Fresh | State::Ready | State::Mail(_) | State::Chunks(_) => self.bad_sequence(),
        }
    }

    /// The handler's word on the credentials.
    pub fn on_authenticated(&mut self, outcome: Result<(), Status>) -> Output {
        match outcome {
            Ok(()) => {
                self.signed_in = true;
                Output::Reply(Reply::fixed(235, Enhanced(2, 7, 0), "Authentication successful"))
            }
            Err(status) => {
                self.logins_failed += 1;
                if self.logins_failed >= self.limits.logins_failed_max {
                    return Output::Close(Reply::fixed(421, Enhanced(4, 7, 0), "Too many failed attempts"));
                }
                self.error(status.into())
            }
        }
    }

    fn mail(&mut self, path: ReversePath, parameters: MailParameters) -> Output {
        match self.state {
            State::Fresh => {
                let hello =
                    if self.protocol == Protocol::Lmtp { "Greet with LHLO first" } else { "Greet with EHLO first" };
                return self.error(Reply::fixed(503, Enhanced(5, 5, 1), hello));
            }
            State::Ready => {}
            _ => return self.bad_sequence(),
        }
        if self.protocol == Protocol::Submission && !self.signed_in {
            return self.error(Reply::fixed(530, Enhanced(5, 7, 0), "Authentication required"));
        }
        if parameters.size.is_some_and(|size| size > self.limits.message_size_max.0) {
            return self.error(self.too_large());
        }
        if path.address().is_some_and(mail::Address::needs_smtputf8) && !parameters.smtputf8 {
            return self.error(Reply::fixed(553, Enhanced(5, 6, 7), "This address needs SMTPUTF8"));
        }
        if parameters.prdr && !self.offers_prdr() {
            return self.error(Reply::fixed(555, Enhanced(5, 5, 4), "PRDR is for mail from other systems"));
        }
        if parameters.wishes.requiretls && !self.offers.requiretls {
            return self.error(Reply::fixed(555, Enhanced(5, 5, 4), "REQUIRETLS is offered under TLS only"));
        }
        let is_too_far = match (parameters.wishes.hold, self.offers.hold_until) {
            (None, _) => false,
            (Some(_), None) => {
                return self.error(Reply::fixed(
                    555,
                    Enhanced(5, 5, 4),
                    "HOLDFOR and HOLDUNTIL are for submission only",
                ));
            }
            (Some(HoldWish::For(span)), Some(_)) => span > HOLD_MAX,
            (Some(HoldWish::Until(at)), Some(latest)) => at > latest,
        };
        if is_too_far {
            return self.error(Reply::fixed(501, Enhanced(5, 5, 4), "That is too far in the future"));
        }
        Output::CheckSender(path, parameters)
    }

    /// The handler's word on MAIL.
    pub fn on_sender(
        &mut self,
        id: MessageId,
        reverse_path: ReversePath,
        parameters: &MailParameters,
        outcome: Result<(), Status>,
    ) -> Output {
        match outcome {
            Err(status) => self.error(status.into()),
            Ok(()) => {
                let envelope = Envelope {
                    reverse_path,
                    forward_paths: Vec::new(),
                    body: parameters.body,
                    smtputf8: parameters.smtputf8,
                    wishes: parameters.wishes.clone(),
                };
                let answers_each = self.protocol == Protocol::Lmtp || parameters.prdr;
                self.state = State::Mail(Transaction { id, envelope, answers_each });
                Output::Reply(Reply::fixed(250, Enhanced(2, 1, 0), "Sender OK"))
            }
        }
    }

    fn rcpt(&mut self, path: ForwardPath, wish: RecipientWish) -> Output {
        let State::Mail(transaction) = &self.state else { return self.bad_sequence() };
        if transaction.envelope.forward_paths.len() >= self.limits.recipients_max {
            return Output::Reply(Reply::fixed(452, Enhanced(4, 5, 3), "Too many recipients"));
        }
        let needs_utf8 = matches!(&path, ForwardPath::Address(address) if address.needs_smtputf8());
        if needs_utf8 && !transaction.envelope.smtputf8 {
            return self.error(Reply::fixed(553, Enhanced(5, 6, 7), "This address needs SMTPUTF8"));
        }
        Output::CheckRecipient(path, wish)
    }

    /// The handler's word on RCPT.
    pub fn on_recipient(&mut self, path: ForwardPath, wish: RecipientWish, outcome: Result<(), Status>) -> Output {
        match (outcome, &mut self.state) {
            (Ok(()), State::Mail(transaction)) => {
                transaction.envelope.forward_paths.push(path);
                transaction.envelope.wishes.recipients.push(wish);
                Output::Reply(Reply::fixed(250, Enhanced(2, 1, 5), "Recipient OK"))
            }
            (Ok(()), _) => self.bad_sequence(),
            // Wanted in another transaction (RFC 5321 §4.5.3.1.10): no fault of the client.
            (Err(status), _) if status.code() == 452 && status.enhanced() == Enhanced(4, 5, 3) => {
                Output::Reply(status.into())
            }
            (Err(status), _) => self.error(status.into()),
        }
    }

    fn data(&mut self) -> Output {
        match &self.state {
            State::Mail(transaction) if transaction.envelope.forward_paths.is_empty() => {
                self.error(Reply::fixed(503, Enhanced(5, 5, 1), "No valid recipients"))
            }
            State::Mail(_) => {
                Output::ReceiveData(Reply::plain(354, vec![Cow::Borrowed("End data with <CR><LF>.<CR><LF>")]))
            }
            State::Fresh
            | State::Ready
            | State::Chunks(_)
            | State::AuthPlain
            | State::AuthLoginName
            | State::AuthLoginPassword { .. } => self.bad_sequence(),
        }
    }

    /// The chunk's octets follow whatever the answer is (RFC 3030 §2): they must be read in any case.
    fn bdat(&mut self, size: u64, last: bool) -> Output {
        let refusal = match std::mem::replace(&mut self.state, State::Ready) {
            State::Mail(transaction) if transaction.envelope.forward_paths.is_empty() => {
                self.state = State::Mail(transaction);
                Reply::fixed(503, Enhanced(5, 5, 1), "No valid recipients")
            }
            State::Mail(transaction) | State::Chunks(transaction) => {
                self.state = State::Chunks(transaction);
                return Output::ReceiveChunk { size, last };
            }
            other => {
                self.state = other;
                Reply::fixed(BAD_SEQUENCE.0, BAD_SEQUENCE.1, BAD_SEQUENCE.2)
            }
        };
        self.errors += 1;
        Output::DropChunk { size, reply: refusal }
    }

    /// A chunk that is not the last was read.
    pub fn on_chunk(&self, size: u64) -> Reply {
        status(250, Enhanced(2, 0, 0), &format!("{size} octets received"))
    }

    /// The message, or what was left of it, is dealt with.
    pub fn on_message_done(&mut self) -> Option<Transaction> {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Mail(transaction) | State::Chunks(transaction) => Some(transaction),
            other => {
                self.state = other;
                None
            }
        }
    }

    fn xclient(&mut self, attributes: Vec<(String, String)>) -> Output {
        if !self.offers.xclient {
            return self.error(Reply::fixed(550, Enhanced(5, 7, 0), "XCLIENT is for trusted networks"));
        }
        if self.transaction().is_some() {
            return self.bad_sequence();
        }
        self.state = State::Fresh;
        Output::Xclient(attributes)
    }

    pub fn too_large(&self) -> Reply {
        status(552, Enhanced(5, 3, 4), &format!("Message is larger than {}", self.limits.message_size_max))
    }

    fn idle(&mut self, reply: Reply, resets: bool) -> Output {
        self.idle_commands += 1;
        if self.idle_commands > self.limits.idle_commands_max {
            return Output::Close(Reply::fixed(421, Enhanced(4, 7, 0), "Too many commands without mail"));
        }
        if !resets {
            return Output::Reply(reply);
        }
        if self.transaction().is_some() {
            return Output::Abandon(reply);
        }
        Output::Reply(reply)
    }

    fn bad_sequence(&mut self) -> Output {
        self.error(Reply::fixed(BAD_SEQUENCE.0, BAD_SEQUENCE.1, BAD_SEQUENCE.2))
    }

    /// An error reply; the connection is closed once there were too many.
    fn error(&mut self, reply: Reply) -> Output {
        self.errors += 1;
        if self.errors > self.limits.errors_max {
            return Output::Close(Reply::fixed(421, Enhanced(4, 7, 0), "Too many errors"));
        }
        // RFC 5321 §3.8: with this code the channel is closed.
        if reply.code() == 421 { Output::Close(reply) } else { Output::Reply(reply) }
    }
}

fn status(code: u16, enhanced: Enhanced, text: &str) -> Reply {
    Status::with_text(code, enhanced, text).into()
}
