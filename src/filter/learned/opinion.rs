//! An opinion as a finding.

use classifier::{Opinion, Weights};
use policy::{Finding, ReasonClass, Score, Stage};

use super::features::Features;
use crate::proof;

/// Most words shown as evidence.
const WORDS_MAX: usize = 8;
/// An opinion closer to none than this is not told, in log-odds.
const NOTHING: f64 = 0.5;

/// What the weights say of a message, with the words that say most; `None` if nothing.
pub fn finding(weights: &Weights, features: &Features, opinion: Opinion) -> Option<Finding> {
    if opinion.log_odds.abs() < NOTHING {
        return None;
    }
    let (name, description) = if opinion.log_odds > 0.0 {
        ("CLASSIFIER_SPAM", "Resembles mail that was learned as spam")
    } else {
        ("CLASSIFIER_HAM", "Resembles mail that was learned as wanted")
    };
    let evidence = evidence(weights, features, opinion);
    Some(of(name, points(opinion.log_odds), description, &evidence))
}

/// What an account's own lessons change of it: `own` is what they add to the opinion of all, in log-odds.
pub fn personal(weights: &Weights, numbers: &[u32], own: f64) -> Option<Finding> {
    let all = weights.opinion(numbers).log_odds;
    let change = Score(points(all + own).0 - points(all).0);
    let (name, description) = if change > Score::ZERO {
        ("CLASSIFIER_OWN_SPAM", "Resembles mail that you marked as spam")
    } else {
        ("CLASSIFIER_OWN_HAM", "Resembles mail that you marked as wanted")
    };
    (change != Score::ZERO).then(|| of(name, change, description, ""))
}

fn of(name: &str, score: Score, description: &str, evidence: &str) -> Finding {
    Finding {
        stage: Stage::EndOfMessage,
        class: ReasonClass::Classifier,
        score,
        ..proof::finding(name, 0, description, evidence)
    }
}

/// Points for log-odds: one each at first, fewer later; never so many that nothing else counts.
fn points(log_odds: f64) -> Score {
    let most = if log_odds > 0.0 { SPAM_MAX } else { HAM_MAX };
    #[expect(clippy::cast_possible_truncation, reason = "bounded by the most")]
    let thousandths = (most * (log_odds / SPREAD).tanh() * 1000.0).round() as i32;
    // Tenths: what is shown is what counts.
    Score(thousandths / 100 * 100)
}

const SPAM_MAX: f64 = 8.0;
const HAM_MAX: f64 = 5.0;
const SPREAD: f64 = 8.0;

/// The words that say most for the opinion, the strongest first.
fn evidence(weights: &Weights, features: &Features, opinion: Opinion) -> String {
    let all = features.as_slice().iter().zip(weights.weights(&features.numbers()));
    let told: Vec<(f64, &str)> = all
        .map(|(feature, weight)| (weight * opinion.log_odds.signum(), feature))
        .filter(|(weight, feature)| *weight > 0.0 && feature.kind.is_readable())
        .map(|(weight, feature)| (weight, features.text(feature)))
        .filter(|(_, text)| !text.is_empty())
        .collect();
    strongest(&told).join(" \u{b7} ")
}

/// The texts with the most weight, each once; the first of those with as much.
fn strongest<'t>(told: &[(f64, &'t str)]) -> Vec<&'t str> {
    let mut out: Vec<&str> = Vec::new();
    // Few are shown of a thousand, and most texts are there once: a part that is put in order is mostly enough.
    let mut most = 4 * WORDS_MAX;
    loop {
        let mut order: Vec<usize> = (0..told.len()).collect();
        let by_weight = |one: &usize, other: &usize| told[*other].0.total_cmp(&told[*one].0).then(one.cmp(other));
        if most < order.len() {
            order.select_nth_unstable_by(most, by_weight);
            order.truncate(most);
        }
        order.sort_unstable_by(by_weight);
        out.clear();
        for text in order.iter().map(|at| told[*at].1) {
            if out.len() < WORDS_MAX && !out.contains(&text) {
                out.push(text);
            }
        }
        if out.len() == WORDS_MAX || most >= told.len() {
            return out;
        }
        most *= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_texts_come_first_and_once() {
        let texts: Vec<String> = (0..500).map(|at| format!("t{}", at / 40)).collect();
        let mut told: Vec<(f64, &str)> = texts.iter().map(|text| (1.0, text.as_str())).collect();
        assert_eq!(strongest(&told), ["t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7"]);
        told[499].0 = 2.0;
        assert_eq!(strongest(&told)[..2], ["t12", "t0"]);
        assert_eq!(strongest(&told[..41]), ["t0", "t1"]);
    }

    #[test]
    fn points_grow_and_end() {
        let at = |log_odds| points(log_odds).as_f64();
        assert_eq!(at(0.0), 0.0);
        assert!(at(2.0) > 1.0 && at(5.0) > at(2.0) && at(100.0) == SPAM_MAX);
        assert!(at(-2.0) < -0.5 && at(-100.0) == -HAM_MAX);
        assert_eq!(points(3.3).0 % 100, 0);
    }
}
