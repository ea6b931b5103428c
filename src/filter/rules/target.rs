//! What rules look at: views of one message, each made once and only if a rule asks for it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::OnceLock;

use base::UtcMillis;
use mail::HeaderFields;
use mail_parser::{HeaderForm, MessageParser};

use super::html::Html;
use super::parse::{Field, FieldPart, Only};
use super::relays::{Relay, Relays};
use crate::url::{Links, Origin};

/// What is known of a message beside its bytes. All of it may be missing, as when a file is judged.
#[derive(Clone, Copy, Default, Debug)]
pub struct Context<'a> {
    /// MAIL FROM; empty for the null path.
    pub envelope_from: Option<&'a str>,
    pub recipients: &'a [&'a str],
    pub client_ip: Option<IpAddr>,
    /// The client's name by reverse look-up, where it leads back to the address.
    pub client_name: Option<&'a str>,
    pub helo: Option<&'a str>,
    /// When we took the message; without it, the newest `Received` field counts.
    pub received_at: Option<UtcMillis>,
    /// Names of findings that other checks made, such as `SPF_PASS` and `DKIM_VALID`: `meta` rules may use them.
    pub findings: &'a [&'a str],
}

/// One message, ready for [`super::RuleSet::judge`].
#[derive(Debug)]
pub struct Targets<'a> {
    message: &'a [u8],
    context: Context<'a>,
    fields: Vec<HeaderText<'a>>,
    parts: OnceLock<Vec<Part>>,
    rendered: OnceLock<Rendered>,
    body: OnceLock<Pieces>,
    raw_body: OnceLock<Pieces>,
    full: OnceLock<Pieces>,
    links: OnceLock<Links>,
    relays: OnceLock<Relays>,
}

/// HTML parts, read once.
#[derive(Debug, Default)]
struct Rendered {
    html: Html,
    /// For each part: its text, if it is HTML.
    texts: Vec<Option<String>>,
}

/// One header field.
#[derive(Debug)]
struct HeaderText<'a> {
    name: String,
    name_as_written: &'a [u8],
    value: &'a [u8],
}

/// A text cut into pieces that patterns see one at a time.
#[derive(Debug, Default)]
pub struct Pieces {
    pub text: Vec<u8>,
    pub cuts: Vec<Range<usize>>,
}

/// One MIME part that is not a multipart.
#[derive(Debug)]
pub struct Part {
    /// `text/html`, lower case.
    pub media_type: String,
    pub charset: Option<String>,
    pub file_name: Option<String>,
    pub is_attachment: bool,
    /// Lower case.
    pub encoding: String,
    /// The part's own fields: lower-case name, decoded value, value as written.
    pub fields: Vec<(String, String, String)>,
    /// Decoded text of `text/*`, at most [`TEXT_BYTES_MAX`].
    pub text: Option<String>,
    /// The first decoded bytes, for telling a file's type.
    pub magic: Vec<u8>,
    /// Bytes as sent.
    pub size: usize,
    /// Names of what is wrong with the part's form.
    pub defects: Vec<&'static str>,
}

/// Most text of one view that patterns see; the rest of a bigger message is not scanned.
pub const TEXT_BYTES_MAX: usize = 256 << 10;
/// Most bytes of the raw message that `full` rules see.
pub const FULL_BYTES_MAX: usize = 512 << 10;
/// Lines and chunks are cut at about this size, as SpamAssassin does.
const PIECE_BYTES_MAX: usize = 2048;
const FIELD_BYTES_MAX: usize = 64 << 10;
const FIELDS_MAX: usize = 1000;
const PARTS_MAX: usize = 500;

impl<'a> Targets<'a> {
    /// `message` is raw, with CRLF or LF, not dot-stuffed.
    pub fn of(message: &'a [u8], context: Context<'a>) -> Self {
        let fields = HeaderFields::of(message)
            .take(FIELDS_MAX)
            .filter(|field| !field.name.is_empty())
            .map(|field| HeaderText {
                name: String::from_utf8_lossy(field.name).to_ascii_lowercase(),
                name_as_written: field.name,
                value: field.value.get(..FIELD_BYTES_MAX).unwrap_or(field.value),
            })
            .collect();
        Self {
            message,
            context,
            fields,
            parts: OnceLock::new(),
            rendered: OnceLock::new(),
            body: OnceLock::new(),
            raw_body: OnceLock::new(),
            full: OnceLock::new(),
            links: OnceLock::new(),
            relays: OnceLock::new(),
        }
    }

    pub fn context(&self) -> &Context<'a> {
        &self.context
    }

    pub fn message(&self) -> &'a [u8] {
        self.message
    }

    /// Lower-case names of the header's fields, in order.
    pub fn field_names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.name.as_str())
    }

    pub fn has_field(&self, name: &str) -> bool {
        match name {
            "ToCc" => self.has_field("to") || self.has_field("cc"),
            "MESSAGEID" => MESSAGE_ID_FIELDS.iter().any(|name| self.has_field(name)),
            "ALL" => !self.fields.is_empty(),
            "EnvelopeFrom" => self.envelope_from().is_some(),
            _ if name.starts_with("x-spam-relays-") => self.relays().field(name).is_some(),
            _ => self.fields.iter().any(|field| field.name == name),
        }
    }

    /// Decoded values of the fields called `name` (lower case), unfolded, in order.
    pub fn values(&self, name: &str) -> impl Iterator<Item = String> {
        self.fields.iter().filter(move |field| field.name == name).map(|field| decoded(field.value))
    }

    /// Their values as written, without the final line end.
    pub fn raw_values(&self, name: &str) -> impl Iterator<Item = Cow<'a, str>> {
        self.fields.iter().filter(move |field| field.name == name).map(|field| as_written(field.value))
    }

    /// The text that a header rule sees: values on lines of their own; `None` where there is no such field.
    pub fn header(&self, field: &Field) -> Option<Vec<u8>> {
        let mut values: Vec<String> = match field.name.as_str() {
            "ALL" => self
                .fields
                .iter()
                .map(|f| {
                    let name = String::from_utf8_lossy(f.name_as_written);
                    let raw = field.raw.then(|| as_written(f.value).into_owned());
                    raw.map_or_else(|| format!("{name}: {}", decoded(f.value)), |raw| format!("{name}:{raw}"))
                })
                .collect(),
            "ToCc" => self.fields_of(&["to", "cc"], field.raw),
            "MESSAGEID" => self.fields_of(MESSAGE_ID_FIELDS, field.raw),
            "EnvelopeFrom" => self.envelope_from().into_iter().collect(),
            name => match self.relays_field(name) {
                Some(text) => vec![text],
                None => self.fields_of(&[name], field.raw),
            },
        };
        if values.is_empty() {
            return None;
        }
        match field.part {
            FieldPart::Whole => {}
            FieldPart::Address => values = addresses(&values).into_iter().map(|(_, address)| address).collect(),
            FieldPart::DisplayName => values = addresses(&values).into_iter().map(|(name, _)| name).collect(),
            FieldPart::Host | FieldPart::Domain => {
                values = addresses(&values)
                    .into_iter()
                    .filter_map(|(_, address)| {
                        let host = address.rsplit_once('@')?.1.to_ascii_lowercase();
                        let domain = crate::url::registered_domain(&host).map(str::to_owned);
                        if field.part == FieldPart::Domain { domain } else { Some(host) }
                    })
                    .collect();
            }
        }
        match field.only {
            Some(Only::First) => values.truncate(1),
            Some(Only::Last) => values = values.pop().into_iter().collect(),
            None => {}
        }
        let mut out = values.join("\n").into_bytes();
        if field.part == FieldPart::Whole {
            out.push(b'\n');
        }
        Some(out)
    }

    fn relays_field(&self, name: &str) -> Option<String> {
        if name.starts_with("x-spam-relays-") { self.relays().field(name) } else { None }
    }

    fn fields_of(&self, names: &[&str], raw: bool) -> Vec<String> {
        let wanted = self.fields.iter().filter(|field| names.contains(&field.name.as_str()));
        wanted.map(|f| if raw { as_written(f.value).into_owned() } else { decoded(f.value) }).collect()
    }

    /// The envelope's sender: as the session says, else as an earlier server noted it.
    pub fn envelope_from(&self) -> Option<String> {
        let noted = || ["x-envelope-from", "return-path"].iter().find_map(|name| self.values(name).next());
        let text = self.context.envelope_from.map(str::to_owned).or_else(noted)?;
        Some(text.trim().trim_start_matches('<').trim_end_matches('>').to_owned())
    }

    /// Display name and address of each mailbox in the fields called `name`.
    pub fn mailboxes(&self, name: &str) -> Vec<(String, String)> {
        addresses(&self.fields_of(&[name], true))
    }

    pub fn subject(&self) -> String {
        self.values("subject").next().unwrap_or_default()
    }

    pub fn relays(&self) -> &Relays {
        self.relays.get_or_init(|| {
            let client = self.context.client_ip.map(|ip| Relay {
                ip: Some(ip),
                reverse_name: self.context.client_name.unwrap_or_default().to_owned(),
                helo: self.context.helo.unwrap_or_default().to_owned(),
                ..Relay::default()
            });
            let received: Vec<String> = self.values("received").collect();
            Relays::of(client, received.iter().map(String::as_str))
        })
    }

    pub fn parts(&self) -> &[Part] {
        self.parts.get_or_init(|| parts(self.message))
    }

    /// All HTML parts read as one.
    pub fn html(&self) -> &Html {
        &self.rendered().html
    }

    fn rendered(&self) -> &Rendered {
        self.rendered.get_or_init(|| {
            let mut out = Rendered::default();
            for part in self.parts() {
                let html = part.text.as_deref().filter(|_| part.is_html()).map(Html::read);
                out.texts.push(html.as_ref().map(|html| html.text.clone()));
                if let Some(html) = html.filter(|_| !part.is_attachment) {
                    out.html.absorb(html);
                }
            }
            out
        })
    }

    /// Subject, then the text parts with HTML rendered: white space folded, a piece for each paragraph.
    /// The subject is the first piece.
    pub fn body(&self) -> &Pieces {
        self.body.get_or_init(|| {
            let mut text = String::new();
            for (part, shown) in self.parts().iter().zip(&self.rendered().texts) {
                let Some(part_text) = shown.as_ref().or(part.text.as_ref()) else { continue };
                if !text.is_empty() {
                    text.push('\n');
                }
                text.push_str(part_text);
                if text.len() > TEXT_BYTES_MAX {
                    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
                    break;
                }
            }
            let mut pieces = Pieces::default();
            pieces.push_line(&format!("{}\n", fold(&self.subject())));
            for paragraph in paragraphs(&text) {
                pieces.push_line(&paragraph);
            }
            pieces
        })
    }

    /// Decoded text parts as they are, in chunks.
    pub fn raw_body(&self) -> &Pieces {
        self.raw_body.get_or_init(|| {
            let mut pieces = Pieces::default();
            for text in self.parts().iter().filter_map(|part| part.text.as_deref()) {
                pieces.push_chunks(text.replace("\r\n", "\n").as_bytes());
                if pieces.text.len() > TEXT_BYTES_MAX {
                    break;
                }
            }
            pieces
        })
    }

    /// The message as received, with LF line ends, in one piece.
    pub fn full(&self) -> &Pieces {
        self.full.get_or_init(|| {
            let message = self.message.get(..FULL_BYTES_MAX).unwrap_or(self.message);
            let mut text = Vec::with_capacity(message.len());
            for (at, byte) in message.iter().enumerate() {
                if *byte != b'\r' || message.get(at + 1) != Some(&b'\n') {
                    text.push(*byte);
                }
            }
            Pieces { cuts: std::iter::once(0..text.len()).collect(), text }
        })
    }

    /// Links from HTML and from text, with their canonical forms.
    pub fn links(&self) -> &Links {
        self.links.get_or_init(|| {
            let mut links = Links::default();
            for link in &self.html().links {
                links.add(&link.href, Origin::Html);
            }
            for resource in &self.html().resources {
                links.add(resource, Origin::Html);
            }
            let body = self.body();
            for cut in &body.cuts {
                links.add_text(&String::from_utf8_lossy(body.text.get(cut.clone()).unwrap_or_default()));
            }
            links
        })
    }

    pub fn uri_pieces(&self) -> Pieces {
        let mut pieces = Pieces::default();
        for link in self.links().as_slice() {
            pieces.push(link.url.as_bytes());
        }
        pieces
    }

    /// The values of a MIME field in all parts.
    pub fn mime_header(&self, field: &Field) -> Pieces {
        let mut pieces = Pieces::default();
        for part in self.parts() {
            for (_, decoded, raw) in part.fields.iter().filter(|(name, ..)| *name == field.name) {
                pieces.push(if field.raw { raw } else { decoded }.as_bytes());
            }
        }
        pieces
    }
}

impl Part {
    pub fn is_html(&self) -> bool {
        self.media_type == "text/html"
    }
}

impl Pieces {
    fn push(&mut self, piece: &[u8]) {
        let start = self.text.len();
        self.text.extend_from_slice(piece);
        self.cuts.push(start..self.text.len());
    }

    /// One line, cut at a space where it is too long.
    fn push_line(&mut self, line: &str) {
        let mut rest = line;
        while rest.len() > PIECE_BYTES_MAX {
            let limit = rest.floor_char_boundary(PIECE_BYTES_MAX);
            let at = rest[..limit].rfind(' ').map_or(limit, |space| space + 1);
            let (head, tail) = rest.split_at(at);
            self.push(head.as_bytes());
            rest = tail;
        }
        if !rest.is_empty() {
            self.push(rest.as_bytes());
        }
    }

    /// Chunks of one to two times the piece size, cut at a line end, `>` or space where there is one.
    fn push_chunks(&mut self, text: &[u8]) {
        let mut rest = text;
        while rest.len() > 2 * PIECE_BYTES_MAX {
            let window = rest.get(PIECE_BYTES_MAX..2 * PIECE_BYTES_MAX).unwrap_or_default();
            let cut = [b'\n', b'>', b' '].iter().find_map(|end| memchr::memchr(*end, window));
            let (head, tail) = rest.split_at(PIECE_BYTES_MAX + cut.map_or(0, |at| at + 1));
            self.push(head);
            rest = tail;
        }
        if !rest.is_empty() {
            self.push(rest);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.cuts.iter().map(|cut| self.text.get(cut.clone()).unwrap_or_default())
    }
}

const MESSAGE_ID_FIELDS: &[&str] = &["message-id", "resent-message-id", "x-message-id"];

/// White space folded to single spaces.
fn fold(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if !character.is_whitespace() {
            out.push(character);
        } else if !out.ends_with(' ') {
            out.push(' ');
        }
    }
    out
}

/// Empty lines end a paragraph; other white space folds to one space. Each paragraph but the last ends in LF.
fn paragraphs(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut current = String::new();
    let mut blank_lines = 0;
    for line in text.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.trim().is_empty() {
            blank_lines += 1;
            continue;
        }
        if blank_lines > 0 && !current.is_empty() {
            current.push('\n');
            out.push(std::mem::take(&mut current));
        } else if !current.is_empty() && !current.ends_with(' ') {
            current.push(' ');
        }
        blank_lines = 0;
        let line = fold(line);
        current.push_str(if current.ends_with(' ') { line.trim_start() } else { &line });
    }
    if !current.is_empty() {
        out.push(current);
    }
    out
}

fn decoded(value: &[u8]) -> String {
    if !value.contains(&b'=') && value.is_ascii() {
        return fold_ascii(value);
    }
    let parsed = HeaderForm::Text.parse(value);
    let text = parsed.value().as_text().map_or_else(|| String::from_utf8_lossy(value).into_owned(), str::to_owned);
    text.replace(['\r', '\n'], "").trim().to_owned()
}

/// Unfolded: line breaks go, white space stays.
fn fold_ascii(value: &[u8]) -> String {
    let text: String = value.iter().filter(|b| !matches!(b, b'\r' | b'\n')).map(|b| char::from(*b)).collect();
    text.trim().to_owned()
}

fn as_written(value: &[u8]) -> Cow<'_, str> {
    let value = value.strip_suffix(b"\n").unwrap_or(value);
    String::from_utf8_lossy(value.strip_suffix(b"\r").unwrap_or(value))
}

/// Display name and address of each mailbox in header values.
fn addresses(values: &[String]) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for value in values {
        let parsed = HeaderForm::Addresses.parse(value.as_bytes());
        let value = parsed.value();
        let Some(list) = value.as_address() else { continue };
        for mailbox in list.mailboxes().take(100) {
            let name = mailbox.name().unwrap_or_default().to_owned();
            out.push((name, mailbox.address().unwrap_or_default().to_owned()));
        }
    }
    out
}

fn parts(message: &[u8]) -> Vec<Part> {
    let parser = MessageParser::new().max_parts(PARTS_MAX * 2).max_depth(32);
    let Some(parsed) = parser.parse(message) else { return Vec::new() };
    let mut text_left = 2 * TEXT_BYTES_MAX;
    let mut out = Vec::new();
    for part in parsed.parts().take(PARTS_MAX) {
        let content = part.content_type();
        let media_type = content.map_or_else(
            || "text/plain".to_owned(),
            |content| format!("{}/{}", content.ctype(), content.subtype().unwrap_or_default()).to_ascii_lowercase(),
        );
        let is_text = media_type.starts_with("text/") && !part.is_multipart() && !part.is_message();
        let is_attachment = part.content_disposition().is_some_and(|disposition| disposition.is_attachment());
        let text = if is_text && text_left > 0 && (!is_attachment || media_type != "text/calendar") {
            let text = part.text_prefix_bytes(TEXT_BYTES_MAX.min(text_left)).map(Cow::into_owned);
            text_left = text_left.saturating_sub(text.as_ref().map_or(0, String::len));
            text
        } else {
            None
        };
        let raw = part.raw_body();
        out.push(Part {
            charset: content.and_then(|content| content.attribute("charset")).map(str::to_ascii_lowercase),
            file_name: part.attachment_name().map(str::to_owned),
            is_attachment,
            encoding: part.content_transfer_encoding().unwrap_or_default().trim().to_ascii_lowercase(),
            fields: HeaderFields::of(part.raw_headers())
                .take(50)
                .map(|f| {
                    let value = f.value.get(..FIELD_BYTES_MAX).unwrap_or(f.value);
                    (
                        String::from_utf8_lossy(f.name).to_ascii_lowercase(),
                        decoded(value),
                        as_written(value).into_owned(),
                    )
                })
                .collect(),
            text,
            magic: part.encoding().decode(raw.get(..120).unwrap_or(raw)).into_owned(),
            size: raw.len(),
            defects: part.flags().names().collect(),
            media_type,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, part: FieldPart, raw: bool) -> Field {
        Field { name: name.to_owned(), raw, part, only: None }
    }

    const MESSAGE: &str = "From: =?utf-8?q?J=C3=B6rg?= <joe@mail.example.org>\r\nTo: a@x.example,\r\n b@y.example\r\n\
        Cc: c@z.example\r\nSubject: Two\r\n  words\r\nMIME-Version: 1.0\r\n\
        Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n\
        One  line\r\nand more\r\n \r\n\r\nNext http://t.example/\r\n--b\r\nContent-Type: text/html\r\n\
        Content-Transfer-Encoding: quoted-printable\r\n\r\n<p>Hello=20<b>you</b></p><a href=3D\"http://h.example\">x</a>\r\n--b--\r\n";

    #[test]
    fn header_views() {
        let targets = Targets::of(MESSAGE.as_bytes(), Context::default());
        for (name, part, raw, expected) in [
            ("from", FieldPart::Whole, false, Some("J\u{f6}rg <joe@mail.example.org>\n")),
            ("from", FieldPart::Whole, true, Some(" =?utf-8?q?J=C3=B6rg?= <joe@mail.example.org>\n")),
            ("from", FieldPart::Address, false, Some("joe@mail.example.org")),
            ("from", FieldPart::DisplayName, false, Some("J\u{f6}rg")),
            ("from", FieldPart::Domain, false, Some("example.org")),
            ("ToCc", FieldPart::Whole, false, Some("a@x.example, b@y.example\nc@z.example\n")),
            ("subject", FieldPart::Whole, false, Some("Two  words\n")),
            ("reply-to", FieldPart::Whole, false, None),
        ] {
            let seen = targets.header(&field(name, part, raw)).map(|text| String::from_utf8(text).unwrap());
            assert_eq!(seen.as_deref(), expected, "{name} {part:?} {raw}");
        }
    }

    #[test]
    fn body_views() {
        let targets = Targets::of(MESSAGE.as_bytes(), Context::default());
        let text = |pieces: &Pieces| pieces.iter().map(|p| String::from_utf8_lossy(p).into_owned()).collect::<Vec<_>>();
        assert_eq!(
            text(targets.body()),
            ["Two words\n", "One line and more\n", "Next http://t.example/\n", "Hello you x"]
        );
        assert!(text(targets.raw_body())[1].contains("<b>you</b>"));
        assert_eq!(text(&targets.uri_pieces()), ["http://h.example", "http://t.example/"]);
        assert!(!text(targets.full())[0].contains('\r'));
        let encoding = field("content-transfer-encoding", FieldPart::Whole, false);
        assert_eq!(text(&targets.mime_header(&encoding)), ["quoted-printable"]);
    }

    #[test]
    fn long_texts_are_cut() {
        let mut pieces = Pieces::default();
        pieces.push_line(&"word ".repeat(2000));
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES_MAX && piece.ends_with(b" ")));
        let mut pieces = Pieces::default();
        pieces.push_chunks(&b"0123456789\n".repeat(2000));
        assert!(pieces.iter().all(|piece| piece.len() <= 2 * PIECE_BYTES_MAX && piece.ends_with(b"\n")));
        let huge = format!("Subject: x\r\n\r\n{}", "filler text\r\n".repeat(200_000));
        let targets = Targets::of(huge.as_bytes(), Context::default());
        assert!(
            targets.body().text.len() <= TEXT_BYTES_MAX + 100 && targets.raw_body().text.len() <= TEXT_BYTES_MAX * 2
        );
    }
}
