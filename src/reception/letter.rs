//! What the system itself writes to people, here or elsewhere.

use base::{MessageId, UtcMillis};
use bytes::Bytes;
use mail::Address;
use mail_builder::MessageBuilder;
use mail_builder::headers::raw::Raw;
use relay::Notices;
use store::StoreError;

use crate::intake::Intake;

/// A letter of the system's.
#[derive(Clone, Debug)]
pub struct Letter {
    pub to: Address,
    /// One of ours: whose postmaster it comes from, and whose keys sign it.
    pub from_domain: String,
    pub subject: String,
    /// Lines end with LF.
    pub text: String,
    /// The same for those who rather see it so.
    pub html: Option<String>,
}

/// Notices go before other mail.
const PRIORITY: u8 = 4;

impl Letter {
    fn message(&self, id: MessageId, host_name: &str, at: UtcMillis) -> Bytes {
        let from = format!("postmaster@{}", self.from_domain);
        let mut builder = MessageBuilder::new()
            .from(("Postmaster", from.as_str()))
            .to(self.to.to_string())
            .subject(self.subject.as_str())
            .date(at.as_secs())
            .message_id(format!("{id}@{host_name}"))
            .header("Auto-Submitted", Raw::new("auto-generated"))
            .header("X-Auto-Response-Suppress", Raw::new("All"))
            .text_body(self.text.as_str());
        if let Some(html) = &self.html {
            builder = builder.html_body(html.as_str());
        }
        builder.write_to_vec().expect("memory takes what is written").into()
    }
}

impl Intake {
    /// What makes letters of the system's, and notices.
    pub(crate) fn notices(&self, at: UtcMillis) -> Notices<'_> {
        let parts = &self.parts;
        Notices {
            blobs: &*parts.storage.blobs,
            home: self,
            outgoing: &parts.outgoing,
            trail: &parts.trail,
            ids: &parts.ids,
            host_name: &parts.host_name,
            postmaster: None,
            at,
        }
    }

    /// Puts a letter into the queue, for a mailbox here or elsewhere. On return it is on disk.
    pub async fn send(&self, letter: Letter) -> Result<(), StoreError> {
        let parts = &self.parts;
        let at = parts.clock.utc();
        let id = parts.ids.message(at);
        let made = relay::Letter {
            id,
            sender: "",
            recipient: &letter.to.to_string(),
            signs: &letter.from_domain,
            subject: &letter.subject,
            message: letter.message(id, &parts.host_name, at),
            priority: PRIORITY,
            smtputf8: false,
        };
        let enqueued = self.notices(at).letter(made).await?;
        parts.storage.queue.enqueue(vec![enqueued]).await?;
        parts.outgoing.wake();
        Ok(())
    }
}
