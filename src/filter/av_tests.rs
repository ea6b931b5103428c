use base::SystemClock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// The standard test file, in two halves so that no scanner finds it here.
fn eicar() -> Bytes {
    Bytes::from(["X5O!P%@AP[4\\PZX54(P^)7CC)7}$", "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"].concat())
}

fn pool(servers: Vec<ServiceAddress>) -> Clamd {
    let settings = ClamdSettings { scan_timeout: Duration::from_millis(500), ..ClamdSettings::new(servers) };
    Clamd::new(settings, Arc::new(SystemClock))
}

/// A scanner on loopback that gives `reply` to each of `scans` messages and checks how they are framed.
async fn scripted(reply: &'static [u8], scans: usize) -> (ServiceAddress, impl Future<Output = Vec<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = ServiceAddress::Tcp(listener.local_addr().unwrap().to_string());
    let serve = async move {
        let mut messages = Vec::new();
        for _ in 0..scans {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut command = [0u8; 10];
            stream.read_exact(&mut command).await.unwrap();
            assert_eq!(&command, b"zINSTREAM\0");
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
            stream.write_all(reply).await.unwrap();
            messages.push(message);
        }
        messages
    };
    (address, serve)
}

#[test]
fn replies() {
    for (reply, expected) in [
        (&b"stream: OK\0"[..], Ok(Scanned::Clean)),
        (b"stream: Win.Test.EICAR_HDB-1 FOUND\0", Ok(Scanned::Found("Win.Test.EICAR_HDB-1".into()))),
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
    let (address, server) = scripted(b"stream: OK\0", 1).await;
    let clamd = pool(vec![address]);
    let (answer, messages) = tokio::join!(clamd.scan(&message), server);
    assert_eq!(answer, Scanned::Clean);
    assert!(messages.first().is_some_and(|seen| *seen == message));
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_is_down() {
    let (address, server) = scripted(b"stream: Bad FOUND\0", 4).await;
    // Nothing listens on port 1.
    let clamd = pool(vec!["127.0.0.1:1".parse().unwrap(), address]);
    let message = Bytes::from_static(b"x");
    let scans = async {
        for _ in 0..4 {
            assert_eq!(clamd.scan(&message).await, Scanned::Found("Bad".into()));
        }
    };
    tokio::join!(scans, server);
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
        "LocalSocket {}\nDatabaseDirectory {}\nForeground yes\nLogFile {}\n",
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
    let settings = ClamdSettings { retry_after: Duration::ZERO, ..ClamdSettings::new(vec![address]) };
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
    let log = std::fs::read_to_string(at("log")).unwrap_or_default();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(healthy, "{log}");
    assert_eq!(clean, Scanned::Clean, "{log}");
    assert!(matches!(&found, Scanned::Found(name) if name.contains("Eicar")), "{found:?} {log}");
}
