//! The seam: what an engine keeps of lessons.

use async_trait::async_trait;
use base::{AccountId, UtcMillis};
use engine::EngineError;
use engine::table::Place;

use crate::lesson::{Key, Known, Owner, Step};

/// What a batch of steps changes of what is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub owner: Owner,
    pub key: Key,
    pub was: Option<Known>,
    pub is: Option<Known>,
}

/// A step and its number.
#[derive(Clone, Debug)]
pub(crate) struct Numbered {
    pub seq: i64,
    pub step: Step,
}

/// Where everything stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stand {
    /// Number of the latest step.
    pub last: i64,
    /// The step up to which the snapshot of all holds them; those are gone.
    pub snapshot: i64,
}

/// Numbers of steps rise in the order in which steps become visible, over all nodes.
#[async_trait]
pub(crate) trait Tables: Send + Sync {
    fn place(&self) -> Place;
    async fn stand(&self) -> Result<Stand, EngineError>;
    /// Steps above `seq` of any owner or of one, by rising number, at most `limit`.
    async fn since(&self, owner: Option<Owner>, seq: i64, limit: usize) -> Result<Vec<Numbered>, EngineError>;
    async fn known(&self, owner: Owner, key: Key) -> Result<Option<Known>, EngineError>;
    /// Adds steps, all or none; false if one of the changes starts from what is no longer known.
    async fn add(&self, steps: Vec<Step>, changes: Vec<Change>, now: UtcMillis) -> Result<bool, EngineError>;
    async fn snapshot(&self, owner: Owner) -> Result<Option<(i64, Vec<u8>)>, EngineError>;
    /// Takes the place of the owner's steps up to `seq`.
    async fn put_snapshot(&self, owner: Owner, seq: i64, weights: Vec<u8>) -> Result<(), EngineError>;
    /// Accounts that taught something for themselves.
    async fn teachers(&self) -> Result<Vec<AccountId>, EngineError>;
    /// Owners with more than `steps` steps.
    async fn owners_above(&self, steps: usize) -> Result<Vec<Owner>, EngineError>;
    /// Everything of an account.
    async fn forget(&self, account: AccountId) -> Result<(), EngineError>;
    /// What was learned before then can no longer be taken back; at most `limit` of them. Gives how many.
    async fn forget_known(&self, before: UtcMillis, limit: usize) -> Result<usize, EngineError>;
}

/// Limits and counts as SQL has them.
pub(crate) fn count(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
