//! Tagged answers, and how errors below become wire text. The text is bland: detail goes to the log.

use std::borrow::Cow;

use store::{AppendError, MailboxError, StoreError};

/// How a command ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    pub status: Status,
    /// Without its brackets.
    pub code: Option<Cow<'static, str>>,
    pub text: Cow<'static, str>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    Ok,
    No,
    Bad,
}

impl Reply {
    pub const fn ok(text: &'static str) -> Self {
        Self { status: Status::Ok, code: None, text: Cow::Borrowed(text) }
    }

    pub const fn no(code: &'static str, text: &'static str) -> Self {
        Self { status: Status::No, code: Some(Cow::Borrowed(code)), text: Cow::Borrowed(text) }
    }

    pub const fn bad(text: &'static str) -> Self {
        Self { status: Status::Bad, code: None, text: Cow::Borrowed(text) }
    }

    #[must_use]
    pub fn with_code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// RFC 5530 §3; what to do differs from NONEXISTENT for commands that could create the mailbox first.
    pub const fn try_create() -> Self {
        Self::no("TRYCREATE", "No such mailbox")
    }

    pub const fn unavailable() -> Self {
        Self::no("UNAVAILABLE", "Store is not available, try later")
    }

    pub const fn no_mailbox() -> Self {
        Self::no("NONEXISTENT", "No such mailbox")
    }

    pub const fn bad_name() -> Self {
        Self::no("CANNOT", "Not a possible mailbox name")
    }

    pub fn write(&self, out: &mut Vec<u8>, tag: &str) {
        out.extend_from_slice(tag.as_bytes());
        out.extend_from_slice(match self.status {
            Status::Ok => b" OK ",
            Status::No => b" NO ",
            Status::Bad => b" BAD ",
        });
        if let Some(code) = &self.code {
            out.push(b'[');
            out.extend_from_slice(code.as_bytes());
            out.extend_from_slice(b"] ");
        }
        out.extend_from_slice(self.text.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

impl From<StoreError> for Reply {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full(_) => Self::no("UNAVAILABLE", "No space left, try later"),
            StoreError::Unavailable(_) => Self::unavailable(),
            StoreError::Damaged { .. } => Self::no("SERVERBUG", "Stored content is damaged"),
        }
    }
}

impl From<AppendError> for Reply {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::NoMailbox => Self::try_create(),
            AppendError::OverQuota { .. } => Self::no("OVERQUOTA", "Quota exceeded"),
            AppendError::Store(error) => error.into(),
        }
    }
}

impl From<MailboxError> for Reply {
    fn from(error: MailboxError) -> Self {
        match error {
            MailboxError::NoMailbox => Self::no_mailbox(),
            MailboxError::Exists => Self::no("ALREADYEXISTS", "Mailbox exists"),
            MailboxError::Forbidden => Self::no("CANNOT", "Not possible with this mailbox"),
            MailboxError::RoleTaken => Self::no("USEATTR", "Another mailbox has this special use"),
            MailboxError::TooMany => Self::no("LIMIT", "Too many mailboxes"),
            MailboxError::Store(error) => error.into(),
        }
    }
}
