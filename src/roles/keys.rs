//! Keys by which domains sign: made, looked for in the DNS, taking turns.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base::{UtcMillis, event};
use directory::{DomainKey, KeyListing, KeyState};
use mail::{Domain, date};
use mailauth::{KeyKind, KeyPair, Published};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Engines;
use super::operations::Absent;

/// The DNS is looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// Whether the DNS still has those that sign is looked at each so many times.
const ROUNDS: u32 = 36;
/// A node that dies at it is followed by another one after so long.
const LEASE: Duration = Duration::from_secs(300);
/// What was signed is on its way, and looked at, for so long.
const LOOKED_AT_FOR: Duration = Duration::from_secs(7 * 86_400);
/// Rows of one answer.
const ROWS_MAX: u32 = 10_000;
/// A string in the DNS has at most so many octets (RFC 1035 §3.3.14).
const STRING_MAX: usize = 255;
/// Keys of one domain made in one month.
const LETTERS: std::ops::RangeInclusive<char> = 'a'..='z';

/// What a command asks about keys.
#[derive(Serialize, Deserialize, Clone, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum KeyRequest {
    Create { domain: String, selector: Option<String> },
    Import { domain: String, selector: String, pem: String },
    List { domain: Option<String> },
    Check { domain: Option<String> },
    Activate { domain: String, selector: String, unchecked: bool },
    Retire { domain: String, selector: String },
    Delete { domain: String, selector: String },
}

impl std::fmt::Debug for KeyRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[keys]")
    }
}

pub async fn execute(engines: &Engines, request: KeyRequest) -> anyhow::Result<Value> {
    let directory = &engines.directory;
    match request {
        KeyRequest::Create { domain, selector } => {
            let domain = known_domain(engines, &domain).await?;
            let selector = match selector {
                Some(selector) => selector,
                None => free_selector(engines, &domain).await?,
            };
            let mut made = Vec::new();
            for kind in KeyKind::ALL {
                let pair = tokio::task::spawn_blocking(move || KeyPair::generate(kind)).await??;
                made.push(of_pair(&domain, &format!("{selector}-{}", kind.as_str()), pair, engines.clock.utc()));
            }
            for key in &made {
                directory.add_key(key.clone()).await?;
            }
            Ok(made.iter().map(|key| row(key, None)).collect())
        }
        KeyRequest::Import { domain, selector, pem } => {
            let domain = known_domain(engines, &domain).await?;
            let pair = KeyPair::from_pem(&pem)?;
            let key = of_pair(&domain, &selector.to_lowercase(), pair, engines.clock.utc());
            directory.add_key(key.clone()).await?;
            Ok(row(&key, None))
        }
        KeyRequest::List { domain } => {
            Ok(keys(engines, domain, None).await?.iter().map(|key| row(key, None)).collect())
        }
        KeyRequest::Check { domain } => {
            let mut rows = Vec::new();
            for key in keys(engines, domain, None).await? {
                let found = look(engines, &key).await?;
                rows.push(row(&key, Some(&found)));
            }
            Ok(rows.into())
        }
        KeyRequest::Activate { domain, selector, unchecked } => {
            let key = one(engines, &domain, &selector).await?;
            if !unchecked {
                let found = look(engines, &key).await?;
                anyhow::ensure!(
                    found == Published::Yes,
                    "{}: {}; publish the record that `ortler dkim list {}` shows, or say --unchecked",
                    key.name(),
                    told(&found),
                    key.domain
                );
            }
            activate(engines, &key).await?;
            Ok(row(&one(engines, &domain, &selector).await?, None))
        }
        KeyRequest::Retire { domain, selector } => {
            let key = one(engines, &domain, &selector).await?;
            directory.set_key_state(&key.domain, &key.selector, KeyState::Retired).await?;
            Ok(row(&one(engines, &domain, &selector).await?, None))
        }
        KeyRequest::Delete { domain, selector } => {
            let key = one(engines, &domain, &selector).await?;
            anyhow::ensure!(
                key.state != KeyState::Active,
                "{}: mail is signed by it; retire it first, or activate another one",
                key.name()
            );
            directory.delete_key(&key.domain, &key.selector).await?;
            Ok(Value::Null)
        }
    }
}

/// A domain that mail here may be signed for: one of ours, or one that this node's name lies in.
async fn known_domain(engines: &Engines, name: &str) -> anyhow::Result<String> {
    let domain: Domain = name.parse().with_context(|| format!("`{name}`"))?;
    let is_host =
        |host: &str| host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let is_ours = engines.directory.domain(&domain).await?.is_some();
    anyhow::ensure!(
        is_ours || is_host(engines.membership.name()),
        "{domain} is no domain of this system; `ortler domain add {domain}` makes it one"
    );
    Ok(domain.as_str().to_owned())
}

/// `s202611a`, the next letter if there is one of this month.
async fn free_selector(engines: &Engines, domain: &str) -> anyhow::Result<String> {
    let known = keys(engines, Some(domain.to_owned()), None).await?;
    let month: String = date::format_utc(engines.clock.utc()).chars().filter(char::is_ascii_digit).take(6).collect();
    let free = LETTERS.map(|letter| format!("s{month}{letter}")).find(|name| {
        let begins = format!("{name}-");
        !known.iter().any(|key| key.selector.starts_with(&begins))
    });
    free.with_context(|| format!("{domain}: too many keys of this month; name a selector"))
}

fn of_pair(domain: &str, selector: &str, pair: KeyPair, now: UtcMillis) -> DomainKey {
    DomainKey {
        domain: domain.to_owned(),
        selector: selector.to_owned(),
        kind: pair.kind.as_str().to_owned(),
        state: KeyState::Prepared,
        private: pair.private,
        public: pair.public,
        created_at: now,
        changed_at: now,
    }
}

async fn keys(engines: &Engines, domain: Option<String>, state: Option<KeyState>) -> anyhow::Result<Vec<DomainKey>> {
    let domain = domain.map(|name| name.parse::<Domain>().with_context(|| format!("`{name}`"))).transpose()?;
    let domain = domain.map(|domain| domain.as_str().to_owned());
    Ok(engines.directory.keys(KeyListing { domain, state, limit: ROWS_MAX, ..KeyListing::default() }).await?)
}

async fn one(engines: &Engines, domain: &str, selector: &str) -> anyhow::Result<DomainKey> {
    let found = keys(engines, Some(domain.to_owned()), None).await?;
    let selector = selector.to_lowercase();
    let names: Vec<String> = found.iter().map(|key| key.selector.clone()).collect();
    let absent = || {
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Absent(format!("{domain} has no key `{selector}`; its keys: {known}"))
    };
    Ok(found.into_iter().find(|key| key.selector == selector).ok_or_else(absent)?)
}

async fn look(engines: &Engines, key: &DomainKey) -> anyhow::Result<Published> {
    let resolver = engines.resolver.as_ref().context("this node has no name servers (dns.servers)")?;
    Ok(mailauth::sign::published(resolver, &key.domain, &key.selector, &key.public).await)
}

/// The key signs from now on; others of its kind and domain no more.
async fn activate(engines: &Engines, key: &DomainKey) -> anyhow::Result<()> {
    let directory = &engines.directory;
    directory.set_key_state(&key.domain, &key.selector, KeyState::Active).await?;
    tracing::info!(event = event::SIGNING_KEY, domain = key.domain, selector = key.selector, state = "active");
    for other in keys(engines, Some(key.domain.clone()), Some(KeyState::Active)).await? {
        if other.kind == key.kind && other.selector != key.selector {
            directory.set_key_state(&other.domain, &other.selector, KeyState::Retired).await?;
            tracing::info!(
                event = event::SIGNING_KEY,
                domain = other.domain,
                selector = other.selector,
                state = "retired"
            );
        }
    }
    Ok(())
}

fn told(found: &Published) -> String {
    match found {
        Published::Yes => "published".to_owned(),
        Published::Missing => "the DNS has nothing there".to_owned(),
        Published::Differs(text) => format!("the DNS has something else there: {text}"),
        Published::Unknown => "name servers do not answer".to_owned(),
    }
}

fn row(key: &DomainKey, found: Option<&Published>) -> Value {
    let record = KeyKind::from_name(&key.kind).map(|kind| KeyPair::record(kind, &key.public)).unwrap_or_default();
    let mut shown = json!({
        "domain": key.domain,
        "selector": key.selector,
        "kind": key.kind,
        "state": key.state.as_str(),
        "changed": date::format_utc(key.changed_at),
        "name": key.name(),
        "text": record,
        "record": zone_line(&key.name(), &record),
    });
    if let (Some(found), Some(fields)) = (found, shown.as_object_mut()) {
        fields.insert("dns".to_owned(), found.as_str().into());
        let differs = if let Published::Differs(text) = found { Value::from(text.as_str()) } else { Value::Null };
        fields.insert("dns_text".to_owned(), differs);
    }
    shown
}

/// As it stands in a zone's file (RFC 1035 §5.1).
fn zone_line(name: &str, text: &str) -> String {
    let strings = text.as_bytes().chunks(STRING_MAX).map(|part| format!("\"{}\"", String::from_utf8_lossy(part)));
    format!("{name}. IN TXT ( {} )", strings.collect::<Vec<_>>().join(" "))
}

/// Lets prepared keys sign once the DNS has them, and forgets retired ones that the DNS has no more.
pub async fn run(engines: Arc<Engines>, stop: CancellationToken) {
    let mut round = 0;
    while tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_err() {
        round = (round + 1) % ROUNDS;
        let Ok(Some(turn)) = engines.leases.take("signing keys", LEASE).await else { continue };
        if let Err(error) = turn_keys(&engines, round == 0).await {
            tracing::warn!(event = event::SIGNING_FAILED, error = %format!("{error:#}"));
        }
        turn.give_up().await;
    }
}

async fn turn_keys(engines: &Engines, looks_at_all: bool) -> anyhow::Result<()> {
    if engines.resolver.is_none() {
        return Ok(());
    }
    for key in keys(engines, None, Some(KeyState::Prepared)).await? {
        if look(engines, &key).await? == Published::Yes {
            activate(engines, &key).await?;
        }
    }
    let old = engines.clock.utc().minus(LOOKED_AT_FOR);
    for key in keys(engines, None, Some(KeyState::Retired)).await? {
        if key.changed_at < old && look(engines, &key).await? == Published::Missing {
            engines.directory.delete_key(&key.domain, &key.selector).await?;
        }
    }
    if !looks_at_all {
        return Ok(());
    }
    for key in keys(engines, None, Some(KeyState::Active)).await? {
        let found = look(engines, &key).await?;
        if let Published::Missing | Published::Differs(_) = &found {
            let (domain, selector, dns) = (&key.domain, &key.selector, told(&found));
            tracing::error!(event = event::SIGNING_FAILED, domain, selector, dns, next_step = "ortler dkim check");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_records_are_cut_into_strings() {
        let line = zone_line("a._domainkey.x.test", &"k".repeat(300));
        let strings: Vec<usize> = line.split('"').skip(1).step_by(2).map(str::len).collect();
        assert_eq!(strings, [255, 45]);
        assert!(line.starts_with("a._domainkey.x.test. IN TXT ( \""));
    }
}
