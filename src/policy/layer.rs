//! What one level says: values, locks, floors and ceilings, read from TOML.
//!
//! ```toml
//! preset = "strict"
//! tag-score = 3.5
//! reject-score = { value = 12.0, ceiling = 20.0 }
//! virus = { value = "reject", locked = true }
//! allow = ["partner.example"]
//! ```

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::list::{self, Lists, Word};
use crate::option::{Key, Kind, Level, SCORE_GAP, Value};

/// What one level says of one option.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Setting {
    pub value: Option<Value>,
    /// Lower levels may not change it.
    pub locked: bool,
    /// The mildest value that this and lower levels can have.
    pub floor: Option<Value>,
    /// The strictest value (for scores: the highest).
    pub ceiling: Option<Value>,
}

impl Setting {
    pub fn of(value: Value) -> Self {
        Self { value: Some(value), ..Self::default() }
    }

    /// As it stands in a file after the option's name.
    pub fn to_toml(&self) -> String {
        match self {
            Self { value: Some(value), locked: false, floor: None, ceiling: None } => value_to_toml(value),
            _ => {
                let mut parts = Vec::new();
                for (name, value) in [("value", &self.value), ("floor", &self.floor), ("ceiling", &self.ceiling)] {
                    parts.extend(value.as_ref().map(|value| format!("{name} = {}", value_to_toml(value))));
                }
                if self.locked {
                    parts.push("locked = true".to_owned());
                }
                format!("{{ {} }}", parts.join(", "))
            }
        }
    }
}

fn value_to_toml(value: &Value) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    match value {
        Value::Score(score) => score.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Choice(word) => quoted(word),
        Value::Text(text) => quoted(text),
        Value::Words(words) => format!("[{}]", words.iter().map(quoted).collect::<Vec<_>>().join(", ")),
    }
}

/// What one level says: the system's policy, or that of one reseller, customer, domain or mailbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layer {
    pub level: Level,
    /// Whose it is: a file's name, a domain, an address.
    pub owner: Arc<str>,
    settings: BTreeMap<Key, Setting>,
    lists: Lists,
}

impl Layer {
    pub fn empty(level: Level, owner: &str) -> Self {
        Self { level, owner: owner.into(), settings: BTreeMap::new(), lists: Lists::default() }
    }

    /// Reads a policy file. `owner` names it in errors and as the origin of its values.
    pub fn parse(level: Level, owner: &str, text: &str) -> Result<Self, PolicyError> {
        let fail = |span: Option<Range<usize>>, message: String| PolicyError {
            file: owner.into(),
            line: line_of(text, span.map_or(0, |span| span.start)),
            message,
        };
        let document = DeTable::parse(text).map_err(|error| fail(error.span(), error.message().into()))?;
        let mut layer = Self::empty(level, owner);
        let mut lines = BTreeMap::new();
        for (name, given) in document.get_ref() {
            let list = match &**name.get_ref() {
                "allow" => Some((Word::Allow, &mut layer.lists.allow)),
                "block" => Some((Word::Block, &mut layer.lists.block)),
                _ => None,
            };
            if let Some((word, list)) = list {
                *list = list::read(word, given).map_err(|(span, message)| fail(Some(span), message))?;
                continue;
            }
            let key = Key::from_name(name.get_ref())
                .ok_or_else(|| fail(Some(name.span()), format!("unknown option `{}`", name.get_ref())))?;
            if !key.option().may_be_set_at(level) {
                let message = format!("`{}` cannot be set at the {level} level", name.get_ref());
                return Err(fail(Some(name.span()), message));
            }
            let setting = read_setting(key, given).map_err(|(span, message)| fail(Some(span), message))?;
            lines.insert(key, name.span());
            layer.settings.insert(key, setting);
        }
        layer.check_scores().map_err(|key| {
            let message = format!("`{}` must be at least {SCORE_GAP} above the score before it", key.option().name);
            fail(lines.get(&key).cloned(), message)
        })?;
        Ok(layer)
    }

    pub fn get(&self, key: Key) -> Option<&Setting> {
        self.settings.get(&key)
    }

    /// Whom this level lets through and keeps out.
    pub fn lists(&self) -> &Lists {
        &self.lists
    }

    pub fn set(&mut self, key: Key, setting: Setting) {
        self.settings.insert(key, setting);
    }

    /// As if this level said nothing of it.
    pub fn unset(&mut self, key: Key) {
        self.settings.remove(&key);
    }

    #[must_use]
    pub fn with_lists(mut self, lists: Lists) -> Self {
        self.lists.allow.extend(lists.allow);
        self.lists.block.extend(lists.block);
        self
    }

    /// This over another of the same level: of each option what this one says, if it says anything.
    #[must_use]
    pub fn over(mut self, below: &Self) -> Self {
        for (key, setting) in &below.settings {
            self.settings.entry(*key).or_insert_with(|| setting.clone());
        }
        self.with_lists(below.lists.clone())
    }

    /// # Errors
    /// Scores set here do not rise.
    pub fn check(&self) -> Result<(), PolicyError> {
        self.check_scores().map_err(|key| PolicyError {
            file: self.owner.clone(),
            line: 1,
            message: format!("`{}` must be at least {SCORE_GAP} above the score before it", key.option().name),
        })
    }

    /// The options as a file that [`Layer::parse`] reads; lists are no part of it.
    pub fn to_toml(&self) -> String {
        self.settings.iter().map(|(key, setting)| format!("{} = {}\n", key.option().name, setting.to_toml())).collect()
    }

    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.settings.keys().copied()
    }

    pub(crate) fn value(&self, key: Key) -> Option<&Value> {
        self.get(key)?.value.as_ref()
    }

    /// Of the scores set here, the first that does not rise.
    fn check_scores(&self) -> Result<(), Key> {
        let scores = [Key::TagScore, Key::QuarantineScore, Key::RejectScore].map(|key| match self.value(key) {
            Some(Value::Score(score)) => Some((key, *score)),
            _ => None,
        });
        let set: Vec<_> = scores.into_iter().flatten().collect();
        for pair in set.windows(2) {
            if let [(_, below), (key, above)] = pair
                && *above < *below + SCORE_GAP
            {
                return Err(*key);
            }
        }
        Ok(())
    }
}

/// A policy file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct PolicyError {
    pub file: Arc<str>,
    /// Counts from 1.
    pub line: usize,
    pub message: String,
}

type Misread = (Range<usize>, String);

fn read_setting(key: Key, given: &Spanned<DeValue<'_>>) -> Result<Setting, Misread> {
    let Some(table) = given.get_ref().as_table() else {
        return Ok(Setting { value: Some(read_value(key, given)?), ..Setting::default() });
    };
    let mut setting = Setting::default();
    for (name, given) in table {
        let limit = || {
            let value = read_value(key, given)?;
            match (key.option().kind.rank(&value), &value) {
                (Some(_), _) | (None, Value::Words(_)) => Ok(Some(value)),
                (None, _) => Err((name.span(), format!("`{}` has no floor or ceiling", key.option().name))),
            }
        };
        match &**name.get_ref() {
            "value" => setting.value = Some(read_value(key, given)?),
            "floor" => setting.floor = limit()?,
            "ceiling" => setting.ceiling = limit()?,
            "locked" => {
                setting.locked =
                    given.get_ref().as_bool().ok_or_else(|| (given.span(), "`locked` is true or false".to_owned()))?;
            }
            other => return Err((name.span(), format!("unknown field `{other}` of `{}`", key.option().name))),
        }
    }
    Ok(setting)
}

fn read_value(key: Key, given: &Spanned<DeValue<'_>>) -> Result<Value, Misread> {
    let wrong = || (given.span(), format!("`{}` takes {}", key.option().name, key.option().kind));
    if let Kind::Words(_) = key.option().kind {
        let words = given.get_ref().as_array().ok_or_else(wrong)?;
        let words: Option<Vec<&str>> = words.iter().map(|word| word.get_ref().as_str()).collect();
        return words.and_then(|words| key.option().kind.parse(&words.join(","))).ok_or_else(wrong);
    }
    let text = match given.get_ref() {
        DeValue::String(text) => Some(&**text),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str()),
        DeValue::Float(number) => Some(number.as_str()),
        _ => None,
    };
    // A number in quotes is no number, a bare number no text.
    let is_number = matches!(given.get_ref(), DeValue::Integer(_) | DeValue::Float(_));
    let wants_number = matches!(key.option().kind, Kind::Score { .. } | Kind::Number { .. });
    text.filter(|_| is_number == wants_number).and_then(|text| key.option().kind.parse(text)).ok_or_else(wrong)
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Score;

    #[test]
    fn a_layer_reads_values_locks_and_limits() {
        let text = "preset = \"strict\"\ntag-score = 3\n[reject-score]\nvalue = 12.5\nceiling = 20.0\nlocked = true\n";
        let layer = Layer::parse(Level::Domain, "example.test", text).unwrap();
        assert_eq!(layer.value(Key::Preset), Some(&Value::Choice("strict")));
        assert_eq!(layer.value(Key::TagScore), Some(&Value::Score(Score::points(3))));
        let reject = layer.get(Key::RejectScore).unwrap();
        assert!(reject.locked && reject.floor.is_none());
        assert_eq!(reject.ceiling, Some(Value::Score(Score::points(20))));
        assert_eq!(layer.get(Key::Virus), None);
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let text = "tag-score = 3.25\nsubject-tag = \"a \\\"b\\\" \\\\ c\"\nblocked-attachments = [\"macros\"]\n\
                    virus = { value = \"reject\", locked = true }\nreject-score = { floor = 8, ceiling = 20.0 }\n\
                    quarantine-days = 14\nnewsletter = \"junk\"\n";
        let layer = Layer::parse(Level::Domain, "p.toml", text).unwrap();
        let again = Layer::parse(Level::Domain, "p.toml", &layer.to_toml()).unwrap();
        assert_eq!(layer, again, "{}", layer.to_toml());
        assert_eq!(layer.keys().count(), 7);
        let below =
            Layer::parse(Level::Domain, "x", "tag-score = 1\nspf-fail = \"score\"\nblock = [\"x.test\"]").unwrap();
        let both = layer.over(&below);
        assert_eq!(both.value(Key::TagScore), Some(&Value::Score(Score(3250))));
        assert_eq!(both.value(Key::SpfFail), Some(&Value::Choice("score")));
        assert_eq!(both.lists().block.len(), 1);
        let mut wrong = Layer::empty(Level::Domain, "p");
        wrong.set(Key::TagScore, Setting::of(Value::Score(Score::points(5))));
        wrong.set(Key::QuarantineScore, Setting::of(Value::Score(Score::points(5))));
        assert!(wrong.check().unwrap_err().to_string().contains("`quarantine-score` must be"));
    }

    #[test]
    fn errors_name_file_and_line() {
        for (level, text, message) in [
            (Level::System, "\n\ntag-scare = 4\n", "p.toml:3: unknown option `tag-scare`"),
            (Level::System, "tag-score = \"4\"", "p.toml:1: `tag-score` takes a number from 0.5 to 1000.0"),
            (Level::System, "subject-tag = 4", "p.toml:1: `subject-tag` takes a line of at most 40 characters"),
            (
                Level::System,
                "# x\ntag-score = 4\nquarantine-score = 4.4",
                "p.toml:3: `quarantine-score` must be at least 0.5 above the score before it",
            ),
            (
                Level::System,
                "when-blocked = [\"tag\"]",
                "p.toml:1: `when-blocked` takes one of \"tag\", \"quarantine\", \"reject\"",
            ),
            (Level::System, "virus = \"bounce\"", "p.toml:1: `virus` takes one of \"quarantine\", \"reject\""),
            (Level::System, "virus = { lock = true }", "p.toml:1: unknown field `lock` of `virus`"),
            (Level::System, "subject-tag = { floor = \"x\" }", "p.toml:1: `subject-tag` has no floor or ceiling"),
            (
                Level::Mailbox,
                "\nscanner-unavailable = \"deliver\"",
                "p.toml:2: `scanner-unavailable` cannot be set at the mailbox level",
            ),
        ] {
            assert_eq!(Layer::parse(level, "p.toml", text).unwrap_err().to_string(), message);
        }
        let words = Layer::parse(Level::System, "p.toml", "blocked-attachments = [\"cats\"]").unwrap_err().to_string();
        assert!(
            words.starts_with("p.toml:1: `blocked-attachments` takes a list of any of \"executables\", "),
            "{words}"
        );
        let broken = Layer::parse(Level::System, "p.toml", "virus = \"reject\"\ntag-score = = 3").unwrap_err();
        assert_eq!(broken.line, 2, "{broken}");
        assert!(Layer::parse(Level::System, "p.toml", "virus = \"reject\"\nvirus = \"reject\"").is_err());
    }
}
