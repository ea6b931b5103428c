//! Accounts whose mailboxes are still on an old server.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use base::{Clock as _, SystemClock};

use crate::harness::{
    Conversation, Dovecot, Node, base64, http, letter, ortler, ortler_fails, report, run_program, skip, wants_all,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A node, and an old server beside it where `user1` still is. `options` say how the server is reached.
fn beside_dovecot(options: &[&str]) -> Option<(Node, Dovecot)> {
    beside_dovecot_with(&[], options)
}

/// The node is a demonstration with options of its own.
fn beside_dovecot_with(demo: &[&str], options: &[&str]) -> Option<(Node, Dovecot)> {
    if !wants_all() {
        skip("an old server runs with ORTLER_TESTS=all");
        return None;
    }
    let node = Node::with(demo);
    let Some(old) = Dovecot::start(node.port(600), node.port(25)) else {
        skip("Dovecot is not installed, or this is not root");
        return None;
    };
    let at = |nth: u16| format!("none://127.0.0.1:{}", old.port(nth));
    let (imap, pop3, submission, sieve, lmtp) = (at(0), at(1), at(2), at(3), at(4));
    let addresses = ["--imap", &imap, "--pop3", &pop3, "--submission", &submission, "--sieve", &sieve, "--lmtp", &lmtp];
    node.command(&[&["legacy", "add", "old"], &addresses[..], options].concat());
    move_to(&node, "user1", "old");
    Some((node, old))
}

fn move_to(node: &Node, user: &str, server: &str) {
    node.command(&["account", "set", &format!("{user}@example.test"), "--legacy", server]);
}

fn imap(node: &Node) -> Conversation {
    let mut imap = node.connect(143);
    imap.expect("* OK");
    imap
}

/// The answer to LOGIN.
fn login(node: &Node, user: &str, password: &str) -> String {
    imap(node).outcome(&format!("LOGIN {user}@example.test \"{password}\""))
}

fn append(imap: &mut Conversation, subject: &str) {
    let message = letter(subject, "From the old days.");
    imap.say(&format!("a APPEND INBOX {{{}}}", message.len())).expect("+");
    imap.send(&message).say("");
    loop {
        let line = imap.line();
        assert!(!line.starts_with("a NO") && !line.is_empty(), "{line}");
        if line.starts_with("a OK") {
            return;
        }
    }
}

fn curl(url: &str, password: &str) -> (bool, String) {
    let user = format!("user1@example.test:{password}");
    run_program(Command::new("curl").args(["-sk", "-u", &user, url]), PATIENCE)
}

#[test]
fn imap_and_pop3_sessions_go_on_at_the_old_server() {
    let Some((node, _old)) = beside_dovecot(&[]) else { return };
    // All at once: what follows the sign-in is for the old server, which answers it.
    let mut client = imap(&node);
    client.send(
        format!("a LOGIN user1@example.test \"{}\"\r\nb SELECT INBOX\r\nc NOOP\r\n", Dovecot::PASSWORD).as_bytes(),
    );
    let signed_in = client.line();
    assert!(signed_in.starts_with("a OK [CAPABILITY IMAP4rev1") && signed_in.contains(" SORT"), "{signed_in}");
    assert!(!signed_in.contains("AUTH="), "{signed_in}");
    loop {
        let line = client.line();
        assert!(!line.is_empty() && !line.starts_with("b NO"), "{line}");
        if line.starts_with("c OK") {
            break;
        }
    }
    append(&mut client, "Kept there");
    client.tagged("LOGOUT");
    // AUTHENTICATE, with and without a response at once.
    let response = base64(format!("\0user1@example.test\0{}", Dovecot::PASSWORD).as_bytes());
    assert!(imap(&node).outcome(&format!("AUTHENTICATE PLAIN {response}")).starts_with("o OK [CAPABILITY"));
    let mut client = imap(&node);
    client.say("o AUTHENTICATE PLAIN").expect("+");
    assert!(client.say(&response).line().starts_with("o OK [CAPABILITY"));
    // Others are served here, by the passwords that are known here.
    assert!(login(&node, "user2", "demo").starts_with("o OK"));
    assert!(login(&node, "user1", "demo").starts_with("o NO [AUTHENTICATIONFAILED]"));
    let (done, said) = curl(&format!("imap://127.0.0.1:{}/INBOX;UID=1", node.port(143)), Dovecot::PASSWORD);
    assert!(done && said.contains("Subject: Kept there"), "{said}");
    for url in [format!("pop3://127.0.0.1:{}/1", node.port(110)), format!("pop3s://127.0.0.1:{}/1", node.port(995))] {
        let (done, said) = curl(&url, Dovecot::PASSWORD);
        assert!(done && said.contains("Subject: Kept there"), "{said}");
        assert!(!curl(&url, "wrong").0);
    }
    let mut pop3 = node.connect(110);
    pop3.expect("+OK");
    pop3.say("USER user1@example.test").expect("+OK");
    pop3.say("PASS wrong").expect("-ERR [AUTH]");
    pop3.send(format!("USER user1@example.test\r\nPASS {}\r\nSTAT\r\nQUIT\r\n", Dovecot::PASSWORD).as_bytes());
    for expected in ["+OK", "+OK Signed in", "+OK 1 ", "+OK"] {
        pop3.expect(expected);
    }
    assert_eq!(pop3.rest(), b"", "the session ends with the old server's");
    mbsync_brings_all(&node);
}

fn mbsync_brings_all(node: &Node) {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "IMAPAccount a\nHost 127.0.0.1\nPort {}\nUser user1@example.test\nPass \"{}\"\nSSLType None\nAuthMechs LOGIN\n\n\
         IMAPStore far\nAccount a\n\nMaildirStore near\nPath {dir}/mail/\nInbox {dir}/mail/INBOX\n\n\
         Channel c\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nSyncState {dir}/state/\n",
        node.port(143),
        Dovecot::PASSWORD,
        dir = folder.path().display(),
    );
    let config = folder.path().join("mbsyncrc");
    std::fs::write(&config, text).unwrap();
    for name in ["mail", "state"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let (done, said) = run_program(Command::new("mbsync").arg("-c").arg(&config).arg("c"), PATIENCE);
    assert!(done, "{said}");
    let come =
        ["cur", "new"].map(|name| std::fs::read_dir(folder.path().join("mail/INBOX").join(name)).unwrap().count());
    assert_eq!(come.iter().sum::<usize>(), 1);
}

#[test]
fn the_old_server_submits_for_its_users() {
    let Some((node, old)) = beside_dovecot(&[]) else { return };
    let server = format!("127.0.0.1:{}", node.port(587));
    let send = |password: &str| {
        let mut swaks = Command::new("swaks");
        swaks.args(["--server", &server, "--tls", "--auth", "PLAIN", "--auth-user", "user1@example.test"]);
        swaks.args(["--auth-password", password, "--from", "user1@example.test", "--to", "user2@example.test"]);
        run_program(swaks.args(["--header", "Subject: By the old way"]), PATIENCE)
    };
    let (done, said) = send("wrong");
    assert!(!done && said.contains("535 5.7.8"), "{said}");
    let (done, said) = send(Dovecot::PASSWORD);
    assert!(done, "{said}{}", old.log());
    // It relays to us, as it always did to somebody.
    let stored = node.messages("user2", "INBOX").concat();
    let stored = String::from_utf8_lossy(&stored);
    assert!(stored.contains("Subject: By the old way"), "{stored}");
    // All at once.
    let response = base64(format!("\0user1@example.test\0{}", Dovecot::PASSWORD).as_bytes());
    let mut smtp = node.connect(587);
    smtp.expect("220");
    smtp.say("EHLO laptop").expect("250");
    smtp.send(format!("AUTH PLAIN {response}\r\nMAIL FROM:<user1@example.test>\r\nRCPT TO:<user2@example.test>\r\nRSET\r\nQUIT\r\n").as_bytes());
    for expected in ["235 2.7.0", "250", "250", "250", "221"] {
        smtp.expect(expected);
    }
}

/// The event that tells of a message's delivery: the log is written a moment later.
fn delivered(node: &Node, id: &str) -> serde_json::Value {
    for _ in 0..100 {
        std::thread::sleep(Duration::from_millis(50));
        let config = node.config();
        let told = ortler(&["trace", id, "--json", "--config", config.to_str().unwrap()]).stdout;
        let story: serde_json::Value = serde_json::from_slice(&told).unwrap_or_default();
        if let Some(found) = story.as_array().and_then(|all| all.iter().find(|event| event["kind"] == "delivered")) {
            return found.clone();
        }
    }
    panic!("the log has no delivery of {id}");
}

#[test]
fn mail_goes_to_the_old_server_before_it_is_acknowledged() {
    let Some((node, mut old)) = beside_dovecot(&[]) else { return };
    let subjects = |node: &Node| {
        let mut client = imap(node);
        client.tagged(&format!("LOGIN user1@example.test \"{}\"", Dovecot::PASSWORD));
        client.tagged("SELECT INBOX");
        let bodies = client.fetch_bodies();
        bodies.iter().map(|body| String::from_utf8_lossy(body).into_owned()).collect::<Vec<_>>()
    };
    let reply = node.send("anna@sender.example", &["User1+News@example.test"], &letter("Number one", ".\r\n..dots"));
    assert!(reply.starts_with("250 2.0.0 Queued as "), "{reply}");
    let id = reply.rsplit(' ').next().unwrap().to_owned();
    let found = subjects(&node);
    let one = found.first().unwrap();
    for part in [
        "Subject: Number one",
        "\r\n.\r\n..dots\r\n",
        "(Ortler) with ESMTP",
        "X-Spam-",
        "Return-Path: <anna@sender.example>",
    ] {
        assert!(one.contains(part), "{part}: {one}");
    }
    let handed = delivered(&node, &id);
    assert_eq!(handed["fields"]["legacy"], "old");
    assert!(handed["fields"]["said"].as_str().unwrap().starts_with("250 2.0.0 "), "{handed}");
    // Who is here and who is there need a transaction each; by LMTP each has an answer.
    let mut smtp = node.connect(25);
    smtp.expect("220");
    smtp.say("EHLO client.example.org").expect("250");
    smtp.say("MAIL FROM:<anna@sender.example>").expect("250");
    smtp.say("RCPT TO:<user1@example.test>").expect("250");
    smtp.say("RCPT TO:<user2@example.test>").expect("452 4.5.3");
    smtp.say("RCPT TO:<user3@example.test>").expect("452 4.5.3");
    assert!(smtp.send_content(&letter("Number two", "x")).starts_with("250"));
    let mut lmtp = node.connect(24);
    lmtp.expect("220");
    lmtp.say("LHLO client.example.org").expect("250");
    let both = |lmtp: &mut Conversation, subject: &str| {
        lmtp.say("MAIL FROM:<anna@sender.example>").expect("250");
        lmtp.say("RCPT TO:<user1@example.test>").expect("250");
        lmtp.say("RCPT TO:<user2@example.test>").expect("250");
        let first = lmtp.send_content(&letter(subject, "x"));
        [first, lmtp.line()].map(|reply| reply[..3].to_owned())
    };
    assert_eq!(both(&mut lmtp, "Number three"), ["250", "250"]);
    assert_eq!((subjects(&node).len(), node.messages("user2", "INBOX").len()), (3, 1));
    // An old server that is away: mail waits with its sender, everybody hears that it is for now.
    old.stop();
    let reply = node.send("anna@sender.example", &["user1@example.test"], &letter("Number four", "x"));
    assert!(reply.starts_with("451 4.4.1"), "{reply}");
    assert_eq!(both(&mut lmtp, "Number four for one"), ["451", "250"]);
    assert!(login(&node, "user1", Dovecot::PASSWORD).starts_with("o NO [UNAVAILABLE]"));
    let mut pop3 = node.connect(110);
    pop3.expect("+OK");
    pop3.say("USER user1@example.test").expect("+OK");
    pop3.say(&format!("PASS {}", Dovecot::PASSWORD)).expect("-ERR [SYS/TEMP]");
    let mut smtp = node.connect(587);
    smtp.expect("220");
    smtp.say("EHLO laptop").expect("250");
    smtp.say(&format!("AUTH PLAIN {}", base64(b"\0user1@example.test\0x"))).expect("454 4.7.0");
    old.resume();
    let reply = node.send("anna@sender.example", &["user1@example.test"], &letter("Number four", "x"));
    assert!(reply.starts_with("250"), "{reply}");
    assert_eq!((subjects(&node).len(), node.messages("user2", "INBOX").len()), (4, 2));
}

#[test]
fn a_captured_password_is_good_after_the_move() {
    let Some((node, _old)) = beside_dovecot(&[]) else { return };
    // Not captured unless that is wanted.
    assert!(login(&node, "user1", Dovecot::PASSWORD).starts_with("o OK"));
    move_to(&node, "user1", "none");
    assert!(login(&node, "user1", Dovecot::PASSWORD).starts_with("o NO [AUTHENTICATIONFAILED]"));
    assert!(login(&node, "user1", "demo").starts_with("o OK"));
    node.command(&["legacy", "set", "old", "--capture-passwords"]);
    // An account made for the move has no password of its own.
    node.command(&["domain", "set", "example.test", "--legacy", "old"]);
    node.command(&["account", "delete", "user3@example.test"]);
    node.command(&["account", "add", "user3@example.test", "--legacy", "old"]);
    assert_eq!(node.json(&["account", "show", "user3@example.test"])["legacy"], "old");
    for user in ["user1", "user3"] {
        move_to(&node, user, "old");
        assert!(login(&node, user, "wrong").starts_with("o NO [AUTHENTICATIONFAILED]"));
        assert!(login(&node, user, Dovecot::PASSWORD).starts_with("o OK"));
        move_to(&node, user, "none");
        let mut client = imap(&node);
        let answer = client.outcome(&format!("LOGIN {user}@example.test \"{}\"", Dovecot::PASSWORD));
        // Signed in here: what can be done is what we can do.
        assert!(answer.starts_with("o OK") && answer.contains("OBJECTID"), "{answer}");
        assert!(login(&node, user, "wrong").starts_with("o NO"));
    }
    let told = [
        node.log(),
        String::from_utf8_lossy(&std::fs::read(node.dir().join("directory.sqlite")).unwrap()).into_owned(),
    ];
    assert!(told.iter().all(|text| !text.contains(Dovecot::PASSWORD)), "a password is kept as a hash, and never told");
}

#[test]
fn the_web_says_where_the_mailbox_is() {
    let Some((node, mut old)) = beside_dovecot(&["--capture-passwords"]) else { return };
    let sign_in = |language: &str, password: &str| {
        let headers = format!("Content-Type: application/x-www-form-urlencoded\r\nAccept-Language: {language}\r\n");
        let body = format!("name=user1%40example.test&password={password}");
        let (status, _, page) = http(node.port(80), "POST /login", &headers, &body);
        (status, page)
    };
    let (status, page) = sign_in("en", "old+secret");
    assert!(status == 403 && page.contains("has not been moved"), "{status} {page}");
    let (status, page) = sign_in("de", "old+secret");
    assert!(status == 403 && page.contains("noch nicht"), "{status} {page}");
    let (status, page) = sign_in("en", "demo");
    assert!(status == 401 && page.contains("password is wrong"), "{status} {page}");
    let basic = |password: &str| {
        let headers =
            format!("Authorization: Basic {}\r\n", base64(format!("user1@example.test:{password}").as_bytes()));
        let (status, _, body) = http(node.port(80), "GET /jmap/session", &headers, "");
        (status, body)
    };
    let (status, body) = basic(Dovecot::PASSWORD);
    assert!(status == 403 && body.contains("\"elsewhere\""), "{status} {body}");
    assert_eq!(basic("demo").0, 401);
    old.stop();
    assert_eq!((sign_in("en", "old+secret").0, basic("demo").0), (503, 503));
    move_to(&node, "user1", "none");
    assert_eq!((basic(Dovecot::PASSWORD).0, basic("demo").0), (200, 401));
}

#[test]
fn the_old_servers_certificate_is_checked_as_said() {
    let Some((node, old)) = beside_dovecot(&[]) else { return };
    let (starttls, tls, proxied) = (
        format!("starttls://localhost:{}", old.port(0)),
        format!("tls://localhost:{}", old.port(5)),
        format!("none://127.0.0.1:{}", old.port(6)),
    );
    let certificate = old.certificate();
    let certificate = certificate.to_str().unwrap();
    let fingerprint = format!("sha256:{}", old.fingerprint());
    let wrong = format!("sha256:{}", "00".repeat(32));
    for (address, how, is_believed) in [
        (&starttls, ["--tls-verify", "system"], false),
        (&starttls, ["--tls-verify", &wrong], false),
        (&starttls, ["--tls-verify", &fingerprint], true),
        (&tls, ["--tls-verify", &fingerprint], true),
        (&tls, ["--tls-verify", &wrong], false),
        (&tls, ["--ca", certificate], true),
        (&starttls, ["--ca", certificate], true),
        (&starttls, ["--tls-verify", "off"], true),
        // TLS is spoken to a port that begins in the clear.
        (&starttls.replace("starttls", "tls"), ["--tls-verify", "off"], false),
        (&proxied, ["--proxy-protocol", "false"], false),
        (&proxied, ["--proxy-protocol", "true"], true),
    ] {
        node.command(&["legacy", "set", "old", "--imap", address, how[0], how[1]]);
        let answer = login(&node, "user1", Dovecot::PASSWORD);
        let expected = if is_believed { "o OK" } else { "o NO [UNAVAILABLE]" };
        assert!(answer.starts_with(expected), "{address} {how:?}: {answer}");
    }
}

/// A ManageSieve answer to its last line.
fn sieve_answer(client: &mut Conversation) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let line = client.line();
        assert!(!line.is_empty(), "the connection ended after {lines:?}");
        let is_last = ["OK", "NO", "BYE"].iter().any(|word| line.starts_with(word));
        lines.push(line);
        if is_last {
            return lines;
        }
    }
}

#[test]
fn filters_are_kept_on_by_the_old_server() {
    let Some((node, mut old)) = beside_dovecot(&[]) else { return };
    let greeted = || {
        let mut client = node.connect(190);
        let greeting = sieve_answer(&mut client);
        assert!(greeting.contains(&"\"SASL\" \"PLAIN\"".to_owned()) && greeting.last().unwrap().starts_with("OK"));
        client
    };
    let response = |user: &str, password: &str| base64(format!("\0{user}@example.test\0{password}").as_bytes());
    let authenticate = |user: &str, password: &str| format!("AUTHENTICATE \"PLAIN\" \"{}\"", response(user, password));
    let mut client = greeted();
    client.say(&authenticate("user1", "wrong")).expect("NO \"Wrong name or password\"");
    // All at once, the script as a literal.
    let script = "require \"fileinto\";\r\nfileinto \"Work\";\r\n";
    let signing_in = authenticate("user1", Dovecot::PASSWORD);
    client.send(
        format!("{signing_in}\r\nPUTSCRIPT \"work\" {{{}+}}\r\n{script}\r\nLISTSCRIPTS\r\n", script.len()).as_bytes(),
    );
    assert_eq!(sieve_answer(&mut client), ["OK \"Signed in\""]);
    assert!(sieve_answer(&mut client)[0].starts_with("OK"));
    assert_eq!(sieve_answer(&mut client)[0], "\"work\"");
    // The old server's own words from then on.
    client.say("CAPABILITY");
    assert!(sieve_answer(&mut client)[0].contains("Dovecot"));
    client.say("LOGOUT").expect("OK");
    assert_eq!(client.rest(), b"");
    // With a challenge, and the response as a literal.
    let mut client = greeted();
    client.say("AUTHENTICATE \"PLAIN\"").expect("\"\"");
    let response = response("user1", Dovecot::PASSWORD);
    client.say(&format!("{{{}+}}\r\n{response}", response.len())).expect("OK");
    // Whose mailbox is here has no filters yet, and hears so only with the password.
    let mut client = greeted();
    client.say(&authenticate("user2", "demo")).expect("NO \"Filter scripts are not kept on this server\"");
    client.say(&authenticate("user2", "wrong")).expect("NO \"Wrong name or password\"");
    client.say("NOOP").expect("OK");
    client.say("STARTTLS").expect("OK \"Begin TLS\"");
    old.stop();
    let mut client = greeted();
    client.say(&authenticate("user1", Dovecot::PASSWORD)).expect("NO (TRYLATER)");
}

/// Signs in from 192.0.2.77, as a balancer tells it.
const FROM_AFAR: &str = "
import base64, socket, ssl, sys
port, password, protocol = int(sys.argv[1]), sys.argv[2], sys.argv[3]
plain = socket.create_connection(('127.0.0.1', port), 30)
plain.sendall(b'PROXY TCP4 192.0.2.77 127.0.0.1 4711 %d\\r\\n' % port)
context = ssl._create_unverified_context()
stream = context.wrap_socket(plain).makefile('rwb')
response = base64.b64encode(b'\\0user1@example.test\\0' + password.encode()).decode()
said = {'imap': ['a AUTHENTICATE PLAIN ' + response, 'b LOGOUT'], 'pop3': ['AUTH PLAIN ' + response, 'QUIT'],
        'submission': ['EHLO laptop', 'AUTH PLAIN ' + response, 'QUIT']}[protocol]
stream.write(''.join(line + '\\r\\n' for line in said).encode())
stream.flush()
print(stream.read().decode())
";

#[test]
fn the_old_server_hears_where_the_client_is() {
    let Some((node, old)) = beside_dovecot_with(&["--trusted-proxy", "127.0.0.1"], &[]) else { return };
    let sign_in = |protocol: &str, port: u16| {
        let mut python = Command::new("python3");
        python.args(["-c", FROM_AFAR, &node.port(port).to_string(), Dovecot::PASSWORD, protocol]);
        let (done, said) = run_program(&mut python, PATIENCE);
        assert!(done, "{protocol}: {said}");
        said
    };
    let heard = || old.log().lines().filter(|line| line.contains("Login: ") && line.contains("rip=192.0.2.77")).count();
    for (nth, (protocol, port)) in [("imap", 993), ("pop3", 995), ("submission", 465)].into_iter().enumerate() {
        let said = sign_in(protocol, port);
        assert_eq!(heard(), nth + 1, "{protocol}: {said}{}", old.log());
    }
    // By a header, where that is wanted.
    let proxied = format!("none://127.0.0.1:{}", old.port(6));
    node.command(&["legacy", "set", "old", "--imap", &proxied, "--proxy-protocol"]);
    sign_in("imap", 993);
    assert_eq!(heard(), 4, "{}", old.log());
}

/// As many sessions as a provider's morning, on one node; all end with it.
#[test]
fn many_sessions_go_on_at_once_and_end_with_the_node() {
    const SESSIONS: usize = 200;
    let Some((mut node, _old)) = beside_dovecot(&[]) else { return };
    let cpu = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        // utime and stime, in hundredths of a second (proc(5)).
        fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap()
    };
    let (before, begun) = (cpu(), SystemClock.now());
    let mut sessions: Vec<Conversation> = (0..SESSIONS)
        .map(|_| {
            let mut client = imap(&node);
            client.tagged(&format!("LOGIN user1@example.test \"{}\"", Dovecot::PASSWORD));
            client
        })
        .collect();
    sessions.iter_mut().for_each(|client| drop(client.tagged("SELECT INBOX")));
    let (spent, took) = (cpu() - before, SystemClock.now() - begun);
    let each = f64::from(spent) * 10_000.0 / f64::from(u32::try_from(SESSIONS).unwrap());
    report(&format!("{SESSIONS} sessions on an old server: {each} µs of CPU each, {took:?} in all"));
    let begun = SystemClock.now();
    node.stop();
    assert!(SystemClock.now() - begun < Duration::from_secs(10), "open sessions hold the node up");
    sessions.iter_mut().for_each(|client| assert!(client.rest().starts_with(b"* BYE Server is shutting down")));
}

/// A server that takes mail by SMTP, for all but two; tells `taken` the recipients of each message.
fn picky_server(taken: std::sync::mpsc::SyncSender<String>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut to, mut line) = (Vec::new(), String::new());
            stream.write_all(b"220 old ESMTP\r\n").unwrap();
            while {
                line.clear();
                reader.read_line(&mut line).is_ok_and(|length| length > 0)
            } {
                let answer = match line.get(..4).unwrap_or_default() {
                    "EHLO" => "250-old\r\n250 8BITMIME",
                    "RCPT" if line.contains("user4") => "452 4.2.2 full",
                    "RCPT" if line.contains("user5") => "550 5.7.1 not wanted",
                    "RCPT" => {
                        to.push(line.trim_end().to_owned());
                        "250 ok"
                    }
                    "DATA" => {
                        stream.write_all(b"354 go\r\n").unwrap();
                        while {
                            line.clear();
                            reader.read_line(&mut line).is_ok_and(|length| length > 0) && line != ".\r\n"
                        } {}
                        let told = std::mem::take(&mut to).join(" ");
                        if taken.send(told).is_err() {
                            return;
                        }
                        "250 2.0.0 taken"
                    }
                    _ => "250 ok",
                };
                if stream.write_all(format!("{answer}\r\n").as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    port
}

#[test]
fn who_has_a_message_does_not_get_it_again_when_it_comes_again_for_others() {
    let node = Node::start();
    let (taken, took) = std::sync::mpsc::sync_channel(100);
    let address = format!("none://127.0.0.1:{}", picky_server(taken));
    node.command(&["legacy", "add", "picky", "--smtp", &address]);
    ["user1", "user4", "user5"].iter().for_each(|user| move_to(&node, user, "picky"));
    let send = |to: &[&str], subject: &str| {
        let to: Vec<String> = to.iter().map(|user| format!("{user}@example.test")).collect();
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        node.send("anna@sender.example", &to, &letter(subject, "x"))
    };
    let took = || took.try_iter().collect::<Vec<_>>();
    assert!(send(&["user1"], "Alone").starts_with("250 2.0.0 Queued"));
    assert_eq!(took(), ["RCPT TO:<user1@example.test>"]);
    assert_eq!(&send(&["user4"], "Full")[..9], "452 4.2.2");
    assert_eq!(&send(&["user5"], "Never")[..9], "550 5.7.1");
    assert!(took().is_empty());
    for _ in 0..3 {
        assert_eq!(&send(&["user1", "user4"], "For two")[..9], "452 4.2.2");
    }
    assert_eq!(took(), ["RCPT TO:<user1@example.test>"], "once");
    // Another message is another message.
    assert!(send(&["user1"], "Another").starts_with("250"));
    // One who never will, beside one who has it: no success, and no final failure for both.
    assert_eq!(&send(&["user1", "user5"], "For two others")[..3], "451");
    assert_eq!(took().len(), 2);
    // An alias that leads here and there: here only once it is there.
    node.command(&["alias", "add", "both@example.test", "user2@example.test", "user4@example.test"]);
    assert_eq!(&send(&["both"], "Here and there")[..9], "452 4.2.2");
    assert_eq!(node.messages("user2", "INBOX").len(), 0);
    move_to(&node, "user4", "none");
    assert!(send(&["both"], "Here and there").starts_with("250"));
    assert_eq!((node.messages("user2", "INBOX").len(), node.messages("user4", "INBOX").len()), (1, 1));
}

#[test]
fn old_servers_are_named_by_commands() {
    let node = Node::start();
    let made = node.json(&[
        "legacy",
        "add",
        "old",
        "--imap",
        "mail.old.example:993",
        "--pop3",
        "none://192.0.2.1:110",
        "--submission",
        "mail.old.example:587",
        "--lmtp",
        "none://192.0.2.1:24",
        "--capture-passwords",
    ]);
    assert_eq!(made["imap"], "tls://mail.old.example:993");
    assert_eq!(made["submission"], "starttls://mail.old.example:587");
    assert_eq!((&made["delivery"], &made["certificates"]), (&"lmtp+none://192.0.2.1:24".into(), &"system".into()));
    assert_eq!((&made["capture_passwords"], &made["proxy_protocol"]), (&true.into(), &false.into()));
    let set = node.json(&[
        "legacy",
        "set",
        "old",
        "--pop3",
        "none",
        "--smtp",
        "mail.old.example:25",
        "--capture-passwords",
        "false",
    ]);
    assert_eq!((&set["pop3"], &set["capture_passwords"]), (&serde_json::Value::Null, &false.into()));
    assert_eq!((&set["imap"], &set["delivery"]), (&made["imap"], &"smtp+starttls://mail.old.example:25".into()));
    move_to(&node, "user1", "old");
    assert_eq!(node.json(&["legacy", "list"])[0]["accounts"], 1);
    let config = node.config();
    let at = ["--config", config.to_str().unwrap()];
    for (arguments, code, words) in [
        (&["legacy", "add", "old"][..], 1, "exists already"),
        (&["legacy", "add", "none"], 1, "is not `none`"),
        (&["legacy", "set", "old", "--imap", "http://x:1"], 1, "an address is HOST:PORT"),
        (&["legacy", "set", "old", "--tls-verify", "maybe"], 1, "`maybe`"),
        (&["legacy", "set", "old"], 2, "nothing to change"),
        (&["legacy", "show", "older"], 1, "does not exist"),
        (&["legacy", "delete", "old"], 1, "still on the legacy server"),
        (&["account", "set", "user2@example.test", "--legacy", "older"], 1, "does not exist"),
        (&["account", "add", "new@example.test"], 2, "--legacy NAME"),
    ] {
        ortler_fails(&[arguments, &at].concat(), code, words);
    }
    move_to(&node, "user1", "none");
    node.command(&["legacy", "delete", "old"]);
    assert_eq!(node.json(&["legacy", "list"]), serde_json::json!([]));
}
