//! Who sent a message, and what of it is proven.

use std::sync::Arc;

use mail::HeaderFields;
use mailauth::{AuthOutcome, AuthResult, SpfIdentity};
use policy::SenderFacts;

use crate::facts::MessageFacts;
use crate::rules::mailbox;
use crate::url::registered_domain;

/// `auth`: `None` where senders are not checked, which proves nothing.
pub(crate) fn of(facts: &MessageFacts, auth: Option<&AuthOutcome>) -> SenderFacts {
    let author = author(&facts.message);
    let domain = author.as_deref().and_then(|author| author.rsplit_once('@')).map(|(_, domain)| domain);
    let spf = auth.and_then(|auth| auth.spf.as_ref()).filter(|spf| spf.identity == SpfIdentity::MailFrom);
    SenderFacts {
        is_author_proven: auth.zip(domain).is_some_and(|(auth, domain)| is_proven(auth, domain)),
        author,
        envelope: facts.envelope.reverse_path.address().map(|address| address.to_string().to_lowercase().into()),
        is_envelope_proven: spf.is_some_and(|spf| spf.result == AuthResult::Pass),
        client: facts.source.client_ip(),
    }
}

/// The one author's address in lower case.
fn author(message: &[u8]) -> Option<Arc<str>> {
    let mut fields = HeaderFields::of(message).filter(|field| field.is("From"));
    let (field, None) = (fields.next()?, fields.next()) else { return None };
    let entries = mailbox::parse(&String::from_utf8_lossy(&field.unfolded()));
    let mut addresses = entries.into_iter().filter_map(|entry| entry.address);
    match (addresses.next(), addresses.next()) {
        (Some(address), None) => Some(address.to_lowercase().into()),
        _ => None,
    }
}

/// DMARC's word; where the domain publishes nothing, what DMARC would stand on (RFC 9989 §5.3, relaxed alignment).
fn is_proven(auth: &AuthOutcome, domain: &str) -> bool {
    match auth.dmarc.result {
        AuthResult::Pass => true,
        AuthResult::None => {
            let passes = |result, proven: &str| result == AuthResult::Pass && is_aligned(domain, proven);
            let spf = auth.spf.as_ref().filter(|spf| spf.identity == SpfIdentity::MailFrom);
            auth.dkim.iter().any(|dkim| passes(dkim.result, &dkim.domain))
                || spf.is_some_and(|spf| passes(spf.result, &spf.domain))
        }
        AuthResult::Fail
        | AuthResult::SoftFail
        | AuthResult::Neutral
        | AuthResult::TempError
        | AuthResult::PermError => false,
    }
}

/// Both belong to one registered domain.
fn is_aligned(one: &str, other: &str) -> bool {
    let (one, other) = (one.to_lowercase(), other.to_lowercase());
    one == other || registered_domain(&one).is_some_and(|domain| registered_domain(&other) == Some(domain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mailauth::{DkimOutcome, DmarcOutcome, DmarcPolicy, SpfOutcome};

    #[test]
    fn an_author_is_one() {
        for (header, expected) in [
            ("From: Anna <Anna@X.test>\r\n", Some("anna@x.test")),
            ("From: anna@x.test\r\nFrom: bert@x.test\r\n", None),
            ("From: a@x.test, b@x.test\r\n", None),
            ("From: nobody\r\n", None),
            ("From: \"b@y.test\"\r\n\t<a@x.test>\r\n", Some("a@x.test")),
            ("Subject: x\r\n", None),
        ] {
            assert_eq!(author(format!("{header}\r\n").as_bytes()).as_deref(), expected, "{header}");
        }
    }

    #[test]
    fn what_proves_an_author() {
        let dkim = |domain: &str, result| DkimOutcome {
            result,
            domain: domain.into(),
            selector: "s".into(),
            algorithm: "rsa-sha256",
            reason: None,
        };
        let spf = |domain: &str| SpfOutcome {
            result: AuthResult::Pass,
            identity: SpfIdentity::MailFrom,
            domain: domain.into(),
        };
        let dmarc = |result| DmarcOutcome {
            result,
            domain: "mail.shop.test".into(),
            policy: DmarcPolicy::None,
            ..DmarcOutcome::default()
        };
        let proven = |dmarc_result, dkim: Vec<DkimOutcome>, spf| {
            let auth = AuthOutcome { dmarc: dmarc(dmarc_result), dkim, spf, ..AuthOutcome::default() };
            is_proven(&auth, "mail.shop.test")
        };
        use AuthResult::{Fail, None as Absent, Pass, TempError};
        assert!(proven(Pass, vec![], None));
        assert!(
            proven(Absent, vec![dkim("Shop.test", Pass)], None) && proven(Absent, vec![], Some(spf("b.shop.test")))
        );
        assert!(!proven(Absent, vec![dkim("shop.test", Fail), dkim("other.test", Pass)], Some(spf("other.test"))));
        assert!(
            !proven(Fail, vec![dkim("shop.test", Pass)], None) && !proven(TempError, vec![], Some(spf("shop.test")))
        );
    }
}
