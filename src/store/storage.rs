//! Everything a node needs of the store, built once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::{AccountId, Clock, IdSource, PoolId, Quota};
use engine::EngineError;
use engine::postgres::Pool;

use crate::blob::{SegmentSettings, SegmentStore};
use crate::bucket::{Bucket, S3Settings};
use crate::content::EntryContent;
use crate::error::StoreError;
use crate::gc::{Gc, GcReport, GcSettings};
use crate::model::{EmailId, Entry};
use crate::postgres::{PgBlobs, PgGc, PgStore};
use crate::search::{SearchSettings, Searcher};
use crate::signal::Signals;
use crate::sqlite::{SqliteSettings, SqliteStore};
use crate::traits::{BlobIndex, BlobStore, HeldStore, MailStore, QueueStore};
use crate::view::{ViewSettings, Views};

/// Bounds of the store; `sqlite` and `segments` are the embedded engine's.
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
    /// What leaves.
    pub queue: Arc<dyn QueueStore>,
    /// What is kept back.
    pub held: Arc<dyn HeldStore>,
    pub views: Arc<Views>,
    pub search: Arc<Searcher>,
    pub signals: Arc<Signals>,
    dir: PathBuf,
    pub(crate) kept: Kept,
}

/// Where everything is.
pub(crate) enum Kept {
    Embedded { sqlite: Arc<SqliteStore>, segments: Arc<SegmentStore>, gc: Gc },
    Postgres { store: Arc<PgStore>, blobs: Arc<PgBlobs>, gc: PgGc },
}

/// What `/readyz` and `/metrics` say about the store.
#[derive(Clone, Debug)]
pub struct Health {
    /// False if the last word of the disk was that it is full or cannot be written, or of PostgreSQL that it takes no writes.
    pub is_writable: bool,
    /// Free space for an unprivileged process, where the store lies; with PostgreSQL where the node's own files lie.
    pub free_bytes: u64,
    /// False while too little space is left for anything new; what is there can be read and deleted.
    pub has_room: bool,
    /// False while the object store does not answer: large content cannot be read or stored, all else can. `None` without
    /// one.
    pub reaches_objects: Option<bool>,
    pub open_views: usize,
    pub view_entries: usize,
}

/// Tries to empty the logs in one round of garbage collection.
const LOG_TRIES: u32 = 5;
const LOG_PAUSE: std::time::Duration = std::time::Duration::from_millis(200);
/// Accounts whose search texts a round of garbage collection looks at.
const SWEPT: usize = 50;

impl Storage {
    /// Why [`Storage::snapshot`] fails with PostgreSQL, and the way out.
    pub const NO_SNAPSHOT: &str = "a snapshot is of the embedded engine; copy a PostgreSQL server with pg_basebackup and \
         archived WAL (README, \"Running on PostgreSQL\")";

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
        sqlite.watch(segments.room());
        let mail: Arc<dyn MailStore> = sqlite.clone();
        let blobs: Arc<dyn BlobStore> = segments.clone();
        let gc = Gc::new(index, Arc::clone(&segments), Arc::clone(&clock), settings.gc);
        Self::build(dir, settings, clock, (mail, blobs, signals), Kept::Embedded { sqlite, segments, gc })
    }

    /// Connects to the store on a PostgreSQL server, which several nodes share. `dir` holds what is this node's own:
    /// the search's cache.
    ///
    /// # Errors
    /// One line that says what the server refused, or that none answers that takes writes.
    pub async fn open_postgres(
        dir: &Path,
        server: Arc<Pool>,
        settings: StorageSettings,
        clock: Arc<dyn Clock>,
        ids: Arc<IdSource>,
    ) -> Result<Self, StoreError> {
        Self::open_postgres_with(dir, server, None, settings, clock, ids).await
    }

    /// The same with large content in an object store.
    pub async fn open_postgres_with(
        dir: &Path,
        server: Arc<Pool>,
        objects: Option<S3Settings>,
        settings: StorageSettings,
        clock: Arc<dyn Clock>,
        ids: Arc<IdSource>,
    ) -> Result<Self, StoreError> {
        let signals = Arc::new(Signals::new());
        let store = PgStore::open(server, Arc::clone(&signals), Arc::clone(&clock)).await?;
        let bucket = objects.as_ref().map(Bucket::new).transpose()?.map(Arc::new);
        let pg_blobs = PgBlobs::with_bucket(Arc::clone(&store), ids, Arc::clone(&clock), bucket.clone());
        let blobs: Arc<dyn BlobStore> = pg_blobs.clone();
        let mail: Arc<dyn MailStore> = store.clone();
        let gc = PgGc::new(Arc::clone(&store), Arc::clone(&clock), settings.gc, bucket);
        let dir = dir.to_path_buf();
        let build = move || {
            std::fs::create_dir_all(&dir).map_err(|error| EngineError::from_io(&dir, error))?;
            Self::build(&dir, settings, clock, (mail, blobs, signals), Kept::Postgres { store, blobs: pg_blobs, gc })
        };
        tokio::task::spawn_blocking(build).await.unwrap_or(Err(StoreError::Unavailable(EngineError::Closing)))
    }

    /// Makes the folder `to` such that [`Storage::open`] there finds what the store in `from`, an absolute path, holds,
    /// and `from` stays as it is: databases are copied and brought to this version, segments that are never written
    /// again are links. For reading only: what is collected there would be missing here. Blocks.
    ///
    /// # Errors
    /// Names the file that cannot be read or written.
    pub fn stage(from: &Path, to: &Path) -> Result<(), StoreError> {
        for name in ["mail.sqlite", "mail.sqlite-wal"] {
            let file = from.join(name);
            if file.is_file() {
                std::fs::copy(&file, to.join(name)).map_err(|error| EngineError::from_io(&file, error))?;
            }
        }
        let signals = Arc::new(Signals::new());
        let sqlite = SqliteStore::open(to, SqliteSettings::default(), signals, Arc::new(base::SystemClock))?;
        crate::blob::stage(&*sqlite, &from.join("blobs"), &to.join("blobs"))
    }

    fn build(
        dir: &Path,
        settings: StorageSettings,
        clock: Arc<dyn Clock>,
        (mail, blobs, signals): (Arc<dyn MailStore>, Arc<dyn BlobStore>, Arc<Signals>),
        kept: Kept,
    ) -> Result<Self, StoreError> {
        let shared = ViewSettings { is_shared: matches!(kept, Kept::Postgres { .. }), ..settings.views };
        let queue: Arc<dyn QueueStore> = match &kept {
            Kept::Embedded { sqlite, .. } => sqlite.clone(),
            Kept::Postgres { store, .. } => store.clone(),
        };
        let held: Arc<dyn HeldStore> = match &kept {
            Kept::Embedded { sqlite, .. } => sqlite.clone(),
            Kept::Postgres { store, .. } => store.clone(),
        };
        let views = Views::new(Arc::clone(&mail), Arc::clone(&signals), Arc::clone(&clock), shared);
        let search = Searcher::open(dir, settings.search, Arc::clone(&mail), Arc::clone(&blobs), clock)?;
        let (views, search) = (Arc::new(views), Arc::new(search));
        Ok(Self { mail, blobs, queue, held, views, search, signals, dir: dir.to_path_buf(), kept })
    }

    /// The message of an entry, prefix and blob in one.
    pub fn content(&self, entry: &Entry) -> EntryContent {
        EntryContent::new(Arc::clone(&self.blobs), entry)
    }

    /// The same for copies: what is damaged is an error, never a notice.
    pub fn original(&self, entry: &Entry) -> EntryContent {
        EntryContent::original(Arc::clone(&self.blobs), entry)
    }

    /// One bounded round of garbage collection; call it again while [`GcReport::has_more`]. One at a time: a second
    /// caller waits, or on another node of the same PostgreSQL does nothing.
    pub async fn gc(&self) -> Result<GcReport, StoreError> {
        let report = match &self.kept {
            Kept::Embedded { gc, .. } => gc.round().await?,
            Kept::Postgres { gc, .. } => gc.round().await?,
        };
        self.search.sweep(SWEPT).await?;
        self.empty_logs().await?;
        Ok(report)
    }

    /// What was deleted goes from the write-ahead logs too. Readers that are long in between put it off to the next time.
    async fn empty_logs(&self) -> Result<(), StoreError> {
        for _ in 0..LOG_TRIES {
            let is_empty = match &self.kept {
                Kept::Embedded { sqlite, .. } => sqlite.database().empty_log().await?,
                Kept::Postgres { .. } => true,
            };
            if self.search.database().empty_log().await? && is_empty {
                break;
            }
            tokio::time::sleep(LOG_PAUSE).await;
        }
        Ok(())
    }

    /// Writes the embedded engine's tables and the search's anew, so that their free space holds nothing of what was
    /// deleted. Writers wait meanwhile.
    pub async fn wipe(&self) -> Result<(), StoreError> {
        if let Kept::Embedded { sqlite, .. } = &self.kept {
            sqlite.database().rewrite().await?;
        }
        self.search.database().rewrite().await?;
        self.empty_logs().await
    }

    /// Sets what limits an account: its quota, and the pools that it draws on, each with its limit.
    pub async fn set_limits(
        &self,
        account: AccountId,
        quota: Quota,
        pools: &[(PoolId, Quota)],
    ) -> Result<(), StoreError> {
        for (pool, limit) in pools {
            self.mail.set_pool(*pool, *limit).await?;
        }
        self.mail.set_quota(account, quota).await?;
        self.mail.set_pools(account, pools.iter().map(|(pool, _)| *pool).collect()).await
    }

    /// Sets a pool's limit. True if the accounts that it is for, `accounts` of them, have yet to come to it or to leave it:
    /// then [`Storage::set_limits`] for each.
    pub async fn set_pool(&self, pool: PoolId, limit: Quota, accounts: usize) -> Result<bool, StoreError> {
        self.mail.set_pool(pool, limit).await?;
        let members = if limit == Quota::UNLIMITED { 0 } else { accounts as u64 };
        Ok(self.mail.pool(pool).await?.accounts != members)
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
    ///
    /// # Errors
    /// With PostgreSQL always: its own tools copy it.
    pub async fn snapshot(&self, to: &Path) -> Result<usize, StoreError> {
        let Kept::Embedded { sqlite, segments, gc } = &self.kept else {
            let reason = Self::NO_SNAPSHOT;
            return Err(StoreError::Unavailable(EngineError::Postgres { reason: reason.to_owned() }));
        };
        let _paused = gc.pause().await;
        let (sqlite, segments, to) = (Arc::clone(sqlite), Arc::clone(segments), to.to_path_buf());
        let waypoints = gc.waypoints();
        let copy = move || {
            waypoints.pass("snapshot.begun");
            engine::copy(sqlite.file(), &to.join("mail.sqlite"))?;
            waypoints.pass("snapshot.tables");
            let blobs = to.join("blobs");
            std::fs::create_dir_all(&blobs).map_err(|error| EngineError::from_io(&blobs, error))?;
            segments.copy_to(&blobs)
        };
        tokio::task::spawn_blocking(copy).await.unwrap_or(Err(StoreError::Unavailable(EngineError::Closing)))
    }

    /// Wakes whoever waits for an account that another node changed, and was not told so. One question for all of them.
    pub async fn recheck(&self) -> Result<(), StoreError> {
        let Kept::Postgres { store, .. } = &self.kept else { return Ok(()) };
        for (account, modseq) in store.modseqs(&self.signals.watched()).await? {
            self.signals.hear(account, modseq);
        }
        Ok(())
    }

    /// False while too little space is left for anything new.
    pub fn has_room(&self) -> bool {
        match &self.kept {
            Kept::Embedded { segments, .. } => segments.room().check().is_ok(),
            Kept::Postgres { .. } => true,
        }
    }

    pub fn health(&self) -> Health {
        let free_bytes = || {
            let facts = nix::sys::statvfs::statvfs(&self.dir);
            facts.map_or(0, |f| f.blocks_available().saturating_mul(f.fragment_size()))
        };
        let (free_bytes, has_room) = match &self.kept {
            Kept::Embedded { segments, .. } => {
                let seen = segments.room().look();
                (seen.free_bytes, !seen.is_low)
            }
            Kept::Postgres { .. } => (free_bytes(), true),
        };
        let (open_views, view_entries) = self.views.size();
        let is_writable = match &self.kept {
            Kept::Embedded { sqlite, segments, .. } => segments.is_writable() && sqlite.is_writable(),
            Kept::Postgres { store, .. } => store.is_writable(),
        };
        let reaches_objects = match &self.kept {
            Kept::Embedded { .. } => None,
            Kept::Postgres { blobs, .. } => blobs.reaches_objects(),
        };
        Health { is_writable, free_bytes, has_room, reaches_objects, open_views, view_entries }
    }
}
