//! What milters change in a message. Pure.

use bytes::Bytes;
use mail::header::body_offset;
use mail::{HeaderField, HeaderFields};

/// A change to the header of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum HeaderChange {
    /// At the end of the header.
    Add { name: String, value: String },
    /// At this place, 0 is the top.
    Insert { index: u32, name: String, value: String },
    /// The `index`th field of that name, from 1; `None` removes it.
    Replace { index: u32, name: String, value: Option<String> },
}

/// What one milter changes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Edit {
    pub header: Vec<HeaderChange>,
    /// The new body as the milter sent it.
    pub body: Option<Vec<u8>>,
}

impl Edit {
    /// The changed message; `None` where nothing is to change. Line ends of a new body become CRLF.
    pub fn apply(&self, message: &[u8]) -> Option<Bytes> {
        if self.header.is_empty() && self.body.is_none() {
            return None;
        }
        let body = body_offset(message);
        let last = HeaderFields::of(message).last();
        let header_end = last.map_or(0, |field| field.offset + field.raw.len());
        let mut fields: Vec<Field<'_>> = HeaderFields::of(message).map(Field::Kept).collect();
        self.header.iter().for_each(|change| change_fields(&mut fields, change));
        let mut out = Vec::with_capacity(message.len() + 512);
        for field in &fields {
            out.extend_from_slice(field.raw());
            if !out.ends_with(b"\n") {
                out.extend_from_slice(b"\r\n");
            }
        }
        // The empty line as it was, or one if there was none.
        match message.get(header_end..body).filter(|gap| !gap.is_empty()) {
            Some(gap) => out.extend_from_slice(gap),
            None => out.extend_from_slice(b"\r\n"),
        }
        match &self.body {
            Some(body) => write_lines(&mut out, body),
            None => out.extend_from_slice(message.get(body..).unwrap_or_default()),
        }
        Some(out.into())
    }
}

enum Field<'a> {
    Kept(HeaderField<'a>),
    Made { name: String, raw: Vec<u8> },
}

impl Field<'_> {
    fn made(name: &str, value: &str) -> Self {
        Self::Made { name: name.to_owned(), raw: format!("{name}: {value}\r\n").into_bytes() }
    }

    fn raw(&self) -> &[u8] {
        match self {
            Self::Kept(field) => field.raw,
            Self::Made { raw, .. } => raw,
        }
    }

    fn is(&self, name: &str) -> bool {
        match self {
            Self::Kept(field) => field.is(name),
            Self::Made { name: own, .. } => own.eq_ignore_ascii_case(name),
        }
    }
}

fn change_fields(fields: &mut Vec<Field<'_>>, change: &HeaderChange) {
    match change {
        HeaderChange::Add { name, value } => fields.push(Field::made(name, value)),
        HeaderChange::Insert { index, name, value } => {
            let at = usize::try_from(*index).unwrap_or(usize::MAX).min(fields.len());
            fields.insert(at, Field::made(name, value));
        }
        HeaderChange::Replace { index, name, value } => {
            let nth = usize::try_from(*index).unwrap_or(1).max(1) - 1;
            let found = fields.iter().enumerate().filter(|(_, field)| field.is(name)).nth(nth).map(|(at, _)| at);
            match (found, value) {
                (Some(at), None) => drop(fields.remove(at)),
                (Some(at), Some(value)) => {
                    if let Some(slot) = fields.get_mut(at) {
                        *slot = Field::made(name, value);
                    }
                }
                (None, Some(value)) => fields.push(Field::made(name, value)),
                (None, None) => {}
            }
        }
    }
}

/// A bare CR or LF becomes CRLF: what we store has no other line ends.
fn write_lines(out: &mut Vec<u8>, mut body: &[u8]) {
    while let Some(at) = memchr::memchr2(b'\r', b'\n', body) {
        out.extend_from_slice(body.get(..at).unwrap_or_default());
        out.extend_from_slice(b"\r\n");
        let rest = body.get(at..).unwrap_or_default();
        body = rest.get(if rest.starts_with(b"\r\n") { 2 } else { 1 }..).unwrap_or_default();
    }
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &str, header: Vec<HeaderChange>, body: Option<&str>, expected: &str) {
        let edit = Edit { header, body: body.map(|body| body.as_bytes().to_vec()) };
        assert_eq!(String::from_utf8_lossy(&edit.apply(message.as_bytes()).unwrap()), expected);
    }

    #[test]
    fn milters_change_fields() {
        let value = |value: &str| Some(value.to_owned());
        let changes = vec![
            HeaderChange::Add { name: "Z".into(), value: "9".into() },
            HeaderChange::Insert { index: 0, name: "Y".into(), value: "8".into() },
            HeaderChange::Replace { index: 2, name: "a".into(), value: value("7") },
            HeaderChange::Replace { index: 1, name: "B".into(), value: None },
        ];
        check("A: 1\r\nA: 2\r\nB: 3\r\n\r\nb", changes, None, "Y: 8\r\nA: 1\r\na: 7\r\nZ: 9\r\n\r\nb");
        let add = || vec![HeaderChange::Add { name: "Z".into(), value: "9".into() }];
        check("A: 1", add(), None, "A: 1\r\nZ: 9\r\n\r\n");
        check("\r\nbody", add(), None, "Z: 9\r\n\r\nbody");
    }

    #[test]
    fn a_new_body_has_our_line_ends() {
        check("A: 1\r\n\r\nold", vec![], Some("x\ny\rz\r\n\r\n.\n"), "A: 1\r\n\r\nx\r\ny\r\nz\r\n\r\n.\r\n");
        check("A: 1\r\n", vec![], Some("new"), "A: 1\r\n\r\nnew");
        assert_eq!(Edit::default().apply(b"A: 1\r\n\r\nold"), None);
    }
}
