//! What administrators ask for by the API: the operations of the command line.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;
use web::{Desk, Operations};

use super::Engines;
use super::control::{self, Request};

/// Asks the node's engines, as long as they are open.
pub struct Operator(Weak<Engines>);

impl Operator {
    pub fn new(engines: &Arc<Engines>) -> Arc<Self> {
        Arc::new(Self(Arc::downgrade(engines)))
    }
}

fn read<T: DeserializeOwned>(request: Value) -> Result<T, String> {
    serde_json::from_value(request).map_err(|error| error.to_string())
}

#[async_trait]
impl Operations for Operator {
    async fn operate(&self, desk: Desk, request: Value) -> Result<Value, String> {
        let engines = self.0.upgrade().ok_or("the node stops")?;
        let request = match desk {
            Desk::Queue => Request::Queue(read(request)?),
            Desk::Keys => Request::Keys(read(request)?),
            Desk::Reports => Request::Reports(read(request)?),
        };
        let done = control::execute(&engines, request, Bytes::new()).await;
        done.map(|reply| reply.value).map_err(|error| format!("{error:#}"))
    }
}
