//! What is stored of a message: our trace in front, forged fields out, the rest octet for octet.

use base::{MessageId, UtcMillis};
use bytes::Bytes;
use filter::HeaderChange;
use mail::header::body_offset;
use mail::{HeaderField, HeaderFields};

/// More `Received` fields than any honest route has: the message runs in a circle (RFC 5321 §6.3).
pub const HOPS_MAX: usize = 100;

pub fn hops(message: &[u8]) -> usize {
    HeaderFields::of(message).filter(|field| field.is("Received")).count()
}

/// `front` (whole fields), then the message without the fields that only we may write (`keeps_verdict`: but with the
/// spam verdict that it came with), with the milters' changes.
pub fn stored(front: &str, message: &Bytes, host_name: &str, keeps_verdict: bool, changes: &[HeaderChange]) -> Bytes {
    let body = body_offset(message);
    let mut out = Vec::with_capacity(front.len() + message.len() + 256);
    out.extend_from_slice(front.as_bytes());
    let is_kept = |field: &HeaderField<'_>| {
        !mailauth::is_forged(field, host_name)
            && (keeps_verdict || !filter::headers::OWN_FIELDS.iter().any(|own| field.is(own)))
    };
    let kept: Vec<HeaderField<'_>> = HeaderFields::of(message).filter(is_kept).collect();
    let header_end = HeaderFields::of(message).map(|field| field.offset + field.raw.len()).last().unwrap_or(0);
    if changes.is_empty() {
        kept.iter().for_each(|field| out.extend_from_slice(field.raw));
    } else {
        write_changed(&mut out, &kept, changes);
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

fn write_changed(out: &mut Vec<u8>, kept: &[HeaderField<'_>], changes: &[HeaderChange]) {
    let mut fields: Vec<(Vec<u8>, Vec<u8>)> = kept.iter().map(|f| (f.name.to_vec(), f.raw.to_vec())).collect();
    for change in changes {
        match change {
            HeaderChange::Add { name, value } => fields.push(made(name, value)),
            HeaderChange::Insert { index, name, value } => {
                let at = usize::try_from(*index).unwrap_or(usize::MAX).min(fields.len());
                fields.insert(at, made(name, value));
            }
            HeaderChange::Replace { index, name, value } => {
                let nth = usize::try_from(*index).unwrap_or(1).max(1) - 1;
                let is_named = |(_, (own, _)): &(usize, &(Vec<u8>, Vec<u8>))| own.eq_ignore_ascii_case(name.as_bytes());
                let found = fields.iter().enumerate().filter(is_named).nth(nth).map(|(at, _)| at);
                match (found, value) {
                    (Some(at), None) => drop(fields.remove(at)),
                    (Some(at), Some(value)) => {
                        if let Some(slot) = fields.get_mut(at) {
                            *slot = made(name, value);
                        }
                    }
                    (None, Some(value)) => fields.push(made(name, value)),
                    (None, None) => {}
                }
            }
        }
    }
    fields.iter().for_each(|(_, raw)| out.extend_from_slice(raw));
}

fn made(name: &str, value: &str) -> (Vec<u8>, Vec<u8>) {
    (name.as_bytes().to_vec(), format!("{name}: {value}\r\n").into_bytes())
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

    fn check(message: &str, changes: &[HeaderChange], expected: &str) {
        let out = stored("Received: us\r\n", &Bytes::from(message.to_owned()), "mx.test", false, changes);
        assert_eq!(String::from_utf8_lossy(&out), format!("Received: us\r\n{expected}"));
    }

    #[test]
    fn forged_fields_go_and_the_rest_stays_octet_for_octet() {
        check("A: 1\r\n\r\nbody\r\n", &[], "A: 1\r\n\r\nbody\r\n");
        check("\r\nbody", &[], "\r\nbody");
        check("A: 1\r\n", &[], "A: 1\r\n");
        check("nonsense\r\nB: \u{e4}\r\n x\r\n\r\n", &[], "nonsense\r\nB: \u{e4}\r\n x\r\n\r\n");
        check(
            "X-Spam-Flag: NO\r\nA: 1\r\nAuthentication-Results: mx.test;\r\n spf=pass\r\n\r\nb",
            &[],
            "A: 1\r\n\r\nb",
        );
        check(
            "Authentication-Results: other.test; spf=pass\r\n\r\nb",
            &[],
            "Authentication-Results: other.test; spf=pass\r\n\r\nb",
        );
    }

    #[test]
    fn milters_change_fields() {
        let value = |value: &str| Some(value.to_owned());
        let changes = [
            HeaderChange::Add { name: "Z".into(), value: "9".into() },
            HeaderChange::Insert { index: 0, name: "Y".into(), value: "8".into() },
            HeaderChange::Replace { index: 2, name: "a".into(), value: value("7") },
            HeaderChange::Replace { index: 1, name: "B".into(), value: None },
        ];
        check("A: 1\r\nA: 2\r\nB: 3\r\n\r\nb", &changes, "Y: 8\r\nA: 1\r\na: 7\r\nZ: 9\r\n\r\nb");
    }

    #[test]
    fn subjects_are_tagged_once() {
        let tag = |message: &str| with_subject_tag(&Bytes::from(message.to_owned()), "[SPAM]");
        assert_eq!(tag("Subject: x\r\nSubject: y\r\n\r\nb"), "Subject: [SPAM] x\r\nSubject: y\r\n\r\nb");
        assert_eq!(tag("A: 1\r\n\r\nb"), "A: 1\r\nSubject: [SPAM]\r\n\r\nb");
    }
}
