//! `ortler reports list|show|read|send`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Subcommand;
use serde_json::Value;

use super::{Common, print, scan};
use crate::roles::control::Request;
use crate::roles::reports::ReportRequest;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Reports that came from other mail systems.
    List {
        /// `dmarc`: mail in our domains' names; `tls`: TLS with our servers; `abuse`: complaints about our mail.
        #[arg(value_name = "KIND", default_value = "dmarc")]
        kind: String,
        /// About this domain alone.
        #[arg(long)]
        domain: Option<String>,
        /// Of so many days.
        #[arg(long, value_name = "N", default_value_t = 30)]
        days: u32,
        #[command(flatten)]
        common: Common,
    },
    /// What all reports about a domain say together: who sends in its name, what goes wrong with TLS, who complains.
    Show {
        kind: String,
        domain: String,
        #[arg(long, value_name = "N", default_value_t = 30)]
        days: u32,
        #[command(flatten)]
        common: Common,
    },
    /// Reads messages that bring reports, such as those of a mailbox from before.
    Read {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// Sends the reports of a day (UTC) now. By itself that happens when the day is over.
    Send {
        /// As in 2026-11-27.
        day: String,
        #[command(flatten)]
        common: Common,
    },
}

impl Command {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::List { kind, domain, days, common } => {
                common.ask_and_print(Request::Reports(ReportRequest::List { kind, domain, days }))
            }
            Self::Show { kind, domain, days, common } => {
                common.ask_and_print(Request::Reports(ReportRequest::Sum { kind, domain, days }))
            }
            Self::Send { day, common } => common.ask_and_print(Request::Reports(ReportRequest::Send { day })),
            Self::Read { files, common } => {
                let (mut reports, mut problems) = (0, Vec::new());
                common.node.talk(async |node, _| {
                    for file in &files {
                        let content = std::fs::read(file).with_context(|| file.display().to_string())?;
                        let content = Bytes::from(scan::with_crlf(content));
                        let answer = node.ask(Request::Reports(ReportRequest::Read), content).await?.value;
                        reports += answer["reports"].as_u64().unwrap_or(0);
                        let found = answer["problems"].as_array().into_iter().flatten().filter_map(Value::as_str);
                        problems.extend(found.map(|why| format!("{}: {why}", file.display())));
                    }
                    Ok(())
                })?;
                problems.iter().for_each(|why| print::line_to_stderr(why));
                print::value(&serde_json::json!({ "reports": reports, "problems": problems.len() }), common.json);
                Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
        }
    }
}
