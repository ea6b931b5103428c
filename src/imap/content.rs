//! Where the pieces of a message lie, and reading them.

use std::ops::Range;

use bytes::Bytes;
use mail::HeaderFields;
use mail::mime::summary::COMMON_FIELDS;
use mail::mime::{PartBody, Summary};
use store::{Entry, EntryContent, StoreError};

use crate::proto::{Section, SectionText};

/// What a section asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Octets of the message as a client sees it.
    Octets(Range<u64>),
    /// Some header fields of the header at these octets.
    Fields(Range<u64>),
    /// There is no such part.
    Nothing,
}

/// Resolves a section (RFC 3501 §6.4.5).
pub fn locate(section: &Section, summary: &Summary, entry: &Entry) -> Wanted {
    let before = entry.prefix.len() as u64;
    let shifted = |range: &Range<u32>| before + u64::from(range.start)..before + u64::from(range.end);
    let root = &summary.root;
    let Some(part) = root.at(&section.path) else { return Wanted::Nothing };
    // The prefix is part of the message's own header.
    let root_header = 0..before + u64::from(root.header.end);
    let own_header = if std::ptr::eq(part, root) { root_header.clone() } else { shifted(&part.header) };
    if section.text == SectionText::Mime {
        return Wanted::Octets(own_header);
    }
    if section.path.is_empty() {
        return match section.text {
            SectionText::All | SectionText::Mime => Wanted::Octets(0..entry.size_bytes),
            SectionText::Header => Wanted::Octets(root_header),
            SectionText::HeaderFields { .. } => Wanted::Fields(root_header),
            SectionText::Text => Wanted::Octets(root_header.end.min(entry.size_bytes)..entry.size_bytes),
        };
    }
    if section.text == SectionText::All {
        return Wanted::Octets(shifted(&part.content));
    }
    // Below a part number, HEADER and TEXT mean those of the message inside.
    let PartBody::Message { root: inner, .. } = &part.body else { return Wanted::Nothing };
    let header = shifted(&inner.header);
    match section.text {
        SectionText::HeaderFields { .. } => Wanted::Fields(header),
        SectionText::Header => Wanted::Octets(header),
        _ => Wanted::Octets(header.end..shifted(&part.content).end.max(header.end)),
    }
}

/// True if the summary knows every field asked for.
pub fn are_common(names: &[String], except: bool) -> bool {
    !except && names.iter().all(|name| COMMON_FIELDS.contains(&name.as_str()))
}

/// Appends the fields of `header` that `names` ask for, and no empty line.
pub fn select_fields(out: &mut Vec<u8>, header: &[u8], names: &[String], except: bool) {
    for field in HeaderFields::of(header) {
        if names.iter().any(|name| field.is(name)) != except && !field.name.is_empty() {
            out.extend_from_slice(field.raw);
        }
    }
}

/// Header of the message as a client sees it, cut at [`HEADER_READ_MAX`].
pub async fn read_header(content: &EntryContent, range: Range<u64>) -> Result<Bytes, StoreError> {
    let end = range.end.min(range.start.saturating_add(HEADER_READ_MAX));
    content.read(range.start..end).await
}

const HEADER_READ_MAX: u64 = 4 * 1024 * 1024;

/// Octets of a body held at once.
pub const STEP: u64 = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use base::{BlobId, MailboxId, ModSeq, Uid, UtcMillis};
    use mail::mime::Part;
    use mail::mime::summary::EnvelopeFields;
    use store::{EmailId, Flags, ThreadId};

    fn part(header: Range<u32>, content: Range<u32>, body: PartBody) -> Part {
        Part {
            media_type: "text".to_owned(),
            media_subtype: "plain".to_owned(),
            parameters: Vec::new(),
            content_id: None,
            description: None,
            encoding: "7BIT".to_owned(),
            md5: None,
            disposition: None,
            language: Vec::new(),
            location: None,
            header,
            content,
            body,
        }
    }

    fn leaf(header: Range<u32>, content: Range<u32>) -> Part {
        part(header, content, PartBody::Leaf { lines: 1 })
    }

    fn check(root: &Part, section: &str, expected: Wanted) {
        let summary = Summary {
            envelope: EnvelopeFields::default(),
            root: root.clone(),
            sent_at: None,
            preview: String::new(),
            has_attachment: false,
            common_fields: Vec::new(),
        };
        let entry = Entry {
            mailbox: MailboxId(1),
            uid: Uid::MIN,
            email: EmailId(1),
            thread: ThreadId(1),
            modseq: ModSeq::MIN,
            created_modseq: ModSeq::MIN,
            flags: Flags::default(),
            internal_date: UtcMillis(0),
            size_bytes: 110,
            blob: BlobId::from_u128(1),
            prefix: Bytes::from_static(b"A: prefix\n"),
            summary: Bytes::new(),
        };
        let command = crate::proto::parse(format!("a FETCH 1 BODY[{section}]").as_bytes()).unwrap();
        let crate::proto::Body::Fetch { fetch, .. } = command.body else { panic!("{section}") };
        let [crate::proto::FetchItem::Section(item)] = &fetch.items[..] else { panic!("{section}") };
        assert_eq!(locate(&item.section, &summary, &entry), expected, "{section}");
    }

    /// A prefix of 10 octets in front of a blob of 100.
    #[test]
    fn sections_of_one_part() {
        let root = leaf(0..20, 20..100);
        for (section, expected) in
            [("", 0..110), ("HEADER", 0..30), ("TEXT", 30..110), ("1", 30..110), ("1.MIME", 0..30)]
        {
            check(&root, section, Wanted::Octets(expected));
        }
        check(&root, "HEADER.FIELDS (A)", Wanted::Fields(0..30));
        for section in ["2", "1.1", "1.HEADER", "1.TEXT"] {
            check(&root, section, Wanted::Nothing);
        }
    }

    #[test]
    fn sections_of_a_message_within() {
        // RFC 3501 §6.4.5: below message/rfc822 the numbers go on inside it.
        let inner = part(40..50, 50..90, PartBody::Multipart { children: vec![leaf(55..58, 58..70)] });
        let body = PartBody::Message { envelope: Box::default(), root: Box::new(inner), lines: 5 };
        let message = part(32..40, 40..90, body);
        let root = part(0..20, 20..100, PartBody::Multipart { children: vec![leaf(25..26, 26..30), message] });
        for (section, expected) in [
            ("1", 36..40),
            ("1.MIME", 35..36),
            ("2", 50..100),
            ("2.MIME", 42..50),
            ("2.HEADER", 50..60),
            ("2.TEXT", 60..100),
            ("2.1", 68..80),
            ("2.1.MIME", 65..68),
        ] {
            check(&root, section, Wanted::Octets(expected));
        }
        check(&root, "2.HEADER.FIELDS.NOT (A)", Wanted::Fields(50..60));
        check(&root, "2.2", Wanted::Nothing);
        check(&root, "3", Wanted::Nothing);
    }

    #[test]
    fn fields_are_selected() {
        let header = b"A: 1\r\nb: 2\r\n 3\r\njunk\r\nA: 4\r\n\r\n";
        let select = |names: &[&str], except| {
            let mut out = Vec::new();
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            select_fields(&mut out, header, &names, except);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(select(&["a"], false), "A: 1\r\nA: 4\r\n");
        assert_eq!(select(&["a"], true), "b: 2\r\n 3\r\n");
    }
}
