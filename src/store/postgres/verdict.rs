//! What owners said of messages.

use base::{AccountId, MailboxId, UtcMillis};
use engine::postgres::{Session, value};

use super::{account, rows};
use crate::error::StoreError;
use crate::model::{EmailId, OwnerVerdict, Role, of_move};

type Result<T> = std::result::Result<T, StoreError>;

/// Notes what a move or copy says of messages, by their ids afterwards.
pub(super) async fn note_move(
    sql: &Session,
    account: AccountId,
    (from, to): (MailboxId, MailboxId),
    emails: Vec<i64>,
    now: UtcMillis,
) -> Result<()> {
    let text = "SELECT mailbox_id, role FROM mailbox WHERE account_id = $1 AND mailbox_id IN ($2, $3)";
    let (id, source, target) = (account::id(account), i64::from(from.0), i64::from(to.0));
    let found = sql.rows(text, &[&id, &source, &target]).await?;
    let mut roles = (None, None);
    for row in &found {
        let (mailbox, role): (i64, Option<String>) = (value(row, 0)?, value(row, 1)?);
        let role = role.as_deref().and_then(Role::from_name);
        if mailbox == source {
            roles.0 = role;
        }
        if mailbox == target {
            roles.1 = role;
        }
    }
    match of_move(roles.0, roles.1) {
        Some(is_spam) => note(sql, account, &emails, &vec![is_spam; emails.len()], now).await,
        None => Ok(()),
    }
}

pub(super) async fn note(
    sql: &Session,
    account: AccountId,
    emails: &[i64],
    is_spam: &[bool],
    now: UtcMillis,
) -> Result<()> {
    let text = "INSERT INTO owner_verdict (account_id, email_id, is_spam, given_at)
         SELECT $1::bigint, n.email, n.is_spam, $4::bigint FROM unnest($2::bigint[], $3::boolean[]) AS n (email, is_spam)
         ON CONFLICT (account_id, email_id) DO UPDATE SET is_spam = excluded.is_spam, given_at = excluded.given_at";
    sql.execute(text, &[&account::id(account), &emails, &is_spam, &now.0]).await?;
    Ok(())
}

/// The oldest first.
pub(super) async fn list(sql: &Session, limit: usize) -> Result<Vec<OwnerVerdict>> {
    let text = "SELECT account_id, email_id, is_spam, given_at FROM owner_verdict ORDER BY given_at LIMIT $1";
    let found = sql.rows(text, &[&rows::limit(limit)]).await?;
    let read = |row| {
        Ok(OwnerVerdict {
            account: AccountId(rows::int(row, 0)?),
            email: EmailId(rows::int(row, 1)?),
            is_spam: value(row, 2)?,
            given_at: UtcMillis(value(row, 3)?),
        })
    };
    found.iter().map(read).collect()
}

/// A later word stays.
pub(super) async fn settle(sql: &Session, done: &[OwnerVerdict]) -> Result<()> {
    let accounts: Vec<i64> = done.iter().map(|verdict| account::id(verdict.account)).collect();
    let emails: Vec<i64> = done.iter().map(|verdict| rows::param(verdict.email.0)).collect();
    let is_spam: Vec<bool> = done.iter().map(|verdict| verdict.is_spam).collect();
    let given: Vec<i64> = done.iter().map(|verdict| verdict.given_at.0).collect();
    let text = "DELETE FROM owner_verdict v
         USING unnest($1::bigint[], $2::bigint[], $3::boolean[], $4::bigint[]) AS n (account, email, is_spam, given)
         WHERE v.account_id = n.account AND v.email_id = n.email AND v.is_spam = n.is_spam AND v.given_at = n.given";
    sql.execute(text, &[&accounts, &emails, &is_spam, &given]).await?;
    Ok(())
}
