//! The seams: what an engine must do. Both engines pass the same contract tests.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use base::{AccountId, BlobId, MailboxId, MessageId, ModSeq, PoolId, Quota, Uid, UtcMillis};
use bytes::Bytes;

use crate::error::{AppendError, MailboxError, StoreError};
use crate::model::{
    AppendedEntry, Changes, Committed, Copied, Delivery, EmailChanges, EmailId, Enqueued, Entry, EntryState,
    FlagChange, FlagOutcome, Held, HeldFilter, HeldId, HeldMessage, HeldNote, Lane, LaneClaim, LaneLeft, LaneState,
    Mailbox, MailboxName, NewEntry, NewHeld, OwnerVerdict, PoolUsage, QueueAction, QueueCounts, QueueFilter, QueueJob,
    Removed, RemovedMailbox, Restored, Role, Settled, StoredBlob, ThreadId, Usage,
};

/// Immutable content.
#[async_trait]
pub trait BlobStore: Send + Sync {
    /// Stores the concatenation of `pieces`. On return it is durable; until an entry refers to it, it is an orphan that
    /// garbage collection may take after its grace period; the mail store takes it for new entries for twelve hours.
    async fn put(&self, pieces: Vec<Bytes>) -> Result<StoredBlob, StoreError>;

    /// [`StoreError::Full`] while too little space is left for anything new: for whoever asks before content comes.
    fn check_room(&self) -> Result<(), StoreError>;

    /// [`BlobStore::put`] of content that has this id elsewhere: the caller knows that it is not here.
    async fn put_as(&self, id: BlobId, pieces: Vec<Bytes>) -> Result<StoredBlob, StoreError>;

    /// Bytes `range` of the uncompressed content; shorter if the content ends before. Cost follows the range.
    async fn read(&self, blob: BlobId, range: Range<u64>) -> Result<Bytes, StoreError>;
}

/// Mailboxes and entries. Every change of an account is one transaction that first locks the account, takes UIDs and
/// mod-sequences inside it, and is on disk when the call returns. After its commit it calls [`crate::Signals::publish`].
/// UID sets are sorted ranges as a session made them; UIDs that do not exist are ignored.
#[async_trait]
pub trait MailStore: Send + Sync {
    /// The account's mailboxes by name; makes the initial ones ([`Role::INITIAL`]) for an account never seen before.
    async fn mailboxes(&self, account: AccountId) -> Result<Vec<Mailbox>, StoreError>;
    async fn mailbox(&self, account: AccountId, name: &MailboxName) -> Result<Option<Mailbox>, StoreError>;
    /// Parents that do not exist are made too (RFC 9051 §6.3.4).
    async fn create_mailbox(
        &self,
        account: AccountId,
        name: &MailboxName,
        role: Option<Role>,
    ) -> Result<Mailbox, MailboxError>;
    /// Children move along. Renaming INBOX moves its messages into a new mailbox (RFC 9051 §6.3.6).
    async fn rename_mailbox(
        &self,
        account: AccountId,
        from: &MailboxName,
        to: &MailboxName,
    ) -> Result<(), MailboxError>;
    /// With all its entries; children stay.
    async fn delete_mailbox(&self, account: AccountId, name: &MailboxName) -> Result<(), MailboxError>;
    /// Names that do not exist can be unsubscribed; subscribing to one is [`MailboxError::NoMailbox`].
    async fn subscribe(&self, account: AccountId, name: &MailboxName, subscribed: bool) -> Result<(), MailboxError>;

    /// Adds all deliveries of one message, each in its own account. They succeed or fail one by one, in order.
    async fn deliver(&self, deliveries: Vec<Delivery>) -> Vec<Result<Committed, AppendError>>;
    /// Adds a client's messages to a mailbox: all or none.
    async fn append(
        &self,
        account: AccountId,
        mailbox: MailboxId,
        entries: Vec<NewEntry>,
    ) -> Result<Vec<AppendedEntry>, AppendError>;

    /// State of every entry of a mailbox, by rising UID, with the mod-sequence it is as of: to build a view.
    async fn states(&self, account: AccountId, mailbox: MailboxId) -> Result<Option<Changes>, StoreError>;
    /// What happened after `since`. `None` if the mailbox is gone or the log no longer reaches back so far.
    async fn changes_since(
        &self,
        account: AccountId,
        mailbox: MailboxId,
        since: ModSeq,
    ) -> Result<Option<Changes>, StoreError>;
    /// Entries of the UIDs, by rising UID, at most `limit` of them: the caller goes on from the last.
    async fn entries(
        &self,
        account: AccountId,
        mailbox: MailboxId,
        uids: Vec<std::ops::RangeInclusive<Uid>>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError>;

    /// Changes flags of the UIDs; entries whose mod-sequence is above `unchanged_since` are left and reported.
    async fn set_flags(
        &self,
        account: AccountId,
        mailbox: MailboxId,
        uids: Vec<std::ops::RangeInclusive<Uid>>,
        change: FlagChange,
        unchanged_since: Option<ModSeq>,
    ) -> Result<FlagOutcome, StoreError>;
    /// Copies entries into another mailbox of the account, or the same.
    async fn copy(
        &self,
        account: AccountId,
        from: MailboxId,
        uids: Vec<std::ops::RangeInclusive<Uid>>,
        to: MailboxId,
    ) -> Result<Copied, AppendError>;
    /// Moves entries in one step; email and thread ids stay.
    async fn r#move(
        &self,
        account: AccountId,
        from: MailboxId,
        uids: Vec<std::ops::RangeInclusive<Uid>>,
        to: MailboxId,
    ) -> Result<Copied, AppendError>;
    /// Removes the UIDs; with `only_deleted`, those of them flagged `\Deleted`. Gives the UIDs removed, rising.
    /// They can be brought back until the undelete window ends: [`MailStore::removed`].
    async fn expunge(
        &self,
        account: AccountId,
        mailbox: MailboxId,
        uids: Vec<std::ops::RangeInclusive<Uid>>,
        only_deleted: bool,
    ) -> Result<(Vec<Uid>, ModSeq), StoreError>;

    /// The account's mod-sequence: JMAP's state.
    async fn modseq(&self, account: AccountId) -> Result<ModSeq, StoreError>;
    /// Emails by id, in the order asked; missing ones are left out.
    async fn emails(&self, account: AccountId, ids: Vec<EmailId>) -> Result<Vec<Entry>, StoreError>;
    /// Mailbox and state of every email of the account or of one mailbox, newest `internal_date` first.
    async fn email_states(&self, account: AccountId, mailbox: Option<MailboxId>)
    -> Result<Vec<EmailState>, StoreError>;
    /// Emails of a thread, oldest first.
    async fn thread(&self, account: AccountId, thread: ThreadId) -> Result<Vec<EmailId>, StoreError>;
    /// `None` if the log no longer reaches back to `since`.
    async fn email_changes(
        &self,
        account: AccountId,
        since: ModSeq,
        limit: usize,
    ) -> Result<Option<EmailChanges>, StoreError>;
    /// Ids of mailboxes destroyed after `since`; `None` if the log no longer reaches back.
    async fn mailboxes_destroyed(
        &self,
        account: AccountId,
        since: ModSeq,
    ) -> Result<Option<Vec<MailboxId>>, StoreError>;

    /// What the account uses, and its limit.
    async fn usage(&self, account: AccountId) -> Result<Usage, StoreError>;
    /// Sets what all messages of the account may take together; what is there already stays.
    async fn set_quota(&self, account: AccountId, quota: Quota) -> Result<(), StoreError>;
    /// Sets the pools that the account draws on, instead of those it had. What it holds counts in them at once.
    async fn set_pools(&self, account: AccountId, pools: Vec<PoolId>) -> Result<(), StoreError>;
    /// Sets what all accounts of a pool may hold together; what is there already stays.
    async fn set_pool(&self, pool: PoolId, limit: Quota) -> Result<(), StoreError>;
    /// What a pool's accounts use: cost follows their number.
    async fn pool(&self, pool: PoolId) -> Result<PoolUsage, StoreError>;

    /// Expunged emails that can still be brought back, the latest removal first, at most `limit`.
    async fn removed(&self, account: AccountId, limit: usize) -> Result<Vec<Removed>, StoreError>;
    /// Those expunged emails that went with a deleted mailbox, by rising id from above `after`, at most `limit`.
    async fn removed_with(
        &self,
        account: AccountId,
        gone: &RemovedMailbox,
        after: EmailId,
        limit: usize,
    ) -> Result<Vec<EmailId>, StoreError>;
    /// Deleted mailboxes, the latest deletion first, each with what of it can still be brought back.
    async fn removed_mailboxes(&self, account: AccountId) -> Result<Vec<RemovedMailbox>, StoreError>;
    /// Brings expunged emails back, all or none and without `\Deleted`: into `into`, else where each of them lay.
    /// Mailboxes that are gone are made again. Gives those that were still there to bring back, in the order asked.
    async fn restore(
        &self,
        account: AccountId,
        emails: Vec<EmailId>,
        into: Option<MailboxName>,
    ) -> Result<Vec<Restored>, AppendError>;
    /// Ends the undelete window of these expunged emails, or of all: nothing brings them back. Gives how many.
    async fn purge(&self, account: AccountId, emails: Option<Vec<EmailId>>) -> Result<u64, StoreError>;

    /// What owners said of messages, of all accounts, the oldest first, at most `limit`.
    async fn owner_verdicts(&self, limit: usize) -> Result<Vec<OwnerVerdict>, StoreError>;
    /// These were learned. What an owner has said of the same message since stays.
    async fn settle_verdicts(&self, done: Vec<OwnerVerdict>) -> Result<(), StoreError>;

    /// Removes everything an account has, for good. Its blobs are released to garbage collection.
    async fn delete_account(&self, account: AccountId) -> Result<(), StoreError>;
}

/// Messages on their way to somewhere else. It belongs to no node: lanes are held for a while by who works on them, and a
/// change by who has lost its lane is refused. Times are of the caller's clock, leases of the engine's.
#[async_trait]
pub trait QueueStore: Send + Sync {
    /// Adds all, or none; what is there already (by message and variant) stays as it is. On return it is on disk.
    async fn enqueue(&self, entries: Vec<Enqueued>) -> Result<(), StoreError>;
    /// Takes up to `limit` lanes that are due, those that wait longest first. The cost follows what is due.
    async fn claim_lanes(&self, holder: &str, lease: Duration, limit: usize) -> Result<Vec<LaneClaim>, StoreError>;
    /// Holds lanes for longer; says of each whether to go on: it may be lost, or suspended.
    async fn keep_lanes(&self, claims: Vec<LaneClaim>, lease: Duration) -> Result<Vec<bool>, StoreError>;
    /// Lets go of all lanes that a holder has, for it has just begun and knows nothing of them.
    async fn give_up_lanes(&self, holder: &str) -> Result<(), StoreError>;
    /// Recipients of a lane to be tried now, by priority and time, at most `limit`.
    async fn due(&self, lane: Lane, limit: usize) -> Result<Vec<QueueJob>, StoreError>;
    /// Recipients of a lane to be given up or told of now, at most `limit`.
    async fn alarms(&self, lane: Lane, limit: usize) -> Result<Vec<QueueJob>, StoreError>;
    /// Writes down what became of recipients, and puts messages that follow from it into the queue, all in one; false if
    /// the lane is another's: then nothing was written. It may be asked for again.
    async fn settle(&self, claim: &LaneClaim, settled: Vec<Settled>, fresh: Vec<Enqueued>) -> Result<bool, StoreError>;
    /// Lets go of a lane; it is due when something in it is.
    async fn leave_lane(&self, claim: &LaneClaim, left: LaneLeft) -> Result<(), StoreError>;

    /// Recipients by rising message and number from after a key, at most `limit`.
    async fn queued(
        &self,
        filter: &QueueFilter,
        after: Option<(MessageId, u32)>,
        limit: usize,
    ) -> Result<Vec<QueueJob>, StoreError>;
    async fn queue_counts(&self, filter: &QueueFilter) -> Result<QueueCounts, StoreError>;
    /// Does something to the next recipients from after a key; gives how many, and where to go on.
    async fn queue_act(
        &self,
        filter: &QueueFilter,
        action: QueueAction,
        after: Option<(MessageId, u32)>,
    ) -> Result<(u64, Option<(MessageId, u32)>), StoreError>;
    /// Lanes by name from after one, at most `limit`.
    async fn lanes(&self, after: Option<Lane>, limit: usize) -> Result<Vec<LaneState>, StoreError>;
    /// Nothing of a lane is tried until it is resumed (`None`). What is under way goes on to its end: whoever holds the
    /// lane is told at the next [`QueueStore::keep_lanes`].
    async fn suspend_lane(&self, lane: &Lane, reason: Option<String>) -> Result<(), StoreError>;
    /// Forgets lanes without recipients where nothing was done since `before`.
    async fn tidy_lanes(&self, before: UtcMillis) -> Result<usize, StoreError>;
}

/// The quarantine: messages that are in no mailbox until somebody says what becomes of them. Each change is one transaction
/// of one account.
#[async_trait]
pub trait HeldStore: Send + Sync {
    /// Keeps messages back, each for its account; one by one they succeed or fail. On return they are on disk. What is held
    /// already stays as it is.
    async fn hold(&self, new: Vec<NewHeld>) -> Vec<Result<HeldId, AppendError>>;
    /// The newest first, from after a key on, at most `limit`.
    async fn held(
        &self,
        filter: &HeldFilter,
        before: Option<(UtcMillis, HeldId)>,
        limit: usize,
    ) -> Result<Vec<Held>, StoreError>;
    /// How many there are, by reason.
    async fn held_counts(&self, filter: &HeldFilter) -> Result<Vec<(String, u64)>, StoreError>;
    async fn held_message(&self, id: HeldId) -> Result<Option<HeldMessage>, StoreError>;
    /// Notes something of held messages, now; gives how many were there.
    async fn note_held(&self, ids: Vec<HeldId>, note: HeldNote) -> Result<u64, StoreError>;
    /// Moves a held message into the mailbox with this role: it is in one of both places, never in two. `None`: it is not
    /// held, or not any more.
    async fn release_held(&self, id: HeldId, role: Role) -> Result<Option<Committed>, AppendError>;
    /// Lets held messages go for good; gives how many there were.
    async fn drop_held(&self, ids: Vec<HeldId>) -> Result<u64, StoreError>;
    /// Those whose time is over, at most `limit`.
    async fn expired_held(&self, limit: usize) -> Result<Vec<HeldId>, StoreError>;
}

/// Where blobs lie and which are still needed: kept by the mail store in the transactions that make and drop entries,
/// asked by the blob store and by garbage collection.
#[async_trait]
pub trait BlobIndex: Send + Sync {
    /// A blob that an entry refers to, or did until lately.
    async fn locate(&self, blob: BlobId) -> Result<Option<StoredBlob>, StoreError>;
    /// Blobs with locators in the half-open range, in the order of locators.
    async fn located(&self, from: Vec<u8>, below: Vec<u8>, limit: usize) -> Result<Vec<StoredBlob>, StoreError>;
    /// The highest locator below this one. Blocks: for opening a blob store.
    fn last_located(&self, below: Vec<u8>) -> Result<Option<Vec<u8>>, StoreError>;
    /// Says that blobs were copied; gives how many were still where they are said to come from.
    async fn relocate(&self, moved: Vec<Relocation>) -> Result<usize, StoreError>;
    /// Takes up to `limit` blobs off the list of those released up to `before`. Gives how many were on it, and those of
    /// them that nothing refers to: their rows are gone, their bytes are garbage.
    async fn take_released(&self, before: UtcMillis, limit: usize) -> Result<(usize, Vec<StoredBlob>), StoreError>;
    /// Records of blobs whose rows are gone, from a place on, in the order of locators: still to be overwritten.
    async fn erasable(&self, from: Vec<u8>, limit: usize) -> Result<Vec<(BlobId, Vec<u8>)>, StoreError>;
    /// Says that the records at these locators are overwritten, or gone.
    async fn erased(&self, locators: Vec<Vec<u8>>) -> Result<(), StoreError>;
    /// Forgets up to `limit` deliveries older than `before`: a retry that late makes a duplicate.
    async fn forget_deliveries(&self, before: UtcMillis, limit: usize) -> Result<usize, StoreError>;
    /// Ends the undelete window of up to `limit` emails expunged before `before`; gives how many.
    async fn forget_removed(&self, before: UtcMillis, limit: usize) -> Result<usize, StoreError>;
    /// Drops thread keys without emails of the next accounts after number `after`; gives the last one seen.
    async fn forget_threads(&self, after: u64, accounts: usize) -> Result<Option<u64>, StoreError>;
}

/// A blob's move within the blob store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relocation {
    pub blob: BlobId,
    pub from: Vec<u8>,
    pub to: Vec<u8>,
}

/// What JMAP queries filter and sort by without opening summaries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EmailState {
    pub mailbox: MailboxId,
    pub thread: ThreadId,
    pub internal_date: UtcMillis,
    pub size_bytes: u64,
    pub state: EntryState,
}
