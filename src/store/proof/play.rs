//! Plays scripts on a store and looks at what it shows afterwards.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, ByteSize, FakeClock, MessageId, Quota, Uid, UtcMillis};
use bytes::Bytes;

use super::model::{Model, Op, PREFIX, Seen, letter, summary};
use crate::contract::{EVERYTHING, NOW, Random, Subject, name, uid};
use crate::error::{AppendError, MailboxError, StoreError};
use crate::model::{Delivery, EmailId, Entry, Flags, NewEntry, Target};
use crate::storage::{Kept, Storage};

/// The operations of one actor, the same whenever they are asked for: each follows from the seed and the model before it.
#[derive(Clone)]
pub(crate) struct Script {
    random: u64,
    /// Nobody else is at work in the store.
    is_alone: bool,
}

impl Script {
    pub(crate) const fn new(seed: u64, is_alone: bool) -> Self {
        Self { random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, is_alone }
    }

    pub(crate) fn next(&mut self, model: &Model) -> Op {
        let mut random = Random(self.random);
        let op = model.random_op(&mut random, self.is_alone);
        self.random = random.0;
        op
    }
}

/// Who plays on an engine.
#[derive(Clone)]
pub(crate) struct Player {
    pub subject: Subject,
    /// For what concerns all accounts: garbage collection and, of the embedded engine, snapshots.
    pub storage: Option<Arc<Storage>>,
    pub clock: Arc<FakeClock>,
    /// When message ids are made.
    pub born: UtcMillis,
    /// Where snapshots go.
    pub folder: std::path::PathBuf,
}

/// The caller does not know whether it happened.
#[derive(Debug, thiserror::Error)]
#[error("unknown outcome: {0}")]
pub(crate) struct Unknown(pub StoreError);

impl From<StoreError> for Unknown {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

fn range((low, high): (u32, u32)) -> Vec<RangeInclusive<Uid>> {
    vec![uid(low)..=uid(high)]
}

/// True if done, false if refused as the model says it must be.
fn judge<T>(done: Result<T, AppendError>, is_expected: bool, op: &Op) -> Result<Option<T>, Unknown> {
    match done {
        Ok(value) => {
            assert!(is_expected, "should have been refused: {op:?}");
            Ok(Some(value))
        }
        Err(AppendError::Store(error)) => Err(Unknown(error)),
        Err(error) => {
            assert!(!is_expected, "{op:?}: {error}");
            Ok(None)
        }
    }
}

fn done<T>(result: Result<T, MailboxError>, op: &Op) -> Result<T, Unknown> {
    match result {
        Ok(value) => Ok(value),
        Err(MailboxError::Store(error)) => Err(Unknown(error)),
        Err(error) => panic!("{op:?}: {error}"),
    }
}

impl Player {
    /// Does `op` on an account that is as `model` says; gives the account's state after it.
    pub(crate) async fn perform(&self, model: &Model, op: &Op) -> Result<Model, Unknown> {
        let (mail, account) = (&self.subject.mail, model.account);
        let after = model.after(op).pop().expect("an operation has an outcome");
        let changes = after.seen() != model.seen();
        let id = async |folder: &str| -> Result<base::MailboxId, Unknown> {
            let found = mail.mailbox(account, &name(folder)).await?;
            Ok(found.unwrap_or_else(|| panic!("{op:?}: {folder} is not there")).id)
        };
        match op {
            Op::Deliver { number, folder } => {
                self.deliver(model, *number, folder, changes, op).await?;
            }
            Op::Again => {
                if let Some((number, folder)) = model.last() {
                    // Refused for want of room before: may be refused again, or find its room now.
                    let is_there = model.holds(number);
                    if is_there {
                        self.deliver(model, number, &folder, true, op).await?;
                    }
                }
            }
            Op::Append { folder, numbers, system } => {
                let mut entries = Vec::new();
                for number in numbers {
                    let text = letter(account, *number);
                    entries.push(NewEntry {
                        summary: summary(&text),
                        blob: self.subject.blobs.put(vec![Bytes::from(text)]).await?,
                        flags: Flags::system(*system),
                        internal_date: NOW,
                    });
                }
                judge(mail.append(account, id(folder).await?, entries).await, changes, op)?;
            }
            Op::Flags { folder, uids, change } => {
                mail.set_flags(account, id(folder).await?, range(*uids), change.clone(), None).await?;
            }
            Op::Copy { from, uids, to } => {
                let copied = mail.copy(account, id(from).await?, range(*uids), id(to).await?).await;
                judge(copied, changes || model.finds(from, *uids) == 0, op)?;
            }
            Op::Move { from, uids, to } => {
                judge(mail.r#move(account, id(from).await?, range(*uids), id(to).await?).await, true, op)?;
            }
            Op::Expunge { folder, uids, only_deleted } => {
                mail.expunge(account, id(folder).await?, range(*uids), *only_deleted).await?;
            }
            Op::Create(folder) => drop(done(mail.create_mailbox(account, &name(folder), None).await, op)?),
            Op::Rename { from, to } => done(mail.rename_mailbox(account, &name(from), &name(to)).await, op)?,
            Op::Delete(folder) => done(mail.delete_mailbox(account, &name(folder)).await, op)?,
            Op::Restore { emails, into } => {
                let ids = emails.iter().map(|email| EmailId(*email)).collect();
                let back = mail.restore(account, ids, into.as_deref().map(name)).await;
                judge(back, changes || !model.has_gone(emails), op)?;
            }
            Op::Purge(emails) => {
                let emails = emails.as_ref().map(|some| some.iter().map(|email| EmailId(*email)).collect());
                mail.purge(account, emails).await?;
            }
            Op::Quota(quota) => {
                let quota = Quota { size: quota.map(ByteSize), messages: None };
                mail.set_quota(account, quota).await?;
            }
            Op::Collect { is_late } => self.collect(*is_late).await?,
            Op::Snapshot => {
                if let Some(storage) = self.storage.as_ref().filter(|it| matches!(it.kept, Kept::Embedded { .. })) {
                    let to = tempfile::tempdir_in(&self.folder).expect("a folder for the snapshot");
                    storage.snapshot(to.path()).await?;
                }
            }
        }
        Ok(after)
    }

    /// The message id follows from account and number, as a sender that tries again keeps it.
    async fn deliver(&self, model: &Model, number: u32, folder: &str, fits: bool, op: &Op) -> Result<(), Unknown> {
        let account = model.account;
        let text = letter(account, number);
        let delivery = Delivery {
            account,
            message: MessageId::from_u128(
                (u128::try_from(self.born.0).unwrap_or(0) << 80) + (u128::from(account.0) << 32) + u128::from(number),
            ),
            target: Target::Named(name(folder)),
            summary: summary(&text),
            blob: self.subject.blobs.put(vec![Bytes::from(text)]).await?,
            prefix: Bytes::from_static(PREFIX),
            flags: Flags::default(),
            received_at: NOW,
        };
        judge(self.subject.mail.deliver(vec![delivery]).await.remove(0), fits, op).map(drop)
    }

    /// Rounds of garbage collection until there is no more to do.
    pub(crate) async fn collect(&self, is_late: bool) -> Result<(), Unknown> {
        let Some(storage) = &self.storage else { return Ok(()) };
        // Late: the undelete window ends first, then the grace period of what that released.
        for span in spans(is_late) {
            self.clock.advance(span);
            for _ in 0..10 {
                if !storage.gc().await?.has_more {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Everything that can be seen of the account. Every letter is read and must be the whole of itself.
    pub(crate) async fn look(&self, account: AccountId) -> Result<Seen, Unknown> {
        let mail = &self.subject.mail;
        let mut seen = Seen::default();
        for mailbox in mail.mailboxes(account).await? {
            let mut letters = BTreeMap::new();
            for entry in mail.entries(account, mailbox.id, vec![EVERYTHING], 10_000).await? {
                let number = self.read(account, &entry).await?;
                letters.insert(entry.uid.as_raw(), (entry.email.0, number, entry.flags));
            }
            assert_eq!(mailbox.messages as usize, letters.len(), "counter of {:?}", mailbox.name);
            seen.folders.insert(mailbox.name.as_str().to_owned(), (mailbox.uid_next.as_raw(), letters));
        }
        for gone in mail.removed(account, 10_000).await? {
            let text = self.subject.blobs.read(gone.blob, 0..u64::MAX).await?;
            seen.gone.insert(gone.email.0, (gone.mailbox.as_str().to_owned(), whole(account, &text), gone.flags));
        }
        let usage = mail.usage(account).await?;
        (seen.messages, seen.size_bytes) = (usage.messages, usage.size.0);
        seen.quota = usage.quota.size.map(|quota| quota.0);
        Ok(seen)
    }

    async fn read(&self, account: AccountId, entry: &Entry) -> Result<u32, Unknown> {
        let text = self.subject.blobs.read(entry.blob, 0..u64::MAX).await?;
        let number = whole(account, &text);
        assert_eq!(entry.summary[..], summary(&text)[..], "summary of letter {number}");
        assert_eq!(entry.size_bytes, (entry.prefix.len() + text.len()) as u64, "size of letter {number}");
        assert!(entry.prefix.is_empty() || entry.prefix == PREFIX, "prefix of letter {number}");
        Ok(number)
    }
}

/// How far the clock goes before each half of a collection.
fn spans(is_late: bool) -> [Duration; 2] {
    let hour = 3600;
    if is_late { [15 * 24 * hour, 2 * 24 * hour] } else { [hour, hour] }.map(Duration::from_secs)
}

/// How far `op` lets the clock go.
pub(crate) fn span(op: &Op) -> Duration {
    match op {
        Op::Collect { is_late } => spans(*is_late).iter().sum(),
        _ => Duration::ZERO,
    }
}

/// The number of a letter that is this account's and whole.
fn whole(account: AccountId, text: &[u8]) -> u32 {
    let head = String::from_utf8_lossy(&text[..text.len().min(40)]).into_owned();
    let start = format!("Subject: {} ", account.0);
    let number = head.strip_prefix(&start).and_then(|rest| rest.split("\r\n").next()).and_then(|n| n.parse().ok());
    let number: u32 = number.unwrap_or_else(|| panic!("not a letter of account {}: {head}", account.0));
    assert!(text == letter(account, number), "letter {number} of account {} is not whole", account.0);
    number
}
