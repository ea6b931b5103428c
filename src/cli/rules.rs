//! `ortler rules check`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use filter::rules::Severity;
use serde_json::{Value, json};

use super::print;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Loads rule files and says what is wrong or unsupported, by file and line.
    Check {
        /// Files, or folders of *.cf files. Without any: the node's rules if --config or --dir names one, else the shipped ones.
        paths: Vec<PathBuf>,
        /// Folder of a node.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Configuration of a node.
        #[arg(long, value_name = "FILE", conflicts_with = "dir")]
        config: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    /// Exit code 1 if a rule is wrong; what is only unsupported does not count.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self::Check { paths, dir, config, json } = self;
        let (rules, problems) = if paths.is_empty() {
            let (rules, problems) = super::scan::rules_of(dir, config)?;
            (rules.len(), problems)
        } else {
            let report = filter::rules::check(&paths).map_err(|error| anyhow::anyhow!("{error}: {}", error.source))?;
            (report.rules, report.problems)
        };
        let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
        if json {
            let told: Vec<Value> = problems
                .iter()
                .map(|problem| {
                    json!({
                        "file": problem.file.to_string(),
                        "line": problem.line,
                        "severity": problem.severity.as_str(),
                        "message": problem.to_string(),
                    })
                })
                .collect();
            print::value(&json!({ "rules": rules, "errors": errors, "problems": told }), true);
        } else {
            problems.iter().for_each(|problem| print::line(&problem.to_string()));
            print::line(&format!("{rules} rules, {errors} errors, {} other remarks", problems.len() - errors));
        }
        Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
