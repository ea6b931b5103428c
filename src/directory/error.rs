//! What callers of the directory act on.

use std::time::Duration;

use engine::EngineError;

use crate::legacy::Elsewhere;

/// A lookup could not be answered. Never "no": mail is deferred, nobody is refused.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the directory is unavailable")]
pub struct DirectoryError(#[from] pub EngineError);

/// Why nobody was signed in.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoginError {
    /// Unknown login, wrong password or a disabled account: the caller must not say which.
    /// The caller waits `delay` before it answers.
    #[error("authentication failed")]
    Refused { delay: Duration },
    /// The password is right, and the account has a second factor: its code is missing.
    #[error("a code of the second factor is needed")]
    SecondFactor,
    /// Too many failures from this network: refuse at once, without a look at the password.
    #[error("too many failed attempts")]
    TooMany,
    /// The account's mailbox is on a legacy server: that one is to be asked.
    #[error("the mailbox is on the legacy server {}", .0.server.name)]
    Elsewhere(Box<Elsewhere>),
    #[error(transparent)]
    Unavailable(#[from] DirectoryError),
}

/// Why the registry was not changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// `what` names the kind and the thing: "the account anna@example.test".
    #[error("{what} exists already")]
    Exists { what: String },
    #[error("{what} does not exist")]
    Missing { what: String },
    /// `why` says what stands in the way and the next step.
    #[error("{why}")]
    Refused { why: String },
    #[error(transparent)]
    Unavailable(#[from] EngineError),
}
