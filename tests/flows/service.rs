//! `ortler serve` under a service manager: readiness, privileges, open files, draining.

use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::{Served, configure, letter, make_certificate, run_program, skip};

#[test]
fn readiness_and_stopping_are_told_and_sessions_drain() {
    let mut node = Served::start(Ipv4Addr::new(127, 0, 0, 71), 10_000, "", |_| {});
    assert_eq!(node.notification(), "READY=1");
    node.add_account();
    // Our own certificate, not a self-signed one.
    let mut client = Command::new("openssl");
    client.args(["s_client", "-connect", "127.0.0.71:10993", "-CAfile"]).arg(node.dir().join("certificate.pem"));
    client.args(["-servername", "mail.example.test", "-verify_return_error"]).stdin(Stdio::null());
    let (_, told) = run_program(&mut client, Duration::from_secs(20));
    assert!(told.contains("CN = mail.example.test") && told.contains("Verify return code: 0"), "{told}");

    let mut smtp = node.connect(10_025);
    smtp.expect("220");
    smtp.say("EHLO client.example.org").expect("250");
    smtp.say("MAIL FROM:<a@x.example>").expect("250");
    smtp.say("RCPT TO:<anna@example.test>").expect("250");
    smtp.say("DATA").expect("354");
    let mut idle = sign_in(&node);
    idle.tagged("SELECT INBOX");
    idle.say("i IDLE").expect("+");
    node.terminate();
    assert_eq!(node.notification(), "STOPPING=1");
    assert!(idle.line().starts_with("* BYE"));
    smtp.send(&letter("last", "The last one.")).say(".").expect("250");
    smtp.expect("421");
    node.ended();
}

#[test]
fn root_is_given_up_for_good() {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !is_root {
        return skip("only root can become another user");
    }
    let mut node = Served::start(Ipv4Addr::new(127, 0, 0, 72), 0, "user = \"nobody\"", |_| {});
    assert_eq!(node.notification(), "READY=1");
    node.add_account();
    let mut smtp = node.connect(25);
    smtp.expect("220");
    smtp.say("EHLO client.example.org").expect("250");
    smtp.say("MAIL FROM:<a@x.example>").expect("250");
    smtp.say("RCPT TO:<anna@example.test>").expect("250");
    assert!(smtp.send_content(&letter("kept", "See you at the meeting.")).starts_with("250"));

    // Every thread: real, effective, saved and file-system user; no group of root; no capability.
    let nobody = nobody();
    for thread in std::fs::read_dir(format!("/proc/{}/task", node.pid())).unwrap() {
        let Ok(status) = std::fs::read_to_string(thread.unwrap().path().join("status")) else { continue };
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(field("Uid:").iter().all(|uid| *uid == nobody), "{status}");
        assert!(!field("Gid:").contains(&"0".to_owned()) && !field("Groups:").contains(&"0".to_owned()), "{status}");
        for set in ["CapInh:", "CapPrm:", "CapEff:"] {
            assert_eq!(field(set), ["0000000000000000"], "{set} {status}");
        }
    }
    each_file(&node.dir().join("data"), &mut |path, owner| {
        assert_eq!(owner.to_string(), nobody, "{}", path.display());
    });
    node.terminate();
    assert_eq!(node.notification(), "STOPPING=1");
    node.ended();
}

#[test]
fn the_limit_on_open_files_is_raised_and_told() {
    let node = Served::start(Ipv4Addr::new(127, 0, 0, 73), 10_000, "", |command| limit_files(command, 64, 2000));
    assert_eq!(node.notification(), "READY=1");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", node.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["2000", "2000"]);
    let log = node.log();
    assert!(log.contains("limits.open_files") && log.contains("limit=2000"), "{log}");
}

#[test]
fn too_few_open_files_are_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    make_certificate(dir.path());
    let config = configure(dir.path(), Ipv4Addr::new(127, 0, 0, 74), 10_000, "", ([127, 0, 0, 1], 53).into());
    let mut command = Command::new(env!("CARGO_BIN_EXE_ortler"));
    command.arg("serve").arg("--config").arg(config).stdin(Stdio::null());
    limit_files(&mut command, 64, 64);
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.lines().count() == 1 && told.contains("64 open files") && told.contains("ulimit -n"), "{told}");
}

#[test]
fn more_clients_than_files_are_turned_away() {
    let node = Served::start(Ipv4Addr::new(127, 0, 0, 75), 10_000, "", |command| limit_files(command, 420, 420));
    assert_eq!(node.notification(), "READY=1");
    node.add_account();
    // 60 places; the client limit of one address is 50.
    let imap: Vec<_> = (0..40).map(|_| sign_in(&node)).collect();
    let smtp: Vec<_> = (0..20)
        .map(|_| {
            let mut smtp = node.connect(10_025);
            smtp.expect("220");
            smtp
        })
        .collect();
    for _ in 0..100 {
        node.connect(10_025).expect("421");
    }
    drop(smtp);
    // There is room again, and files enough to store a message.
    let accepted = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        let mut smtp = node.connect(10_025);
        if !smtp.line().starts_with("220") {
            return false;
        }
        smtp.say("EHLO x").expect("250");
        smtp.say("MAIL FROM:<a@x.example>").expect("250");
        smtp.say("RCPT TO:<anna@example.test>").expect("250");
        smtp.send_content(&letter("x", "Hello.")).starts_with("250")
    });
    assert!(accepted, "{}", node.log());
    assert!(!node.log().contains("listener.failed"), "{}", node.log());
    drop(imap);
}

/// Starts the same program under other limits.
fn limit_files(command: &mut Command, soft: u64, hard: u64) {
    let mut limited = Command::new("prlimit");
    limited.arg(format!("--nofile={soft}:{hard}")).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        limited.env(name, value.unwrap_or_default());
    }
    *command = limited;
}

fn sign_in(node: &Served) -> crate::harness::Conversation {
    let mut imap = node.connect(10_143);
    imap.expect("* OK");
    imap.tagged("LOGIN anna@example.test \"secret words\"");
    imap
}

fn nobody() -> String {
    let output = Command::new("id").args(["-u", "nobody"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn each_file(path: &std::path::Path, check: &mut impl FnMut(&std::path::Path, u32)) {
    let about = std::fs::symlink_metadata(path).unwrap();
    check(path, about.uid());
    if about.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            each_file(&entry.unwrap().path(), check);
        }
    }
}
