//! Links written out in text, as mail programs make links of them.

use super::boundaries::Boundaries;

/// One link as found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// With a scheme, added where it has none.
    pub url: String,
    /// Written without a scheme.
    pub is_schemeless: bool,
    /// Readers' programs make no link of it.
    pub is_unlinked: bool,
}

const URL_BYTES_MAX: usize = 2048;
const NAME_BYTES_MAX: usize = 251;

/// All links in one paragraph, in order, not each once. Bytes, UTF-8 or not.
pub fn links_in(text: &[u8], boundaries: &Boundaries) -> Vec<Found> {
    let mut out = Vec::new();
    // No link has white space in it.
    for run in text.split(u8::is_ascii_whitespace) {
        let may_hold = run.len() > 3
            && (memchr::memchr2(b'.', b'@', run).is_some() || memchr::memmem::find(run, b"://").is_some());
        if may_hold {
            links_in_run(run, boundaries, &mut out);
        }
    }
    out
}

fn links_in_run(run: &[u8], boundaries: &Boundaries, out: &mut Vec<Found>) {
    let mut at = 0;
    while at < run.len() {
        let rest = run.get(at..).unwrap_or_default();
        let before = at.checked_sub(1).and_then(|at| run.get(at)).copied();
        let found = if begins(before, rest) {
            known_scheme(rest)
                .map(|length| (length, true))
                .or_else(|| address(rest).map(|length| (length, true)))
                .or_else(|| bare_host(before, rest, boundaries))
        } else {
            None
        };
        let Some((length, valid)) = found else {
            at += 1;
            continue;
        };
        if valid {
            out.extend(finished(rest.get(..length).unwrap_or_default(), boundaries));
        }
        at += length.max(1);
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// At an edge of a word, or behind a sign that opens something.
fn begins(before: Option<u8>, rest: &[u8]) -> bool {
    let word = rest.first().copied().is_some_and(is_word);
    before.map_or(word, |before| is_word(before) != word || b"><\"'`,{[(|\x1b\xa0".contains(&before))
        || before.is_none()
}

/// Ends a link.
fn is_end(byte: u8) -> bool {
    byte.is_ascii_whitespace() || b"><\"`}]{[|\x1b\xa0\x0b".contains(&byte)
}

/// Ends an address.
fn is_mail_end(byte: u8) -> bool {
    is_end(byte) || matches!(byte, b',' | b'(' | b'\'') || byte >= 0x80
}

/// Looks at one byte more than `bytes_max`: a longer run is no link.
fn run_of(text: &[u8], bytes_max: usize, ends: fn(u8) -> bool) -> usize {
    let text = text.get(..=bytes_max).unwrap_or(text);
    text.iter().position(|b| ends(*b)).unwrap_or(text.len())
}

fn prefix(text: &[u8], start: &[u8]) -> Option<usize> {
    text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start)).then_some(start.len())
}

/// `www.`, `www2.`
fn www(text: &[u8]) -> Option<usize> {
    let word = prefix(text, b"www")?;
    let digits = text.get(word..)?.iter().take(2).take_while(|b| b.is_ascii_digit()).count();
    (text.get(word + digits) == Some(&b'.')).then_some(word + digits + 1)
}

fn known_scheme(text: &[u8]) -> Option<usize> {
    let start = prefix(text, b"http://")
        .or_else(|| prefix(text, b"https://"))
        .or_else(|| prefix(text, b"ftp://"))
        .or_else(|| www(text))
        .or_else(|| prefix(text, b"ftp."))?;
    let length = run_of(text.get(start..)?, URL_BYTES_MAX, is_end);
    (1..=URL_BYTES_MAX).contains(&length).then_some(start + length)
}

fn address(text: &[u8]) -> Option<usize> {
    if let Some(start) = prefix(text, b"mailto:") {
        let length = run_of(text.get(start..)?, URL_BYTES_MAX, is_mail_end);
        if (1..=URL_BYTES_MAX).contains(&length) {
            return Some(start + length);
        }
    }
    let name = run_of(text, NAME_BYTES_MAX, |b| is_mail_end(b) || b == b'@');
    if !(1..=NAME_BYTES_MAX).contains(&name) || text.get(name) != Some(&b'@') {
        return None;
    }
    let length = run_of(text.get(name + 1..)?, NAME_BYTES_MAX, is_mail_end);
    (1..=NAME_BYTES_MAX).contains(&length).then_some(name + 1 + length)
}

/// `shop.example.com/offer`; false where the name is no valid one.
fn bare_host(before: Option<u8>, text: &[u8], boundaries: &Boundaries) -> Option<(usize, bool)> {
    let opens = |b: u8| b.is_ascii_whitespace() || b"!\"#$&'()*+,/:;<=>?@[\\]^`{|}~\x1b\xa0".contains(&b);
    if before.is_some_and(|before| !opens(before)) || !text.first()?.is_ascii_alphanumeric() {
        return None;
    }
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let run = text.iter().take(300).take_while(|b| is_name(b)).count();
    let name = std::str::from_utf8(text.get(..run)?).ok()?;
    let name = name.strip_suffix('.').unwrap_or(name);
    let (_, top) = name.rsplit_once('.').filter(|(start, _)| !start.is_empty())?;
    if !boundaries.is_top(top) {
        return None;
    }
    let mut length = run;
    if text.get(length) == Some(&b':') {
        length += 1 + text.get(length + 1..)?.iter().take(5).take_while(|b| b.is_ascii_digit()).count();
    }
    if text.get(length) == Some(&b'/') {
        let path = run_of(text.get(length + 1..)?, URL_BYTES_MAX, is_end);
        if !(1..=URL_BYTES_MAX).contains(&path) {
            return None;
        }
        length += 1 + path;
    }
    if text.get(length).is_some_and(|b| !is_end(*b)) || length == run + 1 {
        return None;
    }
    Some((length, super::is_host_name(name)))
}

/// Without what belongs to the sentence, and with a scheme.
fn finished(found: &[u8], boundaries: &Boundaries) -> Option<Found> {
    let text = String::from_utf8_lossy(found);
    let mut raw = text.as_ref();
    // A closing bracket that nothing opened is not part of the link.
    if let Some(at) = raw.find(')').filter(|at| !raw[..*at].contains('(')) {
        raw = &raw[..at];
    }
    raw = raw.trim_end_matches(|c| "-~!@#^&*()_+=:;'?,.".contains(c));
    let lower = raw.to_ascii_lowercase();
    let has_scheme = ["http:", "https:", "ftp:", "mailto:"].iter().any(|scheme| lower.starts_with(scheme));
    let is_only_scheme = raw.trim_end_matches('/').strip_suffix(':').is_some_and(|word| word.bytes().all(is_word));
    if raw.is_empty() || is_only_scheme || lower.starts_with("cid:") || lower.starts_with("mid:") {
        return None;
    }
    let mut unlinked = false;
    let url = if has_scheme {
        raw.to_owned()
    } else if lower.starts_with("ftp.") {
        format!("ftp://{raw}")
    } else if www(raw.as_bytes()).is_some()
        || raw.find('/').is_some_and(|at| raw[at + 1..].find('@').is_some_and(|at| at > 0))
    {
        format!("http://{raw}")
    } else if let Some((_, domain)) = raw.split_once('@') {
        if !domain.get(1..).is_some_and(|rest| rest.contains('.')) || raw.contains("&nbsp;") {
            return None;
        }
        let start = ["skype", "e-mail", "email", "mail", ""]
            .iter()
            .find(|word| lower.strip_prefix(**word).is_some_and(|rest| rest.starts_with(':')));
        format!("mailto:{}", start.map_or(raw, |word| raw[word.len()..].trim_start_matches(':')))
    } else if raw.contains('.') {
        unlinked = true;
        format!("http://{raw}")
    } else {
        return None;
    };
    if let Some(address) = url.get(..7).filter(|start| start.eq_ignore_ascii_case("mailto:")).and_then(|_| url.get(7..))
    {
        let address = if address.contains('%') { super::canonical::unescaped(address) } else { address.to_owned() };
        let (_, host) = address.split_once('@')?;
        let mut host = host.split(['?', '&', '>']).next().unwrap_or_default();
        while let Some(cut) = host.strip_suffix("%20") {
            host = cut;
        }
        if !boundaries.is_valid(host) {
            return None;
        }
        return Some(Found { url: format!("mailto:{address}"), is_schemeless: !has_scheme, is_unlinked: false });
    }
    Some(Found { url, is_schemeless: !has_scheme, is_unlinked: unlinked })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_in_text() {
        for (text, expected) in [
            ("see http://a.example/x.", &["http://a.example/x"][..]),
            ("(WWW.a.com)", &["http://WWW.a.com"]),
            ("write to joe@b.com, now", &["mailto:joe@b.com"]),
            ("<mailto:joe@b.com>", &["mailto:joe@b.com"]),
            ("go to shop.a.com/offer! or shop.a.com/ or a.com:80", &["http://shop.a.com/offer", "http://a.com:80"]),
            ("main.nonsense and x.com.nonsense", &[]),
            ("a,b.com.", &["http://b.com"]),
            ("x\u{e9}b.com", &[]),
            ("http://a.com)more(", &["http://a.com"]),
            ("http:// ://", &[]),
            ("joe@b.nonsense", &[]),
        ] {
            let found: Vec<String> =
                links_in(text.as_bytes(), &Boundaries::default()).into_iter().map(|f| f.url).collect();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn hostile_text_is_bounded() {
        for piece in ["a.", "http://", "@", "a@", "-.", "\u{e4}.", "www."] {
            links_in(piece.repeat(50_000).as_bytes(), &Boundaries::default());
        }
    }
}
