//! A connection whose end is an answer too.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio_rustls::rustls;

use super::{Node, PASSWORD};

/// Where clients find a mail system: one address or several, of which they try the next if one refuses.
pub struct Place {
    pub name: String,
    hosts: Vec<Ipv4Addr>,
    /// Added to each port.
    base: u16,
    tls: Option<Arc<rustls::ClientConfig>>,
    /// No client waits longer for an answer.
    patience: Duration,
    turn: AtomicUsize,
    /// One user's alone, who begins with the first host each time.
    pub is_watched: bool,
}

impl Place {
    /// Without TLS.
    pub fn of_node(node: &Node) -> Self {
        let (name, patience) = (format!("port {}", node.port(0)), Duration::from_secs(60));
        let hosts = vec![Ipv4Addr::LOCALHOST];
        Self { name, hosts, base: node.port(0), tls: None, patience, turn: AtomicUsize::new(0), is_watched: false }
    }

    /// At the usual ports, with TLS but for SMTP; the certificate's name is `mail.example.test`.
    pub fn with_tls(name: &str, hosts: &[Ipv4Addr], authority: &Path, patience: Duration) -> Self {
        use rustls::pki_types::{CertificateDer, pem::PemObject as _};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let tls = Some(Arc::new(tls.with_root_certificates(roots).with_no_client_auth()));
        Self {
            name: name.to_owned(),
            hosts: hosts.to_vec(),
            base: 0,
            tls,
            patience,
            turn: AtomicUsize::new(0),
            is_watched: false,
        }
    }

    pub fn watched(self) -> Self {
        Self { is_watched: true, ..self }
    }

    /// `smtp`, `imap`, `pop3` or `http`.
    pub fn open(&self, protocol: &str) -> Result<Wire, Ended> {
        let (plain, with_tls) = match protocol {
            "smtp" => (25, None),
            "imap" => (143, Some(993)),
            "pop3" => (110, Some(995)),
            "http" => (80, Some(443)),
            other => panic!("{other}"),
        };
        let tls = self.tls.as_ref().zip(with_tls);
        let port = self.base + tls.map_or(plain, |(_, port)| port);
        let first = if self.is_watched { 0 } else { self.turn.fetch_add(1, Ordering::Relaxed) };
        let wait = self.patience.min(Duration::from_secs(2));
        let reached = (0..self.hosts.len()).find_map(|nth| {
            let host = self.hosts[(first + nth) % self.hosts.len()];
            TcpStream::connect_timeout(&SocketAddr::from((host, port)), wait).ok()
        });
        let stream = reached.ok_or(Ended::Refused)?;
        stream.set_read_timeout(Some(self.patience)).unwrap();
        stream.set_write_timeout(Some(self.patience)).unwrap();
        stream.set_nodelay(true).unwrap();
        let Some((tls, _)) = tls else { return Ok(Wire(BufReader::new(Box::new(stream)), None)) };
        let name = rustls::pki_types::ServerName::try_from("mail.example.test").unwrap();
        let connection = rustls::ClientConnection::new(Arc::clone(tls), name).unwrap();
        Ok(Wire(BufReader::new(Box::new(rustls::StreamOwned::new(connection, stream))), None))
    }

    /// An IMAP session with INBOX selected, or the answer that is none.
    pub fn sign_in(&self, user: &str) -> Result<Result<Wire, String>, Ended> {
        let mut wire = self.open("imap")?;
        let greeting = wire.line()?;
        if !greeting.starts_with("* OK") {
            return Ok(Err(greeting));
        }
        for command in [format!("LOGIN {user}@example.test {PASSWORD}"), "SELECT INBOX".to_owned()] {
            let said = wire.asks_imap(&command)?;
            if !said.status.starts_with("OK") {
                return Ok(Err(said.status));
            }
        }
        Ok(Ok(wire))
    }
}

trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// An open connection, and how it ended if it did while something was said.
pub struct Wire(BufReader<Box<dyn Stream>>, Option<Ended>);

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// After a farewell.
    Politely,
    Closed,
    /// No answer in all patience.
    Silent,
    /// No host could be reached.
    Refused,
}

/// An IMAP answer.
pub struct Said {
    pub lines: Vec<String>,
    /// With the number of the line that it follows.
    literals: Vec<(usize, Vec<u8>)>,
    /// After the tag.
    pub status: String,
}

impl Said {
    /// With their UIDs.
    pub fn bodies(&self) -> impl Iterator<Item = (u32, String)> {
        self.literals.iter().map(|(line, text)| {
            let uid = self.lines[*line].split("UID ").nth(1).unwrap().split(' ').next().unwrap();
            (uid.parse().unwrap(), String::from_utf8_lossy(text).into_owned())
        })
    }
}

impl Wire {
    /// That it does not arrive shows when an answer is waited for.
    pub fn say(&mut self, words: &str) {
        let stream = self.0.get_mut();
        let said = stream.write_all(words.as_bytes()).and_then(|()| stream.flush());
        // What it said before it closed may still be there to read; silence was waited for already.
        self.1 = said.err().map(|error| end_of(&error)).filter(|ended| *ended == Ended::Silent);
    }

    pub fn line(&mut self) -> Result<String, Ended> {
        let mut line = Vec::new();
        if let Some(ended) = self.1 {
            return Err(ended);
        }
        match self.0.read_until(b'\n', &mut line) {
            Ok(_) if line.ends_with(b"\n") => Ok(String::from_utf8_lossy(&line).trim_end().to_owned()),
            Err(error) if is_silence(&error) => Err(Ended::Silent),
            _ => Err(Ended::Closed),
        }
    }

    /// The last line of the reply.
    pub fn asks_smtp(&mut self, words: &str) -> Result<String, Ended> {
        self.say(words);
        loop {
            let line = self.line()?;
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line);
            }
        }
    }

    pub fn asks_imap(&mut self, command: &str) -> Result<Said, Ended> {
        self.say(&format!("t {command}\r\n"));
        let (mut lines, mut literals) = (Vec::new(), Vec::new());
        loop {
            let line = match self.line() {
                Err(Ended::Closed) if lines.iter().any(|line: &String| line.starts_with("* BYE")) => {
                    return Err(Ended::Politely);
                }
                line => line?,
            };
            if let Some(status) = line.strip_prefix("t ") {
                return Ok(Said { lines, literals, status: status.to_owned() });
            }
            if let Some(length) = line.rsplit_once('{').and_then(|(_, rest)| rest.strip_suffix('}')) {
                let mut text = vec![0; length.parse().unwrap()];
                self.0.read_exact(&mut text).map_err(|error| end_of(&error))?;
                literals.push((lines.len(), text));
            }
            lines.push(line);
        }
    }

    /// Status and body of the answer, which is the connection's last.
    pub fn asks_http(&mut self, request: &str, headers: &str, body: &str) -> Result<(u16, String), Ended> {
        let length = body.len();
        self.say(&format!(
            "{request} HTTP/1.1\r\nHost: mail.example.test\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        ));
        let mut answer = Vec::new();
        if let Some(ended) = self.1 {
            return Err(ended);
        }
        let end = self.0.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let Some((head, body)) = answer.split_once("\r\n\r\n") else {
            return Err(end.err().map_or(Ended::Closed, |error| end_of(&error)));
        };
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let told =
            head.to_lowercase().split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
        match told {
            Some(length) if body.len() < length => Err(end.err().map_or(Ended::Closed, |error| end_of(&error))),
            _ => Ok((status, body.to_owned())),
        }
    }
}

fn end_of(error: &std::io::Error) -> Ended {
    if is_silence(error) { Ended::Silent } else { Ended::Closed }
}

fn is_silence(error: &std::io::Error) -> bool {
    [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut].contains(&error.kind())
}
