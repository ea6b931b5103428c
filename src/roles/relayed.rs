//! Keeps the way out informed of domains whose mail goes on to servers of their own.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base::event;
use directory::{DomainRelay, Registry, RegistryError, Verify};
use engine::EngineError;
use mail::Domain;
use net::{MailHost, Trust};
use relay::{Outgoing, RelayedDomains};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::engines::Engines;
use super::legacies;

/// Many changes in a row are one.
const PAUSE: Duration = Duration::from_millis(200);
/// The engine is away: it is asked again.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Changes of where a domain's mail goes on to; `None` stays.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(deny_unknown_fields)]
pub struct RelayPatch {
    /// [`MailHost`]s; none: its mailboxes are here.
    pub hosts: Option<Vec<String>>,
    pub lmtp: Option<bool>,
    /// Which certificates count: `system`, `off` or `sha256:HEX`.
    pub certificates: Option<String>,
    /// `list`, `ask` or `all`.
    pub verify: Option<String>,
}

impl RelayPatch {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What it makes of what there is; `None`: nothing changes.
    pub fn change(self, was: Option<DomainRelay>) -> anyhow::Result<Option<Option<DomainRelay>>> {
        if self.is_empty() {
            return Ok(None);
        }
        if self.hosts.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Some(None));
        }
        let lmtp = self.lmtp.or(was.as_ref().map(|was| was.lmtp)).unwrap_or(false);
        let hosts = match (self.hosts, &was) {
            (Some(hosts), _) => {
                let usual = DomainRelay::usual_port(lmtp);
                let parse = |text: &String| MailHost::parse(text, usual).with_context(|| format!("`{text}`"));
                hosts.iter().map(parse).collect::<anyhow::Result<_>>()?
            }
            (None, Some(was)) => was.hosts.clone(),
            (None, None) => anyhow::bail!("say which server the domain's mail goes on to"),
        };
        let trust = self.certificates.as_deref().map(legacies::trust).transpose()?;
        let verify = match self.verify {
            Some(word) => {
                let known = Verify::from_name(&word);
                Some(known.with_context(|| format!("`{word}`: addresses are known by `list`, `ask` or `all`"))?)
            }
            None => None,
        };
        Ok(Some(Some(DomainRelay {
            hosts,
            lmtp,
            trust: trust.or(was.as_ref().map(|was| was.trust.clone())).unwrap_or(Trust::System),
            verify: verify.or(was.map(|was| was.verify)).unwrap_or(Verify::Ask),
        })))
    }
}

/// Sets where a domain's mail goes on to, and lets this node know at once.
pub async fn set(engines: &Engines, name: &Domain, relay: Option<DomainRelay>) -> Result<(), RegistryError> {
    engines.directory.set_domain_relay(name, relay).await?;
    Ok(look(&engines.directory, &engines.outgoing).await?)
}

pub fn value(relay: &DomainRelay) -> Value {
    json!({
        "hosts": relay.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "lmtp": relay.lmtp,
        "certificates": relay.trust.word(),
        "verify": relay.verify.as_str(),
    })
}

/// All or none: what was known before stays if the directory does not answer.
pub async fn look(directory: &Registry, outgoing: &Outgoing) -> Result<(), EngineError> {
    let found = directory.relayed_domains().await?;
    outgoing.relayed.store(Arc::new(RelayedDomains::new(found)));
    Ok(())
}

/// Follows the directory until `stop`.
pub async fn run(engines: Arc<Engines>, stop: CancellationToken) {
    let mut news = engines.directory.news();
    loop {
        let looked = look(&engines.directory, &engines.outgoing).await;
        if let Err(error) = &looked {
            tracing::warn!(event = event::STORE_FAILED, what = "directory", %error);
        }
        let again = async {
            match &looked {
                Ok(()) => drop(news.changed().await),
                Err(_) => tokio::time::sleep(AGAIN_AFTER).await,
            }
            tokio::time::sleep(PAUSE).await;
        };
        tokio::select! {
            () = again => {}
            () = stop.cancelled() => return,
        }
    }
}
