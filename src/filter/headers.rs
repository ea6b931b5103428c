//! `X-Spam-*`: what the recipient's own filters and people read.

use std::fmt::Write;

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
pub const OWN_FIELDS: [&str; 3] = ["X-Spam-Status", "X-Spam-Score", "X-Spam-Flag"];

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
    for (at, finding) in findings.iter().take(TESTS_MAX).enumerate() {
        let name: String = finding.name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(100).collect();
        let test = format!("{}{name}={}", if at == 0 { "" } else { "," }, finding.score);
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
        let decision = Decision { disposition, cause: Cause::Nothing, score: Score(3000) };
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
    fn many_tests_fold() {
        let many: Vec<Finding> = (0..1000).map(|at| finding(&format!("RULE_NUMBER_{at}"))).collect();
        let text = fields(&many, Disposition::Deliver);
        assert!(text.lines().all(|line| line.len() <= 78) && text.contains("RULE_NUMBER_199="), "{text}");
        assert!(!text.contains("RULE_NUMBER_200="));
    }
}
