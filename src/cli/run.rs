//! `ortler demo` and `ortler serve`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use base::Secret;
use clap::Args;
use config::{Config, Listener, Service};
use directory::{Access, NewAccount, PasswordHash, RegistryError};
use mail::{Address, Domain};

use super::{node, print};
use crate::roles::{self, DEMO_CONFIG, Engines};

#[derive(Args, Debug)]
pub struct Demo {
    /// Folder of the node; a second start on it finds everything again.
    #[arg(long, value_name = "DIR", default_value = "./ortler-demo")]
    dir: PathBuf,
    /// Each service listens on this plus its usual port.
    #[arg(long, value_name = "P", default_value_t = 10000, value_parser = clap::value_parser!(u16).range(1..=64000))]
    base_port: u16,
    /// Accounts user1@D ... userN@D, besides admin@D; the password of all is `demo`.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    accounts: u32,
    /// Mail domain of the demonstration.
    #[arg(long, value_name = "D", default_value = "example.test")]
    domain: Domain,
    /// Name server to ask instead of the system's.
    #[arg(long, value_name = "IP:PORT")]
    dns: Vec<SocketAddr>,
    /// Address to listen on.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    bind: IpAddr,
    /// From here connections may begin with a PROXY header, and SMTP clients may use XCLIENT.
    #[arg(long, value_name = "CIDR")]
    trusted_proxy: Vec<String>,
    /// Virus scanner: `host:port` or a socket's path.
    #[arg(long, value_name = "ADDR")]
    clamd: Vec<String>,
    /// External milter: `host:port` or `unix:/path`.
    #[arg(long, value_name = "ADDR")]
    milter: Vec<String>,
    /// Deliver all mail without judging it: for measuring.
    #[arg(long)]
    unfiltered: bool,
}

/// The password of every account of a demonstration.
const PASSWORD: &str = "demo";

impl Demo {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        std::fs::create_dir_all(&self.dir).with_context(|| self.dir.display().to_string())?;
        let config = self.config()?;
        roles::start_logging(&config)?;
        let listeners = config.listeners.clone();
        node::runtime()?.block_on(roles::run(
            config,
            async |engines| self.fill(engines).await,
            || {
                for listener in &listeners {
                    print::line(&format!("{:<12} {}", listener.service.as_str(), listener.address));
                }
                print::line(&format!(
                    "sign in as user1@{0} to user{1}@{0} or admin@{0}, password {PASSWORD}",
                    self.domain, self.accounts
                ));
                print::line("ready");
            },
        ))?;
        Ok(ExitCode::SUCCESS)
    }

    /// The options as a configuration file in the folder, so that every other command finds the node there.
    fn config(&self) -> anyhow::Result<Config> {
        let quoted = |texts: &[String]| {
            let texts = texts.iter().map(|text| format!("{text:?}"));
            format!("[{}]", texts.collect::<Vec<_>>().join(", "))
        };
        let dns: Vec<String> = self.dns.iter().map(ToString::to_string).collect();
        let mut text = format!(
            "# Written by `ortler demo` at each start.\n[node]\nname = \"mx.{domain}\"\ndata = \".\"\npostmaster = \"admin@{domain}\"\n\
             shutdown_wait = \"10 s\"\n[network]\ntrusted_proxies = {}\n[dns]\nservers = {}\n[login]\nplaintext = \"loopback\"\nstaff_second_factor = \"optional\"\n\
             [smtp]\nsessions_per_client_max = 100000\n[imap]\nsessions_per_client_max = 100000\n[pop3]\nsessions_per_client_max = 100000\n\
             [web]\nurl = \"https://{web}\"\n[filter]\nclamd = {}\nmilters = {}\n{}[log]\nlevel = \"warn\"\n",
            quoted(&self.trusted_proxy),
            quoted(&dns),
            quoted(&self.clamd),
            quoted(&self.milter),
            if self.unfiltered { "judged = []\n" } else { "" },
            domain = self.domain,
            web = SocketAddr::new(self.bind, self.base_port.saturating_add(443)),
        );
        // A demonstration is alone.
        for (service, name, port) in Service::ALL.into_iter().filter(|(service, ..)| *service != Service::Cluster) {
            let port = self.base_port.checked_add(port).context("--base-port is too high")?;
            let listener = Listener { service, address: SocketAddr::new(self.bind, port) };
            text.push_str(&format!("[[listener]]\nprotocol = \"{name}\"\naddress = \"{}\"\n", listener.address));
        }
        let file = self.dir.join(DEMO_CONFIG);
        let config = Config::parse(&text, &file).map_err(|error| print::Usage(error.to_string()))?;
        std::fs::write(&file, text).with_context(|| file.display().to_string())?;
        Ok(config)
    }

    /// The domain and the accounts, as far as they are missing.
    async fn fill(&self, engines: &Engines) -> anyhow::Result<()> {
        let directory = &engines.directory;
        exists_is_fine(directory.add_domain(self.domain.clone(), None).await)?;
        // One hash for all: making thousands would take minutes.
        let password = tokio::task::spawn_blocking(|| PasswordHash::make(&Secret::new(PASSWORD.to_owned()))).await?;
        let users = (1..=self.accounts).map(|n| (format!("user{n}"), format!("User {n}"), Access::User));
        let admin = ("admin".to_owned(), "Administrator".to_owned(), Access::Admin);
        for (local, name, access) in users.chain([admin]) {
            let address: Address = format!("{local}@{}", self.domain).parse()?;
            if directory.account_by_address(&address).await?.is_some() {
                continue;
            }
            let account = NewAccount {
                address,
                name,
                access,
                password: password.clone(),
                quota: base::Quota::UNLIMITED,
                placement: directory::Placement::OfDomain,
            };
            exists_is_fine(directory.add_account(account).await)?;
        }
        Ok(())
    }
}

fn exists_is_fine<T>(outcome: Result<T, RegistryError>) -> Result<(), RegistryError> {
    match outcome {
        Ok(_) | Err(RegistryError::Exists { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

#[derive(Args, Debug)]
pub struct Serve {
    #[arg(long, value_name = "FILE", default_value = "/etc/ortler/ortler.toml")]
    config: PathBuf,
}

impl Serve {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let config = Config::load(&self.config)?;
        roles::start_logging(&config)?;
        roles::check(&config)?;
        node::runtime()?.block_on(roles::run(config, async |_| Ok(()), || {}))?;
        Ok(ExitCode::SUCCESS)
    }
}
