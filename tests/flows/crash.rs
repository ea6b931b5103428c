//! Nothing that was acknowledged is lost, whatever happens to the node.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::harness::{Node, letter, wants_all};

/// One client that sends until the node dies under it; notes the subjects that were acknowledged.
fn send_until_it_dies(node: &Node, next: &AtomicU32, stop: &AtomicBool, acknowledged: &Mutex<Vec<u32>>) {
    use std::io::{BufRead as _, BufReader, Write as _};
    let Ok(stream) = std::net::TcpStream::connect(("127.0.0.1", node.port(25))) else { return };
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut reader = BufReader::new(stream);
    let mut answer = |wire: String, last: &str| -> Option<()> {
        reader.get_mut().write_all(wire.as_bytes()).ok()?;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
            if line.starts_with(last) {
                return Some(());
            }
            assert!(line.starts_with('2'), "{line}");
        }
    };
    if answer(String::new(), "220 ").is_none() || answer("HELO x\r\n".to_owned(), "250 ").is_none() {
        return;
    }
    while !stop.load(Ordering::Relaxed) {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let filler = "some words to make it longer\r\n".repeat(1 + number as usize % 200);
        let sent = answer("MAIL FROM:<a@x.example>\r\n".to_owned(), "250 ")
            .and_then(|()| answer(format!("RCPT TO:<user{}@example.test>\r\n", 1 + number % 3), "250 "))
            .and_then(|()| answer("DATA\r\n".to_owned(), "354 "))
            .and_then(|()| {
                answer(
                    String::from_utf8(letter(&format!("number {number}"), &format!("{filler}end {number}"))).unwrap()
                        + ".\r\n",
                    "250 ",
                )
            });
        match sent {
            Some(()) => acknowledged.lock().unwrap().push(number),
            None => return,
        }
    }
}

#[test]
fn kill_9_under_load_loses_no_acknowledged_message() {
    let mut node = Node::start();
    die_and_come_back(&mut node, if wants_all() { 50 } else { 3 });
    node.stop();
    node.command(&["audit", "--deep", "--json"]);
}

/// The server outlives the node: what was acknowledged is in it.
#[test]
fn kill_9_under_load_on_postgresql_loses_no_acknowledged_message() {
    let Some(server) = engine::postgres::Server::start() else { return };
    let mut node = Node::on_postgres(&server.url(), "");
    super::postgres::add_accounts(&node, &["user1", "user2", "user3"]);
    die_and_come_back(&mut node, if wants_all() { 20 } else { 3 });
    node.command(&["audit", "--deep", "--json"]);
    node.stop();
    node.command(&["audit", "--json"]);
}

/// Kills the node `rounds` times under load; all that it acknowledged is there, once and whole.
fn die_and_come_back(node: &mut Node, rounds: u64) {
    let (next, acknowledged) = (AtomicU32::new(0), Mutex::new(Vec::new()));
    for round in 0..rounds {
        let stop = AtomicBool::new(false);
        let dying = std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| send_until_it_dies(node, &next, &stop, &acknowledged));
            }
            // Under load, at a moment that differs from round to round.
            let enough = acknowledged.lock().unwrap().len() + 25;
            for _ in 0..3000 {
                if acknowledged.lock().unwrap().len() >= enough {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            std::thread::sleep(Duration::from_millis((round * 97) % 400));
            let pid = node.pid().to_string();
            std::process::Command::new("kill").args(["-9", &pid]).status().unwrap().success()
        });
        assert!(dying);
        node.kill();
        node.resume();
    }
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() > 20 * usize::try_from(rounds).unwrap(), "only {} were taken", acknowledged.len());
    let mut found = HashSet::new();
    for user in ["user1", "user2", "user3"] {
        for message in node.messages(user, "INBOX") {
            let text = String::from_utf8(message).unwrap();
            let number: u32 =
                text.split("Subject: number ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
            assert!(
                text.contains(&format!("end {number}\r\n")) && text.ends_with("Anna\r\n"),
                "half a message: {number}"
            );
            assert!(found.insert(number), "{number} is there twice");
        }
    }
    let lost: Vec<&u32> = acknowledged.iter().filter(|number| !found.contains(number)).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
}
