//! Real clients.

use std::process::Command;
use std::time::Duration;

use crate::harness::{Node, run_program, skip, wants_all};

#[test]
fn swaks_curl_mbsync_and_python_get_along() {
    if !wants_all() {
        return skip("foreign clients run with ORTLER_TESTS=all");
    }
    let node = Node::start();
    let patience = Duration::from_secs(60);
    let server = format!("127.0.0.1:{}", node.port(25));
    let (done, said) = run_program(
        Command::new("swaks").args([
            "--server",
            &server,
            "--tls",
            "--from",
            "a@x.example",
            "--to",
            "user1@example.test",
        ]),
        patience,
    );
    assert!(done && said.contains("250 2.0.0 Queued"), "{said}");
    let server = format!("127.0.0.1:{}", node.port(587));
    let login = ["--auth", "LOGIN", "--auth-user", "user1@example.test", "--auth-password", "demo"];
    let (done, said) = run_program(
        Command::new("swaks")
            .args(["--server", &server, "--tls", "--from", "user1@example.test", "--to", "user1@example.test"])
            .args(login),
        patience,
    );
    assert!(done, "{said}");
    for url in [
        format!("imap://127.0.0.1:{}/INBOX;UID=1", node.port(143)),
        format!("pop3s://127.0.0.1:{}/1", node.port(995)),
        format!("imaps://127.0.0.1:{}/INBOX;UID=1", node.port(993)),
    ] {
        let (done, said) =
            run_program(Command::new("curl").args(["-sk", "-u", "user1@example.test:demo", &url]), patience);
        assert!(done && said.contains("Delivered-To: user1@example.test"), "{url}: {said}");
    }
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("mbsyncrc");
    let text = format!(
        "IMAPAccount a\nHost 127.0.0.1\nPort {}\nUser user1@example.test\nPass demo\nSSLType None\nAuthMechs LOGIN\n\n\
         IMAPStore far\nAccount a\n\nMaildirStore near\nPath {dir}/mail/\nInbox {dir}/mail/INBOX\nSubFolders Verbatim\n\n\
         Channel c\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nExpunge Both\nSyncState {dir}/state/\n",
        node.port(143),
        dir = folder.path().display(),
    );
    std::fs::write(&config, text).unwrap();
    std::fs::create_dir_all(folder.path().join("mail")).unwrap();
    std::fs::create_dir_all(folder.path().join("state")).unwrap();
    let sync = || {
        let (done, said) = run_program(Command::new("mbsync").arg("-c").arg(&config).arg("c"), patience);
        assert!(done, "{said}");
    };
    sync();
    let new = folder.path().join("mail/INBOX/new");
    let count = || {
        std::fs::read_dir(&new).map_or(0, Iterator::count)
            + std::fs::read_dir(folder.path().join("mail/INBOX/cur")).map_or(0, Iterator::count)
    };
    assert_eq!(count(), 2);
    std::fs::write(folder.path().join("mail/INBOX/cur/1.local:2,S"), "Subject: from here\n\nx\n").unwrap();
    sync();
    assert_eq!(node.messages("user1", "INBOX").len(), 3);
    let script = format!(
        "import imaplib\nm=imaplib.IMAP4('127.0.0.1',{})\nm.login('user1@example.test','demo')\nm.select()\n\
         assert m.search(None,'SUBJECT','\"from here\"')[1][0]==b'3'\nm.store('1','+FLAGS','\\\\Deleted')\nm.expunge()\n\
         assert len(m.search(None,'ALL')[1][0].split())==2\nm.create('Work/Sub')\nm.copy('1','Work/Sub')\nm.select('Work/Sub')\n\
         assert m.search(None,'ALL')[1][0]==b'1'\nm.logout()\n",
        node.port(143)
    );
    let (done, said) = run_program(Command::new("python3").args(["-c", &script]), patience);
    assert!(done, "{said}");
}
