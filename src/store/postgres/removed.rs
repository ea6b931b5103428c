//! Expunged emails within their undelete window: listed, brought back, let go.

use base::{AccountId, MailboxId, UtcMillis};
use tokio_postgres::Row;

use super::{account, insert, mailboxes, rows};
use crate::error::{AppendError, MailboxError, StoreError};
use crate::model::{EmailId, Flags, MailboxName, Removed, RemovedMailbox, Restored, Role};
use crate::sqlite::insert::Counted;
use crate::sqlite::removed::kept;
use crate::sqlite::thread::ThreadKeys;
use engine::postgres::Session;

/// Emails let go in one transaction.
const STEP: i64 = 1000;

type Result<T, E = StoreError> = std::result::Result<T, E>;

pub(super) async fn list(sql: &Session, account: AccountId, limit: usize) -> Result<Vec<Removed>> {
    let text =
        "SELECT email_id, removed_at, mailbox_name, system, keywords, internal_date, size_bytes, blob_id, prefix,
         summary FROM removed JOIN content USING (account_id, content_id)
         WHERE account_id = $1 ORDER BY removed_at DESC, email_id DESC LIMIT $2";
    sql.rows(text, &[&account::id(account), &rows::limit(limit)]).await?.iter().map(removed).collect()
}

/// What went with a mailbox at one moment, from above `after` on.
pub(super) async fn of_mailbox(
    sql: &Session,
    account: AccountId,
    gone: &RemovedMailbox,
    after: EmailId,
    limit: usize,
) -> Result<Vec<EmailId>> {
    let text = "SELECT email_id FROM removed
         WHERE account_id = $1 AND email_id > $2 AND mailbox_id = $3 AND removed_at = $4 ORDER BY email_id LIMIT $5";
    let (id, after, mailbox) = (account::id(account), rows::param(after.0), i64::from(gone.mailbox.0));
    let found = sql.rows(text, &[&id, &after, &mailbox, &gone.removed_at.0, &rows::limit(limit)]).await?;
    found.iter().map(|row| Ok(EmailId(rows::int(row, 0)?))).collect()
}

fn removed(row: &Row) -> Result<Removed> {
    Ok(Removed {
        email: EmailId(rows::int(row, 0)?),
        removed_at: UtcMillis(rows::signed(row, 1)?),
        mailbox: rows::name(row, 2)?,
        flags: rows::flags(row, 3)?,
        internal_date: UtcMillis(rows::signed(row, 5)?),
        size_bytes: rows::int(row, 6)?,
        blob: rows::blob_id(row, 7)?,
        prefix: rows::bytes(row, 8)?,
        summary: rows::bytes(row, 9)?,
    })
}

pub(super) async fn mailboxes(sql: &Session, account: AccountId) -> Result<Vec<RemovedMailbox>> {
    let text = "SELECT m.mailbox_id, m.name, m.role, m.subscribed, m.removed_at, count(r.email_id),
             coalesce(sum(r.size_bytes), 0)::bigint
         FROM removed_mailbox m LEFT JOIN removed r
         ON r.account_id = m.account_id AND r.mailbox_id = m.mailbox_id AND r.removed_at = m.removed_at
         WHERE m.account_id = $1 GROUP BY m.account_id, m.mailbox_id ORDER BY m.removed_at DESC, m.name";
    let mailbox = |row: &Row| {
        Ok(RemovedMailbox {
            mailbox: rows::mailbox_id(row, 0)?,
            name: rows::name(row, 1)?,
            role: rows::value::<Option<&str>>(row, 2)?.and_then(Role::from_name),
            subscribed: rows::value(row, 3)?,
            removed_at: UtcMillis(rows::signed(row, 4)?),
            messages: rows::int(row, 5)?,
            size_bytes: rows::int(row, 6)?,
        })
    };
    sql.rows(text, &[&account::id(account)]).await?.iter().map(mailbox).collect()
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

pub(super) async fn restore(
    sql: &Session,
    account: AccountId,
    emails: &[EmailId],
    into: Option<&MailboxName>,
    now: UtcMillis,
) -> Result<Vec<Restored>, AppendError> {
    account::ensure(sql, account, now).await?;
    let mut out = Vec::new();
    for email in emails {
        let Some(back) = find(sql, account, *email).await? else { continue };
        let mailbox = match into {
            Some(name) => by_name(sql, account, name, now).await?,
            None if mailboxes::exists(sql, account, back.mailbox).await? => back.mailbox,
            None => by_name(sql, account, &back.name, now).await?,
        };
        out.push(bring_back(sql, account, &back, mailbox).await?);
    }
    Ok(out)
}

async fn find(sql: &Session, account: AccountId, email: EmailId) -> Result<Option<Back>> {
    let text = "SELECT mailbox_id, mailbox_name, system, keywords, size_bytes, summary
         FROM removed JOIN content USING (account_id, content_id) WHERE account_id = $1 AND email_id = $2";
    let row = sql.row_opt(text, &[&account::id(account), &rows::param(email.0)]).await?;
    row.map(|row| {
        Ok(Back {
            was: email.0,
            mailbox: rows::mailbox_id(&row, 0)?,
            name: rows::name(&row, 1)?,
            flags: kept(rows::flags(&row, 2)?),
            size_bytes: rows::int(&row, 4)?,
            keys: ThreadKeys::of(rows::value(&row, 5)?),
        })
    })
    .transpose()
}

/// The mailbox of this name, made if need be. A name that has its role by custom gets it.
async fn by_name(
    sql: &Session,
    account: AccountId,
    name: &MailboxName,
    now: UtcMillis,
) -> Result<MailboxId, AppendError> {
    if let Some(found) = mailboxes::id_of_name(sql, account, name).await? {
        return Ok(found);
    }
    let custom = Role::INITIAL.into_iter().find(|(_, usual)| *usual == name.as_str()).map(|(role, _)| role);
    let role = match custom {
        Some(role) if mailboxes::id_of_role(sql, account, role).await?.is_none() => Some(role),
        _ => None,
    };
    match mailboxes::create(sql, account, name, role, now).await {
        Ok(made) => Ok(made.id),
        Err(MailboxError::Store(error)) => Err(AppendError::Store(error)),
        Err(_) => Err(AppendError::NoMailbox),
    }
}

async fn bring_back(
    sql: &Session,
    account: AccountId,
    back: &Back,
    mailbox: MailboxId,
) -> Result<Restored, AppendError> {
    let room = account::take_room(sql, account, 1, back.size_bytes).await?;
    let counted = Counted::of([(&back.flags, back.size_bytes)]);
    let admitted = insert::admit(sql, account, mailbox, &counted, room.modseq).await?.ok_or(AppendError::NoMailbox)?;
    let text = "WITH back AS (DELETE FROM removed WHERE account_id = $1 AND email_id = $2 RETURNING *)
         INSERT INTO entry (account_id, mailbox_id, uid, email_id, thread_id, modseq, created_modseq, system, keywords,
         internal_date, size_bytes, content_id)
         SELECT account_id, $3::bigint, $4::bigint, $5::bigint, ortler_thread($1, $7, $5::bigint), $6::bigint,
         $6::bigint, system & ~8, keywords, internal_date, size_bytes, content_id FROM back";
    let (id, was, to) = (account::id(account), rows::param(back.was), i64::from(mailbox.0));
    let (uid, email, modseq) = (i64::from(admitted.first_uid), rows::param(room.email), rows::param(room.modseq));
    sql.execute(text, &[&id, &was, &to, &uid, &email, &modseq, &back.keys.joined()]).await?;
    Ok(Restored {
        account,
        was: EmailId(back.was),
        email: EmailId(room.email),
        mailbox,
        mailbox_name: admitted.name,
        uid: rows::new_uid(admitted.first_uid)?,
        modseq: rows::new_modseq(room.modseq)?,
    })
}

/// Lets go one step of these emails, or of all the account's; gives how many.
pub(super) async fn purge(
    sql: &Session,
    account: AccountId,
    emails: Option<&[EmailId]>,
    now: UtcMillis,
) -> Result<u64> {
    if emails.is_none() {
        sql.execute("DELETE FROM removed_mailbox WHERE account_id = $1", &[&account::id(account)]).await?;
    }
    let emails: Option<Vec<i64>> = emails.map(|emails| emails.iter().map(|email| rows::param(email.0)).collect());
    let text = "WITH due AS (
             SELECT email_id FROM removed
             WHERE account_id = $1 AND ($2::bigint[] IS NULL OR email_id = ANY ($2::bigint[])) LIMIT $4
         ), gone AS (
             DELETE FROM removed r USING due WHERE r.account_id = $1 AND r.email_id = due.email_id
             RETURNING r.content_id
         ), content_gone AS (
             DELETE FROM content c USING gone WHERE c.account_id = $1 AND c.content_id = gone.content_id
             RETURNING c.blob_id
         ), released AS (
             INSERT INTO blob_release (released_at, blob_id) SELECT DISTINCT $3::bigint, blob_id FROM content_gone
             ON CONFLICT DO NOTHING
         )
         SELECT count(*) FROM gone";
    rows::int(&sql.row(text, &[&account::id(account), &emails, &now.0, &STEP]).await?, 0)
}
