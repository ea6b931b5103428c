//! Calls that are made once, however often they are asked for: POST with the field `Idempotency-Key`.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use directory::Call;

use crate::auth::Viewer;
use crate::error::ApiError;
use crate::server::Inner;

pub(crate) const KEY: &str = "idempotency-key";
const KEY_MAX: usize = 200;
/// What routes take is less.
const BODY_MAX: usize = 32 << 20;
/// A longer answer is given once.
const ANSWER_MAX: usize = 256 << 10;
/// Answers that hold a secret are not kept.
const SECRET: [&str; 3] = ["/api/v1/app-passwords", "/api/v1/tokens", "/api/v1/me/"];

/// Passes a call on, or gives the answer that it had before.
pub(crate) async fn once(State(web): State<Arc<Inner>>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || !request.headers().contains_key(KEY) {
        return next.run(request).await;
    }
    pass(&web, request, next).await.unwrap_or_else(ApiError::into_response)
}

async fn pass(web: &Arc<Inner>, request: Request, next: Next) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let word = parts.headers.get(KEY).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let word =
        word.filter(|word| (1..=KEY_MAX).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_graphic()));
    let word = word.ok_or_else(|| {
        ApiError::Invalid(format!("Idempotency-Key is 1 to {KEY_MAX} visible ASCII characters without blanks"))
    })?;
    let account = Viewer::from_request_parts(&mut parts, web).await?.account.id;
    let body = to_bytes(body, BODY_MAX).await.map_err(|_| ApiError::TooLarge)?;
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str()).to_owned();
    let mut digest = blake3::Hasher::new();
    digest.update(path.as_bytes()).update(&[0]).update(&body);
    let registry = &web.services.registry;
    match registry.begin_call(account, &word, *digest.finalize().as_bytes()).await? {
        Call::Begun => {}
        Call::Answered { status, body } => return Ok(again(status, body)),
        Call::UnderWay => {
            return Err(ApiError::Conflict("the same call is under way: ask again in a moment".to_owned()));
        }
        Call::Other => {
            return Err(ApiError::Conflict("this Idempotency-Key was given to another call".to_owned()));
        }
    }
    let answered = next.run(Request::from_parts(parts, Body::from(body))).await;
    let (head, body) = answered.into_parts();
    let kept = to_bytes(body, ANSWER_MAX).await;
    let answer = match &kept {
        // What failed for now may be tried again.
        _ if head.status.is_server_error() => None,
        Ok(body) if !SECRET.iter().any(|secret| path.starts_with(secret)) => {
            Some((head.status.as_u16(), body.to_vec()))
        }
        _ => Some((head.status.as_u16(), Vec::new())),
    };
    registry.end_call(account, &word, answer).await?;
    Ok(Response::from_parts(head, Body::from(kept.map_err(|_| ApiError::TooLarge)?)))
}

/// As it was answered the first time; an answer that is not kept has its status alone.
fn again(status: u16, body: Vec<u8>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let kind = if status.is_success() { "application/json" } else { "application/problem+json" };
    let has_body = !body.is_empty();
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    match has_body {
        true => headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        false => headers.remove(header::CONTENT_TYPE),
    };
    headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    response
}
