//! Segment files: making, finding and opening them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use base::BlobId;
use engine::{EngineError, Waypoints};

use super::record::{self, BadRecord, Head, Locator};

/// Before the first record: magic, version, number, size, check.
pub(super) const SEGMENT_HEAD: u64 = 64;
const MAGIC: &[u8; 8] = b"OrtlerSg";
const VERSION: u32 = 1;
const ZEROS: usize = 1024 * 1024;

/// Segments from this number on hold one large blob each; they are whole when they get their name and never change.
pub(super) const LARGE: u32 = 1 << 31;

pub(super) fn path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{}.seg", stem(number)))
}

fn stem(number: u32) -> String {
    match number.checked_sub(LARGE) {
        Some(large) => format!("L{large:06}"),
        None => format!("{number:06}"),
    }
}

fn number_of(stem: &str) -> Option<u32> {
    match stem.strip_prefix('L') {
        Some(large) => large.parse().ok().filter(|number| *number < LARGE).map(|number: u32| number + LARGE),
        None => stem.parse().ok().filter(|number| *number < LARGE),
    }
}

/// Numbers of the segments in `folder`, rising. Removes what a crash left of one that was being made.
pub(super) fn list_and_tidy(folder: &Path) -> Result<Vec<u32>, EngineError> {
    let failed = |error| EngineError::from_io(folder, error);
    for item in std::fs::read_dir(folder).map_err(failed)? {
        let file = item.map_err(failed)?.path();
        if file.extension().is_some_and(|kind| kind == "new") {
            std::fs::remove_file(&file).map_err(failed)?;
        }
    }
    list(folder)
}

/// Numbers of the segments in `folder`, rising.
pub(super) fn list(folder: &Path) -> Result<Vec<u32>, EngineError> {
    let failed = |error| EngineError::from_io(folder, error);
    let mut numbers = Vec::new();
    for item in std::fs::read_dir(folder).map_err(failed)? {
        let file = item.map_err(failed)?.path();
        if file.extension().is_some_and(|kind| kind == "seg") {
            let number = file.file_stem().and_then(|stem| stem.to_str()).and_then(number_of);
            numbers.push(number.ok_or_else(|| damaged(&file, "its name is not a number"))?);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Opens a segment after a look at its head; gives its size.
pub(super) fn open(folder: &Path, number: u32) -> Result<(File, u64), EngineError> {
    let path = path(folder, number);
    let failed = |error| EngineError::from_io(&path, error);
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
    let mut found = [0u8; SEGMENT_HEAD as usize];
    let length = file.metadata().map_err(failed)?.len();
    if length < SEGMENT_HEAD {
        return Err(damaged(&path, "too short for a segment"));
    }
    file.read_exact_at(&mut found, 0).map_err(failed)?;
    if !found.starts_with(MAGIC) {
        return Err(damaged(&path, "it is not a segment file"));
    }
    let version = u32::from_le_bytes([found[8], found[9], found[10], found[11]]);
    if version > VERSION {
        return Err(EngineError::TooNew { file: path, found: version, known: VERSION });
    }
    if found != head(number, length) {
        return Err(damaged(&path, "its head does not match its name, length or checksum"));
    }
    Ok((file, length))
}

/// Where a segment grows before it gets its name. The next start removes what a crash leaves there.
pub(super) fn unfinished(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{}.new", stem(number)))
}

/// Writes the head of a segment that is whole otherwise, and gives it its name, all on disk.
pub(super) fn complete(folder: &Path, number: u32, file: &File, size: u64, waypoints: Waypoints) -> io::Result<()> {
    file.write_all_at(&head(number, size), 0)?;
    file.sync_all()?;
    waypoints.pass("large.filled");
    std::fs::rename(unfinished(folder, number), path(folder, number))?;
    waypoints.pass("large.named");
    sync_folder(folder)
}

/// Makes a segment, zero-filled and on disk with its name. Leaves nothing behind if it fails.
pub(super) fn make(folder: &Path, number: u32, size: u64, waypoints: Waypoints) -> Result<File, EngineError> {
    let unfinished = unfinished(folder, number);
    let finished = path(folder, number);
    waypoints.pass("segment.make");
    let made = room_for(folder, size).and_then(|()| fill(&unfinished, number, size)).and_then(|file| {
        waypoints.pass("segment.filled");
        std::fs::rename(&unfinished, &finished)?;
        waypoints.pass("segment.named");
        sync_folder(folder)?;
        waypoints.pass("segment.made");
        Ok(file)
    });
    made.map_err(|error| {
        // What is left of it is removed at the next start otherwise.
        let _ = std::fs::remove_file(&unfinished);
        EngineError::from_io(&finished, error)
    })
}

/// Looks before writing, so that a full disk is not filled to the last byte again and again.
fn room_for(folder: &Path, size: u64) -> io::Result<()> {
    let facts = nix::sys::statvfs::statvfs(folder)?;
    let free = facts.blocks_available().saturating_mul(facts.fragment_size());
    // A quarter more is left for the tables that go with the content.
    if free < size + size / 4 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

fn fill(path: &Path, number: u32, size: u64) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    file.write_all(&head(number, size))?;
    let zeros = vec![0u8; ZEROS];
    let mut left = usize::try_from(size - SEGMENT_HEAD).map_err(|_| io::ErrorKind::FileTooLarge)?;
    while left > 0 {
        let step = left.min(ZEROS);
        file.write_all(&zeros[..step])?;
        left -= step;
    }
    file.sync_all()?;
    Ok(file)
}

/// Overwrites records, their heads at last: a record whose head is there is not done.
pub(super) fn overwrite(path: &Path, records: &[(BlobId, Locator)], waypoints: Waypoints) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut heads = Vec::new();
    for (blob, place) in records {
        let (at, mut head) = (u64::from(place.offset), [0; record::HEAD]);
        match file.read_exact_at(&mut head, at) {
            Ok(()) if record::begins(&head, *blob, place.length) => {}
            // Done, or another's.
            Ok(()) => continue,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
            Err(error) => return Err(error),
        }
        let blank = record::blank(place.length).unwrap_or_else(|| vec![0; place.length as usize]);
        let (head, rest) = blank.split_at(record::HEAD.min(blank.len()));
        file.write_all_at(rest, at + head.len() as u64)?;
        heads.push((at, head.to_vec()));
    }
    file.sync_data()?;
    waypoints.pass("erase.emptied");
    for (at, head) in heads {
        file.write_all_at(&head, at)?;
    }
    file.sync_data()
}

pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn head(number: u32, size: u64) -> [u8; SEGMENT_HEAD as usize] {
    let mut out = [0u8; SEGMENT_HEAD as usize];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[12..16].copy_from_slice(&number.to_le_bytes());
    out[16..24].copy_from_slice(&size.to_le_bytes());
    let check = blake3::hash(&out[..24]);
    out[24..32].copy_from_slice(&check.as_bytes()[..8]);
    out
}

pub(super) fn damaged(file: &Path, reason: &str) -> EngineError {
    EngineError::Damaged { file: file.to_path_buf(), reason: reason.to_owned() }
}

/// The end of the last whole record at or after `from`, where the first one would begin.
pub(super) fn end_of_records(file: &File, from: u64, size: u64) -> u64 {
    let mut end = from;
    while let Some(length) = whole_record_at(file, end, size) {
        end += length;
    }
    end
}

/// Length of the record at `at` if it is whole.
fn whole_record_at(file: &File, at: u64, size: u64) -> Option<u64> {
    let head = read_head(file, at, size.checked_sub(at)?).ok()?;
    let fetch = |stored: Range<usize>, out: &mut Vec<u8>| {
        out.resize(stored.len(), 0);
        Ok::<_, ReadError>(file.read_exact_at(out, at + stored.start as u64)?)
    };
    head.verify(false, fetch).ok()?;
    Some(u64::from(head.length))
}

/// The head and frame table of the record at `at`, which is at most `length_max` long.
pub(super) fn read_head(file: &File, at: u64, length_max: u64) -> Result<Head, ReadError> {
    let mut start = [0; record::HEAD];
    file.read_exact_at(&mut start, at)?;
    let place = record::table_of(&start)?;
    if place.end as u64 > length_max {
        return Err(BadRecord::Head.into());
    }
    let mut table = vec![0; place.len()];
    file.read_exact_at(&mut table, at + place.start as u64)?;
    let head = Head::parse(&start, &table)?;
    if u64::from(head.length) > length_max { Err(BadRecord::Head.into()) } else { Ok(head) }
}

/// Why a record could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    Io(io::Error),
    Bad(BadRecord),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<BadRecord> for ReadError {
    fn from(error: BadRecord) -> Self {
        Self::Bad(error)
    }
}

/// Overwrites what a crash left after `end`, so that it can never be taken for a record. True if there was something.
pub(super) fn clear_from(file: &File, end: u64, size: u64) -> io::Result<bool> {
    let (mut buffer, zeros) = (vec![0u8; ZEROS], vec![0u8; ZEROS]);
    let (mut at, mut found) = (end, false);
    while at < size {
        let step = usize::try_from(size - at).unwrap_or(ZEROS).min(ZEROS);
        file.read_exact_at(&mut buffer[..step], at)?;
        if buffer[..step] != zeros[..step] {
            file.write_all_at(&zeros[..step], at)?;
            found = true;
        }
        at += step as u64;
    }
    if found {
        file.sync_data()?;
    }
    Ok(found)
}
