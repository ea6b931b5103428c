//! Settings of rule files that change how a message is read.

use super::networks::Networks;
use crate::url::{Boundaries, Redirectors};

/// Immutable, part of a [`super::RuleSet`].
#[derive(Debug, Default)]
pub struct Settings {
    pub networks: Networks,
    pub boundaries: Boundaries,
    pub redirectors: Redirectors,
    /// Lower case.
    pub originating_ip_headers: Vec<String>,
}

impl Settings {
    /// What holds without rule files.
    pub fn none() -> &'static Self {
        static NONE: std::sync::LazyLock<Settings> = std::sync::LazyLock::new(Settings::default);
        &NONE
    }
}
