//! One database file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::crc::add_row_crc;
use crate::error::EngineError;
use crate::filesystem::refuse_network;
use crate::waypoints::Waypoints;
use crate::writer::{self, Call, Job};

/// How a file is opened.
pub struct Settings {
    /// Schema steps, oldest first. Step `n` takes a file from format `n` to `n + 1` (`PRAGMA user_version`);
    /// steps are only ever appended, never edited.
    pub migrations: &'static [&'static str],
    /// Reader connections, and so reads at a time.
    pub readers: usize,
    /// Page cache of each connection.
    pub cache_kib: u32,
}

/// An open database: one writer thread, a pool of readers. Dropping it waits for the writer to finish what it holds.
pub struct Database {
    file: PathBuf,
    jobs: Option<mpsc::Sender<Box<dyn Job>>>,
    writer: Option<JoinHandle<()>>,
    checkpointer: Option<JoinHandle<()>>,
    readers: Arc<Readers>,
}

struct Readers {
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

/// Writers that may wait; beyond, callers wait for a place in the queue.
const JOBS_MAX: usize = 1024;

/// Pages in the log (64 MiB) after which the writer itself brings the rest into the file. SQLite's own 1000 is reached by
/// every second full group: measured, each of those commits then waits for two more syncs.
const CHECKPOINT_PAGES: u32 = 16_384;

/// Prepared statements each connection keeps.
const STATEMENTS_KEPT: usize = 128;

impl Database {
    /// Opens or creates `file` and brings its schema up to date.
    ///
    /// # Errors
    /// Names the file: not a database, in use by another process, of a newer format, on a network file system.
    pub fn open(file: &Path, settings: &Settings) -> Result<Self, EngineError> {
        Self::open_watched(file, settings, Waypoints::default())
    }

    /// [`Database::open`] with someone who watches each commit.
    pub fn open_watched(file: &Path, settings: &Settings, waypoints: Waypoints) -> Result<Self, EngineError> {
        let failed = |error| EngineError::from_sqlite(file, error);
        if let Some(folder) = file.parent() {
            refuse_network(folder)?;
        }
        let connection = Connection::open(file).map_err(failed)?;
        prepare(&connection, settings.cache_kib).map_err(failed)?;
        migrate(&connection, file, settings.migrations, waypoints)?;
        let readers = (0..settings.readers.max(1))
            .map(|_| open_reader(file, settings.cache_kib))
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        let beside = Connection::open(file).map_err(failed)?;
        prepare(&beside, 1024).map_err(failed)?;
        let no_thread = |error| EngineError::from_io(file, error);
        let (ask, asked) = std::sync::mpsc::sync_channel(1);
        let (jobs, inbox) = mpsc::channel(JOBS_MAX);
        let writer = {
            let file = file.to_path_buf();
            std::thread::Builder::new()
                .name(writer::thread_name(&file))
                .spawn(move || writer::run(&connection, &file, inbox, ask, waypoints))
                .map_err(no_thread)?
        };
        let checkpointer = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || writer::run_checkpoints(&beside, &asked))
            .map_err(no_thread)?;
        let permits = Semaphore::new(readers.len());
        Ok(Self {
            file: file.to_path_buf(),
            jobs: Some(jobs),
            writer: Some(writer),
            checkpointer: Some(checkpointer),
            readers: Arc::new(Readers { idle: Mutex::new(readers), permits }),
        })
    }

    /// The file this database lives in.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Runs `work` inside the next group commit. When this returns `Ok(Ok(value))`, what `work` wrote is on disk.
    /// When `work` returns an error, its own writes are undone and others in the group are unaffected.
    ///
    /// Cancel safety: dropping the future does not undo the write; it may or may not happen.
    ///
    /// # Errors
    /// The outer error says that the whole group failed and nothing of it was written.
    pub async fn write<T, E, F>(&self, work: F) -> Result<Result<T, E>, EngineError>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        self.send(work, false).await
    }

    async fn send<T, E, F>(&self, work: F, is_apart: bool) -> Result<Result<T, E>, EngineError>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or(EngineError::Closing)?;
        let call = Call { work: Some(work), result: None, is_apart, reply };
        jobs.send(Box::new(call)).await.map_err(|_| EngineError::Closing)?;
        answer.await.map_err(|_| EngineError::Closing)?
    }

    /// Brings the whole log into the file and leaves an empty one, so that nothing is left in it of what was deleted. False
    /// if readers did not let it: then again later. Writers wait for a tenth of a second at most.
    pub async fn empty_log(&self) -> Result<bool, EngineError> {
        self.send(empty_log, true).await?.map_err(|error| EngineError::from_sqlite(&self.file, error))
    }

    /// Writes the file anew, so that its free space holds nothing of what was deleted. Writers wait as long as that takes,
    /// and the file system needs room for two more copies. False as [`Database::empty_log`].
    pub async fn rewrite(&self) -> Result<bool, EngineError> {
        let rewrite = |sql: &Connection| {
            // Not in memory.
            sql.pragma_update(None, "temp_store", "FILE")?;
            let written = sql.execute_batch("VACUUM");
            sql.pragma_update(None, "temp_store", "MEMORY")?;
            written?;
            empty_log(sql)
        };
        self.send(rewrite, true).await?.map_err(|error| EngineError::from_sqlite(&self.file, error))
    }

    /// [`Database::write`] for work that fails only as SQL fails.
    pub async fn write_sql<T, F>(&self, work: F) -> Result<T, EngineError>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        self.write(work).await?.map_err(|error| EngineError::from_sqlite(&self.file, error))
    }

    /// Runs `work` on a reader connection, on a thread where it may block. It sees one consistent state per statement;
    /// use a transaction inside for more.
    pub async fn read<T, F>(&self, work: F) -> Result<T, EngineError>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let readers = Arc::clone(&self.readers);
        let file = self.file.clone();
        let permit = readers.permits.acquire().await.map_err(|_| EngineError::Closing)?;
        permit.forget();
        let readers_here = Arc::clone(&readers);
        let done = tokio::task::spawn_blocking(move || {
            let lease = Lease { connection: readers_here.idle.lock().pop(), readers: &readers_here };
            match &lease.connection {
                Some(connection) => work(connection).map_err(|error| EngineError::from_sqlite(&file, error)),
                None => Err(EngineError::Closing),
            }
        });
        done.await.unwrap_or(Err(EngineError::Closing))
    }

    /// [`Database::read`] on the calling thread, on a connection of its own: for start-up and checks.
    pub fn read_now<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, EngineError> {
        let failed = |error| EngineError::from_sqlite(&self.file, error);
        let connection = open_reader(&self.file, 1024).map_err(failed)?;
        work(&connection).map_err(failed)
    }

    /// Turns an SQL error met inside a closure into what callers act on.
    pub fn error(&self, error: rusqlite::Error) -> EngineError {
        EngineError::from_sqlite(&self.file, error)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.jobs.take();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
        if let Some(checkpointer) = self.checkpointer.take() {
            let _ = checkpointer.join();
        }
    }
}

fn empty_log(sql: &Connection) -> rusqlite::Result<bool> {
    sql.busy_timeout(std::time::Duration::from_millis(100))?;
    let is_busy = sql.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
    sql.busy_timeout(BUSY_WAIT)?;
    Ok(is_busy? == 0)
}

/// A reader on loan: goes back to the pool even if the work panics.
struct Lease<'a> {
    connection: Option<Connection>,
    readers: &'a Readers,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.readers.idle.lock().push(connection);
        }
        self.readers.permits.add_permits(1);
    }
}

/// Copies the database `file`, as of one moment, to `to`, while others read and write it. On return the copy is on disk.
/// Blocks as long as that takes.
///
/// # Errors
/// Names the file that cannot be read or written.
pub fn copy(file: &Path, to: &Path) -> Result<(), EngineError> {
    let (unread, unwritten) =
        (|error| EngineError::from_sqlite(file, error), |error| EngineError::from_sqlite(to, error));
    let from = open_reader(file, 1024).map_err(unread)?;
    let mut copy = Connection::open(to).map_err(unwritten)?;
    copy.pragma_update(None, "synchronous", "FULL").map_err(unwritten)?;
    // All in one step: what is written meanwhile goes to the log and neither waits nor shows.
    for _ in 0..COPY_TRIES {
        let backup = Backup::new(&from, &mut copy).map_err(unwritten)?;
        match backup.step(-1).map_err(unwritten)? {
            StepResult::Done => return Ok(()),
            _ => std::thread::sleep(std::time::Duration::from_millis(100)),
        }
    }
    Err(EngineError::InUse { file: file.to_path_buf() })
}

/// Tries of [`copy`], a tenth of a second apart, while another process holds the file.
const COPY_TRIES: u32 = 50;

/// For what another connection holds.
const BUSY_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

fn prepare(connection: &Connection, cache_kib: u32) -> rusqlite::Result<()> {
    keep_statements(connection)?;
    add_row_crc(connection)?;
    connection.busy_timeout(BUSY_WAIT)?;
    // What is deleted is overwritten, but for copies that moving rows left on a page: see [`Database::rewrite`].
    connection.pragma_update(None, "secure_delete", "ON")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "cache_size", -i64::from(cache_kib))
}

/// Prepared statements stay prepared: without a stable plan SQLite compiles those again whose plan looked at a value.
fn keep_statements(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

fn open_reader(file: &Path, cache_kib: u32) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    keep_statements(&connection)?;
    add_row_crc(&connection)?;
    connection.busy_timeout(BUSY_WAIT)?;
    connection.pragma_update(None, "cache_size", -i64::from(cache_kib))?;
    Ok(connection)
}

fn migrate(connection: &Connection, file: &Path, steps: &[&str], waypoints: Waypoints) -> Result<(), EngineError> {
    let failed = |error| EngineError::from_sqlite(file, error);
    let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    let known = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(EngineError::TooNew { file: file.to_path_buf(), found, known });
    }
    for (version, step) in (1u32..).zip(steps).filter(|(version, _)| *version > found) {
        waypoints.pass("migrate.step");
        connection.execute_batch(&format!("BEGIN IMMEDIATE;\n{step}")).map_err(failed)?;
        waypoints.pass("migrate.changed");
        connection.execute_batch(&format!("PRAGMA user_version = {version};\nCOMMIT;")).map_err(failed)?;
        waypoints.pass("migrate.committed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings =
        Settings { migrations: &["CREATE TABLE t (n INTEGER PRIMARY KEY) STRICT;"], readers: 2, cache_kib: 512 };

    fn count(db: &Connection) -> rusqlite::Result<i64> {
        db.query_row("SELECT count(*) FROM t", [], |row| row.get(0))
    }

    #[tokio::test]
    async fn parallel_writes_all_land_and_a_failed_one_harms_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let db = Arc::new(Database::open(&folder.path().join("a.sqlite"), &SETTINGS).unwrap());
        let mut writes = tokio::task::JoinSet::new();
        for n in 0..100i64 {
            let db = Arc::clone(&db);
            writes.spawn(async move {
                db.write(move |sql| {
                    sql.execute("INSERT INTO t VALUES (?1)", [n]).map_err(|_| "sql")?;
                    if n % 10 == 3 { Err("refused") } else { Ok(()) }
                })
                .await
                .unwrap()
            });
        }
        let refused = writes.join_all().await.into_iter().filter(Result::is_err).count();
        assert_eq!((refused, db.read(count).await.unwrap()), (10, 90));
    }

    #[tokio::test]
    async fn a_panicking_read_gives_its_connection_back() {
        let folder = tempfile::tempdir().unwrap();
        let db = Database::open(&folder.path().join("a.sqlite"), &SETTINGS).unwrap();
        for _ in 0..5 {
            assert!(db.read(|_| -> rusqlite::Result<()> { panic!("as asked") }).await.is_err());
        }
        assert_eq!(db.read(count).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_panicking_write_is_undone_and_the_next_one_works() {
        let folder = tempfile::tempdir().unwrap();
        let db = Database::open(&folder.path().join("a.sqlite"), &SETTINGS).unwrap();
        let panics = db.write_sql(|sql| -> rusqlite::Result<()> {
            sql.execute("INSERT INTO t VALUES (1)", [])?;
            panic!("as asked")
        });
        assert!(panics.await.is_err());
        db.write_sql(|sql| sql.execute("INSERT INTO t VALUES (2)", [])).await.unwrap();
        assert_eq!(db.read(count).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn what_was_deleted_is_in_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.sqlite");
        let db = Database::open(&file, &SETTINGS).unwrap();
        let made = db.write_sql(|sql| {
            sql.execute_batch("CREATE TABLE s (a INTEGER PRIMARY KEY, b TEXT); CREATE INDEX s_b ON s (b)")?;
            (0..200).try_for_each(|n| {
                let text = format!("the secret of {n} {}", "x".repeat(n * 37));
                sql.execute("INSERT INTO s VALUES (?1, ?2)", (n as i64, text)).map(drop)
            })
        });
        made.await.unwrap();
        let is_there = || {
            let read = |end: &str| std::fs::read(folder.path().join(format!("a.sqlite{end}"))).unwrap_or_default();
            [read(""), read("-wal")].concat().windows(13).any(|some| some == b"the secret of")
        };
        assert!(db.empty_log().await.unwrap() && is_there());
        db.write_sql(|sql| sql.execute("DELETE FROM s WHERE a < 190", [])).await.unwrap();
        db.write_sql(|sql| sql.execute("DELETE FROM s", [])).await.unwrap();
        assert!(is_there(), "the log has it");
        // Writes go on around it.
        let others = (0..50i64).map(|n| db.write_sql(move |sql| sql.execute("INSERT INTO t VALUES (?1)", [n])));
        let (emptied, others) = tokio::join!(db.empty_log(), futures(others));
        assert!(emptied.unwrap() && others == 50);
        assert!(db.empty_log().await.unwrap() && !is_there());
        assert!(db.rewrite().await.unwrap());
        assert_eq!(db.read(count).await.unwrap(), 50);
    }

    async fn futures<T>(all: impl Iterator<Item = impl Future<Output = Result<T, EngineError>>>) -> usize {
        let mut done = 0;
        for one in all {
            done += usize::from(one.await.is_ok());
        }
        done
    }

    #[tokio::test]
    async fn an_open_reader_keeps_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.sqlite");
        let db = Database::open(&file, &SETTINGS).unwrap();
        let reader = Connection::open(&file).unwrap();
        let reading = reader.unchecked_transaction().unwrap();
        assert_eq!(count(&reading).unwrap(), 0);
        db.write_sql(|sql| sql.execute("INSERT INTO t VALUES (1)", [])).await.unwrap();
        assert!(!db.empty_log().await.unwrap());
        drop(reading);
        assert!(db.empty_log().await.unwrap());
    }

    #[tokio::test]
    async fn closing_leaves_everything_in_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let db = Database::open(&folder.path().join("a.sqlite"), &SETTINGS).unwrap();
        for first in (0..30_000).step_by(100) {
            let rows = move |sql: &Connection| {
                (first..first + 100).try_for_each(|n| sql.execute("INSERT INTO t VALUES (?1)", [n]).map(drop))
            };
            db.write_sql(rows).await.unwrap();
        }
        drop(db);
        let copy = folder.path().join("copy.sqlite");
        std::fs::copy(folder.path().join("a.sqlite"), &copy).unwrap();
        assert_eq!(count(&Connection::open(copy).unwrap()).unwrap(), 30_000);
    }

    #[test]
    fn what_is_no_database_or_too_new_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.sqlite");
        std::fs::write(&file, "this is no database, but it is long enough to be taken for one".repeat(20)).unwrap();
        let error = Database::open(&file, &SETTINGS).err().unwrap();
        assert!(matches!(&error, EngineError::Damaged { .. }) && error.to_string().contains("a.sqlite"), "{error}");
        let file = folder.path().join("b.sqlite");
        Connection::open(&file).unwrap().pragma_update(None, "user_version", 9).unwrap();
        assert!(matches!(Database::open(&file, &SETTINGS).err(), Some(EngineError::TooNew { found: 9, known: 1, .. })));
    }
}
