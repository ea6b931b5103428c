//! The caching resolver that all sender checks share.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base::{Clock as _, SystemClock};
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::{DnsError as NoAnswer, NetError};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use mail_auth::{DnsError, Error, MessageAuthenticator, Parameters, ResolverCache as _};

use crate::cache::{AnswerCache, Answers};
use crate::dnssec::{ProofSettings, Prover};
use crate::outage::Outage;

/// How names are resolved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResolverSettings {
    /// Empty: those of the system.
    pub name_servers: Vec<SocketAddr>,
    /// For one question to one server; asked at most twice.
    pub query_timeout: Duration,
    /// How long a "does not exist" is believed at most.
    pub negative_ttl_max: Duration,
    /// Per kind of record.
    pub cache_entries_max: u64,
    pub proofs: ProofSettings,
}

impl Default for ResolverSettings {
    fn default() -> Self {
        Self {
            name_servers: Vec::new(),
            query_timeout: Duration::from_secs(2),
            negative_ttl_max: Duration::from_secs(300),
            cache_entries_max: 50_000,
            proofs: ProofSettings::default(),
        }
    }
}

/// Resolves names and remembers the answers. Clones share both.
#[derive(Clone)]
pub struct Resolver {
    online: MessageAuthenticator,
    /// Knows no name server: what is not remembered fails at once.
    offline: MessageAuthenticator,
    cache: Arc<AnswerCache>,
    outage: Arc<Outage>,
    negative_ttl_max: Duration,
    pub(crate) prover: Option<Arc<Prover>>,
}

/// Records of one name that are looked at; more are left out.
const RECORDS_MAX: usize = 64;

impl Resolver {
    /// Fails if no name servers are given and the system has no readable configuration of its own.
    /// Asks nothing yet, so absent servers are found only later.
    pub fn new(settings: &ResolverSettings) -> Result<Self, ResolverError> {
        let (config, mut options) = if settings.name_servers.is_empty() {
            read_system_conf().map_err(|error| ResolverError { reason: error.to_string() })?
        } else {
            let servers = settings.name_servers.iter().map(|server| name_server(*server)).collect();
            (ResolverConfig::from_parts(None, Vec::new(), servers), ResolverOpts::default())
        };
        options.timeout = settings.query_timeout;
        options.attempts = 2;
        // Answers are kept once, parsed, in our own cache.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        let servers = config
            .name_servers()
            .iter()
            .filter_map(|server| Some(SocketAddr::new(server.ip, server.connections.first()?.port)));
        let outage = Arc::new(Outage::of(servers.collect()));
        let made = |config| {
            let made = MessageAuthenticator::new(config, options.clone());
            made.map_err(|error| ResolverError { reason: error.to_string() })
        };
        let proofs = &settings.proofs;
        let prover = match proofs.is_on {
            true => Some(Arc::new(Prover::new(config.clone(), options.clone(), proofs.trust_anchor.as_deref())?)),
            false => None,
        };
        Ok(Self {
            offline: made(ResolverConfig::from_parts(None, Vec::new(), Vec::new()))?,
            online: made(config)?.with_max_negative_ttl(settings.negative_ttl_max),
            cache: Arc::new(AnswerCache::of_at_most(settings.cache_entries_max)),
            outage,
            negative_ttl_max: settings.negative_ttl_max,
            prover,
        })
    }

    /// Notices when no name server answers any more, and when one does again. Never ends; without it every question
    /// waits for its own timeout.
    pub async fn watch(&self) {
        self.outage.watch().await;
    }

    /// Runs `work`, and once more without name servers if they turn out to be down meanwhile.
    pub(crate) async fn unless_down<T, F: Future<Output = T>>(&self, work: impl Fn() -> F) -> T {
        if self.outage.is_down() {
            return work().await;
        }
        tokio::select! {
            done = work() => return done,
            () = self.outage.begins() => {}
        }
        work().await
    }

    /// The IPv4 addresses of a name, as DNS lists need them. Bounded by the query timeout.
    pub async fn lookup_ipv4(&self, name: &str) -> Result<Arc<[Ipv4Addr]>, Unresolved> {
        let lookup = || self.authenticator().ipv4_lookup(name, Some(&self.cache.ipv4));
        match self.unless_down(lookup).await {
            Ok(answer) => Ok(answer.records),
            Err(Error::Dns(DnsError::Resolver(_)) | Error::Io(_)) => Err(Unresolved::Failed),
            Err(_) => Err(Unresolved::Absent),
        }
    }

    /// True while no name server answers.
    pub fn is_down(&self) -> bool {
        self.outage.is_down()
    }

    /// True if [`Self::lookup_ipv4`] would ask nobody.
    pub fn remembers_ipv4(&self, name: &str) -> bool {
        let key = format!("{}.", name.trim_end_matches('.').to_ascii_lowercase());
        self.cache.ipv4.get::<str>(&key).is_some()
    }

    /// The TXT records of a name, the strings of each joined (RFC 7208 §3.3), bytes that are no UTF-8 replaced. Bounded by
    /// the query timeout.
    pub async fn lookup_texts(&self, name: &str) -> Result<Arc<[Box<str>]>, Unresolved> {
        self.lookup(name, RecordType::TXT, &self.cache.texts).await
    }

    /// The same as the name servers have it now, whatever is remembered.
    pub async fn ask_texts(&self, name: &str) -> Result<Arc<[Box<str>]>, Unresolved> {
        let key = name.trim_end_matches('.').to_ascii_lowercase();
        let _ = self.cache.texts.remove::<str>(&key);
        self.lookup_texts(name).await
    }

    /// The name servers of a zone: lower case, without a final dot. Bounded by the query timeout.
    pub async fn lookup_name_servers(&self, zone: &str) -> Result<Arc<[Box<str>]>, Unresolved> {
        self.lookup(zone, RecordType::NS, &self.cache.name_servers).await
    }

    /// Where a domain takes mail (RFC 5321 §5.1), best first: preference and name, lower case, without a final dot. Bounded by
    /// the query timeout.
    pub async fn lookup_mail_hosts(&self, domain: &str) -> Result<Vec<(u16, String)>, Unresolved> {
        let found = self.lookup(domain, RecordType::MX, &self.cache.mail_hosts).await?;
        let read = |text: &str| {
            let (preference, name) = text.split_once(' ')?;
            Some((preference.parse().ok()?, name.to_owned()))
        };
        let mut hosts: Vec<(u16, String)> = found.iter().filter_map(|text| read(text)).collect();
        hosts.sort_unstable();
        Ok(hosts)
    }

    /// The addresses of a host, those of IPv6 first. Bounded by twice the query timeout.
    pub async fn lookup_addresses(&self, host: &str) -> Result<Vec<IpAddr>, Unresolved> {
        let v6 = async || self.authenticator().ipv6_lookup(host, Some(&self.cache.ipv6)).await;
        let (v6, v4) = tokio::join!(self.unless_down(v6), self.lookup_ipv4(host));
        let v6: Result<Vec<IpAddr>, Unresolved> = match v6 {
            Ok(answer) => Ok(answer.records.iter().copied().map(IpAddr::V6).collect()),
            Err(Error::Dns(DnsError::Resolver(_)) | Error::Io(_)) => Err(Unresolved::Failed),
            Err(_) => Err(Unresolved::Absent),
        };
        match (v6, v4) {
            (Ok(mut v6), Ok(v4)) => {
                v6.extend(v4.iter().copied().map(IpAddr::V4));
                Ok(v6)
            }
            (Ok(v6), Err(_)) => Ok(v6),
            (Err(_), Ok(v4)) => Ok(v4.iter().copied().map(IpAddr::V4).collect()),
            (Err(Unresolved::Absent), Err(Unresolved::Absent)) => Err(Unresolved::Absent),
            (Err(_), Err(_)) => Err(Unresolved::Failed),
        }
    }

    async fn lookup(
        &self,
        name: &str,
        kind: RecordType,
        cache: &Answers<Box<str>, Arc<[Box<str>]>>,
    ) -> Result<Arc<[Box<str>]>, Unresolved> {
        let key = name.trim_end_matches('.').to_ascii_lowercase();
        if let Some(known) = cache.get::<str>(&key) {
            return if known.is_empty() { Err(Unresolved::Absent) } else { Ok(known) };
        }
        // Absolute: no search list of this machine is tried.
        let asked = Name::from_str_relaxed(format!("{key}.")).map_err(|_| Unresolved::Absent)?;
        let lookup = || self.authenticator().resolver().lookup(asked.clone(), kind);
        let (records, until): (Arc<[Box<str>]>, _) = match self.unless_down(lookup).await {
            Ok(found) => {
                let texts = found.answers().iter().filter_map(|record| text_of(&record.data)).take(RECORDS_MAX);
                (texts.collect(), Some(found.valid_until()))
            }
            Err(NetError::Dns(NoAnswer::NoRecordsFound(none))) => {
                let ttl = none.negative_ttl.map(|seconds| Duration::from_secs(seconds.into()));
                let now = SystemClock.now();
                (Arc::new([]), ttl.map(|ttl| now + ttl.min(self.negative_ttl_max)))
            }
            Err(_) => return Err(Unresolved::Failed),
        };
        if let Some(until) = until {
            cache.insert(key.into_boxed_str(), Arc::clone(&records), until);
        }
        if records.is_empty() { Err(Unresolved::Absent) } else { Ok(records) }
    }

    pub(crate) fn authenticator(&self) -> &MessageAuthenticator {
        if self.outage.is_down() { &self.offline } else { &self.online }
    }

    /// A verifier's input with our cache.
    pub(crate) fn cached<P>(&self, input: P) -> Parameters<'_, P, AnswerCache> {
        Parameters::new(input).with_cache(self.cache.as_ref())
    }
}

fn text_of(data: &RData) -> Option<Box<str>> {
    match data {
        RData::TXT(text) => {
            let whole: Vec<u8> = text.txt_data.iter().flat_map(|part| part.iter().copied()).collect();
            Some(String::from_utf8_lossy(&whole).into())
        }
        RData::MX(mx) => {
            let host = mx.exchange.to_ascii().trim_end_matches('.').to_ascii_lowercase();
            Some(format!("{} {host}", mx.preference).into())
        }
        RData::NS(server) => Some(server.0.to_ascii().trim_end_matches('.').to_ascii_lowercase().into()),
        _ => None,
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let connections = [ProtocolConfig::Udp, ProtocolConfig::Tcp].map(|protocol| {
        let mut connection = ConnectionConfig::new(protocol);
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

/// The resolver cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no resolver: {reason}; name DNS servers in the configuration")]
pub struct ResolverError {
    pub reason: String,
}

/// Why a name gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// It has no such records.
    #[error("no such record")]
    Absent,
    /// Servers failed or did not answer: ask later.
    #[error("name servers do not answer")]
    Failed,
}
