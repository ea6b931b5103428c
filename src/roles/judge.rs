//! The filter as the configuration wants it.

use std::sync::Arc;

use anyhow::Context as _;
use base::Clock;
use classifier::Current;
use config::{Config, WhenDown};
use filter::rules::parse::Source;
use filter::rules::{Problem, RuleSet, ScoreSet, Severity};
use filter::{Clamd, ClamdSettings, Filter, FilterParts, MilterSettings, Scanner, ServiceAddress, WhenAway};
use mailauth::{Resolver, ResolverSettings};
use policy::{EffectivePolicy, Layer, Presets};
use reputation::Reputation;

use super::shipped::shipped_rules;

/// The shipped rules, then those of the configuration. Problems of the configuration's files are told.
pub fn load_rules(config: &Config) -> anyhow::Result<(RuleSet, Vec<Problem>)> {
    let mut source = Source::default();
    for (name, text) in shipped_rules() {
        source.read(&name, &text);
    }
    source.end_of_shipped();
    for path in &config.rules {
        filter::rules::read_into(&mut source, path).map_err(|error| anyhow::anyhow!("{error}: {}", error.source))?;
    }
    source.finish();
    Ok(RuleSet::compile(source, ScoreSet::default()))
}

/// What applies to everybody: the configuration's policy file over the shipped presets.
pub fn load_policy(config: &Config) -> anyhow::Result<EffectivePolicy> {
    let Some(file) = &config.policy else { return Ok(EffectivePolicy::defaults()) };
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| name.clone())?;
    let layer = Layer::parse(policy::option::Level::System, &name, &text)?;
    Ok(EffectivePolicy::resolve(&Presets::shipped(), &[layer]))
}

/// The filter with everything that the configuration names.
pub fn build_filter(
    config: &Config,
    classifier: Current,
    reputation: &Arc<Reputation>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Arc<Filter>> {
    let (rules, problems) = load_rules(config)?;
    for problem in problems.iter().filter(|problem| problem.severity == Severity::Error) {
        tracing::warn!(event = "rules.problem", %problem);
    }
    let policy = load_policy(config)?;
    let resolver = ResolverSettings {
        name_servers: config.dns_servers.clone(),
        query_timeout: config.dns_timeout,
        ..ResolverSettings::default()
    };
    let resolver = match Resolver::new(&resolver) {
        Ok(resolver) => Some(resolver),
        Err(error) => {
            tracing::warn!(event = "dns.absent", %error, next_step = "name servers in dns.servers");
            None
        }
    };
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
        milters: milters(config)?,
        policy,
        clock: Arc::clone(clock),
    })))
}

/// True if a node on the embedded engine ran with this configuration.
pub fn has_learned(config: &Config) -> bool {
    config.data.join(super::engines::CLASSIFIER).is_file()
}

/// Where `filter.clamd` listens.
pub fn scanners(config: &Config) -> anyhow::Result<Vec<ServiceAddress>> {
    let parse = |text: &String| text.parse().map_err(|error| anyhow::anyhow!("filter.clamd: `{text}`: {error}"));
    config.clamd.iter().map(parse).collect()
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
