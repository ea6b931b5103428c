//! Mail for accounts that are still on an old server, handed over while its sender waits.

use std::net::SocketAddr;
use std::time::Duration;

use base::{MessageId, event};
use bytes::Bytes;
use directory::{DeliveryProtocol, Recipient};
use legacy::{Outgoing, Place, Transport};
use mail::{Address, Enhanced, ReversePath, Status};
use moka::sync::Cache;
use smtp::Protocol;
use trail::Outcome;

use crate::content;
use crate::intake::{Incoming, Intake, UNAVAILABLE, queued};
use crate::received::Way;
use crate::story::Story;

/// One account's copy.
pub(crate) struct Handover<'a> {
    /// Index of the recipient of the envelope.
    pub at: usize,
    pub recipient: &'a Recipient,
    /// Name of the legacy server.
    pub server: &'a str,
    /// Header fields that this recipient has.
    pub spam: String,
    /// For the subject.
    pub tag: Option<std::sync::Arc<str>>,
    pub is_junk: bool,
}

/// What accounts on one old server get.
pub(crate) struct Batch<'a> {
    /// Name of the legacy server.
    pub server: &'a str,
    pub reverse_path: &'a ReversePath,
    /// At least one.
    pub recipients: Vec<Address>,
    pub smtputf8: bool,
    pub content: Bytes,
    /// Whom the server is told of, and as what it greeted.
    pub client: Option<(SocketAddr, &'a str)>,
}

/// Who has a message although its sender was told to come again, because somebody else could not have it. It comes again
/// for days; they must not get it each time.
pub(crate) struct Handed(Cache<[u8; 32], ()>);

impl Default for Handed {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(HANDED_MAX).time_to_live(HANDED_FOR).build())
    }
}

const HANDED_MAX: u64 = 100_000;
/// Senders try for so long (RFC 5321 §4.5.4.1).
const HANDED_FOR: Duration = Duration::from_secs(5 * 86_400);

const NOWHERE: Status =
    Status::fixed(451, Enhanced(4, 3, 5), "The server of this mailbox takes no mail from here, try again later");

impl Intake {
    /// Hands all copies over; gives what became of each, in order.
    pub(crate) async fn hand_over(
        &self,
        incoming: &Incoming<'_>,
        handovers: &[Handover<'_>],
        whole: &Bytes,
        story: &Story<'_>,
    ) -> Vec<Status> {
        let mut done: Vec<Option<Status>> = vec![None; handovers.len()];
        let mut left: Vec<(&Handover<'_>, &mut Option<Status>)> = Vec::new();
        for (handover, slot) in handovers.iter().zip(&mut done) {
            if !incoming.answers_each && self.handed.0.contains_key(&key(incoming, handover)) {
                *slot = Some(queued(incoming.id));
            } else {
                left.push((handover, slot));
            }
        }
        // Those who get the same octets on the same server get them at once.
        while let Some((first, _)) = left.first() {
            let key = (first.server, first.spam.clone(), first.tag.clone());
            let is_alike = |other: &Handover<'_>| (other.server, &other.spam, &other.tag) == (key.0, &key.1, &key.2);
            let (alike, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|(other, _)| is_alike(other));
            left = others;
            let copies: Vec<_> = alike.iter().map(|(handover, _)| *handover).collect();
            let statuses = self.hand_over_alike(incoming, &copies, whole).await;
            for ((handover, slot), status) in alike.into_iter().zip(statuses) {
                *slot = Some(self.told(incoming, handover, status, story));
            }
        }
        done.into_iter().map(|status| status.unwrap_or(UNAVAILABLE)).collect()
    }

    async fn hand_over_alike(&self, incoming: &Incoming<'_>, alike: &[&Handover<'_>], whole: &Bytes) -> Vec<Status> {
        let Some(first) = alike.first() else { return Vec::new() };
        let tagged = first.tag.as_deref().map(|tag| content::with_subject_tag(whole, tag));
        let content = tagged.as_ref().unwrap_or(whole);
        let client = match &incoming.way {
            // A submitter's address is nobody's business but ours, and a relay's says nothing.
            Way::Session(facts) if facts.protocol == Protocol::Smtp && facts.identity.is_none() => {
                Some((facts.client, facts.helo.as_str()))
            }
            Way::Session(_) | Way::Web => None,
        };
        let batch = Batch {
            server: first.server,
            reverse_path: &incoming.envelope.reverse_path,
            recipients: alike.iter().map(|handover| handover.recipient.address.clone()).collect(),
            smtputf8: incoming.envelope.smtputf8,
            content: Bytes::from([first.spam.as_bytes(), content].concat()),
            client,
        };
        self.deliver_batch(incoming.id, batch).await
    }

    /// One status for each recipient.
    pub(crate) async fn deliver_batch(&self, id: MessageId, batch: Batch<'_>) -> Vec<Status> {
        let Batch { server, reverse_path, recipients, smtputf8, content, client } = batch;
        let count = recipients.len();
        let server = match self.parts.directory.legacy(server).await {
            Ok(Some(server)) => server,
            // Gone since the recipient was looked up.
            Ok(None) => return vec![UNAVAILABLE; count],
            Err(error) => {
                tracing::error!(event = event::STORE_FAILED, what = "directory", %error);
                return vec![UNAVAILABLE; count];
            }
        };
        let Some(to) = &server.delivery else {
            tracing::error!(event = event::LEGACY_FAILED, queue_id = %id, server = server.name, error = "no address for mail");
            return vec![NOWHERE; count];
        };
        let transport = match to.protocol {
            DeliveryProtocol::Lmtp => Transport::Lmtp,
            DeliveryProtocol::Smtp => Transport::Smtp,
        };
        let message = Outgoing { reverse_path, recipients, smtputf8, content, client };
        let place = Place { endpoint: &to.endpoint, trust: &server.trust, proxy_protocol: server.proxy_protocol };
        self.parts.legacy.deliver(transport, place, message).await
    }

    /// Writes down what the server said; gives what we answer.
    fn told(&self, incoming: &Incoming<'_>, handover: &Handover<'_>, status: Status, story: &Story<'_>) -> Status {
        let Handover { recipient, server, .. } = handover;
        if !status.is_success() {
            let event = if status.is_transient() { event::MESSAGE_DEFERRED } else { event::MESSAGE_REFUSED };
            tracing::info!(event, queue_id = %incoming.id, account = recipient.account.0, legacy = server, %status);
            story.turned_away(recipient, &status);
            return status;
        }
        let outcome = if handover.is_junk { Outcome::Junk } else { Outcome::Delivered };
        story.handed_over(recipient, outcome, server, &status);
        metrics::counter!("ortler_messages_delivered_total", "outcome" => outcome.as_str()).increment(1);
        let (id, account) = (incoming.id, recipient.account.0);
        tracing::info!(event = event::MESSAGE_ACCEPTED, queue_id = %id, account, legacy = server);
        queued(id)
    }

    /// The sender is told to come again: notes who has the message.
    pub(crate) fn remember_handed(&self, incoming: &Incoming<'_>, handovers: &[Handover<'_>], handed: &[Status]) {
        for (handover, _) in handovers.iter().zip(handed).filter(|(_, status)| status.is_success()) {
            self.handed.0.insert(key(incoming, handover), ());
        }
    }
}

/// The message, as it came, for this account.
fn key(incoming: &Incoming<'_>, handover: &Handover<'_>) -> [u8; 32] {
    let mut digest = blake3::Hasher::new();
    digest.update(&handover.recipient.account.0.to_le_bytes());
    digest.update(incoming.envelope.reverse_path.to_string().as_bytes()).update(&[0]).update(&incoming.content);
    *digest.finalize().as_bytes()
}
