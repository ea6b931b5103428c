//! Two balancers and the address that keepalived moves between them, with the shipped files.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base::{Clock as _, SystemClock};

use super::lane::{Running, at, balance, connects, wait};
use super::net::Network;
use super::on_a_thread;
use crate::harness::{Site, report, skip, wants_all};

const SHARED: Ipv4Addr = at(35);
const BALANCERS: [(&str, Ipv4Addr); 2] = [("lb1", at(31)), ("lb2", at(32))];
/// Until the other one has the address.
const MOVED: Duration = Duration::from_secs(6);

/// A host with HAProxy and keepalived.
struct Balancer {
    name: &'static str,
    site: Site,
    haproxy: Option<Running>,
    keepalived: Running,
}

impl Balancer {
    fn start(network: &mut Network, nth: usize) -> Self {
        const SHIPPED: &str = include_str!("../../packaging/balancer/keepalived.conf");
        let (name, address) = BALANCERS[nth];
        let site = network.add(name, address);
        let haproxy = Some(balance(network, &site));
        let config = SHIPPED.replace("192.0.2.25/24", &format!("{SHARED}/24"));
        let config = config.replace("priority 100", &format!("priority {}", 100 - 10 * nth));
        let folder = network.folder().join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("keepalived.conf"), config).unwrap();
        let mut command = site.command("keepalived");
        command.args(["--dont-fork", "--log-console", "--vrrp"]).current_dir(&folder);
        for (option, file) in [("--use-file", "keepalived.conf"), ("--pid", "pid"), ("--vrrp_pid", "vrrp.pid")] {
            command.arg(option).arg(folder.join(file));
        }
        Self { name, site, haproxy, keepalived: Running::start(command, &folder.join("log")) }
    }

    fn has_the_address(&self) -> bool {
        let output = Command::new("ip").args(["-n", self.site.space.as_ref().unwrap(), "address"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains(&format!("inet {SHARED}/"))
    }
}

#[test]
fn the_address_moves_to_the_other_balancer() {
    let is_there = Path::new("/usr/sbin/keepalived").exists() && Path::new("/usr/sbin/haproxy").exists();
    if !wants_all() || !is_there {
        return skip("keepalived and HAProxy are for the full run");
    }
    on_a_thread(|| {
        let Some(mut network) = Network::make() else { return skip("network namespaces cannot be made here") };
        network.add("clients", at(40));
        network.enter("clients");
        let mut both = [0, 1].map(|nth| Balancer::start(&mut network, nth));
        wait("one has the address", || connects(SHARED, 143));
        let first = holder(&both);

        // HAProxy dies where the address is.
        both[first].haproxy = None;
        let took = moves(&both, first);
        report(&format!("cluster: the address moved {took:.1?} after HAProxy died"));
        both[first].haproxy = Some(balance(&network, &both[first].site));

        // It does not go back by itself.
        std::thread::sleep(Duration::from_secs(6));
        let second = holder(&both);
        assert_ne!(first, second);

        // One that stands still is as good as dead.
        both[second].haproxy.as_ref().unwrap().signal(nix::sys::signal::Signal::SIGSTOP);
        let took = moves(&both, second);
        report(&format!("cluster: the address moved {took:.1?} after HAProxy stood still"));
        both[second].haproxy.as_ref().unwrap().signal(nix::sys::signal::Signal::SIGCONT);
        std::thread::sleep(Duration::from_secs(6));

        // The host is cut off.
        network.plug(both[first].name, false);
        let took = moves(&both, first);
        report(&format!("cluster: the address moved {took:.1?} after its host was cut off"));
        network.plug(both[first].name, true);
        std::thread::sleep(Duration::from_secs(6));
        assert_eq!(holder(&both), second);
        both.iter().for_each(|one| one.keepalived.signal(nix::sys::signal::Signal::SIGTERM));
    });
}

/// The one that has the address.
fn holder(both: &[Balancer; 2]) -> usize {
    let has = both.each_ref().map(Balancer::has_the_address);
    assert!(has[0] != has[1], "{has:?}");
    usize::from(has[1])
}

/// How long it takes until clients are served at the other one.
fn moves(both: &[Balancer; 2], from: usize) -> Duration {
    let began = SystemClock.now();
    wait("the other one has the address", || both[1 - from].has_the_address() && connects(SHARED, 143));
    let took = SystemClock.now() - began;
    assert!(took < MOVED, "{took:?}");
    took
}
