//! ENVELOPE, BODY and BODYSTRUCTURE (RFC 3501 §7.4.2), straight from a message's summary.

use mail::mime::summary::EnvelopeFields;
use mail::mime::{Disposition, EnvelopeAddress, Parameter, Part, PartBody};

use crate::proto::write;

pub fn envelope(out: &mut Vec<u8>, fields: &EnvelopeFields) {
    out.push(b'(');
    write::nstring(out, fields.date.as_deref());
    out.push(b' ');
    write::nstring(out, fields.subject.as_deref());
    // A message without Sender or Reply-To has those of From.
    for list in [
        &fields.from,
        if fields.sender.is_empty() { &fields.from } else { &fields.sender },
        if fields.reply_to.is_empty() { &fields.from } else { &fields.reply_to },
        &fields.to,
        &fields.cc,
        &fields.bcc,
    ] {
        out.push(b' ');
        addresses(out, list);
    }
    for text in [&fields.in_reply_to, &fields.message_id] {
        out.push(b' ');
        write::nstring(out, text.as_deref());
    }
    out.push(b')');
}

fn addresses(out: &mut Vec<u8>, list: &[EnvelopeAddress]) {
    if list.is_empty() {
        out.extend_from_slice(b"NIL");
        return;
    }
    out.push(b'(');
    for address in list {
        match address {
            EnvelopeAddress::Mailbox { name, local, domain } => {
                out.push(b'(');
                write::nstring(out, name.as_deref());
                out.extend_from_slice(b" NIL ");
                write::string(out, local);
                out.push(b' ');
                write::string(out, domain);
                out.push(b')');
            }
            EnvelopeAddress::GroupStart { name } => {
                out.extend_from_slice(b"(NIL NIL ");
                write::string(out, name);
                out.extend_from_slice(b" NIL)");
            }
            EnvelopeAddress::GroupEnd => out.extend_from_slice(b"(NIL NIL NIL NIL)"),
        }
    }
    out.push(b')');
}

/// BODYSTRUCTURE; without `extended`, BODY. Parts nest no deeper than the summary lets them.
pub fn structure(out: &mut Vec<u8>, part: &Part, extended: bool) {
    match &part.body {
        PartBody::Multipart { children } if !children.is_empty() => {
            out.push(b'(');
            for child in children {
                structure(out, child, extended);
            }
            out.push(b' ');
            write::string(out, part.media_subtype.as_bytes());
            if extended {
                out.push(b' ');
                parameters(out, &part.parameters);
                common_extension(out, part);
            }
            out.push(b')');
        }
        PartBody::Multipart { .. } => leaf(out, part, b"\"TEXT\" \"PLAIN\"", Some(0), extended),
        PartBody::Leaf { lines } => {
            let lines = part.is("text", None).then_some(*lines);
            let mut kind = Vec::with_capacity(32);
            write::string(&mut kind, part.media_type.as_bytes());
            kind.push(b' ');
            write::string(&mut kind, part.media_subtype.as_bytes());
            leaf(out, part, &kind, lines, extended);
        }
        PartBody::Message { envelope: fields, root, lines } => {
            out.push(b'(');
            write::string(out, part.media_type.as_bytes());
            out.push(b' ');
            write::string(out, part.media_subtype.as_bytes());
            body_fields(out, part);
            // Only message/rfc822 has these; message/global as well since RFC 6532.
            out.push(b' ');
            envelope(out, fields);
            out.push(b' ');
            structure(out, root, extended);
            out.push(b' ');
            write::number(out, (*lines).into());
            leaf_extension(out, part, extended);
            out.push(b')');
        }
    }
}

fn leaf(out: &mut Vec<u8>, part: &Part, kind: &[u8], lines: Option<u32>, extended: bool) {
    out.push(b'(');
    out.extend_from_slice(kind);
    body_fields(out, part);
    if let Some(lines) = lines {
        out.push(b' ');
        write::number(out, lines.into());
    }
    leaf_extension(out, part, extended);
    out.push(b')');
}

/// Parameters, id, description, encoding and size.
fn body_fields(out: &mut Vec<u8>, part: &Part) {
    out.push(b' ');
    parameters(out, &part.parameters);
    for text in [&part.content_id, &part.description] {
        out.push(b' ');
        write::nstring(out, text.as_deref().map(str::as_bytes));
    }
    out.push(b' ');
    write::string(out, part.encoding.as_bytes());
    out.push(b' ');
    write::number(out, part.content.len() as u64);
}

fn leaf_extension(out: &mut Vec<u8>, part: &Part, extended: bool) {
    if extended {
        out.push(b' ');
        write::nstring(out, part.md5.as_deref().map(str::as_bytes));
        common_extension(out, part);
    }
}

/// Disposition, language and location.
fn common_extension(out: &mut Vec<u8>, part: &Part) {
    out.push(b' ');
    match &part.disposition {
        Some(Disposition { kind, parameters: list }) => {
            out.push(b'(');
            write::string(out, kind.as_bytes());
            out.push(b' ');
            parameters(out, list);
            out.push(b')');
        }
        None => out.extend_from_slice(b"NIL"),
    }
    out.push(b' ');
    if part.language.is_empty() {
        out.extend_from_slice(b"NIL");
    } else {
        out.push(b'(');
        for (at, language) in part.language.iter().enumerate() {
            if at > 0 {
                out.push(b' ');
            }
            write::string(out, language.as_bytes());
        }
        out.push(b')');
    }
    out.push(b' ');
    write::nstring(out, part.location.as_deref().map(str::as_bytes));
}

fn parameters(out: &mut Vec<u8>, list: &[Parameter]) {
    if list.is_empty() {
        out.extend_from_slice(b"NIL");
        return;
    }
    out.push(b'(');
    for (at, parameter) in list.iter().enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        write::string(out, parameter.name.as_bytes());
        out.push(b' ');
        write::string(out, parameter.value.as_bytes());
    }
    out.push(b')');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(kind: (&str, &str), content: std::ops::Range<u32>, body: PartBody) -> Part {
        Part {
            media_type: kind.0.to_owned(),
            media_subtype: kind.1.to_owned(),
            parameters: Vec::new(),
            content_id: None,
            description: None,
            encoding: "7BIT".to_owned(),
            md5: None,
            disposition: None,
            language: Vec::new(),
            location: None,
            header: 0..0,
            content,
            body,
        }
    }

    fn check(part: &Part, extended: bool, expected: &str) {
        let mut out = Vec::new();
        structure(&mut out, part, extended);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn structures() {
        let parameter = Parameter { name: "boundary".to_owned(), value: "x\"".to_owned() };
        let text = part(("text", "plain"), 0..5, PartBody::Leaf { lines: 2 });
        let mut image = part(("image", "png"), 5..105, PartBody::Leaf { lines: 9 });
        let parameters = vec![Parameter { name: "filename".to_owned(), value: "é.png".to_owned() }];
        image.disposition = Some(Disposition { kind: "attachment".to_owned(), parameters });
        image.language = vec!["de".to_owned(), "it".to_owned()];
        check(&text, false, "(\"text\" \"plain\" NIL NIL NIL \"7BIT\" 5 2)");
        check(
            &image,
            true,
            "(\"image\" \"png\" NIL NIL NIL \"7BIT\" 100 NIL (\"attachment\" (\"filename\" {6}\r\né.png)) (\"de\" \"it\") NIL)",
        );
        let body = PartBody::Message { envelope: Box::default(), root: Box::new(text.clone()), lines: 7 };
        let message = part(("message", "rfc822"), 0..50, body);
        let nils = "(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)";
        let mut mixed = part(("multipart", "mixed"), 0..200, PartBody::Multipart { children: vec![text, message] });
        mixed.parameters = vec![parameter];
        check(
            &mixed,
            false,
            &format!(
                "((\"text\" \"plain\" NIL NIL NIL \"7BIT\" 5 2)(\"message\" \"rfc822\" NIL NIL NIL \"7BIT\" 50 {nils} \
                 (\"text\" \"plain\" NIL NIL NIL \"7BIT\" 5 2) 7) \"mixed\")"
            ),
        );
        let empty = part(("multipart", "mixed"), 0..9, PartBody::Multipart { children: Vec::new() });
        check(&empty, false, "(\"TEXT\" \"PLAIN\" NIL NIL NIL \"7BIT\" 9 0)");
    }

    #[test]
    fn envelopes() {
        let mailbox = |local: &str| EnvelopeAddress::Mailbox {
            name: Some(b"A \\ B".to_vec()),
            local: local.into(),
            domain: b"x.test".to_vec(),
        };
        let group = vec![EnvelopeAddress::GroupStart { name: b"g".to_vec() }, mailbox("b"), EnvelopeAddress::GroupEnd];
        let fields = EnvelopeFields { from: vec![mailbox("a")], to: group, ..EnvelopeFields::default() };
        let mut out = Vec::new();
        envelope(&mut out, &fields);
        let a = "((\"A \\\\ B\" NIL \"a\" \"x.test\"))";
        let g = "((NIL NIL \"g\" NIL)(\"A \\\\ B\" NIL \"b\" \"x.test\")(NIL NIL NIL NIL))";
        assert_eq!(String::from_utf8(out).unwrap(), format!("(NIL NIL {a} {a} {a} {g} NIL NIL NIL NIL)"));
    }
}
