//! Email/query (RFC 8621 §4.4).

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use base::AccountId;
use mail::mime::Summary;
use mail::search::SearchText;
use serde_json::{Value, json};
use store::{EmailId, EmailState, Entry, Flags, ThreadId};

use super::filter::{Condition, Facts, Filter, Searched};
use super::header::{Form, own_fields, show};
use super::keywords;
use crate::arguments::Arguments;
use crate::core::Jmap;
use crate::error::MethodError;
use crate::id::{email_id, parse_email_id};

/// Ids in one answer.
const LIMIT_MAX: usize = 1000;
/// Entries read at a time.
const BATCH: usize = 200;

/// What emails are sorted by.
enum Key {
    Received,
    Size,
    Keyword(Flags),
    SomeInThread(Flags),
    AllInThread(Flags),
    Field { name: &'static str, form: Form },
    Sent,
}

struct Comparator {
    key: Key,
    is_ascending: bool,
}

/// A sort key's value.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone)]
enum Rank {
    Number(i128),
    Text(String),
}

impl Jmap {
    pub(crate) async fn email_query(&self, account: AccountId, arguments: &Arguments) -> Result<Value, MethodError> {
        let filter = arguments.value("filter").map(Filter::read).transpose()?.map(Arc::new);
        let sort = read_sort(arguments)?;
        let state = self.state(account).await?;
        let needs_threads = filter.as_ref().is_some_and(|f| f.any(&Condition::needs_threads))
            || sort.iter().any(|c| matches!(c.key, Key::SomeInThread(_) | Key::AllInThread(_)));
        let mailbox = if needs_threads { None } else { filter.as_ref().and_then(|filter| filter.mailbox()) };
        let states = self.services.mail.email_states(account, mailbox).await?;
        let mut threads: HashMap<ThreadId, Vec<&Flags>> = HashMap::new();
        if needs_threads {
            for state in &states {
                threads.entry(state.thread).or_default().push(&state.state.flags);
            }
        }
        let mut found = self.matching(account, &states, &threads, filter.as_ref()).await?;
        self.sort(account, &mut found, &threads, &sort).await?;
        if arguments.flag("collapseThreads")? {
            let mut seen = HashSet::new();
            found.retain(|state| seen.insert(state.thread));
        }
        let start = start(arguments, &found)?;
        let wanted = arguments.count("limit")?;
        let limit = wanted.unwrap_or(LIMIT_MAX).min(LIMIT_MAX);
        let ids: Vec<String> = found.iter().skip(start).take(limit).map(|s| email_id(s.state.email)).collect();
        let mut answer = json!({
            "queryState": state, "canCalculateChanges": false, "position": start, "ids": ids,
        });
        if let Some(fields) = answer.as_object_mut() {
            if arguments.flag("calculateTotal")? {
                fields.insert("total".to_owned(), json!(found.len()));
            }
            if wanted.is_none_or(|wanted| wanted > LIMIT_MAX) {
                fields.insert("limit".to_owned(), json!(LIMIT_MAX));
            }
        }
        Ok(answer)
    }

    /// Emails the filter admits, newest first. Reads summaries and texts only of those that the state leaves open.
    async fn matching<'a>(
        &self,
        account: AccountId,
        states: &'a [EmailState],
        threads: &HashMap<ThreadId, Vec<&Flags>>,
        filter: Option<&Arc<Filter>>,
    ) -> Result<Vec<&'a EmailState>, MethodError> {
        let Some(filter) = filter else { return Ok(states.iter().collect()) };
        let first = |state| filter.admits(&Facts { state, threads, summary: None, content: None });
        let mut verdicts: Vec<(&EmailState, Option<bool>)> = states.iter().map(|state| (state, first(state))).collect();
        // The summaries of those that are open and that content alone does not decide.
        let mut summaries: HashMap<EmailId, Searched> = HashMap::new();
        if filter.asks_summary() {
            let mut open: Vec<&mut (&EmailState, Option<bool>)> =
                verdicts.iter_mut().filter(|(_, verdict)| verdict.is_none()).collect();
            for batch in open.chunks_mut(BATCH) {
                let ids = batch.iter().map(|(state, _)| state.state.email).collect();
                let entries = self.services.mail.emails(account, ids).await?;
                let entries: HashMap<EmailId, Entry> = entries.into_iter().map(|entry| (entry.email, entry)).collect();
                for (state, verdict) in batch.iter_mut().map(|place| (place.0, &mut place.1)) {
                    // Gone since: no match.
                    let Some(entry) = entries.get(&state.state.email) else { continue };
                    let searched = Searched::of(entry, &self.summary_of(entry)?);
                    *verdict = filter.admits(&Facts { state, threads, summary: Some(&searched), content: None });
                    if verdict.is_none() {
                        summaries.insert(entry.email, searched);
                    }
                }
            }
        }
        if filter.asks_content() {
            let open: Vec<&EmailState> = verdicts.iter().filter(|(_, v)| v.is_none()).map(|(s, _)| *s).collect();
            let found = self.with_content(account, &open, threads, filter, summaries).await?;
            for (state, verdict) in verdicts.iter_mut().filter(|(_, verdict)| verdict.is_none()) {
                *verdict = Some(found.contains(&state.state.email));
            }
        }
        Ok(verdicts.into_iter().filter(|(_, verdict)| *verdict == Some(true)).map(|(state, _)| state).collect())
    }

    /// Those of `open` that the filter admits by their content.
    async fn with_content(
        &self,
        account: AccountId,
        open: &[&EmailState],
        threads: &HashMap<ThreadId, Vec<&Flags>>,
        filter: &Arc<Filter>,
        summaries: HashMap<EmailId, Searched>,
    ) -> Result<HashSet<EmailId>, MethodError> {
        // The judge outlives this call as far as the compiler can see: it takes copies of what it needs.
        let states: HashMap<EmailId, EmailState> = open.iter().map(|s| (s.state.email, (*s).clone())).collect();
        let threads: HashMap<ThreadId, Vec<Flags>> =
            threads.iter().map(|(id, flags)| (*id, flags.iter().map(|flags| (*flags).clone()).collect())).collect();
        let filter = Arc::clone(filter);
        let emails = states.keys().copied().collect();
        let judge = move |email: EmailId, text: SearchText<'_>| {
            let Some(state) = states.get(&email) else { return false };
            let of_thread = threads.get(&state.thread).map(|flags| (state.thread, flags.iter().collect()));
            let threads = HashMap::from_iter(of_thread);
            let facts = Facts { state, threads: &threads, summary: summaries.get(&email), content: Some(text) };
            filter.admits(&facts) == Some(true)
        };
        Ok(self.services.search.search(account, emails, Arc::new(judge)).await?.into_iter().collect())
    }

    async fn sort(
        &self,
        account: AccountId,
        found: &mut [&EmailState],
        threads: &HashMap<ThreadId, Vec<&Flags>>,
        sort: &[Comparator],
    ) -> Result<(), MethodError> {
        let needs_summary = sort.iter().any(|c| matches!(c.key, Key::Field { .. } | Key::Sent));
        let mut ranks: HashMap<EmailId, Vec<Rank>> = HashMap::with_capacity(found.len());
        for batch in found.chunks(BATCH) {
            let ids: Vec<EmailId> = batch.iter().map(|state| state.state.email).collect();
            let entries = if needs_summary { self.services.mail.emails(account, ids).await? } else { Vec::new() };
            let entries: HashMap<EmailId, Entry> = entries.into_iter().map(|entry| (entry.email, entry)).collect();
            for state in batch {
                let entry = entries.get(&state.state.email);
                let summary = entry.map(|entry| self.summary_of(entry)).transpose()?;
                let of = |comparator: &Comparator| comparator.key.rank(state, threads, entry, summary.as_ref());
                ranks.insert(state.state.email, sort.iter().map(of).collect());
            }
        }
        let none = Vec::new();
        found.sort_by(|a, b| {
            let (of_a, of_b) = (ranks.get(&a.state.email).unwrap_or(&none), ranks.get(&b.state.email).unwrap_or(&none));
            let by_keys = sort
                .iter()
                .zip(of_a.iter().zip(of_b))
                .map(|(comparator, (a, b))| if comparator.is_ascending { a.cmp(b) } else { b.cmp(a) });
            // The newest first settles what is equal, so that pages never overlap.
            by_keys
                .fold(Ordering::Equal, Ordering::then)
                .then(b.internal_date.cmp(&a.internal_date))
                .then(b.state.email.cmp(&a.state.email))
        });
        Ok(())
    }
}

impl Key {
    fn rank(
        &self,
        state: &EmailState,
        threads: &HashMap<ThreadId, Vec<&Flags>>,
        entry: Option<&Entry>,
        summary: Option<&Summary>,
    ) -> Rank {
        let thread = || threads.get(&state.thread).map(Vec::as_slice).unwrap_or_default();
        let holds = |wanted: &Flags| keywords::holds(&state.state.flags, wanted);
        match self {
            Self::Received => Rank::Number(state.internal_date.0.into()),
            Self::Size => Rank::Number(state.size_bytes.into()),
            Self::Keyword(wanted) => Rank::Number(holds(wanted).into()),
            Self::SomeInThread(wanted) => Rank::Number(thread().iter().any(|f| keywords::holds(f, wanted)).into()),
            Self::AllInThread(wanted) => Rank::Number(thread().iter().all(|f| keywords::holds(f, wanted)).into()),
            Self::Sent => {
                let sent = summary.and_then(|summary| summary.sent_at).unwrap_or(state.internal_date);
                Rank::Number(sent.0.into())
            }
            Self::Field { name, form } => {
                let (Some(entry), Some(summary)) = (entry, summary) else { return Rank::Text(String::new()) };
                let value = own_fields(&entry.prefix, &summary.common_fields)
                    .filter(|field| field.is(name))
                    .last()
                    .map_or(Value::Null, |field| show(*form, field.value));
                Rank::Text(match form {
                    Form::Text => base_subject(value.as_str().unwrap_or_default()),
                    _ => {
                        let first = value.get(0);
                        let part = |name: &str| first.and_then(|a| a.get(name)).and_then(Value::as_str);
                        part("name").or(part("email")).unwrap_or_default().to_lowercase()
                    }
                })
            }
        }
    }
}

/// Without leading "Re:", "Fwd:" and the like, as RFC 5256 §2.1 wants for sorting; simplified to prefixes.
fn base_subject(subject: &str) -> String {
    let mut rest = subject.trim().to_lowercase();
    while let Some(shorter) =
        ["re:", "aw:", "fw:", "fwd:", "wg:", "r:", "i:"].iter().find_map(|prefix| rest.strip_prefix(prefix))
    {
        rest = shorter.trim_start().to_owned();
    }
    rest
}

fn read_sort(arguments: &Arguments) -> Result<Vec<Comparator>, MethodError> {
    let Some(comparators) = arguments.array("sort")?.filter(|sort| !sort.is_empty()) else {
        return Ok(vec![Comparator { key: Key::Received, is_ascending: false }]);
    };
    if comparators.len() > 8 {
        return Err(MethodError::new("unsupportedSort", "at most 8 comparators"));
    }
    comparators.iter().map(read_comparator).collect()
}

fn read_comparator(value: &Value) -> Result<Comparator, MethodError> {
    let keyword = || {
        let keyword = value.get("keyword").and_then(Value::as_str).and_then(keywords::parse);
        keyword.ok_or_else(|| MethodError::invalid("the comparator lacks a keyword"))
    };
    let key = match value.get("property").and_then(Value::as_str) {
        Some("receivedAt") => Key::Received,
        Some("sentAt") => Key::Sent,
        Some("size") => Key::Size,
        Some("from") => Key::Field { name: "from", form: Form::Addresses },
        Some("to") => Key::Field { name: "to", form: Form::Addresses },
        Some("subject") => Key::Field { name: "subject", form: Form::Text },
        Some("hasKeyword") => Key::Keyword(keyword()?),
        Some("someInThreadHaveKeyword") => Key::SomeInThread(keyword()?),
        Some("allInThreadHaveKeyword") => Key::AllInThread(keyword()?),
        _ => return Err(MethodError::new("unsupportedSort", "")),
    };
    Ok(Comparator { key, is_ascending: value.get("isAscending").and_then(Value::as_bool).unwrap_or(true) })
}

/// Index of the first email wanted (RFC 8620 §5.5).
fn start(arguments: &Arguments, found: &[&EmailState]) -> Result<usize, MethodError> {
    let clamped = |at: i64| usize::try_from(at.max(0)).unwrap_or(usize::MAX);
    if let Some(anchor) = arguments.text("anchor")? {
        let id = parse_email_id(anchor);
        let at = found.iter().position(|state| Some(state.state.email) == id);
        let at = at.ok_or_else(|| MethodError::new("anchorNotFound", ""))?;
        let offset = arguments.integer("anchorOffset")?.unwrap_or(0);
        return Ok(clamped(i64::try_from(at).unwrap_or(i64::MAX).saturating_add(offset)));
    }
    let position = arguments.integer("position")?.unwrap_or(0);
    let len = i64::try_from(found.len()).unwrap_or(i64::MAX);
    Ok(clamped(if position < 0 { len.saturating_add(position) } else { position }))
}
