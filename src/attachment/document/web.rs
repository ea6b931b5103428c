//! HTML and SVG files: script, and what loads or sends by itself.

use std::borrow::Cow;

use super::Look;
use crate::bytes::contains_ignoring_case;
use crate::report::Mark;

/// What an HTML file holds. Only for files: in a message's own text nothing runs.
pub fn look_html(data: &[u8]) -> Look<'static> {
    let text = narrow(data);
    let has = |what: &[u8]| contains_ignoring_case(&text, what);
    let mut look = Look::default();
    if has(b"<script") || has(b"javascript:") || has(b"vbscript:") || has_handler(&text) {
        look.mark(Mark::ActiveContent, "script in an HTML file");
    }
    if has(b"http-equiv=\"refresh\"") || has(b"http-equiv=refresh") || has(b"http-equiv='refresh'") {
        look.mark(Mark::ActiveContent, "HTML file that leads elsewhere");
    }
    if has(b"type=\"password\"") || has(b"type=password") || has(b"type='password'") {
        look.mark(Mark::ActiveContent, "HTML file that asks for a password");
    }
    if has(b"<object") || has(b"<embed") || has(b"<applet") {
        look.mark(Mark::ActiveContent, "object in an HTML file");
    }
    look
}

/// What an SVG picture holds.
pub fn look_svg(data: &[u8]) -> Look<'static> {
    let text = narrow(data);
    let has = |what: &[u8]| contains_ignoring_case(&text, what);
    let mut look = Look::default();
    if has(b"<script") || has(b"javascript:") || has(b"<foreignobject") || has(b"<handler") || has_handler(&text) {
        look.mark(Mark::ActiveContent, "script in an SVG picture");
    }
    look
}

/// An attribute that runs: `onload=`, `onclick =`.
fn has_handler(text: &[u8]) -> bool {
    memchr::memchr2_iter(b'o', b'O', text).any(|at| {
        let before = at.checked_sub(1).and_then(|at| text.get(at));
        let after = text.get(at + 1..).unwrap_or_default();
        let is_on = after.first().is_some_and(|byte| byte.eq_ignore_ascii_case(&b'n'));
        if !is_on || !before.is_some_and(|byte| byte.is_ascii_whitespace() || b"/\"'".contains(byte)) {
            return false;
        }
        let word = after.get(1..).unwrap_or_default();
        let length = word.iter().take(30).take_while(|byte| byte.is_ascii_alphabetic()).count();
        let then = word.get(length..).unwrap_or_default();
        let then = then.get(..10).unwrap_or(then).trim_ascii_start();
        length >= 3 && then.first() == Some(&b'=')
    })
}

/// Without the NULs of UTF-16.
fn narrow(data: &[u8]) -> Cow<'_, [u8]> {
    if data.starts_with(b"\xff\xfe") || data.starts_with(b"\xfe\xff") {
        return Cow::Owned(data.iter().copied().filter(|byte| *byte != 0).collect());
    }
    Cow::Borrowed(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_and_forms() {
        let html = |text: &[u8]| look_html(text).marks.first().map(|(_, what)| *what);
        assert_eq!(html(b"<html><b>only text, once on = off</b>"), None);
        assert_eq!(html(b"<html><SCRIPT>x"), Some("script in an HTML file"));
        assert_eq!(html(b"<img src=x onerror = y>"), Some("script in an HTML file"));
        assert_eq!(html(b"\xff\xfe<\0s\0c\0r\0i\0p\0t\0"), Some("script in an HTML file"));
        assert_eq!(html(b"<meta http-equiv=\"Refresh\" content=0>"), Some("HTML file that leads elsewhere"));
        assert_eq!(html(b"<input type=password>"), Some("HTML file that asks for a password"));
        assert!(look_svg(b"<svg><path d='M0'/></svg>").marks.is_empty());
        assert!(!look_svg(b"<svg onload=\"x()\">").marks.is_empty());
    }
}
