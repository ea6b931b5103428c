//! What a message has and lacks when it is stored.

use base::{MessageId, UtcMillis};
use bytes::Bytes;
use mail::HeaderFields;

/// More `Received` fields than any honest route has: the message runs in a circle (RFC 5321 §6.3).
pub const HOPS_MAX: usize = 100;

pub fn hops(message: &[u8]) -> usize {
    HeaderFields::of(message).filter(|field| field.is("Received")).count()
}

/// A field's text, decoded, as lists show it: without control characters, at most so many.
pub fn header_text(message: &[u8], name: &str, chars_max: usize) -> String {
    let found = HeaderFields::of(message).find(|field| field.is(name));
    let text = found.map(|field| mail::mime::decode::decode_header_text(&field.unfolded())).unwrap_or_default();
    text.chars().filter(|c| !c.is_control()).take(chars_max).collect()
}

/// Whether it was delivered to an address (in lower case) before: then it runs in a circle.
pub fn was_delivered_to(message: &[u8], address: &str) -> bool {
    HeaderFields::of(message)
        .filter(|field| field.is("Delivered-To"))
        .any(|field| String::from_utf8_lossy(&field.unfolded()).trim().to_lowercase() == address)
}

/// The message with `tag` before its subject.
pub fn with_subject_tag(message: &Bytes, tag: &str) -> Bytes {
    let mut out = Vec::with_capacity(message.len() + tag.len() + 16);
    let tag: String = tag.chars().filter(|c| !c.is_control() && c.is_ascii()).collect();
    let mut tagged = false;
    let mut end = 0;
    for field in HeaderFields::of(message) {
        if field.is("Subject") && !tagged {
            out.extend_from_slice(format!("Subject: {tag}").as_bytes());
            if !field.value.starts_with(b" ") {
                out.push(b' ');
            }
            out.extend_from_slice(field.value);
            tagged = true;
        } else {
            out.extend_from_slice(field.raw);
        }
        end = field.offset + field.raw.len();
    }
    if !tagged {
        out.extend_from_slice(format!("Subject: {tag}\r\n").as_bytes());
    }
    out.extend_from_slice(message.get(end..).unwrap_or_default());
    out.into()
}

/// The message without the fields that name hidden recipients.
pub fn without_bcc(message: &Bytes) -> Bytes {
    let is_hidden = |name: &mail::HeaderField<'_>| name.is("Bcc") || name.is("Resent-Bcc");
    if !HeaderFields::of(message).any(|field| is_hidden(&field)) {
        return message.clone();
    }
    let (mut out, mut end) = (Vec::with_capacity(message.len()), 0);
    for field in HeaderFields::of(message) {
        if !is_hidden(&field) {
            out.extend_from_slice(field.raw);
        }
        end = field.offset + field.raw.len();
    }
    out.extend_from_slice(message.get(end..).unwrap_or_default());
    out.into()
}

/// What a submission server adds where a client left it out (RFC 6409 §8): whole fields.
pub fn missing_fields(message: &[u8], id: MessageId, host_name: &str, at: UtcMillis) -> String {
    let has = |name: &str| HeaderFields::of(message).any(|field| field.is(name));
    let mut out = String::new();
    if !has("Date") {
        out.push_str(&format!("Date: {}\r\n", mail::date::format_rfc5322(at)));
    }
    if !has("Message-ID") {
        out.push_str(&format!("Message-ID: <{id}@{host_name}>\r\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_recipients_stay_hidden() {
        let message = "From: a\r\nBCC: b@x.test,\r\n c@x.test\r\nTo: d\r\nResent-Bcc: e\r\n\r\nBcc: in the text\r\n";
        let bare = without_bcc(&Bytes::from(message));
        assert_eq!(bare, "From: a\r\nTo: d\r\n\r\nBcc: in the text\r\n");
        assert_eq!(without_bcc(&bare), bare);
    }

    #[test]
    fn subjects_are_tagged_once() {
        let tag = |message: &str| with_subject_tag(&Bytes::from(message.to_owned()), "[SPAM]");
        assert_eq!(tag("Subject: x\r\nSubject: y\r\n\r\nb"), "Subject: [SPAM] x\r\nSubject: y\r\n\r\nb");
        assert_eq!(tag("A: 1\r\n\r\nb"), "A: 1\r\nSubject: [SPAM]\r\n\r\nb");
    }
}
