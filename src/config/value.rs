//! Values as they stand in the file, checked against their option.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use base::ByteSize;
use base::units::{format_duration, parse_duration};
use mail::Address;
use toml::de::DeValue;

use crate::model::Network;
use crate::option::Kind;

/// A checked value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    Text(String),
    Flag(bool),
    Count(u64),
    Size(ByteSize),
    Span(Duration),
    Texts(Vec<String>),
    SocketAddresses(Vec<SocketAddr>),
    Networks(Vec<Network>),
    MailAddress(Address),
}

/// Checks a value; the error completes the sentence "`option` ...".
pub(crate) fn check(kind: Kind, value: &DeValue<'_>) -> Result<Value, String> {
    match kind {
        Kind::Text | Kind::Path => {
            let text = text_of(value)?;
            if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(Value::Text(text.to_owned())) }
        }
        Kind::Flag => value.as_bool().map(Value::Flag).ok_or_else(|| "must be true or false".to_owned()),
        Kind::Count { min, max } => {
            let digits = value.as_integer().filter(|integer| integer.radix() == 10).map(|integer| integer.as_str());
            let number = digits.and_then(|digits| digits.replace('_', "").parse().ok());
            number
                .filter(|number| (min..=max).contains(number))
                .map(Value::Count)
                .ok_or_else(|| format!("must be a whole number from {min} to {max}"))
        }
        Kind::Size { min, max } => {
            let size = text_of(value)?.parse::<ByteSize>().map_err(|error| error.to_string())?;
            let fits = (min..=max).contains(&size);
            if fits { Ok(Value::Size(size)) } else { Err(format!("must lie between {min} and {max}")) }
        }
        Kind::Span { min, max } => {
            let span = parse_duration(text_of(value)?).map_err(|error| error.to_string())?;
            let fits = (min..=max).contains(&span);
            let limits = || format!("must lie between {} and {}", format_duration(min), format_duration(max));
            if fits { Ok(Value::Span(span)) } else { Err(limits()) }
        }
        Kind::Choice(choices) => {
            let text = text_of(value)?;
            let known = choices.contains(&text);
            if known { Ok(Value::Text(text.to_owned())) } else { Err(format!("must be one of {}", choices.join(", "))) }
        }
        Kind::Choices(choices) | Kind::AnyOf(choices) => {
            let texts = texts_of(value)?;
            let may_be_empty = matches!(kind, Kind::AnyOf(_));
            let known =
                (may_be_empty || !texts.is_empty()) && texts.iter().all(|text| choices.contains(&text.as_str()));
            if known {
                Ok(Value::Texts(texts))
            } else {
                let count = if may_be_empty { "none or more" } else { "one or more" };
                Err(format!("must list {count} of {}", choices.join(", ")))
            }
        }
        Kind::Texts | Kind::Paths => texts_of(value).map(Value::Texts),
        Kind::SocketAddresses => {
            parse_each(value, "an address with a port, such as 192.0.2.53:53").map(Value::SocketAddresses)
        }
        Kind::Networks => {
            let texts = texts_of(value)?;
            texts.iter().map(|text| parse_network(text)).collect::<Result<_, _>>().map(Value::Networks)
        }
        Kind::MailAddress => {
            text_of(value)?.parse().map(Value::MailAddress).map_err(|error| format!("must be a mail address: {error}"))
        }
    }
}

fn text_of<'a>(value: &'a DeValue<'_>) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| format!("must be a text in quotes, not {}", value.type_str()))
}

fn texts_of(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let list = value.as_array().ok_or_else(|| format!("must be a list of texts, not {}", value.type_str()))?;
    list.iter().map(|item| text_of(item.get_ref()).map(str::to_owned)).collect()
}

fn parse_each<T: std::str::FromStr>(value: &DeValue<'_>, form: &str) -> Result<Vec<T>, String> {
    let texts = texts_of(value)?;
    texts.iter().map(|text| text.parse().map_err(|_| format!("has `{text}`: expected {form}"))).collect()
}

fn parse_network(text: &str) -> Result<Network, String> {
    let invalid = || format!("has `{text}`: expected a network such as 192.0.2.0/24 or 2001:db8::/32");
    let (address, prefix) = match text.split_once('/') {
        None => (text, None),
        Some((address, prefix)) => (address, Some(prefix)),
    };
    let address: IpAddr = address.parse().map_err(|_| invalid())?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.map_or(Ok(bits), str::parse).map_err(|_| invalid())?;
    if prefix > bits { Err(invalid()) } else { Ok(Network { address, prefix }) }
}

impl Value {
    pub(crate) fn into_text(self) -> String {
        if let Self::Text(text) = self { text } else { String::new() }
    }
    pub(crate) fn into_texts(self) -> Vec<String> {
        if let Self::Texts(texts) = self { texts } else { Vec::new() }
    }
    pub(crate) fn into_paths(self) -> Vec<PathBuf> {
        self.into_texts().into_iter().map(PathBuf::from).collect()
    }
    pub(crate) fn into_count(self) -> usize {
        if let Self::Count(count) = self { usize::try_from(count).unwrap_or(usize::MAX) } else { 0 }
    }
    pub(crate) fn into_size(self) -> ByteSize {
        if let Self::Size(size) = self { size } else { ByteSize(0) }
    }
    pub(crate) fn into_span(self) -> Duration {
        if let Self::Span(span) = self { span } else { Duration::ZERO }
    }
}
