//! A PostgreSQL server of a test's own, in a folder that goes with it; reached by a socket there only.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::PgSettings;

/// A running server; it is stopped and its folder removed when this is dropped.
pub struct Server {
    dir: tempfile::TempDir,
    programs: PathBuf,
}

impl Server {
    /// The folder of PostgreSQL's programs, if they are installed.
    pub fn programs() -> Option<PathBuf> {
        let mut found: Vec<PathBuf> =
            std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|f| f.path()).collect();
        found.sort();
        found.into_iter().rev().map(|dir| dir.join("bin")).find(|dir| dir.join("initdb").exists())
    }

    /// `None` where PostgreSQL is not installed and that is fine.
    pub fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// One whose own loss is not looked at: it does not wait for the disk.
    pub fn start_unsynced() -> Option<Self> {
        Self::start_with("fsync = off\nfull_page_writes = off\n")
    }

    fn start_with(more: &str) -> Option<Self> {
        let Some(programs) = Self::programs() else {
            #[expect(clippy::disallowed_methods, reason = "says which tests may be left out")]
            let mode = std::env::var("ORTLER_TESTS");
            assert!(mode.as_deref() != Ok("all"), "PostgreSQL is not installed");
            eprintln!("left out: PostgreSQL is not installed");
            return None;
        };
        let server = Self { dir: tempfile::tempdir().expect("a temporary folder"), programs };
        if nix::unistd::geteuid().is_root() {
            let owned = Command::new("chown").arg("postgres").arg(server.socket_dir()).status();
            assert!(owned.is_ok_and(|status| status.success()), "chown");
        }
        let data = server.data();
        server.run("initdb", &["-D", &data, "-U", "ortler", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"]);
        let options =
            format!("listen_addresses = ''\nunix_socket_directories = '{}'\n{more}", server.socket_dir().display());
        let mut file = std::fs::File::options().append(true).open(PathBuf::from(&data).join("postgresql.conf"));
        let written = file.as_mut().map(|file| file.write_all(options.as_bytes()));
        assert!(written.is_ok_and(|written| written.is_ok()), "postgresql.conf");
        server.control(&["-l", &format!("{data}.log"), "start"]);
        Some(server)
    }

    /// From now on also reached over TCP, by TLS only and with the password `hush`; gives the port.
    pub fn listen_with_tls(&self, certificate: &Path, key: &Path) -> u16 {
        let data = PathBuf::from(self.data());
        let free = std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
        let port = free.expect("a free port").port();
        for (from, to, mode) in [(certificate, "server.crt", "0644"), (key, "server.key", "0600")] {
            std::fs::copy(from, self.dir.path().join(to)).expect("a copy of the certificate");
            let (from, to) = (self.dir.path().join(to), data.join(to));
            let made = Command::new("install").args(["-m", mode]).args(self.owner()).arg(from).arg(to).status();
            assert!(made.is_ok_and(|status| status.success()), "install");
        }
        let rules = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(data.join("pg_hba.conf"), rules).expect("pg_hba.conf");
        let folder = self.socket_dir().display();
        let password = "ALTER ROLE ortler PASSWORD 'hush'";
        self.run("psql", &["-q", "-h", &folder.to_string(), "-U", "ortler", "-d", "postgres", "-c", password]);
        let options =
            format!("-c listen_addresses=127.0.0.1 -c port={port} -c ssl=on -c unix_socket_directories='{folder}'");
        self.control(&["-o", &options, "-m", "fast", "restart"]);
        port
    }

    /// For `install`.
    fn owner(&self) -> &'static [&'static str] {
        if nix::unistd::geteuid().is_root() { &["-o", "postgres"] } else { &[] }
    }

    /// Runs `pg_ctl` on the server and waits.
    pub fn control(&self, arguments: &[&str]) {
        self.run("pg_ctl", &[&["-D", &self.data(), "-w"], arguments].concat());
    }

    /// Where the server's socket lies.
    pub fn socket_dir(&self) -> &Path {
        self.dir.path()
    }

    /// Makes it a standby, and then what takes the place of its primary.
    #[cfg(test)]
    pub(super) fn promote(&self) {
        let signal = PathBuf::from(self.data()).join("standby.signal");
        let made =
            Command::new("install").args(["-m", "0600"]).args(self.owner()).arg("/dev/null").arg(signal).status();
        assert!(made.is_ok_and(|status| status.success()), "install");
        self.control(&["-m", "fast", "restart"]);
        self.control(&["promote"]);
    }

    /// The process that all others of the server come from.
    #[cfg(test)]
    pub(super) fn pid(&self) -> i32 {
        let file = std::fs::read_to_string(self.dir.path().join("data/postmaster.pid")).expect("postmaster.pid");
        file.lines().next().and_then(|line| line.trim().parse().ok()).expect("a process id")
    }

    /// Connection string of the database `postgres`.
    pub fn url(&self) -> String {
        format!("host={} user=ortler dbname=postgres", self.socket_dir().display())
    }

    /// Connection string of another database, made if need be.
    pub fn database(&self, name: &str) -> String {
        if name != "postgres" {
            let folder = self.socket_dir().display().to_string();
            let status = self.command("createdb").args(["-h", &folder, "-U", "ortler", name]).status();
            assert!(status.is_ok(), "createdb");
        }
        format!("host={} user=ortler dbname={name}", self.socket_dir().display())
    }

    /// Connection string of the new database `name` with all that `template` has.
    pub fn database_like(&self, template: &str, name: &str) -> String {
        let folder = self.socket_dir().display().to_string();
        self.run("createdb", &["-h", &folder, "-U", "ortler", "-T", template, name]);
        format!("host={folder} user=ortler dbname={name}")
    }

    /// Ends its connections as well.
    pub fn drop_database(&self, name: &str) {
        self.run("dropdb", &["-h", &self.socket_dir().display().to_string(), "-U", "ortler", "--force", name]);
    }

    pub fn settings(&self, connections: usize) -> PgSettings {
        PgSettings::parse(&self.url(), connections).expect("a connection string")
    }

    fn data(&self) -> String {
        self.dir.path().join("data").display().to_string()
    }

    /// A program of the server's; as another user where we are root, for which the server refuses to run.
    pub fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = if nix::unistd::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let status = self.command(program).args(arguments).status();
        assert!(status.is_ok_and(|status| status.success()), "{program}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The folder goes either way.
        let _ = self.command("pg_ctl").args(["-D", &self.data(), "-m", "immediate", "-w", "stop"]).status();
    }
}
