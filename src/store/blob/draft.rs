//! Content that comes piece by piece: in memory while it may be small, then in a segment of its own that grows beside
//! the one everybody waits for.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use base::BlobId;
use bytes::Bytes;
use engine::{EngineError, Waypoints};
use tokio::sync::SemaphorePermit;

use super::file::{self, LARGE, SEGMENT_HEAD};
use super::record::{Contexts, HEAD, Locator, Packer};
use super::segments::SegmentStore;
use crate::error::StoreError;
use crate::model::StoredBlob;
use crate::traits::{BlobDraft, BlobStore as _};

/// Content above this gets a segment of its own: it costs three commits of the file system, and the group commit of
/// small ones never waits for more than a few of this size.
pub(super) const LARGE_MIN: usize = 4 << 20;
/// Octets handed to the thread that packs and writes them at a time.
const BATCH: usize = 1 << 20;

pub(super) struct Draft<'a> {
    store: &'a SegmentStore,
    /// Not yet on its way to the file, if there is one.
    pieces: Vec<Bytes>,
    size: usize,
    /// Of the memory for drafts.
    shares: Vec<SemaphorePermit<'a>>,
    state: State,
}

enum State {
    InMemory,
    InFile(Box<Growing>),
    Failed,
}

impl<'a> Draft<'a> {
    pub(super) fn new(store: &'a SegmentStore) -> Self {
        Self { store, pieces: Vec::new(), size: 0, shares: Vec::new(), state: State::InMemory }
    }

    /// Without memory to spare it goes to a file early: waiting for others could be waiting for oneself.
    fn may_hold(&mut self, more: usize) -> bool {
        let share = u32::try_from(more).ok().filter(|_| self.size + more <= LARGE_MIN);
        let share = share.and_then(|more| self.store.drafts.try_acquire_many(more).ok());
        let is_had = share.is_some();
        self.shares.extend(share);
        is_had
    }

    /// Packs and writes what waits, where that may block.
    async fn spill(&mut self) -> Result<Box<Growing>, StoreError> {
        let (pieces, contexts) = (std::mem::take(&mut self.pieces), Arc::clone(&self.store.contexts));
        self.size = 0;
        let (state, begin) = (std::mem::replace(&mut self.state, State::Failed), self.begin());
        let spilled = tokio::task::spawn_blocking(move || {
            let mut growing = match state {
                State::InFile(growing) => growing,
                State::InMemory => Box::new(begin()?),
                State::Failed => return Err(EngineError::Closing),
            };
            growing.write(&contexts, &pieces)?;
            Ok(growing)
        });
        let spilled = spilled.await.unwrap_or(Err(EngineError::Closing));
        self.shares.clear();
        Ok(spilled?)
    }

    fn begin(&self) -> impl FnOnce() -> Result<Growing, EngineError> + Send + use<> {
        let id = self.store.ids.blob(self.store.clock.utc());
        let (folder, newest) = (self.store.folder.clone(), Arc::clone(&self.store.newest_large));
        let waypoints = self.store.waypoints;
        move || {
            let number = newest.fetch_add(1, Ordering::AcqRel) + 1;
            Growing::new(folder, number, id, waypoints)
        }
    }
}

#[async_trait]
impl BlobDraft for Draft<'_> {
    async fn write(&mut self, piece: Bytes) -> Result<(), StoreError> {
        let is_held = match self.state {
            State::InMemory => self.may_hold(piece.len()),
            State::InFile(_) => self.size + piece.len() < BATCH,
            State::Failed => return Err(StoreError::Unavailable(EngineError::Closing)),
        };
        self.size += piece.len();
        self.pieces.push(piece);
        if !is_held {
            self.state = State::InFile(self.spill().await?);
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<StoredBlob, StoreError> {
        if matches!(self.state, State::InMemory) {
            return self.store.put(std::mem::take(&mut self.pieces)).await;
        }
        let growing = self.spill().await?;
        let contexts = Arc::clone(&self.store.contexts);
        let finished = tokio::task::spawn_blocking(move || growing.finish(&contexts)).await;
        let finished = finished.unwrap_or(Err(EngineError::Closing));
        self.store.note_written(finished.is_ok());
        let blob = finished?;
        self.store.note_place(&blob);
        Ok(blob)
    }
}

/// A segment of its own on its way to disk. Dropped before its end, its file goes.
struct Growing {
    folder: PathBuf,
    number: u32,
    id: BlobId,
    file: File,
    /// `None` once the record is closed.
    packer: Option<Packer>,
    out: Vec<u8>,
    is_complete: bool,
    waypoints: Waypoints,
}

impl Growing {
    fn new(folder: PathBuf, number: u32, id: BlobId, waypoints: Waypoints) -> Result<Self, EngineError> {
        let path = file::unfinished(&folder, number);
        let made = OpenOptions::new().read(true).write(true).create_new(true).open(&path).and_then(|mut file| {
            file.seek(SeekFrom::Start(SEGMENT_HEAD + HEAD as u64))?;
            Ok(file)
        });
        let file = made.map_err(|error| EngineError::from_io(&path, error))?;
        let packer = Some(Packer::new(id));
        Ok(Self { folder, number, id, file, packer, out: Vec::new(), is_complete: false, waypoints })
    }

    fn failed(&self, error: std::io::Error) -> EngineError {
        EngineError::from_io(&file::path(&self.folder, self.number), error)
    }

    fn write(&mut self, contexts: &Contexts, pieces: &[Bytes]) -> Result<(), EngineError> {
        let Some(packer) = &mut self.packer else { return Err(EngineError::Closing) };
        for piece in pieces.iter().flat_map(|piece| piece.chunks(BATCH)) {
            packer.push(contexts, piece, &mut self.out);
            let written = self.file.write_all(&self.out);
            self.out.clear();
            written.map_err(|error| EngineError::from_io(&file::path(&self.folder, self.number), error))?;
        }
        Ok(())
    }

    /// The last frame and the table, then the heads, then the name: what has a name is whole.
    fn finish(mut self: Box<Self>, contexts: &Contexts) -> Result<StoredBlob, EngineError> {
        let packed = self.packer.take().and_then(|packer| packer.finish(contexts, &mut self.out));
        let packed = packed.ok_or_else(|| self.failed(std::io::ErrorKind::FileTooLarge.into()))?;
        let written = self.file.write_all(&self.out).and_then(|()| {
            self.file.write_all_at(&packed.head, SEGMENT_HEAD)?;
            let size = SEGMENT_HEAD + u64::from(packed.length);
            file::complete(&self.folder, self.number, &self.file, size, self.waypoints)
        });
        written.map_err(|error| self.failed(error))?;
        self.is_complete = true;
        let offset = u32::try_from(SEGMENT_HEAD).unwrap_or(u32::MAX);
        let place = Locator { segment: self.number, offset, length: packed.length };
        debug_assert!(self.number >= LARGE, "numbers of large blobs lie apart");
        Ok(StoredBlob { id: self.id, size_bytes: packed.size_bytes, locator: place.encode(), digest: packed.digest })
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        if !self.is_complete {
            // What is left of it is removed at the next start otherwise.
            let _ = std::fs::remove_file(file::unfinished(&self.folder, self.number));
        }
    }
}
