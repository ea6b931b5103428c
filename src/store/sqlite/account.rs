//! Account rows: the counter that every change takes its mod-sequence from, and the sums for quota.

use base::{AccountId, ByteSize, ModSeq, Quota, UidValidity, UtcMillis};
use rusqlite::{Connection, OptionalExtension, Result, Row};

use super::{Outcome, Refusal, allowance, change, held, mailboxes, removed, rows};
use crate::error::AppendError;
use crate::model::{MailboxName, OverQuota, Role, Usage};

/// Makes the account with its first mailboxes if it was never seen before.
pub(super) fn ensure(sql: &Connection, account: AccountId, now: UtcMillis) -> Result<()> {
    let mut add = sql.prepare_cached(
        "INSERT OR IGNORE INTO account
         (account_id, modseq, log_floor, log_rows, next_mailbox, next_email, uid_validity, messages, size_bytes)
         VALUES (?1, 1, 0, 0, 1, 1, 0, 0, 0)",
    )?;
    if add.execute([account.0])? == 0 {
        return Ok(());
    }
    for (role, name) in Role::INITIAL {
        let name: MailboxName = name.parse().map_err(|_| rows::unreadable(0, "initial mailbox name"))?;
        mailboxes::insert(sql, account, &name, Some(role), ModSeq::MIN, now)?;
        mailboxes::set_subscribed(sql, account, &name, true)?;
    }
    Ok(())
}

/// Takes the next `count` mod-sequences (at least one) and gives the first. The account must exist.
pub(super) fn take_modseqs(sql: &Connection, account: AccountId, count: u64) -> Result<ModSeq> {
    let mut take =
        sql.prepare_cached("UPDATE account SET modseq = modseq + ?2 WHERE account_id = ?1 RETURNING modseq - ?2 + 1")?;
    take.query_row((account.0, count.max(1)), |row| rows::modseq(row, 0))
}

/// [`take_modseqs`] for a single change.
pub(super) fn take_modseq(sql: &Connection, account: AccountId) -> Result<ModSeq> {
    take_modseqs(sql, account, 1)
}

/// A UIDVALIDITY above all that the account ever used.
pub(super) fn take_uid_validity(sql: &Connection, account: AccountId, now: UtcMillis) -> Result<UidValidity> {
    let mut take = sql.prepare_cached(
        "UPDATE account SET uid_validity = max(uid_validity + 1, ?2) WHERE account_id = ?1 RETURNING uid_validity",
    )?;
    let raw = take.query_row((account.0, now.as_secs().clamp(1, i64::from(u32::MAX))), |row| row.get(0))?;
    UidValidity::new(raw).ok_or_else(|| rows::unreadable(0, "uidvalidity 0"))
}

/// What new entries are numbered by.
pub(super) struct Room {
    pub modseq: u64,
    pub email: u64,
}

/// Counts `messages` new ones of `size_bytes` in all against quota and allowance; gives the first mod-sequence and
/// email id. [`AppendError::NoMailbox`] if the account was never seen.
pub(super) fn take_room(
    sql: &Connection,
    account: AccountId,
    messages: u64,
    size_bytes: u64,
    now: UtcMillis,
) -> Outcome<Room, AppendError> {
    let mut take = sql.prepare_cached(
        "UPDATE account SET modseq = modseq + ?2, next_email = next_email + ?2,
         messages = messages + ?2, size_bytes = size_bytes + ?3
         WHERE account_id = ?1 AND (quota_bytes IS NULL OR size_bytes + ?3 <= quota_bytes)
         AND (quota_messages IS NULL OR messages + ?2 <= quota_messages)
         AND (allowed_bytes IS NULL OR (size_bytes + ?3 <= allowed_bytes AND messages + ?2 <= allowed_messages))
         RETURNING modseq - ?2 + 1, next_email - ?2",
    )?;
    let room = |row: &Row<'_>| Ok(Room { modseq: row.get(0)?, email: row.get(1)? });
    if let Some(room) = take.query_row((account.0, messages, size_bytes), room).optional()? {
        return Ok(room);
    }
    if !exists(sql, account)? {
        return Err(Refusal::Because(AppendError::NoMailbox));
    }
    let over = |over| Err(Refusal::Because(AppendError::OverQuota(over)));
    if let Some(own) = usage(sql, account, now)?.over(messages, ByteSize(size_bytes)) {
        return over(own);
    }
    if allowance::draw(sql, account, messages, size_bytes, now)?
        && let Some(room) = take.query_row((account.0, messages, size_bytes), room).optional()?
    {
        return Ok(room);
    }
    over(OverQuota::Pool { size: ByteSize(size_bytes), messages })
}

fn exists(sql: &Connection, account: AccountId) -> Result<bool> {
    sql.prepare_cached("SELECT 1 FROM account WHERE account_id = ?1")?.exists([account.0])
}

pub(super) fn give_back(sql: &Connection, account: AccountId, messages: u64, size_bytes: u64) -> Result<()> {
    sql.prepare_cached(
        "UPDATE account SET messages = messages - ?2, size_bytes = size_bytes - ?3 WHERE account_id = ?1",
    )?
    .execute((account.0, messages, size_bytes))
    .map(drop)
}

pub(super) fn usage(sql: &Connection, account: AccountId, now: UtcMillis) -> Result<Usage> {
    let found = sql
        .prepare_cached(
            "SELECT messages, size_bytes, quota_bytes, quota_messages,
             (size_bytes >= allowed_bytes OR messages >= allowed_messages) AND EXISTS (
                 SELECT 1 FROM pool_member m JOIN pool p ON p.pool_id = m.pool_id
                 WHERE m.account_id = ?1 AND p.dry_until > ?2)
             FROM account WHERE account_id = ?1",
        )?
        .query_row((account.0, now.0), |row| {
            Ok(Usage {
                messages: row.get(0)?,
                size: ByteSize(row.get(1)?),
                quota: Quota { size: row.get::<_, Option<u64>>(2)?.map(ByteSize), messages: row.get(3)? },
                is_pool_dry: row.get::<_, Option<bool>>(4)?.unwrap_or(false),
            })
        })
        .optional()?;
    Ok(found.unwrap_or_default())
}

pub(super) fn set_quota(sql: &Connection, account: AccountId, quota: Quota, now: UtcMillis) -> Result<()> {
    ensure(sql, account, now)?;
    sql.execute(
        "UPDATE account SET quota_bytes = ?2, quota_messages = ?3
         WHERE account_id = ?1 AND (quota_bytes IS NOT ?2 OR quota_messages IS NOT ?3)",
        (account.0, quota.size.map(|size| size.0), quota.messages),
    )
    .map(drop)
}

/// Removes a part of what the account has; true when nothing is left.
pub(super) fn delete(sql: &Connection, account: AccountId, now: UtcMillis) -> Result<bool> {
    let mut next =
        sql.prepare_cached("SELECT mailbox_id FROM mailbox WHERE account_id = ?1 AND messages > 0 LIMIT 1")?;
    if let Some(mailbox) = next.query_row([account.0], |row| row.get(0)).optional()? {
        let all = [base::Uid::MIN..=base::Uid::MAX];
        let step = change::expunge(sql, account, base::MailboxId(mailbox), &all, false, now)?;
        if !step.gone.is_empty() {
            return Ok(false);
        }
    }
    if removed::purge(sql, account, None, now)? > 0 || held::let_go_some(sql, account, now)? > 0 {
        return Ok(false);
    }
    allowance::set_pools(sql, account, &[])?;
    for table in
        ["mailbox", "subscription", "vanished", "mailbox_gone", "thread_ref", "delivered", "owner_verdict", "account"]
    {
        sql.execute(&format!("DELETE FROM {table} WHERE account_id = ?1"), [account.0])?;
    }
    Ok(true)
}
