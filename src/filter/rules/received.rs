//! One `Received` field: who handed the message to whom. Every mail server writes it in its own way.

use std::net::IpAddr;
use std::sync::LazyLock;

use regex::bytes::{Regex, RegexBuilder};

use super::relays::Relay;
use super::template::{ADDRESS_BYTES_MAX, ADDRESS_BYTES_MIN, Template, address_bytes};

/// What a field says.
#[derive(Debug)]
pub enum Parsed {
    Relay(Box<Relay>),
    /// No hop between machines, or none that says enough: nothing to hold against the message.
    Skipped,
    /// The marker of a program that fetched the mail from a mailbox.
    Fetched,
    Unknown,
}

/// Longer fields are cut.
const BYTES_MAX: usize = 4000;

impl Parsed {
    /// `value` is unfolded.
    pub fn of(value: &str) -> Self {
        let value = value.get(..value.floor_char_boundary(BYTES_MAX.min(value.len()))).unwrap_or_default();
        let text = value.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut text = text.as_str();
        while let Some(cut) = text.strip_suffix(';') {
            text = cut.trim_end();
        }
        let lower = text.to_ascii_lowercase();
        if !(lower.starts_with("from ") || lower.starts_with("(from ")) || has(&lower, "with local for ") {
            return Self::Skipped;
        }
        if only_names(text) {
            return Self::Skipped;
        }
        let text = without_date(text).replace(")by ", ") by ");
        let relay = Relay {
            id: id(&text).to_owned(),
            helo: greeting(&text).to_owned(),
            by: first_after(&text, " by ", word).to_owned(),
            auth: authentication(&text),
            ..Relay::default()
        };
        let outcome = if let Some(rest) = text.strip_prefix("from ") {
            from(rest, relay)
        } else if let Some(rest) = text.strip_prefix("FROM ") {
            read(&UPPER_CASE, rest, relay)
        } else if let Some(rest) = text.strip_prefix("(from ") {
            if LOCAL_SENDER.iter().any(|form| form.is_match(rest)) {
                return Self::Skipped;
            }
            read(&GATEWAY, rest, relay)
        } else {
            Outcome::NotYet(Box::new(relay))
        };
        match outcome {
            Outcome::Done(relay) => finished(*relay),
            Outcome::Skip => Self::Skipped,
            Outcome::Fetched => Self::Fetched,
            Outcome::NotYet(mut relay) => {
                // An address in brackets and a name after `by` are enough.
                let rest = text.split_once("from ").map_or(text.as_str(), |(_, rest)| rest);
                if relay.ip_text.is_empty() {
                    relay.ip_text = in_brackets(rest).find(|ip| address(ip).is_some()).unwrap_or_default().to_owned();
                }
                if relay.ip_text.is_empty() || relay.by.is_empty() { Self::Unknown } else { finished(*relay) }
            }
        }
    }
}

enum Outcome {
    Done(Box<Relay>),
    Skip,
    Fetched,
    NotYet(Box<Relay>),
}

/// `from name by name;` tells nothing.
fn only_names(text: &str) -> bool {
    let words: Vec<&str> = text.splitn(5, ' ').collect();
    let [_, name, by, server, ..] = words.as_slice() else { return false };
    let ends = server.contains(';') || words.get(4).is_some_and(|rest| rest.starts_with(';'));
    let is_literal = name.starts_with('[') && name.ends_with(']') && name.len() > 2;
    let digits = name.trim_matches(['[', ']']).bytes().all(|b| b.is_ascii_digit() || b == b'.');
    by.eq_ignore_ascii_case("by") && ends && !server.starts_with(';') && !(is_literal && digits)
}

fn has(text: &str, wanted: &str) -> bool {
    memchr::memmem::find(text.as_bytes(), wanted.as_bytes()).is_some()
}

/// The text without the date at its end, and without what parts the two.
fn without_date(text: &str) -> &str {
    date(text).map_or(text, |start| text.get(..start).unwrap_or(text))
}

/// Where a date like `; Tue, 1 Sep 2020 10:00:00 +0200` begins that the text ends with.
fn date(text: &str) -> Option<usize> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (rest, zone) = text.rsplit_once(' ')?;
    let (rest, time) = rest.rsplit_once(' ')?;
    let (rest, year) = rest.rsplit_once(' ')?;
    let (rest, month) = rest.rsplit_once(' ')?;
    let numbers = time.split(':').count();
    let is_time = (2..=3).contains(&numbers) && time.split(':').all(is_number);
    if zone.is_empty() || !is_time || !is_number(year) || !MONTHS.contains(&month) {
        return None;
    }
    let before = rest.trim_end_matches(|c: char| c.is_ascii_digit());
    let parted = |text: &str| text.ends_with([' ', ';']);
    if before.len() == rest.len() || !parted(before) {
        return None;
    }
    let before_weekday = WEEKDAYS.iter().find_map(|day| before.strip_suffix(", ")?.strip_suffix(day));
    let start = before_weekday.filter(|text| parted(text)).unwrap_or(before);
    Some(start.trim_end_matches([' ', ';']).len())
}

const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Thu", "Wed", "Fri", "Sat", "Sun"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// What `take` makes of the text behind the first `mark` where it finds something; empty without one.
fn first_after<'t>(text: &'t str, mark: &str, take: impl Fn(&'t str) -> Option<&'t str>) -> &'t str {
    let mut rest = text;
    while let Some(at) = memchr::memmem::find(rest.as_bytes(), mark.as_bytes()) {
        if let Some(found) = take(&rest[at + mark.len()..]) {
            return found;
        }
        // The next mark may begin with the end of this one.
        rest = &rest[at + 1..];
    }
    ""
}

/// The start of the text without white space, if there is any.
fn word(text: &str) -> Option<&str> {
    while_in(text, |c| c != ' ')
}

fn while_in(text: &str, is_in: impl Fn(char) -> bool) -> Option<&str> {
    let end = text.find(|c| !is_in(c)).unwrap_or(text.len());
    text.get(..end).filter(|found| !found.is_empty())
}

fn id(text: &str) -> &str {
    first_after(text, " id ", |rest| {
        let id = while_in(rest.strip_prefix('<').unwrap_or(rest), |c| !matches!(c, ' ' | '<' | '>' | ';'))?;
        (id.chars().count() >= 3).then_some(id)
    })
}

/// What the client called itself: behind `helo=`, else behind the command's name.
fn greeting(text: &str) -> &str {
    let name = |text| while_in(text, |c| c.is_ascii_alphanumeric() || "-.^+_&:=?!@%*$\\/".contains(c));
    let as_word = |mark: &'static str| {
        let places = memchr::memmem::find_iter(text.as_bytes(), mark.as_bytes());
        let words = places.filter(|at| !text[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
        words.filter_map(move |at| Some((at, name(&text[at + mark.len()..])?)))
    };
    if let Some((_, found)) = as_word("helo=").next() {
        return found;
    }
    let commands = as_word("HELO ").next().into_iter().chain(as_word("EHLO ").next());
    commands.min().map_or("", |(_, found)| found)
}

/// Addresses in brackets.
fn in_brackets(text: &str) -> impl Iterator<Item = &str> {
    text.split('[').skip(1).filter_map(|rest| {
        let prefix = rest.get(..5).filter(|start| start.eq_ignore_ascii_case("ipv6:")).map_or(0, str::len);
        let length = address_bytes(&rest.as_bytes()[prefix..]);
        let closes = rest.as_bytes().get(prefix + length) == Some(&b']');
        let is_one = closes && (ADDRESS_BYTES_MIN..=ADDRESS_BYTES_MAX).contains(&length);
        is_one.then(|| &rest[..prefix + length])
    })
}

/// MAIL FROM, where the field notes it.
fn envelope(text: &str) -> &str {
    let lower = text.to_ascii_lowercase();
    let marks =
        ["return-path: ", "return-path ", "envelope-sender ", "envelope-sender=", "envelope-from ", "envelope-from="];
    let found = marks.iter().filter_map(|mark| {
        let places = memchr::memmem::find_iter(lower.as_bytes(), mark.as_bytes());
        places.filter_map(|at| Some((at, word(&text[at + mark.len()..])?))).next()
    });
    found.min().map_or("", |(_, found)| found)
}

/// The protocol of who proved himself, by its name; empty without one.
fn proven_protocol(text: &str) -> &str {
    let lower = text.to_ascii_lowercase();
    let mut places = memchr::memmem::find_iter(lower.as_bytes(), b"with ").filter(|at| lower[..*at].ends_with(' '));
    let protocol = places.find_map(|at| {
        let rest = &text[at + "with ".len()..];
        let name = rest.get(..rest.find([' ', ';']).unwrap_or(rest.len()))?;
        PROVEN.iter().any(|proven| name.eq_ignore_ascii_case(proven)).then_some(name)
    });
    protocol.unwrap_or_default()
}

const PROVEN: [&str; 12] = [
    "ESMTPA",
    "ESMTPSA",
    "LMTPA",
    "LMTPSA",
    "UTF8SMTPA",
    "UTF8SMTPSA",
    "UTF8LMTPA",
    "UTF8LMTPSA",
    "ASMTP",
    "HTTP",
    "HTTPS",
    "HTTPU",
];

/// `(via HTTP)` and the like.
fn via(text: &str) -> &str {
    let lower = text.to_ascii_lowercase();
    let mut places = memchr::memmem::find_iter(lower.as_bytes(), b" (via http");
    let found = places.find_map(|at| {
        let rest = &text[at + " (via ".len()..];
        let more = rest[4..].chars().next().map_or(0, char::len_utf8);
        let ends = |length: usize| {
            let after = rest.get(length..).and_then(|rest| rest.strip_prefix(')'));
            after.is_some_and(|after| after.is_empty() || after.starts_with([' ', ';']))
        };
        [4 + more, 4].into_iter().find(|length| ends(*length)).map(|length| &rest[..length])
    });
    found.unwrap_or_default()
}

/// The first word up to what cannot stand in a host's name.
fn first_word(text: &str) -> &str {
    let end = text.find(' ');
    let run = &text[..end.unwrap_or(text.len())];
    if end.is_some() {
        return run;
    }
    let odd = run.rmatch_indices(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.')));
    odd.map(|(at, _)| at).find(|at| *at > 0).map_or("", |at| &run[..at])
}

/// `text` has single spaces and no line ends, so that bytes say as much as characters.
fn regex(pattern: &str) -> Regex {
    RegexBuilder::new(pattern).unicode(false).build().expect("a pattern of this file, compiled in its tests")
}

/// How a client proved itself to the server that wrote the field; empty if it did not.
fn authentication(text: &str) -> String {
    let has_by = has(text, " by ");
    if has_by {
        let with = proven_protocol(text);
        if !with.is_empty() {
            return with.to_owned();
        }
    }
    let (_, after_by) = text.split_once(" by ").unwrap_or_default();
    let from = text.split(" by ").next().unwrap_or_default();
    if after_by.starts_with("mx.google.com with ESMTPS id ") && has(text, "(version=") && is_google_submission(after_by)
    {
        return "GMail".to_owned();
    }
    if let Some((_, rest)) = from.split_once(") (AUTH: ") {
        let method = rest.split(' ').next().unwrap_or_default();
        if matches!(method, "LOGIN" | "PLAIN" | "DIGEST-MD5" | "CRAM-MD5") {
            return method.to_owned();
        }
    }
    if has(text, "authenticated")
        && !has(text, "(authenticated as ")
        && text.find("])").or_else(|| text.find(")]")).or_else(|| text.find("] (may be forged))")).is_some_and(|at| {
            let rest = &text[at..];
            rest.find("authenticated").is_some_and(|said| rest[..said].contains('(') && rest[said..].contains(" by"))
        })
    {
        return "Sendmail".to_owned();
    }
    if has(text, ") (Authenticated sender: ") {
        let server = after_by.split_once(" (").and_then(|(_, rest)| rest.split_once(") with "));
        if let Some((name, _)) = server {
            return if name == "Postfix" { name.to_owned() } else { format!("Postfix ({name})") };
        }
    }
    let is_communigate = |rest: &str| ["HTTP", "SMTP", "XIMSS", "IMAP"].iter().any(|way| rest.starts_with(way));
    if has(text, " (account ")
        && text.match_indices("CommuniGate Pro ").any(|(at, mark)| is_communigate(&text[at + mark.len()..]))
    {
        return "Communigate".to_owned();
    }
    if has(text, " with Microsoft Exchange Server HTTP-DAV") {
        return "HTTP-DAV".to_owned();
    }
    if has(text, " (authenticated as ") && has(text, ") by ") {
        return "CriticalPath".to_owned();
    }
    if has_by { via(text).to_owned() } else { String::new() }
}

/// Ids of mail that Google took from its own users: `…sm12345abc.1.2020.…`.
fn is_google_submission(after_by: &str) -> bool {
    let id = after_by.split(" id ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    let Some((start, rest)) = id.split_once("sm") else { return false };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    (1..=4).contains(&start.len()) && (2..=9).contains(&digits) && id.matches('.').count() == 7
}

/// A form in which servers write the field.
struct Form {
    template: Template,
    /// The server asks DNS for a name: that there is none means that there is none.
    looks_up: bool,
}

impl Form {
    fn is_match(&self, text: &str) -> bool {
        self.template.read(text).is_some()
    }

    fn apply(&self, text: &str, relay: &mut Relay) -> bool {
        let Some(taken) = self.template.read(text) else { return false };
        if let Some(ip) = taken.ip {
            if address(ip).is_none() {
                return false;
            }
            ip.clone_into(&mut relay.ip_text);
        }
        for (text, target) in [
            (taken.helo, &mut relay.helo),
            (taken.rdns, &mut relay.reverse_name),
            (taken.by, &mut relay.by),
            (taken.id, &mut relay.id),
        ] {
            if let Some(text) = text {
                text.clone_into(target);
            }
        }
        if let Some(both) = taken.both {
            both.clone_into(&mut relay.helo);
            both.clone_into(&mut relay.reverse_name);
        }
        if let Some(ident) = taken.ident {
            ident.trim_end_matches('@').clone_into(&mut relay.ident);
        }
        if let Some(sub) = taken.sub {
            let after = |mark: &str| {
                sub.split_once(mark).map(|(_, rest)| rest.split(' ').next().unwrap_or_default().to_owned())
            };
            if let Some(helo) = after("helo=").filter(|helo| !helo.is_empty()) {
                relay.helo = helo;
            }
            if let Some(ident) = after("ident=") {
                relay.ident = ident;
            }
        }
        relay.looked_up |= self.looks_up;
        true
    }
}

type Forms = LazyLock<Vec<Form>>;

fn forms(templates: &[(&'static str, bool)]) -> Vec<Form> {
    templates
        .iter()
        .map(|(template, looks_up)| Form { template: Template::of(template), looks_up: *looks_up })
        .collect()
}

fn read(forms: &[Form], text: &str, relay: Relay) -> Outcome {
    let mut relay = Box::new(relay);
    if forms.iter().any(|form| form.apply(text, &mut relay)) { Outcome::Done(relay) } else { Outcome::NotYet(relay) }
}

static MICROSOFT: Forms = LazyLock::new(|| {
    forms(&[
        ("{helo?} ([{ip}]) by {by} with Microsoft SMTPSVC", false),
        ("{helo?} ([{ip}] {~}) by {by} with Microsoft SMTPSVC", false),
    ])
});
static EXCHANGE: Forms = LazyLock::new(|| {
    forms(&[
        ("{helo} ([{ip}]) by {by} ", false),
        ("{helo} ({ip}) by {by} ", false),
        ("{helo} ([{ip}%{_}]) by {by} ", false),
        ("{helo} ({ip}%{_}) by {by} ", false),
    ])
});
static XMAIL: Forms = LazyLock::new(|| {
    forms(&[
        ("{helo} ({ip}:{_}) by {by} with [XMail", false),
        ("{helo} ({ip}:{_}) by {by} ({_}) with [XMail", false),
        ("{helo} ([{ip}]:{_}) by {by} with [XMail", false),
    ])
});
static ECELERITY: Forms = LazyLock::new(|| {
    forms(&[
        ("([{ip}:{_}] helo={helo}) by {by} ", false),
        ("{_} ([{ip}:{_}]) by {by} ", false),
        ("([{ip}:{_}]) by {by} ", false),
    ])
});
static EXIM: Forms = LazyLock::new(|| {
    forms(&[
        ("[{ip}] ({sub}) by {by} ", false),
        ("{both} ([{ip}]{sub}) by {by} ", false),
        ("{both} [{ip}]{port?} by {by} ", false),
    ])
});
static POSTFIX: Forms =
    LazyLock::new(|| forms(&[("{helo} ({rdns} [{ip}]) by {by} ", true), ("{helo} ({rdns}[{ip}]) by {by} ", true)]));
static SCALIX: Forms = LazyLock::new(|| forms(&[("{helo} ({ip}) by {by}", false), ("{helo} ( {ip}) by {by}", false)]));
static DOMINO: Forms = LazyLock::new(|| forms(&[("{helo} ([{ip}]) by {by} (Lotus", false)]));
static WEB: Forms = LazyLock::new(|| forms(&[("{ip} ([{IP}]) by {by}", false)]));
static SENDMAIL: Forms = LazyLock::new(|| {
    forms(&[("{helo} ({rdns} [{ip}]){~} by {by} (", true), ("{helo} ({rdns} [{ip}] {~}) by {by} (", true)])
});
static UPPER_CASE: Forms = LazyLock::new(|| {
    forms(&[
        ("{helo} ({rdns} [{ip}]) BY {by} ID {id}", true),
        ("{helo} ({rdns} [{ip}]) BY {by} ({~}) WITH SMTP ID {id}", true),
    ])
});
static GATEWAY: Forms = LazyLock::new(|| forms(&[("{helo?} [{ip}]) by {by} (NAVGW {~}) with ", false)]));
static LOCAL_SENDER: Forms =
    LazyLock::new(|| forms(&[("{_}@localhost) by {_} ", false), ("{_}@{_}) by {_} (jqueuemail) id ", false)]));

/// Tried in this order before it is asked whether a program fetched the mail.
static COMMON: Forms = LazyLock::new(|| {
    forms(&[
        ("{helo} ({rdns} [{ip}]) by {by} with {_} (", true),
        ("{rdns} ([{ip}] helo={helo}) by {by} with ", false),
        ("{helo} (<unknown{_?}>[{ip}]) by {by} ", false),
        ("{helo} ({rdns}[{ip}]) by {by} ", true),
        ("{helo} ({ident?}@[{ip}]{~}) by {by} (", true),
        ("{rdns} ({HELO} {helo?}) ({ip}) by {by} (qpsmtpd/", false),
        ("{rdns} (LHLO {helo?}) ({ip}) by {by} with LMTP", false),
        ("{rdns} ({HELO} {helo?}) [{ip}] by {by} ({~}) with ", false),
    ])
});
/// qmail and those that write like it.
static QMAIL: Forms = LazyLock::new(|| {
    forms(&[
        ("{rdns} ({HELO} {helo?}) ({ident?}@{ip}) {~}by {by}", true),
        ("{rdns} ({HELO} {helo?}) ({ident?}@[{ip}]) {~}by {by}", true),
        ("{rdns} ({HELO} {helo?}) ({ip}) {~}by {by}", true),
        ("{rdns} ({HELO} {helo?}) ([{ip}]) {~}by {by}", true),
        ("{both} ({ident?}@{ip}) {~}by {by}", true),
        ("{both} ({ident?}@[{ip}]) {~}by {by}", true),
        ("{both} ({ip}) {~}by {by}", true),
        ("{both} ([{ip}]) {~}by {by}", true),
    ])
});
static LATER: Forms = LazyLock::new(|| {
    forms(&[
        ("[{ip}] by {by} via HTTP", false),
        ("{_} ( [{ip}]){~} by {by} ", false),
        ("({helo} [{ip}]) by {by} ", false),
        ("[{ip}] by {by} ", false),
        ("({ip}) by {by} ", false),
        ("([{ip}]) by {by} ", false),
        ("{helo} [{ip}] by {by} [{IP}] with ", true),
        ("{helo} [({ip})] by {by} ({IP}) ", false),
        ("{helo} ([{ip}]) by {by} (", true),
        ("{helo} (softdnserr [{ip}]){~} by {by}", false),
        ("{helo} ({rdns} [{ip}]){~} by {by}", true),
        ("{helo} ([{ip}]){~} by {by} ", true),
        ("{helo} ([{ip}:{_}]){~} by {by} ", true),
    ])
});
static LAST: Forms = LazyLock::new(|| {
    forms(&[
        ("{rdns} ({HELO} {helo?}) ({ip}){~} by {by} ", true),
        ("{rdns} ({HELO} {helo?}) ([{ip}]){~} by {by} ", true),
        ("{rdns} ({HELO} {helo?}) ({ident}@{ip}){~} by {by} ", true),
        ("{both} ({ip}){~} by {by} ", true),
        ("{both} ([{ip}]){~} by {by} ", true),
        ("{both} ({ident?}@{ip}){~} by {by} ", true),
        ("[{ip}] by {by} with http for ", false),
        ("{rdns}({ip}) by {by} via smap ", true),
        ("{rdns}({ip}, {HELO} {helo?}) by {by} via smap ", true),
        ("{ip} by {by} (SMTPL", false),
        ("{ip} by {by} (InterScan", false),
    ])
});
static RARE: Forms = LazyLock::new(|| {
    forms(&[
        ("{helo} ({rdns} [{ip}]) by {by} with ", true),
        ("{rdns} ({HELO} {helo?}) ({ip}{~}) by {by} with ", true),
        ("[{ip}] ({HELO} {helo?}) by {by} (", false),
        ("[{ip}] (account {_} {HELO} {helo?}) by {by} (", false),
        ("{both} ([{ip}] verified) by {by} (", true),
        ("([{ip}]) by {by} with ", false),
        ("{helo} ([{ip}] [{_}]) by {by} with ", false),
        ("{ip} by {by} with ", false),
        ("[{ip}]{_} ({HELO} {helo?}) by {by} ", false),
        ("{ip} ({HELO} {helo?}) by {by} ", false),
        ("{helo} [{ip}] by {by} ", false),
        ("{rdns}({ip}) by {by} ", false),
        ("{helo} (unverified [{ip}]) by {by} ", false),
        ("[{ip}] ({sub}) by {by} ", false),
        ("{rdns} ({ip}) by {by} with ", false),
        ("{rdns}({ip}), claiming to be \"{helo}\" via {_} by {by},", true),
        ("{rdns}({ip}) via {_} by {by},", true),
        ("{helo} ({_}@{ip} with login) by {by} with SMTP", false),
        ("X-Originating-IP: {ip}", false),
    ])
});
/// Hops inside a machine, and servers that do not say enough.
static IGNORED: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let local = r"(?:localhost(?:\.localdomain)?|127\.0\.0\.1|::1)";
    [
        format!(r"^\S+ \([^\s@]+@{local}\) by \S+ \("),
        r"^\S+ \S+ by \S+ with local-e?smtp ".to_owned(),
        r"^127\.0\.0\.1 \(AVG SMTP ".to_owned(),
        r"^\S+@\S+ by \S+ ".to_owned(),
        r"^Unknown/Local \(".to_owned(),
        format!(r"^{local} \((?:\S+@)?{local}[)\[]"),
        format!(r"^\S+ \((?:\S+@)?{local}\) "),
        format!(r"^\S+ \(\S+@\S+ \[{local}\]\) "),
        r"^\(AUTH: \S+\) by \S+ with ".to_owned(),
        r"^localhost \(localhost \[\[UNIX: localhost\]\]\) by ".to_owned(),
        r"^[^.]+ by \S+ with Novell_GroupWise".to_owned(),
        r"^no\.name\.available by \S+ via smtpd \(for ".to_owned(),
        r"^\S+ by \S+ \(.{0,100}\) with qmail-scanner".to_owned(),
        r"^\S+ \(\[unix socket\]\) by \S+ \(Cyrus v".to_owned(),
        r"^\S+ by \S+ (?:with|via|for|\()".to_owned(),
        r"^\S+ (?:(?:with|via|for) \S+|\(unverified\)) by\b".to_owned(),
        r"^\S+ \(unknown\) by \S+ \(SG\) with ".to_owned(),
        r"^\S+ \(\S+ \[local\]\) by \S+ \(OpenSMTPD\) with ".to_owned(),
        r"\(LSMTP for".to_owned(),
        format!(r"^\(\[{local}\]\) with MailEnable "),
        r"^facebook\.com \([^)]+\) by facebook\.com with Thrift id ".to_owned(),
        r"^\S+ named \S+ by gmailapi\.google\.com with HTTPREST$".to_owned(),
        r"^\S+ id \S+$".to_owned(),
        r"^\[<.*? \(Jetsend".to_owned(),
    ]
    .iter()
    .map(|pattern| regex(pattern))
    .collect()
});

/// `from …`, without the word.
fn from(text: &str, mut relay: Relay) -> Outcome {
    let envelope = envelope(text);
    if let Some(end) = envelope.rfind(|c: char| c.is_ascii_alphanumeric() || c == '_') {
        relay.envelope_from = Some(envelope.get(..=end).unwrap_or_default().to_owned());
    }
    let special: Option<&[Form]> = if has(text, " SMTPSVC") || has(text, "SMTPSVC") {
        if text.starts_with("mail pickup service by ") && text.ends_with("with Microsoft SMTPSVC") {
            return Outcome::Skip;
        }
        Some(&MICROSOFT)
    } else if has(text, " with mapi id ") {
        Some(&EXCHANGE)
    } else if has(text, "[XMail ") {
        Some(&XMAIL)
    } else if has(text, "(ecelerity") {
        Some(&ECELERITY)
    } else if has(text, "Exim") {
        if has(text, " with local ") || has(text, " with local-") {
            return Outcome::Skip;
        }
        Some(&EXIM)
    } else if has(text, " (Postfix) with") {
        Some(&POSTFIX)
    } else if has(text, "(Scalix SMTP Relay") {
        Some(&SCALIX)
    } else if has(text, " (Lotus Domino ") {
        Some(&DOMINO)
    } else {
        None
    };
    if let Some(special) = special {
        if special.iter().any(|form| form.apply(text, &mut relay)) {
            if std::ptr::eq(special, EXCHANGE.as_slice()) {
                relay.id.clear();
            }
            return Outcome::Done(Box::new(relay));
        }
        if std::ptr::eq(special, EXIM.as_slice()) && odd_exim(text, &mut relay) {
            return Outcome::Done(Box::new(relay));
        }
    }
    if has(text, "with HTTP") && WEB.iter().any(|form| form.apply(text, &mut relay)) {
        return Outcome::Done(Box::new(relay));
    }
    if !has(text, " (qmail-") && SENDMAIL.iter().any(|form| form.apply(text, &mut relay)) {
        if let Some((ident, name)) = relay.reverse_name.split_once('@') {
            relay.ident = ident.trim_start_matches("IDENT:").to_owned();
            relay.reverse_name = name.to_owned();
        }
        return Outcome::Done(Box::new(relay));
    }
    if COMMON.iter().any(|form| form.apply(text, &mut relay)) {
        return Outcome::Done(Box::new(relay));
    }
    if is_qmail(text) && QMAIL.iter().any(|form| form.apply(text, &mut relay)) {
        relay.looked_up = relay.reverse_name != "unknown";
        return Outcome::Done(Box::new(relay));
    }
    if LATER.iter().any(|form| form.apply(text, &mut relay)) {
        return Outcome::Done(Box::new(relay));
    }
    if has(text, "with POP3") || has(text, "with IMAP") {
        return Outcome::Fetched;
    }
    if LAST.iter().any(|form| form.apply(text, &mut relay)) {
        return Outcome::Done(Box::new(relay));
    }
    if has(text, " with BSMTP") {
        return Outcome::Skip;
    }
    if RARE.iter().any(|form| form.apply(text, &mut relay)) {
        return Outcome::Done(Box::new(relay));
    }
    if IGNORED.iter().any(|form| form.is_match(text.as_bytes())) {
        return Outcome::Skip;
    }
    if relay.helo.is_empty() {
        first_word(text).clone_into(&mut relay.helo);
    }
    Outcome::NotYet(Box::new(relay))
}

/// qmail writes no id after the protocol.
fn is_qmail(text: &str) -> bool {
    let Some((_, after)) = text.rsplit_once(" by ") else { return false };
    let Some((_, with)) = after.split_once(" with ") else { return false };
    // The protocol is a word's start: `ESMTP` is another server's.
    let ends = ["SMTP", "QMQP"].iter().filter_map(|word| {
        let places = with.match_indices(*word).map(|(at, _)| at);
        places.filter(|at| *at == 0 || with[..*at].ends_with(' ')).last().map(|at| at + word.len())
    });
    ends.max().is_some_and(|end| !with[end..].starts_with(" id "))
}

/// Whatever pieces of Exim's many forms can be found.
fn odd_exim(text: &str, relay: &mut Relay) -> bool {
    let words: Vec<&str> = text.split(' ').collect();
    relay.reverse_name = words.first().map_or("", |word| word).to_owned();
    for word in words.iter().skip(1) {
        if let Some(inside) = word.strip_prefix('(').and_then(|word| word.strip_suffix(')')) {
            inside.clone_into(&mut relay.helo);
            break;
        }
    }
    let found = words.iter().find_map(|word| {
        let inside = word.strip_prefix('[')?.strip_suffix(']')?;
        address(inside)
            .map(|_| inside)
            .or_else(|| inside.rsplit_once('.').map(|(ip, _)| ip).filter(|ip| address(ip).is_some()))
    });
    if let Some(ip) = found {
        ip.clone_into(&mut relay.ip_text);
    }
    found.is_some() && !relay.by.is_empty()
}

fn address(text: &str) -> Option<IpAddr> {
    let text =
        text.get(..5).filter(|start| start.eq_ignore_ascii_case("ipv6:")).map_or(text, |start| &text[start.len()..]);
    text.parse().ok()
}

fn finished(mut relay: Relay) -> Parsed {
    relay.reverse_name.truncate(relay.reverse_name.trim_end_matches('.').len());
    if relay.reverse_name.eq_ignore_ascii_case("unknown") || relay.reverse_name.starts_with('[') {
        relay.reverse_name.clear();
    }
    let ip = relay.ip_text.split('%').next().unwrap_or_default();
    relay.ip = address(ip).map(|ip| ip.to_canonical());
    // As written, but for IPv4 in IPv6.
    relay.ip_text = match (relay.ip, ip.contains("::ffff:") || ip.contains("::FFFF:")) {
        (Some(ip @ IpAddr::V4(_)), true) => ip.to_string(),
        _ => ip.get(..5).filter(|start| start.eq_ignore_ascii_case("ipv6:")).map_or(ip, |_| &ip[5..]).to_owned(),
    };
    if let Some(by) = relay.by.strip_suffix(';') {
        relay.by = by.to_owned();
    }
    for text in [&mut relay.reverse_name, &mut relay.helo, &mut relay.by, &mut relay.ident, &mut relay.ip_text] {
        *text = text.replace(|c: char| c.is_whitespace() || "\0#[]()<>|".contains(c), "!");
    }
    if let Some(envelope) = &mut relay.envelope_from {
        let trimmed = envelope.trim_start_matches('<').trim_end_matches('>');
        *envelope = trimmed.replace(|c: char| c.is_whitespace() || "\0#[]()<>|".contains(c), "!");
    }
    Parsed::Relay(Box::new(relay))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(value: &str) -> String {
        match Parsed::of(value) {
            Parsed::Relay(relay) => relay.text(false),
            Parsed::Skipped => "skipped".to_owned(),
            Parsed::Fetched => "fetched".to_owned(),
            Parsed::Unknown => "unknown".to_owned(),
        }
    }

    #[test]
    fn forms_of_servers() {
        for (value, expected) in [
            (
                "from helo.example (rdns.example [192.0.2.1])\r\n\tby mx.example (Postfix) with ESMTPS id ABC; Tue, 1 Sep 2020 10:00:00 +0200",
                "ip=192.0.2.1 rdns=rdns.example helo=helo.example by=mx.example ident= envfrom= intl=0 id=ABC auth= msa=0",
            ),
            (
                "from rdns.example ([192.0.2.1] helo=me) by mx.example with esmtpa (Exim 4.96) id 1a-b",
                "ip=192.0.2.1 rdns=rdns.example helo=me by=mx.example ident= envfrom= intl=0 id=1a-b auth=esmtpa msa=0",
            ),
            (
                "from unknown (HELO spam) (joe@192.0.2.9) by mx.example with SMTP",
                "ip=192.0.2.9 rdns= helo=spam by=mx.example ident=joe envfrom= intl=0 id= auth= msa=0",
            ),
            (
                "from [IPv6:2001:db8::1] (unknown [IPv6:2001:db8::1]) by mx.example (Postfix) with ESMTP id X12",
                "ip=2001:db8::1 rdns= helo=!IPv6:2001:db8::1! by=mx.example ident= envfrom= intl=0 id=X12 auth= msa=0",
            ),
            (
                "from h.example (IDENT:me@r.example [192.0.2.3] (may be forged)) by mx.example (8.11.6/8.11.6) with ESMTP id h2F",
                "ip=192.0.2.3 rdns=r.example helo=h.example by=mx.example ident=me envfrom= intl=0 id=h2F auth= msa=0",
            ),
            (
                "from a.example (192.0.2.5) by b.example (192.0.2.6) with Microsoft SMTP Server id 15.1.2.3",
                "ip=192.0.2.5 rdns=a.example helo=a.example by=b.example ident= envfrom= intl=0 id=15.1.2.3 auth= msa=0",
            ),
            (
                "from h.example (r.example. [192.0.2.7]) by mx.google.com with ESMTPS id a1 for <x@y.example>",
                "ip=192.0.2.7 rdns=r.example helo=h.example by=mx.google.com ident= envfrom= intl=0 id= auth= msa=0",
            ),
            ("by mx.example (Postfix, from userid 1)", "skipped"),
            ("from a.example by b.example ; Thu, 20 Feb 2003 23:32:58 +0100", "skipped"),
            (
                "from localhost (localhost [127.0.0.1]) by mx.example with IMAP",
                "ip=127.0.0.1 rdns=localhost helo=localhost by=mx.example ident= envfrom= intl=0 id= auth= msa=0",
            ),
            ("from pop.example by host with POP3 (fetchmail-6.2)", "fetched"),
            ("from nonsense", "unknown"),
        ] {
            let expected = if expected.contains('=') { format!("[ {expected} ]") } else { expected.to_owned() };
            assert_eq!(told(value), expected, "{value}");
        }
    }

    #[test]
    fn hostile_fields_are_bounded() {
        for text in ["from (", "from a ([1.1.1.1] helo=", "from a by ", "(from [", "from \u{e4}("] {
            told(&text.repeat(20_000));
        }
    }
}
