//! `Authentication-Results` (RFC 8601): ours to write, and those that pretend to be ours.

use std::fmt::Write;

use mail::HeaderField;

use crate::verify::{AuthOutcome, AuthResult, SpfIdentity};

/// The whole field with its line end, one method per line. `authserv_id` is our own name.
pub fn authentication_results(authserv_id: &str, outcome: &AuthOutcome) -> String {
    let mut out = format!("Authentication-Results: {}", pvalue(authserv_id));
    if let Some(spf) = &outcome.spf {
        let property = match spf.identity {
            SpfIdentity::MailFrom => "mailfrom",
            SpfIdentity::Helo => "helo",
        };
        method(&mut out, "spf", spf.result);
        let _ = write!(out, " smtp.{property}={}", pvalue(&spf.domain));
    }
    if outcome.dkim.is_empty() {
        method(&mut out, "dkim", AuthResult::None);
    }
    for dkim in &outcome.dkim {
        method(&mut out, "dkim", dkim.result);
        if let Some(reason) = &dkim.reason {
            let _ = write!(out, " reason={}", quoted(reason));
        }
        for (property, value) in [("d", dkim.domain.as_str()), ("s", &dkim.selector), ("a", dkim.algorithm)] {
            if !value.is_empty() {
                let _ = write!(out, " header.{property}={}", pvalue(value));
            }
        }
    }
    method(&mut out, "dmarc", outcome.dmarc.result);
    if !outcome.dmarc.domain.is_empty() {
        let policy = outcome.dmarc.policy.as_str();
        let _ = write!(out, " header.from={} policy.dmarc={policy}", pvalue(&outcome.dmarc.domain));
    }
    if outcome.arc.result != AuthResult::None {
        method(&mut out, "arc", outcome.arc.result);
        if let Some(sealer) = &outcome.arc.sealer {
            let _ = write!(out, " header.d={}", pvalue(sealer));
        }
    }
    if let Some(iprev) = &outcome.iprev {
        method(&mut out, "iprev", iprev.result);
        let _ = write!(out, " policy.iprev={}", pvalue(&iprev.ip.to_string()));
    }
    out.push_str("\r\n");
    out
}

/// True if an incoming field claims to be from `authserv_id` and must be removed (RFC 8601 §5). A field whose
/// author cannot be read is removed, too: another reader might read it as ours.
pub fn is_forged(field: &HeaderField<'_>, authserv_id: &str) -> bool {
    field.is("Authentication-Results")
        && claimed_authserv_id(field.value).is_none_or(|claimed| claimed.eq_ignore_ascii_case(authserv_id.as_bytes()))
}

fn method(out: &mut String, name: &str, result: AuthResult) {
    let _ = write!(out, ";\r\n\t{name}={}", result.as_str());
}

/// RFC 8601 §2.2 `pvalue`: bare where allowed, else in quotes. What comes from outside is cut at 255 characters.
fn pvalue(text: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-._@+:!#$%&'*^`{|}~".contains(&byte);
    if !text.is_empty() && text.len() <= 255 && text.bytes().all(|byte| bare(byte) && byte != b':') {
        text.to_owned()
    } else {
        quoted(text)
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars().take(255) {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            _ if character.is_control() => out.push(' '),
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}

/// The first value of the field, after comments and white space; `None` if there is no readable one.
fn claimed_authserv_id(value: &[u8]) -> Option<Vec<u8>> {
    let mut rest = value;
    let mut depth = 0usize;
    loop {
        let (&first, tail) = rest.split_first()?;
        match first {
            b'(' => depth += 1,
            b')' if depth > 0 => depth -= 1,
            b'\\' if depth > 0 => {
                rest = tail.get(1..)?;
                continue;
            }
            _ if depth > 0 || first.is_ascii_whitespace() => {}
            b'"' => return unquoted(tail),
            _ => {
                let end = rest.iter().position(|b| b.is_ascii_whitespace() || matches!(b, b';' | b'(' | b'"'));
                let token = rest.get(..end.unwrap_or(rest.len()))?;
                return (!token.is_empty()).then(|| token.strip_suffix(b".").unwrap_or(token).to_vec());
            }
        }
        rest = tail;
    }
}

fn unquoted(rest: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut bytes = rest.iter();
    loop {
        match bytes.next()? {
            b'"' => return Some(out),
            b'\\' => out.push(*bytes.next()?),
            b'\r' | b'\n' => {}
            byte => out.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::{ArcOutcome, DkimOutcome, DmarcOutcome, DmarcPolicy, IprevOutcome, SpfOutcome};
    use mail::HeaderFields;

    #[test]
    fn nothing_to_say_is_said() {
        let text = authentication_results("mx.example.test", &AuthOutcome::default());
        assert_eq!(text, "Authentication-Results: mx.example.test;\r\n\tdkim=none;\r\n\tdmarc=none\r\n");
    }

    #[test]
    fn every_method_has_its_line_and_values_are_safe() {
        let outcome = AuthOutcome {
            spf: Some(SpfOutcome {
                result: AuthResult::SoftFail,
                identity: SpfIdentity::Helo,
                domain: "a b\r\nX-Evil: \"1".into(),
            }),
            dkim: vec![DkimOutcome {
                result: AuthResult::Fail,
                domain: "example.org".into(),
                selector: "s1".into(),
                algorithm: "rsa-sha256",
                reason: Some("no \"match\"".into()),
            }],
            dmarc: DmarcOutcome {
                result: AuthResult::Fail,
                domain: "example.org".into(),
                policy: DmarcPolicy::Reject,
                ..DmarcOutcome::default()
            },
            arc: ArcOutcome {
                result: AuthResult::Pass,
                sets: 1,
                sealer: Some("list.example".into()),
                ..ArcOutcome::default()
            },
            iprev: Some(IprevOutcome { result: AuthResult::Pass, ip: "2001:db8::1".parse().unwrap(), name: None }),
            is_vouched: false,
        };
        assert_eq!(
            authentication_results("mx.example.test", &outcome),
            "Authentication-Results: mx.example.test;\r\n\
             \tspf=softfail smtp.helo=\"a b  X-Evil: \\\"1\";\r\n\
             \tdkim=fail reason=\"no \\\"match\\\"\" header.d=example.org header.s=s1 header.a=rsa-sha256;\r\n\
             \tdmarc=fail header.from=example.org policy.dmarc=reject;\r\n\
             \tarc=pass header.d=list.example;\r\n\
             \tiprev=pass policy.iprev=\"2001:db8::1\"\r\n"
        );
    }

    #[test]
    fn forged_fields_are_found_however_they_are_written() {
        for (field, forged) in [
            ("Authentication-Results: mx.example.test; spf=pass\r\n", true),
            ("authentication-results : MX.Example.Test;spf=pass\r\n", true),
            ("Authentication-Results:\r\n mx.example.test 1; spf=pass\r\n", true),
            ("Authentication-Results: (a (nested \\) one)) mx.example.test; spf=pass\r\n", true),
            ("Authentication-Results: \"mx.example\\.test\"; spf=pass\r\n", true),
            ("Authentication-Results: mx.example.test.; spf=pass\r\n", true),
            ("Authentication-Results: mx.example.test(x); spf=pass\r\n", true),
            ("Authentication-Results: ; spf=pass\r\n", true),
            ("Authentication-Results: (open mx.other\r\n", true),
            ("Authentication-Results: mx.other.test; spf=pass\r\n", false),
            ("Authentication-Results: not.mx.example.test; spf=pass\r\n", false),
            ("X-Authentication-Results: mx.example.test; spf=pass\r\n", false),
        ] {
            let field_of = HeaderFields::of(field.as_bytes()).next().unwrap();
            assert_eq!(is_forged(&field_of, "mx.example.test"), forged, "{field}");
        }
    }
}
