//! What a password opened, and the end of it once the password no longer holds.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use access::Grant;
use base::AccountId;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::account::Access;

/// A digest of what lets an account sign in: its stored password, its access and roles, whether a second factor goes with
/// the password, and that it is enabled. What was opened with one does not outlive it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Rights(pub u64);

impl Rights {
    pub(crate) fn new(stored_password: &str, access: Access, enabled: bool) -> Self {
        let mut digest = blake3::Hasher::new();
        digest.update(stored_password.as_bytes()).update(&[0, u8::from(enabled)]).update(access.as_str().as_bytes());
        Self::of(&digest)
    }

    /// Of an account that holds roles, or has a second factor: beside its own ones, and as they are.
    #[must_use]
    pub(crate) fn with(self, grants: &[Grant], has_second_factor: bool) -> Self {
        if grants.is_empty() && !has_second_factor {
            return self;
        }
        let mut digest = blake3::Hasher::new();
        digest.update(&self.0.to_be_bytes());
        for grant in grants {
            digest.update(grant.role.as_str().as_bytes()).update(grant.reach.to_string().as_bytes()).update(&[0]);
        }
        digest.update(&[u8::from(has_second_factor)]);
        Self::of(&digest)
    }

    fn of(digest: &blake3::Hasher) -> Self {
        let digest = *digest.finalize().as_bytes();
        Self(digest.iter().take(8).fold(0, |number, octet| number << 8 | u64::from(*octet)))
    }
}

/// Kept by whoever serves a signed-in client.
#[derive(Debug)]
pub struct Hold(Box<Hand>);

/// In a box: idle sessions hold one each.
#[derive(Debug)]
struct Hand {
    account: AccountId,
    rights: Rights,
    number: u64,
    end: CancellationToken,
    of: Arc<Holds>,
}

impl Hold {
    /// Ends when the account was given another password or another role, a second factor, was closed, or deleted, on any
    /// node; what an app password opened, when that one is no more. Cancel safe.
    pub async fn ended(&self) {
        self.0.end.cancelled().await;
    }

    /// Never without one: the client has not signed in.
    pub async fn ended_of(hold: Option<&Self>) {
        match hold {
            Some(hold) => hold.ended().await,
            None => std::future::pending().await,
        }
    }

    pub const fn rights(&self) -> Rights {
        self.0.rights
    }

    pub fn has_ended(&self) -> bool {
        self.0.end.is_cancelled()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.of.release(self.0.account, self.0.number);
    }
}

#[derive(Debug)]
struct Held {
    number: u64,
    rights: Rights,
    end: CancellationToken,
}

/// All that is held on this node.
#[derive(Default, Debug)]
pub struct Holds {
    held: Mutex<HashMap<AccountId, Vec<Held>>>,
    numbers: AtomicU64,
}

impl Holds {
    pub fn hold(self: &Arc<Self>, account: AccountId, rights: Rights) -> Hold {
        let (number, end) = (self.numbers.fetch_add(1, Ordering::Relaxed), CancellationToken::new());
        let held = Held { number, rights, end: end.clone() };
        self.held.lock().entry(account).or_default().push(held);
        Hold(Box::new(Hand { account, rights, number, end, of: Arc::clone(self) }))
    }

    /// Ends what was opened with other rights than the account has now, by its password or by others.
    pub(crate) fn check(&self, account: AccountId, rights: &[Rights]) {
        let held = self.held.lock();
        let outlived = held.get(&account).into_iter().flatten().filter(|held| !rights.contains(&held.rights));
        outlived.for_each(|held| held.end.cancel());
    }

    /// Those of `accounts` that hold something here.
    pub(crate) fn among(&self, accounts: &[AccountId]) -> Vec<AccountId> {
        let held = self.held.lock();
        accounts.iter().copied().filter(|account| held.contains_key(account)).collect()
    }

    pub(crate) fn accounts(&self) -> Vec<AccountId> {
        self.held.lock().keys().copied().collect()
    }

    fn release(&self, account: AccountId, number: u64) {
        let mut held = self.held.lock();
        let Some(own) = held.get_mut(&account) else { return };
        own.retain(|held| held.number != number);
        if own.is_empty() {
            held.remove(&account);
        }
    }
}
