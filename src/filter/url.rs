//! Links in text, and the forms under which rules and lists look for them.

use std::collections::HashSet;

/// A link as it was found, or one of its canonical forms.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Link {
    pub url: String,
    pub origin: Origin,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Origin {
    /// Written out in text.
    Text,
    /// An attribute of HTML, such as `href` or `src`.
    Html,
    /// Made from another: percent signs decoded, a target inside a redirector, …
    Derived,
}

/// Links of one message, each once, in the order found.
#[derive(Debug, Default)]
pub struct Links {
    links: Vec<Link>,
    seen: HashSet<String>,
}

/// Most links kept of one message.
const LINKS_MAX: usize = 1000;
/// Longer ones are cut.
const LINK_BYTES_MAX: usize = 2048;
/// Targets inside targets.
const REDIRECTS_MAX: usize = 3;

impl Links {
    /// Adds a link with its canonical forms. What has no scheme gets `http://`, or `mailto:` for an address.
    pub fn add(&mut self, url: &str, origin: Origin) {
        let url: String = url.chars().filter(|c| !c.is_control()).collect();
        let url = cut(url.trim(), LINK_BYTES_MAX);
        if url.is_empty() || !self.push(url.to_owned(), origin) {
            return;
        }
        let mut current = url.to_owned();
        for _ in 0..REDIRECTS_MAX {
            let canonical = canonical(&current);
            if canonical != current {
                self.push(canonical.clone(), Origin::Derived);
            }
            match redirect_target(&canonical) {
                Some(target) if self.push(target.clone(), Origin::Derived) => current = target,
                _ => break,
            }
        }
    }

    /// Adds the links written out in `text`.
    pub fn add_text(&mut self, text: &str) {
        for url in urls_in(text) {
            if self.links.len() >= LINKS_MAX {
                return;
            }
            self.add(&url, Origin::Text);
        }
    }

    fn push(&mut self, url: String, origin: Origin) -> bool {
        if self.links.len() >= LINKS_MAX || !self.seen.insert(url.clone()) {
            return false;
        }
        self.links.push(Link { url, origin });
        true
    }

    pub fn as_slice(&self) -> &[Link] {
        &self.links
    }
}

/// The host of a URL, lower case, without user, port and final dot. For `mailto:`, the address's domain.
pub fn host(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once(':')?;
    let host = if scheme.eq_ignore_ascii_case("mailto") {
        rest.split('?').next()?.rsplit_once('@')?.1
    } else {
        let authority = rest.strip_prefix("//")?.split(['/', '?', '#', '\\']).next()?;
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        if host.starts_with('[') { host.split_inclusive(']').next()? } else { host.split(':').next()? }
    };
    let host = host.trim_end_matches('.').to_lowercase();
    (!host.is_empty()).then_some(host)
}

/// What one registers: `a.b.example.co.uk` gives `example.co.uk`. `None` for bare suffixes and for IP addresses.
pub fn registered_domain(host: &str) -> Option<&str> {
    if host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok() {
        return None;
    }
    psl::domain_str(host)
}

fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text)
}

/// Lower-case scheme and host, percent signs of harmless characters decoded, numeric hosts as dotted quads.
fn canonical(url: &str) -> String {
    let url = if url.starts_with("//") { format!("http:{url}") } else { url.to_owned() };
    let Some((scheme, rest)) = url.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) else {
        return if url.contains('@') && !url.contains('/') { format!("mailto:{url}") } else { format!("http://{url}") };
    };
    let scheme = scheme.to_ascii_lowercase();
    let rest = percent_decoded(rest);
    if !scheme.starts_with("http") {
        return format!("{scheme}:{rest}");
    }
    let after = rest.trim_start_matches(['/', '\\']);
    let end = after.find(['/', '?', '#', '\\']).unwrap_or(after.len());
    let (authority, path) = after.split_at(end);
    let (user, host_port) = authority.rsplit_once('@').map_or(("", authority), |(user, host)| (user, host));
    let (name, port) = host_port.rsplit_once(':').map_or((host_port, ""), |(name, port)| (name, port));
    let name = name.trim_end_matches('.').to_lowercase();
    let name = numeric_host(&name).unwrap_or(name);
    let user = if user.is_empty() { String::new() } else { format!("{user}@") };
    let port = if port.is_empty() || port == "80" { String::new() } else { format!(":{port}") };
    format!("{scheme}://{user}{name}{port}{path}")
}

fn is_scheme(text: &str) -> bool {
    (2..=12).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-'))
}

fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = match (first, after) {
            (b'%', [high, low, ..]) => {
                let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
                digit(high).zip(digit(low)).map(|(high, low)| high * 16 + low).filter(u8::is_ascii_graphic)
            }
            _ => None,
        };
        match code {
            Some(byte) => {
                out.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// `0x7f.1`, `2130706433` and the like, as browsers read them.
fn numeric_host(host: &str) -> Option<String> {
    let parts: Vec<&str> = host.split('.').collect();
    if parts.len() > 4 {
        return None;
    }
    let mut value: u32 = 0;
    for (at, part) in parts.iter().enumerate() {
        let number = if let Some(hex) = part.strip_prefix("0x") {
            u32::from_str_radix(hex, 16).ok()?
        } else if part.len() > 1 && part.starts_with('0') {
            u32::from_str_radix(part, 8).ok()?
        } else {
            part.parse().ok()?
        };
        let last = at + 1 == parts.len();
        if !last && number > 255 {
            return None;
        }
        let shift = if last { 0 } else { 24 - 8 * u32::try_from(at).ok()? };
        value = value.checked_add(number.checked_shl(shift)?)?;
    }
    Some(std::net::Ipv4Addr::from(value).to_string())
}

/// A whole URL in another's path or query.
fn redirect_target(url: &str) -> Option<String> {
    let inside = url.get(8..)?;
    let at = ["http://", "https://"].iter().filter_map(|scheme| inside.find(scheme)).min()?;
    let target = &inside[at..];
    let end = target.find(['&', ' ', '"']).unwrap_or(target.len());
    Some(target[..end].to_owned())
}

/// URLs with a scheme, `www.` names and addresses, as a reader's program would make links of them.
fn urls_in(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for word in text.split(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"' | '\u{a0}')) {
        if word.len() < 5 {
            continue;
        }
        if let Some(at) = scheme_at(word) {
            out.push(trim_end(&word[at..]).to_owned());
        } else if let Some(at) = find_ignoring_case(word, "www.") {
            let name = trim_end(&word[at..]);
            if name.matches('.').count() >= 2 {
                out.push(format!("http://{name}"));
            }
        } else if let Some(address) = address_in(word) {
            out.push(format!("mailto:{address}"));
        } else if let Some(name) = bare_host(word) {
            out.push(format!("http://{name}"));
        }
    }
    out
}

fn scheme_at(word: &str) -> Option<usize> {
    ["https://", "http://", "ftp://", "mailto:"].iter().filter_map(|scheme| find_ignoring_case(word, scheme)).min()
}

fn find_ignoring_case(text: &str, what: &str) -> Option<usize> {
    text.as_bytes().windows(what.len()).position(|window| window.eq_ignore_ascii_case(what.as_bytes()))
}

/// Punctuation that ends a sentence rather than a link.
fn trim_end(url: &str) -> &str {
    let url = url.trim_end_matches(['.', ',', ';', ':', '!', '?', '\'', '*', ']', '}', '|']);
    if url.contains('(') { url } else { url.trim_end_matches(')') }
}

fn address_in(word: &str) -> Option<&str> {
    let word = trim_end(word.trim_start_matches(['(', '[', '\'', '*']));
    let (local, domain) = word.split_once('@')?;
    let plain = |text: &str, more: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.as_bytes().contains(&b))
    };
    (plain(local, ".-_+=") && plain(domain, ".-") && domain.contains('.')).then_some(word)
}

/// `shop.example.com/offer` without a scheme, where the last label is a known public suffix.
fn bare_host(word: &str) -> Option<&str> {
    let word = trim_end(word.trim_start_matches(['(', '[', '\'', '*']));
    let (name, path) = word.split_at(word.find('/').unwrap_or(word.len()));
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
    let tail = name.rsplit('.').next()?;
    let letters = (2..=12).contains(&tail.len()) && tail.bytes().all(|b| b.is_ascii_lowercase());
    if !plain || !letters || !name.contains('.') || name.contains("..") || FILE_ENDINGS.contains(&tail) {
        return None;
    }
    let known = psl::suffix(name.as_bytes()).is_some_and(|suffix| suffix.is_known());
    (known && registered_domain(name).is_some() && (!path.is_empty() || name.len() > 5)).then_some(word)
}

/// Public suffixes that are more often the end of a file name.
const FILE_ENDINGS: &[&str] = &["md", "pl", "py", "rs", "sh", "so", "zip", "mov", "app", "cc", "ps", "pm", "am"];

#[cfg(test)]
mod tests {
    use super::*;

    fn links(text: &str) -> Vec<String> {
        let mut links = Links::default();
        links.add_text(text);
        links.as_slice().iter().map(|link| link.url.clone()).collect()
    }

    #[test]
    fn links_in_text() {
        for (text, expected) in [
            ("see http://a.example/x.", &["http://a.example/x"][..]),
            ("(WWW.a.example)", &["http://WWW.a.example", "http://www.a.example"]),
            ("write to joe@b.example, now", &["mailto:joe@b.example"]),
            ("go to shop.example.com/offer!", &["http://shop.example.com/offer"]),
            ("main.rs and setup.py", &[]),
            ("HTTP://A.example:80/%41", &["HTTP://A.example:80/%41", "http://a.example/A"]),
            (
                "http://r.example/?u=http%3A%2F%2Fevil.example%2Fq&x=1",
                &[
                    "http://r.example/?u=http%3A%2F%2Fevil.example%2Fq&x=1",
                    "http://r.example/?u=http://evil.example/q&x=1",
                    "http://evil.example/q",
                ],
            ),
            ("http://0x7f.1/", &["http://0x7f.1/", "http://127.0.0.1/"]),
            ("http://a.example http://a.example", &["http://a.example"]),
        ] {
            assert_eq!(links(text), expected, "{text}");
        }
    }

    #[test]
    fn hosts_and_domains() {
        for (url, expected) in [
            ("http://User:pw@A.Example.:8080/x", Some("a.example")),
            ("https://[2001:db8::1]:80/", Some("[2001:db8::1]")),
            ("mailto:joe@b.example?subject=x", Some("b.example")),
            ("http:///x", None),
            ("nonsense", None),
        ] {
            assert_eq!(host(url).as_deref(), expected, "{url}");
        }
        assert_eq!(registered_domain("a.b.example.co.uk"), Some("example.co.uk"));
        assert_eq!(registered_domain("192.0.2.1"), None);
    }

    #[test]
    fn hostile_text_is_bounded() {
        let many: String = (0..5000).map(|n| format!("http://h{n}.example/ ")).collect();
        assert_eq!(links(&many).len(), LINKS_MAX);
        let long = format!("http://a.example/{}", "%41".repeat(100_000));
        assert!(links(&long).iter().all(|url| url.len() <= LINK_BYTES_MAX));
        links(&"http://".repeat(50_000));
        links(&"\u{e4}%".repeat(50_000));
    }
}
