//! A database of countries: what rules, the log and the watch over sending make of it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConnection, StreamOwned};

use crate::harness::{Node, base64, letter, ortler_fails};

const DATABASE: &[u8] = include_bytes!("../../src/filter/testdata/countries.mmdb");
const ITALY: &str = "192.0.2.7";
const STATES: &str = "198.51.100.7";
const BRAZIL: &str = "203.0.113.200";

/// A node behind a proxy that tells clients' addresses, with the database and rules that ask for it.
fn node(database: &'static [u8]) -> Node {
    let rules = "ifplugin Mail::SpamAssassin::Plugin::RelayCountry\n\
                 header VIA_BRAZIL X-Relay-Countries =~ /\\bBR\\b/\nscore VIA_BRAZIL 0.7\n\
                 header FROM_ITALY X-Relay-Countries-External =~ /^IT$/\nscore FROM_ITALY 0.3\n\
                 header NOWHERE X-Relay-Countries-All =~ /XX/\nscore NOWHERE 0.2\nendif\n";
    let prepare = move |dir: &Path| {
        std::fs::write(dir.join("countries.mmdb"), database).unwrap();
        std::fs::write(dir.join("countries.cf"), rules).unwrap();
        let policy = "greylist = \"off\"\noutbound-slow-score = 3\noutbound-hold-score = 9\noutbound-lock-score = 12\n";
        std::fs::write(dir.join("policy.toml"), policy).unwrap();
    };
    let filter = "[filter]\ncountries = \"countries.mmdb\"\nrules = [\"countries.cf\"]\npolicy = \"policy.toml\"";
    Node::start_configured(
        prepare,
        &[("trusted_proxies = []", "trusted_proxies = [\"127.0.0.0/8\"]"), ("[filter]", filter)],
    )
}

/// What a proxy says first of a client.
fn header(ip: &str) -> Vec<u8> {
    format!("PROXY TCP4 {ip} 198.51.100.1 4444 25\r\n").into_bytes()
}

/// A client of a proxy that speaks TLS with the node: passwords from elsewhere are taken under TLS only.
struct Secure(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl Secure {
    fn open(node: &Node, service: u16, ip: &str) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(node.dir().join("certificate.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
        let mut stream = TcpStream::connect(("127.0.0.1", node.port(service))).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(&header(ip)).unwrap();
        let session = ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap();
        Self(BufReader::new(StreamOwned::new(session, stream)))
    }

    /// The last line of the answer, which begins with `start`.
    #[track_caller]
    fn expect(&mut self, start: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "it closed, {start} was expected");
            if line.as_bytes().get(3) == Some(&b'-') || (line.starts_with("* ") && !start.starts_with('*')) {
                continue;
            }
            assert!(line.starts_with(start), "expected {start}, got {line}");
            return line;
        }
    }

    #[track_caller]
    fn say(&mut self, line: &str, start: &str) -> String {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
        self.expect(start)
    }
}

/// The status field of a letter from a server in a country, which has come through another one.
fn status(node: &Node, ip: &str, subject: &str, before: &str) -> String {
    let mut smtp = node.connect(25);
    smtp.send(&header(ip)).expect("220");
    smtp.say("EHLO client.example.org").expect("250");
    smtp.say("MAIL FROM:<a@x.example>").expect("250");
    smtp.say("RCPT TO:<user1@example.test>").expect("250");
    let message = [before.as_bytes(), &letter(subject, "See you at the meeting.")].concat();
    assert!(smtp.send_content(&message).starts_with("250"));
    let found = ["INBOX", "Junk"].iter().flat_map(|mailbox| node.messages("user1", mailbox));
    let mut texts = found.map(|message| String::from_utf8_lossy(&message).into_owned());
    let text = texts.rfind(|text| text.contains(&format!("Subject: {subject}\r\n"))).expect("delivered");
    text.split("\r\n\r\n").next().unwrap().replace("\r\n\t", " ")
}

#[test]
fn rules_and_the_log_see_the_countries_of_servers() {
    let node = node(DATABASE);
    let italy = status(&node, ITALY, "Italy", "");
    assert!(italy.contains("FROM_ITALY=0.3") && !italy.contains("VIA_BRAZIL") && !italy.contains("NOWHERE"), "{italy}");
    let through = format!(
        "Received: from far.example (far.example [{BRAZIL}]) by relay.example with ESMTP id 1234;\r\n \
                           Mon, 23 Nov 2026 09:59:00 +0000\r\n"
    );
    let brazil = status(&node, "192.0.3.9", "Brazil", &through);
    assert!(brazil.contains("VIA_BRAZIL=0.7") && brazil.contains("NOWHERE=0.2"), "{brazil}");
    // What the sender writes of itself is nothing.
    let forged = status(&node, STATES, "Forged", "X-Relay-Countries: BR\r\n");
    assert!(!forged.contains("VIA_BRAZIL"), "{forged}");

    let story = (0..50).find_map(|_| {
        std::thread::sleep(Duration::from_millis(100));
        let found = node.json(&["trace", "--to", "user1@example.test"]);
        let mut stories =
            found.as_array()?.iter().map(|row| node.json(&["trace", row["id"].as_str().unwrap()]).to_string());
        stories.rfind(|story| story.contains("\"country\":\"IT\""))
    });
    assert!(story.is_some_and(|story| story.contains(ITALY)));

    // The file goes, comes broken and comes anew; the node judges on.
    let file = node.dir().join("countries.mmdb");
    let told = |words: &str| {
        (0..150).any(|_| {
            std::thread::sleep(Duration::from_millis(100));
            node.log().contains(words)
        })
    };
    std::fs::write(&file, "broken").unwrap();
    assert!(told("countries.mmdb: no database in MaxMind's format"), "{}", node.log());
    assert!(status(&node, ITALY, "Still Italy", "").contains("FROM_ITALY=0.3"));
}

#[test]
fn without_a_database_such_rules_do_not_count() {
    let node = Node::start_configured(
        |dir| {
            let rules = "ifplugin Mail::SpamAssassin::Plugin::RelayCountry\nheader ELSEWHERE X-Relay-Countries !~ /IT/\n\
                         score ELSEWHERE 2\nendif\nheader SEES Subject =~ /./\nscore SEES 0.1\n";
            std::fs::write(dir.join("countries.cf"), rules).unwrap();
        },
        &[
            ("trusted_proxies = []", "trusted_proxies = [\"127.0.0.0/8\"]"),
            ("[filter]", "[filter]\nrules = [\"countries.cf\"]"),
        ],
    );
    let found = status(&node, ITALY, "No database", "");
    assert!(found.contains("SEES=0.1") && !found.contains("ELSEWHERE"), "{found}");
}

/// Sends a harmless letter from a laptop at `ip`; the last reply.
fn submit(node: &Node, ip: &str) -> String {
    let mut smtp = Secure::open(node, 465, ip);
    smtp.expect("220");
    smtp.say("EHLO laptop", "250");
    smtp.say(&format!("AUTH PLAIN {}", base64(b"\0user1@example.test\0demo")), "235");
    smtp.say("MAIL FROM:<user1@example.test>", "250");
    smtp.say("RCPT TO:<user2@example.test>", "250");
    smtp.say("DATA", "354");
    let text = String::from_utf8(letter("Lunch on Friday", "Shall we have lunch on Friday?")).unwrap();
    smtp.say(&format!("{}.", text.replace("anna@sender.example", "user1@example.test")), "")
}

#[test]
fn an_account_that_is_used_from_everywhere_is_slowed_down() {
    let node = node(DATABASE);
    assert!(submit(&node, ITALY).starts_with("250"));
    assert!(submit(&node, STATES).starts_with("250"), "a journey");
    // Somebody reads its mail in Nigeria, and somebody sends from Brazil.
    let mut imap = Secure::open(&node, 993, "203.0.113.5");
    imap.expect("* OK");
    imap.say("a LOGIN user1@example.test demo", "a OK");
    std::thread::sleep(Duration::from_millis(500));
    let reply = submit(&node, BRAZIL);
    assert!(reply.starts_with("450 4.7.1"), "it is to go slowly: {reply} {}", node.log());
    let story = (0..50).find_map(|_| {
        std::thread::sleep(Duration::from_millis(100));
        let found = node.json(&["trace", "--from", "user1@example.test"]);
        let mut stories =
            found.as_array()?.iter().map(|row| node.json(&["trace", row["id"].as_str().unwrap()]).to_string());
        stories.rfind(|story| story.contains("SENDING_COUNTRIES"))
    });
    let story = story.unwrap();
    assert!(story.contains("4 countries within hours, now BR"), "{story}");
}

#[test]
fn a_database_that_is_none_is_told_by_name() {
    let mut node = Node::start();
    node.stop();
    let config = node.config();
    let text = std::fs::read_to_string(&config).unwrap();
    let at = config.to_str().unwrap();
    for (content, why) in [(None, "No such file"), (Some("broken"), "no database in MaxMind's format")] {
        if let Some(content) = content {
            std::fs::write(node.dir().join("countries.mmdb"), content).unwrap();
        }
        std::fs::write(&config, text.replace("[filter]", "[filter]\ncountries = \"countries.mmdb\"")).unwrap();
        let words = format!("filter.countries: {}: {why}", node.dir().join("countries.mmdb").display());
        ortler_fails(&["config", "check", "--config", at], 1, &words);
        ortler_fails(&["serve", "--config", at], 1, &words);
    }
}
