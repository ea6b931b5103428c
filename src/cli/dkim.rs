//! `ortler dkim create|import|list|check|activate|retire|delete`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::Value;

use super::{Common, print};
use crate::roles::control::Request;
use crate::roles::keys::KeyRequest;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Makes two keys, RSA and Ed25519, and shows the records to publish. They sign from some minutes after the DNS has them
    /// on, in the place of those before.
    Create {
        domain: String,
        /// Begins the names of the two; by itself the year, the month and a letter.
        #[arg(long)]
        selector: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Takes over a key of another system: PEM, RSA or Ed25519.
    Import {
        domain: String,
        /// Where its record is: SELECTOR._domainkey.DOMAIN
        selector: String,
        /// File of the private key.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// Keys, and their records as a zone's file has them.
    List {
        domain: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Looks for the keys in the DNS. Exit code 1 if one that signs is not there.
    Check {
        domain: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Signs by this key from now on, and no more by others of its kind.
    Activate {
        domain: String,
        selector: String,
        /// Even if the DNS does not have it.
        #[arg(long)]
        unchecked: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Signs by this key no more, and forgets its private half.
    Retire {
        domain: String,
        selector: String,
        #[command(flatten)]
        common: Common,
    },
    /// Forgets a key that signs nothing.
    Delete {
        domain: String,
        selector: String,
        #[command(flatten)]
        common: Common,
    },
}

impl Command {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Create { domain, selector, common } => {
                show(&common, &ask(&common, KeyRequest::Create { domain, selector })?)
            }
            Self::Import { domain, selector, key, common } => {
                let pem = std::fs::read_to_string(&key).with_context(|| key.display().to_string())?;
                show(&common, &ask(&common, KeyRequest::Import { domain, selector, pem })?)
            }
            Self::List { domain, common } => show(&common, &ask(&common, KeyRequest::List { domain })?),
            Self::Check { domain, common } => {
                let found = ask(&common, KeyRequest::Check { domain })?;
                let is_well = |row: &Value| row["state"] != "active" || row["dns"] == "published";
                let all_well = found.as_array().is_none_or(|rows| rows.iter().all(is_well));
                show(&common, &found)?;
                Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
            Self::Activate { domain, selector, unchecked, common } => {
                show(&common, &ask(&common, KeyRequest::Activate { domain, selector, unchecked })?)
            }
            Self::Retire { domain, selector, common } => {
                show(&common, &ask(&common, KeyRequest::Retire { domain, selector })?)
            }
            Self::Delete { domain, selector, common } => {
                show(&common, &ask(&common, KeyRequest::Delete { domain, selector })?)
            }
        }
    }
}

fn ask(common: &Common, request: KeyRequest) -> anyhow::Result<Value> {
    common.node.ask(Request::Keys(request))
}

/// A table, and below it the records, each on a line of its own to be copied.
fn show(common: &Common, found: &Value) -> anyhow::Result<ExitCode> {
    if common.json {
        print::value(found, true);
        return Ok(ExitCode::SUCCESS);
    }
    let rows = match found {
        Value::Array(rows) => rows.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    };
    let (mut table, mut records) = (Vec::new(), Vec::new());
    for mut row in rows {
        if let Some(fields) = row.as_object_mut() {
            let record = fields.remove("record");
            ["name", "text"].iter().for_each(|name| drop(fields.remove(*name)));
            if row["state"] != "retired" {
                records.extend(record);
            }
        }
        table.push(row);
    }
    print::value(&Value::Array(table), false);
    if !records.is_empty() {
        print::line("");
    }
    records.iter().filter_map(Value::as_str).for_each(print::line);
    Ok(ExitCode::SUCCESS)
}
