//! Sets of sequence numbers or UIDs (RFC 3501 §9 `sequence-set`).

use std::ops::RangeInclusive;

use base::Uid;

/// As the client wrote it; `*` is not resolved yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SequenceSet(pub Vec<(Bound, Bound)>);

/// One end of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    Number(u32),
    /// `*`: the largest in use.
    Largest,
}

impl Bound {
    const fn resolve(self, largest: u32) -> u32 {
        match self {
            Self::Number(number) => number,
            Self::Largest => largest,
        }
    }
}

impl SequenceSet {
    /// Sorted, merged ranges; `largest` stands for `*`. Nothing is above zero and nothing overlaps. With `largest` 0
    /// (an empty mailbox) `*` names nothing.
    pub fn resolve(&self, largest: u32) -> Vec<RangeInclusive<u32>> {
        let mut ranges: Vec<(u32, u32)> = self
            .0
            .iter()
            .map(|(a, b)| (a.resolve(largest), b.resolve(largest)))
            .map(|(a, b)| (a.min(b).max(1), a.max(b)))
            .filter(|(low, high)| low <= high)
            .collect();
        ranges.sort_unstable();
        merge(ranges)
    }

    /// Like [`Self::resolve`], as UIDs.
    pub fn resolve_uids(&self, largest: Option<Uid>) -> Vec<RangeInclusive<Uid>> {
        let ranges = self.resolve(largest.map_or(0, Uid::as_raw));
        ranges.into_iter().filter_map(|range| Some(Uid::new(*range.start())?..=Uid::new(*range.end())?)).collect()
    }
}

fn merge(sorted: Vec<(u32, u32)>) -> Vec<RangeInclusive<u32>> {
    let mut out: Vec<RangeInclusive<u32>> = Vec::with_capacity(sorted.len());
    for (low, high) in sorted {
        match out.last_mut() {
            Some(last) if low <= last.end().saturating_add(1) => *last = *last.start()..=high.max(*last.end()),
            _ => out.push(low..=high),
        }
    }
    out
}

/// Collects rising numbers into ranges.
#[derive(Default)]
pub struct Ranges(Vec<RangeInclusive<u32>>);

impl Ranges {
    pub fn push(&mut self, number: u32) {
        match self.0.last_mut() {
            Some(last) if *last.end() == number.wrapping_sub(1) => *last = *last.start()..=number,
            _ => self.0.push(number..=number),
        }
    }

    pub fn of(numbers: impl IntoIterator<Item = u32>) -> Self {
        let mut ranges = Self::default();
        numbers.into_iter().for_each(|number| ranges.push(number));
        ranges
    }

    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn as_slice(&self) -> &[RangeInclusive<u32>] {
        &self.0
    }

    /// As UIDs; zero cannot occur in numbers that were UIDs.
    pub fn into_uids(self) -> Vec<RangeInclusive<Uid>> {
        self.0.into_iter().filter_map(|r| Some(Uid::new(*r.start())?..=Uid::new(*r.end())?)).collect()
    }
}

/// True if one of the sorted ranges holds `number`.
pub fn contains(ranges: &[RangeInclusive<u32>], number: u32) -> bool {
    let at = ranges.partition_point(|range| *range.end() < number);
    ranges.get(at).is_some_and(|range| range.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Bound::{Largest, Number};

    #[test]
    fn sets_resolve_sorted_and_merged() {
        let check = |set: &[(Bound, Bound)], largest, expected: &[RangeInclusive<u32>]| {
            assert_eq!(SequenceSet(set.to_vec()).resolve(largest), expected, "{set:?}");
        };
        check(&[(Number(5), Number(3)), (Number(1), Number(2))], 9, &[1..=5]);
        check(&[(Number(2), Largest)], 9, &[2..=9]);
        // `559:*` means the last message if it is below 559 (RFC 3501 §6.4.8).
        check(&[(Number(559), Largest)], 9, &[9..=559]);
        check(&[(Largest, Largest)], 0, &[]);
        check(&[(Number(1), Largest)], 0, &[1..=1]);
        check(&[(Number(u32::MAX), Number(u32::MAX)), (Number(7), Number(7))], 9, &[7..=7, u32::MAX..=u32::MAX]);
    }

    #[test]
    fn ranges_collect_and_find() {
        let ranges = Ranges::of([1, 2, 3, 7, 9, 10]);
        assert_eq!(ranges.as_slice(), [1..=3, 7..=7, 9..=10]);
        assert!(contains(ranges.as_slice(), 2) && contains(ranges.as_slice(), 10));
        assert!(!contains(ranges.as_slice(), 4) && !contains(ranges.as_slice(), 11));
    }
}
