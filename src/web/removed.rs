//! Removed messages and deleted folders, while they can be brought back: for their owner, and for administrators.

use std::collections::BTreeSet;
use std::sync::Arc;

use access::Right;
use axum::Json;
use axum::extract::{Query, State};
use directory::Account;
use mail::Address;
use mail::date::format_utc;
use mail::mime::{EnvelopeAddress, Summary, decode::decode_header_text};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{AppendError, EmailId, MailboxName, Removed};
use trail::Kind;

use crate::admin::{Parsed, parse, read, record_as};
use crate::auth::Viewer;
use crate::error::ApiError;
use crate::permission;
use crate::server::Inner;

/// Whose: one's own if not given.
#[derive(Deserialize)]
pub(crate) struct Of {
    account: Option<String>,
    limit: Option<usize>,
}

/// Messages by id, or a folder with those below it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Restore {
    account: Option<String>,
    #[serde(default)]
    ids: Vec<u64>,
    folder: Option<String>,
    into: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Purge {
    account: Option<String>,
    #[serde(default)]
    ids: Vec<u64>,
    /// Everything removed, folders too.
    #[serde(default)]
    all: bool,
}

const PAGE_MAX: usize = 1000;
/// Ids in one request.
const IDS_MAX: usize = 1000;

/// The account that the viewer may act for.
async fn account_of(web: &Inner, viewer: &Viewer, wanted: Option<&str>, right: Right) -> Result<Account, ApiError> {
    let Some(wanted) = wanted else { return Ok(viewer.account.clone()) };
    let address: Address = parse(wanted)?;
    if address.to_folded() == viewer.account.address.to_folded() {
        return Ok(viewer.account.clone());
    }
    let account = permission::account_at(web, &address).await?;
    viewer.require(right, account.position)?;
    Ok(account)
}

/// The log tells whether it was the owner or an administrator.
async fn record(web: &Inner, viewer: &Viewer, action: &str, account: &Account) {
    let kind = if account.id == viewer.account.id { Kind::OwnerChanged } else { Kind::Administered };
    record_as(web, viewer, kind, action, &account.address.to_string(), account.position).await;
}

pub(crate) async fn list(
    State(web): State<Arc<Inner>>,
    Query(of): Query<Of>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    let account = account_of(&web, &viewer, of.account.as_deref(), Right::ViewAccounts).await?;
    web.looked(&viewer, "removed", account.position, &account.address.to_string()).await?;
    let has_subjects = viewer.may(Right::ViewSubjects, account.position);
    let account = account.id;
    let mail = &web.services.storage.mail;
    let limit = of.limit.unwrap_or(200).clamp(1, PAGE_MAX);
    let mut messages = mail.removed(account, limit + 1).await?;
    let has_more = messages.len() > limit;
    messages.truncate(limit);
    let folders = mail.removed_mailboxes(account).await?;
    let there: BTreeSet<MailboxName> = mail.mailboxes(account).await?.into_iter().map(|one| one.name).collect();
    let folders: Vec<Value> = folders
        .iter()
        .filter(|one| one.messages > 0 || !there.contains(&one.name))
        .map(|one| json!({ "name": one.name.as_str(), "removedAt": format_utc(one.removed_at), "messages": one.messages }))
        .collect();
    let messages: Vec<Value> = messages.iter().map(|one| message_to_json(one, has_subjects)).collect();
    Ok(Json(json!({ "messages": messages, "folders": folders, "hasMore": has_more })))
}

pub(crate) async fn restore(
    State(web): State<Arc<Inner>>,
    viewer: Viewer,
    body: Parsed<Restore>,
) -> Result<Json<Value>, ApiError> {
    let body = read(body)?;
    let account = account_of(&web, &viewer, body.account.as_deref(), Right::ChangeAccounts).await?;
    let into = body.into.as_deref().map(parse::<MailboxName>).transpose()?;
    let (restored, mailboxes) = match (&body.folder, body.ids.as_slice()) {
        (Some(folder), []) => {
            let back = web.services.storage.restore_folder(account.id, &parse(folder)?, into.as_ref()).await;
            let back = back.map_err(refused)?;
            (back.messages, back.mailboxes)
        }
        (None, ids @ [_, ..]) if ids.len() <= IDS_MAX => {
            let ids = ids.iter().copied().map(EmailId).collect();
            let back = web.services.storage.mail.restore(account.id, ids, into).await.map_err(refused)?;
            let places: BTreeSet<MailboxName> = back.iter().map(|one| one.mailbox_name.clone()).collect();
            (back.len() as u64, places.into_iter().collect())
        }
        _ => return Err(ApiError::Invalid(format!("give 1 to {IDS_MAX} ids, or a folder"))),
    };
    record(&web, &viewer, "restore", &account).await;
    let mailboxes: Vec<&str> = mailboxes.iter().map(MailboxName::as_str).collect();
    Ok(Json(json!({ "restored": restored, "mailboxes": mailboxes })))
}

pub(crate) async fn purge(
    State(web): State<Arc<Inner>>,
    viewer: Viewer,
    body: Parsed<Purge>,
) -> Result<Json<Value>, ApiError> {
    let body = read(body)?;
    let account = account_of(&web, &viewer, body.account.as_deref(), Right::ChangeAccounts).await?;
    let ids = match (body.all, body.ids.len()) {
        (true, 0) => None,
        (false, 1..=IDS_MAX) => Some(body.ids.into_iter().map(EmailId).collect()),
        _ => return Err(ApiError::Invalid(format!("give 1 to {IDS_MAX} ids, or all"))),
    };
    let purged = web.services.storage.purge(account.id, ids).await?;
    record(&web, &viewer, "purge", &account).await;
    Ok(Json(json!({ "purged": purged })))
}

fn message_to_json(removed: &Removed, has_subject: bool) -> Value {
    let summary = Summary::decode(&removed.summary).ok();
    let envelope = summary.as_ref().map(|summary| &summary.envelope);
    let from = envelope.and_then(|envelope| envelope.from.iter().find_map(EnvelopeAddress::addr_spec));
    let subject = envelope.and_then(|envelope| envelope.subject.as_deref()).map(decode_header_text);
    let subject = subject.filter(|_| has_subject);
    json!({
        "id": removed.email.0,
        "removedAt": format_utc(removed.removed_at),
        "receivedAt": format_utc(removed.internal_date),
        "mailbox": removed.mailbox.as_str(),
        "from": from,
        "subject": subject,
        "size": removed.size_bytes,
    })
}

fn refused(error: AppendError) -> ApiError {
    match error {
        AppendError::NoMailbox => ApiError::NotFound,
        AppendError::OverQuota(_) => ApiError::Conflict(error.to_string()),
        AppendError::Store(error) => error.into(),
    }
}
