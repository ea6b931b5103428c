//! Findings from sender authentication and from how the client introduced itself.

use std::net::IpAddr;

use mail::HeaderFields;
use mailauth::{AuthOutcome, AuthResult, DmarcPolicy};
use policy::{Finding, ReasonClass, Score, Stage};

/// What authentication says, in the order of the stages: connect, mail, end of message.
pub fn by_authentication(auth: &AuthOutcome) -> Vec<Finding> {
    let mut out = Vec::new();
    let mut add_at = |stage, name: &str, score: i32, description: &str, evidence: &str| {
        out.push(Finding { stage, ..finding(name, score, description, evidence) });
    };
    if let Some(iprev) = &auth.iprev {
        let ip = iprev.ip.to_string();
        match iprev.result {
            AuthResult::PermError | AuthResult::None => {
                add_at(Stage::Connect, "RDNS_NONE", 500, "The sending host's address has no name", &ip);
            }
            AuthResult::Fail => {
                add_at(Stage::Connect, "RDNS_MISMATCH", 400, "The sending host's name leads to another address", &ip);
            }
            AuthResult::Pass | AuthResult::SoftFail | AuthResult::Neutral | AuthResult::TempError => {}
        }
    }
    if let Some(spf) = &auth.spf {
        let (name, score, description) = match spf.result {
            AuthResult::Pass => ("SPF_PASS", 0, "SPF: the domain names this host as its sender"),
            AuthResult::Fail => ("SPF_FAIL", 900, "SPF: the domain says this host does not send for it"),
            AuthResult::SoftFail => ("SPF_SOFTFAIL", 700, "SPF: the domain doubts that this host sends for it"),
            AuthResult::Neutral => ("SPF_NEUTRAL", 200, "SPF: the domain says nothing of this host"),
            AuthResult::None => ("SPF_NONE", 0, "SPF: the domain publishes no senders"),
            AuthResult::TempError => ("SPF_TEMPERROR", 0, "SPF: the domain's record could not be fetched"),
            AuthResult::PermError => ("SPF_PERMERROR", 300, "SPF: the domain's record is broken"),
        };
        add_at(Stage::Mail, name, score, description, &spf.domain);
    }
    let mut add = |name: &str, score: i32, description: &str, evidence: &str| {
        add_at(Stage::EndOfMessage, name, score, description, evidence);
    };
    if let Some(first) = auth.dkim.first() {
        add("DKIM_SIGNED", 0, "Carries a DKIM signature, valid or not", &first.domain);
        let valid = auth.dkim.iter().find(|dkim| dkim.result == AuthResult::Pass);
        match (valid, auth.dkim.iter().find(|dkim| dkim.result == AuthResult::TempError)) {
            (Some(valid), _) => add("DKIM_VALID", -100, "DKIM: a signature is valid", &valid.domain),
            (None, Some(late)) => add("DKIM_TEMPERROR", 0, "DKIM: a key could not be fetched", &late.domain),
            (None, None) => add("DKIM_INVALID", 300, "DKIM: no signature is valid", &first.domain),
        }
        let author = &auth.dmarc.domain;
        let by_author = |dkim: &&mailauth::DkimOutcome| {
            dkim.result == AuthResult::Pass && !author.is_empty() && dkim.domain.eq_ignore_ascii_case(author)
        };
        if auth.dkim.iter().any(|dkim| by_author(&dkim)) {
            add("DKIM_VALID_AU", -100, "DKIM: the author's own domain signed", author);
        }
    }
    let domain = &auth.dmarc.domain;
    match (auth.dmarc.result, auth.dmarc.policy) {
        (AuthResult::Pass, _) => add("DMARC_PASS", -100, "DMARC: the author's domain is proven", domain),
        (AuthResult::Fail, _) if auth.is_vouched => {
            let who = auth.arc.chain.first().map_or("", |set| &set.sealer);
            add("DMARC_VOUCHED", 0, "DMARC fails, but a forwarder that you trust saw it pass", who);
        }
        (AuthResult::Fail, DmarcPolicy::Reject) => {
            add("DMARC_REJECT", 3000, "DMARC fails, and the author's domain asks to reject", domain);
        }
        (AuthResult::Fail, DmarcPolicy::Quarantine) => {
            add("DMARC_QUAR", 1500, "DMARC fails, and the author's domain asks to quarantine", domain);
        }
        (AuthResult::Fail, DmarcPolicy::None) => {
            add("DMARC_NONE", 500, "DMARC fails, and the author's domain asks for nothing", domain);
        }
        (AuthResult::TempError, _) => add("DMARC_TEMPERROR", 0, "DMARC could not be checked", domain),
        (AuthResult::PermError, _) => add("DMARC_PERMERROR", 200, "DMARC: the domain's record is broken", domain),
        (AuthResult::None | AuthResult::Neutral | AuthResult::SoftFail, _) => {}
    }
    let sealer = auth.arc.sealer.as_deref().unwrap_or_default();
    match auth.arc.result {
        AuthResult::Pass => add("ARC_VALID", 0, "ARC: the chain of forwarders is intact", sealer),
        AuthResult::Fail | AuthResult::PermError => add("ARC_INVALID", 100, "ARC: the chain is broken", sealer),
        AuthResult::SoftFail | AuthResult::Neutral | AuthResult::None | AuthResult::TempError => {}
    }
    if auth.is_vouched {
        // What forwarding breaks is nobody's fault.
        let broken = ["SPF_FAIL", "SPF_SOFTFAIL", "SPF_NEUTRAL", "DKIM_INVALID"];
        for finding in out.iter_mut().filter(|finding| broken.contains(&&*finding.name)) {
            finding.score = Score::ZERO;
        }
    }
    out
}

/// What the greeting gives away that no rule can know: our own name is not for others to use.
pub fn by_greeting(ip: IpAddr, helo: &str, our_name: &str) -> Option<Finding> {
    let ours = helo.trim_end_matches('.').eq_ignore_ascii_case(our_name) && !ip.is_loopback();
    let seen = || finding("HELO_OURS", 2500, "The sending host greets with our own name", helo);
    ours.then(|| Finding { stage: Stage::Helo, ..seen() })
}

/// Several authors' domains leave DMARC without one to ask (RFC 9989 exempts them), and readers show but one.
pub fn by_author(message: &[u8]) -> Option<Finding> {
    let count = HeaderFields::of(message).filter(|field| field.is("From")).count();
    let seen = || finding("FROM_SEVERAL", 2500, "More than one From field", &count.to_string());
    (count > 1).then(|| Finding { stage: Stage::Header, ..seen() })
}

/// One of the end of the message.
pub(crate) fn finding(name: &str, score: i32, description: &str, evidence: &str) -> Finding {
    Finding {
        stage: Stage::EndOfMessage,
        name: name.into(),
        score: Score(score),
        class: ReasonClass::SenderProof,
        description: description.into(),
        evidence: one_line(evidence),
    }
}

/// At most 200 characters without control characters.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mailauth::{DkimOutcome, DmarcOutcome, IprevOutcome, SpfIdentity, SpfOutcome};

    fn names(findings: &[Finding]) -> Vec<&str> {
        findings.iter().map(|finding| &*finding.name).collect()
    }

    fn dkim(result: AuthResult, domain: &str) -> DkimOutcome {
        DkimOutcome { result, domain: domain.into(), selector: "s".into(), algorithm: "rsa-sha256", reason: None }
    }

    #[test]
    fn each_method_speaks_once() {
        let auth = AuthOutcome {
            spf: Some(SpfOutcome {
                result: AuthResult::Pass,
                identity: SpfIdentity::MailFrom,
                domain: "example.test".into(),
            }),
            dkim: vec![dkim(AuthResult::Fail, "list.test"), dkim(AuthResult::Pass, "Example.test")],
            dmarc: DmarcOutcome {
                result: AuthResult::Pass,
                domain: "example.test".into(),
                policy: DmarcPolicy::Reject,
                ..DmarcOutcome::default()
            },
            ..AuthOutcome::default()
        };
        let findings = by_authentication(&auth);
        assert_eq!(names(&findings), ["SPF_PASS", "DKIM_SIGNED", "DKIM_VALID", "DKIM_VALID_AU", "DMARC_PASS"]);
        assert!(findings.iter().map(|f| f.score).sum::<Score>() < Score::ZERO);
    }

    #[test]
    fn failures_score_and_silence_does_not() {
        let auth = AuthOutcome {
            dkim: vec![dkim(AuthResult::Fail, "example.test")],
            dmarc: DmarcOutcome {
                result: AuthResult::Fail,
                domain: "example.test".into(),
                policy: DmarcPolicy::Reject,
                ..DmarcOutcome::default()
            },
            iprev: Some(IprevOutcome { result: AuthResult::PermError, ip: "192.0.2.1".parse().unwrap(), name: None }),
            ..AuthOutcome::default()
        };
        assert_eq!(names(&by_authentication(&auth)), ["RDNS_NONE", "DKIM_SIGNED", "DKIM_INVALID", "DMARC_REJECT"]);
        let silent = AuthOutcome { dkim: vec![dkim(AuthResult::TempError, "a.test")], ..AuthOutcome::default() };
        assert_eq!(by_authentication(&silent).iter().map(|f| f.score).sum::<Score>(), Score::ZERO);
        assert!(by_authentication(&AuthOutcome::default()).is_empty());
    }

    #[test]
    fn what_forwarding_breaks_is_not_held_against_a_vouched_message() {
        let auth = AuthOutcome {
            spf: Some(SpfOutcome {
                result: AuthResult::Fail,
                identity: SpfIdentity::MailFrom,
                domain: "example.test".into(),
            }),
            dkim: vec![dkim(AuthResult::Fail, "example.test")],
            dmarc: DmarcOutcome {
                result: AuthResult::Fail,
                domain: "example.test".into(),
                policy: DmarcPolicy::Reject,
                ..DmarcOutcome::default()
            },
            is_vouched: true,
            ..AuthOutcome::default()
        };
        let findings = by_authentication(&auth);
        assert_eq!(names(&findings), ["SPF_FAIL", "DKIM_SIGNED", "DKIM_INVALID", "DMARC_VOUCHED"]);
        assert_eq!(findings.iter().map(|f| f.score).sum::<Score>(), Score::ZERO);
    }

    #[test]
    fn nobody_else_has_our_name() {
        let ip = "192.0.2.1".parse().unwrap();
        for (helo, lies) in [("mail.example.test", false), ("MX.Here.test.", true), ("[192.0.2.1]", false)] {
            assert_eq!(by_greeting(ip, helo, "mx.here.test").is_some(), lies, "{helo}");
        }
        assert_eq!(by_greeting("127.0.0.1".parse().unwrap(), "mx.here.test", "mx.here.test"), None);
    }

    #[test]
    fn one_author_is_enough() {
        assert_eq!(by_author(b"From: a@x.test\r\nReply-To: b@x.test\r\n\r\nFrom: c\r\n"), None);
        assert!(by_author(b"From: a@x.test\r\nfrom : b@y.test\r\n\r\n").is_some());
    }
}
