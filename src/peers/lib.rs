//! What mail systems tell each other about each other: their MTA-STS policies, what we saw of their TLS and of their
//! senders' proofs, to be reported to them, and what they report to us.
//!
//! Floor: 2. It must never know how mail is received or sent, or ask the DNS.
//! Main types: [`Peers`], what is kept, on either engine; [`seen`], what is counted; [`Report`], what others sent.
//! Surprise: what is seen only adds up, by day, domain and facts: nodes need not agree on anything, and one that is killed
//! loses the last seconds of its counts.

pub mod copy;
pub mod dmarc;
pub mod peers;
pub mod report;
pub mod seen;
mod tables;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod unpack;

pub use peers::{Peers, Received, StoredPolicy};
pub use report::{Abuse, DmarcReport, DmarcRow, Report, TlsPolicy, TlsReport, read};
pub use seen::{DmarcSeen, Kind, Signature, TlsFailure, TlsSeen};
