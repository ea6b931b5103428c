//! PDF (ISO 32000): what acts when it is opened, passwords, and files inside. Objects are not resolved: names are looked
//! for in the file and in its packed object streams.

use memchr::memmem;

use super::Look;
use crate::report::Mark;
use crate::unpack::{Method, unpack};

/// Streams that are unpacked, and octets of all of them together.
const STREAMS_MAX: usize = 400;
const UNPACKED_MAX: usize = 16 * 1024 * 1024;
const STREAM_MAX: usize = 4 * 1024 * 1024;

/// What a PDF file holds.
pub fn look(data: &[u8]) -> Look<'static> {
    let mut look = Look::default();
    names(data, &mut look);
    let mut room = UNPACKED_MAX;
    let mut seen = 0;
    let mut at = 0;
    // Each stream's dictionary stands right before the word.
    while let Some(found) = data.get(at..).and_then(|rest| memmem::find(rest, b"stream")) {
        let word = at + found;
        at = word + 6;
        if data.get(..word).is_some_and(|before| before.ends_with(b"end")) {
            continue;
        }
        let before = data.get(word.saturating_sub(600)..word).unwrap_or_default();
        let dictionary = memmem::rfind(before, b"obj").and_then(|from| before.get(from..)).unwrap_or(before);
        let has = |name: &[u8]| memmem::find(dictionary, name).is_some();
        let (objects, file) = (has(b"/ObjStm"), has(b"/EmbeddedFile"));
        if !objects && !file {
            continue;
        }
        seen += 1;
        if seen > STREAMS_MAX || room == 0 {
            look.mark(Mark::TooMuch, "more packed content than is looked at");
            break;
        }
        let body = data.get(at..).unwrap_or_default();
        let body = body.strip_prefix(b"\r").unwrap_or(body);
        let body = body.strip_prefix(b"\n").unwrap_or(body);
        let end = memmem::find(body, b"endstream").unwrap_or(body.len());
        let packed = body.get(..end).unwrap_or_default();
        let method = if has(b"/FlateDecode") || has(b"/Fl ") { Method::Zlib } else { Method::Stored };
        let content = unpack(method, packed, STREAM_MAX.min(room)).0;
        room = room.saturating_sub(content.len());
        at += end;
        if objects {
            names(&content, &mut look);
        } else {
            look.child("embedded".into(), content);
        }
    }
    look
}

/// Looks for names that matter; `#4a` in a name is `J`.
fn names(data: &[u8], look: &mut Look<'_>) {
    let mut at = 0;
    while let Some(found) = data.get(at..).and_then(|rest| memchr::memchr(b'/', rest)) {
        let start = at + found + 1;
        let rest = data.get(start..).unwrap_or_default();
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || b"/<>[](){}%\0".contains(byte);
        let end = rest.iter().take(60).position(is_end).unwrap_or(rest.len().min(60));
        at = start + end;
        let raw = rest.get(..end).unwrap_or_default();
        let mut buffer = [0; 60];
        match plain(raw, &mut buffer) {
            b"JavaScript" | b"JS" => look.mark(Mark::ActiveContent, "script in a PDF file"),
            b"Launch" => look.mark(Mark::ActiveContent, "PDF file that starts a program"),
            b"RichMedia" | b"XFA" => look.mark(Mark::ActiveContent, "active form or media in a PDF file"),
            b"EmbeddedFile" => look.mark(Mark::ActiveContent, "file in a PDF file"),
            b"Encrypt" => encryption(rest.get(end..).unwrap_or_default(), look),
            _ => {}
        }
    }
}

/// In a trailer this names a dictionary: `12 0 R` or `<<`. Many files are encrypted so that they open without a
/// password but must not be printed: that alone hides nothing from people, but everything from us.
fn encryption(after: &[u8], look: &mut Look<'_>) {
    let after = after.trim_ascii_start();
    if after.first().is_some_and(|byte| byte.is_ascii_digit() || *byte == b'<') {
        look.mark(Mark::EncryptedPdf, "encrypted PDF file");
    }
}

fn plain<'a>(raw: &'a [u8], buffer: &'a mut [u8; 60]) -> &'a [u8] {
    if !raw.contains(&b'#') {
        return raw;
    }
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (mut at, mut length) = (0, 0);
    while let Some(byte) = raw.get(at) {
        let escaped = match (byte, digit(raw.get(at + 1)), digit(raw.get(at + 2))) {
            (b'#', Some(high), Some(low)) => Some(high << 4 | low),
            _ => None,
        };
        at += if escaped.is_some() { 3 } else { 1 };
        if let Some(place) = buffer.get_mut(length) {
            *place = escaped.unwrap_or(*byte);
            length += 1;
        }
    }
    buffer.get(..length).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(data: &[u8]) -> Vec<&'static str> {
        look(data).marks.into_iter().map(|(_, what)| what).collect()
    }

    fn zlib(data: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn names_in_the_file_and_in_object_streams() {
        assert_eq!(marks(b"%PDF-1.4 1 0 obj <</OpenAction 2 0 R>>"), [""; 0]);
        assert_eq!(marks(b"%PDF-1.4 <</S/JavaScript/JS(app.alert(1))>>"), ["script in a PDF file"]);
        assert_eq!(marks(b"%PDF-1.4 <</S/J#61vaScript>>"), ["script in a PDF file"]);
        assert_eq!(marks(b"%PDF-1.4 <</S /Launch /F (cmd.exe)>>"), ["PDF file that starts a program"]);
        assert_eq!(marks(b"trailer <</Encrypt 5 0 R>>"), ["encrypted PDF file"]);
        assert_eq!(marks(b"<</EncryptMetadata true>>"), [""; 0]);
        let packed = zlib(b"1 0 <</S/JavaScript>>");
        let head = b"5 0 obj <</Type/ObjStm/Filter/FlateDecode>>\nstream\r\n";
        assert_eq!(marks(&[&head[..], &packed, b"\nendstream"].concat()), ["script in a PDF file"]);
    }

    #[test]
    fn embedded_files_come_out() {
        let packed = zlib(b"MZ\x90\0");
        let head = b"5 0 obj <</Type/EmbeddedFile/Filter/FlateDecode>>\nstream\n";
        let look = look(&[&head[..], &packed, b"\nendstream endobj"].concat());
        assert_eq!(&*look.children[0].content, b"MZ\x90\0");
    }
}
