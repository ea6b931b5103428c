//! Wakes whoever waits for an account to change. A hint only: truth is the mod-sequence in the store.

use std::collections::HashMap;

use base::{AccountId, ModSeq};
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

/// Change hints within this node. One watch channel for each account that somebody waits for; every hint also goes to
/// one broadcast, from which other nodes are told.
pub struct Signals {
    waiting: Mutex<HashMap<AccountId, watch::Sender<Option<ModSeq>>>>,
    all: broadcast::Sender<(AccountId, ModSeq)>,
}

/// Hints a slow listener may fall behind; past that it is told that it lagged and must re-read.
const HINTS_KEPT: usize = 1024;

impl Signals {
    #[expect(clippy::new_without_default, reason = "a node makes exactly one; a default would invite more")]
    pub fn new() -> Self {
        Self { waiting: Mutex::new(HashMap::new()), all: broadcast::channel(HINTS_KEPT).0 }
    }

    /// Called after a commit of this node.
    pub fn publish(&self, account: AccountId, modseq: ModSeq) {
        self.wake(account, |seen| {
            *seen = (*seen).max(Some(modseq));
            true
        });
        // Nobody listening is fine.
        let _ = self.all.send((account, modseq));
    }

    /// Called when another node is known to have committed up to `modseq`. What is known already wakes nobody.
    pub fn hear(&self, account: AccountId, modseq: ModSeq) {
        self.wake(account, |seen| {
            let is_news = *seen < Some(modseq);
            *seen = (*seen).max(Some(modseq));
            is_news
        });
    }

    fn wake(&self, account: AccountId, see: impl FnOnce(&mut Option<ModSeq>) -> bool) {
        let mut waiting = self.waiting.lock();
        let Some(sender) = waiting.get(&account) else { return };
        if sender.receiver_count() == 0 {
            waiting.remove(&account);
        } else {
            sender.send_if_modified(see);
        }
    }

    /// Accounts that somebody waits for.
    pub fn watched(&self) -> Vec<AccountId> {
        let mut waiting = self.waiting.lock();
        waiting.retain(|_, sender| sender.receiver_count() > 0);
        waiting.keys().copied().collect()
    }

    /// Changes of one account. The receiver's first `changed()` waits for a change after this call.
    pub fn subscribe(&self, account: AccountId) -> watch::Receiver<Option<ModSeq>> {
        let mut waiting = self.waiting.lock();
        let sender = waiting.entry(account).or_insert_with(|| watch::Sender::new(None));
        let mut receiver = sender.subscribe();
        receiver.mark_unchanged();
        receiver
    }

    /// Changes of every account that this node made.
    pub fn subscribe_all(&self) -> broadcast::Receiver<(AccountId, ModSeq)> {
        self.all.subscribe()
    }
}
