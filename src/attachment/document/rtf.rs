//! RTF: embedded objects and remote templates.

use memchr::memmem;

use super::{CHILDREN_BYTES_MAX, Look, ole};
use crate::bytes::{Cursor, contains_ignoring_case};
use crate::report::Mark;

const OLE: &[u8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1";

/// What an RTF text holds.
pub fn look(data: &[u8]) -> Look<'static> {
    let mut look = Look::default();
    if contains_ignoring_case(data, b"\\*\\template http") || contains_ignoring_case(data, b"\\*\\template \\\\") {
        look.mark(Mark::ActiveContent, "loads a remote template or object");
    }
    let mut room = CHILDREN_BYTES_MAX;
    let mut at = 0;
    while let Some(found) = data.get(at..).and_then(|rest| memmem::find(rest, b"\\objdata")) {
        at += found + b"\\objdata".len();
        look.mark(Mark::ActiveContent, "object in an RTF text");
        let (object, used) = hexadecimal(data.get(at..).unwrap_or_default(), room);
        at += used;
        room = room.saturating_sub(object.len());
        if let Some(from) = memmem::find(&object, OLE) {
            look.child("object".into(), object.get(from..).unwrap_or_default().to_vec());
        } else if let Some((name, content)) = package(&object) {
            look.child(name, content.to_vec());
        }
        if room == 0 {
            look.mark(Mark::TooMuch, "more embedded content than is looked at");
            break;
        }
    }
    look
}

/// Octets written in digits up to the end of the group; blanks and control words between them do not matter to readers.
fn hexadecimal(text: &[u8], most: usize) -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    let mut high: Option<u8> = None;
    let mut in_word = false;
    for (at, byte) in text.iter().enumerate() {
        if out.len() >= most {
            return (out, at);
        }
        match byte {
            b'\\' => in_word = true,
            b'}' => return (out, at),
            _ if in_word => in_word = byte.is_ascii_alphanumeric() || *byte == b'*' || *byte == b'-',
            _ => {
                let digit = char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                if let Some(digit) = digit {
                    match high.take() {
                        Some(high) => out.push(high << 4 | digit),
                        None => high = Some(digit),
                    }
                }
            }
        }
    }
    (out, text.len())
}

/// An object of the class `Package`: two empty names, a size, then the file.
fn package(object: &[u8]) -> Option<(String, &[u8])> {
    let at = memmem::find(object, b"Package\0")?;
    let mut cursor = Cursor::at(object, at + 8);
    cursor.skip(12)?;
    ole::native(cursor.rest())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn objects_and_templates() {
        assert!(look(b"{\\rtf1 plain}").marks.is_empty());
        let remote = look(b"{\\rtf1{\\*\\template http://evil.test/a}}");
        assert_eq!(remote.marks, [(Mark::ActiveContent, "loads a remote template or object")]);
        let package = b"\x01\x05\0\0\x02\0\0\0\x08\0\0\0Package\0\0\0\0\0\0\0\0\0\x30\0\0\0\
                        \x02\0a\0C:\\x.exe\0\0\0\x03\0\x01\0\0\0\0\x02\0\0\0MZ";
        let text = format!("{{\\rtf1{{\\object{{\\*\\objdata {}}}}}}}", hex(package).replace("0103", "01\r\n03"));
        let seen = look(text.as_bytes());
        assert_eq!((&*seen.children[0].name, &*seen.children[0].content), ("x.exe", &b"MZ"[..]));
        let ole = format!("{{\\rtf1\\objdata\\bin0 01{}ff}}", hex(OLE));
        assert!(look(ole.as_bytes()).children[0].content.starts_with(OLE));
    }
}
