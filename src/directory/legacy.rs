//! Old servers where accounts still have their mailboxes.

use std::fmt;
use std::str::FromStr;

use base::UtcMillis;
use net::{Endpoint, InvalidEndpoint, Trust};

use crate::account::Account;
use crate::tables::refused;
use crate::{Protocol, RegistryError};

/// How mail is handed to an old server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeliveryProtocol {
    Lmtp,
    Smtp,
}

/// Where mail for its accounts is handed over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeliveryEndpoint {
    pub protocol: DeliveryProtocol,
    pub endpoint: Endpoint,
}

impl fmt::Display for DeliveryEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.protocol {
            DeliveryProtocol::Lmtp => "lmtp",
            DeliveryProtocol::Smtp => "smtp",
        };
        write!(f, "{word}+{}", self.endpoint)
    }
}

impl FromStr for DeliveryEndpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let (word, endpoint) = text.split_once('+').ok_or(InvalidEndpoint)?;
        let protocol = match word {
            "lmtp" => DeliveryProtocol::Lmtp,
            "smtp" => DeliveryProtocol::Smtp,
            _ => return Err(InvalidEndpoint),
        };
        Ok(Self { protocol, endpoint: endpoint.parse()? })
    }
}

/// An old server. What it has no address for is not to be had for its accounts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LegacyServer {
    pub name: String,
    pub imap: Option<Endpoint>,
    pub pop3: Option<Endpoint>,
    pub submission: Option<Endpoint>,
    pub sieve: Option<Endpoint>,
    pub delivery: Option<DeliveryEndpoint>,
    /// Of all its addresses.
    pub trust: Trust,
    /// Connections to it begin with a PROXY header that names the client.
    pub proxy_protocol: bool,
    /// A password that it took is kept, for the day when the account moves.
    pub capture_passwords: bool,
    /// Accounts that are there.
    pub accounts: u64,
    pub created_at: UtcMillis,
}

impl LegacyServer {
    pub fn new(name: &str, created_at: UtcMillis) -> Self {
        Self {
            name: name.to_owned(),
            imap: None,
            pop3: None,
            submission: None,
            sieve: None,
            delivery: None,
            trust: Trust::System,
            proxy_protocol: false,
            capture_passwords: false,
            accounts: 0,
            created_at,
        }
    }

    /// Where its accounts sign in by a protocol. For the web, which they cannot use yet, whatever tells whether a password is
    /// right.
    pub fn endpoint(&self, protocol: Protocol) -> Option<(Protocol, &Endpoint)> {
        let of = |protocol, endpoint: &'_ Option<Endpoint>| endpoint.clone().map(|_| protocol);
        let chosen = match protocol {
            Protocol::Web => of(Protocol::Imap, &self.imap)
                .or_else(|| of(Protocol::Pop3, &self.pop3))
                .or_else(|| of(Protocol::Submission, &self.submission))?,
            Protocol::Imap | Protocol::Pop3 | Protocol::Submission | Protocol::ManageSieve => protocol,
        };
        let endpoint = match chosen {
            Protocol::Imap => &self.imap,
            Protocol::Pop3 => &self.pop3,
            Protocol::Submission => &self.submission,
            Protocol::ManageSieve => &self.sieve,
            Protocol::Web => &None,
        };
        Some((chosen, endpoint.as_ref()?))
    }

    pub(crate) fn check(&self) -> Result<(), RegistryError> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        // `none` takes an account off.
        if self.name.is_empty() || self.name.len() > 60 || !self.name.chars().all(is_word) || self.name == "none" {
            return Err(refused(
                "a legacy server's name has 1 to 60 of A-Z, a-z, 0-9, `-`, `_`, `.`, and is not `none`",
            ));
        }
        self.trust.check().map_err(|why| refused(format!("the authorities cannot be used: {why}")))
    }
}

/// What of a legacy server changes; `None` stays, `Some(None)` takes the address away.
#[derive(Clone, Default, Debug)]
pub struct LegacyChange {
    pub imap: Option<Option<Endpoint>>,
    pub pop3: Option<Option<Endpoint>>,
    pub submission: Option<Option<Endpoint>>,
    pub sieve: Option<Option<Endpoint>>,
    pub delivery: Option<Option<DeliveryEndpoint>>,
    pub trust: Option<Trust>,
    pub proxy_protocol: Option<bool>,
    pub capture_passwords: Option<bool>,
}

impl LegacyChange {
    pub(crate) fn apply(self, server: &mut LegacyServer) {
        fn set<T>(place: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *place = value;
            }
        }
        set(&mut server.imap, self.imap);
        set(&mut server.pop3, self.pop3);
        set(&mut server.submission, self.submission);
        set(&mut server.sieve, self.sieve);
        set(&mut server.delivery, self.delivery);
        set(&mut server.trust, self.trust);
        set(&mut server.proxy_protocol, self.proxy_protocol);
        set(&mut server.capture_passwords, self.capture_passwords);
    }
}

/// Where a new account's mailbox is.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum Placement {
    /// As its domain says.
    #[default]
    OfDomain,
    Here,
    /// On the legacy server of this name.
    Legacy(String),
}

/// An account whose password only its old server knows.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    pub account: Account,
    pub server: std::sync::Arc<LegacyServer>,
}

pub(crate) fn trust_to_text(trust: &Trust) -> String {
    match trust {
        Trust::System => "system".to_owned(),
        Trust::Anything => "off".to_owned(),
        Trust::Fingerprint(octets) => format!("sha256 {}", blake3::Hash::from_bytes(*octets).to_hex()),
        Trust::Authorities(pem) => format!("pem {pem}"),
    }
}

pub(crate) fn trust_from_text(text: &str) -> Option<Trust> {
    match text.split_once(' ') {
        None if text == "system" => Some(Trust::System),
        None if text == "off" => Some(Trust::Anything),
        Some(("sha256", hex)) => Some(Trust::Fingerprint(*blake3::Hash::from_hex(hex).ok()?.as_bytes())),
        Some(("pem", pem)) => Some(Trust::Authorities(pem.to_owned())),
        _ => None,
    }
}

/// A server's row as both engines keep it, in the order of [`COLUMNS`].
pub(crate) struct LegacyRow {
    pub name: String,
    pub imap: Option<String>,
    pub pop3: Option<String>,
    pub submission: Option<String>,
    pub sieve: Option<String>,
    pub delivery: Option<String>,
    pub trust: String,
    pub proxy_protocol: bool,
    pub capture_passwords: bool,
    pub created_at: i64,
}

pub(crate) const COLUMNS: &str =
    "name, imap, pop3, submission, sieve, delivery, trust, proxy_protocol, capture_passwords, created_at";

impl LegacyRow {
    pub(crate) fn of(server: &LegacyServer) -> Self {
        let text = |endpoint: &Option<Endpoint>| endpoint.as_ref().map(ToString::to_string);
        Self {
            name: server.name.clone(),
            imap: text(&server.imap),
            pop3: text(&server.pop3),
            submission: text(&server.submission),
            sieve: text(&server.sieve),
            delivery: server.delivery.as_ref().map(ToString::to_string),
            trust: trust_to_text(&server.trust),
            proxy_protocol: server.proxy_protocol,
            capture_passwords: server.capture_passwords,
            created_at: server.created_at.0,
        }
    }

    /// `None`: the row makes no sense.
    pub(crate) fn read(self, accounts: u64) -> Option<LegacyServer> {
        fn parsed<T: FromStr>(text: Option<String>) -> Option<Option<T>> {
            text.map(|text| text.parse().ok()).map_or(Some(None), |read: Option<T>| read.map(Some))
        }
        Some(LegacyServer {
            imap: parsed(self.imap)?,
            pop3: parsed(self.pop3)?,
            submission: parsed(self.submission)?,
            sieve: parsed(self.sieve)?,
            delivery: parsed(self.delivery)?,
            trust: trust_from_text(&self.trust)?,
            proxy_protocol: self.proxy_protocol,
            capture_passwords: self.capture_passwords,
            accounts,
            created_at: UtcMillis(self.created_at),
            name: self.name,
        })
    }
}

pub(crate) fn in_use(name: &str) -> RegistryError {
    refused(format!(
        "accounts or domains are still on the legacy server {name}; `ortler account set ADDRESS --legacy none` takes one off"
    ))
}
