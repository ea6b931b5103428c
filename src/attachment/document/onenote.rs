//! OneNote sections (MS-ONESTORE 2.6.13): files that are attached to a page.

use super::Look;
use crate::bytes::{Cursor, to_size};
use crate::kind::Kind;
use crate::report::Mark;

const OBJECT: &[u8] = b"\xe7\x16\xe3\xbd\x65\x26\x11\x45\xa4\xc4\x8d\x4d\x0b\x7a\x9e\xac";

/// Files in a section.
pub fn look(data: &[u8]) -> Look<'_> {
    let mut look = Look::default();
    let mut at = 0;
    while let Some(found) = data.get(at..).and_then(|rest| memchr::memmem::find(rest, OBJECT)) {
        at += found + OBJECT.len();
        let mut cursor = Cursor::at(data, at);
        let Some(size) = cursor.u64().map(to_size) else { break };
        if cursor.skip(12).is_none() {
            break;
        }
        let rest = cursor.rest();
        let content = rest.get(..size).unwrap_or(rest);
        if Kind::of(content) != Kind::Picture {
            look.mark(Mark::ActiveContent, "file in a OneNote page");
        }
        if !look.child("attached".into(), content) {
            look.mark(Mark::TooMuch, "more files in a document than are looked at");
            break;
        }
        at = cursor.position().saturating_add(content.len());
    }
    look
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attached_files_are_found() {
        let object = |content: &[u8]| {
            [OBJECT, &u64::try_from(content.len()).unwrap().to_le_bytes(), &[0; 12], content, b"pad"].concat()
        };
        let data = [b"head", &object(b"\x89PNG\r\n\x1a\n")[..], &object(b"<script>x")].concat();
        let look = look(&data);
        assert_eq!(look.children.len(), 2);
        assert_eq!(&*look.children[1].content, b"<script>x");
        assert_eq!(look.marks, [(Mark::ActiveContent, "file in a OneNote page")]);
    }
}
