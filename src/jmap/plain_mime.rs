//! A reader of MIME for tests, as small as their messages: its summary is the message itself.

use std::sync::Arc;

use mail::HeaderFields;
use mail::mime::summary::{COMMON_FIELDS, EnvelopeFields};
use mail::mime::{Disposition, Parameter, Part, PartBody, Summary};

use crate::mime::Mime;

pub struct PlainMime;

impl Mime for PlainMime {
    fn summarise(&self, message: &[u8]) -> Arc<[u8]> {
        message.into()
    }

    fn read_summary(&self, message: &[u8]) -> Option<Summary> {
        let is_common = |field: &mail::HeaderField<'_>| COMMON_FIELDS.iter().any(|name| field.is(name));
        Some(Summary {
            envelope: EnvelopeFields::default(),
            root: part(message, 0, message.len()),
            sent_at: None,
            preview: String::new(),
            has_attachment: false,
            common_fields: HeaderFields::of(message).filter(is_common).flat_map(|f| f.raw.to_vec()).collect(),
        })
    }
}

fn parameters(value: &str) -> (String, Vec<Parameter>) {
    let mut pieces = value.split(';');
    let head = pieces.next().unwrap_or_default().trim().to_owned();
    let read = |(name, value): (&str, &str)| Parameter {
        name: name.trim().to_lowercase(),
        value: value.trim().trim_matches('"').to_owned(),
    };
    (head, pieces.filter_map(|piece| piece.trim().split_once('=')).map(read).collect())
}

fn part(message: &[u8], start: usize, end: usize) -> Part {
    let own = &message[start..end];
    let body_start = start + mail::header::body_offset(own);
    let field = |name: &str| {
        let found = HeaderFields::of(own).find(|field| field.is(name));
        found.map(|field| String::from_utf8_lossy(&field.unfolded()).into_owned())
    };
    let (kind, own_parameters) = parameters(&field("content-type").unwrap_or_else(|| "text/plain".to_owned()));
    let (media_type, media_subtype) = kind.split_once('/').unwrap();
    let disposition = field("content-disposition").map(|value| {
        let (kind, parameters) = parameters(&value);
        Disposition { kind, parameters }
    });
    let mut body = PartBody::Leaf { lines: 1 };
    if let Some(boundary) = own_parameters.iter().find(|parameter| parameter.name == "boundary") {
        let boundary = format!("--{}", boundary.value);
        let (mut marks, mut at) = (Vec::new(), body_start);
        for line in message[body_start..end].split_inclusive(|byte| *byte == b'\n') {
            if line.starts_with(boundary.as_bytes()) {
                marks.push((at, at + line.len()));
            }
            at += line.len();
        }
        let child = |marks: &[(usize, usize)]| part(message, marks[0].1, marks[1].0 - 2);
        body = PartBody::Multipart { children: marks.windows(2).map(child).collect() };
    }
    let offset = |at: usize| u32::try_from(at).unwrap();
    Part {
        media_type: media_type.to_owned(),
        media_subtype: media_subtype.to_owned(),
        parameters: own_parameters,
        content_id: field("content-id"),
        description: None,
        encoding: field("content-transfer-encoding").unwrap_or_else(|| "7BIT".to_owned()),
        md5: None,
        disposition,
        language: Vec::new(),
        location: None,
        header: offset(start)..offset(body_start),
        content: offset(body_start)..offset(end),
        body,
    }
}
