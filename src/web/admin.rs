//! Tenants, domains, accounts and aliases: for whoever may, as far as their roles reach.

use std::sync::Arc;

use access::{Grant, Position, Reach, Right, Role};
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use base::{AccountId, ByteSize, PoolId, Quota, Secret};
use directory::{
    Access, Account, AccountChange, Alias, DomainEntry, DomainRelay, Listing, NewAccount, PasswordHash, Placement,
    QuotaChange, RegistryError, SendingLock, Tenant, TenantKind,
};
use layers::Owner;
use mail::date::format_utc;
use mail::{Address, Domain};
use serde::Deserialize;
use serde_json::{Value, json};
use trail::{Event, Kind, Party};

use crate::auth::Viewer;
use crate::error::ApiError;
use crate::operations::Desk;
use crate::permission;
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
pub(crate) struct NewTenant {
    name: String,
    /// `reseller` or `customer`.
    kind: String,
    /// A customer's reseller.
    parent: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct TenantPatch {
    name: Option<String>,
    /// Octets; zero lifts the limit.
    quota: Option<u64>,
    /// Zero lifts the limit.
    quota_messages: Option<u64>,
}

#[derive(Deserialize)]
pub(crate) struct ImportQuery {
    #[serde(default)]
    dry: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AliasBody {
    targets: Vec<String>,
}

pub(crate) type Parsed<T> = Result<Json<T>, JsonRejection>;

/// Octets of a table.
pub(crate) const IMPORT_MAX: usize = 16 << 20;
const PAGE_MAX: u32 = 500;
const PASSWORD_MIN: usize = 8;
const PASSWORD_MAX: usize = 1024;

impl Page {
    /// What the viewer sees of it by a right.
    fn listing(self, viewer: &Viewer, right: Right) -> Result<Listing, ApiError> {
        let within = viewer.within(right)?;
        let domain = self.domain.as_deref().map(parse::<Domain>).transpose()?;
        let limit = self.limit.unwrap_or(100).clamp(1, PAGE_MAX);
        Ok(Listing { search: self.search, domain, after: self.after, limit, within })
    }
}

pub(crate) async fn domains(
    State(web): State<Arc<Inner>>,
    Query(page): Query<Page>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    let found =
        web.services.registry.domains(page.listing(&viewer, Right::ViewDomains)?).await.map_err(RegistryError::from)?;
    Ok(Json(json!({ "domains": found.iter().map(domain_to_json).collect::<Vec<_>>() })))
}

/// What only who sells domains decides: which there are, and how much they hold. A customer who could add domains would get
/// mail of others.
fn require_seller(viewer: &Viewer, above: Position) -> Result<(), ApiError> {
    if viewer.may(Right::ChangeDomains, Position::SYSTEM) {
        return Ok(());
    }
    viewer.require(Right::ChangeTenants, above)
}

/// Whether somebody sells domains anywhere.
pub(crate) fn sells(viewer: &Viewer) -> bool {
    viewer.may(Right::ChangeDomains, Position::SYSTEM) || viewer.within(Right::ChangeTenants).is_ok()
}

async fn find_domain(web: &Inner, name: &str) -> Result<DomainEntry, ApiError> {
    permission::domain(web, &parse(name)?).await
}

pub(crate) async fn add_domain(
    State(web): State<Arc<Inner>>,
    viewer: Viewer,
    body: Parsed<NewDomain>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    viewer.within(Right::ChangeDomains)?;
    let NewDomain { name, tenant } = read(body)?;
    let domain: Domain = parse(&name)?;
    let position = match &tenant {
        Some(tenant) => permission::tenant_position(&web, tenant).await?,
        None => Position::SYSTEM,
    };
    require_seller(&viewer, position)?;
    web.services.registry.add_domain(domain.clone(), tenant).await?;
    record(&web, &viewer, "add-domain", domain.as_str(), position).await;
    Ok((StatusCode::CREATED, Json(json!({ "name": domain.as_str() }))))
}

pub(crate) async fn set_domain(
    State(web): State<Arc<Inner>>,
    Path(name): Path<String>,
    viewer: Viewer,
    body: Parsed<DomainPatch>,
) -> Result<StatusCode, ApiError> {
    let position = find_domain(&web, &name).await?.position;
    require_seller(&viewer, position)?;
    let change = quota_change(&read(body)?);
    let (pool, limit) = web.services.registry.set_domain_quota(parse(&name)?, change).await?;
    apply_pool(&web, pool, limit).await?;
    record(&web, &viewer, "set-domain", &name, position).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Where a domain's mail goes on to, once it is judged.
pub(crate) async fn set_relay(
    State(web): State<Arc<Inner>>,
    Path(name): Path<String>,
    viewer: Viewer,
    body: Parsed<Value>,
) -> Result<StatusCode, ApiError> {
    let relay = read(body)?;
    if !relay.is_object() {
        return Err(ApiError::Invalid("an object with hosts, lmtp, certificates, verify".to_owned()));
    }
    change_relay(&web, &viewer, &name, relay).await
}

/// Its mailboxes are here from now on.
pub(crate) async fn delete_relay(
    State(web): State<Arc<Inner>>,
    Path(name): Path<String>,
    viewer: Viewer,
) -> Result<StatusCode, ApiError> {
    change_relay(&web, &viewer, &name, json!({ "hosts": [] })).await
}

async fn change_relay(web: &Inner, viewer: &Viewer, name: &str, relay: Value) -> Result<StatusCode, ApiError> {
    let domain = find_domain(web, name).await?;
    // Who sells domains: whoever could name any server would reach into the provider's network.
    require_seller(viewer, domain.position)?;
    let request = json!({ "domain": domain.name.as_str(), "relay": relay });
    web.operate(Desk::Relay, request).await?;
    record(web, viewer, "set-relay", name, domain.position).await;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn delete_domain(
    State(web): State<Arc<Inner>>,
    Path(name): Path<String>,
    viewer: Viewer,
) -> Result<StatusCode, ApiError> {
    let domain = find_domain(&web, &name).await?;
    require_seller(&viewer, domain.position)?;
    web.services.registry.delete_domain(domain.name).await?;
    web.services.layers.forget_owner(Owner::of(domain.position)).await.map_err(RegistryError::from)?;
    record(&web, &viewer, "delete-domain", &name, domain.position).await;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn domain_aliases(
    State(web): State<Arc<Inner>>,
    Path(name): Path<String>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    let domain = find_domain(&web, &name).await?;
    viewer.require(Right::ViewDomains, domain.position)?;
    let names = web.services.registry.domain_aliases(domain.id).await.map_err(RegistryError::from)?;
    Ok(Json(json!({ "aliases": names.iter().map(Domain::as_str).collect::<Vec<_>>() })))
}

pub(crate) async fn add_domain_alias(
    State(web): State<Arc<Inner>>,
    Path((name, alias)): Path<(String, String)>,
    viewer: Viewer,
) -> Result<StatusCode, ApiError> {
    let domain = find_domain(&web, &name).await?;
    require_seller(&viewer, domain.position)?;
    web.services.registry.add_domain_alias(&parse(&alias)?, &domain.name).await?;
    record(&web, &viewer, "add-domain-alias", &format!("{alias} of {name}"), domain.position).await;
    Ok(StatusCode::CREATED)
}

pub(crate) async fn delete_domain_alias(
    State(web): State<Arc<Inner>>,
    Path((name, alias)): Path<(String, String)>,
    viewer: Viewer,
) -> Result<StatusCode, ApiError> {
    let domain = find_domain(&web, &name).await?;
    require_seller(&viewer, domain.position)?;
    let alias: Domain = parse(&alias)?;
    let names = web.services.registry.domain_aliases(domain.id).await.map_err(RegistryError::from)?;
    if !names.contains(&alias) {
        return Err(ApiError::NotFound);
    }
    web.services.registry.delete_domain_alias(&alias).await?;
    record(&web, &viewer, "delete-domain-alias", &format!("{alias} of {name}"), domain.position).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Where whoever decides about a tenant itself stands: above it.
fn above(tenant: &Tenant) -> Position {
    match tenant.kind {
        TenantKind::Reseller => Position::SYSTEM,
        TenantKind::Customer => Position { reseller: tenant.position.reseller, ..Position::SYSTEM },
    }
}

pub(crate) async fn tenants(State(web): State<Arc<Inner>>, viewer: Viewer) -> Result<Json<Value>, ApiError> {
    viewer.within(Right::ViewTenants)?;
    let all = web.services.registry.tenants().await.map_err(RegistryError::from)?;
    let seen = all.iter().filter(|tenant| viewer.may(Right::ViewTenants, tenant.position));
    Ok(Json(json!({ "tenants": seen.map(tenant_to_json).collect::<Vec<_>>() })))
}

async fn find_tenant(web: &Inner, viewer: &Viewer, name: &str) -> Result<Tenant, ApiError> {
    let found = web.services.registry.tenant(name).await.map_err(RegistryError::from)?;
    let found = found.ok_or(ApiError::NotFound)?;
    viewer.require(Right::ViewTenants, found.position)?;
    viewer.require(Right::ChangeTenants, above(&found))?;
    Ok(found)
}

pub(crate) async fn add_tenant(
    State(web): State<Arc<Inner>>,
    viewer: Viewer,
    body: Parsed<NewTenant>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    viewer.within(Right::ChangeTenants)?;
    let NewTenant { name, kind, parent } = read(body)?;
    let kind = TenantKind::from_name(&kind).ok_or_else(|| invalid("kind is reseller or customer"))?;
    let position = match &parent {
        Some(parent) => permission::tenant_position(&web, parent).await?,
        None => Position::SYSTEM,
    };
    viewer.require(Right::ChangeTenants, position)?;
    web.services.registry.add_tenant(&name, kind, parent).await?;
    record(&web, &viewer, "add-tenant", &name, position).await;
    let made = web.services.registry.tenant(name.trim()).await.map_err(RegistryError::from)?;
    Ok((StatusCode::CREATED, Json(tenant_to_json(&made.ok_or(ApiError::Failed)?))))
}

pub(crate) async fn set_tenant(
    State(web): State<Arc<Inner>>,
    Path(name): Path<String>,
    viewer: Viewer,
    body: Parsed<TenantPatch>,
) -> Result<StatusCode, ApiError> {
    let tenant = find_tenant(&web, &viewer, &name).await?;
    let TenantPatch { name: to, quota, quota_messages } = read(body)?;
    let change = quota_change(&DomainPatch { quota, quota_messages });
    if !change.is_empty() {
        let (pool, limit) = web.services.registry.set_tenant_quota(&tenant.name, change).await?;
        apply_pool(&web, pool, limit).await?;
    }
    if let Some(to) = to {
        web.services.registry.rename_tenant(&tenant.name, &to).await?;
    }
    record(&web, &viewer, "set-tenant", &name, tenant.position).await;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn delete_tenant(
    State(web): State<Arc<Inner>>,
    Path(name): Path<String>,
    viewer: Viewer,
) -> Result<StatusCode, ApiError> {
    let tenant = find_tenant(&web, &viewer, &name).await?;
    web.services.registry.delete_tenant(&tenant.name).await?;
    web.services.layers.forget_owner(Owner::of(tenant.position)).await.map_err(RegistryError::from)?;
    record(&web, &viewer, "delete-tenant", &name, above(&tenant)).await;
    Ok(StatusCode::NO_CONTENT)
}

async fn apply_pool(web: &Inner, pool: PoolId, limit: Quota) -> Result<(), ApiError> {
    let accounts = web.services.registry.pool_accounts(pool).await.map_err(RegistryError::from)?;
    if web.services.storage.set_pool(pool, limit, accounts.len()).await? {
        for account in accounts {
            apply_limits(web, account).await?;
        }
    }
    Ok(())
}

pub(crate) async fn accounts(
    State(web): State<Arc<Inner>>,
    Query(page): Query<Page>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    let found = web
        .services
        .registry
        .accounts(page.listing(&viewer, Right::ViewAccounts)?)
        .await
        .map_err(RegistryError::from)?;
    Ok(Json(json!({ "accounts": found.iter().map(account_to_json).collect::<Vec<_>>() })))
}

pub(crate) async fn account(
    State(web): State<Arc<Inner>>,
    Path(address): Path<String>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    let account = permission::account_at(&web, &parse(&address)?).await?;
    viewer.require(Right::ViewAccounts, account.position)?;
    web.looked(&viewer, "account", account.position, &address).await?;
    let usage = web.services.storage.mail.usage(account.id).await?;
    let mut out = account_to_json(&account);
    if let Some(fields) = out.as_object_mut() {
        fields.insert("used".to_owned(), json!(usage.size.0));
        fields.insert("messages".to_owned(), json!(usage.messages));
    }
    Ok(Json(out))
}

/// Adds accounts from a table, where the viewer may.
pub(crate) async fn import(
    State(web): State<Arc<Inner>>,
    Query(query): Query<ImportQuery>,
    viewer: Viewer,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let reaches = access::reach(viewer.grants(), Right::ChangeAccounts);
    viewer.within(Right::ChangeAccounts)?;
    let within = permission::domains(&web, &reaches).await?;
    let within = within.map(|domains| domains.into_iter().map(|(_, name)| name.to_string()).collect::<Vec<_>>());
    let table = std::str::from_utf8(&body).map_err(|_| ApiError::Invalid("the table is UTF-8".to_owned()))?;
    let request = json!({ "table": table, "dry_run": query.dry, "within": within });
    let done = web.operate(Desk::Import, request).await?;
    if !query.dry {
        let object = format!("{} accounts", done["added"]);
        for reach in reaches {
            let position = web.services.registry.reach_position(reach).await?.unwrap_or(Position::SYSTEM);
            record(&web, &viewer, "import-accounts", &object, position).await;
        }
    }
    Ok(Json(done))
}

pub(crate) async fn add_account(
    State(web): State<Arc<Inner>>,
    viewer: Viewer,
    body: Parsed<NewAccountBody>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    viewer.within(Right::ChangeAccounts)?;
    let body = read(body)?;
    let address: Address = parse(&body.address)?;
    let position = find_domain(&web, address.domain.as_str()).await;
    // Who may add none learns nothing about which domains there are.
    let position = match position {
        Ok(domain) => domain.position,
        Err(ApiError::NotFound) if viewer.may(Right::ChangeAccounts, Position::SYSTEM) => Position::SYSTEM,
        Err(error) => return Err(error),
    };
    viewer.require(Right::ChangeAccounts, position)?;
    if body.admin {
        require_admin(&viewer)?;
    }
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
    let made = permission::account_at(&web, &address).await?;
    record(&web, &viewer, "add-account", &address.to_string(), made.position).await;
    Ok((StatusCode::CREATED, Json(account_to_json(&made))))
}

pub(crate) async fn set_account(
    State(web): State<Arc<Inner>>,
    Path(address): Path<String>,
    viewer: Viewer,
    body: Parsed<AccountPatch>,
) -> Result<Json<Value>, ApiError> {
    let (address, body): (Address, _) = (parse(&address)?, read(body)?);
    let before = permission::account_at(&web, &address).await?;
    // Whoever answers the telephone resets a password, and nothing else.
    let resets_only = body.password.is_some()
        && body.name.is_none()
        && body.access.is_none()
        && body.enabled.is_none()
        && body.sending.is_none()
        && body.quota.is_none()
        && body.quota_messages.is_none();
    let right = if resets_only { Right::ResetPassword } else { Right::ChangeAccounts };
    viewer.require(right, before.position)?;
    viewer.require_above(&web, &before).await?;
    if body.access.as_deref().is_some_and(|access| access != before.access.as_str()) {
        require_admin(&viewer)?;
    }
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
    let account = permission::account_at(&web, &address).await?;
    if !quota.is_empty() {
        apply_limits(&web, account.id).await?;
    }
    let action = if resets_only { "reset-password" } else { "set-account" };
    record(&web, &viewer, action, &address.to_string(), account.position).await;
    Ok(Json(account_to_json(&account)))
}

pub(crate) async fn delete_account(
    State(web): State<Arc<Inner>>,
    Path(address): Path<String>,
    viewer: Viewer,
) -> Result<StatusCode, ApiError> {
    let address: Address = parse(&address)?;
    if address.to_folded() == viewer.account.address.to_folded() {
        return Err(invalid("nobody deletes the account they are signed in with"));
    }
    let account = permission::account_at(&web, &address).await?;
    viewer.require(Right::ChangeAccounts, account.position)?;
    viewer.require_above(&web, &account).await?;
    let id = web.services.registry.delete_account(&address).await?;
    web.services.storage.delete_account(id).await?;
    web.services.layers.forget_owner(Owner::of(account.position)).await.map_err(RegistryError::from)?;
    record(&web, &viewer, "delete-account", &address.to_string(), account.position.without_account()).await;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn aliases(
    State(web): State<Arc<Inner>>,
    Query(page): Query<Page>,
    viewer: Viewer,
) -> Result<Json<Value>, ApiError> {
    let found = web
        .services
        .registry
        .aliases(page.listing(&viewer, Right::ViewAccounts)?)
        .await
        .map_err(RegistryError::from)?;
    Ok(Json(json!({ "aliases": found.iter().map(alias_to_json).collect::<Vec<_>>() })))
}

/// Makes the alias or gives it other targets.
pub(crate) async fn put_alias(
    State(web): State<Arc<Inner>>,
    Path(address): Path<String>,
    viewer: Viewer,
    body: Parsed<AliasBody>,
) -> Result<Json<Value>, ApiError> {
    let position = alias_position(&web, &viewer, &address).await?;
    let targets = read(body)?.targets;
    let parsed = targets.iter().map(|target| parse::<Address>(target)).collect::<Result<Vec<_>, _>>()?;
    match web.services.registry.put_alias(&address, parsed.clone(), false).await {
        Err(RegistryError::Exists { .. }) => web.services.registry.put_alias(&address, parsed, true).await?,
        other => other?,
    }
    record(&web, &viewer, "put-alias", &address, position).await;
    Ok(Json(json!({ "address": address.to_lowercase(), "targets": targets })))
}

pub(crate) async fn delete_alias(
    State(web): State<Arc<Inner>>,
    Path(address): Path<String>,
    viewer: Viewer,
) -> Result<StatusCode, ApiError> {
    let position = alias_position(&web, &viewer, &address).await?;
    web.services.registry.delete_alias(&address).await?;
    record(&web, &viewer, "delete-alias", &address, position).await;
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

pub(crate) async fn hash(password: Secret<String>) -> Result<PasswordHash, ApiError> {
    if !(PASSWORD_MIN..=PASSWORD_MAX).contains(&password.reveal().len()) {
        return Err(invalid("a password has 8 to 1024 octets"));
    }
    // Made to be slow: not on a thread that serves others.
    tokio::task::spawn_blocking(move || PasswordHash::make(&password)).await.map_err(|_| ApiError::Failed)
}

/// Puts on record what an administrator did: in the log, and with what it is about.
pub(crate) async fn record(web: &Inner, viewer: &Viewer, action: &str, object: &str, position: Position) {
    record_as(web, viewer, Kind::Administered, action, object, position).await;
}

pub(crate) async fn record_as(
    web: &Inner,
    viewer: &Viewer,
    kind: Kind,
    action: &str,
    object: &str,
    position: Position,
) {
    let by = Party {
        address: viewer.account.address.to_string(),
        account: Some(viewer.account.id),
        is_recipient: false,
        outcome: None,
    };
    let noted = web.services.registry.note_audit(&by.address, action, object, position).await;
    if let Err(error) = noted {
        tracing::error!(event = "web.failed", what = "audit", action, object, %error);
    }
    let event = Event::new(web.services.clock.utc(), kind).party(by);
    web.services.trail.record(event.field("action", action).field("object", object));
}

/// Whether the viewer may make somebody an administrator of the system, or end that.
pub(crate) fn require_admin(viewer: &Viewer) -> Result<(), ApiError> {
    let grant = Grant { role: Role::IspAdmin, reach: Reach::System };
    if access::may_grant(viewer.grants(), grant, Position::SYSTEM) { Ok(()) } else { Err(ApiError::Forbidden) }
}

/// Where an alias is, if the viewer may change it.
async fn alias_position(web: &Inner, viewer: &Viewer, address: &str) -> Result<Position, ApiError> {
    let domain = address.rsplit_once('@').map_or(address, |(_, domain)| domain);
    let position = find_domain(web, domain).await?.position;
    viewer.require(Right::ChangeAccounts, position)?;
    Ok(position)
}

fn tenant_to_json(tenant: &Tenant) -> Value {
    json!({
        "name": tenant.name, "kind": tenant.kind.as_str(), "parent": tenant.parent, "domains": tenant.domains,
        "quota": tenant.quota.size.map(|size| size.0), "quotaMessages": tenant.quota.messages,
        "created": format_utc(tenant.created_at),
    })
}

fn domain_to_json(domain: &DomainEntry) -> Value {
    json!({
        "name": domain.name.as_str(), "shown": domain.name.to_unicode(), "tenant": domain.tenant,
        "accounts": domain.accounts, "aliases": domain.aliases, "relay": domain.relay.as_ref().map(relay_to_json),
        "quota": domain.quota.size.map(|size| size.0), "quotaMessages": domain.quota.messages, "created": format_utc(domain.created_at),
    })
}

fn relay_to_json(relay: &DomainRelay) -> Value {
    json!({
        "hosts": relay.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(), "lmtp": relay.lmtp,
        "certificates": relay.trust.word(), "verify": relay.verify.as_str(),
    })
}

fn account_to_json(account: &Account) -> Value {
    json!({
        "id": account.id.0, "address": account.address.to_string(), "name": account.name,
        "access": account.access.as_str(), "enabled": account.enabled, "secondFactor": account.has_second_factor,
        "relayed": account.is_relayed,
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
