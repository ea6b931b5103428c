//! Mail from outside that says it comes from us.

use std::collections::HashSet;
use std::net::IpAddr;

use arc_swap::ArcSwap;
use mail::{HeaderFields, ReversePath};
use mailauth::{AuthOutcome, AuthResult};
use policy::Finding;

use crate::facts::{MessageFacts, Source};
use crate::proof;
use crate::rules::relays::is_private;

/// The domains that this installation has mailboxes for: lower case, as they stand in the directory. Whoever knows them
/// puts them in, and again when they change.
#[derive(Debug, Default)]
pub struct OwnDomains(ArcSwap<HashSet<String>>);

impl OwnDomains {
    pub fn replace(&self, domains: impl IntoIterator<Item = String>) {
        self.0.store(domains.into_iter().map(|domain| domain.to_ascii_lowercase()).collect::<HashSet<_>>().into());
    }

    fn hold(&self, domain: &str) -> bool {
        self.0.load().contains(&domain.trim_end_matches('.').to_ascii_lowercase())
    }
}

/// `is_trusted`: addresses of our own networks, whose servers may send for us.
pub(crate) fn check(
    own: &OwnDomains,
    facts: &MessageFacts,
    auth: &AuthOutcome,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Vec<Finding> {
    let Source::Client { ip, .. } = &facts.source else { return Vec::new() };
    if is_private(*ip) || is_trusted(*ip) {
        return Vec::new();
    }
    let mut out = Vec::new();
    let author = &auth.dmarc.domain;
    let sender = match &facts.envelope.reverse_path {
        ReversePath::Address(address) => Some(address.domain.to_string()),
        ReversePath::Null => None,
    };
    let claimed = [Some(author.clone()), sender].into_iter().flatten().find(|domain| own.hold(domain));
    if let Some(domain) = claimed
        && !auth.is_vouched
        && !is_proven(auth, &domain)
        && !is_open(auth)
    {
        out.push(proof::finding(
            "OWN_DOMAIN_SPOOFED",
            2500,
            "Comes from outside, names one of our own domains as its sender and cannot prove it",
            &domain,
        ));
    }
    if !own.hold(author)
        && let Some(shown) = shown_address(own, &facts.message)
    {
        out.push(proof::finding("OWN_ADDRESS_SHOWN", 1500, "The sender's name shows one of our own addresses", &shown));
    }
    out
}

/// DMARC, SPF or a signature proves the domain, or one that it lies in.
fn is_proven(auth: &AuthOutcome, domain: &str) -> bool {
    let fits = |proven: &str| {
        let (proven, domain) = (proven.to_ascii_lowercase(), domain.to_ascii_lowercase());
        domain.strip_suffix(&proven).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let dmarc = auth.dmarc.result == AuthResult::Pass && auth.dmarc.domain.eq_ignore_ascii_case(domain);
    let spf = auth.spf.as_ref().is_some_and(|spf| spf.result == AuthResult::Pass && fits(&spf.domain));
    dmarc || spf || auth.dkim.iter().any(|dkim| dkim.result == AuthResult::Pass && fits(&dkim.domain))
}

/// True if DNS did not answer: another time it might be proven.
fn is_open(auth: &AuthOutcome) -> bool {
    let spf = auth.spf.as_ref().is_some_and(|spf| spf.result == AuthResult::TempError);
    let dkim = auth.dkim.iter().any(|dkim| dkim.result == AuthResult::TempError);
    spf || dkim || auth.dmarc.result == AuthResult::TempError
}

/// An address of ours in the author's display name. It may be written in any charset: addresses are ASCII in all of them
/// that count here, but for words in base64, which rules see.
fn shown_address(own: &OwnDomains, message: &[u8]) -> Option<String> {
    let field = HeaderFields::of(message).find(|field| field.is("From"))?;
    let text = String::from_utf8_lossy(&field.unfolded()).into_owned();
    let (name, _) = text.rsplit_once('<')?;
    let words = name.split(|c: char| c.is_whitespace() || "\"'<>(),;:[]".contains(c));
    let ours = |word: &&str| word.rsplit_once('@').is_some_and(|(local, domain)| !local.is_empty() && own.hold(domain));
    words.take(100).find(ours).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use base::UtcMillis;
    use bytes::Bytes;
    use mail::{BodyKind, Envelope};
    use mailauth::{DkimOutcome, DmarcOutcome, DmarcPolicy, SpfIdentity, SpfOutcome};

    use super::*;

    fn facts(ip: &str, sender: &str, from: &str) -> MessageFacts {
        MessageFacts {
            source: Source::Client { ip: ip.parse().unwrap(), helo: "x".into(), tls: false },
            envelope: Envelope {
                reverse_path: sender.parse().map_or(ReversePath::Null, ReversePath::Address),
                forward_paths: Vec::new(),
                body: BodyKind::SevenBit,
                smtputf8: false,
                wishes: mail::Wishes::default(),
            },
            message: Bytes::from(format!("From: {from}\r\n\r\nx\r\n")),
            received_at: UtcMillis(0),
        }
    }

    fn auth(author: &str, spf: AuthResult, dkim: Option<(AuthResult, &str)>) -> AuthOutcome {
        let signature = |(result, domain): (AuthResult, &str)| DkimOutcome {
            result,
            domain: domain.into(),
            selector: "s".into(),
            algorithm: "rsa-sha256",
            reason: None,
        };
        AuthOutcome {
            spf: Some(SpfOutcome { result: spf, identity: SpfIdentity::MailFrom, domain: "here.test".into() }),
            dkim: dkim.map(signature).into_iter().collect(),
            dmarc: DmarcOutcome {
                result: AuthResult::None,
                domain: author.into(),
                policy: DmarcPolicy::None,
                ..DmarcOutcome::default()
            },
            ..AuthOutcome::default()
        }
    }

    fn names(facts: &MessageFacts, auth: &AuthOutcome) -> Vec<String> {
        let own = OwnDomains::default();
        own.replace(["Here.test".to_owned()]);
        let trusted: IpAddr = "198.51.100.1".parse().unwrap();
        check(&own, facts, auth, |ip| ip == trusted).iter().map(|finding| finding.name.to_string()).collect()
    }

    #[test]
    fn who_names_our_domain_from_outside_must_prove_it() {
        use AuthResult::{Fail, None as Nothing, Pass, TempError};
        let spoofed = &["OWN_DOMAIN_SPOOFED"][..];
        for (ip, sender, author, spf, dkim, expected) in [
            ("192.0.2.1", "a@here.test", "here.test", Fail, None, spoofed),
            ("192.0.2.1", "a@here.test", "other.test", Nothing, None, spoofed),
            ("192.0.2.1", "", "HERE.test", Nothing, Some((Fail, "here.test")), spoofed),
            ("192.0.2.1", "", "here.test", Nothing, Some((Pass, "list.test")), spoofed),
            ("192.0.2.1", "a@here.test", "here.test", Pass, None, &[]),
            ("192.0.2.1", "", "here.test", Nothing, Some((Pass, "here.test")), &[]),
            ("192.0.2.1", "a@here.test", "here.test", TempError, None, &[]),
            ("192.0.2.1", "", "here.test", Nothing, Some((TempError, "here.test")), &[]),
            ("192.0.2.1", "a@other.test", "other.test", Fail, None, &[]),
            ("10.0.0.1", "a@here.test", "here.test", Nothing, None, &[]),
            ("198.51.100.1", "a@here.test", "here.test", Nothing, None, &[]),
        ] {
            let seen = names(&facts(ip, sender, "x"), &auth(author, spf, dkim));
            assert_eq!(seen, expected, "{ip} {sender} {author} {spf:?} {dkim:?}");
        }
        let vouched = AuthOutcome { is_vouched: true, ..auth("here.test", Fail, None) };
        assert!(names(&facts("192.0.2.1", "", "x"), &vouched).is_empty());
        let mut submitted = facts("192.0.2.1", "a@here.test", "x");
        submitted.source = Source::Submitter { account: "a".into(), ip: None };
        assert!(names(&submitted, &auth("here.test", Fail, None)).is_empty());
    }

    #[test]
    fn names_that_show_our_addresses() {
        for (from, expected) in [
            ("\"boss@here.test\" <x@evil.test>", true),
            ("Boss (boss@HERE.test) <x@evil.test>", true),
            ("boss@there.test <x@evil.test>", false),
            ("<boss@here.test>", false),
            ("@here.test <x@evil.test>", false),
        ] {
            let seen = names(&facts("192.0.2.1", "x@evil.test", from), &auth("evil.test", AuthResult::Pass, None));
            assert_eq!(seen == ["OWN_ADDRESS_SHOWN"], expected, "{from}: {seen:?}");
        }
    }
}
