//! The two stretches of APPEND around its message, which the framer meets before the command is complete.

use mail::date;
use store::Flags;

use super::parse::tag;
use super::scan::{Scan, Scanner};
use super::types::{AppendHead, AppendOptions, RawName};

/// What a command that stops before a literal is.
#[derive(Debug, PartialEq, Eq)]
pub enum Before {
    /// The literal is the message of this APPEND.
    Message(AppendHead),
    /// Any other command or argument: the literal is part of it.
    Argument,
    /// An APPEND that cannot be: its literal is not worth taking.
    Broken { tag: String, fault: &'static str },
}

/// Looks at a command up to the `{` of a literal.
pub fn before_literal(command: &[u8]) -> Before {
    let mut scanner = Scanner::new(command);
    let Ok(tag) = tag(&mut scanner) else { return Before::Argument };
    if !(scanner.take(b' ') && scanner.take_word("APPEND ")) || scanner.is_done() {
        return Before::Argument;
    }
    match head(&mut scanner) {
        Ok((mailbox, options)) => Before::Message(AppendHead { tag, mailbox, options }),
        Err(fault) => Before::Broken { tag, fault },
    }
}

/// Looks at what stands between one message of APPEND and the literal of the next (RFC 3502).
pub fn between_messages(text: &[u8]) -> Scan<AppendOptions> {
    let mut scanner = Scanner::new(text);
    scanner.space()?;
    options(&mut scanner)
}

fn head(scanner: &mut Scanner<'_>) -> Scan<(RawName, AppendOptions)> {
    let mailbox = RawName(scanner.astring()?.into_owned());
    scanner.space()?;
    Ok((mailbox, options(scanner)?))
}

fn options(scanner: &mut Scanner<'_>) -> Scan<AppendOptions> {
    let mut options = AppendOptions::default();
    if scanner.peek() == Some(b'(') {
        let mut flags = Flags::default();
        scanner.list(|s| s.flag(&mut flags))?;
        options.flags = flags;
        scanner.space()?;
    }
    if scanner.peek() == Some(b'"') {
        let text = scanner.string()?;
        let date = std::str::from_utf8(&text).ok().and_then(date::parse_internal);
        options.internal_date = Some(date.ok_or("a bad date-time")?);
        scanner.space()?;
    }
    scanner.end()?;
    Ok(options)
}
