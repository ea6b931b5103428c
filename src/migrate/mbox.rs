//! mbox files: mboxrd, mboxo and mboxcl2 are read, mboxrd is written.

use std::io::{self, BufRead, Read as _, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use base::{ByteSize, UtcMillis};
use mail::HeaderFields;
use mail::date::{format_asctime, parse_asctime};
use memchr::memchr;
use store::{Flags, Keyword, SystemFlags};

use crate::message::{Message, Trouble, with_crlf};

/// Reads one file, a message at a time.
pub struct Reader<R> {
    input: R,
    path: PathBuf,
    limit: ByteSize,
    /// Date of messages whose own cannot be read.
    fallback: UtcMillis,
    /// Number of the line last read.
    line: u64,
    /// The `From ` line of the message to come.
    separator: Option<Vec<u8>>,
    begun: bool,
    /// The first `From ` line holds no date that we can read: then any `From ` line begins a message.
    any_date: bool,
    ended: bool,
}

/// What is read of a line at a time; longer lines come in pieces.
const PIECE_MAX: usize = 64 * 1024;
/// A header longer than this is looked at for no `Content-Length`.
const HEADER_MAX: usize = 1 << 20;

/// A message under way; over the limit nothing of it is kept.
#[derive(Default)]
struct Collected {
    content: Vec<u8>,
    limit: usize,
    too_large: bool,
}

impl Collected {
    fn push(&mut self, piece: &[u8]) {
        if self.too_large || self.content.len() + piece.len() > self.limit {
            self.too_large = true;
            self.content = Vec::new();
        } else {
            self.content.extend_from_slice(piece);
        }
    }
}

impl<R: BufRead + Seek> Reader<R> {
    /// `path` is for words only. `limit` holds for the file's octets of a message.
    pub fn new(input: R, path: &Path, limit: ByteSize, fallback: UtcMillis) -> Self {
        Self {
            input,
            path: path.to_path_buf(),
            limit,
            fallback,
            line: 0,
            separator: None,
            begun: false,
            any_date: false,
            ended: false,
        }
    }

    /// The next message; `None` at the end.
    fn read(&mut self) -> io::Result<Option<Result<Message, Trouble>>> {
        let separator = match self.separator.take() {
            Some(line) => line,
            None => match self.find_separator()? {
                Some(Ok(line)) => line,
                Some(Err(trouble)) => return Ok(Some(Err(trouble))),
                None => return Ok(None),
            },
        };
        let began = self.line;
        let mut collected = Collected { limit: self.limit.as_usize(), ..Collected::default() };
        let header_len = self.read_header(&mut collected)?;
        let by_length = if collected.too_large { None } else { self.content_length(&collected.content)? };
        match by_length {
            Some(length) => self.read_exactly(length, &mut collected)?,
            None => self.read_body(&mut collected, header_len)?,
        }
        if collected.too_large {
            let limit = self.limit;
            return Ok(Some(Err(Trouble::TooLarge { path: self.path.clone(), line: Some(began), limit })));
        }
        if collected.content.is_empty() {
            return Ok(Some(Err(self.damaged(began, "an empty message"))));
        }
        let date = String::from_utf8_lossy(&separator);
        let date = parse_asctime(&date).unwrap_or(self.fallback);
        let (content, flags) = take_marks(with_crlf(collected.content));
        if is_folder_data(&content) {
            return self.read();
        }
        Ok(Some(Ok(Message { content, flags, internal_date: date })))
    }

    fn damaged(&self, line: u64, what: &str) -> Trouble {
        Trouble::Damaged { path: self.path.clone(), line: Some(line), what: what.to_owned() }
    }

    /// The first `From ` line from here on.
    fn find_separator(&mut self) -> io::Result<Option<Result<Vec<u8>, Trouble>>> {
        let mut strange = None;
        let mut piece = Vec::new();
        let mut at_start = true;
        loop {
            piece.clear();
            if self.next_piece(&mut piece)? == 0 {
                self.ended = true;
                return Ok(strange.map(|line| Err(self.damaged(line, "text that belongs to no message"))));
            }
            if at_start && self.is_separator(&piece) {
                if !self.begun {
                    self.any_date = parse_asctime(&String::from_utf8_lossy(&piece)).is_none();
                    self.begun = true;
                }
                return Ok(Some(match strange {
                    None => Ok(piece),
                    Some(line) => {
                        self.separator = Some(piece);
                        Err(self.damaged(line, "text that belongs to no message"))
                    }
                }));
            }
            if at_start && !is_blank(&piece) {
                strange.get_or_insert(self.line);
            }
            at_start = piece.ends_with(b"\n");
        }
    }

    fn is_separator(&self, line: &[u8]) -> bool {
        line.starts_with(b"From ")
            && (!self.begun || self.any_date || parse_asctime(&String::from_utf8_lossy(line)).is_some())
    }

    /// Reads up to and with the empty line after the header; gives the header's length.
    fn read_header(&mut self, collected: &mut Collected) -> io::Result<usize> {
        let mut piece = Vec::new();
        let mut at_start = true;
        loop {
            piece.clear();
            if self.next_piece(&mut piece)? == 0 {
                break;
            }
            collected.push(if at_start { unquoted(&piece) } else { &piece });
            if at_start && is_blank(&piece) {
                break;
            }
            at_start = piece.ends_with(b"\n");
        }
        Ok(collected.content.len())
    }

    /// Reads the body line by line up to the next `From ` line after an empty one.
    fn read_body(&mut self, collected: &mut Collected, header_len: usize) -> io::Result<()> {
        let mut piece = Vec::new();
        let (mut at_start, mut after_blank) = (true, true);
        loop {
            piece.clear();
            if self.next_piece(&mut piece)? == 0 {
                self.ended = true;
                break;
            }
            if at_start && after_blank && self.is_separator(&piece) {
                self.separator = Some(std::mem::take(&mut piece));
                break;
            }
            collected.push(if at_start { unquoted(&piece) } else { &piece });
            after_blank = at_start && is_blank(&piece);
            at_start = piece.ends_with(b"\n");
        }
        // The empty line before the next `From ` is the file's, not the message's.
        if after_blank && collected.content.len() > header_len {
            let end = if collected.content.ends_with(b"\r\n") { 2 } else { 1 };
            collected.content.truncate(collected.content.len() - end);
        }
        Ok(())
    }

    /// The length that the header gives of the body, if a message or the file ends there.
    fn content_length(&mut self, header: &[u8]) -> io::Result<Option<u64>> {
        if header.len() > HEADER_MAX || is_our_block(header) {
            return Ok(None);
        }
        let field = header.split(|byte| *byte == b'\n').find_map(|line| {
            let (name, value) = line.split_at_checked(15)?;
            name.eq_ignore_ascii_case(b"content-length:").then_some(value)
        });
        let length = field.and_then(|value| std::str::from_utf8(value).ok()?.trim().parse::<u64>().ok());
        let Some(length) = length else { return Ok(None) };
        let here = self.input.stream_position()?;
        let Some(end) = here.checked_add(length) else { return Ok(None) };
        let file_end = self.input.seek(SeekFrom::End(0))?;
        let mut fits = end == file_end;
        if end < file_end {
            self.input.seek(SeekFrom::Start(end))?;
            let mut rest = Vec::new();
            self.input.by_ref().take(9).read_to_end(&mut rest)?;
            let rest = rest.trim_ascii_start();
            fits = rest.is_empty() || rest.starts_with(b"From ");
        }
        self.input.seek(SeekFrom::Start(here))?;
        Ok(fits.then_some(length))
    }

    /// Reads a body of known length. Programs that give a length may quote all the same: a body in which a bare `From `
    /// line stands was not quoted, any other is taken for quoted.
    fn read_exactly(&mut self, length: u64, collected: &mut Collected) -> io::Result<()> {
        let mut body =
            Collected { limit: collected.limit.saturating_sub(collected.content.len()), ..Default::default() };
        let mut left = length;
        while left > 0 {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                break;
            }
            let step = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let step = buffer.get(..step).unwrap_or(buffer);
            body.push(step);
            self.line += memchr::memchr_iter(b'\n', step).count() as u64;
            let used = step.len();
            left -= used as u64;
            self.input.consume(used);
        }
        collected.too_large |= body.too_large;
        let lines = || body.content.split_inclusive(|byte| *byte == b'\n');
        if lines().any(|line| line.starts_with(b"From ")) {
            collected.push(&body.content);
        } else {
            lines().for_each(|line| collected.push(unquoted(line)));
        }
        Ok(())
    }

    /// Appends the next line, or a piece of it, with its end; gives how many octets.
    fn next_piece(&mut self, out: &mut Vec<u8>) -> io::Result<usize> {
        while out.len() < PIECE_MAX {
            let buffer = match self.input.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if buffer.is_empty() {
                self.line += u64::from(!out.is_empty());
                break;
            }
            let buffer = buffer.get(..PIECE_MAX - out.len()).unwrap_or(buffer);
            let end = memchr(b'\n', buffer);
            let used = end.map_or(buffer.len(), |at| at + 1);
            out.extend_from_slice(buffer.get(..used).unwrap_or(buffer));
            self.input.consume(used);
            if end.is_some() {
                self.line += 1;
                break;
            }
        }
        Ok(out.len())
    }
}

impl<R: BufRead + Seek> Iterator for Reader<R> {
    type Item = Result<Message, Trouble>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended && self.separator.is_none() {
            return None;
        }
        self.read().unwrap_or_else(|error| {
            (self.ended, self.separator) = (true, None);
            Some(Err(Trouble::Io { path: self.path.clone(), line: Some(self.line), error }))
        })
    }
}

fn is_blank(line: &[u8]) -> bool {
    matches!(line, b"\n" | b"\r\n")
}

/// A line without one `>` if it is `>From `, `>>From ` and so on.
fn unquoted(line: &[u8]) -> &[u8] {
    match line.split_first() {
        Some((b'>', rest)) if is_quotable(rest) => rest,
        _ => line,
    }
}

fn is_quotable(line: &[u8]) -> bool {
    let quotes = line.iter().take_while(|byte| **byte == b'>').count();
    line.get(quotes..).is_some_and(|rest| rest.starts_with(b"From "))
}

/// Fields that mail programs keep a message's marks in; they are no part of what was sent.
const MARKS: [&str; 7] = ["Status", "X-Status", "X-Keywords", "X-UID", "X-IMAP", "X-IMAPbase", "Content-Length"];
/// Those that [`Writer`] puts in front, in this order: what follows them is the message's own, whatever its name.
const OUR_BLOCK: [&str; 3] = ["Status", "X-Status", "X-Keywords"];

fn is_our_block(content: &[u8]) -> bool {
    let mut fields = HeaderFields::of(content);
    OUR_BLOCK.iter().all(|name| fields.next().is_some_and(|field| field.is(name)))
}

/// The message without the marks in its header, and what they say.
fn take_marks(content: Vec<u8>) -> (Vec<u8>, Flags) {
    let ours = is_our_block(&content);
    let mut flags = Flags::default();
    let mut kept: Option<Vec<u8>> = None;
    let mut header_len = 0;
    for (at, field) in HeaderFields::of(&content).enumerate() {
        header_len += field.raw.len();
        let is_mark = if ours { at < OUR_BLOCK.len() } else { MARKS.iter().any(|name| field.is(name)) };
        if is_mark {
            let before = header_len - field.raw.len();
            kept.get_or_insert_with(|| content.get(..before).unwrap_or_default().to_vec());
            read_mark(&field, &mut flags);
        } else if let Some(kept) = &mut kept {
            kept.extend_from_slice(field.raw);
        }
    }
    match kept {
        Some(mut kept) => {
            kept.extend_from_slice(content.get(header_len..).unwrap_or_default());
            (kept, flags)
        }
        None => (content, flags),
    }
}

fn read_mark(field: &mail::HeaderField<'_>, flags: &mut Flags) {
    let value = field.unfolded();
    if field.is("Status") || field.is("X-Status") {
        for letter in value {
            flags.system = flags.system.with(match letter {
                b'R' => SystemFlags::SEEN,
                b'A' => SystemFlags::ANSWERED,
                b'F' => SystemFlags::FLAGGED,
                b'D' => SystemFlags::DELETED,
                b'T' => SystemFlags::DRAFT,
                _ => SystemFlags::default(),
            });
        }
    } else if field.is("X-Keywords") {
        let words = String::from_utf8_lossy(&value);
        let words = words.split_ascii_whitespace().filter_map(|word| word.parse::<Keyword>().ok());
        flags.keywords.extend(words.take(Flags::KEYWORDS_MAX));
    }
}

/// The message that some servers keep at the head of a file for themselves.
fn is_folder_data(content: &[u8]) -> bool {
    let subject = HeaderFields::of(content).find(|field| field.is("Subject"));
    subject
        .is_some_and(|field| field.unfolded().trim_ascii().starts_with(b"DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL"))
}

/// Writes mboxrd with LF.
pub struct Writer<W> {
    output: W,
}

impl<W: Write> Writer<W> {
    pub fn new(output: W) -> Self {
        Self { output }
    }

    /// Appends a message. [`as_read`] says what reading gives back.
    pub fn add(&mut self, message: &Message) -> io::Result<()> {
        let system = message.flags.system;
        let letters = |marks: &[(SystemFlags, char)]| {
            marks.iter().filter(|(flag, _)| system.contains(*flag)).map(|(_, letter)| *letter).collect::<String>()
        };
        let keywords: Vec<&str> = message.flags.keywords.iter().map(Keyword::as_str).collect();
        write!(
            self.output,
            "From MAILER-DAEMON {}\nStatus: {}O\nX-Status: {}\nX-Keywords: {}\n",
            format_asctime(message.internal_date),
            letters(&[(SystemFlags::SEEN, 'R')]),
            letters(&[
                (SystemFlags::ANSWERED, 'A'),
                (SystemFlags::FLAGGED, 'F'),
                (SystemFlags::DRAFT, 'T'),
                (SystemFlags::DELETED, 'D')
            ]),
            keywords.join("\n "),
        )?;
        for line in message.content.split_inclusive(|byte| *byte == b'\n') {
            if is_quotable(line) {
                self.output.write_all(b">")?;
            }
            match line {
                [text @ .., b'\r', b'\n'] => {
                    self.output.write_all(text)?;
                    self.output.write_all(b"\n")?;
                }
                [.., b'\n'] => self.output.write_all(line)?,
                _ => {
                    self.output.write_all(line)?;
                    self.output.write_all(b"\n")?;
                }
            }
        }
        self.output.write_all(b"\n")
    }

    pub fn into_inner(self) -> W {
        self.output
    }
}

/// What reading gives back of content that was written: an mbox keeps neither bare line feeds nor the lack of a line end.
pub fn as_read(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 16);
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\r\n").or_else(|| line.strip_suffix(b"\n")).unwrap_or(line);
        // A carriage return that is left joins the line feed of the file.
        out.extend_from_slice(text.strip_suffix(b"\r").unwrap_or(text));
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[cfg(test)]
#[path = "mbox_tests.rs"]
mod tests;
