//! Where links lead, and what they say of it.

use super::{Call, Function, argument, flag, number, size};
use crate::url::host;

pub const FUNCTIONS: &[(&str, Function)] = &[
    ("check_for_http_redirector", check_for_http_redirector),
    ("check_https_http_mismatch", check_https_http_mismatch),
    ("check_https_ip_mismatch", check_https_ip_mismatch),
    ("check_uri_host_in_blocklist", |call| host_in(call, "block")),
    ("check_uri_host_in_welcomelist", |call| host_in(call, "welcome")),
    ("check_uri_host_listed", |call| host_in(call, &argument(call, 0).to_ascii_lowercase())),
    ("check_uri_truncated", |call| flag(call.targets.links().truncated)),
    ("short_url", short_url),
];

/// A host, or a name above it, in an `enlist_uri_host` list; a name with `!` is left out.
fn host_in(call: &Call<'_>, list: &str) -> Option<String> {
    let words = call.lists.words.get(&format!("enlist_uri_host:{list}"))?;
    let links =
        call.targets.links().as_slice().iter().filter(|link| !link.url.to_ascii_lowercase().starts_with("mailto:"));
    for (name, _) in links.flat_map(|link| &link.hosts) {
        let mut rest = name.as_str();
        loop {
            if words.iter().any(|word| word == rest) {
                return Some(name.clone());
            }
            let excluded = words.iter().any(|word| word.strip_prefix('!') == Some(rest));
            match rest.split_once('.') {
                Some((_, parent)) if !excluded && name.parse::<std::net::IpAddr>().is_err() => rest = parent,
                Some(_) | None => break,
            }
        }
    }
    None
}

fn short_url(call: &Call<'_>) -> Option<String> {
    let words = call.lists.words.get("url_shortener")?;
    let known = |name: &str| words.iter().any(|word| word == name);
    for link in call.targets.links().as_slice().iter().filter(|link| !link.hosts.is_empty() && !link.forms.is_empty()) {
        let url = link.url.split(['#', '?']).next().unwrap_or_default();
        let lower = url.to_ascii_lowercase();
        let Some(rest) = lower.strip_prefix("http://").or_else(|| lower.strip_prefix("https://")) else { continue };
        let Some(name) = host(&lower) else { continue };
        let path = rest.find('/').map_or("", |at| &rest[at..]);
        let has_path = path.contains(|c: char| c.is_alphanumeric() || c == '_');
        let levels = name.matches('.').count();
        if levels == 1 && !has_path {
            continue;
        }
        let parent = name.split_once('.').map_or("", |(_, parent)| parent);
        let above = levels == 2 && if name.starts_with("www.") { known(parent) } else { known(&format!(".{parent}")) };
        if known(&name) || above {
            return Some(link.url.clone());
        }
    }
    None
}

/// The host of `https://` in an anchor's text is another than the link's: `(anchors at least, below)`.
fn check_https_http_mismatch(call: &Call<'_>) -> Option<String> {
    let boundaries = &call.targets.settings().boundaries;
    for html in call.targets.html() {
        let (mut anchors, mut found) = (0, None);
        for uri in html.uris.iter().filter(|uri| !uri.anchors.is_empty()) {
            let lower = uri.url.to_ascii_lowercase();
            if !lower.starts_with("http://") && !lower.starts_with("https://") {
                continue;
            }
            let Some(real) = authority(&lower).filter(|host| host.parse::<std::net::IpAddr>().is_err()) else {
                continue;
            };
            let real = boundaries.domain(real);
            if !boundaries.is_valid(&real) {
                continue;
            }
            anchors += 1;
            for text in &uri.anchors {
                let lower = text.to_ascii_lowercase();
                let Some(at) = lower.find("https://") else { continue };
                let shown =
                    lower[at + 8..].split(|c: char| c.is_whitespace() || "/:?#".contains(c)).next().unwrap_or_default();
                let shown =
                    if shown.parse::<std::net::IpAddr>().is_ok() { shown.to_owned() } else { boundaries.domain(shown) };
                let is_host = boundaries.is_valid(&shown) || shown.parse::<std::net::IpAddr>().is_ok();
                if is_host && shown != real {
                    found = Some(format!("shows {shown}, leads to {real}"));
                    break;
                }
            }
        }
        let few = number(call, 1).is_none_or(|high| size(anchors) < high);
        if found.is_some() && size(anchors) >= number(call, 0).unwrap_or(1.0) && few {
            return found;
        }
    }
    None
}

fn authority(url: &str) -> Option<&str> {
    let rest = url.split_once("//")?.1;
    Some(rest.split(['/', ':', '?', '#']).next()?).filter(|host| !host.is_empty())
}

/// A link to a bare address whose text says `https:`.
fn check_https_ip_mismatch(call: &Call<'_>) -> Option<String> {
    let to_address = |text: &str, schemes: &[&str]| {
        schemes.iter().any(|scheme| {
            text.strip_prefix(scheme).is_some_and(|rest| {
                let rest = rest.trim_start_matches('/');
                let rest = rest.split_once('@').filter(|(user, _)| !user.contains('/')).map_or(rest, |(_, rest)| rest);
                let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
                rest[..digits].split('.').filter(|part| !part.is_empty()).count() >= 4
            })
        })
    };
    for uri in call.targets.html().flat_map(|html| &html.uris) {
        if !to_address(&uri.url.to_ascii_lowercase(), &["http:", "https:"]) {
            continue;
        }
        let text = uri
            .anchors
            .iter()
            .map(|text| text.to_ascii_lowercase())
            .find(|text| text.contains("https:") && !to_address(text, &["https:"]));
        if let Some(text) = text {
            return Some(format!("shows {}, leads to {}", text.trim(), uri.url));
        }
    }
    None
}

/// A link through one site to another.
fn check_for_http_redirector(call: &Call<'_>) -> Option<String> {
    let boundaries = &call.targets.settings().boundaries;
    let domain = |url: &str| boundaries.of_url(url).map_or_else(|| url.to_owned(), |(domain, _)| domain);
    for form in call.targets.links().forms() {
        let lower = form.to_ascii_lowercase();
        let Some(at) = lower.get(9..).and_then(|rest| rest.find("http://").or_else(|| rest.find("https://"))) else {
            continue;
        };
        if domain(&lower) != domain(&lower[at + 9..]) {
            return Some(form.to_owned());
        }
    }
    None
}
