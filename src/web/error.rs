//! What the API answers when it cannot do as asked: problem details (RFC 9457), with `error` and `message` besides.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cluster::ClusterError;
use directory::{DirectoryError, RegistryError};
use jmap::BlobError;
use serde_json::json;
use store::StoreError;
use trail::TrailError;

#[derive(Debug)]
pub(crate) enum ApiError {
    /// Not signed in. A client of the API is told how; a browser's dialog would be in the way of the sign-in page.
    SignIn {
        offer_basic: bool,
    },
    TooManyAttempts,
    /// The password is right, and a code of the second factor is missing.
    SecondFactor,
    /// The password is right, but the mailbox is still on an old server.
    Elsewhere,
    Forbidden,
    NotFound,
    Invalid(String),
    /// `field`: what of the request is wrong.
    InvalidField {
        field: String,
        why: String,
    },
    /// What the call was made on is not as it was any more.
    Changed,
    Conflict(String),
    TooLarge,
    Busy,
    Failed,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, kind, message) = match &self {
            Self::SignIn { .. } => (StatusCode::UNAUTHORIZED, "sign-in", "sign in first".to_owned()),
            Self::TooManyAttempts => {
                (StatusCode::TOO_MANY_REQUESTS, "too-many-attempts", "too many failed attempts; wait".to_owned())
            }
            Self::SecondFactor => {
                (StatusCode::UNAUTHORIZED, "second-factor", "a code of the second factor is needed".to_owned())
            }
            Self::Elsewhere => (
                StatusCode::FORBIDDEN,
                "elsewhere",
                "this mailbox has not been moved here yet: it is read by IMAP or POP3, or in the webmail of the old server"
                    .to_owned(),
            ),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "not allowed".to_owned()),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "no such thing".to_owned()),
            Self::Invalid(why) | Self::InvalidField { why, .. } => (StatusCode::BAD_REQUEST, "invalid", why.clone()),
            Self::Changed => {
                (StatusCode::PRECONDITION_FAILED, "changed", "it was changed meanwhile: read it again".to_owned())
            }
            Self::Conflict(why) => (StatusCode::CONFLICT, "conflict", why.clone()),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "too large".to_owned()),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy", "try again later".to_owned()),
            Self::Failed => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "try again later".to_owned()),
        };
        let mut problem = json!({
            "type": format!("urn:ortler:problem:{kind}"), "title": kind, "status": status.as_u16(), "detail": message,
            "error": kind, "message": message,
        });
        if let (Self::InvalidField { field, .. }, Some(fields)) = (&self, problem.as_object_mut()) {
            fields.insert("field".to_owned(), json!(field));
        }
        let mut response = (status, axum::Json(problem)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if matches!(self, Self::SignIn { offer_basic: true }) {
            let challenge = HeaderValue::from_static("Basic realm=\"Ortler\", charset=\"UTF-8\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

fn failed(error: &dyn std::error::Error) -> ApiError {
    tracing::error!(event = "web.failed", error = %error);
    ApiError::Failed
}

impl From<net::SpoolError> for ApiError {
    fn from(error: net::SpoolError) -> Self {
        match error {
            net::SpoolError::TooLarge(_) => Self::TooLarge,
            net::SpoolError::Full | net::SpoolError::Failed(_) => failed(&error),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        failed(&error)
    }
}

impl From<engine::EngineError> for ApiError {
    fn from(error: engine::EngineError) -> Self {
        failed(&error)
    }
}

impl From<DirectoryError> for ApiError {
    fn from(error: DirectoryError) -> Self {
        failed(&error)
    }
}

impl From<TrailError> for ApiError {
    fn from(error: TrailError) -> Self {
        failed(&error)
    }
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::NotFound => Self::NotFound,
            BlobError::TooLarge => Self::TooLarge,
            BlobError::Busy => Self::Busy,
            BlobError::Store(error) => error.into(),
        }
    }
}

impl From<ClusterError> for ApiError {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::NoNode(_) => Self::NotFound,
            ClusterError::IsUp(_) | ClusterError::NameTaken { .. } => Self::Conflict(error.to_string()),
            ClusterError::Alone | ClusterError::NoneToAsk | ClusterError::NotRunning(_) => {
                Self::Invalid(error.to_string())
            }
            ClusterError::Engine(error) => failed(&error),
        }
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Exists { .. } => Self::Conflict(error.to_string()),
            RegistryError::Missing { .. } => Self::NotFound,
            RegistryError::Refused { why } => Self::Invalid(why),
            RegistryError::Unavailable(error) => failed(&error),
        }
    }
}
