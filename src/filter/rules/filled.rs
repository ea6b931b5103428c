//! Patterns that are filled in with what another rule's pattern caught: `%{NAME}` stands for what the group `(?<NAME>…)` of
//! any rule matched in the same message, letter for letter. A rule whose names were not all caught does not run.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::parse::Target;
use super::regex::{Memory, Pattern, PatternText};
use super::target::{Pieces, Targets};

/// A rule to be filled in.
#[derive(Debug)]
pub(super) struct Filled {
    pub rule: usize,
    pub target: Target,
    pub negated: bool,
    pub pattern: PatternText,
    pub names: Vec<String>,
}

/// A pattern that catches something.
#[derive(Debug)]
pub(super) struct Catcher {
    pub target: Target,
    pub pattern: Pattern,
}

/// A longer text is not filled in: it would be no name or address any more.
const CAUGHT_BYTES_MAX: usize = 500;

static PLACE: LazyLock<regex::Regex> =
    LazyLock::new(|| regex::Regex::new(r"(?P<kept>\\%\{)|%\{(?P<name>[A-Z][A-Z0-9_]*)\}").expect("a fixed pattern"));
static GROUP: LazyLock<regex::Regex> =
    LazyLock::new(|| regex::Regex::new(r"\(\?P?<(?P<name>[A-Z][A-Z0-9_]*)>").expect("a fixed pattern"));

/// Names that have to be filled in.
pub(super) fn asked(pattern: &str) -> Vec<String> {
    PLACE.captures_iter(pattern).filter_map(|found| Some(found.name("name")?.as_str().to_owned())).collect()
}

/// Names that the pattern's groups have.
pub(super) fn caught(pattern: &str) -> impl Iterator<Item = &str> {
    GROUP.captures_iter(pattern).filter_map(|found| found.name("name")).map(|name| name.as_str())
}

/// The pattern with the texts of `value` in the places of names.
pub(super) fn filled<'v>(pattern: &PatternText, value: impl Fn(&str) -> &'v [u8]) -> PatternText {
    let put = |found: &regex::Captures<'_>| match found.name("name") {
        Some(name) => quoted(value(name.as_str())),
        None => found[0].to_owned(),
    };
    PatternText { pattern: PLACE.replace_all(&pattern.pattern, put).into_owned(), flags: pattern.flags.clone() }
}

fn quoted(text: &[u8]) -> String {
    let mut out = String::new();
    for byte in text {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(char::from(*byte)),
            byte => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out
}

/// What the patterns caught in a message: the first match of each.
fn catch(catchers: &[Catcher], targets: &Targets<'_>) -> HashMap<String, Vec<u8>> {
    let mut out = HashMap::new();
    for catcher in catchers {
        let Some(seen) = targets.seen_by(&catcher.target) else { continue };
        let groups = seen.iter().map(|piece| catcher.pattern.named_groups(piece)).find(|groups| !groups.is_empty());
        for (name, text) in groups.into_iter().flatten() {
            if text.len() <= CAUGHT_BYTES_MAX {
                out.entry(name).or_insert(text);
            }
        }
    }
    out
}

/// Calls `hit` with each rule that hits and what it matched.
pub(super) fn run(
    rules: &[Filled],
    catchers: &[Catcher],
    targets: &Targets<'_>,
    mut hit: impl FnMut(usize, Option<&[u8]>),
) {
    if rules.is_empty() {
        return;
    }
    let caught = catch(catchers, targets);
    for rule in rules.iter().filter(|rule| rule.names.iter().all(|name| caught.contains_key(name))) {
        let Some(seen) = targets.seen_by(&rule.target) else { continue };
        let value = |name: &str| caught.get(name).map(Vec::as_slice).unwrap_or_default();
        let values: Vec<&[u8]> = rule.names.iter().map(|name| value(name)).collect();
        let found = first_match(&seen, &values, || Pattern::compile(&filled(&rule.pattern, value)).ok());
        match found {
            Some(found) if !rule.negated => hit(rule.rule, seen.text.get(found)),
            None if rule.negated => hit(rule.rule, None),
            Some(_) | None => {}
        }
    }
}

/// Where the pattern matches. It is made only once a piece has all that must be in it: hardly any has.
fn first_match(
    seen: &Pieces,
    values: &[&[u8]],
    make: impl Fn() -> Option<(Pattern, regex_syntax::hir::Hir)>,
) -> Option<std::ops::Range<usize>> {
    let mut made = None;
    for cut in &seen.cuts {
        let piece = seen.text.get(cut.clone()).unwrap_or_default();
        let folded = piece.to_ascii_lowercase();
        let has = |value: &&[u8]| memchr::memmem::find(&folded, &value.to_ascii_lowercase()).is_some();
        if !values.iter().all(has) {
            continue;
        }
        if made.is_none() {
            made = Some(make()?.0);
        }
        if let Some(found) = made.as_ref().and_then(|made| made.find(piece, 0, &mut Memory::default())) {
            return Some(cut.start + found.start..cut.start + found.end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_groups_are_found() {
        assert_eq!(asked(r"^a%{ONE}b%{TWO_2}\%{NOT}%{not}%d{3}"), ["ONE", "TWO_2"]);
        assert_eq!(caught(r"(?<ONE>a)(?P<TWO>b)(?<!c)(?<=d)(?:e)").collect::<Vec<_>>(), ["ONE", "TWO"]);
        let text = PatternText { pattern: r"#%{A}\%{B}".into(), flags: "i".into() };
        assert_eq!(filled(&text, |_| b"x.y@z").pattern, r"#x\x2ey\x40z\%{B}");
    }
}
