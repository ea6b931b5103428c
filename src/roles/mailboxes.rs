//! What commands ask about an account's mail: mailboxes, expunged messages, and messages in and out.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr as _;

use anyhow::Context as _;
use base::{AccountId, Uid, UtcMillis};
use bytes::Bytes;
use directory::RegistryError;
use mail::mime::{EnvelopeAddress, Summary};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{
    AppendError, EmailId, Entry, Flags, Keyword, Mailbox, MailboxError, MailboxName, NewEntry, Removed, RemovedMailbox,
    Role, SystemFlags,
};

use super::Engines;
use super::control::Reply;
use super::engines::explain;

/// A request about one account's mail.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(tag = "mail", rename_all = "kebab-case")]
pub enum MailRequest {
    List {
        account: String,
    },
    Removed {
        account: String,
    },
    RemovedFolders {
        account: String,
    },
    /// A deleted folder with those below it, as they were.
    RestoreFolder {
        account: String,
        folder: String,
        into: Option<String>,
    },
    /// Of the expunged messages those with these ids (none given: all) that lay in `mailbox`, were removed at or after
    /// `since`, and were there already at `at`.
    Restore {
        account: String,
        ids: Vec<u64>,
        mailbox: Option<String>,
        since: Option<i64>,
        at: Option<i64>,
        into: Option<String>,
    },
    /// `None`: all.
    Purge {
        account: String,
        ids: Option<Vec<u64>>,
    },
    /// [`MessageRow`]s with a UID above `after`, by rising UID, at most [`ROWS_MAX`].
    Messages {
        account: String,
        mailbox: String,
        after: u32,
    },
    /// Octets of a message from `from` on, at most [`RANGE_MAX`], as the answer's content.
    Read {
        account: String,
        mailbox: String,
        uid: u32,
        from: u64,
    },
    /// BLAKE3 of a whole message, in hexadecimal.
    Digest {
        account: String,
        mailbox: String,
        uid: u32,
    },
    /// The mailbox that has this role, else the one of this name; made if it is missing.
    Open {
        account: String,
        mailbox: String,
        role: Option<String>,
        subscribed: bool,
    },
    /// Adds the request's content as a message.
    Add {
        account: String,
        mailbox: String,
        flags: u8,
        keywords: Vec<String>,
        internal_date: i64,
    },
}

/// A message in an answer.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct MessageRow {
    pub uid: u32,
    /// [`SystemFlags::bits`].
    pub flags: u8,
    pub keywords: Vec<String>,
    pub internal_date: i64,
    pub size: u64,
    /// Where nodes keep its content: the same in a snapshot.
    #[serde(default)]
    pub blob: String,
}

/// Rows of one answer.
pub const ROWS_MAX: usize = 1000;
/// Octets of a message in one answer.
pub const RANGE_MAX: u64 = 4 << 20;
/// Expunged messages that one request looks through, the latest first.
const REMOVED_MAX: usize = 50_000;
/// Messages brought back in one transaction.
const RESTORE_STEP: usize = 500;

/// Carries out a request; `content` is the message that came with it.
pub async fn execute(engines: &Engines, request: MailRequest, content: Bytes) -> anyhow::Result<Reply> {
    match request {
        MailRequest::List { account } => {
            let found = engines.storage.mail.mailboxes(id_of(engines, &account).await?).await;
            Ok(found.map_err(|error| explain(&error))?.iter().map(mailbox_value).collect::<Value>().into())
        }
        MailRequest::Removed { account } => {
            let found = removed(engines, id_of(engines, &account).await?).await?;
            Ok(found.iter().map(removed_value).collect::<Value>().into())
        }
        MailRequest::RemovedFolders { account } => {
            let found = engines.storage.mail.removed_mailboxes(id_of(engines, &account).await?).await;
            Ok(found.map_err(|error| explain(&error))?.iter().map(removed_folder_value).collect::<Value>().into())
        }
        MailRequest::RestoreFolder { account, folder, into } => {
            let (folder, into) = (parse_name(&folder)?, into.as_deref().map(parse_name).transpose()?);
            restore_folder(engines, &account, &folder, into.as_ref()).await.map(Reply::from)
        }
        MailRequest::Restore { account, ids, mailbox, since, at, into } => {
            let since = since.or(at);
            let wanted = Wanted {
                at: at.map(UtcMillis),
                ids: ids.into_iter().collect(),
                mailbox: mailbox.as_deref().map(parse_name).transpose()?,
                since: since.map(UtcMillis),
            };
            let into = into.as_deref().map(parse_name).transpose()?;
            restore(engines, &account, wanted, into).await.map(Reply::from)
        }
        MailRequest::Purge { account, ids } => purge(engines, &account, ids).await.map(Reply::from),
        MailRequest::Messages { account, mailbox, after } => {
            let target = Target::find(engines, &account, &mailbox).await?;
            let Some(first) = after.checked_add(1).and_then(Uid::new) else { return Ok(json!([]).into()) };
            let found =
                engines.storage.mail.entries(target.account, target.mailbox.id, vec![first..=Uid::MAX], ROWS_MAX);
            let rows: Vec<MessageRow> = found.await.map_err(|error| explain(&error))?.iter().map(row).collect();
            Ok(serde_json::to_value(rows)?.into())
        }
        MailRequest::Read { account, mailbox, uid, from } => {
            let entry = Target::find(engines, &account, &mailbox).await?.entry(engines, uid).await?;
            let content = engines.storage.original(&entry).read(from..from.saturating_add(RANGE_MAX)).await;
            Ok(Reply { value: Value::Null, content: content.map_err(|error| explain(&error))? })
        }
        MailRequest::Digest { account, mailbox, uid } => {
            let entry = Target::find(engines, &account, &mailbox).await?.entry(engines, uid).await?;
            let (mut hasher, mut steps) = (blake3::Hasher::new(), engines.storage.original(&entry).steps(0..u64::MAX));
            while let Some(piece) = steps.next().await {
                hasher.update(&piece.map_err(|error| explain(&error))?);
            }
            Ok(json!(hasher.finalize().to_hex().as_str()).into())
        }
        MailRequest::Open { account, mailbox, role, subscribed } => {
            let account = id_of(engines, &account).await?;
            let role = role.as_deref().and_then(Role::from_name);
            open(engines, account, parse_name(&mailbox)?, role, subscribed).await.map(Reply::from)
        }
        MailRequest::Add { account, mailbox, flags, keywords, internal_date } => {
            let target = Target::find(engines, &account, &mailbox).await?;
            let keywords = keywords.iter().map(|word| Keyword::from_str(word).with_context(|| format!("`{word}`")));
            let flags = Flags { system: SystemFlags::from_bits(flags), keywords: keywords.collect::<Result<_, _>>()? };
            anyhow::ensure!(flags.keywords.len() <= Flags::KEYWORDS_MAX, "more than {} keywords", Flags::KEYWORDS_MAX);
            add(engines, &target, flags, UtcMillis(internal_date), content).await.map(Reply::from)
        }
    }
}

/// One mailbox of an account.
struct Target {
    account: AccountId,
    address: String,
    mailbox: Mailbox,
}

impl Target {
    async fn find(engines: &Engines, address: &str, mailbox: &str) -> anyhow::Result<Self> {
        let account = id_of(engines, address).await?;
        let found =
            engines.storage.mail.mailbox(account, &parse_name(mailbox)?).await.map_err(|error| explain(&error))?;
        let missing = || RegistryError::Missing { what: format!("the mailbox {mailbox} of {address}") };
        Ok(Self { account, address: address.to_owned(), mailbox: found.ok_or_else(missing)? })
    }

    async fn entry(&self, engines: &Engines, uid: u32) -> anyhow::Result<Entry> {
        let missing = || RegistryError::Missing {
            what: format!("message {uid} in the mailbox {} of {}", self.mailbox.name, self.address),
        };
        let uid = Uid::new(uid).ok_or_else(missing)?;
        let found = engines.storage.mail.entries(self.account, self.mailbox.id, vec![uid..=uid], 1).await;
        Ok(found.map_err(|error| explain(&error))?.pop().ok_or_else(missing)?)
    }
}

pub(super) async fn id_of(engines: &Engines, address: &str) -> anyhow::Result<AccountId> {
    let parsed = address.parse::<mail::Address>().with_context(|| format!("`{address}`"))?;
    let found = engines.directory.account_by_address(&parsed).await?;
    Ok(found.ok_or_else(|| RegistryError::Missing { what: format!("the account {address}") })?.id)
}

fn parse_name(text: &str) -> anyhow::Result<MailboxName> {
    text.parse().with_context(|| format!("`{text}`"))
}

async fn removed(engines: &Engines, account: AccountId) -> anyhow::Result<Vec<Removed>> {
    engines.storage.mail.removed(account, REMOVED_MAX).await.map_err(|error| explain(&error))
}

/// Which of the expunged messages.
struct Wanted {
    ids: BTreeSet<u64>,
    mailbox: Option<MailboxName>,
    since: Option<UtcMillis>,
    at: Option<UtcMillis>,
}

impl Wanted {
    fn includes(&self, removed: &Removed) -> bool {
        (self.ids.is_empty() || self.ids.contains(&removed.email.0))
            && self.mailbox.as_ref().is_none_or(|name| removed.mailbox == *name)
            && self.since.is_none_or(|since| removed.removed_at >= since)
            && self.at.is_none_or(|at| removed.internal_date <= at)
    }
}

async fn restore(engines: &Engines, address: &str, wanted: Wanted, into: Option<MailboxName>) -> anyhow::Result<Value> {
    let account = id_of(engines, address).await?;
    let found = removed(engines, account).await?;
    check_ids(address, &found, &wanted.ids)?;
    if let Some(name) = &wanted.mailbox
        && !found.iter().any(|one| one.mailbox == *name)
    {
        anyhow::bail!("no removed message of {address} lay in the mailbox {name}; see `ortler mailbox removed`");
    }
    let oldest = found.last().map(|one| one.removed_at);
    let ids: Vec<EmailId> = found.iter().rev().filter(|one| wanted.includes(one)).map(|one| one.email).collect();
    let mut mailboxes: BTreeMap<String, u64> = BTreeMap::new();
    let mut restored = 0usize;
    for step in ids.chunks(RESTORE_STEP) {
        let back = engines.storage.mail.restore(account, step.to_vec(), into.clone()).await;
        let back = back.map_err(|error| match error {
            AppendError::NoMailbox => anyhow::anyhow!("{address}: the mailbox cannot be made again"),
            AppendError::OverQuota { .. } => anyhow::anyhow!("{address}: {error}; {restored} messages were restored"),
            AppendError::Store(error) => explain(&error),
        })?;
        restored += back.len();
        for one in back {
            *mailboxes.entry(one.mailbox_name.to_string()).or_default() += 1;
        }
    }
    let cut =
        found.len() == REMOVED_MAX && wanted.since.is_none_or(|since| oldest.is_some_and(|oldest| oldest > since));
    Ok(json!({
        "restored": restored,
        "mailboxes": mailboxes.iter().map(|(name, count)| format!("{name}: {count}")).collect::<Vec<_>>(),
        "more": cut,
    }))
}

async fn restore_folder(
    engines: &Engines,
    address: &str,
    folder: &MailboxName,
    into: Option<&MailboxName>,
) -> anyhow::Result<Value> {
    let account = id_of(engines, address).await?;
    let back = engines.storage.restore_folder(account, folder, into).await.map_err(|error| match error {
        AppendError::NoMailbox => anyhow::anyhow!(
            "no folder {folder} of {address} was deleted lately, or it cannot be made again; \
             see `ortler mailbox removed --folders`"
        ),
        AppendError::OverQuota(_) => anyhow::anyhow!("{address}: {error}; run again when there is room to go on"),
        AppendError::Store(error) => explain(&error),
    })?;
    Ok(json!({
        "restored": back.messages,
        "mailboxes": back.mailboxes.iter().map(MailboxName::as_str).collect::<Vec<_>>(),
    }))
}

async fn purge(engines: &Engines, address: &str, ids: Option<Vec<u64>>) -> anyhow::Result<Value> {
    let account = id_of(engines, address).await?;
    if let Some(ids) = &ids {
        check_ids(address, &removed(engines, account).await?, &ids.iter().copied().collect())?;
    }
    let emails = ids.map(|ids| ids.into_iter().map(EmailId).collect());
    let purged = engines.storage.purge(account, emails).await.map_err(|error| explain(&error))?;
    Ok(json!({ "purged": purged }))
}

/// An id that cannot be brought back is an error before anything is done.
fn check_ids(address: &str, found: &[Removed], ids: &BTreeSet<u64>) -> anyhow::Result<()> {
    let known: BTreeSet<u64> = found.iter().map(|one| one.email.0).collect();
    let missing: Vec<String> = ids.difference(&known).take(20).map(ToString::to_string).collect();
    anyhow::ensure!(
        missing.is_empty(),
        "{address}: no removed message with id {}; see `ortler mailbox removed`",
        missing.join(", ")
    );
    Ok(())
}

async fn open(
    engines: &Engines,
    account: AccountId,
    name: MailboxName,
    role: Option<Role>,
    subscribed: bool,
) -> anyhow::Result<Value> {
    let mail = &engines.storage.mail;
    let found = mail.mailboxes(account).await.map_err(|error| explain(&error))?;
    let by_role = found.iter().find(|mailbox| role.is_some() && mailbox.role == role);
    if let Some(mailbox) = by_role.or_else(|| found.iter().find(|mailbox| mailbox.name == name)) {
        return Ok(json!({ "mailbox": mailbox.name.as_str(), "made": false }));
    }
    match mail.create_mailbox(account, &name, role).await {
        Ok(_) | Err(MailboxError::Exists) => {}
        Err(MailboxError::Store(error)) => return Err(explain(&error)),
        Err(error) => return Err(error).with_context(|| format!("the mailbox {name} cannot be made")),
    }
    if subscribed {
        mail.subscribe(account, &name, true).await.with_context(|| format!("the mailbox {name}"))?;
    }
    Ok(json!({ "mailbox": name.as_str(), "made": true }))
}

async fn add(
    engines: &Engines,
    target: &Target,
    flags: Flags,
    internal_date: UtcMillis,
    content: Bytes,
) -> anyhow::Result<Value> {
    anyhow::ensure!(!content.is_empty(), "an empty message cannot be added");
    let message = content.clone();
    let summary = tokio::task::spawn_blocking(move || Summary::of(&message).encode()).await?;
    let blob = engines.storage.blobs.put(vec![content]).await.map_err(|error| explain(&error))?;
    let entry = NewEntry { blob, summary: summary.into(), flags, internal_date };
    match engines.storage.mail.append(target.account, target.mailbox.id, vec![entry]).await {
        Ok(added) => Ok(json!({ "uid": added.first().map(|entry| entry.uid.as_raw()) })),
        Err(AppendError::Store(error)) => Err(explain(&error)),
        Err(error) => Err(error).with_context(|| target.address.clone()),
    }
}

fn row(entry: &Entry) -> MessageRow {
    MessageRow {
        uid: entry.uid.as_raw(),
        flags: entry.flags.system.bits(),
        keywords: entry.flags.keywords.iter().map(|keyword| keyword.as_str().to_owned()).collect(),
        internal_date: entry.internal_date.0,
        size: entry.size_bytes,
        blob: entry.blob.to_string(),
    }
}

fn mailbox_value(mailbox: &Mailbox) -> Value {
    json!({
        "name": mailbox.name.as_str(),
        "role": mailbox.role.map(Role::as_str),
        "messages": mailbox.messages,
        "unseen": mailbox.unseen,
        "size": mailbox.size_bytes,
        "subscribed": mailbox.subscribed,
        "uid_validity": mailbox.uid_validity.as_raw(),
    })
}

fn removed_folder_value(removed: &RemovedMailbox) -> Value {
    json!({
        "name": removed.name.as_str(),
        "removed": mail::date::format_utc(removed.removed_at),
        "messages": removed.messages,
        "size": removed.size_bytes,
    })
}

fn removed_value(removed: &Removed) -> Value {
    let summary = Summary::decode(&removed.summary).ok();
    let envelope = summary.as_ref().map(|summary| &summary.envelope);
    let from = envelope.and_then(|envelope| envelope.from.iter().find_map(EnvelopeAddress::addr_spec));
    let subject = envelope.and_then(|envelope| envelope.subject.as_deref()).map(mail::mime::decode::decode_header_text);
    json!({
        "id": removed.email.0,
        "removed": mail::date::format_utc(removed.removed_at),
        "mailbox": removed.mailbox.as_str(),
        "from": from.map(|text| plain(&text)),
        "subject": subject.map(|text| plain(&text)),
        "size": removed.size_bytes,
    })
}

/// What a stranger wrote must not steer a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
