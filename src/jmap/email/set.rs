//! Email/set (RFC 8621 §4.6).

use std::collections::HashMap;
use std::sync::Arc;

use base::{MailboxId, Uid, UtcMillis};
use bytes::Bytes;
use mail::date;
use serde_json::{Map, Value, json};
use store::{AppendedEntry, Entry, FlagChange, Flags, NewEntry, SystemFlags};

use super::build::{blob_ids, build};
use super::filter::parse_utc;
use super::keywords;
use crate::arguments::{Arguments, OBJECTS_MAX};
use crate::blob::BlobError;
use crate::core::{Context, Jmap};
use crate::error::{MethodError, SetError};
use crate::id::{email_blob_id, email_id, parse_email_id, parse_mailbox_id, thread_id};

const SUMMARISED_INLINE_MAX: usize = 128 * 1024;

impl Jmap {
    pub(crate) async fn email_set(
        &self,
        context: &mut Context<'_>,
        arguments: &Arguments,
    ) -> Result<Value, MethodError> {
        let account = context.account.id;
        let before = self.check_state(account, arguments).await?;
        let empty = Map::new();
        let create = arguments.object("create")?.unwrap_or(&empty);
        let update = arguments.object("update")?.unwrap_or(&empty);
        let destroy = arguments.texts("destroy")?.unwrap_or_default();
        if create.len() + update.len() + destroy.len() > OBJECTS_MAX {
            return Err(MethodError::new("requestTooLarge", "at most 500 objects in one call"));
        }
        let (mut created, mut not_created) = (Map::new(), Map::new());
        for (name, draft) in create {
            match self.email_create(context, draft).await {
                Ok(email) => {
                    let id = email.get("id").and_then(Value::as_str).unwrap_or_default();
                    context.created.insert(name.clone(), id.to_owned());
                    created.insert(name.clone(), email);
                }
                Err(error) => {
                    not_created.insert(name.clone(), error.to_json());
                }
            }
        }
        let (mut updated, mut not_updated) = (Map::new(), Map::new());
        for (id, patch) in update {
            match self.email_update(context, id, patch).await {
                Ok(()) => updated.insert(context.id(id).unwrap_or_default(), Value::Null),
                Err(error) => not_updated.insert(id.clone(), error.to_json()),
            };
        }
        let (mut destroyed, mut not_destroyed) = (Vec::new(), Map::new());
        for id in destroy {
            match self.email_destroy(context, &id).await {
                Ok(()) => destroyed.push(context.id(&id).unwrap_or_default()),
                Err(error) => {
                    not_destroyed.insert(id, error.to_json());
                }
            }
        }
        Ok(json!({
            "oldState": before.to_string(), "newState": self.state(account).await?,
            "created": created, "notCreated": not_created, "updated": updated, "notUpdated": not_updated,
            "destroyed": destroyed, "notDestroyed": not_destroyed,
        }))
    }

    async fn email_create(&self, context: &Context<'_>, draft: &Value) -> Result<Value, SetError> {
        let draft = draft.as_object().ok_or_else(|| SetError::property("mailboxIds", "an email is an object"))?;
        if draft.contains_key("headers") {
            return Err(SetError::property("headers", "use header:… properties"));
        }
        let mailbox = only_mailbox(context, draft.get("mailboxIds"))?;
        let flags = draft.get("keywords").map_or(Ok(Flags::default()), keywords::parse_all)?;
        let now = self.services.clock.utc();
        let received_at = received_at(draft.get("receivedAt"), now)?;
        let mut blobs = HashMap::new();
        let mut size = 0u64;
        for id in blob_ids(draft) {
            let found = self.blob_size(context.account.id, &id).await?;
            size = size.saturating_add(found.ok_or_else(|| SetError::new("blobNotFound", id))?);
        }
        let too_large = || SetError::new("tooLarge", "the attachments are too large together");
        // Parts of other emails are encoded still: how long they are without, only reading tells.
        if size > Self::UPLOAD_SIZE_MAX.0 * 2 {
            return Err(too_large());
        }
        // As they are, encoded, and the message they become part of.
        let _share = self.services.budget.take(size.min(Self::UPLOAD_SIZE_MAX.0) * 4).await;
        for id in blob_ids(draft) {
            match self.download(context.account.id, &id).await {
                Ok(blob) => blobs.insert(id, blob.content),
                Err(BlobError::Store(error)) => return Err(error.into()),
                Err(BlobError::NotFound | BlobError::TooLarge | BlobError::Busy) => {
                    return Err(SetError::new("blobNotFound", id));
                }
            };
            if blobs.values().map(Bytes::len).sum::<usize>() as u64 > Self::UPLOAD_SIZE_MAX.0 {
                return Err(too_large());
            }
        }
        let message_id = format!("{}@{}", self.services.ids.message(now), context.account.address.domain);
        let message = Bytes::from(build(draft, &blobs, &message_id, now)?);
        self.add_email(context, mailbox, message, flags, received_at).await
    }

    /// Stores a message; gives what a client needs to know of it.
    pub(super) async fn add_email(
        &self,
        context: &Context<'_>,
        mailbox: MailboxId,
        message: Bytes,
        flags: Flags,
        internal_date: UtcMillis,
    ) -> Result<Value, SetError> {
        let account = context.account.id;
        let size = message.len();
        let summary: Arc<[u8]> = self.summarise(message.clone()).await?;
        let blob = self.services.blobs.put(vec![message]).await?;
        let entry = NewEntry { blob, summary, flags, internal_date };
        let added: Option<AppendedEntry> =
            self.services.mail.append(account, mailbox, vec![entry]).await?.into_iter().next();
        let added = added.ok_or_else(|| SetError::new("serverFail", "the store added nothing"))?;
        let thread = self.entry(account, added.email).await?.map(|entry| thread_id(entry.thread));
        Ok(json!({
            "id": email_id(added.email), "blobId": email_blob_id(added.email), "threadId": thread, "size": size,
        }))
    }

    /// A large message is read on a thread that serves nobody else.
    async fn summarise(&self, message: Bytes) -> Result<Arc<[u8]>, SetError> {
        let mime = Arc::clone(&self.services.mime);
        if message.len() <= SUMMARISED_INLINE_MAX {
            return Ok(mime.summarise(&message));
        }
        let summary = tokio::task::spawn_blocking(move || mime.summarise(&message)).await;
        summary.map_err(|_| SetError::new("serverFail", "reading the message failed"))
    }

    async fn email_named(&self, context: &Context<'_>, id: &str) -> Result<Entry, SetError> {
        let id = context.id(id).as_deref().and_then(parse_email_id).ok_or_else(SetError::not_found)?;
        self.entry(context.account.id, id).await?.ok_or_else(SetError::not_found)
    }

    async fn email_update(&self, context: &Context<'_>, id: &str, patch: &Value) -> Result<(), SetError> {
        let account = context.account.id;
        let entry = self.email_named(context, id).await?;
        let change = Patch::read(context, &entry, patch)?;
        let uids = || only(entry.uid);
        let flags = [
            change.replaced.map(FlagChange::Replace),
            Some(FlagChange::Add(change.added)),
            Some(FlagChange::Remove(change.removed)),
        ];
        for flags in flags.into_iter().flatten() {
            if !matches!(&flags, FlagChange::Add(none) | FlagChange::Remove(none) if *none == Flags::default()) {
                self.services.mail.set_flags(account, entry.mailbox, uids(), flags, None).await?;
            }
        }
        if let Some(target) = change.mailbox.filter(|target| *target != entry.mailbox) {
            let moved = self.services.mail.r#move(account, entry.mailbox, uids(), target).await?;
            if moved.uids.is_empty() {
                return Err(SetError::not_found());
            }
        }
        Ok(())
    }

    async fn email_destroy(&self, context: &Context<'_>, id: &str) -> Result<(), SetError> {
        let entry = self.email_named(context, id).await?;
        let (gone, _) = self.services.mail.expunge(context.account.id, entry.mailbox, only(entry.uid), false).await?;
        if gone.is_empty() {
            return Err(SetError::not_found());
        }
        // Clients save a draft every few seconds, each time as a new email: the older ones are nothing to recover.
        if entry.flags.system.contains(SystemFlags::DRAFT) {
            self.services.mail.purge(context.account.id, Some(vec![entry.email])).await?;
        }
        Ok(())
    }
}

/// What an update asks for.
#[derive(Default)]
struct Patch {
    replaced: Option<Flags>,
    added: Flags,
    removed: Flags,
    mailbox: Option<MailboxId>,
}

impl Patch {
    fn read(context: &Context<'_>, entry: &Entry, patch: &Value) -> Result<Self, SetError> {
        let fields = patch.as_object().ok_or_else(|| SetError::new("invalidPatch", "a patch is an object"))?;
        let mut out = Self::default();
        let (mut put, mut taken) = (Vec::new(), Vec::new());
        for (path, value) in fields {
            match path.split_once('/') {
                None if path == "keywords" => {
                    let mut flags = keywords::parse_all(value)?;
                    // IMAP's mark of deletion is not JMAP's to clear.
                    if entry.flags.system.contains(SystemFlags::DELETED) {
                        flags.system = flags.system.with(SystemFlags::DELETED);
                    }
                    out.replaced = Some(flags);
                }
                None if path == "mailboxIds" => out.mailbox = Some(only_mailbox(context, Some(value))?),
                Some(("keywords", name)) => {
                    let flag = keywords::parse(&name.replace("~1", "/").replace("~0", "~"))
                        .ok_or_else(|| SetError::property(path, "not a valid keyword"))?;
                    let side = match value {
                        Value::Bool(true) => &mut out.added,
                        Value::Null => &mut out.removed,
                        _ => return Err(SetError::property(path, "must be true or null")),
                    };
                    keywords::add(side, flag);
                }
                Some(("mailboxIds", id)) => {
                    let id = context.id(id).as_deref().and_then(parse_mailbox_id);
                    let id = id.ok_or_else(|| SetError::property("mailboxIds", "no such mailbox"))?;
                    match value {
                        Value::Bool(true) => put.push(id),
                        Value::Null => taken.push(id),
                        _ => return Err(SetError::property("mailboxIds", "must be true or null")),
                    }
                }
                _ => return Err(SetError::property(path, "cannot be changed")),
            }
        }
        if !(put.is_empty() && taken.is_empty()) {
            let stays = (!taken.contains(&entry.mailbox)).then_some(entry.mailbox);
            put.extend(stays.filter(|id| !put.contains(id)));
            out.mailbox = match put.as_slice() {
                [one] => Some(*one),
                _ => return Err(SetError::property("mailboxIds", "an email is in exactly one mailbox")),
            };
        }
        if entry.flags.keywords.union(&out.added.keywords).count() > Flags::KEYWORDS_MAX {
            return Err(SetError::new("tooManyKeywords", ""));
        }
        Ok(out)
    }
}

/// The one mailbox of a whole `mailboxIds` object.
pub(super) fn only_mailbox(context: &Context<'_>, value: Option<&Value>) -> Result<MailboxId, SetError> {
    let wrong = |what: &str| SetError::property("mailboxIds", what);
    let ids = value.and_then(Value::as_object).ok_or_else(|| wrong("must be an object"))?;
    let mut ids = ids.iter();
    let (Some((id, Value::Bool(true))), None) = (ids.next(), ids.next()) else {
        return Err(wrong("an email is in exactly one mailbox"));
    };
    context.id(id).as_deref().and_then(parse_mailbox_id).ok_or_else(|| wrong("no such mailbox"))
}

pub(super) fn received_at(value: Option<&Value>, now: UtcMillis) -> Result<UtcMillis, SetError> {
    match value {
        None | Some(Value::Null) => Ok(now),
        Some(value) => {
            let at = value.as_str().and_then(parse_utc);
            let example = date::format_utc(now);
            at.ok_or_else(|| SetError::property("receivedAt", format!("must be a date such as {example}")))
        }
    }
}

fn only(uid: Uid) -> Vec<std::ops::RangeInclusive<Uid>> {
    vec![uid..=uid]
}
