//! `ortler policy show|set|history|undo|plans|unplan|replay|allow|block|lists|unlist|options`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use layers::Edit;
use policy::Word;
use serde_json::Value;

use super::{Common, print};
use crate::roles::control::Request;
use crate::roles::policies::{Of, PolicyRequest};

/// Whose policy: of the whole system if nothing is named.
#[derive(Args, Debug)]
pub struct Whose {
    /// A reseller or customer.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    #[arg(long, value_name = "DOMAIN", conflicts_with = "tenant")]
    domain: Option<String>,
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["tenant", "domain"])]
    account: Option<String>,
}

impl From<Whose> for Of {
    fn from(whose: Whose) -> Self {
        Self { tenant: whose.tenant, domain: whose.domain, account: whose.account }
    }
}

/// Changes of options.
#[derive(Args, Debug)]
pub struct Edits {
    /// `option=value`, or `option=` for as inherited; several may follow each other.
    #[arg(value_name = "OPTION=VALUE", required = true)]
    edits: Vec<String>,
    /// Lower levels may not change these options.
    #[arg(long)]
    lock: bool,
    /// The least strict value that lower levels may have, of the one option that is named.
    #[arg(long, value_name = "VALUE")]
    floor: Option<String>,
    /// The strictest value (of scores: the highest).
    #[arg(long, value_name = "VALUE")]
    ceiling: Option<String>,
}

impl Edits {
    fn read(self) -> anyhow::Result<Vec<Edit>> {
        if self.edits.len() > 1 && (self.floor.is_some() || self.ceiling.is_some()) {
            return Err(print::Usage("--floor and --ceiling are of one option: name one".to_owned()).into());
        }
        let mut out = Vec::new();
        for text in self.edits {
            let Some((option, value)) = text.split_once('=') else {
                return Err(print::Usage(format!("`{text}`: write option=value, or option= for as inherited")).into());
            };
            let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
            let (floor, ceiling) = (self.floor.clone(), self.ceiling.clone());
            out.push(Edit { option: option.trim().to_owned(), value, locked: self.lock, floor, ceiling });
        }
        Ok(out)
    }
}

/// A line of a list.
#[derive(Args, Debug)]
pub struct Line {
    who: String,
    #[arg(long, default_value = "")]
    note: String,
    /// Until this day.
    #[arg(long, value_name = "DAY")]
    until: Option<String>,
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    common: Common,
}

impl Line {
    fn put(self, word: Word, unproven: bool, skips: Option<Vec<String>>) -> anyhow::Result<ExitCode> {
        let Self { who, note, until, whose, common } = self;
        let (of, word, by) = (whose.into(), word.to_string(), String::new());
        let request = PolicyRequest::List { of, word, who, unproven, skips, note, until, by };
        common.ask_and_print(Request::Policy(request))
    }
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Every option's value and where it comes from.
    Show {
        /// Only this option.
        option: Option<String>,
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        common: Common,
    },
    /// Changes options; what is not named stays.
    Set {
        #[command(flatten)]
        edits: Edits,
        #[command(flatten)]
        whose: Whose,
        /// Why, for the history.
        #[arg(long, default_value = "")]
        note: String,
        /// Make the change at this moment: 2027-03-31, or 2027-03-31T08:00:00Z.
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// What such a change would have made of the mail of the last days.
    Replay {
        #[command(flatten)]
        edits: Edits,
        #[arg(long, default_value_t = 7)]
        days: u32,
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        common: Common,
    },
    /// What was changed, the latest first.
    History {
        #[arg(long, default_value_t = 50)]
        limit: usize,
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        common: Common,
    },
    /// Takes a change back.
    Undo {
        change: i64,
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        common: Common,
    },
    /// Changes that are made at their time.
    Plans {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        common: Common,
    },
    /// Drops a planned change.
    Unplan {
        plan: i64,
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        common: Common,
    },
    /// Lets a sender through: an address, a domain with those below it, @domain for it alone, or a network.
    Allow {
        #[command(flatten)]
        line: Line,
        /// Also where nothing proves that it is he.
        #[arg(long)]
        unproven: bool,
        /// What is not looked at: any of spam, newsletter, auth, attachments, with commas between them.
        #[arg(long, value_delimiter = ',')]
        skips: Option<Vec<String>>,
    },
    /// Keeps a sender out.
    Block(Line),
    /// Whom lists let through and keep out.
    Lists {
        #[arg(long, default_value = "")]
        search: String,
        /// `allow` or `block`.
        #[arg(long, value_parser = ["allow", "block"])]
        word: Option<String>,
        /// Only lines after this number: the next page.
        #[arg(long, default_value_t = 0)]
        after: i64,
        #[arg(long, default_value_t = 500)]
        limit: usize,
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        common: Common,
    },
    /// Takes a line off a list, by its number.
    Unlist {
        entry: i64,
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        common: Common,
    },
    /// All options with what they take and do.
    Options(Common),
}

impl Command {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let ask = |request, common: &Common| common.ask_and_print(Request::Policy(request));
        match self {
            Self::Show { option, whose, common } => {
                let shown = common.node.ask(Request::Policy(PolicyRequest::Show { of: whose.into() }))?;
                show(shown, option.as_deref(), common.json)
            }
            Self::Set { edits, whose, note, at, common } => {
                let (of, edits) = (whose.into(), edits.read()?);
                let names: Vec<String> = edits.iter().map(|edit| edit.option.clone()).collect();
                match at {
                    Some(at) => ask(PolicyRequest::Plan { of, edits, at, by: String::new(), note }, &common),
                    None => {
                        let request = PolicyRequest::Set { of, edits, version: None, by: String::new(), note };
                        let shown = common.node.ask(Request::Policy(request))?;
                        let only = names.first().map(String::as_str).filter(|_| names.len() == 1);
                        show(shown, only, common.json)
                    }
                }
            }
            Self::Replay { edits, days, whose, common } => {
                ask(PolicyRequest::Replay { of: whose.into(), edits: edits.read()?, days }, &common)
            }
            Self::History { limit, whose, common } => {
                ask(PolicyRequest::History { of: whose.into(), below: None, limit }, &common)
            }
            Self::Undo { change, whose, common } => {
                ask(PolicyRequest::Undo { of: whose.into(), change, by: String::new() }, &common)
            }
            Self::Plans { whose, common } => ask(PolicyRequest::Plans { of: whose.into() }, &common),
            Self::Unplan { plan, whose, common } => ask(PolicyRequest::Unplan { of: whose.into(), plan }, &common),
            Self::Allow { line, unproven, skips } => line.put(Word::Allow, unproven, skips),
            Self::Block(line) => line.put(Word::Block, false, None),
            Self::Lists { search, word, after, limit, whose, common } => {
                ask(PolicyRequest::Entries { of: whose.into(), word, search, after, limit }, &common)
            }
            Self::Unlist { entry, whose, common } => {
                ask(PolicyRequest::Unlist { of: whose.into(), entry, by: String::new() }, &common)
            }
            Self::Options(common) => ask(PolicyRequest::Options, &common),
        }
    }
}

/// Options as lines, or as they came.
fn show(shown: Value, only: Option<&str>, json: bool) -> anyhow::Result<ExitCode> {
    let mut options = shown["options"].as_array().cloned().unwrap_or_default();
    if let Some(name) = only {
        options.retain(|option| option["option"] == name);
        anyhow::ensure!(!options.is_empty(), "unknown option `{name}`; see `ortler policy options`");
    }
    if json {
        print::value(&Value::Array(options), true);
        return Ok(ExitCode::SUCCESS);
    }
    for option in options {
        let text = |name: &str| option[name].as_str().unwrap_or_default().to_owned();
        let mut marks = Vec::new();
        if let Some(by) = option["lockedBy"].as_str() {
            marks.push(format!("locked by the {by} level"));
        }
        for limit in ["floor", "ceiling"] {
            if let Some(value) = option[limit].as_str() {
                marks.push(format!("{limit} {value}"));
            }
        }
        if option["own"]["locked"] == true {
            marks.push("locked here".to_owned());
        }
        let marks = if marks.is_empty() { String::new() } else { format!("  ({})", marks.join(", ")) };
        print::line(&format!("{:<22} {:<24} {}{marks}", text("option"), text("value"), text("from")));
    }
    Ok(ExitCode::SUCCESS)
}
