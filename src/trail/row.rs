//! What queries give back.

use base::{AccountId, MessageId, SessionId, UtcMillis};
use serde_json::{Map, Value};

use crate::event::{Kind, Outcome};

/// One message in a list.
#[derive(Clone, PartialEq, Debug)]
pub struct MessageRow {
    pub id: MessageId,
    pub at: UtcMillis,
    /// Sequence number of the last event that changed this row; from [`crate::Live`] of the change that is told.
    pub seq: u64,
    /// Empty for the null path; `None` before MAIL FROM.
    pub reverse_path: Option<String>,
    pub subject: Option<String>,
    pub size_bytes: Option<u64>,
    /// In thousandths.
    pub score: Option<i32>,
    /// The client's address.
    pub client: Option<String>,
    /// Why it did not simply go to the inbox: a reason class or the reply that was given.
    pub reason: Option<String>,
    pub took_ms: Option<u64>,
    /// The mildest outcome of the recipients in the viewer's scope.
    pub outcome: Option<Outcome>,
    /// Recipients in the viewer's scope.
    pub recipients: Vec<PartyRow>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartyRow {
    pub address: String,
    pub account: Option<AccountId>,
    pub outcome: Option<Outcome>,
    pub mailbox: Option<String>,
    pub reason: Option<String>,
}

/// One event of a life story.
#[derive(Clone, PartialEq, Debug)]
pub struct StoredEvent {
    pub seq: u64,
    pub at: UtcMillis,
    pub session: Option<SessionId>,
    pub message: Option<MessageId>,
    pub kind: Kind,
    /// The sender or recipient it is about.
    pub party: Option<String>,
    pub outcome: Option<Outcome>,
    pub fields: Map<String, Value>,
}

/// A message as an engine has it, for [`crate::Scope`] to show in part: `row.recipients` is empty yet.
#[derive(Clone, Debug)]
pub(crate) struct StoredMessage {
    pub(crate) row: MessageRow,
    pub(crate) parties: Vec<StoredParty>,
}

#[derive(Clone, Debug)]
pub(crate) struct StoredParty {
    pub(crate) is_recipient: bool,
    pub(crate) row: PartyRow,
}

/// An event as an engine has it, for [`crate::Scope`] to show or not.
#[derive(Debug)]
pub(crate) struct ToldEvent {
    pub(crate) event: StoredEvent,
    /// The account behind its party.
    pub(crate) account: Option<AccountId>,
}
