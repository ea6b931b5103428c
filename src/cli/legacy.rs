//! `ortler legacy add|list|show|set|delete`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::Common;
use super::directory::something;
use crate::roles::control::Request;
use crate::roles::legacies::{LegacyPatch, LegacyRequest};

// A doc comment here would stand in for those of the commands.
#[derive(Args, Debug)]
pub struct Options {
    /// Each address is HOST:PORT, if wanted after `tls://`, `starttls://` (TLS or nothing) or `none://`; without such a word
    /// the ports 465, 993 and 995 stand for TLS, others for STARTTLS. `none` takes an address away.
    #[arg(long, value_name = "ADDRESS")]
    imap: Option<String>,
    #[arg(long, value_name = "ADDRESS")]
    pop3: Option<String>,
    #[arg(long, value_name = "ADDRESS")]
    submission: Option<String>,
    /// ManageSieve.
    #[arg(long, value_name = "ADDRESS")]
    sieve: Option<String>,
    /// Mail for its accounts goes there by LMTP.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "smtp")]
    lmtp: Option<String>,
    /// Mail for its accounts goes there by SMTP.
    #[arg(long, value_name = "ADDRESS")]
    smtp: Option<String>,
    /// Which certificate is believed: one for the host from an authority of the `system`, the one with `sha256:HEX`, or
    /// with `off` any.
    #[arg(long, value_name = "HOW", conflicts_with = "ca")]
    tls_verify: Option<String>,
    /// PEM file with the authorities that are believed instead of the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Connections begin with a PROXY header (version 2) that names the client.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    proxy_protocol: Option<bool>,
    /// Passwords that the server took are kept, so that accounts have them when they move.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    capture_passwords: Option<bool>,
}

impl Options {
    fn read(self) -> anyhow::Result<LegacyPatch> {
        let read = |file: PathBuf| std::fs::read_to_string(&file).with_context(|| file.display().to_string());
        Ok(LegacyPatch {
            imap: self.imap,
            pop3: self.pop3,
            submission: self.submission,
            sieve: self.sieve,
            lmtp: self.lmtp,
            smtp: self.smtp,
            verify: self.tls_verify,
            authorities: self.ca.map(read).transpose()?,
            proxy_protocol: self.proxy_protocol,
            capture_passwords: self.capture_passwords,
        })
    }
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Makes an old server known, for accounts whose mailboxes are still there.
    Add {
        name: String,
        #[command(flatten)]
        options: Options,
        #[command(flatten)]
        common: Common,
    },
    List(Common),
    Show {
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Changes what is given, keeps the rest.
    Set {
        name: String,
        #[command(flatten)]
        options: Options,
        #[command(flatten)]
        common: Common,
    },
    /// Forgets a server where no account is any more.
    Delete {
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

impl Command {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (request, common) = match self {
            Self::Add { name, options, common } => (LegacyRequest::Add { name, patch: options.read()? }, common),
            Self::List(common) => (LegacyRequest::List, common),
            Self::Show { name, common } => (LegacyRequest::Show { name }, common),
            Self::Set { name, options, common } => {
                let patch = options.read()?;
                something(patch != LegacyPatch::default())?;
                (LegacyRequest::Set { name, patch }, common)
            }
            Self::Delete { name, common } => (LegacyRequest::Delete { name }, common),
        };
        common.ask_and_print(Request::Legacy(request))
    }
}
