//! Large content in an object store: the object first, durable, then the blob's row that names its frames.

use std::ops::Range;
use std::sync::Arc;

use base::{BlobId, UtcMillis};
use bytes::Bytes;
use engine::EngineError;
use engine::postgres::Params;

use super::blobs::PgBlobs;
use super::{rows, unavailable};
use crate::blob::record::{Contexts, Head, Packer};
use crate::bucket::{Bucket, Writing};
use crate::error::StoreError;
use crate::model::StoredBlob;

/// Stores content as an object.
pub(super) async fn put(
    blobs: &PgBlobs,
    bucket: &Bucket,
    id: BlobId,
    pieces: &[Bytes],
) -> Result<StoredBlob, StoreError> {
    let mut object = ObjectDraft::begin(blobs, bucket, id).await?;
    for piece in pieces {
        object.write(piece).await?;
    }
    object.finish().await
}

/// The list of garbage knows of it before there is an object.
struct ObjectDraft<'a> {
    blobs: &'a PgBlobs,
    id: BlobId,
    listed_at: UtcMillis,
    /// Away while it works.
    packer: Option<Packer>,
    writing: Writing<'a>,
}

/// Octets packed at a time.
const STEP: usize = 1 << 20;

impl<'a> ObjectDraft<'a> {
    async fn begin(blobs: &'a PgBlobs, bucket: &'a Bucket, id: BlobId) -> Result<Self, StoreError> {
        let listed_at = blobs.list_new(id).await?;
        blobs.store.pool.waypoints().pass("object.listed");
        let writing = bucket.create(id).await?;
        Ok(Self { blobs, id, listed_at, packer: Some(Packer::new(id)), writing })
    }

    async fn write(&mut self, piece: &Bytes) -> Result<(), StoreError> {
        for start in (0..piece.len()).step_by(STEP) {
            let part = piece.slice(start..piece.len().min(start + STEP));
            self.pack(move |packer, contexts, out| packer.push(contexts, &part, out)).await?;
            self.writing.flow().await?;
        }
        Ok(())
    }

    async fn pack(
        &mut self,
        work: impl FnOnce(&mut Packer, &Contexts, &mut Vec<u8>) + Send + 'static,
    ) -> Result<(), StoreError> {
        let closing = || StoreError::Unavailable(EngineError::Closing);
        let mut packer = self.packer.take().ok_or_else(closing)?;
        let (mut out, contexts) = (std::mem::take(self.writing.buffer()), Arc::clone(&self.blobs.contexts));
        let packed = tokio::task::spawn_blocking(move || {
            work(&mut packer, &contexts, &mut out);
            (packer, out)
        });
        let (packer, out) = packed.await.map_err(|_| closing())?;
        self.packer = Some(packer);
        *self.writing.buffer() = out;
        Ok(())
    }

    async fn finish(mut self) -> Result<StoredBlob, StoreError> {
        let packer = self.packer.take().ok_or(StoreError::Unavailable(EngineError::Closing))?;
        let apart = packer.finish_apart(&self.blobs.contexts, self.writing.buffer());
        self.blobs.store.pool.waypoints().pass("object.filled");
        self.writing.finish().await?;
        self.blobs.store.pool.waypoints().pass("object.stored");
        // Unless garbage collection has given it up already.
        let text = "WITH held AS (
                 SELECT 1 FROM blob_release WHERE released_at = $4 AND blob_id = $1 FOR KEY SHARE
             )
             INSERT INTO blob (blob_id, size_bytes, digest, frames) SELECT $1, $2, $3::bytea, $5::bytea FROM held
             ON CONFLICT (blob_id) DO UPDATE SET digest = excluded.digest";
        let (raw, size) = (self.id.to_bytes(), rows::param(apart.size_bytes));
        let params: Params<'_> =
            &[&raw.as_slice(), &size, &apart.digest.as_slice(), &self.listed_at.0, &apart.table.as_slice()];
        let sql = self.blobs.store.pool.session().await?;
        let made = sql.execute(text, params).await?;
        sql.give_back();
        if made == 0 {
            return Err(unavailable("content took too long to come, it has to come again"));
        }
        let (id, size_bytes, digest) = (self.id, apart.size_bytes, apart.digest);
        Ok(StoredBlob { id, size_bytes, locator: raw.to_vec(), digest })
    }
}

/// Octets `range` of an object's content: only the frames that it covers are fetched.
pub(super) async fn read(bucket: &Bucket, head: Head, range: Range<u64>) -> Result<Bytes, StoreError> {
    let id = head.id;
    let wanted: Vec<(usize, Range<usize>)> = head.frames_of(&range).collect();
    let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else { return Ok(Bytes::new()) };
    let start = first.1.start;
    let fetched = bucket.read(id, start as u64..last.1.end as u64).await?;
    let unpacked = tokio::task::spawn_blocking(move || {
        let mut out = Vec::new();
        for (nth, stored) in wanted {
            let frame = fetched.get(stored.start - start..stored.end - start).unwrap_or_default();
            head.unpack(nth, frame, &range, &mut out).map_err(|why| (nth, why))?;
        }
        Ok(out)
    });
    match unpacked.await {
        Ok(Ok(out)) => Ok(out.into()),
        Ok(Err((nth, why))) => {
            let what = format!("object {}, frame {nth}: {why}", crate::bucket::key(id));
            Err(StoreError::Damaged { what })
        }
        Err(_) => Err(StoreError::Unavailable(EngineError::Closing)),
    }
}
