//! SpamAssassin's rule language: rule files in, hits on messages out.
//!
//! A [`RuleSet`] is made once from files and never changes; a reload makes a new one. [`Targets`] holds one message.
//! Rules with a score of zero do not run. Rules whose name starts with `__` only feed `meta` rules, and run only if
//! one that scores needs them. Text beyond the limits in [`target`] is not scanned.

pub mod eval;
pub mod meta;
pub mod parse;
pub mod prefilter;
pub mod problem;
pub mod regex;
pub mod target;

mod condition;
mod html;
mod relays;
mod replace;
mod set;

pub use problem::{Problem, Severity};
pub use set::{Hit, RuleSet, ScoreSet};
pub use target::{Context, Targets};

use std::io;
use std::path::{Path, PathBuf};

use parse::Source;

/// What `ortler rules check` says.
#[derive(Debug)]
pub struct CheckReport {
    /// Rules that run, those that only feed others included.
    pub rules: usize,
    pub problems: Vec<Problem>,
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
    let (rules, problems) = RuleSet::load(paths)?;
    Ok(CheckReport { rules: rules.len(), problems })
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
