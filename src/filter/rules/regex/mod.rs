//! Perl patterns as SpamAssassin's rules write them, and engines that bound their time.
//!
//! A pattern is bytes, matched against bytes: `\w`, `\b` and case folding know ASCII only, as SpamAssassin's own
//! matching of undecoded text does. A backtracking [`machine`] with a budget of steps goes first: most patterns fail within
//! a few bytes of where they could begin, which of those that are looked for often an [`onset`] tells sooner. What exhausts it goes to linear-time engines, which take far more memory: as an
//! answer where they can give one, else (look-around, back-references, atomic groups) as a gate for a bigger budget.

mod bytes;
mod machine;
mod onset;
mod openings;
mod program;
mod translate;

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use regex_syntax::hir::{Capture, Class, ClassBytes, ClassBytesRange, Hir, HirKind, Repetition};
use regex_syntax::utf8::Utf8Sequences;

pub use bytes::{LEAD_MAX, Lead, weight};
pub use machine::Memory;

use machine::{Exhausted, Match};
use onset::Onset;
use program::{Program, inside};
use translate::Translated;

/// A pattern as the rule file has it: characters are bytes (U+0000 to U+00FF), without delimiters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PatternText {
    pub pattern: String,
    /// Perl's flags after the closing delimiter.
    pub flags: String,
}

impl PatternText {
    /// A pattern without flags.
    pub fn plain(pattern: &str) -> Self {
        Self { pattern: pattern.to_owned(), flags: String::new() }
    }
}

/// A pattern that is right; its engines are made when it is first needed, for most never are.
#[derive(Debug)]
pub struct Pattern {
    text: PatternText,
    /// Linear-time engines can say all that it says.
    is_linear: bool,
    engines: OnceLock<Option<Box<Engines>>>,
}

#[derive(Debug)]
struct Engines {
    program: Program,
    linear: OnceLock<Option<Linear>>,
    onset: OnceLock<Option<Onset>>,
    /// Places where a match was looked for, until there is an onset.
    starts: AtomicU32,
    /// Rises with each exhausted budget, falls slowly with each that was enough.
    strain: AtomicU32,
}

/// Of patterns that need more: of what is left of them without it.
#[derive(Debug)]
struct Linear {
    /// Matches wherever the pattern does, and perhaps elsewhere; there where it is much cheaper.
    gate: Option<regex::bytes::Regex>,
    whole: regex::bytes::Regex,
}

/// Compiled program of one pattern; SpamAssassin's own longest macros need 9 MiB.
const PROGRAM_BYTES_MAX: usize = 12 << 20;
/// Lazily built automaton states of one pattern; most need a few KiB.
const AUTOMATON_BYTES_MAX: usize = 1 << 20;
const GATE_BYTES_MAX: usize = 1 << 20;
/// Counting so far costs an automaton many states, and fewer times if what is counted is more than a byte.
const COUNTED_MAX: u32 = 8;
const COUNTED_PARTS_MAX: u32 = 3;
/// Steps that the machine gets before linear-time engines are asked: so many, and as many for each byte of the text. It
/// needs about 4 ns for each, an automaton about 2 ns for each byte.
const LIGHT_STEPS: usize = 1024;
const LIGHT_STEPS_FOR_BYTE: usize = 8;
/// Steps on one piece of text for what no linear-time engine can answer: a fraction of a millisecond.
const HEAVY_STEPS_MAX: usize = 50_000;
/// With so much strain, linear-time engines go first.
const STRAIN_MAX: u32 = 64;
const STRAIN_FOR_EXHAUSTED: u32 = 16;
/// An onset takes a millisecond to make and some KiB: what was looked for at so many places is worth it.
const ONSET_STARTS_MIN: u32 = 4000;
/// Bytes of one pattern after its macros are expanded.
const PATTERN_BYTES_MAX: usize = 1 << 20;
const NESTING_MAX: u32 = 200;

impl Pattern {
    /// The pattern, and the linear-time pattern that matches at least as much, for [`super::prefilter`].
    pub fn compile(text: &PatternText) -> Result<(Self, Hir), String> {
        let perl = Translated::of(text)?;
        let hir = parsed(&perl, &perl.relaxed)?;
        if let Some(marked) = &perl.marked {
            parsed(&perl, marked)?;
        }
        let pattern = Self { text: text.clone(), is_linear: perl.marked.is_none(), engines: OnceLock::new() };
        Ok((pattern, hir))
    }

    /// Bytes of the pattern after its macros are expanded.
    pub fn bytes(&self) -> usize {
        self.text.pattern.len()
    }

    /// Makes the engines now; the error says why they cannot be made. Without this, such a pattern never matches.
    pub fn verify(&self) -> Result<(), String> {
        self.made()?;
        if self.is_linear { self.made_linear().map(drop) } else { Ok(()) }
    }

    fn made(&self) -> Result<Engines, String> {
        let program = Program::of(&self.exact()?)?;
        let (linear, onset, starts, strain) = Default::default();
        Ok(Engines { program, linear, onset, starts, strain })
    }

    /// All that it says, with marks.
    fn exact(&self) -> Result<Hir, String> {
        let perl = Translated::of(&self.text)?;
        parsed(&perl, perl.marked.as_ref().unwrap_or(&perl.relaxed))
    }

    fn made_linear(&self) -> Result<Linear, String> {
        let perl = Translated::of(&self.text)?;
        let gate = uncounted(&parsed(&perl, &perl.relaxed)?).and_then(|gate| {
            let mut builder = regex::bytes::RegexBuilder::new(&gate.to_string());
            builder.dfa_size_limit(AUTOMATON_BYTES_MAX).size_limit(GATE_BYTES_MAX).build().ok()
        });
        let whole = regex::bytes::RegexBuilder::new(&perl.relaxed)
            .unicode(false)
            .nest_limit(NESTING_MAX)
            .case_insensitive(perl.case_insensitive)
            .multi_line(perl.multi_line)
            .dot_matches_new_line(perl.dot_matches_all)
            .size_limit(PROGRAM_BYTES_MAX)
            .dfa_size_limit(AUTOMATON_BYTES_MAX)
            .build()
            .map_err(|error| one_line(&error.to_string()))?;
        Ok(Linear { gate, whole })
    }

    /// `None` until it was looked for often, and where an onset would tell little.
    fn onset<'e>(&self, engines: &'e Engines) -> Option<&'e Onset> {
        if engines.starts.load(Ordering::Relaxed) < ONSET_STARTS_MIN {
            return None;
        }
        engines.onset.get_or_init(|| Onset::of(&self.exact().ok()?, inside)).as_ref()
    }

    fn engines(&self) -> Option<&Engines> {
        self.engines.get_or_init(|| self.made().ok().map(Box::new)).as_deref()
    }

    fn search(&self, text: &[u8], from: usize, memory: &mut Memory) -> Option<Match> {
        let length = text.len().checked_sub(from)?;
        let engines = self.engines()?;
        if !engines.is_strained() {
            let mut budget = LIGHT_STEPS + LIGHT_STEPS_FOR_BYTE * length;
            let onset = self.onset(engines);
            let outcome = engines.program.find(onset, (text, from), &mut budget, memory);
            engines.count(std::mem::take(&mut memory.starts));
            match outcome {
                Ok(found) => {
                    engines.note(true);
                    return found;
                }
                Err(Exhausted) => engines.note(false),
            }
        }
        let linear = engines.linear.get_or_init(|| self.made_linear().ok()).as_ref();
        if let Some(gate) = linear.and_then(|linear| linear.gate.as_ref()) {
            gate.find_at(text, from)?;
        }
        match linear {
            Some(linear) if self.is_linear => {
                let range = linear.whole.find_at(text, from)?.range();
                let groups = linear.whole.captures_at(text, range.start)?;
                Some(Match { range, first_group: groups.get(1).map(|group| group.range()) })
            }
            Some(linear) if linear.whole.find_at(text, from).is_none() => None,
            // A match that needs more steps than the limit counts as none.
            Some(_) | None => {
                let onset = self.onset(engines);
                engines.program.find(onset, (text, from), &mut { HEAVY_STEPS_MAX }, memory).ok().flatten()
            }
        }
    }

    /// Where the first match at or after `from` lies. A match that needs too many steps counts as none.
    pub fn find(&self, text: &[u8], from: usize, memory: &mut Memory) -> Option<Range<usize>> {
        self.search(text, from, memory).map(|found| found.range)
    }

    /// Where the first group of the first match lies.
    pub fn first_group(&self, text: &[u8]) -> Option<Range<usize>> {
        self.search(text, 0, &mut Memory::default())?.first_group
    }

    /// What the groups with names caught in the first match. None of a pattern that only the machine can match.
    pub fn named_groups(&self, text: &[u8]) -> Vec<(String, Vec<u8>)> {
        let linear = self.engines().filter(|_| self.is_linear);
        let linear = linear.and_then(|engines| engines.linear.get_or_init(|| self.made_linear().ok()).as_ref());
        let (Some(linear), Ok(perl)) = (linear, Translated::of(&self.text)) else { return Vec::new() };
        let Some(found) = linear.whole.captures(text) else { return Vec::new() };
        let group = |number: u32| found.get(usize::try_from(number).ok()?).map(|group| group.as_bytes().to_vec());
        perl.names.into_iter().filter_map(|(name, number)| Some((name, group(number)?))).collect()
    }

    pub fn is_match(&self, text: &[u8]) -> bool {
        self.search(text, 0, &mut Memory::default()).is_some()
    }
}

impl Engines {
    fn is_strained(&self) -> bool {
        self.strain.load(Ordering::Relaxed) >= STRAIN_MAX
    }

    fn count(&self, starts: u32) {
        let so_far = self.starts.load(Ordering::Relaxed);
        if so_far < ONSET_STARTS_MIN {
            self.starts.store(so_far.saturating_add(starts), Ordering::Relaxed);
        }
    }

    /// Counts roughly: threads may overwrite each other's notes.
    fn note(&self, was_enough: bool) {
        let strain = self.strain.load(Ordering::Relaxed);
        if !was_enough {
            self.strain.store(strain.saturating_add(STRAIN_FOR_EXHAUSTED), Ordering::Relaxed);
        } else if strain > 0 {
            self.strain.store(strain - 1, Ordering::Relaxed);
        }
    }
}

fn parsed(perl: &Translated, pattern: &str) -> Result<Hir, String> {
    regex_syntax::ParserBuilder::new()
        .utf8(false)
        .unicode(false)
        .nest_limit(NESTING_MAX)
        .case_insensitive(perl.case_insensitive)
        .multi_line(perl.multi_line)
        .dot_matches_new_line(perl.dot_matches_all)
        .build()
        .parse(pattern)
        .map(|hir| in_bytes(&hir).unwrap_or(hir))
        .map_err(|error| one_line(&error.to_string()))
}

/// The pattern with classes of characters, which the parser makes of single characters to choose from, written as
/// sequences of bytes. `None` where there are none.
fn in_bytes(hir: &Hir) -> Option<Hir> {
    // Groups without a number that anyone asks for keep the alternatives from becoming a class again.
    let group = |sub: Hir| Hir::capture(Capture { index: u32::MAX, name: None, sub: Box::new(sub) });
    let all = |parts: &[Hir]| {
        let new: Vec<Option<Hir>> = parts.iter().map(in_bytes).collect();
        let changed = new.iter().any(Option::is_some);
        changed.then(|| new.into_iter().zip(parts).map(|(new, old)| new.unwrap_or_else(|| old.clone())).collect())
    };
    match hir.kind() {
        HirKind::Class(Class::Unicode(class)) if class.to_byte_class().is_none() => {
            let ranges = class.ranges().iter().flat_map(|range| Utf8Sequences::new(range.start(), range.end()));
            let sequences = ranges.map(|sequence| {
                let bytes = sequence.as_slice().iter().map(|bytes| ClassBytesRange::new(bytes.start, bytes.end));
                let classes = bytes.map(|range| Hir::class(Class::Bytes(ClassBytes::new([range]))));
                group(Hir::concat(classes.collect()))
            });
            Some(Hir::alternation(sequences.collect()))
        }
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => None,
        HirKind::Capture(capture) => {
            let sub = Box::new(in_bytes(&capture.sub)?);
            Some(Hir::capture(Capture { sub, ..capture.clone() }))
        }
        HirKind::Repetition(repetition) => {
            let sub = Box::new(in_bytes(&repetition.sub)?);
            Some(Hir::repetition(Repetition { sub, ..repetition.clone() }))
        }
        HirKind::Concat(parts) => all(parts).map(Hir::concat),
        HirKind::Alternation(parts) => all(parts).map(Hir::alternation),
    }
}

/// The pattern with long bounded repetitions unbounded: what matches it matches this too, and a small automaton is
/// enough, where counting makes one state for each count and each place to begin. `None` where nothing is counted.
fn uncounted(hir: &Hir) -> Option<Hir> {
    let all = |parts: &[Hir]| {
        let mut changed = false;
        let parts = parts.iter().map(|part| {
            let new = uncounted(part);
            changed |= new.is_some();
            new.unwrap_or_else(|| part.clone())
        });
        let parts: Vec<Hir> = parts.collect();
        changed.then_some(parts)
    };
    match hir.kind() {
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => None,
        HirKind::Capture(capture) => uncounted(&capture.sub),
        HirKind::Concat(parts) => all(parts).map(Hir::concat),
        HirKind::Alternation(parts) => all(parts).map(Hir::alternation),
        HirKind::Repetition(counted) => {
            let inner = uncounted(&counted.sub);
            let is_byte = matches!(counted.sub.kind(), HirKind::Class(_) | HirKind::Literal(_));
            let limit = if is_byte { COUNTED_MAX } else { COUNTED_PARTS_MAX };
            let is_long = counted.max.unwrap_or(counted.min) >= limit;
            if !is_long && inner.is_none() {
                return None;
            }
            Some(Hir::repetition(Repetition {
                min: if is_long { counted.min.min(1) } else { counted.min },
                max: counted.max.filter(|_| !is_long),
                greedy: counted.greedy,
                sub: inner.map_or_else(|| counted.sub.clone(), Box::new),
            }))
        }
    }
}

/// The last line of the engines' drawings is what a person needs.
fn one_line(error: &str) -> String {
    let last = error.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("cannot be compiled");
    last.trim().trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests;
