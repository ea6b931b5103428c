//! Account rows: the counter that every change takes its mod-sequence from, and the sums for quota.

use base::{AccountId, ByteSize, ModSeq, Quota, UidValidity, UtcMillis};

use super::{allowance, change, held, mailboxes, removed, rows};
use crate::error::{AppendError, StoreError};
use crate::model::{MailboxName, OverQuota, Role, Usage};
use engine::postgres::Session;

type Result<T> = std::result::Result<T, StoreError>;

pub(super) fn id(account: AccountId) -> i64 {
    rows::param(account.0)
}

/// Makes the account with its first mailboxes if it was never seen before.
pub(super) async fn ensure(sql: &Session, account: AccountId, now: UtcMillis) -> Result<()> {
    let text = "INSERT INTO account
         (account_id, modseq, log_floor, log_rows, next_mailbox, next_email, uid_validity, messages, size_bytes)
         VALUES ($1, 1, 0, 0, 1, 1, 0, 0, 0) ON CONFLICT DO NOTHING";
    if sql.execute(text, &[&id(account)]).await? == 0 {
        return Ok(());
    }
    for (role, name) in Role::INITIAL {
        let name: MailboxName = name.parse().map_err(|_| rows::unreadable("initial mailbox name"))?;
        mailboxes::insert(sql, account, &name, Some(role), ModSeq::MIN, now).await?;
        mailboxes::set_subscribed(sql, account, &name, true).await?;
    }
    Ok(())
}

/// Takes the next `count` mod-sequences (at least one) and gives the first. The account must exist.
pub(super) async fn take_modseqs(sql: &Session, account: AccountId, count: u64) -> Result<u64> {
    let text = "UPDATE account SET modseq = modseq + $2 WHERE account_id = $1 RETURNING modseq - $2 + 1";
    rows::int(&sql.row(text, &[&id(account), &rows::param(count.max(1))]).await?, 0)
}

/// [`take_modseqs`] for a single change.
pub(super) async fn take_modseq(sql: &Session, account: AccountId) -> Result<ModSeq> {
    rows::new_modseq(take_modseqs(sql, account, 1).await?)
}

/// A UIDVALIDITY above all that the account ever used.
pub(super) async fn take_uid_validity(sql: &Session, account: AccountId, now: UtcMillis) -> Result<UidValidity> {
    let text = "UPDATE account SET uid_validity = greatest(uid_validity + 1, $2) WHERE account_id = $1
                RETURNING uid_validity";
    let now = now.as_secs().clamp(1, i64::from(u32::MAX));
    rows::uid_validity(&sql.row(text, &[&id(account), &now]).await?, 0)
}

/// What new entries are numbered by.
pub(super) struct Room {
    pub modseq: u64,
    pub email: u64,
}

/// Counts `messages` new ones of `size_bytes` in all against quota and allowance; gives the first mod-sequence and
/// email id. [`OverQuota::Pool`]: more allowance is to be drawn first. The account must exist.
pub(super) async fn take_room(
    sql: &Session,
    account: AccountId,
    messages: u64,
    size_bytes: u64,
) -> std::result::Result<Room, AppendError> {
    let text = "UPDATE account SET modseq = modseq + $2, next_email = next_email + $2,
         messages = messages + $2, size_bytes = size_bytes + $3
         WHERE account_id = $1 AND (quota_bytes IS NULL OR size_bytes + $3 <= quota_bytes)
         AND (quota_messages IS NULL OR messages + $2 <= quota_messages)
         AND (allowed_bytes IS NULL OR (size_bytes + $3 <= allowed_bytes AND messages + $2 <= allowed_messages))
         RETURNING modseq - $2 + 1, next_email - $2";
    let params = (id(account), rows::param(messages), rows::param(size_bytes));
    if let Some(row) = sql.row_opt(text, &[&params.0, &params.1, &params.2]).await? {
        return Ok(Room { modseq: rows::int(&row, 0)?, email: rows::int(&row, 1)? });
    }
    let usage = usage(sql, account, UtcMillis(0)).await?;
    let size = ByteSize(size_bytes);
    Err(AppendError::OverQuota(usage.over(messages, size).unwrap_or(OverQuota::Pool { size, messages })))
}

pub(super) async fn give_back(sql: &Session, account: AccountId, messages: u64, size_bytes: u64) -> Result<()> {
    let text = "UPDATE account SET messages = messages - $2, size_bytes = size_bytes - $3 WHERE account_id = $1";
    Ok(sql.execute(text, &[&id(account), &rows::param(messages), &rows::param(size_bytes)]).await.map(drop)?)
}

pub(super) async fn usage(sql: &Session, account: AccountId, now: UtcMillis) -> Result<Usage> {
    let text = "SELECT messages, size_bytes, quota_bytes, quota_messages,
         coalesce((size_bytes >= allowed_bytes OR messages >= allowed_messages) AND EXISTS (
             SELECT 1 FROM pool_member m JOIN pool p ON p.pool_id = m.pool_id
             WHERE m.account_id = $1 AND p.dry_until > $2), false)
         FROM account WHERE account_id = $1";
    let Some(row) = sql.row_opt(text, &[&id(account), &now.0]).await? else { return Ok(Usage::default()) };
    Ok(Usage {
        messages: rows::int(&row, 0)?,
        size: ByteSize(rows::int(&row, 1)?),
        quota: rows::quota(&row, 2)?,
        is_pool_dry: rows::value(&row, 4)?,
    })
}

pub(super) async fn set_quota(sql: &Session, account: AccountId, quota: Quota, now: UtcMillis) -> Result<()> {
    ensure(sql, account, now).await?;
    let (size, messages) = (quota.size.map(|size| rows::param(size.0)), quota.messages.map(rows::param));
    let text = "UPDATE account SET quota_bytes = $2, quota_messages = $3
         WHERE account_id = $1 AND (quota_bytes, quota_messages) IS DISTINCT FROM ($2, $3)";
    sql.execute(text, &[&id(account), &size, &messages]).await?;
    Ok(())
}

/// Removes a part of what the account has; true when nothing is left.
pub(super) async fn delete(sql: &Session, account: AccountId, now: UtcMillis) -> Result<bool> {
    let text = "SELECT mailbox_id FROM mailbox WHERE account_id = $1 AND messages > 0 LIMIT 1";
    if let Some(row) = sql.row_opt(text, &[&id(account)]).await? {
        let all = [base::Uid::MIN..=base::Uid::MAX];
        let step = change::expunge(sql, account, rows::mailbox_id(&row, 0)?, &all, false, now).await?;
        if !step.gone.is_empty() {
            return Ok(false);
        }
    }
    if removed::purge(sql, account, None, now).await? > 0 || held::let_go(sql, account, None, now).await? > 0 {
        return Ok(false);
    }
    allowance::set_pools(sql, account, &[]).await?;
    for table in
        ["mailbox", "subscription", "vanished", "mailbox_gone", "thread_ref", "delivered", "owner_verdict", "account"]
    {
        sql.execute(&format!("DELETE FROM {table} WHERE account_id = $1"), &[&id(account)]).await?;
    }
    Ok(true)
}
