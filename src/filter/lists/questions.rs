//! Which names of which lists one message asks for. Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use mail::Address;

use crate::rules::answer::Subtest;
use crate::rules::net::{LinkPart, NetRule, Question, SenderPart};
use crate::rules::relays::Relay;
use crate::rules::{RuleSet, Targets};
use crate::url;

/// Something to ask for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Ask {
    /// Empty: the subject is the whole name, and no list.
    pub zone: Arc<str>,
    pub subject: Subject,
    pub record: Record,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Subject {
    /// The labels before the zone.
    Name(String),
    /// The addresses of this host.
    AddressesOf(String),
    /// The addresses of the name servers of this domain.
    AddressesOfServers(String),
    /// The names of the name servers of this domain, or those that were registered for them.
    ServersOf(String, Server),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Server {
    WholeName,
    Registered,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Record {
    Address,
    Text,
}

/// A rule that looks at the answers.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    pub rule: Arc<str>,
    pub subtest: Subtest,
    /// Counts only if a signature of this domain is valid.
    pub signer: Option<String>,
}

/// All questions of one message, each once, with who reads the answers.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    pub(super) asks: Vec<(Ask, Vec<Reader>)>,
    places: HashMap<Ask, usize>,
    sets: HashMap<String, Vec<usize>>,
}

/// Names of one message, over all lists. Relays come first, links last.
const NAMES_MAX: usize = 100;
/// Hosts in links that are asked for, unless rule files say otherwise.
const HOSTS_MAX: usize = 20;
/// Servers that a message came through, as SpamAssassin counts them.
const RELAYS_MAX: usize = 9;
const SIGNERS_MAX: usize = 8;

impl Questions {
    /// `is_active` says which rules' questions are asked at all; `with_relays` that servers brought the message, not one
    /// of our users.
    pub fn of(rules: &RuleSet, targets: &Targets<'_>, with_relays: bool, is_active: impl Fn(&NetRule) -> bool) -> Self {
        let (mut out, lists) = (Self::default(), &rules.settings().lists);
        let active: Vec<&NetRule> = rules.questions().iter().filter(|rule| is_active(rule)).collect();
        for rule in active.iter().filter(|_| with_relays && !lists.skips_senders) {
            if let Question::Relay { set, zone, text, .. } = &rule.question {
                let record = if *text { Record::Text } else { Record::Address };
                for ip in relays_of(targets, set) {
                    out.add(rule, Some(set), zone, Subject::Name(reversed(ip)), record, None);
                }
            }
        }
        for rule in active.iter().filter(|_| !lists.skips_senders) {
            match &rule.question {
                Question::Sender { set, zone, of, .. } if with_relays || *of != SenderPart::Received => {
                    for subject in sender_subjects(targets, of) {
                        if rule.fits(&subject) {
                            out.add(rule, Some(set), zone, subject, Record::Address, None);
                        }
                    }
                }
                Question::Template { name, record, .. } => out.add_template(rule, targets, name, record, with_relays),
                _ => {}
            }
        }
        let asks_links = active.iter().any(|rule| matches!(rule.question, Question::Link { .. }));
        if asks_links && !lists.skips_links {
            let hosts = hosts_of(targets, lists.hosts_max.unwrap_or(HOSTS_MAX));
            // One host of all lists after the other: what is cut off is then the same for all.
            for (host, domain) in &hosts {
                for rule in &active {
                    out.add_link(rule, host, domain);
                }
            }
        }
        for rule in rules.questions() {
            if let Question::RelaySub { set, .. } = &rule.question {
                for place in out.sets.get(set).into_iter().flatten() {
                    let reader = Reader { rule: rule.rule.clone(), subtest: rule.subtest.clone(), signer: None };
                    if let Some((_, readers)) = out.asks.get_mut(*place) {
                        readers.push(reader);
                    }
                }
            }
        }
        out
    }

    fn add(
        &mut self,
        rule: &NetRule,
        set: Option<&String>,
        zone: &str,
        subject: Subject,
        record: Record,
        signer: Option<String>,
    ) {
        let ask = Ask { zone: zone.into(), subject, record };
        let place = match self.places.get(&ask) {
            Some(place) => *place,
            None if self.asks.len() >= NAMES_MAX => return,
            None => {
                self.places.insert(ask.clone(), self.asks.len());
                self.asks.push((ask, Vec::new()));
                self.asks.len() - 1
            }
        };
        if let Some((_, readers)) = self.asks.get_mut(place) {
            readers.push(Reader { rule: rule.rule.clone(), subtest: rule.subtest.clone(), signer });
        }
        if let Some(set) = set {
            let places = self.sets.entry(set.clone()).or_default();
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }

    fn add_link(&mut self, rule: &NetRule, host: &str, domain: &str) {
        let Question::Link { zone, record, asks, .. } = &rule.question else { return };
        let record = if record.eq_ignore_ascii_case("TXT") { Record::Text } else { Record::Address };
        let (host, domain) = (host.to_owned(), domain.to_owned());
        if let Ok(ip) = host.parse::<IpAddr>() {
            let is_wanted = *asks == LinkPart::Domain && !rule.scope.domains_only && ip.is_ipv4();
            if is_wanted && is_public(ip) {
                self.add(rule, None, zone, Subject::Name(reversed(ip)), record, None);
            }
            return;
        }
        let mut subjects = Vec::new();
        match asks {
            LinkPart::Domain if rule.scope.ips_only => {}
            LinkPart::Domain if rule.scope.whole_host => subjects.push(Subject::Name(host)),
            LinkPart::Domain => subjects.push(Subject::Name(domain)),
            LinkPart::Address => {
                subjects.extend(rule.scope.own_address.then_some(Subject::AddressesOf(host)));
                subjects.extend(rule.scope.name_server_address.then_some(Subject::AddressesOfServers(domain)));
            }
            LinkPart::NameServer => subjects.push(Subject::ServersOf(domain, Server::Registered)),
            LinkPart::NameServerHost => subjects.push(Subject::ServersOf(domain, Server::WholeName)),
        }
        for subject in subjects {
            self.add(rule, None, zone, subject, record, None);
        }
    }

    fn add_template(&mut self, rule: &NetRule, targets: &Targets<'_>, name: &str, record: &str, with_relays: bool) {
        let Some((tag, zone)) = template_parts(name) else { return };
        let record = match record.to_ascii_uppercase().as_str() {
            "A" => Record::Address,
            "TXT" => Record::Text,
            _ => return,
        };
        for value in tag_values(targets, tag, with_relays) {
            let signer = (tag == "DKIMDOMAIN").then(|| value.clone());
            let subject = Subject::Name(value);
            self.add(rule, None, zone, subject, record, signer);
        }
    }
}

impl NetRule {
    /// The list that is asked; empty for a name that lies in none, `None` where nothing can be asked.
    pub(super) fn zone(&self) -> Option<&str> {
        match &self.question {
            Question::Relay { zone, .. } | Question::Sender { zone, .. } | Question::Link { zone, .. } => Some(zone),
            Question::Template { name, .. } => template_parts(name).map(|(_, zone)| zone),
            Question::RelaySub { .. } | Question::Service { .. } => None,
        }
    }

    /// True if the list holds names, not addresses.
    pub(super) fn asks_names(&self) -> bool {
        match &self.question {
            Question::Sender { .. } => true,
            Question::Link { asks, .. } => *asks != LinkPart::Address,
            Question::Template { name, .. } => !name.contains("REVIP_"),
            Question::Relay { .. } | Question::RelaySub { .. } | Question::Service { .. } => false,
        }
    }

    fn fits(&self, subject: &Subject) -> bool {
        let is_address =
            matches!(subject, Subject::Name(name) if name.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
        if is_address { !self.scope.domains_only } else { !self.scope.ips_only }
    }
}

/// `_TAG_.zone`: the tag, and the zone in lower case without dots at its ends.
fn template_parts(name: &str) -> Option<(&str, &str)> {
    let (tag, zone) = name.strip_prefix('_')?.split_once('_')?;
    let zone = zone.trim_matches('.');
    let is_plain = !zone.bytes().any(|b| b.is_ascii_uppercase()) && TAGS.contains(&tag);
    is_plain.then_some((tag, zone))
}

/// Tags of SpamAssassin that templates may hold here.
pub(super) const TAGS: &[&str] =
    &["AUTHORDOMAIN", "DKIMDOMAIN", "LASTEXTERNALHELO", "LASTEXTERNALREVIP", "SENDERDOMAIN", "URIDOMAINS", "URIHOSTS"];

fn tag_values(targets: &Targets<'_>, tag: &str, with_relays: bool) -> Vec<String> {
    let last = || targets.relays().external.first().filter(|_| with_relays);
    let values: Vec<String> = match tag {
        "AUTHORDOMAIN" => targets.addresses("from").iter().filter_map(|address| domain_of(address)).collect(),
        "SENDERDOMAIN" => targets.envelope_from().and_then(domain_of).into_iter().collect(),
        "DKIMDOMAIN" => signers(targets),
        "LASTEXTERNALHELO" => last().map(|relay| relay.helo.to_ascii_lowercase()).into_iter().collect(),
        "LASTEXTERNALREVIP" => {
            return last().and_then(|relay| relay.ip).filter(|ip| is_public(*ip)).map(reversed).into_iter().collect();
        }
        "URIDOMAINS" => hosts_of(targets, HOSTS_MAX).into_iter().map(|(_, domain)| domain).collect(),
        "URIHOSTS" => hosts_of(targets, HOSTS_MAX).into_iter().map(|(host, _)| host).collect(),
        _ => Vec::new(),
    };
    let mut out: Vec<String> = Vec::new();
    for value in values {
        if url::is_host_name(&value) && !out.contains(&value) {
            out.push(value);
        }
    }
    out
}

/// `d=` of each signature, valid or not.
fn signers(targets: &Targets<'_>) -> Vec<String> {
    let of = |value: &str| {
        let mut tags = value.split(';').filter_map(|tag| tag.split_once('='));
        let (_, domain) = tags.find(|(tag, _)| tag.trim() == "d")?;
        Some(domain.split_whitespace().collect::<String>().trim_end_matches('.').to_ascii_lowercase())
    };
    targets.values("dkim-signature").filter_map(|value| of(&value)).take(SIGNERS_MAX).collect()
}

fn domain_of(address: &str) -> Option<String> {
    let domain = match address.parse::<Address>() {
        Ok(address) => address.domain.to_string(),
        Err(_) => address.rsplit_once('@')?.1.to_owned(),
    };
    Some(domain.trim_matches('.').to_ascii_lowercase())
}

fn sender_subjects(targets: &Targets<'_>, part: &SenderPart) -> Vec<Subject> {
    let is_valid = |host: &String| url::is_host_name(host) && targets.settings().boundaries.is_valid(host);
    let names = |hosts: Vec<String>| {
        let mut out: Vec<Subject> = Vec::new();
        for host in hosts {
            let subject = match host.parse::<IpAddr>() {
                Ok(ip) if is_public(ip) => Subject::Name(reversed(ip)),
                Ok(_) => continue,
                Err(_) if is_valid(&host) => Subject::Name(host),
                Err(_) => continue,
            };
            if !out.contains(&subject) {
                out.push(subject);
            }
        }
        out
    };
    let domains = |addresses: &[String]| addresses.iter().filter_map(|address| domain_of(address)).collect::<Vec<_>>();
    let envelope = || targets.envelope_from().and_then(domain_of);
    match part {
        SenderPart::Author => names(domains(crate::rules::eval::senders(targets))),
        SenderPart::AuthorDomain => {
            let registered = |host: &String| targets.settings().boundaries.domain(host);
            names(domains(crate::rules::eval::senders(targets)).iter().map(registered).collect())
        }
        SenderPart::Envelope => names(envelope().into_iter().collect()),
        SenderPart::NameServer => {
            let domain = envelope().filter(is_valid);
            domain.map(|domain| Subject::ServersOf(domain, Server::WholeName)).into_iter().collect()
        }
        SenderPart::Received => {
            let Some(relay) = targets.relays().untrusted.last() else { return Vec::new() };
            let ip = relay.ip.map(|ip| ip.to_string());
            let texts = [&relay.by, &relay.helo, &relay.reverse_name].map(|text| text.to_ascii_lowercase());
            names(ip.into_iter().chain(texts).collect())
        }
        SenderPart::Fields(fields) => {
            let of = |name: &String| match name.as_str() {
                "envelopefrom" => envelope().into_iter().collect(),
                name => match domains(&targets.addresses(name)) {
                    hosts if hosts.is_empty() => targets.values(name).map(|v| v.trim().to_ascii_lowercase()).collect(),
                    hosts => hosts,
                },
            };
            names(fields.iter().take(RELAYS_MAX).flat_map(of).take(RELAYS_MAX).collect())
        }
    }
}

/// Addresses of the servers that a list is asked for, by what follows the last hyphen of its set's name.
fn relays_of(targets: &Targets<'_>, set: &str) -> Vec<IpAddr> {
    let networks = &targets.settings().networks;
    let askable = |relays: &[Relay]| {
        let mut out: Vec<IpAddr> = Vec::new();
        for ip in relays.iter().filter_map(|relay| relay.ip).map(|ip| ip.to_canonical()) {
            if is_public(ip) && !out.contains(&ip) {
                out.push(ip);
            }
        }
        out
    };
    let relays = targets.relays();
    let untrusted = askable(&relays.untrusted);
    if untrusted.is_empty() {
        return untrusted;
    }
    let mut ips = match set.rsplit_once('-').map_or("", |(_, which)| which) {
        "lastexternal" => askable(&relays.external).into_iter().take(1).collect(),
        "notfirsthop" => {
            let mut ips = askable(&relays.external);
            // Where there is but one, it is a server all the same.
            if ips.len() > 1 {
                ips.pop();
            }
            ips
        }
        "firsttrusted" => untrusted.into_iter().take(1).collect(),
        "untrusted" => untrusted.into_iter().skip(1).collect(),
        _ => untrusted.into_iter().rev().collect::<Vec<_>>(),
    };
    ips.truncate(RELAYS_MAX);
    ips.retain(|ip| !networks.are_set() || !networks.is_trusted(*ip));
    ips
}

/// Hosts in links with their registered names: first where readers click, each once.
fn hosts_of(targets: &Targets<'_>, max: usize) -> Vec<(String, String)> {
    let known = &targets.settings().lists.known_domains;
    let mut ranked: Vec<(u8, &str, &str)> = Vec::new();
    for link in targets.links().as_slice() {
        if link.url.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("mailto:")) {
            continue;
        }
        let is = |kind: &str| link.kinds.iter().any(|one| one == kind);
        let rank = if is("a") {
            if link.anchors.iter().any(|text| !text.is_empty()) { 0 } else { 5 }
        } else if is("form") {
            1
        } else if is("img") {
            2
        } else if is("parsed") && link.kinds.len() == 1 {
            4
        } else {
            3
        };
        for (host, domain) in &link.hosts {
            ranked.push((rank, host, domain));
        }
    }
    ranked.sort_by_key(|(rank, ..)| *rank);
    let mut out: Vec<(String, String)> = Vec::new();
    for (_, host, domain) in ranked {
        if out.len() >= max {
            break;
        }
        if !known.contains(host) && !known.contains(domain) && !out.iter().any(|(one, _)| one == host) {
            out.push((host.to_owned(), domain.to_owned()));
        }
    }
    out
}

/// The labels that stand for an address (RFC 5782 §2.1, §2.4).
pub(super) fn reversed(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}")
        }
        IpAddr::V6(ip) => {
            let nibbles = ip.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}")).collect::<Vec<_>>().join(".")
        }
    }
}

/// False for addresses that no list can know: private ones, and those reserved for other ends (RFC 6890).
pub(super) fn is_public(ip: IpAddr) -> bool {
    if crate::rules::relays::is_private(ip) {
        return false;
    }
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            !(ip.is_documentation() || a >= 224 || (a == 198 && b & 0xfe == 18) || (a == 192 && b == 88 && c == 99))
        }
        IpAddr::V6(ip) => {
            let first = ip.segments().first().copied().unwrap_or_default();
            // Of the global unicast range alone anything is given out.
            first & 0xe000 == 0x2000 && !(first == 0x2001 && ip.segments().get(1) == Some(&0x0db8))
        }
    }
}

#[cfg(test)]
#[path = "questions_tests.rs"]
mod tests;
