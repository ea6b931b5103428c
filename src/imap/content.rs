//! Where the pieces of a message lie, and reading them.

use std::ops::Range;

use bytes::Bytes;
use mail::HeaderFields;
use mail::mime::summary::COMMON_FIELDS;
use mail::mime::{PartBody, Summary};
use store::{BlobStore, Entry, StoreError};

use crate::proto::{Section, SectionText};

/// What a section asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Octets of the message as a client sees it.
    Octets(Range<u64>),
    /// Some header fields of the header at these octets.
    Fields(Range<u64>),
    /// There is no such part.
    Nothing,
}

/// Resolves a section (RFC 3501 §6.4.5).
pub fn locate(section: &Section, summary: &Summary, entry: &Entry) -> Wanted {
    let before = entry.prefix.len() as u64;
    let shifted = |range: &Range<u32>| before + u64::from(range.start)..before + u64::from(range.end);
    let root = &summary.root;
    let Some(part) = root.at(&section.path) else { return Wanted::Nothing };
    // The prefix is part of the message's own header.
    let root_header = 0..before + u64::from(root.header.end);
    let own_header = if std::ptr::eq(part, root) { root_header.clone() } else { shifted(&part.header) };
    if section.text == SectionText::Mime {
        return Wanted::Octets(own_header);
    }
    if section.path.is_empty() {
        return match section.text {
            SectionText::All | SectionText::Mime => Wanted::Octets(0..entry.size_bytes),
            SectionText::Header => Wanted::Octets(root_header),
            SectionText::HeaderFields { .. } => Wanted::Fields(root_header),
            SectionText::Text => Wanted::Octets(root_header.end.min(entry.size_bytes)..entry.size_bytes),
        };
    }
    if section.text == SectionText::All {
        return Wanted::Octets(shifted(&part.content));
    }
    // Below a part number, HEADER and TEXT mean those of the message inside.
    let PartBody::Message { root: inner, .. } = &part.body else { return Wanted::Nothing };
    let header = shifted(&inner.header);
    match section.text {
        SectionText::HeaderFields { .. } => Wanted::Fields(header),
        SectionText::Header => Wanted::Octets(header),
        _ => Wanted::Octets(header.end..shifted(&part.content).end.max(header.end)),
    }
}

/// True if the summary knows every field asked for.
pub fn are_common(names: &[String], except: bool) -> bool {
    !except && names.iter().all(|name| COMMON_FIELDS.contains(&name.as_str()))
}

/// Appends the fields of `header` that `names` ask for, and no empty line.
pub fn select_fields(out: &mut Vec<u8>, header: &[u8], names: &[String], except: bool) {
    for field in HeaderFields::of(header) {
        if names.iter().any(|name| field.is(name)) != except && !field.name.is_empty() {
            out.extend_from_slice(field.raw);
        }
    }
}

/// Octets of the message as a client sees it: the entry's prefix, then the blob. Shorter only if the blob is damaged.
pub async fn read(blobs: &dyn BlobStore, entry: &Entry, range: Range<u64>) -> Result<Bytes, StoreError> {
    let before = entry.prefix.len() as u64;
    if range.is_empty() {
        return Ok(Bytes::new());
    }
    let (start, end) = (range.start.saturating_sub(before), range.end.saturating_sub(before));
    let head = match usize::try_from(range.start) {
        Ok(from) if range.start < before => {
            entry.prefix.slice(from..entry.prefix.len() - (before.saturating_sub(range.end)) as usize)
        }
        _ => Bytes::new(),
    };
    if end == 0 {
        return Ok(head);
    }
    let tail = blobs.read(entry.blob, start..end).await?;
    if head.is_empty() {
        return Ok(tail);
    }
    Ok([&head[..], &tail].concat().into())
}

/// Header of the message as a client sees it, cut at [`HEADER_READ_MAX`].
pub async fn read_header(blobs: &dyn BlobStore, entry: &Entry, range: Range<u64>) -> Result<Bytes, StoreError> {
    let end = range.end.min(range.start.saturating_add(HEADER_READ_MAX));
    read(blobs, entry, range.start..end).await
}

const HEADER_READ_MAX: u64 = 4 * 1024 * 1024;

/// Octets of a body held at once.
pub const STEP: u64 = 256 * 1024;
