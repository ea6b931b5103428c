//! From a lane to the servers that are tried, in order.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mail::{Enhanced, Status};
use mailauth::{Proven, Resolver, Unresolved};
use net::{Tlsa, Trust};
use peers::{Peers, TlsFailure, TlsSeen};

use crate::client::{Protection, Target, Transport};
use crate::routes::{NextHop, Route, Routes};
use crate::site::SiteRule;
use crate::sts::{Known, Mode, Policies};

/// Servers of a lane.
#[derive(Clone, Debug)]
pub struct Plan {
    /// At least one, the best first.
    pub targets: Vec<Target>,
    pub rule: SiteRule,
    /// What the domain asks of TLS, to be told how it went; `None`: it does not want to know.
    pub reporting: Option<Arc<Reporting>>,
}

/// What a domain hears about TLS with its servers (RFC 8460).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reporting {
    pub domain: String,
    /// `sts`, `tlsa` or `no-policy-found`.
    pub policy: &'static str,
    pub strings: Vec<String>,
    pub hosts: Vec<String>,
}

impl Reporting {
    pub fn seen(&self, failure: Option<TlsFailure>) -> TlsSeen {
        let Self { policy, strings, hosts, .. } = self;
        TlsSeen { policy: (*policy).to_owned(), strings: strings.clone(), hosts: hosts.clone(), failure }
    }
}

/// A server that is none: why nothing is tried.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoPlan {
    /// For good: senders are told.
    Never(Status),
    Later(Status),
}

/// What finding servers needs to know.
pub struct Finder<'a> {
    /// Without one, only routes and literals lead anywhere.
    pub resolver: Option<&'a Resolver>,
    pub routes: &'a Routes,
    /// Our own name: mail is never sent to ourselves.
    pub host_name: &'a str,
    /// Where servers of the world take mail.
    pub port: u16,
    /// Mixes servers that are as good as each other.
    pub turn: u64,
    /// What domains say of their servers over HTTPS; `None`: nobody asks.
    pub policies: Option<&'a Policies>,
    /// Who signs certificates of servers that a policy names.
    pub authorities: Trust,
    /// Is told what keeps mail from a server.
    pub peers: Option<&'a Peers>,
}

enum Promise {
    /// By DNSSEC; the records as texts.
    Dns(Protection, Vec<String>),
    Other(Protection),
}

struct KeptOut {
    /// RFC 8460 §4.3.
    result: &'static str,
    text: &'static str,
}

pub(crate) fn failure(result: &str, host: &str, target: Option<&Target>, reason: &str) -> TlsFailure {
    TlsFailure {
        result: result.to_owned(),
        host: host.to_owned(),
        ip: target.map(|target| target.address.ip()),
        from: target.and_then(|target| target.source),
        reason: reason.chars().filter(|c| !c.is_control()).take(200).collect(),
    }
}

/// Addresses that are tried (RFC 5321 §5.1 wants two at least).
const TARGETS_MAX: usize = 8;
const HOSTS_MAX: usize = 8;

const TAKES_NONE: Status = Status::fixed(556, Enhanced(5, 1, 10), "The domain takes no mail");
const NO_SERVER: Status = Status::fixed(550, Enhanced(5, 1, 2), "The domain has no mail server");
const NO_ADDRESS: Status = Status::fixed(550, Enhanced(5, 4, 4), "The domain's mail servers have no address");
const IS_US: Status =
    Status::fixed(554, Enhanced(5, 4, 6), "The domain's best mail server is this one, which does not know it");
const NO_RESOLVER: Status = Status::fixed(451, Enhanced(4, 4, 3), "This system has no name servers");
const NO_ANSWER: Status = Status::fixed(451, Enhanced(4, 4, 3), "The name servers of the domain do not answer");

impl Finder<'_> {
    /// The servers of a domain, as the DNS has them (RFC 5321 §5.1, RFC 7505), each under the protection that its domain
    /// promises: what DNSSEC proves (RFC 7672) goes before what the domain says over HTTPS (RFC 8461).
    pub async fn of_domain(&self, domain: &str) -> Result<Plan, NoPlan> {
        if let Some(ip) = literal(domain) {
            let targets = vec![self.target(domain, ip, Protection::Opportunistic)];
            return Ok(Plan { targets, rule: self.routes.sites.rule_for(domain), reporting: None });
        }
        let Some(resolver) = self.resolver else { return Err(NoPlan::Later(NO_RESOLVER)) };
        let sts = async {
            match self.policies {
                Some(policies) => policies.of(domain).await,
                None => Known::Nothing,
            }
        };
        let wants_reports = async {
            if self.peers.is_none() {
                return false;
            }
            let texts = resolver.lookup_texts(&format!("_smtp._tls.{domain}")).await;
            texts.is_ok_and(|texts| texts.iter().any(|text| text.starts_with("v=TLSRPTv1")))
        };
        let (found, sts, wants_reports) = tokio::join!(resolver.prove_mail_hosts(domain), sts, wants_reports);
        let Proven { found: mut hosts, is_secure } = found.map_err(|_| NoPlan::Later(NO_ANSWER))?;
        let is_implicit = hosts.is_empty();
        if is_implicit {
            hosts.push((0, domain.to_owned()));
        }
        if hosts.iter().all(|(_, name)| name.is_empty()) {
            return Err(NoPlan::Never(TAKES_NONE));
        }
        // Servers that are not better than we are would only hand it back.
        if let Some(own) = hosts.iter().find(|(_, name)| name.eq_ignore_ascii_case(self.host_name)).map(|(own, _)| *own)
        {
            hosts.retain(|(preference, _)| *preference < own);
        }
        let Some((_, first)) = hosts.first() else { return Err(NoPlan::Never(IS_US)) };
        let rule = self.routes.sites.rule_for(first);
        self.mix(&mut hosts);
        let mut reporting =
            Reporting { domain: domain.to_owned(), policy: "no-policy-found", strings: Vec::new(), hosts: Vec::new() };
        if let Known::Policy(policy) = &sts {
            (reporting.policy, reporting.strings) = ("sts", policy.lines.clone());
            reporting.hosts.clone_from(&policy.hosts);
        }
        let report = |reporting: &Reporting, result: &str, host: &str, reason: &str| {
            if let Some(peers) = self.peers.filter(|_| wants_reports) {
                peers.saw_tls(domain, &reporting.seen(Some(failure(result, host, None, reason))));
            }
        };
        if let Known::Unfetched { result, reason } = &sts {
            report(&Reporting { policy: "sts", ..reporting.clone() }, result, "", reason);
        }
        let (mut targets, mut is_open, mut kept_out) = (Vec::new(), false, None);
        for (_, host) in hosts.iter().take(HOSTS_MAX) {
            let protection = match self.protection(resolver, host, is_secure, &sts).await {
                Ok(Promise::Dns(protection, records)) => {
                    if reporting.policy != "tlsa" {
                        (reporting.policy, reporting.strings, reporting.hosts) = ("tlsa", Vec::new(), Vec::new());
                    }
                    reporting.strings.extend(records);
                    reporting.hosts.push(host.clone());
                    protection
                }
                Ok(Promise::Other(protection)) => protection,
                Err(KeptOut { result, text }) => {
                    report(&reporting, result, host, text);
                    kept_out = Some(format!("{host}: {text}"));
                    continue;
                }
            };
            match resolver.lookup_addresses(host).await {
                Ok(found) => targets.extend(found.into_iter().map(|ip| self.target(host, ip, protection.clone()))),
                Err(Unresolved::Absent) => {}
                Err(Unresolved::Failed) => is_open = true,
            }
            if targets.len() >= TARGETS_MAX {
                break;
            }
        }
        targets.truncate(TARGETS_MAX);
        let reporting = wants_reports.then(|| Arc::new(reporting));
        match (targets.is_empty(), is_open, kept_out) {
            (false, ..) => Ok(Plan { targets, rule, reporting }),
            (true, _, Some(why)) => Err(NoPlan::Later(Status::with_text(451, Enhanced(4, 7, 5), &why))),
            (true, true, None) => Err(NoPlan::Later(NO_ANSWER)),
            (true, false, None) if is_implicit => Err(NoPlan::Never(NO_SERVER)),
            (true, false, None) => Err(NoPlan::Never(NO_ADDRESS)),
        }
    }

    /// What is promised of a server; an error: mail does not go there.
    async fn protection(
        &self,
        resolver: &Resolver,
        host: &str,
        is_secure: bool,
        sts: &Known,
    ) -> Result<Promise, KeptOut> {
        if is_secure {
            let records = resolver.lookup_tlsa(host, self.port).await.map_err(|_| KeptOut {
                result: "dnssec-invalid",
                text: "what the DNS says of its certificate cannot be proven",
            })?;
            let texts: Vec<String> = records.iter().map(ToString::to_string).collect();
            let usable: Vec<Tlsa> = records.into_iter().filter(Tlsa::is_usable).collect();
            match (texts.is_empty(), usable.is_empty()) {
                (true, _) => {}
                // RFC 7672 §2.2: TLS, and with whoever answers.
                (false, true) => return Ok(Promise::Dns(Protection::Required(Trust::Anything), texts)),
                (false, false) => return Ok(Promise::Dns(Protection::Dane(usable.into()), texts)),
            }
        }
        Ok(Promise::Other(match sts {
            Known::Policy(policy) if policy.mode == Mode::Enforce => {
                if !policy.holds(host) {
                    return Err(KeptOut { result: "validation-failure", text: "the domain's policy does not name it" });
                }
                Protection::Required(self.authorities.clone())
            }
            Known::Policy(policy) if policy.mode == Mode::Testing => Protection::Tested(self.authorities.clone()),
            Known::Policy(_) | Known::Nothing | Known::Unfetched { .. } => Protection::Opportunistic,
        }))
    }

    /// Those of the same preference in a new order each time.
    fn mix(&self, hosts: &mut [(u16, String)]) {
        for same in hosts.chunk_by_mut(|a, b| a.0 == b.0) {
            let by = usize::try_from(self.turn % same.len() as u64).unwrap_or(0);
            same.rotate_left(by);
        }
    }

    fn target(&self, host: &str, ip: IpAddr, protection: Protection) -> Target {
        Target {
            host: host.to_owned(),
            address: SocketAddr::new(ip, self.port),
            transport: Transport::Smtp,
            protection,
            source: source(&self.routes.sources, ip, self.turn),
            login: None,
        }
    }

    /// The servers of a route, by priority and weight.
    pub async fn of_route(&self, route: &Route) -> Result<Plan, NoPlan> {
        let mut targets = Vec::new();
        let mut why = String::new();
        for hop in in_order(&route.hosts, self.turn) {
            let found: Vec<IpAddr> = match hop.host.parse() {
                Ok(ip) => vec![ip],
                // The administrator's names may be those of this machine's own files.
                Err(_) => match tokio::net::lookup_host((hop.host.as_str(), hop.port)).await {
                    Ok(found) => found.map(|address| address.ip()).collect(),
                    Err(error) => {
                        why = format!("{}: {error}", hop.host);
                        continue;
                    }
                },
            };
            targets.extend(found.into_iter().map(|ip| Target {
                host: hop.host.clone(),
                address: SocketAddr::new(ip, hop.port),
                transport: route.transport,
                protection: hop.protection.clone(),
                source: source(&route.sources, ip, self.turn),
                login: route.login.clone(),
            }));
        }
        targets.truncate(TARGETS_MAX);
        if targets.is_empty() {
            return Err(NoPlan::Later(Status::with_text(451, Enhanced(4, 4, 3), &why)));
        }
        Ok(Plan { targets, rule: self.routes.sites.rule_for_route(&route.name), reporting: None })
    }
}

/// `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3).
fn literal(domain: &str) -> Option<IpAddr> {
    let inner = domain.strip_prefix('[')?.strip_suffix(']')?;
    let inner = inner.get(..5).filter(|word| word.eq_ignore_ascii_case("ipv6:")).map_or(inner, |_| &inner[5..]);
    inner.parse().ok()
}

fn source(pool: &[IpAddr], to: IpAddr, turn: u64) -> Option<IpAddr> {
    let fitting: Vec<IpAddr> = pool.iter().copied().filter(|from| from.is_ipv4() == to.is_ipv4()).collect();
    let at = usize::try_from(turn % fitting.len().max(1) as u64).unwrap_or(0);
    fitting.get(at).copied()
}

/// By rising priority; among the same, one is chosen by weight and the others follow.
fn in_order(hosts: &[NextHop], turn: u64) -> Vec<&NextHop> {
    let mut out: Vec<&NextHop> = Vec::new();
    for same in hosts.chunk_by(|a, b| a.priority == b.priority) {
        let whole: u64 = same.iter().map(|hop| u64::from(hop.weight)).sum();
        let mut at = turn % whole.max(1);
        let chosen = same.iter().position(|hop| {
            let here = u64::from(hop.weight);
            let is_it = at < here;
            at = at.saturating_sub(here);
            is_it
        });
        let chosen = chosen.unwrap_or(0);
        out.extend(same.get(chosen));
        out.extend(same.iter().enumerate().filter(|(nth, _)| *nth != chosen).map(|(_, hop)| hop));
    }
    out
}

#[cfg(test)]
mod tests {
    use mailauth::ResolverSettings;
    use mailauth::stub::StubServer;

    use super::*;

    const ZONE: &str = "
        many.test MX 20 c.many.test
        many.test MX 10 a.many.test
        many.test MX 10 b.many.test
        a.many.test A 192.0.2.1
        a.many.test AAAA 2001:db8::1
        b.many.test A 192.0.2.2
        c.many.test A 192.0.2.3
        none.test MX 0 .
        plain.test A 192.0.2.9
        dead.test MX 10 gone.test
        late.test SERVFAIL
        half.test MX 10 late.test
        ours.test MX 5 first.test
        ours.test MX 10 us.test
        ours.test MX 20 second.test
        first.test A 192.0.2.20
        mine.test MX 10 us.test
    ";

    async fn told(finder: &Finder<'_>, domain: &str) -> String {
        match finder.of_domain(domain).await {
            Ok(plan) => plan.targets.iter().map(|one| one.address.ip().to_string()).collect::<Vec<_>>().join(" "),
            Err(NoPlan::Never(status)) => format!("never {}", status.enhanced()),
            Err(NoPlan::Later(status)) => format!("later {}", status.enhanced()),
        }
    }

    #[tokio::test]
    async fn the_dns_says_where_mail_goes() {
        let server = StubServer::start(ZONE);
        let settings = ResolverSettings { name_servers: vec![server.address()], ..ResolverSettings::default() };
        let (resolver, routes) = (Resolver::new(&settings).unwrap(), Routes::default());
        let mut finder = Finder {
            resolver: Some(&resolver),
            routes: &routes,
            host_name: "us.test",
            port: 25,
            turn: 0,
            policies: None,
            authorities: Trust::System,
            peers: None,
        };
        for (domain, expected) in [
            ("many.test", "2001:db8::1 192.0.2.1 192.0.2.2 192.0.2.3"),
            ("plain.test", "192.0.2.9"),
            ("none.test", "never 5.1.10"),
            ("nowhere.test", "never 5.1.2"),
            ("dead.test", "never 5.4.4"),
            ("late.test", "later 4.4.3"),
            ("half.test", "later 4.4.3"),
            ("ours.test", "192.0.2.20"),
            ("mine.test", "never 5.4.6"),
            ("[192.0.2.7]", "192.0.2.7"),
            ("[IPv6:2001:db8::7]", "2001:db8::7"),
        ] {
            assert_eq!(told(&finder, domain).await, expected, "{domain}");
        }
        finder.turn = 1;
        assert_eq!(told(&finder, "many.test").await, "192.0.2.2 2001:db8::1 192.0.2.1 192.0.2.3");
    }

    #[test]
    fn weights_are_shares() {
        let hop = |host: &str, priority, weight| NextHop {
            host: host.to_owned(),
            port: 25,
            protection: Protection::None,
            priority,
            weight,
        };
        let hosts = [hop("a", 1, 3), hop("b", 1, 1), hop("c", 2, 1)];
        let firsts: String = (0..8).map(|turn| in_order(&hosts, turn)[0].host.as_str()).collect();
        assert_eq!(firsts, "aaabaaab");
        let order: String = in_order(&hosts, 3).iter().map(|hop| hop.host.as_str()).collect();
        assert_eq!(order, "bac");
    }
}
