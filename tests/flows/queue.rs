//! Mail that leaves: the queue, servers of every temper, and what staff do about it.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::{Clock as _, SystemClock};
use engine::postgres::Server;
use mailauth::stub::StubServer;
use serde_json::Value;

use super::postgres::add_accounts;
use crate::harness::{Node, Reaction, Receiver, base64, dns_address, letter, ortler, ortler_fails, report};

/// All of these lead to the receiver.
const ZONE: &str = "
    a.test MX 10 mx.a.test
    b.test MX 10 mx.b.test
    mx.a.test A 127.0.0.1
    mx.b.test A 127.0.0.1
    implicit.test A 127.0.0.1
    refuses.test MX 0 .
";

/// A node whose world is one server.
pub(super) fn node_with(zone: &StubServer, port: u16, queue: &str) -> Node {
    node_prepared(zone, port, queue, |_| {})
}

pub(super) fn node_prepared(zone: &StubServer, port: u16, queue: &str, prepare: impl FnOnce(&Path)) -> Node {
    let text = format!("[queue]\nport = {port}\nfirst_wait = \"1 s\"\nlongest_wait = \"2 s\"\n{queue}\n[filter]");
    let servers = (format!("\"{}\"", dns_address()), format!("\"{}\"", zone.address()));
    Node::start_configured(prepare, &[("[filter]", &text), (&servers.0, &servers.1)])
}

/// Sends by submission as user1; the message's id.
#[track_caller]
pub(super) fn submit(node: &Node, to: &[&str], message: &[u8]) -> String {
    submit_as(node, "user1", to, message)
}

#[track_caller]
fn submit_as(node: &Node, user: &str, to: &[&str], message: &[u8]) -> String {
    let mut smtp = node.connect(587);
    smtp.expect("220");
    smtp.say("EHLO laptop").expect("250");
    smtp.say(&format!("AUTH PLAIN {}", base64(format!("\0{user}@example.test\0demo").as_bytes()))).expect("235");
    smtp.say(&format!("MAIL FROM:<{user}@example.test>")).expect("250");
    for to in to {
        smtp.say(&format!("RCPT TO:<{to}>")).expect("250");
    }
    let reply = smtp.send_content(message);
    assert!(reply.starts_with("250 2.0.0 Queued as "), "{reply}");
    reply.trim_end().rsplit(' ').next().unwrap().to_owned()
}

#[track_caller]
pub(super) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = SystemClock.now() + Duration::from_secs(90);
    while !is_so() {
        assert!(SystemClock.now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(super) fn waiting(node: &Node) -> Vec<Value> {
    node.json(&["queue", "list"]).as_array().unwrap().clone()
}

/// What the story of a message says: kinds, with the recipient where there is one.
fn story(node: &Node, id: &str) -> Vec<String> {
    // The log is written within a moment.
    let told = ortler(&["trace", id, "--json", "--config", node.config().to_str().unwrap()]).stdout;
    let told: Vec<Value> = serde_json::from_slice(&told).unwrap_or_default();
    told.iter()
        .map(|event| {
            let party = event["party"].as_str().unwrap_or_default();
            format!("{} {party}", event["kind"].as_str().unwrap()).trim_end().to_owned()
        })
        .collect()
}

/// The notices in an inbox that came from the system.
pub(super) fn notices(node: &Node, user: &str) -> Vec<String> {
    let all = node.messages(user, "INBOX");
    all.iter()
        .map(|message| String::from_utf8_lossy(message).into_owned())
        .filter(|text| text.contains("multipart/report"))
        .collect()
}

#[test]
fn mail_goes_to_the_servers_of_its_domain() {
    let (zone, receiver) = (StubServer::start(ZONE), Receiver::kind());
    let node = node_with(&zone, receiver.port(), "");
    let message = b"From: user1@example.test\r\nTo: x@a.test\r\nBcc: hidden@b.test\r\nSubject: Bolts\r\n\r\n.dots\r\n..\r\nend\r\n";
    let id =
        submit(&node, &["x@a.test", "y@A.test", "hidden@b.test", "z@implicit.test", "user2@example.test"], message);
    let mut taken = receiver.wait_for(3);
    taken.sort_by_key(|one| one.rcpt.clone());
    let rcpt: Vec<_> = taken.iter().map(|one| one.rcpt.join(" ")).collect();
    assert_eq!(rcpt, ["RCPT TO:<hidden@b.test>", "RCPT TO:<x@a.test> RCPT TO:<y@a.test>", "RCPT TO:<z@implicit.test>"]);
    for one in &taken {
        assert!(one.mail.starts_with("MAIL FROM:<user1@example.test> SIZE="), "{}", one.mail);
        let (head, body) = one.content.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, ".dots\r\n..\r\nend\r\n");
        assert!(
            head.contains("Subject: Bolts") && head.contains("Message-ID: <") && head.starts_with("Received: "),
            "{head}"
        );
        assert!(!head.contains("hidden") && !head.contains("X-Spam") && !head.contains("127.0.0.1"), "{head}");
    }
    assert_eq!(node.messages("user2", "INBOX").len(), 1);
    wait_until("an empty queue", || waiting(&node).is_empty());
    wait_until("the end of the story", || {
        story(&node, &id).iter().filter(|event| event.starts_with("delivered ")).count() == 5
    });
    let told = story(&node, &id);
    assert!(told.contains(&"queued hidden@b.test".to_owned()), "{told:?}");
    assert!(notices(&node, "user1").is_empty());
}

#[test]
fn a_server_that_puts_off_is_asked_again() {
    let zone = StubServer::start(ZONE);
    let receiver = Receiver::start(&["PIPELINING", "8BITMIME"], {
        let tries = AtomicUsize::new(0);
        move |step| match step.verb.as_str() {
            "RCPT" if step.line.contains("grey") && tries.fetch_add(1, Ordering::SeqCst) < 4 => {
                Reaction::Say("451 4.7.1 Greylisted, come again")
            }
            _ => Reaction::Take,
        }
    });
    let node = node_with(&zone, receiver.port(), "warn_after = \"2 s\"");
    let id = submit(&node, &["grey@a.test", "white@a.test"], &letter("Grey", "x"));
    assert_eq!(receiver.wait_for(1)[0].rcpt, ["RCPT TO:<white@a.test>"]);
    wait_until("a note of the refusal", || {
        waiting(&node).first().is_some_and(|one| one["status"].as_str().unwrap().contains("Greylisted"))
    });
    let shown = node.json(&["queue", "show", &id]);
    assert_eq!(shown["recipients"].as_array().unwrap().len(), 1);
    assert_eq!((&shown["from"], &shown["subject"]), (&"<user1@example.test>".into(), &"Grey".into()));
    assert_eq!(receiver.wait_for(2)[1].rcpt, ["RCPT TO:<grey@a.test>"]);
    wait_until("an empty queue", || waiting(&node).is_empty());
    wait_until("the refusal in the story", || story(&node, &id).contains(&"deferred grey@a.test".to_owned()));
    assert_eq!(receiver.taken().len(), 2, "nobody got it twice");
}

#[test]
fn senders_are_told_of_what_does_not_arrive() {
    let zone = StubServer::start(ZONE);
    let receiver = Receiver::start(&["PIPELINING", "8BITMIME", "CHUNKING"], |step| match step.verb.as_str() {
        "RCPT" if step.line.contains("nobody") => Reaction::Say("550 5.1.1 No such user here"),
        "CONTENT" if step.to.iter().any(|to| to.contains("spam")) => Reaction::Say("554 5.7.1 We do not like it"),
        "RCPT" if step.line.contains("late") => Reaction::Say("450 4.2.2 Mailbox full"),
        _ => Reaction::Take,
    });
    let node = node_with(&zone, receiver.port(), "warn_after = \"2 s\"\nexpire_after = \"60 s\"");
    let to = ["nobody@a.test", "fine@a.test", "x@nowhere.test", "x@refuses.test"];
    let id = submit(&node, &to, &letter("To many", "text"));
    submit(&node, &["spam@b.test"], &letter("Offer", "text"));
    wait_until("three notices of one message and one of the other", || notices(&node, "user1").len() >= 4);
    let told = notices(&node, "user1");
    for (address, status, words) in [
        ("nobody@a.test", "5.1.1", "There is no such address there."),
        ("x@nowhere.test", "5.1.2", "takes no mail"),
        ("x@refuses.test", "5.1.10", "takes no mail"),
        ("spam@b.test", "5.7.1", "because of its rules"),
    ] {
        let notice = told.iter().find(|text| text.contains(&format!("Final-Recipient: rfc822; {address}"))).unwrap();
        assert!(notice.contains(&format!("Status: {status}\r\n")) && notice.contains(words), "{notice}");
        assert!(
            notice.starts_with("Return-Path: <>\r\n") && notice.contains("Auto-Submitted: auto-replied"),
            "{notice}"
        );
    }
    assert_eq!(receiver.taken().iter().filter(|one| one.rcpt == ["RCPT TO:<fine@a.test>"]).count(), 1);
    wait_until("the story's end", || story(&node, &id).contains(&"bounced nobody@a.test".to_owned()));
    // One that is late is told of once, and then given up by somebody's word.
    let late = submit(&node, &["late@a.test"], &letter("Late", "text"));
    wait_until("a notice of the delay", || notices(&node, "user1").iter().any(|text| text.contains("Action: delayed")));
    let counted = |action: &str| {
        let about = "Final-Recipient: rfc822; late@a.test\r\nAction: ".to_owned() + action;
        notices(&node, "user1").iter().filter(|text| text.contains(&about)).count()
    };
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((counted("delayed"), counted("failed")), (1, 0));
    node.command(&["queue", "bounce", &late, "--reason", "It has waited long enough"]);
    wait_until("a notice of the end", || counted("failed") == 1);
    let last = notices(&node, "user1").pop().unwrap();
    assert!(last.contains("It has waited long enough"), "{last}");
    wait_until("an empty queue", || waiting(&node).is_empty());
}

#[test]
fn nobody_is_told_of_a_notice_that_fails() {
    let zone = StubServer::start(ZONE);
    let receiver = Receiver::start(&[], |step| match step.verb.as_str() {
        "RCPT" => Reaction::Say("550 5.1.1 No such user"),
        _ => Reaction::Take,
    });
    let routes = "routes = \"routes.toml\"";
    let text = format!("[queue]\nport = {}\n{routes}\n[filter]", receiver.port());
    let servers = (format!("\"{}\"", dns_address()), format!("\"{}\"", zone.address()));
    let prepare = |dir: &Path| {
        let route =
            "[[route]]\nname = \"customer\"\nrecipients = [\"b.test\"]\nhosts = [\"127.0.0.1:PORT\"]\naccept = true\n";
        std::fs::write(dir.join("routes.toml"), route.replace("PORT", &receiver.port().to_string())).unwrap();
    };
    let node = Node::start_configured(prepare, &[("[filter]", &text), (&servers.0, &servers.1)]);
    // For a customer whose server is elsewhere mail is taken from everyone; the notice about it cannot be delivered either.
    assert!(node.send("sender@a.test", &["x@b.test"], &letter("Hello", "text")).starts_with("250"));
    wait_until("an empty queue", || waiting(&node).is_empty() && node.messages("admin", "INBOX").len() == 1);
    let told = String::from_utf8_lossy(&node.messages("admin", "INBOX")[0]).into_owned();
    assert!(told.contains("Final-Recipient: rfc822; sender@a.test") && told.contains("Action: failed"), "{told}");
    // For others it is not.
    let mut smtp = node.connect(25);
    smtp.expect("220");
    smtp.say("EHLO client.example.org").expect("250");
    smtp.say("MAIL FROM:<sender@a.test>").expect("250");
    smtp.say("RCPT TO:<x@a.test>").expect("554 5.7.1");
}

/// Every step goes wrong in every way, and all arrives, once as far as the standard allows.
#[test]
fn servers_of_every_temper_get_all_mail_in_the_end() {
    let zone = StubServer::start(ZONE);
    let turns = AtomicUsize::new(0);
    let receiver = Receiver::start(&["PIPELINING", "8BITMIME"], move |step| {
        // In the end it is tired of it.
        let turn = turns.fetch_add(1, Ordering::SeqCst);
        if turn > 300 {
            return Reaction::Take;
        }
        match (step.verb.as_str(), turn % 23) {
            ("CONNECT", 3) => Reaction::HangUp(""),
            ("CONNECT", 5) => Reaction::HangUp("421 4.3.2 Too busy"),
            ("EHLO", 7) => Reaction::HangUp("421 4.3.2 Go away"),
            ("MAIL", 9) => Reaction::Say("451 4.3.0 Later"),
            ("MAIL", 2) => Reaction::HangUp(""),
            ("RCPT", 11) => Reaction::Say("450 4.2.0 Later"),
            ("RCPT", 13) => Reaction::HangUp("421 4.7.0 Enough"),
            ("CONTENT", 15) => Reaction::Say("452 4.3.1 Disk full"),
            ("DATA", 17) => Reaction::HangUp(""),
            _ => Reaction::Take,
        }
    });
    let node = node_with(&zone, receiver.port(), "");
    for nth in 0..30 {
        submit(&node, &[&format!("r{nth}@a.test"), &format!("r{nth}@b.test")], &letter(&format!("Nr {nth}"), "text"));
    }
    // A lane whose server was away waits a minute, and ten seconds after each 421.
    let mut left = Vec::new();
    for _ in 0..150 {
        node.command(&["queue", "retry", "--all"]);
        std::thread::sleep(Duration::from_secs(1));
        left = waiting(&node);
        if left.is_empty() {
            break;
        }
    }
    assert_eq!(left, Vec::<Value>::new(), "{:?}", node.json(&["queue", "lanes"]));
    let mut got: Vec<String> = receiver.taken().iter().flat_map(|one| one.rcpt.clone()).collect();
    got.sort();
    let mut expected: Vec<String> =
        (0..30).flat_map(|nth| ["a", "b"].map(|domain| format!("RCPT TO:<r{nth}@{domain}.test>"))).collect();
    expected.sort();
    assert_eq!(got, expected);
    assert!(notices(&node, "user1").is_empty());
}

#[test]
fn a_node_that_dies_loses_no_mail_that_it_took() {
    let zone = StubServer::start(ZONE);
    let receiver = Receiver::start(&["PIPELINING"], |step| match step.verb.as_str() {
        "CONTENT" => Reaction::Stall(Duration::from_millis(30)),
        _ => Reaction::Take,
    });
    let mut node = node_with(&zone, receiver.port(), "");
    let mut sent = 0;
    for round in 0..4 {
        for nth in 0..25 {
            submit(&node, &[&format!("r{round}-{nth}@a.test")], &letter("Kill", "text"));
            sent += 1;
        }
        node.kill();
        node.serve();
    }
    wait_until("an empty queue", || waiting(&node).is_empty());
    let mut got: Vec<String> = receiver.taken().iter().flat_map(|one| one.rcpt.clone()).collect();
    got.sort();
    let copies = got.len();
    got.dedup();
    assert_eq!(got.len(), sent);
    // What a server took while its answer was on its way is sent again: no standard can avoid it.
    report(&format!("{} of {sent} messages twice after four kills", copies - sent));
    assert!(copies - sent <= 4 * 28, "{} copies", copies - sent);
    node.stop();
    let told = ortler(&["audit", "--config", node.config().to_str().unwrap(), "--json"]);
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stdout));
}

/// One connection fails while another is at work: the server is not away.
#[test]
fn a_server_that_took_one_message_is_not_left_for_a_minute() {
    let zone = StubServer::start(ZONE);
    let connected = AtomicUsize::new(0);
    let receiver = Receiver::start(&[], move |step| match step.verb.as_str() {
        "CONNECT" if connected.fetch_add(1, Ordering::SeqCst) == 1 => Reaction::HangUp(""),
        "CONTENT" => Reaction::Stall(Duration::from_secs(5)),
        _ => Reaction::Take,
    });
    let node = node_with(&zone, receiver.port(), "");
    submit(&node, &["slow@a.test"], &letter("Slow", "text"));
    wait_until("its connection", || !waiting(&node).is_empty());
    std::thread::sleep(Duration::from_secs(1));
    submit(&node, &["turned-away@a.test"], &letter("Turned away", "text"));
    receiver.wait_for(1);
    wait_until("the end of the first", || waiting(&node).iter().all(|one| one["to"] == "turned-away@a.test"));
    // It is written down a moment later how the lane was left.
    std::thread::sleep(Duration::from_secs(1));
    let lanes = node.json(&["queue", "lanes"]);
    assert!(lanes.as_array().unwrap().iter().all(|lane| lane["state"] != "away"), "{lanes}");
    receiver.wait_for(2);
}

/// Two nodes of one system: one dies again and again, and at last for good.
#[test]
fn what_a_dead_node_had_to_send_another_sends() {
    let Some(server) = Server::start() else { return };
    let receiver = Receiver::start(&["PIPELINING"], |step| match step.verb.as_str() {
        "CONTENT" => Reaction::Stall(Duration::from_millis(30)),
        _ => Reaction::Take,
    });
    let dir = tempfile::tempdir().unwrap();
    let route = format!(
        "[[route]]\nname = \"far\"\nrecipients = [\"*\"]\nhosts = [\"none://127.0.0.1:{}\"]\n",
        receiver.port()
    );
    std::fs::write(dir.path().join("routes.toml"), route).unwrap();
    let options = format!(
        "[queue]\nroutes = \"{}/routes.toml\"\nfirst_wait = \"1 s\"\nlongest_wait = \"2 s\"",
        dir.path().display()
    );
    let (mut one, other) = (Node::on_postgres(&server.url(), &options), Node::on_postgres(&server.url(), &options));
    // One account alone would be asked to go slowly.
    let users = ["anna", "bruno", "carla", "dario"];
    add_accounts(&one, &users);
    let mut sent = 0;
    for (round, user) in users.into_iter().enumerate() {
        for nth in 0..25 {
            for (node, name) in [(&one, "one"), (&other, "other")] {
                submit_as(node, user, &[&format!("{name}{round}-{nth}@d{}.test", nth % 5)], &letter("Kill", "text"));
                sent += 1;
            }
        }
        one.kill();
        if round < 3 {
            one.serve();
        }
    }
    wait_until("an empty queue", || waiting(&other).is_empty());
    let mut got: Vec<String> = receiver.taken().iter().flat_map(|one| one.rcpt.clone()).collect();
    got.sort();
    let copies = got.len();
    got.dedup();
    assert_eq!(got.len(), sent);
    report(&format!("{} of {sent} messages twice after four kills of one node of two", copies - sent));
    let told = ortler(&["audit", "--config", other.config().to_str().unwrap(), "--json"]);
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stdout));
}

#[test]
fn staff_hold_and_send_and_stop() {
    let (zone, receiver) = (StubServer::start(ZONE), Receiver::kind());
    let node = node_prepared(&zone, receiver.port(), "routes = \"routes.toml\"", |dir| {
        std::fs::write(dir.join("routes.toml"), "").unwrap();
    });
    // One that is wrong is told before the node is started with it.
    let config = node.config();
    std::fs::write(node.dir().join("routes.toml"), "[[route]]\nname = \"x\"\nhost = [\"a.test\"]\n").unwrap();
    let checked = ortler(&["config", "check", "--config", config.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(!checked.status.success() && said.contains("routes.toml") && said.contains("line 3"), "{said}");
    // Read while the node runs.
    let route = "[[route]]\nname = \"detour\"\nsenders = [\"nobody@x.test\"]\nhosts = [\"none://127.0.0.1:PORT\"]\n";
    std::fs::write(node.dir().join("routes.toml"), route.replace("PORT", &receiver.port().to_string())).unwrap();
    node.command(&["queue", "suspend", "a.test", "--reason", "their wish"]);
    let first = submit(&node, &["one@a.test"], &letter("First", "text"));
    let second = submit(&node, &["two@a.test", "three@a.test"], &letter("Second", "text"));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((receiver.taken().len(), waiting(&node).len()), (0, 3));
    let lanes = node.json(&["queue", "lanes"]);
    assert_eq!(
        (&lanes[0]["lane"], &lanes[0]["state"], &lanes[0]["recipients"]),
        (&"a.test".into(), &"suspended".into(), &3.into())
    );
    node.command(&["queue", "hold", &second, "--to", "two@a.test", "--reason", "a question"]);
    node.command(&["queue", "delete", &first]);
    node.command(&["queue", "resume", "a.test"]);
    assert_eq!(receiver.wait_for(1)[0].rcpt, ["RCPT TO:<three@a.test>"]);
    wait_until("the held one alone", || waiting(&node).len() == 1);
    let status = node.json(&["queue", "status"]);
    assert_eq!((&status["held"], &status["waiting"]), (&1.into(), &0.into()));
    let held = &waiting(&node)[0];
    assert_eq!((&held["state"], &held["status"]), (&"held".into(), &"a question".into()));
    wait_until("the new routes are known", || {
        let output =
            ortler(&["queue", "reroute", &second, "--by", "detour", "--config", node.config().to_str().unwrap()]);
        output.status.success()
    });
    assert_eq!(waiting(&node)[0]["lane"], ":via:detour");
    node.command(&["queue", "release", "--state", "held"]);
    assert_eq!(receiver.wait_for(2)[1].rcpt, ["RCPT TO:<two@a.test>"]);
    wait_until("an empty queue", || waiting(&node).is_empty());
    ortler_fails(&["queue", "retry", "--config", node.config().to_str().unwrap()], 2, "say which");
    ortler_fails(&["queue", "show", &first, "--config", node.config().to_str().unwrap()], 1, "not in the queue");
    let told = ortler(&["queue", "suspend", "x y", "--config", node.config().to_str().unwrap()]);
    assert!(!told.status.success());
}

/// Another system of ours is the smarthost: TLS, sign-in, and its own users at the other end.
#[test]
fn a_smarthost_gets_what_its_route_names() {
    let zone = StubServer::start(ZONE);
    let other = Node::start();
    let text = "[queue]\nroutes = \"routes.toml\"\n[filter]".to_owned();
    let servers = (format!("\"{}\"", dns_address()), format!("\"{}\"", zone.address()));
    let prepare = |dir: &Path| {
        let route = format!(
            "[[route]]\nname = \"smart\"\nrecipients = [\"*\"]\nhosts = [\"starttls://127.0.0.1:{}\"]\n\
             login = \"user1@example.test\"\npassword_file = \"password\"\ntrust = \"any\"\n",
            other.port(587)
        );
        std::fs::write(dir.join("routes.toml"), route).unwrap();
        std::fs::write(dir.join("password"), "demo\n").unwrap();
    };
    let node = Node::start_configured(prepare, &[("[filter]", &text), (&servers.0, &servers.1)]);
    // The other system knows its own users by the same domain: what is foreign here is told apart by a lane.
    let id = submit(&node, &["somebody@else.test"], &letter("Smart", "text"));
    wait_until("the other system's answer", || {
        story(&node, &id).iter().any(|event| event == "delivered somebody@else.test")
    });
    let told = node.json(&["trace", &id]);
    let sent = told.as_array().unwrap().iter().find(|event| event["kind"] == "delivered").unwrap();
    assert!(sent["fields"]["tls"].as_str().unwrap().starts_with("TLSv1.3"), "{sent}");
    assert!(sent["fields"]["status"].as_str().unwrap().contains("Queued as"), "{sent}");
    // It knows no such domain: the notice comes to its user, who sent it there.
    wait_until("a notice at the smarthost", || !notices(&other, "user1").is_empty());
}

/// What senders ask for beside delivery (RFC 3461, RFC 4865, RFC 8689).
#[test]
fn senders_wishes_are_kept() {
    let zone = StubServer::start(ZONE);
    let receiver = Receiver::start(&["PIPELINING", "8BITMIME", "DSN"], |step| match step.verb.as_str() {
        "RCPT" if step.line.contains("nobody") => Reaction::Say("550 5.1.1 No such user here"),
        _ => Reaction::Take,
    });
    let simple = Receiver::kind();
    let node = node_prepared(&zone, receiver.port(), "routes = \"routes.toml\"", |dir| {
        let route = "[[route]]\nname = \"simple\"\nrecipients = [\"b.test\"]\nhosts = [\"127.0.0.1:PORT\"]\n";
        std::fs::write(dir.join("routes.toml"), route.replace("PORT", &simple.port().to_string())).unwrap();
    });
    let mut smtp = node.connect(587);
    smtp.expect("220");
    let mut offers = smtp.say("EHLO laptop").line();
    while !offers.lines().last().unwrap().starts_with("250 ") {
        offers.push_str(&format!("\n{}", smtp.line()));
    }
    assert!(
        offers.contains("DSN") && offers.contains("FUTURERELEASE 2592000 20") && !offers.contains("REQUIRETLS"),
        "{offers}"
    );
    smtp.say(&format!("AUTH PLAIN {}", base64(b"\0user1@example.test\0demo"))).expect("235");
    smtp.say("MAIL FROM:<user1@example.test> REQUIRETLS").expect("555");
    smtp.say("MAIL FROM:<user1@example.test> HOLDFOR=9999999").expect("501");
    smtp.say("MAIL FROM:<user1@example.test> RET=FULL ENVID=a+2Bb").expect("250");
    smtp.say("RCPT TO:<one@a.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;first@old.test").expect("250");
    smtp.say("RCPT TO:<nobody@a.test> NOTIFY=FAILURE").expect("250");
    smtp.say("RCPT TO:<nobody2@a.test> NOTIFY=NEVER").expect("250");
    smtp.say("RCPT TO:<two@b.test> NOTIFY=SUCCESS").expect("250");
    smtp.say("RCPT TO:<user2@example.test> NOTIFY=SUCCESS").expect("250");
    assert!(smtp.send_content(&letter("Wishes", "the text")).starts_with("250"));
    let taken = receiver.wait_for(1).remove(0);
    assert!(taken.mail.contains(" RET=FULL ENVID=a+2Bb"), "{}", taken.mail);
    assert_eq!(taken.rcpt, ["RCPT TO:<one@a.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;first@old.test"]);
    assert!(!simple.wait_for(1)[0].mail.contains("RET="));
    wait_until("three notices", || notices(&node, "user1").len() >= 3);
    let told = notices(&node, "user1");
    let about = |address: &str| told.iter().find(|text| text.contains(&format!("Final-Recipient: rfc822; {address}")));
    let failed = about("nobody@a.test").unwrap();
    assert!(
        failed.contains("Original-Envelope-Id: a+b")
            && failed.contains("the text")
            && failed.contains("message/rfc822")
    );
    assert!(about("two@b.test").unwrap().contains("Action: relayed\r\nStatus: 2.0.0"));
    assert!(about("user2@example.test").unwrap().contains("Action: delivered\r\nStatus: 2.1.5"));
    // What a server confirms itself, and what nobody wants to hear of, is not told here.
    assert!(about("one@a.test").is_none() && about("nobody2@a.test").is_none() && told.len() == 3, "{told:?}");

    // A letter for later: it waits, for people here too, and can be taken back.
    smtp.say("MAIL FROM:<user1@example.test> HOLDFOR=4").expect("250");
    smtp.say("RCPT TO:<later@a.test>").expect("250");
    smtp.say("RCPT TO:<user3@example.test>").expect("250");
    assert!(smtp.send_content(&letter("Later", "x")).starts_with("250"));
    smtp.say("MAIL FROM:<user1@example.test> HOLDFOR=86400").expect("250");
    smtp.say("RCPT TO:<never@a.test>").expect("250");
    let reply = smtp.send_content(&letter("Never", "x"));
    let id = reply.trim_end().rsplit(' ').next().unwrap();
    node.command(&["queue", "delete", id]);
    assert_eq!((waiting(&node).len(), node.messages("user3", "INBOX").len()), (2, 0));
    assert!(receiver.wait_for(2)[1].rcpt == ["RCPT TO:<later@a.test>"]);
    wait_until("the copy here", || node.messages("user3", "INBOX").len() == 1);
    wait_until("an empty queue", || waiting(&node).is_empty());
}

#[test]
fn a_server_that_is_unwilling_is_passed_over() {
    let unwilling = Receiver::start(&["PIPELINING"], |step| match step.verb.as_str() {
        "MAIL" => Reaction::Say("451 4.3.2 Not now"),
        _ => Reaction::Take,
    });
    let second = Receiver::start_at(&format!("127.0.0.2:{}", unwilling.port()), &[], |_| Reaction::Take);
    let zone = StubServer::start(
        "two.test MX 10 one.two.test\ntwo.test MX 20 next.two.test\none.two.test A 127.0.0.1\nnext.two.test A 127.0.0.2",
    );
    let node = node_with(&zone, unwilling.port(), "");
    submit(&node, &["x@two.test"], &letter("Over there", "x"));
    assert_eq!(second.wait_for(1)[0].rcpt, ["RCPT TO:<x@two.test>"]);
    wait_until("an empty queue", || waiting(&node).is_empty());
    assert!(unwilling.taken().is_empty());
}

#[test]
fn nobody_sends_more_than_is_allowed() {
    let (zone, receiver) = (StubServer::start(ZONE), Receiver::kind());
    let node = node_with(&zone, receiver.port(), "[sending]\nrecipients_per_hour = 4\ndomain_recipients_per_hour = 6");
    let try_as = |user: u32, to: &[&str]| {
        let mut smtp = node.connect(587);
        smtp.expect("220");
        smtp.say("EHLO laptop").expect("250");
        smtp.say(&format!("AUTH PLAIN {}", base64(format!("\0user{user}@example.test\0demo").as_bytes())))
            .expect("235");
        smtp.say(&format!("MAIL FROM:<user{user}@example.test>")).expect("250");
        for to in to {
            smtp.say(&format!("RCPT TO:<{to}>")).expect("250");
        }
        smtp.send_content(&letter("Many", "x"))
    };
    assert!(try_as(1, &["a@a.test", "b@a.test", "c@a.test"]).starts_with("250"));
    let refused = try_as(1, &["d@a.test", "e@a.test"]);
    assert!(refused.starts_with("450 4.7.1 You have written to as many recipients"), "{refused}");
    assert!(try_as(1, &["d@a.test"]).starts_with("250"), "what is refused does not count");
    // Others of the domain have what is left.
    assert!(try_as(2, &["a@a.test", "b@a.test", "c@a.test"]).starts_with("450"));
    assert!(try_as(2, &["a@a.test", "b@a.test"]).starts_with("250"));
    receiver.wait_for(3);
}

#[test]
fn notices_reach_mailboxes_on_old_servers() {
    let zone = StubServer::start(ZONE);
    let receiver = Receiver::start(&[], |step| match step.verb.as_str() {
        "RCPT" => Reaction::Say("550 5.1.1 No such user"),
        _ => Reaction::Take,
    });
    let old = Receiver::kind();
    let route = format!(
        "[[route]]\nname = \"customer\"\nrecipients = [\"customer.test\"]\nhosts = [\"none://127.0.0.1:{}\"]\naccept = true\n",
        receiver.port()
    );
    let node = node_prepared(&zone, receiver.port(), "routes = \"routes.toml\"", |dir| {
        std::fs::write(dir.join("routes.toml"), route).unwrap();
    });
    node.command(&["legacy", "add", "old", "--smtp", &format!("none://127.0.0.1:{}", old.port())]);
    node.command(&["account", "set", "user3@example.test", "--legacy", "old"]);
    let reply = node.send("user3@example.test", &["bob@customer.test"], &letter("Lost", "x"));
    assert!(reply.starts_with("250"), "{reply}");
    let notice = old.wait_for(1).pop().unwrap();
    assert_eq!(
        (notice.mail.split(' ').nth(1), notice.rcpt),
        (Some("FROM:<>"), vec!["RCPT TO:<user3@example.test>".to_owned()])
    );
    assert!(notice.content.contains("Final-Recipient: rfc822; bob@customer.test"), "{}", notice.content);
}

/// A request of an administrator, or of somebody else; status and answer.
#[test]
fn the_api_does_what_commands_do() {
    let zone = StubServer::start(ZONE);
    let receiver = Receiver::start(&["PIPELINING"], |step| match step.verb.as_str() {
        "RCPT" if step.line.contains("late") => Reaction::Say("450 4.2.2 Mailbox full"),
        _ => Reaction::Take,
    });
    let node = node_with(&zone, receiver.port(), "");
    node.command(&["queue", "suspend", "b.test"]);
    let first = submit(&node, &["late@a.test"], &letter("Late", "text"));
    let second = submit(&node, &["x@b.test", "y@b.test"], &letter("Waits", "text"));
    wait_until("a first attempt", || waiting(&node).iter().any(|one| one["attempts"].as_u64() > Some(0)));
    let (status, found) = node.api("admin", "GET /api/v1/queue?to=@b.test&limit=1", "");
    assert_eq!((status, found["recipients"].as_array().map(Vec::len)), (200, Some(1)), "{found}");
    let after = found["recipients"][0]["id"].as_str().unwrap().to_owned();
    let (_, rest) = node.api("admin", &format!("GET /api/v1/queue?to=@b.test&after={after}"), "");
    assert_eq!(rest["recipients"][0]["to"], "y@b.test", "{rest}");
    assert_eq!(node.api("admin", "GET /api/v1/queue/counts", "").1["waiting"], 3);
    assert_eq!(node.api("admin", &format!("GET /api/v1/queue/messages/{first}"), "").1["subject"], "Late");
    let (_, lanes) = node.api("admin", "GET /api/v1/queue/lanes", "");
    assert!(
        lanes["lanes"].as_array().unwrap().iter().any(|lane| lane["lane"] == "b.test" && lane["state"] == "suspended"),
        "{lanes}"
    );
    for (request, body, words) in [
        ("GET /api/v1/queue?state=lost", "", "is no state"),
        ("GET /api/v1/queue/messages/nonsense", "", "is no id"),
        ("POST /api/v1/queue/actions", "{\"action\":\"retry\"}", "say which"),
        ("POST /api/v1/queue/actions", "{\"action\":\"eat\",\"ids\":[\"x\"]}", "is no action"),
        ("POST /api/v1/queue/actions", "{\"action\":\"reroute\",\"where\":{\"to\":\"@b.test\"}}", "needs a `lane`"),
        ("POST /api/v1/queue/actions", "{\"action\":\"retry\",\"whom\":1}", "unknown field"),
    ] {
        let (status, answer) = node.api("admin", request, body);
        assert!(
            matches!(status, 400 | 422) && answer["message"].as_str().unwrap().contains(words),
            "{request} {body}: {status} {answer}"
        );
    }
    assert_eq!(node.api("user1", "GET /api/v1/queue", "").0, 403);
    let act = |body: &str| node.api("admin", "POST /api/v1/queue/actions", body);
    assert_eq!(
        act(&format!("{{\"action\":\"hold\",\"ids\":[\"{second}\"],\"reason\":\"a look\"}}")).1["recipients"],
        2
    );
    assert_eq!(act("{\"action\":\"delete\",\"where\":{\"to\":\"y@b.test\"}}").1["recipients"], 1);
    assert_eq!(node.api("admin", "PATCH /api/v1/queue/lanes/b.test", "{\"suspended\":false}").0, 204);
    assert_eq!(act(&format!("{{\"action\":\"release\",\"ids\":[\"{second}\"]}}")).1["recipients"], 1);
    assert_eq!(receiver.wait_for(1)[0].rcpt, ["RCPT TO:<x@b.test>"]);
    assert_eq!(
        act(&format!("{{\"action\":\"bounce\",\"ids\":[\"{first}\"],\"reason\":\"Too old\"}}")).1["recipients"],
        1
    );
    wait_until("a notice", || notices(&node, "user1").iter().any(|text| text.contains("Too old")));
    wait_until("an empty queue", || waiting(&node).is_empty());
}

#[test]
fn sent_mail_can_be_taken_back() {
    let (zone, receiver) = (StubServer::start(ZONE), Receiver::kind());
    let node = node_with(&zone, receiver.port(), "");
    let call = |method: &str, arguments: &Value| {
        let mut arguments = arguments.clone();
        arguments["accountId"] =
            node.api("user1", "GET /jmap/session", "").1["primaryAccounts"]["urn:ietf:params:jmap:mail"].clone();
        let using = ["core", "mail", "submission"].map(|name| format!("urn:ietf:params:jmap:{name}"));
        let request = serde_json::json!({ "using": using, "methodCalls": [[method, arguments, "0"]] });
        let (status, answer) = node.api("user1", "POST /jmap/", &request.to_string());
        assert_eq!(status, 200, "{answer}");
        answer["methodResponses"][0][1].clone()
    };
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let drafts = call("Mailbox/query", &json("{\"filter\":{\"role\":\"drafts\"}}"))["ids"][0].clone();
    let identity = call("Identity/get", &json("{}"))["list"][0]["id"].clone();
    let mut draft =
        json("{\"from\":[{\"email\":\"user1@example.test\"}],\"to\":[{\"email\":\"x@a.test\"}],\"subject\":\"Wait\"}");
    draft["mailboxIds"] = serde_json::json!({ drafts.as_str().unwrap(): true });
    let made = call("Email/set", &serde_json::json!({ "create": { "d": draft } }));
    let email = made["created"]["d"]["id"].clone();
    let send = |seconds: u32| {
        let to = ["x@a.test", "user2@example.test"].map(|email| serde_json::json!({ "email": email }));
        let from =
            serde_json::json!({ "email": "user1@example.test", "parameters": { "HOLDFOR": seconds.to_string() } });
        let submission = serde_json::json!({ "emailId": email, "identityId": identity, "envelope": { "mailFrom": from, "rcptTo": to } });
        let sent = call("EmailSubmission/set", &serde_json::json!({ "create": { "s": submission } }));
        assert_eq!(sent["created"]["s"]["undoStatus"], "pending", "{sent}");
        sent["created"]["s"]["id"].as_str().unwrap().to_owned()
    };
    let undo =
        |id: &str| call("EmailSubmission/set", &serde_json::json!({ "update": { id: { "undoStatus": "canceled" } } }));
    let id = send(600);
    assert_eq!(waiting(&node).len(), 2);
    assert_eq!(call("EmailSubmission/get", &serde_json::json!({ "ids": [id] }))["list"][0]["undoStatus"], "pending");
    assert!(undo(&id)["updated"].as_object().unwrap().contains_key(&id));
    assert!(waiting(&node).is_empty());
    let id = send(2);
    receiver.wait_for(1);
    wait_until("the copy here", || node.messages("user2", "INBOX").len() == 1);
    assert_eq!(undo(&id)["notUpdated"][&id]["type"], "cannotUnsend");
    assert_eq!((receiver.taken().len(), node.messages("user2", "INBOX").len()), (1, 1));
}
