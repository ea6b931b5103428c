//! SEARCH: from the picture where it decides, then from entries, then from content.

use std::sync::Arc;

use base::{ModSeq, UtcMillis};
use bytes::Bytes;
use mail::HeaderFields;
use mail::mime::Summary;
use store::{BlobStore, Entry, EntryContent, EntryView, Picture, StoreError};

use crate::batch::Batches;
use crate::connection::{Connection, Stop};
use crate::content;
use crate::mime::{Mime, summary_of};
use crate::proto::sequence::contains;
use crate::proto::{DayIs, Ranges, Reply, Search, SearchKey, SearchReturn, write};

/// Messages read and judged at the same time by one search.
const JUDGED_AT_ONCE: usize = 4;

impl Connection {
    pub async fn search(&mut self, tag: &str, by_uid: bool, search: Search) -> Result<Reply, Stop> {
        if search.unknown_charset {
            return Err(Reply::no("BADCHARSET (UTF-8 US-ASCII)", "Charset is not known here").into());
        }
        let (account, mailbox) = (self.account()?, self.mailbox()?);
        let Some(selected) = self.session.selected() else { return Err(Reply::bad("Select a mailbox first").into()) };
        let picture = Arc::clone(&selected.seen.picture);
        let mime = Arc::clone(&self.services.mime);
        let query = Arc::new(Query { key: prepare(search.keys, &picture)?, now: self.clock.utc(), mime });
        self.session.condstore |= query.key.asks_modseq();

        // First by what is in memory.
        let mut found: Vec<usize> = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        for entry in picture.iter() {
            match query.judge(&Facts { view: entry, entry: None, summary: None, content: None }) {
                Some(true) => found.push(entry.index),
                Some(false) => {}
                None => open.push(entry.index),
            }
        }
        let services = Arc::clone(&self.services);
        let mut batches = Batches::of_indexes(open.into_iter());
        while let Some(batch) = batches.next() {
            let entries = services.mail.entries(account, mailbox, batch.uids(&picture), batch.len).await?;
            let mut unsure: Vec<(usize, Entry)> = Vec::new();
            for (view, entry) in batch.pairs(&picture, &entries) {
                match query.judge_entry(view, entry)? {
                    Some(true) => found.push(view.index),
                    Some(false) => {}
                    None => unsure.push((view.index, entry.clone())),
                }
            }
            found.extend(judge_contents(&query, &services.blobs, &picture, unsure).await?);
        }
        found.sort_unstable();
        write_result(&mut self.wire.out, tag, by_uid, search.options, &picture, &found, query.key.asks_modseq());
        Ok(Reply::ok("SEARCH completed"))
    }
}

/// Judges messages by their content, a few at a time, each on the pool for blocking work.
async fn judge_contents(
    query: &Arc<Query>,
    blobs: &Arc<dyn BlobStore>,
    picture: &Arc<Picture>,
    unsure: Vec<(usize, Entry)>,
) -> Result<Vec<usize>, Stop> {
    let mut found = Vec::new();
    let mut rest = unsure.into_iter();
    let mut running = tokio::task::JoinSet::new();
    loop {
        while running.len() < JUDGED_AT_ONCE
            && let Some((index, entry)) = rest.next()
        {
            let content = EntryContent::new(Arc::clone(blobs), &entry).read(0..entry.size_bytes).await?;
            let (query, picture) = (Arc::clone(query), Arc::clone(picture));
            running.spawn_blocking(move || query.judge_content(&picture, index, &entry, content));
        }
        match running.join_next().await {
            Some(Ok(Some(index))) => found.push(index),
            Some(Ok(None)) => {}
            Some(Err(_)) => return Err(Reply::no("SERVERBUG", "A message could not be searched").into()),
            None => return Ok(found),
        }
    }
}

/// What is asked, with sets resolved and texts folded.
struct Query {
    key: Key,
    now: UtcMillis,
    mime: Arc<dyn Mime>,
}

enum Key {
    All,
    Flag(store::SystemFlags, bool),
    Keyword(store::Keyword, bool),
    Received(DayIs, i64),
    Sent(DayIs, i64),
    Header(String, String),
    Body(String),
    Text(String),
    Larger(u64),
    Smaller(u64),
    Uids(Vec<std::ops::RangeInclusive<u32>>),
    Numbers(Vec<std::ops::RangeInclusive<u32>>),
    ModSeq(ModSeq),
    Older(u32),
    Younger(u32),
    EmailId(Vec<u8>),
    ThreadId(Vec<u8>),
    Not(Box<Key>),
    Or(Box<Key>, Box<Key>),
    And(Vec<Key>),
}

fn prepare(keys: Vec<SearchKey>, picture: &Picture) -> Result<Key, Reply> {
    let keys: Result<Vec<Key>, Reply> = keys.into_iter().map(|key| prepare_key(key, picture)).collect();
    keys.map(Key::And)
}

fn prepare_key(key: SearchKey, picture: &Picture) -> Result<Key, Reply> {
    let largest_uid = picture.len().checked_sub(1).and_then(|i| picture.at(i)).map_or(0, |entry| entry.uid.as_raw());
    let boxed = |key: SearchKey| prepare_key(key, picture).map(Box::new);
    let text =
        |raw: Vec<u8>| String::from_utf8(raw).map(|text| fold(&text)).map_err(|_| Reply::bad("Text is not UTF-8"));
    Ok(match key {
        SearchKey::All => Key::All,
        SearchKey::Nothing => Key::Not(Box::new(Key::All)),
        SearchKey::Flag(flag, set) => Key::Flag(flag, set),
        SearchKey::Keyword(Some(keyword), set) => Key::Keyword(keyword, set),
        SearchKey::Keyword(None, false) => Key::All,
        SearchKey::Keyword(None, true) => Key::Not(Box::new(Key::All)),
        SearchKey::Received(is, day) => Key::Received(is, day),
        SearchKey::Sent(is, day) => Key::Sent(is, day),
        SearchKey::Header(name, value) => Key::Header(name, text(value)?),
        SearchKey::Body(value) => Key::Body(text(value)?),
        SearchKey::Text(value) => Key::Text(text(value)?),
        SearchKey::Larger(size) => Key::Larger(size),
        SearchKey::Smaller(size) => Key::Smaller(size),
        SearchKey::Uids(set) => Key::Uids(set.resolve(largest_uid)),
        SearchKey::Numbers(set) => Key::Numbers(set.resolve(u32::try_from(picture.len()).unwrap_or(u32::MAX))),
        SearchKey::ModSeq(modseq) => Key::ModSeq(modseq),
        SearchKey::Older(seconds) => Key::Older(seconds),
        SearchKey::Younger(seconds) => Key::Younger(seconds),
        SearchKey::EmailId(id) => Key::EmailId(id),
        SearchKey::ThreadId(id) => Key::ThreadId(id),
        SearchKey::Not(key) => Key::Not(boxed(*key)?),
        SearchKey::Or(a, b) => Key::Or(boxed(*a)?, boxed(*b)?),
        SearchKey::And(keys) => prepare(keys, picture)?,
    })
}

impl Key {
    fn asks_modseq(&self) -> bool {
        match self {
            Self::ModSeq(_) => true,
            Self::Not(key) => key.asks_modseq(),
            Self::Or(a, b) => a.asks_modseq() || b.asks_modseq(),
            Self::And(keys) => keys.iter().any(Self::asks_modseq),
            _ => false,
        }
    }
}

/// What is known of a message so far; each step of a search knows more.
struct Facts<'a> {
    view: EntryView<'a>,
    entry: Option<&'a Entry>,
    summary: Option<&'a Summary>,
    content: Option<&'a Content>,
}

/// A message's texts, folded.
struct Content {
    header: Bytes,
    text: String,
}

impl Query {
    fn judge(&self, facts: &Facts<'_>) -> Option<bool> {
        self.holds(&self.key, facts)
    }

    fn judge_entry(&self, view: EntryView<'_>, entry: &Entry) -> Result<Option<bool>, StoreError> {
        let known = self.judge(&Facts { view, entry: Some(entry), summary: None, content: None });
        if known.is_some() {
            return Ok(known);
        }
        let summary = summary_of(&*self.mime, entry)?;
        Ok(self.judge(&Facts { view, entry: Some(entry), summary: Some(&summary), content: None }))
    }

    /// The index if it matches.
    fn judge_content(&self, picture: &Picture, index: usize, entry: &Entry, message: Bytes) -> Option<usize> {
        let summary = summary_of(&*self.mime, entry).ok()?;
        let end = mail::header::body_offset(&message).min(message.len());
        let content = Content { text: fold(&self.mime.text(&message)), header: message.slice(..end) };
        let view = picture.at(index)?;
        let facts = Facts { view, entry: Some(entry), summary: Some(&summary), content: Some(&content) };
        (self.judge(&facts) == Some(true)).then_some(index)
    }

    /// `None`: more must be known.
    fn holds(&self, key: &Key, facts: &Facts<'_>) -> Option<bool> {
        let view = facts.view;
        let age = |entry: &Entry| self.now.since(entry.internal_date).as_secs();
        Some(match key {
            Key::All => true,
            Key::Flag(flag, set) => view.flags.system.contains(*flag) == *set,
            Key::Keyword(keyword, set) => view.flags.keywords.contains(keyword) == *set,
            Key::Uids(ranges) => contains(ranges, view.uid.as_raw()),
            Key::Numbers(ranges) => contains(ranges, u32::try_from(view.index + 1).ok()?),
            Key::ModSeq(modseq) => view.modseq >= *modseq,
            Key::EmailId(id) => *id == format!("M{}", view.email.0).as_bytes(),
            Key::ThreadId(id) => *id == format!("T{}", facts.entry?.thread.0).as_bytes(),
            Key::Received(is, day) => is_day(*is, facts.entry?.internal_date, *day),
            Key::Larger(size) => facts.entry?.size_bytes > *size,
            Key::Smaller(size) => facts.entry?.size_bytes < *size,
            Key::Older(seconds) => age(facts.entry?) >= u64::from(*seconds),
            Key::Younger(seconds) => age(facts.entry?) <= u64::from(*seconds),
            Key::Sent(is, day) => facts.summary?.sent_at.is_some_and(|at| is_day(*is, at, *day)),
            Key::Header(name, text) => self.header_holds(name, text, facts)?,
            Key::Body(text) => text.is_empty() || facts.content?.text.contains(text),
            Key::Text(text) => {
                text.is_empty() || facts.content?.text.contains(text) || {
                    let header = &facts.content?.header;
                    HeaderFields::of(header)
                        .any(|field| fold(&self.mime.header_text(field.raw)).contains(text.as_str()))
                }
            }
            Key::Not(key) => !self.holds(key, facts)?,
            Key::Or(a, b) => match (self.holds(a, facts), self.holds(b, facts)) {
                (Some(true), _) | (_, Some(true)) => true,
                (Some(false), Some(false)) => false,
                _ => return None,
            },
            Key::And(keys) => {
                let mut sure = true;
                for key in keys {
                    match self.holds(key, facts) {
                        Some(false) => return Some(false),
                        Some(true) => {}
                        None => sure = false,
                    }
                }
                return sure.then_some(true);
            }
        })
    }

    fn header_holds(&self, name: &str, text: &str, facts: &Facts<'_>) -> Option<bool> {
        let in_header = |header: &[u8]| {
            HeaderFields::of(header)
                .filter(|field| field.is(name))
                .any(|field| text.is_empty() || fold(&self.mime.header_text(field.value)).contains(text))
        };
        let (entry, summary) = (facts.entry?, facts.summary?);
        if content::are_common(&[name.to_owned()], false) {
            return Some(in_header(&entry.prefix) || in_header(&summary.common_fields));
        }
        Some(in_header(&facts.content?.header))
    }
}

/// Days are counted in UTC, as dates are shown.
fn is_day(is: DayIs, at: UtcMillis, day: i64) -> bool {
    let at = at.as_secs().div_euclid(86_400);
    match is {
        DayIs::Before => at < day,
        DayIs::On => at == day,
        DayIs::Since => at >= day,
    }
}

/// Case is ignored as Unicode has it.
fn fold(text: &str) -> String {
    if text.is_ascii() { text.to_ascii_lowercase() } else { text.to_lowercase() }
}

fn write_result(
    out: &mut Vec<u8>,
    tag: &str,
    by_uid: bool,
    options: Option<SearchReturn>,
    picture: &Picture,
    found: &[usize],
    with_modseq: bool,
) {
    let number = |index: &usize| match by_uid {
        true => picture.at(*index).map_or(0, |entry| entry.uid.as_raw()),
        false => u32::try_from(index + 1).unwrap_or(u32::MAX),
    };
    let modseq = found.iter().filter_map(|index| picture.at(*index)).map(|entry| entry.modseq).max();
    let modseq = modseq.filter(|_| with_modseq);
    let Some(options) = options else {
        out.extend_from_slice(b"* SEARCH");
        for index in found {
            out.push(b' ');
            write::number(out, number(index).into());
        }
        if let Some(modseq) = modseq {
            out.extend_from_slice(format!(" (MODSEQ {modseq})").as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        return;
    };
    out.extend_from_slice(b"* ESEARCH (TAG ");
    write::string(out, tag.as_bytes());
    out.push(b')');
    if by_uid {
        out.extend_from_slice(b" UID");
    }
    for (asked, name, index) in [(options.min, " MIN ", found.first()), (options.max, " MAX ", found.last())] {
        if let (true, Some(index)) = (asked, index) {
            out.extend_from_slice(name.as_bytes());
            write::number(out, number(index).into());
        }
    }
    if options.all && !found.is_empty() {
        out.extend_from_slice(b" ALL ");
        write::ranges(out, Ranges::of(found.iter().map(number)).as_slice());
    }
    if options.count {
        out.extend_from_slice(b" COUNT ");
        write::number(out, found.len() as u64);
    }
    if let Some(modseq) = modseq {
        out.extend_from_slice(format!(" MODSEQ {modseq}").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}
