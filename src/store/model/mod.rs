//! The words of the store.

mod change;
mod entry;
mod flags;
mod held;
mod mailbox;
mod queue;
pub(crate) mod quota;
mod removed;
mod verdict;

pub use change::{Change, Changes, EmailChanges, FlagChange, FlagOutcome};
pub use entry::{
    AppendedEntry, Committed, Copied, Delivery, EmailId, Entry, EntryState, NewEntry, StoredBlob, Target, ThreadId,
};
pub use flags::{Flags, InvalidKeyword, Keyword, SystemFlags};
pub use held::{Held, HeldBy, HeldFacts, HeldFilter, HeldId, HeldMessage, HeldNote, InvalidHeldId, NewHeld};
pub use mailbox::{InvalidMailboxName, Mailbox, MailboxName, Role};
pub use queue::{
    Enqueued, Lane, LaneClaim, LaneLeft, LaneState, Needs, Notify, QueueAction, QueueCounts, QueueFilter, QueueItem,
    QueueJob, QueueRecipient, QueueState, Settled,
};
pub use quota::{OverQuota, PoolUsage, Usage};
pub use removed::{Removed, RemovedMailbox, Restored};
pub use verdict::OwnerVerdict;
pub(crate) use verdict::{of_flags, of_move};
