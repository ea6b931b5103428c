//! Numbers of features and weights as octets: sorted, as differences, compressed.

use engine::EngineError;

use crate::model::{Counted, Sparse};

const LEVEL: i32 = 3;
/// What one row may unfold to: far above any that was written.
const OCTETS_MAX: usize = 64 << 20;

pub(crate) fn pack(numbers: &[u32]) -> Vec<u8> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut raw = Vec::with_capacity(sorted.len() * 3);
    let mut before = 0;
    for number in sorted {
        put(&mut raw, u64::from(number - before));
        before = number;
    }
    raw
}

/// # Errors
/// The octets are not what [`pack`] made.
pub(crate) fn unpack(raw: &[u8]) -> Result<Vec<u32>, EngineError> {
    let mut out = Vec::new();
    let (mut rest, mut before) = (raw, 0u32);
    while !rest.is_empty() {
        let step = u32::try_from(take(&mut rest)?).map_err(|_| damaged())?;
        before = before.checked_add(step).ok_or_else(damaged)?;
        out.push(before);
    }
    Ok(out)
}

pub(crate) fn pack_weights(from: &Sparse) -> Result<Vec<u8>, EngineError> {
    let mut raw = Vec::with_capacity(from.counts.len() * 6);
    for number in [zigzag(from.all.ham), zigzag(from.all.spam), from.ham, from.spam] {
        put(&mut raw, number);
    }
    let mut before = 0;
    for (number, counted) in &from.counts {
        put(&mut raw, u64::from(number - before));
        put(&mut raw, zigzag(counted.ham));
        put(&mut raw, zigzag(counted.spam));
        before = *number;
    }
    zstd::bulk::compress(&raw, LEVEL).map_err(|_| damaged())
}

/// # Errors
/// The octets are not what [`pack_weights`] made.
pub(crate) fn unpack_weights(packed: &[u8]) -> Result<Sparse, EngineError> {
    let raw = zstd::bulk::decompress(packed, OCTETS_MAX).map_err(|_| damaged())?;
    let mut rest = raw.as_slice();
    let all = Counted { ham: unzigzag(take(&mut rest)?), spam: unzigzag(take(&mut rest)?) };
    let (ham, spam) = (take(&mut rest)?, take(&mut rest)?);
    let (mut counts, mut before) = (Vec::new(), 0u32);
    while !rest.is_empty() {
        let step = u32::try_from(take(&mut rest)?).map_err(|_| damaged())?;
        before = before.checked_add(step).ok_or_else(damaged)?;
        counts.push((before, Counted { ham: unzigzag(take(&mut rest)?), spam: unzigzag(take(&mut rest)?) }));
    }
    Ok(Sparse { counts, all, ham, spam })
}

fn damaged() -> EngineError {
    EngineError::damaged("what the classifier learned cannot be read")
}

/// Seven bits in an octet, the lowest first; the highest bit says that more follow.
fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take(rest: &mut &[u8]) -> Result<u64, EngineError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, after) = rest.split_first().ok_or_else(damaged)?;
        *rest = after;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(damaged())
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for numbers in [vec![], vec![0], vec![7, 3, 3, u32::MAX, 0, 1 << 21]] {
            let mut sorted = numbers.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(unpack(&pack(&numbers)).unwrap(), sorted);
        }
        let of = |ham, spam| Counted { ham, spam };
        let counts = vec![(0, of(-1, 0)), (5, of(0, i64::MAX)), (u32::MAX, of(i64::MIN, 7))];
        let sparse = Sparse { counts, all: of(i64::MIN, 3), ham: 3, spam: u64::MAX };
        assert_eq!(unpack_weights(&pack_weights(&sparse).unwrap()).unwrap(), sparse);
        assert_eq!(unpack_weights(&pack_weights(&Sparse::default()).unwrap()).unwrap(), Sparse::default());
    }

    #[test]
    fn nonsense_is_an_error() {
        for raw in [&[0x80][..], &[0xff; 11], &[0xff, 0xff, 0xff, 0xff, 0x7f], &[1, 0xff, 0xff, 0xff, 0xff, 0x0f]] {
            assert!(unpack(raw).is_err(), "{raw:?}");
        }
        assert!(unpack_weights(b"no frame").is_err());
        let cut = zstd::bulk::compress(&[1, 2], 3).unwrap();
        assert!(unpack_weights(&cut).is_err());
    }
}
