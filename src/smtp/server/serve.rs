//! The shell around a session: socket, timeouts, content; everything else is [`Session`]'s and the handler's.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, IdSource, event};
use bytes::{Buf as _, BytesMut};
use mail::{Enhanced, Status};
use net::{SpoolError, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::proto::{ChunkChecker, DotDecoder, Line, Reply, next_line};
use crate::server::handler::{Handler, Onward, Protocol, SessionFacts, SignIn, Transaction};
use crate::server::session::{HOLD_MAX, Limits, Offers, Output, Session};

/// What sessions of one listener share.
pub struct Config {
    pub host_name: String,
    pub protocol: Protocol,
    pub limits: Limits,
    /// For STARTTLS; `None` offers none.
    pub tls: Option<TlsAcceptor>,
    /// Passwords are taken without TLS from loopback (demonstration mode).
    pub plain_login_on_loopback: bool,
}

/// Longest command line, CRLF included. RFC 5321 §4.5.3.1.4 asks for 512, its extensions for more, AUTH for 12288.
const LINE_MAX: usize = 12_288;
const READ_STEP: usize = 64 * 1024;
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

const BARE: Status =
    Status::fixed(550, Enhanced(5, 6, 11), "Message refused: it has a CR or LF that is not part of a CR LF");
const FULL: Status = Status::fixed(452, Enhanced(4, 3, 1), "Insufficient storage, try again later");
const BROKEN: Status = Status::fixed(451, Enhanced(4, 3, 0), "Cannot take the message now, try again later");
const GIVEN_UP: Status = Status::fixed(250, Enhanced(2, 0, 0), "The client gave it up");
const LOST: Status = Status::fixed(421, Enhanced(4, 4, 2), "Connection lost");

/// Why the connection ends.
enum Closed {
    /// Gone or silent; nothing more can be said.
    Gone,
    TimedOut,
    Stopping,
    Done,
    /// Another server goes on.
    Elsewhere(Box<Onward>),
}

/// Serves one connection until it ends. `cancel` ends it between two transactions, never inside one.
#[expect(clippy::too_many_arguments, reason = "the parts of one connection, named at the call")]
pub async fn serve(
    stream: Stream,
    client: SocketAddr,
    trusted: bool,
    config: Arc<Config>,
    handler: Box<dyn Handler>,
    ids: Arc<IdSource>,
    clock: Arc<dyn Clock>,
    cancel: CancellationToken,
) {
    let tls = stream.tls_facts();
    let offers = Offers {
        starttls: tls.is_none() && config.tls.is_some(),
        auth: tls.is_some() || (config.plain_login_on_loopback && client.ip().is_loopback()),
        xclient: trusted,
        requiretls: tls.is_some(),
        hold_until: (config.protocol == Protocol::Submission).then(|| clock.utc().plus(HOLD_MAX)),
    };
    let facts = SessionFacts {
        id: ids.session(clock.utc()),
        protocol: config.protocol,
        client,
        client_name: None,
        helo: String::new(),
        extended: false,
        tls,
        identity: None,
        early_talker: false,
    };
    let session = Session::new(config.protocol, &config.host_name, config.limits.clone(), offers);
    tracing::debug!(event = event::SESSION_OPENED, session = %facts.id, protocol = ?facts.protocol, peer = %client.ip());
    let mut connection = Connection {
        stream: Some(stream),
        input: BytesMut::new(),
        out: Vec::new(),
        session,
        facts,
        config,
        handler,
        ids,
        clock,
        cancel,
        content: None,
    };
    let closed = Box::pin(connection.run()).await;
    connection.end(closed).await;
}

struct Connection {
    /// Taken only while TLS is negotiated.
    stream: Option<Stream>,
    input: BytesMut,
    out: Vec<u8>,
    session: Session,
    facts: SessionFacts,
    config: Arc<Config>,
    handler: Box<dyn Handler>,
    ids: Arc<IdSource>,
    clock: Arc<dyn Clock>,
    cancel: CancellationToken,
    /// Content of BDAT chunks so far.
    content: Option<Content>,
}

/// A message on its way in. Once it is refused, the rest is read and dropped.
struct Content {
    spool: Option<net::Spool>,
    checker: ChunkChecker,
    refusal: Option<Reply>,
}

impl Connection {
    async fn run(&mut self) -> Closed {
        if let Err(status) = self.handler.connected(&self.facts).await {
            Reply::from(status).write(&mut self.out);
            return Closed::Done;
        }
        self.facts.early_talker = self.has_early_bytes();
        self.session.greeting().write(&mut self.out);
        loop {
            let step = match self.next_line().await {
                Ok(Some(line)) => Box::pin(self.on_line(&line)).await,
                Ok(None) => Ok(()),
                Err(closed) => Err(closed),
            };
            if let Err(closed) = step {
                return closed;
            }
        }
    }

    /// Bytes before the greeting (not those of TLS): no patient mail server sends any.
    fn has_early_bytes(&mut self) -> bool {
        let Some(Stream::Plain(stream)) = &self.stream else { return false };
        match stream.try_read_buf(&mut self.input) {
            Ok(length) => length > 0,
            Err(_would_block) => false,
        }
    }

    /// The next whole line without CRLF; `None` after a line that was answered as bad.
    async fn next_line(&mut self) -> Result<Option<Vec<u8>>, Closed> {
        loop {
            match next_line(&self.input, LINE_MAX) {
                Line::Whole { length } => {
                    let mut line = self.input.split_to(length).to_vec();
                    line.truncate(length - 2);
                    return Ok(Some(line));
                }
                Line::BareLineEnd { length } => {
                    self.input.advance(length);
                    let output = self.session.on_bad_line(false);
                    return self.perform_simple(output).map(|()| None);
                }
                Line::TooLong => {
                    self.drop_long_line().await?;
                    let output = self.session.on_bad_line(true);
                    return self.perform_simple(output).map(|()| None);
                }
                Line::Partial => {
                    self.flush().await?;
                    if self.input.is_empty() {
                        // An idle session holds no buffer.
                        self.input = BytesMut::new();
                    }
                    let cancel = self.cancel.clone();
                    let patience = self.session.limits().command_timeout;
                    let may_stop = self.session.transaction().is_none();
                    tokio::select! {
                        read = self.read(patience) => read?,
                        () = cancel.cancelled(), if may_stop => return Err(Closed::Stopping),
                    }
                }
            }
        }
    }

    async fn drop_long_line(&mut self) -> Result<(), Closed> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.input) {
                self.input.advance(end + 1);
                return Ok(());
            }
            self.input.clear();
            self.flush().await?;
            self.read(self.session.limits().command_timeout).await?;
        }
    }

    async fn on_line(&mut self, line: &[u8]) -> Result<(), Closed> {
        match self.session.on_line(line) {
            output @ (Output::Reply(_) | Output::Close(_)) => self.perform_simple(output),
            Output::Abandon(reply) => {
                self.abandon(&GIVEN_UP).await;
                self.perform_simple(Output::Reply(reply))
            }
            Output::StartTls(reply) => {
                reply.write(&mut self.out);
                self.start_tls().await
            }
            Output::Authenticate(credentials) => {
                let mut onward = None;
                let outcome = self.handler.authenticate(&self.facts, credentials).await.map(|sign_in| match sign_in {
                    SignIn::Here(identity) => self.facts.identity = Some(identity),
                    SignIn::Elsewhere(opened) => onward = Some(opened),
                });
                let output = self.session.on_authenticated(outcome);
                self.perform_simple(output)?;
                onward.map_or(Ok(()), |onward| Err(Closed::Elsewhere(onward)))
            }
            Output::CheckGreeting { helo, extended } => {
                self.abandon(&GIVEN_UP).await;
                (self.facts.helo, self.facts.extended) = (helo, extended);
                let outcome = self.handler.greeted(&self.facts).await;
                let output = self.session.on_greeting(extended, outcome);
                self.perform_simple(output)
            }
            Output::CheckSender(path, parameters) => {
                let id = self.ids.message(self.clock.utc());
                let outcome = self.handler.sender(&self.facts, id, &path, &parameters).await;
                let output = self.session.on_sender(id, path, &parameters, outcome);
                self.perform_simple(output)
            }
            Output::CheckRecipient(path, wish) => {
                let Some(transaction) = self.session.transaction() else { return Ok(()) };
                let outcome = self.handler.recipient(&self.facts, transaction, &path).await;
                let output = self.session.on_recipient(path, wish, outcome);
                self.perform_simple(output)
            }
            Output::ReceiveData(reply) => {
                reply.write(&mut self.out);
                self.receive_data().await
            }
            Output::ReceiveChunk { size, last } => self.receive_chunk(size, last).await,
            Output::DropChunk { size, reply } => {
                self.drop_octets(size).await?;
                reply.write(&mut self.out);
                Ok(())
            }
            Output::Xclient(attributes) => {
                self.facts.helo.clear();
                self.apply_xclient(&attributes);
                if let Err(status) = self.handler.connected(&self.facts).await {
                    Reply::from(status).write(&mut self.out);
                    return Err(Closed::Done);
                }
                self.session.greeting().write(&mut self.out);
                Ok(())
            }
        }
    }

    /// Outputs that are only said.
    fn perform_simple(&mut self, output: Output) -> Result<(), Closed> {
        match output {
            Output::Reply(reply) => {
                reply.write(&mut self.out);
                Ok(())
            }
            Output::Close(reply) => {
                reply.write(&mut self.out);
                Err(Closed::Done)
            }
            Output::StartTls(_)
            | Output::Authenticate(_)
            | Output::CheckGreeting { .. }
            | Output::CheckSender(..)
            | Output::CheckRecipient(..)
            | Output::ReceiveData(_)
            | Output::ReceiveChunk { .. }
            | Output::DropChunk { .. }
            | Output::Xclient(_)
            | Output::Abandon(_) => {
                debug_assert!(false, "a reply to a handler's word is only said");
                Ok(())
            }
        }
    }

    async fn start_tls(&mut self) -> Result<(), Closed> {
        self.flush().await?;
        // Whatever was sent in the clear after STARTTLS is dropped unread: nothing can be injected (RFC 3207 §5).
        self.input = BytesMut::new();
        let (Some(acceptor), Some(Stream::Plain(stream))) = (self.config.tls.clone(), self.stream.take()) else {
            return Err(Closed::Gone);
        };
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                let stream = Stream::Tls(Box::new(stream));
                self.facts.tls = stream.tls_facts();
                self.facts.helo.clear();
                self.facts.extended = false;
                self.stream = Some(stream);
                self.session.on_tls();
                Ok(())
            }
            Ok(Err(error)) => {
                tracing::debug!(event = event::SESSION_CLOSED, session = %self.facts.id, reason = "tls", %error);
                Err(Closed::Gone)
            }
            Err(_elapsed) => Err(Closed::Gone),
        }
    }

    async fn receive_data(&mut self) -> Result<(), Closed> {
        let deadline = self.clock.now() + self.session.limits().message_timeout;
        let mut content = Content::new(self.handler.spool());
        let (mut decoder, mut decoded) = (DotDecoder::default(), Vec::new());
        loop {
            let end = decoder.decode(&self.input, &mut decoded);
            content.add(&decoded, &self.session).await;
            decoded.clear();
            match end {
                Some(end) => {
                    self.input.advance(end);
                    break;
                }
                None => self.input.clear(),
            }
            self.flush().await?;
            self.read_content(deadline).await?;
        }
        if decoder.saw_bare_line_end() {
            content.refuse(BARE.into());
        }
        self.finish_message(content).await
    }

    async fn receive_chunk(&mut self, size: u64, last: bool) -> Result<(), Closed> {
        let deadline = self.clock.now() + self.session.limits().message_timeout;
        let mut content = self.content.take().unwrap_or_else(|| Content::new(self.handler.spool()));
        let mut left = size;
        while left > 0 {
            if self.input.is_empty() {
                self.flush().await?;
                self.read_content(deadline).await?;
            }
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(self.input.len());
            let piece = self.input.split_to(take);
            content.checker.check(&piece);
            content.add(&piece, &self.session).await;
            left -= u64::try_from(take).unwrap_or(left);
        }
        if !last {
            match &content.refusal {
                Some(refusal) => refusal.write(&mut self.out),
                None => self.session.on_chunk(size).write(&mut self.out),
            }
            self.content = Some(content);
            return Ok(());
        }
        if content.checker.saw_bare_line_end() {
            content.refuse(BARE.into());
        }
        self.finish_message(content).await
    }

    async fn drop_octets(&mut self, size: u64) -> Result<(), Closed> {
        let deadline = self.clock.now() + self.session.limits().message_timeout;
        let mut left = size;
        while left > 0 {
            if self.input.is_empty() {
                self.flush().await?;
                self.read_content(deadline).await?;
            }
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(self.input.len());
            self.input.advance(take);
            left -= u64::try_from(take).unwrap_or(left);
        }
        Ok(())
    }

    /// Hands the content over and tells what became of it.
    async fn finish_message(&mut self, content: Content) -> Result<(), Closed> {
        let Some(transaction) = self.session.on_message_done() else { return Ok(()) };
        let recipients = transaction.envelope.forward_paths.len();
        let is_lmtp = self.config.protocol == Protocol::Lmtp;
        // One recipient's answer is the message's.
        let is_prdr = transaction.answers_each && !is_lmtp && recipients > 1;
        let replies = match content {
            Content { refusal: None, spool: Some(spool), .. } => {
                let statuses = self.handler.message(&self.facts, transaction, spool.finish()).await;
                if is_prdr && statuses.len() == recipients {
                    return self.answer_each(&statuses);
                }
                statuses.into_iter().map(Reply::from).collect::<Vec<_>>()
            }
            Content { refusal, .. } => {
                let reply = refusal.unwrap_or_else(|| BROKEN.into());
                self.refused(&transaction, &reply).await;
                vec![reply]
            }
        };
        let wanted = if is_lmtp { recipients } else { 1 };
        let last = replies.last().cloned().unwrap_or_else(|| BROKEN.into());
        for reply in replies.iter().chain(std::iter::repeat(&last)).take(wanted) {
            reply.write(&mut self.out);
        }
        Ok(())
    }

    /// What became of each recipient, between a word that this follows and one for the whole (draft-hall-prdr §5).
    fn answer_each(&mut self, statuses: &[Status]) -> Result<(), Closed> {
        Reply::plain(353, vec![std::borrow::Cow::Borrowed("The recipients are answered for one by one")])
            .write(&mut self.out);
        for status in statuses {
            Reply::from(status.clone()).write(&mut self.out);
        }
        let taken = statuses.iter().find(|status| status.is_success());
        let whole = taken.or_else(|| statuses.iter().find(|status| status.is_transient())).or(statuses.first());
        whole.map_or_else(|| BROKEN.into(), |status| Reply::from(status.clone())).write(&mut self.out);
        Ok(())
    }

    async fn refused(&mut self, transaction: &Transaction, reply: &Reply) {
        let code = reply.code();
        let why = Status::with_text(code, Enhanced(u8::try_from(code / 100).unwrap_or(5), 0, 0), "Content refused");
        self.handler.abandoned(&self.facts, transaction, &why).await;
    }

    async fn abandon(&mut self, why: &Status) {
        self.content = None;
        if let Some(transaction) = self.session.on_message_done() {
            self.handler.abandoned(&self.facts, &transaction, why).await;
        }
    }

    fn apply_xclient(&mut self, attributes: &[(String, String)]) {
        for (name, value) in attributes {
            if value.eq_ignore_ascii_case("[UNAVAILABLE]") || value.eq_ignore_ascii_case("[TEMPUNAVAIL]") {
                continue;
            }
            match name.as_str() {
                "NAME" => self.facts.client_name = Some(value.clone()),
                "ADDR" => {
                    let address = value.strip_prefix("IPv6:").or(value.strip_prefix("IPV6:")).unwrap_or(value);
                    if let Ok(address) = address.parse::<IpAddr>() {
                        self.facts.client.set_ip(address);
                    }
                }
                "PORT" => {
                    if let Ok(port) = value.parse() {
                        self.facts.client.set_port(port);
                    }
                }
                "HELO" => self.facts.helo.clone_from(value),
                // PROTO, LOGIN and what is to come: nothing here rests on them.
                _ => {}
            }
        }
        self.facts.early_talker = false;
    }

    async fn read_content(&mut self, deadline: std::time::Instant) -> Result<(), Closed> {
        let left = deadline.saturating_duration_since(self.clock.now());
        if left.is_zero() {
            return Err(Closed::TimedOut);
        }
        self.read(left.min(self.session.limits().content_timeout)).await
    }

    /// At least one more octet. Cancel safe.
    async fn read(&mut self, patience: Duration) -> Result<(), Closed> {
        let Some(stream) = &mut self.stream else { return Err(Closed::Gone) };
        // Grows with what arrives: a session that sends little holds little.
        let room = if self.input.capacity() == 0 { 2048 } else { READ_STEP };
        self.input.reserve(room.min(READ_STEP));
        match tokio::time::timeout(patience, stream.read_buf(&mut self.input)).await {
            Ok(Ok(0) | Err(_)) => Err(Closed::Gone),
            Ok(Ok(_)) => Ok(()),
            Err(_elapsed) => Err(Closed::TimedOut),
        }
    }

    async fn flush(&mut self) -> Result<(), Closed> {
        if self.out.is_empty() {
            return Ok(());
        }
        let Some(stream) = &mut self.stream else { return Err(Closed::Gone) };
        let sent = tokio::time::timeout(WRITE_TIMEOUT, async {
            stream.write_all(&self.out).await?;
            stream.flush().await
        });
        match sent.await {
            Ok(Ok(())) => {
                self.out.clear();
                self.out.shrink_to(4096);
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Err(Closed::Gone),
        }
    }

    async fn end(mut self, closed: Closed) {
        match &closed {
            Closed::TimedOut => {
                Reply::fixed(421, Enhanced(4, 4, 2), "Idle for too long, closing").write(&mut self.out);
            }
            Closed::Stopping => {
                Reply::fixed(421, Enhanced(4, 3, 2), "Shutting down, try again").write(&mut self.out);
            }
            Closed::Elsewhere(onward) => self.out.extend_from_slice(&onward.said),
            Closed::Done | Closed::Gone => {}
        }
        // Said if it can be.
        let is_told = !matches!(closed, Closed::Gone) && self.flush().await.is_ok();
        self.abandon(&LOST).await;
        self.handler.closed(&self.facts).await;
        if let (Closed::Elsewhere(onward), Some(stream), true) = (closed, &mut self.stream, is_told) {
            let (ahead, mut server) = (std::mem::take(&mut self.input), onward.stream);
            tokio::select! {
                () = net::splice_after(ahead, stream, &mut server) => {}
                () = self.cancel.cancelled() => {}
            }
        }
        if let Some(mut stream) = self.stream.take() {
            let _ = tokio::time::timeout(Duration::from_secs(5), stream.shutdown()).await;
        }
        tracing::debug!(event = event::SESSION_CLOSED, session = %self.facts.id, protocol = ?self.facts.protocol);
    }
}

impl Content {
    fn new(spool: net::Spool) -> Self {
        Self { spool: Some(spool), checker: ChunkChecker::default(), refusal: None }
    }

    async fn add(&mut self, bytes: &[u8], session: &Session) {
        let Some(spool) = &mut self.spool else { return };
        if let Err(error) = spool.write(bytes).await {
            self.refuse(match error {
                SpoolError::TooLarge(_) => session.too_large(),
                SpoolError::Full => FULL.into(),
                SpoolError::Failed(_) => BROKEN.into(),
            });
        }
    }

    /// The first refusal counts.
    fn refuse(&mut self, reply: Reply) {
        self.spool = None;
        self.refusal.get_or_insert(reply);
    }
}
