//! Whether an account sends as its owner does, or as somebody who has its password.

use policy::{Finding, ReasonClass, Score};
use reputation::{Amount, Kind, Reputation, Subject};

use crate::countries::Country;
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
    /// Where it is now, if that is known.
    pub country: Option<Country>,
    /// It never sent from there.
    pub is_new_country: bool,
    /// Countries from which it was used within hours, this one included.
    pub countries: u64,
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
    if let Some(country) = facts.country {
        let is_known = facts.days >= DAYS_KNOWN;
        if facts.is_new_country && is_known {
            let description = "Sends from a country from which it never sent";
            add("SENDING_NEW_COUNTRY", 1.0, description, country.to_string());
        }
        // At home and in one's own other network abroad is nothing; a third country within hours is.
        if facts.countries >= 3 || (facts.countries == 2 && facts.is_new_country && is_known) {
            #[expect(clippy::cast_precision_loss, reason = "a few countries")]
            let points = 1.5 * (facts.countries - 1) as f64;
            let evidence = format!("{} countries within hours, now {country}", facts.countries);
            add("SENDING_COUNTRIES", points.min(6.0), "Its account is used from several countries at once", evidence);
        }
    }
    out
}

/// Writes down that an account was used from a country. Where it was not lately, it counts as one more.
pub async fn used_from(reputation: &Reputation, account: &str, country: Country) {
    let lately = Subject::of(Kind::CountryLately, &[account, country.as_str()]);
    let Some(known) = reputation.of(&[lately]).await else { return };
    reputation.add(lately, Amount::GOOD);
    if !known.iter().any(reputation::Record::is_known) {
        reputation.add(Subject::of(Kind::Countries, &[account]), Amount::GOOD);
    }
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
    fn nobody_is_in_many_countries_at_once() {
        let at = |country: &str, is_new_country: bool, countries: u64| {
            let country = Country::from_code(country);
            told(SendingFacts { country, is_new_country, countries, days: 20, ..SendingFacts::default() })
        };
        let nothing: Vec<String> = Vec::new();
        assert_eq!(at("IT", false, 1), nothing);
        assert_eq!(at("AT", false, 2), nothing, "over the border and back");
        assert_eq!(at("PT", true, 1), ["SENDING_NEW_COUNTRY 1.0"]);
        assert_eq!(at("NG", true, 2), ["SENDING_NEW_COUNTRY 1.0", "SENDING_COUNTRIES 1.5"]);
        assert_eq!(at("BR", false, 3), ["SENDING_COUNTRIES 3.0"]);
        assert_eq!(at("BR", true, 9), ["SENDING_NEW_COUNTRY 1.0", "SENDING_COUNTRIES 6.0"]);
        // Of an account that hardly ever sent, no country is known.
        let young = SendingFacts { country: Country::from_code("BR"), is_new_country: true, ..SendingFacts::default() };
        assert_eq!(told(SendingFacts { countries: 2, ..young }), nothing);
        assert_eq!(told(SendingFacts { countries: 4, ..young }), ["SENDING_COUNTRIES 4.5"]);
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
            ..SendingFacts::default()
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
