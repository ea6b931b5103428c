//! Commands from bytes (RFC 3501 §9 and the extensions' grammars).

use std::fmt;

use base::Secret;
use store::{FlagChange, Flags, Role};

use super::scan::{Scan, Scanner};
use super::search;
use super::sequence::{Bound, SequenceSet};
use super::types::{
    Body, Command, Fetch, FetchItem, List, RawName, Section, SectionItem, SectionText, StatusItem, Store,
};

/// A command that cannot be read: `BAD`, with the tag where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    pub tag: Option<String>,
    pub fault: &'static str,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.fault)
    }
}

/// Reads a complete command: no line end, literals in place as on the wire.
pub fn parse(input: &[u8]) -> Result<Command, ParseError> {
    let mut scanner = Scanner::new(input);
    let tag = tag(&mut scanner).map_err(|fault| ParseError { tag: None, fault })?;
    match body(&mut scanner) {
        Ok(body) => Ok(Command { tag, body }),
        Err(fault) => Err(ParseError { tag: Some(tag), fault }),
    }
}

/// RFC 3501 §9 `tag`.
pub fn tag(s: &mut Scanner<'_>) -> Scan<String> {
    let tag = s.take_while(|b| b.is_ascii_graphic() && !b"(){%*\"\\+".contains(&b));
    if tag.is_empty() || tag.len() > TAG_LENGTH_MAX {
        return Err("a tag is missing or bad");
    }
    Ok(String::from_utf8_lossy(tag).into_owned())
}

const TAG_LENGTH_MAX: usize = 128;

fn body(s: &mut Scanner<'_>) -> Scan<Body> {
    s.space()?;
    let name = s.keyword()?;
    let body = match name.as_str() {
        "CAPABILITY" => Body::Capability,
        "NOOP" => Body::Noop,
        "LOGOUT" => Body::Logout,
        "STARTTLS" => Body::StartTls,
        "NAMESPACE" => Body::Namespace,
        "IDLE" => Body::Idle,
        "CHECK" => Body::Check,
        "CLOSE" => Body::Close,
        "UNSELECT" => Body::Unselect,
        "EXPUNGE" => Body::Expunge,
        _ => {
            s.space()?;
            arguments(&name, s)?
        }
    };
    // Some clients end commands with a space.
    let _ = s.take(b' ');
    s.end()?;
    Ok(body)
}

fn arguments(name: &str, s: &mut Scanner<'_>) -> Scan<Body> {
    Ok(match name {
        "ID" => id(s)?,
        "AUTHENTICATE" => authenticate(s)?,
        "LOGIN" => {
            let login = s.astring()?.into_owned();
            s.space()?;
            Body::Login { login, password: Secret::new(s.astring()?.into_owned()) }
        }
        "ENABLE" => {
            let mut names = vec![s.keyword()?];
            while s.take(b' ') {
                names.push(s.keyword()?);
            }
            Body::Enable(names)
        }
        "SELECT" => select(s, false)?,
        "EXAMINE" => select(s, true)?,
        "CREATE" => create(s)?,
        "DELETE" => Body::Delete(mailbox(s)?),
        "RENAME" => {
            let from = mailbox(s)?;
            s.space()?;
            Body::Rename { from, to: mailbox(s)? }
        }
        "SUBSCRIBE" => Body::Subscribe(mailbox(s)?),
        "UNSUBSCRIBE" => Body::Unsubscribe(mailbox(s)?),
        "LIST" => Body::List(list(s)?),
        "LSUB" => {
            let reference = s.astring()?.into_owned();
            s.space()?;
            Body::Lsub { reference, pattern: s.list_pattern()?.into_owned() }
        }
        "GETQUOTA" => Body::GetQuota(s.astring()?.into_owned()),
        "GETQUOTAROOT" => Body::GetQuotaRoot(mailbox(s)?),
        "STATUS" => {
            let mailbox = mailbox(s)?;
            s.space()?;
            Body::Status { mailbox, items: status_items(s)? }
        }
        "UID" => {
            let name = s.keyword()?;
            s.space()?;
            match name.as_str() {
                "EXPUNGE" => Body::UidExpunge(sequence_set(s)?),
                _ => on_messages(&name, s, true)?,
            }
        }
        "APPEND" => return Err("APPEND needs a message as literal"),
        _ => on_messages(name, s, false)?,
    })
}

fn on_messages(name: &str, s: &mut Scanner<'_>, by_uid: bool) -> Scan<Body> {
    if name == "SEARCH" {
        return Ok(Body::Search { by_uid, search: search::search(s)? });
    }
    if !matches!(name, "FETCH" | "STORE" | "COPY" | "MOVE") {
        return Err("unknown command");
    }
    let set = sequence_set(s)?;
    s.space()?;
    Ok(match name {
        "FETCH" => Body::Fetch { by_uid, set, fetch: fetch(s)? },
        "STORE" => Body::Store { by_uid, set, store: store(s)? },
        "COPY" => Body::Copy { by_uid, set, to: mailbox(s)? },
        _ => Body::Move { by_uid, set, to: mailbox(s)? },
    })
}

fn mailbox(s: &mut Scanner<'_>) -> Scan<RawName> {
    Ok(RawName(s.astring()?.into_owned()))
}

/// RFC 2971. What the client says of itself is checked for form and not kept.
fn id(s: &mut Scanner<'_>) -> Scan<Body> {
    if s.peek() == Some(b'(') {
        s.list(|s| s.nstring().map(drop))?;
    } else if !s.take_word("NIL") {
        return Err("ID needs a list or NIL");
    }
    Ok(Body::Id)
}

fn authenticate(s: &mut Scanner<'_>) -> Scan<Body> {
    let mechanism = s.keyword()?;
    let initial = if s.take(b' ') {
        let text = s.take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
        Some(Secret::new(String::from_utf8_lossy(text).into_owned()))
    } else {
        None
    };
    Ok(Body::Authenticate { mechanism, initial })
}

fn select(s: &mut Scanner<'_>, read_only: bool) -> Scan<Body> {
    let mailbox = mailbox(s)?;
    let mut condstore = false;
    if s.take(b' ') {
        s.list(|s| match s.keyword()?.as_str() {
            "CONDSTORE" => {
                condstore = true;
                Ok(())
            }
            _ => Err("unknown parameter"),
        })?;
    }
    Ok(Body::Select { mailbox, read_only, condstore })
}

/// With RFC 6154 §3: `CREATE name (USE (\Drafts))`.
fn create(s: &mut Scanner<'_>) -> Scan<Body> {
    let mailbox = mailbox(s)?;
    let mut role = None;
    if s.take(b' ') {
        s.list(|s| {
            if !s.take_word("USE ") {
                return Err("unknown parameter");
            }
            s.list(|s| {
                s.expect(b'\\', "a special use is missing")?;
                let name = s.atom()?;
                let known = Role::INITIAL.into_iter().map(|(role, _)| role).find(|role| {
                    role.special_use().is_some_and(|attribute| attribute.as_bytes()[1..].eq_ignore_ascii_case(name))
                });
                // Two uses for one mailbox are one too many for us.
                role = Some(if role.is_some() { Err(()) } else { known.ok_or(()) });
                Ok(())
            })
        })?;
    }
    Ok(Body::Create { mailbox, role })
}

fn list(s: &mut Scanner<'_>) -> Scan<List> {
    let mut list = List { basic: true, ..List::default() };
    if s.peek() == Some(b'(') {
        list.basic = false;
        s.list(|s| {
            match s.keyword()?.as_str() {
                "SUBSCRIBED" => list.select_subscribed = true,
                "RECURSIVEMATCH" => list.select_recursive = true,
                "SPECIAL-USE" => list.select_special_use = true,
                "REMOTE" => {}
                _ => return Err("unknown selection option"),
            }
            Ok(())
        })?;
        s.space()?;
        if list.select_recursive && !list.select_subscribed {
            return Err("RECURSIVEMATCH needs a further selection option");
        }
    }
    list.reference = s.astring()?.into_owned();
    s.space()?;
    if s.peek() == Some(b'(') {
        list.basic = false;
        s.list(|s| {
            list.patterns.push(s.list_pattern()?.into_owned());
            Ok(())
        })?;
    } else {
        list.patterns.push(s.list_pattern()?.into_owned());
    }
    if s.take_word(" RETURN ") {
        list.basic = false;
        s.list(|s| {
            match s.keyword()?.as_str() {
                "SUBSCRIBED" => list.return_subscribed = true,
                "CHILDREN" => list.return_children = true,
                "SPECIAL-USE" => list.return_special_use = true,
                "STATUS" => {
                    s.space()?;
                    list.return_status = status_items(s)?;
                }
                _ => return Err("unknown return option"),
            }
            Ok(())
        })?;
    }
    Ok(list)
}

fn status_items(s: &mut Scanner<'_>) -> Scan<Vec<StatusItem>> {
    let mut items = Vec::new();
    s.list(|s| {
        let item = match s.keyword()?.as_str() {
            "MESSAGES" => StatusItem::Messages,
            "RECENT" => StatusItem::Recent,
            "UIDNEXT" => StatusItem::UidNext,
            "UIDVALIDITY" => StatusItem::UidValidity,
            "UNSEEN" => StatusItem::Unseen,
            "DELETED" => StatusItem::Deleted,
            "DELETED-STORAGE" => StatusItem::DeletedStorage,
            "SIZE" => StatusItem::Size,
            "HIGHESTMODSEQ" => StatusItem::HighestModSeq,
            "MAILBOXID" => StatusItem::MailboxId,
            _ => return Err("unknown status item"),
        };
        if !items.contains(&item) {
            items.push(item);
        }
        Ok(())
    })?;
    Ok(items)
}

/// RFC 3501 §9 `sequence-set`.
pub fn sequence_set(s: &mut Scanner<'_>) -> Scan<SequenceSet> {
    let bound = |s: &mut Scanner<'_>| {
        if s.take(b'*') {
            return Ok(Bound::Largest);
        }
        match s.number32()? {
            0 => Err("zero is no message number"),
            number => Ok(Bound::Number(number)),
        }
    };
    let mut ranges = Vec::new();
    loop {
        let first = bound(s)?;
        ranges.push((first, if s.take(b':') { bound(s)? } else { first }));
        if !s.take(b',') {
            return Ok(SequenceSet(ranges));
        }
    }
}

fn store(s: &mut Scanner<'_>) -> Scan<Store> {
    let mut unchanged_since = None;
    if s.peek() == Some(b'(') {
        s.list(|s| {
            if !s.take_word("UNCHANGEDSINCE ") {
                return Err("unknown parameter");
            }
            unchanged_since = Some(s.number()?);
            Ok(())
        })?;
        s.space()?;
    }
    let (add, remove) = (s.take(b'+'), s.take(b'-'));
    if !s.take_word("FLAGS") || add && remove {
        return Err("unknown STORE item");
    }
    let silent = s.take_word(".SILENT");
    s.space()?;
    let mut flags = Flags::default();
    if s.peek() == Some(b'(') {
        s.list(|s| s.flag(&mut flags))?;
    } else {
        s.flag(&mut flags)?;
        while s.take(b' ') {
            s.flag(&mut flags)?;
        }
    }
    let change = match (add, remove) {
        (true, _) => FlagChange::Add(flags),
        (_, true) => FlagChange::Remove(flags),
        _ => FlagChange::Replace(flags),
    };
    Ok(Store { change, silent, unchanged_since })
}

fn fetch(s: &mut Scanner<'_>) -> Scan<Fetch> {
    let mut items = Vec::new();
    if s.peek() == Some(b'(') {
        s.list(|s| {
            let item = fetch_item(s)?;
            if items.len() >= FETCH_ITEMS_MAX {
                return Err("too many FETCH items");
            }
            if !items.contains(&item) {
                items.push(item);
            }
            Ok(())
        })?;
    } else {
        items = fetch_macro(s)?;
    }
    let mut changed_since = None;
    if s.take(b' ') {
        s.list(|s| {
            if !s.take_word("CHANGEDSINCE ") {
                return Err("unknown parameter");
            }
            changed_since = Some(s.number()?);
            Ok(())
        })?;
    }
    Ok(Fetch { items, changed_since })
}

/// Each may read a whole body per message: real clients ask for a handful.
const FETCH_ITEMS_MAX: usize = 64;

fn fetch_macro(s: &mut Scanner<'_>) -> Scan<Vec<FetchItem>> {
    use FetchItem::{Envelope, Flags, InternalDate, Size, Structure};
    let mut ahead = s.clone();
    let word = ahead.keyword()?;
    let items = match word.as_str() {
        "ALL" => vec![Flags, InternalDate, Size, Envelope],
        "FAST" => vec![Flags, InternalDate, Size],
        "FULL" => vec![Flags, InternalDate, Size, Envelope, Structure { extended: false }],
        _ => return Ok(vec![fetch_item(s)?]),
    };
    *s = ahead;
    Ok(items)
}

fn fetch_item(s: &mut Scanner<'_>) -> Scan<FetchItem> {
    let name = s.take_while(|b| b.is_ascii_alphanumeric() || b == b'.').to_ascii_uppercase();
    let old = |label: &str, text, peek| {
        let section = Section { path: Vec::new(), text };
        FetchItem::Section(SectionItem { section, partial: None, peek, label: label.into() })
    };
    Ok(match name.as_slice() {
        b"UID" => FetchItem::Uid,
        b"FLAGS" => FetchItem::Flags,
        b"INTERNALDATE" => FetchItem::InternalDate,
        b"ENVELOPE" => FetchItem::Envelope,
        b"BODYSTRUCTURE" => FetchItem::Structure { extended: true },
        b"MODSEQ" => FetchItem::ModSeq,
        b"EMAILID" => FetchItem::EmailId,
        b"THREADID" => FetchItem::ThreadId,
        b"PREVIEW" => {
            // RFC 8970 §3.1: LAZY may be granted at once.
            let _ = s.take_word(" (LAZY)");
            FetchItem::Preview
        }
        b"RFC822.SIZE" => FetchItem::Size,
        b"RFC822" => old("RFC822", SectionText::All, false),
        b"RFC822.HEADER" => old("RFC822.HEADER", SectionText::Header, true),
        b"RFC822.TEXT" => old("RFC822.TEXT", SectionText::Text, false),
        b"BODY" if s.peek() != Some(b'[') => FetchItem::Structure { extended: false },
        b"BODY" => FetchItem::Section(section_item(s, false)?),
        b"BODY.PEEK" => FetchItem::Section(section_item(s, true)?),
        _ => return Err("unknown FETCH item"),
    })
}

fn section_item(s: &mut Scanner<'_>, peek: bool) -> Scan<SectionItem> {
    s.expect(b'[', "a section is missing")?;
    let section = section(s)?;
    s.expect(b']', "a section does not end")?;
    let mut partial = None;
    if s.take(b'<') {
        let offset = s.number()?;
        s.expect(b'.', "a partial range is broken")?;
        let length = s.number()?;
        s.expect(b'>', "a partial range is broken")?;
        if length == 0 {
            return Err("a partial range is empty");
        }
        partial = Some((offset, length));
    }
    let label = label(&section, partial);
    Ok(SectionItem { section, partial, peek, label })
}

fn section(s: &mut Scanner<'_>) -> Scan<Section> {
    let mut path = Vec::new();
    while s.peek().is_some_and(|b| b.is_ascii_digit()) {
        match s.number32()? {
            0 => return Err("zero is no part number"),
            number => path.push(number),
        }
        if path.len() > PATH_LENGTH_MAX {
            return Err("a section is too deep");
        }
        if !s.take(b'.') {
            return Ok(Section { path, text: SectionText::All });
        }
    }
    let text = if s.take_word("HEADER.FIELDS") {
        let except = s.take_word(".NOT");
        s.space()?;
        let mut names = Vec::new();
        s.list(|s| {
            let name = s.astring()?;
            // The names come back in the response: keep to what a field name can be.
            if name.is_empty() || !name.iter().all(|b| b.is_ascii_graphic() && !b"()[]{}\":\\<>".contains(b)) {
                return Err("a bad header field name");
            }
            names.push(String::from_utf8_lossy(&name).to_ascii_lowercase());
            Ok(())
        })?;
        SectionText::HeaderFields { names, except }
    } else if s.take_word("HEADER") {
        SectionText::Header
    } else if s.take_word("TEXT") {
        SectionText::Text
    } else if !path.is_empty() && s.take_word("MIME") {
        SectionText::Mime
    } else if path.is_empty() {
        SectionText::All
    } else {
        return Err("unknown section");
    };
    Ok(Section { path, text })
}

const PATH_LENGTH_MAX: usize = 100;

fn label(section: &Section, partial: Option<(u64, u64)>) -> Vec<u8> {
    let mut text = String::from("BODY[");
    let numbers: Vec<String> = section.path.iter().map(u32::to_string).collect();
    text.push_str(&numbers.join("."));
    if !numbers.is_empty() && section.text != SectionText::All {
        text.push('.');
    }
    match &section.text {
        SectionText::All => {}
        SectionText::Header => text.push_str("HEADER"),
        SectionText::Text => text.push_str("TEXT"),
        SectionText::Mime => text.push_str("MIME"),
        SectionText::HeaderFields { names, except } => {
            text.push_str(if *except { "HEADER.FIELDS.NOT (" } else { "HEADER.FIELDS (" });
            text.push_str(&names.join(" ").to_ascii_uppercase());
            text.push(')');
        }
    }
    text.push(']');
    if let Some((offset, _)) = partial {
        text.push_str(&format!("<{offset}>"));
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests;
