//! What callers do about a failing database.

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::ErrorCode;

/// Why an operation failed. Cheap to clone: one failed commit is told to everyone who was in it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// Heals when space is freed; nothing was written.
    #[error("{}: no space left on the device", file.display())]
    DiskFull { file: PathBuf },
    /// The file is not a database or its content contradicts itself: an operator must act.
    #[error("{}: the file is damaged ({reason}); restore it from a backup or run `ortler audit`", file.display())]
    Damaged { file: PathBuf, reason: String },
    /// Another process holds the file.
    #[error("{}: in use by another process; stop that one first", file.display())]
    InUse { file: PathBuf },
    /// The file was written by a newer version of this program.
    #[error("{}: has format {found}, this version knows up to {known}; install the newer version", file.display())]
    TooNew { file: PathBuf, found: u32, known: u32 },
    /// The folder lies where locks and syncs cannot be trusted.
    #[error("{}: lies on a network file system ({kind}), which cannot hold an embedded store; use a local disk", file.display())]
    NetworkFilesystem { file: PathBuf, kind: &'static str },
    /// The database is being closed.
    #[error("the store is shutting down")]
    Closing,
    /// The machine refused to read or write a file of ours.
    #[error("{}: {source}", file.display())]
    Io { file: PathBuf, source: Arc<std::io::Error> },
    /// The server refused or did not answer. Heals when it does; a change whose commit was not answered may have happened.
    #[error("PostgreSQL: {reason}")]
    Postgres { reason: String },
    /// Anything else: a fault of ours or of the machine.
    #[error("{}: {source}", file.display())]
    Failed { file: PathBuf, source: Arc<rusqlite::Error> },
}

impl EngineError {
    /// True if the same call may succeed later without an operator.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::DiskFull { .. } | Self::Closing | Self::InUse { .. } | Self::Postgres { .. })
    }

    /// What an I/O error on `file` means: a full disk or quota heals, the rest is the machine's fault.
    pub fn from_io(file: &std::path::Path, error: std::io::Error) -> Self {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let file = file.to_path_buf();
        match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => Self::DiskFull { file },
            _ => Self::Io { file, source: Arc::new(error) },
        }
    }

    /// What the server keeps cannot be ours.
    pub fn damaged(reason: impl Into<String>) -> Self {
        Self::Damaged { file: "postgresql".into(), reason: reason.into() }
    }

    pub(crate) fn from_sqlite(file: &std::path::Path, error: rusqlite::Error) -> Self {
        let file = file.to_path_buf();
        let code = error.sqlite_error_code();
        match code {
            Some(ErrorCode::DiskFull) => Self::DiskFull { file },
            _ if tells_of_damage(&error) => Self::Damaged { file, reason: error.to_string() },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse { file },
            _ if is_out_of_space(&error) => Self::DiskFull { file },
            _ => Self::Failed { file, source: Arc::new(error) },
        }
    }
}

/// True if the file contradicts itself, or holds what strict tables never do.
pub fn tells_of_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || matches!(
            error,
            InvalidColumnType(..) | IntegralValueOutOfRange(..) | FromSqlConversionFailure(..) | Utf8Error(..)
        )
}

/// A write that meets ENOSPC outside SQLite's own check (the WAL, the shared-memory index) shows as an I/O error.
fn is_out_of_space(error: &rusqlite::Error) -> bool {
    // SQLITE_IOERR_WRITE, _SHMSIZE, _SHMOPEN and _FSYNC: extended codes of SQLITE_IOERR (10).
    const OUT_OF_SPACE_SHAPES: [i32; 4] = [10 | (3 << 8), 10 | (19 << 8), 10 | (18 << 8), 10 | (4 << 8)];
    error.sqlite_error().is_some_and(|inner| OUT_OF_SPACE_SHAPES.contains(&inner.extended_code))
}
