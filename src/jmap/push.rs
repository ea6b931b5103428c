//! State changes as they happen (RFC 8620 §7), for an event source.

use base::{AccountId, ModSeq};
use serde_json::{Map, Value, json};
use store::Signals;
use tokio::sync::watch;

use crate::core::Jmap;
use crate::id::account_id;

/// Waits for changes of one account.
pub struct Watch {
    account: AccountId,
    changes: watch::Receiver<Option<ModSeq>>,
}

/// Types whose state moves with the account.
const TYPES: [&str; 5] = ["Email", "EmailDelivery", "Mailbox", "Thread", "Quota"];

impl Jmap {
    pub fn watch(&self, account: AccountId) -> Watch {
        let signals: &Signals = &self.services.signals;
        Watch { account, changes: signals.subscribe(account) }
    }
}

impl Watch {
    /// The next `StateChange`, for the `types` wanted (all when empty), and its id. `None` when the node stops or no
    /// known type is wanted; changes that come close together become one.
    ///
    /// Cancel safe.
    pub async fn next(&mut self, types: &[String]) -> Option<(String, Value)> {
        loop {
            self.changes.changed().await.ok()?;
            let state = *self.changes.borrow_and_update();
            let Some(state) = state else { continue };
            let changed: Map<String, Value> = TYPES
                .iter()
                .filter(|name| types.is_empty() || types.iter().any(|wanted| wanted == *name))
                .map(|name| ((*name).to_owned(), json!(state.to_string())))
                .collect();
            if changed.is_empty() {
                return None;
            }
            let change = json!({ "@type": "StateChange", "changed": { account_id(self.account): changed } });
            return Some((state.to_string(), change));
        }
    }
}
