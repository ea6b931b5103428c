//! Changes, as CONDSTORE, QRESYNC (RFC 7162) and JMAP see them.

use base::{ModSeq, Uid};

use super::entry::{EmailId, EntryState};
use super::flags::Flags;

/// What happened in a mailbox after a mod-sequence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changes {
    /// New and changed entries, by rising UID.
    pub changed: Vec<EntryState>,
    /// UIDs gone, rising.
    pub vanished: Vec<Uid>,
    /// The mailbox's highest mod-sequence these changes lead to.
    pub highest_modseq: ModSeq,
    pub uid_next: Uid,
}

/// What happened to an account's emails after a mod-sequence (JMAP Email/changes).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EmailChanges {
    pub created: Vec<EmailId>,
    pub updated: Vec<EmailId>,
    pub destroyed: Vec<EmailId>,
    pub new_state: ModSeq,
    /// True if `limit` cut the answer off at `new_state`.
    pub has_more: bool,
}

/// What STORE does to the flags of each entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FlagChange {
    Replace(Flags),
    Add(Flags),
    Remove(Flags),
}

/// Result of a conditional flag change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlagOutcome {
    /// New state of every entry that was addressed, exists and passed the condition, by rising UID.
    pub changed: Vec<EntryState>,
    /// UIDs whose mod-sequence was above UNCHANGEDSINCE; left alone.
    pub modified: Vec<Uid>,
    /// The account's mod-sequence after it.
    pub modseq: ModSeq,
}

/// Kinds of change that a signal may carry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Change {
    Emails,
    Mailboxes,
}
