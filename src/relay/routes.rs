//! Where mail goes next: by the DNS, or as the administrator says in a file.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use base::Secret;
use directory::DomainRelay;
use mail::Domain;
use net::{MailHost, Security, Trust};
use serde::Deserialize;
use store::Lane;

use crate::client::{Protection, Transport};
use crate::site::{SiteRule, Sites};

/// The lane of what goes into own mailboxes.
pub const LOCAL: &str = ":local";
const VIA: &str = ":via:";

/// The routing file cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct RouteError {
    pub file: String,
    pub reason: String,
}

/// A way that the administrator gave.
#[derive(Clone, Debug)]
pub struct Route {
    pub name: String,
    recipients: Vec<Pattern>,
    senders: Vec<Pattern>,
    /// By rising priority.
    pub hosts: Vec<NextHop>,
    pub transport: Transport,
    pub login: Option<(String, Secret<String>)>,
    /// Where connections come from, in turn.
    pub sources: Vec<IpAddr>,
    /// Mail for these recipients is taken from everyone.
    pub accepts: bool,
}

/// A server of a route.
#[derive(Clone, Debug)]
pub struct NextHop {
    pub host: String,
    pub port: u16,
    pub protection: Protection,
    /// Lower goes first.
    pub priority: u16,
    /// Among those of the same priority: its share.
    pub weight: u16,
}

/// Where a lane leads.
#[derive(Clone, Debug)]
pub enum Way {
    Local,
    Via(Arc<Route>),
    /// To the servers of a domain, as the DNS has them.
    Domain(String),
    /// A route of that name is not known.
    Unknown(String),
    /// The domain of that name is not relayed any more.
    Gone(String),
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Pattern {
    All,
    /// Lower case.
    Address(String),
    Domain(String),
    /// All domains below one.
    Below(String),
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_lowercase();
        match lower.as_str() {
            "" => Err("an empty pattern".to_owned()),
            "*" => Ok(Self::All),
            text => Ok(match (text.strip_prefix('@'), text.strip_prefix('.')) {
                (Some(domain), _) => Self::Domain(domain.to_owned()),
                (None, Some(below)) => Self::Below(format!(".{below}")),
                (None, None) if text.contains('@') => Self::Address(text.to_owned()),
                (None, None) => Self::Domain(text.to_owned()),
            }),
        }
    }

    /// `address` and its `domain` in lower case.
    fn holds(&self, address: &str, domain: &str) -> bool {
        match self {
            Self::All => true,
            Self::Address(known) => known == address,
            Self::Domain(known) => known == domain,
            Self::Below(end) => domain.ends_with(end.as_str()),
        }
    }
}

/// All that is said about where mail goes, and how.
#[derive(Clone, Debug)]
pub struct Routes {
    routes: Vec<Arc<Route>>,
    pub sites: Sites,
    /// Where connections to the world come from, in turn; empty: as the system chooses.
    pub sources: Vec<IpAddr>,
}

impl Default for Routes {
    fn default() -> Self {
        Self { routes: Vec::new(), sites: Sites::shipped(), sources: Vec::new() }
    }
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    source: Vec<IpAddr>,
    #[serde(default)]
    route: Vec<RouteText>,
    #[serde(default)]
    site: Vec<SiteRule>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct RouteText {
    name: String,
    #[serde(default)]
    recipients: Vec<String>,
    #[serde(default)]
    senders: Vec<String>,
    hosts: Vec<HostText>,
    #[serde(default)]
    lmtp: bool,
    login: Option<String>,
    password_file: Option<String>,
    trust: Option<String>,
    #[serde(default)]
    source: Vec<IpAddr>,
    #[serde(default)]
    accept: bool,
}

#[derive(Deserialize, Debug)]
#[serde(untagged)]
enum HostText {
    Plain(String),
    Weighed {
        host: String,
        #[serde(default)]
        priority: u16,
        #[serde(default = "one")]
        weight: u16,
    },
}

const fn one() -> u16 {
    1
}

const NAME_MAX: usize = 60;

impl Routes {
    /// Reads a routing file.
    ///
    /// # Errors
    /// Names the file, the line where it is no TOML, and the route that is wrong.
    pub fn read(file: &Path) -> Result<Self, RouteError> {
        let fail = |reason: String| RouteError { file: file.display().to_string(), reason };
        let text = std::fs::read_to_string(file).map_err(|error| fail(error.to_string()))?;
        Self::parse(&text, file.parent()).map_err(fail)
    }

    /// `folder`: what relative paths in it are relative to.
    pub fn parse(text: &str, folder: Option<&Path>) -> Result<Self, String> {
        let parsed: FileText = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        let mut routes: Vec<Arc<Route>> = Vec::new();
        for route in parsed.route {
            let name = route.name.clone();
            let read = route.read(folder).map_err(|reason| format!("route `{name}`: {reason}"))?;
            if routes.iter().any(|known| known.name == read.name) {
                return Err(format!("route `{name}`: there are two of this name"));
            }
            routes.push(Arc::new(read));
        }
        let sites = Sites::shipped().with(parsed.site)?;
        Ok(Self { routes, sites, sources: parsed.source })
    }

    fn route_for(&self, sender: &str, recipient: &str) -> Option<&Arc<Route>> {
        let (sender, recipient) = (sender.to_lowercase(), recipient.to_lowercase());
        let of = |address: &str| address.rsplit_once('@').map_or_else(String::new, |(_, domain)| domain.to_owned());
        let (sender_domain, domain) = (of(&sender), of(&recipient));
        self.routes.iter().find(|route| {
            let holds = |patterns: &[Pattern], address: &str, domain: &str| {
                patterns.is_empty() || patterns.iter().any(|pattern| pattern.holds(address, domain))
            };
            holds(&route.senders, &sender, &sender_domain) && holds(&route.recipients, &recipient, &domain)
        })
    }

    /// The lane of a recipient who is not here.
    pub fn lane(&self, sender: &str, recipient: &str) -> Lane {
        match self.route_for(sender, recipient) {
            Some(route) => format!("{VIA}{}", route.name).into(),
            None => recipient.rsplit_once('@').map_or("", |(_, domain)| domain).to_lowercase().into(),
        }
    }

    /// True if mail for this recipient is taken from everyone, although it is not here.
    pub fn accepts(&self, recipient: &str) -> bool {
        let recipient = recipient.to_lowercase();
        let domain = recipient.rsplit_once('@').map_or("", |(_, domain)| domain);
        self.routes
            .iter()
            .any(|route| route.accepts && route.recipients.iter().any(|pattern| pattern.holds(&recipient, domain)))
    }

    pub fn way(&self, lane: &str) -> Way {
        if lane == LOCAL {
            return Way::Local;
        }
        match lane.strip_prefix(VIA) {
            None => Way::Domain(lane.to_owned()),
            Some(name) => match self.routes.iter().find(|route| route.name == name) {
                Some(route) => Way::Via(Arc::clone(route)),
                None => Way::Unknown(name.to_owned()),
            },
        }
    }

    /// The lane of a route that an administrator names, or of a domain.
    pub fn lane_named(&self, text: &str) -> Result<Lane, String> {
        let text = text.trim().to_lowercase();
        if self.routes.iter().any(|route| route.name == text) {
            return Ok(format!("{VIA}{text}").into());
        }
        let is_lane =
            text == LOCAL || text.strip_prefix(VIA).is_some_and(|name| self.routes.iter().any(|one| one.name == name));
        let is_domain =
            !text.is_empty() && text.len() <= 255 && !text.contains([':', '@', ' ', '/']) && text.contains('.');
        if is_lane || is_domain { Ok(text.into()) } else { Err(format!("`{text}` is no route and no domain")) }
    }
}

impl RouteText {
    fn read(self, folder: Option<&Path>) -> Result<Route, String> {
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        if self.name.is_empty() || self.name.len() > NAME_MAX || !self.name.chars().all(is_name) {
            return Err("a name is of lower-case letters, digits, `-`, `_` and `.`".to_owned());
        }
        if self.recipients.is_empty() && self.senders.is_empty() {
            return Err("name `recipients` or `senders`; \"*\" stands for all".to_owned());
        }
        if self.accept && (self.recipients.is_empty() || self.recipients.iter().any(|one| one.trim() == "*")) {
            return Err("`accept` takes mail from everyone: name the recipients' domains".to_owned());
        }
        if self.hosts.is_empty() {
            return Err("there are no `hosts`".to_owned());
        }
        let at = |path: &str| folder.map_or_else(|| path.into(), |folder| folder.join(path));
        let read =
            |path: &str| std::fs::read_to_string(at(path)).map_err(|error| format!("{}: {error}", at(path).display()));
        let login = match (self.login, self.password_file) {
            (None, None) => None,
            (Some(login), Some(file)) => {
                Some((login, Secret::new(read(&file)?.trim_end_matches(['\r', '\n']).to_owned())))
            }
            _ => return Err("`login` and `password_file` go together".to_owned()),
        };
        let trust = match self.trust.as_deref() {
            None | Some("system") => Trust::System,
            Some("any") => Trust::Anything,
            Some(text) => match (text.strip_prefix("sha256:"), text.strip_prefix("file:")) {
                (Some(hex), _) => Trust::Fingerprint(fingerprint(hex).ok_or("sha256: takes 64 hexadecimal digits")?),
                (None, Some(path)) => Trust::Authorities(read(path)?),
                (None, None) => {
                    return Err("`trust` is \"system\", \"any\", \"sha256:HEX\" or \"file:PATH\"".to_owned());
                }
            },
        };
        trust.check()?;
        let usual_port = if self.lmtp { 24 } else { 25 };
        let mut hosts = Vec::new();
        for host in self.hosts {
            let (text, priority, weight) = match host {
                HostText::Plain(text) => (text, 0, 1),
                HostText::Weighed { host, priority, weight } => (host, priority, weight),
            };
            let host = MailHost::parse(&text, usual_port).map_err(|error| format!("`{text}`: {error}"))?;
            hosts.push(NextHop::new(host, &trust, priority, weight));
        }
        if login.is_some()
            && hosts.iter().any(|host| matches!(host.protection, Protection::None | Protection::Opportunistic))
        {
            return Err("a password goes over TLS only: write starttls://HOST:PORT or tls://HOST:PORT".to_owned());
        }
        hosts.sort_by_key(|host| host.priority);
        let patterns = |texts: &[String]| texts.iter().map(|text| Pattern::parse(text)).collect::<Result<Vec<_>, _>>();
        Ok(Route {
            recipients: patterns(&self.recipients)?,
            senders: patterns(&self.senders)?,
            name: self.name,
            hosts,
            transport: if self.lmtp { Transport::Lmtp } else { Transport::Smtp },
            login,
            sources: self.source,
            accepts: self.accept,
        })
    }
}

impl NextHop {
    fn new(MailHost { host, port, security }: MailHost, trust: &Trust, priority: u16, weight: u16) -> Self {
        let protection = match security {
            None => Protection::Opportunistic,
            Some(Security::Plain) => Protection::None,
            Some(Security::StartTls) => Protection::Required(trust.clone()),
            Some(Security::Tls) => Protection::Implicit(trust.clone()),
        };
        Self { host, port, protection, priority, weight }
    }
}

impl Route {
    /// The way to the servers of a relayed domain, one after the other.
    pub(crate) fn of_domain(name: &Domain, relay: &DomainRelay) -> Self {
        let hosts = (0..).zip(&relay.hosts);
        Self {
            name: name.as_str().to_owned(),
            recipients: Vec::new(),
            senders: Vec::new(),
            hosts: hosts.map(|(nth, host)| NextHop::new(host.clone(), &relay.trust, nth, 1)).collect(),
            transport: if relay.lmtp { Transport::Lmtp } else { Transport::Smtp },
            login: None,
            sources: Vec::new(),
            accepts: false,
        }
    }
}

fn fingerprint(hex: &str) -> Option<[u8; 32]> {
    let digits: String = hex.chars().filter(|c| *c != ':').collect();
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    let mut out = [0; 32];
    for (at, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        source = ["192.0.2.1", "2001:db8::1"]
        [[route]]
        name = "customer"
        recipients = ["customer.test", ".customer.test"]
        hosts = [{ host = "b.customer.test:2525", priority = 20 }, { host = "a.customer.test", priority = 10, weight = 3 }]
        accept = true
        [[route]]
        name = "boxes"
        recipients = ["boxes.test"]
        hosts = ["none://192.0.2.9:24"]
        lmtp = true
        [[route]]
        name = "marketing"
        senders = ["@news.test", "Shop@example.test"]
        recipients = ["*"]
        hosts = ["starttls://smart.test:587"]
        trust = "any"
        [[site]]
        name = "slow"
        hosts = [".slow.test"]
        connections = 2
    "#;

    #[test]
    fn lanes_follow_the_first_route_that_fits() {
        let routes = Routes::parse(FILE, None).unwrap();
        for (sender, recipient, lane) in [
            ("ann@example.test", "bob@Example.NET", "example.net"),
            ("ann@example.test", "bob@customer.test", ":via:customer"),
            ("", "bob@branch.customer.test", ":via:customer"),
            ("", "bob@notcustomer.test", "notcustomer.test"),
            ("x@news.test", "bob@customer.test", ":via:customer"),
            ("x@news.test", "bob@example.net", ":via:marketing"),
            ("shop@example.test", "bob@example.net", ":via:marketing"),
            ("", "bob@boxes.test", ":via:boxes"),
            ("", "bob@[192.0.2.1]", "[192.0.2.1]"),
        ] {
            assert_eq!(&*routes.lane(sender, recipient), lane, "{sender} {recipient}");
        }
        assert!(routes.accepts("x@branch.customer.test") && !routes.accepts("x@boxes.test"));
        let Way::Via(route) = routes.way(":via:customer") else { panic!("no route") };
        let hosts: Vec<_> = route.hosts.iter().map(|one| (one.host.as_str(), one.port, one.weight)).collect();
        assert_eq!(hosts, [("a.customer.test", 25, 3), ("b.customer.test", 2525, 1)]);
        assert!(route.hosts.iter().all(|one| one.protection == Protection::Opportunistic));
        assert!(matches!(routes.way(":via:gone"), Way::Unknown(name) if name == "gone"));
        assert_eq!(routes.lane_named("Boxes").as_deref(), Ok(":via:boxes"));
        assert_eq!(routes.lane_named("example.net").as_deref(), Ok("example.net"));
        assert!(routes.lane_named("nonsense").is_err());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("route = 5", "line 1"),
            ("[[route]]\nname = \"x\"\nhosts = [\"a.test\"]", "route `x`: name `recipients`"),
            ("[[route]]\nname = \"X y\"\nrecipients = [\"*\"]\nhosts = [\"a.test\"]", "route `X y`: a name is"),
            ("[[route]]\nname = \"x\"\nrecipients = [\"*\"]\nhosts = []", "route `x`: there are no `hosts`"),
            (
                "[[route]]\nname = \"x\"\nrecipients = [\"*\"]\nhosts = [\"a.test\"]\naccept = true",
                "takes mail from everyone",
            ),
            ("[[route]]\nname = \"x\"\nrecipients = [\"*\"]\nhosts = [\"http://a.test:1\"]", "`http://a.test:1`"),
            ("[[route]]\nname = \"x\"\nrecipients = [\"*\"]\nhosts = [\"a\"]\nlogin = \"u\"", "go together"),
            ("[[route]]\nname = \"x\"\nrecipients = [\"*\"]\nhosts = [\"a\"]\ntrust = \"sha256:12\"", "64 hexadecimal"),
            ("[[route]]\nname = \"x\"\nrecipient = [\"*\"]\nhosts = [\"a\"]", "unknown field `recipient`"),
            ("[[site]]\nname = \"s\"\nhosts = [\"x\"]\nconnections = 0", "site `s`"),
        ] {
            let error = Routes::parse(text, None).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
