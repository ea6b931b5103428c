//! `ortler scan`: judges files without delivering them.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use base::{Clock as _, SystemClock};
use bytes::Bytes;
use clap::Args;
use classifier::Current;
use config::Config;
use filter::rules::{Problem, RuleSet};
use filter::{Filter, FilterParts, Judgement, MessageFacts, Source};
use mail::{Envelope, ReversePath};
use policy::EffectivePolicy;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use web::Words;

use super::report::{self, ReportLanguage, Seen};
use super::{Where, node, print};
use crate::roles::control::Request;
use crate::roles::learning::LearnRequest;

#[derive(Args, Debug)]
pub struct Scan {
    /// Messages to judge; `-` reads one from standard input.
    #[arg(required_unless_present = "tsv", conflicts_with = "tsv")]
    files: Vec<PathBuf>,
    /// Read paths from this file (`-`: standard input), one a line; print `path<TAB>score<TAB>verdict`, order kept.
    #[arg(long, value_name = "LIST")]
    tsv: Option<PathBuf>,
    /// Use this node's rules and policy, and what it has learned.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Use the rules and policy of the node with this configuration, and what it has learned.
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    config: Option<PathBuf>,
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    language: ReportLanguage,
}

/// The configuration that `--dir` or `--config` names, or one with nothing of its own.
fn config_of(dir: Option<PathBuf>, file: Option<PathBuf>) -> anyhow::Result<Config> {
    match (file, dir) {
        (Some(file), _) => Ok(Config::load(&file)?),
        (None, Some(dir)) => Ok(Config::load(&dir.join(crate::roles::DEMO_CONFIG))?),
        (None, None) => Ok(Config::with_defaults("localhost", PathBuf::new(), Vec::new())),
    }
}

/// The rules that a node would use.
pub fn rules_of(dir: Option<PathBuf>, file: Option<PathBuf>) -> anyhow::Result<(RuleSet, Vec<Problem>)> {
    crate::roles::load_rules(&config_of(dir, file)?)
}

/// What the node has learned, whether it runs or not; `None` without a node, or if it never ran.
fn learned_of(dir: Option<&Path>, file: Option<&Path>) -> anyhow::Result<Option<Current>> {
    let (dir, config) = match (dir, file) {
        (None, None) => return Ok(None),
        (dir, file) => (dir.unwrap_or(Path::new("")).to_owned(), file.map(Path::to_owned)),
    };
    let node = Where { dir, config };
    let config = node.load()?;
    if config.postgres.is_none() && !crate::roles::has_learned(&config) {
        return Ok(None);
    }
    let told = node.ask(Request::Learn(LearnRequest::Export)).context("what the node has learned")?;
    let file = Path::new(told.as_str().context("the node's answer makes no sense")?);
    let exported = std::fs::read(file).with_context(|| file.display().to_string())?;
    Ok(Some(Current::frozen(&exported).with_context(|| file.display().to_string())?))
}

impl Scan {
    /// Exit code 1 if a file could not be read.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let classifier = learned_of(self.dir.as_deref(), self.config.as_deref())?;
        let config = config_of(self.dir, self.config)?;
        let (rules, _) = crate::roles::load_rules(&config)?;
        let policy = crate::roles::load_policy(&config)?;
        let filter = Arc::new(Filter::new(FilterParts {
            host_name: config.node_name.clone(),
            resolver: None,
            rules: Arc::new(rules),
            classifier,
            reputation: None,
            greylist_loopback: true,
            scanner: None,
            own_domains: Arc::default(),
            countries: crate::roles::countries(&config)?,
            trusted_sealers: Vec::new(),
            lists: filter::ListSettings::default(),
            milters: Vec::new(),
            policy,
            clock: Arc::new(SystemClock),
        }));
        let runtime = node::runtime()?;
        match self.tsv {
            Some(list) => runtime.block_on(scan_list(&filter, &read_list(&list)?)),
            None => runtime.block_on(scan_files(&filter, &self.files, self.json, &self.language.words())),
        }
    }
}

async fn scan_files(filter: &Arc<Filter>, files: &[PathBuf], json: bool, words: &Words) -> anyhow::Result<ExitCode> {
    let mut told = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for file in files {
        match read(file) {
            Ok(message) => {
                let judgement = judge(filter, message).await;
                if json {
                    told.push(to_value(file, &judgement, &filter.policy(), words));
                } else {
                    print_judgement(file, &judgement, words);
                }
            }
            Err(error) => {
                print::error(&error);
                code = ExitCode::FAILURE;
            }
        }
    }
    if json {
        print::value(&Value::Array(told), true);
    }
    Ok(code)
}

/// Messages judged at a time: enough for every core.
fn at_a_time() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from) * 2
}

async fn scan_list(filter: &Arc<Filter>, paths: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    let mut running: JoinSet<(usize, anyhow::Result<(String, &'static str)>)> = JoinSet::new();
    let mut done: std::collections::BTreeMap<usize, anyhow::Result<(String, &'static str)>> = Default::default();
    let (mut next, mut printed) = (0usize, 0usize);
    while printed < paths.len() {
        // What is judged but not printed yet counts too: order needs no more memory than this.
        while running.len() + done.len() < at_a_time() * 8 && running.len() < at_a_time() && next < paths.len() {
            let (filter, path, at) = (Arc::clone(filter), paths[next].clone(), next);
            running.spawn(async move {
                let judged = match tokio::task::spawn_blocking(move || read(&path)).await {
                    Ok(Ok(message)) => {
                        let judgement = judge(&filter, message).await;
                        Ok((judgement.score.to_string(), judgement.verdict.as_str()))
                    }
                    Ok(Err(error)) => Err(error),
                    Err(error) => Err(error.into()),
                };
                (at, judged)
            });
            next += 1;
        }
        if let Some(finished) = running.join_next().await {
            let (at, judged) = finished?;
            done.insert(at, judged);
        }
        while let Some(judged) = done.remove(&printed) {
            match judged {
                Ok((score, verdict)) => print::line(&format!("{}\t{score}\t{verdict}", paths[printed].display())),
                Err(error) => {
                    print::error(&error);
                    code = ExitCode::FAILURE;
                }
            }
            printed += 1;
        }
    }
    Ok(code)
}

async fn judge(filter: &Filter, message: Vec<u8>) -> Judgement {
    let envelope = Envelope {
        reverse_path: ReversePath::Null,
        forward_paths: Vec::new(),
        body: mail::BodyKind::EightBitMime,
        smtputf8: false,
        wishes: mail::Wishes::default(),
    };
    let message = Bytes::from(with_crlf(message));
    filter.judge(&MessageFacts { source: Source::File, envelope, message, received_at: SystemClock.utc() }).await
}

/// Files mostly have LF; mail on the wire has CRLF, and the filter reads mail.
pub fn with_crlf(message: Vec<u8>) -> Vec<u8> {
    let bare = message.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || message[at - 1] != b'\r'));
    if !bare {
        return message;
    }
    let mut out = Vec::with_capacity(message.len() + message.len() / 30);
    for (at, byte) in message.iter().enumerate() {
        if *byte == b'\n' && (at == 0 || message[at - 1] != b'\r') {
            out.push(b'\r');
        }
        out.push(*byte);
    }
    out
}

pub fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut content = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut content).context("standard input")?;
    } else {
        content = std::fs::read(path).with_context(|| path.display().to_string())?;
    }
    Ok(content)
}

pub fn read_list(list: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let text = String::from_utf8(read(list)?).with_context(|| format!("{}: not UTF-8", list.display()))?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(PathBuf::from).collect())
}

fn seen(judgement: &Judgement) -> Vec<Seen> {
    judgement.findings.iter().map(Seen::from).collect()
}

fn to_value(file: &Path, judgement: &Judgement, policy: &EffectivePolicy, words: &Words) -> Value {
    let seen = seen(judgement);
    let decision = policy::decide(policy, &judgement.facts());
    json!({
        "file": file.display().to_string(),
        "score": judgement.score.as_f64(),
        "verdict": judgement.verdict.as_str(),
        "disposition": decision.disposition.as_str(),
        "decided_by": decision.cause.to_string(),
        "reasons": report::reasons_value(&seen, words),
        "findings": seen.iter().map(|one| one.to_value(words)).collect::<Vec<_>>(),
    })
}

fn print_judgement(file: &Path, judgement: &Judgement, words: &Words) {
    let (title, verdict) = (file.display().to_string(), judgement.verdict.as_str());
    report::print_report(&title, verdict, judgement.score.as_f64(), &seen(judgement), words);
}
