//! Message content while it arrives: small ones in memory, large ones in a file without a name.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use base::{ByteSize, event};
use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bounds of spools.
#[derive(Clone, Debug)]
pub struct SpoolSettings {
    /// Folder for content above [`SpoolSettings::memory_max`]. Its files have no names: a crash leaves nothing.
    pub folder: PathBuf,
    pub memory_max: ByteSize,
    pub size_max: ByteSize,
    /// What spools may hold in memory together; one that gets no share goes to its file early.
    pub waiting: MemoryBudget,
}

impl SpoolSettings {
    /// With the bounds that a node has unless it is configured otherwise.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            memory_max: ByteSize::kib(256),
            size_max: ByteSize::mib(50),
            waiting: MemoryBudget::new(ByteSize::mib(128)),
        }
    }
}

/// What a spool may hold in memory without a share.
const FREE: usize = 16 * 1024;

/// Content could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("the message is larger than {0}")]
    TooLarge(ByteSize),
    /// Heals when space is freed.
    #[error("no space left for messages on their way in")]
    Full,
    #[error("cannot keep the message: {0}")]
    Failed(std::io::Error),
}

impl From<std::io::Error> for SpoolError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Failed(error),
        }
    }
}

/// Content on its way in. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct Spool {
    settings: Arc<SpoolSettings>,
    memory: BytesMut,
    /// Of the memory for spools.
    share: Option<BudgetPermit>,
    file: Option<File>,
    length: u64,
}

impl Spool {
    pub fn new(settings: Arc<SpoolSettings>) -> Self {
        Self { settings, memory: BytesMut::new(), share: None, file: None, length: 0 }
    }

    /// Appends. After an error the content is incomplete and must be dropped.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        self.length += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.length > self.settings.size_max.0 {
            return Err(SpoolError::TooLarge(self.settings.size_max));
        }
        self.memory.extend_from_slice(bytes);
        if self.memory.len() > self.settings.memory_max.as_usize() || !self.may_wait() {
            self.spill().await?;
        }
        Ok(())
    }

    /// A share is taken at once and whole, so that no spool waits for another.
    fn may_wait(&mut self) -> bool {
        if self.memory.len() > FREE && self.share.is_none() {
            self.share = self.settings.waiting.try_take(self.settings.memory_max.0);
        }
        self.memory.len() <= FREE || self.share.is_some()
    }

    /// Moves what is in memory to the file, on a thread where that may block.
    async fn spill(&mut self) -> Result<(), SpoolError> {
        let (file, folder, bytes) = (self.file.take(), self.settings.folder.clone(), self.memory.split());
        let spilled = tokio::task::spawn_blocking(move || {
            let mut file = match file {
                Some(file) => file,
                None => tempfile::tempfile_in(folder)?,
            };
            file.write_all(&bytes).map(|()| file)
        });
        let spilled = spilled.await.map_err(std::io::Error::other).flatten().map_err(SpoolError::from);
        self.file = Some(spilled.inspect_err(|error| self.tell(error))?);
        Ok(())
    }

    /// Whoever sends hears of it in a word: what the disk said is for the operator.
    fn tell(&self, error: &SpoolError) {
        let folder = self.settings.folder.display();
        match error {
            SpoolError::TooLarge(_) => {}
            SpoolError::Full => tracing::warn!(event = event::DISK_FULL, %folder, %error),
            SpoolError::Failed(_) => tracing::error!(event = event::STORE_FAILED, what = "spool", %folder, %error),
        }
    }

    /// The content is whole.
    pub fn finish(self) -> Spooled {
        Spooled { memory: self.memory.freeze(), _share: self.share, file: self.file.map(Arc::new), length: self.length }
    }
}

/// Whole content.
#[derive(Debug)]
pub struct Spooled {
    /// What comes after the file's content.
    memory: Bytes,
    _share: Option<BudgetPermit>,
    file: Option<Arc<File>>,
    length: u64,
}

impl Spooled {
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The content in memory, once the node's budget has room for as many `copies` of it as its user makes. Keep the
    /// permit as long as the bytes.
    pub async fn into_bytes(self, budget: &MemoryBudget, copies: u64) -> Result<(Bytes, BudgetPermit), SpoolError> {
        let permit = budget.take(self.length.saturating_mul(copies)).await;
        Ok((self.read().await?, permit))
    }

    /// The content in memory; the caller has a permit for it.
    pub async fn read(&self) -> Result<Bytes, SpoolError> {
        let Some(file) = self.file.clone() else { return Ok(self.memory.clone()) };
        let (length, tail) = (self.length, self.memory.clone());
        let read = tokio::task::spawn_blocking(move || {
            let mut content = vec![0; usize::try_from(length).unwrap_or(0)];
            let in_file = content.len().saturating_sub(tail.len());
            let (head, end) = content.split_at_mut(in_file);
            file.read_exact_at(head, 0)?;
            end.copy_from_slice(&tail);
            Ok::<_, std::io::Error>(Bytes::from(content))
        });
        Ok(read.await.map_err(std::io::Error::other)??)
    }
}

/// Memory that messages being worked on may take together.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    kib: Arc<Semaphore>,
    whole: u32,
}

/// A share of the budget; dropping it gives it back.
#[derive(Debug)]
pub struct BudgetPermit {
    _share: Option<OwnedSemaphorePermit>,
}

impl MemoryBudget {
    pub fn new(size: ByteSize) -> Self {
        let whole = u32::try_from(size.0 / 1024).unwrap_or(u32::MAX).clamp(1, u32::MAX >> 3);
        Self { kib: Arc::new(Semaphore::new(whole as usize)), whole }
    }

    /// Waits for room. A message larger than the whole budget takes all of it. Never ask for more while holding some.
    pub async fn take(&self, length: u64) -> BudgetPermit {
        let share = u32::try_from(length / 1024 + 1).unwrap_or(u32::MAX).min(self.whole);
        // The semaphore is never closed.
        BudgetPermit { _share: Arc::clone(&self.kib).acquire_many_owned(share).await.ok() }
    }

    fn try_take(&self, length: u64) -> Option<BudgetPermit> {
        let share = u32::try_from(length / 1024 + 1).ok()?;
        let share = Arc::clone(&self.kib).try_acquire_many_owned(share).ok()?;
        Some(BudgetPermit { _share: Some(share) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(folder: &std::path::Path) -> Arc<SpoolSettings> {
        Arc::new(SpoolSettings {
            folder: folder.to_path_buf(),
            memory_max: ByteSize(1000),
            size_max: ByteSize(10_000),
            waiting: MemoryBudget::new(ByteSize::mib(1)),
        })
    }

    #[tokio::test]
    async fn content_comes_back_whole_from_memory_and_file() {
        let folder = tempfile::tempdir().unwrap();
        let budget = MemoryBudget::new(ByteSize::kib(4));
        for length in [0usize, 1, 999, 1000, 1001, 9_999] {
            let content: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let mut spool = Spool::new(settings(folder.path()));
            for piece in content.chunks(300) {
                spool.write(piece).await.unwrap();
            }
            let (bytes, _permit) = spool.finish().into_bytes(&budget, 1).await.unwrap();
            assert_eq!(bytes, content);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn without_memory_to_spare_content_goes_to_files() {
        let folder = tempfile::tempdir().unwrap();
        let waiting = MemoryBudget::new(ByteSize::kib(130));
        let (memory_max, size_max) = (ByteSize::kib(64), ByteSize::kib(64));
        let settings = SpoolSettings { folder: folder.path().to_path_buf(), memory_max, size_max, waiting };
        let settings = Arc::new(settings);
        let mut spools = Vec::new();
        for _ in 0..5 {
            let mut spool = Spool::new(Arc::clone(&settings));
            spool.write(&[7; 20_000]).await.unwrap();
            spools.push(spool);
        }
        let in_files: Vec<bool> = spools.iter().map(|spool| spool.file.is_some()).collect();
        assert_eq!(in_files, [false, false, true, true, true]);
        for spool in spools {
            assert_eq!(spool.finish().read().await.unwrap(), [7; 20_000].as_slice());
        }
    }

    #[tokio::test]
    async fn too_much_is_refused_and_the_budget_waits() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(settings(folder.path()));
        spool.write(&[0; 9_000]).await.unwrap();
        assert!(matches!(spool.write(&[0; 2_000]).await, Err(SpoolError::TooLarge(ByteSize(10_000)))));
        let budget = MemoryBudget::new(ByteSize::kib(2));
        let first = budget.take(1_000_000).await;
        let wait = tokio::time::timeout(std::time::Duration::from_millis(20), budget.take(1));
        assert!(wait.await.is_err());
        drop(first);
        budget.take(1).await;
    }
}
