//! The stored form of a [`Summary`]: version 1. Numbers are LEB128, texts are length and octets, lists are count and
//! elements, an absent value is 0 and a present one is its length plus one.

use base::UtcMillis;

use super::structure::{Disposition, Parameter, Part, PartBody};
use super::summary::{EnvelopeAddress, EnvelopeFields, Summary};

/// The octets are no summary of a version that we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored summary is damaged or of an unknown version")]
pub struct DamagedSummary;

const VERSION: u8 = 1;
/// One above the depth that the walk makes.
const DEPTH_MAX: usize = 40;

pub(super) fn encode(summary: &Summary) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(512 + summary.common_fields.len()));
    out.0.push(VERSION);
    out.0.push(u8::from(summary.has_attachment) | (u8::from(summary.sent_at.is_some()) << 1));
    if let Some(sent_at) = summary.sent_at {
        out.0.extend_from_slice(&sent_at.0.to_le_bytes());
    }
    out.bytes(summary.preview.as_bytes());
    out.bytes(&summary.common_fields);
    out.envelope(&summary.envelope);
    out.part(&summary.root);
    out.0
}

pub(super) fn decode(bytes: &[u8]) -> Result<Summary, DamagedSummary> {
    let mut reader = Reader(bytes);
    if reader.byte()? != VERSION {
        return Err(DamagedSummary);
    }
    let marks = reader.byte()?;
    let sent_at = if marks & 2 == 0 {
        None
    } else {
        let raw = reader.take(8)?.try_into().map_err(|_| DamagedSummary)?;
        Some(UtcMillis(i64::from_le_bytes(raw)))
    };
    Ok(Summary {
        has_attachment: marks & 1 != 0,
        sent_at,
        preview: reader.text()?,
        common_fields: reader.bytes()?.to_vec(),
        envelope: reader.envelope()?,
        root: reader.part(0)?,
    })
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7F) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push((number & 0x7F) as u8);
    }

    fn count(&mut self, count: usize) {
        self.number(u64::try_from(count).unwrap_or(u64::MAX));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn optional(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            None => self.number(0),
            Some(bytes) => {
                self.count(bytes.len() + 1);
                self.0.extend_from_slice(bytes);
            }
        }
    }

    fn envelope(&mut self, envelope: &EnvelopeFields) {
        let texts =
            [&envelope.date, &envelope.subject, &envelope.in_reply_to, &envelope.message_id, &envelope.references];
        texts.iter().for_each(|text| self.optional(text.as_deref()));
        for list in [&envelope.from, &envelope.sender, &envelope.reply_to, &envelope.to, &envelope.cc, &envelope.bcc] {
            self.count(list.len());
            list.iter().for_each(|address| self.address(address));
        }
    }

    fn address(&mut self, address: &EnvelopeAddress) {
        match address {
            EnvelopeAddress::Mailbox { name, local, domain } => {
                self.0.push(0);
                self.optional(name.as_deref());
                self.bytes(local);
                self.bytes(domain);
            }
            EnvelopeAddress::GroupStart { name } => {
                self.0.push(1);
                self.bytes(name);
            }
            EnvelopeAddress::GroupEnd => self.0.push(2),
        }
    }

    fn parameters(&mut self, parameters: &[Parameter]) {
        self.count(parameters.len());
        for parameter in parameters {
            self.bytes(parameter.name.as_bytes());
            self.bytes(parameter.value.as_bytes());
        }
    }

    fn part(&mut self, part: &Part) {
        self.bytes(part.media_type.as_bytes());
        self.bytes(part.media_subtype.as_bytes());
        self.parameters(&part.parameters);
        self.bytes(part.encoding.as_bytes());
        for text in [&part.content_id, &part.description, &part.md5, &part.location] {
            self.optional(text.as_deref().map(str::as_bytes));
        }
        self.count(part.language.len());
        part.language.iter().for_each(|tag| self.bytes(tag.as_bytes()));
        match &part.disposition {
            None => self.number(0),
            Some(disposition) => {
                self.count(disposition.kind.len() + 1);
                self.0.extend_from_slice(disposition.kind.as_bytes());
                self.parameters(&disposition.parameters);
            }
        }
        for offset in [part.header.start, part.header.end, part.content.start, part.content.end] {
            self.number(u64::from(offset));
        }
        match &part.body {
            PartBody::Leaf { lines } => {
                self.0.push(0);
                self.number(u64::from(*lines));
            }
            PartBody::Message { envelope, root, lines } => {
                self.0.push(1);
                self.number(u64::from(*lines));
                self.envelope(envelope);
                self.part(root);
            }
            PartBody::Multipart { children } => {
                self.0.push(2);
                self.count(children.len());
                children.iter().for_each(|child| self.part(child));
            }
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, DamagedSummary> {
        let (first, rest) = self.0.split_first().ok_or(DamagedSummary)?;
        self.0 = rest;
        Ok(*first)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DamagedSummary> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(DamagedSummary)?;
        self.0 = rest;
        Ok(head)
    }

    fn number(&mut self) -> Result<u64, DamagedSummary> {
        let mut number = 0u64;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(DamagedSummary)
    }

    /// A count of things that each take at least one octet: no room for more than what is left.
    fn count(&mut self) -> Result<usize, DamagedSummary> {
        let count = usize::try_from(self.number()?).map_err(|_| DamagedSummary)?;
        if count > self.0.len() { Err(DamagedSummary) } else { Ok(count) }
    }

    fn bytes(&mut self) -> Result<&'a [u8], DamagedSummary> {
        let length = self.count()?;
        self.take(length)
    }

    fn optional(&mut self) -> Result<Option<&'a [u8]>, DamagedSummary> {
        match usize::try_from(self.number()?).map_err(|_| DamagedSummary)? {
            0 => Ok(None),
            length => self.take(length - 1).map(Some),
        }
    }

    fn text(&mut self) -> Result<String, DamagedSummary> {
        to_text(self.bytes()?)
    }

    fn optional_text(&mut self) -> Result<Option<String>, DamagedSummary> {
        self.optional()?.map(to_text).transpose()
    }

    fn offset(&mut self) -> Result<u32, DamagedSummary> {
        u32::try_from(self.number()?).map_err(|_| DamagedSummary)
    }

    fn envelope(&mut self) -> Result<EnvelopeFields, DamagedSummary> {
        let mut text = || self.optional().map(|text| text.map(<[u8]>::to_vec));
        let (date, subject, in_reply_to) = (text()?, text()?, text()?);
        let (message_id, references) = (text()?, text()?);
        let mut list = || -> Result<Vec<EnvelopeAddress>, DamagedSummary> {
            let count = self.count()?;
            (0..count).map(|_| self.address()).collect()
        };
        let (from, sender, reply_to) = (list()?, list()?, list()?);
        let (to, cc, bcc) = (list()?, list()?, list()?);
        Ok(EnvelopeFields { date, subject, from, sender, reply_to, to, cc, bcc, in_reply_to, message_id, references })
    }

    fn address(&mut self) -> Result<EnvelopeAddress, DamagedSummary> {
        match self.byte()? {
            0 => Ok(EnvelopeAddress::Mailbox {
                name: self.optional()?.map(<[u8]>::to_vec),
                local: self.bytes()?.to_vec(),
                domain: self.bytes()?.to_vec(),
            }),
            1 => Ok(EnvelopeAddress::GroupStart { name: self.bytes()?.to_vec() }),
            2 => Ok(EnvelopeAddress::GroupEnd),
            _ => Err(DamagedSummary),
        }
    }

    fn parameters(&mut self) -> Result<Vec<Parameter>, DamagedSummary> {
        let count = self.count()?;
        (0..count).map(|_| Ok(Parameter { name: self.text()?, value: self.text()? })).collect()
    }

    fn part(&mut self, depth: usize) -> Result<Part, DamagedSummary> {
        if depth > DEPTH_MAX {
            return Err(DamagedSummary);
        }
        let (media_type, media_subtype) = (self.text()?, self.text()?);
        let (parameters, encoding) = (self.parameters()?, self.text()?);
        let (content_id, description) = (self.optional_text()?, self.optional_text()?);
        let (md5, location) = (self.optional_text()?, self.optional_text()?);
        let languages = self.count()?;
        let language = (0..languages).map(|_| self.text()).collect::<Result<_, _>>()?;
        let disposition = match self.optional_text()? {
            None => None,
            Some(kind) => Some(Disposition { kind, parameters: self.parameters()? }),
        };
        let header = self.offset()?..self.offset()?;
        let content = self.offset()?..self.offset()?;
        let body = match self.byte()? {
            0 => PartBody::Leaf { lines: self.offset()? },
            1 => {
                let lines = self.offset()?;
                let envelope = Box::new(self.envelope()?);
                PartBody::Message { envelope, root: Box::new(self.part(depth + 1)?), lines }
            }
            2 => {
                let children = self.count()?;
                PartBody::Multipart { children: (0..children).map(|_| self.part(depth + 1)).collect::<Result<_, _>>()? }
            }
            _ => return Err(DamagedSummary),
        };
        Ok(Part {
            media_type,
            media_subtype,
            parameters,
            content_id,
            description,
            encoding,
            md5,
            disposition,
            language,
            location,
            header,
            content,
            body,
        })
    }
}

fn to_text(bytes: &[u8]) -> Result<String, DamagedSummary> {
    String::from_utf8(bytes.to_vec()).map_err(|_| DamagedSummary)
}
