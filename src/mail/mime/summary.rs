//! What lists, ENVELOPE, BODYSTRUCTURE and JMAP need of a message, made once when it is stored.

use base::UtcMillis;

use super::address_list::parse_address_list;
use super::codec::{self, DamagedSummary};
use super::structure::Part;
use super::{text, walk};
use crate::header::HeaderFields;

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

impl EnvelopeAddress {
    /// `local@domain` as written, for people to read; `None` for the marks of a group.
    pub fn addr_spec(&self) -> Option<String> {
        match self {
            Self::Mailbox { local, domain, .. } => {
                Some(format!("{}@{}", String::from_utf8_lossy(local), String::from_utf8_lossy(domain)))
            }
            Self::GroupStart { .. } | Self::GroupEnd => None,
        }
    }
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

/// Octets of [`Summary::common_fields`] at most; fields beyond are left out.
const COMMON_FIELDS_MAX: usize = 64 * 1024;
/// Octets of one field of an envelope at most.
const ENVELOPE_FIELD_MAX: usize = 16 * 1024;

impl Summary {
    /// Never fails: what is broken gives the best that can be had. Linear in the size of the message, up to the limits on
    /// nesting and number of parts.
    pub fn of(message: &[u8]) -> Self {
        let root = walk::root(message);
        let envelope = EnvelopeFields::of(message);
        let date = envelope.date.as_deref().and_then(|date| std::str::from_utf8(date).ok());
        let mut common_fields = Vec::new();
        for field in HeaderFields::of(message) {
            let is_common = COMMON_FIELDS.iter().any(|name| field.is(name));
            if is_common && common_fields.len() + field.raw.len() <= COMMON_FIELDS_MAX {
                common_fields.extend_from_slice(field.raw);
            }
        }
        Self {
            sent_at: date.and_then(crate::date::parse_rfc5322),
            preview: text::preview(message, &root),
            has_attachment: text::has_attachment(&root),
            envelope,
            root,
            common_fields,
        }
    }

    /// The form kept beside an entry; versioned.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads what [`Summary::encode`] wrote. Safe on any octets.
    pub fn decode(bytes: &[u8]) -> Result<Self, DamagedSummary> {
        codec::decode(bytes)
    }
}

impl EnvelopeFields {
    /// From a message's header. Of a field that stands there twice, the first counts; address fields are joined.
    pub(super) fn of(message: &[u8]) -> Self {
        let mut out = Self::default();
        for field in HeaderFields::of(message) {
            let name = field.name.to_ascii_lowercase();
            let text = match name.as_slice() {
                b"date" => &mut out.date,
                b"subject" => &mut out.subject,
                b"in-reply-to" => &mut out.in_reply_to,
                b"message-id" => &mut out.message_id,
                b"references" => &mut out.references,
                _ => {
                    let list = match name.as_slice() {
                        b"from" => &mut out.from,
                        b"sender" => &mut out.sender,
                        b"reply-to" => &mut out.reply_to,
                        b"to" => &mut out.to,
                        b"cc" => &mut out.cc,
                        b"bcc" => &mut out.bcc,
                        _ => continue,
                    };
                    let value = field.value.get(..ENVELOPE_FIELD_MAX * 8).unwrap_or(field.value);
                    list.extend(parse_address_list(value));
                    continue;
                }
            };
            if text.is_none() {
                let mut value = field.unfolded();
                value.truncate(ENVELOPE_FIELD_MAX);
                *text = Some(value);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::structure::PartBody;
    use super::*;

    const MIXED: &str = "From: Anna <anna@a.test>\r\nTo: b@b.test, c@c.test\r\nSubject: =?utf-8?Q?x=C3=BC?=\r\n\
        Date: Sat, 31 Oct 2026 11:42:07 +0100\r\nMessage-ID: <1@a.test>\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/mixed; boundary=\"out er\"\r\n\r\npreamble\r\n--out er\r\n\
        Content-Type: multipart/alternative; boundary=\"out er2\"\r\n\r\n--out er2\r\n\r\nplain  text\r\n--out er2\r\n\
        Content-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<p>h=FCml</p>\r\n--out er2--\r\n\
        \r\n--out er\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nbody\r\n--out er\r\n\
        Content-Disposition: attachment; filename=\"a.bin\"\r\nContent-Type: application/octet-stream\r\n\r\nxyz\r\n--out er--\r\nepilogue\r\n";

    fn slice<'a>(message: &'a str, range: &std::ops::Range<u32>) -> &'a str {
        &message[range.start as usize..range.end as usize]
    }

    #[test]
    fn parts_lie_where_they_say() {
        let summary = Summary::of(MIXED.as_bytes());
        let at = |path: &[u32]| summary.root.at(path).unwrap();
        assert_eq!(slice(MIXED, &at(&[1, 1]).content), "plain  text");
        assert_eq!(
            slice(MIXED, &at(&[1, 2]).header),
            "Content-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        );
        assert_eq!(slice(MIXED, &at(&[1, 2]).content), "<p>h=FCml</p>");
        assert_eq!(slice(MIXED, &at(&[2]).content), "Subject: inner\r\n\r\nbody");
        assert_eq!(slice(MIXED, &at(&[2, 1]).content), "body");
        assert_eq!(slice(MIXED, &at(&[3]).content), "xyz");
        assert!(summary.root.at(&[4]).is_none() && summary.root.at(&[3, 2]).is_none());
        assert_eq!(at(&[3]).file_name(), Some("a.bin"));
        assert_eq!((summary.preview.as_str(), summary.has_attachment), ("plain text", true));
        assert_eq!(summary.sent_at, Some(UtcMillis(1_793_443_327_000)));
        assert_eq!(summary.envelope.to.len(), 2);
        let text = text::searchable_text(MIXED.as_bytes(), &summary.root, 10_000);
        assert!(text.contains("h\u{fc}ml") && text.contains("a.bin") && text.contains("body"), "{text}");
    }

    #[test]
    fn broken_messages_give_the_best_tree() {
        for (message, children) in [
            ("Content-Type: multipart/mixed\r\n\r\nx", Some(0)),
            ("Content-Type: multipart/mixed; boundary=b\r\n\r\nx", Some(0)),
            ("Content-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n--b\n\ny", Some(2)),
            ("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b", Some(1)),
            ("Content-Type: garbage\r\n\r\nx", None),
            ("", None),
            ("no header at all", None),
        ] {
            let summary = Summary::of(message.as_bytes());
            let found = match &summary.root.body {
                PartBody::Multipart { children } => Some(children.len()),
                PartBody::Leaf { .. } | PartBody::Message { .. } => None,
            };
            assert_eq!(found, children, "{message:?}");
        }
        let nested = "Content-Type: message/rfc822\r\n\r\n".repeat(200);
        assert_eq!(Summary::decode(&Summary::of(nested.as_bytes()).encode()), Ok(Summary::of(nested.as_bytes())));
    }

    #[test]
    fn the_stored_form_reads_back_and_damage_is_seen() {
        let summary = Summary::of(MIXED.as_bytes());
        let stored = summary.encode();
        assert_eq!(Summary::decode(&stored).as_ref(), Ok(&summary));
        for end in 0..stored.len() {
            assert_eq!(Summary::decode(&stored[..end]), Err(DamagedSummary));
        }
        let mut state = 7u32;
        for _ in 0..20_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let mut damaged = stored.clone();
            let at = state as usize % damaged.len();
            damaged[at] = (state >> 16) as u8;
            let _ = Summary::decode(&damaged);
        }
    }

    /// The form of version 1 as it was first written: it must be readable for ever.
    #[test]
    fn version_1_is_still_read() {
        let stored = include_bytes!("testdata/summary-v1.bin");
        assert_eq!(Summary::decode(stored), Ok(Summary::of(MIXED.as_bytes())));
    }

    #[test]
    fn damaged_messages_never_panic() {
        let mut state = 99u32;
        let mut random = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below.max(1)
        };
        for _ in 0..3000 {
            let mut message = MIXED.as_bytes().to_vec();
            for _ in 0..=random(6) {
                if message.len() < 2 {
                    break;
                }
                let at = random(message.len());
                match random(4) {
                    0 => message[at] = b"\r\n-\":;<>=?\0\xff"[random(12)],
                    1 => drop(message.remove(at)),
                    2 => message.truncate(at.max(1)),
                    _ => message.insert(at, b'\n'),
                }
            }
            let summary = Summary::of(&message);
            assert_eq!(Summary::decode(&summary.encode()).as_ref(), Ok(&summary));
        }
    }
}
