//! Changes of entries: flags, copies, moves, expunges. Long ones go in steps, so that deliveries never wait for more
//! than one step on the writer thread.

use std::ops::RangeInclusive;

use base::{AccountId, MailboxId, ModSeq, Uid, UtcMillis};
use rusqlite::{Connection, Result, Row};

use super::insert::{self, Counted};
use super::log::{self, Vanished};
use super::{Outcome, Refusal, account, read, removed, rows, verdict};
use crate::error::AppendError;
use crate::model::{Copied, EntryState, FlagChange, FlagOutcome, Flags, SystemFlags, of_flags};

/// Entries in one step.
const STEP: usize = 1000;

type Ranges<'a> = &'a [RangeInclusive<Uid>];

/// What is left of `ranges` after `last`; `None` if nothing.
pub(crate) fn after(ranges: Ranges<'_>, last: Uid) -> Option<Vec<RangeInclusive<Uid>>> {
    let next = last.as_raw().checked_add(1).and_then(Uid::new)?;
    let rest: Vec<_> = ranges.iter().filter(|r| *r.end() >= next).map(|r| (*r.start()).max(next)..=*r.end()).collect();
    if rest.is_empty() { None } else { Some(rest) }
}

/// The part of `ranges` that lies below `bound`.
pub(crate) fn below(ranges: Ranges<'_>, bound: Uid) -> Vec<RangeInclusive<Uid>> {
    let Some(last) = Uid::new(bound.as_raw() - 1) else { return Vec::new() };
    ranges.iter().filter(|r| *r.start() <= last).map(|r| *r.start()..=(*r.end()).min(last)).collect()
}

/// Rows of `text` (parameters: account, mailbox, first UID, last UID, limit) over all ranges, at most `limit`.
fn select<T>(
    sql: &Connection,
    text: &str,
    (account, mailbox): (AccountId, MailboxId),
    ranges: Ranges<'_>,
    limit: usize,
    read: impl Fn(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut out = Vec::new();
    let mut query = sql.prepare_cached(text)?;
    for range in ranges {
        let left = limit.saturating_sub(out.len());
        if left == 0 {
            break;
        }
        let (first, last) = (range.start().as_raw(), range.end().as_raw());
        for row in query.query_map((account.0, mailbox.0, first, last, left), &read)? {
            out.push(row?);
        }
    }
    Ok(out)
}

/// One step of a flag change, and the last UID looked at if there may be more.
pub(super) fn set_flags(
    sql: &Connection,
    account: AccountId,
    mailbox: MailboxId,
    ranges: Ranges<'_>,
    change: &FlagChange,
    unchanged_since: Option<ModSeq>,
    now: UtcMillis,
) -> Result<(FlagOutcome, Option<Uid>)> {
    let text = "SELECT uid, email_id, modseq, system, keywords FROM entry
                WHERE account_id = ?1 AND mailbox_id = ?2 AND uid BETWEEN ?3 AND ?4 ORDER BY uid LIMIT ?5";
    let found = select(sql, text, (account, mailbox), ranges, STEP, |row| rows::state(row, 0))?;
    let last = if found.len() == STEP { found.last().map(|state| state.uid) } else { None };
    let is_newer = |state: &EntryState| unchanged_since.is_some_and(|limit| state.modseq > limit);
    let modified = found.iter().filter(|state| is_newer(state)).map(|state| state.uid).collect();
    let mut changed: Vec<_> = found.into_iter().filter(|state| !is_newer(state)).collect();

    let fresh: Vec<Option<Flags>> = changed.iter().map(|state| changed_flags(&state.flags, change)).collect();
    let count = fresh.iter().flatten().count() as u64;
    if count == 0 {
        return Ok((FlagOutcome { changed, modified, modseq: read::modseq(sql, account)? }, last));
    }
    let first = account::take_modseqs(sql, account, count)?.as_raw();
    let (mut unseen, mut deleted) = (0i64, 0i64);
    let mut update = sql.prepare_cached(
        "UPDATE entry SET modseq = ?4, system = ?5, keywords = ?6
         WHERE account_id = ?1 AND mailbox_id = ?2 AND uid = ?3",
    )?;
    let touched = changed.iter_mut().zip(fresh).filter_map(|(state, flags)| Some((state, flags?)));
    for ((state, flags), modseq) in touched.zip(first..) {
        let (was, is) = (state.flags.system, flags.system);
        unseen += i64::from(!is.contains(SystemFlags::SEEN)) - i64::from(!was.contains(SystemFlags::SEEN));
        deleted += i64::from(is.contains(SystemFlags::DELETED)) - i64::from(was.contains(SystemFlags::DELETED));
        let row = (account.0, mailbox.0, state.uid.as_raw(), modseq, is.bits(), rows::keywords(&flags));
        update.execute(row)?;
        if let Some(is_spam) = of_flags(&state.flags, &flags) {
            verdict::note(sql, account, state.email.0, is_spam, now)?;
        }
        state.modseq = ModSeq::new(modseq).ok_or_else(|| rows::unreadable(0, "mod-sequence 0"))?;
        state.flags = flags;
    }
    let modseq = first + count - 1;
    sql.prepare_cached(
        "UPDATE mailbox SET unseen = unseen + ?3, deleted = deleted + ?4, highest_modseq = ?5, changed_modseq = ?5
         WHERE account_id = ?1 AND mailbox_id = ?2",
    )?
    .execute((account.0, mailbox.0, unseen, deleted, modseq))?;
    Ok((FlagOutcome { changed, modified, modseq: read::modseq(sql, account)? }, last))
}

/// The flags after the change; `None` if they stay as they are.
pub(crate) fn changed_flags(flags: &Flags, change: &FlagChange) -> Option<Flags> {
    let next = match change {
        FlagChange::Replace(to) => to.clone(),
        FlagChange::Add(more) => {
            let keywords = flags.keywords.union(&more.keywords).cloned().collect();
            Flags { system: flags.system.with(more.system), keywords }
        }
        FlagChange::Remove(less) => {
            let keywords = flags.keywords.difference(&less.keywords).cloned().collect();
            Flags { system: flags.system.without(less.system), keywords }
        }
    };
    let next = insert::limited(&next).into_owned();
    if next == *flags { None } else { Some(next) }
}

/// The parts of an entry that copies, moves and expunges need.
struct Source {
    uid: Uid,
    email: u64,
    thread: u64,
    created_modseq: u64,
    system: SystemFlags,
    size_bytes: u64,
    content: i64,
}

const SOURCE: &str = "SELECT uid, email_id, thread_id, created_modseq, system, size_bytes, content_id FROM entry
    WHERE account_id = ?1 AND mailbox_id = ?2 AND uid BETWEEN ?3 AND ?4 ORDER BY uid LIMIT ?5";
const SOURCE_DELETED: &str =
    "SELECT uid, email_id, thread_id, created_modseq, system, size_bytes, content_id FROM entry
    WHERE account_id = ?1 AND mailbox_id = ?2 AND uid BETWEEN ?3 AND ?4 AND system & 8 <> 0 ORDER BY uid LIMIT ?5";

fn source(row: &Row<'_>) -> Result<Source> {
    Ok(Source {
        uid: rows::uid(row, 0)?,
        email: row.get(1)?,
        thread: row.get(2)?,
        created_modseq: row.get(3)?,
        system: SystemFlags::from_bits(row.get(4)?),
        size_bytes: row.get(5)?,
        content: row.get(6)?,
    })
}

fn counted(entries: &[Source]) -> Counted {
    let mut sum = Counted::default();
    for entry in entries {
        sum.add(entry.system, entry.size_bytes);
    }
    sum
}

/// All in one transaction, so that a copy that fails leaves nothing (RFC 9051 §6.4.7).
pub(super) fn copy(
    sql: &Connection,
    account: AccountId,
    from: MailboxId,
    ranges: Ranges<'_>,
    to: MailboxId,
    now: UtcMillis,
) -> Outcome<Copied, AppendError> {
    let found = select(sql, SOURCE, (account, from), ranges, usize::MAX >> 1, source)?;
    if found.is_empty() {
        return nothing_copied(sql, account, to);
    }
    let sum = counted(&found);
    let room = account::take_room(sql, account, sum.messages, sum.size_bytes, now)?;
    let modseq = room.modseq + sum.messages - 1;
    let admitted = insert::admit(sql, account, to, &sum, modseq)?.ok_or(Refusal::Because(AppendError::NoMailbox))?;
    let mut add_content = sql.prepare_cached(
        "INSERT INTO content (account_id, blob_id, prefix, summary)
         SELECT account_id, blob_id, prefix, summary FROM content WHERE content_id = ?1",
    )?;
    let mut refer = sql.prepare_cached(
        "UPDATE blob SET refs = refs + 1 WHERE blob_id = (SELECT blob_id FROM content WHERE content_id = ?1)",
    )?;
    let mut add = sql.prepare_cached(
        "INSERT INTO entry (account_id, mailbox_id, uid, email_id, thread_id, modseq, created_modseq, system, keywords,
         internal_date, size_bytes, content_id)
         SELECT account_id, ?4, ?5, ?6, thread_id, ?7, ?7, system, keywords, internal_date, size_bytes, ?8
         FROM entry WHERE account_id = ?1 AND mailbox_id = ?2 AND uid = ?3",
    )?;
    let mut uids = Vec::with_capacity(found.len());
    for (entry, nth) in found.iter().zip(0u32..) {
        refer.execute([entry.content])?;
        let content = add_content.insert([entry.content])?;
        let uid = admitted.first_uid + nth;
        let (email, at) = (room.email + u64::from(nth), room.modseq + u64::from(nth));
        add.execute((account.0, from.0, entry.uid.as_raw(), to.0, uid, email, at, content))?;
        uids.push((entry.uid, Uid::new(uid).ok_or_else(|| rows::unreadable(0, "uid 0"))?));
    }
    verdict::note_move(sql, account, (from, to), (room.email..).take(found.len()), now)?;
    let modseq = ModSeq::new(modseq).ok_or_else(|| rows::unreadable(0, "mod-sequence 0"))?;
    Ok(Copied { uid_validity: admitted.uid_validity, uids, modseq })
}

fn nothing_copied(sql: &Connection, account: AccountId, to: MailboxId) -> Outcome<Copied, AppendError> {
    let target = read::mailbox(sql, account, to)?.ok_or(Refusal::Because(AppendError::NoMailbox))?;
    Ok(Copied { uid_validity: target.uid_validity, uids: Vec::new(), modseq: read::modseq(sql, account)? })
}

/// One step of a move, and the last UID moved if there may be more.
pub(super) fn r#move(
    sql: &Connection,
    account: AccountId,
    from: MailboxId,
    ranges: Ranges<'_>,
    to: MailboxId,
    now: UtcMillis,
) -> Outcome<(Copied, Option<Uid>), AppendError> {
    let found = select(sql, SOURCE, (account, from), ranges, STEP, source)?;
    if found.is_empty() {
        return Ok((nothing_copied(sql, account, to)?, None));
    }
    let last = if found.len() == STEP { found.last().map(|entry| entry.uid) } else { None };
    let sum = counted(&found);
    let first = account::take_modseqs(sql, account, sum.messages)?.as_raw();
    let modseq = first + sum.messages - 1;
    let admitted = insert::admit(sql, account, to, &sum, modseq)?.ok_or(Refusal::Because(AppendError::NoMailbox))?;
    dismiss(sql, account, from, &sum, modseq)?;
    let mut update = sql.prepare_cached(
        "UPDATE entry SET mailbox_id = ?4, uid = ?5, modseq = ?6
         WHERE account_id = ?1 AND mailbox_id = ?2 AND uid = ?3",
    )?;
    let mut uids = Vec::with_capacity(found.len());
    for (entry, nth) in found.iter().zip(0u32..) {
        let (uid, at) = (admitted.first_uid + nth, first + u64::from(nth));
        update.execute((account.0, from.0, entry.uid.as_raw(), to.0, uid, at))?;
        log::note(sql, account, from, &vanished(entry, at, true))?;
        uids.push((entry.uid, Uid::new(uid).ok_or_else(|| rows::unreadable(0, "uid 0"))?));
    }
    log::count(sql, account, sum.messages)?;
    verdict::note_move(sql, account, (from, to), found.iter().map(|entry| entry.email), now)?;
    let modseq = ModSeq::new(modseq).ok_or_else(|| rows::unreadable(0, "mod-sequence 0"))?;
    Ok((Copied { uid_validity: admitted.uid_validity, uids, modseq }, last))
}

fn vanished(entry: &Source, modseq: u64, is_move: bool) -> Vanished {
    Vanished { modseq, uid: entry.uid, email: entry.email, created_modseq: entry.created_modseq, is_move }
}

/// Counts entries out of a mailbox.
fn dismiss(sql: &Connection, account: AccountId, mailbox: MailboxId, sum: &Counted, modseq: u64) -> Result<()> {
    sql.prepare_cached(
        "UPDATE mailbox SET messages = messages - ?3, unseen = unseen - ?4, deleted = deleted - ?5,
         size_bytes = size_bytes - ?6, highest_modseq = ?7, changed_modseq = ?7
         WHERE account_id = ?1 AND mailbox_id = ?2",
    )?
    .execute((account.0, mailbox.0, sum.messages, sum.unseen, sum.deleted, sum.size_bytes, modseq))
    .map(drop)
}

/// One step of an expunge.
pub(super) struct Expunged {
    pub gone: Vec<Uid>,
    /// The account's mod-sequence after it.
    pub modseq: ModSeq,
    /// The last UID removed, if there may be more.
    pub last: Option<Uid>,
    pub is_partial: bool,
}

pub(super) fn expunge(
    sql: &Connection,
    account: AccountId,
    mailbox: MailboxId,
    ranges: Ranges<'_>,
    only_deleted: bool,
    now: UtcMillis,
) -> Result<Expunged> {
    let text = if only_deleted { SOURCE_DELETED } else { SOURCE };
    let found = select(sql, text, (account, mailbox), ranges, STEP, source)?;
    if found.is_empty() {
        return Ok(Expunged { gone: Vec::new(), modseq: read::modseq(sql, account)?, last: None, is_partial: false });
    }
    let sum = counted(&found);
    let first = account::take_modseqs(sql, account, sum.messages)?.as_raw();
    dismiss(sql, account, mailbox, &sum, first + sum.messages - 1)?;
    account::give_back(sql, account, sum.messages, sum.size_bytes)?;
    let mut keep = removed::keep(sql)?;
    let mut remove = sql.prepare_cached("DELETE FROM entry WHERE account_id = ?1 AND mailbox_id = ?2 AND uid = ?3")?;
    for (entry, modseq) in found.iter().zip(first..) {
        keep.execute((account.0, mailbox.0, entry.uid.as_raw(), now.0))?;
        remove.execute((account.0, mailbox.0, entry.uid.as_raw()))?;
        log::note(sql, account, mailbox, &vanished(entry, modseq, false))?;
        debug_assert!(entry.thread <= entry.email, "a thread is numbered by its first email");
    }
    log::count(sql, account, sum.messages)?;
    let is_partial = found.len() == STEP;
    Ok(Expunged {
        last: found.last().map(|entry| entry.uid).filter(|_| is_partial),
        gone: found.into_iter().map(|entry| entry.uid).collect(),
        modseq: read::modseq(sql, account)?,
        is_partial,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(n: u32) -> Uid {
        Uid::new(n).unwrap()
    }

    #[test]
    fn ranges_go_on_and_end() {
        let ranges = [uid(1)..=uid(5), uid(8)..=Uid::MAX];
        assert_eq!(after(&ranges, uid(3)), Some(vec![uid(4)..=uid(5), uid(8)..=Uid::MAX]));
        assert_eq!(after(&ranges, uid(5)), Some(vec![uid(8)..=Uid::MAX]));
        assert_eq!(after(&ranges, Uid::MAX), None);
        assert_eq!(below(&ranges, uid(9)), [uid(1)..=uid(5), uid(8)..=uid(8)]);
        assert_eq!(below(&ranges, uid(4)), [uid(1)..=uid(3)]);
        assert_eq!(below(&ranges, uid(1)), []);
    }
}
