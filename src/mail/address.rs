//! Envelope addresses (RFC 5321 §4.1.2, RFC 6531 §3.3). Header addresses are text and live in `mime`.

use std::fmt;
use std::str::FromStr;

/// A domain as it goes on the wire: A-labels, lower case, no trailing dot; or an address literal `[192.0.2.1]`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Box<str>);

impl Domain {
    /// A-label form, lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For people: U-labels where the A-labels decode, else as on the wire.
    pub fn to_unicode(&self) -> String {
        let (text, outcome) = idna::domain_to_unicode(&self.0);
        if outcome.is_ok() { text } else { self.0.to_string() }
    }

    pub fn is_literal(&self) -> bool {
        self.0.starts_with('[')
    }
}

impl FromStr for Domain {
    type Err = InvalidAddress;

    /// Takes A-labels or U-labels, a trailing dot, or an address literal. At most 255 octets, 63 for a label.
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address = inner.strip_prefix("IPv6:").or_else(|| inner.strip_prefix("ipv6:")).unwrap_or(inner);
            return address
                .parse::<std::net::IpAddr>()
                .map(|_| Self(text.to_ascii_lowercase().replace("[ipv6:", "[IPv6:").into()))
                .map_err(|_| InvalidAddress::Domain);
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        let ascii = if text.is_ascii() {
            text.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii(text).map_err(|_| InvalidAddress::Domain)?
        };
        let label_fits = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if ascii.len() > 255 || !ascii.split('.').all(label_fits) {
            return Err(InvalidAddress::Domain);
        }
        Ok(Self(ascii.into()))
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The part before the `@`, without quoting: `john doe` stands for `"john doe"`. Case is kept.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalPart(Box<str>);

const LOCAL_MAX: usize = 250;

impl LocalPart {
    /// Without quotes and escapes, case kept.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Lower case: how the directory compares (Deviation: RFC 5321 §2.4 lets case matter; no user expects it).
    pub fn to_folded(&self) -> String {
        self.0.to_lowercase()
    }

    /// Any text that fits, quoted or not on the wire: at most 250 octets, no control characters. (Deviation: RFC 5321
    /// §4.5.3.1.1 has 64, and wishes for no limit; reverse-paths of forwarded mail are longer.)
    pub fn from_unquoted(text: &str) -> Result<Self, InvalidAddress> {
        if text.is_empty() || text.len() > LOCAL_MAX || text.chars().any(char::is_control) {
            return Err(InvalidAddress::LocalPart);
        }
        Ok(Self(text.into()))
    }

    fn is_dot_string(&self) -> bool {
        is_dot_string(&self.0)
    }
}

impl fmt::Display for LocalPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_dot_string() {
            return f.write_str(&self.0);
        }
        f.write_str("\"")?;
        for character in self.0.chars() {
            if matches!(character, '"' | '\\') {
                f.write_str("\\")?;
            }
            write!(f, "{character}")?;
        }
        f.write_str("\"")
    }
}

impl fmt::Debug for LocalPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `local-part@domain`. Displays as on the wire, quoted where needed.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    pub local: LocalPart,
    pub domain: Domain,
}

impl Address {
    /// Local part and domain in lower case: the key under which the directory finds it.
    pub fn to_folded(&self) -> String {
        format!("{}@{}", self.local.to_folded(), self.domain)
    }

    /// True if the address cannot be sent to a server without SMTPUTF8 (RFC 6531).
    pub fn needs_smtputf8(&self) -> bool {
        !self.local.as_str().is_ascii()
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    /// Reads `local@domain` or `"quoted local"@domain`, without angle brackets. At most 320 octets.
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        if text.len() > 320 {
            return Err(InvalidAddress::TooLong);
        }
        let (local, domain) = if text.starts_with('"') {
            let (local, rest) = unquote(text)?;
            (LocalPart::from_unquoted(&local)?, rest.strip_prefix('@').ok_or(InvalidAddress::NoAt)?)
        } else {
            let (local, domain) = text.rsplit_once('@').ok_or(InvalidAddress::NoAt)?;
            if !is_dot_string(local) {
                return Err(InvalidAddress::LocalPart);
            }
            (LocalPart::from_unquoted(local)?, domain)
        };
        Ok(Self { local, domain: domain.parse()? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// MAIL FROM: where failure notices go. Displays without angle brackets; the null path as an empty string.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ReversePath {
    /// `<>`: notices and other mail that must not be answered (RFC 5321 §4.5.5).
    Null,
    Address(Address),
}

impl ReversePath {
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Null => None,
            Self::Address(address) => Some(address),
        }
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().map_or(Ok(()), |address| address.fmt(f))
    }
}

/// RCPT TO.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ForwardPath {
    /// `<Postmaster>` without a domain: every server takes it (RFC 5321 §4.5.1).
    Postmaster,
    Address(Address),
}

impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postmaster => f.write_str("postmaster"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    #[error("the address has no @")]
    NoAt,
    #[error("the part before the @ is not valid")]
    LocalPart,
    #[error("the domain is not valid")]
    Domain,
    #[error("the address is too long")]
    TooLong,
}

/// RFC 5321 §4.1.2 `Dot-string`, with RFC 6531's UTF-8.
fn is_dot_string(text: &str) -> bool {
    let is_atom = |atom: &str| {
        !atom.is_empty()
            && atom.chars().all(|c| {
                c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || (!c.is_ascii() && !c.is_control())
            })
    };
    text.split('.').all(is_atom)
}

/// RFC 5321 §4.1.2 `Quoted-string`: the unescaped text and what follows the closing quote.
fn unquote(text: &str) -> Result<(String, &str), InvalidAddress> {
    let mut out = String::new();
    let mut rest = text.strip_prefix('"').ok_or(InvalidAddress::LocalPart)?.chars();
    while let Some(character) = rest.next() {
        match character {
            '"' => return Ok((out, rest.as_str())),
            '\\' => out.push(rest.next().filter(|c| !c.is_control()).ok_or(InvalidAddress::LocalPart)?),
            c if c.is_control() => return Err(InvalidAddress::LocalPart),
            c => out.push(c),
        }
    }
    Err(InvalidAddress::LocalPart)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_and_write() {
        for (text, written) in [
            ("anna@Example.ORG", "anna@example.org"),
            ("Anna.B+tag@example.org.", "Anna.B+tag@example.org"),
            ("\"john doe\"@example.org", "\"john doe\"@example.org"),
            ("\"plain\"@example.org", "plain@example.org"),
            ("\"a\\\"b@c\"@example.org", "\"a\\\"b@c\"@example.org"),
            ("p\u{e4}ul@b\u{fc}cher.example", "p\u{e4}ul@xn--bcher-kva.example"),
            ("a@[192.0.2.1]", "a@[192.0.2.1]"),
            ("a@[IPv6:2001:db8::1]", "a@[IPv6:2001:db8::1]"),
        ] {
            let address: Address = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(address.to_string(), written);
            assert_eq!(written.parse::<Address>().as_ref(), Ok(&address));
        }
    }

    #[test]
    fn what_is_no_address() {
        let long = format!("{}@example.org", "x".repeat(251));
        for text in [
            "",
            "anna",
            "@example.org",
            "anna@",
            "a b@example.org",
            ".a@example.org",
            "a..b@example.org",
            "a@-x.org",
            "a@x..org",
            "a@[300.1.1.1]",
            "\"a@example.org",
            "\"a\"b@example.org",
            "a\r\n@example.org",
            "a@ex ample.org",
            &long,
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
