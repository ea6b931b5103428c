//! Commands from lines (RFC 1939 §9, RFC 2449, RFC 2595, RFC 5034, RFC 6856).

use base::Secret;

#[derive(Debug)]
pub enum Command {
    Capa,
    Stls,
    Utf8,
    User(String),
    Pass(Secret<String>),
    /// Without a mechanism it asks for the list. `initial` is still in base 64; `=` stands for an empty one.
    Auth {
        mechanism: Option<String>,
        initial: Option<Secret<String>>,
    },
    Quit,
    Noop,
    Stat,
    Rset,
    List(Option<usize>),
    Uidl(Option<usize>),
    Retr(usize),
    Dele(usize),
    Top(usize, u64),
}

/// Reads a line without its end. The error is for the client.
pub fn parse(line: &[u8]) -> Result<Command, &'static str> {
    let text = std::str::from_utf8(line).map_err(|_| "not text")?;
    let (name, rest) = text.split_once(' ').map_or((text, None), |(name, rest)| (name, Some(rest)));
    let mut words = rest.unwrap_or_default().split_ascii_whitespace();
    let mut number = || words.next().map(|word| word.parse().map_err(|_| "a message number is expected")).transpose();
    let name = name.to_ascii_uppercase();
    let command = match name.as_str() {
        // The rest of the line as it stands: names and passwords may hold spaces.
        "USER" => return Ok(Command::User(rest.ok_or("a name is missing")?.to_owned())),
        "PASS" => return Ok(Command::Pass(Secret::new(rest.ok_or("a password is missing")?.to_owned()))),
        "AUTH" => {
            let mechanism = words.next().map(str::to_ascii_uppercase);
            Command::Auth { mechanism, initial: words.next().map(|text| Secret::new(text.to_owned())) }
        }
        "CAPA" => Command::Capa,
        "STLS" => Command::Stls,
        "UTF8" => Command::Utf8,
        "QUIT" => Command::Quit,
        "NOOP" => Command::Noop,
        "STAT" => Command::Stat,
        "RSET" => Command::Rset,
        "LIST" => Command::List(number()?),
        "UIDL" => Command::Uidl(number()?),
        "RETR" => Command::Retr(number()?.ok_or("a message number is missing")?),
        "DELE" => Command::Dele(number()?.ok_or("a message number is missing")?),
        "TOP" => {
            let message = number()?.ok_or("a message number is missing")?;
            let lines = words.next().and_then(|word| word.parse().ok()).ok_or("a number of lines is missing")?;
            Command::Top(message, lines)
        }
        _ => return Err("unknown command"),
    };
    if words.next().is_some() { Err("too many arguments") } else { Ok(command) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        for (line, expected) in [
            ("capa", "Capa"),
            ("USER a b", "User(\"a b\")"),
            ("PASS  x ", "Pass([secret])"),
            ("AUTH", "Auth { mechanism: None, initial: None }"),
            ("auth plain AGE=", "Auth { mechanism: Some(\"PLAIN\"), initial: Some([secret]) }"),
            ("LIST", "List(None)"),
            ("LIST 2", "List(Some(2))"),
            ("TOP 1 0", "Top(1, 0)"),
        ] {
            assert_eq!(format!("{:?}", parse(line.as_bytes()).unwrap()), expected);
        }
        for line in
            ["", "XYZ", "USER", "RETR", "RETR x", "RETR -1", "TOP 1", "LIST 1 2", "DELE 99999999999999999999999"]
        {
            assert!(parse(line.as_bytes()).is_err(), "{line}");
        }
        assert!(parse(b"USER \xff").is_err());
    }

    #[test]
    fn mutations_never_panic() {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let seeds: [&[u8]; 4] = [b"TOP 1 10", b"AUTH PLAIN AGE=", b"USER anna", b"LIST 3"];
        for round in 0..20_000 {
            let mut line = seeds[round % seeds.len()].to_vec();
            for _ in 0..3 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let at = usize::try_from(state >> 40).unwrap() % line.len();
                line[at] = state.to_le_bytes()[1];
            }
            let _ = parse(&line);
        }
    }
}
