//! Several nodes as one system: who is there, and how one is taken out.

use std::process::Command;
use std::time::Duration;

use base::{Clock as _, SystemClock};
use engine::postgres::Server;

use super::postgres::{add_accounts, soon};
use crate::harness::{Conversation, Node, http, letter, ortler_fails};

fn states(node: &Node) -> Vec<String> {
    let all = node.json(&["cluster", "status"]);
    all.as_array().unwrap().iter().map(|one| one["state"].as_str().unwrap().to_owned()).collect()
}

fn is_ready(node: &Node) -> bool {
    http(node.port(90), "GET /readyz", "", "").0 == 200
}

#[test]
fn nodes_are_listed_drained_resumed_and_removed() {
    let Some(server) = Server::start() else { return };
    let (one, mut other) = (Node::on_postgres(&server.url(), ""), Node::on_postgres(&server.url(), ""));
    soon(|| states(&one) == ["up", "up"]);
    let name = format!("mx{}.example.test", other.port(0));

    // Drained from the other one: not ready, and sessions go on.
    add_accounts(&one, &["user1"]);
    soon(|| other.json(&["account", "list"]).to_string().contains("user1"));
    let mut session = other.sign_in("user1");
    one.command(&["cluster", "drain", &name]);
    soon(|| !is_ready(&other));
    assert!(is_ready(&one));
    assert!(states(&one).contains(&"draining".to_owned()));
    assert!(other.send("a@x.example", &["user1@example.test"], &letter("x", "Still here.")).starts_with("250"));
    session.tagged("SELECT INBOX");
    ortler_fails(&["cluster", "remove", &name, "--config", one.config().to_str().unwrap()], 1, "is up");
    other.command(&["cluster", "resume"]);
    soon(|| is_ready(&other));

    // Stopped, it is down at once; another one cannot take its name while it is up.
    drop(session);
    other.stop();
    assert_eq!(states(&one).iter().filter(|state| *state == "down").count(), 1);
    // Without a running node, too.
    assert!(other.json(&["cluster", "status"]).to_string().contains(&name));
    one.command(&["cluster", "remove", &name]);
    assert_eq!(states(&one), ["up"]);
    ortler_fails(&["cluster", "drain", "mx.nowhere.test", "--config", one.config().to_str().unwrap()], 1, "no node");
    other.resume();
    soon(|| states(&one) == ["up", "up"]);
}

#[test]
fn a_node_alone_can_be_drained() {
    let node = Node::start();
    assert_eq!(states(&node), ["up"]);
    node.command(&["cluster", "drain"]);
    soon(|| !is_ready(&node));
    assert_eq!(states(&node), ["draining"]);
    node.command(&["cluster", "resume"]);
    soon(|| is_ready(&node));
}

/// What the node itself has heard so far.
fn sees_both(node: &Node) -> bool {
    http(node.port(90), "GET /metrics", "", "").2.contains("ortler_cluster_nodes{state=\"up\"} 2")
}

/// Sessions that this node has led to others so far.
fn led(node: &Node) -> usize {
    let (_, _, metrics) = http(node.port(90), "GET /metrics", "", "");
    let line = metrics.lines().find_map(|line| line.strip_prefix("ortler_cluster_leads_total "));
    line.map_or(0, |count| count.parse().unwrap())
}

const USERS: [&str; 8] = ["user1", "user2", "user3", "user4", "user5", "user6", "user7", "user8"];

/// All in one piece, as a client may that does not wait.
fn read_in_one(node: &Node, user: &str) -> Conversation {
    let mut imap = node.connect(143);
    imap.expect("* OK");
    imap.say(&format!("n NOOP\r\na LOGIN {user}@example.test demo\r\nb SELECT INBOX\r\nc FETCH 1 ENVELOPE"));
    let mut told = String::new();
    while !told.contains("\r\nc OK") && !told.contains("\nc OK") {
        let line = imap.line();
        assert!(!line.is_empty(), "{user}: it ended after {told}");
        told.push_str(&format!("{line}\n"));
    }
    assert!(
        told.starts_with("n OK NOOP completed\na OK [CAPABILITY ") && told.contains(&format!("for {user} alone")),
        "{told}"
    );
    imap
}

#[test]
fn sessions_go_to_the_node_of_their_account_and_come_back_when_it_dies() {
    let Some(server) = Server::start() else { return };
    let (one, mut other) = (Node::on_postgres(&server.url(), ""), Node::on_postgres(&server.url(), ""));
    add_accounts(&one, &USERS);
    soon(|| other.json(&["account", "list"]).to_string().contains("user8"));
    soon(|| sees_both(&one) && sees_both(&other));
    for user in USERS {
        let letter = letter(&format!("for {user} alone"), "Only one may read it.");
        assert!(one.send("a@x.example", &[&format!("{user}@example.test")], &letter).starts_with("250"));
    }
    // Through either, each account is served by the same node.
    let mut through_one: Vec<Conversation> = USERS.iter().map(|user| read_in_one(&one, user)).collect();
    let from_one = led(&one);
    USERS.iter().for_each(|user| drop(read_in_one(&other, user)));
    assert!((1..USERS.len()).contains(&from_one), "{from_one}");
    assert_eq!(from_one + led(&other), USERS.len());

    // Large answers and long questions, news, and the end.
    let letter_of = letter("large", &"0123456789 abcdefghijk\r\n".repeat(100_000));
    for (imap, user) in through_one.iter_mut().zip(USERS) {
        imap.say(&format!("d APPEND INBOX {{{}+}}", letter_of.len())).send(&letter_of).send(b"\r\n");
        while !imap.line().starts_with("d OK") {}
        assert!(imap.fetch_bodies()[1] == letter_of, "{user}");
        imap.say("i IDLE").expect("+");
        other.send("a@x.example", &[&format!("{user}@example.test")], &letter("news", "News."));
        while !imap.line().contains("3 EXISTS") {}
        imap.say("DONE");
        while !imap.line().starts_with("i OK") {}
    }
    for user in USERS {
        let mut pop3 = one.connect(110);
        pop3.expect("+OK");
        pop3.say(&format!("USER {user}@example.test\r\nPASS demo\r\nSTAT\r\nRETR 1")).expect("+OK");
        pop3.expect("+OK Signed in, 3 messages");
        pop3.expect("+OK 3 ");
        pop3.expect("+OK");
        assert!(String::from_utf8_lossy(&pop3.multiline()).contains(&format!("for {user} alone")));
        pop3.say("QUIT").expect("+OK");
    }
    assert_eq!(led(&one), 2 * from_one);

    // The other node dies: sessions that it served end, all others go on, and all can be had again at once.
    other.kill();
    let mut ended = 0;
    for imap in &mut through_one {
        imap.say("z NOOP");
        let mut line = imap.line();
        while !line.is_empty() && !line.starts_with("z OK") {
            line = imap.line();
        }
        ended += usize::from(line.is_empty());
    }
    assert_eq!(ended, from_one);
    let killed = SystemClock.now();
    USERS.iter().for_each(|user| drop(read_in_one(&one, user)));
    let took = SystemClock.now() - killed;
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(led(&one), 2 * from_one);
}

#[test]
fn a_node_that_stops_says_so_also_to_sessions_that_it_led_away() {
    let Some(server) = Server::start() else { return };
    let (mut one, other) = (Node::on_postgres(&server.url(), ""), Node::on_postgres(&server.url(), ""));
    add_accounts(&one, &USERS);
    soon(|| sees_both(&one) && sees_both(&other));
    let mut sessions: Vec<Conversation> = USERS.iter().map(|user| one.sign_in(user)).collect();
    assert!((1..USERS.len()).contains(&led(&one)));
    one.stop();
    for (imap, user) in sessions.iter_mut().zip(USERS) {
        let last = imap.line();
        assert!(last.starts_with("* BYE Server is shutting down"), "{user}: {last}");
        assert_eq!(imap.line(), "", "{user}");
    }
}

/// Its connections are all there, and nothing comes from them.
#[test]
fn a_session_ends_when_the_node_that_it_was_led_to_stands_still() {
    let Some(server) = Server::start() else { return };
    let (one, other) = (Node::on_postgres(&server.url(), ""), Node::on_postgres(&server.url(), ""));
    add_accounts(&one, &USERS);
    soon(|| other.json(&["account", "list"]).to_string().contains("user8"));
    soon(|| sees_both(&one) && sees_both(&other));
    let mut sessions: Vec<(Conversation, bool)> = Vec::new();
    for user in USERS {
        let before = led(&one);
        let mut imap = one.sign_in(user);
        imap.tagged("SELECT INBOX");
        sessions.push((imap, led(&one) > before));
    }
    assert!(sessions.iter().any(|(_, is_led)| *is_led) && sessions.iter().any(|(_, is_led)| !*is_led));
    let signal =
        |what: &str| assert!(Command::new("kill").args([what, &other.pid().to_string()]).status().unwrap().success());
    signal("-STOP");
    // Told to, it stands still a moment later: each of its threads.
    soon(|| {
        let threads = std::fs::read_dir(format!("/proc/{}/task", other.pid())).unwrap();
        let stands = |thread: &std::fs::DirEntry| {
            std::fs::read_to_string(thread.path().join("stat")).is_ok_and(|stat| stat.contains(") T "))
        };
        threads.map(Result::unwrap).all(|thread| stands(&thread))
    });
    let stopped = SystemClock.now();
    for (imap, is_led) in &mut sessions {
        imap.say("n NOOP");
        let answer = imap.line();
        assert_eq!(answer.starts_with("* BYE [UNAVAILABLE]"), *is_led, "{answer}");
    }
    let took = SystemClock.now() - stopped;
    assert!(took < Duration::from_secs(10), "{took:?}");
    // At once served here.
    let again = SystemClock.now();
    USERS.iter().for_each(|user| drop(one.sign_in(user).tagged("SELECT INBOX")));
    assert!(SystemClock.now() - again < Duration::from_secs(3));
    signal("-CONT");
}

/// Only nodes of this cluster are heard on the listener between nodes.
#[test]
fn strangers_are_not_led_in() {
    let Some(server) = Server::start() else { return };
    let node = Node::on_postgres(&server.url(), "");
    add_accounts(&node, &["user1"]);
    let line = "{\"protocol\":\"imap\",\"account\":1,\"session\":\"00000000000000000000000007\",\"client\":\"127.0.0.1:9\",\"tls\":true,\"tag\":\"a\"}\n";
    let mut plain = node.connect(899);
    plain.send(line.as_bytes());
    assert!(!plain.line().contains("OK"));
    // TLS without a certificate, and with one of an authority of its own.
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=Ortler cluster", "-keyout", &at("key"), "-out", &at("certificate")])
        .output()
        .unwrap();
    assert!(made.status.success());
    let address = format!("127.0.0.1:{}", node.port(899));
    let own = ["-cert".to_owned(), at("certificate"), "-key".to_owned(), at("key")];
    for arguments in [&[][..], &own[..]] {
        let mut client = std::process::Command::new("openssl")
            .args(["s_client", "-quiet", "-tls1_3", "-connect", &address])
            .args(arguments)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // It may be gone before it is asked.
        let _ = std::io::Write::write_all(client.stdin.as_mut().unwrap(), line.as_bytes());
        let output = client.wait_with_output().unwrap();
        assert!(!String::from_utf8_lossy(&output.stdout).contains("OK"));
    }
}

/// Signs a browser in; gives its cookie.
fn browse(node: &Node, user: &str) -> String {
    let body = format!("name={user}%40example.test&password=demo");
    let mut http = node.connect(80);
    http.say(&format!(
        "POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n",
        body.len()
    ));
    http.send(body.as_bytes());
    loop {
        let line = http.line();
        assert!(!line.is_empty(), "no cookie came");
        if line.to_lowercase().starts_with("set-cookie:") {
            return line[11..].split(';').next().unwrap().trim().to_owned();
        }
    }
}

/// Who a node takes a browser for; `None`: it is not signed in.
fn browser(node: &Node, cookie: &str) -> Option<String> {
    let (status, _, body) = http(node.port(80), "GET /api/v1/session", &format!("Cookie: {cookie}\r\n"), "");
    assert!(matches!(status, 200 | 401), "{status}: {body}");
    let session: serde_json::Value = serde_json::from_str(&body).unwrap();
    session["address"].as_str().map(str::to_owned)
}

#[test]
fn a_browser_is_signed_in_on_every_node_and_after_a_restart() {
    let Some(server) = Server::start() else { return };
    let (mut one, mut other) = (Node::on_postgres(&server.url(), ""), Node::on_postgres(&server.url(), ""));
    add_accounts(&one, &["user1"]);
    soon(|| other.json(&["account", "list"]).to_string().contains("user1"));
    let cookie = browse(&one, "user1");
    for node in [&one, &other] {
        assert_eq!(browser(node, &cookie).as_deref(), Some("user1@example.test"));
    }
    one.kill();
    one.resume();
    assert!(browser(&one, &cookie).is_some());
    other.stop();
    // Signed out on one, it is signed out everywhere, within the few seconds that a node believes what it knew.
    other.resume();
    assert!(browser(&other, &cookie).is_some());
    let token = format!("Cookie: {cookie}\r\nContent-Type: application/x-www-form-urlencoded\r\n");
    assert_eq!(http(one.port(80), "POST /logout", &token, "").0, 303);
    assert_eq!(browser(&one, &cookie), None);
    soon(|| browser(&other, &cookie).is_none());

    // One node alone keeps its browsers, too.
    let mut alone = Node::start();
    let cookie = browse(&alone, "user1");
    alone.kill();
    alone.resume();
    assert!(browser(&alone, &cookie).is_some());
}

/// The line that ends a session, once it has come.
fn end_of(mut session: Conversation) -> String {
    let mut last = String::new();
    loop {
        match session.line() {
            line if line.is_empty() => return last,
            line => last = line,
        }
    }
}

#[test]
fn a_password_that_was_changed_opens_nothing_any_more_anywhere() {
    let Some(server) = Server::start() else { return };
    let (one, other) = (Node::on_postgres(&server.url(), ""), Node::on_postgres(&server.url(), ""));
    add_accounts(&one, &["user1", "user2"]);
    soon(|| other.json(&["account", "list"]).to_string().contains("user2"));
    soon(|| sees_both(&one) && sees_both(&other));
    for (user, change) in [("user1", ["--password-hash", "{PLAIN}new"]), ("user2", ["--enabled", "false"])] {
        let address = format!("{user}@example.test");
        // Of these, one is led to the other node.
        let mut sessions = Vec::new();
        for node in [&one, &other] {
            let mut imap = node.sign_in(user);
            imap.tagged("SELECT INBOX");
            imap.say("i IDLE").expect("+");
            sessions.push(imap);
            let mut stream = node.connect(80);
            let cookie = browse(node, user);
            stream.say(&format!("GET /jmap/eventsource/?types=*&ping=300 HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n"));
            while !stream.line().is_empty() {}
            sessions.push(stream);
        }
        let mut pop3 = other.connect(110);
        pop3.expect("+OK");
        pop3.say(&format!("USER {address}\r\nPASS demo")).expect("+OK");
        pop3.expect("+OK Signed in");
        sessions.push(pop3);
        let mut smtp = other.connect(587);
        smtp.expect("220");
        smtp.say("EHLO client.example").expect("250");
        let credentials = crate::harness::base64(format!("\0{address}\0demo").as_bytes());
        smtp.say(&format!("AUTH PLAIN {credentials}")).expect("235");
        smtp.say(&format!("MAIL FROM:<{address}>")).expect("250");
        smtp.say("RSET").expect("250");
        let cookie = browse(&other, user);

        one.command(&[&["account", "set", &address], &change[..]].concat());
        let changed = SystemClock.now();
        let ends: Vec<String> = sessions.into_iter().map(end_of).collect();
        assert!(ends[0].starts_with("* BYE Password") && ends[2].starts_with("* BYE Password"), "{ends:?}");
        assert!(ends[4].starts_with("-ERR [SYS/TEMP]"), "{ends:?}");
        soon(|| browser(&other, &cookie).is_none());
        soon(|| {
            let answer = smtp.say(&format!("MAIL FROM:<{address}>")).line();
            answer.starts_with("421") || smtp.say("RSET").line().is_empty()
        });
        assert_eq!(smtp.line(), "", "it is closed");
        let took = SystemClock.now() - changed;
        assert!(took < Duration::from_secs(5), "{took:?}");
        let mut imap = other.connect(143);
        imap.expect("* OK");
        imap.say(&format!("t LOGIN {address} demo")).expect("t NO");
    }
    // What goes on is what was opened with the new one.
    let mut imap = other.connect(143);
    imap.expect("* OK");
    imap.say("t LOGIN user1@example.test new").expect("t OK");
    one.command(&["account", "set", "user1@example.test", "--name", "Somebody"]);
    std::thread::sleep(Duration::from_secs(2));
    imap.tagged("SELECT INBOX");
}

/// Attempts with a wrong password, all at once, of a client that a proxy names; the codes of the answers.
fn guess(node: &Node, attempts: usize) -> Vec<String> {
    let guess_once = || {
        let mut smtp = node.connect(587);
        smtp.expect("220");
        smtp.say("EHLO proxy.example").expect("250");
        smtp.say("XCLIENT ADDR=203.0.113.9").expect("220");
        smtp.say("EHLO client.example").expect("250");
        let wrong = crate::harness::base64(b"\0user1@example.test\0wrong");
        smtp.say(&format!("AUTH PLAIN {wrong}")).line()[..3].to_owned()
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..attempts).map(|_| scope.spawn(guess_once)).collect();
        running.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

#[test]
fn passwords_are_guessed_at_all_nodes_no_more_often_than_at_one() {
    let Some(server) = Server::start() else { return };
    let proxy = "[network]\ntrusted_proxies = [\"127.0.0.1/32\"]";
    let (one, other) = (Node::on_postgres(&server.url(), proxy), Node::on_postgres(&server.url(), proxy));
    add_accounts(&one, &["user1"]);
    soon(|| other.json(&["account", "list"]).to_string().contains("user1"));
    assert_eq!(guess(&other, 1), ["535"]);
    // The allowance of fifty, between the two of them.
    let answers = [guess(&one, 15), guess(&other, 15), guess(&one, 15)].concat();
    assert!(answers.iter().all(|answer| answer == "535"), "{answers:?}");
    let answers = guess(&one, 15);
    assert!(answers.contains(&"535".to_owned()), "{answers:?}");
    soon(|| guess(&other, 1) == ["454"] && guess(&one, 1) == ["454"]);
    // It is that client's alone.
    drop(other.sign_in("user1"));
}

/// Another machine becomes a node by a code, which is good once and for a while.
#[test]
fn a_machine_joins_by_a_code() {
    let Some(server) = Server::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("database.password");
    std::fs::write(&secret, "not asked for on loopback\n").unwrap();
    let option = format!("postgresql_password_file = \"{}\"", secret.display());
    let one = Node::on_postgres(&server.url(), &option);
    add_accounts(&one, &["user1"]);
    let code = || one.command(&["cluster", "invite"]).trim().to_owned();
    let (first, second) = (code(), code());
    let name = "mx-new.example.test";
    let new = folder.path().join("new/ortler.toml");
    let file = new.to_str().unwrap().to_owned();
    let join = |code: &str, name: &str, file: &str| {
        ["cluster", "join", code, "--name", name, "--config", file].map(str::to_owned)
    };
    let refused = |code: &str, name: &str, words: &str| {
        let arguments = join(code, name, &file);
        ortler_fails(&arguments.each_ref().map(String::as_str), 1, words);
        assert!(!new.exists());
    };
    refused("ortler-nonsense", name, "no code");
    refused(&first[..first.len() - 1], name, "no code");
    refused(&first, &format!("mx{}.example.test", one.port(0)), "choose another name");
    let arguments = join(&first, name, &file);
    let joined = crate::harness::ortler(&arguments.each_ref().map(String::as_str));
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    let written = std::fs::read_to_string(&new).unwrap();
    assert!(written.contains(name) && new.with_file_name("database.password").exists(), "{written}");
    refused_again(&first, &folder);
    // It is a node: with ports of its own, as two nodes are on one machine here.
    let node = Node::joined(&one, &new);
    soon(|| states(&one) == ["up", "up"]);
    assert!(
        node.send("a@x.example", &["user1@example.test"], &letter("joined", "Through the new one.")).starts_with("250")
    );
    assert_eq!(one.messages("user1", "INBOX").len(), 1);
    soon(|| sees_both(&one) && sees_both(&node));
    assert_eq!(node.messages("user1", "INBOX").len(), 1);
    // One that ends before it is used.
    let sql = server
        .command("psql")
        .args([&server.url(), "-c", "UPDATE cluster_invitation SET until = until - interval '1 hour'"])
        .output()
        .unwrap();
    assert!(sql.status.success(), "{}", String::from_utf8_lossy(&sql.stderr));
    refused_again(&second, &folder);
}

fn refused_again(code: &str, folder: &tempfile::TempDir) {
    let other = folder.path().join("other.toml").display().to_string();
    ortler_fails(&["cluster", "join", code, "--name", "mx-other.example.test", "--config", &other], 1, "not valid");
}

/// A JMAP call of a user, by HTTP Basic; status and answer.
fn call(node: &Node, user: &str, method: &str, arguments: &str) -> (u16, String) {
    let body = format!(
        "{{\"using\":[\"urn:ietf:params:jmap:core\",\"urn:ietf:params:jmap:mail\"],\"methodCalls\":[[\"{method}\",{arguments},\"0\"]]}}"
    );
    let credentials = crate::harness::base64(format!("{user}@example.test:demo").as_bytes());
    let headers = format!("Authorization: Basic {credentials}\r\nContent-Type: application/json\r\n");
    let (status, _, body) = http(node.port(80), "POST /jmap/", &headers, &body);
    (status, body)
}

#[test]
fn web_requests_go_to_the_node_of_their_account() {
    let Some(server) = Server::start() else { return };
    let (one, mut other) = (Node::on_postgres(&server.url(), ""), Node::on_postgres(&server.url(), ""));
    add_accounts(&one, &USERS);
    soon(|| other.json(&["account", "list"]).to_string().contains("user8"));
    soon(|| sees_both(&one) && sees_both(&other));
    let large = letter("large", &"0123456789 abcdefghijk\r\n".repeat(100_000));
    for user in USERS {
        assert!(one.send("a@x.example", &[&format!("{user}@example.test")], &large).starts_with("250"));
    }
    let (before_one, before_other) = (led(&one), led(&other));
    let mut streams = Vec::new();
    for user in USERS {
        for node in [&one, &other] {
            let (status, answer) = call(node, user, "Mailbox/get", "{\"accountId\":null,\"ids\":null}");
            assert_eq!(status, 200, "{answer}");
        }
        // A whole message through either, by a browser.
        let (cookie, port) = (browse(&one, user), one.port(80));
        let (_, _, session) = http(port, "GET /jmap/session", &format!("Cookie: {cookie}\r\n"), "");
        let session: serde_json::Value = serde_json::from_str(&session).unwrap();
        let account = session["primaryAccounts"]["urn:ietf:params:jmap:mail"].as_str().unwrap();
        let (_, found) = call(&one, user, "Email/query", &format!("{{\"accountId\":\"{account}\"}}"));
        let found: serde_json::Value = serde_json::from_str(&found).unwrap();
        let email = found["methodResponses"][0][1]["ids"][0].as_str().unwrap().to_owned();
        let arguments = format!("{{\"accountId\":\"{account}\",\"ids\":[\"{email}\"],\"properties\":[\"blobId\"]}}");
        let (_, found) = call(&one, user, "Email/get", &arguments);
        let found: serde_json::Value = serde_json::from_str(&found).unwrap();
        let blob = found["methodResponses"][0][1]["list"][0]["blobId"].as_str().unwrap().to_owned();
        let (status, _, body) =
            http(port, &format!("GET /jmap/download/{account}/{blob}/x.eml"), &format!("Cookie: {cookie}\r\n"), "");
        assert!(status == 200 && body.contains("0123456789 abcdefghijk") && body.len() > 2_000_000, "{status}");
        let mut stream = one.connect(80);
        stream.say(&format!("GET /jmap/eventsource/?types=*&ping=300 HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n"));
        while !stream.line().is_empty() {}
        streams.push(stream);
    }
    assert!(led(&one) > before_one && led(&other) > before_other);
    // A wrong password is as wrong there, and a stranger's cookie opens nothing.
    let credentials = crate::harness::base64(b"user1@example.test:wrong");
    for node in [&one, &other] {
        let headers = format!("Authorization: Basic {credentials}\r\n");
        assert_eq!(http(node.port(80), "POST /jmap/", &headers, "{}").0, 401);
    }
    // News come through the link.
    for (stream, user) in streams.iter_mut().zip(USERS) {
        other.send("a@x.example", &[&format!("{user}@example.test")], &letter("news", "News."));
        while !stream.line().starts_with("event: state") {}
    }
    // The other node dies: all is answered here, at once or after one request that fails.
    other.kill();
    let killed = SystemClock.now();
    for user in USERS {
        let status = call(&one, user, "Mailbox/get", "{\"accountId\":null,\"ids\":null}").0;
        assert!(matches!(status, 200 | 503), "{status}");
        assert_eq!(call(&one, user, "Mailbox/get", "{\"accountId\":null,\"ids\":null}").0, 200);
    }
    let took = SystemClock.now() - killed;
    assert!(took < Duration::from_secs(3), "{took:?}");
}
