//! Mailbox rows: names, roles, subscriptions.

use base::{AccountId, MailboxId, ModSeq, Uid, UtcMillis};
use rusqlite::{Connection, OptionalExtension, Result};

use super::rows::{self, MAILBOX_COLUMNS};
use super::{Outcome, Refusal, account, change, log};
use crate::error::MailboxError;
use crate::model::{Mailbox, MailboxName, Role};

/// Mailboxes an account may have.
const MAILBOXES_MAX: u64 = 5_000;

pub(super) fn list(sql: &Connection, account: AccountId) -> Result<Vec<Mailbox>> {
    let text = format!("SELECT {MAILBOX_COLUMNS} FROM mailbox WHERE account_id = ?1 ORDER BY name");
    sql.prepare_cached(&text)?.query_map([account.0], rows::mailbox)?.collect()
}

pub(super) fn by_name(sql: &Connection, account: AccountId, name: &MailboxName) -> Result<Option<Mailbox>> {
    let text = format!("SELECT {MAILBOX_COLUMNS} FROM mailbox WHERE account_id = ?1 AND name = ?2");
    sql.prepare_cached(&text)?.query_row((account.0, name.as_str()), rows::mailbox).optional()
}

pub(super) fn insert(
    sql: &Connection,
    account: AccountId,
    name: &MailboxName,
    role: Option<Role>,
    modseq: ModSeq,
    now: UtcMillis,
) -> Result<MailboxId> {
    let uid_validity = account::take_uid_validity(sql, account, now)?;
    let id: u32 = sql
        .prepare_cached(
            "UPDATE account SET next_mailbox = next_mailbox + 1 WHERE account_id = ?1 RETURNING next_mailbox - 1",
        )?
        .query_row([account.0], |row| row.get(0))?;
    sql.prepare_cached(
        "INSERT INTO mailbox (account_id, mailbox_id, name, role, uid_validity, uid_next, highest_modseq,
         changed_modseq, created_modseq, messages, unseen, deleted, size_bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6, ?6, ?6, 0, 0, 0, 0)",
    )?
    .execute((account.0, id, name.as_str(), role.map(Role::as_str), uid_validity.as_raw(), modseq.as_raw()))?;
    Ok(MailboxId(id))
}

/// Makes the mailbox and the parents it lacks.
pub(super) fn create(
    sql: &Connection,
    account: AccountId,
    name: &MailboxName,
    role: Option<Role>,
    now: UtcMillis,
) -> Outcome<Mailbox, MailboxError> {
    account::ensure(sql, account, now)?;
    if by_name(sql, account, name)?.is_some() {
        return Err(Refusal::Because(MailboxError::Exists));
    }
    if let Some(role) = role
        && id_of_role(sql, account, role)?.is_some()
    {
        return Err(Refusal::Because(MailboxError::RoleTaken));
    }
    refuse_too_many(sql, account)?;
    let modseq = account::take_modseq(sql, account)?;
    make_parents(sql, account, name, modseq, now)?;
    insert(sql, account, name, role, modseq, now)?;
    by_name(sql, account, name)?.ok_or(Refusal::Because(MailboxError::NoMailbox))
}

fn refuse_too_many(sql: &Connection, account: AccountId) -> Outcome<(), MailboxError> {
    let count: u64 =
        sql.query_row("SELECT count(*) FROM mailbox WHERE account_id = ?1", [account.0], |row| row.get(0))?;
    if count >= MAILBOXES_MAX { Err(Refusal::Because(MailboxError::TooMany)) } else { Ok(()) }
}

fn make_parents(
    sql: &Connection,
    account: AccountId,
    name: &MailboxName,
    modseq: ModSeq,
    now: UtcMillis,
) -> Result<()> {
    let mut missing = Vec::new();
    let mut above = name.parent();
    while let Some(parent) = above {
        if by_name(sql, account, &parent)?.is_some() {
            break;
        }
        above = parent.parent();
        missing.push(parent);
    }
    for parent in missing.iter().rev() {
        insert(sql, account, parent, None, modseq, now)?;
    }
    Ok(())
}

pub(super) fn id_of_role(sql: &Connection, account: AccountId, role: Role) -> Result<Option<MailboxId>> {
    sql.prepare_cached("SELECT mailbox_id FROM mailbox WHERE account_id = ?1 AND role = ?2")?
        .query_row((account.0, role.as_str()), |row| row.get(0).map(MailboxId))
        .optional()
}

pub(super) fn id_of_name(sql: &Connection, account: AccountId, name: &MailboxName) -> Result<Option<MailboxId>> {
    sql.prepare_cached("SELECT mailbox_id FROM mailbox WHERE account_id = ?1 AND name = ?2")?
        .query_row((account.0, name.as_str()), |row| row.get(0).map(MailboxId))
        .optional()
}

pub(super) fn exists(sql: &Connection, account: AccountId, mailbox: MailboxId) -> Result<bool> {
    sql.prepare_cached("SELECT 1 FROM mailbox WHERE account_id = ?1 AND mailbox_id = ?2")?
        .exists((account.0, mailbox.0))
}

/// The mailbox with the role. If the account lacks one, the mailbox of the role's usual name gets it, or a new one.
pub(super) fn with_role(sql: &Connection, account: AccountId, role: Role, now: UtcMillis) -> Result<MailboxId> {
    if let Some(found) = id_of_role(sql, account, role)? {
        return Ok(found);
    }
    let usual = Role::ALL.into_iter().find(|(known, _)| *known == role).map_or("INBOX", |(_, name)| name);
    let name: MailboxName = usual.parse().map_err(|_| rows::unreadable(0, "initial mailbox name"))?;
    let modseq = account::take_modseq(sql, account)?;
    if let Some(found) = id_of_name(sql, account, &name)? {
        sql.execute(
            "UPDATE mailbox SET role = ?3, changed_modseq = ?4 WHERE account_id = ?1 AND mailbox_id = ?2",
            (account.0, found.0, role.as_str(), modseq.as_raw()),
        )?;
        return Ok(found);
    }
    let made = insert(sql, account, &name, Some(role), modseq, now)?;
    set_subscribed(sql, account, &name, true)?;
    Ok(made)
}

pub(super) fn rename(
    sql: &Connection,
    account: AccountId,
    from: &MailboxName,
    to: &MailboxName,
    now: UtcMillis,
) -> Outcome<ModSeq, MailboxError> {
    account::ensure(sql, account, now)?;
    if by_name(sql, account, from)?.is_none() {
        return Err(Refusal::Because(MailboxError::NoMailbox));
    }
    if to.is_below(from) {
        return Err(Refusal::Because(MailboxError::Forbidden));
    }
    if by_name(sql, account, to)?.is_some() {
        return Err(Refusal::Because(MailboxError::Exists));
    }
    let modseq = account::take_modseq(sql, account)?;
    make_parents(sql, account, to, modseq, now)?;
    let all = list(sql, account)?;
    for mailbox in &all {
        let Some(moved) = mailbox.name.moved(from, to) else { continue };
        if moved.as_str().len() > 1000 || moved.as_str().parse::<MailboxName>().is_err() {
            return Err(Refusal::Because(MailboxError::Forbidden));
        }
        if all.iter().any(|other| other.name == moved) {
            return Err(Refusal::Because(MailboxError::Exists));
        }
        sql.prepare_cached(
            "UPDATE mailbox SET name = ?3, changed_modseq = ?4 WHERE account_id = ?1 AND mailbox_id = ?2",
        )?
        .execute((account.0, mailbox.id.0, moved.as_str(), modseq.as_raw()))?;
        if mailbox.subscribed {
            set_subscribed(sql, account, &mailbox.name, false)?;
            set_subscribed(sql, account, &moved, true)?;
        }
    }
    Ok(modseq)
}

/// Renaming INBOX: gives its id and the new mailbox that its messages go to.
pub(super) fn instead_of_inbox(
    sql: &Connection,
    account: AccountId,
    to: &MailboxName,
    now: UtcMillis,
) -> Outcome<(MailboxId, Mailbox), MailboxError> {
    let made = create(sql, account, to, None, now)?;
    let inbox = id_of_name(sql, account, &MailboxName::inbox())?;
    Ok((inbox.ok_or(Refusal::Because(MailboxError::NoMailbox))?, made))
}

/// Removes a part of the entries or, when few are left, those and the mailbox: then the flag is true.
pub(super) fn delete(
    sql: &Connection,
    account: AccountId,
    name: &MailboxName,
    now: UtcMillis,
) -> Outcome<(ModSeq, bool), MailboxError> {
    if name.is_inbox() {
        return Err(Refusal::Because(MailboxError::Forbidden));
    }
    let id = id_of_name(sql, account, name)?.ok_or(Refusal::Because(MailboxError::NoMailbox))?;
    let step = change::expunge(sql, account, id, &[Uid::MIN..=Uid::MAX], false, now)?;
    if step.is_partial {
        return Ok((step.modseq, false));
    }
    let modseq = account::take_modseq(sql, account)?;
    sql.execute(
        "INSERT INTO removed_mailbox (account_id, mailbox_id, removed_at, name, role, subscribed)
         SELECT account_id, mailbox_id, ?3, name, role, EXISTS (
             SELECT 1 FROM subscription s WHERE s.account_id = mailbox.account_id AND s.name = mailbox.name)
         FROM mailbox WHERE account_id = ?1 AND mailbox_id = ?2",
        (account.0, id.0, now.0),
    )?;
    sql.execute("DELETE FROM mailbox WHERE account_id = ?1 AND mailbox_id = ?2", (account.0, id.0))?;
    log::note_mailbox_gone(sql, account, id, modseq)?;
    set_subscribed(sql, account, name, false)?;
    Ok((modseq, true))
}

/// Gives the mod-sequence of the change, if there was one.
pub(super) fn subscribe(
    sql: &Connection,
    account: AccountId,
    name: &MailboxName,
    subscribed: bool,
    now: UtcMillis,
) -> Outcome<Option<ModSeq>, MailboxError> {
    account::ensure(sql, account, now)?;
    let id = id_of_name(sql, account, name)?;
    if subscribed && id.is_none() {
        return Err(Refusal::Because(MailboxError::NoMailbox));
    }
    if !set_subscribed(sql, account, name, subscribed)? {
        return Ok(None);
    }
    let modseq = account::take_modseq(sql, account)?;
    if let Some(id) = id {
        sql.prepare_cached("UPDATE mailbox SET changed_modseq = ?3 WHERE account_id = ?1 AND mailbox_id = ?2")?
            .execute((account.0, id.0, modseq.as_raw()))?;
    }
    Ok(Some(modseq))
}

/// True if it was otherwise before.
pub(super) fn set_subscribed(
    sql: &Connection,
    account: AccountId,
    name: &MailboxName,
    subscribed: bool,
) -> Result<bool> {
    let text = if subscribed {
        "INSERT OR IGNORE INTO subscription (account_id, name) VALUES (?1, ?2)"
    } else {
        "DELETE FROM subscription WHERE account_id = ?1 AND name = ?2"
    };
    Ok(sql.prepare_cached(text)?.execute((account.0, name.as_str()))? > 0)
}
