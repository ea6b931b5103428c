//! A notice to a sender, ready for the queue.

use base::{IdSource, MessageId, UtcMillis};
use bytes::Bytes;
use engine::EngineError;
use store::{BlobStore, Enqueued, Needs, Notify, QueueItem, QueueRecipient, QueueState, StoreError};
use trail::{Event, Kind, Trail};

use crate::bounce::{Action, Report, Told};
use crate::home::Home;
use crate::outgoing::Outgoing;
use crate::routes::LOCAL;

/// What notices are made with.
pub struct Notices<'a> {
    pub blobs: &'a dyn BlobStore,
    pub home: &'a dyn Home,
    pub outgoing: &'a Outgoing,
    pub trail: &'a Trail,
    pub ids: &'a IdSource,
    pub host_name: &'a str,
    /// Hears of notices that cannot be delivered.
    pub postmaster: Option<&'a str>,
    pub at: UtcMillis,
}

/// Notices go before other mail.
const NOTICE_PRIORITY: u8 = 3;
const SUBJECT_MAX: usize = 200;

impl Notices<'_> {
    /// A notice about `told` to the sender of `item`, whose message is `content`; its content is stored on return. `None`
    /// if nobody is to be told.
    ///
    /// # Errors
    /// The content cannot be stored, or the directory does not say whose the sender is.
    pub async fn notice(
        &self,
        action: Action,
        item: &QueueItem,
        told: &[Told],
        content: &[u8],
    ) -> Result<Option<Enqueued>, StoreError> {
        let mut item = item.clone();
        if item.sender.is_empty() {
            // A notice that cannot be delivered: the postmaster hears of it, but not of what fails on the way to him.
            let Some(postmaster) = self.postmaster else { return Ok(None) };
            let is_his = told.iter().any(|one| one.recipient.address.eq_ignore_ascii_case(postmaster));
            if action != Action::Failed || is_his {
                return Ok(None);
            }
            item.sender = postmaster.to_owned();
        }
        let (now, id) = (self.at, self.ids.message(self.at));
        let report = Report { action, item: &item, told, content, host_name: self.host_name, id, at: now };
        let letter = Letter {
            id,
            sender: "",
            recipient: &item.sender,
            signs: self.host_name,
            subject: &report.subject(),
            message: report.message(),
            priority: NOTICE_PRIORITY,
            smtputf8: item.needs.smtputf8,
        };
        let notice = self.letter(letter).await?;
        let about =
            Event::new(now, Kind::Started).message(id).field("from", "<>").field("about", item.message.to_string());
        self.trail.record(about);
        Ok(Some(notice))
    }

    /// Something that the system itself says, ready for the queue; its content is stored on return.
    ///
    /// # Errors
    /// The content cannot be stored, or the directory does not say whose the recipient is.
    pub async fn letter(&self, letter: Letter<'_>) -> Result<Enqueued, StoreError> {
        let Letter { id, sender, recipient, signs, subject, message, priority, smtputf8 } = letter;
        let now = self.at;
        let away = || StoreError::Unavailable(EngineError::Closing);
        let lane = match self.home.is_ours(recipient).await {
            Some(true) => LOCAL.into(),
            Some(false) => self.outgoing.lane(sender, recipient),
            // Asked again, the directory may be back.
            None => return Err(away()),
        };
        let signature = self.outgoing.keyring.sign(signs, &message).await.map_err(|_| away())?;
        let size_bytes = (message.len() + signature.len()) as u64;
        let blob = self.blobs.put(vec![message]).await?;
        let expires_at = self.outgoing.schedule.expires_at(now, "");
        let to = QueueRecipient {
            nth: 0,
            address: recipient.to_owned(),
            original: None,
            notify: Notify { success: false, failure: true, delay: false },
            lane,
            priority,
            state: QueueState::Waiting,
            next_at: now,
            alarm_at: expires_at,
            expires_at,
            attempts: 0,
            last_at: None,
            last_status: String::new(),
            last_host: String::new(),
        };
        let item = QueueItem {
            message: id,
            variant: 0,
            blob: blob.id(),
            size_bytes,
            prefix: Bytes::from(signature),
            sender: sender.to_owned(),
            account: None,
            needs: Needs { smtputf8: smtputf8 || !recipient.is_ascii(), ..Needs::default() },
            envelope_id: None,
            subject: subject.chars().take(SUBJECT_MAX).collect(),
            created_at: now,
        };
        Ok(Enqueued { item, blob, recipients: vec![to] })
    }
}

/// A message of the system's own.
#[derive(Clone, Debug)]
pub struct Letter<'a> {
    pub id: MessageId,
    /// The reverse-path, without brackets; empty for the null one.
    pub sender: &'a str,
    pub recipient: &'a str,
    /// The domain whose keys sign it.
    pub signs: &'a str,
    pub subject: &'a str,
    /// Complete, with CRLF.
    pub message: Bytes,
    /// Lower goes first.
    pub priority: u8,
    pub smtputf8: bool,
}
