//! A whole installation moves from one engine to another: directory, mail and log.

use std::sync::Arc;

use anyhow::Context as _;
use config::Config;
use serde_json::{Value, json};
use store::{CopyError, CopyReport};

use super::{Engines, engines};

/// What the command asks for.
pub struct Copying<'a> {
    pub from: &'a Config,
    pub to: &'a Config,
    /// Nothing is written.
    pub is_verify: bool,
}

impl Copying<'_> {
    /// Copies, or only compares; gives what was done, and what differs in `differences`.
    pub async fn run(self, progress: &(dyn Fn(&CopyReport) + Send + Sync)) -> anyhow::Result<Value> {
        let (from, to) = (self.from, self.to);
        refuse_running(from).await?;
        refuse_running(to).await?;
        let source = Engines::open(from).await.context("the source")?;
        let opened = self.open_target(&source).await;
        let (done, target) = match opened {
            Ok(target) => (self.work(&source, &target, progress).await, Some(target)),
            Err(error) => (Err(error), None),
        };
        if let Some(target) = target {
            target.close().await;
        }
        source.close().await;
        done
    }

    /// Both may use the same folder, if one of them has its data on a server.
    async fn open_target(&self, source: &Engines) -> anyhow::Result<Engines> {
        let (from, to) = (self.from, self.to);
        tokio::fs::create_dir_all(&to.data).await.with_context(|| to.data.display().to_string())?;
        let is_shared = from.data.canonicalize()? == to.data.canonicalize()?;
        anyhow::ensure!(
            !is_shared || from.postgres.is_some() != to.postgres.is_some(),
            "{}: source and target are the same",
            to.data.display()
        );
        let target = if is_shared { Engines::open_beside(to).await } else { Engines::open(to).await };
        let target = target.context("the target")?;
        if let (Some(one), Some(other)) = (&source.postgres, &target.postgres) {
            let is_same = engines::is_same_database(one, other).await;
            if !matches!(is_same, Ok(false)) {
                target.close().await;
                is_same?;
                anyhow::bail!("source and target are the same database");
            }
        }
        Ok(target)
    }

    async fn work(
        &self,
        source: &Engines,
        target: &Engines,
        progress: &(dyn Fn(&CopyReport) + Send + Sync),
    ) -> anyhow::Result<Value> {
        let (mail, directory) = (Arc::clone(&source.storage), Arc::clone(&source.directory));
        let (mut report, is_directory_written) = if self.is_verify {
            (told(mail.compare_with(&target.storage, progress).await, target).await?, false)
        } else {
            // Nothing is written before all of this is known.
            directory.check_target(&target.directory).await?;
            told(mail.check_target(&target.storage).await, target).await?;
            let report = told(mail.copy_to(&target.storage, progress).await, target).await?;
            let is_written = directory.copy_to(&target.directory).await?;
            let is_written = source.classifier.copy_to(&target.classifier).await? || is_written;
            let is_written = source.reputation.copy_to(&target.reputation).await? || is_written;
            let is_written = source.layers.copy_to(&target.layers).await? || is_written;
            (report, source.peers.copy_to(&target.peers).await? || is_written)
        };
        report.differences.extend(directory.compare_with(&target.directory).await?);
        report.differences.extend(source.classifier.compare_with(&target.classifier).await?);
        report.differences.extend(source.reputation.compare_with(&target.reputation).await?);
        report.differences.extend(source.layers.compare_with(&target.layers).await?);
        report.differences.extend(source.peers.compare_with(&target.peers).await?);
        let log = if self.is_verify {
            source.trail.compare_with(&target.trail).await
        } else {
            source.trail.copy_to(&target.trail).await
        };
        let log = log.map_err(|error| anyhow::anyhow!("the log: {}", error.0))?;
        report.differences.extend(log.differences);
        Ok(json!({
            "accounts": report.accounts,
            "accounts_skipped": report.accounts_skipped,
            "messages": report.messages,
            "blobs": report.blobs,
            "blobs_skipped": report.blobs_skipped,
            "octets": report.octets,
            "rows_written": report.rows_written,
            "rows_removed": report.rows_removed,
            "directory_written": is_directory_written,
            "days": log.days,
            "days_skipped": log.days_skipped,
            "events": log.events,
            "differences": report.differences,
        }))
    }
}

/// A refusal with the account's address.
async fn told<T>(done: Result<T, CopyError>, target: &Engines) -> anyhow::Result<T> {
    match done {
        Ok(value) => Ok(value),
        Err(CopyError::Refused(why)) => {
            anyhow::bail!("{}; nothing was written", super::auditor::with_address(target, &why).await)
        }
        Err(CopyError::Store(error)) => Err(engines::explain(&error)),
    }
}

/// Nodes hold connections to their server as long as they run; those of one that was just stopped go at once.
async fn refuse_running(config: &Config) -> anyhow::Result<()> {
    let Some(postgres) = &config.postgres else { return Ok(()) };
    const TRIES: u32 = 10;
    for _ in 0..TRIES {
        if engines::others_connected(postgres).await? == 0 {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    anyhow::bail!(
        "PostgreSQL: a node or a command of another process is connected to the database; stop all nodes first"
    )
}
