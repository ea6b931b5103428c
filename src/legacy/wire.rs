//! Lines to and from an old server.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use net::{Connectors, Outbound, Security};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::gateway::{Failure, Place};

pub(crate) struct Wire<'a> {
    /// `None` only while TLS is negotiated, and when that failed.
    stream: Option<Outbound>,
    input: BytesMut,
    place: Place<'a>,
    connectors: &'a Connectors,
    /// For one line.
    pub patience: Duration,
}

/// A longer line, with the literals in it, is none of ours.
const LINE_MAX: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(60);

impl<'a> Wire<'a> {
    pub fn new(stream: Outbound, place: Place<'a>, connectors: &'a Connectors) -> Self {
        Self { stream: Some(stream), input: BytesMut::new(), place, connectors, patience: PATIENCE }
    }

    pub fn into_parts(self) -> Result<(Outbound, Bytes), Failure> {
        Ok((self.stream.ok_or_else(gone)?, self.input.freeze()))
    }

    /// True if TLS has to be started by a command.
    pub const fn wants_starttls(&self) -> bool {
        matches!((self.place.endpoint.security, &self.stream), (Security::StartTls, Some(Outbound::Plain(_))))
    }

    /// What was said in the clear is forgotten. After an error the connection is of no use.
    pub async fn start_tls(&mut self) -> Result<(), Failure> {
        if !self.input.is_empty() {
            return Err(strange("more was said before TLS began", b""));
        }
        let Some(Outbound::Plain(stream)) = self.stream.take() else {
            return Err(strange("TLS is on already", b""));
        };
        let secured = self.connectors.secure(stream, &self.place.endpoint.host, self.place.trust).await;
        self.stream = Some(secured.map_err(|error| Failure::Unavailable(error.to_string()))?);
        Ok(())
    }

    pub async fn say(&mut self, text: impl AsRef<[u8]>) -> Result<(), Failure> {
        let stream = self.stream.as_mut().ok_or_else(gone)?;
        let sending = async {
            stream.write_all(text.as_ref()).await?;
            stream.flush().await
        };
        match tokio::time::timeout(self.patience, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::Unavailable(error.to_string())),
            Err(_elapsed) => Err(Failure::Unavailable("takes nothing".to_owned())),
        }
    }

    /// The next line without its end.
    pub async fn line(&mut self) -> Result<Bytes, Failure> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.input) {
                let line = self.input.split_to(end + 1).freeze();
                let length = line.strip_suffix(b"\r\n").map_or(end, <[u8]>::len);
                return Ok(line.slice(..length));
            }
            if self.input.len() > LINE_MAX {
                return Err(strange("a line without an end", b""));
            }
            self.fill().await?;
        }
    }

    /// The next line with the literals in it, each followed by the rest of the line.
    pub async fn line_with_literals(&mut self) -> Result<Bytes, Failure> {
        let mut whole = BytesMut::from(&self.line().await?[..]);
        while let Some(size) = literal_size(&whole) {
            if whole.len() + size > LINE_MAX {
                return Err(strange("a literal is too large", b""));
            }
            while self.input.len() < size {
                self.fill().await?;
            }
            whole.extend_from_slice(b"\r\n");
            whole.extend_from_slice(&self.input.split_to(size));
            let rest = self.line().await?;
            whole.extend_from_slice(&rest);
        }
        Ok(whole.freeze())
    }

    async fn fill(&mut self) -> Result<(), Failure> {
        let stream = self.stream.as_mut().ok_or_else(gone)?;
        match tokio::time::timeout(self.patience, stream.read_buf(&mut self.input)).await {
            Ok(Ok(0)) => Err(Failure::Unavailable("the connection was closed".to_owned())),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Failure::Unavailable(error.to_string())),
            Err(_elapsed) => Err(Failure::Unavailable("no answer in time".to_owned())),
        }
    }

    /// Ends it, with a last word.
    pub async fn close(mut self, last: &str) {
        if self.say(last).await.is_ok()
            && let Some(mut stream) = self.stream
        {
            let _ = tokio::time::timeout(Duration::from_secs(1), stream.shutdown()).await;
        }
    }
}

fn gone() -> Failure {
    Failure::Unavailable("the connection is gone".to_owned())
}

/// `{12}` or `{12+}` at the end of a line.
fn literal_size(line: &[u8]) -> Option<usize> {
    let start = memchr::memrchr(b'{', line)?;
    let digits = line.get(start + 1..)?.strip_suffix(b"}")?;
    let digits = digits.strip_suffix(b"+").unwrap_or(digits);
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The server says something that has no place there.
pub(crate) fn strange(what: &str, line: &[u8]) -> Failure {
    let line: String = String::from_utf8_lossy(line).chars().filter(|c| !c.is_control()).take(200).collect();
    Failure::Unavailable(if line.is_empty() { what.to_owned() } else { format!("{what}: {line}") })
}

/// RFC 4616, without an identity to act for, in base 64.
pub(crate) fn plain(name: &str, password: &base::Secret<String>) -> base::Secret<String> {
    use base64::Engine as _;
    let whole = base::Secret::new(format!("\0{name}\0{}", password.reveal()));
    base::Secret::new(base64::engine::general_purpose::STANDARD.encode(whole.reveal()))
}

/// True if `line` begins with `word`, in any case.
pub(crate) fn begins(line: &[u8], word: &str) -> bool {
    line.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()))
}
