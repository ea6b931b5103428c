//! One link in all forms under which it may be looked for.

use std::net::Ipv4Addr;

use super::links::Redirectors;

/// Targets inside targets, and forms of one link.
const TARGETS_MAX: usize = 8;

/// The link and its forms: escapes and numeric hosts decoded, default ports and users left out, targets of
/// redirectors with theirs. Empty for what is no link. Each once.
pub fn forms(url: &str, redirectors: &Redirectors) -> Vec<String> {
    let mut open = vec![url.to_owned()];
    let mut out: Vec<String> = Vec::new();
    let mut next = 0;
    while let Some(url) = open.get(next).cloned() {
        next += 1;
        let url: String = url.trim().chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
        let is_relative = url.starts_with(['#', '?', '&']) || (url.starts_with('/') && !url.starts_with("//"));
        if url.len() > 1 && !is_relative {
            let found = if is_mail(&url) { mail(&url) } else { web(&url, redirectors, &mut open) };
            push(&mut out, url);
            found.into_iter().for_each(|form| push(&mut out, form));
        } else {
            push(&mut out, url);
        }
        open.truncate(TARGETS_MAX);
    }
    out.retain(|url| !url.is_empty());
    out
}

fn push(out: &mut Vec<String>, url: String) {
    if !out.contains(&url) {
        out.push(url);
    }
}

fn is_mail(url: &str) -> bool {
    let before = url.split('@').next().filter(|before| before.len() < url.len());
    starts(url, "mailto:") || before.is_some_and(|before| !before.contains(':'))
}

fn starts(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

/// Without what follows the address, and without what hides it.
fn mail(url: &str) -> Vec<String> {
    let mut out = Vec::new();
    for mark in ['?', '&'] {
        if let Some((address, _)) = url.split_once(mark).filter(|(address, _)| address.contains('@')) {
            out.push(address.to_owned());
        }
    }
    let bare = url.get(7..).filter(|_| starts(url, "mailto:")).unwrap_or(url);
    if url.contains("%20") {
        let mut bare = bare;
        while let Some(rest) = bare.strip_prefix("%20") {
            bare = rest;
        }
        let at = bare.find('@').unwrap_or(bare.len());
        let end = bare[at..].find(['?', '&', '%']).map_or(bare.len(), |end| at + end);
        if end > at + 1 {
            out.push(format!("mailto:{}", &bare[..end]));
        }
    }
    if let Some((_, inside)) = url.split_once('<')
        && let Some((address, _)) = inside.split_once('>').filter(|(address, _)| address.contains('@'))
    {
        out.push(format!("mailto:{address}"));
    }
    out
}

fn web(url: &str, redirectors: &Redirectors, open: &mut Vec<String>) -> Vec<String> {
    let mut out = Vec::new();
    let mut form = url.replace('\\', "/");
    for scheme in ["http:", "https:"] {
        if starts(&form, scheme) {
            let rest = form[scheme.len()..].trim_start_matches('/');
            let slashes = (form.len() - scheme.len() - rest.len()).saturating_sub(2);
            form = format!("{}//{}{rest}", &form[..scheme.len()], "/".repeat(slashes));
        }
    }
    if form.contains('%') {
        form = unescaped(&form);
    }
    let scheme = form.split(':').next().unwrap_or_default();
    let has_scheme = scheme.len() < form.len()
        && !scheme.is_empty()
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if !has_scheme {
        form.insert_str(0, if form.starts_with("ftp.") { "ftp://" } else { "http://" });
    }
    let Some(scheme_end) = ["http://", "https://"].iter().find(|s| starts(&form, s)).map(|s| s.len()) else {
        if form != url {
            out.push(form);
        }
        return out;
    };
    // A query right after the host has no path.
    if let Some(at) = form[scheme_end..].find(['/', '?', '#']).map(|at| at + scheme_end)
        && at > scheme_end
        && !form[at..].starts_with('/')
    {
        form.insert(at, '/');
    }
    form = without_references(&form);
    if form != url {
        out.push(form.clone());
    }
    hosts(&form, scheme_end, redirectors, open, &mut out);
    out
}

/// Forms of the host.
fn hosts(form: &str, scheme_end: usize, redirectors: &Redirectors, open: &mut Vec<String>, out: &mut Vec<String>) {
    let (scheme, after) = form.split_at(scheme_end);
    let authority_end = after.find(['/', '?', '#']).unwrap_or(after.len());
    let user_end = after[..authority_end].find('@').map_or(0, |at| at + 1);
    let (user, after) = after.split_at(user_end);
    let host_end = after.find(['/', '?', '#', ':']).unwrap_or(after.len());
    let (host, rest) = after.split_at(host_end);
    if host.is_empty() {
        return;
    }
    let port = rest.strip_prefix(':').map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default());
    let default = if scheme == "http://" { "80" } else { "443" };
    if port == Some(default) {
        out.push(format!("{scheme}{host}{}", &rest[1 + default.len()..]));
    }
    let whole = format!("{scheme}{host}{rest}");
    match redirectors.target(&whole).or_else(|| inner_target(rest)) {
        Some(target) if open.len() < TARGETS_MAX => open.push(target),
        _ => {}
    }
    if !user.is_empty() {
        out.push(whole);
    }
    let clean = host.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    if clean.len() < host.len() {
        out.push(format!("{scheme}{clean}{rest}"));
    }
    if let Some(address) = numeric(clean) {
        out.push(format!("{scheme}{address}{rest}"));
    } else if scheme == "http://" && user.is_empty() && matches!(port, None | Some("" | "80")) {
        let name = clean.to_ascii_lowercase();
        let name = name.strip_prefix("www.").unwrap_or(&name);
        if !name.is_empty() && !name.contains('.') && name != "localhost" {
            out.push(format!("{scheme}www.{name}.com{rest}"));
        }
    }
}

/// A whole URL in another's path or query, up to `&` or `#`.
fn inner_target(rest: &str) -> Option<String> {
    let lower = rest.to_ascii_lowercase();
    let at = ["http:", "https:"].iter().filter_map(|scheme| lower.find(scheme)).min()?;
    let target = &rest[at..];
    let end = target.find(['&', '#']).unwrap_or(target.len());
    target[..end].contains('.').then(|| target[..end].to_owned())
}

/// `%41` for printable characters decoded; what must be escaped is.
pub fn unescaped(url: &str) -> String {
    let bytes = url.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let code = bytes.get(at + 1..at + 3).filter(|_| *byte == b'%').and_then(|digits| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 16).ok().filter(|_| digits.iter().all(u8::is_ascii_hexdigit))
        });
        match code {
            Some(code) if (0x21..0x7f).contains(&code) => {
                out.push(code);
                at += 3;
            }
            Some(_) => {
                out.extend_from_slice(bytes.get(at..at + 3).unwrap_or_default());
                at += 3;
            }
            None if *byte <= 0x20 || *byte >= 0x7f || matches!(byte, b'"' | b'%' | b'<' | b'>') => {
                out.extend_from_slice(format!("%{byte:02x}").as_bytes());
                at += 1;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// `&#46;` and `&#x2e;`, which some leave in links.
fn without_references(url: &str) -> String {
    if !url.contains("&#") {
        return url.to_owned();
    }
    let mut out = String::with_capacity(url.len());
    let mut rest = url;
    while let Some((head, tail)) = rest.split_once("&#") {
        out.push_str(head);
        let (number, radix) = tail.strip_prefix(['x', 'X']).map_or((tail, 10), |number| (number, 16));
        let code = number.split_once(';').and_then(|(digits, after)| {
            let code = u32::from_str_radix(digits, radix).ok()?;
            let stop = matches!(code, 0x2e | 0x3002 | 0xff0e | 0xff61);
            let plain = char::from_u32(code).filter(char::is_ascii_graphic);
            if stop { Some(('.', after)) } else { plain.map(|c| (c, after)) }
        });
        match code {
            Some((character, after)) => {
                out.push(character);
                rest = after;
            }
            None => {
                out.push_str("&#");
                rest = tail;
            }
        }
    }
    out.push_str(rest);
    out
}

/// `0x7f.0.0.01`, `2130706433` and the like, as browsers read them.
fn numeric(host: &str) -> Option<Ipv4Addr> {
    let number = |text: &str| -> Option<u64> {
        let lower = text.to_ascii_lowercase();
        if let Some(hex) = lower.strip_prefix("0x") {
            let hex = hex.get(hex.len().saturating_sub(8)..)?;
            return u64::from_str_radix(hex, 16).ok();
        }
        if lower.is_empty() || !lower.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let octal = lower.strip_prefix('0').filter(|rest| !rest.is_empty());
        octal.map_or_else(|| lower.parse().ok(), |rest| u64::from_str_radix(rest, 8).ok())
    };
    let parts: Vec<&str> = host.split('.').collect();
    match parts.as_slice() {
        [one] => number(one).and_then(|value| u32::try_from(value).ok()).map(Ipv4Addr::from),
        [_, _, _, _] => {
            let mut octets = [0; 4];
            for (octet, part) in octets.iter_mut().zip(&parts) {
                *octet = number(part).and_then(|value| u8::try_from(value).ok())?;
            }
            Some(Ipv4Addr::from(octets))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_have_many_forms() {
        for (url, expected) in [
            ("http://a.example/x", &["http://a.example/x"][..]),
            ("HTTP:\\\\a.example?q", &["HTTP:\\\\a.example?q", "HTTP://a.example/?q"]),
            ("a.example/%41%20", &["a.example/%41%20", "http://a.example/A%20"]),
            ("http://a.example:80/", &["http://a.example:80/", "http://a.example/"]),
            ("http://u:p@a.example/", &["http://u:p@a.example/", "http://a.example/"]),
            ("http://0x7f.0.0.01/", &["http://0x7f.0.0.01/", "http://127.0.0.1/"]),
            ("http://2130706433/", &["http://2130706433/", "http://127.0.0.1/"]),
            ("http://shop/", &["http://shop/", "http://www.shop.com/"]),
            (
                "http://r.example/?u=http%3A%2F%2Fevil.example%2Fq&x=1",
                &[
                    "http://r.example/?u=http%3A%2F%2Fevil.example%2Fq&x=1",
                    "http://r.example/?u=http://evil.example/q&x=1",
                    "http://evil.example/q",
                ],
            ),
            ("mailto:x@y.example?subject=z", &["mailto:x@y.example?subject=z", "mailto:x@y.example"]),
            ("http://a.example/&#65;", &["http://a.example/&#65;", "http://a.example/A"]),
            ("#top", &["#top"]),
            ("", &[]),
        ] {
            assert_eq!(forms(url, &Redirectors::default()), expected, "{url}");
        }
    }

    #[test]
    fn hostile_links_are_bounded() {
        assert!(forms(&"http://".repeat(1000), &Redirectors::default()).len() <= 60);
        assert!(forms(&format!("http://a/?{}", "http://b.c/&".repeat(1000)), &Redirectors::default()).len() <= 60);
    }
}
