//! Which patterns can match a text at all: one pass for the literals that they need.

use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};
use regex_syntax::hir::{Class, Hir, HirKind};

/// Literals of many patterns in one automaton.
#[derive(Debug)]
pub struct Prefilter {
    literals: Option<AhoCorasick>,
    /// For each literal: the patterns that need it, as a range of `needed_by`.
    ranges: Vec<Range<usize>>,
    needed_by: Vec<usize>,
    /// Patterns without a usable literal: always candidates.
    always: Vec<usize>,
    patterns: usize,
}

/// Marks for one scan, reused to save allocations.
#[derive(Debug, Default)]
pub struct Scratch {
    seen: Vec<bool>,
    candidates: Vec<usize>,
}

/// Literals shorter than this occur everywhere.
const LITERAL_BYTES_MIN: usize = 3;
/// Longer ones cost memory and decide nothing more.
const LITERAL_BYTES_MAX: usize = 12;
/// At most so many alternatives for one pattern.
const ALTERNATIVES_MAX: usize = 128;

impl Prefilter {
    /// Patterns are known by their position.
    pub fn of(patterns: &[Hir]) -> Self {
        let mut always = Vec::new();
        let mut pairs: Vec<(Vec<u8>, usize)> = Vec::new();
        for (at, hir) in patterns.iter().enumerate() {
            match required(hir) {
                Some(set) => pairs.extend(set.into_iter().map(|literal| (literal, at))),
                None => always.push(at),
            }
        }
        pairs.sort();
        pairs.dedup();
        let (mut texts, mut ranges, mut needed_by): (Vec<Vec<u8>>, Vec<Range<usize>>, Vec<usize>) = Default::default();
        for (literal, at) in pairs {
            needed_by.push(at);
            match (texts.last(), ranges.last_mut()) {
                (Some(last), Some(range)) if *last == literal => range.end = needed_by.len(),
                _ => {
                    ranges.push(needed_by.len() - 1..needed_by.len());
                    texts.push(literal);
                }
            }
        }
        let literals = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .ascii_case_insensitive(true)
            .build(&texts)
            .ok()
            .filter(|_| !texts.is_empty());
        if literals.is_none() {
            // Too many literals for the automaton: correct, only slower.
            always = (0..patterns.len()).collect();
        }
        Self { literals, ranges, needed_by, always, patterns: patterns.len() }
    }

    /// The patterns that may match `text`, in no order, each once.
    pub fn candidates<'s>(&self, text: &[u8], scratch: &'s mut Scratch) -> &'s [usize] {
        scratch.candidates.clear();
        scratch.candidates.extend_from_slice(&self.always);
        let Some(literals) = &self.literals else { return &scratch.candidates };
        scratch.seen.clear();
        scratch.seen.resize(self.patterns.max(self.ranges.len()), false);
        for found in literals.find_overlapping_iter(text) {
            let Some(range) = self.ranges.get(found.pattern().as_usize()) else { continue };
            for at in &self.needed_by[range.clone()] {
                if !std::mem::replace(&mut scratch.seen[*at], true) {
                    scratch.candidates.push(*at);
                }
            }
        }
        &scratch.candidates
    }

    /// How many patterns have no literal.
    pub fn always(&self) -> usize {
        self.always.len()
    }
}

type Set = Vec<Vec<u8>>;

/// What is known of the texts that a part of a pattern matches.
struct Known {
    /// All of them, lower case, where they are few.
    exact: Option<Set>,
    /// Each of them holds one of these.
    needs: Option<Set>,
}

/// A set of lower-case literals of which every match contains one (without regard to case).
fn required(hir: &Hir) -> Option<Set> {
    let known = know(hir);
    let exact = known.exact.filter(is_useful);
    let mut set = better(known.needs, exact)?;
    for literal in &mut set {
        literal.truncate(LITERAL_BYTES_MAX);
    }
    set.sort();
    set.dedup();
    Some(set)
}

fn is_useful(set: &Set) -> bool {
    !set.is_empty() && set.iter().all(|literal| literal.len() >= LITERAL_BYTES_MIN)
}

/// The set that lets fewer texts through: longer literals first, then fewer.
fn better(left: Option<Set>, right: Option<Set>) -> Option<Set> {
    let worth = |set: &Set| {
        let shortest = set.iter().map(Vec::len).min().unwrap_or(0).min(8);
        let many = set.len().ilog2() as usize;
        (shortest * 2).saturating_sub(many)
    };
    match (left, right) {
        (Some(left), Some(right)) => Some(if worth(&right) > worth(&left) { right } else { left }),
        (left, right) => left.or(right),
    }
}

fn know(hir: &Hir) -> Known {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Known { exact: Some(vec![Vec::new()]), needs: None },
        HirKind::Literal(literal) => Known { exact: Some(vec![literal.0.to_ascii_lowercase()]), needs: None },
        HirKind::Class(class) => Known { exact: class_texts(class), needs: None },
        HirKind::Capture(capture) => know(&capture.sub),
        HirKind::Repetition(repetition) => {
            let inner = know(&repetition.sub);
            match (repetition.min, repetition.max) {
                (0, Some(1)) => {
                    let exact = inner.exact.map(|mut set| {
                        set.push(Vec::new());
                        set
                    });
                    Known { exact, needs: None }
                }
                (0, _) => Known { exact: None, needs: None },
                (min, max) => {
                    let repeated =
                        (0..min.min(4)).try_fold(vec![Vec::new()], |so_far, _| product(&so_far, inner.exact.as_ref()?));
                    let is_exact = max == Some(min) && min <= 4;
                    let needs = better(inner.needs, repeated.clone().filter(is_useful));
                    Known { exact: repeated.filter(|_| is_exact), needs }
                }
            }
        }
        HirKind::Concat(parts) => {
            let mut run: Option<Set> = Some(vec![Vec::new()]);
            let mut needs = None;
            let mut whole = true;
            for part in parts {
                let inner = know(part);
                needs = better(needs, inner.needs);
                let joined = match (&run, &inner.exact) {
                    (Some(run), Some(exact)) => product(run, exact),
                    _ => None,
                };
                if joined.is_none() {
                    whole = false;
                    needs = better(needs, run.filter(is_useful));
                    run = inner.exact.or(Some(vec![Vec::new()]));
                } else {
                    run = joined;
                }
            }
            if whole {
                return Known { exact: run, needs };
            }
            Known { exact: None, needs: better(needs, run.filter(is_useful)) }
        }
        HirKind::Alternation(branches) => {
            let mut exact: Option<Set> = Some(Vec::new());
            let mut needs: Option<Set> = Some(Vec::new());
            for branch in branches {
                let inner = know(branch);
                let useful = inner.exact.clone().filter(is_useful);
                needs = match (needs, better(inner.needs, useful)) {
                    (Some(so_far), Some(more)) => union(so_far, more),
                    _ => None,
                };
                exact = match (exact, inner.exact) {
                    (Some(so_far), Some(more)) => union(so_far, more),
                    _ => None,
                };
            }
            Known { exact, needs }
        }
    }
}

fn union(mut left: Set, right: Set) -> Option<Set> {
    left.extend(right);
    left.sort();
    left.dedup();
    (left.len() <= ALTERNATIVES_MAX).then_some(left)
}

/// Each of `left` followed by each of `right`.
fn product(left: &Set, right: &Set) -> Option<Set> {
    let count = left.len().checked_mul(right.len())?;
    let longest = |set: &Set| set.iter().map(Vec::len).max().unwrap_or(0);
    if count > ALTERNATIVES_MAX || longest(left) + longest(right) > 64 {
        return None;
    }
    let mut out: Set = left.iter().flat_map(|l| right.iter().map(move |r| [l.as_slice(), r].concat())).collect();
    out.sort();
    out.dedup();
    Some(out)
}

/// The few bytes of a class, lower case.
fn class_texts(class: &Class) -> Option<Set> {
    let Class::Bytes(class) = class else { return None };
    let mut out: Set = Vec::new();
    for range in class.ranges() {
        for byte in range.start()..=range.end() {
            out.push(vec![byte.to_ascii_lowercase()]);
            if out.len() > 16 {
                return None;
            }
        }
    }
    out.sort();
    out.dedup();
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::regex::{Pattern, PatternText};

    fn hir(pattern: &str) -> Hir {
        let text = PatternText { pattern: pattern.to_owned(), flags: "i".to_owned() };
        Pattern::compile(&text).unwrap().1
    }

    fn literals(pattern: &str) -> Vec<String> {
        let set = required(&hir(pattern)).unwrap_or_default();
        set.into_iter().map(|literal| String::from_utf8(literal).unwrap()).collect()
    }

    #[test]
    fn literals_of_patterns() {
        for (pattern, expected) in [
            ("Viagra", &["viagra"][..]),
            (r"\bcheap (?:meds|pills)\b", &["cheap meds", "cheap pills"]),
            (r"\d+ dollars", &[" dollars"]),
            (r"colou?r", &["color", "colour"]),
            (r"(?:ab|.)xyz", &["xyz"]),
            (r"(?:abc|def)+q", &["abc", "def"]),
            (r"gr[ae]y", &["gray", "grey"]),
            (r"(?:abc)?", &[]),
            (r"a.b", &[]),
            (r"(?!affordable)aff.rdable", &["rdable"]),
            (r"(?:long enough|ab)", &[]),
        ] {
            assert_eq!(literals(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn candidates_are_never_too_few() {
        let patterns = [r"free (?:money|gold)", r"\d{3}", "GOLD", r"x[yz]{2}w"];
        let hirs: Vec<Hir> = patterns.iter().map(|pattern| hir(pattern)).collect();
        let prefilter = Prefilter::of(&hirs);
        assert_eq!(prefilter.always(), 1);
        let mut scratch = Scratch::default();
        for (text, expected) in [("nothing", &[1][..]), ("Free Gold!", &[0, 1, 2]), ("xZyW", &[1, 3])] {
            let mut found = prefilter.candidates(text.as_bytes(), &mut scratch).to_vec();
            found.sort_unstable();
            assert_eq!(found, expected, "{text}");
        }
    }
}
