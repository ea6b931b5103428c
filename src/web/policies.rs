//! Policies and lists of senders: of the system, a tenant, a domain or a mailbox, by whoever may.

use std::sync::Arc;

use access::{Position, Right};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use policy::Word;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::{Parsed, read, record};
use crate::auth::Viewer;
use crate::error::ApiError;
use crate::operations::Desk;
use crate::permission;
use crate::server::Inner;

/// Whose policy; one's own if nothing is named.
#[derive(Deserialize, Default, Clone)]
pub(crate) struct Of {
    #[serde(default)]
    system: bool,
    tenant: Option<String>,
    domain: Option<String>,
    account: Option<String>,
    // Of lists.
    word: Option<String>,
    #[serde(default)]
    search: String,
    after: Option<i64>,
    below: Option<i64>,
    limit: Option<usize>,
}

/// Edits are those of the command line: `option`, `value`, `locked`, `floor`, `ceiling`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Patch {
    edits: Vec<Value>,
    #[serde(default)]
    note: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPlan {
    edits: Vec<Value>,
    at: String,
    #[serde(default)]
    note: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Replay {
    edits: Vec<Value>,
    days: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSender {
    word: String,
    who: String,
    #[serde(default)]
    unproven: bool,
    skips: Option<Vec<String>>,
    #[serde(default)]
    note: String,
    until: Option<String>,
}

const PAGE: usize = 100;
const PAGE_MAX: usize = 500;
const EDITS_MAX: usize = 200;

/// What the viewer asks of whom, found and allowed.
struct Asked {
    of: Value,
    position: Position,
    name: String,
}

impl Of {
    async fn ask(&self, web: &Inner, viewer: &Viewer, changes: bool) -> Result<Asked, ApiError> {
        let named = [self.system, self.tenant.is_some(), self.domain.is_some(), self.account.is_some()];
        if named.into_iter().filter(|is_named| *is_named).count() > 1 {
            return Err(ApiError::Invalid("give one of system, tenant, domain or account".to_owned()));
        }
        let own = || viewer.account.address.to_string();
        let (of, position, name) = if self.system {
            (json!({}), Position::SYSTEM, "system".to_owned())
        } else if let Some(name) = &self.tenant {
            (json!({ "tenant": name }), permission::tenant_position(web, name).await?, name.clone())
        } else if let Some(name) = &self.domain {
            (json!({ "domain": name }), permission::domain_position(web, name).await?, name.clone())
        } else {
            let name = self.account.clone().unwrap_or_else(own);
            let account = permission::account(web, &name).await?;
            (json!({ "account": account.address.to_string() }), account.position, account.address.to_string())
        };
        let right = match (position == Position::SYSTEM, changes) {
            (true, false) => Right::ViewSystemPolicy,
            (true, true) => Right::ChangeSystemPolicy,
            (false, false) => Right::ViewPolicy,
            (false, true) => Right::ChangePolicy,
        };
        viewer.require(right, position)?;
        Ok(Asked { of, position, name })
    }

    fn limit(&self) -> usize {
        self.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX)
    }
}

fn edits(edits: Vec<Value>) -> Result<Vec<Value>, ApiError> {
    match edits.len() {
        1..=EDITS_MAX => Ok(edits),
        _ => Err(ApiError::InvalidField { field: "edits".to_owned(), why: format!("give 1 to {EDITS_MAX} edits") }),
    }
}

/// The policy with its version as an entity tag.
fn shown(policy: Value) -> Response {
    let tag = policy.get("version").and_then(Value::as_u64).map(|version| format!("\"{version}\""));
    let mut response = Json(policy).into_response();
    if let Some(tag) = tag.and_then(|tag| tag.parse().ok()) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// The version that a change is made on: RFC 9110 §13.1.1.
fn version(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(tag) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let tag = tag.to_str().unwrap_or_default().trim();
    if tag == "*" {
        return Ok(None);
    }
    // A tag of ours is a number; another matches nothing.
    tag.trim_matches('"').parse().map(Some).map_err(|_| ApiError::Changed)
}

pub(crate) async fn options(State(web): State<Arc<Inner>>, _viewer: Viewer) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "options": web.operate(Desk::Policy, json!("options")).await? })))
}

pub(crate) async fn show(
    State(web): State<Arc<Inner>>,
    Query(of): Query<Of>,
    viewer: Viewer,
) -> Result<Response, ApiError> {
    let asked = of.ask(&web, &viewer, false).await?;
    Ok(shown(web.operate(Desk::Policy, json!({ "show": { "of": asked.of } })).await?))
}

pub(crate) async fn set(
    State(web): State<Arc<Inner>>,
    Query(of): Query<Of>,
    viewer: Viewer,
    headers: HeaderMap,
    body: Parsed<Patch>,
) -> Result<Response, ApiError> {
    let asked = of.ask(&web, &viewer, true).await?;
    let Patch { edits: wanted, note } = read(body)?;
    let request = json!({ "set": {
        "of": asked.of, "edits": edits(wanted)?, "note": note, "version": version(&headers)?,
        "by": viewer.account.address.to_string(),
    }});
    let policy = web.operate(Desk::Policy, request).await?;
    record(&web, &viewer, "set-policy", &asked.name, asked.position).await;
    Ok(shown(policy))
}

pub(crate) async fn history(
    State(web): State<Arc<Inner>>,
    Query(of): Query<Of>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    let asked = of.ask(&web, &viewer, false).await?;
    let request = json!({ "history": { "of": asked.of, "below": of.below, "limit": of.limit() } });
    Ok(Json(json!({ "changes": web.operate(Desk::Policy, request).await? })))
}

pub(crate) async fn undo(
    State(web): State<Arc<Inner>>,
    Path(change): Path<i64>,
    Query(of): Query<Of>,
    viewer: Viewer,
) -> Result<Response, ApiError> {
    let asked = of.ask(&web, &viewer, true).await?;
    let by = viewer.account.address.to_string();
    let policy = web.operate(Desk::Policy, json!({ "undo": { "of": asked.of, "change": change, "by": by } })).await?;
    record(&web, &viewer, "undo-policy", &asked.name, asked.position).await;
    Ok(shown(policy))
}

pub(crate) async fn plans(
    State(web): State<Arc<Inner>>,
    Query(of): Query<Of>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    let asked = of.ask(&web, &viewer, false).await?;
    Ok(Json(json!({ "plans": web.operate(Desk::Policy, json!({ "plans": { "of": asked.of } })).await? })))
}

pub(crate) async fn plan(
    State(web): State<Arc<Inner>>,
    Query(of): Query<Of>,
    viewer: Viewer,
    body: Parsed<NewPlan>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let asked = of.ask(&web, &viewer, true).await?;
    let NewPlan { edits: wanted, at, note } = read(body)?;
    let by = viewer.account.address.to_string();
    let request = json!({ "plan": { "of": asked.of, "edits": edits(wanted)?, "at": at, "note": note, "by": by } });
    let made = web.operate(Desk::Policy, request).await?;
    record(&web, &viewer, "plan-policy", &asked.name, asked.position).await;
    Ok((StatusCode::CREATED, Json(made)))
}

pub(crate) async fn unplan(
    State(web): State<Arc<Inner>>,
    Path(plan): Path<i64>,
    Query(of): Query<Of>,
    viewer: Viewer,
) -> Result<StatusCode, ApiError> {
    let asked = of.ask(&web, &viewer, true).await?;
    web.operate(Desk::Policy, json!({ "unplan": { "of": asked.of, "plan": plan } })).await?;
    record(&web, &viewer, "unplan-policy", &asked.name, asked.position).await;
    Ok(StatusCode::NO_CONTENT)
}

/// What edits would have made of the mail of the last days. Names messages: only for who sees these in the log.
pub(crate) async fn replay(
    State(web): State<Arc<Inner>>,
    Query(of): Query<Of>,
    viewer: Viewer,
    body: Parsed<Replay>,
) -> Result<Json<Value>, ApiError> {
    let asked = of.ask(&web, &viewer, false).await?;
    viewer.require(Right::ViewLog, asked.position)?;
    let Replay { edits: wanted, days } = read(body)?;
    let request = json!({ "replay": { "of": asked.of, "edits": edits(wanted)?, "days": days.unwrap_or(7) } });
    let mut found = web.operate(Desk::Policy, request).await?;
    if !viewer.may(Right::ViewSubjects, asked.position)
        && let Some(changes) = found.get_mut("changes").and_then(Value::as_array_mut)
    {
        for change in changes.iter_mut().filter_map(Value::as_object_mut) {
            change.remove("subject");
        }
    }
    Ok(Json(found))
}

pub(crate) async fn senders(
    State(web): State<Arc<Inner>>,
    Query(of): Query<Of>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    let asked = of.ask(&web, &viewer, false).await?;
    let request = json!({ "entries": {
        "of": asked.of, "word": of.word, "search": of.search, "after": of.after.unwrap_or(0), "limit": of.limit(),
    }});
    Ok(Json(json!({ "senders": web.operate(Desk::Policy, request).await? })))
}

pub(crate) async fn add_sender(
    State(web): State<Arc<Inner>>,
    Query(of): Query<Of>,
    viewer: Viewer,
    body: Parsed<NewSender>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let asked = of.ask(&web, &viewer, true).await?;
    let NewSender { word, who, unproven, skips, note, until } = read(body)?;
    let by = viewer.account.address.to_string();
    if Word::from_name(&word).is_none() {
        let why = format!("`{word}` is neither allow nor block");
        return Err(ApiError::InvalidField { field: "word".to_owned(), why });
    }
    let request = json!({ "list": {
        "of": asked.of, "word": word, "who": who, "unproven": unproven, "skips": skips, "note": note, "until": until, "by": by,
    }});
    let made = web.operate(Desk::Policy, request).await?;
    record(&web, &viewer, &format!("{word}-sender"), &format!("{who} for {}", asked.name), asked.position).await;
    Ok((StatusCode::CREATED, Json(made)))
}

pub(crate) async fn delete_sender(
    State(web): State<Arc<Inner>>,
    Path(entry): Path<i64>,
    Query(of): Query<Of>,
    viewer: Viewer,
) -> Result<StatusCode, ApiError> {
    let asked = of.ask(&web, &viewer, true).await?;
    let by = viewer.account.address.to_string();
    web.operate(Desk::Policy, json!({ "unlist": { "of": asked.of, "entry": entry, "by": by } })).await?;
    record(&web, &viewer, "unlist-sender", &asked.name, asked.position).await;
    Ok(StatusCode::NO_CONTENT)
}
