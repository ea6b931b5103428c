//! Ids as text. Email, thread and mailbox ids are those that IMAP shows too (RFC 8474).

use base::{AccountId, BlobId, MailboxId};
use mail_parser::Encoding;
use store::{EmailId, ThreadId};

pub fn account_id(id: AccountId) -> String {
    format!("a{id}")
}

pub fn email_id(id: EmailId) -> String {
    format!("M{}", id.0)
}

pub fn parse_email_id(text: &str) -> Option<EmailId> {
    number(text, "M").map(EmailId)
}

pub(crate) fn thread_id(id: ThreadId) -> String {
    format!("T{}", id.0)
}

pub(crate) fn parse_thread_id(text: &str) -> Option<ThreadId> {
    number(text, "T").map(ThreadId)
}

pub(crate) fn mailbox_id(id: MailboxId) -> String {
    format!("F{id}")
}

pub(crate) fn parse_mailbox_id(text: &str) -> Option<MailboxId> {
    number(text, "F").and_then(|n| u32::try_from(n).ok()).map(MailboxId)
}

/// What a blob id names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BlobName {
    /// A whole message as its owner sees it.
    Email(EmailId),
    /// A body part, decoded. The offset counts from the start of the stored blob.
    Part {
        email: EmailId,
        offset: u32,
        len: u32,
        encoding: Encoding,
    },
    Upload(BlobId),
}

pub(crate) fn email_blob_id(id: EmailId) -> String {
    format!("e{}", id.0)
}

/// The blob id of a body part.
pub fn part_blob_id(email: EmailId, part: &mail::mime::Part) -> String {
    let encoding = u8::from(crate::mime::encoding(part));
    format!("e{}-{}-{}-{encoding}", email.0, part.content.start, part.content.end.saturating_sub(part.content.start))
}

pub(crate) fn upload_blob_id(id: BlobId) -> String {
    format!("u{id}")
}

pub(crate) fn parse_blob_id(text: &str) -> Option<BlobName> {
    if let Some(upload) = text.strip_prefix('u') {
        return upload.parse().ok().map(BlobName::Upload);
    }
    let mut pieces = text.strip_prefix('e')?.split('-');
    let email = EmailId(digits(pieces.next()?)?);
    let Some(offset) = pieces.next() else { return Some(BlobName::Email(email)) };
    let offset = u32::try_from(digits(offset)?).ok()?;
    let len = u32::try_from(digits(pieces.next()?)?).ok()?;
    let encoding = match pieces.next()? {
        "0" => Encoding::None,
        "1" => Encoding::QuotedPrintable,
        "2" => Encoding::Base64,
        _ => return None,
    };
    pieces.next().is_none().then_some(BlobName::Part { email, offset, len, encoding })
}

fn number(text: &str, prefix: &str) -> Option<u64> {
    digits(text.strip_prefix(prefix)?)
}

/// One spelling per number: no sign, no leading zero.
fn digits(text: &str) -> Option<u64> {
    let canonical = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_and_have_one_spelling() {
        assert_eq!(parse_email_id(&email_id(EmailId(70))), Some(EmailId(70)));
        assert_eq!(parse_thread_id("T3"), Some(ThreadId(3)));
        assert_eq!(parse_mailbox_id("F4294967295"), Some(MailboxId(u32::MAX)));
        for text in ["", "M", "M-1", "M01", "M+1", "m1", "T1", "M99999999999999999999"] {
            assert_eq!(parse_email_id(text), None, "{text}");
        }
        assert_eq!(parse_mailbox_id("F4294967296"), None);
    }

    #[test]
    fn blob_ids_name_messages_parts_and_uploads() {
        let email = EmailId(5);
        assert_eq!(parse_blob_id("e5"), Some(BlobName::Email(email)));
        let part = BlobName::Part { email, offset: 10, len: 20, encoding: Encoding::Base64 };
        assert_eq!(parse_blob_id("e5-10-20-2"), Some(part));
        for text in ["", "e", "e5-", "e5-1", "e5-1-2", "e5-1-2-3", "e5-1-2-0-0", "u", "ux", "5", "../e5"] {
            assert_eq!(parse_blob_id(text), None, "{text}");
        }
    }
}
