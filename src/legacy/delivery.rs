//! Hands a message over to an old server, by LMTP (RFC 2033) or SMTP (RFC 5321).

use std::net::SocketAddr;
use std::time::Duration;

use base::event;
use bytes::Bytes;
use mail::reply::{Offers, stuff_dots};
use mail::{Address, Enhanced, ReversePath, Status};
use net::Announce;

use crate::gateway::{Failure, Gateway, Place};
use crate::smtp::{Behind, ask, hello, reply};
use crate::wire::Wire;

/// What the server takes mail by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    Lmtp,
    Smtp,
}

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Outgoing<'a> {
    pub reverse_path: &'a ReversePath,
    /// At least one.
    pub recipients: Vec<Address>,
    pub smtputf8: bool,
    /// CRLF line ends, not dot-stuffed.
    pub content: Bytes,
    /// Who brought it, with its greeting.
    pub client: Option<(SocketAddr, &'a str)>,
}

/// For the answer to a command.
const COMMAND_WAIT: Duration = Duration::from_secs(60);
/// For the answer to the whole message: shorter than the ten minutes that our client gives us (RFC 5321 §4.5.3.2.6).
const MESSAGE_WAIT: Duration = Duration::from_secs(300);
const STEP: usize = 256 * 1024;

const AWAY: Status =
    Status::fixed(451, Enhanced(4, 4, 1), "The server of this mailbox does not answer, try again later");
const NEEDS_UTF8: Status = Status::fixed(550, Enhanced(5, 6, 7), "The server of this mailbox does not take SMTPUTF8");

impl Gateway {
    /// One status for each recipient, in order. A success means that the server said so.
    pub async fn deliver(&self, transport: Transport, place: Place<'_>, message: Outgoing<'_>) -> Vec<Status> {
        let mut statuses = vec![None; message.recipients.len()];
        if let Err(failure) = self.transfer(transport, place, &message, &mut statuses).await {
            let server = place.endpoint;
            tracing::warn!(event = event::LEGACY_FAILED, %server, protocol = "delivery", error = %failure);
        }
        statuses.into_iter().map(|status| status.unwrap_or(AWAY)).collect()
    }

    /// Fills in what was answered for single recipients.
    async fn transfer(
        &self,
        transport: Transport,
        place: Place<'_>,
        message: &Outgoing<'_>,
        statuses: &mut [Option<Status>],
    ) -> Result<(), Failure> {
        let announce = message.client.map_or(Announce::Ourselves, |(client, _)| Announce::Client(client));
        let mut wire = self.dial(place, announce).await?;
        wire.patience = COMMAND_WAIT;
        let verb = if transport == Transport::Lmtp { "LHLO" } else { "EHLO" };
        let behind = message.client.map(|(address, helo)| Behind { address, helo });
        let offers = hello(&mut wire, verb, self.host_name(), behind).await?;
        let Some(parameters) = parameters(message, &offers) else {
            statuses.fill(Some(NEEDS_UTF8));
            wire.close("QUIT\r\n").await;
            return Ok(());
        };
        let answer = ask(&mut wire, &format!("MAIL FROM:<{}>{parameters}", message.reverse_path)).await?;
        if !answer.is_success() {
            statuses.fill(Some(answer.status()));
            wire.close("QUIT\r\n").await;
            return Ok(());
        }
        for (recipient, status) in message.recipients.iter().zip(statuses.iter_mut()) {
            let answer = ask(&mut wire, &format!("RCPT TO:<{recipient}>")).await?;
            if !answer.is_success() {
                *status = Some(answer.status());
            }
        }
        if statuses.iter().all(Option::is_some) {
            wire.close("QUIT\r\n").await;
            return Ok(());
        }
        let answer = ask(&mut wire, "DATA").await?;
        if answer.code != 354 {
            let refused = if answer.is_success() { AWAY } else { answer.status() };
            statuses.iter_mut().filter(|status| status.is_none()).for_each(|status| *status = Some(refused.clone()));
            wire.close("QUIT\r\n").await;
            return Ok(());
        }
        send(&mut wire, &message.content).await?;
        wire.patience = MESSAGE_WAIT;
        let mut last = None;
        for status in statuses.iter_mut().filter(|status| status.is_none()) {
            if last.is_none() || transport == Transport::Lmtp {
                last = Some(reply(&mut wire).await?.status());
            }
            status.clone_from(&last);
        }
        wire.close("QUIT\r\n").await;
        Ok(())
    }
}

/// What follows the reverse path; `None` if the server cannot take the addresses.
fn parameters(message: &Outgoing<'_>, offers: &Offers) -> Option<String> {
    let mut text = String::new();
    if offers.has("SIZE") {
        text.push_str(&format!(" SIZE={}", message.content.len()));
    }
    if offers.has("8BITMIME") && !message.content.is_ascii() {
        text.push_str(" BODY=8BITMIME");
    }
    let needs_utf8 = message.reverse_path.address().is_some_and(Address::needs_smtputf8)
        || message.recipients.iter().any(Address::needs_smtputf8);
    match (offers.has("SMTPUTF8"), message.smtputf8) {
        (true, true) => text.push_str(" SMTPUTF8"),
        (true, false) => {}
        (false, _) if needs_utf8 => return None,
        (false, _) => {}
    }
    Some(text)
}

/// RFC 5321 §4.5.2.
async fn send(wire: &mut Wire<'_>, content: &[u8]) -> Result<(), Failure> {
    let mut out = Vec::with_capacity(STEP + 1024);
    for line in content.split_inclusive(|octet| *octet == b'\n') {
        stuff_dots(line, &mut out);
        if out.len() >= STEP {
            wire.say(&out).await?;
            out.clear();
        }
    }
    if !content.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    wire.say(&out).await
}
