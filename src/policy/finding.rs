//! What one check saw of a message.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg};
use std::str::FromStr;
use std::sync::Arc;

/// Spam points in whole thousandths: exact, and the same in every order of adding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Score(pub i32);

impl Score {
    pub const ZERO: Self = Self(0);

    pub const fn points(whole: i32) -> Self {
        Self(whole.saturating_mul(1000))
    }

    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 1000.0
    }
}

impl FromStr for Score {
    type Err = InvalidScore;

    /// `5`, `-0.1`, `2.599`. More than three decimals are rounded; beyond ±1,000,000 is refused.
    fn from_str(text: &str) -> Result<Self, InvalidScore> {
        let value: f64 = text.trim().parse().map_err(|_| InvalidScore)?;
        if !value.is_finite() || value.abs() > 1_000_000.0 {
            return Err(InvalidScore);
        }
        #[expect(clippy::cast_possible_truncation, reason = "bounded on the line above")]
        Ok(Self((value * 1000.0).round() as i32))
    }
}

/// The text is not a score.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a score such as `2.5` or `-0.1`")]
pub struct InvalidScore;

impl fmt::Display for Score {
    /// At least one and at most three decimals: `5.0`, `-0.1`, `2.599`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, size) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        let decimals = format!("{:03}", size % 1000);
        let decimals = decimals.trim_end_matches('0');
        write!(f, "{sign}{}.{}", size / 1000, if decimals.is_empty() { "0" } else { decimals })
    }
}

impl Add for Score {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Score {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Neg for Score {
    type Output = Self;
    fn neg(self) -> Self {
        Self(self.0.saturating_neg())
    }
}

impl Sum for Score {
    fn sum<I: Iterator<Item = Self>>(scores: I) -> Self {
        scores.fold(Self::ZERO, Add::add)
    }
}

/// Why a finding matters, for people: each class has plain texts in the web interface.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ReasonClass {
    /// Words, links or form of the message.
    Content,
    /// The statistical classifier.
    Classifier,
    /// SPF, DKIM, DMARC or ARC.
    SenderProof,
    /// Lists of known good or bad senders and links.
    Reputation,
    /// A known virus.
    Virus,
    /// A file type that policy names.
    Attachment,
    /// An own allow or block list.
    OwnList,
    /// An external milter's word.
    Milter,
    /// The way in which an own account sends.
    Sending,
}

impl ReasonClass {
    /// Stable name for the trail, the API and the interface's texts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Classifier => "classifier",
            Self::SenderProof => "sender-proof",
            Self::Reputation => "reputation",
            Self::Virus => "virus",
            Self::Attachment => "attachment",
            Self::OwnList => "own-list",
            Self::Milter => "milter",
            Self::Sending => "sending",
        }
    }
}

/// When in a message's life a check speaks: the stages of the milter protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Stage {
    Connect,
    Helo,
    Mail,
    Rcpt,
    Header,
    Body,
    EndOfMessage,
}

impl Stage {
    /// Stable name for the trail and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Helo => "helo",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Header => "header",
            Self::Body => "body",
            Self::EndOfMessage => "end-of-message",
        }
    }
}

/// What one check saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    pub stage: Stage,
    /// The rule's name, such as `SPF_FAIL`: letters, digits and `_`.
    pub name: Arc<str>,
    pub score: Score,
    pub class: ReasonClass,
    /// The rule's description in English: one line.
    pub description: Arc<str>,
    /// What was seen: one line, at most 200 characters, may be empty. Never a whole body.
    pub evidence: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_read_write_and_add_exactly() {
        for (text, written) in
            [("5", "5.0"), ("-0.1", "-0.1"), ("2.599", "2.599"), ("0.0004", "0.0"), ("-12.25", "-12.25")]
        {
            assert_eq!(text.parse::<Score>().unwrap().to_string(), written);
        }
        assert!("x".parse::<Score>().is_err() && "NaN".parse::<Score>().is_err() && "1e9".parse::<Score>().is_err());
        let tenths: Score = std::iter::repeat_n(Score(100), 10).sum();
        assert_eq!(tenths, Score::points(1));
    }
}
