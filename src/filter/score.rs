//! From rule hits to findings and one score.

use policy::{Finding, Score};

use crate::rules::{RuleSet, Targets};

/// Every rule that hit, as findings, and their sum.
pub fn by_rules(rules: &RuleSet, targets: &Targets<'_>) -> (Vec<Finding>, Score) {
    let findings: Vec<Finding> = rules.judge(targets).into_iter().map(Finding::from).collect();
    let score = findings.iter().map(|finding| finding.score).sum();
    (findings, score)
}
