//! A name server for tests, on loopback, over UDP and TCP, with a zone given as text.
//!
//! One record per line: `name TYPE value`, types A, AAAA, MX (`10 host`), TXT (the rest of the line, quotes
//! around it are removed), PTR, NS, CNAME. A name that begins with `*.` stands for all below that have no record of
//! their own. In the place of a type, `SERVFAIL`, `TIMEOUT` (no answer at all) and
//! `TRUNCATED` (over UDP; TCP gives the records) tell how questions about the name fail. `;` starts a comment line.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Answers until dropped.
pub struct StubServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    zone: Mutex<Vec<Record>>,
    stop: AtomicBool,
    questions: AtomicUsize,
    asked: Mutex<Vec<String>>,
}

struct Record {
    name: String,
    answer: Answer,
}

enum Answer {
    Data { kind: u16, data: Vec<u8> },
    Alias { target: String },
    ServFail,
    Timeout,
    Truncated,
}

const POLL: Duration = Duration::from_millis(20);
const A: u16 = 1;
const NS: u16 = 2;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const PTR: u16 = 12;
const MX: u16 = 15;
const TXT: u16 = 16;
const AAAA: u16 = 28;

impl StubServer {
    /// Serves `zone` on a free port of 127.0.0.1. Panics on a zone it cannot read: the test is wrong.
    pub fn start(zone: &str) -> Self {
        // A free UDP port may be taken for TCP: try again with another.
        let (udp, tcp) = (0..100)
            .find_map(|_| {
                let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
                let tcp = TcpListener::bind(udp.local_addr().ok()?).ok()?;
                Some((udp, tcp))
            })
            .expect("a free port on loopback");
        let address = udp.local_addr().expect("bound above");
        let shared = Arc::new(Shared {
            zone: Mutex::new(zone.lines().filter_map(parse_line).collect()),
            stop: AtomicBool::new(false),
            questions: AtomicUsize::new(0),
            asked: Mutex::new(Vec::new()),
        });
        udp.set_read_timeout(Some(POLL)).expect("a timeout can be set");
        tcp.set_nonblocking(true).expect("a listener can be non-blocking");
        let (for_udp, for_tcp) = (shared.clone(), shared.clone());
        let threads = vec![
            std::thread::spawn(move || serve_udp(&udp, &for_udp)),
            std::thread::spawn(move || serve_tcp(&tcp, &for_tcp)),
        ];
        Self { address, shared, threads }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves these records as well from now on.
    pub fn add(&self, zone: &str) {
        let mut known = self.shared.zone.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(zone.lines().filter_map(parse_line));
    }

    /// How many questions have come.
    pub fn questions(&self) -> usize {
        self.shared.questions.load(Ordering::SeqCst)
    }

    /// The names that were asked for, in order, lower case; at most the first thousands.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for StubServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve_udp(socket: &UdpSocket, shared: &Shared) {
    let mut buffer = [0u8; 4096];
    while !shared.stop.load(Ordering::SeqCst) {
        if let Ok((length, peer)) = socket.recv_from(&mut buffer)
            && let Some(reply) = reply(&buffer[..length], shared, true)
        {
            let _ = socket.send_to(&reply, peer);
        }
    }
}

fn serve_tcp(listener: &TcpListener, shared: &Shared) {
    while !shared.stop.load(Ordering::SeqCst) {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(POLL);
            continue;
        };
        let _ = stream.set_nonblocking(false);
        let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
        let mut length = [0u8; 2];
        while stream.read_exact(&mut length).is_ok() {
            let mut question = vec![0u8; usize::from(u16::from_be_bytes(length))];
            if stream.read_exact(&mut question).is_err() {
                break;
            }
            let Some(reply) = reply(&question, shared, false) else { break };
            let framed = [&u16::try_from(reply.len()).unwrap_or(u16::MAX).to_be_bytes()[..], &reply].concat();
            if stream.write_all(&framed).is_err() || shared.stop.load(Ordering::SeqCst) {
                break;
            }
        }
    }
}

fn reply(question: &[u8], shared: &Shared, udp: bool) -> Option<Vec<u8>> {
    shared.questions.fetch_add(1, Ordering::SeqCst);
    let (mut name, end) = read_name(question, 12)?;
    let asked = question.get(12..end + 4)?;
    let mut known = shared.asked.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() < 10_000 {
        known.push(name.clone());
    }
    drop(known);
    let kind = u16::from_be_bytes([*question.get(end)?, *question.get(end + 1)?]);
    let zone = shared.zone.lock().unwrap_or_else(PoisonError::into_inner);
    let exactly = |name: &str| zone.iter().filter(|r| r.name == name).map(|r| &r.answer).collect::<Vec<_>>();
    let below = |name: &str| {
        let parents = std::iter::successors(name.split_once('.'), |(_, parent)| parent.split_once('.'));
        parents.map(|(_, parent)| exactly(&format!("*.{parent}"))).find(|found| !found.is_empty()).unwrap_or_default()
    };
    let of = |name: &str| Some(exactly(name)).filter(|found| !found.is_empty()).unwrap_or_else(|| below(name));
    let mut answers = Vec::new();
    let mut records = of(&name);
    for _ in 0..8 {
        let Some(Answer::Alias { target }) = records.iter().find(|a| matches!(a, Answer::Alias { .. })) else { break };
        answers.push(resource(&name, CNAME, &wire_name(target)));
        name.clone_from(target);
        records = of(&name);
    }
    let mut flags = 0x8180u16;
    for answer in &records {
        match answer {
            Answer::Timeout => return None,
            Answer::ServFail => flags |= 2,
            Answer::Truncated if udp => flags |= 0x0200,
            Answer::Data { kind: has, data } if *has == kind => answers.push(resource(&name, kind, data)),
            Answer::Data { .. } | Answer::Alias { .. } | Answer::Truncated => {}
        }
    }
    let is_above = |record: &Record| record.name.ends_with(&format!(".{name}"));
    if records.is_empty() && answers.is_empty() && !zone.iter().any(is_above) {
        flags |= 3; // NXDOMAIN
    }
    if flags & 0x0200 != 0 {
        answers.clear();
    }
    let negative = answers.is_empty() && flags & 0xf != 2 && flags & 0x0200 == 0;
    let mut out = question.get(..2)?.to_vec();
    let counts = [1, u16::try_from(answers.len()).ok()?, u16::from(negative), 0];
    out.extend_from_slice(&flags.to_be_bytes());
    counts.iter().for_each(|count| out.extend_from_slice(&count.to_be_bytes()));
    out.extend_from_slice(asked);
    answers.iter().for_each(|answer| out.extend_from_slice(answer));
    if negative {
        let mut soa = [wire_name("ns.invalid"), wire_name("hostmaster.invalid")].concat();
        [1u32, 60, 60, 60, 60].iter().for_each(|number| soa.extend_from_slice(&number.to_be_bytes()));
        out.extend_from_slice(&resource(name.split_once('.').map_or(&*name, |(_, parent)| parent), SOA, &soa));
    }
    Some(out)
}

fn resource(name: &str, kind: u16, data: &[u8]) -> Vec<u8> {
    let mut out = wire_name(name);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0, 1, 0, 0, 0, 60]); // class IN, TTL 60
    out.extend_from_slice(&u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(data);
    out
}

fn wire_name(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len()).unwrap_or(63));
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out
}

/// A name without a final dot, in lower case, and where it ends. Questions hold no compressed names.
fn read_name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
}

fn parse_line(line: &str) -> Option<Record> {
    let line = line.trim();
    if line.is_empty() || line.starts_with(';') {
        return None;
    }
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or_else(|| panic!("zone line: {line}"));
    let (kind, value) = rest.trim().split_once(char::is_whitespace).unwrap_or((rest.trim(), ""));
    let value = value.trim();
    let data = |kind, data| Answer::Data { kind, data };
    let answer = match (kind, value.parse::<IpAddr>()) {
        ("A", Ok(IpAddr::V4(ip))) => data(A, ip.octets().to_vec()),
        ("AAAA", Ok(IpAddr::V6(ip))) => data(AAAA, ip.octets().to_vec()),
        ("MX", _) => {
            let (preference, host) = value.split_once(' ').unwrap_or_else(|| panic!("zone line: {line}"));
            let preference: u16 = preference.parse().unwrap_or_else(|_| panic!("zone line: {line}"));
            data(MX, [preference.to_be_bytes().to_vec(), wire_name(host)].concat())
        }
        ("TXT", _) => {
            let text = value.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(value);
            let chunks = text.as_bytes().chunks(255);
            data(TXT, chunks.flat_map(|chunk| [&[chunk.len() as u8], chunk].concat()).collect())
        }
        ("PTR", _) => data(PTR, wire_name(value)),
        ("NS", _) => data(NS, wire_name(value)),
        ("CNAME", _) => Answer::Alias { target: value.trim_end_matches('.').to_ascii_lowercase() },
        ("SERVFAIL", _) => Answer::ServFail,
        ("TIMEOUT", _) => Answer::Timeout,
        ("TRUNCATED", _) => Answer::Truncated,
        _ => panic!("zone line: {line}"),
    };
    Some(Record { name: name.trim_end_matches('.').to_ascii_lowercase(), answer })
}
