//! Encodings undone as SpamAssassin undoes them: where they are broken, its choices are what rules expect.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// Soft line ends and `=XX`; what is no escape stays.
pub fn quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|b| *b == b'\n') {
        let end = if line.ends_with(b"\r\n") { 2 } else { usize::from(line.ends_with(b"\n")) };
        let (line, end) = line.split_at(line.len() - end);
        // White space before a line end was added on the way.
        let mut rest = if end.is_empty() { line } else { trim_end_of(line, b" \t") };
        let soft = !end.is_empty() && rest.ends_with(b"=");
        if soft {
            rest = rest.get(..rest.len() - 1).unwrap_or_default();
        }
        while let Some(at) = memchr::memchr(b'=', rest) {
            out.extend_from_slice(rest.get(..at).unwrap_or_default());
            let code = match rest.get(at + 1..at + 3) {
                Some([high, low]) => hex(*high).zip(hex(*low)).map(|(high, low)| high * 16 + low),
                _ => None,
            };
            out.push(code.unwrap_or(b'='));
            rest = rest.get(if code.is_some() { at + 3 } else { at + 1 }..).unwrap_or_default();
        }
        out.extend_from_slice(rest);
        if !soft {
            out.extend_from_slice(end);
        }
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn trim_end_of<'t>(text: &'t [u8], what: &[u8]) -> &'t [u8] {
    let end = text.iter().rposition(|b| !what.contains(b)).map_or(0, |at| at + 1);
    text.get(..end).unwrap_or_default()
}

/// At most about `bytes_max` of what base64 stands for; characters that are none are skipped.
pub fn base64(text: &[u8], bytes_max: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity((text.len() / 4 * 3).min(bytes_max));
    let (mut bits, mut count) = (0_u32, 0);
    let end = text.iter().rposition(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/')).map_or(0, |at| at + 1);
    for byte in text.get(..end).unwrap_or_default() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            // Padding in the middle stands for nothing, but has its place.
            b'=' => 0,
            _ => continue,
        };
        bits = (bits << 6) | u32::from(value);
        count += 1;
        if count == 4 {
            out.extend_from_slice(bits.to_be_bytes().get(1..).unwrap_or_default());
            (bits, count) = (0, 0);
            if out.len() >= bytes_max {
                break;
            }
        }
    }
    let [_, high, low, _] = (bits << (6 * (4 - count))).to_be_bytes();
    out.extend([high, low].iter().take(match count {
        2 => 1,
        3 => 2,
        _ => 0,
    }));
    out.truncate(bytes_max);
    out
}

/// How much a declared charset counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Charset {
    /// UTF-8 is tried first: senders often declare something else.
    Hint,
    /// What does not fit is replaced.
    Binding,
}

/// Text as UTF-8.
pub fn to_utf8<'t>(text: &'t [u8], charset: &str, counts: Charset) -> Cow<'t, str> {
    let charset = charset.trim().to_ascii_lowercase();
    let is_ascii = text.is_ascii();
    let says_ascii = matches!(charset.as_str(), "ascii" | "us-ascii" | "ansi_x3.4-1968" | "iso646-us" | "");
    if is_ascii && (says_ascii || extends_ascii(&charset)) {
        return String::from_utf8_lossy(text);
    }
    let is_utf8 = matches!(charset.as_str(), "utf-8" | "utf8");
    if !is_ascii && counts == Charset::Hint {
        if let Ok(text) = std::str::from_utf8(text) {
            return Cow::Borrowed(text);
        }
    } else if is_utf8 {
        return String::from_utf8_lossy(text);
    }
    if !(says_ascii || is_utf8)
        && let Some(decoded) = declared(text, &charset, counts)
    {
        return decoded;
    }
    if is_ascii { String::from_utf8_lossy(text) } else { western(text) }
}

/// Charsets whose lower half is ASCII.
fn extends_ascii(charset: &str) -> bool {
    [
        "iso-8859", "iso8859", "iso 8859", "windows-", "utf-8", "utf8", "koi8-", "euc-", "big5", "gbk", "gb18030",
        "gb-18030",
    ]
    .iter()
    .any(|start| charset.starts_with(start))
}

fn declared<'t>(text: &'t [u8], charset: &str, counts: Charset) -> Option<Cow<'t, str>> {
    let encoding = if charset.starts_with("utf-16") || charset.starts_with("utf16") {
        utf16(text)?
    } else {
        Encoding::for_label(charset.as_bytes())?
    };
    if encoding == WINDOWS_1252 {
        return Some(western(text));
    }
    let (decoded, failed) = encoding.decode_without_bom_handling(text);
    (!failed || counts == Charset::Binding).then_some(decoded)
}

/// Which half of the pairs holds the zeros of Latin text.
fn utf16(text: &[u8]) -> Option<&'static Encoding> {
    match text {
        [0xFF, 0xFE, ..] => return Some(UTF_16LE),
        [0xFE, 0xFF, ..] => return Some(UTF_16BE),
        _ => {}
    }
    let zeros = |from: usize| text.iter().skip(from).step_by(2).filter(|b| **b == 0).count();
    match zeros(1).cmp(&zeros(0)) {
        std::cmp::Ordering::Greater => Some(UTF_16LE),
        std::cmp::Ordering::Less => Some(UTF_16BE),
        std::cmp::Ordering::Equal => None,
    }
}

/// Windows-1252; the five bytes that it leaves open become U+FFFD.
fn western(text: &[u8]) -> Cow<'_, str> {
    let (decoded, ..) = WINDOWS_1252.decode(text);
    let open = |c: char| matches!(c, '\u{81}' | '\u{8d}' | '\u{8f}' | '\u{90}' | '\u{9d}');
    if decoded.contains(open) { Cow::Owned(decoded.replace(open, "\u{fffd}")) } else { decoded }
}

/// Fields in which encoded words have no place.
fn is_structured(name: &str) -> bool {
    name.starts_with("list-")
        || matches!(
            name,
            "received"
                | "message-id"
                | "resent-message-id"
                | "date"
                | "resent-date"
                | "mime-version"
                | "references"
                | "in-reply-to"
        )
}

/// A field's value unfolded, trimmed, its encoded words decoded. `name` is lower case.
pub fn decoded_header(raw: &[u8], name: &str) -> Vec<u8> {
    let mut value = Vec::with_capacity(raw.len());
    let mut lines = raw.split(|b| *b == b'\n');
    value.extend_from_slice(lines.next().unwrap_or_default());
    for line in lines {
        // A fold is one space, however it was indented.
        if matches!(line.first(), Some(b' ' | b'\t')) {
            value.push(b' ');
        }
        value.extend_from_slice(
            line.get(line.iter().position(|b| !matches!(b, b' ' | b'\t')).unwrap_or(line.len())..).unwrap_or_default(),
        );
    }
    let value = value.trim_ascii();
    let value: Cow<'_, [u8]> = if value.is_ascii() || std::str::from_utf8(value).is_ok() {
        Cow::Borrowed(value)
    } else {
        Cow::Owned(western(value).into_owned().into_bytes())
    };
    if is_structured(name) || memchr::memmem::find(&value, b"=?").is_none() {
        return value.into_owned();
    }
    encoded_words(&value)
}

/// Words of one charset that follow each other are one text: a character may be cut between them.
fn encoded_words(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut pending: Option<(String, Vec<u8>)> = None;
    let mut rest = value;
    while !rest.is_empty() {
        if let Some((charset, text, after)) = encoded_word(rest) {
            match &mut pending {
                Some((open, bytes)) if *open == charset => bytes.extend_from_slice(&text),
                _ => {
                    flush(&mut out, pending.take());
                    pending = Some((charset, text));
                }
            }
            rest = after;
            let next = rest.get(rest.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(rest.len())..);
            if let Some(next) = next.filter(|next| next.len() < rest.len() && encoded_word(next).is_some()) {
                rest = next;
            }
            continue;
        }
        flush(&mut out, pending.take());
        let end = memchr::memchr(b'=', rest.get(1..).unwrap_or_default()).map_or(rest.len(), |at| at + 1);
        out.extend_from_slice(rest.get(..end).unwrap_or_default());
        rest = rest.get(end..).unwrap_or_default();
    }
    flush(&mut out, pending);
    out
}

fn flush(out: &mut Vec<u8>, pending: Option<(String, Vec<u8>)>) {
    if let Some((charset, bytes)) = pending {
        let charset = charset.split('*').next().unwrap_or_default();
        out.extend_from_slice(to_utf8(&bytes, charset, Charset::Binding).as_bytes());
    }
}

/// `=?charset?b?text?=` at the start: charset in lower case, bytes, what follows.
fn encoded_word(text: &[u8]) -> Option<(String, Vec<u8>, &[u8])> {
    let rest = text.strip_prefix(b"=?")?;
    let end = memchr::memchr(b'?', rest)?;
    let charset = rest.get(..end)?;
    let word = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'*' | b'_' | b'-');
    if charset.is_empty() || !charset.iter().all(word) {
        return None;
    }
    let rest = rest.get(end + 1..)?;
    let (kind, rest) = rest.split_first()?;
    let rest = rest.strip_prefix(b"?")?;
    let end = memchr::memchr(b'?', rest)?;
    let (inside, after) = (rest.get(..end)?, rest.get(end + 1..)?.strip_prefix(b"=")?);
    let bytes = match kind {
        b'b' | b'B' => base64(inside, usize::MAX),
        b'q' | b'Q' => {
            let spaced: Vec<u8> = inside.iter().map(|b| if *b == b'_' { b' ' } else { *b }).collect();
            quoted_printable(&spaced)
        }
        _ => return None,
    };
    Some((String::from_utf8_lossy(charset).to_ascii_lowercase(), bytes, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfer_encodings() {
        for (text, expected) in [
            ("a=3Db=\nc \nd=zz", "a=bc\nd=zz"),
            ("x=\r\ny=20 \r\n", "xy \r\n"),
            ("=4", "=4"),
            ("", ""),
            ("a= \nb", "ab"),
        ] {
            assert_eq!(String::from_utf8(quoted_printable(text.as_bytes())).unwrap(), expected, "{text:?}");
        }
        for (text, expected) in
            [("aGVs\nbG8=", "hello"), ("aGVsbG8", "hello"), ("a-G*VsbG8=\n--", "hello"), ("", ""), ("YQ==", "a")]
        {
            assert_eq!(String::from_utf8(base64(text.as_bytes(), 100)).unwrap(), expected, "{text:?}");
        }
        assert_eq!(base64(b"aGVsbG8gaGVsbG8=", 4), b"hell");
    }

    #[test]
    fn charsets() {
        for (text, charset, expected) in [
            (&b"plain"[..], "utf-8", "plain"),
            (b"J\xc3\xb6rg", "iso-8859-1", "J\u{f6}rg"),
            (b"J\xf6rg", "us-ascii", "J\u{f6}rg"),
            (b"J\xf6rg", "utf-8", "J\u{f6}rg"),
            (b"\xcf\xf0\xe8", "windows-1251", "\u{41f}\u{440}\u{438}"),
            (b"a\x81", "nonsense", "a\u{fffd}"),
            (b"h\0i\0", "utf-16", "hi"),
        ] {
            assert_eq!(to_utf8(text, charset, Charset::Hint), expected, "{text:?} {charset}");
        }
        assert_eq!(to_utf8(b"\xff", "utf-8", Charset::Binding), "\u{fffd}");
    }

    #[test]
    fn headers() {
        for (raw, name, expected) in [
            (" plain\n", "subject", "plain"),
            (" two\n\t lines\n", "subject", "two lines"),
            (" =?utf-8?q?J=C3?= =?utf-8?q?=B6rg?= <a@b>\n", "from", "J\u{f6}rg <a@b>"),
            (" =?utf-8?b?SGk=?= there\n", "subject", "Hi there"),
            (" =?utf-8?x?SGk=?=\n", "subject", "=?utf-8?x?SGk=?="),
            (" =?utf-8?q?id?=\n", "message-id", "=?utf-8?q?id?="),
            (" a=b =?= c\n", "subject", "a=b =?= c"),
        ] {
            assert_eq!(String::from_utf8(decoded_header(raw.as_bytes(), name)).unwrap(), expected, "{raw:?}");
        }
    }
}
