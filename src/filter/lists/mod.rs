//! DNS lists: which servers, senders and links others know to be good or bad.
//!
//! What is asked, and what its answers count, rules say ([`crate::rules::net`]). A list is asked only while it is found
//! well; what it does not answer in time counts as not listed.

mod check;
mod questions;
mod zone;

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Secret, event};
use mailauth::{Resolver, Unresolved};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::rules::answer::Answer;
use crate::rules::net::{Listed, NetRule};
use crate::rules::{RuleSet, Targets};
use questions::{Ask, Questions, Record, Server, Subject};
use zone::{News, Permit, Zone};

pub use zone::{Limits, Trouble};

/// How lists are asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListSettings {
    /// Zones of the product's own rules that are asked; those of the administrator's rules always are.
    pub zones: Vec<String>,
    /// Zones with the name under which they are asked in truth, such as one with a key in it.
    pub keys: Vec<(String, Secret<String>)>,
    /// For all questions of one message.
    pub wait: Duration,
    /// For each zone.
    pub limits: Limits,
}

impl Default for ListSettings {
    fn default() -> Self {
        let limits = Limits { per_second: 100, per_day: 100_000 };
        Self { zones: Vec::new(), keys: Vec::new(), wait: Duration::from_secs(3), limits }
    }
}

/// How one list stands. For people and monitoring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListState {
    pub zone: String,
    /// False until it was looked at for the first time, too.
    pub is_asked: bool,
    /// Why not, if it was set aside.
    pub trouble: Option<String>,
    pub asked_today: u32,
}

/// Asks lists, and knows how each stands.
pub(crate) struct Lists {
    settings: ListSettings,
    named: HashSet<String>,
    resolver: Resolver,
    clock: Arc<dyn Clock>,
    zones: Mutex<BTreeMap<Arc<str>, Known>>,
    /// Something is to be looked at.
    wake: Notify,
    /// Questions at a time, of all messages.
    questions: Semaphore,
}

struct Known {
    zone: Zone,
    of_names: bool,
    listed: Option<String>,
}

/// What lists said of one message.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// With the domain whose signature must be valid for it to count, where it must.
    pub listed: Vec<(Listed, Option<String>)>,
    /// Lists that did not answer in time.
    pub late: Vec<Arc<str>>,
}

/// Questions of one message at a time, and of all.
const AT_A_TIME: usize = 24;
const AT_A_TIME_OF_ALL: usize = 256;
/// Of a host's addresses and a domain's name servers, those that are looked up.
const ADDRESSES_MAX: usize = 4;
/// Lists that are looked at again wait so long for each other at least, and for news at most.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
const LOOK_EVERY_MAX: Duration = Duration::from_secs(60);

impl Lists {
    pub fn new(settings: ListSettings, resolver: Resolver, clock: Arc<dyn Clock>, rules: &RuleSet) -> Self {
        let named = settings.zones.iter().map(|zone| plain(zone)).collect();
        let zones = Mutex::new(BTreeMap::new());
        let questions = Semaphore::new(AT_A_TIME_OF_ALL);
        let made = Self { settings, named, resolver, clock, zones, wake: Notify::new(), questions };
        made.know(rules);
        made
    }

    /// What is known of a list stays known when rules change.
    pub fn know(&self, rules: &RuleSet) {
        let mut wanted: BTreeMap<&str, bool> = BTreeMap::new();
        for rule in rules.questions().iter().filter(|rule| self.is_active(rules, rule)) {
            if let Some(zone) = rule.zone().filter(|zone| !zone.is_empty()) {
                *wanted.entry(zone).or_default() |= rule.asks_names();
            }
        }
        let mut zones = self.zones.lock();
        zones.retain(|zone, _| wanted.contains_key(&**zone));
        for (zone, of_names) in wanted {
            let known = zones.entry(zone.into()).or_insert_with(|| Known { zone: Zone::new(), of_names, listed: None });
            known.of_names = of_names;
            known.listed = rules.settings().lists.tests.get(zone).cloned();
        }
        drop(zones);
        self.wake.notify_one();
    }

    fn is_active(&self, rules: &RuleSet, rule: &NetRule) -> bool {
        rule.zone()
            .is_some_and(|zone| (!rule.is_shipped || self.named.contains(zone)) && rules.settings().lists.allows(zone))
    }

    /// True if any rule asks for anything: else messages need not be looked at.
    pub fn are_asked(&self, rules: &RuleSet) -> bool {
        rules.questions().iter().any(|rule| self.is_active(rules, rule))
    }

    pub fn questions_of(&self, rules: &RuleSet, targets: &Targets<'_>, with_relays: bool) -> Questions {
        Questions::of(rules, targets, with_relays, |rule| self.is_active(rules, rule))
    }

    /// Asks. Ends within the time that is set. Cancel safe.
    pub async fn ask(self: &Arc<Self>, rules: &RuleSet, questions: Questions) -> Said {
        let mut open: Vec<(Ask, Vec<questions::Reader>, Option<Vec<Found>>)> =
            questions.asks.into_iter().map(|(ask, readers)| (ask, readers, None)).collect();
        let asks: Vec<Ask> = open.iter().map(|(ask, ..)| ask.clone()).collect();
        let mut running: JoinSet<(usize, Vec<Found>)> = JoinSet::new();
        let mut waiting = asks.into_iter().enumerate();
        let collect = async {
            loop {
                while running.len() < AT_A_TIME
                    && let Some((at, ask)) = waiting.next()
                {
                    let lists = Arc::clone(self);
                    running.spawn(async move { (at, lists.found(&ask).await) });
                }
                match running.join_next().await {
                    Some(Ok((at, found))) => {
                        if let Some((.., place)) = open.get_mut(at) {
                            *place = Some(found);
                        }
                    }
                    // It panicked: no answer.
                    Some(Err(_)) => {}
                    None => break,
                }
            }
        };
        // What has not come by then is told below.
        let _ = timeout(self.settings.wait, collect).await;
        drop(running);
        let mut said = Said::default();
        for (ask, readers, found) in open {
            match found {
                Some(found) => self.read(&ask, &readers, &found, &mut said),
                None => {
                    self.was_silent(&ask.zone);
                    said.late.push(ask.zone);
                }
            }
        }
        self.heed_refusals(rules, &said);
        said.late.sort_unstable();
        said.late.dedup();
        said
    }

    fn read(&self, ask: &Ask, readers: &[questions::Reader], found: &[Found], said: &mut Said) {
        for Found { name, answer } in found {
            let answers = match answer {
                Outcome::Answers(answers) => answers,
                Outcome::Nothing | Outcome::NotAsked => continue,
                Outcome::Late => {
                    said.late.push(ask.zone.clone());
                    continue;
                }
            };
            for reader in readers {
                if let Some(answer) = answers.iter().find(|answer| reader.subtest.fits(answer)) {
                    let name = if ask.zone.is_empty() { name.clone() } else { format!("{name}.{}", ask.zone) };
                    let listed = Listed { rule: reader.rule.clone(), evidence: format!("{name} {answer}") };
                    said.listed.push((listed, reader.signer.clone()));
                    metrics::counter!("ortler_dns_list_hits_total", "zone" => ask.zone.to_string()).increment(1);
                }
            }
        }
    }

    /// Everything that one question leads to.
    async fn found(&self, ask: &Ask) -> Vec<Found> {
        let mut labels: Vec<String> = Vec::new();
        match &ask.subject {
            Subject::Name(name) => labels.push(name.clone()),
            Subject::AddressesOf(host) => labels.extend(self.addresses_of(host).await),
            Subject::AddressesOfServers(domain) => {
                for server in self.servers_of(domain).await {
                    labels.extend(self.addresses_of(&server).await);
                }
            }
            Subject::ServersOf(domain, Server::WholeName) => labels.extend(self.servers_of(domain).await),
            Subject::ServersOf(domain, Server::Registered) => {
                let servers = self.servers_of(domain).await;
                labels.extend(servers.iter().filter_map(|host| crate::url::registered_domain(host)).map(str::to_owned));
            }
        }
        labels.sort_unstable();
        labels.dedup();
        let mut out = Vec::new();
        for name in labels.into_iter().take(ADDRESSES_MAX) {
            let answer = self.one(ask, &name).await;
            out.push(Found { name, answer });
        }
        out
    }

    /// One question to one list.
    async fn one(&self, ask: &Ask, name: &str) -> Outcome {
        let asked_zone = self.asked_as(&ask.zone);
        let whole = if ask.zone.is_empty() { name.to_owned() } else { format!("{name}.{asked_zone}") };
        if !ask.zone.is_empty() && !self.may_ask(&ask.zone, &whole, ask.record) {
            return Outcome::NotAsked;
        }
        // Never an error, for the semaphore is never closed.
        let _place = self.questions.acquire().await;
        let answers = match ask.record {
            Record::Address => {
                let found = self.resolver.lookup_ipv4(&whole).await;
                found.map(|found| found.iter().copied().map(Answer::Address).collect::<Vec<_>>())
            }
            Record::Text => {
                let found = self.resolver.lookup_texts(&whole).await;
                found.map(|found| found.iter().cloned().map(Answer::Text).collect::<Vec<_>>())
            }
        };
        let answers = match answers {
            Ok(answers) => answers,
            Err(Unresolved::Absent) => {
                self.with_zone(&ask.zone, |known, _| {
                    known.zone.answered();
                    None
                });
                return Outcome::Nothing;
            }
            Err(Unresolved::Failed) => {
                self.was_silent(&ask.zone);
                return Outcome::Late;
            }
        };
        let mut is_believed = true;
        self.with_zone(&ask.zone, |known, now| {
            known.zone.answered();
            let told = answers.iter().find_map(|answer| match answer {
                Answer::Address(address) => Trouble::told_by(*address, known.of_names),
                Answer::Text(_) => None,
            })?;
            is_believed = false;
            known.zone.fell(now, told)
        });
        if is_believed { Outcome::Answers(answers) } else { Outcome::NotAsked }
    }

    fn may_ask(&self, zone: &Arc<str>, whole: &str, record: Record) -> bool {
        let is_known = record == Record::Address && self.resolver.remembers_ipv4(whole);
        let (utc, limits) = (self.clock.utc(), self.settings.limits);
        let permit = match self.zones.lock().get_mut(zone) {
            // What is remembered costs the list nothing.
            Some(known) if is_known => {
                if known.zone.is_well() {
                    Permit::Ask
                } else {
                    Permit::NotNow
                }
            }
            Some(known) => known.zone.permit(utc, limits),
            None => Permit::NotNow,
        };
        match permit {
            Permit::Ask => {
                metrics::counter!("ortler_dns_list_questions_total", "zone" => zone.to_string()).increment(1);
                true
            }
            Permit::NotNow => false,
            Permit::Exhausted => {
                tracing::warn!(
                    event = event::LIST_EXHAUSTED,
                    %zone,
                    per_day = limits.per_day,
                    next_step = "it is not asked until tomorrow (UTC); filter.dns_list_questions_per_day is the limit",
                );
                metrics::counter!("ortler_dns_list_exhausted_total", "zone" => zone.to_string()).increment(1);
                false
            }
        }
    }

    async fn addresses_of(&self, host: &str) -> Vec<String> {
        let found = self.resolver.lookup_ipv4(host).await.unwrap_or_default();
        let public = found.iter().map(|ip| IpAddr::V4(*ip)).filter(|ip| questions::is_public(*ip));
        public.map(questions::reversed).take(ADDRESSES_MAX).collect()
    }

    async fn servers_of(&self, domain: &str) -> Vec<String> {
        let found = self.resolver.lookup_name_servers(domain).await.unwrap_or_default();
        found
            .iter()
            .map(|name| name.to_string())
            .filter(|name| crate::url::is_host_name(name))
            .take(ADDRESSES_MAX)
            .collect()
    }

    /// Rules may say that their hit means a refusal.
    fn heed_refusals(&self, rules: &RuleSet, said: &Said) {
        for (rule, domain) in &rules.settings().lists.refusals {
            let hit = said.listed.iter().find(|(listed, _)| *listed.rule == **rule);
            let Some((listed, _)) = hit else { continue };
            let code = listed.evidence.rsplit(' ').next().and_then(|code| code.parse().ok());
            let trouble = code.map_or(Trouble::ListsAll, Trouble::Refuses);
            let zones: Vec<Arc<str>> =
                self.zones.lock().keys().filter(|zone| zone.ends_with(&**domain)).cloned().collect();
            for zone in zones {
                self.with_zone(&zone, |known, now| known.zone.fell(now, trouble));
            }
        }
    }

    fn was_silent(&self, zone: &Arc<str>) {
        // That all are silent says nothing of one.
        if !self.resolver.is_down() {
            self.with_zone(zone, |known, now| known.zone.was_silent(now));
        }
        metrics::counter!("ortler_dns_list_unanswered_total", "zone" => zone.to_string()).increment(1);
    }

    fn with_zone(&self, zone: &Arc<str>, change: impl FnOnce(&mut Known, std::time::Instant) -> Option<News>) {
        let now = self.clock.now();
        let news = self.zones.lock().get_mut(zone).and_then(|known| change(known, now));
        self.tell(zone, news);
    }

    fn tell(&self, zone: &Arc<str>, news: Option<News>) {
        match news {
            Some(News::SetAside(trouble)) => {
                let next_step = trouble.next_step();
                tracing::warn!(event = event::LIST_ASIDE, %zone, reason = %trouble, next_step);
                self.wake.notify_one();
            }
            Some(News::WellAgain) => tracing::info!(event = event::LIST_WELL, %zone),
            None => return,
        }
        let is_well = news == Some(News::WellAgain);
        metrics::gauge!("ortler_dns_list_up", "zone" => zone.to_string()).set(f64::from(u8::from(is_well)));
    }

    fn asked_as<'z>(&'z self, zone: &'z str) -> &'z str {
        let key = self.settings.keys.iter().find(|(one, _)| plain(one) == zone);
        key.map_or(zone, |(_, asked)| asked.reveal().trim_matches('.'))
    }

    /// Looks at each list at once, then every so often. Never ends. Cancel safe.
    pub async fn watch(&self) {
        loop {
            let now = self.clock.now();
            let mut next = now + LOOK_EVERY_MAX;
            let mut due = Vec::new();
            for (zone, known) in self.zones.lock().iter() {
                match known.zone.check_at(now) {
                    at if at <= now => due.push((zone.clone(), known.of_names, known.listed.clone())),
                    at => next = next.min(at),
                }
            }
            // While no name server answers, lists cannot be told apart.
            if !self.resolver.is_down() {
                let checks = due.into_iter().map(|(zone, of_names, listed)| self.look_at(zone, of_names, listed));
                futures_util::future::join_all(checks).await;
            }
            let pause = next.saturating_duration_since(self.clock.now()).max(LOOK_PAUSE);
            tokio::select! {
                () = sleep(pause) => {}
                () = self.wake.notified() => sleep(LOOK_PAUSE).await,
            }
        }
    }

    async fn look_at(&self, zone: Arc<str>, of_names: bool, listed: Option<String>) {
        let found = check::check(&self.resolver, self.asked_as(&zone), of_names, listed.as_deref()).await;
        if found == Err(Trouble::Silent) && self.resolver.is_down() {
            return;
        }
        self.with_zone(&zone, |known, now| known.zone.checked(now, found));
        let is_well = if found.is_ok() { 1.0 } else { 0.0 };
        metrics::gauge!("ortler_dns_list_up", "zone" => zone.to_string()).set(is_well);
    }

    pub fn states(&self) -> Vec<ListState> {
        let utc = self.clock.utc();
        let zones = self.zones.lock();
        let state = |(zone, known): (&Arc<str>, &Known)| ListState {
            zone: zone.to_string(),
            is_asked: known.zone.is_well(),
            trouble: known.zone.trouble().map(|trouble| trouble.to_string()),
            asked_today: known.zone.asked_today(utc),
        };
        zones.iter().map(state).collect()
    }
}

/// One name that was asked for.
#[derive(Debug)]
struct Found {
    name: String,
    answer: Outcome,
}

#[derive(Debug)]
enum Outcome {
    Answers(Vec<Answer>),
    Nothing,
    /// The list is set aside, or was asked often enough.
    NotAsked,
    Late,
}

fn plain(zone: &str) -> String {
    zone.trim_matches('.').to_ascii_lowercase()
}

/// Zones of `named` that no rule asks: slips of the pen.
pub fn unknown_zones<'n>(rules: &RuleSet, named: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let known: HashSet<&str> = rules.questions().iter().filter_map(NetRule::zone).collect();
    named.filter(|zone| !known.contains(plain(zone).as_str())).collect()
}

#[cfg(test)]
mod tests;
