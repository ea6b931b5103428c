//! Finds which of many literals a text holds: three bytes of each say where to compare.

use crate::rules::regex::weight;

/// Literals of at least three bytes, lower case.
#[derive(Debug, Default)]
pub struct Grams {
    /// A bit for each hash of the three bytes that literals are known by.
    map: Vec<u64>,
    map_shift: u32,
    /// For each shorter hash: where its entries end in `entries`.
    ends: Vec<u32>,
    ends_shift: u32,
    entries: Vec<Entry>,
    text: Vec<u8>,
}

/// One literal.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Its first bytes, as [`head_of`] gives them.
    head: u64,
    /// Where the others are in the text of all.
    start: u32,
    length: u8,
    /// Where its three bytes are in it.
    offset: u8,
    literal: u32,
}

const GRAM: usize = 3;
/// Bytes of a literal that are compared in one go.
const HEAD: usize = 8;
/// 16 KiB of bits stay in the fastest cache.
const MAP_BITS_MAX: u32 = 17;
const ENDS_BITS_MAX: u32 = 13;
/// Bits for each literal: so many that few others are set by chance.
const SPREAD: usize = 32;

const fn hash(gram: u32) -> u32 {
    gram.wrapping_mul(0x9E37_79B1)
}

fn gram_of(bytes: &[u8]) -> u32 {
    bytes.iter().take(GRAM).rev().fold(0, |gram, byte| gram << 8 | u32::from(*byte))
}

/// The first bytes, the first lowest; beyond the end, and beyond `length`, there are zeros.
fn head_of(bytes: &[u8], length: usize) -> u64 {
    let whole = match bytes.first_chunk::<HEAD>() {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => bytes.iter().rev().fold(0, |head, byte| head << 8 | u64::from(*byte)),
    };
    if length >= HEAD { whole } else { whole & ((1 << (8 * length)) - 1) }
}

impl Grams {
    pub fn of(literals: &[Vec<u8>]) -> Self {
        let bits = |per: usize, max: u32| (literals.len() * per).max(2).next_power_of_two().ilog2().clamp(6, max);
        let (map_bits, ends_bits) = (bits(SPREAD, MAP_BITS_MAX), bits(1, ENDS_BITS_MAX));
        let mut out = Self {
            map: vec![0; 1 << (map_bits - 6)],
            map_shift: 32 - map_bits,
            ends: Vec::with_capacity(1 << ends_bits),
            ends_shift: 32 - ends_bits,
            ..Self::default()
        };
        let mut entries = Vec::with_capacity(literals.len());
        for (at, literal) in literals.iter().enumerate() {
            // The rarest three bytes are met least.
            let rarity = |window: &[u8]| window.iter().map(|byte| u64::from(weight(*byte))).product::<u64>();
            let windows = literal.windows(GRAM).enumerate();
            let Some((offset, window)) = windows.min_by_key(|(_, window)| rarity(window)) else { continue };
            let hash = hash(gram_of(window));
            let bit = hash >> out.map_shift;
            out.map[bit as usize / 64] |= 1 << (bit % 64);
            let start = out.text.len() as u32;
            out.text.extend_from_slice(literal.get(HEAD..).unwrap_or_default());
            let head = head_of(literal, literal.len());
            // Literals are cut far below 255 bytes.
            let entry = Entry { head, start, length: literal.len() as u8, offset: offset as u8, literal: at as u32 };
            entries.push((hash >> out.ends_shift, entry));
        }
        entries.sort_by_key(|(bucket, entry)| (*bucket, entry.literal));
        let mut rest = entries.iter().peekable();
        for bucket in 0..1 << ends_bits {
            while rest.next_if(|(of, _)| *of == bucket).is_some() {}
            out.ends.push((entries.len() - rest.len()) as u32);
        }
        out.entries = entries.into_iter().map(|(_, entry)| entry).collect();
        out.text.shrink_to_fit();
        out
    }

    /// Tells of each literal in `lower` once; `found` has a mark for each.
    pub fn scan(&self, lower: &[u8], found: &mut [bool], mut tell: impl FnMut(usize)) {
        let Some((first, rest)) = lower.split_at_checked(GRAM - 1) else { return };
        let mut gram = gram_of(first) << 8;
        for (at, byte) in rest.iter().enumerate() {
            gram = gram >> 8 | u32::from(*byte) << 16;
            let hash = hash(gram);
            let bit = hash >> self.map_shift;
            if self.map[bit as usize / 64] >> (bit % 64) & 1 == 0 {
                continue;
            }
            let bucket = (hash >> self.ends_shift) as usize;
            let start = if bucket == 0 { 0 } else { self.ends[bucket - 1] };
            for entry in &self.entries[start as usize..self.ends[bucket] as usize] {
                let Some(here) = at.checked_sub(usize::from(entry.offset)).and_then(|from| lower.get(from..)) else {
                    continue;
                };
                let length = usize::from(entry.length);
                if head_of(here, length) == entry.head && here.len() >= length && self.goes_on(entry, here) {
                    let found = &mut found[entry.literal as usize];
                    if !std::mem::replace(found, true) {
                        tell(entry.literal as usize);
                    }
                }
            }
        }
    }

    /// Whether what follows the literal's head is there too.
    fn goes_on(&self, entry: &Entry, here: &[u8]) -> bool {
        let more = usize::from(entry.length).saturating_sub(HEAD);
        let start = entry.start as usize;
        more == 0 || self.text.get(start..start + more) == here.get(HEAD..HEAD + more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_a_plain_search_finds() {
        let literals: Vec<Vec<u8>> = ["abc", "bcd", "cheap meds", "xyz", "abcabc", "zzz", "\u{e4}\u{f6}"]
            .iter()
            .map(|literal| literal.as_bytes().to_vec())
            .collect();
        let grams = Grams::of(&literals);
        for text in ["", "ab", "abc", "zabcd", "abcab", "abcabc", "so cheap meds!", "xy zz", "azzzz", "\u{e4}\u{f6}"] {
            let mut told = Vec::new();
            grams.scan(text.as_bytes(), &mut vec![false; literals.len()], |literal| told.push(literal));
            told.sort_unstable();
            let holds = |literal: &Vec<u8>| text.as_bytes().windows(literal.len()).any(|window| window == literal);
            let expected: Vec<usize> = (0..literals.len()).filter(|at| holds(&literals[*at])).collect();
            assert_eq!(told, expected, "{text}");
        }
    }
}
