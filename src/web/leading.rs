//! Requests about an account's mail go on at the account's node, where its views and texts are in memory: over one link
//! for each client's connection, as HTTP/2. The other node looks at the credentials as if the client had come to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::uri::{Authority, Scheme};
use axum::http::{HeaderMap, HeaderName, Request, Response, Uri, Version, header};
use axum::response::IntoResponse as _;
use base::AccountId;
use cluster::{Affinity, Handoff, Led};
use directory::Resolution;
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mail::{Address, ForwardPath};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::auth::basic;
use crate::error::ApiError;
use crate::server::{Inner, Peer};

/// What this client's connection has led elsewhere.
pub(crate) struct Leading {
    web: Arc<Inner>,
    affinity: Arc<Affinity>,
    peer: Peer,
    link: Mutex<Link>,
}

#[derive(Default)]
struct Link {
    open: Option<Open>,
    /// A node that does not take a session is not asked again at once.
    not_before: Option<Instant>,
}

struct Open {
    account: AccountId,
    requests: SendRequest<Body>,
    _driver: JoinSet<()>,
}

/// Where a request is answered.
pub(crate) enum Answered {
    Elsewhere(Response<Body>),
    Here(Request<Body>),
}

const PAUSE: Duration = Duration::from_secs(10);
/// What is about one account's mail.
const PATHS: [&str; 3] = ["/jmap/", "/api/v1/message/", "/api/v1/removed"];
/// Of a connection, not of a request (RFC 9110 §7.6.1).
const OF_CONNECTION: [HeaderName; 5] =
    [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TE, header::EXPECT];
const OF_CONNECTION_TOO: [&str; 2] = ["keep-alive", "proxy-connection"];

impl Leading {
    pub fn new(web: Arc<Inner>, affinity: Arc<Affinity>, peer: Peer) -> Self {
        Self { web, affinity, peer, link: Mutex::default() }
    }

    /// Has the account's node answer, if that is another one and takes it.
    pub async fn lead(&self, request: Request<Body>) -> Answered {
        let path = request.uri().path();
        if !PATHS.iter().any(|prefix| path.starts_with(prefix)) && path != "/jmap" {
            return Answered::Here(request);
        }
        let Some(account) = self.account(request.headers()).await else { return Answered::Here(request) };
        let Some(mut requests) = self.link(account).await else { return Answered::Here(request) };
        let mut request = request;
        if !adapt(&mut request) {
            return Answered::Here(request);
        }
        match requests.try_send_request(request).await {
            Ok(response) => Answered::Elsewhere(self.answer(response)),
            Err(mut failed) => match failed.take_message() {
                // It was not sent.
                Some(request) => Answered::Here(request),
                None => {
                    tracing::info!(event = "web.lead_ended", error = %failed.error());
                    Answered::Elsewhere(ApiError::Busy.into_response())
                }
            },
        }
    }

    /// Whose mail it is about, as far as the request says: whether that is true is found where it is answered.
    async fn account(&self, headers: &HeaderMap) -> Option<AccountId> {
        if let Some(session) = self.web.session(headers, self.peer).await.ok()? {
            return Some(session.account);
        }
        let (name, _) = basic(headers)?;
        let address: Address = name.trim().parse().ok()?;
        match self.web.services.directory.resolve(&ForwardPath::Address(address)).await {
            Ok(Resolution::Local(found)) if found.len() == 1 => found.first().map(|one| one.account),
            _ => None,
        }
    }

    async fn link(&self, account: AccountId) -> Option<SendRequest<Body>> {
        let mut link = self.link.lock().await;
        if let Some(open) = link.open.as_ref().filter(|open| open.account == account && !open.requests.is_closed()) {
            return Some(open.requests.clone());
        }
        link.open = None;
        let now = self.web.services.clock.now();
        if self.affinity.is_here(account) || link.not_before.is_some_and(|at| now < at) {
            return None;
        }
        link.open = self.open(account).await;
        if link.open.is_none() {
            link.not_before = Some(now + PAUSE);
        }
        link.open.as_ref().map(|open| open.requests.clone())
    }

    async fn open(&self, account: AccountId) -> Option<Open> {
        let handoff = Handoff {
            protocol: "http".to_owned(),
            account,
            rights: None,
            session: self.web.services.ids.session(self.web.services.clock.utc()),
            client: SocketAddr::new(self.peer.address, 0),
            is_tls: self.peer.is_tls,
            tag: String::new(),
            ahead: bytes::Bytes::new(),
        };
        let Led { link, mut lost } = self.affinity.lead(&handoff).await?;
        let (requests, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(link)).await.ok()?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            tokio::select! {
                _ = connection => {}
                () = lost.wait() => {}
            }
        });
        Some(Open { account, requests, _driver: driver })
    }

    fn answer(&self, response: Response<Incoming>) -> Response<Body> {
        let (mut parts, body) = response.into_parts();
        parts.version = Version::default();
        let is_stream =
            parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == b"text/event-stream");
        if !is_stream {
            return Response::from_parts(parts, Body::new(body));
        }
        // As those of this node, events end when it stops.
        let closing = self.web.closing.clone();
        let events = body.into_data_stream().take_until(closing.cancelled_owned());
        Response::from_parts(parts, Body::from_stream(events))
    }
}

/// Makes of it what a link carries; false, and nothing has changed, if that cannot be.
fn adapt(request: &mut Request<Body>) -> bool {
    let host = request.headers().get(header::HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = request.uri().clone().into_parts();
    (parts.scheme, parts.authority) = (Some(Scheme::HTTP), host);
    let Ok(uri) = Uri::from_parts(parts) else { return false };
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    for name in OF_CONNECTION {
        request.headers_mut().remove(name);
    }
    for name in OF_CONNECTION_TOO {
        request.headers_mut().remove(name);
    }
    true
}
