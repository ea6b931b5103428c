//! Connections between nodes: TLS 1.3, each end with a certificate of the cluster's authority.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base::{Clock, UtcMillis, event};
use engine::EngineError;
use engine::postgres::Pool;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

use crate::authority::{Authority, Issued};
use crate::handoff::Handoff;
use crate::invitation::Joiner;
use crate::member::Member;

/// A session that is led to a node that does not answer goes on where it is, after so long.
const CONNECT_WAIT: Duration = Duration::from_millis(500);
/// For the node to take it.
const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// What was sent and is not acknowledged by the other machine for so long ends a connection: the way there is cut.
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);
/// While nothing is sent, so often the other machine is asked whether it is there.
const ASK_EVERY: Duration = Duration::from_secs(15);
/// A new certificate is made so often, long before the old one ends.
const RENEW_EVERY: Duration = Duration::from_secs(24 * 3600);

/// A connection to another node.
pub type Link = tokio_rustls::client::TlsStream<TcpStream>;

/// This node's end of all connections to others.
pub struct Links {
    pool: Arc<Pool>,
    authority: Authority,
    name: String,
    current: ArcSwap<Ends>,
}

struct Ends {
    connector: TlsConnector,
    acceptor: TlsAcceptor,
}

impl Links {
    /// Gets the authority from the server ([`crate::open`]), or makes it, and a certificate for the node `name`.
    ///
    /// # Errors
    /// The server cannot be asked, or the name cannot stand in a certificate.
    pub async fn open(pool: Arc<Pool>, name: &str, clock: &dyn Clock) -> Result<Self, EngineError> {
        let authority = Authority::shared(&pool).await?;
        let current = ArcSwap::from_pointee(ends(&authority, name, clock.utc())?);
        Ok(Self { pool, authority, name: name.to_owned(), current })
    }

    /// Renews the certificate every day, until `stop`. Connections that are open keep theirs.
    pub async fn renew(&self, clock: &dyn Clock, stop: CancellationToken) {
        while tokio::time::timeout(RENEW_EVERY, stop.cancelled()).await.is_err() {
            match ends(&self.authority, &self.name, clock.utc()) {
                Ok(ends) => self.current.store(Arc::new(ends)),
                Err(error) => tracing::error!(event = event::CLUSTER_LOST, %error),
            }
        }
    }

    /// True if the code of a machine without a certificate is good; it is not again.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn is_invited(&self, joiner: &Joiner) -> Result<bool, EngineError> {
        joiner.is_invited(&self.pool).await
    }

    /// Takes connections of other nodes, and of machines without a certificate, which may show an invitation and nothing else.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.current.load().acceptor.clone()
    }

    /// Leads a session to `member`. `None` if that does not answer at once or does not take it: nothing has happened then.
    pub async fn lead(&self, member: &Member, handoff: &Handoff) -> Option<Link> {
        let address = member.address.as_ref()?;
        let connecting = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            notice_loss(&stream)?;
            let name = ServerName::try_from(member.name.clone()).map_err(std::io::Error::other)?;
            let connector = self.current.load().connector.clone();
            connector.connect(name, stream).await
        };
        let connected = tokio::time::timeout(CONNECT_WAIT, connecting).await;
        let mut link = match connected {
            Ok(Ok(link)) => link,
            Ok(Err(error)) => return self.failed(member, &error.to_string()),
            Err(_elapsed) => return self.failed(member, "no answer"),
        };
        match tokio::time::timeout(ANSWER_WAIT, handoff.send(&mut link)).await {
            Ok(Ok(true)) => Some(link),
            Ok(Ok(false)) => self.failed(member, "not taken"),
            Ok(Err(error)) => self.failed(member, &error.to_string()),
            Err(_elapsed) => self.failed(member, "no answer"),
        }
    }

    fn failed(&self, member: &Member, error: &str) -> Option<Link> {
        metrics::counter!("ortler_cluster_leads_failed_total").increment(1);
        tracing::info!(event = event::SESSION_STAYED, node = %self.name, at = %member.name, %error);
        None
    }
}

/// Has a connection between nodes end soon where no word passes any more, at either end.
///
/// # Errors
/// The socket is none any more.
pub fn notice_loss(stream: &TcpStream) -> std::io::Result<()> {
    let (ask, end) = (ASK_EVERY.as_secs(), UNACKNOWLEDGED.as_millis());
    let (ask, end) = (u32::try_from(ask).unwrap_or(u32::MAX), u32::try_from(end).unwrap_or(u32::MAX));
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &ask)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &1)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &end)?;
    Ok(())
}

fn ends(authority: &Authority, name: &str, now: UtcMillis) -> Result<Ends, EngineError> {
    let failed = |error: rustls::Error| EngineError::Postgres { reason: format!("TLS between nodes: {error}") };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone()).map_err(failed)?;
    let roots = Arc::new(roots);
    let Issued { certificate, key } = authority.issue(name, now)?;
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| {
            let builder = builder.with_root_certificates(Arc::clone(&roots));
            builder.with_client_auth_cert(vec![certificate.clone()], key.clone_key())
        });
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
    let verifier = verifier.allow_unauthenticated().build();
    let verifier = verifier.map_err(|error| failed(rustls::Error::General(error.to_string())))?;
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| {
            // Who was invited knows the authority by its digest alone.
            let chain = vec![certificate.clone(), authority.certificate().clone()];
            builder.with_client_cert_verifier(verifier).with_single_cert(chain, key)
        });
    Ok(Ends {
        connector: TlsConnector::from(Arc::new(client.map_err(failed)?)),
        acceptor: TlsAcceptor::from(Arc::new(server.map_err(failed)?)),
    })
}
