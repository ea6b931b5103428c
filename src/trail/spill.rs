//! What waits on the node's disk while the server is away: segments of records, written at the end, read from the front,
//! deleted whole. All calls block.
//!
//! A record is on disk when [`Spill::push`] returns. A torn one at the end of the last segment, from a crash, was never
//! promised. What is damaged elsewhere stays in its place, is passed over and counted as lost, with what cannot be read
//! for it. What was appended is remembered only in memory: after a crash whole segments are appended again, and the
//! server knows them.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
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
    /// The end of the record that [`Spill::next`] gave.
    given: Option<Place>,
    /// The last damage that was told.
    told: Option<Place>,
    /// Events in segments that were set aside when this was opened.
    pub(crate) lost: u64,
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

/// Why there is no batch.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NextError {
    /// Something at `offset` cannot be read and is left out from then on.
    #[error("{}: no whole record at {offset}, {events} events are lost", file.display())]
    Damaged { file: PathBuf, offset: u64, events: u64 },
    #[error(transparent)]
    Disk(#[from] EngineError),
}

impl Spill {
    /// A file that is no segment is renamed to `*.damaged`.
    ///
    /// # Errors
    /// Names the folder or file. One of a newer version is left alone and refused.
    pub(crate) fn open(folder: PathBuf, bytes_max: u64) -> Result<Self, EngineError> {
        std::fs::create_dir_all(&folder).map_err(|error| EngineError::from_io(&folder, error))?;
        let entries = std::fs::read_dir(&folder).map_err(|error| EngineError::from_io(&folder, error))?;
        let mut numbers: Vec<u64> = entries.filter_map(|entry| number_of(&entry.ok()?.path())).collect();
        numbers.sort_unstable();
        let last = numbers.last().copied();
        let (mut segments, mut lost) = (VecDeque::new(), 0);
        for number in numbers {
            let path = path_of(&folder, number);
            let failed = |error| EngineError::from_io(&path, error);
            let file = File::options().read(true).write(true).open(&path).map_err(failed)?;
            let mut bytes = file.metadata().map_err(failed)?.len();
            let is_last = last == Some(number);
            if is_last && bytes < MAGIC.len() as u64 {
                // It never began.
                std::fs::remove_file(&path).map_err(failed)?;
            } else if is_segment(&path, &file)? {
                if is_last {
                    bytes = cut_torn_end(&path, &file, bytes)?;
                }
                segments.push_back(Segment { number, file, bytes });
            } else {
                lost += set_aside(&path, &file, bytes)?;
            }
        }
        let settled = segments.front().map_or(Place { segment: 0, offset: 0 }, Segment::begin);
        let (next, given, told, appended) = (settled, None, None, VecDeque::new());
        Ok(Self { folder, bytes_max, segments, next, given, told, lost, settled, appended })
    }

    /// True if nothing waits to be appended.
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.iter().all(|segment| segment.rest(self.next).is_none())
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
    /// After damage the call can be made again; the same damage is told once.
    pub(crate) fn next(&mut self, now: Instant) -> Result<Option<Batch>, NextError> {
        loop {
            let rest = self.segments.iter().find_map(|segment| Some((segment, segment.rest(self.next)?)));
            let Some((segment, place)) = rest else { return Ok(None) };
            self.next = place;
            let path = path_of(&self.folder, segment.number);
            let failed = |error| EngineError::from_io(&path, error);
            let body = read_record(&segment.file, place.offset).map_err(failed)?.unwrap_or_default();
            if let Some(batch) = disk::read_body(&body) {
                self.given = Some(Place { offset: place.offset + (HEAD + body.len()) as u64, ..place });
                return Ok(Some(batch));
            }
            let damage = Damage::read(&segment.file, place.offset, segment.bytes).map_err(failed)?;
            self.next.offset = damage.end;
            self.appended.push_back((self.next, now));
            if self.told < Some(place) {
                self.told = Some(place);
                return Err(NextError::Damaged { file: path, offset: place.offset, events: damage.events });
            }
        }
    }

    /// The batch that [`Spill::next`] gave is appended.
    pub(crate) fn advance(&mut self, now: Instant) {
        if let Some(end) = self.given.take() {
            self.next = end;
            self.appended.push_back((end, now));
        }
    }

    /// The server may have forgotten what did not settle: it is appended again.
    pub(crate) fn rewind(&mut self) {
        self.next = self.settled;
        self.given = None;
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
    fn begin(&self) -> Place {
        Place { segment: self.number, offset: MAGIC.len() as u64 }
    }

    /// Where in this segment the next record after `place` begins, if one does.
    fn rest(&self, place: Place) -> Option<Place> {
        Some(place.max(self.begin())).filter(|place| *place < self.end())
    }

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

/// Bytes that are no record.
struct Damage {
    /// Where the next whole record begins, or the segment ends.
    end: u64,
    events: u64,
}

impl Damage {
    fn read(file: &File, from: u64, segment_end: u64) -> std::io::Result<Self> {
        let mut bytes = vec![0; usize::try_from(segment_end.saturating_sub(from)).unwrap_or(0)];
        // A file that became shorter leaves zeros, which are no record.
        read_whole(file, &mut bytes, from)?;
        let length = disk::find_record(&bytes).unwrap_or(bytes.len());
        bytes.truncate(length);
        Ok(Self { end: from + length as u64, events: disk::count_events(&bytes) })
    }
}

/// False if the file does not begin as a segment does.
fn is_segment(path: &Path, file: &File) -> Result<bool, EngineError> {
    let mut magic = [0; MAGIC.len()];
    let is_there = read_whole(file, &mut magic, 0).map_err(|error| EngineError::from_io(path, error))?;
    let (found, known) = (u32::from(magic[7]), u32::from(MAGIC[7]));
    if is_there && magic.starts_with(&MAGIC[..7]) && found > known {
        return Err(EngineError::TooNew { file: path.to_path_buf(), found, known });
    }
    Ok(is_there && magic == MAGIC)
}

/// Leaves the file to the operator, and gives the number of events that are lost.
fn set_aside(path: &Path, file: &File, bytes: u64) -> Result<u64, EngineError> {
    let failed = |error| EngineError::from_io(path, error);
    let mut content = vec![0; usize::try_from(bytes).unwrap_or(0)];
    read_whole(file, &mut content, 0).map_err(failed)?;
    let events = disk::count_events(&content);
    let aside = path.with_extension("damaged");
    std::fs::rename(path, &aside).map_err(failed)?;
    tracing::error!(event = event::TRAIL_DROPPED, file = %aside.display(), count = events, "not a segment of ours");
    Ok(events)
}

/// Cuts off what a crash left of a record at the end, and gives what is left. Damage before whole records is none of that.
fn cut_torn_end(path: &Path, file: &File, bytes: u64) -> Result<u64, EngineError> {
    let failed = |error| EngineError::from_io(path, error);
    let mut end = MAGIC.len() as u64;
    while end < bytes {
        if let Some(body) = read_record(file, end).map_err(failed)? {
            end += (HEAD + body.len()) as u64;
            continue;
        }
        let damage = Damage::read(file, end, bytes).map_err(failed)?;
        if damage.end == bytes {
            tracing::warn!(event = event::TRAIL_DROPPED, file = %path.display(), bytes = bytes - end, "torn record");
            file.set_len(end).map_err(failed)?;
            break;
        }
        end = damage.end;
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
