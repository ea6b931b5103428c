//! The shell around a session: from greeting to goodbye.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::event::{LOGIN_ACCEPTED, LOGIN_REFUSED, SESSION_CLOSED, SESSION_OPENED, STORE_FAILED};
use base::{AccountId, Clock, IdSource, MailboxId, Secret, SessionId};
use bytes::BytesMut;
use cluster::Handoff;
use directory::{Directory, Elsewhere, Login, LoginError, Protocol, Rights};
use store::{BlobStore, Entry, EntryContent, FlagChange, Flags, MailStore, MailboxName, StoreError, SystemFlags};
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

use crate::command::parse;
use crate::config::Config;
use crate::maildrop::{Lock, Maildrop, Maildrops, Message};
use crate::session::{Output, Phase, Session, Transport};
use crate::stuffing::{Stuffer, Top};
use crate::wire::{Closed, Duplex, Line, Wire};

/// What sessions work on.
pub struct Services {
    pub mail: Arc<dyn MailStore>,
    pub blobs: Arc<dyn BlobStore>,
    pub directory: Arc<dyn Directory>,
    pub maildrops: Arc<Maildrops>,
    /// For STLS; `None` offers none.
    pub tls: Option<tokio_rustls::TlsAcceptor>,
    /// Leads sessions to the node of their account; `None` on a node that is alone.
    pub affinity: Option<Arc<cluster::Affinity>>,
    /// The way to old servers.
    pub legacy: Arc<legacy::Gateway>,
}

struct Connection {
    wire: Wire,
    session: Session,
    services: Arc<Services>,
    config: Arc<Config>,
    peer: SocketAddr,
    id: SessionId,
    open: Option<Open>,
    /// Where the session goes on.
    led: Option<Led>,
}

/// Another server that goes on with the session.
enum Led {
    /// A node, which answers the sign-in and knows what the client said after it.
    Node(Box<cluster::Led>),
    /// An old server: the sign-in was answered here, and what the client said after it has to be told.
    Legacy(Box<legacy::Opened>),
}

/// The inbox behind the maildrop.
struct Open {
    account: AccountId,
    mailbox: MailboxId,
    _lock: Lock,
}

enum Next {
    Go,
    Close,
    StartTls,
    /// Another server goes on.
    Lead,
}

/// The last word of a session that we end.
const CLOSING: &[u8] = b"-ERR [SYS/TEMP] Closing\r\n";
const FAREWELL_WAIT: Duration = Duration::from_secs(2);
/// Octets of a message held at once.
const STEP: u64 = 256 * 1024;

/// Serves one connection until it ends. `cancel` ends it between two commands, and then nothing is deleted.
#[expect(clippy::too_many_arguments, reason = "the parts of one connection, named at the call")]
pub async fn serve(
    stream: impl Duplex + 'static,
    is_tls: bool,
    peer: SocketAddr,
    config: Arc<Config>,
    services: Arc<Services>,
    ids: Arc<IdSource>,
    clock: Arc<dyn Clock>,
    cancel: CancellationToken,
) {
    let id = ids.session(clock.utc());
    tracing::debug!(event = SESSION_OPENED, session = %id, protocol = "pop3", peer = %peer.ip());
    let transport = match is_tls {
        true => Transport::Tls,
        false => Transport::Plain {
            stls: services.tls.is_some(),
            login: config.plain_login_on_loopback && peer.ip().is_loopback(),
        },
    };
    let wire = Wire::new(Box::new(stream), config.write_timeout, cancel.clone());
    let session = Session::new(transport, config.login_failures_max);
    let mut connection = Connection { wire, session, services, config, peer, id, open: None, led: None };
    connection.wire.out.extend_from_slice(b"+OK Ortler ready\r\n");
    live(connection, &cancel).await;
}

/// Goes on with a session that another node led here: its client has signed in there and waits for the answer.
pub async fn serve_led(
    stream: impl Duplex + 'static,
    handoff: Handoff,
    config: Arc<Config>,
    services: Arc<Services>,
    cancel: CancellationToken,
) {
    let (id, peer) = (handoff.session, handoff.client);
    tracing::debug!(event = SESSION_OPENED, session = %id, protocol = "pop3", peer = %peer.ip(), led = true);
    let transport = match handoff.is_tls {
        true => Transport::Tls,
        false => Transport::Plain { stls: false, login: false },
    };
    let mut wire = Wire::new(Box::new(stream), config.write_timeout, cancel.clone()).with_ahead(handoff.ahead);
    wire.hold = Some(services.directory.hold(handoff.account, handoff.rights.map(Rights)).await);
    let session = Session::new(transport, config.login_failures_max);
    let mut connection = Connection { wire, session, services, config, peer, id, open: None, led: None };
    // Signing in again is not for here: it goes on where the client chooses to connect.
    match connection.open_account(handoff.account).await {
        Output::Say(text) if connection.open.is_none() => connection.wire.out.extend_from_slice(text.as_bytes()),
        output => {
            if let Ok(Next::Go) = connection.perform(output).await {
                return live(connection, &cancel).await;
            }
        }
    }
    connection.wire.close().await;
}

async fn live(mut connection: Connection, cancel: &CancellationToken) {
    let id = connection.id;
    let closed = loop {
        match connection.step().await {
            Ok(Next::Go) => {}
            Ok(Next::Close) => break None,
            Ok(Next::Lead) => {
                // The node that goes on says the rest, after what was answered here.
                let is_told = connection.wire.flush().await.is_ok();
                let ahead = BytesMut::from(connection.wire.ahead());
                let led = connection.led.take().filter(|_| is_told);
                let mut stream = connection.wire.into_stream();
                let carried = async {
                    match led {
                        Some(Led::Node(mut led)) => {
                            let cluster::Led { link, lost } = &mut *led;
                            tokio::select! {
                                () = net::splice(&mut stream, link) => false,
                                () = lost.wait() => true,
                            }
                        }
                        Some(Led::Legacy(opened)) => {
                            let mut server = opened.stream;
                            net::splice_after(ahead, &mut stream, &mut server).await;
                            false
                        }
                        None => false,
                    }
                };
                let is_cut = tokio::select! {
                    is_lost = carried => is_lost,
                    () = cancel.cancelled() => true,
                };
                if is_cut {
                    let farewell = async {
                        stream.write_all(CLOSING).await?;
                        stream.shutdown().await
                    };
                    let _ = tokio::time::timeout(FAREWELL_WAIT, farewell).await;
                }
                tracing::debug!(event = SESSION_CLOSED, session = %id, protocol = "pop3", reason = "led");
                return;
            }
            Ok(Next::StartTls) => match connection.start_tls(cancel).await {
                Some(upgraded) => connection = upgraded,
                None => return,
            },
            Err(closed) => break Some(closed),
        }
    };
    connection.mark_seen().await;
    if matches!(closed, Some(Closed::Silent | Closed::Stopping | Closed::Revoked)) {
        connection.wire.out.extend_from_slice(CLOSING);
    }
    if closed != Some(Closed::Gone) {
        connection.wire.close().await;
    }
    tracing::debug!(event = SESSION_CLOSED, session = %id, protocol = "pop3", reason = ?closed);
}

impl Connection {
    /// One line and what follows from it.
    async fn step(&mut self) -> Result<Next, Closed> {
        let patience = match self.session.phase {
            Phase::Open(_) => self.config.autologout,
            Phase::Greeted { .. } | Phase::AnsweringSasl => self.config.login_timeout,
        };
        let output = match self.wire.line(patience).await? {
            Line::TooLong => Output::Say("-ERR Line is too long\r\n".to_owned()),
            Line::Whole(line) if self.session.expects_answer() => self.session.on_answer(&line),
            Line::Whole(line) => match parse(&line) {
                Ok(command) => self.session.on_command(command),
                Err(fault) => Output::Say(format!("-ERR {fault}\r\n")),
            },
        };
        // The work of a command is large state: an idle session must not hold room for it.
        Box::pin(self.perform(output)).await
    }

    async fn perform(&mut self, output: Output) -> Result<Next, Closed> {
        let mut output = output;
        loop {
            output = match output {
                Output::Say(text) => {
                    self.wire.out.extend_from_slice(text.as_bytes());
                    self.wire.flush_some().await?;
                    return Ok(Next::Go);
                }
                Output::Bye(text) => {
                    self.wire.out.extend_from_slice(text.as_bytes());
                    return Ok(Next::Close);
                }
                Output::StartTls(text) => {
                    self.wire.out.extend_from_slice(text.as_bytes());
                    self.wire.flush().await?;
                    return Ok(Next::StartTls);
                }
                Output::CheckPassword { name, password } => self.check(&name, &password).await,
                Output::Send { number, lines } => {
                    self.send(number, lines).await?;
                    return Ok(Next::Go);
                }
                Output::Commit => self.commit().await,
                Output::Lead => return Ok(Next::Lead),
            };
        }
    }

    async fn check(&mut self, name: &str, password: &Secret<String>) -> Output {
        let attempt = Login { name, password, protocol: Protocol::Pop3, peer: self.peer.ip(), code: None };
        let account = match self.services.directory.authenticate(attempt).await {
            Ok(account) => account,
            Err(LoginError::Refused { delay }) => return self.refused(delay).await,
            Err(LoginError::Elsewhere(elsewhere)) => return self.check_elsewhere(&elsewhere, name, password).await,
            Err(LoginError::TooMany | LoginError::SecondFactor) => {
                return Output::Bye("-ERR [SYS/TEMP] Too many failures, try later\r\n".to_owned());
            }
            Err(LoginError::Unavailable(error)) => {
                tracing::warn!(event = STORE_FAILED, session = %self.id, %error);
                return Output::Say("-ERR [SYS/TEMP] Sign-in is not available, try later\r\n".to_owned());
            }
        };
        tracing::info!(
            event = LOGIN_ACCEPTED, session = %self.id, protocol = "pop3", peer = %self.peer.ip(),
            account = %account.address
        );
        self.wire.hold = Some(self.services.directory.hold(account.id, Some(account.rights)).await);
        if self.lead(account.id).await {
            return Output::Lead;
        }
        self.open_account(account.id).await
    }

    async fn refused(&mut self, delay: Duration) -> Output {
        tracing::info!(event = LOGIN_REFUSED, session = %self.id, protocol = "pop3", peer = %self.peer.ip());
        tokio::time::sleep(delay).await;
        self.session.on_refused()
    }

    /// Signs in on the old server where the account's mailbox is, and goes on there.
    async fn check_elsewhere(&mut self, elsewhere: &Elsewhere, name: &str, password: &Secret<String>) -> Output {
        let Elsewhere { account, server } = elsewhere;
        let say = |text: &str| Output::Say(text.to_owned());
        let Some((_, endpoint)) = server.endpoint(Protocol::Pop3) else {
            return say("-ERR [SYS/PERM] This mailbox is not available by POP3\r\n");
        };
        let place = legacy::Place { endpoint, trust: &server.trust, proxy_protocol: server.proxy_protocol };
        let client = legacy::Client { address: self.peer, helo: "", name, password };
        match self.services.legacy.sign_in(legacy::Protocol::Pop3, place, client).await {
            Ok(opened) => {
                tracing::info!(
                    event = LOGIN_ACCEPTED, session = %self.id, protocol = "pop3", peer = %self.peer.ip(),
                    account = %account.address, legacy = server.name
                );
                if let Err(error) = self.services.directory.accepted_elsewhere(elsewhere, password).await {
                    tracing::warn!(event = STORE_FAILED, session = %self.id, %error);
                }
                self.wire.out.extend_from_slice(b"+OK Signed in\r\n");
                self.wire.out.extend_from_slice(&opened.said);
                self.led = Some(Led::Legacy(Box::new(opened)));
                Output::Lead
            }
            Err(legacy::Failure::Refused) => {
                let delay = self.services.directory.refused_elsewhere(self.peer.ip());
                self.refused(delay).await
            }
            Err(legacy::Failure::InUse) => say("-ERR [IN-USE] Another session has this mailbox\r\n"),
            Err(legacy::Failure::Unavailable(_)) => {
                say("-ERR [SYS/TEMP] The server of this mailbox does not answer, try later\r\n")
            }
        }
    }

    /// True if another node has taken the session of a client that has just signed in, and answers it.
    async fn lead(&mut self, account: AccountId) -> bool {
        let Some(affinity) = &self.services.affinity else { return false };
        let handoff = Handoff {
            protocol: "pop3".to_owned(),
            account,
            rights: self.wire.hold.as_ref().map(|hold| hold.rights().0),
            session: self.id,
            client: self.peer,
            is_tls: self.session.transport == Transport::Tls,
            tag: String::new(),
            ahead: self.wire.ahead(),
        };
        self.led = affinity.lead(&handoff).await.map(|link| Led::Node(Box::new(link)));
        self.led.is_some()
    }

    async fn open_account(&mut self, account: AccountId) -> Output {
        let Some(lock) = self.services.maildrops.lock(account) else {
            return Output::Say("-ERR [IN-USE] Another session has this mailbox\r\n".to_owned());
        };
        match self.open_maildrop(account).await {
            Ok((mailbox, maildrop)) => {
                self.open = Some(Open { account, mailbox, _lock: lock });
                self.session.on_login(maildrop)
            }
            Err(error) => self.unavailable(&error),
        }
    }

    async fn open_maildrop(&self, account: AccountId) -> Result<(MailboxId, Maildrop), StoreError> {
        let mail = &self.services.mail;
        let inbox = mail.mailbox(account, &MailboxName::inbox()).await?;
        let inbox = inbox.ok_or_else(|| StoreError::Damaged { what: format!("account {account} has no inbox") })?;
        let states = mail.email_states(account, Some(inbox.id)).await?;
        let message = |uid, size_bytes| Message { uid, size_bytes, deleted: false, retrieved: false };
        let mut messages: Vec<Message> =
            states.iter().map(|email| message(email.state.uid, email.size_bytes)).collect();
        messages.sort_unstable_by_key(|message| message.uid);
        Ok((inbox.id, Maildrop { uid_validity: inbox.uid_validity, messages }))
    }

    fn unavailable(&self, error: &StoreError) -> Output {
        tracing::warn!(event = STORE_FAILED, session = %self.id, %error);
        Output::Say("-ERR [SYS/TEMP] Store is not available, try later\r\n".to_owned())
    }

    /// RETR and TOP: in steps, the next read while this one is sent.
    async fn send(&mut self, number: usize, lines: Option<u64>) -> Result<(), Closed> {
        let entry = match self.entry(number).await {
            Ok(Some(entry)) => entry,
            Ok(None) => {
                self.wire.out.extend_from_slice(b"-ERR No such message any more\r\n");
                return Ok(());
            }
            Err(error) => {
                if let Output::Say(text) = self.unavailable(&error) {
                    self.wire.out.extend_from_slice(text.as_bytes());
                }
                return Ok(());
            }
        };
        let services = Arc::clone(&self.services);
        let content = EntryContent::new(Arc::clone(&services.blobs), &entry);
        let mut piece = match content.read(0..STEP).await {
            Ok(piece) => piece,
            Err(error) => {
                if let Output::Say(text) = self.unavailable(&error) {
                    self.wire.out.extend_from_slice(text.as_bytes());
                }
                return Ok(());
            }
        };
        self.wire.out.extend_from_slice(format!("+OK {} octets\r\n", entry.size_bytes).as_bytes());
        let mut stuffer = Stuffer::default();
        let mut top = lines.map(Top::new);
        let mut at = 0;
        loop {
            let (length, is_done) = top.as_mut().map_or((piece.len(), false), |top| top.take(&piece));
            stuffer.push(&mut self.wire.out, piece.get(..length).unwrap_or_default());
            at += piece.len() as u64;
            if is_done || at >= entry.size_bytes {
                break;
            }
            let (sent, next) = tokio::join!(self.wire.flush_some(), content.read(at..at + STEP));
            sent?;
            piece = match next {
                Ok(next) if !next.is_empty() => next,
                // The message was begun and cannot be ended: only closing tells the client.
                Ok(_) | Err(_) => return Err(Closed::Gone),
            };
        }
        stuffer.finish(&mut self.wire.out);
        if lines.is_none() {
            self.session.on_sent(number);
        }
        self.wire.flush_some().await
    }

    async fn entry(&self, number: usize) -> Result<Option<Entry>, StoreError> {
        let (Some(open), Phase::Open(maildrop)) = (&self.open, &self.session.phase) else { return Ok(None) };
        let Some(message) = maildrop.message(number) else { return Ok(None) };
        let uids = vec![message.uid..=message.uid];
        Ok(self.services.mail.entries(open.account, open.mailbox, uids, 1).await?.pop())
    }

    /// QUIT: what is marked goes, all at once (RFC 1939 §6).
    async fn commit(&mut self) -> Output {
        let (Some(open), Phase::Open(maildrop)) = (&self.open, &self.session.phase) else {
            return Output::Bye("+OK Goodbye\r\n".to_owned());
        };
        let uids = maildrop.deleted_uids();
        if !uids.is_empty()
            && let Err(error) = self.services.mail.expunge(open.account, open.mailbox, uids, false).await
        {
            tracing::warn!(event = STORE_FAILED, session = %self.id, %error);
            return Output::Bye("-ERR [SYS/TEMP] Messages are not deleted\r\n".to_owned());
        }
        Output::Bye("+OK Goodbye\r\n".to_owned())
    }

    /// What was retrieved has been seen, however the session ended.
    async fn mark_seen(&self) {
        let (Some(open), Phase::Open(maildrop)) = (&self.open, &self.session.phase) else { return };
        let uids = maildrop.retrieved_uids();
        let change = FlagChange::Add(Flags::system(SystemFlags::SEEN));
        if !uids.is_empty()
            && let Err(error) = self.services.mail.set_flags(open.account, open.mailbox, uids, change, None).await
        {
            tracing::warn!(event = STORE_FAILED, session = %self.id, %error);
        }
    }

    /// What was said before TLS is forgotten. `None` if the peer sent more before it, or TLS failed.
    async fn start_tls(self, cancel: &CancellationToken) -> Option<Self> {
        let Self { wire, services, config, peer, id, .. } = self;
        let acceptor = services.tls.clone()?;
        let handshake = acceptor.accept(wire.into_stream_for_tls()?);
        let stream = tokio::time::timeout(config.login_timeout, handshake).await.ok()?.ok()?;
        let wire = Wire::new(Box::new(stream), config.write_timeout, cancel.clone());
        let session = Session::new(Transport::Tls, config.login_failures_max);
        Some(Self { wire, session, services, config, peer, id, open: None, led: None })
    }
}
