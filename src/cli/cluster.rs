//! `ortler cluster`: the nodes that share a server.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use cluster::Invitation;
use serde_json::Value;

use super::{Where, node, print};
use crate::roles::control::Request;
use crate::roles::joining::{Bundle, NewNode};

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Lists the nodes: who is up, who drains, who is down.
    Status {
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        node: Where,
    },
    /// Takes a node out: it is no longer ready for new sessions, and no account's sessions are led to it. Those that are
    /// there go on.
    Drain {
        /// Name of the node; without it the one that --dir or --config names.
        name: Option<String>,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        node: Where,
    },
    /// Takes a drained node in again.
    Resume {
        /// Name of the node; without it the one that --dir or --config names.
        name: Option<String>,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        node: Where,
    },
    /// Gives a code with which another machine may become a node, once and soon.
    Invite {
        /// How many minutes the code is good for.
        #[arg(long, value_name = "MINUTES", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=10_080))]
        valid: u64,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        node: Where,
    },
    /// Makes this machine a node: writes a configuration like that of the node that gave the code, with the files that it
    /// names.
    Join {
        /// What `ortler cluster invite` printed on a node.
        code: String,
        /// What this node is called: its host name as others know it.
        #[arg(long)]
        name: String,
        /// Where this node listens and other nodes reach it; without it the address from which it reaches them.
        #[arg(long, value_name = "IP")]
        address: Option<IpAddr>,
        /// Folder of its data; without it the other node's.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// The configuration to be written.
        #[arg(long, value_name = "FILE", default_value = "/etc/ortler/ortler.toml")]
        config: PathBuf,
    },
    /// Forgets a node that is down and does not come back.
    Remove {
        /// Name of the node.
        name: String,
        #[command(flatten)]
        node: Where,
    },
}

impl Command {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Status { json, node } => {
                let mut nodes = node.ask(Request::ClusterStatus)?;
                if !json {
                    nodes.as_array_mut().into_iter().flatten().for_each(show_scanners);
                }
                print::value(&nodes, json);
                Ok(ExitCode::SUCCESS)
            }
            Self::Drain { name, json, node } => {
                node.ask_and_print(Request::ClusterWish { node: name, drain: true }, json)
            }
            Self::Resume { name, json, node } => {
                node.ask_and_print(Request::ClusterWish { node: name, drain: false }, json)
            }
            Self::Invite { valid, json, node } => {
                let value = node.ask(Request::ClusterInvite { valid_seconds: valid * 60 })?;
                if json {
                    print::value(&value, true);
                } else {
                    println!("{}", value["code"].as_str().unwrap_or_default());
                    eprintln!(
                        "good for {valid} minutes, once: ortler cluster join CODE --name NAME on the new machine"
                    );
                }
                Ok(ExitCode::SUCCESS)
            }
            Self::Join { code, name, address, data, config } => join(&code, name, address, data, &config),
            Self::Remove { name, node } => node.ask_and_print(Request::ClusterRemove { node: name }, false),
        }
    }
}

/// Puts words in place of what machines read.
fn show_scanners(node: &mut Value) {
    let Some(Value::Array(scanners)) = node.get_mut("scanners") else { return };
    for scanner in scanners.iter_mut() {
        let server = scanner["server"].as_str().unwrap_or_default();
        let state = if scanner["up"] == true { "up" } else { "down" };
        let age = scanner["signatures_age_s"].as_u64().map(|age| match age / 3600 {
            hours @ 0..48 => format!(", signatures {hours} h old"),
            hours => format!(", signatures {} d old", hours / 24),
        });
        *scanner = Value::String(format!("{server} {state}{}", age.unwrap_or_default()));
    }
    if scanners.is_empty() {
        scanners.push(Value::String("none".to_owned()));
    }
}

fn join(
    code: &str,
    name: String,
    address: Option<IpAddr>,
    data: Option<PathBuf>,
    config: &std::path::Path,
) -> anyhow::Result<ExitCode> {
    let invitation: Invitation = code.parse()?;
    // Before the code is used up.
    anyhow::ensure!(
        !config.exists(),
        "{}: exists already; this machine is a node, or name another file",
        config.display()
    );
    let accepted = node::runtime()?.block_on(invitation.accept(&name, env!("CARGO_PKG_VERSION")))?;
    let bundle: Bundle = serde_json::from_slice(&accepted.bundle).context("the other node's answer")?;
    let own = NewNode { name, data, address: address.unwrap_or(accepted.own) };
    for path in bundle.write(config, &own)? {
        println!("{}", path.display());
    }
    eprintln!("next: `ortler config check --config {0}`, then `ortler serve --config {0}`", config.display());
    Ok(ExitCode::SUCCESS)
}
