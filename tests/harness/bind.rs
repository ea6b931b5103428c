//! BIND with a signed zone, for answers that DNSSEC proves.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base::{Clock as _, SystemClock};

use super::run_program;

/// Serves the signed zone `test.` and, delegated from there without signatures, `open.test.`
pub struct Bind {
    child: Child,
    address: SocketAddr,
    anchor: PathBuf,
}

impl Bind {
    /// `signed` and `open` are lines of the zones, names without their ends. `spoil` may change the signed zone's text.
    /// `None` if BIND is not there.
    pub fn start(dir: &Path, signed: &str, open: &str, spoil: impl FnOnce(String) -> String) -> Option<Self> {
        let has =
            |name: &str| Command::new("which").arg(name).stdout(Stdio::null()).status().is_ok_and(|s| s.success());
        if !has("named") || !has("dnssec-signzone") {
            super::skip("bind9 is not installed");
            return None;
        }
        let head = "$TTL 60\n@ IN SOA ns hostmaster 1 3600 600 86400 60\n@ IN NS ns\nns IN A 127.0.0.1\n";
        let own = format!("$ORIGIN test.\n{head}open IN NS ns.open\nns.open IN A 127.0.0.1\n{signed}\n");
        std::fs::write(dir.join("test.zone"), own).unwrap();
        std::fs::write(dir.join("open.zone"), format!("$ORIGIN open.test.\n{head}{open}\n")).unwrap();
        let run = |program: &str, arguments: &[&str]| {
            let (done, said) = run_program(
                Command::new(program).current_dir(dir).args(arguments).stdin(Stdio::null()),
                Duration::from_secs(60),
            );
            assert!(done, "{program}: {said}");
            said
        };
        let keys = [&["-f", "KSK", "test"][..], &["test"]].map(|which| {
            let made = run("dnssec-keygen", &[&["-q", "-a", "ECDSAP256SHA256"], which].concat());
            let key = made.split_whitespace().find(|word| word.starts_with("Ktest")).unwrap();
            std::fs::read_to_string(dir.join(format!("{key}.key"))).unwrap()
        });
        run("dnssec-signzone", &["-S", "-o", "test", "-f", "test.signed", "test.zone"]);
        let text = std::fs::read_to_string(dir.join("test.signed")).unwrap();
        std::fs::write(dir.join("test.signed"), spoil(text)).unwrap();
        let lines = keys.iter().flat_map(|text| text.lines()).filter(|line| !line.starts_with(';'));
        let record: String = lines.map(|line| format!("{line}\n")).collect();
        let anchor = dir.join("anchor.key");
        std::fs::write(&anchor, record).unwrap();
        let port = free_port();
        let at = dir.display();
        let config = format!(
            "options {{ directory \"{at}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; pid-file none;\n\
             session-keyfile \"{at}/session.key\"; managed-keys-directory \"{at}\"; recursion no; dnssec-validation no; }};\n\
             controls {{ }};\nzone \"test\" {{ type primary; file \"test.signed\"; }};\n\
             zone \"open.test\" {{ type primary; file \"open.zone\"; }};\n"
        );
        std::fs::write(dir.join("named.conf"), config).unwrap();
        let log = std::fs::File::create(dir.join("named.log")).unwrap();
        let mut command = Command::new("named");
        command.args(["-g", "-4", "-n", "1", "-c"]).arg(dir.join("named.conf")).stdin(Stdio::null()).stderr(log);
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let bind = Self { child, address, anchor };
        let deadline = SystemClock.now() + Duration::from_secs(60);
        while !std::fs::read_to_string(dir.join("named.log")).unwrap().contains("running") {
            assert!(SystemClock.now() < deadline, "{}", std::fs::read_to_string(dir.join("named.log")).unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(bind)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Keys of the signed zone.
    pub fn anchor(&self) -> &Path {
        &self.anchor
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Free for both protocols.
fn free_port() -> u16 {
    for _ in 0..100 {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}
