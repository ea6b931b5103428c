//! Copies for recipients elsewhere, put into the queue.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use base::{AccountId, BlobId, MessageId, event};
use bytes::Bytes;
use directory::{Recipient, Resolution};
use mail::mime::Summary;
use mail::{
    Address, Enhanced, Envelope, ForwardPath, HoldWish, NotifyWish, RecipientWish, Returns, ReversePath, Status, Wishes,
};
use relay::{Action, Home, Posting, Told, Wish};
use store::{AppendError, Delivery, Enqueued, Flags, Needs, Notify, QueueItem, Role, Target};

use crate::content;
use crate::handover::Batch;
use crate::intake::{Incoming, Intake, UNAVAILABLE, UNKNOWN, Variants, queued, settle};
use crate::onward::{self, Parcel};
use crate::story::Story;

/// One recipient's copy.
pub(crate) struct Leaving {
    /// Index of the recipient of the envelope.
    pub at: usize,
    pub address: Address,
    /// Header fields that this recipient has.
    pub spam: String,
    /// For the subject.
    pub tag: Option<Arc<str>>,
    /// Why it waits until somebody releases it.
    pub held: Option<String>,
    /// The recipient is one of ours, whose mail waits by its sender's wish.
    pub is_here: bool,
    /// The reverse-path, if not the message's.
    pub sender: Option<Address>,
    /// Of ours, whose mailbox is on its domain's own server.
    pub account: Option<AccountId>,
    /// False: nobody is told if it cannot be delivered.
    pub tells_sender: bool,
}

impl Leaving {
    pub(crate) const fn new(at: usize, address: Address) -> Self {
        Self {
            at,
            address,
            spam: String::new(),
            tag: None,
            held: None,
            is_here: false,
            sender: None,
            account: None,
            tells_sender: true,
        }
    }
}

const SUBJECT_MAX: usize = 200;
const DELIVERED: Status = Status::fixed(250, Enhanced(2, 1, 5), "Delivered");
const OVER_QUOTA: Status = Status::fixed(452, Enhanced(4, 2, 2), "The mailbox is full");

impl Intake {
    /// Puts all copies into the queue, in one step; those that get the same octets share them. Where the protocol has one
    /// answer for all, nothing is queued while somebody else's copy has failed: it all comes again.
    pub(crate) async fn send_away(
        &self,
        incoming: &Incoming<'_>,
        leaving: &[Leaving],
        whole: &Bytes,
        variants: &mut Variants,
        statuses: &mut [Option<Status>],
        story: &Story<'_>,
    ) {
        if leaving.is_empty() {
            return;
        }
        if !incoming.answers_each && statuses.iter().flatten().any(|status| !status.is_success()) {
            leaving.iter().for_each(|one| settle(statuses, one.at, UNAVAILABLE));
            return;
        }
        let entries = match self.entries(incoming, leaving, whole, variants, story).await {
            Ok(entries) => entries,
            Err(status) => {
                leaving.iter().for_each(|one| settle(statuses, one.at, status.clone()));
                return;
            }
        };
        let lanes: BTreeMap<u32, store::Lane> =
            entries.iter().flat_map(|entry| entry.recipients.iter().map(|one| (one.nth, one.lane.clone()))).collect();
        let (status, is_queued) = match self.parts.storage.queue.enqueue(entries).await {
            Ok(()) => (queued(incoming.id), true),
            Err(error) => (self.failed(&error, incoming.id), false),
        };
        for (nth, one) in (0..).zip(leaving) {
            settle(statuses, one.at, status.clone());
            if is_queued {
                story.queued(&one.address, one.account, lanes.get(&nth).map_or("", |lane| lane), one.held.as_deref());
            } else {
                story.turned_away_elsewhere(&one.address, &status);
            }
        }
        if is_queued {
            tracing::info!(event = event::MESSAGE_QUEUED, queue_id = %incoming.id, recipients = leaving.len());
            metrics::counter!("ortler_queue_recipients_total").increment(leaving.len() as u64);
            self.parts.outgoing.wake();
        }
    }

    async fn entries(
        &self,
        incoming: &Incoming<'_>,
        leaving: &[Leaving],
        whole: &Bytes,
        variants: &mut Variants,
        story: &Story<'_>,
    ) -> Result<Vec<Enqueued>, Status> {
        let sender = incoming.envelope.reverse_path.address().map(ToString::to_string).unwrap_or_default();
        let subject = content::header_text(&incoming.content, "Subject", SUBJECT_MAX);
        let needs = needs(&incoming.envelope);
        let wishes = &incoming.envelope.wishes;
        let not_before = wishes.hold.map(|hold| match hold {
            HoldWish::For(span) => story.at.plus(span),
            HoldWish::Until(at) => at,
        });
        let mut groups: BTreeMap<_, Vec<(u32, &Leaving)>> = BTreeMap::new();
        for (nth, one) in (0..).zip(leaving) {
            let own_sender = one.sender.as_ref().map(ToString::to_string);
            groups
                .entry((one.tag.as_deref(), one.spam.as_str(), one.is_here, own_sender))
                .or_default()
                .push((nth, one));
        }
        let mut entries = Vec::with_capacity(groups.len());
        for (variant, ((tag, spam, is_here, own_sender), copies)) in (0..).zip(groups) {
            let sender = own_sender.unwrap_or_else(|| sender.clone());
            let stored = variants.get(&self.parts.storage, whole, tag).await;
            let (blob, _summary) = stored.map_err(|error| self.failed(&error, incoming.id))?;
            let signature = if is_here {
                String::new()
            } else {
                let content = tag.map_or_else(|| whole.clone(), |tag| content::with_subject_tag(whole, tag));
                self.signature(incoming, &content).await?
            };
            let prefix = format!("{signature}{spam}");
            let recipients = copies.into_iter().map(|(nth, one)| {
                let posting =
                    Posting { sender: &sender, created_at: story.at, not_before, held: one.held.as_deref(), needs };
                let mut wish = wishes.recipients.get(one.at).map(wish).unwrap_or_default();
                if !one.tells_sender {
                    wish.notify = Notify::NEVER;
                }
                let mut recipient = self.parts.outgoing.recipient(nth, &one.address.to_string(), wish, &posting);
                if one.is_here {
                    recipient.lane = relay::LOCAL.into();
                }
                recipient
            });
            let item = QueueItem {
                message: incoming.id,
                variant,
                blob: blob.id(),
                size_bytes: blob.size_bytes() + prefix.len() as u64,
                prefix: Bytes::from(prefix),
                sender: sender.clone(),
                account: incoming.submitter.as_ref().map(|submitter| submitter.account),
                needs,
                envelope_id: wishes.envelope_id.clone(),
                subject: subject.clone(),
                created_at: story.at,
            };
            entries.push(Enqueued { item, recipients: recipients.collect(), blob });
        }
        Ok(entries)
    }
}

fn needs(envelope: &Envelope) -> Needs {
    let Wishes { returns, requiretls, .. } = &envelope.wishes;
    Needs {
        smtputf8: envelope.smtputf8,
        requiretls: *requiretls,
        full_return: *returns == Some(Returns::Message),
        header_return: *returns == Some(Returns::Header),
    }
}

fn wish(of: &RecipientWish) -> Wish {
    let notify = of.notify.map_or_else(Notify::default, |NotifyWish { success, failure, delay }| Notify {
        success,
        failure,
        delay,
    });
    Wish { notify, original: of.original.clone() }
}

impl Intake {
    /// Tells the sender of what has come into mailboxes here, where that was asked for (RFC 3461 §4.1). The mail is
    /// delivered, whatever becomes of the notice.
    pub(crate) async fn confirm(&self, incoming: &Incoming<'_>, delivered: &[usize], whole: &Bytes, story: &Story<'_>) {
        let envelope = &incoming.envelope;
        let Some(sender) = envelope.reverse_path.address().map(ToString::to_string) else { return };
        let posting =
            Posting { sender: &sender, created_at: story.at, not_before: None, held: None, needs: needs(envelope) };
        let mut told = Vec::new();
        for at in delivered {
            let wish = envelope.wishes.recipients.get(*at).map(wish).unwrap_or_default();
            let Some(ForwardPath::Address(address)) = envelope.forward_paths.get(*at).filter(|_| wish.notify.success)
            else {
                continue;
            };
            let recipient = self.parts.outgoing.recipient(0, &address.to_string(), wish, &posting);
            told.push(Told { recipient, status: DELIVERED, host: String::new() });
        }
        let Some(first) = told.first() else { return };
        let item = QueueItem {
            message: incoming.id,
            variant: 0,
            blob: BlobId::from_u128(0),
            size_bytes: whole.len() as u64,
            prefix: Bytes::new(),
            sender: sender.clone(),
            account: None,
            needs: needs(envelope),
            envelope_id: envelope.wishes.envelope_id.clone(),
            subject: content::header_text(&incoming.content, "Subject", SUBJECT_MAX),
            created_at: first.recipient.next_at,
        };
        let queued = match self.notices(story.at).notice(Action::Delivered, &item, &told, whole).await {
            Ok(Some(notice)) => self.parts.storage.queue.enqueue(vec![notice]).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        match queued {
            Ok(()) => self.parts.outgoing.wake(),
            Err(error) => {
                tracing::error!(event = event::STORE_FAILED, queue_id = %incoming.id, what = "notice", %error);
            }
        }
    }
}

impl Intake {
    /// Hands what the system itself says to the old server where the recipient's mailbox is.
    pub(crate) async fn deliver_there(
        &self,
        id: MessageId,
        sender: &str,
        recipient: &Recipient,
        content: &Bytes,
    ) -> Status {
        let reverse_path = sender.parse().map_or(ReversePath::Null, ReversePath::Address);
        let batch = Batch {
            server: recipient.legacy.as_deref().unwrap_or_default(),
            reverse_path: &reverse_path,
            recipients: vec![recipient.address.clone()],
            smtputf8: !content.is_ascii() && !recipient.address.to_string().is_ascii(),
            content: content.clone(),
            client: None,
        };
        self.deliver_batch(id, batch).await.pop().unwrap_or(UNAVAILABLE)
    }
}

#[async_trait]
impl Home for Intake {
    async fn is_ours(&self, address: &str) -> Option<bool> {
        let Ok(address) = address.parse::<Address>() else { return Some(false) };
        if self.parts.outgoing.onward(&address.domain).is_some() {
            return Some(false);
        }
        match self.parts.directory.resolve(&ForwardPath::Address(address)).await {
            Ok(Resolution::Local(_) | Resolution::UnknownAddress) => Some(true),
            Ok(Resolution::ForeignDomain) => Some(false),
            Err(_) => None,
        }
    }

    async fn deliver(&self, message: MessageId, sender: &str, recipient: &str, content: Bytes) -> Status {
        let Ok(address) = recipient.parse() else { return UNKNOWN };
        let recipients = match self.parts.directory.resolve(&ForwardPath::Address(address)).await {
            Ok(Resolution::Local(recipients)) => recipients,
            Ok(Resolution::UnknownAddress | Resolution::ForeignDomain) => return UNKNOWN,
            Err(_) => return UNAVAILABLE,
        };
        let at = self.parts.clock.utc();
        let story = Story { trail: &self.parts.trail, session: None, message, at };
        let mut worst = Status::fixed(250, Enhanced(2, 0, 0), "Delivered");
        let (onward, near): (Vec<Recipient>, Vec<Recipient>) =
            recipients.into_iter().partition(|recipient| self.onward(recipient).is_some());
        for recipient in &onward {
            let (account, address) = (recipient.account, onward::own_address(recipient));
            let parcel = Parcel { message, sender, account, address, content: content.clone() };
            if let Err(error) = self.hand_on(parcel, &story).await {
                worst = self.failed(&error, message);
            }
        }
        let (there, here): (Vec<Recipient>, Vec<Recipient>) =
            near.into_iter().partition(|recipient| recipient.legacy.is_some());
        for recipient in &there {
            let status = self.deliver_there(message, sender, recipient, &content).await;
            if status.is_success() {
                let server = recipient.legacy.as_deref().unwrap_or_default();
                story.handed_over(recipient, trail::Outcome::Delivered, server, &status);
            } else {
                worst = status;
            }
        }
        if here.is_empty() {
            return worst;
        }
        let summary: Arc<[u8]> = Summary::of(&content).encode().into();
        let blob = match self.parts.storage.blobs.put(vec![content]).await {
            Ok(blob) => blob,
            Err(error) => return self.failed(&error, message),
        };
        let deliveries = here.iter().map(|recipient| Delivery {
            account: recipient.account,
            message,
            target: Target::Role(Role::Inbox),
            blob: blob.clone(),
            prefix: format!("Return-Path: <{sender}>\r\nDelivered-To: {}\r\n", recipient.address).into(),
            summary: Arc::clone(&summary),
            flags: Flags::default(),
            received_at: at,
        });
        let outcomes = self.parts.storage.mail.deliver(deliveries.collect()).await;
        for (recipient, outcome) in here.iter().zip(outcomes) {
            let status = match outcome {
                Ok(committed) => {
                    let (mailbox, uid) = (committed.mailbox_name().as_str(), committed.uid().as_raw());
                    story.delivered(recipient, trail::Outcome::Delivered, mailbox, uid);
                    continue;
                }
                Err(AppendError::OverQuota(_)) => OVER_QUOTA,
                Err(AppendError::Store(error)) => self.failed(&error, message),
                Err(AppendError::NoMailbox) => UNAVAILABLE,
            };
            worst = status;
        }
        worst
    }
}
