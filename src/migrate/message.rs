//! One message on its way in or out.

use std::io;
use std::path::{Path, PathBuf};

use base::{ByteSize, UtcMillis};
use store::Flags;

/// A message with all that a mailbox keeps about it. Lines end in CRLF.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    pub content: Vec<u8>,
    pub flags: Flags,
    pub internal_date: UtcMillis,
}

/// Something that could not be read or written as it is; the rest goes on.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("{}", place(path, *line))]
    Io {
        path: PathBuf,
        line: Option<u64>,
        #[source]
        error: io::Error,
    },
    #[error("{}: {what}", place(path, *line))]
    Damaged { path: PathBuf, line: Option<u64>, what: String },
    #[error("{}: larger than {limit}; left out", place(path, *line))]
    TooLarge { path: PathBuf, line: Option<u64>, limit: ByteSize },
}

impl Trouble {
    pub fn io(path: &Path, error: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), line: None, error }
    }

    pub fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_path_buf(), line: None, what: what.into() }
    }
}

fn place(path: &Path, line: Option<u64>) -> String {
    let name = path.display().to_string().replace(|c: char| c.is_control(), "?");
    match line {
        Some(line) => format!("{name}, line {line}"),
        None => name,
    }
}

/// Gives every line CRLF. Content whose first line has it already is taken octet by octet: what it holds beyond is meant.
pub fn with_crlf(content: Vec<u8>) -> Vec<u8> {
    let Some(first) = memchr::memchr(b'\n', &content) else { return content };
    if first > 0 && content.get(first - 1) == Some(&b'\r') {
        return content;
    }
    let mut out = Vec::with_capacity(content.len() + content.len() / 30 + 16);
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        match line {
            [.., b'\r', b'\n'] => out.extend_from_slice(line),
            [text @ .., b'\n'] => {
                out.extend_from_slice(text);
                out.extend_from_slice(b"\r\n");
            }
            _ => out.extend_from_slice(line),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_are_made_regular_once() {
        for (before, after) in [
            ("a\nb\n", "a\r\nb\r\n"),
            ("a\nb\r\nc", "a\r\nb\r\nc"),
            ("a\r\nb\n", "a\r\nb\n"),
            ("\n\n", "\r\n\r\n"),
            ("a", "a"),
            ("", ""),
        ] {
            assert_eq!(with_crlf(before.into()), after.as_bytes());
            assert_eq!(with_crlf(after.into()), after.as_bytes());
        }
    }
}
