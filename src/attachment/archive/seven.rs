//! 7z: the headers, plain or packed, and where each file lies in which packed stream.
//!
//! Source: the format's description that comes with the LZMA SDK (`7zFormat.txt`).

use memchr::memmem;

use super::{Entry, Listing, NAME_MAX, Packed};
use crate::bytes::{Cursor, to_size, utf16};
use crate::unpack::{Method, unpack};

const MARK: &[u8] = b"7z\xbc\xaf\x27\x1c";
/// Unpacked headers beyond this are not read: names of some hundred thousand files.
const HEADER_MAX: usize = 16 * 1024 * 1024;
/// Packed streams that are read.
const STREAMS_MAX: usize = 100_000;
const CODERS_MAX: usize = 32;

const AES: &[u8] = &[6, 0xf1, 7, 1];

/// Entries up to `max`.
pub fn list(data: &[u8], max: usize) -> Listing<'_> {
    // Self-extracting archives have a program before the mark.
    let Some(start) = memmem::find(data, MARK) else { return Listing::damaged() };
    let data = data.get(start..).unwrap_or_default();
    let Some(header) = next_header(data) else { return Listing::damaged() };
    match header.split_first() {
        // An archive of nothing has no header.
        None => Listing::default(),
        Some((1, plain)) => files(data, plain, max).unwrap_or_else(Listing::damaged),
        Some((0x17, packed)) => {
            let Some(streams) = Streams::read(&mut Cursor::new(packed)) else { return Listing::damaged() };
            if streams.folders.iter().any(|folder| folder.is_encrypted) {
                return Listing { names_are_encrypted: true, ..Listing::default() };
            }
            let Some(packed) = streams.first_content(data) else { return Listing::damaged() };
            let header = unpack(packed.method, packed.data, HEADER_MAX).0;
            match header.split_first() {
                Some((1, plain)) => files(data, plain, max).unwrap_or_else(Listing::damaged),
                _ => Listing::damaged(),
            }
        }
        Some(_) => Listing::damaged(),
    }
}

/// The header at the end of the archive, of which the signature header at its start tells the place.
fn next_header(data: &[u8]) -> Option<&[u8]> {
    let mut cursor = Cursor::at(data, 12);
    let (offset, size) = (to_size(cursor.u64()?), to_size(cursor.u64()?));
    let from = offset.checked_add(32)?;
    data.get(from..from.checked_add(size)?)
}

/// Names and content from a header without its first octet.
fn files<'a>(data: &'a [u8], header: &[u8], max: usize) -> Option<Listing<'a>> {
    let mut cursor = Cursor::new(header);
    let mut streams = Streams::default();
    loop {
        match number(&mut cursor)? {
            0 => return Some(Listing::default()),
            2 => {
                while number(&mut cursor)? != 0 {
                    let size = to_size(number(&mut cursor)?);
                    cursor.skip(size)?;
                }
            }
            3 => drop(Streams::read(&mut cursor)?),
            4 => streams = Streams::read(&mut cursor)?,
            5 => break,
            _ => return None,
        }
    }
    let count = to_size(number(&mut cursor)?);
    let (mut names, mut empty) = (&[][..], Vec::new());
    loop {
        let kind = number(&mut cursor)?;
        if kind == 0 {
            break;
        }
        let size = to_size(number(&mut cursor)?);
        let property = cursor.take(size)?;
        match kind {
            0x0e => empty = bits(property, count),
            0x11 => names = property.get(1..)?,
            _ => {}
        }
    }
    let mut listing = Listing { declared_bytes: streams.unpacked_bytes(), ..Listing::default() };
    let is_encrypted = streams.folders.iter().any(|folder| folder.is_encrypted);
    let mut place = Place::default();
    for (at, name) in Names(names).take(count).enumerate() {
        let is_empty = empty.get(at).copied().unwrap_or(false);
        let packed = if is_empty { None } else { place.next(&streams, data) };
        let (content, within) = packed.unzip();
        let entry = Entry {
            name,
            content,
            is_folder: false,
            is_encrypted: is_encrypted && !is_empty,
            other_name: None,
            within,
        };
        if !listing.push(entry, max) {
            break;
        }
    }
    Some(listing)
}

/// Names in UTF-16, each ended by NUL.
struct Names<'a>(&'a [u8]);

impl Iterator for Names<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        if self.0.len() < 2 {
            return None;
        }
        let end = self.0.chunks_exact(2).position(|unit| unit == [0, 0]).map_or(self.0.len(), |at| at * 2);
        let name = self.0.get(..end.min(NAME_MAX * 2))?;
        self.0 = self.0.get(end + 2..).unwrap_or_default();
        Some(utf16(name))
    }
}

/// What lies packed in the archive and how.
#[derive(Default)]
struct Streams {
    /// Where the first packed stream begins, after the signature header.
    position: usize,
    packed_sizes: Vec<usize>,
    folders: Vec<Folder>,
}

/// Streams that are unpacked together.
#[derive(Default)]
struct Folder {
    is_encrypted: bool,
    /// How it is unpacked, as far as that can be done here.
    method: Option<Method>,
    packed_streams: usize,
    outputs: usize,
    unpacked: u64,
    has_digest: bool,
    /// Files in it, and the sizes of all but the last.
    files: usize,
    sizes: Vec<usize>,
}

impl Streams {
    fn read(cursor: &mut Cursor<'_>) -> Option<Self> {
        let mut streams = Self::default();
        loop {
            match number(cursor)? {
                0 => return Some(streams),
                6 => streams.read_packed(cursor)?,
                7 => streams.read_folders(cursor)?,
                8 => streams.read_files(cursor)?,
                _ => return None,
            }
        }
    }

    fn read_packed(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        self.position = to_size(number(cursor)?);
        let count = bounded(number(cursor)?, STREAMS_MAX)?;
        loop {
            match number(cursor)? {
                0 => return Some(()),
                9 => {
                    for _ in 0..count {
                        self.packed_sizes.push(to_size(number(cursor)?));
                    }
                }
                0x0a => drop(digests(cursor, count)?),
                _ => return None,
            }
        }
    }

    fn read_folders(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        if number(cursor)? != 0x0b {
            return None;
        }
        let count = bounded(number(cursor)?, STREAMS_MAX)?;
        // Folders elsewhere than here are a thing of the format that no writer uses.
        if cursor.u8()? != 0 {
            return None;
        }
        for _ in 0..count {
            self.folders.push(Folder::read(cursor)?);
        }
        loop {
            match number(cursor)? {
                0 => return Some(()),
                0x0c => {
                    for folder in &mut self.folders {
                        for _ in 0..folder.outputs {
                            folder.unpacked = folder.unpacked.max(number(cursor)?);
                        }
                        if let Some(Method::Lzma { size, .. }) = &mut folder.method {
                            *size = folder.unpacked;
                        }
                    }
                }
                0x0a => {
                    let defined = digests(cursor, self.folders.len())?;
                    self.folders.iter_mut().zip(defined).for_each(|(folder, is)| folder.has_digest = is);
                }
                _ => return None,
            }
        }
    }

    fn read_files(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        loop {
            match number(cursor)? {
                0 => return Some(()),
                0x0d => {
                    for folder in &mut self.folders {
                        folder.files = to_size(number(cursor)?);
                    }
                }
                9 => {
                    for folder in &mut self.folders {
                        for _ in 1..folder.files {
                            folder.sizes.push(to_size(number(cursor)?));
                        }
                    }
                }
                0x0a => {
                    let known = |folder: &Folder| folder.files == 1 && folder.has_digest;
                    let unknown = self.folders.iter().filter(|folder| !known(folder)).map(|folder| folder.files);
                    let count = unknown.fold(0, usize::saturating_add);
                    drop(digests(cursor, bounded(u64::try_from(count).ok()?, STREAMS_MAX)?)?);
                }
                _ => return None,
            }
        }
    }

    fn unpacked_bytes(&self) -> u64 {
        self.folders.iter().fold(0, |sum, folder| sum.saturating_add(folder.unpacked))
    }

    /// The packed content of the first folder.
    fn first_content<'a>(&self, data: &'a [u8]) -> Option<Packed<'a>> {
        self.content(data, self.folders.first()?, &Place::default())
    }

    fn content<'a>(&self, data: &'a [u8], folder: &Folder, place: &Place) -> Option<Packed<'a>> {
        let from = self.position.checked_add(place.offset)?.checked_add(32)?;
        let end = from.saturating_add(*self.packed_sizes.get(place.streams)?).min(data.len());
        Some(Packed { method: folder.method?, data: data.get(from..end)? })
    }
}

/// Goes through the files with content, in their order.
#[derive(Default)]
struct Place {
    folder: usize,
    /// Files of the folder that lie behind, and the octets that they unpack to.
    files: usize,
    start: usize,
    /// Packed streams that lie before the folder's, and their octets.
    streams: usize,
    offset: usize,
}

impl Place {
    /// The next file: its folder's content, and where in what that unpacks to it lies.
    fn next<'a>(&mut self, streams: &Streams, data: &'a [u8]) -> Option<(Packed<'a>, std::ops::Range<usize>)> {
        loop {
            let folder = streams.folders.get(self.folder)?;
            if self.files < folder.files {
                // The last one's size is what the others leave.
                let (start, size) = (self.start, folder.sizes.get(self.files));
                let end = size.map_or(to_size(folder.unpacked), |size| start.saturating_add(*size));
                self.files += 1;
                self.start = end;
                return streams.content(data, folder, self).map(|content| (content, start..end.max(start)));
            }
            let sizes = streams.packed_sizes.get(self.streams..self.streams.saturating_add(folder.packed_streams));
            let passed = sizes.unwrap_or_default().iter().fold(0usize, |sum, size| sum.saturating_add(*size));
            *self = Self {
                folder: self.folder + 1,
                streams: self.streams.saturating_add(folder.packed_streams),
                offset: self.offset.saturating_add(passed),
                ..Self::default()
            };
        }
    }
}

impl Folder {
    fn read(cursor: &mut Cursor<'_>) -> Option<Self> {
        let mut folder = Self { files: 1, ..Self::default() };
        let (mut inputs, mut outputs) = (0usize, 0usize);
        let mut unknown = false;
        for _ in 0..bounded(number(cursor)?, CODERS_MAX)? {
            let flags = cursor.u8()?;
            let id = cursor.take(usize::from(flags & 15))?;
            let (ins, outs) = if flags & 0x10 != 0 {
                (bounded(number(cursor)?, CODERS_MAX)?, bounded(number(cursor)?, CODERS_MAX)?)
            } else {
                (1, 1)
            };
            let length = if flags & 0x20 != 0 { to_size(number(cursor)?) } else { 0 };
            let mut properties = Cursor::new(cursor.take(length)?);
            (inputs, outputs) = (inputs + ins, outputs + outs);
            let method = match id {
                [0] => Some(Method::Stored),
                [3, 1, 1] => {
                    Some(Method::Lzma { properties: properties.u8()?, dictionary: properties.u32()?, size: 0 })
                }
                [0x21] => Some(Method::Lzma2 { dictionary: lzma2_dictionary(properties.u8()?) }),
                [4, 1, 8] => Some(Method::Deflate),
                [4, 2, 2] => Some(Method::Bzip2),
                // Filters for programs change addresses of calls only: what a file is can be told without them.
                [3, 3, ..] | [4..=0xa] => None,
                _ => {
                    folder.is_encrypted |= id == AES;
                    unknown = true;
                    None
                }
            };
            folder.method = folder.method.or(method);
        }
        if unknown {
            folder.method = None;
        }
        let pairs = outputs.checked_sub(1)?;
        for _ in 0..pairs {
            number(cursor)?;
            number(cursor)?;
        }
        folder.packed_streams = inputs.checked_sub(pairs)?;
        if folder.packed_streams > 1 {
            for _ in 0..folder.packed_streams {
                number(cursor)?;
            }
        }
        folder.outputs = outputs;
        Some(folder)
    }
}

const fn lzma2_dictionary(property: u8) -> u32 {
    match property {
        0..40 => (2 | (property & 1) as u32) << (property / 2 + 11),
        _ => u32::MAX,
    }
}

/// Which of `count` have a digest; the digests themselves are passed over.
fn digests(cursor: &mut Cursor<'_>, count: usize) -> Option<Vec<bool>> {
    let defined = if cursor.u8()? != 0 { vec![true; count] } else { bits(cursor.take(count.div_ceil(8))?, count) };
    cursor.skip(defined.iter().filter(|is| **is).count() * 4)?;
    Some(defined)
}

fn bits(bytes: &[u8], count: usize) -> Vec<bool> {
    bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 != 0)).take(count).collect()
}

fn bounded(number: u64, max: usize) -> Option<usize> {
    usize::try_from(number).ok().filter(|number| *number <= max)
}

/// The leading ones of the first octet count the octets that follow, low ones first; its other bits are the highest.
fn number(cursor: &mut Cursor<'_>) -> Option<u64> {
    let first = cursor.u8()?;
    let more = first.leading_ones();
    let mut value = 0u64;
    for at in 0..more {
        value |= u64::from(cursor.u8()?) << (8 * at);
    }
    let high = u64::from(first) & (0x7f_u64 >> more);
    Some(if more < 8 { value | high << (8 * more) } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::names;

    fn archive(packed: &[u8], header: &[u8]) -> Vec<u8> {
        let offset = u64::try_from(packed.len()).unwrap().to_le_bytes();
        let size = u64::try_from(header.len()).unwrap().to_le_bytes();
        [MARK, &[0, 4, 0, 0, 0, 0], &offset, &size, &[0; 4], packed, header].concat()
    }

    fn wide(text: &str) -> Vec<u8> {
        text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
    }

    /// Streams of `packed` octets in one folder with `coder`, `files` of them.
    fn streams(packed: u8, coder: &[u8], unpacked: u8, files: u8) -> Vec<u8> {
        let mut out = vec![6, 0, 1, 9, packed, 0, 7, 0x0b, 1, 0, 1];
        out.extend_from_slice(coder);
        out.extend([0x0c, unpacked, 0, 8, 0x0d, files]);
        if files > 1 {
            out.push(9);
            out.extend(vec![1; usize::from(files) - 1]);
        }
        out.extend([0, 0]);
        out
    }

    fn header(streams: &[u8], files: &[&str]) -> Vec<u8> {
        let names: Vec<u8> = files.iter().flat_map(|name| wide(name)).collect();
        let size = u8::try_from(names.len() + 1).unwrap();
        [&[1, 4], streams, &[5, u8::try_from(files.len()).unwrap(), 0x11, size, 0], &names, &[0, 0]].concat()
    }

    #[test]
    fn names_and_the_first_content() {
        let data = archive(b"MZprogram", &header(&streams(9, &[1, 0], 9, 2), &["a\u{fc}.exe", "b.txt"]));
        let listing = list(&data, 10);
        assert_eq!(names(&listing), ["a\u{fc}.exe", "b.txt"]);
        assert_eq!(listing.entries[0].content, Some(Packed { method: Method::Stored, data: b"MZprogram" }));
        assert_eq!((&listing.entries[0].within, &listing.entries[1].within), (&Some(0..1), &Some(1..9)));
        assert!(listing.entries[1].content.is_some() && !listing.is_damaged);
        assert!(list(&data, 1).is_cut && list(&data[..data.len() - 4], 10).is_damaged);
    }

    #[test]
    fn encryption_is_told() {
        let coder = [&[4][..], AES].concat();
        let data = archive(b"?????????", &header(&streams(9, &coder, 9, 1), &["a.exe"]));
        let listing = list(&data, 10);
        assert!(listing.entries[0].is_encrypted && listing.entries[0].content.is_none());
        let packed = [&[0x17][..], &streams(9, &coder, 9, 1)].concat();
        assert!(list(&archive(b"?????????", &packed), 10).names_are_encrypted);
    }

    #[test]
    fn a_packed_header_is_unpacked() {
        let inner = header(&streams(3, &[1, 0], 3, 1), &["packed.js"]);
        let packed = crate::archive::zip::tests::deflated(&inner);
        let size = u8::try_from(packed.len()).unwrap();
        let outer = [&[0x17][..], &streams(size, &[3, 4, 1, 8], u8::try_from(inner.len()).unwrap(), 1)].concat();
        assert_eq!(names(&list(&archive(&packed, &outer), 10)), ["packed.js"]);
    }

    #[test]
    fn numbers() {
        for (bytes, expected) in [
            (&[0x7f][..], Some(127)),
            (&[0x81, 0x02], Some(0x102)),
            (&[0xc1, 2, 3], Some(0x0001_0302)),
            (&[0xff, 1, 2, 3, 4, 5, 6, 7, 8], Some(0x0807_0605_0403_0201)),
            (&[0x80], None),
        ] {
            assert_eq!(number(&mut Cursor::new(bytes)), expected);
        }
    }
}
