//! TLS to servers elsewhere: what the DNS, proven by DNSSEC, and what domains over HTTPS say of them; and what those
//! domains hear of it.

use std::path::Path;
use std::time::Duration;

use base::{Clock as _, SystemClock};
use serde_json::Value;

use super::queue::{submit, wait_until, waiting};
use crate::harness::{Authority, Bind, Node, WebServer, dns_address, letter, ortler};

/// The servers of all domains are one, whose certificate is for `mx.good.open.test` and `mx.dane.test`.
fn receiving(dir: &Path, authority: &Authority, domains: &[&str]) -> Node {
    let (certificate, key) = authority.sign("mx", &["mx.good.open.test", "mx.dane.test"]);
    let tls = format!("[tls]\ncertificate = \"{}\"\nkey = \"{}\"\n[filter]", certificate.display(), key.display());
    let node = Node::start_configured(|_| {}, &[("[filter]", &tls)]);
    for domain in domains {
        node.command(&["domain", "add", domain]);
        node.command(&["alias", "add", &format!("@{domain}"), "user1@example.test"]);
    }
    assert!(dir.exists());
    node
}

/// What came, by recipient's domain.
fn came(node: &Node) -> Vec<String> {
    let all = ["INBOX", "Junk"].into_iter().flat_map(|mailbox| node.messages("user1", mailbox));
    all.map(|message| String::from_utf8_lossy(&message).into_owned()).collect()
}

fn has_come(node: &Node, subject: &str) -> bool {
    came(node).iter().any(|text| text.contains(&format!("Subject: {subject}\r\n")))
}

/// What the queue says of a recipient.
fn status(node: &Node, to: &str) -> String {
    let found = waiting(node).into_iter().find(|one| one["to"] == to);
    found.map(|one| one["status"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
}

fn is_soon(is_so: impl Fn() -> bool) -> bool {
    (0..400).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        is_so()
    })
}

fn today() -> String {
    mail::date::format_utc(SystemClock.utc())[..10].to_owned()
}

#[test]
fn promises_of_the_dns_and_of_the_web_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path());
    let domains = [
        "dane.test",
        "wrong.test",
        "odd.test",
        "good.open.test",
        "named.open.test",
        "unnamed.open.test",
        "try.open.test",
        "reports.open.test",
        "plain.open.test",
        "lost.open.test",
    ];
    let receiver = receiving(dir.path(), &authority, &domains);
    let port = receiver.port(25);
    let spki = authority.spki_sha256(&dir.path().join("mx.pem"));
    let signed = format!(
        "dane MX 10 mx.dane\nmx.dane A 127.0.0.1\n_{port}._tcp.mx.dane TLSA 3 1 1 {spki}\n\
         wrong MX 10 mx.wrong\nmx.wrong A 127.0.0.1\n_{port}._tcp.mx.wrong TLSA 3 1 1 {zeros}\n\
         _smtp._tls.wrong TXT \"v=TLSRPTv1; rua=mailto:tls@reports.open.test\"\n\
         odd MX 10 mx.odd\nmx.odd A 127.0.0.1\n_{port}._tcp.mx.odd TLSA 0 0 1 {zeros}\n\
         spoilt MX 10 mx.spoilt\nmx.spoilt A 127.0.0.1",
        zeros = "00".repeat(32),
    );
    let mut open = String::new();
    for (name, mx) in [
        ("good", "mx.good"),
        ("named", "mx.named"),
        ("unnamed", "mx.good"),
        ("try", "mx.try"),
        ("reports", "mx.reports"),
        ("plain", "mx.plain"),
        ("lost", "mx.lost"),
    ] {
        open.push_str(&format!("{name} MX 10 {mx}\n"));
        if name != "unnamed" {
            open.push_str(&format!("{mx} A 127.0.0.1\n"));
        }
        if !["reports", "plain"].contains(&name) {
            open.push_str(&format!("_mta-sts.{name} TXT \"v=STSv1; id=1;\"\nmta-sts.{name} A 127.0.0.1\n"));
            open.push_str(&format!(
                "_smtp._tls.{name} TXT \"v=TLSRPTv1; rua={}\"\n",
                if name == "try" { "https://mta-sts.try.open.test/report" } else { "mailto:tls@reports.open.test" }
            ));
        }
    }
    let spoil = |text: String| text.replace("10 mx.spoilt.test.", "10 mx.dane.test.");
    let Some(bind) = Bind::start(dir.path(), &signed, &open, spoil) else { return };
    let hosts = ["good", "named", "unnamed", "try", "lost"].map(|name| format!("mta-sts.{name}.open.test"));
    let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let web = WebServer::start(dir.path(), authority.sign("web", &names));
    let policy = |mode: &str, mx: &str| format!("version: STSv1\r\nmode: {mode}\r\nmx: {mx}\r\nmax_age: 86400\r\n");
    for (host, text) in hosts.iter().zip([
        policy("enforce", "*.good.open.test"),
        policy("enforce", "mx.named.open.test"),
        policy("enforce", "mx.other.open.test"),
        policy("testing", "mx.try.open.test"),
    ]) {
        web.put(host, "/.well-known/mta-sts.txt", &text);
    }
    let queue = format!(
        "[queue]\nport = {port}\nmta_sts_port = {}\nauthorities = \"{}\"\nfirst_wait = \"1 s\"\nlongest_wait = \"2 s\"\n\
         [reports]\norganization = \"Sender\"\n[filter]",
        web.port(),
        authority.file().display()
    );
    let servers = (format!("\"{}\"", dns_address()), format!("\"{}\"", bind.address()));
    let anchor = format!("[dns]\ntrust_anchor = \"{}\"\n", bind.anchor().display());
    let sender = Node::start_configured(
        |_| {},
        &[
            ("[filter]", &queue),
            (&servers.0, &servers.1),
            ("[dns]\n", &anchor),
            ("level = \"warn\"", "level = \"info\""),
        ],
    );

    let send = |domain: &str| submit(&sender, &[&format!("x@{domain}")], &letter(domain, "x"));
    // Those that are fine, and those whose promises are none.
    for domain in ["dane.test", "odd.test", "good.open.test", "try.open.test", "plain.open.test", "lost.open.test"] {
        let id = send(domain);
        let told = || format!("{domain}: {:?}", waiting(&sender));
        assert!(is_soon(|| has_come(&receiver, domain)), "{}", told());
        wait_until("the story", || {
            // The log is written within a moment.
            let told = ortler(&["trace", &id, "--json", "--config", sender.config().to_str().unwrap()]).stdout;
            let told: Vec<Value> = serde_json::from_slice(&told).unwrap_or_default();
            told.iter().any(|event| {
                event["kind"] == "delivered"
                    && event["fields"]["tls"].as_str().is_some_and(|tls| tls.starts_with("TLSv1.3"))
            })
        });
    }
    // Those that are not what was promised.
    for (domain, words) in [
        ("wrong.test", "TLS: "),
        ("named.open.test", "TLS: "),
        ("unnamed.open.test", "the domain's policy does not name it"),
        ("spoilt.test", "name servers of the domain do not answer"),
    ] {
        send(domain);
        wait_until(domain, || status(&sender, &format!("x@{domain}")).contains(words));
        assert!(!has_come(&receiver, domain), "{domain}");
    }
    // A policy is remembered, also when whoever is in between hides it.
    web.put("mta-sts.named.open.test", "/.well-known/mta-sts.txt", "nonsense");

    // The domains hear of it.
    let told = sender.json(&["reports", "send", &today()]);
    assert_eq!(told["reports"], 6, "{told}");
    wait_until("five reports", || {
        came(&receiver).iter().filter(|text| text.contains("TLS-Report-Domain")).count() == 5
    });
    let posted = web.posted().unwrap();
    assert!(posted.starts_with(&[0x1f, 0x8b]), "packed JSON by HTTPS");
    for (nth, text) in came(&receiver).iter().filter(|text| text.contains("TLS-Report-Domain")).enumerate() {
        let file = dir.path().join(format!("report-{nth}"));
        std::fs::write(&file, text).unwrap();
        receiver.command(&["reports", "read", file.to_str().unwrap()]);
    }
    let show =
        |domain: &str| -> Vec<Value> { receiver.json(&["reports", "show", "tls", domain]).as_array().unwrap().clone() };
    for (domain, policy, result) in [
        ("wrong.test", "tlsa", "tlsa-invalid"),
        ("named.open.test", "sts", "certificate-host-mismatch"),
        ("unnamed.open.test", "sts", "validation-failure"),
        ("lost.open.test", "sts", "sts-policy-fetch-error"),
        ("good.open.test", "sts", "successful"),
    ] {
        let rows = show(domain);
        let found = rows
            .iter()
            .any(|row| row["result"] == result && row["policy"] == policy && row["sessions"].as_u64() > Some(0));
        assert!(found, "{domain}: {rows:?}");
    }
    assert!(sender.json(&["reports", "send", &today()])["reports"] == 0, "once a day");
}
