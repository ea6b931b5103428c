//! The scanner under the grammar: one step at a time over a complete command.

use std::borrow::Cow;

use store::{Flags, Keyword, SystemFlags};

/// Why a command cannot be read, as the client is told.
pub type Fault = &'static str;
pub type Scan<T> = Result<T, Fault>;

/// A position in a command. Literals stand in it as on the wire: `{5}`, CRLF, five octets.
#[derive(Clone)]
pub struct Scanner<'a> {
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    pub const fn new(command: &'a [u8]) -> Self {
        Self { rest: command }
    }

    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    pub const fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn end(&self) -> Scan<()> {
        if self.is_done() { Ok(()) } else { Err("unexpected text after the command") }
    }

    /// Steps over `byte` if it is next.
    pub fn take(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    pub fn expect(&mut self, byte: u8, fault: Fault) -> Scan<()> {
        if self.take(byte) { Ok(()) } else { Err(fault) }
    }

    pub fn space(&mut self) -> Scan<()> {
        self.expect(b' ', "a space is missing")
    }

    /// Steps over `word`, whatever its case, if it is next.
    pub fn take_word(&mut self, word: &str) -> bool {
        match self.rest.split_at_checked(word.len()) {
            Some((head, rest)) if head.eq_ignore_ascii_case(word.as_bytes()) => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    pub fn take_while(&mut self, holds: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|b| !holds(*b)).unwrap_or(self.rest.len());
        let (head, rest) = self.rest.split_at(end);
        self.rest = rest;
        head
    }

    pub fn atom(&mut self) -> Scan<&'a [u8]> {
        match self.take_while(is_atom_char) {
            [] => Err("an atom is missing"),
            atom => Ok(atom),
        }
    }

    /// An atom in upper case, for words of the language.
    pub fn keyword(&mut self) -> Scan<String> {
        let atom = self.atom()?;
        Ok(atom.iter().map(|b| char::from(b.to_ascii_uppercase())).collect())
    }

    pub fn number(&mut self) -> Scan<u64> {
        let digits = self.take_while(|b| b.is_ascii_digit());
        std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).ok_or("a number is missing or too large")
    }

    pub fn number32(&mut self) -> Scan<u32> {
        u32::try_from(self.number()?).map_err(|_| "a number is too large")
    }

    /// Quoted string or literal.
    pub fn string(&mut self) -> Scan<Cow<'a, [u8]>> {
        match self.peek() {
            Some(b'"') => self.quoted(),
            Some(b'{') => self.literal().map(Cow::Borrowed),
            _ => Err("a string is missing"),
        }
    }

    pub fn astring(&mut self) -> Scan<Cow<'a, [u8]>> {
        match self.peek() {
            Some(b'"' | b'{') => self.string(),
            _ => match self.take_while(|b| is_atom_char(b) || b == b']') {
                [] => Err("a string is missing"),
                atom => Ok(Cow::Borrowed(atom)),
            },
        }
    }

    /// A mailbox name of LIST, which may hold wildcards.
    pub fn list_pattern(&mut self) -> Scan<Cow<'a, [u8]>> {
        match self.peek() {
            Some(b'"' | b'{') => self.string(),
            _ => match self.take_while(|b| is_atom_char(b) || matches!(b, b']' | b'%' | b'*')) {
                [] => Err("a mailbox pattern is missing"),
                atom => Ok(Cow::Borrowed(atom)),
            },
        }
    }

    pub fn nstring(&mut self) -> Scan<Option<Cow<'a, [u8]>>> {
        if self.peek().is_some_and(|b| b == b'"' || b == b'{') {
            return self.string().map(Some);
        }
        if self.take_word("NIL") { Ok(None) } else { Err("a string or NIL is missing") }
    }

    fn quoted(&mut self) -> Scan<Cow<'a, [u8]>> {
        self.expect(b'"', "a string is missing")?;
        let plain = self.take_while(|b| !matches!(b, b'"' | b'\\' | b'\r' | b'\n' | 0));
        if self.take(b'"') {
            return Ok(Cow::Borrowed(plain));
        }
        let mut out = plain.to_vec();
        while self.take(b'\\') {
            match self.rest.split_first() {
                Some((byte @ (b'"' | b'\\'), rest)) => {
                    out.push(*byte);
                    self.rest = rest;
                }
                _ => return Err("a quoted string has a bad escape"),
            }
            out.extend_from_slice(self.take_while(|b| !matches!(b, b'"' | b'\\' | b'\r' | b'\n' | 0)));
        }
        self.expect(b'"', "a quoted string does not end")?;
        Ok(Cow::Owned(out))
    }

    fn literal(&mut self) -> Scan<&'a [u8]> {
        self.expect(b'{', "a literal is missing")?;
        let size = self.number()?;
        let _ = self.take(b'+');
        if !self.take_word("}\r\n") {
            return Err("a literal is broken");
        }
        let split = usize::try_from(size).ok().and_then(|size| self.rest.split_at_checked(size));
        let (text, rest) = split.ok_or("a literal is cut off")?;
        self.rest = rest;
        if text.contains(&0) {
            return Err("a literal holds NUL");
        }
        Ok(text)
    }

    /// `(` items, one space between them, `)`.
    pub fn list(&mut self, mut item: impl FnMut(&mut Self) -> Scan<()>) -> Scan<()> {
        self.expect(b'(', "a list is missing")?;
        if self.take(b')') {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.take(b')') {
                return Ok(());
            }
            self.space()?;
        }
    }

    /// One flag. `\Recent` and system flags that we do not know are read and dropped: a client may only send back what
    /// it was told, and must not fail for sending more.
    pub fn flag(&mut self, flags: &mut Flags) -> Scan<()> {
        if self.take(b'\\') {
            let name = self.atom()?;
            let known = SystemFlags::ALL.iter().find(|(_, known)| known.as_bytes()[1..].eq_ignore_ascii_case(name));
            if let Some((flag, _)) = known {
                flags.system = flags.system.with(*flag);
            }
            return Ok(());
        }
        // `]` is legal in keywords by some readings of the grammar and breaks response codes: not taken.
        let atom = self.atom()?;
        let keyword: Keyword = std::str::from_utf8(atom).ok().and_then(|t| t.parse().ok()).ok_or("a bad keyword")?;
        if flags.keywords.len() >= Flags::KEYWORDS_MAX && !flags.keywords.contains(&keyword) {
            return Err("too many keywords");
        }
        flags.keywords.insert(keyword);
        Ok(())
    }
}

/// RFC 3501 §9 `ATOM-CHAR`.
pub fn is_atom_char(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"(){%*\"\\]".contains(&byte)
}
