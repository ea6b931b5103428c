//! The filter as the configuration wants it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use base::{Clock, Secret};
use classifier::Current;
use config::{Config, WhenDown};
use filter::lists::{Limits, unknown_zones};
use filter::rules::parse::Source;
use filter::rules::{Problem, RuleSet, ScoreSet, Severity};
use filter::{
    Clamd, ClamdSettings, Countries, Filter, FilterParts, ListSettings, MilterSettings, OwnDomains, Scanner,
    ServiceAddress, WhenAway,
};
use mailauth::{ProofSettings, Resolver, ResolverSettings};
use policy::{EffectivePolicy, Layer, Level, Presets};
use reputation::Reputation;

use super::shipped::shipped_rules;

/// The shipped rules, then those of the configuration. Problems of the configuration's files are told. Scores are those
/// that rule files give where no DNS list is asked.
pub fn load_rules(config: &Config) -> anyhow::Result<(RuleSet, Vec<Problem>)> {
    load_rules_for(config, ScoreSet::Local)
}

fn load_rules_for(config: &Config, scores: ScoreSet) -> anyhow::Result<(RuleSet, Vec<Problem>)> {
    let mut source = Source::default();
    if config.countries.is_some() {
        source.with_countries();
    }
    for (name, text) in shipped_rules() {
        source.read(&name, &text);
    }
    source.end_of_shipped();
    for path in &config.rules {
        filter::rules::read_into(&mut source, path).map_err(|error| anyhow::anyhow!("{error}: {}", error.source))?;
    }
    source.finish();
    Ok(RuleSet::compile(source, scores))
}

/// What the configuration's policy file says of the whole system; nothing, where there is none.
pub fn policy_file(config: &Config) -> anyhow::Result<Layer> {
    let Some(file) = &config.policy else { return Ok(Layer::empty(Level::System, "policy file")) };
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| name.clone())?;
    Ok(Layer::parse(Level::System, &name, &text)?)
}

/// What applies to everybody: the configuration's policy file over the shipped presets.
pub fn load_policy(config: &Config) -> anyhow::Result<EffectivePolicy> {
    Ok(EffectivePolicy::resolve(&Presets::shipped(), &[policy_file(config)?]))
}

/// What asks name servers; `None` where none are known.
pub fn resolver(config: &Config) -> Option<Resolver> {
    let settings = ResolverSettings {
        name_servers: config.dns_servers.clone(),
        query_timeout: config.dns_timeout,
        proofs: ProofSettings { is_on: config.queue.dane, trust_anchor: config.dns_trust_anchor.clone() },
        ..ResolverSettings::default()
    };
    match Resolver::new(&settings) {
        Ok(resolver) => Some(resolver),
        Err(error) => {
            tracing::warn!(event = "dns.absent", %error, next_step = "name servers in dns.servers");
            None
        }
    }
}

/// The filter with everything that the configuration names.
pub fn build_filter(
    config: &Config,
    resolver: Option<Resolver>,
    classifier: Current,
    reputation: &Arc<Reputation>,
    own_domains: Arc<OwnDomains>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Arc<Filter>> {
    let (rules, problems) = load_rules_for(config, ScoreSet::Network)?;
    let lists = lists(config, &rules)?;
    for problem in problems.iter().filter(|problem| problem.severity == Severity::Error) {
        tracing::warn!(event = "rules.problem", %problem);
    }
    let policy = load_policy(config)?;
    let scanners = scanners(config)?;
    let clamd = || Arc::new(Clamd::new(ClamdSettings::new(scanners), Arc::clone(clock))) as Arc<dyn Scanner>;
    let scanner = if config.clamd.is_empty() { None } else { Some(clamd()) };
    Ok(Arc::new(Filter::new(FilterParts {
        host_name: config.node_name.clone(),
        resolver,
        rules: Arc::new(rules),
        classifier: Some(classifier),
        reputation: Some(Arc::clone(reputation)),
        greylist_loopback: !config.plaintext_on_loopback,
        scanner,
        own_domains,
        countries: countries(config)?,
        trusted_sealers: config.trusted_sealers.clone(),
        lists,
        milters: milters(config)?,
        policy,
        clock: Arc::clone(clock),
    })))
}

/// True if a node on the embedded engine ran with this configuration.
pub fn has_learned(config: &Config) -> bool {
    config.data.join(super::engines::CLASSIFIER).is_file()
}

/// The database of `filter.countries`. Blocks.
pub fn countries(config: &Config) -> anyhow::Result<Option<Arc<Countries>>> {
    let open = |file: &PathBuf| Countries::open(file).map(Arc::new);
    config.countries.as_ref().map(open).transpose().context("filter.countries")
}

/// Where `filter.clamd` listens.
pub fn scanners(config: &Config) -> anyhow::Result<Vec<ServiceAddress>> {
    let parse = |text: &String| text.parse().map_err(|error| anyhow::anyhow!("filter.clamd: `{text}`: {error}"));
    config.clamd.iter().map(parse).collect()
}

/// Rule files that can be read, and lists that they ask.
pub fn check_rules(config: &Config) -> anyhow::Result<()> {
    let (rules, _) = load_rules_for(config, ScoreSet::Network)?;
    lists(config, &rules).map(drop)
}

/// `filter.dns_lists` and its kin. A zone that no rule knows is an error at its line.
pub fn lists(config: &Config, rules: &RuleSet) -> anyhow::Result<ListSettings> {
    let complain = |option: &str, text: &str, what: String| anyhow::Error::new(config.complaint(option, text, what));
    if let Some(zone) = unknown_zones(rules, config.dns_lists.iter().map(String::as_str)).first() {
        let what =
            format!("`filter.dns_lists` names `{zone}`, which no rule asks; `ortler config reference` says more");
        return Err(complain("filter.dns_lists", zone, what));
    }
    let mut keys = Vec::new();
    for text in &config.dns_list_keys {
        let Some((zone, asked)) = text.reveal().split_once('=').filter(|(_, asked)| is_zone(asked)) else {
            let what = "`filter.dns_list_keys` must be `zone=name` each".to_owned();
            return Err(complain("filter.dns_list_keys", text.reveal(), what));
        };
        if !unknown_zones(rules, std::iter::once(zone)).is_empty() {
            let what = format!("`filter.dns_list_keys` names `{zone}`, which no rule asks");
            return Err(complain("filter.dns_list_keys", text.reveal(), what));
        }
        keys.push((zone.to_owned(), Secret::new(asked.to_owned())));
    }
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(ListSettings {
        zones: config.dns_lists.clone(),
        keys,
        wait: config.dns_list_wait,
        limits: Limits {
            per_second: number(config.dns_list_questions_per_second),
            per_day: number(config.dns_list_questions_per_day),
        },
    })
}

fn is_zone(text: &str) -> bool {
    text.len() < 200 && text.split('.').all(|label| (1..64).contains(&label.len()) && label.is_ascii())
}

/// `filter.milters`, in their order.
pub fn milters(config: &Config) -> anyhow::Result<Vec<MilterSettings>> {
    let when_away = match config.milter_down {
        WhenDown::Defer => WhenAway::Defer,
        WhenDown::Pass => WhenAway::Pass,
    };
    let milters = config.milters.iter().map(|text| MilterSettings::parse(text, when_away));
    milters.collect::<Result<_, _>>().context("filter.milters")
}
