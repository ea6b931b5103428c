//! The envelope: who a message is from and for, as the transaction said it.

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
}
