//! Dates in header fields, read as leniently as SpamAssassin reads them, and the ids that hold such dates.

use super::target::Targets;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// Zones by name, as hours and minutes together.
const ZONES: &[(&str, i64)] = &[
    ("UT", 0),
    ("GMT", 0),
    ("UTC", 0),
    ("EDT", -400),
    ("EST", -500),
    ("CDT", -500),
    ("CST", -600),
    ("MDT", -600),
    ("MST", -700),
    ("PDT", -700),
    ("PST", -800),
    ("HST", -1000),
    ("AKST", -900),
    ("AKDT", -800),
    ("BST", 100),
    ("WET", 0),
    ("WEST", 100),
    ("CET", 100),
    ("CEST", 200),
    ("MET", 100),
    ("MEST", 200),
    ("MEZ", 100),
    ("MESZ", 200),
    ("EET", 200),
    ("EEST", 300),
    ("MSK", 300),
    ("MSD", 400),
    ("JST", 900),
    ("KST", 900),
    ("NZST", 1200),
    ("NZT", 1200),
    ("NZDT", 1300),
    ("AEST", 1000),
    ("AEDT", 1100),
    ("AWST", 800),
    ("HKT", 800),
    ("SGT", 800),
    ("IST", 530),
    ("ART", -300),
    ("BRST", -200),
    ("BRT", -300),
    ("SAST", 200),
];

/// Seconds since 1970. Days and hours beyond their range are moved into it.
pub fn parse(text: &str) -> Option<i64> {
    let text = text.replace(',', " ");
    let words: Vec<&str> = text.split_whitespace().take(40).collect();
    let number = |word: &str| -> Option<i64> {
        if word.len() <= 4 && !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()) {
            word.parse().ok()
        } else {
            None
        }
    };
    let month = |word: &str| MONTHS.iter().position(|name| word.eq_ignore_ascii_case(name));
    let triple = |wide: bool| {
        words.windows(3).find_map(|window| {
            let [day, name, year] = window else { return None };
            let fits = if wide { year.len() == 4 } else { (2..=3).contains(&year.len()) };
            Some((number(day)?, month(name)?, number(year).filter(|_| fits)?, year.len()))
        })
    };
    // `Sep 1 10:00:00 2020`
    let ctime = || {
        words.windows(4).find_map(|window| {
            let [name, day, time, year] = window else { return None };
            let timed = time.matches(':').count() == 2 && year.len() == 4;
            Some((number(day).filter(|_| timed)?, month(name)?, number(year)?, 4))
        })
    };
    let (mut day, month, year, digits) = triple(true).or_else(ctime).or_else(|| triple(false))?;
    let mut year = match (digits, year) {
        (2, ..50) => year + 2000,
        (4, _) => year,
        _ => year + 1900,
    };
    let time = words.iter().find_map(|word| {
        let parts: Vec<&str> = word.split(':').collect();
        let two = |text: &str| number(text).filter(|_| text.len() == 2);
        match parts.as_slice() {
            [hour, minute] => Some((number(hour).filter(|_| hour.len() <= 2)?, two(minute)?, 0)),
            [hour, minute, second] => Some((number(hour).filter(|_| hour.len() <= 2)?, two(minute)?, two(second)?)),
            _ => None,
        }
    });
    let (hour, minute, second) = time.unwrap_or_default();
    let signed = words.iter().find_map(|word| {
        let digits = word.strip_prefix(['+', '-']).filter(|digits| digits.len() == 4)?;
        number(digits).map(|number| if word.starts_with('-') { -number } else { number })
    });
    let named = || {
        let names = words.iter().map(|word| word.trim_matches(['(', ')']));
        names
            .filter(|word| (2..=4).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_uppercase()))
            .find_map(|word| ZONES.iter().find(|(name, _)| *name == word).map(|(_, zone)| *zone))
    };
    let zone = signed.or_else(named).unwrap_or(0);
    let mut month = i64::try_from(month).ok()? + 1;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => 31,
    };
    if day > days {
        day = 1;
        month += 1;
        if month > 12 {
            (month, year) = (1, year + 1);
        }
    }
    let year = year.clamp(1970, 2037);
    let seconds = (days_of(year, month, day) * 24 + hour.min(23)) * 3600 + minute.min(59) * 60 + second.min(59);
    let offset = (zone.abs() / 100 * 60 + zone.abs() % 100) * 60;
    Some(if zone < 0 { seconds + offset } else { (seconds - offset).max(0) })
}

/// Days since 1970 in the Gregorian calendar.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let years = if month <= 2 { year - 1 } else { year };
    let era = years.div_euclid(400);
    let of_era = years.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The first `1 Sep 2020 10:00:00 +0200` in a text.
pub fn in_received(text: &str) -> Option<i64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    words
        .windows(5)
        .find_map(|window| {
            let [day, month, year, time, _] = window else { return None };
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let day = day.trim_start_matches(|c: char| !c.is_ascii_digit());
            let fits = digits(day)
                && month.chars().count() == 3
                && digits(year)
                && time.split(':').count() == 3
                && time.split(':').all(digits);
            if fits { Some(window.join(" ")) } else { None }
        })
        .and_then(|date| parse(&date))
}

/// Times of the `Received` fields, from the top; those of the own machine are left out.
pub fn received(targets: &Targets<'_>) -> Vec<i64> {
    let all: Vec<_> = targets.values("received").filter(|value| !value.trim().is_empty()).collect();
    let mut fields = all.as_slice();
    let is_local = |value: &str| {
        let from = value.split_once("from ").map_or("", |(_, rest)| rest);
        let here = from.starts_with("localhost ") || from.split(' ').take(3).any(|word| word.contains("127.0.0.1"));
        here || (value.contains("(qmail ") && value.contains(" invoked by uid "))
    };
    let fetched = |value: &str| value.contains("by localhost with ") && value.contains("(fetchmail-");
    if let [first, second, ..] = fields
        && is_local(first)
        && fetched(second)
    {
        fields = fields.get(2..).unwrap_or_default();
    } else if let [first, ..] = fields
        && fetched(first)
    {
        fields = fields.get(1..).unwrap_or_default();
    }
    fields.iter().filter_map(|value| in_received(value)).collect()
}

/// All fields that hold an id, each with a line end.
pub fn message_ids(targets: &Targets<'_>) -> String {
    let names = ["x-message-id", "resent-message-id", "x-original-message-id", "message-id"];
    names.iter().map(|name| targets.joined(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_every_form() {
        for (text, expected) in [
            ("Tue, 1 Sep 2020 10:00:00 +0200", Some(1_598_947_200)),
            ("1 Sep 2020 10:00 GMT", Some(1_598_954_400)),
            ("Tue Sep  1 10:00:00 2020", Some(1_598_954_400)),
            ("1 Sep 20 10:00:00 -0000", Some(1_598_954_400)),
            ("31 Feb 2021 25:61:00 EST", Some(1_614_661_140)),
            ("Thu, 1 Jan 1970 00:00:00 +0100", Some(0)),
            ("nonsense", None),
            ("", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        assert_eq!(in_received("from x by y; Tue, 1 Sep 2020 10:00:00 +0200"), Some(1_598_947_200));
        assert_eq!(in_received("from x by y"), None);
    }
}
