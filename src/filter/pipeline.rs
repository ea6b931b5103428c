//! All checks of one message, in the order of the stages: connect, helo, mail, rcpt, header, body, end of message.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use base::{Clock, MessageId, event};
use classifier::{Current, Weights};
use mail::ReversePath;
use mailauth::{AuthOutcome, AuthResult, Begun, ConnectionFacts, Resolver};
use policy::{Attachments, Decision, EffectivePolicy, Finding, ReasonClass, Score, VirusState};
use reputation::Reputation;
use tokio::sync::Semaphore;

use crate::av::{Scanned, Scanner, ScannerState};
use crate::countries::{Countries, Country};
use crate::facts::{MessageFacts, Source};
use crate::files;
use crate::history;
use crate::learned::Features;
use crate::lists::{ListSettings, ListState, Lists, Said};
use crate::milter::{External, MilterSettings, Milters};
use crate::own::{self, OwnDomains};
use crate::proof;
use crate::rules::net::Listed;
use crate::rules::{Context, RuleSet, Targets};
use crate::score;
use crate::sender;
use crate::verdict::{Judgement, Seen};

/// What a filter is built from.
pub struct FilterParts {
    /// Our own name: in `Authentication-Results`, in SPF macros, and what a liar may greet with.
    pub host_name: String,
    /// `None`: senders are not checked, no question goes to DNS.
    pub resolver: Option<Resolver>,
    pub rules: Arc<RuleSet>,
    /// `None`: nothing was ever learned.
    pub classifier: Option<Current>,
    /// `None`: nothing is known of earlier mail, nothing is put off.
    pub reputation: Option<Arc<Reputation>>,
    /// Clients on the loopback interface are put off like others.
    pub greylist_loopback: bool,
    /// `None`: no virus scanner is configured.
    pub scanner: Option<Arc<dyn Scanner>>,
    /// Domains that nobody outside sends for without proof. Empty: none are known.
    pub own_domains: Arc<OwnDomains>,
    /// `None`: no database of countries is configured.
    pub countries: Option<Arc<Countries>>,
    /// Domains whose seals of forwarded mail are believed.
    pub trusted_sealers: Vec<String>,
    /// DNS lists are asked where there is a resolver.
    pub lists: ListSettings,
    /// External milters, asked in this order.
    pub milters: Vec<MilterSettings>,
    /// For the verdict, and for mail servers that use the filter as a milter.
    pub policy: EffectivePolicy,
    pub clock: Arc<dyn Clock>,
}

/// Judges messages. Holds nothing that a restart would lose.
pub struct Filter {
    host_name: String,
    resolver: Option<Resolver>,
    rules: ArcSwap<RuleSet>,
    classifier: Option<Current>,
    reputation: Option<Arc<Reputation>>,
    greylist_loopback: bool,
    scanner: Option<Arc<dyn Scanner>>,
    own_domains: Arc<OwnDomains>,
    countries: Option<Arc<Countries>>,
    trusted_sealers: Vec<String>,
    lists: Option<Arc<Lists>>,
    milters: Vec<MilterSettings>,
    policy: ArcSwap<EffectivePolicy>,
    clock: Arc<dyn Clock>,
    /// Rules run on as many threads as there are processors; more messages wait here.
    processors: Arc<Semaphore>,
}

/// For all sender checks together.
pub(crate) const AUTH_TIMEOUT: Duration = Duration::from_secs(10);

impl Filter {
    pub fn new(parts: FilterParts) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let lists = parts
            .resolver
            .clone()
            .map(|resolver| Arc::new(Lists::new(parts.lists, resolver, Arc::clone(&parts.clock), &parts.rules)));
        Self {
            lists,
            own_domains: parts.own_domains,
            countries: parts.countries,
            trusted_sealers: parts.trusted_sealers,
            host_name: parts.host_name,
            resolver: parts.resolver,
            rules: ArcSwap::new(parts.rules),
            classifier: parts.classifier,
            reputation: parts.reputation,
            greylist_loopback: parts.greylist_loopback,
            scanner: parts.scanner,
            milters: parts.milters,
            policy: ArcSwap::from_pointee(parts.policy),
            clock: parts.clock,
            processors: Arc::new(Semaphore::new(processors)),
        }
    }

    /// Judgements that begin after this use the new rules.
    pub fn replace_rules(&self, rules: Arc<RuleSet>) {
        if let Some(lists) = &self.lists {
            lists.know(&rules);
        }
        self.rules.store(rules);
    }

    pub fn replace_policy(&self, policy: EffectivePolicy) {
        self.policy.store(Arc::new(policy));
    }

    /// The system's policy.
    pub fn policy(&self) -> Arc<EffectivePolicy> {
        self.policy.load_full()
    }

    /// Notices when name servers are down, so that messages do not wait for them. Never ends.
    pub async fn watch_name_servers(&self) {
        match &self.resolver {
            Some(resolver) => resolver.watch().await,
            None => std::future::pending().await,
        }
    }

    /// Looks after the virus scanners, so that the first message after a failure does not wait. Never ends.
    pub async fn watch_scanners(&self) {
        match &self.scanner {
            Some(scanner) => scanner.watch().await,
            None => std::future::pending().await,
        }
    }

    /// How the virus scanners stand, as last seen; none where none is configured.
    pub fn scanners(&self) -> Vec<ScannerState> {
        self.scanner.as_ref().map(|scanner| scanner.states()).unwrap_or_default()
    }

    /// Looks after the DNS lists: none is asked before it was found well. Never ends.
    pub async fn watch_lists(&self) {
        match &self.lists {
            Some(lists) => lists.watch().await,
            None => std::future::pending().await,
        }
    }

    /// Looks after the database of countries. Never ends.
    pub async fn watch_countries(&self) {
        match &self.countries {
            Some(countries) => countries.watch().await,
            None => std::future::pending().await,
        }
    }

    /// Where an address is used, if a database of countries is configured and knows it.
    pub fn country(&self, ip: std::net::IpAddr) -> Option<Country> {
        self.countries.as_ref()?.of(ip)
    }

    /// How the DNS lists stand that rules ask.
    pub fn lists(&self) -> Vec<ListState> {
        self.lists.as_ref().map(|lists| lists.states()).unwrap_or_default()
    }

    pub fn host_name(&self) -> &str {
        &self.host_name
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    pub(crate) fn resolver(&self) -> Option<&Resolver> {
        self.resolver.as_ref()
    }

    /// The external milters for one connection.
    pub(crate) fn milters(&self) -> Milters {
        Milters::new(&self.milters, &self.host_name)
    }

    /// Runs every check that fits where the message comes from; for messages that no [`crate::Stages`] followed.
    /// Never fails, and ends in bounded time: what could not be asked is part of the judgement. Cancel safe.
    pub async fn judge(&self, facts: &MessageFacts) -> Judgement {
        let mut milters = self.milters();
        milters.replay(facts, self.clock.now()).await;
        let judgement = self.judge_in(facts, None, None, &mut milters).await;
        milters.close().await;
        judgement
    }

    /// `milters` have heard everything before the content.
    pub(crate) async fn judge_in(
        &self,
        facts: &MessageFacts,
        id: Option<MessageId>,
        begun: Option<Begun>,
        milters: &mut Milters,
    ) -> Judgement {
        let start = self.clock.now();
        let external = milters.content(id, &facts.envelope, &facts.message, start);
        let (auth, scanned, (by_files, attachments), external, asked) = tokio::join!(
            self.authenticate(facts, begun),
            self.scan(facts),
            self.look_at_files(facts),
            external,
            self.ask_lists(facts)
        );
        let External { wish, recipients, added, removed, edited, findings } = external;
        let mut seen = Seen {
            external: wish,
            external_recipients: recipients,
            added,
            removed,
            edited,
            findings: self.findings_before_rules(facts, auth.as_ref()),
            ..Seen::default()
        };
        let (virus, virus_finding) = of_scan(scanned);
        seen.findings.extend(by_files);
        seen.findings.extend(virus_finding);
        seen.findings.extend(findings);
        // Of one stage, as they came.
        seen.findings.sort_by_key(|finding| finding.stage);
        seen.findings.extend(asked.finding());
        let content = self.run_rules(facts, auth.as_ref(), &seen.findings, asked).await;
        seen.findings.extend(content.findings);
        seen.features = content.features.into();
        seen.received_at = facts.received_at;
        seen.size_bytes = facts.message.len() as u64;
        if let Source::Client { ip, .. } = &facts.source {
            seen.country = self.country(*ip);
        }
        self.look_back(facts, auth.as_ref(), &mut seen).await;
        seen.auth = auth;
        seen.virus = virus;
        seen.attachments = attachments;
        let judgement = Judgement::of(seen, &self.policy.load());
        metrics::counter!("ortler_filter_verdicts_total", "verdict" => judgement.verdict.as_str()).increment(1);
        metrics::histogram!("ortler_filter_seconds")
            .record(self.clock.now().saturating_duration_since(start).as_secs_f64());
        judgement
    }

    fn findings_before_rules(&self, facts: &MessageFacts, auth: Option<&AuthOutcome>) -> Vec<Finding> {
        let mut out = Vec::new();
        if let Source::Client { ip, helo, .. } = &facts.source {
            out.extend(proof::by_greeting(*ip, helo, &self.host_name));
        }
        if let Some(auth) = auth {
            out.extend(proof::by_authentication(auth));
            let rules = self.rules.load();
            let networks = &rules.settings().networks;
            let is_trusted = |ip| networks.are_set() && networks.is_trusted(ip);
            out.extend(own::check(&self.own_domains, facts, auth, is_trusted));
        }
        out.extend(proof::by_author(&facts.message));
        out
    }

    /// Adds who sent it, and what is known of earlier mail.
    async fn look_back(&self, facts: &MessageFacts, auth: Option<&AuthOutcome>, seen: &mut Seen) {
        seen.sender = sender::of(facts, auth);
        let Some(reputation) = &self.reputation else { return };
        let is_own = facts.source.client_ip().is_some_and(|ip| ip.is_loopback()) && !self.greylist_loopback;
        let score = seen.findings.iter().map(|finding| finding.score).sum();
        let past = history::look_up(reputation, facts, &seen.sender, score, !is_own).await;
        seen.findings.extend(past.findings);
        (seen.greylisting, seen.marks) = (past.greylisting, past.marks);
    }

    /// Writes down what was decided for each recipient, for the judgement of later messages.
    pub fn remember(&self, judgement: &Judgement, decisions: &[Decision]) {
        if let Some(reputation) = &self.reputation {
            let quarantine = self.policy.load().score(policy::Key::QuarantineScore);
            history::write_down(reputation, judgement, decisions, quarantine);
        }
    }

    async fn authenticate(&self, facts: &MessageFacts, begun: Option<Begun>) -> Option<AuthOutcome> {
        let resolver = self.resolver.as_ref().filter(|_| !facts.source.is_outbound())?;
        let connection = ConnectionFacts {
            ip: facts.source.client_ip(),
            helo: facts.source.helo().unwrap_or_default().to_owned(),
            reverse_path: facts.envelope.reverse_path.clone(),
            host_name: self.host_name.clone(),
        };
        let mut outcome = mailauth::verify(resolver, &connection, begun, &facts.message, AUTH_TIMEOUT).await;
        outcome.trust_sealers(&self.trusted_sealers);
        Some(outcome)
    }

    /// Has the virus scanner look at a message, whatever is known of it.
    pub async fn scan_now(&self, message: &bytes::Bytes) -> VirusState {
        match &self.scanner {
            Some(scanner) => of_scan(Some(scanner.scan(message).await)).0,
            None => VirusState::NotScanned,
        }
    }

    async fn scan(&self, facts: &MessageFacts) -> Option<Scanned> {
        Some(self.scanner.as_ref()?.scan(&facts.message).await)
    }

    async fn look_at_files(&self, facts: &MessageFacts) -> (Vec<Finding>, Attachments) {
        let message = facts.message.clone();
        let processor = self.processors.clone().acquire_owned().await;
        let run = tokio::task::spawn_blocking(move || {
            let seen = files::check(&message);
            drop(processor);
            seen
        });
        run.await.unwrap_or_else(|panicked| {
            tracing::error!(event = event::SESSION_PANICKED, part = "attachments", %panicked);
            files::failed()
        })
    }

    /// What DNS lists say. Where none is asked, it costs nothing.
    async fn ask_lists(&self, facts: &MessageFacts) -> Asked {
        let rules = self.rules.load_full();
        let Some(lists) = self.lists.as_ref().filter(|lists| facts.source != Source::File && lists.are_asked(&rules))
        else {
            return Asked { rules, ..Asked::default() };
        };
        let (facts, for_questions, asking) = (facts.clone(), rules.clone(), Arc::clone(lists));
        let processor = self.processors.clone().acquire_owned().await;
        let run = tokio::task::spawn_blocking(move || {
            let reverse_path = facts.envelope.reverse_path.to_string();
            let recipients = recipients_of(&facts);
            let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
            let context = context_of(&facts, &for_questions, &reverse_path, &recipients);
            let targets = Targets::of(&facts.message, context);
            let questions = asking.questions_of(&for_questions, &targets, !facts.source.is_outbound());
            drop(processor);
            (questions, targets.detached())
        });
        match run.await {
            Ok((questions, views)) => {
                let said = lists.ask(&rules, questions).await;
                Asked { rules, views: Some(views), said }
            }
            Err(panicked) => {
                tracing::error!(event = event::SESSION_PANICKED, part = "DNS lists", %panicked);
                Asked { rules, ..Asked::default() }
            }
        }
    }

    async fn run_rules(
        &self,
        facts: &MessageFacts,
        auth: Option<&AuthOutcome>,
        before: &[Finding],
        asked: Asked,
    ) -> OfContent {
        let Asked { rules, views, said } = asked;
        // Too little taught says nothing, and is not asked.
        let weights = self.classifier.as_ref().map(Current::weights).filter(|weights| weights.trust() > 0.0);
        if rules.is_empty() && weights.is_none() {
            return OfContent::default();
        }
        let iprev = auth.and_then(|auth| auth.iprev.as_ref()).filter(|iprev| iprev.result == AuthResult::Pass);
        let client_name = iprev.and_then(|iprev| iprev.name.clone());
        let names: Vec<Arc<str>> = before.iter().map(|finding| finding.name.clone()).collect();
        let is_proven = |signer: &String| {
            let signed = auth.map_or(&[][..], |auth| &auth.dkim).iter();
            signed.into_iter().any(|dkim| dkim.result == AuthResult::Pass && dkim.domain.eq_ignore_ascii_case(signer))
        };
        let listed = said.listed.into_iter().filter(|(_, signer)| signer.as_ref().is_none_or(is_proven));
        let listed: Vec<Listed> = listed.map(|(listed, _)| listed).collect();
        let (facts, countries) = (facts.clone(), self.countries.clone());
        // Never an error, for the semaphore is never closed. The permit goes along: a caller that gives up does not
        // free a processor that still works for it.
        let processor = self.processors.clone().acquire_owned().await;
        let run = tokio::task::spawn_blocking(move || {
            let beside = Beside {
                client_name: client_name.as_deref(),
                names: &names,
                listed: &listed,
                countries: countries.as_deref(),
            };
            let seen = judge_content(&rules, weights.as_deref(), &facts, views, &beside);
            drop(processor);
            seen
        });
        run.await.unwrap_or_else(|panicked| {
            tracing::error!(event = event::SESSION_PANICKED, part = "filter rules", %panicked);
            let failed = proof::finding("RULES_FAILED", 0, "Rules could not run", "");
            OfContent { findings: vec![Finding { class: ReasonClass::Content, ..failed }], features: Vec::new() }
        })
    }
}

/// What rules and classifier saw.
#[derive(Default)]
struct OfContent {
    findings: Vec<Finding>,
    /// For the lessons of single accounts.
    features: Vec<u32>,
}

/// What DNS lists said, and what was made of the message to ask them.
#[derive(Default)]
struct Asked {
    rules: Arc<RuleSet>,
    views: Option<Targets<'static>>,
    said: Said,
}

impl Asked {
    /// That lists did not answer leaves a trace.
    fn finding(&self) -> Option<Finding> {
        let late = &self.said.late;
        let told = || proof::finding("DNS_LISTS_LATE", 0, "DNS lists did not answer in time", &late.join(" "));
        (!late.is_empty()).then(|| Finding { class: ReasonClass::Reputation, ..told() })
    }
}

/// What is known beside the message when rules run.
struct Beside<'b> {
    client_name: Option<&'b str>,
    names: &'b [Arc<str>],
    listed: &'b [Listed],
    countries: Option<&'b Countries>,
}

fn recipients_of(facts: &MessageFacts) -> Vec<String> {
    facts.envelope.forward_paths.iter().map(ToString::to_string).collect()
}

/// What the session tells of a message.
fn context_of<'c>(
    facts: &'c MessageFacts,
    rules: &'c RuleSet,
    reverse_path: &'c str,
    recipients: &'c [&'c str],
) -> Context<'c> {
    let is_file = facts.source == Source::File;
    Context {
        // A file's envelope is not known, which is something else than the null path.
        envelope_from: (!is_file || facts.envelope.reverse_path != ReversePath::Null).then_some(reverse_path),
        recipients,
        client_ip: facts.source.client_ip(),
        helo: facts.source.helo(),
        received_at: (!is_file).then_some(facts.received_at),
        settings: Some(rules.settings()),
        ..Context::default()
    }
}

fn judge_content(
    rules: &RuleSet,
    weights: Option<&Weights>,
    facts: &MessageFacts,
    views: Option<Targets<'static>>,
    beside: &Beside<'_>,
) -> OfContent {
    let reverse_path = facts.envelope.reverse_path.to_string();
    let recipients = recipients_of(facts);
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let names: Vec<&str> = beside.names.iter().map(|name| &**name).collect();
    let known = context_of(facts, rules, &reverse_path, &recipients);
    let Beside { client_name, listed, countries, .. } = *beside;
    let context = Context { client_name, findings: &names, listed, countries, ..known };
    let mut targets = match views {
        Some(views) => views.attached(&facts.message, context),
        None => Targets::of(&facts.message, context),
    };
    let Some(weights) = weights else {
        return OfContent { findings: score::by_rules(rules, &targets, 0.0), features: Vec::new() };
    };
    let features = Features::of(&targets);
    let numbers = features.numbers();
    let opinion = weights.opinion(&numbers);
    targets.set_bayes(Some(opinion.probability()));
    let is_scored = rules.scores_bayes();
    let trust = if is_scored { 0.0 } else { weights.trust() };
    let mut findings = score::by_rules(rules, &targets, trust);
    findings.extend(crate::learned::finding(weights, &features, opinion).map(|finding| match is_scored {
        // Rules that score what was learned: it counts once.
        true => Finding { score: Score::ZERO, ..finding },
        false => finding,
    }));
    OfContent { findings, features: numbers }
}

fn of_scan(scanned: Option<Scanned>) -> (VirusState, Option<Finding>) {
    let finding = |name: &str, description: &str, evidence: &str| Finding {
        class: ReasonClass::Virus,
        score: Score::ZERO,
        ..proof::finding(name, 0, description, evidence)
    };
    match scanned {
        None => (VirusState::NotScanned, None),
        Some(Scanned::Clean) => (VirusState::Clean, None),
        Some(Scanned::Found(name)) => {
            let seen = finding("VIRUS_FOUND", "Carries a known virus", &name);
            (VirusState::Found(name), Some(seen))
        }
        Some(Scanned::Suspected(name)) => {
            let seen = finding("VIRUS_SUSPECTED", "A virus scanner suspects it", &name);
            (VirusState::Suspected(name), Some(seen))
        }
        Some(Scanned::TooLarge) => {
            (VirusState::NotScanned, Some(finding("VIRUS_TOO_LARGE", "Too long for the virus scanner", "")))
        }
        Some(Scanned::Unavailable(reason)) => {
            tracing::warn!(event = event::SCANNER_UNAVAILABLE, %reason);
            metrics::counter!("ortler_filter_scanner_unavailable_total").increment(1);
            (VirusState::Unavailable, Some(finding("VIRUS_UNSCANNED", "No virus scanner answers", &reason)))
        }
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod history_tests;
#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
