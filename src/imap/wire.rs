//! A connection's bytes: framed on the way in, gathered on the way out.

use std::future::{Future, poll_fn};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::ready;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use directory::Hold;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::proto::{Event, Framer};

/// Any connection: plain or TLS.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + Sync {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Duplex for S {}

pub type Stream = Box<dyn Duplex>;

/// Why a connection ends. Nothing more can be told to the peer except where said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closed {
    /// The peer went or broke.
    Gone,
    /// The peer was silent for too long; it can still be told.
    Silent,
    /// The node stops; the peer can still be told.
    Stopping,
    /// What the client signed in with no longer holds; the peer can still be told.
    Revoked,
    /// All is said: LOGOUT, or a refusal to go on.
    Done,
    /// Not an end: the stream becomes TLS.
    UpgradeToTls,
    /// Another node goes on.
    Led,
}

/// Waits hold no buffers: a connection that is idle costs what its TLS state costs.
pub struct Wire {
    pub stream: Stream,
    pub framer: Framer,
    input: BytesMut,
    /// Responses not yet sent.
    pub out: Vec<u8>,
    /// Octets sent so far.
    pub sent: u64,
    write_timeout: Duration,
    cancel: CancellationToken,
    /// Once the client has signed in.
    pub hold: Option<Hold>,
}

/// Responses are sent when so many octets have gathered.
pub const FLUSH_AT: usize = 64 * 1024;

impl Wire {
    pub fn new(stream: Stream, framer: Framer, write_timeout: Duration, cancel: CancellationToken) -> Self {
        Self { stream, framer, input: BytesMut::new(), out: Vec::new(), sent: 0, write_timeout, cancel, hold: None }
    }

    /// What comes next, after everything gathered has been sent.
    ///
    /// Cancel safe: bytes read stay.
    pub async fn event(&mut self, patience: Duration) -> Result<Event, Closed> {
        loop {
            if let Some(event) = self.framer.next(&mut self.input) {
                return Ok(event);
            }
            self.flush().await?;
            self.fill(patience).await?;
        }
    }

    /// Reads until something came.
    async fn fill(&mut self, patience: Duration) -> Result<(), Closed> {
        self.input = BytesMut::new();
        self.out = Vec::new();
        let Self { stream, input, cancel, hold, .. } = self;
        let read = read_some(stream, input);
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Closed::Stopping),
            () = Hold::ended_of(hold.as_ref()) => Err(Closed::Revoked),
            outcome = timeout(patience, read) => match outcome {
                Ok(Ok(0) | Err(_)) => Err(Closed::Gone),
                Ok(Ok(_)) => Ok(()),
                Err(_elapsed) => Err(Closed::Silent),
            },
        }
    }

    /// Sends what has gathered.
    pub async fn flush(&mut self) -> Result<(), Closed> {
        if !self.out.is_empty() {
            let out = std::mem::take(&mut self.out);
            self.send(&out).await?;
            // The buffer is kept for the rest of a long answer.
            self.out = out;
            self.out.clear();
        }
        let Self { stream, write_timeout, .. } = self;
        within(*write_timeout, stream.flush()).await
    }

    /// Sends if much has gathered.
    pub async fn flush_some(&mut self) -> Result<(), Closed> {
        if self.out.len() >= FLUSH_AT { self.flush().await } else { Ok(()) }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        let mut rest = bytes;
        while !rest.is_empty() {
            // Each piece has its own time: a slow reader is not a dead one.
            let (piece, later) = rest.split_at(rest.len().min(FLUSH_AT));
            within(self.write_timeout, self.stream.write_all(piece)).await?;
            self.sent += piece.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// Says a last line and closes; failures no longer matter.
    pub async fn close(mut self, last: &str) {
        self.out.extend_from_slice(last.as_bytes());
        if self.flush().await.is_ok() {
            let _ = timeout(CLOSE_TIMEOUT, self.stream.shutdown()).await;
        }
    }

    pub fn cancel_token(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// What has come and was not looked at.
    pub fn ahead(&self) -> Bytes {
        Bytes::copy_from_slice(&self.input)
    }

    /// Begins with what came elsewhere.
    pub fn with_ahead(mut self, ahead: Bytes) -> Self {
        self.input = ahead.into();
        self
    }

    /// Takes the stream out to change its nature; `None` if the peer has already sent more, which could only be an
    /// injection (RFC 7457 §2.2).
    pub fn into_stream_for_tls(self) -> Option<Stream> {
        self.input.is_empty().then_some(self.stream)
    }
}

const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

async fn within<T>(limit: Duration, io: impl Future<Output = std::io::Result<T>>) -> Result<T, Closed> {
    timeout(limit, io).await.ok().and_then(Result::ok).ok_or(Closed::Gone)
}

/// Appends what one read gives. The buffer lives on the stack of one poll, not in the waiting future.
async fn read_some(stream: &mut Stream, input: &mut BytesMut) -> std::io::Result<usize> {
    poll_fn(|cx| {
        let mut chunk = [MaybeUninit::<u8>::uninit(); 16 * 1024];
        let mut buffer = ReadBuf::uninit(&mut chunk);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
        input.extend_from_slice(buffer.filled());
        std::task::Poll::Ready(Ok(buffer.filled().len()))
    })
    .await
}
