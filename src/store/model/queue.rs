//! Messages on their way to somewhere else.

use std::sync::Arc;

use base::{AccountId, BlobId, MessageId, UtcMillis};
use bytes::Bytes;

use super::entry::StoredBlob;

/// Where a recipient's copy goes next, as routing names it: what shares a lane is tried together, one node at a time.
/// At most 300 octets.
pub type Lane = Arc<str>;

/// One copy of a message in the queue: recipients who get the same octets share it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueItem {
    pub message: MessageId,
    /// Tells apart copies of one message that differ.
    pub variant: u32,
    pub blob: BlobId,
    /// Of the blob, in octets.
    pub size_bytes: u64,
    /// Header lines before the content.
    pub prefix: Bytes,
    /// The reverse-path without brackets; empty for the null one.
    pub sender: String,
    /// Who sent it, if one of us.
    pub account: Option<AccountId>,
    pub needs: Needs,
    /// RFC 3461 §4.4, decoded.
    pub envelope_id: Option<String>,
    /// What a list shows: at most 200 characters.
    pub subject: String,
    pub created_at: UtcMillis,
}

/// What an item asks of whoever takes it, and of what is told about it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Needs {
    /// RFC 6531: an address or a header field is not ASCII.
    pub smtputf8: bool,
    /// RFC 8689: no hop without authenticated TLS.
    pub requiretls: bool,
    /// RFC 3461 §4.3: a notice of failure has the whole message.
    pub full_return: bool,
    /// RFC 3461 §4.3: a notice has the header alone.
    pub header_return: bool,
}

impl Needs {
    pub(crate) const fn bits(self) -> i64 {
        self.smtputf8 as i64
            | (self.requiretls as i64) << 1
            | (self.full_return as i64) << 2
            | (self.header_return as i64) << 3
    }

    pub(crate) const fn from_bits(bits: i64) -> Self {
        Self {
            smtputf8: bits & 1 != 0,
            requiretls: bits & 2 != 0,
            full_return: bits & 4 != 0,
            header_return: bits & 8 != 0,
        }
    }
}

/// What the sender wants to be told of a recipient (RFC 3461 §4.1). The default is what happens without the parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notify {
    pub success: bool,
    pub failure: bool,
    pub delay: bool,
}

impl Notify {
    pub const NEVER: Self = Self { success: false, failure: false, delay: false };

    pub(crate) const fn bits(self) -> i64 {
        self.success as i64 | (self.failure as i64) << 1 | (self.delay as i64) << 2
    }

    pub(crate) const fn from_bits(bits: i64) -> Self {
        Self { success: bits & 1 != 0, failure: bits & 2 != 0, delay: bits & 4 != 0 }
    }
}

impl Default for Notify {
    fn default() -> Self {
        Self { success: false, failure: true, delay: true }
    }
}

/// What is to become of a recipient.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum QueueState {
    /// Tried from [`QueueRecipient::next_at`] on.
    Waiting,
    /// Not tried until somebody releases it.
    Held,
    /// Given up by somebody's word: its sender is told at the next opportunity.
    Returning,
}

impl QueueState {
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Waiting, "waiting"), (Self::Held, "held"), (Self::Returning, "returning")];

    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("", |(_, name)| name)
    }

    pub(crate) const fn raw(self) -> i64 {
        match self {
            Self::Waiting => 0,
            Self::Held => 1,
            Self::Returning => 2,
        }
    }

    pub(crate) const fn from_raw(raw: i64) -> Option<Self> {
        match raw {
            0 => Some(Self::Waiting),
            1 => Some(Self::Held),
            2 => Some(Self::Returning),
            _ => None,
        }
    }
}

/// One recipient of an item.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueRecipient {
    /// Counted over all variants of the message.
    pub nth: u32,
    /// The forward-path without brackets.
    pub address: String,
    /// RFC 3461 §4.2, as it was given: `rfc822;ann@example.org`.
    pub original: Option<String>,
    pub notify: Notify,
    pub lane: Lane,
    /// Lower goes first; at most 9.
    pub priority: u8,
    pub state: QueueState,
    /// Not tried before.
    pub next_at: UtcMillis,
    /// When something is to be told or ended, whether it was tried or not: a delay, or the end of [`Self::expires_at`].
    pub alarm_at: UtcMillis,
    pub expires_at: UtcMillis,
    pub attempts: u32,
    pub last_at: Option<UtcMillis>,
    /// What came of the last attempt, or why it is held; at most 500 characters.
    pub last_status: String,
    /// Who said so: a host's name and address; empty before.
    pub last_host: String,
}

/// Put into the queue together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Enqueued {
    pub item: QueueItem,
    /// Where the content was put.
    pub blob: StoredBlob,
    /// At least one.
    pub recipients: Vec<QueueRecipient>,
}

/// A recipient with the item that it gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueJob {
    pub item: Arc<QueueItem>,
    pub recipient: QueueRecipient,
}

/// What was kept of a lane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneClaim {
    pub lane: Lane,
    /// Rises with each claim: who has an older one changes nothing.
    pub fence: i64,
    /// Attempts in a row that reached nobody.
    pub failures: u32,
    /// Until then nothing is tried.
    pub retry_at: UtcMillis,
}

/// How a lane is left.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LaneLeft {
    pub failures: u32,
    /// Until then nothing of the lane is tried; 0 if it may be.
    pub retry_at: UtcMillis,
    /// Why, at most 500 characters.
    pub reason: String,
    /// Something was done there: it is looked at again soon.
    pub is_warm: bool,
}

/// What became of a recipient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Settled {
    /// Delivered, bounced or expired: it is of no further interest here.
    Done { message: MessageId, nth: u32 },
    /// It stays, as it is given here. A state that somebody has set since stays too.
    Kept { message: MessageId, recipient: QueueRecipient },
}

/// Which recipients are meant; what is `None` does not matter.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct QueueFilter {
    pub message: Option<MessageId>,
    /// With `message`.
    pub nth: Option<u32>,
    /// An address, or `@domain`; in any case. Empty: the null reverse-path.
    pub sender: Option<String>,
    /// An address, or `@domain`; in any case.
    pub recipient: Option<String>,
    pub lane: Option<Lane>,
    pub state: Option<QueueState>,
    pub account: Option<AccountId>,
    /// Came before.
    pub before: Option<UtcMillis>,
    /// Part of [`QueueRecipient::last_status`], in any case.
    pub status: Option<String>,
    /// Part of the subject, in any case.
    pub subject: Option<String>,
}

/// What somebody does to recipients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum QueueAction {
    /// Tried at once, held or not, and whatever is known of its lane.
    Retry,
    /// With the reason.
    Hold(String),
    Release,
    /// By another lane, at once.
    Reroute(Lane),
    /// Its sender is told, with this reason.
    Return(String),
    /// Nobody is told.
    Delete,
}

/// Recipients that a count found.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct QueueCounts {
    pub waiting: u64,
    /// Of those waiting: their time has come.
    pub due: u64,
    pub held: u64,
    pub returning: u64,
    /// When the oldest of them came.
    pub oldest: Option<UtcMillis>,
}

/// A lane as it is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneState {
    pub lane: Lane,
    pub recipients: u64,
    /// The node that works on it, or did last; empty if none.
    pub holder: String,
    pub failures: u32,
    pub retry_at: UtcMillis,
    pub is_suspended: bool,
    pub reason: String,
}
