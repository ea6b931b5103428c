//! What lists, ENVELOPE, BODYSTRUCTURE and JMAP need of a message, made once when it is stored.

use base::UtcMillis;

use super::structure::Part;

/// A stored message at a glance. Made by [`Summary::of`] at delivery, kept beside the entry in the form of
/// [`Summary::encode`], read back by [`Summary::decode`]. All offsets count from the start of the blob.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    pub envelope: EnvelopeFields,
    pub root: Part,
    /// The `Date` field, if it can be read.
    pub sent_at: Option<UtcMillis>,
    /// The first words of the text, white space folded, at most 255 characters.
    pub preview: String,
    /// True if a part would be listed as an attachment (RFC 8621 §4.1.4 `hasAttachment`).
    pub has_attachment: bool,
    /// Raw header fields that clients ask for most, as they stand in the message with their line ends, in order:
    /// a request for HEADER.FIELDS within [`COMMON_FIELDS`] needs no blob.
    pub common_fields: Vec<u8>,
}

/// ENVELOPE (RFC 9051 §7.5.2): raw octets as written, unfolded, encoded words left encoded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EnvelopeFields {
    pub date: Option<Vec<u8>>,
    pub subject: Option<Vec<u8>>,
    pub from: Vec<EnvelopeAddress>,
    /// Falls back to `from` when written for IMAP, not here.
    pub sender: Vec<EnvelopeAddress>,
    pub reply_to: Vec<EnvelopeAddress>,
    pub to: Vec<EnvelopeAddress>,
    pub cc: Vec<EnvelopeAddress>,
    pub bcc: Vec<EnvelopeAddress>,
    pub in_reply_to: Option<Vec<u8>>,
    pub message_id: Option<Vec<u8>>,
    pub references: Option<Vec<u8>>,
}

/// One element of an address list, in the order and with the group marks that ENVELOPE uses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EnvelopeAddress {
    /// `name` is the display name as written (encoded words kept, quotes and escapes removed).
    Mailbox {
        name: Option<Vec<u8>>,
        local: Vec<u8>,
        domain: Vec<u8>,
    },
    GroupStart {
        name: Vec<u8>,
    },
    GroupEnd,
}

/// Lower-case names of the fields in [`Summary::common_fields`].
pub const COMMON_FIELDS: &[&str] = &[
    "bcc",
    "cc",
    "content-transfer-encoding",
    "content-type",
    "date",
    "delivered-to",
    "disposition-notification-to",
    "from",
    "importance",
    "in-reply-to",
    "list-id",
    "list-post",
    "list-unsubscribe",
    "message-id",
    "mime-version",
    "newsgroups",
    "priority",
    "references",
    "reply-to",
    "return-path",
    "sender",
    "subject",
    "to",
    "x-priority",
    "x-spam-flag",
    "x-spam-score",
    "x-spam-status",
    "x-mailer",
    "user-agent",
];
