//! `ortler mailbox list|removed|restore|purge`, and the ways to `export` and `import`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use base::{Clock as _, SystemClock, UtcMillis};
use clap::Subcommand;

use super::export::Export;
use super::import::Import;
use super::snapshot::FromSnapshot;
use super::{Common, print};
use crate::roles::control::Request;
use crate::roles::mailboxes::MailRequest;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Names, roles, messages, unseen messages and size.
    List {
        account: String,
        #[command(flatten)]
        common: Common,
    },
    /// Expunged messages that can still be brought back, the latest first.
    Removed {
        account: String,
        /// Deleted folders instead.
        #[arg(long)]
        folders: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Brings expunged messages back, those that all the given options name, or what a snapshot of the node has.
    #[command(group(clap::ArgGroup::new("which").required(true).multiple(true).args(["id", "mailbox", "since", "at", "folder", "from_snapshot"])))]
    Restore {
        account: String,
        /// The message with this id in `ortler mailbox removed`.
        #[arg(long, value_name = "N")]
        id: Vec<u64>,
        /// Messages that lay in this mailbox.
        #[arg(long, value_name = "NAME")]
        mailbox: Option<String>,
        /// Messages removed since then: `2026-11-23T10:42:07Z`, `2026-11-23` (UTC), or `2 h` for two hours ago.
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        since: Option<UtcMillis>,
        /// What was there at this time and was removed since then; forms as for --since.
        #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "since")]
        at: Option<UtcMillis>,
        /// A deleted folder with those below it, their messages and flags; with --from-snapshot only this folder of it.
        #[arg(long, value_name = "NAME", conflicts_with_all = ["id", "mailbox", "since"])]
        folder: Option<String>,
        /// A snapshot of the node, or the folder of a stopped one: adds what the account had there and lacks now.
        #[arg(long, value_name = "DIR", conflicts_with_all = ["id", "mailbox", "since"])]
        from_snapshot: Option<PathBuf>,
        /// Put them all into this mailbox instead of where they lay.
        #[arg(long, value_name = "NAME")]
        into: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Ends the time in which messages can be brought back: they are gone for good. A day later, with the next hourly
    /// collection (or `ortler gc`), what is stored of them is overwritten: content, header, texts of searches. The log keeps
    /// sender, recipients and subject for its own retention; snapshots and backups keep what they hold.
    #[command(group(clap::ArgGroup::new("which").required(true).args(["id", "all"])))]
    Purge {
        account: String,
        /// The message with this id in `ortler mailbox removed`.
        #[arg(long, value_name = "N")]
        id: Vec<u64>,
        /// All of the account's removed messages.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Writes an account's mail to a Maildir or to mbox files; a second run adds what is missing.
    Export(Export),
    /// Reads a Maildir or mbox files into an account; a second run adds what is missing.
    Import(Import),
}

impl Command {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (request, common) = match self {
            Self::Export(export) => return export.run(),
            Self::Import(import) => return import.run(),
            Self::List { account, common } => (MailRequest::List { account }, common),
            Self::Removed { account, folders: true, common } => (MailRequest::RemovedFolders { account }, common),
            Self::Removed { account, folders: false, common } => (MailRequest::Removed { account }, common),
            Self::Restore { account, from_snapshot: Some(dir), folder, at, into, common, .. } => {
                return FromSnapshot { account, dir, folder, at, into }.run(&common.node, common.json);
            }
            Self::Restore { account, folder: Some(folder), at: None, into, common, .. } => {
                (MailRequest::RestoreFolder { account, folder, into }, common)
            }
            Self::Restore { account, id: ids, mailbox, since, at, folder, into, common, .. } => {
                let (since, at) = (since.map(|since| since.0), at.map(|at| at.0));
                (MailRequest::Restore { account, ids, mailbox: mailbox.or(folder), since, at, into }, common)
            }
            Self::Purge { account, id, all, common } => {
                (MailRequest::Purge { account, ids: (!all).then_some(id) }, common)
            }
        };
        let answer = common.node.ask(Request::Mail(request))?;
        if answer["more"] == true {
            print::line_to_stderr(
                "only the latest 50000 removed messages were looked at; purge some to reach the rest",
            );
        }
        print::value(&answer, common.json);
        Ok(ExitCode::SUCCESS)
    }
}

fn parse_time(text: &str) -> anyhow::Result<UtcMillis> {
    if let Ok(span) = base::units::parse_duration(text) {
        return Ok(SystemClock.utc().minus(span));
    }
    mail::date::parse_utc(text)
        .context("expected a time such as `2026-11-23T10:42:07Z`, a date, or `2 h` for two hours ago")
}
