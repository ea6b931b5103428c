//! All checks of one message, in the order of the stages: connect, helo, mail, rcpt, header, body, end of message.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use base::{Clock, MessageId, event};
use classifier::{Current, Weights};
use mail::ReversePath;
use mailauth::{AuthOutcome, AuthResult, Begun, ConnectionFacts, Resolver};
use policy::{Attachments, EffectivePolicy, Finding, ReasonClass, Score, VirusState};
use tokio::sync::Semaphore;

use crate::av::{Scanned, Scanner, ScannerState};
use crate::facts::{MessageFacts, Source};
use crate::files;
use crate::learned::Features;
use crate::milter::{External, MilterSettings, Milters};
use crate::proof;
use crate::rules::{Context, RuleSet, Targets};
use crate::score;
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
    /// `None`: no virus scanner is configured.
    pub scanner: Option<Arc<dyn Scanner>>,
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
    scanner: Option<Arc<dyn Scanner>>,
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
        Self {
            host_name: parts.host_name,
            resolver: parts.resolver,
            rules: ArcSwap::new(parts.rules),
            classifier: parts.classifier,
            scanner: parts.scanner,
            milters: parts.milters,
            policy: ArcSwap::from_pointee(parts.policy),
            clock: parts.clock,
            processors: Arc::new(Semaphore::new(processors)),
        }
    }

    /// Judgements that begin after this use the new rules.
    pub fn replace_rules(&self, rules: Arc<RuleSet>) {
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
        let (auth, scanned, (by_files, attachments), external) =
            tokio::join!(self.authenticate(facts, begun), self.scan(facts), self.look_at_files(facts), external);
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
        let content = self.run_rules(facts, auth.as_ref(), &seen.findings).await;
        seen.findings.extend(content.findings);
        seen.features = content.features.into();
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
        }
        out.extend(proof::by_author(&facts.message));
        out
    }

    async fn authenticate(&self, facts: &MessageFacts, begun: Option<Begun>) -> Option<AuthOutcome> {
        let resolver = self.resolver.as_ref().filter(|_| !facts.source.is_outbound())?;
        let connection = ConnectionFacts {
            ip: facts.source.client_ip(),
            helo: facts.source.helo().unwrap_or_default().to_owned(),
            reverse_path: facts.envelope.reverse_path.clone(),
            host_name: self.host_name.clone(),
        };
        Some(mailauth::verify(resolver, &connection, begun, &facts.message, AUTH_TIMEOUT).await)
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

    async fn run_rules(&self, facts: &MessageFacts, auth: Option<&AuthOutcome>, before: &[Finding]) -> OfContent {
        let rules = self.rules.load_full();
        // Too little taught says nothing, and is not asked.
        let weights = self.classifier.as_ref().map(Current::weights).filter(|weights| weights.trust() > 0.0);
        if rules.is_empty() && weights.is_none() {
            return OfContent::default();
        }
        let iprev = auth.and_then(|auth| auth.iprev.as_ref()).filter(|iprev| iprev.result == AuthResult::Pass);
        let client_name = iprev.and_then(|iprev| iprev.name.clone());
        let names: Vec<Arc<str>> = before.iter().map(|finding| finding.name.clone()).collect();
        let facts = facts.clone();
        // Never an error, for the semaphore is never closed. The permit goes along: a caller that gives up does not
        // free a processor that still works for it.
        let processor = self.processors.clone().acquire_owned().await;
        let run = tokio::task::spawn_blocking(move || {
            let seen = judge_content(&rules, weights.as_deref(), &facts, client_name.as_deref(), &names);
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

fn judge_content(
    rules: &RuleSet,
    weights: Option<&Weights>,
    facts: &MessageFacts,
    client_name: Option<&str>,
    names: &[Arc<str>],
) -> OfContent {
    let reverse_path = facts.envelope.reverse_path.to_string();
    let recipients: Vec<String> = facts.envelope.forward_paths.iter().map(ToString::to_string).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    let is_file = facts.source == Source::File;
    let context = Context {
        // A file's envelope is not known, which is something else than the null path.
        envelope_from: (!is_file || facts.envelope.reverse_path != ReversePath::Null).then_some(&*reverse_path),
        recipients: &recipients,
        client_ip: facts.source.client_ip(),
        client_name,
        helo: facts.source.helo(),
        received_at: (!is_file).then_some(facts.received_at),
        findings: &names,
        listed: &[],
        // Known once the message was looked at.
        bayes: None,
        settings: Some(rules.settings()),
    };
    let mut targets = Targets::of(&facts.message, context);
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
#[path = "pipeline_tests.rs"]
mod tests;
