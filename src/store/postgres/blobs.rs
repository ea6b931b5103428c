//! Blobs in the database: rows of compressed chunks, so that a ranged read fetches only what it covers.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use base::{BlobId, Clock, IdSource};
use bytes::{Bytes, BytesMut};
use engine::EngineError;

use super::rows;
use engine::postgres::Params;

use super::{PgStore, unavailable};
use crate::error::StoreError;
use crate::model::StoredBlob;
use crate::traits::BlobStore;

/// Content in one chunk, before compression.
const CHUNK: usize = 256 * 1024;
const LEVEL: i32 = 3;

/// [`BlobStore`] in the database of a [`PgStore`].
pub struct PgBlobs {
    store: Arc<PgStore>,
    ids: Arc<IdSource>,
    clock: Arc<dyn Clock>,
}

/// Chunks of content of this size.
pub(super) const fn chunks_of(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(CHUNK as u64)
}

/// Content ready to be stored.
struct Packed {
    size_bytes: u64,
    digest: [u8; 32],
    chunks: Vec<Vec<u8>>,
}

fn pack(pieces: &[Bytes]) -> Result<Packed, std::io::Error> {
    let mut hasher = blake3::Hasher::new();
    let mut packed = Packed { size_bytes: 0, digest: [0; 32], chunks: Vec::new() };
    let mut chunk = Vec::with_capacity(CHUNK);
    for piece in pieces {
        hasher.update(piece);
        packed.size_bytes += piece.len() as u64;
        let mut rest = piece.as_ref();
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(rest.len().min(CHUNK - chunk.len()));
            chunk.extend_from_slice(head);
            rest = tail;
            if chunk.len() == CHUNK {
                packed.chunks.push(zstd::bulk::compress(&chunk, LEVEL)?);
                chunk.clear();
            }
        }
    }
    if !chunk.is_empty() {
        packed.chunks.push(zstd::bulk::compress(&chunk, LEVEL)?);
    }
    packed.digest = *hasher.finalize().as_bytes();
    Ok(packed)
}

impl PgBlobs {
    pub fn new(store: Arc<PgStore>, ids: Arc<IdSource>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { store, ids, clock })
    }
}

fn damaged(blob: BlobId, what: &str) -> StoreError {
    StoreError::Damaged { what: format!("postgresql: blob {blob}: {what}") }
}

#[async_trait]
impl BlobStore for PgBlobs {
    async fn put(&self, pieces: Vec<Bytes>) -> Result<StoredBlob, StoreError> {
        let packing = tokio::task::spawn_blocking(move || pack(&pieces));
        let packed = packing.await.map_err(|_| StoreError::Unavailable(EngineError::Closing))?;
        let packed = packed.map_err(|error| unavailable(error.to_string()))?;
        let now = self.clock.utc();
        let id = self.ids.blob(now);
        // On the list of garbage from the start: it goes off it, or away, when its grace period ends.
        let text = "WITH made AS (
                 INSERT INTO blob (blob_id, size_bytes, digest) VALUES ($1, $2, $3)
             ), listed AS (
                 INSERT INTO blob_release (released_at, blob_id) VALUES ($4, $1)
             )
             INSERT INTO blob_chunk (blob_id, nth, data)
             SELECT $1, n.nth - 1, n.data FROM unnest($5::bytea[]) WITH ORDINALITY AS n (data, nth)";
        let (raw, size) = (id.to_bytes(), rows::param(packed.size_bytes));
        let sql = self.store.pool.session().await?;
        let params: Params<'_> = &[&raw.as_slice(), &size, &packed.digest.as_slice(), &now.0, &packed.chunks];
        sql.execute(text, params).await?;
        sql.give_back();
        Ok(StoredBlob { id, size_bytes: packed.size_bytes, locator: raw.to_vec(), digest: packed.digest })
    }

    async fn read(&self, blob: BlobId, range: Range<u64>) -> Result<Bytes, StoreError> {
        let sql = self.store.pool.session().await?;
        let raw = blob.to_bytes();
        let chunk = CHUNK as u64;
        let text = "SELECT b.size_bytes, c.nth, c.data, b.digest FROM blob b LEFT JOIN blob_chunk c
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
