//! What rules look at: views of one message, each made once and only if a rule asks for it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::OnceLock;

use base::UtcMillis;

use super::fields;
use super::html::Html;
use super::mime::{self, HeaderField, Mime, Node};
use super::net::Listed;
use super::parse::{Field, FieldPart, Parts, Target};
use super::relays::{Relay, Relays};
use super::settings::Settings;
use super::text::{self, Charset};
use crate::countries::Countries;
use crate::url::Links;

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
    /// Rules that hit because of what DNS lists answered.
    pub listed: &'a [Listed],
    /// Probability from 0 to 1 that this is spam, by what was learned; for `check_bayes`.
    pub bayes: Option<f64>,
    /// For the countries of relays.
    pub countries: Option<&'a Countries>,
    /// Settings of the rule files, by [`super::RuleSet::settings`].
    pub settings: Option<&'a Settings>,
}

/// One message, ready for [`super::RuleSet::judge`].
#[derive(Debug)]
pub struct Targets<'a> {
    message: &'a [u8],
    context: Context<'a>,
    mime: Mime,
    shown: OnceLock<Vec<Shown>>,
    body: OnceLock<Pieces>,
    raw_body: OnceLock<Pieces>,
    full: OnceLock<Pieces>,
    links: OnceLock<Links>,
    relays: OnceLock<Relays>,
    envelope_from: OnceLock<Option<String>>,
    pub(super) form: OnceLock<super::eval::form::Counts>,
    pub(super) senders: OnceLock<Vec<String>>,
    /// Share of capitals, where it can be told.
    pub(super) capitals: OnceLock<Option<f64>>,
    /// For the rules about the date.
    pub(super) seconds_off: OnceLock<Option<i64>>,
}

/// A part without children, as a reader's program shows it.
#[derive(Debug, Default)]
pub struct Shown {
    /// Text of `text/plain` and `text/html`, HTML rendered; `None` for all other parts.
    pub text: Option<String>,
    pub html: Option<Html>,
    /// Bytes before a charset was decoded.
    pub content_bytes: usize,
}

/// A text cut into pieces that patterns see one at a time.
#[derive(Debug, Default)]
pub struct Pieces {
    pub text: Vec<u8>,
    pub cuts: Vec<Range<usize>>,
}

/// Pieces of a view that is kept, or of one that was made for this.
pub enum Seen<'t> {
    Kept(&'t Pieces),
    Made(Pieces),
}

impl std::ops::Deref for Seen<'_> {
    type Target = Pieces;

    fn deref(&self) -> &Pieces {
        match self {
            Self::Kept(pieces) => pieces,
            Self::Made(pieces) => pieces,
        }
    }
}

/// Rendered characters of one part that patterns see; the rest of a bigger part is not scanned. SpamAssassin stops at
/// 50 000 unless told otherwise: padding is cheap for who sends it.
const PART_TEXT_MAX: usize = 250_000;
/// The same of undecoded text.
const PART_RAW_MAX: usize = 500_000;
/// A cut may lie so much later, at a better place.
const CUT_LATER_MAX: usize = 1024;
/// Most text of all parts together.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// Most bytes of one part that are decoded.
const CONTENT_BYTES_MAX: usize = 2 << 20;
/// Most bytes of the raw message that `full` rules see.
pub const FULL_BYTES_MAX: usize = 1 << 20;
/// Lines and chunks are cut at about this size, as SpamAssassin does.
const PIECE_BYTES_MAX: usize = 2048;

impl<'a> Targets<'a> {
    /// `message` is raw, with CRLF or LF, not dot-stuffed.
    pub fn of(message: &'a [u8], context: Context<'a>) -> Self {
        Self {
            message,
            context,
            mime: Mime::parse(message),
            shown: OnceLock::new(),
            body: OnceLock::new(),
            raw_body: OnceLock::new(),
            full: OnceLock::new(),
            links: OnceLock::new(),
            relays: OnceLock::new(),
            envelope_from: OnceLock::new(),
            form: OnceLock::new(),
            senders: OnceLock::new(),
            capitals: OnceLock::new(),
            seconds_off: OnceLock::new(),
        }
    }

    /// Keeps what was made of the message, for [`Self::attached`].
    pub fn detached(self) -> Targets<'static> {
        self.with(&[], Context::default())
    }

    /// The same message again, of which more is known now. `context` has the settings of before.
    pub fn attached<'b>(self, message: &'b [u8], context: Context<'b>) -> Targets<'b> {
        self.with(message, context)
    }

    fn with<'b>(self, message: &'b [u8], context: Context<'b>) -> Targets<'b> {
        Targets {
            message,
            context,
            mime: self.mime,
            shown: self.shown,
            body: self.body,
            raw_body: self.raw_body,
            full: self.full,
            links: self.links,
            // These are made of what is known beside the message.
            relays: OnceLock::new(),
            envelope_from: OnceLock::new(),
            seconds_off: OnceLock::new(),
            senders: OnceLock::new(),
            form: self.form,
            capitals: self.capitals,
        }
    }

    /// What was learned says so of this message.
    pub fn set_bayes(&mut self, probability: Option<f64>) {
        self.context.bayes = probability;
    }

    pub fn context(&self) -> &Context<'a> {
        &self.context
    }

    pub fn settings(&self) -> &Settings {
        self.context.settings.unwrap_or_else(|| Settings::none())
    }

    pub fn message(&self) -> &'a [u8] {
        self.message
    }

    pub fn mime(&self) -> &Mime {
        &self.mime
    }

    /// Parts without children, in the order of the message; as many as [`Self::shown`] has.
    pub fn leaves(&self) -> Vec<&Node> {
        self.mime.nodes().into_iter().filter(|node| node.is_leaf).collect()
    }

    pub fn fields(&self) -> &[HeaderField] {
        &self.mime.root.fields
    }

    /// Lower-case names of the header's fields, in order.
    pub fn field_names(&self) -> impl Iterator<Item = &str> {
        self.fields().iter().map(|field| field.name.as_str())
    }

    pub fn has_field(&self, name: &str) -> bool {
        self.fields().iter().any(|field| field.name == name)
    }

    /// Decoded values of the fields called `name` (lower case), unfolded, in order.
    pub fn values<'t>(&'t self, name: &'t str) -> impl Iterator<Item = Cow<'t, str>> {
        self.fields()
            .iter()
            .filter(move |field| field.name == name)
            .map(|field| String::from_utf8_lossy(&field.decoded))
    }

    /// Their values as written, with the white space after the colon and all line ends.
    pub fn raw_values<'t>(&'t self, name: &'t str) -> impl Iterator<Item = Cow<'t, str>> {
        self.fields().iter().filter(move |field| field.name == name).map(|field| String::from_utf8_lossy(&field.raw))
    }

    /// All decoded values of a field, each with a line end; empty without the field.
    pub fn joined(&self, name: &str) -> String {
        self.values(name).fold(String::new(), |text, value| text + &value + "\n")
    }

    /// The text that a header rule sees; `None` where there is no such field.
    pub fn header(&self, field: &Field) -> Option<Vec<u8>> {
        let values = fields::values(self, field);
        let first = values.first()?;
        let between: &[u8] = if first.ends_with(b"\n") { b"" } else { b"\n" };
        Some(values.join(between))
    }

    /// The envelope's sender: as the session says, else as an earlier server noted it.
    pub fn envelope_from(&self) -> Option<&str> {
        self.envelope_from
            .get_or_init(|| self.context.envelope_from.map(str::to_owned).or_else(|| fields::envelope_from(self)))
            .as_deref()
    }

    /// Addresses in the fields called `name`, as written.
    pub fn addresses(&self, name: &str) -> Vec<String> {
        let field = Field { part: FieldPart::Address, ..Field::plain(name) };
        fields::values(self, &field).iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect()
    }

    /// Display name and address of each mailbox in the fields called `name`.
    pub fn mailboxes(&self, name: &str) -> Vec<(String, String)> {
        let raw = self.raw_values(name);
        let entries = raw.flat_map(|value| super::mailbox::parse(&value)).take(1000);
        entries
            .map(|entry| {
                let shown = entry.name.map(|name| fields::display_name(&name)).unwrap_or_default();
                (shown, entry.address.unwrap_or_default())
            })
            .collect()
    }

    /// The last one, where there are several.
    pub fn subject(&self) -> String {
        self.mime.root.decoded("subject").into_owned()
    }

    pub fn relays(&self) -> &Relays {
        self.relays.get_or_init(|| {
            let client = self.context.client_ip.map(|ip| Relay {
                ip: Some(ip),
                ip_text: ip.to_string(),
                reverse_name: self.context.client_name.unwrap_or_default().to_owned(),
                helo: self.context.helo.unwrap_or_default().to_owned(),
                looked_up: true,
                ..Relay::default()
            });
            let mut received: Vec<String> = self.values("received").map(Cow::into_owned).collect();
            received.extend(fields::originating(self));
            Relays::of(client, received.iter().map(String::as_str), &self.settings().networks)
        })
    }

    /// One for each of [`Self::leaves`].
    pub fn shown(&self) -> &[Shown] {
        self.shown.get_or_init(|| {
            let mut left = TEXT_BYTES_MAX;
            let mut shown = Vec::new();
            for node in self.leaves() {
                let one = if left > 0 { shown_of(node) } else { Shown::default() };
                left = left.saturating_sub(one.content_bytes);
                shown.push(one);
            }
            shown
        })
    }

    /// HTML parts.
    pub fn html(&self) -> impl Iterator<Item = &Html> {
        self.shown().iter().filter_map(|shown| shown.html.as_ref())
    }

    /// Subject, then the text parts with HTML rendered: white space folded, a piece for each paragraph.
    /// The subject is the first piece.
    pub fn body(&self) -> &Pieces {
        self.body.get_or_init(|| {
            let mut text = String::new();
            for shown in self.shown() {
                if !text.is_empty() {
                    text.push('\n');
                }
                if let Some(shown) = &shown.text {
                    text.push_str(cut_text(shown));
                }
            }
            let mut pieces = Pieces::default();
            let subject = self.subject();
            pieces.push_lines(format!("{subject}\n").as_bytes());
            pieces.push_lines(folded(&text).as_bytes());
            pieces
        })
    }

    /// Decoded text parts as they are, in chunks.
    pub fn raw_body(&self) -> &Pieces {
        self.raw_body.get_or_init(|| {
            let mut pieces = Pieces::default();
            for node in self.leaves() {
                let kind = node.effective_kind();
                let is_text = kind.starts_with("text/") || kind.starts_with("message/");
                if !is_text || node.kind == "text/calendar" || pieces.text.len() > TEXT_BYTES_MAX {
                    continue;
                }
                let content = node.content(CONTENT_BYTES_MAX);
                pieces.push_chunks(cut_raw(&content));
            }
            pieces
        })
    }

    /// The message as received, with LF line ends, in one piece.
    pub fn full(&self) -> &Pieces {
        self.full.get_or_init(|| {
            let message = self.message.get(..FULL_BYTES_MAX).unwrap_or(self.message);
            let text = mime::lf_only(message).into_owned();
            Pieces { cuts: std::iter::once(0..text.len()).collect(), text }
        })
    }

    /// Links from HTML and from text, with their canonical forms.
    pub fn links(&self) -> &Links {
        self.links.get_or_init(|| {
            let settings = self.settings();
            let mut links = Links::default();
            for piece in self.body().iter() {
                links.add_text(piece, &settings.boundaries, &settings.redirectors);
            }
            for html in self.html() {
                links.truncated |= html.uri_truncated;
                for uri in &html.uris {
                    links.add_html(uri, &settings.boundaries, &settings.redirectors);
                }
            }
            for name in ["domainkey-signature", "dkim-signature"] {
                for value in self.values(name) {
                    for tag in value.split(';') {
                        if let Some((tag, domain)) = tag.split_once('=')
                            && tag.trim() == "d"
                        {
                            let domain: String = domain.split_whitespace().collect();
                            links.add_signer(&domain, &settings.boundaries);
                        }
                    }
                }
            }
            links
        })
    }

    pub fn uri_pieces(&self) -> Pieces {
        let mut pieces = Pieces::default();
        for form in self.links().forms() {
            pieces.push(form.as_bytes());
        }
        pieces
    }

    /// What patterns with that target see; `None` where there is no such field.
    pub fn seen_by(&self, target: &Target) -> Option<Seen<'_>> {
        Some(match target {
            Target::Body => Seen::Kept(self.body()),
            Target::RawBody => Seen::Kept(self.raw_body()),
            Target::Full => Seen::Kept(self.full()),
            Target::Uri => Seen::Made(self.uri_pieces()),
            Target::MimeHeader(field, parts) => Seen::Made(self.mime_header(field, *parts)),
            Target::Header(field) => {
                let text = self.header(field)?;
                Seen::Made(Pieces { cuts: std::iter::once(0..text.len()).collect(), text })
            }
        })
    }

    /// The values of a field in the message's own header and in those of its parts.
    pub fn mime_header(&self, field: &Field, parts: Parts) -> Pieces {
        let (mut pieces, mut joined) = (Pieces::default(), Vec::new());
        for (_, node) in (1_usize..).zip(self.mime.nodes()).filter(|(at, _)| (parts.first..=parts.last).contains(at)) {
            let value = match field.name.as_str() {
                "ALL" => Some(fields::all(&node.fields, field.raw).concat()),
                name => node.field(name).map(|found| match field.raw {
                    true => found.raw.clone(),
                    false => [found.decoded.as_slice(), b"\n"].concat(),
                }),
            };
            if parts.joined {
                joined.extend_from_slice(value.as_deref().unwrap_or_default());
                if !joined.ends_with(b"\n") || value.is_none() {
                    joined.push(b'\n');
                }
            } else if let Some(value) = value {
                pieces.push(&value);
            }
        }
        if parts.joined {
            pieces.push(&joined);
        }
        pieces
    }
}

fn shown_of(node: &Node) -> Shown {
    let kind = node.effective_kind();
    if !matches!(kind, "text/plain" | "text/html") {
        return Shown::default();
    }
    let content = node.content(CONTENT_BYTES_MAX);
    let charset = node.declared.charset.as_deref().unwrap_or("us-ascii");
    let text = text::to_utf8(&content, charset, Charset::Hint);
    let content_bytes = content.len();
    if kind == "text/html" && !text.is_empty() {
        let mut html = Html::read(&text);
        let text = std::mem::take(&mut html.text);
        return Shown { text: Some(text), html: Some(html), content_bytes };
    }
    Shown { text: Some(text.into_owned()), html: None, content_bytes }
}

impl Pieces {
    fn push(&mut self, piece: &[u8]) {
        let start = self.text.len();
        self.text.extend_from_slice(piece);
        self.cuts.push(start..self.text.len());
        // Between pieces, so that the whole text can be looked at in one go.
        self.text.push(b'\n');
    }

    /// Lines, cut at a space where they are too long.
    fn push_lines(&mut self, text: &[u8]) {
        for line in text.split_inclusive(|b| *b == b'\n') {
            let mut rest = line;
            while rest.len() > PIECE_BYTES_MAX {
                let head = rest.get(..=PIECE_BYTES_MAX).unwrap_or(rest);
                let at = memchr::memrchr(b' ', head).map_or(PIECE_BYTES_MAX, |space| space + 1);
                let (head, tail) = rest.split_at(at);
                self.push(head);
                rest = tail;
            }
            if !rest.is_empty() {
                self.push(rest);
            }
        }
    }

    /// Chunks of one to two times the piece size, cut at a line end, `>` or space where there is one.
    fn push_chunks(&mut self, text: &[u8]) {
        let mut rest = text;
        while rest.len() > 2 * PIECE_BYTES_MAX {
            let window = rest.get(PIECE_BYTES_MAX..2 * PIECE_BYTES_MAX).unwrap_or_default();
            let cut = b"\n> ".iter().find_map(|end| memchr::memchr(*end, window));
            let (head, tail) = rest.split_at(PIECE_BYTES_MAX + cut.unwrap_or(0) + 1);
            self.push(head);
            rest = tail;
        }
        self.push(rest);
    }

    /// The piece at a position; empty beyond the last.
    pub fn piece(&self, at: usize) -> &[u8] {
        self.cuts.get(at).and_then(|cut| self.text.get(cut.clone())).unwrap_or_default()
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.cuts.iter().map(|cut| self.text.get(cut.clone()).unwrap_or_default())
    }
}

/// Where a text of `length` that is too long is cut: after the next of `ends` behind the limit, else at it.
fn cut(text: &[u8], limit: usize, ends: &[u8]) -> usize {
    if text.len() <= limit {
        return text.len();
    }
    let later = text.get(limit..(limit + CUT_LATER_MAX).min(text.len())).unwrap_or_default();
    ends.iter().find_map(|end| memchr::memchr(*end, later)).map_or(limit, |at| limit + at + 1)
}

fn cut_text(text: &str) -> &str {
    // The limit is in characters.
    let limit = if text.len() <= PART_TEXT_MAX {
        return text;
    } else {
        text.char_indices().nth(PART_TEXT_MAX).map_or(text.len(), |(at, _)| at)
    };
    let end = cut(text.as_bytes(), limit, b"\n ");
    &text[..text.floor_char_boundary(end)]
}

fn cut_raw(text: &[u8]) -> &[u8] {
    text.get(..cut(text, PART_RAW_MAX, b"\n> ")).unwrap_or(text)
}

/// Empty lines end a paragraph; other white space is one space. Each paragraph but the last ends in LF.
fn folded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.find(char::is_whitespace) {
        let (head, tail) = rest.split_at(first);
        out.push_str(head);
        let end = tail.find(|c: char| !c.is_whitespace()).unwrap_or(tail.len());
        let (white, after) = tail.split_at(end);
        let breaks = memchr::memchr_iter(b'\n', white.as_bytes());
        let (mut first, mut last) = (None, None);
        breaks.for_each(|at| {
            first.get_or_insert(at);
            last = Some(at);
        });
        match first.zip(last) {
            Some((first, last)) if first < last => {
                // White space outside the line ends stays, as one space.
                if first > 0 {
                    out.push(' ');
                }
                out.push('\n');
                if last + 1 < white.len() {
                    out.push(' ');
                }
            }
            Some(_) | None => out.push(' '),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
