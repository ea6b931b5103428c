//! EmailSubmission (RFC 8621 §7): mail leaves at once, or later as its sender wishes (RFC 4865); until then it can be undone.

use std::time::Duration;

use async_trait::async_trait;
use base::{AccountId, MessageId, UtcMillis};
use bytes::Bytes;
use directory::Account;
use mail::{Address, BodyKind, Envelope, ForwardPath, HeaderFields, HoldWish, ReversePath, Status, Wishes, date};
use serde_json::{Map, Value, json};
use store::StoreError;

use crate::arguments::{Arguments, OBJECTS_MAX};
use crate::core::{Context, Jmap};
use crate::error::{MethodError, SetError};
use crate::id::{email_id, parse_email_id, thread_id};

/// Takes a message on its way, with the same checks as submission over SMTP.
#[async_trait]
pub trait Submitter: Send + Sync {
    /// A success means that the message is durable.
    async fn submit(&self, account: &Account, envelope: Envelope, message: Bytes) -> Submitted;

    /// When the first copy of a message leaves, if the account sent it and none has left yet.
    async fn pending(&self, account: AccountId, message: MessageId) -> Result<Option<UtcMillis>, StoreError>;

    /// Takes a message back; false if a copy of it may have left.
    async fn cancel(&self, account: AccountId, message: MessageId) -> Result<bool, StoreError>;
}

/// What became of a submission.
#[derive(Clone, Debug)]
pub struct Submitted {
    pub message: MessageId,
    /// One for each forward path of the envelope, in order.
    pub statuses: Vec<Status>,
}

/// Mail waits at most so long for its sender's wish.
pub const DELAY_MAX: Duration = Duration::from_secs(30 * 86_400);

const RECIPIENTS_MAX: usize = 1000;

/// What was submitted: the email and the creation id.
struct Sent {
    name: String,
    email: String,
}

impl Jmap {
    /// The answer, and that of the Email/set which `onSuccess…` asks for.
    pub(crate) async fn submission_set(
        &self,
        context: &mut Context<'_>,
        arguments: &Arguments,
    ) -> Result<Vec<(String, Value)>, MethodError> {
        let account = context.account.id;
        let before = self.check_state(account, arguments).await?;
        let empty = Map::new();
        let create = arguments.object("create")?.unwrap_or(&empty);
        if create.len() > OBJECTS_MAX {
            return Err(MethodError::new("requestTooLarge", "at most 500 objects in one call"));
        }
        let (mut created, mut not_created, mut sent) = (Map::new(), Map::new(), Vec::new());
        for (name, submission) in create {
            match self.submit(context, submission).await {
                Ok((answer, email)) => {
                    created.insert(name.clone(), answer);
                    sent.push(Sent { name: name.clone(), email });
                }
                Err(error) => {
                    not_created.insert(name.clone(), error.to_json());
                }
            }
        }
        let refuse = |ids: Vec<String>, kind: &'static str| -> Map<String, Value> {
            ids.into_iter().map(|id| (id, SetError::new(kind, "").to_json())).collect()
        };
        let (mut updated, mut not_updated) = (Map::new(), Map::new());
        for (id, patch) in arguments.object("update")?.into_iter().flatten() {
            match self.cancel(account, context.id(id).as_deref().unwrap_or(id), patch).await? {
                None => drop(updated.insert(id.clone(), Value::Null)),
                Some(error) => drop(not_updated.insert(id.clone(), error.to_json())),
            }
        }
        let destroys = arguments.texts("destroy")?.unwrap_or_default();
        let answer = json!({
            "accountId": crate::id::account_id(account),
            "oldState": before.to_string(), "newState": self.state(account).await?,
            "created": created, "notCreated": not_created,
            "updated": updated, "notUpdated": not_updated,
            "destroyed": [], "notDestroyed": refuse(destroys, "notFound"),
        });
        let mut answers = vec![("EmailSubmission/set".to_owned(), answer)];
        if let Some(follow_up) = follow_up(arguments, &sent)? {
            let mut changed = self.email_set(context, &follow_up).await?;
            if let Some(fields) = changed.as_object_mut() {
                fields.insert("accountId".to_owned(), json!(crate::id::account_id(account)));
            }
            answers.push(("Email/set".to_owned(), changed));
        }
        Ok(answers)
    }

    async fn submit(&self, context: &Context<'_>, submission: &Value) -> Result<(Value, String), SetError> {
        let account = context.account;
        let text = |name: &str| submission.get(name).and_then(Value::as_str);
        let unavailable = |error: MethodError| SetError::new(error.kind, error.description);
        let identity = self.identity(account, text("identityId").unwrap_or_default()).await.map_err(unavailable)?;
        let identity = identity.ok_or_else(|| SetError::property("identityId", "no such identity"))?;
        let email = text("emailId").and_then(|id| context.id(id)).as_deref().and_then(parse_email_id);
        let entry = match email {
            Some(email) => self.entry(account.id, email).await?,
            None => None,
        };
        let entry = entry.ok_or_else(|| SetError::property("emailId", "no such email"))?;
        if entry.size_bytes > Self::UPLOAD_SIZE_MAX.0 {
            return Err(SetError::new("tooLarge", ""));
        }
        // As it is stored, without Bcc, and as it is stored again.
        let _share = self.services.budget.take(entry.size_bytes * 4).await;
        // Without the entry's own lines: they tell of its delivery here, if it ever was delivered.
        let message = self.content(&entry).read_blob(0..u64::MAX).await?;
        let own = self.services.directory.sender_addresses(account.id).await.map_err(|e| unavailable(e.into()))?;
        check_from(&message, &own)?;
        let envelope = envelope(submission.get("envelope"), &message, &identity, &own)?;
        let recipients = envelope.forward_paths.clone();
        let hold = envelope.wishes.hold;
        let Submitted { message, statuses } =
            self.services.submitter.submit(account, envelope, without_bcc(&message)).await;
        if !statuses.iter().any(Status::is_success) {
            let why = statuses.first().map_or_else(String::new, ToString::to_string);
            return Err(SetError::new("forbiddenToSend", why));
        }
        let delivery: Map<String, Value> = recipients
            .iter()
            .zip(&statuses)
            .map(|(path, status)| {
                let delivered = if status.is_success() { "queued" } else { "no" };
                let reply = json!({ "smtpReply": status.to_string(), "delivered": delivered, "displayed": "unknown" });
                (path.to_string(), reply)
            })
            .collect();
        let now: UtcMillis = self.services.clock.utc();
        let send_at = match hold {
            Some(HoldWish::For(span)) => now.plus(span),
            Some(HoldWish::Until(at)) => at.max(now),
            None => now,
        };
        let answer = json!({
            "id": format!("S{message}"), "threadId": thread_id(entry.thread),
            "sendAt": date::format_utc(send_at), "undoStatus": if send_at > now { "pending" } else { "final" },
            "deliveryStatus": delivery,
            "dsnBlobIds": [], "mdnBlobIds": [],
        });
        Ok((answer, email_id(entry.email)))
    }
}

impl Jmap {
    /// Submissions that can still be undone; others are not known any more.
    pub(crate) async fn submission_get(&self, account: AccountId, arguments: &Arguments) -> Result<Value, MethodError> {
        let (mut list, mut not_found) = (Vec::new(), Vec::new());
        for id in arguments.ids()?.unwrap_or_default() {
            let at = match message_of(&id) {
                Some(message) => self.services.submitter.pending(account, message).await?,
                None => None,
            };
            match at {
                Some(at) => list.push(json!({ "id": id, "sendAt": date::format_utc(at), "undoStatus": "pending" })),
                None => not_found.push(id),
            }
        }
        Ok(json!({ "list": list, "notFound": not_found, "state": self.state(account).await? }))
    }

    /// Carries out `undoStatus: canceled`; gives what is wrong with another patch.
    async fn cancel(&self, account: AccountId, id: &str, patch: &Value) -> Result<Option<SetError>, MethodError> {
        let Some(message) = message_of(id) else { return Ok(Some(SetError::new("notFound", ""))) };
        let is_cancel = patch
            .as_object()
            .is_some_and(|fields| fields.len() == 1 && fields.get("undoStatus") == Some(&json!("canceled")));
        if !is_cancel {
            return Ok(Some(SetError::property("undoStatus", "only canceled can be asked for")));
        }
        let is_undone = self.services.submitter.cancel(account, message).await?;
        Ok((!is_undone).then(|| SetError::new("cannotUnsend", "it has left already")))
    }
}

fn message_of(id: &str) -> Option<MessageId> {
    id.strip_prefix('S')?.parse().ok()
}

/// The Email/set that `onSuccessUpdateEmail` and `onSuccessDestroyEmail` ask for, if anything was sent.
fn follow_up(arguments: &Arguments, sent: &[Sent]) -> Result<Option<Arguments>, MethodError> {
    let email = |key: &str| sent.iter().find(|s| key.strip_prefix('#') == Some(&s.name)).map(|s| s.email.clone());
    let mut update = Map::new();
    for (key, patch) in arguments.object("onSuccessUpdateEmail")?.into_iter().flatten() {
        if let Some(id) = email(key) {
            update.insert(id, patch.clone());
        }
    }
    let destroy = arguments.texts("onSuccessDestroyEmail")?.unwrap_or_default();
    let destroy: Vec<String> = destroy.iter().filter_map(|key| email(key)).collect();
    if update.is_empty() && destroy.is_empty() {
        return Ok(None);
    }
    let set = Map::from_iter([("update".to_owned(), Value::Object(update)), ("destroy".to_owned(), json!(destroy))]);
    Ok(Some(Arguments(set)))
}

fn is_own(address: &str, own: &[Address]) -> bool {
    address.parse::<Address>().is_ok_and(|address| own.iter().any(|known| known.to_folded() == address.to_folded()))
}

/// Nobody writes in another's name.
fn check_from(message: &[u8], own: &[Address]) -> Result<(), SetError> {
    let from = addresses(message, &["from"]);
    if from.is_empty() {
        return Err(SetError::new("invalidEmail", "the email has no sender"));
    }
    if from.iter().all(|address| is_own(address, own)) { Ok(()) } else { Err(SetError::new("forbiddenFrom", "")) }
}

fn envelope(given: Option<&Value>, message: &[u8], identity: &Address, own: &[Address]) -> Result<Envelope, SetError> {
    let given = given.filter(|value| !value.is_null());
    let hold = match given.and_then(|envelope| envelope.get("mailFrom")?.get("parameters")?.as_object()) {
        Some(parameters) => hold(parameters)?,
        None => None,
    };
    let (sender, recipients) = match given {
        None => (identity.to_string(), addresses(message, &["to", "cc", "bcc"])),
        Some(envelope) => {
            let email = |value: &Value| value.get("email").and_then(Value::as_str).map(str::to_owned);
            let wrong = || SetError::property("envelope", "must have mailFrom and rcptTo");
            let sender = envelope.get("mailFrom").and_then(email).ok_or_else(wrong)?;
            let list = envelope.get("rcptTo").and_then(Value::as_array).ok_or_else(wrong)?;
            (sender, list.iter().map(email).collect::<Option<Vec<_>>>().ok_or_else(wrong)?)
        }
    };
    let reverse_path = match sender.parse::<Address>() {
        Ok(address) if is_own(&sender, own) => ReversePath::Address(address),
        _ => return Err(SetError::new("forbiddenMailFrom", "")),
    };
    let (mut forward_paths, mut invalid) = (Vec::new(), Vec::new());
    for recipient in recipients {
        match recipient.parse::<Address>() {
            Ok(address) => {
                let path = ForwardPath::Address(address);
                if !forward_paths.contains(&path) {
                    forward_paths.push(path);
                }
            }
            Err(_) => invalid.push(recipient),
        }
    }
    if !invalid.is_empty() {
        return Err(SetError::new("invalidRecipients", invalid.join(", ")));
    }
    match forward_paths.len() {
        0 => return Err(SetError::new("noRecipients", "")),
        n if n > RECIPIENTS_MAX => return Err(SetError::new("tooManyRecipients", "at most 1000")),
        _ => {}
    }
    let has_utf8 = |path: &ForwardPath| matches!(path, ForwardPath::Address(a) if a.needs_smtputf8());
    let smtputf8 = forward_paths.iter().any(has_utf8) || !message.is_ascii();
    let body = if message.is_ascii() { BodyKind::SevenBit } else { BodyKind::EightBitMime };
    let wishes = Wishes { hold, ..Wishes::default() };
    Ok(Envelope { reverse_path, forward_paths, body, smtputf8, wishes })
}

/// RFC 4865 §4: names in any case.
fn hold(parameters: &Map<String, Value>) -> Result<Option<HoldWish>, SetError> {
    let wrong = |why: &str| SetError::property("envelope", why);
    let mut wish = None;
    for (name, value) in parameters {
        let value = value.as_str().unwrap_or_default();
        let new = match name.to_ascii_uppercase().as_str() {
            "HOLDFOR" => {
                let seconds = value.parse().map_err(|_| wrong("HOLDFOR is a number of seconds"))?;
                let span = Duration::from_secs(seconds);
                if span > DELAY_MAX {
                    return Err(wrong("HOLDFOR is longer than maxDelayedSend"));
                }
                HoldWish::For(span)
            }
            "HOLDUNTIL" => HoldWish::Until(date::parse_utc(value).ok_or_else(|| wrong("HOLDUNTIL is a time"))?),
            "BODY" | "SIZE" | "SMTPUTF8" => continue,
            _ => return Err(wrong("mailFrom has a parameter that is not known")),
        };
        if wish.replace(new).is_some() {
            return Err(wrong("HOLDFOR and HOLDUNTIL exclude each other"));
        }
    }
    Ok(wish)
}

/// Addresses in the header fields of these names.
fn addresses(message: &[u8], names: &[&str]) -> Vec<String> {
    let fields = HeaderFields::of(message).filter(|field| names.iter().any(|name| field.is(name)));
    fields
        .flat_map(|field| {
            let parsed = mail_parser::HeaderForm::Addresses.parse(field.value);
            let list = parsed.value().as_address();
            list.into_iter()
                .flat_map(|list| list.mailboxes())
                .filter_map(|mailbox| mailbox.address().map(str::to_owned))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// RFC 8621 §7.5: recipients must not learn of each other.
fn without_bcc(message: &Bytes) -> Bytes {
    let hidden: Vec<_> = HeaderFields::of(message).filter(|f| f.is("bcc") || f.is("resent-bcc")).collect();
    if hidden.is_empty() {
        return message.clone();
    }
    let mut out = Vec::with_capacity(message.len());
    let mut at = 0;
    for field in hidden {
        out.extend_from_slice(message.get(at..field.offset).unwrap_or_default());
        at = field.offset + field.raw.len();
    }
    out.extend_from_slice(message.get(at..).unwrap_or_default());
    out.into()
}
