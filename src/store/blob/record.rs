//! The form of a blob on disk. All numbers are little-endian.
//!
//! ```text
//!  0  magic "OrBl"            24  blob id (16)
//!  4  version, 3 bytes zero   40  BLAKE3 of the content (32)
//!  8  length of the record    72  check of the above and of the frame table (8)
//! 12  number of frames        80  frame table: per frame its stored length (top bit: not compressed) and check (8)
//! 16  length of the content       then the frames: each 256 KiB of the content, the last one less
//! ```
//! A check is the first eight bytes of a BLAKE3. Version 2 has the frame table after the frames: it is written as its
//! content comes, and its head at last.

use std::ops::Range;

use base::BlobId;
use bytes::Bytes;
use parking_lot::Mutex;

pub(crate) const FRAME: usize = 256 * 1024;
pub(crate) const HEAD: usize = 80;
const TABLE_ROW: usize = 12;
const MAGIC: &[u8; 4] = b"OrBl";
/// Written in one piece: the table stands before the frames.
const WHOLE: u8 = 1;
/// Written piece by piece: the table stands after the frames.
const GROWN: u8 = 2;
const RAW: u32 = 1 << 31;
const LEVEL: i32 = 1;

/// Where a record lies. Its encoded form sorts by segment and offset.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Locator {
    pub segment: u32,
    pub offset: u32,
    pub length: u32,
}

impl Locator {
    pub(crate) fn encode(self) -> Vec<u8> {
        [self.segment, self.offset, self.length].iter().flat_map(|n| n.to_be_bytes()).collect()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let found = Self { segment: number(0)?, offset: number(4)?, length: number(8)? };
        (bytes.len() == 12).then_some(found)
    }

    /// Encoded bounds of everything in a segment.
    pub(crate) fn bounds(segment: u32) -> (Vec<u8>, Vec<u8>) {
        (segment.to_be_bytes().to_vec(), segment.saturating_add(1).to_be_bytes().to_vec())
    }

    pub(crate) fn end(self) -> u64 {
        u64::from(self.offset) + u64::from(self.length)
    }
}

/// A record ready to be written.
pub(crate) struct Record {
    pub bytes: Vec<u8>,
    pub digest: [u8; 32],
    pub size_bytes: u64,
}

/// Compression contexts that wait for the next user: making one costs more than compressing a small message.
#[derive(Default)]
pub(crate) struct Contexts(Mutex<Vec<Compressor>>);

type Compressor = zstd::bulk::Compressor<'static>;

const CONTEXTS_KEPT: usize = 16;

impl Contexts {
    /// `None` if the content is too long for one record.
    pub(crate) fn encode(&self, id: BlobId, pieces: &[Bytes]) -> Option<Record> {
        self.with(|compressor| encode(id, pieces, compressor))
    }

    fn with<T>(&self, work: impl FnOnce(Option<&mut Compressor>) -> T) -> T {
        let kept = self.0.lock().pop();
        let mut compressor = kept.or_else(|| Compressor::new(LEVEL).ok());
        let done = work(compressor.as_mut());
        if let Some(compressor) = compressor {
            let mut kept = self.0.lock();
            if kept.len() < CONTEXTS_KEPT {
                kept.push(compressor);
            }
        }
        done
    }
}

fn encode(id: BlobId, pieces: &[Bytes], mut compressor: Option<&mut Compressor>) -> Option<Record> {
    let size = pieces.iter().map(Bytes::len).sum::<usize>();
    let frames = size.div_ceil(FRAME);
    let table_end = HEAD + frames * TABLE_ROW;
    let mut bytes = Vec::with_capacity(table_end + size);
    bytes.resize(table_end, 0);
    let mut table = Vec::with_capacity(frames * TABLE_ROW);
    let mut hasher = blake3::Hasher::new();
    let mut squeezed = Vec::new();
    for_each_frame(pieces, |frame| {
        hasher.update(frame);
        pack_frame(frame, compressor.as_deref_mut(), &mut squeezed, &mut table, &mut bytes);
    });
    let digest = *hasher.finalize().as_bytes();
    let head = head(WHOLE, bytes.len() as u64, size as u64, id, &digest, &table)?;
    bytes[..HEAD].copy_from_slice(&head);
    bytes[HEAD..table_end].copy_from_slice(&table);
    Some(Record { bytes, digest, size_bytes: size as u64 })
}

/// A record of this length that holds nothing: zeros, of no blob. `None` where none of this length can be.
pub(crate) fn blank(length: u32) -> Option<Vec<u8>> {
    let length = length as usize;
    let (frames, size) = (0..=length / FRAME + 1)
        .filter_map(|frames| Some((frames, length.checked_sub(HEAD + frames * TABLE_ROW)?)))
        .find(|(frames, size)| size.div_ceil(FRAME) == *frames)?;
    let mut bytes = vec![0; length];
    let content = vec![Bytes::from(vec![0; size])];
    let mut table = Vec::with_capacity(frames * TABLE_ROW);
    let (mut hasher, mut unused, mut stored) = (blake3::Hasher::new(), Vec::new(), Vec::new());
    for_each_frame(&content, |frame| {
        hasher.update(frame);
        stored.clear();
        pack_frame(frame, None, &mut unused, &mut table, &mut stored);
    });
    let digest = *hasher.finalize().as_bytes();
    let head = head(WHOLE, length as u64, size as u64, BlobId::from_u128(0), &digest, &table)?;
    bytes.get_mut(..HEAD)?.copy_from_slice(&head);
    bytes.get_mut(HEAD..HEAD + table.len())?.copy_from_slice(&table);
    Some(bytes)
}

/// True if these are the first [`HEAD`] bytes of a record of the blob, of this length. What follows them may be overwritten
/// already.
pub(crate) fn begins(head: &[u8], blob: BlobId, length: u32) -> bool {
    head.get(..4) == Some(MAGIC)
        && head.get(8..12) == Some(&length.to_le_bytes())
        && head.get(24..40) == Some(&blob.to_bytes())
}

/// Appends a frame's stored form to `out` and its row to `table`.
fn pack_frame(
    frame: &[u8],
    compressor: Option<&mut Compressor>,
    squeezed: &mut Vec<u8>,
    table: &mut Vec<u8>,
    out: &mut Vec<u8>,
) {
    squeezed.clear();
    squeezed.reserve(frame.len());
    let shrunk = compressor.and_then(|c| c.compress_to_buffer(frame, squeezed).ok());
    // Less than a sixteenth saved is not worth the work of every later read.
    let (stored, mark) = match shrunk {
        Some(length) if length < frame.len() - frame.len() / 16 => (&squeezed[..length], 0),
        _ => (frame, RAW),
    };
    let length = u32::try_from(stored.len()).unwrap_or(u32::MAX); // at most FRAME
    table.extend_from_slice(&(length | mark).to_le_bytes());
    table.extend_from_slice(&check(&[stored]));
    out.extend_from_slice(stored);
}

/// `None` if the record is too long.
fn head(version: u8, length: u64, size: u64, id: BlobId, digest: &[u8; 32], table: &[u8]) -> Option<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&[version, 0, 0, 0]);
    head.extend_from_slice(&u32::try_from(length).ok()?.to_le_bytes());
    head.extend_from_slice(&u32::try_from(table.len() / TABLE_ROW).ok()?.to_le_bytes());
    head.extend_from_slice(&size.to_le_bytes());
    head.extend_from_slice(&id.to_bytes());
    head.extend_from_slice(digest);
    let head_check = check(&[&head, table]);
    head.extend_from_slice(&head_check);
    Some(head)
}

/// A record of content that comes piece by piece. Room for its head, [`HEAD`] bytes, goes before what it gives out.
pub(crate) struct Packer {
    id: BlobId,
    /// Less than a frame.
    pending: Vec<u8>,
    squeezed: Vec<u8>,
    table: Vec<u8>,
    hasher: blake3::Hasher,
    size_bytes: u64,
    /// Of the record so far, with room for its head.
    length: u64,
}

/// What closes a record.
pub(crate) struct Packed {
    /// Goes to its beginning.
    pub head: Vec<u8>,
    pub length: u32,
    pub digest: [u8; 32],
    pub size_bytes: u64,
}

/// What goes with frames that lie by themselves.
pub(crate) struct Apart {
    pub table: Vec<u8>,
    pub digest: [u8; 32],
    pub size_bytes: u64,
}

impl Packer {
    pub(crate) fn new(id: BlobId) -> Self {
        Self {
            id,
            pending: Vec::with_capacity(FRAME),
            squeezed: Vec::new(),
            table: Vec::new(),
            hasher: blake3::Hasher::new(),
            size_bytes: 0,
            length: HEAD as u64,
        }
    }

    /// Appends to `out` the frames that `content` makes whole.
    pub(crate) fn push(&mut self, contexts: &Contexts, mut content: &[u8], out: &mut Vec<u8>) {
        self.size_bytes += content.len() as u64;
        while self.pending.len() + content.len() >= FRAME {
            let (head, rest) = content.split_at(FRAME - self.pending.len());
            self.pending.extend_from_slice(head);
            content = rest;
            self.pack(contexts, out);
        }
        self.pending.extend_from_slice(content);
    }

    fn pack(&mut self, contexts: &Contexts, out: &mut Vec<u8>) {
        let before = out.len();
        self.hasher.update(&self.pending);
        contexts.with(|compressor| pack_frame(&self.pending, compressor, &mut self.squeezed, &mut self.table, out));
        self.pending.clear();
        self.length += (out.len() - before) as u64;
    }

    /// The last frame goes to `out`; for what keeps frames and table apart.
    pub(crate) fn finish_apart(mut self, contexts: &Contexts, out: &mut Vec<u8>) -> Apart {
        if !self.pending.is_empty() {
            self.pack(contexts, out);
        }
        Apart { table: self.table, digest: *self.hasher.finalize().as_bytes(), size_bytes: self.size_bytes }
    }

    /// Appends the rest to `out`. `None` if the content is too long for one record.
    pub(crate) fn finish(mut self, contexts: &Contexts, out: &mut Vec<u8>) -> Option<Packed> {
        if !self.pending.is_empty() {
            self.pack(contexts, out);
        }
        out.extend_from_slice(&self.table);
        let length = self.length + self.table.len() as u64;
        let digest = *self.hasher.finalize().as_bytes();
        let head = head(GROWN, length, self.size_bytes, self.id, &digest, &self.table)?;
        Some(Packed { head, length: u32::try_from(length).ok()?, digest, size_bytes: self.size_bytes })
    }
}

/// Cuts the concatenation of `pieces` into frames; copies only where a frame spans pieces.
fn for_each_frame(pieces: &[Bytes], mut each: impl FnMut(&[u8])) {
    let mut pending: Vec<u8> = Vec::new();
    for piece in pieces {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            if pending.is_empty() && rest.len() >= FRAME {
                let (frame, later) = rest.split_at(FRAME);
                each(frame);
                rest = later;
                continue;
            }
            let (head, later) = rest.split_at(rest.len().min(FRAME - pending.len()));
            pending.extend_from_slice(head);
            rest = later;
            if pending.len() == FRAME {
                each(&pending);
                pending.clear();
            }
        }
    }
    if !pending.is_empty() {
        each(&pending);
    }
}

fn check(parts: &[&[u8]]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut out = [0; 8];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    out
}

/// Why bytes are not the record they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRecord {
    #[error("no record begins here")]
    NoRecord,
    #[error("written by a newer version of this program")]
    TooNew,
    #[error("its head does not match its checksum")]
    Head,
    #[error("its content does not match its checksum")]
    Content,
    #[error("it belongs to another blob")]
    Stranger,
}

/// The head and frame table of a record, checked.
#[derive(Debug)]
pub(crate) struct Head {
    pub id: BlobId,
    pub length: u32,
    pub size_bytes: u64,
    pub digest: [u8; 32],
    frames: Vec<Frame>,
}

#[derive(Debug, Clone)]
struct Frame {
    /// Within the record.
    stored: Range<usize>,
    is_raw: bool,
    check: [u8; 8],
    /// Within the content.
    content: Range<u64>,
}

/// Where a record's frame table lies, from the record's first [`HEAD`] bytes.
pub(crate) fn table_of(head: &[u8]) -> Result<Range<usize>, BadRecord> {
    let frames = fixed::<4>(head, 12).map(u32::from_le_bytes)?;
    if head.get(..4) != Some(MAGIC) {
        return Err(BadRecord::NoRecord);
    }
    // A record's length is 32 bits, so more frames than this cannot be.
    if frames > u32::MAX / FRAME as u32 + 1 {
        return Err(BadRecord::Head);
    }
    let table = frames as usize * TABLE_ROW;
    match head.get(4) {
        Some(&WHOLE) => Ok(HEAD..HEAD + table),
        Some(&GROWN) => {
            let length = fixed::<4>(head, 8).map(u32::from_le_bytes)? as usize;
            let start = length.checked_sub(table).filter(|start| *start >= HEAD);
            start.map(|start| start..length).ok_or(BadRecord::Head)
        }
        Some(_) => Err(BadRecord::TooNew),
        None => Err(BadRecord::NoRecord),
    }
}

impl Head {
    /// From the first [`HEAD`] bytes of a record, at least, and its frame table.
    pub(crate) fn parse(bytes: &[u8], table: &[u8]) -> Result<Self, BadRecord> {
        let place = table_of(bytes)?;
        let fields = bytes.get(..HEAD - 8).ok_or(BadRecord::Head)?;
        if place.len() != table.len() || fixed::<8>(bytes, HEAD - 8)? != check(&[fields, table]) {
            return Err(BadRecord::Head);
        }
        let size_bytes = u64::from_le_bytes(fixed(bytes, 16)?);
        let length = u32::from_le_bytes(fixed(bytes, 8)?);
        let is_grown = bytes.get(4) == Some(&GROWN);
        let frames = frames(table, if is_grown { HEAD } else { place.end }, size_bytes)?;
        let end = if is_grown { place.start as u64 } else { u64::from(length) };
        let stored = frames.last().map_or(if is_grown { HEAD } else { place.end }, |frame| frame.stored.end);
        if stored as u64 != end {
            return Err(BadRecord::Head);
        }
        Ok(Self { id: BlobId::from_bytes(fixed(bytes, 24)?), length, size_bytes, digest: fixed(bytes, 40)?, frames })
    }

    /// Of frames that lie by themselves, from what [`Packer::finish_apart`] gave.
    pub(crate) fn apart(id: BlobId, digest: [u8; 32], size_bytes: u64, table: &[u8]) -> Result<Self, BadRecord> {
        let frames = frames(table, 0, size_bytes)?;
        let length = frames.last().map_or(0, |frame| frame.stored.end);
        let length = u32::try_from(length).map_err(|_| BadRecord::Head)?;
        Ok(Self { id, length, size_bytes, digest, frames })
    }

    /// The frames that hold `range`, as ranges within the record.
    pub(crate) fn frames_of(&self, range: &Range<u64>) -> impl Iterator<Item = (usize, Range<usize>)> {
        let range = range.clone();
        self.frames
            .iter()
            .enumerate()
            .filter(move |(_, frame)| frame.content.start < range.end && range.start < frame.content.end)
            .map(|(nth, frame)| (nth, frame.stored.clone()))
    }

    /// Appends to `out` what frame `nth`, whose stored form is `stored`, holds of `range`.
    pub(crate) fn unpack(
        &self,
        nth: usize,
        stored: &[u8],
        range: &Range<u64>,
        out: &mut Vec<u8>,
    ) -> Result<(), BadRecord> {
        let frame = self.frames.get(nth).ok_or(BadRecord::Content)?;
        if check(&[stored]) != frame.check {
            return Err(BadRecord::Content);
        }
        let length = usize::try_from(frame.content.end - frame.content.start).map_err(|_| BadRecord::Content)?;
        let unpacked;
        let content = if frame.is_raw {
            stored
        } else {
            unpacked = zstd::bulk::decompress(stored, length).map_err(|_| BadRecord::Content)?;
            &unpacked
        };
        if content.len() != length {
            return Err(BadRecord::Content);
        }
        let within = |at: u64| usize::try_from(at.clamp(frame.content.start, frame.content.end) - frame.content.start);
        let first = within(range.start).map_err(|_| BadRecord::Content)?;
        let last = within(range.end).map_err(|_| BadRecord::Content)?;
        out.extend_from_slice(content.get(first..last).unwrap_or_default());
        Ok(())
    }

    /// Checks every frame, which `fetch` reads into an empty buffer, and with `deep` the content's digest too.
    pub(crate) fn verify<E: From<BadRecord>>(
        &self,
        deep: bool,
        mut fetch: impl FnMut(Range<usize>, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut hasher = blake3::Hasher::new();
        let (mut stored, mut content) = (Vec::new(), Vec::new());
        for (nth, frame) in self.frames.iter().enumerate() {
            stored.clear();
            fetch(frame.stored.clone(), &mut stored)?;
            if !deep {
                if check(&[&stored]) != frame.check {
                    return Err(BadRecord::Content.into());
                }
                continue;
            }
            content.clear();
            self.unpack(nth, &stored, &(0..self.size_bytes), &mut content)?;
            hasher.update(&content);
        }
        let is_right = !deep || *hasher.finalize().as_bytes() == self.digest;
        if is_right { Ok(()) } else { Err(BadRecord::Content.into()) }
    }
}

/// The first frame is stored at `stored`.
fn frames(table: &[u8], mut stored: usize, size_bytes: u64) -> Result<Vec<Frame>, BadRecord> {
    let mut frames = Vec::with_capacity(table.len() / TABLE_ROW);
    let mut content = 0u64;
    for row in table.chunks(TABLE_ROW) {
        let marked = u32::from_le_bytes(fixed(row, 0)?);
        let stored_end = stored.checked_add((marked & !RAW) as usize).ok_or(BadRecord::Head)?;
        let content_end = size_bytes.min(content + FRAME as u64);
        frames.push(Frame {
            stored: stored..stored_end,
            is_raw: marked & RAW != 0,
            check: fixed(row, 4)?,
            content: content..content_end,
        });
        (stored, content) = (stored_end, content_end);
    }
    if content == size_bytes { Ok(frames) } else { Err(BadRecord::Head) }
}

fn fixed<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], BadRecord> {
    bytes.get(at..at + N).and_then(|slice| slice.try_into().ok()).ok_or(BadRecord::NoRecord)
}
