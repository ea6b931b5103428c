//! Limits and choices of the IMAP service.

use std::time::Duration;

use base::ByteSize;

/// What an operator may set. One value serves all sessions that began under it.
#[derive(Clone, Debug)]
pub struct Config {
    /// One message of APPEND.
    pub message_size_max: ByteSize,
    /// A command with its literals, messages not counted; a long set of UIDs is the usual reason for a large one.
    pub command_size_max: ByteSize,
    /// The same before sign-in.
    pub command_size_max_before_login: ByteSize,
    /// From connect to sign-in.
    pub login_timeout: Duration,
    /// Signed in and silent: at least 30 minutes (RFC 3501 §5.4).
    pub autologout: Duration,
    /// A peer that takes no bytes for so long is gone.
    pub write_timeout: Duration,
    /// Failed sign-ins before the connection is closed.
    pub login_failures_max: u32,
    /// Sign-in without TLS is let through from loopback (demonstration mode).
    pub plain_login_on_loopback: bool,
    /// An idle client hears a word so often: dead connections are found, address translators kept open.
    pub idle_notice: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            message_size_max: ByteSize::mib(50),
            command_size_max: ByteSize::kib(64),
            command_size_max_before_login: ByteSize::kib(8),
            login_timeout: Duration::from_secs(60),
            autologout: Duration::from_secs(30 * 60),
            write_timeout: Duration::from_secs(60),
            login_failures_max: 3,
            plain_login_on_loopback: false,
            idle_notice: Duration::from_secs(5 * 60),
        }
    }
}
