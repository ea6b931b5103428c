//! Certificates of an authority of the test's own, and a web server that has one.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::run_program;

/// Signs certificates. Files lie in a folder of the test.
pub struct Authority {
    dir: PathBuf,
}

impl Authority {
    pub fn new(dir: &Path) -> Self {
        let new = Self { dir: dir.to_path_buf() };
        new.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=Test authority",
            "-days",
            "2",
            "-keyout",
            "authority.key",
            "-out",
            "authority.pem",
        ]);
        new
    }

    fn openssl(&self, arguments: &[&str]) {
        let (made, output) =
            run_program(Command::new("openssl").current_dir(&self.dir).args(arguments), Duration::from_secs(30));
        assert!(made, "{output}");
    }

    /// Its own certificate.
    pub fn file(&self) -> PathBuf {
        self.dir.join("authority.pem")
    }

    /// Makes `stem.pem` and `stem.key`, for these names.
    pub fn sign(&self, stem: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let (key, request, out) = (format!("{stem}.key"), format!("{stem}.csr"), format!("{stem}.pem"));
        let extensions = format!("{stem}.ext");
        let list: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
        let text = format!("subjectAltName={}\nbasicConstraints=critical,CA:FALSE\n", list.join(","));
        std::fs::write(self.dir.join(&extensions), text).unwrap();
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=server",
            "-keyout",
            &key,
            "-out",
            &request,
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "authority.pem",
            "-CAkey",
            "authority.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            &extensions,
            "-out",
            &out,
        ]);
        (self.dir.join(out), self.dir.join(key))
    }

    /// SHA-256 of the public key in a certificate, as TLSA records have it.
    pub fn spki_sha256(&self, certificate: &Path) -> String {
        let script =
            "openssl x509 -in \"$0\" -noout -pubkey | openssl pkey -pubin -outform DER | openssl dgst -sha256 -r";
        let out = Command::new("sh").args(["-c", script]).arg(certificate).output().unwrap();
        String::from_utf8_lossy(&out.stdout).split(' ').next().unwrap_or_default().to_owned()
    }
}

/// Serves the files of a folder over HTTPS by the host that is asked for, and keeps what is posted.
pub struct WebServer {
    child: Child,
    port: u16,
    dir: PathBuf,
}

/// `/HOST/path` below the folder; what is posted goes to `posted-N`.
const SERVER: &str = r#"
import http.server, os, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def answer(self, code, body=b""):
        self.send_response(code)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        path = os.path.join("web", self.headers["Host"], self.path.lstrip("/"))
        self.answer(200, open(path, "rb").read()) if os.path.isfile(path) else self.answer(404)
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        number = len([name for name in os.listdir(".") if name.startswith("posted-")])
        open("posted-%d" % number, "wb").write(body)
        self.answer(201)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

impl WebServer {
    pub fn start(dir: &Path, (certificate, key): (PathBuf, PathBuf)) -> Self {
        use std::io::BufRead as _;
        let mut command = Command::new("python3");
        command.args(["-c", SERVER]).arg(certificate).arg(key).current_dir(dir);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, port: line.trim().parse().unwrap(), dir: dir.to_path_buf() }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What stands at `https://host/path`.
    pub fn put(&self, host: &str, path: &str, text: &str) {
        let file = self.dir.join("web").join(host).join(path.trim_start_matches('/'));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    /// The first thing that was posted.
    pub fn posted(&self) -> Option<Vec<u8>> {
        std::fs::read(self.dir.join("posted-0")).ok()
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
