//! Our filter as a milter for another mail server.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base::Clock;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::answer::answers;
use super::proto::{Command, PacketReader, Response};
use super::session::{Output, Session};
use crate::pipeline::Filter;

/// Mail servers keep connections open between messages.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves one connection until the mail server quits. An error means that it broke off, kept silent for too long or
/// does not speak the protocol. Cancelled, the mail server does what it is told to do without a milter.
pub async fn serve<S>(
    mut stream: S,
    filter: Arc<Filter>,
    clock: Arc<dyn Clock>,
    message_bytes_max: usize,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut session = Session::new(message_bytes_max);
    let mut reader = PacketReader::default();
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        while let Some(packet) = reader.next_packet().map_err(io::Error::other)? {
            let command = Command::parse(&packet).map_err(io::Error::other)?;
            match session.on_command(clock.utc(), command).map_err(io::Error::other)? {
                Output::Nothing => {}
                Output::Reply(response) => send(&mut stream, &[response]).await?,
                Output::Judge(facts) => {
                    let judgement = filter.judge(&facts).await;
                    let leading_space = session.has_leading_space();
                    let policy = filter.policy();
                    let decision = policy::decide(&policy, &judgement.facts());
                    filter.remember(&judgement, std::slice::from_ref(&decision));
                    let out =
                        answers(&judgement, &decision, &policy, &facts.message, filter.host_name(), leading_space);
                    send(&mut stream, &out).await?;
                }
                Output::Close => return Ok(()),
            }
        }
        let length = timeout(IDLE_TIMEOUT, stream.read(&mut buffer)).await??;
        match buffer.get(..length) {
            Some(bytes) if !bytes.is_empty() => reader.feed(bytes),
            Some(_) | None => return Ok(()),
        }
    }
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, responses: &[Response]) -> io::Result<()> {
    let mut out = Vec::new();
    responses.iter().for_each(|response| response.to_packet().write(&mut out));
    timeout(WRITE_TIMEOUT, stream.write_all(&out)).await??;
    Ok(())
}
