//! Mailbox methods (RFC 8621 §2).

use std::collections::{HashMap, HashSet};

use base::{AccountId, MailboxId};
use serde_json::{Map, Value, json};
use store::{EmailState, Mailbox, MailboxName, Role, SystemFlags, ThreadId};

use crate::arguments::{Arguments, OBJECTS_MAX, check_properties, select};
use crate::core::{Context, Jmap};
use crate::error::{MethodError, SetError};
use crate::id::{mailbox_id, parse_mailbox_id};

const PROPERTIES: &[&str] = &[
    "id",
    "name",
    "parentId",
    "role",
    "sortOrder",
    "totalEmails",
    "unreadEmails",
    "totalThreads",
    "unreadThreads",
    "myRights",
    "isSubscribed",
];

impl Jmap {
    pub(crate) async fn mailbox_get(&self, account: AccountId, arguments: &Arguments) -> Result<Value, MethodError> {
        let properties = arguments.texts("properties")?;
        check_properties(properties.as_deref(), PROPERTIES)?;
        let ids = arguments.ids()?;
        let state = self.state(account).await?;
        let mailboxes = self.services.mail.mailboxes(account).await?;
        let wants_threads =
            properties.as_ref().is_none_or(|p| p.iter().any(|name| name == "totalThreads" || name == "unreadThreads"));
        let threads = if wants_threads {
            count_threads(&self.services.mail.email_states(account, None).await?)
        } else {
            HashMap::new()
        };
        let by_name: HashMap<&MailboxName, MailboxId> = mailboxes.iter().map(|m| (&m.name, m.id)).collect();
        let show = |mailbox: &Mailbox| {
            let (total, unread) = threads.get(&mailbox.id).copied().unwrap_or_default();
            select(to_json(mailbox, &by_name, total, unread), properties.as_deref())
        };
        let (list, missing) = match ids {
            None => (mailboxes.iter().map(show).collect::<Vec<_>>(), Vec::new()),
            Some(ids) => {
                let by_id: HashMap<String, &Mailbox> = mailboxes.iter().map(|m| (mailbox_id(m.id), m)).collect();
                let (found, missing): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| by_id.contains_key(id));
                (found.iter().filter_map(|id| by_id.get(id)).map(|m| show(m)).collect(), missing)
            }
        };
        Ok(json!({ "state": state, "list": list, "notFound": missing }))
    }

    pub(crate) async fn mailbox_changes(
        &self,
        account: AccountId,
        arguments: &Arguments,
    ) -> Result<Value, MethodError> {
        let (since, limit) = (arguments.since()?, arguments.changes_max()?);
        let state = self.state(account).await?;
        let Some(destroyed) = self.services.mail.mailboxes_destroyed(account, since).await? else {
            return Err(MethodError::new("cannotCalculateChanges", "the state is too old"));
        };
        let (mut created, mut updated) = (Vec::new(), Vec::new());
        for mailbox in self.services.mail.mailboxes(account).await? {
            if mailbox.created_modseq > since {
                created.push(mailbox_id(mailbox.id));
            } else if mailbox.changed_modseq > since || mailbox.highest_modseq > since {
                updated.push(mailbox_id(mailbox.id));
            }
        }
        if created.len() + updated.len() + destroyed.len() > limit {
            return Err(MethodError::new("cannotCalculateChanges", "more changes than maxChanges"));
        }
        let destroyed: Vec<String> = destroyed.into_iter().map(mailbox_id).collect();
        Ok(json!({
            "oldState": since.to_string(), "newState": state, "hasMoreChanges": false,
            "created": created, "updated": updated, "destroyed": destroyed, "updatedProperties": null,
        }))
    }

    pub(crate) async fn mailbox_query(&self, account: AccountId, arguments: &Arguments) -> Result<Value, MethodError> {
        let state = self.state(account).await?;
        let mut found = self.services.mail.mailboxes(account).await?;
        let ids: HashMap<MailboxName, String> = found.iter().map(|m| (m.name.clone(), mailbox_id(m.id))).collect();
        if let Some(filter) = arguments.object("filter")? {
            for (name, wanted) in filter {
                match name.as_str() {
                    "parentId" => found.retain(|m| {
                        m.name.parent().and_then(|parent| ids.get(&parent)).map(String::as_str) == wanted.as_str()
                    }),
                    "name" => {
                        let wanted = wanted.as_str().unwrap_or_default().to_lowercase();
                        found.retain(|m| m.name.leaf().to_lowercase().contains(&wanted));
                    }
                    "role" => found.retain(|m| role_name(m) == wanted.as_str()),
                    "hasAnyRole" => found.retain(|m| Some(m.role.is_some()) == wanted.as_bool()),
                    "isSubscribed" => found.retain(|m| Some(m.subscribed) == wanted.as_bool()),
                    _ => return Err(MethodError::new("unsupportedFilter", name.clone())),
                }
            }
        }
        found.sort_by_key(|m| (sort_order(m), m.name.as_str().to_lowercase()));
        for comparator in arguments.array("sort")?.into_iter().flatten() {
            match comparator.get("property").and_then(Value::as_str) {
                Some("sortOrder") => {}
                Some("name") => found.sort_by_key(|m| m.name.leaf().to_lowercase()),
                _ => return Err(MethodError::new("unsupportedSort", "")),
            }
            if comparator.get("isAscending").and_then(Value::as_bool) == Some(false) {
                found.reverse();
            }
        }
        let total = found.len();
        let position = usize::try_from(arguments.integer("position")?.unwrap_or(0)).unwrap_or(0);
        let limit = arguments.count("limit")?.unwrap_or(usize::MAX);
        let ids: Vec<String> = found.iter().skip(position).take(limit).map(|m| mailbox_id(m.id)).collect();
        let mut answer = json!({ "queryState": state, "canCalculateChanges": false, "position": position, "ids": ids });
        if let (true, Some(fields)) = (arguments.flag("calculateTotal")?, answer.as_object_mut()) {
            fields.insert("total".to_owned(), json!(total));
        }
        Ok(answer)
    }

    pub(crate) async fn mailbox_set(
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
        // A mailbox may name another of this call as its parent: those come first.
        let mut waiting: Vec<(&String, &Value)> = create.iter().collect();
        while !waiting.is_empty() {
            let left = waiting.len();
            let (ready, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(_, object)| {
                let parent = object.get("parentId").and_then(Value::as_str).and_then(|p| p.strip_prefix('#'));
                parent.is_none_or(|name| context.created.contains_key(name))
            });
            let stuck = ready.is_empty();
            let (ready, later) = if stuck { (later, Vec::new()) } else { (ready, later) };
            for (name, object) in ready {
                match self.mailbox_create(context, object).await {
                    Ok(mailbox) => {
                        let id = mailbox_id(mailbox.id);
                        context.created.insert(name.clone(), id.clone());
                        let mut made = to_json(&mailbox, &HashMap::new(), 0, 0);
                        made.retain(|key, _| !matches!(key.as_str(), "name" | "parentId"));
                        created.insert(name.clone(), Value::Object(made));
                    }
                    Err(error) => {
                        not_created.insert(name.clone(), error.to_json());
                    }
                }
            }
            waiting = later;
            debug_assert!(waiting.len() < left, "each round makes progress");
        }
        let (mut updated, mut not_updated) = (Map::new(), Map::new());
        for (id, patch) in update {
            match self.mailbox_update(context, id, patch).await {
                Ok(()) => updated.insert(id.clone(), Value::Null),
                Err(error) => not_updated.insert(id.clone(), error.to_json()),
            };
        }
        let remove_emails = arguments.flag("onDestroyRemoveEmails")?;
        let (mut destroyed, mut not_destroyed) = (Vec::new(), Map::new());
        for id in destroy {
            match self.mailbox_destroy(context, &id, remove_emails).await {
                Ok(()) => destroyed.push(id),
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

    async fn mailbox_create(&self, context: &Context<'_>, object: &Value) -> Result<Mailbox, SetError> {
        let account = context.account.id;
        let object = object.as_object().ok_or_else(|| SetError::property("name", "a mailbox is an object"))?;
        for name in object.keys() {
            if !matches!(name.as_str(), "name" | "parentId" | "role" | "sortOrder" | "isSubscribed") {
                return Err(SetError::property(name, "cannot be set"));
            }
        }
        let leaf = object.get("name").and_then(Value::as_str).unwrap_or_default();
        let parent = object.get("parentId").unwrap_or(&Value::Null);
        let name = self.path(context, parent, leaf).await?;
        let role = read_role(object.get("role"))?;
        let mailbox = self.services.mail.create_mailbox(account, &name, role).await?;
        if object.get("isSubscribed").and_then(Value::as_bool) == Some(true) {
            self.services.mail.subscribe(account, &name, true).await?;
        }
        Ok(mailbox)
    }

    async fn mailbox_update(&self, context: &Context<'_>, id: &str, patch: &Value) -> Result<(), SetError> {
        let account = context.account.id;
        let mailbox = self.mailbox_named(context, id).await?;
        let patch = patch.as_object().ok_or_else(|| SetError::new("invalidPatch", "a patch is an object"))?;
        for (name, value) in patch {
            match name.as_str() {
                "name" | "parentId" | "isSubscribed" => {}
                "sortOrder" if value.as_u64() == Some(u64::from(sort_order(&mailbox))) => {}
                "role" if value.as_str() == role_name(&mailbox) => {}
                _ => return Err(SetError::property(name, "cannot be changed")),
            }
        }
        let mut path = mailbox.name.clone();
        if patch.contains_key("name") || patch.contains_key("parentId") {
            let leaf = match patch.get("name") {
                Some(name) => name.as_str().ok_or_else(|| SetError::property("name", "must be a string"))?,
                None => mailbox.name.leaf(),
            };
            path = match patch.get("parentId") {
                Some(parent) => self.path(context, parent, leaf).await?,
                None => join(mailbox.name.parent().as_ref(), leaf)?,
            };
            if path != mailbox.name {
                // Renaming INBOX would leave an INBOX behind and give the messages a new mailbox (RFC 9051 §6.3.6).
                if mailbox.name.is_inbox() {
                    return Err(SetError::new("forbidden", "the inbox keeps its name"));
                }
                self.services.mail.rename_mailbox(account, &mailbox.name, &path).await?;
            }
        }
        if let Some(subscribed) = patch.get("isSubscribed") {
            let subscribed =
                subscribed.as_bool().ok_or_else(|| SetError::property("isSubscribed", "must be a boolean"))?;
            self.services.mail.subscribe(account, &path, subscribed).await?;
        }
        Ok(())
    }

    async fn mailbox_destroy(&self, context: &Context<'_>, id: &str, remove_emails: bool) -> Result<(), SetError> {
        let account = context.account.id;
        let mailbox = self.mailbox_named(context, id).await?;
        let all = self.services.mail.mailboxes(account).await?;
        if all.iter().any(|other| other.name.is_below(&mailbox.name)) {
            return Err(SetError::new("mailboxHasChild", ""));
        }
        if mailbox.messages > 0 && !remove_emails {
            return Err(SetError::new("mailboxHasEmail", ""));
        }
        Ok(self.services.mail.delete_mailbox(account, &mailbox.name).await?)
    }

    async fn mailbox_named(&self, context: &Context<'_>, id: &str) -> Result<Mailbox, SetError> {
        let id = context.id(id).as_deref().and_then(parse_mailbox_id).ok_or_else(SetError::not_found)?;
        let all = self.services.mail.mailboxes(context.account.id).await?;
        all.into_iter().find(|mailbox| mailbox.id == id).ok_or_else(SetError::not_found)
    }

    async fn path(&self, context: &Context<'_>, parent: &Value, leaf: &str) -> Result<MailboxName, SetError> {
        let parent = match parent {
            Value::Null => None,
            Value::String(id) => match self.mailbox_named(context, id).await {
                Ok(mailbox) => Some(mailbox.name),
                Err(_) => return Err(SetError::property("parentId", "no such mailbox")),
            },
            _ => return Err(SetError::property("parentId", "must be an id or null")),
        };
        join(parent.as_ref(), leaf)
    }
}

fn join(parent: Option<&MailboxName>, leaf: &str) -> Result<MailboxName, SetError> {
    let wrong = |_| SetError::property("name", "not a mailbox name");
    if leaf.contains(MailboxName::DELIMITER) {
        return Err(SetError::property("name", "a name has no /"));
    }
    match parent {
        None => leaf.parse().map_err(wrong),
        // An empty leaf would be taken for the parent itself.
        Some(_) if leaf.is_empty() => Err(SetError::property("name", "a name is not empty")),
        Some(parent) => format!("{parent}/{leaf}").parse().map_err(wrong),
    }
}

fn read_role(value: Option<&Value>) -> Result<Option<Role>, SetError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_str()
            .and_then(Role::from_name)
            .map(Some)
            .ok_or_else(|| SetError::property("role", "not a role this server knows")),
    }
}

fn role_name(mailbox: &Mailbox) -> Option<&'static str> {
    mailbox.role.map(Role::as_str)
}

/// Mailboxes with a role come first, in the order of [`Role::ALL`].
fn sort_order(mailbox: &Mailbox) -> u32 {
    let place = mailbox.role.and_then(|role| Role::ALL.iter().position(|(known, _)| *known == role));
    place.and_then(|place| u32::try_from(place).ok()).map_or(100, |place| place + 1)
}

/// Threads of each mailbox, and those of them that hold unread mail in any mailbox (RFC 8621 §2).
fn count_threads(states: &[EmailState]) -> HashMap<MailboxId, (usize, usize)> {
    let is_unread =
        |s: &&EmailState| s.state.flags.system.bits() & (SystemFlags::SEEN.bits() | SystemFlags::DRAFT.bits()) == 0;
    let unread: HashSet<ThreadId> = states.iter().filter(is_unread).map(|s| s.thread).collect();
    let pairs: HashSet<(MailboxId, ThreadId)> = states.iter().map(|s| (s.mailbox, s.thread)).collect();
    let mut out: HashMap<MailboxId, (usize, usize)> = HashMap::new();
    for (mailbox, thread) in pairs {
        let counts = out.entry(mailbox).or_default();
        counts.0 += 1;
        counts.1 += usize::from(unread.contains(&thread));
    }
    out
}

fn to_json(
    mailbox: &Mailbox,
    by_name: &HashMap<&MailboxName, MailboxId>,
    threads: usize,
    unread_threads: usize,
) -> Map<String, Value> {
    let is_inbox = mailbox.name.is_inbox();
    let parent = mailbox.name.parent().and_then(|parent| by_name.get(&parent).copied());
    // A parent that is no mailbox of its own cannot be named: then the whole path is the name.
    let name = if parent.is_some() { mailbox.name.leaf() } else { mailbox.name.as_str() };
    let value = json!({
        "id": mailbox_id(mailbox.id),
        "name": if is_inbox { "Inbox" } else { name },
        "parentId": parent.map(mailbox_id),
        "role": role_name(mailbox),
        "sortOrder": sort_order(mailbox),
        "totalEmails": mailbox.messages,
        "unreadEmails": mailbox.unseen,
        "totalThreads": threads,
        "unreadThreads": unread_threads,
        "myRights": {
            "mayReadItems": true, "mayAddItems": true, "mayRemoveItems": true, "maySetSeen": true,
            "maySetKeywords": true, "mayCreateChild": true, "mayRename": !is_inbox, "mayDelete": !is_inbox,
            "maySubmit": true,
        },
        "isSubscribed": mailbox.subscribed,
    });
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
