//! From a lane to the servers that are tried, in order.

use std::net::{IpAddr, SocketAddr};

use mail::{Enhanced, Status};
use mailauth::{Resolver, Unresolved};

use crate::client::{Protection, Target, Transport};
use crate::routes::{NextHop, Route, Routes};
use crate::site::SiteRule;

/// Servers of a lane.
#[derive(Clone, Debug)]
pub struct Plan {
    /// At least one, the best first.
    pub targets: Vec<Target>,
    pub rule: SiteRule,
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
    pub resolver: &'a Resolver,
    pub routes: &'a Routes,
    /// Our own name: mail is never sent to ourselves.
    pub host_name: &'a str,
    /// Where servers of the world take mail.
    pub port: u16,
    /// Mixes servers that are as good as each other.
    pub turn: u64,
}

/// Addresses that are tried (RFC 5321 §5.1 wants two at least).
const TARGETS_MAX: usize = 8;
const HOSTS_MAX: usize = 8;

const TAKES_NONE: Status = Status::fixed(556, Enhanced(5, 1, 10), "The domain takes no mail");
const NO_SERVER: Status = Status::fixed(550, Enhanced(5, 1, 2), "The domain has no mail server");
const NO_ADDRESS: Status = Status::fixed(550, Enhanced(5, 4, 4), "The domain's mail servers have no address");
const IS_US: Status =
    Status::fixed(554, Enhanced(5, 4, 6), "The domain's best mail server is this one, which does not know it");
const NO_ANSWER: Status = Status::fixed(451, Enhanced(4, 4, 3), "The name servers of the domain do not answer");

impl Finder<'_> {
    /// The servers of a domain, as the DNS has them (RFC 5321 §5.1, RFC 7505).
    pub async fn of_domain(&self, domain: &str) -> Result<Plan, NoPlan> {
        if let Some(ip) = literal(domain) {
            let targets = vec![self.target(domain, ip)];
            return Ok(Plan { targets, rule: self.routes.sites.rule_for(domain) });
        }
        let mut hosts = match self.resolver.lookup_mail_hosts(domain).await {
            Ok(hosts) => hosts,
            Err(Unresolved::Absent) => vec![(0, domain.to_owned())],
            Err(Unresolved::Failed) => return Err(NoPlan::Later(NO_ANSWER)),
        };
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
        let (mut targets, mut is_open) = (Vec::new(), false);
        let is_implicit = hosts.len() == 1 && hosts.first().is_some_and(|(_, name)| name == domain);
        for (_, host) in hosts.iter().take(HOSTS_MAX) {
            match self.resolver.lookup_addresses(host).await {
                Ok(found) => targets.extend(found.into_iter().map(|ip| self.target(host, ip))),
                Err(Unresolved::Absent) => {}
                Err(Unresolved::Failed) => is_open = true,
            }
            if targets.len() >= TARGETS_MAX {
                break;
            }
        }
        targets.truncate(TARGETS_MAX);
        match (targets.is_empty(), is_open) {
            (false, _) => Ok(Plan { targets, rule }),
            (true, true) => Err(NoPlan::Later(NO_ANSWER)),
            (true, false) if is_implicit => Err(NoPlan::Never(NO_SERVER)),
            (true, false) => Err(NoPlan::Never(NO_ADDRESS)),
        }
    }

    /// Those of the same preference in a new order each time.
    fn mix(&self, hosts: &mut [(u16, String)]) {
        for same in hosts.chunk_by_mut(|a, b| a.0 == b.0) {
            let by = usize::try_from(self.turn % same.len() as u64).unwrap_or(0);
            same.rotate_left(by);
        }
    }

    fn target(&self, host: &str, ip: IpAddr) -> Target {
        Target {
            host: host.to_owned(),
            address: SocketAddr::new(ip, self.port),
            transport: Transport::Smtp,
            protection: Protection::Opportunistic,
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
        Ok(Plan { targets, rule: self.routes.sites.rule_for_route(&route.name) })
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
        let mut finder = Finder { resolver: &resolver, routes: &routes, host_name: "us.test", port: 25, turn: 0 };
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
