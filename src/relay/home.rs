//! What the queue needs of the system's own mailboxes.

use async_trait::async_trait;
use base::MessageId;
use bytes::Bytes;
use mail::Status;

/// Puts what comes back, and what the system itself says, into own mailboxes.
#[async_trait]
pub trait Home: Send + Sync {
    /// True if the address is of a domain of ours. `None`: cannot be told now.
    async fn is_ours(&self, address: &str) -> Option<bool>;

    /// Delivers without judging. A message that was delivered before is not delivered again.
    async fn deliver(&self, message: MessageId, sender: &str, recipient: &str, content: Bytes) -> Status;
}
