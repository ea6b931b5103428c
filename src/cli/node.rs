//! How a command reaches its node: through the control socket while it runs, else on its files.

use std::process::ExitCode;

use anyhow::Context as _;
use bytes::Bytes;
use config::Config;
use serde_json::Value;

use super::{Common, Where, print};
use crate::roles::Engines;
use crate::roles::control::{self, Connection, Reply, Request};

impl Where {
    /// The configuration of the node that the arguments name.
    pub fn load(&self) -> anyhow::Result<Config> {
        let file = self.config.clone().unwrap_or_else(|| self.dir.join(crate::roles::DEMO_CONFIG));
        if self.config.is_none() && !file.exists() {
            anyhow::bail!(
                "{}: no node here; start one with `ortler demo --dir {0}` or name it by --dir or --config",
                self.dir.display()
            );
        }
        Ok(Config::load(&file)?)
    }

    /// The same, or for a snapshot without a configuration the one that its files need.
    pub fn load_or_snapshot(&self) -> anyhow::Result<Config> {
        let is_folder = self.config.is_none() && self.dir.join("mail.sqlite").is_file();
        if is_folder && !self.dir.join(crate::roles::DEMO_CONFIG).exists() {
            return Ok(Config::with_defaults("snapshot", self.dir.clone(), Vec::new()));
        }
        self.load()
    }

    /// Sends `request` to the running node, or carries it out on the stopped node's files.
    pub fn ask(&self, request: Request) -> anyhow::Result<Value> {
        self.talk(async |node, _| Ok(node.ask(request, Bytes::new()).await?.value))
    }

    /// Has a conversation with the running node, or with the stopped node's files.
    pub fn talk<T>(&self, work: impl AsyncFnOnce(&mut Node, &Config) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let config = self.load()?;
        runtime()?.block_on(async {
            let mut node = match Connection::open(&config.data).await? {
                Some(connection) => Node::Running(connection),
                None => Node::Stopped(Box::new(Engines::open(&config).await?)),
            };
            let outcome = work(&mut node, &config).await;
            if let Node::Stopped(engines) = node {
                engines.close().await;
            }
            outcome
        })
    }

    /// [`Where::ask`], then prints the answer.
    pub fn ask_and_print(&self, request: Request, json: bool) -> anyhow::Result<ExitCode> {
        print::value(&self.ask(request)?, json);
        Ok(ExitCode::SUCCESS)
    }
}

impl Common {
    pub fn ask_and_print(&self, request: Request) -> anyhow::Result<ExitCode> {
        self.node.ask_and_print(request, self.json)
    }
}

/// Who answers a command.
pub enum Node {
    Running(Connection),
    Stopped(Box<Engines>),
}

impl Node {
    /// False once the running node went away.
    pub fn is_alive(&self) -> bool {
        match self {
            Self::Running(connection) => connection.is_alive(),
            Self::Stopped(_) => true,
        }
    }

    pub async fn ask(&mut self, request: Request, content: Bytes) -> anyhow::Result<Reply> {
        match self {
            Self::Running(connection) => connection.ask(&request, &content).await,
            Self::Stopped(engines) => control::execute(engines, request, content).await,
        }
    }
}

/// The async threads of a command or a node.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")
}
