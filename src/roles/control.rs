//! The control socket, for the command line on the same machine. Each request and each answer is one JSON line; its
//! `bytes` says how many raw octets follow it. A connection carries one request after the other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use base::{MessageId, PoolId, Quota, Secret};
use bytes::Bytes;
use cluster::{Member, Wish};
use directory::{
    Access, Account, AccountChange, Alias, DomainEntry, Listing, NewAccount, PasswordHash, RegistryError, SendingLock,
    Tenant, TenantKind,
};
use layers::Owner;
use mail::{Address, Domain};
use policy::Level;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::sync::CancellationToken;
use trail::{MessageRow, Query, Scope, StoredEvent};

use super::Engines;
use super::importing::{self, ImportRequest};
use super::keys::{self, KeyRequest};
use super::learning::{self, LearnRequest};
use super::legacies::{self, LegacyRequest};
use super::limits::{self, QuotaPatch, Used};
use super::mailboxes::{self, MailRequest};
use super::people::{self, PeopleRequest};
use super::policies::{self, PolicyRequest};
use super::quarantine::{self, QuarantineRequest};
use super::queue::{self, QueueRequest};
use super::relayed::{self, RelayPatch};
use super::reports::{self, ReportRequest};

/// What a command asks of its node.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    DomainAdd {
        name: String,
        tenant: Option<String>,
        #[serde(default)]
        relay: RelayPatch,
    },
    DomainList {
        search: String,
        after: String,
        limit: u32,
    },
    DomainShow {
        name: String,
    },
    DomainSet {
        name: String,
        tenant: Option<String>,
        no_tenant: bool,
        legacy: Option<String>,
        limit: QuotaPatch,
        #[serde(default)]
        relay: RelayPatch,
    },
    DomainDelete {
        name: String,
    },
    AccountAdd {
        address: String,
        name: String,
        admin: bool,
        limit: QuotaPatch,
        legacy: Option<String>,
        secrets: Option<Secrets>,
    },
    AccountList {
        domain: Option<String>,
        search: String,
        after: String,
        limit: u32,
    },
    AccountShow {
        address: String,
    },
    AccountSet {
        address: String,
        patch: AccountPatch,
    },
    AccountDelete {
        address: String,
    },
    AliasPut {
        address: String,
        targets: Vec<String>,
        replace: bool,
    },
    AliasList {
        domain: Option<String>,
        search: String,
        after: String,
        limit: u32,
    },
    AliasShow {
        address: String,
    },
    AliasDelete {
        address: String,
    },
    TenantAdd {
        name: String,
        reseller: bool,
        parent: Option<String>,
    },
    TenantList,
    TenantShow {
        name: String,
    },
    TenantSet {
        name: String,
        rename: Option<String>,
        limit: QuotaPatch,
    },
    TenantDelete {
        name: String,
    },
    Legacy(LegacyRequest),
    Story {
        id: String,
    },
    Messages {
        query: String,
        limit: usize,
    },
    Audit {
        deep: bool,
        repair: bool,
    },
    AuditLast,
    Gc {
        wipe: bool,
    },
    Snapshot {
        to: PathBuf,
    },
    ClusterStatus,
    ClusterWish {
        node: Option<String>,
        drain: bool,
    },
    ClusterInvite {
        valid_seconds: u64,
    },
    ClusterRemove {
        node: String,
    },
    Mail(MailRequest),
    Learn(LearnRequest),
    Import(ImportRequest),
    Queue(QueueRequest),
    Keys(KeyRequest),
    Reports(ReportRequest),
    Policy(PolicyRequest),
    Quarantine(QuarantineRequest),
    People(PeopleRequest),
}

/// A password, or a ready hash of one. The socket is its owner's alone.
#[derive(Serialize, Deserialize, Clone, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Secrets {
    Password(String),
    Hash(String),
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// Changes to an account; `None` stays.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
pub struct AccountPatch {
    pub name: Option<String>,
    pub access: Option<String>,
    pub enabled: Option<bool>,
    pub limit: QuotaPatch,
    /// A legacy server's name, or `none`.
    pub legacy: Option<String>,
    /// `allowed` or `locked`.
    pub sending: Option<String>,
    pub secrets: Option<Secrets>,
}

/// Answers are `{"ok": …}` or `{"error": "…"}`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Ok(Value),
    Error(String),
}

/// A line on the socket: what it says, and how many octets follow it.
#[derive(Serialize, Deserialize)]
struct Line<T> {
    #[serde(flatten)]
    says: T,
    #[serde(default)]
    bytes: u64,
}

/// What a request gives: something to print, and a message's octets if it asks for them.
#[derive(Debug, Default, PartialEq)]
pub struct Reply {
    pub value: Value,
    pub content: Bytes,
}

impl From<Value> for Reply {
    fn from(value: Value) -> Self {
        Self { value, content: Bytes::new() }
    }
}

/// Why an account may not send, if nobody said.
const BY_ADMINISTRATOR: &str = "an administrator";
/// A line longer than this is none of ours.
const REQUEST_MAX: u64 = 1 << 20;
const ANSWER_MAX: u64 = 256 << 20;
/// An audit of a big store takes its time.
const ANSWER_WAIT: Duration = Duration::from_secs(24 * 3600);
/// The next request of a connection comes within.
const REQUEST_WAIT: Duration = Duration::from_secs(600);
/// A line or content under way makes progress within.
const TRANSFER_WAIT: Duration = Duration::from_secs(60);

/// Path of the socket in a node's data folder.
pub fn socket(data: &Path) -> PathBuf {
    data.join("control.sock")
}

/// A connection to a running node.
pub struct Connection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// False while an answer is owed, and for good once it did not come.
    in_step: bool,
}

impl Connection {
    /// Reaches the node that runs on `data`; `None` if none runs there.
    pub async fn open(data: &Path) -> anyhow::Result<Option<Self>> {
        use std::io::ErrorKind;
        let path = socket(data);
        match UnixStream::connect(&path).await {
            Ok(stream) => {
                let (reader, writer) = stream.into_split();
                Ok(Some(Self { reader: BufReader::new(reader), writer, in_step: true }))
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{}: cannot reach the running node", path.display())),
        }
    }

    /// True if another request can be asked.
    pub const fn is_alive(&self) -> bool {
        self.in_step
    }

    /// Asks and waits for the answer.
    pub async fn ask(&mut self, request: &Request, content: &[u8]) -> anyhow::Result<Reply> {
        const CLOSED: &str = "the node closed the control socket; see its log";
        self.in_step = false;
        // A node that will not read the content says why and closes: its answer counts, not the broken pipe.
        let sent = write(&mut self.writer, request, content).await;
        let line = tokio::time::timeout(ANSWER_WAIT, read_line(&mut self.reader, ANSWER_MAX)).await;
        let line = line.context("the node did not answer")?.context(CLOSED)?;
        let Some(line) = line else {
            sent.context(CLOSED)?;
            anyhow::bail!(CLOSED);
        };
        const STRANGE: &str = "the node's answer makes no sense; is it of the same version?";
        let Line { says, bytes } = serde_json::from_slice::<Line<Answer>>(&line).context(STRANGE)?;
        anyhow::ensure!(bytes <= mailboxes::RANGE_MAX, STRANGE);
        let content = read_content(&mut self.reader, bytes).await.context(CLOSED)?;
        self.in_step = sent.is_ok();
        match says {
            Answer::Ok(value) => Ok(Reply { value, content }),
            Answer::Error(text) => Err(anyhow::anyhow!(text)),
        }
    }
}

/// Serves one connection of the control socket. `stop` ends it between two requests.
pub async fn serve(stream: UnixStream, engines: &Engines, stop: CancellationToken) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let line = tokio::select! {
            line = tokio::time::timeout(REQUEST_WAIT, read_line(&mut reader, REQUEST_MAX)) => line??,
            () = stop.cancelled() => return Ok(()),
        };
        let Some(line) = line else { return Ok(()) };
        let limit = engines.message_size_max;
        let (request, bytes) = match serde_json::from_slice::<Line<Request>>(&line) {
            Ok(line) if line.bytes <= limit.0 => (line.says, line.bytes),
            Ok(line) => return refuse(&mut writer, format!("{} octets are more than {limit}", line.bytes)).await,
            Err(error) => return refuse(&mut writer, format!("the request makes no sense: {error}")).await,
        };
        let content = read_content(&mut reader, bytes).await?;
        match execute(engines, request, content).await {
            Ok(reply) => write(&mut writer, &Answer::Ok(reply.value), &reply.content).await?,
            Err(error) => write(&mut writer, &Answer::Error(format!("{error:#}")), &[]).await?,
        }
    }
}

/// Where the next request begins is unknown: the connection ends with this.
async fn refuse(writer: &mut OwnedWriteHalf, why: String) -> std::io::Result<()> {
    write(writer, &Answer::Error(why), &[]).await
}

/// `None` at the end of the connection.
async fn read_line(reader: &mut BufReader<OwnedReadHalf>, limit: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    reader.take(limit).read_until(b'\n', &mut line).await?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) => Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "a line without an end")),
    }
}

/// Grows as octets come.
async fn read_content(reader: &mut BufReader<OwnedReadHalf>, bytes: u64) -> std::io::Result<Bytes> {
    let mut content = Vec::new();
    let mut rest = reader.take(bytes);
    while rest.limit() > 0 {
        if tokio::time::timeout(TRANSFER_WAIT, rest.read_buf(&mut content)).await?? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(content.into())
}

async fn write<T: Serialize>(writer: &mut OwnedWriteHalf, says: &T, content: &[u8]) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(&Line { says, bytes: content.len() as u64 })?;
    line.push(b'\n');
    for piece in [&line[..], content] {
        for step in piece.chunks(1 << 20) {
            tokio::time::timeout(TRANSFER_WAIT, writer.write_all(step)).await??;
        }
    }
    Ok(())
}

/// Carries out a request on the node's engines; `content` is the message that came with it.
pub async fn execute(engines: &Engines, request: Request, content: Bytes) -> anyhow::Result<Reply> {
    // Boxed: each request's steps would make up the size of one future otherwise.
    match request {
        Request::Mail(request) => Box::pin(mailboxes::execute(engines, request, content)).await,
        Request::Learn(request) => Box::pin(learning::execute(engines, request, content)).await.map(Reply::from),
        Request::Import(request) => Box::pin(importing::execute(engines, request, &content)).await.map(Reply::from),
        Request::Queue(request) => Box::pin(queue::execute(engines, request)).await.map(Reply::from),
        Request::Keys(request) => Box::pin(keys::execute(engines, request)).await.map(Reply::from),
        Request::Reports(request) => Box::pin(reports::execute(engines, request, content)).await.map(Reply::from),
        Request::Policy(request) => Box::pin(policies::execute(engines, request)).await.map(Reply::from),
        Request::Quarantine(request) => Box::pin(quarantine::execute(engines, request)).await.map(Reply::from),
        Request::People(request) => Box::pin(people::execute(engines, request)).await.map(Reply::from),
        request => Box::pin(manage(engines, request)).await.map(Reply::from),
    }
}

/// Requests that give something to print.
async fn manage(engines: &Engines, request: Request) -> anyhow::Result<Value> {
    let directory = &engines.directory;
    match request {
        Request::DomainAdd { name, tenant, relay } => {
            let parsed = parse_domain(&name)?;
            let relay = relay.change(None)?;
            directory.add_domain(parsed.clone(), tenant).await?;
            if let Some(relay) = relay {
                relayed::set(engines, &parsed, relay).await?;
            }
            domain(engines, &name).await
        }
        Request::DomainList { search, after, limit } => {
            let found = directory.domains(Listing { search, after, limit, ..Listing::default() }).await?;
            Ok(found.iter().map(domain_value).collect())
        }
        Request::DomainShow { name } => domain(engines, &name).await,
        Request::DomainSet { name, tenant, no_tenant, legacy, limit, relay } => {
            let (parsed, change) = (parse_domain(&name)?, limit.change()?);
            let relay = relay.change(domain_entry(engines, &name).await?.relay)?;
            if tenant.is_some() || no_tenant {
                directory.set_domain_tenant(parsed.clone(), tenant).await?;
                limits::apply_members(engines, PoolId::Domain(domain_entry(engines, &name).await?.id)).await?;
            }
            if let Some(server) = legacy {
                directory.set_domain_legacy(parsed.clone(), legacies::server(server)).await?;
            }
            if let Some(relay) = relay {
                relayed::set(engines, &parsed, relay).await?;
            }
            if !change.is_empty() {
                limits::apply_pool(engines, directory.set_domain_quota(parsed, change).await?).await?;
            }
            domain(engines, &name).await
        }
        Request::DomainDelete { name } => {
            let id = domain_entry(engines, &name).await?.id;
            directory.delete_domain(parse_domain(&name)?).await?;
            engines.layers.forget_owner(Owner { level: Level::Domain, id: id.0 }).await?;
            Ok(Value::Null)
        }
        Request::AccountAdd { address, name, admin, limit, legacy, secrets } => {
            let change = limit.change()?;
            let account = NewAccount {
                address: parse_address(&address)?,
                name,
                access: if admin { Access::Admin } else { Access::User },
                password: match secrets {
                    Some(secrets) => hash(secrets).await?,
                    None => PasswordHash::of_nobody(),
                },
                placement: legacies::placement(legacy),
                quota: Quota { size: change.size.flatten(), messages: change.messages.flatten() },
            };
            let id = directory.add_account(account).await?;
            limits::apply(engines, id).await?;
            account_show(engines, &address).await
        }
        Request::AccountList { domain, search, after, limit } => {
            let domain = domain.as_deref().map(parse_domain).transpose()?;
            let found = directory.accounts(Listing { search, domain, after, limit, within: None }).await?;
            Ok(found.iter().map(account_value).collect())
        }
        Request::AccountShow { address } => account_show(engines, &address).await,
        Request::AccountSet { address, patch } => {
            let change = AccountChange {
                name: patch.name,
                access: patch.access.as_deref().and_then(Access::from_name),
                enabled: patch.enabled,
                quota: patch.limit.change()?,
                legacy: patch.legacy.map(legacies::server),
                sending: patch.sending.map(|word| {
                    let lock = || SendingLock { at: engines.clock.utc(), reason: BY_ADMINISTRATOR.to_owned() };
                    (word == "locked").then(lock)
                }),
                password: match patch.secrets {
                    Some(secrets) => Some(hash(secrets).await?),
                    None => None,
                },
            };
            let parsed = parse_address(&address)?;
            let quota = change.quota;
            directory.set_account(&parsed, change).await?;
            if !quota.is_empty()
                && let Some(account) = directory.account_by_address(&parsed).await?
            {
                limits::apply(engines, account.id).await?;
            }
            account_show(engines, &address).await
        }
        Request::AccountDelete { address } => {
            let id = directory.delete_account(&parse_address(&address)?).await?;
            engines.storage.delete_account(id).await?;
            engines.layers.forget_owner(Owner { level: Level::Mailbox, id: id.0 }).await?;
            engines.classifier.forget(id).await?;
            Ok(Value::Null)
        }
        Request::AliasPut { address, targets, replace } => {
            let targets = targets.iter().map(|target| parse_address(target)).collect::<anyhow::Result<_>>()?;
            directory.put_alias(&address, targets, replace).await?;
            alias(engines, &address).await
        }
        Request::AliasList { domain, search, after, limit } => {
            let domain = domain.as_deref().map(parse_domain).transpose()?;
            let found = directory.aliases(Listing { search, domain, after, limit, within: None }).await?;
            Ok(found.iter().map(alias_value).collect())
        }
        Request::AliasShow { address } => alias(engines, &address).await,
        Request::AliasDelete { address } => {
            directory.delete_alias(&address).await?;
            Ok(Value::Null)
        }
        Request::TenantAdd { name, reseller, parent } => {
            let kind = if reseller { TenantKind::Reseller } else { TenantKind::Customer };
            directory.add_tenant(&name, kind, parent).await?;
            tenant(engines, &name).await
        }
        Request::TenantList => Ok(directory.tenants().await?.iter().map(tenant_value).collect()),
        Request::TenantShow { name } => tenant(engines, &name).await,
        Request::TenantSet { name, rename, limit } => {
            let change = limit.change()?;
            if !change.is_empty() {
                limits::apply_pool(engines, directory.set_tenant_quota(&name, change).await?).await?;
            }
            if let Some(to) = &rename {
                directory.rename_tenant(&name, to).await?;
            }
            tenant(engines, rename.as_ref().unwrap_or(&name)).await
        }
        Request::TenantDelete { name } => {
            let gone = directory.tenant(&name).await?;
            directory.delete_tenant(&name).await?;
            if let Some(gone) = gone {
                engines.layers.forget_owner(Owner::of(gone.position)).await?;
            }
            Ok(Value::Null)
        }
        Request::Legacy(request) => legacies::execute(directory, request).await,
        Request::Story { id } => {
            let id: MessageId = id.parse().with_context(|| format!("{id}: not a message id"))?;
            let story = engines.trail.story(&Scope::System, id).await?;
            anyhow::ensure!(!story.is_empty(), "{id}: no such message in the log; it may be older than the retention");
            Ok(story.iter().map(event_value).collect())
        }
        Request::Messages { query, limit } => {
            let query: Query = query.parse()?;
            let found = engines.trail.messages(&Scope::System, &query, limit).await?;
            Ok(found.iter().map(message_value).collect())
        }
        Request::AuditLast => super::auditor::last(engines.data()),
        Request::Audit { deep, repair } => engines.audit(deep, repair).await,
        Request::Gc { wipe } => engines.gc(wipe).await,
        Request::ClusterStatus => Ok(engines.membership.list().await?.iter().map(member_value).collect()),
        Request::ClusterWish { node, drain } => {
            let node = node.unwrap_or_else(|| engines.membership.name().to_owned());
            engines.membership.set_wish(&node, if drain { Wish::Drain } else { Wish::Serve }).await?;
            let all = engines.membership.list().await?;
            Ok(all.iter().find(|one| one.name == node).map(member_value).unwrap_or_default())
        }
        Request::ClusterInvite { valid_seconds } => {
            let shared = engines
                .shared
                .as_ref()
                .context("this node is alone: nodes share a PostgreSQL server (storage.engine)")?;
            let code = cluster::invite(shared, Duration::from_secs(valid_seconds)).await?;
            Ok(json!({ "code": code.to_string(), "valid_seconds": valid_seconds }))
        }
        Request::ClusterRemove { node } => {
            engines.membership.remove(&node).await?;
            Ok(Value::Null)
        }
        Request::Snapshot { to } => engines.snapshot(&to).await,
        Request::Mail(request) => Ok(mailboxes::execute(engines, request, Bytes::new()).await?.value),
        Request::Learn(request) => learning::execute(engines, request, Bytes::new()).await,
        Request::Import(request) => importing::execute(engines, request, &[]).await,
        Request::Queue(request) => queue::execute(engines, request).await,
        Request::Keys(request) => keys::execute(engines, request).await,
        Request::Reports(request) => reports::execute(engines, request, Bytes::new()).await,
        Request::Policy(request) => policies::execute(engines, request).await,
        Request::Quarantine(request) => quarantine::execute(engines, request).await,
        Request::People(request) => people::execute(engines, request).await,
    }
}

async fn domain(engines: &Engines, name: &str) -> anyhow::Result<Value> {
    let found = domain_entry(engines, name).await?;
    Ok(with_usage(domain_value(&found), limits::pool_usage(engines, PoolId::Domain(found.id)).await?))
}

/// Adds what is used to what is shown; `null` where nothing is summed.
fn with_usage(mut shown: Value, used: Option<Used>) -> Value {
    if let Some(fields) = shown.as_object_mut() {
        fields.insert("used".to_owned(), used.map(|used| used.size.0).into());
        fields.insert("used_messages".to_owned(), used.map(|used| used.messages).into());
    }
    shown
}

async fn domain_entry(engines: &Engines, name: &str) -> anyhow::Result<DomainEntry> {
    let name = parse_domain(name)?;
    let listing = Listing { search: name.as_str().to_owned(), ..Listing::default() };
    let found = engines.directory.domains(listing).await?;
    let missing = || RegistryError::Missing { what: format!("the domain {name}") };
    Ok(found.into_iter().find(|domain| domain.name == name).ok_or_else(missing)?)
}

async fn account_show(engines: &Engines, address: &str) -> anyhow::Result<Value> {
    let found = engines.directory.account_by_address(&parse_address(address)?).await?;
    let missing = || RegistryError::Missing { what: format!("the account {address}") };
    let account = found.ok_or_else(missing)?;
    Ok(with_usage(account_value(&account), Some(limits::account_usage(engines, account.id).await?)))
}

async fn alias(engines: &Engines, address: &str) -> anyhow::Result<Value> {
    let wanted = address.to_lowercase();
    let listing = Listing { search: wanted.clone(), ..Listing::default() };
    let found = engines.directory.aliases(listing).await?;
    let missing = || RegistryError::Missing { what: format!("the alias {address}") };
    Ok(found.iter().find(|alias| alias.address == wanted).map(alias_value).ok_or_else(missing)?)
}

async fn tenant(engines: &Engines, name: &str) -> anyhow::Result<Value> {
    let found = engines.directory.tenants().await?;
    let missing = || RegistryError::Missing { what: format!("the tenant {name}") };
    let tenant = found.iter().find(|tenant| tenant.name.eq_ignore_ascii_case(name)).ok_or_else(missing)?;
    Ok(with_usage(tenant_value(tenant), limits::pool_usage(engines, PoolId::Tenant(tenant.id)).await?))
}

fn domain_value(domain: &directory::DomainEntry) -> Value {
    json!({
        "name": domain.name.as_str(),
        "tenant": domain.tenant,
        "legacy": domain.legacy,
        "relay": domain.relay.as_ref().map(relayed::value),
        "accounts": domain.accounts,
        "aliases": domain.aliases,
        "quota": domain.quota.size.map(|size| size.to_string()),
        "quota_messages": domain.quota.messages,
        "created": mail::date::format_utc(domain.created_at),
    })
}

fn account_value(account: &Account) -> Value {
    json!({
        "address": account.address.to_string(),
        "name": account.name,
        "access": account.access.as_str(),
        "second_factor": account.has_second_factor,
        "enabled": account.enabled,
        "legacy": account.legacy,
        "relayed": account.is_relayed,
        "sending": account.sending_lock.as_ref().map_or("allowed", |_| "locked"),
        "sending_locked": account.sending_lock.as_ref().map(|lock| mail::date::format_utc(lock.at)),
        "sending_locked_by": account.sending_lock.as_ref().map(|lock| lock.reason.clone()),
        "quota": account.quota.size.map(|size| size.to_string()),
        "quota_messages": account.quota.messages,
        "created": mail::date::format_utc(account.created_at),
        "id": account.id.0,
    })
}

fn alias_value(alias: &Alias) -> Value {
    json!({
        "address": alias.address,
        "targets": alias.targets.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "created": mail::date::format_utc(alias.created_at),
    })
}

fn tenant_value(tenant: &Tenant) -> Value {
    json!({
        "name": tenant.name,
        "kind": tenant.kind.as_str(),
        "parent": tenant.parent,
        "domains": tenant.domains,
        "quota": tenant.quota.size.map(|size| size.to_string()),
        "quota_messages": tenant.quota.messages,
        "created": mail::date::format_utc(tenant.created_at),
    })
}

/// `null` for scanners of a node that does not run, or of a release that does not tell.
fn member_value(member: &Member) -> Value {
    let health: Value = member.health.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    json!({
        "name": member.name,
        "state": member.state().as_str(),
        "roles": member.role_names(),
        "address": member.address,
        "version": member.version,
        "sessions": member.sessions,
        "scanners": health["scanners"],
        "seen": member.silent.map(|silent| format!("{} ms ago", silent.as_millis())),
        "started": mail::date::format_utc(member.started_at),
    })
}

fn event_value(event: &StoredEvent) -> Value {
    json!({
        "at": mail::date::format_utc(event.at),
        "kind": event.kind.as_str(),
        "party": event.party,
        "outcome": event.outcome.map(trail::Outcome::as_str),
        "fields": event.fields,
    })
}

fn message_value(row: &MessageRow) -> Value {
    json!({
        "id": row.id.to_string(),
        "at": mail::date::format_utc(row.at),
        "outcome": row.outcome.map(trail::Outcome::as_str),
        "from": row.reverse_path,
        "to": row.recipients.iter().map(|party| party.address.as_str()).collect::<Vec<_>>(),
        "subject": row.subject,
        "score": row.score.map(|score| policy::Score(score).to_string()),
        "size": row.size_bytes,
        "client": row.client,
        "reason": row.reason,
    })
}

/// Hashing costs tens of milliseconds: not on an async thread.
pub(super) async fn hash(secrets: Secrets) -> anyhow::Result<PasswordHash> {
    match secrets {
        Secrets::Hash(text) => Ok(text.parse::<PasswordHash>()?),
        Secrets::Password(text) => {
            let password = Secret::new(text);
            Ok(tokio::task::spawn_blocking(move || PasswordHash::make(&password)).await?)
        }
    }
}

fn parse_domain(text: &str) -> anyhow::Result<Domain> {
    text.parse().with_context(|| format!("`{text}`"))
}

fn parse_address(text: &str) -> anyhow::Result<Address> {
    text.parse().with_context(|| format!("`{text}`"))
}
