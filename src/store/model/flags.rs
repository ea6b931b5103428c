//! System flags and keywords (RFC 9051 §2.3.2, RFC 8621 §4.1.1).

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A set of IMAP system flags. `\Recent` is a session's matter (and gone in IMAP4rev2), not stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, PartialOrd, Ord)]
pub struct SystemFlags(u8);

impl SystemFlags {
    pub const SEEN: Self = Self(1);
    pub const ANSWERED: Self = Self(2);
    pub const FLAGGED: Self = Self(4);
    pub const DELETED: Self = Self(8);
    pub const DRAFT: Self = Self(16);
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::ANSWERED, "\\Answered"),
        (Self::FLAGGED, "\\Flagged"),
        (Self::DELETED, "\\Deleted"),
        (Self::SEEN, "\\Seen"),
        (Self::DRAFT, "\\Draft"),
    ];

    /// Bits outside the known flags are dropped.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & 31)
    }
    pub const fn bits(self) -> u8 {
        self.0
    }
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// A keyword such as `$Forwarded` or `Work`. Keeps the case it was first written in; compares without it.
#[derive(Clone)]
pub struct Keyword(Box<str>);

impl Keyword {
    pub fn as_str(&self) -> &str {
        &self.0
    }
    fn folded(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.bytes().map(|b| b.to_ascii_lowercase())
    }
}

/// Not an IMAP atom of at most 100 characters, or it starts with a backslash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid keyword")]
pub struct InvalidKeyword;

impl FromStr for Keyword {
    type Err = InvalidKeyword;

    fn from_str(text: &str) -> Result<Self, InvalidKeyword> {
        let is_atom_char = |b: u8| b.is_ascii_graphic() && !b"(){%*\"\\]".contains(&b);
        if text.is_empty() || text.len() > 100 || !text.bytes().all(is_atom_char) {
            return Err(InvalidKeyword);
        }
        Ok(Self(text.into()))
    }
}

impl PartialEq for Keyword {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}
impl Eq for Keyword {}
impl Ord for Keyword {
    fn cmp(&self, other: &Self) -> Ordering {
        self.folded().cmp(other.folded())
    }
}
impl PartialOrd for Keyword {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl fmt::Debug for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All marks of one entry.
#[derive(Clone, PartialEq, Eq, Default, Debug, PartialOrd, Ord)]
pub struct Flags {
    pub system: SystemFlags,
    /// At most [`Flags::KEYWORDS_MAX`]; the store refuses to add more.
    pub keywords: BTreeSet<Keyword>,
}

impl Flags {
    pub const KEYWORDS_MAX: usize = 64;

    pub fn system(system: SystemFlags) -> Self {
        Self { system, keywords: BTreeSet::new() }
    }
}
