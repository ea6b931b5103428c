//! A message as SpamAssassin's rules see it: header fields and the tree of its parts.
//!
//! Other readers of MIME in this project are lenient towards people; this one is exact towards rules: its choices
//! where a message breaks the standards are those that the rules were written against.

use std::borrow::Cow;

use super::text;

/// One header field.
#[derive(Clone, Debug, Default)]
pub struct HeaderField {
    /// Lower case.
    pub name: String,
    pub name_as_written: String,
    /// What follows the colon, LF line ends, the final one included.
    pub raw: Vec<u8>,
    /// Unfolded, trimmed, encoded words decoded to UTF-8.
    pub decoded: Vec<u8>,
}

/// Content of a multipart, or of one that is none.
#[derive(Debug, Default)]
pub struct Node {
    /// The header of the message or part; for a message in a part, that of the inner message.
    pub fields: Vec<HeaderField>,
    /// Lower case. Text of an unusual kind is `text/plain`.
    pub kind: String,
    /// As the `Content-Type` field alone says.
    pub declared: ContentType,
    /// File name from the disposition, else from the type.
    pub name: Option<String>,
    /// Lines as sent, LF line ends, of a part without children.
    pub raw: Vec<u8>,
    pub children: Vec<Node>,
    pub is_leaf: bool,
}

/// What of a message's form is broken, by SpamAssassin's names.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Form {
    pub missing_head_body_separator: bool,
    pub missing_mime_headers: bool,
    pub missing_mime_head_body_separator: bool,
    pub mime_epilogue_exists: bool,
    pub truncated_header: bool,
    pub mimepart_limit_exceeded: bool,
    /// A multipart whose last boundary is missing, or that ends more often than it begins.
    pub missing_boundary: bool,
}

/// A whole message.
#[derive(Debug, Default)]
pub struct Mime {
    pub root: Node,
    pub form: Form,
    /// The header as sent, LF line ends, with the empty line.
    pub header: Vec<u8>,
    /// Bytes after the header, as sent.
    pub body_bytes: usize,
}

/// A `Content-Type` field, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContentType {
    pub kind: String,
    pub boundary: Option<Vec<u8>>,
    pub charset: Option<String>,
    pub name: Option<String>,
    pub is_missing: bool,
}

/// Longer names and values are cut.
const NAME_BYTES_MAX: usize = 256;
const VALUE_BYTES_MAX: usize = 8192;
/// Most bytes and fields of one header.
const FIELDS_MAX: usize = 2000;
/// Lines that are no fields end a header when there are more than so many.
const BAD_LINES_MAX: usize = 3;
/// Longer lines of parts are broken.
const LINE_BYTES_MAX: usize = 2048;
/// Parts of one multipart, and of the whole message.
const PARTS_MAX: usize = 1000;
/// Multiparts in multiparts, messages in messages.
const DEPTH_MAX: u32 = 20;
/// More empty lines in a row are left out of parts.
const BLANK_LINES_MAX: usize = 20;

impl Mime {
    /// Never fails. Work is bounded by the message's length times [`DEPTH_MAX`].
    pub fn parse(message: &[u8]) -> Self {
        let mut reader = Reader { form: Form::default(), parts: 0 };
        let (root, header, body_bytes) = reader.message(message, DEPTH_MAX, true);
        Self { root, form: reader.form, header, body_bytes }
    }

    /// All parts, parents before children, in the order of the message.
    pub fn nodes(&self) -> Vec<&Node> {
        let mut out = Vec::new();
        self.root.collect(&mut out);
        out
    }
}

impl Node {
    fn collect<'n>(&'n self, out: &mut Vec<&'n Self>) {
        out.push(self);
        for child in &self.children {
            child.collect(out);
        }
    }

    /// The value of the last field called `name` (lower case).
    pub fn field(&self, name: &str) -> Option<&HeaderField> {
        self.fields.iter().rev().find(|field| field.name == name)
    }

    pub fn decoded(&self, name: &str) -> Cow<'_, str> {
        self.field(name).map_or(Cow::Borrowed(""), |field| String::from_utf8_lossy(&field.decoded))
    }

    /// Lower case, empty without one.
    pub fn transfer_encoding(&self) -> String {
        self.decoded("content-transfer-encoding").to_lowercase()
    }

    /// Transfer encoding undone, at most `bytes_max` of it.
    pub fn content(&self, bytes_max: usize) -> Cow<'_, [u8]> {
        match self.transfer_encoding().as_str() {
            "quoted-printable" => {
                let out = text::quoted_printable(self.raw.get(..bytes_max.saturating_mul(3)).unwrap_or(&self.raw));
                Cow::Owned(lf_only(&out).into_owned())
            }
            "base64" => {
                let mut out = text::base64(&self.raw, bytes_max);
                if self.kind.starts_with("text/") || self.kind.starts_with("message/") {
                    out = lf_only(&out).into_owned();
                }
                Cow::Owned(out)
            }
            _ => Cow::Borrowed(self.raw.get(..bytes_max).unwrap_or(&self.raw)),
        }
    }

    /// The kind that counts for showing it: a file called `.html` is HTML whatever its type says.
    pub fn effective_kind(&self) -> &str {
        let name = self.name.as_deref().unwrap_or_default().to_ascii_lowercase();
        if [".html", ".htm", ".shtml", ".shtm"].iter().any(|end| name.ends_with(end)) {
            "text/html"
        } else {
            &self.kind
        }
    }
}

struct Reader {
    form: Form,
    parts: usize,
}

impl Reader {
    /// Gives the message, its header as written and the length of its body. `depth` counts down.
    fn message(&mut self, message: &[u8], depth: u32, is_outer: bool) -> (Node, Vec<u8>, usize) {
        let first_line = message.split_inclusive(|b| *b == b'\n').next().unwrap_or_default();
        let body_bytes_of = |rest: usize| rest;
        let text = if first_line.ends_with(b"\r\n") { lf_only(message) } else { Cow::Borrowed(message) };
        let mut lines = text.split_inclusive(|b| *b == b'\n').peekable();
        if lines.peek().is_some_and(|line| line.starts_with(b"From ")) {
            lines.next();
        }
        let mut form = Form::default();
        let mut header = Vec::new();
        let mut fields = Vec::new();
        let mut open: Option<Vec<u8>> = None;
        let mut bad_lines = 0;
        loop {
            let next = lines.peek().copied();
            let line = next.unwrap_or(b"\n");
            if matches!(line.first(), Some(b' ' | b'\t')) {
                open.get_or_insert_default().extend_from_slice(line);
                header.extend_from_slice(line);
                lines.next();
                continue;
            }
            if let Some(field) = open.take() {
                add_field(&mut fields, &field, &mut form);
            }
            if line == b"\n" {
                if next.is_none() {
                    form.missing_head_body_separator = true;
                } else {
                    header.extend_from_slice(line);
                    lines.next();
                }
                break;
            }
            if line.starts_with(b"--") {
                form.missing_head_body_separator = true;
                break;
            }
            if field_name_end(line, true).is_none() {
                bad_lines += 1;
                if bad_lines > BAD_LINES_MAX {
                    form.missing_head_body_separator = true;
                    break;
                }
            }
            open = Some(line.to_vec());
            header.extend_from_slice(line);
            lines.next();
        }
        if is_outer {
            self.form = form;
        }
        let lines: Vec<&[u8]> = lines.collect();
        let lf_bytes: usize = lines.iter().map(|line| line.len()).sum();
        let crs = if matches!(text, Cow::Owned(_)) { lines.len() } else { 0 };
        let body_bytes = body_bytes_of(lf_bytes + crs);
        let mut node = Node { fields, ..Node::default() };
        let declared = ContentType::of(&node);
        node.kind.clone_from(&declared.kind);
        let mut lines = without_blank_runs(lines);
        let is_multipart = declared.kind.starts_with("multipart/");
        let boundary = declared.boundary.clone();
        node.declared = declared;
        if is_multipart && lines.len() > 1 && lines.first().is_some_and(|line| !is_blank(line)) {
            let at_boundary = boundary.as_ref().is_some_and(|b| {
                lines.first().and_then(|line| line.strip_prefix(b"--")).is_some_and(|rest| rest.starts_with(b))
            });
            if !at_boundary {
                lines.insert(0, b"\n");
            }
        }
        self.content(&mut node, boundary, &lines, depth);
        (node, header, body_bytes)
    }

    /// Fills in what `lines` hold for `node`.
    fn content(&mut self, node: &mut Node, boundary: Option<Vec<u8>>, lines: &[&[u8]], depth: u32) {
        if node.kind.starts_with("multipart/")
            && depth > 0
            && let Some(boundary) = &boundary
        {
            self.multipart(node, boundary, lines, depth - 1);
            return;
        }
        if !node.declared.is_missing {
            let plain = node.declared.kind.starts_with("multipart/") && boundary.is_none();
            node.kind = if plain { "text/plain".to_owned() } else { node.declared.kind.clone() };
        }
        node.name = disposition_name(&node.decoded("content-disposition")).or_else(|| node.declared.name.clone());
        node.is_leaf = true;
        node.raw = lines.concat();
        if depth > 0 && matches!(node.kind.as_str(), "message/rfc822" | "message/global") {
            let inner = node.content(usize::MAX).into_owned();
            if !inner.is_empty() && self.take_part() {
                let (child, ..) = self.message(&inner, depth - 1, false);
                node.children.push(child);
                node.is_leaf = false;
                node.raw = Vec::new();
            }
        }
    }

    fn take_part(&mut self) -> bool {
        self.parts += 1;
        self.parts < PARTS_MAX
    }

    fn multipart(&mut self, node: &mut Node, boundary: &[u8], lines: &[&[u8]], depth: u32) {
        let is_field = |line: &&[u8]| field_name_end(line, false).is_some();
        let mut lines = lines;
        let mut balance = 0;
        if let Some(at) = lines.iter().position(|line| delimiter(line, boundary) == Some(false)) {
            balance = 1;
            lines = lines.get(at + 1..).unwrap_or_default();
            if lines.first().is_some_and(|line| !is_field(line)) {
                self.form.missing_mime_headers = true;
            }
        }
        let mut part = PartLines::default();
        let mut nested = false;
        let mut rest = 0;
        for (at, line) in lines.iter().enumerate() {
            let after = lines.get(at + 1..).unwrap_or_default();
            let mut end = delimiter(line, boundary);
            if end.is_some() && nested {
                // A boundary used twice: the inner multipart ends first.
                nested = end != Some(true);
                end = None;
            }
            if end.is_none() && !after.is_empty() {
                nested |= part.add(line, boundary, &mut self.form);
                continue;
            }
            let done = std::mem::take(&mut part);
            let child = self.part(done, end.is_none().then_some(*line), node, boundary, depth);
            node.children.push(child);
            if end == Some(true) {
                balance -= 1;
                rest = after.len();
                break;
            }
            if after.first().is_some_and(|line| !is_field(line)) {
                self.form.missing_mime_headers = true;
            }
            if !self.take_part() {
                self.form.mimepart_limit_exceeded = true;
                break;
            }
        }
        self.form.missing_boundary |= balance != 0;
        let epilogue = lines.get(lines.len() - rest..).unwrap_or_default();
        self.form.mime_epilogue_exists |=
            epilogue.iter().any(|line| line.iter().any(|b| !b.is_ascii_whitespace() && *b != b'.'));
    }

    /// `last`: the message's last line, which no boundary follows.
    fn part(&mut self, part: PartLines<'_>, last: Option<&[u8]>, parent: &Node, boundary: &[u8], depth: u32) -> Node {
        let mut lines = part.lines;
        match last {
            Some(line) => push_broken(&mut lines, line),
            None => {
                // The line end before a boundary belongs to the boundary.
                if let Some(line) = lines.pop() {
                    let cut = line.strip_suffix(b"\n").unwrap_or(line);
                    if !cut.is_empty() {
                        lines.push(cut);
                    }
                }
            }
        }
        let mut node = Node { fields: part.fields, ..Node::default() };
        node.declared = ContentType::of(&node);
        node.kind.clone_from(&node.declared.kind);
        if node.declared.is_missing && parent.kind == "multipart/digest" {
            node.kind = "message/rfc822".to_owned();
        }
        let own = node.declared.boundary.clone().filter(|own| !own.is_empty());
        self.content(&mut node, Some(own.unwrap_or_else(|| boundary.to_vec())), &lines, depth);
        node
    }
}

/// Lines of one part, as they come.
#[derive(Default)]
struct PartLines<'l> {
    fields: Vec<HeaderField>,
    open: Vec<u8>,
    in_body: bool,
    lines: Vec<&'l [u8]>,
}

impl<'l> PartLines<'l> {
    /// True if this line shows that the part is a multipart with the same boundary.
    fn add(&mut self, line: &'l [u8], boundary: &[u8], form: &mut Form) -> bool {
        let mut same = false;
        if !self.in_body {
            if field_name_end(line, true).is_some() {
                self.close();
                self.open = line.to_vec();
                return false;
            }
            if matches!(line.first(), Some(b' ' | b'\t')) && !self.open.is_empty() {
                self.open.extend_from_slice(line);
                return false;
            }
            self.close();
            same = self.fields.last().is_some_and(|field| field.name == "content-type") && {
                let node = Node { fields: self.fields.clone(), ..Node::default() };
                ContentType::of(&node).boundary.as_deref() == Some(boundary)
            };
            self.in_body = true;
            if matches!(line, b"\n" | b"\r\n" | b"\r") {
                return same;
            }
            form.missing_mime_head_body_separator = true;
        }
        push_broken(&mut self.lines, line);
        same
    }

    fn close(&mut self) {
        let field = std::mem::take(&mut self.open);
        let Some(colon) = memchr::memchr(b':', &field) else { return };
        let (name, value) = field.split_at(colon);
        let value = value.get(1..).unwrap_or_default();
        if self.fields.len() < FIELDS_MAX {
            self.fields.push(HeaderField::new(name, value.trim_ascii_start().to_vec()));
        }
    }
}

impl HeaderField {
    fn new(name: &[u8], raw: Vec<u8>) -> Self {
        let name_as_written = String::from_utf8_lossy(name).into_owned();
        let name = name_as_written.to_ascii_lowercase();
        let decoded = text::decoded_header(&raw, &name);
        Self { name, name_as_written, raw, decoded }
    }
}

impl ContentType {
    fn of(node: &Node) -> Self {
        match node.field("content-type").filter(|field| !field.decoded.is_empty()) {
            Some(field) => Self::parse(&field.decoded),
            None => Self { is_missing: true, ..Self::parse(b"text/plain; charset=us-ascii") },
        }
    }

    fn parse(value: &[u8]) -> Self {
        let value = String::from_utf8_lossy(value);
        let boundary = parameter(&value, &["boundary"]).and_then(|rest| {
            let rest = rest.trim_start();
            let text = match rest.strip_prefix('"') {
                Some(quoted) => quoted.split('"').next().unwrap_or_default(),
                None => {
                    let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '"' | ';')).unwrap_or(rest.len());
                    if rest[end..].starts_with('"') { "" } else { &rest[..end] }
                }
            };
            (!text.is_empty()).then(|| text.replace('"', "").into_bytes())
        });
        let text_of = |names: &[&str]| parameter(&value, names).map(|rest| unquoted(rest).to_owned());
        let name = text_of(&["filename", "name"]).filter(|name| !name.is_empty()).or_else(|| continued_name(&value));
        let kind = value.trim_start().split(';').next().unwrap_or_default().to_ascii_lowercase();
        let (major, minor) = kind.split_once('/').map_or((kind.as_str(), None), |(major, minor)| {
            (major, Some(minor.split(char::is_whitespace).next().unwrap_or_default()))
        });
        let kind = minor.map_or_else(|| major.to_owned(), |minor| format!("{major}/{minor}"));
        let is_text =
            kind.strip_prefix("text").is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'));
        let kept = matches!(kind.as_str(), "text/x-vcard" | "text/calendar" | "text/html");
        let is_missing = kind.is_empty();
        let kind = if is_missing || (is_text && !kept) {
            "text/plain".to_owned()
        } else {
            kind.chars().filter(|c| c.is_ascii_graphic() && !"\"(),:;<=>?@[\\]".contains(*c)).collect()
        };
        Self { kind, boundary, charset: text_of(&["charset"]), name, is_missing }
    }
}

/// What follows `name =`, where the name is a word of its own.
fn parameter<'v>(value: &'v str, names: &[&str]) -> Option<&'v str> {
    let lower = value.to_ascii_lowercase();
    let mut found: Option<usize> = None;
    for name in names {
        let mut from = 0;
        while let Some(at) = lower.get(from..).and_then(|rest| rest.find(name)).map(|at| at + from) {
            let end = at + name.len();
            let before = lower[..at].chars().next_back();
            let is_word = before.is_none_or(|c| !(c.is_alphanumeric() || c == '_'));
            let rest = lower[end..].trim_start();
            if is_word && rest.starts_with('=') {
                let start = lower.len() - rest.len() + 1;
                found = Some(found.map_or(start, |other| other.min(start)));
                break;
            }
            from = end;
        }
    }
    found.and_then(|start| value.get(start..))
}

/// Up to the next `;`, without quotes around it.
fn unquoted(rest: &str) -> &str {
    let rest = rest.trim_start();
    let rest = rest.strip_prefix(['"', '\'']).unwrap_or(rest);
    let end = rest
        .char_indices()
        .find(|(at, c)| {
            *c == ';' || (matches!(c, '"' | '\'') && matches!(rest[at + 1..].chars().next(), None | Some(';')))
        })
        .map_or(rest.len(), |(at, _)| at);
    &rest[..end]
}

/// `name*0="…"; name*1="…"`
fn continued_name(value: &str) -> Option<String> {
    let mut out = String::new();
    for number in 0..50 {
        let (long, short) = (format!("filename*{number}"), format!("name*{number}"));
        match parameter(value, &[&long, &short]) {
            Some(rest) => out.push_str(unquoted(rest)),
            None => break,
        }
    }
    (!out.is_empty()).then_some(out)
}

fn disposition_name(value: &str) -> Option<String> {
    let lower = value.to_ascii_lowercase();
    let rest = &value[lower.find("name=")? + "name=".len()..];
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('"').unwrap_or(rest);
    let name = rest.split(['"', ';']).next().unwrap_or_default();
    (!name.is_empty()).then(|| name.to_owned())
}

fn add_field(fields: &mut Vec<HeaderField>, field: &[u8], form: &mut Form) {
    let Some(colon) = memchr::memchr(b':', field) else { return };
    let (name, value) = field.split_at(colon);
    let mut name = name.trim_ascii_end();
    let mut value = value.get(1..).unwrap_or_default();
    if let Some(cut) = name.get(..NAME_BYTES_MAX).filter(|cut| cut.len() < name.len()) {
        name = cut;
        form.truncated_header = true;
    }
    if let Some(cut) = value.get(..VALUE_BYTES_MAX).filter(|cut| cut.len() < value.len()) {
        value = cut;
        form.truncated_header = true;
    }
    if fields.len() < FIELDS_MAX {
        fields.push(HeaderField::new(name, value.to_vec()));
    }
}

/// Where the name of a header line ends. `spaced`: white space may stand before the colon.
fn field_name_end(line: &[u8], spaced: bool) -> Option<usize> {
    let end = line.iter().position(|b| !(b.is_ascii_graphic() && *b != b':'))?;
    let rest = line.get(end..)?;
    let rest = if spaced { rest.trim_ascii_start_of(b" \t") } else { rest };
    (end > 0 && rest.first() == Some(&b':')).then_some(end)
}

trait TrimStart {
    fn trim_ascii_start_of(&self, what: &[u8]) -> &Self;
}

impl TrimStart for [u8] {
    fn trim_ascii_start_of(&self, what: &[u8]) -> &Self {
        let at = self.iter().position(|b| !what.contains(b)).unwrap_or(self.len());
        self.get(at..).unwrap_or_default()
    }
}

/// `Some(true)` for the last boundary.
fn delimiter(line: &[u8], boundary: &[u8]) -> Option<bool> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary)?;
    let (last, rest) = rest.strip_prefix(b"--").map_or((false, rest), |rest| (true, rest));
    is_blank(rest).then_some(last)
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|b| b.is_ascii_whitespace() || *b == 0x0b)
}

fn push_broken<'l>(lines: &mut Vec<&'l [u8]>, line: &'l [u8]) {
    let mut rest = line;
    while let Some((head, tail)) = rest.split_at_checked(LINE_BYTES_MAX).filter(|(_, tail)| !tail.is_empty()) {
        lines.push(head);
        lines.push(b"\n");
        rest = tail;
    }
    lines.push(rest);
}

fn without_blank_runs(lines: Vec<&[u8]>) -> Vec<&[u8]> {
    let mut run = 0;
    let keep = lines.into_iter().filter(|line| {
        run = if is_blank(line) { run + 1 } else { 0 };
        run <= BLANK_LINES_MAX
    });
    keep.collect()
}

/// CRLF made LF.
pub fn lf_only(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memmem::find(text, b"\r\n").is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memmem::find(rest, b"\r\n") {
        out.extend_from_slice(rest.get(..at).unwrap_or_default());
        out.push(b'\n');
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    Cow::Owned(out)
}
