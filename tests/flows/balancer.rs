//! HAProxy with the configuration that is shipped, before two nodes.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base::{Clock as _, SystemClock};
use engine::postgres::Server;

use super::postgres::{add_accounts, soon};
use crate::harness::{Conversation, Node, http, letter, skip, wants_all};

/// The running balancer and its ports.
struct Balancer {
    child: Child,
    base: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Balancer {
    /// As shipped, but for addresses, and without what the nodes have no listeners for.
    fn start(nodes: [&Node; 2]) -> Self {
        const SHIPPED: &str = include_str!("../../packaging/balancer/haproxy.cfg");
        const SERVED: [u16; 5] = [25, 587, 143, 110, 80];
        let folder = tempfile::tempdir().unwrap();
        // A range that no node of these tests has.
        let base = nodes[0].port(0) + 100;
        let mut config = String::new();
        for section in SHIPPED.split("\n\n") {
            let bound = section.lines().find_map(|line| line.trim().strip_prefix("bind :"));
            let port: Option<u16> = bound.map(|port| port.parse().unwrap());
            if port.is_some_and(|port| !SERVED.contains(&port)) {
                continue;
            }
            let mut section = section.to_owned();
            if let Some(port) = port {
                section = section.replace(&format!("bind :{port}"), &format!("bind 127.0.0.1:{}", base + port));
                for (node, name) in nodes.iter().zip(["10.0.0.11", "10.0.0.12"]) {
                    let server = format!("{name}:{port} send-proxy-v2 check port 8090");
                    assert!(section.contains(&server), "{section}");
                    let here = format!("127.0.0.1:{} send-proxy-v2 check port {}", node.port(port), node.port(90));
                    section = section.replace(&server, &here);
                    let (server, here) = (format!("{name}:{port} "), format!("127.0.0.1:{} ", node.port(port)));
                    section = section.replace(&server, &here);
                }
            }
            config.push_str(&section);
            config.push_str("\n\n");
        }
        let config = config.replace("127.0.0.1:8091", &format!("127.0.0.1:{}", base + 91));
        // Fewer than the limit of open files allows.
        let config = config.replace("maxconn 100000", "maxconn 2000");
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let balancer = Self { child, base, _folder: folder };
        for port in SERVED {
            soon(|| std::net::TcpStream::connect(("127.0.0.1", base + port)).is_ok());
        }
        balancer
    }

    fn connect(&self, service: u16) -> Conversation {
        Conversation::open(self.base + service)
    }

    /// Signs in by the balancer; true if that went well.
    fn sign_in(&self) -> (Conversation, bool) {
        let mut imap = self.connect(143);
        let greeting = imap.line();
        if !greeting.starts_with("* OK") {
            return (imap, false);
        }
        imap.say("a LOGIN user1@example.test demo");
        let is_in = imap.line().starts_with("a OK");
        (imap, is_in)
    }
}

fn sessions(node: &Node) -> f64 {
    let (_, _, metrics) = http(node.port(90), "GET /metrics", "", "");
    let line = metrics.lines().find_map(|line| line.strip_prefix("ortler_sessions_open{listener=\"imap\"} "));
    line.map_or(0.0, |count| count.parse().unwrap())
}

#[test]
fn the_shipped_balancer_passes_over_nodes_that_drain_or_die() {
    if !wants_all() || Command::new("haproxy").arg("-v").output().is_err() {
        return skip("HAProxy is for the full run");
    }
    let Some(server) = Server::start() else { return };
    let trusting = "[network]\ntrusted_proxies = [\"127.0.0.0/8\"]";
    let (one, mut other) = (Node::on_postgres(&server.url(), trusting), Node::on_postgres(&server.url(), trusting));
    add_accounts(&one, &["user1"]);
    let balancer = Balancer::start([&one, &other]);
    soon(|| balancer.sign_in().1);

    // Both are used.
    let mut open: Vec<Conversation> = (0..8).map(|_| balancer.sign_in().0).collect();
    assert!(sessions(&one) >= 2.0 && sessions(&other) >= 2.0, "{} {}", sessions(&one), sessions(&other));
    let mut smtp = balancer.connect(25);
    smtp.expect("220");
    smtp.say("HELO x").expect("250");
    smtp.say("MAIL FROM:<a@x.example>").expect("250");
    smtp.say("RCPT TO:<user1@example.test>").expect("250");
    assert!(smtp.send_content(&letter("by the balancer", "Hello.")).starts_with("250"));
    let (status, _, page) = http(balancer.base + 80, "GET /", "", "");
    assert!(status < 400, "{status} {page}");

    // Per protocol, and only what is served.
    let ready = |node: &Node, what: &str| http(node.port(90), &format!("GET /readyz/{what}"), "", "").0;
    assert_eq!([ready(&one, "imap"), ready(&one, "smtp"), ready(&one, "imaps")], [200, 200, 404]);

    // A drained node keeps what it has and gets nothing new.
    other.command(&["cluster", "drain"]);
    soon(|| ready(&other, "imap") == 503);
    std::thread::sleep(Duration::from_secs(3));
    let before = sessions(&other);
    for _ in 0..6 {
        let (imap, is_in) = balancer.sign_in();
        assert!(is_in);
        open.push(imap);
    }
    assert!((sessions(&other) - before).abs() < 0.5, "{before} {}", sessions(&other));
    for imap in &mut open {
        imap.tagged("NOOP");
    }
    other.command(&["cluster", "resume"]);
    soon(|| ready(&other, "imap") == 200);
    std::thread::sleep(Duration::from_secs(3));

    // One that dies is passed over at once: a connection that it refuses goes to the other.
    other.kill();
    let killed = SystemClock.now();
    for _ in 0..6 {
        assert!(balancer.sign_in().1, "after {:?}", SystemClock.now() - killed);
    }
    assert!(SystemClock.now() - killed < Duration::from_secs(3));
}
