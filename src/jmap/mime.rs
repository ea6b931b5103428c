//! From the stored summary to text that people read.

use std::sync::Arc;

use base::AccountId;
use bytes::Bytes;
use mail::mime::{Part, PartBody, Summary};
use mail_parser::{Charset, Encoding};
use store::{EmailId, Entry, StoreError};

use crate::core::Jmap;

/// A text part, decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartText {
    /// Line ends are LF.
    pub text: String,
    /// The charset was unknown or the octets did not fit it or the transfer encoding.
    pub is_damaged: bool,
}

/// Makes and reads summaries. CPU work only; never fails on what mail holds.
pub trait Mime: Send + Sync {
    /// The summary of a message, encoded as an entry keeps it.
    fn summarise(&self, message: &[u8]) -> Arc<[u8]>;
    /// `None` if these octets are no summary.
    fn read_summary(&self, encoded: &[u8]) -> Option<Summary>;
}

pub(crate) fn encoding(part: &Part) -> Encoding {
    match part.encoding.to_ascii_lowercase().as_str() {
        "base64" => Encoding::Base64,
        "quoted-printable" => Encoding::QuotedPrintable,
        _ => Encoding::None,
    }
}

pub(crate) fn charset(part: &Part) -> Option<&str> {
    part.parameters.iter().find(|parameter| parameter.name == "charset").map(|parameter| parameter.value.as_str())
}

/// Lower-case `type/subtype`.
pub(crate) fn media_type(part: &Part) -> String {
    format!("{}/{}", part.media_type, part.media_subtype).to_ascii_lowercase()
}

impl PartText {
    /// From the still encoded octets of `part`.
    pub fn decode(part: &Part, raw: &[u8]) -> Self {
        let (octets, bad_encoding) = encoding(part).decode_checked(raw);
        let name = charset(part).unwrap_or("utf-8");
        let known = Charset::from_label(name.as_bytes());
        let (text, bad_charset) = match known {
            Some(charset) => charset.decode_checked(&octets),
            None => (String::from_utf8_lossy(&octets), true),
        };
        Self { text: text.replace("\r\n", "\n"), is_damaged: bad_encoding || bad_charset }
    }
}

/// What a reader shows of a message.
pub struct Readable {
    pub text: PartText,
    pub is_html: bool,
    /// To look up what `cid:` names: see [`inline_part`].
    pub root: Part,
}

impl Jmap {
    pub(crate) fn summary_of(&self, entry: &Entry) -> Result<Summary, StoreError> {
        let summary = self.services.mime.read_summary(&entry.summary);
        summary.ok_or_else(|| StoreError::Damaged { what: format!("the summary of email {}", entry.email.0) })
    }

    /// The header of an email without the lines that its mailbox added; `None` if there is no such email.
    ///
    /// Cancel safe.
    pub async fn header_as_stored(&self, account: AccountId, email: EmailId) -> Result<Option<Bytes>, StoreError> {
        let Some(entry) = self.entry(account, email).await? else { return Ok(None) };
        let header = self.summary_of(&entry)?.root.header;
        let end = header.end.min(header.start.saturating_add(HEADER_MAX));
        Ok(Some(self.content(&entry).read_blob(u64::from(header.start)..u64::from(end)).await?))
    }

    /// The text of an email as people read it, HTML where there is some; `None` if there is no such email.
    ///
    /// Cancel safe.
    pub async fn readable(&self, account: AccountId, email: EmailId) -> Result<Option<Readable>, StoreError> {
        match self.entry(account, email).await? {
            Some(entry) => self.readable_entry(&entry).await.map(Some),
            None => Ok(None),
        }
    }

    /// The same of an entry, such as a held message's.
    pub async fn readable_entry(&self, entry: &Entry) -> Result<Readable, StoreError> {
        let summary = self.summary_of(entry)?;
        let empty = PartText { text: String::new(), is_damaged: false };
        let (text, is_html) = match readable(&summary.root) {
            None => (empty, false),
            Some(part) => {
                let end = part.content.end.min(part.content.start.saturating_add(READ_MAX));
                let raw = self.content(entry).read_blob(u64::from(part.content.start)..u64::from(end)).await?;
                (PartText::decode(part, &raw), part.is("text", Some("html")))
            }
        };
        Ok(Readable { text, is_html, root: summary.root })
    }
}

/// Octets of a header that are looked at.
const HEADER_MAX: u32 = 1 << 20;
/// Octets of one text that are shown.
const READ_MAX: u32 = 4 << 20;

/// HTML if there is some, else plain text; never an attachment.
fn readable(root: &Part) -> Option<&Part> {
    let tree = crate::email::tree(root);
    let views = crate::email::views(&tree);
    views.html.iter().map(|body| body.part).find(|part| part.is("text", None))
}

/// The part that `cid:` in an HTML body names.
pub fn inline_part<'a>(root: &'a Part, cid: &str) -> Option<&'a Part> {
    let bare = |id: &str| id.trim().trim_start_matches('<').trim_end_matches('>').to_owned();
    if root.content_id.as_deref().is_some_and(|id| bare(id) == cid) {
        return Some(root);
    }
    match &root.body {
        PartBody::Multipart { children } => children.iter().find_map(|child| inline_part(child, cid)),
        PartBody::Leaf { .. } | PartBody::Message { .. } => None,
    }
}
