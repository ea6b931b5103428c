//! `ortler quarantine list|show|release|delete`.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::Common;
use crate::roles::control::Request;
use crate::roles::quarantine::{QuarantineRequest, Which};

/// Whose messages: everybody's if nothing is named.
#[derive(Args, Debug)]
pub struct Whose {
    #[arg(long, value_name = "ADDRESS")]
    account: Option<String>,
    #[arg(long, value_name = "DOMAIN", conflicts_with = "account")]
    domain: Option<String>,
    /// Why they are held: spam, newsletter, virus, suspicious, attachment, forged, blocked, country, sending.
    #[arg(long)]
    reason: Option<String>,
    /// Somewhere in sender, author, recipient or subject.
    #[arg(long, default_value = "")]
    search: String,
    /// Only those that their owners asked for.
    #[arg(long)]
    asked: bool,
}

impl From<Whose> for Which {
    fn from(whose: Whose) -> Self {
        let Whose { account, domain, reason, search, asked } = whose;
        Self { account, domain, reason, search, asked, ..Self::default() }
    }
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Messages that are held, the newest first.
    List {
        #[command(flatten)]
        whose: Whose,
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// What the page before gave as `next`.
        #[arg(long)]
        after: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// How many there are, by reason.
    Counts {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        common: Common,
    },
    Show {
        id: String,
        #[command(flatten)]
        common: Common,
    },
    /// Moves messages to their owners. They are looked at for viruses once more, and for nothing else.
    Release {
        #[arg(required = true)]
        ids: Vec<String>,
        /// Even with a virus.
        #[arg(long)]
        despite_virus: bool,
        /// Let their senders through from now on, at this level: mailbox, domain, customer, reseller or system.
        #[arg(long, value_name = "LEVEL")]
        allow: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Deletes messages for good.
    Delete {
        #[arg(required = true)]
        ids: Vec<String>,
        /// Keep their senders out from now on, at this level.
        #[arg(long, value_name = "LEVEL")]
        block: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Sends the mails that tell what is new in quarantine now, to all who want such mails.
    Tell {
        #[arg(long, value_name = "ADDRESS")]
        account: Option<String>,
        #[command(flatten)]
        common: Common,
    },
}

impl Command {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let by = || "the command line".to_owned();
        let (request, common) = match self {
            Self::List { whose, limit, after, common } => {
                (QuarantineRequest::List { which: whose.into(), after, limit }, common)
            }
            Self::Counts { whose, common } => (QuarantineRequest::Counts { which: whose.into() }, common),
            Self::Show { id, common } => (QuarantineRequest::Show { id }, common),
            Self::Release { ids, despite_virus, allow, common } => {
                (QuarantineRequest::Release { ids, by: by(), despite_virus, teaches: false, allow }, common)
            }
            Self::Delete { ids, block, common } => (QuarantineRequest::Delete { ids, by: by(), block }, common),
            Self::Tell { account, common } => {
                (QuarantineRequest::Tell { which: Which { account, ..Which::default() } }, common)
            }
        };
        common.ask_and_print(Request::Quarantine(request))
    }
}
