//! SEARCH: from the picture where it decides, then from entries, then from content.

use std::collections::HashMap;
use std::sync::Arc;

use base::{AccountId, ModSeq, UtcMillis};
use mail::HeaderFields;
use mail::search::{Needle, SearchText, casemap};
use store::{EmailId, Entry, EntryView, Picture, StoreError, ThreadId};

use crate::batch::Batches;
use crate::connection::{Connection, Stop};
use crate::content;
use crate::mime::{Mime, summary_of};
use crate::proto::sequence::contains;
use crate::proto::{DayIs, Ranges, Reply, Search, SearchKey, SearchReturn, write};

impl Connection {
    pub async fn search(&mut self, tag: &str, by_uid: bool, search: Search) -> Result<Reply, Stop> {
        if search.unknown_charset {
            return Err(Reply::no("BADCHARSET (UTF-8 US-ASCII)", "Charset is not known here").into());
        }
        let (account, mailbox) = (self.account()?, self.mailbox()?);
        let Some(selected) = self.session.selected() else { return Err(Reply::bad("Select a mailbox first").into()) };
        let picture = Arc::clone(&selected.seen.picture);
        let mime = Arc::clone(&self.services.mime);
        let query = Arc::new(Query::new(prepare(search.keys, &picture)?, self.clock.utc(), mime));
        let asks_modseq = query.key.asks_modseq();
        self.session.condstore |= asks_modseq;

        // First by what is in memory.
        let mut found: Vec<usize> = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        for entry in picture.iter() {
            match query.judge(&Facts { view: entry, known: None, fields: None, content: None }) {
                Some(true) => found.push(entry.index),
                Some(false) => {}
                None => open.push(entry.index),
            }
        }
        // Then by entries, where a key asks for what only they say, then by content.
        let mut unsure: HashMap<EmailId, (usize, Option<Known>)> = HashMap::new();
        if query.asks_entry {
            let mut batches = Batches::of_indexes(open.into_iter());
            while let Some(batch) = batches.next() {
                let entries = self.services.mail.entries(account, mailbox, batch.uids(&picture), batch.len).await?;
                for (view, entry) in batch.pairs(&picture, &entries) {
                    let (verdict, known) = query.judge_entry(view, entry)?;
                    match verdict {
                        Some(true) => found.push(view.index),
                        Some(false) => {}
                        None => drop(unsure.insert(view.email, (view.index, Some(known)))),
                    }
                }
            }
        } else {
            let entries = open.into_iter().filter_map(|index| picture.at(index));
            unsure.extend(entries.map(|view| (view.email, (view.index, None))));
        }
        if !unsure.is_empty() {
            found.extend(self.judge_contents(account, query, &picture, unsure).await?);
        }
        found.sort_unstable();
        write_result(&mut self.wire.out, tag, by_uid, search.options, &picture, &found, asks_modseq);
        Ok(Reply::ok("SEARCH completed"))
    }

    /// Places of those messages that match by their content.
    async fn judge_contents(
        &self,
        account: AccountId,
        query: Arc<Query>,
        picture: &Arc<Picture>,
        unsure: HashMap<EmailId, (usize, Option<Known>)>,
    ) -> Result<Vec<usize>, Stop> {
        let emails = unsure.keys().copied().collect();
        let (picture, unsure) = (Arc::clone(picture), Arc::new(unsure));
        let places = Arc::clone(&unsure);
        let judge = move |email: EmailId, text: SearchText<'_>| {
            let Some((index, known)) = unsure.get(&email) else { return false };
            let Some(view) = picture.at(*index) else { return false };
            let facts = Facts { view, known: known.as_ref(), fields: None, content: Some(text) };
            query.judge(&facts) == Some(true)
        };
        let found = self.services.search.search(account, emails, Arc::new(judge)).await?;
        Ok(found.iter().filter_map(|email| places.get(email)).map(|place| place.0).collect())
    }
}

/// What is asked, with sets resolved and texts folded.
struct Query {
    key: Key,
    now: UtcMillis,
    mime: Arc<dyn Mime>,
    /// Some key asks for what only the entry says.
    asks_entry: bool,
}

enum Key {
    All,
    Flag(store::SystemFlags, bool),
    Keyword(store::Keyword, bool),
    Received(DayIs, i64),
    Sent(DayIs, i64),
    Header(String, Needle),
    Body(Needle),
    Text(Needle),
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
    let text = |raw: Vec<u8>| str::from_utf8(&raw).map(Needle::new).map_err(|_| Reply::bad("Text is not UTF-8"));
    Ok(match key {
        SearchKey::All => Key::All,
        SearchKey::Nothing => Key::Not(Box::new(Key::All)),
        SearchKey::Flag(flag, set) => Key::Flag(flag, set),
        SearchKey::Keyword(Some(keyword), set) => Key::Keyword(keyword, set),
        SearchKey::Keyword(None, false) => Key::All,
        SearchKey::Keyword(None, true) => Key::Not(Box::new(Key::All)),
        SearchKey::Received(is, day) => Key::Received(is, day),
        SearchKey::Sent(is, day) => Key::Sent(is, day),
        SearchKey::Header(name, value) => Key::Header(name.to_ascii_uppercase(), text(value)?),
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

    fn any(&self, is: &impl Fn(&Self) -> bool) -> bool {
        match self {
            Self::Not(key) => key.any(is),
            Self::Or(a, b) => a.any(is) || b.any(is),
            Self::And(keys) => keys.iter().any(|key| key.any(is)),
            leaf => is(leaf),
        }
    }

    /// True for a key that only the whole content answers.
    fn asks_content(&self) -> bool {
        match self {
            Self::Body(text) | Self::Text(text) => !text.is_empty(),
            Self::Header(name, _) => !is_common(name),
            _ => false,
        }
    }
}

fn is_common(name: &str) -> bool {
    content::are_common(&[name.to_owned()], false)
}

/// What is known of a message so far; each step of a search knows more.
struct Facts<'a> {
    view: EntryView<'a>,
    known: Option<&'a Known>,
    /// The entry's own header lines, and the common ones of the content.
    fields: Option<(&'a [u8], &'a [u8])>,
    content: Option<SearchText<'a>>,
}

/// What keys ask of an entry.
struct Known {
    internal_date: UtcMillis,
    sent_at: Option<UtcMillis>,
    size_bytes: u64,
    thread: ThreadId,
}

impl Query {
    fn new(key: Key, now: UtcMillis, mime: Arc<dyn Mime>) -> Self {
        // Content answers for the common fields, too: then entries are read only for the rest.
        let has_content = key.any(&Key::asks_content);
        let asks_entry = key.any(&|key| match key {
            Key::Header(name, _) => is_common(name) && !has_content,
            Key::Received(..) | Key::Sent(..) | Key::Larger(_) | Key::Smaller(_) => true,
            Key::Older(_) | Key::Younger(_) | Key::ThreadId(_) => true,
            _ => false,
        });
        Self { key, now, mime, asks_entry }
    }

    fn judge(&self, facts: &Facts<'_>) -> Option<bool> {
        self.holds(&self.key, facts)
    }

    fn judge_entry(&self, view: EntryView<'_>, entry: &Entry) -> Result<(Option<bool>, Known), StoreError> {
        let summary = summary_of(&*self.mime, entry)?;
        let known = Known {
            internal_date: entry.internal_date,
            sent_at: summary.sent_at,
            size_bytes: entry.size_bytes,
            thread: entry.thread,
        };
        let fields = Some((&entry.prefix[..], &summary.common_fields[..]));
        Ok((self.judge(&Facts { view, known: Some(&known), fields, content: None }), known))
    }

    /// `None`: more must be known.
    fn holds(&self, key: &Key, facts: &Facts<'_>) -> Option<bool> {
        let view = facts.view;
        let age = |known: &Known| self.now.since(known.internal_date).as_secs();
        Some(match key {
            Key::All => true,
            Key::Flag(flag, set) => view.flags.system.contains(*flag) == *set,
            Key::Keyword(keyword, set) => view.flags.keywords.contains(keyword) == *set,
            Key::Uids(ranges) => contains(ranges, view.uid.as_raw()),
            Key::Numbers(ranges) => contains(ranges, u32::try_from(view.index + 1).ok()?),
            Key::ModSeq(modseq) => view.modseq >= *modseq,
            Key::EmailId(id) => *id == format!("M{}", view.email.0).as_bytes(),
            Key::ThreadId(id) => *id == format!("T{}", facts.known?.thread.0).as_bytes(),
            Key::Received(is, day) => is_day(*is, facts.known?.internal_date, *day),
            Key::Larger(size) => facts.known?.size_bytes > *size,
            Key::Smaller(size) => facts.known?.size_bytes < *size,
            Key::Older(seconds) => age(facts.known?) >= u64::from(*seconds),
            Key::Younger(seconds) => age(facts.known?) <= u64::from(*seconds),
            Key::Sent(is, day) => facts.known?.sent_at.is_some_and(|at| is_day(*is, at, *day)),
            Key::Header(name, text) => self.header_holds(name, text, facts)?,
            Key::Body(text) => text.is_empty() || text.is_in(facts.content?.body),
            Key::Text(text) => text.is_empty() || text.is_in(facts.content?.body) || text.is_in(facts.content?.header),
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

    fn header_holds(&self, name: &str, text: &Needle, facts: &Facts<'_>) -> Option<bool> {
        if let Some(content) = facts.content {
            return Some(content.field_holds(name, text));
        }
        let (prefix, common) = facts.fields.filter(|_| is_common(name))?;
        let mut values = HeaderFields::of(prefix).chain(HeaderFields::of(common)).filter(|field| field.is(name));
        Some(values.any(|field| text.is_empty() || text.is_in(&casemap(&self.mime.header_text(field.value)))))
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
