//! Nodes that keep everything in PostgreSQL: one, and several that share a server.

use std::time::Duration;

use base::{Clock as _, SystemClock};
use engine::postgres::Server;

use crate::harness::{Conversation, Node, basic, http, letter, ortler_fails, run_program};

/// `example.test` and accounts in it, password `demo`.
pub fn add_accounts(node: &Node, users: &[&str]) {
    node.command(&["domain", "add", "example.test"]);
    for user in users {
        let address = format!("{user}@example.test");
        node.command(&["account", "add", &address, "--password-hash", "{PLAIN}demo"]);
    }
}

#[test]
fn a_node_runs_wholly_on_postgresql() {
    let Some(server) = Server::start() else { return };
    let mut node = Node::on_postgres(&server.url(), "");
    add_accounts(&node, &["user1", "user2"]);
    node.command(&["account", "add", "admin@example.test", "--admin", "--password-hash", "{PLAIN}demo"]);
    node.command(&["alias", "add", "both@example.test", "user1@example.test", "user2@example.test"]);
    assert!(node.send("a@x.example", &["both@example.test"], &letter("to both", "Hello, you two.")).starts_with("250"));

    let mut imap = node.sign_in("user1");
    imap.tagged("SELECT INBOX");
    imap.tagged("STORE 1 +FLAGS (\\Seen $Kept)");
    imap.tagged("CREATE Projects");
    imap.tagged("COPY 1 Projects");
    let mut pop3 = node.connect(110);
    pop3.expect("+OK");
    pop3.say("USER user2@example.test").expect("+OK");
    pop3.say("PASS demo").expect("+OK");
    pop3.say("RETR 1").expect("+OK");
    assert!(String::from_utf8_lossy(&pop3.multiline()).contains("Hello, you two."));
    let query = r##"{"using":["urn:ietf:params:jmap:core","urn:ietf:params:jmap:mail"],"methodCalls":[
        ["Email/query",{"accountId":"a1","filter":{"text":"hello, you"}},"0"],
        ["Email/get",{"accountId":"a1","#ids":{"resultOf":"0","name":"Email/query","path":"/ids"},"properties":["subject"]},"1"]]}"##;
    let headers = format!("{}Content-Type: application/json\r\n", basic("user1"));
    let (status, _, answer) = http(node.port(80), "POST /jmap/", &headers, query);
    assert!(status == 200 && answer.contains("to both"), "{status} {answer}");
    let (status, _, answer) = http(node.port(80), "GET /api/v1/accounts", &basic("admin"), "");
    assert!(status == 200 && answer.contains("user2@example.test"), "{status} {answer}");
    assert_eq!(http(node.port(90), "GET /readyz", "", "").0, 200);
    let elsewhere = node.dir().join("copy");
    let arguments = ["storage", "snapshot", "--to", elsewhere.to_str().unwrap(), "--config"];
    ortler_fails(&[&arguments[..], &[node.config().to_str().unwrap()]].concat(), 1, "pg_basebackup");
    assert!(!elsewhere.exists() && !node.dir().join("mail.sqlite").exists());

    node.stop();
    // Commands work on the server's tables without a node.
    assert!(node.command(&["account", "list", "--json"]).contains("user2@example.test"));
    assert!(node.command(&["mailbox", "list", "user1@example.test", "--json"]).contains("Projects"));
    node.command(&["audit", "--deep", "--json"]);
    node.command(&["gc", "--json"]);
    node.resume();
    let mut imap = node.sign_in("user1");
    imap.tagged("SELECT Projects");
    let flags = imap.tagged("FETCH 1 (FLAGS)").concat();
    assert!(flags.contains("\\Seen") && flags.contains("$Kept"), "{flags}");
    assert_eq!(node.messages("user2", "INBOX").len(), 1);
}

/// A session in IDLE on INBOX.
fn idle(node: &Node, user: &str) -> Conversation {
    let mut imap = node.sign_in(user);
    imap.tagged("SELECT INBOX");
    imap.say("i IDLE").expect("+");
    imap
}

/// Reads on to a line that holds `words`.
#[track_caller]
fn until(session: &mut Conversation, words: &str) {
    loop {
        let line = session.line();
        assert!(!line.is_empty(), "the connection ended before {words}");
        if line.contains(words) {
            return;
        }
    }
}

/// Asks again until it holds; a change of another node counts within 5 s.
#[track_caller]
pub fn soon(mut holds: impl FnMut() -> bool) {
    let deadline = SystemClock.now() + Duration::from_secs(5);
    while !holds() {
        assert!(SystemClock.now() < deadline, "not within 5 s");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn sign_in_answer(node: &Node, user: &str, password: &str) -> bool {
    let mut imap = node.connect(143);
    imap.expect("* OK");
    imap.say(&format!("t LOGIN {user}@example.test {password}"));
    imap.line().starts_with("t OK")
}

#[test]
fn nodes_that_share_a_server_are_one_system() {
    let Some(server) = Server::start() else { return };
    let (one, other) = (Node::on_postgres(&server.url(), ""), Node::on_postgres(&server.url(), ""));
    add_accounts(&one, &["user1"]);
    soon(|| sign_in_answer(&other, "user1", "demo"));

    // A delivery and a flag on one node wake a session on the other: long before the look that comes every 30 s.
    let started = SystemClock.now();
    let mut waiting = idle(&other, "user1");
    for nth in 1..=3 {
        one.send("a@x.example", &["user1@example.test"], &letter(&format!("news {nth}"), "Something new."));
        until(&mut waiting, &format!("* {nth} EXISTS"));
        let mut imap = one.sign_in("user1");
        imap.tagged("SELECT INBOX");
        imap.tagged(&format!("STORE {nth} +FLAGS (\\Flagged)"));
        until(&mut waiting, "\\Flagged");
    }
    assert!(SystemClock.now() - started < Duration::from_secs(25), "the hints did not come");

    // What was set there is seen here.
    waiting.say("DONE");
    until(&mut waiting, "i OK");
    waiting.tagged("STORE 2 +FLAGS (\\Answered)");
    let mut imap = one.sign_in("user1");
    imap.tagged("SELECT INBOX");
    let flags = imap.tagged("FETCH 2 (FLAGS)").concat();
    assert!(flags.contains("\\Answered") && flags.contains("\\Flagged"), "{flags}");

    // Accounts and passwords.
    other.command(&["account", "add", "user2@example.test", "--password-hash", "{PLAIN}demo"]);
    soon(|| sign_in_answer(&one, "user2", "demo"));
    one.command(&["account", "set", "user2@example.test", "--password-hash", "{PLAIN}changed"]);
    soon(|| !sign_in_answer(&other, "user2", "demo"));
    assert!(sign_in_answer(&other, "user2", "changed"));

    // Garbage is collected by one at a time, whoever asks; either sees a clean store.
    std::thread::scope(|scope| {
        for node in [&one, &other, &one, &other] {
            scope.spawn(|| node.command(&["gc", "--json"]));
        }
    });
    other.command(&["audit", "--deep", "--json"]);
}

#[test]
fn a_node_serves_again_when_its_server_does() {
    let Some(server) = Server::start() else { return };
    let node = Node::on_postgres(&server.url(), "");
    add_accounts(&node, &["user1"]);
    let mut imap = node.sign_in("user1");
    imap.tagged("SELECT INBOX");
    node.send("a@x.example", &["user1@example.test"], &letter("before", "Before it went."));
    server.control(&["-m", "immediate", "stop"]);
    let mut smtp = node.connect(25);
    smtp.expect("220");
    smtp.say("HELO x").expect("250");
    smtp.say("MAIL FROM:<a@x.example>").expect("250");
    // Not "no such user": it is not known.
    smtp.say("RCPT TO:<new@example.test>").expect("4");
    // A message that the session could not be told of is not passed over as if there were none.
    imap.tagged("NOOP");
    imap.say("a UID STORE 1 +FLAGS (\\Flagged)").expect("a NO [UNAVAILABLE]");
    let folder = server.socket_dir().display();
    let options = format!("-c listen_addresses='' -c unix_socket_directories='{folder}'");
    server.control(&["-o", &options, "-l", &format!("{folder}/again.log"), "start"]);
    let flags = imap.tagged("UID STORE 1 +FLAGS (\\Flagged)").concat();
    assert!(flags.contains("\\Flagged"), "{flags}");
    soon(|| {
        let mut smtp = node.connect(25);
        smtp.expect("220");
        smtp.say("HELO x").expect("250");
        smtp.say("MAIL FROM:<a@x.example>").expect("250");
        // Connections of before the crash may cost an answer that says to come back.
        smtp.say("RCPT TO:<user1@example.test>");
        smtp.line().starts_with("250") && smtp.send_content(&letter("after", "After it came.")).starts_with("250")
    });
    assert_eq!(node.messages("user1", "INBOX").len(), 2);
}

/// A certificate for `mail.example.test` and the authority that signed it.
fn sign_certificate(dir: &std::path::Path) {
    const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let openssl = |arguments: &str, key: &[&str]| {
        let mut command = std::process::Command::new("openssl");
        command.current_dir(dir).args(arguments.split(' ')).args(key);
        let (made, output) = run_program(&mut command, Duration::from_secs(30));
        assert!(made, "{output}");
    };
    openssl("req -x509 -subj /CN=authority -days 2 -keyout authority.key -out authority.pem", &KEY);
    let name = "-addext subjectAltName=DNS:mail.example.test";
    openssl(&format!("req -new -subj /CN=mail {name} -keyout key.pem -out request.pem"), &KEY);
    let by = "-CA authority.pem -CAkey authority.key -CAcreateserial -copy_extensions copy";
    openssl(&format!("x509 -req -in request.pem {by} -days 2 -out certificate.pem"), &[]);
}

#[test]
fn the_server_is_reached_by_tls_and_checked() {
    let Some(server) = Server::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    sign_certificate(dir.path());
    let port = server.listen_with_tls(&dir.path().join("certificate.pem"), &dir.path().join("key.pem"));
    let ca = format!("postgresql_ca = \"{}\"\n", dir.path().join("authority.pem").display());
    // The certificate is for mail.example.test; `hostaddr` says where that is.
    let url = format!("host=mail.example.test hostaddr=127.0.0.1 port={port} user=ortler dbname=postgres");
    let password = dir.path().join("password");
    std::fs::write(&password, "hush\n").unwrap();
    let options = format!("{ca}postgresql_password_file = \"{}\"\n", password.display());
    let node = Node::on_postgres(&url, &format!("postgresql_tls = \"verify-full\"\n{options}"));
    add_accounts(&node, &["user1"]);
    drop(node);

    let config = dir.path().join("wrong.toml");
    for (host, tls, why) in [
        ("localhost", "verify-full", "certificate"),
        ("localhost", "off", "no encryption"),
        ("mail.example.test", "require", ""),
    ] {
        let text = format!(
            "[node]\nname = \"x\"\ndata = \"data\"\n[[listener]]\nprotocol = \"smtp\"\naddress = \"127.0.0.1:9\"\n[storage]\n\
             engine = \"postgresql\"\npostgresql = \"host={host} hostaddr=127.0.0.1 port={port} user=ortler dbname=postgres\"\n\
             postgresql_tls = \"{tls}\"\n{options}"
        );
        std::fs::write(&config, text).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ortler"));
        command.args(["account", "list", "--config"]).arg(&config);
        let (done, said) = run_program(&mut command, Duration::from_secs(30));
        assert!(done == why.is_empty() && said.contains(if done { "user1" } else { why }), "{host} {tls}: {said}");
        assert!(!said.contains("hush"));
    }
}
