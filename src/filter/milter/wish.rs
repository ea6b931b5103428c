//! From a milter's words to what we do: decisions, statuses and harmless header fields. Pure.

use mail::{Enhanced, Status};
use policy::ExternalWish;

use super::proto::Response;
use crate::verdict::{EXTERNAL_DEFER, EXTERNAL_REJECT};

/// The decisions among the responses.
pub(super) fn wish_of(response: &Response) -> Option<ExternalWish> {
    match response {
        Response::Reject => Some(ExternalWish::Reject(EXTERNAL_REJECT)),
        Response::TempFail => Some(ExternalWish::Defer(EXTERNAL_DEFER)),
        Response::Discard => Some(ExternalWish::Quarantine { reason: "discarded by an external milter".into() }),
        Response::ReplyCode(line) => Some(of_reply(&text(line))),
        Response::Negotiate(_)
        | Response::Continue
        | Response::Accept
        | Response::Skip
        | Response::Progress
        | Response::Quarantine(_)
        | Response::AddHeader { .. }
        | Response::InsertHeader { .. }
        | Response::ChangeHeader { .. }
        | Response::AddRecipient(_)
        | Response::AddRecipientWith(_)
        | Response::DeleteRecipient(_)
        | Response::ReplaceBody(_)
        | Response::ChangeFrom(_)
        | Response::Shutdown
        | Response::ConnectionFailed => None,
    }
}

/// `550 5.7.1 text`, perhaps of several lines (the first counts), `%` doubled. What is no 4xx or 5xx is a defer:
/// the milter wanted something, and it was not to accept.
fn of_reply(line: &str) -> ExternalWish {
    let line = line.lines().next().unwrap_or_default().replace("%%", "%");
    let code = line.get(..3).and_then(|code| code.parse::<u16>().ok()).unwrap_or(0);
    let rest = line.get(4..).unwrap_or_default();
    let (class, fallback) = if (500..600).contains(&code) { (5, EXTERNAL_REJECT) } else { (4, EXTERNAL_DEFER) };
    let status = if (400..600).contains(&code) {
        let (first, after) = rest.split_once(' ').unwrap_or((rest, ""));
        let (enhanced, message) = match enhanced_code(first) {
            Some(enhanced) if enhanced.0 == class => (enhanced, after),
            _ => (Enhanced(class, 7, 1), rest),
        };
        let message: String = message.chars().take(400).collect();
        Status::with_text(code, enhanced, &message)
    } else {
        fallback
    };
    if class == 5 { ExternalWish::Reject(status) } else { ExternalWish::Defer(status) }
}

fn enhanced_code(text: &str) -> Option<Enhanced> {
    let mut parts = text.split('.');
    let code = Enhanced(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(code)
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Letters of a field name only: a milter cannot smuggle a second field in.
pub(super) fn field_name(name: &[u8]) -> String {
    text(name).chars().filter(|c| c.is_ascii_graphic() && *c != ':').collect()
}

/// Folds become CRLF and white space; nothing else can end the line. The space after the colon is not part of it.
pub(super) fn field_value(value: &[u8]) -> String {
    let value = text(value);
    let value = value.strip_prefix(' ').unwrap_or(&value);
    let lines: Vec<&str> =
        value.split('\n').map(|line| line.trim_end_matches('\r')).filter(|line| !line.trim().is_empty()).collect();
    let mut out = String::new();
    for (at, line) in lines.iter().enumerate() {
        if at > 0 {
            out.push_str(if line.starts_with([' ', '\t']) { "\r\n" } else { "\r\n\t" });
        }
        out.extend(line.chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_become_statuses() {
        for (line, written) in [
            ("550 5.7.1 go %% away", "550 5.7.1 go % away"),
            ("451 4.7.1 later", "451 4.7.1 later"),
            ("554 no code", "554 5.7.1 no code"),
            ("550 4.7.1 mixed", "550 5.7.1 4.7.1 mixed"),
            ("550 5.7.1 first\r\n550 second", "550 5.7.1 first"),
            ("250 fine", "451 4.7.1 Message could not be checked now, try again later"),
            ("", "451 4.7.1 Message could not be checked now, try again later"),
        ] {
            let (ExternalWish::Reject(status) | ExternalWish::Defer(status)) = of_reply(line) else { panic!("{line}") };
            assert_eq!(status.to_string(), written);
        }
    }

    #[test]
    fn fields_cannot_break_out() {
        assert_eq!(field_name(b"X-A: b\r\nX-C"), "X-AbX-C");
        assert_eq!(field_value(b" a"), "a");
        assert_eq!(field_value(b"a\n b\nX-Evil: c\r\n\r\nbody"), "a\r\n b\r\n\tX-Evil: c\r\n\tbody");
    }
}
