//! The way to an old server.

use std::net::SocketAddr;
use std::time::Duration;

use base::{Secret, event};
use bytes::Bytes;
use net::{Announce, Connectors, Endpoint, Outbound, Trust};

use crate::wire::Wire;
use crate::{imap, pop3, sieve, smtp};

/// What is spoken there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    Imap,
    Pop3,
    Submission,
    ManageSieve,
}

impl Protocol {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Imap => "imap",
            Self::Pop3 => "pop3",
            Self::Submission => "submission",
            Self::ManageSieve => "managesieve",
        }
    }
}

/// An old server's address for one protocol.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub endpoint: &'a Endpoint,
    pub trust: &'a Trust,
    /// It expects a PROXY header.
    pub proxy_protocol: bool,
}

/// On whose behalf we come.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    pub address: SocketAddr,
    /// As it greeted, where the protocol has that; empty otherwise.
    pub helo: &'a str,
    pub name: &'a str,
    pub password: &'a Secret<String>,
}

/// A session whose client has signed in.
#[derive(Debug)]
pub struct Opened {
    pub stream: Outbound,
    /// What the server said after it answered the sign-in.
    pub said: Bytes,
    /// IMAP: what it can do, as after `CAPABILITY `.
    pub capability: String,
}

/// Why nobody is signed in.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// The server does not take this name with this password.
    #[error("refused")]
    Refused,
    /// The password is right; another session holds the mailbox (POP3).
    #[error("another session has the mailbox")]
    InUse,
    /// The server cannot be asked now, or cannot be understood. The reason is for the log.
    #[error("{0}")]
    Unavailable(String),
}

/// Goes to old servers.
pub struct Gateway {
    connectors: Connectors,
    /// As we greet.
    host_name: String,
}

/// From the connection to the answer: longer than servers hold back a refusal, shorter than clients wait.
const SIGN_IN_WAIT: Duration = Duration::from_secs(30);

impl Gateway {
    pub fn new(host_name: &str) -> Self {
        Self { connectors: Connectors::default(), host_name: host_name.to_owned() }
    }

    /// Signs a client in. Takes at most half a minute. Cancel safe: the connection is dropped.
    pub async fn sign_in(&self, protocol: Protocol, place: Place<'_>, client: Client<'_>) -> Result<Opened, Failure> {
        let signing_in = async {
            // No protocol has a place for these in a name or password that is not a way out of it.
            let is_odd = |text: &str| text.contains(['\r', '\n', '\0']);
            if is_odd(client.name) || is_odd(client.password.reveal()) {
                return Err(Failure::Refused);
            }
            let mut wire = self.dial(place, Announce::Client(client.address)).await?;
            let capability = match protocol {
                Protocol::Imap => after_sign_in(&imap::sign_in(&mut wire, client).await?),
                Protocol::Pop3 => pop3::sign_in(&mut wire, client).await.map(|()| String::new())?,
                Protocol::Submission => {
                    smtp::sign_in(&mut wire, client, &self.host_name).await.map(|()| String::new())?
                }
                Protocol::ManageSieve => sieve::sign_in(&mut wire, client).await.map(|()| String::new())?,
            };
            let (stream, said) = wire.into_parts()?;
            Ok(Opened { stream, said, capability })
        };
        let outcome = tokio::time::timeout(SIGN_IN_WAIT, signing_in).await;
        let outcome = outcome.unwrap_or_else(|_elapsed| Err(Failure::Unavailable("no answer in time".to_owned())));
        let word = match &outcome {
            Ok(_) => "accepted",
            Err(Failure::Refused | Failure::InUse) => "refused",
            Err(Failure::Unavailable(reason)) => {
                let server = place.endpoint;
                tracing::warn!(event = event::LEGACY_FAILED, %server, protocol = protocol.as_str(), error = reason);
                "unavailable"
            }
        };
        metrics::counter!("ortler_legacy_sign_ins_total", "protocol" => protocol.as_str(), "outcome" => word)
            .increment(1);
        outcome
    }

    pub(crate) async fn dial<'a>(&'a self, place: Place<'a>, announce: Announce) -> Result<Wire<'a>, Failure> {
        let announce = if place.proxy_protocol { announce } else { Announce::Nothing };
        let opened = self.connectors.open(place.endpoint, place.trust, announce).await;
        let stream = opened.map_err(|error| Failure::Unavailable(error.to_string()))?;
        Ok(Wire::new(stream, place, &self.connectors))
    }

    pub(crate) fn host_name(&self) -> &str {
        &self.host_name
    }
}

/// Without what only matters before.
fn after_sign_in(capability: &str) -> String {
    let matters = |word: &&str| {
        let word = word.to_ascii_uppercase();
        !word.starts_with("AUTH=") && !matches!(word.as_str(), "STARTTLS" | "LOGINDISABLED" | "SASL-IR")
    };
    let words: Vec<&str> = capability.split_ascii_whitespace().filter(matters).collect();
    words.join(" ").chars().filter(|c| matches!(c, ' '..='~') && !matches!(c, '[' | ']')).collect()
}
