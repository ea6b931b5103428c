//! Reads of entries.

use std::ops::RangeInclusive;

use base::{AccountId, MailboxId, ModSeq, Uid, UtcMillis};

use super::rows::{self, ENTRY_COLUMNS, MAILBOX_COLUMNS, STATE_COLUMNS};
use super::{account, log};
use crate::error::StoreError;
use crate::model::{Changes, EmailId, Entry, Mailbox, ThreadId};
use crate::traits::EmailState;
use engine::postgres::Session;

type Result<T> = std::result::Result<T, StoreError>;

/// An account never seen is as new as can be.
pub(super) async fn modseq(sql: &Session, account: AccountId) -> Result<ModSeq> {
    let row = sql.row_opt("SELECT modseq FROM account WHERE account_id = $1", &[&account::id(account)]).await?;
    row.map_or(Ok(ModSeq::MIN), |row| rows::modseq(&row, 0))
}

pub(super) async fn mailbox(sql: &Session, account: AccountId, mailbox: MailboxId) -> Result<Option<Mailbox>> {
    let text = format!("SELECT {MAILBOX_COLUMNS} FROM mailbox WHERE account_id = $1 AND mailbox_id = $2");
    let row = sql.row_opt(&text, &[&account::id(account), &i64::from(mailbox.0)]).await?;
    row.as_ref().map(rows::mailbox).transpose()
}

/// Where a mailbox stands: the frame of every answer about its changes.
async fn position(sql: &Session, account: AccountId, mailbox: MailboxId) -> Result<Option<(ModSeq, Uid)>> {
    let text = "SELECT highest_modseq, uid_next FROM mailbox WHERE account_id = $1 AND mailbox_id = $2";
    let row = sql.row_opt(text, &[&account::id(account), &i64::from(mailbox.0)]).await?;
    row.map(|row| Ok((rows::modseq(&row, 0)?, rows::uid(&row, 1)?))).transpose()
}

pub(super) async fn states(sql: &Session, account: AccountId, mailbox: MailboxId) -> Result<Option<Changes>> {
    let Some((highest_modseq, uid_next)) = position(sql, account, mailbox).await? else { return Ok(None) };
    let text = format!("SELECT {STATE_COLUMNS} FROM entry WHERE account_id = $1 AND mailbox_id = $2 ORDER BY uid");
    let found = sql.rows(&text, &[&account::id(account), &i64::from(mailbox.0)]).await?;
    let changed = found.iter().map(|row| rows::state(row, 0)).collect::<Result<_>>()?;
    Ok(Some(Changes { changed, vanished: Vec::new(), highest_modseq, uid_next }))
}

pub(super) async fn changes_since(
    sql: &Session,
    account: AccountId,
    mailbox: MailboxId,
    since: ModSeq,
) -> Result<Option<Changes>> {
    let Some((highest_modseq, uid_next)) = position(sql, account, mailbox).await? else { return Ok(None) };
    let mut changes = Changes { changed: Vec::new(), vanished: Vec::new(), highest_modseq, uid_next };
    if highest_modseq <= since {
        return Ok(Some(changes));
    }
    if !log::reaches(sql, account, since).await? {
        return Ok(None);
    }
    let (id, mailbox, since) = (account::id(account), i64::from(mailbox.0), rows::param(since.as_raw()));
    let text = format!(
        "SELECT {STATE_COLUMNS} FROM entry WHERE account_id = $1 AND modseq > $3 AND mailbox_id = $2 ORDER BY uid"
    );
    let found = sql.rows(&text, &[&id, &mailbox, &since]).await?;
    changes.changed = found.iter().map(|row| rows::state(row, 0)).collect::<Result<_>>()?;
    let text = "SELECT uid FROM vanished WHERE account_id = $1 AND modseq > $3 AND mailbox_id = $2 ORDER BY uid";
    let found = sql.rows(text, &[&id, &mailbox, &since]).await?;
    changes.vanished = found.iter().map(|row| rows::uid(row, 0)).collect::<Result<_>>()?;
    Ok(Some(changes))
}

/// First and last UIDs of ranges, as parameters of [`in_ranges`].
pub(super) fn bounds(ranges: &[RangeInclusive<Uid>]) -> (Vec<i64>, Vec<i64>) {
    ranges.iter().map(|r| (i64::from(r.start().as_raw()), i64::from(r.end().as_raw()))).unzip()
}

/// Selects over UID ranges (parameters: account, mailbox, first UIDs, last UIDs, limit) in one question that walks them
/// in order and ends at the limit.
pub(super) fn in_ranges(columns: &str, from: &str, condition: &str) -> String {
    format!(
        "SELECT e.* FROM unnest($3::bigint[], $4::bigint[]) AS r (low, high) CROSS JOIN LATERAL (
             SELECT {columns} FROM {from} WHERE entry.account_id = $1 AND entry.mailbox_id = $2
             AND entry.uid BETWEEN r.low AND r.high {condition} ORDER BY entry.uid LIMIT $5::bigint
         ) e LIMIT $5::bigint"
    )
}

const WITH_CONTENT: &str = "entry JOIN content USING (account_id, content_id)";

pub(super) async fn entries(
    sql: &Session,
    account: AccountId,
    mailbox: MailboxId,
    uids: &[RangeInclusive<Uid>],
    limit: usize,
) -> Result<Vec<Entry>> {
    let (low, high) = bounds(uids);
    let text = in_ranges(ENTRY_COLUMNS, WITH_CONTENT, "");
    let params = (account::id(account), i64::from(mailbox.0), rows::limit(limit));
    sql.rows(&text, &[&params.0, &params.1, &low, &high, &params.2]).await?.iter().map(rows::entry).collect()
}

pub(super) async fn emails(sql: &Session, account: AccountId, ids: &[EmailId]) -> Result<Vec<Entry>> {
    let ids: Vec<i64> = ids.iter().map(|id| rows::param(id.0)).collect();
    let text = format!(
        "SELECT {ENTRY_COLUMNS} FROM unnest($2::bigint[]) WITH ORDINALITY AS w (wanted, nth)
         JOIN entry ON entry.account_id = $1 AND entry.email_id = w.wanted
         JOIN content USING (account_id, content_id) ORDER BY w.nth"
    );
    sql.rows(&text, &[&account::id(account), &ids]).await?.iter().map(rows::entry).collect()
}

pub(super) async fn email_states(
    sql: &Session,
    account: AccountId,
    mailbox: Option<MailboxId>,
) -> Result<Vec<EmailState>> {
    let (lowest, highest) = mailbox.map_or((0, u32::MAX), |mailbox| (mailbox.0, mailbox.0));
    let text = format!(
        "SELECT mailbox_id, thread_id, internal_date, size_bytes, {STATE_COLUMNS} FROM entry
         WHERE account_id = $1 AND mailbox_id BETWEEN $2 AND $3"
    );
    let found = sql.rows(&text, &[&account::id(account), &i64::from(lowest), &i64::from(highest)]).await?;
    let state = |row| {
        Ok(EmailState {
            mailbox: rows::mailbox_id(row, 0)?,
            thread: ThreadId(rows::int(row, 1)?),
            internal_date: UtcMillis(rows::signed(row, 2)?),
            size_bytes: rows::int(row, 3)?,
            state: rows::state(row, 4)?,
        })
    };
    let mut found = found.iter().map(state).collect::<Result<Vec<_>>>()?;
    found.sort_by_key(|email| std::cmp::Reverse((email.internal_date, email.state.email)));
    Ok(found)
}

pub(super) async fn thread(sql: &Session, account: AccountId, thread: ThreadId) -> Result<Vec<EmailId>> {
    let text = "SELECT email_id, internal_date FROM entry WHERE account_id = $1 AND email_id = $2
         UNION ALL
         SELECT email_id, internal_date FROM entry WHERE account_id = $1 AND thread_id = $2 AND thread_id <> email_id
         ORDER BY internal_date, email_id";
    let found = sql.rows(text, &[&account::id(account), &rows::param(thread.0)]).await?;
    found.iter().map(|row| rows::int(row, 0).map(EmailId)).collect()
}
