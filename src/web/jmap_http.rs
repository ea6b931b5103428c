//! JMAP over HTTP (RFC 8620 §2, §3, §6, §7.3).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt as _;
use jmap::{Jmap, Watch};
use serde_json::Value;

use crate::auth::Viewer;
use crate::error::ApiError;
use crate::events::{Place, Source};
use crate::security::{DOWNLOAD_POLICY, set_policy};
use crate::server::Inner;

pub(crate) async fn session(State(web): State<Arc<Inner>>, viewer: Viewer) -> Json<Value> {
    Json(web.services.jmap.session(&viewer.account, ""))
}

pub(crate) async fn call(State(web): State<Arc<Inner>>, viewer: Viewer, request: Bytes) -> Response {
    match web.services.jmap.handle(&viewer.account, &request).await {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => {
            let mut response = (StatusCode::BAD_REQUEST, Json(error.to_json())).into_response();
            let problem = HeaderValue::from_static("application/problem+json");
            response.headers_mut().insert(header::CONTENT_TYPE, problem);
            response
        }
    }
}

pub(crate) async fn upload(
    State(web): State<Arc<Inner>>,
    Path(account): Path<String>,
    viewer: Viewer,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    check_account(&viewer, &account)?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.filter(|kind| is_media_type(kind)).unwrap_or("application/octet-stream");
    let mut spool = web.services.jmap.spool();
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        // Whoever broke off hears no answer.
        spool.write(&piece.map_err(|_broken| ApiError::Invalid("the upload broke off".to_owned()))?).await?;
    }
    let answer = web.services.jmap.upload(&viewer.account, kind, spool.finish())?;
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// Always an attachment that nothing runs in, whatever type the client asks for.
pub(crate) async fn download(
    State(web): State<Arc<Inner>>,
    Path((account, blob, name)): Path<(String, String, String)>,
    Query(query): Query<HashMap<String, String>>,
    viewer: Viewer,
) -> Result<Response, ApiError> {
    check_account(&viewer, &account)?;
    let blob = web.services.jmap.download(viewer.account.id, &blob).await?;
    let asked = query.get("accept").filter(|kind| is_media_type(kind)).cloned();
    let kind = asked.or(blob.media_type).unwrap_or_else(|| "application/octet-stream".to_owned());
    let mut response = Response::new(Body::from(blob.content));
    let fields = response.headers_mut();
    let plain = || HeaderValue::from_static("application/octet-stream");
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_str(&kind).unwrap_or_else(|_| plain()));
    if let Ok(disposition) = HeaderValue::from_str(&attachment(&name)) {
        fields.insert(header::CONTENT_DISPOSITION, disposition);
    }
    // A blob never changes; it is the account's alone.
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable"));
    set_policy(fields, DOWNLOAD_POLICY);
    Ok(response)
}

fn check_account(viewer: &Viewer, account: &str) -> Result<(), ApiError> {
    if account == jmap::account_id(viewer.account.id) { Ok(()) } else { Err(ApiError::NotFound) }
}

fn is_media_type(text: &str) -> bool {
    let token =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b));
    let bare = text.split(';').next().unwrap_or_default().trim();
    let has_controls = text.bytes().any(|b| !(b' '..=b'~').contains(&b));
    text.len() <= 255 && !has_controls && bare.split_once('/').is_some_and(|(kind, sub)| token(kind) && token(sub))
}

/// RFC 6266 with RFC 8187: a plain name for old clients, the real one beside it.
fn attachment(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || " ._-+()".contains(c);
    let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let exact: String = name
        .bytes()
        .map(|b| {
            let is_attr = b.is_ascii_alphanumeric() || b"._-~!#$&+^`|".contains(&b);
            if is_attr { char::from(b).to_string() } else { format!("%{b:02X}") }
        })
        .collect();
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}")
}

/// The account's state changes.
struct Changes {
    watch: Watch,
    types: Vec<String>,
    close_after_one: bool,
    is_done: bool,
}

impl Source for Changes {
    async fn next(&mut self) -> Option<Event> {
        if self.is_done {
            return None;
        }
        let (id, change) = self.watch.next(&self.types).await?;
        self.is_done = self.close_after_one;
        Some(Event::default().event("state").id(id).data(change.to_string()))
    }
}

/// RFC 8620 §7.3.
pub(crate) async fn event_source(
    State(web): State<Arc<Inner>>,
    Query(query): Query<HashMap<String, String>>,
    viewer: Viewer,
) -> Result<Response, ApiError> {
    let jmap: &Jmap = &web.services.jmap;
    let types = query.get("types").map(String::as_str).unwrap_or("*");
    let types = if types == "*" { Vec::new() } else { types.split(',').take(50).map(str::to_owned).collect() };
    let ping = query.get("ping").and_then(|ping| ping.parse::<u64>().ok()).filter(|seconds| *seconds > 0);
    let source = Changes {
        watch: jmap.watch(viewer.account.id),
        types,
        close_after_one: query.get("closeafter").is_some_and(|close| close == "state"),
        is_done: false,
    };
    Ok(Place::take(&web, viewer.hold(&web).await)?
        .answer(source, ping.map(|seconds| Duration::from_secs(seconds.clamp(5, 300)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_cannot_break_out_of_the_field() {
        assert_eq!(attachment("a.pdf"), "attachment; filename=\"a.pdf\"; filename*=UTF-8''a.pdf");
        let hostile = attachment("\u{e4}\"; x=\"\r\ny");
        assert_eq!(hostile, "attachment; filename=\"___ x____y\"; filename*=UTF-8''%C3%A4%22%3B%20x%3D%22%0D%0Ay");
        assert!(is_media_type("text/html; charset=utf-8") && !is_media_type("text") && !is_media_type("a/b\r\nc"));
    }
}
