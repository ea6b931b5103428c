//! Postfix: as the server that we send to and that sends to us.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use mailauth::stub::StubServer;

use super::milter_tools::{Running, free_port, has, wait_for_port};
use super::queue::{node_prepared, notices, submit, wait_until, waiting};
use crate::harness::{Conversation, Receiver, base64, letter};

/// Postfix with one network listener, whose mail for some domains goes to one Maildir.
pub(super) struct Postfix {
    dir: tempfile::TempDir,
    pub port: u16,
    _master: Running,
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // The program that was started waits for one that it started.
        let _ = Command::new("postfix").arg("-c").arg(self.dir.path().join("config")).arg("abort").output();
    }
}

impl Postfix {
    /// `boxes`: domains whose mail it keeps; `settings`: further lines of its main file.
    pub(super) fn start(boxes: &str, settings: &str) -> Self {
        Self::start_at(free_port(), boxes, settings)
    }

    pub(super) fn start_at(port: u16, boxes: &str, settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Its daemons are another user, and must get through.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
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
             virtual_mailbox_domains = {boxes}\nvirtual_mailbox_base = {at}/mail\nvirtual_mailbox_maps = static:box/\n\
             virtual_uid_maps = static:65534\nvirtual_gid_maps = static:65534\nvirtual_minimum_uid = 100\n\
             {settings}\n"
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
            "smtp unix - - n - - smtp",
            "relay unix - - n - - smtp",
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

    pub(super) fn log(&self) -> String {
        ["output", "log"].map(|name| std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()).concat()
    }

    pub(super) fn files(&self, folder: &str) -> Vec<std::path::PathBuf> {
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

    pub(super) fn send(&self, text: &str) -> String {
        let mut smtp = Conversation::open(self.port);
        smtp.expect("220");
        smtp.say("EHLO client.example.org").expect("250");
        smtp.say("MAIL FROM:<anna@sender.example>").expect("250");
        smtp.say("RCPT TO:<user1@example.test>").expect("250");
        smtp.send_content(&letter("Lunch", text))
    }

    /// The next message that is delivered.
    #[track_caller]
    pub(super) fn delivered(&self) -> String {
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

/// Every letter that leaves goes to Postfix, which keeps some, sends some on, refuses some, and brings us ours.
#[test]
fn postfix_and_we_work_for_each_other() {
    if !has("postfix") {
        return;
    }
    let (zone, far, postfix_port) = (StubServer::start(""), Receiver::kind(), free_port());
    let mut node = node_prepared(&zone, 25, "routes = \"routes.toml\"", |dir| {
        let route = "[[route]]\nname = \"smart\"\nrecipients = [\"*\"]\nhosts = [\"none://127.0.0.1:PORT\"]\n";
        std::fs::write(dir.join("routes.toml"), route.replace("PORT", &postfix_port.to_string())).unwrap();
    });
    let ways = format!(
        "transport_maps = inline:{{ example.test=smtp:[127.0.0.1]:{}, far.test=smtp:[127.0.0.1]:{}, {{dead.test = error:5.1.1 Nobody lives here}} }}",
        node.port(25),
        far.port()
    );
    // A smarthost that is not up yet.
    let first = submit(&node, &["early@boxes.test"], &letter("Early", "before it was there"));
    wait_until("a first attempt", || waiting(&node).iter().any(|one| one["attempts"].as_u64() > Some(0)));
    let postfix = Postfix::start_at(postfix_port, "boxes.test", &ways);
    node.command(&["queue", "retry", "--all"]);
    assert!(postfix.delivered().contains("before it was there"), "{first}: {}", postfix.log());

    // What it keeps is what was written, whatever the lines are like.
    let long = format!("{}\r\n.\r\n..two\r\n\r\n", "x".repeat(990)).repeat(300);
    let text = format!(
        "From: user1@example.test\r\nSubject: =?UTF-8?Q?Gr=C3=BC=C3=9Fe?=\r\nContent-Transfer-Encoding: 8bit\r\nContent-Type: text/plain; charset=utf-8\r\nMIME-Version: 1.0\r\n\r\nGr\u{fc}\u{df}e\r\n{long}"
    );
    submit(&node, &["box@boxes.test"], text.as_bytes());
    let kept = postfix.delivered();
    let (_, body) = kept.split_once("\n\n").unwrap();
    assert!(body == text.split_once("\r\n\r\n").unwrap().1.replace("\r\n", "\n"), "{} {}", kept.len(), text.len());

    // Its notices reach the sender; those of success too, which it gives for servers that give none.
    let mut smtp = node.connect(587);
    smtp.expect("220");
    smtp.say("EHLO laptop").expect("250");
    smtp.say(&format!("AUTH PLAIN {}", base64(b"\0user1@example.test\0demo"))).expect("235");
    smtp.say("MAIL FROM:<user1@example.test> RET=HDRS ENVID=our-own SMTPUTF8").expect("250");
    smtp.say("RCPT TO:<j\u{fc}rgen@boxes.test> NOTIFY=NEVER").expect("250");
    smtp.say("RCPT TO:<bob@far.test> NOTIFY=SUCCESS ORCPT=rfc822;robert@old.test").expect("250");
    smtp.say("RCPT TO:<eve@dead.test> NOTIFY=FAILURE").expect("250");
    smtp.say("RCPT TO:<quiet@dead.test> NOTIFY=NEVER").expect("250");
    let reply = smtp.send_content(&letter("Four", "for all of you"));
    assert!(reply.starts_with("250"), "{reply}");
    assert!(postfix.delivered().contains("\nDelivered-To: j\u{fc}rgen@boxes.test\n"), "{}", postfix.log());
    assert_eq!(far.wait_for(1)[0].rcpt, ["RCPT TO:<bob@far.test>"]);
    wait_until("two notices", || notices(&node, "user1").len() >= 2);
    let told = notices(&node, "user1");
    let about =
        |words: &str| told.iter().any(|text| text.contains(words) && text.contains("Original-Envelope-Id: our-own"));
    assert!(about("Original-Recipient: rfc822;robert@old.test") && about("eve@dead.test"), "{told:?}");
    assert_eq!(told.len(), 2, "{told:?}");

    // From it, and through it in a row, over connections that both keep open, while we are away and back.
    let mut smtp = Conversation::open(postfix.port);
    smtp.expect("220");
    smtp.say("EHLO client.example.org").expect("250");
    for nth in 0..20 {
        if nth == 10 {
            node.kill();
            node.serve();
        }
        smtp.say("MAIL FROM:<anna@sender.example>").expect("250");
        smtp.say("RCPT TO:<user2@example.test>").expect("250");
        assert!(smtp.send_content(&letter(&format!("From outside {nth}"), "Shall we?")).starts_with("250"));
        submit(&node, &["list@far.test"], &letter(&format!("To outside {nth}"), "We shall."));
    }
    wait_until("twenty letters from outside", || {
        // What it found nobody at home for, it would keep for minutes.
        let _ = Command::new("postfix").arg("-c").arg(postfix.dir.path().join("config")).arg("flush").output();
        node.messages("user2", "INBOX").len() + node.messages("user2", "Junk").len() >= 20
    });
    far.wait_for(21);
    wait_until("an empty queue", || waiting(&node).is_empty());
    assert_eq!((far.taken().len(), postfix.files("mail/box/new").len()), (21, 0));
}
