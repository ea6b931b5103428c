//! `ortler rules check` and `ortler rules hits`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use filter::rules::parse::Source;
use filter::rules::{Context, Keep, RuleSet, ScoreSet, Severity, Targets};
use policy::Score;
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
    /// Prints every rule that hits a message, rules that only feed others included: `path<TAB>score<TAB>NAME=hits ...`.
    Hits {
        /// Messages to look at.
        #[arg(required_unless_present_any = ["tsv", "names"])]
        files: Vec<PathBuf>,
        /// Rule files, or folders of *.cf files. Without any: the shipped rules.
        #[arg(long, value_name = "PATH")]
        rules: Vec<PathBuf>,
        /// Read paths from this file, one a line.
        #[arg(long, value_name = "LIST", conflicts_with = "files")]
        tsv: Option<PathBuf>,
        /// Print the names of all rules that run, and no hits.
        #[arg(long, conflicts_with_all = ["files", "tsv"])]
        names: bool,
    },
}

/// The rules with all that feeds others, whether a rule that scores needs it or not.
fn all_rules(paths: &[PathBuf]) -> anyhow::Result<RuleSet> {
    let mut source = Source::default();
    if paths.is_empty() {
        for (name, text) in crate::roles::shipped_rules() {
            source.read(&name, &text);
        }
    }
    for path in paths {
        filter::rules::read_into(&mut source, path).map_err(|error| anyhow::anyhow!("{error}: {}", error.source))?;
    }
    source.finish();
    Ok(RuleSet::compile_with(source, ScoreSet::Local, Keep::All).0)
}

/// Exit code 1 if a file could not be read.
fn hits(files: Vec<PathBuf>, paths: &[PathBuf], list: Option<PathBuf>, names: bool) -> anyhow::Result<ExitCode> {
    let rules = all_rules(paths)?;
    if names {
        rules.names().for_each(|(name, _)| print::line(name));
        return Ok(ExitCode::SUCCESS);
    }
    let files = match list {
        Some(list) => super::scan::read_list(&list)?,
        None => files,
    };
    let mut unread = 0;
    for file in &files {
        let message = match super::scan::read(file) {
            Ok(message) => message,
            Err(error) => {
                print::error(&error);
                unread += 1;
                continue;
            }
        };
        let context = Context { settings: Some(rules.settings()), ..Context::default() };
        let targets = Targets::of(&message, context);
        let score: Score = rules.judge(&targets).iter().fold(Score::ZERO, |sum, hit| sum + hit.score);
        let hits: Vec<String> = rules.matches(&targets).iter().map(|(name, hits)| format!("{name}={hits}")).collect();
        print::line(&format!("{}\t{score}\t{}", file.display(), hits.join(" ")));
    }
    Ok(if unread == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Command {
    /// Exit code 1 if a rule is wrong; what is only unsupported does not count.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (paths, dir, config, json) = match self {
            Self::Check { paths, dir, config, json } => (paths, dir, config, json),
            Self::Hits { files, rules, tsv, names } => return hits(files, &rules, tsv, names),
        };
        let mut scores = None;
        let (rules, problems) = if paths.is_empty() {
            let (rules, problems) = super::scan::rules_of(dir, config)?;
            (rules.len(), problems)
        } else {
            let report = filter::rules::check(&paths).map_err(|error| anyhow::anyhow!("{error}: {}", error.source))?;
            scores = Some((report.score, report.score_lost));
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
            if let Some((score, lost)) = scores {
                print::line(&format!("positive scores: {score} run, {lost} lost with rules that cannot run"));
            }
        }
        Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
