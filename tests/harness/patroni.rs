//! Three PostgreSQL servers of which one takes writes, under Patroni, with etcd to decide which; and what may befall them.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base::{Clock as _, SystemClock};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{skip, wants_all};

/// A cluster; when this is dropped, whatever runs in its folder is killed, and a folder of its own removed.
pub struct Patroni {
    folder: PathBuf,
    _dir: Option<tempfile::TempDir>,
    hosts: [Site; 3],
    etcd: Site,
    ports: Ports,
    programs: PathBuf,
    children: Vec<Child>,
}

/// Where a server runs.
#[derive(Clone, Debug)]
pub struct Site {
    pub address: Ipv4Addr,
    /// The network namespace, if it is not everybody's.
    pub space: Option<String>,
}

impl Site {
    /// The program as started on this host.
    pub fn command(&self, program: &str) -> Command {
        let Some(space) = &self.space else { return Command::new(program) };
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{space}")).arg(program);
        command
    }
}

/// The same on each host.
struct Ports {
    server: u16,
    patroni: u16,
    etcd: u16,
    etcd_peers: u16,
}

/// How long a primary that is not heard of keeps its office. Patroni wants it to be as long as a turn of its loop and two
/// attempts to reach etcd.
pub const LEASE: Duration = Duration::from_secs(8);
const LOOP: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(3);

/// For what takes seconds on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(90);

impl Patroni {
    /// On addresses of the loopback interface. `None` where the programs are not installed and that is fine.
    pub fn start() -> Option<Self> {
        let hosts = [2, 3, 4].map(|last| Site { address: Ipv4Addr::new(127, 0, 0, last), space: None });
        let dir = tempfile::tempdir().unwrap();
        let [server, patroni, etcd, etcd_peers] = free_ports(&hosts.each_ref().map(|host| host.address));
        let ports = Ports { server, patroni, etcd, etcd_peers };
        let first = hosts[0].clone();
        Self::launch(dir.path().to_owned(), Some(dir), hosts, first, ports)
    }

    /// One server on each host, at the usual ports; etcd on another one. Below `folder` each host has its own, `host0` and
    /// so on, which may be there already.
    pub fn start_on(folder: PathBuf, hosts: [Site; 3], etcd: Site) -> Option<Self> {
        let ports = Ports { server: 5432, patroni: 8008, etcd: 2379, etcd_peers: 2380 };
        Self::launch(folder, None, hosts, etcd, ports)
    }

    fn launch(
        folder: PathBuf,
        dir: Option<tempfile::TempDir>,
        hosts: [Site; 3],
        etcd: Site,
        ports: Ports,
    ) -> Option<Self> {
        let Some(programs) = installed() else {
            assert!(!wants_all(), "Patroni, etcd or PostgreSQL is not installed");
            skip("Patroni, etcd or PostgreSQL is not installed");
            return None;
        };
        let mut cluster = Self { folder, _dir: dir, hosts, etcd, ports, programs, children: Vec::new() };
        // Its users are others than ours.
        run(Command::new("chmod").arg("755").arg(&cluster.folder));
        cluster.start_etcd();
        for host in 0..cluster.hosts.len() {
            let folder = cluster.folder(host);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("patroni.yml"), cluster.configuration(host)).unwrap();
            give_away(&folder);
            cluster.revive(host);
        }
        cluster.wait_until_whole();
        Some(cluster)
    }

    /// Connection string that names all hosts.
    pub fn url(&self) -> String {
        let hosts = self.hosts.each_ref().map(|host| host.address.to_string()).join(",");
        let port = self.ports.server;
        format!("host={hosts} port={port},{port},{port} user=postgres dbname=postgres target_session_attrs=read-write")
    }

    /// The host that Patroni says takes writes.
    pub fn primary(&self) -> Option<usize> {
        (0..self.hosts.len()).find(|host| self.says(*host, "primary"))
    }

    /// Waits for a host other than `before` to be primary.
    #[track_caller]
    pub fn wait_for_another(&self, before: usize) -> usize {
        self.wait(|| self.primary().filter(|host| *host != before), "another primary")
    }

    /// Waits until one takes writes and the two others follow it, one of them so that it may take its place.
    #[track_caller]
    pub fn wait_until_whole(&self) {
        let may_follow = || (0..self.hosts.len()).any(|host| self.says(host, "sync"));
        self.wait(|| (self.is_followed() && may_follow()).then_some(()), "a primary that has a successor");
    }

    fn is_followed(&self) -> bool {
        let Some(primary) = self.primary() else { return false };
        let Some((_, said)) = self.asks(primary, "patroni") else { return false };
        let streams = |one: &&Value| one["state"] == "streaming";
        let followers = said["replication"].as_array().map_or(0, |found| found.iter().filter(streams).count());
        // One that still makes its copy of the primary streams too, but is no replica yet.
        let replicas = (0..self.hosts.len()).filter(|host| *host != primary && self.says(*host, "replica")).count();
        followers == 2 && replicas == 2
    }

    /// True if Patroni says that the host is that.
    fn says(&self, host: usize, what: &str) -> bool {
        self.asks(host, what).is_some_and(|(status, _)| status == 200)
    }

    /// As if the power of the host went.
    pub fn kill_host(&self, host: usize) {
        self.end(&self.folder(host));
    }

    /// The server dies and leaves its sessions behind; Patroni goes on.
    pub fn kill_server(&self, host: usize) {
        signal(self.server(host), Signal::SIGKILL);
    }

    /// What decides who takes writes stands still, or goes on.
    pub fn pause_etcd(&self, is_paused: bool) {
        let what = if is_paused { Signal::SIGSTOP } else { Signal::SIGCONT };
        processes(&self.folder.join("etcd")).into_iter().for_each(|pid| signal(pid, what));
    }

    /// The host stands still: nothing is closed, and nothing answered.
    pub fn pause_host(&self, host: usize) {
        processes(&self.folder(host)).into_iter().for_each(|pid| signal(pid, Signal::SIGSTOP));
    }

    /// The server goes on where it was, without Patroni: it takes writes until somebody stops it. Patroni itself must not
    /// wake: version 3.0 takes the office back from whoever was elected, and what was committed there is gone. A watchdog
    /// keeps it from that outside of tests.
    pub fn wake_server(&self, host: usize) {
        let folder = self.folder(host);
        for pid in processes(&folder) {
            let is_patroni = std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|at| at == folder);
            signal(pid, if is_patroni { Signal::SIGKILL } else { Signal::SIGCONT });
        }
    }

    /// Starts a killed host; it finds its place among the others.
    pub fn revive(&mut self, host: usize) {
        let folder = self.folder(host);
        let mut command = as_postgres(&self.hosts[host], "patroni", &folder);
        command.arg(folder.join("patroni.yml"));
        self.spawn(command, &format!("host{host}.log"));
    }

    /// What the hosts said last, for whoever looks for the reason of a failure.
    pub fn logs(&self) -> String {
        let mut out = String::new();
        for host in 0..self.hosts.len() {
            let log = std::fs::read_to_string(self.folder.join(format!("host{host}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("no action")).collect();
            let last = lines.len().saturating_sub(40);
            out.push_str(&format!("host {host}:\n{}\n", lines.get(last..).unwrap_or_default().join("\n")));
        }
        out
    }

    pub fn folder(&self, host: usize) -> PathBuf {
        self.folder.join(format!("host{host}"))
    }

    /// The process that all others of the server come from.
    fn server(&self, host: usize) -> i32 {
        let file = self.folder(host).join("data/postmaster.pid");
        std::fs::read_to_string(file).unwrap().lines().next().unwrap().trim().parse().unwrap()
    }

    fn start_etcd(&mut self) {
        let folder = self.folder.join("etcd");
        std::fs::create_dir(&folder).unwrap();
        give_away(&folder);
        let address = self.etcd.address;
        let clients = format!("http://{address}:{}", self.ports.etcd);
        let peers = format!("http://{address}:{}", self.ports.etcd_peers);
        let mut command = as_postgres(&self.etcd, "etcd", &folder);
        command.args(["--name", "one", "--data-dir", "data", "--log-level", "warn", "--logger", "zap"]);
        command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
        command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        command.args(["--initial-cluster", &format!("one={peers}")]);
        self.spawn(command, "etcd.log");
    }

    fn configuration(&self, host: usize) -> String {
        let (address, folder, programs) = (self.hosts[host].address, self.folder(host), self.programs.display());
        let (folder, Ports { server, patroni, etcd, .. }) = (folder.display(), &self.ports);
        let (lease, turn, retry, first) = (LEASE.as_secs(), LOOP.as_secs(), RETRY.as_secs(), self.etcd.address);
        format!(
            "scope: ortler
name: host{host}
restapi: {{listen: '{address}:{patroni}', connect_address: '{address}:{patroni}'}}
etcd3: {{hosts: '{first}:{etcd}'}}
bootstrap:
  dcs:
    ttl: {lease}
    loop_wait: {turn}
    retry_timeout: {retry}
    master_start_timeout: 0
    synchronous_mode: true
    synchronous_mode_strict: true
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters: {{wal_log_hints: 'on', shared_buffers: 32MB, wal_keep_size: 256MB, wal_retrieve_retry_interval: 500ms}}
  initdb: [{{encoding: UTF8}}, {{locale: C.UTF-8}}, data-checksums]
postgresql:
  listen: '{address}:{server}'
  connect_address: '{address}:{server}'
  data_dir: {folder}/data
  bin_dir: {programs}
  pgpass: {folder}/pgpass
  basebackup: [{{checkpoint: fast}}]
  parameters: {{unix_socket_directories: {folder}}}
  pg_hba: ['local all all trust', 'host all all 0.0.0.0/0 trust', 'host replication all 0.0.0.0/0 trust']
  authentication:
    superuser: {{username: postgres, password: unused}}
    replication: {{username: replicator, password: unused}}
    rewind: {{username: postgres, password: unused}}
watchdog: {{mode: 'off'}}
"
        )
    }

    fn spawn(&mut self, mut command: Command, log: &str) {
        let log = std::fs::File::options().create(true).append(true).open(self.folder.join(log)).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.children.push(command.spawn().unwrap());
    }

    /// Patroni's answer, if it gives one at once.
    fn asks(&self, host: usize, what: &str) -> Option<(u16, Value)> {
        let address = SocketAddr::from((self.hosts[host].address, self.ports.patroni));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        stream.write_all(format!("GET /{what} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, serde_json::from_str(body).ok()?))
    }

    #[track_caller]
    fn wait<T>(&self, mut look: impl FnMut() -> Option<T>, what: &str) -> T {
        let deadline = SystemClock.now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(SystemClock.now() < deadline, "not within {PATIENCE:?}: {what}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Kills what runs in a folder, and what that starts meanwhile.
    fn end(&self, folder: &Path) {
        for _ in 0..200 {
            let found = processes(folder);
            if found.is_empty() {
                return;
            }
            found.into_iter().for_each(|pid| signal(pid, Signal::SIGKILL));
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{}: a process does not end", folder.display());
    }
}

impl Drop for Patroni {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        for child in &mut self.children {
            // One that ended is not waited for yet: the number is still its own.
            let _ = child.kill();
        }
        self.end(&self.folder);
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}

/// Where PostgreSQL's programs are, if Patroni and etcd are there too.
fn installed() -> Option<PathBuf> {
    let is_there = |name: &str| ["/usr/bin", "/usr/local/bin"].iter().any(|dir| Path::new(dir).join(name).exists());
    engine::postgres::Server::programs().filter(|_| is_there("patroni") && is_there("etcd"))
}

/// Ports that no program uses on any of the addresses.
fn free_ports<const N: usize>(hosts: &[Ipv4Addr]) -> [u16; N] {
    let mut held = Vec::new();
    std::array::from_fn(|_| {
        for _ in 0..100 {
            let first = TcpListener::bind((hosts[0], 0)).unwrap();
            let port = first.local_addr().unwrap().port();
            let others: Vec<_> = hosts[1..].iter().filter_map(|host| TcpListener::bind((*host, port)).ok()).collect();
            let is_free = others.len() == hosts.len() - 1;
            // Until all are found, so that they differ.
            held.push((first, others));
            if is_free {
                return port;
            }
        }
        panic!("no port is free on {hosts:?}")
    })
}

/// PostgreSQL refuses to run as root.
fn as_postgres(site: &Site, program: &str, folder: &Path) -> Command {
    let mut command = if nix::unistd::geteuid().is_root() {
        let mut command = site.command("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", program]);
        command
    } else {
        site.command(program)
    };
    // Out of reach of the terminal's keys: these are ended when we say so.
    command.current_dir(folder).stdin(Stdio::null()).process_group(0);
    command
}

fn give_away(folder: &Path) {
    run(Command::new("chmod").arg("700").arg(folder));
    if nix::unistd::geteuid().is_root() {
        run(Command::new("chown").arg("-R").arg("postgres:").arg(folder));
    }
}

fn run(command: &mut Command) {
    assert!(command.status().is_ok_and(|status| status.success()), "{command:?}");
}

/// Those that work in the folder or below, as each process of a host does, whichever of them started it.
fn processes(folder: &Path) -> Vec<i32> {
    let works_here = |pid: &i32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|at| at.starts_with(folder));
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(works_here).collect()
}

/// One that has ended meanwhile is fine.
fn signal(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}
