//! A message as its reader sees it: the entry's own header lines, then the shared content.

use std::ops::Range;
use std::sync::Arc;

use base::BlobId;
use bytes::{Bytes, BytesMut};

use crate::error::StoreError;
use crate::model::Entry;
use crate::notice::Notice;
use crate::traits::BlobStore;

/// The spliced message of an entry. Where its blob is lost or damaged, readers get a notice in its place, octet for octet
/// as long ([`EntryContent::original`] gives the error instead); what is whole of a large one is given. Offsets of [`mail::mime::Summary`] count from [`EntryContent::prefix_len`].
#[derive(Clone)]
pub struct EntryContent {
    blobs: Arc<dyn BlobStore>,
    blob: BlobId,
    prefix: Bytes,
    len: u64,
    /// For the notice; `None` wants none.
    summary: Option<Bytes>,
}

/// Octets that [`Steps`] gives at a time at most: what one reader holds of a message.
pub const STEP: u64 = 256 * 1024;

impl EntryContent {
    pub fn new(blobs: Arc<dyn BlobStore>, entry: &Entry) -> Self {
        let summary = Some(entry.summary.clone());
        Self { blobs, blob: entry.blob, prefix: entry.prefix.clone(), len: entry.size_bytes, summary }
    }

    /// Without notices, for copies: what cannot be read is [`StoreError::Damaged`].
    pub fn original(blobs: Arc<dyn BlobStore>, entry: &Entry) -> Self {
        Self { summary: None, ..Self::new(blobs, entry) }
    }

    /// Octets in all: [`Entry::size_bytes`].
    pub const fn len(&self) -> u64 {
        self.len
    }

    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the blob begins.
    pub fn prefix_len(&self) -> u64 {
        self.prefix.len() as u64
    }

    /// Octets `range`, shorter if the message ends before. The whole range is held in memory: for what may be long,
    /// take [`EntryContent::steps`].
    ///
    /// Cancel safe.
    pub async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        let prefix_len = self.prefix_len();
        let end = range.end.min(self.len);
        let start = range.start.min(end);
        if end <= prefix_len {
            return Ok(self.of_prefix(start..end));
        }
        let from_blob = start.saturating_sub(prefix_len)..end - prefix_len;
        if start >= prefix_len {
            return self.read_blob(from_blob).await;
        }
        let rest = self.read_blob(from_blob).await?;
        let head = self.of_prefix(start..prefix_len);
        let mut out = BytesMut::with_capacity(head.len() + rest.len());
        out.extend_from_slice(&head);
        out.extend_from_slice(&rest);
        Ok(out.freeze())
    }

    fn of_prefix(&self, range: Range<u64>) -> Bytes {
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(self.prefix.len());
        self.prefix.slice(place(range.start)..place(range.end))
    }

    /// Octets `range` of the content without the prefix, as a summary's offsets count.
    pub async fn read_blob(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        let read = self.blobs.read(self.blob, range.clone()).await;
        let Some(summary) = &self.summary else { return read };
        let blob_len = self.len.saturating_sub(self.prefix_len());
        let (start, end) = (range.start.min(blob_len), range.end.min(blob_len));
        match read {
            Ok(content) if content.len() as u64 >= end - start => Ok(content),
            Ok(_) | Err(StoreError::Damaged { .. }) => {
                self.read_around(start..end, &Notice::new(self.blob, blob_len, summary)).await
            }
            Err(error) => Err(error),
        }
    }

    /// What can be read of the blob, frame by frame, and the notice for the rest.
    async fn read_around(&self, range: Range<u64>, notice: &Notice) -> Result<Bytes, StoreError> {
        let mut out = BytesMut::new();
        let mut at = range.start;
        while at < range.end {
            let frame = at / STEP * STEP..(at / STEP + 1) * STEP;
            let end = frame.end.min(range.end);
            match self.blobs.read(self.blob, at..end).await {
                Ok(content) if content.len() as u64 == end - at => out.extend_from_slice(&content),
                Ok(_) | Err(StoreError::Damaged { .. }) => {
                    let whole = notice.fill(frame.clone());
                    let place = |at: u64| usize::try_from(at - frame.start).unwrap_or(0).min(whole.len());
                    out.extend_from_slice(whole.get(place(at)..place(end)).unwrap_or_default());
                }
                Err(error) => return Err(error),
            }
            at = end;
        }
        Ok(out.freeze())
    }

    /// Octets `range`, piece by piece.
    pub fn steps(&self, range: Range<u64>) -> Steps {
        let end = range.end.min(self.len);
        Steps { content: self.clone(), left: range.start.min(end)..end }
    }
}

/// Gives a message in pieces of at most [`STEP`] octets.
pub struct Steps {
    content: EntryContent,
    left: Range<u64>,
}

impl Steps {
    /// The next piece; `None` after the last.
    ///
    /// Cancel safe: a piece that was not given comes again.
    pub async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        if self.left.is_empty() {
            return None;
        }
        // Pieces end where the blob's frames do, so that each frame is unpacked once.
        let prefix_len = self.content.prefix_len();
        let in_blob = self.left.start.saturating_sub(prefix_len);
        let frame_end = prefix_len + (in_blob / STEP + 1) * STEP;
        let end = self.left.end.min(frame_end).min(self.left.start + STEP);
        let piece = self.content.read(self.left.start..end).await;
        match &piece {
            Ok(bytes) if bytes.len() as u64 == end - self.left.start => self.left.start = end,
            // Shorter than promised: the message ends here, whatever the entry says.
            Ok(_) | Err(_) => self.left = 0..0,
        }
        Some(piece)
    }
}
