//! Limits and choices of the POP3 service.

use std::time::Duration;

/// What an operator may set. One value serves all sessions that began under it.
#[derive(Clone, Debug)]
pub struct Config {
    /// From connect to sign-in.
    pub login_timeout: Duration,
    /// Signed in and silent: at least 10 minutes (RFC 1939 §3).
    pub autologout: Duration,
    /// A peer that takes no bytes for so long is gone.
    pub write_timeout: Duration,
    /// Failed sign-ins before the connection is closed.
    pub login_failures_max: u32,
    /// Sign-in without TLS is let through from loopback (demonstration mode).
    pub plain_login_on_loopback: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            login_timeout: Duration::from_secs(60),
            autologout: Duration::from_secs(10 * 60),
            write_timeout: Duration::from_secs(60),
            login_failures_max: 3,
            plain_login_on_loopback: false,
        }
    }
}
