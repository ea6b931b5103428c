//! An old server: Dovecot with mailboxes of its own, in a folder.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base::{Clock as _, SystemClock};

use super::run_program;

/// Accounts `user1` to `user5`, whose password is [`Dovecot::PASSWORD`]. Stopped when dropped.
pub struct Dovecot {
    child: Option<Child>,
    dir: tempfile::TempDir,
    first_port: u16,
}

impl Dovecot {
    pub const PASSWORD: &str = "old secret";

    /// On loopback, at ten ports from `first_port` on. `relay_port`: where its submission service takes mail. `None` where
    /// the programs are not installed, or not to be started.
    pub fn start(first_port: u16, relay_port: u16) -> Option<Self> {
        let is_there = ["imap", "pop3", "lmtp", "submission", "managesieve"]
            .iter()
            .all(|name| Path::new("/usr/lib/dovecot").join(name).exists());
        // Its master process wants to be root.
        if !is_there || !is_root() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut this = Self { child: None, dir, first_port };
        this.prepare(relay_port);
        this.resume();
        Some(this)
    }

    fn prepare(&self, relay_port: u16) {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = self.dir.path();
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        for folder in ["run", "state", "mail"] {
            std::fs::create_dir(dir.join(folder)).unwrap();
        }
        chown(dir.join("mail"), Some(USER), Some(USER)).unwrap();
        let users: String = (1..=5).map(|nth| format!("user{nth}:{{PLAIN}}{}\n", Self::PASSWORD)).collect();
        std::fs::write(dir.join("users"), users).unwrap();
        let mut openssl = Command::new("openssl");
        openssl.current_dir(dir).args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ]);
        openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        openssl.args(["-days", "2", "-keyout", "key.pem", "-out", "certificate.pem"]);
        let (made, output) = run_program(&mut openssl, Duration::from_secs(30));
        assert!(made, "{output}");
        let text = CONFIGURATION.replace("@DIR@", dir.to_str().unwrap()).replace("@USER@", &USER.to_string());
        let text = text.replace("@RELAY@", &relay_port.to_string());
        let ports = (0..10).fold(text, |text, nth| text.replace(&format!("@{nth}@"), &self.port(nth).to_string()));
        std::fs::write(dir.join("dovecot.conf"), ports).unwrap();
    }

    pub fn resume(&mut self) {
        let mut command = Command::new("dovecot");
        command.arg("-F").arg("-c").arg(self.dir.path().join("dovecot.conf"));
        self.child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let deadline = SystemClock.now() + Duration::from_secs(30);
        for nth in 0..=6 {
            while std::net::TcpStream::connect(("127.0.0.1", self.port(nth))).is_err() {
                assert!(SystemClock.now() < deadline, "Dovecot did not start: {}", self.log());
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        let _ = child.wait();
    }

    /// 0: IMAP (STARTTLS possible), 1: POP3, 2: submission, 3: ManageSieve, 4: LMTP, 5: IMAP under TLS, 6: IMAP behind a PROXY
    /// header.
    pub fn port(&self, nth: u16) -> u16 {
        self.first_port + nth
    }

    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("certificate.pem")
    }

    /// As `openssl x509 -fingerprint -sha256` writes it.
    pub fn fingerprint(&self) -> String {
        let mut openssl = Command::new("openssl");
        openssl.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(self.certificate());
        let (_, output) = run_program(&mut openssl, Duration::from_secs(30));
        output.trim().rsplit_once('=').unwrap().1.to_owned()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("dovecot.log")).unwrap_or_default()
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("log of Dovecot:\n{}", self.log());
        }
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

/// Owns the mailboxes; nobody's number.
const USER: u32 = 5000;

const CONFIGURATION: &str = "
base_dir = @DIR@/run
state_dir = @DIR@/state
log_path = @DIR@/dovecot.log
protocols = imap pop3 lmtp submission sieve
listen = 127.0.0.1
ssl = yes
ssl_cert = <@DIR@/certificate.pem
ssl_key = <@DIR@/key.pem
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_username_format = %Ln
auth_failure_delay = 0
passdb {
  driver = passwd-file
  args = scheme=PLAIN @DIR@/users
}
userdb {
  driver = static
  args = uid=@USER@ gid=@USER@ home=@DIR@/mail/%n
}
first_valid_uid = @USER@
mail_location = maildir:~/Maildir
mail_max_userip_connections = 0
login_trusted_networks = 127.0.0.0/8
haproxy_trusted_networks = 127.0.0.0/8
submission_host = 127.0.0.1
submission_relay_host = 127.0.0.1
submission_relay_port = @RELAY@
submission_relay_trusted = no
default_client_limit = 4000
namespace inbox {
  inbox = yes
}
service imap {
  process_limit = 1000
}
service imap-login {
  service_count = 0
  inet_listener imap {
    port = @0@
  }
  inet_listener imaps {
    port = @5@
    ssl = yes
  }
  inet_listener imap_proxied {
    port = @6@
    haproxy = yes
  }
}
service pop3-login {
  inet_listener pop3 {
    port = @1@
  }
  inet_listener pop3s {
    port = 0
  }
}
service submission-login {
  inet_listener submission {
    port = @2@
  }
  inet_listener submissions {
    port = 0
  }
}
service managesieve-login {
  inet_listener sieve {
    port = @3@
  }
}
service lmtp {
  inet_listener lmtp {
    port = @4@
  }
}
";
