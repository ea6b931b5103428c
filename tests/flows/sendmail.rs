//! Our filter as a milter of a real Sendmail.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use super::milter_tools::{Running, free_port, node_with_words, wait_for_port};
use crate::harness::{Conversation, Node, letter, skip, wants_all};

/// Where its packages are unpacked: beside Postfix they cannot be installed.
fn unpacked() -> Option<PathBuf> {
    if !wants_all() {
        skip("foreign programs run with ORTLER_TESTS=all");
        return None;
    }
    let folder = std::env::var_os("ORTLER_SENDMAIL").map(PathBuf::from);
    let found = folder.filter(|folder| folder.join("usr/libexec/sendmail/sendmail").exists());
    if found.is_none() {
        skip("Sendmail is not there: tests/run fetches it and names its folder in ORTLER_SENDMAIL");
    }
    found
}

/// A server that takes every message; gives its port, and what comes.
fn sink() -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, received) = sync_channel(100);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut answer, sender) = (stream.unwrap(), sender.clone());
            std::thread::spawn(move || {
                let (mut content, mut is_content) = (String::new(), false);
                answer.write_all(b"220 sink\r\n").unwrap();
                for line in BufReader::new(answer.try_clone().unwrap()).lines().map_while(Result::ok) {
                    let reply = match (is_content, line.as_str()) {
                        (true, ".") => {
                            is_content = false;
                            let _ = sender.send(std::mem::take(&mut content));
                            "250 taken"
                        }
                        (true, line) => {
                            content.push_str(&format!("{line}\n"));
                            continue;
                        }
                        (false, "DATA") => {
                            is_content = true;
                            "354 go on"
                        }
                        (false, "QUIT") => return answer.write_all(b"221 bye\r\n").unwrap_or_default(),
                        (false, _) => "250 yes",
                    };
                    answer.write_all(format!("{reply}\r\n").as_bytes()).unwrap();
                }
            });
        }
    });
    (port, received)
}

/// Sendmail with one listener, which hands all that it takes to one server.
struct Sendmail {
    dir: tempfile::TempDir,
    port: u16,
    received: Receiver<String>,
    _daemon: Running,
}

impl Sendmail {
    fn start(unpacked: &Path, milter: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir(dir.path().join("queue")).unwrap();
        std::fs::set_permissions(dir.path().join("queue"), std::fs::Permissions::from_mode(0o700)).unwrap();
        let ((next, received), port) = (sink(), free_port());
        let at = dir.path().display();
        // It asks no name server, neither for its clients nor for the next server.
        let source = format!(
            "OSTYPE(`linux')dnl\nFEATURE(`promiscuous_relay')dnl\nFEATURE(`accept_unresolvable_domains')dnl\n\
             FEATURE(`nocanonify')dnl\nFEATURE(`no_default_msa')dnl\ndefine(`confDELIVERY_MODE', `background')dnl\n\
             define(`QUEUE_DIR', `{at}/queue')dnl\ndefine(`confPID_FILE', `{at}/pid')dnl\ndefine(`STATUS_FILE', `')dnl\n\
             define(`ALIAS_FILE', `')dnl\ndefine(`confSERVICE_SWITCH_FILE', `{at}/switch')dnl\n\
             define(`confDOMAIN_NAME', `mta.example.test')dnl\ndefine(`RELAY_MAILER_ARGS', `TCP $h {next}')dnl\n\
             define(`SMART_HOST', `relay:[127.0.0.1]')dnl\nDAEMON_OPTIONS(`Name=MTA, Addr=127.0.0.1, Port={port}')dnl\n\
             INPUT_MAIL_FILTER(`ortler', `S=inet:{milter}@127.0.0.1, F=T, T=S:10s;R:10s;E:60s')dnl\nMAILER(`smtp')dnl\n"
        );
        std::fs::write(dir.path().join("our.mc"), source).unwrap();
        std::fs::write(dir.path().join("switch"), "hosts files\naliases files\npasswd files\n").unwrap();
        let parts = unpacked.join("usr/share/sendmail/cf");
        let mut make = Command::new("m4");
        make.arg(format!("-D_CF_DIR_={}/", parts.display())).arg(parts.join("m4/cf.m4")).arg(dir.path().join("our.mc"));
        let made = make.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        std::fs::write(dir.path().join("sendmail.cf"), made.stdout).unwrap();
        // A host name without a dot costs it a minute.
        let run = format!(
            "hostname mta.example.test && exec {}/usr/libexec/sendmail/sendmail -C {at}/sendmail.cf -bD -X {at}/traffic",
            unpacked.display()
        );
        let output = std::fs::File::create(dir.path().join("output")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--uts", "sh", "-c", &run]).stdin(Stdio::null());
        let child = command.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
        let daemon = Running(child);
        wait_for_port(port);
        Self { dir, port, received, _daemon: daemon }
    }

    fn log(&self) -> String {
        ["output", "traffic"]
            .map(|name| std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default())
            .concat()
    }

    /// The last reply to a message, or to the greeting if it ends there.
    fn send(&self, text: &str) -> String {
        let mut smtp = Conversation::open(self.port);
        smtp.expect("220");
        smtp.say("EHLO client.example.org").expect("250");
        let reply = smtp.say("MAIL FROM:<anna@sender.example>").line();
        if !reply.starts_with("250") {
            return reply;
        }
        smtp.say("RCPT TO:<user1@example.test>").expect("250");
        let forged = "X-Spam-Flag: NO\r\nAuthentication-Results: mx.example.test; dmarc=pass\r\n";
        smtp.send_content(&[forged.as_bytes(), &letter("Lunch", text)].concat())
    }

    #[track_caller]
    fn delivered(&self) -> String {
        let message = self.received.recv_timeout(Duration::from_secs(20));
        message.unwrap_or_else(|_| panic!("nothing was delivered: {}", self.log()))
    }

    /// Messages in quarantine, each with the line that says why.
    fn quarantined(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.dir.path().join("queue")).unwrap().flatten();
        let held = files.filter(|file| file.file_name().to_string_lossy().starts_with("hf"));
        // Sendmail's own marks are no UTF-8.
        let texts =
            held.map(|file| String::from_utf8_lossy(&std::fs::read(file.path()).unwrap_or_default()).into_owned());
        texts.filter_map(|text| text.lines().find_map(|line| line.strip_prefix('q').map(str::to_owned))).collect()
    }
}

#[test]
fn sendmail_does_what_the_filter_says() {
    let Some(unpacked) = unpacked() else { return };
    let mut node = node_with_words();
    let sendmail = Sendmail::start(&unpacked, node.port(891));
    let reply = sendmail.send("See you at the meeting.");
    assert!(reply.starts_with("250"), "{reply}: {}", sendmail.log());
    let clean = sendmail.delivered();
    assert!(clean.contains("\nX-Spam-Status: No, score=") && !clean.contains("X-Spam-Flag"), "{clean}");
    // Ours is above what Sendmail wrote; the forged one is gone.
    assert!(clean.starts_with("Authentication-Results: mx.") && !clean.contains("dmarc=pass"), "{clean}");

    assert!(sendmail.send("Please tag-this-one.").starts_with("250"));
    let tagged = sendmail.delivered();
    assert!(tagged.contains("\nX-Spam-Flag: YES\n") && tagged.contains("\nSubject: [SPAM] Lunch\n"), "{tagged}");

    let refused = sendmail.send("Please refuse-this-one.");
    assert!(refused.starts_with("554 5.7.1 Message refused as spam"), "{refused}: {}", sendmail.log());

    assert!(sendmail.send("Please hold-this-one.").starts_with("250"));
    let is_held = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(40));
        !sendmail.quarantined().is_empty()
    });
    assert!(
        is_held && sendmail.quarantined()[0].contains("reaches quarantine-score"),
        "{:?}: {}",
        sendmail.quarantined(),
        sendmail.log()
    );
    assert!(sendmail.received.try_recv().is_err(), "what is held is not delivered");

    // Nobody judges: it shall come again.
    node.stop();
    let away = sendmail.send("See you at the meeting.");
    assert!(away.starts_with("451 4."), "{away}: {}", sendmail.log());
}

#[test]
fn sendmail_asks_for_mail_again_that_could_not_be_scanned() {
    let Some(unpacked) = unpacked() else { return };
    let node = Node::with(&["--clamd", "/nonexistent/clamd.sock"]);
    let sendmail = Sendmail::start(&unpacked, node.port(891));
    let reply = sendmail.send("See you at the meeting.");
    assert!(reply.starts_with("451 4.7.0"), "{reply}: {}", sendmail.log());
    assert!(sendmail.received.try_recv().is_err());
}
