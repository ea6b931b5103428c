//! Rows to domain types and back. A row that cannot be one of ours is reported as damage, never guessed at.

use base::{BlobId, ByteSize, MailboxId, ModSeq, Quota, Uid, UidValidity, UtcMillis};
use bytes::Bytes;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::error::StoreError;
use crate::model::{EmailId, Entry, EntryState, Flags, Keyword, Mailbox, MailboxName, Role, SystemFlags, ThreadId};

type Result<T> = std::result::Result<T, StoreError>;

pub(super) fn unreadable(what: &str) -> StoreError {
    StoreError::Damaged { what: format!("postgresql: {what}") }
}

pub(super) fn value<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T> {
    row.try_get(column).map_err(|error| unreadable(&error.to_string()))
}

pub(super) fn signed(row: &Row, column: usize) -> Result<i64> {
    value(row, column)
}

pub(super) fn int(row: &Row, column: usize) -> Result<u64> {
    u64::try_from(signed(row, column)?).map_err(|_| unreadable("a number below zero"))
}

pub(super) fn small(row: &Row, column: usize) -> Result<u32> {
    u32::try_from(signed(row, column)?).map_err(|_| unreadable("a number out of range"))
}

/// For a parameter: no count of ours comes near the bound.
pub(super) fn param(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn limit(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// From two columns: octets and messages.
pub(super) fn quota(row: &Row, column: usize) -> Result<Quota> {
    let limit =
        |column| -> Result<Option<u64>> { value::<Option<i64>>(row, column)?.map(|_| int(row, column)).transpose() };
    Ok(Quota { size: limit(column)?.map(ByteSize), messages: limit(column + 1)? })
}

pub(super) fn bytes(row: &Row, column: usize) -> Result<Bytes> {
    value::<&[u8]>(row, column).map(Bytes::copy_from_slice)
}

pub(super) fn uid(row: &Row, column: usize) -> Result<Uid> {
    Uid::new(small(row, column)?).ok_or_else(|| unreadable("uid 0"))
}

pub(super) fn new_uid(raw: u32) -> Result<Uid> {
    Uid::new(raw).ok_or_else(|| unreadable("uid 0"))
}

pub(super) fn modseq(row: &Row, column: usize) -> Result<ModSeq> {
    new_modseq(int(row, column)?)
}

pub(super) fn new_modseq(raw: u64) -> Result<ModSeq> {
    ModSeq::new(raw).ok_or_else(|| unreadable("mod-sequence 0"))
}

pub(super) fn uid_validity(row: &Row, column: usize) -> Result<UidValidity> {
    UidValidity::new(small(row, column)?).ok_or_else(|| unreadable("uidvalidity 0"))
}

pub(super) fn mailbox_id(row: &Row, column: usize) -> Result<MailboxId> {
    small(row, column).map(MailboxId)
}

pub(super) fn blob_id(row: &Row, column: usize) -> Result<BlobId> {
    let raw = value::<&[u8]>(row, column)?.try_into().map_err(|_| unreadable("blob id"))?;
    Ok(BlobId::from_bytes(raw))
}

pub(super) fn system(row: &Row, column: usize) -> Result<SystemFlags> {
    let bits = u8::try_from(signed(row, column)?).map_err(|_| unreadable("system flags"))?;
    Ok(SystemFlags::from_bits(bits))
}

/// From columns `column` (system) and the next (keywords).
pub(super) fn flags(row: &Row, column: usize) -> Result<Flags> {
    let mut flags = Flags::system(system(row, column)?);
    if let Some(text) = value::<Option<&str>>(row, column + 1)? {
        flags.keywords = text.split(' ').filter_map(|word| word.parse::<Keyword>().ok()).collect();
    }
    Ok(flags)
}

pub(super) fn keywords(flags: &Flags) -> Option<String> {
    if flags.keywords.is_empty() {
        return None;
    }
    let words: Vec<&str> = flags.keywords.iter().map(Keyword::as_str).collect();
    Some(words.join(" "))
}

pub(super) const STATE_COLUMNS: &str = "uid, email_id, modseq, system, keywords";

/// From [`STATE_COLUMNS`], starting at `column`.
pub(super) fn state(row: &Row, column: usize) -> Result<EntryState> {
    Ok(EntryState {
        uid: uid(row, column)?,
        email: EmailId(int(row, column + 1)?),
        modseq: modseq(row, column + 2)?,
        flags: flags(row, column + 3)?,
    })
}

pub(super) const ENTRY_COLUMNS: &str = "mailbox_id, uid, email_id, thread_id, modseq, created_modseq, system, keywords, \
     internal_date, size_bytes, blob_id, prefix, summary";

/// From [`ENTRY_COLUMNS`].
pub(super) fn entry(row: &Row) -> Result<Entry> {
    Ok(Entry {
        mailbox: mailbox_id(row, 0)?,
        uid: uid(row, 1)?,
        email: EmailId(int(row, 2)?),
        thread: ThreadId(int(row, 3)?),
        modseq: modseq(row, 4)?,
        created_modseq: modseq(row, 5)?,
        flags: flags(row, 6)?,
        internal_date: UtcMillis(signed(row, 8)?),
        size_bytes: int(row, 9)?,
        blob: blob_id(row, 10)?,
        prefix: bytes(row, 11)?,
        summary: bytes(row, 12)?,
    })
}

pub(super) const MAILBOX_COLUMNS: &str = "mailbox_id, name, role, uid_validity, uid_next, highest_modseq, changed_modseq, \
     created_modseq, messages, unseen, deleted, size_bytes, \
     EXISTS (SELECT 1 FROM subscription s WHERE s.account_id = mailbox.account_id AND s.name = mailbox.name)";

/// From [`MAILBOX_COLUMNS`].
pub(super) fn mailbox(row: &Row) -> Result<Mailbox> {
    Ok(Mailbox {
        id: mailbox_id(row, 0)?,
        name: name(row, 1)?,
        role: value::<Option<&str>>(row, 2)?.and_then(Role::from_name),
        uid_validity: uid_validity(row, 3)?,
        uid_next: uid(row, 4)?,
        highest_modseq: modseq(row, 5)?,
        changed_modseq: modseq(row, 6)?,
        created_modseq: modseq(row, 7)?,
        messages: small(row, 8)?,
        unseen: small(row, 9)?,
        deleted: small(row, 10)?,
        size_bytes: int(row, 11)?,
        subscribed: value(row, 12)?,
    })
}

pub(super) fn name(row: &Row, column: usize) -> Result<MailboxName> {
    value::<&str>(row, column)?.parse().map_err(|_| unreadable("mailbox name"))
}
