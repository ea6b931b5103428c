//! Finds reports in the messages that bring them.

use std::borrow::Cow;
use std::ops::Range;

use attachment::archive::zip;
use attachment::unpack::{End, Method, unpack};
use base::UtcMillis;
use mail::mime::Summary;
use mail::mime::decode::{decode_content, decode_header_text};
use mail::mime::structure::{Part, PartBody};
use mail::{HeaderFields, date};

use crate::report::{Abuse, tame};

/// What may be a report.
pub(crate) enum Candidate {
    Xml(Vec<u8>),
    Json(Vec<u8>),
    Feedback(Box<Abuse>),
    Broken(String),
}

/// Unpacked reports beyond are not read.
const UNPACKED_MAX: usize = 64 << 20;
/// Of one message.
const CANDIDATES_MAX: usize = 16;
const ENTRIES_MAX: usize = 16;

pub(crate) fn candidates(message: &[u8]) -> Vec<Candidate> {
    let root = Summary::of(message).root;
    let mut out = Vec::new();
    walk(&root, message, &mut out);
    out.truncate(CANDIDATES_MAX);
    out
}

fn walk(part: &Part, message: &[u8], out: &mut Vec<Candidate>) {
    match &part.body {
        PartBody::Multipart { children } => {
            if let Some(at) = children.iter().position(|child| child.is("message", Some("feedback-report"))) {
                out.push(feedback(children, at, message));
                return;
            }
            children.iter().take(CANDIDATES_MAX).for_each(|child| walk(child, message, out));
        }
        PartBody::Leaf { .. } => out.extend(leaf(part, message)),
        // What lies in another message is that one's matter.
        PartBody::Message { .. } => {}
    }
}

fn slice<'a>(message: &'a [u8], range: &Range<u32>) -> &'a [u8] {
    let at = |place: u32| usize::try_from(place).unwrap_or(usize::MAX);
    message.get(at(range.start)..at(range.end)).unwrap_or_default()
}

fn content<'a>(part: &Part, message: &'a [u8]) -> Cow<'a, [u8]> {
    decode_content(part, slice(message, &part.content))
}

/// A report in a part of its own: by its type or by its name.
fn leaf(part: &Part, message: &[u8]) -> Option<Candidate> {
    let name = part.file_name().unwrap_or_default().to_ascii_lowercase();
    let subtype = part.media_subtype.to_ascii_lowercase();
    let is_tls = subtype.starts_with("tlsrpt+") || name.ends_with(".json") || name.ends_with(".json.gz");
    let is_dmarc = [".xml", ".xml.gz", ".zip"].iter().any(|end| name.ends_with(end))
        || (part.is("application", None) && ["gzip", "x-gzip", "zip", "x-zip-compressed", "xml"].contains(&&*subtype))
        || part.is("text", Some("xml"));
    if !is_tls && !is_dmarc {
        return None;
    }
    let packed = content(part, message);
    let (open, is_whole) = open(&packed)?;
    if !is_whole {
        return Some(Candidate::Broken(format!("{}: cannot be unpacked, or is too large", tame(&name))));
    }
    let first = open.iter().find(|byte| !byte.is_ascii_whitespace() && !matches!(byte, 0xef | 0xbb | 0xbf));
    match first {
        Some(b'<') => Some(Candidate::Xml(open)),
        Some(b'{') => Some(Candidate::Json(open)),
        // Neither: an ordinary attachment.
        _ => None,
    }
}

/// The content, and whether it is all of it; `None` for an archive without a report.
fn open(packed: &[u8]) -> Option<(Vec<u8>, bool)> {
    if packed.starts_with(&[0x1f, 0x8b]) {
        let (open, end) = unpack(Method::Gzip, packed, UNPACKED_MAX);
        return Some((open, end == End::Whole));
    }
    if packed.starts_with(b"PK\x03\x04") {
        let listing = zip::list(packed, ENTRIES_MAX);
        let is_report = |name: &str| [".xml", ".json"].iter().any(|end| name.to_ascii_lowercase().ends_with(end));
        let entry = listing.entries.iter().find(|entry| is_report(&entry.name))?;
        let inside = entry.content.filter(|_| !entry.is_encrypted)?;
        let (open, end) = unpack(inside.method, inside.data, UNPACKED_MAX);
        return Some((open, end == End::Whole));
    }
    Some((packed.to_vec(), true))
}

/// A complaint: its machine's part, and what is known of the message that it is about.
fn feedback(children: &[Part], at: usize, message: &[u8]) -> Candidate {
    let Some(part) = children.get(at) else { return Candidate::Broken("no feedback report".to_owned()) };
    let text = content(part, message);
    let all = |name: &str| -> Vec<String> {
        let fields = HeaderFields::of(&text).filter(|field| field.is(name));
        fields.map(|field| tame(&String::from_utf8_lossy(&field.unfolded()))).take(100).collect()
    };
    let one = |name: &str| all(name).into_iter().next().unwrap_or_default();
    let original = children.iter().skip(at + 1).find_map(|child| match &child.body {
        PartBody::Message { root, .. } => Some(slice(message, &root.header)),
        PartBody::Leaf { .. } if child.is("text", Some("rfc822-headers")) => Some(slice(message, &child.content)),
        PartBody::Leaf { .. } | PartBody::Multipart { .. } => None,
    });
    let of_original = |name: &str| {
        let field = original.and_then(|header| HeaderFields::of(header).find(|field| field.is(name)));
        field.map(|field| tame(&decode_header_text(&field.unfolded()))).unwrap_or_default()
    };
    let bare = |text: String| text.trim_matches(['<', '>', ' ']).to_owned();
    let original_from = bare(one("Original-Mail-From"));
    let domain_of =
        |address: &str| address.rsplit_once('@').map_or_else(String::new, |(_, domain)| domain.to_lowercase());
    let author = of_original("From");
    let domain = [one("Reported-Domain").to_lowercase(), domain_of(&original_from), domain_of(&bare(author.clone()))];
    let received = [one("Arrival-Date"), one("Received-Date"), of_original("Date")];
    let at = received.iter().find_map(|text| date::parse_rfc5322(text)).unwrap_or(UtcMillis(0));
    let submitter = HeaderFields::of(message).find(|field| field.is("From"));
    let feedback = one("Feedback-Type").to_lowercase();
    if feedback.is_empty() {
        return Candidate::Broken("a feedback report without Feedback-Type".to_owned());
    }
    Candidate::Feedback(Box::new(Abuse {
        feedback,
        submitter: submitter.map(|field| tame(&decode_header_text(&field.unfolded()))).unwrap_or_default(),
        domain: domain.into_iter().find(|name| !name.is_empty()).unwrap_or_default(),
        at: at.0.div_euclid(1000),
        original_from,
        original_to: all("Original-Rcpt-To").into_iter().map(bare).collect(),
        ip: one("Source-IP").parse().ok(),
        message_id: of_original("Message-ID"),
        author,
        subject: of_original("Subject"),
        failure: one("Auth-Failure").to_lowercase(),
        delivery: one("Delivery-Result").to_lowercase(),
    }))
}
