//! `ortler serve` as a service manager starts it: own configuration and certificate, told over `NOTIFY_SOCKET`.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::client::Conversation;
use super::{dns, ortler, run_program};

/// A node in production form, on an address of its own.
pub struct Served {
    child: Child,
    notified: UnixDatagram,
    address: Ipv4Addr,
    dir: tempfile::TempDir,
}

impl Served {
    /// Listens on `address` at the usual ports plus `offset`. `node_options` go into `[node]`; `prepare` may change how
    /// the process is started.
    pub fn start(address: Ipv4Addr, offset: u16, node_options: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        Self::launch(address, offset, node_options, dns::address(), prepare)
    }

    pub fn with_name_server(address: Ipv4Addr, offset: u16, server: SocketAddr) -> Self {
        Self::launch(address, offset, "", server, |_| {})
    }

    fn launch(
        address: Ipv4Addr,
        offset: u16,
        node_options: &str,
        name_server: SocketAddr,
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Another user must get through.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        make_certificate(dir.path());
        let config = configure(dir.path(), address, offset, node_options, name_server);
        let notify = dir.path().join("notify");
        let notified = UnixDatagram::bind(&notify).unwrap();
        // As systemd's own: the node has become another user when it speaks.
        std::fs::set_permissions(&notify, std::fs::Permissions::from_mode(0o777)).unwrap();
        notified.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ortler"));
        command.arg("serve").arg("--config").arg(config).env("NOTIFY_SOCKET", &notify);
        prepare(&mut command);
        let log = std::fs::File::create(dir.path().join("test.log")).unwrap();
        command.stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap();
        Self { child, notified, address, dir }
    }

    /// The next word to the service manager.
    pub fn notification(&self) -> String {
        let mut packet = [0u8; 4096];
        let length = self.notified.recv(&mut packet).unwrap_or_else(|error| panic!("{error}: {}", self.log()));
        String::from_utf8_lossy(&packet[..length]).trim_end().to_owned()
    }

    pub fn connect(&self, port: u16) -> Conversation {
        Conversation::open_at(self.address, port)
    }

    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("ortler.toml")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("test.log")).unwrap_or_default()
    }

    /// `anna@example.test`, whose password is `secret words`, by the command line.
    pub fn add_account(&self) {
        let config = self.config();
        let added = ortler(&["domain", "add", "example.test", "--config", config.to_str().unwrap()]);
        assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
        let password = self.dir().join("password");
        std::fs::write(&password, "secret words\n").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ortler"));
        command.args(["account", "add", "anna@example.test", "--password-stdin", "--config"]).arg(config);
        let added = command.stdin(std::fs::File::open(password).unwrap()).output().unwrap();
        assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    }

    pub fn terminate(&self) {
        assert!(Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().unwrap().success());
    }

    /// The process has ended by itself and well.
    #[track_caller]
    pub fn ended(&mut self) {
        let over = (0..1500).find_map(|_| {
            std::thread::sleep(Duration::from_millis(20));
            self.child.try_wait().unwrap()
        });
        assert!(over.is_some_and(|status| status.success()), "{over:?}: {}", self.log());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A configuration file in `dir` whose data lies in `dir/data`.
pub fn configure(dir: &Path, address: Ipv4Addr, offset: u16, node_options: &str, name_server: SocketAddr) -> PathBuf {
    const SERVICES: [(&str, u16); 5] =
        [("smtp", 25), ("submission", 587), ("imap", 143), ("imaps", 993), ("health", 90)];
    let mut text = format!(
        "[node]\nname = \"mx.example.test\"\ndata = \"data\"\nshutdown_wait = \"10 s\"\n{node_options}\n[tls]\n\
         certificate = \"certificate.pem\"\nkey = \"key.pem\"\n[dns]\nservers = [\"{name_server}\"]\n[login]\nplaintext = \"loopback\"\nstaff_second_factor = \"optional\"\n"
    );
    for (name, port) in SERVICES {
        text.push_str(&format!("[[listener]]\nprotocol = \"{name}\"\naddress = \"{address}:{}\"\n", port + offset));
    }
    let file = dir.join("ortler.toml");
    std::fs::write(&file, text).unwrap();
    file
}

/// A certificate for `mail.example.test`.
pub fn make_certificate(dir: &Path) {
    let mut openssl = Command::new("openssl");
    openssl.current_dir(dir).args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    openssl.args(["-subj", "/CN=mail.example.test", "-addext", "subjectAltName=DNS:mail.example.test"]);
    // So that a client may trust it by itself.
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    openssl.args(["-days", "2", "-keyout", "key.pem", "-out", "certificate.pem"]);
    let (made, output) = run_program(&mut openssl, Duration::from_secs(30));
    assert!(made, "{output}");
}
