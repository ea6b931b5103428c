use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_auth::AuthenticationResults;
use mail_auth::arc::ArcSealer;
use mail_auth::crypto::{Ed25519Key, RsaKey, Sha256};
use mail_auth::dkim::DkimSigner;
use mail_auth::headers::HeaderWriter;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use super::*;
use crate::resolver::{ResolverSettings, Unresolved};
use crate::stub::StubServer;

const MESSAGE: &str = "From: Anna <anna@example.test>\r\nTo: ben@other.test\r\nSubject: Hello\r\n\
                       Date: Mon, 23 Nov 2026 10:00:00 +0000\r\n\r\nGood morning.\r\n";
const LIMIT: Duration = Duration::from_secs(10);

fn rsa() -> RsaKey<Sha256> {
    let pem = include_bytes!("testdata/rsa.pem");
    RsaKey::from_key_der(PrivateKeyDer::from_pem_slice(pem).unwrap()).unwrap()
}

fn rsa_record(name: &str) -> String {
    format!("{name} TXT v=DKIM1; k=rsa; p={}\n", STANDARD.encode(rsa().public_key()))
}

fn resolver(server: &StubServer) -> Resolver {
    let settings = ResolverSettings {
        name_servers: vec![server.address()],
        query_timeout: Duration::from_millis(300),
        ..ResolverSettings::default()
    };
    Resolver::new(&settings).unwrap()
}

fn facts(ip: &str, sender: &str) -> ConnectionFacts {
    ConnectionFacts {
        ip: Some(ip.parse().unwrap()),
        helo: "mail.example.test".into(),
        reverse_path: sender.parse().map_or(ReversePath::Null, ReversePath::Address),
        host_name: "mx.here.test".into(),
    }
}

async fn outcome(zone: &str, ip: &str, sender: &str, message: &str) -> AuthOutcome {
    let server = StubServer::start(zone);
    let message = Bytes::copy_from_slice(message.as_bytes());
    verify(&resolver(&server), &facts(ip, sender), None, &message, LIMIT).await
}

#[tokio::test]
async fn spf_has_every_result() {
    let zone = "\
        example.test TXT v=spf1 ip4:192.0.2.1 mx include:included.test -all\n\
        example.test MX 10 mx.example.test\n\
        mx.example.test A 192.0.2.2\n\
        included.test TXT v=spf1 ip6:2001:db8::1 -all\n\
        soft.test TXT v=spf1 ~all\n\
        neutral.test TXT v=spf1 ?all\n\
        broken.test TXT v=spf1 ip4:not-an-address -all\n\
        fails.test SERVFAIL\n\
        silent.test TIMEOUT\n\
        mail.example.test TXT v=spf1 ip4:192.0.2.9 -all\n";
    for (ip, sender, expected, domain) in [
        ("192.0.2.1", "a@example.test", AuthResult::Pass, "example.test"),
        ("192.0.2.2", "a@example.test", AuthResult::Pass, "example.test"),
        ("2001:db8::1", "a@example.test", AuthResult::Pass, "example.test"),
        ("192.0.2.3", "a@example.test", AuthResult::Fail, "example.test"),
        ("192.0.2.1", "a@soft.test", AuthResult::SoftFail, "soft.test"),
        ("192.0.2.1", "a@neutral.test", AuthResult::Neutral, "neutral.test"),
        ("192.0.2.1", "a@broken.test", AuthResult::PermError, "broken.test"),
        ("192.0.2.1", "a@fails.test", AuthResult::TempError, "fails.test"),
        ("192.0.2.1", "a@silent.test", AuthResult::TempError, "silent.test"),
        ("192.0.2.1", "a@absent.test", AuthResult::None, "absent.test"),
        ("192.0.2.9", "", AuthResult::Pass, "mail.example.test"),
        ("192.0.2.8", "", AuthResult::Fail, "mail.example.test"),
    ] {
        let spf = outcome(zone, ip, sender, MESSAGE).await.spf.unwrap();
        assert_eq!((spf.result, spf.domain.as_str()), (expected, domain), "{ip} {sender}");
        assert_eq!(spf.identity == SpfIdentity::Helo, sender.is_empty());
    }
}

#[tokio::test]
async fn without_a_client_there_is_no_spf_and_no_reverse_name() {
    let server = StubServer::start("example.test TXT v=spf1 -all\n");
    let facts = ConnectionFacts { ip: None, ..facts("192.0.2.1", "a@example.test") };
    let outcome = verify(&resolver(&server), &facts, None, &Bytes::from_static(MESSAGE.as_bytes()), LIMIT).await;
    assert_eq!((outcome.spf, outcome.iprev), (None, None));
}

#[tokio::test]
async fn signatures_pass_and_fail() {
    let pkcs8 = Ed25519Key::generate_pkcs8().unwrap();
    let ed = Ed25519Key::from_pkcs8_der(&pkcs8).unwrap();
    let zone = rsa_record("rsa._domainkey.example.test")
        + &format!("ed._domainkey.example.test TXT v=DKIM1; k=ed25519; p={}\n", STANDARD.encode(ed.public_key()))
        + "fails._domainkey.example.test SERVFAIL\nrevoked._domainkey.example.test TXT v=DKIM1; p=\n";
    let headers = ["From", "To", "Subject", "Date"];
    let sign_rsa = |selector: &str| {
        let signer = DkimSigner::from_key(rsa()).domain("example.test").selector(selector).headers(headers);
        signer.sign(MESSAGE.as_bytes()).unwrap().to_header()
    };
    let sign_ed = DkimSigner::from_key(ed).domain("example.test").selector("ed").headers(headers);
    let by_ed = sign_ed.sign(MESSAGE.as_bytes()).unwrap().to_header();
    let both = format!("{}{by_ed}{MESSAGE}", sign_rsa("rsa"));
    let check = async |message: &str, expected: &[(AuthResult, &str)]| {
        let dkim = outcome(&zone, "192.0.2.1", "", message).await.dkim;
        let got: Vec<_> = dkim.iter().map(|d| (d.result, d.selector.as_str())).collect();
        assert_eq!(got, expected);
    };
    check(&both, &[(AuthResult::Pass, "rsa"), (AuthResult::Pass, "ed")]).await;
    let changed_body = both.replace("Good morning", "Good evening");
    check(&changed_body, &[(AuthResult::Fail, "rsa"), (AuthResult::Fail, "ed")]).await;
    let changed_subject = both.replace("Hello", "Hallo");
    check(&changed_subject, &[(AuthResult::Fail, "rsa"), (AuthResult::Fail, "ed")]).await;
    let with = |selector: &str| sign_rsa(selector) + MESSAGE;
    check(&with("fails"), &[(AuthResult::TempError, "fails")]).await;
    check(&with("revoked"), &[(AuthResult::PermError, "revoked")]).await;
    check(&with("absent"), &[(AuthResult::PermError, "absent")]).await;
    check(MESSAGE, &[]).await;
    let many = sign_rsa("rsa").repeat(SIGNATURES_MAX + 20) + MESSAGE;
    assert_eq!(outcome(&zone, "192.0.2.1", "", &many).await.dkim.len(), SIGNATURES_MAX);
}

#[tokio::test]
async fn a_long_message_is_checked_too() {
    let long = MESSAGE.to_owned() + &"0123456789\r\n".repeat(INLINE_MAX / 8);
    let signer = DkimSigner::from_key(rsa()).domain("example.test").selector("rsa").headers(["From"]);
    let signed = signer.sign(long.as_bytes()).unwrap().to_header() + &long;
    let dkim = outcome(&rsa_record("rsa._domainkey.example.test"), "192.0.2.1", "", &signed).await.dkim;
    assert_eq!(dkim.first().map(|d| d.result), Some(AuthResult::Pass));
}

#[tokio::test]
async fn dmarc_asks_for_an_aligned_proof() {
    let zone = rsa_record("rsa._domainkey.example.test")
        + "_dmarc.example.test TXT v=DMARC1; p=reject\n\
           example.test TXT v=spf1 ip4:192.0.2.1 -all\n\
           other.test TXT v=spf1 ip4:192.0.2.1 -all\n";
    let dmarc = async |ip: &str, sender: &str, message: &str| {
        let dmarc = outcome(&zone, ip, sender, message).await.dmarc;
        (dmarc.result, dmarc.policy, dmarc.domain)
    };
    let example = || "example.test".to_owned();
    let reject = DmarcPolicy::Reject;
    assert_eq!(dmarc("192.0.2.1", "a@example.test", MESSAGE).await, (AuthResult::Pass, reject, example()));
    // SPF passes, for somebody else.
    assert_eq!(dmarc("192.0.2.1", "a@other.test", MESSAGE).await, (AuthResult::Fail, reject, example()));
    let signer = DkimSigner::from_key(rsa()).domain("example.test").selector("rsa").headers(["From"]);
    let signed = signer.sign(MESSAGE.as_bytes()).unwrap().to_header() + MESSAGE;
    assert_eq!(dmarc("192.0.2.66", "a@other.test", &signed).await, (AuthResult::Pass, reject, example()));
    let elsewhere = MESSAGE.replace("anna@example.test", "anna@other.test");
    assert_eq!(dmarc("192.0.2.1", "a@other.test", &elsewhere).await.0, AuthResult::None);
}

#[tokio::test]
async fn a_chain_of_seals_is_followed() {
    let server = StubServer::start(&rsa_record("arc._domainkey.list.test"));
    let resolver = resolver(&server);
    let mut message = MESSAGE.to_owned();
    for _ in 0..2 {
        let parsed = AuthenticatedMessage::parse(message.as_bytes()).unwrap();
        let before = resolver.authenticator().verify_arc(resolver.cached(&parsed)).await;
        let results = AuthenticationResults::new("list.test");
        let sealer = ArcSealer::from_key(rsa()).domain("list.test").selector("arc").headers(["From", "Subject"]);
        let set = sealer.seal(&parsed, &results, &before).unwrap().to_header();
        message = set + &message;
    }
    let arc =
        async |text: String| verify(&resolver, &facts("192.0.2.1", ""), None, &Bytes::from(text), LIMIT).await.arc;
    let whole = arc(message.clone()).await;
    assert_eq!((whole.result, whole.sets, whole.sealer.as_deref()), (AuthResult::Pass, 2, Some("list.test")));
    assert!(whole.chain.len() == 2 && whole.chain.iter().all(|set| set.sealer == "list.test"), "{whole:?}");
    let broken = arc(message.replace("Good morning", "Bad morning")).await;
    assert_eq!((broken.result, broken.chain), (AuthResult::Fail, Vec::new()));
    assert_eq!(arc(MESSAGE.into()).await, ArcOutcome::default());
}

/// A message that a forwarder changed, after it had seen it pass.
async fn forwarded(resolver: &Resolver, domain: &str, says: &str) -> String {
    let changed = MESSAGE.replace("Good morning.", "Good morning.\r\n-- \r\nThe list");
    let parsed = AuthenticatedMessage::parse(changed.as_bytes()).unwrap();
    let before = resolver.authenticator().verify_arc(resolver.cached(&parsed)).await;
    // The library writes results of its own making only: these ride behind the name.
    let named = if says.is_empty() { domain.to_owned() } else { format!("{domain}; {says}") };
    let results = AuthenticationResults::new(&named);
    let sealer = ArcSealer::from_key(rsa()).domain(domain).selector("arc").headers(["From", "Subject"]);
    sealer.seal(&parsed, &results, &before).unwrap().to_header() + &changed
}

#[tokio::test]
async fn a_trusted_forwarder_vouches_for_what_it_saw() {
    let zone = rsa_record("arc._domainkey.list.test") + "_dmarc.example.test TXT v=DMARC1; p=reject\n";
    let server = StubServer::start(&zone);
    let resolver = resolver(&server);
    let outcome = async |says: &str, trusted: &str, change: (&str, &str)| {
        let message = forwarded(&resolver, "list.test", says).await.replace(change.0, change.1);
        let facts = facts("192.0.2.1", "a@list.test");
        let mut outcome = verify(&resolver, &facts, None, &Bytes::from(message), LIMIT).await;
        outcome.trust_sealers(&[trusted.to_owned()]);
        assert_eq!(outcome.dmarc.result, AuthResult::Fail, "the result stays");
        outcome.is_vouched
    };
    let nothing = ("", "");
    let pass = "dmarc=pass header.from=example.test";
    assert!(outcome(pass, "List.test", nothing).await);
    assert!(!outcome(pass, "other.test", nothing).await);
    assert!(!outcome("dmarc=fail header.from=example.test", "list.test", nothing).await);
    assert!(!outcome("", "list.test", nothing).await);
    assert!(!outcome(pass, "list.test", ("The list", "Not the list")).await);
    assert!(!outcome("dmarc=fail header.from=example.test", "list.test", ("dmarc=fail", "dmarc=pass")).await);
}

/// RFC 9989 §4.10: the tree is walked instead of a list of suffixes.
#[tokio::test]
async fn dmarc_walks_the_tree() {
    let zone = "\
        _dmarc.example.test TXT v=DMARC1; p=quarantine; sp=reject\n\
        _dmarc.own.example.test TXT v=DMARC1; p=none\n\
        sub.example.test A 192.0.2.9\n\
        _dmarc.tests.test TXT v=DMARC1; p=reject; t=y\n\
        _dmarc.np.test TXT v=DMARC1; p=none; sp=none; np=reject\n\
        there.np.test A 192.0.2.9\n\
        _dmarc.registry.test TXT v=DMARC1; p=reject; psd=y\n\
        a.registry.test TXT v=spf1 ip4:192.0.2.1 -all\n\
        b.registry.test TXT v=spf1 ip4:192.0.2.1 -all\n\
        mail.a.registry.test TXT v=spf1 ip4:192.0.2.1 -all\n\
        _dmarc.fails.test SERVFAIL\n";
    let (none, fail) = (DmarcPolicy::None, AuthResult::Fail);
    for (author, sender, expected, policy) in [
        ("example.test", "x@else.test", fail, DmarcPolicy::Quarantine),
        // Without a record of its own, the organizational domain's `sp`.
        ("sub.example.test", "x@else.test", fail, DmarcPolicy::Reject),
        ("a.b.c.sub.example.test", "x@else.test", fail, DmarcPolicy::Reject),
        ("own.example.test", "x@else.test", fail, none),
        // In test mode a policy counts as the next milder.
        ("tests.test", "x@else.test", fail, DmarcPolicy::Quarantine),
        ("absent.np.test", "x@else.test", fail, DmarcPolicy::Reject),
        ("there.np.test", "x@else.test", fail, none),
        // Below a public suffix each name is an organization of its own.
        ("a.registry.test", "x@a.registry.test", AuthResult::Pass, DmarcPolicy::Reject),
        ("a.registry.test", "x@mail.a.registry.test", AuthResult::Pass, DmarcPolicy::Reject),
        ("a.registry.test", "x@b.registry.test", fail, DmarcPolicy::Reject),
        ("fails.test", "x@else.test", AuthResult::TempError, none),
        ("nothing.test", "x@else.test", AuthResult::None, none),
    ] {
        let message = MESSAGE.replace("anna@example.test", &format!("anna@{author}"));
        let dmarc = outcome(zone, "192.0.2.1", sender, &message).await.dmarc;
        assert_eq!((dmarc.result, dmarc.policy), (expected, policy), "{author} {sender}");
    }
}

#[tokio::test]
async fn a_walk_ends_after_eight_questions() {
    let server = StubServer::start("x.test A 192.0.2.9\n");
    let deep = format!("{}x.test", "a.".repeat(60));
    let message = Bytes::from(MESSAGE.replace("anna@example.test", &format!("anna@{deep}")));
    let facts = ConnectionFacts { ip: None, ..facts("192.0.2.1", "") };
    verify(&resolver(&server), &facts, None, &message, LIMIT).await;
    let asked = server.asked().iter().filter(|name| name.starts_with("_dmarc.")).count();
    assert!((2..=8).contains(&asked), "{asked}");
}

#[tokio::test]
async fn reverse_names_must_lead_back() {
    let zone = "\
        1.2.0.192.in-addr.arpa PTR mail.example.test\n\
        2.2.0.192.in-addr.arpa PTR mail.example.test\n\
        mail.example.test A 192.0.2.1\n\
        4.2.0.192.in-addr.arpa SERVFAIL\n";
    for (ip, expected, name) in [
        ("192.0.2.1", AuthResult::Pass, Some("mail.example.test")),
        ("192.0.2.2", AuthResult::Fail, Some("mail.example.test")),
        ("192.0.2.3", AuthResult::PermError, None),
        ("192.0.2.4", AuthResult::TempError, None),
    ] {
        let iprev = outcome(zone, ip, "", MESSAGE).await.iprev.unwrap();
        assert_eq!((iprev.result, iprev.name.as_deref()), (expected, name), "{ip}");
    }
}

#[tokio::test]
async fn a_truncated_answer_is_fetched_over_tcp() {
    let zone = "example.test TRUNCATED\nexample.test TXT v=spf1 ip4:192.0.2.1 -all\n";
    assert_eq!(outcome(zone, "192.0.2.1", "a@example.test", MESSAGE).await.spf.unwrap().result, AuthResult::Pass);
}

#[tokio::test]
async fn silence_ends_at_the_limit_as_temperror() {
    let zone = "example.test TIMEOUT\n_dmarc.example.test TIMEOUT\nslow._domainkey.example.test TIMEOUT\n\
                1.2.0.192.in-addr.arpa TIMEOUT\n";
    let server = StubServer::start(zone);
    let settings = ResolverSettings { name_servers: vec![server.address()], ..ResolverSettings::default() };
    let signer = DkimSigner::from_key(rsa()).domain("example.test").selector("slow").headers(["From"]);
    let signed = Bytes::from(signer.sign(MESSAGE.as_bytes()).unwrap().to_header() + MESSAGE);
    #[expect(clippy::disallowed_methods, reason = "measures real waiting")]
    let start = Instant::now();
    let limit = Duration::from_millis(600);
    let facts = facts("192.0.2.1", "a@example.test");
    let outcome = verify(&Resolver::new(&settings).unwrap(), &facts, None, &signed, limit).await;
    assert!(start.elapsed() < Duration::from_secs(3));
    assert_eq!(outcome.spf.unwrap().result, AuthResult::TempError);
    assert_eq!(outcome.iprev.unwrap().result, AuthResult::TempError);
    assert_eq!(outcome.dkim.first().map(|d| d.result), Some(AuthResult::TempError));
    assert_eq!(outcome.dmarc.result, AuthResult::TempError);
}

#[tokio::test]
async fn answers_are_remembered_also_negative_ones() {
    let server = StubServer::start("example.test TXT v=spf1 ip4:192.0.2.1 -all\nlisted.test A 127.0.0.2\n");
    let resolver = resolver(&server);
    let message = Bytes::from_static(MESSAGE.as_bytes());
    verify(&resolver, &facts("192.0.2.1", "a@example.test"), None, &message, LIMIT).await;
    let asked = server.questions();
    let again = verify(&resolver, &facts("192.0.2.1", "a@example.test"), None, &message, LIMIT).await;
    assert_eq!(again.spf.unwrap().result, AuthResult::Pass);
    assert_eq!(server.questions(), asked);
    assert_eq!(resolver.lookup_ipv4("listed.test").await.unwrap().to_vec(), [std::net::Ipv4Addr::new(127, 0, 0, 2)]);
    assert_eq!(resolver.lookup_ipv4("unlisted.test").await, Err(Unresolved::Absent));
}

#[tokio::test]
async fn texts_and_name_servers_are_remembered_too() {
    let server = StubServer::start(
        "a.test TXT one\na.test TXT two\na.test NS Ns1.B.test\nfails.test SERVFAIL\n*.listed.test A 127.0.0.2\n",
    );
    let resolver = resolver(&server);
    let texts = |texts: &[&str]| texts.iter().map(|text| Box::from(*text)).collect::<Vec<Box<str>>>();
    for _ in 0..2 {
        assert_eq!(resolver.lookup_texts("A.test.").await.unwrap().to_vec(), texts(&["one", "two"]));
        assert_eq!(resolver.lookup_name_servers("a.test").await.unwrap().to_vec(), texts(&["ns1.b.test"]));
        assert_eq!(resolver.lookup_texts("absent.test").await, Err(Unresolved::Absent));
        assert_eq!(resolver.lookup_texts("no..name").await, Err(Unresolved::Absent));
        assert_eq!(server.questions(), 3);
    }
    assert_eq!(resolver.lookup_texts("fails.test").await, Err(Unresolved::Failed));
    assert!(resolver.lookup_ipv4("x.y.listed.test").await.is_ok());
}

#[tokio::test]
async fn odd_messages_have_an_outcome() {
    for message in ["", "\r\n\r\n", "no header at all", "From: \r\n\r\n", "DKIM-Signature: v=1\r\n\r\nx"] {
        let outcome = outcome("", "192.0.2.1", "", message).await;
        assert_eq!(outcome.dmarc.result, AuthResult::None, "{message:?}");
    }
    let two = "From: a@example.test, b@other.test\r\n\r\n";
    let zone = "_dmarc.example.test TXT v=DMARC1; p=reject\n";
    assert_eq!(outcome(zone, "192.0.2.1", "", two).await.dmarc, DmarcOutcome::default());
}
