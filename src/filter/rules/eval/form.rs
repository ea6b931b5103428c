//! The form of a message: its parts, their encodings, how its lines are written.

use super::{Call, Function, argument, between_floor, flag, number, size};
use crate::rules::mime::Node;
use crate::rules::target::Targets;

pub const FUNCTIONS: &[(&str, Function)] = &[
    ("check_abundant_unicode_ratio", |call| {
        flag(counts(call).unicode_ratio >= number(call, 0)? && counts(call).normal_characters > 0)
    }),
    ("check_base64_length", check_base64_length),
    ("check_for_ascii_text_illegal", |call| flag(counts(call).ascii_text_illegal > 0)),
    ("check_for_mime", check_for_mime),
    ("check_for_mime_html", |call| flag(is_html(call) || counts(call).html_parts > 0)),
    ("check_for_mime_html_only", |call| {
        flag(is_html(call) || (counts(call).html_parts > 0 && counts(call).text_parts == 0))
    }),
    ("check_for_uppercase", check_for_uppercase),
    ("check_ma_non_text", check_ma_non_text),
    ("check_mime_multipart_ratio", |call| flag(between_floor(call, 0, counts(call).multipart_ratio))),
    ("check_msg_parse_flags", check_msg_parse_flags),
    ("check_qp_ratio", |call| flag(counts(call).qp_ratio >= number(call, 0)?)),
];

/// Choices of `check_for_mime`.
pub const MIME_CHOICES: &[&str] = &[
    "mime_ascii_text_illegal",
    "mime_attachment",
    "mime_bad_iso_charset",
    "mime_base64_count",
    "mime_base64_encoded_text",
    "mime_body_html_count",
    "mime_body_text_count",
    "mime_faraway_charset",
    "mime_html_no_charset",
    "mime_missing_boundary",
    "mime_multipart_alternative",
    "mime_multipart_ratio",
    "mime_qp_count",
    "mime_qp_long_line",
    "mime_qp_ratio",
    "mime_text_unicode_ratio",
    "mimepart_limit_exceeded",
];

/// Choices of `check_msg_parse_flags`.
pub const PARSE_CHOICES: &[&str] = &[
    "mime_epilogue_exists",
    "mimepart_limit_exceeded",
    "missing_head_body_separator",
    "missing_mime_head_body_separator",
    "missing_mime_headers",
    "truncated_header",
];

/// What is counted over all parts.
#[derive(Clone, Default, Debug)]
pub struct Counts {
    pub html_parts: usize,
    pub text_parts: usize,
    pub base64_parts: usize,
    pub attachments: usize,
    pub base64_text: bool,
    pub bad_iso_charset: bool,
    pub qp_parts: usize,
    /// Escapes of printable characters, and their share of the bytes of such parts.
    pub qp_escapes: usize,
    pub qp_ratio: f64,
    pub qp_long_line: bool,
    pub ascii_text_illegal: usize,
    pub normal_characters: usize,
    /// `&#x….;` in plain text.
    pub unicode_ratio: f64,
    pub has_alternative: bool,
    /// Bytes of the last plain part for each byte of the last HTML part.
    pub multipart_ratio: f64,
    pub charsets: Vec<String>,
}

fn counts<'c>(call: &Call<'c>) -> &'c Counts {
    call.targets.form.get_or_init(|| Counts::of(call.targets))
}

/// Charsets in which text looks like capitals.
fn likely_capitals(charset: &str) -> bool {
    let charset = charset.to_ascii_lowercase();
    let known =
        ["koi", "jp", "jis", "euc", "gb", "big5", "isoir", "cp1251", "windows-1251", "georgianps", "pt154", "tis"];
    known.iter().any(|name| charset.contains(name))
}

impl Counts {
    fn of(targets: &Targets<'_>) -> Self {
        let mut out = Self { multipart_ratio: 1.0, ..Self::default() };
        let (mut qp_bytes, mut unicode) = (0, 0);
        let mut sizes: Vec<(&str, Option<usize>)> = Vec::new();
        for node in targets.mime().nodes() {
            let kind = node.declared.kind.as_str();
            out.has_alternative |= kind == "multipart/alternative";
            let encoding = node.transfer_encoding();
            let disposition = node.decoded("content-disposition").to_lowercase();
            out.header(node, &encoding, &disposition);
            if !node.is_leaf {
                continue;
            }
            let is_attached = disposition.contains("attachment");
            let counted = out.has_alternative && !is_attached && matches!(kind, "text/plain" | "text/html");
            sizes.push((kind, (!is_attached).then_some(if counted { node.raw.len() } else { 0 })));
            let charset = node.declared.charset.as_deref().unwrap_or("us-ascii");
            let is_ascii_text = kind == "text/plain" && charset.eq_ignore_ascii_case("us-ascii");
            let is_plain = kind == "text/plain" && matches!(encoding.as_str(), "" | "7bit" | "8bit");
            let is_qp = encoding == "quoted-printable";
            if !(is_ascii_text || is_plain || is_qp) {
                continue;
            }
            for line in node.raw.split_inclusive(|b| *b == b'\n') {
                if is_qp && !line.starts_with(b"SPAM: ") {
                    out.qp_long_line |= line.len() > 79;
                    qp_bytes += line.len();
                    out.qp_escapes += needless_escapes(line);
                }
                if is_ascii_text && line.iter().any(|b| matches!(b, 0 | b'\r' | 0x80..)) {
                    out.ascii_text_illegal += 1;
                }
                if is_plain {
                    let references = memchr::memmem::find_iter(line, b"&#x")
                        .filter(|at| line.get(at + 3..at + 8).is_some_and(is_reference))
                        .count();
                    unicode += references;
                    out.normal_characters += line.len() - 8 * references;
                }
            }
        }
        if qp_bytes > 0 {
            out.qp_ratio = size(out.qp_escapes) / size(qp_bytes);
        }
        if out.normal_characters > 0 {
            out.unicode_ratio = size(unicode) / size(out.normal_characters);
        }
        let last = |wanted: &str| {
            sizes.iter().rev().find(|(kind, bytes)| *kind == wanted && bytes.is_some()).and_then(|(_, bytes)| *bytes)
        };
        if out.has_alternative
            && let (Some(plain), Some(html)) = (last("text/plain"), last("text/html"))
            && html > 0
        {
            out.multipart_ratio = size(plain) / size(html);
        }
        out
    }

    fn header(&mut self, node: &Node, encoding: &str, disposition: &str) {
        let kind = node.declared.kind.as_str();
        let charset = node.declared.charset.as_deref().unwrap_or_default().to_ascii_lowercase();
        if kind == "text/html" {
            self.html_parts += 1;
        } else if kind.starts_with("text") {
            self.text_parts += 1;
        }
        self.base64_parts += usize::from(encoding.contains("base64"));
        self.qp_parts += usize::from(encoding.contains("quoted-printable"));
        self.attachments += usize::from(disposition.contains("attachment"));
        let is_ascii = charset.is_empty()
            || [
                "ascii",
                "ansi_x3.4-1968",
                "iso-ir-6",
                "ansi_x3.4-1986",
                "iso_646.irv:1991",
                "iso646-us",
                "ibm367",
                "cp367",
                "us",
            ]
            .iter()
            .any(|name| charset.contains(name));
        let shown = disposition.starts_with("attachment") || disposition.starts_with("inline");
        self.base64_text |= kind.starts_with("text") && encoding.contains("base64") && is_ascii && !shown;
        self.bad_iso_charset |= charset.find("iso-").is_some_and(|at| {
            let rest = &charset[at + 4..];
            let is_known = rest.starts_with("8859-") || rest.starts_with("2022-jp") || rest.starts_with("2022-kr");
            rest.contains('-') && !is_known
        });
        if charset.contains(|c: char| c.is_ascii_alphabetic()) {
            self.charsets.push(charset);
        }
    }
}

/// Four capital hexadecimal digits and a semicolon.
fn is_reference(text: &[u8]) -> bool {
    matches!(text, [digits @ .., b';'] if digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F')))
}

/// Escapes of characters that need none, but for spaces at the end of the line.
fn needless_escapes(line: &[u8]) -> usize {
    let is_needless = |code: &[u8]| match code {
        [b'0', b'9'] => true,
        [b'3', low] => matches!(low, b'0'..=b'9' | b'A' | b'B' | b'C' | b'E' | b'F'),
        [b'2' | b'4' | b'5' | b'6', low] => matches!(low, b'0'..=b'9' | b'A'..=b'F'),
        [b'7', low] => matches!(low, b'0'..=b'9' | b'A'..=b'E'),
        _ => false,
    };
    let all = memchr::memchr_iter(b'=', line).filter(|at| line.get(at + 1..at + 3).is_some_and(is_needless)).count();
    let mut end = line.trim_ascii_end();
    let mut trailing = 0;
    while let Some(rest) = end.strip_suffix(b"=20").or_else(|| end.strip_suffix(b"=09")) {
        trailing += 1;
        end = rest;
    }
    all.saturating_sub(trailing)
}

fn is_html(call: &Call<'_>) -> bool {
    call.targets.values("content-type").next().is_some_and(|value| value.to_ascii_lowercase().starts_with("text/html"))
}

fn check_for_mime(call: &Call<'_>) -> Option<String> {
    let counts = counts(call);
    let form = call.targets.mime().form;
    flag(match argument(call, 0) {
        "mime_ascii_text_illegal" => counts.ascii_text_illegal > 0,
        "mime_attachment" => counts.attachments > 0,
        "mime_bad_iso_charset" => counts.bad_iso_charset,
        "mime_base64_count" => counts.base64_parts > 0,
        "mime_base64_encoded_text" => counts.base64_text,
        "mime_body_html_count" => counts.html_parts > 0,
        "mime_body_text_count" => counts.text_parts > 0,
        "mime_html_no_charset" => {
            let nodes = call.targets.mime().nodes();
            nodes.iter().any(|node| node.kind == "text/html" && node.declared.charset.is_none())
        }
        "mime_missing_boundary" => form.missing_boundary,
        "mime_multipart_alternative" => counts.has_alternative,
        "mime_multipart_ratio" => counts.multipart_ratio > 0.0,
        // Once there are such parts, what counts is what they escape.
        "mime_qp_count" => {
            if qp_bytes(call) {
                counts.qp_escapes > 0
            } else {
                counts.qp_parts > 0
            }
        }
        "mime_qp_long_line" => counts.qp_long_line,
        "mime_qp_ratio" => counts.qp_ratio > 0.0,
        "mime_text_unicode_ratio" => counts.unicode_ratio > 0.0,
        // `mimepart_limit_exceeded` is a mark of the message, not of its parts: SpamAssassin looks for it here in vain.
        _ => false,
    })
}

fn qp_bytes(call: &Call<'_>) -> bool {
    call.targets.leaves().iter().any(|node| !node.raw.is_empty() && node.transfer_encoding() == "quoted-printable")
}

/// `multipart/alternative` that holds more than ways to say the same.
fn check_ma_non_text(call: &Call<'_>) -> Option<String> {
    let nodes = call.targets.mime().nodes();
    let alternatives = nodes.iter().filter(|node| node.kind == "multipart/alternative");
    let mut children = alternatives.flat_map(|node| &node.children).filter(|child| child.is_leaf);
    let other = children.find(|child| {
        !child.kind.starts_with("text/") && !matches!(child.kind.as_str(), "multipart/related" | "application/rtf")
    });
    other.map(|child| child.kind.clone())
}

/// What is wrong with the message's form, by SpamAssassin's names.
fn check_msg_parse_flags(call: &Call<'_>) -> Option<String> {
    let form = call.targets.mime().form;
    flag(match argument(call, 0) {
        "mime_epilogue_exists" => form.mime_epilogue_exists,
        "mimepart_limit_exceeded" => form.mimepart_limit_exceeded,
        "missing_head_body_separator" => form.missing_head_body_separator,
        "missing_mime_head_body_separator" => form.missing_mime_head_body_separator,
        "missing_mime_headers" => form.missing_mime_headers,
        "truncated_header" => form.truncated_header,
        _ => false,
    })
}

/// The longest line of base64 parts.
fn check_base64_length(call: &Call<'_>) -> Option<String> {
    let leaves = call.targets.leaves();
    let parts =
        leaves.iter().filter(|node| node.declared.kind != "application/ics" && node.transfer_encoding() == "base64");
    let longest = parts.flat_map(|node| node.raw.split_inclusive(|b| *b == b'\n')).map(<[u8]>::len).max().unwrap_or(0);
    let holds = size(longest) >= number(call, 0)? && number(call, 1).is_none_or(|high| size(longest) <= high);
    holds.then(|| format!("{longest} bytes"))
}

/// Percent of capital letters, in texts long enough to say something.
fn check_for_uppercase(call: &Call<'_>) -> Option<String> {
    let percent = (*call.targets.capitals.get_or_init(|| percent_of_capitals(call)))?;
    let holds = percent > number(call, 0)? && percent <= number(call, 1)?;
    holds.then(|| format!("{percent:.0} %"))
}

/// `None` where there is too little text, or it may only look like capitals.
fn percent_of_capitals(call: &Call<'_>) -> Option<f64> {
    let charsets = &counts(call).charsets;
    let declared = call.targets.values("content-type").next().and_then(|value| {
        let rest = value.to_ascii_lowercase().split_once("charset=")?.1.to_owned();
        rest.trim_matches(['"', '\'']).split(['"', '\'', ' ']).next().map(str::to_owned)
    });
    if charsets.iter().chain(&declared).any(|charset| likely_capitals(charset)) {
        return None;
    }
    let (mut length, mut upper, mut lower) = (0, 0, 0);
    for line in call.targets.body().iter() {
        if !has_two_words(line) || is_base64_text(line) {
            continue;
        }
        length += line.len();
        lower += line.iter().filter(|b| b.is_ascii_lowercase() || b.is_ascii_digit()).count();
        upper += line.iter().filter(|b| b.is_ascii_uppercase()).count();
    }
    if length < 200 || upper + lower == 0 {
        return None;
    }
    Some(100.0 * size(upper) / size(upper + lower))
}

fn has_two_words(line: &[u8]) -> bool {
    line.trim_ascii().iter().any(u8::is_ascii_whitespace)
}

/// Two lines of base64, made one paragraph.
fn is_base64_text(line: &[u8]) -> bool {
    let is_line = |word: Option<&[u8]>| {
        word.is_some_and(|word| {
            (60..=76).contains(&word.len())
                && word.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='))
        })
    };
    let mut words = line.split(|b| *b == b' ');
    is_line(words.next()) && is_line(words.next())
}
