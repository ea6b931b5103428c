//! Header fields and pseudo-fields, in the forms that rules ask for.

use super::mailbox;
use super::mime::HeaderField;
use super::parse::{Field, FieldPart, Only, Pick};
use super::target::Targets;
use super::text;
use crate::url;

/// Fields that hold a message's id, in the order in which rules see them.
const MESSAGE_ID_FIELDS: &[&str] = &["x-message-id", "resent-message-id", "x-original-message-id", "message-id"];
/// Most bytes of `ALL`.
const ALL_BYTES_MAX: usize = 64 << 10;

/// All values, each with a line end where it is a whole field.
pub fn values(targets: &Targets<'_>, field: &Field) -> Vec<Vec<u8>> {
    let raw = field.raw || field.part != FieldPart::Whole;
    let relays = || targets.relays();
    let mut values: Vec<Vec<u8>> = match field.name.as_str() {
        "ALL" => return if field.raw { all_raw(targets) } else { all(targets.fields(), false) },
        "ALL-TRUSTED" => return hops(targets, field.raw, None, Some(relays().trusted_fields)),
        "ALL-INTERNAL" => return hops(targets, field.raw, None, Some(relays().internal_fields)),
        "ALL-UNTRUSTED" => return hops(targets, field.raw, Some(relays().trusted_fields), None),
        "ALL-EXTERNAL" => return hops(targets, field.raw, Some(relays().internal_fields), None),
        "ToCc" => [whole(targets, "to", raw), whole(targets, "cc", raw)].concat(),
        "MESSAGEID" => MESSAGE_ID_FIELDS.iter().flat_map(|name| whole(targets, name, raw)).collect(),
        "EnvelopeFrom" => targets.envelope_from().map(|address| address.as_bytes().to_vec()).into_iter().collect(),
        name if name.starts_with("x-spam-relays-") => {
            relays().field(name).map(String::into_bytes).into_iter().collect()
        }
        name if name.starts_with("x-relay-countries") => {
            let found = targets.context().countries.and_then(|countries| relays().countries(name, countries));
            found.map(String::into_bytes).into_iter().collect()
        }
        name => whole(targets, name, raw),
    };
    match field.only {
        Some(Only::First) => values.truncate(1),
        Some(Only::Last) => values = values.pop().into_iter().collect(),
        None => {}
    }
    if field.part != FieldPart::Whole {
        let entries = values.iter().flat_map(|value| mailbox::parse(&String::from_utf8_lossy(value)));
        values = entries
            .filter_map(|entry| match field.part {
                FieldPart::Address => entry.address,
                FieldPart::DisplayName if field.raw => entry.name,
                FieldPart::DisplayName | FieldPart::Whole => entry.name.map(|name| display_name(&name)),
            })
            .map(String::into_bytes)
            .collect();
    }
    match field.pick {
        Pick::Whole => values,
        pick => {
            values.iter().filter_map(|value| picked(targets, field, pick, &String::from_utf8_lossy(value))).collect()
        }
    }
}

fn whole(targets: &Targets<'_>, name: &str, raw: bool) -> Vec<Vec<u8>> {
    let found = targets.fields().iter().filter(|field| field.name == name);
    found.map(|field| if raw { field.raw.clone() } else { [field.decoded.as_slice(), b"\n"].concat() }).collect()
}

/// Every field with its name, decoded or as written.
pub fn all(fields: &[HeaderField], raw: bool) -> Vec<Vec<u8>> {
    let mut size = 0;
    let lines = fields.iter().map(|field| {
        let name = field.name_as_written.as_bytes();
        if raw { [name, b":", &field.raw].concat() } else { [name, b": ", &field.decoded, b"\n"].concat() }
    });
    lines
        .take_while(|line| {
            size += line.len();
            size <= ALL_BYTES_MAX
        })
        .collect()
}

/// The header as sent, a piece for each field.
fn all_raw(targets: &Targets<'_>) -> Vec<Vec<u8>> {
    let mut out: Vec<Vec<u8>> = Vec::new();
    for line in targets.mime().header.split_inclusive(|b| *b == b'\n') {
        match out.last_mut() {
            Some(last) if matches!(line.first(), Some(b' ' | b'\t')) => last.extend_from_slice(line),
            Some(_) | None => out.push(line.to_vec()),
        }
    }
    out
}

/// Fields between two `Received` fields, counted from the top; the one at the edge belongs to both sides.
fn hops(targets: &Targets<'_>, raw: bool, from: Option<usize>, to: Option<usize>) -> Vec<Vec<u8>> {
    if to == Some(0) && from.is_none() && targets.relays().is_empty() {
        // Nothing at all is known of the way.
    }
    let lines = if raw { all_raw(targets) } else { all(targets.fields(), false) };
    let mut seen: Option<usize> = None;
    let mut out = Vec::new();
    for line in lines {
        if line.get(..9).is_some_and(|name| name.eq_ignore_ascii_case(b"received:")) {
            seen = Some(seen.map_or(0, |seen| seen + 1));
        }
        let after = from.is_none_or(|from| seen.is_some_and(|seen| from <= seen));
        let before = to.is_none_or(|to| seen.is_none_or(|seen| seen < to));
        if after && before {
            out.push(line);
        } else if to.is_some() && seen == to {
            out.push(line);
            break;
        }
    }
    out
}

/// A name as people see it.
pub fn display_name(name: &str) -> String {
    let decoded = text::decoded_header(name.as_bytes(), "");
    let text = String::from_utf8_lossy(&decoded);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let inside = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
    inside.map(str::to_owned).unwrap_or(text)
}

fn picked(targets: &Targets<'_>, field: &Field, pick: Pick, value: &str) -> Option<Vec<u8>> {
    let boundaries = &targets.settings().boundaries;
    let host = match pick {
        Pick::Whole => Some(value.to_owned()),
        Pick::Ip | Pick::ReversedIp => {
            let words = value.split(|c: char| !(c.is_ascii_hexdigit() || matches!(c, '.' | ':')));
            let ip: std::net::IpAddr = words.filter_map(|word| word.parse().ok()).next()?;
            Some(if pick == Pick::Ip { ip.to_string() } else { reversed(ip) })
        }
        Pick::Host | Pick::Domain => {
            let host = if field.part == FieldPart::Address {
                value.rsplit_once('@').map(|(_, host)| host.split_whitespace().next().unwrap_or_default().to_owned())
            } else {
                let is_host = |word: &&str| url::is_host_name(word) && boundaries.is_valid(word);
                let words = |text: &str| -> Option<String> {
                    let mut words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c)));
                    words.find(is_host).map(str::to_owned)
                };
                value.rsplit_once('@').and_then(|(_, after)| words(after)).or_else(|| words(value))
            };
            if pick == Pick::Domain { host.map(|host| boundaries.domain(&host)) } else { host }
        }
    };
    host.filter(|host| !host.is_empty()).map(String::into_bytes)
}

/// As lists in DNS want it.
fn reversed(ip: std::net::IpAddr) -> String {
    match ip {
        std::net::IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}")
        }
        std::net::IpAddr::V6(ip) => {
            let digits: String = ip.octets().iter().map(|octet| format!("{octet:02x}")).collect();
            digits.chars().rev().map(String::from).collect::<Vec<_>>().join(".")
        }
    }
}

/// MAIL FROM as an earlier server noted it: in `Received`, else in a field above the first of those.
pub fn envelope_from(targets: &Targets<'_>) -> Option<String> {
    let relays = targets.relays();
    let last_hop = relays.untrusted.first().or_else(|| relays.trusted.last());
    if let Some(noted) = last_hop.and_then(|relay| relay.envelope_from.clone())
        && (noted.is_empty() || noted.find('@').is_some_and(|at| at > 0))
    {
        return Some(noted);
    }
    let first = |name: &str| {
        let field = Field { part: FieldPart::Address, only: Some(Only::First), ..Field::plain(name) };
        values(targets, &field).into_iter().next().map(|value| String::from_utf8_lossy(&value).into_owned())
    };
    let fetched = || targets.values("received").any(|value| value.contains("(fetchmail"));
    if first("x-sender").is_some_and(|sender| sender.contains('@')) && fetched() {
        return None;
    }
    for name in ["x-envelope-from", "envelope-sender", "return-path"] {
        let Some(address) = first(name) else { continue };
        let place = |wanted: &str| targets.field_names().position(|name| name == wanted);
        let last = targets.fields().iter().rposition(|field| field.name == name);
        // Below a `Received` field it may come from anybody.
        let is_below = place("received").zip(last).is_some_and(|(received, field)| received < field);
        match (is_below, name) {
            (false, _) => return Some(address),
            (true, "x-envelope-from") => return None,
            (true, _) => {}
        }
    }
    None
}

/// Fields in which web mailers note the browser's address, as `Received` fields of their own.
pub fn originating(targets: &Targets<'_>) -> Vec<String> {
    let mut out = Vec::new();
    for name in &targets.settings().originating_ip_headers {
        let Some(value) = targets.values(name).last() else { continue };
        let mut words = value.split(|c: char| !(c.is_ascii_hexdigit() || matches!(c, '.' | ':')));
        if let Some(ip) = words.find(|word| word.parse::<std::net::IpAddr>().is_ok()) {
            out.push(format!("from X-Originating-IP: {ip}"));
        }
    }
    out
}
