//! Events: stable names, typed fields.

use base::{AccountId, MessageId, SessionId, UtcMillis};
use serde_json::{Map, Value};

/// What an event says. Names are part of the contract: they are stored, exported and shown.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// A client connected. Fields: client, port, tls.
    Connected,
    /// A client was turned away before it said anything of use. Fields: status.
    ConnectionRefused,
    /// Somebody signed in. Fields: login, protocol, client.
    LoginAccepted,
    LoginRefused,
    /// MAIL FROM was taken. Fields: from, helo, client, tls.
    Started,
    RecipientAccepted,
    /// Fields: status.
    RecipientRefused,
    /// The filter's conclusion. Fields: subject, size, score, verdict, findings, took_ms, header_from.
    Judged,
    /// What policy decided for one recipient. Fields: disposition, decided_by.
    Decided,
    /// A recipient's copy is durably in a mailbox, or a server elsewhere has it. Fields: mailbox, uid; of a server elsewhere:
    /// status, host, tls, attempt.
    Delivered,
    /// The message was refused for good. Fields: status.
    Refused,
    /// The client was asked to try again, or a server elsewhere asks us to. Fields: status; of a server elsewhere: host, tls,
    /// attempt, next_at.
    Deferred,
    /// A recipient elsewhere: the message is durably in the queue. Fields: lane; if it waits for somebody's word: held.
    Queued,
    /// A recipient elsewhere gets it never; its sender is told, if that is wanted. Fields: status, host, tls, attempt.
    Bounced,
    /// The connection ended before the message did.
    Abandoned,
    /// The owner opened it.
    Seen,
    /// The owner or staff moved it out of quarantine or Junk.
    Released,
    /// An administrator changed something. Fields: action, object.
    Administered,
    /// The owner of an account brought removed mail back or deleted it for good. Fields: action, object.
    OwnerChanged,
    /// An account may send no more, for it sent as somebody would who has its password. Fields: reason.
    SendingLocked,
    /// The trail itself lost events. Fields: count.
    Gap,
}

impl Kind {
    pub const ALL: [(Self, &'static str); 21] = [
        (Self::Connected, "connected"),
        (Self::ConnectionRefused, "connection-refused"),
        (Self::LoginAccepted, "login-accepted"),
        (Self::LoginRefused, "login-refused"),
        (Self::Started, "started"),
        (Self::RecipientAccepted, "recipient-accepted"),
        (Self::RecipientRefused, "recipient-refused"),
        (Self::Judged, "judged"),
        (Self::Decided, "decided"),
        (Self::Delivered, "delivered"),
        (Self::Refused, "refused"),
        (Self::Deferred, "deferred"),
        (Self::Queued, "queued"),
        (Self::Bounced, "bounced"),
        (Self::Abandoned, "abandoned"),
        (Self::Seen, "seen"),
        (Self::Released, "released"),
        (Self::Administered, "administered"),
        (Self::OwnerChanged, "owner-changed"),
        (Self::SendingLocked, "sending-locked"),
        (Self::Gap, "gap"),
    ];

    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }
}

/// How it ended for one recipient. Ordered: a message counts as its mildest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Outcome {
    Delivered,
    Junk,
    Quarantined,
    Deferred,
    Refused,
}

impl Outcome {
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Delivered, "delivered"),
        (Self::Junk, "junk"),
        (Self::Quarantined, "quarantined"),
        (Self::Deferred, "deferred"),
        (Self::Refused, "refused"),
    ];

    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(outcome, _)| *outcome == self).map_or("", |(_, name)| name)
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(outcome, _)| *outcome)
    }

    pub(crate) fn rank(self) -> i64 {
        Self::ALL.iter().position(|(outcome, _)| *outcome == self).and_then(|at| i64::try_from(at).ok()).unwrap_or(0)
    }

    pub(crate) fn from_rank(rank: i64) -> Option<Self> {
        Self::ALL.get(usize::try_from(rank).ok()?).map(|(outcome, _)| *outcome)
    }
}

/// The recipient or sender an event is about: decides who may see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Party {
    /// As in the envelope; empty for the null sender.
    pub address: String,
    /// The local account behind it, if there is one.
    pub account: Option<AccountId>,
    /// True for a recipient, false for the (authenticated) sender.
    pub is_recipient: bool,
    /// Set by the event that ends the story for this recipient, for now.
    pub outcome: Option<Outcome>,
}

/// One thing that happened.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    pub at: UtcMillis,
    pub session: Option<SessionId>,
    pub message: Option<MessageId>,
    pub kind: Kind,
    pub party: Option<Party>,
    pub fields: Map<String, Value>,
}

impl Event {
    pub fn new(at: UtcMillis, kind: Kind) -> Self {
        Self { at, session: None, message: None, kind, party: None, fields: Map::new() }
    }

    #[must_use]
    pub fn session(mut self, session: SessionId) -> Self {
        self.session = Some(session);
        self
    }

    #[must_use]
    pub fn message(mut self, message: MessageId) -> Self {
        self.message = Some(message);
        self
    }

    #[must_use]
    pub fn party(mut self, party: Party) -> Self {
        self.party = Some(party);
        self
    }

    /// Adds a field; see [`Kind`] for the names each kind has.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }
}

/// At most `max` octets of `text`, ending with a whole character.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}
