//! What administrators ask for by the API: the operations of the command line.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use directory::RegistryError;
use layers::LayerError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use web::{Desk, Operations, Refusal};

use super::Engines;
use super::control::{self, Request};
use super::limits::QuotaPatch;
use super::relayed::RelayPatch;

/// What a command is about is not there; the text says what, and where else to look.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Absent(pub String);

/// Asks the node's engines, as long as they are open.
pub struct Operator(Weak<Engines>);

impl Operator {
    pub fn new(engines: &Arc<Engines>) -> Arc<Self> {
        Arc::new(Self(Arc::downgrade(engines)))
    }
}

fn read<T: DeserializeOwned>(request: Value) -> Result<T, Refusal> {
    serde_json::from_value(request).map_err(|error| Refusal::Invalid { field: None, why: error.to_string() })
}

fn refusal(error: &anyhow::Error) -> Refusal {
    match error.downcast_ref() {
        Some(RegistryError::Missing { .. }) => return Refusal::Missing(error.to_string()),
        Some(RegistryError::Exists { .. }) => return Refusal::Exists(error.to_string()),
        Some(RegistryError::Unavailable(_)) => return Refusal::Unavailable(format!("{error:#}")),
        Some(RegistryError::Refused { .. }) | None => {}
    }
    if let Some(Absent(why)) = error.downcast_ref() {
        return Refusal::Missing(why.clone());
    }
    match error.downcast_ref() {
        Some(LayerError::Changed) => Refusal::Changed,
        Some(LayerError::Missing { .. }) => Refusal::Missing(error.to_string()),
        Some(LayerError::Unavailable(_)) => Refusal::Unavailable(format!("{error:#}")),
        Some(LayerError::Refused { option, why }) => {
            Refusal::Invalid { field: option.map(str::to_owned), why: why.clone() }
        }
        None => Refusal::Invalid { field: None, why: format!("{error:#}") },
    }
}

/// Where the mail of one domain goes on to.
#[derive(Deserialize)]
struct Relay {
    domain: String,
    relay: RelayPatch,
}

fn relay_request(Relay { domain: name, relay }: Relay) -> Request {
    let (tenant, legacy, limit) = (None, None, QuotaPatch::default());
    Request::DomainSet { name, tenant, no_tenant: false, legacy, limit, relay }
}

#[async_trait]
impl Operations for Operator {
    async fn operate(&self, desk: Desk, request: Value) -> Result<Value, Refusal> {
        let engines = self.0.upgrade().ok_or_else(|| Refusal::Unavailable("the node stops".to_owned()))?;
        let request = match desk {
            Desk::Queue => Request::Queue(read(request)?),
            Desk::Keys => Request::Keys(read(request)?),
            Desk::Reports => Request::Reports(read(request)?),
            Desk::Policy => Request::Policy(read(request)?),
            Desk::Quarantine => Request::Quarantine(read(request)?),
            Desk::People => Request::People(read(request)?),
            Desk::Import => Request::Import(read(request)?),
            Desk::Relay => relay_request(read(request)?),
        };
        let done = control::execute(&engines, request, Bytes::new()).await;
        done.map(|reply| reply.value).map_err(|error| refusal(&error))
    }
}
