//! The embedded blob store: zero-filled segment files. See [`crate::BlobStore`] for the seam.
//!
//! Why segments: overwriting a zero-filled file needs no journal commit of the file system for its size or extents, and
//! one `fdatasync` serves every message that waits at that moment. A large blob grows in a file of its own beside them, so
//! that the small ones do not wait for it.

mod file;
mod large;
pub(crate) mod record;
mod segments;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use segments::{SegmentInfo, stage};
pub use segments::{SegmentSettings, SegmentStore};
