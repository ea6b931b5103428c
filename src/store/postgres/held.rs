//! Held messages, on the server that all nodes share.

use async_trait::async_trait;
use base::{AccountId, UtcMillis};
use engine::postgres::{Params, Session};

use super::{PgStore, account, insert, mailboxes, rows};
use crate::error::{AppendError, StoreError};
use crate::held;
use crate::model::{
    Committed, EmailId, Flags, Held, HeldFilter, HeldId, HeldMessage, HeldNote, NewHeld, OverQuota, Role,
};
use crate::sqlite::insert::{Counted, size_of};
use crate::sqlite::thread::ThreadKeys;
use crate::traits::HeldStore;

/// Messages let go in one transaction.
const STEP: i64 = 200;
/// As for deliveries.
const DRAWS: usize = 16;

async fn hold(sql: &Session, new: &NewHeld, now: UtcMillis) -> Result<HeldId, AppendError> {
    account::ensure(sql, new.account, now).await?;
    // Whoever comes second waits here, and finds it.
    let next = "UPDATE account SET next_email = next_email + 1 WHERE account_id = $1 RETURNING next_email - 1";
    let email: i64 = rows::signed(&sql.row(next, &[&account::id(new.account)]).await?, 0)?;
    let (id, message) = (account::id(new.account), new.message.to_bytes());
    let text = "SELECT email_id FROM held WHERE account_id = $1 AND message_id = $2";
    if let Some(row) = sql.row_opt(text, &[&id, &message.as_slice()]).await? {
        return Ok(HeldId { account: new.account, email: EmailId(rows::int(&row, 0)?) });
    }
    insert::hold(sql, std::iter::once(new.blob.id)).await?;
    let (facts, blob) = (held::bounded(&new.facts), new.blob.id.to_bytes());
    let text = "WITH content AS (
            INSERT INTO content (account_id, content_id, blob_id, prefix, summary) VALUES ($1, $2, $15, $16, $17)
        )
        INSERT INTO held (account_id, email_id, message_id, domain_id, reason, detail, score, sender, author, recipient,
            subject, size_bytes, held_at, expires_at, content_id)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $2)";
    let params: Params<'_> = &[
        &id,
        &email,
        &message.as_slice(),
        &rows::param(new.domain.0),
        &facts.reason,
        &facts.detail,
        &i64::from(facts.score),
        &facts.sender,
        &facts.author,
        &facts.recipient,
        &facts.subject,
        &rows::param(size_of(&new.blob, new.prefix.len())),
        &new.held_at.0,
        &new.expires_at.0,
        &blob.as_slice(),
        &new.prefix.as_ref(),
        &new.summary.as_ref(),
    ];
    sql.execute(text, params).await?;
    Ok(HeldId { account: new.account, email: EmailId(u64::try_from(email).unwrap_or_default()) })
}

async fn release(sql: &Session, id: HeldId, role: Role, now: UtcMillis) -> Result<Option<Committed>, AppendError> {
    let account = id.account;
    let (number, was) = (account::id(account), rows::param(id.email.0));
    let text = "SELECT h.size_bytes, c.summary FROM held h JOIN content c USING (account_id, content_id)
         WHERE h.account_id = $1 AND h.email_id = $2";
    let Some(row) = sql.row_opt(text, &[&number, &was]).await? else { return Ok(None) };
    let (size_bytes, keys) = (rows::int(&row, 0)?, ThreadKeys::of(rows::value(&row, 1)?));
    let room = account::take_room(sql, account, 1, size_bytes).await?;
    let mailbox = mailboxes::with_role(sql, account, role, now).await?;
    let counted = Counted::of([(&Flags::default(), size_bytes)]);
    let admitted = insert::admit(sql, account, mailbox, &counted, room.modseq).await?.ok_or(AppendError::NoMailbox)?;
    let text = "WITH back AS (DELETE FROM held WHERE account_id = $1 AND email_id = $2 RETURNING *)
         INSERT INTO entry (account_id, mailbox_id, uid, email_id, thread_id, modseq, created_modseq, system, keywords,
             internal_date, size_bytes, content_id)
         SELECT account_id, $3::bigint, $4::bigint, $5::bigint, ortler_thread($1, $7, $5::bigint), $6::bigint,
             $6::bigint, 0, NULL, held_at, size_bytes, content_id FROM back";
    let (to, uid) = (i64::from(mailbox.0), i64::from(admitted.first_uid));
    let (email, modseq) = (rows::param(room.email), rows::param(room.modseq));
    sql.execute(text, &[&number, &was, &to, &uid, &email, &modseq, &keys.joined()]).await?;
    Ok(Some(Committed {
        account,
        mailbox,
        mailbox_name: admitted.name,
        uid: rows::new_uid(admitted.first_uid)?,
        modseq: rows::new_modseq(room.modseq)?,
        email: EmailId(room.email),
    }))
}

/// Lets held messages of an account go, those named or a step of all; gives how many there were.
pub(super) async fn let_go(
    sql: &Session,
    account: AccountId,
    emails: Option<&[i64]>,
    now: UtcMillis,
) -> Result<u64, StoreError> {
    let text = "WITH due AS (
             SELECT email_id FROM held
             WHERE account_id = $1 AND ($2::bigint[] IS NULL OR email_id = ANY ($2::bigint[])) LIMIT $4
         ), gone AS (
             DELETE FROM held h USING due WHERE h.account_id = $1 AND h.email_id = due.email_id RETURNING h.content_id
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

impl PgStore {
    async fn hold_one(&self, new: &NewHeld) -> Result<HeldId, AppendError> {
        let session = self.begin(new.account).await?;
        let done = hold(&session, new, self.clock.utc()).await;
        session.end(done).await
    }

    async fn try_to_release(&self, id: HeldId, role: Role) -> Result<Option<Committed>, AppendError> {
        let session = self.begin(id.account).await?;
        let done = release(&session, id, role, self.clock.utc()).await;
        session.end(done).await
    }
}

#[async_trait]
impl HeldStore for PgStore {
    async fn hold(&self, new: Vec<NewHeld>) -> Vec<Result<HeldId, AppendError>> {
        let mut out = Vec::with_capacity(new.len());
        for one in &new {
            out.push(self.hold_one(one).await);
        }
        out
    }

    async fn held(
        &self,
        filter: &HeldFilter,
        before: Option<(UtcMillis, HeldId)>,
        limit: usize,
    ) -> Result<Vec<Held>, StoreError> {
        held::list(&self.place(), filter, before, limit).await
    }

    async fn held_counts(&self, filter: &HeldFilter) -> Result<Vec<(String, u64)>, StoreError> {
        held::counts(&self.place(), filter).await
    }

    async fn held_message(&self, id: HeldId) -> Result<Option<HeldMessage>, StoreError> {
        held::one(&self.place(), id).await
    }

    async fn note_held(&self, ids: Vec<HeldId>, note: HeldNote) -> Result<u64, StoreError> {
        held::note(&self.place(), &ids, note, self.clock.utc()).await
    }

    async fn release_held(&self, id: HeldId, role: Role) -> Result<Option<Committed>, AppendError> {
        let mut draws = 0;
        let released = loop {
            match self.try_to_release(id, role).await {
                Err(AppendError::OverQuota(OverQuota::Pool { size, messages }))
                    if draws < DRAWS && self.draw(id.account, size, messages).await? =>
                {
                    draws += 1;
                }
                other => break other?,
            }
        };
        if let Some(committed) = &released {
            self.publish(committed.account, committed.modseq);
        }
        Ok(released)
    }

    async fn drop_held(&self, ids: Vec<HeldId>) -> Result<u64, StoreError> {
        let mut gone = 0;
        for id in ids {
            let session = self.begin(id.account).await?;
            let done = let_go(&session, id.account, Some(&[rows::param(id.email.0)]), self.clock.utc()).await;
            gone += session.end(done).await?;
        }
        Ok(gone)
    }

    async fn expired_held(&self, limit: usize) -> Result<Vec<HeldId>, StoreError> {
        held::expired(&self.place(), self.clock.utc(), limit).await
    }
}
