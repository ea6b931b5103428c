//! The envelope: who a message is from and for, as the transaction said it.

use std::time::Duration;

use base::UtcMillis;

use crate::address::{ForwardPath, ReversePath};

/// What BODY= announced (RFC 6152, RFC 3030).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BodyKind {
    #[default]
    SevenBit,
    EightBitMime,
    BinaryMime,
}

/// One transaction's envelope.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope {
    pub reverse_path: ReversePath,
    pub forward_paths: Vec<ForwardPath>,
    pub body: BodyKind,
    /// The client asked for SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    pub wishes: Wishes,
}

/// What a client asks for beside delivery.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wishes {
    /// RFC 3461 §4.3.
    pub returns: Option<Returns>,
    /// RFC 3461 §4.4, decoded.
    pub envelope_id: Option<String>,
    /// RFC 8689.
    pub requiretls: bool,
    /// RFC 4865.
    pub hold: Option<HoldWish>,
    /// Of the forward paths, in order; those beyond have none.
    pub recipients: Vec<RecipientWish>,
}

/// What a notice of failure gives back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Returns {
    Message,
    Header,
}

/// When a message goes out at the earliest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HoldWish {
    For(Duration),
    Until(UtcMillis),
}

/// What is to be told of one recipient.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecipientWish {
    /// RFC 3461 §4.1.
    pub notify: Option<NotifyWish>,
    /// RFC 3461 §4.2: `rfc822;ann@example.org`, decoded.
    pub original: Option<String>,
}

/// RFC 3461 §4.1: none of them is NEVER.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NotifyWish {
    pub success: bool,
    pub failure: bool,
    pub delay: bool,
}
