//! Messages that are held: seen, let out and let go by their owner, and by who answers for the owner.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use access::{Position, Reach, Right};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use base::AccountId;
use policy::ReleasedBy;
use policy::option::AdminPreview;
use serde::Deserialize;
use serde_json::{Value, json};
use store::{Held, HeldId, HeldMessage};

use crate::admin::{Parsed, read, record};
use crate::auth::Viewer;
use crate::error::ApiError;
use crate::operations::Desk;
use crate::permission;
use crate::sanitize::{self, Remote};
use crate::security::{DOWNLOAD_POLICY, message_policy, set_policy};
use crate::server::Inner;

/// Which messages; one's own if nothing is named.
#[derive(Deserialize)]
pub(crate) struct Which {
    account: Option<String>,
    domain: Option<String>,
    /// All that the viewer answers for.
    #[serde(default)]
    all: bool,
    reason: Option<String>,
    #[serde(default)]
    search: String,
    /// Only those that their owner asks for.
    #[serde(default)]
    asked: bool,
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Act {
    /// `release`, `delete` or `ask`.
    action: String,
    ids: Vec<String>,
    /// The level on whose list the senders are put: `mailbox`, `domain` and above.
    allow: Option<String>,
    block: Option<String>,
    #[serde(default)]
    despite_virus: bool,
}

const PAGE: usize = 50;
const PAGE_MAX: usize = 500;
const IDS_MAX: usize = 500;

fn parse_id(text: &str) -> Result<HeldId, ApiError> {
    text.parse().map_err(|_| ApiError::NotFound)
}

/// What is needed to let a message out that is held for such a reason.
const fn right_to_release(by: ReleasedBy) -> Right {
    match by {
        ReleasedBy::Owner => Right::ReleaseSpam,
        ReleasedBy::Admin => Right::ReleaseFiles,
        ReleasedBy::Staff => Right::ReleaseHarm,
    }
}

impl Which {
    async fn request(&self, web: &Inner, viewer: &Viewer) -> Result<Value, ApiError> {
        let mut which = json!({ "reason": self.reason, "search": self.search, "asked": self.asked });
        let (name, value) = if let Some(address) = &self.account {
            let account = permission::account(web, address).await?;
            viewer.require(Right::ViewQuarantine, account.position)?;
            web.looked(viewer, "quarantine", account.position, address).await?;
            ("account_id", json!(account.id.0))
        } else if let Some(name) = &self.domain {
            let position = permission::domain_position(web, name).await?;
            viewer.require(Right::ViewQuarantine, position)?;
            web.looked(viewer, "quarantine", position, name).await?;
            ("domain", json!(name))
        } else if self.all {
            let reaches = access::reach(viewer.grants(), Right::ViewQuarantine);
            if reaches.is_empty() {
                return Err(ApiError::Forbidden);
            }
            if reaches.contains(&Reach::System) {
                web.looked(viewer, "quarantine", Position::SYSTEM, "system").await?;
            }
            match permission::domains(web, &reaches).await? {
                None => return Ok(which),
                Some(domains) => {
                    let ids: BTreeSet<u64> = domains.iter().map(|(id, _)| id.0).collect();
                    ("domains", json!(ids))
                }
            }
        } else {
            ("account_id", json!(viewer.account.id.0))
        };
        if let Some(fields) = which.as_object_mut() {
            fields.insert(name.to_owned(), value);
        }
        Ok(which)
    }
}

pub(crate) async fn list(
    State(web): State<Arc<Inner>>,
    Query(which): Query<Which>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    let limit = which.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let wanted = which.request(&web, &viewer).await?;
    let request = json!({ "list": { "which": wanted, "after": which.after, "limit": limit } });
    let mut page = web.operate(Desk::Quarantine, request).await?;
    // Whose each is, and what the viewer may do with it.
    let mut positions: HashMap<u64, Option<Position>> = HashMap::new();
    if let Some(messages) = page.get_mut("messages").and_then(Value::as_array_mut) {
        for message in messages.iter_mut().filter_map(Value::as_object_mut) {
            let owner = message.get("account").and_then(Value::as_u64).unwrap_or_default();
            let position = match positions.get(&owner) {
                Some(known) => *known,
                None => {
                    let found = permission::account_by_id(&web, AccountId(owner)).await.ok();
                    let position = found.map(|account| account.position);
                    positions.insert(owner, position);
                    position
                }
            };
            let reason = message.get("reason").and_then(Value::as_str).unwrap_or_default();
            let right = right_to_release(ReleasedBy::of_reason(reason));
            let may = |right| position.is_some_and(|position| viewer.may(right, position));
            let (releases, sees) = (may(right), may(Right::ViewSubjects));
            message.insert("mayRelease".to_owned(), json!(releases));
            if !sees {
                message.remove("subject");
            }
        }
    }
    Ok(Json(page))
}

pub(crate) async fn counts(
    State(web): State<Arc<Inner>>,
    Query(which): Query<Which>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    let wanted = which.request(&web, &viewer).await?;
    Ok(Json(web.operate(Desk::Quarantine, json!({ "counts": { "which": wanted } })).await?))
}

async fn find(web: &Inner, viewer: &Viewer, id: HeldId) -> Result<(HeldMessage, Position), ApiError> {
    let account = permission::account_by_id(web, id.account).await?;
    viewer.require(Right::ViewQuarantine, account.position)?;
    let held = web.services.storage.held.held_message(id).await?.ok_or(ApiError::NotFound)?;
    Ok((held, account.position))
}

pub(crate) async fn show(
    State(web): State<Arc<Inner>>,
    Path(id): Path<String>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    let (HeldMessage { held, .. }, position) = find(&web, &viewer, parse_id(&id)?).await?;
    web.looked(&viewer, "held-message", position, &held.facts.recipient).await?;
    let mut out = web.operate(Desk::Quarantine, json!({ "show": { "id": id } })).await?;
    if let Some(fields) = out.as_object_mut() {
        let right = right_to_release(ReleasedBy::of_reason(&held.facts.reason));
        fields.insert("mayRelease".to_owned(), json!(viewer.may(right, position)));
        fields.insert("mayView".to_owned(), json!(may_view(&web, &viewer, position).await?));
        if !viewer.may(Right::ViewSubjects, position) {
            fields.remove("subject");
        }
    }
    Ok(Json(out))
}

/// The owner sees the text; another only if that is allowed to who administers the domain.
async fn may_view(web: &Inner, viewer: &Viewer, position: Position) -> Result<bool, ApiError> {
    if position.account == Some(viewer.account.id) {
        return Ok(true);
    }
    let preview = web.services.layers.effective(position).await?.admin_preview();
    Ok(viewer.may(Right::ViewContent, position) && preview == AdminPreview::On)
}

/// A message that the viewer may read; if it is another's, that is put on record.
async fn read_held(web: &Inner, viewer: &Viewer, id: &str) -> Result<HeldMessage, ApiError> {
    let (held, position) = find(web, viewer, parse_id(id)?).await?;
    if !may_view(web, viewer, position).await? {
        return Err(ApiError::Forbidden);
    }
    if position.account != Some(viewer.account.id) {
        record(web, viewer, "view-held", &held.held.facts.recipient, position).await;
    }
    Ok(held)
}

/// The whole message as it would be delivered, to be kept as a file.
pub(crate) async fn source(
    State(web): State<Arc<Inner>>,
    Path(id): Path<String>,
    viewer: Viewer,
) -> Result<Response, ApiError> {
    let held = read_held(&web, &viewer, &id).await?;
    // A file that is not to be let out does not get out this way either.
    let facts = &held.held.facts;
    if matches!(facts.reason.as_str(), "virus" | "attachment" | "suspicious") {
        let position = permission::account_by_id(&web, held.held.id.account).await?.position;
        viewer.require(right_to_release(ReleasedBy::of_reason(&facts.reason)), position)?;
    }
    let content = web.services.storage.original(&held.entry).read(0..u64::MAX).await?;
    let mut response = Response::new(Body::from(content));
    let headers = response.headers_mut();
    // Nothing that a browser shows by itself.
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"message.eml\""));
    set_policy(headers, DOWNLOAD_POLICY);
    Ok(response)
}

/// The text as a page without scripts, pictures or links that work: somebody may have meant harm.
pub(crate) async fn body(
    State(web): State<Arc<Inner>>,
    Path(id): Path<String>,
    viewer: Viewer,
) -> Result<Response, ApiError> {
    let held = read_held(&web, &viewer, &id).await?;
    let shown = web.services.jmap.readable_entry(&held.entry).await?;
    let (text, is_html) = (shown.text.text, shown.is_html);
    let page = tokio::task::spawn_blocking(move || {
        if is_html { sanitize::html_page(&text, Remote::Blocked, None, |_| None) } else { sanitize::text_page(&text) }
    });
    let mut response = Html(page.await.map_err(|_| ApiError::Failed)?).into_response();
    set_policy(response.headers_mut(), &message_policy(""));
    Ok(response)
}

/// Lets messages out, lets them go, or asks those who may to let them out. All or nothing of it is allowed.
pub(crate) async fn act(
    State(web): State<Arc<Inner>>,
    viewer: Viewer,
    body: Parsed<Act>,
) -> Result<Json<Value>, ApiError> {
    let act = read(body)?;
    if act.ids.is_empty() || act.ids.len() > IDS_MAX {
        return Err(ApiError::InvalidField { field: "ids".to_owned(), why: format!("give 1 to {IDS_MAX} ids") });
    }
    let mut found = Vec::with_capacity(act.ids.len());
    for id in &act.ids {
        let id = parse_id(id)?;
        match find(&web, &viewer, id).await {
            Ok((held, position)) => found.push((held.held, position)),
            // Somebody else was faster.
            Err(ApiError::NotFound) if act.ids.len() > 1 => {}
            Err(error) => return Err(error),
        }
    }
    let by = viewer.account.address.to_string();
    let request = match act.action.as_str() {
        "release" => {
            for (held, position) in &found {
                viewer.require(right_to_release(ReleasedBy::of_reason(&held.facts.reason)), *position)?;
                check_list(&viewer, act.allow.as_deref(), *position)?;
                if act.despite_virus {
                    viewer.require(Right::ReleaseHarm, *position)?;
                }
            }
            let teaches = found.iter().all(|(held, _)| held.facts.reason == "spam");
            json!({ "release": {
                "ids": ids(&found), "by": by, "despite_virus": act.despite_virus, "teaches": teaches, "allow": act.allow,
            }})
        }
        "delete" => {
            for (_, position) in &found {
                // Who may let spam out may also throw it away.
                viewer.require(Right::ReleaseSpam, *position)?;
                check_list(&viewer, act.block.as_deref(), *position)?;
            }
            json!({ "delete": { "ids": ids(&found), "by": by, "block": act.block } })
        }
        "ask" => {
            if found.iter().any(|(held, _)| held.id.account != viewer.account.id) {
                return Err(ApiError::Forbidden);
            }
            json!({ "ask": { "ids": ids(&found) } })
        }
        other => {
            let why = format!("`{other}` is no action: release, delete or ask");
            return Err(ApiError::InvalidField { field: "action".to_owned(), why });
        }
    };
    let done = web.operate(Desk::Quarantine, request).await?;
    for (held, position) in &found {
        let action = format!("{}-held", act.action);
        record(&web, &viewer, &action, &format!("{} for {}", held.id, held.facts.recipient), *position).await;
    }
    Ok(Json(done))
}

fn ids(found: &[(Held, Position)]) -> Vec<String> {
    found.iter().map(|(held, _)| held.id.to_string()).collect()
}

/// Whether the viewer may change the list of a level above a message's owner.
fn check_list(viewer: &Viewer, level: Option<&str>, position: Position) -> Result<(), ApiError> {
    let Some(level) = level else { return Ok(()) };
    let above = match level {
        "mailbox" => position,
        "domain" => position.without_account(),
        "customer" => Position { domain: None, account: None, ..position },
        "reseller" => Position { reseller: position.reseller, ..Position::SYSTEM },
        "system" => return viewer.require(Right::ChangeSystemPolicy, Position::SYSTEM),
        _ => {
            let why = "a list is of a mailbox, domain, customer, reseller or the system".to_owned();
            return Err(ApiError::Invalid(why));
        }
    };
    viewer.require(Right::ChangePolicy, above)
}
