//! Domains whose mail goes on to a server of their owner's, once it is judged.

use base::{AccountId, Quota, Secret};
use engine::EngineError;
use engine::table::{Columns as _, Row, Statement};
use mail::{Address, Domain, ForwardPath};
use net::{MailHost, Trust};

use crate::account::{Access, Account, NewAccount, Resolution};
use crate::credential::{digest, random_text};
use crate::directory::Directory as _;
use crate::error::{DirectoryError, RegistryError};
use crate::legacy::{Placement, trust_from_text, trust_to_text};
use crate::password::PasswordHash;
use crate::registry::Registry;
use crate::tables::{missing, refused};

/// How it is known which addresses a relayed domain has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verify {
    /// Those that are in the directory.
    List,
    /// Its server is asked as a sender would (RCPT); what it takes is put into the directory.
    Ask,
    /// Every one.
    All,
}

impl Verify {
    pub const ALL: [Self; 3] = [Self::List, Self::Ask, Self::All];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Ask => "ask",
            Self::All => "all",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verify| verify.as_str() == name)
    }
}

/// Where a domain's mail goes on to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainRelay {
    /// One to [`DomainRelay::HOSTS_MAX`], in the order in which they are tried.
    pub hosts: Vec<MailHost>,
    pub lmtp: bool,
    /// Which certificates count, where a host is written with TLS.
    pub trust: Trust,
    pub verify: Verify,
}

/// A relayed domain, for whoever hands mail on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelayedDomain {
    pub name: Domain,
    /// Its further names.
    pub aliases: Vec<Domain>,
    pub relay: DomainRelay,
}

/// Of the row `r`, as one text that [`DomainRelay::read`] takes apart.
pub(crate) const RELAY: &str = "r.verify || '\n' || r.lmtp || '\n' || r.hosts || '\n' || r.trust";

/// Addresses of one domain that are put into the directory by themselves. Whatever comes then belongs to its postmaster.
const TAKEN_IN_MAX: u64 = 20_000;
const TOKEN_CHARS: usize = 32;
const COUNTS_FOR_MS: i64 = 30 * 60_000;
const ANOTHER_AFTER_MS: i64 = 2 * 60_000;
const POSTMASTER: &str = "postmaster";

impl DomainRelay {
    pub const HOSTS_MAX: usize = 8;

    pub const fn usual_port(lmtp: bool) -> u16 {
        if lmtp { 24 } else { 25 }
    }

    /// `None` where there is none, or one of a later version.
    pub(crate) fn read(text: Option<&str>) -> Option<Self> {
        let mut parts = text?.splitn(4, '\n');
        let (verify, lmtp) = (Verify::from_name(parts.next()?)?, parts.next()? == "1");
        let hosts = parts.next()?.split(' ').map(|host| MailHost::parse(host, Self::usual_port(lmtp)));
        Some(Self {
            hosts: hosts.collect::<Result<_, _>>().ok()?,
            lmtp,
            trust: trust_from_text(parts.next()?)?,
            verify,
        })
    }

    fn check(&self) -> Result<(), RegistryError> {
        if self.hosts.is_empty() || self.hosts.len() > Self::HOSTS_MAX {
            return Err(refused(format!("mail goes on to 1 to {} servers", Self::HOSTS_MAX)));
        }
        self.trust.check().map_err(|why| refused(format!("the authorities cannot be used: {why}")))
    }
}

impl Registry {
    /// Sets where a domain's mail goes on to; `None`: its mailboxes are here. Accounts that it has stay.
    pub async fn set_domain_relay(&self, name: &Domain, relay: Option<DomainRelay>) -> Result<(), RegistryError> {
        let Some(entry) = self.domain(name).await? else { return Err(missing("the domain", name)) };
        let step = match relay {
            None => Statement::new("DELETE FROM domain_relay WHERE domain = $1", vec![entry.id.0.into()]),
            Some(relay) => {
                relay.check()?;
                if entry.legacy.is_some() {
                    return Err(refused(format!("new accounts of {name} begin on an old server; take that off first")));
                }
                let hosts: Vec<String> = relay.hosts.iter().map(ToString::to_string).collect();
                let text = "INSERT INTO domain_relay (domain, hosts, lmtp, trust, verify) VALUES ($1, $2, $3, $4, $5)
                    ON CONFLICT (domain) DO UPDATE SET hosts = $2, lmtp = $3, trust = $4, verify = $5";
                let values = vec![
                    entry.id.0.into(),
                    hosts.join(" ").into(),
                    i64::from(relay.lmtp).into(),
                    trust_to_text(&relay.trust).into(),
                    relay.verify.as_str().into(),
                ];
                Statement::new(text, values).must()
            }
        };
        self.change_both(vec![step], None).await?.map(drop).map_err(|_| missing("the domain", name))
    }

    /// All relayed domains, by name.
    pub async fn relayed_domains(&self) -> Result<Vec<RelayedDomain>, EngineError> {
        let text = format!(
            "SELECT d.name, {RELAY}, (SELECT string_agg(a.name, ' ') FROM domain_alias a WHERE a.domain = d.id)
             FROM domain_relay r JOIN {} d ON d.id = r.domain ORDER BY d.name",
            self.table("domain")
        );
        let damaged = || EngineError::damaged("a relayed domain");
        let read = |row: &Row| {
            // One of a later version is none here: its mail waits.
            let Some(relay) = DomainRelay::read(Some(row.text(1)?)) else { return Ok(None) };
            let aliases = row.text_opt(2)?.unwrap_or_default().split_ascii_whitespace();
            let aliases = aliases.map(str::parse).collect::<Result<_, _>>().map_err(|_| damaged())?;
            Ok(Some(RelayedDomain { name: row.text(0)?.parse().map_err(|_| damaged())?, aliases, relay }))
        };
        self.ask_both(&text, Vec::new()).await?.iter().filter_map(|row| read(row).transpose()).collect()
    }

    /// Words by which whoever reads an account's mail signs in, once and within half an hour. `None`: not this account, or it
    /// was given some a moment ago.
    pub async fn make_sign_in_link(&self, account: &Account) -> Result<Option<Secret<String>>, EngineError> {
        if !account.signs_in_by_mail() {
            return Ok(None);
        }
        let (token, now) = (random_text(TOKEN_CHARS), self.clock.utc().0);
        let text = "INSERT INTO sign_in_link (account, digest, made_at) VALUES ($1, $2, $3)
            ON CONFLICT (account) DO UPDATE SET digest = $2, made_at = $3 WHERE sign_in_link.made_at <= $4";
        let values = vec![account.id.0.into(), digest(&token).into(), now.into(), (now - ANOTHER_AFTER_MS).into()];
        let made = self.place().change(vec![Statement::new(text, values).must()]).await?;
        Ok(made.is_ok().then(|| Secret::new(token)))
    }

    /// Whose words these are, which are of no more use then.
    pub async fn take_sign_in_link(&self, token: &str) -> Result<Option<Account>, EngineError> {
        let text = "DELETE FROM sign_in_link WHERE digest = $1 AND made_at > $2 RETURNING account";
        let values = vec![digest(token).into(), (self.clock.utc().0 - COUNTS_FOR_MS).into()];
        let Ok(done) = self.place().change(vec![Statement::new(text, values).must()]).await? else { return Ok(None) };
        let Some(row) = done.first().and_then(|done| done.rows.first()) else { return Ok(None) };
        let account = self.tables.account(AccountId(row.number(0)?)).await?;
        Ok(account.filter(Account::signs_in_by_mail))
    }

    /// Whether a relayed domain may have addresses that are not in the directory.
    pub(crate) async fn has_unlisted(&self, domain: &Domain) -> Result<bool, EngineError> {
        let Some(domain) = self.tables.canonical(domain).await? else { return Ok(false) };
        let text = format!(
            "SELECT r.verify FROM domain_relay r JOIN {} d ON d.id = r.domain WHERE d.name = $1 AND r.verify <> 'list'",
            self.table("domain")
        );
        Ok(!self.ask_both(&text, vec![domain.as_str().into()]).await?.is_empty())
    }

    /// Puts an address of a relayed domain into the directory, as an account that no password opens; gives where it leads.
    /// Beyond a number of them it leads to the domain's postmaster, with the address as it is.
    pub(crate) async fn put_in(&self, address: &Address) -> Result<Resolution, DirectoryError> {
        let Some(domain) = self.tables.canonical(&address.domain).await? else { return Ok(Resolution::ForeignDomain) };
        let local = address.local.as_str().split('+').next().unwrap_or_default().to_lowercase();
        let count = format!(
            "SELECT count(*) FROM {} a JOIN {} d ON d.id = a.domain WHERE d.name = $1",
            self.table("account"),
            self.table("domain")
        );
        let found = self.ask_both(&count, vec![domain.as_str().into()]).await?;
        let known = found.first().map_or(Ok(0), |row| row.number(0))?;
        let local = if known < TAKEN_IN_MAX && !local.is_empty() { local.as_str() } else { POSTMASTER };
        let Ok(own) = format!("{local}@{domain}").parse::<Address>() else { return Ok(Resolution::UnknownAddress) };
        let account = NewAccount {
            address: own.clone(),
            name: String::new(),
            access: Access::User,
            password: PasswordHash::of_nobody(),
            quota: Quota::UNLIMITED,
            placement: Placement::Here,
        };
        match self.add_account(account).await {
            // Another node, or another session, was first.
            Ok(_) | Err(RegistryError::Exists { .. }) => {}
            Err(RegistryError::Unavailable(error)) => return Err(error.into()),
            Err(_) => return Ok(Resolution::UnknownAddress),
        }
        let resolved = self.resolve(&ForwardPath::Address(own)).await?;
        Ok(match resolved {
            Resolution::Local(mut recipients) => {
                for one in &mut recipients {
                    one.address = Address { domain: domain.clone(), ..address.clone() };
                }
                Resolution::Local(recipients)
            }
            other => other,
        })
    }
}
