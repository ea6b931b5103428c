//! The slow audit in the background: all of the store, content included, and the directory once in `storage.audit_every`, a step
//! at a time. Nodes that share a store take turns.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base::{AccountId, UtcMillis, event};
use cluster::Lease;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{AuditOptions, AuditPlace, AuditReport};
use tokio_util::sync::CancellationToken;

use super::Engines;
use super::engines::explain;

/// The first pass begins no sooner after a start.
const SETTLED: Duration = Duration::from_secs(120);
/// Between two steps, times what the step took: the audit takes a twentieth of one thread at most.
const REST: u32 = 19;
const REST_MIN: Duration = Duration::from_millis(200);
/// After a step that could not be done, and while another node has its turn.
const RETRY: Duration = Duration::from_secs(300);
/// A node that dies at it is followed by another one after so long. Longer than a step and its rest.
const LEASE: Duration = Duration::from_secs(1800);

/// The result of a pass, as kept in the data folder.
#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    finished_at: i64,
    report: Value,
}

fn file(data: &Path) -> PathBuf {
    data.join("audit.json")
}

/// What the latest pass found; an error if there was none yet.
pub fn last(data: &Path) -> anyhow::Result<Value> {
    let kept = load(data)?.with_context(|| {
        format!("{}: no background audit has ended yet; run `ortler audit` for one now", data.display())
    })?;
    let mut report = kept.report;
    if let Some(fields) = report.as_object_mut() {
        fields.insert("finished".to_owned(), json!(mail::date::format_utc(UtcMillis(kept.finished_at))));
    }
    Ok(report)
}

fn load(data: &Path) -> anyhow::Result<Option<Kept>> {
    let path = file(data);
    match std::fs::read(&path) {
        Ok(text) => Ok(serde_json::from_slice::<Kept>(&text).ok().filter(|kept| kept.version == 1)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Replaced in one step: a crash leaves the one before.
fn keep(data: &Path, kept: &Kept) -> anyhow::Result<()> {
    let (path, draft) = (file(data), data.join("audit.json.part"));
    std::fs::write(&draft, serde_json::to_vec(kept)?)?;
    std::fs::File::open(&draft)?.sync_all()?;
    Ok(std::fs::rename(&draft, &path)?)
}

/// Runs pass after pass until `stop`. `every`: from the end of one to the start of the next; zero: none at all.
pub async fn run(engines: Arc<Engines>, every: Duration, stop: CancellationToken) {
    if every.is_zero() {
        return;
    }
    if let Ok(Some(kept)) = load(engines.data()) {
        tell(&kept);
    }
    let mut wait = SETTLED.min(every);
    loop {
        if tokio::time::timeout(wait, stop.cancelled()).await.is_ok() {
            return;
        }
        let since = match load(engines.data()) {
            Ok(Some(kept)) => engines.clock.utc().since(UtcMillis(kept.finished_at)),
            Ok(None) | Err(_) => every,
        };
        if since < every {
            wait = every - since;
            continue;
        }
        let mut turn = match engines.leases.take("audit", LEASE).await {
            Ok(Some(turn)) => turn,
            other => {
                if let Err(error) = other {
                    tracing::warn!(event = event::STORE_FAILED, what = "audit", %error);
                }
                wait = RETRY;
                continue;
            }
        };
        let report = pass(&engines, &mut turn, &stop).await;
        turn.give_up().await;
        let Some(report) = report else {
            wait = RETRY;
            continue;
        };
        let kept = Kept { version: 1, finished_at: engines.clock.utc().0, report };
        if let Err(error) = keep(engines.data(), &kept) {
            tracing::warn!(event = event::STORE_FAILED, what = "audit.json", error = %format!("{error:#}"));
        }
        tell(&kept);
        wait = every;
    }
}

fn tell(kept: &Kept) {
    let problems = kept.report["problems"].as_array().map_or(0, Vec::len);
    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    let (problems, finished) = (problems as f64, (kept.finished_at / 1000) as f64);
    metrics::gauge!("ortler_audit_problems").set(problems);
    metrics::gauge!("ortler_audit_finished_timestamp_seconds").set(finished);
}

/// One pass over everything; `None` if the node stops, or the turn went to another one.
async fn pass(engines: &Engines, turn: &mut Lease, stop: &CancellationToken) -> Option<Value> {
    let mut found = AuditReport::default();
    let mut place = Some(AuditPlace::default());
    let mut accounts = None;
    while let Some(here) = place.clone() {
        let begun = engines.clock.now();
        let rest = match step(engines, here, &mut accounts).await {
            Ok((report, next)) => {
                note(&report);
                found.absorb(report);
                place = next;
                (engines.clock.now().saturating_duration_since(begun) * REST).max(REST_MIN)
            }
            Err(error) => {
                tracing::warn!(event = event::STORE_FAILED, what = "audit", error = %format!("{error:#}"));
                RETRY
            }
        };
        if tokio::time::timeout(rest, stop.cancelled()).await.is_ok() || !turn.keep().await {
            return None;
        }
    }
    let mut of_directory = AuditReport::default();
    if let Err(error) = engines.audit_directory(false, false, &mut of_directory).await {
        tracing::warn!(event = event::STORE_FAILED, what = "audit", error = %format!("{error:#}"));
    }
    note(&of_directory);
    found.absorb(of_directory);
    Some(engines.audit_value(&found).await)
}

fn note(report: &AuditReport) {
    for problem in &report.problems {
        tracing::error!(event = event::AUDIT_PROBLEM, what = %problem.what, at = %problem.location);
        metrics::counter!("ortler_audit_problems_total").increment(1);
    }
}

/// `accounts`: the directory's, once they were asked for.
async fn step(
    engines: &Engines,
    place: AuditPlace,
    accounts: &mut Option<Arc<BTreeSet<AccountId>>>,
) -> anyhow::Result<(AuditReport, Option<AuditPlace>)> {
    let audit = async |accounts| {
        let options = AuditOptions { deep: true, accounts, ..AuditOptions::default() };
        engines.storage.audit_step(place.clone(), &options).await.map_err(|error| explain(&error))
    };
    if !matches!(place, AuditPlace::Accounts(_)) {
        return audit(None).await;
    }
    if accounts.is_some() {
        let done = audit(accounts.clone()).await?;
        if done.0.is_clean() {
            return Ok(done);
        }
        // Perhaps only of accounts that were made since.
    }
    let known = engines.known_accounts().await?;
    audit(accounts.insert(known).clone().into()).await
}

/// `account 7, …` with the account's address.
pub async fn with_address(engines: &Engines, location: &str) -> String {
    let number = |text: &str| text.strip_prefix("account ")?.split(',').next()?.parse::<u64>().ok();
    let mut parts = Vec::new();
    for part in location.split("; ") {
        let account = match number(part) {
            Some(id) => directory::Directory::account(&*engines.directory, AccountId(id)).await.ok().flatten(),
            None => None,
        };
        parts.push(match account {
            Some(account) => format!("{}: {part}", account.address),
            None => part.to_owned(),
        });
    }
    parts.join("; ")
}
