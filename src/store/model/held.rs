//! Messages that are kept back from mailboxes until somebody says what becomes of them: the quarantine.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base::{AccountId, DomainId, MessageId, UtcMillis};
use bytes::Bytes;

use super::entry::{EmailId, Entry, StoredBlob};

/// What a list shows of a held message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HeldFacts {
    /// Why, as one stable word: who may release it follows from it.
    pub reason: String,
    /// Why, in words: one line.
    pub detail: String,
    /// Spam points in thousandths.
    pub score: i32,
    /// The reverse-path without brackets; empty for the null one.
    pub sender: String,
    /// The author as the message names him, decoded.
    pub author: String,
    /// Whom it was for.
    pub recipient: String,
    pub subject: String,
}

/// A message to hold. Holding the same (`account`, `message`) again changes nothing.
#[derive(Clone, Debug)]
pub struct NewHeld {
    pub account: AccountId,
    pub message: MessageId,
    /// The account's domain: whose administrators see it.
    pub domain: DomainId,
    pub facts: HeldFacts,
    pub blob: StoredBlob,
    /// Header lines with CRLF that only this recipient has.
    pub prefix: Bytes,
    /// [`mail::mime::Summary::encode`] of the blob.
    pub summary: Arc<[u8]>,
    pub held_at: UtcMillis,
    /// When it goes by itself.
    pub expires_at: UtcMillis,
}

/// Names a held message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct HeldId {
    pub account: AccountId,
    pub email: EmailId,
}

impl fmt::Display for HeldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.account.0, self.email.0)
    }
}

/// The text names no held message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not the name of a message in quarantine")]
pub struct InvalidHeldId;

impl FromStr for HeldId {
    type Err = InvalidHeldId;

    fn from_str(text: &str) -> Result<Self, InvalidHeldId> {
        let (account, email) = text.split_once('-').ok_or(InvalidHeldId)?;
        let number = |text: &str| text.parse().map_err(|_| InvalidHeldId);
        Ok(Self { account: AccountId(number(account)?), email: EmailId(number(email)?) })
    }
}

/// A held message. It is in no mailbox, and counts against no quota.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    pub id: HeldId,
    pub message: MessageId,
    pub domain: DomainId,
    pub facts: HeldFacts,
    pub size_bytes: u64,
    pub held_at: UtcMillis,
    pub expires_at: UtcMillis,
    /// When its owner was told of it.
    pub told_at: Option<UtcMillis>,
    /// When its owner asked for it.
    pub asked_at: Option<UtcMillis>,
}

/// A held message with the way to its content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldMessage {
    pub held: Held,
    /// As the entry that it would be; of no mailbox.
    pub entry: Entry,
}

/// Whose held messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HeldBy {
    Anybody,
    Account(AccountId),
    Domains(Vec<DomainId>),
}

/// Which held messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldFilter {
    pub by: HeldBy,
    pub reason: Option<String>,
    /// Somewhere in sender, author, recipient or subject, whatever the case.
    pub text: String,
    /// Those that their owners asked for.
    pub asked: bool,
    /// Those that their owners were not told of.
    pub untold: bool,
    pub since: Option<UtcMillis>,
}

impl HeldFilter {
    pub const fn of(by: HeldBy) -> Self {
        Self { by, reason: None, text: String::new(), asked: false, untold: false, since: None }
    }
}

/// What is noted of held messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeldNote {
    Told,
    Asked,
}
