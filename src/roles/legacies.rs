//! Legacy servers, as commands name them.

use anyhow::Context as _;
use directory::{DeliveryEndpoint, DeliveryProtocol, LegacyChange, LegacyServer, Placement, Registry, RegistryError};
use net::{Endpoint, Trust};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What a command asks about legacy servers.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(tag = "legacy", rename_all = "kebab-case")]
pub enum LegacyRequest {
    Add { name: String, patch: LegacyPatch },
    List,
    Show { name: String },
    Set { name: String, patch: LegacyPatch },
    Delete { name: String },
}

/// Changes to a legacy server; `None` stays. Addresses are [`Endpoint`]s, or `none`.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
pub struct LegacyPatch {
    pub imap: Option<String>,
    pub pop3: Option<String>,
    pub submission: Option<String>,
    pub sieve: Option<String>,
    pub lmtp: Option<String>,
    pub smtp: Option<String>,
    /// `system`, `off` or `sha256:HEX`.
    pub verify: Option<String>,
    /// Authorities, PEM.
    pub authorities: Option<String>,
    pub proxy_protocol: Option<bool>,
    pub capture_passwords: Option<bool>,
}

/// The word that takes something away.
const NONE: &str = "none";

/// A server's name; `None` for the word `none`.
pub fn server(text: String) -> Option<String> {
    (text != NONE).then_some(text)
}

/// Where a new account begins; not said, as its domain does.
pub fn placement(text: Option<String>) -> Placement {
    match text.map(server) {
        None => Placement::OfDomain,
        Some(None) => Placement::Here,
        Some(Some(name)) => Placement::Legacy(name),
    }
}

pub async fn execute(directory: &Registry, request: LegacyRequest) -> anyhow::Result<Value> {
    match request {
        LegacyRequest::Add { name, patch } => {
            directory.add_legacy(&name, patch.change()?).await?;
            show(directory, &name).await
        }
        LegacyRequest::List => Ok(directory.legacies().await?.iter().map(value).collect()),
        LegacyRequest::Show { name } => show(directory, &name).await,
        LegacyRequest::Set { name, patch } => {
            directory.set_legacy(&name, patch.change()?).await?;
            show(directory, &name).await
        }
        LegacyRequest::Delete { name } => {
            directory.delete_legacy(&name).await?;
            Ok(Value::Null)
        }
    }
}

impl LegacyPatch {
    fn change(self) -> anyhow::Result<LegacyChange> {
        let trust = match (self.verify, self.authorities) {
            (_, Some(pem)) => Some(Trust::Authorities(pem)),
            (Some(word), None) => Some(trust(&word)?),
            (None, None) => None,
        };
        let delivery = |protocol| move |endpoint| DeliveryEndpoint { protocol, endpoint };
        let lmtp = endpoint(self.lmtp)?.map(|to| to.map(delivery(DeliveryProtocol::Lmtp)));
        let smtp = endpoint(self.smtp)?.map(|to| to.map(delivery(DeliveryProtocol::Smtp)));
        Ok(LegacyChange {
            imap: endpoint(self.imap)?,
            pop3: endpoint(self.pop3)?,
            submission: endpoint(self.submission)?,
            sieve: endpoint(self.sieve)?,
            delivery: lmtp.or(smtp),
            trust,
            proxy_protocol: self.proxy_protocol,
            capture_passwords: self.capture_passwords,
        })
    }
}

fn endpoint(text: Option<String>) -> anyhow::Result<Option<Option<Endpoint>>> {
    match text {
        None => Ok(None),
        Some(text) if text == NONE => Ok(Some(None)),
        Some(text) => Ok(Some(Some(text.parse().with_context(|| format!("`{text}`"))?))),
    }
}

pub fn trust(word: &str) -> anyhow::Result<Trust> {
    match (word, word.strip_prefix("sha256:")) {
        ("system", _) => Ok(Trust::System),
        ("off", _) => Ok(Trust::Anything),
        (_, Some(hex)) => {
            // As `openssl x509 -fingerprint -sha256` writes it, or without colons.
            let hex = hex.replace(':', "").to_ascii_lowercase();
            let octets = blake3::Hash::from_hex(&hex).with_context(|| format!("`{hex}` is no SHA-256"))?;
            Ok(Trust::Fingerprint(*octets.as_bytes()))
        }
        _ => anyhow::bail!("`{word}`: certificates are checked by `system`, `sha256:HEX`, or `off`"),
    }
}

async fn show(directory: &Registry, name: &str) -> anyhow::Result<Value> {
    let found = directory.legacies().await?;
    let missing = || RegistryError::Missing { what: format!("the legacy server {name}") };
    Ok(found.iter().find(|server| server.name == name).map(value).ok_or_else(missing)?)
}

fn value(server: &LegacyServer) -> Value {
    let text = |endpoint: &Option<Endpoint>| endpoint.as_ref().map(ToString::to_string);
    json!({
        "name": server.name,
        "imap": text(&server.imap),
        "pop3": text(&server.pop3),
        "submission": text(&server.submission),
        "sieve": text(&server.sieve),
        "delivery": server.delivery.as_ref().map(ToString::to_string),
        "certificates": server.trust.word(),
        "proxy_protocol": server.proxy_protocol,
        "capture_passwords": server.capture_passwords,
        "accounts": server.accounts,
        "created": mail::date::format_utc(server.created_at),
    })
}
