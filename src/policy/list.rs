//! Lists of senders that are let through, and of those that are not wanted.
//!
//! ```toml
//! allow = ["partner.example", { sender = "news@shop.example", until = 2027-03-31 }, "192.0.2.0/24"]
//! block = ["@offers.example"]
//! ```

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use base::UtcMillis;
use toml::Spanned;
use toml::de::{DeArray, DeValue};

use crate::resolve::Origin;

/// Who sent a message, and what of it is proven.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SenderFacts {
    /// The author's address in lower case; `None` if there is none, or more than one.
    pub author: Option<Arc<str>>,
    /// DMARC passes, or what it stands on where the domain publishes none: an aligned signature or an aligned SPF pass.
    pub is_author_proven: bool,
    /// The reverse path in lower case; `None` for the null path.
    pub envelope: Option<Arc<str>>,
    /// SPF passes for it.
    pub is_envelope_proven: bool,
    /// The client, where its sender has to prove himself.
    pub client: Option<IpAddr>,
}

/// Whom a line of a list means.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Who {
    /// In lower case.
    Address(Arc<str>),
    /// `example.test`: the domain and those below it; `@example.test`: that domain alone.
    Domain {
        name: Arc<str>,
        with_below: bool,
    },
    Network {
        address: IpAddr,
        bits: u8,
    },
}

impl Who {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_lowercase();
        let (host, bits) = text.split_once('/').map_or((text.as_str(), None), |(host, bits)| (host, Some(bits)));
        if let Ok(address) = host.parse::<IpAddr>() {
            let whole = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Some(whole), |bits| bits.parse().ok()).filter(|bits| *bits <= whole)?;
            return Some(Self::Network { address, bits });
        }
        let is_name = |name: &str| {
            !name.is_empty() && name.len() <= 253 && name.split('.').all(|label| !label.is_empty() && is_label(label))
        };
        match text.rsplit_once('@') {
            Some(("", name)) if is_name(name) => Some(Self::Domain { name: name.into(), with_below: false }),
            Some((local, name)) if !local.is_empty() && is_name(name) => Some(Self::Address(text.into())),
            None if is_name(&text) => Some(Self::Domain { name: text.into(), with_below: true }),
            Some(_) | None => None,
        }
    }

    /// How exactly it names someone; of two lines that fit the higher counts.
    fn exactness(&self) -> usize {
        match self {
            Self::Address(_) => 1000,
            Self::Network { bits, .. } => 300 + usize::from(*bits),
            Self::Domain { name, with_below } => name.split('.').count() * 2 + usize::from(!with_below),
        }
    }

    fn is(&self, address: &str) -> bool {
        match self {
            Self::Address(listed) => **listed == *address,
            Self::Domain { name, with_below } => address.rsplit_once('@').is_some_and(|(_, domain)| {
                domain == &**name
                    || (*with_below && domain.strip_suffix(&**name).is_some_and(|rest| rest.ends_with('.')))
            }),
            Self::Network { .. } => false,
        }
    }

    fn holds(&self, client: IpAddr) -> bool {
        let Self::Network { address, bits } = self else { return false };
        match (address, client.to_canonical()) {
            (IpAddr::V4(listed), IpAddr::V4(client)) => same_bits(&listed.octets(), &client.octets(), *bits),
            (IpAddr::V6(listed), IpAddr::V6(client)) => same_bits(&listed.octets(), &client.octets(), *bits),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

fn is_label(label: &str) -> bool {
    label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
}

fn same_bits(one: &[u8], other: &[u8], bits: u8) -> bool {
    let whole = usize::from(bits / 8);
    let rest = 0xff_u8.checked_shl(8 - u32::from(bits % 8)).unwrap_or(0);
    one.get(..whole) == other.get(..whole)
        && match (one.get(whole), other.get(whole)) {
            (Some(one), Some(other)) => one & rest == other & rest,
            _ => true,
        }
}

/// A line of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    who: Who,
    /// As it was written.
    pub text: Arc<str>,
    /// Also counts for whom nothing proves. Only in lists of whom to let through.
    takes_unproven: bool,
    /// From then on it counts no longer.
    pub until: Option<UtcMillis>,
    /// What it lets through is not held against its senders.
    pub skips: Skips,
    /// Where it is kept, for whoever counts its hits.
    pub id: Option<i64>,
}

/// What a line that lets through leaves out. Harm is looked for all the same, but for files that are not wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Skips {
    /// Points, by themselves and for greylisting, and countries.
    pub spam: bool,
    pub newsletter: bool,
    /// SPF and DMARC.
    pub auth: bool,
    pub attachments: bool,
}

impl Skips {
    /// Of lines in files.
    pub const USUAL: Self = Self { spam: true, newsletter: true, auth: true, attachments: false };
    const NAMES: [&'static str; 4] = ["spam", "newsletter", "auth", "attachments"];

    const fn all(self) -> [bool; 4] {
        [self.spam, self.newsletter, self.auth, self.attachments]
    }

    pub fn words(self) -> Vec<&'static str> {
        Self::NAMES.into_iter().zip(self.all()).filter(|(_, is_skipped)| *is_skipped).map(|(name, _)| name).collect()
    }

    /// `None` for a word that is none.
    pub fn from_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut out = Self { spam: false, newsletter: false, auth: false, attachments: false };
        for word in words {
            match word {
                "spam" => out.spam = true,
                "newsletter" => out.newsletter = true,
                "auth" => out.auth = true,
                "attachments" => out.attachments = true,
                _ => return None,
            }
        }
        Some(out)
    }
}

impl Listed {
    /// A line without limits, as people type it: an address, a domain, `@domain`, a network.
    pub fn parse(text: &str) -> Option<Self> {
        let who = Who::parse(text)?;
        let (takes_unproven, until, skips, id) = (false, None, Skips::USUAL, None);
        Some(Self { who, text: text.trim().into(), takes_unproven, until, skips, id })
    }

    /// A line of a list that is kept under `id`.
    #[must_use]
    pub fn kept(self, id: i64, takes_unproven: bool, until: Option<UtcMillis>, skips: Skips) -> Self {
        Self { takes_unproven, until, skips, id: Some(id), ..self }
    }

    fn counts(&self, now: UtcMillis) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    fn lets_through(&self, sender: &SenderFacts, now: UtcMillis) -> bool {
        let is = |address: &Option<Arc<str>>, is_proven: bool| {
            (is_proven || self.takes_unproven) && address.as_ref().is_some_and(|address| self.who.is(address))
        };
        self.counts(now)
            && (is(&sender.author, sender.is_author_proven)
                || is(&sender.envelope, sender.is_envelope_proven)
                || sender.client.is_some_and(|client| self.who.holds(client)))
    }

    /// Who is not wanted need not prove who he is.
    fn keeps_out(&self, sender: &SenderFacts, now: UtcMillis) -> bool {
        let is = |address: &Option<Arc<str>>| address.as_ref().is_some_and(|address| self.who.is(address));
        self.counts(now)
            && (is(&sender.author)
                || is(&sender.envelope)
                || sender.client.is_some_and(|client| self.who.holds(client)))
    }
}

/// What a list says of a sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    Allow,
    Block,
}

impl Word {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Block => "block",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Allow, Self::Block].into_iter().find(|word| word.as_str() == name)
    }
}

/// The lists of one level.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lists {
    pub allow: Vec<Listed>,
    pub block: Vec<Listed>,
}

/// Lines of one list of one level.
pub const LINES_MAX: usize = 10_000;

impl Lists {
    pub fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.block.is_empty()
    }

    /// The line that says most exactly who it means; of two alike the one that lets through.
    fn find(&self, sender: &SenderFacts, now: UtcMillis) -> Option<(Word, &Listed)> {
        let allow = self.allow.iter().filter(|line| line.lets_through(sender, now)).map(|line| (Word::Allow, line));
        let block = self.block.iter().filter(|line| line.keeps_out(sender, now)).map(|line| (Word::Block, line));
        block.chain(allow).max_by_key(|(_, line)| line.who.exactness())
    }
}

/// The lists of all levels, the nearest to the recipient first, each with where it comes from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AllLists(pub Vec<(Origin, Lists)>);

impl AllLists {
    /// What the lists say: the level nearest to the recipient that says anything.
    pub fn find(&self, sender: &SenderFacts, now: UtcMillis) -> Option<(Word, &Listed, &Origin)> {
        self.0.iter().find_map(|(origin, lists)| lists.find(sender, now).map(|(word, line)| (word, line, origin)))
    }
}

type Misread = (std::ops::Range<usize>, String);

/// Reads `allow = […]` or `block = […]`.
pub(crate) fn read(word: Word, given: &Spanned<DeValue<'_>>) -> Result<Vec<Listed>, Misread> {
    let lines: &DeArray<'_> = given
        .get_ref()
        .as_array()
        .ok_or_else(|| (given.span(), format!("`{word}` is a list of addresses, domains or networks")))?;
    if lines.len() > LINES_MAX {
        return Err((given.span(), format!("`{word}` has more than {LINES_MAX} lines")));
    }
    lines.iter().map(|line| read_line(word, line)).collect()
}

fn read_line(word: Word, given: &Spanned<DeValue<'_>>) -> Result<Listed, Misread> {
    let Some(table) = given.get_ref().as_table() else { return read_who(given) };
    let mut line: Option<Listed> = None;
    let (mut takes_unproven, mut until) = (false, None);
    for (name, given) in table {
        match &**name.get_ref() {
            "sender" => line = Some(read_who(given)?),
            "until" => {
                let day = given.get_ref().as_datetime().filter(|until| until.offset.is_some() || until.time.is_none());
                let at = day.and_then(|day| mail::date::parse_utc(&day.to_string()));
                until = Some(at.ok_or_else(|| (given.span(), "`until` is a day such as 2027-03-31".to_owned()))?);
            }
            "proof" if word == Word::Allow => {
                takes_unproven = match given.get_ref().as_str() {
                    Some("required") => false,
                    Some("none") => true,
                    _ => return Err((given.span(), "`proof` is \"required\" or \"none\"".to_owned())),
                };
            }
            other => return Err((name.span(), format!("unknown field `{other}` of `{word}`"))),
        }
    }
    let line = line.ok_or_else(|| (given.span(), "`sender` is missing".to_owned()))?;
    Ok(Listed { takes_unproven, until, ..line })
}

fn read_who(given: &Spanned<DeValue<'_>>) -> Result<Listed, Misread> {
    let text = given.get_ref().as_str().unwrap_or_default();
    let wrong = || format!("`{text}` is no address, domain or network");
    Listed::parse(text).ok_or_else(|| (given.span(), wrong()))
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Layer;
    use crate::option::Level;
    use crate::preset::Presets;
    use crate::resolve::EffectivePolicy;

    const NOW: UtcMillis = UtcMillis(1_795_000_000_000);

    fn sender(author: &str, proven: bool, envelope: &str, spf: bool, client: &str) -> SenderFacts {
        let of = |text: &str| (!text.is_empty()).then(|| text.into());
        SenderFacts {
            author: of(author),
            is_author_proven: proven,
            envelope: of(envelope),
            is_envelope_proven: spf,
            client: client.parse().ok(),
        }
    }

    fn check(text: &str, sender: &SenderFacts, expected: &str) {
        let layer = Layer::parse(Level::System, "p.toml", text).unwrap();
        let policy = EffectivePolicy::resolve(&Presets::shipped(), &[layer]);
        let found = policy.lists().find(sender, NOW);
        let told = found.map(|(word, line, _)| format!("{word} {}", line.text)).unwrap_or_default();
        assert_eq!(told, expected, "{text}");
    }

    #[test]
    fn whom_a_line_means() {
        let anna = sender("anna@mail.x.test", true, "bounce@y.test", true, "192.0.2.7");
        for (text, fits) in [
            ("anna@mail.x.test", true),
            ("Anna@Mail.X.test", true),
            ("x.test", true),
            ("@x.test", false),
            ("@mail.x.test", true),
            ("ail.x.test", false),
            ("y.test", true),
            ("192.0.2.0/24", true),
            ("192.0.2.7", true),
            ("192.0.3.0/24", false),
            ("192.0.2.8/29", false),
            ("2001:db8::/32", false),
        ] {
            let line = format!("allow = [\"{text}\"]");
            let expected = if fits { format!("allow {text}") } else { String::new() };
            check(&line, &anna, &expected);
        }
        let sixth = sender("", false, "", false, "2001:db8::5");
        check("block = [\"2001:db8::/32\"]", &sixth, "block 2001:db8::/32");
    }

    #[test]
    fn only_the_proven_are_let_through_and_anybody_is_kept_out() {
        let liar = sender("anna@x.test", false, "anna@x.test", false, "192.0.2.7");
        check("allow = [\"x.test\"]", &liar, "");
        check("allow = [{ sender = \"x.test\", proof = \"none\" }]", &liar, "allow x.test");
        check("block = [\"x.test\"]", &liar, "block x.test");
        let listed = sender("anna@x.test", true, "", false, "192.0.2.7");
        check("allow = [\"x.test\"]\nblock = [\"x.test\"]", &listed, "allow x.test");
        check("allow = [\"x.test\"]\nblock = [\"anna@x.test\"]", &listed, "block anna@x.test");
        check("allow = [\"192.0.2.0/24\"]\nblock = [\"x.test\"]", &listed, "allow 192.0.2.0/24");
    }

    #[test]
    fn a_line_ends() {
        let anna = sender("anna@x.test", true, "", false, "");
        check("allow = [{ sender = \"x.test\", until = 2026-01-01 }]", &anna, "");
        check("allow = [{ sender = \"x.test\", until = 2027-01-01 }]", &anna, "allow x.test");
    }

    #[test]
    fn the_nearest_level_that_says_anything_counts() {
        let layers = [
            Layer::parse(Level::System, "system", "block = [\"anna@x.test\"]").unwrap(),
            Layer::parse(Level::Mailbox, "me", "allow = [\"x.test\"]").unwrap(),
        ];
        let policy = EffectivePolicy::resolve(&Presets::shipped(), &layers);
        let (word, _, origin) = policy.lists().find(&sender("anna@x.test", true, "", false, ""), NOW).unwrap();
        assert_eq!((word, origin.to_string().as_str()), (Word::Allow, "mailbox me"));
        let (word, ..) = policy.lists().find(&sender("anna@x.test", false, "", false, ""), NOW).unwrap();
        assert_eq!(word, Word::Block);
    }

    #[test]
    fn errors_name_file_and_line() {
        for (text, message) in [
            ("allow = \"x\"", "p.toml:1: `allow` is a list of addresses, domains or networks"),
            ("allow = [\n\"a b\"]", "p.toml:2: `a b` is no address, domain or network"),
            ("allow = [\"192.0.2.0/33\"]", "p.toml:1: `192.0.2.0/33` is no address, domain or network"),
            ("allow = [{ until = 2027-01-01 }]", "p.toml:1: `sender` is missing"),
            ("allow = [{ sender = \"x.test\", until = \"soon\" }]", "p.toml:1: `until` is a day such as 2027-03-31"),
            ("block = [{ sender = \"x.test\", proof = \"none\" }]", "p.toml:1: unknown field `proof` of `block`"),
            ("allow = [{ sender = \"x.test\", proof = 1 }]", "p.toml:1: `proof` is \"required\" or \"none\""),
        ] {
            assert_eq!(Layer::parse(Level::System, "p.toml", text).unwrap_err().to_string(), message);
        }
    }
}
