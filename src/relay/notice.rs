//! A notice to a sender, ready for the queue.

use base::{IdSource, UtcMillis};
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
        let (subject, message) = (report.subject(), report.message());
        let lane = match self.home.is_ours(&item.sender).await {
            Some(true) => LOCAL.into(),
            Some(false) => self.outgoing.routes.load().lane("", &item.sender),
            // Asked again, the directory may be back.
            None => return Err(StoreError::Unavailable(EngineError::Closing)),
        };
        let size_bytes = message.len() as u64;
        let blob = self.blobs.put(vec![message]).await?;
        let expires_at = self.outgoing.schedule.expires_at(now, "");
        let recipient = QueueRecipient {
            nth: 0,
            address: item.sender.clone(),
            original: None,
            notify: Notify { success: false, failure: true, delay: false },
            lane,
            priority: NOTICE_PRIORITY,
            state: QueueState::Waiting,
            next_at: now,
            alarm_at: expires_at,
            expires_at,
            attempts: 0,
            last_at: None,
            last_status: String::new(),
            last_host: String::new(),
        };
        let notice = QueueItem {
            message: id,
            variant: 0,
            blob: blob.id(),
            size_bytes,
            prefix: Bytes::new(),
            sender: String::new(),
            account: None,
            needs: Needs { smtputf8: item.needs.smtputf8 || !item.sender.is_ascii(), ..Needs::default() },
            envelope_id: None,
            subject: subject.chars().take(SUBJECT_MAX).collect(),
            created_at: now,
        };
        let about =
            Event::new(now, Kind::Started).message(id).field("from", "<>").field("about", item.message.to_string());
        self.trail.record(about);
        Ok(Some(Enqueued { item: notice, blob, recipients: vec![recipient] }))
    }
}
