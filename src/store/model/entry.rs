//! Entries: one message in one mailbox.

use std::sync::Arc;

use base::{AccountId, BlobId, MailboxId, MessageId, ModSeq, Uid, UidValidity, UtcMillis};
use bytes::Bytes;

use super::flags::Flags;
use super::mailbox::{MailboxName, Role};

/// JMAP's Email id and IMAP's EMAILID: names an entry within its account for good. A move keeps it, a copy gets a new one
/// (`maxMailboxesPerEmail` is 1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct EmailId(pub u64);

/// A conversation within an account: entries that refer to each other by Message-ID, In-Reply-To, References.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ThreadId(pub u64);

/// Content that is durable in the blob store. Only a [`crate::BlobStore`] makes one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredBlob {
    pub(crate) id: BlobId,
    /// Uncompressed.
    pub(crate) size_bytes: u64,
    /// Where the blob store put it; only it can read this.
    pub(crate) locator: Vec<u8>,
    /// BLAKE3 of the uncompressed content.
    pub(crate) digest: [u8; 32],
}

impl StoredBlob {
    pub const fn id(&self) -> BlobId {
        self.id
    }
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

/// Where a delivery goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// The mailbox with this role, made if the account lacks it.
    Role(Role),
    /// This mailbox if it exists, else the inbox (Sieve `fileinto`).
    Named(MailboxName),
}

/// One recipient's copy of an accepted message. Delivering the same (`account`, `message`) again changes nothing
/// and gives the first outcome: a retry after an unknown outcome makes no duplicate.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub account: AccountId,
    pub message: MessageId,
    pub target: Target,
    pub blob: StoredBlob,
    /// Header lines with CRLF that only this recipient has, put in front of the blob on reading.
    pub prefix: Bytes,
    /// [`mail::mime::Summary::encode`] of the blob.
    pub summary: Arc<[u8]>,
    pub flags: Flags,
    pub received_at: UtcMillis,
}

/// Proof that a delivery is on disk: only the store makes one, and only it can become a `250`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    pub(crate) account: AccountId,
    pub(crate) mailbox: MailboxId,
    pub(crate) mailbox_name: MailboxName,
    pub(crate) uid: Uid,
    pub(crate) modseq: ModSeq,
    pub(crate) email: EmailId,
}

impl Committed {
    pub const fn account(&self) -> AccountId {
        self.account
    }
    pub const fn mailbox(&self) -> MailboxId {
        self.mailbox
    }
    pub const fn mailbox_name(&self) -> &MailboxName {
        &self.mailbox_name
    }
    pub const fn uid(&self) -> Uid {
        self.uid
    }
    pub const fn modseq(&self) -> ModSeq {
        self.modseq
    }
    pub const fn email(&self) -> EmailId {
        self.email
    }
}

/// A message that a client puts into a mailbox itself (IMAP APPEND, JMAP Email/set and /import).
#[derive(Clone, Debug)]
pub struct NewEntry {
    pub blob: StoredBlob,
    pub summary: Arc<[u8]>,
    pub flags: Flags,
    pub internal_date: UtcMillis,
}

/// APPENDUID (RFC 4315).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AppendedEntry {
    pub uid_validity: UidValidity,
    pub uid: Uid,
    pub modseq: ModSeq,
    pub email: EmailId,
}

/// COPYUID (RFC 4315) of a copy or move: source and new UIDs in the same order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Copied {
    pub uid_validity: UidValidity,
    pub uids: Vec<(Uid, Uid)>,
    /// The account's mod-sequence after it.
    pub modseq: ModSeq,
}

/// What changes about an entry: the part of it that a view holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryState {
    pub uid: Uid,
    pub email: EmailId,
    pub modseq: ModSeq,
    pub flags: Flags,
}

/// Everything stored beside the content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub mailbox: MailboxId,
    pub uid: Uid,
    pub email: EmailId,
    pub thread: ThreadId,
    pub modseq: ModSeq,
    /// Mod-sequence at which the entry came into being.
    pub created_modseq: ModSeq,
    pub flags: Flags,
    pub internal_date: UtcMillis,
    /// As a client sees it: prefix and content.
    pub size_bytes: u64,
    pub blob: BlobId,
    pub prefix: Bytes,
    /// [`mail::mime::Summary::encode`]; its offsets count from the start of the blob, after `prefix`.
    pub summary: Bytes,
}
