//! Keys of domains, from their making to what a verifier says of signed mail.

use std::process::{Command, Stdio};
use std::time::Duration;

use mailauth::stub::StubServer;
use serde_json::Value;

use super::queue::{node_with, submit, waiting};
use crate::harness::{Node, Receiver, letter, run_program, skip};

const ZONE: &str = "
    a.test MX 10 mx.a.test
    mx.a.test A 127.0.0.1
";

fn keys(node: &Node, arguments: &[&str]) -> Vec<Value> {
    let told = node.json(&[&["dkim"], arguments].concat());
    told.as_array().cloned().unwrap_or_else(|| vec![told])
}

fn states(node: &Node) -> Vec<String> {
    let all = keys(node, &["check", "example.test"]);
    all.iter()
        .map(|key| {
            format!(
                "{} {} {}",
                key["selector"].as_str().unwrap(),
                key["state"].as_str().unwrap(),
                key["dns"].as_str().unwrap()
            )
        })
        .collect()
}

/// The keys' records as a name server has them.
fn records(keys: &[Value]) -> String {
    keys.iter()
        .map(|key| format!("{} TXT {}\n", key["name"].as_str().unwrap(), key["text"].as_str().unwrap()))
        .collect()
}

#[test]
fn domains_sign_once_the_dns_has_their_keys() {
    let (zone, receiver) = (StubServer::start(ZONE), Receiver::kind());
    let node = node_with(&zone, receiver.port(), "");
    let made = keys(&node, &["create", "example.test", "--selector", "one"]);
    assert_eq!(states(&node), ["one-ed25519 prepared missing", "one-rsa prepared missing"]);
    node.command_fails(&["dkim", "activate", "example.test", "one-rsa"], "the DNS has nothing there");
    node.command_fails(&["dkim", "create", "nowhere.test"], "no domain of this system");
    node.command_fails(&["dkim", "create", "example.test", "--selector", "O ne"], "is not of a-z");
    node.command_fails(&["dkim", "activate", "example.test", "two"], "its keys: one-ed25519, one-rsa");
    submit(&node, &["x@a.test"], &letter("Unsigned", "x"));
    assert!(!receiver.wait_for(1)[0].content.contains("DKIM-Signature"));

    zone.add(&records(&made));
    assert_eq!(states(&node), ["one-ed25519 prepared published", "one-rsa prepared published"]);
    for selector in ["one-rsa", "one-ed25519"] {
        node.command(&["dkim", "activate", "example.test", selector]);
    }
    submit(&node, &["x@a.test"], &letter("Signed", "Good morning."));
    let taken = receiver.wait_for(2).pop().unwrap().content;
    assert_eq!(taken.matches("DKIM-Signature: ").count(), 2, "{taken}");
    let signed = &taken[taken.find("DKIM-Signature: ").unwrap()..];

    // A verifier of other make.
    for (message, expected) in [(signed.to_owned(), "pass"), (signed.replace("Good", "Bad"), "fail")] {
        verified(&made, &message, expected);
    }
    // An author whom the account does not own gets no signature of the author's domain.
    node.command(&["domain", "add", "other.test"]);
    let other = keys(&node, &["create", "other.test", "--selector", "one"]);
    zone.add(&records(&other));
    node.command(&["dkim", "activate", "other.test", "one-rsa"]);
    let foreign = String::from_utf8(letter("Foreign", "x")).unwrap().replacen("From: ", "From: boss@other.test, ", 1);
    submit(&node, &["x@a.test"], foreign.as_bytes());
    let taken = receiver.wait_for(3).pop().unwrap().content;
    assert!(taken.contains("d=example.test") && !taken.contains("d=other.test"), "{taken}");

    // A new one takes its place.
    let next = keys(&node, &["create", "example.test", "--selector", "two"]);
    zone.add(&records(&next));
    node.command(&["dkim", "activate", "example.test", "two-rsa"]);
    node.command(&["dkim", "delete", "example.test", "two-ed25519"]);
    node.command_fails(&["dkim", "delete", "example.test", "two-rsa"], "mail is signed by it");
    let told = ["one-ed25519 active published", "one-rsa retired published", "two-rsa active published"];
    assert_eq!(states(&node), told);
    node.command_fails(&["dkim", "activate", "example.test", "one-rsa"], "is retired");
    submit(&node, &["x@a.test"], &letter("Anew", "x"));
    let taken = receiver.wait_for(4).pop().unwrap().content;
    assert!(taken.contains("s=two-rsa") && taken.contains("s=one-ed25519") && !taken.contains("s=one-rsa"), "{taken}");
    assert!(waiting(&node).is_empty());
}

/// What OpenDKIM says of both signatures.
fn verified(keys: &[Value], message: &str, expected: &str) {
    let has = Command::new("which").arg("opendkim").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !has {
        return skip("opendkim is not installed");
    }
    let dir = tempfile::tempdir().unwrap();
    let lines: String = keys
        .iter()
        .map(|key| format!("{} {}\n", key["name"].as_str().unwrap(), key["text"].as_str().unwrap()))
        .collect();
    std::fs::write(dir.path().join("keys"), lines).unwrap();
    std::fs::write(dir.path().join("message"), message.replace("\r\n", "\n")).unwrap();
    let at = dir.path().display();
    let config = format!("Syslog no\nMode v\nTestPublicKeys {at}/keys\nRequireSafeKeys no\n");
    std::fs::write(dir.path().join("conf"), config).unwrap();
    let mut command = Command::new("opendkim");
    command.arg("-x").arg(dir.path().join("conf")).arg("-vvv").arg("-t").arg(dir.path().join("message"));
    let (_, said) = run_program(&mut command, Duration::from_secs(30));
    let passed = said.matches("dkim=pass").count();
    assert!(passed == if expected == "pass" { 2 } else { 0 } && said.contains("one-ed25519"), "{expected}: {said}");
}

#[test]
fn keys_of_other_systems_go_on() {
    let (zone, receiver) = (StubServer::start(ZONE), Receiver::kind());
    let node = node_with(&zone, receiver.port(), "");
    let dir = tempfile::tempdir().unwrap();
    for (name, algorithm, option) in [("old", "RSA", "rsa_keygen_bits:2048"), ("short", "RSA", "rsa_keygen_bits:512")] {
        let mut openssl = Command::new("openssl");
        openssl.current_dir(dir.path()).args(["genpkey", "-algorithm", algorithm, "-pkeyopt", option, "-out", name]);
        assert!(run_program(&mut openssl, Duration::from_secs(60)).0);
    }
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let made = keys(&node, &["import", "example.test", "old", "--key", &file("old")]);
    node.command_fails(
        &["dkim", "import", "example.test", "x", "--key", &file("short")],
        "neither RSA of 1024 bits or more nor Ed25519",
    );
    node.command_fails(&["dkim", "import", "example.test", "x", "--key", "/dev/null"], "no private key");
    zone.add(&records(&made));
    node.command(&["dkim", "activate", "example.test", "old"]);
    submit(&node, &["x@a.test"], &letter("Signed", "x"));
    assert!(receiver.wait_for(1)[0].content.contains("s=old"));
}

#[test]
fn what_is_passed_on_is_sealed_and_notices_are_signed() {
    let (zone, receiver) = (StubServer::start(ZONE), Receiver::kind());
    let route = format!(
        "[[route]]\nname = \"customer\"\nrecipients = [\"customer.test\"]\nhosts = [\"none://127.0.0.1:{}\"]\naccept = true\n",
        receiver.port()
    );
    let node = super::queue::node_prepared(&zone, receiver.port(), "routes = \"routes.toml\"", |dir| {
        std::fs::write(dir.join("routes.toml"), route).unwrap();
    });
    let host = node.host_name();
    let made = keys(&node, &["create", &host, "--selector", "seal"]);
    zone.add(&records(&made));
    node.command(&["dkim", "activate", &host, "seal-rsa"]);
    let reply = node.send("anna@a.test", &["bob@customer.test"], &letter("Passed on", "x"));
    assert!(reply.starts_with("250"), "{reply}");
    let taken = receiver.wait_for(1).pop().unwrap().content;
    assert!(taken.starts_with("ARC-Seal: ") && taken.contains("ARC-Authentication-Results: i=1"), "{taken}");
    assert!(!taken.contains("\nDKIM-Signature"), "{taken}");
    submit(&node, &["nobody@nowhere.test"], &letter("Lost", "x"));
    super::queue::wait_until("a notice", || {
        node.messages("user1", "INBOX").iter().any(|message| {
            let text = String::from_utf8_lossy(message);
            text.contains("multipart/report") && text.contains(&format!("d={host}"))
        })
    });
}
