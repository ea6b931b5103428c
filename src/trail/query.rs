//! The query language: `from:bank to:anna outcome:refused -reason:greylist invoice`; `to:<anna@a.test>` names a whole address.

use std::str::FromStr;

use base::{MessageId, UtcMillis};

use crate::event::Outcome;
use crate::row::MessageRow;
use crate::scope::Narrow;
use crate::sql::{Sql, Value};

/// A parsed query. Words are matched as substrings, the case of ASCII letters aside; several are joined by "and".
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Query {
    terms: Vec<Term>,
    /// Only messages that began before this moment: the next page.
    pub before: Option<UtcMillis>,
    /// Only messages whose ids come before this one, which ended a page: none is left out or comes twice.
    pub below: Option<MessageId>,
    /// Only messages that began at or after this moment.
    pub since: Option<UtcMillis>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Term {
    field: Field,
    word: String,
    negated: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Field {
    Any,
    From,
    To,
    Subject,
    Client,
    Reason,
    Outcome(Outcome),
    Id(MessageId),
    /// The whole reverse path.
    Sender,
    /// The whole address of one recipient.
    Recipient,
}

/// The text is no query; `word` is the part that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}`: {why}")]
pub struct InvalidQuery {
    pub word: String,
    pub why: &'static str,
}

const TERMS_MAX: usize = 20;

impl FromStr for Query {
    type Err = InvalidQuery;

    fn from_str(text: &str) -> Result<Self, InvalidQuery> {
        let words = split(text);
        if words.len() > TERMS_MAX {
            return Err(InvalidQuery { word: words[TERMS_MAX].clone(), why: "a query has at most 20 terms" });
        }
        let terms = words.iter().map(|word| parse_term(word)).collect::<Result<_, _>>()?;
        Ok(Self { terms, ..Self::default() })
    }
}

impl Query {
    /// True if it asks for an address that it names in full.
    pub fn names_address(&self) -> bool {
        let is_one = |term: &Term| matches!(term.field, Field::Sender | Field::Recipient) && !term.negated;
        self.terms.iter().any(is_one)
    }

    /// True if it asks for words of subjects by that field.
    pub fn asks_subject(&self) -> bool {
        self.terms.iter().any(|term| term.field == Field::Subject)
    }

    /// True if a row that is at hand matches: the same meaning as in a list.
    pub fn admits(&self, row: &MessageRow) -> bool {
        let is_after = |at: UtcMillis| self.since.is_none_or(|since| at >= since);
        let is_before = |at: UtcMillis| self.before.is_none_or(|before| at < before);
        let is_below = self.below.is_none_or(|below| row.id < below);
        let is_in_time = is_after(row.at) && is_before(row.at) && is_below;
        is_in_time && self.terms.iter().all(|term| term.admits(row) != term.negated)
    }

    /// A condition on `column`, which holds message ids: the stretch of time that is asked for.
    pub(crate) fn bounds(&self, sql: &mut Sql, column: &str) -> String {
        let mut text = sql.yes().to_owned();
        let [before, since] = [self.before, self.since].map(|at| at.map(MessageId::first_at));
        let bounds = [(before, "<"), (self.below, "<"), (since, ">=")];
        for (bound, operator) in bounds {
            if let Some(bound) = bound {
                let mark = sql.mark(Value::Bytes(bound.to_bytes()));
                text.push_str(&format!(" AND {column} {operator} {mark}"));
            }
        }
        text
    }

    /// A condition on `m` (message): the words. They look only at recipients whom the viewer may see, so that no query
    /// finds out about others.
    pub(crate) fn condition(&self, sql: &mut Sql, scope: &Narrow) -> String {
        let mut text = sql.yes().to_owned();
        for term in &self.terms {
            text.push_str(if term.negated { " AND NOT (" } else { " AND (" });
            text.push_str(&term.condition(sql, scope));
            text.push(')');
        }
        text
    }

    /// The one recipient that every message found has, if the query names one.
    pub(crate) fn recipient(&self) -> Option<&str> {
        let exact = |term: &&Term| term.field == Field::Recipient && !term.negated;
        self.terms.iter().find(exact).map(|term| term.word.as_str())
    }
}

impl Term {
    fn admits(&self, row: &MessageRow) -> bool {
        let lower = |text: &Option<String>| text.as_deref().unwrap_or_default().to_ascii_lowercase();
        let holds = |text: &Option<String>| lower(text).contains(&self.word);
        let mut to = row.recipients.iter().map(|party| party.address.to_ascii_lowercase());
        match self.field {
            Field::Any => {
                [&row.reverse_path, &row.subject, &row.client, &row.reason].into_iter().any(holds)
                    || to.any(|address| address.contains(&self.word))
            }
            Field::From => holds(&row.reverse_path),
            Field::Sender => row.reverse_path.is_some() && lower(&row.reverse_path) == self.word,
            Field::To => to.any(|address| address.contains(&self.word)),
            Field::Recipient => to.any(|address| address == self.word),
            Field::Subject => holds(&row.subject),
            Field::Client => holds(&row.client),
            Field::Reason => holds(&row.reason),
            Field::Outcome(outcome) => row.outcome == Some(outcome),
            Field::Id(id) => row.id == id,
        }
    }

    fn condition(&self, sql: &mut Sql, scope: &Narrow) -> String {
        let (own, word) = (OwnRecipients::new(sql, scope), self.word.clone());
        let (recipients, reason) = (own.joined_addresses(sql), own.reason());
        let columns: &[&str] = match self.field {
            Field::Any => &["m.reverse_path", "m.subject", &recipients, "m.client", &reason],
            Field::From => &["m.reverse_path"],
            Field::To => &[&recipients],
            Field::Subject => &["m.subject"],
            Field::Client => &["m.client"],
            Field::Reason => &[&reason],
            Field::Sender => {
                let mark = sql.mark(Value::Text(word));
                return format!("m.reverse_path IS NOT NULL AND {} = {mark}", sql.folded("m.reverse_path"));
            }
            Field::Recipient => {
                let mark = sql.mark(Value::Text(word));
                return format!("EXISTS (SELECT 1 {} AND {} = {mark})", own.rows, sql.folded("p.address"));
            }
            Field::Id(id) => return format!("m.id = {}", sql.mark(Value::Bytes(id.to_bytes()))),
            Field::Outcome(outcome) => {
                return format!("coalesce({}, -1) = {}", own.outcome(), sql.mark(Value::Int(outcome.rank())));
            }
        };
        let mark = sql.mark(Value::Text(word));
        columns.iter().map(|column| sql.contains(column, &mark)).collect::<Vec<_>>().join(" OR ")
    }
}

/// The recipients of `m` whom the viewer may see, as SQL. What a message shows of them is what [`crate::Scope`] makes of
/// the rows it reads: a query must find no more.
struct OwnRecipients {
    /// They are `p`; more conditions may follow.
    rows: String,
    is_everyone: bool,
}

impl OwnRecipients {
    fn new(sql: &Sql, scope: &Narrow) -> Self {
        let (party, seen) = (sql.party(), scope.on("p"));
        let rows = format!("FROM {party} p WHERE p.message = m.id AND p.is_recipient AND {seen}");
        Self { rows, is_everyone: matches!(scope, Narrow::All(_)) }
    }

    fn joined_addresses(&self, sql: &Sql) -> String {
        format!("(SELECT {} {})", sql.joined("p.address"), self.rows)
    }

    fn reason(&self) -> String {
        self.or_of_all("p.reason", "AND p.reason IS NOT NULL ORDER BY p.address LIMIT 1", "m.reason")
    }

    fn outcome(&self) -> String {
        self.or_of_all("min(p.outcome)", "", "m.outcome")
    }

    /// `what` of the viewer's own recipients, or `of_all` for staff and for whoever has none among them.
    fn or_of_all(&self, what: &str, which: &str, of_all: &str) -> String {
        let rows = &self.rows;
        match self.is_everyone {
            true => of_all.to_owned(),
            false => {
                format!("CASE WHEN EXISTS (SELECT 1 {rows}) THEN (SELECT {what} {rows} {which}) ELSE {of_all} END")
            }
        }
    }
}

fn parse_term(word: &str) -> Result<Term, InvalidQuery> {
    let (negated, rest) = word.strip_prefix('-').map_or((false, word), |rest| (true, rest));
    let invalid = |why| InvalidQuery { word: word.to_owned(), why };
    let (field, value) = match rest.split_once(':') {
        None => (Field::Any, rest),
        Some(("from", value)) => whole(value).map_or((Field::From, value), |address| (Field::Sender, address)),
        Some(("to", value)) => whole(value).map_or((Field::To, value), |address| (Field::Recipient, address)),
        Some(("subject", value)) => (Field::Subject, value),
        Some(("client", value)) => (Field::Client, value),
        Some(("reason", value)) => (Field::Reason, value),
        Some(("id", value)) => {
            let id = value.parse().map_err(|_| invalid("not a message id"))?;
            (Field::Id(id), "")
        }
        Some(("outcome", value)) => {
            let outcome = Outcome::from_name(value)
                .ok_or_else(|| invalid("outcomes are delivered, junk, quarantined, deferred, refused"))?;
            (Field::Outcome(outcome), "")
        }
        Some(_) => return Err(invalid("fields are from, to, subject, client, reason, outcome, id")),
    };
    Ok(Term { field, word: value.to_ascii_lowercase(), negated })
}

/// The address in `<…>`.
fn whole(value: &str) -> Option<&str> {
    value.strip_prefix('<')?.strip_suffix('>')
}

/// Words at white space; `"…"` keeps words together, also after a field name.
fn split(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in text.chars() {
        match character {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => words.push(String::new()),
            c => {
                if let Some(word) = words.last_mut() {
                    word.push(c);
                }
            }
        }
    }
    words.retain(|word| !word.is_empty());
    words
}
