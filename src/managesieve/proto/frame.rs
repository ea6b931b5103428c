//! Where a command ends: at the end of a line that announces no literal (RFC 5804 §4).

use bytes::{Bytes, BytesMut};

/// What the buffered octets begin with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// No whole command yet.
    Partial,
    /// Lines and literals, without the last line's end.
    Command(Bytes),
    /// More than [`COMMAND_MAX`] octets, or a literal that will be: what follows cannot be told apart.
    TooLong,
}

/// Longest command with its literals. Nobody uploads scripts before sign-in.
pub const COMMAND_MAX: usize = 16 * 1024;

/// Takes the first command out of `input`. A client's literals are sent without asking, `{12+}`; `{12}` is taken as one too.
pub fn next(input: &mut BytesMut) -> Frame {
    let mut at = 0;
    loop {
        let rest = input.get(at..).unwrap_or_default();
        let Some(end) = memchr::memchr(b'\n', rest) else {
            return if input.len() > COMMAND_MAX { Frame::TooLong } else { Frame::Partial };
        };
        let line = rest.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line_end = at + line.len();
        at += end + 1;
        let Some(size) = literal_size(line) else {
            if line_end > COMMAND_MAX {
                return Frame::TooLong;
            }
            let whole = input.split_to(at).freeze();
            return Frame::Command(whole.slice(..line_end));
        };
        at = at.saturating_add(size);
        if at > COMMAND_MAX {
            return Frame::TooLong;
        }
        if at > input.len() {
            return Frame::Partial;
        }
    }
}

/// `{12+}` at the end of a line.
pub(super) fn literal_size(line: &[u8]) -> Option<usize> {
    let start = memchr::memrchr(b'{', line)?;
    let digits = line.get(start + 1..)?.strip_suffix(b"}")?;
    let digits = digits.strip_suffix(b"+").unwrap_or(digits);
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    // A number that is too large stands for one that is larger than all.
    is_number.then(|| std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_end_after_their_literals() {
        for (input, expected, left) in [
            (&b"NOOP\r\nLOG"[..], Frame::Command(Bytes::from_static(b"NOOP")), &b"LOG"[..]),
            (b"NOOP\n", Frame::Command(Bytes::from_static(b"NOOP")), b""),
            (b"NOOP {3+}\r\na\r\n\r\nx", Frame::Command(Bytes::from_static(b"NOOP {3+}\r\na\r\n")), b"x"),
            (b"NOOP {3+}\r\nab", Frame::Partial, b"NOOP {3+}\r\nab"),
            (b"NOOP", Frame::Partial, b"NOOP"),
            (b"A {999999+}\r\n", Frame::TooLong, b"A {999999+}\r\n"),
            (b"A {99999999999999999999999+}\r\n", Frame::TooLong, b"A {99999999999999999999999+}\r\n"),
            (b"A {x}\r\n", Frame::Command(Bytes::from_static(b"A {x}")), b""),
        ] {
            let mut buffer = BytesMut::from(input);
            assert_eq!((next(&mut buffer), &buffer[..]), (expected, left), "{input:?}");
        }
        assert_eq!(next(&mut BytesMut::from(&[b'x'; COMMAND_MAX + 1][..])), Frame::TooLong);
    }
}
