//! `/healthz`, `/readyz` and `/metrics`, on a listener of their own.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
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

struct Shared {
    storage: Arc<Storage>,
    metrics: Box<dyn Fn() -> String + Send + Sync>,
    is_draining: Box<dyn Fn() -> bool + Send + Sync>,
}

/// A scraper or prober that says nothing is let go.
const CONNECTION_WAIT: std::time::Duration = std::time::Duration::from_secs(60);

impl Health {
    /// `metrics` renders Prometheus text; `is_draining` is true from the moment that the node wants no new sessions.
    pub fn new(
        storage: Arc<Storage>,
        metrics: impl Fn() -> String + Send + Sync + 'static,
        is_draining: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared { storage, metrics: Box::new(metrics), is_draining: Box::new(is_draining) });
        let router = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
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
    (status, axum::Json(told)).into_response()
}

async fn metrics_text(State(shared): State<Arc<Shared>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (shared.metrics)()).into_response()
}
