//! The space that is left where the embedded store lies: below a mark nothing new comes in, so that what frees space, and
//! whatever else shares the disk, can go on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{ByteSize, Clock};
use engine::EngineError;
use parking_lot::Mutex;

use crate::error::StoreError;

pub(crate) struct Room {
    dir: PathBuf,
    free_min: ByteSize,
    clock: Arc<dyn Clock>,
    seen: Mutex<Seen>,
}

#[derive(Clone, Copy)]
pub(crate) struct Seen {
    at: Option<Instant>,
    pub free_bytes: u64,
    pub is_low: bool,
}

/// The file system is asked so often at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Of the file system, where the configured mark would be more.
const SHARE_MAX: u64 = 20;

impl Room {
    pub(crate) fn new(dir: &Path, free_min: ByteSize, clock: Arc<dyn Clock>) -> Arc<Self> {
        let seen = Mutex::new(Seen { at: None, free_bytes: 0, is_low: false });
        Arc::new(Self { dir: dir.to_path_buf(), free_min, clock, seen })
    }

    /// [`StoreError::Full`] while there is less space than there should be.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match self.free_min.0 > 0 && self.look().is_low {
            true => Err(StoreError::Full(EngineError::DiskFull { file: self.dir.clone() })),
            false => Ok(()),
        }
    }

    /// What there is, a second old at most. Says in the log when the mark is crossed.
    pub(crate) fn look(&self) -> Seen {
        let mut seen = self.seen.lock();
        let now = self.clock.now();
        if seen.at.is_some_and(|at| now.saturating_duration_since(at) < LOOK_EVERY) {
            return *seen;
        }
        seen.at = Some(now);
        // A file system that does not answer will refuse the write itself.
        let Ok(facts) = nix::sys::statvfs::statvfs(&self.dir) else { return *seen };
        let size = facts.blocks().saturating_mul(facts.fragment_size());
        seen.free_bytes = facts.blocks_available().saturating_mul(facts.fragment_size());
        let mark = self.free_min.0.min(size / SHARE_MAX);
        // A little more must be free to be enough again, so that it does not go back and forth.
        let is_low = seen.free_bytes < if seen.is_low { mark + mark / 16 } else { mark };
        if is_low != seen.is_low {
            let (dir, free) = (self.dir.display(), ByteSize(seen.free_bytes));
            match is_low {
                true => {
                    tracing::error!(event = base::event::DISK_FULL, %dir, %free, "no new mail until there is space")
                }
                false => tracing::info!(event = base::event::DISK_HEALED, %dir, %free),
            }
        }
        seen.is_low = is_low;
        *seen
    }
}
