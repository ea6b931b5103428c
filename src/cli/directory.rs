//! `ortler domain|account|alias|tenant add|list|show|set|delete`.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::{Common, Where, print};
use crate::roles::control::{AccountPatch, Request, Secrets};
use crate::roles::importing::ImportRequest;
use crate::roles::limits::QuotaPatch;
use crate::roles::relayed::RelayPatch;

#[derive(Args, Debug)]
pub struct Page {
    /// Only entries that contain this text.
    #[arg(long, default_value = "")]
    search: String,
    /// At most this many.
    #[arg(long, default_value_t = 1000)]
    limit: u32,
    /// Only entries after this one: the next page.
    #[arg(long, default_value = "")]
    after: String,
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: Where,
}

/// What mail may take.
#[derive(Args, Debug)]
pub struct Limits {
    /// Limit of stored mail, such as `2 GB`, or `none`.
    #[arg(long, value_name = "SIZE")]
    quota: Option<String>,
    /// Limit of stored messages, or `none`.
    #[arg(long, value_name = "NUMBER")]
    messages: Option<String>,
}

impl From<Limits> for QuotaPatch {
    fn from(limits: Limits) -> Self {
        Self { quota: limits.quota, messages: limits.messages }
    }
}

/// A change without an option would be a silent nothing.
pub fn something(is_given: bool) -> anyhow::Result<()> {
    if is_given { Ok(()) } else { Err(print::Usage("nothing to change: give at least one option".to_owned()).into()) }
}

/// Where a domain's mail goes on to.
#[derive(Args, Debug, Default)]
pub struct Relay {
    /// Mail goes on to the domain's own server, once it is judged: HOST or HOST:PORT with TLS where it is offered, or with
    /// tls://, starttls:// or none:// before it. Several are tried in their order. `none`: mailboxes are here.
    #[arg(long = "relay", value_name = "HOST", value_delimiter = ',')]
    hosts: Vec<String>,
    /// The server takes LMTP.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    relay_lmtp: Option<bool>,
    /// Which certificates count where TLS is required: `system`, `sha256:HEX` or `off`.
    #[arg(long, value_name = "WHICH")]
    relay_certificates: Option<String>,
    /// Which addresses the domain has: `ask` its server, as a sender would; the `list` of its accounts and aliases here; `all`.
    #[arg(long, value_parser = ["ask", "list", "all"])]
    verify: Option<String>,
}

impl From<Relay> for RelayPatch {
    fn from(relay: Relay) -> Self {
        let hosts = match relay.hosts.as_slice() {
            [] => None,
            [word] if word == "none" => Some(Vec::new()),
            _ => Some(relay.hosts),
        };
        Self { hosts, lmtp: relay.relay_lmtp, certificates: relay.relay_certificates, verify: relay.verify }
    }
}

#[derive(Subcommand, Debug)]
pub enum DomainCommand {
    /// Adds a domain whose mail this system takes.
    Add {
        name: String,
        /// The tenant that owns it.
        #[arg(long)]
        tenant: Option<String>,
        #[command(flatten)]
        relay: Relay,
        #[command(flatten)]
        common: Common,
    },
    List(Page),
    Show {
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Changes the tenant that owns the domain, where its mail goes on to, where its new accounts begin, or what all its
    /// accounts together may store.
    Set {
        name: String,
        #[arg(long)]
        tenant: Option<String>,
        #[arg(long, conflicts_with = "tenant")]
        no_tenant: bool,
        /// New accounts of the domain begin on this legacy server; `none` for here.
        #[arg(long, value_name = "NAME")]
        legacy: Option<String>,
        #[command(flatten)]
        limits: Limits,
        #[command(flatten)]
        relay: Relay,
        #[command(flatten)]
        common: Common,
    },
    /// Deletes a domain without accounts, with its aliases.
    Delete {
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

impl DomainCommand {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (request, common) = match self {
            Self::List(list) => {
                let request = Request::DomainList { search: list.search, after: list.after, limit: list.limit };
                return list.node.ask_and_print(request, list.json);
            }
            Self::Add { name, tenant, relay, common } => {
                (Request::DomainAdd { name, tenant, relay: relay.into() }, common)
            }
            Self::Show { name, common } => (Request::DomainShow { name }, common),
            Self::Set { name, tenant, no_tenant, legacy, limits, relay, common } => {
                let (limit, relay) = (limits.into(), RelayPatch::from(relay));
                let is_of_tenant = tenant.is_some() || no_tenant;
                something(is_of_tenant || legacy.is_some() || limit != QuotaPatch::default() || !relay.is_empty())?;
                (Request::DomainSet { name, tenant, no_tenant, legacy, limit, relay }, common)
            }
            Self::Delete { name, common } => (Request::DomainDelete { name }, common),
        };
        common.node.ask_and_print(request, common.json)
    }
}

#[derive(Args, Debug)]
#[group(multiple = false)]
pub struct Password {
    /// Read the password from standard input.
    #[arg(long)]
    password_stdin: bool,
    /// A ready hash: $argon2id$…, {SSHA}…, {SSHA256}…, {SSHA512}… or {PLAIN}….
    #[arg(long, value_name = "HASH")]
    password_hash: Option<String>,
}

impl Password {
    fn read(self) -> anyhow::Result<Option<Secrets>> {
        if !self.password_stdin {
            return Ok(self.password_hash.map(Secrets::Hash));
        }
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read the password from standard input")?;
        let password = text.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            return Err(print::Usage("standard input held no password".to_owned()).into());
        }
        Ok(Some(Secrets::Password(password.to_owned())))
    }
}

#[derive(Subcommand, Debug)]
pub enum AccountCommand {
    /// Adds an account; its domain must exist.
    Add {
        address: String,
        /// The person's name.
        #[arg(long, default_value = "")]
        name: String,
        /// May administer this system.
        #[arg(long)]
        admin: bool,
        /// Its mailbox is still on this legacy server, which knows the password; `none` for here. Not given, the domain says.
        #[arg(long, value_name = "NAME")]
        legacy: Option<String>,
        /// No password opens it: for one whose mail goes on to another server.
        #[arg(long, conflicts_with_all = ["password_stdin", "password_hash"])]
        no_password: bool,
        #[command(flatten)]
        limits: Limits,
        #[command(flatten)]
        password: Password,
        #[command(flatten)]
        common: Common,
    },
    List {
        /// Only accounts of this domain.
        #[arg(long)]
        domain: Option<String>,
        #[command(flatten)]
        list: Page,
    },
    Show {
        address: String,
        #[command(flatten)]
        common: Common,
    },
    /// Changes what is given, keeps the rest.
    Set {
        address: String,
        #[arg(long)]
        name: Option<String>,
        /// `user` or `admin`.
        #[arg(long, value_parser = ["user", "admin"])]
        access: Option<String>,
        /// `true` or `false`: whether it may sign in.
        #[arg(long)]
        enabled: Option<bool>,
        /// `allowed` or `locked`: whether it may send. A new password allows it, too.
        #[arg(long, value_parser = ["allowed", "locked"])]
        sending: Option<String>,
        /// Its mailbox is on this legacy server; `none` for here, once it has moved.
        #[arg(long, value_name = "NAME")]
        legacy: Option<String>,
        #[command(flatten)]
        limits: Limits,
        #[command(flatten)]
        password: Password,
        #[command(flatten)]
        common: Common,
    },
    /// Adds many accounts from a table (CSV). Its first line names the columns: address, name, password or password_hash,
    /// quota, messages, aliases (with blanks between them). What can be added is added; the rest is told by line.
    Import {
        /// `-` reads standard input.
        file: PathBuf,
        /// Only say what would fail.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Deletes an account with all its mail.
    Delete {
        address: String,
        #[command(flatten)]
        common: Common,
    },
}

/// Exit code 1 if a line failed.
fn import(file: &Path, dry_run: bool, common: &Common) -> anyhow::Result<ExitCode> {
    let mut table = Vec::new();
    match file.to_str() {
        Some("-") => drop(std::io::stdin().read_to_end(&mut table)?),
        _ => table = std::fs::read(file).with_context(|| file.display().to_string())?,
    }
    let done = common.node.talk(async |node, config| {
        let limit = config.message_size_max;
        anyhow::ensure!(table.len() as u64 <= limit.0, "{}: larger than {limit}: split it", file.display());
        let request = ImportRequest { table: None, dry_run, within: None };
        Ok(node.ask(Request::Import(request), table.into()).await?.value)
    })?;
    if common.json {
        print::value(&done, true);
    } else {
        for error in done["errors"].as_array().into_iter().flatten() {
            let (address, why) = (&error["address"], &error["error"]);
            let address = address.as_str().unwrap_or_default();
            eprintln!("{}:{}: {address}: {}", file.display(), error["line"], why.as_str().unwrap_or_default());
        }
        let word = if dry_run { "could be added" } else { "added" };
        print::line(&format!("{} of {} {word}, {} failed", done["added"], done["lines"], done["failed"]));
    }
    Ok(if done["failed"] == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl AccountCommand {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (request, common) = match self {
            Self::List { domain, list } => {
                let request =
                    Request::AccountList { domain, search: list.search, after: list.after, limit: list.limit };
                return list.node.ask_and_print(request, list.json);
            }
            Self::Import { file, dry_run, common } => return import(&file, dry_run, &common),
            Self::Add { address, name, admin, legacy, no_password, limits, password, common } => {
                let secrets = password.read()?;
                let is_elsewhere = legacy.as_ref().is_some_and(|server| server != "none");
                if secrets.is_none() && !is_elsewhere && !no_password {
                    let what =
                        "an account needs --password-stdin or --password-hash HASH, --no-password, or --legacy NAME";
                    return Err(print::Usage(what.to_owned()).into());
                }
                (Request::AccountAdd { address, name, admin, limit: limits.into(), legacy, secrets }, common)
            }
            Self::Show { address, common } => (Request::AccountShow { address }, common),
            Self::Set { address, name, access, enabled, sending, legacy, limits, password, common } => {
                let secrets = password.read()?;
                let patch = AccountPatch { name, access, enabled, limit: limits.into(), legacy, sending, secrets };
                something(patch != AccountPatch::default())?;
                (Request::AccountSet { address, patch }, common)
            }
            Self::Delete { address, common } => (Request::AccountDelete { address }, common),
        };
        common.node.ask_and_print(request, common.json)
    }
}

#[derive(Subcommand, Debug)]
pub enum AliasCommand {
    /// Adds an alias `local@domain`, or `@domain` for a catch-all.
    Add {
        address: String,
        #[arg(required = true)]
        targets: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    List {
        /// Only aliases of this domain.
        #[arg(long)]
        domain: Option<String>,
        #[command(flatten)]
        list: Page,
    },
    Show {
        address: String,
        #[command(flatten)]
        common: Common,
    },
    /// Replaces the targets.
    Set {
        address: String,
        #[arg(required = true)]
        targets: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    Delete {
        address: String,
        #[command(flatten)]
        common: Common,
    },
}

impl AliasCommand {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (request, common) = match self {
            Self::List { domain, list } => {
                let request = Request::AliasList { domain, search: list.search, after: list.after, limit: list.limit };
                return list.node.ask_and_print(request, list.json);
            }
            Self::Add { address, targets, common } => (Request::AliasPut { address, targets, replace: false }, common),
            Self::Set { address, targets, common } => (Request::AliasPut { address, targets, replace: true }, common),
            Self::Show { address, common } => (Request::AliasShow { address }, common),
            Self::Delete { address, common } => (Request::AliasDelete { address }, common),
        };
        common.node.ask_and_print(request, common.json)
    }
}

#[derive(Subcommand, Debug)]
pub enum TenantCommand {
    Add {
        name: String,
        /// May have customers below it.
        #[arg(long)]
        reseller: bool,
        /// The reseller above.
        #[arg(long)]
        parent: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    List(Common),
    Show {
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Renames a tenant, or changes what all accounts of its domains together may store.
    Set {
        name: String,
        /// The new name.
        #[arg(long)]
        rename: Option<String>,
        #[command(flatten)]
        limits: Limits,
        #[command(flatten)]
        common: Common,
    },
    /// Deletes a tenant that owns nothing.
    Delete {
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

impl TenantCommand {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (request, common) = match self {
            Self::Add { name, reseller, parent, common } => (Request::TenantAdd { name, reseller, parent }, common),
            Self::List(common) => (Request::TenantList, common),
            Self::Show { name, common } => (Request::TenantShow { name }, common),
            Self::Set { name, rename, limits, common } => {
                let limit = limits.into();
                something(rename.is_some() || limit != QuotaPatch::default())?;
                (Request::TenantSet { name, rename, limit }, common)
            }
            Self::Delete { name, common } => (Request::TenantDelete { name }, common),
        };
        common.node.ask_and_print(request, common.json)
    }
}
