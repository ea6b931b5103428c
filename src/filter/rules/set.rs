//! A set of rules, compiled and put in order, and how it judges.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use policy::{Finding, ReasonClass, Score, Stage};

use super::eval::{Call, Function};
use super::meta::{self, Expression};
use super::parse::{Definition, Field, Flags, Source, Target, Test};
use super::prefilter::{Prefilter, Scratch};
use super::problem::{Location, Problem, Severity};
use super::regex::{Pattern, PatternText};
use super::target::{Pieces, Targets};
use super::{LoadError, eval, read};

/// Which of a rule's four scores counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ScoreSet {
    #[default]
    Local = 0,
    Network = 1,
    Bayes = 2,
    BayesAndNetwork = 3,
}

/// Compiled rules. Immutable; share it by `Arc`.
#[derive(Debug, Default)]
pub struct RuleSet {
    rules: Vec<Rule>,
    groups: Vec<Group>,
    exists: Vec<(usize, Field)>,
    evals: Vec<EvalTest>,
    /// In an order in which each comes after those it needs.
    metas: Vec<(usize, Expression, Vec<Operand>)>,
    lists: HashMap<String, Vec<String>>,
    required_score: Option<Score>,
}

/// One rule that hit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hit {
    pub rule: Arc<str>,
    pub score: Score,
    pub description: Arc<str>,
    /// What it matched: one line of at most 200 characters, may be empty.
    pub evidence: String,
}

impl From<Hit> for Finding {
    fn from(hit: Hit) -> Self {
        Self {
            stage: Stage::EndOfMessage,
            name: hit.rule,
            score: hit.score,
            class: ReasonClass::Content,
            description: hit.description,
            evidence: hit.evidence,
        }
    }
}

#[derive(Debug)]
struct Rule {
    name: Arc<str>,
    at: Location,
    score: Score,
    description: Arc<str>,
    /// Most hits that count: 1 without `tflags multiple`.
    hits_max: u32,
    no_subject: bool,
}

/// Patterns that look at the same text.
#[derive(Debug)]
struct Group {
    target: Target,
    tests: Vec<PatternTest>,
    prefilter: Prefilter,
}

#[derive(Debug)]
struct PatternTest {
    rule: usize,
    pattern: Pattern,
    negated: bool,
    if_unset: Option<String>,
}

#[derive(Debug)]
struct EvalTest {
    rule: usize,
    function: Function,
    arguments: Vec<String>,
    pattern: Option<Pattern>,
}

/// What a name in a `meta` rule stands for.
#[derive(Debug)]
enum Operand {
    Rule(usize),
    /// Another check's finding.
    Finding(String),
}

/// What one message did to the rules.
#[derive(Debug)]
struct Outcome {
    hits: Vec<u32>,
    evidence: Vec<Option<String>>,
}

/// Matches counted of a rule with `tflags multiple` and no limit of its own.
const HITS_MAX: u32 = 1000;
const EVIDENCE_CHARS_MAX: usize = 200;

/// Findings of other checks that `meta` rules may name without defining them.
const FINDINGS: &[&str] = &["SPF_", "DKIM_", "DMARC_", "ARC_", "RCVD_IN_", "URIBL_", "BAYES_", "IPREV_", "VIRUS_"];

impl RuleSet {
    /// Reads, compiles and orders rules from files, or from folders' `*.cf` files. What is wrong with a line is a
    /// [`Problem`] and leaves the other rules in place; only an unreadable file is an error.
    pub fn load(paths: &[PathBuf]) -> Result<(Self, Vec<Problem>), LoadError> {
        Self::load_with(paths, ScoreSet::default())
    }

    pub fn load_with(paths: &[PathBuf], scores: ScoreSet) -> Result<(Self, Vec<Problem>), LoadError> {
        Ok(Self::compile(read(paths)?, scores))
    }

    /// The same from text, as one file called `name`.
    pub fn parse(name: &str, text: &str) -> (Self, Vec<Problem>) {
        let mut source = Source::default();
        source.read(name, text.as_bytes());
        source.finish();
        Self::compile(source, ScoreSet::default())
    }

    /// Compiles what `source` defines. Problems come in the order of files and lines.
    pub fn compile(source: Source, scores: ScoreSet) -> (Self, Vec<Problem>) {
        let mut builder = Builder::new(source, scores);
        builder.build();
        let Builder { mut out, mut problems, source, .. } = builder;
        out.lists = source.lists;
        out.required_score = source.required_score;
        problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        (out, problems)
    }

    /// Rules that run.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// From `required_score`, if the files set it.
    pub fn required_score(&self) -> Option<Score> {
        self.required_score
    }

    /// Names of all rules that run, with where they are defined.
    pub fn names(&self) -> impl Iterator<Item = (&str, &Location)> {
        self.rules.iter().map(|rule| (&*rule.name, &rule.at))
    }

    /// The scored rules that hit, in order of name. Never fails and is bounded in time by the targets' limits.
    pub fn judge(&self, targets: &Targets<'_>) -> Vec<Hit> {
        let mut outcome = self.run(targets);
        let mut out = Vec::new();
        for (at, rule) in self.rules.iter().enumerate() {
            if outcome.hits[at] == 0 || rule.name.starts_with("__") {
                continue;
            }
            out.push(Hit {
                rule: rule.name.clone(),
                score: rule.score,
                description: rule.description.clone(),
                evidence: outcome.evidence[at].take().unwrap_or_default(),
            });
        }
        out
    }

    /// How often each rule hit, sub-rules included: for tests of rules.
    pub fn matches(&self, targets: &Targets<'_>) -> BTreeMap<Arc<str>, u32> {
        let outcome = self.run(targets);
        let hits = self.rules.iter().zip(outcome.hits).filter(|(_, hits)| *hits > 0);
        hits.map(|(rule, hits)| (rule.name.clone(), hits)).collect()
    }

    fn run(&self, targets: &Targets<'_>) -> Outcome {
        let mut outcome = Outcome { hits: vec![0; self.rules.len()], evidence: vec![None; self.rules.len()] };
        let mut scratch = Scratch::default();
        for group in &self.groups {
            self.run_group(group, targets, &mut outcome, &mut scratch);
        }
        for (rule, field) in &self.exists {
            outcome.hits[*rule] = u32::from(targets.has_field(&field.name));
        }
        for test in &self.evals {
            let (arguments, pattern) = (&test.arguments, test.pattern.as_ref());
            let call = Call { targets, arguments, pattern, lists: &self.lists };
            if let Some(evidence) = (test.function)(&call) {
                outcome.hits[test.rule] = 1;
                outcome.evidence[test.rule] = Some(one_line(evidence.as_bytes()));
            }
        }
        let mut stack = Vec::new();
        for (rule, expression, operands) in &self.metas {
            let hits = |at: usize| match operands.get(at) {
                Some(Operand::Rule(other)) => f64::from(outcome.hits[*other]),
                Some(Operand::Finding(name)) => {
                    f64::from(u8::from(targets.context().findings.contains(&name.as_str())))
                }
                None => 0.0,
            };
            if expression.value(hits, &mut stack) == 0.0 {
                continue;
            }
            let said = operands.iter().filter_map(|operand| match operand {
                Operand::Rule(other) if outcome.hits[*other] > 0 => outcome.evidence[*other].clone(),
                Operand::Rule(_) | Operand::Finding(_) => None,
            });
            let said = said.filter(|text| !text.is_empty()).take(3).collect::<Vec<_>>().join(" \u{b7} ");
            outcome.hits[*rule] = 1;
            outcome.evidence[*rule] = Some(one_line(said.as_bytes()));
        }
        outcome
    }

    fn run_group(&self, group: &Group, targets: &Targets<'_>, outcome: &mut Outcome, scratch: &mut Scratch) {
        let made;
        let pieces = match &group.target {
            Target::Body => targets.body(),
            Target::RawBody => targets.raw_body(),
            Target::Full => targets.full(),
            Target::Uri => {
                made = targets.uri_pieces();
                &made
            }
            Target::MimeHeader(field) => {
                made = targets.mime_header(field);
                &made
            }
            Target::Header(field) => {
                let Some(text) = targets.header(field) else {
                    self.run_unset(group, outcome);
                    return;
                };
                made = Pieces { cuts: std::iter::once(0..text.len()).collect(), text };
                &made
            }
        };
        for (at, piece) in pieces.iter().enumerate() {
            for candidate in group.prefilter.candidates(piece, scratch) {
                let test = &group.tests[*candidate];
                let rule = &self.rules[test.rule];
                let hits = &mut outcome.hits[test.rule];
                if *hits >= rule.hits_max || (at == 0 && rule.no_subject && group.target == Target::Body) {
                    continue;
                }
                // Asking for the place costs a second pass: most candidates do not match at all.
                if !test.pattern.is_match(piece) {
                    continue;
                }
                let mut from = 0;
                while *hits < rule.hits_max
                    && let Some(found) = test.pattern.find(piece, from)
                {
                    *hits += 1;
                    let evidence = &mut outcome.evidence[test.rule];
                    if evidence.is_none() {
                        *evidence = Some(one_line(piece.get(found.clone()).unwrap_or_default()));
                    }
                    from = if found.is_empty() { found.end + 1 } else { found.end };
                    if rule.hits_max == 1 {
                        break;
                    }
                }
            }
        }
        for test in group.tests.iter().filter(|test| test.negated) {
            let hits = &mut outcome.hits[test.rule];
            *hits = u32::from(*hits == 0);
            outcome.evidence[test.rule] = None;
        }
    }

    /// The field is not there: `[if-unset: …]` stands in, and negated tests hold.
    fn run_unset(&self, group: &Group, outcome: &mut Outcome) {
        for test in &group.tests {
            let found = test.pattern.is_match(test.if_unset.as_deref().unwrap_or_default().as_bytes());
            outcome.hits[test.rule] = u32::from(found != test.negated);
        }
    }
}

fn one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..EVIDENCE_CHARS_MAX * 4).unwrap_or(bytes));
    let mut out = String::new();
    for (count, character) in text.trim().chars().enumerate() {
        if count >= EVIDENCE_CHARS_MAX {
            break;
        }
        out.push(if character.is_control() { ' ' } else { character });
    }
    out
}

/// Turns a [`Source`] into a [`RuleSet`].
struct Builder {
    source: Source,
    scores: ScoreSet,
    out: RuleSet,
    problems: Vec<Problem>,
    ids: HashMap<Arc<str>, usize>,
}

impl Builder {
    fn new(mut source: Source, scores: ScoreSet) -> Self {
        let problems = std::mem::take(&mut source.problems);
        Self { source, scores, out: RuleSet::default(), problems, ids: HashMap::new() }
    }

    fn problem(&mut self, at: &Location, severity: Severity, name: &Arc<str>, message: impl Into<String>) {
        self.problems.push(Problem::new(at, severity, Some(name), message));
    }

    fn build(&mut self) {
        let definitions = std::mem::take(&mut self.source.definitions);
        self.orphans(&definitions);
        let expressions = self.expressions(&definitions);
        let needed = self.needed(&definitions, &expressions);
        let mut groups: BTreeMap<&Target, (Vec<PatternTest>, Vec<regex_syntax::hir::Hir>)> = BTreeMap::new();
        for (name, definition) in &definitions {
            let Definition { at, test } = definition;
            match test {
                Test::Pattern { target, negated, if_unset, pattern } => match Pattern::compile(pattern) {
                    Err(message) => self.problem(at, Severity::Error, name, message),
                    Ok((pattern, hir)) if needed.contains(name) => {
                        let rule = self.add(name, at);
                        let (tests, hirs) = groups.entry(target).or_default();
                        tests.push(PatternTest { rule, pattern, negated: *negated, if_unset: if_unset.clone() });
                        hirs.push(hir);
                    }
                    Ok(_) => {}
                },
                Test::Exists(field) if needed.contains(name) => {
                    let rule = self.add(name, at);
                    self.out.exists.push((rule, field.clone()));
                }
                Test::Eval { function, arguments } => match eval::find(function) {
                    None => {
                        self.problem(
                            at,
                            Severity::Unsupported,
                            name,
                            format!("the function `{function}` is not there"),
                        );
                    }
                    Some(_) if let Some(choice) = eval::unknown_choice(function, arguments) => {
                        let message = format!("the function `{function}` cannot tell `{choice}`");
                        self.problem(at, Severity::Unsupported, name, message);
                    }
                    Some(found) if needed.contains(name) => {
                        let text = eval::pattern_argument(function).and_then(|at| arguments.get(at));
                        let pattern = match text.map(|text| Pattern::compile(&PatternText::plain(text))).transpose() {
                            Ok(compiled) => compiled.map(|(pattern, _)| pattern),
                            Err(message) => {
                                self.problem(at, Severity::Error, name, message);
                                continue;
                            }
                        };
                        let rule = self.add(name, at);
                        self.out.evals.push(EvalTest { rule, function: found, arguments: arguments.clone(), pattern });
                    }
                    Some(_) => {}
                },
                Test::Exists(_) | Test::Meta(_) => {}
            }
        }
        for (target, (tests, hirs)) in groups {
            let prefilter = Prefilter::of(&hirs);
            self.out.groups.push(Group { target: target.clone(), tests, prefilter });
        }
        self.metas(&definitions, &expressions, &needed);
    }

    /// Scores and descriptions of rules that no line defines are slips of the pen, or rules of another file.
    fn orphans(&mut self, definitions: &BTreeMap<Arc<str>, Definition>) {
        for sample in std::mem::take(&mut self.source.samples) {
            if !definitions.contains_key(sample.rule.as_str()) {
                let name: Arc<str> = sample.rule.as_str().into();
                self.problem(&sample.at, Severity::Warning, &name, "a test of a rule that is not defined");
            }
        }
    }

    fn expressions(&mut self, definitions: &BTreeMap<Arc<str>, Definition>) -> BTreeMap<Arc<str>, Expression> {
        let mut out = BTreeMap::new();
        for (name, definition) in definitions {
            let Test::Meta(text) = &definition.test else { continue };
            match Expression::parse(text) {
                Ok(expression) => {
                    out.insert(name.clone(), expression);
                }
                Err(message) if message.starts_with("the function") => {
                    self.problem(&definition.at, Severity::Unsupported, name, message);
                }
                Err(message) => self.problem(&definition.at, Severity::Error, name, message),
            }
        }
        out
    }

    fn score(&self, name: &str) -> Score {
        if let Some(scores) = self.source.scores.get(name) {
            return scores[self.scores as usize];
        }
        let nice = self.source.flags.get(name).is_some_and(|flags| flags.nice);
        match (name.starts_with("__"), name.starts_with("T_"), nice) {
            (true, ..) => Score::ZERO,
            (_, true, false) => Score(10),
            (_, true, true) => Score(-10),
            (_, _, false) => Score::points(1),
            (_, _, true) => Score::points(-1),
        }
    }

    /// The scored rules and all that feeds them.
    fn needed(
        &self,
        definitions: &BTreeMap<Arc<str>, Definition>,
        expressions: &BTreeMap<Arc<str>, Expression>,
    ) -> HashSet<Arc<str>> {
        let scored = |name: &&Arc<str>| !name.starts_with("__") && self.score(name) != Score::ZERO;
        let mut open: Vec<Arc<str>> = definitions.keys().filter(scored).cloned().collect();
        let mut out: HashSet<Arc<str>> = open.iter().cloned().collect();
        while let Some(name) = open.pop() {
            for below in expressions.get(&name).map(Expression::names).unwrap_or_default() {
                let runs = below.starts_with("__") || self.score(below) != Score::ZERO;
                if let Some((below, _)) = definitions.get_key_value(below.as_str()).filter(|_| runs)
                    && out.insert(below.clone())
                {
                    open.push(below.clone());
                }
            }
        }
        out
    }

    fn add(&mut self, name: &Arc<str>, at: &Location) -> usize {
        let flags = self.source.flags.get(&**name).cloned().unwrap_or(Flags::default());
        let described = self.source.descriptions.get(&**name).cloned();
        self.out.rules.push(Rule {
            name: name.clone(),
            at: at.clone(),
            score: self.score(name),
            description: described.unwrap_or_else(|| name.clone()),
            hits_max: if flags.multiple { flags.hits_max.unwrap_or(HITS_MAX).min(HITS_MAX) } else { 1 },
            no_subject: flags.no_subject,
        });
        self.ids.insert(name.clone(), self.out.rules.len() - 1);
        self.out.rules.len() - 1
    }

    fn metas(
        &mut self,
        definitions: &BTreeMap<Arc<str>, Definition>,
        expressions: &BTreeMap<Arc<str>, Expression>,
        needed: &HashSet<Arc<str>>,
    ) {
        let names: Vec<&Arc<str>> = expressions.keys().collect();
        let positions: HashMap<&str, usize> = names.iter().enumerate().map(|(at, name)| (&***name, at)).collect();
        let (order, cycles) = meta::order(names.len(), |at| {
            expressions[names[at]].names().iter().filter_map(|name| positions.get(name.as_str()).copied()).collect()
        });
        for cycle in cycles {
            let chain: Vec<&str> = cycle.iter().map(|at| &**names[*at]).collect();
            let first = names[cycle.first().copied().unwrap_or_default()];
            let message = format!("the rules need each other: {}", chain.join(" > "));
            self.problem(&definitions[first].at, Severity::Error, first, message);
        }
        for at in order {
            let name = names[at];
            let expression = &expressions[name];
            let location = &definitions[name].at;
            let mut operands = Vec::new();
            for below in expression.names() {
                operands.push(match self.ids.get(below.as_str()) {
                    Some(id) => Operand::Rule(*id),
                    None => Operand::Finding(below.clone()),
                });
                let known = definitions.contains_key(below.as_str())
                    || FINDINGS.iter().any(|start| below.trim_start_matches('_').starts_with(start));
                if !known && needed.contains(name) {
                    let message = format!("`{below}` is not defined: it counts as no hit");
                    self.problem(location, Severity::Warning, name, message);
                }
            }
            if needed.contains(name) {
                let rule = self.add(name, location);
                self.out.metas.push((rule, expression.clone(), operands));
            }
        }
    }
}
