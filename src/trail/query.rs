//! The query language: `from:bank to:anna outcome:refused -reason:greylist invoice`.

use std::str::FromStr;

use base::UtcMillis;
use rusqlite::types::Value;

use crate::event::Outcome;
use crate::row::MessageRow;

/// A parsed query. Words are matched as substrings without case; several are joined by "and".
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Query {
    terms: Vec<Term>,
    /// Only messages that began before this moment: the next page.
    pub before: Option<UtcMillis>,
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
    Id,
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
        Ok(Self { terms, before: None, since: None })
    }
}

impl Query {
    /// True if a row that is at hand matches: the same meaning as in a list, but recipients outside the viewer's scope
    /// are not searched.
    pub fn admits(&self, row: &MessageRow) -> bool {
        let is_after = |at: UtcMillis| self.since.is_none_or(|since| at >= since);
        let is_before = |at: UtcMillis| self.before.is_none_or(|before| at < before);
        is_after(row.at) && is_before(row.at) && self.terms.iter().all(|term| term.admits(row) != term.negated)
    }

    /// SQL condition over `m` (message) and the values of its `?` marks.
    pub(crate) fn to_sql(&self) -> (String, Vec<Value>) {
        let mut sql = String::from("1");
        let mut values = Vec::new();
        for term in &self.terms {
            sql.push_str(if term.negated { " AND NOT (" } else { " AND (" });
            let columns: &[&str] = match term.field {
                Field::Any => &["m.reverse_path", "m.subject", PARTIES, "m.client", "m.reason"],
                Field::From => &["m.reverse_path"],
                Field::To => &[PARTIES],
                Field::Subject => &["m.subject"],
                Field::Client => &["m.client"],
                Field::Reason => &["m.reason"],
                Field::Id => &["lower(hex(m.id))"],
                Field::Outcome(outcome) => {
                    sql.push_str("coalesce(m.outcome, -1) = ?)");
                    values.push(Value::Integer(outcome.rank()));
                    continue;
                }
            };
            for (at, column) in columns.iter().enumerate() {
                sql.push_str(if at == 0 { "" } else { " OR " });
                sql.push_str(&format!("instr(lower(coalesce({column}, '')), ?) > 0"));
                values.push(Value::Text(term.word.clone()));
            }
            sql.push(')');
        }
        for (bound, operator) in [(self.before, "<"), (self.since, ">=")] {
            if let Some(bound) = bound {
                sql.push_str(&format!(" AND m.at {operator} ?"));
                values.push(Value::Integer(bound.0));
            }
        }
        (sql, values)
    }
}

impl Term {
    fn admits(&self, row: &MessageRow) -> bool {
        let holds =
            |text: &Option<String>| text.as_deref().unwrap_or_default().to_ascii_lowercase().contains(&self.word);
        let is_to = || row.recipients.iter().any(|party| party.address.to_ascii_lowercase().contains(&self.word));
        match self.field {
            Field::Any => [&row.reverse_path, &row.subject, &row.client, &row.reason].into_iter().any(holds) || is_to(),
            Field::From => holds(&row.reverse_path),
            Field::To => is_to(),
            Field::Subject => holds(&row.subject),
            Field::Client => holds(&row.client),
            Field::Reason => holds(&row.reason),
            Field::Outcome(outcome) => row.outcome == Some(outcome),
            Field::Id => row.id.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>() == self.word,
        }
    }
}

/// All recipients of a message as one text.
const PARTIES: &str = "(SELECT group_concat(p.address, ' ') FROM party p WHERE p.message = m.id AND p.is_recipient)";

fn parse_term(word: &str) -> Result<Term, InvalidQuery> {
    let (negated, rest) = word.strip_prefix('-').map_or((false, word), |rest| (true, rest));
    let invalid = |why| InvalidQuery { word: word.to_owned(), why };
    let (field, value) = match rest.split_once(':') {
        None => (Field::Any, rest),
        Some(("from", value)) => (Field::From, value),
        Some(("to", value)) => (Field::To, value),
        Some(("subject", value)) => (Field::Subject, value),
        Some(("client", value)) => (Field::Client, value),
        Some(("reason", value)) => (Field::Reason, value),
        Some(("id", value)) => {
            let id: base::MessageId = value.parse().map_err(|_| invalid("not a message id"))?;
            let hex = id.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            return Ok(Term { field: Field::Id, word: hex, negated });
        }
        Some(("outcome", value)) => {
            let outcome = Outcome::from_name(value)
                .ok_or_else(|| invalid("outcomes are delivered, junk, quarantined, deferred, refused"))?;
            (Field::Outcome(outcome), "")
        }
        Some(_) => return Err(invalid("fields are from, to, subject, client, reason, outcome, id")),
    };
    Ok(Term { field, word: value.to_lowercase(), negated })
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
