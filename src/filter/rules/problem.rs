//! What is wrong with a rule file, and where.

use std::fmt;
use std::sync::Arc;

/// A line of a rule file, counted from 1.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Location {
    pub file: Arc<str>,
    pub line: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// The line is wrong; its rule does not run.
    Error,
    /// The line is right, but this engine cannot do what it says; its rule does not run.
    Unsupported,
    /// The line works, but perhaps not as meant.
    Warning,
    /// The line is right and does nothing here, because what it sets is set elsewhere.
    Note,
}

impl Severity {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Unsupported => "unsupported",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One thing to say about one line of a rule file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    pub file: Arc<str>,
    pub line: u32,
    pub severity: Severity,
    /// The rule it is about, where it is about one.
    pub rule: Option<Arc<str>>,
    pub message: String,
}

impl Problem {
    pub(crate) fn new(at: &Location, severity: Severity, rule: Option<&Arc<str>>, message: impl Into<String>) -> Self {
        Self { file: at.file.clone(), line: at.line, severity, rule: rule.cloned(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    /// `file:line: severity: RULE: message`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: ", self.file, self.line, self.severity.as_str())?;
        if let Some(rule) = &self.rule {
            write!(f, "{rule}: ")?;
        }
        f.write_str(&self.message)
    }
}
