//! What owners said of messages.

use base::{AccountId, MailboxId, UtcMillis};
use rusqlite::{Connection, OptionalExtension as _, Result};

use crate::model::{EmailId, OwnerVerdict, Role, of_move};

/// Notes what a move or copy says of messages, by their ids afterwards.
pub(super) fn note_move(
    sql: &Connection,
    account: AccountId,
    (from, to): (MailboxId, MailboxId),
    emails: impl Iterator<Item = u64>,
    now: UtcMillis,
) -> Result<()> {
    if let Some(is_spam) = of_move(role(sql, account, from)?, role(sql, account, to)?) {
        for email in emails {
            note(sql, account, email, is_spam, now)?;
        }
    }
    Ok(())
}

pub(super) fn note(sql: &Connection, account: AccountId, email: u64, is_spam: bool, now: UtcMillis) -> Result<()> {
    sql.prepare_cached(
        "INSERT OR REPLACE INTO owner_verdict (account_id, email_id, is_spam, given_at) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute((account.0, email, is_spam, now.0))
    .map(drop)
}

fn role(sql: &Connection, account: AccountId, mailbox: MailboxId) -> Result<Option<Role>> {
    let role: Option<Option<String>> = sql
        .prepare_cached("SELECT role FROM mailbox WHERE account_id = ?1 AND mailbox_id = ?2")?
        .query_row((account.0, mailbox.0), |row| row.get(0))
        .optional()?;
    Ok(role.flatten().as_deref().and_then(Role::from_name))
}

/// The oldest first.
pub(super) fn list(sql: &Connection, limit: usize) -> Result<Vec<OwnerVerdict>> {
    sql.prepare_cached("SELECT account_id, email_id, is_spam, given_at FROM owner_verdict ORDER BY given_at LIMIT ?1")?
        .query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
            Ok(OwnerVerdict {
                account: AccountId(row.get(0)?),
                email: EmailId(row.get(1)?),
                is_spam: row.get(2)?,
                given_at: UtcMillis(row.get(3)?),
            })
        })?
        .collect()
}

/// A later word stays.
pub(super) fn settle(sql: &Connection, done: &[OwnerVerdict]) -> Result<()> {
    let mut delete = sql.prepare_cached(
        "DELETE FROM owner_verdict WHERE account_id = ?1 AND email_id = ?2 AND is_spam = ?3 AND given_at = ?4",
    )?;
    for verdict in done {
        delete.execute((verdict.account.0, verdict.email.0, verdict.is_spam, verdict.given_at.0))?;
    }
    Ok(())
}
