//! What the filter is told of a message: plain values from whoever received it.

use std::net::IpAddr;

use base::UtcMillis;
use bytes::Bytes;
use mail::Envelope;

/// One message and what is known of its way here.
#[derive(Clone, Debug)]
pub struct MessageFacts {
    pub source: Source,
    pub envelope: Envelope,
    /// As received: CRLF line ends, not dot-stuffed.
    pub message: Bytes,
    pub received_at: UtcMillis,
}

/// Where a message comes from, which decides what can be checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// Another mail server, or what says it is one.
    Client {
        ip: IpAddr,
        /// HELO or EHLO, as given.
        helo: String,
        tls: bool,
    },
    /// One of our users, signed in: outbound mail. Content is checked, the sender need not prove himself again.
    Submitter { account: String, ip: Option<IpAddr> },
    /// A server we trust, by LMTP: the connection says nothing of the sender.
    Relay,
    /// A file: nothing is known but its content.
    File,
}

impl Source {
    /// The address of a client whose sender has to prove himself.
    pub fn client_ip(&self) -> Option<IpAddr> {
        match self {
            Self::Client { ip, .. } => Some(*ip),
            Self::Submitter { .. } | Self::Relay | Self::File => None,
        }
    }

    pub fn helo(&self) -> Option<&str> {
        match self {
            Self::Client { helo, .. } => Some(helo),
            Self::Submitter { .. } | Self::Relay | Self::File => None,
        }
    }

    pub const fn is_outbound(&self) -> bool {
        matches!(self, Self::Submitter { .. })
    }
}
