//! A message on its way out: dots doubled, or only its top.

/// Doubles dots at the start of lines and ends the message (RFC 1939 §3).
pub struct Stuffer {
    at_line_start: bool,
    ends_with_crlf: bool,
    last: u8,
}

impl Default for Stuffer {
    fn default() -> Self {
        Self { at_line_start: true, ends_with_crlf: true, last: 0 }
    }
}

impl Stuffer {
    /// Appends a piece of the message. A bare LF begins a line too: many clients read it so, and would take a dot after
    /// it for the end.
    pub fn push(&mut self, out: &mut Vec<u8>, piece: &[u8]) {
        let mut rest = piece;
        while !rest.is_empty() {
            if self.at_line_start && rest.first() == Some(&b'.') {
                out.push(b'.');
            }
            let end = memchr::memchr(b'\n', rest).map(|at| at + 1);
            let (line, later) = rest.split_at(end.unwrap_or(rest.len()));
            out.extend_from_slice(line);
            self.at_line_start = end.is_some();
            let before = line.len().checked_sub(2).and_then(|at| line.get(at)).copied().unwrap_or(self.last);
            self.ends_with_crlf = self.at_line_start && before == b'\r';
            self.last = line.last().copied().unwrap_or(self.last);
            rest = later;
        }
    }

    /// The line end that the message may lack, and the final dot.
    pub fn finish(self, out: &mut Vec<u8>) {
        if !self.ends_with_crlf {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
    }
}

/// Cuts a message after its header and so many lines of its body (RFC 1939 §7).
pub struct Top {
    lines_left: u64,
    in_header: bool,
    /// Nothing but perhaps a CR so far in this line.
    line_is_empty: bool,
}

impl Top {
    pub const fn new(lines: u64) -> Self {
        Self { lines_left: lines, in_header: true, line_is_empty: true }
    }

    /// How much of the next piece belongs to the top, and whether the top ends there.
    pub fn take(&mut self, piece: &[u8]) -> (usize, bool) {
        if !self.in_header && self.lines_left == 0 {
            return (0, true);
        }
        for (at, byte) in piece.iter().enumerate() {
            match byte {
                b'\n' => {
                    if !self.in_header {
                        self.lines_left -= 1;
                    } else if self.line_is_empty {
                        self.in_header = false;
                    }
                    self.line_is_empty = true;
                    if !self.in_header && self.lines_left == 0 {
                        return (at + 1, true);
                    }
                }
                b'\r' => {}
                _ => self.line_is_empty = false,
            }
        }
        (piece.len(), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stuffed(message: &str) -> String {
        let run = |step: usize| {
            let mut out = Vec::new();
            let mut stuffer = Stuffer::default();
            message.as_bytes().chunks(step).for_each(|piece| stuffer.push(&mut out, piece));
            stuffer.finish(&mut out);
            String::from_utf8(out).unwrap()
        };
        let whole = run(message.len().max(1));
        for step in 1..=message.len() {
            assert_eq!(run(step), whole, "{step}");
        }
        whole
    }

    #[test]
    fn dots_are_doubled_wherever_the_message_is_split() {
        for (message, expected) in [
            ("", ".\r\n"),
            ("a\r\n", "a\r\n.\r\n"),
            ("a", "a\r\n.\r\n"),
            (".\r\n..\r\na.b\r\n", "..\r\n...\r\na.b\r\n.\r\n"),
            ("a\n.\r\n", "a\n..\r\n.\r\n"),
            ("a\n", "a\n\r\n.\r\n"),
        ] {
            assert_eq!(stuffed(message), expected);
        }
    }

    #[test]
    fn tops() {
        let top = |message: &str, lines: u64, step: usize| {
            let mut out = String::new();
            let mut top = Top::new(lines);
            for piece in message.as_bytes().chunks(step) {
                let (length, done) = top.take(piece);
                out.push_str(std::str::from_utf8(&piece[..length]).unwrap());
                if done {
                    break;
                }
            }
            out
        };
        let message = "A: 1\r\nB: 2\r\n\r\none\r\n\r\nthree";
        for step in 1..=message.len() {
            assert_eq!(top(message, 0, step), "A: 1\r\nB: 2\r\n\r\n");
            assert_eq!(top(message, 2, step), "A: 1\r\nB: 2\r\n\r\none\r\n\r\n");
            assert_eq!(top(message, 9, step), message);
            assert_eq!(top("A: 1", 0, step), "A: 1");
        }
    }
}
