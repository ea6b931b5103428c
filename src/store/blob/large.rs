//! Large content: in a segment of its own that grows beside the one everybody waits for.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::BlobId;
use bytes::Bytes;
use engine::{EngineError, Waypoints};

use super::file::{self, LARGE, SEGMENT_HEAD};
use super::record::{Contexts, HEAD, Locator, Packer};
use super::segments::SegmentStore;
use crate::error::StoreError;
use crate::model::StoredBlob;

/// Content above this gets a segment of its own: it costs three commits of the file system, and the group commit of
/// small ones never waits for more than a few of this size.
pub(super) const LARGE_MIN: usize = 4 << 20;
/// Octets packed and written at a time.
const BATCH: usize = 1 << 20;

impl SegmentStore {
    /// Packs and writes where that may block.
    pub(super) async fn put_large(&self, id: BlobId, pieces: Vec<Bytes>) -> Result<StoredBlob, StoreError> {
        let (folder, newest) = (self.folder.clone(), Arc::clone(&self.newest_large));
        let (contexts, waypoints) = (Arc::clone(&self.contexts), self.waypoints);
        let written = tokio::task::spawn_blocking(move || {
            let number = newest.fetch_add(1, Ordering::AcqRel) + 1;
            let mut growing = Growing::new(folder, number, id, waypoints)?;
            growing.write(&contexts, &pieces)?;
            growing.finish(&contexts)
        });
        let written = written.await.unwrap_or(Err(EngineError::Closing));
        self.note_written(written.is_ok());
        let blob = written?;
        self.note_place(&blob);
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
    fn finish(mut self, contexts: &Contexts) -> Result<StoredBlob, EngineError> {
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
