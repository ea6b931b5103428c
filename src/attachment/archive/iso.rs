//! ISO 9660 with Joliet names (ECMA-119): files with their content, which is never packed. UDF alone is not read.

use std::collections::VecDeque;

use super::{Entry, Listing, Packed};
use crate::bytes::{Cursor, to_size, unknown_text};
use crate::unpack::Method;

const SECTOR: usize = 2048;
/// Volume descriptors come from sector 16 on.
const DESCRIPTORS: std::ops::Range<usize> = 16..48;
const FOLDERS_MAX: usize = 2000;

/// Entries up to `max`.
pub fn list(data: &[u8], max: usize) -> Listing<'_> {
    let (mut plain, mut joliet) = (None, None);
    for sector in DESCRIPTORS {
        let Some(descriptor) = data.get(sector * SECTOR..(sector + 1) * SECTOR) else { break };
        if descriptor.get(1..6) != Some(b"CD001") {
            break;
        }
        let root = descriptor.get(156..190).and_then(Record::read);
        match descriptor.first() {
            Some(1) => plain = plain.or(root),
            Some(2) if matches!(descriptor.get(88..91), Some(b"%/@" | b"%/C" | b"%/E")) => joliet = joliet.or(root),
            Some(255) => break,
            _ => {}
        }
    }
    let mut listing = Listing::default();
    // Both trees name the same content; the wide one has the names that people see.
    let (root, is_wide) = match (joliet, plain) {
        (Some(root), _) => (root, true),
        (None, Some(root)) => (root, false),
        (None, None) => return Listing::damaged(),
    };
    let mut waiting = VecDeque::from([(root.start, root.size, String::new())]);
    let mut known = std::collections::BTreeSet::from([root.start]);
    while let Some((start, size, folder)) = waiting.pop_front() {
        let from = start.saturating_mul(SECTOR);
        let table = data.get(from..from.saturating_add(size).min(data.len())).unwrap_or_default();
        listing.is_damaged |= table.len() < size;
        for record in Records(Cursor::new(table)) {
            let Some(name) = record.name(is_wide) else { continue };
            let name = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            if record.is_folder {
                // A folder within itself would never end.
                if name.len() < 1000 && waiting.len() < FOLDERS_MAX && known.insert(record.start) {
                    waiting.push_back((record.start, record.size, name));
                }
                continue;
            }
            let from = record.start.saturating_mul(SECTOR);
            let content = data.get(from..from.saturating_add(record.size).min(data.len())).unwrap_or_default();
            let content = Some(Packed { method: Method::Stored, data: content });
            if !listing.push(Entry { name, content, ..Entry::default() }, max) {
                return listing;
            }
        }
    }
    listing
}

/// A directory record.
#[derive(Clone)]
struct Record<'a> {
    start: usize,
    size: usize,
    is_folder: bool,
    name: &'a [u8],
}

impl<'a> Record<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor::at(bytes, 2);
        let start = cursor.size()?;
        cursor.skip(4)?;
        let size = cursor.size()?;
        let flags = *bytes.get(25)?;
        let length = usize::from(*bytes.get(32)?);
        let name = bytes.get(33..33 + length)?;
        Some(Self { start, size, is_folder: flags & 2 != 0, name })
    }

    /// `None` for the records of a folder itself and the one above.
    fn name(&self, is_wide: bool) -> Option<String> {
        if matches!(self.name, [0 | 1] | []) {
            return None;
        }
        let name = if is_wide {
            let swapped: Vec<u8> = self.name.chunks_exact(2).flat_map(|unit| unit.iter().rev().copied()).collect();
            crate::bytes::utf16(&swapped)
        } else {
            unknown_text(self.name)
        };
        Some(name.split(';').next().unwrap_or_default().trim_end_matches('.').to_owned())
    }
}

/// The records of a folder; none crosses the end of a sector.
struct Records<'a>(Cursor<'a>);

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        loop {
            let length = usize::from(*self.0.rest().first()?);
            if length == 0 {
                let rest = SECTOR - self.0.position() % SECTOR;
                self.0.skip(rest)?;
                continue;
            }
            return Record::read(self.0.take(to_size(length))?);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::archive::names;

    fn record(start: u32, size: u32, folder: bool, name: &[u8]) -> Vec<u8> {
        let length = 33 + name.len();
        let mut out = vec![u8::try_from(length).unwrap(), 0];
        out.extend([start.to_le_bytes(), start.to_be_bytes(), size.to_le_bytes(), size.to_be_bytes()].concat());
        out.extend([0; 7]);
        out.extend([if folder { 2 } else { 0 }, 0, 0, 0, 0, 0, 0, u8::try_from(name.len()).unwrap()]);
        out.extend_from_slice(name);
        out
    }

    /// A disk with `setup.exe` and `D/A.TXT`.
    pub(crate) fn disk(joliet: bool) -> Vec<u8> {
        let wide = |name: &str| name.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
        let shown = |name: &str| if joliet { wide(name) } else { name.as_bytes().to_vec() };
        let mut sectors = vec![0; 16 * SECTOR];
        let mut add = |bytes: Vec<u8>| {
            let mut sector = bytes;
            sector.resize(SECTOR, 0);
            sectors.extend(sector);
        };
        let mut descriptor = vec![if joliet { 2 } else { 1 }];
        descriptor.extend(b"CD001\x01");
        descriptor.resize(156, 0);
        if joliet {
            descriptor[88..91].copy_from_slice(b"%/E");
        }
        descriptor.extend(record(18, 2048, true, &[0]));
        add(descriptor);
        add(b"\xffCD001\x01".to_vec());
        let root = [
            record(18, 2048, true, &[0]),
            record(18, 2048, true, &[1]),
            record(20, 4, false, &shown("setup.exe;1")),
            record(19, 2048, true, &shown("D")),
        ];
        add(root.concat());
        // The folder names itself once more.
        add([record(21, 5, false, &shown("A.TXT;1")), record(19, 2048, true, &shown("LOOP"))].concat());
        add(b"MZ\0\0".to_vec());
        add(b"hello".to_vec());
        sectors
    }

    #[test]
    fn both_kinds_of_names_are_walked() {
        for joliet in [true, false] {
            let data = disk(joliet);
            let listing = list(&data, 10);
            assert_eq!(names(&listing), ["setup.exe", "D/A.TXT"]);
            assert_eq!(listing.entries[1].content.unwrap().data, b"hello");
            assert!(list(&data, 1).is_cut);
        }
        assert!(list(&[0; 40_000], 10).is_damaged);
    }
}
