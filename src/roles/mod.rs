//! Builds a node from its configuration: the one place that knows all concrete types.

pub mod auditor;
pub mod control;
pub mod copying;
mod digests;
mod engines;
mod hints;
pub mod importing;
pub mod joining;
mod judge;
pub mod keys;
pub mod learning;
pub mod legacies;
pub mod letters;
pub mod limits;
mod listeners;
mod machine;
pub mod mailboxes;
mod mime;
mod node;
mod operations;
mod own_domains;
pub mod people;
pub mod policies;
pub mod quarantine;
pub mod queue;
pub mod relayed;
pub mod reports;
mod shipped;
mod sign_ins;
mod trainer;

use config::Config;

pub use engines::Engines;
pub use judge::{countries, has_learned, load_policy, load_rules};
pub use machine::start_logging;
pub use node::run;
pub use shipped::shipped_rules;

/// The configuration that a demonstration leaves in its folder, so that commands find their node by `--dir`.
pub const DEMO_CONFIG: &str = "ortler.toml";

/// What `ortler config check` looks at beyond the file itself: what it names and how servers are to be reached, but no
/// server.
pub fn check(config: &Config) -> anyhow::Result<()> {
    queue::routes(config)?;
    queue::authorities(config)?;
    reports::check(config)?;
    if let Some(files) = &config.tls {
        net::Tls::from_files(&files.certificate, &files.key)?;
    }
    config.postgres.as_ref().map(engines::server).transpose()?;
    config.postgres.as_ref().map(engines::trail_server).transpose()?;
    config.object_store.as_ref().map(engines::objects).transpose()?;
    judge::load_policy(config)?;
    judge::check_rules(config)?;
    judge::countries(config)?;
    judge::scanners(config)?;
    judge::milters(config)?;
    Ok(())
}
