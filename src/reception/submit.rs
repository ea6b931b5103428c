//! The flow as our own webmail and other JMAP clients see it.

use std::time::Duration;

use async_trait::async_trait;
use base::{AccountId, MessageId, UtcMillis};
use bytes::Bytes;
use directory::Account;
use filter::Source;
use jmap::{Submitted, Submitter};
use mail::{Enhanced, Envelope, Status};
use store::{QueueAction, QueueFilter, QueueJob, QueueState, StoreError};
use trail::Party;

use crate::intake::{Incoming, Intake, UNAVAILABLE, UNKNOWN};
use crate::received::Way;
use crate::story::Story;

const NOT_YOURS: Status = Status::fixed(553, Enhanced(5, 7, 1), "The sender address is not yours");

#[async_trait]
impl Submitter for Intake {
    async fn submit(&self, account: &Account, envelope: Envelope, message: Bytes) -> Submitted {
        let at = self.parts.clock.utc();
        let id = self.parts.ids.message(at);
        Submitted { message: id, statuses: self.submit_as(id, at, account, envelope, message).await }
    }

    async fn pending(&self, account: AccountId, message: MessageId) -> Result<Option<UtcMillis>, StoreError> {
        let jobs = self.of_sender(account, message).await?;
        let now = self.parts.clock.utc();
        let is_whole = jobs.iter().all(|job| {
            let one = &job.recipient;
            one.state == QueueState::Waiting && one.attempts == 0 && one.next_at > now.plus(UNDO_MARGIN)
        });
        Ok(jobs.iter().map(|job| job.recipient.next_at).min().filter(|_| is_whole))
    }

    async fn cancel(&self, account: AccountId, message: MessageId) -> Result<bool, StoreError> {
        if self.pending(account, message).await?.is_none() {
            return Ok(false);
        }
        let (filter, mut after) = (of_sender(account, message), None);
        loop {
            let done = self.parts.storage.queue.queue_act(&filter, QueueAction::Delete, after).await;
            match done? {
                (_, Some(next)) => after = Some(next),
                (_, None) => break,
            }
        }
        let at = self.parts.clock.utc();
        Story { trail: &self.parts.trail, session: None, message, at }.abandoned(&TAKEN_BACK);
        Ok(true)
    }
}

/// Nobody has begun with a copy that leaves later than this from now.
const UNDO_MARGIN: Duration = Duration::from_millis(500);
const TAKEN_BACK: Status = Status::fixed(250, Enhanced(2, 0, 0), "Taken back by its sender");

fn of_sender(account: AccountId, message: MessageId) -> QueueFilter {
    QueueFilter { account: Some(account), message: Some(message), ..QueueFilter::default() }
}

/// More than a message has.
const JOBS_MAX: usize = 10_000;

impl Intake {
    async fn of_sender(&self, account: AccountId, message: MessageId) -> Result<Vec<QueueJob>, StoreError> {
        self.parts.storage.queue.queued(&of_sender(account, message), None, JOBS_MAX).await
    }

    async fn submit_as(
        &self,
        id: MessageId,
        at: UtcMillis,
        account: &Account,
        envelope: Envelope,
        message: Bytes,
    ) -> Vec<Status> {
        let parts = &self.parts;
        let count = envelope.forward_paths.len();
        if let Some(address) = envelope.reverse_path.address() {
            match parts.directory.sender_addresses(account.id).await {
                Ok(own) if own.iter().any(|own| own.to_folded() == address.to_folded()) => {}
                Ok(_) => return vec![NOT_YOURS; count],
                Err(_) => return vec![UNAVAILABLE; count],
            }
        }
        // The caller's may be older than a lock.
        match parts.directory.account(account.id).await {
            Ok(Some(account)) if account.sending_lock.is_none() => {}
            Ok(_) => return vec![policy::outbound::LOCKED; count],
            Err(_) => return vec![UNAVAILABLE; count],
        }
        let story = Story { trail: &parts.trail, session: None, message: id, at };
        let address = account.address.to_string();
        let sender = Party { address: address.clone(), account: Some(account.id), is_recipient: false, outcome: None };
        story.started(&envelope.reverse_path, "", None, "", Some(sender));
        // Recipients that are refused do not keep the others from getting it.
        let mut statuses: Vec<Option<Status>> = Vec::with_capacity(count);
        let mut known = Vec::new();
        for path in &envelope.forward_paths {
            match self.resolve(path, true).await {
                Ok(_) => {
                    known.push(path.clone());
                    statuses.push(None);
                }
                Err(status) => {
                    if status == UNKNOWN {
                        self.named_nobody(account.id);
                    }
                    story.recipient_refused(path, &status);
                    statuses.push(Some(status));
                }
            }
        }
        let accepted = if known.is_empty() {
            Vec::new()
        } else {
            let incoming = Incoming {
                id,
                session: None,
                way: Way::Web,
                source: Source::Submitter { account: address, ip: None },
                submitter: Some(crate::intake::Submitter { account: account.id, ip: None }),
                envelope: Envelope { forward_paths: known, ..envelope },
                content: message,
                answers_each: true,
            };
            self.accept(incoming, None).await
        };
        let mut accepted = accepted.into_iter();
        statuses.into_iter().map(|status| status.or_else(|| accepted.next()).unwrap_or(UNAVAILABLE)).collect()
    }
}
