//! What belongs to people beside their mail: roles, passwords of programs, tokens, a second factor, forwards, browsers that are
//! signed in; and what is on record about them.

use std::collections::BTreeSet;
use std::sync::Arc;

use access::{Grant, Right, Role};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use base::Secret;
use directory::{Account, AccountChange, RegistryError, session_name};
use mail::date::format_utc;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::{Parsed, hash, read, record};
use crate::auth::Viewer;
use crate::error::ApiError;
use crate::operations::Desk;
use crate::permission;
use crate::server::Inner;

/// Whose: one's own if not given.
#[derive(Deserialize)]
pub(crate) struct Of {
    account: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoleBody {
    account: String,
    role: String,
    tenant: Option<String>,
    domain: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewAppPassword {
    name: String,
    protocols: Vec<String>,
    until: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    name: String,
    scopes: Vec<String>,
    until: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Code {
    code: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Proof {
    password: String,
    code: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPassword {
    password: String,
    new: String,
    code: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForwardsBody {
    targets: Vec<String>,
    #[serde(default = "yes")]
    keeps: bool,
}

#[derive(Deserialize)]
pub(crate) struct AuditQuery {
    below: Option<i64>,
    limit: Option<u32>,
}

const AUDIT_PAGE: u32 = 100;
const AUDIT_PAGE_MAX: u32 = 1000;

const fn yes() -> bool {
    true
}

impl Viewer {
    /// Whether all that an account may do, the viewer could give it: only then does it change how that account is opened.
    pub async fn require_above(&self, web: &Inner, account: &Account) -> Result<(), ApiError> {
        if account.id == self.account.id {
            return Ok(());
        }
        for grant in &account.grants {
            let position = web.services.registry.reach_position(grant.reach).await?.ok_or(ApiError::NotFound)?;
            if !access::may_grant(self.grants(), *grant, position) {
                return Err(ApiError::Forbidden);
            }
        }
        Ok(())
    }
}

/// An account that the viewer may look at; for what opens it, somebody above.
async fn account_of(web: &Inner, viewer: &Viewer, of: &Of, right: Right) -> Result<Account, ApiError> {
    let Some(address) = &of.account else { return Ok(viewer.account.clone()) };
    let account = permission::account(web, address).await?;
    if account.id != viewer.account.id {
        viewer.require(right, account.position)?;
    }
    Ok(account)
}

/// Who signed in as a person: a token made for a program changes nothing of what opens the account.
fn require_person(viewer: &Viewer) -> Result<(), ApiError> {
    if viewer.is_program { Err(ApiError::Forbidden) } else { Ok(()) }
}

pub(crate) async fn me(State(web): State<Arc<Inner>>, viewer: Viewer) -> Result<Json<Value>, ApiError> {
    let account = &viewer.account;
    let roles = web.operate(Desk::People, json!({ "roles": { "account": account.address.to_string() } })).await?;
    Ok(Json(json!({
        "address": account.address.to_string(), "name": account.name, "roles": roles,
        "secondFactor": account.has_second_factor, "lacksSecondFactor": viewer.lacks_second_factor(),
    })))
}

/// Proves that whoever sits at the browser is its owner.
async fn prove(web: &Inner, viewer: &Viewer, password: String, code: Option<&str>) -> Result<(), ApiError> {
    require_person(viewer)?;
    let (password, name) = (Secret::new(password), viewer.account.address.to_string());
    crate::auth::sign_in(web, viewer.peer, &name, &password, code).await.map(drop)
}

pub(crate) async fn set_password(
    State(web): State<Arc<Inner>>,
    viewer: Viewer,
    body: Parsed<NewPassword>,
) -> Result<StatusCode, ApiError> {
    let NewPassword { password, new, code } = read(body)?;
    prove(&web, &viewer, password, code.as_deref()).await?;
    let change = AccountChange { password: Some(hash(Secret::new(new)).await?), ..AccountChange::default() };
    web.services.registry.set_account(&viewer.account.address, change).await?;
    record(&web, &viewer, "set-password", &viewer.account.address.to_string(), viewer.account.position).await;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn begin_second_factor(
    State(web): State<Arc<Inner>>,
    viewer: Viewer,
    body: Parsed<Proof>,
) -> Result<Json<Value>, ApiError> {
    let Proof { password, code } = read(body)?;
    prove(&web, &viewer, password, code.as_deref()).await?;
    let request = json!({ "begin-second-factor": { "account": viewer.account.address.to_string() } });
    Ok(Json(web.operate(Desk::People, request).await?))
}

pub(crate) async fn confirm_second_factor(
    State(web): State<Arc<Inner>>,
    viewer: Viewer,
    body: Parsed<Code>,
) -> Result<Json<Value>, ApiError> {
    require_person(&viewer)?;
    let address = viewer.account.address.to_string();
    let request = json!({ "confirm-second-factor": { "account": address, "code": read(body)?.code } });
    let codes = web.operate(Desk::People, request).await?;
    record(&web, &viewer, "add-second-factor", &address, viewer.account.position).await;
    Ok(Json(codes))
}

/// One's own, with the password and a code; another's by who may reset its password.
pub(crate) async fn delete_second_factor(
    State(web): State<Arc<Inner>>,
    viewer: Viewer,
    body: Parsed<Proof>,
) -> Result<StatusCode, ApiError> {
    let Proof { password, code } = read(body)?;
    prove(&web, &viewer, password, code.as_deref()).await?;
    remove_second_factor(&web, &viewer, &viewer.account).await
}

pub(crate) async fn delete_second_factor_of(
    State(web): State<Arc<Inner>>,
    Path(address): Path<String>,
    viewer: Viewer,
) -> Result<StatusCode, ApiError> {
    let account = permission::account(&web, &address).await?;
    viewer.require(Right::ResetPassword, account.position)?;
    viewer.require_above(&web, &account).await?;
    if account.id == viewer.account.id {
        return Err(ApiError::Forbidden);
    }
    remove_second_factor(&web, &viewer, &account).await
}

async fn remove_second_factor(web: &Inner, viewer: &Viewer, account: &Account) -> Result<StatusCode, ApiError> {
    web.services.registry.delete_second_factor(account.id).await?;
    record(web, viewer, "delete-second-factor", &account.address.to_string(), account.position).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Browsers that are signed in with the viewer's account.
pub(crate) async fn sessions(State(web): State<Arc<Inner>>, viewer: Viewer) -> Result<Json<Value>, ApiError> {
    let own = viewer.session.as_ref().map(|session| session_name(&session.digest));
    let found = web.services.registry.web_sessions(viewer.account.id).await?;
    let shown: Vec<Value> = found
        .iter()
        .map(|(name, opened, used)| {
            json!({
                "id": name, "opened": format_utc(*opened), "used": format_utc(*used), "this": own.as_ref() == Some(name),
            })
        })
        .collect();
    Ok(Json(json!({ "sessions": shown })))
}

/// Signs a browser out; `others`: all but this.
pub(crate) async fn close_session(
    State(web): State<Arc<Inner>>,
    Path(id): Path<String>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    require_person(&viewer)?;
    let own = viewer.session.as_ref().map(|session| session_name(&session.digest));
    let is_wanted = |name: &str| if id == "others" { own.as_deref() != Some(name) } else { name == id };
    let closed = web.services.registry.close_web_sessions(viewer.account.id, is_wanted).await?;
    web.sessions.forget();
    if closed == 0 && id != "others" {
        return Err(ApiError::NotFound);
    }
    Ok(Json(json!({ "closed": closed })))
}

pub(crate) async fn roles(
    State(web): State<Arc<Inner>>,
    Query(of): Query<Of>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    if of.account.is_some() {
        let account = account_of(&web, &viewer, &of, Right::ViewAccounts).await?;
        let request = json!({ "roles": { "account": account.address.to_string() } });
        return Ok(Json(json!({ "roles": web.operate(Desk::People, request).await? })));
    }
    viewer.within(Right::ViewAccounts)?;
    let mut seen = BTreeSet::new();
    for entry in web.services.registry.grants(None).await? {
        let address = entry.address.to_string();
        if !seen.contains(&address)
            && viewer.may(Right::ViewAccounts, permission::account_by_id(&web, entry.account).await?.position)
        {
            seen.insert(address);
        }
    }
    let mut all = web.operate(Desk::People, json!({ "roles": {} })).await?;
    if let Some(all) = all.as_array_mut() {
        all.retain(|role| role.get("account").and_then(Value::as_str).is_some_and(|account| seen.contains(account)));
    }
    Ok(Json(json!({ "roles": all })))
}

/// Checks that the viewer may give or take a role.
async fn grant_of(web: &Inner, viewer: &Viewer, body: &RoleBody) -> Result<(Account, Grant), ApiError> {
    let invalid = |field: &str, why: String| ApiError::InvalidField { field: field.to_owned(), why };
    let role = Role::from_name(&body.role);
    let role = role.ok_or_else(|| {
        let names: Vec<&str> = Role::ALL.into_iter().map(Role::as_str).collect();
        invalid("role", format!("`{}` is no role: {}", body.role, names.join(", ")))
    })?;
    if body.tenant.is_some() && body.domain.is_some() {
        return Err(invalid("domain", "give a tenant or a domain".to_owned()));
    }
    let domain = body.domain.as_deref().map(|name| name.parse().map_err(|_| ApiError::NotFound)).transpose()?;
    let (reach, position) = web.services.registry.reach(body.tenant.as_deref(), domain.as_ref()).await?;
    let account = permission::account(web, &body.account).await?;
    viewer.require(Right::ChangeAccounts, account.position)?;
    let grant = Grant { role, reach };
    if !role.fits(reach) {
        return Err(invalid("role", format!("the role {} is not held there", role.as_str())));
    }
    if !access::may_grant(viewer.grants(), grant, position) {
        return Err(ApiError::Forbidden);
    }
    Ok((account, grant))
}

pub(crate) async fn grant(
    State(web): State<Arc<Inner>>,
    viewer: Viewer,
    body: Parsed<RoleBody>,
) -> Result<StatusCode, ApiError> {
    viewer.within(Right::ChangeAccounts)?;
    let body = read(body)?;
    let (account, grant) = grant_of(&web, &viewer, &body).await?;
    let by = viewer.account.address.to_string();
    web.services.registry.grant(account.id, grant, &by).await?;
    record(&web, &viewer, "grant-role", &format!("{} {}", body.role, account.address), account.position).await;
    Ok(StatusCode::CREATED)
}

pub(crate) async fn revoke(
    State(web): State<Arc<Inner>>,
    Query(body): Query<RoleBody>,
    viewer: Viewer,
) -> Result<StatusCode, ApiError> {
    let (account, grant) = grant_of(&web, &viewer, &body).await?;
    web.services.registry.revoke(account.id, grant).await?;
    record(&web, &viewer, "revoke-role", &format!("{} {}", body.role, account.address), account.position).await;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn app_passwords(
    State(web): State<Arc<Inner>>,
    Query(of): Query<Of>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    let account = account_of(&web, &viewer, &of, Right::ViewAccounts).await?;
    let request = json!({ "app-passwords": { "account": account.address.to_string() } });
    Ok(Json(json!({ "appPasswords": web.operate(Desk::People, request).await? })))
}

pub(crate) async fn add_app_password(
    State(web): State<Arc<Inner>>,
    viewer: Viewer,
    body: Parsed<NewAppPassword>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    require_person(&viewer)?;
    let NewAppPassword { name, protocols, until } = read(body)?;
    let address = viewer.account.address.to_string();
    let request = json!({ "add-app-password": {
        "account": address, "name": name, "protocols": protocols, "until": until,
    }});
    let made = web.operate(Desk::People, request).await?;
    record(&web, &viewer, "add-app-password", &format!("{name} of {address}"), viewer.account.position).await;
    Ok((StatusCode::CREATED, Json(made)))
}

pub(crate) async fn delete_app_password(
    State(web): State<Arc<Inner>>,
    Path(id): Path<u64>,
    Query(of): Query<Of>,
    viewer: Viewer,
) -> Result<StatusCode, ApiError> {
    require_person(&viewer)?;
    let account = account_of(&web, &viewer, &of, Right::ResetPassword).await?;
    viewer.require_above(&web, &account).await?;
    web.services.registry.delete_app_password(account.id, id).await?;
    record(&web, &viewer, "delete-app-password", &account.address.to_string(), account.position).await;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn tokens(State(web): State<Arc<Inner>>, viewer: Viewer) -> Result<Json<Value>, ApiError> {
    let request = json!({ "tokens": { "account": viewer.account.address.to_string() } });
    Ok(Json(json!({ "tokens": web.operate(Desk::People, request).await?, "areas": crate::auth::AREAS })))
}

pub(crate) async fn add_token(
    State(web): State<Arc<Inner>>,
    viewer: Viewer,
    body: Parsed<NewToken>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    require_person(&viewer)?;
    // A token speaks for all that its maker may: not for roles that do not count.
    if viewer.lacks_second_factor() {
        return Err(ApiError::Forbidden);
    }
    let NewToken { name, scopes, until } = read(body)?;
    let address = viewer.account.address.to_string();
    let request = json!({ "add-token": { "account": address, "name": name, "scopes": scopes, "until": until } });
    let made = web.operate(Desk::People, request).await?;
    record(&web, &viewer, "add-token", &format!("{name} of {address}"), viewer.account.position).await;
    Ok((StatusCode::CREATED, Json(made)))
}

pub(crate) async fn delete_token(
    State(web): State<Arc<Inner>>,
    Path(id): Path<u64>,
    viewer: Viewer,
) -> Result<StatusCode, ApiError> {
    require_person(&viewer)?;
    web.services.registry.delete_api_token(viewer.account.id, id).await?;
    let address = viewer.account.address.to_string();
    record(&web, &viewer, "delete-token", &address, viewer.account.position).await;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn forwards(
    State(web): State<Arc<Inner>>,
    Query(of): Query<Of>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    let account = account_of(&web, &viewer, &of, Right::ViewAccounts).await?;
    let request = json!({ "forwards": { "account": account.address.to_string() } });
    Ok(Json(web.operate(Desk::People, request).await?))
}

pub(crate) async fn set_forwards(
    State(web): State<Arc<Inner>>,
    Query(of): Query<Of>,
    viewer: Viewer,
    body: Parsed<ForwardsBody>,
) -> Result<Json<Value>, ApiError> {
    let account = account_of(&web, &viewer, &of, Right::ChangeAccounts).await?;
    let ForwardsBody { targets, keeps } = read(body)?;
    let address = account.address.to_string();
    let request = json!({ "set-forwards": { "account": address, "targets": targets, "keeps": keeps } });
    let done = web.operate(Desk::People, request).await?;
    record(&web, &viewer, "set-forwards", &address, account.position).await;
    Ok(Json(done))
}

/// What is on record: of the viewer's own account, and of all that it answers for.
pub(crate) async fn audit(
    State(web): State<Arc<Inner>>,
    Query(query): Query<AuditQuery>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    let reaches = access::reach(viewer.grants(), Right::ViewAudit);
    let limit = query.limit.unwrap_or(AUDIT_PAGE).clamp(1, AUDIT_PAGE_MAX);
    let registry = &web.services.registry;
    let found = registry.audit_log(&reaches, Some(viewer.account.id), query.below, limit).await;
    let value = |entry: &directory::AuditEntry| {
        json!({
            "id": entry.id, "at": format_utc(entry.at), "by": entry.by, "action": entry.action, "object": entry.object,
        })
    };
    let found = found.map_err(RegistryError::from)?;
    Ok(Json(json!({ "entries": found.iter().map(value).collect::<Vec<_>>() })))
}
