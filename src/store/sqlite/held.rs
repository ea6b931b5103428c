//! Held messages.

use async_trait::async_trait;
use base::{ModSeq, Uid, UtcMillis};
use rusqlite::{Connection, OptionalExtension as _, Result, params};

use super::insert::{self, Counted};
use super::thread::{self, ThreadKeys};
use super::{Outcome, Refusal, SqliteStore, account, blobs, mailboxes, rows};
use crate::error::{AppendError, StoreError};
use crate::held;
use crate::model::{Committed, EmailId, Flags, Held, HeldFilter, HeldId, HeldMessage, HeldNote, NewHeld, Role};
use crate::traits::HeldStore;

/// Messages let go in one transaction.
const STEP: usize = 200;

fn hold(sql: &Connection, new: &NewHeld, now: UtcMillis) -> Outcome<HeldId, AppendError> {
    account::ensure(sql, new.account, now)?;
    let known = sql
        .prepare_cached("SELECT email_id FROM held WHERE account_id = ?1 AND message_id = ?2")?
        .query_row((new.account.0, new.message.to_bytes()), |row| row.get(0))
        .optional()?;
    if let Some(email) = known {
        return Ok(HeldId { account: new.account, email: EmailId(email) });
    }
    blobs::refuse_stale(sql, &new.blob, now)?;
    blobs::refer(sql, &new.blob)?;
    let content = insert::insert_content(sql, new.account, new.blob.id, &new.prefix, &new.summary)?;
    let email: u64 = sql
        .prepare_cached(
            "UPDATE account SET next_email = next_email + 1 WHERE account_id = ?1 RETURNING next_email - 1",
        )?
        .query_row([new.account.0], |row| row.get(0))?;
    let facts = held::bounded(&new.facts);
    sql.prepare_cached(
        "INSERT INTO held (account_id, email_id, message_id, domain_id, reason, detail, score, sender, author, recipient,
             subject, size_bytes, held_at, expires_at, content_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?
    .execute(params![
        new.account.0,
        email,
        new.message.to_bytes(),
        new.domain.0,
        facts.reason,
        facts.detail,
        facts.score,
        facts.sender,
        facts.author,
        facts.recipient,
        facts.subject,
        insert::size_of(&new.blob, new.prefix.len()),
        new.held_at.0,
        new.expires_at.0,
        content
    ])?;
    Ok(HeldId { account: new.account, email: EmailId(email) })
}

fn release(sql: &Connection, id: HeldId, role: Role, now: UtcMillis) -> Outcome<Option<Committed>, AppendError> {
    let (account, HeldId { email: was, .. }) = (id.account, id);
    let found = sql
        .prepare_cached(
            "SELECT h.size_bytes, c.summary FROM held h JOIN content c USING (content_id)
             WHERE h.account_id = ?1 AND h.email_id = ?2",
        )?
        .query_row((account.0, was.0), |row| Ok((row.get::<_, u64>(0)?, row.get::<_, Vec<u8>>(1)?)))
        .optional()?;
    let Some((size_bytes, summary)) = found else { return Ok(None) };
    let room = account::take_room(sql, account, 1, size_bytes, now)?;
    let mailbox = mailboxes::with_role(sql, account, role, now)?;
    let counted = Counted::of([(&Flags::default(), size_bytes)]);
    let admitted =
        insert::admit(sql, account, mailbox, &counted, room.modseq)?.ok_or(Refusal::Because(AppendError::NoMailbox))?;
    let thread = thread::join(sql, account.0, &ThreadKeys::of(&summary), room.email)?;
    sql.prepare_cached(
        "INSERT INTO entry (account_id, mailbox_id, uid, email_id, thread_id, modseq, created_modseq, system, keywords,
             internal_date, size_bytes, content_id)
         SELECT account_id, ?3, ?4, ?5, ?6, ?7, ?7, 0, NULL, held_at, size_bytes, content_id
         FROM held WHERE account_id = ?1 AND email_id = ?2",
    )?
    .execute((account.0, was.0, mailbox.0, admitted.first_uid, room.email, thread, room.modseq))?;
    sql.prepare_cached("DELETE FROM held WHERE account_id = ?1 AND email_id = ?2")?.execute((account.0, was.0))?;
    Ok(Some(Committed {
        account,
        mailbox,
        mailbox_name: admitted.name,
        uid: Uid::new(admitted.first_uid).ok_or_else(|| rows::unreadable(0, "uid 0"))?,
        modseq: ModSeq::new(room.modseq).ok_or_else(|| rows::unreadable(0, "mod-sequence 0"))?,
        email: EmailId(room.email),
    }))
}

/// Lets held messages go; gives how many there were.
pub(super) fn let_go(sql: &Connection, ids: &[(u64, u64)], now: UtcMillis) -> Result<u64> {
    let mut remove =
        sql.prepare_cached("DELETE FROM held WHERE account_id = ?1 AND email_id = ?2 RETURNING content_id")?;
    let mut remove_content = sql.prepare_cached("DELETE FROM content WHERE content_id = ?1 RETURNING blob_id")?;
    let mut gone = 0;
    for id in ids {
        let Some(content) = remove.query_row(*id, |row| row.get::<_, i64>(0)).optional()? else { continue };
        gone += 1;
        if let Some(blob) = remove_content.query_row([content], |row| rows::blob_id(row, 0)).optional()? {
            blobs::release(sql, blob, now)?;
        }
    }
    Ok(gone)
}

/// A step of what an account has held; gives how many.
pub(super) fn let_go_some(sql: &Connection, account: base::AccountId, now: UtcMillis) -> Result<u64> {
    let due: Vec<(u64, u64)> = sql
        .prepare_cached("SELECT account_id, email_id FROM held WHERE account_id = ?1 LIMIT ?2")?
        .query_map((account.0, STEP), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_>>()?;
    let_go(sql, &due, now)
}

#[async_trait]
impl HeldStore for SqliteStore {
    async fn hold(&self, new: Vec<NewHeld>) -> Vec<Result<HeldId, AppendError>> {
        let (now, count) = (self.clock.utc(), new.len());
        let written: Result<_, StoreError> = self
            .write(move |sql| {
                let each = new.iter().map(|one| match hold(sql, one, now) {
                    Ok(held) => Ok(Ok(held)),
                    Err(Refusal::Because(error)) => Ok(Err(error)),
                    Err(Refusal::Sql(error)) => Err(error),
                });
                Ok(each.collect::<rusqlite::Result<Vec<_>>>()?)
            })
            .await;
        written.unwrap_or_else(|error| vec![Err(AppendError::Store(error)); count])
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
        let now = self.clock.utc();
        let released = self.write(move |sql| release(sql, id, role, now)).await?;
        if let Some(committed) = &released {
            self.publish(committed.account, committed.modseq);
        }
        Ok(released)
    }

    async fn drop_held(&self, ids: Vec<HeldId>) -> Result<u64, StoreError> {
        let (now, mut gone) = (self.clock.utc(), 0);
        for some in ids.chunks(STEP) {
            let some: Vec<(u64, u64)> = some.iter().map(|id| (id.account.0, id.email.0)).collect();
            gone += self.write_sql(move |sql| let_go(sql, &some, now)).await?;
        }
        Ok(gone)
    }

    async fn expired_held(&self, limit: usize) -> Result<Vec<HeldId>, StoreError> {
        held::expired(&self.place(), self.clock.utc(), limit).await
    }
}
