//! What header fields say, and what they should say.

use std::collections::HashSet;

use base::UtcMillis;

use super::{Call, Function, address_of, argument, flag, number, size};
use crate::rules::dates;
use crate::rules::target::Targets;

pub const FUNCTIONS: &[(&str, Function)] = &[
    ("check_equal_from_domains", check_equal_from_domains),
    ("check_for_fake_aol_relay_in_rcvd", check_for_fake_aol_relay),
    ("check_for_faraway_charset", |_| None),
    ("check_for_faraway_charset_in_headers", |_| None),
    ("check_for_matching_env_and_hdr_from", check_for_matching_env_and_hdr_from),
    ("check_for_missing_to_header", |call| {
        flag(["to", "apparently-to"].iter().all(|name| call.targets.joined(name).is_empty()))
    }),
    ("check_for_shifted_date", check_for_shifted_date),
    ("check_for_to_in_subject", check_for_to_in_subject),
    ("check_for_unique_subject_id", |_| None),
    ("check_header_count_range", check_header_count_range),
    ("check_illegal_chars", check_illegal_chars),
    ("check_messageid_not_usable", check_messageid_not_usable),
    ("check_outlook_message_id", check_outlook_message_id),
    ("check_ratware_envelope_from", check_ratware_envelope_from),
    ("check_ratware_name_id", check_ratware_name_id),
    ("check_unresolved_template", check_unresolved_template),
    ("similar_recipients", similar_recipients),
    ("sorted_recipients", sorted_recipients),
    ("subject_is_all_caps", subject_is_all_caps),
];

fn check_for_matching_env_and_hdr_from(call: &Call<'_>) -> Option<String> {
    let envelope = call.targets.envelope_from().unwrap_or_default().to_lowercase();
    let from = address_of(call, "from").to_lowercase();
    (envelope == from).then_some(envelope)
}

/// The last two labels.
fn second_level(address: &str) -> Option<String> {
    let domain = address.rsplit_once('@')?.1.to_lowercase();
    let labels: Vec<&str> = domain.split('.').collect();
    let kept = labels.get(labels.len().saturating_sub(2)..).unwrap_or_default().join(".");
    (!kept.is_empty()).then_some(kept)
}

fn check_equal_from_domains(call: &Call<'_>) -> Option<String> {
    let from = second_level(&address_of(call, "from"))?;
    let envelope = second_level(call.targets.envelope_from()?)?;
    (from != envelope).then(|| format!("{from}, {envelope}"))
}

fn check_for_fake_aol_relay(call: &Call<'_>) -> Option<String> {
    let received = call.targets.joined("received");
    let text = received.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let relay = text.match_indices(" rly-").any(|(at, _)| {
        let name = text.as_bytes().get(at + 5..at + 10).unwrap_or_default();
        matches!(name, [a, b, c, d, b'.'] if a.is_ascii_lowercase() && b.is_ascii_lowercase() && c.is_ascii_digit() && d.is_ascii_digit())
    });
    let genuine = text.contains("/aol-")
        || ["relay", "mailrelay", "mailin"].iter().any(|id| text.contains(&format!("esmtp id {id}")));
    flag(relay && !genuine)
}

/// Seconds between the `Date` field and the `Received` field that is nearest to it.
fn seconds_off(targets: &Targets<'_>) -> Option<i64> {
    let date =
        ["resent-date", "date"].iter().find_map(|name| targets.values(name).find_map(|value| dates::parse(&value)))?;
    let times = dates::received(targets);
    let mut off: Vec<i64> = times.iter().map(|time| date - time).collect();
    // A first hop that wrote the date itself says nothing.
    if off.len() > 1 && off.last() == Some(&0) {
        off.pop();
    }
    let nearest = off.into_iter().min_by_key(|off| off.abs());
    let came = || targets.context().received_at.map(|UtcMillis(now)| date - now / 1000);
    nearest.or_else(came).or(Some(0))
}

/// `(low, high)` in hours.
fn check_for_shifted_date(call: &Call<'_>) -> Option<String> {
    // A dozen rules ask, each for other hours.
    let seconds = call.targets.seconds_off.get_or_init(|| seconds_off(call.targets)).unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "hours need no exactness")]
    let hours = seconds as f64 / 3600.0;
    let holds = number(call, 0).is_none_or(|low| hours >= low) && number(call, 1).is_none_or(|high| hours < high);
    holds.then(|| format!("{hours:.0} hours"))
}

/// The recipient's name in the subject: `('user')` its local part, `('address')` the whole.
fn check_for_to_in_subject(call: &Call<'_>) -> Option<String> {
    let address = address_of(call, "to").to_lowercase();
    if address.is_empty() {
        return None;
    }
    let subject = call.targets.joined("subject").to_lowercase();
    let subject = subject.trim_end_matches('\n');
    if argument(call, 0) == "address" {
        let found = subject.match_indices(&address).any(|(at, _)| {
            let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            !word(subject[..at].chars().next_back()) && !word(subject[at + address.len()..].chars().next())
        });
        return found.then_some(address);
    }
    let user = address.split('@').next()?.to_owned();
    let bare = subject.strip_prefix("re:").or_else(|| subject.strip_prefix("fw:")).map(str::trim_start);
    let replied = bare.is_some_and(|bare| {
        bare == user
            || bare
                .strip_suffix(&user)
                .is_some_and(|word| word.ends_with(' ') && !word.trim().is_empty() && !word.trim().contains(' '))
    });
    let addressed = call.targets.subject().strip_prefix(&user).is_some_and(|rest| {
        let rest = rest.trim_start();
        let after = rest.strip_prefix([',', ':', ';', '!', '?', '-']);
        after.is_some_and(|after| after.is_empty() || after.starts_with(char::is_whitespace))
    });
    let listed =
        subject.strip_prefix(',').map(str::trim_start).and_then(|rest| rest.strip_prefix(user.as_str())).is_some_and(
            |rest| rest.trim_end().is_empty() || (rest.len() == 1 && rest.starts_with([',', ':', ';', '!', '?', '-'])),
        );
    (subject == user || replied || addressed || listed).then_some(user)
}

/// How many different values a field has.
fn check_header_count_range(call: &Call<'_>) -> Option<String> {
    let name = argument(call, 0).to_ascii_lowercase();
    let values: HashSet<_> = call.targets.values(&name).collect();
    let count = size(values.len());
    let holds = number(call, 1).is_none_or(|low| count >= low) && number(call, 2).is_none_or(|high| count <= high);
    holds.then(|| format!("{name}: {count}"))
}

/// Share of raw bytes that have no place in a field: `('Subject', ratio, count)`. Clean UTF-8 has (RFC 6532).
fn check_illegal_chars(call: &Call<'_>) -> Option<String> {
    let name = argument(call, 0).split(':').next()?;
    let text: Vec<u8> = if name == "ALL" {
        call.targets.mime().header.clone()
    } else {
        let wanted = name.to_ascii_lowercase();
        call.targets.fields().iter().filter(|field| field.name == wanted).flat_map(|field| field.raw.clone()).collect()
    };
    let is_control = |b: &u8| matches!(b, 0..=8 | 0x0b | 0x0c | 0x0e..=0x1f);
    if !text.is_ascii() && std::str::from_utf8(&text).is_ok() && !text.iter().any(is_control) {
        return None;
    }
    let mut illegal = text.iter().filter(|b| is_control(b) || **b >= 0x7f).count();
    let currency = text.iter().filter(|b| matches!(b, 0xa2 | 0xa3 | 0xae)).count();
    if illegal > 0 && name.eq_ignore_ascii_case("subject") && currency == 1 {
        illegal -= 1;
    }
    let ratio = size(illegal) / size(text.len().max(1));
    flag(!text.trim_ascii().is_empty() && ratio >= number(call, 1)? && size(illegal) >= number(call, 2).unwrap_or(0.0))
}

/// True where lists or servers leave the way of a message out of its header.
pub fn is_gated(targets: &Targets<'_>) -> bool {
    let received = targets.joined("received");
    let list = targets.joined("mailing-list");
    let is_ezmlm =
        list.lines().any(|line| line.starts_with("contact ") && line.contains('@') && line.ends_with("; run by ezmlm"));
    let delivered = targets.joined("delivered-to");
    let is_list =
        delivered.lines().any(|line| line.strip_prefix("mailing list ").is_some_and(|rest| rest.contains('@')));
    if is_ezmlm && is_list && received.contains("(qmail ") && received.contains(" invoked ") {
        return true;
    }
    received.is_empty() || received.contains("from groups.msn.com (")
}

fn check_messageid_not_usable(call: &Call<'_>) -> Option<String> {
    let leave = call.targets.joined("list-unsubscribe").to_lowercase();
    let leaves = leave.trim_end().ends_with('>')
        && leave.rsplit_once("<mailto:").is_some_and(|(_, rest)| {
            rest.split('@').next().is_some_and(|name| name.starts_with("leave-") || name.ends_with("-unsubscribe"))
        });
    let received = call.targets.joined("received");
    flag(
        leaves
            || is_gated(call.targets)
            || received.contains("/CWT/DCE)")
            || received.contains("iPlanet Messaging Server"),
    )
}

/// Outlook's ids hold the time at which they were made.
fn check_outlook_message_id(call: &Call<'_>) -> Option<String> {
    let id = dates::message_ids(call.targets);
    let rest = id.strip_prefix('<')?;
    let parts: Vec<&str> = rest.split('@').next()?.split('$').collect();
    let [first, second, third] = parts.as_slice() else { return None };
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    if !(is_hex(first, 12) && is_hex(second, 8) && is_hex(third, 8)) {
        return None;
    }
    let token = i64::from_str_radix(first.get(4..)?, 16).ok()?;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "times of this age are exact in a double"
    )]
    let off = |time: i64| (token - (time as f64 * 0.002_328_306_436_538_7 + 27_111_902.832_984_9) as i64).abs();
    let date = call.targets.values("date").next().and_then(|value| dates::parse(&value)).unwrap_or(0);
    if off(date) < 250 {
        return None;
    }
    let received = call.targets.joined("received");
    let time = dates::in_received(&received).unwrap_or(0);
    flag(off(time) >= 250)
}

fn check_ratware_envelope_from(call: &Call<'_>) -> Option<String> {
    let envelope = call.targets.envelope_from()?.to_lowercase();
    let to = address_of(call, "to").to_lowercase();
    let (user, domain) = to.split_once('@')?;
    let boundaries = &call.targets.settings().boundaries;
    let domain = boundaries.domain(domain);
    let is_rewritten = envelope
        .strip_prefix("srs")
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()) && rest[1..].starts_with(['=', '+', '-']));
    if is_rewritten || !boundaries.is_valid(&domain) {
        return None;
    }
    // `domain-user@…`
    let found = envelope.match_indices(&domain).any(|(at, _)| {
        let before = envelope[..at].chars().next_back();
        let mut after = envelope[at + domain.len()..].chars();
        before.is_none_or(|c| !(c.is_alphanumeric() || c == '_'))
            && after.next().is_some()
            && after.as_str().strip_prefix(user).is_some_and(|rest| rest.starts_with('@'))
    });
    found.then_some(envelope)
}

/// An id of 28 capitals and the sender's own address.
fn check_ratware_name_id(call: &Call<'_>) -> Option<String> {
    let ids = dates::message_ids(call.targets);
    let from = call.targets.joined("from");
    let found = ids.split('<').skip(1).find_map(|id| {
        let (capitals, rest) = id.split_once('.')?;
        let address = rest.split('>').next()?;
        let is_id = capitals.len() == 28 && capitals.bytes().all(|b| b.is_ascii_uppercase());
        is_id.then(|| address.to_owned())
    })?;
    let (_, quoted) = from.split_once('"')?;
    let rest = quoted.split_once('"')?.1.trim_start();
    rest.strip_prefix('<').is_some_and(|rest| rest.starts_with(&found)).then_some(found)
}

/// `%NAME` left over from a mass mailer.
fn check_unresolved_template(call: &Call<'_>) -> Option<String> {
    const FREE: &[&str] = &[
        "x-vms-to",
        "x-uidl",
        "x-face",
        "to",
        "cc",
        "from",
        "subject",
        "references",
        "in-reply-to",
        "message-id",
        "x-message-id",
        "resent-message-id",
        "x-original-message-id",
    ];
    let is_template =
        |text: &[u8]| text.windows(3).any(|w| matches!(w, [b'%', b'A'..=b'Z', b'A'..=b'Z' | b'_' | b'-']));
    let found = call
        .targets
        .fields()
        .iter()
        .find(|field| !FREE.contains(&field.name.as_str()) && is_template(&field.decoded))?;
    Some(found.name_as_written.clone())
}

/// Different recipients that follow each other.
fn recipients(call: &Call<'_>) -> Vec<String> {
    let mut all = [call.targets.addresses("to"), call.targets.addresses("cc")].concat();
    if all.len() < 5 {
        all.extend(call.targets.addresses("bcc"));
    }
    all.dedup_by(|one, other| one.eq_ignore_ascii_case(other));
    all.truncate(256);
    all
}

fn sorted_recipients(call: &Call<'_>) -> Option<String> {
    let all = recipients(call);
    flag(all.len() >= 7 && all.is_sorted())
}

/// Share of pairs of recipients that begin alike.
fn similar_recipients(call: &Call<'_>) -> Option<String> {
    let all = recipients(call);
    if all.len() < 5 {
        return flag(number(call, 0).is_none_or(|low| low <= 0.0));
    }
    let start = |text: &str| text.chars().take(2).collect::<String>();
    let split: Vec<(String, String, String)> = all
        .iter()
        .map(|address| {
            let host = address.split_once('@').map_or("", |(_, host)| host);
            (start(address), start(host), host.to_owned())
        })
        .collect();
    let (mut hits, mut pairs) = (0, 0);
    for (at, one) in split.iter().enumerate() {
        for other in split.iter().skip(at + 1) {
            hits += usize::from(one.0 == other.0) + usize::from(one.1 == other.1 && one.2 != other.2);
            pairs += 1;
        }
    }
    let share = size(hits) / size(pairs.max(1));
    flag(number(call, 0).is_none_or(|low| share >= low) && number(call, 1).is_none_or(|high| share < high))
}

fn subject_is_all_caps(call: &Call<'_>) -> Option<String> {
    const PREFIXES: &[&str] = &["re", "fwd", "fw", "aw", "antwort", "wg", "sv", "vb", "vs", "vl"];
    let whole = call.targets.joined("subject");
    let mut subject = whole.trim();
    while let Some((prefix, rest)) =
        subject.split_once(':').filter(|(prefix, _)| PREFIXES.contains(&prefix.to_ascii_lowercase().as_str()))
    {
        let _ = prefix;
        subject = rest.trim_start();
    }
    if !subject.contains(char::is_whitespace) || subject.len() < 10 {
        return None;
    }
    let raw = call.targets.raw_values("subject").last().unwrap_or_default().to_ascii_lowercase();
    let odd = raw.split("=?").skip(1).any(|word| {
        let charset = word.split('?').next().unwrap_or_default();
        ["koi", "jp", "jis", "euc", "gb", "big5", "isoir", "cp1251", "windows-1251", "georgianps", "pt154", "tis"]
            .iter()
            .any(|name| charset.contains(name))
    });
    let mut letters = subject.bytes().filter(u8::is_ascii_alphabetic).peekable();
    let holds = !odd && letters.peek().is_some() && letters.all(|b| b.is_ascii_uppercase());
    holds.then(|| subject.to_owned())
}
