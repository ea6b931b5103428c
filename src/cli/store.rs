//! `ortler audit`, `ortler gc` and `ortler storage`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::{Where, print};
use crate::roles::control::Request;

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
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: Where,
}

impl Gc {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        self.node.ask_and_print(Request::Gc, self.json)
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
}

impl StorageCommand {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self::Snapshot { to, json, node } = self;
        // The node may run in another folder.
        let to = std::path::absolute(&to).with_context(|| to.display().to_string())?;
        node.ask_and_print(Request::Snapshot { to }, json)
    }
}
