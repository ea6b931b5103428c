//! HTML cut into tags, texts and comments, where browsers and SpamAssassin's reader would cut it.

use std::borrow::Cow;

use super::names::entity;

/// One piece of HTML.
#[derive(Debug)]
pub enum Token<'t> {
    /// Lower-case name, attributes with lower-case names and decoded values in order.
    Start(String, Vec<(String, String)>),
    End(String),
    Text(Cow<'t, str>),
    /// With its brackets.
    Comment(&'t str),
    /// `<!doctype …>`, with its brackets.
    Declaration(&'t str),
}

/// Reads a document from its start.
pub struct Markup<'t> {
    rest: &'t str,
    /// The element whose content is no markup, until its end tag: its name, and whether entities count in it.
    literal: Option<(&'static str, bool)>,
    pending: Option<Token<'t>>,
    /// Brackets that began no tag.
    failures: u32,
    /// A bit for each of [`LITERAL`] that has no end in what is left.
    unclosed: u8,
}

/// Elements whose content is no markup; in the last ones entities count.
const LITERAL: &[(&str, bool)] = &[
    ("script", false),
    ("style", false),
    ("xmp", false),
    ("iframe", false),
    ("plaintext", false),
    ("textarea", true),
    ("title", true),
];

/// Longest tag.
const TAG_BYTES_MAX: usize = 64 << 10;
const ATTRIBUTES_MAX: usize = 200;
/// After so many brackets that begin nothing, only tags of the second length are looked for: each failure costs a
/// look at all that a tag could be.
const FAILURES_MAX: u32 = 64;
const SHORT_TAG_BYTES_MAX: usize = 1024;

impl<'t> Markup<'t> {
    pub fn of(text: &'t str) -> Self {
        Self { rest: text, literal: None, pending: None, failures: 0, unclosed: 0 }
    }

    fn literal_text(&mut self, name: &'static str, decodes: bool) -> Option<Token<'t>> {
        self.literal = None;
        let bit = LITERAL.iter().position(|(known, _)| *known == name).map_or(0, |at| 1 << at);
        let end = if self.unclosed & bit == 0 { literal_end(self.rest, name) } else { None };
        let Some(end) = end else {
            self.unclosed |= bit;
            // Never closed: as browsers do for titles, what follows is read as markup; scripts hide the rest.
            if decodes || name == "iframe" || name == "xmp" {
                return self.next();
            }
            let rest = std::mem::take(&mut self.rest);
            self.pending = Some(Token::End(name.to_owned()));
            return Some(Token::Text(Cow::Borrowed(rest)));
        };
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        if text.is_empty() {
            return self.next();
        }
        Some(Token::Text(if decodes { decoded(text, true) } else { Cow::Borrowed(text) }))
    }

    /// What starts with `<`, and how long it is. `None`: it is text.
    fn tag(&self, text: &'t str) -> Option<(Token<'t>, usize)> {
        let text = if self.failures < FAILURES_MAX {
            text
        } else {
            &text[..text.floor_char_boundary(SHORT_TAG_BYTES_MAX.min(text.len()))]
        };
        let bytes = text.as_bytes();
        match bytes.get(1)? {
            b'!' => declaration(text),
            b'?' => memchr::memchr(b'>', bytes).map(|end| (Token::Comment(""), end + 1)),
            b'/' => {
                let end = memchr::memchr(b'>', bytes)?;
                let inside = &text[2..end];
                let name_end = inside.find(char::is_whitespace).unwrap_or(inside.len());
                if name_end == 0 {
                    return Some((Token::Comment(&text[..=end]), end + 1));
                }
                Some((Token::End(inside[..name_end].to_ascii_lowercase()), end + 1))
            }
            first if first.is_ascii_alphabetic() => start_tag(text),
            _ => None,
        }
    }
}

impl<'t> Iterator for Markup<'t> {
    type Item = Token<'t>;

    fn next(&mut self) -> Option<Token<'t>> {
        if let Some(token) = self.pending.take() {
            return Some(token);
        }
        if let Some((name, decodes)) = self.literal {
            return self.literal_text(name, decodes);
        }
        let text = self.rest;
        let mut from = 0;
        // A `<` that begins no tag is text; more than a few of them in a row are not looked at one by one.
        while let Some(at) = memchr::memchr(b'<', text.as_bytes().get(from..)?).map(|at| at + from) {
            let Some((token, length)) = self.tag(&text[at..]) else {
                self.failures += 1;
                from = at + 1;
                continue;
            };
            self.rest = &text[at + length..];
            if let Token::Start(name, _) = &token {
                self.literal = LITERAL.iter().find(|(known, _)| known == name).copied();
            }
            if at == 0 {
                return if matches!(token, Token::Comment("")) { self.next() } else { Some(token) };
            }
            if !matches!(token, Token::Comment("")) {
                self.pending = Some(token);
            }
            return Some(Token::Text(decoded(&text[..at], true)));
        }
        self.rest = "";
        (!text.is_empty()).then(|| Token::Text(decoded(text, true)))
    }
}

fn literal_end(text: &str, name: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b'<', bytes).find(|at| {
        let Some(rest) = bytes.get(at + 1..).and_then(|rest| rest.strip_prefix(b"/")) else { return false };
        rest.get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()))
            && rest.get(name.len()..).is_some_and(|after| after.trim_ascii_start().starts_with(b">"))
    })
}

fn declaration(text: &str) -> Option<(Token<'_>, usize)> {
    if text.starts_with("<!--") {
        let inside = &text.as_bytes()[4..];
        // `--` and white space before the bracket end it.
        let end = memchr::memmem::find_iter(inside, b"--").find_map(|at| {
            let rest = inside.get(at + 2..)?;
            let spaces = rest.len() - rest.trim_ascii_start().len();
            (rest.get(spaces) == Some(&b'>')).then_some(at + 2 + spaces + 1)
        });
        let length = match end {
            Some(end) => 4 + end,
            // Without an end, the first bracket has to do.
            None => memchr::memchr(b'>', text.as_bytes())? + 1,
        };
        return Some((Token::Comment(&text[..length]), length));
    }
    let end = memchr::memchr(b'>', text.as_bytes())? + 1;
    let whole = &text[..end];
    let is_declaration = whole.as_bytes().get(2).is_some_and(u8::is_ascii_alphabetic);
    Some((if is_declaration { Token::Declaration(whole) } else { Token::Comment(whole) }, end))
}

fn start_tag(text: &str) -> Option<(Token<'_>, usize)> {
    let limit = text.floor_char_boundary(TAG_BYTES_MAX.min(text.len()));
    let text = &text[..limit];
    let name_end = text.find(|c: char| c.is_ascii_whitespace() || c == '>')?;
    let name = text[1..name_end].to_ascii_lowercase();
    let mut attributes: Vec<(String, String)> = Vec::new();
    let mut rest = text[name_end..].trim_ascii_start();
    loop {
        if let Some(after) = rest.strip_prefix('>') {
            return Some((Token::Start(name, attributes), text.len() - after.len()));
        }
        let first = rest.chars().next()?.len_utf8();
        let end = rest[first..].find(|c: char| c.is_ascii_whitespace() || matches!(c, '=' | '>'))? + first;
        let attribute = rest[..end].to_ascii_lowercase();
        rest = rest[end..].trim_ascii_start();
        let value = match rest.strip_prefix('=') {
            None => attribute.clone(),
            Some(after) => {
                let after = after.trim_ascii_start();
                let (value, after) = match after.chars().next()? {
                    quote @ ('"' | '\'') => after[1..].split_once(quote)?,
                    _ => after.split_at(after.find(|c: char| c.is_ascii_whitespace() || c == '>')?),
                };
                rest = after.trim_ascii_start();
                decoded(value, false).into_owned()
            }
        };
        if attributes.len() < ATTRIBUTES_MAX {
            attributes.push((attribute, value));
        }
    }
}

/// `&amp;`, `&#65;`, `&#x41;`; what is unknown stays. `prefixes`: in texts a known name may be followed by letters.
pub fn decoded(text: &str, prefixes: bool) -> Cow<'_, str> {
    let Some(first) = memchr::memchr(b'&', text.as_bytes()) else { return Cow::Borrowed(text) };
    let mut out = String::with_capacity(text.len());
    let (head, mut rest) = text.split_at(first);
    out.push_str(head);
    while let Some(at) = memchr::memchr(b'&', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match reference(rest, prefixes) {
            Some((character, length)) => {
                out.push(character);
                rest = &rest[length..];
                rest = rest.strip_prefix(';').unwrap_or(rest);
            }
            None => out.push('&'),
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn reference(text: &str, prefixes: bool) -> Option<(char, usize)> {
    let bytes = text.as_bytes();
    if let Some(number) = bytes.strip_prefix(b"#") {
        let (digits, radix, skipped) = match number {
            [b'x' | b'X', digits @ ..] => (digits, 16, 2),
            digits => (digits, 10, 1),
        };
        let length = digits.iter().take(10).take_while(|b| char::from(**b).is_digit(radix)).count();
        let code = u32::from_str_radix(text.get(skipped..skipped + length)?, radix).ok()?;
        return Some((char::from_u32(code).filter(|c| *c != '\0')?, skipped + length));
    }
    let length = bytes.iter().take(24).take_while(|b| b.is_ascii_alphanumeric()).count();
    let name = text.get(..length)?;
    if let Some(character) = entity(name) {
        return Some((character, length));
    }
    // Names that take no semicolon are those of Latin-1.
    let shorter = (2..length).rev().filter(|_| prefixes);
    shorter.filter_map(|end| entity(&name[..end]).map(|c| (c, end))).find(|(c, _)| u32::from(*c) < 256)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> String {
        let pieces = Markup::of(text).take(20).map(|token| match token {
            Token::Start(name, attributes) => {
                let attributes: String = attributes.iter().map(|(name, value)| format!(" {name}={value}")).collect();
                format!("<{name}{attributes}>")
            }
            Token::End(name) => format!("</{name}>"),
            Token::Text(text) => format!("'{text}'"),
            Token::Comment(text) => format!("!{text}"),
            Token::Declaration(text) => format!("D{text}"),
        });
        pieces.collect::<Vec<_>>().join("")
    }

    #[test]
    fn pieces() {
        for (text, expected) in [
            ("a<B>b</b >c", "'a'<b>'b'</b>'c'"),
            ("<a HREF = 'x>y' b c=d>", "<a href=x>y b=b c=d>"),
            ("1 < 2 <3", "'1 < 2 <3'"),
            ("<!-- x -- >y<!doctype html><![if x]>", "!<!-- x -- >'y'D<!doctype html>!<![if x]>"),
            ("<script>a<b&amp;</script>c", "<script>'a<b&amp;'</script>'c'"),
            ("<title>a&amp;<b></title>c", "<title>'a&<b>'</title>'c'"),
            ("<style>x", "<style>'x'</style>"),
            ("<a href=\"x>y", "'<a href=\"x>y'"),
            ("a&nbsp;b&#65;&#x42;&bogus;&copy2010 &amp", "'a\u{a0}bAB&bogus;\u{a9}2010 &'"),
            ("<br/>x<img src=a/>", "<br/>'x'<img src=a/>"),
            ("</ x>y<?php x>z", "!</ x>'y''z'"),
            ("", ""),
        ] {
            assert_eq!(cut(text), expected, "{text}");
        }
    }
}
