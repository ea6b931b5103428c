//! The writer thread: takes jobs, runs as many as are waiting in one transaction, commits, then answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::error::EngineError;
use crate::waypoints::Waypoints;

/// One caller's piece of a transaction.
pub(crate) trait Job: Send {
    /// True to keep what it wrote, false to undo it.
    fn run(&mut self, connection: &Connection) -> bool;
    /// Called once the fate of the whole transaction is known.
    fn finish(self: Box<Self>, committed: Result<(), EngineError>);
    /// True for work that no transaction may be around.
    fn is_apart(&self) -> bool {
        false
    }
}

/// A closure with the caller waiting for its result.
pub(crate) struct Call<F, T, E> {
    pub work: Option<F>,
    pub result: Option<Result<T, E>>,
    pub is_apart: bool,
    pub reply: oneshot::Sender<Result<Result<T, E>, EngineError>>,
}

impl<F, T, E> Job for Call<F, T, E>
where
    F: FnOnce(&Connection) -> Result<T, E> + Send,
    T: Send,
    E: Send,
{
    fn run(&mut self, connection: &Connection) -> bool {
        // A panic ends this job alone: what it wrote is undone with its savepoint, the thread serves the others.
        let caught = self.work.take().map(|work| catch_unwind(AssertUnwindSafe(|| work(connection))));
        self.result = caught.and_then(Result::ok);
        matches!(self.result, Some(Ok(_)))
    }

    fn finish(self: Box<Self>, committed: Result<(), EngineError>) {
        let answer = match (committed, self.result) {
            (Err(error), _) => Err(error),
            (Ok(()), Some(result)) => Ok(result),
            (Ok(()), None) => Err(EngineError::Closing),
        };
        // A caller that went away does not need its answer; what it wrote stays, as it would after a lost reply.
        let _ = self.reply.send(answer);
    }

    fn is_apart(&self) -> bool {
        self.is_apart
    }
}

/// Jobs in one transaction at most: bounds the wait of the first and the memory of all.
const GROUP_MAX: usize = 256;

/// Rows changed after which the log is worth bringing into the file: some ten megabytes of log under load.
const ROWS_PER_CHECKPOINT: u64 = 10_000;

/// Brings the log into the file whenever asked, beside the writer, which only has to do the rest when the log is long.
pub(crate) fn run_checkpoints(connection: &Connection, asked: &Receiver<()>) {
    while asked.recv().is_ok() {
        // One that fails is made up for by the next, or by the writer itself.
        let _ = connection.execute_batch("PRAGMA wal_checkpoint(PASSIVE)");
    }
}

/// Runs until every sender is gone.
pub(crate) fn run(
    connection: &Connection,
    file: &Path,
    mut jobs: mpsc::Receiver<Box<dyn Job>>,
    checkpoints: SyncSender<()>,
    waypoints: Waypoints,
) {
    let mut checkpointed = 0;
    let mut group: Vec<Box<dyn Job>> = Vec::with_capacity(GROUP_MAX);
    let mut apart: Option<Box<dyn Job>> = None;
    while let Some(mut first) = apart.take().or_else(|| jobs.blocking_recv()) {
        if first.is_apart() {
            first.run(connection);
            first.finish(Ok(()));
            continue;
        }
        let outcome = commit_group(connection, first, &mut jobs, &mut group, &mut apart, waypoints);
        let outcome = outcome.map_err(|error| {
            if !connection.is_autocommit() {
                // If even the rollback fails, the next BEGIN reports why.
                let _ = connection.execute_batch("ROLLBACK");
            }
            EngineError::from_sqlite(file, error)
        });
        waypoints.pass("commit.told");
        for job in group.drain(..) {
            job.finish(outcome.clone());
        }
        waypoints.pass("commit.answered");
        if connection.total_changes() - checkpointed > ROWS_PER_CHECKPOINT {
            checkpointed = connection.total_changes();
            // One already asked for will do.
            let _ = checkpoints.try_send(());
        }
    }
    drop(checkpoints);
    // Leaves one tidy file behind; after a crash, the next open replays the log instead.
    let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
}

fn commit_group(
    connection: &Connection,
    first: Box<dyn Job>,
    jobs: &mut mpsc::Receiver<Box<dyn Job>>,
    group: &mut Vec<Box<dyn Job>>,
    apart: &mut Option<Box<dyn Job>>,
    waypoints: Waypoints,
) -> rusqlite::Result<()> {
    let mut next = Some(first);
    let begun = connection.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([]));
    let mut failed = begun.err();
    waypoints.pass("commit.begun");
    while let Some(mut job) = next {
        if failed.is_none() {
            failed = run_in_savepoint(connection, job.as_mut()).err();
            waypoints.pass("commit.job");
        }
        group.push(job);
        next = if group.len() < GROUP_MAX { jobs.try_recv().ok() } else { None };
        if next.as_ref().is_some_and(|job| job.is_apart()) {
            // It comes after the commit.
            *apart = next.take();
        }
    }
    match failed {
        Some(error) => Err(error),
        None => {
            waypoints.pass("commit.ready");
            connection.prepare_cached("COMMIT")?.execute([]).map(drop)
        }
    }
}

fn run_in_savepoint(connection: &Connection, job: &mut dyn Job) -> rusqlite::Result<()> {
    connection.prepare_cached("SAVEPOINT job")?.execute([])?;
    let keep = job.run(connection);
    if connection.is_autocommit() {
        // SQLite rolled the whole transaction back by itself (disk full, I/O error): the group fails as one.
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL),
            Some("the transaction was rolled back".to_owned()),
        ));
    }
    if !keep {
        connection.prepare_cached("ROLLBACK TO job")?.execute([])?;
    }
    connection.prepare_cached("RELEASE job")?.execute([])?;
    Ok(())
}

/// Name of the writer thread of `file`, for tools that list threads.
pub(crate) fn thread_name(file: &Path) -> String {
    let stem = file.file_stem().map_or_else(|| PathBuf::from("db"), PathBuf::from);
    format!("write-{}", stem.display()).chars().take(15).collect()
}
