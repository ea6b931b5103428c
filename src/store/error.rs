//! What callers of the store act on.

use engine::EngineError;

use crate::model::OverQuota;

/// The store could not do it. Every variant leaves the store as it was.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No space: heals when some is freed (SMTP: 452 4.3.1).
    #[error("no space left in the store")]
    Full(#[source] EngineError),
    /// Not reachable now; the same call may succeed later (SMTP: 451 4.3.0).
    #[error("the store is unavailable")]
    Unavailable(#[source] EngineError),
    /// Stored content is lost or does not match its digest. Never retried; the auditor reports it.
    #[error("stored content is damaged: {what}")]
    Damaged { what: String },
}

impl From<EngineError> for StoreError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::DiskFull { .. } => Self::Full(error),
            EngineError::Damaged { .. } => Self::Damaged { what: error.to_string() },
            EngineError::InUse { .. }
            | EngineError::TooNew { .. }
            | EngineError::NetworkFilesystem { .. }
            | EngineError::Closing
            | EngineError::Io { .. }
            | EngineError::Postgres { .. }
            | EngineError::Failed { .. } => Self::Unavailable(error),
        }
    }
}

/// Why a message was not added to a mailbox.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    #[error("the mailbox does not exist")]
    NoMailbox,
    #[error("quota exceeded: {0}")]
    OverQuota(OverQuota),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<EngineError> for AppendError {
    fn from(error: EngineError) -> Self {
        Self::Store(error.into())
    }
}

/// Why a mailbox was not created, renamed or deleted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MailboxError {
    #[error("the mailbox does not exist")]
    NoMailbox,
    #[error("a mailbox of that name exists")]
    Exists,
    /// INBOX cannot be deleted, a mailbox cannot move below itself.
    #[error("not possible with this mailbox")]
    Forbidden,
    /// Another mailbox of the account has this special use.
    #[error("another mailbox has this special use")]
    RoleTaken,
    #[error("the account has too many mailboxes")]
    TooMany,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<EngineError> for MailboxError {
    fn from(error: EngineError) -> Self {
        Self::Store(error.into())
    }
}
