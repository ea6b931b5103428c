//! Reads of entries.

use std::ops::RangeInclusive;

use base::{AccountId, MailboxId, ModSeq, Uid, UtcMillis};
use rusqlite::{Connection, OptionalExtension, Result};

use super::log;
use super::rows::{self, ENTRY_COLUMNS, MAILBOX_COLUMNS, STATE_COLUMNS};
use crate::model::{Changes, EmailId, Entry, Mailbox, ThreadId};
use crate::traits::EmailState;

/// An account never seen is as new as can be.
pub(super) fn modseq(sql: &Connection, account: AccountId) -> Result<ModSeq> {
    let found = sql
        .prepare_cached("SELECT modseq FROM account WHERE account_id = ?1")?
        .query_row([account.0], |row| rows::modseq(row, 0))
        .optional()?;
    Ok(found.unwrap_or(ModSeq::MIN))
}

pub(super) fn mailbox(sql: &Connection, account: AccountId, mailbox: MailboxId) -> Result<Option<Mailbox>> {
    let text = format!("SELECT {MAILBOX_COLUMNS} FROM mailbox WHERE account_id = ?1 AND mailbox_id = ?2");
    sql.prepare_cached(&text)?.query_row((account.0, mailbox.0), rows::mailbox).optional()
}

/// Where a mailbox stands: the frame of every answer about its changes.
fn position(sql: &Connection, account: AccountId, mailbox: MailboxId) -> Result<Option<(ModSeq, Uid)>> {
    sql.prepare_cached("SELECT highest_modseq, uid_next FROM mailbox WHERE account_id = ?1 AND mailbox_id = ?2")?
        .query_row((account.0, mailbox.0), |row| Ok((rows::modseq(row, 0)?, rows::uid(row, 1)?)))
        .optional()
}

pub(super) fn states(sql: &Connection, account: AccountId, mailbox: MailboxId) -> Result<Option<Changes>> {
    let sql = &sql.unchecked_transaction()?;
    let Some((highest_modseq, uid_next)) = position(sql, account, mailbox)? else { return Ok(None) };
    let text = format!("SELECT {STATE_COLUMNS} FROM entry WHERE account_id = ?1 AND mailbox_id = ?2 ORDER BY uid");
    let changed = sql
        .prepare_cached(&text)?
        .query_map((account.0, mailbox.0), |row| rows::state(row, 0))?
        .collect::<Result<_>>()?;
    Ok(Some(Changes { changed, vanished: Vec::new(), highest_modseq, uid_next }))
}

pub(super) fn changes_since(
    sql: &Connection,
    account: AccountId,
    mailbox: MailboxId,
    since: ModSeq,
) -> Result<Option<Changes>> {
    let sql = &sql.unchecked_transaction()?;
    let Some((highest_modseq, uid_next)) = position(sql, account, mailbox)? else { return Ok(None) };
    let mut changes = Changes { changed: Vec::new(), vanished: Vec::new(), highest_modseq, uid_next };
    if highest_modseq <= since {
        return Ok(Some(changes));
    }
    if !log::reaches(sql, account, since)? {
        return Ok(None);
    }
    let text = format!(
        "SELECT {STATE_COLUMNS} FROM entry INDEXED BY entry_modseq
         WHERE account_id = ?1 AND modseq > ?3 AND mailbox_id = ?2 ORDER BY uid"
    );
    changes.changed = sql
        .prepare_cached(&text)?
        .query_map((account.0, mailbox.0, since.as_raw()), |row| rows::state(row, 0))?
        .collect::<Result<_>>()?;
    changes.vanished = sql
        .prepare_cached(
            "SELECT uid FROM vanished WHERE account_id = ?1 AND modseq > ?3 AND mailbox_id = ?2 ORDER BY uid",
        )?
        .query_map((account.0, mailbox.0, since.as_raw()), |row| rows::uid(row, 0))?
        .collect::<Result<_>>()?;
    Ok(Some(changes))
}

pub(super) fn entries(
    sql: &Connection,
    account: AccountId,
    mailbox: MailboxId,
    uids: &[RangeInclusive<Uid>],
    limit: usize,
) -> Result<Vec<Entry>> {
    let text = format!(
        "SELECT {ENTRY_COLUMNS} FROM entry JOIN content USING (content_id)
         WHERE entry.account_id = ?1 AND mailbox_id = ?2 AND uid BETWEEN ?3 AND ?4 ORDER BY uid LIMIT ?5"
    );
    let mut query = sql.prepare_cached(&text)?;
    let mut out = Vec::new();
    for range in uids {
        let left = limit.saturating_sub(out.len());
        if left == 0 {
            break;
        }
        let bounds = (account.0, mailbox.0, range.start().as_raw(), range.end().as_raw(), left);
        for entry in query.query_map(bounds, rows::entry)? {
            out.push(entry?);
        }
    }
    Ok(out)
}

pub(super) fn emails(sql: &Connection, account: AccountId, ids: &[EmailId]) -> Result<Vec<Entry>> {
    let text = format!(
        "SELECT {ENTRY_COLUMNS} FROM entry JOIN content USING (content_id)
         WHERE entry.account_id = ?1 AND email_id = ?2"
    );
    let mut query = sql.prepare_cached(&text)?;
    let mut out = Vec::with_capacity(ids.len());
    for id in ids {
        out.extend(query.query_row((account.0, id.0), rows::entry).optional()?);
    }
    Ok(out)
}

pub(super) fn email_states(
    sql: &Connection,
    account: AccountId,
    mailbox: Option<MailboxId>,
) -> Result<Vec<EmailState>> {
    let (lowest, highest) = mailbox.map_or((0, u32::MAX), |mailbox| (mailbox.0, mailbox.0));
    let text = format!(
        "SELECT mailbox_id, thread_id, internal_date, size_bytes, {STATE_COLUMNS} FROM entry
         WHERE account_id = ?1 AND mailbox_id BETWEEN ?2 AND ?3"
    );
    let mut found = sql
        .prepare_cached(&text)?
        .query_map((account.0, lowest, highest), |row| {
            Ok(EmailState {
                mailbox: MailboxId(row.get(0)?),
                thread: ThreadId(row.get(1)?),
                internal_date: UtcMillis(row.get(2)?),
                size_bytes: row.get(3)?,
                state: rows::state(row, 4)?,
            })
        })?
        .collect::<Result<Vec<_>>>()?;
    found.sort_by_key(|email| std::cmp::Reverse((email.internal_date, email.state.email)));
    Ok(found)
}

pub(super) fn thread(sql: &Connection, account: AccountId, thread: ThreadId) -> Result<Vec<EmailId>> {
    sql.prepare_cached(
        "SELECT email_id, internal_date FROM entry WHERE account_id = ?1 AND email_id = ?2
         UNION ALL
         SELECT email_id, internal_date FROM entry WHERE account_id = ?1 AND thread_id = ?2 AND thread_id <> email_id
         ORDER BY internal_date, email_id",
    )?
    .query_map((account.0, thread.0), |row| row.get(0).map(EmailId))?
    .collect()
}
