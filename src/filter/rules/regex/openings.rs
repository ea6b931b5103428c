//! The three bytes that matches of a pattern begin with, where these are few enough to be listed.

use std::collections::HashSet;

use regex_syntax::hir::{Hir, HirKind};

use super::bytes::{ByteSet, Opaque};

/// A set of hashes of three bytes, without regard to case: no match begins elsewhere.
#[derive(Debug)]
pub struct Openings {
    map: Box<[u64]>,
    shift: u32,
}

const BYTES: u32 = 3;
/// At most 8 KiB.
const BITS_MAX: u32 = 16;
/// More would fill the set.
const OPENINGS_MAX: usize = 1 << 14;

const fn hash(gram: u32, shift: u32) -> usize {
    (gram.wrapping_mul(0x9E37_79B1) >> shift) as usize
}

/// The bytes so far, the first lowest, below a byte that says how many they are.
type Partial = u32;

struct Walk<F> {
    found: HashSet<u32>,
    count: usize,
    opaque: F,
}

impl Openings {
    /// `None` where there are too many, or some matches are shorter. A part that `opaque` knows is as it says.
    pub fn of(hir: &Hir, opaque: impl Fn(&Hir) -> Option<Opaque>) -> Option<Self> {
        let mut walk = Walk { found: HashSet::new(), count: 0, opaque };
        let ends = walk.through(hir, vec![0])?;
        if !ends.is_empty() {
            return None;
        }
        let bits = (walk.found.len() * 16).next_power_of_two().ilog2().clamp(6, BITS_MAX);
        let (mut map, shift) = (vec![0_u64; 1 << (bits - 6)].into_boxed_slice(), 32 - bits);
        for gram in walk.found {
            let hash = hash(gram, shift);
            map[hash / 64] |= 1 << (hash % 64);
        }
        Some(Self { map, shift })
    }

    /// The first place at or after `from` where three of the bytes stand.
    pub fn find(&self, text: &[u8], from: usize) -> Option<usize> {
        let (first, rest) = text.get(from..)?.split_at_checked(BYTES as usize - 1)?;
        let mut gram = first.iter().fold(0, |gram, byte| gram >> 8 | u32::from(byte.to_ascii_lowercase()) << 16);
        for (at, byte) in rest.iter().enumerate() {
            gram = gram >> 8 | u32::from(byte.to_ascii_lowercase()) << 16;
            let hash = hash(gram, self.shift);
            if self.map[hash / 64] >> (hash % 64) & 1 != 0 {
                return Some(from + at);
            }
        }
        None
    }
}

impl<F: Fn(&Hir) -> Option<Opaque>> Walk<F> {
    /// What a match may begin with up to the end of the part, where that is less than three bytes.
    /// `None` if that, or what is three bytes, is too much.
    fn through(&mut self, hir: &Hir, starts: Vec<Partial>) -> Option<Vec<Partial>> {
        if starts.is_empty() {
            return Some(starts);
        }
        match (self.opaque)(hir) {
            Some(Opaque::Empty) => return Some(starts),
            Some(Opaque::Never) => return Some(Vec::new()),
            Some(Opaque::Anything) => return None,
            None => {}
        }
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => Some(starts),
            HirKind::Literal(literal) => {
                literal.0.iter().try_fold(starts, |starts, byte| self.byte(ByteSet::of(*byte), &starts))
            }
            HirKind::Class(class) => self.byte(ByteSet::of_class(class)?, &starts),
            HirKind::Capture(capture) => self.through(&capture.sub, starts),
            HirKind::Concat(parts) => parts.iter().try_fold(starts, |starts, part| self.through(part, starts)),
            HirKind::Alternation(parts) => {
                let mut ends = Vec::new();
                for part in parts {
                    ends.extend(self.through(part, starts.clone())?);
                }
                Some(sorted(ends))
            }
            HirKind::Repetition(repetition) => {
                let mut at = starts;
                for _ in 0..repetition.min.min(BYTES) {
                    at = self.through(&repetition.sub, at)?;
                }
                let more = repetition.max.map_or(BYTES, |max| max.saturating_sub(repetition.min));
                let mut ends = at.clone();
                for _ in 0..more.min(BYTES) {
                    at = self.through(&repetition.sub, at)?;
                    ends.extend(&at);
                }
                Some(sorted(ends))
            }
        }
    }

    fn byte(&mut self, set: ByteSet, starts: &[Partial]) -> Option<Vec<Partial>> {
        let mut bytes: Vec<u32> = set.iter().map(|byte| u32::from(byte.to_ascii_lowercase())).collect();
        bytes.sort_unstable();
        bytes.dedup();
        self.count += starts.len() * bytes.len();
        if self.count > OPENINGS_MAX {
            return None;
        }
        let mut ends = Vec::new();
        for start in starts {
            let (length, so_far) = (start >> 24, start & 0x00FF_FFFF);
            for byte in &bytes {
                let more = so_far | byte << (8 * length);
                if length + 1 == BYTES {
                    self.found.insert(more);
                } else {
                    ends.push((length + 1) << 24 | more);
                }
            }
        }
        Some(ends)
    }
}

fn sorted(mut partials: Vec<Partial>) -> Vec<Partial> {
    partials.sort_unstable();
    partials.dedup();
    partials
}

#[cfg(test)]
mod tests {
    use super::*;

    fn openings(pattern: &str) -> Option<Openings> {
        let hir = regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build().parse(pattern).unwrap();
        Openings::of(&hir, |_| None)
    }

    #[test]
    fn matches_begin_where_openings_stand() {
        let some = openings("(?i:your )?(?:name|e-?mail|o{2,3}k)").unwrap();
        for (text, from, expected) in [
            ("my e-MAIL", 0, Some(3)),
            ("YOUR name", 0, Some(0)),
            ("your name", 1, Some(5)),
            ("name name", 1, Some(5)),
            ("ook", 0, Some(0)),
            ("oook", 1, Some(1)),
            ("zzzz", 0, None),
            ("na", 0, None),
            ("", 0, None),
            ("name", 9, None),
        ] {
            assert_eq!(some.find(text.as_bytes(), from), expected, "{text}");
        }
        for open in ["a.*", "ab|cde", "[^a]{3}", "a(?:bc)?"] {
            assert!(openings(open).is_none(), "{open}");
        }
    }
}
