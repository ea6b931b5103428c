//! Outlook's `winmail.dat` (MS-OXTNEF): attachments with their names.

use super::{Entry, Listing, Packed};
use crate::bytes::{Cursor, unknown_text, utf16};
use crate::unpack::Method;

const TITLE: u32 = 0x0001_8010;
const CONTENT: u32 = 0x0006_800f;
const PROPERTIES: u32 = 0x0006_9005;
const BEGINS: u32 = 0x0006_9002;

/// Entries up to `max`.
pub fn list(data: &[u8], max: usize) -> Listing<'_> {
    let mut listing = Listing::default();
    let mut cursor = Cursor::at(data, 6);
    let mut entry: Option<Entry<'_>> = None;
    while let Some(level) = cursor.u8() {
        let (Some(id), Some(size)) = (cursor.u32(), cursor.size()) else {
            listing.is_damaged = true;
            break;
        };
        let Some(value) = cursor.take(size) else {
            listing.is_damaged = true;
            break;
        };
        // Level 2 is attachments; each begins with its own attribute.
        if level == 2 {
            if id == BEGINS
                && let Some(entry) = entry.take()
                && !listing.push(entry, max)
            {
                return listing;
            }
            let current = entry.get_or_insert_default();
            match id {
                TITLE => {
                    let end = memchr::memchr(0, value).unwrap_or(value.len());
                    current.name = unknown_text(value.get(..end).unwrap_or_default());
                }
                CONTENT => current.content = Some(Packed { method: Method::Stored, data: value }),
                PROPERTIES => current.other_name = long_name(value),
                _ => {}
            }
        }
        if cursor.skip(2).is_none() {
            listing.is_damaged = true;
            break;
        }
    }
    if let Some(entry) = entry {
        listing.push(entry, max);
    }
    listing
}

/// PidTagAttachLongFilename among the properties: its tag (as UTF-16 or octets), one value, its length, the text.
fn long_name(properties: &[u8]) -> Option<String> {
    let find = |tag: &[u8]| memchr::memmem::find(properties, tag);
    let (at, is_wide) = match (find(b"\x1f\0\x07\x37"), find(b"\x1e\0\x07\x37")) {
        (Some(at), _) => (at, true),
        (None, Some(at)) => (at, false),
        (None, None) => return None,
    };
    let mut cursor = Cursor::at(properties, at + 8);
    let length = cursor.size()?;
    let text = cursor.take(length.min(super::NAME_MAX))?;
    let text = if is_wide { utf16(text) } else { unknown_text(text) };
    Some(text.trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(id: u32, value: &[u8]) -> Vec<u8> {
        [&[2][..], &id.to_le_bytes(), &u32::try_from(value.len()).unwrap().to_le_bytes(), value, &[0, 0]].concat()
    }

    #[test]
    fn attachments_have_names_and_content() {
        let wide: Vec<u8> = "long name.exe\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let property =
            [b"\x1f\0\x07\x37\x01\0\0\0", &u32::try_from(wide.len()).unwrap().to_le_bytes()[..], &wide].concat();
        let data = [
            &b"\x78\x9f\x3e\x22\x01\0"[..],
            &attribute(BEGINS, &[0; 14]),
            &attribute(TITLE, b"a.txt\0"),
            &attribute(CONTENT, b"hello"),
            &attribute(BEGINS, &[0; 14]),
            &attribute(TITLE, b"LONGNA~1.EXE\0"),
            &attribute(PROPERTIES, &property),
        ]
        .concat();
        let listing = list(&data, 10);
        assert_eq!(crate::archive::names(&listing), ["a.txt", "LONGNA~1.EXE"]);
        assert_eq!(listing.entries[0].content.unwrap().data, b"hello");
        assert_eq!(listing.entries[1].other_name.as_deref(), Some("long name.exe"));
        assert!(!listing.is_damaged && list(&data[..40], 10).is_damaged && list(&data, 1).is_cut);
    }
}
