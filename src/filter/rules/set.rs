//! A set of rules, compiled and put in order, and how it judges.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use policy::{Finding, ReasonClass, Score, Stage};

use super::build::Builder;
use super::eval::{Call, Function, Lists};
use super::filled::{self, Catcher, Filled};
use super::late::Prospect;
use super::meta::Expression;
use super::net::NetRule;
use super::parse::{Field, LinkPart, LinkTest, Source, Target};
use super::prefilter::{Prefilter, Scratch};
use super::problem::{Location, Problem};
use super::regex::{Memory, Pattern};
use super::settings::Settings;
use super::target::{Context, Pieces, Targets};
use super::{LoadError, read};
use crate::url::Link;

/// Which of a rule's four scores counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ScoreSet {
    #[default]
    Local = 0,
    Network = 1,
    Bayes = 2,
    BayesAndNetwork = 3,
}

/// Which rules a set holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Keep {
    /// Those that score, and what feeds them.
    #[default]
    Needed,
    /// All but those whose score is zero: for tests of rules.
    All,
}

/// Compiled rules. Immutable; share it by `Arc`.
#[derive(Debug, Default)]
pub struct RuleSet {
    pub(super) rules: Vec<Rule>,
    pub(super) groups: Vec<Group>,
    pub(super) exists: Vec<(usize, Field)>,
    pub(super) evals: Vec<EvalTest>,
    pub(super) filled: Vec<Filled>,
    pub(super) catchers: Vec<Catcher>,
    /// In an order in which each comes after those it needs.
    pub(super) metas: Vec<Meta>,
    /// For each rule: the metas that are to be looked at once it has hit, by position.
    pub(super) feeds: Vec<Vec<usize>>,
    /// For each rule: the metas that name it, by position.
    pub(super) users: Vec<Vec<usize>>,
    /// For each rule: its position in `metas`, if it is one.
    pub(super) meta_of: Vec<Option<usize>>,
    /// Metas that have to be looked at even if nothing that feeds them has hit.
    pub(super) unfed: Vec<bool>,
    pub(super) link_tests: Vec<(usize, Vec<(LinkTest, Pattern)>)>,
    /// Rules that other checks answer, in [`super::Context::listed`] or by name in [`super::Context::findings`].
    pub(super) asked: Vec<usize>,
    pub(super) questions: Vec<NetRule>,
    pub(super) lists: Lists,
    pub(super) scores_bayes: bool,
    pub(super) settings: Settings,
    pub(super) required_score: Option<Score>,
    pub(super) lost: Score,
}

/// One rule that hit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hit {
    pub rule: Arc<str>,
    pub score: Score,
    pub description: Arc<str>,
    /// What it matched: one line of at most 200 characters, may be empty.
    pub evidence: String,
    /// True if its score is the product's own and speaks for spam: it counts less where a classifier was taught.
    pub yields: bool,
    pub class: ReasonClass,
    /// The part of the message that it looks at: header or body; the whole for one that combines or counts.
    pub stage: Stage,
}

impl From<Hit> for Finding {
    fn from(hit: Hit) -> Self {
        Self {
            stage: hit.stage,
            name: hit.rule,
            score: hit.score,
            class: hit.class,
            description: hit.description,
            evidence: hit.evidence,
        }
    }
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: Arc<str>,
    pub(super) at: Location,
    pub(super) score: Score,
    pub(super) description: Arc<str>,
    /// Most hits that count: 1 without `tflags multiple`.
    pub(super) hits_max: u32,
    pub(super) no_subject: bool,
    pub(super) yields: bool,
    pub(super) stage: Stage,
    pub(super) class: ReasonClass,
}

/// Patterns that look at the same text.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) target: Target,
    pub(super) tests: Vec<PatternTest>,
    pub(super) prefilter: Prefilter,
}

#[derive(Debug)]
pub(super) struct PatternTest {
    pub(super) rule: usize,
    pub(super) pattern: Pattern,
    pub(super) negated: bool,
    /// The outcome where there is no such field.
    pub(super) when_unset: bool,
    /// It costs much and only feeds others: it is looked for last, and only where it matters.
    pub(super) is_late: bool,
}

#[derive(Debug)]
pub(super) struct EvalTest {
    pub(super) rule: usize,
    pub(super) function: Function,
    pub(super) arguments: Vec<String>,
    pub(super) pattern: Option<Pattern>,
}

/// A `meta` rule.
#[derive(Debug)]
pub(super) struct Meta {
    pub(super) rule: usize,
    pub(super) expression: Expression,
    pub(super) operands: Vec<Operand>,
    /// Rules without which it cannot hit.
    pub(super) needs: Vec<usize>,
}

/// What a name in a `meta` rule stands for.
#[derive(Debug)]
pub(super) enum Operand {
    Rule(usize),
    /// Another check's finding.
    Finding(String),
}

/// What one message did to the rules.
#[derive(Debug)]
struct Outcome {
    hits: Vec<f64>,
    evidence: Vec<Option<String>>,
}

/// Which rules have to be looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Run {
    /// Those that only feed others, where it makes a difference.
    WhatMatters,
    All,
}

/// A test that may match a text, put off.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Late {
    group: usize,
    test: usize,
    piece: usize,
}

/// Matches counted of a rule with `tflags multiple` and no limit of its own.
pub(super) const HITS_MAX: u32 = 1000;
const EVIDENCE_CHARS_MAX: usize = 200;

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
        Self::compile_with(source, scores, Keep::default())
    }

    pub fn compile_with(source: Source, scores: ScoreSet, keep: Keep) -> (Self, Vec<Problem>) {
        Builder::new(source, scores, keep).build()
    }

    /// Rules that run.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Sum of the positive scores of all rules that run.
    pub fn positive_score(&self) -> Score {
        let scores = self.rules.iter().filter(|rule| !rule.name.starts_with("__")).map(|rule| rule.score);
        scores.filter(|score| *score > Score::ZERO).fold(Score::ZERO, |sum, score| sum + score)
    }

    /// The same of rules that are defined but cannot run.
    pub fn lost_score(&self) -> Score {
        self.lost
    }

    /// True if rules here score what the classifier says (`check_bayes`).
    pub fn scores_bayes(&self) -> bool {
        self.scores_bayes
    }

    /// From `required_score`, if the files set it.
    pub fn required_score(&self) -> Option<Score> {
        self.required_score
    }

    /// Settings that change how messages are read, for [`super::Context::settings`].
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What rules ask of DNS and of services. Who has asked gives the rules that hit in
    /// [`super::Context::listed`].
    pub fn questions(&self) -> &[NetRule] {
        &self.questions
    }

    /// Names of all rules that run, with where they are defined.
    pub fn names(&self) -> impl Iterator<Item = (&str, &Location)> {
        self.rules.iter().map(|rule| (&*rule.name, &rule.at))
    }

    /// The scored rules that hit, in order of name. Never fails and is bounded in time by the targets' limits.
    pub fn judge(&self, targets: &Targets<'_>) -> Vec<Hit> {
        self.told(self.run(targets, Run::WhatMatters))
    }

    /// The same after all rules have run, those too that cannot matter: for tests of this engine.
    pub fn judge_by_all(&self, targets: &Targets<'_>) -> Vec<Hit> {
        self.told(self.run(targets, Run::All))
    }

    fn told(&self, mut outcome: Outcome) -> Vec<Hit> {
        let mut out = Vec::new();
        for (at, rule) in self.rules.iter().enumerate() {
            if outcome.hits[at] == 0.0 || rule.name.starts_with("__") {
                continue;
            }
            out.push(Hit {
                rule: rule.name.clone(),
                score: rule.score,
                description: rule.description.clone(),
                evidence: outcome.evidence[at].take().unwrap_or_default(),
                yields: rule.yields,
                stage: rule.stage,
                class: rule.class,
            });
        }
        out
    }

    /// How often each rule hit, sub-rules included: for tests of rules.
    pub fn matches(&self, targets: &Targets<'_>) -> BTreeMap<Arc<str>, f64> {
        let outcome = self.run(targets, Run::All);
        let hits = self.rules.iter().zip(outcome.hits).filter(|(_, hits)| *hits != 0.0);
        hits.map(|(rule, hits)| (rule.name.clone(), hits)).collect()
    }

    fn run(&self, targets: &Targets<'_>, run: Run) -> Outcome {
        let mut outcome = Outcome { hits: vec![0.0; self.rules.len()], evidence: vec![None; self.rules.len()] };
        let (mut scratch, mut late) = (Scratch::default(), Vec::new());
        for group in 0..self.groups.len() {
            self.run_group(group, targets, &mut outcome, &mut scratch, &mut late);
        }
        for (rule, field) in &self.exists {
            outcome.hits[*rule] = truth(targets.header(field).is_some());
        }
        for test in &self.evals {
            let (arguments, pattern) = (&test.arguments, test.pattern.as_ref());
            let call = Call { targets, arguments, pattern, lists: &self.lists };
            if let Some(evidence) = (test.function)(&call) {
                outcome.hits[test.rule] = 1.0;
                outcome.evidence[test.rule] = Some(one_line(evidence.as_bytes()));
            }
        }
        filled::run(&self.filled, &self.catchers, targets, |rule, found| {
            outcome.hits[rule] = 1.0;
            outcome.evidence[rule] = found.map(one_line);
        });
        for (rule, tests) in &self.link_tests {
            if let Some(link) = targets.links().as_slice().iter().find(|link| tests.iter().all(|test| fits(link, test)))
            {
                outcome.hits[*rule] = 1.0;
                outcome.evidence[*rule] = Some(one_line(link.url.as_bytes()));
            }
        }
        let Context { findings, listed, .. } = targets.context();
        for rule in self.asked.iter().filter(|_| !(findings.is_empty() && listed.is_empty())) {
            let name = &self.rules[*rule].name;
            let mut answers = listed.iter().filter(|one| one.rule == *name).peekable();
            outcome.hits[*rule] = truth(answers.peek().is_some() || findings.contains(&&**name));
            let said: Vec<&str> = answers.map(|one| one.evidence.as_str()).take(3).collect();
            outcome.evidence[*rule] = Some(one_line(said.join(" \u{b7} ").as_bytes()));
        }
        self.run_late(late, run, targets, &mut outcome, &mut scratch.memory);
        self.run_metas(targets, &mut outcome);
        outcome
    }

    /// Runs what was put off: on each text all tests that may match it.
    fn run_late(
        &self,
        mut late: Vec<Late>,
        run: Run,
        targets: &Targets<'_>,
        outcome: &mut Outcome,
        memory: &mut Memory,
    ) {
        late.sort_unstable();
        let of_test = |one: &Late, other: &Late| (one.group, one.test) == (other.group, other.test);
        let mut prospect = Prospect::of(self);
        let test_of = |late: &Late| self.groups.get(late.group).and_then(|group| group.tests.get(late.test));
        for first in late.chunk_by(of_test).filter_map(|chunk| test_of(chunk.first()?)) {
            prospect.put_off(first.rule);
        }
        for chunk in late.chunk_by(of_test) {
            let Some((first, test)) = chunk.first().and_then(|first| Some((first, test_of(first)?))) else { continue };
            let findings = targets.context().findings;
            if run == Run::All || prospect.matters(test.rule, &outcome.hits, findings) {
                let Some(pieces) = self.groups.get(first.group).and_then(|group| shared_pieces(&group.target, targets))
                else {
                    continue;
                };
                for late in chunk {
                    self.run_test(test, pieces.piece(late.piece), outcome, memory);
                }
            }
            prospect.settle(test.rule);
        }
    }

    fn run_metas(&self, targets: &Targets<'_>, outcome: &mut Outcome) {
        let mut stack = Vec::new();
        let mut touched = vec![false; self.metas.len()];
        let touch = |rule: usize, touched: &mut [bool]| {
            for meta in self.feeds.get(rule).into_iter().flatten() {
                touched[*meta] = true;
            }
        };
        for (rule, _) in outcome.hits.iter().enumerate().filter(|(_, hits)| **hits != 0.0) {
            touch(rule, &mut touched);
        }
        for (at, Meta { rule, expression, operands, needs }) in self.metas.iter().enumerate() {
            let may_hit = touched[at] || self.unfed[at];
            if !may_hit || needs.iter().any(|rule| outcome.hits[*rule] == 0.0) {
                continue;
            }
            let hits = |at: usize| match operands.get(at) {
                Some(Operand::Rule(other)) => outcome.hits[*other],
                Some(Operand::Finding(name)) => truth(targets.context().findings.contains(&name.as_str())),
                None => 0.0,
            };
            let value = expression.value(hits, &mut stack);
            if value == 0.0 {
                continue;
            }
            let said = operands.iter().filter_map(|operand| match operand {
                Operand::Rule(other) if outcome.hits[*other] != 0.0 => outcome.evidence[*other].clone(),
                Operand::Rule(_) | Operand::Finding(_) => None,
            });
            let said = said.filter(|text| !text.is_empty()).take(3).collect::<Vec<_>>().join(" \u{b7} ");
            // A sum counts as what it is, for the metas that look at it.
            outcome.hits[*rule] = if value > 0.0 { value } else { 1.0 };
            touch(*rule, &mut touched);
            outcome.evidence[*rule] = Some(one_line(said.as_bytes()));
        }
    }

    /// Runs the tests of a group; `late` gets those that are put off.
    fn run_group(
        &self,
        at: usize,
        targets: &Targets<'_>,
        outcome: &mut Outcome,
        scratch: &mut Scratch,
        late: &mut Vec<Late>,
    ) {
        let Some(group) = self.groups.get(at) else { return };
        let Some(pieces) = targets.seen_by(&group.target) else {
            for test in &group.tests {
                outcome.hits[test.rule] = truth(test.when_unset);
            }
            return;
        };
        for (piece_at, piece) in pieces.iter().enumerate() {
            let candidates = group.prefilter.candidates(piece, scratch);
            for candidate in &candidates {
                let test = &group.tests[*candidate];
                if piece_at == 0 && self.rules[test.rule].no_subject && group.target == Target::Body {
                    continue;
                }
                if test.is_late {
                    late.push(Late { group: at, test: *candidate, piece: piece_at });
                } else {
                    self.run_test(test, piece, outcome, &mut scratch.memory);
                }
            }
            scratch.reuse(candidates);
        }
        for test in group.tests.iter().filter(|test| test.negated) {
            let hits = &mut outcome.hits[test.rule];
            *hits = truth(*hits == 0.0);
            outcome.evidence[test.rule] = None;
        }
    }

    /// Counts the matches of one test in one text.
    fn run_test(&self, test: &PatternTest, piece: &[u8], outcome: &mut Outcome, memory: &mut Memory) {
        let hits_max = f64::from(self.rules[test.rule].hits_max);
        let hits = &mut outcome.hits[test.rule];
        let mut from = 0;
        while *hits < hits_max
            && let Some(found) = test.pattern.find(piece, from, memory)
        {
            *hits += 1.0;
            let evidence = &mut outcome.evidence[test.rule];
            if evidence.is_none() {
                *evidence = Some(one_line(piece.get(found.clone()).unwrap_or_default()));
            }
            from = if found.is_empty() { found.end + 1 } else { found.end };
        }
    }
}

/// The texts of a target that are made once for each message.
fn shared_pieces<'t>(target: &Target, targets: &'t Targets<'_>) -> Option<&'t Pieces> {
    match target {
        Target::Body => Some(targets.body()),
        Target::RawBody => Some(targets.raw_body()),
        Target::Full => Some(targets.full()),
        Target::Uri | Target::MimeHeader(..) | Target::Header(_) => None,
    }
}

const fn truth(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}

/// One condition of `uri_detail` on one link.
fn fits(link: &Link, (test, pattern): &(LinkTest, Pattern)) -> bool {
    let is = |text: &str| pattern.is_match(text.as_bytes());
    let found = match test.part {
        LinkPart::Raw => is(&link.url),
        LinkPart::Kind => link.kinds.iter().any(|text| is(text)),
        LinkPart::Form => link.forms.iter().any(|text| is(text)),
        LinkPart::Text => link.anchors.iter().any(|text| is(text)),
        LinkPart::Domain => link.hosts.iter().any(|(_, domain)| is(domain)),
        LinkPart::Host => link.hosts.iter().any(|(host, _)| is(host)),
    };
    found != test.negated
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
