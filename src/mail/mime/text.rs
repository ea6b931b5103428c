//! The words of a message, for previews and searches.

use mail_parser::html_to_text;

use super::decode::part_text;
use super::structure::{Part, PartBody};

/// Decoded text of all text parts, HTML rendered, and the names of attachments, at most `max_bytes` in all.
pub fn searchable_text(message: &[u8], root: &Part, max_bytes: usize) -> String {
    let mut out = String::new();
    collect(message, root, max_bytes, &mut out);
    out
}

fn collect(message: &[u8], part: &Part, max_bytes: usize, out: &mut String) {
    if out.len() >= max_bytes {
        return;
    }
    match &part.body {
        PartBody::Multipart { children } => children.iter().for_each(|child| collect(message, child, max_bytes, out)),
        PartBody::Message { root, .. } => collect(message, root, max_bytes, out),
        PartBody::Leaf { .. } => {
            if let Some(name) = part.file_name() {
                out.push_str(name);
                out.push('\n');
            }
            if part.is("text", None) {
                let text = part_text(part, message);
                let text = if part.is("text", Some("html")) { html_to_text(&text) } else { text };
                let room = max_bytes.saturating_sub(out.len());
                out.push_str(text.get(..text.floor_char_boundary(room)).unwrap_or_default());
                out.push('\n');
            }
        }
    }
}

/// Characters of a preview (RFC 8621 §4.1.4 allows 256, RFC 8970 wants 200 at least).
const PREVIEW_CHARS: usize = 255;
/// Octets of a part that a preview is looked for in.
const PREVIEW_SCAN: u32 = 16 * 1024;

/// The first words people would read: of the first plain text part, else of the first HTML part.
pub(super) fn preview(message: &[u8], root: &Part) -> String {
    let found = first(root, "plain").or_else(|| first(root, "html"));
    let Some(part) = found else { return String::new() };
    let mut head = part.clone();
    head.content.end = head.content.end.min(head.content.start.saturating_add(PREVIEW_SCAN));
    let text = part_text(&head, message);
    let text = if part.is("text", Some("html")) { html_to_text(&text) } else { text };
    let mut out = String::new();
    for word in text.split_whitespace() {
        if out.chars().count() + word.chars().count() >= PREVIEW_CHARS {
            break;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.extend(word.chars().filter(|c| !c.is_control()));
    }
    out
}

/// The first part of that kind which is meant to be read, not kept.
fn first<'a>(part: &'a Part, subtype: &str) -> Option<&'a Part> {
    match &part.body {
        PartBody::Multipart { children } => children.iter().find_map(|child| first(child, subtype)),
        PartBody::Leaf { .. } => (part.is("text", Some(subtype)) && !is_attachment(part)).then_some(part),
        PartBody::Message { .. } => None,
    }
}

/// True if a part of the tree would be listed as an attachment (RFC 8621 §4.1.4): not inline text, not an image that the
/// HTML shows by its id.
pub(super) fn has_attachment(part: &Part) -> bool {
    match &part.body {
        PartBody::Multipart { children } => children.iter().any(has_attachment),
        PartBody::Message { .. } => true,
        PartBody::Leaf { .. } if is_attachment(part) => true,
        PartBody::Leaf { .. } => !(part.is("text", None) || part.content_id.is_some() && part.is("image", None)),
    }
}

fn is_attachment(part: &Part) -> bool {
    part.disposition.as_ref().is_some_and(|disposition| disposition.kind == "attachment")
}
