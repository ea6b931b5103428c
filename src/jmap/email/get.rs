//! Email/get (RFC 8621 §4.2).

use base::{AccountId, UtcMillis};
use bytes::Bytes;
use mail::mime::summary::COMMON_FIELDS;
use mail::mime::{Part, Summary};
use mail::{HeaderFields, date};
use serde_json::{Map, Value, json};
use store::Entry;

use super::body::{BodyPart, tree, views};
use super::header::{Form, HeaderProperty, own_fields, show};
use super::keywords;
use crate::arguments::{Arguments, OBJECTS_MAX};
use crate::core::Jmap;
use crate::error::MethodError;
use crate::id::{email_blob_id, email_id, mailbox_id, parse_email_id, part_blob_id, thread_id};
use crate::mime::{self, PartText};

/// What of an email and its parts is wanted.
pub(crate) struct Wanted {
    properties: Vec<String>,
    headers: Vec<(String, HeaderProperty)>,
    parts: PartWanted,
    text_values: bool,
    html_values: bool,
    all_values: bool,
    /// Longest bodyValue in octets; zero is unlimited.
    value_max: usize,
}

struct PartWanted {
    properties: Vec<String>,
    headers: Vec<(String, HeaderProperty)>,
}

/// RFC 8621 §4.2: what a client gets that names no properties.
const DEFAULT: &[&str] = &[
    "id",
    "blobId",
    "threadId",
    "mailboxIds",
    "keywords",
    "size",
    "receivedAt",
    "messageId",
    "inReplyTo",
    "references",
    "sender",
    "from",
    "to",
    "cc",
    "bcc",
    "replyTo",
    "subject",
    "sentAt",
    "hasAttachment",
    "preview",
    "bodyValues",
    "textBody",
    "htmlBody",
    "attachments",
];
const OTHER: &[&str] = &["headers", "bodyStructure"];
const PART_DEFAULT: &[&str] =
    &["partId", "blobId", "size", "name", "type", "charset", "disposition", "cid", "language", "location"];
const PART_OTHER: &[&str] = &["headers", "subParts"];

/// Properties that stand for a header field in a form.
const SHORT: &[(&str, &str, Form)] = &[
    ("messageId", "message-id", Form::MessageIds),
    ("inReplyTo", "in-reply-to", Form::MessageIds),
    ("references", "references", Form::MessageIds),
    ("sender", "sender", Form::Addresses),
    ("from", "from", Form::Addresses),
    ("to", "to", Form::Addresses),
    ("cc", "cc", Form::Addresses),
    ("bcc", "bcc", Form::Addresses),
    ("replyTo", "reply-to", Form::Addresses),
    ("subject", "subject", Form::Text),
    ("sentAt", "date", Form::Date),
];

/// A header longer than this is shown cut off.
const HEADER_READ_MAX: u64 = 4 << 20;

impl Jmap {
    pub(crate) async fn email_get(&self, account: AccountId, arguments: &Arguments) -> Result<Value, MethodError> {
        let wanted = Wanted::read(arguments)?;
        let ids = match arguments.ids()? {
            Some(ids) => ids,
            None => {
                let states = self.services.mail.email_states(account, None).await?;
                if states.len() > OBJECTS_MAX {
                    return Err(MethodError::new("requestTooLarge", "name the emails you want"));
                }
                states.iter().map(|state| email_id(state.state.email)).collect()
            }
        };
        let state = self.state(account).await?;
        let known = ids.iter().filter_map(|id| parse_email_id(id)).collect();
        let entries = self.services.mail.emails(account, known).await?;
        let mut list = Vec::with_capacity(entries.len());
        let mut found = std::collections::HashSet::new();
        for entry in entries {
            found.insert(email_id(entry.email));
            list.push(self.show_email(&entry, &wanted).await?);
        }
        let missing: Vec<String> = ids.into_iter().filter(|id| !found.contains(id)).collect();
        Ok(json!({ "state": state, "list": list, "notFound": missing }))
    }

    async fn show_email(&self, entry: &Entry, wanted: &Wanted) -> Result<Value, MethodError> {
        let summary = self.summary_of(entry)?;
        let has = |name: &str| wanted.properties.iter().any(|property| property == name);
        let mut out = Map::new();
        out.insert("id".to_owned(), json!(email_id(entry.email)));
        show_metadata(&mut out, entry, &summary, &has);
        for (name, field, form) in SHORT.iter().filter(|(name, _, _)| has(name)) {
            let fields = own_fields(&entry.prefix, &summary.common_fields).filter(|f| f.is(field));
            out.insert((*name).to_owned(), fields.last().map_or(Value::Null, |f| show(*form, f.value)));
        }
        self.show_headers(&mut out, entry, &summary, wanted, has("headers")).await?;
        let root = tree(&summary.root);
        let split = views(&root);
        if has("bodyStructure") {
            let shown = Box::pin(self.show_part(entry, &root, &wanted.parts, true)).await?;
            out.insert("bodyStructure".to_owned(), shown);
        }
        for (name, parts) in [("textBody", &split.text), ("htmlBody", &split.html), ("attachments", &split.attachments)]
        {
            if has(name) {
                let mut list = Vec::with_capacity(parts.len());
                for part in parts {
                    list.push(Box::pin(self.show_part(entry, part, &wanted.parts, false)).await?);
                }
                out.insert(name.to_owned(), Value::Array(list));
            }
        }
        if has("bodyValues") {
            let mut parts: Vec<&BodyPart<'_>> = if wanted.all_values { root.leaves() } else { Vec::new() };
            if wanted.text_values {
                parts.extend(&split.text);
            }
            if wanted.html_values {
                parts.extend(&split.html);
            }
            let mut values = Map::new();
            for body in parts {
                let Some(id) = body.id.as_ref().filter(|_| body.part.is("text", None)) else { continue };
                if !values.contains_key(id) {
                    let raw = self.part_octets(entry, body.part).await?;
                    values.insert(id.clone(), body_value(PartText::decode(body.part, &raw), wanted.value_max));
                }
            }
            out.insert("bodyValues".to_owned(), Value::Object(values));
        }
        Ok(Value::Object(out))
    }

    async fn show_headers(
        &self,
        out: &mut Map<String, Value>,
        entry: &Entry,
        summary: &Summary,
        wanted: &Wanted,
        all: bool,
    ) -> Result<(), MethodError> {
        if !all && wanted.headers.is_empty() {
            return Ok(());
        }
        let is_common = |property: &HeaderProperty| COMMON_FIELDS.contains(&property.name.as_str());
        let header = if !all && wanted.headers.iter().all(|(_, property)| is_common(property)) {
            Bytes::copy_from_slice(&summary.common_fields)
        } else {
            self.header(entry, &summary.root).await?
        };
        if all {
            out.insert("headers".to_owned(), raw_headers(own_fields(&entry.prefix, &header)));
        }
        for (name, property) in &wanted.headers {
            out.insert(name.clone(), property.value(own_fields(&entry.prefix, &header)));
        }
        Ok(())
    }

    /// Header lines of a part.
    async fn header(&self, entry: &Entry, part: &Part) -> Result<Bytes, MethodError> {
        let start = u64::from(part.header.start);
        let end = u64::from(part.header.end).min(start + HEADER_READ_MAX);
        Ok(self.content(entry).read_blob(start..end).await?)
    }

    /// A part's octets, still encoded.
    pub(crate) async fn part_octets(&self, entry: &Entry, part: &Part) -> Result<Bytes, MethodError> {
        let range = u64::from(part.content.start)..u64::from(part.content.end);
        Ok(self.content(entry).read_blob(range).await?)
    }

    async fn show_part(
        &self,
        entry: &Entry,
        body: &BodyPart<'_>,
        wanted: &PartWanted,
        with_children: bool,
    ) -> Result<Value, MethodError> {
        let part = body.part;
        let is_leaf = body.id.is_some();
        let mut out = Map::new();
        for name in &wanted.properties {
            let value = match name.as_str() {
                "partId" => json!(body.id),
                "blobId" => json!(is_leaf.then(|| part_blob_id(entry.email, part))),
                "size" => json!(self.decoded_size(entry, body).await?),
                "name" => json!(part.file_name()),
                "type" => json!(mime::media_type(part)),
                "charset" => json!(mime::charset(part).or(part.is("text", None).then_some("us-ascii"))),
                "disposition" => json!(part.disposition.as_ref().map(|d| &d.kind)),
                "cid" => json!(part.content_id.as_deref().map(|id| id.trim_matches(['<', '>', ' ']))),
                "language" => {
                    if part.language.is_empty() {
                        Value::Null
                    } else {
                        json!(part.language)
                    }
                }
                "location" => json!(part.location),
                "headers" => raw_headers(HeaderFields::of(&self.header(entry, part).await?)),
                _ => continue,
            };
            out.insert(name.clone(), value);
        }
        if !wanted.headers.is_empty() {
            let header = self.header(entry, part).await?;
            for (name, property) in &wanted.headers {
                out.insert(name.clone(), property.value(HeaderFields::of(&header)));
            }
        }
        if with_children && !is_leaf {
            let mut children = Vec::with_capacity(body.children.len());
            for child in &body.children {
                children.push(Box::pin(self.show_part(entry, child, wanted, true)).await?);
            }
            out.insert("subParts".to_owned(), Value::Array(children));
        }
        Ok(Value::Object(out))
    }

    /// Octets after decoding: base64 and quoted-printable must be read to know.
    async fn decoded_size(&self, entry: &Entry, body: &BodyPart<'_>) -> Result<usize, MethodError> {
        if body.id.is_none() {
            return Ok(0);
        }
        match mime::encoding(body.part) {
            mail_parser::Encoding::None => Ok((body.part.content.end - body.part.content.start) as usize),
            encoding => Ok(encoding.decoded_len(&self.part_octets(entry, body.part).await?)),
        }
    }
}

impl Wanted {
    fn read(arguments: &Arguments) -> Result<Self, MethodError> {
        let (properties, headers) = split(arguments.texts("properties")?, DEFAULT, OTHER)?;
        let (part_properties, part_headers) = split(arguments.texts("bodyProperties")?, PART_DEFAULT, PART_OTHER)?;
        Ok(Self {
            properties,
            headers,
            parts: PartWanted { properties: part_properties, headers: part_headers },
            text_values: arguments.flag("fetchTextBodyValues")?,
            html_values: arguments.flag("fetchHTMLBodyValues")?,
            all_values: arguments.flag("fetchAllBodyValues")?,
            value_max: arguments.count("maxBodyValueBytes")?.unwrap_or(0),
        })
    }
}

type Headers = Vec<(String, HeaderProperty)>;

fn split(wanted: Option<Vec<String>>, default: &[&str], other: &[&str]) -> Result<(Vec<String>, Headers), MethodError> {
    let Some(wanted) = wanted else { return Ok((default.iter().map(|name| (*name).to_owned()).collect(), Vec::new())) };
    let (mut properties, mut headers) = (Vec::new(), Vec::new());
    for name in wanted {
        if default.contains(&name.as_str()) || other.contains(&name.as_str()) {
            properties.push(name);
        } else if let Some(property) = HeaderProperty::parse(&name) {
            headers.push((name, property));
        } else {
            return Err(MethodError::invalid(format!("no such property: {name}")));
        }
    }
    Ok((properties, headers))
}

fn show_metadata(out: &mut Map<String, Value>, entry: &Entry, summary: &Summary, has: &impl Fn(&str) -> bool) {
    let mut put = |name: &str, value: Value| {
        if has(name) {
            out.insert(name.to_owned(), value);
        }
    };
    put("blobId", json!(email_blob_id(entry.email)));
    put("threadId", json!(thread_id(entry.thread)));
    put("mailboxIds", json!({ mailbox_id(entry.mailbox): true }));
    put("keywords", keywords::to_json(&entry.flags));
    put("size", json!(entry.size_bytes));
    put("receivedAt", json!(date::format_utc(UtcMillis(entry.internal_date.0))));
    put("hasAttachment", json!(summary.has_attachment));
    put("preview", json!(summary.preview));
}

fn raw_headers<'a>(fields: impl Iterator<Item = mail::HeaderField<'a>>) -> Value {
    let show_field = |field: mail::HeaderField<'_>| json!({ "name": String::from_utf8_lossy(field.name), "value": show(Form::Raw, field.value) });
    Value::Array(fields.filter(|field| !field.name.is_empty()).map(show_field).collect())
}

/// Cut at a character; in HTML a tag may be cut, which readers of a truncated value must expect.
fn body_value(mut text: PartText, max: usize) -> Value {
    let is_truncated = max > 0 && text.text.len() > max;
    if is_truncated {
        text.text.truncate(text.text.floor_char_boundary(max));
    }
    json!({ "value": text.text, "isEncodingProblem": text.is_damaged, "isTruncated": is_truncated })
}
