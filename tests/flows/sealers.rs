//! Forwarders whose ARC seals are believed, over real SMTP.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_auth::arc::{ArcOutput, ArcSealer};
use mail_auth::crypto::{RsaKey, Sha256};
use mail_auth::headers::HeaderWriter as _;
use mail_auth::{ArcResult, AuthenticatedMessage, AuthenticationResults};
use mailauth::stub::StubServer;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use crate::harness::Node;

fn key() -> RsaKey<Sha256> {
    let pem = include_bytes!("../../src/mailauth/testdata/rsa.pem");
    RsaKey::from_key_der(PrivateKeyDer::from_pem_slice(pem).unwrap()).unwrap()
}

/// A letter of the bank that `list.test` or another forwarder changed, after it had seen that it passed.
fn forwarded(subject: &str, sealer: &str, says: &str) -> String {
    let changed = format!(
        "From: Anna <anna@bank.test>\r\nTo: user1@example.test\r\nSubject: {subject}\r\n\
         Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{}@bank.test>\r\n\r\n\
         See you at the meeting on Friday.\r\n-- \r\nThe list\r\n",
        subject.replace(' ', ".")
    );
    let parsed = AuthenticatedMessage::parse(changed.as_bytes()).unwrap();
    // The library writes results of its own making only: these ride behind the name.
    let named = format!("{sealer}; {says}");
    let results = AuthenticationResults::new(&named);
    let seal = ArcSealer::from_key(key()).domain(sealer).selector("arc").headers(["From", "Subject"]);
    let set = seal.seal(&parsed, &results, &ArcOutput::from(ArcResult::None)).unwrap().to_header();
    set + &changed
}

/// The header of what comes of a message from a forwarder's server, wherever it is put; or the reply, if it is refused.
fn sent(node: &Node, message: &str) -> String {
    let mut smtp = node.connect(25);
    smtp.send(b"PROXY TCP4 192.0.2.9 198.51.100.1 4444 25\r\n").expect("220");
    smtp.say("EHLO mail.list.test").expect("250");
    smtp.say("MAIL FROM:<bounces@list.test>").expect("250");
    smtp.say("RCPT TO:<user1@example.test>").expect("250");
    let reply = smtp.send_content(message.as_bytes());
    if !reply.starts_with("250") {
        return reply;
    }
    let subject = message.lines().find(|line| line.starts_with("Subject: ")).unwrap();
    let mut texts =
        node.everywhere("user1").into_iter().map(|(_, message)| String::from_utf8_lossy(&message).into_owned());
    let text = texts.rfind(|text| text.contains(subject)).expect("it is delivered");
    text.split("\r\n\r\n").next().unwrap().replace("\r\n\t", " ")
}

#[test]
fn a_trusted_sealers_word_counts_and_anothers_does_not() {
    let record = STANDARD.encode(key().public_key());
    let zone: String = ["list.test", "other.test"]
        .map(|domain| {
            format!("arc._domainkey.{domain} TXT v=DKIM1; k=rsa; p={record}\n{domain} TXT v=spf1 ip4:192.0.2.9 -all\n")
        })
        .concat()
        + "_dmarc.bank.test TXT v=DMARC1; p=reject\n";
    let server = StubServer::start(&zone);
    let servers = format!("[dns]\nservers = [\"{}\"] # ", server.address());
    let node = Node::start_configured(
        |dir| std::fs::write(dir.join("policy.toml"), "greylist = \"off\"\n").unwrap(),
        &[
            ("trusted_proxies = []", "trusted_proxies = [\"127.0.0.0/8\"]"),
            ("[dns]\nservers = ", &servers),
            ("[filter]", "[filter]\npolicy = \"policy.toml\"\ntrusted_sealers = [\"list.test\"]"),
        ],
    );
    let pass = "dmarc=pass header.from=bank.test";
    let trusted = sent(&node, &forwarded("From the trusted list", "list.test", pass));
    assert!(trusted.contains("DMARC_VOUCHED=0") && !trusted.contains("DMARC_REJECT"), "{trusted}");
    // What was found stays told as it is.
    assert!(trusted.contains("dmarc=fail") && trusted.contains("arc=pass"), "{trusted}");

    let refused = "550 5.7.1 Message refused by the DMARC policy";
    let other = sent(&node, &forwarded("From another list", "other.test", pass));
    assert!(other.starts_with(refused), "{other}");
    // The forwarder saw it fail; and somebody changed it on the way from there.
    let failed = forwarded("Seen to fail", "list.test", "dmarc=fail header.from=bank.test");
    let failed = sent(&node, &failed);
    assert!(failed.starts_with(refused), "{failed}");
    let changed = forwarded("Changed later", "list.test", pass).replace("on Friday", "on Sunday");
    let changed = sent(&node, &changed);
    assert!(changed.starts_with(refused), "{changed}");
    // What a recipient would be told of the other list's.
    let told = (0..50).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let found = node.json(&["trace", "--to", "user1@example.test"]);
        let mut stories =
            found.as_array()?.iter().map(|row| node.json(&["trace", row["id"].as_str().unwrap()]).to_string());
        stories.rfind(|story| story.contains("From another list"))
    });
    let told = told.unwrap();
    assert!(told.contains("DMARC_REJECT") && told.contains("ARC_VALID") && told.contains("other.test"), "{told}");
}
