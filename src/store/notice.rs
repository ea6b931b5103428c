//! What readers get in place of content that is lost or damaged: a message that says so, exactly as long as the content
//! was, with its text where the summary says that text is. Whatever sizes and structure a client was told stay true.

use std::ops::Range;

use base::BlobId;
use bytes::Bytes;
use mail::HeaderFields;
use mail::mime::{Part, PartBody, Summary};

/// Words at their places; everything between them is blank.
pub(crate) struct Notice {
    blob: BlobId,
    len: u64,
    /// Apart from each other, in order.
    words: Vec<(u64, Vec<u8>)>,
}

/// Texts put into one message at most.
const TEXTS_MAX: usize = 20;
/// Blank lines have so many octets with their CRLF.
const LINE: u64 = 76;
const LINE_END: &[u8] = b"\r\n";

impl Notice {
    /// For `len` octets of content with this [`Summary`], if it can be read.
    pub(crate) fn new(blob: BlobId, len: u64, summary: &[u8]) -> Self {
        let summary = Summary::decode(summary).ok().filter(|summary| u64::from(summary.root.content.end) <= len);
        let mut notice = Self { blob, len, words: Vec::new() };
        let common = summary.as_ref().map(|summary| summary.common_fields.as_slice()).unwrap_or_default();
        let room = summary.as_ref().map(|summary| u64::from(summary.root.content.start));
        let header = header(common, room.unwrap_or(len));
        let body = room.unwrap_or(header.len() as u64);
        notice.add(0..body, &header);
        let text = text(blob);
        match summary.map(|summary| summary.root) {
            Some(root) => {
                // A reader of the whole finds it where the first part's own header was.
                if let PartBody::Multipart { children } = &root.body
                    && let Some(first) = children.first()
                {
                    notice.add(body..u64::from(first.content.start), text.as_bytes());
                }
                notice.add_texts(&root, &text);
                notice.add(body..len, text.as_bytes());
            }
            None => notice.add(body..len, text.as_bytes()),
        }
        // It ends with a line as messages do.
        notice.add(len.saturating_sub(LINE_END.len() as u64)..len, LINE_END);
        notice
    }

    /// Puts words into free room; cuts what does not fit.
    fn add(&mut self, room: Range<u64>, words: &[u8]) {
        let length = usize::try_from(room.end.saturating_sub(room.start)).unwrap_or(usize::MAX).min(words.len());
        let words = words.get(..length).unwrap_or_default();
        let words = words.strip_suffix(b"\r").unwrap_or(words);
        let end = room.start + words.len() as u64;
        let is_free = self.words.iter().all(|(at, other)| end <= *at || at + other.len() as u64 <= room.start);
        if !words.is_empty() && is_free && end <= self.len {
            let at = self.words.partition_point(|(at, _)| *at < room.start);
            self.words.insert(at, (room.start, words.to_vec()));
        }
    }

    fn add_texts(&mut self, part: &Part, text: &str) {
        match &part.body {
            PartBody::Multipart { children } => children.iter().for_each(|child| self.add_texts(child, text)),
            PartBody::Message { root, .. } => self.add_texts(root, text),
            PartBody::Leaf { .. } if part.is("text", None) && self.words.len() < TEXTS_MAX => {
                let is_html = part.is("text", Some("html"));
                let text = if is_html { format!("<pre>{text}</pre>\r\n") } else { text.to_owned() };
                let is_base64 = part.encoding.eq_ignore_ascii_case("base64");
                let words = if is_base64 { base64_lines(text.as_bytes()) } else { text.into_bytes() };
                self.add(part.content.start.into()..part.content.end.into(), &words);
            }
            PartBody::Leaf { .. } => {}
        }
    }

    /// Octets `range`, as far as the content went. A hole without words of its own says at its start that it is one.
    pub(crate) fn fill(&self, range: Range<u64>) -> Bytes {
        let (start, end) = (range.start.min(self.len), range.end.min(self.len));
        let mut out: Vec<u8> = (start..end).map(blank).collect();
        let mut put = |at: u64, words: &[u8]| {
            for (place, octet) in (at..).zip(words) {
                if let Some(slot) = place.checked_sub(start).and_then(|at| out.get_mut(usize::try_from(at).ok()?)) {
                    *slot = *octet;
                }
            }
        };
        // No CR without its LF where words or the end cut a blank line.
        let cut_before = |at: u64| at.checked_sub(1).filter(|before| blank(*before) == b'\r');
        let cut_after = |at: u64| Some(at).filter(|after| blank(*after) == b'\n');
        for place in cut_before(self.len).into_iter().chain(cut_before(end)).chain(cut_after(start)) {
            put(place, b" ");
        }
        let mut is_told = false;
        for (at, words) in &self.words {
            let after = at + words.len() as u64;
            cut_before(*at).into_iter().chain(cut_after(after)).for_each(|place| put(place, b" "));
            put(*at, words);
            is_told |= *at < end && start < after && words != LINE_END;
        }
        if !is_told {
            let words = format!("\r\n[{} octets are lost here: {}]\r\n", end - start, self.blob);
            if words.len() as u64 <= end - start {
                cut_after(start + words.len() as u64).into_iter().for_each(|place| put(place, b" "));
                put(start, words.as_bytes());
            }
        }
        out.into()
    }
}

fn blank(at: u64) -> u8 {
    match at % LINE {
        74 => b'\r',
        75 => b'\n',
        _ => b' ',
    }
}

/// Plain ASCII: it fits whatever character set the text had.
fn text(blob: BlobId) -> String {
    format!(
        "Content lost / Inhalt verloren / Contenuto perso: {blob}\r\n\r\n\
         The content of this message is lost or damaged on the server.\r\n\
         Please tell your administrator the number above.\r\n\r\n\
         Der Inhalt dieser Nachricht ist auf dem Server verloren oder beschaedigt.\r\n\
         Bitte nennen Sie Ihrem Administrator die Nummer oben.\r\n\r\n\
         Il contenuto di questo messaggio sul server e' andato perso o danneggiato.\r\n\
         Comunicate all'amministratore il numero qui sopra.\r\n"
    )
}

/// Exactly `room` octets if what is known of the header fits into them, its empty line included; else less.
fn header(common: &[u8], room: u64) -> Vec<u8> {
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    let field = |name: &str| {
        let found = HeaderFields::of(common).find(|field| field.is(name));
        found.map(|field| field.raw.to_vec()).filter(|raw| raw.ends_with(b"\r\n"))
    };
    let mut fields: Vec<Vec<u8>> =
        ["Subject", "From", "Date", "To", "Message-ID"].into_iter().filter_map(field).collect();
    fields.push(b"MIME-Version: 1.0\r\n".to_vec());
    fields.push(b"Content-Type: text/plain; charset=us-ascii\r\n".to_vec());
    let mut out = Vec::new();
    for field in fields {
        if out.len() + field.len() + 2 <= room {
            out.extend_from_slice(&field);
        }
    }
    // Filled up by a field that nobody reads, unless nothing tells how long the header was.
    if !common.is_empty() {
        let mut left = room.saturating_sub(out.len() + 2);
        while left >= FILLER.len() + 2 {
            // The last one takes what would be too short for one of its own.
            let length = if left < 3 * 70 { left } else { 70 };
            out.extend_from_slice(FILLER);
            out.resize(out.len() + length - FILLER.len() - 2, b'.');
            out.extend_from_slice(b"\r\n");
            left -= length;
        }
        // A few octets more: blanks at the end of the last field.
        if left > 0 && out.ends_with(b"\r\n") {
            out.truncate(out.len() - 2);
            out.resize(out.len() + left, b' ');
            out.extend_from_slice(b"\r\n");
        }
    }
    if out.len() + 2 <= room {
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// RFC 2045 §6.8.
fn base64_lines(bytes: &[u8]) -> Vec<u8> {
    use base64::Engine as _;
    let coded = base64::engine::general_purpose::STANDARD.encode(bytes);
    let lines = coded.as_bytes().chunks(76).flat_map(|line| [line, b"\r\n"]);
    lines.flatten().copied().collect()
}

const FILLER: &[u8] = b"X-Lost: ";

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(message: &str) -> (Notice, Summary) {
        let summary = Summary::of(message.as_bytes());
        (Notice::new(BlobId::from_u128(77), message.len() as u64, &summary.encode()), summary)
    }

    /// Whole and piece by piece it is the same, as long as promised, and clean.
    fn check(message: &str) -> (String, Summary) {
        let (notice, summary) = notice(message);
        let whole = notice.fill(0..u64::MAX);
        assert_eq!(whole.len(), message.len());
        for step in [7u64, 76, 1000] {
            let steps = (0..message.len() as u64).step_by(usize::try_from(step).unwrap());
            let joined: Vec<u8> = steps.flat_map(|at| notice.fill(at..at + step)).collect();
            assert_eq!(joined.len(), message.len());
        }
        let text = String::from_utf8(whole.to_vec()).unwrap();
        let rest = text.replace("\r\n", "");
        assert!(!rest.contains('\r') && !rest.contains('\n'), "{text:?}");
        (text, summary)
    }

    #[test]
    fn a_plain_message_says_it_in_three_languages_where_its_text_was() {
        let body = "words and words\r\n".repeat(60);
        let (text, summary) = check(&format!(
            "Received: from a\r\n by b\r\nFrom: Anna <a@x.example>\r\nSubject: Offer\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\n\
             X-Long: {}\r\n\r\n{body}",
            "y".repeat(300)
        ));
        let again = Summary::of(text.as_bytes());
        assert_eq!(again.envelope.subject, summary.envelope.subject);
        assert_eq!((again.envelope.from, again.sent_at), (summary.envelope.from, summary.sent_at));
        assert_eq!(again.root.content, summary.root.content);
        let body = &text[summary.root.content.start as usize..];
        assert!(body.starts_with("Content lost") && body.contains("verloren oder") && body.contains("danneggiato"));
    }

    #[test]
    fn parts_have_it_where_the_structure_says_and_as_they_are_encoded() {
        let coded = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5eg==\r\n".repeat(20);
        let (text, summary) = check(&format!(
            "From: a@x.example\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\
             Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n{coded}--b\r\n\
             Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n{coded}--b--\r\n"
        ));
        let part = summary.root.at(&[1]).unwrap();
        let coded = &text.as_bytes()[part.content.start as usize..part.content.end as usize];
        let decoded = mail::mime::decode::decode_content(part, coded);
        let decoded = String::from_utf8_lossy(&decoded).into_owned();
        assert!(decoded.starts_with("<pre>Content lost") && decoded.contains("</pre>"), "{decoded}");
        assert!(text[summary.root.content.start as usize..].starts_with("Content lost"), "{text}");
        let pdf = summary.root.at(&[2]).unwrap();
        assert!(text[pdf.content.start as usize..pdf.content.end as usize].trim().is_empty());
    }

    #[test]
    fn whatever_is_left_of_a_message_it_never_grows_or_breaks() {
        for message in ["", "x", "\r\n", "A: b\r\n\r\n", "From: a@b\r\n\r\nhi", "no header at all", "\r\n\r\n\r\nxyz"] {
            check(message);
        }
        let notice = Notice::new(BlobId::from_u128(1), 1000, b"no summary");
        assert!(notice.fill(0..1000).starts_with(b"MIME-Version: 1.0\r\n") && notice.fill(0..1000).len() == 1000);
    }

    #[test]
    fn a_hole_in_a_long_message_is_marked() {
        let (notice, _) = notice(&format!("From: a@x.example\r\n\r\n{}", "long\r\n".repeat(200_000)));
        let hole = notice.fill(262_144..524_288);
        assert!(hole.starts_with(b"\r\n[262144 octets are lost here: ") && hole.len() == 262_144);
    }
}
