//! Commands from frames (RFC 5804 §2, §4).

use base::Secret;

use super::frame::literal_size;

#[derive(Debug, PartialEq)]
pub enum Command {
    /// `initial` is still in base 64.
    Authenticate {
        mechanism: String,
        initial: Option<Secret<String>>,
    },
    StartTls,
    Logout,
    Capability,
    /// With what the client wants to hear again.
    Noop(Option<String>),
    /// One that needs a sign-in.
    Other,
}

/// Reads a frame. The error is for the client.
pub fn parse(frame: &[u8]) -> Result<Command, &'static str> {
    let end = frame.iter().position(|octet| matches!(octet, b' ' | b'\r' | b'\n')).unwrap_or(frame.len());
    let (name, rest) = frame.split_at(end);
    let name = name.to_ascii_uppercase();
    let mut rest = rest;
    let command = match name.as_slice() {
        b"AUTHENTICATE" => {
            let mechanism = text(string(&mut rest)?.ok_or("a mechanism is missing")?)?.to_ascii_uppercase();
            let initial = string(&mut rest)?.map(text).transpose()?.map(Secret::new);
            Command::Authenticate { mechanism, initial }
        }
        b"NOOP" => Command::Noop(string(&mut rest)?.map(text).transpose()?),
        b"STARTTLS" => Command::StartTls,
        b"LOGOUT" => Command::Logout,
        b"CAPABILITY" => Command::Capability,
        b"HAVESPACE" | b"PUTSCRIPT" | b"LISTSCRIPTS" | b"SETACTIVE" | b"GETSCRIPT" | b"DELETESCRIPT"
        | b"RENAMESCRIPT" | b"CHECKSCRIPT" | b"UNAUTHENTICATE" => return Ok(Command::Other),
        _ => return Err("Unknown command"),
    };
    if rest.trim_ascii().is_empty() { Ok(command) } else { Err("Too many arguments") }
}

/// A frame that is one string: the answer to a challenge.
pub fn parse_string(frame: &[u8]) -> Result<Secret<String>, &'static str> {
    let mut rest = frame;
    let found = string(&mut rest)?.ok_or("A string is expected")?;
    if rest.trim_ascii().is_empty() { text(found).map(Secret::new) } else { Err("One string is expected") }
}

fn text(octets: Vec<u8>) -> Result<String, &'static str> {
    String::from_utf8(octets).map_err(|_| "Text is in UTF-8")
}

/// Takes a quoted string or a literal; `None` at the end.
fn string(rest: &mut &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    const BROKEN: &str = "A string is expected";
    let trimmed = rest.trim_ascii_start();
    match trimmed.first() {
        None => {
            *rest = trimmed;
            Ok(None)
        }
        Some(b'"') => {
            let mut out = Vec::new();
            let mut octets = trimmed.iter().enumerate().skip(1);
            while let Some((at, octet)) = octets.next() {
                match octet {
                    b'"' => {
                        *rest = trimmed.get(at + 1..).unwrap_or_default();
                        return Ok(Some(out));
                    }
                    b'\\' => out.push(*octets.next().ok_or(BROKEN)?.1),
                    b'\r' | b'\n' | 0 => return Err(BROKEN),
                    octet => out.push(*octet),
                }
            }
            Err(BROKEN)
        }
        Some(b'{') => {
            let end = memchr::memchr(b'\n', trimmed).ok_or(BROKEN)?;
            let head = trimmed.get(..end).unwrap_or_default();
            let size = literal_size(head.strip_suffix(b"\r").unwrap_or(head)).ok_or(BROKEN)?;
            let content = trimmed.get(end + 1..).unwrap_or_default();
            let (literal, after) = content.split_at_checked(size).ok_or(BROKEN)?;
            *rest = after;
            Ok(Some(literal.to_vec()))
        }
        Some(_) => Err(BROKEN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        for (frame, expected) in [
            ("authenticate \"plain\"", "Authenticate { mechanism: \"PLAIN\", initial: None }"),
            ("AUTHENTICATE \"PLAIN\" \"AGE=\"", "Authenticate { mechanism: \"PLAIN\", initial: Some([secret]) }"),
            ("AUTHENTICATE \"PLAIN\" {4+}\r\nAGE=", "Authenticate { mechanism: \"PLAIN\", initial: Some([secret]) }"),
            ("NOOP", "Noop(None)"),
            ("Noop \"a \\\"b\\\\\"", "Noop(Some(\"a \\\"b\\\\\"))"),
            ("NOOP {3+}\r\na\r\n", "Noop(Some(\"a\\r\\n\"))"),
            ("STARTTLS", "StartTls"),
            ("LOGOUT ", "Logout"),
            ("PUTSCRIPT \"x\" {1+}\r\nx", "Other"),
        ] {
            assert_eq!(format!("{:?}", parse(frame.as_bytes()).unwrap()), expected);
        }
        for frame in [
            "",
            "XYZ",
            "AUTHENTICATE",
            "AUTHENTICATE PLAIN",
            "AUTHENTICATE \"PLAIN",
            "AUTHENTICATE \"a\" \"b\" \"c\"",
            "NOOP {9+}\r\nx",
            "NOOP \"a\\",
            "LOGOUT now",
            "NOOP {x}\r\n",
        ] {
            assert!(parse(frame.as_bytes()).is_err(), "{frame}");
        }
        assert!(parse(b"NOOP \"\xff\"").is_err());
        assert_eq!(parse_string(b"\"AGE=\"").unwrap().reveal(), "AGE=");
        assert_eq!(parse_string(b"{4+}\r\nAGE=").unwrap().reveal(), "AGE=");
        assert!(parse_string(b"AGE=").is_err() && parse_string(b"\"a\" b").is_err() && parse_string(b"").is_err());
    }
}
