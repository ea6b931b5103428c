//! The tree of a message's parts, with exact offsets. Broken structure gives the best tree that can be had.

use memchr::memmem;

use crate::header::{HeaderField, HeaderFields};

use super::decode::{content_type, decode_header_text, disposition};
use super::structure::{Part, PartBody};
use super::summary::EnvelopeFields;

/// Deeper nesting is not looked into: the part stays a leaf.
const DEPTH_MAX: usize = 32;
/// Further parts of a message are not looked for.
const PARTS_MAX: usize = 1000;
/// A field of a part's header that is longer is cut.
const VALUE_MAX: usize = 4096;

/// The root part of a message.
pub(super) fn root(message: &[u8]) -> Part {
    let mut walk = Walk { message, parts_left: PARTS_MAX };
    walk.part(0, message.len(), 0, ("TEXT", "PLAIN"))
}

struct Walk<'a> {
    message: &'a [u8],
    parts_left: usize,
}

impl Walk<'_> {
    /// The part between two offsets; `default` is its type where it says none (RFC 2046 §5.1.5).
    fn part(&mut self, start: usize, end: usize, depth: usize, default: (&str, &str)) -> Part {
        self.parts_left = self.parts_left.saturating_sub(1);
        let slice = self.message.get(start..end).unwrap_or_default();
        let body = start + crate::header::body_offset(slice);
        let mut part = Part {
            media_type: default.0.to_owned(),
            media_subtype: default.1.to_owned(),
            parameters: Vec::new(),
            content_id: None,
            description: None,
            encoding: "7BIT".to_owned(),
            md5: None,
            disposition: None,
            language: Vec::new(),
            location: None,
            header: offset(start)..offset(body),
            content: offset(body)..offset(end),
            body: PartBody::Leaf { lines: 0 },
        };
        for field in HeaderFields::of(slice) {
            read_field(&mut part, &field);
        }
        part.body = self.body(&part, body, end, depth);
        part
    }

    fn body(&mut self, part: &Part, start: usize, end: usize, depth: usize) -> PartBody {
        let content = self.message.get(start..end).unwrap_or_default();
        let lines = offset(memchr::memchr_iter(b'\n', content).count());
        if depth >= DEPTH_MAX || self.parts_left == 0 {
            return PartBody::Leaf { lines };
        }
        if part.is("multipart", None) {
            let boundary = part.parameters.iter().find(|parameter| parameter.name == "boundary");
            let Some(boundary) = boundary.filter(|boundary| !boundary.value.is_empty()) else {
                return PartBody::Multipart { children: Vec::new() };
            };
            let default = if part.is("multipart", Some("digest")) { ("MESSAGE", "RFC822") } else { ("TEXT", "PLAIN") };
            let mut children = Vec::new();
            for (from, to) in split(content, &boundary.value) {
                if self.parts_left == 0 {
                    break;
                }
                children.push(self.part(start + from, start + to, depth + 1, default));
            }
            return PartBody::Multipart { children };
        }
        let is_message = part.is("message", Some("rfc822")) || part.is("message", Some("global"));
        let is_plain = !matches!(part.encoding.as_str(), "BASE64" | "QUOTED-PRINTABLE");
        if is_message && is_plain {
            let root = self.part(start, end, depth + 1, ("TEXT", "PLAIN"));
            let envelope = Box::new(EnvelopeFields::of(content));
            return PartBody::Message { envelope, root: Box::new(root), lines };
        }
        PartBody::Leaf { lines }
    }
}

/// Where the parts between the boundary's lines begin and end, without the line end before each boundary.
fn split(content: &[u8], boundary: &str) -> Vec<(usize, usize)> {
    let mark = format!("--{boundary}");
    let mut parts = Vec::new();
    let mut open: Option<usize> = None;
    for at in memmem::find_iter(content, mark.as_bytes()) {
        let starts_line = at == 0 || content.get(at - 1) == Some(&b'\n');
        let rest = content.get(at + mark.len()..).unwrap_or_default();
        let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let closes = line.starts_with(b"--");
        let tail = if closes { line.get(2..).unwrap_or_default() } else { line };
        // Only white space may follow; else it is the boundary of an inner multipart that begins alike.
        if !starts_line || !tail.trim_ascii().is_empty() && !closes {
            continue;
        }
        if let Some(from) = open {
            let before = content.get(from..at).unwrap_or_default();
            let cut = if before.ends_with(b"\r\n") { 2 } else { usize::from(before.ends_with(b"\n")) };
            parts.push((from, at - cut));
        }
        open = if closes { None } else { Some((at + mark.len() + line.len() + 1).min(content.len())) };
        if closes || parts.len() >= PARTS_MAX {
            return parts;
        }
    }
    // The closing line is missing: what is there belongs to the last part.
    if let Some(from) = open {
        parts.push((from, content.len()));
    }
    parts
}

fn read_field(part: &mut Part, field: &HeaderField<'_>) {
    let name = field.name;
    if !name.get(..8).is_some_and(|head| head.eq_ignore_ascii_case(b"content-")) {
        return;
    }
    let value = field.value.get(..VALUE_MAX).unwrap_or(field.value);
    let text = || {
        let text = String::from_utf8_lossy(value).replace(['\r', '\n'], "");
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    if field.is("Content-Type") {
        if let Some((media_type, media_subtype, parameters)) = content_type(value) {
            part.media_type = media_type;
            part.media_subtype = media_subtype;
            part.parameters = parameters;
        }
    } else if field.is("Content-Transfer-Encoding") {
        let word = text().unwrap_or_default();
        let word = word.split(['(', ';', ' ']).next().unwrap_or_default().to_ascii_uppercase();
        if !word.is_empty() {
            part.encoding = word;
        }
    } else if field.is("Content-Disposition") {
        part.disposition = disposition(value);
    } else if field.is("Content-ID") {
        part.content_id = text();
    } else if field.is("Content-Description") {
        part.description = Some(decode_header_text(value)).filter(|text| !text.is_empty());
    } else if field.is("Content-MD5") {
        part.md5 = text();
    } else if field.is("Content-Location") {
        part.location = text();
    } else if field.is("Content-Language") {
        let languages = text().unwrap_or_default();
        part.language = languages.split(',').map(|tag| tag.trim().to_owned()).filter(|tag| !tag.is_empty()).collect();
    }
}

/// Messages are bounded far below 4 GiB before they come here; what is longer is cut off.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
