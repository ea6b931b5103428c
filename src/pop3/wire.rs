//! A connection's bytes: lines on the way in, gathered answers on the way out.

use std::future::{Future, poll_fn};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use directory::Hold;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Any connection: plain or TLS.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + Sync {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Duplex for S {}

pub type Stream = Box<dyn Duplex>;

/// Why a connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closed {
    Gone,
    Silent,
    Stopping,
    /// What the client signed in with no longer holds.
    Revoked,
}

pub enum Line {
    /// Without its end.
    Whole(Bytes),
    /// Too long; passed over.
    TooLong,
}

pub struct Wire {
    stream: Stream,
    input: BytesMut,
    /// In the middle of a line that is too long.
    dropping: bool,
    pub out: Vec<u8>,
    write_timeout: Duration,
    cancel: CancellationToken,
    /// Once the client has signed in.
    pub hold: Option<Hold>,
}

/// RFC 2449 §4 has 255; SASL responses are longer.
const LINE_LENGTH_MAX: usize = 4096;
pub const FLUSH_AT: usize = 64 * 1024;
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

impl Wire {
    pub fn new(stream: Stream, write_timeout: Duration, cancel: CancellationToken) -> Self {
        Self { stream, input: BytesMut::new(), dropping: false, out: Vec::new(), write_timeout, cancel, hold: None }
    }

    /// The next line, after everything gathered has been sent.
    pub async fn line(&mut self, patience: Duration) -> Result<Line, Closed> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.input) {
                let line = self.input.split_to(end + 1).freeze();
                let length = line.strip_suffix(b"\r\n").map_or(end, <[u8]>::len);
                let too_long = std::mem::take(&mut self.dropping) || length > LINE_LENGTH_MAX;
                return Ok(if too_long { Line::TooLong } else { Line::Whole(line.slice(..length)) });
            }
            if self.input.len() > LINE_LENGTH_MAX {
                self.dropping = true;
                self.input.clear();
            }
            self.flush().await?;
            self.fill(patience).await?;
        }
    }

    async fn fill(&mut self, patience: Duration) -> Result<(), Closed> {
        self.out = Vec::new();
        let Self { stream, input, cancel, hold, .. } = self;
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Closed::Stopping),
            () = Hold::ended_of(hold.as_ref()) => Err(Closed::Revoked),
            outcome = timeout(patience, read_some(stream, input)) => match outcome {
                Ok(Ok(0) | Err(_)) => Err(Closed::Gone),
                Ok(Ok(_)) => Ok(()),
                Err(_elapsed) => Err(Closed::Silent),
            },
        }
    }

    pub async fn flush(&mut self) -> Result<(), Closed> {
        let out = std::mem::take(&mut self.out);
        for piece in out.chunks(FLUSH_AT) {
            // Each piece has its own time: a slow reader is not a dead one.
            within(self.write_timeout, self.stream.write_all(piece)).await?;
        }
        within(self.write_timeout, self.stream.flush()).await
    }

    pub async fn flush_some(&mut self) -> Result<(), Closed> {
        if self.out.len() >= FLUSH_AT { self.flush().await } else { Ok(()) }
    }

    pub async fn close(mut self) {
        if self.flush().await.is_ok() {
            let _ = timeout(CLOSE_TIMEOUT, self.stream.shutdown()).await;
        }
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

    pub fn into_stream(self) -> Stream {
        self.stream
    }

    /// Takes the stream out to change its nature; `None` if the peer has already sent more, which could only be an
    /// injection.
    pub fn into_stream_for_tls(self) -> Option<Stream> {
        self.input.is_empty().then_some(self.stream)
    }
}

async fn within<T>(limit: Duration, io: impl Future<Output = std::io::Result<T>>) -> Result<T, Closed> {
    timeout(limit, io).await.ok().and_then(Result::ok).ok_or(Closed::Gone)
}

/// Appends what one read gives. The buffer lives on the stack of one poll, not in the waiting future.
async fn read_some(stream: &mut Stream, input: &mut BytesMut) -> std::io::Result<usize> {
    poll_fn(|cx| {
        let mut chunk = [MaybeUninit::<u8>::uninit(); 4 * 1024];
        let mut buffer = ReadBuf::uninit(&mut chunk);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
        input.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    })
    .await
}
