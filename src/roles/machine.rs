//! The machine around a node: log, open files, user, signals.

use anyhow::Context as _;
use config::{Config, LogFormat};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Uid, User, chown, initgroups, setgid, setuid};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Log lines go to standard error from now on.
pub fn start_logging(config: &Config) -> anyhow::Result<()> {
    let level = &config.log_level;
    // Libraries speak up only when something is wrong.
    let filter = EnvFilter::try_new(format!(
        "{level},hyper=warn,rustls=warn,hickory_resolver=error,hickory_proto=error,hickory_net=error,h2=warn"
    ))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let started = match config.log_format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))
}

/// Raises the soft limit on open files to the hard one; gives how many sessions it allows together.
///
/// # Errors
/// The limit leaves nothing for sessions.
pub fn raise_open_files(config: &Config) -> anyhow::Result<usize> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit on open files")?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the limit on open files")?;
    }
    let limit = usize::try_from(hard).unwrap_or(usize::MAX);
    let places = limit.saturating_sub(OWN_FILES) / FILES_PER_SESSION;
    anyhow::ensure!(
        places >= SESSIONS_MIN,
        "only {hard} open files are allowed and a node needs at least {}: raise LimitNOFILE of the service or `ulimit -n`",
        OWN_FILES + FILES_PER_SESSION * SESSIONS_MIN
    );
    let wanted: usize =
        config.listeners.iter().map(|listener| super::listeners::limits(config, listener.service).0).sum();
    tracing::info!(event = "limits.open_files", limit, sessions_max = places.min(wanted));
    if wanted > places {
        tracing::warn!(
            event = "limits.open_files",
            limit,
            sessions_max = places,
            sessions_wanted = wanted,
            next_step = "raise LimitNOFILE of the service or lower the sessions_max options",
        );
    }
    Ok(places.min(wanted).min(tokio::sync::Semaphore::MAX_PERMITS))
}

/// Databases with their logs, segments, listeners, questions to name servers and scanners.
const OWN_FILES: usize = 300;
/// The connection, and a spool or a segment that it reads.
const FILES_PER_SESSION: usize = 2;
const SESSIONS_MIN: usize = 50;

/// Becomes the configured user, after the ports are bound. The data folder becomes that user's.
pub fn drop_privileges(config: &Config) -> anyhow::Result<()> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let Some(name) = &config.user else {
        tracing::warn!(event = "privileges.kept", next_step = "name an unprivileged user in node.user");
        return Ok(());
    };
    let user = User::from_name(name)?
        .ok_or_else(|| anyhow::anyhow!("node.user: there is no user `{name}` on this machine"))?;
    give(&config.data, &user).with_context(|| format!("cannot give {} to {name}", config.data.display()))?;
    let c_name = std::ffi::CString::new(name.as_str())?;
    initgroups(&c_name, user.gid).context("cannot set groups")?;
    setgid(user.gid).context("cannot set the group")?;
    setuid(user.uid).context("cannot set the user")?;
    anyhow::ensure!(setuid(Uid::from_raw(0)).is_err(), "privileges could be taken back: refusing to run");
    Ok(())
}

/// Makes files the user's, if this process may.
pub fn give_to(name: &str, files: &[std::path::PathBuf]) -> anyhow::Result<()> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let user = User::from_name(name)?
        .ok_or_else(|| anyhow::anyhow!("node.user: there is no user `{name}` on this machine; make it first"))?;
    for file in files {
        give(file, &user).with_context(|| format!("cannot give {} to {name}", file.display()))?;
    }
    Ok(())
}

fn give(path: &std::path::Path, user: &User) -> std::io::Result<()> {
    chown(path, Some(user.uid), Some(user.gid))?;
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            // A link could point anywhere.
            if !entry.file_type()?.is_symlink() {
                give(&entry.path(), user)?;
            }
        }
    }
    Ok(())
}

/// How the node is asked to stop. What comes after [`StopSignals::listen`] is kept until it is asked for.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    pub fn listen() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Cancel safe.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
