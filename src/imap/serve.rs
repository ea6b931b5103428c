//! The shell around a session: from greeting to goodbye.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::event::{SESSION_CLOSED, SESSION_OPENED};
use base::{Clock, IdSource};
use bytes::BytesMut;
use cluster::Handoff;
use directory::Rights;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::connection::{Connection, Led, Services};
use crate::proto::frame::Refusal;
use crate::proto::{Body, Event, Framer, Reply, parse};
use crate::session::{Phase, Session, Transport};
use crate::wire::{Closed, Duplex, Stream, Wire};

/// Serves one connection until it ends. `cancel` ends it politely between two commands.
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
    tracing::debug!(event = SESSION_OPENED, session = %id, protocol = "imap", peer = %peer.ip());
    let transport = match is_tls {
        true => Transport::Tls,
        false => Transport::Plain {
            starttls: services.tls.is_some(),
            login: config.plain_login_on_loopback && peer.ip().is_loopback(),
        },
    };
    let framer = Framer::new(config.command_size_max_before_login.as_usize(), config.message_size_max.0);
    let wire = Wire::new(Box::new(stream), framer, config.write_timeout, cancel);
    let session = Session::new(transport);
    let mut connection = Connection { wire, session, services, config, clock, peer, id, refused: None, led: None };
    let greeting = format!("* OK [CAPABILITY {}] Ortler ready\r\n", connection.session.capabilities());
    connection.wire.out.extend_from_slice(greeting.as_bytes());
    live(connection).await;
}

/// Goes on with a session that another node led here: its client has signed in there and waits for the answer.
pub async fn serve_led(
    stream: impl Duplex + 'static,
    handoff: Handoff,
    config: Arc<Config>,
    services: Arc<Services>,
    clock: Arc<dyn Clock>,
    cancel: CancellationToken,
) {
    let (id, peer) = (handoff.session, handoff.client);
    tracing::debug!(event = SESSION_OPENED, session = %id, protocol = "imap", peer = %peer.ip(), led = true);
    let transport = match handoff.is_tls {
        true => Transport::Tls,
        false => Transport::Plain { starttls: false, login: false },
    };
    let framer = Framer::new(config.command_size_max.as_usize(), config.message_size_max.0);
    let mut wire = Wire::new(Box::new(stream), framer, config.write_timeout, cancel).with_ahead(handoff.ahead);
    let mut session = Session::new(transport);
    session.phase = Phase::Ready(handoff.account);
    wire.hold = Some(services.directory.hold(handoff.account, handoff.rights.map(Rights)).await);
    let mut connection = Connection { wire, session, services, config, clock, peer, id, refused: None, led: None };
    connection.session.signed_in().write(&mut connection.wire.out, &handoff.tag);
    live(connection).await;
}

async fn live(mut connection: Connection) {
    let id = connection.id;
    let closed = loop {
        match connection.converse().await {
            Closed::UpgradeToTls => match connection.start_tls().await {
                Some(upgraded) => connection = upgraded,
                None => {
                    tracing::debug!(event = SESSION_CLOSED, session = %id, protocol = "imap", reason = "tls");
                    return;
                }
            },
            Closed::Led => {
                // In a box: an idle session must not hold room for it.
                Box::pin(go_on_elsewhere(connection)).await;
                tracing::debug!(event = SESSION_CLOSED, session = %id, protocol = "imap", reason = "led");
                return;
            }
            closed => break closed,
        }
    };
    let signed_in = connection.session.account().is_some();
    let last = match closed {
        Closed::Silent if signed_in => "* BYE Idle for too long\r\n",
        Closed::Silent => "* BYE Sign-in took too long\r\n",
        Closed::Stopping => STOPPING,
        Closed::Revoked => "* BYE Password or access was changed, sign in again\r\n",
        Closed::Gone | Closed::Done | Closed::UpgradeToTls | Closed::Led => "",
    };
    if closed != Closed::Gone {
        connection.wire.close(last).await;
    }
    tracing::debug!(event = SESSION_CLOSED, session = %id, protocol = "imap", signed_in, reason = ?closed);
}

/// The node that goes on says the rest, after what was answered here.
async fn go_on_elsewhere(mut connection: Connection) {
    let is_told = connection.wire.flush().await.is_ok();
    let ahead = BytesMut::from(connection.wire.ahead());
    let (mut stream, cancel, led) = connection.let_go();
    let carried = async {
        match led.filter(|_| is_told) {
            Some(Led::Node(mut led)) => {
                let cluster::Led { link, lost } = &mut *led;
                tokio::select! {
                    () = net::splice(&mut stream, link) => None,
                    () = lost.wait() => Some(LOST),
                }
            }
            Some(Led::Legacy(opened)) => {
                let mut server = opened.stream;
                net::splice_after(ahead, &mut stream, &mut server).await;
                None
            }
            None => None,
        }
    };
    let last = tokio::select! {
        last = carried => last,
        () = cancel.cancelled() => Some(STOPPING),
    };
    // In the middle of an answer it does no harm: nothing follows.
    let farewell = async {
        stream.write_all(last.unwrap_or_default().as_bytes()).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(FAREWELL_WAIT, farewell).await;
}

impl Connection {
    /// Answers commands until the connection ends or changes.
    async fn converse(&mut self) -> Closed {
        loop {
            // Commands live in a box: their state is large, and an idle session must not hold room for it.
            let step = match self.next().await {
                Ok(event) => Box::pin(self.on_event(event)).await,
                Err(closed) => Err(closed),
            };
            if let Err(closed) = step {
                return closed;
            }
        }
    }

    async fn next(&mut self) -> Result<Event, Closed> {
        let patience = match self.session.phase {
            Phase::Greeted => self.config.login_timeout,
            Phase::Ready(_) | Phase::Selected(..) => self.config.autologout,
        };
        self.wire.event(patience).await
    }

    async fn on_event(&mut self, event: Event) -> Result<(), Closed> {
        match event {
            Event::Command(bytes) => self.on_command(bytes).await,
            Event::Continue => {
                self.wire.out.extend_from_slice(b"+ OK\r\n");
                Ok(())
            }
            Event::Append { head, size, wait } => self.append(head, size, wait).await,
            Event::Refused { tag, why } => self.on_refused(tag, why),
            // Only ever asked for elsewhere, or left over from an APPEND that failed.
            Event::Line(_) | Event::Chunk(_) | Event::AppendMore { .. } | Event::AppendEnd => Ok(()),
        }
    }

    pub fn on_refused(&mut self, tag: Option<String>, why: Refusal) -> Result<(), Closed> {
        let reply = self.refused.take().unwrap_or_else(|| match why {
            Refusal::CommandTooLong => Reply::bad("Command is too long").with_code("TOOBIG"),
            Refusal::MessageTooLarge => Reply::no("TOOBIG", "Message is too large"),
            Refusal::BareLineFeed => Reply::bad("Lines end with CR LF"),
            Refusal::Syntax(fault) => Reply { text: fault.into(), ..Reply::bad("") },
            Refusal::Hopeless => Reply::bad("Literal is too large").with_code("TOOBIG"),
        });
        reply.write(&mut self.wire.out, tag.as_deref().unwrap_or("*"));
        if why == Refusal::Hopeless {
            self.wire.out.extend_from_slice(b"* BYE Literal is too large\r\n");
            return Err(Closed::Done);
        }
        self.bad_command()
    }

    async fn on_command(&mut self, bytes: Vec<u8>) -> Result<(), Closed> {
        if bytes.is_empty() {
            // A stray line end, as some clients send after a literal.
            return self.bad_command();
        }
        let parsed = parse(&bytes);
        wipe(bytes);
        let command = match parsed {
            Ok(command) => command,
            Err(error) => {
                let reply = Reply { text: error.fault.into(), ..Reply::bad("") };
                reply.write(&mut self.wire.out, error.tag.as_deref().unwrap_or("*"));
                return self.bad_command();
            }
        };
        if self.session.admit(&command.body).is_ok() {
            match &command.body {
                Body::Logout => {
                    self.wire.out.extend_from_slice(b"* BYE Goodbye\r\n");
                    Reply::ok("LOGOUT completed").write(&mut self.wire.out, &command.tag);
                    return Err(Closed::Done);
                }
                Body::StartTls => {
                    Reply::ok("Begin TLS").write(&mut self.wire.out, &command.tag);
                    self.wire.flush().await?;
                    return Err(Closed::UpgradeToTls);
                }
                Body::Idle => {
                    let reply = self.idle().await?;
                    reply.write(&mut self.wire.out, &command.tag);
                    return Ok(());
                }
                _ => {}
            }
        }
        self.run(command).await
    }

    /// Before sign-in, a peer that speaks no IMAP is soon let go.
    fn bad_command(&mut self) -> Result<(), Closed> {
        if self.session.account().is_some() {
            return Ok(());
        }
        self.session.bad_commands += 1;
        if self.session.bad_commands > BAD_COMMANDS_MAX {
            self.wire.out.extend_from_slice(b"* BYE Too many bad commands\r\n");
            return Err(Closed::Done);
        }
        Ok(())
    }

    /// RFC 3501 §6.2.1: what was said before TLS is forgotten. `None` if the peer sent more before it, or TLS failed.
    async fn start_tls(self) -> Option<Self> {
        let Self { wire, services, config, clock, peer, id, .. } = self;
        let acceptor = services.tls.clone()?;
        let cancel = wire.cancel_token();
        let handshake = acceptor.accept(wire.into_stream_for_tls()?);
        let stream = tokio::time::timeout(config.login_timeout, handshake).await.ok()?.ok()?;
        let framer = Framer::new(config.command_size_max_before_login.as_usize(), config.message_size_max.0);
        let wire = Wire::new(Box::new(stream), framer, config.write_timeout, cancel);
        let session = Session::new(Transport::Tls);
        Some(Self { wire, session, services, config, clock, peer, id, refused: None, led: None })
    }

    /// What is left of it when another node goes on.
    fn let_go(self) -> (Stream, CancellationToken, Option<Led>) {
        let cancel = self.wire.cancel_token();
        (self.wire.stream, cancel, self.led)
    }
}

const BAD_COMMANDS_MAX: u32 = 10;
const STOPPING: &str = "* BYE Server is shutting down, connect again\r\n";
/// The node that a session was led to is lost.
const LOST: &str = "* BYE [UNAVAILABLE] Server does not answer, connect again\r\n";
const FAREWELL_WAIT: Duration = Duration::from_secs(2);

/// A command may hold a password.
fn wipe(bytes: Vec<u8>) {
    drop(base::Secret::new(bytes));
}
