//! Files written into text with uuencode (POSIX.1-2017), as some programs still show them as attachments.

use crate::bytes::unknown_text;

/// Files of one text that are read.
const FILES_MAX: usize = 100;

/// Names and content of the files in a text, in their order.
pub fn files(text: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| memchr::memmem::find(rest, b"begin ")) {
        let start = at + found;
        at = start + 1;
        if start != 0 && text.get(start - 1) != Some(&b'\n') {
            continue;
        }
        let rest = text.get(start..).unwrap_or_default();
        let mut lines = rest.split_inclusive(|byte| *byte == b'\n');
        let head = lines.next().unwrap_or_default();
        let Some(name) = name(head) else { continue };
        at = start + head.len();
        let mut content = Vec::new();
        for line in lines {
            at += line.len();
            if line.trim_ascii() == b"end" || !decode(unended(line), &mut content) {
                break;
            }
        }
        // Words of a letter may begin so, too.
        if !content.is_empty() {
            out.push((name, content));
            if out.len() >= FILES_MAX {
                break;
            }
        }
    }
    out
}

/// `begin 644 NAME`
fn name(line: &[u8]) -> Option<String> {
    let line = line.trim_ascii_end().strip_prefix(b"begin ")?;
    let blank = memchr::memchr(b' ', line)?;
    let (mode, name) = (line.get(..blank)?, line.get(blank + 1..)?);
    let is_mode = (3..=4).contains(&mode.len()) && mode.iter().all(|digit| (b'0'..=b'7').contains(digit));
    (is_mode && !name.is_empty() && name.len() <= 1000).then(|| unknown_text(name))
}

/// Without its line end; blanks before it are digits.
fn unended(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Adds a line's octets; false where it is no line of such a file, or the last, which is empty.
fn decode(line: &[u8], out: &mut Vec<u8>) -> bool {
    let six = |byte: &u8| byte.wrapping_sub(32) & 63;
    let Some((first, digits)) = line.split_first().filter(|(first, _)| (32..=96).contains(*first)) else {
        return false;
    };
    let length = usize::from(six(first));
    let had = out.len();
    for group in digits.chunks(4) {
        let word = group.iter().fold(0u32, |word, digit| word << 6 | u32::from(six(digit)));
        let missing = 4usize.saturating_sub(group.len());
        let word = word << (6 * missing);
        out.extend(word.to_be_bytes().into_iter().skip(1));
    }
    out.truncate(had + length);
    length > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_text() {
        // `printf 'MZ\220\0' | uuencode a.exe`
        let one = b"Hello\r\nbegin 644 a.exe\r\n$35J0    \r\n`\r\nend\r\nBye\r\n";
        assert_eq!(files(one), [("a.exe".to_owned(), b"MZ\x90\0".to_vec())]);
        let two = b"begin 644 a\n#86)C\n`\nend\nbegin 0755 b c\n#86)C\n";
        assert_eq!(files(two), [("a".into(), b"abc".to_vec()), ("b c".into(), b"abc".to_vec())]);
        assert!(files(b"we begin 644 days later\nbegin now, please\nbegin 999 x\n").is_empty());
    }
}
