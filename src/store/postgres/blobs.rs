//! Blobs in the database: rows of compressed chunks, so that a ranged read fetches only what it covers.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use base::{BlobId, Clock, IdSource, UtcMillis};
use bytes::{Bytes, BytesMut};
use engine::EngineError;

use super::rows;
use engine::postgres::Params;

use super::objects;
use super::{PgStore, unavailable};
use crate::blob::record::{Contexts, Head};
use crate::bucket::{self, Bucket};
use crate::damage::Damages;
use crate::error::StoreError;
use crate::model::StoredBlob;
use crate::traits::BlobStore;

/// Content in one chunk, before compression.
const CHUNK: usize = 256 * 1024;
const LEVEL: i32 = 3;
/// Content above this goes chunk by chunk; up to it, in one statement.
const IN_ONE_MAX: usize = 8 * CHUNK;

/// [`BlobStore`] in the database of a [`PgStore`].
pub struct PgBlobs {
    pub(super) store: Arc<PgStore>,
    ids: Arc<IdSource>,
    clock: Arc<dyn Clock>,
    damages: Damages,
    pub(super) contexts: Arc<Contexts>,
    /// For large content.
    bucket: Option<Arc<Bucket>>,
}

/// Chunks of content of this size.
pub(super) const fn chunks_of(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(CHUNK as u64)
}

/// Content on its way to chunks: what was written goes out compressed, what does not fill a chunk waits.
struct Packer {
    pending: Vec<u8>,
    hasher: blake3::Hasher,
    size_bytes: u64,
}

impl Packer {
    fn new() -> Self {
        Self { pending: Vec::new(), hasher: blake3::Hasher::new(), size_bytes: 0 }
    }

    /// The chunks that `content` makes whole.
    fn push(&mut self, mut content: &[u8]) -> Result<Vec<Vec<u8>>, std::io::Error> {
        self.hasher.update(content);
        self.size_bytes += content.len() as u64;
        let mut chunks = Vec::new();
        while self.pending.len() + content.len() >= CHUNK {
            let (head, rest) = content.split_at(CHUNK - self.pending.len());
            self.pending.extend_from_slice(head);
            content = rest;
            chunks.extend(self.last()?);
        }
        self.pending.extend_from_slice(content);
        Ok(chunks)
    }

    /// What waits, as the chunk that it fills or the last one.
    fn last(&mut self) -> Result<Option<Vec<u8>>, std::io::Error> {
        if self.pending.is_empty() {
            return Ok(None);
        }
        let packed = zstd::bulk::compress(&self.pending, LEVEL)?;
        self.pending.clear();
        Ok(Some(packed))
    }

    fn digest(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }
}

/// All chunks of content in memory.
fn pack(pieces: &[Bytes]) -> Result<(Packer, Vec<Vec<u8>>), std::io::Error> {
    let mut packer = Packer::new();
    let mut chunks = Vec::new();
    for piece in pieces {
        chunks.extend(packer.push(piece)?);
    }
    chunks.extend(packer.last()?);
    Ok((packer, chunks))
}

/// CPU work where it holds up nobody.
async fn packing<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, std::io::Error> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Unavailable(EngineError::Closing))?;
    done.map_err(|error| unavailable(error.to_string()))
}

impl PgBlobs {
    pub fn new(store: Arc<PgStore>, ids: Arc<IdSource>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::with_bucket(store, ids, clock, None)
    }

    pub(crate) fn with_bucket(
        store: Arc<PgStore>,
        ids: Arc<IdSource>,
        clock: Arc<dyn Clock>,
        bucket: Option<Arc<Bucket>>,
    ) -> Arc<Self> {
        Arc::new(Self { store, ids, clock, damages: Damages::new(), contexts: Arc::default(), bucket })
    }

    /// Whether the object store answered last; `None` without one.
    pub(crate) fn reaches_objects(&self) -> Option<bool> {
        self.bucket.as_ref().map(|bucket| bucket.is_reachable())
    }

    /// Puts new content on the list of garbage; gives the time under which it is there from now on.
    pub(super) async fn list_new(&self, id: BlobId) -> Result<UtcMillis, StoreError> {
        let now = self.clock.utc();
        let sql = self.store.pool.session().await?;
        let text = "INSERT INTO blob_release (released_at, blob_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        sql.execute(text, &[&now.0, &id.to_bytes().as_slice()]).await?;
        sql.give_back();
        Ok(now)
    }
}

fn damaged(blob: BlobId, what: &str) -> StoreError {
    StoreError::Damaged { what: format!("postgresql: blob {blob}: {what}") }
}

#[async_trait]
impl BlobStore for PgBlobs {
    async fn put(&self, pieces: Vec<Bytes>) -> Result<StoredBlob, StoreError> {
        self.store_new(self.ids.blob(self.clock.utc()), pieces).await
    }

    async fn put_as(&self, id: BlobId, pieces: Vec<Bytes>) -> Result<StoredBlob, StoreError> {
        // What an earlier try left, or garbage collection was about to delete. The earlier try may even come to its end
        // now, on a server that has not seen that nobody waits for it: then both wrote the same.
        let text = "WITH chunks AS (
                 DELETE FROM blob_chunk WHERE blob_id = $1 AND NOT EXISTS (SELECT 1 FROM blob WHERE blob_id = $1)
             )
             DELETE FROM object_release WHERE blob_id = $1";
        let sql = self.store.pool.session().await?;
        sql.execute(text, &[&id.to_bytes().as_slice()]).await?;
        sql.give_back();
        self.store_new(id, pieces).await
    }

    fn check_room(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn read(&self, blob: BlobId, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.damages.note(blob, self.read_rows(blob, range).await)
    }
}

/// Octets of a blob that are verified at a time.
const STRETCH: u64 = 4 << 20;

impl PgBlobs {
    async fn store_new(&self, id: BlobId, pieces: Vec<Bytes>) -> Result<StoredBlob, StoreError> {
        let size = pieces.iter().map(Bytes::len).sum::<usize>();
        match &self.bucket {
            Some(bucket) if size as u64 >= bucket.from_bytes => return objects::put(self, bucket, id, &pieces).await,
            _ if size > IN_ONE_MAX => return self.put_chunks(id, &pieces).await,
            _ => {}
        }
        let (packer, chunks) = packing(move || pack(&pieces)).await?;
        let now = self.clock.utc();
        // On the list of garbage from the start: it goes off it, or away, when its grace period ends.
        let text = "WITH made AS (
                 INSERT INTO blob (blob_id, size_bytes, digest) VALUES ($1, $2, $3)
                 ON CONFLICT (blob_id) DO UPDATE SET digest = excluded.digest
             ), listed AS (
                 INSERT INTO blob_release (released_at, blob_id) VALUES ($4, $1) ON CONFLICT DO NOTHING
             )
             INSERT INTO blob_chunk (blob_id, nth, data)
             SELECT $1, n.nth - 1, n.data FROM unnest($5::bytea[]) WITH ORDINALITY AS n (data, nth)
             ON CONFLICT (blob_id, nth) DO UPDATE SET data = excluded.data";
        let (raw, size, digest) = (id.to_bytes(), rows::param(packer.size_bytes), packer.digest());
        let sql = self.store.pool.session().await?;
        let params: Params<'_> = &[&raw.as_slice(), &size, &digest.as_slice(), &now.0, &chunks];
        sql.execute(text, params).await?;
        sql.give_back();
        Ok(StoredBlob { id, size_bytes: packer.size_bytes, locator: raw.to_vec(), digest })
    }

    /// Reads all of a blob, a stretch at a time, and compares its digest. For the auditor: damage found here is not one
    /// that a reader met.
    pub(super) async fn verify(&self, blob: BlobId, size: u64, digest: &[u8]) -> Result<(), StoreError> {
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        while at < size {
            let end = size.min(at + STRETCH);
            let content = self.read_rows(blob, at..end).await?;
            hasher = packing(move || {
                hasher.update(&content);
                Ok(hasher)
            })
            .await?;
            at = end;
        }
        let is_right = hasher.finalize().as_bytes().as_slice() == digest;
        if is_right { Ok(()) } else { Err(damaged(blob, "its content does not match its digest")) }
    }

    async fn read_rows(&self, blob: BlobId, range: Range<u64>) -> Result<Bytes, StoreError> {
        let sql = self.store.pool.session().await?;
        let raw = blob.to_bytes();
        let chunk = CHUNK as u64;
        let text = "SELECT b.size_bytes, c.nth, c.data, b.digest, b.frames FROM blob b LEFT JOIN blob_chunk c
             ON c.blob_id = b.blob_id AND c.nth BETWEEN $2 AND $3 WHERE b.blob_id = $1 ORDER BY c.nth";
        let (first, last) = (range.start / chunk, range.end.saturating_sub(1) / chunk);
        let found = sql.rows(text, &[&raw.as_slice(), &rows::param(first), &rows::param(last)]).await?;
        sql.give_back();
        let Some(head) = found.first() else { return Err(damaged(blob, "it is not there")) };
        let size = rows::int(head, 0)?;
        let (start, end) = (range.start.min(size), range.end.min(size));
        if start >= end {
            return Ok(Bytes::new());
        }
        if let Some(table) = rows::value::<Option<&[u8]>>(head, 4)? {
            let bucket =
                self.bucket.as_ref().ok_or_else(|| bucket::unavailable(&"content lies in one, none is configured"))?;
            let digest = rows::value::<&[u8]>(head, 3)?.try_into().map_err(|_| damaged(blob, "its digest is none"))?;
            let frames = Head::apart(blob, digest, size, table).map_err(|why| damaged(blob, &why.to_string()))?;
            let content = objects::read(bucket, frames, start..end).await?;
            let is_right = (start, end) != (0, size) || *blake3::hash(&content).as_bytes() == digest;
            return if is_right { Ok(content) } else { Err(damaged(blob, "its content does not match its digest")) };
        }
        let mut out = BytesMut::new();
        for (row, nth) in found.iter().zip(first..) {
            if rows::value::<Option<i64>>(row, 1)? != Some(rows::param(nth)) {
                return Err(damaged(blob, "a chunk is missing"));
            }
            let data = zstd::bulk::decompress(rows::value::<&[u8]>(row, 2)?, CHUNK);
            let data = data.map_err(|_| damaged(blob, "a chunk cannot be unpacked"))?;
            out.extend_from_slice(&data);
        }
        let skipped = usize::try_from(start - first * chunk).unwrap_or(usize::MAX);
        let wanted = usize::try_from(end - start).unwrap_or(usize::MAX);
        let out = out.freeze();
        let whole = (start, end) == (0, size);
        if whole && blake3::hash(&out).as_bytes().as_slice() != rows::value::<&[u8]>(head, 3)? {
            return Err(damaged(blob, "its content does not match its digest"));
        }
        match skipped.checked_add(wanted) {
            Some(to) if to <= out.len() => Ok(out.slice(skipped..to)),
            _ => Err(damaged(blob, "it ends too early")),
        }
    }
}

impl PgBlobs {
    /// Chunk by chunk. The blob's own row comes last, so that nothing ever refers to half a blob; the list of garbage
    /// knows of it first.
    async fn put_chunks(&self, id: BlobId, pieces: &[Bytes]) -> Result<StoredBlob, StoreError> {
        let listed_at = self.list_new(id).await?;
        let (mut packer, mut written) = (Packer::new(), 0);
        for piece in pieces {
            for start in (0..piece.len()).step_by(CHUNK) {
                let part = piece.slice(start..piece.len().min(start + CHUNK));
                let (next, chunks) = packing(move || packer.push(&part).map(|whole| (packer, whole))).await?;
                packer = next;
                for chunk in chunks {
                    self.write_chunk(id, written, &chunk).await?;
                    written += 1;
                }
            }
        }
        let (packer, last) = packing(move || packer.last().map(|last| (packer, last))).await?;
        if let Some(last) = last {
            self.write_chunk(id, written, &last).await?;
            written += 1;
        }
        let text = "WITH held AS (
                 SELECT 1 FROM blob_release WHERE released_at = $4 AND blob_id = $1 FOR KEY SHARE
             )
             INSERT INTO blob (blob_id, size_bytes, digest) SELECT $1, $2, $3::bytea FROM held
             WHERE (SELECT count(*) FROM blob_chunk WHERE blob_id = $1) = $5
             ON CONFLICT (blob_id) DO UPDATE SET digest = excluded.digest";
        let (raw, digest) = (id.to_bytes(), packer.digest());
        let (size, chunks) = (rows::param(packer.size_bytes), rows::param(written));
        let sql = self.store.pool.session().await?;
        let params: Params<'_> = &[&raw.as_slice(), &size, &digest.as_slice(), &listed_at.0, &chunks];
        let made = sql.execute(text, params).await?;
        sql.give_back();
        if made == 0 {
            return Err(unavailable("content was lost on its way in, it has to come again"));
        }
        Ok(StoredBlob { id, size_bytes: packer.size_bytes, locator: raw.to_vec(), digest })
    }

    async fn write_chunk(&self, id: BlobId, nth: u64, data: &[u8]) -> Result<(), StoreError> {
        let sql = self.store.pool.session().await?;
        // The commit of the blob's row makes the chunks durable too; it counts them, should a failover have lost one.
        let text = "INSERT INTO blob_chunk (blob_id, nth, data)
             SELECT $1, $2, $3::bytea FROM set_config('synchronous_commit', 'off', true)
             ON CONFLICT (blob_id, nth) DO UPDATE SET data = excluded.data";
        sql.execute(text, &[&id.to_bytes().as_slice(), &rows::param(nth), &data]).await?;
        sql.give_back();
        Ok(())
    }
}
