//! Expunged emails within their undelete window: listed, brought back, let go.

use base::{AccountId, MailboxId, ModSeq, Uid, UtcMillis};
use bytes::Bytes;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Result, Row};

use super::insert::{self, Counted};
use super::thread::{self, ThreadKeys};
use super::{Outcome, Refusal, account, blobs, mailboxes, rows};
use crate::error::{AppendError, MailboxError};
use crate::model::{EmailId, Flags, MailboxName, Removed, RemovedMailbox, Restored, Role, SystemFlags};

/// Emails let go in one transaction.
const STEP: usize = 1000;

/// Keeps an entry (account, mailbox, UID) as expunged at the fourth parameter.
pub(super) fn keep(sql: &Connection) -> Result<CachedStatement<'_>> {
    sql.prepare_cached(
        "INSERT INTO removed (account_id, email_id, removed_at, mailbox_id, mailbox_name, system, keywords,
         internal_date, size_bytes, content_id)
         SELECT e.account_id, e.email_id, ?4, e.mailbox_id, m.name, e.system, e.keywords, e.internal_date, e.size_bytes,
         e.content_id FROM entry e
         JOIN mailbox m ON m.account_id = e.account_id AND m.mailbox_id = e.mailbox_id
         WHERE e.account_id = ?1 AND e.mailbox_id = ?2 AND e.uid = ?3",
    )
}

pub(super) fn list(sql: &Connection, account: AccountId, limit: usize) -> Result<Vec<Removed>> {
    let mut query = sql.prepare_cached(
        "SELECT email_id, removed_at, mailbox_name, system, keywords, internal_date, size_bytes, blob_id, prefix, summary
         FROM removed JOIN content USING (content_id)
         WHERE removed.account_id = ?1 ORDER BY removed_at DESC, email_id DESC LIMIT ?2",
    )?;
    query.query_map((account.0, limit), removed)?.collect()
}

/// What went with a mailbox at one moment, from above `after` on.
pub(super) fn of_mailbox(
    sql: &Connection,
    account: AccountId,
    (mailbox, removed_at): (MailboxId, UtcMillis),
    after: EmailId,
    limit: usize,
) -> Result<Vec<EmailId>> {
    sql.prepare_cached(
        "SELECT email_id FROM removed WHERE account_id = ?1 AND email_id > ?2 AND mailbox_id = ?3 AND removed_at = ?4
         ORDER BY email_id LIMIT ?5",
    )?
    .query_map((account.0, after.0, mailbox.0, removed_at.0, limit), |row| row.get(0).map(EmailId))?
    .collect()
}

fn removed(row: &Row<'_>) -> Result<Removed> {
    Ok(Removed {
        email: EmailId(row.get(0)?),
        removed_at: UtcMillis(row.get(1)?),
        mailbox: rows::name(row, 2)?,
        flags: rows::flags(row, 3)?,
        internal_date: UtcMillis(row.get(5)?),
        size_bytes: row.get(6)?,
        blob: rows::blob_id(row, 7)?,
        prefix: Bytes::from(row.get::<_, Vec<u8>>(8)?),
        summary: Bytes::from(row.get::<_, Vec<u8>>(9)?),
    })
}

pub(super) fn mailboxes(sql: &Connection, account: AccountId) -> Result<Vec<RemovedMailbox>> {
    let mut query = sql.prepare_cached(
        "SELECT m.mailbox_id, m.name, m.role, m.subscribed, m.removed_at, count(r.email_id), coalesce(sum(r.size_bytes), 0)
         FROM removed_mailbox m LEFT JOIN removed r
         ON r.account_id = m.account_id AND r.mailbox_id = m.mailbox_id AND r.removed_at = m.removed_at
         WHERE m.account_id = ?1 GROUP BY m.mailbox_id ORDER BY m.removed_at DESC, m.name",
    )?;
    let mailbox = |row: &Row<'_>| {
        Ok(RemovedMailbox {
            mailbox: MailboxId(row.get(0)?),
            name: rows::name(row, 1)?,
            role: row.get_ref(2)?.as_str_or_null().ok().flatten().and_then(Role::from_name),
            subscribed: row.get(3)?,
            removed_at: UtcMillis(row.get(4)?),
            messages: row.get(5)?,
            size_bytes: row.get(6)?,
        })
    };
    query.query_map([account.0], mailbox)?.collect()
}

/// What is brought back.
struct Back {
    was: u64,
    mailbox: MailboxId,
    name: MailboxName,
    flags: Flags,
    size_bytes: u64,
    keys: ThreadKeys,
}

pub(super) fn restore(
    sql: &Connection,
    account: AccountId,
    emails: &[EmailId],
    into: Option<&MailboxName>,
    now: UtcMillis,
) -> Outcome<Vec<Restored>, AppendError> {
    account::ensure(sql, account, now)?;
    let mut out = Vec::new();
    for email in emails {
        let Some(back) = find(sql, account, *email)? else { continue };
        let mailbox = match into {
            Some(name) => by_name(sql, account, name, now)?,
            None if mailboxes::exists(sql, account, back.mailbox)? => back.mailbox,
            None => by_name(sql, account, &back.name, now)?,
        };
        out.push(bring_back(sql, account, &back, mailbox, now)?);
    }
    Ok(out)
}

fn find(sql: &Connection, account: AccountId, email: EmailId) -> Result<Option<Back>> {
    let mut query = sql.prepare_cached(
        "SELECT mailbox_id, mailbox_name, system, keywords, size_bytes, summary
         FROM removed JOIN content USING (content_id) WHERE removed.account_id = ?1 AND email_id = ?2",
    )?;
    let back = |row: &Row<'_>| {
        Ok(Back {
            was: email.0,
            mailbox: MailboxId(row.get(0)?),
            name: rows::name(row, 1)?,
            flags: kept(rows::flags(row, 2)?),
            size_bytes: row.get(4)?,
            keys: ThreadKeys::of(&row.get::<_, Vec<u8>>(5)?),
        })
    };
    query.query_row((account.0, email.0), back).optional()
}

/// Without `\Deleted`: with it, the next EXPUNGE would take the message again.
pub(crate) fn kept(mut flags: Flags) -> Flags {
    flags.system = flags.system.without(SystemFlags::DELETED);
    flags
}

/// The mailbox of this name, made if need be. A name that has its role by custom gets it.
fn by_name(
    sql: &Connection,
    account: AccountId,
    name: &MailboxName,
    now: UtcMillis,
) -> Outcome<MailboxId, AppendError> {
    if let Some(found) = mailboxes::id_of_name(sql, account, name)? {
        return Ok(found);
    }
    let custom = Role::INITIAL.into_iter().find(|(_, usual)| *usual == name.as_str()).map(|(role, _)| role);
    let role = match custom {
        Some(role) if mailboxes::id_of_role(sql, account, role)?.is_none() => Some(role),
        _ => None,
    };
    match mailboxes::create(sql, account, name, role, now) {
        Ok(made) => Ok(made.id),
        Err(Refusal::Sql(error)) => Err(Refusal::Sql(error)),
        Err(Refusal::Because(MailboxError::Store(error))) => Err(Refusal::Because(AppendError::Store(error))),
        Err(Refusal::Because(_)) => Err(Refusal::Because(AppendError::NoMailbox)),
    }
}

fn bring_back(
    sql: &Connection,
    account: AccountId,
    back: &Back,
    mailbox: MailboxId,
    now: UtcMillis,
) -> Outcome<Restored, AppendError> {
    let room = account::take_room(sql, account, 1, back.size_bytes, now)?;
    let counted = Counted::of([(&back.flags, back.size_bytes)]);
    let admitted =
        insert::admit(sql, account, mailbox, &counted, room.modseq)?.ok_or(Refusal::Because(AppendError::NoMailbox))?;
    let thread = thread::join(sql, account.0, &back.keys, room.email)?;
    sql.prepare_cached(
        "INSERT INTO entry (account_id, mailbox_id, uid, email_id, thread_id, modseq, created_modseq, system, keywords,
         internal_date, size_bytes, content_id)
         SELECT account_id, ?3, ?4, ?5, ?6, ?7, ?7, system & ~8, keywords, internal_date, size_bytes, content_id
         FROM removed WHERE account_id = ?1 AND email_id = ?2",
    )?
    .execute((account.0, back.was, mailbox.0, admitted.first_uid, room.email, thread, room.modseq))?;
    sql.prepare_cached("DELETE FROM removed WHERE account_id = ?1 AND email_id = ?2")?
        .execute((account.0, back.was))?;
    Ok(Restored {
        account,
        was: EmailId(back.was),
        email: EmailId(room.email),
        mailbox,
        mailbox_name: admitted.name,
        uid: Uid::new(admitted.first_uid).ok_or_else(|| rows::unreadable(0, "uid 0"))?,
        modseq: ModSeq::new(room.modseq).ok_or_else(|| rows::unreadable(0, "mod-sequence 0"))?,
    })
}

/// Lets go one step of these emails, or of all the account's; gives how many.
pub(super) fn purge(sql: &Connection, account: AccountId, emails: Option<&[EmailId]>, now: UtcMillis) -> Result<u64> {
    let due: Vec<(u64, u64)> = match emails {
        Some(emails) => emails.iter().map(|email| (account.0, email.0)).collect(),
        None => sql
            .prepare_cached("SELECT account_id, email_id FROM removed WHERE account_id = ?1 LIMIT ?2")?
            .query_map((account.0, STEP), |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_>>()?,
    };
    if emails.is_none() {
        sql.prepare_cached("DELETE FROM removed_mailbox WHERE account_id = ?1")?.execute([account.0])?;
    }
    Ok(let_go(sql, &due, now)? as u64)
}

/// Lets go up to `limit` emails expunged before `before`; gives how many.
pub(super) fn forget(sql: &Connection, before: UtcMillis, limit: usize, now: UtcMillis) -> Result<usize> {
    sql.prepare_cached("DELETE FROM removed_mailbox WHERE removed_at < ?1")?.execute([before.0])?;
    let due: Vec<(u64, u64)> = sql
        .prepare_cached("SELECT account_id, email_id FROM removed WHERE removed_at < ?1 LIMIT ?2")?
        .query_map((before.0, limit), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_>>()?;
    let_go(sql, &due, now)
}

fn let_go(sql: &Connection, due: &[(u64, u64)], now: UtcMillis) -> Result<usize> {
    let mut remove =
        sql.prepare_cached("DELETE FROM removed WHERE account_id = ?1 AND email_id = ?2 RETURNING content_id")?;
    let mut remove_content = sql.prepare_cached("DELETE FROM content WHERE content_id = ?1 RETURNING blob_id")?;
    let mut gone = 0;
    for email in due {
        let Some(content) = remove.query_row(*email, |row| row.get::<_, i64>(0)).optional()? else { continue };
        gone += 1;
        if let Some(blob) = remove_content.query_row([content], |row| rows::blob_id(row, 0)).optional()? {
            blobs::release(sql, blob, now)?;
        }
    }
    Ok(gone)
}
