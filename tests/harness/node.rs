//! The binary as a child process.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use base::{Clock as _, SystemClock};

use super::client::{Conversation, base64, http};
use super::dns;

/// Every account's password in a demonstration.
pub const PASSWORD: &str = "demo";

/// A demonstration node; stopped and its folder removed when dropped.
pub struct Node {
    child: Option<Child>,
    base: u16,
    options: Vec<String>,
    dir: tempfile::TempDir,
    /// The node's folder, if it is not the temporary one.
    at: Option<PathBuf>,
    /// Served by its configuration, not as a demonstration.
    is_served: bool,
}

/// Port ranges that tests may use, below those that the system hands out itself.
static BASES: (Mutex<Vec<u16>>, Condvar) = (Mutex::new(Vec::new()), Condvar::new());
static FILLED: std::sync::Once = std::sync::Once::new();

fn take_base() -> u16 {
    FILLED.call_once(|| BASES.0.lock().unwrap().extend((20..31).map(|n| n * 1000 + 700)));
    let mut free = BASES.0.lock().unwrap();
    loop {
        match free.pop() {
            // A range that another program uses is left alone for good.
            Some(base) if !is_free(base) => {}
            Some(base) => return base,
            None => free = BASES.1.wait(free).unwrap(),
        }
    }
}

fn is_free(base: u16) -> bool {
    const SERVICES: [u16; 14] = [25, 587, 465, 24, 143, 993, 110, 995, 190, 891, 80, 443, 90, 899];
    // None of them listens: a process that is just being started by another test would hold the port for a moment.
    SERVICES.iter().all(|service| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind((std::net::Ipv4Addr::LOCALHOST, base + service).into()).is_ok()
    })
}

/// Listeners of a node that shares a server.
const SERVICES: [(&str, u16); 8] = [
    ("smtp", 25),
    ("submission", 587),
    ("lmtp", 24),
    ("imap", 143),
    ("pop3", 110),
    ("http", 80),
    ("health", 90),
    ("cluster", 899),
];

impl Node {
    pub fn start() -> Self {
        Self::with(&[])
    }

    pub fn with(options: &[&str]) -> Self {
        Self::start_at(None, options)
    }

    /// A node whose data lies in `at`.
    pub fn start_at(at: Option<PathBuf>, options: &[&str]) -> Self {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut node =
            Self { child: None, base: take_base(), options, dir: tempfile::tempdir().unwrap(), at, is_served: false };
        node.resume();
        node
    }

    /// A node on a PostgreSQL server: `url` is its connection string, `storage` further options of `[storage]`.
    pub fn on_postgres(url: &str, storage: &str) -> Self {
        let (base, dir) = (take_base(), tempfile::tempdir().unwrap());
        let mut text = format!(
            "[node]\nname = \"mx{base}.example.test\"\ndata = \".\"\nshutdown_wait = \"10 s\"\n[dns]\nservers = [\"{}\"]\n\
             [login]\nplaintext = \"loopback\"\nstaff_second_factor = \"optional\"\n[log]\nlevel = \"warn\"\n[storage]\nengine = \"postgresql\"\n\
             postgresql = \"{url}\"\n{storage}\n",
            dns::address()
        );
        for (name, port) in SERVICES {
            let port = base + port;
            text.push_str(&format!("[[listener]]\nprotocol = \"{name}\"\naddress = \"127.0.0.1:{port}\"\n"));
        }
        std::fs::write(dir.path().join("ortler.toml"), text).unwrap();
        let mut node = Self { child: None, base, options: Vec::new(), dir, at: None, is_served: true };
        node.resume();
        node
    }

    /// A node by the configuration in `file`, which came from `like`, on ports of its own.
    pub fn joined(like: &Self, file: &Path) -> Self {
        let (base, dir) = (take_base(), tempfile::tempdir().unwrap());
        let mut text = std::fs::read_to_string(file).unwrap();
        for (_, port) in SERVICES {
            text = text.replace(&format!(":{}\"", like.base + port), &format!(":{}\"", base + port));
        }
        for entry in std::fs::read_dir(file.parent().unwrap()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
        std::fs::write(dir.path().join("ortler.toml"), text).unwrap();
        let mut node = Self { child: None, base, options: Vec::new(), dir, at: None, is_served: true };
        node.resume();
        node
    }

    /// A command on this node, which must succeed; what it prints.
    #[track_caller]
    pub fn command(&self, arguments: &[&str]) -> String {
        let config = self.config();
        let output = ortler(&[arguments, &["--config", config.to_str().unwrap()]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Fails with exit code 1, and says so.
    #[track_caller]
    pub fn command_fails(&self, arguments: &[&str], words: &str) {
        let config = self.config();
        ortler_fails(&[arguments, &["--config", config.to_str().unwrap()]].concat(), 1, words);
    }

    /// As the node calls itself.
    pub fn host_name(&self) -> String {
        let config = std::fs::read_to_string(self.config()).unwrap();
        let line = config.lines().find_map(|line| line.strip_prefix("name = ")).unwrap();
        line.trim_matches('"').to_owned()
    }

    /// What a command says to machines.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.command(&[arguments, &["--json"]].concat())).unwrap()
    }

    pub fn config(&self) -> PathBuf {
        self.dir().join("ortler.toml")
    }

    /// A node with this system policy.
    pub fn start_with_policy(policy: &str) -> Self {
        let prepare = |dir: &Path| std::fs::write(dir.join("policy.toml"), policy).unwrap();
        Self::start_configured(prepare, &[("[filter]", "[filter]\npolicy = \"policy.toml\"")])
    }

    /// A node made as a demonstration, then served by its configuration with these `changes`.
    pub fn start_configured(prepare: impl FnOnce(&Path), changes: &[(&str, &str)]) -> Self {
        let mut node = Self::start();
        node.stop();
        prepare(node.dir());
        let file = node.dir().join("ortler.toml");
        let mut config = std::fs::read_to_string(&file).unwrap();
        for (from, to) in changes {
            assert!(config.contains(from));
            config = config.replacen(from, to, 1);
        }
        std::fs::write(&file, config).unwrap();
        node.serve();
        node
    }

    /// Serves the folder by its configuration.
    pub fn serve(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.log_file()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ortler"));
        self.child = Some(command.arg("serve").arg("--config").arg(self.config()).stderr(log).spawn().unwrap());
        let deadline = SystemClock.now() + Duration::from_secs(60);
        // The port is open before the node is ready; whoever connects is greeted then.
        while !std::net::TcpStream::connect(("127.0.0.1", self.port(90))).is_ok_and(|mut stream| answers(&mut stream)) {
            assert!(SystemClock.now() < deadline, "the node did not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts the process again on the same folder.
    pub fn resume(&mut self) {
        if self.is_served {
            return self.serve();
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_ortler"));
        command.args(["demo", "--accounts", "5", "--base-port", &self.base.to_string(), "--dir"]).arg(self.dir());
        command.args(["--dns", &dns::address().to_string()]).args(&self.options);
        let log = std::fs::File::options().create(true).append(true).open(self.log_file()).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line == "ready");
        assert!(ready, "the node did not become ready: {}", self.log());
        self.child = Some(child);
    }

    pub fn dir(&self) -> &Path {
        self.at.as_deref().unwrap_or(self.dir.path())
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("test.log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    pub fn port(&self, service: u16) -> u16 {
        self.base + service
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    pub fn connect(&self, service: u16) -> Conversation {
        Conversation::open(self.port(service))
    }

    /// As if the power went.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// As an operator stops it. Fails if it does not end well in time.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let deadline = SystemClock.now() + Duration::from_secs(30);
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{status}: {}", self.log());
                return;
            }
            assert!(SystemClock.now() < deadline, "the node did not stop: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a message to port 25; gives the last reply, or that to MAIL if it is refused there.
    pub fn send(&self, from: &str, to: &[&str], message: &[u8]) -> String {
        let mut smtp = self.connect(25);
        smtp.expect("220");
        smtp.say("EHLO client.example.org").expect("250");
        let reply = smtp.say(&format!("MAIL FROM:<{from}>")).line();
        if !reply.starts_with("250") {
            return reply;
        }
        for to in to {
            smtp.say(&format!("RCPT TO:<{to}>")).expect("250");
        }
        smtp.send_content(message)
    }

    /// All messages of a mailbox, by IMAP.
    pub fn messages(&self, user: &str, mailbox: &str) -> Vec<Vec<u8>> {
        let mut imap = self.sign_in(user);
        imap.tagged(&format!("SELECT \"{mailbox}\""));
        imap.fetch_bodies()
    }

    /// Messages of an account that are held, the oldest first.
    pub fn held(&self, user: &str) -> Vec<Vec<u8>> {
        self.held_ids(user)
            .iter()
            .map(|id| self.api_octets(user, &format!("/api/v1/quarantine/messages/{id}/source")))
            .collect()
    }

    pub fn held_ids(&self, user: &str) -> Vec<String> {
        let (status, found) = self.api(user, "GET /api/v1/quarantine?limit=500", "");
        assert_eq!(status, 200, "{found}");
        let ids = found["messages"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned());
        ids.rev().collect()
    }

    /// All messages of an account, with where they are: INBOX, Junk or Held.
    pub fn everywhere(&self, user: &str) -> Vec<(&'static str, Vec<u8>)> {
        let of = |place: &'static str| self.messages(user, place).into_iter().map(move |message| (place, message));
        let held = self.held(user).into_iter().map(|message| ("Held", message));
        of("INBOX").chain(of("Junk")).chain(held).collect()
    }

    /// Deletes all messages of an account, for good.
    pub fn empty(&self, user: &str) {
        let mut imap = self.sign_in(user);
        for mailbox in ["INBOX", "Junk"] {
            imap.tagged(&format!("SELECT {mailbox}"));
            imap.tagged("STORE 1:* +FLAGS.SILENT (\\Deleted)");
            imap.tagged("EXPUNGE");
        }
        let ids = self.held_ids(user);
        if !ids.is_empty() {
            let body = serde_json::json!({ "action": "delete", "ids": ids }).to_string();
            assert_eq!(self.api(user, "POST /api/v1/quarantine/actions", &body).0, 200);
        }
    }

    /// A call of the API by a user of the demonstration, with the answer's status and JSON.
    pub fn api(&self, user: &str, request: &str, body: &str) -> (u16, serde_json::Value) {
        self.api_with(&basic(user), request, body)
    }

    /// The same with other header lines.
    pub fn api_with(&self, headers: &str, request: &str, body: &str) -> (u16, serde_json::Value) {
        let headers = format!("{headers}Content-Type: application/json\r\n");
        let (status, _, answer) = http(self.port(80), request, &headers, body);
        (status, serde_json::from_str(&answer).unwrap_or_default())
    }

    fn api_octets(&self, user: &str, path: &str) -> Vec<u8> {
        let mut connection = self.connect(80);
        let head = basic(user);
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n").as_bytes());
        let answer = connection.rest();
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        let end = answer.windows(4).position(|octets| octets == b"\r\n\r\n").unwrap();
        answer[end + 4..].to_vec()
    }

    pub fn sign_in(&self, user: &str) -> Conversation {
        let mut imap = self.connect(143);
        imap.expect("* OK");
        imap.tagged(&format!("LOGIN {user}@example.test {PASSWORD}"));
        imap
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("log of the node:\n{}", self.log());
        }
        BASES.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(self.base);
        BASES.1.notify_one();
    }
}

/// The header line by which a user of the demonstration signs in to the API.
pub fn basic(user: &str) -> String {
    format!("Authorization: Basic {}\r\n", base64(format!("{user}@example.test:{PASSWORD}").as_bytes()))
}

/// True if the node answers that it lives.
fn answers(stream: &mut std::net::TcpStream) -> bool {
    use std::io::Write as _;
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut answer = [0u8; 12];
    asked.is_ok() && stream.read_exact(&mut answer).is_ok() && answer.ends_with(b" 200")
}

/// Runs the binary to its end.
pub fn ortler(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ortler")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Runs the binary, which must fail with `code` and one line on standard error that holds `words`.
#[track_caller]
pub fn ortler_fails(arguments: &[&str], code: i32, words: &str) {
    let output = ortler(arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    let told: Vec<&str> = text.lines().filter(|line| !line.contains(" WARN ")).collect();
    assert!(told.len() == 1 && told[0].contains(words), "{arguments:?}: {text}");
}

/// Runs another program with a time limit; its standard output.
pub fn run_program(command: &mut Command, patience: Duration) -> (bool, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = out.read_to_end(&mut text);
        text
    });
    let errors = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = err.read_to_end(&mut text);
        text
    });
    let deadline = SystemClock.now() + patience;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if SystemClock.now() > deadline {
            let _ = child.kill();
            panic!("{command:?} did not end in {patience:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let text = [reader.join().unwrap(), errors.join().unwrap()].concat();
    (status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// An ordinary letter with a whole header.
pub fn letter(subject: &str, text: &str) -> Vec<u8> {
    format!(
        "From: Anna Gruber <anna@sender.example>\r\nTo: user1@example.test\r\nSubject: {subject}\r\n\
         Date: {}\r\nMessage-ID: <{}@sender.example>\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\r\nDear colleague,\r\n\r\n{text}\r\n\r\nKind regards, Anna\r\n",
        written(),
        subject.replace(' ', ".")
    )
    .into_bytes()
}

/// When letters were written: an hour before the tests began, for rules look at the age of a letter.
pub fn written() -> &'static str {
    static WRITTEN: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    WRITTEN.get_or_init(|| mail::date::format_rfc5322(SystemClock.utc().minus(Duration::from_secs(3600))))
}
