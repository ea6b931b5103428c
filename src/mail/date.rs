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
    }
}
