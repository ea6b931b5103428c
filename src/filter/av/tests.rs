use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::{FakeClock, SystemClock, UtcMillis};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::protocol::parse as parse_reply;
use super::*;

/// The standard test file, in two halves so that no scanner finds it here.
fn eicar() -> Bytes {
    Bytes::from(["X5O!P%@AP[4\\PZX54(P^)7CC)7}$", "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"].concat())
}

fn quick(servers: Vec<ServiceAddress>) -> ClamdSettings {
    let soon = Duration::from_millis(500);
    ClamdSettings { scan_timeout: soon, probe_timeout: soon, ..ClamdSettings::new(servers) }
}

fn pool(servers: Vec<ServiceAddress>) -> Clamd {
    Clamd::new(quick(servers), Arc::new(SystemClock))
}

/// A scanner on loopback that says what it is told to. Dropped, it is gone.
struct Fake {
    address: ServiceAddress,
    scans: Arc<AtomicUsize>,
    probes: Arc<AtomicUsize>,
    messages: Arc<Mutex<Vec<Vec<u8>>>>,
    words: Arc<Mutex<(String, String)>>,
    _serving: JoinSet<()>,
}

impl Fake {
    async fn start(reply: &str) -> Self {
        Self::start_at("127.0.0.1:0", reply).await
    }

    async fn start_at(address: &str, reply: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = ServiceAddress::Tcp(listener.local_addr().unwrap().to_string());
        let (scans, probes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let messages: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let words = Arc::new(Mutex::new((V1.to_owned(), reply.to_owned())));
        let mut serving = JoinSet::new();
        let (scanned, probed, kept, said) = (scans.clone(), probes.clone(), messages.clone(), words.clone());
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (scanned, probed) = (scanned.clone(), probed.clone());
                let (kept, said) = (kept.clone(), said.clone());
                connections.spawn(async move {
                    let mut command = Vec::new();
                    while !command.ends_with(&[0]) {
                        command.push(stream.read_u8().await.unwrap());
                    }
                    let (version, reply) = said.lock().unwrap().clone();
                    if command == b"zVERSION\0" {
                        probed.fetch_add(1, Ordering::SeqCst);
                        stream.write_all(version.as_bytes()).await.unwrap();
                        return;
                    }
                    assert_eq!(command, b"zINSTREAM\0");
                    scanned.fetch_add(1, Ordering::SeqCst);
                    if reply == "hang up" {
                        return;
                    }
                    let mut message = Vec::new();
                    loop {
                        let length = usize::try_from(stream.read_u32().await.unwrap()).unwrap();
                        if length == 0 {
                            break;
                        }
                        let mut chunk = vec![0; length];
                        stream.read_exact(&mut chunk).await.unwrap();
                        message.extend(chunk);
                    }
                    kept.lock().unwrap().push(message);
                    if reply == "stall" {
                        std::future::pending::<()>().await;
                    }
                    stream.write_all(reply.as_bytes()).await.unwrap();
                });
            }
        });
        Self { address, scans, probes, messages, words, _serving: serving }
    }

    fn say(&self, version: &str, reply: &str) {
        *self.words.lock().unwrap() = (version.to_owned(), reply.to_owned());
    }

    fn scans(&self) -> usize {
        self.scans.load(Ordering::SeqCst)
    }
}

const V1: &str = "ClamAV 1.4.3/27829/Mon Nov 23 09:41:01 2026\0";
const V2: &str = "ClamAV 1.4.3/27830/Tue Nov 24 09:41:01 2026\0";
const CLEAN: &str = "stream: OK\0";

#[test]
fn replies() {
    for (reply, expected) in [
        (&b"stream: OK\0"[..], Ok(Scanned::Clean)),
        (b"stream: Win.Test.EICAR_HDB-1 FOUND\0", Ok(Scanned::Found("Win.Test.EICAR_HDB-1".into()))),
        (b"stream: Heuristics.Encrypted.Zip FOUND\0", Ok(Scanned::Suspected("Heuristics.Encrypted.Zip".into()))),
        (b"stream: PUA.Win.Tool FOUND\0", Ok(Scanned::Suspected("PUA.Win.Tool".into()))),
        (b"INSTREAM size limit exceeded. ERROR\0", Ok(Scanned::TooLarge)),
        (b"stream: Can't allocate memory ERROR\0", Err("stream: Can't allocate memory ERROR".to_owned())),
        (b"stream: OKAY\0", Err("stream: OKAY".to_owned())),
        (b"", Err("connection closed without an answer".to_owned())),
    ] {
        assert_eq!(parse_reply(reply), expected);
    }
}

#[tokio::test]
async fn a_message_arrives_whole() {
    let message = Bytes::from(vec![b'x'; 200_000]);
    let fake = Fake::start(CLEAN).await;
    assert_eq!(pool(vec![fake.address.clone()]).scan(&message).await, Scanned::Clean);
    assert!(fake.messages.lock().unwrap().first().is_some_and(|seen| *seen == message));
}

#[tokio::test]
async fn an_answer_before_the_end_counts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = ServiceAddress::Tcp(listener.local_addr().unwrap().to_string());
    // As clamd does at its size limit: it answers and hangs up while octets still come.
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(V1.as_bytes()).await.unwrap();
        drop(stream);
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 5000]).await.unwrap();
        stream.write_all(b"INSTREAM size limit exceeded. ERROR\0").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    };
    let clamd = pool(vec![address]);
    let message = Bytes::from(vec![0; 3_000_000]);
    let (answer, ()) = tokio::join!(clamd.scan(&message), serve);
    assert_eq!(answer, Scanned::TooLarge);
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_is_down() {
    let fake = Fake::start("stream: Bad FOUND\0").await;
    // Nothing listens on port 1.
    let clamd = pool(vec!["127.0.0.1:1".parse().unwrap(), fake.address.clone()]);
    for content in ["a", "b", "c", "d"] {
        assert_eq!(clamd.scan(&Bytes::from_static(content.as_bytes())).await, Scanned::Found("Bad".into()));
    }
    assert_eq!(fake.scans(), 4);
    let states = clamd.states();
    assert!(!states[0].is_up && states[1].is_up && states[1].version.as_ref().unwrap().signatures == Some(27829));
}

#[tokio::test]
async fn a_server_that_stalls_or_hangs_up_is_left_alone() {
    for bad in ["stall", "hang up"] {
        let (stalled, good) = (Fake::start(bad).await, Fake::start(CLEAN).await);
        let clamd = pool(vec![stalled.address.clone(), good.address.clone()]);
        for content in ["a", "b", "c", "d", "e"] {
            assert_eq!(clamd.scan(&Bytes::from_static(content.as_bytes())).await, Scanned::Clean, "{bad}");
        }
        // It got one message, not three.
        assert_eq!((stalled.scans(), good.scans()), (1, 5), "{bad}");
    }
}

#[tokio::test]
async fn all_down_is_said_at_once_and_a_server_that_comes_back_is_used() {
    let fake = Fake::start(CLEAN).await;
    let clock = Arc::new(FakeClock::at(UtcMillis::from_secs(1_795_513_261)));
    let address = fake.address.clone();
    let clamd = Clamd::new(quick(vec![address.clone()]), clock.clone());
    let scan = async |content: &'static str| clamd.scan(&Bytes::from_static(content.as_bytes())).await;
    assert_eq!(scan("a").await, Scanned::Clean);
    assert_eq!(clamd.states()[0].signatures_age, Some(Duration::from_secs(86_400)));
    drop(fake);
    for content in ["b", "c", "d"] {
        assert!(matches!(scan(content).await, Scanned::Unavailable(_)));
    }
    assert!(!clamd.states()[0].is_up);
    // A message is no reason to wait until its time has come: there is nobody else.
    let fake = Fake::start_at(&address.to_string(), CLEAN).await;
    assert_eq!(scan("e").await, Scanned::Clean);
    assert!(clamd.states()[0].is_up);
    // One that has been silent is asked for a sign of life first.
    let probes = fake.probes.load(Ordering::SeqCst);
    assert_eq!(scan("f").await, Scanned::Clean);
    assert_eq!(fake.probes.load(Ordering::SeqCst), probes);
    clock.advance(Duration::from_secs(6));
    assert_eq!(scan("g").await, Scanned::Clean);
    assert_eq!(fake.probes.load(Ordering::SeqCst), probes + 1);
}

#[tokio::test]
async fn verdicts_are_remembered_until_the_signatures_change() {
    let fake = Fake::start("stream: Bad FOUND\0").await;
    let clock = Arc::new(FakeClock::at(UtcMillis::from_secs(1_795_513_261)));
    let clamd = Clamd::new(quick(vec![fake.address.clone()]), clock.clone());
    let message = Bytes::from_static(b"the same");
    for _ in 0..3 {
        assert_eq!(clamd.scan(&message).await, Scanned::Found("Bad".into()));
    }
    assert_eq!(fake.scans(), 1);
    fake.say(V2, CLEAN);
    // Nobody knows yet: that is what the watch is for.
    let watch = async {
        let _ = tokio::time::timeout(Duration::from_millis(200), clamd.watch()).await;
    };
    watch.await;
    assert_eq!(clamd.scan(&message).await, Scanned::Clean);
    assert_eq!(fake.scans(), 2);
    clock.advance(Duration::from_secs(601));
    assert_eq!(clamd.scan(&message).await, Scanned::Clean);
    assert_eq!(fake.scans(), 3);
}

#[tokio::test]
async fn silence_and_absence_are_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = ServiceAddress::Tcp(listener.local_addr().unwrap().to_string());
    let message = Bytes::from_static(b"x");
    assert!(matches!(pool(vec![silent]).scan(&message).await, Scanned::Unavailable(_)));
    assert!(matches!(pool(vec!["127.0.0.1:1".parse().unwrap()]).scan(&message).await, Scanned::Unavailable(_)));
    assert!(matches!(pool(Vec::new()).scan(&message).await, Scanned::Unavailable(_)));
    assert!(!pool(vec!["/nonexistent/clamd.ctl".parse().unwrap()]).is_healthy().await);
}

#[tokio::test]
async fn a_real_clamd_finds_the_test_virus() {
    if !std::path::Path::new("/usr/sbin/clamd").exists() {
        eprintln!("skipped: clamd is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::create_dir(at("db")).unwrap();
    let hex: String = eicar().iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(at("db/test.ndb"), format!("Test.Eicar:0:*:{hex}\n")).unwrap();
    let config = format!(
        "LocalSocket {}\nDatabaseDirectory {}\nForeground yes\nLogFile {}\nAlertEncryptedArchive yes\n",
        at("clamd.ctl"),
        at("db"),
        at("log")
    );
    std::fs::write(at("clamd.conf"), config).unwrap();
    let mut child = std::process::Command::new("/usr/sbin/clamd")
        .arg(format!("--config-file={}", at("clamd.conf")))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let address: ServiceAddress = at("clamd.ctl").parse().unwrap();
    let settings = ClamdSettings {
        retry_after: Duration::ZERO,
        retry_after_max: Duration::ZERO,
        scan_timeout: Duration::from_secs(5),
        idle_max: Duration::ZERO,
        cache_entries: 0,
        ..ClamdSettings::new(vec![address])
    };
    let clamd = Clamd::new(settings, Arc::new(SystemClock));
    let mut healthy = false;
    for _ in 0..150 {
        healthy = clamd.is_healthy().await;
        if healthy {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let clean = clamd.scan(&Bytes::from_static(b"From: a@x.test\r\n\r\nHello\r\n")).await;
    let found = clamd.scan(&eicar()).await;
    let locked = clamd.scan(&Bytes::from_static(LOCKED_ZIP)).await;
    let states = clamd.states();
    // It stands still: connections are taken by the kernel, and nobody answers.
    let signal = |name: &str| {
        let done = std::process::Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
        assert!(done.success());
    };
    signal("-STOP");
    let stalled = clamd.scan(&Bytes::from_static(b"x")).await;
    signal("-CONT");
    let again = clamd.scan(&eicar()).await;
    let log = std::fs::read_to_string(at("log")).unwrap_or_default();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(healthy, "{log}");
    assert_eq!(clean, Scanned::Clean, "{log}");
    assert!(matches!(&found, Scanned::Found(name) if name.contains("Eicar")), "{found:?} {log}");
    assert!(
        matches!(&locked, Scanned::Suspected(name) if name.starts_with("Heuristics.Encrypted")),
        "{locked:?} {log}"
    );
    assert!(states[0].version.as_ref().is_some_and(|version| version.program.starts_with("ClamAV")), "{states:?}");
    assert_eq!(stalled, Scanned::Unavailable(format!("unix:{}: no answer in time", at("clamd.ctl"))));
    assert_eq!(again, found);
}

/// A ZIP archive of one file with a password: `zip -P x - a.txt`.
const LOCKED_ZIP: &[u8] =
    b"PK\x03\x04\x14\x00\x09\x00\x08\x00\xf0\x90z]\xa5j\x0aD\x17\x00\x00\x00\x0c\x00\x00\x00\x05\x00\x00\
    \x00a.txt\x9b\xe6\x92lP\x19Z<\xe8\x07\xeaZ\xcd\x1fF|\xf3\x03\x1b7 \x06:PK\x07\x08\xa5j\x0aD\x17\x00\
    \x00\x00\x0c\x00\x00\x00PK\x01\x02\x1e\x03\x14\x00\x09\x00\x08\x00\xf0\x90z]\xa5j\x0aD\x17\x00\x00\
    \x00\x0c\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\xa4\x81\x00\x00\x00\x00a.txtPK\
    \x05\x06\x00\x00\x00\x00\x01\x00\x01\x003\x00\x00\x00J\x00\x00\x00\x00\x00";
