//! What a DNS list answers, and which of its answers make a rule hit.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::net::Question;
use super::parse;
use super::regex::{Pattern, PatternText};

/// One record of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Address(Ipv4Addr),
    Text(Box<str>),
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Which answers count.
#[derive(Clone, Debug)]
pub enum Subtest {
    /// Any: of addresses those in 127.0.0.0/8, for no list answers with others (RFC 5782 §2.1).
    Any,
    /// One of these bits, in an address of 127.0.0.0/8.
    Mask(u32),
    Address(Ipv4Addr),
    /// From the first to the last.
    Range(u32, u32),
    /// These bits where the second has ones.
    Bits(u32, u32),
    Matches(Arc<Pattern>),
}

impl Subtest {
    /// As the kind of question writes it. The error says what is wrong.
    pub fn of(question: &Question) -> Result<Self, String> {
        let subtest = match question {
            Question::Relay { subtest, .. } | Question::Sender { subtest, .. } => subtest.as_deref(),
            Question::RelaySub { subtest, .. } => Some(subtest.as_str()),
            Question::Link { subtest, .. } => return subtest.as_deref().map_or(Ok(Self::Any), Self::numeric),
            Question::Template { subtest, .. } => match subtest.as_deref() {
                Some(text) if text.starts_with('/') || text.starts_with("m{") => {
                    let compiled = Pattern::compile(&parse::whole_pattern(text)?)?;
                    return Ok(Self::Matches(Arc::new(compiled.0)));
                }
                Some(text) => return Self::numeric(text),
                None => None,
            },
            Question::Service { .. } => None,
        };
        let Some(text) = subtest else { return Ok(Self::Any) };
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        if let Ok(mask) = text.parse() {
            return Ok(Self::Mask(mask));
        }
        Ok(Self::Matches(Arc::new(Pattern::compile(&PatternText::plain(text))?.0)))
    }

    /// `2`, `0x02`, `127.0.0.2`, `127.0.0.2-127.0.0.9` or `0.0.0.2/0.0.0.2`.
    fn numeric(text: &str) -> Result<Self, String> {
        let number = |part: &str| {
            let hex = part.strip_prefix("0x").map(|digits| u32::from_str_radix(digits, 16).ok());
            let address = || part.parse::<Ipv4Addr>().ok().map(Ipv4Addr::to_bits);
            let number = hex.unwrap_or_else(|| part.parse().ok().or_else(address));
            number.ok_or_else(|| format!("`{text}` is no number, address or range of them"))
        };
        if let Some((first, last)) = text.split_once('-') {
            return Ok(Self::Range(number(first)?, number(last)?));
        }
        if let Some((bits, mask)) = text.split_once('/') {
            return Ok(Self::Bits(number(bits)?, number(mask)?));
        }
        match text.parse() {
            Ok(address) => Ok(Self::Address(address)),
            Err(_) => Ok(Self::Mask(number(text)?)),
        }
    }

    pub fn fits(&self, answer: &Answer) -> bool {
        let Answer::Address(address) = answer else {
            let text = answer.to_string();
            return match self {
                Self::Any => true,
                Self::Matches(pattern) => pattern.is_match(text.as_bytes()),
                Self::Mask(_) | Self::Address(_) | Self::Range(..) | Self::Bits(..) => false,
            };
        };
        let bits = address.to_bits();
        match self {
            Self::Any => address.is_loopback(),
            Self::Mask(mask) => address.is_loopback() && bits & mask != 0,
            Self::Address(one) => one == address,
            Self::Range(first, last) => (first..=last).contains(&&bits),
            Self::Bits(one, mask) => bits & mask == one & mask,
            Self::Matches(pattern) => pattern.is_match(address.to_string().as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::net::LinkPart;
    use super::*;

    fn fits(question: &Question, answer: &str) -> bool {
        let answer = answer.parse().map_or_else(|_| Answer::Text(answer.into()), Answer::Address);
        Subtest::of(question).unwrap().fits(&answer)
    }

    #[test]
    fn answers_of_each_kind_of_list() {
        let relay = |subtest: Option<&str>| Question::Relay {
            set: "x".into(),
            zone: "x.test".into(),
            text: false,
            subtest: subtest.map(str::to_owned),
        };
        let link = |subtest: Option<&str>| Question::Link {
            zone: "x.test".into(),
            record: "A".into(),
            subtest: subtest.map(str::to_owned),
            asks: LinkPart::Domain,
        };
        let template = |subtest: Option<&str>| Question::Template {
            name: "_AUTHORDOMAIN_.x.test".into(),
            record: "A".into(),
            subtest: subtest.map(str::to_owned),
        };
        for (question, answer, expected) in [
            (relay(None), "127.0.0.9", true),
            (relay(None), "192.0.2.1", false),
            (relay(None), "any text", true),
            (relay(Some("127.0.0.2")), "127.0.0.2", true),
            (relay(Some("127.0.0.2")), "127.0.0.3", false),
            (relay(Some("^127\\.0\\.0\\.1[01]$")), "127.0.0.11", true),
            (relay(Some("^127\\.0\\.0\\.1[01]$")), "127.0.0.1", false),
            (relay(Some("4")), "127.0.0.6", true),
            (relay(Some("4")), "10.0.0.4", false),
            (relay(Some("(?i:listed)")), "Was Listed today", true),
            (link(None), "127.0.0.2", true),
            (link(Some("2")), "127.0.0.6", true),
            (link(Some("0x40")), "127.0.0.64", true),
            (link(Some("127.0.1.2")), "127.0.1.2", true),
            (link(Some("127.0.1.2-127.0.1.6")), "127.0.1.6", true),
            (link(Some("127.0.1.2-127.0.1.6")), "127.0.1.7", false),
            (link(Some("0.0.0.8/0.0.0.12")), "127.0.0.9", true),
            (link(Some("2")), "text", false),
            (template(Some("/^127\\.2\\./")), "127.2.0.14", true),
            (template(Some("/GOOD/i")), "good", true),
            (template(None), "v=spf1 -all", true),
        ] {
            assert_eq!(fits(&question, answer), expected, "{question:?} {answer}");
        }
        for question in [link(Some("x")), link(Some("1-")), relay(Some("(")), template(Some("/(/"))] {
            assert!(Subtest::of(&question).is_err(), "{question:?}");
        }
    }
}
