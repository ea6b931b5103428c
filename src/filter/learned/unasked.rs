//! Which messages are learned without anybody's word: those of which everything else is sure.

use classifier::Class;
use policy::{Cause, Decision, Disposition, Finding, ReasonClass, Score, Stage};

use crate::history::is_of_history;
use crate::verdict::Judgement;

/// Points of other checks from which a message is surely spam; each half of a message must bring some of them.
const SPAM_MIN: Score = Score(8000);
const HALF_MIN: Score = Score(1000);
const FINDINGS_MIN: usize = 3;
/// A single finding of more is a doubt.
const DOUBT: Score = Score(500);

/// What a message is learned as; `None` for most. What was learned never proves itself: the classifier's own opinion adds
/// nothing, but an opposite one, a list, or who sent earlier mail, stands against it.
pub fn by_itself(judgement: &Judgement, decisions: &[Decision]) -> Option<Class> {
    let is_other = |finding: &&Finding| {
        !matches!(
            finding.class,
            ReasonClass::Classifier | ReasonClass::OwnList | ReasonClass::Sending | ReasonClass::Milter
        ) && !is_of_history(finding)
    };
    let own: Vec<&Finding> = judgement.findings.iter().filter(is_other).collect();
    let sum = |which: &dyn Fn(&Finding) -> bool| -> Score {
        own.iter().filter(|finding| which(finding)).map(|finding| finding.score).sum()
    };
    let score = sum(&|_| true);
    let opinion: Score = judgement
        .findings
        .iter()
        .filter(|finding| finding.class == ReasonClass::Classifier)
        .map(|finding| finding.score)
        .sum();
    let all = |is: fn(&Decision) -> bool| !decisions.is_empty() && decisions.iter().all(is);
    let of_body = sum(&|finding| finding.stage == Stage::Body);
    let of_rest = sum(&|finding| finding.stage != Stage::Body);
    let strikes = own.iter().filter(|finding| finding.score > Score::ZERO).count();
    if score >= SPAM_MIN
        && of_body >= HALF_MIN
        && of_rest >= HALF_MIN
        && strikes >= FINDINGS_MIN
        && opinion >= Score::ZERO
        && all(is_kept_out)
    {
        return Some(Class::Spam);
    }
    let is_trusted = judgement.sender.is_author_proven
        && judgement.findings.iter().any(|finding| &*finding.name == "HISTORY_GOOD")
        && own.iter().all(|finding| finding.score < DOUBT);
    (is_trusted && score <= Score::ZERO && opinion <= Score::ZERO && all(is_let_in)).then_some(Class::Ham)
}

fn is_kept_out(decision: &Decision) -> bool {
    matches!(decision.cause, Cause::Score { .. })
        && matches!(decision.disposition, Disposition::Junk | Disposition::Quarantine | Disposition::Reject(_))
}

fn is_let_in(decision: &Decision) -> bool {
    decision.cause == Cause::Nothing && decision.disposition == Disposition::Deliver
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Seen;
    use policy::{EffectivePolicy, SenderFacts};

    fn finding(text: &str) -> Finding {
        let mut words = text.split(' ');
        let (name, score) = (words.next().unwrap(), words.next().unwrap().parse().unwrap());
        let class = if name.starts_with("CLASSIFIER") { ReasonClass::Classifier } else { ReasonClass::Content };
        let stage = if words.next() == Some("body") { Stage::Body } else { Stage::Header };
        let (description, evidence) = (name.into(), String::new());
        Finding { stage, name: name.into(), score, class, description, evidence }
    }

    fn learned(findings: &[&str], is_author_proven: bool) -> Option<Class> {
        let policy = EffectivePolicy::defaults();
        let findings = findings.iter().map(|text| finding(text)).collect();
        let sender = SenderFacts { is_author_proven, ..SenderFacts::default() };
        let judgement = Judgement::of(Seen { findings, sender, ..Seen::default() }, &policy);
        by_itself(&judgement, &[policy::decide(&policy, &judgement.facts())])
    }

    #[test]
    fn only_the_sure_are_learned() {
        let spam = ["A 3", "B 3 body", "C 2.5 body"];
        assert_eq!(learned(&spam, false), Some(Class::Spam));
        let also = |more: &'static str| [&spam[..], &[more]].concat();
        assert_eq!(learned(&also("CLASSIFIER_SPAM 5"), false), Some(Class::Spam));
        assert_eq!(learned(&also("CLASSIFIER_HAM -1"), false), None);
        assert_eq!(learned(&["A 3", "B 3 body", "CLASSIFIER_SPAM 8"], false), None);
        assert_eq!(learned(&["A 3", "B 3", "C 4"], false), None, "nothing in its text");
        assert_eq!(learned(&["A 2", "B 7 body"], false), None, "two findings");
        assert_eq!(learned(&["A 3", "B 2 body", "HISTORY_BAD 3"], false), None, "its sender's past");
        let ham = ["A -0.2", "HISTORY_GOOD -1.5"];
        assert_eq!(learned(&ham, true), Some(Class::Ham));
        assert_eq!(learned(&ham, false), None, "nobody proves it");
        assert_eq!(learned(&["A -0.2"], true), None, "a stranger");
        assert_eq!(learned(&["A -0.6", "B 0.5", "HISTORY_GOOD -1.5"], true), None, "a doubt");
        assert_eq!(learned(&["HISTORY_GOOD -1.5", "CLASSIFIER_SPAM 1"], true), None);
    }
}
