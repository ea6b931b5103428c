//! Display names and addresses in header fields, read as SpamAssassin's rules expect them of broken fields too.

use crate::url;

/// One entry of an address field. At least one of the two is there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mailbox {
    /// Undecoded, without quotes.
    pub name: Option<String>,
    pub address: Option<String>,
}

const ENTRIES_MAX: usize = 1000;

/// All entries of a raw field's value.
pub fn parse(value: &str) -> Vec<Mailbox> {
    let value = value.trim_end().replace("\\\\", "");
    let mut rest = without_group(&value);
    let mut out = Vec::new();
    while !rest.trim_start().is_empty() && out.len() < ENTRIES_MAX {
        let Some((entry, after)) = entry(rest.trim_start()) else { break };
        out.push(entry);
        rest = after;
    }
    if rest.contains('@') {
        // What could not be read may still hold addresses in brackets.
        for piece in rest.split('<').skip(1).take(ENTRIES_MAX) {
            if let Some((address, _)) = piece.split_once('>').filter(|(address, _)| is_address(address)) {
                out.push(Mailbox { name: None, address: Some(address.to_owned()) });
            }
        }
    }
    out
}

/// `group: a@b, c@d;` loses its name.
fn without_group(value: &str) -> &str {
    let end = value.find(['"', '(', ')', '<', '>']).unwrap_or(value.len());
    match value[..end].rfind(':') {
        Some(at) if at > 0 => value[at + 1..].trim_start(),
        _ => value,
    }
}

fn entry(text: &str) -> Option<(Mailbox, &str)> {
    let phrase_end = phrase(text);
    let (phrase, rest) = text.split_at(phrase_end);
    let rest = rest.trim_start();
    if let Some(inside) = rest.strip_prefix('<')
        && let Some((address, comment, after)) = bracketed(inside)
    {
        let address = address.filter(|address| is_address(address) && is_plausible(address));
        return Some((finished((!phrase.is_empty()).then_some(phrase), address, comment), after));
    }
    let address_end = address_at(text);
    if address_end > 0
        && let Some((comment, after)) = tail(&text[address_end..])
    {
        let address = text[..address_end].to_owned();
        let address = is_plausible(&address).then_some(address);
        return Some((finished(None, address, comment), after));
    }
    if phrase_end > 0
        && let Some((comment, after)) = tail(&text[phrase_end..])
    {
        return Some((finished(Some(phrase), None, comment), after));
    }
    None
}

/// Quoted pieces and what is no `"`, comma, semicolon or `<`.
fn phrase(text: &str) -> usize {
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        match first {
            '"' => match quoted(&text[at..]) {
                Some(length) => at += length,
                None => break,
            },
            ',' | ';' | '<' => break,
            other => at += other.len_utf8(),
        }
    }
    at
}

/// Length of a quoted string at the start.
fn quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// What stands in `<…>`, after its opening: the address, a comment after it, the rest. The last bracket that leaves
/// a readable rest closes.
fn bracketed(inside: &str) -> Option<(Option<String>, Option<&str>, &str)> {
    let start = inside.trim_start();
    if let Some(after) = start.strip_prefix('>') {
        let (comment, after) = tail(skip_brackets(after))?;
        return Some((None, comment, after));
    }
    let at_sign = start.find(['@', '>']).unwrap_or(start.len());
    let run_end = start[at_sign..].find(char::is_whitespace).map_or(start.len(), |end| at_sign + end);
    let spaced = start[run_end..].trim_start();
    let closes_later = spaced.strip_prefix('>').map(|after| (run_end, after));
    let in_run = start[..run_end].rmatch_indices('>').map(|(at, _)| (at, &start[at + 1..]));
    for (end, after) in closes_later.into_iter().chain(in_run).take(20) {
        if let Some((comment, after)) = tail(skip_brackets(after)) {
            let address = without_comments(start[..end].trim());
            return Some((Some(address), comment, after));
        }
    }
    None
}

/// Some write the address twice: `<a@b> <a@b>`.
fn skip_brackets(text: &str) -> &str {
    let mut rest = text;
    while let Some(inside) = rest.trim_start().strip_prefix('<') {
        let Some((address, after)) = inside.split_once('>') else { break };
        if address.trim().contains(char::is_whitespace) {
            break;
        }
        rest = after;
    }
    rest
}

/// An optional comment, then a comma, a semicolon or the end.
fn tail(text: &str) -> Option<(Option<&str>, &str)> {
    let end = |text: &str| -> Option<usize> {
        let rest = text.trim_start();
        let skipped = text.len() - rest.len();
        if rest.is_empty() { Some(skipped) } else { rest.starts_with([',', ';']).then_some(skipped + 1) }
    };
    let start = text.trim_start();
    if let Some(inside) = start.strip_prefix('(')
        && let Some((comment, after)) = inside.split_once(')')
        && !comment.contains('(')
        && let Some(at) = end(after)
    {
        return Some((Some(comment), &after[at..]));
    }
    end(text).map(|at| (None, &text[at..]))
}

/// Length of an address at the start, 0 without one.
fn address_at(text: &str) -> usize {
    let user = if text.starts_with('"') {
        quoted(text).unwrap_or(0)
    } else {
        text.find(|c: char| c.is_whitespace() || "@<>()[],:;".contains(c)).unwrap_or(text.len())
    };
    let Some(domain) = text[user..].strip_prefix('@').filter(|_| user > 0) else { return 0 };
    let end = match domain.strip_prefix('[') {
        Some(literal) => {
            let end = literal.find(|c: char| !(c.is_ascii_digit() || matches!(c, ':' | '.'))).unwrap_or(literal.len());
            if end > 0 && literal[end..].starts_with(']') { end + 2 } else { 0 }
        }
        None => domain.find(|c: char| c.is_whitespace() || "\"<>()[],:;".contains(c)).unwrap_or(domain.len()),
    };
    if end == 0 { 0 } else { user + 1 + end }
}

fn is_address(text: &str) -> bool {
    !text.is_empty() && address_at(text) == text.len()
}

fn is_plausible(address: &str) -> bool {
    !address.starts_with("\"\"@") && address.matches('"').count() != 1
}

fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('(') {
        let Some(end) = rest[at..].find(')') else { break };
        out.push_str(&rest[..at]);
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    out
}

fn finished(phrase: Option<&str>, address: Option<String>, comment: Option<&str>) -> Mailbox {
    let mut address = address;
    let mut name = phrase.map(unquoted);
    if let Some(shown) = &name {
        let swap = address.is_none()
            && is_address(shown)
            && is_plausible(shown)
            && shown.rsplit_once('@').is_some_and(|(_, host)| url::is_host_name(host));
        if swap {
            address = name.take();
        } else if shown.is_empty() || address.as_deref() == Some(shown) {
            name = None;
        }
    }
    let name = name.or_else(|| comment.map(str::to_owned));
    // `a@b@c` is cut before the second sign.
    let address = address.map(|address| match address.match_indices('@').nth(1) {
        Some((at, _)) => address[..at].to_owned(),
        None => address,
    });
    Mailbox { name, address }
}

/// Quotes and backslashes of quoted pieces go, comments of the others.
fn unquoted(phrase: &str) -> String {
    let mut out = String::with_capacity(phrase.len());
    let mut rest = phrase;
    while !rest.is_empty() {
        match rest.strip_prefix('"').and_then(|_| quoted(rest)) {
            Some(length) => {
                out.push_str(&rest[1..length - 1].replace('\\', ""));
                rest = &rest[length..];
            }
            None => {
                let end = rest.find('"').filter(|at| *at > 0).unwrap_or(rest.len());
                out.push_str(&without_comments(&rest[..end]));
                rest = &rest[end..];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        let long = format!("{}@x.example", "<".repeat(3000));
        for (value, expected) in [
            ("a@x.example", "|a@x.example"),
            ("a@x.example (Ann), b@y.example", "Ann|a@x.example; |b@y.example"),
            ("Ann B <a@x.example>", "Ann B |a@x.example"),
            ("\"B, Ann\" <a@x.example>, <b@y.example>", "B, Ann |a@x.example; |b@y.example"),
            ("friends: a@x.example, b@y.example;", "|a@x.example; |b@y.example"),
            ("\"a@x.example\"<>", "|a@x.example"),
            ("undisclosed recipients", "undisclosed recipients|"),
            ("<a@x.example> <a@x.example>", "|a@x.example"),
            ("\"x\\\"y\" <a@x.example>", "x\"y |a@x.example"),
            ("Ann <a@x.example", ""),
            ("=?utf-8?q?\"A\"?=<a@x.example>", "=?utf-8?q?A?=|a@x.example"),
            (&long, ""),
        ] {
            let seen: Vec<String> = parse(value)
                .iter()
                .map(|m| {
                    format!("{}|{}", m.name.as_deref().unwrap_or_default(), m.address.as_deref().unwrap_or_default())
                })
                .collect();
            assert_eq!(seen.join("; "), expected, "{value}");
        }
    }
}
