//! What may befall hosts, links, disks and clocks.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use base::{Clock as _, SystemClock};
use nix::sys::signal::Signal;

use super::lane::{DATABASES, Lane, NODES};
use super::net::{fill, free, stutter};

/// Longer than any lease, and than a node may be silent before the others take it for dead.
const PAST_LEASES: Duration = Duration::from_secs(11);
const SHORT: Duration = Duration::from_secs(6);

/// Of a node, of the PostgreSQL server that takes writes, of one that follows it, of the object store, or of all.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Fault {
    NodeKilled(usize),
    NodePaused(usize),
    NodeUnplugged(usize),
    NodeDeaf(usize),
    NodeMute(usize),
    NodeWithoutOthers(usize),
    NodeWithoutEngine(usize),
    NodeDiskFull(usize),
    NodeDiskSlow(usize),
    NodeLinkSlow(usize),
    NodeClockAhead(usize),
    NodeClockBehind(usize),
    PrimaryHostKilled,
    PrimaryServerKilled,
    PrimaryPaused,
    PrimaryUnplugged,
    PrimaryDeaf,
    PrimaryMute,
    PrimaryDiskFull,
    PrimaryDiskSlow,
    PrimaryLinkSlow,
    StandbyKilled,
    StandbyUnplugged,
    EtcdPaused,
    EngineAway,
    NamesAway,
    ObjectsKilled,
    ObjectsPaused,
    ObjectsUnplugged,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NodeKilled(_) => "node killed",
            Self::NodePaused(_) => "node stands still 11 s",
            Self::NodeUnplugged(_) => "node cut off both ways 11 s",
            Self::NodeDeaf(_) => "node hears nobody 11 s",
            Self::NodeMute(_) => "nobody hears the node 11 s",
            Self::NodeWithoutOthers(_) => "node cut off from the other nodes 11 s",
            Self::NodeWithoutEngine(_) => "node cut off from PostgreSQL 11 s",
            Self::NodeDiskFull(_) => "node's disk full 6 s",
            Self::NodeDiskSlow(_) => "node's disk slow 6 s",
            Self::NodeLinkSlow(_) => "node sends 1 Mbit/s 6 s",
            Self::NodeClockAhead(_) => "node's clock 10 min ahead",
            Self::NodeClockBehind(_) => "node's clock 10 min behind",
            Self::PrimaryHostKilled => "primary's host killed",
            Self::PrimaryServerKilled => "primary's server killed",
            Self::PrimaryPaused => "primary's host stands still",
            Self::PrimaryUnplugged => "primary's host cut off both ways",
            Self::PrimaryDeaf => "primary's host hears nobody",
            Self::PrimaryMute => "nobody hears the primary's host",
            Self::PrimaryDiskFull => "primary's disk full 6 s",
            Self::PrimaryDiskSlow => "primary's disk slow 6 s",
            Self::PrimaryLinkSlow => "primary's host sends 1 Mbit/s 6 s",
            Self::StandbyKilled => "a standby's host killed",
            Self::StandbyUnplugged => "a standby cut off both ways 11 s",
            Self::EtcdPaused => "etcd stands still 11 s",
            Self::EngineAway => "PostgreSQL away for all nodes 11 s",
            Self::NamesAway => "DNS away 6 s",
            Self::ObjectsKilled => "object store killed 6 s",
            Self::ObjectsPaused => "object store stands still 11 s",
            Self::ObjectsUnplugged => "object store cut off 11 s",
        })
    }
}

impl Fault {
    /// The nth of those that a seed gives, the same each time: all kinds in some order, then all in another one.
    pub fn random(seed: u64, nth: u64, with_objects: bool) -> Self {
        let node = usize::try_from(mix(seed ^ mix(nth)) % NODES.len() as u64).unwrap();
        let mut kinds = Self::all(node).to_vec();
        kinds.truncate(kinds.len() - if with_objects { 0 } else { 3 });
        let (round, turn) = (nth / kinds.len() as u64, nth % kinds.len() as u64);
        kinds.sort_by_key(|kind| {
            mix(seed ^ mix(round) ^ mix(kind.to_string().bytes().fold(7, |sum, byte| mix(sum) ^ u64::from(byte))))
        });
        kinds[usize::try_from(turn).unwrap()]
    }

    /// Each kind once.
    pub fn all(node: usize) -> [Self; 29] {
        [
            Self::NodeKilled(node),
            Self::NodePaused(node),
            Self::NodeUnplugged(node),
            Self::NodeDeaf(node),
            Self::NodeMute(node),
            Self::NodeWithoutOthers(node),
            Self::NodeWithoutEngine(node),
            Self::NodeDiskFull(node),
            Self::NodeDiskSlow(node),
            Self::NodeLinkSlow(node),
            Self::NodeClockAhead(node),
            Self::NodeClockBehind(node),
            Self::PrimaryHostKilled,
            Self::PrimaryServerKilled,
            Self::PrimaryPaused,
            Self::PrimaryUnplugged,
            Self::PrimaryDeaf,
            Self::PrimaryMute,
            Self::PrimaryDiskFull,
            Self::PrimaryDiskSlow,
            Self::PrimaryLinkSlow,
            Self::StandbyKilled,
            Self::StandbyUnplugged,
            Self::EtcdPaused,
            Self::EngineAway,
            Self::NamesAway,
            Self::ObjectsKilled,
            Self::ObjectsPaused,
            Self::ObjectsUnplugged,
        ]
    }

    /// Does it and undoes it; when another primary was found, if that had to be.
    #[track_caller]
    pub fn happen(self, lane: &mut Lane) -> Option<Instant> {
        match self {
            Self::NodeKilled(node) => {
                lane.nodes[node].kill();
                rest(SHORT);
                lane.nodes[node].start();
            }
            Self::NodePaused(node) => {
                lane.nodes[node].signal(Signal::SIGSTOP);
                rest(PAST_LEASES);
                lane.nodes[node].signal(Signal::SIGCONT);
            }
            Self::NodeUnplugged(node) => cut_off(lane, NODES[node].0),
            Self::NodeDeaf(node) => deaf_to(lane, NODES[node].0, &[]),
            Self::NodeMute(node) => {
                lane.network.mute(NODES[node].0, &[]);
                rest(PAST_LEASES);
                lane.network.hear(NODES[node].0);
            }
            Self::NodeWithoutOthers(node) => {
                let others: Vec<Ipv4Addr> = NODES.iter().map(|(_, at)| *at).filter(|at| *at != NODES[node].1).collect();
                deaf_to(lane, NODES[node].0, &others);
            }
            Self::NodeWithoutEngine(node) => deaf_to(lane, NODES[node].0, &DATABASES.map(|(_, address)| address)),
            Self::NodeDiskFull(node) => with_full_disk(&lane.nodes[node].disk),
            Self::NodeDiskSlow(node) => stutter(&lane.nodes[node].disk, SHORT),
            Self::NodeLinkSlow(node) => slow_link(lane, NODES[node].0),
            Self::NodeClockAhead(node) => with_clock(lane, node, "+10m"),
            Self::NodeClockBehind(node) => with_clock(lane, node, "-10m"),
            Self::StandbyKilled => {
                let standby = (lane.patroni.primary().unwrap() + 1) % DATABASES.len();
                lane.patroni.kill_host(standby);
                rest(SHORT);
                lane.patroni.revive(standby);
            }
            Self::StandbyUnplugged => {
                let standby = (lane.patroni.primary().unwrap() + 1) % DATABASES.len();
                cut_off(lane, DATABASES[standby].0);
            }
            Self::EtcdPaused => {
                lane.patroni.pause_etcd(true);
                rest(PAST_LEASES);
                lane.patroni.pause_etcd(false);
            }
            Self::EngineAway => {
                for (name, _) in NODES {
                    lane.network.deafen(name, &DATABASES.map(|(_, address)| address));
                }
                rest(PAST_LEASES);
                NODES.iter().for_each(|(name, _)| lane.network.hear(name));
            }
            Self::NamesAway => {
                for (name, _) in NODES {
                    lane.network.drop_names(name);
                }
                rest(SHORT);
                NODES.iter().for_each(|(name, _)| lane.network.hear(name));
            }
            Self::ObjectsKilled => {
                lane.objects.as_mut().unwrap().kill();
                rest(SHORT);
                lane.objects.as_mut().unwrap().revive();
            }
            Self::ObjectsPaused => {
                lane.objects.as_ref().unwrap().signal(Signal::SIGSTOP);
                rest(PAST_LEASES);
                lane.objects.as_ref().unwrap().signal(Signal::SIGCONT);
            }
            Self::ObjectsUnplugged => cut_off(lane, "s3"),
            Self::PrimaryHostKilled
            | Self::PrimaryServerKilled
            | Self::PrimaryPaused
            | Self::PrimaryUnplugged
            | Self::PrimaryDeaf
            | Self::PrimaryMute
            | Self::PrimaryDiskFull
            | Self::PrimaryDiskSlow
            | Self::PrimaryLinkSlow => return self.of_primary(lane),
        }
        None
    }

    #[track_caller]
    fn of_primary(self, lane: &mut Lane) -> Option<Instant> {
        // Without a standby that has everything Patroni elects nobody, and is right.
        lane.patroni.wait_until_whole();
        let primary = lane.patroni.primary().unwrap();
        let name = DATABASES[primary].0;
        let another = |lane: &Lane| {
            lane.patroni.wait_for_another(primary);
            Some(SystemClock.now())
        };
        match self {
            Self::PrimaryDiskFull => {
                with_full_disk(&lane.patroni.folder(primary));
                return None;
            }
            Self::PrimaryDiskSlow => {
                stutter(&lane.patroni.folder(primary), SHORT);
                return None;
            }
            Self::PrimaryLinkSlow => {
                slow_link(lane, name);
                return None;
            }
            Self::PrimaryServerKilled => lane.patroni.kill_server(primary),
            Self::PrimaryPaused => lane.patroni.pause_host(primary),
            Self::PrimaryUnplugged => lane.network.plug(name, false),
            Self::PrimaryDeaf => lane.network.deafen(name, &[]),
            Self::PrimaryMute => lane.network.mute(name, &[]),
            _ => lane.patroni.kill_host(primary),
        }
        let promoted = another(lane);
        rest(Duration::from_secs(2));
        match self {
            Self::PrimaryServerKilled => {}
            Self::PrimaryUnplugged => lane.network.plug(name, true),
            Self::PrimaryDeaf | Self::PrimaryMute => lane.network.hear(name),
            _ => {
                lane.patroni.kill_host(primary);
                lane.patroni.revive(primary);
            }
        }
        promoted
    }
}

fn rest(time: Duration) {
    std::thread::sleep(time);
}

fn cut_off(lane: &Lane, host: &str) {
    lane.network.plug(host, false);
    rest(PAST_LEASES);
    lane.network.plug(host, true);
}

fn deaf_to(lane: &Lane, host: &str, others: &[Ipv4Addr]) {
    lane.network.deafen(host, others);
    rest(PAST_LEASES);
    lane.network.hear(host);
}

fn slow_link(lane: &Lane, host: &str) {
    lane.network.slow_down(host, Some(1000));
    rest(SHORT);
    lane.network.slow_down(host, None);
}

fn with_full_disk(disk: &std::path::Path) {
    fill(disk);
    rest(SHORT);
    free(disk);
}

fn with_clock(lane: &mut Lane, node: usize, offset: &str) {
    set_clock(lane, node, Some(offset));
    rest(SHORT);
    set_clock(lane, node, None);
}

/// Starts the node again with a clock that is wrong by `offset`, or right.
pub fn set_clock(lane: &mut Lane, node: usize, offset: Option<&str>) {
    let node = &mut lane.nodes[node];
    node.stop();
    let Some(offset) = offset else {
        node.start();
        return node.wait_until_ready();
    };
    let library = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let library = library.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1")).find(|file| file.exists());
    let library = library.expect("libfaketime is installed").display().to_string();
    node.start_with(&[("LD_PRELOAD", &library), ("FAKETIME", offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]);
    node.wait_until_ready();
}

/// SplitMix64.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
