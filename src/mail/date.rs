//! Dates as mail writes them (RFC 5322 §3.3, RFC 9051 `date-time`).

use base::UtcMillis;
use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

/// `Mon, 23 Nov 2026 10:42:07 +0000`, always in UTC.
pub fn format_rfc5322(at: UtcMillis) -> String {
    format(at, 0, "%a, %d %b %Y %H:%M:%S %z")
}

/// `23-Nov-2026 10:42:07 +0000` with a zone of `offset_minutes`, as INTERNALDATE wants it (day padded by a space).
pub fn format_internal(at: UtcMillis, offset_minutes: i32) -> String {
    format(at, offset_minutes, "%e-%b-%Y %H:%M:%S %z")
}

/// `2026-11-23T10:42:07Z`, as JMAP's UTCDate (RFC 8620 §1.4).
pub fn format_utc(at: UtcMillis) -> String {
    format(at, 0, "%Y-%m-%dT%H:%M:%SZ")
}

/// The date in a `Date` field's value, if one can be read.
pub fn parse_rfc5322(text: &str) -> Option<UtcMillis> {
    jiff::fmt::rfc2822::parse(text.trim()).ok().map(|zoned| UtcMillis(zoned.timestamp().as_millisecond()))
}

/// Reads IMAP's ` 3-Nov-2026 10:42:07 +0100`.
pub fn parse_internal(text: &str) -> Option<UtcMillis> {
    let zoned = jiff::ZonedDateTime::strptime("%d-%b-%Y %H:%M:%S %z", text.trim_start()).ok()?;
    Some(UtcMillis(zoned.timestamp().as_millisecond()))
}

/// Reads `2026-11-23T10:42:07Z`, with any zone, or `2026-11-23` for its beginning in UTC.
pub fn parse_utc(text: &str) -> Option<UtcMillis> {
    let timestamp = text.parse::<Timestamp>().ok().or_else(|| format!("{text}T00:00:00Z").parse().ok())?;
    Some(UtcMillis(timestamp.as_millisecond()))
}

/// `Mon Nov 23 10:42:07 2026`, always in UTC: the date of an mbox `From ` line.
pub fn format_asctime(at: UtcMillis) -> String {
    format(at, 0, "%a %b %e %H:%M:%S %Y")
}

/// Reads the date of an mbox `From ` line: with or without seconds, a zone before or after the year or none (UTC).
pub fn parse_asctime(text: &str) -> Option<UtcMillis> {
    let words: Vec<&str> = text.split_ascii_whitespace().take(9).collect();
    let month_at = words.iter().position(|word| MONTHS.contains(word))?;
    let month = MONTHS.iter().position(|name| words.get(month_at) == Some(name))?;
    let day: i8 = words.get(month_at + 1)?.parse().ok()?;
    let mut clock = words.get(month_at + 2)?.split(':').map(|digits| digits.parse::<i8>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next().unwrap_or(Some(0))?);
    let rest = words.get(month_at + 3..)?;
    let is_year = |word: &&&str| word.len() == 4 && word.bytes().all(|b| b.is_ascii_digit());
    let year: i16 = rest.iter().find(is_year)?.parse().ok()?;
    let zone = rest.iter().find_map(|word| {
        let (sign, digits) = word.split_at_checked(1)?;
        let number: i32 = digits.parse().ok().filter(|_| digits.len() == 4 && matches!(sign, "+" | "-"))?;
        let minutes = number / 100 * 60 + number % 100;
        Some(if sign == "-" { -minutes } else { minutes })
    });
    let month = i8::try_from(month + 1).ok()?;
    let local = jiff::civil::DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    let offset = Offset::from_seconds(zone.unwrap_or(0) * 60).ok()?;
    Some(UtcMillis(offset.to_timestamp(local).ok()?.as_millisecond()))
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

fn format(at: UtcMillis, offset_minutes: i32, pattern: &str) -> String {
    let timestamp = Timestamp::from_millisecond(at.0).unwrap_or(if at.0 < 0 { Timestamp::MIN } else { Timestamp::MAX });
    let offset = Offset::from_seconds(offset_minutes.saturating_mul(60)).unwrap_or(Offset::UTC);
    timestamp.to_zoned_datetime(TimeZone::fixed(offset)).strftime(pattern).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_read_and_write() {
        let at = UtcMillis(1_793_443_327_000);
        assert_eq!(format_rfc5322(at), "Sat, 31 Oct 2026 10:42:07 +0000");
        assert_eq!(parse_rfc5322("Sat, 31 Oct 2026 11:42:07 +0100"), Some(at));
        assert_eq!(format_internal(at, 60), "31-Oct-2026 11:42:07 +0100");
        assert_eq!(parse_internal("31-Oct-2026 11:42:07 +0100"), Some(at));
        assert_eq!(format_internal(UtcMillis(0), 0), " 1-Jan-1970 00:00:00 +0000");
        assert_eq!(parse_internal(" 1-Jan-1970 00:00:00 +0000"), Some(UtcMillis(0)));
        assert_eq!(format_utc(at), "2026-10-31T10:42:07Z");
        assert_eq!(parse_rfc5322("yesterday"), None);
        assert_eq!(parse_utc("2026-10-31T11:42:07+01:00"), Some(at));
        assert_eq!(parse_utc("2026-10-31"), Some(UtcMillis(1_793_404_800_000)));
        assert_eq!(parse_utc("31 October"), None);
        assert_eq!(format_asctime(at), "Sat Oct 31 10:42:07 2026");
        for text in [
            "Sat Oct 31 10:42:07 2026",
            "Sat Oct 31 11:42:07 2026 +0100",
            "Sat Oct 31 10:42:07 GMT 2026",
            "Sat Oct 31 05:42:07 -0500 2026",
        ] {
            assert_eq!(parse_asctime(text), Some(at), "{text}");
        }
        for text in ["", "Oct", "Sat Oct 41 10:42:07 2026", "Sat Oct 31 2026", "Sat Oct 31 10:x 2026", "Oct 3 1:2 20é6"]
        {
            assert_eq!(parse_asctime(text), None, "{text}");
        }
    }
}
