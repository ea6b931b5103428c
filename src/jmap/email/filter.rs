//! Filters of Email/query (RFC 8621 §4.4.1), answered from as little as possible.

use std::collections::HashMap;

use base::{MailboxId, UtcMillis};
use mail::mime::Summary;
use mail::search::{Needle, SearchText, casemap};
use serde_json::Value;
use store::{EmailState, Entry, Flags, ThreadId};

use super::header::{Form, own_fields, show};
use super::keywords;
use crate::error::MethodError;
use crate::id::parse_mailbox_id;

/// A filter tree. A condition object is all of its conditions.
#[derive(Debug)]
pub(crate) enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    None(Vec<Filter>),
    Is(Condition),
}

#[derive(Debug)]
pub(crate) enum Condition {
    InMailbox(MailboxId),
    NotOnlyIn(Vec<MailboxId>),
    Before(UtcMillis),
    Since(UtcMillis),
    SizeMin(u64),
    SizeBelow(u64),
    Has(Flags),
    AllInThread(Flags),
    SomeInThread(Flags),
    HasAttachment(bool),
    /// Words, each found in one of the places.
    Words(Vec<Place>, Vec<Word>),
    /// A field of this name (upper case), containing this text.
    Header(String, Needle),
}

/// A word or phrase that is looked for.
#[derive(Debug)]
pub(crate) struct Word {
    /// In lower case.
    pub text: String,
    needle: Needle,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    From,
    To,
    Cc,
    Bcc,
    Subject,
    Body,
}

/// What is known of an email so far.
pub(crate) struct Facts<'a> {
    pub state: &'a EmailState,
    pub threads: &'a HashMap<ThreadId, Vec<&'a Flags>>,
    pub summary: Option<&'a Searched>,
    pub content: Option<SearchText<'a>>,
}

/// The fields of an email that are searched, under [`casemap`].
pub(crate) struct Searched {
    fields: [String; 5],
    has_attachment: bool,
}

const DEPTH_MAX: usize = 10;
const CONDITIONS_MAX: usize = 200;
const FIELDS: [(Place, &str); 5] =
    [(Place::From, "FROM"), (Place::To, "TO"), (Place::Cc, "CC"), (Place::Bcc, "BCC"), (Place::Subject, "SUBJECT")];

impl Searched {
    pub fn of(entry: &Entry, summary: &Summary) -> Self {
        let field = |name: &str| {
            let form = if name == "SUBJECT" { Form::Text } else { Form::Addresses };
            let found = own_fields(&entry.prefix, &summary.common_fields).filter(|field| field.is(name));
            found.map(|field| casemap(&plain(&show(form, field.value)))).collect::<Vec<_>>().join(" ")
        };
        Self { fields: FIELDS.map(|(_, name)| field(name)), has_attachment: summary.has_attachment }
    }

    fn get(&self, place: Place) -> Option<&str> {
        let at = FIELDS.iter().position(|(known, _)| *known == place)?;
        self.fields.get(at).map(String::as_str)
    }
}

/// Names and addresses, or a text.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => fields.values().map(plain).collect::<Vec<_>>().join(" "),
        Value::Null | Value::Bool(_) | Value::Number(_) => String::new(),
    }
}

impl Filter {
    pub fn read(value: &Value) -> Result<Self, MethodError> {
        let mut left = CONDITIONS_MAX;
        read(value, DEPTH_MAX, &mut left)
    }

    /// `None` if what is known does not decide.
    pub fn admits(&self, facts: &Facts<'_>) -> Option<bool> {
        match self {
            Self::All(of) => all(of.iter().map(|filter| filter.admits(facts))),
            Self::Any(of) => any(of.iter().map(|filter| filter.admits(facts))),
            Self::None(of) => any(of.iter().map(|filter| filter.admits(facts))).map(|found| !found),
            Self::Is(condition) => condition.admits(facts),
        }
    }

    /// The mailbox outside of which nothing can match.
    pub fn mailbox(&self) -> Option<MailboxId> {
        match self {
            Self::Is(Condition::InMailbox(id)) => Some(*id),
            Self::All(of) => of.iter().find_map(Self::mailbox),
            Self::Any(_) | Self::None(_) | Self::Is(_) => None,
        }
    }

    pub fn any(&self, is: &impl Fn(&Condition) -> bool) -> bool {
        match self {
            Self::All(of) | Self::Any(of) | Self::None(of) => of.iter().any(|filter| filter.any(is)),
            Self::Is(condition) => is(condition),
        }
    }

    /// True if only the whole content can answer.
    pub fn asks_content(&self) -> bool {
        self.any(&|condition| match condition {
            Condition::Words(places, _) => places.contains(&Place::Body),
            Condition::Header(..) => true,
            _ => false,
        })
    }

    /// True if content does not answer everything.
    pub fn asks_summary(&self) -> bool {
        !self.asks_content() || self.any(&|condition| matches!(condition, Condition::HasAttachment(_)))
    }

    /// Words looked for in a place, to be marked in a snippet.
    pub fn words(&self, place: Place) -> Vec<String> {
        match self {
            Self::All(of) | Self::Any(of) => of.iter().flat_map(|filter| filter.words(place)).collect(),
            Self::Is(Condition::Words(places, words)) if places.contains(&place) => {
                words.iter().map(|word| word.text.clone()).collect()
            }
            Self::None(_) | Self::Is(_) => Vec::new(),
        }
    }
}

impl Condition {
    pub fn needs_threads(&self) -> bool {
        matches!(self, Self::AllInThread(_) | Self::SomeInThread(_))
    }

    fn admits(&self, facts: &Facts<'_>) -> Option<bool> {
        let EmailState { mailbox, internal_date, size_bytes, state, thread } = facts.state;
        let of_thread = || facts.threads.get(thread).map(Vec::as_slice).unwrap_or_default();
        Some(match self {
            Self::InMailbox(id) => mailbox == id,
            Self::NotOnlyIn(ids) => !ids.contains(mailbox),
            Self::Before(at) => internal_date < at,
            Self::Since(at) => internal_date >= at,
            Self::SizeMin(size) => size_bytes >= size,
            Self::SizeBelow(size) => size_bytes < size,
            Self::Has(wanted) => keywords::holds(&state.flags, wanted),
            Self::AllInThread(wanted) => of_thread().iter().all(|flags| keywords::holds(flags, wanted)),
            Self::SomeInThread(wanted) => of_thread().iter().any(|flags| keywords::holds(flags, wanted)),
            Self::HasAttachment(wanted) => facts.summary?.has_attachment == *wanted,
            Self::Header(name, text) => facts.content?.field_holds(name, text),
            Self::Words(places, words) => {
                return all(words.iter().map(|word| any(places.iter().map(|place| facts.holds(*place, &word.needle)))));
            }
        })
    }
}

impl Facts<'_> {
    fn holds(&self, place: Place, needle: &Needle) -> Option<bool> {
        if let Some(content) = self.content {
            return Some(match FIELDS.iter().find(|(known, _)| *known == place) {
                Some((_, name)) => content.field_holds(name, needle),
                None => needle.is_in(content.body),
            });
        }
        self.summary?.get(place).map(|text| needle.is_in(text))
    }
}

/// True if all are, false as soon as one is false, whatever is unknown.
fn all(of: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    any(of.map(|known| known.map(|is| !is))).map(|is| !is)
}

fn any(of: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut sum = Some(false);
    for known in of {
        match known {
            Some(true) => return Some(true),
            Some(false) => {}
            None => sum = None,
        }
    }
    sum
}

fn read(value: &Value, depth: usize, left: &mut usize) -> Result<Filter, MethodError> {
    let unsupported = |what: &str| MethodError::new("unsupportedFilter", what);
    let fields = value.as_object().ok_or_else(|| MethodError::invalid("a filter is an object"))?;
    if let Some(operator) = fields.get("operator") {
        let depth = depth.checked_sub(1).ok_or_else(|| unsupported("nested too deeply"))?;
        let inner = fields.get("conditions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let inner = inner.iter().map(|filter| read(filter, depth, left)).collect::<Result<Vec<_>, _>>()?;
        return match operator.as_str() {
            Some("AND") => Ok(Filter::All(inner)),
            Some("OR") => Ok(Filter::Any(inner)),
            Some("NOT") => Ok(Filter::None(inner)),
            _ => Err(unsupported("operators are AND, OR, NOT")),
        };
    }
    let mut conditions = Vec::new();
    for (name, value) in fields {
        *left = left.checked_sub(1).ok_or_else(|| unsupported("too many conditions"))?;
        conditions.push(condition(name, value)?);
    }
    Ok(Filter::All(conditions))
}

fn condition(name: &str, value: &Value) -> Result<Filter, MethodError> {
    let invalid = || MethodError::invalid(format!("the value of {name} does not fit"));
    let flags = || value.as_str().and_then(keywords::parse).ok_or_else(invalid);
    let number = || value.as_u64().ok_or_else(invalid);
    let date = || value.as_str().and_then(parse_utc).ok_or_else(invalid);
    let words = |places: &[Place]| {
        let words = value.as_str().map(split_words).ok_or_else(invalid)?.into_iter();
        let words = words.map(|text| Word { needle: Needle::new(&text), text }).collect();
        Ok::<_, MethodError>(Condition::Words(places.to_vec(), words))
    };
    let is = |condition| Ok(Filter::Is(condition));
    let not = |condition| Ok(Filter::None(vec![Filter::Is(condition)]));
    // An id that names nothing matches nothing.
    let mailbox = |value: &Value| value.as_str().map(|id| parse_mailbox_id(id).unwrap_or(MailboxId(0)));
    match name {
        "inMailbox" => is(Condition::InMailbox(mailbox(value).ok_or_else(invalid)?)),
        "inMailboxOtherThan" => {
            let ids = value.as_array().ok_or_else(invalid)?;
            is(Condition::NotOnlyIn(ids.iter().map(mailbox).collect::<Option<_>>().ok_or_else(invalid)?))
        }
        "before" => is(Condition::Before(date()?)),
        "after" => is(Condition::Since(date()?)),
        "minSize" => is(Condition::SizeMin(number()?)),
        "maxSize" => is(Condition::SizeBelow(number()?)),
        "hasKeyword" => is(Condition::Has(flags()?)),
        "notKeyword" => not(Condition::Has(flags()?)),
        "allInThreadHaveKeyword" => is(Condition::AllInThread(flags()?)),
        "someInThreadHaveKeyword" => is(Condition::SomeInThread(flags()?)),
        "noneInThreadHaveKeyword" => not(Condition::SomeInThread(flags()?)),
        "hasAttachment" => is(Condition::HasAttachment(value.as_bool().ok_or_else(invalid)?)),
        "from" => is(words(&[Place::From])?),
        "to" => is(words(&[Place::To])?),
        "cc" => is(words(&[Place::Cc])?),
        "bcc" => is(words(&[Place::Bcc])?),
        "subject" => is(words(&[Place::Subject])?),
        "body" => is(words(&[Place::Body])?),
        "text" => is(words(&[Place::From, Place::To, Place::Cc, Place::Bcc, Place::Subject, Place::Body])?),
        "header" => {
            let parts = value.as_array().filter(|parts| (1..=2).contains(&parts.len())).ok_or_else(invalid)?;
            let texts = parts.iter().map(Value::as_str).collect::<Option<Vec<_>>>().ok_or_else(invalid)?;
            let field = texts.first().copied().unwrap_or_default().to_ascii_uppercase();
            is(Condition::Header(field, Needle::new(texts.get(1).copied().unwrap_or_default())))
        }
        _ => Err(MethodError::new("unsupportedFilter", name)),
    }
}

/// Words at white space, in lower case; quotes keep a phrase together.
fn split_words(text: &str) -> Vec<String> {
    let pieces = text.split(['"', '\'']).enumerate();
    pieces
        .flat_map(|(at, piece)| {
            let words: Vec<&str> = if at % 2 == 1 { vec![piece.trim()] } else { piece.split_whitespace().collect() };
            words.into_iter().filter(|word| !word.is_empty()).map(str::to_lowercase).collect::<Vec<_>>()
        })
        .collect()
}

/// A JMAP UTCDate.
pub(super) fn parse_utc(text: &str) -> Option<UtcMillis> {
    text.parse::<jiff::Timestamp>().ok().map(|at| UtcMillis(at.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_facts_only_count_where_they_decide() {
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(all([yes, None].into_iter()), None);
        assert_eq!(all([no, None].into_iter()), no);
        assert_eq!(any([yes, None].into_iter()), yes);
        assert_eq!(any([no, None].into_iter()), None);
        assert_eq!((all([].into_iter()), any([].into_iter())), (yes, no));
    }

    #[test]
    fn keywords_of_a_thread_count_together() {
        use base::{ModSeq, Uid};
        let flags = |name: &str| keywords::parse(name).unwrap();
        let (seen, unseen) = (flags("$seen"), Flags::default());
        let threads = HashMap::from([(ThreadId(1), vec![&seen, &unseen]), (ThreadId(2), vec![&seen])]);
        let admits = |thread: u64, name: &str| {
            let state = store::EntryState {
                uid: Uid::MIN,
                email: store::EmailId(1),
                modseq: ModSeq::MIN,
                flags: Flags::default(),
            };
            let state = EmailState {
                mailbox: MailboxId(1),
                thread: ThreadId(thread),
                internal_date: UtcMillis(0),
                size_bytes: 1,
                state,
            };
            let filter = Filter::read(&json!({ name: "$seen" })).unwrap();
            filter.admits(&Facts { state: &state, threads: &threads, summary: None, content: None })
        };
        for (name, of_both, of_seen) in [
            ("allInThreadHaveKeyword", false, true),
            ("someInThreadHaveKeyword", true, true),
            ("noneInThreadHaveKeyword", false, false),
        ] {
            assert_eq!((admits(1, name), admits(2, name)), (Some(of_both), Some(of_seen)), "{name}");
        }
    }

    #[test]
    fn words_and_phrases() {
        assert_eq!(split_words("Foo \"Bar baz\" qux"), ["foo", "bar baz", "qux"]);
        assert!(split_words(" \"\" ").is_empty());
    }

    #[test]
    fn filters_read_or_are_refused() {
        let filter = json!({ "operator": "AND", "conditions": [{ "inMailbox": "F3", "notKeyword": "$seen" }] });
        assert_eq!(Filter::read(&filter).unwrap().mailbox(), Some(MailboxId(3)));
        let mut deep = json!({ "from": "x" });
        for _ in 0..11 {
            deep = json!({ "operator": "NOT", "conditions": [deep] });
        }
        for (filter, kind) in [
            (json!({ "colour": 1 }), "unsupportedFilter"),
            (json!({ "operator": "XOR", "conditions": [] }), "unsupportedFilter"),
            (json!({ "before": "soon" }), "invalidArguments"),
            (json!({ "minSize": -1 }), "invalidArguments"),
            (json!([]), "invalidArguments"),
            (deep, "unsupportedFilter"),
        ] {
            assert_eq!(Filter::read(&filter).unwrap_err().kind, kind, "{filter}");
        }
    }
}
