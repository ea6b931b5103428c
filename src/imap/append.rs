//! APPEND, also of several messages (RFC 3501 §6.3.11, RFC 3502, RFC 4315).

use std::sync::Arc;

use base::MailboxId;
use net::{Spool, SpoolError, Spooled};
use store::{AppendedEntry, NewEntry};

use crate::connection::Connection;
use crate::mime;
use crate::proto::frame::Refusal;
use crate::proto::{AppendHead, AppendOptions, Event, Ranges, Reply, write};
use crate::sync::Telling;
use crate::wire::Closed;

/// Messages of one APPEND. Each is stored when it is whole; they appear together.
const MESSAGES_MAX: usize = 256;

impl Connection {
    /// Takes and stores the messages as they come, then adds them to the mailbox.
    pub async fn append(&mut self, head: AppendHead, size: u64, wait: bool) -> Result<(), Closed> {
        let AppendHead { tag, mailbox, options } = head;
        let target = self.append_target(&mailbox).await;
        let (mailbox, mut room) = match target {
            Ok(mailbox) if size <= self.config.message_size_max.0 => (mailbox, self.config.message_size_max.0),
            Ok(_) => return self.refuse(tag, wait, Reply::no("TOOBIG", "Message is too large")),
            Err(reply) => return self.refuse(tag, wait, reply),
        };
        let mut entries: Vec<NewEntry> = Vec::new();
        let mut failure: Option<Reply> = None;
        let mut next = Some((options, size, wait));
        while let Some((options, size, wait)) = next.take() {
            if let Some(reply) = failure.take() {
                return self.refuse(tag, wait, reply);
            }
            if size > room || entries.len() >= MESSAGES_MAX {
                return self.refuse(tag, wait, Reply::no("TOOBIG", "Messages are too large together"));
            }
            room -= size;
            if wait {
                self.wire.out.extend_from_slice(b"+ OK\r\n");
            }
            let mut spool = Spool::new(Arc::clone(&self.services.spool));
            next = loop {
                match self.wire.event(self.config.autologout).await? {
                    Event::Chunk(chunk) => {
                        if failure.is_none()
                            && let Err(error) = spool.write(&chunk).await
                        {
                            let reply = self.unspooled(&error);
                            // The rest of it passes unseen.
                            if self.wire.framer.refuse_message(false, tag.clone(), Refusal::MessageTooLarge) {
                                self.refused = Some(reply);
                                return Ok(());
                            }
                            failure = Some(reply);
                        }
                    }
                    Event::AppendMore { options, size, wait } => break Some((options, size, wait)),
                    Event::AppendEnd => break None,
                    Event::Refused { why, .. } => return self.on_refused(Some(tag), why),
                    Event::Command(_) | Event::Line(_) | Event::Continue | Event::Append { .. } => {
                        debug_assert!(false, "a message ends in one of the above");
                    }
                }
            };
            if failure.is_none() {
                match self.store_message(options, spool.finish()).await {
                    Ok(entry) => entries.push(entry),
                    Err(reply) => failure = Some(reply),
                }
            }
        }
        let reply = match failure {
            Some(reply) => reply,
            None => self.add_messages(mailbox, entries).await.unwrap_or_else(|reply| reply),
        };
        self.tell_news(Telling { may_expunge: true, own: &[], condstore: self.session.condstore }).await?;
        reply.write(&mut self.wire.out, &tag);
        Ok(())
    }

    fn unspooled(&self, error: &SpoolError) -> Reply {
        tracing::warn!(event = base::event::STORE_FAILED, session = %self.id, what = "spool", %error);
        match error {
            SpoolError::TooLarge(_) => Reply::no("TOOBIG", "Message is too large"),
            SpoolError::Full => Reply::no("UNAVAILABLE", "No space left, try later"),
            SpoolError::Failed(_) => Reply::no("UNAVAILABLE", "Message cannot be kept, try later"),
        }
    }

    async fn append_target(&self, name: &crate::proto::RawName) -> Result<MailboxId, Reply> {
        let account = self.account()?;
        let name = name.decode().ok_or(Reply::bad_name())?;
        let mailbox = self.services.mail.mailbox(account, &name).await?.ok_or(Reply::try_create())?;
        // Whether there is room is known before the message comes.
        self.services.blobs.check_room()?;
        Ok(mailbox.id)
    }

    /// Answers at once if the client waits; else after what it sends anyway has passed.
    fn refuse(&mut self, tag: String, wait: bool, reply: Reply) -> Result<(), Closed> {
        if self.wire.framer.refuse_message(wait, tag.clone(), Refusal::MessageTooLarge) {
            self.refused = Some(reply);
        } else {
            reply.write(&mut self.wire.out, &tag);
        }
        Ok(())
    }

    /// Content and summary of one message; no mailbox shows it yet.
    async fn store_message(&self, options: AppendOptions, message: Spooled) -> Result<NewEntry, Reply> {
        if message.length() == 0 {
            return Err(Reply::no("CANNOT", "Message is empty"));
        }
        let message = message.into_bytes(&self.services.budget, 1).await;
        let (message, _share) = message.map_err(|error| self.unspooled(&error))?;
        let Some(summary) = mime::summarise(&self.services.mime, message.clone()).await else {
            return Err(Reply::no("SERVERBUG", "Message cannot be read"));
        };
        let blob = self.services.blobs.put(vec![message]).await?;
        let internal_date = options.internal_date.unwrap_or_else(|| self.clock.utc());
        Ok(NewEntry { blob, summary, flags: options.flags, internal_date })
    }

    async fn add_messages(&self, mailbox: MailboxId, entries: Vec<NewEntry>) -> Result<Reply, Reply> {
        let appended = self.services.mail.append(self.account()?, mailbox, entries).await?;
        let done = Reply::ok("APPEND completed");
        Ok(match append_uid(&appended) {
            Some(code) => done.with_code(code),
            None => done,
        })
    }
}

/// `APPENDUID 7 11:13`
fn append_uid(appended: &[AppendedEntry]) -> Option<String> {
    let mut set = Vec::new();
    write::ranges(&mut set, Ranges::of(appended.iter().map(|entry| entry.uid.as_raw())).as_slice());
    Some(format!("APPENDUID {} {}", appended.first()?.uid_validity, String::from_utf8_lossy(&set)))
}
