//! The way that a message came, and whether it fits its sender.

use std::net::Ipv4Addr;

use super::headers::is_gated;
use super::{Call, Function, address_of, argument, flag};
use crate::rules::relays::{Relay, is_private};

pub const FUNCTIONS: &[(&str, Function)] = &[
    ("check_all_trusted", |call| {
        let relays = call.targets.relays();
        flag(!relays.trusted.is_empty() && relays.untrusted.is_empty() && relays.unparseable == 0)
    }),
    ("check_for_forged_eudoramail_received_headers", forged_eudoramail),
    ("check_for_forged_gmail_received_headers", forged_gmail),
    ("check_for_forged_gw05_received_headers", |_| None),
    ("check_for_forged_hotmail_received_headers", |call| flag(hotmail(call) == Hotmail::Forged)),
    ("check_for_forged_juno_received_headers", forged_juno),
    ("check_for_forged_received_ip_helo", |call| flag(mismatches(call).1 > 0)),
    ("check_for_forged_received_trail", |call| flag(mismatches(call).0 > 1)),
    ("check_for_forged_yahoo_received_headers", forged_yahoo),
    ("check_for_from_domain_in_received_headers", from_domain_in_received),
    ("check_for_msn_groups_headers", |_| None),
    ("check_for_no_hotmail_received_headers", |call| flag(hotmail(call) == Hotmail::Missing)),
    ("check_for_no_rdns_dotcom_helo", no_name_for_known_helo),
    ("check_for_numeric_helo", numeric_helo),
    ("check_for_sender_no_reverse", |call| {
        let last = call.targets.relays().untrusted.last()?;
        flag(last.reverse_name.contains('.') && !last.ip.is_some_and(is_private))
    }),
    ("check_mailfrom_matches_rcvd", mailfrom_matches_received),
    ("check_no_relays", |call| {
        let relays = call.targets.relays();
        flag(relays.is_empty() && relays.unparseable == 0)
    }),
    ("check_relays_unparseable", |call| flag(call.targets.relays().unparseable > 0)),
    ("gated_through_received_hdr_remover", |call| flag(is_gated(call.targets))),
    ("helo_ip_mismatch", helo_ip_mismatch),
];

/// The sender's domain is that of the server which brought the message.
fn mailfrom_matches_received(call: &Call<'_>) -> Option<String> {
    let (_, domain) = call.targets.envelope_from()?.rsplit_once('@')?;
    if !domain.contains('.') {
        return None;
    }
    let boundaries = &call.targets.settings().boundaries;
    let domain = boundaries.domain(domain);
    let relays = call.targets.relays();
    let nearest = relays.untrusted.get(..1).unwrap_or(&relays.trusted);
    let mut names = nearest.iter().map(|relay| relay.reverse_name.to_lowercase()).filter(|name| !name.is_empty());
    names.find(|name| boundaries.domain(name) == domain)
}

fn ipv4(text: &str) -> Option<Ipv4Addr> {
    text.trim_matches('!').parse().ok()
}

fn is_public(ip: Ipv4Addr) -> bool {
    !is_private(ip.into())
}

fn numeric_helo(call: &Call<'_>) -> Option<String> {
    call.targets
        .relays()
        .untrusted
        .iter()
        .map(|relay| &relay.helo)
        .find(|helo| helo.parse().is_ok_and(is_public))
        .cloned()
}

/// A greeting with an address from another network.
fn helo_ip_mismatch(call: &Call<'_>) -> Option<String> {
    let differs = |relay: &&Relay| -> bool {
        let helo = relay.helo.parse::<Ipv4Addr>().ok().filter(|ip| is_public(*ip));
        let ip = ipv4(&relay.ip_text).filter(|ip| is_public(*ip));
        helo.zip(ip).is_some_and(|(helo, ip)| helo.octets()[..3] != ip.octets()[..3])
    };
    call.targets.relays().untrusted.iter().find(differs).map(|relay| relay.helo.clone())
}

/// Big providers' servers have names; the last foreign hop counts.
fn no_name_for_known_helo(call: &Call<'_>) -> Option<String> {
    const KNOWN: &[&str] = &[
        "lycos.com",
        "lycos.co.uk",
        "hotmail.com",
        "localhost.com",
        "excite.com",
        "caramail.com",
        "cs.com",
        "aol.com",
        "msn.com",
        "yahoo.com",
        "drizzle.com",
    ];
    let mut public = call.targets.relays().untrusted.iter().filter(|relay| !relay.ip.is_some_and(is_private));
    let last = public.next_back()?;
    let helo = last.helo.to_lowercase();
    let known =
        KNOWN.iter().any(|name| helo.strip_suffix(name).is_some_and(|start| start.is_empty() || start.ends_with('.')));
    (known && last.has_no_name()).then_some(helo)
}

/// Roughly the name that one registers: the rules were made with this.
fn rough_domain(host: &str) -> String {
    let host = host.to_lowercase();
    if !host.contains(|c: char| c.is_ascii_alphabetic()) {
        return host;
    }
    let labels: Vec<&str> = host.split('.').collect();
    let last = labels.last().copied().unwrap_or_default();
    let kept = match labels.len() {
        0 | 1 => 1,
        _ if last.len() >= 3 || ["ie", "fr", "de"].iter().any(|top| last.contains(top)) => 2,
        2 => 2,
        _ => 3,
    };
    labels.get(labels.len() - kept.min(labels.len())..).unwrap_or_default().join(".")
}

fn is_full_name(name: &str) -> bool {
    let labels: Vec<&str> = name.split('.').collect();
    labels.len() > 1
        && labels.iter().all(|label| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        })
}

/// Hops whose server is not the one that the hop above names, and greetings with an address of elsewhere.
fn mismatches(call: &Call<'_>) -> (usize, usize) {
    let (mut from, mut helo) = (0, 0);
    let mut above: Option<String> = None;
    for (at, relay) in call.targets.relays().untrusted.iter().enumerate() {
        let by = rough_domain(&relay.by);
        let name = rough_domain(&relay.reverse_name);
        let local = matches!(name.as_str(), "localhost" | "localhost.localdomain") && relay.ip_text == "127.0.0.1";
        if is_full_name(&by) {
            if let (Ok(greeted), Some(ip)) = (relay.helo.parse::<Ipv4Addr>(), ipv4(&relay.ip_text))
                && greeted.octets()[..2] != ip.octets()[..2]
                && is_public(greeted)
            {
                helo += 1;
            }
            let differs = above.as_ref().is_some_and(|above| is_full_name(above) && *above != by);
            from += usize::from(at > 0 && differs && !(by == "msn.com" && above.as_deref() == Some("hotmail.com")));
        }
        above = (!local).then_some(name);
    }
    (from, helo)
}

fn from_domain_in_received(call: &Call<'_>) -> Option<String> {
    let domain = argument(call, 0).to_lowercase();
    let from = address_of(call, "from").to_lowercase();
    if !from.contains(&domain) {
        return None;
    }
    let relays = call.targets.relays();
    let ends = |name: &str| {
        name.to_lowercase().strip_suffix(&domain).is_some_and(|start| !start.ends_with(|c: char| c.is_alphanumeric()))
    };
    let seen = relays.trusted.iter().chain(&relays.untrusted).any(|relay| ends(&relay.reverse_name) && ends(&relay.by));
    flag(seen == (argument(call, 1) == "true"))
}

/// All `Received` fields, white space folded.
fn received(call: &Call<'_>) -> String {
    call.targets.joined("received").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_from(call: &Call<'_>, domain: &str) -> bool {
    let from = address_of(call, "from").to_lowercase();
    from.strip_suffix(domain).is_some_and(|start| !start.ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

#[derive(PartialEq, Eq)]
enum Hotmail {
    Fine,
    Forged,
    Missing,
}

fn has_address(call: &Call<'_>, name: &str) -> bool {
    let value = call.targets.joined(name);
    value
        .split(|c: char| !(c.is_ascii_hexdigit() || matches!(c, '.' | ':')))
        .any(|word| word.parse::<std::net::IpAddr>().is_ok())
}

fn hotmail(call: &Call<'_>) -> Hotmail {
    let text = received(call);
    if text.contains("from mail pickup service by hotmail.com with Microsoft SMTPSVC;") || is_gated(call.targets) {
        return Hotmail::Fine;
    }
    let address = has_address(call, "x-originating-ip");
    let origin = call.targets.joined("x-originatororg");
    let origin = origin.contains("hotmail.com") || origin.contains("msonline-outlook");
    let hops: Vec<&str> = text.split("from ").skip(1).collect();
    let by_address = hops.iter().any(|hop| {
        let (name, rest) = hop.split_once(' ').unwrap_or((hop, ""));
        let name_of = rest.strip_prefix('(').and_then(|rest| rest.split([' ', ')']).next()).unwrap_or_default();
        (name.ends_with("hotmail.com")
            && (name_of.ends_with(".hotmail.com")
                || name_of.ends_with(".hotmail.msn.com")
                || (name.contains(".hotmail.com") && rest.starts_with("(["))))
            || (rest.starts_with("by ") && rest.contains("hotmail") && rest.contains(".com with HTTP;"))
            || (name.starts_with("[66.218.") && rest.contains(".yahoo.com"))
    });
    let by_origin = hops.iter().any(|hop| {
        let name = hop.split(' ').next().unwrap_or_default();
        name.ends_with(".outbound.protection.outlook.com") || name.ends_with(".prod.outlook.com")
    });
    if (address && by_address) || (origin && by_origin) {
        return Hotmail::Fine;
    }
    let claims = ["from ", "HELO ", "helo="].iter().any(|mark| {
        text.match_indices(mark).any(|(at, _)| {
            let word = text[at + mark.len()..].split(' ').next().unwrap_or_default();
            word.find("hotmail.com").is_some_and(|at| !word[at + 11..].starts_with(|c: char| c.is_alphanumeric()))
        })
    });
    if claims {
        Hotmail::Forged
    } else if is_from(call, "hotmail.com") {
        Hotmail::Missing
    } else {
        Hotmail::Fine
    }
}

fn forged_eudoramail(call: &Call<'_>) -> Option<String> {
    let genuine = received(call).contains("whowhere.com;") && has_address(call, "x-sender-ip");
    flag(is_from(call, "eudoramail.com") && !is_gated(call.targets) && !genuine)
}

fn forged_yahoo(call: &Call<'_>) -> Option<String> {
    if !is_from(call, "yahoo.com") || is_gated(call.targets) {
        return None;
    }
    let relays = call.targets.relays();
    let ours = |relay: &Relay| relay.reverse_name.ends_with(".yahoo.com");
    if relays.trusted.iter().any(ours) || relays.untrusted.first().is_some_and(ours) {
        return None;
    }
    let text = received(call);
    let genuine = text.split(" by ").skip(1).any(|hop| {
        let (server, rest) = hop.split_once(' ').unwrap_or((hop, ""));
        let (server, rest) = (server.to_lowercase(), rest);
        server.ends_with(".yahoo.com")
            && ((server.starts_with("web") && server.contains(".mail") && rest.starts_with("via HTTP"))
                || (server.starts_with("sonic") && server.contains(".consmr.mail") && rest.starts_with("with HTTP"))
                || (server.starts_with("smtp") && rest.starts_with("with SMTP"))
                || rest.starts_with("with NNFMP")
                || (rest.starts_with('(')
                    && rest.contains(") ")
                    && rest.contains(" id ")
                    && rest[1..].starts_with(|c: char| c.is_ascii_digit())))
    });
    let bulk = text.contains(".bulk.scd.yahoo.com") && is_from(call, "reply.yahoo.com");
    flag(!genuine && !bulk)
}

fn forged_juno(call: &Call<'_>) -> Option<String> {
    if !is_from(call, "juno.com") || is_gated(call.targets) {
        return None;
    }
    let text = call.targets.joined("received");
    let mailer = call.targets.joined("x-mailer");
    let own = text.contains("juno.com") || text.contains("untd.com");
    if !call.targets.joined("x-originating-ip").is_empty() {
        return flag(!own || !mailer.contains("Juno "));
    }
    let webmail = text.contains("from webmail") && text.contains(".untd.com");
    let genuine = webmail && mailer.starts_with("Webmail Version ") && has_address(call, "x-originating-ip");
    flag(!genuine)
}

fn forged_gmail(call: &Call<'_>) -> Option<String> {
    if !is_from(call, "gmail.com") {
        return None;
    }
    let own = call.targets.joined("x-received");
    let taken = own.contains(" with SMTP id ") && (own.contains("by 10.") || own.contains("by 2002:a"));
    let submitted = call.targets.joined("received").contains("by smtp.googlemail.com with ESMTPSA id ");
    let long = |name: &str| call.targets.joined(name).len() >= 60;
    flag(!(taken || submitted || (long("x-gm-message-state") && long("x-google-smtp-source"))))
}
