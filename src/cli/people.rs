//! `ortler role|app-password|token|second-factor|forward|domain-alias …`.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::Common;
use crate::roles::control::Request;
use crate::roles::people::PeopleRequest;

fn ask(request: PeopleRequest, common: &Common) -> anyhow::Result<ExitCode> {
    common.ask_and_print(Request::People(request))
}

/// What a role is for: the whole system if nothing is named.
#[derive(Args, Debug)]
pub struct Place {
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    #[arg(long, value_name = "DOMAIN", conflicts_with = "tenant")]
    domain: Option<String>,
}

/// What an account has.
#[derive(Args, Debug)]
pub struct Account {
    account: String,
    #[command(flatten)]
    common: Common,
}

/// One of what an account has.
#[derive(Args, Debug)]
pub struct Numbered {
    account: String,
    id: u64,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand, Debug)]
pub enum RoleCommand {
    /// Who holds which roles.
    List {
        #[arg(long, value_name = "ADDRESS")]
        account: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Gives a role: isp-admin, isp-operator, service-centre, service-centre-senior, auditor (for the system); reseller,
    /// customer-admin (--tenant); domain-admin (--domain).
    Add {
        account: String,
        role: String,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        common: Common,
    },
    Delete {
        account: String,
        role: String,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        common: Common,
    },
}

impl RoleCommand {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::List { account, common } => ask(PeopleRequest::Roles { account }, &common),
            Self::Add { account, role, place: Place { tenant, domain }, common } => {
                ask(PeopleRequest::Grant { account, role, tenant, domain, by: String::new() }, &common)
            }
            Self::Delete { account, role, place: Place { tenant, domain }, common } => {
                ask(PeopleRequest::Revoke { account, role, tenant, domain }, &common)
            }
        }
    }
}

#[derive(Subcommand, Debug)]
pub enum AppPasswordCommand {
    List(Account),
    /// Makes a password for one program; it is shown this once.
    Add {
        account: String,
        /// What it is for, such as `phone`.
        name: String,
        /// Where it opens.
        #[arg(long, value_delimiter = ',', default_value = "imap,submission")]
        protocols: Vec<String>,
        #[arg(long, value_name = "DAY")]
        until: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Ends it, and what it opened.
    Delete(Numbered),
}

impl AppPasswordCommand {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(Account { account, common }) => ask(PeopleRequest::AppPasswords { account }, &common),
            Self::Add { account, name, protocols, until, common } => {
                ask(PeopleRequest::AddAppPassword { account, name, protocols, until }, &common)
            }
            Self::Delete(Numbered { account, id, common }) => {
                ask(PeopleRequest::DeleteAppPassword { account, id }, &common)
            }
        }
    }
}

#[derive(Subcommand, Debug)]
pub enum TokenCommand {
    List(Account),
    /// Makes a token of the API; it is shown this once. It may do what its account may, within its scopes.
    Add {
        account: String,
        name: String,
        /// Such as `*:read` or `accounts:write,domains:read`.
        #[arg(long, value_delimiter = ',', required = true)]
        scopes: Vec<String>,
        #[arg(long, value_name = "DAY")]
        until: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    Delete(Numbered),
}

impl TokenCommand {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(Account { account, common }) => ask(PeopleRequest::Tokens { account }, &common),
            Self::Add { account, name, scopes, until, common } => {
                ask(PeopleRequest::AddToken { account, name, scopes, until }, &common)
            }
            Self::Delete(Numbered { account, id, common }) => ask(PeopleRequest::DeleteToken { account, id }, &common),
        }
    }
}

#[derive(Subcommand, Debug)]
pub enum SecondFactorCommand {
    /// Takes an account's second factor away: for somebody who lost it.
    Delete(Account),
}

impl SecondFactorCommand {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self::Delete(Account { account, common }) = self;
        ask(PeopleRequest::DeleteSecondFactor { account }, &common)
    }
}

#[derive(Subcommand, Debug)]
pub enum ForwardCommand {
    Show(Account),
    /// Sets where an account's mail goes, too; nowhere if nothing is named. Targets elsewhere are asked first.
    Set {
        account: String,
        targets: Vec<String>,
        /// No copy stays.
        #[arg(long)]
        no_copy: bool,
        #[command(flatten)]
        common: Common,
    },
}

impl ForwardCommand {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Show(Account { account, common }) => ask(PeopleRequest::Forwards { account }, &common),
            Self::Set { account, targets, no_copy, common } => {
                ask(PeopleRequest::SetForwards { account, targets, keeps: !no_copy }, &common)
            }
        }
    }
}

#[derive(Subcommand, Debug)]
pub enum DomainAliasCommand {
    List {
        domain: String,
        #[command(flatten)]
        common: Common,
    },
    /// Another name for a domain: x@NAME leads where x@DOMAIN does.
    Add {
        name: String,
        domain: String,
        #[command(flatten)]
        common: Common,
    },
    Delete {
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

impl DomainAliasCommand {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::List { domain, common } => ask(PeopleRequest::DomainAliases { domain }, &common),
            Self::Add { name, domain, common } => ask(PeopleRequest::AddDomainAlias { name, domain }, &common),
            Self::Delete { name, common } => ask(PeopleRequest::DeleteDomainAlias { name }, &common),
        }
    }
}
