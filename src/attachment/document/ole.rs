//! Compound files (MS-CFB): old Office documents, encrypted new ones, MSI packages, Outlook items, embedded objects.

use super::{CHILDREN_BYTES_MAX, Look};
use crate::bytes::{Cursor, to_size, unknown_text, utf16};
use crate::report::Mark;

const HEADER: usize = 512;
const ENTRY: usize = 128;
/// Directory entries that are read: Outlook items have some hundreds.
const ENTRIES_MAX: usize = 20_000;
/// Sector numbers from here on are marks.
const LAST_SECTOR: u32 = 0xffff_fffa;
/// Records of a workbook that are read to find its sheets.
const RECORDS_MAX: usize = 100_000;

/// What is in a compound file.
pub fn look(data: &[u8]) -> Look<'static> {
    let mut look = Look::default();
    let Some(file) = File::read(data) else {
        look.mark(Mark::Damaged, "broken compound file");
        return look;
    };
    let entries = file.entries();
    let has = |name: &str| entries.iter().any(|entry| entry.name.eq_ignore_ascii_case(name));
    if has("_VBA_PROJECT") || has("VBA") || has("_VBA_PROJECT_CUR") {
        look.mark(Mark::Macro, "VBA project");
    }
    if has("EncryptedPackage") {
        look.mark(Mark::Encrypted, "document with a password");
    }
    if has("Equation Native") {
        look.mark(Mark::ActiveContent, "equation object");
    }
    // Classes of Windows Installer: package, transform, patch.
    let class = entries.iter().find(|entry| entry.kind == 5).map(|root| root.class);
    if let Some([0x82 | 0x84 | 0x86, 0x10, 0x0c, 0, 0, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0x46]) = class {
        look.mark(Mark::Executable, "Windows installer package");
    }
    let mut room = CHILDREN_BYTES_MAX;
    let mut read = |entry: &Entry, most: usize| {
        let stream = file.stream(entry, most.min(room));
        room = room.saturating_sub(stream.len());
        stream
    };
    for entry in entries.iter().filter(|entry| entry.kind == 2) {
        let name = entry.name.to_ascii_lowercase();
        match &*name {
            // FibBase: the bit for encryption (MS-DOC 2.5.2).
            "worddocument" if Cursor::at(&read(entry, 64), 10).u16().is_some_and(|flags| flags & 0x100 != 0) => {
                look.mark(Mark::Encrypted, "document with a password");
            }
            "workbook" | "book" => workbook(&read(entry, 4 * 1024 * 1024), &mut look),
            // HeaderToken of CurrentUserAtom (MS-PPT 2.3.2).
            "current user" if Cursor::at(&read(entry, 64), 12).u32() == Some(0xf3d1_c4df) => {
                look.mark(Mark::Encrypted, "document with a password");
            }
            "\u{1}ole10native" => {
                let stream = read(entry, usize::MAX);
                match native(stream.get(4..).unwrap_or_default()) {
                    Some((name, content)) => {
                        if !look.child(name, content.to_vec()) {
                            look.mark(Mark::TooMuch, "more files in a document than are looked at");
                            break;
                        }
                    }
                    None => look.mark(Mark::ActiveContent, "embedded object"),
                }
            }
            "__substg1.0_37010102" => {
                // Of an Outlook item's attachment; its names lie in the same storage.
                let beside = |wanted: &str| {
                    entries.iter().find(|other| other.parent == entry.parent && other.name.eq_ignore_ascii_case(wanted))
                };
                let wide = beside("__substg1.0_3707001F").or_else(|| beside("__substg1.0_3704001F"));
                let plain = beside("__substg1.0_3707001E").or_else(|| beside("__substg1.0_3704001E"));
                let name = match (wide, plain) {
                    (Some(name), _) => utf16(&read(name, 1024)),
                    (None, Some(name)) => unknown_text(&read(name, 1024)),
                    (None, None) => String::new(),
                };
                let content = read(entry, usize::MAX);
                if !look.child(name, content) {
                    look.mark(Mark::TooMuch, "more files in a document than are looked at");
                    break;
                }
            }
            _ => {}
        }
    }
    if room == 0 {
        look.mark(Mark::TooMuch, "more embedded content than is looked at");
    }
    look
}

/// Records of a workbook: a password, and sheets of the old macro language (MS-XLS 2.4.28, 2.4.117).
fn workbook(stream: &[u8], look: &mut Look<'_>) {
    let mut cursor = Cursor::new(stream);
    for _ in 0..RECORDS_MAX {
        let (Some(kind), Some(length)) = (cursor.u16(), cursor.u16()) else { return };
        let Some(record) = cursor.take(length.into()) else { return };
        match kind {
            0x2f => {
                look.mark(Mark::Encrypted, "document with a password");
                return;
            }
            0x85 if record.get(5) == Some(&1) => look.mark(Mark::Macro, "XLM macro sheet"),
            _ => {}
        }
    }
}

/// A packaged file: label, its path, a second path, and the content (the `Package` class of OLE 1).
pub(super) fn native(data: &[u8]) -> Option<(String, &[u8])> {
    let mut cursor = Cursor::at(data, 2);
    let label = unknown_text(cursor.until_nul());
    let path = unknown_text(cursor.until_nul());
    cursor.skip(4)?;
    let length = cursor.size()?;
    cursor.skip(length)?;
    let size = cursor.size()?;
    let rest = cursor.rest();
    let content = rest.get(..size).unwrap_or(rest);
    let name = path.rsplit(['\\', '/']).next().filter(|name| !name.is_empty()).map_or(label, str::to_owned);
    // Not a package where the lengths lead anywhere.
    (!name.is_empty() && !content.is_empty()).then_some((name, content))
}

struct Entry {
    name: String,
    /// 1 storage, 2 stream, 5 root.
    kind: u8,
    class: [u8; 16],
    start: u32,
    size: usize,
    left: u32,
    right: u32,
    child: u32,
    /// The storage that it lies in, by its place in the directory.
    parent: usize,
}

struct File<'a> {
    data: &'a [u8],
    /// As a power of two.
    sector_shift: u32,
    mini_shift: u32,
    /// Streams below this size lie in the root's stream.
    mini_below: usize,
    directory: u32,
    table: Vec<u32>,
    mini_table: Vec<u32>,
    /// The root's stream.
    mini_store: Vec<u8>,
}

impl<'a> File<'a> {
    fn read(data: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor::at(data, 30);
        let (sector_shift, mini_shift) = (u32::from(cursor.u16()?), u32::from(cursor.u16()?));
        if !(7..=20).contains(&sector_shift) || !(4..=12).contains(&mini_shift) {
            return None;
        }
        let mut cursor = Cursor::at(data, 48);
        let directory = cursor.u32()?;
        cursor.skip(4)?;
        let mini_below = cursor.size()?.min(1 << 20);
        let (mini_start, _) = (cursor.u32()?, cursor.u32()?);
        let (more, _) = (cursor.u32()?, cursor.u32()?);
        let mut file = File {
            data,
            sector_shift,
            mini_shift,
            mini_below,
            directory,
            table: Vec::new(),
            mini_table: Vec::new(),
            mini_store: Vec::new(),
        };
        let sectors_max = (data.len() >> sector_shift) + 1;
        let mut table_sectors: Vec<u32> = (0..109).map_while(|_| cursor.u32()).collect();
        // Further places of the table, each sector ending with the number of the next.
        let mut next = more;
        for _ in 0..sectors_max {
            if next >= LAST_SECTOR || table_sectors.len() > sectors_max {
                break;
            }
            let numbers = numbers(file.sector(next));
            let Some((last, places)) = numbers.split_last() else { break };
            table_sectors.extend(places);
            next = *last;
        }
        for sector in table_sectors.into_iter().filter(|sector| *sector < LAST_SECTOR).take(sectors_max) {
            file.table.extend(numbers(file.sector(sector)));
            if file.table.len() > sectors_max {
                break;
            }
        }
        let mini = file.chain(mini_start, usize::MAX);
        file.mini_table = numbers(&mini);
        if let Some(root) = file.chain(directory, ENTRY).chunks_exact(ENTRY).next().and_then(Entry::read) {
            file.mini_store = file.chain(root.start, usize::MAX);
        }
        Some(file)
    }

    fn sector(&self, number: u32) -> &'a [u8] {
        let size = 1usize << self.sector_shift;
        // The header takes one sector, whatever its size.
        let from = (to_size(number) + 1).saturating_mul(size).max(HEADER);
        self.data.get(from..from.saturating_add(size).min(self.data.len())).unwrap_or_default()
    }

    /// The octets of a chain of sectors, `most` of them. It ends where it would be longer than the file.
    fn chain(&self, start: u32, most: usize) -> Vec<u8> {
        let most = most.min(self.data.len());
        let mut out = Vec::new();
        let mut at = start;
        while at < LAST_SECTOR && out.len() < most {
            let sector = self.sector(at);
            if sector.is_empty() {
                break;
            }
            out.extend_from_slice(sector);
            at = self.table.get(to_size(at)).copied().unwrap_or(u32::MAX);
        }
        out.truncate(most);
        out
    }

    fn entries(&self) -> Vec<Entry> {
        let table = self.chain(self.directory, ENTRIES_MAX * ENTRY);
        let mut entries: Vec<Entry> = table.chunks_exact(ENTRY).filter_map(Entry::read).collect();
        // Storages hold trees of entries. Each is visited once, whatever loops are in them.
        let mut seen = vec![false; entries.len()];
        let mut waiting: Vec<(u32, usize)> = Vec::new();
        for at in 0..entries.len() {
            if let Some(entry) = entries.get(at).filter(|entry| matches!(entry.kind, 1 | 5)) {
                waiting.push((entry.child, at));
            }
            while let Some((child, parent)) = waiting.pop() {
                let place = to_size(child);
                let (Some(entry), Some(seen)) = (entries.get_mut(place), seen.get_mut(place)) else { continue };
                if std::mem::replace(seen, true) {
                    continue;
                }
                entry.parent = parent;
                waiting.extend([(entry.left, parent), (entry.right, parent)]);
            }
        }
        entries
    }

    fn stream(&self, entry: &Entry, most: usize) -> Vec<u8> {
        let most = most.min(entry.size);
        if entry.size >= self.mini_below {
            return self.chain(entry.start, most);
        }
        let store = &self.mini_store;
        let size = 1usize << self.mini_shift;
        let mut out = Vec::new();
        let mut at = entry.start;
        while at < LAST_SECTOR && out.len() < most {
            let from = to_size(at).saturating_mul(size);
            let Some(piece) = store.get(from..from.saturating_add(size).min(store.len())) else { break };
            if piece.is_empty() {
                break;
            }
            out.extend_from_slice(piece);
            at = self.mini_table.get(to_size(at)).copied().unwrap_or(u32::MAX);
        }
        out.truncate(most);
        out
    }
}

impl Entry {
    fn read(bytes: &[u8]) -> Option<Self> {
        let length = usize::from(Cursor::at(bytes, 64).u16()?).min(64);
        let name = utf16(bytes.get(..length.saturating_sub(2))?);
        let kind = *bytes.get(66)?;
        let mut cursor = Cursor::at(bytes, 68);
        let (left, right, child) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
        let class = cursor.take(16)?.try_into().ok()?;
        let mut cursor = Cursor::at(bytes, 116);
        let (start, size) = (cursor.u32()?, cursor.size()?);
        Some(Self { name, kind, class, start, size, left, right, child, parent: usize::MAX })
    }
}

fn numbers(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).filter_map(|bytes| bytes.try_into().ok().map(u32::from_le_bytes)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A file of 512-octet sectors: table, directory of up to 4 entries a sector, then each stream.
    pub(crate) fn write(streams: &[(&str, &[u8])], class: [u8; 16]) -> Vec<u8> {
        let sectors = |length: usize| u32::try_from(length.div_ceil(512)).unwrap();
        let directory_sectors = sectors((streams.len() + 1) * 128);
        let mut table = vec![0xffff_fffd_u32];
        let chain = |table: &mut Vec<u32>, count: u32| {
            let start = u32::try_from(table.len()).unwrap();
            (1..count).for_each(|at| table.push(start + at));
            table.push(0xffff_fffe);
            start
        };
        let directory_start = chain(&mut table, directory_sectors);
        let entry = |name: &str, kind: u8, child: u32, right: u32, start: u32, size: usize, class: [u8; 16]| {
            let mut out: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let length = u16::try_from(out.len() + 2).unwrap();
            out.resize(64, 0);
            out.extend(length.to_le_bytes());
            out.extend([kind, 1]);
            out.extend([u32::MAX.to_le_bytes(), right.to_le_bytes(), child.to_le_bytes()].concat());
            out.extend(class);
            out.resize(116, 0);
            out.extend([start.to_le_bytes(), u32::try_from(size).unwrap().to_le_bytes()].concat());
            out.resize(128, 0);
            out
        };
        let mut directory = entry("Root Entry", 5, 1, u32::MAX, 0xffff_fffe, 0, class);
        let mut content = Vec::new();
        for (at, (name, stream)) in streams.iter().enumerate() {
            let start = chain(&mut table, sectors(stream.len().max(1)));
            let last = at + 1 == streams.len();
            let right = if last { u32::MAX } else { u32::try_from(at + 2).unwrap() };
            let kind = if *name == "VBA" { 1 } else { 2 };
            directory.extend(entry(name, kind, u32::MAX, right, start, stream.len(), [0; 16]));
            content.extend_from_slice(stream);
            content.resize(content.len().next_multiple_of(512).max(content.len()), 0);
        }
        assert!(table.len() <= 128);
        table.resize(128, u32::MAX);
        directory.resize(directory.len().next_multiple_of(512), 0);
        let mut out = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".to_vec();
        out.resize(24, 0);
        out.extend([0x3e, 0, 3, 0, 0xfe, 0xff, 9, 0, 6, 0]);
        out.resize(44, 0);
        // No stream is a mini stream here.
        out.extend([1, directory_start, 0, 0, u32::MAX, 0, u32::MAX, 0, 0].into_iter().flat_map(u32::to_le_bytes));
        out.resize(512, 0xff);
        out.extend(table.into_iter().flat_map(u32::to_le_bytes));
        out.extend(directory);
        out.extend(content);
        out
    }

    fn marks(streams: &[(&str, &[u8])]) -> Vec<&'static str> {
        look(&write(streams, [0; 16])).marks.into_iter().map(|(_, what)| what).collect()
    }

    #[test]
    fn macros_and_passwords() {
        assert_eq!(marks(&[("WordDocument", &[0; 600]), ("VBA", b"")]), ["VBA project"]);
        let mut locked = [0; 64];
        locked[11] = 1;
        assert_eq!(marks(&[("WordDocument", &locked)]), ["document with a password"]);
        assert_eq!(marks(&[("EncryptedPackage", b"x")]), ["document with a password"]);
        let sheet = b"\x09\x08\x04\0....\x85\0\x08\0\0\0\0\0\0\x01\x01a";
        assert_eq!(marks(&[("Workbook", sheet)]), ["XLM macro sheet"]);
        assert_eq!(marks(&[("Workbook", b"\x09\x08\x00\0\x2f\0\x02\0ab")]), ["document with a password"]);
        assert_eq!(marks(&[("WordDocument", &[0; 600])]), [""; 0]);
        assert_eq!(look(b"\xd0\xcf\x11\xe0").marks, [(Mark::Damaged, "broken compound file")]);
    }

    #[test]
    fn installers_and_packaged_files() {
        let class = [0x84, 0x10, 0x0c, 0, 0, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0x46];
        assert_eq!(look(&write(&[], class)).marks, [(Mark::Executable, "Windows installer package")]);
        let package = b"\0\0\0\0\x02\0label\0C:\\tmp\\run.exe\0\0\0\x03\0\x02\0\0\0x\0\x04\0\0\0MZ\x90\0";
        let look = look(&write(&[("\u{1}Ole10Native", package)], [0; 16]));
        assert_eq!((&*look.children[0].name, &*look.children[0].content), ("run.exe", &b"MZ\x90\0"[..]));
    }

    #[test]
    fn outlook_items_give_their_attachments() {
        let name: Vec<u8> = "scan.pdf.exe".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let data = write(&[("__substg1.0_3707001F", &name), ("__substg1.0_37010102", b"MZ")], [0; 16]);
        let look = look(&data);
        assert_eq!((&*look.children[0].name, &*look.children[0].content), ("scan.pdf.exe", &b"MZ"[..]));
    }
}
