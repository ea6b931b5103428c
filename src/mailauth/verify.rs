//! What the sender can prove.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use mail::ReversePath;
use mail_auth::arc::ArcError;
use mail_auth::crypto::Algorithm;
use mail_auth::dkim::DkimError;
use mail_auth::dmarc::Policy;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::iprev::IprevResult;
use mail_auth::spf::verify::SpfParameters;
use mail_auth::{AuthenticatedMessage, DkimOutput, DkimResult, DmarcResult, DnsError, Error, SpfOutput, SpfResult};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::chain::{self, SealedSet};
use crate::resolver::Resolver;

/// The result of one method, in the words of RFC 8601 §2.7.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AuthResult {
    Pass,
    Fail,
    SoftFail,
    Neutral,
    /// Nothing to check.
    None,
    /// May be different later: DNS did not answer.
    TempError,
    /// What the domain publishes cannot be used.
    PermError,
}

impl AuthResult {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::Neutral => "neutral",
            Self::None => "none",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

/// What is known of the client that brought the message.
#[derive(Clone, Debug)]
pub struct ConnectionFacts {
    /// `None` for a message without a client: SPF and the reverse name are then not checked.
    pub ip: Option<IpAddr>,
    /// As given in HELO, EHLO or LHLO.
    pub helo: String,
    pub reverse_path: ReversePath,
    /// Our own name.
    pub host_name: String,
}

/// All results for one message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AuthOutcome {
    pub spf: Option<SpfOutcome>,
    /// One per signature that could be read, at most [`SIGNATURES_MAX`].
    pub dkim: Vec<DkimOutcome>,
    pub dmarc: DmarcOutcome,
    pub arc: ArcOutcome,
    pub iprev: Option<IprevOutcome>,
    /// DMARC failed, and a chain of forwarders that the operator trusts says that it passed before them: a local policy
    /// that overrides what the author's domain asks for (RFC 8617 §7.2.1). The results stay what they are.
    pub is_vouched: bool,
}

impl AuthOutcome {
    /// Believes intact chains of these forwarders (domains, lower case).
    pub fn trust_sealers(&mut self, trusted: &[String]) {
        let is_trusted = |sealer: &str| trusted.iter().any(|one| one.eq_ignore_ascii_case(sealer));
        self.is_vouched = self.dmarc.result == AuthResult::Fail
            && self.arc.result == AuthResult::Pass
            && chain::vouches(&self.arc.chain, &self.dmarc.domain, is_trusted);
    }
}

/// Which identity SPF looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpfIdentity {
    MailFrom,
    /// The reverse path is null (RFC 7208 §2.4).
    Helo,
}

/// Deviation: of several records at one name the first counts, where RFC 7208 §4.5 asks for `permerror`; the library
/// gives no more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpfOutcome {
    pub result: AuthResult,
    pub identity: SpfIdentity,
    /// The checked domain, as the client gave it.
    pub domain: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DkimOutcome {
    pub result: AuthResult,
    /// `d=`; empty if the signature could not be read.
    pub domain: String,
    /// `s=`
    pub selector: String,
    /// `a=`
    pub algorithm: &'static str,
    /// Why it did not pass.
    pub reason: Option<String>,
}

/// What the author's domain asks for (RFC 9989 §4.7 `p=`, as it applies to this message).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DmarcPolicy {
    None,
    Quarantine,
    Reject,
}

impl DmarcPolicy {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DmarcOutcome {
    pub result: AuthResult,
    /// The author's domain; empty if there is none or more than one.
    pub domain: String,
    pub policy: DmarcPolicy,
    /// A signature, or SPF, passed for the author's domain.
    pub dkim: bool,
    pub spf: bool,
    /// The domain asks for reports (RFC 9990).
    pub wants_reports: bool,
}

impl Default for DmarcOutcome {
    fn default() -> Self {
        Self {
            result: AuthResult::None,
            domain: String::new(),
            policy: DmarcPolicy::None,
            dkim: false,
            spf: false,
            wants_reports: false,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArcOutcome {
    pub result: AuthResult,
    /// How many sets the chain has.
    pub sets: usize,
    /// `d=` of the newest seal.
    pub sealer: Option<String>,
    /// All sets, the first forwarder's first; none unless the chain is intact.
    pub chain: Vec<SealedSet>,
}

impl Default for ArcOutcome {
    fn default() -> Self {
        Self { result: AuthResult::None, sets: 0, sealer: None, chain: Vec::new() }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IprevOutcome {
    pub result: AuthResult,
    pub ip: IpAddr,
    /// The first name that the address claims, proven only if the result is pass.
    pub name: Option<String>,
}

/// Signatures beyond these are not looked at: each costs a DNS question and a public-key operation.
pub const SIGNATURES_MAX: usize = 8;

/// Longer messages are hashed on a thread of their own, so that sessions on this one do not wait.
const INLINE_MAX: usize = 256 * 1024;

/// What the client proves without a message: SPF and its reverse name. Begun at MAIL, ready when the content is.
#[derive(Clone, Debug, Default)]
pub struct ClientProof {
    spf: Option<SpfOutput>,
    iprev: Option<IprevOutcome>,
}

/// A [`ClientProof`] in the making. Dropped, it stops.
#[derive(Debug)]
pub struct Begun {
    proof: watch::Receiver<Option<ClientProof>>,
    _task: JoinSet<()>,
}

impl Begun {
    /// Begins in a task of its own; ends within `limit`.
    pub fn now(resolver: &Resolver, facts: &ConnectionFacts, limit: Duration) -> Self {
        let (done, proof) = watch::channel(None);
        let (resolver, facts, mut task) = (resolver.clone(), facts.clone(), JoinSet::new());
        task.spawn(async move {
            let made = resolver.unless_down(|| client_proof(&resolver, &facts, limit.mul_f32(FIRST))).await;
            done.send_replace(Some(made));
        });
        Self { proof, _task: task }
    }

    /// Waits for it. Cancel safe.
    async fn proof(&self) -> ClientProof {
        let mut proof = self.proof.clone();
        // An error: the task panicked, which proves nothing.
        proof.wait_for(Option::is_some).await.map_or_else(|_| ClientProof::default(), |p| p.clone().unwrap_or_default())
    }
}

/// Share of the time for all methods but DMARC, which needs their results.
const FIRST: f32 = 0.7;

/// Checks all methods. `message` is as received, with CRLF. Ends within `limit`; what DNS did not answer by then
/// is `temperror`. `begun`: what was begun for the same facts before the message was there. Cancel safe: it changes
/// nothing but the cache.
pub async fn verify(
    resolver: &Resolver,
    facts: &ConnectionFacts,
    begun: Option<Begun>,
    message: &Bytes,
    limit: Duration,
) -> AuthOutcome {
    if message.len() <= INLINE_MAX {
        return resolver.unless_down(|| verify_here(resolver, facts, begun.as_ref(), message, limit)).await;
    }
    let (resolver, facts, message) = (resolver.clone(), facts.clone(), message.clone());
    let runtime = tokio::runtime::Handle::current();
    let verify = move || {
        let work = || verify_here(&resolver, &facts, begun.as_ref(), &message, limit);
        runtime.block_on(resolver.unless_down(work))
    };
    tokio::task::spawn_blocking(verify).await.unwrap_or_else(|_panicked| AuthOutcome {
        dmarc: DmarcOutcome { result: AuthResult::TempError, ..DmarcOutcome::default() },
        ..AuthOutcome::default()
    })
}

async fn verify_here(
    resolver: &Resolver,
    facts: &ConnectionFacts,
    begun: Option<&Begun>,
    message: &[u8],
    limit: Duration,
) -> AuthOutcome {
    let (first, last) = (limit.mul_f32(FIRST), limit.mul_f32(1.0 - FIRST));
    let parsed = AuthenticatedMessage::parse(message).map(|mut parsed| {
        let mut seen = 0;
        parsed.retain_dkim_signatures(|signature| {
            seen += 1;
            // RFC 8301 §3.1: SHA-1 proves nothing any more.
            let refused = seen > SIGNATURES_MAX || signature.a == Algorithm::RsaSha1;
            if refused { Err(DkimError::UnsupportedAlgorithm) } else { Ok(()) }
        });
        parsed
    });
    let client = async {
        match begun {
            Some(begun) => begun.proof().await,
            None => client_proof(resolver, facts, first).await,
        }
    };
    let (ClientProof { spf, iprev }, (dkim, arc)) = tokio::join!(client, async {
        match &parsed {
            Some(parsed) => tokio::join!(dkim(resolver, parsed, first), arc(resolver, parsed, first)),
            None => (Vec::new(), ArcOutcome::default()),
        }
    });
    let (identity, domain) = spf_identity(facts);
    let dmarc = match &parsed {
        Some(parsed) => {
            let unchecked = SpfOutput::new(domain.clone());
            let input = DmarcParameters::new(parsed, &dkim, &domain, spf.as_ref().unwrap_or(&unchecked));
            let mut outcome = dmarc(resolver, input, last).await;
            // SPF might have passed: without it nothing is known to fail.
            if spf.is_none() && outcome.result == AuthResult::Fail {
                outcome.result = AuthResult::None;
            }
            outcome
        }
        None => DmarcOutcome::default(),
    };
    AuthOutcome {
        spf: spf.map(|output| SpfOutcome { result: of_spf(output.result()), identity, domain }),
        dkim: dkim.iter().map(of_dkim).take(SIGNATURES_MAX).collect(),
        dmarc,
        arc,
        iprev,
        is_vouched: false,
    }
}

fn spf_identity(facts: &ConnectionFacts) -> (SpfIdentity, String) {
    match &facts.reverse_path {
        ReversePath::Address(address) => (SpfIdentity::MailFrom, address.domain.to_string()),
        ReversePath::Null => (SpfIdentity::Helo, facts.helo.clone()),
    }
}

async fn client_proof(resolver: &Resolver, facts: &ConnectionFacts, limit: Duration) -> ClientProof {
    let (_, domain) = spf_identity(facts);
    let (spf, iprev) = tokio::join!(spf(resolver, facts, &domain, limit), iprev(resolver, facts.ip, limit));
    ClientProof { spf, iprev }
}

async fn spf(resolver: &Resolver, facts: &ConnectionFacts, domain: &str, limit: Duration) -> Option<SpfOutput> {
    let ip = facts.ip?;
    let sender = facts.reverse_path.to_string();
    let input = match &facts.reverse_path {
        ReversePath::Null => SpfParameters::helo(ip, &facts.helo, &facts.host_name),
        ReversePath::Address(_) => SpfParameters::mail_from(ip, &facts.helo, &facts.host_name, &sender),
    };
    let check = resolver.authenticator().verify_spf(resolver.cached(input));
    let late = || SpfOutput::new(domain.to_owned()).with_result(SpfResult::TempError);
    Some(timeout(limit, check).await.unwrap_or_else(|_| late()))
}

async fn iprev(resolver: &Resolver, ip: Option<IpAddr>, limit: Duration) -> Option<IprevOutcome> {
    let ip = ip?;
    let Ok(output) = timeout(limit, resolver.authenticator().verify_iprev(resolver.cached(ip))).await else {
        return Some(IprevOutcome { result: AuthResult::TempError, ip, name: None });
    };
    let result = match output.result {
        IprevResult::Pass => AuthResult::Pass,
        IprevResult::Fail(_) => AuthResult::Fail,
        IprevResult::TempError(_) => AuthResult::TempError,
        IprevResult::PermError(_) => AuthResult::PermError,
        IprevResult::None => AuthResult::None,
    };
    let name = output.ptr.and_then(|names| names.first().map(|name| name.trim_end_matches('.').to_owned()));
    Some(IprevOutcome { result, ip, name })
}

async fn dkim<'x>(
    resolver: &'x Resolver,
    message: &'x AuthenticatedMessage<'x>,
    limit: Duration,
) -> Vec<DkimOutput<'x>> {
    let late = || {
        let unanswered = || DkimResult::TempError(Error::Dns(DnsError::Resolver("timed out".into())));
        let signatures = message.dkim_signatures().iter();
        signatures.map(|signature| DkimOutput::from(unanswered()).with_signature(&signature.header)).collect()
    };
    let check = resolver.authenticator().verify_dkim(resolver.cached(message));
    timeout(limit, check).await.unwrap_or_else(|_| late())
}

async fn arc<'x>(resolver: &'x Resolver, message: &'x AuthenticatedMessage<'x>, limit: Duration) -> ArcOutcome {
    match timeout(limit, resolver.authenticator().verify_arc(resolver.cached(message))).await {
        Ok(output) => {
            let result = of_dkim_result(output.result());
            let links = output.chain();
            let sets = links.iter().filter(|_| result == AuthResult::Pass).map(|link| SealedSet {
                sealer: link.seal.header.d.to_ascii_lowercase(),
                results: String::from_utf8_lossy(link.results.value).into_owned(),
            });
            let sealer = links.last().map(|link| link.seal.header.d.clone());
            ArcOutcome { result, sets: links.len(), sealer, chain: sets.collect() }
        }
        Err(_late) => {
            let sets = message.arc_seals().len();
            ArcOutcome { result: AuthResult::TempError, sets, ..ArcOutcome::default() }
        }
    }
}

async fn dmarc(resolver: &Resolver, input: DmarcParameters<'_>, limit: Duration) -> DmarcOutcome {
    let author = input.message.first_from_address().rsplit_once('@').map(|(_, domain)| domain.to_owned());
    let Ok(output) = timeout(limit, resolver.authenticator().verify_dmarc(resolver.cached(input))).await else {
        let domain = author.unwrap_or_default();
        return DmarcOutcome { result: AuthResult::TempError, domain, ..DmarcOutcome::default() };
    };
    let result = match output.result() {
        DmarcResult::Pass => AuthResult::Pass,
        DmarcResult::Fail(_) => AuthResult::Fail,
        DmarcResult::TempError(_) => AuthResult::TempError,
        DmarcResult::PermError(_) => AuthResult::PermError,
        DmarcResult::None => AuthResult::None,
    };
    let policy = match output.policy() {
        Policy::Reject => DmarcPolicy::Reject,
        Policy::Quarantine => DmarcPolicy::Quarantine,
        Policy::None | Policy::Unspecified => DmarcPolicy::None,
    };
    let dkim = *output.dkim_result() == DmarcResult::Pass;
    let spf = *output.spf_result() == DmarcResult::Pass;
    let wants_reports = output.record().is_some_and(|record| !record.rua().is_empty());
    DmarcOutcome { result, domain: output.into_domain(), policy, dkim, spf, wants_reports }
}

fn of_spf(result: SpfResult) -> AuthResult {
    match result {
        SpfResult::Pass => AuthResult::Pass,
        SpfResult::Fail => AuthResult::Fail,
        SpfResult::SoftFail => AuthResult::SoftFail,
        SpfResult::Neutral => AuthResult::Neutral,
        SpfResult::TempError => AuthResult::TempError,
        SpfResult::PermError => AuthResult::PermError,
        SpfResult::None => AuthResult::None,
    }
}

fn of_dkim_result(result: &DkimResult) -> AuthResult {
    match result {
        DkimResult::Pass => AuthResult::Pass,
        // The signature was read and the body is another one: a failed verification (RFC 8601 §2.7.1).
        DkimResult::Neutral(Error::Dkim(DkimError::BodyHashMismatch) | Error::Arc(ArcError::BodyHashMismatch))
        | DkimResult::Fail(_) => AuthResult::Fail,
        DkimResult::Neutral(_) => AuthResult::Neutral,
        DkimResult::PermError(_) => AuthResult::PermError,
        DkimResult::TempError(_) => AuthResult::TempError,
        DkimResult::None => AuthResult::None,
    }
}

fn of_dkim(output: &DkimOutput<'_>) -> DkimOutcome {
    let reason = match output.result() {
        DkimResult::Pass | DkimResult::None => None,
        DkimResult::Fail(error)
        | DkimResult::Neutral(error)
        | DkimResult::PermError(error)
        | DkimResult::TempError(error) => Some(error.to_string()),
    };
    let signature = output.signature();
    DkimOutcome {
        result: of_dkim_result(output.result()),
        domain: signature.map(|s| s.d.clone()).unwrap_or_default(),
        selector: signature.map(|s| s.s.clone()).unwrap_or_default(),
        algorithm: signature.map_or("", |s| s.a.name()),
        reason,
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
