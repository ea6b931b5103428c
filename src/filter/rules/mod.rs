//! SpamAssassin's rule language: rule files in, hits on messages out.
//!
//! A [`RuleSet`] is made once from files and never changes; a reload makes a new one. [`Targets`] holds one message.
//! Rules with a score of zero do not run. Rules whose name starts with `__` only feed `meta` rules, and run only if
//! one that scores needs them; of those, what costs much is looked for last, and not at all in a message in which it can
//! change nothing that is told. Text beyond the limits in [`target`] is not scanned.

pub mod answer;
pub mod eval;
pub mod html;
pub mod meta;
pub mod mime;
pub mod net;
pub mod parse;
pub mod prefilter;
pub mod problem;
pub mod regex;
pub mod settings;
pub mod target;

mod build;
mod condition;
mod dates;
mod directives;
mod fields;
mod filled;
mod late;
pub(crate) mod mailbox;
mod markup;
mod names;
mod networks;
mod received;
pub(crate) mod relays;
mod replace;
mod set;
mod style;
mod template;
mod text;

pub use problem::{Problem, Severity};
pub use set::{Hit, Keep, RuleSet, ScoreSet};
pub use target::{Context, Targets};

use std::io;
use std::path::{Path, PathBuf};

use parse::Source;
use policy::Score;

/// What `ortler rules check` says.
#[derive(Debug)]
pub struct CheckReport {
    /// Rules that run, those that only feed others included.
    pub rules: usize,
    pub problems: Vec<Problem>,
    /// Sum of the positive scores of rules that run.
    pub score: Score,
    /// The same of rules that cannot run here, because a function is missing or the line is wrong.
    pub score_lost: Score,
}

/// A rule file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read rules from {}", path.display())]
pub struct LoadError {
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

/// Loads rule files without keeping them. Paths are files, or folders whose `*.cf` files are read in order of name.
pub fn check(paths: &[PathBuf]) -> Result<CheckReport, LoadError> {
    let (rules, problems) = RuleSet::compile_with(read(paths)?, ScoreSet::default(), Keep::All);
    let score = rules.positive_score();
    let score_lost = rules.lost_score();
    Ok(CheckReport { rules: rules.len(), problems, score, score_lost })
}

/// Reads all files into one [`Source`].
fn read(paths: &[PathBuf]) -> Result<Source, LoadError> {
    let mut source = Source::default();
    for path in paths {
        read_into(&mut source, path)?;
    }
    source.finish();
    Ok(source)
}

/// Reads a file, or the `*.cf` files of a folder in order of name, behind what `source` has already.
pub fn read_into(source: &mut Source, path: &Path) -> Result<(), LoadError> {
    let fail = |error| LoadError { path: path.to_owned(), source: error };
    for file in files(path).map_err(fail)? {
        let content = std::fs::read(&file).map_err(|error| LoadError { path: file.clone(), source: error })?;
        source.read(&file.display().to_string(), &content);
    }
    Ok(())
}

fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut out = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        if file.extension().is_some_and(|ending| ending == "cf") {
            out.push(file);
        }
    }
    out.sort();
    Ok(out)
}

#[cfg(test)]
mod tests;
