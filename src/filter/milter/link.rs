//! One connection to a milter: packets out and in, within time.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::proto::{Command, Negotiation, PacketReader, ProtocolError, Response, VERSION, action, step};
use super::settings::MilterSettings;
use crate::address::ServiceAddress;

/// Why a milter could not be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum MilterError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Protocol(#[from] ProtocolError),
    #[error("no answer in time")]
    Late,
    #[error("connection closed")]
    Closed,
    #[error("speaks version {0}, at least 2 is needed")]
    Version(u32),
    #[error("asks for more than was offered")]
    Greedy,
}

trait Channel: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Channel for T {}

const ACTIONS: u32 = action::ADD_HEADERS
    | action::CHANGE_HEADERS
    | action::CHANGE_BODY
    | action::ADD_RECIPIENTS
    | action::DELETE_RECIPIENTS
    | action::QUARANTINE;

const STEPS: u32 = step::NO_CONNECT
    | step::NO_HELO
    | step::NO_MAIL
    | step::NO_RCPT
    | step::NO_BODY
    | step::NO_HEADERS
    | step::NO_END_OF_HEADERS
    | step::NO_UNKNOWN
    | step::NO_DATA
    | step::SKIP
    | step::NO_REPLY_HEADER
    | step::NO_REPLY_CONNECT
    | step::NO_REPLY_HELO
    | step::NO_REPLY_MAIL
    | step::NO_REPLY_RCPT
    | step::NO_REPLY_DATA
    | step::NO_REPLY_UNKNOWN
    | step::NO_REPLY_END_OF_HEADERS
    | step::NO_REPLY_BODY
    | step::HEADER_LEADING_SPACE;

/// Packets that wait for their milter: it answers none of them, so they may go out together.
const HELD_MAX: usize = 32 * 1024;

/// A connection on which both sides have agreed. After an error it must be dropped.
pub(super) struct Link {
    channel: Box<dyn Channel>,
    reader: PacketReader,
    out: Vec<u8>,
    reply_timeout: Duration,
    steps: u32,
    received: usize,
}

impl Link {
    pub async fn open(settings: &MilterSettings) -> Result<Self, MilterError> {
        let connect = async {
            Ok::<Box<dyn Channel>, std::io::Error>(match &settings.address {
                ServiceAddress::Tcp(address) => {
                    let stream = TcpStream::connect(address.as_str()).await?;
                    stream.set_nodelay(true)?;
                    Box::new(stream)
                }
                ServiceAddress::Socket(path) => Box::new(UnixStream::connect(path).await?),
            })
        };
        let channel = timeout(settings.connect_timeout, connect).await.map_err(|_| MilterError::Late)??;
        let reader = PacketReader::default();
        let reply_timeout = settings.reply_timeout;
        let mut link = Self { channel, reader, out: Vec::new(), reply_timeout, steps: 0, received: 0 };
        link.put(&Command::Negotiate(Negotiation { version: VERSION, actions: ACTIONS, steps: STEPS }));
        match link.response().await? {
            Response::Negotiate(chosen) if chosen.version < 2 => Err(MilterError::Version(chosen.version)),
            // Milters name actions that they never take: only unknown steps would put us out of step.
            Response::Negotiate(chosen) if chosen.steps & !STEPS != 0 => Err(MilterError::Greedy),
            Response::Negotiate(chosen) => {
                link.steps = chosen.steps;
                Ok(link)
            }
            _ => Err(ProtocolError::OutOfOrder.into()),
        }
    }

    /// What the milter agreed to, of [`step`].
    pub const fn leaves_out(&self, step: u32) -> bool {
        self.steps & step != 0
    }

    /// Octets of all answers so far.
    pub const fn received(&self) -> usize {
        self.received
    }

    /// Queues a command: it goes out with the next [`Link::response`] or [`Link::flush`].
    pub fn put(&mut self, command: &Command) {
        command.to_packet().write(&mut self.out);
    }

    /// True once so much is queued that it should go out.
    pub const fn is_full(&self) -> bool {
        self.out.len() > HELD_MAX
    }

    pub async fn flush(&mut self) -> Result<(), MilterError> {
        if !self.out.is_empty() {
            timeout(self.reply_timeout, self.channel.write_all(&self.out)).await.map_err(|_| MilterError::Late)??;
            self.out.clear();
            self.out.shrink_to(HELD_MAX);
        }
        Ok(())
    }

    /// Sends what is queued and reads one answer. "Still at work" starts the time anew.
    pub async fn response(&mut self) -> Result<Response, MilterError> {
        self.flush().await?;
        loop {
            while let Some(packet) = self.reader.next_packet()? {
                self.received = self.received.saturating_add(packet.data.len() + 5);
                let response = Response::parse(&packet)?;
                if response != Response::Progress {
                    return Ok(response);
                }
            }
            let mut buffer = [0u8; 4096];
            let read = timeout(self.reply_timeout, self.channel.read(&mut buffer));
            let length = read.await.map_err(|_| MilterError::Late)??;
            match buffer.get(..length) {
                Some(bytes) if !bytes.is_empty() => self.reader.feed(bytes),
                Some(_) | None => return Err(MilterError::Closed),
            }
        }
    }
}
