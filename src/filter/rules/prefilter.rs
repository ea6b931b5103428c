//! Which patterns can match a text at all: one pass for the literals that they need.

use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};
use regex_syntax::hir::{Class, Hir, HirKind};

/// Literals of many patterns in one automaton.
#[derive(Debug)]
pub struct Prefilter {
    literals: Option<AhoCorasick>,
    /// For each literal: whom it counts for, as a range of `counts_for`.
    ranges: Vec<Range<usize>>,
    counts_for: Vec<Share>,
    ways: Vec<Way>,
    /// Patterns without a usable literal: always candidates.
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
    seen: Vec<u8>,
    is_candidate: Vec<bool>,
    candidates: Vec<usize>,
}

/// Literals shorter than this occur everywhere.
const LITERAL_BYTES_MIN: usize = 3;
/// Longer ones cost memory and decide nothing more.
const LITERAL_BYTES_MAX: usize = 12;
/// At most so many alternatives for one pattern.
const ALTERNATIVES_MAX: usize = 128;
/// Further sets that a way needs decide little more: as many as a [`Way`] has bits.
const SETS_MAX: usize = 8;

impl Prefilter {
    /// Patterns are known by their position.
    pub fn of(patterns: &[Hir]) -> Self {
        let mut always = Vec::new();
        let mut ways = Vec::new();
        let mut pairs: Vec<(Vec<u8>, Share)> = Vec::new();
        for (pattern, hir) in patterns.iter().enumerate() {
            let Some(required) = required(hir) else {
                always.push(pattern);
                continue;
            };
            for sets in required {
                let mut wanted = 0;
                for (at, set) in sets.into_iter().enumerate() {
                    let bit = 1 << at;
                    wanted |= bit;
                    pairs.extend(set.into_iter().map(|literal| (literal, Share { way: ways.len(), bit })));
                }
                ways.push(Way { pattern, wanted });
            }
        }
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
        Self { literals, ranges, counts_for, ways, always, patterns: patterns.len() }
    }

    /// The patterns that may match `text`, in no order, each once.
    pub fn candidates<'s>(&self, text: &[u8], scratch: &'s mut Scratch) -> &'s [usize] {
        scratch.candidates.clear();
        scratch.candidates.extend_from_slice(&self.always);
        let Some(literals) = &self.literals else { return &scratch.candidates };
        scratch.seen.clear();
        scratch.seen.resize(self.ways.len(), 0);
        scratch.is_candidate.clear();
        scratch.is_candidate.resize(self.patterns, false);
        for found in literals.find_overlapping_iter(text) {
            let Some(range) = self.ranges.get(found.pattern().as_usize()) else { continue };
            for share in &self.counts_for[range.clone()] {
                let (way, seen) = (self.ways[share.way], &mut scratch.seen[share.way]);
                *seen |= share.bit;
                if *seen == way.wanted && !std::mem::replace(&mut scratch.is_candidate[way.pattern], true) {
                    scratch.candidates.push(way.pattern);
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
            let Known { exact, mut needs } = know(hir);
            needs.extend(exact.filter(is_useful));
            needs.sort_by_key(|set| std::cmp::Reverse(worth(set)));
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
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Known { exact: Some(vec![Vec::new()]), needs: Vec::new() },
        HirKind::Literal(literal) => Known { exact: Some(vec![literal.0.to_ascii_lowercase()]), needs: Vec::new() },
        HirKind::Class(class) => Known { exact: class_texts(class), needs: Vec::new() },
        HirKind::Capture(capture) => know(&capture.sub),
        HirKind::Repetition(repetition) => {
            let inner = know(&repetition.sub);
            match (repetition.min, repetition.max) {
                (0, Some(1)) => {
                    let exact = inner.exact.map(|mut set| {
                        set.push(Vec::new());
                        set
                    });
                    Known { exact, needs: Vec::new() }
                }
                (0, _) => Known { exact: None, needs: Vec::new() },
                (min, max) => {
                    let repeated =
                        (0..min.min(4)).try_fold(vec![Vec::new()], |so_far, _| product(&so_far, inner.exact.as_ref()?));
                    let is_exact = max == Some(min) && min <= 4;
                    let mut needs = inner.needs;
                    needs.extend(repeated.clone().or(inner.exact).filter(is_useful));
                    Known { exact: repeated.filter(|_| is_exact), needs }
                }
            }
        }
        HirKind::Concat(parts) => {
            let mut run: Option<Set> = Some(vec![Vec::new()]);
            let mut needs = Vec::new();
            let mut whole = true;
            for part in parts {
                let inner = know(part);
                needs.extend(inner.needs);
                let joined = match (&run, &inner.exact) {
                    (Some(run), Some(exact)) => product(run, exact),
                    _ => None,
                };
                if joined.is_none() {
                    whole = false;
                    needs.extend(run.filter(is_useful));
                    run = inner.exact.or(Some(vec![Vec::new()]));
                } else {
                    run = joined;
                }
            }
            if whole {
                return Known { exact: run, needs };
            }
            needs.extend(run.filter(is_useful));
            Known { exact: None, needs }
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
            Known { exact, needs: Vec::from_iter(needs) }
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
            (r"(?:abc|def)+q", "abc|def"),
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
        let hirs: Vec<Hir> = patterns.iter().map(|pattern| hir(pattern)).collect();
        let prefilter = Prefilter::of(&hirs);
        assert_eq!(prefilter.always(), 1);
        let mut scratch = Scratch::default();
        for (text, expected) in [
            ("nothing", &[1][..]),
            ("Free Gold!", &[0, 1, 2]),
            ("xZyW", &[1, 3]),
            ("a coin of gold", &[1, 2, 4]),
            ("silver1", &[1, 4]),
        ] {
            let mut found = prefilter.candidates(text.as_bytes(), &mut scratch).to_vec();
            found.sort_unstable();
            assert_eq!(found, expected, "{text}");
        }
    }
}
