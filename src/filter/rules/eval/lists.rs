//! Lists of addresses and names: welcome, blocked, and of free mail providers.

use std::collections::HashSet;
use std::net::IpAddr;

use super::{Call, Function, address_of, argument, finding, flag};
use crate::rules::fields;
use crate::rules::parse::{Field, FieldPart, Only};
use crate::rules::target::Targets;

pub const FUNCTIONS: &[(&str, Function)] = &[
    ("check_forged_in_default_welcomelist", |call| {
        flag(
            from_list(call, "def_welcomelist_from_rcvd", None) == Listed::Forged
                && from_list(call, "welcomelist_from_rcvd", Some("welcomelist_from")) == Listed::No,
        )
    }),
    ("check_forged_in_welcomelist", |call| {
        flag(
            from_list(call, "welcomelist_from_rcvd", Some("welcomelist_from")) == Listed::Forged
                && from_list(call, "def_welcomelist_from_rcvd", None) == Listed::No,
        )
    }),
    ("check_for_def_dkim_welcomelist_from", |call| {
        signed(call, &["def_welcomelist_from_dkim", "def_welcomelist_auth"])
    }),
    ("check_for_def_spf_welcomelist_from", |call| by_spf(call, &["def_welcomelist_from_spf", "def_welcomelist_auth"])),
    ("check_for_dkim_welcomelist_from", |call| signed(call, &["welcomelist_from_dkim", "welcomelist_auth"])),
    ("check_for_spf_welcomelist_from", |call| by_spf(call, &["welcomelist_from_spf", "welcomelist_auth"])),
    ("check_freemail_body", |call| body_freemail(call, &[])),
    ("check_freemail_from", |call| freemail(call, senders(call.targets).to_vec())),
    ("check_freemail_header", check_freemail_header),
    ("check_freemail_replyto", check_freemail_replyto),
    ("check_from_in_blocklist", |call| listed(call, "blocklist_from", || senders(call.targets).to_vec())),
    ("check_from_in_default_welcomelist", |call| {
        flag(from_list(call, "def_welcomelist_from_rcvd", None) == Listed::Yes)
    }),
    ("check_from_in_list", |call| listed(call, &address_list(call), || senders(call.targets).to_vec())),
    ("check_from_in_welcomelist", |call| {
        flag(from_list(call, "welcomelist_from_rcvd", Some("welcomelist_from")) == Listed::Yes)
    }),
    ("check_replyto_in_list", |call| {
        let reply = address_of(call, "reply-to");
        if reply.is_empty() { None } else { listed(call, &address_list(call), || vec![reply]) }
    }),
    ("check_subject_in_blocklist", |call| subject(call, "blocklist_subject")),
    ("check_subject_in_welcomelist", |call| subject(call, "welcomelist_subject")),
    ("check_to_in_all_spam", |call| listed(call, "all_spam_to", || recipients(call.targets))),
    ("check_to_in_blocklist", |call| listed(call, "blocklist_to", || recipients(call.targets))),
    ("check_to_in_list", |call| listed(call, &address_list(call), || recipients(call.targets))),
    ("check_to_in_more_spam", |call| listed(call, "more_spam_to", || recipients(call.targets))),
    ("check_to_in_welcomelist", |call| listed(call, "welcomelist_to", || recipients(call.targets))),
    ("check_welcomelist_bounce_relays", check_bounce_relays),
    ("have_any_bounce_relays", |call| {
        flag(words(call, "welcomelist_bounce_relays").is_some_and(|words| !words.is_empty()))
    }),
];

/// Addresses whose owners read mail of many: their domain says nothing of one.
const ROLES: &[&str] = &[
    "abuse",
    "support",
    "sales",
    "info",
    "helpdesk",
    "contact",
    "kontakt",
    "postmaster",
    "hostmaster",
    "domainmaster",
];

fn words<'c>(call: &Call<'c>, list: &str) -> Option<&'c Vec<String>> {
    call.lists.words.get(list)
}

fn address_list(call: &Call<'_>) -> String {
    format!("enlist_addrlist:{}", argument(call, 0).to_ascii_lowercase())
}

/// `*` and `?` in list words.
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || text.get(t) == Some(c) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    p = at + 1;
                    t = from + 1;
                    star = Some((at, t));
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|b| *b == b'*'))
}

fn is_in(words: &[String], address: &str) -> bool {
    let address = address.to_lowercase();
    words.iter().any(|word| glob(word.as_bytes(), address.as_bytes()))
}

/// Most lists are empty: what is on them is found out only where there is one.
fn listed(call: &Call<'_>, list: &str, addresses: impl FnOnce() -> Vec<String>) -> Option<String> {
    let words = words(call, list)?;
    addresses().into_iter().find(|address| is_in(words, address))
}

/// All who may be the sender.
pub fn senders<'t>(targets: &'t Targets<'_>) -> &'t [String] {
    targets.senders.get_or_init(|| find_senders(targets))
}

fn find_senders(targets: &Targets<'_>) -> Vec<String> {
    let field = Field { part: FieldPart::Address, only: Some(Only::First), ..Field::plain("resent-from") };
    let resent: Vec<String> =
        fields::values(targets, &field).into_iter().map(|v| String::from_utf8_lossy(&v).into_owned()).collect();
    let mut out = if resent.is_empty() {
        let names = ["from", "envelope-sender", "resent-sender", "x-envelope-from"];
        let mut all: Vec<String> = names.iter().flat_map(|name| targets.addresses(name)).collect();
        all.extend(targets.envelope_from().map(str::to_owned));
        all.retain(|address| !address.is_empty());
        all
    } else {
        resent
    };
    out.dedup();
    out
}

fn recipients(targets: &Targets<'_>) -> Vec<String> {
    let first = |name: &str| targets.addresses(name);
    let resent = [first("resent-to"), first("resent-cc")].concat();
    if !resent.is_empty() {
        return resent;
    }
    let mut out: Vec<String> = targets.context().recipients.iter().map(|address| (*address).to_owned()).collect();
    for value in targets.values("received").take(3) {
        let Some((_, rest)) = value.split_once(" for ") else { continue };
        let address = rest.split(';').next().unwrap_or_default().trim_matches(['<', '>', ' ']);
        if address.contains('@') && !address.contains(' ') {
            out.push(address.to_owned());
        }
    }
    let names = [
        "to",
        "apparently-to",
        "delivered-to",
        "envelope-recipients",
        "apparently-resent-to",
        "x-envelope-to",
        "envelope-to",
        "x-delivered-to",
        "x-original-to",
        "x-rcpt-to",
        "x-real-to",
        "cc",
    ];
    out.extend(names.iter().flat_map(|name| targets.addresses(name)));
    out
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Listed {
    No,
    Yes,
    /// The address is listed, but the server is none of its own.
    Forged,
}

/// `plain` lists addresses alone; `with_server` the server's name or network too.
fn from_list(call: &Call<'_>, with_server: &str, plain: Option<&str>) -> Listed {
    let mut out = Listed::No;
    for address in senders(call.targets) {
        if plain.and_then(|list| words(call, list)).is_some_and(|words| is_in(words, address)) {
            return Listed::Yes;
        }
        match by_server(call, with_server, address) {
            Listed::Yes => return Listed::Yes,
            Listed::Forged => out = Listed::Forged,
            Listed::No => {}
        }
    }
    out
}

fn by_server(call: &Call<'_>, list: &str, address: &str) -> Listed {
    let Some(entries) = words(call, list) else { return Listed::No };
    let relays = call.targets.relays();
    let nearest = relays.untrusted.get(..1).unwrap_or(&relays.trusted);
    let address = address.to_lowercase();
    let mut out = Listed::No;
    for entry in entries {
        let Some((pattern, server)) = entry.split_once(' ') else { continue };
        if nearest.is_empty() || !glob(pattern.as_bytes(), address.as_bytes()) {
            continue;
        }
        let fits = nearest.iter().any(|relay| match server.strip_prefix('[') {
            Some(network) => relay.ip.is_some_and(|ip| in_network(&network.replace(']', ""), ip)),
            None => {
                let name = relay.reverse_name.to_lowercase();
                name.strip_suffix(server).is_some_and(|start| start.is_empty() || start.ends_with('.'))
            }
        });
        if fits {
            return Listed::Yes;
        }
        out = Listed::Forged;
    }
    let allowed = words(call, "welcomelist_allows_relays").is_some_and(|words| is_in(words, &address));
    if allowed { Listed::No } else { out }
}

fn in_network(network: &str, ip: IpAddr) -> bool {
    let mut networks = crate::rules::networks::Networks::default();
    networks.add("msa_networks", network).is_ok() && networks.is_msa(ip)
}

/// The author is listed, and the signature is of the domain that the list asks for.
fn signed(call: &Call<'_>, lists: &[&str]) -> Option<String> {
    finding(call, "DKIM_VALID_AU")?;
    let from = address_of(call, "from");
    lists.iter().find_map(|list| listed(call, list, || vec![from.clone()]))
}

fn by_spf(call: &Call<'_>, lists: &[&str]) -> Option<String> {
    finding(call, "SPF_PASS")?;
    let envelope = call.targets.envelope_from()?.to_owned();
    lists.iter().find_map(|list| listed(call, list, || vec![envelope.clone()]))
}

fn subject(call: &Call<'_>, list: &str) -> Option<String> {
    let subject = call.targets.subject().to_lowercase();
    words(call, list)?.iter().find(|entry| subject.contains(entry.trim_matches('*'))).cloned()
}

/// A bounce that quotes a `Received` field of one of ours.
fn check_bounce_relays(call: &Call<'_>) -> Option<String> {
    let relays = words(call, "welcomelist_bounce_relays").filter(|words| !words.is_empty())?;
    let full = call.targets.full();
    let text = String::from_utf8_lossy(&full.text);
    let body = text.split_once("\n\n").map_or("", |(_, body)| body);
    let mut in_field = false;
    for line in body.lines() {
        let bare = line.trim_start_matches(['>', ' ']);
        in_field = bare.to_ascii_lowercase().starts_with("received:") || (in_field && line.starts_with([' ', '\t']));
        if in_field && let Some(found) = line.split_whitespace().find(|word| word.contains('.') && is_in(relays, word))
        {
            return Some(found.to_owned());
        }
    }
    None
}

pub fn is_freemail(call: &Call<'_>, address: &str) -> bool {
    let Some((user, domain)) = address.rsplit_once('@') else { return false };
    let exempt = words(call, "freemail_welcomelist")
        .is_some_and(|words| words.iter().any(|word| word == address || word == domain));
    let hex = |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
    let by_program = user.starts_with("undisclosed")
        || user.strip_prefix("request-").is_some_and(|id| hex(id, 16))
        || user.starts_with("bounce-")
        || user.starts_with("bounced-")
        || user.split_once('.').is_some_and(|(one, other)| hex(one, 8) && hex(other, 8))
        || user.split('=').filter(|part| !part.is_empty()).count() > 2
        || (user.len() == 36 && user.split('-').map(str::len).eq([8, 4, 4, 4, 12]));
    if exempt || by_program || ROLES.contains(&user) {
        return false;
    }
    call.lists.freemail.has(domain)
}

/// Domains whose addresses anyone can have.
#[derive(Debug, Default)]
pub struct FreeDomains {
    exact: HashSet<String>,
    /// With `*` and `?`.
    patterns: Vec<String>,
}

impl FreeDomains {
    pub fn of(words: &[String]) -> Self {
        let (patterns, exact): (Vec<String>, Vec<String>) =
            words.iter().cloned().partition(|word| word.contains(['*', '?']));
        Self { exact: exact.into_iter().collect(), patterns }
    }

    fn has(&self, domain: &str) -> bool {
        let dots = |text: &str| text.bytes().filter(|byte| *byte == b'.').count();
        let fits = |word: &String| dots(word) == dots(domain) && glob(word.as_bytes(), domain.as_bytes());
        self.exact.contains(domain) || self.patterns.iter().any(fits)
    }
}

fn freemail(call: &Call<'_>, addresses: Vec<String>) -> Option<String> {
    let fits = |address: &String| call.pattern.is_none_or(|pattern| pattern.is_match(address.as_bytes()));
    addresses
        .into_iter()
        .map(|address| address.to_lowercase())
        .find(|address| is_freemail(call, address) && fits(address))
}

fn check_freemail_header(call: &Call<'_>) -> Option<String> {
    let name = argument(call, 0).split(':').next().unwrap_or_default();
    let addresses = if name.eq_ignore_ascii_case("envelopefrom") {
        call.targets.envelope_from().map(str::to_owned).into_iter().collect()
    } else {
        call.targets.addresses(&name.to_ascii_lowercase())
    };
    freemail(call, addresses)
}

/// The envelope of lists and programs.
fn is_bulk(envelope: &str) -> bool {
    let Some((user, _)) = envelope.split_once('@') else { return false };
    let user = user.to_lowercase();
    let starts = ["sentto-", "owner-", "return-", "bounce-", "bounced-", "grbounce-", "grbounced-"];
    let ends = ["-request", "-bounce", "-bounces", "-admin", "-owner"];
    let plain: String = user.chars().filter(|c| !matches!(c, '.' | '_' | '-')).collect();
    matches!(user.as_str(), "postmaster" | "hostmaster" | "domainmaster")
        || user.starts_with("double-bounce")
        || starts.iter().any(|start| user.starts_with(start))
        || ends.iter().any(|end| user.ends_with(end))
        || plain.ends_with("noreply")
        || plain.ends_with("noreplies")
        || user.split_once('=').is_some_and(|(one, other)| !one.is_empty() && !other.is_empty())
}

/// Mail from one freemail address that wants the answer at another, by its header or in its text.
fn check_freemail_replyto(call: &Call<'_>) -> Option<String> {
    if call.targets.envelope_from().is_some_and(is_bulk) {
        return None;
    }
    let lower = |name: &str| -> Vec<String> {
        call.targets.addresses(name).iter().map(|address| address.to_lowercase()).collect()
    };
    let (from, reply) = (lower("from"), lower("reply-to"));
    let from_free = from.iter().any(|address| is_freemail(call, address));
    let reply_free = reply.iter().any(|address| is_freemail(call, address));
    if from_free && reply_free && !from.iter().any(|address| reply.contains(address)) {
        return Some(format!("{}, {}", from.join(" "), reply.join(" ")));
    }
    let by_text = argument(call, 0) == "reply";
    let may_be = if by_text { from_free && (reply_free || reply.is_empty()) } else { reply_free };
    if !may_be {
        return None;
    }
    let wanted = if reply_free { &reply } else { &from };
    body_freemail(call, wanted)
}

/// A freemail address in the text that is none of `known`.
fn body_freemail(call: &Call<'_>, known: &[String]) -> Option<String> {
    const ADDRESSES_MAX: usize = 5;
    const FREE_MAX: usize = 3;
    let mut all: Vec<String> = Vec::new();
    for link in call.targets.links().as_slice() {
        let has = |kind: &str| link.kinds.iter().any(|known| known == kind);
        if let Some(address) = link.url.strip_prefix("mailto:").filter(|_| has("a") && !has("parsed")) {
            add(call, &mut all, address);
        }
    }
    for piece in call.targets.body().iter() {
        if memchr::memchr(b'@', piece).is_none() {
            continue;
        }
        let text = String::from_utf8_lossy(piece);
        let words: Vec<&str> = text.split([' ', '\n']).collect();
        for (at, word) in words.iter().enumerate() {
            if !word.contains('@') || word.contains("://") {
                continue;
            }
            // `address>` and `address wrote:` are quotations.
            let next = words.get(at + 1).copied().unwrap_or_default();
            let letters = next
                .strip_suffix(':')
                .is_some_and(|word| (2..=11).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphabetic()));
            let contact = ["fax", "facsi", "tel", "phone", "mail", "e-mail", "email"]
                .iter()
                .any(|word| next.to_ascii_lowercase().starts_with(word));
            if word.contains('>') || (letters && !contact) {
                continue;
            }
            add(call, &mut all, word);
        }
    }
    let free: Vec<&String> = all.iter().filter(|address| is_freemail(call, address)).collect();
    if all.len() >= ADDRESSES_MAX || free.len() >= FREE_MAX {
        return None;
    }
    let found = free.into_iter().find(|address| known.is_empty() || known.iter().any(|known| known != *address));
    found.filter(|address| call.pattern.is_none_or(|pattern| pattern.is_match(address.as_bytes()))).cloned()
}

/// The address in a word, each once.
fn add(call: &Call<'_>, all: &mut Vec<String>, word: &str) {
    let is_user = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+/=?^_`{|}~.-".contains(c);
    let Some((user, domain)) = word.split_once('@') else { return };
    let start = user.rfind(|c| !is_user(c)).map_or(0, |at| at + user[at..].chars().next().map_or(1, char::len_utf8));
    let user = user[start..].trim_start_matches('.');
    let end = domain.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))).unwrap_or(domain.len());
    let domain = domain[..end].trim_end_matches(['.', '-']);
    if user.is_empty()
        || user.len() > 64
        || !crate::url::is_host_name(domain)
        || !call.targets.settings().boundaries.is_valid(domain)
    {
        return;
    }
    let address = format!("{user}@{domain}").to_lowercase();
    if all.len() < 40 && !all.contains(&address) {
        all.push(address);
    }
}
