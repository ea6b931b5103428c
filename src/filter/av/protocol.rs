//! clamd's protocol: one command for each connection, answers ended by NUL (clamd(8)).

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::Scanned;
use crate::address::ServiceAddress;
use crate::proof::one_line;

/// Octets of a message that go out at a time.
const CHUNK: usize = 64 * 1024;
/// Octets of an answer that are read.
const ANSWER_MAX: u64 = 4096;

/// Asks for the version, which is a sign of life, too. Cancel safe.
pub(super) async fn version(server: &ServiceAddress, limit: Duration) -> Result<Vec<u8>, String> {
    ask(server, limit, b"zVERSION\0", None).await
}

/// Gives a message to one server. Cancel safe.
pub(super) async fn scan(server: &ServiceAddress, message: &[u8], limit: Duration) -> Result<Scanned, String> {
    parse(&ask(server, limit, b"zINSTREAM\0", Some(message)).await?)
}

async fn ask(
    server: &ServiceAddress,
    limit: Duration,
    command: &[u8],
    message: Option<&[u8]>,
) -> Result<Vec<u8>, String> {
    let talk = async {
        match server {
            ServiceAddress::Tcp(address) => {
                let stream = TcpStream::connect(address.as_str()).await?;
                stream.set_nodelay(true)?;
                converse(stream, command, message).await
            }
            ServiceAddress::Socket(path) => converse(UnixStream::connect(path).await?, command, message).await,
        }
    };
    match timeout(limit, talk).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_late) => Err("no answer in time".into()),
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite,
    command: &[u8],
    message: Option<&[u8]>,
) -> std::io::Result<Vec<u8>> {
    let (read, mut write) = tokio::io::split(stream);
    let mut answer = Vec::new();
    let mut answers = read.take(ANSWER_MAX);
    let send = async {
        write.write_all(command).await?;
        for chunk in message.unwrap_or_default().chunks(CHUNK) {
            let length = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            write.write_all(&length.to_be_bytes()).await?;
            write.write_all(chunk).await?;
        }
        if message.is_some() {
            write.write_all(&[0; 4]).await?;
        }
        write.flush().await
    };
    // clamd may answer and hang up before it has read everything: what it said counts.
    let (sent, read) = tokio::join!(send, answers.read_to_end(&mut answer));
    if answer.is_empty() {
        sent?;
        read?;
    }
    Ok(answer)
}

/// `stream: OK`, `stream: NAME FOUND`, `... ERROR`, each ended by NUL.
pub(super) fn parse(reply: &[u8]) -> Result<Scanned, String> {
    let text = String::from_utf8_lossy(reply);
    let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    if let Some(found) = text.strip_suffix(" FOUND") {
        let name = found.split_once(": ").map_or(found, |(_, name)| name);
        let name = one_line(name).into();
        return Ok(if is_guess(found) { Scanned::Suspected(name) } else { Scanned::Found(name) });
    }
    if text.contains("size limit exceeded") {
        return Ok(Scanned::TooLarge);
    }
    match text.split_once(": ") {
        Some((_, "OK")) => Ok(Scanned::Clean),
        _ if text.is_empty() => Err("connection closed without an answer".into()),
        _ => Err(one_line(text)),
    }
}

/// Names of what is no known virus: heuristics (encrypted archives, limits, phishing by form among them) and programs
/// that some do not want.
fn is_guess(found: &str) -> bool {
    let name = found.split_once(": ").map_or(found, |(_, name)| name);
    name.starts_with("Heuristics.") || name.starts_with("PUA.")
}
