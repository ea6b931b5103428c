//! From a connection to a route and back.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use access::Position;
use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, Request, Response, header};
use axum::routing::{delete, get, post, put};
use base::{AccountId, Clock, IdSource};
use cluster::{Affinity, Membership};
use directory::{Directory, Registry, WebSession};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use jmap::Jmap;
use layers::Layers;
use moka::sync::Cache;
use store::Storage;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use trail::Trail;

use crate::assets::Assets;
use crate::error::ApiError;
use crate::leading::{Answered, Leading};
use crate::links::Links;
use crate::operations::{self, Operations};
use crate::session_table::SessionTable;
use crate::{
    about, admin, api, assets, confirm, jmap_http, log, login, message, nodes, once, openapi, people, policies,
    quarantine,
};
use crate::{recipients, removed, security};

/// What the web role is built from.
pub struct WebServices {
    pub storage: Arc<Storage>,
    pub directory: Arc<dyn Directory>,
    /// The same directory, for administration.
    pub registry: Arc<Registry>,
    /// What policies say, for who asks what is allowed.
    pub layers: Arc<Layers>,
    pub trail: Arc<Trail>,
    pub jmap: Arc<Jmap>,
    /// The way to old servers.
    pub legacy: Arc<legacy::Gateway>,
    /// The nodes of the system.
    pub membership: Arc<Membership>,
    /// Leads requests to the node of their account; `None` on a node that is alone.
    pub affinity: Option<Arc<Affinity>>,
    /// For links in mails that do something.
    pub links: Links,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<IdSource>,
}

#[derive(Clone, Debug)]
pub struct WebSettings {
    /// Name of this node, as `/api/v1/node` shows it.
    pub node_name: String,
    /// Passwords may be sent over plain HTTP from loopback: the demonstration mode.
    pub plain_login_on_loopback: bool,
    /// Roles of the provider's people count only with a second factor.
    pub staff_needs_second_factor: bool,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The client's address, as told by a trusted proxy where there is one.
    pub address: IpAddr,
    pub is_tls: bool,
}

/// Serves HTTP/1.1 and HTTP/2 on connections that somebody else accepted.
pub struct Web {
    inner: Arc<Inner>,
    router: Router,
}

pub(crate) struct Inner {
    pub services: WebServices,
    pub settings: WebSettings,
    pub assets: Assets,
    pub sessions: SessionTable,
    /// What viewers looked at of late: it is put on record once.
    pub looks: Cache<(AccountId, &'static str, Position), ()>,
    /// Event streams open at a time.
    pub streams: Arc<Semaphore>,
    /// Ends event streams when the node stops.
    pub closing: CancellationToken,
    /// Once the node runs.
    pub operations: OnceLock<Arc<dyn Operations>>,
}

const STREAMS_MAX: usize = 10_000;
const LOOKS_MAX: u64 = 100_000;
const LOOKED_FOR: Duration = Duration::from_secs(1800);
/// From the first octet of a request to the end of its header; also how long an idle connection is kept.
const HEADER_WAIT: Duration = Duration::from_secs(60);
/// A whole request with its body and its answer up to the first octet.
const REQUEST_WAIT: Duration = Duration::from_secs(300);
const HTTP2_STREAMS_MAX: u32 = 100;

impl Web {
    pub fn new(services: WebServices, settings: WebSettings) -> Self {
        let sessions = SessionTable::new(Arc::clone(&services.registry), Arc::clone(&services.clock));
        let inner = Arc::new(Inner {
            services,
            settings,
            assets: Assets::default(),
            sessions,
            looks: Cache::builder().max_capacity(LOOKS_MAX).time_to_live(LOOKED_FOR).build(),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            closing: CancellationToken::new(),
            operations: OnceLock::new(),
        });
        let router = router(Arc::clone(&inner));
        Self { inner, router }
    }

    /// Who does what administrators ask for, from now on. Only the first counts.
    pub fn set_operations(&self, operations: Arc<dyn Operations>) {
        let _ = self.inner.operations.set(operations);
    }

    /// Ends event streams, so that connections can finish. New ones end at once.
    pub fn close(&self) {
        self.inner.closing.cancel();
    }

    /// Serves one connection until it ends; after [`Web::close`] it finishes the requests under way. On TLS, `h2` and
    /// `http/1.1` may be offered by ALPN. Not cancel safe: dropping it drops requests under way.
    pub async fn serve<S>(&self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let affinity = self.inner.services.affinity.clone();
        let leading = affinity.map(|affinity| Arc::new(Leading::new(Arc::clone(&self.inner), affinity, peer)));
        self.serve_with(stream, peer, leading).await;
    }

    /// As [`Web::serve`], for what another node leads here.
    pub async fn serve_led<S>(&self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.serve_with(stream, peer, None).await;
    }

    async fn serve_with<S>(&self, stream: S, peer: Peer, leading: Option<Arc<Leading>>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            answer(router.clone(), request, peer, leading.clone())
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_WAIT).max_buf_size(64 * 1024);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(HTTP2_STREAMS_MAX)
            .max_header_list_size(64 * 1024)
            .keep_alive_interval(HEADER_WAIT)
            .keep_alive_timeout(Duration::from_secs(20));
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.inner.closing.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(event = "web.connection_ended", client = %peer.address, error = %error);
        }
    }
}

async fn answer(
    router: Router,
    mut request: Request<Incoming>,
    peer: Peer,
    leading: Option<Arc<Leading>>,
) -> Result<Response<Body>, std::convert::Infallible> {
    // HTTP/2 has no Host field; the rest of us looks there.
    if let (None, Some(authority)) = (request.headers().get(header::HOST), request.uri().authority())
        && let Ok(host) = authority.as_str().parse()
    {
        request.headers_mut().insert(header::HOST, host);
    }
    request.extensions_mut().insert(peer);
    let answering = async {
        let request = request.map(Body::new);
        let request = match &leading {
            Some(leading) => match leading.lead(request).await {
                Answered::Elsewhere(response) => return Ok(response),
                Answered::Here(request) => request,
            },
            None => request,
        };
        router.oneshot(request).await
    };
    let answered = tokio::time::timeout(REQUEST_WAIT, answering).await;
    let mut response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => axum::response::IntoResponse::into_response(ApiError::Busy),
    };
    security::set_common(response.headers_mut(), peer.is_tls);
    Ok(response)
}

fn router(inner: Arc<Inner>) -> Router {
    let uploads = Router::new()
        .route("/jmap/upload/{account}/", post(jmap_http::upload))
        .route("/jmap/upload/{account}", post(jmap_http::upload));
    let calls = Router::new()
        .route("/jmap/", post(jmap_http::call))
        .route("/jmap", post(jmap_http::call))
        .layer(DefaultBodyLimit::max(Jmap::REQUEST_SIZE_MAX.as_usize()));
    let api = api_router().merge(filter_router()).merge(people_router());
    let api = api.layer(axum::middleware::from_fn_with_state(Arc::clone(&inner), once::once));
    Router::new()
        .route("/login", get(login::page).post(login::submit))
        .route("/login/mail", get(login::ask_link).post(login::send_link))
        .route("/login/mail/{token}", get(login::link).post(login::enter))
        .route("/login.css", get(login::style))
        .route("/logout", post(login::leave))
        .route("/held/{token}", get(confirm::held).post(confirm::act_on_held))
        .route("/forward/{token}", get(confirm::forward).post(confirm::accept_forward))
        .route("/.well-known/jmap", get(jmap_http::session))
        .route("/jmap/session", get(jmap_http::session))
        .route("/jmap/download/{account}/{blob}/{name}", get(jmap_http::download))
        .route("/jmap/eventsource/", get(jmap_http::event_source))
        .route("/jmap/eventsource", get(jmap_http::event_source))
        .merge(uploads)
        .merge(calls)
        .merge(api)
        .route("/assets/{*path}", get(assets::file))
        .route("/favicon.ico", get(assets::favicon))
        .route("/", get(assets::shell))
        .route("/mail", get(assets::shell))
        .route("/mail/{*rest}", get(assets::shell))
        .route("/filter", get(assets::shell))
        .route("/filter/{*rest}", get(assets::shell))
        .route("/recover", get(assets::shell))
        .route("/log", get(assets::shell))
        .route("/log/{*rest}", get(assets::shell))
        .route("/admin", get(assets::shell))
        .route("/admin/{*rest}", get(assets::shell))
        .with_state(inner)
}

/// The JSON API. [`openapi`] describes every route of it, which a test checks.
fn api_router() -> Router<Arc<Inner>> {
    Router::new()
        .route("/api/v1/openapi.json", get(openapi::document))
        .route("/api/v1/session", get(api::session))
        .route("/api/v1/node", get(api::node))
        .route("/api/v1/message/{email}/body", get(message::body))
        .route("/api/v1/message/{email}/inline/{blob}", get(message::inline))
        .route("/api/v1/message/{email}/about", get(about::about))
        .route("/api/v1/removed", get(removed::list))
        .route("/api/v1/removed/restore", post(removed::restore))
        .route("/api/v1/removed/purge", post(removed::purge))
        .route("/api/v1/recipients/check", post(recipients::check))
        .route("/api/v1/log/messages", get(log::messages))
        .route("/api/v1/log/messages/{id}", get(log::message))
        .route("/api/v1/log/messages/{id}/events", get(log::story))
        .route("/api/v1/log/histogram", get(log::histogram))
        .route("/api/v1/log/stream", get(log::stream))
        .route("/api/v1/nodes", get(nodes::list))
        .route("/api/v1/nodes/{name}", axum::routing::patch(nodes::set).delete(nodes::remove))
        .route("/api/v1/tenants", get(admin::tenants).post(admin::add_tenant))
        .route("/api/v1/tenants/{name}", axum::routing::patch(admin::set_tenant).delete(admin::delete_tenant))
        .route("/api/v1/domains/{name}/aliases", get(admin::domain_aliases))
        .route(
            "/api/v1/domains/{name}/aliases/{alias}",
            put(admin::add_domain_alias).delete(admin::delete_domain_alias),
        )
        .route("/api/v1/domains/{name}/relay", put(admin::set_relay).delete(admin::delete_relay))
        .route("/api/v1/domains", get(admin::domains).post(admin::add_domain))
        .route("/api/v1/domains/{name}", axum::routing::patch(admin::set_domain).delete(admin::delete_domain))
        .route("/api/v1/accounts", get(admin::accounts).post(admin::add_account))
        .route("/api/v1/accounts/import", post(admin::import).layer(DefaultBodyLimit::max(admin::IMPORT_MAX)))
        .route(
            "/api/v1/accounts/{address}",
            get(admin::account).patch(admin::set_account).delete(admin::delete_account),
        )
        .route("/api/v1/queue", get(operations::recipients))
        .route("/api/v1/queue/counts", get(operations::counts))
        .route("/api/v1/queue/messages/{id}", get(operations::queued_message))
        .route("/api/v1/queue/actions", post(operations::act))
        .route("/api/v1/queue/lanes", get(operations::lanes))
        .route("/api/v1/queue/lanes/{lane}", axum::routing::patch(operations::set_lane))
        .route("/api/v1/keys", get(operations::keys).post(operations::add_keys))
        .route("/api/v1/keys/{domain}/check", get(operations::check_keys))
        .route(
            "/api/v1/keys/{domain}/{selector}",
            axum::routing::patch(operations::set_key).delete(operations::delete_key),
        )
        .route("/api/v1/reports", get(operations::reports))
        .route("/api/v1/reports/{kind}/{domain}", get(operations::report_sums))
        .route("/api/v1/aliases", get(admin::aliases))
        .route("/api/v1/aliases/{address}", put(admin::put_alias).delete(admin::delete_alias))
        .layer(DefaultBodyLimit::max(64 * 1024))
}

/// Policies, lists of senders, and what is held.
fn filter_router() -> Router<Arc<Inner>> {
    Router::new()
        .route("/api/v1/policy", get(policies::show).patch(policies::set))
        .route("/api/v1/policy/options", get(policies::options))
        .route("/api/v1/policy/history", get(policies::history))
        .route("/api/v1/policy/history/{change}/undo", post(policies::undo))
        .route("/api/v1/policy/plans", get(policies::plans).post(policies::plan))
        .route("/api/v1/policy/plans/{plan}", delete(policies::unplan))
        .route("/api/v1/policy/replay", post(policies::replay))
        .route("/api/v1/senders", get(policies::senders).post(policies::add_sender))
        .route("/api/v1/senders/{entry}", delete(policies::delete_sender))
        .route("/api/v1/quarantine", get(quarantine::list))
        .route("/api/v1/quarantine/counts", get(quarantine::counts))
        .route("/api/v1/quarantine/actions", post(quarantine::act))
        .route("/api/v1/quarantine/messages/{id}", get(quarantine::show))
        .route("/api/v1/quarantine/messages/{id}/body", get(quarantine::body))
        .route("/api/v1/quarantine/messages/{id}/source", get(quarantine::source))
        .layer(DefaultBodyLimit::max(256 * 1024))
}

/// What belongs to people.
fn people_router() -> Router<Arc<Inner>> {
    Router::new()
        .route("/api/v1/me", get(people::me))
        .route("/api/v1/me/password", post(people::set_password))
        .route(
            "/api/v1/me/second-factor",
            post(people::begin_second_factor).put(people::confirm_second_factor).delete(people::delete_second_factor),
        )
        .route("/api/v1/me/sessions", get(people::sessions))
        .route("/api/v1/me/sessions/{id}", delete(people::close_session))
        .route("/api/v1/accounts/{address}/second-factor", delete(people::delete_second_factor_of))
        .route("/api/v1/roles", get(people::roles).post(people::grant).delete(people::revoke))
        .route("/api/v1/app-passwords", get(people::app_passwords).post(people::add_app_password))
        .route("/api/v1/app-passwords/{id}", delete(people::delete_app_password))
        .route("/api/v1/tokens", get(people::tokens).post(people::add_token))
        .route("/api/v1/tokens/{id}", delete(people::delete_token))
        .route("/api/v1/forwards", get(people::forwards).put(people::set_forwards))
        .route("/api/v1/audit", get(people::audit))
        .layer(DefaultBodyLimit::max(64 * 1024))
}

impl Inner {
    /// The cookie's name: `__Host-` binds it to this host and to TLS.
    pub fn cookie_name(peer: Peer) -> &'static str {
        if peer.is_tls { "__Host-ortler" } else { "ortler" }
    }

    pub fn cookie(headers: &HeaderMap, peer: Peer) -> Option<&str> {
        let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = pairs.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(name, _)| *name == Self::cookie_name(peer)).map(|(_, value)| value)
    }

    pub async fn session(&self, headers: &HeaderMap, peer: Peer) -> Result<Option<WebSession>, ApiError> {
        match Self::cookie(headers, peer) {
            Some(key) => self.sessions.find(key).await,
            None => Ok(None),
        }
    }

    /// A password must not travel in the clear.
    pub fn check_plain_login(&self, peer: Peer) -> Result<(), ApiError> {
        let is_allowed = peer.is_tls || (self.settings.plain_login_on_loopback && peer.address.is_loopback());
        if is_allowed { Ok(()) } else { Err(ApiError::Forbidden) }
    }
}
