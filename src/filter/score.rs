//! From rule hits to findings.

use policy::{Finding, Score};

use crate::rules::{RuleSet, Targets};

/// Shipped rules count for this share beside a classifier that was taught enough: both see the same words, and rules cannot
/// know whose mail it is. Measured: see DECISIONS.
const SHARE_BESIDE_CLASSIFIER: f64 = 0.4;

/// Every rule that hit. `trust`: how much the classifier is to be trusted, from 0 to 1.
pub fn by_rules(rules: &RuleSet, targets: &Targets<'_>, trust: f64) -> Vec<Finding> {
    let share = 1.0 - (1.0 - SHARE_BESIDE_CLASSIFIER) * trust.clamp(0.0, 1.0);
    let hits = rules.judge(targets).into_iter();
    hits.map(|hit| {
        let yields = hit.yields;
        let finding = Finding::from(hit);
        if yields { Finding { score: shared(finding.score, share), ..finding } } else { finding }
    })
    .collect()
}

fn shared(score: Score, share: f64) -> Score {
    #[expect(clippy::cast_possible_truncation, reason = "smaller than the score")]
    let thousandths = (f64::from(score.0) * share).round() as i32;
    Score(thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::parse::Source;
    use crate::rules::{Context, ScoreSet};

    #[test]
    fn shipped_scores_make_room_and_those_of_others_do_not() {
        let mut source = Source::default();
        source
            .read("shipped.cf", b"body A /hello/\nscore A 2\nbody B /hello/\nscore B 2\nbody C /hello/\nscore C -1\n");
        source.end_of_shipped();
        source.read("own.cf", b"score B 3\nbody D /hello/\nscore D 4\n");
        source.finish();
        let (rules, _) = RuleSet::compile(source, ScoreSet::default());
        let targets = Targets::of(b"Subject: x\r\n\r\nhello\r\n", Context::default());
        let scores = |trust| by_rules(&rules, &targets, trust).iter().map(|f| f.score.0).collect::<Vec<_>>();
        assert_eq!(scores(0.0), [2000, 3000, -1000, 4000]);
        assert_eq!(scores(0.5), [1400, 3000, -1000, 4000]);
        assert_eq!(scores(1.0), [800, 3000, -1000, 4000]);
    }
}
