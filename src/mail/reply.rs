//! Replies of SMTP servers, as a client reads them (RFC 5321 §4.2).

use crate::status::{Enhanced, Status};

/// A reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    pub code: u16,
    /// Without code and mark.
    pub lines: Vec<String>,
}

/// Lines of one reply; more is no reply.
pub const REPLY_LINES_MAX: usize = 200;
/// Characters of a reply that are kept.
const TEXT_MAX: usize = 300;

/// One line of a reply: its code, whether it is the last, its text. `None`: it is none.
pub fn reply_line(line: &[u8]) -> Option<(u16, bool, String)> {
    let text = String::from_utf8_lossy(line);
    let code = text.get(..3)?.parse::<u16>().ok().filter(|code| (200..600).contains(code))?;
    let is_last = match text.get(3..4).unwrap_or(" ") {
        "-" => false,
        " " => true,
        _ => return None,
    };
    Some((code, is_last, text.get(4..).unwrap_or_default().to_owned()))
}

impl Reply {
    pub fn is_success(&self) -> bool {
        self.code / 100 == 2
    }

    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// As we answer or note it: code, enhanced code if it has one, text of all lines.
    pub fn status(&self) -> Status {
        let class = match self.code / 100 {
            2 => 2,
            5 => 5,
            _ => 4,
        };
        // What ends their session does not end ours.
        let code = match self.code {
            421 => 451,
            code if code / 100 == u16::from(class) => code,
            _ => 451,
        };
        let mut found = None;
        let mut words: Vec<&str> = Vec::new();
        for line in &self.lines {
            match line.split_once(' ').and_then(|(word, text)| Some((enhanced(word)?, text))) {
                Some((mark, text)) if mark.0 == class => {
                    found = Some(mark);
                    words.push(text);
                }
                _ => words.push(line),
            }
        }
        let text: String = words.join(" ").chars().take(TEXT_MAX).collect();
        Status::with_text(code, found.unwrap_or(Enhanced(class, 0, 0)), &text)
    }

    pub fn describe(&self) -> String {
        format!("{} {}", self.code, self.lines.last().map(String::as_str).unwrap_or_default())
    }
}

/// RFC 2034 §4.
fn enhanced(word: &str) -> Option<Enhanced> {
    let mut parts = word.split('.');
    let (class, subject, detail) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    Some(Enhanced(class.parse().ok()?, subject.parse().ok()?, detail.parse().ok()?))
}

/// What was offered in answer to EHLO or LHLO: keyword and parameters, in capitals.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Offers(Vec<Vec<String>>);

impl Offers {
    pub fn new(answer: &Reply) -> Self {
        let words = |line: &String| line.split_ascii_whitespace().map(str::to_ascii_uppercase).collect();
        Self(answer.lines.iter().skip(1).map(words).collect())
    }

    pub fn of(&self, keyword: &str) -> Option<&[String]> {
        self.0.iter().find(|words| words.first().is_some_and(|word| word == keyword)).and_then(|words| words.get(1..))
    }

    pub fn has(&self, keyword: &str) -> bool {
        self.of(keyword).is_some()
    }
}

/// Appends part of a message as it goes after DATA: lines that begin with a dot get another one (RFC 5321 §4.5.2). The
/// part begins at the beginning of a line and ends at the end of one.
pub fn stuff_dots(part: &[u8], out: &mut Vec<u8>) {
    for line in part.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(lines: &[&str]) -> Reply {
        let mut reply = Reply { code: 0, lines: Vec::new() };
        for (at, line) in lines.iter().enumerate() {
            let (code, is_last, text) = reply_line(line.as_bytes()).unwrap();
            assert_eq!(is_last, at + 1 == lines.len());
            reply.code = code;
            reply.lines.push(text);
        }
        reply
    }

    #[test]
    fn replies_are_read() {
        for (lines, expected) in [
            (&["250 2.1.5 Ok"][..], "250 2.1.5 Ok"),
            (&["250"], "250 2.0.0 "),
            (&["421 4.7.0 Go away"], "451 4.7.0 Go away"),
            (&["550-5.7.1 Not", "550 5.7.1 you"], "550 5.7.1 Not you"),
            (&["550-See", "550 5.1.1 http://x.test"], "550 5.1.1 See http://x.test"),
            (&["550 4.1.1 strange"], "550 5.0.0 4.1.1 strange"),
            (&["354 go"], "451 4.0.0 go"),
        ] {
            assert_eq!(reply(lines).status().to_string(), expected, "{lines:?}");
        }
        for line in ["", "25", "25x hello", "999 x", "250+x", "ä50 x"] {
            assert_eq!(reply_line(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn offers_are_found() {
        let offers = Offers::new(&reply(&["250-mx.example.test", "250-size 1000", "250 AUTH plain LOGIN"]));
        assert_eq!(offers.of("SIZE"), Some(&["1000".to_owned()][..]));
        assert!(offers.has("AUTH") && !offers.has("MX.EXAMPLE.TEST") && !offers.has("PIPELINING"));
    }

    #[test]
    fn dots_are_doubled() {
        let mut out = Vec::new();
        stuff_dots(b".a\r\nb.\r\n..\r\n", &mut out);
        assert_eq!(out, b"..a\r\nb.\r\n...\r\n");
    }
}
