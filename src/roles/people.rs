//! What belongs to people beside their mail: roles, passwords of programs, tokens, a second factor, forwards; and further names
//! of domains.

use access::{Grant, Reach, Role};
use anyhow::Context as _;
use base::{AccountId, UtcMillis};
use directory::{Account, ApiToken, AppPassword, Protocol, RegistryError};
use mail::date::format_utc;
use policy::option::Forwarding;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Engines;

/// What is asked of people.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum PeopleRequest {
    Roles {
        #[serde(default)]
        account: Option<String>,
    },
    Grant {
        account: String,
        role: String,
        #[serde(default)]
        tenant: Option<String>,
        #[serde(default)]
        domain: Option<String>,
        #[serde(default)]
        by: String,
    },
    Revoke {
        account: String,
        role: String,
        #[serde(default)]
        tenant: Option<String>,
        #[serde(default)]
        domain: Option<String>,
    },
    AppPasswords {
        account: String,
    },
    AddAppPassword {
        account: String,
        name: String,
        protocols: Vec<String>,
        #[serde(default)]
        until: Option<String>,
    },
    DeleteAppPassword {
        account: String,
        id: u64,
    },
    Tokens {
        account: String,
    },
    AddToken {
        account: String,
        name: String,
        scopes: Vec<String>,
        #[serde(default)]
        until: Option<String>,
    },
    DeleteToken {
        account: String,
        id: u64,
    },
    BeginSecondFactor {
        account: String,
    },
    ConfirmSecondFactor {
        account: String,
        code: String,
    },
    DeleteSecondFactor {
        account: String,
    },
    Forwards {
        account: String,
    },
    SetForwards {
        account: String,
        targets: Vec<String>,
        keeps: bool,
    },
    /// By mail, for whom mail goes on to another server.
    SignInLink {
        account: String,
    },
    DomainAliases {
        domain: String,
    },
    AddDomainAlias {
        name: String,
        domain: String,
    },
    DeleteDomainAlias {
        name: String,
    },
}

async fn account(engines: &Engines, address: &str) -> anyhow::Result<Account> {
    let parsed = address.parse().with_context(|| format!("`{address}`"))?;
    let found = engines.directory.account_by_address(&parsed).await?;
    Ok(found.ok_or_else(|| RegistryError::Missing { what: format!("the account {address}") })?)
}

/// A role at a place, by their names.
async fn grant_of(engines: &Engines, role: &str, tenant: Option<&str>, domain: Option<&str>) -> anyhow::Result<Grant> {
    let names: Vec<&str> = Role::ALL.into_iter().map(Role::as_str).collect();
    let role = Role::from_name(role).with_context(|| format!("`{role}` is no role: {}", names.join(", ")))?;
    let domain = domain.map(|name| name.parse().with_context(|| format!("`{name}`"))).transpose()?;
    let (reach, _) = engines.directory.reach(tenant, domain.as_ref()).await?;
    Ok(Grant { role, reach })
}

fn until(text: Option<&str>) -> anyhow::Result<Option<UtcMillis>> {
    let read =
        |text: &str| mail::date::parse_utc(text).with_context(|| format!("`{text}` is no day such as 2027-03-31"));
    text.map(read).transpose()
}

pub async fn execute(engines: &Engines, request: PeopleRequest) -> anyhow::Result<Value> {
    let directory = &engines.directory;
    match request {
        PeopleRequest::Roles { account: of } => {
            let of = match of {
                Some(address) => Some(account(engines, &address).await?.id),
                None => None,
            };
            roles(engines, of).await
        }
        PeopleRequest::Grant { account: address, role, tenant, domain, by } => {
            let account = account(engines, &address).await?;
            let grant = grant_of(engines, &role, tenant.as_deref(), domain.as_deref()).await?;
            let by = if by.is_empty() { "an administrator" } else { &by };
            directory.grant(account.id, grant, by).await?;
            roles(engines, Some(account.id)).await
        }
        PeopleRequest::Revoke { account: address, role, tenant, domain } => {
            let account = account(engines, &address).await?;
            let grant = grant_of(engines, &role, tenant.as_deref(), domain.as_deref()).await?;
            directory.revoke(account.id, grant).await?;
            roles(engines, Some(account.id)).await
        }
        PeopleRequest::AppPasswords { account: address } => {
            let found = directory.app_passwords(account(engines, &address).await?.id).await?;
            Ok(found.iter().map(app_value).collect())
        }
        PeopleRequest::AddAppPassword { account: address, name, protocols, until: end } => {
            let words = "imap, pop3, submission, managesieve";
            let read =
                |word: &String| Protocol::from_name(word).with_context(|| format!("`{word}` is none of {words}"));
            let protocols = protocols.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
            let (account, end) = (account(engines, &address).await?, until(end.as_deref())?);
            let (made, password) = directory.add_app_password(account.id, &name, &protocols, end).await?;
            Ok(with(app_value(&made), "password", json!(password.reveal())))
        }
        PeopleRequest::DeleteAppPassword { account: address, id } => {
            directory.delete_app_password(account(engines, &address).await?.id, id).await?;
            Ok(Value::Null)
        }
        PeopleRequest::Tokens { account: address } => {
            let found = directory.api_tokens(account(engines, &address).await?.id).await?;
            Ok(found.iter().map(token_value).collect())
        }
        PeopleRequest::AddToken { account: address, name, scopes, until: end } => {
            check_scopes(&scopes)?;
            let (account, end) = (account(engines, &address).await?, until(end.as_deref())?);
            let (made, token) = directory.add_api_token(account.id, &name, &scopes, end).await?;
            Ok(with(token_value(&made), "token", json!(token.reveal())))
        }
        PeopleRequest::DeleteToken { account: address, id } => {
            directory.delete_api_token(account(engines, &address).await?.id, id).await?;
            Ok(Value::Null)
        }
        PeopleRequest::BeginSecondFactor { account: address } => {
            let account = account(engines, &address).await?;
            let secret = directory.begin_second_factor(account.id).await?;
            let label = account.address.to_string().replace('%', "%25").replace('?', "%3F").replace('#', "%23");
            let uri = format!("otpauth://totp/Ortler:{label}?secret={}&issuer=Ortler", secret.reveal());
            Ok(json!({ "secret": secret.reveal(), "uri": uri }))
        }
        PeopleRequest::ConfirmSecondFactor { account: address, code } => {
            let codes = directory.confirm_second_factor(account(engines, &address).await?.id, &code).await?;
            Ok(json!({ "recovery": codes }))
        }
        PeopleRequest::DeleteSecondFactor { account: address } => {
            directory.delete_second_factor(account(engines, &address).await?.id).await?;
            Ok(Value::Null)
        }
        PeopleRequest::Forwards { account: address } => forwards(engines, account(engines, &address).await?.id).await,
        PeopleRequest::SetForwards { account: address, targets, keeps } => {
            set_forwards(engines, &account(engines, &address).await?, &targets, keeps).await
        }
        PeopleRequest::SignInLink { account: address } => {
            sign_in_link(engines, &account(engines, &address).await?).await
        }
        PeopleRequest::DomainAliases { domain } => {
            let found = directory.domain(&domain.parse().with_context(|| format!("`{domain}`"))?).await?;
            let found = found.ok_or_else(|| RegistryError::Missing { what: format!("the domain {domain}") })?;
            let names = directory.domain_aliases(found.id).await?;
            Ok(names.iter().map(|name| json!({ "name": name.as_str(), "domain": domain })).collect())
        }
        PeopleRequest::AddDomainAlias { name, domain } => {
            let (parsed, of) = (name.parse().with_context(|| format!("`{name}`"))?, domain.parse()?);
            directory.add_domain_alias(&parsed, &of).await?;
            Ok(json!({ "name": parsed.as_str(), "domain": of.as_str() }))
        }
        PeopleRequest::DeleteDomainAlias { name } => {
            directory.delete_domain_alias(&name.parse().with_context(|| format!("`{name}`"))?).await?;
            Ok(Value::Null)
        }
    }
}

/// Says nothing of whether there was one to send.
async fn sign_in_link(engines: &Engines, of: &Account) -> anyhow::Result<Value> {
    let intake = engines.intake.get().context("a link is sent by a running node: start it first")?;
    if let Some(token) = engines.directory.make_sign_in_link(of).await? {
        let language = engines.layers.effective(of.position).await?.mail_language();
        super::letters::sign_in_link(engines, intake, of, token.reveal(), language).await?;
    }
    Ok(Value::Null)
}

async fn roles(engines: &Engines, of: Option<AccountId>) -> anyhow::Result<Value> {
    let mut out = Vec::new();
    for entry in engines.directory.grants(of).await? {
        let place = match entry.grant.reach {
            Reach::System => json!({}),
            Reach::Tenant(id) => {
                json!({ "tenant": engines.directory.tenant_by_id(id).await?.map(|tenant| tenant.name) })
            }
            Reach::Domain(id) => {
                let domain = engines.directory.domain_by_id(id).await?;
                json!({ "domain": domain.map(|domain| domain.name.to_string()) })
            }
        };
        out.push(json!({
            "account": entry.address.to_string(), "role": entry.grant.role.as_str(), "for": place, "by": entry.given_by,
            "since": format_utc(entry.given_at),
        }));
    }
    Ok(Value::Array(out))
}

fn with(mut value: Value, name: &str, field: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.insert(name.to_owned(), field);
    }
    value
}

fn app_value(one: &AppPassword) -> Value {
    let protocols: Vec<&str> = one.protocols.iter().map(|protocol| protocol.as_str()).collect();
    json!({
        "id": one.id, "name": one.name, "protocols": protocols, "created": format_utc(one.created_at),
        "until": one.expires_at.map(format_utc), "used": one.used_at.map(format_utc),
    })
}

fn token_value(one: &ApiToken) -> Value {
    json!({
        "id": one.id, "name": one.name, "scopes": one.scopes, "created": format_utc(one.created_at),
        "until": one.expires_at.map(format_utc), "used": one.used_at.map(format_utc),
    })
}

fn check_scopes(scopes: &[String]) -> anyhow::Result<()> {
    anyhow::ensure!(!scopes.is_empty(), "a token has at least one scope, such as `*:read` or `accounts:write`");
    for scope in scopes {
        let known = scope
            .split_once(':')
            .filter(|(area, verb)| (*area == "*" || web::AREAS.contains(area)) && matches!(*verb, "read" | "write"));
        known.with_context(|| {
            format!("`{scope}` is no scope: an area of {} or `*`, then `:read` or `:write`", web::AREAS.join(", "))
        })?;
    }
    Ok(())
}

async fn forwards(engines: &Engines, of: AccountId) -> anyhow::Result<Value> {
    let (found, keeps) = engines.directory.forwards(of).await?;
    let value = |one: &directory::Forward| {
        json!({
            "target": one.target.to_string(), "asked": format_utc(one.asked_at), "confirmed": one.confirmed_at.map(format_utc),
        })
    };
    Ok(json!({ "targets": found.iter().map(value).collect::<Vec<_>>(), "keeps": keeps }))
}

/// Whoever reads at a new target elsewhere is asked by mail.
async fn set_forwards(engines: &Engines, of: &Account, targets: &[String], keeps: bool) -> anyhow::Result<Value> {
    let read = |target: &String| target.parse().with_context(|| format!("`{target}`"));
    let targets: Vec<mail::Address> = targets.iter().map(read).collect::<anyhow::Result<_>>()?;
    let policy = engines.layers.effective(of.position).await?;
    for target in &targets {
        let is_allowed = match policy.forwarding() {
            Forwarding::Anywhere => true,
            Forwarding::Nowhere => false,
            Forwarding::Inside => engines.directory.domain(&target.domain).await?.is_some(),
        };
        anyhow::ensure!(
            is_allowed,
            "mail of {} may not be forwarded to {target}: see the option `forwarding`",
            of.address
        );
        anyhow::ensure!(target.to_folded() != of.address.to_folded(), "{target} forwards to itself");
    }
    let asked = engines.directory.set_forwards(of.id, &targets, keeps).await?;
    for (target, token) in asked {
        let intake =
            engines.intake.get().context("whoever reads at a target is asked by a running node: start it first")?;
        let language = policy.mail_language();
        super::letters::ask_forward(engines, intake, of, &target, &token, language).await?;
    }
    forwards(engines, of.id).await
}
