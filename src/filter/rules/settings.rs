//! Settings of rule files that change how a message is read.

use std::collections::{HashMap, HashSet};

use super::networks::Networks;
use crate::url::{Boundaries, Redirectors};

/// Immutable, part of a [`super::RuleSet`].
#[derive(Debug, Default)]
pub struct Settings {
    pub networks: Networks,
    pub boundaries: Boundaries,
    pub redirectors: Redirectors,
    /// Lower case.
    pub originating_ip_headers: Vec<String>,
    pub lists: ListRules,
}

/// What rule files say of DNS lists as a whole. Names are lower case, without a final dot.
#[derive(Debug, Default)]
pub struct ListRules {
    /// `skip_rbl_checks`, `skip_uribl_checks`: neither relays and senders nor links are asked for.
    pub skips_senders: bool,
    pub skips_links: bool,
    /// `uridnsbl_skip_domain`: too well known to be on any list.
    pub known_domains: HashSet<String>,
    /// `uridnsbl_max_domains`: hosts in links that are asked for.
    pub hosts_max: Option<usize>,
    /// `dns_query_restriction`: the last of these that a zone lies in decides.
    pub restrictions: Vec<(String, bool)>,
    /// `dns_block_rule RULE zone`: that the rule hits says that the zone refuses to answer.
    pub refusals: Vec<(String, String)>,
    /// `dns_list_test zone name`: what the zone is known to list; `-`: nothing that could be asked for.
    pub tests: HashMap<String, String>,
}

impl ListRules {
    /// Whether `zone` may be asked.
    pub fn allows(&self, zone: &str) -> bool {
        let within =
            |domain: &str| zone.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        self.restrictions.iter().rev().find(|(domain, _)| within(domain)).is_none_or(|(_, allowed)| *allowed)
    }

    /// Takes one of the directives above; false if it is none of them.
    pub(super) fn set(&mut self, directive: &str, rest: &str) -> Result<bool, String> {
        let words: Vec<String> =
            rest.split_ascii_whitespace().map(|word| word.trim_end_matches('.').to_ascii_lowercase()).collect();
        let one = || words.first().map_or("", String::as_str);
        match directive {
            "skip_rbl_checks" => self.skips_senders = is_on(one())?,
            "skip_uribl_checks" => self.skips_links = is_on(one())?,
            "uridnsbl_skip_domain" => self.known_domains.extend(words),
            "clear_uridnsbl_skip_domain" if words.is_empty() => self.known_domains.clear(),
            "clear_uridnsbl_skip_domain" => self.known_domains.retain(|domain| !words.contains(domain)),
            "uridnsbl_max_domains" => {
                let number = one().parse().map_err(|_| format!("`{}` is no number", one()))?;
                self.hosts_max = Some(number);
            }
            "dns_query_restriction" => {
                let allowed = match one() {
                    "allow" => true,
                    "deny" => false,
                    other => return Err(format!("`{other}` is neither `allow` nor `deny`")),
                };
                self.restrictions.extend(words.iter().skip(1).map(|domain| (domain.clone(), allowed)));
            }
            "clear_dns_query_restriction" => self.restrictions.clear(),
            "dns_block_rule" => {
                let rule = rest.split_ascii_whitespace().next().unwrap_or_default();
                self.refusals.extend(words.iter().skip(1).map(|zone| (rule.to_owned(), zone.clone())));
            }
            "dns_list_test" => match words.as_slice() {
                [zone, name] => {
                    self.tests.insert(zone.clone(), name.clone());
                }
                _ => return Err("`dns_list_test` needs a zone and a name that it lists, or `-`".to_owned()),
            },
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn is_on(word: &str) -> Result<bool, String> {
    match word {
        "1" | "yes" => Ok(true),
        "0" | "no" => Ok(false),
        other => Err(format!("`{other}` is neither 1 nor 0")),
    }
}

impl Settings {
    /// What holds without rule files.
    pub fn none() -> &'static Self {
        static NONE: std::sync::LazyLock<Settings> = std::sync::LazyLock::new(Settings::default);
        &NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_may_be_restricted() {
        let mut rules = ListRules::default();
        assert!(rules.allows("a.test"));
        for line in ["deny Test.", "allow good.test"] {
            assert_eq!(rules.set("dns_query_restriction", line), Ok(true));
        }
        for (zone, allowed) in [("a.test", false), ("good.test", true), ("x.good.test", true), ("a.attest", true)] {
            assert_eq!(rules.allows(zone), allowed, "{zone}");
        }
        assert!(rules.set("dns_query_restriction", "perhaps x").is_err());
        assert!(rules.set("dns_list_test", "only.zone").is_err());
        assert!(rules.set("skip_rbl_checks", "2").is_err());
        assert_eq!(rules.set("body", "x"), Ok(false));
    }
}
