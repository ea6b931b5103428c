//! Mailbox rows: names, roles, subscriptions.

use base::{AccountId, MailboxId, ModSeq, Uid, UtcMillis};

use super::rows::{self, MAILBOX_COLUMNS};
use super::{account, change, log};
use crate::error::{MailboxError, StoreError};
use crate::model::{Mailbox, MailboxName, Role};
use engine::postgres::Session;

type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Mailboxes an account may have.
const MAILBOXES_MAX: u64 = 5_000;

fn id(mailbox: MailboxId) -> i64 {
    i64::from(mailbox.0)
}

pub(super) async fn list(sql: &Session, account: AccountId) -> Result<Vec<Mailbox>> {
    let text = format!("SELECT {MAILBOX_COLUMNS} FROM mailbox WHERE account_id = $1 ORDER BY name");
    sql.rows(&text, &[&account::id(account)]).await?.iter().map(rows::mailbox).collect()
}

pub(super) async fn by_name(sql: &Session, account: AccountId, name: &MailboxName) -> Result<Option<Mailbox>> {
    let text = format!("SELECT {MAILBOX_COLUMNS} FROM mailbox WHERE account_id = $1 AND name = $2");
    let row = sql.row_opt(&text, &[&account::id(account), &name.as_str()]).await?;
    row.as_ref().map(rows::mailbox).transpose()
}

pub(super) async fn insert(
    sql: &Session,
    account: AccountId,
    name: &MailboxName,
    role: Option<Role>,
    modseq: ModSeq,
    now: UtcMillis,
) -> Result<MailboxId> {
    let uid_validity = i64::from(account::take_uid_validity(sql, account, now).await?.as_raw());
    let text = "UPDATE account SET next_mailbox = next_mailbox + 1 WHERE account_id = $1 RETURNING next_mailbox - 1";
    let made = rows::mailbox_id(&sql.row(text, &[&account::id(account)]).await?, 0)?;
    let text = "INSERT INTO mailbox (account_id, mailbox_id, name, role, uid_validity, uid_next, highest_modseq,
         changed_modseq, created_modseq, messages, unseen, deleted, size_bytes)
         VALUES ($1, $2, $3, $4, $5, 1, $6, $6, $6, 0, 0, 0, 0)";
    let (role, modseq) = (role.map(Role::as_str), rows::param(modseq.as_raw()));
    sql.execute(text, &[&account::id(account), &id(made), &name.as_str(), &role, &uid_validity, &modseq]).await?;
    Ok(made)
}

/// Makes the mailbox and the parents it lacks.
pub(super) async fn create(
    sql: &Session,
    account: AccountId,
    name: &MailboxName,
    role: Option<Role>,
    now: UtcMillis,
) -> Result<Mailbox, MailboxError> {
    account::ensure(sql, account, now).await?;
    if by_name(sql, account, name).await?.is_some() {
        return Err(MailboxError::Exists);
    }
    if let Some(role) = role
        && id_of_role(sql, account, role).await?.is_some()
    {
        return Err(MailboxError::RoleTaken);
    }
    let text = "SELECT count(*) FROM mailbox WHERE account_id = $1";
    if rows::int(&sql.row(text, &[&account::id(account)]).await?, 0)? >= MAILBOXES_MAX {
        return Err(MailboxError::TooMany);
    }
    let modseq = account::take_modseq(sql, account).await?;
    make_parents(sql, account, name, modseq, now).await?;
    insert(sql, account, name, role, modseq, now).await?;
    by_name(sql, account, name).await?.ok_or(MailboxError::NoMailbox)
}

async fn make_parents(
    sql: &Session,
    account: AccountId,
    name: &MailboxName,
    modseq: ModSeq,
    now: UtcMillis,
) -> Result<()> {
    let mut missing = Vec::new();
    let mut above = name.parent();
    while let Some(parent) = above {
        if by_name(sql, account, &parent).await?.is_some() {
            break;
        }
        above = parent.parent();
        missing.push(parent);
    }
    for parent in missing.iter().rev() {
        insert(sql, account, parent, None, modseq, now).await?;
    }
    Ok(())
}

pub(super) async fn id_of_role(sql: &Session, account: AccountId, role: Role) -> Result<Option<MailboxId>> {
    let text = "SELECT mailbox_id FROM mailbox WHERE account_id = $1 AND role = $2";
    let row = sql.row_opt(text, &[&account::id(account), &role.as_str()]).await?;
    row.map(|row| rows::mailbox_id(&row, 0)).transpose()
}

pub(super) async fn id_of_name(sql: &Session, account: AccountId, name: &MailboxName) -> Result<Option<MailboxId>> {
    let text = "SELECT mailbox_id FROM mailbox WHERE account_id = $1 AND name = $2";
    let row = sql.row_opt(text, &[&account::id(account), &name.as_str()]).await?;
    row.map(|row| rows::mailbox_id(&row, 0)).transpose()
}

pub(super) async fn exists(sql: &Session, account: AccountId, mailbox: MailboxId) -> Result<bool> {
    let text = "SELECT 1 FROM mailbox WHERE account_id = $1 AND mailbox_id = $2";
    Ok(sql.row_opt(text, &[&account::id(account), &id(mailbox)]).await?.is_some())
}

/// The mailbox with the role. If the account lacks one, the mailbox of the role's usual name gets it, or a new one.
pub(super) async fn with_role(sql: &Session, account: AccountId, role: Role, now: UtcMillis) -> Result<MailboxId> {
    if let Some(found) = id_of_role(sql, account, role).await? {
        return Ok(found);
    }
    let usual = Role::ALL.into_iter().find(|(known, _)| *known == role).map_or("INBOX", |(_, name)| name);
    let name: MailboxName = usual.parse().map_err(|_| rows::unreadable("initial mailbox name"))?;
    let modseq = account::take_modseq(sql, account).await?;
    if let Some(found) = id_of_name(sql, account, &name).await? {
        let text = "UPDATE mailbox SET role = $3, changed_modseq = $4 WHERE account_id = $1 AND mailbox_id = $2";
        let modseq = rows::param(modseq.as_raw());
        sql.execute(text, &[&account::id(account), &id(found), &role.as_str(), &modseq]).await?;
        return Ok(found);
    }
    let made = insert(sql, account, &name, Some(role), modseq, now).await?;
    set_subscribed(sql, account, &name, true).await?;
    Ok(made)
}

pub(super) async fn rename(
    sql: &Session,
    account: AccountId,
    from: &MailboxName,
    to: &MailboxName,
    now: UtcMillis,
) -> Result<ModSeq, MailboxError> {
    account::ensure(sql, account, now).await?;
    if by_name(sql, account, from).await?.is_none() {
        return Err(MailboxError::NoMailbox);
    }
    if to.is_below(from) {
        return Err(MailboxError::Forbidden);
    }
    if by_name(sql, account, to).await?.is_some() {
        return Err(MailboxError::Exists);
    }
    let modseq = account::take_modseq(sql, account).await?;
    make_parents(sql, account, to, modseq, now).await?;
    let all = list(sql, account).await?;
    for mailbox in &all {
        let Some(moved) = mailbox.name.moved(from, to) else { continue };
        if moved.as_str().len() > 1000 || moved.as_str().parse::<MailboxName>().is_err() {
            return Err(MailboxError::Forbidden);
        }
        if all.iter().any(|other| other.name == moved) {
            return Err(MailboxError::Exists);
        }
        let text = "UPDATE mailbox SET name = $3, changed_modseq = $4 WHERE account_id = $1 AND mailbox_id = $2";
        let at = rows::param(modseq.as_raw());
        sql.execute(text, &[&account::id(account), &id(mailbox.id), &moved.as_str(), &at]).await?;
        if mailbox.subscribed {
            set_subscribed(sql, account, &mailbox.name, false).await?;
            set_subscribed(sql, account, &moved, true).await?;
        }
    }
    Ok(modseq)
}

/// Renaming INBOX: gives its id and the new mailbox that its messages go to.
pub(super) async fn instead_of_inbox(
    sql: &Session,
    account: AccountId,
    to: &MailboxName,
    now: UtcMillis,
) -> Result<(MailboxId, Mailbox), MailboxError> {
    let made = create(sql, account, to, None, now).await?;
    let inbox = id_of_name(sql, account, &MailboxName::inbox()).await?;
    Ok((inbox.ok_or(MailboxError::NoMailbox)?, made))
}

/// Removes a part of the entries or, when few are left, those and the mailbox: then the flag is true.
pub(super) async fn delete(
    sql: &Session,
    account: AccountId,
    name: &MailboxName,
    now: UtcMillis,
) -> Result<(ModSeq, bool), MailboxError> {
    if name.is_inbox() {
        return Err(MailboxError::Forbidden);
    }
    let found = id_of_name(sql, account, name).await?.ok_or(MailboxError::NoMailbox)?;
    let step = change::expunge(sql, account, found, &[Uid::MIN..=Uid::MAX], false, now).await?;
    if step.last.is_some() {
        return Ok((step.modseq, false));
    }
    let modseq = account::take_modseq(sql, account).await?;
    let text = "INSERT INTO removed_mailbox (account_id, mailbox_id, removed_at, name, role, subscribed)
         SELECT m.account_id, m.mailbox_id, $3::bigint, m.name, m.role, EXISTS (
             SELECT 1 FROM subscription s WHERE s.account_id = m.account_id AND s.name = m.name)
         FROM mailbox m WHERE m.account_id = $1 AND m.mailbox_id = $2";
    sql.execute(text, &[&account::id(account), &id(found), &now.0]).await?;
    let text = "DELETE FROM mailbox WHERE account_id = $1 AND mailbox_id = $2";
    sql.execute(text, &[&account::id(account), &id(found)]).await?;
    log::note_mailbox_gone(sql, account, found, modseq).await?;
    set_subscribed(sql, account, name, false).await?;
    Ok((modseq, true))
}

/// Gives the mod-sequence of the change, if there was one.
pub(super) async fn subscribe(
    sql: &Session,
    account: AccountId,
    name: &MailboxName,
    subscribed: bool,
    now: UtcMillis,
) -> Result<Option<ModSeq>, MailboxError> {
    account::ensure(sql, account, now).await?;
    let found = id_of_name(sql, account, name).await?;
    if subscribed && found.is_none() {
        return Err(MailboxError::NoMailbox);
    }
    if !set_subscribed(sql, account, name, subscribed).await? {
        return Ok(None);
    }
    let modseq = account::take_modseq(sql, account).await?;
    if let Some(found) = found {
        let text = "UPDATE mailbox SET changed_modseq = $3 WHERE account_id = $1 AND mailbox_id = $2";
        sql.execute(text, &[&account::id(account), &id(found), &rows::param(modseq.as_raw())]).await?;
    }
    Ok(Some(modseq))
}

/// True if it was otherwise before.
pub(super) async fn set_subscribed(
    sql: &Session,
    account: AccountId,
    name: &MailboxName,
    subscribed: bool,
) -> Result<bool> {
    let text = if subscribed {
        "INSERT INTO subscription (account_id, name) VALUES ($1, $2) ON CONFLICT DO NOTHING"
    } else {
        "DELETE FROM subscription WHERE account_id = $1 AND name = $2"
    };
    Ok(sql.execute(text, &[&account::id(account), &name.as_str()]).await? > 0)
}
