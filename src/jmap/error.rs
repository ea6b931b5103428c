//! Errors and their JSON: of a request (RFC 8620 §3.6.1), of a method (§3.6.2), of one object in a set (§5.3).

use serde_json::{Value, json};
use store::{AppendError, MailboxError, StoreError};

/// The request as a whole is refused; HTTP shows it as problem details (RFC 7807).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("the body is not I-JSON")]
    NotJson,
    #[error("the body is not a JMAP request: {0}")]
    NotRequest(&'static str),
    #[error("capability not supported: {0}")]
    UnknownCapability(String),
    #[error("limit exceeded: {0}")]
    Limit(&'static str),
}

impl RequestError {
    /// All of them are HTTP 400.
    pub fn to_json(&self) -> Value {
        let kind = match self {
            Self::NotJson => "notJSON",
            Self::NotRequest(_) => "notRequest",
            Self::UnknownCapability(_) => "unknownCapability",
            Self::Limit(_) => "limit",
        };
        let mut problem = json!({
            "type": format!("urn:ietf:params:jmap:error:{kind}"), "status": 400, "detail": self.to_string(),
        });
        if let (Self::Limit(limit), Some(fields)) = (self, problem.as_object_mut()) {
            fields.insert("limit".to_owned(), json!(limit));
        }
        problem
    }
}

/// One method call failed; the others of the request go on.
#[derive(Debug)]
pub(crate) struct MethodError {
    pub kind: &'static str,
    pub description: String,
}

impl MethodError {
    pub fn new(kind: &'static str, description: impl Into<String>) -> Self {
        Self { kind, description: description.into() }
    }

    pub fn invalid(description: impl Into<String>) -> Self {
        Self::new("invalidArguments", description)
    }

    pub fn to_json(&self) -> Value {
        let mut error = json!({ "type": self.kind });
        if let (false, Some(fields)) = (self.description.is_empty(), error.as_object_mut()) {
            fields.insert("description".to_owned(), json!(self.description));
        }
        error
    }
}

impl From<StoreError> for MethodError {
    fn from(error: StoreError) -> Self {
        tracing::error!(event = "jmap.store_failed", error = %error);
        match error {
            StoreError::Full(_) | StoreError::Unavailable(_) => Self::new("serverUnavailable", ""),
            StoreError::Damaged { .. } => Self::new("serverFail", "stored content is damaged"),
        }
    }
}

impl From<directory::DirectoryError> for MethodError {
    fn from(error: directory::DirectoryError) -> Self {
        tracing::error!(event = "jmap.directory_failed", error = %error);
        Self::new("serverUnavailable", "")
    }
}

/// One object of a set was not created, updated or destroyed.
#[derive(Debug)]
pub(crate) struct SetError {
    kind: &'static str,
    description: String,
    properties: Vec<String>,
}

impl SetError {
    pub fn new(kind: &'static str, description: impl Into<String>) -> Self {
        Self { kind, description: description.into(), properties: Vec::new() }
    }

    pub fn not_found() -> Self {
        Self::new("notFound", "")
    }

    /// `invalidProperties` that names one.
    pub fn property(name: &str, description: impl Into<String>) -> Self {
        Self { kind: "invalidProperties", description: description.into(), properties: vec![name.to_owned()] }
    }

    pub fn to_json(&self) -> Value {
        let mut error = json!({ "type": self.kind });
        if let Some(fields) = error.as_object_mut() {
            if !self.description.is_empty() {
                fields.insert("description".to_owned(), json!(self.description));
            }
            if !self.properties.is_empty() {
                fields.insert("properties".to_owned(), json!(self.properties));
            }
        }
        error
    }
}

impl From<StoreError> for SetError {
    fn from(error: StoreError) -> Self {
        let MethodError { kind, description } = error.into();
        Self::new(kind, description)
    }
}

impl From<AppendError> for SetError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::NoMailbox => Self::property("mailboxIds", "no such mailbox"),
            AppendError::OverQuota { .. } => Self::new("overQuota", error.to_string()),
            AppendError::Store(error) => error.into(),
        }
    }
}

impl From<MailboxError> for SetError {
    fn from(error: MailboxError) -> Self {
        match error {
            MailboxError::NoMailbox => Self::not_found(),
            MailboxError::Exists => Self::property("name", "a mailbox of that name exists"),
            MailboxError::Forbidden => Self::new("forbidden", error.to_string()),
            MailboxError::RoleTaken => Self::property("role", error.to_string()),
            MailboxError::TooMany => Self::new("overQuota", error.to_string()),
            MailboxError::Store(error) => error.into(),
        }
    }
}
