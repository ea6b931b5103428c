//! A draft as JMAP describes it, as a message (RFC 8621 §4.6).

use std::borrow::Cow;
use std::collections::HashMap;

use base::UtcMillis;
use bytes::Bytes;
use mail_builder::MessageBuilder;
use mail_builder::headers::HeaderType;
use mail_builder::headers::address::Address;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::date::Date;
use mail_builder::headers::message_id::MessageId;
use mail_builder::headers::raw::Raw;
use mail_builder::headers::text::Text;
use mail_builder::mime::{BodyPart, MimePart};
use serde_json::{Map, Value};

use super::header::{Form, HeaderProperty};
use crate::error::SetError;

type Object = Map<String, Value>;

const DEPTH_MAX: usize = 10;
const PARTS_MAX: usize = 200;

/// Blob ids a draft uses.
pub(crate) fn blob_ids(draft: &Object) -> Vec<String> {
    fn walk(value: &Value, depth: usize, out: &mut Vec<String>) {
        match value {
            Value::Object(part) if depth > 0 => {
                out.extend(part.get("blobId").and_then(Value::as_str).map(str::to_owned));
                if let Some(parts) = part.get("subParts") {
                    walk(parts, depth - 1, out);
                }
            }
            Value::Array(parts) => parts.iter().for_each(|part| walk(part, depth, out)),
            _ => {}
        }
    }
    let mut out = Vec::new();
    for name in ["bodyStructure", "textBody", "htmlBody", "attachments"] {
        if let Some(value) = draft.get(name) {
            walk(value, DEPTH_MAX + 1, &mut out);
        }
    }
    out
}

/// Writes the draft. `message_id` (without brackets) and `now` are used where the draft has none.
pub(crate) fn build(
    draft: &Object,
    blobs: &HashMap<String, Bytes>,
    message_id: &str,
    now: UtcMillis,
) -> Result<Vec<u8>, SetError> {
    let mut builder = MessageBuilder::new();
    let mut named = Vec::new();
    for (name, value) in draft.iter().filter(|(_, value)| !value.is_null()) {
        let Some((field, form)) = header_of(name) else { continue };
        named.push(field.to_ascii_lowercase());
        builder = builder.header(field, header(name, form, value)?);
    }
    let has = |field: &str| named.iter().any(|known| known == field);
    if named.iter().enumerate().any(|(at, name)| named.iter().skip(at + 1).any(|other| other == name)) {
        return Err(SetError::property("headers", "a header field is given twice"));
    }
    if !has("date") {
        builder = builder.header("Date", Date::new(now.as_secs()));
    }
    if !has("message-id") {
        builder = builder.header("Message-ID", MessageId::new(message_id.to_owned()));
    }
    let source = Source { draft, blobs, parts_left: std::cell::Cell::new(PARTS_MAX) };
    let mut out = Vec::new();
    builder.body(source.body()?).serialize(&mut out);
    Ok(out)
}

/// The header field and form that a property of a draft stands for.
fn header_of(name: &str) -> Option<(String, Form)> {
    let (field, form) = match name {
        "messageId" => ("Message-ID", Form::MessageIds),
        "inReplyTo" => ("In-Reply-To", Form::MessageIds),
        "references" => ("References", Form::MessageIds),
        "sender" => ("Sender", Form::Addresses),
        "from" => ("From", Form::Addresses),
        "to" => ("To", Form::Addresses),
        "cc" => ("Cc", Form::Addresses),
        "bcc" => ("Bcc", Form::Addresses),
        "replyTo" => ("Reply-To", Form::Addresses),
        "subject" => ("Subject", Form::Text),
        "sentAt" => ("Date", Form::Date),
        _ => {
            let property = HeaderProperty::parse(name).filter(|property| !property.all)?;
            // As the client wrote it.
            let field = name.split(':').nth(1).unwrap_or(&property.name).to_owned();
            return Some((field, property.form));
        }
    };
    Some((field.to_owned(), form))
}

fn header<'x>(name: &str, form: Form, value: &Value) -> Result<HeaderType<'x>, SetError> {
    let wrong = || SetError::property(name, "the value does not fit the form");
    let text = || value.as_str().ok_or_else(wrong);
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("header:content-") || lower.starts_with("header:mime-version") {
        return Err(SetError::property(name, "is made from the parts"));
    }
    Ok(match form {
        Form::Text => HeaderType::Text(Text::new(one_line(text()?))),
        // What is not one line of text would start another field.
        Form::Raw => HeaderType::Raw(Raw::new(one_line(text()?).trim().to_owned())),
        Form::Date => {
            let at = text()?.parse::<jiff::Timestamp>().map_err(|_| wrong())?;
            HeaderType::Date(Date::new(at.as_second()))
        }
        Form::MessageIds => {
            let ids = value.as_array().ok_or_else(wrong)?;
            let is_id = |id: &&str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_graphic() && !b"<>".contains(&b));
            let ids = ids.iter().map(|id| id.as_str().filter(is_id).map(str::to_owned)).collect::<Option<Vec<_>>>();
            HeaderType::MessageId(MessageId::new_list(ids.filter(|ids| !ids.is_empty()).ok_or_else(wrong)?.into_iter()))
        }
        Form::Addresses => HeaderType::Address(Address::new_list(addresses(value).ok_or_else(wrong)?)),
        Form::GroupedAddresses => {
            let groups = value.as_array().ok_or_else(wrong)?;
            let mut out = Vec::new();
            for group in groups {
                let members = group.get("addresses").and_then(addresses).ok_or_else(wrong)?;
                match group.get("name").and_then(Value::as_str) {
                    Some(name) => out.push(Address::new_group(Some(one_line(name)), members)),
                    None => out.extend(members),
                }
            }
            HeaderType::Address(Address::new_list(out))
        }
        Form::Urls => {
            let urls = value.as_array().ok_or_else(wrong)?;
            let is_url = |url: &&str| url.bytes().all(|b| b.is_ascii_graphic() && !b"<>".contains(&b));
            let urls = urls.iter().map(|url| url.as_str().filter(is_url)).collect::<Option<Vec<_>>>();
            let urls: Vec<String> = urls.ok_or_else(wrong)?.into_iter().map(|url| format!("<{url}>")).collect();
            HeaderType::Raw(Raw::new(urls.join(", ")))
        }
    })
}

fn addresses<'x>(value: &Value) -> Option<Vec<Address<'x>>> {
    value
        .as_array()?
        .iter()
        .map(|address| {
            let email = address.get("email")?.as_str()?.trim();
            let is_plain = !email.is_empty()
                && email.len() <= 320
                && !email.chars().any(|c| c.is_control() || c.is_whitespace() || "<>,;()".contains(c));
            let name = address.get("name").and_then(Value::as_str).map(one_line).filter(|name| !name.is_empty());
            is_plain.then(|| Address::new_address(name, email.to_owned()))
        })
        .collect()
}

/// Control characters, line breaks above all, become spaces.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

struct Source<'a> {
    draft: &'a Object,
    blobs: &'a HashMap<String, Bytes>,
    parts_left: std::cell::Cell<usize>,
}

impl Source<'_> {
    fn body<'x>(&self) -> Result<MimePart<'x>, SetError> {
        let lists = ["textBody", "htmlBody", "attachments"];
        if let Some(structure) = self.draft.get("bodyStructure").filter(|value| !value.is_null()) {
            if lists.iter().any(|name| self.draft.contains_key(*name)) {
                return Err(SetError::property("bodyStructure", "not together with textBody, htmlBody or attachments"));
            }
            return self.part(structure, None, DEPTH_MAX);
        }
        let text = self.only("textBody", "text/plain")?;
        let html = self.only("htmlBody", "text/html")?;
        let list = self.draft.get("attachments").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let is_inline = |part: &&Value| {
            let has_cid = part.get("cid").is_some_and(Value::is_string);
            has_cid && part.get("disposition").and_then(Value::as_str) == Some("inline")
        };
        let (inline, attached): (Vec<_>, Vec<_>) = list.iter().partition(is_inline);
        let mut related = self.parts(&inline)?;
        let attached = self.parts(&attached)?;
        let html = match html {
            Some(html) if !related.is_empty() => {
                related.insert(0, html);
                Some(MimePart::new("multipart/related", std::mem::take(&mut related)))
            }
            other => other,
        };
        let body = match (text, html) {
            (Some(text), Some(html)) => MimePart::new("multipart/alternative", vec![text, html]),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => MimePart::new("text/plain", String::new()),
        };
        if attached.is_empty() && related.is_empty() {
            return Ok(body);
        }
        let parts: Vec<_> = std::iter::once(body).chain(related).chain(attached).collect();
        Ok(MimePart::new("multipart/mixed", parts))
    }

    fn parts<'x>(&self, list: &[&Value]) -> Result<Vec<MimePart<'x>>, SetError> {
        list.iter().map(|part| self.part(part, Some("attachment"), 1)).collect()
    }

    /// The one part that textBody or htmlBody may hold.
    fn only<'x>(&self, name: &str, kind: &str) -> Result<Option<MimePart<'x>>, SetError> {
        let Some(list) = self.draft.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
        let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
        let [part] = list else { return Err(SetError::property(name, "must hold one part")) };
        if part.get("type").and_then(Value::as_str).is_some_and(|given| given != kind) {
            return Err(SetError::property(name, format!("the part must be {kind}")));
        }
        let mut part = part.clone();
        if let Some(fields) = part.as_object_mut() {
            fields.insert("type".to_owned(), kind.into());
        }
        self.part(&part, None, 1).map(Some)
    }

    fn part<'x>(&self, value: &Value, disposition: Option<&str>, depth: usize) -> Result<MimePart<'x>, SetError> {
        let wrong = |why: &str| SetError::property("bodyStructure", why);
        let left = self.parts_left.get().checked_sub(1).ok_or_else(|| wrong("too many parts"))?;
        self.parts_left.set(left);
        let fields = value.as_object().ok_or_else(|| wrong("a part is an object"))?;
        let text = |name: &str| fields.get(name).and_then(Value::as_str).map(one_line);
        if let Some(children) = fields.get("subParts").and_then(Value::as_array) {
            let depth = depth.checked_sub(1).ok_or_else(|| wrong("nested too deeply"))?;
            let kind = text("type").filter(|kind| is_media_type(kind) && kind.starts_with("multipart/"));
            let kind = kind.unwrap_or_else(|| "multipart/mixed".to_owned());
            let children = children.iter().map(|child| self.part(child, None, depth)).collect::<Result<Vec<_>, _>>()?;
            return Ok(MimePart::new(kind, children));
        }
        let (content, fallback) = self.content(fields)?;
        let kind = text("type").filter(|kind| is_media_type(kind)).unwrap_or_else(|| fallback.to_owned());
        let name = text("name");
        let mut content_type = ContentType::new(kind.clone());
        if let BodyPart::Text(_) = content {
            content_type = content_type.attribute("charset", "utf-8");
        }
        if let Some(name) = &name {
            content_type = content_type.attribute("name", name.clone());
        }
        let mut part = MimePart::new(content_type, content);
        if let Some(kind) = text("disposition").or(disposition.map(str::to_owned)) {
            let kind = if kind.eq_ignore_ascii_case("inline") { "inline" } else { "attachment" };
            let mut shown = ContentType::new(kind);
            if let Some(name) = name {
                shown = shown.attribute("filename", name);
            }
            part = part.header("Content-Disposition", shown);
        }
        if let Some(cid) = text("cid") {
            if !cid.bytes().all(|b| b.is_ascii_graphic() && !b"<>".contains(&b)) {
                return Err(SetError::property("attachments", "not a content id"));
            }
            part = part.cid(cid);
        }
        // RFC 2046 §5.2.1: a message inside is never encoded again.
        if kind.starts_with("message/") {
            part = part.transfer_encoding("8bit");
        }
        Ok(part)
    }

    /// A part's content and the type it has unless told otherwise.
    fn content<'x>(&self, fields: &Object) -> Result<(BodyPart<'x>, &'static str), SetError> {
        if let Some(id) = fields.get("blobId").and_then(Value::as_str) {
            let blob = self.blobs.get(id).ok_or_else(|| SetError::new("blobNotFound", id))?;
            return Ok((BodyPart::Binary(Cow::Owned(blob.to_vec())), "application/octet-stream"));
        }
        let id = fields.get("partId").and_then(Value::as_str);
        let id = id.ok_or_else(|| SetError::property("bodyStructure", "a part needs partId or blobId"))?;
        let value = self.draft.get("bodyValues").and_then(|values| values.get(id)?.get("value")?.as_str());
        let value = value.ok_or_else(|| SetError::property("bodyValues", format!("no value for part {id}")))?;
        Ok((BodyPart::Text(Cow::Owned(value.replace("\r\n", "\n").replace('\n', "\r\n"))), "text/plain"))
    }
}

fn is_media_type(text: &str) -> bool {
    let is_token =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b));
    text.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}
