//! Keeps count of damage that readers meet, and says it once for each blob.

use base::BlobId;
use moka::sync::Cache;

use crate::error::StoreError;

pub(crate) struct Damages {
    told: Cache<BlobId, ()>,
}

/// Blobs remembered; one forgotten is told again.
const TOLD_MAX: u64 = 10_000;

impl Damages {
    pub(crate) fn new() -> Self {
        Self { told: Cache::new(TOLD_MAX) }
    }

    /// Passes the outcome of a read on.
    pub(crate) fn note<T>(&self, blob: BlobId, read: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::Damaged { what }) = &read {
            metrics::counter!("ortler_store_damaged_reads_total").increment(1);
            if !self.told.contains_key(&blob) {
                self.told.insert(blob, ());
                tracing::error!(event = base::event::STORE_DAMAGED, %blob, %what, "`ortler audit` names who is affected");
            }
        }
        read
    }
}
