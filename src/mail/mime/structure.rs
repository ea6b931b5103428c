//! The tree of body parts, with everything BODYSTRUCTURE (RFC 9051 §7.5.2) and part access need.

use std::ops::Range;

use super::summary::EnvelopeFields;

/// One body part. Offsets count from the start of the stored blob (not of the spliced message that a client sees).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// Media type and subtype as written, without parameters; `TEXT`/`PLAIN` where the field is missing or broken.
    pub media_type: String,
    pub media_subtype: String,
    /// Content-Type parameters; RFC 2231 continuations and charsets already joined and decoded to UTF-8.
    pub parameters: Vec<Parameter>,
    pub content_id: Option<String>,
    pub description: Option<String>,
    /// As written, upper case; `7BIT` where missing.
    pub encoding: String,
    pub md5: Option<String>,
    pub disposition: Option<Disposition>,
    pub language: Vec<String>,
    pub location: Option<String>,
    /// The part's own header fields with the empty line that ends them. For the root: the message's header.
    pub header: Range<u32>,
    /// The still encoded body, without the line break that belongs to the boundary.
    pub content: Range<u32>,
    pub body: PartBody,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parameter {
    /// Lower case.
    pub name: String,
    pub value: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disposition {
    /// Lower case: `attachment`, `inline`, …
    pub kind: String,
    pub parameters: Vec<Parameter>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PartBody {
    /// A leaf. `lines` counts its encoded lines, as BODYSTRUCTURE wants for text.
    Leaf { lines: u32 },
    /// `message/rfc822` and `message/global`: the message inside, whose own root part follows.
    Message { envelope: Box<EnvelopeFields>, root: Box<Part>, lines: u32 },
    /// `multipart/*`. Empty only where the boundary was never found; IMAP then sees an empty text part.
    Multipart { children: Vec<Part> },
}

impl Part {
    /// True for `type` or, with `subtype`, `type/subtype`; case does not matter.
    pub fn is(&self, media_type: &str, media_subtype: Option<&str>) -> bool {
        self.media_type.eq_ignore_ascii_case(media_type)
            && media_subtype.is_none_or(|subtype| self.media_subtype.eq_ignore_ascii_case(subtype))
    }

    /// The part at an IMAP section path such as `[2, 1]`; the path of a non-multipart's only part is `[1]`.
    /// Follows RFC 9051 §6.4.5: below `message/rfc822` the numbers go on inside the message's root.
    pub fn at(&self, path: &[u32]) -> Option<&Self> {
        let Some((first, rest)) = path.split_first() else { return Some(self) };
        let child = match &self.body {
            PartBody::Multipart { children } => children.get(usize::try_from(first.checked_sub(1)?).ok()?)?,
            PartBody::Leaf { .. } | PartBody::Message { .. } if *first == 1 => self,
            PartBody::Leaf { .. } | PartBody::Message { .. } => return None,
        };
        match (&child.body, rest.is_empty()) {
            (_, true) => Some(child),
            (PartBody::Message { root, .. }, false) => root.at(rest),
            (PartBody::Multipart { .. }, false) => child.at(rest),
            (PartBody::Leaf { .. }, false) => None,
        }
    }

    /// `name` of Content-Disposition `filename`, else of Content-Type `name`.
    pub fn file_name(&self) -> Option<&str> {
        let find = |parameters: &'_ [Parameter], name: &str| parameters.iter().position(|p| p.name == name);
        if let Some(disposition) = &self.disposition
            && let Some(at) = find(&disposition.parameters, "filename")
        {
            return Some(&disposition.parameters[at].value);
        }
        find(&self.parameters, "name").map(|at| self.parameters[at].value.as_str())
    }
}
