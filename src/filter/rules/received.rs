//! One `Received` field: who handed the message to whom. Every mail server writes it in its own way.

use std::net::IpAddr;
use std::sync::LazyLock;

use regex::Regex;

use super::relays::Relay;

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
        if !(lower.starts_with("from ") || lower.starts_with("(from ")) || lower.contains("with local for ") {
            return Self::Skipped;
        }
        if only_names(text) {
            return Self::Skipped;
        }
        let text = SHARED.date.replace(text, "").replace(")by ", ") by ");
        let relay = Relay {
            id: capture(&SHARED.id, &text),
            helo: Some(capture(&SHARED.helo, &text))
                .filter(|helo| !helo.is_empty())
                .unwrap_or_else(|| capture(&SHARED.helo_word, &text)),
            by: capture(&SHARED.by, &text),
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
                    relay.ip_text = SHARED
                        .bracketed
                        .captures_iter(rest)
                        .filter_map(|c| c.name("ip"))
                        .map(|m| m.as_str())
                        .find(|ip| address(ip).is_some())
                        .unwrap_or_default()
                        .to_owned();
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

/// Forms that every field is looked at with.
struct Shared {
    date: Regex,
    id: Regex,
    helo: Regex,
    helo_word: Regex,
    by: Regex,
    with: Regex,
    via: Regex,
    envelope: Regex,
    bracketed: Regex,
    first_word: Regex,
}

static SHARED: LazyLock<Shared> = LazyLock::new(|| Shared {
    date: regex(
        r"[\s;]+(?:(?:Mon|Tue|Thu|Wed|Fri|Sat|Sun), )?\d+ (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d+ \d+:\d+(?::\d+)? \S+$",
    ),
    id: regex(r" id <?(?P<it>[^\s<>;]{3,})"),
    helo: regex(r"\bhelo=(?P<it>[-A-Za-z0-9.^+_&:=?!@%*$\\/]+)"),
    helo_word: regex(r"\b(?:HELO|EHLO) (?P<it>[-A-Za-z0-9.^+_&:=?!@%*$\\/]+)"),
    by: regex(r" by (?P<it>\S+)"),
    with: regex(r"(?i) with (?P<it>(?:ES|L|UTF8S|UTF8L)MTPS?A|ASMTP|HTTP[SU]?)(?: |;|$)"),
    via: regex(r"(?i) \(via (?P<it>HTTP.?)\)(?: |;|$)"),
    envelope: regex(r"(?i)(?:return-path:? |envelope-(?:sender|from)[ =])(?P<it>\S+)"),
    bracketed: regex(&format!(r"\[(?P<ip>{IP})\]")),
    first_word: regex(r"^(?P<it>\S+)[^-A-Za-z0-9.]"),
});

const IP: &str = r"(?i:ipv6:)?[0-9A-Fa-f:.]{3,45}";

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a pattern of this file, compiled in its tests")
}

fn capture(pattern: &Regex, text: &str) -> String {
    pattern.captures(text).and_then(|found| found.name("it")).map_or("", |found| found.as_str()).to_owned()
}

/// How a client proved itself to the server that wrote the field; empty if it did not.
fn authentication(text: &str) -> String {
    let has_by = text.contains(" by ");
    if has_by {
        let with = capture(&SHARED.with, text);
        if !with.is_empty() {
            return with;
        }
    }
    let (_, after_by) = text.split_once(" by ").unwrap_or_default();
    let from = text.split(" by ").next().unwrap_or_default();
    if after_by.starts_with("mx.google.com with ESMTPS id ")
        && text.contains("(version=")
        && is_google_submission(after_by)
    {
        return "GMail".to_owned();
    }
    if let Some((_, rest)) = from.split_once(") (AUTH: ") {
        let method = rest.split(' ').next().unwrap_or_default();
        if matches!(method, "LOGIN" | "PLAIN" | "DIGEST-MD5" | "CRAM-MD5") {
            return method.to_owned();
        }
    }
    if text.contains("authenticated")
        && !text.contains("(authenticated as ")
        && text.find("])").or_else(|| text.find(")]")).or_else(|| text.find("] (may be forged))")).is_some_and(|at| {
            let rest = &text[at..];
            rest.find("authenticated").is_some_and(|said| rest[..said].contains('(') && rest[said..].contains(" by"))
        })
    {
        return "Sendmail".to_owned();
    }
    if text.contains(") (Authenticated sender: ") {
        let server = after_by.split_once(" (").and_then(|(_, rest)| rest.split_once(") with "));
        if let Some((name, _)) = server {
            return if name == "Postfix" { name.to_owned() } else { format!("Postfix ({name})") };
        }
    }
    if ["HTTP", "SMTP", "XIMSS", "IMAP"].iter().any(|way| text.contains(&format!("CommuniGate Pro {way}")))
        && text.contains(" (account ")
    {
        return "Communigate".to_owned();
    }
    if text.contains(" with Microsoft Exchange Server HTTP-DAV") {
        return "HTTP-DAV".to_owned();
    }
    if text.contains(" (authenticated as ") && text.contains(") by ") {
        return "CriticalPath".to_owned();
    }
    if has_by { capture(&SHARED.via, text) } else { String::new() }
}

/// Ids of mail that Google took from its own users: `…sm12345abc.1.2020.…`.
fn is_google_submission(after_by: &str) -> bool {
    let id = after_by.split(" id ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    let Some((start, rest)) = id.split_once("sm") else { return false };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    (1..=4).contains(&start.len()) && (2..=9).contains(&digits) && id.matches('.').count() == 7
}

/// A form: words in braces are what to take, the rest is itself. `{x?}` may be empty, `{_}` is any word, `{~}` any
/// text, `{HELO}` either greeting, `{ip}` an address.
struct Form {
    pattern: Regex,
    /// The server asks DNS for a name: that there is none means that there is none.
    looks_up: bool,
}

impl Form {
    fn new(template: &str, looks_up: bool) -> Self {
        let mut pattern = String::from("^");
        let mut rest = template;
        while let Some((text, after)) = rest.split_once('{') {
            pattern.push_str(&regex::escape(text));
            let (name, after) = after.split_once('}').expect("templates of this file are well-formed");
            match name {
                "ip" => pattern.push_str(&format!("(?P<ip>{IP})")),
                "IP" => pattern.push_str(IP),
                "_" => pattern.push_str(r"\S+"),
                "_?" => pattern.push_str(r"\S*"),
                "~" => pattern.push_str(".*?"),
                "HELO" => pattern.push_str("(?:HELO|EHLO)"),
                "sub" => pattern.push_str("(?P<sub>.*?)"),
                "port?" => pattern.push_str(r"(?::\d+)?"),
                _ => match name.strip_suffix('?') {
                    Some(name) => pattern.push_str(&format!(r"(?P<{name}>\S*)")),
                    None => pattern.push_str(&format!(r"(?P<{name}>\S+)")),
                },
            }
            rest = after;
        }
        pattern.push_str(&regex::escape(rest));
        Self { pattern: regex(&pattern), looks_up }
    }

    fn is_match(&self, text: &str) -> bool {
        self.pattern.is_match(text)
    }

    fn apply(&self, text: &str, relay: &mut Relay) -> bool {
        let Some(found) = self.pattern.captures(text) else { return false };
        let word = |name: &str| found.name(name).map(|found| found.as_str().to_owned());
        if let Some(ip) = word("ip") {
            if address(&ip).is_none() {
                return false;
            }
            relay.ip_text = ip;
        }
        for (name, target) in
            [("helo", &mut relay.helo), ("rdns", &mut relay.reverse_name), ("by", &mut relay.by), ("id", &mut relay.id)]
        {
            if let Some(text) = word(name) {
                *target = text;
            }
        }
        if let Some(both) = word("both") {
            relay.helo.clone_from(&both);
            relay.reverse_name = both;
        }
        if let Some(ident) = word("ident") {
            relay.ident = ident.trim_end_matches('@').to_owned();
        }
        if let Some(sub) = word("sub") {
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

fn forms(templates: &[(&str, bool)]) -> Vec<Form> {
    templates.iter().map(|(template, looks_up)| Form::new(template, *looks_up)).collect()
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
    let envelope = capture(&SHARED.envelope, text);
    if let Some(end) = envelope.rfind(|c: char| c.is_ascii_alphanumeric() || c == '_') {
        relay.envelope_from = Some(envelope.get(..=end).unwrap_or_default().to_owned());
    }
    let special: Option<&[Form]> = if text.contains(" SMTPSVC") || text.contains("SMTPSVC") {
        if text.starts_with("mail pickup service by ") && text.ends_with("with Microsoft SMTPSVC") {
            return Outcome::Skip;
        }
        Some(&MICROSOFT)
    } else if text.contains(" with mapi id ") {
        Some(&EXCHANGE)
    } else if text.contains("[XMail ") {
        Some(&XMAIL)
    } else if text.contains("(ecelerity") {
        Some(&ECELERITY)
    } else if text.contains("Exim") {
        if text.contains(" with local ") || text.contains(" with local-") {
            return Outcome::Skip;
        }
        Some(&EXIM)
    } else if text.contains(" (Postfix) with") {
        Some(&POSTFIX)
    } else if text.contains("(Scalix SMTP Relay") {
        Some(&SCALIX)
    } else if text.contains(" (Lotus Domino ") {
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
    if text.contains("with HTTP") && WEB.iter().any(|form| form.apply(text, &mut relay)) {
        return Outcome::Done(Box::new(relay));
    }
    if !text.contains(" (qmail-") && SENDMAIL.iter().any(|form| form.apply(text, &mut relay)) {
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
    if text.contains("with POP3") || text.contains("with IMAP") {
        return Outcome::Fetched;
    }
    if LAST.iter().any(|form| form.apply(text, &mut relay)) {
        return Outcome::Done(Box::new(relay));
    }
    if text.contains(" with BSMTP") {
        return Outcome::Skip;
    }
    if RARE.iter().any(|form| form.apply(text, &mut relay)) {
        return Outcome::Done(Box::new(relay));
    }
    if IGNORED.iter().any(|form| form.is_match(text)) {
        return Outcome::Skip;
    }
    if relay.helo.is_empty() {
        relay.helo = capture(&SHARED.first_word, text);
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
