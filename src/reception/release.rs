//! Messages let out of quarantine.

use std::sync::Arc;

use base::event;
use directory::{Account, Recipient};
use mail::Address;
use policy::VirusState;
use store::{AppendError, FlagChange, Flags, HeldId, HeldMessage, Role};
use trail::{Event, Kind, Outcome, Party};

use crate::intake::{Intake, UNAVAILABLE};
use crate::onward::Parcel;
use crate::story::Story;

/// What became of a message that was let out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Released {
    /// Where it is now: a mailbox, or the old server where the account's is.
    pub mailbox: String,
    pub subject: String,
    pub sender: String,
    pub author: String,
}

/// Why it stays where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReleased {
    #[error("the message is not in quarantine any more")]
    Gone,
    #[error("the message carries a virus: {0}")]
    Virus(Arc<str>),
    #[error("no virus scanner answers now, try again later")]
    Unscanned,
    #[error("the mailbox is full")]
    Full,
    #[error("the mail store does not answer now, try again later")]
    Unavailable,
}

/// What whoever lets a message out is told of, and may do.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    /// Whose word it is: an address, or what the command line is called.
    pub name: &'a str,
    /// A virus, or none who looks for one, is no reason to keep it.
    pub despite_virus: bool,
    /// It is the owner's word, or speaks for the owner: filters learn from it.
    pub teaches: bool,
}

impl Intake {
    /// Moves a held message to its owner. It is looked at for viruses once more, and for nothing else.
    pub async fn release(&self, id: HeldId, by: By<'_>) -> Result<Released, NotReleased> {
        let held = self.parts.storage.held.held_message(id).await;
        let held = held.map_err(|_| NotReleased::Unavailable)?.ok_or(NotReleased::Gone)?;
        if !by.despite_virus {
            let content = self.parts.storage.original(&held.entry).read(0..u64::MAX).await;
            match self.parts.filter.scan_now(&content.map_err(|_| NotReleased::Unavailable)?).await {
                VirusState::Found(name) => return Err(NotReleased::Virus(name)),
                VirusState::Unavailable => return Err(NotReleased::Unscanned),
                VirusState::NotScanned | VirusState::Clean | VirusState::Suspected(_) => {}
            }
        }
        let account = self.parts.directory.account(id.account).await.map_err(|_| NotReleased::Unavailable)?;
        let account = account.ok_or(NotReleased::Gone)?;
        let mailbox = match &account.legacy {
            _ if account.is_relayed => {
                self.release_onward(&held, &account).await?;
                account.address.domain.to_string()
            }
            Some(server) => {
                let recipient = Recipient {
                    account: id.account,
                    address: account.address.clone(),
                    detail: None,
                    legacy: Some(server.clone()),
                    position: account.position,
                    forwards: Vec::new(),
                    keeps: true,
                };
                self.release_there(&held, &recipient).await?;
                server.clone()
            }
            None => self.release_here(&held, by).await?,
        };
        let facts = held.held.facts;
        let party = Party {
            address: account.address.to_string(),
            account: Some(id.account),
            is_recipient: true,
            // What its own server says of it is told when it has said it.
            outcome: (!account.is_relayed).then_some(Outcome::Delivered),
        };
        let released = Event::new(self.parts.clock.utc(), Kind::Released).message(held.held.message).party(party);
        self.parts.trail.record(released.field("by", by.name).field("mailbox", mailbox.as_str()));
        tracing::info!(event = "quarantine.released", queue_id = %held.held.message, account = id.account.0, by = by.name);
        Ok(Released { mailbox, subject: facts.subject, sender: facts.sender, author: facts.author })
    }

    async fn release_here(&self, held: &HeldMessage, by: By<'_>) -> Result<String, NotReleased> {
        let storage = &self.parts.storage;
        let committed = match storage.held.release_held(held.held.id, Role::Inbox).await {
            Ok(Some(committed)) => committed,
            Ok(None) => return Err(NotReleased::Gone),
            Err(AppendError::OverQuota(_)) => return Err(NotReleased::Full),
            Err(AppendError::NoMailbox) => return Err(NotReleased::Unavailable),
            Err(AppendError::Store(error)) => {
                tracing::error!(event = event::STORE_FAILED, what = "release", %error);
                return Err(NotReleased::Unavailable);
            }
        };
        let is_opinion = matches!(held.held.facts.reason.as_str(), "spam" | "newsletter" | "country");
        if by.teaches && is_opinion {
            let keywords = "$NotJunk".parse().into_iter().collect();
            let mark = FlagChange::Add(Flags { keywords, ..Flags::default() });
            let uids = vec![committed.uid()..=committed.uid()];
            // It is released, whether anybody learns from it or not.
            let _ = storage.mail.set_flags(committed.account(), committed.mailbox(), uids, mark, None).await;
        }
        Ok(committed.mailbox_name().as_str().to_owned())
    }

    /// First the queue, then our copy, for the same reason as below.
    async fn release_onward(&self, held: &HeldMessage, account: &Account) -> Result<(), NotReleased> {
        let storage = &self.parts.storage;
        let content = storage.original(&held.entry).read(0..u64::MAX).await.map_err(|_| NotReleased::Unavailable)?;
        let (message, facts) = (held.held.message, &held.held.facts);
        let written = facts.recipient.parse::<Address>().ok();
        let address = written.filter(|written| written.domain == account.address.domain);
        let parcel = Parcel {
            message,
            sender: &facts.sender,
            account: account.id,
            address: address.unwrap_or_else(|| account.address.clone()),
            content,
        };
        let story = Story { trail: &self.parts.trail, session: None, message, at: self.parts.clock.utc() };
        if let Err(error) = self.hand_on(parcel, &story).await {
            self.failed(&error, message);
            return Err(NotReleased::Unavailable);
        }
        storage.held.drop_held(vec![held.held.id]).await.map(drop).map_err(|_| NotReleased::Unavailable)
    }

    /// First the old server, then our copy: what is cut short between them comes twice rather than never.
    async fn release_there(&self, held: &HeldMessage, recipient: &Recipient) -> Result<(), NotReleased> {
        let storage = &self.parts.storage;
        let content = storage.original(&held.entry).read(0..u64::MAX).await.map_err(|_| NotReleased::Unavailable)?;
        let (message, sender) = (held.held.message, held.held.facts.sender.as_str());
        let status = self.deliver_there(message, sender, recipient, &content).await;
        if !status.is_success() {
            return Err(if status == UNAVAILABLE { NotReleased::Unavailable } else { NotReleased::Full });
        }
        storage.held.drop_held(vec![held.held.id]).await.map(drop).map_err(|_| NotReleased::Unavailable)
    }
}
