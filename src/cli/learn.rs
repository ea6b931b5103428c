//! `ortler learn`: teaches the classifier.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use base::{ByteSize, UtcMillis};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use migrate::{Message, Trouble, maildir, mbox};
use serde_json::json;

use super::node::Node;
use super::{Where, print};
use crate::roles::control::Request;
use crate::roles::learning::LearnRequest;

#[derive(Args, Debug)]
pub struct Learn {
    class: Class,
    /// Messages, folders of messages, Maildirs or mbox files.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// For this account alone.
    #[arg(long, value_name = "ADDRESS")]
    account: Option<String>,
    /// Take back what was learned of these messages, whatever they were learned as.
    #[arg(long)]
    forget: bool,
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: Where,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Ham,
    Spam,
}

/// What was done.
#[derive(Default)]
struct Tally {
    new: u64,
    corrected: u64,
    known: u64,
    forgotten: u64,
    not_known: u64,
    skipped: u64,
}

/// Folders in folders.
const DEPTH_MAX: usize = 16;

impl Learn {
    /// Exit code 1 if something could not be read.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        for path in &self.paths {
            anyhow::ensure!(path.exists(), "{}: no such file or folder", path.display());
        }
        let (tally, counts) = self.node.talk(async |node, config| {
            let mut tally = Tally::default();
            for path in &self.paths {
                self.learn_from(node, path, config.message_size_max, &mut tally, 0).await?;
            }
            let counts = node.ask(Request::Learn(LearnRequest::Counts), Bytes::new()).await?.value;
            Ok((tally, counts))
        })?;
        let Tally { new, corrected, known, forgotten, not_known, skipped } = tally;
        if self.json {
            let value = json!({
                "new": new, "corrected": corrected, "known": known, "forgotten": forgotten, "not_known": not_known,
                "skipped": skipped, "learned_by_all": counts,
            });
            print::value(&value, true);
        } else {
            let done = match self.forget {
                true => format!("{forgotten} forgotten, {not_known} not known"),
                false => format!("{new} learned, {corrected} corrected, {known} known before"),
            };
            print::line(&format!("{done}; for all: {} ham, {} spam", counts["ham"], counts["spam"]));
            let (ham, spam, needed) = (counts["ham"].as_u64(), counts["spam"].as_u64(), counts["needed"].as_u64());
            if ham.min(spam) < needed {
                print::line(&format!("The classifier speaks from {} of each on.", counts["needed"]));
            }
        }
        Ok(if skipped > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    async fn learn_from(
        &self,
        node: &mut Node,
        path: &Path,
        limit: ByteSize,
        tally: &mut Tally,
        depth: usize,
    ) -> anyhow::Result<()> {
        if path.is_dir() {
            if depth > DEPTH_MAX {
                return skip(tally, &anyhow::anyhow!("{}: too many folders in folders", path.display()));
            }
            return Box::pin(self.learn_folder(node, path, limit, tally, depth)).await;
        }
        let file = File::open(path).with_context(|| path.display().to_string());
        let mut file = match file {
            Ok(file) => BufReader::with_capacity(1 << 18, file),
            Err(error) => return skip(tally, &error),
        };
        if is_mbox(&mut file)? {
            let reader = mbox::Reader::new(file, path, limit, UtcMillis(0));
            return self.teach_all(node, reader, path, limit, tally).await;
        }
        let mut content = Vec::new();
        match file.take(limit.0 + 1).read_to_end(&mut content) {
            Ok(_) => self.teach(node, content, path, limit, tally).await,
            Err(error) => skip(tally, &anyhow::Error::from(error).context(path.display().to_string())),
        }
    }

    async fn learn_folder(
        &self,
        node: &mut Node,
        path: &Path,
        limit: ByteSize,
        tally: &mut Tally,
        depth: usize,
    ) -> anyhow::Result<()> {
        if path.join("cur").is_dir() {
            return match maildir::Reader::open(path, limit) {
                Ok(reader) => self.teach_all(node, reader, path, limit, tally).await,
                Err(trouble) => skip(tally, &trouble.into()),
            };
        }
        let entries = match std::fs::read_dir(path).with_context(|| path.display().to_string()) {
            Ok(entries) => entries,
            Err(error) => return skip(tally, &error),
        };
        let mut inside: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        inside.sort();
        for path in inside {
            self.learn_from(node, &path, limit, tally, depth + 1).await?;
        }
        Ok(())
    }

    async fn teach_all(
        &self,
        node: &mut Node,
        messages: impl Iterator<Item = Result<Message, Trouble>>,
        path: &Path,
        limit: ByteSize,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        for message in messages {
            match message {
                Ok(message) => self.teach(node, message.content, path, limit, tally).await?,
                Err(trouble) => skip(tally, &trouble.into())?,
            }
        }
        Ok(())
    }

    async fn teach(
        &self,
        node: &mut Node,
        content: Vec<u8>,
        path: &Path,
        limit: ByteSize,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        if content.len() as u64 > limit.0 {
            return skip(tally, &anyhow::anyhow!("{}: a message is larger than {limit}; left out", path.display()));
        }
        let (account, is_spam, forget) = (self.account.clone(), self.class == Class::Spam, self.forget);
        let request = Request::Learn(LearnRequest::Message { account, is_spam, forget });
        let answer = node.ask(request, content.into()).await?.value;
        match answer.as_str() {
            Some("new") => tally.new += 1,
            Some("corrected") => tally.corrected += 1,
            Some("known") => tally.known += 1,
            Some("forgotten") => tally.forgotten += 1,
            Some("not-known") => tally.not_known += 1,
            _ => anyhow::bail!("the node's answer makes no sense; is it of the same version?"),
        }
        Ok(())
    }
}

/// Tells what is left out, and goes on.
#[expect(clippy::unnecessary_wraps, reason = "callers return it as their own outcome")]
fn skip(tally: &mut Tally, why: &anyhow::Error) -> anyhow::Result<()> {
    print::error(why);
    tally.skipped += 1;
    Ok(())
}

/// True if the first line is an mbox's.
fn is_mbox(file: &mut BufReader<File>) -> anyhow::Result<bool> {
    use std::io::BufRead as _;
    Ok(file.fill_buf()?.starts_with(b"From "))
}
