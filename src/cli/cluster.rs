//! `ortler cluster`: the nodes that share a server.

use std::process::ExitCode;

use clap::Subcommand;

use super::Where;
use crate::roles::control::Request;

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
            Self::Status { json, node } => node.ask_and_print(Request::ClusterStatus, json),
            Self::Drain { name, json, node } => {
                node.ask_and_print(Request::ClusterWish { node: name, drain: true }, json)
            }
            Self::Resume { name, json, node } => {
                node.ask_and_print(Request::ClusterWish { node: name, drain: false }, json)
            }
            Self::Remove { name, node } => node.ask_and_print(Request::ClusterRemove { node: name }, false),
        }
    }
}
