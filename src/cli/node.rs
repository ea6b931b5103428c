//! How a command reaches its node: through the control socket while it runs, else on its files.

use std::process::ExitCode;

use anyhow::Context as _;
use config::Config;
use serde_json::Value;

use super::{Where, print};
use crate::roles::control::{self, Request};

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

    /// Sends `request` to the running node, or carries it out on the stopped node's files.
    pub fn ask(&self, request: Request) -> anyhow::Result<Value> {
        let config = self.load()?;
        runtime()?.block_on(async {
            match control::ask(&config.data, &request).await? {
                Some(answer) => Ok(answer),
                None => {
                    let engines = crate::roles::Engines::open(&config).await?;
                    let answer = control::execute(&engines, request).await;
                    engines.close().await;
                    Ok(answer?)
                }
            }
        })
    }

    /// [`Where::ask`], then prints the answer.
    pub fn ask_and_print(&self, request: Request, json: bool) -> anyhow::Result<ExitCode> {
        print::value(&self.ask(request)?, json);
        Ok(ExitCode::SUCCESS)
    }
}

/// The async threads of a command or a node.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")
}
