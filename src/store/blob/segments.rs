//! [`BlobStore`] on segment files.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;

use async_trait::async_trait;
use base::{BlobId, ByteSize, Clock, IdSource, UtcMillis};
use bytes::Bytes;
use engine::{EngineError, Waypoints};
use moka::sync::Cache;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::file::{self, LARGE, ReadError, SEGMENT_HEAD};
use super::large::LARGE_MIN;
use super::record::{self, BadRecord, Contexts, Head, Locator, Record};
use super::writer::{Active, Next, Put, Writer};
use crate::damage::Damages;
use crate::error::StoreError;
use crate::model::StoredBlob;
use crate::room::Room;
use crate::traits::{BlobIndex, BlobStore};

/// Bounds of a [`SegmentStore`].
#[derive(Clone, Copy, Debug)]
pub struct SegmentSettings {
    /// Size of a full-grown segment file; at most 2 GiB. A longer message gets a file of its own.
    pub segment_size: u64,
    /// Memory that messages on their way to disk may take together; beyond, callers wait.
    pub waiting_bytes_max: u64,
    /// New content is refused while less than this, or a twentieth of the file system if that is less, is free.
    pub free_space_min: ByteSize,
    /// Places of blobs kept in memory (about 150 octets each).
    pub places_kept: u64,
    /// Who watches writes: nobody but crash tests.
    pub waypoints: Waypoints,
}

impl Default for SegmentSettings {
    fn default() -> Self {
        Self {
            segment_size: 64 << 20,
            waiting_bytes_max: 256 << 20,
            free_space_min: ByteSize(0),
            places_kept: 100_000,
            waypoints: Waypoints::default(),
        }
    }
}

/// Blobs in `dir/blobs/NNNNNN.seg`. Which blob lies where is the [`BlobIndex`]'s to know.
pub struct SegmentStore {
    pub(super) folder: PathBuf,
    index: Arc<dyn BlobIndex>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ids: Arc<IdSource>,
    pub(super) contexts: Arc<Contexts>,
    puts: Option<mpsc::Sender<Put>>,
    writer: Option<JoinHandle<()>>,
    shares: Arc<Semaphore>,
    shares_max: u32,
    places: Cache<BlobId, StoredBlob>,
    files: Cache<u32, Arc<File>>,
    active_number: Arc<AtomicU32>,
    pub(super) newest_large: Arc<AtomicU32>,
    damages: Damages,
    room: Arc<Room>,
    is_writable: AtomicBool,
    pub(super) waypoints: Waypoints,
}

/// A segment as garbage collection sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentInfo {
    pub number: u32,
    pub size_bytes: u64,
    /// When it was last written to.
    pub written_at: UtcMillis,
}

/// Writers that may wait; the bytes they may hold are bounded apart.
const PUTS_MAX: usize = 1024;
/// What a share of the waiting memory stands for.
const SHARE: u64 = 1024;
/// Segment files kept open for reading.
const FILES_OPEN: u64 = 256;
/// Content up to this size is packed by the caller's task; more goes to a thread that may be busy for long.
const PACK_INLINE_MAX: usize = 32 * 1024;
/// What a read fetches first: most records lie in it whole.
const FIRST_READ: usize = 64 * 1024;

impl SegmentStore {
    /// Opens or creates the segments in `dir/blobs`. Blocks.
    ///
    /// # Errors
    /// Names the file that is damaged, of a newer format or cannot be opened.
    pub fn open(
        dir: &Path,
        settings: SegmentSettings,
        index: Arc<dyn BlobIndex>,
        clock: Arc<dyn Clock>,
        ids: Arc<IdSource>,
    ) -> Result<Arc<Self>, StoreError> {
        let folder = dir.join("blobs");
        std::fs::create_dir_all(&folder).map_err(|error| EngineError::from_io(&folder, error))?;
        file::sync_folder(dir).map_err(|error| EngineError::from_io(dir, error))?;
        let (large, numbers): (Vec<u32>, Vec<u32>) =
            file::list_and_tidy(&folder)?.into_iter().partition(|number| *number >= LARGE);
        for number in &numbers {
            let opened = file::open(&folder, *number).map(drop);
            // Its records stand for themselves; the auditor names it.
            if let Err(EngineError::Damaged { file, reason }) = &opened {
                tracing::error!(event = base::event::STORE_DAMAGED, file = %file.display(), %reason);
            } else {
                opened?;
            }
        }
        let referred = last_referred(&*index, LARGE)?;
        settings.waypoints.pass("open.tidied");
        let active = find_active(&folder, &numbers, referred)?;
        settings.waypoints.pass("open.cleared");
        let newest = numbers.last().copied().unwrap_or(0).max(referred.map_or(0, |last| last.segment));
        // Of large blobs: numbers that entries still name are not given again, though their file be lost.
        let referred = last_referred(&*index, u32::MAX)?.map_or(LARGE, |last| last.segment);
        let newest_large = large.last().copied().unwrap_or(LARGE).max(referred);
        let active_number = Arc::new(AtomicU32::new(active.as_ref().map_or(newest + 1, |active| active.number)));
        let writer = Writer {
            folder: folder.clone(),
            segment_size: settings.segment_size.clamp(64 * 1024, 2 << 30),
            active,
            next: Next::NotYet,
            newest: Arc::new(AtomicU32::new(newest)),
            active_number: Arc::clone(&active_number),
            waypoints: settings.waypoints,
        };
        let (puts, inbox) = mpsc::channel(PUTS_MAX);
        let writer = std::thread::Builder::new()
            .name("write-blobs".to_owned())
            .spawn(move || writer.run(inbox))
            .map_err(|error| EngineError::from_io(&folder, error))?;
        let shares_max = u32::try_from(settings.waiting_bytes_max / SHARE).unwrap_or(u32::MAX >> 3).max(1);
        let room = Room::new(&folder, settings.free_space_min, Arc::clone(&clock));
        Ok(Arc::new(Self {
            folder,
            index,
            clock,
            ids,
            contexts: Arc::default(),
            puts: Some(puts),
            writer: Some(writer),
            shares: Arc::new(Semaphore::new(shares_max as usize)),
            shares_max,
            places: Cache::new(settings.places_kept),
            files: Cache::new(FILES_OPEN),
            active_number,
            newest_large: Arc::new(AtomicU32::new(newest_large)),
            damages: Damages::new(),
            room,
            is_writable: AtomicBool::new(true),
            waypoints: settings.waypoints,
        }))
    }

    /// The last place below segment `below` that the index names.
    fn last_referred(&self, below: u32) -> Result<Option<Locator>, StoreError> {
        last_referred(&*self.index, below)
    }

    /// Reads with what [`BlobStore::put`] gave, before any entry refers to it.
    pub async fn read_stored(&self, blob: &StoredBlob, range: Range<u64>) -> Result<Bytes, StoreError> {
        let lost = |what: &str| StoreError::Damaged { what: format!("blob {}: {what}", blob.id) };
        let place = Locator::decode(&blob.locator).ok_or_else(|| lost("its locator is not of this store"))?;
        let range = range.start..range.end.min(blob.size_bytes);
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let file = self.file(place.segment)?;
        let id = blob.id;
        let read = tokio::task::spawn_blocking(move || read_range(&file, place, id, &range)).await;
        self.told(id, place, read.unwrap_or(Err(ReadError::Bad(BadRecord::Content)))).map(Bytes::from)
    }

    /// The last word of the disk.
    pub(super) fn note_written(&self, is_written: bool) {
        self.is_writable.store(is_written, Ordering::Relaxed);
    }

    pub(super) fn note_place(&self, blob: &StoredBlob) {
        self.places.insert(blob.id, blob.clone());
    }

    async fn place(&self, blob: BlobId) -> Result<StoredBlob, StoreError> {
        if let Some(found) = self.places.get(&blob) {
            return Ok(found);
        }
        let found = self.index.locate(blob).await?;
        let found = found.ok_or_else(|| StoreError::Damaged { what: format!("blob {blob}: it is not there") })?;
        self.places.insert(blob, found.clone());
        Ok(found)
    }

    fn file(&self, number: u32) -> Result<Arc<File>, StoreError> {
        if let Some(open) = self.files.get(&number) {
            return Ok(open);
        }
        // Records are checked one by one, whatever the head says.
        let path = file::path(&self.folder, number);
        let file = Arc::new(File::open(&path).map_err(|error| unreadable(&path, error))?);
        self.files.insert(number, Arc::clone(&file));
        Ok(file)
    }

    /// Segment files that are not as they should be, apart from their records.
    pub(crate) async fn check_files(&self) -> Result<Vec<EngineError>, StoreError> {
        self.on_files(|folder| {
            let opened = file::list(folder)?.into_iter().map(|number| file::open(folder, number).map(drop));
            Ok(opened.filter_map(Result::err).filter(|error| matches!(error, EngineError::Damaged { .. })).collect())
        })
        .await
    }

    /// Work on the folder, where it may block.
    async fn on_files<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let folder = self.folder.clone();
        let done = tokio::task::spawn_blocking(move || work(&folder)).await;
        Ok(done.unwrap_or(Err(EngineError::Closing))?)
    }

    /// Appends a whole record; on return it is on disk.
    async fn append(&self, bytes: Vec<u8>) -> Result<Locator, StoreError> {
        let want = u32::try_from(bytes.len() as u64 / SHARE + 1).unwrap_or(u32::MAX).min(self.shares_max);
        let closing = StoreError::Unavailable(EngineError::Closing);
        let share = Arc::clone(&self.shares).acquire_many_owned(want).await.map_err(|_| closing.clone())?;
        let (reply, answer) = oneshot::channel();
        let puts = self.puts.as_ref().ok_or_else(|| closing.clone())?;
        puts.send(Put { bytes, share, reply }).await.map_err(|_| closing.clone())?;
        let written = answer.await.map_err(|_| closing)?;
        self.note_written(written.is_ok());
        Ok(written?)
    }

    /// Segments that take no more records, oldest first, then those of large blobs.
    pub(crate) async fn closed(&self) -> Result<Vec<SegmentInfo>, StoreError> {
        let below = self.active_number.load(Ordering::Acquire);
        self.on_files(move |folder| {
            let closed = file::list(folder)?.into_iter().filter(|number| *number < below || *number >= LARGE);
            closed.map(|number| info(folder, number)).collect()
        })
        .await
    }

    /// Appends a copy of the blob's record, read and checked first; gives its new place.
    pub(crate) async fn copy_forward(&self, blob: &StoredBlob) -> Result<Locator, StoreError> {
        let record = self.whole_record(blob).await?;
        self.append(record).await
    }

    /// Reads and checks everything about a blob: head, frames and digest.
    pub(crate) async fn verify(&self, blob: &StoredBlob) -> Result<(), StoreError> {
        self.checked(blob, |file, place, head| {
            head.verify(true, |stored, out| {
                out.resize(stored.len(), 0);
                Ok::<_, ReadError>(file.read_exact_at(out, u64::from(place.offset) + stored.start as u64)?)
            })
        })
        .await
    }

    /// Checks that the blob's record is there and is its own, by its head alone.
    pub(crate) async fn glance(&self, blob: &StoredBlob) -> Result<(), StoreError> {
        self.read_stored(blob, 0..1).await.map(drop)
    }

    pub(crate) fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// False after a write failed, until one succeeds.
    pub(crate) fn is_writable(&self) -> bool {
        self.is_writable.load(Ordering::Relaxed)
    }

    async fn whole_record(&self, blob: &StoredBlob) -> Result<Vec<u8>, StoreError> {
        self.checked(blob, |file, place, head| {
            let mut record = vec![0; place.length as usize];
            file.read_exact_at(&mut record, u64::from(place.offset))?;
            head.verify(true, |stored, out| {
                out.extend_from_slice(record.get(stored).ok_or(BadRecord::Content)?);
                Ok::<_, ReadError>(())
            })?;
            Ok(record)
        })
        .await
    }

    /// Work on a blob's record, after a look at whether it is its own.
    async fn checked<T: Send + 'static>(
        &self,
        blob: &StoredBlob,
        work: impl FnOnce(&File, Locator, &Head) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let lost = |what: &str| StoreError::Damaged { what: format!("blob {}: {what}", blob.id) };
        let place = Locator::decode(&blob.locator).ok_or_else(|| lost("its locator is not of this store"))?;
        let file = self.file(place.segment)?;
        let (id, digest) = (blob.id, blob.digest);
        let read = tokio::task::spawn_blocking(move || {
            let head = file::read_head(&file, u64::from(place.offset), u64::from(place.length))?;
            if head.id != id || head.digest != digest || head.length != place.length {
                return Err(BadRecord::Stranger.into());
            }
            work(&file, place, &head)
        });
        self.told(blob.id, place, read.await.unwrap_or(Err(ReadError::Bad(BadRecord::Content))))
    }

    /// The result of reading a record, in a caller's words.
    fn told<T>(&self, blob: BlobId, place: Locator, read: Result<T, ReadError>) -> Result<T, StoreError> {
        let path = file::path(&self.folder, place.segment);
        let lost = |what: String| StoreError::Damaged { what: format!("blob {blob}: {what}") };
        read.map_err(|error| match error {
            ReadError::Io(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => unreadable(&path, error),
            ReadError::Io(_) => lost(format!("{} ends before it", path.display())),
            ReadError::Bad(why) => lost(format!("{} at offset {}: {why}", path.display(), place.offset)),
        })
    }

    /// Forgets where blobs lie, after they were moved or dropped.
    pub(crate) fn forget_places<'a>(&self, blobs: impl IntoIterator<Item = &'a BlobId>) {
        for blob in blobs {
            self.places.invalidate(blob);
        }
    }

    /// Copies to `folder` what holds every blob that the index knows of now; gives the number of files. While it runs,
    /// nothing may be removed. Blocks.
    pub(crate) fn copy_to(&self, folder: &Path) -> Result<usize, StoreError> {
        let last = self.last_referred(LARGE)?.map_or(0, |last| last.segment);
        let numbers: Vec<u32> =
            file::list(&self.folder)?.into_iter().filter(|number| *number <= last || *number >= LARGE).collect();
        for number in &numbers {
            let (from, to) = (file::path(&self.folder, *number), file::path(folder, *number));
            // Segments before the last are never written again, here or there: both may share them. The last one is
            // where the copy goes on writing; what this store appends meanwhile is passed over there.
            self.waypoints.pass("snapshot.segment");
            let is_shared = *number != last && std::fs::hard_link(&from, &to).is_ok();
            if !is_shared {
                let copied = std::fs::copy(&from, &to).and_then(|_| File::open(&to)?.sync_all());
                copied.map_err(|error| EngineError::from_io(&to, error))?;
            }
        }
        file::sync_folder(folder).map_err(|error| EngineError::from_io(folder, error))?;
        Ok(numbers.len())
    }

    /// Overwrites records of blobs that are gone: nothing is left of their content. False if they must wait: a snapshot
    /// shares the file, or it goes as a whole soon.
    pub(crate) async fn overwrite(&self, segment: u32, records: Vec<(BlobId, Locator)>) -> Result<bool, StoreError> {
        let waypoints = self.waypoints;
        self.on_files(move |folder| {
            let path = file::path(folder, segment);
            let overwritten = match std::fs::symlink_metadata(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
                Err(error) => Err(error),
                Ok(facts) if segment >= LARGE || facts.nlink() > 1 || !facts.is_file() => return Ok(false),
                Ok(_) => file::overwrite(&path, &records, waypoints),
            };
            overwritten.map(|()| true).map_err(|error| EngineError::from_io(&path, error))
        })
        .await
    }

    /// Deletes a closed segment. A read under way keeps its open file.
    pub(crate) async fn remove(&self, number: u32) -> Result<(), StoreError> {
        let is_closed = number < self.active_number.load(Ordering::Acquire) || number >= LARGE;
        debug_assert!(is_closed, "only closed segments are removed");
        let waypoints = self.waypoints;
        let removed = self.on_files(move |folder| {
            let path = file::path(folder, number);
            waypoints.pass("segment.remove");
            let removed = std::fs::remove_file(&path).and_then(|()| {
                waypoints.pass("segment.removed");
                file::sync_folder(folder)
            });
            removed.map_err(|error| EngineError::from_io(&path, error))
        });
        let removed = removed.await;
        self.files.invalidate(&number);
        removed
    }
}

#[async_trait]
impl BlobStore for SegmentStore {
    async fn put(&self, pieces: Vec<Bytes>) -> Result<StoredBlob, StoreError> {
        self.put_as(self.ids.blob(self.clock.utc()), pieces).await
    }

    async fn put_as(&self, id: BlobId, pieces: Vec<Bytes>) -> Result<StoredBlob, StoreError> {
        self.room.check()?;
        let size: usize = pieces.iter().map(Bytes::len).sum();
        if size > LARGE_MIN {
            return self.put_large(id, pieces).await;
        }
        let contexts = Arc::clone(&self.contexts);
        let pack = move || contexts.encode(id, &pieces);
        let packed = if size <= PACK_INLINE_MAX {
            pack()
        } else {
            tokio::task::spawn_blocking(pack).await.map_err(|_| StoreError::Unavailable(EngineError::Closing))?
        };
        let too_long = || StoreError::Damaged { what: format!("blob {id}: longer than a record can be") };
        let Record { bytes, digest, size_bytes } = packed.ok_or_else(too_long)?;
        let place = self.append(bytes).await?;
        let blob = StoredBlob { id, size_bytes, locator: place.encode(), digest };
        self.note_place(&blob);
        Ok(blob)
    }

    fn check_room(&self) -> Result<(), StoreError> {
        self.room.check()
    }

    async fn read(&self, blob: BlobId, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.damages.note(blob, self.read_found(blob, range).await)
    }
}

impl SegmentStore {
    async fn read_found(&self, blob: BlobId, range: Range<u64>) -> Result<Bytes, StoreError> {
        let place = self.place(blob).await?;
        let first = self.read_stored(&place, range.clone()).await;
        if first.is_ok() {
            return first;
        }
        // Compaction may have moved it since we learned its place.
        self.places.invalidate(&blob);
        let again = self.place(blob).await?;
        if again == place { first } else { self.read_stored(&again, range).await }
    }
}

impl Drop for SegmentStore {
    fn drop(&mut self) {
        self.puts.take();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// Makes the folder `to` one that [`SegmentStore::open`] may write to without a change in `from`: segments before the last
/// that the index names are never written again and become links.
pub(crate) fn stage(index: &dyn BlobIndex, from: &Path, to: &Path) -> Result<(), StoreError> {
    let last = last_referred(index, LARGE)?.map_or(0, |last| last.segment);
    std::fs::create_dir_all(to).map_err(|error| EngineError::from_io(to, error))?;
    for number in file::list(from)? {
        let (from, to) = (file::path(from, number), file::path(to, number));
        let made = if number < last || number >= LARGE {
            std::os::unix::fs::symlink(&from, &to)
        } else {
            std::fs::copy(&from, &to).map(drop)
        };
        made.map_err(|error| EngineError::from_io(&to, error))?;
    }
    Ok(())
}

fn info(folder: &Path, number: u32) -> Result<SegmentInfo, EngineError> {
    let path = file::path(folder, number);
    let facts = std::fs::metadata(&path).map_err(|error| EngineError::from_io(&path, error))?;
    let written = facts.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let written_at = UtcMillis::from_secs(0).plus(written.unwrap_or_default());
    Ok(SegmentInfo { number, size_bytes: facts.len(), written_at })
}

fn last_referred(index: &dyn BlobIndex, below: u32) -> Result<Option<Locator>, StoreError> {
    Ok(index.last_located(Locator::bounds(below).0)?.and_then(|bytes| Locator::decode(&bytes)))
}

/// What is gone or cannot be read off the disk is lost: trying again is no use.
fn unreadable(path: &Path, error: std::io::Error) -> StoreError {
    const BAD_SECTOR: i32 = 5; // EIO
    if error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(BAD_SECTOR) {
        return StoreError::Damaged { what: format!("{}: {error}", path.display()) };
    }
    EngineError::from_io(path, error).into()
}

/// The segment to go on with. Everything that an entry refers to lies before the last locator known; whole records
/// after it were written but not delivered, they are passed over; what follows them is torn and is overwritten.
fn find_active(folder: &Path, numbers: &[u32], referred: Option<Locator>) -> Result<Option<Active>, EngineError> {
    let lowest = referred.map_or(0, |last| last.segment);
    for number in numbers.iter().rev().copied().filter(|number| *number >= lowest) {
        let (file, size) = match file::open(folder, number) {
            Ok(opened) => opened,
            // Nothing more goes into it.
            Err(EngineError::Damaged { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let from = referred.filter(|last| last.segment == number).map_or(SEGMENT_HEAD, Locator::end);
        let end = file::end_of_records(&file, from, size);
        let path = file::path(folder, number);
        let was_torn = file::clear_from(&file, end, size).map_err(|error| EngineError::from_io(&path, error))?;
        if was_torn {
            tracing::info!(event = base::event::STORE_REPAIRED, file = %path.display(), offset = end);
        }
        let is_first = numbers.first() == Some(&number) || number == lowest;
        if end > SEGMENT_HEAD || is_first {
            return Ok(Some(Active { number, file, end, size }));
        }
        // Made ahead of need and never used.
        std::fs::remove_file(&path).map_err(|error| EngineError::from_io(&path, error))?;
    }
    Ok(None)
}

fn read_range(file: &File, place: Locator, id: BlobId, range: &Range<u64>) -> Result<Vec<u8>, ReadError> {
    let length = place.length as usize;
    let at = u64::from(place.offset);
    let mut start = vec![0; length.min(FIRST_READ)];
    file.read_exact_at(&mut start, at)?;
    let table = record::table_of(&start)?;
    if table.end > length {
        return Err(BadRecord::Head.into());
    }
    let head = match start.get(table.clone()) {
        Some(table) => Head::parse(&start, table)?,
        None => {
            let mut rest = vec![0; table.len()];
            file.read_exact_at(&mut rest, at + table.start as u64)?;
            Head::parse(&start, &rest)?
        }
    };
    if head.id != id {
        return Err(BadRecord::Stranger.into());
    }
    if head.length != place.length {
        return Err(BadRecord::Head.into());
    }
    let mut out = Vec::new();
    let mut fetched = Vec::new();
    for (nth, stored) in head.frames_of(range) {
        let frame = match start.get(stored.clone()) {
            Some(frame) => frame,
            None => {
                fetched.resize(stored.len(), 0);
                file.read_exact_at(&mut fetched, at + stored.start as u64)?;
                &fetched
            }
        };
        head.unpack(nth, frame, range, &mut out)?;
    }
    Ok(out)
}
