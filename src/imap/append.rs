//! APPEND, also of several messages (RFC 3501 §6.3.11, RFC 3502, RFC 4315).

use base::MailboxId;
use bytes::Bytes;
use store::{AppendedEntry, NewEntry};

use crate::connection::{Connection, Stop};
use crate::mime;
use crate::proto::frame::Refusal;
use crate::proto::{AppendHead, AppendOptions, Event, Ranges, Reply, write};
use crate::sync::Telling;
use crate::wire::Closed;

/// Messages of one APPEND, and their octets together: all are in memory until they are stored in one step.
const MESSAGES_MAX: usize = 256;

impl Connection {
    /// Takes the messages as they come, then stores them.
    pub async fn append(&mut self, head: AppendHead, size: u64, wait: bool) -> Result<(), Closed> {
        let AppendHead { tag, mailbox, options } = head;
        let target = self.append_target(&mailbox).await;
        let (mailbox, mut room) = match target {
            Ok(mailbox) if size <= self.config.message_size_max.0 => (mailbox, self.config.message_size_max.0),
            Ok(_) => return self.refuse(tag, wait, Reply::no("TOOBIG", "Message is too large")),
            Err(reply) => return self.refuse(tag, wait, reply),
        };
        let mut messages: Vec<(AppendOptions, Vec<u8>)> = Vec::new();
        let mut next = Some((options, size, wait));
        while let Some((options, size, wait)) = next.take() {
            if size > room || messages.len() >= MESSAGES_MAX {
                return self.refuse(tag, wait, Reply::no("TOOBIG", "Messages are too large together"));
            }
            room -= size;
            if wait {
                self.wire.out.extend_from_slice(b"+ OK\r\n");
            }
            // Grows as octets come: an announced size costs nothing.
            messages.push((options, Vec::new()));
            next = loop {
                match self.wire.event(self.config.autologout).await? {
                    Event::Chunk(chunk) => {
                        if let Some((_, message)) = messages.last_mut() {
                            message.extend_from_slice(&chunk);
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
        }
        let reply = match self.store_messages(mailbox, messages).await {
            Ok(reply) | Err(Stop::Reply(reply)) => reply,
            Err(Stop::Closed(closed)) => return Err(closed),
        };
        self.tell_news(Telling { may_expunge: true, own: &[], condstore: self.session.condstore }).await?;
        reply.write(&mut self.wire.out, &tag);
        Ok(())
    }

    async fn append_target(&self, name: &crate::proto::RawName) -> Result<MailboxId, Reply> {
        let account = self.account()?;
        let name = name.decode().ok_or(Reply::bad_name())?;
        Ok(self.services.mail.mailbox(account, &name).await?.ok_or(Reply::try_create())?.id)
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

    async fn store_messages(
        &mut self,
        mailbox: MailboxId,
        messages: Vec<(AppendOptions, Vec<u8>)>,
    ) -> Result<Reply, Stop> {
        let account = self.account()?;
        let mut entries = Vec::with_capacity(messages.len());
        for (options, message) in messages {
            if message.is_empty() {
                return Err(Reply::no("CANNOT", "Message is empty").into());
            }
            let message = Bytes::from(message);
            let Some(summary) = mime::summarise(&self.services.mime, message.clone()).await else {
                return Err(Reply::no("SERVERBUG", "Message cannot be read").into());
            };
            let blob = self.services.blobs.put(vec![message]).await?;
            let internal_date = options.internal_date.unwrap_or_else(|| self.clock.utc());
            entries.push(NewEntry { blob, summary, flags: options.flags, internal_date });
        }
        let appended = self.services.mail.append(account, mailbox, entries).await?;
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
