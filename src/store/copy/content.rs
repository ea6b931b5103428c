//! Content goes before the rows that refer to it: it never changes, so what is there already need not come again.

use base::BlobId;
use bytes::Bytes;
use engine::table::{Merge, Side, Step, Value};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::{Copying, tables};
use crate::error::StoreError;
use crate::model::StoredBlob;
use crate::traits::BlobStore;

/// Octets read at a time.
const PIECE: u64 = 1 << 20;
/// Blobs on their way at a time, each in memory: a message of the largest size takes 50 MB.
const AT_ONCE: usize = 8;
/// Blobs between two looks at what is there.
const BATCH: usize = 256;

/// A blob as the source's tables tell of it.
#[derive(Clone, Copy)]
struct Wanted {
    id: BlobId,
    size_bytes: u64,
    digest: [u8; 32],
}

impl Wanted {
    fn of(row: &[Value]) -> Result<Self, StoreError> {
        let [Value::Bytes(id), Value::Int(size), Value::Bytes(digest)] = row else { return Err(unreadable()) };
        Ok(Self {
            id: BlobId::from_bytes(id.as_slice().try_into().map_err(|_| unreadable())?),
            size_bytes: u64::try_from(*size).map_err(|_| unreadable())?,
            digest: digest.as_slice().try_into().map_err(|_| unreadable())?,
        })
    }
}

fn unreadable() -> StoreError {
    StoreError::Damaged { what: "a row of the table of blobs".to_owned() }
}

/// What became of one blob.
enum Carried {
    Stored(StoredBlob),
    Wrong(String),
}

impl Copying<'_> {
    /// Brings all content that something refers to and that is missing; with `verify` only compares. What cannot be
    /// read is named, and the rest goes on.
    pub(super) async fn content(&mut self) -> Result<(), StoreError> {
        let (from, to) = (self.from.place(), self.to.place());
        let (referred, stored) = (tables::blobs(true), tables::blobs(false));
        let mut merge = Merge::new(Side { place: &from, table: &referred }, Side { place: &to, table: &stored }, None);
        let mut waiting = Vec::new();
        loop {
            let step = merge.next().await?;
            match &step {
                Some(Step::New(row)) if self.is_verify => {
                    self.differs(format!("blob {}: is missing", Wanted::of(row)?.id));
                }
                Some(Step::New(row)) => waiting.push(Wanted::of(row)?),
                Some(Step::Changed { is, .. }) => {
                    self.differs(format!("blob {}: its size or digest differs", Wanted::of(is)?.id));
                }
                Some(Step::Same(row)) if self.is_verify => waiting.push(Wanted::of(row)?),
                Some(Step::Same(_)) => self.report.blobs_skipped += 1,
                Some(Step::Gone(_)) | None => {}
            }
            if waiting.len() >= BATCH || step.is_none() {
                self.carry_all(std::mem::take(&mut waiting)).await?;
                self.tell();
            }
            if step.is_none() {
                return Ok(());
            }
        }
    }

    async fn carry_all(&mut self, some: Vec<Wanted>) -> Result<(), StoreError> {
        let (from, to, is_verify) = (&*self.from.blobs, &*self.to.blobs, self.is_verify);
        let mut carried =
            futures_util::stream::iter(some)
                .map(|wanted| async move {
                    if is_verify { compare(to, wanted).await } else { carry(from, to, wanted).await }
                })
                .buffer_unordered(AT_ONCE);
        let (mut stored, mut wrong) = (Vec::new(), Vec::new());
        while let Some(one) = carried.try_next().await? {
            match one {
                Carried::Stored(blob) => stored.push(blob),
                Carried::Wrong(what) => wrong.push(what),
            }
        }
        drop(carried);
        self.report.blobs += stored.len() as u64;
        self.report.octets += stored.iter().map(|blob| blob.size_bytes).sum::<u64>();
        if !is_verify {
            self.to.list_stored(stored).await?;
        }
        wrong.into_iter().for_each(|what| self.differs(what));
        Ok(())
    }
}

/// Copies one blob and reads it back.
async fn carry(from: &dyn BlobStore, to: &dyn BlobStore, wanted: Wanted) -> Result<Carried, StoreError> {
    let mut pieces = Vec::new();
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    while at < wanted.size_bytes {
        let piece = match piece(from, wanted, at).await {
            Err(StoreError::Damaged { what }) => return Ok(Carried::Wrong(format!("{what} (in the source)"))),
            piece => piece?,
        };
        hasher.update(&piece);
        at += piece.len() as u64;
        pieces.push(piece);
    }
    if *hasher.finalize().as_bytes() != wanted.digest {
        return Ok(Carried::Wrong(format!("blob {}: it does not match its digest (in the source)", wanted.id)));
    }
    let stored = to.put_as(wanted.id, pieces).await?;
    Ok(match compare(to, wanted).await? {
        Carried::Stored(_) => Carried::Stored(stored),
        wrong @ Carried::Wrong(_) => wrong,
    })
}

/// Reads the target's blob and looks whether it is the source's.
async fn compare(to: &dyn BlobStore, wanted: Wanted) -> Result<Carried, StoreError> {
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    while at < wanted.size_bytes {
        match piece(to, wanted, at).await {
            Ok(piece) => {
                hasher.update(&piece);
                at += piece.len() as u64;
            }
            Err(StoreError::Damaged { what }) => return Ok(Carried::Wrong(format!("{what} (in the target)"))),
            Err(error) => return Err(error),
        }
    }
    if *hasher.finalize().as_bytes() != wanted.digest {
        return Ok(Carried::Wrong(format!("blob {}: it does not match its digest (in the target)", wanted.id)));
    }
    let Wanted { id, size_bytes, digest } = wanted;
    Ok(Carried::Stored(StoredBlob { id, size_bytes, locator: Vec::new(), digest }))
}

/// The octets from `at` on, never none.
async fn piece(blobs: &dyn BlobStore, wanted: Wanted, at: u64) -> Result<Bytes, StoreError> {
    let piece = blobs.read(wanted.id, at..wanted.size_bytes.min(at + PIECE)).await?;
    if piece.is_empty() {
        return Err(StoreError::Damaged { what: format!("blob {}: it ends too early", wanted.id) });
    }
    Ok(piece)
}
