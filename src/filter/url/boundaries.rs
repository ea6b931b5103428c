//! Where a name that one registers begins: by the lists of rule files, else by the public suffix list.

use std::collections::HashSet;
use std::net::IpAddr;

/// `util_rb_tld`, `util_rb_2tld` and `util_rb_3tld` of rule files. Lower case.
#[derive(Clone, Debug, Default)]
pub struct Boundaries {
    /// Top-level domains that exist; empty: the public suffix list decides.
    pub top: HashSet<String>,
    /// Names of two and three labels under which others register.
    pub second: HashSet<String>,
    pub third: HashSet<String>,
}

/// States that have domains of their own under `us`.
const STATES: &str = "ak al ar az ca co ct dc de fl ga gu hi ia id il in ks ky la ma md me mi mn mo ms mt nc nd ne nh nj \
    nm nv ny oh ok or pa pr ri sc sd tn tx ut va vi vt wa wi wv wy";

impl Boundaries {
    /// True if the last label is a top-level domain.
    pub fn is_valid(&self, host: &str) -> bool {
        let Some((_, top)) = host.rsplit_once('.') else { return false };
        !host.contains(char::is_whitespace) && self.is_top(top)
    }

    pub fn is_top(&self, label: &str) -> bool {
        if self.top.is_empty() {
            let label = label.to_ascii_lowercase();
            // Names for examples (RFC 2606) are as good as any in the samples of rules.
            return matches!(label.as_str(), "example" | "test")
                || psl::suffix(label.as_bytes()).is_some_and(|suffix| suffix.is_known());
        }
        if label.bytes().any(|b| b.is_ascii_uppercase()) {
            self.top.contains(&label.to_ascii_lowercase())
        } else {
            self.top.contains(label)
        }
    }

    /// The name that one registers, lower case; the whole name where there is none.
    pub fn domain(&self, host: &str) -> String {
        let host = host.to_ascii_lowercase();
        let labels: Vec<&str> = host.split('.').filter(|label| !label.is_empty()).collect();
        if self.top.is_empty() {
            return super::registered_domain(&host).unwrap_or(&host).to_owned();
        }
        let count = labels.len();
        let mut kept = 1.min(count);
        for length in (2..=4.min(count)).rev() {
            let tail = labels.get(count - length..).unwrap_or_default();
            if self.is_registry(tail) {
                kept = length;
                break;
            }
        }
        labels.get(count.saturating_sub(kept + 1)..).unwrap_or_default().join(".")
    }

    fn is_registry(&self, labels: &[&str]) -> bool {
        let is_state = |label: &str| STATES.split(' ').any(|state| state == label);
        match labels {
            [_, _] => self.second.contains(&labels.join(".")),
            [_, state, "us"] => is_state(state),
            [_, _, _] => self.third.contains(&labels.join(".")),
            [first, second, state, "us"] => {
                is_state(state) && ((*first == "pvt" && *second == "k12") || matches!(*first, "ci" | "co"))
            }
            _ => false,
        }
    }

    /// Registered name and host of a URL, for lists; addresses are their own domain.
    pub fn of_url(&self, url: &str) -> Option<(String, String)> {
        let url = url.to_ascii_lowercase();
        if ["javascript:", "cid:", "file:"].iter().any(|scheme| url.starts_with(scheme)) {
            return None;
        }
        let host = if let Some(address) = url.strip_prefix("mailto:") {
            let address = address.split('?').next()?;
            let (_, host) = address.split_once('@').filter(|(_, host)| !host.contains('@'))?;
            host
        } else {
            let mut rest = url.as_str();
            if let Some((scheme, after)) = rest.split_once(':')
                && !scheme.is_empty()
                && scheme.bytes().all(|b| b.is_ascii_lowercase())
            {
                rest = after.strip_prefix("//").or_else(|| after.strip_prefix('/')).unwrap_or(after);
            }
            let rest = rest.split(['/', '?', '#']).next()?;
            let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            match rest.rsplit_once(':') {
                Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
                _ => rest,
            }
        };
        if host.contains('%') {
            return None;
        }
        if host.parse::<IpAddr>().is_ok() {
            return Some((host.to_owned(), host.to_owned()));
        }
        (super::is_host_name(host) && self.is_valid(host)).then(|| (self.domain(host), host.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists() -> Boundaries {
        let set = |words: &str| words.split(' ').map(str::to_owned).collect();
        Boundaries { top: set("com uk us example"), second: set("co.uk blog.example"), third: set("x.y.example") }
    }

    #[test]
    fn domains_of_hosts_and_urls() {
        for (host, expected) in [
            ("www.A.com", "a.com"),
            ("a.b.co.uk", "b.co.uk"),
            ("co.uk", "co.uk"),
            ("w.ci.city.ca.us", "w.ci.city.ca.us"),
            ("a.b.x.y.example", "b.x.y.example"),
            ("com", "com"),
            ("", ""),
        ] {
            assert_eq!(lists().domain(host), expected, "{host}");
        }
        assert_eq!(Boundaries::default().domain("a.b.co.uk"), "b.co.uk");
        for (url, expected) in [
            ("http://User@www.a.com:80/x?y", Some("a.com www.a.com")),
            ("mailto:x@m.a.com?s=1", Some("a.com m.a.com")),
            ("mailto:x@y@a.com", None),
            ("http://192.0.2.1/", Some("192.0.2.1 192.0.2.1")),
            ("http://a.nonsense/", None),
            ("cid:x@a.com", None),
            ("http://a%41.com/", None),
        ] {
            let seen = lists().of_url(url).map(|(domain, host)| format!("{domain} {host}"));
            assert_eq!(seen.as_deref(), expected, "{url}");
        }
    }
}
