//! Rows to domain types and back. A row that cannot be one of ours is reported as damage, never guessed at.

use base::{BlobId, MailboxId, ModSeq, Uid, UidValidity, UtcMillis};
use bytes::Bytes;
use rusqlite::types::Type;
use rusqlite::{Error, Result, Row};

use crate::model::{
    EmailId, Entry, EntryState, Flags, Keyword, Mailbox, MailboxName, Role, StoredBlob, SystemFlags, ThreadId,
};

pub(super) fn unreadable(column: usize, what: &'static str) -> Error {
    Error::FromSqlConversionFailure(column, Type::Null, what.into())
}

pub(super) fn uid(row: &Row<'_>, column: usize) -> Result<Uid> {
    Uid::new(row.get(column)?).ok_or_else(|| unreadable(column, "uid 0"))
}

pub(super) fn modseq(row: &Row<'_>, column: usize) -> Result<ModSeq> {
    ModSeq::new(row.get(column)?).ok_or_else(|| unreadable(column, "mod-sequence 0"))
}

pub(super) fn blob_id(row: &Row<'_>, column: usize) -> Result<BlobId> {
    Ok(BlobId::from_bytes(row.get(column)?))
}

/// From columns `column` (system) and the next (keywords).
pub(super) fn flags(row: &Row<'_>, column: usize) -> Result<Flags> {
    let mut flags = Flags::system(SystemFlags::from_bits(row.get(column)?));
    if let Some(text) = row.get_ref(column + 1)?.as_str_or_null().map_err(|_| unreadable(column + 1, "keywords"))? {
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
pub(super) fn state(row: &Row<'_>, column: usize) -> Result<EntryState> {
    Ok(EntryState {
        uid: uid(row, column)?,
        email: EmailId(row.get(column + 1)?),
        modseq: modseq(row, column + 2)?,
        flags: flags(row, column + 3)?,
    })
}

pub(super) const ENTRY_COLUMNS: &str = "mailbox_id, uid, email_id, thread_id, modseq, created_modseq, system, keywords, \
     internal_date, size_bytes, blob_id, prefix, summary";

/// From [`ENTRY_COLUMNS`].
pub(super) fn entry(row: &Row<'_>) -> Result<Entry> {
    Ok(Entry {
        mailbox: MailboxId(row.get(0)?),
        uid: uid(row, 1)?,
        email: EmailId(row.get(2)?),
        thread: ThreadId(row.get(3)?),
        modseq: modseq(row, 4)?,
        created_modseq: modseq(row, 5)?,
        flags: flags(row, 6)?,
        internal_date: UtcMillis(row.get(8)?),
        size_bytes: row.get(9)?,
        blob: blob_id(row, 10)?,
        prefix: Bytes::from(row.get::<_, Vec<u8>>(11)?),
        summary: Bytes::from(row.get::<_, Vec<u8>>(12)?),
    })
}

pub(super) const MAILBOX_COLUMNS: &str = "mailbox_id, name, role, uid_validity, uid_next, highest_modseq, changed_modseq, \
     created_modseq, messages, unseen, deleted, size_bytes, \
     EXISTS (SELECT 1 FROM subscription s WHERE s.account_id = mailbox.account_id AND s.name = mailbox.name)";

/// From [`MAILBOX_COLUMNS`].
pub(super) fn mailbox(row: &Row<'_>) -> Result<Mailbox> {
    Ok(Mailbox {
        id: MailboxId(row.get(0)?),
        name: name(row, 1)?,
        role: row.get_ref(2)?.as_str_or_null().ok().flatten().and_then(Role::from_name),
        uid_validity: UidValidity::new(row.get(3)?).ok_or_else(|| unreadable(3, "uidvalidity 0"))?,
        uid_next: uid(row, 4)?,
        highest_modseq: modseq(row, 5)?,
        changed_modseq: modseq(row, 6)?,
        created_modseq: modseq(row, 7)?,
        messages: row.get(8)?,
        unseen: row.get(9)?,
        deleted: row.get(10)?,
        size_bytes: row.get(11)?,
        subscribed: row.get(12)?,
    })
}

pub(super) fn name(row: &Row<'_>, column: usize) -> Result<MailboxName> {
    let text = row.get_ref(column)?.as_str().map_err(|_| unreadable(column, "mailbox name"))?;
    text.parse().map_err(|_| unreadable(column, "mailbox name"))
}

pub(super) const BLOB_COLUMNS: &str = "blob_id, locator, size_bytes, digest";

/// From [`BLOB_COLUMNS`].
pub(super) fn stored_blob(row: &Row<'_>) -> Result<StoredBlob> {
    Ok(StoredBlob { id: blob_id(row, 0)?, locator: row.get(1)?, size_bytes: row.get(2)?, digest: row.get(3)? })
}
