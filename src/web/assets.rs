//! The faces: files compiled in, and the one page that starts them.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::error::ApiError;
use crate::security::{APP_POLICY, set_policy};
use crate::server::{Inner, Peer};

#[derive(RustEmbed)]
#[folder = "browser/"]
#[allow_missing = true]
struct Assets;

/// The page behind `/`, `/mail`, `/log` and `/admin`.
const SHELL: &str = "index.html";

pub(crate) async fn shell(
    State(web): State<Arc<Inner>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    if web.session(&headers, peer).is_none() {
        return Redirect::to("/login").into_response();
    }
    let Some(file) = Assets::get(SHELL) else { return ApiError::NotFound.into_response() };
    let mut response = (StatusCode::OK, file.data.into_owned()).into_response();
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    set_policy(fields, APP_POLICY);
    response
}

pub(crate) async fn file(Path(path): Path<String>, headers: HeaderMap) -> Response {
    match Assets::get(&path) {
        // Notes for developers lie beside the files.
        Some(file) if !path.ends_with(".md") => serve(&path, file, &headers),
        _ => ApiError::NotFound.into_response(),
    }
}

pub(crate) async fn favicon(headers: HeaderMap) -> Response {
    match Assets::get("favicon.ico").or_else(|| Assets::get("icon.svg")) {
        Some(file) => serve("icon.svg", file, &headers),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

/// A browser asks again each time and mostly hears 304: an update of the node is seen at once.
fn serve(path: &str, file: EmbeddedFile, headers: &HeaderMap) -> Response {
    let digest: String = file.metadata.sha256_hash().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{digest}\"");
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == tag.as_bytes());
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        (StatusCode::OK, file.data.into_owned()).into_response()
    };
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type(path)));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        fields.insert(header::ETAG, tag);
    }
    // A service worker is a page of its own to the browser.
    set_policy(fields, APP_POLICY);
    response
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("html") => "text/html; charset=utf-8",
        Some("json" | "map") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
