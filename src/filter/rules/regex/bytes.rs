//! Sets of bytes, and which bytes the beginnings of a pattern's matches can hold.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Any of the 256 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct ByteSet([u64; 4]);

/// A search for one of up to three bytes.
#[derive(Clone, Copy, Debug)]
pub enum Few {
    One(u8),
    Two(u8, u8),
    Three(u8, u8, u8),
}

impl Few {
    pub fn find(self, text: &[u8]) -> Option<usize> {
        match self {
            Self::One(a) => memchr::memchr(a, text),
            Self::Two(a, b) => memchr::memchr2(a, b, text),
            Self::Three(a, b, c) => memchr::memchr3(a, b, c, text),
        }
    }
}

impl ByteSet {
    pub const ALL: Self = Self([u64::MAX; 4]);

    pub fn of(byte: u8) -> Self {
        let mut out = Self::default();
        out.insert(byte);
        out
    }

    /// `None` for classes of characters that are no bytes.
    pub fn of_class(class: &Class) -> Option<Self> {
        let bytes;
        let class = match class {
            Class::Bytes(class) => class,
            Class::Unicode(class) => {
                bytes = class.to_byte_class()?;
                &bytes
            }
        };
        let mut out = Self::default();
        for range in class.ranges() {
            (range.start()..=range.end()).for_each(|byte| out.insert(byte));
        }
        Some(out)
    }

    pub const fn insert(&mut self, byte: u8) {
        self.0[(byte >> 6) as usize] |= 1 << (byte & 63);
    }

    pub const fn has(&self, byte: u8) -> bool {
        self.0[(byte >> 6) as usize] >> (byte & 63) & 1 != 0
    }

    pub fn union(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] | other.0[at]))
    }

    pub fn common(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] & other.0[at]))
    }

    pub fn meets(self, other: Self) -> bool {
        (0..4).any(|at| self.0[at] & other.0[at] != 0)
    }

    pub fn iter(&self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(|byte| self.has(*byte))
    }

    fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    pub fn complement(self) -> Self {
        Self(self.0.map(|word| !word))
    }

    /// `None` if it has more than three bytes, or none.
    pub fn few(&self) -> Option<Few> {
        if self.len() > 3 {
            return None;
        }
        let mut bytes = self.iter();
        Some(match (bytes.next()?, bytes.next(), bytes.next()) {
            (a, Some(b), Some(c)) => Few::Three(a, b, c),
            (a, Some(b), None) => Few::Two(a, b),
            (a, None, _) => Few::One(a),
        })
    }

    /// How often a byte of ordinary mail is one of these, from 0 to 1: a rough guess.
    pub fn frequency(&self) -> f64 {
        f64::from(self.iter().map(weight).sum::<u32>()) / WEIGHTS
    }
}

/// How often a byte occurs, in a ten-thousandth of ordinary text.
pub fn weight(byte: u8) -> u32 {
    match byte {
        b' ' => 1500,
        b'a'..=b'z' => LETTERS[usize::from(byte - b'a')],
        b'A'..=b'Z' => LETTERS[usize::from(byte - b'A')] / 10 + 1,
        b'0'..=b'9' => 60,
        b'\n' | b'.' | b',' | b'-' | b'/' | b':' | b'=' | b'>' | b'<' | b'"' => 100,
        b'!'..=b'~' => 10,
        _ => 3,
    }
}

/// In this order: a to z.
const LETTERS: [u32; 26] = [
    560, 110, 230, 280, 850, 150, 150, 350, 500, 20, 60, 300, 190, 480, 530, 150, 10, 440, 440, 620, 200, 80, 130, 20,
    130, 20,
];
const WEIGHTS: f64 = 10_700.0;

/// So many bytes from a match's beginning are looked at.
pub const LEAD_MAX: usize = 8;

/// For each place behind the beginning of a match: the bytes that may stand there, in the text.
/// Places beyond the end of the shortest match hold any byte.
#[derive(Clone, Debug)]
pub struct Lead {
    pub sets: Vec<ByteSet>,
}

impl Lead {
    /// Of matches of `parts`, one after the other. A part that `opaque` knows matches any text, or none, or nowhere.
    pub fn of<'h>(parts: impl IntoIterator<Item = &'h Hir>, opaque: impl Fn(&Hir) -> Option<Opaque>) -> Self {
        let mut walk = Walk { sets: [ByteSet::default(); LEAD_MAX], open: LEAD_MAX, opaque };
        let mut ends = 1;
        for part in parts {
            ends = walk.through(part, ends);
            if ends == 0 {
                break;
            }
        }
        walk.end(ends);
        let mut sets = walk.sets[..walk.open].to_vec();
        while sets.last().is_some_and(|set| *set == ByteSet::ALL) {
            sets.pop();
        }
        Self { sets }
    }

    /// For each byte where the last of the sets would be: how many places further on a match may begin at the earliest.
    /// `None` where that is mostly the next place.
    pub fn skips(&self) -> Option<Box<[u8; 256]>> {
        let (_, sets) = self.sets.split_last()?;
        let mut skips = Box::new([1_u8; 256]);
        let mut mean = 0;
        for (byte, skip) in (0..=u8::MAX).zip(skips.iter_mut()) {
            let nearest = sets.iter().rev().position(|set| set.has(byte)).unwrap_or(sets.len());
            // A lead is at most eight bytes.
            *skip = nearest as u8 + 1;
            mean += weight(byte) * u32::from(*skip);
        }
        (f64::from(mean) / WEIGHTS >= SKIP_MIN).then_some(skips)
    }

    /// How often the sets fit a place of ordinary text, from 0 to 1: a rough guess.
    pub fn frequency(&self) -> f64 {
        self.sets.iter().map(|set| set.frequency().min(1.0)).product()
    }
}

/// Shorter steps cost more than they save.
const SKIP_MIN: f64 = 1.4;

/// What [`Lead::of`] has to take for granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opaque {
    /// Takes no text.
    Empty,
    /// Takes any text.
    Anything,
    /// Matches nowhere.
    Never,
}

struct Walk<F> {
    sets: [ByteSet; LEAD_MAX],
    /// Places from here on hold any byte.
    open: usize,
    opaque: F,
}

impl<F: Fn(&Hir) -> Option<Opaque>> Walk<F> {
    /// `starts` has a bit for each place where the part may begin; gives those where it may end.
    fn through(&mut self, hir: &Hir, starts: u32) -> u32 {
        if starts == 0 {
            return 0;
        }
        match (self.opaque)(hir) {
            Some(Opaque::Empty) => return starts,
            Some(Opaque::Anything) => {
                self.end(starts);
                return 0;
            }
            Some(Opaque::Never) => return 0,
            None => {}
        }
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => starts,
            HirKind::Literal(literal) => {
                literal.0.iter().fold(starts, |starts, byte| self.byte(ByteSet::of(*byte), starts))
            }
            HirKind::Class(class) => self.byte(ByteSet::of_class(class).unwrap_or(ByteSet::ALL), starts),
            HirKind::Capture(capture) => self.through(&capture.sub, starts),
            HirKind::Concat(parts) => parts.iter().fold(starts, |starts, part| self.through(part, starts)),
            HirKind::Alternation(parts) => parts.iter().fold(0, |ends, part| ends | self.through(part, starts)),
            HirKind::Repetition(repetition) => {
                let mut at = starts;
                for _ in 0..repetition.min.min(LEAD_MAX as u32) {
                    at = self.through(&repetition.sub, at);
                }
                let more = repetition.max.map_or(LEAD_MAX as u32, |max| max.saturating_sub(repetition.min));
                let mut ends = at;
                for _ in 0..more.min(LEAD_MAX as u32) {
                    at = self.through(&repetition.sub, at);
                    if ends | at == ends {
                        break;
                    }
                    ends |= at;
                }
                ends
            }
        }
    }

    fn byte(&mut self, set: ByteSet, starts: u32) -> u32 {
        for (place, out) in self.sets.iter_mut().enumerate() {
            if starts >> place & 1 != 0 {
                *out = out.union(set);
            }
        }
        (starts << 1) & ((1 << LEAD_MAX) - 1)
    }

    /// The match may be over at these places.
    fn end(&mut self, ends: u32) {
        self.open = self.open.min(ends.trailing_zeros() as usize);
    }
}
