//! What is stored of a message: our trace in front, forged fields out, the rest octet for octet.

use base::{MessageId, UtcMillis};
use bytes::Bytes;
use mail::header::body_offset;
use mail::{HeaderField, HeaderFields};

/// More `Received` fields than any honest route has: the message runs in a circle (RFC 5321 §6.3).
pub const HOPS_MAX: usize = 100;

pub fn hops(message: &[u8]) -> usize {
    HeaderFields::of(message).filter(|field| field.is("Received")).count()
}

/// Which of the fields that only we may write a message keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keeps {
    Nothing,
    /// The spam verdict that it came with.
    Verdict,
    /// All: what is left has been seen to.
    Everything,
}

/// `front` (whole fields), then the message, without the fields that only we may write where it does not keep them.
pub fn stored(front: &str, message: &Bytes, host_name: &str, keeps: Keeps) -> Bytes {
    let body = body_offset(message);
    let mut out = Vec::with_capacity(front.len() + message.len() + 256);
    out.extend_from_slice(front.as_bytes());
    let is_kept = |field: &HeaderField<'_>| {
        keeps == Keeps::Everything
            || (!mailauth::is_forged(field, host_name)
                && (keeps == Keeps::Verdict || !filter::headers::OWN_FIELDS.iter().any(|own| field.is(own))))
    };
    let mut header_end = 0;
    for field in HeaderFields::of(message) {
        if is_kept(&field) {
            out.extend_from_slice(field.raw);
        }
        header_end = field.offset + field.raw.len();
    }
    // The empty line as it was, or one if there was none.
    match message.get(header_end..body).filter(|gap| !gap.is_empty()) {
        Some(gap) => out.extend_from_slice(gap),
        None if header_end == message.len() && body == message.len() => {}
        None => out.extend_from_slice(b"\r\n"),
    }
    out.extend_from_slice(message.get(body..).unwrap_or_default());
    out.into()
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

    fn check(message: &str, expected: &str) {
        let out = stored("Received: us\r\n", &Bytes::from(message.to_owned()), "mx.test", Keeps::Nothing);
        assert_eq!(String::from_utf8_lossy(&out), format!("Received: us\r\n{expected}"));
    }

    #[test]
    fn forged_fields_go_and_the_rest_stays_octet_for_octet() {
        check("A: 1\r\n\r\nbody\r\n", "A: 1\r\n\r\nbody\r\n");
        check("\r\nbody", "\r\nbody");
        check("A: 1\r\n", "A: 1\r\n");
        check("nonsense\r\nB: \u{e4}\r\n x\r\n\r\n", "nonsense\r\nB: \u{e4}\r\n x\r\n\r\n");
        check("X-Spam-Flag: NO\r\nA: 1\r\nAuthentication-Results: mx.test;\r\n spf=pass\r\n\r\nb", "A: 1\r\n\r\nb");
        check(
            "Authentication-Results: other.test; spf=pass\r\n\r\nb",
            "Authentication-Results: other.test; spf=pass\r\n\r\nb",
        );
    }

    #[test]
    fn subjects_are_tagged_once() {
        let tag = |message: &str| with_subject_tag(&Bytes::from(message.to_owned()), "[SPAM]");
        assert_eq!(tag("Subject: x\r\nSubject: y\r\n\r\nb"), "Subject: [SPAM] x\r\nSubject: y\r\n\r\nb");
        assert_eq!(tag("A: 1\r\n\r\nb"), "A: 1\r\nSubject: [SPAM]\r\n\r\nb");
    }
}
