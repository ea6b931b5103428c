//! What a search compares: texts under `i;unicode-casemap` (RFC 5051), and where a text lies in another.

use std::borrow::Cow;

use icu_normalizer::DecomposingNormalizerBorrowed;

use crate::header::{HeaderFields, body_offset};
use crate::mime::Summary;
use crate::mime::decode::decode_header_text;
use crate::mime::text::searchable_text;

/// The text as comparisons see it: case gone, characters decomposed with their compatibility forms (RFC 5051 §2), so
/// that `a` is found in `ä`, and `ﬁ` and `ﬀ` are letters like any other.
///
/// Deviation: where RFC 5051 takes the title case of a single character, this takes its full upper case: `straße` and
/// `STRASSE` are equal.
pub fn casemap(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_uppercase();
    }
    let upper = text.to_uppercase();
    match DecomposingNormalizerBorrowed::new_nfkd().normalize(&upper) {
        Cow::Borrowed(_) => upper,
        Cow::Owned(decomposed) => decomposed,
    }
}

/// A text that is looked for, prepared once.
#[derive(Debug)]
pub struct Needle {
    finder: Box<memchr::memmem::Finder<'static>>,
}

impl Needle {
    pub fn new(text: &str) -> Self {
        Self { finder: Box::new(memchr::memmem::Finder::new(casemap(text).as_bytes()).into_owned()) }
    }

    /// True if it lies in `mapped`, which [`casemap`] made. The empty needle lies in everything.
    pub fn is_in(&self, mapped: &str) -> bool {
        self.finder.find(mapped.as_bytes()).is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.finder.needle().is_empty()
    }
}

/// All of a message that a search may look at, under [`casemap`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SearchText<'a> {
    /// A line `NAME: VALUE` for each header field: unfolded, encoded words decoded.
    pub header: &'a str,
    /// Decoded text of all text parts, HTML rendered, with the names of attachments.
    pub body: &'a str,
}

impl SearchText<'_> {
    /// True if `needle` lies in a field called `name`; the empty needle asks only whether there is such a field
    /// (RFC 9051 §6.4.4). `name` in upper case.
    pub fn field_holds(&self, name: &str, needle: &Needle) -> bool {
        let values = self.header.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let mut values = values.peekable();
        if needle.is_empty() { values.peek().is_some() } else { values.any(|value| needle.is_in(value)) }
    }
}

/// Header and body of [`SearchText`] for a message with `prefix` in front of it; at most `body_max` octets of body.
pub fn search_text(prefix: &[u8], message: &[u8], summary: &Summary, body_max: usize) -> (String, String) {
    let mut header = String::new();
    let own = message.get(..body_offset(message)).unwrap_or_default();
    for field in HeaderFields::of(prefix).chain(HeaderFields::of(own)) {
        header.push_str(&casemap(&String::from_utf8_lossy(field.name)));
        header.push_str(": ");
        let value = casemap(&decode_header_text(field.value));
        header.push_str(&value.replace(['\n', '\r'], " "));
        header.push('\n');
    }
    (header, casemap(&searchable_text(message, &summary.root, body_max)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_equal_whatever_their_case_and_form() {
        for (a, b) in [
            ("Grüße", "GRU\u{308}SSE"),
            ("straße", "STRASSE"),
            ("ﬁle", "file"),
            ("Ⅳ", "iv"),
            ("Ångström", "a\u{30a}ngstro\u{308}m"),
            ("ΣΊΣΥΦΟΣ", "σίσυφοσ"),
            ("ＦＵＬＬ", "full"),
        ] {
            assert_eq!(casemap(a), casemap(b), "{a} {b}");
        }
        for (needle, text, found) in
            [("muller", "Müller", false), ("mu", "Müller", true), ("ÜLL", "müller", true), ("", "x", true)]
        {
            assert_eq!(Needle::new(needle).is_in(&casemap(text)), found, "{needle} in {text}");
        }
    }

    #[test]
    fn header_and_body_of_a_message() {
        let message = "Subject: =?UTF-8?Q?Gr=C3=BC=C3=9Fe?=\r\n aus Bozen\r\nX-Empty:\r\n\
            Content-Type: text/html; charset=iso-8859-1; name=\"a.html\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\
            \r\n<p>Sch=F6ne <b>Gr</b>=FC=DFe</p>\r\n";
        let summary = Summary::of(message.as_bytes());
        let (header, body) = search_text(b"Delivered-To: a@x\r\n", message.as_bytes(), &summary, usize::MAX);
        let text = SearchText { header: &header, body: &body };
        let holds = |name: &str, value: &str| text.field_holds(name, &Needle::new(value));
        assert!(holds("SUBJECT", "grüße aus") && !holds("SUBJECT", "content"));
        assert!(holds("X-EMPTY", "") && !holds("X-EMPTY", "a") && !holds("X-NONE", "") && !holds("X", ""));
        assert!(holds("DELIVERED-TO", "A@X"));
        assert!(Needle::new("schöne grüße").is_in(&body));
        assert!(Needle::new("a.html").is_in(&body));
        assert!(!Needle::new("<b>").is_in(&body));
    }
}
