//! How a pattern's matches begin, as a small automaton: a few bytes tell most places where none does.
//!
//! It knows less than the pattern, and is made of what ordinary text most often leads to: a match may begin wherever what
//! it knows ends. So it can be small, never changes, and every thread uses the same.

use std::collections::{HashMap, HashSet};

use regex_syntax::hir::{Hir, HirKind, Look, Repetition};

use super::bytes::{ByteSet, Opaque, weight};

#[derive(Debug)]
pub struct Onset {
    /// Bytes that make no difference have one class.
    class_of: Box<[u8; 256]>,
    /// For what stands before, and each class: the state behind the first byte.
    first: [Box<[u16]>; 3],
    /// For each state: where its ways end in `ways`.
    ends: Box<[u32]>,
    /// Classes with the states behind them; all others lead to [`NEVER`].
    ways: Box<[(u8, u16)]>,
}

/// No match begins so.
const NEVER: u16 = 0;
/// A match may begin so.
const MAYBE: u16 = 1;
/// What other states begin with.
const FIRST: usize = 2;
/// Expanded states of one automaton.
const STATES_MAX: usize = 1500;
/// States that are known, expanded or not.
const KNOWN_MAX: usize = 6000;
/// Steps of making one: some milliseconds.
const WORK_MAX: usize = 60_000;
/// Ways into the pattern.
const PLACES_MAX: usize = 1 << 14;
/// Ways that one state stands for.
const ITEMS_MAX: usize = 512;
/// Different sets of bytes in one pattern.
const SETS_MAX: usize = 512;
/// A repetition is counted so far.
const COUNTED_MAX: u32 = 12;
/// So many bytes are looked at.
const BYTES_MAX: usize = 24;
/// States that fewer starts in ordinary text lead to are not expanded.
const SHARE_MIN: f64 = 0.000_002;
/// Where a match may begin at a bigger share of the places where the first byte would do, it is not worth looking.
const SHARE_MAX: f64 = 0.5;

/// What stands before a place, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Before {
    Other,
    Word,
    LineEnd,
}

impl Before {
    const ALL: [Self; 3] = [Self::Other, Self::Word, Self::LineEnd];

    const fn of(byte: u8) -> Self {
        match byte {
            b'\n' => Self::LineEnd,
            b'_' => Self::Word,
            _ if byte.is_ascii_alphanumeric() => Self::Word,
            _ => Self::Other,
        }
    }
}

impl Onset {
    /// A part that `opaque` knows is as it says. `None` if little can be told.
    pub fn of(hir: &Hir, opaque: impl Fn(&Hir) -> Option<Opaque>) -> Option<Self> {
        Maker::new(hir, opaque)?.made(hir)
    }

    /// False if no match begins at `at`, which is behind the text's start.
    pub fn allows(&self, text: &[u8], at: usize) -> bool {
        let Some((before, rest)) = at.checked_sub(1).and_then(|before| text.get(before..)?.split_first()) else {
            return true;
        };
        let Some((byte, rest)) = rest.split_first() else { return true };
        let class = |byte: u8| self.class_of[usize::from(byte)];
        let mut state = self.first[Before::of(*before) as usize][usize::from(class(*byte))];
        for byte in rest.iter().take(BYTES_MAX) {
            if state <= MAYBE {
                break;
            }
            let class = class(*byte);
            let way = self.ways_of(usize::from(state)).iter().find(|(of, _)| *of == class);
            state = way.map_or(NEVER, |(_, next)| *next);
        }
        state != NEVER
    }

    fn ways_of(&self, state: usize) -> &[(u8, u16)] {
        let end = |state: usize| self.ends.get(state).map_or(0, |end| *end as usize);
        self.ways.get(end(state - 1)..end(state)).unwrap_or_default()
    }

    /// True if it rules out enough of the places where the first byte would do. `part_of`: how often a byte of ordinary
    /// text is of each class.
    fn tells_apart(&self, part_of: &[f64]) -> bool {
        let mut shares = vec![0.0; self.ends.len()];
        for (to, part) in self.first[Before::Other as usize].iter().zip(part_of).filter(|(to, _)| **to != NEVER) {
            shares[usize::from(*to)] += part;
        }
        let at_first: f64 = shares.iter().sum();
        for _ in 0..BYTES_MAX {
            let mut next = vec![0.0; shares.len()];
            next[usize::from(MAYBE)] = shares[usize::from(MAYBE)];
            for (state, share) in shares.iter().enumerate().skip(FIRST).filter(|(_, share)| **share > 0.0) {
                for (class, to) in self.ways_of(state) {
                    next[usize::from(*to)] += share * part_of[usize::from(*class)];
                }
            }
            shares = next;
        }
        shares.iter().sum::<f64>() <= at_first * SHARE_MAX
    }
}

/// What is left to match at a place.
#[derive(Clone, Copy)]
enum Left<'h> {
    Nothing,
    Part(&'h Hir, u32),
    /// Parts, one after the other.
    Parts(&'h [Hir], u32),
    Bytes(&'h [u8], u32),
    /// A repetition that was there so often.
    Times(&'h Repetition, u32, u32),
}

/// Which state comes next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Never,
    Maybe,
    State(usize),
}

type Items = Vec<(u16, u32)>;

struct Maker<'h, F> {
    opaque: F,
    places: Vec<Left<'h>>,
    known_places: HashMap<(u8, usize, u32, u32), u32>,
    sets: Vec<ByteSet>,
    set_ids: HashMap<ByteSet, u16>,
    /// A byte of each class.
    samples: Vec<u8>,
    class_of: Box<[u8; 256]>,
    states: Vec<Items>,
    state_ids: HashMap<Items, usize>,
    /// Where places lead to.
    moves: HashMap<(Before, Vec<u32>), To>,
    work: usize,
}

/// What a state is made of while it is found.
struct Reach {
    before: Before,
    items: Items,
    seen: HashSet<(u32, ByteSet)>,
    may_match: bool,
}

const NOTHING: u32 = 0;

impl<'h, F: Fn(&Hir) -> Option<Opaque>> Maker<'h, F> {
    fn new(hir: &Hir, opaque: F) -> Option<Self> {
        let mut sets = HashSet::from([word_bytes(), ByteSet::of(b'\n')]);
        collect(hir, &mut sets)?;
        let (samples, class_of) = classes(&sets);
        Some(Self {
            opaque,
            places: vec![Left::Nothing],
            known_places: HashMap::new(),
            sets: Vec::new(),
            set_ids: HashMap::new(),
            samples,
            class_of,
            states: Vec::new(),
            state_ids: HashMap::new(),
            moves: HashMap::new(),
            work: 0,
        })
    }

    fn made(mut self, hir: &'h Hir) -> Option<Onset> {
        let first = self.place(Left::Part(hir, NOTHING))?;
        let starts = Before::ALL.map(|before| self.state(before, &[first]));
        let part_of = self.shares();
        let (mut shares, mut rows): (Vec<f64>, HashMap<usize, Vec<To>>) = Default::default();
        let count = |to: To, share: f64, shares: &mut Vec<f64>| {
            if let To::State(state) = to {
                shares.resize(shares.len().max(state + 1), 0.0);
                shares[state] += share;
            }
        };
        starts.into_iter().for_each(|start| count(start, 1.0, &mut shares));
        while rows.len() < STATES_MAX && self.work < WORK_MAX {
            let open = shares.iter().copied().enumerate().filter(|(state, _)| !rows.contains_key(state));
            let Some((state, share)) = open.max_by(|one, other| one.1.total_cmp(&other.1)) else { break };
            if share < SHARE_MIN {
                break;
            }
            let row = self.row(state);
            for (to, part) in row.iter().zip(&part_of).filter(|(to, _)| **to != To::State(state)) {
                count(*to, share * part, &mut shares);
            }
            rows.insert(state, row);
        }
        let is_made = |start: &To| !matches!(start, To::State(state) if !rows.contains_key(state));
        if !starts.iter().all(is_made) {
            return None;
        }
        let onset = self.table(&rows, starts);
        onset.tells_apart(&part_of).then_some(onset)
    }

    /// How often a byte of ordinary text is of each class.
    fn shares(&self) -> Vec<f64> {
        let mut shares = vec![0.0; self.samples.len()];
        for byte in 0..=u8::MAX {
            shares[usize::from(self.class_of[usize::from(byte)])] += f64::from(weight(byte));
        }
        let all: f64 = shares.iter().sum();
        shares.iter().map(|share| share / all).collect()
    }

    fn table(self, rows: &HashMap<usize, Vec<To>>, starts: [To; 3]) -> Onset {
        let mut states: Vec<usize> = rows.keys().copied().collect();
        states.sort_unstable();
        let number = |to: &To| match to {
            To::Never => NEVER,
            To::Maybe => MAYBE,
            To::State(state) => states.binary_search(state).map_or(MAYBE, |at| (at + FIRST) as u16),
        };
        let first = starts.map(|start| match start {
            To::State(state) => rows.get(&state).map_or(Vec::new(), |row| row.iter().map(&number).collect()),
            To::Never | To::Maybe => vec![number(&start); self.samples.len()],
        });
        // The states that are no states have no ways.
        let (mut ends, mut ways) = (vec![0; FIRST], Vec::new());
        for state in &states {
            let row = (0..=u8::MAX).zip(&rows[state]).filter(|(_, to)| **to != To::Never);
            ways.extend(row.map(|(class, to)| (class, number(to))));
            ends.push(ways.len() as u32);
        }
        Onset {
            class_of: self.class_of,
            first: first.map(Vec::into_boxed_slice),
            ends: ends.into_boxed_slice(),
            ways: ways.into_boxed_slice(),
        }
    }

    /// The states behind a state, for each class.
    fn row(&mut self, state: usize) -> Vec<To> {
        let items = self.states[state].clone();
        let samples = self.samples.clone();
        let row = samples.iter().map(|byte| {
            let fitting = items.iter().filter(|(set, _)| self.sets[usize::from(*set)].has(*byte));
            let places: Vec<u32> = fitting.map(|(_, place)| *place).collect();
            if places.is_empty() { To::Never } else { self.known_state(Before::of(*byte), places) }
        });
        row.collect()
    }

    fn known_state(&mut self, before: Before, places: Vec<u32>) -> To {
        let key = (before, places);
        if let Some(to) = self.moves.get(&key) {
            return *to;
        }
        let to = self.state(before, &key.1);
        self.moves.insert(key, to);
        to
    }

    fn state(&mut self, before: Before, places: &[u32]) -> To {
        let mut reach = Reach { before, items: Vec::new(), seen: HashSet::new(), may_match: false };
        for place in places {
            self.reach(*place, ByteSet::ALL, &mut reach);
            if reach.may_match || reach.items.len() > ITEMS_MAX {
                return To::Maybe;
            }
        }
        let mut items = reach.items;
        if items.is_empty() {
            return To::Never;
        }
        items.sort_unstable();
        items.dedup();
        if let Some(state) = self.state_ids.get(&items) {
            return To::State(*state);
        }
        if self.states.len() >= KNOWN_MAX {
            return To::Maybe;
        }
        self.states.push(items.clone());
        self.state_ids.insert(items, self.states.len() - 1);
        To::State(self.states.len() - 1)
    }

    fn place(&mut self, left: Left<'h>) -> Option<u32> {
        let key = match left {
            Left::Nothing => return Some(NOTHING),
            Left::Part(hir, next) => (0, std::ptr::from_ref(hir).addr(), 0, next),
            Left::Parts([], next) | Left::Bytes([], next) => return Some(next),
            Left::Parts(parts, next) => (1, parts.as_ptr().addr(), 0, next),
            Left::Bytes(bytes, next) => (2, bytes.as_ptr().addr(), 0, next),
            Left::Times(repetition, times, next) => (3, std::ptr::from_ref(repetition).addr(), times, next),
        };
        if let Some(place) = self.known_places.get(&key) {
            return Some(*place);
        }
        if self.places.len() >= PLACES_MAX {
            return None;
        }
        self.places.push(left);
        let place = (self.places.len() - 1) as u32;
        self.known_places.insert(key, place);
        Some(place)
    }

    /// Goes on with what is left, with `next` byte of a set.
    fn go(&mut self, left: Left<'h>, next: ByteSet, reach: &mut Reach) {
        match self.place(left) {
            Some(place) => self.reach(place, next, reach),
            None => reach.may_match = true,
        }
    }

    /// Takes a byte of the set, then goes on at a place.
    fn take(&mut self, set: ByteSet, place: u32, reach: &mut Reach) {
        if set == ByteSet::default() {
            return;
        }
        let id = *self.set_ids.entry(set).or_insert_with(|| {
            self.sets.push(set);
            (self.sets.len() - 1) as u16
        });
        // Each is one of the pattern's sets, or what a word's edge leaves of it: far fewer than there are numbers.
        reach.items.push((id, place));
    }

    /// What can stand at a place. `next`: what the next byte must be.
    fn reach(&mut self, place: u32, next: ByteSet, reach: &mut Reach) {
        if reach.may_match || reach.items.len() > ITEMS_MAX || !reach.seen.insert((place, next)) {
            return;
        }
        self.work += 1;
        match self.places[place as usize] {
            Left::Nothing => reach.may_match = true,
            Left::Part(hir, then) => self.part(hir, then, next, reach),
            Left::Parts(parts, then) => {
                if let Some((first, rest)) = parts.split_first() {
                    let Some(then) = self.place(Left::Parts(rest, then)) else {
                        reach.may_match = true;
                        return;
                    };
                    self.part(first, then, next, reach);
                }
            }
            Left::Bytes(bytes, then) => {
                if let Some((first, rest)) = bytes.split_first() {
                    match self.place(Left::Bytes(rest, then)) {
                        Some(rest) => self.take(ByteSet::of(*first).common(next), rest, reach),
                        None => reach.may_match = true,
                    }
                }
            }
            Left::Times(repetition, times, then) => {
                let most = repetition.max.unwrap_or(u32::MAX);
                if times >= repetition.min.min(COUNTED_MAX) {
                    self.reach(then, next, reach);
                }
                if times < most {
                    // Beyond the least, and beyond what is counted, one time is as good as another.
                    let times = (times + 1).min(repetition.min.min(COUNTED_MAX));
                    let Some(again) = self.place(Left::Times(repetition, times, then)) else {
                        reach.may_match = true;
                        return;
                    };
                    self.part(&repetition.sub, again, next, reach);
                }
            }
        }
    }

    fn part(&mut self, hir: &'h Hir, then: u32, next: ByteSet, reach: &mut Reach) {
        match (self.opaque)(hir) {
            Some(Opaque::Empty) => return self.reach(then, next, reach),
            Some(Opaque::Never) => return,
            Some(Opaque::Anything) => {
                reach.may_match = true;
                return;
            }
            None => {}
        }
        match hir.kind() {
            HirKind::Empty => self.reach(then, next, reach),
            HirKind::Look(look) => {
                let next = next.common(behind(*look, reach.before));
                self.reach(then, next, reach);
            }
            HirKind::Literal(literal) => self.go(Left::Bytes(&literal.0, then), next, reach),
            HirKind::Class(class) => match ByteSet::of_class(class) {
                Some(set) => self.take(set.common(next), then, reach),
                None => reach.may_match = true,
            },
            HirKind::Capture(capture) => self.go(Left::Part(&capture.sub, then), next, reach),
            HirKind::Repetition(repetition) if repetition.max == Some(0) => self.reach(then, next, reach),
            HirKind::Repetition(repetition) => self.go(Left::Times(repetition, 0, then), next, reach),
            HirKind::Concat(parts) => self.go(Left::Parts(parts, then), next, reach),
            HirKind::Alternation(parts) => {
                for part in parts {
                    self.go(Left::Part(part, then), next, reach);
                }
            }
        }
    }
}

/// What the next byte must be, where only that decides. At the end of the text nothing is told apart.
fn behind(look: Look, before: Before) -> ByteSet {
    match (look, before) {
        (Look::WordAscii, Before::Word) | (Look::WordAsciiNegate, Before::Other | Before::LineEnd) => {
            word_bytes().complement()
        }
        (Look::WordAscii, Before::Other | Before::LineEnd) | (Look::WordAsciiNegate, Before::Word) => word_bytes(),
        (Look::StartLF, Before::Other | Before::Word) => ByteSet::default(),
        _ => ByteSet::ALL,
    }
}

fn word_bytes() -> ByteSet {
    let mut set = ByteSet::default();
    (0..=u8::MAX).filter(|byte| Before::of(*byte) == Before::Word).for_each(|byte| set.insert(byte));
    set
}

/// All sets of bytes in the pattern; `None` if these are too many.
fn collect(hir: &Hir, sets: &mut HashSet<ByteSet>) -> Option<()> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => sets.extend(literal.0.iter().map(|byte| ByteSet::of(*byte))),
        HirKind::Class(class) => sets.extend(ByteSet::of_class(class)),
        HirKind::Capture(capture) => collect(&capture.sub, sets)?,
        HirKind::Repetition(repetition) => collect(&repetition.sub, sets)?,
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().try_for_each(|part| collect(part, sets))?;
        }
    }
    (sets.len() <= SETS_MAX).then_some(())
}

/// A byte of each class, and the class of each byte: those of one class are in the same sets.
fn classes(sets: &HashSet<ByteSet>) -> (Vec<u8>, Box<[u8; 256]>) {
    let (mut samples, mut class_of) = (Vec::new(), Box::new([0; 256]));
    let mut known: HashMap<Vec<bool>, u8> = HashMap::new();
    let sets: Vec<&ByteSet> = sets.iter().collect();
    for byte in 0..=u8::MAX {
        let in_sets: Vec<bool> = sets.iter().map(|set| set.has(byte)).collect();
        // There are at most 256 classes.
        let new = known.len() as u8;
        class_of[usize::from(byte)] = *known.entry(in_sets).or_insert_with(|| {
            samples.push(byte);
            new
        });
    }
    (samples, class_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn onset(pattern: &str) -> Option<Onset> {
        let hir = regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build().parse(pattern).unwrap();
        let inside = |hir: &Hir| matches!(hir.kind(), HirKind::Look(Look::Start)).then_some(Opaque::Never);
        Onset::of(&hir, inside)
    }

    #[test]
    fn matches_begin_only_where_it_says() {
        for (pattern, text, expected) in [
            (r"(?i)\byour (?:name|mail)", "my your NAME", vec![3]),
            (r"(?i)\byour (?:name|mail)", "myour name youx name", vec![]),
            (r"(?:^|\s)[fp]o{2}d", "xfood food", vec![5]),
            (r"(?m)^ab", "xab\nab", vec![4]),
            (r"(?:e ){2}c", " e e c e c", vec![1]),
            (r"a\B.\b.", "xab- a b", vec![1]),
            (r"[ab]{2,}x", "xabbaxc", vec![1, 2, 3]),
            // Nothing is told of what goes on at the end of the text.
            (r"abcd", "xxab", vec![2]),
        ] {
            let onset = onset(pattern).unwrap();
            let found: Vec<usize> = (1..text.len()).filter(|at| onset.allows(text.as_bytes(), *at)).collect();
            assert_eq!(found, expected, "{pattern} {text}");
        }
        assert!(onset(".*a").is_none() && onset("(?:abc)?").is_none());
    }
}
