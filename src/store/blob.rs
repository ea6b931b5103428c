//! Blob stores. See [`crate::BlobStore`] for the seam.
