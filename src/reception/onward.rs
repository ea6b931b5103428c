//! Mail for domains that have a server of their own: which addresses they have, and how their mail goes on.

use std::sync::Arc;

use base::{AccountId, MessageId, event};
use bytes::Bytes;
use directory::{Recipient, Resolution, Verify};
use filter::Judgement;
use mail::{Address, ForwardPath, Status};
use relay::{Onward, Posting, Said, Wish};
use store::{Needs, Notify, QueueItem, StoreError};

use crate::content;
use crate::intake::{Intake, TEXT_MAX, UNAVAILABLE, UNKNOWN, queued};
use crate::story::Story;

/// Something to hand on that is whole already.
pub(crate) struct Parcel<'a> {
    pub message: MessageId,
    /// The reverse-path without brackets; empty for the null one.
    pub sender: &'a str,
    pub account: AccountId,
    pub address: Address,
    pub content: Bytes,
}

const CANNOT_SAY: &str = "The mail server of this domain cannot say now whether it has this address, try again later";
/// Items that are put into the queue for one account lie beside those that the message itself has.
const VARIANT: u32 = 0x8000_0000;

impl Intake {
    /// The domain whose server has this recipient's mailbox.
    pub(crate) fn onward(&self, recipient: &Recipient) -> Option<Arc<Onward>> {
        self.parts.outgoing.onward(&recipient.address.domain)
    }

    /// Refuses an address that is in the directory and that its own server has no more.
    pub(crate) async fn verified(
        &self,
        path: &ForwardPath,
        recipients: Vec<Recipient>,
    ) -> Result<Vec<Recipient>, Status> {
        let ForwardPath::Address(address) = path else { return Ok(recipients) };
        let onward = self.parts.outgoing.onward(&address.domain);
        let Some(onward) = onward.filter(|onward| onward.verify == Verify::Ask) else { return Ok(recipients) };
        // Where an alias leads is the directory's matter.
        let local = address.local.as_str().to_lowercase();
        let local = local.split('+').next().unwrap_or_default();
        if !recipients.iter().any(|one| one.address.local.as_str().to_lowercase() == local) {
            return Ok(recipients);
        }
        match self.parts.call_ahead.ask(&onward, address).await {
            // Who is known goes on getting mail while the server is away.
            Said::Known | Said::Anything | Said::Away(_) => Ok(recipients),
            Said::Unknown => Err(UNKNOWN),
        }
    }

    /// Where an address leads that is not in the directory.
    pub(crate) async fn unlisted(&self, path: &ForwardPath) -> Result<Vec<Recipient>, Status> {
        let ForwardPath::Address(address) = path else { return Err(UNKNOWN) };
        let onward = self.parts.outgoing.onward(&address.domain);
        let Some(onward) = onward else { return Err(UNKNOWN) };
        match onward.verify {
            Verify::List => return Err(UNKNOWN),
            Verify::All => {}
            Verify::Ask => match self.parts.call_ahead.ask(&onward, address).await {
                Said::Known | Said::Anything => {}
                Said::Unknown => return Err(UNKNOWN),
                // What it said, or where it is, is nobody's business.
                Said::Away(status) => return Err(Status::with_text(status.code(), status.enhanced(), CANNOT_SAY)),
            },
        }
        match self.parts.directory.take_in(address).await {
            Ok(Resolution::Local(recipients)) => Ok(recipients),
            Ok(Resolution::UnknownAddress | Resolution::ForeignDomain) => Err(UNKNOWN),
            Err(error) => {
                tracing::error!(event = event::STORE_FAILED, what = "directory", %error);
                Err(UNAVAILABLE)
            }
        }
    }

    /// Puts what is whole into the queue, for the server of its recipient's domain. On a success it is on disk.
    pub(crate) async fn hand_on(&self, parcel: Parcel<'_>, story: &Story<'_>) -> Result<Status, StoreError> {
        let Parcel { message, sender, account, address, content } = parcel;
        let parts = &self.parts;
        let to = address.to_string();
        let needs = Needs { smtputf8: !to.is_ascii(), ..Needs::default() };
        let posting = Posting { sender, created_at: story.at, not_before: None, held: None, needs };
        let wish = Wish { notify: Notify::NEVER, original: None };
        let variant = VARIANT | u32::try_from(account.0 & u64::from(!VARIANT)).unwrap_or_default();
        let recipient = parts.outgoing.recipient(variant, &to, wish, &posting);
        let (lane, size_bytes) = (recipient.lane.clone(), content.len() as u64);
        let subject = content::header_text(&content, "Subject", TEXT_MAX);
        let blob = parts.storage.blobs.put(vec![content]).await?;
        let item = QueueItem {
            message,
            variant,
            blob: blob.id(),
            size_bytes,
            prefix: Bytes::new(),
            sender: sender.to_owned(),
            account: None,
            needs,
            envelope_id: None,
            subject,
            created_at: story.at,
        };
        let entry = store::Enqueued { item, recipients: vec![recipient], blob };
        parts.storage.queue.enqueue(vec![entry]).await?;
        story.queued(&address, Some(account), &lane, None);
        parts.outgoing.wake();
        Ok(queued(message))
    }
}

/// Under which its own server knows a recipient: with the detail that the sender wrote.
pub(crate) fn own_address(recipient: &Recipient) -> Address {
    let address = &recipient.address;
    let Some(detail) = &recipient.detail else { return address.clone() };
    let written = format!("{}+{detail}@{}", address.local.as_str(), address.domain);
    written.parse().unwrap_or_else(|_| address.clone())
}

/// Whether the reverse-path is surely its owner's: only then is somebody told by it of what could not be delivered, for the
/// message was judged good and has left the session in which it could be refused.
pub(crate) fn tells_sender(judgement: &Judgement) -> bool {
    let sender = &judgement.sender;
    let is_author = sender.is_author_proven && sender.author.is_some() && sender.author == sender.envelope;
    sender.is_envelope_proven || is_author
}
