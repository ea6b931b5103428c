//! The milter protocol, both ways, with the programs that mail servers have of it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::postfix::Postfix;
use crate::harness::{Node, letter, run_program, skip, wants_all};

/// True if the program is there, and tests with foreign programs are wanted.
pub(super) fn has(program: &str) -> bool {
    let found = ["/usr/sbin", "/usr/bin"].iter().any(|folder| Path::new(folder).join(program).exists());
    if !wants_all() {
        skip("foreign programs run with ORTLER_TESTS=all");
    } else if !found {
        skip(&format!("{program} is not installed"));
    }
    wants_all() && found
}

/// A node whose rules tag, hold and refuse by words.
pub(super) fn node_with_words() -> Node {
    let prepare = |dir: &Path| {
        let rules = "body TAG_IT /tag-this-one/\nscore TAG_IT 4.2\nbody HOLD_IT /hold-this-one/\nscore HOLD_IT 7\n\
                     body REFUSE_IT /refuse-this-one/\nscore REFUSE_IT 30\n";
        std::fs::write(dir.join("words.cf"), rules).unwrap();
        std::fs::write(dir.join("policy.toml"), "when-tagged = \"subject\"\ngreylist = \"off\"\n").unwrap();
    };
    Node::start_configured(prepare, &[("[filter]", "[filter]\nrules = [\"words.cf\"]\npolicy = \"policy.toml\"")])
}

/// A program that is ended with the test.
pub(super) struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let over = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            matches!(self.0.try_wait(), Ok(Some(_)) | Err(_))
        });
        if !over {
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

pub(super) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[track_caller]
pub(super) fn wait_for_port(port: u16) {
    let open = (0..250).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    assert!(open, "nobody listens on {port}");
}

#[test]
fn libmilters_own_tool_finds_every_answer_right() {
    if !has("miltertest") {
        return;
    }
    let node = node_with_words();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flows/milter.lua");
    for version in ["2", "6"] {
        let mut tool = Command::new("miltertest");
        tool.args(["-D", &format!("address=inet:{}@127.0.0.1", node.port(891)), "-D", &format!("version={version}")]);
        let (well, said) = run_program(tool.args(["-s", script]), Duration::from_secs(60));
        assert!(well && said.contains("all is well"), "version {version}: {said}{}", node.log());
    }
}

#[test]
fn postfix_does_what_the_filter_says() {
    if !has("postfix") {
        return;
    }
    let node = node_with_words();
    let postfix = Postfix::start(
        "example.test",
        &format!(
            "smtpd_milters = inet:127.0.0.1:{}\nmilter_default_action = tempfail\nmilter_protocol = 6",
            node.port(891)
        ),
    );
    let reply = postfix.send("See you at the meeting.");
    assert!(reply.starts_with("250"), "{reply}: {}", postfix.log());
    let clean = postfix.delivered();
    assert!(clean.contains("\nX-Spam-Status: No, score=") && !clean.contains("X-Spam-Flag"), "{clean}");
    assert!(clean.contains("\nAuthentication-Results: mx."), "{clean}");

    assert!(postfix.send("Please tag-this-one.").starts_with("250"));
    let tagged = postfix.delivered();
    assert!(tagged.contains("\nX-Spam-Flag: YES\n") && tagged.contains("\nSubject: [SPAM] Lunch\n"), "{tagged}");

    let refused = postfix.send("Please refuse-this-one.");
    assert!(refused.starts_with("554 5.7.1 Message refused as spam"), "{refused}: {}", postfix.log());

    assert!(postfix.send("Please hold-this-one.").starts_with("250"));
    let held = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(40));
        !postfix.files("queue/hold").is_empty()
    });
    assert!(held && postfix.files("mail/box/new").is_empty(), "{}", postfix.log());
}

#[test]
fn opendkim_signs_and_verifies_for_us() {
    if !has("opendkim") || !has("opendkim-genkey") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut make = Command::new("opendkim-genkey");
    make.args(["--bits=2048", "--domain=sender.example", "--selector=s", "-D"]).arg(dir.path());
    let (made, said) = run_program(&mut make, Duration::from_secs(60));
    assert!(made, "{said}");
    let record = std::fs::read_to_string(dir.path().join("s.txt")).unwrap();
    let text: String = record.split('"').skip(1).step_by(2).collect();
    std::fs::write(dir.path().join("keys"), format!("s._domainkey.sender.example {text}\n")).unwrap();
    let opendkim = |name: &str, own: &str| {
        let port = free_port();
        let file = dir.path().join(name);
        let at = dir.path().display();
        let config = format!(
            "Syslog no\nSocket inet:{port}@127.0.0.1\nDomain sender.example\nSelector s\nKeyFile {at}/s.private\n\
             RequireSafeKeys no\nCanonicalization relaxed/relaxed\nTestPublicKeys {at}/keys\nAuthservID {name}.test\n\
             AlwaysAddARHeader yes\n{own}\n"
        );
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("opendkim");
        command.arg("-f").arg("-x").arg(file).stdin(Stdio::null()).stdout(Stdio::null());
        let running = Running(command.spawn().unwrap());
        wait_for_port(port);
        (running, port)
    };
    let (_signer, port) = opendkim("signer", "Mode s\nInternalHosts 127.0.0.1");
    let node = Node::with(&["--milter", &format!("127.0.0.1:{port}")]);
    let reply = node.send("anna@sender.example", &["user1@example.test"], &letter("Lunch", "Shall we?"));
    assert!(reply.starts_with("250"), "{reply}: {}", node.log());
    let signed = node.messages("user1", "INBOX").remove(0);
    let text = String::from_utf8_lossy(&signed).into_owned();
    let at = text.find("DKIM-Signature: ").unwrap_or_else(|| panic!("{text}"));
    assert!(text[at..].contains("d=sender.example"), "{text}");

    let (_verifier, port) = opendkim("verifier", "Mode v\nInternalHosts 192.0.2.1");
    let other = Node::with(&["--milter", &format!("127.0.0.1:{port}")]);
    // As it was sent on: signature and all that it covers.
    let onward = &signed[at..];
    for (message, expected) in
        [(onward.to_vec(), "dkim=pass"), (text[at..].replace("Shall", "Will").into(), "dkim=fail")]
    {
        let reply = other.send("anna@sender.example", &["user1@example.test"], &message);
        assert!(reply.starts_with("250"), "{reply}: {}", other.log());
        let stored = ["INBOX", "Junk"].iter().flat_map(|name| other.messages("user1", name)).next_back().unwrap();
        let stored = String::from_utf8_lossy(&stored).into_owned();
        let results =
            stored.split("Authentication-Results: verifier.test").nth(1).unwrap_or_else(|| panic!("{stored}"));
        assert!(results.split("\r\nFrom:").next().unwrap().contains(expected), "{stored}");
    }
}
