//! Which patterns can match a text at all: one pass for the literals that they need, one for the bytes that matches of the
//! others begin with.

mod grams;
mod windows;

use std::ops::Range;

use regex_syntax::hir::{Class, Hir, HirKind};

use grams::Grams;
use windows::Windows;

/// What many patterns need of a text.
#[derive(Debug, Default)]
pub struct Prefilter {
    literals: Grams,
    /// For each literal: whom it counts for, as a range of `counts_for`.
    ranges: Vec<Range<usize>>,
    counts_for: Vec<Share>,
    ways: Vec<Way>,
    /// Patterns without a usable literal.
    windows: Windows,
    /// Patterns without either: always candidates.
    always: Vec<usize>,
    patterns: usize,
}

/// One way in which a pattern can match: a top-level alternative of it.
#[derive(Clone, Copy, Debug)]
struct Way {
    pattern: usize,
    /// A bit for each set of literals of which the text must hold one.
    wanted: u8,
}

/// One literal's part in a way: the bit of the set that it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Share {
    way: usize,
    bit: u8,
}

/// Marks for one scan, reused to save allocations.
#[derive(Debug, Default)]
pub struct Scratch {
    pub memory: super::regex::Memory,
    lower: Vec<u8>,
    found: Vec<bool>,
    seen: Vec<u8>,
    is_candidate: Vec<bool>,
    candidates: Vec<usize>,
}

/// Literals shorter than this occur everywhere.
const LITERAL_BYTES_MIN: usize = 3;
/// Longer ones cost memory and decide nothing more.
const LITERAL_BYTES_MAX: usize = 12;
/// At most so many alternatives for one pattern.
const ALTERNATIVES_MAX: usize = 1024;
/// At most so many texts from joining alternatives.
const PRODUCTS_MAX: usize = 128;
/// More ends of a repetition only multiply what is beside them.
const EDGES_MAX: usize = 2;
/// Further sets that a way needs decide little more; a [`Way`] has bits for eight.
const SETS_MAX: usize = 3;

/// Patterns to look for, one after the other: nothing of them is kept but what their matches need.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    always: Vec<usize>,
    windows: windows::Builder,
    ways: Vec<Way>,
    pairs: Vec<(Vec<u8>, Share)>,
    patterns: usize,
}

impl Builder {
    /// Patterns are known by their position. True if literals tell most texts that cannot match.
    pub fn add(&mut self, hir: &Hir) -> bool {
        let pattern = self.patterns;
        self.patterns += 1;
        let Some(required) = required(hir) else {
            if !self.windows.add(pattern, hir) {
                self.always.push(pattern);
            }
            return false;
        };
        for sets in required {
            let mut wanted = 0;
            for (at, set) in sets.into_iter().enumerate() {
                let bit = 1 << at;
                wanted |= bit;
                self.pairs.extend(set.into_iter().map(|literal| (literal, Share { way: self.ways.len(), bit })));
            }
            self.ways.push(Way { pattern, wanted });
        }
        true
    }

    pub fn build(self) -> Prefilter {
        let Self { mut always, windows, mut ways, mut pairs, patterns } = self;
        pairs.sort();
        pairs.dedup();
        let (mut texts, mut ranges, mut counts_for): (Vec<Vec<u8>>, Vec<Range<usize>>, Vec<Share>) = Default::default();
        for (literal, share) in pairs {
            counts_for.push(share);
            match (texts.last(), ranges.last_mut()) {
                (Some(last), Some(range)) if *last == literal => range.end = counts_for.len(),
                _ => {
                    ranges.push(counts_for.len() - 1..counts_for.len());
                    texts.push(literal);
                }
            }
        }
        counts_for.shrink_to_fit();
        ranges.shrink_to_fit();
        ways.shrink_to_fit();
        let windows = windows.build(&mut always);
        Prefilter { literals: Grams::of(&texts), ranges, counts_for, ways, windows, always, patterns }
    }
}

impl Prefilter {
    /// The patterns that may match `text`, in no order, each once. [`Scratch::reuse`] takes the list back.
    pub fn candidates(&self, text: &[u8], scratch: &mut Scratch) -> Vec<usize> {
        let mut candidates = std::mem::take(&mut scratch.candidates);
        let Scratch { lower, found, seen, is_candidate, .. } = scratch;
        candidates.clear();
        candidates.extend_from_slice(&self.always);
        is_candidate.clear();
        is_candidate.resize(self.patterns, false);
        self.windows.scan(text, |pattern| {
            if !std::mem::replace(&mut is_candidate[pattern], true) {
                candidates.push(pattern);
            }
        });
        if self.ranges.is_empty() {
            return candidates;
        }
        lower.clear();
        lower.extend(text.iter().map(u8::to_ascii_lowercase));
        found.clear();
        found.resize(self.ranges.len(), false);
        seen.clear();
        seen.resize(self.ways.len(), 0);
        self.literals.scan(lower, found, |literal| {
            let Some(range) = self.ranges.get(literal) else { return };
            for share in &self.counts_for[range.clone()] {
                let (way, seen) = (self.ways[share.way], &mut seen[share.way]);
                *seen |= share.bit;
                if *seen == way.wanted && !std::mem::replace(&mut is_candidate[way.pattern], true) {
                    candidates.push(way.pattern);
                }
            }
        });
        candidates
    }
}

impl Scratch {
    /// Keeps the memory of a list for the next.
    pub fn reuse(&mut self, candidates: Vec<usize>) {
        self.candidates = candidates;
    }
}

type Set = Vec<Vec<u8>>;

/// What is known of the texts that a part of a pattern matches.
struct Known {
    /// All of them, lower case, where they are few.
    exact: Option<Set>,
    /// Where they are many: each begins with one of these and ends with one of these.
    edges: Option<Set>,
    /// Each of them holds one of each of these.
    needs: Vec<Set>,
}

/// For each way in which the pattern can match: sets of lower-case literals (without regard to case) of which every
/// match contains one each. `None` if a way needs nothing that is worth looking for.
fn required(hir: &Hir) -> Option<Vec<Vec<Set>>> {
    match hir.kind() {
        HirKind::Capture(capture) => required(&capture.sub),
        HirKind::Concat(parts) if let [inner] = parts.iter().filter(|part| !is_look(part)).collect::<Vec<_>>()[..] => {
            required(inner)
        }
        HirKind::Alternation(branches) if branches.len() <= ALTERNATIVES_MAX => {
            let ways: Vec<Vec<Vec<Set>>> = branches.iter().map(required).collect::<Option<_>>()?;
            let ways: Vec<Vec<Set>> = ways.into_iter().flatten().collect();
            let (short, long): (Vec<_>, Vec<_>) = ways.into_iter().partition(|way| way.len() == 1);
            // Words to choose from are one set, not a way each.
            let words = short.into_iter().flatten().flatten().collect::<Set>();
            Some(if words.is_empty() { long } else { long.into_iter().chain([vec![shortened(words)]]).collect() })
        }
        _ => {
            let Known { exact, mut needs, .. } = know(hir);
            needs.extend(exact.filter(is_useful));
            needs.sort_by_key(|set| std::cmp::Reverse(worth(set)));
            needs.dedup();
            needs.truncate(SETS_MAX);
            (!needs.is_empty()).then(|| vec![needs.into_iter().map(shortened).collect()])
        }
    }
}

fn is_look(hir: &Hir) -> bool {
    matches!(hir.kind(), HirKind::Look(_))
}

fn shortened(mut set: Set) -> Set {
    for literal in &mut set {
        literal.truncate(LITERAL_BYTES_MAX);
    }
    set.sort();
    set.dedup();
    set
}

fn is_useful(set: &Set) -> bool {
    !set.is_empty() && set.iter().all(|literal| literal.len() >= LITERAL_BYTES_MIN)
}

/// How few texts a set lets through: longer literals first, then fewer.
fn worth(set: &Set) -> usize {
    let shortest = set.iter().map(Vec::len).min().unwrap_or(0).min(8);
    let many = set.len().max(1).ilog2() as usize;
    (shortest * 2).saturating_sub(many)
}

fn know(hir: &Hir) -> Known {
    let exactly = |exact: Option<Set>| Known { exact, edges: None, needs: Vec::new() };
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => exactly(Some(vec![Vec::new()])),
        HirKind::Literal(literal) => exactly(Some(vec![literal.0.to_ascii_lowercase()])),
        HirKind::Class(class) => exactly(class_texts(class)),
        HirKind::Capture(capture) => know(&capture.sub),
        HirKind::Repetition(repetition) => {
            let inner = know(&repetition.sub);
            match (repetition.min, repetition.max) {
                (0, Some(1)) => exactly(inner.exact.map(|mut set| {
                    set.push(Vec::new());
                    set
                })),
                (0, _) => exactly(None),
                (min, max) => {
                    let repeated =
                        (0..min.min(4)).try_fold(vec![Vec::new()], |so_far, _| product(&so_far, inner.exact.as_ref()?));
                    let is_exact = max == Some(min) && min <= 4;
                    let mut needs = inner.needs;
                    needs.extend(repeated.clone().or(inner.exact).filter(is_useful));
                    match repeated {
                        Some(repeated) if is_exact => Known { exact: Some(repeated), edges: None, needs },
                        edges => {
                            let edges = edges.filter(|edges| edges.len() <= EDGES_MAX);
                            Known { exact: None, edges, needs }
                        }
                    }
                }
            }
        }
        HirKind::Concat(parts) => {
            let mut run: Set = vec![Vec::new()];
            let mut needs = Vec::new();
            let mut whole = true;
            for part in parts {
                let inner = know(part);
                needs.extend(inner.needs);
                let joined = inner.exact.as_ref().or(inner.edges.as_ref()).and_then(|next| product(&run, next));
                if let (Some(joined), Some(_)) = (&joined, &inner.exact) {
                    run.clone_from(joined);
                    continue;
                }
                whole = false;
                needs.extend(Some(joined.unwrap_or(run)).filter(is_useful));
                run = inner.exact.or(inner.edges).unwrap_or_else(|| vec![Vec::new()]);
            }
            if whole {
                return Known { exact: Some(run), edges: None, needs };
            }
            needs.extend(Some(run).filter(is_useful));
            Known { exact: None, edges: None, needs }
        }
        HirKind::Alternation(branches) => {
            let mut exact: Option<Set> = Some(Vec::new());
            let mut needs: Option<Set> = Some(Vec::new());
            for branch in branches {
                let inner = know(branch);
                let useful = inner.exact.clone().filter(is_useful);
                let best = inner.needs.into_iter().chain(useful).max_by_key(worth);
                needs = match (needs, best) {
                    (Some(so_far), Some(more)) => union(so_far, more),
                    _ => None,
                };
                exact = match (exact, inner.exact) {
                    (Some(so_far), Some(more)) => union(so_far, more),
                    _ => None,
                };
            }
            let needs = needs.filter(|_| !exact.as_ref().is_some_and(is_useful));
            Known { exact, edges: None, needs: Vec::from_iter(needs) }
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
    if count > PRODUCTS_MAX || longest(left) + longest(right) > 64 {
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

    /// `a|b` for a set, `&` between sets of a way, `;` between ways.
    fn literals(pattern: &str) -> String {
        let text = |set: Set| set.iter().map(|l| String::from_utf8_lossy(l).into_owned()).collect::<Vec<_>>().join("|");
        let ways = required(&hir(pattern)).unwrap_or_default();
        let ways = ways.into_iter().map(|sets| sets.into_iter().map(text).collect::<Vec<_>>().join(" & "));
        ways.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn literals_of_patterns() {
        for (pattern, expected) in [
            ("Viagra", "viagra"),
            (r"\bcheap (?:meds|pills)\b", "cheap meds|cheap pills"),
            (r"\d+ dollars", " dollars"),
            (r"colou?r", "color|colour"),
            (r"(?:ab|.)xyz", "xyz"),
            (r"(?:abc|def)+q", "abcq|defq & abc|def"),
            (r"ad+res+e", "dres"),
            (r"gr[ae]y", "gray|grey"),
            (r"(?:abc)?", ""),
            (r"a.b", ""),
            (r"(?!affordable)aff.rdable", "rdable & aff"),
            (r"(?:long enough|ab)", ""),
            (r"\b(?:invoice|order)\b.{0,200}\b(?:call|phone)\b", "invoice|order & call|phone"),
            (r"\b(?:viagra|led light.{1,9}price|cialis)\b", "led light & price; cialis|viagra"),
        ] {
            assert_eq!(literals(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn candidates_are_never_too_few() {
        let patterns = [r"free (?:money|gold)", r"\d{3}", "GOLD", r"x[yz]{2}w", r"gold.*coin|silver\d"];
        let mut builder = Builder::default();
        for pattern in patterns {
            builder.add(&hir(pattern));
        }
        let prefilter = builder.build();
        assert_eq!(prefilter.always, [1]);
        let mut scratch = Scratch::default();
        for (text, expected) in [
            ("nothing", &[1][..]),
            ("Free Gold!", &[0, 1, 2]),
            ("xZyW", &[1, 3]),
            ("a coin of gold", &[1, 2, 4]),
            ("silver1", &[1, 4]),
        ] {
            let mut found = prefilter.candidates(text.as_bytes(), &mut scratch);
            found.sort_unstable();
            assert_eq!(found, expected, "{text}");
        }
    }
}
