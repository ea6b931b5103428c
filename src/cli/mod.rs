//! The command line: one file for each group of commands. Results go to stdout, talk to stderr.
//! Exit code 0: success, 1: failed, 2: wrong usage.

mod cluster;
mod config;
mod directory;
mod dkim;
mod export;
mod import;
mod learn;
mod legacy;
mod mailbox;
mod node;
mod people;
mod policy;
mod print;
mod quarantine;
mod queue;
mod report;
mod reports;
mod rules;
mod run;
mod scan;
mod snapshot;
mod store;
mod trace;
mod transfer;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Mail cluster appliance: filtering MTA, mailbox store and webmail in one.
#[derive(Parser, Debug)]
#[command(name = "ortler", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Runs all roles in one process on loopback, with test accounts.
    Demo(run::Demo),
    /// Runs a node as its configuration says.
    Serve(run::Serve),
    /// Checks a configuration or lists all options.
    #[command(subcommand)]
    Config(config::Command),
    /// Mail domains of this system.
    #[command(subcommand)]
    Domain(directory::DomainCommand),
    /// Accounts: who signs in and owns mailboxes.
    #[command(subcommand)]
    Account(directory::AccountCommand),
    /// Addresses that lead to other addresses.
    #[command(subcommand)]
    Alias(directory::AliasCommand),
    /// Resellers and customers that own domains.
    #[command(subcommand)]
    Tenant(directory::TenantCommand),
    /// Old servers where accounts still have their mailboxes.
    #[command(subcommand)]
    Legacy(legacy::Command),
    /// Mailboxes of an account: lists them, brings removed messages back.
    #[command(subcommand)]
    Mailbox(mailbox::Command),
    /// Policies of all levels: what is done with mail, and whose word that is.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Messages that are kept back from mailboxes.
    #[command(subcommand)]
    Quarantine(quarantine::Command),
    /// Who may administer what.
    #[command(subcommand)]
    Role(people::RoleCommand),
    /// Passwords of single programs.
    #[command(subcommand)]
    AppPassword(people::AppPasswordCommand),
    /// Tokens of the API.
    #[command(subcommand)]
    Token(people::TokenCommand),
    /// Second factors of sign-ins.
    #[command(subcommand)]
    SecondFactor(people::SecondFactorCommand),
    /// Where accounts' mail goes, too.
    #[command(subcommand)]
    Forward(people::ForwardCommand),
    /// Further names of domains.
    #[command(subcommand)]
    DomainAlias(people::DomainAliasCommand),
    /// Keys by which domains sign their mail.
    #[command(subcommand)]
    Dkim(dkim::Command),
    /// Mail on its way to somewhere else.
    #[command(subcommand)]
    Queue(queue::Command),
    /// Reports that mail systems send each other: DMARC, TLS, complaints.
    #[command(subcommand)]
    Reports(reports::Command),
    /// Judges messages without delivering them.
    Scan(scan::Scan),
    /// Teaches the classifier what is spam and what is not.
    Learn(learn::Learn),
    /// Filter rules.
    #[command(subcommand)]
    Rules(rules::Command),
    /// A message's life story, or the messages of a sender or recipient.
    Trace(trace::Trace),
    /// Checks every invariant of the store.
    Audit(store::Audit),
    /// Collects garbage and says what was freed.
    Gc(store::Gc),
    /// The nodes of this system.
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Snapshots of the whole node, and its move to another engine.
    #[command(subcommand)]
    Storage(store::StorageCommand),
}

/// Which node a command works on.
#[derive(Args, Debug, Clone)]
struct Where {
    /// Folder of the node.
    #[arg(long, value_name = "DIR", default_value = "./ortler-demo")]
    dir: PathBuf,
    /// Configuration of the node, instead of --dir.
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    config: Option<PathBuf>,
}

/// What every command on a node takes that has no more to say than its answer.
#[derive(Args, Debug)]
struct Common {
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: Where,
}

/// Runs the command that the arguments name.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Demo(command) => command.run(),
        Command::Serve(command) => command.run(),
        Command::Config(command) => command.run(),
        Command::Domain(command) => command.run(),
        Command::Account(command) => command.run(),
        Command::Alias(command) => command.run(),
        Command::Tenant(command) => command.run(),
        Command::Legacy(command) => command.run(),
        Command::Mailbox(command) => command.run(),
        Command::Policy(command) => command.run(),
        Command::Quarantine(command) => command.run(),
        Command::Role(command) => command.run(),
        Command::AppPassword(command) => command.run(),
        Command::Token(command) => command.run(),
        Command::SecondFactor(command) => command.run(),
        Command::Forward(command) => command.run(),
        Command::DomainAlias(command) => command.run(),
        Command::Dkim(command) => command.run(),
        Command::Queue(command) => command.run(),
        Command::Reports(command) => command.run(),
        Command::Scan(command) => command.run(),
        Command::Learn(command) => command.run(),
        Command::Rules(command) => command.run(),
        Command::Trace(command) => command.run(),
        Command::Audit(command) => command.run(),
        Command::Gc(command) => command.run(),
        Command::Cluster(command) => command.run(),
        Command::Storage(command) => command.run(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            print::error(&error);
            ExitCode::from(if error.is::<print::Usage>() { 2 } else { 1 })
        }
    }
}
