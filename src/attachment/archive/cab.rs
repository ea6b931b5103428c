//! Microsoft Cabinet (MS-CAB): names only.

use super::{Entry, Listing, NAME_MAX};
use crate::bytes::{Cursor, unknown_text};

/// Entries up to `max`.
pub fn list(data: &[u8], max: usize) -> Listing<'_> {
    read(data, max).unwrap_or_else(Listing::damaged)
}

fn read(data: &[u8], max: usize) -> Option<Listing<'_>> {
    let mut cursor = Cursor::at(data, 16);
    let first = cursor.size()?;
    cursor.skip(8)?;
    let count = cursor.u16()?;
    let mut listing = Listing::default();
    let mut cursor = Cursor::at(data, first);
    for _ in 0..count {
        let (Some(size), Some(())) = (cursor.u32(), cursor.skip(10)) else { break };
        let Some(attributes) = cursor.u16() else { break };
        let raw = cursor.until_nul();
        let raw = raw.get(..NAME_MAX).unwrap_or(raw);
        let name = if attributes & 0x80 != 0 { String::from_utf8_lossy(raw).into_owned() } else { unknown_text(raw) };
        listing.declared_bytes = listing.declared_bytes.saturating_add(size.into());
        if !listing.push(Entry { name, ..Entry::default() }, max) {
            return Some(listing);
        }
    }
    listing.is_damaged = listing.entries.len() < usize::from(count);
    Some(listing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::names;

    #[test]
    fn names_are_listed() {
        let file = |name: &[u8], attributes: u8| [&[5, 0, 0, 0], &[0; 10][..], &[attributes, 0], name, &[0]].concat();
        let head = [b"MSCF", &[0; 12][..], &[36, 0, 0, 0], &[0; 8], &[2, 0], &[0; 6]].concat();
        let data = [head, file(b"a.exe", 0x20), file("\u{fc}.js".as_bytes(), 0xa0)].concat();
        let listing = list(&data, 10);
        assert_eq!((names(&listing), listing.declared_bytes), (vec!["a.exe".into(), "\u{fc}.js".into()], 10));
        assert!(!listing.is_damaged && list(&data, 1).is_cut);
        assert!(list(&data[..50], 10).is_damaged && list(b"MSCF", 10).is_damaged);
    }
}
