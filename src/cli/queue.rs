//! `ortler queue list|show|status|lanes|retry|hold|release|reroute|bounce|delete|suspend|resume`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{Common, print};
use crate::roles::control::Request;
use crate::roles::queue::{Action, QueueRequest, ROWS_MAX, Which};

// A doc comment here would stand in for those of the commands.
#[derive(Args, Debug)]
pub struct Filter {
    /// Of this sender; `@DOMAIN` for all of a domain, `<>` for notices.
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,
    /// For this recipient; `@DOMAIN` for all of a domain.
    #[arg(long, value_name = "ADDRESS")]
    to: Option<String>,
    /// In this lane: a domain, or the name of a route.
    #[arg(long, value_name = "LANE")]
    lane: Option<String>,
    /// `waiting`, `held` or `returning`.
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// With this text in what the last attempt came to.
    #[arg(long, value_name = "TEXT")]
    status: Option<String>,
    /// With this text in the subject.
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,
    /// Sent by this account.
    #[arg(long, value_name = "ADDRESS")]
    account: Option<String>,
    /// In the queue for so long: `4 h`.
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    older: Option<Duration>,
}

impl Filter {
    fn is_empty(&self) -> bool {
        let Self { from, to, lane, state, status, subject, account, older } = self;
        [from, to, lane, state, status, subject, account].iter().all(|one| one.is_none()) && older.is_none()
    }

    fn which(self, ids: Vec<String>) -> Which {
        Which {
            ids,
            from: self.from,
            to: self.to,
            lane: self.lane,
            state: self.state,
            status: self.status,
            subject: self.subject,
            account: self.account,
            older_ms: self.older.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

// The same.
#[derive(Args, Debug)]
pub struct Chosen {
    /// Messages, or single recipients of them (`ID/N`), as `ortler queue list` names them.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// All that are in the queue.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Recipients whose mail waits, the oldest messages first.
    List {
        #[command(flatten)]
        filter: Filter,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Those after this one, the last of the list before.
        #[arg(long, value_name = "ID/N")]
        after: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// All that the queue knows of a message.
    Show {
        id: String,
        #[command(flatten)]
        common: Common,
    },
    /// How many recipients wait, are due, are held.
    Status {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        common: Common,
    },
    /// Where mail waits for: a lane for each domain or route, the fullest first.
    Lanes {
        /// Those where nothing waits too.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Tries now, held or not, and whatever is known of the servers.
    Retry(Chosen),
    /// Tries no more until it is released.
    Hold {
        #[command(flatten)]
        chosen: Chosen,
        /// Shown in the list.
        #[arg(long, value_name = "TEXT", default_value = "an administrator")]
        reason: String,
    },
    /// Tries again what was held.
    Release(Chosen),
    /// Sends by another lane: a route of the routing file, or a domain's servers.
    Reroute {
        #[command(flatten)]
        chosen: Chosen,
        #[arg(long, value_name = "LANE")]
        by: String,
    },
    /// Gives up; senders are told.
    Bounce {
        #[command(flatten)]
        chosen: Chosen,
        /// Told to the sender.
        #[arg(long, value_name = "TEXT", default_value = "The administrator has stopped the delivery")]
        reason: String,
    },
    /// Forgets; nobody is told.
    Delete(Chosen),
    /// Tries nothing of a lane until it is resumed.
    Suspend {
        lane: String,
        #[arg(long, value_name = "TEXT", default_value = "an administrator")]
        reason: String,
        #[command(flatten)]
        common: Common,
    },
    /// Tries a suspended lane again.
    Resume {
        lane: String,
        #[command(flatten)]
        common: Common,
    },
}

impl Command {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (chosen, action) = match self {
            Self::List { filter, limit, after, common } => {
                let limit = limit.min(ROWS_MAX);
                return tell(&common, QueueRequest::List { which: filter.which(Vec::new()), after, limit });
            }
            Self::Show { id, common } => return show(&common, id),
            Self::Status { filter, common } => {
                return tell(&common, QueueRequest::Status { which: filter.which(Vec::new()) });
            }
            Self::Lanes { all, common } => return tell(&common, QueueRequest::Lanes { all }),
            Self::Suspend { lane, reason, common } => return tell(&common, QueueRequest::Suspend { lane, reason }),
            Self::Resume { lane, common } => return tell(&common, QueueRequest::Resume { lane }),
            Self::Retry(chosen) => (chosen, Action::Retry),
            Self::Release(chosen) => (chosen, Action::Release),
            Self::Delete(chosen) => (chosen, Action::Delete),
            Self::Hold { chosen, reason } => (chosen, Action::Hold { reason }),
            Self::Reroute { chosen, by } => (chosen, Action::Reroute { to: by }),
            Self::Bounce { chosen, reason } => (chosen, Action::Bounce { reason }),
        };
        let Chosen { ids, all, filter, common } = chosen;
        if ids.is_empty() && !all && filter.is_empty() {
            let what = "say which: ids, options such as --to, or --all".to_owned();
            return Err(print::Usage(what).into());
        }
        tell(&common, QueueRequest::Act { which: filter.which(ids), action })
    }
}

fn tell(common: &Common, request: QueueRequest) -> anyhow::Result<ExitCode> {
    common.ask_and_print(Request::Queue(request))
}

fn show(common: &Common, id: String) -> anyhow::Result<ExitCode> {
    let mut answer = common.node.ask(Request::Queue(QueueRequest::Show { id }))?;
    if common.json {
        print::value(&answer, true);
        return Ok(ExitCode::SUCCESS);
    }
    let recipients = answer.as_object_mut().and_then(|fields| fields.remove("recipients")).unwrap_or(Value::Null);
    print::value(&answer, false);
    for recipient in recipients.as_array().into_iter().flatten() {
        print::line("");
        print::value(recipient, false);
    }
    Ok(ExitCode::SUCCESS)
}

fn parse_span(text: &str) -> Result<Duration, String> {
    base::units::parse_duration(text).map_err(|_| "expected a span of time such as `4 h` or `2 d`".to_owned())
}
