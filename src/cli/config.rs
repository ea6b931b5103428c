//! `ortler config check|reference`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use config::Config;

use super::print;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Checks a configuration file; each complaint names file and line.
    Check {
        #[arg(long, value_name = "FILE", default_value = "/etc/ortler/ortler.toml")]
        config: PathBuf,
    },
    /// Prints every option with type, default and limits, in the form of a file.
    Reference,
}

impl Command {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Reference => print::line(config::reference().trim_end()),
            Self::Check { config: file } => match Config::load(&file) {
                Ok(config) => {
                    crate::roles::check(&config)?;
                    print::line(&format!("{}: good, {} listeners", file.display(), config.listeners.len()));
                }
                Err(error) => {
                    print::line_to_stderr(&error.to_string());
                    return Ok(ExitCode::FAILURE);
                }
            },
        }
        Ok(ExitCode::SUCCESS)
    }
}
