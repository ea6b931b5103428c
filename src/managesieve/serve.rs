//! The shell around a session: from greeting to goodbye, or to the old server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::event::{LOGIN_ACCEPTED, LOGIN_REFUSED, SESSION_CLOSED, SESSION_OPENED, STORE_FAILED};
use base::{Clock, IdSource, Secret, SessionId};
use bytes::BytesMut;
use directory::{Directory, Elsewhere, Login, LoginError, Protocol};
use net::Stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use crate::proto::{COMMAND_MAX, Frame, next};
use crate::session::{Output, Session, Transport, no};

/// What an operator may set.
#[derive(Clone, Debug)]
pub struct Config {
    /// From connect, or TLS, to sign-in.
    pub login_timeout: Duration,
    /// A peer that takes no bytes for so long is gone.
    pub write_timeout: Duration,
    /// Sign-in without TLS is let through from loopback (demonstration mode).
    pub plain_login_on_loopback: bool,
}

impl Default for Config {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self { login_timeout: minute, write_timeout: minute, plain_login_on_loopback: false }
    }
}

/// What sessions work on.
pub struct Services {
    pub directory: Arc<dyn Directory>,
    /// The way to old servers.
    pub legacy: Arc<legacy::Gateway>,
    /// For STARTTLS; `None` offers none.
    pub tls: Option<tokio_rustls::TlsAcceptor>,
}

struct Connection {
    stream: Stream,
    input: BytesMut,
    session: Session,
    services: Arc<Services>,
    config: Arc<Config>,
    peer: SocketAddr,
    id: SessionId,
}

/// What comes of one frame.
enum Next {
    Go,
    StartTls,
    Elsewhere(Box<legacy::Opened>),
    Close,
}

/// The peer is gone, or takes and says nothing.
struct Gone;

const NOT_HERE: &str = "Filter scripts are not kept on this server";

/// Serves one connection until it ends. `cancel` ends it between two commands.
pub async fn serve(
    stream: Stream,
    peer: SocketAddr,
    config: Arc<Config>,
    services: Arc<Services>,
    ids: Arc<IdSource>,
    clock: Arc<dyn Clock>,
    cancel: CancellationToken,
) {
    let id = ids.session(clock.utc());
    tracing::debug!(event = SESSION_OPENED, session = %id, protocol = "managesieve", peer = %peer.ip());
    let transport = match stream.tls_facts() {
        Some(_) => Transport::Tls,
        None => Transport::Plain {
            starttls: services.tls.is_some(),
            login: config.plain_login_on_loopback && peer.ip().is_loopback(),
        },
    };
    let session = Session::new(transport);
    let connection = Connection { stream, input: BytesMut::new(), session, services, config, peer, id };
    // Whatever ended it, nothing is left to be said.
    let _ = live(connection, &cancel).await;
    tracing::debug!(event = SESSION_CLOSED, session = %id, protocol = "managesieve");
}

async fn live(mut connection: Connection, cancel: &CancellationToken) -> Result<(), Gone> {
    let greeting = connection.session.greeting();
    connection.say(&greeting).await?;
    loop {
        let frame = match next(&mut connection.input) {
            Frame::Command(frame) => frame,
            Frame::TooLong => return connection.say("BYE \"Command is too long\"\r\n").await,
            Frame::Partial => {
                let wait = connection.config.login_timeout;
                tokio::select! {
                    read = tokio::time::timeout(wait, connection.read()) => match read {
                        Ok(read) => read?,
                        Err(_elapsed) => return connection.say("BYE \"Sign-in took too long\"\r\n").await,
                    },
                    () = cancel.cancelled() => {
                        return connection.say("BYE (TRYLATER) \"Server is shutting down, connect again\"\r\n").await;
                    }
                }
                continue;
            }
        };
        let output = connection.session.on_frame(&frame);
        match Box::pin(connection.perform(output)).await? {
            Next::Go => {}
            Next::Close => {
                let _ = tokio::time::timeout(Duration::from_secs(5), connection.stream.shutdown()).await;
                return Ok(());
            }
            Next::StartTls => {
                connection = connection.start_tls().await?;
                let greeting = connection.session.greeting();
                connection.say(&greeting).await?;
            }
            Next::Elsewhere(opened) => {
                let Connection { mut stream, input, .. } = connection;
                let mut server = opened.stream;
                tokio::select! {
                    () = net::splice_after(input, &mut stream, &mut server) => {}
                    () = cancel.cancelled() => {}
                }
                return Ok(());
            }
        }
    }
}

impl Connection {
    async fn say(&mut self, text: impl AsRef<[u8]>) -> Result<(), Gone> {
        let sending = async {
            self.stream.write_all(text.as_ref()).await?;
            self.stream.flush().await
        };
        match tokio::time::timeout(self.config.write_timeout, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }

    async fn read(&mut self) -> Result<(), Gone> {
        self.input.reserve(1024.min(COMMAND_MAX));
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) | Err(_) => Err(Gone),
            Ok(_) => Ok(()),
        }
    }

    async fn perform(&mut self, output: Output) -> Result<Next, Gone> {
        let output = match output {
            Output::CheckPassword { name, password } => match self.check(&name, &password).await {
                Ok(opened) => {
                    self.say("OK \"Signed in\"\r\n").await?;
                    self.say(&opened.said).await?;
                    return Ok(Next::Elsewhere(opened));
                }
                Err(output) => output,
            },
            output => output,
        };
        match output {
            Output::Say(text) => self.say(&text).await.map(|()| Next::Go),
            Output::Bye(text) => self.say(&text).await.map(|()| Next::Close),
            Output::StartTls(text) => self.say(&text).await.map(|()| Next::StartTls),
            // A check gives no other check.
            Output::CheckPassword { .. } => Ok(Next::Close),
        }
    }

    async fn check(&mut self, name: &str, password: &Secret<String>) -> Result<Box<legacy::Opened>, Output> {
        let attempt = Login { name, password, protocol: Protocol::ManageSieve, peer: self.peer.ip(), code: None };
        match self.services.directory.authenticate(attempt).await {
            Ok(_) => Err(no(NOT_HERE)),
            Err(LoginError::Elsewhere(elsewhere)) => self.check_elsewhere(&elsewhere, name, password).await,
            Err(LoginError::Refused { delay }) => Err(self.refused(delay).await),
            Err(LoginError::TooMany | LoginError::SecondFactor) => {
                Err(Output::Bye("BYE (TRYLATER) \"Too many failures, try later\"\r\n".to_owned()))
            }
            Err(LoginError::Unavailable(error)) => {
                tracing::warn!(event = STORE_FAILED, session = %self.id, %error);
                Err(try_later("Sign-in is not available, try later"))
            }
        }
    }

    async fn check_elsewhere(
        &mut self,
        elsewhere: &Elsewhere,
        name: &str,
        password: &Secret<String>,
    ) -> Result<Box<legacy::Opened>, Output> {
        let Elsewhere { account, server } = elsewhere;
        let Some((_, endpoint)) = server.endpoint(Protocol::ManageSieve) else { return Err(no(NOT_HERE)) };
        let place = legacy::Place { endpoint, trust: &server.trust, proxy_protocol: server.proxy_protocol };
        let client = legacy::Client { address: self.peer, helo: "", name, password };
        match self.services.legacy.sign_in(legacy::Protocol::ManageSieve, place, client).await {
            Ok(opened) => {
                tracing::info!(
                    event = LOGIN_ACCEPTED, session = %self.id, protocol = "managesieve", peer = %self.peer.ip(),
                    account = %account.address, legacy = server.name
                );
                if let Err(error) = self.services.directory.accepted_elsewhere(elsewhere, password).await {
                    tracing::warn!(event = STORE_FAILED, session = %self.id, %error);
                }
                Ok(Box::new(opened))
            }
            Err(legacy::Failure::Refused) => {
                let delay = self.services.directory.refused_elsewhere(self.peer.ip());
                Err(self.refused(delay).await)
            }
            Err(legacy::Failure::InUse | legacy::Failure::Unavailable(_)) => {
                Err(try_later("The server of this mailbox does not answer, try later"))
            }
        }
    }

    async fn refused(&mut self, delay: Duration) -> Output {
        tracing::info!(event = LOGIN_REFUSED, session = %self.id, protocol = "managesieve", peer = %self.peer.ip());
        tokio::time::sleep(delay).await;
        self.session.on_refused()
    }

    /// What was said before TLS is forgotten; whoever said more before it is not talked to.
    async fn start_tls(self) -> Result<Self, Gone> {
        let Self { stream, input, services, config, peer, id, .. } = self;
        let (Stream::Plain(stream), Some(acceptor), true) = (stream, services.tls.clone(), input.is_empty()) else {
            return Err(Gone);
        };
        let handshake = tokio::time::timeout(config.login_timeout, acceptor.accept(stream)).await;
        let stream = handshake.map_err(|_elapsed| Gone)?.map_err(|_broken| Gone)?;
        let (stream, session) = (Stream::Tls(Box::new(stream)), Session::new(Transport::Tls));
        Ok(Self { stream, input: BytesMut::new(), session, services, config, peer, id })
    }
}

fn try_later(text: &str) -> Output {
    Output::Say(format!("NO (TRYLATER) \"{text}\"\r\n"))
}
