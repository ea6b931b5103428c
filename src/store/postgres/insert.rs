//! New entries: deliveries and what clients append.

use std::collections::BTreeSet;

use base::{AccountId, BlobId, ByteSize, MailboxId, UidValidity, UtcMillis};

use super::{account, mailboxes, rows};
use crate::error::{AppendError, StoreError};
use crate::model::{AppendedEntry, Committed, Delivery, EmailId, MailboxName, NewEntry, OverQuota, Role, Target};
use crate::sqlite::insert::{Counted, limited, size_of};
use crate::sqlite::thread::ThreadKeys;
use engine::postgres::{Params, Session};

/// Put again, it can be delivered.
fn no_blob() -> StoreError {
    super::unavailable("the content was put too long ago, put it again")
}

/// What a delivery came to.
pub(super) enum Delivered {
    Made(Committed),
    /// The account has no such mailbox yet: [`prepare`] makes it.
    Unprepared,
}

/// Adds one delivery, or finds that it was made before: one statement that is its own transaction.
pub(super) async fn deliver(sql: &Session, delivery: &Delivery) -> Result<Delivered, AppendError> {
    let account = delivery.account;
    let (role, name) = match &delivery.target {
        Target::Role(role) => (*role, None),
        Target::Named(name) => (Role::Inbox, Some(name.as_str())),
    };
    let text = "SELECT outcome, to_mailbox, at_uid, at_modseq, new_email, to_name, used, quota
                FROM ortler_deliver($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    let row = sql
        .row(
            text,
            &[
                &account::id(account),
                &delivery.message.to_bytes().as_slice(),
                &role.as_str(),
                &name,
                &delivery.blob.id.to_bytes().as_slice(),
                &delivery.prefix.as_ref(),
                &delivery.summary.as_ref(),
                &i64::from(delivery.flags.system.bits()),
                &rows::keywords(&limited(&delivery.flags)),
                &delivery.received_at.0,
                &rows::param(size_of(&delivery.blob, delivery.prefix.len())),
                &ThreadKeys::of(&delivery.summary).joined(),
            ],
        )
        .await?;
    match rows::value::<&str>(&row, 0)? {
        "done" => Ok(Delivered::Made(Committed {
            account,
            mailbox: rows::mailbox_id(&row, 1)?,
            uid: rows::uid(&row, 2)?,
            modseq: rows::modseq(&row, 3)?,
            email: EmailId(rows::int(&row, 4)?),
            mailbox_name: rows::name(&row, 5)?,
        })),
        "no account" | "no mailbox" => Ok(Delivered::Unprepared),
        "no blob" => Err(no_blob().into()),
        "over quota" => Err(AppendError::OverQuota(OverQuota::Size {
            used: ByteSize(rows::int(&row, 6)?),
            limit: ByteSize(rows::int(&row, 7)?),
        })),
        "too many messages" => {
            Err(AppendError::OverQuota(OverQuota::Messages { used: rows::int(&row, 6)?, limit: rows::int(&row, 7)? }))
        }
        "no allowance" => {
            let size = ByteSize(rows::int(&row, 6)?);
            Err(AppendError::OverQuota(OverQuota::Pool { size, messages: 1 }))
        }
        other => Err(rows::unreadable(&format!("delivery outcome {other}")).into()),
    }
}

/// Makes the account and the mailbox that a delivery lacks.
pub(super) async fn prepare(sql: &Session, delivery: &Delivery, now: UtcMillis) -> Result<(), StoreError> {
    account::ensure(sql, delivery.account, now).await?;
    let role = match &delivery.target {
        Target::Role(role) => *role,
        Target::Named(_) => Role::Inbox,
    };
    mailboxes::with_role(sql, delivery.account, role, now).await.map(drop)
}

/// Holds the blobs against garbage collection until the transaction ends; refuses those it has taken.
pub(super) async fn hold(sql: &Session, blobs: impl Iterator<Item = BlobId>) -> Result<(), StoreError> {
    let wanted: BTreeSet<[u8; 16]> = blobs.map(BlobId::to_bytes).collect();
    let wanted: Vec<&[u8]> = wanted.iter().map(<[u8; 16]>::as_slice).collect();
    let text = "SELECT 1 FROM blob WHERE blob_id = ANY ($1::bytea[]) FOR KEY SHARE";
    if sql.rows(text, &[&wanted]).await?.len() == wanted.len() { Ok(()) } else { Err(no_blob()) }
}

/// Adds a client's messages, all or none.
pub(super) async fn append(
    sql: &Session,
    account: AccountId,
    mailbox: MailboxId,
    entries: &[NewEntry],
    now: UtcMillis,
) -> Result<Vec<AppendedEntry>, AppendError> {
    account::ensure(sql, account, now).await?;
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    hold(sql, entries.iter().map(|entry| entry.blob.id)).await?;
    let counted = Counted::of(entries.iter().map(|entry| (&entry.flags, entry.blob.size_bytes)));
    let room = account::take_room(sql, account, counted.messages, counted.size_bytes).await?;
    let last_modseq = room.modseq + counted.messages - 1;
    let admitted = admit(sql, account, mailbox, &counted, last_modseq).await?.ok_or(AppendError::NoMailbox)?;

    let blobs: Vec<[u8; 16]> = entries.iter().map(|entry| entry.blob.id.to_bytes()).collect();
    let blobs: Vec<&[u8]> = blobs.iter().map(<[u8; 16]>::as_slice).collect();
    let summaries: Vec<&[u8]> = entries.iter().map(|entry| entry.summary.as_ref()).collect();
    let text = "INSERT INTO content (account_id, content_id, blob_id, prefix, summary)
        SELECT $1::bigint, $2::bigint + n.nth - 1, n.blob, '', n.summary
        FROM unnest($3::bytea[], $4::bytea[]) WITH ORDINALITY AS n (blob, summary, nth)";
    let (id, first_email, first_modseq) = (account::id(account), rows::param(room.email), rows::param(room.modseq));
    sql.execute(text, &[&id, &first_email, &blobs, &summaries]).await?;

    let keys: Vec<String> = entries.iter().map(|entry| ThreadKeys::of(&entry.summary).joined()).collect();
    let system: Vec<i64> = entries.iter().map(|entry| i64::from(entry.flags.system.bits())).collect();
    let keywords: Vec<Option<String>> = entries.iter().map(|entry| rows::keywords(&limited(&entry.flags))).collect();
    let dates: Vec<i64> = entries.iter().map(|entry| entry.internal_date.0).collect();
    let sizes: Vec<i64> = entries.iter().map(|entry| rows::param(size_of(&entry.blob, 0))).collect();
    let text = "INSERT INTO entry (account_id, mailbox_id, uid, email_id, thread_id, modseq, created_modseq, system,
        keywords, internal_date, size_bytes, content_id)
        SELECT $1::bigint, $2::bigint, $3::bigint + n.nth - 1, $4::bigint + n.nth - 1,
        ortler_thread($1::bigint, n.keys, $4::bigint + n.nth - 1), $5::bigint + n.nth - 1, $5::bigint + n.nth - 1,
        n.system, n.keywords, n.internal_date, n.size_bytes, $4::bigint + n.nth - 1
        FROM unnest($6::text[], $7::bigint[], $8::text[], $9::bigint[], $10::bigint[]) WITH ORDINALITY
        AS n (keys, system, keywords, internal_date, size_bytes, nth)";
    let (to, first_uid) = (i64::from(mailbox.0), i64::from(admitted.first_uid));
    let params: Params<'_> =
        &[&id, &to, &first_uid, &first_email, &first_modseq, &keys, &system, &keywords, &dates, &sizes];
    sql.execute(text, params).await?;

    let appended = (0..entries.len()).zip(0u32..).map(|(_, nth)| {
        Ok(AppendedEntry {
            uid_validity: admitted.uid_validity,
            uid: rows::new_uid(admitted.first_uid + nth)?,
            modseq: rows::new_modseq(room.modseq + u64::from(nth))?,
            email: EmailId(room.email + u64::from(nth)),
        })
    });
    appended.collect()
}

/// A mailbox that made room for entries.
pub(super) struct Admitted {
    pub first_uid: u32,
    pub uid_validity: UidValidity,
    pub name: MailboxName,
}

/// Takes UIDs and counts the entries in; `None` if there is no such mailbox.
pub(super) async fn admit(
    sql: &Session,
    account: AccountId,
    mailbox: MailboxId,
    counted: &Counted,
    last_modseq: u64,
) -> Result<Option<Admitted>, StoreError> {
    let text = "UPDATE mailbox SET uid_next = uid_next + $3, messages = messages + $3, unseen = unseen + $4,
         deleted = deleted + $5, size_bytes = size_bytes + $6, highest_modseq = $7, changed_modseq = $7
         WHERE account_id = $1 AND mailbox_id = $2 RETURNING uid_next - $3, uid_validity, name";
    let [messages, unseen, deleted, size_bytes, modseq] =
        [counted.messages, counted.unseen, counted.deleted, counted.size_bytes, last_modseq].map(rows::param);
    let (id, mailbox) = (account::id(account), i64::from(mailbox.0));
    let row = sql.row_opt(text, &[&id, &mailbox, &messages, &unseen, &deleted, &size_bytes, &modseq]).await?;
    row.map(|row| {
        let (first_uid, uid_validity) = (rows::small(&row, 0)?, rows::uid_validity(&row, 1)?);
        Ok(Admitted { first_uid, uid_validity, name: rows::name(&row, 2)? })
    })
    .transpose()
}
