//! Answers that DNSSEC proves, for those who build on them: DANE (RFC 7672).

use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::{Clock as _, SystemClock, event};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as NoAnswer, NetError};
use hickory_resolver::proto::dnssec::{Proof, TrustAnchors};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use net::Tlsa;
use tokio::sync::Mutex;

use crate::resolver::{Resolver, ResolverError, Unresolved};

/// What was found, and whether it is proven.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proven<T> {
    pub found: T,
    pub is_secure: bool,
}

/// Asks with proofs.
pub(crate) struct Prover {
    resolver: TokioResolver,
    /// The zone that is trusted from the outset.
    anchor: Name,
    /// Whether the name servers let anything be proven, and when that was found.
    capable: Mutex<Option<(Instant, bool)>>,
}

/// With all questions that one leads to.
const WAIT: Duration = Duration::from_secs(10);
const ANSWERS_MAX: u64 = 20_000;
/// Servers that prove nothing may learn to.
const ASKED_AGAIN: Duration = Duration::from_secs(600);
/// Those that do are looked at again, too: the way there may have changed.
const BELIEVED_FOR: Duration = Duration::from_secs(3600);

impl Prover {
    /// `anchor_file`: DNSKEY records of a zone that is trusted, as in a zone's file; without one, the root's own keys.
    pub(crate) fn new(
        config: ResolverConfig,
        mut options: ResolverOpts,
        anchor_file: Option<&Path>,
    ) -> Result<Self, ResolverError> {
        let wrong = |file: &Path, reason: String| ResolverError { reason: format!("{}: {reason}", file.display()) };
        let (anchors, anchor) = match anchor_file {
            None => (TrustAnchors::default(), Name::root()),
            Some(file) => {
                let text = std::fs::read_to_string(file).map_err(|error| wrong(file, error.to_string()))?;
                let anchors = TrustAnchors::from_str(&text).map_err(|error| wrong(file, error.to_string()))?;
                let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with(';'));
                let name = first.and_then(|line| line.split_ascii_whitespace().next());
                let name = name.and_then(|name| Name::from_str_relaxed(name).ok());
                (anchors, name.ok_or_else(|| wrong(file, "there is no DNSKEY record".to_owned()))?)
            }
        };
        options.validate = true;
        options.cache_size = ANSWERS_MAX;
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let resolver = builder.with_options(options).with_trust_anchor(Arc::new(anchors)).build();
        let resolver = resolver.map_err(|error| ResolverError { reason: error.to_string() })?;
        Ok(Self { resolver, anchor, capable: Mutex::new(None) })
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Result<Proven<Option<Lookup>>, Unresolved> {
        let asked =
            Name::from_str_relaxed(format!("{}.", name.trim_end_matches('.'))).map_err(|_| Unresolved::Absent)?;
        self.ask_name(asked, kind).await
    }

    /// `None`: there are no such records.
    async fn ask_name(&self, name: Name, kind: RecordType) -> Result<Proven<Option<Lookup>>, Unresolved> {
        let asked = tokio::time::timeout(WAIT, self.resolver.lookup(name.clone(), kind)).await;
        match asked.map_err(|_elapsed| Unresolved::Failed)? {
            Ok(found) => {
                // A signature has been looked at with what it signs; of several one is enough.
                let signed = || found.answers().iter().filter(|record| !matches!(record.data, RData::DNSSEC(_)));
                let proofs = || signed().map(|record| record.proof);
                // What ought to be provable and is not, somebody may have put there.
                if proofs().any(|proof| matches!(proof, Proof::Bogus | Proof::Indeterminate)) {
                    tracing::info!(event = event::DNS_UNPROVEN, %name, %kind);
                    return Err(Unresolved::Failed);
                }
                let is_secure = proofs().all(|proof| proof.is_secure());
                Ok(Proven { found: Some(found), is_secure })
            }
            Err(NetError::Dns(NoAnswer::Nsec { proof, .. })) => match proof {
                Proof::Secure => Ok(Proven { found: None, is_secure: true }),
                Proof::Insecure => Ok(Proven { found: None, is_secure: false }),
                Proof::Bogus | Proof::Indeterminate => {
                    tracing::info!(event = event::DNS_UNPROVEN, %name, %kind);
                    Err(Unresolved::Failed)
                }
            },
            Err(NetError::Dns(NoAnswer::NoRecordsFound(_))) => Ok(Proven { found: None, is_secure: false }),
            Err(error) => {
                tracing::info!(event = event::DNS_UNPROVEN, %name, %kind, %error);
                Err(Unresolved::Failed)
            }
        }
    }

    /// True if the name servers give what proofs need.
    async fn is_capable(&self) -> bool {
        let now = SystemClock.now();
        let mut known = self.capable.lock().await;
        if let Some((at, is)) = *known
            && now.saturating_duration_since(at) < if is { BELIEVED_FOR } else { ASKED_AGAIN }
        {
            return is;
        }
        let is = self.ask_name(self.anchor.clone(), RecordType::SOA).await.is_ok_and(|answer| answer.is_secure);
        if known.is_none_or(|(_, was)| was != is) {
            let next_step =
                if is { "" } else { "name servers that answer with DNSSEC (dns.servers), or queue.dane = off" };
            tracing::info!(event = event::DNS_PROOFS, available = is, next_step);
        }
        *known = Some((now, is));
        is
    }
}

impl Resolver {
    /// The prover, if there is one and its name servers let it prove anything.
    async fn prover(&self) -> Option<&Prover> {
        let prover = self.prover.as_deref()?;
        (!self.is_down() && prover.is_capable().await).then_some(prover)
    }

    /// As [`Self::lookup_mail_hosts`], with whether the answer is proven, also that there are none. Without means to prove
    /// anything, nothing is. Bounded by ten seconds.
    ///
    /// # Errors
    /// [`Unresolved::Failed`] also for an answer that ought to be proven and is not.
    pub async fn prove_mail_hosts(&self, domain: &str) -> Result<Proven<Vec<(u16, String)>>, Unresolved> {
        let Some(prover) = self.prover().await else {
            return match self.lookup_mail_hosts(domain).await {
                Ok(found) => Ok(Proven { found, is_secure: false }),
                Err(Unresolved::Absent) => Ok(Proven { found: Vec::new(), is_secure: false }),
                Err(Unresolved::Failed) => Err(Unresolved::Failed),
            };
        };
        let Proven { found, is_secure } = prover.ask(domain, RecordType::MX).await?;
        let mut hosts: Vec<(u16, String)> = Vec::new();
        for record in found.iter().flat_map(Lookup::answers) {
            if let RData::MX(mx) = &record.data {
                hosts.push((mx.preference, mx.exchange.to_ascii().trim_end_matches('.').to_ascii_lowercase()));
            }
        }
        hosts.sort_unstable();
        Ok(Proven { found: hosts, is_secure })
    }

    /// Records of a mail server's certificate, where it is proven that they are there. None where nothing is proven, and
    /// none is asked for where the host's own addresses are not (RFC 7672 §2.2.2): servers that cannot answer would hold
    /// mail up. Bounded by thirty seconds.
    ///
    /// # Errors
    /// [`Unresolved::Failed`] for an answer that ought to be proven and is not, and for none: the server is not to be used.
    pub async fn lookup_tlsa(&self, host: &str, port: u16) -> Result<Vec<Tlsa>, Unresolved> {
        let Some(prover) = self.prover().await else { return Ok(Vec::new()) };
        let (v4, v6) = tokio::join!(prover.ask(host, RecordType::A), prover.ask(host, RecordType::AAAA));
        let is_secure = |asked: &Result<Proven<Option<Lookup>>, Unresolved>| {
            asked.as_ref().is_ok_and(|answer| answer.is_secure && answer.found.is_some())
        };
        match (&v4, &v6) {
            (Err(_), _) | (_, Err(_)) if !is_secure(&v4) && !is_secure(&v6) => return Err(Unresolved::Failed),
            _ if !is_secure(&v4) && !is_secure(&v6) => return Ok(Vec::new()),
            _ => {}
        }
        let Proven { found, is_secure } = prover.ask(&format!("_{port}._tcp.{host}"), RecordType::TLSA).await?;
        if !is_secure {
            return Ok(Vec::new());
        }
        let mut records = Vec::new();
        for record in found.iter().flat_map(Lookup::answers) {
            if let RData::TLSA(tlsa) = &record.data {
                records.push(Tlsa {
                    usage: tlsa.cert_usage.into(),
                    selector: tlsa.selector.into(),
                    matching: tlsa.matching.into(),
                    data: tlsa.cert_data.clone(),
                });
            }
        }
        Ok(records)
    }
}

/// How answers are proven.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ProofSettings {
    /// Nothing is proven otherwise.
    pub is_on: bool,
    /// A file with DNSKEY records of a zone that is trusted, in the place of the root's keys.
    pub trust_anchor: Option<PathBuf>,
}
