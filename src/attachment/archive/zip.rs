//! ZIP (PKWARE APPNOTE 6.3.10): the central directory with ZIP64, and local headers that it does not name.
//!
//! Some unpackers believe the directory at the end, others read local headers from the start. Both are listed.

use memchr::memmem;

use super::{Entry, Listing, NAME_MAX, Packed};
use crate::bytes::{Cursor, to_size, unknown_text};
use crate::unpack::Method;

const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
/// An end record and the longest comment.
const END_SPAN: usize = 22 + 65_535;

/// Entries up to `max`, with their content where the method is read.
pub fn list(data: &[u8], max: usize) -> Listing<'_> {
    let mut listing = Listing::default();
    // Where content of named entries lies.
    let mut taken: Vec<(usize, usize)> = Vec::new();
    match directory(data) {
        Some((at, shift)) => central(data, at, shift, max, &mut listing, &mut taken),
        None => listing.is_damaged = true,
    }
    taken.sort_unstable();
    listing.overlaps = taken.windows(2).any(|pair| matches!(pair, [(_, end), (start, _)] if start < end));
    unnamed(data, max, &mut listing, &taken);
    listing
}

/// Where the central directory begins, and how far offsets are off because something was put before the archive.
fn directory(data: &[u8]) -> Option<(usize, usize)> {
    let from = data.len().saturating_sub(END_SPAN);
    let tail = data.get(from..)?;
    memmem::rfind_iter(tail, END).take(64).find_map(|at| {
        let at = from + at;
        let mut cursor = Cursor::at(data, at + 12);
        let (mut size, mut offset) = (cursor.size()?, cursor.size()?);
        let mut end = at;
        if (size == 0xffff_ffff || offset == 0xffff_ffff)
            && let Some((record, large_size, large_offset)) = zip64(data, at)
        {
            (end, size, offset) = (record, large_size, large_offset);
        }
        let is_there = |start: &usize| data.get(*start..).is_some_and(|rest| rest.starts_with(CENTRAL));
        // By its size it ends where the end record begins; by its offset it is where the writer put it.
        if let Some(start) = end.checked_sub(size).filter(is_there) {
            return Some((start, start.saturating_sub(offset)));
        }
        if is_there(&offset) {
            return Some((offset, 0));
        }
        // An archive of nothing.
        (size == 0).then_some((at, 0))
    })
}

fn zip64(data: &[u8], end: usize) -> Option<(usize, usize, usize)> {
    let locator = end.checked_sub(20)?;
    let mut cursor = Cursor::at(data, locator);
    if cursor.take(4)? != b"PK\x06\x07" {
        return None;
    }
    cursor.skip(4)?;
    let said = to_size(cursor.u64()?);
    let is_there = |at: &usize| data.get(*at..).is_some_and(|rest| rest.starts_with(b"PK\x06\x06"));
    let record = Some(said).filter(is_there).or_else(|| locator.checked_sub(56).filter(is_there))?;
    let mut cursor = Cursor::at(data, record.checked_add(40)?);
    Some((record, to_size(cursor.u64()?), to_size(cursor.u64()?)))
}

fn central<'a>(
    data: &'a [u8],
    at: usize,
    shift: usize,
    max: usize,
    listing: &mut Listing<'a>,
    taken: &mut Vec<(usize, usize)>,
) {
    let mut cursor = Cursor::at(data, at);
    while cursor.rest().starts_with(CENTRAL) {
        let Some((mut entry, header)) = central_entry(&mut cursor) else {
            listing.is_damaged = true;
            return;
        };
        listing.declared_bytes = listing.declared_bytes.saturating_add(header.unpacked);
        let local = header.offset.saturating_add(shift);
        match Local::read(data, local) {
            Some(found) => {
                let end = found.content.saturating_add(header.packed);
                entry.is_encrypted |= found.is_encrypted;
                if found.name != entry.name {
                    entry.other_name = Some(found.name);
                }
                let content = data.get(found.content..end.min(data.len())).unwrap_or_default();
                listing.is_damaged |= content.len() < header.packed;
                taken.push((local, end));
                if !entry.is_encrypted {
                    entry.content = packed(header.method, content, header.unpacked);
                }
            }
            None => listing.is_damaged = true,
        }
        if !listing.push(entry, max) {
            return;
        }
    }
}

struct Header {
    method: u16,
    packed: usize,
    unpacked: u64,
    offset: usize,
}

fn central_entry<'a>(cursor: &mut Cursor<'a>) -> Option<(Entry<'a>, Header)> {
    cursor.skip(8)?;
    let (flags, method) = (cursor.u16()?, cursor.u16()?);
    cursor.skip(8)?;
    let (packed, unpacked) = (cursor.u32()?, cursor.u32()?);
    let (name, extra, comment) = (cursor.u16()?, cursor.u16()?, cursor.u16()?);
    cursor.skip(8)?;
    let offset = cursor.u32()?;
    let name = cursor.take(name.into())?;
    // A directory that is cut off in an entry's extra fields still named it.
    let extra = cursor.take(extra.into()).unwrap_or_default();
    cursor.skip(comment.into());
    let mut header = Header { method, packed: to_size(packed), unpacked: unpacked.into(), offset: to_size(offset) };
    if let Some(field) = extra_field(extra, 1) {
        let mut large = Cursor::new(field);
        if unpacked == u32::MAX {
            header.unpacked = large.u64().unwrap_or(header.unpacked);
        }
        if packed == u32::MAX {
            header.packed = large.u64().map_or(header.packed, to_size);
        }
        if offset == u32::MAX {
            header.offset = large.u64().map_or(header.offset, to_size);
        }
    }
    let name = decoded(name, flags, extra);
    let entry = Entry {
        is_folder: is_folder(&name, unpacked == 0),
        name,
        is_encrypted: is_encrypted(flags, method),
        ..Entry::default()
    };
    Some((entry, header))
}

/// A name that ends like a folder's and has no content: one with content is unpacked by some as a file.
fn is_folder(name: &str, is_empty: bool) -> bool {
    is_empty && name.ends_with(['/', '\\'])
}

/// Method 99 is AES.
const fn is_encrypted(flags: u16, method: u16) -> bool {
    flags & 1 != 0 || method == 99
}

/// Content and how it is packed; `None` where the method is not read.
fn packed(number: u16, data: &[u8], size: u64) -> Option<Packed<'_>> {
    if number != 14 {
        return method(number).map(|method| Packed { method, data });
    }
    // LZMA has a version and its properties before the content.
    let mut cursor = Cursor::at(data, 4);
    let (properties, dictionary) = (cursor.u8()?, cursor.u32()?);
    Some(Packed { method: Method::Lzma { properties, dictionary, size }, data: cursor.rest() })
}

const fn method(number: u16) -> Option<Method> {
    match number {
        0 => Some(Method::Stored),
        8 => Some(Method::Deflate),
        12 => Some(Method::Bzip2),
        95 => Some(Method::Xz),
        _ => None,
    }
}

/// The value of an extra field.
fn extra_field(extra: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut cursor = Cursor::new(extra);
    loop {
        let (id, length) = (cursor.u16()?, cursor.u16()?);
        let value = cursor.take(length.into())?;
        if id == wanted {
            return Some(value);
        }
    }
}

/// Bit 11 says UTF-8; Info-ZIP's field 0x7075 holds the name in UTF-8 after a version and a checksum.
fn decoded(name: &[u8], flags: u16, extra: &[u8]) -> String {
    let unicode = extra_field(extra, 0x7075).and_then(|field| field.get(5..)).filter(|name| !name.is_empty());
    let name = unicode.unwrap_or(name);
    let name = name.get(..NAME_MAX).unwrap_or(name);
    if flags & 0x800 != 0 || unicode.is_some() {
        return String::from_utf8_lossy(name).into_owned();
    }
    unknown_text(name)
}

/// A local header.
struct Local {
    name: String,
    flags: u16,
    method: u16,
    is_encrypted: bool,
    packed: usize,
    /// Where its content begins.
    content: usize,
}

impl Local {
    fn read(data: &[u8], at: usize) -> Option<Self> {
        let mut cursor = Cursor::at(data, at);
        if cursor.take(4)? != LOCAL {
            return None;
        }
        cursor.skip(2)?;
        let (flags, method) = (cursor.u16()?, cursor.u16()?);
        cursor.skip(8)?;
        let (mut packed, _) = (cursor.size()?, cursor.u32()?);
        let (name, extra) = (cursor.u16()?, cursor.u16()?);
        let name = cursor.take(name.into())?;
        let extra = cursor.take(extra.into()).unwrap_or_default();
        if packed == 0xffff_ffff {
            packed = extra_field(extra, 1).and_then(|field| Cursor::at(field, 8).u64()).map_or(packed, to_size);
        }
        Some(Self {
            name: decoded(name, flags, extra),
            flags,
            method,
            is_encrypted: is_encrypted(flags, method),
            packed,
            content: cursor.position(),
        })
    }
}

/// Local headers outside of what the directory names. `taken` is in order.
fn unnamed<'a>(data: &'a [u8], max: usize, listing: &mut Listing<'a>, taken: &[(usize, usize)]) {
    let finder = memmem::Finder::new(LOCAL);
    let marks = memmem::Finder::new(b"PK");
    let had = listing.entries.len();
    let mut at = 0;
    let mut next_taken = taken.iter().peekable();
    while let Some(found) = data.get(at..).and_then(|rest| finder.find(rest)) {
        let start = at + found;
        // What lies before is no matter any more.
        while next_taken.next_if(|(_, end)| *end <= start).is_some() {}
        if let Some((from, end)) = next_taken.peek()
            && *from <= start
        {
            at = *end;
            continue;
        }
        let Some(local) = Local::read(data, start) else {
            at = start + LOCAL.len();
            continue;
        };
        // Bit 3: the sizes come after the content, which ends where anything of the archive begins.
        let after = data.get(local.content..).unwrap_or_default();
        let length = if local.flags & 8 != 0 && local.packed == 0 {
            marks
                .find_iter(after)
                .find(|at| matches!(after.get(at + 2..at + 4), Some(b"\x07\x08" | b"\x03\x04" | b"\x01\x02")))
                .unwrap_or(after.len())
        } else {
            local.packed.min(after.len())
        };
        let content = after.get(..length).unwrap_or_default();
        let method = method(local.method).filter(|_| !local.is_encrypted);
        let entry = Entry {
            is_folder: is_folder(&local.name, content.is_empty()),
            name: local.name,
            is_encrypted: local.is_encrypted,
            content: method.map(|method| Packed { method, data: content }),
            other_name: None,
            within: None,
        };
        if !listing.push(entry, max) {
            break;
        }
        at = (local.content + length).max(start + LOCAL.len());
    }
    listing.is_damaged |= listing.entries.len() > had;
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use super::*;
    use crate::archive::names;

    /// An entry to write: name, octets, and how.
    #[derive(Clone, Default)]
    pub(crate) struct Put<'a> {
        pub name: &'a [u8],
        pub content: &'a [u8],
        pub flags: u16,
        pub stored: bool,
        pub extra: &'a [u8],
        pub not_in_directory: bool,
        pub local_name: Option<&'a [u8]>,
    }

    pub(crate) fn put<'a>(name: &'a str, content: &'a [u8]) -> Put<'a> {
        Put { name: name.as_bytes(), content, ..Put::default() }
    }

    pub(crate) fn deflated(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    pub(crate) fn write(entries: &[Put<'_>]) -> Vec<u8> {
        let (mut out, mut directory, mut count) = (Vec::new(), Vec::new(), 0u16);
        for entry in entries {
            let packed = if entry.stored { entry.content.to_vec() } else { deflated(entry.content) };
            let method: u16 = if entry.stored { 0 } else { 8 };
            let streamed = entry.flags & 8 != 0;
            let len = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_le_bytes();
            let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
            let offset = size(&out);
            let local_name = entry.local_name.unwrap_or(entry.name);
            let sizes = if streamed { [[0; 4]; 2].concat() } else { [size(&packed), size(entry.content)].concat() };
            let common = [&[20, 0][..], &entry.flags.to_le_bytes(), &method.to_le_bytes(), &[0; 8]].concat();
            out.extend([LOCAL, &common, &sizes, &len(local_name), &len(entry.extra), local_name, entry.extra].concat());
            out.extend_from_slice(&packed);
            if streamed {
                out.extend([b"PK\x07\x08\0\0\0\0", &size(&packed)[..], &size(entry.content)].concat());
            }
            if !entry.not_in_directory {
                count += 1;
                directory.extend([CENTRAL, &[20, 0], &common, &size(&packed), &size(entry.content)].concat());
                directory.extend([&len(entry.name)[..], &len(entry.extra), &[0; 10], &offset].concat());
                directory.extend([entry.name, entry.extra].concat());
            }
        }
        let at = u32::try_from(out.len()).unwrap();
        let size = u32::try_from(directory.len()).unwrap();
        out.extend(directory);
        out.extend([END, &[0; 4], &count.to_le_bytes(), &count.to_le_bytes()].concat());
        out.extend([&size.to_le_bytes()[..], &at.to_le_bytes(), &[0; 2]].concat());
        out
    }

    fn content(entry: &Entry<'_>) -> Vec<u8> {
        let packed = entry.content.unwrap();
        crate::unpack::unpack(packed.method, packed.data, 1000).0
    }

    #[test]
    fn entries_with_their_content() {
        let streamed = Put { flags: 8, ..put("b.txt", b"streamed") };
        let data = write(&[put("a.txt", b"hello"), streamed, Put { stored: true, ..put("d/", b"") }]);
        let listing = list(&data, 10);
        assert_eq!(names(&listing), ["a.txt", "b.txt", "d/"]);
        assert!(!listing.is_damaged && !listing.overlaps && listing.entries[2].is_folder);
        assert_eq!((content(&listing.entries[0]), content(&listing.entries[1])), (b"hello".into(), b"streamed".into()));
        assert!(list(&data, 2).is_cut);
        // Something before the archive, as self-extracting ones have.
        let shifted = [b"#!/bin/sh\n", &data[..]].concat();
        assert_eq!(content(&list(&shifted, 10).entries[0]), b"hello");
        assert_eq!(names(&list(b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 10)), [""; 0]);
    }

    #[test]
    fn what_the_directory_does_not_name_is_seen() {
        let hidden = Put { not_in_directory: true, ..put("hidden.exe", b"MZ") };
        let listing_of = |entries: &[Put<'_>]| {
            let data = write(entries);
            let listing = list(&data, 10);
            (names(&listing).join(" "), listing.is_damaged)
        };
        assert_eq!(listing_of(&[hidden.clone(), put("a.txt", b"x")]), ("a.txt hidden.exe".into(), true));
        assert_eq!(listing_of(&[Put { flags: 8, ..hidden }]), ("hidden.exe".into(), true));
        let data = write(&[put("a.exe", b"x"), put("b.txt", b"yy")]);
        // Without a directory, and cut within the second entry.
        assert_eq!(names(&list(&data[..data.len() - 126], 10)), ["a.exe", "b.txt"]);
        let two_names = write(&[Put { local_name: Some(b"b.exe"), ..put("b.txt", b"x") }]);
        assert_eq!(list(&two_names, 9).entries[0].other_name.as_deref(), Some("b.exe"));
        // An archive stored in an archive is one entry.
        let inner = write(&[put("in.exe", b"x")]);
        assert_eq!(names(&list(&write(&[Put { stored: true, ..put("in.zip", &inner) }]), 10)), ["in.zip"]);
    }

    #[test]
    fn encryption_names_and_large_sizes() {
        let data = write(&[Put { flags: 1, ..put("a.exe", b"x") }]);
        let listing = list(&data, 10);
        assert!(listing.entries[0].is_encrypted && listing.entries[0].content.is_none());
        let utf8 = Put { flags: 0x800, name: "\u{fc}.txt".as_bytes(), ..put("", b"x") };
        let old = Put { name: b"\x81.txt", ..put("", b"x") };
        let unicode = Put { extra: b"up\x0a\x00\x01....a.exe", ..put("a.txt", b"x") };
        let data = write(&[utf8, old, unicode]);
        let listing = list(&data, 10);
        assert_eq!((&*listing.entries[0].name, &*listing.entries[2].name), ("\u{fc}.txt", "a.exe"));
        assert!(listing.entries[1].name.ends_with(".txt"));
        // ZIP64: sizes and offset in the extra field.
        let mut data = write(&[Put { extra: &[0; 28], ..put("big.bin", b"hello") }]);
        let at = memmem::find(&data, CENTRAL).unwrap();
        let packed = u64::from(u32::from_le_bytes(data[at + 20..at + 24].try_into().unwrap()));
        data[at + 20..at + 28].fill(0xff);
        data[at + 42..at + 46].fill(0xff);
        let extra = at + 46 + 7;
        let field =
            [&1u16.to_le_bytes()[..], &24u16.to_le_bytes(), &5u64.to_le_bytes(), &packed.to_le_bytes()].concat();
        data[extra..extra + 20].copy_from_slice(&field);
        let listing = list(&data, 10);
        assert_eq!((content(&listing.entries[0]), listing.declared_bytes), (b"hello".into(), 5));
    }

    #[test]
    fn shared_octets_are_told() {
        let mut data = write(&[put("a", &[7; 500]), put("b", &[8; 500])]);
        let second = memmem::rfind(&data, CENTRAL).unwrap();
        data[second + 42..second + 46].fill(0);
        assert!(list(&data, 10).overlaps);
    }
}
