//! Where a command line ends. Strict CRLF, in one place.

/// What the buffered bytes begin with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line {
    /// No whole line yet.
    Partial,
    /// A line of `length` octets, CRLF included.
    Whole { length: usize },
    /// `length` octets up to a line feed that hold a bare CR or LF.
    BareLineEnd { length: usize },
    /// More than `max` octets without an end: drop what is there and go on dropping to the next line feed.
    TooLong,
}

/// Looks for the first line. `max` counts CRLF.
pub fn next_line(bytes: &[u8], max: usize) -> Line {
    match memchr::memchr(b'\n', bytes) {
        None if bytes.len() > max => Line::TooLong,
        None => Line::Partial,
        Some(end) if end + 1 > max => Line::TooLong,
        Some(end) => {
            let length = end + 1;
            match bytes.get(..end).and_then(|line| line.strip_suffix(b"\r")) {
                Some(line) if memchr::memchr(b'\r', line).is_none() => Line::Whole { length },
                Some(_) | None => Line::BareLineEnd { length },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crlf_ends_a_line() {
        for (bytes, expected) in [
            (&b""[..], Line::Partial),
            (b"NOOP\r", Line::Partial),
            (b"NOOP\r\nQUIT", Line::Whole { length: 6 }),
            (b"NOOP\nQUIT\r\n", Line::BareLineEnd { length: 5 }),
            (b"NO\rOP\r\n", Line::BareLineEnd { length: 7 }),
            (b"NOOP\r\r\n", Line::BareLineEnd { length: 7 }),
            (b"123456789\r\n", Line::TooLong),
            (b"12345678901", Line::TooLong),
            (b"12345678\r\n", Line::Whole { length: 10 }),
        ] {
            assert_eq!(next_line(bytes, 10), expected, "{bytes:?}");
        }
    }
}
