//! Which parts are the text, which the HTML, which attachments (RFC 8621 §4.1.4).

use mail::mime::{Part, PartBody};

use crate::mime::media_type;

/// A part with the id that bodyValues uses: none for a multipart.
pub(crate) struct BodyPart<'a> {
    pub part: &'a Part,
    pub id: Option<String>,
    pub children: Vec<BodyPart<'a>>,
}

/// Parts in the order a client shows them.
#[derive(Default)]
pub(crate) struct Views<'a, 'b> {
    pub text: Vec<&'b BodyPart<'a>>,
    pub html: Vec<&'b BodyPart<'a>>,
    pub attachments: Vec<&'b BodyPart<'a>>,
}

/// Part ids are IMAP's section numbers; a message inside counts as one part.
pub(crate) fn tree(root: &Part) -> BodyPart<'_> {
    let id = if matches!(root.body, PartBody::Multipart { .. }) { String::new() } else { "1".to_owned() };
    below(root, id)
}

fn below(part: &Part, id: String) -> BodyPart<'_> {
    match &part.body {
        PartBody::Leaf { .. } | PartBody::Message { .. } => BodyPart { part, id: Some(id), children: Vec::new() },
        PartBody::Multipart { children } => {
            let prefix = if id.is_empty() { id } else { format!("{id}.") };
            let children =
                children.iter().enumerate().map(|(at, child)| below(child, format!("{prefix}{}", at + 1))).collect();
            BodyPart { part, id: None, children }
        }
    }
}

impl<'a> BodyPart<'a> {
    /// This part and all below it that are no multiparts.
    pub fn leaves(&self) -> Vec<&BodyPart<'a>> {
        if self.id.is_some() {
            return vec![self];
        }
        self.children.iter().flat_map(BodyPart::leaves).collect()
    }
}

pub(crate) fn views<'a, 'b>(root: &'b BodyPart<'a>) -> Views<'a, 'b> {
    let mut out = Views::default();
    sort(std::slice::from_ref(root), "mixed", false, Takes { text: true, html: true }, &mut out);
    out
}

/// Which lists still take parts at this depth of the tree.
#[derive(Clone, Copy)]
struct Takes {
    text: bool,
    html: bool,
}

fn sort<'a, 'b>(
    parts: &'b [BodyPart<'a>],
    multipart: &str,
    in_alternative: bool,
    mut takes: Takes,
    out: &mut Views<'a, 'b>,
) {
    let (text_before, html_before) = (out.text.len(), out.html.len());
    for (place, body) in parts.iter().enumerate() {
        if body.id.is_none() {
            let subtype = body.part.media_subtype.to_ascii_lowercase();
            sort(&body.children, &subtype, in_alternative || subtype == "alternative", takes, out);
            continue;
        }
        let kind = media_type(body.part);
        let is_media = ["image/", "audio/", "video/"].iter().any(|prefix| kind.starts_with(prefix));
        let is_attached = body.part.disposition.as_ref().is_some_and(|d| d.kind == "attachment");
        let is_inline = !is_attached
            && (kind == "text/plain" || kind == "text/html" || is_media)
            && (place == 0 || (multipart != "related" && (is_media || body.part.file_name().is_none())));
        if !is_inline {
            out.attachments.push(body);
            continue;
        }
        if multipart == "alternative" {
            match kind.as_str() {
                "text/plain" => out.text.push(body),
                "text/html" => out.html.push(body),
                _ => out.attachments.push(body),
            }
            continue;
        }
        if in_alternative {
            takes.html &= kind != "text/plain";
            takes.text &= kind != "text/html";
        }
        if takes.text {
            out.text.push(body);
        }
        if takes.html {
            out.html.push(body);
        }
        if is_media && !(takes.text && takes.html) {
            out.attachments.push(body);
        }
    }
    if multipart == "alternative" && takes.text && takes.html {
        // Only one of the two forms was there: it stands for the other as well.
        if out.text.len() == text_before && out.html.len() != html_before {
            out.text.extend(out.html.iter().skip(html_before));
        } else if out.html.len() == html_before && out.text.len() != text_before {
            out.html.extend(out.text.iter().skip(text_before));
        }
    }
}
