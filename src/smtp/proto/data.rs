//! Message content on the wire: DATA's dots (RFC 5321 §4.5.2) and BDAT's chunks (RFC 3030).

/// Finds the end of DATA and takes its dots away, however the bytes are split. Content ends at CRLF.CRLF and nowhere
/// else; bare CRs and LFs are kept and noted.
#[derive(Clone, Debug)]
pub struct DotDecoder {
    state: State,
    saw_bare: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    LineStart,
    Middle,
    /// After a CR that is not yet known to be half of a CRLF.
    Cr,
    /// After a dot at the start of a line.
    Dot,
    /// After a dot and a CR at the start of a line.
    DotCr,
}

impl Default for DotDecoder {
    fn default() -> Self {
        Self { state: State::LineStart, saw_bare: false }
    }
}

impl DotDecoder {
    /// True if the content held a CR or LF that was no CRLF.
    pub fn saw_bare_line_end(&self) -> bool {
        self.saw_bare
    }

    /// Decodes `bytes` into `out`. `Some(n)`: the content ended after `n` of them; what follows is commands.
    pub fn decode(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            match (self.state, byte) {
                (State::LineStart, b'.') => {
                    self.state = State::Dot;
                    at += 1;
                }
                (State::LineStart, _) => self.state = State::Middle,
                (State::Middle, _) => {
                    let rest = bytes.get(at..).unwrap_or_default();
                    let run = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
                    out.extend_from_slice(rest.get(..run).unwrap_or_default());
                    match rest.get(run) {
                        Some(b'\r') => self.state = State::Cr,
                        Some(_) => {
                            out.push(b'\n');
                            self.saw_bare = true;
                        }
                        None => {}
                    }
                    at += run + usize::from(run < rest.len());
                }
                (State::Cr, b'\n') => {
                    out.extend_from_slice(b"\r\n");
                    self.state = State::LineStart;
                    at += 1;
                }
                (State::Cr, _) => self.keep_bare_cr(out),
                (State::Dot, b'\r') => {
                    self.state = State::DotCr;
                    at += 1;
                }
                (State::Dot, _) => self.state = State::Middle,
                (State::DotCr, b'\n') => return Some(at + 1),
                (State::DotCr, _) => self.keep_bare_cr(out),
            }
        }
        None
    }

    fn keep_bare_cr(&mut self, out: &mut Vec<u8>) {
        out.push(b'\r');
        self.saw_bare = true;
        self.state = State::Middle;
    }
}

/// Notes bare line ends in chunks, also where a CRLF is split between two.
#[derive(Clone, Debug, Default)]
pub struct ChunkChecker {
    after_cr: bool,
    saw_bare: bool,
}

impl ChunkChecker {
    pub fn check(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if self.after_cr {
                self.saw_bare |= !rest.starts_with(b"\n");
                self.after_cr = false;
                at += usize::from(rest.starts_with(b"\n"));
                continue;
            }
            match memchr::memchr2(b'\r', b'\n', rest) {
                None => return,
                Some(found) => {
                    let is_cr = rest.get(found) == Some(&b'\r');
                    self.after_cr = is_cr;
                    self.saw_bare |= !is_cr;
                    at += found + 1;
                }
            }
        }
    }

    /// Call after the last chunk.
    pub fn saw_bare_line_end(&self) -> bool {
        self.saw_bare || self.after_cr
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Content, whether bare line ends were seen, and what follows the end; the same however the input is split.
    fn decoded(wire: &[u8]) -> (String, bool, Option<String>) {
        let run = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let (mut decoder, mut out, mut rest) = (DotDecoder::default(), Vec::new(), None::<Vec<u8>>);
            for piece in pieces {
                match &mut rest {
                    Some(rest) => rest.extend_from_slice(piece),
                    None => rest = decoder.decode(piece, &mut out).map(|end| piece[end..].to_vec()),
                }
            }
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            (text(out), decoder.saw_bare_line_end(), rest.map(text))
        };
        let whole = run(&mut std::iter::once(wire));
        assert_eq!(run(&mut wire.chunks(1)), whole, "{wire:?}");
        for cut in 0..=wire.len() {
            assert_eq!(run(&mut [&wire[..cut], &wire[cut..]].into_iter()), whole, "{wire:?} at {cut}");
        }
        whole
    }

    #[test]
    fn dots_go_and_only_crlf_dot_crlf_ends() {
        for (wire, content, bare, rest) in [
            ("a\r\n.\r\nQUIT\r\n", "a\r\n", false, Some("QUIT\r\n")),
            (".\r\n", "", false, Some("")),
            ("..\r\n...a\r\n.\r\n", ".\r\n..a\r\n", false, Some("")),
            (".a\r\n.\r\n", "a\r\n", false, Some("")),
            ("a", "a", false, None),
            // Everything that other servers have taken for an end.
            ("a\n.\nMAIL\r\n.\r\n", "a\n.\nMAIL\r\n", true, Some("")),
            ("a\n.\r\nMAIL\r\n.\r\n", "a\n.\r\nMAIL\r\n", true, Some("")),
            ("a\r\n.\nMAIL\r\n.\r\n", "a\r\n\nMAIL\r\n", true, Some("")),
            ("a\r.\rMAIL\r\n.\r\n", "a\r.\rMAIL\r\n", true, Some("")),
            ("a\r\n.\rMAIL\r\n.\r\n", "a\r\n\rMAIL\r\n", true, Some("")),
            ("a\r\n.\r\r\nMAIL\r\n.\r\n", "a\r\n\r\r\nMAIL\r\n", true, Some("")),
            ("a\r\r\n.\r\n", "a\r\r\n", true, Some("")),
            ("a\0b\r\n.\r\n", "a\0b\r\n", false, Some("")),
        ] {
            let expected = (content.to_owned(), bare, rest.map(str::to_owned));
            assert_eq!(decoded(wire.as_bytes()), expected, "{wire:?}");
        }
    }

    #[test]
    fn random_input_reads_the_same_however_it_is_split() {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        for _ in 0..400 {
            let wire: Vec<u8> = (0..24)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    b".\r\na"[usize::try_from(state >> 62).unwrap()]
                })
                .collect();
            decoded(&wire);
        }
    }

    #[test]
    fn chunks_are_checked_across_their_borders() {
        for (text, bare) in
            [("a\r\nb", false), ("a\nb", true), ("a\rb", true), ("a\r", true), ("\r\r\n", true), ("", false)]
        {
            let mut whole = ChunkChecker::default();
            whole.check(text.as_bytes());
            let mut split = ChunkChecker::default();
            text.as_bytes().chunks(1).for_each(|byte| split.check(byte));
            assert_eq!((whole.saw_bare_line_end(), split.saw_bare_line_end()), (bare, bare), "{text:?}");
        }
    }
}
