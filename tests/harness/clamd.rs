//! A real clamd with signatures of our own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Ends with the value.
pub struct Clamd {
    child: Child,
    folder: tempfile::TempDir,
}

impl Clamd {
    /// `signatures`: names and the octets that they stand for, wherever in a file.
    pub fn start(signatures: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let database: String = signatures.iter().map(|(name, bytes)| format!("{name}:0:*:{}\n", hex(bytes))).collect();
        std::fs::write(folder.path().join("test.ndb"), database).unwrap();
        let config = folder.path().join("clamd.conf");
        let text = format!(
            "LocalSocket {}\nDatabaseDirectory {}\nForeground yes\nUser root\nAlertEncryptedArchive yes\n",
            folder.path().join("clamd.sock").display(),
            folder.path().display()
        );
        std::fs::write(&config, text).unwrap();
        let program = ["/usr/sbin/clamd", "/usr/bin/clamd"].into_iter().find(|path| Path::new(path).exists());
        let program = program.expect("package clamav-daemon is missing");
        let mut command = Command::new(program);
        let child = command.arg("-c").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let clamd = Self { child, folder };
        let is_up = (0..300).any(|_| {
            std::thread::sleep(Duration::from_millis(100));
            clamd.socket().exists()
        });
        assert!(is_up, "clamd did not start");
        clamd
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("clamd.sock")
    }

    /// Stops it where it stands, or lets it go on.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Clamd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
