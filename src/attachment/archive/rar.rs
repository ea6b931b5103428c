//! RAR 4 and RAR 5: headers only; content is read where it is stored unpacked.

use memchr::memmem;

use super::{Entry, Listing, NAME_MAX, Packed};
use crate::bytes::{Cursor, to_size, unknown_text};
use crate::unpack::Method;

const MARK_4: &[u8] = b"Rar!\x1a\x07\0";
const MARK_5: &[u8] = b"Rar!\x1a\x07\x01\0";

/// Entries up to `max`.
pub fn list(data: &[u8], max: usize) -> Listing<'_> {
    // Self-extracting archives have a program before the mark.
    let Some(at) = memmem::find(data, b"Rar!\x1a\x07") else { return Listing::damaged() };
    let rest = data.get(at..).unwrap_or_default();
    if rest.starts_with(MARK_5) {
        list_5(data, at + MARK_5.len(), max)
    } else if rest.starts_with(MARK_4) {
        list_4(data, at + MARK_4.len(), max)
    } else {
        Listing::damaged()
    }
}

fn list_4(data: &[u8], start: usize, max: usize) -> Listing<'_> {
    let mut listing = Listing::default();
    let mut at = start;
    while at < data.len() {
        let Some((block, entry)) = block_4(data, at) else {
            listing.is_damaged = true;
            break;
        };
        match block.kind {
            // The archive's own header: everything after it may be encrypted.
            0x73 if block.flags & 0x80 != 0 => {
                listing.names_are_encrypted = true;
                break;
            }
            0x7b => break,
            _ => {}
        }
        if let Some((entry, size)) = entry {
            listing.declared_bytes = listing.declared_bytes.saturating_add(size);
            if !listing.push(entry, max) {
                break;
            }
        }
        at = block.end;
    }
    listing.is_damaged |= at > data.len();
    listing
}

struct Block {
    kind: u8,
    flags: u16,
    /// Where the next begins.
    end: usize,
}

fn block_4(data: &[u8], at: usize) -> Option<(Block, Option<(Entry<'_>, u64)>)> {
    let mut cursor = Cursor::at(data, at);
    cursor.skip(2)?;
    let (kind, flags, size) = (cursor.u8()?, cursor.u16()?, cursor.u16()?);
    if size < 7 {
        return None;
    }
    let head_end = at.checked_add(size.into())?;
    let is_file = kind == 0x74 || kind == 0x7a;
    let mut added = if flags & 0x8000 != 0 || is_file { u64::from(cursor.u32()?) } else { 0 };
    if !is_file {
        return Some((Block { kind, flags, end: head_end.saturating_add(to_size(added)) }, None));
    }
    let mut unpacked = u64::from(cursor.u32()?);
    cursor.skip(10)?;
    let (method, name_length, attributes) = (cursor.u8()?, cursor.u16()?, cursor.u32()?);
    if flags & 0x100 != 0 {
        added |= u64::from(cursor.u32()?) << 32;
        unpacked |= u64::from(cursor.u32()?) << 32;
    }
    let raw = cursor.take(usize::from(name_length).min(NAME_MAX))?;
    let name = if flags & 0x200 != 0 { unicode_name(raw) } else { unknown_text(raw) };
    let is_encrypted = flags & 4 != 0;
    let end = head_end.saturating_add(to_size(added));
    let content = data.get(head_end..end.min(data.len())).unwrap_or_default();
    let is_stored = method == 0x30 && !is_encrypted;
    let entry = Entry {
        name,
        is_encrypted,
        is_folder: flags & 0xe0 == 0xe0 || attributes & 0x10 != 0 && unpacked == 0,
        content: is_stored.then_some(Packed { method: Method::Stored, data: content }),
        other_name: None,
        within: None,
    };
    // Comments and recovery records look like files, but are of kind 0x7a.
    Some((Block { kind, flags, end }, (kind == 0x74).then_some((entry, unpacked))))
}

/// RAR 4's own packing of UTF-16 against the plain name before the NUL: pairs of bits say how each character comes.
fn unicode_name(raw: &[u8]) -> String {
    let Some(nul) = memchr::memchr(0, raw) else { return String::from_utf8_lossy(raw).into_owned() };
    let (plain, packed) = (raw.get(..nul).unwrap_or_default(), raw.get(nul + 1..).unwrap_or_default());
    let mut cursor = Cursor::new(packed);
    let Some(high) = cursor.u8() else { return unknown_text(plain) };
    let mut units: Vec<u16> = Vec::new();
    let wide = |low: u8| u16::from(high) << 8 | u16::from(low);
    'all: while let Some(flags) = cursor.u8() {
        for shift in [6, 4, 2, 0] {
            if units.len() >= NAME_MAX {
                break 'all;
            }
            let unit = match flags >> shift & 3 {
                0 => cursor.u8().map(u16::from),
                1 => cursor.u8().map(wide),
                2 => cursor.u16(),
                _ => {
                    // A run that is copied from the plain name, with a correction or without.
                    let Some(length) = cursor.u8() else { break 'all };
                    let correction = if length & 0x80 != 0 { cursor.u8() } else { None };
                    for _ in 0..usize::from(length & 0x7f) + 2 {
                        let Some(byte) = plain.get(units.len()) else { break };
                        units.push(correction.map_or(u16::from(*byte), |by| wide(byte.wrapping_add(by))));
                    }
                    continue;
                }
            };
            let Some(unit) = unit else { break 'all };
            units.push(unit);
        }
    }
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

fn list_5(data: &[u8], start: usize, max: usize) -> Listing<'_> {
    let mut listing = Listing::default();
    let mut at = start;
    while at < data.len() {
        match block_5(data, at) {
            Some(Block5::Encrypted) => {
                listing.names_are_encrypted = true;
                break;
            }
            Some(Block5::End) => break,
            Some(Block5::Other { end }) => at = end,
            Some(Block5::File { entry, unpacked, end }) => {
                listing.declared_bytes = listing.declared_bytes.saturating_add(unpacked);
                if !listing.push(entry, max) {
                    break;
                }
                at = end;
            }
            None => {
                listing.is_damaged = true;
                break;
            }
        }
    }
    listing.is_damaged |= at > data.len();
    listing
}

enum Block5<'a> {
    Encrypted,
    End,
    Other { end: usize },
    File { entry: Entry<'a>, unpacked: u64, end: usize },
}

fn block_5(data: &[u8], at: usize) -> Option<Block5<'_>> {
    let mut cursor = Cursor::at(data, at);
    cursor.skip(4)?;
    let size = to_size(number(&mut cursor)?);
    let head_end = cursor.position().checked_add(size)?;
    let (kind, flags) = (number(&mut cursor)?, number(&mut cursor)?);
    let extra = if flags & 1 != 0 { to_size(number(&mut cursor)?) } else { 0 };
    let added = if flags & 2 != 0 { to_size(number(&mut cursor)?) } else { 0 };
    let end = head_end.saturating_add(added);
    match kind {
        4 => return Some(Block5::Encrypted),
        5 => return Some(Block5::End),
        2 => {}
        _ => return Some(Block5::Other { end }),
    }
    let (file_flags, unpacked) = (number(&mut cursor)?, number(&mut cursor)?);
    number(&mut cursor)?;
    cursor.skip(if file_flags & 2 != 0 { 4 } else { 0 })?;
    cursor.skip(if file_flags & 4 != 0 { 4 } else { 0 })?;
    let packing = number(&mut cursor)?;
    number(&mut cursor)?;
    let length = to_size(number(&mut cursor)?).min(NAME_MAX);
    let name = String::from_utf8_lossy(cursor.take(length)?).into_owned();
    let records = head_end.checked_sub(extra).and_then(|from| data.get(from..head_end)).unwrap_or_default();
    let is_encrypted = has_encryption_record(records);
    let is_stored = packing >> 7 & 7 == 0 && !is_encrypted;
    let content = data.get(head_end..end.min(data.len())).unwrap_or_default();
    let entry = Entry {
        name,
        is_encrypted,
        is_folder: file_flags & 1 != 0,
        content: is_stored.then_some(Packed { method: Method::Stored, data: content }),
        other_name: None,
        within: None,
    };
    Some(Block5::File { entry, unpacked, end })
}

fn has_encryption_record(records: &[u8]) -> bool {
    let mut cursor = Cursor::new(records);
    while let Some(size) = number(&mut cursor) {
        let end = cursor.position().saturating_add(to_size(size));
        if number(&mut cursor) == Some(1) {
            return true;
        }
        cursor = Cursor::at(records, end);
    }
    false
}

/// Seven bits an octet, the lowest first; the highest bit says that more follow.
fn number(cursor: &mut Cursor<'_>) -> Option<u64> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let byte = cursor.u8()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::names;

    fn block4(kind: u8, flags: u16, rest: &[u8], content: &[u8]) -> Vec<u8> {
        let size = u16::try_from(7 + rest.len()).unwrap();
        [&[0, 0, kind][..], &flags.to_le_bytes(), &size.to_le_bytes(), rest, content].concat()
    }

    fn file4(name: &[u8], flags: u16, method: u8, content: &[u8]) -> Vec<u8> {
        let size = u32::try_from(content.len()).unwrap().to_le_bytes();
        let length = u16::try_from(name.len()).unwrap().to_le_bytes();
        let rest = [&size[..], &size, &[0; 9], &[29, method], &length, &[0; 4], name].concat();
        block4(0x74, flags | 0x8000, &rest, content)
    }

    #[test]
    fn rar4_is_walked() {
        // The plain name's run copied, then one wide character.
        let wide = b"x.exe\0\x20\xd2\x03\x2e";
        let data = [
            MARK_4,
            &block4(0x73, 0, &[0; 6], b""),
            &file4(b"a.txt", 0, 0x30, b"hello"),
            &file4(b"b.exe", 4, 0x33, b"????"),
            &file4(wide, 0x200, 0x33, b"??"),
            &block4(0x7b, 0, b"", b""),
        ]
        .concat();
        let listing = list(&data, 10);
        assert_eq!(names(&listing), ["a.txt", "b.exe", "x.exe\u{202e}"]);
        assert_eq!(listing.entries[0].content.unwrap().data, b"hello");
        assert!(listing.entries[1].is_encrypted && !listing.is_damaged);
        assert!(list(&data, 1).is_cut && list(&data[..60], 10).is_damaged);
        let hidden = [MARK_4, &block4(0x73, 0x80, &[0; 6], b""), b"noise"].concat();
        assert!(list(&hidden, 10).names_are_encrypted);
    }

    fn block5(kind: u8, flags: u8, rest: &[u8], content: &[u8]) -> Vec<u8> {
        let mut body = vec![kind, flags];
        body.extend(rest);
        [&[0; 4][..], &[u8::try_from(body.len()).unwrap()], &body, content].concat()
    }

    fn file5(name: &[u8], extra: &[u8], method: u8, content: &[u8]) -> Vec<u8> {
        let (size, length) = (u8::try_from(content.len()).unwrap(), u8::try_from(name.len()).unwrap());
        // The method is in bits 7 to 9 of the packing.
        let packing = if method == 0 { vec![0] } else { vec![0x80, method] };
        let rest =
            [&[u8::try_from(extra.len()).unwrap(), size, 0, size, 0][..], &packing, &[1, length], name, extra].concat();
        block5(2, 3, &rest, content)
    }

    #[test]
    fn rar5_is_walked() {
        let data = [
            MARK_5,
            &block5(1, 0, &[0], b""),
            &file5("\u{fc}.js".as_bytes(), b"", 0, b"x=1"),
            &file5(b"b.exe", &[2, 1, 0], 3, b"????"),
            &block5(5, 0, &[0], b""),
        ]
        .concat();
        let listing = list(&data, 10);
        assert_eq!(names(&listing), ["\u{fc}.js", "b.exe"]);
        assert_eq!(listing.entries[0].content.unwrap().data, b"x=1");
        assert!(listing.entries[1].is_encrypted && !listing.is_damaged);
        let hidden = [MARK_5, &block5(4, 0, &[0; 20], b""), b"noise"].concat();
        assert!(list(&hidden, 10).names_are_encrypted);
        assert!(list(b"Rar!\x1a\x07\x09", 10).is_damaged && list(b"none", 10).is_damaged);
    }
}
