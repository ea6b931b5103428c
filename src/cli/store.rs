//! `ortler audit`, `ortler gc` and `ortler storage`.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use base::{Clock as _, SystemClock};
use config::Config;
use store::CopyReport;

use super::node::runtime;
use super::{Where, print};
use crate::roles::control::Request;
use crate::roles::copying::Copying;

#[derive(Args, Debug)]
pub struct Audit {
    /// Read every message and compare its digest, too.
    #[arg(long)]
    deep: bool,
    /// Repair what can be repaired.
    #[arg(long)]
    repair: bool,
    /// What the node's own latest pass found (`storage.audit_every`), instead of a new one.
    #[arg(long, conflicts_with_all = ["deep", "repair"])]
    last: bool,
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: Where,
}

impl Audit {
    /// Exit code 1 if anything is wrong that was not repaired.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let request =
            if self.last { Request::AuditLast } else { Request::Audit { deep: self.deep, repair: self.repair } };
        let report = self.node.ask(request)?;
        print::value(&report, self.json);
        let clean =
            report["problems"].as_array().is_none_or(|problems| problems.iter().all(|one| one["repaired"] == true));
        Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

#[derive(Args, Debug)]
pub struct Gc {
    /// Write mail.sqlite and the search's file anew, too: no octet of what was deleted is left in their free space. Mail
    /// waits meanwhile, and the file system needs twice their size.
    #[arg(long)]
    wipe: bool,
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: Where,
}

impl Gc {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        self.node.ask_and_print(Request::Gc { wipe: self.wipe }, self.json)
    }
}

#[derive(Subcommand, Debug)]
pub enum StorageCommand {
    /// Copies the whole node into a new folder, as of one moment, also while it runs.
    Snapshot {
        /// The folder to make; `ortler demo --dir DIR`, or a configuration whose node.data names it, starts on it.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        node: Where,
    },
    /// Moves a whole installation to another engine: directory and mail with all numbers that clients know. All
    /// nodes of both sides must be stopped. May be run again: only what has changed is copied then. To be down
    /// only shortly, copy a snapshot first (--dir), then stop the node and copy the node itself. Exit code 1 if
    /// anything differs afterwards.
    Copy {
        /// Configuration of the target.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// Compare everything, content too; write nothing.
        #[arg(long)]
        verify: bool,
        /// Tell how far it is each second, also where standard error is no terminal.
        #[arg(long)]
        progress: bool,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        node: Where,
    },
}

impl StorageCommand {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Snapshot { to, json, node } => {
                // The node may run in another folder.
                let to = std::path::absolute(&to).with_context(|| to.display().to_string())?;
                node.ask_and_print(Request::Snapshot { to }, json)
            }
            Self::Copy { to, verify, progress, json, node } => {
                let (from, to) = (node.load_or_snapshot()?, Config::load(&to)?);
                let copying = Copying { from: &from, to: &to, is_verify: verify };
                let progress = Progress::new(progress || std::io::stderr().is_terminal());
                let report = runtime()?.block_on(copying.run(&|report| progress.tell(report)))?;
                print::value(&report, json);
                let is_equal = report["differences"].as_array().is_some_and(Vec::is_empty);
                Ok(if is_equal { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
        }
    }
}

/// Tells how far a copy is, once a second.
struct Progress {
    is_wanted: bool,
    told_at: Mutex<std::time::Instant>,
}

impl Progress {
    fn new(is_wanted: bool) -> Self {
        Self { is_wanted, told_at: Mutex::new(SystemClock.now()) }
    }

    fn tell(&self, report: &CopyReport) {
        let Ok(mut told_at) = self.told_at.lock() else { return };
        let now = SystemClock.now();
        if !self.is_wanted || now.duration_since(*told_at) < Duration::from_secs(1) {
            return;
        }
        *told_at = now;
        print::line_to_stderr(&format!(
            "{} blobs ({} MB) copied, {} there already; {} accounts done, {} unchanged",
            report.blobs,
            report.octets / 1_000_000,
            report.blobs_skipped,
            report.accounts,
            report.accounts_skipped
        ));
    }
}
