//! `/healthz`, `/readyz` and `/metrics`, on a listener of their own.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use serde_json::json;
use store::Storage;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::ServiceExt as _;

/// Serves the health listener.
pub struct Health {
    router: Router,
}

/// A virus scanner as `/readyz` shows it.
pub struct ScannerHealth {
    pub server: String,
    pub is_up: bool,
    /// Program, number and date of the signatures, as it says.
    pub version: Option<String>,
    pub signatures_age_s: Option<u64>,
}

/// A DNS list as `/readyz` shows it.
pub struct ListHealth {
    pub zone: String,
    pub is_asked: bool,
    /// Why it was set aside.
    pub trouble: Option<String>,
    pub asked_today: u32,
}

struct Shared {
    /// Protocols that this node has listeners for.
    protocols: Vec<&'static str>,
    storage: Arc<Storage>,
    metrics: Box<dyn Fn() -> String + Send + Sync>,
    is_draining: Box<dyn Fn() -> bool + Send + Sync>,
    scanners: Box<dyn Fn() -> Vec<ScannerHealth> + Send + Sync>,
    lists: Box<dyn Fn() -> Vec<ListHealth> + Send + Sync>,
}

/// A scraper or prober that says nothing is let go.
const CONNECTION_WAIT: std::time::Duration = std::time::Duration::from_secs(60);

impl Health {
    /// `metrics` renders Prometheus text; `is_draining` is true from the moment that the node wants no new sessions;
    /// `protocols` are those that it has listeners for; `scanners` and `lists` tell how the virus
    /// scanners and the DNS lists stand.
    pub fn new(
        protocols: Vec<&'static str>,
        storage: Arc<Storage>,
        metrics: impl Fn() -> String + Send + Sync + 'static,
        is_draining: impl Fn() -> bool + Send + Sync + 'static,
        scanners: impl Fn() -> Vec<ScannerHealth> + Send + Sync + 'static,
        lists: impl Fn() -> Vec<ListHealth> + Send + Sync + 'static,
    ) -> Self {
        let (metrics, is_draining, scanners) = (Box::new(metrics), Box::new(is_draining), Box::new(scanners));
        let lists = Box::new(lists);
        let shared = Arc::new(Shared { protocols, storage, metrics, is_draining, scanners, lists });
        let router = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/readyz/{protocol}", get(ready_for))
            .route("/metrics", get(metrics_text))
            .with_state(shared);
        Self { router }
    }

    /// Serves one connection until it ends, a minute at most. Cancel safe: there is nothing to lose.
    pub async fn serve<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            router.clone().oneshot(request.map(axum::body::Body::new))
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(CONNECTION_WAIT);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        // A prober that hangs up early is no news.
        let _ = tokio::time::timeout(CONNECTION_WAIT, connection).await;
    }
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let health = shared.storage.health();
    let is_writable = health.is_writable;
    let is_draining = (shared.is_draining)();
    let status = if is_writable && !is_draining { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // Without room for new mail it goes on serving what there is; without the object store, all but large content. Every
    // other node is no better off.
    let mut told = json!({
        "ready": status.is_success(), "store": is_writable, "room": health.has_room, "draining": is_draining,
    });
    if let (Some(fields), Some(reached)) = (told.as_object_mut(), health.reaches_objects) {
        fields.insert("object_store".to_owned(), json!(reached));
    }
    // Without a scanner mail waits at its senders, or is taken unseen, as policy says: that is no state of this node.
    let scanners: Vec<_> = (shared.scanners)()
        .into_iter()
        .map(|scanner| {
            json!({
                "server": scanner.server, "up": scanner.is_up, "version": scanner.version,
                "signatures_age_s": scanner.signatures_age_s,
            })
        })
        .collect();
    if let (Some(fields), false) = (told.as_object_mut(), scanners.is_empty()) {
        fields.insert("scanners".to_owned(), json!(scanners));
    }
    let lists: Vec<_> = (shared.lists)()
        .into_iter()
        .map(|list| {
            json!({
                "zone": list.zone, "asked": list.is_asked, "trouble": list.trouble, "asked_today": list.asked_today,
            })
        })
        .collect();
    if let (Some(fields), false) = (told.as_object_mut(), lists.is_empty()) {
        fields.insert("dns_lists".to_owned(), json!(lists));
    }
    (status, axum::Json(told)).into_response()
}

/// Whether a client of one protocol would be served now. Where mail comes in, a node without room for it is passed over:
/// another one may have some.
async fn ready_for(State(shared): State<Arc<Shared>>, Path(protocol): Path<String>) -> Response {
    if !shared.protocols.contains(&protocol.as_str()) {
        return (StatusCode::NOT_FOUND, axum::Json(json!({ "error": "not served here" }))).into_response();
    }
    let health = shared.storage.health();
    let takes_mail = matches!(protocol.as_str(), "smtp" | "lmtp" | "submission" | "submissions");
    let is_ready = health.is_writable && !(shared.is_draining)() && (health.has_room || !takes_mail);
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(json!({ "ready": is_ready }))).into_response()
}

async fn metrics_text(State(shared): State<Arc<Shared>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (shared.metrics)()).into_response()
}
