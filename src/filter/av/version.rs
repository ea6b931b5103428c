//! What clamd says of itself: `ClamAV 1.4.3/27829/Mon Nov 23 09:41:01 2026`.

use std::time::Duration;

use base::UtcMillis;

/// A scanner's program and signatures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScannerVersion {
    /// `ClamAV 1.4.3`
    pub program: String,
    /// The number of its signatures; `None` where it has none of the official ones.
    pub signatures: Option<u32>,
    /// When they were made; the server's own time zone is not told and taken for UTC.
    pub made_at: Option<UtcMillis>,
    /// The whole line, which changes with every update.
    pub line: String,
}

impl ScannerVersion {
    /// `None` if it is not clamd that answers.
    pub(super) fn parse(reply: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(reply);
        let line = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
        let mut parts = line.splitn(3, '/');
        let program = parts.next().filter(|program| program.starts_with("ClamAV"))?;
        let signatures = parts.next().and_then(|number| number.parse().ok());
        let made_at = parts.next().and_then(moment).filter(|_| signatures.is_some());
        Some(Self { program: crate::proof::one_line(program), signatures, made_at, line: crate::proof::one_line(line) })
    }

    pub(super) fn age(&self, now: UtcMillis) -> Option<Duration> {
        self.made_at.map(|made_at| now.since(made_at))
    }
}

/// `Mon Nov 23 09:41:01 2026`, as C writes it.
fn moment(text: &str) -> Option<UtcMillis> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_ascii_whitespace().skip(1);
    let (month, day, time, year) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let month = MONTHS.iter().position(|known| *known == month).and_then(|at| i64::try_from(at).ok())? + 1;
    let (day, year): (i64, i64) = (day.parse().ok()?, year.parse().ok()?);
    let mut clock = time.split(':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let is_time = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..=60).contains(&second);
    if !is_time || !(1990..3000).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since 1970, counted in years that begin with March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    Some(UtcMillis::from_secs(((days * 24 + hour) * 60 + minute) * 60 + second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let version = ScannerVersion::parse(b"ClamAV 1.4.3/27829/Mon Nov 23 09:41:01 2026\0").unwrap();
        assert_eq!((&*version.program, version.signatures), ("ClamAV 1.4.3", Some(27829)));
        // `date -u -d '2026-11-23 09:41:01' +%s`
        assert_eq!(version.made_at, Some(UtcMillis::from_secs(1_795_426_861)));
        assert_eq!(version.age(UtcMillis::from_secs(1_795_426_921)), Some(Duration::from_secs(60)));
        let bare = ScannerVersion::parse(b"ClamAV 1.0.9\n").unwrap();
        assert_eq!((bare.signatures, bare.made_at), (None, None));
        assert_eq!(ScannerVersion::parse(b"220 mail.example ESMTP"), None);
        assert_eq!(moment("Thu Feb 29 00:00:00 2024"), Some(UtcMillis::from_secs(1_709_164_800)));
        assert_eq!(moment("Thu Feb 29 9223372036854775807:00:00 2024"), None);
        assert_eq!(moment("Thu Foo 29 00:00:00 2024"), None);
    }
}
