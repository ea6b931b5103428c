//! The change log: what vanished, kept so that a client that was away hears of it. What is alive needs no log, its own
//! row carries its mod-sequence.

use std::collections::BTreeMap;

use base::{AccountId, MailboxId, ModSeq};

use super::{account, read, rows};
use crate::error::StoreError;
use crate::model::{EmailChanges, EmailId};
use engine::postgres::Session;

type Result<T> = std::result::Result<T, StoreError>;

/// Rows kept per account. Past it the oldest quarter goes, and clients away for longer than that start afresh.
const ROWS_MAX: i64 = 40_000;

pub(super) async fn note_mailbox_gone(
    sql: &Session,
    account: AccountId,
    mailbox: MailboxId,
    modseq: ModSeq,
) -> Result<()> {
    let text = "INSERT INTO mailbox_gone (account_id, modseq, mailbox_id) VALUES ($1, $2, $3)";
    let modseq = rows::param(modseq.as_raw());
    sql.execute(text, &[&account::id(account), &modseq, &i64::from(mailbox.0)]).await?;
    count(sql, account, 1).await
}

/// Adds to the number of rows and trims when there are too many.
pub(super) async fn count(sql: &Session, account: AccountId, more: u64) -> Result<()> {
    let text = "UPDATE account SET log_rows = log_rows + $2 WHERE account_id = $1 RETURNING log_rows";
    let kept = rows::signed(&sql.row(text, &[&account::id(account), &rows::param(more)]).await?, 0)?;
    if kept > ROWS_MAX { trim(sql, account, ROWS_MAX / 4).await } else { Ok(()) }
}

async fn trim(sql: &Session, account: AccountId, oldest: i64) -> Result<()> {
    // Without so many vanished entries the rows are mailboxes: then all of the log goes.
    let text = "SELECT coalesce((SELECT modseq FROM vanished WHERE account_id = $1 ORDER BY modseq LIMIT 1 OFFSET $2),
                (SELECT modseq FROM account WHERE account_id = $1))";
    let floor = rows::signed(&sql.row(text, &[&account::id(account), &oldest]).await?, 0)?;
    let mut gone = 0;
    for table in ["vanished", "mailbox_gone"] {
        let text = format!("DELETE FROM {table} WHERE account_id = $1 AND modseq <= $2");
        gone += sql.execute(&text, &[&account::id(account), &floor]).await?;
    }
    let text = "UPDATE account SET log_floor = $2, log_rows = log_rows - $3 WHERE account_id = $1";
    Ok(sql.execute(text, &[&account::id(account), &floor, &rows::param(gone)]).await.map(drop)?)
}

/// True if everything that vanished after `since` is still known. An account never seen has lost nothing.
pub(super) async fn reaches(sql: &Session, account: AccountId, since: ModSeq) -> Result<bool> {
    let row = sql.row_opt("SELECT log_floor FROM account WHERE account_id = $1", &[&account::id(account)]).await?;
    let floor = row.map_or(Ok(0), |row| rows::int(&row, 0))?;
    Ok(since.as_raw() >= floor)
}

/// What happened to one email, at the mod-sequence at which a client is told.
enum Event {
    Created,
    Updated,
    Destroyed,
}

pub(super) async fn email_changes(
    sql: &Session,
    account: AccountId,
    since: ModSeq,
    limit: usize,
) -> Result<Option<EmailChanges>> {
    if !reaches(sql, account, since).await? {
        return Ok(None);
    }
    // Each change of an email has a mod-sequence of its own, so the limit can cut anywhere. An email made after `since`
    // is told at its birth, even if it changed later: the next call then tells it as updated.
    let mut events: BTreeMap<(u64, u64), Event> = BTreeMap::new();
    let (id, since) = (account::id(account), rows::param(since.as_raw()));
    let alive = "SELECT modseq, created_modseq, email_id FROM entry WHERE account_id = $1 AND modseq > $2";
    for row in sql.rows(alive, &[&id, &since]).await? {
        let (modseq, created, email) = (rows::int(&row, 0)?, rows::int(&row, 1)?, rows::int(&row, 2)?);
        if rows::param(created) > since {
            events.insert((created, email), Event::Created);
        } else {
            events.insert((modseq, email), Event::Updated);
        }
    }
    let gone = "SELECT modseq, email_id FROM vanished
         WHERE account_id = $1 AND modseq > $2 AND NOT is_move AND created_modseq <= $2";
    for row in sql.rows(gone, &[&id, &since]).await? {
        events.insert((rows::int(&row, 0)?, rows::int(&row, 1)?), Event::Destroyed);
    }
    let has_more = events.len() > limit;
    let new_state = read::modseq(sql, account).await?;
    let mut out = EmailChanges { created: Vec::new(), updated: Vec::new(), destroyed: Vec::new(), new_state, has_more };
    for ((modseq, email), event) in events.into_iter().take(limit) {
        match event {
            Event::Created => out.created.push(EmailId(email)),
            Event::Updated => out.updated.push(EmailId(email)),
            Event::Destroyed => out.destroyed.push(EmailId(email)),
        }
        if has_more {
            out.new_state = rows::new_modseq(modseq)?;
        }
    }
    Ok(Some(out))
}

pub(super) async fn mailboxes_destroyed(
    sql: &Session,
    account: AccountId,
    since: ModSeq,
) -> Result<Option<Vec<MailboxId>>> {
    if !reaches(sql, account, since).await? {
        return Ok(None);
    }
    let text = "SELECT mailbox_id FROM mailbox_gone WHERE account_id = $1 AND modseq > $2 ORDER BY modseq";
    let found = sql.rows(text, &[&account::id(account), &rows::param(since.as_raw())]).await?;
    found.iter().map(|row| rows::mailbox_id(row, 0)).collect::<Result<_>>().map(Some)
}
