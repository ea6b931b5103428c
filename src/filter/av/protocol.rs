//! clamd's answers, and a connection that hears them early.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use clamav_client::tokio::{Socket, Tcp, TransportProtocol, get_version, scan_buffer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use super::Scanned;
use crate::address::ServiceAddress;
use crate::proof::one_line;

/// Octets of a message that go out at a time.
const CHUNK: usize = 64 * 1024;
/// Octets of an answer that are read.
const ANSWER_MAX: usize = 4096;

/// Asks for the version, which is a sign of life, too. Cancel safe.
pub(super) async fn version(server: &ServiceAddress, limit: Duration) -> Result<Vec<u8>, String> {
    let asked = async {
        match server {
            ServiceAddress::Tcp(address) => get_version(Early(Tcp { host_address: address.as_str() })).await,
            ServiceAddress::Socket(path) => get_version(Early(Socket { socket_path: path })).await,
        }
    };
    in_time(limit, asked).await
}

/// Gives a message to one server. Cancel safe.
pub(super) async fn scan(server: &ServiceAddress, message: &[u8], limit: Duration) -> Result<Scanned, String> {
    let asked = async {
        match server {
            ServiceAddress::Tcp(address) => {
                scan_buffer(message, Early(Tcp { host_address: address.as_str() }), Some(CHUNK)).await
            }
            ServiceAddress::Socket(path) => {
                scan_buffer(message, Early(Socket { socket_path: path }), Some(CHUNK)).await
            }
        }
    };
    parse(&in_time(limit, asked).await?)
}

async fn in_time(limit: Duration, asked: impl Future<Output = io::Result<Vec<u8>>>) -> Result<Vec<u8>, String> {
    match timeout(limit, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_late) => Err("no answer in time".into()),
    }
}

/// clamd may answer and hang up before it has read everything, as from its size limit on: what it said counts. The client
/// goes on writing, into nothing, and then reads the answer.
struct Early<T>(T);

impl<T: TransportProtocol> TransportProtocol for Early<T> {
    type Stream = EarlyStream<T::Stream>;

    async fn connect(&self) -> io::Result<Self::Stream> {
        Ok(EarlyStream { stream: self.0.connect().await?, answer: Vec::new(), is_over: false, read: 0 })
    }
}

struct EarlyStream<S> {
    stream: S,
    /// What came while the client was writing.
    answer: Vec<u8>,
    /// Nobody reads any more.
    is_over: bool,
    /// Octets of the answer that the client has.
    read: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for EarlyStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let mut space = [0; 512];
        while !self.is_over && self.answer.len() < ANSWER_MAX {
            let mut heard = ReadBuf::new(&mut space);
            match Pin::new(&mut self.stream).poll_read(cx, &mut heard) {
                Poll::Ready(Ok(())) if !heard.filled().is_empty() => self.answer.extend_from_slice(heard.filled()),
                Poll::Ready(_) => self.is_over = true,
                Poll::Pending => break,
            }
        }
        if self.is_over {
            return Poll::Ready(Ok(octets.len()));
        }
        match Pin::new(&mut self.stream).poll_write(cx, octets) {
            Poll::Ready(Err(_)) => {
                self.is_over = true;
                Poll::Ready(Ok(octets.len()))
            }
            written => written,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_over { Poll::Ready(Ok(())) } else { Pin::new(&mut self.stream).poll_flush(cx) }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for EarlyStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.answer.is_empty() {
            let length = self.answer.len().min(buffer.remaining());
            let now: Vec<u8> = self.answer.drain(..length).collect();
            buffer.put_slice(&now);
            self.read += length;
            return Poll::Ready(Ok(()));
        }
        // No answer is longer: the rest is nobody's.
        if self.read >= ANSWER_MAX {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.read += buffer.filled().len().saturating_sub(before);
        match polled {
            // Hung up rudely, after it had said something.
            Poll::Ready(Err(_)) if self.read > 0 => Poll::Ready(Ok(())),
            polled => polled,
        }
    }
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
