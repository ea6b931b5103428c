//! The server that takes writes dies or stands still under load: another takes its place, and what was acknowledged is there.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use base::{Clock as _, SystemClock};

use super::postgres::add_accounts;
use crate::harness::{Node, PASSWORD, Patroni, base64, http, letter, report, skip, wants_all};

/// Who gets mail; the last one is written to by IMAP alone.
const USERS: [&str; 4] = ["user1", "user2", "user3", "user4"];
const RECIPIENTS: u32 = 3;
/// SMTP clients of each node.
const SENDERS: usize = 3;
/// So many messages each node takes in every phase, at least.
const MORE: u32 = 25;
/// No client waits longer for an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two answers that a protocol gives on one node.
const GAP_MAX: Duration = Duration::from_secs(60);

#[test]
fn a_primary_dies_under_load_and_nothing_acknowledged_is_lost() {
    if !wants_all() {
        return skip("three PostgreSQL servers under Patroni run with ORTLER_TESTS=all");
    }
    let Some(mut cluster) = Patroni::start() else { return };
    let nodes = [0, 1].map(|_| Node::on_postgres(&cluster.url(), "postgresql_tls = \"off\""));
    add_accounts(&nodes[0], &USERS);
    let load = Load::new(&nodes);
    let pids = nodes.each_ref().map(Node::pid);
    let began = SystemClock.now();
    let clients = std::thread::scope(|scope| {
        // Also if a round fails: nobody would end else.
        let _stop = Stop(&load.stop);
        let load = &load;
        let mut threads = Vec::new();
        for node in 0..nodes.len() {
            for _ in 0..SENDERS {
                threads.push(scope.spawn(move || load.send_mail(node)));
            }
            threads.push(scope.spawn(move || load.append_and_flag(node)));
            threads.push(scope.spawn(move || load.read_by_imap(node)));
            threads.push(scope.spawn(move || load.read_by_pop3(node)));
            threads.push(scope.spawn(move || load.read_by_http(node)));
        }
        load.go_on(MORE);
        for _ in 0..2 {
            let killed = load.fail_over(&cluster, "host killed", Patroni::kill_host);
            cluster.revive(killed);
            cluster.wait_until_whole();
            load.go_on(MORE);
        }
        load.fail_over(&cluster, "server killed", Patroni::kill_server);
        cluster.wait_until_whole();
        load.go_on(MORE);
        // The nodes find the other one while this one keeps their connections and answers nothing.
        let paused = load.fail_over(&cluster, "host stands still", Patroni::pause_host);
        // It wakes and takes writes, but the nodes know better.
        cluster.wake_server(paused);
        load.go_on(MORE * 4);
        cluster.kill_host(paused);
        cluster.revive(paused);
        cluster.wait_until_whole();
        load.go_on(MORE);
        load.stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<Client>>()
    });
    assert_eq!(pids, nodes.each_ref().map(Node::pid));
    report(&format!("failover: four in {:.0?} of load", SystemClock.now() - began));
    tell_of_service(&clients);
    let (mail, appended): (Vec<&Client>, Vec<&Client>) = clients.iter().partition(|client| client.name == "smtp");
    load.check_letters("mail", &USERS[..3], &mail);
    load.check_letters("appended", &USERS[3..], &appended);
    check_flags(&nodes[1], &clients);
    nodes[0].command(&["audit", "--deep", "--json"]);
    let faults: Vec<&String> = clients.iter().flat_map(|client| &client.faults).collect();
    assert!(faults.is_empty(), "not what a client should hear: {faults:#?}");
}

/// Says how long each protocol gave no answer, per node: none may be without service for long.
fn tell_of_service(clients: &[Client]) {
    let mut answers: HashMap<(&str, usize), Vec<Instant>> = HashMap::new();
    for client in clients {
        answers.entry((client.name, client.node)).or_default().extend(&client.answered);
    }
    let mut lines: Vec<String> = Vec::new();
    for ((name, node), mut times) in answers {
        times.sort();
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        let (longest, refused) =
            (gaps.max().unwrap_or(GAP_MAX), clients.iter().filter(|one| (one.name, one.node) == (name, node)));
        let refused: u32 = refused.map(|client| client.refused).sum();
        let answers = times.len();
        lines.push(format!("{name} on node {node}: {answers} answers, {refused} refusals, longest gap {longest:.1?}"));
        assert!(longest < GAP_MAX, "{name} on node {node} gave no answer for {longest:?}");
    }
    lines.sort();
    report(&format!("failover: {}", lines.join("; ")));
}

/// Every flag that was acknowledged is there.
fn check_flags(node: &Node, clients: &[Client]) {
    let mut imap = node.sign_in(USERS[3]);
    imap.tagged("SELECT INBOX");
    let found = imap.tagged("UID SEARCH FLAGGED").concat();
    let found: Vec<&str> = found.split(' ').collect();
    let wanted: Vec<&String> = clients.iter().flat_map(|client| &client.flagged).collect();
    assert!(wanted.len() > 50, "only {} flags were set", wanted.len());
    let lost: Vec<&&String> = wanted.iter().filter(|uid| !found.contains(&uid.as_str())).collect();
    assert!(lost.is_empty(), "flags lost: {lost:?}");
    report(&format!("failover: {} flags acknowledged, all there", wanted.len()));
}

/// Ends the load when it goes.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What all clients share.
struct Load<'a> {
    nodes: &'a [Node; 2],
    stop: AtomicBool,
    next: AtomicU32,
    /// Messages that each node took by SMTP.
    taken: [AtomicU32; 2],
    /// What any reader has seen at a place: it stays there.
    seen: Mutex<HashMap<(&'static str, u32), u32>>,
}

/// What one client did and heard.
struct Client {
    name: &'static str,
    node: usize,
    /// When something was done for it.
    answered: Vec<Instant>,
    /// Times that it was told to come again.
    refused: u32,
    /// What it should not have heard.
    faults: Vec<String>,
    letters: Vec<Letter>,
    /// UIDs.
    flagged: Vec<String>,
}

/// A message that a client wants to get rid of.
struct Letter {
    number: u32,
    is_acknowledged: bool,
    /// Times that it was sent whole and refused for now, or was not answered.
    refused: u32,
    unanswered: u32,
}

impl Client {
    fn new(name: &'static str, node: usize) -> Self {
        let (answered, letters, flagged) = (Vec::new(), Vec::new(), Vec::new());
        Self { name, node, answered, refused: 0, faults: Vec::new(), letters, flagged }
    }

    fn was_served(&mut self) {
        self.answered.push(SystemClock.now());
    }

    fn was_told_to_wait(&mut self) {
        self.refused += 1;
        std::thread::sleep(Duration::from_millis(200));
    }

    /// Notes a connection's end, unless it came with a word.
    fn was_left(&mut self, ended: Ended, when: &str) {
        if ended != Ended::Politely {
            let (name, node) = (self.name, self.node);
            self.faults.push(format!("{name} on node {node}: ended {ended:?} after {when}"));
        }
        self.was_told_to_wait();
    }

    fn heard(&mut self, what: &str) {
        let (name, node) = (self.name, self.node);
        self.faults.push(format!("{name} on node {node}: {what}"));
        std::thread::sleep(Duration::from_millis(200));
    }
}

impl<'a> Load<'a> {
    fn new(nodes: &'a [Node; 2]) -> Self {
        let (stop, next, taken) = (AtomicBool::new(false), AtomicU32::new(0), Default::default());
        Self { nodes, stop, next, taken, seen: Mutex::default() }
    }

    fn is_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Does `harm` to the primary, and waits until the nodes serve with another. Gives the harmed one.
    #[track_caller]
    fn fail_over(&self, cluster: &Patroni, what: &str, harm: fn(&Patroni, usize)) -> usize {
        let (primary, began) = (cluster.primary().unwrap(), SystemClock.now());
        harm(cluster, primary);
        cluster.wait_for_another(primary);
        let elected = SystemClock.now() - began;
        self.go_on(MORE);
        let passed = SystemClock.now() - began;
        report(&format!(
            "failover, {what}: another primary after {elected:.1?}, mail on both nodes after {passed:.1?}"
        ));
        primary
    }

    /// Waits until each node has taken that many more messages.
    #[track_caller]
    fn go_on(&self, more: u32) {
        let taken = || self.taken.each_ref().map(|taken| taken.load(Ordering::Relaxed));
        let (before, deadline) = (taken(), SystemClock.now() + GAP_MAX);
        while taken().iter().zip(before).any(|(now, before)| *now < before + more) {
            assert!(SystemClock.now() < deadline, "the nodes do not serve again: {before:?}, then {:?}", taken());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// As an MTA: a message that is refused for now, or not answered, is sent again.
    fn send_mail(&self, node: usize) -> Client {
        let mut client = Client::new("smtp", node);
        let mut kept = None;
        while self.is_on() {
            let mut letter = self.new_letter();
            while !letter.is_acknowledged && self.is_on() {
                match self.transmit(&mut kept, node, &mut letter) {
                    Ok(answer) if answer.starts_with('2') => {
                        letter.is_acknowledged = true;
                        self.taken[node].fetch_add(1, Ordering::Relaxed);
                        client.was_served();
                    }
                    Ok(answer) if answer.starts_with('4') => client.was_told_to_wait(),
                    Ok(answer) => client.heard(&answer),
                    Err(ended) => client.was_left(ended, "SMTP"),
                }
            }
            client.letters.push(letter);
            std::thread::sleep(Duration::from_millis(40));
        }
        client
    }

    fn new_letter(&self) -> Letter {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Letter { number, is_acknowledged: false, refused: 0, unanswered: 0 }
    }

    /// The last answer. The connection is kept if the message was taken.
    fn transmit(&self, kept: &mut Option<Wire>, node: usize, letter: &mut Letter) -> Result<String, Ended> {
        let mut wire = match kept.take() {
            Some(wire) => wire,
            None => {
                let mut wire = Wire::open(self.nodes[node].port(25));
                for words in ["", "EHLO client.example.org\r\n"] {
                    let answer = wire.asks_smtp(words)?;
                    if !answer.starts_with('2') {
                        return Ok(answer);
                    }
                }
                wire
            }
        };
        let number = letter.number;
        let recipient = format!("RCPT TO:<user{}@example.test>\r\n", 1 + number % RECIPIENTS);
        for words in ["MAIL FROM:<a@x.example>\r\n", &recipient, "DATA\r\n"] {
            let answer = wire.asks_smtp(words)?;
            if !answer.starts_with(['2', '3']) {
                return Ok(answer);
            }
        }
        let answer = wire.asks_smtp(&format!("{}.\r\n", content(number)));
        match &answer {
            Ok(answer) if answer.starts_with('2') => *kept = Some(wire),
            Ok(_) => letter.refused += 1,
            Err(_) => letter.unanswered += 1,
        }
        answer
    }

    /// Appends a message, sets a flag on it.
    fn append_and_flag(&self, node: usize) -> Client {
        let mut client = Client::new("imap write", node);
        let mut session = None;
        while self.is_on() {
            let mut letter = self.new_letter();
            while !letter.is_acknowledged && self.is_on() {
                let Some(imap) = self.session(&mut session, node, USERS[3], &mut client) else { continue };
                let text = content(letter.number);
                let command = format!("APPEND INBOX (\\Seen) {{{}+}}\r\n{text}", text.len());
                match imap.asks_imap(&command) {
                    Ok(said) if said.status.starts_with("OK") => {
                        letter.is_acknowledged = true;
                        client.was_served();
                        let uid = said.status.split(' ').nth(3).unwrap().trim_end_matches(']').to_owned();
                        self.flag(&mut session, node, uid, &mut client);
                    }
                    Ok(said) => {
                        letter.refused += 1;
                        refused(&mut client, &said.status);
                    }
                    Err(ended) => {
                        letter.unanswered += 1;
                        session = None;
                        client.was_left(ended, "APPEND");
                    }
                }
            }
            client.letters.push(letter);
            std::thread::sleep(Duration::from_millis(40));
        }
        client
    }

    fn flag(&self, session: &mut Option<Wire>, node: usize, uid: String, client: &mut Client) {
        while self.is_on() {
            let Some(imap) = self.session(session, node, USERS[3], client) else { continue };
            match imap.asks_imap(&format!("UID STORE {uid} +FLAGS (\\Flagged)")) {
                Ok(said) if said.status.starts_with("OK") => {
                    client.was_served();
                    return client.flagged.push(uid);
                }
                Ok(said) => refused(client, &said.status),
                Err(ended) => {
                    *session = None;
                    client.was_left(ended, "STORE");
                }
            }
        }
    }

    /// A session with INBOX selected: the one there is, or a new one if it can be had.
    fn session<'b>(
        &self,
        session: &'b mut Option<Wire>,
        node: usize,
        user: &str,
        client: &mut Client,
    ) -> Option<&'b mut Wire> {
        if session.is_none() {
            let mut wire = Wire::open(self.nodes[node].port(143));
            let greeting = wire.line().map(|greeting| {
                assert!(greeting.starts_with("* OK"), "{greeting}");
            });
            if let Err(ended) = greeting {
                client.was_left(ended, "connecting");
                return None;
            }
            for command in [format!("LOGIN {user}@example.test {PASSWORD}"), "SELECT INBOX".to_owned()] {
                match wire.asks_imap(&command) {
                    Ok(said) if said.status.starts_with("OK") => {}
                    Ok(said) => {
                        refused(client, &said.status);
                        return None;
                    }
                    Err(ended) => {
                        client.was_left(ended, &command);
                        return None;
                    }
                }
            }
            *session = Some(wire);
        }
        session.as_mut()
    }

    /// Reads what is new, and the last one before: it must be as it was.
    fn read_by_imap(&self, node: usize) -> Client {
        let mut client = Client::new("imap read", node);
        let mut sessions: [Option<Wire>; 3] = Default::default();
        let mut last = [1u32; 3];
        while self.is_on() {
            for (nth, user) in USERS.into_iter().take(sessions.len()).enumerate() {
                let Some(imap) = self.session(&mut sessions[nth], node, user, &mut client) else { continue };
                match imap.asks_imap(&format!("UID FETCH {}:* (UID BODY.PEEK[])", last[nth])) {
                    Ok(said) => {
                        // What came before a refusal counts too.
                        for (uid, text) in said.bodies() {
                            last[nth] = uid.max(last[nth]);
                            self.see(user, uid, &text, &mut client);
                        }
                        if said.status.starts_with("OK") {
                            client.was_served();
                        } else {
                            refused(&mut client, &said.status);
                        }
                    }
                    Err(ended) => {
                        sessions[nth] = None;
                        client.was_left(ended, "FETCH");
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        client
    }

    fn see(&self, user: &'static str, uid: u32, text: &str, client: &mut Client) {
        let Some(number) = number_of(text) else { return client.heard(&format!("{user} {uid}: not whole: {text}")) };
        let known = *self.seen.lock().unwrap().entry((user, uid)).or_insert(number);
        if known != number {
            client.heard(&format!("{user} {uid}: message {known} became {number}"));
        }
    }

    /// Each time anew, the newest message.
    fn read_by_pop3(&self, node: usize) -> Client {
        let mut client = Client::new("pop3", node);
        let user = USERS[1 + node];
        while self.is_on() {
            match self.newest(node, user) {
                Ok(Ok(None)) => client.was_served(),
                Ok(Ok(Some(text))) if number_of(&text).is_some() => client.was_served(),
                Ok(Ok(Some(text))) => client.heard(&format!("not whole: {text}")),
                Ok(Err(answer)) if answer.contains("[SYS/TEMP]") => client.was_told_to_wait(),
                Ok(Err(answer)) => client.heard(&answer),
                Err(ended) => client.was_left(ended, "POP3"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        client
    }

    /// The text, or the answer that is none.
    fn newest(&self, node: usize, user: &str) -> Result<Result<Option<String>, String>, Ended> {
        let mut wire = Wire::open(self.nodes[node].port(110));
        let mut answer = wire.line()?;
        for command in [format!("USER {user}@example.test"), format!("PASS {PASSWORD}"), "STAT".to_owned()] {
            if !answer.starts_with("+OK") {
                return Ok(Err(answer));
            }
            wire.say(&format!("{command}\r\n"));
            answer = wire.line()?;
        }
        let Some(count) = answer.strip_prefix("+OK ").and_then(|rest| rest.split(' ').next()) else {
            return Ok(Err(answer));
        };
        if count == "0" {
            return Ok(Ok(None));
        }
        wire.say(&format!("RETR {count}\r\n"));
        let answer = wire.line()?;
        if !answer.starts_with("+OK") {
            return Ok(Err(answer));
        }
        let mut text = String::new();
        loop {
            match wire.line()?.as_str() {
                "." => break,
                line => text.push_str(&format!("{line}\r\n")),
            }
        }
        wire.say("QUIT\r\n");
        wire.line()?;
        Ok(Ok(Some(text)))
    }

    fn read_by_http(&self, node: usize) -> Client {
        let mut client = Client::new("jmap", node);
        let login = base64(format!("{}@example.test:{PASSWORD}", USERS[0]).as_bytes());
        let headers = format!("Authorization: Basic {login}\r\nContent-Type: application/json\r\n");
        let query = r##"{"using":["urn:ietf:params:jmap:core","urn:ietf:params:jmap:mail"],"methodCalls":[
            ["Email/query",{"accountId":"a1","limit":1},"0"],
            ["Email/get",{"accountId":"a1","#ids":{"resultOf":"0","name":"Email/query","path":"/ids"},"properties":["subject"]},"1"]]}"##;
        while self.is_on() {
            let (status, _, answer) = http(self.nodes[node].port(80), "POST /jmap/", &headers, query);
            match status {
                503 => client.was_told_to_wait(),
                200 if answer.contains("serverUnavailable") => client.was_told_to_wait(),
                200 if answer.contains("\"list\"") => client.was_served(),
                _ => client.heard(&format!("{status} {answer}")),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        client
    }

    /// Every acknowledged message is there whole, and no more often than its sender has reason to expect; so is whatever a
    /// reader saw.
    fn check_letters(&self, what: &str, users: &[&'static str], clients: &[&Client]) {
        let mut copies: HashMap<u32, u32> = HashMap::new();
        let mut gone = Vec::new();
        for (nth, user) in users.iter().enumerate() {
            let node = &self.nodes[nth % 2];
            let mut imap = node.sign_in(user);
            imap.tagged("SELECT INBOX");
            imap.say("t UID SEARCH ALL");
            let uids = imap.line();
            imap.expect("t OK");
            let uids: Vec<u32> = uids.split(' ').filter_map(|uid| uid.parse().ok()).collect();
            let texts = imap.fetch_bodies();
            assert_eq!(uids.len(), texts.len());
            let mut places = HashMap::new();
            for (uid, text) in uids.into_iter().zip(texts) {
                let text = String::from_utf8(text).unwrap();
                let number = number_of(&text).unwrap_or_else(|| panic!("{user} {uid}: not whole: {text}"));
                *copies.entry(number).or_default() += 1;
                places.insert(uid, number);
            }
            let seen = self.seen.lock().unwrap();
            let missing = seen.iter().filter(|((of, uid), number)| of == user && places.get(uid) != Some(*number));
            gone.extend(missing.map(|((_, uid), number)| (*user, *uid, *number)));
        }
        let letters = || clients.iter().flat_map(|client| &client.letters);
        let lost = letters().filter(|letter| letter.is_acknowledged && !copies.contains_key(&letter.number));
        let lost: Vec<u32> = lost.map(|letter| letter.number).collect();
        assert!(lost.is_empty(), "lost: {lost:?}; seen and gone: {gone:?}");
        assert!(gone.is_empty(), "seen and gone: {gone:?}");
        let mut doubled = 0;
        let (mut refused, mut unanswered) = (0, 0);
        for letter in letters() {
            let found = copies.get(&letter.number).copied().unwrap_or(0);
            let sent = letter.refused + letter.unanswered + u32::from(letter.is_acknowledged);
            assert!(found <= sent, "{} is there {found} times, and was sent {sent} times", letter.number);
            doubled += found.saturating_sub(1);
            refused += letter.refused;
            unanswered += letter.unanswered;
        }
        let count = letters().filter(|letter| letter.is_acknowledged).count();
        assert!(count > 100, "only {count} were taken");
        report(&format!(
            "failover, {what}: {count} acknowledged, none lost; {refused} refused for now after their content, \
             {unanswered} not answered; {doubled} copies too many"
        ));
    }
}

/// An IMAP command that did not succeed.
fn refused(client: &mut Client, status: &str) {
    match status.starts_with("NO [UNAVAILABLE]") {
        true => client.was_told_to_wait(),
        false => client.heard(status),
    }
}

fn content(number: u32) -> String {
    let filler = "some words to make it longer\r\n".repeat(1 + number as usize % 100);
    String::from_utf8(letter(&format!("number {number}"), &format!("{filler}end {number}"))).unwrap()
}

/// Of a message of ours that is whole.
fn number_of(text: &str) -> Option<u32> {
    let number = text.split("Subject: number ").nth(1)?.split("\r\n").next()?.parse().ok()?;
    text.ends_with(&content(number)).then_some(number)
}

/// A connection whose end is an answer too.
struct Wire(BufReader<TcpStream>);

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ended {
    /// After a farewell.
    Politely,
    Closed,
    /// No answer in all patience.
    Silent,
}

/// An IMAP answer.
struct Said {
    lines: Vec<String>,
    /// With the number of the line that it follows.
    literals: Vec<(usize, Vec<u8>)>,
    /// After the tag.
    status: String,
}

impl Said {
    fn bodies(&self) -> impl Iterator<Item = (u32, String)> {
        self.literals.iter().map(|(line, text)| {
            let uid = self.lines[*line].split("UID ").nth(1).unwrap().split(' ').next().unwrap();
            (uid.parse().unwrap(), String::from_utf8_lossy(text).into_owned())
        })
    }
}

impl Wire {
    fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// That it does not arrive shows when an answer is waited for.
    fn say(&mut self, words: &str) {
        let _ = self.0.get_mut().write_all(words.as_bytes());
    }

    fn line(&mut self) -> Result<String, Ended> {
        let mut line = Vec::new();
        match self.0.read_until(b'\n', &mut line) {
            Ok(_) if line.ends_with(b"\n") => Ok(String::from_utf8_lossy(&line).trim_end().to_owned()),
            Err(error) if [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut].contains(&error.kind()) => {
                Err(Ended::Silent)
            }
            _ => Err(Ended::Closed),
        }
    }

    /// The last line of the reply.
    fn asks_smtp(&mut self, words: &str) -> Result<String, Ended> {
        self.say(words);
        loop {
            let line = self.line()?;
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line);
            }
        }
    }

    fn asks_imap(&mut self, command: &str) -> Result<Said, Ended> {
        self.say(&format!("t {command}\r\n"));
        let (mut lines, mut literals) = (Vec::new(), Vec::new());
        loop {
            let line = match self.line() {
                Err(Ended::Closed) if lines.iter().any(|line: &String| line.starts_with("* BYE")) => {
                    return Err(Ended::Politely);
                }
                line => line?,
            };
            if let Some(status) = line.strip_prefix("t ") {
                return Ok(Said { lines, literals, status: status.to_owned() });
            }
            if let Some(length) = line.rsplit_once('{').and_then(|(_, rest)| rest.strip_suffix('}')) {
                let mut text = vec![0; length.parse().unwrap()];
                self.0.read_exact(&mut text).map_err(|_| Ended::Closed)?;
                literals.push((lines.len(), text));
            }
            lines.push(line);
        }
    }
}
