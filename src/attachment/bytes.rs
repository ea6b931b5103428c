//! Reads numbers and slices of foreign octets; past the end there is nothing, never a panic.

/// A place in octets that moves on as it is read.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub const fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    /// At `at` of `data`; beyond its end nothing can be read.
    pub const fn at(data: &'a [u8], at: usize) -> Self {
        Self { data, at }
    }

    pub const fn position(&self) -> usize {
        self.at
    }

    pub fn rest(&self) -> &'a [u8] {
        self.data.get(self.at..).unwrap_or_default()
    }

    pub fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let slice = self.data.get(self.at..end)?;
        self.at = end;
        Some(slice)
    }

    pub fn skip(&mut self, length: usize) -> Option<()> {
        self.take(length).map(drop)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A `u32` that counts octets or places here.
    pub fn size(&mut self) -> Option<usize> {
        self.u32().map(to_size)
    }

    /// Text up to a NUL, without it; to the end where there is none.
    pub fn until_nul(&mut self) -> &'a [u8] {
        let rest = self.rest();
        let end = memchr::memchr(0, rest).unwrap_or(rest.len());
        self.at = self.at.saturating_add(end).saturating_add(1).min(self.data.len());
        rest.get(..end).unwrap_or_default()
    }
}

/// A foreign size as a size here; what does not fit is larger than anything we hold.
pub fn to_size(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or(usize::MAX)
}

/// UTF-16LE as text, what does not fit replaced.
pub fn utf16(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).filter_map(|pair| pair.try_into().ok().map(u16::from_le_bytes));
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// Octets of a name in a charset nobody tells: UTF-8 if they are, else code page 437's neighbour Windows-1252. File
/// extensions that matter are ASCII in all of them.
pub fn unknown_text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => encoding_rs::WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned(),
    }
}

/// True if `needle` is in `data`, letters of either case being alike. `needle` is lower case ASCII.
pub fn contains_ignoring_case(data: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else { return true };
    memchr::memchr2_iter(*first, first.to_ascii_uppercase(), data)
        .any(|at| data.get(at..at + needle.len()).is_some_and(|found| found.eq_ignore_ascii_case(needle)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_stops_at_the_end() {
        let mut cursor = Cursor::new(&[1, 0, 2, 0, 0, 0, b'a', 0, b'b']);
        assert_eq!((cursor.u16(), cursor.u32()), (Some(1), Some(2)));
        assert_eq!((cursor.until_nul(), cursor.until_nul(), cursor.until_nul()), (&b"a"[..], &b"b"[..], &b""[..]));
        assert_eq!((cursor.u8(), cursor.skip(usize::MAX)), (None, None));
        assert_eq!(Cursor::at(b"x", 7).rest(), b"");
    }

    #[test]
    fn texts() {
        assert_eq!(utf16(b"a\0\xe4\0\x00\xd8"), "a\u{e4}\u{fffd}");
        assert_eq!(unknown_text("\u{fc}.exe".as_bytes()), "\u{fc}.exe");
        assert!(unknown_text(b"\x81\x8e.exe").ends_with(".exe"));
        assert!(contains_ignoring_case(b"a <ScRipt>", b"<script") && !contains_ignoring_case(b"<scrip", b"<script"));
    }
}
