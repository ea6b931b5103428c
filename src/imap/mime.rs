//! What sessions ask of MIME.

use std::sync::Arc;

use bytes::Bytes;
use mail::mime::Summary;
use store::{Entry, StoreError};

/// Reading messages: made at delivery, asked for ever after. CPU work only; never fails on what mail holds.
pub trait Mime: Send + Sync {
    /// The summary of a message, encoded as an entry keeps it.
    fn summarise(&self, message: &[u8]) -> Arc<[u8]>;
    /// `None` if these octets are no summary.
    fn read_summary(&self, encoded: &[u8]) -> Option<Summary>;
    /// The text of a message's body, decoded, as people read it: for SEARCH BODY and TEXT.
    fn text(&self, message: &[u8]) -> String;
    /// A header field's value as people read it: unfolded, encoded words decoded.
    fn header_text(&self, value: &[u8]) -> String;
}

/// Messages up to this size are read by the session itself; larger ones on the pool for blocking work.
const INLINE_MAX: usize = 128 * 1024;

/// [`Mime::summarise`] without holding up other sessions.
pub async fn summarise(mime: &Arc<dyn Mime>, message: Bytes) -> Option<Arc<[u8]>> {
    if message.len() <= INLINE_MAX {
        return Some(mime.summarise(&message));
    }
    let mime = Arc::clone(mime);
    tokio::task::spawn_blocking(move || mime.summarise(&message)).await.ok()
}

pub fn summary_of(mime: &dyn Mime, entry: &Entry) -> Result<Summary, StoreError> {
    mime.read_summary(&entry.summary)
        .ok_or_else(|| StoreError::Damaged { what: format!("summary of blob {}", entry.blob) })
}
