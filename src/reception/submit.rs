//! The flow as our own webmail and other JMAP clients see it.

use async_trait::async_trait;
use bytes::Bytes;
use directory::Account;
use filter::Source;
use jmap::Submitter;
use mail::{Enhanced, Envelope, Status};
use trail::Party;

use crate::intake::{Incoming, Intake, UNAVAILABLE, UNKNOWN};
use crate::received::Way;
use crate::story::Story;

const NOT_YOURS: Status = Status::fixed(553, Enhanced(5, 7, 1), "The sender address is not yours");

#[async_trait]
impl Submitter for Intake {
    async fn submit(&self, account: &Account, envelope: Envelope, message: Bytes) -> Vec<Status> {
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
        let at = parts.clock.utc();
        let id = parts.ids.message(at);
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
