//! How a session is led to another node: one line that says whose it is and where it stands, the octets that its client
//! has sent ahead, and the answer whether it is taken. Then the streams are one.
//!
//! ```text
//! {"protocol":"imap","account":12,"rights":7,"session":"…","client":"192.0.2.1:4711","tls":true,"tag":"a1","ahead":17}\n
//! <17 octets>
//! taken\n
//! ```
//! Fields that a release does not know are passed over; a protocol that it does not know is not taken.

use std::net::SocketAddr;

use base::{AccountId, SessionId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// A session whose client has signed in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Handoff {
    /// `imap`, `pop3`.
    pub protocol: String,
    pub account: AccountId,
    /// What the client signed in with, as the directory names it: the session ends with it. `None` from an older node.
    pub rights: Option<u64>,
    pub session: SessionId,
    pub client: SocketAddr,
    /// The client's connection is encrypted.
    pub is_tls: bool,
    /// Of the command that is to be answered, where the protocol has tags.
    pub tag: String,
    /// What the client sent after it.
    pub ahead: Bytes,
}

#[derive(Serialize, Deserialize)]
struct Line {
    protocol: String,
    account: u64,
    #[serde(default)]
    rights: Option<u64>,
    session: String,
    client: SocketAddr,
    tls: bool,
    #[serde(default)]
    tag: String,
    #[serde(default)]
    ahead: usize,
}

/// A line longer than this is none of ours.
const LINE_MAX: usize = 4096;
/// More is not sent ahead: a client waits for an answer at some time.
pub const AHEAD_MAX: usize = 1 << 20;
const TAKEN: &[u8] = b"taken\n";

impl Handoff {
    /// Tells the other node; true if it takes the session.
    pub async fn send(&self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> std::io::Result<bool> {
        let line = Line {
            protocol: self.protocol.clone(),
            account: self.account.0,
            rights: self.rights,
            session: self.session.to_string(),
            client: self.client,
            tls: self.is_tls,
            tag: self.tag.clone(),
            ahead: self.ahead.len(),
        };
        let mut told = serde_json::to_vec(&line)?;
        if told.len() >= LINE_MAX || self.ahead.len() > AHEAD_MAX {
            return Ok(false);
        }
        told.push(b'\n');
        told.extend_from_slice(&self.ahead);
        stream.write_all(&told).await?;
        stream.flush().await?;
        let mut answer = [0; TAKEN.len()];
        stream.read_exact(&mut answer).await?;
        Ok(answer == TAKEN)
    }

    /// What another node tells. Reads no octet of what comes after it.
    ///
    /// # Errors
    /// The stream ends, or says something else.
    pub async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Self> {
        let strange = |what: &'static str| std::io::Error::new(std::io::ErrorKind::InvalidData, what);
        let mut line = Vec::new();
        loop {
            match stream.read_u8().await? {
                b'\n' => break,
                _ if line.len() >= LINE_MAX => return Err(strange("the line is too long")),
                octet => line.push(octet),
            }
        }
        let line: Line = serde_json::from_slice(&line)?;
        if line.ahead > AHEAD_MAX {
            return Err(strange("too much was sent ahead"));
        }
        let mut ahead = vec![0; line.ahead];
        stream.read_exact(&mut ahead).await?;
        Ok(Self {
            protocol: line.protocol,
            account: AccountId(line.account),
            rights: line.rights,
            session: line.session.parse().map_err(|_| strange("the session has no id"))?,
            client: line.client,
            is_tls: line.tls,
            tag: line.tag,
            ahead: ahead.into(),
        })
    }

    /// Says that the session is taken. Not said, it stays where it came from.
    pub async fn take(stream: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        stream.write_all(TAKEN).await?;
        stream.flush().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handoff() -> Handoff {
        Handoff {
            protocol: "imap".to_owned(),
            account: AccountId(12),
            rights: Some(u64::MAX),
            session: SessionId::from_u128(7),
            client: "[2001:db8::1]:4711".parse().unwrap(),
            is_tls: true,
            tag: "a\u{e9}\"1".to_owned(),
            ahead: Bytes::from_static(b"a2 SELECT INBOX\r\n"),
        }
    }

    #[tokio::test]
    async fn what_is_sent_is_received_and_no_more() {
        let (mut here, mut there) = tokio::io::duplex(64);
        let sender = async {
            assert!(handoff().send(&mut here).await.unwrap());
            here.write_all(b"the rest").await.unwrap();
            drop(here);
        };
        let receiver = async {
            assert_eq!(Handoff::receive(&mut there).await.unwrap(), handoff());
            Handoff::take(&mut there).await.unwrap();
            let mut rest = String::new();
            there.read_to_string(&mut rest).await.unwrap();
            assert_eq!(rest, "the rest");
        };
        tokio::join!(sender, receiver);
        // A node that goes away without an answer has taken nothing.
        let (mut here, there) = tokio::io::duplex(4096);
        let gone = async {
            let mut there = there;
            Handoff::receive(&mut there).await.unwrap();
        };
        let handoff = handoff();
        let (sent, ()) = tokio::join!(handoff.send(&mut here), gone);
        assert!(sent.is_err());
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_bounded_and_refused() {
        let session = SessionId::from_u128(7);
        let fields = |rest: &str| {
            format!("{{\"protocol\":\"x\",\"account\":1,\"client\":\"127.0.0.1:1\",\"tls\":false{rest}}}\n")
        };
        for text in [
            String::new(),
            "\n".to_owned(),
            "x".repeat(3 * LINE_MAX),
            fields(""),
            fields(",\"session\":\"!\""),
            fields(&format!(",\"session\":\"{session}\",\"ahead\":99999999999")),
            fields(&format!(",\"session\":\"{session}\",\"ahead\":5")),
        ] {
            assert!(Handoff::receive(&mut text.as_bytes()).await.is_err(), "{text}");
        }
        // A newer release's line.
        let line = fields(&format!(",\"session\":\"{session}\",\"since\":[1,{{}}]"));
        let received = Handoff::receive(&mut line.as_bytes()).await.unwrap();
        assert_eq!((received.protocol.as_str(), received.rights), ("x", None));
    }
}
