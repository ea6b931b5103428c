//! The queue: its worker on this node, and what commands do to it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use base::{ByteSize, MessageId, UtcMillis, event};
use cluster::{Member, State};
use config::{Config, Role};
use directory::Directory;
use mail::date;
use net::{Tasks, Trust};
use relay::{Home, Https, Keyring, Outgoing, Policies, Relay, RelayParts, RelaySettings, Routes, Schedule, Waits};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{LaneState, QueueAction, QueueFilter, QueueJob, QueueState};
use tokio_util::sync::CancellationToken;

use super::Engines;
use super::engines::explain;
use super::operations::Absent;

/// The routing file is looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Lanes without recipients are forgotten after so long.
const LANES_KEPT: Duration = Duration::from_secs(86_400);
/// Recipients of one answer.
pub const ROWS_MAX: usize = 10_000;
/// Lanes looked at for an answer.
const LANES_MAX: usize = 1000;

/// Where mail goes, as a configuration says.
pub fn routes(config: &Config) -> anyhow::Result<Routes> {
    Ok(match &config.queue.routes {
        Some(file) => Routes::read(file)?,
        None => Routes::default(),
    })
}

/// The way out that a configuration gives.
pub fn outgoing(config: &Config, directory: Arc<dyn Directory>) -> anyhow::Result<Arc<Outgoing>> {
    let queue = &config.queue;
    let schedule = Schedule {
        first_wait: queue.first_wait,
        longest_wait: queue.longest_wait.max(queue.first_wait),
        warn_after: queue.warn_after,
        expire_after: queue.expire_after,
        expire_notices_after: queue.expire_notices_after,
    };
    Ok(Outgoing::new(routes(config)?, schedule, Keyring::new(directory)))
}

/// Whom certificates of servers elsewhere are signed by.
pub fn authorities(config: &Config) -> anyhow::Result<Trust> {
    let Some(file) = &config.queue.authorities else { return Ok(Trust::System) };
    let at = || format!("`queue.authorities`: {}", file.display());
    let trust = Trust::Authorities(std::fs::read_to_string(file).with_context(at)?);
    trust.check().map_err(anyhow::Error::msg).with_context(at)?;
    Ok(trust)
}

/// Starts the worker, on nodes that take mail. Gives what domains say of their servers, where somebody asks.
pub fn spawn(
    config: &Config,
    engines: &Engines,
    home: Arc<dyn Home>,
    (accepting, sessions): (&Tasks, &Tasks),
) -> anyhow::Result<Option<Arc<Policies>>> {
    if let Some(file) = config.queue.routes.clone() {
        accepting.spawn("routes", follow(file, Arc::clone(&engines.outgoing), accepting.stopping()));
    }
    let authorities = authorities(config)?;
    let policies = engines.resolver.clone().map(|resolver| {
        let (trust, port) = (authorities.clone(), config.queue.mta_sts_port);
        let https = Https { connectors: Arc::default(), resolver, trust, port };
        Arc::new(Policies::new(https, Arc::clone(&engines.peers), Arc::clone(&engines.clock)))
    });
    if !config.roles.contains(&Role::Filter) {
        return Ok(policies);
    }
    let parts = RelayParts {
        storage: Arc::clone(&engines.storage),
        home,
        resolver: engines.resolver.clone(),
        outgoing: Arc::clone(&engines.outgoing),
        policies: policies.clone().filter(|_| config.queue.mta_sts),
        peers: Arc::clone(&engines.peers),
        trail: Arc::clone(&engines.trail),
        clock: Arc::clone(&engines.clock),
        ids: Arc::clone(&engines.ids),
    };
    let settings = RelaySettings {
        node_name: config.node_name.clone(),
        host_name: config.node_name.clone(),
        waits: Waits::default(),
        port: config.queue.port,
        attempts_max: config.queue.connections_max,
        lanes_max: 2 * config.queue.connections_max,
        memory: ByteSize(config.memory_for_messages.0 / 2),
        postmaster: config.postmaster.as_ref().map(ToString::to_string),
        authorities,
        reports_tls: config.reports.tls,
    };
    let relay = Relay::new(parts, settings);
    let (membership, shared, stop) = (Arc::clone(&engines.membership), Arc::clone(&relay), accepting.stopping());
    accepting.spawn("sites", async move {
        while tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_err() {
            // Without an answer the shares stay.
            if let Ok(members) = membership.list().await {
                let sends = |member: &&Member| member.state() == State::Up && member.roles.contains(&Role::Filter);
                shared.set_nodes(u32::try_from(members.iter().filter(sends).count()).unwrap_or(1));
            }
        }
    });
    accepting.spawn("queue", relay.run(sessions.clone(), accepting.stopping()));
    Ok(policies)
}

/// Reads the routing file again when it has changed; one that is wrong changes nothing.
async fn follow(file: PathBuf, outgoing: Arc<Outgoing>, stop: CancellationToken) {
    let stamp = |file: &PathBuf| -> Option<(SystemTime, u64)> {
        let known = std::fs::metadata(file).ok()?;
        Some((known.modified().ok()?, known.len()))
    };
    let mut seen = stamp(&file);
    while tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_err() {
        let now = stamp(&file);
        if now == seen || now.is_none() {
            continue;
        }
        seen = now;
        match Routes::read(&file) {
            Ok(routes) => {
                outgoing.routes.store(Arc::new(routes));
                tracing::info!(event = event::ROUTES_READ, file = %file.display());
            }
            Err(error) => {
                tracing::error!(event = event::ROUTES_FAILED, %error, next_step = "the routes stay as they were")
            }
        }
    }
}

/// Forgets lanes where nothing happens any more.
pub async fn tidy(engines: &Engines) -> Result<usize, store::StoreError> {
    engines.storage.queue.tidy_lanes(engines.clock.utc().minus(LANES_KEPT)).await
}

/// Which recipients a command means.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
pub struct Which {
    /// Messages, each perhaps with `/` and the number of a recipient.
    pub ids: Vec<String>,
    pub from: Option<String>,
    pub to: Option<String>,
    pub lane: Option<String>,
    pub state: Option<String>,
    pub status: Option<String>,
    pub subject: Option<String>,
    /// The submitting account's address.
    pub account: Option<String>,
    /// Came so many milliseconds ago or earlier.
    pub older_ms: Option<u64>,
}

/// What a command asks of the queue.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum QueueRequest {
    Status { which: Which },
    List { which: Which, after: Option<String>, limit: usize },
    Show { id: String },
    Act { which: Which, action: Action },
    Lanes { all: bool },
    Suspend { lane: String, reason: String },
    Resume { lane: String },
}

#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Retry,
    Hold { reason: String },
    Release,
    Reroute { to: String },
    Bounce { reason: String },
    Delete,
}

pub async fn execute(engines: &Engines, request: QueueRequest) -> anyhow::Result<Value> {
    let queue = &engines.storage.queue;
    match request {
        QueueRequest::Status { which } => {
            let mut sum = store::QueueCounts::default();
            for filter in filters(engines, &which).await? {
                let one = queue.queue_counts(&filter).await.map_err(|error| explain(&error))?;
                sum.waiting += one.waiting;
                sum.due += one.due;
                sum.held += one.held;
                sum.returning += one.returning;
                sum.oldest = [sum.oldest, one.oldest].into_iter().flatten().min();
            }
            Ok(json!({
                "waiting": sum.waiting, "due": sum.due, "held": sum.held, "returning": sum.returning,
                "oldest": sum.oldest.map(date::format_utc),
            }))
        }
        QueueRequest::List { which, after, limit } => {
            let after = after.as_deref().map(key).transpose()?.map(|(id, nth)| (id, nth.unwrap_or(0)));
            let mut rows = Vec::new();
            for filter in filters(engines, &which).await? {
                let left = limit.min(ROWS_MAX).saturating_sub(rows.len());
                rows.extend(queue.queued(&filter, after, left).await.map_err(|error| explain(&error))?);
            }
            Ok(rows.iter().map(row).collect())
        }
        QueueRequest::Show { id } => {
            let (message, nth) = key(&id)?;
            let filter = QueueFilter { message: Some(message), nth, ..QueueFilter::default() };
            let found = queue.queued(&filter, None, ROWS_MAX).await.map_err(|error| explain(&error))?;
            let first = found
                .first()
                .ok_or_else(|| Absent(format!("{id} is not in the queue; `ortler trace` tells its story")))?;
            let recipients: Vec<Value> = found.iter().map(recipient).collect();
            let item = &first.item;
            Ok(json!({
                "id": item.message.to_string(),
                "from": format!("<{}>", item.sender),
                "subject": item.subject,
                "size": item.size_bytes,
                "came": date::format_utc(item.created_at),
                "account": item.account.map(|account| account.0),
                "recipients": recipients,
            }))
        }
        QueueRequest::Act { which, action } => {
            let action = match action {
                Action::Retry => QueueAction::Retry,
                Action::Hold { reason } => QueueAction::Hold(reason),
                Action::Release => QueueAction::Release,
                Action::Bounce { reason } => QueueAction::Return(reason),
                Action::Delete => QueueAction::Delete,
                Action::Reroute { to } => {
                    let lane = engines.outgoing.lane_named(&to);
                    QueueAction::Reroute(lane.map_err(anyhow::Error::msg)?)
                }
            };
            let mut count = 0;
            for filter in filters(engines, &which).await? {
                let mut after = None;
                loop {
                    let step = queue.queue_act(&filter, action.clone(), after).await;
                    let (changed, next) = step.map_err(|error| explain(&error))?;
                    count += changed;
                    match next {
                        Some(next) => after = Some(next),
                        None => break,
                    }
                }
            }
            engines.outgoing.wake();
            if count == 0 && !which.ids.is_empty() {
                return Err(Absent(format!("{} is not in the queue", which.ids.join(", "))).into());
            }
            Ok(json!({ "recipients": count }))
        }
        QueueRequest::Lanes { all } => {
            let mut shown = Vec::new();
            let mut after = None;
            loop {
                let found = queue.lanes(after, LANES_MAX).await.map_err(|error| explain(&error))?;
                after = found.last().map(|lane| lane.lane.clone());
                let is_whole = found.len() < LANES_MAX;
                shown.extend(found.into_iter().filter(|lane| all || lane.recipients > 0 || lane.is_suspended));
                if is_whole || shown.len() >= ROWS_MAX {
                    break;
                }
            }
            shown.sort_by_key(|lane| std::cmp::Reverse(lane.recipients));
            let now = engines.clock.utc();
            Ok(shown.iter().map(|lane| lane_row(lane, now)).collect())
        }
        QueueRequest::Suspend { lane, reason } => suspend(engines, &lane, Some(reason)).await,
        QueueRequest::Resume { lane } => suspend(engines, &lane, None).await,
    }
}

async fn suspend(engines: &Engines, lane: &str, reason: Option<String>) -> anyhow::Result<Value> {
    let lane = engines.outgoing.lane_named(lane).map_err(anyhow::Error::msg)?;
    engines.storage.queue.suspend_lane(&lane, reason).await.map_err(|error| explain(&error))?;
    engines.outgoing.wake();
    Ok(json!({ "lane": &*lane }))
}

/// `ID` or `ID/NTH`.
fn key(text: &str) -> anyhow::Result<(MessageId, Option<u32>)> {
    let (id, nth) = text.split_once('/').map_or((text, None), |(id, nth)| (id, Some(nth)));
    let message = id.parse().with_context(|| format!("`{id}` is no id of a message"))?;
    let nth = nth.map(|nth| nth.parse().with_context(|| format!("`{nth}` is no number of a recipient"))).transpose()?;
    Ok((message, nth))
}

/// One filter for each message that is named, or one for all.
async fn filters(engines: &Engines, which: &Which) -> anyhow::Result<Vec<QueueFilter>> {
    let state = match &which.state {
        Some(name) => {
            let known = QueueState::ALL.iter().find(|(_, known)| known == name).map(|(state, _)| *state);
            Some(known.with_context(|| format!("`{name}` is no state: waiting, held or returning"))?)
        }
        None => None,
    };
    let account = match &which.account {
        Some(address) => Some(super::mailboxes::id_of(engines, address).await?),
        None => None,
    };
    let lane = match &which.lane {
        Some(name) => Some(engines.outgoing.lane_named(name).map_err(anyhow::Error::msg)?),
        None => None,
    };
    let before = which.older_ms.map(|ms| engines.clock.utc().minus(Duration::from_millis(ms)));
    let plain = |text: &Option<String>| text.as_ref().map(|text| text.trim_matches(['<', '>']).to_owned());
    let all = QueueFilter {
        sender: plain(&which.from),
        recipient: plain(&which.to),
        lane,
        state,
        account,
        before,
        status: which.status.clone(),
        subject: which.subject.clone(),
        ..QueueFilter::default()
    };
    if which.ids.is_empty() {
        return Ok(vec![all]);
    }
    which
        .ids
        .iter()
        .map(|id| key(id).map(|(message, nth)| QueueFilter { message: Some(message), nth, ..all.clone() }))
        .collect()
}

fn row(job: &QueueJob) -> Value {
    let (item, one) = (&job.item, &job.recipient);
    json!({
        "id": format!("{}/{}", item.message, one.nth),
        "from": format!("<{}>", item.sender),
        "to": one.address,
        "lane": &*one.lane,
        "state": one.state.as_str(),
        "attempts": one.attempts,
        "next": if one.state == QueueState::Waiting { json!(date::format_utc(one.next_at)) } else { Value::Null },
        "status": one.last_status,
    })
}

fn recipient(job: &QueueJob) -> Value {
    let one = &job.recipient;
    json!({
        "nth": one.nth,
        "to": one.address,
        "lane": &*one.lane,
        "state": one.state.as_str(),
        "attempts": one.attempts,
        "last": one.last_at.map(date::format_utc),
        "next": date::format_utc(one.next_at),
        "expires": date::format_utc(one.expires_at),
        "status": one.last_status,
        "host": one.last_host,
    })
}

fn lane_row(lane: &LaneState, now: UtcMillis) -> Value {
    let state = match (lane.is_suspended, lane.retry_at > now, lane.holder.is_empty()) {
        (true, ..) => "suspended",
        (false, true, _) => "away",
        (false, false, false) => "working",
        (false, false, true) => "idle",
    };
    json!({
        "lane": &*lane.lane,
        "recipients": lane.recipients,
        "state": state,
        "node": lane.holder,
        "failures": lane.failures,
        "retry": (lane.retry_at > now).then(|| date::format_utc(lane.retry_at)),
        "reason": lane.reason,
    })
}
