//! Rules made from what rule files say: compiled, put in order, and what cannot be.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use policy::{ReasonClass, Score, Stage};

use super::answer::Subtest;
use super::eval;
use super::filled::{self, Catcher, Filled};
use super::meta::{self, Expression};
use super::net::{self, NetRule, Scope};
use super::parse::{Definition, Flags, Source, Target, Test};
use super::prefilter;
use super::problem::{Location, Problem, Severity};
use super::regex::{Pattern, PatternText};
use super::set::{EvalTest, Group, HITS_MAX, Keep, Meta, Operand, PatternTest, Rule, RuleSet, ScoreSet};

/// Findings of other checks that `meta` rules may name without defining them.
const FINDINGS: &[&str] =
    &["SPF_", "DKIM_", "DMARC_", "ARC_", "RCVD_IN_", "URIBL_", "BAYES_", "IPREV_", "VIRUS_", "ATTACH_", "CLASSIFIER_"];

/// A pattern of so many bytes takes long to look for, as one does for which no literal can be looked for.
const LATE_BYTES_MIN: usize = 400;

/// Tests of one target, with what their prefilter is made from.
type Tests = (Vec<PatternTest>, prefilter::Builder);

/// Turns a [`Source`] into a [`RuleSet`].
pub struct Builder {
    source: Source,
    scores: ScoreSet,
    keep: Keep,
    out: RuleSet,
    problems: Vec<Problem>,
    ids: HashMap<Arc<str>, usize>,
}

impl Builder {
    pub fn new(mut source: Source, scores: ScoreSet, keep: Keep) -> Self {
        let problems = std::mem::take(&mut source.problems);
        Self { source, scores, keep, out: RuleSet::default(), problems, ids: HashMap::new() }
    }

    fn problem(&mut self, at: &Location, severity: Severity, name: &Arc<str>, message: impl Into<String>) {
        self.problems.push(Problem::new(at, severity, Some(name), message));
    }

    pub fn build(mut self) -> (RuleSet, Vec<Problem>) {
        let definitions = std::mem::take(&mut self.source.definitions);
        self.orphans(&definitions);
        let expressions = self.expressions(&definitions);
        let needed = self.needed(&definitions, &expressions);
        let mut groups: BTreeMap<&Target, Tests> = BTreeMap::new();
        for (name, definition) in &definitions {
            self.add_test(name, definition, needed.contains(name), &mut groups);
        }
        for (target, (mut tests, prefilter)) in groups {
            tests.shrink_to_fit();
            let prefilter = prefilter.build();
            self.out.groups.push(Group { target: target.clone(), tests, prefilter });
        }
        self.catchers(&definitions);
        self.metas(&definitions, &expressions, &needed);
        let gone = definitions.keys().filter(|name| !name.starts_with("__") && !self.ids.contains_key(*name));
        let lost = gone.map(|name| self.score(name)).filter(|score| *score > Score::ZERO);
        self.out.lost = lost.fold(Score::ZERO, |sum, score| sum + score);
        let Self { mut out, mut problems, source, .. } = self;
        out.lists = eval::Lists::of(source.lists);
        out.scores_bayes = out.rules.iter().any(|rule| rule.name.starts_with("BAYES_") && rule.score != Score::ZERO);
        out.settings = source.settings;
        out.required_score = source.required_score;
        problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        (out, problems)
    }

    fn add_test<'d>(
        &mut self,
        name: &Arc<str>,
        definition: &'d Definition,
        needed: bool,
        groups: &mut BTreeMap<&'d Target, Tests>,
    ) {
        let Definition { at, test } = definition;
        match test {
            Test::Pattern { target, negated, pattern, .. } if !filled::asked(&pattern.pattern).is_empty() => {
                // Any text in the places of names, so that what is wrong is told.
                match Pattern::compile(&filled::filled(pattern, |_| b"x")) {
                    Err(message) => self.problem(at, Severity::Error, name, message),
                    Ok(_) if needed => {
                        let rule = self.add(name, at, stage_of(target));
                        let (names, pattern) = (filled::asked(&pattern.pattern), pattern.clone());
                        let (target, negated) = (target.clone(), *negated);
                        self.out.filled.push(Filled { rule, target, negated, pattern, names });
                    }
                    Ok(_) => {}
                }
            }
            Test::Pattern { target, negated, if_unset, pattern } => match Pattern::compile(pattern) {
                Err(message) => self.problem(at, Severity::Error, name, message),
                Ok((pattern, _))
                    if self.keep == Keep::All
                        && let Err(message) = pattern.verify() =>
                {
                    self.problem(at, Severity::Error, name, message);
                }
                Ok((pattern, hir)) if needed => {
                    let rule = self.add(name, at, stage_of(target));
                    let (tests, prefilter) = groups.entry(target).or_default();
                    // Most patterns match no empty text, which can be told without engines.
                    let may_be_empty = hir.properties().minimum_len().is_none_or(|length| length == 0);
                    let text = if_unset.as_deref().unwrap_or_default();
                    let found = (may_be_empty || !text.is_empty()) && pattern.is_match(text.as_bytes());
                    let is_costly = !prefilter.add(&hir) || pattern.bytes() >= LATE_BYTES_MIN;
                    let is_text = matches!(target, Target::Body | Target::RawBody | Target::Full);
                    let is_late = is_costly && is_text && !*negated && name.starts_with("__");
                    let when_unset = found != *negated;
                    tests.push(PatternTest { rule, pattern, negated: *negated, when_unset, is_late });
                }
                Ok(_) => {}
            },
            Test::Exists(field) if needed => {
                let rule = self.add(name, at, Stage::Header);
                self.out.exists.push((rule, field.clone()));
            }
            Test::Link(tests) => {
                let compiled: Result<Vec<_>, String> =
                    tests.iter().map(|test| Ok((test.clone(), Pattern::compile(&test.pattern)?.0))).collect();
                match compiled {
                    Err(message) => self.problem(at, Severity::Error, name, message),
                    Ok(compiled) if needed => {
                        let rule = self.add(name, at, Stage::Body);
                        self.out.link_tests.push((rule, compiled));
                    }
                    Ok(_) => {}
                }
            }
            Test::Eval { function, arguments } => self.add_eval(name, at, (function, arguments), needed),
            Test::Net => {
                if let Some(question) = self.source.questions.get(name).cloned().filter(|_| needed) {
                    self.ask(name, at, question);
                }
            }
            Test::Exists(_) | Test::Meta(_) => {}
        }
    }

    /// Whatever catches a name that a rule is filled in with, whether it scores or not.
    fn catchers(&mut self, definitions: &BTreeMap<Arc<str>, Definition>) {
        let asked: HashSet<&str> = self.out.filled.iter().flat_map(|rule| &rule.names).map(String::as_str).collect();
        let mut found = Vec::new();
        for definition in definitions.values() {
            if let Test::Pattern { target, negated: false, pattern, .. } = &definition.test
                && filled::caught(&pattern.pattern).any(|name| asked.contains(name))
                && let Ok((pattern, _)) = Pattern::compile(pattern)
            {
                found.push(Catcher { target: target.clone(), pattern });
            }
        }
        self.out.catchers = found;
    }

    fn ask(&mut self, name: &Arc<str>, at: &Location, question: net::Question) {
        let subtest = match Subtest::of(&question) {
            Ok(subtest) => subtest,
            Err(message) => return self.problem(at, Severity::Error, name, message),
        };
        let words = self.source.flags.get(&**name).map_or(&[][..], |flags| &flags.words);
        let scope = Scope::of(words);
        let is_shipped = self.source.shipped_files.contains(&at.file);
        let rule = self.add(name, at, Stage::EndOfMessage);
        if let Some(rule) = self.out.rules.get_mut(rule) {
            // Who sends is no matter of words: the classifier sees something else.
            rule.yields = false;
            rule.class = ReasonClass::Reputation;
        }
        self.out.asked.push(rule);
        self.out.questions.push(NetRule { rule: name.clone(), question, subtest, scope, is_shipped });
    }

    /// The question of a rule, wherever it stands.
    fn question(&self, name: &str, definition: &Definition) -> Option<net::Question> {
        let written = self.source.questions.get(name).cloned();
        written.or_else(|| match &definition.test {
            Test::Eval { function, arguments } => net::question(function, arguments),
            Test::Pattern { .. } | Test::Exists(_) | Test::Meta(_) | Test::Link(_) | Test::Net => None,
        })
    }

    /// Rules that ask what others only read: `check_rbl` for each `check_rbl_sub` of its set that runs.
    fn askers(&self, definitions: &BTreeMap<Arc<str>, Definition>, needed: &HashSet<Arc<str>>) -> Vec<Arc<str>> {
        let read: HashSet<String> = needed
            .iter()
            .filter_map(|name| match self.question(name, definitions.get(name)?)? {
                net::Question::RelaySub { set, .. } => Some(set),
                _ => None,
            })
            .collect();
        let asks = |question: &net::Question| match question {
            net::Question::Relay { set, .. } | net::Question::Sender { set, .. } => read.contains(set),
            _ => false,
        };
        let runs = |name: &str| name.starts_with("__") || self.score(name) != Score::ZERO;
        let found = definitions.iter().filter(|(name, definition)| {
            !read.is_empty() && runs(name) && self.question(name, definition).is_some_and(|question| asks(&question))
        });
        found.map(|(name, _)| name.clone()).collect()
    }

    fn add_eval(&mut self, name: &Arc<str>, at: &Location, (function, arguments): (&str, &[String]), needed: bool) {
        // `body X eval:check_uridnsbl('X')` only says that a line elsewhere asks for X.
        let asked = self.source.questions.get(name).cloned().or_else(|| net::question(function, arguments));
        if let Some(question) = asked {
            if needed {
                self.ask(name, at, question);
            }
            return;
        }
        let Some(found) = eval::find(function) else {
            let cost = self.cost(name);
            let message = format!("the function `{function}` is not there{cost}");
            self.problem(at, Severity::Unsupported, name, message);
            return;
        };
        if let Some(choice) = eval::unknown_choice(function, arguments) {
            let cost = self.cost(name);
            let message = format!("the function `{function}` cannot tell `{choice}`{cost}");
            self.problem(at, Severity::Unsupported, name, message);
            return;
        }
        if !needed {
            return;
        }
        let text = eval::pattern_argument(function).and_then(|at| arguments.get(at));
        match text.map(|text| Pattern::compile(&PatternText::plain(text))).transpose() {
            Ok(compiled) => {
                let rule = self.add(name, at, Stage::EndOfMessage);
                let pattern = compiled.map(|(pattern, _)| pattern);
                self.out.evals.push(EvalTest { rule, function: found, arguments: arguments.to_vec(), pattern });
            }
            Err(message) => self.problem(at, Severity::Error, name, message),
        }
    }

    /// What the set loses without the rule.
    fn cost(&self, name: &str) -> String {
        let score = self.score(name);
        if score == Score::ZERO { String::new() } else { format!(" (costs {score})") }
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
            match self.without_globs(text, definitions).and_then(|text| Expression::parse(&text)) {
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

    /// `rules_matching(__X_*)` is the sum of these rules.
    fn without_globs(&self, text: &str, definitions: &BTreeMap<Arc<str>, Definition>) -> Result<String, String> {
        const MARK: &str = "rules_matching(";
        let mut out = String::new();
        let mut rest = text;
        while let Some((head, tail)) = rest.split_once(MARK) {
            let (glob, after) = tail.split_once(')').ok_or("a bracket is not closed")?;
            let glob = glob.trim().as_bytes();
            let names = definitions.keys().filter(|name| eval::glob(glob, name.as_bytes())).map(|name| &**name);
            let names: Vec<&str> = names.collect();
            out.push_str(head);
            out.push_str(&format!("({})", if names.is_empty() { "0".to_owned() } else { names.join("+") }));
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
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
        let is_sub = |name: &str| name.starts_with("__");
        let scored = |name: &&Arc<str>| {
            if is_sub(name) { self.keep == Keep::All } else { self.score(name) != Score::ZERO }
        };
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
        out.extend(self.askers(definitions, &out));
        out
    }

    /// `stage`: the part of the message that it looks at, as far as it is one.
    fn add(&mut self, name: &Arc<str>, at: &Location, stage: Stage) -> usize {
        let flags = self.source.flags.get(&**name).cloned().unwrap_or(Flags::default());
        let described = self.source.descriptions.get(&**name).cloned();
        let (shipped, scores) = (self.source.shipped.get(&**name), self.source.scores.get(&**name));
        let yields = self.score(name) > Score::ZERO && shipped.is_some() && shipped == scores;
        self.out.rules.push(Rule {
            name: name.clone(),
            at: at.clone(),
            score: self.score(name),
            description: described.unwrap_or_else(|| name.clone()),
            hits_max: if flags.multiple { flags.hits_max.unwrap_or(HITS_MAX).min(HITS_MAX) } else { 1 },
            no_subject: flags.no_subject,
            yields,
            class: ReasonClass::Content,
            stage,
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
                let rule = self.add(name, location, Stage::EndOfMessage);
                let names_findings = operands.iter().any(|operand| matches!(operand, Operand::Finding(_)));
                let value = expression.value(|_| 0.0, &mut Vec::new());
                self.out.unfed.push(names_findings || value != 0.0);
                let needs = expression.required().into_iter().filter_map(|at| match operands.get(at)? {
                    Operand::Rule(rule) => Some(*rule),
                    Operand::Finding(_) => None,
                });
                let needs = needs.collect();
                self.out.metas.push(Meta { rule, expression: expression.clone(), operands, needs });
            }
        }
        self.connect();
    }

    /// Which metas each rule is for.
    fn connect(&mut self) {
        let RuleSet { rules, metas, feeds, users, meta_of, .. } = &mut self.out;
        *feeds = vec![Vec::new(); rules.len()];
        users.clone_from(feeds);
        *meta_of = vec![None; rules.len()];
        for (at, Meta { rule, operands, needs, .. }) in metas.iter().enumerate() {
            meta_of[*rule] = Some(at);
            let all = operands.iter().filter_map(|operand| match operand {
                Operand::Rule(rule) => Some(*rule),
                Operand::Finding(_) => None,
            });
            let all: Vec<usize> = all.collect();
            all.iter().for_each(|rule| users[*rule].push(at));
            // What needs a rule need not be looked at before that has hit.
            let feeding = needs.last().map_or(all.as_slice(), std::slice::from_ref);
            feeding.iter().for_each(|rule| feeds[*rule].push(at));
        }
    }
}

fn stage_of(target: &Target) -> Stage {
    match target {
        Target::Header(_) => Stage::Header,
        Target::MimeHeader(..) | Target::Body | Target::RawBody | Target::Uri | Target::Full => Stage::Body,
    }
}
