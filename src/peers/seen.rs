//! What is counted of other systems, and how its facts are written down.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What a count is of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// TLS with servers of a domain (RFC 8460).
    Tls,
    /// Mail whose author is of a domain (RFC 9990).
    Dmarc,
    /// Complaints about mail (RFC 5965); only received.
    Abuse,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Tls, Self::Dmarc, Self::Abuse];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Dmarc => "dmarc",
            Self::Abuse => "abuse",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// One session with a server of a domain. The form on disk: new fields have defaults.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TlsSeen {
    /// `sts`, `tlsa` or `no-policy-found` (RFC 8460 §4.4).
    pub policy: String,
    /// The policy's lines, or records.
    #[serde(default)]
    pub strings: Vec<String>,
    /// Names of servers that the policy allows.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// `None`: TLS came about as the policy asks.
    #[serde(default)]
    pub failure: Option<TlsFailure>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TlsFailure {
    /// RFC 8460 §4.3.
    pub result: String,
    /// The server's name.
    pub host: String,
    pub ip: Option<IpAddr>,
    /// Where we came from, if that was chosen.
    #[serde(default)]
    pub from: Option<IpAddr>,
    /// In words.
    #[serde(default)]
    pub reason: String,
}

/// One message and its proofs. The form on disk: new fields have defaults.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct DmarcSeen {
    pub ip: IpAddr,
    /// What was done with it, in the words of RFC 9990: `none`, `quarantine`, `reject`, and `pass` where it passed.
    pub disposition: String,
    /// Why not what the domain asks for: `local_policy`, `trusted_forwarder`; empty: as it asks.
    #[serde(default)]
    pub overridden: String,
    /// A signature, or SPF, passed for the author's domain.
    pub dkim: bool,
    pub spf: bool,
    /// Domain of the reverse-path; empty for the null one.
    pub envelope_from: String,
    pub signatures: Vec<Signature>,
    /// Domain and result of SPF.
    pub spf_domain: String,
    /// True if that is of HELO.
    #[serde(default)]
    pub spf_helo: bool,
    pub spf_result: String,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Signature {
    pub domain: String,
    pub selector: String,
    pub result: String,
}
