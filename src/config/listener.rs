//! Listeners: which protocol on which address.

use std::net::SocketAddr;

/// What is spoken on a listener.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Service {
    Smtp,
    Submission,
    Submissions,
    Lmtp,
    Imap,
    Imaps,
    Pop3,
    Pop3s,
    ManageSieve,
    Milter,
    Http,
    Https,
    Health,
    /// Between nodes.
    Cluster,
}

impl Service {
    /// Name in the file, and the port that a demonstration adds to its base.
    pub const ALL: [(Self, &'static str, u16); 14] = [
        (Self::Smtp, "smtp", 25),
        (Self::Submission, "submission", 587),
        (Self::Submissions, "submissions", 465),
        (Self::Lmtp, "lmtp", 24),
        (Self::Imap, "imap", 143),
        (Self::Imaps, "imaps", 993),
        (Self::Pop3, "pop3", 110),
        (Self::Pop3s, "pop3s", 995),
        (Self::ManageSieve, "managesieve", 190),
        (Self::Milter, "milter", 891),
        (Self::Http, "http", 80),
        (Self::Https, "https", 443),
        (Self::Health, "health", 90),
        (Self::Cluster, "cluster", 899),
    ];

    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(service, _, _)| *service == self).map_or("", |(_, name, _)| name)
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known, _)| *known == name).map(|(service, _, _)| *service)
    }
}

/// One address to listen on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listener {
    pub service: Service,
    pub address: SocketAddr,
}
