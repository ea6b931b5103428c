//! The contract, on a PostgreSQL server of the test's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, FakeClock, IdSource};
use bytes::Bytes;

use super::{PgBlobs, PgSettings, PgStore};
use crate::contract::{self, NOW, Subject};
use crate::model::{Delivery, Flags, Role, Target};
use crate::signal::Signals;

/// A server in a folder that goes with it; reached by a socket there only.
struct Server {
    dir: tempfile::TempDir,
    programs: PathBuf,
}

fn installed() -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|f| f.path()).collect();
    found.sort();
    found.into_iter().rev().map(|dir| dir.join("bin")).find(|dir| dir.join("initdb").exists())
}

impl Server {
    /// `None` where PostgreSQL is not installed and that is fine.
    fn start() -> Option<Self> {
        let Some(programs) = installed() else {
            #[expect(clippy::disallowed_methods, reason = "says which tests may be left out")]
            let mode = std::env::var("ORTLER_TESTS");
            assert!(mode.as_deref() != Ok("all"), "PostgreSQL is not installed");
            eprintln!("left out: PostgreSQL is not installed");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let server = Self { dir, programs };
        if nix::unistd::geteuid().is_root() {
            assert!(Command::new("chown").arg("postgres").arg(server.dir.path()).status().unwrap().success());
        }
        let data = server.data();
        server.run("initdb", &["-D", &data, "-U", "ortler", "-A", "trust", "-E", "UTF8", "--no-locale"]);
        let options = format!("-c listen_addresses='' -c unix_socket_directories='{}'", server.socket_dir().display());
        server.pg_ctl(&["-l", &format!("{data}.log"), "-o", &options, "start"]);
        Some(server)
    }

    fn pg_ctl(&self, arguments: &[&str]) {
        self.run("pg_ctl", &[&["-D", &self.data(), "-w"], arguments].concat());
    }

    fn socket_dir(&self) -> &Path {
        self.dir.path()
    }

    fn data(&self) -> String {
        self.dir.path().join("data").display().to_string()
    }

    /// The server refuses to run as root.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        if nix::unistd::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        }
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = self.command(program);
        command.args(arguments).current_dir(self.dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
        assert!(command.status().unwrap().success(), "{program}");
    }

    fn settings(&self, connections: usize) -> PgSettings {
        let url = format!("host={} user=ortler dbname=postgres", self.socket_dir().display());
        PgSettings::parse(&url, connections).unwrap()
    }

    async fn node(&self) -> Subject {
        let clock = Arc::new(FakeClock::at(NOW));
        let ids = Arc::new(IdSource::system());
        let mail = PgStore::open(self.settings(8), Arc::new(Signals::new()), clock.clone()).await.unwrap();
        let blobs = PgBlobs::new(Arc::clone(&mail), Arc::clone(&ids), clock);
        Subject { mail, blobs, ids }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut stop = self.command("pg_ctl");
        stop.args(["-D", &self.data(), "-m", "immediate", "-w", "stop"]).current_dir(self.dir.path());
        // The folder goes either way.
        let _ = stop.stdout(Stdio::null()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keeps_the_contract() {
    let Some(server) = Server::start() else { return };
    // Nodes that start together make the schema once.
    let (node, other) = tokio::join!(server.node(), server.node());
    contract::all(&node).await;
    assert!(other.mail.mailboxes(AccountId(1)).await.unwrap().len() >= 7);
}

/// What was promised is there once, whatever the server was doing when it died.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_crashes_loses_and_doubles_nothing() {
    let Some(server) = Server::start() else { return };
    let node = server.node().await;
    let account = AccountId(1);
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let node = node.clone();
        writers.spawn(async move {
            let mut promised = 0;
            for _ in 0..150 {
                let Ok(blob) = node.blobs.put(vec![Bytes::from_static(b"text")]).await else { continue };
                let delivery = Delivery {
                    account,
                    message: node.message(),
                    target: Target::Role(Role::Inbox),
                    blob,
                    prefix: Bytes::new(),
                    summary: Arc::from(&b""[..]),
                    flags: Flags::default(),
                    received_at: NOW,
                };
                // As the queue does: again until it is known, with the same message id.
                while node.mail.deliver(vec![delivery.clone()]).await.remove(0).is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                promised += 1;
            }
            promised
        });
    }
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        tokio::task::block_in_place(|| server.pg_ctl(&["-m", "immediate", "restart"]));
    }
    let promised: usize = writers.join_all().await.into_iter().sum();
    let inbox = node.mailbox(account, "INBOX").await;
    let states = node.mail.states(account, inbox.id).await.unwrap().unwrap();
    assert_eq!((states.changed.len(), inbox.messages as usize), (promised, promised));
    assert!(promised > 0 && inbox.uid_next.as_raw() as usize == promised + 1, "no UID is lost or used twice");
}
