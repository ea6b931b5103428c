//! What an Internet provider would run: three PostgreSQL, three nodes, a balancer, clients; each on a host of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base::{Clock as _, SystemClock};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use store::ObjectServer;

use super::net::Network;
use crate::harness::{Patroni, Place, Site, USERS, answer_dns, make_certificate, skip};

pub const DATABASES: [(&str, Ipv4Addr); 3] = [("pg1", at(11)), ("pg2", at(12)), ("pg3", at(13))];
pub const NODES: [(&str, Ipv4Addr); 3] = [("mx1", at(21)), ("mx2", at(22)), ("mx3", at(23))];
const BALANCER: Ipv4Addr = at(30);
const CLIENTS: Ipv4Addr = at(40);
const OBJECTS: Ipv4Addr = at(50);
const OBJECTS_PORT: u16 = 9000;
const HEALTH: u16 = 8090;
/// No client waits longer for an answer.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// For what takes seconds on a quiet machine.
const LONGEST: Duration = Duration::from_secs(90);

pub const fn at(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 87, 0, last)
}

/// Everything; what was started last goes first, the network last.
pub struct Lane {
    balancer: Running,
    pub nodes: Vec<MailNode>,
    pub objects: Option<Objects>,
    pub patroni: Patroni,
    pub network: Network,
}

impl Lane {
    /// The calling thread becomes a client in it. `None` where it cannot be had.
    pub fn start(with_objects: bool) -> Option<Self> {
        Self::start_with(with_objects, Path::new(env!("CARGO_BIN_EXE_ortler")))
    }

    /// With nodes that are this program.
    pub fn start_with(with_objects: bool, program: &Path) -> Option<Self> {
        let Some(mut network) = Network::make() else {
            skip(
                "network namespaces cannot be made here: that needs root and a kernel with bridges, veth and nftables",
            );
            return None;
        };
        let hosts = DATABASES.map(|(name, address)| network.add(name, address));
        let mail = NODES.map(|(name, address)| network.add(name, address));
        let (etcd, before) = (network.add("etcd", at(10)), network.add("lb", BALANCER));
        network.add("clients", CLIENTS);
        network.enter("clients");
        let names = std::net::UdpSocket::bind((CLIENTS, 53)).unwrap();
        std::thread::spawn(move || answer_dns(&names));
        let objects = match with_objects {
            true => Some(Objects::start(&mut network)?),
            false => None,
        };
        (0..3).for_each(|host| drop(network.disk(&format!("pg/host{host}"), 1500)));
        let patroni = Patroni::start_on(network.folder().join("pg"), hosts, etcd)?;
        make_certificate(network.folder());
        let url = patroni.url();
        let nodes =
            mail.into_iter().zip(NODES).map(|(site, (name, _))| MailNode::new(&network, site, name, &url, &objects));
        let mut nodes: Vec<MailNode> = nodes.collect();
        for node in &mut nodes {
            node.replace(program);
            node.start();
            node.wait_until_ready();
        }
        let balancer = balance(&network, &before);
        let lane = Self { balancer, nodes, objects, patroni, network };
        lane.wait_until_reachable(&[BALANCER]);
        Some(lane)
    }

    /// By the balancer, and by names with the addresses of all nodes.
    pub fn places(&self) -> Vec<Place> {
        let all = NODES.map(|(_, address)| address);
        vec![self.place("balancer", &[BALANCER]), self.place("names", &all)]
    }

    fn place(&self, name: &str, hosts: &[Ipv4Addr]) -> Place {
        Place::with_tls(name, hosts, &self.network.folder().join("certificate.pem"), PATIENCE)
    }

    /// A place whose clients come to this node as long as they can.
    pub fn near(&self, node: usize) -> Place {
        let hosts: Vec<Ipv4Addr> = (0..NODES.len()).map(|nth| NODES[(node + nth) % NODES.len()].1).collect();
        self.place(NODES[node].0, &hosts).watched()
    }

    /// An account of each node's own, with a message; the others get theirs in the load.
    pub fn add_accounts(&self) -> Vec<String> {
        let first = &self.nodes[0];
        first.command(&["domain", "add", "example.test"]);
        let names: Vec<String> = (1..=12).map(|nth| format!("user{nth}")).collect();
        for name in &names {
            first.command(&["account", "add", &format!("{name}@example.test"), "--password-hash", "{PLAIN}demo"]);
        }
        self.soon("accounts are known everywhere", || {
            self.nodes
                .iter()
                .all(|node| self.place("", &[node.site.address]).sign_in("user12").is_ok_and(|said| said.is_ok()))
        });
        self.soon("nodes know each other", || self.nodes.iter().all(MailNode::sees_all));
        (0..self.nodes.len()).map(|node| self.account_of(node, &names[USERS.len()..])).collect()
    }

    /// One of the accounts, whose sessions belong on that node; it gets a message.
    fn account_of(&self, node: usize, names: &[String]) -> String {
        let is_led = |node: &MailNode, name: &str| {
            let before = node.led();
            let is_in = self.place("", &[node.site.address]).sign_in(name).is_ok_and(|said| said.is_ok());
            assert!(is_in, "{name}");
            node.led() > before
        };
        // With a lot to do a node may not answer in time, and a session stays where it does not belong.
        let is_at_home = |name: &&String| {
            let led: Vec<bool> = self.nodes.iter().map(|node| is_led(node, name)).collect();
            !led[node] && led.iter().filter(|led| **led).count() + 1 == led.len()
        };
        let found = (0..5).find_map(|_| names.iter().find(is_at_home)).expect("one of eight accounts is this node's");
        let text = String::from_utf8(crate::harness::letter("first", "A few words.")).unwrap();
        let mut imap = self.place("", &[self.nodes[node].site.address]).sign_in(found).unwrap().unwrap();
        let said = imap.asks_imap(&format!("APPEND INBOX {{{}+}}\r\n{text}", text.len())).unwrap();
        assert!(said.status.starts_with("OK"), "{}", said.status);
        found.clone()
    }

    /// The store must be whole. While the machine has a lot to do, a statement may take longer than it may: then once more.
    #[track_caller]
    pub fn audit(&self, how: &[&str]) {
        let arguments = [&["audit"], how].concat();
        let found = (0..3).find_map(|_| match self.nodes[0].tries(&arguments) {
            Err(said) if said.contains("57014") => None,
            found => Some(found),
        });
        let found = found.expect("an audit that comes to an end");
        assert!(found.is_ok(), "{found:?}");
    }

    /// All nodes serve, and a primary has its standbys.
    #[track_caller]
    pub fn wait_until_whole(&self) {
        self.patroni.wait_until_whole();
        self.nodes.iter().for_each(MailNode::wait_until_ready);
        if let Some(objects) = &self.objects {
            self.soon("the object store", || connects(objects.site.address, OBJECTS_PORT));
        }
    }

    fn wait_until_reachable(&self, addresses: &[Ipv4Addr]) {
        for address in addresses {
            self.soon("the balancer", || connects(*address, 993));
        }
        assert!(self.balancer.is_running());
    }

    #[track_caller]
    pub fn soon(&self, what: &str, holds: impl FnMut() -> bool) {
        wait(what, holds);
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.nodes.iter().for_each(|node| eprintln!("{}:\n{}", node.name, last_lines(&node.log(), 30)));
        }
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[track_caller]
pub fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = SystemClock.now() + LONGEST;
    while !holds() {
        assert!(SystemClock.now() < deadline, "not within {LONGEST:?}: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub fn connects(address: Ipv4Addr, port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from((address, port)), Duration::from_secs(1)).is_ok()
}

/// A child that ends with this.
pub struct Running(Child);

impl Running {
    pub fn start(mut command: Command, log: &Path) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.spawn().unwrap())
    }

    fn is_running(&self) -> bool {
        Path::new("/proc").join(self.0.id().to_string()).exists()
    }

    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// HAProxy as shipped, for these nodes.
pub fn balance(network: &Network, site: &Site) -> Running {
    const SHIPPED: &str = include_str!("../../packaging/balancer/haproxy.cfg");
    let mut config = String::new();
    // Fewer than the limit of open files allows.
    for line in SHIPPED.replace("maxconn 100000", "maxconn 2000").lines() {
        let line = line.replace("10.0.0.11", &NODES[0].1.to_string());
        if line.contains("server mx2") {
            let third = line.replace("10.0.0.12", &NODES[2].1.to_string()).replace("mx2", "mx3");
            config.push_str(&format!("{third}\n"));
        }
        config.push_str(&format!("{}\n", line.replace("10.0.0.12", &NODES[1].1.to_string())));
    }
    assert_eq!(config.matches("server mx3 10.87.0.23:").count(), 9, "{config}");
    let file = network.folder().join("haproxy.cfg");
    std::fs::write(&file, config).unwrap();
    let mut command = site.command("haproxy");
    command.args(["-db", "-f"]).arg(&file);
    Running::start(command, &network.folder().join("haproxy.log"))
}

/// An S3 server on a host of its own.
pub struct Objects {
    pub site: Site,
    running: Option<Running>,
    program: PathBuf,
    folder: PathBuf,
}

impl Objects {
    fn start(network: &mut Network) -> Option<Self> {
        let Some(program) = std::env::var_os("ORTLER_S3_SERVER").map(PathBuf::from) else {
            skip("no object store is installed");
            return None;
        };
        let (site, folder) = (network.add("s3", OBJECTS), network.disk("s3", 1500));
        std::fs::create_dir(folder.join(ObjectServer::BUCKET)).unwrap();
        std::fs::write(network.folder().join("s3.secret"), ObjectServer::SECRET).unwrap();
        let mut objects = Self { site, running: None, program, folder };
        objects.revive();
        Some(objects)
    }

    pub fn kill(&mut self) {
        self.running = None;
    }

    pub fn signal(&self, signal: Signal) {
        self.running.iter().for_each(|running| running.signal(signal));
    }

    pub fn revive(&mut self) {
        let mut command = self.site.command(self.program.to_str().unwrap());
        let (address, port) = (self.site.address.to_string(), OBJECTS_PORT.to_string());
        command.args(["--host", &address, "--port", &port, "--access-key", ObjectServer::ACCESS_KEY]);
        command.args(["--secret-key", ObjectServer::SECRET]).arg(&self.folder);
        self.running = Some(Running::start(command, Path::new("/dev/null")));
        wait("the object store", || connects(self.site.address, OBJECTS_PORT));
    }
}

/// A node of Ortler.
pub struct MailNode {
    pub site: Site,
    pub name: &'static str,
    running: Option<Running>,
    pub disk: PathBuf,
    log: PathBuf,
    program: PathBuf,
}

impl MailNode {
    fn new(network: &Network, site: Site, name: &'static str, url: &str, objects: &Option<Objects>) -> Self {
        const SERVICES: [(&str, u16); 11] = [
            ("smtp", 25),
            ("submission", 587),
            ("submissions", 465),
            ("imap", 143),
            ("imaps", 993),
            ("pop3", 110),
            ("pop3s", 995),
            ("http", 80),
            ("https", 443),
            ("health", HEALTH),
            ("cluster", 8899),
        ];
        let (disk, beside) = (network.disk(name, 64), network.folder().display());
        let mut text = format!(
            "[node]\nname = \"{name}.example.test\"\ndata = \".\"\nshutdown_wait = \"10 s\"\n[dns]\nservers = [\"{CLIENTS}:53\"]\n\
             [tls]\ncertificate = \"{beside}/certificate.pem\"\nkey = \"{beside}/key.pem\"\n\
             [network]\ntrusted_proxies = [\"{BALANCER}\"]\n[log]\nlevel = \"warn\"\n[storage]\nengine = \"postgresql\"\n\
             postgresql = \"{url}\"\npostgresql_tls = \"off\"\npostgresql_connections = 8\n"
        );
        if let Some(objects) = objects {
            text.push_str(&format!(
                "object_store = [\"http://{}:{OBJECTS_PORT}\"]\nobject_store_bucket = \"{}\"\nobject_store_access_key = \"{}\"\n\
                 object_store_secret_file = \"{beside}/s3.secret\"\nobject_store_path_style = true\nobject_store_from = \"100 KB\"\n",
                objects.site.address,
                ObjectServer::BUCKET,
                ObjectServer::ACCESS_KEY,
            ));
        }
        for (protocol, port) in SERVICES {
            text.push_str(&format!("[[listener]]\nprotocol = \"{protocol}\"\naddress = \"{}:{port}\"\n", site.address));
        }
        std::fs::write(disk.join("ortler.toml"), text).unwrap();
        let (log, program) = (network.folder().join(format!("{name}.log")), env!("CARGO_BIN_EXE_ortler").into());
        Self { site, name, running: None, disk, log, program }
    }

    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// With these environment variables.
    pub fn start_with(&mut self, environment: &[(&str, &str)]) {
        let mut command = self.site.command(self.program.to_str().unwrap());
        command.arg("serve").arg("--config").arg(self.config()).envs(environment.iter().copied());
        command.current_dir(&self.disk);
        self.running = Some(Running::start(command, &self.log));
    }

    /// The program that it is from its next start on.
    pub fn replace(&mut self, program: &Path) {
        self.program = program.to_owned();
    }

    pub fn kill(&mut self) {
        self.running = None;
    }

    /// As an operator stops it.
    #[track_caller]
    pub fn stop(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        running.signal(Signal::SIGTERM);
        wait("a node stops", || running.0.try_wait().unwrap().is_some());
    }

    pub fn signal(&self, signal: Signal) {
        self.running.iter().for_each(|running| running.signal(signal));
    }

    #[track_caller]
    pub fn wait_until_ready(&self) {
        let deadline = SystemClock.now() + LONGEST;
        while self.asks("/readyz").is_none_or(|(status, _)| status != 200) {
            assert!(SystemClock.now() < deadline, "{} is not ready: {}", self.name, self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the health listener answers.
    pub fn asks(&self, path: &str) -> Option<(u16, String)> {
        let address = SocketAddr::from((self.site.address, HEALTH));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
        std::io::Write::write_all(
            &mut stream,
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
        )
        .ok()?;
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    fn sees_all(&self) -> bool {
        self.asks("/metrics").is_some_and(|(_, metrics)| metrics.contains("ortler_cluster_nodes{state=\"up\"} 3"))
    }

    /// Sessions that this node has led to others so far.
    fn led(&self) -> u32 {
        let (_, metrics) = self.asks("/metrics").unwrap();
        let line = metrics.lines().find_map(|line| line.strip_prefix("ortler_cluster_leads_total "));
        line.map_or(0, |count| count.parse().unwrap())
    }

    /// A command of this node, on its host, which must succeed; what it prints.
    #[track_caller]
    pub fn command(&self, arguments: &[&str]) -> String {
        self.tries(arguments).unwrap_or_else(|said| panic!("{arguments:?}: {said}"))
    }

    /// What a command prints, if it succeeds or if not.
    fn tries(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = self.site.command(env!("CARGO_BIN_EXE_ortler"));
        let output = command.args(arguments).arg("--config").arg(self.config()).stdin(Stdio::null()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        if output.status.success() { Ok(said) } else { Err(said) }
    }

    fn config(&self) -> PathBuf {
        self.disk.join("ortler.toml")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}
