//! The milter protocol, both ways, with the programs that mail servers have of it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::{Conversation, Node, letter, run_program, skip, wants_all};

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

/// Postfix with one network listener, whose mail for example.test goes to one Maildir.
struct Postfix {
    dir: tempfile::TempDir,
    port: u16,
    _master: Running,
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // The program that was started waits for one that it started.
        let _ = Command::new("postfix").arg("-c").arg(self.dir.path().join("config")).arg("abort").output();
    }
}

impl Postfix {
    fn start(milter: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Its daemons are another user, and must get through.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let port = free_port();
        let path = |name: &str| dir.path().join(name);
        for name in ["config", "queue", "data", "mail"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        for (name, owner) in [("data", "postfix"), ("mail", "nobody")] {
            assert!(Command::new("chown").arg(owner).arg(path(name)).status().unwrap().success());
        }
        let at = dir.path().display();
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {at}/queue\ndata_directory = {at}/data\nmaillog_file = {at}/log\n\
             maillog_file_prefixes = {at}\ncommand_directory = /usr/sbin\ndaemon_directory = /usr/lib/postfix/sbin\n\
             mail_owner = postfix\nmyhostname = mta.example.test\nmydestination =\ninet_interfaces = loopback-only\n\
             inet_protocols = ipv4\nmynetworks = 127.0.0.0/8\nalias_maps =\nalias_database =\nsmtpd_peername_lookup = no\n\
             virtual_mailbox_domains = example.test\nvirtual_mailbox_base = {at}/mail\nvirtual_mailbox_maps = static:box/\n\
             virtual_uid_maps = static:65534\nvirtual_gid_maps = static:65534\nvirtual_minimum_uid = 100\n\
             smtpd_milters = inet:127.0.0.1:{milter}\nmilter_default_action = tempfail\nmilter_protocol = 6\n"
        );
        let mut master = format!("127.0.0.1:{port} inet n - n - - smtpd\n");
        // As Debian has them, without a changed root: name, who may ask, privileged or not, most processes.
        for service in [
            "cleanup unix n - n - 0 cleanup",
            "flush unix n - n 1000? 0 flush",
            "showq unix n - n - - showq",
            "qmgr unix n - n 300 1 qmgr",
            "rewrite unix - - n - - trivial-rewrite",
            "bounce unix - - n - 0 bounce",
            "defer unix - - n - 0 bounce",
            "trace unix - - n - 0 bounce",
            "verify unix - - n - 1 verify",
            "virtual unix - n n - - virtual",
            "error unix - - n - - error",
            "retry unix - - n - - error",
            "anvil unix - - n - 1 anvil",
            "proxymap unix - - n - - proxymap",
            "postlog unix-dgram n - n - 1 postlogd",
        ] {
            master.push_str(&format!("{service}\n"));
        }
        std::fs::write(path("config").join("main.cf"), main).unwrap();
        std::fs::write(path("config").join("master.cf"), master).unwrap();
        let output = std::fs::File::create(path("output")).unwrap();
        let mut command = Command::new("postfix");
        command.arg("-c").arg(path("config")).arg("start-fg").stdin(Stdio::null());
        let child = command.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
        let master = Running(child);
        wait_for_port(port);
        Self { dir, port, _master: master }
    }

    fn log(&self) -> String {
        ["output", "log"].map(|name| std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()).concat()
    }

    fn files(&self, folder: &str) -> Vec<std::path::PathBuf> {
        let found = std::fs::read_dir(self.dir.path().join(folder));
        let mut out = Vec::new();
        for entry in found.into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                let inner = path.strip_prefix(self.dir.path()).unwrap().display().to_string();
                out.extend(self.files(&inner));
            } else {
                out.push(path);
            }
        }
        out
    }

    fn send(&self, text: &str) -> String {
        let mut smtp = Conversation::open(self.port);
        smtp.expect("220");
        smtp.say("EHLO client.example.org").expect("250");
        smtp.say("MAIL FROM:<anna@sender.example>").expect("250");
        smtp.say("RCPT TO:<user1@example.test>").expect("250");
        smtp.send_content(&letter("Lunch", text))
    }

    /// The next message that is delivered.
    #[track_caller]
    fn delivered(&self) -> String {
        for _ in 0..250 {
            if let Some(file) = self.files("mail/box/new").first() {
                let text = std::fs::read_to_string(file).unwrap();
                std::fs::remove_file(file).unwrap();
                return text;
            }
            std::thread::sleep(Duration::from_millis(40));
        }
        panic!("nothing was delivered: {}", self.log());
    }
}

#[test]
fn postfix_does_what_the_filter_says() {
    if !has("postfix") {
        return;
    }
    let node = node_with_words();
    let postfix = Postfix::start(node.port(891));
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
