//! Command lines (RFC 5321 §4.1).

use std::time::Duration;

use mail::{
    Address, BodyKind, ForwardPath, HoldWish, InvalidAddress, NotifyWish, RecipientWish, Returns, ReversePath, Wishes,
};

/// A command as it was said; whether it fits now is the session's matter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    Helo(String),
    Ehlo(String),
    /// LMTP (RFC 2033).
    Lhlo(String),
    Mail(ReversePath, MailParameters),
    Rcpt(ForwardPath, RecipientWish),
    Data,
    /// Octets that follow, and whether they are the last (RFC 3030).
    Bdat(u64, bool),
    Rset,
    Noop,
    Quit,
    Vrfy,
    Expn,
    Help,
    StartTls,
    /// Mechanism in upper case, and the initial response as it stands on the line (RFC 4954).
    Auth(String, Option<String>),
    /// Attributes with decoded values.
    Xclient(Vec<(String, String)>),
}

/// What followed MAIL's path.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MailParameters {
    pub size: Option<u64>,
    pub body: BodyKind,
    pub smtputf8: bool,
    /// Each recipient is to be answered for by itself (PRDR, draft-hall-prdr).
    pub prdr: bool,
    /// Those of recipients are empty.
    pub wishes: Wishes,
}

/// Why a line is no command of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    UnknownCommand,
    /// What the command takes.
    Syntax(&'static str),
    Address(InvalidAddress),
    /// A parameter that we did not offer.
    Parameter(String),
    NotUtf8,
}

impl From<InvalidAddress> for Fault {
    fn from(error: InvalidAddress) -> Self {
        Self::Address(error)
    }
}

/// Parses a line without its CRLF.
pub fn parse(line: &[u8]) -> Result<Command, Fault> {
    let text = std::str::from_utf8(line).map_err(|_| Fault::NotUtf8)?;
    let text = text.trim_end_matches([' ', '\t']);
    let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
    let rest = rest.trim_start_matches(' ');
    let bare =
        |command| if rest.is_empty() { Ok(command) } else { Err(Fault::Syntax("the command takes no argument")) };
    match verb.to_ascii_uppercase().as_str() {
        "HELO" => host(rest).map(Command::Helo),
        "EHLO" => host(rest).map(Command::Ehlo),
        "LHLO" => host(rest).map(Command::Lhlo),
        "MAIL" => parse_mail(rest),
        "RCPT" => parse_rcpt(rest),
        "DATA" => bare(Command::Data),
        "BDAT" => parse_bdat(rest),
        "RSET" => bare(Command::Rset),
        "NOOP" => Ok(Command::Noop),
        "QUIT" => bare(Command::Quit),
        "VRFY" => Ok(Command::Vrfy),
        "EXPN" => Ok(Command::Expn),
        "HELP" => Ok(Command::Help),
        "STARTTLS" => bare(Command::StartTls),
        "AUTH" => parse_auth(rest),
        "XCLIENT" => parse_xclient(rest).map(Command::Xclient),
        _ => Err(Fault::UnknownCommand),
    }
}

/// Anything printable is taken: half the world greets with what it likes. The filter judges it.
fn host(text: &str) -> Result<String, Fault> {
    let name = text.split(' ').next().unwrap_or_default();
    if name.is_empty() || name.len() > 255 || name.chars().any(char::is_control) {
        return Err(Fault::Syntax("a host name is needed"));
    }
    Ok(name.to_owned())
}

/// Of ENVID.
const WISH_MAX: usize = 100;
/// Of ORCPT.
const ADDRESS_MAX: usize = 500;

fn parse_mail(rest: &str) -> Result<Command, Fault> {
    let (path, parameters) = split_path(rest, "FROM:")?;
    let reverse_path = if path.is_empty() { ReversePath::Null } else { ReversePath::Address(address(path)?) };
    let mut known = MailParameters::default();
    for parameter in parameters.split(' ').filter(|word| !word.is_empty()) {
        let (name, value) = parameter.split_once('=').map_or((parameter, None), |(name, value)| (name, Some(value)));
        match (name.to_ascii_uppercase().as_str(), value) {
            ("SIZE", Some(size)) => {
                let digits = size.len() <= 20 && size.bytes().all(|byte| byte.is_ascii_digit());
                let size = if digits { size.parse().ok() } else { None };
                known.size = Some(size.ok_or(Fault::Syntax("SIZE takes a number"))?);
            }
            ("BODY", Some(body)) if body.eq_ignore_ascii_case("7BIT") => known.body = BodyKind::SevenBit,
            ("BODY", Some(body)) if body.eq_ignore_ascii_case("8BITMIME") => known.body = BodyKind::EightBitMime,
            ("SMTPUTF8", None) => known.smtputf8 = true,
            ("RET", Some(what)) => {
                known.wishes.returns = Some(match what.to_ascii_uppercase().as_str() {
                    "FULL" => Returns::Message,
                    "HDRS" => Returns::Header,
                    _ => return Err(Fault::Syntax("RET is FULL or HDRS")),
                });
            }
            ("ENVID", Some(id)) => {
                let id = xtext(id).filter(|id| (1..=WISH_MAX).contains(&id.len()));
                known.wishes.envelope_id =
                    Some(id.ok_or(Fault::Syntax("ENVID takes xtext of 100 characters at most"))?);
            }
            ("PRDR", None) => known.prdr = true,
            ("REQUIRETLS", None) => known.wishes.requiretls = true,
            ("HOLDFOR", Some(seconds)) if known.wishes.hold.is_none() => {
                let digits = (1..=9).contains(&seconds.len()) && seconds.bytes().all(|byte| byte.is_ascii_digit());
                let seconds = if digits { seconds.parse().ok() } else { None };
                let seconds = seconds.ok_or(Fault::Syntax("HOLDFOR takes a number of seconds"))?;
                known.wishes.hold = Some(HoldWish::For(Duration::from_secs(seconds)));
            }
            ("HOLDUNTIL", Some(time)) if known.wishes.hold.is_none() => {
                let time = mail::date::parse_utc(time).ok_or(Fault::Syntax("HOLDUNTIL takes a time as in RFC 3339"))?;
                known.wishes.hold = Some(HoldWish::Until(time));
            }
            // RFC 4954 §5: whom the client says it relays for. Nothing here rests on it.
            ("AUTH", Some(_)) => {}
            _ => return Err(Fault::Parameter(parameter.chars().take(100).collect())),
        }
    }
    Ok(Command::Mail(reverse_path, known))
}

fn parse_rcpt(rest: &str) -> Result<Command, Fault> {
    let (path, parameters) = split_path(rest, "TO:")?;
    let mut wish = RecipientWish::default();
    for parameter in parameters.split(' ').filter(|word| !word.is_empty()) {
        let (name, value) = parameter.split_once('=').map_or((parameter, None), |(name, value)| (name, Some(value)));
        match (name.to_ascii_uppercase().as_str(), value) {
            ("NOTIFY", Some(words)) => wish.notify = Some(notify(words)?),
            ("ORCPT", Some(text)) => {
                let fault = Fault::Syntax("ORCPT takes an address type, a semicolon and xtext");
                let (kind, address) = text.split_once(';').ok_or(fault.clone())?;
                let is_kind =
                    (1..40).contains(&kind.len()) && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
                let address =
                    xtext(address).filter(|text| is_kind && (1..=ADDRESS_MAX).contains(&text.len())).ok_or(fault)?;
                wish.original = Some(format!("{};{address}", kind.to_ascii_lowercase()));
            }
            _ => return Err(Fault::Parameter(parameter.chars().take(100).collect())),
        }
    }
    if path.eq_ignore_ascii_case("postmaster") {
        return Ok(Command::Rcpt(ForwardPath::Postmaster, wish));
    }
    Ok(Command::Rcpt(ForwardPath::Address(address(path)?), wish))
}

/// RFC 3461 §4.1.
fn notify(words: &str) -> Result<NotifyWish, Fault> {
    let mut wish = NotifyWish::default();
    if words.eq_ignore_ascii_case("NEVER") {
        return Ok(wish);
    }
    for word in words.split(',') {
        match word.to_ascii_uppercase().as_str() {
            "SUCCESS" => wish.success = true,
            "FAILURE" => wish.failure = true,
            "DELAY" => wish.delay = true,
            _ => return Err(Fault::Syntax("NOTIFY is NEVER, or SUCCESS, FAILURE and DELAY")),
        }
    }
    Ok(wish)
}

/// Decodes RFC 3461 §4's xtext, or what RFC 6533 §3 lets stand as it is; without control characters.
fn xtext(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'+' {
            out.push(*first);
            continue;
        }
        let hex = std::str::from_utf8(rest.get(..2)?).ok()?;
        out.push(u8::from_str_radix(hex, 16).ok().filter(|_| !hex.starts_with('+'))?);
        rest = rest.get(2..)?;
    }
    String::from_utf8(out).ok().filter(|text| !text.chars().any(char::is_control))
}

/// The path between angle brackets and what follows it.
fn split_path<'a>(rest: &'a str, keyword: &str) -> Result<(&'a str, &'a str), Fault> {
    let wanted = if keyword == "FROM:" { "MAIL FROM:<address> is needed" } else { "RCPT TO:<address> is needed" };
    let fault = Fault::Syntax(wanted);
    let (head, path) = rest.split_at_checked(keyword.len()).ok_or(fault.clone())?;
    if !head.eq_ignore_ascii_case(keyword) {
        return Err(fault);
    }
    // A space after the colon is wrong and common.
    let path = path.trim_start_matches(' ').strip_prefix('<').ok_or(fault.clone())?;
    // A quoted local part may hold an angle bracket.
    let mut quoted = false;
    let mut escaped = false;
    for (at, character) in path.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if !quoted => {
                let (path, rest) = path.split_at(at);
                let rest = rest.strip_prefix('>').unwrap_or_default();
                return if rest.is_empty() || rest.starts_with(' ') { Ok((path, rest)) } else { Err(fault) };
            }
            _ => {}
        }
    }
    Err(fault)
}

/// A source route before the address is dropped (RFC 5321 §4.1.1.3).
fn address(path: &str) -> Result<Address, InvalidAddress> {
    let address = match path.strip_prefix('@') {
        Some(route) => route.split_once(':').map_or(path, |(_, address)| address),
        None => path,
    };
    address.parse()
}

fn parse_bdat(rest: &str) -> Result<Command, Fault> {
    let fault = Fault::Syntax("BDAT takes a size and may say LAST");
    let (size, last) = match rest.split_once(' ') {
        None => (rest, false),
        Some((size, word)) if word.trim().eq_ignore_ascii_case("LAST") => (size, true),
        Some(_) => return Err(fault),
    };
    let digits = (1..=19).contains(&size.len()) && size.bytes().all(|byte| byte.is_ascii_digit());
    let size = if digits { size.parse().ok() } else { None };
    size.map(|size| Command::Bdat(size, last)).ok_or(fault)
}

fn parse_auth(rest: &str) -> Result<Command, Fault> {
    let (mechanism, initial) = rest.split_once(' ').map_or((rest, None), |(name, initial)| (name, Some(initial)));
    if mechanism.is_empty() || mechanism.len() > 20 {
        return Err(Fault::Syntax("AUTH takes a mechanism"));
    }
    Ok(Command::Auth(mechanism.to_ascii_uppercase(), initial.map(|initial| initial.trim().to_owned())))
}

/// `NAME=value` pairs with xtext values (RFC 3461 §4).
pub fn parse_xclient(rest: &str) -> Result<Vec<(String, String)>, Fault> {
    let fault = Fault::Syntax("XCLIENT takes NAME=value pairs");
    let mut pairs = Vec::new();
    for word in rest.split(' ').filter(|word| !word.is_empty()) {
        let (name, value) = word.split_once('=').ok_or(fault.clone())?;
        let mut decoded = Vec::new();
        let mut bytes = value.bytes();
        while let Some(byte) = bytes.next() {
            if byte != b'+' {
                decoded.push(byte);
                continue;
            }
            let digits = [bytes.next().ok_or(fault.clone())?, bytes.next().ok_or(fault.clone())?];
            let digits = std::str::from_utf8(&digits).map_err(|_| fault.clone())?;
            decoded.push(u8::from_str_radix(digits, 16).map_err(|_| fault.clone())?);
        }
        let value = String::from_utf8(decoded).map_err(|_| fault.clone())?;
        if value.chars().any(char::is_control) {
            return Err(fault);
        }
        pairs.push((name.to_ascii_uppercase(), value));
    }
    if pairs.is_empty() { Err(fault) } else { Ok(pairs) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A short text for what a line means.
    fn meaning(line: &[u8]) -> String {
        match parse(line) {
            Ok(Command::Mail(path, p)) if p.wishes != Wishes::default() => {
                let Wishes { returns, envelope_id, requiretls, hold, .. } = p.wishes;
                format!("mail {path} {returns:?} {envelope_id:?} {requiretls} {hold:?}")
            }
            Ok(Command::Mail(path, p)) => format!("mail {path} {:?} {:?} {}", p.size, p.body, p.smtputf8),
            Ok(Command::Rcpt(path, wish)) if wish == RecipientWish::default() => format!("rcpt {path}"),
            Ok(Command::Rcpt(path, wish)) => format!("rcpt {path} {:?} {:?}", wish.notify, wish.original),
            Ok(command) => format!("{command:?}"),
            Err(fault) => format!("{fault:?}"),
        }
    }

    #[test]
    fn lines_mean_what_they_say() {
        for (line, expected) in [
            ("EHLO mx.example.test", "Ehlo(\"mx.example.test\")"),
            ("ehlo [192.0.2.1] junk", "Ehlo(\"[192.0.2.1]\")"),
            ("HELO", "Syntax(\"a host name is needed\")"),
            ("MAIL FROM:<>", "mail  None SevenBit false"),
            ("mail from:<a@b.test> size=10 BODY=8BITMIME SMTPUTF8", "mail a@b.test Some(10) EightBitMime true"),
            ("MAIL FROM: <a@b.test>", "mail a@b.test None SevenBit false"),
            ("MAIL FROM:<@x.test,@y.test:a@b.test>", "mail a@b.test None SevenBit false"),
            ("MAIL FROM:<\"a>b\"@c.test>", "mail \"a>b\"@c.test None SevenBit false"),
            ("MAIL FROM:a@b.test", "Syntax(\"MAIL FROM:<address> is needed\")"),
            ("MAIL FROM:<a@b.test>X", "Syntax(\"MAIL FROM:<address> is needed\")"),
            ("MAIL FROM:<a@b.test", "Syntax(\"MAIL FROM:<address> is needed\")"),
            ("MAIL FROM:<a@b..test>", "Address(Domain)"),
            ("MAIL FROM:<a@b.test> RET=hdrs ENVID=a+2Bb", "mail a@b.test Some(Header) Some(\"a+b\") false None"),
            ("MAIL FROM:<a@b.test> REQUIRETLS HOLDFOR=60", "mail a@b.test None None true Some(For(60s))"),
            ("MAIL FROM:<a@b.test> RET=SOME", "Syntax(\"RET is FULL or HDRS\")"),
            ("MAIL FROM:<a@b.test> ENVID=a+0Ab", "Syntax(\"ENVID takes xtext of 100 characters at most\")"),
            ("MAIL FROM:<a@b.test> HOLDFOR=-1", "Syntax(\"HOLDFOR takes a number of seconds\")"),
            ("MAIL FROM:<a@b.test> HOLDUNTIL=soon", "Syntax(\"HOLDUNTIL takes a time as in RFC 3339\")"),
            ("MAIL FROM:<a@b.test> RETURN=x", "Parameter(\"RETURN=x\")"),
            ("MAIL FROM:<a@b.test> SIZE=-1", "Syntax(\"SIZE takes a number\")"),
            ("MAIL FROM:<a@b.test> BODY=BINARYMIME", "Parameter(\"BODY=BINARYMIME\")"),
            ("RCPT TO:<Postmaster>", "rcpt postmaster"),
            ("RCPT TO:<a@b.test> ", "rcpt a@b.test"),
            ("RCPT TO:<>", "Address(NoAt)"),
            (
                "RCPT TO:<a@b.test> NOTIFY=never",
                "rcpt a@b.test Some(NotifyWish { success: false, failure: false, delay: false }) None",
            ),
            (
                "RCPT TO:<a@b.test> notify=SUCCESS,delay ORCPT=RFC822;c+2Bd@e.test",
                "rcpt a@b.test Some(NotifyWish { success: true, failure: false, delay: true }) Some(\"rfc822;c+d@e.test\")",
            ),
            ("RCPT TO:<a@b.test> NOTIFY=NEVER,DELAY", "Syntax(\"NOTIFY is NEVER, or SUCCESS, FAILURE and DELAY\")"),
            ("RCPT TO:<a@b.test> ORCPT=a@b.test", "Syntax(\"ORCPT takes an address type, a semicolon and xtext\")"),
            ("RCPT TO:<a@b.test> WHY=x", "Parameter(\"WHY=x\")"),
            ("DATA now", "Syntax(\"the command takes no argument\")"),
            ("BDAT 10 LAST", "Bdat(10, true)"),
            ("BDAT 0", "Bdat(0, false)"),
            ("BDAT 10 FIRST", "Syntax(\"BDAT takes a size and may say LAST\")"),
            ("BDAT +1", "Syntax(\"BDAT takes a size and may say LAST\")"),
            ("AUTH plain =", "Auth(\"PLAIN\", Some(\"=\"))"),
            (
                "XCLIENT NAME=a+2Bb ADDR=IPv6:2001:db8::1",
                "Xclient([(\"NAME\", \"a+b\"), (\"ADDR\", \"IPv6:2001:db8::1\")])",
            ),
            ("XCLIENT NAME=a+0Db", "Syntax(\"XCLIENT takes NAME=value pairs\")"),
            ("NOOP anything", "Noop"),
            ("GET / HTTP/1.1", "UnknownCommand"),
            ("", "UnknownCommand"),
        ] {
            assert_eq!(meaning(line.as_bytes()), expected, "{line}");
        }
        assert_eq!(meaning(b"NOOP \xFF"), "NotUtf8");
    }

    #[test]
    fn damaged_lines_never_panic() {
        let seeds = [
            "MAIL FROM:<\"a\\\"b\"@c.test> SIZE=10",
            "RCPT TO:<@a:b@c>",
            "RCPT TO:<a@b.test> NOTIFY=SUCCESS ORCPT=rfc822;a+2Bb@c",
            "MAIL FROM:<a@b.test> RET=FULL ENVID=x+2B HOLDUNTIL=2026-01-01T00:00:00Z",
            "XCLIENT NAME=+2B",
            "BDAT 1 LAST",
            "AUTH X =",
            "ehlo p\u{e4}ul",
        ];
        for seed in seeds {
            for at in 0..seed.len() {
                for byte in [0u8, b' ', b'<', b'>', b'"', b'\\', b'+', b'@', 0xC3, 0xFF] {
                    let mut line = seed.as_bytes().to_vec();
                    line[at] = byte;
                    let _ = parse(&line);
                    let _ = parse(&line[..at]);
                    line.remove(at);
                    let _ = parse(&line);
                }
            }
        }
    }
}
