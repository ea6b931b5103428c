//! Whether an account sends as its owner does, or as somebody who has its password.

use policy::{Finding, ReasonClass, Score};

use crate::proof;

/// How an account sends, this message included.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct SendingFacts {
    /// Recipients within an hour.
    pub hour: f64,
    /// Of them those to whom it never wrote.
    pub strangers: f64,
    /// Addresses within an hour that do not exist.
    pub unknown: f64,
    /// Recipients of its busiest earlier day.
    pub busiest_day: u64,
    /// Earlier days on which it sent.
    pub days: usize,
    /// It never sent from this network.
    pub is_new_place: bool,
    /// Networks within a day from which it never sent before.
    pub new_places: u64,
}

/// Nobody is asked to go slowly who writes to fewer within an hour.
const HOUR_FREE: f64 = 100.0;
/// An hour may be as busy as this share of the busiest day.
const HOUR_SHARE: f64 = 0.5;
/// Days on which an account sent until its networks are known.
const DAYS_KNOWN: usize = 3;

/// What speaks for a stolen password.
pub fn findings(facts: &SendingFacts) -> Vec<Finding> {
    let mut out = Vec::new();
    let mut add = |name: &str, points: f64, description: &str, evidence: String| {
        #[expect(clippy::cast_possible_truncation, reason = "a few points")]
        let score = Score((points * 10.0).round() as i32 * 100);
        if score > Score::ZERO {
            let finding = proof::finding(name, 0, description, &evidence);
            out.push(Finding { class: ReasonClass::Sending, score, ..finding });
        }
    };
    #[expect(clippy::cast_precision_loss, reason = "numbers of recipients")]
    let usual = HOUR_FREE.max(facts.busiest_day as f64 * HOUR_SHARE);
    if facts.hour > usual {
        // Twice as many: three points; eight times: seven.
        let points = 1.0 + 2.0 * (facts.hour / usual).log2();
        let evidence = format!("{:.0} recipients in an hour, at most {usual:.0} expected", facts.hour);
        add("SENDING_FAST", points.min(7.0), "Sends to many more than usual", evidence);
    }
    let share = if facts.hour > 0.0 { facts.strangers / facts.hour } else { 0.0 };
    if facts.strangers >= 20.0 && share >= 0.7 {
        let points = (facts.strangers / 20.0).log2() + 1.0;
        let evidence = format!("{:.0} of {:.0} recipients in an hour", facts.strangers, facts.hour);
        add("SENDING_STRANGERS", points.min(4.0), "Sends to people to whom it never wrote", evidence);
    }
    if facts.unknown >= 5.0 {
        let points = (facts.unknown / 5.0).log2() + 1.0;
        let evidence = format!("{:.0} in an hour", facts.unknown);
        add("SENDING_UNKNOWN", points.min(5.0), "Sends to addresses that do not exist", evidence);
    }
    if facts.is_new_place && facts.days >= DAYS_KNOWN {
        let (many, evidence) = (facts.new_places >= 3, format!("{} new networks today", facts.new_places));
        let points = if many { 3.0 } else { 1.0 };
        add("SENDING_NEW_PLACE", points, "Sends from a network from which it never sent", evidence);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(facts: SendingFacts) -> Vec<String> {
        findings(&facts).iter().map(|finding| format!("{} {}", finding.name, finding.score)).collect()
    }

    #[test]
    fn what_people_do_says_nothing() {
        let nobody: Vec<String> = Vec::new();
        assert_eq!(told(SendingFacts::default()), nobody);
        assert_eq!(told(SendingFacts { hour: 60.0, strangers: 19.0, unknown: 4.0, ..SendingFacts::default() }), nobody);
        // A club's newsletter, as every month; a first message from a hotel.
        assert_eq!(
            told(SendingFacts { hour: 400.0, strangers: 20.0, busiest_day: 900, days: 9, ..SendingFacts::default() }),
            nobody
        );
        let hotel = SendingFacts { hour: 1.0, is_new_place: true, new_places: 1, days: 20, ..SendingFacts::default() };
        assert_eq!(told(hotel), ["SENDING_NEW_PLACE 1.0"]);
        assert_eq!(told(SendingFacts { days: 1, ..hotel }), nobody);
    }

    #[test]
    fn what_thieves_do_adds_up() {
        let thief = SendingFacts {
            hour: 800.0,
            strangers: 790.0,
            unknown: 40.0,
            busiest_day: 30,
            days: 25,
            is_new_place: true,
            new_places: 6,
        };
        let names = ["SENDING_FAST 7.0", "SENDING_STRANGERS 4.0", "SENDING_UNKNOWN 4.0", "SENDING_NEW_PLACE 3.0"];
        assert_eq!(told(thief), names);
        // Slowly, but to strangers only, half of whom do not exist.
        assert_eq!(
            told(SendingFacts { hour: 80.0, strangers: 80.0, unknown: 80.0, ..thief }),
            ["SENDING_STRANGERS 3.0", "SENDING_UNKNOWN 5.0", "SENDING_NEW_PLACE 3.0"]
        );
    }
}
