//! DNS lists, asked of a name server on loopback, over real SMTP.

use std::time::Duration;

use base::{Clock as _, SystemClock};
use mailauth::stub::StubServer;

use crate::harness::{Node, http, letter, ortler_fails};

/// What every list here holds.
const TESTS: &str = "2.0.0.127.zen.spamhaus.org A 127.0.0.2\n2.0.0.127.list.dnswl.org A 127.0.10.0\n\
                     test.multi.surbl.org A 127.0.0.254\n";

struct Setup {
    node: Node,
    server: StubServer,
}

impl Setup {
    /// A node that asks `lists` (as they stand in the configuration) with `options`, once each list was looked at.
    fn start(zone: &str, lists: &str, options: &str) -> Self {
        let server = StubServer::start(&format!("{TESTS}{zone}"));
        let servers = format!("[dns]\nservers = [\"{}\"] # ", server.address());
        let filter = format!("[filter]\npolicy = \"policy.toml\"\ndns_lists = {lists}\n{options}");
        let node = Node::start_configured(
            |dir| std::fs::write(dir.join("policy.toml"), "greylist = \"off\"").unwrap(),
            &[
                ("trusted_proxies = []", "trusted_proxies = [\"127.0.0.0/8\"]"),
                ("[dns]\nservers = ", &servers),
                ("[filter]", &filter),
                ("level = \"warn\"", "level = \"info\""),
            ],
        );
        let setup = Self { node, server };
        setup.until(|told| {
            let lists = told["dns_lists"].as_array().cloned().unwrap_or_default();
            lists.iter().all(|list| list["asked"] == true || list["trouble"].is_string())
        });
        setup
    }

    fn health(&self) -> serde_json::Value {
        serde_json::from_str(&http(self.node.port(90), "GET /readyz", "", "").2).unwrap()
    }

    #[track_caller]
    fn until(&self, holds: impl Fn(&serde_json::Value) -> bool) {
        let found = (0..300).any(|_| {
            let holds = holds(&self.health());
            std::thread::sleep(Duration::from_millis(if holds { 0 } else { 50 }));
            holds
        });
        assert!(found, "{}: {}", self.health(), self.node.log());
    }

    fn metrics(&self) -> String {
        http(self.node.port(90), "GET /metrics", "", "").2
    }

    /// Sends a letter from the client at `ip`; what it came with in the mailbox that it went to.
    fn deliver(&self, ip: &str, text: &str) -> (String, Duration) {
        let start = SystemClock.now();
        let mut smtp = self.node.connect(25);
        smtp.send(format!("PROXY TCP4 {ip} 198.51.100.1 4444 25\r\n").as_bytes()).expect("220");
        smtp.say("EHLO client.example.org").expect("250");
        smtp.say("MAIL FROM:<a@x.example>").expect("250");
        smtp.say("RCPT TO:<user1@example.test>").expect("250");
        let reply = smtp.send_content(&letter("to you", text));
        let took = SystemClock.now() - start;
        assert!(reply.starts_with("250"), "{reply}");
        let mut found = self.node.everywhere("user1");
        self.node.empty("user1");
        assert_eq!(found.len(), 1, "{found:?}");
        let (mailbox, message) = found.remove(0);
        let message = String::from_utf8_lossy(&message).into_owned();
        let (head, _) = message.split_once("\r\n\r\n").unwrap();
        (format!("{mailbox} {}", head.replace("\r\n\t", " ")), took)
    }
}

#[test]
fn listed_servers_and_links_count_and_known_good_ones_too() {
    let zone = "2.2.2.2.zen.spamhaus.org A 127.0.0.2\n2.2.2.2.zen.spamhaus.org A 127.0.0.4\n\
                3.2.2.2.zen.spamhaus.org A 127.0.0.2\n3.2.2.2.list.dnswl.org A 127.0.5.3\n\
                bad-shop.com.multi.surbl.org A 127.0.0.72\n";
    let setup = Setup::start(zone, "[\"zen.spamhaus.org\", \"list.dnswl.org\", \"multi.surbl.org\"]", "");
    let (spam, _) = setup.deliver("2.2.2.2", "See you at the meeting.");
    assert!(!spam.starts_with("INBOX") && spam.contains("RCVD_IN_SBL=3") && spam.contains("RCVD_IN_XBL=3"), "{spam}");
    let (good, _) = setup.deliver("2.2.2.3", "See you at the meeting.");
    assert!(good.starts_with("INBOX") && good.contains("RCVD_IN_DNSWL_HI=-3"), "{good}");
    let (link, _) = setup.deliver("2.2.2.4", "Look at http://www.bad-shop.com/cheap today.");
    assert!(link.contains("URIBL_PH_SURBL=3.5") && link.contains("URIBL_ABUSE_SURBL=2.8"), "{link}");
    // Nobody named these, and who is at home is nobody's business.
    let asked = setup.server.asked();
    assert!(!asked.iter().any(|name| name.contains("uribl.com") || name.contains("spamcop")), "{asked:?}");
    setup.deliver("10.1.2.3", "See you at the meeting.");
    assert!(!setup.server.asked().iter().any(|name| name.starts_with("3.2.1.10.zen")));
    let metrics = setup.metrics();
    assert!(metrics.contains("ortler_dns_list_up{zone=\"zen.spamhaus.org\"} 1"), "{metrics}");
    assert!(metrics.contains("ortler_dns_list_hits_total{zone=\"multi.surbl.org\"}"), "{metrics}");
}

#[test]
fn lists_that_refuse_or_list_everything_are_set_aside() {
    let zone = "*.multi.surbl.org A 127.0.0.64\n2.2.2.2.zen.spamhaus.org A 127.255.255.254\n\
                3.2.2.2.zen.spamhaus.org A 127.0.0.2\n";
    let zone = format!("test.multi.surbl.org A 127.0.0.254\n{zone}");
    let setup = Setup::start(&zone, "[\"zen.spamhaus.org\", \"multi.surbl.org\"]", "");
    let trouble = |zone: &str| {
        let lists = setup.health()["dns_lists"].clone();
        let list = lists.as_array().unwrap().iter().find(|list| list["zone"] == zone).unwrap();
        list["trouble"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(trouble("multi.surbl.org"), "it lists everything");
    let (head, _) = setup.deliver("2.2.2.2", "Look at http://www.honest-shop.com/ today.");
    assert!(head.starts_with("INBOX") && !head.contains("SURBL") && !head.contains("RCVD_IN_"), "{head}");
    assert_eq!(trouble("zen.spamhaus.org"), "it refuses to answer (127.255.255.254)");
    let (head, _) = setup.deliver("2.2.2.3", "See you at the meeting.");
    assert!(!head.contains("RCVD_IN_"), "{head}");
    let log = setup.node.log();
    assert_eq!(log.matches("dns_list.aside").count(), 2, "{log}");
    assert!(setup.metrics().contains("ortler_dns_list_up{zone=\"zen.spamhaus.org\"} 0"));
}

#[test]
fn a_silent_list_holds_up_no_mail_beyond_the_deadline() {
    let zone = "*.zen.spamhaus.org TIMEOUT\n1.0.0.127.zen.spamhaus.org A 127.0.0.2\n";
    // What holds at the check: it is well. Afterwards it says nothing.
    let zone = zone.replace("1.0.0.127.zen.spamhaus.org A 127.0.0.2\n", "1.0.0.127.zen.spamhaus.org MX 1 x.test\n");
    let setup = Setup::start(&zone, "[\"zen.spamhaus.org\"]", "dns_list_wait = \"600 ms\"\n");
    let (head, took) = setup.deliver("2.2.2.2", "See you at the meeting.");
    assert!(head.starts_with("INBOX") && head.contains("DNS_LISTS_LATE"), "{head}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    for ip in ["2.2.2.3", "2.2.2.4"] {
        setup.deliver(ip, "See you at the meeting.");
    }
    // Nobody waits for it any more.
    let (head, took) = setup.deliver("2.2.2.5", "See you at the meeting.");
    assert!(took < Duration::from_millis(500) && !head.contains("DNS_LISTS_LATE"), "{took:?} {head}");
    assert_eq!(setup.node.log().matches("dns_list.aside").count(), 1, "{}", setup.node.log());
}

#[test]
fn a_list_is_asked_as_often_as_is_allowed() {
    let zone = "*.zen.spamhaus.org A 127.0.0.2\n1.0.0.127.zen.spamhaus.org MX 1 x.test\n";
    let setup = Setup::start(zone, "[\"zen.spamhaus.org\"]", "dns_list_questions_per_day = 2\n");
    let hits: Vec<bool> = ["2.2.2.2", "2.2.2.3", "2.2.2.4", "2.2.2.5", "2.2.2.2"]
        .iter()
        .map(|ip| setup.deliver(ip, "See you at the meeting.").0.contains("RCVD_IN_SBL"))
        .collect();
    // What is remembered is no question.
    assert_eq!(hits, [true, true, false, false, true]);
    assert_eq!(setup.node.log().matches("dns_list.exhausted").count(), 1, "{}", setup.node.log());
}

#[test]
fn lists_of_own_rules_need_no_name_and_wrong_names_are_told() {
    let server = StubServer::start("2.0.0.127.list.own.test A 127.0.0.2\n2.2.2.2.list.own.test A 127.0.0.2\n");
    let servers = format!("[dns]\nservers = [\"{}\"] # ", server.address());
    let own = "header OWN eval:check_rbl('own-lastexternal', 'list.own.test.')\nscore OWN 0 1.5 0 1.5\n";
    let node = Node::start_configured(
        |dir| std::fs::write(dir.join("own.cf"), own).unwrap(),
        &[
            ("trusted_proxies = []", "trusted_proxies = [\"127.0.0.0/8\"]"),
            ("[dns]\nservers = ", &servers),
            ("[filter]", "[filter]\nrules = [\"own.cf\"]"),
        ],
    );
    let setup = Setup { node, server };
    setup.until(|told| told["dns_lists"][0]["asked"] == true);
    let (head, _) = setup.deliver("2.2.2.2", "See you at the meeting.");
    assert!(head.contains("OWN=1.5"), "{head}");

    let config = setup.node.config();
    let text = std::fs::read_to_string(&config).unwrap();
    let wrong =
        text.replacen("[filter]", "[filter]\ndns_lists = [\n  \"list.own.test\",\n  \"zen.spamhaus.og\",\n]", 1);
    std::fs::write(&config, &wrong).unwrap();
    let line = wrong.lines().position(|line| line.contains("zen.spamhaus.og")).unwrap() + 1;
    let path = config.to_str().unwrap();
    ortler_fails(
        &["config", "check", "--config", path],
        1,
        &format!("{path}:{line}: `filter.dns_lists` names `zen.spamhaus.og`"),
    );
}
