//! One message as a page of its own, shown in a frame without scripts.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use jmap::{inline_part, parse_email_id, part_blob_id};

use crate::auth::Viewer;
use crate::error::ApiError;
use crate::sanitize::{self, Remote};
use crate::security::{message_policy, set_policy};
use crate::server::{Inner, Peer};

/// Pictures a browser may show; SVG is not among them: it is a document.
const IMAGES: [&str; 5] = ["image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp"];

pub(crate) async fn body(
    State(web): State<Arc<Inner>>,
    Extension(peer): Extension<Peer>,
    Path(email): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    viewer: Viewer,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let remote = match query.get("images").map(String::as_str) {
        Some("remote") => Remote::Shown,
        Some(_) | None => Remote::Blocked,
    };
    let id = parse_email_id(&email).ok_or(ApiError::NotFound)?;
    let shown = web.services.jmap.readable(viewer.account.id, id).await?.ok_or(ApiError::NotFound)?;
    let folder = format!("/api/v1/message/{email}/inline/");
    let images = {
        let root = shown.root;
        let folder = folder.clone();
        move |cid: &str| {
            let part = inline_part(&root, cid)?;
            let kind = format!("{}/{}", part.media_type, part.media_subtype).to_ascii_lowercase();
            IMAGES.contains(&kind.as_str()).then(|| format!("{folder}{}", part_blob_id(id, part)))
        }
    };
    let (text, is_html) = (shown.text.text, shown.is_html);
    let host = host(&headers).map(|host| host_name(host).to_owned());
    // Sanitising a large message takes milliseconds: not on a thread that serves others.
    let page = tokio::task::spawn_blocking(move || {
        if is_html { sanitize::html_page(&text, remote, host.as_deref(), images) } else { sanitize::text_page(&text) }
    });
    let page = page.await.map_err(|_| ApiError::Failed)?;
    let mut response = axum::response::Html(page).into_response();
    let mut sources = image_source(&headers, peer, &folder);
    if remote == Remote::Shown {
        sources.push_str(" https: http:");
        // Ours is among these: the page names no picture there. Whoever keeps the pictures need not learn where they are shown.
        let none = HeaderValue::from_static("no-referrer");
        response.headers_mut().insert(header::REFERRER_POLICY, none);
    }
    set_policy(response.headers_mut(), &message_policy(&sources));
    Ok(response)
}

/// Our host and port as the browser asked for them; `None` if they cannot be trusted.
fn host(headers: &HeaderMap) -> Option<&str> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let is_host = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    is_host.then_some(host)
}

/// Without the port; an IPv6 address keeps its brackets.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// The folder of this message's pictures as a source for a policy; none if the host's name cannot be trusted.
fn image_source(headers: &HeaderMap, peer: Peer, folder: &str) -> String {
    match (host(headers), peer.is_tls) {
        (Some(host), true) => format!("https://{host}{folder}"),
        (Some(host), false) => format!("http://{host}{folder}"),
        (None, _) => String::new(),
    }
}

/// A picture that the message carries.
pub(crate) async fn inline(
    State(web): State<Arc<Inner>>,
    Path((email, blob)): Path<(String, String)>,
    viewer: Viewer,
) -> Result<Response, ApiError> {
    let id = parse_email_id(&email).ok_or(ApiError::NotFound)?;
    let number = email.strip_prefix('M').unwrap_or_default();
    if !blob.starts_with(&format!("e{number}-")) {
        return Err(ApiError::NotFound);
    }
    debug_assert!(id.0.to_string() == number, "ids have one spelling");
    let content = web.services.jmap.download(viewer.account.id, &blob).await?.content;
    // The octets say what it is; the sender's word is not asked.
    let kind = image_type(&content).ok_or(ApiError::NotFound)?;
    let mut response = Response::new(Body::from(content));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let keep = HeaderValue::from_static("private, max-age=86400");
    response.headers_mut().insert(header::CACHE_CONTROL, keep);
    Ok(response)
}

fn image_type(content: &[u8]) -> Option<&'static str> {
    let is = |magic: &[u8]| content.starts_with(magic);
    if is(b"\x89PNG\r\n\x1a\n") {
        Some("image/png")
    } else if is(b"\xff\xd8\xff") {
        Some("image/jpeg")
    } else if is(b"GIF87a") || is(b"GIF89a") {
        Some("image/gif")
    } else if is(b"RIFF") && content.get(8..12) == Some(b"WEBP") {
        Some("image/webp")
    } else if is(b"BM") {
        Some("image/bmp")
    } else {
        None
    }
}
