//! What waits on the node's disk while the server is away: segments of records, written at the end, read from the front,
//! deleted whole. All calls block.
//!
//! A record is on disk when [`Spill::push`] returns. A torn one at the end, from a crash, was never promised. What was
//! appended is remembered only in memory: after a crash whole segments are appended again, and the server knows them.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base::event;
use engine::EngineError;

use crate::disk::{self, HEAD, MAGIC};
use crate::store::Batch;

/// A new segment begins past this.
const SEGMENT_BYTES: u64 = 8 << 20;

pub(crate) struct Spill {
    folder: PathBuf,
    bytes_max: u64,
    /// Oldest first; the last one is written to.
    segments: VecDeque<Segment>,
    /// Where the next record to append lies.
    next: Place,
    /// Everything before is appended and will not be forgotten.
    settled: Place,
    /// Ends of appended records, and when they were appended.
    appended: VecDeque<(Place, Instant)>,
}

struct Segment {
    number: u64,
    file: File,
    bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Place {
    segment: u64,
    offset: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SpillError {
    #[error("what waits for the server has reached its limit")]
    Full,
    #[error(transparent)]
    Disk(#[from] EngineError),
}

impl Spill {
    /// # Errors
    /// Names the folder or file. One of a newer version is left alone and refused.
    pub(crate) fn open(folder: PathBuf, bytes_max: u64) -> Result<Self, EngineError> {
        std::fs::create_dir_all(&folder).map_err(|error| EngineError::from_io(&folder, error))?;
        let entries = std::fs::read_dir(&folder).map_err(|error| EngineError::from_io(&folder, error))?;
        let mut numbers: Vec<u64> = entries.filter_map(|entry| number_of(&entry.ok()?.path())).collect();
        numbers.sort_unstable();
        let mut segments = VecDeque::new();
        for number in numbers {
            let path = path_of(&folder, number);
            let failed = |error| EngineError::from_io(&path, error);
            let file = File::options().read(true).write(true).open(&path).map_err(failed)?;
            let bytes = whole_bytes(&path, &file)?;
            if bytes == 0 {
                std::fs::remove_file(&path).map_err(failed)?;
                continue;
            }
            let torn = file.metadata().map_err(failed)?.len().saturating_sub(bytes);
            if torn > 0 {
                tracing::warn!(event = event::TRAIL_DROPPED, file = %path.display(), bytes = torn, "torn record");
                file.set_len(bytes).map_err(failed)?;
            }
            segments.push_back(Segment { number, file, bytes });
        }
        let first = segments.front().map_or(0, |segment| segment.number);
        let settled = Place { segment: first, offset: MAGIC.len() as u64 };
        Ok(Self { folder, bytes_max, segments, next: settled, settled, appended: VecDeque::new() })
    }

    /// True if nothing waits to be appended.
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.iter().all(|segment| self.next >= segment.end())
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Puts a batch behind all others; on disk on return.
    pub(crate) fn push(&mut self, batch: &Batch) -> Result<(), SpillError> {
        let record = disk::write(batch).ok_or(SpillError::Full)?;
        let more = record.len() as u64;
        if self.bytes().saturating_add(more) > self.bytes_max {
            return Err(SpillError::Full);
        }
        if self.segments.back().is_none_or(|last| last.bytes.saturating_add(more) > SEGMENT_BYTES) {
            self.begin_segment()?;
        }
        let Some(last) = self.segments.back_mut() else { return Err(SpillError::Full) };
        let written = last.file.write_all_at(&record, last.bytes).and_then(|()| last.file.sync_data());
        if let Err(error) = written {
            // What got there is cut off, else a later record would lie behind rubbish.
            let _ = last.file.set_len(last.bytes);
            return Err(EngineError::from_io(&path_of(&self.folder, last.number), error).into());
        }
        last.bytes += more;
        Ok(())
    }

    fn begin_segment(&mut self) -> Result<(), EngineError> {
        let number = self.segments.back().map_or(self.next.segment, |last| last.number) + 1;
        let path = path_of(&self.folder, number);
        let failed = |error| EngineError::from_io(&path, error);
        let mut file =
            File::options().read(true).write(true).create(true).truncate(true).open(&path).map_err(failed)?;
        file.write_all(&MAGIC).and_then(|()| file.sync_data()).map_err(failed)?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        self.segments.push_back(Segment { number, file, bytes: MAGIC.len() as u64 });
        Ok(())
    }

    /// The next batch to append, or `None`.
    ///
    /// # Errors
    /// [`EngineError::Damaged`] names a place that is left out from then on: the call can be made again.
    pub(crate) fn next(&mut self, now: Instant) -> Result<Option<Batch>, EngineError> {
        let Some(segment) = self.segments.iter().find(|segment| self.next < segment.end()) else { return Ok(None) };
        let offset = match self.next.segment == segment.number {
            true => self.next.offset,
            false => MAGIC.len() as u64,
        };
        self.next = Place { segment: segment.number, offset };
        let path = path_of(&self.folder, segment.number);
        let body = read_record(&segment.file, offset).map_err(|error| EngineError::from_io(&path, error))?;
        if let Some(batch) = body.as_deref().and_then(disk::read_body) {
            return Ok(Some(batch));
        }
        let (place, what) = match &body {
            Some(body) => (Place { offset: offset + (HEAD + body.len()) as u64, ..self.next }, "it is"),
            None => (segment.end(), "what follows is"),
        };
        self.next = place;
        self.appended.push_back((place, now));
        Err(EngineError::Damaged { file: path, reason: format!("no batch at {offset}; {what} left out") })
    }

    /// The batch that [`Spill::next`] gave is appended.
    pub(crate) fn advance(&mut self, now: Instant) -> Result<(), EngineError> {
        let Some(segment) = self.segments.iter().find(|segment| segment.number == self.next.segment) else {
            return Ok(());
        };
        let path = path_of(&self.folder, segment.number);
        let body = read_record(&segment.file, self.next.offset).map_err(|error| EngineError::from_io(&path, error))?;
        let length = body.map_or(0, |body| HEAD + body.len());
        self.next.offset += length as u64;
        self.appended.push_back((self.next, now));
        Ok(())
    }

    /// The server may have forgotten what did not settle: it is appended again.
    pub(crate) fn rewind(&mut self) {
        self.next = self.settled;
        self.appended.clear();
    }

    /// Deletes segments of which everything was appended at least `settles` ago.
    pub(crate) fn settle(&mut self, now: Instant, settles: Duration) {
        while let Some((place, at)) = self.appended.front().copied()
            && now.saturating_duration_since(at) >= settles
        {
            self.settled = place;
            self.appended.pop_front();
        }
        while let Some(oldest) = self.segments.front()
            && self.settled >= oldest.end()
        {
            // One that stays is appended again by the next run, and known.
            let _ = std::fs::remove_file(path_of(&self.folder, oldest.number));
            self.segments.pop_front();
        }
    }
}

impl Segment {
    fn end(&self) -> Place {
        Place { segment: self.number, offset: self.bytes }
    }
}

/// The body of the record at `offset`; `None` if there is no whole one.
fn read_record(file: &File, offset: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut head = [0; HEAD];
    if !read_whole(file, &mut head, offset)? {
        return Ok(None);
    }
    let Some((length, digest)) = disk::read_head(head) else { return Ok(None) };
    let mut body = vec![0; usize::try_from(length).unwrap_or(0)];
    let is_whole = read_whole(file, &mut body, offset + HEAD as u64)?;
    Ok(Some(body).filter(|body| is_whole && disk::check(body) == digest))
}

/// False if the file ends before.
fn read_whole(file: &File, out: &mut [u8], offset: u64) -> std::io::Result<bool> {
    match file.read_exact_at(out, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Bytes up to the end of the last whole record; 0 for a segment that never began.
fn whole_bytes(path: &Path, mut file: &File) -> Result<u64, EngineError> {
    let failed = |error| EngineError::from_io(path, error);
    let mut magic = [0; MAGIC.len()];
    match file.read_exact(&mut magic) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(0),
        Err(error) => return Err(failed(error)),
    }
    if magic != MAGIC {
        let (found, known) = (u32::from(magic[7]), u32::from(MAGIC[7]));
        return Err(match magic.starts_with(&MAGIC[..7]) && found > known {
            true => EngineError::TooNew { file: path.to_path_buf(), found, known },
            false => EngineError::Damaged { file: path.to_path_buf(), reason: "not a segment of ours".to_owned() },
        });
    }
    let mut end = MAGIC.len() as u64;
    while let Some(body) = read_record(file, end).map_err(failed)? {
        end += (HEAD + body.len()) as u64;
    }
    Ok(end)
}

fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:010}.spill"))
}

fn number_of(path: &Path) -> Option<u64> {
    let is_segment = path.extension().is_some_and(|extension| extension == "spill");
    path.file_stem()?.to_str()?.parse().ok().filter(|_| is_segment)
}
