//! Two connections as one.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Carries what each side says to the other until the server ends, or one of them breaks. A client that ends is told to
/// the server, whose last words still arrive. Holds no buffer while both are silent, and one of a few kilobytes for a
/// side that takes slowly. Dropping it loses what is under way.
pub async fn splice(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    server: &mut (impl AsyncRead + AsyncWrite + Unpin),
) {
    splice_after(BytesMut::new(), client, server).await;
}

/// [`splice`], where the client has said `ahead` already and the server has not heard it.
pub async fn splice_after(
    ahead: BytesMut,
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    server: &mut (impl AsyncRead + AsyncWrite + Unpin),
) {
    let (mut asked, mut answered) = (Way { pending: ahead, ..Way::default() }, Way::default());
    poll_fn(|cx| {
        if let Poll::Ready(Err(_)) = asked.poll(cx, client, server) {
            return Poll::Ready(());
        }
        answered.poll(cx, server, client).map(|_| ())
    })
    .await;
}

/// One direction.
#[derive(Default)]
struct Way {
    pending: BytesMut,
    needs_flush: bool,
    has_ended: bool,
    is_shut: bool,
}

const STEP: usize = 16 * 1024;

impl Way {
    /// Ready when `from` has ended and `to` knows it.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        loop {
            while !self.pending.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.pending))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.pending.advance(written);
                self.needs_flush = true;
            }
            if self.pending.capacity() > 0 {
                self.pending = BytesMut::new();
            }
            if self.has_ended {
                if !self.is_shut {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.is_shut = true;
                }
                return Poll::Ready(Ok(()));
            }
            // On the stack of one poll, not in the waiting future.
            let mut chunk = [MaybeUninit::<u8>::uninit(); STEP];
            let mut buffer = ReadBuf::uninit(&mut chunk);
            match Pin::new(&mut *from).poll_read(cx, &mut buffer)? {
                Poll::Ready(()) if buffer.filled().is_empty() => self.has_ended = true,
                Poll::Ready(()) => self.pending.extend_from_slice(buffer.filled()),
                Poll::Pending => {
                    if self.needs_flush {
                        ready!(Pin::new(&mut *to).poll_flush(cx))?;
                        self.needs_flush = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn all_is_carried_both_ways_and_last_words_arrive() {
        let ((mut client, mut client_end), (mut server_end, mut server)) = (duplex(100), duplex(37));
        let question: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        let asked = async {
            let (mut reader, mut writer) = tokio::io::split(&mut client);
            let mut answer = Vec::new();
            let write = async {
                writer.write_all(&question).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let (read, ()) = tokio::join!(reader.read_to_end(&mut answer), write);
            read.unwrap();
            answer
        };
        let answered = async {
            let mut heard = Vec::new();
            server.read_to_end(&mut heard).await.unwrap();
            server.write_all(&heard).await.unwrap();
            server.write_all(b"goodbye").await.unwrap();
            drop(server);
        };
        let carried = async {
            splice(&mut client_end, &mut server_end).await;
            drop(client_end);
        };
        let (answer, (), ()) = tokio::join!(asked, answered, carried);
        assert!(answer == [&question[..], b"goodbye"].concat());
    }

    #[tokio::test]
    async fn what_was_said_ahead_comes_first() {
        let ((mut client, mut client_end), (mut server_end, mut server)) = (duplex(100), duplex(7));
        client.write_all(b"then this").await.unwrap();
        client.shutdown().await.unwrap();
        let heard = async {
            let mut heard = String::new();
            server.read_to_string(&mut heard).await.unwrap();
            drop(server);
            heard
        };
        let ahead = BytesMut::from(&b"first that, "[..]);
        let (heard, ()) = tokio::join!(heard, splice_after(ahead, &mut client_end, &mut server_end));
        assert_eq!(heard, "first that, then this");
    }

    #[tokio::test]
    async fn it_ends_with_the_server_though_the_client_stays() {
        let ((mut client, mut client_end), (mut server_end, mut server)) = (duplex(100), duplex(100));
        server.write_all(b"* BYE\r\n").await.unwrap();
        drop(server);
        splice(&mut client_end, &mut server_end).await;
        drop(client_end);
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "* BYE\r\n");
    }
}
