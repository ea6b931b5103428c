//! Messages that are held: listed, shown, let out, let go.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base::{AccountId, DomainId, UtcMillis, event};
use layers::{NewEntry, Owner};
use mail::date::format_utc;
use policy::{Level, ReleasedBy, Word};
use reception::{By, NotReleased};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Held, HeldBy, HeldFilter, HeldId, HeldNote};
use tokio_util::sync::CancellationToken;
use trail::{Event, Kind, Party};

use super::Engines;
use super::digests::{self, When};
use super::engines::explain;

/// What is asked of the quarantine.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum QuarantineRequest {
    List {
        #[serde(default)]
        which: Which,
        /// What ended the page before.
        #[serde(default)]
        after: Option<String>,
        limit: usize,
    },
    Counts {
        #[serde(default)]
        which: Which,
    },
    Show {
        id: String,
    },
    Release {
        ids: Vec<String>,
        #[serde(default)]
        by: String,
        #[serde(default)]
        despite_virus: bool,
        /// Filters learn that it was no spam.
        #[serde(default)]
        teaches: bool,
        /// Its sender is let through from now on: at the level that is named, of the message's owner.
        #[serde(default)]
        allow: Option<String>,
    },
    Delete {
        ids: Vec<String>,
        #[serde(default)]
        by: String,
        /// Its sender is kept out from now on, at the level that is named.
        #[serde(default)]
        block: Option<String>,
    },
    /// Their owner asks those who may to let them out.
    Ask {
        ids: Vec<String>,
    },
    /// Sends the mails that tell what is new, without waiting for their hour.
    Tell {
        #[serde(default)]
        which: Which,
    },
}

/// Which messages; all if nothing is named.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(default)]
pub struct Which {
    pub account: Option<String>,
    /// By its number, as the API names it.
    pub account_id: Option<u64>,
    pub domain: Option<String>,
    /// By their numbers.
    pub domains: Option<Vec<u64>>,
    pub reason: Option<String>,
    pub search: String,
    pub asked: bool,
}

const PAGE_MAX: usize = 500;
const EXPIRE_EVERY: Duration = Duration::from_secs(300);
const EXPIRED_AT_A_TIME: usize = 500;

fn parse_id(text: &str) -> anyhow::Result<HeldId> {
    text.parse().with_context(|| format!("`{text}`"))
}

fn ids(texts: &[String]) -> anyhow::Result<Vec<HeldId>> {
    texts.iter().map(|text| parse_id(text)).collect()
}

impl Which {
    async fn filter(&self, engines: &Engines) -> anyhow::Result<HeldFilter> {
        let by = if let Some(id) = self.account_id {
            HeldBy::Account(AccountId(id))
        } else if let Some(address) = &self.account {
            let parsed = address.parse().with_context(|| format!("`{address}`"))?;
            let account = engines.directory.account_by_address(&parsed).await?;
            HeldBy::Account(account.with_context(|| format!("the account {address} does not exist"))?.id)
        } else if let Some(name) = &self.domain {
            let domain = engines.directory.domain(&name.parse().with_context(|| format!("`{name}`"))?).await?;
            HeldBy::Domains(vec![domain.with_context(|| format!("the domain {name} does not exist"))?.id])
        } else if let Some(numbers) = &self.domains {
            HeldBy::Domains(numbers.iter().copied().map(DomainId).collect())
        } else {
            HeldBy::Anybody
        };
        let (reason, text) = (self.reason.clone(), self.search.clone());
        Ok(HeldFilter { reason, text, asked: self.asked, ..HeldFilter::of(by) })
    }
}

pub async fn execute(engines: &Engines, request: QuarantineRequest) -> anyhow::Result<Value> {
    let held = &engines.storage.held;
    match request {
        QuarantineRequest::List { which, after, limit } => {
            let limit = limit.clamp(1, PAGE_MAX);
            let before = match after {
                Some(text) => {
                    let (at, id) = text.split_once('/').context("`after` is what ended the page before")?;
                    Some((UtcMillis(at.parse().context("`after` is what ended the page before")?), parse_id(id)?))
                }
                None => None,
            };
            let found = held.held(&which.filter(engines).await?, before, limit).await.map_err(|e| explain(&e))?;
            let next = found.last().filter(|_| found.len() == limit);
            let next = next.map(|last| format!("{}/{}", last.held_at.0, last.id));
            Ok(json!({ "messages": found.iter().map(held_value).collect::<Vec<_>>(), "next": next }))
        }
        QuarantineRequest::Counts { which } => {
            let counts = held.held_counts(&which.filter(engines).await?).await.map_err(|error| explain(&error))?;
            let total: u64 = counts.iter().map(|(_, count)| count).sum();
            let by_reason: serde_json::Map<String, Value> =
                counts.into_iter().map(|(reason, count)| (reason, json!(count))).collect();
            Ok(json!({ "total": total, "reasons": by_reason }))
        }
        QuarantineRequest::Show { id } => {
            let found = held.held_message(parse_id(&id)?).await.map_err(|error| explain(&error))?;
            Ok(held_value(&found.with_context(|| format!("{id}: not in quarantine any more"))?.held))
        }
        QuarantineRequest::Release { ids: texts, by, despite_virus, teaches, allow } => {
            let intake = engines.intake.get().context("messages are released by a running node: start it first")?;
            let mut done = Vec::new();
            for (id, text) in ids(&texts)?.into_iter().zip(texts) {
                let name = if by.is_empty() { "an administrator" } else { &by };
                let released = intake.release(id, By { name, despite_virus, teaches }).await;
                done.push(match released {
                    Ok(released) => {
                        let mut listed = None;
                        if let Some(level) = &allow {
                            listed =
                                list(engines, id, level, Word::Allow, &released.author, &released.sender, name).await?;
                        }
                        json!({ "id": text, "released": true, "mailbox": released.mailbox, "allowed": listed })
                    }
                    Err(why) => json!({ "id": text, "released": false, "why": why.to_string(), "code": code(&why) }),
                });
            }
            Ok(json!({ "done": done }))
        }
        QuarantineRequest::Delete { ids: texts, by, block } => {
            let name = if by.is_empty() { "an administrator" } else { &by };
            let (mut gone, mut listed) = (0, Vec::new());
            for id in ids(&texts)? {
                let Some(found) = held.held_message(id).await.map_err(|error| explain(&error))? else { continue };
                if let Some(level) = &block {
                    let facts = &found.held.facts;
                    listed.extend(list(engines, id, level, Word::Block, &facts.author, &facts.sender, name).await?);
                }
                gone += held.drop_held(vec![id]).await.map_err(|error| explain(&error))?;
                let party = Party {
                    address: found.held.facts.recipient.clone(),
                    account: Some(id.account),
                    is_recipient: true,
                    outcome: None,
                };
                let event =
                    Event::new(engines.clock.utc(), Kind::OwnerChanged).message(found.held.message).party(party);
                engines.trail.record(event.field("action", "delete-held").field("object", name));
            }
            Ok(json!({ "deleted": gone, "blocked": listed }))
        }
        QuarantineRequest::Ask { ids: texts } => {
            let count = held.note_held(ids(&texts)?, HeldNote::Asked).await.map_err(|error| explain(&error))?;
            Ok(json!({ "asked": count }))
        }
        QuarantineRequest::Tell { which } => {
            let whose = which.filter(engines).await?.by;
            let sent = digests::send(engines, whose, When::Now, &CancellationToken::new()).await?;
            Ok(json!({ "mails": sent }))
        }
    }
}

const fn code(why: &NotReleased) -> &'static str {
    match why {
        NotReleased::Gone => "gone",
        NotReleased::Virus(_) => "virus",
        NotReleased::Unscanned => "unscanned",
        NotReleased::Full => "full",
        NotReleased::Unavailable => "unavailable",
    }
}

/// Puts the author of a message, else its envelope's sender, on a list of its owner's at a level; gives who that is.
async fn list(
    engines: &Engines,
    id: HeldId,
    level: &str,
    word: Word,
    author: &str,
    sender: &str,
    by: &str,
) -> anyhow::Result<Option<String>> {
    let account = engines.directory.account_by_id(id.account).await?.context("the account does not exist")?;
    let level = Level::from_name(level).context("a list is of a mailbox, domain, customer, reseller or the system")?;
    let owner = Owner::above(account.position).into_iter().find(|owner| owner.level == level);
    let owner = owner.with_context(|| format!("{} has nobody at the {level} level", account.address))?;
    let address = mail::mime::address_list::parse_address_list(author.as_bytes())
        .into_iter()
        .find_map(|one| one.addr_spec())
        .or_else(|| (!sender.is_empty()).then(|| sender.to_owned()));
    let Some(address) = address else { return Ok(None) };
    engines.layers.add_entry(owner, &NewEntry::new(word, &address), by).await?;
    Ok(Some(address))
}

pub fn held_value(held: &Held) -> Value {
    let facts = &held.facts;
    json!({
        "id": held.id.to_string(), "message": held.message.to_string(), "account": held.id.account.0,
        "held": format_utc(held.held_at), "expires": format_utc(held.expires_at), "reason": facts.reason,
        "detail": facts.detail, "score": f64::from(facts.score) / 1000.0, "from": facts.sender, "author": facts.author,
        "to": facts.recipient, "subject": facts.subject, "size": held.size_bytes,
        "releasedBy": ReleasedBy::of_reason(&facts.reason).as_str(), "told": held.told_at.map(format_utc),
        "asked": held.asked_at.map(format_utc),
    })
}

/// Lets go what was held long enough. Ends with `stop`.
pub async fn run(engines: Arc<Engines>, stop: CancellationToken) {
    while tokio::time::timeout(EXPIRE_EVERY, stop.cancelled()).await.is_err() {
        loop {
            let expired = match engines.storage.held.expired_held(EXPIRED_AT_A_TIME).await {
                Ok(expired) if !expired.is_empty() => expired,
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(event = event::STORE_FAILED, what = "quarantine", error = %explain(&error));
                    break;
                }
            };
            let count = expired.len();
            if let Err(error) = engines.storage.held.drop_held(expired).await {
                tracing::warn!(event = event::STORE_FAILED, what = "quarantine", error = %explain(&error));
                break;
            }
            tracing::info!(event = "quarantine.expired", count);
            if stop.is_cancelled() {
                return;
            }
        }
    }
}
