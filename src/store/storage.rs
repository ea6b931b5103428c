//! Everything a node needs of the store, built once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::{AccountId, Clock, IdSource};
use engine::EngineError;

use crate::audit::{self, AuditOptions, AuditReport};
use crate::blob::{SegmentSettings, SegmentStore};
use crate::content::EntryContent;
use crate::error::StoreError;
use crate::gc::{Gc, GcReport, GcSettings};
use crate::model::{EmailId, Entry};
use crate::search::{SearchSettings, Searcher};
use crate::signal::Signals;
use crate::sqlite::{SqliteSettings, SqliteStore};
use crate::traits::{BlobIndex, BlobStore, MailStore};
use crate::view::{ViewSettings, Views};

/// Bounds of the embedded store.
#[derive(Clone, Copy, Debug, Default)]
pub struct StorageSettings {
    pub sqlite: SqliteSettings,
    pub segments: SegmentSettings,
    pub views: ViewSettings,
    pub gc: GcSettings,
    pub search: SearchSettings,
}

/// The store as `roles/` builds it and hands it to everyone.
pub struct Storage {
    pub mail: Arc<dyn MailStore>,
    pub blobs: Arc<dyn BlobStore>,
    pub views: Arc<Views>,
    pub search: Arc<Searcher>,
    pub signals: Arc<Signals>,
    dir: PathBuf,
    sqlite: Arc<SqliteStore>,
    segments: Arc<SegmentStore>,
    gc: Gc,
}

/// What `/readyz` and `/metrics` say about the store.
#[derive(Clone, Debug)]
pub struct Health {
    /// False if the last word of the disk was that it is full or cannot be written.
    pub is_writable: bool,
    /// Free space for an unprivileged process, where the store lies.
    pub free_bytes: u64,
    pub open_views: usize,
    pub view_entries: usize,
}

/// Accounts whose search texts a round of garbage collection looks at.
const SWEPT: usize = 50;

impl Storage {
    /// Opens or creates the embedded store in `dir`: `mail.sqlite` and `blobs/`. Blocks.
    ///
    /// # Errors
    /// One line that names the file and what is wrong with it.
    pub fn open(
        dir: &Path,
        settings: StorageSettings,
        clock: Arc<dyn Clock>,
        ids: Arc<IdSource>,
    ) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir).map_err(|error| EngineError::from_io(dir, error))?;
        let signals = Arc::new(Signals::new());
        let sqlite = SqliteStore::open(dir, settings.sqlite, Arc::clone(&signals), Arc::clone(&clock))?;
        let index: Arc<dyn BlobIndex> = sqlite.clone();
        let segments = SegmentStore::open(dir, settings.segments, Arc::clone(&index), Arc::clone(&clock), ids)?;
        let mail: Arc<dyn MailStore> = sqlite.clone();
        let views = Views::new(Arc::clone(&mail), Arc::clone(&signals), Arc::clone(&clock), settings.views);
        let blobs: Arc<dyn BlobStore> = segments.clone();
        let search = Searcher::open(dir, settings.search, Arc::clone(&mail), Arc::clone(&blobs), Arc::clone(&clock))?;
        let gc = Gc::new(index, Arc::clone(&segments), clock, settings.gc);
        Ok(Self {
            mail,
            blobs,
            views: Arc::new(views),
            search: Arc::new(search),
            signals,
            dir: dir.to_path_buf(),
            sqlite,
            segments,
            gc,
        })
    }

    /// The message of an entry, prefix and blob in one.
    pub fn content(&self, entry: &Entry) -> EntryContent {
        EntryContent::new(Arc::clone(&self.blobs), entry)
    }

    /// One bounded round of garbage collection; call it again while [`GcReport::has_more`]. One at a time: a second
    /// caller waits.
    pub async fn gc(&self) -> Result<GcReport, StoreError> {
        let report = self.gc.round().await?;
        self.search.sweep(SWEPT).await?;
        Ok(report)
    }

    /// [`MailStore::delete_account`], and what searches keep of it.
    pub async fn delete_account(&self, account: AccountId) -> Result<(), StoreError> {
        self.mail.delete_account(account).await?;
        self.search.forget(account).await
    }

    /// [`MailStore::purge`], and what searches keep of the account.
    pub async fn purge(&self, account: AccountId, emails: Option<Vec<EmailId>>) -> Result<u64, StoreError> {
        let purged = self.mail.purge(account, emails).await?;
        self.search.forget(account).await?;
        Ok(purged)
    }

    /// Copies the store, as of one moment, into the existing folder `to`, while it is in use; gives the number of segment
    /// files. The index is copied first: content is on disk before the index knows of it, so that whatever the copy of
    /// the index names is in the segments copied after it. Garbage collection waits meanwhile.
    pub async fn snapshot(&self, to: &Path) -> Result<usize, StoreError> {
        let _paused = self.gc.pause().await;
        let (sqlite, segments, to) = (Arc::clone(&self.sqlite), Arc::clone(&self.segments), to.to_path_buf());
        let copy = move || {
            engine::copy(sqlite.file(), &to.join("mail.sqlite"))?;
            let blobs = to.join("blobs");
            std::fs::create_dir_all(&blobs).map_err(|error| EngineError::from_io(&blobs, error))?;
            segments.copy_to(&blobs)
        };
        tokio::task::spawn_blocking(copy).await.unwrap_or(Err(StoreError::Unavailable(EngineError::Closing)))
    }

    /// Checks every invariant of the store. May run while it is in use.
    pub async fn audit(&self, options: AuditOptions) -> Result<AuditReport, StoreError> {
        audit::run(&self.sqlite, &self.segments, options).await
    }

    pub fn health(&self) -> Health {
        let facts = nix::sys::statvfs::statvfs(&self.dir);
        let free_bytes = facts.map_or(0, |f| f.blocks_available().saturating_mul(f.fragment_size()));
        let (open_views, view_entries) = self.views.size();
        let is_writable = self.segments.is_writable() && self.sqlite.is_writable();
        Health { is_writable, free_bytes, open_views, view_entries }
    }
}
