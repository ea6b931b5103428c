//! The configuration as the program uses it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use base::{ByteSize, Secret};
use mail::Address;

use crate::listener::Listener;

/// What a node does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Filter,
    Store,
    Web,
}

/// An address with the number of its leading bits that count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    pub address: IpAddr,
    pub prefix: u8,
}

/// The way that mail came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    Lmtp,
    Smtp,
    Submission,
}

/// What to do while a helper service does not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhenDown {
    /// Senders are asked to try again.
    Defer,
    /// Mail goes on without it.
    Pass,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    Text,
    Json,
}

/// Certificate chain and key, both PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// How far a PostgreSQL server is trusted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PostgresTls {
    Off,
    Require,
    /// Authorities, PEM.
    VerifyFull(PathBuf),
}

/// The PostgreSQL server that several nodes share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Postgres {
    /// Connection string, perhaps with a password.
    pub url: Secret<String>,
    /// Where the log is kept, if not on the same server.
    pub trail_url: Option<Secret<String>>,
    pub password_file: Option<PathBuf>,
    pub tls: PostgresTls,
    pub connections: usize,
    pub connect_wait: Duration,
    pub statement_wait: Duration,
}

/// Mail that leaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Queue {
    /// The routing file.
    pub routes: Option<PathBuf>,
    /// Where servers of the world take mail.
    pub port: u16,
    pub connections_max: usize,
    pub first_wait: Duration,
    pub longest_wait: Duration,
    /// Zero: nobody is told of a delay.
    pub warn_after: Duration,
    pub expire_after: Duration,
    pub expire_notices_after: Duration,
    /// Certificates are compared with what DNSSEC proves.
    pub dane: bool,
    /// Domains are asked over HTTPS.
    pub mta_sts: bool,
    pub mta_sts_port: u16,
    /// Authorities, PEM; `None`: the system's.
    pub authorities: Option<PathBuf>,
}

/// Recipients that own users may write to; `None`: no limit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SendingLimits {
    pub account_hour: Option<u64>,
    pub account_day: Option<u64>,
    pub domain_hour: Option<u64>,
}

/// What mail systems tell each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reports {
    /// `None`: the postmaster.
    pub from: Option<Address>,
    pub organization: Option<String>,
    pub dmarc: bool,
    pub tls: bool,
    /// Addresses whose mail is read for reports.
    pub read: Vec<String>,
}

/// An S3-compatible object store beside the PostgreSQL server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectStore {
    /// URLs that all lead to the bucket.
    pub endpoints: Vec<String>,
    pub bucket: String,
    pub region: String,
    pub access_key: String,
    pub secret_file: PathBuf,
    pub path_style: bool,
    /// Content of this size or more goes there.
    pub from: ByteSize,
}

/// A checked configuration. Field by field it is [`crate::option::OPTIONS`], where each is documented.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Where it was read; `None`: it was made.
    pub file: Option<PathBuf>,
    pub node_name: String,
    pub data: PathBuf,
    pub roles: Vec<Role>,
    pub user: Option<String>,
    pub postmaster: Option<Address>,
    pub shutdown_wait: Duration,
    pub listeners: Vec<Listener>,
    /// `None`: self-signed.
    pub tls: Option<TlsFiles>,
    pub trusted_proxies: Vec<Network>,
    pub dns_servers: Vec<SocketAddr>,
    pub dns_timeout: Duration,
    /// Keys of a zone that is trusted, in the place of the root's.
    pub dns_trust_anchor: Option<PathBuf>,
    pub message_size_max: ByteSize,
    pub recipients_max: usize,
    pub smtp_sessions_max: usize,
    pub smtp_sessions_per_client_max: usize,
    pub memory_for_messages: ByteSize,
    pub imap_sessions_max: usize,
    pub imap_sessions_per_client_max: usize,
    pub pop3_sessions_max: usize,
    pub pop3_sessions_per_client_max: usize,
    pub web_sessions_max: usize,
    /// Without a slash at its end.
    pub web_url: Option<String>,
    /// Passwords are taken without TLS from loopback clients.
    pub plaintext_on_loopback: bool,
    /// Roles of the provider's people count only with a second factor.
    pub staff_second_factor: bool,
    pub queue: Queue,
    pub reports: Reports,
    pub sending: SendingLimits,
    pub rules: Vec<PathBuf>,
    pub policy: Option<PathBuf>,
    pub judged: Vec<Way>,
    /// Messages are learned without anybody's word.
    pub autolearn: bool,
    pub clamd: Vec<String>,
    pub countries: Option<PathBuf>,
    pub trusted_sealers: Vec<String>,
    pub dns_lists: Vec<String>,
    /// `zone=name`: the name under which the zone is asked.
    pub dns_list_keys: Vec<Secret<String>>,
    pub dns_list_wait: Duration,
    /// Zero: no limit.
    pub dns_list_questions_per_day: usize,
    pub dns_list_questions_per_second: usize,
    pub milters: Vec<String>,
    pub milter_down: WhenDown,
    /// `None`: the embedded engine.
    pub postgres: Option<Postgres>,
    /// With PostgreSQL only.
    pub object_store: Option<ObjectStore>,
    /// How long expunged messages can be brought back.
    pub undelete: Duration,
    /// Zero: never.
    pub audit_every: Duration,
    /// Of the embedded engine: below, nothing new comes in.
    pub free_space_min: ByteSize,
    /// `host:port` for other nodes.
    pub cluster_address: Option<String>,
    pub trail_retention: Duration,
    pub log_level: String,
    pub log_format: LogFormat,
}
