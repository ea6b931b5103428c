//! Links in text, and the forms under which rules and lists look for them.

pub mod boundaries;
mod canonical;
pub mod links;
mod text;

pub use boundaries::Boundaries;
pub use links::{Link, Links, Redirectors};

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

/// Two or more labels of letters, digits, hyphens and, but for the last two, underscores.
pub fn is_host_name(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    let labels: Vec<&str> = host.split('.').collect();
    host.len() <= 253
        && labels.len() > 1
        && labels.iter().rev().enumerate().all(|(at, label)| {
            let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || (b == b'_' && at > 1);
            (1..=63).contains(&label.len())
                && label.bytes().all(inner)
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// A reference as a page with `base` as its address means it; an empty base changes little.
pub fn joined(base: &str, reference: &str) -> String {
    let mut target = Pieces::of(reference);
    let base = Pieces::of(base);
    let is_same = target.scheme.is_some() && target.scheme == base.scheme;
    if target.scheme.is_none() || is_same {
        target.scheme = base.scheme;
        if target.authority.is_none() {
            target.authority = base.authority;
            if target.path.is_empty() {
                target.path = base.path;
                target.query = target.query.or(base.query);
            } else if !target.path.starts_with('/') {
                let folder = base.path.rfind('/').map_or("", |at| &base.path[..=at]);
                let folder = if base.authority.is_some() && base.path.is_empty() { "/" } else { folder };
                target.path = format!("{folder}{}", target.path).into();
            }
        }
    }
    target.text()
}

/// Generic pieces of a URL (RFC 3986 appendix B).
struct Pieces<'u> {
    scheme: Option<&'u str>,
    authority: Option<&'u str>,
    path: std::borrow::Cow<'u, str>,
    query: Option<&'u str>,
    fragment: Option<&'u str>,
}

impl<'u> Pieces<'u> {
    fn of(url: &'u str) -> Self {
        let end = url.find([':', '/', '?', '#']).unwrap_or(url.len());
        let (scheme, rest) = match url.get(end..).and_then(|rest| rest.strip_prefix(':')).filter(|_| end > 0) {
            Some(rest) => (url.get(..end), rest),
            None => (None, url),
        };
        let (authority, rest) = match rest.strip_prefix("//") {
            Some(rest) => {
                let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
                (Some(authority), rest)
            }
            None => (None, rest),
        };
        let (rest, fragment) = rest.split_once('#').map_or((rest, None), |(rest, fragment)| (rest, Some(fragment)));
        let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
        Self { scheme, authority, path: path.into(), query, fragment }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        match (self.scheme, self.authority) {
            (Some(scheme), _) => {
                out.push_str(scheme);
                out.push(':');
            }
            (None, Some(authority)) if starts_like(authority, "www") => out.push_str("http:"),
            (None, Some(authority)) if starts_like(authority, "ftp") => out.push_str("ftp:"),
            (None, _) => {}
        }
        if let Some(authority) = self.authority {
            out.push_str("//");
            out.push_str(authority);
        }
        out.push_str(&without_dots(&self.path));
        for (mark, text) in [('?', self.query), ('#', self.fragment)] {
            if let Some(text) = text {
                out.push(mark);
                out.push_str(text);
            }
        }
        out
    }
}

/// `www.`, `www2.`
fn starts_like(host: &str, word: &str) -> bool {
    host.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
        && host[word.len()..].trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('.')
}

/// RFC 3986 §5.2.4.
fn without_dots(path: &str) -> String {
    if !path.contains("/.") && !path.starts_with('.') {
        return path.to_owned();
    }
    let mut out: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').collect();
    for (at, segment) in segments.iter().enumerate() {
        let is_last = at + 1 == segments.len();
        match *segment {
            "." => out.extend(is_last.then_some("")),
            ".." => {
                if out.len() > 1 || out.first().is_some_and(|first| !first.is_empty()) {
                    out.pop();
                }
                out.extend(is_last.then_some(""));
            }
            other => out.push(other),
        }
    }
    out.join("/")
}

/// What relative links are joined to: `<base href>` without its file name.
pub fn base_of(url: String) -> Option<String> {
    let pieces = Pieces::of(&url);
    let scheme = pieces.scheme?.to_ascii_lowercase();
    if !matches!(scheme.as_str(), "http" | "https" | "ftp") {
        return None;
    }
    let mut url = url;
    if let Some(slash) = url.rfind('/').filter(|at| *at > 8) {
        let name = url.get(slash + 1..).unwrap_or_default();
        let is_file = name.rsplit_once('.').is_some_and(|(stem, end)| !stem.is_empty() && (2..=4).contains(&end.len()));
        if is_file {
            url.truncate(slash + 1);
        }
    }
    if !url.ends_with('/') {
        url.push('/');
    }
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for (name, expected) in [
            ("a.example", true),
            ("a_b.c.example", true),
            ("a_b.example", false),
            ("a", false),
            ("-a.b", false),
            ("a..b", false),
        ] {
            assert_eq!(is_host_name(name), expected, "{name}");
        }
    }

    #[test]
    fn references_are_joined() {
        for (base, reference, expected) in [
            ("", "http://a.example/x/../y", "http://a.example/y"),
            ("", "//www.a.example/x", "http://www.a.example/x"),
            ("", "x.html", "x.html"),
            ("http://a.example/d/", "x.html?q#f", "http://a.example/d/x.html?q#f"),
            ("http://a.example/d/", "/y", "http://a.example/y"),
            ("http://a.example", "y", "http://a.example/y"),
            ("http://a.example/d/", "mailto:x@y.example", "mailto:x@y.example"),
            ("http://a.example/d/", "", "http://a.example/d/"),
        ] {
            assert_eq!(joined(base, reference), expected, "{base} {reference}");
        }
        for (url, expected) in [
            ("http://a.example/d/x.html", Some("http://a.example/d/")),
            ("http://a.example", Some("http://a.example/")),
            ("mailto:x@y", None),
        ] {
            assert_eq!(base_of(url.to_owned()).as_deref(), expected, "{url}");
        }
    }
}
