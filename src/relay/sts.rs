//! MTA-STS: what a domain says of its mail servers over HTTPS, remembered for as long as it says (RFC 8461).

use std::sync::Arc;
use std::time::Duration;

use base::{Clock, UtcMillis, event};
use mailauth::Unresolved;
use moka::sync::Cache;
use peers::{Peers, StoredPolicy};

use crate::https::{Https, HttpsError};

/// What is done with servers that do not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Mail does not go there.
    Enforce,
    /// It does, and the domain is told.
    Testing,
    /// The domain takes its policy back.
    None,
}

/// A domain's policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    pub mode: Mode,
    /// Names, some with `*.` before them, in lower case.
    pub hosts: Vec<String>,
    pub max_age: Duration,
    /// All lines, for reports.
    pub lines: Vec<String>,
}

/// RFC 8461 §3.2.
const AGE_MAX: Duration = Duration::from_secs(31_557_600);
const HOSTS_MAX: usize = 100;
const LINES_MAX: usize = 200;

impl Policy {
    /// Reads a policy (RFC 8461 §3.2).
    ///
    /// # Errors
    /// Says which key is missing or wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines: Vec<String> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).take(LINES_MAX).map(str::to_owned).collect();
        let values = |key: &str| {
            let found = lines.iter().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() == key);
            found.map(|(_, value)| value.trim().to_owned()).collect::<Vec<_>>()
        };
        // Of keys that are there twice, the first counts.
        let first = |key: &str| values(key).into_iter().next().ok_or_else(|| format!("there is no `{key}`"));
        if first("version")? != "STSv1" {
            return Err("its version is not STSv1".to_owned());
        }
        let mode = match first("mode")?.as_str() {
            "enforce" => Mode::Enforce,
            "testing" => Mode::Testing,
            "none" => Mode::None,
            other => return Err(format!("`{other}` is no mode")),
        };
        let age = first("max_age")?;
        let age: u64 = age.parse().map_err(|_| format!("`{age}` is no `max_age`"))?;
        let hosts: Vec<String> = values("mx").into_iter().take(HOSTS_MAX).map(|host| host.to_lowercase()).collect();
        if hosts.is_empty() && mode != Mode::None {
            return Err("there is no `mx`".to_owned());
        }
        Ok(Self { mode, hosts, max_age: Duration::from_secs(age).min(AGE_MAX), lines })
    }

    /// True if mail may go to a server of this name (RFC 8461 §4.1): a star stands for one label.
    pub fn holds(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_lowercase();
        self.hosts.iter().any(|known| match known.strip_prefix("*.") {
            Some(rest) => host.split_once('.').is_some_and(|(label, after)| !label.is_empty() && after == rest),
            None => *known == host,
        })
    }
}

/// What holds for a domain now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Known {
    /// It has no policy, or takes none.
    Nothing,
    Policy(Arc<Policy>),
    /// It says that it has one, which cannot be had; nothing was known before. Why, as reports name it.
    Unfetched {
        result: &'static str,
        reason: String,
    },
}

/// Policies of all domains.
pub struct Policies {
    https: Https,
    peers: Arc<Peers>,
    clock: Arc<dyn Clock>,
    /// Answers of a moment ago.
    lately: Cache<String, Known>,
}

const LATELY_MAX: u64 = 50_000;
const LATELY: Duration = Duration::from_secs(300);
/// RFC 8461 §3.3 suggests this.
const POLICY_SIZE_MAX: usize = 64 << 10;
const RECORD_SIZE_MAX: usize = 1000;

impl Policies {
    pub fn new(https: Https, peers: Arc<Peers>, clock: Arc<dyn Clock>) -> Self {
        let lately = Cache::builder().max_capacity(LATELY_MAX).time_to_live(LATELY).build();
        Self { https, peers, clock, lately }
    }

    pub fn https(&self) -> &Https {
        &self.https
    }

    /// What holds for mail to this domain. Takes as long as the DNS and a web server of the domain's take, once in five
    /// minutes.
    pub async fn of(&self, domain: &str) -> Known {
        if let Some(known) = self.lately.get(domain) {
            return known;
        }
        let known = self.look(domain).await;
        self.lately.insert(domain.to_owned(), known.clone());
        known
    }

    async fn look(&self, domain: &str) -> Known {
        let announced = self.announced(domain).await;
        let stored = match self.peers.policy(domain).await {
            Ok(stored) => stored.filter(|policy| policy.expires_at > self.clock.utc()),
            Err(error) => {
                tracing::warn!(event = event::STORE_FAILED, what = "peers", domain, %error);
                None
            }
        };
        let remembered = stored.as_ref().and_then(|stored| Policy::parse(&stored.text).ok());
        let kept = |policy: Option<Policy>| match policy {
            Some(policy) if policy.mode != Mode::None => Known::Policy(Arc::new(policy)),
            Some(_) | None => Known::Nothing,
        };
        // A record that is gone or cannot be had changes nothing about what was promised (RFC 8461 §5.1).
        let Some(id) = announced else { return kept(remembered) };
        if let Some(stored) = &stored
            && stored.id == id
            && !self.is_stale(stored)
        {
            return kept(remembered);
        }
        match self.fetch(domain).await {
            Ok((policy, text)) => {
                let now = self.clock.utc();
                let stored = StoredPolicy {
                    domain: domain.to_owned(),
                    id,
                    text,
                    fetched_at: now,
                    expires_at: now.plus(policy.max_age),
                };
                if let Err(error) = self.peers.keep_policy(&stored).await {
                    tracing::warn!(event = event::STORE_FAILED, what = "peers", domain, %error);
                }
                kept(Some(policy))
            }
            Err((result, reason)) => {
                tracing::info!(event = event::STS_FAILED, domain, result, %reason);
                match remembered {
                    Some(policy) => kept(Some(policy)),
                    None => Known::Unfetched { result, reason },
                }
            }
        }
    }

    /// Fetched anew when half of its time is over, so that it does not end while the domain still has it.
    fn is_stale(&self, stored: &StoredPolicy) -> bool {
        let whole = stored.expires_at.0.saturating_sub(stored.fetched_at.0);
        self.clock.utc() > UtcMillis(stored.fetched_at.0.saturating_add(whole / 2))
    }

    /// The `id` of the domain's record (RFC 8461 §3.1); of several records none counts.
    async fn announced(&self, domain: &str) -> Option<String> {
        let texts = match self.https.resolver.lookup_texts(&format!("_mta-sts.{domain}")).await {
            Ok(texts) => texts,
            Err(Unresolved::Absent | Unresolved::Failed) => return None,
        };
        let mut ids = texts.iter().filter(|text| text.len() <= RECORD_SIZE_MAX).filter_map(|text| record_id(text));
        let id = ids.next()?;
        ids.next().is_none().then_some(id)
    }

    async fn fetch(&self, domain: &str) -> Result<(Policy, String), (&'static str, String)> {
        let host = format!("mta-sts.{domain}");
        let answer = self.https.get(&host, "/.well-known/mta-sts.txt", POLICY_SIZE_MAX).await;
        let answer = answer.map_err(|error| {
            let result = match &error {
                HttpsError::Tls { .. } => "sts-webpki-invalid",
                HttpsError::Unreachable { .. } | HttpsError::Refused { .. } => "sts-policy-fetch-error",
            };
            (result, error.to_string())
        })?;
        if !answer.content_type.starts_with("text/plain") {
            return Err((
                "sts-policy-invalid",
                format!("{host}: its type is `{}`, not text/plain", answer.content_type),
            ));
        }
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let policy = Policy::parse(&text).map_err(|why| ("sts-policy-invalid", format!("{host}: {why}")))?;
        Ok((policy, text))
    }
}

/// `v=STSv1; id=…;`
fn record_id(text: &str) -> Option<String> {
    let mut tags = text.split(';').filter_map(|tag| tag.split_once('='));
    let (name, version) = tags.next()?;
    if (name.trim(), version.trim()) != ("v", "STSv1") {
        return None;
    }
    let id = tags.find(|(name, _)| name.trim() == "id")?.1.trim().to_owned();
    let is_id = (1..=32).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_id.then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "version: STSv1\r\nmode: enforce\r\nmx: Mail.example.test\r\nmx: *.example.net\r\nmax_age: 604800\r\n";

    #[test]
    fn policies_are_read() {
        let policy = Policy::parse(TEXT).unwrap();
        assert_eq!((policy.mode, policy.max_age), (Mode::Enforce, Duration::from_secs(604_800)));
        for (host, is_held) in [
            ("mail.example.test", true),
            ("MAIL.example.test.", true),
            ("other.example.test", false),
            ("a.example.net", true),
            ("a.b.example.net", false),
            ("example.net", false),
            (".example.net", false),
        ] {
            assert_eq!(policy.holds(host), is_held, "{host}");
        }
        assert_eq!(Policy::parse("version: STSv1\nmode: none\nmax_age: 9\n").unwrap().mode, Mode::None);
        assert_eq!(Policy::parse(&TEXT.replace("604800", "99999999999")).unwrap().max_age, AGE_MAX);
        for (text, expected) in [
            ("", "`version`"),
            ("version: STSv2\nmode: none\nmax_age: 1", "not STSv1"),
            ("version: STSv1\nmax_age: 1", "`mode`"),
            ("version: STSv1\nmode: strict\nmax_age: 1", "`strict`"),
            ("version: STSv1\nmode: enforce\nmx: a", "`max_age`"),
            ("version: STSv1\nmode: enforce\nmx: a\nmax_age: week", "`week`"),
            ("version: STSv1\nmode: enforce\nmax_age: 1", "`mx`"),
        ] {
            let error = Policy::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn records_announce_policies() {
        for (text, expected) in [
            ("v=STSv1; id=20261127T100000;", Some("20261127T100000")),
            ("v=STSv1;id=a", Some("a")),
            ("id=a; v=STSv1", None),
            ("v=STSv1", None),
            ("v=STSv1; id=a-b", None),
            ("v=spf1 -all", None),
        ] {
            assert_eq!(record_id(text).as_deref(), expected, "{text}");
        }
    }
}
