//! Replies (RFC 5321 §4.2, RFC 2034).

use std::borrow::Cow;

use mail::{Enhanced, Status};

/// A reply of one or more lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    code: u16,
    enhanced: Option<Enhanced>,
    lines: Vec<Cow<'static, str>>,
}

impl Reply {
    pub fn fixed(code: u16, enhanced: Enhanced, text: &'static str) -> Self {
        Self { code, enhanced: Some(enhanced), lines: vec![Cow::Borrowed(text)] }
    }

    /// Without enhanced code: greetings, the answer to EHLO, 354 and 334 (RFC 2034 §4).
    pub fn plain(code: u16, lines: Vec<Cow<'static, str>>) -> Self {
        Self { code, enhanced: None, lines }
    }

    pub fn code(&self) -> u16 {
        self.code
    }

    pub fn is_error(&self) -> bool {
        self.code >= 400
    }

    /// Appends the lines with CRLF.
    pub fn write(&self, out: &mut Vec<u8>) {
        for (at, line) in self.lines.iter().enumerate() {
            let mark = if at + 1 == self.lines.len() { ' ' } else { '-' };
            out.extend_from_slice(format!("{}{mark}", self.code).as_bytes());
            if let Some(enhanced) = self.enhanced {
                out.extend_from_slice(format!("{enhanced} ").as_bytes());
            }
            out.extend(line.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')));
            out.extend_from_slice(b"\r\n");
        }
    }
}

impl From<Status> for Reply {
    fn from(status: Status) -> Self {
        Self {
            code: status.code(),
            enhanced: Some(status.enhanced()),
            lines: vec![Cow::Owned(status.text().to_owned())],
        }
    }
}
