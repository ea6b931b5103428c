//! Finds which of many patterns may have a match, by the bytes that their matches begin with.

use regex_syntax::hir::{Hir, HirKind};

use crate::rules::regex::{LEAD_MAX, Lead};

/// Patterns in blocks of 64.
#[derive(Debug, Default)]
pub struct Windows {
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    /// A pattern may have more than one beginning.
    patterns: Vec<usize>,
    /// For each place from the beginning of a match, and each byte there: the patterns that allow it, a bit for each.
    allowed: Box<[[u64; 256]; LEAD_MAX]>,
    /// For each place: the patterns that need no byte there.
    open: [u64; LEAD_MAX],
}

#[derive(Clone, Debug, Default)]
pub struct Builder {
    found: Vec<(usize, Lead)>,
}

/// Parts of a pattern from which a match is looked at.
const STARTS_MAX: usize = 16;
/// What fits more places of ordinary text than this decides nothing.
const FREQUENCY_MAX: f64 = 0.002;
/// Alternatives of one pattern, each looked for by itself.
const BRANCHES_MAX: usize = 24;
/// Fewer patterns are not worth a pass.
const PATTERNS_MIN: usize = 4;

impl Builder {
    /// False if nothing is known of the pattern that is worth looking for.
    pub fn add(&mut self, pattern: usize, hir: &Hir) -> bool {
        let mut hir = hir;
        while let HirKind::Capture(capture) = hir.kind() {
            hir = &capture.sub;
        }
        let parts = match hir.kind() {
            HirKind::Concat(parts) => parts.as_slice(),
            _ => std::slice::from_ref(hir),
        };
        // The text must hold each part, so the rarest will do.
        let best = (0..parts.len().min(STARTS_MAX))
            .flat_map(|start| [Some(vec![Lead::of(&parts[start..], |_| None)]), branches(&parts[start..])])
            .flatten()
            .map(|leads| (leads.iter().map(Lead::frequency).sum::<f64>(), leads))
            .min_by(|(one, _), (other, _)| one.total_cmp(other));
        match best {
            Some((frequency, leads)) if frequency <= FREQUENCY_MAX => {
                self.found.extend(leads.into_iter().map(|lead| (pattern, lead)));
                true
            }
            Some(_) | None => false,
        }
    }

    /// Patterns for which a pass would not pay go to `always`.
    pub fn build(mut self, always: &mut Vec<usize>) -> Windows {
        if self.found.len() < PATTERNS_MIN {
            always.extend(self.found.into_iter().map(|(pattern, _)| pattern));
            return Windows::default();
        }
        // Those that begin alike are in one block: most places then mean nothing to a block.
        self.found.sort_by_key(|(_, lead)| lead.sets.first().copied());
        Windows { blocks: self.found.chunks(64).map(Block::of).collect() }
    }
}

/// A beginning for each alternative, if the first part is a choice.
fn branches(parts: &[Hir]) -> Option<Vec<Lead>> {
    let (mut first, rest) = parts.split_first()?;
    while let HirKind::Capture(capture) = first.kind() {
        first = &capture.sub;
    }
    let HirKind::Alternation(branches) = first.kind() else { return None };
    let lead = |branch| Lead::of(std::iter::once(branch).chain(rest), |_| None);
    (branches.len() <= BRANCHES_MAX).then(|| branches.iter().map(lead).collect())
}

impl Block {
    fn of(found: &[(usize, Lead)]) -> Self {
        let mut allowed = Box::new([[0_u64; 256]; LEAD_MAX]);
        let mut open = [0; LEAD_MAX];
        for (at, (_, lead)) in found.iter().enumerate() {
            for (place, (allowed, open)) in allowed.iter_mut().zip(&mut open).enumerate() {
                match lead.sets.get(place) {
                    Some(set) => set.iter().for_each(|byte| allowed[usize::from(byte)] |= 1 << at),
                    None => {
                        *open |= 1 << at;
                        allowed.iter_mut().for_each(|patterns| *patterns |= 1 << at);
                    }
                }
            }
        }
        Self { patterns: found.iter().map(|(pattern, _)| *pattern).collect(), allowed, open }
    }

    fn scan(&self, text: &[u8], found: &mut impl FnMut(usize)) {
        let mut wanted = u64::MAX >> (64 - self.patterns.len());
        for at in 0..text.len() {
            let mut left = wanted;
            for (place, allowed) in self.allowed.iter().enumerate() {
                left &= match text.get(at + place) {
                    Some(byte) => allowed[usize::from(*byte)],
                    None => self.open[place],
                };
                if left == 0 {
                    break;
                }
            }
            if left == 0 {
                continue;
            }
            wanted &= !left;
            let hit = self.patterns.iter().enumerate().filter(|(at, _)| left >> at & 1 != 0);
            hit.for_each(|(_, pattern)| found(*pattern));
            if wanted == 0 {
                break;
            }
        }
    }
}

impl Windows {
    /// Tells of the patterns that may match somewhere in the text; of some more than once.
    pub fn scan(&self, text: &[u8], mut tell: impl FnMut(usize)) {
        for block in &self.blocks {
            block.scan(text, &mut tell);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::regex::{Pattern, PatternText};

    #[test]
    fn what_matches_is_a_candidate() {
        let patterns = [
            r"v[1i]\W?[a4@]\W?gr[a4]",
            r"\b_{0,3}T\W?R\W?[4a]\W?M\W?[4a]\W?D",
            r"[\x80-\xff]{4}",
            r"^q[uv][1i]ck$",
            r"(?:xk|kx.)j",
            r"(?:\A|\s)(?:w[i1l]n|c[a4]sh) n[o0]w",
        ];
        let mut builder = Builder::default();
        let compiled: Vec<Pattern> = patterns
            .iter()
            .enumerate()
            .map(|(at, pattern)| {
                let text = PatternText { pattern: (*pattern).to_owned(), flags: "i".to_owned() };
                let (pattern, hir) = Pattern::compile(&text).unwrap();
                assert!(builder.add(at, &hir), "{text:?}");
                pattern
            })
            .collect();
        let mut always = Vec::new();
        let windows = builder.build(&mut always);
        assert!(always.is_empty());
        let mut hits = 0;
        for text in [
            "V1-a gRa",
            "a __t r4 m ad",
            "\u{e4}\u{f6}\u{fc}",
            "quick",
            "qu1ck\n",
            "xkj",
            "kxxj",
            "kx",
            "nothing here",
            "so w1n n0w",
            "c4sh nOw",
            "",
        ] {
            let mut candidates = Vec::new();
            windows.scan(text.as_bytes(), |pattern| candidates.push(pattern));
            for (at, pattern) in compiled.iter().enumerate() {
                if pattern.is_match(text.as_bytes()) {
                    hits += 1;
                    assert!(candidates.contains(&at), "{text} {}", patterns[at]);
                }
            }
            assert!(candidates.len() < 3, "{text}: {candidates:?}");
        }
        assert_eq!(hits, 9);
    }
}
