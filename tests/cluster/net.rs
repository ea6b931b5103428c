//! Hosts made of network namespaces, all on one switch, each with a disk of its own; and what may befall their links and disks.

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base::{Clock as _, SystemClock};

use crate::harness::Site;

/// Begins the names of all that is made, before the number of the process that made it.
const MARK: &str = "ortler-lane";
static NETWORKS: AtomicU32 = AtomicU32::new(0);

/// A network; with it go all its hosts, and whatever runs or is mounted there.
pub struct Network {
    name: String,
    hosts: Vec<String>,
    folder: PathBuf,
}

impl Network {
    /// `None` where this user or this kernel cannot make one.
    pub fn make() -> Option<Self> {
        sweep();
        let name = format!("{MARK}{}-{}", std::process::id(), NETWORKS.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(&name);
        let network = Self { name, hosts: Vec::new(), folder };
        let switch = network.space("switch");
        let can = tries("ip", &["netns", "add", &switch])
            && tries("ip", &["-n", &switch, "link", "add", "bridge", "type", "bridge"])
            && tries("ip", &["-n", &switch, "link", "set", "bridge", "up"])
            && tries("nsenter", &[&entered(&switch), "nft", "list", "ruleset"]);
        if !can {
            return None;
        }
        std::fs::create_dir(&network.folder).unwrap();
        runs("mount", &["-t", "tmpfs", "-o", "size=12g,mode=755", "tmpfs", &network.path("")]);
        Some(network)
    }

    /// A new host.
    pub fn add(&mut self, host: &str, address: Ipv4Addr) -> Site {
        let (switch, space) = (self.space("switch"), self.space(host));
        runs("ip", &["netns", "add", &space]);
        self.hosts.push(host.to_owned());
        runs("ip", &["-n", &switch, "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", &space]);
        runs("ip", &["-n", &switch, "link", "set", host, "master", "bridge", "up"]);
        runs("ip", &["-n", &space, "address", "add", &format!("{address}/24"), "dev", "eth0"]);
        runs("ip", &["-n", &space, "link", "set", "lo", "up"]);
        runs("ip", &["-n", &space, "link", "set", "eth0", "up"]);
        Site { address, space: Some(space) }
    }

    /// The calling thread, and what it starts from now on, is on that host.
    pub fn enter(&self, host: &str) {
        let space = std::fs::File::open(format!("/run/netns/{}", self.space(host))).unwrap();
        nix::sched::setns(space, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    }

    /// The cable is out, or in again.
    pub fn plug(&self, host: &str, is_in: bool) {
        let state = if is_in { "up" } else { "down" };
        runs("ip", &["-n", &self.space("switch"), "link", "set", host, state]);
    }

    /// The host does not hear these; without any, nobody.
    pub fn deafen(&self, host: &str, to: &[Ipv4Addr]) {
        self.drop_packets(host, "input", "saddr", to);
    }

    /// These do not hear the host; without any, nobody does.
    pub fn mute(&self, host: &str, to: &[Ipv4Addr]) {
        self.drop_packets(host, "output", "daddr", to);
    }

    fn drop_packets(&self, host: &str, hook: &str, end: &str, others: &[Ipv4Addr]) {
        let mut rules =
            format!("table inet cut {{ chain {hook} {{ type filter hook {hook} priority 0; iif lo accept; ");
        if hook == "output" {
            rules = rules.replace("iif lo", "oif lo");
        }
        match others {
            [] => rules.push_str("drop; "),
            some => some.iter().for_each(|address| rules.push_str(&format!("ip {end} {address} drop; "))),
        }
        rules.push_str("}; }");
        runs("nsenter", &[&entered(&self.space(host)), "nft", &rules]);
    }

    /// The host's questions to name servers get lost.
    pub fn drop_names(&self, host: &str) {
        let rules = "table inet cut { chain output { type filter hook output priority 0; udp dport 53 drop; tcp dport 53 drop; }; }";
        runs("nsenter", &[&entered(&self.space(host)), "nft", rules]);
    }

    /// All that was dropped passes again.
    pub fn hear(&self, host: &str) {
        tries("nsenter", &[&entered(&self.space(host)), "nft", "delete table inet cut"]);
    }

    /// What the host sends passes at that many kilobits a second and waits up to half a second; `None` for full speed.
    pub fn slow_down(&self, host: &str, kilobits: Option<u32>) {
        let space = self.space(host);
        match kilobits {
            Some(rate) => {
                let rate = format!("{rate}kbit");
                let shape = ["root", "tbf", "rate", &rate, "burst", "16kb", "latency", "500ms"];
                runs("tc", &[&["-n", &space, "qdisc", "add", "dev", "eth0"][..], &shape[..]].concat());
            }
            None => runs("tc", &["-n", &space, "qdisc", "del", "dev", "eth0", "root"]),
        }
    }

    /// A disk of so many megabytes; where it is mounted.
    pub fn disk(&self, at: &str, megabytes: u32) -> PathBuf {
        let (image, folder) = (self.path(&format!("{}.img", at.replace('/', "-"))), self.folder.join(at));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::File::create(&image).unwrap().set_len(u64::from(megabytes) << 20).unwrap();
        runs("mkfs.ext4", &["-q", "-m", "0", "-E", "nodiscard", &image]);
        runs("mount", &["-o", "loop", &image, folder.to_str().unwrap()]);
        folder
    }

    /// A folder beside the disks.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn space(&self, host: &str) -> String {
        format!("{}-{host}", self.name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Takes up all room on the disk.
pub fn fill(disk: &Path) {
    let ballast = disk.join("ballast").display().to_string();
    for block in ["bs=1M", "bs=4k"] {
        tries("dd", &["if=/dev/zero", &format!("of={ballast}"), block, "oflag=append", "conv=notrunc"]);
    }
}

pub fn free(disk: &Path) {
    let _ = std::fs::remove_file(disk.join("ballast"));
}

/// Writes to the disk stand still most of that time.
pub fn stutter(disk: &Path, time: Duration) {
    let (disk, until) = (disk.display().to_string(), SystemClock.now() + time);
    while SystemClock.now() < until {
        runs("fsfreeze", &["-f", &disk]);
        std::thread::sleep(Duration::from_millis(400));
        runs("fsfreeze", &["-u", &disk]);
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Removes what processes that are no more have left.
fn sweep() {
    let known = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = known.filter_map(|entry| entry.file_name().into_string().ok());
    for name in names.filter(|name| name.starts_with(MARK) && name.ends_with("-switch")) {
        let owner = name.trim_start_matches(MARK).split('-').next().unwrap_or("");
        if !owner.is_empty() && !Path::new("/proc").join(owner).exists() {
            remove(name.trim_end_matches("-switch"));
        }
    }
}

/// Ends what runs on the hosts of a network, then takes its disks and namespaces away.
fn remove(name: &str) {
    let folder = std::env::temp_dir().join(name);
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mounted =
        mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|at| Path::new(at).starts_with(&folder));
    let mut mounted: Vec<&str> = mounted.collect();
    // Inner ones first.
    mounted.reverse();
    for disk in &mounted {
        tries("fsfreeze", &["-u", disk]);
    }
    let spaces = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let spaces = spaces.filter_map(|entry| entry.file_name().into_string().ok());
    let spaces: Vec<String> = spaces.filter(|space| space.starts_with(&format!("{name}-"))).collect();
    for _ in 0..100 {
        let running: Vec<String> = spaces.iter().flat_map(|space| processes(space)).collect();
        if running.is_empty() {
            break;
        }
        for pid in running {
            tries("kill", &["-KILL", &pid]);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    for disk in mounted {
        if !tries("umount", &[disk]) {
            tries("umount", &["-l", disk]);
        }
    }
    let _ = std::fs::remove_dir(&folder);
    for space in spaces {
        tries("ip", &["netns", "del", &space]);
    }
}

/// Those on a host, but never the tests themselves.
fn processes(space: &str) -> Vec<String> {
    let listed = Command::new("ip").args(["netns", "pids", space]).output();
    let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let own = std::process::id().to_string();
    listed.lines().map(str::to_owned).filter(|pid| *pid != own).collect()
}

fn entered(space: &str) -> String {
    format!("--net=/run/netns/{space}")
}

#[track_caller]
fn runs(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// True if it could be done.
fn tries(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.status().is_ok_and(|status| status.success())
}
