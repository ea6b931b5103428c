//! Changes of entries: flags, copies, moves, expunges. Long ones go in steps, so that deliveries to the account never
//! wait for more than one step.

use std::ops::RangeInclusive;

use base::{AccountId, MailboxId, ModSeq, Uid, UtcMillis};
use tokio_postgres::Row;

use super::insert;
use super::read::{bounds, in_ranges};
use super::{account, log, read, rows, verdict};
use crate::error::{AppendError, StoreError};
use crate::model::{Copied, EntryState, FlagChange, FlagOutcome, Flags, SystemFlags, of_flags};
use crate::sqlite::change::changed_flags;
use crate::sqlite::insert::Counted;
use engine::postgres::Session;

/// Entries in one step.
const STEP: usize = 1000;

type Ranges<'a> = &'a [RangeInclusive<Uid>];
type Result<T, E = StoreError> = std::result::Result<T, E>;

async fn select(
    sql: &Session,
    text: &str,
    (account, mailbox): (AccountId, MailboxId),
    ranges: Ranges<'_>,
    limit: usize,
) -> Result<Vec<Row>> {
    let (low, high) = bounds(ranges);
    let params = (account::id(account), i64::from(mailbox.0), rows::limit(limit));
    Ok(sql.rows(text, &[&params.0, &params.1, &low, &high, &params.2]).await?)
}

/// One step of a flag change, and the last UID looked at if there may be more.
pub(super) async fn set_flags(
    sql: &Session,
    account: AccountId,
    mailbox: MailboxId,
    ranges: Ranges<'_>,
    change: &FlagChange,
    unchanged_since: Option<ModSeq>,
    now: UtcMillis,
) -> Result<(FlagOutcome, Option<Uid>)> {
    let text = in_ranges(rows::STATE_COLUMNS, "entry", "");
    let found = select(sql, &text, (account, mailbox), ranges, STEP).await?;
    let found = found.iter().map(|row| rows::state(row, 0)).collect::<Result<Vec<_>>>()?;
    let last = if found.len() == STEP { found.last().map(|state| state.uid) } else { None };
    let is_newer = |state: &EntryState| unchanged_since.is_some_and(|limit| state.modseq > limit);
    let modified = found.iter().filter(|state| is_newer(state)).map(|state| state.uid).collect();
    let mut changed: Vec<_> = found.into_iter().filter(|state| !is_newer(state)).collect();

    let fresh: Vec<Option<Flags>> = changed.iter().map(|state| changed_flags(&state.flags, change)).collect();
    let count = fresh.iter().flatten().count() as u64;
    if count == 0 {
        return Ok((FlagOutcome { changed, modified, modseq: read::modseq(sql, account).await? }, last));
    }
    let first = account::take_modseqs(sql, account, count).await?;
    let (mut unseen, mut deleted) = (0i64, 0i64);
    let (mut uids, mut modseqs, mut systems, mut keywords) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut said = (Vec::new(), Vec::new());
    let touched = changed.iter_mut().zip(fresh).filter_map(|(state, flags)| Some((state, flags?)));
    for ((state, flags), modseq) in touched.zip(first..) {
        let (was, is) = (state.flags.system, flags.system);
        unseen += i64::from(!is.contains(SystemFlags::SEEN)) - i64::from(!was.contains(SystemFlags::SEEN));
        deleted += i64::from(is.contains(SystemFlags::DELETED)) - i64::from(was.contains(SystemFlags::DELETED));
        uids.push(i64::from(state.uid.as_raw()));
        modseqs.push(rows::param(modseq));
        systems.push(i64::from(is.bits()));
        keywords.push(rows::keywords(&flags));
        if let Some(is_spam) = of_flags(&state.flags, &flags) {
            said.0.push(rows::param(state.email.0));
            said.1.push(is_spam);
        }
        state.modseq = rows::new_modseq(modseq)?;
        state.flags = flags;
    }
    let (id, mailbox) = (account::id(account), i64::from(mailbox.0));
    let text = "UPDATE entry SET modseq = n.modseq, system = n.system, keywords = n.keywords
         FROM unnest($3::bigint[], $4::bigint[], $5::bigint[], $6::text[]) AS n (uid, modseq, system, keywords)
         WHERE entry.account_id = $1 AND entry.mailbox_id = $2 AND entry.uid = n.uid";
    sql.execute(text, &[&id, &mailbox, &uids, &modseqs, &systems, &keywords]).await?;
    if !said.0.is_empty() {
        verdict::note(sql, account, &said.0, &said.1, now).await?;
    }
    let modseq = first + count - 1;
    let text = "UPDATE mailbox SET unseen = unseen + $3, deleted = deleted + $4, highest_modseq = $5,
         changed_modseq = $5 WHERE account_id = $1 AND mailbox_id = $2";
    sql.execute(text, &[&id, &mailbox, &unseen, &deleted, &rows::param(modseq)]).await?;
    Ok((FlagOutcome { changed, modified, modseq: rows::new_modseq(modseq)? }, last))
}

/// The parts of an entry that copies, moves and expunges need.
struct Source {
    uid: Uid,
    email: i64,
    created_modseq: i64,
    system: SystemFlags,
    size_bytes: u64,
    content: i64,
}

const SOURCE_COLUMNS: &str = "uid, email_id, created_modseq, system, size_bytes, content_id";

fn source(row: &Row) -> Result<Source> {
    Ok(Source {
        uid: rows::uid(row, 0)?,
        email: rows::signed(row, 1)?,
        created_modseq: rows::signed(row, 2)?,
        system: rows::system(row, 3)?,
        size_bytes: rows::int(row, 4)?,
        content: rows::signed(row, 5)?,
    })
}

async fn sources(
    sql: &Session,
    place: (AccountId, MailboxId),
    ranges: Ranges<'_>,
    only_deleted: bool,
    limit: usize,
) -> Result<Vec<Source>> {
    let text = in_ranges(SOURCE_COLUMNS, "entry", if only_deleted { "AND entry.system & 8 <> 0" } else { "" });
    select(sql, &text, place, ranges, limit).await?.iter().map(source).collect()
}

fn counted(entries: &[Source]) -> Counted {
    let mut sum = Counted::default();
    for entry in entries {
        sum.add(entry.system, entry.size_bytes);
    }
    sum
}

fn uids_of(entries: &[Source]) -> Vec<i64> {
    entries.iter().map(|entry| i64::from(entry.uid.as_raw())).collect()
}

fn pairs(entries: &[Source], first_uid: u32) -> Result<Vec<(Uid, Uid)>> {
    entries.iter().zip(first_uid..).map(|(entry, uid)| Ok((entry.uid, rows::new_uid(uid)?))).collect()
}

/// All in one transaction, so that a copy that fails leaves nothing (RFC 9051 §6.4.7).
pub(super) async fn copy(
    sql: &Session,
    account: AccountId,
    from: MailboxId,
    ranges: Ranges<'_>,
    to: MailboxId,
    now: UtcMillis,
) -> Result<Copied, AppendError> {
    let found = sources(sql, (account, from), ranges, false, usize::MAX).await?;
    if found.is_empty() {
        return nothing_copied(sql, account, to).await;
    }
    let sum = counted(&found);
    let room = account::take_room(sql, account, sum.messages, sum.size_bytes).await?;
    let modseq = room.modseq + sum.messages - 1;
    let admitted = insert::admit(sql, account, to, &sum, modseq).await?.ok_or(AppendError::NoMailbox)?;
    let contents: Vec<i64> = found.iter().map(|entry| entry.content).collect();
    let (id, email) = (account::id(account), rows::param(room.email));
    let text = "INSERT INTO content (account_id, content_id, blob_id, prefix, summary)
        SELECT c.account_id, $2::bigint + n.nth - 1, c.blob_id, c.prefix, c.summary
        FROM unnest($3::bigint[]) WITH ORDINALITY AS n (content, nth)
        JOIN content c ON c.account_id = $1 AND c.content_id = n.content";
    sql.execute(text, &[&id, &email, &contents]).await?;
    let text = "INSERT INTO entry (account_id, mailbox_id, uid, email_id, thread_id, modseq, created_modseq, system,
        keywords, internal_date, size_bytes, content_id)
        SELECT e.account_id, $4::bigint, $5::bigint + n.nth - 1, $6::bigint + n.nth - 1, e.thread_id,
        $7::bigint + n.nth - 1, $7::bigint + n.nth - 1, e.system, e.keywords, e.internal_date, e.size_bytes,
        $6::bigint + n.nth - 1
        FROM unnest($3::bigint[]) WITH ORDINALITY AS n (uid, nth)
        JOIN entry e ON e.account_id = $1 AND e.mailbox_id = $2 AND e.uid = n.uid";
    let (source, target) = (i64::from(from.0), i64::from(to.0));
    let (uid, at) = (i64::from(admitted.first_uid), rows::param(room.modseq));
    sql.execute(text, &[&id, &source, &uids_of(&found), &target, &uid, &email, &at]).await?;
    let emails = (email..).take(found.len()).collect();
    verdict::note_move(sql, account, (from, to), emails, now).await?;
    let uids = pairs(&found, admitted.first_uid)?;
    Ok(Copied { uid_validity: admitted.uid_validity, uids, modseq: rows::new_modseq(modseq)? })
}

async fn nothing_copied(sql: &Session, account: AccountId, to: MailboxId) -> Result<Copied, AppendError> {
    let target = read::mailbox(sql, account, to).await?.ok_or(AppendError::NoMailbox)?;
    let modseq = read::modseq(sql, account).await?;
    Ok(Copied { uid_validity: target.uid_validity, uids: Vec::new(), modseq })
}

/// One step of a move, and the last UID moved if there may be more.
pub(super) async fn r#move(
    sql: &Session,
    account: AccountId,
    from: MailboxId,
    ranges: Ranges<'_>,
    to: MailboxId,
    now: UtcMillis,
) -> Result<(Copied, Option<Uid>), AppendError> {
    let found = sources(sql, (account, from), ranges, false, STEP).await?;
    if found.is_empty() {
        return Ok((nothing_copied(sql, account, to).await?, None));
    }
    let last = if found.len() == STEP { found.last().map(|entry| entry.uid) } else { None };
    let sum = counted(&found);
    let first = account::take_modseqs(sql, account, sum.messages).await?;
    let modseq = first + sum.messages - 1;
    let admitted = insert::admit(sql, account, to, &sum, modseq).await?.ok_or(AppendError::NoMailbox)?;
    dismiss(sql, account, from, &sum, modseq).await?;
    let text = "UPDATE entry SET mailbox_id = $4, uid = $5::bigint + n.nth - 1, modseq = $6::bigint + n.nth - 1
         FROM unnest($3::bigint[]) WITH ORDINALITY AS n (was, nth)
         WHERE entry.account_id = $1 AND entry.mailbox_id = $2 AND entry.uid = n.was";
    let (source, target) = (i64::from(from.0), i64::from(to.0));
    let (uid, at) = (i64::from(admitted.first_uid), rows::param(first));
    sql.execute(text, &[&account::id(account), &source, &uids_of(&found), &target, &uid, &at]).await?;
    note_vanished(sql, account, from, &found, first, true).await?;
    let emails = found.iter().map(|entry| entry.email).collect();
    verdict::note_move(sql, account, (from, to), emails, now).await?;
    let uids = pairs(&found, admitted.first_uid)?;
    Ok((Copied { uid_validity: admitted.uid_validity, uids, modseq: rows::new_modseq(modseq)? }, last))
}

async fn note_vanished(
    sql: &Session,
    account: AccountId,
    mailbox: MailboxId,
    gone: &[Source],
    first: u64,
    is_move: bool,
) -> Result<()> {
    let emails: Vec<i64> = gone.iter().map(|entry| entry.email).collect();
    let created: Vec<i64> = gone.iter().map(|entry| entry.created_modseq).collect();
    let text = "INSERT INTO vanished (account_id, modseq, mailbox_id, uid, email_id, created_modseq, is_move)
         SELECT $1::bigint, $2::bigint + n.nth - 1, $3::bigint, n.uid, n.email, n.created, $7::boolean
         FROM unnest($4::bigint[], $5::bigint[], $6::bigint[]) WITH ORDINALITY AS n (uid, email, created, nth)";
    let (id, first, mailbox) = (account::id(account), rows::param(first), i64::from(mailbox.0));
    sql.execute(text, &[&id, &first, &mailbox, &uids_of(gone), &emails, &created, &is_move]).await?;
    log::count(sql, account, gone.len() as u64).await
}

/// Counts entries out of a mailbox.
async fn dismiss(sql: &Session, account: AccountId, mailbox: MailboxId, sum: &Counted, modseq: u64) -> Result<()> {
    let text = "UPDATE mailbox SET messages = messages - $3, unseen = unseen - $4, deleted = deleted - $5,
         size_bytes = size_bytes - $6, highest_modseq = $7, changed_modseq = $7
         WHERE account_id = $1 AND mailbox_id = $2";
    let [messages, unseen, deleted, size_bytes, modseq] =
        [sum.messages, sum.unseen, sum.deleted, sum.size_bytes, modseq].map(rows::param);
    let (id, mailbox) = (account::id(account), i64::from(mailbox.0));
    Ok(sql.execute(text, &[&id, &mailbox, &messages, &unseen, &deleted, &size_bytes, &modseq]).await.map(drop)?)
}

/// One step of an expunge.
pub(super) struct Expunged {
    pub gone: Vec<Uid>,
    /// The account's mod-sequence after it.
    pub modseq: ModSeq,
    /// The last UID removed, if there may be more.
    pub last: Option<Uid>,
}

pub(super) async fn expunge(
    sql: &Session,
    account: AccountId,
    mailbox: MailboxId,
    ranges: Ranges<'_>,
    only_deleted: bool,
    now: UtcMillis,
) -> Result<Expunged> {
    let found = sources(sql, (account, mailbox), ranges, only_deleted, STEP).await?;
    if found.is_empty() {
        return Ok(Expunged { gone: Vec::new(), modseq: read::modseq(sql, account).await?, last: None });
    }
    let sum = counted(&found);
    let first = account::take_modseqs(sql, account, sum.messages).await?;
    let modseq = first + sum.messages - 1;
    dismiss(sql, account, mailbox, &sum, modseq).await?;
    account::give_back(sql, account, sum.messages, sum.size_bytes).await?;
    let text = "WITH gone AS (
             DELETE FROM entry WHERE account_id = $1 AND mailbox_id = $2 AND uid = ANY ($3::bigint[]) RETURNING *
         )
         INSERT INTO removed (account_id, email_id, removed_at, mailbox_id, mailbox_name, system, keywords,
         internal_date, size_bytes, content_id)
         SELECT e.account_id, e.email_id, $4::bigint, e.mailbox_id, m.name, e.system, e.keywords, e.internal_date,
         e.size_bytes, e.content_id FROM gone e
         JOIN mailbox m ON m.account_id = e.account_id AND m.mailbox_id = e.mailbox_id";
    sql.execute(text, &[&account::id(account), &i64::from(mailbox.0), &uids_of(&found), &now.0]).await?;
    note_vanished(sql, account, mailbox, &found, first, false).await?;
    let last = if found.len() == STEP { found.last().map(|entry| entry.uid) } else { None };
    let gone = found.into_iter().map(|entry| entry.uid).collect();
    Ok(Expunged { gone, modseq: rows::new_modseq(modseq)?, last })
}
