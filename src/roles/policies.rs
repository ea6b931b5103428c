//! Policies of all levels: shown, changed, taken back, planned, tried on mail of the last days.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::sync::Arc;
use std::time::Duration;

use access::{Position, Reach};
use anyhow::Context as _;
use base::{AccountId, DomainId, TenantId, UtcMillis, event};
use directory::RegistryError;
use layers::{Edit, Entry, Layers, NewEntry, Owner, What};
use mail::date::format_utc;
use policy::option::OPTIONS;
use policy::{Disposition, EffectivePolicy, Level, Origin, Skips, Word};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trail::{Kind, Query, Scope};

use super::Engines;

/// What is asked of policies.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyRequest {
    /// Every option with its type and documentation.
    Options,
    Show {
        of: Of,
    },
    Set {
        of: Of,
        edits: Vec<Edit>,
        /// Only if it is still this version.
        #[serde(default)]
        version: Option<u64>,
        #[serde(default)]
        by: String,
        #[serde(default)]
        note: String,
    },
    History {
        of: Of,
        #[serde(default)]
        below: Option<i64>,
        limit: usize,
    },
    Undo {
        of: Of,
        change: i64,
        #[serde(default)]
        by: String,
    },
    Plan {
        of: Of,
        edits: Vec<Edit>,
        /// RFC 3339.
        at: String,
        #[serde(default)]
        by: String,
        #[serde(default)]
        note: String,
    },
    Plans {
        of: Of,
    },
    Unplan {
        of: Of,
        plan: i64,
    },
    /// What these edits would have made of the mail of the last days.
    Replay {
        of: Of,
        edits: Vec<Edit>,
        days: u32,
    },
    Entries {
        of: Of,
        #[serde(default)]
        word: Option<String>,
        #[serde(default)]
        search: String,
        #[serde(default)]
        after: i64,
        limit: usize,
    },
    /// Puts a sender on a list.
    List {
        of: Of,
        /// `allow` or `block`.
        word: String,
        who: String,
        /// Of `allow` alone, as is `skips`.
        #[serde(default)]
        unproven: bool,
        #[serde(default)]
        skips: Option<Vec<String>>,
        #[serde(default)]
        note: String,
        #[serde(default)]
        until: Option<String>,
        #[serde(default)]
        by: String,
    },
    Unlist {
        of: Of,
        entry: i64,
        #[serde(default)]
        by: String,
    },
}

/// Whose policy: of the system if nothing else is named.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Of {
    pub tenant: Option<String>,
    pub domain: Option<String>,
    pub account: Option<String>,
}

/// Somebody who has a policy, and all above.
pub struct Found {
    pub position: Position,
    pub owners: Vec<Owner>,
    /// Of each, for people.
    pub names: BTreeMap<Level, String>,
}

const BY_ADMINISTRATOR: &str = "an administrator";
const DAYS_MAX: u32 = 30;
/// Messages that are looked at for a replay, the latest first.
const REPLAYED_MAX: usize = 5000;
/// Of those that would change, so many are told.
const TOLD_MAX: usize = 200;
const PAGE: usize = 500;
const PLANS_EVERY: Duration = Duration::from_secs(15);

impl Of {
    pub async fn find(&self, engines: &Engines) -> anyhow::Result<Found> {
        let directory = &engines.directory;
        let mut names = BTreeMap::from([(Level::System, "system".to_owned())]);
        let missing = |what: &str, name: &str| RegistryError::Missing { what: format!("{what} {name}") };
        let position = if let Some(address) = &self.account {
            let parsed = address.parse().with_context(|| format!("`{address}`"))?;
            let account = directory.account_by_address(&parsed).await?;
            let account = account.ok_or_else(|| missing("the account", address))?;
            names.insert(Level::Mailbox, account.address.to_string());
            account.position
        } else if let Some(name) = &self.domain {
            let domain = directory.domain(&name.parse().with_context(|| format!("`{name}`"))?).await?;
            domain.ok_or_else(|| missing("the domain", name))?.position
        } else if let Some(name) = &self.tenant {
            directory.tenant(name).await?.ok_or_else(|| missing("the tenant", name))?.position
        } else {
            Position::SYSTEM
        };
        if let Some(id) = position.domain
            && let Some(domain) = directory.domain_by_id(id).await?
        {
            names.insert(Level::Domain, domain.name.to_string());
        }
        for (level, id) in [(Level::Reseller, position.reseller), (Level::Customer, position.customer)] {
            if let Some(id) = id
                && let Some(tenant) = directory.tenant_by_id(id).await?
            {
                names.insert(level, tenant.name);
            }
        }
        Ok(Found { position, owners: Owner::above(position), names })
    }
}

impl Found {
    fn owner(&self) -> Owner {
        Owner::of(self.position)
    }

    fn origin(&self, origin: &Origin) -> Value {
        let level = origin.level();
        let preset = match origin {
            Origin::Preset { name, .. } => Some(name.as_str()),
            Origin::Default | Origin::Set { .. } => None,
        };
        json!({
            "level": level.map(Level::as_str),
            "name": level.and_then(|level| self.names.get(&level)),
            "preset": preset,
            "own": level == Some(self.owner().level),
        })
    }
}

fn by(name: &str) -> &str {
    if name.is_empty() { BY_ADMINISTRATOR } else { name }
}

fn parse_time(text: &str) -> anyhow::Result<UtcMillis> {
    mail::date::parse_utc(text)
        .with_context(|| format!("`{text}` is no moment such as 2027-03-31 or 2027-03-31T08:00:00Z"))
}

pub async fn execute(engines: &Engines, request: PolicyRequest) -> anyhow::Result<Value> {
    let layers = &engines.layers;
    match request {
        PolicyRequest::Options => Ok(OPTIONS.iter().map(option_value).collect()),
        PolicyRequest::Show { of } => show(layers, &of.find(engines).await?).await,
        PolicyRequest::Set { of, edits, version, by: name, note } => {
            let found = of.find(engines).await?;
            layers.set(&found.owners, &edits, version, (by(&name), &note)).await?;
            show(layers, &found).await
        }
        PolicyRequest::History { of, below, limit } => {
            let changes = layers.changes(of.find(engines).await?.owner(), below, limit).await?;
            Ok(changes.iter().map(change_value).collect())
        }
        PolicyRequest::Undo { of, change, by: name } => {
            let found = of.find(engines).await?;
            layers.undo(&found.owners, change, by(&name)).await?;
            show(layers, &found).await
        }
        PolicyRequest::Plan { of, edits, at, by: name, note } => {
            let found = of.find(engines).await?;
            let plan = layers.plan(&found.owners, &edits, parse_time(&at)?, (by(&name), &note)).await?;
            Ok(json!({ "id": plan }))
        }
        PolicyRequest::Plans { of } => {
            let plans = layers.plans(of.find(engines).await?.owner()).await?;
            let value = |plan: &layers::Plan| {
                json!({
                    "id": plan.id, "at": format_utc(plan.due_at), "planned": format_utc(plan.planned_at), "by": plan.by,
                    "note": plan.note, "edits": plan.edits,
                })
            };
            Ok(plans.iter().map(value).collect())
        }
        PolicyRequest::Unplan { of, plan } => {
            layers.delete_plan(of.find(engines).await?.owner(), plan).await?;
            Ok(Value::Null)
        }
        PolicyRequest::Replay { of, edits, days } => replay(engines, &of.find(engines).await?, &edits, days).await,
        PolicyRequest::Entries { of, word, search, after, limit } => {
            let word = word.as_deref().map(word_of).transpose()?;
            let owner = of.find(engines).await?.owner();
            let entries = layers.entries(owner, word, &search, after, limit.min(PAGE)).await?;
            Ok(entries.iter().map(entry_value).collect())
        }
        PolicyRequest::List { of, word, who, unproven, skips, note, until, by: name } => {
            let word = word_of(&word)?;
            let until = until.as_deref().map(parse_time).transpose()?;
            let mut new = NewEntry { note, until, ..NewEntry::new(word, &who) };
            if word == Word::Allow {
                new.takes_unproven = unproven;
                if let Some(words) = skips {
                    let read = Skips::from_words(words.iter().map(String::as_str));
                    new.skips = read.context("`skips` are any of spam, newsletter, auth, attachments")?;
                }
            }
            let owner = of.find(engines).await?.owner();
            let id = layers.add_entry(owner, &new, by(&name)).await?;
            Ok(layers.entry(owner, id).await?.as_ref().map(entry_value).unwrap_or_default())
        }
        PolicyRequest::Unlist { of, entry, by: name } => {
            let gone = layers.delete_entry(of.find(engines).await?.owner(), entry, by(&name)).await?;
            Ok(entry_value(&gone))
        }
    }
}

fn word_of(text: &str) -> anyhow::Result<Word> {
    Word::from_name(text).with_context(|| format!("`{text}` is neither allow nor block"))
}

fn entry_value(entry: &Entry) -> Value {
    json!({
        "id": entry.id, "word": entry.word.to_string(), "who": entry.who, "unproven": entry.takes_unproven,
        "skips": entry.skips.words(), "note": entry.note, "until": entry.until.map(format_utc),
        "added": format_utc(entry.added_at), "by": entry.added_by, "hit": entry.hit_at.map(format_utc),
    })
}

fn option_value(option: &policy::option::PolicyOption) -> Value {
    use policy::Kind;
    let kind = match option.kind {
        Kind::Score { min, max } => json!({ "score": [min.as_f64(), max.as_f64()] }),
        Kind::Number { min, max, unit } => json!({ "number": [min, max], "unit": unit }),
        Kind::Choice(words) => json!({ "choice": words }),
        Kind::Words(words) => json!({ "words": words }),
        Kind::Text { chars_max } => json!({ "text": chars_max }),
    };
    json!({
        "name": option.name, "kind": kind, "takes": option.kind.to_string(), "default": option.default_value().to_string(),
        "lowestLevel": option.lowest_level.as_str(), "limits": option.kind.has_order(), "doc": option.doc,
    })
}

async fn show(layers: &Layers, found: &Found) -> anyhow::Result<Value> {
    let (states, version) = layers.show(&found.owners).await?;
    let option = |state: &layers::OptionState| {
        let text = |value: &Option<policy::Value>| value.as_ref().map(ToString::to_string);
        json!({
            "option": state.key.option().name,
            "value": state.value.to_string(),
            "origin": found.origin(&state.origin),
            "from": state.origin.to_string(),
            "lockedBy": state.locked_by.map(Level::as_str),
            "limited": state.is_limited,
            "floor": text(&state.floor),
            "ceiling": text(&state.ceiling),
            "settable": state.is_settable && state.locked_by.is_none(),
            "own": state.own.as_ref().map(|own| json!({
                "value": text(&own.value), "locked": own.locked, "floor": text(&own.floor), "ceiling": text(&own.ceiling),
            })),
        })
    };
    let owner = found.owner();
    Ok(json!({
        "level": owner.level.as_str(),
        "name": found.names.get(&owner.level),
        "version": version,
        "options": states.iter().map(option).collect::<Vec<_>>(),
    }))
}

fn change_value(change: &layers::Change) -> Value {
    let mut out = json!({ "id": change.id, "at": format_utc(change.at), "by": change.by, "note": change.note });
    if let Some(fields) = out.as_object_mut() {
        match &change.what {
            What::Options { done, undone } => {
                fields.insert("done".to_owned(), json!(done));
                fields.insert("before".to_owned(), json!(undone));
            }
            What::Listed { word, who } => drop(fields.insert("listed".to_owned(), json!({ "word": word, "who": who }))),
            What::Unlisted { word, who } => {
                fields.insert("unlisted".to_owned(), json!({ "word": word, "who": who }));
            }
        }
    }
    out
}

/// What of the log is somebody's, whose policy it is.
async fn scope(engines: &Engines, position: Position) -> anyhow::Result<Scope> {
    let reach = match position {
        Position { account: Some(account), .. } => return Ok(Scope::Account(account)),
        Position { domain: Some(domain), .. } => Reach::Domain(domain),
        Position { customer: Some(tenant), .. } | Position { reseller: Some(tenant), .. } => Reach::Tenant(tenant),
        Position { .. } => return Ok(Scope::System),
    };
    let names = engines.directory.names_within(&[reach]).await?;
    Ok(Scope::Domains(names.into_iter().map(|(_, name)| name).collect()))
}

/// Decides the mail of the last days again: as policy is now, and as it would be. Points by what a mailbox itself taught are
/// in it; what a milter said of single recipients is not.
async fn replay(engines: &Engines, found: &Found, edits: &[Edit], days: u32) -> anyhow::Result<Value> {
    let days = days.clamp(1, DAYS_MAX);
    let layer = engines.layers.edited(&found.owners, edits).await?;
    let since = UtcMillis(engines.clock.utc().0 - i64::from(days) * 86_400_000);
    let mut query = Query::default();
    query.since = Some(since);
    let scope = scope(engines, found.position).await?;
    // Who is below keeps what is his own: both policies are made for each.
    let mut policies: BTreeMap<AccountId, (Arc<EffectivePolicy>, EffectivePolicy)> = BTreeMap::new();
    let (mut counts, mut changes) = (BTreeMap::<(&str, &str), u64>::new(), Vec::new());
    let mut scores: BTreeMap<i64, [u64; 2]> = BTreeMap::new();
    let (mut seen, mut unknown) = (0usize, 0u64);
    loop {
        let rows = engines.trail.messages(&scope, &query, PAGE).await?;
        let Some(last) = rows.last() else { break };
        query.below = Some(last.id);
        let is_last = rows.len() < PAGE;
        for row in &rows {
            seen += 1;
            let story = engines.trail.story(&scope, row.id).await?;
            let judged = story.iter().rev().find(|event| event.kind == Kind::Judged);
            let Some(facts) = judged.and_then(|event| policy::recorded(event.fields.get("facts")?)) else {
                unknown += 1;
                continue;
            };
            for party in row.recipients.iter() {
                let Some(account) = party.account else { continue };
                if let Slot::Vacant(slot) = policies.entry(account) {
                    let Some(known) = engines.directory.account_by_id(account).await? else { continue };
                    let now = engines.layers.effective(known.position).await?;
                    slot.insert((now, engines.layers.resolve(&Owner::above(known.position), Some(&layer)).await?));
                }
                let Some((before, after)) = policies.get(&account) else { continue };
                let decided = story.iter().rev().find(|event| {
                    event.kind == Kind::Decided && event.party.as_deref() == Some(party.address.as_str())
                });
                let own = decided.and_then(|event| event.fields.get("score")?.as_i64());
                let mut facts = facts.clone();
                if let Some(own) = own.and_then(|own| i32::try_from(own).ok()) {
                    // With what this account taught; points of policy itself are added again below.
                    let high = facts.spf_failed && before.spf_fail() == policy::option::SpfFail::ScoreHigh;
                    facts.score =
                        policy::Score(own) + if high { -policy::disposition::SPF_HIGH } else { policy::Score::ZERO };
                }
                let (was, would) = (policy::decide(before, &facts), policy::decide(after, &facts));
                let bucket = i64::from(would.score.0).div_euclid(500).clamp(-20, 60);
                let is_kept = matches!(would.disposition, Disposition::Deliver | Disposition::DeliverTagged { .. });
                scores.entry(bucket).or_default()[usize::from(!is_kept)] += 1;
                let key = (was.disposition.as_str(), would.disposition.as_str());
                *counts.entry(key).or_default() += 1;
                if key.0 != key.1 && changes.len() < TOLD_MAX {
                    changes.push(json!({
                        "id": row.id.to_string(), "at": format_utc(row.at), "from": row.reverse_path, "to": party.address,
                        "subject": row.subject, "score": would.score.as_f64(), "was": key.0, "would": key.1,
                        "because": would.cause.to_string(),
                        "released": story.iter().any(|event| event.kind == Kind::Released),
                    }));
                }
            }
        }
        if is_last || seen >= REPLAYED_MAX {
            break;
        }
    }
    let count = |((was, would), count): (&(&str, &str), &u64)| json!({ "was": was, "would": would, "count": count });
    let bucket = |(at, [kept, held]): (&i64, &[u64; 2])| {
        #[expect(clippy::cast_precision_loss, reason = "a few dozens")]
        let from = *at as f64 / 2.0;
        json!({ "from": from, "delivered": kept, "held": held })
    };
    Ok(json!({
        "days": days,
        "messages": seen,
        "complete": seen < REPLAYED_MAX,
        "unknown": unknown,
        "counts": counts.iter().map(count).collect::<Vec<_>>(),
        "changes": changes,
        "scores": scores.iter().map(bucket).collect::<Vec<_>>(),
    }))
}

/// Makes changes whose time has come. Ends with `stop`.
pub async fn run(engines: Arc<Engines>, stop: CancellationToken) {
    while tokio::time::timeout(PLANS_EVERY, stop.cancelled()).await.is_err() {
        let due = match engines.layers.take_due().await {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(event = event::STORE_FAILED, what = "policy", %error);
                continue;
            }
        };
        for plan in due {
            let Some(owners) = owners_of(&engines, plan.owner).await else { continue };
            let note = format!("planned: {}", plan.note);
            if let Err(error) = engines.layers.set(&owners, &plan.edits, None, (&plan.by, &note)).await {
                // A level above has locked it meanwhile.
                tracing::warn!(event = "policy.plan_failed", plan = plan.id, by = plan.by, %error);
            }
        }
    }
}

/// All above an owner and itself; `None` if it is gone.
async fn owners_of(engines: &Engines, owner: Owner) -> Option<Vec<Owner>> {
    let directory = &engines.directory;
    let position = match owner.level {
        Level::System => directory.reach_position(Reach::System).await,
        Level::Reseller | Level::Customer => directory.reach_position(Reach::Tenant(TenantId(owner.id))).await,
        Level::Domain => directory.reach_position(Reach::Domain(DomainId(owner.id))).await,
        Level::Mailbox => {
            directory.account_by_id(AccountId(owner.id)).await.map(|found| found.map(|account| account.position))
        }
    };
    position.ok()?.map(Owner::above)
}
