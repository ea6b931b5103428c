//! Domains, accounts and aliases: for administrators.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use base::{AccountId, ByteSize, Quota, Secret};
use directory::{
    Access, Account, AccountChange, Alias, DomainEntry, Listing, NewAccount, PasswordHash, Placement, QuotaChange,
    RegistryError, SendingLock,
};
use mail::date::format_utc;
use mail::{Address, Domain};
use serde::Deserialize;
use serde_json::{Value, json};
use trail::{Event, Kind, Party};

use crate::auth::{Administrator, Viewer};
use crate::error::ApiError;
use crate::server::Inner;

/// A page of a list.
#[derive(Deserialize)]
pub(crate) struct Page {
    #[serde(default)]
    search: String,
    domain: Option<String>,
    #[serde(default)]
    after: String,
    limit: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewDomain {
    name: String,
    tenant: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewAccountBody {
    address: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    admin: bool,
    password: String,
    /// Octets.
    quota: Option<u64>,
    #[serde(rename = "quotaMessages")]
    quota_messages: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct AccountPatch {
    name: Option<String>,
    access: Option<String>,
    enabled: Option<bool>,
    /// `allowed` or `locked`.
    sending: Option<String>,
    /// Octets; zero lifts the limit.
    quota: Option<u64>,
    /// Zero lifts the limit.
    quota_messages: Option<u64>,
    password: Option<String>,
}

/// Limits of all accounts of a domain together.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct DomainPatch {
    /// Octets; zero lifts the limit.
    quota: Option<u64>,
    /// Zero lifts the limit.
    quota_messages: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AliasBody {
    targets: Vec<String>,
}

pub(crate) type Parsed<T> = Result<Json<T>, JsonRejection>;

const PAGE_MAX: u32 = 500;
const PASSWORD_MIN: usize = 8;
const PASSWORD_MAX: usize = 1024;

impl Page {
    fn listing(self) -> Result<Listing, ApiError> {
        let domain = self.domain.as_deref().map(parse::<Domain>).transpose()?;
        let limit = self.limit.unwrap_or(100).clamp(1, PAGE_MAX);
        Ok(Listing { search: self.search, domain, after: self.after, limit })
    }
}

pub(crate) async fn domains(
    State(web): State<Arc<Inner>>,
    Query(page): Query<Page>,
    _: Administrator,
) -> Result<Json<Value>, ApiError> {
    let found = web.services.registry.domains(page.listing()?).await.map_err(RegistryError::from)?;
    Ok(Json(json!({ "domains": found.iter().map(domain_to_json).collect::<Vec<_>>() })))
}

pub(crate) async fn add_domain(
    State(web): State<Arc<Inner>>,
    Administrator(viewer): Administrator,
    body: Parsed<NewDomain>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let NewDomain { name, tenant } = read(body)?;
    let domain: Domain = parse(&name)?;
    web.services.registry.add_domain(domain.clone(), tenant).await?;
    record(&web, &viewer, "add-domain", domain.as_str());
    Ok((StatusCode::CREATED, Json(json!({ "name": domain.as_str() }))))
}

pub(crate) async fn set_domain(
    State(web): State<Arc<Inner>>,
    Path(name): Path<String>,
    Administrator(viewer): Administrator,
    body: Parsed<DomainPatch>,
) -> Result<StatusCode, ApiError> {
    let change = quota_change(&read(body)?);
    let (pool, limit) = web.services.registry.set_domain_quota(parse(&name)?, change).await?;
    let accounts = web.services.registry.pool_accounts(pool).await.map_err(RegistryError::from)?;
    if web.services.storage.set_pool(pool, limit, accounts.len()).await? {
        for account in accounts {
            apply_limits(&web, account).await?;
        }
    }
    record(&web, &viewer, "set-domain", &name);
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn delete_domain(
    State(web): State<Arc<Inner>>,
    Path(name): Path<String>,
    Administrator(viewer): Administrator,
) -> Result<StatusCode, ApiError> {
    web.services.registry.delete_domain(parse(&name)?).await?;
    record(&web, &viewer, "delete-domain", &name);
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn accounts(
    State(web): State<Arc<Inner>>,
    Query(page): Query<Page>,
    _: Administrator,
) -> Result<Json<Value>, ApiError> {
    let found = web.services.registry.accounts(page.listing()?).await.map_err(RegistryError::from)?;
    Ok(Json(json!({ "accounts": found.iter().map(account_to_json).collect::<Vec<_>>() })))
}

pub(crate) async fn account(
    State(web): State<Arc<Inner>>,
    Path(address): Path<String>,
    _: Administrator,
) -> Result<Json<Value>, ApiError> {
    let account = find(&web, &parse(&address)?).await?;
    let usage = web.services.storage.mail.usage(account.id).await?;
    let mut out = account_to_json(&account);
    if let Some(fields) = out.as_object_mut() {
        fields.insert("used".to_owned(), json!(usage.size.0));
        fields.insert("messages".to_owned(), json!(usage.messages));
    }
    Ok(Json(out))
}

pub(crate) async fn add_account(
    State(web): State<Arc<Inner>>,
    Administrator(viewer): Administrator,
    body: Parsed<NewAccountBody>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let body = read(body)?;
    let address: Address = parse(&body.address)?;
    let quota = Quota {
        size: body.quota.filter(|octets| *octets > 0).map(ByteSize),
        messages: body.quota_messages.filter(|messages| *messages > 0),
    };
    let account = NewAccount {
        address: address.clone(),
        name: body.name,
        access: if body.admin { Access::Admin } else { Access::User },
        password: hash(Secret::new(body.password)).await?,
        quota,
        placement: Placement::OfDomain,
    };
    let id = web.services.registry.add_account(account).await?;
    apply_limits(&web, id).await?;
    record(&web, &viewer, "add-account", &address.to_string());
    Ok((StatusCode::CREATED, Json(account_to_json(&find(&web, &address).await?))))
}

pub(crate) async fn set_account(
    State(web): State<Arc<Inner>>,
    Path(address): Path<String>,
    Administrator(viewer): Administrator,
    body: Parsed<AccountPatch>,
) -> Result<Json<Value>, ApiError> {
    let (address, body): (Address, _) = (parse(&address)?, read(body)?);
    let access = match &body.access {
        None => None,
        Some(name) => Some(Access::from_name(name).ok_or_else(|| invalid("access is user or admin"))?),
    };
    let quota = quota_change(&DomainPatch { quota: body.quota, quota_messages: body.quota_messages });
    let password = match body.password {
        Some(password) => Some(hash(Secret::new(password)).await?),
        None => None,
    };
    let sending = match body.sending.as_deref() {
        None => None,
        Some("allowed") => Some(None),
        Some("locked") => {
            Some(Some(SendingLock { at: web.services.clock.utc(), reason: viewer.account.address.to_string() }))
        }
        Some(_) => return Err(invalid("sending is allowed or locked")),
    };
    let (name, enabled) = (body.name, body.enabled);
    let change = AccountChange { name, access, enabled, quota, password, sending, ..AccountChange::default() };
    web.services.registry.set_account(&address, change).await?;
    let account = find(&web, &address).await?;
    if !quota.is_empty() {
        apply_limits(&web, account.id).await?;
    }
    record(&web, &viewer, "set-account", &address.to_string());
    Ok(Json(account_to_json(&account)))
}

pub(crate) async fn delete_account(
    State(web): State<Arc<Inner>>,
    Path(address): Path<String>,
    Administrator(viewer): Administrator,
) -> Result<StatusCode, ApiError> {
    let address: Address = parse(&address)?;
    if address.to_folded() == viewer.account.address.to_folded() {
        return Err(invalid("nobody deletes the account they are signed in with"));
    }
    let id = web.services.registry.delete_account(&address).await?;
    web.services.storage.delete_account(id).await?;
    record(&web, &viewer, "delete-account", &address.to_string());
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn aliases(
    State(web): State<Arc<Inner>>,
    Query(page): Query<Page>,
    _: Administrator,
) -> Result<Json<Value>, ApiError> {
    let found = web.services.registry.aliases(page.listing()?).await.map_err(RegistryError::from)?;
    Ok(Json(json!({ "aliases": found.iter().map(alias_to_json).collect::<Vec<_>>() })))
}

/// Makes the alias or gives it other targets.
pub(crate) async fn put_alias(
    State(web): State<Arc<Inner>>,
    Path(address): Path<String>,
    Administrator(viewer): Administrator,
    body: Parsed<AliasBody>,
) -> Result<Json<Value>, ApiError> {
    let targets = read(body)?.targets;
    let parsed = targets.iter().map(|target| parse::<Address>(target)).collect::<Result<Vec<_>, _>>()?;
    match web.services.registry.put_alias(&address, parsed.clone(), false).await {
        Err(RegistryError::Exists { .. }) => web.services.registry.put_alias(&address, parsed, true).await?,
        other => other?,
    }
    record(&web, &viewer, "put-alias", &address);
    Ok(Json(json!({ "address": address.to_lowercase(), "targets": targets })))
}

pub(crate) async fn delete_alias(
    State(web): State<Arc<Inner>>,
    Path(address): Path<String>,
    Administrator(viewer): Administrator,
) -> Result<StatusCode, ApiError> {
    web.services.registry.delete_alias(&address).await?;
    record(&web, &viewer, "delete-alias", &address);
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) fn read<T>(body: Parsed<T>) -> Result<T, ApiError> {
    body.map(|Json(body)| body).map_err(|error| ApiError::Invalid(error.body_text()))
}

fn invalid(why: &str) -> ApiError {
    ApiError::Invalid(why.to_owned())
}

pub(crate) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|error| ApiError::Invalid(format!("{text}: {error}")))
}

pub(crate) async fn find(web: &Inner, address: &Address) -> Result<Account, ApiError> {
    let found = web.services.registry.account_by_address(address).await.map_err(RegistryError::from)?;
    found.ok_or(ApiError::NotFound)
}

fn quota_change(patch: &DomainPatch) -> QuotaChange {
    QuotaChange {
        size: patch.quota.map(|octets| (octets > 0).then_some(ByteSize(octets))),
        messages: patch.quota_messages.map(|messages| (messages > 0).then_some(messages)),
    }
}

/// Tells the store what limits the account.
async fn apply_limits(web: &Inner, account: AccountId) -> Result<(), ApiError> {
    let limits = web.services.registry.limits(account).await.map_err(RegistryError::from)?;
    if let Some(limits) = limits {
        web.services.storage.set_limits(account, limits.quota, &limits.pools).await?;
    }
    Ok(())
}

async fn hash(password: Secret<String>) -> Result<PasswordHash, ApiError> {
    if !(PASSWORD_MIN..=PASSWORD_MAX).contains(&password.reveal().len()) {
        return Err(invalid("a password has 8 to 1024 octets"));
    }
    // Made to be slow: not on a thread that serves others.
    tokio::task::spawn_blocking(move || PasswordHash::make(&password)).await.map_err(|_| ApiError::Failed)
}

/// Puts what an administrator did on record.
pub(crate) fn record(web: &Inner, viewer: &Viewer, action: &str, object: &str) {
    record_as(web, viewer, Kind::Administered, action, object);
}

pub(crate) fn record_as(web: &Inner, viewer: &Viewer, kind: Kind, action: &str, object: &str) {
    let by = Party {
        address: viewer.account.address.to_string(),
        account: Some(viewer.account.id),
        is_recipient: false,
        outcome: None,
    };
    let event = Event::new(web.services.clock.utc(), kind).party(by);
    web.services.trail.record(event.field("action", action).field("object", object));
}

fn domain_to_json(domain: &DomainEntry) -> Value {
    json!({
        "name": domain.name.as_str(), "shown": domain.name.to_unicode(), "tenant": domain.tenant,
        "accounts": domain.accounts, "aliases": domain.aliases,
        "quota": domain.quota.size.map(|size| size.0), "quotaMessages": domain.quota.messages, "created": format_utc(domain.created_at),
    })
}

fn account_to_json(account: &Account) -> Value {
    json!({
        "id": account.id.0, "address": account.address.to_string(), "name": account.name,
        "access": account.access.as_str(), "enabled": account.enabled,
        "sending": account.sending_lock.as_ref().map_or("allowed", |_| "locked"),
        "sendingLocked": account.sending_lock.as_ref().map(|lock| format_utc(lock.at)),
        "sendingLockedBy": account.sending_lock.as_ref().map(|lock| lock.reason.clone()),
        "quota": account.quota.size.map(|size| size.0),
        "quotaMessages": account.quota.messages,
        "created": format_utc(account.created_at),
    })
}

fn alias_to_json(alias: &Alias) -> Value {
    json!({
        "address": alias.address,
        "targets": alias.targets.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "created": format_utc(alias.created_at),
    })
}
