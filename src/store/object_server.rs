//! An S3 server of a test's own, on a folder that goes with it; reached on loopback only.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base::Secret;

use crate::S3Settings;

/// A running server; it is stopped and its folder removed when this is dropped.
pub struct ObjectServer {
    program: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl ObjectServer {
    pub const BUCKET: &str = "mail";
    pub const ACCESS_KEY: &str = "ortler";
    pub const SECRET: &str = "a secret of the test";

    /// `None` where its program is not named and that is fine.
    pub fn start() -> Option<Self> {
        #[expect(clippy::disallowed_methods, reason = "says where the program is and which tests may be left out")]
        let (program, mode) = (std::env::var_os("ORTLER_S3_SERVER"), std::env::var("ORTLER_TESTS"));
        let Some(program) = program.map(PathBuf::from) else {
            assert!(mode.as_deref() != Ok("all"), "no object store is installed");
            eprintln!("left out: no object store is installed");
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join(Self::BUCKET)).expect("a bucket");
        let port = free_port();
        let child = serve(&program, folder.path(), port);
        Some(Self { program, folder, port, child })
    }

    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Serves again what it had, on the same port.
    pub fn resume(&mut self) {
        self.child = serve(&self.program, self.folder.path(), self.port);
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// How it is reached, or on these ports instead.
    pub fn settings(&self, ports: &[u16]) -> S3Settings {
        Self::reached_at(ports)
    }

    /// The same where the server is another process's.
    pub fn reached_at(ports: &[u16]) -> S3Settings {
        S3Settings {
            endpoints: ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect(),
            bucket: Self::BUCKET.to_owned(),
            region: "us-east-1".to_owned(),
            access_key: Self::ACCESS_KEY.to_owned(),
            secret: Secret::new(Self::SECRET.to_owned()),
            path_style: true,
            from_bytes: 100_000,
        }
    }

    /// Makes another bucket; gives its name.
    pub fn make_bucket(&self, name: &str) -> String {
        std::fs::create_dir(self.folder.path().join(name)).expect("a bucket");
        name.to_owned()
    }

    /// The bucket's folder.
    pub fn bucket(&self) -> PathBuf {
        self.folder.path().join(Self::BUCKET)
    }

    /// Files of objects.
    pub fn objects(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.bucket()];
        while let Some(folder) = folders.pop() {
            for file in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path()) {
                if file.is_dir() { folders.push(file) } else { found.push(file) }
            }
        }
        found.sort();
        found
    }
}

impl Drop for ObjectServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port on loopback that nobody listens on.
pub fn free_port() -> u16 {
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    free.expect("a free port").port()
}

fn serve(program: &Path, folder: &Path, port: u16) -> Child {
    let mut command = Command::new(program);
    command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--access-key", ObjectServer::ACCESS_KEY]);
    command.args(["--secret-key", ObjectServer::SECRET]).arg(folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the object store starts");
    let is_up = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    if !is_up {
        let _ = child.kill();
        let _ = child.wait();
        panic!("the object store did not start");
    }
    child
}
