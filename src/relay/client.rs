//! An SMTP or LMTP conversation in which we are the client (RFC 5321, RFC 2033), with the extensions that save round trips
//! and keep promises: PIPELINING, CHUNKING, SIZE, 8BITMIME, SMTPUTF8, DSN, REQUIRETLS, AUTH.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use mail::reply::{Offers, REPLY_LINES_MAX, Reply, reply_line, stuff_dots};
use mail::{Enhanced, Status};
use net::{Connectors, Outbound, TlsFacts, TlsTrouble, Tlsa, Trust};
use store::{Needs, Notify};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// What the server takes mail by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    Smtp,
    Lmtp,
}

/// How a connection is protected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Protection {
    /// In the clear.
    None,
    /// TLS where it is offered, with whoever answers; in the clear where it fails.
    Opportunistic,
    /// The same; that `Trust` does not believe the server is only noted (RFC 8461 §5, a policy being tested).
    Tested(Trust),
    /// TLS, or not at all; `Trust` says whom it is believed.
    Required(Trust),
    /// TLS with a certificate that the DNS names, or not at all (RFC 7672).
    Dane(Arc<[Tlsa]>),
    /// TLS from the first octet.
    Implicit(Trust),
}

/// Where to, and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// The name that the certificate is for.
    pub host: String,
    pub address: SocketAddr,
    pub transport: Transport,
    pub protection: Protection,
    /// Where we come from; `None`: as the system chooses.
    pub source: Option<IpAddr>,
    pub login: Option<(String, Secret<String>)>,
}

/// Waits (RFC 5321 §4.5.3.2, but shorter where a dead server would hold up others).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waits {
    pub connect: Duration,
    /// For the greeting.
    pub greeting: Duration,
    /// For the answer to a command.
    pub command: Duration,
    /// For the answer to the whole message.
    pub message: Duration,
}

impl Protection {
    /// Nobody in between reads along.
    pub fn is_verified(&self) -> bool {
        match self {
            Self::Required(trust) | Self::Implicit(trust) => *trust != Trust::Anything,
            Self::Dane(_) => true,
            Self::None | Self::Opportunistic | Self::Tested(_) => false,
        }
    }
}

impl Default for Waits {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self { connect: s(30), greeting: s(120), command: s(300), message: s(600) }
    }
}

/// Why a conversation could not be begun.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody there, or nobody who speaks SMTP.
    #[error("{0}")]
    Unreachable(String),
    /// TLS is required and cannot be had.
    #[error("TLS: {reason}")]
    Tls { trouble: TlsTrouble, reason: String },
    /// The server turned us away.
    #[error("{0}")]
    Refused(Status),
}

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Without brackets; empty for the null reverse-path.
    pub sender: String,
    /// At least one.
    pub recipients: Vec<ParcelRecipient>,
    pub needs: Needs,
    pub envelope_id: Option<String>,
    /// CRLF line ends, not dot-stuffed; read one after the other.
    pub content: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParcelRecipient {
    pub address: String,
    pub original: Option<String>,
    pub notify: Notify,
}

/// What the server said of one recipient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub status: Status,
    /// The server took over what was asked with NOTIFY.
    pub tells: bool,
}

/// A conversation that is open, between messages.
pub struct Conversation {
    stream: Option<Outbound>,
    input: BytesMut,
    offers: Offers,
    waits: Waits,
    pub target: Target,
    pub tls: Option<TlsFacts>,
    /// What kept TLS from being as it was tried first; it goes on with less.
    pub trouble: Option<(TlsTrouble, String)>,
    /// Messages that went through it.
    pub messages: usize,
    /// The server has been told of a message that it has not answered for, or broke off: of no more use.
    is_broken: bool,
    /// It said that it closes the connection (421).
    pub is_turned_away: bool,
    /// It did not even take the sender, for now: another server may.
    pub is_unwilling: bool,
    /// The last message was on its way when the conversation broke: the server may have it.
    pub may_have_it: bool,
}

const LINE_MAX: usize = 16 * 1024;
const STEP: usize = 256 * 1024;

type Outcome<T> = Result<T, String>;

const NEEDS_UTF8: Status =
    Status::fixed(550, Enhanced(5, 6, 7), "The server does not take internationalised addresses");
const NEEDS_TLS: Status = Status::fixed(550, Enhanced(5, 7, 10), "The server does not promise TLS for this message");
const TOO_LARGE: Status = Status::fixed(552, Enhanced(5, 3, 4), "The server does not take messages of this size");

fn lost(reason: &str) -> Status {
    Status::with_text(451, Enhanced(4, 4, 2), reason)
}

impl Conversation {
    /// Connects, greets, and starts TLS and signs in where the target wants it.
    pub async fn open(
        connectors: &Connectors,
        target: &Target,
        host_name: &str,
        waits: Waits,
    ) -> Result<Self, ConnectError> {
        let first = match &target.protection {
            Protection::None => Start::Plain,
            Protection::Opportunistic => Start::IfOffered(Trust::Anything),
            Protection::Tested(trust) => Start::Always(Belief::Trust(trust.clone())),
            Protection::Required(trust) => Start::Always(Belief::Trust(trust.clone())),
            Protection::Dane(records) => Start::Always(Belief::Dns(Arc::clone(records))),
            Protection::Implicit(trust) => Start::AtOnce(trust.clone()),
        };
        // What is tried where that does not come about.
        let less = match &target.protection {
            Protection::Opportunistic => vec![Start::Plain],
            Protection::Tested(_) => vec![Start::IfOffered(Trust::Anything), Start::Plain],
            Protection::None | Protection::Required(_) | Protection::Dane(_) | Protection::Implicit(_) => Vec::new(),
        };
        let mut seen = None;
        let mut opened = Self::try_to_open(connectors, target, host_name, waits, &first).await;
        for start in &less {
            let Err(ConnectError::Tls { trouble, reason }) = &opened else { break };
            seen.get_or_insert((*trouble, reason.clone()));
            opened = Self::try_to_open(connectors, target, host_name, waits, start).await;
        }
        let mut opened = opened?;
        let is_plain = opened.tls.is_none() && target.protection == Protection::Opportunistic;
        let none = || (TlsTrouble::NotOffered, "the server does not offer STARTTLS".to_owned());
        opened.trouble = seen.or_else(|| is_plain.then(none));
        Ok(opened)
    }

    async fn try_to_open(
        connectors: &Connectors,
        target: &Target,
        host_name: &str,
        waits: Waits,
        start: &Start,
    ) -> Result<Self, ConnectError> {
        let stream = connect(target, waits.connect).await.map_err(ConnectError::Unreachable)?;
        let stream = match start {
            Start::AtOnce(trust) => {
                let secured = connectors.secure(stream, &target.host, trust).await;
                secured.map_err(|error| of_tls(&error))?
            }
            Start::Plain | Start::IfOffered(_) | Start::Always(_) => Outbound::Plain(stream),
        };
        let tls = stream.tls_facts();
        let mut new = Self {
            stream: Some(stream),
            input: BytesMut::new(),
            offers: Offers::default(),
            waits,
            target: target.clone(),
            tls,
            trouble: None,
            messages: 0,
            is_broken: false,
            is_turned_away: false,
            is_unwilling: false,
            may_have_it: false,
        };
        new.greet(host_name).await?;
        let is_offered = new.offers.has("STARTTLS");
        let belief = match start {
            Start::Plain | Start::AtOnce(_) => None,
            Start::IfOffered(trust) => is_offered.then(|| Belief::Trust(trust.clone())),
            Start::Always(belief) if is_offered => Some(belief.clone()),
            Start::Always(_) => {
                new.quit().await;
                let reason = "the server does not offer STARTTLS".to_owned();
                return Err(ConnectError::Tls { trouble: TlsTrouble::NotOffered, reason });
            }
        };
        if let Some(belief) = belief {
            new.start_tls(connectors, &belief).await?;
            new.hello(host_name).await?;
        }
        if let Some((login, password)) = target.login.clone() {
            new.sign_in(&login, &password).await?;
        }
        Ok(new)
    }

    async fn greet(&mut self, host_name: &str) -> Result<(), ConnectError> {
        let greeting = self.reply(self.waits.greeting).await.map_err(ConnectError::Unreachable)?;
        if greeting.code != 220 {
            let status = greeting.status();
            self.quit().await;
            return Err(ConnectError::Refused(status));
        }
        self.hello(host_name).await
    }

    async fn hello(&mut self, host_name: &str) -> Result<(), ConnectError> {
        let verb = if self.target.transport == Transport::Lmtp { "LHLO" } else { "EHLO" };
        let unreachable = ConnectError::Unreachable;
        let mut answer = self.ask(&format!("{verb} {host_name}")).await.map_err(unreachable)?;
        if !answer.is_success() && answer.is_permanent() && self.target.transport == Transport::Smtp {
            answer = self.ask(&format!("HELO {host_name}")).await.map_err(unreachable)?;
        }
        if !answer.is_success() {
            let status = answer.status();
            self.quit().await;
            return Err(ConnectError::Refused(status));
        }
        self.offers = Offers::new(&answer);
        Ok(())
    }

    async fn start_tls(&mut self, connectors: &Connectors, belief: &Belief) -> Result<(), ConnectError> {
        let other = |reason: String| ConnectError::Tls { trouble: TlsTrouble::Other, reason };
        let answer = self.ask("STARTTLS").await.map_err(other)?;
        if answer.code != 220 {
            return Err(other(format!("STARTTLS was refused: {}", answer.describe())));
        }
        // RFC 3207 §6: what was said in the clear is forgotten.
        if !self.input.is_empty() {
            return Err(other("more was said before TLS began".to_owned()));
        }
        let Some(Outbound::Plain(stream)) = self.stream.take() else {
            return Err(other("TLS is on already".to_owned()));
        };
        let secured = match belief {
            Belief::Trust(trust) => connectors.secure(stream, &self.target.host, trust).await,
            Belief::Dns(records) => connectors.secure_by_dns(stream, &self.target.host, records).await,
        };
        let secured = secured.map_err(|error| of_tls(&error))?;
        self.tls = secured.tls_facts();
        self.stream = Some(secured);
        Ok(())
    }

    async fn sign_in(&mut self, login: &str, password: &Secret<String>) -> Result<(), ConnectError> {
        let mechanisms = self.offers.of("AUTH").unwrap_or_default();
        let has = |name: &str| mechanisms.iter().any(|one| one == name);
        let unreachable = ConnectError::Unreachable;
        let answer = if has("PLAIN") {
            let plain = Secret::new(format!("\0{login}\0{}", password.reveal()));
            let line = Secret::new(format!("AUTH PLAIN {}", STANDARD.encode(plain.reveal())));
            self.ask(line.reveal()).await.map_err(unreachable)?
        } else if has("LOGIN") {
            let mut answer = self.ask("AUTH LOGIN").await.map_err(unreachable)?;
            for text in [login, password.reveal().as_str()] {
                if answer.code == 334 {
                    let line = Secret::new(STANDARD.encode(text));
                    answer = self.ask(line.reveal()).await.map_err(unreachable)?;
                }
            }
            answer
        } else {
            return Err(ConnectError::Unreachable("the server offers neither AUTH PLAIN nor LOGIN".to_owned()));
        };
        match answer.code {
            235 => Ok(()),
            // A password that is wrong here is no reason to return mail: somebody sets it right.
            _ => Err(ConnectError::Unreachable(format!("sign-in was refused: {}", answer.describe()))),
        }
    }

    /// True if another message can go through it.
    pub fn is_open(&self) -> bool {
        !self.is_broken && self.stream.is_some()
    }

    /// Hands a message over. One answer for each recipient, in order; a success only where the server said so.
    pub async fn deliver(&mut self, parcel: &Parcel) -> Vec<Answer> {
        let mut answers: Vec<Option<Status>> = vec![None; parcel.recipients.len()];
        self.may_have_it = false;
        if let Err(reason) = self.transfer(parcel, &mut answers).await {
            self.is_broken = true;
            let status = lost(&reason);
            answers.iter_mut().filter(|answer| answer.is_none()).for_each(|answer| *answer = Some(status.clone()));
        }
        self.messages += 1;
        let tells = self.offers.has("DSN");
        let missing = lost("the server did not answer");
        answers.into_iter().map(|status| Answer { status: status.unwrap_or_else(|| missing.clone()), tells }).collect()
    }

    /// Whether the server would take a notice for each of these addresses; nothing is sent.
    ///
    /// # Errors
    /// Why it did not say.
    pub async fn would_take(&mut self, addresses: &[String]) -> Result<Vec<Status>, String> {
        let mail = self.ask("MAIL FROM:<>").await?;
        if !mail.is_success() {
            return Err(format!("the server does not take notices: {}", mail.describe()));
        }
        let mut answers = Vec::with_capacity(addresses.len());
        for address in addresses {
            if !address.is_ascii() && !self.offers.has("SMTPUTF8") {
                answers.push(NEEDS_UTF8);
                continue;
            }
            answers.push(self.ask(&format!("RCPT TO:<{address}>")).await?.status());
        }
        Ok(answers)
    }

    /// What keeps this message from being sent to this server at all.
    fn obstacle(&self, parcel: &Parcel, size: usize) -> Option<Status> {
        let is_ascii = parcel.sender.is_ascii() && parcel.recipients.iter().all(|one| one.address.is_ascii());
        if !self.offers.has("SMTPUTF8") && (parcel.needs.smtputf8 || !is_ascii) {
            return Some(NEEDS_UTF8);
        }
        let is_verified = self.tls.is_some() && self.target.protection.is_verified();
        if parcel.needs.requiretls && !(is_verified && self.offers.has("REQUIRETLS")) {
            return Some(NEEDS_TLS);
        }
        let limit = self.offers.of("SIZE").and_then(|words| words.first()?.parse::<usize>().ok());
        limit.filter(|limit| *limit > 0 && size > *limit).map(|_| TOO_LARGE)
    }

    fn mail_from(&self, parcel: &Parcel, size: usize, is_8bit: bool) -> String {
        let mut line = format!("MAIL FROM:<{}>", parcel.sender);
        if self.offers.has("SIZE") {
            line.push_str(&format!(" SIZE={size}"));
        }
        if self.offers.has("8BITMIME") && is_8bit {
            line.push_str(" BODY=8BITMIME");
        }
        if self.offers.has("SMTPUTF8")
            && (parcel.needs.smtputf8
                || !parcel.sender.is_ascii()
                || !parcel.recipients.iter().all(|one| one.address.is_ascii()))
        {
            line.push_str(" SMTPUTF8");
        }
        if parcel.needs.requiretls {
            line.push_str(" REQUIRETLS");
        }
        if self.offers.has("DSN") {
            if parcel.needs.full_return {
                line.push_str(" RET=FULL");
            } else if parcel.needs.header_return {
                line.push_str(" RET=HDRS");
            }
            if let Some(id) = &parcel.envelope_id {
                line.push_str(&format!(" ENVID={}", xtext(id)));
            }
        }
        line
    }

    fn rcpt_to(&self, recipient: &ParcelRecipient) -> String {
        let mut line = format!("RCPT TO:<{}>", recipient.address);
        if self.offers.has("DSN") {
            if recipient.notify != Notify::default() {
                line.push_str(&format!(" NOTIFY={}", notify_words(recipient.notify)));
            }
            if let Some((kind, address)) = recipient.original.as_deref().and_then(|text| text.split_once(';')) {
                line.push_str(&format!(" ORCPT={kind};{}", xtext(address)));
            }
        }
        line
    }

    async fn transfer(&mut self, parcel: &Parcel, answers: &mut [Option<Status>]) -> Outcome<()> {
        let size = parcel.content.iter().map(Bytes::len).sum();
        let is_8bit = !parcel.content.iter().all(|piece| piece.is_ascii());
        if let Some(status) = self.obstacle(parcel, size) {
            answers.fill(Some(status));
            return Ok(());
        }
        let is_chunked = self.offers.has("CHUNKING");
        let is_pipelined = self.offers.has("PIPELINING");
        let mut commands = vec![self.mail_from(parcel, size, is_8bit)];
        commands.extend(parcel.recipients.iter().map(|one| self.rcpt_to(one)));
        if is_pipelined && !is_chunked {
            commands.push("DATA".to_owned());
        }
        if is_pipelined {
            self.say(format!("{}\r\n", commands.join("\r\n")).as_bytes()).await?;
        }
        let mail = self.answer_to(&commands[0], is_pipelined).await?;
        self.is_unwilling = !mail.is_success() && !mail.is_permanent();
        if !mail.is_success() && !is_pipelined {
            answers.fill(Some(refusal(&mail)));
            return self.after_refusal(&mail);
        }
        for (command, answer) in commands.iter().skip(1).zip(answers.iter_mut()) {
            let reply = self.answer_to(command, is_pipelined).await?;
            if !mail.is_success() {
                *answer = Some(refusal(&mail));
            } else if !reply.is_success() {
                *answer = Some(refusal(&reply));
                self.after_refusal(&reply)?;
            }
        }
        let is_wanted = answers.iter().any(Option::is_none);
        if is_chunked {
            if is_wanted {
                self.send_chunk(parcel, size).await?;
                return self.read_verdict(answers).await;
            }
        } else if is_pipelined || is_wanted {
            let data = self.answer_to("DATA", is_pipelined).await?;
            if data.code == 354 && !is_wanted {
                // RFC 2920 §3.1: nobody is left, yet it waits for a message.
                self.say(b".\r\n").await?;
                self.reply(self.waits.message).await?;
            } else if data.code == 354 {
                self.send_stuffed(parcel).await?;
                return self.read_verdict(answers).await;
            } else {
                let status =
                    if data.is_success() { lost("the server does not take the message") } else { refusal(&data) };
                answers.iter_mut().filter(|one| one.is_none()).for_each(|one| *one = Some(status.clone()));
                self.after_refusal(&data)?;
            }
        }
        if !mail.is_success() {
            return self.after_refusal(&mail);
        }
        let reset = self.ask("RSET").await?;
        if reset.is_success() { Ok(()) } else { self.after_refusal(&reset) }
    }

    async fn answer_to(&mut self, command: &str, was_said: bool) -> Outcome<Reply> {
        if !was_said {
            self.say(format!("{command}\r\n").as_bytes()).await?;
        }
        self.reply(self.waits.command).await
    }

    /// A server that says 421 closes the conversation.
    fn after_refusal(&mut self, reply: &Reply) -> Outcome<()> {
        if reply.code == 421 {
            self.is_broken = true;
            self.is_turned_away = true;
        }
        Ok(())
    }

    /// RFC 3030.
    async fn send_chunk(&mut self, parcel: &Parcel, size: usize) -> Outcome<()> {
        self.may_have_it = true;
        let ends = ends_with_a_line(&parcel.content);
        let size = if ends { size } else { size + 2 };
        let mut first = BytesMut::from(format!("BDAT {size} LAST\r\n").as_bytes());
        for piece in &parcel.content {
            if first.len() + piece.len() <= STEP {
                first.extend_from_slice(piece);
            } else {
                self.say(&first.split()).await?;
                self.say(piece).await?;
            }
        }
        if !ends {
            first.extend_from_slice(b"\r\n");
        }
        self.say(&first).await
    }

    async fn send_stuffed(&mut self, parcel: &Parcel) -> Outcome<()> {
        self.may_have_it = true;
        let mut out = Vec::with_capacity(STEP.min(parcel.content.iter().map(Bytes::len).sum::<usize>() + 1024));
        for piece in &parcel.content {
            // Pieces are whole lines, and so is each part of one.
            let mut rest: &[u8] = piece;
            while !rest.is_empty() {
                let end = rest
                    .get(STEP..)
                    .and_then(|after| memchr::memchr(b'\n', after))
                    .map_or(rest.len(), |at| STEP + at + 1);
                let (part, after) = rest.split_at(end);
                stuff_dots(part, &mut out);
                rest = after;
                if out.len() >= STEP {
                    self.say(&out).await?;
                    out.clear();
                }
            }
        }
        if !ends_with_a_line(&parcel.content) {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
        self.say(&out).await
    }

    /// The answers to the whole message: one, or with LMTP one for each recipient that was taken.
    async fn read_verdict(&mut self, answers: &mut [Option<Status>]) -> Outcome<()> {
        let mut last: Option<Reply> = None;
        for answer in answers.iter_mut().filter(|answer| answer.is_none()) {
            if last.is_none() || self.target.transport == Transport::Lmtp {
                last = Some(self.reply(self.waits.message).await?);
            }
            *answer = last.as_ref().map(|reply| if reply.is_success() { reply.status() } else { refusal(reply) });
        }
        last.map_or(Ok(()), |reply| self.after_refusal(&reply))
    }

    /// Ends the conversation. Nobody waits long for a farewell.
    pub async fn quit(&mut self) {
        if !self.is_broken {
            let _ = tokio::time::timeout(Duration::from_secs(2), self.ask("QUIT")).await;
        }
        self.is_broken = true;
        if let Some(mut stream) = self.stream.take() {
            let _ = tokio::time::timeout(Duration::from_secs(1), stream.shutdown()).await;
        }
    }

    async fn ask(&mut self, command: &str) -> Outcome<Reply> {
        let line = Secret::new(format!("{command}\r\n"));
        self.say(line.reveal().as_bytes()).await?;
        self.reply(self.waits.command).await
    }

    async fn say(&mut self, text: &[u8]) -> Outcome<()> {
        let stream = self.stream.as_mut().ok_or("the connection is gone")?;
        let sending = async {
            stream.write_all(text).await?;
            stream.flush().await
        };
        match tokio::time::timeout(self.waits.command, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("the connection broke: {error}")),
            Err(_elapsed) => Err("the server takes nothing".to_owned()),
        }
    }

    async fn reply(&mut self, wait: Duration) -> Outcome<Reply> {
        let reading = async {
            let mut lines = Vec::new();
            while lines.len() < REPLY_LINES_MAX {
                let line = self.line().await?;
                let Some((code, is_last, text)) = reply_line(&line) else {
                    return Err("the server answers strangely".to_owned());
                };
                lines.push(text);
                if is_last {
                    return Ok(Reply { code, lines });
                }
            }
            Err("the server says too much".to_owned())
        };
        let read = tokio::time::timeout(wait, reading).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        if read.is_err() {
            self.is_broken = true;
        }
        read
    }

    async fn line(&mut self) -> Outcome<Bytes> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.input) {
                let line = self.input.split_to(end + 1).freeze();
                let length = line.strip_suffix(b"\r\n").map_or(end, <[u8]>::len);
                return Ok(line.slice(..length));
            }
            if self.input.len() > LINE_MAX {
                return Err("the server says a line without an end".to_owned());
            }
            let stream = self.stream.as_mut().ok_or("the connection is gone")?;
            match stream.read_buf(&mut self.input).await {
                Ok(0) => return Err("the connection was closed".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(format!("the connection broke: {error}")),
            }
        }
    }
}

async fn connect(target: &Target, wait: Duration) -> Outcome<TcpStream> {
    let socket = if target.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(|error| error.to_string())?;
    if let Some(source) = target.source.filter(|source| source.is_ipv4() == target.address.is_ipv4()) {
        socket.bind(SocketAddr::new(source, 0)).map_err(|error| format!("from {source}: {error}"))?;
    }
    match tokio::time::timeout(wait, socket.connect(target.address)).await {
        Ok(Ok(stream)) => {
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(error)) => Err(format!("{}: {error}", target.address)),
        Err(_elapsed) => Err(format!("{}: no answer in time", target.address)),
    }
}

/// How TLS begins.
enum Start {
    /// Not at all.
    Plain,
    /// Where it is offered.
    IfOffered(Trust),
    Always(Belief),
    /// From the first octet.
    AtOnce(Trust),
}

/// Which certificate is the server's.
#[derive(Clone)]
enum Belief {
    Trust(Trust),
    Dns(Arc<[Tlsa]>),
}

fn of_tls(error: &std::io::Error) -> ConnectError {
    ConnectError::Tls { trouble: TlsTrouble::of(error), reason: error.to_string() }
}

fn refusal(reply: &Reply) -> Status {
    if reply.is_success() { lost("the server answers strangely") } else { reply.status() }
}

fn ends_with_a_line(content: &[Bytes]) -> bool {
    content.iter().rev().find(|piece| !piece.is_empty()).is_none_or(|last| last.ends_with(b"\r\n"))
}

/// RFC 3461 §4.1.
pub fn notify_words(notify: Notify) -> String {
    if notify == Notify::NEVER {
        return "NEVER".to_owned();
    }
    let words = [(notify.success, "SUCCESS"), (notify.failure, "FAILURE"), (notify.delay, "DELAY")];
    words.iter().filter(|(is_wanted, _)| *is_wanted).map(|(_, word)| *word).collect::<Vec<_>>().join(",")
}

/// RFC 3461 §4.
pub fn xtext(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'!'..=b'~' if byte != b'+' && byte != b'=' => out.push(char::from(byte)),
            _ => out.push_str(&format!("+{byte:02X}")),
        }
    }
    out
}
