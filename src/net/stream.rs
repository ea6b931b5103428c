//! A connection, plain or under TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::CommonState;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What was agreed on, in the registry's words: `TLSv1.3`, `TLS_AES_256_GCM_SHA384`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFacts {
    pub version: String,
    pub cipher: String,
}

/// A connection, whose end under TLS is a `T`.
#[derive(Debug)]
pub enum MaybeTls<T> {
    Plain(TcpStream),
    Tls(Box<T>),
}

/// A connection that a client opened.
pub type Stream = MaybeTls<tokio_rustls::server::TlsStream<TcpStream>>;
/// A connection that we opened.
pub type Outbound = MaybeTls<tokio_rustls::client::TlsStream<TcpStream>>;

impl Stream {
    /// `None` for a plain connection.
    pub fn tls_facts(&self) -> Option<TlsFacts> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(facts(stream.get_ref().1)),
        }
    }
}

impl Outbound {
    /// `None` for a plain connection.
    pub fn tls_facts(&self) -> Option<TlsFacts> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(facts(stream.get_ref().1)),
        }
    }
}

fn facts(connection: &CommonState) -> TlsFacts {
    let version = connection.protocol_version().and_then(|version| version.as_str());
    let cipher = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
    TlsFacts {
        // rustls writes TLSv1_3 and TLS13_AES_…; the registries write TLSv1.3 and TLS_AES_….
        version: version.unwrap_or("TLS").replace('_', "."),
        cipher: cipher.unwrap_or("unknown").replacen("TLS13_", "TLS_", 1),
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for MaybeTls<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for MaybeTls<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
