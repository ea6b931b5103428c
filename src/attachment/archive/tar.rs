//! Tar: the old format, ustar, GNU long names and pax paths (POSIX.1-2001).

use super::{Entry, Listing, NAME_MAX, Packed};
use crate::bytes::{to_size, unknown_text};
use crate::unpack::Method;

const BLOCK: usize = 512;

/// Entries up to `max`, with their content.
pub fn list(data: &[u8], max: usize) -> Listing<'_> {
    let mut listing = Listing::default();
    let mut at = 0;
    let mut long_name: Option<String> = None;
    while let Some(header) = data.get(at..).and_then(|rest| rest.get(..BLOCK)) {
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        if !checksum_holds(header) {
            listing.is_damaged = true;
            break;
        }
        let size = number(header.get(124..136).unwrap_or_default()).map_or(usize::MAX, to_size);
        let from = at + BLOCK;
        let end = from.saturating_add(size);
        let content = data.get(from..end.min(data.len())).unwrap_or_default();
        listing.is_damaged |= content.len() < size;
        let kind = header.get(156).copied().unwrap_or(0);
        match kind {
            b'L' => long_name = Some(text(content)),
            b'x' => long_name = pax_path(content).or(long_name),
            b'K' | b'g' => {}
            _ => {
                let name = long_name.take().unwrap_or_else(|| header_name(header));
                let is_folder = kind == b'5';
                let content = Some(Packed { method: Method::Stored, data: content });
                listing.declared_bytes = listing.declared_bytes.saturating_add(u64::try_from(size).unwrap_or(u64::MAX));
                if !listing.push(Entry { name, content, is_folder, ..Entry::default() }, max) {
                    break;
                }
            }
        }
        let Some(next) = end.checked_next_multiple_of(BLOCK) else { break };
        at = next;
    }
    listing
}

/// The sum of a header's octets, its own field counted as blanks; some old writers summed signed octets.
pub(crate) fn checksum_holds(header: &[u8]) -> bool {
    let Some(said) = header.get(148..156).and_then(number) else { return false };
    let own = |at: usize| (148..156).contains(&at);
    let unsigned: u64 = header.iter().enumerate().map(|(at, byte)| if own(at) { 32 } else { u64::from(*byte) }).sum();
    let signed: i64 =
        header.iter().enumerate().map(|(at, byte)| if own(at) { 32 } else { i64::from(byte.cast_signed()) }).sum();
    said == unsigned || i64::try_from(said) == Ok(signed)
}

/// Octal digits, or GNU's base 256.
fn number(field: &[u8]) -> Option<u64> {
    if let Some((first, rest)) = field.split_first()
        && first & 0x80 != 0
    {
        let bytes = std::iter::once(first & 0x7f).chain(rest.iter().copied());
        return bytes.into_iter().try_fold(0u64, |sum, byte| sum.checked_mul(256)?.checked_add(u64::from(byte)));
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|byte| !(b'0'..=b'7').contains(byte)).unwrap_or(digits.len());
    let digits = digits.get(..end).filter(|digits| !digits.is_empty())?;
    digits.iter().try_fold(0u64, |sum, digit| sum.checked_mul(8)?.checked_add(u64::from(digit - b'0')))
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len()).min(NAME_MAX);
    unknown_text(field.get(..end).unwrap_or_default())
}

fn header_name(header: &[u8]) -> String {
    let name = text(header.get(..100).unwrap_or_default());
    let is_posix = header.get(257..263) == Some(b"ustar\0");
    let prefix = text(header.get(345..500).unwrap_or_default());
    if is_posix && !prefix.is_empty() { format!("{prefix}/{name}") } else { name }
}

/// `LENGTH path=VALUE\n` among the records of a pax header.
fn pax_path(records: &[u8]) -> Option<String> {
    let mut rest = records;
    let mut found = None;
    while let Some(blank) = memchr::memchr(b' ', rest.get(..20.min(rest.len()))?) {
        let length: usize = std::str::from_utf8(rest.get(..blank)?).ok()?.parse().ok()?;
        let record = rest.get(blank + 1..length)?;
        if let Some(value) = record.strip_prefix(b"path=") {
            found = Some(text(value.strip_suffix(b"\n").unwrap_or(value)));
        }
        rest = rest.get(length..)?;
    }
    found
}

#[cfg(test)]
pub(crate) fn one(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut header = vec![0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name.as_bytes()[..name.len().min(100)]);
    put(124, format!("{:011o}\0", content.len()).as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut out = [header, content.to_vec()].concat();
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::names;

    #[test]
    fn entries_long_names_and_pax_paths() {
        let long = "x".repeat(150) + ".exe";
        let data = [
            one("a.txt", b'0', b"hello"),
            one("././@LongLink", b'L', long.as_bytes()),
            one("cut", b'0', b"MZ"),
            one("pax", b'x', b"16 path=q/\xc3\xa4.js\n"),
            one("cut", b'0', b""),
            one("dir/", b'5', b""),
            vec![0; 1024],
        ]
        .concat();
        let listing = list(&data, 100);
        assert_eq!(names(&listing), ["a.txt", &long, "q/\u{e4}.js", "dir/"]);
        assert!(!listing.is_damaged && listing.entries[3].is_folder);
        assert_eq!(listing.entries[1].content.unwrap().data, b"MZ");
        assert!(list(&data, 2).is_cut);
        // A size in base 256 that leads to the end of all numbers.
        let mut far = one("a", b'0', b"");
        far[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfa, 0]);
        far[148..156].fill(b' ');
        let sum: u32 = far.iter().map(|byte| u32::from(*byte)).sum();
        far[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert!(list(&far, 9).is_damaged && names(&list(&far, 9)) == ["a"]);
        assert!(list(&data[..700], 9).entries.len() == 1);
        let cut = list(&data[..514], 9);
        assert!(cut.is_damaged && cut.entries[0].content.unwrap().data == b"he");
    }
}
