//! Quantities as administrators write them: `50 MB`, `10 min`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of octets. Text forms: `512`, `512 B`, `64 KB`, `50 MB`, `2 GB`, `1 TB` (powers of 1024).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ByteSize(pub u64);

impl ByteSize {
    pub const fn kib(n: u64) -> Self {
        Self(n * 1024)
    }
    pub const fn mib(n: u64) -> Self {
        Self(n * 1024 * 1024)
    }
    /// As a length in memory; saturates on machines that cannot hold it.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// What an account, or all accounts of a domain or tenant together, may hold. `None`: no limit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Quota {
    /// Sum of sizes as clients see them.
    pub size: Option<ByteSize>,
    pub messages: Option<u64>,
}

impl Quota {
    pub const UNLIMITED: Self = Self { size: None, messages: None };
}

const SIZE_UNITS: [(&str, u32); 5] = [("TB", 40), ("GB", 30), ("MB", 20), ("KB", 10), ("B", 0)];

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, shift) = SIZE_UNITS
            .into_iter()
            .find(|(_, shift)| self.0 != 0 && self.0.trailing_zeros() >= *shift)
            .unwrap_or(("B", 0));
        write!(f, "{} {unit}", self.0 >> shift)
    }
}

/// The text is not a quantity in the accepted form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a number with a unit, such as {example}")]
pub struct InvalidQuantity {
    pub example: &'static str,
}

impl FromStr for ByteSize {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let error = InvalidQuantity { example: "`50 MB`" };
        let (number, unit) = split_unit(text).ok_or_else(|| error.clone())?;
        let unit = unit.to_ascii_uppercase();
        let unit = if unit.is_empty() { "B" } else { unit.as_str() };
        let short = unit.trim_end_matches("IB").trim_end_matches('B');
        let shift =
            SIZE_UNITS.iter().find(|(name, _)| name.trim_end_matches('B') == short).ok_or_else(|| error.clone())?.1;
        number.checked_mul(1u64 << shift).map(ByteSize).ok_or(error)
    }
}

/// Reads a duration: `500 ms`, `30 s`, `10 min`, `2 h`, `5 d`. A bare number has no unit and is refused.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidQuantity> {
    let error = InvalidQuantity { example: "`30 s`, `10 min` or `5 d`" };
    let (number, unit) = split_unit(text).ok_or_else(|| error.clone())?;
    let millis_each: u64 = match unit {
        "ms" => 1,
        "s" | "sec" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(error),
    };
    number.checked_mul(millis_each).map(Duration::from_millis).ok_or(error)
}

/// Writes a duration in the largest unit that keeps it whole, in the form that [`parse_duration`] reads.
pub fn format_duration(span: Duration) -> String {
    let millis = span.as_millis();
    let (each, unit) = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")]
        .into_iter()
        .find(|(each, _)| millis != 0 && millis.is_multiple_of(*each))
        .unwrap_or((1, "ms"));
    format!("{} {unit}", millis / each)
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_write() {
        for (text, bytes, written) in [
            ("0", 0, "0 B"),
            ("512", 512, "512 B"),
            ("50 MB", 50 << 20, "50 MB"),
            ("64kb", 65536, "64 KB"),
            ("2GiB", 2 << 30, "2 GB"),
            ("1536", 1536, "1536 B"),
            ("1 TB", 1 << 40, "1 TB"),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
            assert_eq!(ByteSize(bytes).to_string(), written);
        }
        for text in ["", "MB", "-1", "5 XB", "99999999999999999999", "99999999999 TB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn durations_read_and_write() {
        for text in ["500 ms", "30 s", "10 min", "2 h", "5 d"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
        assert!(parse_duration("10").is_err() && parse_duration("1 week").is_err());
    }
}
