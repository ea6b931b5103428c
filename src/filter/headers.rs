//! `X-Spam-*`: what the recipient's own filters and people read.

use std::fmt::Write;

use bytes::Bytes;
use mail::{HeaderField, HeaderFields};
use policy::{Decision, Disposition, Finding, Score};

/// `X-Spam-Status`, `X-Spam-Score` and, where the message is tagged, `X-Spam-Flag`: whole fields with their line
/// ends, for one recipient. `required` is this recipient's tag score.
pub fn spam_fields(findings: &[Finding], decision: &Decision, required: Score) -> String {
    let mut out = String::new();
    for (name, value) in spam_values(findings, decision, required) {
        let _ = write!(out, "{name}: {value}\r\n");
    }
    out
}

/// The same as names and folded values (CRLF and a tab at each fold), for callers that add fields one by one.
pub fn spam_values(findings: &[Finding], decision: &Decision, required: Score) -> Vec<(&'static str, String)> {
    let tagged = is_tagged(&decision.disposition);
    let mut out = vec![
        ("X-Spam-Status", status(findings, decision.score, required, tagged)),
        ("X-Spam-Score", decision.score.to_string()),
    ];
    if tagged {
        out.push(("X-Spam-Flag", "YES".to_owned()));
    }
    out
}

/// The incoming fields that only we may write.
pub(crate) const OWN_FIELDS: [&str; 3] = ["X-Spam-Status", "X-Spam-Score", "X-Spam-Flag"];

/// Which of the fields that only we may write a message keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keeps {
    Nothing,
    /// The spam verdict that it came with.
    Verdict,
}

/// The message without the fields that only we may write, the rest octet for octet; the same bytes if it has none.
/// `host_name`: ours, in whose name nobody else may write `Authentication-Results`.
pub fn without_own_fields(message: &Bytes, host_name: &str, keeps: Keeps) -> Bytes {
    let goes = |field: &HeaderField<'_>| {
        mailauth::is_forged(field, host_name) || (keeps == Keeps::Nothing && OWN_FIELDS.iter().any(|own| field.is(own)))
    };
    if !HeaderFields::of(message).any(|field| goes(&field)) {
        return message.clone();
    }
    let mut out = Vec::with_capacity(message.len());
    let mut end = 0;
    for field in HeaderFields::of(message) {
        if !goes(&field) {
            out.extend_from_slice(field.raw);
        }
        end = field.offset + field.raw.len();
    }
    out.extend_from_slice(message.get(end..).unwrap_or_default());
    out.into()
}

const fn is_tagged(disposition: &Disposition) -> bool {
    match disposition {
        Disposition::Deliver | Disposition::Defer(_) => false,
        Disposition::DeliverTagged { .. } | Disposition::Junk | Disposition::Quarantine | Disposition::Reject(_) => {
            true
        }
    }
}

/// `Yes, score=7.5 required=4.0 tests=NAME=score,...`, folded between tests.
fn status(findings: &[Finding], score: Score, required: Score, tagged: bool) -> String {
    let mut out = format!("{}, score={score} required={required}", if tagged { "Yes" } else { "No" });
    let mut line = "\r\n\ttests=".to_owned();
    if findings.is_empty() {
        line.push_str("none");
    }
    let told = findings.len().min(TESTS_MAX);
    for (at, finding) in findings.iter().take(told).enumerate() {
        let name: String = finding.name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(100).collect();
        let test = format!("{name}={}{}", finding.score, if at + 1 < told { "," } else { "" });
        if line.len() + test.len() > LINE_MAX {
            out.push_str(&line);
            line = "\r\n\t".to_owned();
        }
        line.push_str(&test);
    }
    out.push_str(&line);
    out
}

const LINE_MAX: usize = 76;
/// A rule set with thousands of hits must not make a header that others refuse.
const TESTS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use policy::{Cause, ReasonClass};

    fn finding(name: &str) -> Finding {
        Finding {
            stage: policy::Stage::Body,
            name: name.into(),
            score: Score(1500),
            class: ReasonClass::Content,
            description: "x".into(),
            evidence: String::new(),
        }
    }

    fn fields(findings: &[Finding], disposition: Disposition) -> String {
        let decision = Decision { disposition, cause: Cause::Nothing, score: Score(3000), hit: None };
        spam_fields(findings, &decision, Score::points(4))
    }

    #[test]
    fn clean_and_tagged() {
        assert_eq!(
            fields(&[], Disposition::Deliver),
            "X-Spam-Status: No, score=3.0 required=4.0\r\n\ttests=none\r\nX-Spam-Score: 3.0\r\n"
        );
        assert_eq!(
            fields(&[finding("A_1"), finding("B\r\nX: y")], Disposition::Junk),
            "X-Spam-Status: Yes, score=3.0 required=4.0\r\n\ttests=A_1=1.5,BXy=1.5\r\n\
             X-Spam-Score: 3.0\r\nX-Spam-Flag: YES\r\n"
        );
    }

    #[test]
    fn forged_fields_go_and_the_rest_stays_octet_for_octet() {
        let check = |message: &str, keeps, expected: &str| {
            let out = without_own_fields(&Bytes::from(message.to_owned()), "mx.test", keeps);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        };
        for message in [
            "A: 1\r\n\r\nbody\r\n",
            "\r\nbody",
            "A: 1\r\n",
            "nonsense\r\nB: \u{e4}\r\n x\r\n\r\n",
            "Authentication-Results: other.test; spf=pass\r\n\r\nb",
        ] {
            check(message, Keeps::Nothing, message);
        }
        let forged = "X-Spam-Flag: NO\r\nA: 1\r\nAuthentication-Results: mx.test;\r\n spf=pass\r\n\r\nb";
        check(forged, Keeps::Nothing, "A: 1\r\n\r\nb");
        check(forged, Keeps::Verdict, "X-Spam-Flag: NO\r\nA: 1\r\n\r\nb");
        check("X-Spam-Flag: NO\r\n", Keeps::Nothing, "");
    }

    #[test]
    fn many_tests_fold() {
        let many: Vec<Finding> = (0..1000).map(|at| finding(&format!("RULE_NUMBER_{at}"))).collect();
        let text = fields(&many, Disposition::Deliver);
        assert!(text.lines().all(|line| line.len() <= 78) && text.contains("RULE_NUMBER_199="), "{text}");
        assert!(text.contains(",\r\n\tRULE_") && !text.contains("\t,"), "{text}");
        assert!(!text.contains("RULE_NUMBER_200="));
    }
}
