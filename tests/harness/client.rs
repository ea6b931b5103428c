//! A client that speaks lines, and what SMTP, IMAP and HTTP need beyond.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// One connection.
pub struct Conversation {
    reader: BufReader<TcpStream>,
}

impl Conversation {
    pub fn open(port: u16) -> Self {
        Self::open_at(Ipv4Addr::LOCALHOST, port)
    }

    pub fn open_at(address: Ipv4Addr, port: u16) -> Self {
        let stream = TcpStream::connect((address, port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    /// For answers that take their time.
    pub fn patient(self, patience: Duration) -> Self {
        self.reader.get_ref().set_read_timeout(Some(patience)).unwrap();
        self.reader.get_ref().set_write_timeout(Some(patience)).unwrap();
        self
    }

    pub fn send(&mut self, bytes: &[u8]) -> &mut Self {
        self.reader.get_mut().write_all(bytes).unwrap();
        self
    }

    pub fn say(&mut self, line: &str) -> &mut Self {
        self.send(format!("{line}\r\n").as_bytes())
    }

    /// The next line without its end; empty at the end of the connection.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).unwrap();
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    /// Reads a reply (SMTP: all its lines) whose last line must begin with `start`.
    #[track_caller]
    pub fn expect(&mut self, start: &str) -> String {
        let mut line = self.line();
        while line.len() > 3 && line.as_bytes()[3] == b'-' && line.as_bytes()[0].is_ascii_digit() {
            line = self.line();
        }
        assert!(line.starts_with(start), "expected {start}, got {line}");
        line
    }

    /// DATA with dots added; gives the reply.
    pub fn send_content(&mut self, message: &[u8]) -> String {
        self.say("DATA").expect("354");
        let mut wire = Vec::with_capacity(message.len() + 100);
        for line in message.split_inclusive(|byte| *byte == b'\n') {
            if line.starts_with(b".") {
                wire.push(b'.');
            }
            wire.extend_from_slice(line);
        }
        if !wire.ends_with(b"\r\n") {
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b".\r\n");
        self.send(&wire).line()
    }

    /// An IMAP command that must succeed; gives its untagged lines.
    #[track_caller]
    pub fn tagged(&mut self, command: &str) -> Vec<String> {
        self.say(&format!("t {command}"));
        let mut lines = Vec::new();
        loop {
            let line = self.line();
            if let Some(status) = line.strip_prefix("t ") {
                assert!(status.starts_with("OK"), "{command}: {status}");
                return lines;
            }
            assert!(!line.is_empty(), "{command}: the connection ended after {lines:?}");
            lines.push(line);
        }
    }

    /// The one literal in the answer to an IMAP command that must succeed.
    #[track_caller]
    pub fn literal(&mut self, command: &str) -> Vec<u8> {
        self.say(&format!("l {command}"));
        let mut found = Vec::new();
        loop {
            let line = self.line();
            if line.starts_with("l ") {
                assert!(line.starts_with("l OK"), "{command}: {line}");
                return found;
            }
            assert!(!line.is_empty(), "{command}: the connection ended");
            if let Some(length) = line.rsplit_once('{').and_then(|(_, rest)| rest.strip_suffix('}')) {
                found = vec![0; length.parse().unwrap()];
                self.reader.read_exact(&mut found).unwrap();
            }
        }
    }

    /// The tagged reply to an IMAP command, or the request to go on, whatever it says.
    #[track_caller]
    pub fn outcome(&mut self, command: &str) -> String {
        self.say(&format!("o {command}"));
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "{command}: the connection ended");
            if line.starts_with("o ") || line.starts_with('+') {
                return line;
            }
            if let Some(length) = line.rsplit_once('{').and_then(|(_, rest)| rest.strip_suffix('}')) {
                let mut passed = vec![0; length.parse().unwrap()];
                self.reader.read_exact(&mut passed).unwrap();
            }
        }
    }

    /// `FETCH 1:* BODY.PEEK[]` with its literals.
    pub fn fetch_bodies(&mut self) -> Vec<Vec<u8>> {
        self.say("f UID FETCH 1:* (BODY.PEEK[])");
        let mut bodies = Vec::new();
        loop {
            let line = self.line();
            if line.starts_with("f OK") {
                return bodies;
            }
            assert!(line.starts_with("* ") || line == ")", "{line}");
            if let Some(length) = line.rsplit_once('{').and_then(|(_, rest)| rest.strip_suffix('}')) {
                let mut body = vec![0; length.parse().unwrap()];
                self.reader.read_exact(&mut body).unwrap();
                bodies.push(body);
            }
        }
    }

    /// A POP3 answer of several lines, dots taken away.
    pub fn multiline(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let mut line = Vec::new();
            self.reader.read_until(b'\n', &mut line).unwrap();
            if line == b".\r\n" || line.is_empty() {
                return out;
            }
            out.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
    }

    /// Status and body of an HTTP answer that tells its length.
    pub fn http_answer(&mut self) -> (u16, String) {
        let status = self.line().split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let mut length = 0;
        loop {
            let line = self.line().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            length = line.strip_prefix("content-length:").map_or(length, |length| length.trim().parse().unwrap());
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body).unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    /// Everything until the other side closes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let _ = self.reader.read_to_end(&mut out);
        out
    }
}

/// An HTTP/1.1 request; status, header and body of the answer.
pub fn http(port: u16, request: &str, headers: &str, body: &str) -> (u16, String, String) {
    http_at(Ipv4Addr::LOCALHOST, port, request, headers, body)
}

pub fn http_at(address: Ipv4Addr, port: u16, request: &str, headers: &str, body: &str) -> (u16, String, String) {
    let mut connection = Conversation::open_at(address, port);
    let length = body.len();
    connection.send(
        format!("{request} HTTP/1.1\r\nHost: {address}:{port}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}").as_bytes(),
    );
    let answer = String::from_utf8_lossy(&connection.rest()).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, head.to_lowercase(), body.to_owned())
}

/// RFC 4648 §4.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let word = group.iter().enumerate().fold(0u32, |word, (at, byte)| word | u32::from(*byte) << (16 - 8 * at));
        for at in 0..4 {
            let digit = ALPHABET[(word >> (18 - 6 * at)) as usize & 63];
            out.push(if at <= group.len() { char::from(digit) } else { '=' });
        }
    }
    out
}
