//! What others report to us, read from the messages that bring it.

use std::net::IpAddr;

use base::UtcMillis;
use serde::{Deserialize, Serialize};

use crate::peers::Received;
use crate::seen::{Kind, Signature};
use crate::{dmarc, tls, unpack};

/// A report that came. The form on disk: new fields have defaults.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Report {
    Dmarc(DmarcReport),
    Tls(TlsReport),
    Abuse(Abuse),
}

/// What a receiver saw of mail in a domain's name (RFC 9990, and RFC 7489 before it).
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct DmarcReport {
    pub submitter: String,
    pub id: String,
    /// Seconds since 1970.
    pub begin: i64,
    pub end: i64,
    pub domain: String,
    /// What the domain asked for.
    pub policy: String,
    pub rows: Vec<DmarcRow>,
    /// The report has more rows than are read.
    #[serde(default)]
    pub is_cut: bool,
}

#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct DmarcRow {
    pub ip: Option<IpAddr>,
    pub count: u64,
    /// What was done.
    pub disposition: String,
    /// A signature, or SPF, passed for the author's domain.
    pub dkim: bool,
    pub spf: bool,
    /// Why not what the domain asked for.
    #[serde(default)]
    pub overridden: Vec<String>,
    pub header_from: String,
    pub envelope_from: String,
    pub signatures: Vec<Signature>,
    pub spf_domain: String,
    pub spf_result: String,
}

/// How TLS to a domain's servers went (RFC 8460), for one policy.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct TlsReport {
    pub submitter: String,
    pub id: String,
    /// Seconds since 1970.
    pub begin: i64,
    pub end: i64,
    pub policies: Vec<TlsPolicy>,
}

#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct TlsPolicy {
    pub domain: String,
    pub kind: String,
    pub successes: u64,
    pub failures: u64,
    pub details: Vec<TlsDetail>,
}

#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct TlsDetail {
    pub result: String,
    pub host: String,
    pub sessions: u64,
    pub reason: String,
}

/// Somebody complains about one of our messages (RFC 5965), or shows one that failed (RFC 6591).
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Abuse {
    /// `abuse`, `fraud`, `virus`, `not-spam`, `auth-failure`, `other`.
    pub feedback: String,
    pub submitter: String,
    pub domain: String,
    /// Seconds since 1970.
    pub at: i64,
    pub original_from: String,
    pub original_to: Vec<String>,
    pub ip: Option<IpAddr>,
    /// Of the message that is complained about.
    pub message_id: String,
    pub author: String,
    pub subject: String,
    /// Of `auth-failure`: what failed, and what was done.
    #[serde(default)]
    pub failure: String,
    #[serde(default)]
    pub delivery: String,
}

/// Something that looked like a report and could not be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

/// Texts in reports are cut at so many characters.
pub(crate) const TEXT_MAX: usize = 300;

/// The text without control characters, cut.
pub(crate) fn tame(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect()
}

/// All reports that a message brings; none if it is an ordinary one. Bounded in time and memory.
pub fn read(message: &[u8]) -> (Vec<Report>, Vec<Unreadable>) {
    let (mut reports, mut unreadable) = (Vec::new(), Vec::new());
    for found in unpack::candidates(message) {
        let read = match found {
            unpack::Candidate::Xml(text) => dmarc::read(&text).map(Report::Dmarc),
            unpack::Candidate::Json(text) => tls::read(&text).map(Report::Tls),
            unpack::Candidate::Feedback(abuse) => Ok(Report::Abuse(*abuse)),
            unpack::Candidate::Broken(why) => Err(Unreadable(why)),
        };
        match read {
            Ok(report) => reports.push(report),
            Err(why) => unreadable.push(why),
        }
    }
    (reports, unreadable)
}

impl Report {
    /// As it is kept: one for each domain that it is about.
    pub fn into_received(self, received_at: UtcMillis) -> Vec<Received> {
        let of = |report: &Self, kind, domain: &str, submitter: &str, begin: i64, end: i64| Received {
            domain: domain.to_lowercase(),
            kind,
            begin_at: UtcMillis(begin.saturating_mul(1000)),
            end_at: UtcMillis(end.saturating_mul(1000)),
            received_at,
            submitter: submitter.to_owned(),
            report: serde_json::to_string(report).unwrap_or_default(),
        };
        match &self {
            Self::Dmarc(report) => {
                vec![of(&self, Kind::Dmarc, &report.domain, &report.submitter, report.begin, report.end)]
            }
            Self::Abuse(abuse) => vec![of(&self, Kind::Abuse, &abuse.domain, &abuse.submitter, abuse.at, abuse.at)],
            Self::Tls(report) => {
                let one = |policy: &TlsPolicy| {
                    let alone = Self::Tls(TlsReport { policies: vec![policy.clone()], ..report.clone() });
                    of(&alone, Kind::Tls, &policy.domain, &report.submitter, report.begin, report.end)
                };
                report.policies.iter().map(one).collect()
            }
        }
    }
}
