//! Replies: a code, an enhanced code (RFC 3463, RFC 5248) and a text.

use std::borrow::Cow;
use std::fmt;

/// An enhanced status code: class, subject, detail.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Enhanced(pub u8, pub u16, pub u16);

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A reply of one line, as it is told to a client or noted in the trail.
/// Invariant: `code / 100` and the enhanced class agree, and the text holds no CR or LF.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    code: u16,
    enhanced: Enhanced,
    text: Cow<'static, str>,
}

impl Status {
    pub const fn fixed(code: u16, enhanced: Enhanced, text: &'static str) -> Self {
        debug_assert!(code / 100 == enhanced.0 as u16);
        Self { code, enhanced, text: Cow::Borrowed(text) }
    }

    /// With a text made at run time; line breaks and control characters in it become spaces.
    pub fn with_text(code: u16, enhanced: Enhanced, text: &str) -> Self {
        debug_assert!(code / 100 == u16::from(enhanced.0));
        let text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
        Self { code, enhanced, text: Cow::Owned(text) }
    }

    pub const fn code(&self) -> u16 {
        self.code
    }
    pub const fn enhanced(&self) -> Enhanced {
        self.enhanced
    }
    pub fn text(&self) -> &str {
        &self.text
    }
    pub const fn is_success(&self) -> bool {
        self.code / 100 == 2
    }
    /// 4xx: the client keeps the message and tries again.
    pub const fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }
    pub const fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.code, self.enhanced, self.text)
    }
}
