//! From octets on the wire to text that people read.

use std::borrow::Cow;

use mail_parser::Encoding;
use mail_parser::{Charset, HeaderForm};

use super::structure::{Disposition, Parameter, Part};

/// A header field's value with encoded words decoded (RFC 2047), folds removed and white space trimmed.
pub fn decode_header_text(value: &[u8]) -> String {
    let parsed = HeaderForm::Text.parse(value);
    let text = parsed.value().as_text().map_or_else(|| String::from_utf8_lossy(value).into_owned(), str::to_owned);
    text.replace(['\r', '\n'], "").trim().to_owned()
}

/// The content of a part without its transfer encoding. Damage is tolerated.
pub fn decode_content<'a>(part: &Part, content: &'a [u8]) -> Cow<'a, [u8]> {
    encoding_of(part).decode(content)
}

/// Octets in a charset as text; an unknown charset is read as UTF-8, what does not fit becomes U+FFFD.
pub fn charset_to_text(octets: &[u8], charset: Option<&str>) -> String {
    match charset.and_then(|name| Charset::from_label(name.as_bytes())) {
        Some(charset) => charset.decode(octets).into_owned(),
        None => String::from_utf8_lossy(octets).into_owned(),
    }
}

/// The decoded text of a text part.
pub fn part_text(part: &Part, message: &[u8]) -> String {
    let range = usize::try_from(part.content.start).unwrap_or(0)..usize::try_from(part.content.end).unwrap_or(0);
    let octets = decode_content(part, message.get(range).unwrap_or_default());
    let charset = part.parameters.iter().find(|parameter| parameter.name == "charset");
    charset_to_text(&octets, charset.map(|parameter| parameter.value.as_str()))
}

fn encoding_of(part: &Part) -> Encoding {
    match part.encoding.as_str() {
        "BASE64" => Encoding::Base64,
        "QUOTED-PRINTABLE" => Encoding::QuotedPrintable,
        _ => Encoding::None,
    }
}

/// Type, subtype and parameters of a Content-Type value; `None` if it names no type.
pub(super) fn content_type(value: &[u8]) -> Option<(String, String, Vec<Parameter>)> {
    let parsed = HeaderForm::ContentType.parse(value);
    let parsed = parsed.value().as_content_type()?;
    let subtype = parsed.subtype().filter(|subtype| !subtype.is_empty())?;
    let fits = |text: &str| !text.is_empty() && text.len() <= 100 && text.bytes().all(|b| b.is_ascii_graphic());
    if !fits(parsed.ctype()) || !fits(subtype) {
        return None;
    }
    let parameters = parameters(parsed.attributes());
    Some((parsed.ctype().to_owned(), subtype.to_owned(), parameters))
}

/// A Content-Disposition value.
pub(super) fn disposition(value: &[u8]) -> Option<Disposition> {
    let parsed = HeaderForm::ContentType.parse(value);
    let parsed = parsed.value().as_content_type()?;
    let kind = parsed.ctype().to_ascii_lowercase();
    let fits = !kind.is_empty() && kind.len() <= 100 && kind.bytes().all(|b| b.is_ascii_graphic());
    fits.then(|| Disposition { kind, parameters: parameters(parsed.attributes()) })
}

const PARAMETERS_MAX: usize = 32;

fn parameters<'a>(attributes: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Parameter> {
    let clean = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let mut found: Vec<Parameter> = attributes
        .take(PARAMETERS_MAX)
        .map(|(name, value)| Parameter { name: name.to_ascii_lowercase(), value: clean(value) })
        .filter(|parameter| !parameter.name.is_empty() && parameter.name.bytes().all(|b| b.is_ascii_graphic()))
        .collect();
    // The parser tells an RFC 2231 language as a parameter of its own; nobody asks for it and BODYSTRUCTURE must not show it.
    let names: Vec<String> = found.iter().map(|parameter| parameter.name.clone()).collect();
    found.retain(|parameter| {
        parameter.name.strip_suffix("-language").is_none_or(|base| !names.iter().any(|name| name == base))
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_text_is_decoded() {
        for (value, expected) in [
            (&b" =?UTF-8?Q?Gr=C3=BC=C3=9Fe?= =?iso-8859-1?Q?_aus_B=F6zen?=\r\n"[..], "Gr\u{fc}\u{df}e aus B\u{f6}zen"),
            (b" plain\r\n text", "plain text"),
            (b" =?utf-8?B?broken", "=?utf-8?B?broken"),
            (b"Gr\xc3\xbc\xc3\x9fe", "Gr\u{fc}\u{df}e"),
        ] {
            assert_eq!(decode_header_text(value), expected);
        }
    }

    #[test]
    fn types_and_parameters_are_read() {
        let read = |value: &str| {
            content_type(value.as_bytes()).map(|(media_type, subtype, parameters)| {
                let parameters: Vec<String> = parameters.iter().map(|p| format!("{}={}", p.name, p.value)).collect();
                format!("{media_type}/{subtype} {}", parameters.join(" "))
            })
        };
        assert_eq!(read(" text/html; charset=\"UTF-8\"").as_deref(), Some("text/html charset=UTF-8"));
        // RFC 2231 §4.1
        let long = " application/x-stuff; title*0*=us-ascii'en'This%20is%20even%20more%20; title*1*=%2A%2A%2Afun%2A%2A%2A%20; title*2=\"isn't it!\"";
        assert_eq!(read(long).as_deref(), Some("application/x-stuff title=This is even more ***fun*** isn't it!"));
        assert_eq!(read(" text"), None);
        assert_eq!(read(""), None);
    }
}
