//! The change log: what vanished, kept so that a client that was away hears of it. What is alive needs no log, its own
//! row carries its mod-sequence.

use std::collections::BTreeMap;

use base::{AccountId, MailboxId, ModSeq, Uid};
use rusqlite::{Connection, OptionalExtension, Result};

use super::rows;
use crate::model::{EmailChanges, EmailId};

/// Rows kept per account. Past it the oldest quarter goes, and clients away for longer than that start afresh.
const ROWS_MAX: u64 = 40_000;

pub(super) struct Vanished {
    pub modseq: u64,
    pub uid: Uid,
    pub email: u64,
    pub created_modseq: u64,
    pub is_move: bool,
}

pub(super) fn note(sql: &Connection, account: AccountId, mailbox: MailboxId, gone: &Vanished) -> Result<()> {
    sql.prepare_cached(
        "INSERT INTO vanished (account_id, modseq, mailbox_id, uid, email_id, created_modseq, is_move)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute((account.0, gone.modseq, mailbox.0, gone.uid.as_raw(), gone.email, gone.created_modseq, gone.is_move))
    .map(drop)
}

pub(super) fn note_mailbox_gone(
    sql: &Connection,
    account: AccountId,
    mailbox: MailboxId,
    modseq: ModSeq,
) -> Result<()> {
    sql.prepare_cached("INSERT INTO mailbox_gone (account_id, modseq, mailbox_id) VALUES (?1, ?2, ?3)")?.execute((
        account.0,
        modseq.as_raw(),
        mailbox.0,
    ))?;
    count(sql, account, 1)
}

/// Adds to the number of rows and trims when there are too many.
pub(super) fn count(sql: &Connection, account: AccountId, more: u64) -> Result<()> {
    let rows: u64 = sql
        .prepare_cached("UPDATE account SET log_rows = log_rows + ?2 WHERE account_id = ?1 RETURNING log_rows")?
        .query_row((account.0, more), |row| row.get(0))?;
    if rows > ROWS_MAX { trim(sql, account, ROWS_MAX / 4) } else { Ok(()) }
}

fn trim(sql: &Connection, account: AccountId, oldest: u64) -> Result<()> {
    let floor: Option<u64> = sql
        .prepare_cached("SELECT modseq FROM vanished WHERE account_id = ?1 ORDER BY modseq LIMIT 1 OFFSET ?2")?
        .query_row((account.0, oldest), |row| row.get(0))
        .optional()?;
    // Without so many vanished entries the rows are mailboxes: then all of the log goes.
    let floor = match floor {
        Some(floor) => floor,
        None => sql.query_row("SELECT modseq FROM account WHERE account_id = ?1", [account.0], |row| row.get(0))?,
    };
    let gone = sql.execute("DELETE FROM vanished WHERE account_id = ?1 AND modseq <= ?2", (account.0, floor))?
        + sql.execute("DELETE FROM mailbox_gone WHERE account_id = ?1 AND modseq <= ?2", (account.0, floor))?;
    sql.execute(
        "UPDATE account SET log_floor = ?2, log_rows = log_rows - ?3 WHERE account_id = ?1",
        (account.0, floor, gone),
    )
    .map(drop)
}

/// True if everything that vanished after `since` is still known. An account never seen has lost nothing.
pub(super) fn reaches(sql: &Connection, account: AccountId, since: ModSeq) -> Result<bool> {
    let floor: Option<u64> = sql
        .prepare_cached("SELECT log_floor FROM account WHERE account_id = ?1")?
        .query_row([account.0], |row| row.get(0))
        .optional()?;
    Ok(since.as_raw() >= floor.unwrap_or(0))
}

/// What happened to one email, at the mod-sequence at which a client is told.
enum Event {
    Created,
    Updated,
    Destroyed,
}

pub(super) fn email_changes(
    sql: &Connection,
    account: AccountId,
    since: ModSeq,
    limit: usize,
) -> Result<Option<EmailChanges>> {
    let sql = &sql.unchecked_transaction()?;
    if !reaches(sql, account, since)? {
        return Ok(None);
    }
    // Each change of an email has a mod-sequence of its own, so the limit can cut anywhere. An email made after `since`
    // is told at its birth, even if it changed later: the next call then tells it as updated.
    let mut events: BTreeMap<(u64, u64), Event> = BTreeMap::new();
    let since = since.as_raw();
    let mut alive =
        sql.prepare_cached("SELECT modseq, created_modseq, email_id FROM entry WHERE account_id = ?1 AND modseq > ?2")?;
    let mut found = alive.query((account.0, since))?;
    while let Some(row) = found.next()? {
        let (modseq, created, email): (u64, u64, u64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if created > since {
            events.insert((created, email), Event::Created);
        } else {
            events.insert((modseq, email), Event::Updated);
        }
    }
    let mut gone = sql.prepare_cached(
        "SELECT modseq, email_id FROM vanished
         WHERE account_id = ?1 AND modseq > ?2 AND is_move = 0 AND created_modseq <= ?2",
    )?;
    let mut found = gone.query((account.0, since))?;
    while let Some(row) = found.next()? {
        events.insert((row.get(0)?, row.get(1)?), Event::Destroyed);
    }
    let has_more = events.len() > limit;
    let mut out = EmailChanges {
        created: Vec::new(),
        updated: Vec::new(),
        destroyed: Vec::new(),
        new_state: super::read::modseq(sql, account)?,
        has_more,
    };
    for ((modseq, email), event) in events.into_iter().take(limit) {
        match event {
            Event::Created => out.created.push(EmailId(email)),
            Event::Updated => out.updated.push(EmailId(email)),
            Event::Destroyed => out.destroyed.push(EmailId(email)),
        }
        if has_more {
            out.new_state = ModSeq::new(modseq).ok_or_else(|| rows::unreadable(0, "mod-sequence 0"))?;
        }
    }
    Ok(Some(out))
}

pub(super) fn mailboxes_destroyed(
    sql: &Connection,
    account: AccountId,
    since: ModSeq,
) -> Result<Option<Vec<MailboxId>>> {
    let sql = &sql.unchecked_transaction()?;
    if !reaches(sql, account, since)? {
        return Ok(None);
    }
    sql.prepare_cached("SELECT mailbox_id FROM mailbox_gone WHERE account_id = ?1 AND modseq > ?2 ORDER BY modseq")?
        .query_map((account.0, since.as_raw()), |row| row.get(0).map(MailboxId))?
        .collect::<Result<_>>()
        .map(Some)
}
