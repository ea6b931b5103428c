//! The store's side of what nodes tell each other.

use std::sync::Arc;

use async_trait::async_trait;
use base::{AccountId, ModSeq};
use cluster::LookFailed;
use store::Storage;

use super::engines::explain;

/// Sessions on this node's store.
pub struct StoreSessions(pub Arc<Storage>);

#[async_trait]
impl cluster::Sessions for StoreSessions {
    fn hear(&self, account: AccountId, modseq: ModSeq) {
        self.0.signals.hear(account, modseq);
    }

    async fn recheck(&self) -> Result<(), LookFailed> {
        self.0.recheck().await.map_err(|error| explain(&error).into())
    }
}
