//! Expunged messages that can still be brought back.

use base::{AccountId, BlobId, MailboxId, ModSeq, Uid, UtcMillis};
use bytes::Bytes;

use super::entry::EmailId;
use super::flags::Flags;
use super::mailbox::{MailboxName, Role};

/// An expunged email, kept until the undelete window ends. It counts against no quota and no client sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Removed {
    pub email: EmailId,
    pub removed_at: UtcMillis,
    /// Name of the mailbox it lay in, as it was then.
    pub mailbox: MailboxName,
    pub flags: Flags,
    pub internal_date: UtcMillis,
    pub size_bytes: u64,
    pub blob: BlobId,
    pub prefix: Bytes,
    /// [`mail::mime::Summary::encode`] of the blob.
    pub summary: Bytes,
}

/// An email that is back. Its old id stays dead, so that clients that were told of its end take it for new.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    pub account: AccountId,
    /// Its id before it was expunged.
    pub was: EmailId,
    pub email: EmailId,
    pub mailbox: MailboxId,
    pub mailbox_name: MailboxName,
    pub uid: Uid,
    pub modseq: ModSeq,
}

/// A deleted mailbox, kept until the undelete window ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemovedMailbox {
    pub mailbox: MailboxId,
    /// As it was at its deletion.
    pub name: MailboxName,
    pub role: Option<Role>,
    pub subscribed: bool,
    /// Of the mailbox and of each email that went with it.
    pub removed_at: UtcMillis,
    /// Emails that went with it and can still be brought back.
    pub messages: u64,
    pub size_bytes: u64,
}
