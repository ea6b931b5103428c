//! Header fields as raw bytes (RFC 5322 §2.2), without ever losing one.

/// One header field, borrowed from the message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeaderField<'a> {
    /// The whole field with its folded lines and its line end.
    pub raw: &'a [u8],
    /// As written, without the colon; empty when the line is no field at all.
    pub name: &'a [u8],
    /// What follows the colon, folds and line end included.
    pub value: &'a [u8],
    /// Where `raw` starts in the message.
    pub offset: usize,
}

impl<'a> HeaderField<'a> {
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value on one line: line breaks removed, white space at both ends trimmed.
    pub fn unfolded(&self) -> Vec<u8> {
        let mut out: Vec<u8> = self.value.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
        out.truncate(out.trim_ascii_end().len());
        let lead = out.len() - out.trim_ascii_start().len();
        out.drain(..lead);
        out
    }
}

/// Walks the header fields of a message, which may use CRLF or LF. Ends at the empty line, which it does not give.
#[derive(Clone)]
pub struct HeaderFields<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> HeaderFields<'a> {
    pub const fn of(message: &'a [u8]) -> Self {
        Self { message, at: 0 }
    }
}

impl<'a> Iterator for HeaderFields<'a> {
    type Item = HeaderField<'a>;

    fn next(&mut self) -> Option<HeaderField<'a>> {
        let start = self.at;
        let rest = self.message.get(start..)?;
        if rest.is_empty() || rest.starts_with(b"\r\n") || rest.starts_with(b"\n") {
            return None;
        }
        let mut end = line_end(rest, 0);
        while matches!(rest.get(end), Some(b' ' | b'\t')) {
            end = line_end(rest, end);
        }
        self.at = start + end;
        let raw = &rest[..end];
        let (name, value) = match memchr::memchr(b':', raw) {
            Some(colon) => (raw[..colon].trim_ascii_end(), &raw[colon + 1..]),
            None => (&raw[..0], raw),
        };
        Some(HeaderField { raw, name, value, offset: start })
    }
}

/// Where the body starts: after the empty line, or at the end of a message that has none.
pub fn body_offset(message: &[u8]) -> usize {
    let mut fields = HeaderFields::of(message);
    fields.by_ref().for_each(drop);
    let rest = message.get(fields.at..).unwrap_or_default();
    let gap = if rest.starts_with(b"\r\n") { 2 } else { usize::from(rest.starts_with(b"\n")) };
    fields.at + gap
}

/// Index after the line that contains `from`.
fn line_end(bytes: &[u8], from: usize) -> usize {
    memchr::memchr(b'\n', &bytes[from..]).map_or(bytes.len(), |at| from + at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(message: &str) -> Vec<String> {
        HeaderFields::of(message.as_bytes()).map(|f| String::from_utf8_lossy(f.name).into_owned()).collect()
    }

    #[test]
    fn fields_fold_and_end() {
        let message = "A: 1\r\n 2\r\nb : x\r\nnonsense\r\n\r\nC: body\r\n";
        assert_eq!(names(message), ["A", "b", ""]);
        assert_eq!(HeaderFields::of(message.as_bytes()).next().unwrap().unfolded(), b"1 2");
        assert_eq!(&message[body_offset(message.as_bytes())..], "C: body\r\n");
        let raw: Vec<u8> = HeaderFields::of(message.as_bytes()).flat_map(|f| f.raw.to_vec()).collect();
        assert!(message.as_bytes().starts_with(&raw));
    }

    #[test]
    fn header_without_body_and_bare_lf() {
        assert_eq!(names("A: 1\n\tx\nB: 2"), ["A", "B"]);
        assert_eq!(body_offset(b"A: 1"), 4);
        assert_eq!(body_offset(b"\nbody"), 1);
        assert_eq!(names(""), Vec::<String>::new());
    }
}
