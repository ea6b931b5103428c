//! Header fields in the forms of RFC 8621 §4.1.2.

use bytes::Bytes;
use mail::HeaderFields;
use mail_parser::{Address, HeaderForm, HeaderValue, Mailbox};
use serde_json::{Value, json};

/// `header:Name`, `header:Name:asForm`, `header:Name:asForm:all`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HeaderProperty {
    /// Lower case.
    pub name: String,
    pub form: Form,
    pub all: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    Raw,
    Text,
    Addresses,
    GroupedAddresses,
    MessageIds,
    Date,
    Urls,
}

impl Form {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Raw, "asRaw"),
        (Self::Text, "asText"),
        (Self::Addresses, "asAddresses"),
        (Self::GroupedAddresses, "asGroupedAddresses"),
        (Self::MessageIds, "asMessageIds"),
        (Self::Date, "asDate"),
        (Self::Urls, "asURLs"),
    ];

    /// Forms a field of RFC 5322 or RFC 2369 may be asked in; other fields may be asked in any.
    fn suits(self, name: &str) -> bool {
        let bare = name.strip_prefix("resent-").unwrap_or(name);
        match (bare, self) {
            (_, Self::Raw) => true,
            ("from" | "sender" | "reply-to" | "to" | "cc" | "bcc", form) => {
                matches!(form, Self::Addresses | Self::GroupedAddresses)
            }
            ("message-id" | "in-reply-to" | "references", form) => form == Self::MessageIds,
            ("date", form) => form == Self::Date,
            (
                "list-help" | "list-unsubscribe" | "list-subscribe" | "list-post" | "list-owner" | "list-archive",
                form,
            ) => form == Self::Urls,
            ("subject" | "comments" | "keywords" | "list-id", form) => form == Self::Text,
            _ => true,
        }
    }
}

impl HeaderProperty {
    /// `None` if the text is no such property or the form does not suit the field.
    pub fn parse(text: &str) -> Option<Self> {
        let mut pieces = text.strip_prefix("header:")?.split(':');
        let name = pieces.next()?.to_ascii_lowercase();
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let mut next = pieces.next();
        let form = Form::ALL.iter().find(|(_, known)| Some(*known) == next).map(|(form, _)| *form);
        if form.is_some() {
            next = pieces.next();
        }
        let all = match next {
            None => false,
            Some("all") if pieces.next().is_none() => true,
            Some(_) => return None,
        };
        let form = form.unwrap_or(Form::Raw);
        form.suits(&name).then_some(Self { name, form, all })
    }

    /// The value in these header lines: of the last field of the name, or of all.
    pub fn value<'a>(&self, lines: impl Iterator<Item = mail::HeaderField<'a>>) -> Value {
        let found = lines.filter(|field| field.is(&self.name)).map(|field| show(self.form, field.value));
        if self.all { Value::Array(found.collect()) } else { found.last().unwrap_or(Value::Null) }
    }
}

/// Fields of a message as its owner sees it: those of the entry's prefix, then the blob's.
pub(crate) fn own_fields<'a>(prefix: &'a Bytes, header: &'a [u8]) -> impl Iterator<Item = mail::HeaderField<'a>> {
    HeaderFields::of(prefix).chain(HeaderFields::of(header)).filter(|field| !field.name.is_empty())
}

/// A raw field value (what follows the colon) in a form.
pub(crate) fn show(form: Form, value: &[u8]) -> Value {
    let parse = match form {
        Form::Raw => {
            let end = value.strip_suffix(b"\n").map_or(value, |v| v.strip_suffix(b"\r").unwrap_or(v));
            return json!(String::from_utf8_lossy(end));
        }
        Form::Text => HeaderForm::Text,
        Form::Addresses | Form::GroupedAddresses | Form::Urls => HeaderForm::Addresses,
        Form::MessageIds => HeaderForm::MessageIds,
        Form::Date => HeaderForm::Date,
    }
    .parse(value);
    match (form, parse.value()) {
        (Form::Text, HeaderValue::Text(text)) => json!(text.trim()),
        (Form::Text, _) => json!(""),
        (Form::Addresses, HeaderValue::Address(list)) => Value::Array(list.mailboxes().filter_map(mailbox).collect()),
        (Form::GroupedAddresses, HeaderValue::Address(list)) => grouped(list.iter()),
        (Form::Addresses | Form::GroupedAddresses, _) => json!([]),
        (Form::MessageIds, HeaderValue::TextList(ids)) => Value::Array(ids.iter().map(|id| json!(id)).collect()),
        (Form::Date, HeaderValue::DateTime(date)) if date.is_valid() => json!(date.to_rfc3339()),
        (Form::Urls, _) => urls(value),
        (Form::Raw | Form::MessageIds | Form::Date, _) => Value::Null,
    }
}

fn mailbox(mailbox: Mailbox<'_>) -> Option<Value> {
    let (name, email) = (mailbox.name().map(str::trim).filter(|name| !name.is_empty()), mailbox.address());
    (name.is_some() || email.is_some()).then(|| json!({ "name": name, "email": email.unwrap_or_default() }))
}

/// Addresses outside groups are gathered under a null name (RFC 8621 §4.1.2.4).
fn grouped<'a>(items: impl Iterator<Item = Address<'a>>) -> Value {
    let mut groups: Vec<(Option<String>, Vec<Value>)> = Vec::new();
    let mut is_loose = false;
    for item in items {
        match item {
            Address::Group(group) => {
                let name = group.name().unwrap_or_default().to_owned();
                groups.push((Some(name), group.mailboxes().filter_map(mailbox).collect()));
                is_loose = false;
            }
            Address::Mailbox(single) => {
                if !is_loose {
                    groups.push((None, Vec::new()));
                    is_loose = true;
                }
                if let Some((_, addresses)) = groups.last_mut() {
                    addresses.extend(mailbox(single));
                }
            }
        }
    }
    let show = |(name, addresses)| json!({ "name": name, "addresses": addresses });
    Value::Array(groups.into_iter().map(show).collect())
}

/// RFC 2369: URLs in angle brackets; null if there are none.
fn urls(value: &[u8]) -> Value {
    let text = String::from_utf8_lossy(value);
    let urls: Vec<String> = text
        .split('<')
        .skip(1)
        .filter_map(|rest| rest.split_once('>'))
        .map(|(url, _)| url.split_whitespace().collect())
        .collect();
    if urls.is_empty() { Value::Null } else { json!(urls) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The forms of RFC 8621 §4.1.2, with its own examples where it has them.
    #[test]
    fn fields_are_shown_in_each_form() {
        let groups = b" \"  James Smythe\" <james@example.com>, Friends:\r\n  jane@example.com, =?UTF-8?Q?John_Sm=C3=AEth?=\r\n  <john@example.com>;\r\n";
        for (property, value, expected) in [
            ("header:X", &b" a =?utf-8?q?b=C3=A4?=\r\n"[..], json!(" a =?utf-8?q?b=C3=A4?=")),
            ("header:Subject:asText", b" a\r\n =?utf-8?q?b=C3=A4?=\r\n", json!("a b\u{e4}")),
            (
                "header:From:asAddresses",
                groups,
                json!([
                    { "name": "James Smythe", "email": "james@example.com" },
                    { "name": null, "email": "jane@example.com" },
                    { "name": "John Sm\u{ee}th", "email": "john@example.com" },
                ]),
            ),
            (
                "header:To:asGroupedAddresses",
                groups,
                json!([
                    { "name": null, "addresses": [{ "name": "James Smythe", "email": "james@example.com" }] },
                    { "name": "Friends", "addresses": [
                        { "name": null, "email": "jane@example.com" },
                        { "name": "John Sm\u{ee}th", "email": "john@example.com" },
                    ] },
                ]),
            ),
            ("header:References:asMessageIds", b" <a@b> <c@d>\r\n", json!(["a@b", "c@d"])),
            ("header:Date:asDate", b" Fri, 30 Oct 2026 07:12:00 +0100\r\n", json!("2026-10-30T07:12:00+01:00")),
            ("header:Date:asDate", b" soon\r\n", Value::Null),
            ("header:List-Post:asURLs", b" <mailto:a@b>, (x) <https://c/d>\r\n", json!(["mailto:a@b", "https://c/d"])),
            ("header:List-Post:asURLs", b" NO\r\n", Value::Null),
        ] {
            let property = HeaderProperty::parse(property).unwrap();
            assert_eq!(show(property.form, value), expected, "{property:?}");
        }
        for text in [
            "header:",
            "subject",
            "header:From:asText",
            "header:Date:asAddresses",
            "header:X:asText:every",
            "header:X:all:all",
        ] {
            assert_eq!(HeaderProperty::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_last_field_counts_unless_all_are_wanted() {
        let lines = Bytes::from_static(b"Return-Path: <r@x>\r\n");
        let header = b"X: 1\r\nx: 2\r\nY: 3\r\n\r\n";
        for (property, expected) in [
            ("header:X", json!(" 2")),
            ("header:X:all", json!([" 1", " 2"])),
            ("header:Z", Value::Null),
            ("header:Z:all", json!([])),
        ] {
            assert_eq!(HeaderProperty::parse(property).unwrap().value(own_fields(&lines, header)), expected);
        }
    }
}
