//! Address lists of header fields (RFC 5322 §3.4), as ENVELOPE shows them: encoded words left as they are.

use super::summary::EnvelopeAddress;

/// Addresses of one field at most.
const ADDRESSES_MAX: usize = 2000;

/// Reads a list; what is no address gives the nearest thing to one, or nothing. Never fails.
pub fn parse_address_list(value: &[u8]) -> Vec<EnvelopeAddress> {
    let mut out = Vec::new();
    let mut current = Building::default();
    let mut in_group = false;
    for token in Tokens(value) {
        if out.len() >= ADDRESSES_MAX {
            return out;
        }
        match token {
            Token::Special(b',') => current.finish(&mut out),
            Token::Special(b':') if !in_group && current.angle.is_none() => {
                out.push(EnvelopeAddress::GroupStart { name: current.phrase() });
                current = Building::default();
                in_group = true;
            }
            Token::Special(b';') if in_group => {
                current.finish(&mut out);
                out.push(EnvelopeAddress::GroupEnd);
                in_group = false;
            }
            Token::Special(_) => {}
            Token::Angle(inside) => current.angle = Some(inside.to_vec()),
            Token::Word(word) => current.words.push(word),
            Token::Comment(comment) => current.comment = Some(comment),
        }
    }
    current.finish(&mut out);
    if in_group {
        out.push(EnvelopeAddress::GroupEnd);
    }
    out
}

#[derive(Default)]
struct Building {
    words: Vec<(Vec<u8>, bool)>,
    angle: Option<Vec<u8>>,
    comment: Option<Vec<u8>>,
}

impl Building {
    /// The words as a display name.
    fn phrase(&self) -> Vec<u8> {
        self.words.iter().map(|(word, _)| word.as_slice()).collect::<Vec<_>>().join(&b' ')
    }

    fn finish(&mut self, out: &mut Vec<EnvelopeAddress>) {
        let own = std::mem::take(self);
        let (name, address) = match &own.angle {
            Some(angle) => (Some(own.phrase()).filter(|name| !name.is_empty()), angle.clone()),
            // Without angle brackets: `a@b (Name)`. Spaces around dots and @ are allowed there.
            None => (own.comment, own.words.iter().flat_map(|(word, _)| word.clone()).collect()),
        };
        if address.is_empty() && name.is_none() {
            return;
        }
        // A source route is dropped.
        let address =
            match address.strip_prefix(b"@").and_then(|route| memchr::memchr(b':', route).map(|at| &route[at + 1..])) {
                Some(rest) => rest.to_vec(),
                None => address,
            };
        let (local, domain) = match memchr::memrchr(b'@', &address) {
            Some(at) => (address[..at].to_vec(), address[at + 1..].to_vec()),
            None => (address, Vec::new()),
        };
        out.push(EnvelopeAddress::Mailbox { name, local: unquoted(&local), domain });
    }
}

fn unquoted(local: &[u8]) -> Vec<u8> {
    let Some(inside) = local.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return local.to_vec();
    };
    let mut out = Vec::with_capacity(inside.len());
    let mut bytes = inside.iter();
    while let Some(byte) = bytes.next() {
        out.push(if *byte == b'\\' { *bytes.next().unwrap_or(byte) } else { *byte });
    }
    out
}

enum Token<'a> {
    /// Text and whether it was quoted.
    Word((Vec<u8>, bool)),
    Angle(&'a [u8]),
    Comment(Vec<u8>),
    Special(u8),
}

struct Tokens<'a>(&'a [u8]);

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.0 = self.0.trim_ascii_start();
        let (first, rest) = self.0.split_first()?;
        match first {
            b'"' => {
                let (text, rest) = quoted(rest, b'"');
                // `"john doe"@example.org`: a quoted local part keeps its quotes until the address is whole.
                let is_local = rest.starts_with(b"@");
                let text = if is_local { [b"\"", text.as_slice(), b"\""].concat() } else { text };
                self.0 = rest;
                Some(Token::Word((text, true)))
            }
            b'(' => {
                let (text, rest) = comment(rest);
                self.0 = rest;
                Some(Token::Comment(text))
            }
            b'<' => {
                let end = memchr::memchr(b'>', rest).unwrap_or(rest.len());
                let (inside, after) = rest.split_at(end);
                self.0 = after.get(1..).unwrap_or_default();
                Some(Token::Angle(inside.trim_ascii()))
            }
            b',' | b':' | b';' | b'>' | b')' => {
                self.0 = rest;
                Some(Token::Special(*first))
            }
            _ => {
                let is_end = |byte: &u8| byte.is_ascii_whitespace() || b"\"(<,:;>)".contains(byte);
                // An encoded word may hold what would end a word; a domain literal may hold colons.
                let closing: Option<&[u8]> = match first {
                    b'=' if rest.starts_with(b"?") => Some(b"?="),
                    b'[' => Some(b"]"),
                    _ => None,
                };
                let mut end = self.0.iter().position(is_end).unwrap_or(self.0.len());
                if let Some(closing) = closing
                    && let Some(at) = memchr::memmem::find(self.0, closing)
                {
                    let whole = at + closing.len();
                    let line = self.0.get(..whole).unwrap_or_default();
                    if whole > end && whole <= 200 && !line.iter().any(u8::is_ascii_whitespace) {
                        end = whole;
                    }
                }
                if let Some(at) = memchr::memmem::find(self.0.get(..end)?, b"@[")
                    && let Some(close) = memchr::memchr(b']', self.0.get(at..)?)
                {
                    end = end.max(at + close + 1);
                } else if let Some(at) = memchr::memmem::find(self.0, b"@[")
                    && at < end
                    && let Some(close) = memchr::memchr(b']', self.0.get(at..)?)
                {
                    end = at + close + 1;
                }
                let (word, rest) = self.0.split_at(end.max(1));
                self.0 = rest;
                Some(Token::Word((word.to_vec(), false)))
            }
        }
    }
}

/// Text up to the closing quote, escapes resolved, and what follows.
fn quoted(bytes: &[u8], close: u8) -> (Vec<u8>, &[u8]) {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => {
                out.extend(bytes.get(at + 1));
                at += 2;
            }
            byte if *byte == close => return (out, bytes.get(at + 1..).unwrap_or_default()),
            b'\r' | b'\n' => at += 1,
            byte => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    (out, &[])
}

/// A comment's text; comments nest.
fn comment(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut out = Vec::new();
    let (mut depth, mut at) = (1usize, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => {
                out.extend(bytes.get(at + 1));
                at += 2;
                continue;
            }
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return (out, bytes.get(at..).unwrap_or_default());
        }
        out.push(*byte);
    }
    (out, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> String {
        let show = |address: &EnvelopeAddress| match address {
            EnvelopeAddress::Mailbox { name, local, domain } => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                format!("{}|{}|{}", name.as_deref().map(text).unwrap_or_default(), text(local), text(domain))
            }
            EnvelopeAddress::GroupStart { name } => format!("{{{}", String::from_utf8_lossy(name)),
            EnvelopeAddress::GroupEnd => "}".to_owned(),
        };
        parse_address_list(value.as_bytes()).iter().map(show).collect::<Vec<_>>().join(" , ")
    }

    #[test]
    fn lists_are_read() {
        for (value, expected) in [
            (" Anna <anna@a.test>\r\n", "Anna|anna|a.test"),
            ("anna@a.test", "|anna|a.test"),
            ("anna@a.test (Anna B)", "Anna B|anna|a.test"),
            ("\"B, Anna\" <anna@a.test>, bert@b.test", "B, Anna|anna|a.test , |bert|b.test"),
            ("=?utf-8?Q?Gr=C3=BC=2C?= x <a@b.test>", "=?utf-8?Q?Gr=C3=BC=2C?= x|a|b.test"),
            ("\"john doe\"@a.test", "|john doe|a.test"),
            // RFC 5322, appendix A.1.3
            (
                "A Group:Ed Jones <joe@where.test>,joe@where.test,John <jdoe@one.test>;",
                "{A Group , Ed Jones|joe|where.test , |joe|where.test , John|jdoe|one.test , }",
            ),
            ("Undisclosed recipients:;", "{Undisclosed recipients , }"),
            ("a @ b . test", "|a|b.test"),
            ("<@route.test:a@b.test>", "|a|b.test"),
            ("a@[IPv6:2001:db8::1]", "|a|[IPv6:2001:db8::1]"),
            ("Nobody", "|Nobody|"),
            ("", ""),
            (",,;", ""),
            ("(only a comment)", "only a comment||"),
            ("Open <a@b.test", "Open|a|b.test"),
        ] {
            assert_eq!(read(value), expected, "{value}");
        }
    }
}
