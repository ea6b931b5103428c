//! A small client of HTTPS: fetches what other mail systems publish, and takes reports to them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use mailauth::Resolver;
use net::{Connectors, Outbound, Trust};
use tokio::net::TcpStream;

/// Goes to servers by their names, which their certificates must be for.
pub struct Https {
    pub connectors: Arc<Connectors>,
    pub resolver: Resolver,
    pub trust: Trust,
    /// Where servers listen: 443.
    pub port: u16,
}

/// What a server gave.
#[derive(Debug)]
pub struct Answer {
    pub content_type: String,
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HttpsError {
    #[error("{host}: {reason}")]
    Unreachable { host: String, reason: String },
    /// Its certificate is not believed.
    #[error("{host}: TLS: {reason}")]
    Tls { host: String, reason: String },
    #[error("{host}: the server answers {status}")]
    Refused { host: String, status: u16 },
}

/// For all of it.
const WAIT: Duration = Duration::from_secs(60);
const CONNECT_WAIT: Duration = Duration::from_secs(10);
const ADDRESSES_MAX: usize = 4;

impl Https {
    /// Fetches `https://host/path`; `path` begins with a slash. Redirections are refusals (RFC 8461 §3.3). An answer of more
    /// than `limit` octets is none.
    pub async fn get(&self, host: &str, path: &str, limit: usize) -> Result<Answer, HttpsError> {
        self.ask(host, Method::GET, path, None, limit).await
    }

    /// Takes `body` to `https://host/path`.
    pub async fn post(&self, host: &str, path: &str, kind: &str, body: Bytes) -> Result<(), HttpsError> {
        self.ask(host, Method::POST, path, Some((kind, body)), 64 << 10).await.map(drop)
    }

    async fn ask(
        &self,
        host: &str,
        method: Method,
        path: &str,
        body: Option<(&str, Bytes)>,
        limit: usize,
    ) -> Result<Answer, HttpsError> {
        let late = || HttpsError::Unreachable { host: host.to_owned(), reason: "no answer in time".to_owned() };
        let asking = async {
            let stream = self.connect(host).await?;
            self.exchange(stream, host, method, path, body, limit).await
        };
        tokio::time::timeout(WAIT, asking).await.unwrap_or_else(|_elapsed| Err(late()))
    }

    async fn connect(&self, host: &str) -> Result<Outbound, HttpsError> {
        let unreachable = |reason: String| HttpsError::Unreachable { host: host.to_owned(), reason };
        let found = self.resolver.lookup_addresses(host).await.map_err(|error| unreachable(error.to_string()))?;
        let mut last = unreachable("it has no address".to_owned());
        for ip in found.into_iter().take(ADDRESSES_MAX) {
            let address = SocketAddr::new(ip, self.port);
            let stream = match tokio::time::timeout(CONNECT_WAIT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    last = unreachable(format!("{address}: {error}"));
                    continue;
                }
                Err(_elapsed) => {
                    last = unreachable(format!("{address}: no answer in time"));
                    continue;
                }
            };
            match self.connectors.secure(stream, host, &self.trust).await {
                Ok(secured) => return Ok(secured),
                Err(error) => last = HttpsError::Tls { host: host.to_owned(), reason: error.to_string() },
            }
        }
        Err(last)
    }

    async fn exchange(
        &self,
        stream: Outbound,
        host: &str,
        method: Method,
        path: &str,
        body: Option<(&str, Bytes)>,
        limit: usize,
    ) -> Result<Answer, HttpsError> {
        let failed = |error: &dyn std::fmt::Display| HttpsError::Unreachable {
            host: host.to_owned(),
            reason: error.to_string(),
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        let mut request = Request::builder().method(method).uri(path).header(HOST, host).header(USER_AGENT, "ortler");
        if let Some((kind, _)) = &body {
            request = request.header(CONTENT_TYPE, *kind);
        }
        let content = body.map_or_else(Bytes::new, |(_, body)| body);
        let request = request.body(Full::new(content)).map_err(|error| failed(&error))?;
        let answering = async {
            let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
            let status = answer.status();
            if !matches!(status, StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
                return Err(HttpsError::Refused { host: host.to_owned(), status: status.as_u16() });
            }
            let kind = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let content_type = kind.to_ascii_lowercase();
            let body = Limited::new(answer.into_body(), limit).collect().await.map_err(|error| failed(&error))?;
            Ok(Answer { content_type, body: body.to_bytes() })
        };
        let mut connection = std::pin::pin!(connection);
        let mut answering = std::pin::pin!(answering);
        tokio::select! {
            done = &mut answering => return done,
            ended = &mut connection => {
                if let Err(error) = ended {
                    return Err(failed(&error));
                }
            }
        }
        // The connection is over; what it brought is read.
        answering.await
    }
}
