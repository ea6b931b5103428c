//! The thread that appends records: whatever waits is written as one piece and synced once.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use engine::{EngineError, Waypoints};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::file::{self, SEGMENT_HEAD};
use super::record::Locator;

/// A record on its way to disk.
pub(super) struct Put {
    pub bytes: Vec<u8>,
    /// Its share of the memory that waiting records may take.
    pub share: OwnedSemaphorePermit,
    pub reply: oneshot::Sender<Result<Locator, EngineError>>,
}

/// Records in one write and sync at most.
const GROUP_MAX: usize = 256;
/// Bytes after which a group is written even if more wait.
const GROUP_BYTES: usize = 8 * 1024 * 1024;
/// The first segments are smaller, so that a small installation stays small.
const FIRST_SIZE: u64 = 8 * 1024 * 1024;

pub(super) struct Writer {
    pub folder: PathBuf,
    pub segment_size: u64,
    pub active: Option<Active>,
    /// The next segment, made ahead of need.
    pub next: Next,
    /// The number of the last segment made; shared with whoever must leave the active one alone.
    pub newest: Arc<AtomicU32>,
    /// The lowest number that may still be written to.
    pub active_number: Arc<AtomicU32>,
    pub waypoints: Waypoints,
}

pub(super) enum Next {
    NotYet,
    Making(JoinHandle<Result<Active, EngineError>>),
    Ready(Active),
}

impl Next {
    /// Waits until it is made, if it is being made.
    fn take(&mut self) -> Option<Active> {
        match std::mem::replace(self, Self::NotYet) {
            Self::NotYet => None,
            Self::Making(making) => making.join().ok().and_then(Result::ok),
            Self::Ready(active) => Some(active),
        }
    }
}

/// The segment that records are appended to.
pub(super) struct Active {
    pub number: u32,
    pub file: File,
    pub end: u64,
    pub size: u64,
}

impl Writer {
    /// Runs until every sender is gone.
    pub(super) fn run(mut self, mut puts: mpsc::Receiver<Put>) {
        let mut buffer = Vec::with_capacity(GROUP_BYTES);
        while let Some(first) = puts.blocking_recv() {
            let mut group = vec![first];
            let mut bytes: usize = group.iter().map(|put| put.bytes.len()).sum();
            while group.len() < GROUP_MAX && bytes < GROUP_BYTES {
                let Ok(put) = puts.try_recv() else { break };
                bytes += put.bytes.len();
                group.push(put);
            }
            self.write_group(group, &mut buffer);
            self.prepare_next();
        }
        // Its file is found again at the next start.
        drop(self.next.take());
    }

    fn write_group(&mut self, group: Vec<Put>, buffer: &mut Vec<u8>) {
        let mut waiting = Vec::with_capacity(group.len());
        for put in group {
            if !self.has_room(buffer.len(), put.bytes.len()) {
                self.flush(buffer, &mut waiting);
                if let Err(error) = self.rotate(put.bytes.len()) {
                    // Nobody waiting is fine: the caller went away.
                    let _ = put.reply.send(Err(error));
                    continue;
                }
            }
            let Some(active) = &self.active else { continue };
            let place = u32::try_from(active.end + buffer.len() as u64).ok().zip(u32::try_from(put.bytes.len()).ok());
            let Some((offset, length)) = place else { continue };
            buffer.extend_from_slice(&put.bytes);
            waiting.push((Locator { segment: active.number, offset, length }, put));
        }
        self.flush(buffer, &mut waiting);
        if buffer.capacity() > 2 * GROUP_BYTES {
            *buffer = Vec::with_capacity(GROUP_BYTES);
        }
    }

    fn has_room(&self, before: usize, length: usize) -> bool {
        self.active.as_ref().is_some_and(|active| active.end + (before + length) as u64 <= active.size)
    }

    /// Writes and syncs what is in `buffer`, then answers those who wait for it.
    fn flush(&mut self, buffer: &mut Vec<u8>, waiting: &mut Vec<(Locator, Put)>) {
        if waiting.is_empty() {
            return;
        }
        let waypoints = self.waypoints;
        waypoints.pass("blob.write");
        let outcome = match &mut self.active {
            Some(active) => active
                .file
                .write_all_at(buffer, active.end)
                .and_then(|()| {
                    waypoints.pass("blob.written");
                    active.file.sync_data()
                })
                .map(|()| active.end += buffer.len() as u64)
                .map_err(|error| EngineError::from_io(&file::path(&self.folder, active.number), error)),
            None => Err(EngineError::Closing),
        };
        if outcome.is_err() {
            // After a failed sync nobody knows what is on disk: this segment takes no more.
            self.active = None;
        }
        buffer.clear();
        waypoints.pass("blob.synced");
        for (locator, put) in waiting.drain(..) {
            let Put { share, reply, .. } = put;
            let _ = reply.send(outcome.clone().map(|()| locator));
            drop(share);
        }
        waypoints.pass("blob.answered");
    }

    /// Goes on to the next segment, which has room for `length` bytes.
    fn rotate(&mut self, length: usize) -> Result<(), EngineError> {
        let needed = SEGMENT_HEAD + length as u64;
        if let Some(active) = self.next.take() {
            let fits = needed <= active.size;
            self.waypoints.pass("segment.rotate");
            self.active_number.store(active.number, Ordering::Release);
            self.active = Some(active);
            if fits {
                return Ok(());
            }
        }
        let number = self.newest.load(Ordering::Acquire) + 1;
        let size = self.size_of(number).max(needed);
        let file = file::make(&self.folder, number, size, self.waypoints)?;
        self.newest.store(number, Ordering::Release);
        self.active_number.store(number, Ordering::Release);
        self.active = Some(Active { number, file, end: SEGMENT_HEAD, size });
        Ok(())
    }

    /// Begins to make the next segment once the active one is half full.
    fn prepare_next(&mut self) {
        let is_due = self.active.as_ref().is_some_and(|active| active.end > active.size / 2);
        let is_made = matches!(&self.next, Next::Making(making) if making.is_finished());
        if is_made && let Some(active) = self.next.take() {
            self.next = Next::Ready(active);
        }
        if !is_due || !matches!(self.next, Next::NotYet) {
            return;
        }
        let number = self.newest.load(Ordering::Acquire) + 1;
        let (folder, size, newest) = (self.folder.clone(), self.size_of(number), Arc::clone(&self.newest));
        let waypoints = self.waypoints;
        let make = move || {
            let file = file::make(&folder, number, size, waypoints)?;
            newest.store(number, Ordering::Release);
            Ok(Active { number, file, end: SEGMENT_HEAD, size })
        };
        let making = std::thread::Builder::new().name("segment-make".to_owned()).spawn(make);
        self.next = making.map_or(Next::NotYet, Next::Making);
    }

    fn size_of(&self, number: u32) -> u64 {
        let doubled = FIRST_SIZE.checked_shl(number.saturating_sub(1).min(16)).unwrap_or(u64::MAX);
        doubled.min(self.segment_size)
    }
}
