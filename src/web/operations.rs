//! The queue, keys and reports: for administrators, by the same operations as the command line.

use std::sync::Arc;

use access::{Position, Right};
use async_trait::async_trait;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::{Parsed, read, record};
use crate::auth::Viewer;
use crate::error::ApiError;
use crate::server::Inner;

/// What an operation is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Desk {
    Queue,
    Keys,
    Reports,
    Policy,
    Quarantine,
    People,
    Relay,
    Import,
}

/// Why something was not done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// `field`: what of the request is wrong, where that is known.
    Invalid {
        field: Option<String>,
        why: String,
    },
    Missing(String),
    Exists(String),
    /// What it was asked of is not as it was.
    Changed,
    Unavailable(String),
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid { field: Some(field), why } => Self::InvalidField { field, why },
            Refusal::Invalid { field: None, why } => Self::Invalid(why),
            Refusal::Missing(_) => Self::NotFound,
            Refusal::Exists(why) => Self::Conflict(why),
            Refusal::Changed => Self::Changed,
            Refusal::Unavailable(why) => {
                tracing::error!(event = "web.failed", error = why);
                Self::Failed
            }
        }
    }
}

/// Does what administrators ask for. Requests and answers are those of the command line, as JSON.
#[async_trait]
pub trait Operations: Send + Sync {
    /// # Errors
    /// [`Refusal`].
    async fn operate(&self, desk: Desk, request: Value) -> Result<Value, Refusal>;
}

/// Which recipients; all of them fit.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    #[serde(default)]
    from: Option<String>,
    to: Option<String>,
    lane: Option<String>,
    state: Option<String>,
    status: Option<String>,
    subject: Option<String>,
    account: Option<String>,
    /// In the queue for so many seconds.
    older: Option<u64>,
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Act {
    action: String,
    #[serde(default)]
    ids: Vec<String>,
    #[serde(default, rename = "where")]
    which: Option<Which>,
    reason: Option<String>,
    /// A route or a domain.
    lane: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct LaneQuery {
    #[serde(default)]
    all: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LanePatch {
    suspended: bool,
    reason: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct KeyQuery {
    domain: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKeys {
    domain: String,
    selector: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyPatch {
    /// `active` or `retired`.
    state: String,
    #[serde(default)]
    unchecked: bool,
}

#[derive(Deserialize)]
pub(crate) struct ReportQuery {
    kind: Option<String>,
    domain: Option<String>,
    days: Option<u32>,
}

const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1000;
const DAYS: u32 = 30;
const BY_ADMINISTRATOR: &str = "an administrator";
const STOPPED: &str = "The administrator has stopped the delivery";

impl Which {
    fn is_empty(&self) -> bool {
        let Self { from, to, lane, state, status, subject, account, older, .. } = self;
        [from, to, lane, state, status, subject, account].iter().all(|one| one.is_none()) && older.is_none()
    }

    fn request(&self, ids: &[String]) -> Value {
        json!({
            "ids": ids, "from": self.from, "to": self.to, "lane": self.lane, "state": self.state, "status": self.status,
            "subject": self.subject, "account": self.account, "older_ms": self.older.map(|seconds| seconds.saturating_mul(1000)),
        })
    }
}

/// Where a domain is; what is none of the directory's is the system's.
async fn place_of(web: &Inner, domain: Option<&str>) -> Position {
    match domain {
        Some(domain) => crate::permission::domain_position(web, domain).await.unwrap_or(Position::SYSTEM),
        None => Position::SYSTEM,
    }
}

impl Inner {
    pub(crate) async fn operate(&self, desk: Desk, request: Value) -> Result<Value, ApiError> {
        let operations = self.operations.get().ok_or(ApiError::Busy)?;
        Ok(operations.operate(desk, request).await?)
    }
}

pub(crate) async fn recipients(
    State(web): State<Arc<Inner>>,
    Query(which): Query<Which>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    viewer.require(Right::ViewQueue, Position::SYSTEM)?;
    let limit = which.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    let list = json!({ "list": { "which": which.request(&[]), "after": which.after, "limit": limit } });
    Ok(Json(json!({ "recipients": web.operate(Desk::Queue, list).await? })))
}

pub(crate) async fn counts(
    State(web): State<Arc<Inner>>,
    Query(which): Query<Which>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    viewer.require(Right::ViewQueue, Position::SYSTEM)?;
    Ok(Json(web.operate(Desk::Queue, json!({ "status": { "which": which.request(&[]) } })).await?))
}

pub(crate) async fn queued_message(
    State(web): State<Arc<Inner>>,
    Path(id): Path<String>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    viewer.require(Right::ViewQueue, Position::SYSTEM)?;
    Ok(Json(web.operate(Desk::Queue, json!({ "show": { "id": id } })).await?))
}

pub(crate) async fn lanes(
    State(web): State<Arc<Inner>>,
    Query(LaneQuery { all }): Query<LaneQuery>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    viewer.require(Right::ViewQueue, Position::SYSTEM)?;
    Ok(Json(json!({ "lanes": web.operate(Desk::Queue, json!({ "lanes": { "all": all } })).await? })))
}

pub(crate) async fn set_lane(
    State(web): State<Arc<Inner>>,
    Path(lane): Path<String>,
    viewer: Viewer,
    body: Parsed<LanePatch>,
) -> Result<StatusCode, ApiError> {
    viewer.require(Right::ChangeQueue, Position::SYSTEM)?;
    let LanePatch { suspended, reason } = read(body)?;
    let reason = reason.unwrap_or_else(|| viewer.account.address.to_string());
    let request = match suspended {
        true => json!({ "suspend": { "lane": lane, "reason": reason } }),
        false => json!({ "resume": { "lane": lane } }),
    };
    web.operate(Desk::Queue, request).await?;
    record(&web, &viewer, if suspended { "suspend-lane" } else { "resume-lane" }, &lane, Position::SYSTEM).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Does something to messages, or to single recipients of them.
pub(crate) async fn act(
    State(web): State<Arc<Inner>>,
    viewer: Viewer,
    body: Parsed<Act>,
) -> Result<Json<Value>, ApiError> {
    viewer.require(Right::RetryQueue, Position::SYSTEM)?;
    let Act { action, ids, which, reason, lane } = read(body)?;
    let which = which.unwrap_or_default();
    if action != "retry" {
        viewer.require(Right::ChangeQueue, Position::SYSTEM)?;
    }
    if ids.is_empty() && which.is_empty() {
        return Err(ApiError::Invalid("say which: `ids`, or conditions in `where`".to_owned()));
    }
    let reason = |usual: &str| reason.clone().unwrap_or_else(|| usual.to_owned());
    let wanted = match action.as_str() {
        "retry" | "release" | "delete" => json!(action),
        "hold" => json!({ "hold": { "reason": reason(BY_ADMINISTRATOR) } }),
        "bounce" => json!({ "bounce": { "reason": reason(STOPPED) } }),
        "reroute" => {
            let lane = lane.ok_or_else(|| ApiError::Invalid("`reroute` needs a `lane`".to_owned()))?;
            json!({ "reroute": { "to": lane } })
        }
        _ => {
            let known = "retry, hold, release, reroute, bounce or delete";
            return Err(ApiError::Invalid(format!("`{action}` is no action: {known}")));
        }
    };
    let request = json!({ "act": { "which": which.request(&ids), "action": wanted } });
    let done = web.operate(Desk::Queue, request).await?;
    let object = if ids.is_empty() { which.request(&[]).to_string() } else { ids.join(", ") };
    record(&web, &viewer, &format!("queue-{action}"), &object, Position::SYSTEM).await;
    Ok(Json(done))
}

pub(crate) async fn keys(
    State(web): State<Arc<Inner>>,
    Query(KeyQuery { domain }): Query<KeyQuery>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    viewer.require(Right::ViewDomains, place_of(&web, domain.as_deref()).await)?;
    Ok(Json(json!({ "keys": web.operate(Desk::Keys, json!({ "list": { "domain": domain } })).await? })))
}

pub(crate) async fn add_keys(
    State(web): State<Arc<Inner>>,
    viewer: Viewer,
    body: Parsed<NewKeys>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    viewer.within(Right::ChangeDomains)?;
    let NewKeys { domain, selector } = read(body)?;
    viewer.require(Right::ChangeDomains, place_of(&web, Some(&domain)).await)?;
    let request = json!({ "create": { "domain": domain, "selector": selector } });
    let made = web.operate(Desk::Keys, request).await?;
    record(&web, &viewer, "add-keys", &domain, place_of(&web, Some(&domain)).await).await;
    Ok((StatusCode::CREATED, Json(json!({ "keys": made }))))
}

/// What the DNS has of a domain's keys now.
pub(crate) async fn check_keys(
    State(web): State<Arc<Inner>>,
    Path(domain): Path<String>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    viewer.require(Right::ViewDomains, place_of(&web, Some(&domain)).await)?;
    Ok(Json(json!({ "keys": web.operate(Desk::Keys, json!({ "check": { "domain": domain } })).await? })))
}

pub(crate) async fn set_key(
    State(web): State<Arc<Inner>>,
    Path((domain, selector)): Path<(String, String)>,
    viewer: Viewer,
    body: Parsed<KeyPatch>,
) -> Result<Json<Value>, ApiError> {
    viewer.require(Right::ChangeDomains, place_of(&web, Some(&domain)).await)?;
    let KeyPatch { state, unchecked } = read(body)?;
    let request = match state.as_str() {
        "active" => json!({ "activate": { "domain": domain, "selector": selector, "unchecked": unchecked } }),
        "retired" => json!({ "retire": { "domain": domain, "selector": selector } }),
        _ => return Err(ApiError::Invalid("`state` is active or retired".to_owned())),
    };
    let changed = web.operate(Desk::Keys, request).await?;
    let place = place_of(&web, Some(&domain)).await;
    record(&web, &viewer, &format!("key-{state}"), &format!("{selector}._domainkey.{domain}"), place).await;
    Ok(Json(changed))
}

pub(crate) async fn delete_key(
    State(web): State<Arc<Inner>>,
    Path((domain, selector)): Path<(String, String)>,
    viewer: Viewer,
) -> Result<StatusCode, ApiError> {
    viewer.require(Right::ChangeDomains, place_of(&web, Some(&domain)).await)?;
    web.operate(Desk::Keys, json!({ "delete": { "domain": domain, "selector": selector } })).await?;
    let place = place_of(&web, Some(&domain)).await;
    record(&web, &viewer, "delete-key", &format!("{selector}._domainkey.{domain}"), place).await;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn reports(
    State(web): State<Arc<Inner>>,
    Query(ReportQuery { kind, domain, days }): Query<ReportQuery>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    viewer.require(Right::ViewDomains, place_of(&web, domain.as_deref()).await)?;
    let (kind, days) = (kind.unwrap_or_else(|| "dmarc".to_owned()), days.unwrap_or(DAYS));
    let request = json!({ "list": { "kind": kind, "domain": domain, "days": days } });
    Ok(Json(json!({ "reports": web.operate(Desk::Reports, request).await? })))
}

/// What all reports about a domain say together.
pub(crate) async fn report_sums(
    State(web): State<Arc<Inner>>,
    Path((kind, domain)): Path<(String, String)>,
    Query(ReportQuery { days, .. }): Query<ReportQuery>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    viewer.require(Right::ViewDomains, place_of(&web, Some(&domain)).await)?;
    let request = json!({ "sum": { "kind": kind, "domain": domain, "days": days.unwrap_or(DAYS) } });
    Ok(Json(json!({ "rows": web.operate(Desk::Reports, request).await? })))
}
