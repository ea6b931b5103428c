//! What came of attempts, written down in one step with the notices that follow from it.

use std::collections::BTreeMap;

use base::event;
use bytes::Bytes;
use mail::Status;
use net::TlsFacts;
use store::{Enqueued, LaneClaim, QueueItem, QueueJob, QueueRecipient, Settled, StoreError};
use trail::{Event, Kind, Party};

use crate::bounce::{Action, Told};
use crate::notice::Notices;
use crate::routes::LOCAL;
use crate::worker::Relay;

/// What came of one recipient.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub job: QueueJob,
    pub conclusion: Conclusion,
    /// The server, if one answered.
    pub host: String,
    pub tls: Option<TlsFacts>,
}

#[derive(Clone, Debug)]
pub(crate) enum Conclusion {
    /// `tells`: the server confirms deliveries where that was asked. `is_final`: it is in a mailbox now.
    Delivered {
        status: Status,
        tells: bool,
        is_final: bool,
    },
    Deferred(Status),
    Failed(Status),
    /// Nothing was tried; its sender is told that it takes long.
    Late(Status),
}

/// Recipients of an item of whom the same is told.
struct Group<'a> {
    action: Action,
    item: &'a QueueItem,
    told: Vec<Told>,
}

impl Relay {
    /// Writes outcomes of a lane down; false if it is another's: then nothing was written.
    pub(crate) async fn conclude(&self, claim: &LaneClaim, outcomes: &[Outcome]) -> Result<bool, StoreError> {
        let now = self.parts.clock.utc();
        let mut settled = Vec::with_capacity(outcomes.len());
        let mut changed: Vec<QueueRecipient> = Vec::with_capacity(outcomes.len());
        for Outcome { job, conclusion, host, .. } in outcomes {
            let (item, recipient) = (&job.item, &job.recipient);
            let done = Settled::Done { message: item.message, nth: recipient.nth };
            let tried = QueueRecipient {
                attempts: recipient.attempts.saturating_add(1),
                last_at: Some(now),
                ..recipient.clone()
            };
            let (settle, is) = match conclusion {
                Conclusion::Delivered { .. } => (done, tried),
                Conclusion::Failed(_) if host.is_empty() => (done, recipient.clone()),
                Conclusion::Failed(_) => (done, tried),
                Conclusion::Deferred(status) => {
                    let mut next = self.parts.outgoing.schedule.deferred(item, recipient, now);
                    (next.last_status, next.last_host) = (status.to_string(), host.clone());
                    (Settled::Kept { message: item.message, recipient: next.clone() }, next)
                }
                Conclusion::Late(_) => {
                    let told = QueueRecipient { alarm_at: recipient.expires_at, ..recipient.clone() };
                    (Settled::Kept { message: item.message, recipient: told.clone() }, told)
                }
            };
            settled.push(settle);
            changed.push(is);
        }
        let notices = self.notices(outcomes, &changed).await?;
        let is_told = !notices.is_empty();
        if !self.parts.storage.queue.settle(claim, settled, notices).await? {
            return Ok(false);
        }
        if is_told {
            self.parts.outgoing.wake();
        }
        for (outcome, is) in outcomes.iter().zip(&changed) {
            self.record(outcome, is);
        }
        Ok(true)
    }

    /// What senders are told, put where the queue finds it.
    async fn notices(&self, outcomes: &[Outcome], changed: &[QueueRecipient]) -> Result<Vec<Enqueued>, StoreError> {
        let mut groups: BTreeMap<_, Group<'_>> = BTreeMap::new();
        for (outcome, is) in outcomes.iter().zip(changed) {
            let Outcome { job, conclusion, host, .. } = outcome;
            let notify = job.recipient.notify;
            let (action, status) = match conclusion {
                Conclusion::Failed(status) if notify.failure => (Action::Failed, status),
                Conclusion::Late(status) if notify.delay => (Action::Delayed, status),
                Conclusion::Delivered { status, is_final: true, .. } if notify.success => (Action::Delivered, status),
                Conclusion::Delivered { status, tells: false, .. } if notify.success => (Action::Relayed, status),
                _ => continue,
            };
            let key = (job.item.message, job.item.variant, action as u8);
            let told = Told { recipient: is.clone(), status: status.clone(), host: host.clone() };
            let new = || Group { action, item: &job.item, told: Vec::new() };
            groups.entry(key).or_insert_with(new).told.push(told);
        }
        let mut out = Vec::new();
        for Group { action, item, told } in groups.into_values() {
            let content: Bytes = match self.content(item).await {
                Ok(pieces) => pieces.concat().into(),
                Err(StoreError::Damaged { .. }) => Bytes::new(),
                Err(error) => return Err(error),
            };
            out.extend(self.notices_of().notice(action, item, &told, &content).await?);
        }
        Ok(out)
    }

    fn notices_of(&self) -> Notices<'_> {
        Notices {
            blobs: &*self.parts.storage.blobs,
            home: &*self.parts.home,
            outgoing: &self.parts.outgoing,
            trail: &self.parts.trail,
            ids: &self.parts.ids,
            host_name: &self.settings.host_name,
            postmaster: self.settings.postmaster.as_deref(),
            at: self.parts.clock.utc(),
        }
    }

    fn record(&self, outcome: &Outcome, is: &QueueRecipient) {
        let Outcome { job, conclusion, host, tls } = outcome;
        let (message, recipient) = (job.item.message, &job.recipient);
        let lane = &*recipient.lane;
        let (kind, ended, status, word) = match conclusion {
            Conclusion::Delivered { status, .. } => (Kind::Delivered, trail::Outcome::Delivered, status, "delivered"),
            Conclusion::Deferred(status) => (Kind::Deferred, trail::Outcome::Deferred, status, "deferred"),
            Conclusion::Failed(status) => (Kind::Bounced, trail::Outcome::Refused, status, "bounced"),
            Conclusion::Late(_) => return,
        };
        metrics::counter!("ortler_queue_attempts_total", "outcome" => word).increment(1);
        // A mailbox here has told of it already.
        if lane == LOCAL && kind == Kind::Delivered {
            return;
        }
        let party =
            Party { address: recipient.address.clone(), account: None, is_recipient: true, outcome: Some(ended) };
        let mut event = Event::new(self.parts.clock.utc(), kind).message(message).party(party);
        event = event.field("status", status.to_string()).field("host", host.as_str()).field("attempt", is.attempts);
        if let Some(tls) = tls {
            event = event.field("tls", format!("{} {}", tls.version, tls.cipher));
        }
        if kind == Kind::Deferred {
            event = event.field("next_at", is.next_at.0);
        }
        self.parts.trail.record(event);
        let (queue_id, nth) = (message, recipient.nth);
        match kind {
            Kind::Delivered => tracing::info!(event = event::MESSAGE_SENT, %queue_id, nth, host, %status),
            Kind::Bounced => tracing::info!(event = event::MESSAGE_BOUNCED, %queue_id, nth, host, %status),
            _ => tracing::info!(event = event::MESSAGE_DEFERRED, %queue_id, nth, host, %status, attempt = is.attempts),
        }
    }
}
