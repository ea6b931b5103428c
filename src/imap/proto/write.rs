//! Responses into a buffer, without values in between: a FETCH of 10,000 messages writes here 10,000 times.

use std::ops::RangeInclusive;

use base::UtcMillis;
use mail::utf7;
use store::{MailboxName, SystemFlags};

/// Decimal digits.
pub fn number(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut left = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn two_digits(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&[b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8]);
}

/// Quoted where RFC 3501 lets a quoted string hold it, else a literal. NUL, which neither may hold, becomes a space.
pub fn string(out: &mut Vec<u8>, text: &[u8]) {
    let fits =
        text.len() <= QUOTED_LENGTH_MAX && text.iter().all(|b| matches!(b, 1..=0x7f) && !matches!(b, b'\r' | b'\n'));
    if !fits {
        literal_head(out, text.len() as u64);
        out.extend(text.iter().map(|b| if *b == 0 { b' ' } else { *b }));
        return;
    }
    out.push(b'"');
    if memchr::memchr2(b'"', b'\\', text).is_none() {
        out.extend_from_slice(text);
    } else {
        for byte in text {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(*byte);
        }
    }
    out.push(b'"');
}

/// Some clients read quoted strings into small buffers.
const QUOTED_LENGTH_MAX: usize = 1000;

pub fn nstring(out: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        Some(text) => string(out, text),
        None => out.extend_from_slice(b"NIL"),
    }
}

/// `{5}` and its line end; the octets follow.
pub fn literal_head(out: &mut Vec<u8>, size: u64) {
    out.push(b'{');
    number(out, size);
    out.extend_from_slice(b"}\r\n");
}

pub fn mailbox(out: &mut Vec<u8>, name: &MailboxName) {
    string(out, utf7::encode(name.as_str()).as_bytes());
}

/// `(\Seen Work)`
pub fn flags<'a>(out: &mut Vec<u8>, system: SystemFlags, keywords: impl Iterator<Item = &'a str>) {
    out.push(b'(');
    let start = out.len();
    let names = SystemFlags::ALL.iter().filter(|(flag, _)| system.contains(*flag)).map(|(_, name)| *name);
    for name in names.chain(keywords) {
        if out.len() > start {
            out.push(b' ');
        }
        out.extend_from_slice(name.as_bytes());
    }
    out.push(b')');
}

/// `1:3,7`
pub fn ranges(out: &mut Vec<u8>, ranges: &[RangeInclusive<u32>]) {
    for (at, range) in ranges.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        number(out, (*range.start()).into());
        if range.end() > range.start() {
            out.push(b':');
            number(out, (*range.end()).into());
        }
    }
}

/// `"23-Nov-2026 10:42:07 +0000"`, always in UTC.
pub fn internal_date(out: &mut Vec<u8>, at: UtcMillis) {
    let secs = at.as_secs().clamp(0, 253_402_300_799);
    let (year, month, day) = civil_from_days(secs / 86_400);
    let clock = (secs % 86_400) as u32;
    out.push(b'"');
    if day < 10 {
        out.extend_from_slice(&[b' ', b'0' + day as u8]);
    } else {
        two_digits(out, day);
    }
    out.push(b'-');
    out.extend_from_slice(MONTHS[(month as usize).clamp(1, 12) - 1].as_bytes());
    out.push(b'-');
    two_digits(out, year / 100);
    two_digits(out, year % 100);
    for (mark, value) in [(b' ', clock / 3600), (b':', clock / 60 % 60), (b':', clock % 60)] {
        out.push(mark);
        two_digits(out, value);
    }
    out.extend_from_slice(b" +0000\"");
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Gregorian year, month and day of a day number from 1970 on. Counts years from March, so that the leap day is last.
fn civil_from_days(days: i64) -> (u32, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year as u32, month as u32, day as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn tokens() {
        for (value, text) in [(0, "0"), (10, "10"), (u64::MAX, "18446744073709551615")] {
            assert_eq!(written(|out| number(out, value)), text);
        }
        for (text, expected) in [
            (&b"a \"b\" \\"[..], "\"a \\\"b\\\" \\\\\""),
            (b"", "\"\""),
            (b"a\r\nb", "{4}\r\na\r\nb"),
            (b"a\0b", "{3}\r\na b"),
            ("é".as_bytes(), "{2}\r\né"),
        ] {
            assert_eq!(written(|out| string(out, text)), expected);
        }
        assert_eq!(written(|out| mailbox(out, &"Entwürfe".parse().unwrap())), "\"Entw&APw-rfe\"");
        assert_eq!(written(|out| ranges(out, &[1..=3, 7..=7])), "1:3,7");
        let both = SystemFlags::SEEN.with(SystemFlags::DRAFT);
        assert_eq!(written(|out| flags(out, both, ["A"].into_iter())), "(\\Seen \\Draft A)");
        assert_eq!(written(|out| flags(out, SystemFlags::default(), [].into_iter())), "()");
    }

    #[test]
    fn dates_agree_with_the_calendar() {
        for secs in (0..4_102_444_800).step_by(86_400 * 13 + 3_601) {
            let at = UtcMillis::from_secs(secs);
            assert_eq!(written(|out| internal_date(out, at)), format!("\"{}\"", mail::date::format_internal(at, 0)));
        }
    }
}
