//! New entries: deliveries and what clients append.

use base::{AccountId, BlobId, MailboxId, MessageId, ModSeq, Uid, UidValidity, UtcMillis};
use rusqlite::{Connection, OptionalExtension, Result};

use super::thread::{self, ThreadKeys};
use super::{Outcome, Refusal, account, blobs, mailboxes, rows};
use crate::error::AppendError;
use crate::model::{
    AppendedEntry, Committed, Delivery, EmailId, Flags, MailboxName, NewEntry, StoredBlob, SystemFlags, Target,
};

/// A delivery with what could be worked out before the transaction.
pub(super) struct Prepared {
    delivery: Delivery,
    keys: ThreadKeys,
}

/// A client's message with what could be worked out before the transaction.
pub(super) struct PreparedOwn {
    entry: NewEntry,
    keys: ThreadKeys,
}

pub(super) fn prepare(delivery: Delivery) -> Prepared {
    let keys = ThreadKeys::of(&delivery.summary);
    Prepared { delivery, keys }
}

pub(super) fn prepare_own(entry: NewEntry) -> PreparedOwn {
    let keys = ThreadKeys::of(&entry.summary);
    PreparedOwn { entry, keys }
}

/// Adds one delivery, or finds that it was made before. An error other than SQL's leaves nothing behind.
pub(super) fn deliver(sql: &Connection, prepared: &Prepared, now: UtcMillis) -> Outcome<Committed, AppendError> {
    let Prepared { delivery, keys } = prepared;
    let account = delivery.account;
    if let Some(first) = delivered_before(sql, account, delivery.message)? {
        return Ok(first);
    }
    blobs::refuse_stale(sql, &delivery.blob, now)?;
    let size_bytes = size_of(&delivery.blob, delivery.prefix.len());
    let room = match account::take_room(sql, account, 1, size_bytes, now) {
        Err(Refusal::Because(AppendError::NoMailbox)) => {
            account::ensure(sql, account, now)?;
            account::take_room(sql, account, 1, size_bytes, now)?
        }
        room => room?,
    };
    let mailbox = match &delivery.target {
        Target::Role(role) => mailboxes::with_role(sql, account, *role, now)?,
        Target::Named(name) => match mailboxes::id_of_name(sql, account, name)? {
            Some(found) => found,
            None => mailboxes::with_role(sql, account, crate::model::Role::Inbox, now)?,
        },
    };
    let counted = Counted::of([(&delivery.flags, size_bytes)]);
    let admitted =
        admit(sql, account, mailbox, &counted, room.modseq)?.ok_or(Refusal::Because(AppendError::NoMailbox))?;
    let fresh = Fresh {
        account,
        mailbox,
        uid: admitted.first_uid,
        email: room.email,
        modseq: room.modseq,
        blob: &delivery.blob,
        prefix: &delivery.prefix,
        summary: &delivery.summary,
        flags: &delivery.flags,
        internal_date: delivery.received_at,
    };
    insert(sql, &fresh, keys)?;
    sql.prepare_cached(
        "INSERT INTO delivered (message_id, account_id, mailbox_id, uid, modseq, email_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute((delivery.message.to_bytes(), account.0, mailbox.0, fresh.uid, room.modseq, room.email))?;
    Ok(Committed {
        account,
        mailbox,
        mailbox_name: admitted.name,
        uid: Uid::new(fresh.uid).ok_or_else(|| rows::unreadable(0, "uid 0"))?,
        modseq: ModSeq::new(room.modseq).ok_or_else(|| rows::unreadable(0, "mod-sequence 0"))?,
        email: EmailId(room.email),
    })
}

fn delivered_before(sql: &Connection, account: AccountId, message: MessageId) -> Result<Option<Committed>> {
    sql.prepare_cached(
        "SELECT d.mailbox_id, d.uid, d.modseq, d.email_id, coalesce(m.name, 'INBOX') FROM delivered d
         LEFT JOIN mailbox m ON m.account_id = d.account_id AND m.mailbox_id = d.mailbox_id
         WHERE d.message_id = ?1 AND d.account_id = ?2",
    )?
    .query_row((message.to_bytes(), account.0), |row| {
        Ok(Committed {
            account,
            mailbox: MailboxId(row.get(0)?),
            uid: rows::uid(row, 1)?,
            modseq: rows::modseq(row, 2)?,
            email: EmailId(row.get(3)?),
            mailbox_name: rows::name(row, 4)?,
        })
    })
    .optional()
}

/// Adds a client's messages, all or none.
pub(super) fn append(
    sql: &Connection,
    account: AccountId,
    mailbox: MailboxId,
    entries: &[PreparedOwn],
    now: UtcMillis,
) -> Outcome<Vec<AppendedEntry>, AppendError> {
    account::ensure(sql, account, now)?;
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    for own in entries {
        blobs::refuse_stale(sql, &own.entry.blob, now)?;
    }
    let counted = Counted::of(entries.iter().map(|own| (&own.entry.flags, own.entry.blob.size_bytes)));
    let room = account::take_room(sql, account, counted.messages, counted.size_bytes, now)?;
    let last_modseq = room.modseq + counted.messages - 1;
    let admitted =
        admit(sql, account, mailbox, &counted, last_modseq)?.ok_or(Refusal::Because(AppendError::NoMailbox))?;
    let mut out = Vec::with_capacity(entries.len());
    for (own, nth) in entries.iter().zip(0u32..) {
        let fresh = Fresh {
            account,
            mailbox,
            uid: admitted.first_uid + nth,
            email: room.email + u64::from(nth),
            modseq: room.modseq + u64::from(nth),
            blob: &own.entry.blob,
            prefix: &[],
            summary: &own.entry.summary,
            flags: &own.entry.flags,
            internal_date: own.entry.internal_date,
        };
        insert(sql, &fresh, &own.keys)?;
        out.push(AppendedEntry {
            uid_validity: admitted.uid_validity,
            uid: Uid::new(fresh.uid).ok_or_else(|| rows::unreadable(0, "uid 0"))?,
            modseq: ModSeq::new(fresh.modseq).ok_or_else(|| rows::unreadable(0, "mod-sequence 0"))?,
            email: EmailId(fresh.email),
        });
    }
    Ok(out)
}

pub(crate) fn size_of(blob: &StoredBlob, prefix_len: usize) -> u64 {
    blob.size_bytes + prefix_len as u64
}

/// What entries add to the counters of a mailbox.
#[derive(Default, Clone, Copy)]
pub(crate) struct Counted {
    pub messages: u64,
    pub unseen: u64,
    pub deleted: u64,
    pub size_bytes: u64,
}

impl Counted {
    pub(crate) fn of<'a>(entries: impl IntoIterator<Item = (&'a Flags, u64)>) -> Self {
        let mut sum = Self::default();
        for (flags, size_bytes) in entries {
            sum.add(flags.system, size_bytes);
        }
        sum
    }

    pub(crate) fn add(&mut self, system: SystemFlags, size_bytes: u64) {
        self.messages += 1;
        self.unseen += u64::from(!system.contains(SystemFlags::SEEN));
        self.deleted += u64::from(system.contains(SystemFlags::DELETED));
        self.size_bytes += size_bytes;
    }
}

/// A mailbox that made room for entries.
pub(super) struct Admitted {
    pub first_uid: u32,
    pub uid_validity: UidValidity,
    pub name: MailboxName,
}

/// Takes UIDs and counts the entries in; `None` if there is no such mailbox.
pub(super) fn admit(
    sql: &Connection,
    account: AccountId,
    mailbox: MailboxId,
    counted: &Counted,
    last_modseq: u64,
) -> Result<Option<Admitted>> {
    sql.prepare_cached(
        "UPDATE mailbox SET uid_next = uid_next + ?3, messages = messages + ?3, unseen = unseen + ?4,
         deleted = deleted + ?5, size_bytes = size_bytes + ?6, highest_modseq = ?7, changed_modseq = ?7
         WHERE account_id = ?1 AND mailbox_id = ?2 RETURNING uid_next - ?3, uid_validity, name",
    )?
    .query_row(
        (account.0, mailbox.0, counted.messages, counted.unseen, counted.deleted, counted.size_bytes, last_modseq),
        |row| {
            Ok(Admitted {
                first_uid: row.get(0)?,
                uid_validity: UidValidity::new(row.get(1)?).ok_or_else(|| rows::unreadable(1, "uidvalidity 0"))?,
                name: rows::name(row, 2)?,
            })
        },
    )
    .optional()
}

struct Fresh<'a> {
    account: AccountId,
    mailbox: MailboxId,
    uid: u32,
    email: u64,
    modseq: u64,
    blob: &'a StoredBlob,
    prefix: &'a [u8],
    summary: &'a [u8],
    flags: &'a Flags,
    internal_date: UtcMillis,
}

fn insert(sql: &Connection, fresh: &Fresh<'_>, keys: &ThreadKeys) -> Result<()> {
    blobs::refer(sql, fresh.blob)?;
    let thread = thread::join(sql, fresh.account.0, keys, fresh.email)?;
    let content = insert_content(sql, fresh.account, fresh.blob.id, fresh.prefix, fresh.summary)?;
    sql.prepare_cached(
        "INSERT INTO entry (account_id, mailbox_id, uid, email_id, thread_id, modseq, created_modseq, system, keywords,
         internal_date, size_bytes, content_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute((
        fresh.account.0,
        fresh.mailbox.0,
        fresh.uid,
        fresh.email,
        thread,
        fresh.modseq,
        fresh.flags.system.bits(),
        rows::keywords(&limited(fresh.flags)),
        fresh.internal_date.0,
        size_of(fresh.blob, fresh.prefix.len()),
        content,
    ))
    .map(drop)
}

pub(super) fn insert_content(
    sql: &Connection,
    account: AccountId,
    blob: BlobId,
    prefix: &[u8],
    summary: &[u8],
) -> Result<i64> {
    sql.prepare_cached("INSERT INTO content (account_id, blob_id, prefix, summary) VALUES (?1, ?2, ?3, ?4)")?.insert((
        account.0,
        blob.to_bytes(),
        prefix,
        summary,
    ))
}

/// At most [`Flags::KEYWORDS_MAX`] keywords: those beyond are not kept.
pub(crate) fn limited(flags: &Flags) -> std::borrow::Cow<'_, Flags> {
    if flags.keywords.len() <= Flags::KEYWORDS_MAX {
        return std::borrow::Cow::Borrowed(flags);
    }
    let keywords = flags.keywords.iter().take(Flags::KEYWORDS_MAX).cloned().collect();
    std::borrow::Cow::Owned(Flags { system: flags.system, keywords })
}
